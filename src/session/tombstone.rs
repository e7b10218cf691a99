//! Tombstones: the remembered state of TCP sessions that ended before their connection did.
//!
//! Each part has a fixed number of places, with an index; there is no sweep. All tombstones have
//! one lifetime, so that the oldest is also the first to expire. The memory is reserved at the
//! start and touched as sessions end.
//!
//! In a full part the newest tombstone displaces one other:
//! 1. the oldest of all, if it is over;
//! 2. else the oldest of the newest's own zone, if that zone has at least its guarantee;
//! 3. else the oldest of the zone that is most above its guarantee.
//!
//! With one zone, that is the oldest of all. The guarantee is that of [`crate::limits::share`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::part::Part;
use super::EndReason;
use super::index::Places;
use super::slot::Slot;
use super::time::Micros;
use super::{SessionId, TunnelRef};
use crate::flow::{Direction, End, FlowKey, Zone};
use crate::packet::SeqNum;
use crate::policy::RuleId;
use crate::reserve::{NoMemory, Purpose};
use crate::track::tcp::PeerFlags;

mod part;

/// Number of parts, each with its own lock.
const PARTS: usize = 16;
const _: () = assert!(PARTS.is_power_of_two());
/// Places that are read under one hold of a part's lock.
const PORTION: u32 = 64;

/// Remembered state of an end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The sequence number that the end expects: its highest acknowledgment; `None` if it never
    /// sent one.
    pub(crate) expects: Option<SeqNum>,
    /// The end of the data that the end has sent.
    pub(crate) sent: SeqNum,
}

impl Remembered {
    /// Returns the state of the end that sends in a direction.
    pub(crate) fn of(slot: &Slot, direction: Direction) -> Self {
        let side = slot.track.side(direction);
        Self {
            expects: side
                .flags
                .contains(PeerFlags::MAX_ACK_KNOWN)
                .then_some(side.peer.max_ack),
            sent: side.peer.end,
        }
    }
}

/// The remembered state of a session that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tombstone {
    pub(crate) key: FlowKey,
    pub(crate) initiator: End,
    /// The directions whose challenge ACK has been answered, one bit each.
    pub(crate) challenged: u8,
    pub(crate) reason: EndReason,
    pub(crate) rule: RuleId,
    pub(crate) id: SessionId,
    pub(crate) ended: Micros,
    /// Each end by the direction in which it sends, original first.
    pub(crate) ends: [Remembered; 2],
    pub(crate) tunnels: [TunnelRef; 2],
}

impl Tombstone {
    pub(crate) fn new(
        slot: &Slot,
        id: SessionId,
        rule: RuleId,
        reason: EndReason,
        ended: Micros,
    ) -> Self {
        Self {
            key: slot.key,
            initiator: slot.initiator(),
            challenged: 0,
            reason,
            rule,
            id,
            ended,
            ends: Direction::BOTH.map(|direction| Remembered::of(slot, direction)),
            tunnels: [TunnelRef::NONE; 2],
        }
    }

    /// Returns both ends, original first.
    pub(crate) const fn ends(&self) -> [Remembered; 2] {
        self.ends
    }

    pub(crate) const fn challenged(&self) -> u8 {
        self.challenged
    }

    pub(crate) fn direction_of(&self, source: End) -> Direction {
        if source == self.initiator {
            Direction::Original
        } else {
            Direction::Reply
        }
    }

    /// Returns the end that sends in a direction.
    pub(crate) const fn end(&self, direction: Direction) -> Remembered {
        let [original, reply] = self.ends;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }
}

/// Hash of a key among the tombstones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TombstoneHash(u64);

/// All tombstones.
#[derive(Debug)]
pub(crate) struct Graveyard {
    parts: Box<[Mutex<Part>]>,
    /// The index entries of each part, for prefetching without its lock.
    outlines: Box<[Arc<Places>]>,
    hasher: ahash::RandomState,
    /// Number of tombstones, including expired ones: 0 skips the look-up.
    len: AtomicUsize,
    lifetime_us: u64,
}

impl Graveyard {
    const fn parts(max: usize) -> usize {
        if max < PARTS * 16 { 1 } else { PARTS }
    }

