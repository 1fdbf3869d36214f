//! Decoded chunks, bounded in bytes, the least recently used forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Which chunk: the variable and the place of the chunk in its grid.
pub(super) type Key = (usize, Vec<u64>);

/// A cache that threads share. The newest chunk is kept even where it alone is over the bound.
pub(super) struct Cache {
    bound: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chunks: HashMap<Key, (u64, Arc<[f32]>)>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    /// A cache of at most `bound` bytes.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, state: Mutex::default() }
    }

    /// The chunk, if it is here.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<[f32]>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { chunks, by_use, clock, .. } = &mut *state;
        let (used, chunk) = chunks.get_mut(key)?;
        *clock += 1;
        if let Some(key) = by_use.remove(used) {
            by_use.insert(*clock, key);
        }
        *used = *clock;
        Some(Arc::clone(chunk))
    }

    /// Whether the chunk is here, which is no use of it.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).chunks.contains_key(key)
    }

    /// Keeps the chunk, and forgets others until the bound holds.
    pub(super) fn put(&self, key: Key, chunk: Arc<[f32]>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { chunks, by_use, clock, bytes } = &mut *state;
        *clock += 1;
        *bytes += size_of_val(&*chunk);
        by_use.insert(*clock, key.clone());
        if let Some((used, old)) = chunks.insert(key, (*clock, chunk)) {
            by_use.remove(&used);
            *bytes -= size_of_val(&*old);
        }
        while *bytes > self.bound && chunks.len() > 1 {
            let Some((_, key)) = by_use.pop_first() else { break };
            if let Some((_, old)) = chunks.remove(&key) {
                *bytes -= size_of_val(&*old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_least_recently_used() {
        let cache = Cache::new(8);
        let chunk = |value: f32| Arc::from([value]);
        cache.put((0, vec![0]), chunk(0.0));
        cache.put((0, vec![1]), chunk(1.0));
        assert!(cache.get(&(0, vec![0])).is_some());
        cache.put((0, vec![2]), chunk(2.0));
        let held = [0, 1, 2].map(|at| cache.get(&(0, vec![at])).is_some());
        assert_eq!(held, [true, false, true]);
        assert_eq!(cache.state.lock().unwrap().bytes, 8);
    }
}
