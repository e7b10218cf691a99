//! The index of a shard: hash to slot number.
//!
//! The index is a row of buckets, each of which fills a cache line: ten entries of a 16-bit tag and
//! a slot number. The upper bits of a hash select its home bucket. An entry whose home is full goes
//! to the next bucket with a free place. Its tag has the lower bits of the hash, and the distance
//! from home. Each bucket counts the entries that have passed it, so a search ends at the first
//! bucket that none has passed. Of a full index, about 3 of 100 entries are outside their home.
//!
//! A search compares all tags of a bucket at once, without a branch. It almost never reads another
//! session's slot, and a removal reads none. A removal fills its place with an entry that had
//! passed the bucket, if there is one: so the entries are as near to their homes as if all sessions
//! were new. The index never grows, leaves no tombstones and is never rehashed: the cost of an
//! operation does not depend on the table's history.
//!
//! The words are atomic, so that threads can prefetch without the shard's lock. They are written
//! under the lock only, and so is every read whose result matters. All accesses are relaxed, which
//! costs no more than plain ones.

use std::fmt;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use crate::atomic::{AtomicU64, Ordering};
use crate::reserve::{NoMemory, Purpose};

/// Most entries per 100 places.
const LOAD_PERCENT: usize = 70;
/// Entries of a bucket.
const ENTRIES: usize = 10;
/// Words of a bucket.
const WORDS: usize = 8;
/// Bytes of a bucket: a cache line.
const BUCKET_BYTES: usize = WORDS * size_of::<AtomicU64>();

/// The lowest bit of each tag of a word.
const LOWEST: u64 = 0x0001_0001_0001_0001;
/// All bits of each tag of a word but the highest.
const LOWER: u64 = 0x7fff_7fff_7fff_7fff;
/// The tags of the third word; its upper half is the count of entries that have passed.
const TAGS_OF_THIRD: u64 = 0xffff_ffff;
/// The tag of a free place.
const FREE: u16 = 0;
/// The bits of a tag for the distance from home, and its greatest value: this distance or more.
const FAR: u16 = 7;

/// The buckets of an index.
///
/// The first three words of a bucket have four tags, four tags, and two tags with the count of the
/// entries that have passed the bucket; the other five have two slot numbers each.
pub(crate) struct Places {
    words: Box<[AtomicU64]>,
    /// The first word that begins a cache line.
    first: usize,
    buckets: usize,
}

/// Lists the buckets, but not the place of the first one. The place depends on the allocator, and
/// two indexes with one history look alike without it.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets = (0..self.buckets).map_while(|at| self.bucket(at));
        f.debug_list().entries(buckets).finish()
    }
}

/// A fixed-size map from a 32-bit hash to slot numbers; the caller distinguishes equal hashes, and
/// the few different ones that have one tag in one bucket.
#[derive(Debug)]
pub(crate) struct Index {
    places: Arc<Places>,
    len: usize,
}

/// Returns the tag of a hash at a distance from its home, in buckets.
#[inline(always)]
fn tag(hash: u32, distance: usize) -> u16 {
    // Not that of a free place.
    let upper = (hash as u16 & !FAR).max(FAR + 1);
    upper | distance.min(usize::from(FAR)) as u16
}

/// Returns the bits `16 * n + shift` of the tags `n` of a word that are equal to a tag.
#[inline(always)]
const fn equal_tags(word: u64, tag: u16, shift: u32) -> u64 {
    let differs = word ^ (tag as u64 * LOWEST);
    // The highest bit of a tag is clear only if all of its bits are.
    let any = ((differs & LOWER) + LOWER) | differs | LOWER;
    !any >> (15 - shift)
}

/// Returns the highest bits of the tags of a word that are equal to a tag. Above the lowest of them
/// there may be others.
#[inline(always)]
const fn lowest_equal(word: u64, tag: u16) -> u64 {
    let differs = word ^ (tag as u64 * LOWEST);
    // The subtraction borrows from a tag only if a lower one is equal.
    differs.wrapping_sub(LOWEST) & !differs & !LOWER
}

/// Entries of a bucket, as a set of bits: of entry `4 * w + n`, the tag of which is in word `w` at
/// place `n`, the bit `16 * n + w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entries(u64);

