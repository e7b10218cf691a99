//! Thread that writes records to the store, from a bounded queue.
//!
//! No other thread waits for this one. A record is counted and lost if the queue is full or the
//! store is unreachable. The next round of the sweep then writes every session again. Changes that
//! no sweep repeats, such as deletions, are kept until the store is there again ([`Kept`]). A mark
//! in the store shows whether it was emptied meanwhile ([`Marks`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use portcullis::continuity::Claim;
use redis::Cmd;

use super::change::{Change, time_left};
use super::connecting::{Commands, Connecting};
use super::envelope::{Envelope, Kind, MAX_NUMBER, MAX_VALUE, Unusable};
use super::kept::Kept;
use super::link::{Reply, Servers};
use super::marks::Marks;
use super::scripts::{self, StoreScript};
use super::state::{Counted, LinkName, StoreState};

/// Longest time for an answer to a pipeline.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for a change.
const IDLE: Duration = Duration::from_millis(50);

/// Most sessions in the list of a former owner.
const MAX_MOVED: usize = 65_536;
/// Time after which a list is forgotten whose owner has died.
const MOVED_TTL: Duration = Duration::from_secs(60);

/// Sending end of the queue of changes.
#[derive(Debug)]
pub(crate) struct Changes<T> {
    sender: SyncSender<Change<T>>,
    state: Arc<StoreState>,
    /// Bound of the queue.
    room: usize,
}

impl<T> Clone for Changes<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            state: Arc::clone(&self.state),
            room: self.room,
        }
    }
}

impl<T> Changes<T> {
    /// Returns the two ends of a queue of `room` places.
    pub(crate) fn queue(room: usize, state: &Arc<StoreState>) -> (Self, Receiver<Change<T>>) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(room);
        let changes = Self {
            sender,
            state: Arc::clone(state),
            room,
        };
        (changes, receiver)
    }

    /// Returns whether the sweep may add changes: the other half of the queue is left to what
    /// cannot be repeated.
    pub(crate) fn has_room_for_sweep(&self) -> bool {
        self.state.waiting() < self.room / 2
    }

    /// Returns whether deletions may be added: a quarter of the queue is left to what cannot wait.
    pub(crate) fn has_room_for_deletions(&self) -> bool {
        self.state.waiting() < self.room / 4 * 3
    }

    /// Puts a change into the queue, or counts it as lost. Never waits.
    pub(crate) fn push(&self, change: Change<T>) {
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        match self.sender.try_send(change) {
            Ok(()) => {}
            Err(TrySendError::Full(change) | TrySendError::Disconnected(change)) => {
                if change.is_record() {
                    self.state.has_lost(1);
                }
                self.state.waiting.fetch_sub(1, Ordering::Relaxed);
                self.state.counters.add(Counted::QueueFull);
                self.state.lacks_records();
            }
        }
    }
}

/// Thread that writes records.
pub(super) struct Writer<T, F> {
    connecting: Connecting,
    envelope: Arc<Envelope>,
    state: Arc<StoreState>,
    queue: Receiver<Change<T>>,
    /// Changes that are written before those of the queue.
    kept: Kept<T>,
    marks: Marks,
    /// Most commands in a pipeline.
    pipeline: usize,
    /// Called with a session that another appliance owns, and its claim.
    on_moved: F,
    put: StoreScript,
    replace: StoreScript,
    delete: StoreScript,
    notify: StoreScript,
}

impl<T, F: FnMut(T, Claim)> Writer<T, F> {
    pub(super) fn new(
        servers: Arc<Servers>,
        envelope: Arc<Envelope>,
        state: Arc<StoreState>,
        queue: Receiver<Change<T>>,
        pipeline: usize,
        on_moved: F,
    ) -> Self {
        let scripts = [
            scripts::PUT,
            scripts::REPLACE,
            scripts::DELETE,
            scripts::NOTIFY,
        ]
        .map(StoreScript::new);
        let [put, replace, delete, notify] = scripts.clone();
        let name = LinkName::Writes;
        let commands = Commands::new(scripts.into(), &envelope);
        Self {
            kept: Kept::default(),
            marks: Marks::new(&envelope, servers.is_cluster()),
            connecting: Connecting::new(name, servers, Arc::clone(&state), PATIENCE, commands),
            envelope,
            state,
            queue,
            pipeline,
            on_moved,
            put,
            replace,
            delete,
            notify,
        }
    }

