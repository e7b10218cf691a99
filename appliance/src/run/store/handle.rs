//! Store as the workers' sinks see it: queues that never make them wait.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Instant, SystemTime};

use portcullis::continuity::{FlowName, StoredSession};
use portcullis::event::{HelperEvent, HelperNote};
use portcullis::{EndReason, Engine, Question, QuestionKind, SessionRecord};
use ring::rand::{SecureRandom, SystemRandom};

use super::address::{Access, Address};
use super::asker::{Ask, Found};
use super::change::Change;
use super::envelope::{Envelope, Kind, Owner};
use super::link::Servers;
use super::state::{Counted, StoreState};
use super::writer::Changes;
use crate::output::notice;
use crate::run::settings::StoreSettings;

/// Questions that may wait for the store: more than the engine asks while one pipeline is answered.
const QUESTIONS: usize = 8_192;
/// Sessions that have ended whose records may wait to be deleted.
const ENDED: usize = 65_536;

/// Reason why the store cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StoreError(String);

/// Question that the engine asks, and whether it was asked before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(super) question: Question,
    pub(super) again: bool,
}

/// Store as the sinks of a running appliance see it.
pub(crate) struct StoreHandle {
    pub(super) envelope: Arc<Envelope>,
    pub(crate) state: Arc<StoreState>,
    pub(super) changes: Changes<FlowName>,
    questions: SyncSender<Ask<Asked>>,
    ended: SyncSender<SessionRecord>,
    /// Time for which the store keeps a record longer than the session lives.
    margin: std::time::Duration,
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle")
            .field("envelope", &self.envelope)
            .finish_non_exhaustive()
    }
}

/// Receiving ends of the queues.
pub(super) struct Queues {
    pub(super) changes: Receiver<Change<FlowName>>,
    pub(super) questions: Receiver<Ask<Asked>>,
    pub(super) ended: Receiver<SessionRecord>,
}

/// Threads of the store before their start.
pub(crate) struct StoreThreads {
    pub(super) servers: Arc<Servers>,
    pub(super) queues: Queues,
    pub(super) settings: StoreSettings,
}

impl StoreThreads {
    pub(super) fn new(servers: Servers, queues: Queues, settings: StoreSettings) -> Self {
        Self {
            servers: Arc::new(servers),
            queues,
            settings,
        }
    }
}

impl StoreHandle {
    /// Reads the secrets and prepares the threads of the store in the settings. Connects to
    /// nothing.
    ///
    /// # Errors
    /// A file cannot be read, or holds no key or no certificate.
    pub(crate) fn new(settings: &StoreSettings) -> Result<(Self, StoreThreads), StoreError> {
        let access = Access::read(settings).map_err(|error| StoreError(error.to_string()))?;
        for warning in &access.exposed {
            notice(&format!("warning: {warning}"));
        }
        let servers = Servers::new(&Address::new(settings), &access)
            .map_err(|error| StoreError(format!("store.url: {error}")))?;
        let mut owner = [0; 16];
        SystemRandom::new()
            .fill(&mut owner)
            .map_err(|_| StoreError("the system has no random numbers".to_owned()))?;
        let envelope = Envelope::new(&settings.group, &access.group_key, Owner(owner));
        let state = Arc::new(StoreState::new(Instant::now()));
        let (changes, changes_end) = Changes::queue(settings.queue, &state);
        let (questions, questions_end) = sync_channel(QUESTIONS);
        let (ended, ended_end) = sync_channel(ENDED);
        let handle = Self {
            envelope: Arc::new(envelope),
            state,
            changes,
            questions,
            ended,
            margin: settings.ttl_margin,
        };
        let queues = Queues {
            changes: changes_end,
            questions: questions_end,
            ended: ended_end,
        };
        Ok((handle, StoreThreads::new(servers, queues, settings.clone())))
    }

    /// Returns the random bytes that name this start of the appliance.
    pub(crate) fn owner(&self) -> Owner {
        self.envelope.owner()
    }

    /// Asks the store. Without room, the question stays unanswered until its time is over.
    pub(crate) fn ask(&self, engine: &Engine, question: &Question) {
        let asked = Asked {
            question: *question,
            again: false,
        };
        let key;
        let (kind, take) = match question.kind {
            QuestionKind::Expectation => {
                let Some(name) = engine.expectation_name(question) else {
                    return;
                };
                key = self.envelope.key(Kind::Expectation, name.as_bytes());
                (Kind::Expectation, true)
            }
            _ => {
                key = self.session_key(&question.flow);
                (Kind::Session, false)
            }
        };
        self.send(Ask {
            tag: asked,
            kind,
            key,
            take,
        });
    }

    /// Puts a question into the queue, or counts it as lost.
    pub(super) fn send(&self, ask: Ask<Asked>) {
        if self.questions.try_send(ask).is_err() {
            self.state.counters.add(Counted::QuestionsLost);
        }
    }

    /// Notes that a session has ended here, so that its record is deleted.
    #[inline]
    pub(crate) fn ended(&self, session: &SessionRecord, reason: EndReason) {
        if session.stored.is_some()
            && reason != EndReason::Moved
            && self.ended.try_send(*session).is_err()
        {
            self.state.counters.add(Counted::DeletionsLost);
        }
    }

    /// Writes an announced session, or deletes one that was withdrawn.
    pub(crate) fn helper(&self, engine: &Engine, note: &HelperNote) {
        let Some(expectation) = &note.expectation else {
            return;
        };
        let is_open = match note.event {
            HelperEvent::ExpectationOpened => true,
            HelperEvent::ExpectationWithdrawn => false,
            _ => return,
        };
        let stored = engine.stored_expectation(expectation, SystemTime::now());
        let kind = Kind::Expectation;
        let key = self.envelope.key(kind, stored.name().as_bytes());
        if !is_open {
            self.changes.push(Change::Withdraw { key });
            return;
        }
        let mut record = Vec::new();
        stored.encode(&mut record);
        self.changes.push(Change::Announce {
            value: self.envelope.seal(kind, &key, 0, &record),
            key,
            ttl: stored.time_left().max(std::time::Duration::from_secs(1)),
            since: Instant::now(),
        });
    }

    pub(super) fn session_key(&self, flow: &FlowName) -> Vec<u8> {
        self.envelope.key(Kind::Session, flow.as_bytes())
    }

    /// Tells the former owner of a session that this appliance has it now, with a new epoch.
    pub(super) fn notify(&self, former: &Found, epoch: u64) {
        if let Found::Record { owner, record, .. } = former
            && *owner != self.owner()
        {
            let key = self.envelope.moved_key(*owner);
            let value = self.envelope.seal(Kind::Moved, &key, epoch, record);
            self.changes.push(Change::Notify { key, value });
        }
    }

    /// Writes the record of a session.
    pub(super) fn put(&self, flow: &FlowName, stored: &StoredSession) {
        let mut record = Vec::with_capacity(256);
        stored.encode(&mut record);
        let key = self.session_key(flow);
        let epoch = stored.epoch;
        self.changes.push(Change::Put {
            session: *flow,
            value: (self.envelope).seal_claim(Kind::Session, &key, &stored.claim(), &record),
            key,
            epoch,
            ttl: stored.time_left().saturating_add(self.margin),
        });
    }
}
