//! A naive reference model of the session table: a `Vec` of sessions with exact deadlines, searched from front
//! to back, beside an engine that is told the same. After every step the two are compared.
//!
//! The model restates the documented rules of UDP, ICMP and other protocols; of TCP it asks the library's pure
//! [`Track`], which has tests of its own, and checks what the table makes of the answer. A session whose lifetime
//! has passed may be there for another [`TICK`]: within it the model follows the engine.

use std::time::{Duration, Instant};

use portcullis::config::{Config, LifetimeOverride, TableConfig};
use portcullis::event::{EndReason, SessionRecord, Sink};
use portcullis::lifetime::{LifetimeClass, LifetimeSet, Lifetimes};
use portcullis::packet::{IpVersion, Parsed, QuotedTransport, SeqNum, Transport, parse};
use portcullis::policy::{PortRange, Protocol};
use portcullis::session::TICK;
use portcullis::track::Worth;
use portcullis::track::tcp::{Known, Outcome, Track};
use portcullis::{Class, Direction, DropReason, Engine, Packet, SessionId, Tracked, Verdict, Zone};

use super::ops::{Op, Traffic};

/// What the sink was told.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) opened: Vec<SessionRecord>,
    pub(crate) ended: Vec<(SessionRecord, EndReason)>,
}

impl Sink for Log {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.opened.push(*session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((*session, reason));
    }
}

impl Log {
    /// Takes the end of a session out of the log.
    fn take(&mut self, id: SessionId) -> Option<(SessionRecord, EndReason)> {
        let place = self.ended.iter().position(|(record, _)| record.id == id)?;
        Some(self.ended.remove(place))
    }
}

/// The sizes and lifetimes of a run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) max_sessions: u32,
    pub(crate) shards: u32,
    /// Global lifetimes.
    pub(crate) global: LifetimeSet,
    /// For UDP sessions to port 53, TCP sessions to port 80, and all else in zone 1.
    pub(crate) overrides: [LifetimeSet; 3],
    pub(crate) seed: u64,
}

impl Setup {
    /// Default lifetimes and no overrides.
    pub(crate) fn plain(max_sessions: u32, shards: u32) -> Self {
        Self {
            max_sessions,
            shards,
            global: LifetimeSet::default(),
            overrides: [LifetimeSet::default(); 3],
            seed: 1,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let [dns, web, zone] = self.overrides;
        let ports = |protocol, port, set| LifetimeOverride {
            protocol: Some(protocol),
            ports: vec![PortRange::single(port)],
            set,
            ..LifetimeOverride::default()
        };
        let mut config = Config {
            table: TableConfig {
                max_sessions: self.max_sessions,
                shards: Some(self.shards),
            },
            zones: [("tenant".to_owned(), 1)].into(),
            ..Config::default()
        };
        config.lifetimes.set = self.global;
        config.lifetimes.overrides = vec![
            ports(Protocol::UDP, 53, dns),
            ports(Protocol::TCP, 80, web),
            LifetimeOverride {
                zone: Some("tenant".to_owned()),
                set: zone,
                ..LifetimeOverride::default()
            },
        ];
        config
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::with_seed(&self.config(), [self.seed, 2, 3, 4]).unwrap()
    }

    /// The lifetimes of a session: a narrower port range comes before a zone, and what an override leaves unset
    /// is global.
    fn lifetimes(&self, tuple: &Tuple) -> Lifetimes {
        let global = Lifetimes::default().with(&self.global);
        let [dns, web, zone] = &self.overrides;
        match (tuple.protocol, tuple.dst.1) {
            (17, 53) => global.with(dns),
            (6, 80) => global.with(web),
            _ if tuple.zone == 1 => global.with(zone),
            _ => global,
        }
    }
}

/// A packet's addresses, directed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    zone: u16,
    v6: bool,
    protocol: u8,
    src: (u128, u16),
    dst: (u128, u16),
    /// Of an ICMP query: whether the packet asks.
    asks: Option<bool>,
}

