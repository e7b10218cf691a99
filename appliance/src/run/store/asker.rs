//! Thread that asks the store for records.
//!
//! The thread has a connection of its own, so that records that wait to be written delay no answer.
//! All questions that have arrived meanwhile are asked in one pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use portcullis::continuity::Claim;
use redis::Cmd;

use super::connecting::{Commands, Connecting};
use super::envelope::{Envelope, Kind, MAX_VALUE, Owner, Unusable};
use super::link::{Reply, Servers};
use super::scripts::{self, StoreScript};
use super::state::{Counted, LinkName, StoreState};
use crate::run::streak::Streak;

/// Longest time for an answer. Held packets do not wait that long; a store that is slower than this
/// is of no use for them, and its connection is made again after a pause.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longest wait for a question.
const IDLE: Duration = Duration::from_millis(50);
/// Most questions in a pipeline.
const PIPELINE: usize = 256;
/// Under load, the thread rests this long after a small pipeline, so that the next one is larger.
/// A question that arrives meanwhile costs the worker no call to wake the thread.
const REST: Duration = Duration::from_micros(200);
/// Pipelines of fewer questions than this are small.
const SMALL: usize = 32;
/// Most time between two pipelines that count as load.
const CLOSE: Duration = Duration::from_millis(1);

/// Interval at which the list of sessions that have moved is read.
const MOVED: Duration = Duration::from_millis(200);
/// Most sessions that are read of the list at once: 4 MiB of the longest values.
const MAX_MOVED: usize = 256;

/// Question for the store. `T` is what the appliance calls it.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) tag: T,
    pub(crate) kind: Kind,
    pub(crate) key: Vec<u8>,
    /// Whether the record is taken away, so that it is found once.
    pub(crate) take: bool,
}

/// Answer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record.
    Record {
        owner: Owner,
        /// The claim of the record, which its MAC covers.
        claim: Claim,
        record: Vec<u8>,
    },
    /// No record that can be used.
    Nothing,
    /// A record of another version, which another appliance has written.
    OtherVersion,
    /// The store does not answer.
    NoStore,
}

/// Things that the store has told.
#[derive(Debug)]
pub(super) struct Told<T> {
    /// Answers to questions.
    pub(super) answers: Vec<(T, Found)>,
    /// Records of sessions that another appliance has taken over, with their new epochs.
    pub(super) moved: Vec<(u64, Vec<u8>)>,
}

/// Thread that asks.
pub(super) struct Asker<T, F> {
    connecting: Connecting,
    envelope: Arc<Envelope>,
    state: Arc<StoreState>,
    queue: Receiver<Ask<T>>,
    /// Called with the answers of a pipeline, or with sessions that have moved.
    on_told: F,
    take: StoreScript,
    moved: StoreScript,
}

impl<T, F: FnMut(&mut Told<T>)> Asker<T, F> {
    pub(super) fn new(
        servers: Arc<Servers>,
        envelope: Arc<Envelope>,
        state: Arc<StoreState>,
        queue: Receiver<Ask<T>>,
        on_told: F,
    ) -> Self {
        let name = LinkName::Questions;
        let scripts = [scripts::TAKE, scripts::MOVED].map(StoreScript::new);
        let [take, moved] = scripts.clone();
        let commands = Commands::new(scripts.into(), &envelope);
        Self {
            connecting: Connecting::new(name, servers, Arc::clone(&state), PATIENCE, commands),
            envelope,
            state,
            queue,
            on_told,
            take,
            moved,
        }
    }

    /// Begins again after a failure: what the connection still holds belongs to no question.
    pub(super) fn recover(&mut self) {
        self.connecting.give_up();
    }

