//! Memory for the planes of forecasts, used again once nobody holds them any more.
//!
//! Verification holds forecasts for as long as their leads take. Given back to the allocator one by
//! one, what they leave is handed out to the tensors of every stage, which then work outside the
//! caches: that took as long as the sums.

use std::collections::HashMap;
use std::sync::Arc;

/// The most bytes that are kept.
const MOST: usize = 64 << 20;
/// How many are looked at for one that is free: the next in turn nearly always is.
const LOOKS: usize = 8;

/// The planes that were handed out, by how many values they have.
#[derive(Default)]
pub(super) struct Pool {
    rings: HashMap<usize, Ring>,
    bytes: usize,
}

/// Planes of one size in the order in which they were handed out, from `next` on, around.
#[derive(Default)]
struct Ring {
    planes: Vec<Arc<Vec<f32>>>,
    next: usize,
}

impl Pool {
    /// Planes of `count` values in all that `fill` writes, every one: before, they are anything.
    pub(super) fn planes(&mut self, count: usize, fill: impl FnOnce(&mut [f32])) -> Arc<Vec<f32>> {
        let ring = self.rings.entry(count).or_default();
        let len = ring.planes.len();
        for at in (0..len.min(LOOKS)).map(|look| (ring.next + look) % len) {
            if let Some(free) = Arc::get_mut(&mut ring.planes[at]) {
                fill(free);
                ring.next = (at + 1) % len;
                return Arc::clone(&ring.planes[at]);
            }
        }
        let mut made = vec![0.0; count];
        fill(&mut made);
        let made = Arc::new(made);
        if self.bytes + size_of_val(&made[..]) <= MOST {
            self.bytes += size_of_val(&made[..]);
            // As the last of the turn: what follows was handed out longest ago.
            ring.planes.insert(ring.next, Arc::clone(&made));
            ring.next = (ring.next + 1) % ring.planes.len();
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_used_again() {
        let mut pool = Pool::default();
        let mut held = std::collections::VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for round in 0..200 {
            let planes = pool.planes(6, |out| out.fill(round as f32));
            places.insert(planes.as_ptr());
            held.push_back((round, planes));
            if held.len() > 20 {
                held.pop_front();
            }
            for (round, planes) in &held {
                assert_eq!(**planes, [*round as f32; 6]);
            }
        }
        // All others that there were had been let go of.
        assert!(places.len() <= 22, "{}", places.len());
        let other = pool.planes(5, |out| out.fill(1.0));
        assert_eq!((other.len(), pool.bytes), (5, places.len() * 24 + 20));
        // More than is kept is made anew each time.
        let large = MOST / 4 + 1;
        assert_eq!(pool.planes(large, |out| out[0] = 1.0).len(), large);
        assert!(pool.bytes <= MOST && pool.rings[&large].planes.is_empty());
    }
}
