//! Expiry of the sessions of a shard: those whose deadlines have come; and the slots that become
//! free.

use super::hashes::Hashes;
use super::id::SlotId;
use super::outline::prefetch_address;
use super::shard::{Ended, Shard, Slab};
use super::slot::{NIL, Slot};
use super::tombstone::TombstoneHash;
use super::wheel::{Due, behind};
use crate::flow::FlowKey;
use crate::limits::Departures;
use crate::policy::RuleId;

/// Number of sessions that end under one hold of a shard's lock.
pub(crate) const RUN: usize = 16;

/// Number of sessions of a shard below which prefetching costs more than the cache misses.
const FEW_SESSIONS: usize = 64;

/// Sessions that are due, in the order in which they will end, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Foreseen([Option<(SlotId, Hashes)>; RUN]);

/// Step that [`Shard::expire`] has done.
pub(crate) enum Expired<'p> {
    /// A session has ended; its hashes, if they are known.
    Ended(&'p Ended, Option<Hashes>),
    /// A refreshed session was rescheduled.
    Moved,
    /// No session is due yet.
    Idle,
}

/// Steps that [`Shard::expire_some`] is to do.
pub(crate) struct Steps<'f> {
    /// The tick at which sessions are due.
    pub(crate) now: u32,
    /// The greatest number of steps.
    pub(crate) most: usize,
    /// The result of [`Shard::prefetch_due`].
    pub(crate) foreseen: &'f Foreseen,
}

/// Steps under one hold of the shard's lock.
#[derive(Debug, Default)]
pub(super) struct Run<'f> {
    /// The earliest list of the wheel. A session that is rescheduled goes to a later list, so this
    /// one stays the earliest until it is empty.
    list: Option<Due>,
    foreseen: &'f [Option<(SlotId, Hashes)>],
    departures: Departures,
}

impl Run<'_> {
    /// Returns the hashes of the session of the next step. A session that was not foreseen has
    /// none.
    #[inline]
    fn step(&mut self, slot: SlotId) -> Option<Hashes> {
        let (first, others) = self.foreseen.split_first()?;
        self.foreseen = others;
        first.and_then(|(own, hashes)| (own == slot).then_some(hashes))
    }
}

impl Shard {
    /// Returns the slot that a new session would take; [`NIL`] if no slot has been released.
    pub(super) const fn first_free(&self) -> u32 {
        self.free
    }

    /// Prefetches the slot that the next session takes.
    #[inline]
    pub(super) fn prefetch_free(&self) {
        if self.free != NIL {
            let slot = SlotId(self.free);
            let hot = std::ptr::from_ref(self.slab.hot(slot)).addr();
            prefetch_address(hot);
            prefetch_address(hot + size_of::<Slot>() / 2);
            prefetch_address(std::ptr::from_ref(self.slab.cold(slot)).addr());
        }
    }

    /// Prefetches what the ends of the next `count` sessions that are due will touch, at most
    /// [`RUN`]. Calls `tombstone` with their keys. Returns the hashes by which it has prefetched.
    pub(crate) fn prefetch_due(
        &self,
        now: u32,
        count: usize,
        mut tombstone: impl FnMut(&FlowKey) -> Option<TombstoneHash>,
    ) -> Foreseen {
        let mut foreseen = Foreseen::default();
        if self.len() < FEW_SESSIONS {
            return foreseen;
        }
        let earliest = self.wheel.earliest().filter(|due| due.tick <= now);
        let mut next = earliest.map(|due| self.wheel.first(due));
        for place in foreseen.0.iter_mut().take(count) {
            let Some(slot) = next.filter(|slot| *slot != NIL).map(SlotId) else {
                break;
            };
            let hot = self.slab.hot(slot);
            next = behind(hot.links);
            if hot.deadline > now {
                continue;
            }
            prefetch_address(std::ptr::from_ref(hot).addr() + size_of::<Slot>() / 2);
            prefetch_address(std::ptr::from_ref(self.slab.cold(slot)).addr());
            let index = self.hash(&hot.key);
            self.places.prefetch(index);
            let hashes = Hashes {
                index,
                source: self.accounts.prefetch_counts(&hot.key, hot.initiator()),
                tombstone: tombstone(&hot.key),
            };
            *place = Some((slot, hashes));
        }
        for (_, hashes) in foreseen.0.iter().flatten() {
            self.accounts.prefetch_source(hashes.source);
        }
        foreseen
    }

    /// Processes steps of the work that is due, and calls `each` after each. Writes the sessions
    /// that have ended to `places`, and stops if none is left. `spare` may extend the deadline of a
    /// session that is over.
    pub(crate) fn expire_some(
        &mut self,
        Steps {
            now,
            most,
            foreseen,
        }: Steps<'_>,
        places: &mut [Option<Ended>],
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
        mut each: impl FnMut(Expired<'_>),
    ) {
        let mut run = Run {
            foreseen: &foreseen.0,
            ..Run::default()
        };
        let mut used = 0;
        for _ in 0..most {
            let Some(place) = places.get_mut(used) else {
                break;
            };
            let step = self.expire(now, &mut run, spare, place);
            match step {
                Expired::Idle => break,
                Expired::Ended(..) => used += 1,
                Expired::Moved => {}
            }
            each(step);
        }
        self.finish(run);
    }

    /// Processes one step of the work that is due at tick `now`. A session that ends is written to
    /// `place`. The caller finishes the run.
    #[inline]
    pub(super) fn expire<'p>(
        &mut self,
        now: u32,
        run: &mut Run<'_>,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
        place: &'p mut Option<Ended>,
    ) -> Expired<'p> {
        run.list = match run.list {
            Some(due) if self.wheel.first(due) != NIL => Some(due),
            _ => self.wheel.earliest().filter(|due| due.tick <= now),
        };
        let Some(due) = run.list else {
            self.wheel.advance(now);
            return Expired::Idle;
        };
        self.wheel.advance(due.tick);
        self.come_up(SlotId(self.wheel.first(due)), now, run, spare, place)
    }

    /// Counts the sessions that have ended in a run.
    pub(super) fn finish(&self, mut run: Run<'_>) {
        self.accounts.depart(&mut run.departures);
    }

    /// Processes the first session of the list that is due.
    #[inline]
    fn come_up<'p>(
        &mut self,
        slot: SlotId,
        now: u32,
        run: &mut Run<'_>,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
        place: &'p mut Option<Ended>,
    ) -> Expired<'p> {
        let hashes = run.step(slot);
        // A session that is over by now ends at once, without passing through the lists that lead
        // to its deadline.
        if self.slab.hot(slot).deadline <= now {
            match spare(&mut self.slab, slot) {
                None => {
                    let reason = self.slab.hot(slot).end_of_life();
                    let (ended, standing) = self.free(slot, reason, hashes.as_ref(), place);
                    let (zone, rule) = (ended.slot.key.zone(), RuleId(ended.cold.rule));
                    // The caller counts the departures before it releases the lock.
                    run.departures.add(&self.accounts, zone, rule, standing);
                    return Expired::Ended(ended, hashes);
                }
                Some(deadline) => self.slab.hot_mut(slot).deadline = deadline.max(now + 1),
            }
        }
        let class = self.slab.hot(slot).eviction_class();
        self.wheel.take(&mut self.slab, slot.0);
        self.wheel.schedule(&mut self.slab, slot.0, class);
        Expired::Moved
    }
}
