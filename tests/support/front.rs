//! The body of the fuzz target `front`: arbitrary datagrams, and packets in well-formed headers,
//! through the front end and an engine with small tables. With one setting, sessions move to a
//! store and back: the engine asks for them, and answers come at random.
//!
//! The module depends only on the library. So `fuzz/` builds it too, and `tests/it/fuzz_replay.rs`
//! runs it on every stored input.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use portcullis::config::{Config, parse_endpoint};
use portcullis::continuity::{FlowName, StoreWhen, StoredSession, SweepCursor, SweepTime};
use portcullis::geneve::front::{
    Answer, Datagram, FrontEnd, NotSent, Outgoing, Queued, Refusal, Scratch, Tunnel, Waited,
};
use portcullis::geneve::{Header, InnerProtocol, PORT, Provider, TunnelOption, encode};
use portcullis::packet::{Checksums, TcpFlags, Transport, parse};
use portcullis::policy::Action;
use portcullis::{
    Answer as StoreAnswer, Answered, Engine, HoldId, Malformed, Question, Reset, Sink,
};

/// Bytes before each datagram: its kind, an endpoint, a cookie, a port, and the length of the rest
/// (11 bits).
pub(crate) const FRONT_HEADER: usize = 6;
/// In the first byte: the bytes are a packet, and arrive in a header of the provider.
pub(crate) const WRAPPED: u8 = 0x01;
/// In the first byte: time passes first, four seconds per unit of the endpoint.
pub(crate) const SECONDS: u8 = 0x02;
/// In the first byte: the datagram comes from an address that is not allowed.
pub(crate) const STRANGER: u8 = 0x04;
/// In the first byte: the datagram comes from the balancer's other address.
pub(crate) const OTHER_PEER: u8 = 0x08;
/// In the first byte: the configuration is exchanged first.
pub(crate) const RELOAD: u8 = 0x10;
/// In the first byte: the datagram is sent to the appliance's other address.
pub(crate) const OTHER_LOCAL: u8 = 0x20;

/// In the first byte: the datagram was queued for a long time.
pub(crate) const LONG: u8 = 0x40;
/// In the first byte: the datagram was queued for too long.
pub(crate) const TOO_LONG: u8 = 0x80;

const OURS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
const MAX_ENDPOINTS: u32 = 3;
const MAX_ENDS: u32 = 8;

/// In the first byte of all: sessions move to a store and back.
pub(crate) const STORE: u8 = 0x40;
/// In the port: sessions leave the engine for the store before the datagram.
pub(crate) const LEAVE: u8 = 0x01;
/// In the port: a question is answered before the datagram.
pub(crate) const ANSWER: u8 = 0x02;
/// In the port: the answer is another one than the store has.
pub(crate) const WRONG: u8 = 0x04;
/// In the port: the newest question is answered, not the oldest one.
pub(crate) const NEWEST: u8 = 0x08;
/// In the port: the question is answered twice.
pub(crate) const TWICE: u8 = 0x10;

/// The most packets that wait for answers.
const MAX_ASKING: u32 = 8;
/// The most records in the store, and the most questions that are remembered.
const MAX_STORED: usize = 16;

#[derive(Default)]
struct Resets {
    resets: Vec<Reset>,
    questions: VecDeque<Question>,
    released: Vec<HoldId>,
}

impl Sink for Resets {
    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }

    fn released(&mut self, id: HoldId) {
        self.released.push(id);
    }

    fn question(&mut self, question: &Question) {
        if self.questions.len() < MAX_STORED {
            self.questions.push_back(*question);
        }
    }
}

/// The store that sessions move to.
#[derive(Default)]
struct Store(VecDeque<(FlowName, Vec<u8>)>);

