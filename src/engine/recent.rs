//! Memory of recent keys, by keyed hash.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reserve::{NoMemory, Purpose};
use crate::session::Micros;

/// Keys that were noted for a time. Each remainder of a hash has one place, in which a newer key
/// replaces an older one. Keys that share a place and the upper half of their hashes are taken for
/// one another: one pair of some four billion.
#[derive(Debug)]
pub(super) struct Recent {
    /// The upper half of a key's hash, and the millisecond until which it counts.
    places: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
    /// The longest time, in milliseconds.
    longest: u32,
}

impl Recent {
    /// Returns the bytes for a number of places.
    pub(super) const fn bytes(places: usize) -> usize {
        places * size_of::<AtomicU64>()
    }

    pub(super) fn new(
        places: usize,
        longest: u32,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        Ok(Self {
            places: Purpose::Questions.items(places, AtomicU64::default)?,
            hasher,
            longest,
        })
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        self.places.get(hash as usize % self.places.len().max(1))
    }

    /// Notes a key for some milliseconds, at most the longest time.
    pub(super) fn note<K: Hash>(&self, key: &K, now: Micros, millis: u32) {
        let hash = self.hasher.hash_one(key);
        let until = millis_of(now).wrapping_add(millis.min(self.longest));
        if let Some(place) = self.place(hash) {
            let word = hash >> 32 << 32 | u64::from(until);
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Returns whether the time of a key is not over.
    pub(super) fn contains<K: Hash>(&self, key: &K, now: Micros) -> bool {
        let hash = self.hasher.hash_one(key);
        let word = self
            .place(hash)
            .map_or(0, |place| place.load(Ordering::Relaxed));
        let left = (word as u32).wrapping_sub(millis_of(now));
        word >> 32 == hash >> 32 && (1..=self.longest).contains(&left)
    }
}

const fn millis_of(now: Micros) -> u32 {
    (now.0 / 1_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_until_its_time_is_over_or_a_newer_one_takes_its_place() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let recent = Recent::new(1, 100, hasher).unwrap();
        let at = |millis: u64| Micros(3_600_000_000 + 1_000 * millis);
        recent.note(&7, at(0), 50);
        assert!(recent.contains(&7, at(49)));
        assert!(!recent.contains(&7, at(50)));
        assert!(!recent.contains(&8, at(49)));
        recent.note(&8, at(0), 1_000);
        assert!(recent.contains(&8, at(99)));
        assert!(!recent.contains(&8, at(100)));
        assert!(!recent.contains(&7, at(10)));
    }
}
