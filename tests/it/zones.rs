//! The two directions of a conversation in two zones, and the report of a missing direction.

use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{ACK, Ends, Head, RST, SYN, tcp, udp};
use crate::support::scene::Scene;
use portcullis::snapshot::RestoreOptions;
use portcullis::{AsymmetryCause as Cause, Evidence};
use portcullis::{Config, DropReason, Engine, Packet, Verdict, Zone};

const ENDS: Ends = Ends::v4(4000, 80);

fn engine(toml: &str) -> Engine {
    let text = format!(
        "policy.default = \"allow\"\nasymmetry.packets = 4\n{toml}\n[zones]\neast = 1\nwest = 2\n"
    );
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
    let back =
        |flags, seq, ack, payload: &[u8]| (2, segment(ENDS.back(), flags, seq, ack, payload));
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
        .map(|(zone, bytes)| engine.verdict_only(Packet::new(bytes, now).zone(Zone(*zone))))
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
    // Adopted with the initiator's query.
    let verdicts = decide(&engine, Instant::now(), &packets[3..5]);
    assert!(verdicts[0].is_forward());
    assert_eq!(verdicts[1].reason(), Some(DropReason::OtherZone));
    assert_eq!(engine.sessions(), 1);
}

#[test]
fn a_packet_without_a_session_in_any_zone_begins_one_in_its_own() {
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
        decide(
            &engine,
            now,
            &[(1, segment(ENDS, ACK, 104 + number, 507, b"x"))],
        );
    }
    assert_eq!(engine.asymmetry().lines, []);
    let late = now + Duration::from_secs(2);
    decide(&engine, late, &[(1, segment(ENDS, ACK, 134, 507, b"x"))]);
    // Only a segment that acknowledges more than before proves that the other end has answered.
    assert_eq!(engine.asymmetry().lines, []);
    decide(&engine, late, &[(1, segment(ENDS, ACK, 135, 907, b"x"))]);
    let lines = engine.asymmetry().lines;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].evidence, Evidence::OneDirectionOnly);
}

const BYPASS: &str = "[zones]\na = 1\nb = 2\nc = 3\n[tcp]\nasymmetric = \"bypass\"\n";

/// A connection with the initiator in zone 1 and the responder in zone 2.
fn across(toml: &str) -> Scene {
    let mut scene = Scene::new(toml);
    connect(&mut scene, ENDS);
    scene
}

fn connect(scene: &mut Scene, ends: Ends) {
    scene.zone = Zone(1);
    scene.pass(ends, SYN, 100, 0, b"");
    scene.zone = Zone(2);
    scene.pass(ends.back(), SYN | ACK, 500, 101, b"");
    scene.zone = Zone(1);
    scene.pass(ends, ACK, 101, 501, b"");
    scene.zone = Zone(2);
}

/// Forged segments in a zone, each of another flow.
fn flood(scene: &mut Scene, zone: u16, segments: u32) {
    let before = std::mem::replace(&mut scene.zone, Zone(zone));
    for number in 0..segments {
        let ends = Ends {
            src: 77,
            ..Ends::v4((number % 60_000) as u16 + 1, 80)
        };
        let verdict = scene.tcp(ends, ACK, number, number, b"");
        assert_eq!(verdict.reason(), Some(DropReason::TcpNoSession));
    }
    scene.zone = before;
}

#[test]
fn a_bypassed_connection_is_as_fast_as_any_other() {
    for mode in ["bypass", "report"] {
        let mut scene = across(&BYPASS.replace("bypass", mode));
        // 20,000 packets per second for 3 s, each of which answers the previous one.
        for number in 0..60_000u32 {
            scene.now += Duration::from_micros(50);
            let (seq, payload) = if mode == "bypass" {
                (501 + number * 100, [b'x'; 100].as_slice())
            } else {
                (501, b"".as_slice())
            };
            scene.zone = Zone(2);
            scene.pass(ENDS.back(), ACK, seq, 101, payload);
            scene.zone = Zone(1);
            let ack = seq + payload.len() as u32;
            scene.pass(ENDS, ACK, 101, ack, b"");
        }
        assert_eq!(scene.engine.sessions(), 1, "{mode}");
    }
}

#[test]
fn forged_segments_do_not_starve_bypassed_connections() {
    let mut scene = across(BYPASS);
    for round in 0..300u16 {
        // 30,000 forged segments and 100 healthy packets per second, in one zone.
        flood(&mut scene, 2, 300);
        scene.now += Duration::from_millis(10);
        scene.pass(ENDS.back(), ACK, 501, 101, b"");
        if round % 10 == 0 {
            // Sessions that begin meanwhile continue as well.
            connect(&mut scene, Ends::v4(10_000 + round, 80));
        }
    }
}

#[test]
fn a_flood_in_one_zone_leaves_the_searches_of_the_others() {
    let toml = BYPASS.replace("bypass", "drop");
    for (flooded, found) in [
        (3, DropReason::OtherZone),
        (2, DropReason::TcpSynAckWithoutSyn),
    ] {
        let mut scene = Scene::new(&toml);
        scene.zone = Zone(1);
        scene.pass(ENDS, SYN, 100, 0, b"");
        flood(&mut scene, flooded, 20_000);
        scene.zone = Zone(2);
        let verdict = scene.tcp(ENDS.back(), SYN | ACK, 500, 101, b"");
        assert_eq!(verdict.reason(), Some(found));
    }
}