impl Store {
    /// Writes the sessions of an engine, which ends them.
    fn take_all(&mut self, engine: &Engine, time: SweepTime, resets: &mut Resets) {
        let when = StoreWhen {
            min_age: Duration::ZERO,
            everything: true,
            ..StoreWhen::default()
        };
        let mut cursor = SweepCursor::default();
        let mut names = Vec::new();
        loop {
            let swept = engine.sweep(&mut cursor, time, &when, |name, stored| {
                let mut bytes = Vec::new();
                stored.encode(&mut bytes);
                names.push((*name, stored.claim()));
                self.0.retain(|(each, _)| each != name);
                self.0.push_back((*name, bytes));
            });
            if swept.round_ended {
                break;
            }
        }
        for (name, mut claim) in names {
            claim.epoch += 1;
            engine.disown(&name, &claim, time, resets);
        }
        let surplus = self.0.len().saturating_sub(MAX_STORED);
        self.0.drain(..surplus);
    }

    /// Returns the answer to a question, or another one.
    fn ask(&self, question: &Question, wrong: bool) -> StoreAnswer {
        let found = self
            .0
            .iter()
            .find(|(name, _)| (*name == question.flow) != wrong);
        match found {
            Some((_, bytes)) => {
                let stored = StoredSession::decode(bytes).expect("it was encoded");
                StoreAnswer::Session(Box::new(stored))
            }
            None if wrong => StoreAnswer::NoStore,
            None => StoreAnswer::Nothing,
        }
    }
}

/// Answers a question, and releases its packets.
fn answer(
    engine: &Engine,
    front: &FrontEnd,
    store: &Store,
    port: u8,
    time: SweepTime,
    resets: &mut Resets,
) {
    let question = if port & NEWEST == 0 {
        resets.questions.pop_front()
    } else {
        resets.questions.pop_back()
    };
    let Some(question) = question else { return };
    let given = store.ask(&question, port & WRONG != 0);
    let effect = engine.answer(question.id, &given, time.now, time.at, resets);
    if port & WRONG != 0 {
        assert_ne!(effect, Answered::Resumed, "of another flow");
    }
    if port & TWICE != 0 {
        let again = engine.answer(question.id, &given, time.now, time.at, resets);
        assert_eq!(again, Answered::Unknown);
    }
    assert!(!engine.holds(question.id));
    for id in resets.released.drain(..) {
        front.release(id);
    }
}

fn config(settings: u8, second: bool) -> Config {
    let mut config = FrontEnd::adapt(Config::default());
    config.table.max_sessions = 8;
    config.continuity.enabled = settings & STORE != 0;
    config.continuity.max_held = MAX_ASKING;
    config.continuity.max_held_per_flow = 4;
    config.continuity.max_questions = 4;
    config.continuity.max_nothing = 16;
    config.policy.default = match (settings & 3, second) {
        (0, _) | (1, true) => Action::Deny,
        (1, false) => Action::Reject,
        _ => Action::Allow,
    };
    config.zones.insert("blue".to_owned(), 1);
    let geneve = &mut config.geneve;
    geneve.provider = Provider::ALL[usize::from(settings >> 2 & 3) % Provider::ALL.len()];
    geneve.max_endpoints = MAX_ENDPOINTS;
    geneve.max_tunnel_ends = MAX_ENDS;
    geneve.inner_mtu = 1_280;
    geneve.mss_clamp = if settings & 0x10 == 0 { 0 } else { 500 };
    geneve.endpoints.insert("0x1".to_owned(), "blue".to_owned());
    if settings & 0x20 == 0 {
        geneve.unknown_endpoints = Some("default".to_owned());
    }
    config
}

/// Returns the header that a provider sends.
fn header(provider: Provider, endpoint: u8, cookie: u8, v6: bool) -> Vec<u8> {
    let id = parse_endpoint(&format!("{endpoint:#x}"))
        .expect("a number")
        .0;
    let long = id.to_be_bytes();
    let short = ((id as u32) << 4).to_be_bytes();
    let cookie = [0, 0, 0, cookie];
    let option = |kind, data| TunnelOption {
        class: provider.class(),
        kind,
        data,
    };
    let options = match provider {
        Provider::Gcp => [option(1, &short[..]), option(2, &long), option(3, &long)],
        _ => [option(1, &long[..]), option(2, &[0; 8]), option(3, &cookie)],
    };
    let protocol = if v6 {
        InnerProtocol::Ipv6
    } else {
        InnerProtocol::Ipv4
    };
    let mut out = vec![0; 64];
    let len = encode(protocol, 0, &options, &mut out).expect("there is room");
    out.truncate(len);
    out
}

