//! Thread that sweeps the session table for sessions to store.
//!
//! The thread also deletes the records of ended sessions, repeats questions, and sends held packets
//! whose wait is over while no worker does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use portcullis::SessionRecord;
use portcullis::continuity::{StoreWhen, SweepCursor, SweepTime};

use super::change::Change;
use super::hand_over::HandOver;
use super::handle::StoreHandle;
use super::retry::Retries;
use super::state::{Counted, LinkName};
use crate::run::data_path::DataPath;

/// Interval of its turns. Held packets wait up to this much longer than their time.
const TURN: Duration = Duration::from_millis(2);
/// Turns in which a round is made: a second.
const TURNS: usize = 500;
/// Most slots of a turn: 2,000,000 a second, of 131 ns each.
const MAX_SLOTS: usize = 4_096;
/// Most sessions that have ended of a turn.
const MAX_ENDED: usize = 4_096;

/// Thread that sweeps.
pub(super) struct Sweeper {
    pub(super) data_path: Arc<DataPath>,
    pub(super) ended: Receiver<SessionRecord>,
    pub(super) retries: Arc<Retries>,
    pub(super) hand_over: Arc<HandOver>,
    /// The sessions to store.
    pub(super) when: StoreWhen,
}

/// Least time between the beginnings of two rounds that write each session. It doubles while each
/// such round is followed by another one, as with a store that refuses records.
const REFRESH: Duration = Duration::from_secs(5);
/// Longest such time.
const LONGEST_REFRESH: Duration = Duration::from_secs(60);

/// Place in the sweep.
#[derive(Debug, Default)]
struct Round {
    cursor: SweepCursor,
    /// Slots of the last round, and of this one so far.
    last: usize,
    slots: usize,
    /// Whether this round writes each session, whatever was written before.
    everything: bool,
    refreshes: Refreshes,
}

/// Times at which rounds write each session.
#[derive(Debug)]
struct Refreshes {
    /// Begin of the last such round.
    last: Option<Instant>,
    /// Least time from there to the next one.
    rest: Duration,
}

impl Default for Refreshes {
    fn default() -> Self {
        Self {
            last: None,
            rest: REFRESH,
        }
    }
}

impl Refreshes {
    /// Returns whether such a round may begin.
    fn may_begin(&self, now: Instant) -> bool {
        let since = |at| now.saturating_duration_since(at);
        self.last.is_none_or(|at| since(at) >= self.rest)
    }

    fn begin(&mut self, now: Instant) {
        let again = self.rest.saturating_mul(2);
        let follows = |at| now.saturating_duration_since(at) < again;
        self.rest = match self.last.is_some_and(follows) {
            true => again.min(LONGEST_REFRESH),
            false => REFRESH,
        };
        self.last = Some(now);
    }
}

impl Sweeper {
    /// Sweeps until `stop` is set.
    pub(super) fn run(&self, stop: &AtomicBool) {
        let Some(store) = &self.data_path.shared.store else {
            return;
        };
        let mut round = Round::default();
        let mut is_draining = false;
        while !stop.load(Ordering::Relaxed) {
            self.delete_ended(store);
            self.retries.send(store, Instant::now());
            // Held datagrams whose time is over are sent when the sink is used.
            self.data_path.with_sink(|_| ());
            if self.hand_over.asked.load(Ordering::Relaxed) {
                self.hand_over(store, stop);
                return;
            }
            if !is_draining && self.data_path.shared.draining.load(Ordering::Relaxed) {
                is_draining = true;
                // The load balancer moves flows from now on.
                store.state.lacks_records();
                round = Round::default();
            }
            self.turn(store, &mut round);
            thread::sleep(TURN);
        }
    }

    /// Sweeps one turn's part of a round.
    fn turn(&self, store: &StoreHandle, round: &mut Round) {
        if round.slots == 0 {
            let now = Instant::now();
            round.everything = round.refreshes.may_begin(now) && store.state.take_incomplete();
            if round.everything {
                round.refreshes.begin(now);
                store.state.counters.add(Counted::Refreshes);
            }
        }
        let share = (round.last / TURNS + 1).clamp(64, MAX_SLOTS);
        let mut when = self.when.clone();
        when.everything = round.everything;
        let mut slots = 0;
        while slots < share && store.changes.has_room_for_sweep() {
            let swept = self.slice(store, &mut round.cursor, &when);
            slots += swept.slots.max(1);
            if swept.round_ended {
                round.last = round.slots + slots;
                round.slots = 0;
                store.state.counters.add(Counted::Rounds);
                return;
            }
        }
        round.slots += slots;
    }

    fn slice(
        &self,
        store: &StoreHandle,
        cursor: &mut SweepCursor,
        when: &StoreWhen,
    ) -> portcullis::continuity::Swept {
        let time = SweepTime {
            now: Instant::now(),
            at: SystemTime::now(),
        };
        let engine = &self.data_path.shared.engine;
        engine.sweep(cursor, time, when, |flow, stored| store.put(flow, stored))
    }

    /// Deletes the records of sessions that have ended. During an outage they wait.
    fn delete_ended(&self, store: &StoreHandle) {
        if !store.state.state(LinkName::Writes).is_up() {
            return;
        }
        let engine = &self.data_path.shared.engine;
        for _ in 0..MAX_ENDED {
            if !store.changes.has_room_for_deletions() {
                return;
            }
            let Ok(session) = self.ended.try_recv() else {
                return;
            };
            // A later session of the flow has written its record over this one's.
            let Some(flow) = session.flow() else {
                continue;
            };
            let later = engine.find_flow(&flow);
            if later.is_some_and(|later| later.stored.is_some()) {
                continue;
            }
            let key = store.session_key(&engine.flow_name(&flow));
            let epoch = session.stored.map_or(0, u64::from);
            store.changes.push(Change::Delete { key, epoch });
        }
    }

    /// Writes each session once more, since the appliance ends, and waits until the queue is empty.
    fn hand_over(&self, store: &StoreHandle, stop: &AtomicBool) {
        let mut when = self.when.clone();
        when.everything = true;
        when.min_age = Duration::ZERO;
        let before = store.state.lost();
        let mut cursor = SweepCursor::default();
        while !stop.load(Ordering::Relaxed) {
            if !store.changes.has_room_for_sweep() {
                thread::sleep(Duration::from_millis(1));
            } else if self.slice(store, &mut cursor, &when).round_ended {
                break;
            }
        }
        while store.state.waiting() > 0 && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        let lost = store.state.lost().saturating_sub(before);
        self.hand_over.lost.store(lost, Ordering::Relaxed);
        self.hand_over.done.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_write_each_session_become_rare_while_they_follow_each_other() {
        let mut refreshes = Refreshes::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut begun = Vec::new();
        for second in 0..200 {
            if refreshes.may_begin(after(second)) {
                refreshes.begin(after(second));
                begun.push(second);
            }
        }
        assert_eq!(begun, [0, 5, 15, 35, 75, 135, 195]);
        refreshes.begin(after(400));
        assert!(refreshes.may_begin(after(405)), "a later loss");
    }
}