impl Iterator for Entries {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(4 * (bit & 3) + (bit >> 4))
    }
}

/// Place of an entry.
#[derive(Debug, Clone, Copy)]
struct Located {
    /// Number of buckets from the one where the search began.
    distance: usize,
    /// The bucket.
    at: usize,
    entry: usize,
}

/// A bucket of an index.
#[derive(Debug, Clone, Copy)]
struct Bucket<'a>(&'a [AtomicU64; WORDS]);

impl Bucket<'_> {
    /// Returns the entries with a tag.
    #[inline(always)]
    fn tagged(self, tag: u16) -> Entries {
        let [one, two, three, ..] = self.0;
        let third = three.load(Ordering::Relaxed);
        Entries(
            equal_tags(one.load(Ordering::Relaxed), tag, 0)
                | equal_tags(two.load(Ordering::Relaxed), tag, 1)
                | equal_tags(third, tag, 2) & TAGS_OF_THIRD,
        )
    }

    /// Returns the first entry with a tag, as [`Bucket::tagged`] does, with fewer instructions.
    #[inline(always)]
    fn first_tagged(self, tag: u16) -> Option<usize> {
        let [one, two, three, ..] = self.0;
        let third = three.load(Ordering::Relaxed);
        let found = lowest_equal(one.load(Ordering::Relaxed), tag) >> 2
            | lowest_equal(two.load(Ordering::Relaxed), tag) >> 1
            | lowest_equal(third, tag) & TAGS_OF_THIRD;
        if found == 0 {
            return None;
        }
        // Bit 13, 14 or 15 of a tag, by its word.
        let bit = found.trailing_zeros() as usize;
        Some(4 * ((bit + 3) & 3) + (bit >> 4))
    }

    /// Returns the slot number of an entry.
    #[inline(always)]
    fn slot(self, entry: usize) -> u32 {
        let word = self.0.get(3 + entry / 2);
        let slots = word.map_or(0, |word| word.load(Ordering::Relaxed));
        (slots >> (32 * (entry & 1))) as u32
    }

    fn tag(self, entry: usize) -> u16 {
        let word = self.0.get(entry / 4);
        let tags = word.map_or(0, |word| word.load(Ordering::Relaxed));
        (tags >> (16 * (entry & 3))) as u16
    }

    fn set(self, entry: usize, tag: u16, slot: u32) {
        self.set_part(3 + entry / 2, 32 * (entry & 1), u64::from(u32::MAX), slot);
        let shift = 16 * (entry & 3);
        self.set_part(entry / 4, shift, u64::from(u16::MAX), u32::from(tag));
    }

    /// Sets the bits of a word that are at `shift` and as wide as `mask`.
    fn set_part(self, word: usize, shift: usize, mask: u64, value: u32) {
        if let Some(word) = self.0.get(word) {
            let others = word.load(Ordering::Relaxed) & !(mask << shift);
            word.store(others | u64::from(value) << shift, Ordering::Relaxed);
        }
    }

    /// Returns the number of entries that have passed the bucket.
    #[inline(always)]
    fn passed(self) -> u32 {
        let [_, _, third, ..] = self.0;
        (third.load(Ordering::Relaxed) >> 32) as u32
    }

    fn set_passed(self, passed: u32) {
        self.set_part(2, 32, u64::from(u32::MAX), passed);
    }
}

