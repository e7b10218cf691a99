//! An engine whose sessions are in a store that another engine reads, and a caller that holds
//! packets.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use portcullis::continuity::{StoreWhen, StoredSession, SweepCursor, SweepTime};
use portcullis::event::HelperNote;
use portcullis::{
    Answer, Answered, Config, Engine, ExpectationName, HeldPackets, HoldId, Packet, Question,
    QuestionStats, Sink, StoredExpectation, Verdict, Zone,
};

/// Wall-clock time of an instant that all sites of a test share.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// A store: the bytes of records by the bytes of their names.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) sessions: HashMap<Vec<u8>, Vec<u8>>,
    pub(crate) expectations: HashMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    /// Returns the answer to a question.
    pub(crate) fn ask(&self, engine: &Engine, question: &Question) -> Answer {
        if let Some(name) = engine.expectation_name(question) {
            return match self.expectations.get(name.as_bytes()) {
                None => Answer::Nothing,
                Some(bytes) => {
                    Answer::Expectation(Box::new(StoredExpectation::decode(bytes).unwrap()))
                }
            };
        }
        match self.sessions.get(question.flow.as_bytes()) {
            None => Answer::Nothing,
            Some(bytes) => Answer::Session(Box::new(StoredSession::decode(bytes).unwrap())),
        }
    }
}

/// Events that a sink received and the caller has not used yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) questions: VecDeque<Question>,
    pub(crate) released: Vec<HoldId>,
    pub(crate) notes: Vec<HelperNote>,
}

impl Sink for Inbox {
    fn helper_event(&mut self, note: &HelperNote) {
        self.notes.push(*note);
    }

    fn released(&mut self, id: HoldId) {
        self.released.push(id);
    }

    fn question(&mut self, question: &Question) {
        self.questions.push_back(*question);
    }
}

/// An engine and its caller.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) held: HeldPackets<Vec<u8>>,
    pub(crate) inbox: Inbox,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) zone: Zone,
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Drop(reason, _) => reason.name(),
        other => other.name(),
    }
}

impl Site {
    /// Returns a site whose engine asks a store.
    pub(crate) fn new(toml: &str) -> Self {
        Self::of(&format!("{toml}\n[continuity]\nenabled = true\n"))
    }

    /// Returns a site with exactly this configuration.
    pub(crate) fn of(toml: &str) -> Self {
        let config = Config::from_toml(toml, "test.toml").unwrap_or_else(|error| panic!("{error}"));
        let start = Instant::now();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            held: HeldPackets::with_config(&config),
            inbox: Inbox::default(),
            start,
            now: start,
            zone: Zone::DEFAULT,
        }
    }

    /// Returns the wall-clock time.
    pub(crate) fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + self.now.duration_since(self.start)
    }

    /// Submits a packet that came, and then all packets that need not wait any longer. Returns the
    /// verdicts by name, first that on the packet.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<&'static str> {
        let packet = Packet::new(bytes, self.now).zone(self.zone).can_hold(true);
        let verdict = self.engine.process_with(packet, &mut self.inbox);
        if let Verdict::Hold(id, _) = verdict {
            let kept = self.held.put(&self.engine, id, bytes.to_vec(), self.now);
            assert!(kept.is_none(), "there is room");
        }
        let mut names = vec![name(&verdict)];
        names.extend(self.ready());
        names
    }

    /// Submits the packets that need not wait any longer, and returns the verdicts by name.
    pub(crate) fn ready(&mut self) -> Vec<&'static str> {
        let mut ready = Vec::new();
        for id in self.inbox.released.drain(..) {
            ready.extend(self.held.take(id));
        }
        ready.extend(std::iter::from_fn(|| self.held.next(self.now)));
        let decide = |bytes: Vec<u8>| {
            let packet = Packet::new(&bytes, self.now).zone(self.zone);
            name(&self.engine.process_with(packet, &mut self.inbox))
        };
        let names = ready.into_iter().map(decide).collect();
        self.engine.check_invariants().unwrap();
        names
    }

    /// Answers a question.
    pub(crate) fn answer(&mut self, id: HoldId, answer: &Answer) -> Answered {
        let at = self.at();
        self.engine
            .answer(id, answer, self.now, at, &mut self.inbox)
    }

    /// Returns the only question that is not answered yet.
    #[track_caller]
    pub(crate) fn question(&mut self) -> Question {
        assert_eq!(self.inbox.questions.len(), 1, "{:?}", self.inbox.questions);
        self.inbox.questions.pop_front().unwrap()
    }

    /// Answers all questions from a store, and returns the effects.
    pub(crate) fn ask(&mut self, store: &Store) -> Vec<Answered> {
        let mut effects = Vec::new();
        while let Some(question) = self.inbox.questions.pop_front() {
            let answer = store.ask(&self.engine, &question);
            effects.push(self.answer(question.id, &answer));
        }
        effects
    }

    /// Submits a packet, answers its question from a store, and returns the verdicts by name.
    pub(crate) fn take_with(&mut self, store: &Store, bytes: &[u8]) -> Vec<&'static str> {
        let mut names = self.take(bytes);
        self.ask(store);
        names.extend(self.ready());
        names
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Writes all sessions and announcements to a store.
    pub(crate) fn save(&mut self, store: &mut Store) {
        let when = StoreWhen {
            min_age: Duration::ZERO,
            everything: true,
            ..StoreWhen::default()
        };
        let mut cursor = SweepCursor::default();
        let time = SweepTime {
            now: self.now,
            at: self.at(),
        };
        loop {
            let swept = self.engine.sweep(&mut cursor, time, &when, |flow, stored| {
                let mut bytes = Vec::new();
                stored.encode(&mut bytes);
                store.sessions.insert(flow.as_bytes().to_vec(), bytes);
            });
            if swept.round_ended {
                break;
            }
        }
        for expectation in self.engine.export_expectations(self.now) {
            let stored = self.engine.stored_expectation(&expectation, self.at());
            let name: ExpectationName = stored.name();
            let mut bytes = Vec::new();
            stored.encode(&mut bytes);
            store.expectations.insert(name.as_bytes().to_vec(), bytes);
        }
    }

    /// Returns the counts of questions.
    pub(crate) fn stats(&self) -> QuestionStats {
        self.engine.stats().questions
    }
}
