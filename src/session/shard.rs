//! One shard: a deterministic table of sessions under one lock.
//!
//! Life cycle of a slot: free -> [`Shard::insert`] -> touched by packets, rescheduled ->
//! [`Shard::remove`] -> free. A slot in use is in the index exactly once and in the wheel exactly
//! once, in the list of its [`EvictionClass`]. `check_invariants` verifies this in tests and under
//! the fuzzer.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::EndReason;
use super::hashes::Hashes;
use super::id::{SessionUid, SlotId, TunnelRef};
use super::index::{Index, Places};
use super::judging::Unjudged;
use super::outline::Outline;
use super::slot::{Cold, Links, NIL, Slot};
use super::stored::StoredMark;
use super::time::Micros;
use super::wheel::{Linked, Wheel};
use crate::flow::{Direction, FlowKey, PerDirection};
use crate::limits::{Accounts, Counts, Departures, Standing, Subject};
use crate::policy::RuleId;
use crate::reserve::{NoMemory, Purpose};
use crate::track::EvictionClass;

/// The memory of all sessions of a shard.
#[derive(Debug)]
pub(crate) struct Slab {
    pub(super) hot: Vec<Slot>,
    cold: Vec<Cold>,
    /// Newest tunnel of each direction of each session; empty if tunnel references are not kept.
    tunnels: Vec<PerDirection<TunnelRef>>,
    /// The last record of each session for a store; empty if sessions are not stored.
    stored: Vec<StoredMark>,
    /// The identifiers of sessions that another engine has opened. Sessions that are opened here
    /// have no entry.
    origins: BTreeMap<SlotId, SessionUid>,
}

impl Slab {
    #[expect(
        clippy::indexing_slicing,
        reason = "slot numbers come from the index and the wheel of this shard"
    )]
    pub(crate) fn hot(&self, slot: SlotId) -> &Slot {
        &self.hot[slot.0 as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slot numbers come from the index and the wheel of this shard"
    )]
    pub(crate) fn hot_mut(&mut self, slot: SlotId) -> &mut Slot {
        &mut self.hot[slot.0 as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "hot and cold have one length")]
    pub(crate) fn cold(&self, slot: SlotId) -> &Cold {
        &self.cold[slot.0 as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "hot and cold have one length")]
    pub(crate) fn cold_mut(&mut self, slot: SlotId) -> &mut Cold {
        &mut self.cold[slot.0 as usize]
    }

    /// Returns the session in a slot if it is that of a key. The slot may be any number.
    ///
    /// The key of a session in use is in the index exactly once, so this session is the one that a
    /// search finds.
    #[inline(always)]
    pub(crate) fn holder_mut(&mut self, slot: SlotId, key: &FlowKey) -> Option<&mut Slot> {
        let hot = self.hot.get_mut(slot.0 as usize)?;
        (hot.in_use() & (hot.key == *key)).then_some(hot)
    }

    /// Returns both parts of a session.
    #[expect(clippy::indexing_slicing, reason = "hot and cold have one length")]
    pub(crate) fn both_mut(&mut self, slot: SlotId) -> (&mut Slot, &Cold) {
        let at = slot.0 as usize;
        (&mut self.hot[at], &self.cold[at])
    }

    /// Returns the newest tunnel of each direction of a session.
    pub(crate) fn tunnels(&self, slot: SlotId) -> [TunnelRef; 2] {
        let of_slot = self.tunnels.get(slot.0 as usize);
        of_slot.copied().unwrap_or_default().0
    }

    /// Sets the newest tunnels of both directions of a session.
    pub(crate) fn set_tunnels(&mut self, slot: SlotId, tunnels: [TunnelRef; 2]) {
        if let Some(place) = self.tunnels.get_mut(slot.0 as usize) {
            *place = PerDirection(tunnels);
        }
    }

    /// Returns the mark of a session's record in a store.
    pub(crate) fn stored(&self, slot: SlotId) -> StoredMark {
        self.stored
            .get(slot.0 as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Returns the mark of a session's record in a store, if sessions are stored.
    pub(crate) fn stored_mut(&mut self, slot: SlotId) -> Option<&mut StoredMark> {
        self.stored.get_mut(slot.0 as usize)
    }

    /// Returns the identifier of a session that another engine has opened; `None` for others.
    pub(crate) fn origin(&self, slot: SlotId) -> Option<SessionUid> {
        self.origins.get(&slot).copied()
    }

    /// Sets the identifier of a session that another engine has opened. It is forgotten when the
    /// session ends.
    #[cfg(feature = "snapshot")]
    pub(crate) fn set_origin(&mut self, slot: SlotId, uid: SessionUid) {
        self.origins.insert(slot, uid);
    }

    /// Notes the tunnel of a packet. A packet without a reference changes nothing.
    #[inline]
    pub(crate) fn note_tunnel(&mut self, slot: SlotId, direction: Direction, tunnel: TunnelRef) {
        if tunnel == TunnelRef::NONE {
            return;
        }
        if let Some(newest) = self.tunnels.get_mut(slot.0 as usize) {
            newest[direction] = tunnel;
        }
    }
}

impl Slab {
    /// Returns a session in the form in which it is counted, and the entries that it is counted in.
    pub(crate) fn counted(&self, slot: SlotId) -> (Subject<'_>, Counts) {
        let (hot, cold) = (self.hot(slot), self.cold(slot));
        let subject = Subject {
            key: &hot.key,
            initiator: hot.initiator(),
            rule: RuleId(cold.rule),
        };
        (subject, cold.counts())
    }
}

impl Linked for Slab {
    fn links(&self, slot: u32) -> Links {
        self.hot(SlotId(slot)).links
    }

    fn links_mut(&mut self, slot: u32) -> &mut Links {
        &mut self.hot_mut(SlotId(slot)).links
    }

    fn deadline(&self, slot: u32) -> u32 {
        self.hot(SlotId(slot)).deadline
    }
}

/// A session that has ended: its last contents and the reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) id: SlotId,
    pub(crate) slot: Slot,
    pub(crate) cold: Cold,
    pub(crate) tunnels: [TunnelRef; 2],
    /// The epoch of the session's record in a store.
    pub(crate) stored: Option<u32>,
    /// The identifier of a session that another engine has opened.
    pub(crate) origin: Option<SessionUid>,
    pub(crate) reason: EndReason,
}

