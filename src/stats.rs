//! Counters: one for each class of forwarded packet, each drop reason and each reason for the end
//! of a session.
//!
//! Each thread counts in a stripe of cache lines that it owns, so a count is a plain addition: no
//! other thread writes there, and no locked instruction is needed. Threads for which no stripe is
//! left share a few, and add to them atomically. Reading sums the stripes. A snapshot taken while
//! packets flow is not of one instant, but no count is ever lost.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::Zone;
use crate::ftp::HelperEvent;
use crate::question::QuestionStats;
use crate::reset::Unsent;
use crate::session::EndReason;
use crate::session::Mark;
use crate::stripe::{OWNED, SHARED, stripe_number};
use crate::verdict::{Class, DropReason, Verdict};

#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    forwarded: [AtomicU64; Class::ALL.len()],
    forwarded_bytes: AtomicU64,
    dropped: [AtomicU64; DropReason::COUNT],
    rejected: AtomicU64,
    held: AtomicU64,
    opened: AtomicU64,
    ended: [AtomicU64; EndReason::ALL.len()],
    adopted: AtomicU64,
    resumed: AtomicU64,
    bypassed: AtomicU64,
    resets_sent: AtomicU64,
    resets_unsent: [AtomicU64; Unsent::ALL.len()],
    challenge_events: [AtomicU64; ChallengeEvent::ALL.len()],
}

/// The engine's counters.
#[derive(Debug)]
pub(crate) struct Counters {
    stripes: Box<[Stripe]>,
}

/// A snapshot of the counters and gauges.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Forwarded packets by class.
    pub forwarded: Vec<(Class, u64)>,
    /// Forwarded IP bytes.
    pub forwarded_bytes: u64,
    /// Packets that were not forwarded, by reason, including rejected ones. Reasons that never
    /// occurred are included.
    pub dropped: Vec<(DropReason, u64)>,
    /// The number of those packets that require a reply.
    pub rejected: u64,
    /// Fragments that were held because their first one had not arrived. Each is counted again, as
    /// forwarded or dropped, when it is submitted again.
    pub fragments_held: u64,
    /// Fragments that are held now.
    pub fragments_waiting: usize,
    /// Fragmented datagrams that newer ones displaced.
    pub datagrams_given_up: u64,
    /// Sessions opened since the start.
    pub sessions_opened: u64,
    /// Sessions ended since the start, by reason.
    pub sessions_ended: Vec<(EndReason, u64)>,
    /// Opened sessions that were adopted midstream, including resumed ones.
    pub sessions_adopted: u64,
    /// Adopted sessions that resumed an ended one: their late packets were readmitted.
    pub sessions_resumed: u64,
    /// Sessions that are allowed although half of them was found to be missing.
    pub sessions_bypassed: u64,
    /// RSTs that the engine has made of its own accord: at the end of sessions, and for late
    /// packets. Each was handed to a sink or named by a verdict.
    /// [`Outbox::lost`](crate::Outbox::lost) counts those for which an outbox had no room.
    pub resets_sent: u64,
    /// RSTs that the engine has not sent, by reason.
    pub resets_unsent: Vec<(Unsent, u64)>,
    /// Counts of the challenges of unknown sources (`syn_challenge`).
    pub challenge_events: Vec<(ChallengeEvent, u64)>,
    /// Zones of the configuration whose unknown sources are challenged now.
    pub challenging_zones: Vec<Zone>,
    /// Sources that were known to be real when the most recent one proved itself.
    pub known_sources: usize,
    /// Tombstones of ended sessions.
    pub tombstones: usize,
    /// Current sessions.
    pub sessions: usize,
    /// Current sessions by eviction class.
    pub sessions_by_worth: Vec<(crate::track::EvictionClass, usize)>,
    /// The maximum number of sessions.
    pub max_sessions: usize,
    /// Events of helpers in control sessions.
    pub helper_events: Vec<(HelperEvent, u64)>,
    /// Control sessions that a helper inspects.
    pub control_sessions: usize,
    /// Bytes that control sessions take.
    pub control_memory: usize,
    /// Announced sessions that have not begun yet.
    pub expectations: usize,
    /// Questions to the store that engines share, their answers, and the packets that are held for
    /// them.
    pub questions: QuestionStats,
}