/// Checks that a datagram of the appliance is valid for the balancer, and has one of the
/// appliance's source addresses.
fn check_sent(sent: &Outgoing<'_>, made: bool) {
    assert!(OURS.contains(&sent.tunnel.source) && PEERS.contains(&sent.tunnel.destination));
    assert_eq!(sent.tunnel.destination_port, PORT);
    let (_, inner) = Header::parse(sent.payload, |_, _| false).expect("a header");
    if made {
        let parsed = parse(inner.bytes, Checksums::Verify);
        let to_group = parsed == Err(Malformed::SourceAddressNotUnicast);
        assert!(to_group || parsed.is_ok(), "{parsed:?}");
    }
}

/// Checks that a datagram that was queued for a long time opens no session, unless it is a
/// handshake or announced. A datagram that was queued for too long has no effect.
fn shed(
    engine: &Engine,
    front: &FrontEnd,
    queued: Queued<'_>,
    now: Instant,
    scratch: &mut Scratch,
) {
    let before = engine.stats();
    let mut resets = Resets::default();
    let mut answered = 0;
    front.handle_queued_batch(
        engine,
        [queued],
        now,
        scratch,
        &mut resets,
        |_, _, decision, _| {
            answered += 1;
            if queued.waited == Waited::TooLong {
                let refused = NotSent::Refused(Refusal::QueueDelay);
                assert_eq!(decision.answer, Answer::Nothing(refused));
            }
        },
    );
    assert_eq!(answered, 1, "every datagram has one answer");
    let after = engine.stats();
    let opened = after.sessions_opened - before.sessions_opened;
    let inner = Header::parse(queued.datagram.payload, |_, _| false).map(|(_, inner)| inner.bytes);
    let is_handshake = inner.is_ok_and(|inner| {
        parse(inner, Checksums::Trust).is_ok_and(|parsed| {
            let flags = match parsed.transport {
                Transport::Tcp { segment, .. } => Some(segment.flags),
                _ => None,
            };
            flags.is_some_and(|flags| flags.contains(TcpFlags::SYN))
        })
    });
    let may_open = is_handshake || before.expectations > 0;
    assert!(opened <= u64::from(may_open), "{before:?} {after:?}");
    if queued.waited == Waited::TooLong {
        assert_eq!(after, before);
    }
}

/// Runs datagrams, time and reloads. Every datagram has one outcome, and no table grows beyond its
/// bound.
pub(crate) fn front(data: &[u8]) {
    front_resumed(data);
}