    /// Begins again after a failure: what the connection still holds belongs to no change.
    pub(super) fn recover(&mut self) {
        self.connecting.give_up();
    }

    /// Writes until `stop` is set and the queue is empty, or its other end is gone.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        let state = Arc::clone(&self.state);
        let mut batch = Vec::with_capacity(self.pipeline);
        loop {
            let ready = self.connecting.is_ready();
            if ready {
                self.marks.check(&mut self.connecting, &state);
                self.write_kept(&mut batch);
            }
            let wait = if ready { IDLE } else { Duration::ZERO };
            match self.queue.recv_timeout(wait) {
                Ok(change) => batch.push(change),
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if !ready {
                        self.connecting.rest(stop);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let room = self.pipeline.saturating_sub(1);
            batch.extend(self.queue.try_iter().take(room));
            // The store has answered when this ends: who waits for an empty queue waits for this
            // batch, too.
            let _taken = Taken {
                state: &state,
                count: batch.len(),
                records: batch.iter().filter(|each| each.is_record()).count(),
            };
            if !ready || !self.write(&mut batch) {
                self.keep(&mut batch);
            }
        }
    }

    /// Writes changes that were kept, until none is left or the connection breaks.
    fn write_kept(&mut self, batch: &mut Vec<Change<T>>) {
        let over = self.kept.forget_over(Instant::now());
        self.state.counters.add_many(Counted::Unreachable, over);
        while !self.kept.is_empty() {
            self.kept.take(self.pipeline, batch);
            if !self.write(batch) {
                self.kept.put_back(batch);
                return;
            }
        }
    }

    /// Keeps those changes of a batch that no sweep repeats. The others are lost for now.
    fn keep(&mut self, batch: &mut Vec<Change<T>>) {
        let counters = &self.state.counters;
        let over = self.kept.forget_over(Instant::now());
        counters.add_many(Counted::Unreachable, over);
        for change in batch.drain(..) {
            match change {
                Change::Put { .. } => {
                    counters.add(Counted::Unreachable);
                    self.state.has_lost(1);
                }
                change => {
                    let is_deletion = matches!(change, Change::Delete { .. });
                    if !self.kept.add(change) {
                        counters.add(match is_deletion {
                            true => Counted::DeletionsLost,
                            false => Counted::Unreachable,
                        });
                    }
                }
            }
        }
        self.state.lacks_records();
    }

    /// Writes a batch. Returns false if the connection has broken, or the store takes no writes at
    /// the moment; the batch holds what is to be written later then. In a cluster, what one primary
    /// refuses is lost: the others take writes.
    fn write(&mut self, batch: &mut Vec<Change<T>>) -> bool {
        let commands: Vec<Cmd> = batch.iter().map(|change| self.command(change)).collect();
        let Some(replies) = self.connecting.send(&commands) else {
            return false;
        };
        let (mut replacements, mut later, mut refused) = (Vec::new(), Vec::new(), None);
        let is_cluster = self.connecting.is_cluster();
        for (change, reply) in batch.drain(..).zip(replies) {
            if let Some(why) = reply.refused_writes().filter(|_| !is_cluster) {
                refused.get_or_insert_with(|| why.to_owned());
                if !change.is_record() {
                    self.state.counters.add(Counted::RefusedWrite);
                    later.push(change);
                    continue;
                }
            }
            replacements.extend(self.settle(change, reply));
        }
        if !replacements.is_empty() {
            self.replace(&replacements);
        }
        *batch = later;
        let Some(why) = refused else {
            return true;
        };
        self.connecting.give_up_writes(&why);
        false
    }

    /// Writes values in place of those that nobody of the group has written.
    fn replace(&mut self, replacements: &[Cmd]) {
        let Some(replies) = self.connecting.send(replacements) else {
            let lost = replacements.len() as u64;
            self.state.counters.add_many(Counted::Unreachable, lost);
            self.state.has_lost(lost);
            self.state.lacks_records();
            return;
        };
        for reply in replies {
            match reply {
                Reply::Number(1) => self.state.counters.add(Counted::Written),
                Reply::Refused(refused) => {
                    self.state.counters.add(refused.kind.counted());
                    self.state.has_lost(1);
                    self.state.lacks_records();
                }
                // The value has changed meanwhile, and this one is not written.
                _ => {
                    self.state.has_lost(1);
                    self.state.lacks_records();
                }
            }
        }
    }

    fn command(&self, change: &Change<T>) -> Cmd {
        let mut command;
        match change {
            Change::Put {
                key,
                epoch,
                value,
                ttl,
                ..
            } => {
                command = self.put.invoke(key);
                command.arg(value).arg(*epoch);
                command.arg(self.envelope.owner().0.as_slice());
                command.arg(millis(*ttl)).arg(MAX_VALUE);
            }
            Change::Announce {
                key,
                value,
                ttl,
                since,
            } => {
                let left = time_left(*ttl, *since, Instant::now());
                command = redis::cmd("SET");
                command.arg(key).arg(value).arg("PX").arg(millis(left));
            }
            Change::Delete { key, epoch } => {
                command = self.delete.invoke(key);
                command.arg(*epoch);
                command.arg(self.envelope.owner().0.as_slice());
            }
            Change::Notify { key, value } => {
                command = self.notify.invoke(key);
                command.arg(value).arg(MAX_MOVED).arg(millis(MOVED_TTL));
            }
            Change::Withdraw { key } => {
                // Another appliance may have announced the same connection since.
                command = self.delete.invoke(key);
                command.arg(MAX_NUMBER);
                command.arg(self.envelope.owner().0.as_slice());
            }
        }
        command
    }

    /// Takes the answer to a change. Returns a command that replaces a value that nobody of the
    /// group has written.
    fn settle(&mut self, change: Change<T>, reply: Reply) -> Option<Cmd> {
        let counters = &self.state.counters;
        if let Reply::Refused(refused) = &reply {
            counters.add(refused.kind.counted());
            match change {
                Change::Put { .. } => {
                    self.state.has_lost(1);
                    self.state.lacks_records();
                }
                Change::Delete { .. } => counters.add(Counted::DeletionsLost),
                Change::Announce { .. } | Change::Notify { .. } | Change::Withdraw { .. } => {}
            }
            return None;
        }
        match change {
            Change::Put {
                session,
                key,
                value,
                ttl,
                ..
            } => {
                let newer = match reply {
                    Reply::Bytes(newer) => newer,
                    Reply::Number(scripts::LATER_VERSION) => {
                        counters.add(Counted::Foreign);
                        self.state.has_lost(1);
                        return None;
                    }
                    Reply::Number(replaced) => {
                        counters.add(Counted::Written);
                        if replaced == scripts::REPLACED {
                            counters.add(Counted::Foreign);
                        }
                        let bytes = value.len() as u64;
                        self.state.written_bytes.fetch_add(bytes, Ordering::Relaxed);
                        return None;
                    }
                    Reply::Many(_) | Reply::Foreign | Reply::Refused(_) => {
                        counters.add(Counted::Foreign);
                        self.state.has_lost(1);
                        return None;
                    }
                };
                match self.envelope.open(Kind::Session, &key, &newer) {
                    // A record of this appliance that is newer than this one.
                    Ok(opened) if opened.owner == self.envelope.owner() => {}
                    Ok(opened) => {
                        counters.add(Counted::Superseded);
                        (self.on_moved)(session, opened.claim);
                    }
                    Err(unusable) => {
                        counters.add(unusable.counted());
                        let mut command = self.replace.invoke(&key);
                        command.arg(&newer).arg(&value).arg(millis(ttl));
                        command.arg(MAX_VALUE);
                        return Some(command);
                    }
                }
            }
            Change::Announce { .. } | Change::Notify { .. } if reply != Reply::Number(1) => {
                counters.add(Counted::Foreign);
            }
            Change::Announce { .. } => counters.add(Counted::Written),
            Change::Notify { .. } => counters.add(Counted::Notified),
            Change::Delete { .. } | Change::Withdraw { .. } => {
                if reply == Reply::Number(1) {
                    counters.add(Counted::Deleted);
                }
            }
        }
        None
    }
}

/// Changes that were taken from the queue; they wait until this is dropped, even by a failure. A
/// failure may have lost each record among them.
struct Taken<'s> {
    state: &'s StoreState,
    count: usize,
    /// Number of these changes that are records of sessions.
    records: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state.has_lost(self.records as u64);
        }
        self.state.waiting.fetch_sub(self.count, Ordering::Release);
    }
}

impl Unusable {
    /// Returns what counts such values.
    pub(super) const fn counted(self) -> Counted {
        match self {
            Self::Foreign | Self::Version => Counted::Foreign,
            Self::Mac => Counted::WrongMac,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX >> 16)
        .max(1)
}
