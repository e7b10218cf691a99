//! Stripes: parts of a counter, one for each thread, so that threads share no cache line.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of stripes. Further threads share them.
pub(crate) const STRIPES: usize = 16;

/// Returns the number of the calling thread's stripe, below [`STRIPES`].
#[inline]
pub(crate) fn stripe_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    MINE.with(|mine| *mine)
}
