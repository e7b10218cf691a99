//! Bounded table of counts by prefix: sessions, half-open sessions, and the rate of new ones.
//!
//! The table is set-associative: a keyed hash selects a set of [`WAYS`] entries under one lock. A
//! prefix that finds its set full replaces the lightest entry: the one with the fewest sessions,
//! then the one with the least debt to its rate, then the least recently used one. So a prefix is
//! forgotten only if every other entry of its set weighs at least as much at that moment, and a
//! flood of sources with one session each replaces entries of one session.
//!
//! The error is on one side: **a count is never above the true one**. Ends of sessions that were
//! counted before their prefix was forgotten are counted against the newer ones, down to 0. A limit
//! can therefore let more through than it says while more prefixes are active than the table has
//! entries, and never less.
//!
//! The locks are leaf locks: a packet holds one for a few instructions beside its shard's lock, and
//! takes nothing else meanwhile.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use prefetch_index::prefetch_index;

use super::standing::Standing;
use crate::flow::Zone;
use crate::policy::id::RuleId;
use crate::reserve::{NoMemory, Purpose};
use crate::session::time::Micros;

/// Entries of a set.
const WAYS: usize = 8;

/// The least number of entries.
const MIN_ENTRIES: usize = 4_096;

/// The number of entries from which on a larger table of sessions has relatively fewer of them: an
/// entry takes 48 bytes, nearly a third of a session's memory.
const MANY_ENTRIES: usize = 1 << 20;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A source with fewer sessions than this has always less than its share of the table.
pub(crate) const SMALL_SOURCE: u32 = 64;

/// Kind of a counted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Sessions that a prefix has begun.
    Source,
    /// Sessions to a prefix.
    Destination,
    /// Sessions that a prefix has begun, and that one rule has admitted.
    SourceOfRule,
    /// Sessions to a prefix that one rule has admitted.
    DestinationOfRule,
}

/// The key of an entry.
#[derive(Debug, Clone, Copy, Eq)]
pub(crate) struct Key {
    /// The two halves of the first address of the prefix.
    prefix: [u64; 2],
    zone: u16,
    /// The rule of a kind that has one, else 0.
    rule: u16,
    kind: Kind,
    v6: bool,
}

impl Key {
    /// Returns the key of an entry; `rule` is ignored unless the kind has one.
    pub(crate) const fn new(kind: Kind, zone: Zone, rule: RuleId, prefix: u128, v6: bool) -> Self {
        Self {
            prefix: [(prefix >> 64) as u64, prefix as u64],
            zone: zone.0,
            rule: match kind {
                Kind::SourceOfRule | Kind::DestinationOfRule => rule.0,
                Kind::Source | Kind::Destination => 0,
            },
            kind,
            v6,
        }
    }
}

impl Key {
    /// Returns the fields beside the prefix as one number.
    #[inline]
    const fn numbers(&self) -> u64 {
        let numbers = (self.zone as u64) << 32 | (self.rule as u64) << 16;
        numbers | (self.kind as u64) << 8 | self.v6 as u64
    }
}

impl PartialEq for Key {
    /// Compares three words with one branch.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let ([high, low], [other_high, other_low]) = (self.prefix, other.prefix);
        (high ^ other_high) | (low ^ other_low) | (self.numbers() ^ other.numbers()) == 0
    }
}

impl Hash for Key {
    /// Writes three words: faster than field by field.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = self.prefix;
        state.write_u64(high);
        state.write_u64(low);
        state.write_u64(self.numbers());
    }
}

/// Counts of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Holding {
    pub(crate) sessions: u32,
    pub(crate) half_open: u32,
    pub(crate) assured: u32,
}

impl Holding {
    /// Returns how many sessions may be evicted, now or soon.
    pub(crate) const fn evictable(self) -> u32 {
        self.sessions.saturating_sub(self.assured)
    }