const _: () = assert!(size_of::<Ended>() == 192, "three cache lines are copied");

/// Optional data that a shard keeps beside its sessions, of 16 bytes a session each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    /// The newest tunnel of each direction.
    pub(crate) tunnels: bool,
    /// The note about the newest record of a session in a store.
    pub(crate) stored: bool,
}

/// A new session that takes a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) subject: Subject<'a>,
    /// Lifetime profile of the session.
    pub(crate) profile: u8,
    pub(crate) now: Micros,
    pub(crate) counts: Counts,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) slab: Slab,
    index: Index,
    /// The entries of the index, for prefetching.
    pub(super) places: Arc<Places>,
    pub(super) wheel: Wheel,
    hasher: ahash::RandomState,
    /// Head of the list of free slots, linked by `links.next`.
    pub(super) free: u32,
    capacity: usize,
    kept: Kept,
    /// The slots whose sessions the current reload must still judge.
    pub(crate) unjudged: Unjudged,
    by_class: [usize; EvictionClass::ALL.len()],
    /// The counts of all shards together: each session of the shard is counted there too.
    pub(super) accounts: Arc<Accounts>,
    /// The slot at which the last search for a session to evict has ended.
    pub(super) row: u32,
    /// The state of a generator of random slots: xorshift (Marsaglia, 2003).
    pub(super) random: u64,
}

