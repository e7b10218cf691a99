//! One shard: a deterministic table of sessions behind one lock.
//!
//! Life cycle of a slot: free -> [`Shard::insert`] -> touched by packets, re-armed -> [`Shard::remove`] -> free.
//! A slot in use stands in the index exactly once and hangs in the wheel exactly once, in the list of its
//! [`EvictionClass`]. `check_invariants` says so in tests and under the fuzzer.

use std::ops::Range;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::EndReason;
use super::index::Index;
use super::judging::Unjudged;
use super::slot::{Cold, Links, NIL, Slot};
use super::time::Micros;
use super::wheel::{Due, Linked, Wheel};
use crate::flow::{Direction, End, FlowKey};
use crate::limits::{Accounts, Counts, Standing, Subject};
use crate::policy::RuleId;
use crate::reserve::{NoMemory, Purpose};
use crate::session::TunnelRef;
use crate::track::EvictionClass;

/// The memory of all sessions of a shard.
#[derive(Debug)]
pub(crate) struct Slab {
    pub(super) hot: Vec<Slot>,
    cold: Vec<Cold>,
    /// What each direction of each session was last seen in; empty where nobody asks for it.
    tunnels: Vec<[TunnelRef; 2]>,
}

impl Slab {
    #[expect(
        clippy::indexing_slicing,
        reason = "slot numbers come from the index and the wheel of this shard"
    )]
    pub(crate) fn hot(&self, slot: u32) -> &Slot {
        &self.hot[slot as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slot numbers come from the index and the wheel of this shard"
    )]
    pub(crate) fn hot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.hot[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "hot and cold have one length")]
    pub(crate) fn cold(&self, slot: u32) -> &Cold {
        &self.cold[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "hot and cold have one length")]
    pub(crate) fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        &mut self.cold[slot as usize]
    }

    /// Asks the processor for both cache lines of a slot, and for what its packets are noted in.
    #[inline]
    fn prefetch(&self, slot: usize) {
        prefetch_index(&self.hot, slot);
        if let Some(hot) = self.hot.get(slot) {
            hot.prefetch_counts();
        }
        prefetch_index(&self.tunnels, slot);
    }

    /// What each direction of a session was last seen in.
    pub(crate) fn tunnels(&self, slot: u32) -> [TunnelRef; 2] {
        self.tunnels.get(slot as usize).copied().unwrap_or_default()
    }

    /// Sets what both directions of a session were last seen in.
    pub(crate) fn set_tunnels(&mut self, slot: u32, tunnels: [TunnelRef; 2]) {
        if let Some(place) = self.tunnels.get_mut(slot as usize) {
            *place = tunnels;
        }
    }

    /// Notes what a packet was in. A packet that came without a reference changes nothing.
    #[inline]
    pub(crate) fn note_tunnel(&mut self, slot: u32, direction: Direction, tunnel: TunnelRef) {
        if tunnel == TunnelRef::NONE {
            return;
        }
        if let Some([original, reply]) = self.tunnels.get_mut(slot as usize) {
            match direction {
                Direction::Original => *original = tunnel,
                Direction::Reply => *reply = tunnel,
            }
        }
    }
}

impl Slab {
    /// Returns a session as it is counted, and the entries that it is counted in.
    pub(crate) fn counted(&self, slot: u32) -> (Subject<'_>, Counts) {
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
        self.hot(slot).links
    }

    fn links_mut(&mut self, slot: u32) -> &mut Links {
        &mut self.hot_mut(slot).links
    }

    fn deadline(&self, slot: u32) -> u32 {
        self.hot(slot).deadline
    }
}

