//! Expiry: sessions whose lifetime is over are ended here, in small steps.

use std::time::Instant;

use super::Engine;
use super::live::Live;
use super::record::NotifiedSender;
use super::settings::Settings;
use crate::event::Sink;
use crate::packet::PROTOCOL_TCP;
use crate::session::{
    Ended, Expired, Held, Micros, PutOff, RUN, ShardId, Slab, Slot, SlotId, Steps,
};
use crate::track::Lifetime;
use crate::track::tcp::State;

/// Work done by a call to [`Engine::expire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiry {
    /// Sessions that ended.
    pub ended: usize,
    /// Sessions that were visited and rescheduled, because packets had refreshed them or because a
    /// reload keeps them.
    pub moved: usize,
    /// The budget was exhausted before all due work was done: call again soon.
    pub more: bool,
}

impl Engine {
    /// Ends the sessions whose lifetime has passed by `now`, and reports each to `sink`.
    ///
    /// A session never ends before its lifetime is over. It ends at most [`crate::session::TICK`]
    /// later, if this method is called then. `budget` bounds the work: the number of sessions
    /// visited.
    ///
    /// The cost is that of the sessions due, never of the whole table. Call this method often with
    /// a small budget: after each batch of packets, and at [`Engine::next_expiry`] when there are
    /// none. A spurious call does nothing and costs little.
    ///
    /// A session that is past its end is treated as gone by packets, whether this method was called
    /// or not. The rest of the budget is used for fragmented datagrams that were never completed;
    /// they alone need no call.
    pub fn expire_with<S: Sink>(&self, now: Instant, budget: usize, sink: &mut S) -> Expiry {
        let tick = self.origin.micros(now).tick();
        let mut done = Expiry::default();
        let shards = self.table.shards();
        let start = self.table.cursor.load(std::sync::atomic::Ordering::Relaxed);
        for step in 0..shards {
            let next = (start + step) % shards;
            let shard_id = ShardId(next);
            while self
                .table
                .next_tick_of(shard_id)
                .is_some_and(|due| due <= tick)
            {
                let left = budget.saturating_sub(done.ended + done.moved);
                if left == 0 {
                    // The next call continues with this shard.
                    self.table
                        .cursor
                        .store(next, std::sync::atomic::Ordering::Relaxed);
                    done.more = true;
                    return done;
                }
                self.expire_shard(
                    shard_id,
                    self.origin.micros(now),
                    left.min(RUN),
                    sink,
                    &mut done,
                );
            }
        }
        // Fragmented datagrams that were never completed: a few at a time. Each new datagram does
        // this work as well.
        let left = budget.saturating_sub(done.ended + done.moved);
        self.datagrams
            .expire(self.origin.micros(now), left.min(RUN));
        self.helpers.expire(now, left.min(RUN));
        if let Some(questions) = &self.questions {
            questions.expire(self.origin.micros(now), RUN);
        }
        done
    }

    fn expire_shard<S: Sink>(
        &self,
        shard_id: ShardId,
        now: Micros,
        budget: usize,
        sink: &mut S,
        done: &mut Expiry,
    ) {
        let mut batch: [Option<Ended>; RUN] = [None; RUN];
        let mut asked: [Option<PutOff>; RUN] = [None; RUN];
        {
            let mut held = self.table.lock(shard_id);
            if held.judging.is_some() {
                // Lifetimes are those of a reload that has not visited all sessions yet.
                drop(held);
                if let Some(slice) = self.judge_slice(shard_id, None, sink) {
                    done.ended += slice.ended;
                    done.moved += slice.kept;
                }
                return;
            }
            let Held {
                shard, settings, ..
            } = &mut *held;
            let mut spare = |slab: &mut Slab, of: SlotId| {
                self.extend_for_children(settings, shard_id, slab.hot(of), of, now)
                    .or_else(|| {
                        let free = asked.iter_mut().find(|place| place.is_none());
                        let place = free.filter(|_| S::LISTENS && self.fixed.continuity)?;
                        *place = slab.put_off(of, now);
                        place.map(|put_off| put_off.deadline)
                    })
            };
            let tick = now.tick();
            let foreseen = shard.prefetch_due(tick, budget, |key| {
                (key.protocol() == PROTOCOL_TCP).then(|| self.graveyard.prefetch(key))
            });
            let steps = Steps {
                now: tick,
                most: budget,
                foreseen: &foreseen,
            };
            shard.expire_some(steps, &mut batch, &mut spare, |step| match step {
                Expired::Ended(ended, hashes) => {
                    self.bury_foreseen(shard_id, ended, hashes.as_ref(), now);
                    done.ended += 1;
                }
                Expired::Moved => done.moved += 1,
                Expired::Idle => {}
            });
            self.table.set_next_tick(shard_id, shard.next_tick());
            self.table.note_free(shard_id, shard);
            // A packet that waits for the lock comes before the next sessions.
            self.table.hand_over(shard_id, held);
        }
        self.rule_counters.ended(batch.iter().flatten());
        let settings = self.settings();
        for ended in batch.iter().flatten() {
            let nobody = NotifiedSender::nobody(now);
            self.report_counted(shard_id, ended, nobody, Some(&settings), sink);
        }
        for put_off in asked.iter().flatten() {
            self.ask_for_owner(put_off, now, sink);
        }
    }

    /// Asks whether another engine owns a session whose end was put off. Without an answer it ends
    /// at its new deadline.
    #[cold]
    fn ask_for_owner<S: Sink>(&self, put_off: &PutOff, now: Micros, sink: &mut S) {
        let question = self
            .origin
            .instant(now)
            .and_then(|at| self.question_of_owner(&put_off.key, put_off.epoch, at));
        if let Some(question) = question {
            sink.question(&question);
        }
    }

    /// Extends the deadline of a session whose own lifetime is over: a session that has live
    /// children and is not closed lives on, for one lifetime at a time.
    #[inline]
    pub(super) fn extend_for_children(
        &self,
        settings: &Settings,
        shard_id: ShardId,
        slot: &Slot,
        slot_id: SlotId,
        now: Micros,
    ) -> Option<u32> {
        let id = || self.table.id(shard_id, slot_id, slot.generation);
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

    /// Extends the deadline of a session that is over by its own lifetime and that a packet has
    /// matched, if the session has live children. Returns whether it lives on.
    pub(super) fn extend_found_for_children(&self, live: &mut Live<'_>, now: Micros) -> bool {
        let slot = live.hot();
        let before = slot.eviction_class();
        let deadline = self.extend_for_children(live.settings, live.shard_id, slot, live.slot, now);
        if let Some(deadline) = deadline {
            live.rearm(deadline, before);
        }
        deadline.is_some()
    }

    /// Returns the time at which [`Engine::expire`] should be called next; `None` while there are
    /// no sessions.
    ///
    /// The time is never later than the end of the first session; it is earlier where sessions were
    /// refreshed since. Takes no lock.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.origin.tick_start(self.table.next_tick()?)
    }
}
