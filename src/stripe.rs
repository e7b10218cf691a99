//! Stripes: parts of a counter, so that threads share no cache line. A thread owns the stripe of
//! its number until it ends; if all have owners, it shares one with others.

mod owners;

use owners::Owners;

use crate::atomic::{AtomicU64, AtomicUsize};

/// Number of stripes that one thread owns.
pub(crate) const OWNED: usize = 32;
/// Number of stripes that the threads beyond share.
pub(crate) const SHARED: usize = 8;

type AllOwners = Owners<OWNED, SHARED>;

/// The owners of the stripes. They are the same in all engines.
static OWNERS: AllOwners = Owners {
    taken: AtomicU64::new(0),
    next: AtomicUsize::new(0),
};

/// The number of a stripe that a thread owns until it ends; from [`OWNED`] on, of a shared one.
struct Ownership(usize);

impl Drop for Ownership {
    fn drop(&mut self) {
        OWNERS.give_back(self.0);
    }
}

/// Returns the number of this thread's stripe; that of a shared one while the thread ends.
#[inline]
pub(crate) fn stripe_number() -> usize {
    thread_local! {
        static MINE: Ownership = Ownership(OWNERS.take());
    }
    MINE.try_with(|mine| mine.0).unwrap_or(OWNED)
}

/// Adds to a counter of the stripe with [`stripe_number`].
#[inline]
pub(crate) fn add(number: usize, counter: &AtomicU64, count: u64) {
    AllOwners::add(number, counter, count);
}