/// A session that has ended: its last contents, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) number: u32,
    pub(crate) slot: Slot,
    pub(crate) cold: Cold,
    pub(crate) tunnels: [TunnelRef; 2],
    pub(crate) reason: EndReason,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) slab: Slab,
    index: Index,
    pub(super) wheel: Wheel,
    hasher: ahash::RandomState,
    /// Head of the list of free slots, linked by `links.next`.
    free: u32,
    capacity: usize,
    keeps_tunnels: bool,
    /// The slots whose sessions a reload has still to judge.
    pub(crate) unjudged: Unjudged,
    by_worth: [usize; EvictionClass::ALL.len()],
    /// The counts of all shards together: each session is counted there as it is here.
    pub(super) accounts: Arc<Accounts>,
    /// The slot at which the last search for a session to evict has ended.
    pub(super) row: u32,
    /// The state of a generator of random slots: xorshift (Marsaglia, 2003).
    pub(super) random: u64,
}

/// What [`Shard::expire`] did next.
pub(crate) enum Expired {
    /// A session has ended.
    Ended(Ended),
    /// A refreshed session was hung up again.
    Moved,
    /// Nothing more is due by now.
    Idle,
}

impl Shard {
    pub(crate) fn new(
        capacity: usize,
        tunnels: bool,
        hasher: ahash::RandomState,
        accounts: Arc<Accounts>,
    ) -> Result<Self, NoMemory> {
        Ok(Self {
            // Room is reserved, not touched: memory is used as sessions come.
            slab: Slab {
                hot: Purpose::Sessions.room(capacity)?,
                cold: Purpose::Sessions.room(capacity)?,
                tunnels: Purpose::TunnelReferences.room(if tunnels { capacity } else { 0 })?,
            },
            index: Index::new(Purpose::Sessions, capacity)?,
            wheel: Wheel::new()?,
            row: 0,
            random: hasher.hash_one(0) | 1,
            hasher,
            free: NIL,
            capacity,
            keeps_tunnels: tunnels,
            unjudged: Unjudged::default(),
            by_worth: [0; EvictionClass::ALL.len()],
            accounts,
        })
    }

