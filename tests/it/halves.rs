//! Partially known connections: adopted midstream, or with one direction on another path.

use std::time::Duration;

use crate::support::packets::{ACK, Ends, FIN, RST, SYN};
use crate::support::scene::{Scene, dropped_for};
use portcullis::{AsymmetryCause as Cause, AsymmetryLine, Evidence};
use portcullis::{Class, Direction, DropReason, Reply, Verdict, Zone};

const ENDS: Ends = Ends::v4(4000, 80);
const ADOPT: &str = "[tcp]\nmidstream = \"adopt\"\n";
const FAR: u32 = 1 << 28;

#[test]
fn a_connection_is_adopted_with_a_packet_of_either_end() {
    for (first, direction) in [(ENDS, Direction::Original), (ENDS.back(), Direction::Reply)] {
        let scene = Scene::new(ADOPT);
        let tracked = scene.pass(first, ACK, 7_000, 9_000, b"data");
        assert_eq!(
            (tracked.class, tracked.direction),
            (Class::New, Some(direction))
        );
        let record = scene.record();
        assert!(record.adopted && !record.resumed && !record.bypassed);
        // The well-known port is that of the responder.
        assert_eq!((record.src_port, record.dst_port), (4000, 80));
        let answer = scene.pass(first.back(), ACK, 9_000, 7_004, b"more");
        assert_eq!(
            (answer.session, answer.class),
            (Some(record.id), Class::Established)
        );
        assert_eq!(scene.engine.stats().sessions_adopted, 1);
    }
}

#[test]
fn a_session_that_only_the_other_end_may_open_is_reversed() {
    let toml = format!(
        "{ADOPT}[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"in\"\naction = \"allow\"\n\
         protocol = \"tcp\"\n\
         source = \"10.0.0.2\"\n"
    );
    let high = Ends::v4(4000, 5000);
    let scene = Scene::new(&toml);
    let tracked = scene.pass(high, ACK, 7_000, 9_000, b"data");
    assert_eq!(tracked.direction, Some(Direction::Reply));
    assert_eq!(
        (scene.record().src_port, scene.record().dst_port),
        (5000, 4000)
    );
}

#[test]
fn an_adopted_session_is_liberal_until_both_ends_are_known_and_then_strict() {
    let scene = Scene::new(ADOPT);
    scene.pass(ENDS, ACK, 7_000, 9_000, b"data");
    // The window of the other end is not known yet.
    scene.pass(ENDS, ACK, 7_004 + 500_000, 9_000, b"far ahead");
    let at = 7_004 + 500_009;
    scene.pass(ENDS.back(), ACK, 9_000, at, b"answer");
    scene.pass(ENDS, ACK, at, 9_006, b"");
    let verdict = scene.tcp(ENDS, ACK, at + FAR, 9_006, b"far");
    dropped_for(&verdict, DropReason::TcpSeqAboveWindow);
    let verdict = scene.tcp(ENDS.back(), ACK, 9_006, at + FAR, b"");
    dropped_for(&verdict, DropReason::TcpAckOfUnseen);
    scene.pass(ENDS, ACK, at, 9_006, b"right");
    assert!(scene.record().assured);
}