/// Runs [`front`], and returns the number of sessions that came back from the store.
pub(crate) fn front_resumed(data: &[u8]) -> u64 {
    let Some((&settings, mut data)) = data.split_first() else {
        return 0;
    };
    let configs = [config(settings, false), config(settings, true)];
    let engine = Engine::with_seed(&configs[0], [1, 2, 3, 4]).expect("the configuration is right");
    let front = FrontEnd::new(&configs[0]).expect("the configuration is right");
    let mut scratches = [Scratch::new(&front), Scratch::new(&front)];
    let mut resets = Resets::default();
    let mut store = Store::default();
    let start = Instant::now();
    let mut now = start;
    let (mut received, mut reloads) = (0, 0);
    while let Some((&[what, endpoint, cookie, port, high, low], rest)) =
        data.split_first_chunk::<FRONT_HEADER>()
    {
        let len = usize::from(u16::from_be_bytes([high & 7, low])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        data = rest;
        if what & RELOAD != 0 {
            reloads += 1;
            let config = &configs[reloads % 2];
            engine
                .reload(config, now, &mut resets)
                .expect("it can be reloaded");
            front.reload(config).expect("it can be reloaded");
        }
        if what & SECONDS != 0 {
            now += Duration::from_secs(u64::from(endpoint) * 4);
            let _ = engine.expire_with(now, 4, &mut resets);
        }
        if settings & STORE != 0 {
            let at = SystemTime::UNIX_EPOCH + now.duration_since(start);
            let time = SweepTime { now, at };
            if port & LEAVE != 0 {
                store.take_all(&engine, time, &mut resets);
            }
            if port & ANSWER != 0 {
                answer(&engine, &front, &store, port, time, &mut resets);
            }
        }
        let payload = if what & WRAPPED != 0 {
            let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
            [
                &header(configs[0].geneve.provider, endpoint, cookie, v6),
                bytes,
            ]
            .concat()
        } else {
            bytes.to_vec()
        };
        let datagram = Datagram {
            source: match what & (STRANGER | OTHER_PEER) {
                0 => PEERS[0],
                OTHER_PEER => PEERS[1],
                _ => Ipv4Addr::new(192, 0, 2, 1),
            },
            source_port: u16::from(port),
            destination: OURS[usize::from(what & OTHER_LOCAL != 0)],
            destination_port: PORT,
            payload: &payload,
        };
        received += 1;
        let before = front.stats();
        let scratch = &mut scratches[usize::from(cookie % 2)];
        if what & (LONG | TOO_LONG) != 0 {
            let waited = if what & TOO_LONG == 0 {
                Waited::Long
            } else {
                Waited::TooLong
            };
            shed(&engine, &front, Queued { datagram, waited }, now, scratch);
            let stats = front.stats();
            assert_eq!(
                (stats.received, stats.outcomes() + stats.waiting),
                (received, received)
            );
            continue;
        }
        match front.handle(&engine, &datagram, now, scratch, &mut resets) {
            Answer::Return => {
                let back = Tunnel {
                    source: datagram.destination,
                    destination: datagram.source,
                    source_port: datagram.source_port,
                    destination_port: PORT,
                };
                assert_eq!(datagram.back(), back);
                assert_eq!(front.stats().returned, before.returned + 1);
                Header::parse(&payload, |_, _| false).expect("what is returned has a header");
            }
            Answer::Send(sent) => check_sent(&sent, front.stats().rewritten == before.rewritten),
            Answer::Nothing(reason) => assert!(!reason.name().is_empty()),
        }
        let waiting = front.stats().waiting;
        let mut released = 0;
        while let Some(answer) = front.next_released(&engine, now, scratch, &mut resets) {
            released += 1;
            match answer {
                // A held datagram is returned unchanged.
                Answer::Send(sent) => check_sent(&sent, false),
                Answer::Nothing(reason) => assert_ne!(reason, NotSent::Held, "held once"),
                Answer::Return => panic!("the caller has no such datagram any more"),
            }
        }
        assert_eq!(front.stats().waiting, waiting - released);
        let asking = front.stats().waiting <= u64::from(configs[0].fragments.max_held + MAX_ASKING);
        assert!(asking, "{:?}", front.stats());
        for reset in resets.resets.drain(..) {
            if let Some(sent) = front.reset(&reset, scratch) {
                check_sent(&sent, true);
                assert!(front.describe(reset.tunnel).is_some());
            }
        }
        let stats = front.stats();
        assert_eq!(
            (stats.received, stats.outcomes() + stats.waiting),
            (received, received),
            "{stats:?}"
        );
        assert!(stats.tunnel_ends <= MAX_ENDS as usize, "{stats:?}");
        assert!(
            stats.endpoints.len() <= 1 + MAX_ENDPOINTS as usize,
            "{stats:?}"
        );
        // This check takes longer than a hundred datagrams.
        if received.is_multiple_of(16) {
            engine
                .check_invariants()
                .expect("the table tells one story");
        }
    }
    engine
        .check_invariants()
        .expect("the table tells one story");
    engine.stats().questions.answered_by(Answered::Resumed)
}
