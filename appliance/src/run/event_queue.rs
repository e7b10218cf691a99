//! Bounded queue of session events from the workers to the thread of the session log. An event that
//! finds the queue full is counted and lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};

use super::observe::dropped::DroppedPacket;
use super::settings::{LogSettings, Logged, LoggedDenied};

/// Event that the session log records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionEvent {
    /// An admitted packet has opened a session.
    Opened(SessionRecord),
    /// A session was live at this time, for longer than the interval of interim lines.
    Updated(SessionRecord, Instant),
    /// A session has ended.
    Ended(SessionRecord, EndReason),
    /// The policy has denied or rejected a session, or admitted it for audit.
    Denied(DeniedSession),
    /// A new session would have exceeded a limit.
    Limited(LimitReached),
    /// A packet was not forwarded, for another reason than the policy.
    Dropped(DroppedPacket),
}

/// Sending end of the queue, with the kinds of events that the log records.
#[derive(Debug)]
pub(crate) struct EventQueue {
    sender: SyncSender<SessionEvent>,
    opened: bool,
    sessions: Logged,
    denied: LoggedDenied,
    /// A lost record of a session keeps new sessions out.
    fail_closed: bool,
    /// Denied sessions in the queue.
    denied_waiting: AtomicUsize,
    /// Interim lines in the queue.
    updates_waiting: AtomicUsize,
    /// Bound of `denied_waiting`: a flood of denied sessions takes no room from sessions that end.
    denied_max: usize,
    /// Dropped packets that each worker may put into the queue in a second.
    drops_per_second: u32,
    /// Dropped packets in the queue.
    drops_waiting: AtomicUsize,
    lost: AtomicU64,
    lost_denied: AtomicU64,
    lost_drops: AtomicU64,
    drops_left_out: AtomicU64,
    /// Whether the log has lines of dropped packets whose addresses cannot be read.
    records_unreadable: bool,
}

/// Counts of events that found the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LostEvents {
    /// Sessions that opened or ended, and limits that were reached.
    pub(crate) sessions: u64,
    /// Sessions that were denied.
    pub(crate) denied: u64,
    /// Packets that were not forwarded.
    pub(crate) drops: u64,
    /// Packets that were not forwarded, beyond the share of their reason in `log.drops`.
    pub(crate) drops_left_out: u64,
}

impl EventQueue {
    /// Wraps the sending end of a channel of `settings.queue` slots.
    pub(crate) fn new(sender: SyncSender<SessionEvent>, settings: &LogSettings) -> Self {
        Self {
            sender,
            // Records of flows count the packets of a session, which are known at its end.
            opened: settings.opened && settings.format.has_opened(),
            sessions: settings.sessions,
            denied: settings.denied,
            fail_closed: settings.fail_closed,
            denied_waiting: AtomicUsize::new(0),
            updates_waiting: AtomicUsize::new(0),
            denied_max: settings.queue / 2,
            drops_per_second: settings.drops,
            drops_waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            lost_denied: AtomicU64::new(0),
            lost_drops: AtomicU64::new(0),
            drops_left_out: AtomicU64::new(0),
            records_unreadable: settings.records_unreadable(),
        }
    }

    /// Returns the counts of events that found the queue full.
    pub(crate) fn lost(&self) -> LostEvents {
        LostEvents {
            sessions: self.lost.load(Ordering::Relaxed),
            denied: self.lost_denied.load(Ordering::Relaxed),
            drops: self.lost_drops.load(Ordering::Relaxed),
            drops_left_out: self.drops_left_out.load(Ordering::Relaxed),
        }
    }

    /// Releases the slot of an event that has left the queue.
    pub(crate) fn took(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Denied(_) => self.denied_waiting.fetch_sub(1, Ordering::Relaxed),
            SessionEvent::Updated(..) => self.updates_waiting.fetch_sub(1, Ordering::Relaxed),
            SessionEvent::Dropped(_) => self.drops_waiting.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Puts a live session into the queue, if a quarter of it has room for such sessions. One
    /// thread alone calls this, and waits if it returns `false`.
    pub(super) fn send_update(&self, session: &SessionRecord, at: Instant) -> bool {
        if self.updates_waiting.load(Ordering::Relaxed) >= (self.denied_max / 2).max(1) {
            return false;
        }
        self.updates_waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self
            .sender
            .try_send(SessionEvent::Updated(*session, at))
            .is_ok();
        if !sent {
            self.updates_waiting.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// Returns whether the log records only the sessions of marked rules.
    #[inline]
    pub(super) fn records_marked_sessions(&self) -> bool {
        self.sessions == Logged::Marked
    }

    /// Returns whether the log records the opening of sessions.
    #[inline]
    pub(super) const fn records_opened(&self) -> bool {
        self.opened
    }

    /// Returns whether the log records a denied session.
    #[inline]
    pub(super) const fn records_denied(&self, denied: &DeniedSession) -> bool {
        match self.denied {
            LoggedDenied::None => false,
            LoggedDenied::Marked => denied.log,
            LoggedDenied::All => true,
        }
    }

    /// Puts an event into the queue, or counts it as lost if the queue is full. Returns whether new
    /// sessions may be admitted after it.
    #[must_use]
    pub(super) fn send(&self, event: SessionEvent) -> bool {
        let sent = self.sender.try_send(event);
        if sent.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        sent.is_ok() || !self.fail_closed
    }

    /// Puts a denied session into the queue, or counts it as lost if its half of the queue is full.
    pub(super) fn send_denied(&self, denied: &DeniedSession) {
        // Read first: a flood that finds the half full writes nothing that other workers read.
        if self.denied_waiting.load(Ordering::Relaxed) < self.denied_max {
            let others = self.denied_waiting.fetch_add(1, Ordering::Relaxed);
            if others < self.denied_max
                && self.sender.try_send(SessionEvent::Denied(*denied)).is_ok()
            {
                return;
            }
            self.denied_waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.lost_denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of dropped packets that the workers may put into the queue in a second; 0
    /// if the log records none.
    pub(super) const fn drops_per_second(&self) -> u32 {
        self.drops_per_second
    }

    /// Returns whether the log has lines of dropped packets whose addresses cannot be read.
    pub(super) const fn records_unreadable(&self) -> bool {
        self.records_unreadable
    }

    /// Counts dropped packets that were beyond the share of their reason.
    pub(super) fn count_drops_left_out(&self, count: u64) {
        self.drops_left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Puts a dropped packet into the queue, or counts it as lost if its quarter of the queue is
    /// full.
    pub(super) fn send_drop(&self, packet: &DroppedPacket) {
        let waiting = self.drops_waiting.fetch_add(1, Ordering::Relaxed);
        let is_sent = waiting < (self.denied_max / 2).max(1)
            && self.sender.try_send(SessionEvent::Dropped(*packet)).is_ok();
        if !is_sent {
            self.drops_waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost_drops.fetch_add(1, Ordering::Relaxed);
        }
    }
}
