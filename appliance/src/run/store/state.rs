//! State of the store that all its threads share: counters, and how the connections are.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::link::LinkError;
use super::refusal::Refusal;
use super::troubles::Troubles;

/// Counters of the store. Several threads change them; none is on the packet path of a session.
#[derive(Debug)]
pub(crate) struct StoreCounters {
    counts: [AtomicU64; Counted::ALL.len()],
}

impl Default for StoreCounters {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl StoreCounters {
    /// Counts one more.
    pub(crate) fn add(&self, what: Counted) {
        self.add_many(what, 1);
    }

    /// Counts several.
    pub(crate) fn add_many(&self, what: Counted, count: u64) {
        if let Some(counter) = self.counts.get(what as usize) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Returns a count.
    pub(crate) fn of(&self, what: Counted) -> u64 {
        let counter = self.counts.get(what as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

macro_rules! counted {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// Things that are counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Counted { $($(#[doc = $doc])* $name,)* }

        impl Counted {
            /// All of them, in order.
            pub(crate) const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// Returns the stable name.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counted! {
    /// Records that the store has taken.
    Written = "written",
    /// Records that the store has deleted, since their sessions ended here.
    Deleted = "deleted",
    /// Records that another appliance owns with a higher epoch: the session has moved.
    Superseded = "superseded",
    /// Former owners that were told of a session that has moved.
    Notified = "notified",
    /// Sessions of which a later owner has told that they have moved.
    Moved = "moved",
    /// Records that found the queue full.
    QueueFull = "queue_full",
    /// Records of ended sessions that stay in the store, since too many waited to be deleted.
    DeletionsLost = "deletions_lost",
    /// Records that were to be written while the store did not answer.
    Unreachable = "unreachable",
    /// Records for which the store had no memory.
    StoreFull = "store_full",
    /// Commands that the store's user may not run.
    RefusedPermission = "refused_permission",
    /// Commands that the store was too busy for, or had no server for.
    RefusedBusy = "refused_busy",
    /// Records that the store did not take since it can neither save nor replicate them.
    RefusedWrite = "refused_write",
    /// Commands that the store refused for any other reason.
    RefusedOther = "refused_other",
    /// Values of the store of another program or version, or of another type.
    Foreign = "foreign",
    /// Values of the store with a wrong MAC.
    WrongMac = "wrong_mac",
    /// Values of the store that hold no valid record.
    Invalid = "invalid",
    /// Connections to the store that were made.
    Connected = "connected",
    /// Connections to the store that have failed.
    Failed = "failed",
    /// Threads of the store that have failed and have begun again.
    ThreadFailed = "thread_failed",
    /// Losses of records that the store has had, such as by FLUSHALL.
    RecordsMissing = "records_missing",
    /// Questions that were sent.
    Asked = "asked",
    /// Questions that found a record.
    Found = "found",
    /// Questions that found none.
    Nothing = "nothing",
    /// Questions that were not answered in time, or while the store was not connected.
    Unanswered = "unanswered",
    /// Questions that found the queue full.
    QuestionsLost = "questions_lost",
    /// Rounds of the sweep over the session table.
    Rounds = "rounds",
    /// Rounds in which each session was written, after the store had lost some.
    Refreshes = "refreshes",
}

impl Refusal {
    /// Returns what counts refusals of the kind.
    pub(super) const fn counted(self) -> Counted {
        match self {
            Self::Memory => Counted::StoreFull,
            Self::Permission => Counted::RefusedPermission,
            Self::Busy => Counted::RefusedBusy,
            Self::Write => Counted::RefusedWrite,
            Self::Other => Counted::RefusedOther,
        }
    }
}

/// State of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Connected since this moment.
    Up(Instant),
    /// Not connected since this moment, and why.
    Down(Instant, Option<LinkError>),
}

impl LinkState {
    /// Returns whether the connection is up.
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// State that the threads of the store share.
#[derive(Debug)]
pub(crate) struct StoreState {
    pub(crate) counters: StoreCounters,
    writes: Mutex<LinkState>,
    questions: Mutex<LinkState>,
    /// Trouble that the connections survive.
    pub(crate) troubles: Troubles,
    /// Whether the store lacks records that were handed out, so that each must be written again.
    incomplete: AtomicBool,
    /// Records of sessions that the store has not taken, for whatever reason.
    lost: AtomicU64,
    /// Changes in the queue.
    pub(super) waiting: AtomicUsize,
    /// Bytes of records that the store has taken.
    pub(super) written_bytes: AtomicU64,
    /// Time from the last packet that the store was asked about to the answer, in microseconds.
    answer_us: AtomicU64,
    /// The longest such time.
    longest_answer_us: AtomicU64,
}

/// Connections of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkName {
    /// For records.
    Writes,
    /// For questions.
    Questions,
}

impl LinkName {
    /// Both connections.
    pub(crate) const ALL: [Self; 2] = [Self::Writes, Self::Questions];

    /// Returns the stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Questions => "questions",
        }
    }
}

impl StoreState {
    /// Returns the state before the first connection.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            counters: StoreCounters::default(),
            writes: Mutex::new(LinkState::Down(now, None)),
            questions: Mutex::new(LinkState::Down(now, None)),
            troubles: Troubles::default(),
            incomplete: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            written_bytes: AtomicU64::new(0),
            answer_us: AtomicU64::new(0),
            longest_answer_us: AtomicU64::new(0),
        }
    }

