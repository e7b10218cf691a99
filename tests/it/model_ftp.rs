//! Random FTP conversations of several clients and zones against a reference model: announcements,
//! admitted data sessions, limits that count them, and control sessions that they keep alive.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::packets::{ACK, Ends, Head, RST, SYN, tcp};
use portcullis::session::TICK;
use portcullis::{
    Class, Config, Direction, Discard, DropReason, EndReason, Engine, Packet, SessionId,
    SessionRecord, Sink, Verdict, Zone,
};
use proptest::prelude::*;

/// The server of all clients, which are hosts 1 and 2.
const SERVER: u8 = 9;
const EXPECTATION: Duration = Duration::from_secs(8);
const HANDSHAKE: Duration = Duration::from_secs(20);
const ESTABLISHED: Duration = Duration::from_secs(60);
const CLOSE: Duration = Duration::from_secs(10);

/// A client's control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    zone: u16,
    host: u8,
    slot: u8,
}

impl Client {
    fn control(self) -> Ends {
        Ends {
            src: self.host,
            dst: SERVER,
            ..Ends::v4(5000 + u16::from(self.slot), 21)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The client connects to the server.
    Passive,
    Active,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Handshake and greeting.
    Open(Client),
    Announce(Client, Mode, u16),
    /// The SYN of a data session, to one of the ports.
    Call(Client, Mode, u16),
    /// The rest of the handshake of one of the data sessions.
    Answer(u8),
    /// A segment of each end of one of the data sessions.
    Data(u8),
    ResetData(u8),
    ResetControl(Client),
    Advance(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    per_source: usize,
    per_destination: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    Established,
    Closed,
}

#[derive(Debug, Clone)]
struct Session {
    id: SessionId,
    zone: u16,
    ends: Ends,
    state: State,
    deadline: Duration,
    /// The session that announced this one, if it is a data session.
    parent: Option<SessionId>,
    /// The next numbers of initiator and responder.
    next: [u32; 2],
}

impl Session {
    fn lifetime(&self) -> Duration {
        match self.state {
            State::SynSent => HANDSHAKE,
            State::Established => ESTABLISHED,
            State::Closed => CLOSE,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    zone: u16,
    parent: SessionId,
    parent_port: u16,
    mode: Mode,
    source: u8,
    destination: u8,
    port: u16,
    deadline: Duration,
}

/// Numbers of events in a run.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    announced: u64,
    replaced: u64,
    children: u64,
    limited: u64,
    limited_children: u64,
    denied: u64,
    lapsed: u64,
    spared: u64,
    orphans: u64,
    ended: u64,
}

#[derive(Default)]
struct Log(Vec<(SessionRecord, EndReason)>);

impl Sink for Log {
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.0.push((*session, reason));
    }
}

struct Run {
    bounds: Bounds,
    engine: Engine,
    base: Instant,
    now: Duration,
    sessions: Vec<Session>,
    expected: Vec<Expected>,
    /// Each data session has its own port at the connecting end.
    next_port: u16,
    tally: Tally,
}

impl Run {
    fn new(bounds: Bounds) -> Self {
        let Bounds {
            per_source,
            per_destination,
        } = bounds;
        let text = format!(
            "zones.green = 1
             table.max_sessions = 256
             table.shards = 1
             tombstones.max = 16
             syn_challenge.max_sources = 64
             fragments.max_datagrams = 16
             fragments.max_held = 16
             ftp.lifetime = \"8s\"
             gwlb.enabled = false
             tcp.timeout_reset = false
             [limits]
             max_per_source = {per_source}
             max_per_destination = {per_destination}
             [lifetimes]
             tcp.syn_sent = \"20s\"
             tcp.syn_recv = \"20s\"
             tcp.established = \"60s\"
             tcp.close = \"10s\"
             [policy]
             default = \"deny\"
             [[policy.rule]]
             name = \"control\"
             action = \"allow\"
             protocol = \"tcp\"
             destination_ports = 21"
        );
        let config = Config::from_toml(&text, "t.toml").unwrap();
        let (engine, base) = (
            Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            Instant::now(),
        );
        engine.expire_with(base, 0, &mut Discard);
        Self {
            bounds,
            engine,
            base,
            now: Duration::ZERO,
            sessions: Vec::new(),
            expected: Vec::new(),
            next_port: 40_000,
            tally: Tally::default(),
        }
    }

    fn instant(&self) -> Instant {
        self.base + self.now
    }

    fn segment(&self, zone: u16, ends: Ends, head: Head, payload: &[u8]) -> Verdict {
        let bytes = tcp(ends, head, &[], payload);
        self.engine
            .verdict_only(Packet::new(&bytes, self.instant()).zone(Zone(zone)))
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Open(client) => self.open(client),
            Op::Announce(client, mode, port) => self.announce(client, mode, port),
            Op::Call(client, mode, port) => self.call(client, mode, port),
            Op::Answer(pick) => {
                if let Some(place) = self.data_session(pick, State::SynSent) {
                    self.answer(place);
                }
            }
            Op::Data(pick) => {
                if let Some(place) = self.data_session(pick, State::Established) {
                    self.say(place, Direction::Original, b"data");
                    self.say(place, Direction::Reply, b"more data");
                }
            }
            Op::ResetData(pick) => {
                if let Some(place) = self.data_session(pick, State::Established) {
                    self.reset(place);
                }
            }
            Op::ResetControl(client) => {
                if let Some(place) = self.live_control(client) {
                    let id = self.sessions[place].id;
                    self.reset(place);
                    self.expected.retain(|expected| expected.parent != id);
                }
            }
            Op::Advance(by) => {
                self.now += by;
                self.expire();
            }
        }
        self.compare();
    }

    /// One of the data sessions in a state.
    fn data_session(&self, pick: u8, state: State) -> Option<usize> {
        let is_such = |session: &Session| session.parent.is_some() && session.state == state;
        let such: Vec<usize> = (0..self.sessions.len())
            .filter(|place| is_such(&self.sessions[*place]))
            .collect();
        such.get(usize::from(pick).checked_rem(such.len())?)
            .copied()
    }

    fn control(&self, client: Client) -> Option<usize> {
        let is_own = |each: &Session| (each.zone, each.ends) == (client.zone, client.control());
        self.sessions.iter().position(is_own)
    }

    fn live_control(&self, client: Client) -> Option<usize> {
        let place = self.control(client)?;
        (self.sessions[place].state == State::Established).then_some(place)
    }

    fn open(&mut self, client: Client) {
        if self.control(client).is_some() {
            return;
        }
        let ends = client.control();
        let verdict = self.syn(client.zone, ends);
        let limit = self.limit(client.zone, ends);
        if limit.is_some() {
            self.tally.limited += 1;
        }
        assert_eq!(verdict.reason(), limit, "{client:?}");
        if limit.is_none() {
            assert_eq!(verdict.tracked().class, Class::New);
            self.opened(client.zone, ends, verdict, None);
            let place = self.sessions.len() - 1;
            self.answer(place);
            self.say(place, Direction::Reply, b"220 ready\r\n");
        }
    }

    fn syn(&self, zone: u16, ends: Ends) -> Verdict {
        let head = Head {
            flags: SYN,
            seq: 100,
            ack: 0,
            window: 60_000,
        };
        self.segment(zone, ends, head, &[])
    }

    /// The limit that a new session would exceed.
    fn limit(&self, zone: u16, ends: Ends) -> Option<DropReason> {
        let of_zone = || self.sessions.iter().filter(|each| each.zone == zone);
        let of_source = of_zone().filter(|each| each.ends.src == ends.src).count();
        let to = of_zone().filter(|each| each.ends.dst == ends.dst).count();
        if of_source >= self.bounds.per_source {
            Some(DropReason::LimitSource)
        } else if to >= self.bounds.per_destination {
            Some(DropReason::LimitDestination)
        } else {
            None
        }
    }

    fn opened(&mut self, zone: u16, ends: Ends, verdict: Verdict, parent: Option<SessionId>) {
        self.sessions.push(Session {
            id: verdict.tracked().session.expect("a session was opened"),
            zone,
            ends,
            state: State::SynSent,
            deadline: self.now + HANDSHAKE,
            parent,
            next: [101, 501],
        });
    }

    /// SYN-ACK and ACK.
    fn answer(&mut self, place: usize) {
        let Session { zone, ends, .. } = self.sessions[place];
        let head = Head {
            flags: SYN | ACK,
            seq: 500,
            ack: 101,
            window: 60_000,
        };
        assert!(self.segment(zone, ends.back(), head, &[]).is_forward());
        let head = Head {
            flags: ACK,
            seq: 101,
            ack: 501,
            ..head
        };
        assert!(self.segment(zone, ends, head, &[]).is_forward());
        let session = &mut self.sessions[place];
        session.state = State::Established;
        session.deadline = self.now + ESTABLISHED;
    }

    fn say(&mut self, place: usize, direction: Direction, payload: &[u8]) {
        let Session {
            zone, ends, next, ..
        } = self.sessions[place];
        let (own, peer) = (direction as usize, direction.opposite() as usize);
        let head = Head {
            flags: ACK,
            seq: next[own],
            ack: next[peer],
            window: 60_000,
        };
        let ends = match direction {
            Direction::Original => ends,
            Direction::Reply => ends.back(),
        };
        let verdict = self.segment(zone, ends, head, payload);
        assert!(verdict.is_forward(), "{verdict:?}");
        assert_eq!(verdict.tracked().class, Class::Established);
        let session = &mut self.sessions[place];
        session.next[own] += payload.len() as u32;
        session.deadline = session.deadline.max(self.now + ESTABLISHED);
    }

    /// The initiator resets a session.
    fn reset(&mut self, place: usize) {
        let Session {
            zone, ends, next, ..
        } = self.sessions[place];
        let head = Head {
            flags: RST | ACK,
            seq: next[0],
            ack: next[1],
            window: 60_000,
        };
        assert!(self.segment(zone, ends, head, &[]).is_forward());
        let session = &mut self.sessions[place];
        session.state = State::Closed;
        session.deadline = self.now + CLOSE;
    }

    fn announce(&mut self, client: Client, mode: Mode, port: u16) {
        let Some(place) = self.live_control(client) else {
            return;
        };
        let [high, low] = port.to_be_bytes();
        let host = client.host;
        let (command, answer, source, destination) = match mode {
            Mode::Passive => (
                "PASV\r\n".to_owned(),
                format!("227 Entering Passive Mode (10,0,0,{SERVER},{high},{low})\r\n"),
                host,
                SERVER,
            ),
            Mode::Active => (
                format!("PORT 10,0,0,{host},{high},{low}\r\n"),
                "200 ok\r\n".to_owned(),
                SERVER,
                host,
            ),
        };
        self.say(place, Direction::Original, command.as_bytes());
        self.say(place, Direction::Reply, answer.as_bytes());
        let expected = Expected {
            zone: client.zone,
            parent: self.sessions[place].id,
            parent_port: client.control().src_port,
            mode,
            source,
            destination,
            port,
            deadline: self.now + EXPECTATION,
        };
        self.tally.announced += 1;
        let before = self.expected.len();
        // A control session has one of each mode, and an address and port belong to the newest.
        self.expected.retain(|older| {
            let is_own = (older.parent, older.mode) == (expected.parent, mode);
            !(is_own || is_same(older, &expected))
        });
        self.tally.replaced += (before - self.expected.len()) as u64;
        self.expected.push(expected);
    }

    fn call(&mut self, client: Client, mode: Mode, port: u16) {
        self.next_port += 1;
        let ends = Ends {
            src: client.host,
            dst: SERVER,
            ..Ends::v4(self.next_port, port)
        };
        let ends = match mode {
            Mode::Passive => ends,
            Mode::Active => Ends {
                src: ends.dst,
                dst: ends.src,
                ..ends
            },
        };
        let limit = self.limit(client.zone, ends);
        let verdict = self.syn(client.zone, ends);
        let found = self.expected.iter().position(|expected| {
            let who = (expected.zone, expected.source, expected.destination);
            who == (client.zone, ends.src, ends.dst) && expected.port == port
        });
        let found = found.filter(|place| self.expected[*place].deadline > self.now);
        let Some(place) = found else {
            self.tally.denied += 1;
            assert_eq!(verdict.reason(), Some(DropReason::PolicyDeny));
            return;
        };
        assert_eq!(verdict.tracked().class, Class::Related);
        assert_eq!(verdict.reason(), limit);
        if limit.is_some() {
            // Announced sessions may still open.
            self.tally.limited_children += 1;
            return;
        }
        let expected = self.expected.remove(place);
        self.tally.children += 1;
        self.opened(client.zone, ends, verdict, Some(expected.parent));
    }

    fn has_children(&self, id: SessionId) -> bool {
        self.sessions.iter().any(|each| each.parent == Some(id))
    }

    /// Ends all sessions that are due.
    fn expire(&mut self) {
        let mut log = Log::default();
        while self.engine.expire_with(self.instant(), 100, &mut log).more {}
        let before = self.expected.len();
        self.expected
            .retain(|expected| expected.deadline > self.now);
        self.tally.lapsed += (before - self.expected.len()) as u64;
        let (now, base) = (self.now, self.base);
        let parents: BTreeSet<SessionId> = self
            .sessions
            .iter()
            .filter_map(|each| each.parent)
            .collect();
        let mut sessions = std::mem::take(&mut self.sessions);
        let mut gone = Vec::new();
        sessions.retain_mut(|session| {
            let ended = log.0.iter().position(|(record, _)| record.id == session.id);
            let Some(ended) = ended else {
                let record = self
                    .record(session.id)
                    .expect("what has not ended is there");
                let renewed = base + now + session.lifetime();
                if session.deadline <= now && record.expires >= renewed - TICK {
                    assert!(parents.contains(&session.id), "{session:?} has no child");
                    assert_eq!(session.state, State::Established);
                    session.deadline = now + session.lifetime();
                    self.tally.spared += 1;
                }
                return true;
            };
            let (_, reason) = log.0.remove(ended);
            assert!(session.deadline <= now, "{session:?} ends at {now:?}");
            let expected = match session.state {
                State::Closed => EndReason::Reset,
                _ => EndReason::Timeout,
            };
            assert_eq!(reason, expected);
            self.tally.ended += 1;
            gone.push(session.clone());
            false
        });
        self.sessions = sessions;
        for session in gone {
            let is_closed = session.state == State::Closed;
            assert!(
                is_closed || !self.has_children(session.id),
                "{session:?} left a child"
            );
        }
        assert!(log.0.is_empty(), "ended, and not known: {:?}", log.0);
        // The end of a session withdraws its announcements.
        let is_there = |id: SessionId| self.sessions.iter().any(|each| each.id == id);
        self.expected.retain(|expected| is_there(expected.parent));
    }

    fn record(&self, id: SessionId) -> Option<SessionRecord> {
        let mut found = None;
        self.engine.for_each_session(|record| {
            if record.id == id {
                found = Some(*record);
            }
        });
        found
    }

    /// Compares all sessions and all expectations, and checks which sessions must exist.
    fn compare(&mut self) {
        let mut records = Vec::new();
        self.engine.for_each_session(|record| records.push(*record));
        assert_eq!(records.len(), self.sessions.len());
        for session in &self.sessions {
            let found = records.iter().find(|record| record.id == session.id);
            let record = found.unwrap_or_else(|| panic!("{session:?} is not there"));
            assert_eq!(record.parent, session.parent);
            if session.deadline > self.now + TICK {
                let detail = self.engine.inspect(session.id, self.instant()).unwrap();
                assert_eq!(
                    detail.has_children,
                    self.has_children(session.id),
                    "{session:?}"
                );
            }
            assert_eq!(self.engine.policy().rule_name(record.rule), "control");
            let state = match session.state {
                State::SynSent => "SYN_SENT",
                State::Established => "ESTABLISHED",
                State::Closed => "CLOSE",
            };
            assert_eq!(record.state, state);
            let deadline = self.base + session.deadline;
            assert!(
                deadline <= record.expires + TICK && record.expires <= deadline + 2 * TICK,
                "{session:?} announces its end {:?}",
                record.expires.saturating_duration_since(self.base)
            );
            assert!(
                session.deadline + 2 * TICK > self.now,
                "{session:?} has outlived its end"
            );
        }
        let of_model = |expected: &Expected| {
            let from = match expected.mode {
                Mode::Passive => Direction::Original,
                Mode::Active => Direction::Reply,
            };
            let parent = (expected.zone, expected.parent_port);
            (parent, from as u8, expected.port, expected.deadline)
        };
        let live = self
            .expected
            .iter()
            .filter(|expected| expected.deadline > self.now);
        let mut model: Vec<_> = live.map(of_model).collect();
        let exported = self.engine.export_expectations(self.instant());
        let mut engine: Vec<_> = exported
            .iter()
            .map(|each| {
                let parent = (each.parent.zone.0, each.parent.initiator.port());
                let deadline = self.now + each.lifetime;
                (
                    parent,
                    each.direction as u8,
                    each.destination.port(),
                    deadline,
                )
            })
            .collect();
        model.sort_unstable();
        engine.sort_unstable();
        assert_eq!(engine, model);
        let parents = self.sessions.iter().filter_map(|each| each.parent);
        let orphans = parents.filter(|parent| !self.sessions.iter().any(|each| each.id == *parent));
        self.tally.orphans += orphans.count() as u64;
        self.engine.check_invariants().unwrap();
    }

    /// Advances the time until all sessions have ended.
    fn finish(&mut self) {
        for _ in 0..4 {
            self.step(Op::Advance(ESTABLISHED + TICK));
            for session in &self.sessions {
                let is_kept = self.has_children(session.id) || session.deadline > self.now;
                assert!(is_kept, "{session:?} is there at {:?}", self.now);
            }
        }
        assert_eq!((self.sessions.len(), self.expected.len()), (0, 0));
        assert_eq!(self.engine.sessions(), 0);
    }
}

/// Returns whether two expectations have equal addresses and ports.
fn is_same(one: &Expected, other: &Expected) -> bool {
    let key = |each: &Expected| (each.zone, each.source, each.destination, each.port);
    key(one) == key(other)
}

fn op() -> impl Strategy<Value = Op> {
    let client =
        || (0u16..2, 1u8..3, 0u8..2).prop_map(|(zone, host, slot)| Client { zone, host, slot });
    let mode = || prop_oneof![Just(Mode::Passive), Just(Mode::Active)];
    let port = || 30_000u16..30_002;
    let millis = prop_oneof![3 => 1u64..3_000, 2 => 3_000u64..15_000, 2 => 15_000u64..70_000];
    prop_oneof![
        5 => client().prop_map(Op::Open),
        8 => (client(), mode(), port())
            .prop_map(|(client, mode, port)| Op::Announce(client, mode, port)),
        10 => (client(), mode(), port())
            .prop_map(|(client, mode, port)| Op::Call(client, mode, port)),
        4 => any::<u8>().prop_map(Op::Answer),
        4 => any::<u8>().prop_map(Op::Data),
        1 => any::<u8>().prop_map(Op::ResetData),
        1 => client().prop_map(Op::ResetControl),
        4 => millis.prop_map(|millis| Op::Advance(Duration::from_millis(millis))),
    ]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (1usize..5, 2usize..7).prop_map(|(per_source, per_destination)| Bounds {
        per_source,
        per_destination,
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..150)
}

proptest! {
    #![proptest_config(crate::support::proptest_config())]

    #[test]
    fn control_sessions_and_their_children_live_and_end_as_the_model_says(
        bounds in bounds(),
        ops in ops(),
    ) {
        let mut run = Run::new(bounds);
        ops.into_iter().for_each(|op| run.step(op));
        run.finish();
    }
}

/// The operations reach every case; otherwise the property would prove little.
#[test]
fn the_random_conversations_meet_every_case() {
    let runs = crate::support::tallies(&(bounds(), ops()), |(bounds, ops)| {
        let mut run = Run::new(bounds);
        ops.into_iter().for_each(|op| run.step(op));
        run.tally
    });
    let sum = |of: fn(&Tally) -> u64| runs.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("announced", sum(|tally| tally.announced)),
        ("replaced", sum(|tally| tally.replaced)),
        ("children", sum(|tally| tally.children)),
        ("limited", sum(|tally| tally.limited)),
        ("limited children", sum(|tally| tally.limited_children)),
        ("denied", sum(|tally| tally.denied)),
        ("lapsed", sum(|tally| tally.lapsed)),
        ("parents that a child kept alive", sum(|tally| tally.spared)),
        ("children without a parent", sum(|tally| tally.orphans)),
        ("ended", sum(|tally| tally.ended)),
    ] {
        assert!(count >= 20, "{what}: {count}");
    }
}