    /// The bytes that the sessions of a shard take, without tunnel references.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        capacity * super::SESSION_BYTES + Index::bytes(capacity) + Wheel::BYTES
    }

    pub(crate) const fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Sessions of a worth.
    pub(crate) fn count(&self, worth: EvictionClass) -> usize {
        self.by_worth.get(worth as usize).copied().unwrap_or(0)
    }

    fn hash(&self, key: &FlowKey) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    #[inline]
    pub(crate) fn find(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        self.index.find(hash, |slot| self.slab.hot(slot).key == *key)
    }

    /// Returns the first session of a hash for which `is` holds.
    pub(crate) fn find_by(&self, hash: u32, mut is: impl FnMut(u32, &Slot) -> bool) -> Option<u32> {
        self.index.find(hash, |number| is(number, self.slab.hot(number)))
    }

    /// Asks the processor for what of the index a hash needs.
    #[inline]
    pub(crate) fn prefetch_index(&self, hash: u32) {
        self.index.prefetch(hash);
    }

    /// Asks the processor for the memory of the session that a hash most likely means.
    #[inline]
    pub(crate) fn prefetch_slot(&self, hash: u32) {
        if let Some(number) = self.index.candidate(hash) {
            self.slab.prefetch(number as usize);
        }
    }

    /// Takes a slot for a new session; the caller has claimed a place of its zone, and has made
    /// sure that there is room here. Its deadline and state are still to be set, then
    /// [`Shard::hang`] must be called.
    pub(crate) fn insert(
        &mut self,
        hash: u32,
        key: FlowKey,
        initiator: End,
        now: Micros,
        (profile, rule): (u8, u16),
        counts: Counts,
    ) -> u32 {
        debug_assert!(!self.is_full());
        let number = if self.free == NIL {
            let number = self.slab.hot.len() as u32;
            self.slab.hot.push(Slot::new(key));
            self.slab.cold.push(Cold::new(now, rule));
            if self.keeps_tunnels {
                self.slab.tunnels.push([TunnelRef::NONE; 2]);
            }
            number
        } else {
            let number = self.free;
            self.free = self.slab.hot(number).links.next;
            number
        };
        // A new session is opened by the newest settings.
        self.unjudged.set_judged(number);
        self.slab.hot_mut(number).occupy(key, initiator, now, profile);
        *self.slab.cold_mut(number) = Cold::new(now, rule);
        self.slab.cold_mut(number).set_counts(counts);
        if let Some(tunnels) = self.slab.tunnels.get_mut(number as usize) {
            *tunnels = [TunnelRef::NONE; 2];
        }
        self.index.insert(hash, number);
        number
    }

    /// Hangs a new session up by its deadline and worth.
    pub(crate) fn hang(&mut self, slot: u32) {
        let hot = self.slab.hot(slot);
        let worth = hot.eviction_class();
        let standing = Standing::of(hot.key.protocol(), worth);
        self.accounts.begins(hot.key.zone(), standing);
        let (subject, counts) = self.slab.counted(slot);
        self.accounts
            .changed(subject, counts, subject.first_standing(), standing);
        self.add(worth, 1);
        self.wheel.hang(&mut self.slab, slot, worth);
    }

    /// Puts a session under a rule, and counts it in the entries that `counts` says.
    pub(crate) fn put_under(&mut self, number: u32, rule: RuleId, counts: Counts) {
        let (subject, before) = self.slab.counted(number);
        if (subject.rule, before) == (rule, counts) {
            return;
        }
        let hot = self.slab.hot(number);
        let standing = Standing::of(hot.key.protocol(), hot.eviction_class());
        let moved = Subject { rule, ..subject };
        self.accounts.moved(subject, before, moved, counts, standing);
        let cold = self.slab.cold_mut(number);
        cold.rule = rule.0;
        cold.set_counts(counts);
    }

    fn add(&mut self, worth: EvictionClass, change: isize) {
        if let Some(count) = self.by_worth.get_mut(worth as usize) {
            *count = count.saturating_add_signed(change);
        }
    }

    /// Sets the deadline of a session whose worth was `before`. Returns whether the wheel was touched: a later
    /// deadline of a session of the same worth is only stored.
    pub(crate) fn rearm(&mut self, slot: u32, deadline: u32, before: EvictionClass) -> bool {
        let hot = self.slab.hot_mut(slot);
        let worth = hot.eviction_class();
        let earlier = deadline < hot.deadline;
        hot.deadline = deadline;
        if worth == before && !earlier {
            return false;
        }
        self.wheel.take(&mut self.slab, slot);
        self.wheel.hang(&mut self.slab, slot, worth);
        if worth != before {
            self.add(before, -1);
            self.add(worth, 1);
            let (subject, counts) = self.slab.counted(slot);
            let standing = |worth| Standing::of(subject.key.protocol(), worth);
            let (before, after) = (standing(before), standing(worth));
            self.accounts.changes(subject.key.zone(), before, after);
            self.accounts.changed(subject, counts, before, after);
        }
        true
    }

    /// Ends a session and releases its place.
    pub(crate) fn remove(&mut self, number: u32, reason: EndReason) -> Ended {
        let ended = self.unlink(number, reason);
        self.accounts.release(ended.slot.key.zone());
        ended
    }

    /// Ends a session whose place the caller releases or hands over.
    pub(super) fn unlink(&mut self, number: u32, reason: EndReason) -> Ended {
        let slot = *self.slab.hot(number);
        let removed = self.index.remove(self.hash(&slot.key), number);
        debug_assert!(removed, "a session in use stands in the index");
        self.wheel.take(&mut self.slab, number);
        let worth = slot.eviction_class();
        self.add(worth, -1);
        let standing = Standing::of(slot.key.protocol(), worth);
        self.accounts.ends(slot.key.zone(), standing);
        let (subject, counts) = self.slab.counted(number);
        self.accounts.ended(subject, counts, standing);
        let free = self.free;
        let hot = self.slab.hot_mut(number);
        hot.vacate();
        hot.links = Links {
            next: free,
            previous: NIL,
        };
        self.free = number;
        Ended {
            number,
            slot,
            cold: *self.slab.cold(number),
            tunnels: self.slab.tunnels(number),
            reason,
        }
    }

    /// Ends a session whose deadline has come.
    pub(crate) fn end_expired(&mut self, number: u32) -> Ended {
        let reason = self.slab.hot(number).end_of_life();
        self.remove(number, reason)
    }

    /// Does one step of what is due at tick `now`. `spare` may give a session that is over a later deadline.
    pub(crate) fn expire(&mut self, now: u32, spare: &mut impl FnMut(&Slot, u32) -> Option<u32>) -> Expired {
        match self.wheel.earliest() {
            Some(due) if due.tick <= now => self.come_up(due, now, spare),
            _ => {
                self.wheel.advance(now);
                Expired::Idle
            }
        }
    }

    /// Deals with the first session of a list whose time has come.
    fn come_up(&mut self, due: Due, now: u32, spare: &mut impl FnMut(&Slot, u32) -> Option<u32>) -> Expired {
        self.wheel.advance(due.tick);
        let number = self.wheel.first(due);
        // One that is over by now ends at once, without a detour through the lists that lead to its deadline.
        if self.slab.hot(number).deadline <= now {
            match spare(self.slab.hot(number), number) {
                None => return Expired::Ended(self.end_expired(number)),
                Some(deadline) => self.slab.hot_mut(number).deadline = deadline.max(now + 1),
            }
        }
        let worth = self.slab.hot(number).eviction_class();
        self.wheel.take(&mut self.slab, number);
        self.wheel.hang(&mut self.slab, number, worth);
        Expired::Moved
    }

    /// A tick that is not later than the first deadline.
    pub(crate) fn next_tick(&self) -> Option<u32> {
        self.wheel.earliest().map(|due| due.tick)
    }

    /// The number of slots that have ever been in use: all numbers are below it.
    pub(crate) const fn slots(&self) -> u32 {
        self.slab.hot.len() as u32
    }

    /// The number of slots that there can be.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The numbers of the sessions in a range of slots.
    pub(crate) fn sessions_in(&self, slots: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        let range = slots.start as usize..slots.end as usize;
        let hot = self.slab.hot.get(range).unwrap_or_default();
        slots
            .zip(hot)
            .filter(|(_, slot)| slot.in_use())
            .map(|(number, _)| number)
    }

    /// The numbers of all sessions.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = u32> + '_ {
        self.sessions_in(0..self.slots())
    }

    /// Whether index, wheel, free list and counts tell one story.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let in_use = self.sessions().count();
        if in_use != self.len() {
            return Err(format!("{in_use} slots in use, {} in the index", self.len()));
        }
        if self.len() > self.capacity {
            return Err(format!("{} sessions, capacity {}", self.len(), self.capacity));
        }
        let mut by_worth = [0; EvictionClass::ALL.len()];
        let first = self.next_tick();
        for number in self.sessions() {
            let slot = self.slab.hot(number);
            if self.find(self.hash(&slot.key), &slot.key) != Some(number) {
                return Err(format!("slot {number} is not found by its key"));
            }
            if first.is_none_or(|first| first > slot.deadline) && self.wheel.is_ahead(slot.deadline) {
                return Err(format!(
                    "next tick {first:?} is later than the deadline {}",
                    slot.deadline
                ));
            }
            if let Some(count) = by_worth.get_mut(slot.eviction_class() as usize) {
                *count += 1;
            }
        }
        if by_worth != self.by_worth {
            return Err(format!(
                "{by_worth:?} sessions by worth, counted {:?}",
                self.by_worth
            ));
        }
        let hung = self.wheel.count(&self.slab)?;
        if hung != by_worth {
            return Err(format!("{hung:?} sessions in the wheels, {by_worth:?} by worth"));
        }
        let mut free = 0;
        let mut at = self.free;
        while at != NIL {
            free += 1;
            if self.slab.hot(at).in_use() || free > self.slab.hot.len() {
                return Err(format!("free list broken at {at}"));
            }
            at = self.slab.hot(at).links.next;
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