impl Shard {
    pub(crate) fn new(
        capacity: usize,
        kept: Kept,
        hasher: ahash::RandomState,
        accounts: Arc<Accounts>,
    ) -> Result<Self, NoMemory> {
        let index = Index::new(Purpose::Sessions, capacity)?;
        Ok(Self {
            places: index.places(),
            index,
            // Memory is reserved, not touched: it is used as sessions are opened.
            slab: Slab {
                hot: Purpose::Sessions.room(capacity)?,
                cold: Purpose::Sessions.room(capacity)?,
                tunnels: Purpose::TunnelReferences.room(capacity * usize::from(kept.tunnels))?,
                stored: Purpose::StoredMarks.room(capacity * usize::from(kept.stored))?,
                origins: BTreeMap::new(),
            },
            wheel: Wheel::new()?,
            row: 0,
            random: hasher.hash_one(0) | 1,
            hasher,
            free: NIL,
            capacity,
            kept,
            unjudged: Unjudged::default(),
            by_class: [0; EvictionClass::ALL.len()],
            accounts,
        })
    }

    /// Returns the bytes that the sessions of a shard take, without tunnel references.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        capacity * super::SESSION_BYTES + Index::bytes(capacity) + Wheel::BYTES
    }

    pub(crate) const fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Returns the number of sessions of an eviction class.
    pub(crate) fn count(&self, class: EvictionClass) -> usize {
        self.by_class.get(class as usize).copied().unwrap_or(0)
    }

    pub(super) fn hash(&self, key: &FlowKey) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    #[inline]
    pub(crate) fn find(&self, hash: u32, key: &FlowKey) -> Option<SlotId> {
        let slot = self
            .index
            .find(hash, |slot| self.slab.hot(SlotId(slot)).key == *key);
        slot.map(SlotId)
    }

    /// Returns the first session of a hash for which `is` holds.
    pub(crate) fn find_by(
        &self,
        hash: u32,
        mut is: impl FnMut(SlotId, &Slot) -> bool,
    ) -> Option<SlotId> {
        let slot = self.index.find(hash, |slot| {
            let slot = SlotId(slot);
            is(slot, self.slab.hot(slot))
        });
        slot.map(SlotId)
    }

    /// Returns the part of the shard that is read without its lock.
    pub(crate) fn outline(&self) -> Outline {
        Outline::new(
            Arc::clone(&self.places),
            self.slab.hot.as_ptr().addr(),
            self.slab.cold.as_ptr().addr(),
            self.kept.tunnels.then(|| self.slab.tunnels.as_ptr().addr()),
        )
    }

    /// Takes a slot for a new session. The caller has claimed a place of its zone, and has ensured
    /// that there is room here. The caller must then set the session's deadline and state and call
    /// [`Shard::schedule`].
    pub(crate) fn insert(&mut self, hash: u32, session: &Opened<'_>) -> SlotId {
        let Opened {
            subject,
            profile,
            now,
            counts,
        } = *session;
        let (key, rule) = (*subject.key, subject.rule.0);
        debug_assert!(!self.is_full());
        let slot = if self.free == NIL {
            let slot = SlotId(self.slab.hot.len() as u32);
            self.slab.hot.push(Slot::new(key));
            self.slab.cold.push(Cold::new(now, rule));
            if self.kept.tunnels {
                self.slab.tunnels.push(PerDirection::default());
            }
            if self.kept.stored {
                self.slab.stored.push(StoredMark::default());
            }
            slot
        } else {
            let slot = SlotId(self.free);
            self.free = self.slab.hot(slot).links.next;
            self.prefetch_free();
            slot
        };
        // A new session is opened under the newest settings.
        self.unjudged.set_judged(slot);
        self.slab
            .hot_mut(slot)
            .occupy(key, subject.initiator, now, profile);
        *self.slab.cold_mut(slot) = Cold::new(now, rule);
        self.slab.cold_mut(slot).set_counts(counts);
        if let Some(tunnels) = self.slab.tunnels.get_mut(slot.0 as usize) {
            *tunnels = PerDirection::default();
        }
        if let Some(stored) = self.slab.stored_mut(slot) {
            *stored = StoredMark::default();
        }
        self.index.insert(hash, slot.0);
        slot
    }

    /// Schedules the end of a new session by its deadline and eviction class.
    pub(crate) fn schedule(&mut self, slot: SlotId) {
        let hot = self.slab.hot(slot);
        let class = hot.eviction_class();
        let standing = Standing::of(hot.key.protocol(), class);
        self.accounts.begins(hot.key.zone(), standing);
        let (subject, counts) = self.slab.counted(slot);
        self.accounts
            .changed(subject, counts, subject.first_standing(), standing);
        self.add(class, 1);
        self.wheel.schedule(&mut self.slab, slot.0, class);
    }

    /// Puts a session under a rule, and counts the session in the entries of `counts`.
    pub(crate) fn put_under(&mut self, slot: SlotId, rule: RuleId, counts: Counts) {
        let (subject, before) = self.slab.counted(slot);
        if (subject.rule, before) == (rule, counts) {
            return;
        }
        let hot = self.slab.hot(slot);
        let standing = Standing::of(hot.key.protocol(), hot.eviction_class());
        let moved = Subject { rule, ..subject };
        self.accounts
            .moved(subject, before, moved, counts, standing);
        let cold = self.slab.cold_mut(slot);
        cold.rule = rule.0;
        cold.set_counts(counts);
    }

    fn add(&mut self, class: EvictionClass, change: isize) {
        if let Some(count) = self.by_class.get_mut(class as usize) {
            *count = count.saturating_add_signed(change);
        }
    }

    /// Sets the deadline of a session whose eviction class was `before`. Returns whether the wheel
    /// was touched: a later deadline of a session of an unchanged class is only stored.
    pub(crate) fn rearm(&mut self, slot: SlotId, deadline: u32, before: EvictionClass) -> bool {
        let hot = self.slab.hot_mut(slot);
        let class = hot.eviction_class();
        let earlier = deadline < hot.deadline;
        hot.deadline = deadline;
        if class == before && !earlier {
            return false;
        }
        self.wheel.take(&mut self.slab, slot.0);
        self.wheel.schedule(&mut self.slab, slot.0, class);
        if class != before {
            self.add(before, -1);
            self.add(class, 1);
            let (subject, counts) = self.slab.counted(slot);
            let standing = |class| Standing::of(subject.key.protocol(), class);
            let (before, after) = (standing(before), standing(class));
            self.accounts.changes(subject.key.zone(), before, after);
            self.accounts.changed(subject, counts, before, after);
        }
        true
    }

    /// Ends a session and releases its place.
    pub(crate) fn remove(&mut self, slot: SlotId, reason: EndReason) -> Ended {
        let ended = self.unlink(slot, reason);
        self.accounts.release(ended.slot.key.zone());
        ended
    }

    /// Ends a session whose place the caller hands over.
    pub(super) fn unlink(&mut self, slot: SlotId, reason: EndReason) -> Ended {
        let mut place = None;
        let (ended, standing) = self.free(slot, reason, None, &mut place);
        let (zone, rule) = (ended.slot.key.zone(), RuleId(ended.cold.rule));
        self.accounts
            .depart(&mut Departures::without_place(zone, rule, standing));
        *ended
    }

    /// Frees the slot of a session that ends, and writes the session to `place`: it is large, and a
    /// copy of data that was just written waits for the stores. The session is still counted by
    /// zone and rule. `known` are its hashes, if they were computed before.
    #[inline(always)]
    pub(super) fn free<'p>(
        &mut self,
        id: SlotId,
        reason: EndReason,
        known: Option<&Hashes>,
        place: &'p mut Option<Ended>,
    ) -> (&'p Ended, Standing) {
        let slot = self.slab.hot(id);
        let hash = known.map_or_else(|| self.hash(&slot.key), |known| known.index);
        debug_assert_eq!(hash, self.hash(&slot.key));
        let class = slot.eviction_class();
        let standing = Standing::of(slot.key.protocol(), class);
        let removed = self.index.remove(hash, id.0);
        debug_assert!(removed, "a session in use stands in the index");
        self.wheel.take(&mut self.slab, id.0);
        self.add(class, -1);
        let (subject, counts) = self.slab.counted(id);
        let source = known.map(|known| known.source);
        self.accounts.ended(subject, counts, standing, source);
        let ended = place.insert(Ended {
            id,
            slot: *self.slab.hot(id),
            cold: *self.slab.cold(id),
            tunnels: self.slab.tunnels(id),
            stored: self.slab.stored(id).epoch(),
            origin: match self.slab.origins.is_empty() {
                true => None,
                false => self.slab.origins.remove(&id),
            },
            reason,
        });
        let free = self.free;
        let hot = self.slab.hot_mut(id);
        hot.vacate();
        hot.links = Links {
            next: free,
            previous: NIL,
        };
        self.free = id.0;
        (ended, standing)
    }

    /// Ends a session whose deadline has come.
    pub(crate) fn end_expired(&mut self, slot: SlotId) -> Ended {
        let reason = self.slab.hot(slot).end_of_life();
        self.remove(slot, reason)
    }

    /// Returns a tick that is not later than the first deadline.
    pub(crate) fn next_tick(&self) -> Option<u32> {
        self.wheel.earliest().map(|due| due.tick)
    }

    /// Returns the number of slots that have ever been in use: all numbers are below it.
    pub(crate) const fn slots(&self) -> u32 {
        self.slab.hot.len() as u32
    }

    /// Returns the maximum number of slots.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the numbers of the sessions in a range of slots.
    pub(crate) fn sessions_in(&self, slots: Range<u32>) -> impl Iterator<Item = SlotId> + '_ {
        let range = slots.start as usize..slots.end as usize;
        let hot = self.slab.hot.get(range).unwrap_or_default();
        slots
            .zip(hot)
            .filter(|(_, slot)| slot.in_use())
            .map(|(slot, _)| SlotId(slot))
    }

    /// Returns the numbers of all sessions.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.sessions_in(0..self.slots())
    }

    /// Returns all that the sessions of the shard depend on, for comparing two shards.
    pub(crate) fn state(&self) -> impl Debug + '_ {
        let Self {
            slab,
            index,
            wheel,
            free,
            by_class,
            ..
        } = self;
        (slab, index, wheel, free, by_class)
    }

    /// Returns the tick at which the wheel ends a session at the latest; for checks.
    pub(crate) fn due_tick(&self, session: SlotId) -> u32 {
        self.wheel.due_tick(self.slab.hot(session).deadline)
    }

    /// Checks that index, wheel, free list and counts agree.
    ///
    /// # Errors
    /// Returns a description of the inconsistency.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let in_use = self.sessions().count();
        if in_use != self.len() {
            return Err(format!(
                "{in_use} slots in use, {} in the index",
                self.len()
            ));
        }
        if self.len() > self.capacity {
            return Err(format!(
                "{} sessions, capacity {}",
                self.len(),
                self.capacity
            ));
        }
        let mut by_class = [0; EvictionClass::ALL.len()];
        let first = self.next_tick();
        for id in self.sessions() {
            let slot = self.slab.hot(id);
            if self.find(self.hash(&slot.key), &slot.key) != Some(id) {
                return Err(format!("slot {} is not found by its key", id.0));
            }
            let due = self.due_tick(id);
            if first.is_none_or(|first| first > due) {
                return Err(format!("next tick {first:?} is later than {due}"));
            }
            if let Some(count) = by_class.get_mut(slot.eviction_class() as usize) {
                *count += 1;
            }
        }
        if by_class != self.by_class {
            return Err(format!(
                "{by_class:?} sessions by worth, counted {:?}",
                self.by_class
            ));
        }
        let is_free = |slot: &&SlotId| !self.slab.hot(**slot).in_use();
        if let Some(slot) = self.slab.origins.keys().find(is_free) {
            return Err(format!("the free slot {} has an origin", slot.0));
        }
        let hung = self.wheel.count(&self.slab)?;
        if hung != by_class {
            return Err(format!(
                "{hung:?} sessions in the wheels, {by_class:?} by worth"
            ));
        }
        let mut free = 0;
        let mut at = self.free;
        while at != NIL {
            free += 1;
            if self.slab.hot(SlotId(at)).in_use() || free > self.slab.hot.len() {
                return Err(format!("free list broken at {at}"));
            }
            at = self.slab.hot(SlotId(at)).links.next;
        }
        if free + in_use != self.slab.hot.len() {
            return Err(format!(
                "{free} free + {in_use} in use of {}",
                self.slab.hot.len()
            ));
        }
        Ok(())
    }
}