    pub(super) fn add(&mut self, standing: Standing) {
        self.sessions = self.sessions.saturating_add(1);
        self.half_open = self.half_open.saturating_add(u32::from(standing.half_open));
        self.assured = self.assured.saturating_add(u32::from(standing.assured));
    }

    /// Saturates: a session that begins with one entry may end with a newer one of the same key.
    fn remove(&mut self, standing: Standing) {
        self.sessions = self.sessions.saturating_sub(1);
        self.half_open = self.half_open.saturating_sub(u32::from(standing.half_open));
        self.assured = self.assured.saturating_sub(u32::from(standing.assured));
        self.fit();
    }

    fn change(&mut self, before: Standing, after: Standing) {
        self.half_open = self.half_open.saturating_sub(u32::from(before.half_open));
        self.assured = self.assured.saturating_sub(u32::from(before.assured));
        self.half_open = self.half_open.saturating_add(u32::from(after.half_open));
        self.assured = self.assured.saturating_add(u32::from(after.assured));
        self.fit();
    }

    /// Parts are never more than the whole, whatever was forgotten between.
    fn fit(&mut self) {
        self.half_open = self.half_open.min(self.sessions);
        self.assured = self.assured.min(self.sessions - self.half_open);
    }
}

/// Bounds that one more session of a prefix is held against.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ask<'r> {
    /// The bound on sessions.
    pub(crate) sessions: Option<u32>,
    /// The new session takes the place of one of the prefix, which is not counted against it.
    pub(crate) replaces_one: bool,
    /// The bound on half-open sessions, for a session that begins half-open.
    pub(crate) half_open: Option<u32>,
    /// New sessions per second.
    pub(crate) rate: Option<u32>,
    /// Returns the places that are free, or hold sessions that may be evicted: a large source must
    /// leave them to others. Called for a large source only.
    pub(crate) room: Option<&'r dyn Fn() -> usize>,
    pub(crate) standing: Standing,
    pub(crate) now: Micros,
}

/// The bound that a session would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Sessions(u32),
    HalfOpen(u32),
    Rate,
    /// The source has `count` sessions, and no more places are left to others than `room` says.
    Share {
        count: u32,
        room: usize,
    },
}

impl Ask<'_> {
    fn check(&self, holding: Holding) -> Result<(), Excess> {
        let Holding {
            sessions,
            half_open,
            ..
        } = holding;
        let sessions = sessions.saturating_sub(u32::from(self.replaces_one));
        if self.sessions.is_some_and(|most| sessions >= most) {
            return Err(Excess::Sessions(sessions));
        }
        if self.standing.half_open && self.half_open.is_some_and(|most| half_open >= most) {
            return Err(Excess::HalfOpen(half_open));
        }
        if sessions >= SMALL_SOURCE
            && let Some(room) = self.room.map(|room| room())
            && sessions as usize >= room.saturating_sub(holding.evictable() as usize)
        {
            return Err(Excess::Share {
                count: sessions,
                room,
            });
        }
        Ok(())
    }
}

/// The part of an entry that is read for its own key alone.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    half_open: u32,
    assured: u32,
    /// Time at which the next new session would be on time, in nanoseconds (the generic cell rate
    /// algorithm of ITU-T I.371).
    due: u64,
}

impl Entry {
    const EMPTY: Self = Self {
        key: Key::new(Kind::Source, Zone::DEFAULT, RuleId::DEFAULT, 0, false),
        half_open: 0,
        assured: 0,
        due: 0,
    };

    /// Takes one new session out of the rate, if it allows.
    fn take(&mut self, now: Micros, per_second: u32) -> bool {
        let now = now.0.saturating_mul(1_000);
        let interval = SECOND / u64::from(per_second.max(1));
        let due = self.due.max(now) + interval;
        let is_on_time = due <= now + SECOND;
        if is_on_time {
            self.due = due;
        }
        is_on_time
    }
}

