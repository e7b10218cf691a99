//! Ownership of stripes: at most one live thread owns a stripe, and the next owner finds all counts
//! of the last one.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The owners of `OWNED` stripes, at most 64. Threads that find no free stripe share `SHARED` more.
#[derive(Debug)]
pub(crate) struct Owners<const OWNED: usize, const SHARED: usize> {
    /// The stripes that live threads own, one bit each.
    pub(crate) taken: AtomicU64,
    /// Number of threads that have found no stripe of their own: they take the shared ones in turn.
    pub(crate) next: AtomicUsize,
}

impl<const OWNED: usize, const SHARED: usize> Owners<OWNED, SHARED> {
    /// Takes the first stripe that no live thread owns, else a shared one.
    pub(crate) fn take(&self) -> usize {
        let free = |taken: u64| {
            let number = taken.trailing_ones();
            ((number as usize) < OWNED).then(|| taken | 1 << number)
        };
        // Acquires what the last owner has counted: the next plain addition builds on it.
        let taken = self
            .taken
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, free);
        match taken {
            Ok(before) => before.trailing_ones() as usize,
            Err(_) => OWNED + self.next.fetch_add(1, Ordering::Relaxed) % SHARED,
        }
    }

    /// Gives back the stripe of a thread that ends. A shared one stays shared.
    pub(crate) fn give_back(&self, number: usize) {
        if number < OWNED {
            self.taken.fetch_and(!(1 << number), Ordering::Release);
        }
    }

    /// Adds to a counter of this thread's stripe.
    #[inline]
    pub(crate) fn add(number: usize, counter: &AtomicU64, count: u64) {
        if number < OWNED {
            // No other thread writes to this counter.
            let before = counter.load(Ordering::Relaxed);
            counter.store(before.wrapping_add(count), Ordering::Relaxed);
        } else {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}
