//! The store's threads against a real redis-server, which each test starts for itself.

mod behaviour;
mod encrypted;
mod outages;
mod refusals;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use portcullis::continuity::Claim;

use super::address::{Access, Address};
use super::asker::{Ask, Asker, Found, Told};
use super::change::Change;
use super::envelope::{Envelope, Kind, Owner};
use super::link::Servers;
use super::state::{Counted, LinkName, StoreState};
use super::supervisor::supervise;
use super::writer::{Changes, Writer};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Session of whose answer a thread fails.
const FAILS: u32 = 1_313;
/// Time to live of records.
const TTL: Duration = Duration::from_secs(60);

/// Threads of a store, as an appliance has them; sessions are called by numbers.
struct Threads {
    envelope: Arc<Envelope>,
    state: Arc<StoreState>,
    changes: Changes<u32>,
    questions: SyncSender<Ask<u32>>,
    moved: Receiver<(u32, u64)>,
    answers: Receiver<(u32, Found)>,
    /// Sessions that another owner has taken over.
    taken: Receiver<(u64, Vec<u8>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Threads {
    /// Starts the threads of an appliance whose owner is called by this byte.
    fn start(url: &str, owner: u8) -> Self {
        Self::with(url, owner, Access::default(), 64)
    }

    fn with(url: &str, owner: u8, access: Access, room: usize) -> Self {
        let address = Address {
            urls: vec![url.to_owned()],
            is_cluster: false,
        };
        Self::at(&address, owner, access, room)
    }

    fn at(address: &Address, owner: u8, access: Access, room: usize) -> Self {
        let servers = Arc::new(Servers::new(address, &access).unwrap());
        let envelope = Arc::new(Envelope::new("test", b"secret", Owner([owner; 16])));
        let state = Arc::new(StoreState::new(Instant::now()));
        let (changes, queue) = Changes::queue(room, &state);
        let (questions, asked) = sync_channel(64);
        let (tell_moved, moved) = sync_channel(64);
        let (tell_taken, taken) = sync_channel(1_024);
        let (tell_answers, answers) = sync_channel(1_024);
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = Writer::new(
            Arc::clone(&servers),
            Arc::clone(&envelope),
            Arc::clone(&state),
            queue,
            16,
            move |session, claim| {
                assert_ne!(session, FAILS, "the thread fails");
                tell_moved.send((session, claim.epoch)).unwrap();
            },
        );
        let mut asker = Asker::new(
            servers,
            Arc::clone(&envelope),
            Arc::clone(&state),
            asked,
            move |told: &mut Told<u32>| {
                for answer in told.answers.drain(..) {
                    assert_ne!(answer.0, FAILS, "the thread fails");
                    tell_answers.send(answer).unwrap();
                }
                for (epoch, record) in told.moved.drain(..) {
                    tell_taken.send((epoch, record)).unwrap();
                }
            },
        );
        let (stop_writer, stop_asker) = (Arc::clone(&stop), Arc::clone(&stop));
        let (of_writer, of_asker) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || {
                supervise("store-write", &of_writer, &stop_writer, |is_again| {
                    if is_again {
                        writer.recover();
                    }
                    writer.run(&stop_writer);
                });
            }),
            std::thread::spawn(move || {
                supervise("store-ask", &of_asker, &stop_asker, |is_again| {
                    if is_again {
                        asker.recover();
                    }
                    asker.run(&stop_asker);
                });
            }),
        ];
        Self {
            envelope,
            state,
            changes,
            questions,
            moved,
            answers,
            taken,
            stop,
            threads,
        }
    }

    fn key(&self, session: u32) -> Vec<u8> {
        self.envelope.key(Kind::Session, &session.to_be_bytes())
    }

    fn put(&self, session: u32, epoch: u64, record: &str) {
        let key = self.key(session);
        let value = self
            .envelope
            .seal(Kind::Session, &key, epoch, record.as_bytes());
        self.changes.push(Change::Put {
            session,
            key,
            epoch,
            value,
            ttl: TTL,
        });
    }

    /// Writes the record of a session with its claim.
    fn put_claim(&self, session: u32, claim: &Claim, record: &str) {
        let (key, record) = (self.key(session), record.as_bytes());
        self.changes.push(Change::Put {
            session,
            value: (self.envelope).seal_claim(Kind::Session, &key, claim, record),
            key,
            epoch: claim.epoch,
            ttl: TTL,
        });
    }

    fn delete(&self, session: u32, epoch: u64) {
        let key = self.key(session);
        self.changes.push(Change::Delete { key, epoch });
    }

    fn ask(&self, session: u32) -> Found {
        self.ask_for(session, Kind::Session, false)
    }

    fn ask_for(&self, session: u32, kind: Kind, take: bool) -> Found {
        let question = Ask {
            tag: session,
            kind,
            key: self.envelope.key(kind, &session.to_be_bytes()),
            take,
        };
        self.questions.send(question).unwrap();
        let (tag, found) = self.answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(tag, session);
        found
    }

    fn count(&self, what: Counted) -> u64 {
        self.state.counters.of(what)
    }

    /// Waits until something was counted so often.
    fn await_count(&self, what: Counted, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.count(what) < count {
            assert!(
                Instant::now() < until,
                "{} is {}",
                what.name(),
                self.count(what)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.count(what), count, "{}", what.name());
    }

    /// Asks until the store answers.
    fn await_answer(&self, session: u32) -> Found {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.ask(session) {
                Found::NoStore if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                found => return found,
            }
        }
    }
}

/// Returns what is found of a record.
fn record(owner: u8, epoch: u64, record: &str) -> Found {
    let claim = Claim {
        epoch,
        began: SystemTime::UNIX_EPOCH,
        adopted: false,
    };
    record_of(owner, claim, record)
}

/// Returns what is found of a record with a claim.
fn record_of(owner: u8, claim: Claim, record: &str) -> Found {
    Found::Record {
        owner: Owner([owner; 16]),
        claim,
        record: record.as_bytes().to_vec(),
    }
}
