//! Events of the engine during a replay.

use portcullis::HoldId;
use portcullis::event::HelperNote;
use portcullis::{EndReason, Engine, Reset, SessionRecord, Sink};

use super::clock::CaptureClock;
use super::error::ReplayError;
use super::lines::Lines;
use super::notes::Notes;
use super::rows::{Names, SessionRow};
use super::summary::Summary;

/// Receiver of the engine's events: it collects sessions, RSTs and released fragments.
pub(super) struct Collector<'a> {
    pub(super) names: Names,
    pub(super) clock: CaptureClock,
    pub(super) engine: &'a Engine,
    /// Number of the frame that is being decided.
    pub(super) frame: u64,
    pub(super) lines: Lines,
    pub(super) summary: &'a mut Summary,
    /// RSTs that the engine has created since the last frame.
    pub(super) resets: Vec<Reset>,
    /// Released fragments, which are decided next.
    pub(super) released: Vec<HoldId>,
    pub(super) notes: Notes,
    pub(super) failed: Option<ReplayError>,
}

impl Collector<'_> {
    /// Adds a session to the summary, and writes its row. `end` is `None` for an open session.
    pub(super) fn session(&mut self, session: &SessionRecord, end: Option<EndReason>) {
        let row = SessionRow::new(
            session,
            end,
            &self.names,
            &self.clock,
            &self.engine.policy(),
        );
        self.summary.session(&row);
        if let Err(error) = self.lines.row(&row) {
            self.failed.get_or_insert(error);
        }
    }
}

impl Sink for Collector<'_> {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.names.open(session.id);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.session(session, Some(reason));
        self.names.end(session.id);
    }

    fn helper_event(&mut self, note: &HelperNote) {
        let session = self.names.of(note.session);
        self.summary.ftp.note(self.frame, session, note);
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }

    fn released(&mut self, id: HoldId) {
        self.released.push(id);
    }
}
