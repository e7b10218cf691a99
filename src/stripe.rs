//! Stripes: parts of a counter, so that threads share no cache line. A thread owns the stripe of
//! its number until it ends; if all have owners, it shares one with others.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Number of stripes that one thread owns.
pub(crate) const OWNED: usize = 32;
/// Number of stripes that the threads beyond share.
pub(crate) const SHARED: usize = 8;

/// The stripes that live threads own, one bit each. They are the same in all engines.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Threads that have found no stripe of their own: they take the shared ones in turn.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The number of a stripe that a thread owns until it ends; from [`OWNED`] on, of a shared one.
struct Ownership(usize);

impl Ownership {
    /// Takes the first stripe that no live thread owns.
    fn take() -> Self {
        let free = |taken: u64| {
            let number = taken.trailing_ones();
            ((number as usize) < OWNED).then(|| taken | 1 << number)
        };
        // Acquires what the last owner has counted: the next plain addition builds on it.
        match TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, free) {
            Ok(before) => Self(before.trailing_ones() as usize),
            Err(_) => Self(OWNED + NEXT.fetch_add(1, Ordering::Relaxed) % SHARED),
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if self.0 < OWNED {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

/// Returns the number of this thread's stripe; that of a shared one while the thread ends.
#[inline]
pub(crate) fn stripe_number() -> usize {
    thread_local! {
        static MINE: Ownership = Ownership::take();
    }
    MINE.try_with(|mine| mine.0).unwrap_or(OWNED)
}
