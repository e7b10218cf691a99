//! Evaluation of the data path from counters that are read at intervals.
//!
//! A single failure is not evidence: trouble counts once it has persisted for [`PERSISTS`] without
//! evidence to the contrary. Without traffic there is no new evidence; the last evaluation then
//! applies for [`FORGET`], so that an appliance that gets no packets while it is unhealthy can be
//! tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::worker_stats::WorkerStats;

/// Interval at which the counters are read.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
/// Duration from which trouble counts.
pub(crate) const PERSISTS: Duration = Duration::from_secs(2);
/// Time for which the last evidence of trouble counts if no other follows.
pub(crate) const FORGET: Duration = Duration::from_secs(60);
/// Window in which new sessions that found no room are counted.
const REFUSALS: Duration = Duration::from_secs(5);
/// Minimum number of these sessions that counts, if they are at least a tenth of all new sessions.
/// Shards fill unevenly: a few sessions are refused while others still find room.
const FEW_REFUSALS: u64 = 10;

/// A worker's counters at one time. All may wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WorkerReading {
    turns: u64,
    sent: u64,
    unsent: u64,
    receive_failed: u64,
    received: u64,
    unaddressed: u64,
}

impl WorkerReading {
    fn of(stats: &WorkerStats) -> Self {
        Self {
            turns: stats.turns.value(),
            sent: stats.returned.value().wrapping_add(stats.made.value()),
            unsent: stats.sends.failures(),
            receive_failed: stats.receive_failed.value(),
            received: stats.received.value(),
            unaddressed: stats.unaddressed.value(),
        }
    }

    /// Returns the difference to an earlier reading.
    fn since(self, before: Self) -> Self {
        Self {
            turns: self.turns.wrapping_sub(before.turns),
            sent: self.sent.wrapping_sub(before.sent),
            unsent: self.unsent.wrapping_sub(before.unsent),
            receive_failed: self.receive_failed.wrapping_sub(before.receive_failed),
            received: self.received.wrapping_sub(before.received),
            unaddressed: self.unaddressed.wrapping_sub(before.unaddressed),
        }
    }
}

/// State and counters at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    workers: Vec<WorkerReading>,
    opened: u64,
    refused: u64,
    /// Sessions that no new one can evict; `None` if there are too few sessions to check.
    assured: Option<usize>,
    /// No new session is admitted, since the session log cannot be written.
    log_closed: bool,
}

impl Reading {
    /// Reads the counters. Shards are locked only from a fill of `percent` on: below that, the
    /// assured sessions alone cannot reach it.
    pub(crate) fn take(shared: &Shared, percent: u8) -> Self {
        let openings = shared.engine.openings();
        let may_be_full = is_filled(
            shared.engine.sessions(),
            shared.engine.max_sessions(),
            percent,
        );
        Self {
            workers: shared.workers.iter().map(WorkerReading::of).collect(),
            opened: openings.opened,
            refused: openings.refused,
            assured: may_be_full.then(|| shared.engine.assured_sessions()),
            log_closed: shared.engine.log_gate().is_closed(),
        }
    }
}

/// Returns whether `sessions` of `max` are `percent` or more; never for 0 percent.
pub(crate) fn is_filled(sessions: usize, max: usize, percent: u8) -> bool {
    percent != 0 && sessions.saturating_mul(100) >= max.saturating_mul(usize::from(percent))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Number of failures, with nearly no success.
    Bad(u64),
    Good,
}

/// Part of the appliance that may fail persistently.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    /// The first and the last evidence, with no evidence to the contrary in between.
    span: Option<Span>,
    failures: u64,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    first: Instant,
    last: Instant,
}

impl Trouble {
    fn note(&mut self, evidence: Evidence, now: Instant) {
        let Evidence::Bad(failures) = evidence else {
            *self = Self::default();
            return;
        };
        self.forget(now);
        let first = self.span.map_or(now, |span| span.first);
        self.span = Some(Span { first, last: now });
        self.failures = self.failures.saturating_add(failures);
    }

    fn forget(&mut self, now: Instant) {
        if self
            .span
            .is_some_and(|span| now.saturating_duration_since(span.last) >= FORGET)
        {
            *self = Self::default();
        }
    }

