//! The index of a shard: hash to slot number.
//!
//! The index uses open addressing with Robin Hood probing and backward-shift deletion, and has a
//! fixed size. An entry is the 32-bit hash and the slot number. So a probe touches one cache line
//! and almost never reads another session's slot, and a removal can move its neighbors back without
//! reading any slot. The index never grows, leaves no tombstones and is never rehashed: the cost of
//! an operation does not depend on the table's history.
//!
//! The entries are atomic, so that threads can prefetch without the shard's lock. They are written
//! under the lock only, and so is every read whose result matters. All accesses are relaxed, which
//! costs no more than plain ones.

use std::sync::Arc;

use prefetch_index::prefetch_index;

use crate::atomic::{AtomicU64, Ordering};
use crate::reserve::{NoMemory, Purpose};

/// Most entries per 100 places: 78 gives 2.5 probes a hit and no significant clusters.
const LOAD_PERCENT: usize = 78;

/// The entries of an index: 0 = free, else hash in the upper half, slot number + 1 in the lower.
#[derive(Debug)]
pub(crate) struct Places(Box<[AtomicU64]>);

/// A fixed-size map from a 32-bit hash to slot numbers; the caller distinguishes equal hashes.
#[derive(Debug)]
pub(crate) struct Index {
    places: Arc<Places>,
    len: usize,
}

const fn entry(hash: u32, slot: u32) -> u64 {
    (hash as u64) << 32 | (slot as u64 + 1)
}

impl Places {
    const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the home of a hash: the place where its probe begins.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.len() { 0 } else { at + 1 }
    }

    /// Returns the distance of the entry at `at` from its home.
    fn displacement(&self, at: usize, entry: u64) -> usize {
        let home = self.home((entry >> 32) as u32);
        if at >= home {
            at - home
        } else {
            at + self.len() - home
        }
    }

    #[inline]
    fn place(&self, at: usize) -> u64 {
        let place = self.0.get(at);
        place.map_or(0, |place| place.load(Ordering::Relaxed))
    }

    fn set(&self, at: usize, entry: u64) {
        if let Some(place) = self.0.get(at) {
            place.store(entry, Ordering::Relaxed);
        }
    }

    /// Returns the slot with this hash for which `is` holds. Without the shard's lock the result is
    /// a guess; the search ends in any case.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        let mut distance = 0;
        loop {
            let entry = self.place(at);
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == hash {
                let slot = (entry as u32).wrapping_sub(1);
                if is(slot) {
                    return Some(slot);
                }
            } else if self.displacement(at, entry) < distance {
                return None;
            }
            at = self.next(at);
            distance += 1;
            if distance > self.len() {
                return None;
            }
        }
    }

    /// Prefetches the home of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch_index(&self.0, self.home(hash));
    }
}

impl Index {
    /// Returns an index for up to `capacity` entries.
    pub(crate) fn new(purpose: Purpose, capacity: usize) -> Result<Self, NoMemory> {
        let places = purpose.zeros(Self::length(capacity))?;
        Ok(Self {
            places: Arc::new(Places(places)),
            len: 0,
        })
    }

    const fn length(capacity: usize) -> usize {
        capacity * 100 / LOAD_PERCENT + 8
    }

    /// Returns the bytes of an index of `capacity` entries.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        Self::length(capacity) * size_of::<AtomicU64>()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the entries, for reading without the shard's lock.
    pub(crate) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// Returns the slot with this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.places.find(hash, is)
    }

    /// Adds an entry; the caller ensures that the capacity is not exceeded.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        let places = &*self.places;
        debug_assert!(self.len < places.len());
        let mut carried = entry(hash, slot);
        let mut at = places.home(hash);
        let mut distance = 0;
        loop {
            let next = places.next(at);
            let here = places.place(at);
            if here == 0 {
                places.set(at, carried);
                self.len += 1;
                return;
            }
            let theirs = places.displacement(at, here);
            if theirs < distance {
                places.set(at, carried);
                carried = here;
                distance = theirs;
            }
            at = next;
            distance += 1;
        }
    }

    /// Removes the entry of a slot. Returns whether there was one.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let places = &*self.places;
        let wanted = entry(hash, slot);
        let mut at = places.home(hash);
        let mut distance = 0;
        loop {
            let here = places.place(at);
            if here == wanted {
                break;
            }
            if here == 0 || places.displacement(at, here) < distance {
                return false;
            }
            at = places.next(at);
            distance += 1;
        }
        // Every entry after the gap that is not at its home moves back.
        loop {
            let behind = places.next(at);
            let entry = places.place(behind);
            if entry == 0 || places.displacement(behind, entry) == 0 {
                places.set(at, 0);
                self.len -= 1;
                return true;
            }
            places.set(at, entry);
            at = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few hashes in few places: clusters, wrap-around and equal hashes are frequent.
        #[test]
        fn agrees_with_a_map_whatever_is_done(
            operations in proptest::collection::vec((any::<bool>(), 0u32..40), 1..400),
            spread in prop_oneof![Just(1u32), Just(0x0600_0000), Just(0xffff_ffff / 39)],
        ) {
            let hash_of = |slot: u32| (slot / 2).wrapping_mul(spread);
            let mut index = Index::new(Purpose::Sessions, 40).unwrap();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (add, slot) in operations {
                let hash = hash_of(slot);
                if add && !model.contains_key(&slot) {
                    index.insert(hash, slot);
                    model.insert(slot, hash);
                } else {
                    prop_assert_eq!(index.remove(hash, slot), model.remove(&slot).is_some());
                }
                prop_assert_eq!(index.len(), model.len());
                for slot in 0..40 {
                    let found = index.find(hash_of(slot), |candidate| candidate == slot);
                    prop_assert_eq!(found.is_some(), model.contains_key(&slot));
                }
            }
        }
    }

    #[test]
    fn a_full_index_still_answers() {
        let mut index = Index::new(Purpose::Sessions, 100).unwrap();
        for slot in 0..100 {
            index.insert(slot * 40_000_000, slot);
        }
        for slot in 0..100 {
            assert_eq!(index.find(slot * 40_000_000, |s| s == slot), Some(slot));
        }
        assert_eq!(index.find(7, |_| false), None);
    }
}