#[test]
fn a_session_that_moves_to_another_zone_is_found_there() {
    let mut scene = across(BYPASS);
    scene.wait(400);
    assert_eq!(scene.engine.sessions(), 0);
    // Equal ports again, in zone 3: the hint about zone 1 is wrong.
    scene.zone = Zone(3);
    scene.pass(ENDS, SYN, 7_000, 0, b"");
    scene.zone = Zone(2);
    scene.pass(ENDS.back(), SYN | ACK, 9_000, 7_001, b"");
    assert_eq!(scene.record().zone, Zone(3));
}

#[test]
fn bypassed_connections_go_on_through_a_reload_and_a_restart() {
    let mut scene = across(BYPASS);
    flood(&mut scene, 2, 20_000);
    scene.reload(BYPASS);
    flood(&mut scene, 2, 20_000);
    scene.pass(ENDS.back(), ACK, 501, 101, b"");
    // A new engine has to search once.
    let saved = scene.engine.save(scene.now, SystemTime::UNIX_EPOCH);
    let restored = Scene::new(BYPASS);
    let done = restored.engine.restore(
        &saved,
        scene.now,
        SystemTime::UNIX_EPOCH,
        RestoreOptions::default(),
    );
    assert_eq!(done.expect("a sound stream").sessions, 1);
    let mut scene = Scene {
        zone: Zone(2),
        now: scene.now,
        ..restored
    };
    scene.pass(ENDS.back(), ACK, 501, 101, b"");
    flood(&mut scene, 2, 20_000);
    scene.pass(ENDS.back(), ACK, 501, 101, b"");
}

#[test]
fn batches_find_sessions_in_other_zones_like_single_packets() {
    let mut scene = across(BYPASS);
    flood(&mut scene, 2, 20_000);
    // Enough sessions for packets to be decided in batches.
    for port in 0..300 {
        assert!(scene.udp(Ends::v4(port, 53)).is_forward());
    }
    let answer = segment(ENDS.back(), ACK, 501, 101, b"");
    let other = udp(Ends::v4(1, 53), b"ask");
    let packet = |bytes| Packet::new(bytes, scene.now).zone(Zone(2));
    let packets: Vec<_> = (0..40)
        .map(|number| packet(if number % 2 == 0 { &answer } else { &other }))
        .collect();
    let mut verdicts = Vec::new();
    scene.engine.verdicts_only(&packets, &mut verdicts);
    assert!(verdicts.iter().all(Verdict::is_forward), "{verdicts:?}");
    assert_eq!(scene.engine.stats().sessions_bypassed, 1);
}

/// The segments pass in the session's own zone, but their sender has no number of the session.
#[test]
fn a_forged_segment_in_another_zone_accuses_no_path() {
    for (mode, passes) in [("drop", false), ("report", true), ("bypass", true)] {
        let engine = engine(&format!("tcp.asymmetric = \"{mode}\""));
        let own: Vec<_> = conversation()
            .into_iter()
            .map(|(_, bytes)| (1, bytes))
            .collect();
        let now = Instant::now();
        assert!(decide(&engine, now, &own).iter().all(Verdict::is_forward));
        let forged = [(SYN | ACK, 7_000_000), (RST, 600)].map(|(flags, seq)| {
            let ack = if flags & ACK == 0 { 0 } else { 9_000_000 };
            (2, segment(ENDS.back(), flags, seq, ack, b""))
        });
        let verdicts = decide(&engine, now, &forged);
        assert_eq!(
            verdicts.iter().filter(|each| each.is_forward()).count(),
            2 * usize::from(passes),
            "{mode}"
        );
        assert_eq!(engine.asymmetry().lines, [], "{mode}");
        // Segments with the numbers of the session are reported.
        decide(
            &engine,
            now,
            &[(2, segment(ENDS.back(), ACK, 507, 104, b"more"))],
        );
        assert_eq!(engine.asymmetry().lines.len(), 1, "{mode}");
    }
}

#[test]
fn a_reset_ends_a_bypassed_session_in_the_other_zone() {
    // One that refuses the SYN, and one that closes.
    for (passed, flags, seq, ack) in [(1, RST | ACK, 0, 101), (6, RST, 507, 0)] {
        let engine = engine("tcp.asymmetric = \"bypass\"");
        let now = Instant::now();
        decide(&engine, now, &conversation()[..passed]);
        let reset = [(2, segment(ENDS.back(), flags, seq, ack, b""))];
        let verdicts = decide(&engine, now, &reset);
        assert!(verdicts[0].is_forward(), "{verdicts:?}");
        engine.for_each_session(|record| assert_eq!(record.state, "CLOSE"));
        assert_eq!(engine.sessions(), usize::from(passed > 1));
    }
    // No zone has a matching session.
    let engine = engine("tcp.asymmetric = \"bypass\"");
    let stray = [(2, segment(ENDS.back(), RST, 507, 0, b""))];
    let verdicts = decide(&engine, Instant::now(), &stray);
    assert_eq!(verdicts[0].reason(), Some(DropReason::TcpNoSession));
}