/// Order of use of a set's entries, as a matrix of bits: bit `b` of row `a` says that `a` was used
/// after `b`.
#[derive(Debug, Clone, Copy)]
struct Recency(u64);

impl Recency {
    /// Notes that an entry was used.
    const fn touch(&mut self, place: usize) {
        self.0 |= 0xff << (8 * place);
        self.0 &= !(0x0101_0101_0101_0101 << place);
    }

    /// Returns a number that is the greater the later an entry was used. A row has all bits of the
    /// rows of entries that were used before, and more.
    const fn rank(self, place: usize) -> u8 {
        (self.0 >> (8 * place)) as u8
    }
}

/// Tag of an entry that was never used; no key has it.
const FREE: u8 = 0;

/// Returns the tag of a key: bits of its hash that do not select the set.
const fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8 | 1
}

/// The places of a set that have a tag: the highest bit of each byte.
#[derive(Debug, Clone, Copy)]
struct Tagged(u64);

impl Tagged {
    /// Compares all tags at once, without a branch.
    #[inline(always)]
    const fn new(tags: [u8; WAYS], tag: u8) -> Self {
        const LOWER: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let differs = u64::from_le_bytes(tags) ^ (tag as u64 * 0x0101_0101_0101_0101);
        // The highest bit of a byte is clear only if all of its bits are.
        Self(!(((differs & LOWER) + LOWER) | differs | LOWER))
    }
}

impl Iterator for Tagged {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let place = self.0.trailing_zeros() as usize / 8;
        self.0 &= self.0 - 1;
        Some(place)
    }
}

/// A set. What a search for the lightest entry reads fills one cache line with the lock; an entry
/// is read only for a key that has its tag.
#[derive(Debug)]
#[repr(C)]
struct Set {
    tags: [u8; WAYS],
    recency: Recency,
    sessions: [u32; WAYS],
    /// Some entry has a debt to its rate.
    any_due: bool,
    entries: [Entry; WAYS],
}

/// A set with its lock, alone on its cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Locked(Mutex<Set>);

const _: () = assert!(WAYS == 8 && size_of::<Locked>() == 384);

impl Set {
    const EMPTY: Self = Self {
        tags: [FREE; WAYS],
        recency: Recency(0),
        sessions: [0; WAYS],
        any_due: false,
        entries: [Entry::EMPTY; WAYS],
    };

    /// Returns the places of a tag.
    #[inline(always)]
    fn tagged(&self, tag: u8) -> Tagged {
        Tagged::new(self.tags, tag)
    }

    /// Returns the place of a key.
    #[inline]
    fn find(&self, tag: u8, key: &Key) -> Option<usize> {
        let is_own = |place: &usize| self.entries.get(*place).is_some_and(|own| own.key == *key);
        self.tagged(tag).find(is_own)
    }