    /// Asks until `stop` is set.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        let mut batch: Vec<Ask<T>> = Vec::with_capacity(PIPELINE);
        let mut told = Told {
            answers: Vec::with_capacity(PIPELINE),
            moved: Vec::new(),
        };
        let mut looked = Instant::now();
        let mut is_more = false;
        let mut streak = Streak::new(CLOSE, looked);
        while !stop.load(Ordering::Relaxed) {
            let ready = self.connecting.is_ready();
            match self
                .queue
                .recv_timeout(if is_more { Duration::ZERO } else { IDLE })
            {
                Ok(question) => batch.push(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(self.queue.try_iter().take(PIPELINE - 1));
            let mut rests = false;
            if !batch.is_empty() {
                rests = streak.note(Instant::now()) && batch.len() < SMALL;
                self.ask(ready, &mut batch, &mut told.answers);
            }
            // Questions that keep coming do not delay this.
            if ready && (is_more || looked.elapsed() >= MOVED) {
                looked = Instant::now();
                is_more = self.look(&mut told.moved) == MAX_MOVED;
            }
            if !told.answers.is_empty() || !told.moved.is_empty() {
                (self.on_told)(&mut told);
                told.answers.clear();
                told.moved.clear();
            }
            if rests {
                std::thread::sleep(REST);
            }
        }
    }

    /// Takes sessions from the list of those that have moved. Most often it is empty, and the
    /// command shows whether the store answers. Returns the number of values.
    fn look(&mut self, moved: &mut Vec<(u64, Vec<u8>)>) -> usize {
        let key = self.envelope.moved_key(self.envelope.owner());
        let mut command = self.moved.invoke(&key);
        command.arg(MAX_MOVED).arg(MAX_VALUE);
        let Some(mut replies) = self.connecting.send_once(&[command]) else {
            return 0;
        };
        let values = match replies.pop() {
            Some(Reply::Many(values)) => values,
            Some(Reply::Refused(refused)) => {
                self.state.counters.add(refused.kind.counted());
                return 0;
            }
            _ => return 0,
        };
        let count = values.len();
        for value in values {
            match self.envelope.open(Kind::Moved, &key, &value) {
                Ok(opened) => moved.push((opened.epoch, opened.record.to_vec())),
                Err(unusable) => self.state.counters.add(unusable.counted()),
            }
        }
        count
    }

    /// Asks the questions of a batch; in a cluster, those that take a record follow the others.
    fn ask(&mut self, ready: bool, batch: &mut Vec<Ask<T>>, answers: &mut Vec<(T, Found)>) {
        let (mut takes, mut reads): (Vec<_>, Vec<_>) = batch.drain(..).partition(|ask| ask.take);
        if !reads.is_empty() {
            self.ask_some(ready, &mut reads, answers);
        }
        if !takes.is_empty() {
            self.ask_some(ready, &mut takes, answers);
        }
    }

    /// Asks questions that either all take a record or none does.
    fn ask_some(&mut self, ready: bool, batch: &mut Vec<Ask<T>>, answers: &mut Vec<(T, Found)>) {
        let count = batch.len() as u64;
        let mut replies = None;
        if ready {
            self.state.counters.add_many(Counted::Asked, count);
            let commands: Vec<Cmd> = batch.iter().map(|ask| self.command(ask)).collect();
            replies = if batch.iter().any(|ask| ask.take) {
                self.connecting.send_once(&commands)
            } else {
                self.connecting.send(&commands)
            };
        }
        let Some(replies) = replies else {
            self.state.counters.add_many(Counted::Unanswered, count);
            let unanswered = batch.drain(..);
            answers.extend(unanswered.map(|question| (question.tag, Found::NoStore)));
            return;
        };
        for (question, reply) in batch.drain(..).zip(replies) {
            let found = self.found(&question, &reply);
            answers.push((question.tag, found));
        }
    }

    fn found(&self, question: &Ask<T>, reply: &Reply) -> Found {
        let counters = &self.state.counters;
        let bytes = match reply {
            Reply::Bytes(bytes) if bytes.is_empty() => {
                counters.add(Counted::Nothing);
                return Found::Nothing;
            }
            Reply::Bytes(bytes) => bytes,
            Reply::Refused(refused) => {
                counters.add(refused.kind.counted());
                counters.add(Counted::Unanswered);
                return Found::NoStore;
            }
            _ => {
                counters.add(Counted::Foreign);
                return Found::Nothing;
            }
        };
        match self.envelope.open(question.kind, &question.key, bytes) {
            Ok(opened) => {
                counters.add(Counted::Found);
                Found::Record {
                    owner: opened.owner,
                    claim: opened.claim,
                    record: opened.record.to_vec(),
                }
            }
            Err(unusable) => {
                counters.add(unusable.counted());
                match unusable {
                    Unusable::Version => Found::OtherVersion,
                    Unusable::Foreign | Unusable::Mac => Found::Nothing,
                }
            }
        }
    }

    /// Returns the command of a question. A foreign value may have any length: no more is read of
    /// it than shows that it is one.
    fn command(&self, question: &Ask<T>) -> Cmd {
        let mut command;
        if question.take {
            command = self.take.invoke(&question.key);
        } else {
            command = redis::cmd("GETRANGE");
            command.arg(&question.key).arg(0);
        }
        command.arg(MAX_VALUE);
        command
    }
}