impl Places {
    /// Returns the home of a hash: the bucket where its search begins.
    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets as u64) >> 32) as usize
    }

    #[inline(always)]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets { 0 } else { at + 1 }
    }

    #[inline(always)]
    fn bucket(&self, at: usize) -> Option<Bucket<'_>> {
        let words = self.words.get(self.first + at * WORDS..)?;
        words.first_chunk().map(Bucket)
    }

    /// Returns the slot of this hash for which `is` holds. Without the shard's lock the result is a
    /// guess; the search ends in any case.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for distance in 0..self.buckets {
            let bucket = self.bucket(at)?;
            for entry in bucket.tagged(tag(hash, distance)) {
                let slot = bucket.slot(entry);
                if is(slot) {
                    return Some(slot);
                }
            }
            if bucket.passed() == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Returns the first slot of a hash without the shard's lock: a guess.
    #[inline]
    pub(crate) fn candidate(&self, hash: u32) -> Option<u32> {
        let home = self.bucket(self.home(hash))?;
        match home.first_tagged(tag(hash, 0)) {
            Some(entry) => Some(home.slot(entry)),
            None if home.passed() == 0 => None,
            None => self.candidate_outside(hash),
        }
    }

    /// Returns the first slot of a hash, whose home has no entry of it.
    #[cold]
    #[inline(never)]
    fn candidate_outside(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Returns the distance from home, the bucket and the place there of a slot's entry.
    fn locate(&self, hash: u32, slot: u32) -> Option<Located> {
        let mut at = self.home(hash);
        for distance in 0..self.buckets {
            let bucket = self.bucket(at)?;
            let mut own = bucket.tagged(tag(hash, distance));
            if let Some(entry) = own.find(|entry| bucket.slot(*entry) == slot) {
                return Some(Located {
                    distance,
                    at,
                    entry,
                });
            }
            if bucket.passed() == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Returns the nearest entry that has passed a bucket, with its distance from that bucket. One
    /// that is too far from its home to know the distance is left where it is.
    fn passer(&self, from: usize) -> Option<Located> {
        let mut at = from;
        for distance in 1..FAR {
            at = self.next(at);
            let bucket = self.bucket(at)?;
            let may_move = |entry: &usize| {
                let tag = bucket.tag(*entry);
                tag != FREE && (distance..FAR).contains(&(tag & FAR))
            };
            if let Some(entry) = (0..ENTRIES).find(may_move) {
                return Some(Located {
                    distance: usize::from(distance),
                    at,
                    entry,
                });
            }
            if bucket.passed() == 0 {
                break;
            }
        }
        None
    }

    /// Takes an entry from the counts of the buckets from `first` to the one before `end`.
    fn unpass(&self, first: usize, end: usize) {
        let mut at = first;
        while at != end
            && let Some(bucket) = self.bucket(at)
        {
            bucket.set_passed(bucket.passed().saturating_sub(1));
            at = self.next(at);
        }
    }

    /// Prefetches the home of a hash.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch_index(&self.words, self.first + self.home(hash) * WORDS);
    }
}

impl Index {
    /// Returns an index for up to `capacity` entries.
    pub(crate) fn new(purpose: Purpose, capacity: usize) -> Result<Self, NoMemory> {
        let buckets = Self::buckets(capacity);
        let words: Box<[AtomicU64]> = purpose.zeros((buckets + 1) * WORDS)?;
        let first = words.as_ptr().addr().wrapping_neg() % BUCKET_BYTES / size_of::<AtomicU64>();
        Ok(Self {
            places: Arc::new(Places {
                words,
                first,
                buckets,
            }),
            len: 0,
        })
    }

    const fn buckets(capacity: usize) -> usize {
        (capacity * 100).div_ceil(LOAD_PERCENT * ENTRIES) + 1
    }

    /// Returns the bytes of an index of `capacity` entries.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        (Self::buckets(capacity) + 1) * BUCKET_BYTES
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the entries, for reading without the shard's lock.
    pub(crate) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// Returns the slot of this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.places.find(hash, is)
    }

    /// Adds an entry; the caller ensures that the capacity is not exceeded.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        let places = &*self.places;
        debug_assert!(self.len < places.buckets * ENTRIES);
        let mut at = places.home(hash);
        for distance in 0..places.buckets {
            let Some(bucket) = places.bucket(at) else {
                return;
            };
            if let Some(entry) = bucket.tagged(FREE).next() {
                bucket.set(entry, tag(hash, distance), slot);
                self.len += 1;
                return;
            }
            bucket.set_passed(bucket.passed().saturating_add(1));
            at = places.next(at);
        }
    }

    /// Removes the entry of a slot. Returns whether there was one.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let places = &*self.places;
        let Some(mut gap) = places.locate(hash, slot) else {
            return false;
        };
        self.len -= 1;
        places.unpass(places.home(hash), gap.at);
        while let Some(bucket) = places.bucket(gap.at) {
            bucket.set(gap.entry, FREE, 0);
            if bucket.passed() == 0 {
                break;
            }
            let Some(passer) = places.passer(gap.at) else {
                break;
            };
            let Some(theirs) = places.bucket(passer.at) else {
                break;
            };
            let tag = theirs.tag(passer.entry) - passer.distance as u16;
            bucket.set(gap.entry, tag, theirs.slot(passer.entry));
            places.unpass(gap.at, passer.at);
            gap = passer;
        }
        true
    }

    /// Returns the distance of a slot's entry from its home, in buckets.
    #[cfg(test)]
    pub(super) fn distance(&self, hash: u32, slot: u32) -> Option<usize> {
        let located = self.places.locate(hash, slot)?;
        Some(located.distance)
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

    fn random(n: u32) -> u32 {
        let mixed = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    }

    /// Returns how many of 1,000 entries are outside their home, and the greatest distance.
    fn outside(index: &Index, slots: impl Iterator<Item = u32>) -> (usize, usize) {
        let distances: Vec<_> = slots
            .map(|slot| index.distance(random(slot), slot).unwrap())
            .collect();
        let outside = distances.iter().filter(|distance| **distance > 0).count();
        (
            outside * 1_000 / distances.len(),
            distances.into_iter().max().unwrap(),
        )
    }

    /// Sessions come and go in a full table: the last ones stand as near to their homes as the
    /// first ones did.
    #[test]
    fn the_cost_does_not_depend_on_the_history() {
        const CAPACITY: u32 = 20_000;
        let mut index = Index::new(Purpose::Sessions, CAPACITY as usize).unwrap();
        for slot in 0..CAPACITY {
            index.insert(random(slot), slot);
        }
        let (first, farthest) = outside(&index, 0..CAPACITY);
        assert!(first <= 45 && farthest <= 16, "{first} {farthest}");
        const LAST: u32 = 20 * CAPACITY;
        for slot in CAPACITY..LAST {
            let old = slot - CAPACITY;
            assert!(index.remove(random(old), old));
            index.insert(random(slot), slot);
        }
        let (last, farthest) = outside(&index, LAST - CAPACITY..LAST);
        assert!(last <= 55 && farthest <= 16, "{last} {farthest}");
        for slot in LAST - CAPACITY..LAST {
            assert!(index.remove(random(slot), slot));
        }
        assert_eq!(index.len(), 0);
        for at in 0..index.places.buckets {
            let bucket = index.places.bucket(at).unwrap();
            assert_eq!(bucket.tagged(FREE).count(), ENTRIES);
            assert_eq!(bucket.passed(), 0);
        }
    }

    #[test]
    fn buckets_are_cache_lines() {
        for capacity in [1, 50, 1_000, 100_000] {
            let index = Index::new(Purpose::Sessions, capacity).unwrap();
            let first = index.places.bucket(0).unwrap();
            let last = index.places.bucket(index.places.buckets - 1).unwrap();
            assert_eq!(first.0.as_ptr().addr() % BUCKET_BYTES, 0);
            assert_eq!(last.0.as_ptr().addr() % BUCKET_BYTES, 0);
            assert_eq!(size_of_val(&*index.places.words), Index::bytes(capacity));
        }
    }

    proptest! {
        /// Tags that differ in few bits, so that borrows are frequent.
        #[test]
        fn the_first_entry_of_a_tag_is_found_by_both_searches(
            tags in proptest::array::uniform10(prop_oneof![0u16..4, 8u16..11, any::<u16>()]),
            passed: u32,
        ) {
            let index = Index::new(Purpose::Sessions, 1).unwrap();
            let bucket = index.places.bucket(0).unwrap();
            for (entry, tag) in tags.iter().enumerate() {
                bucket.set(entry, *tag, 0);
            }
            bucket.set_passed(passed);
            for tag in tags.into_iter().chain(0..12) {
                prop_assert_eq!(bucket.first_tagged(tag), bucket.tagged(tag).next());
            }
        }
    }

    /// No thread of the prefetch stage waits forever, whatever it sees.
    #[test]
    fn a_search_in_words_without_sense_ends() {
        let index = Index::new(Purpose::Sessions, 100).unwrap();
        for word in &index.places.words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(index.find(7, |_| false), None);
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