impl Tuple {
    fn of(zone: u16, parsed: &Parsed) -> Option<Self> {
        let (src_port, dst_port, asks) = match parsed.transport {
            Transport::Tcp {
                src_port, dst_port, ..
            }
            | Transport::Udp {
                src_port, dst_port, ..
            } => (src_port, dst_port, None),
            Transport::IcmpQuery(query) => (query.id, query.id, Some(query.request)),
            Transport::Other | Transport::Gre { .. } | Transport::Esp { .. } => (0, 0, None),
            _ => return None,
        };
        Some(Self {
            zone,
            v6: parsed.ip.version == IpVersion::V6,
            protocol: parsed.ip.protocol,
            src: (parsed.ip.src, src_port),
            dst: (parsed.ip.dst, dst_port),
            asks,
        })
    }

    fn back(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            asks: self.asks.map(|asks| !asks),
            ..self
        }
    }
}

/// A session as the model keeps it. Moments are durations since the run began.
#[derive(Debug, Clone)]
struct Session {
    id: SessionId,
    initiator: Tuple,
    lifetimes: Lifetimes,
    start: Duration,
    last: Duration,
    /// The exact end of its lifetime.
    deadline: Duration,
    seen_reply: bool,
    assured: bool,
    state: State,
    packets: [u32; 2],
    bytes: [u64; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unreplied,
    Replied,
    Stream,
    Tcp(Track),
}

impl Session {
    fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        if *tuple == self.initiator {
            Some(Direction::Original)
        } else if *tuple == self.initiator.back() {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    fn state_name(&self) -> &'static str {
        match &self.state {
            State::Unreplied => "UNREPLIED",
            State::Replied => "REPLIED",
            State::Stream => "STREAM",
            State::Tcp(track) => track.state().name(),
        }
    }

    fn class(&self) -> LifetimeClass {
        match (self.state, self.initiator.protocol) {
            (State::Tcp(track), _) => track.state().lifetime(),
            (State::Unreplied, 17) => LifetimeClass::UdpUnreplied,
            (State::Replied, 17) => LifetimeClass::UdpReplied,
            (State::Stream, _) => LifetimeClass::UdpStream,
            (_, 1 | 58) => LifetimeClass::Icmp,
            (State::Unreplied, _) => LifetimeClass::OtherUnreplied,
            (State::Replied, _) => LifetimeClass::OtherReplied,
        }
    }

    fn worth(&self) -> Worth {
        match (self.state, self.initiator.protocol) {
            (State::Tcp(track), _) => match track.state().name() {
                "SYN_SENT" | "SYN_SENT2" | "SYN_RECV" => Worth::Embryonic,
                "ESTABLISHED" => Worth::Assured,
                _ => Worth::Closing,
            },
            (State::Unreplied, _) | (_, 1 | 58) => Worth::Embryonic,
            _ => Worth::Assured,
        }
    }

    /// Why it ends when its lifetime has passed.
    fn end_of_life(&self) -> EndReason {
        match self.state_name() {
            "TIME_WAIT" => EndReason::Closed,
            "CLOSE" => EndReason::Reset,
            _ => EndReason::Timeout,
        }
    }

    fn count(&mut self, direction: Direction, bytes: u32, now: Duration) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += u64::from(bytes);
        self.last = now;
        self.seen_reply |= direction == Direction::Reply;
    }
}

/// What a step came to, for tests that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) ended: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
    pub(crate) expired: u64,
    pub(crate) invalid: u64,
}

/// An engine and its model.
pub(crate) struct Run {
    setup: Setup,
    pub(crate) engine: Engine,
    base: Instant,
    pub(crate) now: Duration,
    traffic: Traffic,
    sessions: Vec<Session>,
    pub(crate) tally: Tally,
}

impl Run {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            engine: setup.engine(),
            setup,
            base: Instant::now(),
            now: Duration::ZERO,
            traffic: Traffic::new(),
            sessions: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Does one thing and compares.
    pub(crate) fn step(&mut self, op: &Op) {
        match *op {
            Op::Advance(by) => self.now += by,
            Op::Expire { budget } => {
                self.expire(budget);
            }
            _ => {
                for (zone, bytes) in self.traffic.packets(op) {
                    let _ = self.packet(zone, &bytes);
                    self.compare();
                }
            }
        }
        self.compare();
    }