    const fn link(&self, name: LinkName) -> &Mutex<LinkState> {
        match name {
            LinkName::Writes => &self.writes,
            LinkName::Questions => &self.questions,
        }
    }

    /// Returns the state of a connection.
    pub(crate) fn state(&self, name: LinkName) -> LinkState {
        self.link(name).lock().clone()
    }

    /// Notes that a connection is up. Returns the time for which it was not.
    ///
    /// The store may have lost records meanwhile: each is written again.
    pub(super) fn is_up(&self, name: LinkName, now: Instant) -> Option<Duration> {
        self.counters.add(Counted::Connected);
        match std::mem::replace(&mut *self.link(name).lock(), LinkState::Up(now)) {
            LinkState::Down(since, Some(_)) => {
                if name == LinkName::Writes {
                    self.lacks_records();
                }
                Some(now.saturating_duration_since(since))
            }
            _ => None,
        }
    }

    /// Notes that a connection has failed. Returns whether it was up, or this is the first attempt.
    pub(super) fn is_down(&self, name: LinkName, now: Instant, error: LinkError) -> bool {
        self.counters.add(Counted::Failed);
        let mut state = self.link(name).lock();
        let (since, is_news) = match &*state {
            LinkState::Up(_) | LinkState::Down(_, None) => (now, true),
            LinkState::Down(since, Some(_)) => (*since, false),
        };
        *state = LinkState::Down(since, Some(error));
        is_news
    }

    /// Notes that the store lacks records.
    pub(crate) fn lacks_records(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Returns whether the store lacks records and can take them again, and clears the mark.
    pub(crate) fn take_incomplete(&self) -> bool {
        self.state(LinkName::Writes).is_up() && self.take_lack()
    }

    /// Returns whether the store lacks records, and clears the mark.
    pub(super) fn take_lack(&self) -> bool {
        self.incomplete.swap(false, Ordering::Relaxed)
    }

    /// Notes that the store has not taken records of sessions.
    pub(super) fn has_lost(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Returns the number of records of sessions that the store has not taken.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns the number of changes in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Returns the bytes of records that the store has taken.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Notes the time from a packet that the store was asked about to the answer, once the engine
    /// has it.
    pub(super) fn answered_in(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.answer_us.store(us, Ordering::Relaxed);
        self.longest_answer_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Returns the time from the last packet that the store was asked about to the answer, and the
    /// longest such time.
    pub(crate) fn answer_times(&self) -> [Duration; 2] {
        [&self.answer_us, &self.longest_answer_us]
            .map(|us| Duration::from_micros(us.load(Ordering::Relaxed)))
    }
}
