//! Answers of the store that engines share: the engine's side of [`crate::question`].

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::Engine;
use super::effects::OpenQuestion;
use super::questions::{Pending, Questions};
use crate::config::ContinuityConfig;
use crate::continuity::Claim;
#[cfg(feature = "snapshot")]
use crate::continuity::{Resumed, StoredSession, SweepTime};
use crate::event::Sink;
use crate::flow::{End, FlowKey};
use crate::fragment::HoldId;
use crate::ftp::Expectation;
use crate::question::{Answered, ExpectationName, Question, QuestionKind, StoredExpectation};

/// Returns the bytes that the questions of a configuration take.
pub(crate) const fn question_bytes(config: &ContinuityConfig) -> usize {
    Questions::bytes(config)
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Instant,
    at: SystemTime,
}

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
    Moved(
        /// The claim of the other engine's record.
        Claim,
    ),
    /// A record that cannot be read is in the store, such as one of a later version, to a question
    /// of the kind [`QuestionKind::Owner`]: another engine has written it, about this session or an
    /// earlier one of the same flow.
    Unreadable,
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
        let Some(questions) = &self.questions else {
            return Answered::Unknown;
        };
        let micros = self.origin.micros(now);
        let Some(pending) = questions.begin_answer(id, micros) else {
            questions.count(Answered::Unknown);
            return Answered::Unknown;
        };
        let moment = Moment { now, at };
        let effect = match pending.kind {
            QuestionKind::Owner => self.answer_owner(&pending, answer, moment, sink),
            _ => self.answer_held(&pending, answer, moment),
        };
        questions.count(effect);
        if !effect.is_in_vain() {
            let flow = &pending.flow;
            let ends = [End::Low, End::High].map(|end| {
                let prefixes = &self.fixed.prefixes;
                prefixes.counted(flow.address_number(end), flow.is_ipv6())
            });
            questions.put_back(&pending, ends, micros, &self.settings().zones);
        }
        questions.end_answer(id, &pending, effect, micros);
        if pending.kind != QuestionKind::Owner {
            sink.released(id);
        }
        effect
    }

    /// Takes the answer to a question that packets wait for.
    fn answer_held(&self, pending: &Pending, answer: &Answer, moment: Moment) -> Answered {
        match (pending.kind, answer) {
            (_, Answer::Nothing) => Answered::Nothing,
            (_, Answer::NoStore) => Answered::NoStore,
            #[cfg(feature = "snapshot")]
            (QuestionKind::Session, Answer::Session(stored)) => {
                if !stored.is_of(&self.flow_name(&pending.flow)) {
                    return Answered::Foreign;
                }
                match self.resume(stored, moment.now, moment.at) {
                    Ok(Resumed::Resumed(_)) => Answered::Resumed,
                    Ok(Resumed::Upgraded(_)) => Answered::Upgraded,
                    Ok(Resumed::Present) => Answered::Present,
                    Ok(Resumed::Refused) => Answered::Refused,
                    Ok(Resumed::Expired) => Answered::Expired,
                    Ok(Resumed::NoRoom) => Answered::NoRoom,
                    Err(_) => Answered::Unsound,
                }
            }
            (QuestionKind::Expectation, Answer::Expectation(stored)) => {
                self.expect_stored(pending, stored, moment)
            }
            _ => Answered::Foreign,
        }
    }

    /// Puts an announcement of another engine in force.
    fn expect_stored(
        &self,
        pending: &Pending,
        stored: &StoredExpectation,
        moment: Moment,
    ) -> Answered {
        let settings = self.settings();
        let Some(zone) = settings.stored_zone(&stored.zone) else {
            return Answered::Unsound;
        };
        let (flow, called) = (&pending.flow, pending.sender.opposite());
        let destination = SocketAddr::new(flow.address(called), flow.port(called));
        let mut expectation = stored.expectation;
        let is_asked_for = flow.zone() == zone
            && flow.protocol() == expectation.protocol
            && flow.address(pending.sender) == expectation.source
            && destination == expectation.destination;
        if !is_asked_for {
            return Answered::Foreign;
        }
        let elapsed = moment.at.duration_since(stored.saved_at);
        let left = expectation
            .lifetime
            .saturating_sub(elapsed.unwrap_or_default());
        if left.is_zero() {
            return Answered::Expired;
        }
        expectation.lifetime = left;
        expectation.parent.zone = zone;
        if !self.helpers.could_import(&settings.ftp, &expectation) {
            return Answered::Refused;
        }
        let accepted = self
            .helpers
            .import(&settings.ftp, &[expectation], moment.now);
        match accepted {
            0 => Answered::NoRoom,
            _ => Answered::Announced,
        }
    }

    /// Takes the answer to the question who owns a session that is about to end. Without another
    /// owner the session ends at its put-off end.
    fn answer_owner<S: Sink>(
        &self,
        pending: &Pending,
        answer: &Answer,
        moment: Moment,
        sink: &mut S,
    ) -> Answered {
        match answer {
            Answer::Nothing => Answered::Nothing,
            Answer::NoStore => Answered::NoStore,
            Answer::Owned => Answered::Owned,
            #[cfg(feature = "snapshot")]
            Answer::Moved(claim) => {
                let flow = self.flow_name(&pending.flow);
                let Moment { now, at } = moment;
                // Of two engines that took the session over from one record, the one owns it whose
                // record is in the store.
                let claim = Claim {
                    epoch: claim.epoch.saturating_add(1),
                    ..*claim
                };
                // The record may be one of an earlier connection.
                if self.disown(&flow, &claim, SweepTime { now, at }, sink) {
                    Answered::Moved
                } else {
                    Answered::Owned
                }
            }
            #[cfg(feature = "snapshot")]
            Answer::Unreadable => {
                let flow = self.flow_name(&pending.flow);
                if self.disown_put_off(&flow, moment.now, sink) {
                    Answered::Unreadable
                } else {
                    Answered::Owned
                }
            }
            _ => {
                let _ = (pending, moment, sink);
                Answered::Foreign
            }
        }
    }

    /// Reports a question that a packet has caused.
    #[cold]
    #[inline(never)]
    pub(super) fn report_question<S: Sink>(
        &self,
        question: &OpenQuestion,
        at: Instant,
        sink: &mut S,
    ) {
        let OpenQuestion { id, asking } = question;
        sink.question(&Question {
            id: *id,
            kind: asking.kind,
            flow: self.flow_name(&asking.flow),
            sender: asking.sender,
            epoch: 0,
            at,
        });
    }

    /// Asks whether this engine still owns a session that is about to end. Returns `None` if there
    /// is no store, or too many such questions are open: the session ends without one.
    pub(super) fn question_of_owner(
        &self,
        flow: &FlowKey,
        epoch: u64,
        at: Instant,
    ) -> Option<Question> {
        let questions = self.questions.as_ref()?;
        let id = questions.ask_owner(flow, self.origin.micros(at))?;
        Some(Question {
            id,
            kind: QuestionKind::Owner,
            flow: self.flow_name(flow),
            sender: End::Low,
            epoch,
            at,
        })
    }

    /// Returns the number of questions that packets wait for. Takes no lock.
    #[must_use]
    pub fn open_questions(&self) -> usize {
        self.questions.as_ref().map_or(0, Questions::open)
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
        let destination = SocketAddr::new(flow.address(called), flow.port(called));
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