/// Outcome of a SYN that was to be challenged, or of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChallengeEvent {
    /// A SYN was answered by a challenge.
    Challenged,
    /// A RST has returned the cookie of a challenge: its source is real.
    Validated,
    /// A RST with another number arrived while challenges were outstanding. It was judged as if
    /// there were none.
    Ignored,
    /// A SYN was not challenged, because its source has proven itself recently.
    Passed,
    /// A SYN was dropped without a challenge, because there were too many.
    Unsent,
}

impl ChallengeEvent {
    /// All events.
    pub const ALL: [Self; 5] = [
        Self::Challenged,
        Self::Validated,
        Self::Ignored,
        Self::Passed,
        Self::Unsent,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Challenged => "challenged",
            Self::Validated => "validated",
            Self::Ignored => "ignored",
            Self::Passed => "passed",
            Self::Unsent => "unsent",
        }
    }

    /// Returns the drop reason that counts the event, if one does.
    const fn reason(self) -> Option<DropReason> {
        match self {
            Self::Challenged => Some(DropReason::SynChallenged),
            Self::Validated => Some(DropReason::SynValidated),
            Self::Unsent => Some(DropReason::SynChallengeBudget),
            Self::Ignored | Self::Passed => None,
        }
    }
}

/// Number of live sessions of one zone, protocol and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionCount {
    /// The zone of the sessions.
    pub zone: Zone,
    /// The IP protocol number of the sessions.
    pub protocol: u8,
    /// The name of the sessions' state, as in
    /// [`SessionRecord::state`](crate::SessionRecord::state).
    pub state: &'static str,
    /// Number of sessions.
    pub sessions: u64,
}

/// Sessions that packets have opened since the start, and packets that found no room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Openings {
    /// Sessions opened.
    pub opened: u64,
    /// Packets dropped as [`DropReason::TableFull`].
    pub refused: u64,
}

impl Stats {
    /// Returns the count of one drop reason.
    #[must_use]
    pub fn dropped_by(&self, reason: DropReason) -> u64 {
        self.dropped
            .iter()
            .find(|(each, _)| *each == reason)
            .map_or(0, |(_, count)| *count)
    }

    /// Returns the number of packets that were not forwarded.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }

    /// Returns the number of packets that were forwarded.
    #[must_use]
    pub fn forwarded_total(&self) -> u64 {
        self.forwarded.iter().map(|(_, count)| count).sum()
    }
}

/// The stripe that a thread counts in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mine<'a> {
    stripe: &'a Stripe,
    number: usize,
}

impl Mine<'_> {
    #[inline]
    fn add(self, counter: Option<&AtomicU64>, count: u64) {
        if let Some(counter) = counter {
            crate::stripe::add(self.number, counter, count);
        }
    }

    #[inline]
    fn bump(self, counter: Option<&AtomicU64>) {
        self.add(counter, 1);
    }

    /// Counts a forwarded packet.
    #[inline]
    pub(crate) fn forwarded(self, class: Class, bytes: u32) {
        self.bump(self.stripe.forwarded.get(class as usize));
        self.add(Some(&self.stripe.forwarded_bytes), u64::from(bytes));
    }
}

