//! The crew: cores that nobody computes on, lent to the kernels of whoever does.
//!
//! A sensor belongs to one worker, and its window to one thread, however many cores are idle. So a
//! kernel cuts its rows into pieces, and a helper for each idle core takes some of them. Where
//! all cores compute there are no helpers and a kernel is one piece. Every value is one thread's
//! sum in the same order: nothing shows how many there were.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;

/// What a piece is worth at least: the time that so many multiply-adds of a convolution take.
const LEAST: usize = 1 << 19;
/// Pieces for each core: who comes late, or is held up by another program, does fewer.
const EACH: usize = 4;
/// How often a helper looks for the next kernel before it sleeps: some tens of microseconds.
const LOOKS: usize = 3000;

/// Runs `work`, a stage's or a program's, whose kernels may use the cores that are idle; meanwhile
/// this thread's counts as busy.
///
/// Outside of it a kernel runs on its own thread alone. For a program with threads of its own: cores
/// are idle that no thread computes on in here.
pub fn helped<T>(work: impl FnOnce() -> T) -> T {
    if HELPED.replace(true) {
        return work();
    }
    CREW.idle.fetch_sub(1, Ordering::Relaxed);
    let _busy = Busy;
    work()
}

thread_local! {
    /// Whether this thread is in [`helped`].
    static HELPED: Cell<bool> = const { Cell::new(false) };
}

struct Busy;

