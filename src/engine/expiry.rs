//! Time that passes: sessions whose lifetime is over end here, in small steps.

use std::time::Instant;

use super::Engine;
use super::settings::Settings;
use crate::event::Sink;
use crate::packet::PROTOCOL_TCP;
use crate::session::{Ended, Expired, Held, Micros, Shard, Slot};
use crate::track::Lifetime;
use crate::track::tcp::State;

/// Sessions that end under one hold of a shard's lock.
const BATCH: usize = 16;

/// Work that a call to [`Engine::expire`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiry {
    /// Sessions that ended.
    pub ended: usize,
    /// Sessions that were looked at and put back, because packets had refreshed them, or that a
    /// reload keeps.
    pub moved: usize,
    /// The budget ran out before everything due was done: call again soon.
    pub more: bool,
}

impl Engine {
    /// Ends the sessions whose lifetime has passed by `now`, and tells `sink` of each.
    ///
    /// A session ends at most [`crate::session::TICK`] after its lifetime, if this is called then, and never
    /// before. `budget` bounds the work: the number of sessions looked at. The cost is that of the sessions due,
    /// never of the whole table, so call it often with a small budget: after each batch of packets, and at
    /// [`Engine::next_expiry`] when there are none. A spurious call does nothing and costs little. A session
    /// that is past its end counts as gone for packets, whether this was called or not. What is left of the budget
    /// goes to fragmented datagrams that were never completed; they alone need no call.
    pub fn expire_with<S: Sink>(&self, now: Instant, budget: usize, sink: &mut S) -> Expiry {
        let tick = self.origin.micros(now).tick();
        let mut done = Expiry::default();
        let shards = self.table.shards();
        let start = self.table.cursor.load(std::sync::atomic::Ordering::Relaxed);
        for step in 0..shards {
            let number = (start + step) % shards;
            while self.table.next_tick_of(number).is_some_and(|due| due <= tick) {
                let left = budget.saturating_sub(done.ended + done.moved);
                if left == 0 {
                    // The next call goes on with this shard.
                    self.table
                        .cursor
                        .store(number, std::sync::atomic::Ordering::Relaxed);
                    done.more = true;
                    return done;
                }
                self.expire_shard(number, self.origin.micros(now), left.min(BATCH), sink, &mut done);
            }
        }
        // Fragmented datagrams that were never completed: a few at a time, and each new one does the same.
        let left = budget.saturating_sub(done.ended + done.moved);
        self.datagrams.expire(self.origin.micros(now), left.min(BATCH));
        self.helpers.expire(now, left.min(BATCH));
        done
    }

    fn expire_shard<S: Sink>(
        &self,
        number: usize,
        now: Micros,
        budget: usize,
        sink: &mut S,
        done: &mut Expiry,
    ) {
        let mut batch: [Option<Ended>; BATCH] = [None; BATCH];
        {
            let mut held = self.table.lock(number);
            if held.judging.is_some() {
                // Lifetimes are those of a reload that has not come to all of the sessions yet.
                drop(held);
                if let Some(slice) = self.judge_slice(number, None, sink) {
                    done.ended += slice.ended;
                    done.moved += slice.kept;
                }
                return;
            }
            let Held { shard, settings, .. } = &mut *held;
            let mut spare = |slot: &Slot, of: u32| self.spare(settings, number, slot, of, now);
            for place in batch.iter_mut().take(budget) {
                match shard.expire(now.tick(), &mut spare) {
                    Expired::Ended(ended) => {
                        self.bury(number, &ended, now);
                        *place = Some(ended);
                        done.ended += 1;
                    }
                    Expired::Moved => done.moved += 1,
                    Expired::Idle => break,
                }
            }
            self.table.set_next_tick(number, shard.next_tick());
        }
        for ended in batch.iter().flatten() {
            self.report_ended(number, ended, (now, None), sink);
        }
    }

    /// A later deadline for a session that is over by its own lifetime: one that has live children and is not closed lives
    /// on, by a lifetime of its own at a time.
    #[inline]
    pub(super) fn spare(
        &self,
        settings: &Settings,
        shard: usize,
        slot: &Slot,
        number: u32,
        now: Micros,
    ) -> Option<u32> {
        let id = || self.table.id(shard, number, slot.generation);
        if slot.key.protocol() != PROTOCOL_TCP || !self.helpers.has_children(id()) {
            return None;
        }
        if matches!(
            slot.track.state(),
            State::LastAck | State::TimeWait | State::Close
        ) {
            return None;
        }
        let lifetime = Lifetime::of(slot.track.state().lifetime());
        Some(settings.deadline(slot, lifetime, now, &mut ()))
    }

    /// The same for a session that a packet has found; whether it lives on.
    pub(super) fn spare_at(
        &self,
        shard: &mut Shard,
        settings: &Settings,
        shard_number: usize,
        number: u32,
        now: Micros,
    ) -> bool {
        let slot = shard.slab.hot(number);
        let Some(deadline) = self.spare(settings, shard_number, slot, number, now) else {
            return false;
        };
        let worth = slot.eviction_class();
        shard.rearm(number, deadline, worth);
        true
    }

    /// When [`Engine::expire`] should be called next; `None` while there are no sessions. Never later than the
    /// first session's end; earlier where sessions were refreshed since. Takes no lock.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.origin.tick_start(self.table.next_tick()?)
    }
}
