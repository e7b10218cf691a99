//! Expiry of the sessions of a shard: those whose deadlines have come; and the slots that become
//! free.

use super::EndReason;
use super::id::SlotId;
use super::outline::prefetch_address;
use super::shard::{Ended, Shard, Slab};
use super::slot::{NIL, Slot};
use super::tombstone::TombstoneHash;
use super::wheel::{Due, behind};
use crate::flow::FlowKey;
use crate::limits::{Departures, SourceHash};
use crate::policy::RuleId;

/// Number of sessions that end under one hold of a shard's lock.
pub(crate) const RUN: usize = 16;

/// Number of sessions of a shard below which prefetching costs more than the cache misses.
const FEW_SESSIONS: usize = 64;

/// Hashes of a session that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hashes {
    /// The hash of its key in the shard.
    pub(crate) index: u32,
    /// The hash of the counts of its source.
    pub(super) source: SourceHash,
    /// The hash of its key among the tombstones, if it may leave one.
    pub(crate) tombstone: Option<TombstoneHash>,
}

/// Sessions that are due, in the order in which they will end, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    sessions: [Option<(SlotId, Hashes)>; RUN],
    /// Number of steps done.
    done: usize,
}

impl Foreseen {
    /// Returns the hashes of the session of the next step. A session that was not foreseen has
    /// none.
    #[inline]
    fn step(&mut self, slot: SlotId) -> Option<Hashes> {
        let foreseen = self.sessions.get(self.done).copied().flatten();
        self.done += 1;
        foreseen.and_then(|(own, hashes)| (own == slot).then_some(hashes))
    }
}

/// Step that [`Shard::expire`] has done.
pub(crate) enum Expired {
    /// A session has ended; its hashes, if they are known.
    Ended(Ended, Option<Hashes>),
    /// A refreshed session was rescheduled.
    Moved,
    /// No session is due yet.
    Idle,
}

/// Steps that [`Shard::expire_some`] is to do.
pub(crate) struct Steps {
    /// The tick at which sessions are due.
    pub(crate) now: u32,
    /// The greatest number of steps.
    pub(crate) most: usize,
    pub(crate) foreseen: Foreseen,
}

/// Steps under one hold of the shard's lock.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The earliest list of the wheel. A session that is rescheduled goes to a later list, so this
    /// one stays the earliest until it is empty.
    list: Option<Due>,
    foreseen: Foreseen,
    departures: Departures,
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
        for place in foreseen.sessions.iter_mut().take(count) {
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
        for (_, hashes) in foreseen.sessions.iter().flatten() {
            self.accounts.prefetch_source(hashes.source);
        }
        foreseen
    }

    /// Processes up to `steps` steps of the work that is due at tick `now`, and calls `each` after
    /// each. `foreseen` is the result of [`Shard::prefetch_due`]. `spare` may extend the deadline of
    /// a session that is over.
    pub(crate) fn expire_some(
        &mut self,
        Steps {
            now,
            most,
            foreseen,
        }: Steps,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
        mut each: impl FnMut(Expired),
    ) {
        let mut run = Run {
            foreseen,
            ..Run::default()
        };
        for _ in 0..most {
            match self.expire(now, &mut run, spare) {
                Expired::Idle => break,
                done => each(done),
            }
        }
        self.finish(run);
    }

    /// Processes one step of the work that is due at tick `now`. The caller finishes the run.
    #[inline]
    pub(super) fn expire(
        &mut self,
        now: u32,
        run: &mut Run,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
    ) -> Expired {
        run.list = match run.list {
            Some(due) if self.wheel.first(due) != NIL => Some(due),
            _ => self.wheel.earliest().filter(|due| due.tick <= now),
        };
        let Some(due) = run.list else {
            self.wheel.advance(now);
            return Expired::Idle;
        };
        self.come_up(due, now, run, spare)
    }

    /// Ends a session; the caller counts the departures before it releases the lock.
    #[inline]
    fn take_out(
        &mut self,
        slot: SlotId,
        reason: EndReason,
        known: Option<&Hashes>,
        departures: &mut Departures,
    ) -> Ended {
        let (ended, standing) = self.free(slot, reason, known);
        let (zone, rule) = (ended.slot.key.zone(), RuleId(ended.cold.rule));
        departures.add(&self.accounts, zone, rule, standing);
        ended
    }

    /// Counts the sessions that have ended in a run.
    pub(super) fn finish(&self, mut run: Run) {
        self.accounts.depart(&mut run.departures);
    }

    /// Processes the first session of a list that is due.
    #[inline]
    fn come_up(
        &mut self,
        due: Due,
        now: u32,
        run: &mut Run,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
    ) -> Expired {
        self.wheel.advance(due.tick);
        let slot = SlotId(self.wheel.first(due));
        let hashes = run.foreseen.step(slot);
        // A session that is over by now ends at once, without passing through the lists that lead
        // to its deadline.
        if self.slab.hot(slot).deadline <= now {
            match spare(&mut self.slab, slot) {
                None => {
                    let reason = self.slab.hot(slot).end_of_life();
                    let ended = self.take_out(slot, reason, hashes.as_ref(), &mut run.departures);
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
