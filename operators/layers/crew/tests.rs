//! Who helps, and that nobody can tell by the results.

use std::rc::Rc;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use candle_core::{Tensor, Var};
use physicnet_stream::Failure;
use timely::dataflow::operators::vec::ToStream;

use super::super::tests::{conv, wave};
use super::super::{
    Boundary, avg_pool, gated, join, onto, per_lead, pixel_shuffle, pixel_unshuffle, sum, sum_relu,
    upsample_bilinear, warp, warp_planes,
};
use super::*;
use crate::experts::flow;
use crate::stage::{Turn, stage};

fn crew(cores: usize) -> &'static Crew {
    Box::leak(Box::new(Crew::of(cores)))
}

fn idle(crew: &Crew) -> isize {
    crew.idle.load(Ordering::Relaxed)
}

#[test]
fn every_piece_is_made_once_whoever_helps() {
    let shared = crew(4);
    let client = |seed: usize| {
        // An interpreter, who sees each of its steps, needs fewer.
        for round in 0..if cfg!(miri) { 4 } else { 500 } {
            let count = (seed + round) % 9;
            let made: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            shared.each((0..count).collect(), |piece| {
                made[piece].fetch_add(1, Ordering::Relaxed);
            });
            assert!(made.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        }
    };
    std::thread::scope(|scope| {
        (0..6).for_each(|seed| {
            scope.spawn(move || client(seed));
        });
    });
    assert_eq!(idle(shared), 4);
}

#[test]
fn idle_cores_work_at_the_same_time() {
    let crew = crew(4);
    crew.idle.fetch_sub(1, Ordering::Relaxed);
    for _ in 0..if cfg!(miri) { 3 } else { 20 } {
        // Nobody passes before all four have come.
        let (together, others) = (Barrier::new(4), AtomicUsize::new(0));
        let own = std::thread::current().id();
        crew.each(vec![(); 4], |()| {
            together.wait();
            let other = std::thread::current().id() != own;
            others.fetch_add(other.into(), Ordering::Relaxed);
        });
        assert_eq!((others.into_inner(), idle(crew)), (3, 3));
    }
}

#[test]
fn busy_cores_are_left_alone() {
    let crew = crew(3);
    let own = std::thread::current().id();
    for (busy, helpers) in [(1, 2), (2, 1), (3, 0), (5, 0)] {
        crew.idle.store(3 - busy, Ordering::Relaxed);
        let hired = crew.hire(7);
        assert_eq!((hired.len(), idle(crew)), (helpers, (3 - busy).min(0)));
        drop(Called { crew, helpers: &hired });
        assert_eq!(idle(crew), 3 - busy);
        if helpers == 0 {
            crew.each(vec![(); 9], |()| assert_eq!(std::thread::current().id(), own));
        }
    }
}

#[test]
fn a_helper_leaves_when_its_core_is_needed() {
    let crew = crew(2);
    crew.idle.fetch_sub(1, Ordering::Relaxed);
    let (together, own) = (Barrier::new(2), std::thread::current().id());
    let others = AtomicUsize::new(0);
    crew.each((0..8).collect(), |piece| {
        let other = std::thread::current().id() != own;
        others.fetch_add(other.into(), Ordering::Relaxed);
        if [0, 4].contains(&piece) {
            // Another worker begins to compute while both are at their first piece.
            crew.idle.fetch_sub(isize::from(other), Ordering::Relaxed);
            together.wait();
        }
    });
    assert_eq!(others.into_inner(), 1);
    assert_eq!(idle(crew), 0);
}

#[test]
fn a_panic_of_a_helper_is_the_callers() {
    let crew = crew(2);
    let together = Barrier::new(2);
    let own = std::thread::current().id();
    let work = std::panic::AssertUnwindSafe(|| {
        crew.each(vec![(); 2], |()| {
            together.wait();
            assert_eq!(std::thread::current().id(), own, "this one is meant");
        });
    });
    assert!(std::panic::catch_unwind(work).is_err());
    // It is not asked again.
    crew.each(vec![(); 5], |()| assert_eq!(std::thread::current().id(), own));
}

#[test]
fn only_what_is_large_is_cut_and_only_where_one_may() {
    let large = 100 * LEAST;
    assert_eq!(pieces(large), 1);
    helped(|| {
        helped(|| assert!(HELPED.get()));
        assert!(HELPED.get());
        assert_eq!(pieces(2 * LEAST - 1), 1);
        assert!(pieces(large) <= EACH * (1 + CREW.helpers.len()));
    });
    assert!(!HELPED.get());
    let panics = std::panic::catch_unwind(|| helped(|| panic!("this one is meant")));
    assert!(panics.is_err() && !HELPED.get());
}

#[test]
fn the_stages_of_a_job_are_helped() {
    let done = timely::execute_directly(|worker| {
        let (done, failure) = (Rc::new(Cell::new(0)), Failure::default());
        let count = Rc::clone(&done);
        worker.dataflow::<u64, _, _>(|scope| {
            let logic = move |items: Vec<u32>| {
                assert!(HELPED.get());
                count.set(count.get() + items.len());
                Ok(items)
            };
            stage((0..3).to_stream(scope), "Test", Turn::All, |_| 1, failure, |_| (), logic);
        });
        while worker.step() {}
        assert!(!HELPED.get());
        done.get()
    });
    assert_eq!(done, 3);
}

fn bits(x: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Holds what `make` makes in one piece against the same in several.
fn however_it_is_cut(what: &str, make: impl Fn() -> Vec<u32>) {
    let whole = make();
    for pieces in [1, 2, 3, 7] {
        assert!(cut(pieces, &make) == whole, "{what} in {pieces} pieces");
    }
}

#[test]
fn a_convolution_is_the_same_however_it_is_cut() {
    for [b, h, w, cin, cout] in [
        [1, 1, 1, 1, 1],
        [3, 5, 7, 2, 10],
        [2, 7, 1, 17, 33],
        [1, 16, 16, 16, 16],
        [4, 3, 9, 6, 20],
        [1, 41, 33, 5, 9],
        // More rows than one band of the cache.
        [1, 29, 31, 72, 24],
    ] {
        for (k, boundary) in [(1, Boundary::Open), (3, Boundary::Open), (3, Boundary::Periodic)] {
            let x = wave(&[b, h, w, cin], 0.0);
            let layer = conv(&wave(&[cout, cin, k, k], 3.0), &wave(&[cout], 5.0), boundary);
            let what = format!("{k} x {k} of {:?}, {boundary:?}", x.dims());
            however_it_is_cut(&what, || bits(&layer.forward(&x).unwrap()));
            however_it_is_cut(&what, || bits(&layer.forward_relu(&x).unwrap()));
            however_it_is_cut(&what, || bits(&layer.train(&x, true).unwrap()));
        }
    }
}

#[test]
fn what_is_carried_is_the_same_however_it_is_cut() {
    for [b, h, w, c, leads] in
        [[1, 1, 1, 1, 1], [2, 5, 7, 1, 3], [3, 16, 16, 2, 10], [1, 33, 20, 3, 2]]
    {
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let image = wave(&[b, h, w, c], 1.0);
            let flow = (wave(&[b, h, w, 2 * leads], 7.0) * 5.0).unwrap();
            let what = format!("{:?} along {leads}, {boundary:?}", image.dims());
            however_it_is_cut(&what, || bits(&warp(&image, &flow, boundary).unwrap()));
            let [image, flow] =
                [image, flow].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let first = &flow[..2 * h * w];
            let to_bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
            however_it_is_cut(&what, || to_bits(flow::displacements(first, h, w, leads, boundary)));
            however_it_is_cut(&what, || {
                let mut out = vec![0.0; leads * c * h * w];
                let (image, flow) = (&image[..h * w * c], &flow[..2 * leads * h * w]);
                warp_planes(image, flow, [h, w, c], boundary, &mut out);
                to_bits(out)
            });
        }
    }
}

#[test]
fn what_is_moved_and_mixed_is_the_same_however_it_is_cut() {
    for (r, [b, h, w, c]) in
        [(1, [1, 3, 3, 3]), (2, [2, 3, 5, 4]), (3, [3, 5, 2, 9]), (4, [1, 9, 4, 16])]
    {
        let (fine, coarse) = (wave(&[b, h * r, w * r, c], 0.0), wave(&[b, h, w, c], 2.0));
        let folded = wave(&[b, h, w, c * r * r], 3.0);
        let what = format!("{:?} by {r}", coarse.dims());
        however_it_is_cut(&what, || bits(&pixel_unshuffle(&fine, r).unwrap()));
        however_it_is_cut(&what, || bits(&pixel_shuffle(&folded, r).unwrap()));
        however_it_is_cut(&what, || bits(&avg_pool(&fine, r).unwrap()));
        for boundary in [Boundary::Open, Boundary::Periodic] {
            however_it_is_cut(&what, || bits(&upsample_bilinear(&coarse, r, boundary).unwrap()));
        }
    }
}

#[test]
fn one_pass_gives_the_bits_of_several_however_it_is_cut() {
    for (r, [b, h, w, leads, c]) in
        [(1, [1, 3, 3, 3, 1]), (2, [2, 3, 5, 4, 2]), (4, [1, 9, 4, 10, 1]), (8, [3, 2, 3, 1, 3])]
    {
        let (coarse, depth) = (wave(&[b, h, w, leads], 2.0), leads * c);
        let [field, residual] = [0.0, 7.0].map(|phase| wave(&[b, h * r, w * r, depth], phase));
        let base = wave(&[b, h * r, w * r, leads], 3.0);
        let what = format!("{:?} by {r}, {c} channels", coarse.dims());
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let fine = upsample_bilinear(&coarse, r, boundary).unwrap();
            // Tensors that are trained go the long way.
            let trained = |x: &Tensor| Var::from_tensor(x).unwrap().as_tensor().clone();
            let sums = bits(&(&base + &fine).unwrap());
            let make = |coarse: &Tensor| bits(&onto(&base, coarse, r, boundary).unwrap());
            assert!(make(&trained(&coarse)) == sums, "{what}");
            however_it_is_cut(&what, || make(&coarse));
            assert!(make(&coarse) == sums, "{what}");
            let blended = (per_lead(&fine, &field).unwrap() + &residual).unwrap();
            let make = |gate: &Tensor| bits(&gated(gate, &field, &residual, r, boundary).unwrap());
            assert!(make(&trained(&coarse)) == bits(&blended), "{what}");
            however_it_is_cut(&what, || make(&coarse));
            assert!(make(&coarse) == bits(&blended), "{what}");
        }
        let side_by_side = bits(&Tensor::cat(&[&field, &base, &residual], 3).unwrap());
        however_it_is_cut(&what, || bits(&join(&[&field, &base, &residual]).unwrap()));
        assert!(bits(&join(&[&field, &base, &residual]).unwrap()) == side_by_side, "{what}");
        let both = (&field + &residual).unwrap();
        however_it_is_cut(&what, || bits(&sum(&field, &residual).unwrap()));
        assert!(bits(&sum(&field, &residual).unwrap()) == bits(&both), "{what}");
        however_it_is_cut(&what, || bits(&sum_relu(&field, &residual).unwrap()));
        let above = both.relu().unwrap();
        assert!(bits(&sum_relu(&field, &residual).unwrap()) == bits(&above), "{what}");
    }
    let (two, three) = (wave(&[1, 2, 2, 3], 0.0), wave(&[1, 2, 3, 3], 0.0));
    assert!(join(&[&two, &three]).is_err(), "of other rows");
    assert!(onto(&two, &three, 2, Boundary::Open).is_err(), "of another size");
    assert!(gated(&two, &three, &three, 1, Boundary::Open).is_err(), "of another size");
    assert!(sum(&two, &three).is_err(), "of another size");
}
