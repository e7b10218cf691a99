//! Sessions that an operator ends or inspects.

use std::time::{Duration, Instant};

use crate::support::packets::{ACK, Ends, Head, SYN, tcp, udp};
use portcullis::config::LifetimeClass;
use portcullis::policy::{PortRange, Protocol};
use portcullis::{
    Config, Discard, DropReason, EndReason, Engine, Packet, Reset, SessionFilter, SessionId,
    SessionRecord, Sink,
};

const WEB: Ends = Ends::v4(40_000, 80);

#[derive(Default)]
struct Told {
    ended: Vec<(u16, EndReason)>,
    resets: Vec<Reset>,
}

impl Sink for Told {
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((session.dst_port, reason));
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let window = 8_192;
    tcp(
        ends,
        Head {
            flags,
            seq,
            ack,
            window,
        },
        &[],
        b"",
    )
}

fn engine(now: Instant) -> Engine {
    let engine = Engine::new(&Config::allow_all()).unwrap();
    for packet in [
        segment(WEB, SYN, 100, 0),
        segment(WEB.back(), SYN | ACK, 900, 101),
        segment(WEB, ACK, 101, 901),
        udp(Ends::v4(40_000, 53), b"?"),
        segment(Ends::v4(40_001, 22), SYN, 500, 0),
    ] {
        assert!(engine.verdict_only(Packet::new(&packet, now)).is_forward());
    }
    engine
}

fn ports(first: u16, last: u16) -> SessionFilter {
    SessionFilter {
        ports: vec![PortRange { first, last }],
        ..SessionFilter::default()
    }
}

fn id_of(engine: &Engine, port: u16) -> SessionId {
    let mut found = None;
    engine.for_each_session(|session| {
        if session.dst_port == port {
            found = Some(session.id);
        }
    });
    found.unwrap()
}

#[test]
fn both_ends_of_a_deleted_connection_get_the_exact_rst() {
    let now = Instant::now();
    let engine = engine(now);
    let mut told = Told::default();
    assert_eq!(engine.end_sessions(&ports(80, 80), now, &mut told), 1);
    assert_eq!(told.ended, [(80, EndReason::Deleted)]);
    let numbers: Vec<u32> = told
        .resets
        .iter()
        .map(|reset| u32::from_be_bytes(reset.bytes()[24..28].try_into().unwrap()))
        .collect();
    assert_eq!(
        numbers,
        [101, 901],
        "to the responder what it expects, and to the initiator"
    );
    assert_eq!(engine.stats().resets_sent, 2);
    engine.check_invariants().unwrap();
}

#[test]
fn a_late_packet_of_a_deleted_session_says_so_and_a_new_one_may_come() {
    let now = Instant::now();
    let engine = engine(now);
    engine.end_sessions(&ports(80, 80), now, &mut Discard);
    let late = engine.verdict_only(Packet::new(&segment(WEB, ACK, 101, 901), now));
    assert_eq!(late.reason(), Some(DropReason::TcpAfterDeletion));
    assert_eq!(
        late.tracked().late.map(|late| late.reason),
        Some(EndReason::Deleted)
    );
    let again = engine.verdict_only(Packet::new(&segment(WEB, SYN, 10_000, 0), now));
    assert!(again.is_forward());
}

#[test]
fn only_what_the_filter_means_ends() {
    let now = Instant::now();
    let engine = engine(now);
    let udp = SessionFilter {
        protocol: Some(Protocol::UDP),
        ..SessionFilter::default()
    };
    let young = SessionFilter {
        min_age: Duration::from_secs(60),
        ..SessionFilter::default()
    };
    let one = SessionFilter {
        ids: vec![id_of(&engine, 22)],
        ..SessionFilter::default()
    };
    let later = now + Duration::from_secs(1);
    for (filter, ended, left) in [
        (young, 0, 3),
        (ports(54, 79), 0, 3),
        (udp, 1, 2),
        (one, 1, 1),
        (SessionFilter::default(), 1, 0),
    ] {
        assert_eq!(
            engine.end_sessions(&filter, later, &mut Discard),
            ended,
            "{filter:?}"
        );
        assert_eq!(engine.sessions(), left);
    }
    assert_eq!(
        engine
            .next_expiry()
            .map(|_| engine.expire_with(later, 100, &mut Discard).ended),
        Some(0)
    );
}

#[test]
fn one_that_is_over_by_its_lifetime_is_not_deleted() {
    let now = Instant::now();
    let engine = engine(now);
    let later = now + Duration::from_secs(86_400);
    assert_eq!(
        engine.end_sessions(&SessionFilter::default(), later, &mut Discard),
        0
    );
    let mut told = Told::default();
    engine.expire_with(later, 100, &mut told);
    assert!(
        told.ended
            .iter()
            .all(|(_, reason)| *reason == EndReason::Timeout)
    );
    assert_eq!(told.ended.len(), 3);
}

#[test]
fn a_session_shows_its_windows_and_its_lifetime() {
    let now = Instant::now();
    let engine = engine(now);
    let found = engine.inspect(id_of(&engine, 80), now).unwrap();
    let [original, reply] = found.sides.unwrap();
    assert_eq!((original.peer.end.0, original.peer.max_ack.0), (101, 901));
    assert_eq!((reply.peer.end.0, reply.peer.max_end.0), (901, 901 + 8_192));
    assert_eq!(found.lifetime.class, LifetimeClass::TcpEstablished);
    assert!(found.left >= found.lifetime_length && !found.evictable && !found.liberal);
    let datagrams = engine.inspect(id_of(&engine, 53), now).unwrap();
    assert!(datagrams.sides.is_none() && datagrams.evictable);
    assert_eq!(
        engine.inspect(SessionId::from_number(u64::MAX).unwrap(), now),
        None
    );
}