    /// Returns the number of failures, if they persist.
    fn failures(&self) -> Option<u64> {
        let span = self.span?;
        (span.last.saturating_duration_since(span.first) >= PERSISTS).then_some(self.failures)
    }
}

/// Troubles of one worker.
#[derive(Debug, Clone, Copy, Default)]
struct Troubles {
    sending: Trouble,
    receiving: Trouble,
    addressing: Trouble,
}

impl Troubles {
    fn note(&mut self, since: WorkerReading, now: Instant) {
        self.receiving.note(of_receives(since), now);
        for (trouble, evidence) in [
            (&mut self.sending, of_sends(since)),
            (&mut self.addressing, of_addresses(since)),
        ] {
            trouble.forget(now);
            if let Some(evidence) = evidence {
                trouble.note(evidence, now);
            }
        }
    }
}

/// Workers whose trouble persists, and its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) workers: usize,
    pub(crate) failures: u64,
}

impl Failing {
    fn of<'t>(troubles: impl Iterator<Item = &'t Trouble>) -> Option<Self> {
        let none = Self {
            workers: 0,
            failures: 0,
        };
        let all = troubles
            .filter_map(Trouble::failures)
            .fold(none, |sum, failures| Self {
                workers: sum.workers + 1,
                failures: sum.failures.saturating_add(failures),
            });
        (all.workers > 0).then_some(all)
    }
}

/// New sessions of the last seconds that found no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusals {
    pub(crate) refused: u64,
    pub(crate) opened: u64,
}

/// Evaluation of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judgment {
    /// Time at which the counters were read.
    pub(crate) at: Instant,
    /// Workers whose sends nearly all fail.
    pub(crate) sending: Option<Failing>,
    /// Workers whose calls to receive fail.
    pub(crate) receiving: Option<Failing>,
    /// Workers that get no destination addresses from the system, and so cannot answer any
    /// datagram.
    pub(crate) addressing: Option<Failing>,
    /// New sessions are refused.
    pub(crate) refusals: Option<Refusals>,
    /// Sessions that no new one can evict, if there are many.
    pub(crate) assured: Option<usize>,
    /// The time for which no new session was admitted, since the session log cannot be written.
    pub(crate) log_closed: Option<Duration>,
}

impl Judgment {
    /// Returns the evaluation before anything was read.
    pub(crate) const fn none(at: Instant) -> Self {
        Self {
            at,
            sending: None,
            receiving: None,
            addressing: None,
            refusals: None,
            assured: None,
            log_closed: None,
        }
    }
}

/// Follows the counters.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: Vec<WorkerReading>,
    troubles: Vec<Troubles>,
    openings: VecDeque<(Instant, Refusals)>,
    /// The first of the readings in a row in which the log keeps new sessions out.
    log_closed: Option<Instant>,
}

impl Watch {
    /// Evaluates a reading. The first one only provides the initial values of the counters.
    pub(crate) fn judge(&mut self, reading: &Reading, now: Instant) -> Judgment {
        if self.last.len() == reading.workers.len() {
            let readings = reading.workers.iter().zip(&self.last);
            for (troubles, (worker, before)) in self.troubles.iter_mut().zip(readings) {
                troubles.note(worker.since(*before), now);
            }
        } else {
            self.troubles = vec![Troubles::default(); reading.workers.len()];
        }
        self.last.clone_from(&reading.workers);
        self.log_closed = reading.log_closed.then(|| self.log_closed.unwrap_or(now));
        let log_closed = self
            .log_closed
            .map(|since| now.saturating_duration_since(since));
        Judgment {
            at: now,
            sending: Failing::of(self.troubles.iter().map(|of| &of.sending)),
            receiving: Failing::of(self.troubles.iter().map(|of| &of.receiving)),
            addressing: Failing::of(self.troubles.iter().map(|of| &of.addressing)),
            refusals: self.refusals(reading, now),
            assured: reading.assured,
            log_closed: log_closed.filter(|time| *time >= PERSISTS),
        }
    }