impl Counters {
    pub(crate) fn new() -> Self {
        let stripe = |_| Stripe {
            forwarded: [const { AtomicU64::new(0) }; Class::ALL.len()],
            forwarded_bytes: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::COUNT],
            rejected: AtomicU64::new(0),
            held: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            ended: [const { AtomicU64::new(0) }; EndReason::ALL.len()],
            adopted: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            bypassed: AtomicU64::new(0),
            resets_sent: AtomicU64::new(0),
            resets_unsent: [const { AtomicU64::new(0) }; Unsent::ALL.len()],
            challenge_events: [const { AtomicU64::new(0) }; ChallengeEvent::ALL.len()],
        };
        Self {
            stripes: (0..OWNED + SHARED).map(stripe).collect(),
        }
    }

    /// Returns the stripe of this thread.
    #[inline]
    pub(crate) fn mine(&self) -> Option<Mine<'_>> {
        let number = stripe_number();
        let stripe = self.stripes.get(number)?;
        Some(Mine { stripe, number })
    }

    #[inline]
    pub(crate) fn verdict(&self, verdict: &Verdict, bytes: u32) {
        let Some(mine) = self.mine() else { return };
        let stripe = mine.stripe;
        match verdict {
            Verdict::Forward(tracked) => mine.forwarded(tracked.class, bytes),
            Verdict::Drop(reason, _) => mine.bump(stripe.dropped.get(reason.index())),
            Verdict::Reject(reason, ..) => {
                mine.bump(stripe.dropped.get(reason.index()));
                mine.bump(Some(&stripe.rejected));
            }
            // Packets that wait for an answer are counted with the questions.
            Verdict::Hold(id, _) if id.is_question() => {}
            Verdict::Hold(..) => mine.bump(Some(&stripe.held)),
        }
    }

    pub(crate) fn opened(&self, marks: &[Mark]) {
        let Some(mine) = self.mine() else { return };
        let stripe = mine.stripe;
        mine.bump(Some(&stripe.opened));
        for mark in marks {
            mine.bump(match mark {
                Mark::Adopted => Some(&stripe.adopted),
                Mark::Resumed => Some(&stripe.resumed),
                Mark::Bypassed => Some(&stripe.bypassed),
                _ => None,
            });
        }
    }

    pub(crate) fn ended(&self, reason: EndReason) {
        let Some(mine) = self.mine() else { return };
        mine.bump(mine.stripe.ended.get(reason as usize));
    }

    pub(crate) fn bypassed(&self) {
        let Some(mine) = self.mine() else { return };
        mine.bump(Some(&mine.stripe.bypassed));
    }

    pub(crate) fn reset(&self, outcome: Result<(), Unsent>) {
        let Some(mine) = self.mine() else { return };
        mine.bump(match outcome {
            Ok(()) => Some(&mine.stripe.resets_sent),
            Err(reason) => mine.stripe.resets_unsent.get(reason as usize),
        });
    }

    /// Counts an event that no drop reason counts.
    pub(crate) fn challenge(&self, event: ChallengeEvent) {
        let Some(mine) = self.mine() else { return };
        mine.bump(mine.stripe.challenge_events.get(event as usize));
    }

    fn challenges(&self, event: ChallengeEvent) -> u64 {
        match event.reason() {
            Some(reason) => self.dropped(reason),
            None => self.sum(|stripe| stripe.challenge_events.get(event as usize)),
        }
    }

    /// Returns the number of sessions opened since the start.
    pub(crate) fn sessions_opened(&self) -> u64 {
        self.sum(|stripe| Some(&stripe.opened))
    }

    /// Returns the number of packets dropped for a reason since the start.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|stripe| stripe.dropped.get(reason.index()))
    }

    fn sum(&self, of: impl Fn(&Stripe) -> Option<&AtomicU64>) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| of(stripe).map_or(0, |counter| counter.load(Ordering::Relaxed)))
            .sum()
    }

    /// Returns the counters; the gauges are left at 0 for the caller to fill.
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            forwarded: Class::ALL
                .iter()
                .map(|class| {
                    (
                        *class,
                        self.sum(|stripe| stripe.forwarded.get(*class as usize)),
                    )
                })
                .collect(),
            forwarded_bytes: self.sum(|stripe| Some(&stripe.forwarded_bytes)),
            dropped: DropReason::all()
                .map(|reason| {
                    (
                        reason,
                        self.sum(|stripe| stripe.dropped.get(reason.index())),
                    )
                })
                .collect(),
            rejected: self.sum(|stripe| Some(&stripe.rejected)),
            fragments_held: self.sum(|stripe| Some(&stripe.held)),
            fragments_waiting: 0,
            datagrams_given_up: 0,
            sessions_opened: self.sum(|stripe| Some(&stripe.opened)),
            sessions_ended: EndReason::ALL
                .iter()
                .map(|reason| {
                    (
                        *reason,
                        self.sum(|stripe| stripe.ended.get(*reason as usize)),
                    )
                })
                .collect(),
            sessions_adopted: self.sum(|stripe| Some(&stripe.adopted)),
            sessions_resumed: self.sum(|stripe| Some(&stripe.resumed)),
            sessions_bypassed: self.sum(|stripe| Some(&stripe.bypassed)),
            resets_sent: self.sum(|stripe| Some(&stripe.resets_sent)),
            resets_unsent: Unsent::ALL
                .iter()
                .map(|reason| {
                    (
                        *reason,
                        self.sum(|stripe| stripe.resets_unsent.get(*reason as usize)),
                    )
                })
                .collect(),
            challenge_events: ChallengeEvent::ALL
                .iter()
                .map(|event| (*event, self.challenges(*event)))
                .collect(),
            challenging_zones: Vec::new(),
            known_sources: 0,
            tombstones: 0,
            sessions: 0,
            sessions_by_worth: Vec::new(),
            max_sessions: 0,
            helper_events: Vec::new(),
            control_sessions: 0,
            control_memory: 0,
            expectations: 0,
            questions: QuestionStats::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::verdict::Tracked;

    const ROUNDS: u64 = 1_000;

    fn count(counters: &Counters) {
        for _ in 0..ROUNDS {
            counters.verdict(&Verdict::Forward(Tracked::class(Class::New)), 100);
            let tracked = Tracked::class(Class::New);
            counters.verdict(&Verdict::Drop(DropReason::TableFull, tracked), 100);
        }
    }

    fn check(counters: &Counters, threads: u64) {
        let stats = counters.snapshot();
        let expected = threads * ROUNDS;
        assert_eq!(stats.forwarded_total(), expected);
        assert_eq!(stats.forwarded_bytes, 100 * expected);
        assert_eq!(stats.dropped_by(DropReason::TableFull), expected);
        assert_eq!(stats.dropped_total(), expected);
    }

    /// More threads than stripes count at the same time: some of them share a stripe.
    #[test]
    fn counts_of_any_number_of_threads_add_up() {
        const THREADS: usize = 2 * OWNED + 8;
        let (counters, all) = (Counters::new(), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    all.wait();
                    count(&counters);
                    // No thread ends, and passes its stripe on, before all have counted.
                    all.wait();
                });
            }
        });
        check(&counters, THREADS as u64);
    }

    #[test]
    fn a_stripe_passes_from_a_thread_that_ends_to_the_next_one() {
        const THREADS: u64 = 4 * OWNED as u64;
        let counters = Counters::new();
        for _ in 0..THREADS {
            std::thread::scope(|scope| {
                scope.spawn(|| count(&counters));
            });
        }
        check(&counters, THREADS);
    }

    #[test]
    fn live_threads_never_own_one_stripe_together() {
        const THREADS: usize = OWNED / 4;
        let all = Barrier::new(THREADS);
        let numbers: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let number = stripe_number();
                        all.wait();
                        number
                    })
                })
                .collect();
            threads.into_iter().filter_map(|t| t.join().ok()).collect()
        });
        let mut owned: Vec<usize> = numbers.into_iter().filter(|n| *n < OWNED).collect();
        let count = owned.len();
        owned.sort_unstable();
        owned.dedup();
        assert_eq!(owned.len(), count);
    }
}
