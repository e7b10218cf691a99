//! The two directions of a conversation in two zones, and what the report says of a half that is missing.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use portcullis::asymmetry::{Cause, Evidence};
use portcullis::{Config, DropReason, Engine, Packet, Verdict, Zone};
use support::packets::{ACK, Ends, Head, SYN, tcp};

const ENDS: Ends = Ends::v4(4000, 80);

fn engine(toml: &str) -> Engine {
    let text =
        format!("policy.default = \"allow\"\nasymmetry.packets = 4\n{toml}\n[zones]\neast = 1\nwest = 2\n");
    let config = Config::from_toml(&text, "test.toml").expect("a configuration");
    Engine::with_seed(&config, [1; 4]).expect("an engine")
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    tcp(ends, head, &[], payload)
}

/// Packets of the initiator in zone 1, those of the responder in zone 2.
fn conversation() -> Vec<(u16, Vec<u8>)> {
    let there = |flags, seq, ack, payload: &[u8]| (1, segment(ENDS, flags, seq, ack, payload));
    let back = |flags, seq, ack, payload: &[u8]| (2, segment(ENDS.back(), flags, seq, ack, payload));
    vec![
        there(SYN, 100, 0, b""),
        back(SYN | ACK, 500, 101, b""),
        there(ACK, 101, 501, b""),
        there(ACK, 101, 501, b"ask"),
        back(ACK, 501, 104, b"answer"),
        there(ACK, 104, 507, b""),
    ]
}

fn decide(engine: &Engine, now: Instant, packets: &[(u16, Vec<u8>)]) -> Vec<Verdict> {
    packets
        .iter()
        .map(|(zone, bytes)| engine.process(Packet::new(bytes, now).zone(Zone(*zone))))
        .collect()
}

#[test]
fn a_bypassed_answer_joins_the_session_in_the_other_zone() {
    let engine = engine("tcp.asymmetric = \"bypass\"");
    let verdicts = decide(&engine, Instant::now(), &conversation());
    assert!(verdicts.iter().all(Verdict::is_forward), "{verdicts:?}");
    assert_eq!(engine.sessions(), 1);
    let lines = engine.asymmetry().lines;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (lines[0].evidence, lines[0].zone, lines[0].other_zone),
        (Evidence::OtherZone, Zone(2), Some(Zone(1)))
    );
    assert_eq!(lines[0].cause(), Cause::ApplianceModeMissing);
}

#[test]
fn a_packet_of_a_session_in_the_other_zone_is_not_adopted() {
    let engine = engine("tcp.midstream = \"adopt\"");
    let packets = conversation();
    // Picked up with the initiator's question.
    let verdicts = decide(&engine, Instant::now(), &packets[3..5]);
    assert!(verdicts[0].is_forward());
    assert_eq!(verdicts[1].reason(), Some(DropReason::OtherZone));
    assert_eq!(engine.sessions(), 1);
}

#[test]
fn what_has_a_session_in_no_zone_begins_one_in_its_own() {
    for (toml, first) in [
        ("tcp.asymmetric = \"bypass\"", 1),
        ("tcp.midstream = \"adopt\"", 3),
        ("tcp.midstream = \"adopt\"\nasymmetry.searches = 0", 3),
    ] {
        let engine = engine(toml);
        let verdicts = decide(&engine, Instant::now(), &conversation()[first..=first]);
        assert!(verdicts[0].is_forward(), "{toml}: {verdicts:?}");
        assert_eq!(engine.sessions(), 1, "{toml}");
        assert_eq!(engine.stats().sessions_adopted, 1, "{toml}");
    }
}

#[test]
fn a_bypassed_session_is_named_by_the_first_evidence() {
    let engine = engine("tcp.asymmetric = \"bypass\"");
    let now = Instant::now();
    let there: Vec<_> = conversation()
        .into_iter()
        .filter(|(zone, _)| *zone == 1)
        .collect();
    decide(&engine, now, &there);
    for number in 0u32..10 {
        let data = segment(ENDS, ACK, 104 + number, 507, b"x");
        let verdicts = decide(&engine, now, &[(1, data)]);
        assert!(verdicts[0].is_forward(), "{verdicts:?}");
    }
    let lines = engine.asymmetry().lines;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].evidence, Evidence::AckWithoutSynAck);
}

#[test]
fn a_first_window_in_an_adopted_session_is_no_asymmetry() {
    let engine = engine("tcp.midstream = \"adopt\"");
    let now = Instant::now();
    for number in 0u32..30 {
        decide(&engine, now, &[(1, segment(ENDS, ACK, 104 + number, 507, b"x"))]);
    }
    assert_eq!(engine.asymmetry().lines, []);
    let late = now + Duration::from_secs(2);
    decide(&engine, late, &[(1, segment(ENDS, ACK, 134, 507, b"x"))]);
    let lines = engine.asymmetry().lines;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].evidence, Evidence::OneDirectionOnly);
}