    /// Returns the bytes of `max` tombstones.
    pub(crate) const fn bytes(max: usize) -> usize {
        let parts = Self::parts(max);
        let capacity = max / parts;
        parts * (Part::bytes(capacity) + size_of::<Mutex<Part>>() + size_of::<Arc<Places>>())
    }

    pub(crate) fn new(
        max: usize,
        lifetime: std::time::Duration,
        seed: [u64; 4],
    ) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        let parts = Self::parts(max);
        let capacity = max / parts;
        let hasher = ahash::RandomState::with_seeds(c, d, a, b);
        let part = || Part::new(capacity, hasher.clone()).map(Mutex::new);
        let parts = Purpose::Tombstones.try_items(parts, part)?;
        Ok(Self {
            outlines: parts.iter().map(|part| part.lock().outline()).collect(),
            parts,
            hasher,
            len: AtomicUsize::new(0),
            lifetime_us: u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// Sets the zones that have a guaranteed part of the places.
    pub(crate) fn set_zones(&self, zones: &[Zone]) {
        for part in &self.parts {
            part.lock().set_zones(zones);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns the number of a hash's part. The number of parts is a power of two.
    #[inline]
    fn number(&self, hash: u64) -> usize {
        hash as usize & self.parts.len().wrapping_sub(1)
    }

    /// Returns the hash of a key.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> TombstoneHash {
        TombstoneHash(self.hasher.hash_one(key))
    }

    /// Returns the part of a key, and the hash of the key there.
    #[inline]
    fn part(&self, TombstoneHash(hash): TombstoneHash) -> Option<(&Mutex<Part>, u32)> {
        let part = self.parts.get(self.number(hash))?;
        Some((part, (hash >> 32) as u32))
    }

    /// Adds a session. In a full part another tombstone is displaced; see the [module](self).
    /// If one conversation has two tombstones, the newer counts.
    pub(crate) fn bury(&self, tombstone: Tombstone) {
        self.bury_at(self.hash(&tombstone.key), &tombstone);
    }

    /// Adds a session like [`Graveyard::bury`]; `hash` is that of its key.
    pub(crate) fn bury_at(&self, hash: TombstoneHash, tombstone: &Tombstone) {
        let Some((part, hash)) = self.part(hash) else {
            return;
        };
        let mut part = part.lock();
        let before = part.len();
        if let Some(older) = part.find(hash, &tombstone.key) {
            part.remove(older);
        }
        part.add(hash, tombstone, self.lifetime_us);
        // The lock is held: no other thread changes the number of tombstones in this part.
        let change = part.len().wrapping_sub(before);
        if change != 0 {
            self.len.fetch_add(change, Ordering::Relaxed);
        }
    }

    /// Prefetches the index entries of a conversation. Returns the hash of its key. Takes no lock.
    #[inline]
    pub(crate) fn prefetch(&self, key: &FlowKey) -> TombstoneHash {
        let TombstoneHash(hash) = self.hash(key);
        if let Some(outline) = self.outlines.get(self.number(hash)) {
            outline.prefetch((hash >> 32) as u32);
        }
        TombstoneHash(hash)
    }

    /// Removes the tombstone of a conversation.
    pub(crate) fn forget(&self, key: &FlowKey) {
        if self.len() > 0 {
            self.forget_at(self.hash(key), key);
        }
    }

    /// Removes the tombstone of a conversation; `hash` is that of its key.
    pub(crate) fn forget_at(&self, hash: TombstoneHash, key: &FlowKey) {
        if self.len() == 0 {
            return;
        }
        let Some((part, hash)) = self.part(hash) else {
            return;
        };
        let mut part = part.lock();
        if let Some(place) = part.find(hash, key) {
            part.remove(place);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the tombstone of a conversation, if it is not over.
    pub(crate) fn find(&self, key: &FlowKey, now: Micros) -> Option<Tombstone> {
        if self.len() == 0 {
            return None;
        }
        let (part, hash) = self.part(self.hash(key))?;
        let part = part.lock();
        let found = part.get(part.find(hash, key)?)?;
        self.lasts(found, now).then_some(*found)
    }

    /// Returns whether a tombstone is not over.
    pub(crate) const fn lasts(&self, tombstone: &Tombstone, now: Micros) -> bool {
        now.0.saturating_sub(tombstone.ended.0) < self.lifetime_us
    }

    /// Calls `each` with all unexpired tombstones until it fails, the oldest of each part first.
    ///
    /// No lock is held during a call, and none for longer than a slice. A tombstone that is added
    /// during the walk may be visited in the place of an older one, or missed. Takes 16 bytes of
    /// memory for each place of a part.
    pub(crate) fn try_each<E>(
        &self,
        now: Micros,
        mut each: impl FnMut(&Tombstone) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut slice = Vec::with_capacity(PORTION as usize);
        let mut order = Vec::new();
        for part in &self.parts {
            order.clear();
            while part.lock().ages(order.len() as u32, PORTION, &mut order) {}
            // Free places are included, so that tombstones added during the walk change no
            // position.
            order.sort_unstable();
            for places in order.chunks(PORTION as usize) {
                {
                    let part = part.lock();
                    let live = places.iter().filter_map(|(_, place)| part.in_use(*place));
                    slice.extend(live.filter(|tombstone| self.lasts(tombstone, now)));
                }
                for tombstone in slice.drain(..) {
                    each(&tombstone)?;
                }
            }
        }
        Ok(())
    }

    /// Records that the challenge ACK of an end is answered; returns `false` if one was answered
    /// before.
    pub(crate) fn challenge(&self, key: &FlowKey, direction: Direction) -> bool {
        let Some((part, hash)) = self.part(self.hash(key)) else {
            return false;
        };
        let mut part = part.lock();
        let place = part.find(hash, key);
        let Some(found) = place.and_then(|place| part.get_mut(place)) else {
            return false;
        };
        let bit = 1 << direction as u8;
        let first = found.challenged & bit == 0;
        found.challenged |= bit;
        first
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::testing;

    fn tombstone(n: u32, at: u64) -> Tombstone {
        let slot = Slot::new(testing::key(n));
        let id = SessionId::new(u64::from(n) + 1);
        Tombstone::new(&slot, id, RuleId::DEFAULT, EndReason::Timeout, Micros(at))
    }

    fn yard(max: usize) -> Graveyard {
        Graveyard::new(max, Duration::from_secs(10), [1, 2, 3, 4]).unwrap()
    }

    #[test]
    fn the_newest_takes_the_place_of_the_oldest() {
        let yard = yard(8);
        for n in 0..20 {
            yard.bury(tombstone(n, 5));
        }
        assert_eq!(yard.len(), 8);
        for n in 0..20 {
            let found = yard.find(&testing::key(n), Micros(6));
            assert_eq!(found.is_some(), n >= 12, "{n}");
            assert!(found.is_none_or(|found| found.id == SessionId::new(u64::from(n) + 1)));
        }
    }

    #[test]
    fn a_tombstone_is_over_with_its_lifetime() {
        let yard = yard(8);
        yard.bury(tombstone(1, 1_000_000));
        assert!(yard.find(&testing::key(1), Micros(10_999_999)).is_some());
        assert!(yard.find(&testing::key(1), Micros(11_000_000)).is_none());
    }

    #[test]
    fn of_two_of_one_conversation_the_newer_counts_and_the_older_takes_nothing_away() {
        let yard = yard(3);
        yard.bury(tombstone(1, 1));
        yard.bury(tombstone(1, 2));
        yard.bury(tombstone(2, 3));
        // The newer tombstone takes the place of the older one and must still be found.
        yard.bury(tombstone(3, 4));
        assert_eq!(
            yard.find(&testing::key(1), Micros(5))
                .map(|found| found.ended),
            Some(Micros(2))
        );
        assert!(yard.find(&testing::key(2), Micros(5)).is_some());
        assert!(yard.find(&testing::key(3), Micros(5)).is_some());
    }

    fn of_zone(zone: u16, n: u32, at: u64) -> Tombstone {
        let mut slot = Slot::new(testing::key(n));
        slot.key = testing::key_in(Zone(zone), n);
        Tombstone::new(
            &slot,
            SessionId::new(1),
            RuleId::DEFAULT,
            EndReason::Timeout,
            Micros(at),
        )
    }

    fn known(yard: &Graveyard, zone: u16, numbers: std::ops::Range<u32>, at: u64) -> usize {
        numbers
            .filter(|n| {
                yard.find(&testing::key_in(Zone(zone), *n), Micros(at))
                    .is_some()
            })
            .count()
    }

    #[test]
    fn a_zone_that_ends_many_sessions_erases_no_other_zone() {
        let yard = yard(48);
        yard.set_zones(&[Zone(0), Zone(1), Zone(2)]);
        for n in 0..8 {
            yard.bury(of_zone(2, n, 1));
        }
        for n in 0..1_000 {
            yard.bury(of_zone(1, n, 2));
        }
        assert_eq!(known(&yard, 2, 0..8, 3), 8);
        assert_eq!(known(&yard, 1, 960..1_000, 3), 40, "its newest");
        // A zone below its guarantee takes the places of the zone that is most above its own.
        for n in 0..100 {
            yard.bury(of_zone(0, n, 4));
        }
        assert_eq!(known(&yard, 0, 92..100, 5), 8);
        assert_eq!(known(&yard, 1, 968..1_000, 5), 32);
        assert_eq!((known(&yard, 2, 0..8, 5), yard.len()), (8, 48));
    }

    #[test]
    fn what_is_over_makes_room_whatever_its_zone() {
        let yard = yard(12);
        yard.set_zones(&[Zone(1), Zone(2)]);
        for n in 0..12 {
            yard.bury(of_zone(1, n, 1));
        }
        for n in 0..12 {
            yard.bury(of_zone(2, n, 10_000_002));
        }
        assert_eq!(known(&yard, 2, 0..12, 10_000_003), 12);
    }

    #[test]
    fn a_place_that_is_forgotten_is_used_again() {
        let yard = yard(8);
        for round in 0..100 {
            for n in 0..8 {
                yard.bury(tombstone(n, round));
                if n % 2 == 0 {
                    yard.forget(&testing::key(n));
                }
            }
            assert_eq!(yard.len(), 4);
        }
        let mut seen = 0;
        let count = |_: &Tombstone| {
            seen += 1;
            Ok::<_, ()>(())
        };
        yard.try_each(Micros(100), count).unwrap();
        assert_eq!(seen, 4);
    }

    #[test]
    fn a_walk_sees_the_oldest_first_and_holds_no_lock() {
        let yard = yard(255);
        let number = |n: u32| n * 7 % 200;
        // Places are assigned in one order, and ages follow another.
        for n in 0..200 {
            yard.bury(tombstone(n, 1));
        }
        for n in 0..200 {
            yard.forget(&testing::key(number(n)));
        }
        for n in 0..190 {
            yard.bury(tombstone(n, u64::from(n) + 2));
        }
        let mut seen = Vec::new();
        let note = |tombstone: &Tombstone| {
            // This call would deadlock if the walk held the lock.
            assert!(yard.find(&tombstone.key, Micros(300)).is_some());
            seen.push(tombstone.ended.0);
            Ok::<_, ()>(())
        };
        yard.try_each(Micros(300), note).unwrap();
        assert_eq!(seen, (2..192).collect::<Vec<u64>>());
    }

    #[test]
    fn each_end_is_challenged_once() {
        let yard = yard(300);
        yard.bury(tombstone(1, 1));
        assert!(yard.challenge(&testing::key(1), Direction::Reply));
        assert!(!yard.challenge(&testing::key(1), Direction::Reply));
        assert!(yard.challenge(&testing::key(1), Direction::Original));
        assert!(
            !yard.challenge(&testing::key(2), Direction::Original),
            "unknown"
        );
    }

    #[test]
    fn without_room_nothing_is_remembered() {
        let yard = yard(0);
        yard.bury(tombstone(1, 1));
        assert!(yard.find(&testing::key(1), Micros(1)).is_none());
    }
}
