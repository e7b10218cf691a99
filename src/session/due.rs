//! Expiry of the sessions of a shard: those whose deadlines have come; and the slots that become
//! free.

use super::id::SlotId;
use super::outline::prefetch_address;
use super::shard::{Ended, Shard, Slab};
use super::slot::{NIL, Slot};
use super::wheel::{Due, behind};
use crate::flow::FlowKey;
use crate::limits::Departures;

/// Number of sessions that end under one hold of a shard's lock.
pub(crate) const RUN: usize = 16;

/// Number of sessions of a shard below which prefetching costs more than the cache misses.
const FEW_SESSIONS: usize = 64;

/// Step that [`Shard::expire`] has done.
pub(crate) enum Expired {
    /// A session has ended.
    Ended(Ended),
    /// A refreshed session was rescheduled.
    Moved,
    /// No session is due yet.
    Idle,
}

/// Steps under one hold of the shard's lock.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The earliest list of the wheel. A session that is rescheduled goes to a later list, so this
    /// one stays the earliest until it is empty.
    list: Option<Due>,
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
    /// [`RUN`]. Calls `each` with their keys.
    pub(crate) fn prefetch_due(&self, now: u32, count: usize, mut each: impl FnMut(&FlowKey)) {
        if self.len() < FEW_SESSIONS {
            return;
        }
        let earliest = self.wheel.earliest().filter(|due| due.tick <= now);
        let mut next = earliest.map(|due| self.wheel.first(due));
        let mut sources = [None; RUN];
        for source in sources.iter_mut().take(count) {
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
            self.places.prefetch(self.hash(&hot.key));
            *source = Some(self.accounts.prefetch_counts(&hot.key, hot.initiator()));
            each(&hot.key);
        }
        for source in sources.into_iter().flatten() {
            self.accounts.prefetch_source(source);
        }
    }

    /// Processes up to `steps` steps of the work that is due at tick `now`, and calls `each` after
    /// each. `spare` may extend the deadline of a session that is over.
    pub(crate) fn expire_some(
        &mut self,
        now: u32,
        steps: usize,
        spare: &mut impl FnMut(&mut Slab, SlotId) -> Option<u32>,
        mut each: impl FnMut(Expired),
    ) {
        let mut run = Run::default();
        for _ in 0..steps {
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
        // A session that is over by now ends at once, without passing through the lists that lead
        // to its deadline.
        if self.slab.hot(slot).deadline <= now {
            match spare(&mut self.slab, slot) {
                None => {
                    let reason = self.slab.hot(slot).end_of_life();
                    let departures = &mut run.departures;
                    return Expired::Ended(self.take_out(slot, reason, departures));
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