impl Drop for Busy {
    fn drop(&mut self) {
        HELPED.set(false);
        CREW.idle.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls `make(first row, rows)` for bands of rows that together are all of `out`, rows of `row`
/// values; all of it takes as long as `cost` multiply-adds.
pub(crate) fn rows<T: Send>(
    out: &mut [T],
    row: usize,
    cost: usize,
    make: impl Fn(usize, &mut [T]) + Sync,
) {
    let band = (out.len() / row.max(1)).div_ceil(pieces(cost)).max(1);
    if band * row >= out.len() {
        return make(0, out);
    }
    let bands = out.chunks_mut(band * row).enumerate().collect();
    each(bands, |(at, rows)| make(at * band, rows));
}

/// Into how many pieces a kernel should be cut that takes as long as `cost` multiply-adds.
fn pieces(cost: usize) -> usize {
    #[cfg(test)]
    if let Some(pieces) = CUT.get() {
        return pieces;
    }
    if cost < 2 * LEAST || !HELPED.get() {
        return 1;
    }
    match CREW.idle.load(Ordering::Relaxed) {
        idle @ 1.. => (cost / LEAST).min(EACH * (1 + idle as usize)),
        _ => 1,
    }
}

/// Calls `make` once with each of the pieces, on as many idle cores as have one to do.
fn each<P: Send>(pieces: Vec<P>, make: impl Fn(P) + Sync) {
    CREW.each(pieces, make);
}

struct Crew {
    /// Cores without a thread that computes; below 0 where threads share them.
    idle: AtomicIsize,
    helpers: Vec<Helper>,
}

static CREW: LazyLock<Crew> =
    LazyLock::new(|| Crew::of(std::thread::available_parallelism().map_or(1, usize::from)));

impl Crew {
    fn of(cores: usize) -> Self {
        let helpers = (1..cores).map(|_| Helper::default()).collect();
        Self { idle: AtomicIsize::new(cores as isize), helpers }
    }

    fn each<P: Send>(&'static self, pieces: Vec<P>, make: impl Fn(P) + Sync) {
        let all = pieces.len();
        let pieces: Vec<_> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
        let hired = self.hire(all.saturating_sub(1));
        let hands = hired.len() + 1;
        // Everyone begins with a share of their own, which is the same in every kernel: what they
        // read they often wrote themselves, and have it in their cache.
        let work = |hand: usize| {
            for at in 0..all {
                // Threads that have come since need the core themselves.
                if hand > 0 && self.idle.load(Ordering::Relaxed) < 0 {
                    return;
                }
                let piece = lock(&pieces[(hand * all / hands + at) % all]).take();
                piece.into_iter().for_each(&make);
            }
        };
        let called = Called::call(self, &hired, &work);
        work(0);
        drop(called);
    }

    /// At most so many helpers, one for each core that is idle; until they are let go, none is.
    fn hire(&'static self, most: usize) -> Vec<&'static Helper> {
        let some = |idle: isize| idle.clamp(0, most as isize);
        let take = |idle| Some(idle - some(idle));
        let (Ok(idle) | Err(idle)) =
            self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let free = |helper: &&Helper| !helper.hired.swap(true, Ordering::Acquire);
        let hired: Vec<_> = self.helpers.iter().filter(free).take(some(idle) as usize).collect();
        self.idle.fetch_add(some(idle) - hired.len() as isize, Ordering::Relaxed);
        hired
    }
}

/// What a helper does, told which of the hands it is.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// A thread that works for one kernel at a time.
#[derive(Default)]
struct Helper {
    hired: AtomicBool,
    /// Whether there is something to do.
    called: AtomicBool,
    /// What that is. It is locked for as long as it is done.
    work: Mutex<Option<(Work<'static>, usize)>>,
    /// Begun when it is first called; `None` where the system refused.
    thread: OnceLock<Option<Thread>>,
}

impl Helper {
    fn call(&'static self, crew: &'static Crew, work: Work<'static>, hand: usize) {
        *lock(&self.work) = Some((work, hand));
        self.called.store(true, Ordering::Release);
        let begin = || {
            let thread = std::thread::Builder::new().name("crew".to_owned());
            Some(thread.spawn(|| self.attend(crew)).ok()?.thread().clone())
        };
        if let Some(thread) = self.thread.get_or_init(begin) {
            thread.unpark();
        }
    }

    fn attend(&self, crew: &Crew) {
        let mut looks = 0;
        loop {
            if self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::Acquire) {
                let mut told = lock(&self.work);
                if let Some((work, hand)) = told.take() {
                    work(hand);
                }
                looks = 0;
            } else if looks < LOOKS && self.may_look(crew) {
                looks += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }

    /// Whether its core is still its own: lent to it, or nobody's.
    fn may_look(&self, crew: &Crew) -> bool {
        let lent = self.hired.load(Ordering::Relaxed);
        crew.idle.load(Ordering::Relaxed) + isize::from(lent) > 0
    }

    /// Takes back what it has not begun, or waits until that is done. `false` where it panicked.
    fn dismiss(&self, crew: &Crew) -> bool {
        let mut looks = 0;
        loop {
            match self.work.try_lock() {
                Ok(mut work) => {
                    *work = None;
                    break;
                }
                Err(TryLockError::Poisoned(_)) => return false,
                // It is at its last piece, unless another program has taken its core.
                Err(TryLockError::WouldBlock) if looks < LOOKS => {
                    looks += 1;
                    std::hint::spin_loop();
                }
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        self.hired.store(false, Ordering::Release);
        crew.idle.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Helpers at work, until it is dropped.
struct Called<'a> {
    crew: &'static Crew,
    helpers: &'a [&'static Helper],
}

impl<'a> Called<'a> {
    fn call(crew: &'static Crew, helpers: &'a [&'static Helper], work: Work<'a>) -> Self {
        let called = Self { crew, helpers };
        // SAFETY: a helper uses it only while it holds the lock under which it is handed over;
        // before `'a` ends `drop` has taken it back under that lock.
        #[allow(unsafe_code)]
        let work = unsafe { std::mem::transmute::<Work<'a>, Work<'static>>(work) };
        (1..).zip(helpers).for_each(|(hand, helper)| helper.call(crew, work, hand));
        called
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        let dismiss = |well, helper: &&Helper| helper.dismiss(self.crew) && well;
        let well = self.helpers.iter().fold(true, dismiss);
        assert!(well || std::thread::panicking(), "a helper panicked; it has said why");
    }
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
thread_local! {
    /// Into how many pieces kernels are cut, whatever they cost and whoever is idle.
    pub(crate) static CUT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What `work` makes where every kernel on this thread is cut into so many pieces.
#[cfg(test)]
pub(crate) fn cut<T>(pieces: usize, work: impl FnOnce() -> T) -> T {
    CUT.set(Some(pieces));
    let made = work();
    CUT.set(None);
    made
}
