//! Sink of one datagram or batch: passes everything on, but for the names of released packets.

use crate::event::{DeniedSession, HelperNote, LimitReached, Sink};
use crate::fragment::HoldId;
use crate::question::Question;
use crate::reset::Reset;
use crate::session::{EndReason, SessionRecord};

/// Wraps a caller's sink and collects the identifiers of released packets.
pub(crate) struct Watch<'s, S> {
    pub(super) sink: &'s mut S,
    pub(crate) released: Vec<HoldId>,
}

impl<'s, S> Watch<'s, S> {
    pub(crate) const fn new(sink: &'s mut S) -> Self {
        Self {
            sink,
            released: Vec::new(),
        }
    }
}

// A method that is missing here is lost to every user of a front end.
#[deny(clippy::missing_trait_methods)]
impl<S: Sink> Sink for Watch<'_, S> {
    const LISTENS: bool = S::LISTENS;

    fn session_opened(&mut self, session: &SessionRecord) {
        self.sink.session_opened(session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.sink.session_ended(session, reason);
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        self.sink.session_denied(denied);
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        self.sink.session_audited(audited);
    }

    fn limit_reached(&mut self, reached: &LimitReached) {
        self.sink.limit_reached(reached);
    }

    fn helper_event(&mut self, note: &HelperNote) {
        self.sink.helper_event(note);
    }

    fn ends_follow(&mut self, sessions: usize) {
        self.sink.ends_follow(sessions);
    }

    fn reset(&mut self, reset: &Reset) {
        self.sink.reset(reset);
    }

    fn released(&mut self, id: HoldId) {
        self.released.push(id);
    }

    fn question(&mut self, question: &Question) {
        self.sink.question(question);
    }
}
