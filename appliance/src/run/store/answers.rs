//! Answers of the store on their way back to the engine.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use portcullis::continuity::{Claim, StoredSession, SweepTime};
use portcullis::{Answer, Answered, Question, QuestionKind, StoredExpectation};

use super::asker::{Ask, Found, Told};
use super::envelope::Kind;
use super::handle::{Asked, StoreHandle};
use super::retry::Retries;
use super::state::Counted;
use crate::run::data_path::DataPath;

/// Takes answers to the engine.
pub(super) struct Answers {
    pub(super) data_path: Arc<DataPath>,
    pub(super) retries: Arc<Retries>,
}

impl Answers {
    /// Gives answers to the engine, writes the records of sessions that were taken over, and sends
    /// the packets that were held for them. Ends the sessions that have moved.
    pub(super) fn take(&self, told: &mut Told<Asked>) {
        let Some(store) = &self.data_path.shared.store else {
            return;
        };
        let engine = &self.data_path.shared.engine;
        let (now, at) = (Instant::now(), SystemTime::now());
        self.data_path.with_sink(|sink| {
            for (asked, found) in told.answers.drain(..) {
                // A value of another version is gone, and the announcement may follow.
                let is_missing = matches!(found, Found::Nothing | Found::OtherVersion);
                if is_missing && self.is_asked_again(store, &asked, now) {
                    continue;
                }
                let Asked { question, .. } = asked;
                let answer = answer(store, &question, &found);
                let answered = engine.answer(question.id, &answer, now, at, sink);
                // No packet waits for the other answers.
                let is_awaited = question.kind != QuestionKind::Owner
                    && !matches!(answered, Answered::NoStore | Answered::Unknown);
                if is_awaited {
                    let waited = Instant::now().saturating_duration_since(question.at);
                    store.state.answered_in(waited);
                }
                if matches!(answered, Answered::Resumed | Answered::Upgraded)
                    && let Some(stored) = engine.find_stored(&question.flow, now, at)
                {
                    // The take-over is written before anything else, with the next epoch.
                    store.put(&question.flow, &stored);
                    store.notify(&found, stored.epoch);
                }
            }
            for (epoch, record) in told.moved.drain(..) {
                // The record is the one that the other appliance resumed.
                let stored = StoredSession::decode(&record).ok();
                let moved = stored.and_then(|stored| {
                    let claim = Claim {
                        epoch,
                        ..stored.claim()
                    };
                    Some((engine.flow_of(&stored)?, claim))
                });
                match moved {
                    Some((flow, claim)) => {
                        let time = SweepTime { now, at };
                        if engine.disown(&flow, &claim, time, sink) {
                            store.state.counters.add(Counted::Moved);
                        }
                        // Else it has ended already, was taken back, or was an earlier connection.
                    }
                    None => store.state.counters.add(Counted::Invalid),
                }
            }
        });
    }

    /// Asks again about an announcement that may still be on its way.
    fn is_asked_again(&self, store: &StoreHandle, asked: &Asked, now: Instant) -> bool {
        if asked.again || asked.question.kind != QuestionKind::Expectation {
            return false;
        }
        let engine = &self.data_path.shared.engine;
        let Some(name) = engine.expectation_name(&asked.question) else {
            return false;
        };
        let again = Ask {
            tag: Asked {
                again: true,
                ..*asked
            },
            kind: Kind::Expectation,
            key: store.envelope.key(Kind::Expectation, name.as_bytes()),
            take: true,
        };
        self.retries.add(again, now)
    }
}

/// Returns what the store has found as the engine takes it.
fn answer(store: &StoreHandle, question: &Question, found: &Found) -> Answer {
    let (owner, claim, record) = match found {
        Found::NoStore => return Answer::NoStore,
        Found::Nothing if question.kind == QuestionKind::Owner => return Answer::Owned,
        Found::OtherVersion if question.kind == QuestionKind::Owner => return Answer::Unreadable,
        Found::Nothing | Found::OtherVersion => return Answer::Nothing,
        Found::Record {
            owner,
            claim,
            record,
        } => (*owner, claim, record),
    };
    let answer = match question.kind {
        QuestionKind::Owner if owner == store.envelope.owner() => Some(Answer::Owned),
        // The MAC covers the key and the claim. So a record of a later version, which this
        // appliance cannot decode, names its owner as well.
        QuestionKind::Owner => Some(Answer::Moved(*claim)),
        QuestionKind::Expectation => StoredExpectation::decode(record)
            .ok()
            .map(|stored| Answer::Expectation(Box::new(stored))),
        _ => StoredSession::decode(record)
            .ok()
            .filter(|stored| stored.epoch == claim.epoch && stored.is_of(&question.flow))
            .map(|stored| Answer::Session(Box::new(stored))),
    };
    answer.unwrap_or_else(|| {
        store.state.counters.add(Counted::Invalid);
        Answer::Nothing
    })
}