#[test]
fn an_adopted_session_passes_policy_first() {
    let deny = "[[policy.rule]]\nname = \"no-web\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
                destination_ports = 80\n";
    let scene = Scene::new(&(ADOPT.to_owned() + deny));
    for ends in [ENDS, ENDS.back()] {
        dropped_for(
            &scene.tcp(ends, ACK, 7_000, 9_000, b"data"),
            DropReason::TcpNoSession,
        );
    }
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn only_an_ack_shows_a_connection() {
    let scene = Scene::new(ADOPT);
    dropped_for(
        &scene.tcp(ENDS, RST, 7_000, 0, b""),
        DropReason::TcpNoSession,
    );
    dropped_for(
        &scene.tcp(ENDS, FIN | ACK, 7_000, 9_000, b""),
        DropReason::TcpNoSession,
    );
    dropped_for(
        &scene.tcp(ENDS, SYN | ACK, 7_000, 9_000, b""),
        DropReason::TcpSynAckWithoutSyn,
    );
}

#[test]
fn a_rule_and_a_zone_say_what_the_middle_of_a_connection_gets() {
    let rule = |value: &str| {
        format!(
            "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             destination_ports = 80\n\
             tcp = {{ midstream = \"{value}\" }}\n"
        )
    };
    let zone = |value: &str| {
        format!("[zones]\nlab = 1\n[tcp.zones]\nlab = {{ midstream = \"{value}\" }}\n")
    };
    for (toml, passes) in [
        (rule("adopt"), true),
        (zone("adopt"), true),
        (zone("adopt") + &rule("drop"), false),
        (zone("drop") + &rule("adopt"), true),
    ] {
        let mut scene = Scene::new(&toml);
        scene.zone = Zone(1);
        assert_eq!(
            scene.tcp(ENDS, ACK, 7_000, 9_000, b"data").is_forward(),
            passes,
            "{toml}"
        );
    }
}

#[test]
fn a_rejected_midstream_packet_gets_a_rst_and_no_session() {
    let scene = Scene::new("[tcp]\nmidstream = \"reject\"");
    for flags in [ACK, FIN | ACK] {
        let verdict = scene.tcp(ENDS, flags, 7_000, 9_000, b"");
        assert!(
            matches!(
                verdict,
                Verdict::Reject(DropReason::TcpNoSession, Reply::TcpReset, _)
            ),
            "{verdict:?}"
        );
    }
    dropped_for(
        &scene.tcp(ENDS, RST, 7_000, 0, b""),
        DropReason::TcpNoSession,
    );
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn after_a_start_live_connections_are_adopted_for_a_while() {
    let mut scene = Scene::new("[tcp]\nfailover = \"30s\"");
    scene.pass(ENDS, ACK, 7_000, 9_000, b"data");
    scene.now += Duration::from_millis(29_999);
    scene.pass(Ends::v4(4001, 80), ACK, 7_000, 9_000, b"data");
    scene.now += Duration::from_millis(1);
    let stranger = Ends::v4(4002, 80);
    dropped_for(
        &scene.tcp(stranger, ACK, 7_000, 9_000, b""),
        DropReason::TcpNoSession,
    );
    // And again on command.
    scene.engine.adopt_for(Duration::from_secs(5), scene.now);
    scene.pass(stranger, ACK, 7_000, 9_000, b"data");
    scene.engine.adopt_for(Duration::ZERO, scene.now);
    dropped_for(
        &scene.tcp(Ends::v4(4003, 80), ACK, 7_000, 9_000, b""),
        DropReason::TcpNoSession,
    );
}

/// Returns a scene with a mode of asymmetric paths.
fn modes(mode: &str) -> Scene {
    Scene::new(&format!(
        "[tcp]\nasymmetric = \"{mode}\"\n[asymmetry]\npackets = 3\n"
    ))
}

/// The packet passes, is marked, and changes nothing.
#[track_caller]
fn reported(verdict: &Verdict, reason: DropReason) {
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().tolerated, Some(reason));
    assert_eq!(verdict.tracked().class, Class::Invalid);
}

#[track_caller]
fn only_line(scene: &Scene) -> AsymmetryLine {
    let report = scene.engine.asymmetry();
    assert_eq!(report.lines.len(), 1, "{report:?}");
    assert_eq!((report.unlisted, report.unnoticed), (0, 0));
    report.lines[0]
}

#[track_caller]
fn says(line: &AsymmetryLine, evidence: Evidence, cause: Cause, packets: u64) {
    assert_eq!(
        (line.evidence, line.cause(), line.packets, line.flows),
        (evidence, cause, packets, 1)
    );
    let prefix = "10.0.0.0/24".parse().unwrap();
    assert_eq!((line.from, line.to), (prefix, prefix));
    assert_eq!(line.missing().is_some(), evidence.is_one_sided());
}

#[test]
fn a_syn_ack_without_its_syn_is_named() {
    let reason = DropReason::TcpSynAckWithoutSyn;
    let answer = |scene: &Scene| scene.tcp(ENDS.back(), SYN | ACK, 500, 101, b"");
    let mut scene = modes("drop");
    for _ in 0..3 {
        dropped_for(&answer(&scene), reason);
        scene.now += Duration::from_secs(1);
    }
    let line = only_line(&scene);
    says(
        &line,
        Evidence::SynAckWithoutSyn,
        Cause::RoutingAsymmetry,
        3,
    );
    assert_eq!(line.last - line.first, Duration::from_secs(2));

    let scene = modes("report");
    reported(&answer(&scene), reason);
    assert_eq!(scene.engine.sessions(), 0);

    let scene = modes("bypass");
    assert!(answer(&scene).is_forward());
    let record = scene.record();
    assert!(record.bypassed && record.adopted);
    assert_eq!((record.src_port, record.dst_port), (4000, 80));
    // The initiator's packets never arrive; the responder continues nevertheless.
    for n in 0..10 {
        scene.pass(ENDS.back(), ACK, 501 + n * 900, 101 + n * 5_000, &[0; 900]);
    }
}

#[test]
fn the_final_ack_without_a_syn_ack_is_named() {
    let reason = DropReason::TcpAckWithoutSynAck;
    let start = |mode| {
        let scene = modes(mode);
        scene.pass(ENDS, SYN, 100, 0, b"");
        scene
    };
    let scene = start("drop");
    for _ in 0..3 {
        dropped_for(&scene.tcp(ENDS, ACK, 101, 501, b""), reason);
    }
    says(
        &only_line(&scene),
        Evidence::AckWithoutSynAck,
        Cause::RoutingAsymmetry,
        3,
    );

    let scene = start("report");
    reported(&scene.tcp(ENDS, ACK, 101, 501, b""), reason);
    assert_eq!(scene.record().state, "SYN_SENT");

    let scene = start("bypass");
    for n in 0..10 {
        scene.pass(ENDS, ACK, 101 + n * 900, 501 + n * 5_000, &[0; 900]);
    }
    let record = scene.record();
    assert!(record.bypassed && !record.adopted && record.state == "ESTABLISHED");
    assert_eq!(scene.engine.stats().sessions_bypassed, 1);
}

#[test]
fn a_reported_connection_passes_to_its_end() {
    // Only the initiator's direction arrives.
    let mut scene = modes("report");
    scene.pass(ENDS, SYN, 100, 0, b"");
    for n in 0..3_000 {
        let reason = if n < 1_000 {
            DropReason::TcpAckWithoutSynAck
        } else {
            DropReason::TcpNoSession
        };
        reported(
            &scene.tcp(ENDS, ACK, 101 + n * 1_000, 501 + n, &[0; 1_000]),
            reason,
        );
        if n % 1_000 == 999 {
            // The session of its SYN has ended meanwhile.
            scene.wait(300);
            assert_eq!(scene.engine.sessions(), 0);
        }
    }
    reported(
        &scene.tcp(ENDS, FIN | ACK, 3_000_101, 501, b""),
        DropReason::TcpNoSession,
    );

    let scene = modes("report");
    scene.pass(ENDS, SYN, 100, 0, b"");
    let reason = DropReason::TcpAckWithoutSynAck;
    dropped_for(
        &scene.tcp(ENDS, FIN | ACK, 101, 501, b""),
        DropReason::TcpState,
    );
    reported(&scene.tcp(ENDS, ACK, 101, 501, b""), reason);
    reported(&scene.tcp(ENDS, FIN | ACK, 101, 501, b"the last"), reason);
    assert_eq!(scene.record().state, "SYN_SENT");

    // Only the responder's direction arrives here, the other one in another zone.
    let mut scene = begun_in_zone_1("[tcp]\nasymmetric = \"report\"");
    reported(
        &scene.tcp(ENDS.back(), SYN | ACK, 500, 101, b""),
        DropReason::OtherZone,
    );
    for n in 0..100 {
        let verdict = scene.tcp(ENDS.back(), ACK, 501 + n * 900, 101, &[0; 900]);
        assert!(
            verdict.is_forward() && verdict.tracked().tolerated.is_some(),
            "{n}: {verdict:?}"
        );
    }
    let last = scene.tcp(ENDS.back(), FIN | ACK, 90_501, 101, b"");
    assert!(last.is_forward(), "{last:?}");
    // The packet passes because of its session in the other zone.
    scene.wait(300);
    let late = scene.tcp(ENDS.back(), FIN | ACK, 90_501, 101, b"");
    dropped_for(&late, DropReason::TcpNoSession);
    // A packet without such a session does not pass.
    let other = Ends {
        src_port: 4001,
        ..ENDS
    };
    dropped_for(
        &scene.tcp(other.back(), FIN | ACK, 1, 1, b""),
        DropReason::TcpNoSession,
    );
}

#[test]
fn acks_of_data_that_never_passed_are_named() {
    let reason = DropReason::TcpAckOfUnseen;
    let start = |mode| {
        let scene = modes(mode);
        scene.handshake(ENDS);
        scene
    };
    let mut scene = start("drop");
    for n in 1..=3 {
        assert_eq!(scene.engine.asymmetry().lines, []);
        dropped_for(&scene.tcp(ENDS, ACK, 101, 501 + n * 900, b""), reason);
        scene.now += Duration::from_millis(500);
    }
    says(
        &only_line(&scene),
        Evidence::UnseenDataAcknowledged,
        Cause::RoutingAsymmetry,
        3,
    );

    let scene = start("report");
    reported(&scene.tcp(ENDS, ACK, 101, 1_401, b""), reason);
    assert!(!scene.record().bypassed);

    let scene = start("bypass");
    for n in 1..=10 {
        scene.pass(ENDS, ACK, 101, 501 + n * 900, b"");
    }
    assert!(scene.record().bypassed);
}

#[test]
fn one_direction_alone_is_named() {
    let send = |scene: &Scene, n: u32| scene.tcp(ENDS, ACK, 101 + n * 900, 501, &[0; 900]);
    let mut scene = modes("drop");
    scene.handshake(ENDS);
    let beyond = (0..20).find(|n| !send(&scene, *n).is_forward()).unwrap();
    for _ in 0..2 {
        // A whole window may be in flight before the first answer: a proof takes at least a second.
        assert_eq!(scene.engine.asymmetry().lines, []);
        scene.wait(1);
        dropped_for(&send(&scene, beyond), DropReason::TcpSeqAboveWindow);
    }
    says(
        &only_line(&scene),
        Evidence::OneDirectionOnly,
        Cause::RoutingAsymmetry,
        3,
    );

    let scene = modes("report");
    scene.handshake(ENDS);
    let verdicts: Vec<_> = (0..20).map(|n| send(&scene, n)).collect();
    reported(&verdicts[beyond as usize], DropReason::TcpSeqAboveWindow);

    let scene = modes("bypass");
    scene.handshake(ENDS);
    assert!((0..20).all(|n| send(&scene, n).is_forward()));
    assert!(scene.record().bypassed);
}

#[test]
fn a_connection_of_which_nothing_but_the_beginning_is_missing_was_moved() {
    let scene = modes("drop");
    dropped_for(
        &scene.tcp(ENDS, ACK, 7_000, 9_000, b"data"),
        DropReason::TcpNoSession,
    );
    assert_eq!(scene.engine.asymmetry().lines, []);
    dropped_for(
        &scene.tcp(ENDS.back(), ACK, 9_000, 7_000, b""),
        DropReason::TcpNoSession,
    );
    says(
        &only_line(&scene),
        Evidence::BeginningUnseen,
        Cause::FlowMoved,
        1,
    );
}

#[test]
fn a_session_that_ended_here_first_is_named() {
    let mut scene = modes("drop");
    scene.handshake(ENDS);
    scene.wait(400);
    for _ in 0..2 {
        assert!(!scene.tcp(ENDS, ACK, 101, 501, b"late").is_forward());
    }
    says(
        &only_line(&scene),
        Evidence::AfterEnd,
        Cause::ExpiredHereFirst,
        2,
    );
}

#[test]
fn symmetric_traffic_is_not_accused() {
    for mode in ["drop", "report", "bypass"] {
        let mut scene = modes(mode);
        for port in 0..20 {
            let ends = Ends::v4(4000 + port, 80);
            scene.handshake(ends);
            for n in 0..5 {
                scene.pass(ends, ACK, 101 + n * 100, 501 + n * 900, &[0; 100]);
                scene.pass(ends.back(), ACK, 501 + n * 900, 201 + n * 100, &[0; 900]);
            }
            // A retransmission, a lost ACK, a keepalive.
            scene.pass(ends, ACK, 501, 4_101, &[0; 100]);
            scene.pass(ends, ACK, 600, 5_001, b"");
            scene.now += Duration::from_secs(20);
            scene.pass(ends, FIN | ACK, 601, 5_001, b"");
            scene.pass(ends.back(), FIN | ACK, 5_001, 602, b"");
            scene.pass(ends, ACK, 602, 5_002, b"");
            assert!(scene.udp(Ends::v4(4000 + port, 53)).is_forward());
        }
        let report = scene.engine.asymmetry();
        assert_eq!((report.lines, report.unlisted), (Vec::new(), 0));
        assert_eq!(scene.engine.stats().sessions_bypassed, 0);
    }
}

#[test]
fn the_report_can_be_forgotten() {
    let mut scene = modes("drop");
    scene.handshake(ENDS);
    scene.wait(400);
    assert!(!scene.tcp(ENDS, ACK, 101, 501, b"late").is_forward());
    only_line(&scene);
    scene.engine.clear_asymmetry();
    assert_eq!(scene.engine.asymmetry().lines, []);
}

const ZONES: &str = "[zones]\na = 1\nb = 2\n";

/// A connection whose SYN arrived in zone 1.
fn begun_in_zone_1(toml: &str) -> Scene {
    let mut scene = Scene::new(&(ZONES.to_owned() + toml));
    scene.zone = Zone(1);
    scene.pass(ENDS, SYN, 100, 0, b"");
    scene.zone = Zone(2);
    scene
}

#[test]
fn a_packet_whose_session_is_in_another_zone_is_named() {
    let reason = DropReason::OtherZone;
    let answer = |scene: &Scene| scene.tcp(ENDS.back(), SYN | ACK, 500, 101, b"");
    let scene = begun_in_zone_1("");
    let verdict = answer(&scene);
    dropped_for(&verdict, reason);
    assert_eq!(verdict.tracked().session, Some(scene.record().id));
    assert_eq!(verdict.tracked().direction, Some(Direction::Reply));
    let line = only_line(&scene);
    says(&line, Evidence::OtherZone, Cause::ApplianceModeMissing, 1);
    assert_eq!((line.zone, line.other_zone), (Zone(2), Some(Zone(1))));

    let scene = begun_in_zone_1("[tcp]\nasymmetric = \"report\"");
    reported(&answer(&scene), reason);
    assert_eq!(scene.record().state, "SYN_SENT");

    let mut scene = begun_in_zone_1("[tcp]\nasymmetric = \"bypass\"");
    assert!(answer(&scene).is_forward());
    scene.zone = Zone(1);
    scene.pass(ENDS, ACK, 101, 501, b"data");
    scene.zone = Zone(2);
    scene.pass(ENDS.back(), ACK, 501, 105, b"more");
    let record = scene.record();
    assert!(record.bypassed && record.state == "ESTABLISHED");
    assert_eq!((record.zone, record.reply.packets), (Zone(1), 2));
}

#[test]
fn a_packet_that_does_not_fit_the_other_zones_session_is_not_taken_for_its_own() {
    let scene = begun_in_zone_1("");
    let stale = scene.tcp(ENDS.back(), SYN | ACK, 500, 777, b"");
    dropped_for(&stale, DropReason::TcpSynAckWithoutSyn);
}

#[test]
fn searches_in_vain_have_a_budget_and_those_that_find_are_free() {
    let reason = DropReason::OtherZone;
    // Five answers in zone 2, of which the first `strangers` belong to no session.
    let found = |toml: &str, strangers: u16| {
        let mut scene = begun_in_zone_1(toml);
        let answers = |scene: &Scene| {
            for port in 0..strangers {
                let stranger = Ends::v4(5000 + port, 80);
                let verdict = scene.tcp(stranger.back(), SYN | ACK, 500, 101, b"");
                dropped_for(&verdict, DropReason::TcpSynAckWithoutSyn);
            }
            (0..5)
                .filter(|_| {
                    scene.tcp(ENDS.back(), SYN | ACK, 500, 101, b"").reason() == Some(reason)
                })
                .count()
        };
        let first = answers(&scene);
        scene.now += Duration::from_secs(1);
        [first, answers(&scene)]
    };
    // Zones `a`, `b` and `default` have two searches each.
    assert_eq!(found("[asymmetry]\nsearches = 6", 0), [5, 5]);
    assert_eq!(found("[asymmetry]\nsearches = 6", 1), [5, 5]);
    assert_eq!(found("[asymmetry]\nsearches = 6", 2), [0, 0]);
    assert_eq!(found("[asymmetry]\nsearches = 0", 0), [0, 0]);
    assert_eq!(found("[asymmetry]\nsearched_zones = 0", 0), [0, 0]);
}

#[test]
fn a_packet_to_adopt_is_first_looked_up_in_other_zones() {
    let mut scene = Scene::new(&(ZONES.to_owned() + ADOPT));
    scene.zone = Zone(1);
    scene.handshake(ENDS);
    scene.zone = Zone(2);
    dropped_for(
        &scene.tcp(ENDS.back(), ACK, 501, 101, b"data"),
        DropReason::OtherZone,
    );
    assert_eq!(scene.engine.sessions(), 1);
    scene.pass(Ends::v4(4001, 80), ACK, 7_000, 9_000, b"data");
    assert_eq!(scene.engine.sessions(), 2);
}

#[test]
fn zones_of_a_group_are_one_address_space() {
    let mut scene = begun_in_zone_1("[zone_groups]\nboth = [\"a\", \"b\"]");
    scene.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
    scene.zone = Zone(1);
    scene.pass(ENDS, ACK, 101, 501, b"data");
    assert_eq!(scene.record().state, "ESTABLISHED");
    assert_eq!(scene.engine.asymmetry().lines, []);
}