    /// Lets everything that is due end.
    pub(crate) fn expire(&mut self, budget: usize) -> bool {
        let mut log = Log::default();
        let done = self.engine.expire(self.instant(), budget, &mut log);
        assert!(log.opened.is_empty());
        assert_eq!(done.ended, log.ended.len(), "each end is reported");
        assert!(done.ended + done.moved <= budget, "{done:?}, budget {budget}");
        for (record, reason) in log.ended {
            let session = self.remove(record.id);
            self.died(&session, &record, reason);
        }
        if !done.more {
            for session in &self.sessions {
                assert!(
                    session.deadline + TICK > self.now,
                    "nothing more is due, yet {session:?} is there at {:?}",
                    self.now
                );
            }
        } else {
            assert_eq!(
                done.ended + done.moved,
                budget,
                "more is due only where the budget ran out"
            );
        }
        done.more
    }

    /// Decides a packet and compares the verdict and the events.
    pub(crate) fn packet(&mut self, zone: u16, bytes: &[u8]) -> Verdict {
        let before = self.records();
        let mut log = Log::default();
        let packet = Packet::new(bytes, self.instant()).zone(Zone(zone));
        let verdict = self.engine.process_with(packet, &mut log);
        let silent = log.opened.is_empty() && log.ended.is_empty();
        let expected = self.expected(zone, bytes, &mut log, verdict);
        assert_eq!(verdict, expected);
        assert!(
            log.opened.is_empty() && log.ended.is_empty(),
            "unexpected: {log:?}"
        );
        if verdict.tracked().class == Class::Invalid {
            self.tally.invalid += 1;
            if silent {
                // Except that an invalid FIN or RST of each end shortens a lifetime, which the model follows.
                let shorter = |(after, before): (&SessionRecord, &SessionRecord)| {
                    let mut after = *after;
                    after.expires = after.expires.max(before.expires);
                    after
                };
                let after = self.records();
                assert_eq!(after.len(), before.len());
                let after: Vec<_> = after.iter().zip(&before).map(shorter).collect();
                assert!(after == before, "an invalid packet changes nothing");
            }
        }
        verdict
    }

    fn expected(&mut self, zone: u16, bytes: &[u8], log: &mut Log, verdict: Verdict) -> Verdict {
        let invalid = |reason| {
            Verdict::Drop(
                reason,
                Tracked {
                    class: Class::Invalid,
                    direction: None,
                    session: None,
                    tolerated: None,
                    late: None,
                },
            )
        };
        let parsed = match parse(bytes, portcullis::config::Checksums::Trust) {
            Ok(parsed) => parsed,
            Err(malformed) => return invalid(DropReason::Malformed(malformed)),
        };
        let Some(tuple) = Tuple::of(zone, &parsed) else {
            return match &parsed.transport {
                Transport::Fragment(_) => invalid(DropReason::FragmentBeforeFirst),
                Transport::Neighbour if !matches!(parsed.ip.ttl, 1 | 255) => {
                    invalid(DropReason::DiscoveryOffLink)
                }
                Transport::Neighbour => Verdict::Forward(Tracked {
                    class: Class::Untracked,
                    direction: None,
                    session: None,
                    tolerated: None,
                    late: None,
                }),
                Transport::IcmpError(_) => self.related(zone, &parsed, verdict).unwrap_or_else(invalid),
                _ => invalid(DropReason::IcmpTypeUnsupported),
            };
        };
        let found = self
            .sessions
            .iter()
            .find_map(|session| Some((session.id, session.direction_of(&tuple)?)));
        if let Some((id, direction)) = found
            && !self.outlived(id, log)
        {
            if let Some(expected) = self.hit(id, direction, &parsed, log) {
                return expected;
            }
            let (record, reason) = log.take(id).expect("its ports are reused");
            assert_eq!(reason, EndReason::Reused);
            let session = self.remove(id);
            self.agrees(&session, &record);
            self.tally.ended += 1;
        }
        self.miss(&tuple, &parsed, log, verdict).unwrap_or_else(invalid)
    }

    /// Whether the packet of a session came after its end.
    fn outlived(&mut self, id: SessionId, log: &mut Log) -> bool {
        let by_time = |(_, reason): &(SessionRecord, EndReason)| {
            matches!(reason, EndReason::Timeout | EndReason::Closed | EndReason::Reset)
        };
        let place = log.ended.iter().position(|end| end.0.id == id && by_time(end));
        let session = self.find(id);
        let Some(place) = place else {
            assert!(
                self.now < session.deadline + TICK,
                "{session:?} counts as there at {:?}",
                self.now
            );
            return false;
        };
        let (record, reason) = log.ended.remove(place);
        let session = self.remove(id);
        self.died(&session, &record, reason);
        true
    }