    fn refusals(&mut self, reading: &Reading, now: Instant) -> Option<Refusals> {
        let at_present = Refusals {
            refused: reading.refused,
            opened: reading.opened,
        };
        self.openings.push_back((now, at_present));
        // One reading before the window is its beginning.
        while let Some((at, _)) = self.openings.get(1)
            && now.saturating_duration_since(*at) >= REFUSALS
        {
            self.openings.pop_front();
        }
        let (_, begin) = self.openings.front()?;
        let found = Refusals {
            refused: at_present.refused.wrapping_sub(begin.refused),
            opened: at_present.opened.wrapping_sub(begin.opened),
        };
        let all = found.opened.saturating_add(found.refused);
        (found.refused >= FEW_REFUSALS && found.refused.saturating_mul(10) >= all).then_some(found)
    }
}

/// Bad if at least nine of ten datagrams were not sent; `None` without datagrams.
fn of_sends(since: WorkerReading) -> Option<Evidence> {
    of_most(since.unsent, since.sent.saturating_add(since.unsent))
}

/// Bad if at least nine of ten datagrams arrived without their destination address; `None` without
/// datagrams.
fn of_addresses(since: WorkerReading) -> Option<Evidence> {
    // The two are not counted at one time.
    of_most(since.unaddressed, since.received.max(since.unaddressed))
}

/// Bad if at least nine of ten have failed; `None` if there were none.
fn of_most(failed: u64, all: u64) -> Option<Evidence> {
    match all {
        0 => None,
        _ if failed.saturating_mul(10) >= all.saturating_mul(9) => Some(Evidence::Bad(failed)),
        _ => Some(Evidence::Good),
    }
}