    fn holding(&self, place: usize) -> Holding {
        let sessions = self.sessions.get(place).copied().unwrap_or(0);
        let entry = self.entries.get(place).unwrap_or(&Entry::EMPTY);
        Holding {
            sessions,
            half_open: entry.half_open,
            assured: entry.assured,
        }
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut Holding)) {
        let mut holding = self.holding(place);
        change(&mut holding);
        if let (Some(sessions), Some(entry)) =
            (self.sessions.get_mut(place), self.entries.get_mut(place))
        {
            *sessions = holding.sessions;
            entry.half_open = holding.half_open;
            entry.assured = holding.assured;
        }
    }

    /// Returns the place of the lightest entry.
    #[inline]
    fn lightest(&self, now: Micros) -> usize {
        if self.any_due {
            return self.lightest_by_debt(now);
        }
        self.lightest_by_use()
    }

    /// Returns the place of the lightest entry of a set without debts.
    #[inline]
    fn lightest_by_use(&self) -> usize {
        // One number for each entry: sessions, rank and place.
        let weight = |place: usize, sessions: u32| {
            u64::from(sessions) << 16 | u64::from(self.recency.rank(place)) << 8 | place as u64
        };
        let places = self.sessions.iter().enumerate();
        let weights = places.map(|(place, sessions)| weight(place, *sessions));
        weights.min().map_or(0, |weight| (weight & 0xff) as usize)
    }

    #[cold]
    fn lightest_by_debt(&self, now: Micros) -> usize {
        let now = now.0.saturating_mul(1_000);
        let weight = |place: usize, sessions: u32, entry: &Entry| {
            let owed = entry.due.saturating_sub(now);
            (sessions, owed, self.recency.rank(place))
        };
        let places = self.sessions.iter().zip(&self.entries).enumerate();
        places
            .min_by_key(|(place, (sessions, entry))| weight(*place, **sessions, entry))
            .map_or(0, |(place, _)| place)
    }

    /// Prefetches the entry that a session of a tag changes: the one that has the tag, else the
    /// lightest. Reads no entry.
    #[inline]
    fn prefetch_entry(&self, tag: u8) {
        let place = match self.tagged(tag).next() {
            Some(place) => place,
            None if !self.any_due => self.lightest_by_use(),
            // The debts to a rate are in the entries.
            None => return,
        };
        // An entry may lie on two cache lines.
        prefetch_index(self.entries.as_slice(), place);
        prefetch_index(self.entries.as_slice(), place + 1);
    }

    /// Gives a place to a new key. Returns whether the entry there had sessions.
    fn replace(&mut self, place: usize, tag: u8, key: &Key) -> bool {
        if let (Some(own), Some(entry)) = (self.tags.get_mut(place), self.entries.get_mut(place)) {
            *own = tag;
            *entry = Entry {
                key: *key,
                ..Entry::EMPTY
            };
        }
        let sessions = self.sessions.get_mut(place).map(std::mem::take);
        sessions.is_some_and(|sessions| sessions > 0)
    }
}

/// Hash of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHash(u64);

/// The table. See the [module](self).
#[derive(Debug)]
pub(crate) struct CountedTable {
    sets: Box<[Locked]>,
    /// A prefix with sessions has made room for another. Written once, so that threads share the
    /// cache line.
    has_forgotten: AtomicBool,
    hasher: ahash::RandomState,
}

impl CountedTable {
    /// Returns a table for a number of sessions: an entry for each fourth, and at least 4,096;
    /// from 2^20 entries on, which 2^22 sessions have, as many until a sixteenth is more.
    pub(crate) fn new(max_sessions: usize, hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        let empty = || Locked(Mutex::new(Set::EMPTY));
        Ok(Self {
            sets: Purpose::CountedPrefixes.items(Self::sets(max_sessions), empty)?,
            has_forgotten: AtomicBool::new(false),
            hasher,
        })
    }

    /// Returns the number of sets, a power of two.
    const fn sets(max_sessions: usize) -> usize {
        let fourth = max_sessions / 4;
        let entries = if fourth < MIN_ENTRIES {
            MIN_ENTRIES
        } else if fourth < MANY_ENTRIES {
            fourth
        } else if max_sessions / 16 < MANY_ENTRIES {
            MANY_ENTRIES
        } else {
            max_sessions / 16
        };
        (entries / WAYS).next_power_of_two()
    }

    /// Returns the bytes of a table for a number of sessions.
    pub(super) const fn bytes(max_sessions: usize) -> usize {
        Self::sets(max_sessions) * size_of::<Locked>()
    }

    /// Returns the hash of a key.
    #[inline]
    pub(super) fn hash(&self, key: &Key) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    /// Returns the set of a key, and the key's tag there.
    #[inline]
    fn set(&self, KeyHash(hash): KeyHash) -> Option<(&Mutex<Set>, u8)> {
        let Locked(set) = self.sets.get(hash as usize & (self.sets.len() - 1))?;
        Some((set, tag(hash)))
    }