    fn hit(
        &mut self,
        id: SessionId,
        direction: Direction,
        parsed: &Parsed,
        log: &mut Log,
    ) -> Option<Verdict> {
        let now = self.now;
        let session = self.sessions.iter_mut().find(|session| session.id == id).unwrap();
        let class = if direction == Direction::Original && !session.seen_reply {
            Class::New
        } else {
            Class::Established
        };
        let tracked = Tracked {
            class,
            direction: Some(direction),
            session: Some(id),
            tolerated: None,
            late: None,
        };
        let bytes = parsed.ip.total_len;
        let cap = match (&mut session.state, &parsed.transport) {
            (State::Tcp(track), Transport::Tcp { segment, .. }) => {
                let known = Known {
                    seen_reply: session.seen_reply,
                    assured: session.assured,
                    split_handshake: false,
                };
                let untouched = *track;
                match track.segment(direction, segment, known, |_| {}) {
                    Outcome::Accept {
                        lifetime, assured, ..
                    } => {
                        session.assured |= assured;
                        session.count(direction, bytes, now);
                        if let Some(lifetime) = lifetime {
                            assert_eq!(lifetime.class, session.class());
                            lifetime.cap
                        } else {
                            return Some(Verdict::Forward(tracked));
                        }
                    }
                    Outcome::Pass(_) => {
                        session.count(direction, bytes, now);
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::AcceptAndEnd => {
                        session.count(direction, bytes, now);
                        let (record, reason) = log.take(id).expect("a refused session ends");
                        assert_eq!(reason, EndReason::Refused);
                        let session = self.remove(id);
                        self.agrees(&session, &record);
                        self.tally.ended += 1;
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::Reopen => return None,
                    Outcome::Invalid(fault) => {
                        assert_eq!(*track, untouched, "an invalid segment changes nothing");
                        if session.assured && track.note_invalid_close(direction, segment) {
                            let kept = now + session.lifetimes.of(LifetimeClass::TcpUnacknowledged);
                            session.deadline = session.deadline.min(kept);
                        }
                        use portcullis::track::tcp::Fault;
                        let reason = match fault {
                            Fault::State => DropReason::TcpState,
                            Fault::SeqAboveWindow => DropReason::TcpSeqAboveWindow,
                            Fault::AckOfUnseen => DropReason::TcpAckOfUnseen,
                            Fault::SplitHandshake => DropReason::TcpSplitHandshake,
                            Fault::RstBelowWindow => DropReason::TcpRstBelowWindow,
                        };
                        return Some(Verdict::Drop(
                            reason,
                            Tracked {
                                class: Class::Invalid,
                                ..tracked
                            },
                        ));
                    }
                }
            }
            (state, _) => {
                let age = now - session.start;
                *state = match (*state, direction) {
                    (State::Unreplied, Direction::Original) => State::Unreplied,
                    (State::Unreplied, Direction::Reply) => State::Replied,
                    (State::Replied, _)
                        if session.initiator.protocol == 17 && age >= Duration::from_secs(2) =>
                    {
                        State::Stream
                    }
                    (other, _) => other,
                };
                session.assured |= *state != State::Unreplied;
                session.count(direction, bytes, now);
                None
            }
        };
        let lifetimes = session.lifetimes;
        let lifetime = lifetimes.of(session.class());
        session.deadline = now + cap.map_or(lifetime, |cap| lifetime.min(lifetimes.of(cap)));
        Some(Verdict::Forward(tracked))
    }

    /// The verdict on a packet without a session, or the reason why it is invalid.
    fn miss(
        &mut self,
        tuple: &Tuple,
        parsed: &Parsed,
        log: &mut Log,
        verdict: Verdict,
    ) -> Result<Verdict, DropReason> {
        let state = match &parsed.transport {
            Transport::Tcp { segment, .. } => {
                State::Tcp(Track::open(segment).ok_or(DropReason::TcpNoSession)?)
            }
            Transport::IcmpQuery(query) if !query.request => return Err(DropReason::IcmpReplyNoSession),
            _ => State::Unreplied,
        };
        let new = Tracked {
            class: Class::New,
            direction: Some(Direction::Original),
            session: None,
            tolerated: None,
            late: None,
        };
        if self.sessions.len() == self.setup.max_sessions as usize {
            if log.opened.is_empty() {
                self.tally.refused += 1;
                if self.setup.shards == 1 {
                    for session in &self.sessions {
                        assert_eq!(session.worth(), Worth::Assured, "worth less than a new session");
                        assert!(
                            !self.finds_what_expired() || self.now < session.deadline + TICK,
                            "{session:?} has outlived its lifetime"
                        );
                    }
                }
                return Ok(Verdict::Drop(DropReason::TableFull, new));
            }
            self.made_room(log);
        }
        let mut session = Session {
            id: verdict.tracked().session.expect("the packet opens a session"),
            initiator: *tuple,
            lifetimes: self.setup.lifetimes(tuple),
            start: self.now,
            last: self.now,
            deadline: self.now,
            seen_reply: false,
            assured: false,
            state,
            packets: [0; 2],
            bytes: [0; 2],
        };
        session.count(Direction::Original, parsed.ip.total_len, self.now);
        session.deadline += session.lifetimes.of(session.class());
        assert!(
            self.sessions.iter().all(|other| other.id != session.id),
            "a name is used once"
        );
        assert_eq!(log.opened.len(), 1, "the sink hears of a new session");
        self.agrees(&session, &log.opened.remove(0));
        self.tally.opened += 1;
        let tracked = Tracked {
            session: Some(session.id),
            ..new
        };
        self.sessions.push(session);
        Ok(Verdict::Forward(tracked))
    }

    /// Checks who had to go for a new session.
    fn made_room(&mut self, log: &mut Log) {
        assert_eq!(log.ended.len(), 1, "one goes for one that comes: {log:?}");
        let (record, reason) = log.ended.remove(0);
        let session = self.remove(record.id);
        if reason != EndReason::Evicted {
            self.died(&session, &record, reason);
            return;
        }
        self.agrees(&session, &record);
        self.tally.ended += 1;
        self.tally.evicted += 1;
        assert!(
            self.now < session.deadline + TICK,
            "{session:?} had expired before it was evicted"
        );
        let worth = session.worth();
        assert_ne!(worth, Worth::Assured, "{session:?} was worth more than a new one");
        if self.setup.shards > 1 {
            // The bound is on all shards together, but room is made in the newcomer's.
            return;
        }
        for other in &self.sessions {
            assert!(other.worth() >= worth, "{other:?} is worth less than {session:?}");
            assert!(
                !self.finds_what_expired() || self.now < other.deadline + TICK,
                "{other:?} has outlived its lifetime and {session:?} was evicted"
            );
        }
    }

    /// Whether a full table is sure to see what has expired: it takes a bounded number of steps, and each session
    /// that lives on may take one for each level of the wheel.
    fn finds_what_expired(&self) -> bool {
        let alive = self
            .sessions
            .iter()
            .filter(|session| self.now < session.deadline + TICK);
        alive.count() * 6 < 16
    }

    /// An ICMP error: the verdict, or the reason why it is invalid.
    fn related(&self, zone: u16, parsed: &Parsed, verdict: Verdict) -> Result<Verdict, DropReason> {
        let Transport::IcmpError(error) = &parsed.transport else {
            unreachable!();
        };
        let quoted = &error.quoted;
        let (src_port, dst_port, asks) = match quoted.transport {
            QuotedTransport::Ports { src, dst, .. } => (src, dst, None),
            QuotedTransport::IcmpQuery { id, request, .. } => (id, id, Some(request)),
            QuotedTransport::Other | QuotedTransport::Gre(_) => (0, 0, None),
            QuotedTransport::IcmpError => return Err(DropReason::IcmpErrorAboutError),
            QuotedTransport::Fragment => return Err(DropReason::IcmpErrorNoSession),
        };
        let tuple = Tuple {
            zone,
            v6: quoted.version == IpVersion::V6,
            protocol: quoted.protocol,
            src: (quoted.src, src_port),
            dst: (quoted.dst, dst_port),
            asks,
        };
        let found = self
            .sessions
            .iter()
            .find_map(|session| Some((session, session.direction_of(&tuple)?)));
        let Some((session, direction)) = found else {
            return Err(DropReason::IcmpErrorNoSession);
        };
        let absent = verdict.reason() == Some(DropReason::IcmpErrorNoSession);
        if absent {
            assert!(
                self.now >= session.deadline,
                "{session:?} is there at {:?}",
                self.now
            );
            return Err(DropReason::IcmpErrorNoSession);
        }
        assert!(
            self.now < session.deadline + TICK,
            "{session:?} is gone at {:?}",
            self.now
        );
        let tracked = |class| Tracked {
            class,
            direction: Some(direction.opposite()),
            session: Some(session.id),
            tolerated: None,
            late: None,
        };
        if parsed.ip.dst != quoted.src {
            return Ok(Verdict::Drop(
                DropReason::IcmpErrorNotToSender,
                tracked(Class::Invalid),
            ));
        }
        if let (State::Tcp(track), QuotedTransport::Ports { seq: Some(seq), .. }) =
            (&session.state, quoted.transport)
            && !track.may_quote(direction, SeqNum(seq))
        {
            return Ok(Verdict::Drop(
                DropReason::IcmpErrorSequence,
                tracked(Class::Invalid),
            ));
        }
        Ok(Verdict::Forward(tracked(Class::Related)))
    }

    fn find(&self, id: SessionId) -> &Session {
        self.sessions.iter().find(|session| session.id == id).unwrap()
    }

    fn remove(&mut self, id: SessionId) -> Session {
        let place = self.sessions.iter().position(|session| session.id == id);
        self.sessions.remove(place.expect("a session ends once"))
    }

    /// A session ended because its lifetime had passed.
    fn died(&mut self, session: &Session, record: &SessionRecord, reason: EndReason) {
        self.agrees(session, record);
        assert!(
            self.now >= session.deadline,
            "{session:?} ended at {:?}, before its lifetime",
            self.now
        );
        assert_eq!(reason, session.end_of_life());
        self.tally.ended += 1;
        self.tally.expired += 1;
    }

    /// A record against the model's session.
    fn agrees(&self, session: &Session, record: &SessionRecord) {
        let tuple = &session.initiator;
        assert_eq!(record.id, session.id);
        assert_eq!(record.zone, Zone(tuple.zone));
        assert_eq!(record.protocol, tuple.protocol);
        assert_eq!((record.src_port, record.dst_port), (tuple.src.1, tuple.dst.1));
        assert_eq!(record.src.is_ipv6(), tuple.v6);
        assert_eq!(record.state, session.state_name());
        assert_eq!(record.assured, session.assured, "{session:?}");
        assert_eq!([record.original.packets, record.reply.packets], session.packets);
        assert_eq!([record.original.bytes, record.reply.bytes], session.bytes);
        assert_eq!(record.start, self.base + session.start);
        assert_eq!(record.last, self.base + session.last);
        let deadline = self.base + session.deadline;
        assert!(
            deadline <= record.expires && record.expires < deadline + TICK,
            "{session:?} announces its end {:?} late",
            record.expires.checked_duration_since(deadline)
        );
    }

    pub(crate) fn records(&self) -> Vec<SessionRecord> {
        let mut records = Vec::new();
        self.engine.for_each_session(|record| records.push(*record));
        records
    }

    /// Compares all that can be seen of the engine with the model.
    pub(crate) fn compare(&self) {
        let records = self.records();
        assert_eq!(records.len(), self.sessions.len());
        for record in &records {
            self.agrees(self.find(record.id), record);
        }
        let stats = self.engine.stats();
        let ended: u64 = stats.sessions_ended.iter().map(|(_, count)| count).sum();
        assert_eq!(self.engine.sessions(), self.sessions.len());
        assert_eq!(stats.sessions, self.sessions.len());
        assert_eq!(stats.sessions_opened, self.tally.opened);
        assert_eq!(ended, self.tally.ended);
        assert_eq!(stats.sessions_opened - ended, self.sessions.len() as u64);
        assert!(self.sessions.len() <= self.setup.max_sessions as usize);
        for (worth, count) in stats.sessions_by_worth {
            let expected = self
                .sessions
                .iter()
                .filter(|session| session.worth() == worth)
                .count();
            assert_eq!(count, expected, "{worth:?}");
        }
        if let Some(first) = records.iter().map(|record| record.expires).min() {
            let next = self.engine.next_expiry();
            assert!(
                next.is_some_and(|next| next <= first),
                "{next:?} is later than {first:?}"
            );
        }
        self.engine.check_invariants().unwrap();
    }
}
