//! The way from the workers to the log's thread: what the log does not want never enters the queue, and what finds no room is
//! counted and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use portcullis::policy::Policy;
use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};

use super::super::settings::{LogFormat, LogSettings, Logged, LoggedDenied};
use super::super::shared::{SessionEvent, Shared};

/// The sending end of the queue, and what the log wants to hear.
#[derive(Debug)]
pub(crate) struct EventQueue {
    sender: SyncSender<SessionEvent>,
    opened: bool,
    sessions: Logged,
    denied: LoggedDenied,
    /// Denied sessions in the queue, and how many there may be: a flood of them takes no room from sessions that end.
    denied_waiting: AtomicUsize,
    denied_max: usize,
    lost: AtomicU64,
    lost_denied: AtomicU64,
}

/// What the queue had no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LostEvents {
    /// Sessions that have opened or ended.
    pub(crate) sessions: u64,
    /// Sessions that were denied.
    pub(crate) denied: u64,
}

impl EventQueue {
    /// With the sending end of a channel of `settings.queue` places.
    pub(crate) fn new(sender: SyncSender<SessionEvent>, settings: &LogSettings) -> Self {
        Self {
            sender,
            // A flow log record tells of what was sent, which is known at the end.
            opened: settings.opened && settings.format == LogFormat::Json,
            sessions: settings.sessions,
            denied: settings.denied,
            denied_waiting: AtomicUsize::new(0),
            denied_max: settings.queue / 2,
            lost: AtomicU64::new(0),
            lost_denied: AtomicU64::new(0),
        }
    }

    /// What has found no room.
    pub(crate) fn lost(&self) -> LostEvents {
        LostEvents {
            sessions: self.lost.load(Ordering::Relaxed),
            denied: self.lost_denied.load(Ordering::Relaxed),
        }
    }

    /// An event has left the queue.
    pub(crate) fn took(&self, event: &SessionEvent) {
        if matches!(event, SessionEvent::Denied(_)) {
            self.denied_waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn send(&self, event: SessionEvent) {
        if self.sender.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_denied(&self, denied: &DeniedSession) {
        // Read first: a flood that finds it full changes nothing that the other workers read.
        if self.denied_waiting.load(Ordering::Relaxed) < self.denied_max {
            let others = self.denied_waiting.fetch_add(1, Ordering::Relaxed);
            if others < self.denied_max && self.sender.try_send(SessionEvent::Denied(*denied)).is_ok() {
                return;
            }
            self.denied_waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.lost_denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells the session log of what it wants to hear; each worker has its own.
pub(crate) struct Teller<'s> {
    shared: &'s Shared,
    queue: Option<&'s EventQueue>,
    /// Whose rules say which sessions are logged, if not all are.
    policy: Option<Arc<Policy>>,
}

impl<'s> Teller<'s> {
    /// One that knows the rules of this moment.
    pub(crate) fn new(shared: &'s Shared) -> Self {
        let mut teller = Self {
            shared,
            queue: shared.events.as_ref(),
            policy: None,
        };
        teller.refresh();
        teller
    }

    /// Looks which rules are in force; once for many packets.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.queue.is_some_and(|queue| queue.sessions == Logged::Marked) {
            self.policy = Some(self.shared.engine.policy());
        }
    }

    /// A session was opened.
    #[inline]
    pub(crate) fn opened(&self, session: &SessionRecord) {
        if let Some(queue) = self.queue
            && queue.opened
            && self.wants(session)
        {
            queue.send(SessionEvent::Opened(*session));
        }
    }

    /// A session has ended.
    #[inline]
    pub(crate) fn ended(&self, session: &SessionRecord, reason: EndReason) {
        if let Some(queue) = self.queue
            && self.wants(session)
        {
            queue.send(SessionEvent::Ended(*session, reason));
        }
    }

    /// A session was not admitted.
    #[inline]
    pub(crate) fn denied(&self, denied: &DeniedSession) {
        let Some(queue) = self.queue else { return };
        match queue.denied {
            LoggedDenied::None => {}
            LoggedDenied::Marked if !denied.log => {}
            LoggedDenied::Marked | LoggedDenied::All => queue.send_denied(denied),
        }
    }

    /// A new session would have exceeded a limit. The engine reports few of them.
    pub(crate) fn limited(&self, reached: &LimitReached) {
        if let Some(queue) = self.queue {
            queue.send(SessionEvent::Limited(*reached));
        }
    }

    fn wants(&self, session: &SessionRecord) -> bool {
        let policy = self.policy.as_ref();
        policy.is_none_or(|policy| policy.logs(session.rule))
    }
}