    /// Prefetches the part of a key's set that is read first. Takes no lock.
    #[inline]
    pub(super) fn prefetch_set(&self, key: &Key) -> KeyHash {
        let KeyHash(hash) = self.hash(key);
        prefetch_index(&self.sets, hash as usize & (self.sets.len() - 1));
        KeyHash(hash)
    }

    /// Prefetches the entry of a key whose set [`Self::prefetch_set`] has prefetched. Does nothing
    /// if another thread holds the set's lock.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: KeyHash) {
        if let Some((set, tag)) = self.set(hash)
            && let Some(set) = set.try_lock()
        {
            set.prefetch_entry(tag);
        }
    }

    /// Counts one more session of a prefix, if that exceeds nothing that it is held against.
    pub(crate) fn begin(&self, key: &Key, ask: &Ask<'_>) -> Result<(), Excess> {
        self.begin_at(self.hash(key), key, ask)
    }

    /// Counts like [`CountedTable::begin`]; `hash` is that of the key.
    pub(super) fn begin_at(&self, hash: KeyHash, key: &Key, ask: &Ask<'_>) -> Result<(), Excess> {
        let Some((set, tag)) = self.set(hash) else {
            return Ok(());
        };
        let mut set = set.lock();
        let known = set.find(tag, key);
        // A refused session replaces no entry.
        ask.check(known.map_or(Holding::default(), |place| set.holding(place)))?;
        let place = known.unwrap_or_else(|| set.lightest(ask.now));
        if known.is_none()
            && set.replace(place, tag, key)
            && !self.has_forgotten.load(Ordering::Relaxed)
        {
            self.has_forgotten.store(true, Ordering::Relaxed);
        }
        set.recency.touch(place);
        if let Some(rate) = ask.rate {
            set.any_due = true;
            let entry = set.entries.get_mut(place);
            if entry.is_some_and(|entry| !entry.take(ask.now, rate)) {
                return Err(Excess::Rate);
            }
        }
        set.change(place, |holding| holding.add(ask.standing));
        Ok(())
    }

    /// Changes the counts of a prefix that is known; `hash` is that of its key.
    fn update(&self, hash: KeyHash, key: &Key, change: impl FnOnce(&mut Holding)) {
        let Some((set, tag)) = self.set(hash) else {
            return;
        };
        let mut set = set.lock();
        if let Some(place) = set.find(tag, key) {
            set.change(place, change);
        }
    }

    /// Counts the end of a session.
    pub(crate) fn end(&self, key: &Key, standing: Standing) {
        self.end_at(self.hash(key), key, standing);
    }

    /// Counts like [`CountedTable::end`]; `hash` is that of the key.
    pub(super) fn end_at(&self, hash: KeyHash, key: &Key, standing: Standing) {
        self.update(hash, key, |holding| holding.remove(standing));
    }

    /// Counts the change of a session's standing.
    pub(crate) fn change(&self, key: &Key, before: Standing, after: Standing) {
        self.update(self.hash(key), key, |holding| holding.change(before, after));
    }

    /// Returns the known counts of a prefix.
    pub(crate) fn holding(&self, key: &Key) -> Holding {
        let Some((set, tag)) = self.set(self.hash(key)) else {
            return Holding::default();
        };
        let set = set.lock();
        set.find(tag, key)
            .map_or(Holding::default(), |place| set.holding(place))
    }

    /// Returns whether a prefix with sessions was ever forgotten; until then, counts are exact.
    pub(super) fn has_forgotten(&self) -> bool {
        self.has_forgotten.load(Ordering::Relaxed)
    }

    /// Calls `each` with every entry that holds something.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Key, Holding)) {
        for Locked(set) in &self.sets {
            let set = set.lock();
            for (place, entry) in set.entries.iter().enumerate() {
                let holding = set.holding(place);
                if holding.sessions > 0 {
                    each(&entry.key, holding);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const OPEN: Standing = Standing {
        half_open: true,
        assured: false,
    };
    const DONE: Standing = Standing {
        half_open: false,
        assured: true,
    };

    fn table() -> CountedTable {
        CountedTable::new(1, ahash::RandomState::with_seeds(1, 2, 3, 4)).unwrap()
    }

    fn source(address: u128) -> Key {
        Key::new(Kind::Source, Zone::DEFAULT, RuleId::DEFAULT, address, false)
    }

    fn ask() -> Ask<'static> {
        Ask {
            standing: OPEN,
            now: Micros(1),
            ..Ask::default()
        }
    }

    #[test]
    fn the_entries_of_a_large_table_take_little_beside_its_sessions() {
        let entries = |sessions: usize| CountedTable::sets(sessions) * WAYS;
        assert_eq!(entries(1_000), MIN_ENTRIES);
        assert_eq!(entries(1 << 20), 1 << 18);
        assert_eq!(entries(1 << 22), 1 << 20);
        assert_eq!(entries(10_000_000), 1 << 20);
        assert_eq!(entries(1 << 27), 1 << 23);
        for sessions in [4_200_000, 10_000_000, 17_000_000, 100_000_000] {
            assert!(CountedTable::bytes(sessions) <= 13 * sessions);
        }
    }

    #[test]
    fn a_heavy_source_stays_known_under_a_flood_of_light_ones() {
        let table = table();
        let heavy = source(1);
        for _ in 0..3 {
            table.begin(&heavy, &ask()).unwrap();
        }
        for light in 0..200_000u128 {
            table.begin(&source(1_000 + light), &ask()).unwrap();
        }
        assert_eq!(table.holding(&heavy).sessions, 3);
        let mut entries = 0;
        table.for_each(|_, _| entries += 1);
        assert_eq!(entries, MIN_ENTRIES, "the table does not grow");
    }

    #[test]
    fn structured_sources_displace_each_other_no_more_than_random_ones() {
        const SOURCES: u128 = MIN_ENTRIES as u128 / 4;
        type Address = fn(u128) -> u128;
        let structured: [(&str, Address); 5] = [
            ("in turn", |n| n),
            ("networks of 256 addresses", |n| n << 8),
            ("prefixes of 64 bits", |n| n << 64),
            ("both halves are equal", |n| n << 64 | n),
            ("multiples of the number of sets", |n| {
                n * (MIN_ENTRIES / WAYS) as u128
            }),
        ];
        for (name, address) in structured {
            let table = table();
            for n in 0..SOURCES {
                table.begin(&source(address(n)), &ask()).unwrap();
            }
            let is_known = |n: &u128| table.holding(&source(address(*n))).sessions == 1;
            let known = (0..SOURCES).filter(is_known).count();
            // Of two on average, more than eight are in a set once in 4,000 times.
            assert!(known as u128 >= SOURCES - 4, "{name}: {known}");
        }
    }

    #[test]
    fn the_entry_that_was_used_longest_ago_makes_room() {
        let mut recency = Recency(0);
        for place in [3, 1, 4, 0, 5, 2, 6, 7, 3, 0] {
            recency.touch(place);
        }
        let mut places: Vec<usize> = (0..WAYS).collect();
        places.sort_by_key(|place| recency.rank(*place));
        assert_eq!(places, [1, 4, 5, 2, 6, 7, 3, 0]);
    }

    #[test]
    fn limits_hold_at_their_value_and_refusals_count_nothing() {
        let table = table();
        let of = |sessions, half_open| Ask {
            sessions: Some(sessions),
            half_open: Some(half_open),
            ..ask()
        };
        assert_eq!(table.begin(&source(1), &of(3, 2)), Ok(()));
        assert_eq!(table.begin(&source(1), &of(3, 2)), Ok(()));
        assert_eq!(table.begin(&source(1), &of(3, 2)), Err(Excess::HalfOpen(2)));
        table.change(&source(1), OPEN, DONE);
        assert_eq!(table.begin(&source(1), &of(3, 2)), Ok(()));
        assert_eq!(table.begin(&source(1), &of(3, 9)), Err(Excess::Sessions(3)));
        let whole = Holding {
            sessions: 3,
            half_open: 2,
            assured: 1,
        };
        assert_eq!(table.holding(&source(1)), whole);
        table.end(&source(1), OPEN);
        assert_eq!(table.begin(&source(1), &of(3, 2)), Ok(()));
    }

    #[test]
    fn a_rate_allows_a_second_of_it_at_once_and_then_its_pace() {
        let table = table();
        let at = |millis: u64| Ask {
            rate: Some(10),
            now: Micros(3_600_000_000 + millis * 1_000),
            ..ask()
        };
        let taken = |millis| {
            (0..30)
                .filter(|_| table.begin(&source(1), &at(millis)).is_ok())
                .count()
        };
        assert_eq!([taken(0), taken(100), taken(650)], [10, 1, 5]);
        assert_eq!(table.begin(&source(1), &at(650)), Err(Excess::Rate));
        assert_eq!(
            table.begin(&source(2), &at(650)),
            Ok(()),
            "another source has its own"
        );
    }

    #[test]
    fn a_large_source_leaves_as_much_as_it_has() {
        let table = table();
        let with = |room: &'static dyn Fn() -> usize| Ask {
            room: Some(room),
            standing: DONE,
            ..ask()
        };
        for _ in 0..SMALL_SOURCE {
            assert_eq!(
                table.begin(&source(1), &with(&|| 0)),
                Ok(()),
                "small sources are not bound"
            );
        }
        let refused = |count, room| Err(Excess::Share { count, room });
        assert_eq!(table.begin(&source(1), &with(&|| 64)), refused(64, 64));
        assert_eq!(table.begin(&source(1), &with(&|| 65)), Ok(()));
        // Places that the source itself could lose are not left to others.
        for _ in 0..10 {
            table
                .begin(
                    &source(1),
                    &Ask {
                        room: None,
                        ..ask()
                    },
                )
                .unwrap();
        }
        assert_eq!(table.begin(&source(1), &with(&|| 85)), refused(75, 85));
        assert_eq!(table.begin(&source(1), &with(&|| 86)), Ok(()));
    }

    proptest! {
        /// A count is never above the true one, and without pressure equals it.
        #[test]
        fn a_count_is_never_above_the_true_one(
            steps in proptest::collection::vec((0u128..60, 0u8..3), 1..400),
            crowd in 0u128..20_000,
        ) {
            let table = table();
            let mut truth: HashMap<u128, Vec<Standing>> = HashMap::new();
            for (number, (address, step)) in steps.into_iter().enumerate() {
                let held = truth.entry(address).or_default();
                match step {
                    0 => {
                        table.begin(&source(address), &ask()).unwrap();
                        held.push(OPEN);
                    }
                    1 => if let Some(last) = held.last_mut() {
                        table.change(&source(address), *last, DONE);
                        *last = DONE;
                    },
                    _ => if let Some(ended) = held.pop() {
                        table.end(&source(address), ended);
                    },
                }
                if number == 100 {
                    for light in 0..crowd {
                        table.begin(&source(1_000_000 + light), &ask()).unwrap();
                    }
                }
            }
            for (address, held) in truth {
                let known = table.holding(&source(address));
                prop_assert!(known.sessions as usize <= held.len());
                prop_assert!(known.half_open + known.assured <= known.sessions);
                if crowd == 0 {
                    let count = |which: Standing| {
                        held.iter().filter(|each| **each == which).count()
                    };
                    prop_assert_eq!(known.sessions as usize, held.len());
                    prop_assert_eq!(known.half_open as usize, count(OPEN));
                    prop_assert_eq!(known.assured as usize, count(DONE));
                }
            }
        }
    }
}
