//! Receivers of the engine's events: [`EventSender`] passes those that the session log records to
//! its queue, [`EventSink`] also collects the RSTs to send.

use std::sync::Arc;
use std::time::Instant;

use portcullis::event::HelperNote;
use portcullis::policy::CompiledPolicy;
use portcullis::{
    DeniedSession, EndReason, HoldId, LimitReached, LogFault, Question, Reset, SessionRecord, Sink,
};

use super::event_queue::{EventQueue, SessionEvent};
use super::observe::tap::Tap;
use super::shared::Shared;

/// Sends the events that the session log records to its queue. Each worker has one of its own.
pub(crate) struct EventSender<'s> {
    shared: &'s Shared,
    queue: Option<&'s EventQueue>,
    /// Rules that mark the sessions to record; `None` if all sessions are recorded.
    policy: Option<Arc<CompiledPolicy>>,
}

impl<'s> EventSender<'s> {
    /// Returns a sender that uses the rules in force now.
    pub(crate) fn new(shared: &'s Shared) -> Self {
        let mut sender = Self {
            shared,
            queue: shared.events.as_ref(),
            policy: None,
        };
        sender.refresh();
        sender
    }

    /// Loads the rules in force. Called once for a batch of packets.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.queue.is_some_and(EventQueue::records_marked_sessions) {
            self.policy = Some(self.shared.engine.policy());
        }
    }

    /// Records that a session was opened.
    #[inline]
    pub(crate) fn opened(&self, session: &SessionRecord) {
        if let Some(queue) = self.queue
            && queue.records_opened()
            && self.records(session)
        {
            self.send(queue, SessionEvent::Opened(*session));
        }
    }

    /// Records that a session was live at `at`. Returns `false` if the queue has no room for it
    /// now.
    pub(crate) fn updated(&self, session: &SessionRecord, at: Instant) -> bool {
        match self.queue {
            Some(queue) if self.records(session) => queue.send_update(session, at),
            _ => true,
        }
    }

    /// Records that a session has ended.
    #[inline]
    pub(crate) fn ended(&self, session: &SessionRecord, reason: EndReason) {
        if let Some(queue) = self.queue
            && self.records(session)
        {
            self.send(queue, SessionEvent::Ended(*session, reason));
        }
    }

    /// Records that a session was denied, or admitted for audit.
    #[inline]
    pub(crate) fn denied(&self, denied: &DeniedSession) {
        if let Some(queue) = self.queue
            && queue.records_denied(denied)
        {
            queue.send_denied(denied);
        }
    }

    /// Records that a new session would have exceeded a limit. The engine bounds the rate of these
    /// events.
    pub(crate) fn limited(&self, reached: &LimitReached) {
        if let Some(queue) = self.queue {
            // No session is without a record if this one is lost.
            let _ = queue.send(SessionEvent::Limited(*reached));
        }
    }

    /// Puts an event of a session into the queue. If too many wait, or this one is lost, and the
    /// settings ask for that, no new session is admitted until the writer has taken most of them.
    #[inline]
    fn send(&self, queue: &EventQueue, event: SessionEvent) {
        if !queue.send(event) {
            self.shared.engine.log_gate().report(LogFault::QueueFull);
        }
    }

    /// Returns whether lines are made of a session.
    pub(super) fn records(&self, session: &SessionRecord) -> bool {
        let policy = self.policy.as_ref();
        policy.is_none_or(|policy| policy.logs(session.rule))
    }
}

/// Sends events to the session log, to observers and to the store, and collects the RSTs that
/// the engine makes.
pub(crate) struct EventSink<'s> {
    shared: &'s Shared,
    log: EventSender<'s>,
    pub(super) tap: Tap<'s>,
    /// RSTs that are not sent yet.
    pub(super) resets: Vec<Reset>,
}

impl<'s> EventSink<'s> {
    /// Returns a sink without RSTs.
    pub(crate) fn new(shared: &'s Shared) -> Self {
        Self::with_tap(shared, Tap::new(&shared.observers, Instant::now()))
    }

    /// Returns a sink without RSTs that goes on with a tap.
    pub(super) fn with_tap(shared: &'s Shared, tap: Tap<'s>) -> Self {
        Self {
            shared,
            log: EventSender::new(shared),
            tap: tap.with_log(shared.events.as_ref(), shared.workers.len()),
            resets: Vec::new(),
        }
    }

    /// Loads the rules in force and the wishes of observers. Called once for a batch of packets.
    #[inline]
    pub(super) fn refresh(&mut self, now: Instant) {
        self.log.refresh();
        self.tap.refresh(now);
    }
}

impl Sink for EventSink<'_> {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.log.opened(session);
        self.tap.opened(session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.log.ended(session, reason);
        self.tap.ended(session, reason);
        if let Some(store) = &self.shared.store {
            store.ended(session, reason);
        }
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        self.log.denied(denied);
        self.tap.denied(denied);
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        self.log.denied(audited);
        self.tap.denied(audited);
    }

    fn limit_reached(&mut self, reached: &LimitReached) {
        self.log.limited(reached);
        self.tap.limited(reached);
    }

    fn helper_event(&mut self, note: &HelperNote) {
        self.tap.helper(note);
        if let Some(store) = &self.shared.store {
            store.helper(&self.shared.engine, note);
        }
    }

    fn question(&mut self, question: &Question) {
        if let Some(store) = &self.shared.store {
            store.ask(&self.shared.engine, question);
        }
    }

    fn released(&mut self, id: HoldId) {
        self.shared.front.release(id);
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }
}
