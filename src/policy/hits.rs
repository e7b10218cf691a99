//! Number of new sessions decided by each rule.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stripe::stripe_number;

/// Number of stripes; threads with larger numbers share them.
const STRIPES: usize = 16;

/// Counters of a cache line, and one more line: two stripes share none.
const PADDING: usize = 16;

/// A counter for each place of a rule. The first 16 threads count in a stripe of their own; reading
/// sums the stripes.
#[derive(Debug)]
pub(super) struct Hits(Box<[Box<[AtomicU64]>]>);

impl Hits {
    /// Creates counters for a number of places.
    pub(super) fn new(places: usize) -> Self {
        let stripe = |_| (0..places + PADDING).map(|_| AtomicU64::new(0)).collect();
        Self((0..STRIPES).map(stripe).collect())
    }

    /// Returns the bytes of the counters.
    pub(super) const fn bytes(places: usize) -> usize {
        STRIPES * (places + PADDING) * size_of::<AtomicU64>()
    }

    /// Adds to the counter of a place.
    #[inline]
    pub(super) fn add(&self, place: usize, hits: u64) {
        let stripe = self.0.get(stripe_number() % STRIPES);
        if let Some(counter) = stripe.and_then(|stripe| stripe.get(place)) {
            counter.fetch_add(hits, Ordering::Relaxed);
        }
    }

    /// Returns the hits of a place.
    pub(super) fn get(&self, place: usize) -> u64 {
        self.counters(place)
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }

    /// Returns the hits of a place and resets them to 0.
    pub(super) fn take(&self, place: usize) -> u64 {
        self.counters(place)
            .map(|counter| counter.swap(0, Ordering::Relaxed))
            .sum()
    }

    fn counters(&self, place: usize) -> impl Iterator<Item = &AtomicU64> {
        self.0.iter().filter_map(move |stripe| stripe.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_all_threads_add_up() {
        let hits = Hits::new(2);
        std::thread::scope(|scope| {
            for _ in 0..STRIPES + 2 {
                scope.spawn(|| (0..100).for_each(|_| hits.add(1, 1)));
            }
        });
        let all = 100 * (STRIPES as u64 + 2);
        assert_eq!((hits.get(0), hits.get(1)), (0, all));
        assert_eq!((hits.take(1), hits.get(1)), (all, 0));
    }
}