/// Bad if at least half of the calls have failed. A worker calls with and without traffic.
fn of_receives(since: WorkerReading) -> Evidence {
    if since.receive_failed > 0 && since.receive_failed.saturating_mul(2) >= since.turns {
        Evidence::Bad(since.receive_failed)
    } else {
        Evidence::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock, and the counters of two workers.
    struct Scene {
        watch: Watch,
        reading: Reading,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            // Counters that are about to wrap.
            let worker = WorkerReading {
                turns: u64::MAX - 3,
                sent: u64::MAX - 3,
                unsent: u64::MAX - 3,
                receive_failed: u64::MAX - 3,
                received: u64::MAX - 3,
                unaddressed: u64::MAX - 3,
            };
            let mut scene = Self {
                watch: Watch::default(),
                reading: Reading {
                    workers: vec![worker; 2],
                    opened: u64::MAX - 3,
                    refused: u64::MAX - 3,
                    assured: None,
                    log_closed: false,
                },
                now: Instant::now(),
            };
            scene.look();
            scene
        }

        fn look(&mut self) -> Judgment {
            self.watch.judge(&self.reading, self.now)
        }

        /// Worker 1 sends and fails to send these numbers of datagrams in each of `intervals`;
        /// worker 0 works.
        fn send(&mut self, sent: u64, unsent: u64, intervals: u32) -> Option<Failing> {
            let mut found = None;
            for _ in 0..intervals {
                self.now += INTERVAL;
                let [first, second] = self.reading.workers.as_mut_slice() else {
                    panic!("two workers")
                };
                first.sent = first.sent.wrapping_add(100);
                second.sent = second.sent.wrapping_add(sent);
                second.unsent = second.unsent.wrapping_add(unsent);
                found = self.look().sending;
            }
            found
        }
    }

    const SECOND: u32 = 4;

    #[test]
    fn a_worker_whose_sends_all_fail_is_failing_after_two_seconds_and_until_one_succeeds() {
        let mut scene = Scene::new();
        assert_eq!(scene.send(0, 10, 2 * SECOND), None);
        let failing = Failing {
            workers: 1,
            failures: 90,
        };
        assert_eq!(scene.send(0, 10, 1), Some(failing));
        assert_eq!(scene.send(10, 0, 1), None);
        assert_eq!(scene.send(0, 10, 2 * SECOND), None, "all begins anew");
    }

    #[test]
    fn one_success_of_ten_is_failing_and_two_are_not() {
        let mut scene = Scene::new();
        assert!(scene.send(1, 9, 3 * SECOND).is_some());
        assert_eq!(scene.send(2, 8, 3 * SECOND), None);
    }

    #[test]
    fn without_traffic_the_last_judgment_stands_for_a_minute() {
        let mut scene = Scene::new();
        assert!(scene.send(0, 10, 3 * SECOND).is_some());
        assert!(scene.send(0, 0, 60 * SECOND - 1).is_some());
        assert_eq!(scene.send(0, 0, 1), None);
        assert_eq!(scene.send(0, 10, 2 * SECOND), None, "all begins anew");
        assert!(scene.send(0, 10, 1).is_some());
    }

    #[test]
    fn two_failures_far_apart_persist_only_if_nothing_was_sent_between() {
        let mut scene = Scene::new();
        assert_eq!(scene.send(0, 1, 1), None);
        assert_eq!(scene.send(0, 0, 30 * SECOND), None);
        assert!(scene.send(0, 1, 1).is_some());
        let mut scene = Scene::new();
        assert_eq!(scene.send(0, 1, 1), None);
        assert_eq!(scene.send(0, 0, 61 * SECOND), None);
        assert_eq!(scene.send(0, 1, 1), None);
    }

    #[test]
    fn a_socket_that_always_fails_is_failing_with_and_without_a_second_one() {
        for turns in [20, 40] {
            let mut scene = Scene::new();
            let mut found = None;
            for interval in 0..=2 * SECOND {
                assert_eq!(found, None, "{interval}");
                scene.now += INTERVAL;
                for worker in &mut scene.reading.workers {
                    worker.turns = worker.turns.wrapping_add(turns);
                    worker.receive_failed = worker.receive_failed.wrapping_add(20);
                }
                found = scene.look().receiving;
            }
            assert_eq!(found.map(|failing| failing.workers), Some(2));
            scene.now += INTERVAL;
            assert_eq!(scene.look().receiving, None);
        }
    }

    #[test]
    fn a_worker_that_gets_no_addresses_is_failing_until_it_gets_some() {
        let mut scene = Scene::new();
        let mut receive = |received: u64, unaddressed: u64| {
            scene.now += INTERVAL;
            let [_, second] = scene.reading.workers.as_mut_slice() else {
                panic!("two workers")
            };
            second.received = second.received.wrapping_add(received);
            second.unaddressed = second.unaddressed.wrapping_add(unaddressed);
            scene.look().addressing
        };
        for _ in 0..2 * SECOND {
            assert_eq!(receive(10, 9), None);
        }
        let failing = Failing {
            workers: 1,
            failures: 81,
        };
        assert_eq!(receive(10, 9), Some(failing));
        assert_eq!(receive(0, 0), Some(failing), "nothing says otherwise");
        assert_eq!(receive(10, 8), None);
        for _ in 0..3 * SECOND {
            assert_eq!(receive(10, 8), None);
        }
    }

    #[test]
    fn refusals_count_for_five_seconds_if_they_are_a_tenth() {
        let mut scene = Scene::new();
        let mut open = |opened: u64, refused: u64| {
            scene.now += INTERVAL;
            scene.reading.opened = scene.reading.opened.wrapping_add(opened);
            scene.reading.refused = scene.reading.refused.wrapping_add(refused);
            scene.look().refusals
        };
        assert_eq!(open(0, 9), None, "too few");
        let found = Refusals {
            refused: 10,
            opened: 90,
        };
        assert_eq!(open(90, 1), Some(found));
        assert_eq!(open(1, 0), None, "less than a tenth");
        assert!(open(0, 100).is_some());
        for _ in 0..5 * SECOND - 1 {
            assert!(open(0, 0).is_some());
        }
        assert_eq!(open(0, 0), None);
    }

    #[test]
    fn a_log_that_keeps_new_sessions_out_counts_after_two_seconds_and_until_it_opens() {
        let mut scene = Scene::new();
        let mut look = |log_closed| {
            scene.now += INTERVAL;
            scene.reading.log_closed = log_closed;
            scene.look().log_closed
        };
        for _ in 0..2 * SECOND {
            assert_eq!(look(true), None);
        }
        assert_eq!(look(true), Some(PERSISTS));
        assert_eq!(look(true), Some(PERSISTS + INTERVAL));
        assert_eq!(look(false), None);
        assert_eq!(look(true), None, "all begins anew");
    }

    #[test]
    fn a_fill_of_zero_percent_is_never() {
        assert!(is_filled(98, 100, 98) && !is_filled(97, 100, 98));
        assert!(!is_filled(100, 100, 0));
    }
}
