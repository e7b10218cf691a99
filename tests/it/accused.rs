//! Healthy paths that the report of asymmetric paths must not accuse, each beside one that it must.

use std::time::{Duration, SystemTime};

use crate::support::packets::{ACK, Ends, SYN};
use crate::support::scene::{Scene, dropped_for};
use portcullis::snapshot::RestoreOptions;
use portcullis::{AsymmetryCause as Cause, Evidence};
use portcullis::{DropReason, Verdict};

const ENDS: Ends = Ends::v4(4000, 80);
const ADOPT: &str = "[tcp]\nmidstream = \"adopt\"\n";

/// The waits of a sender that retransmits, in milliseconds (RFC 6298: twice as long each time).
const RETRANSMISSIONS: [u64; 10] = [0, 200, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600];

fn evidence(scene: &Scene) -> Vec<Evidence> {
    let lines = scene.engine.asymmetry().lines;
    lines.iter().map(|line| line.evidence).collect()
}

/// A segment, repeated until its sender gives up.
fn repeat(scene: &mut Scene, ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Verdict {
    let send = |wait: &u64| {
        scene.now += Duration::from_millis(*wait);
        scene.tcp(ends, flags, seq, ack, payload)
    };
    RETRANSMISSIONS.iter().map(send).last().unwrap()
}

#[test]
fn a_segment_that_is_retransmitted_after_a_restart_accuses_nobody() {
    // Dropped packets get no answers; adopted ones may go to a host that no longer exists.
    for toml in ["", ADOPT, "[tcp]\nmidstream = \"reject\"\n"] {
        let mut scene = Scene::new(toml);
        for port in 0..13 {
            let ends = Ends::v4(4000 + port, 80);
            let verdict = repeat(&mut scene, ends, ACK, 1_000, 2_000, b"GET / HTTP/1.1");
            assert_eq!(verdict.is_forward(), toml == ADOPT);
        }
        assert_eq!(evidence(&scene), [], "{toml}");
    }
}

#[test]
fn packets_in_flight_at_a_restart_accuse_no_path() {
    for toml in ["", ADOPT] {
        let mut scene = Scene::new(toml);
        for number in 0..50 {
            let _ = scene.tcp(ENDS, ACK, 1_000, 2_000 + number * 1_400, b"");
            scene.now += Duration::from_millis(15);
        }
        let _ = repeat(&mut scene, ENDS, ACK, 1_000, 2_000 + 49 * 1_400, b"next");
        assert_eq!(evidence(&scene), [], "{toml}");
    }
    // If both directions arrive, the flow was moved here.
    let mut scene = Scene::new("");
    let _ = repeat(&mut scene, ENDS, ACK, 1_000, 2_000, b"ask");
    let _ = repeat(&mut scene, ENDS.back(), ACK, 2_000, 1_000, b"answer");
    assert_eq!(scene.engine.asymmetry().lines[0].cause(), Cause::FlowMoved);
    assert_eq!(evidence(&scene), [Evidence::BeginningUnseen]);
}

#[test]
fn an_end_that_goes_on_receiving_what_never_passes_is_named() {
    for toml in ["", ADOPT] {
        let mut scene = Scene::new(toml);
        for number in 0..50 {
            let _ = scene.tcp(ENDS, ACK, 1_000, 2_000 + number * 1_400, b"");
            scene.now += Duration::from_millis(100);
        }
        assert_eq!(evidence(&scene), [Evidence::OneDirectionOnly], "{toml}");
        assert_eq!(
            scene.engine.asymmetry().lines[0].cause(),
            Cause::RoutingAsymmetry
        );
    }
}

/// The answer to a SYN, as often as it is repeated.
fn answered(scene: &mut Scene) -> Vec<Evidence> {
    let verdict = repeat(scene, ENDS.back(), SYN | ACK, 500, 101, b"");
    dropped_for(&verdict, DropReason::TcpSynAckWithoutSyn);
    evidence(scene)
}

#[test]
fn an_answer_to_a_syn_that_never_came_is_named() {
    let mut scene = Scene::new("");
    assert_eq!(answered(&mut scene), [Evidence::SynAckWithoutSyn]);
    // Long after its SYN was dropped here, another one was answered.
    let mut scene = Scene::new("policy.default = \"deny\"");
    dropped_for(&scene.tcp(ENDS, SYN, 100, 0, b""), DropReason::PolicyDeny);
    scene.wait(70);
    assert_eq!(answered(&mut scene), [Evidence::SynAckWithoutSyn]);
}

#[test]
fn an_answer_to_a_syn_that_the_policy_has_dropped_accuses_nobody() {
    for default in ["deny", "reject"] {
        let mut scene = Scene::new(&format!("policy.default = \"{default}\""));
        assert!(!scene.tcp(ENDS, SYN, 100, 0, b"").is_forward());
        assert_eq!(answered(&mut scene), []);
    }
}

#[test]
fn an_answer_to_a_syn_for_which_there_was_no_room_accuses_nobody() {
    let mut scene = Scene::new("[table]\nmax_sessions = 16\nshards = 1\n");
    for port in 0..16 {
        scene.handshake(Ends::v4(5_000 + port, 80));
    }
    dropped_for(&scene.tcp(ENDS, SYN, 100, 0, b""), DropReason::TableFull);
    assert_eq!(answered(&mut scene), []);
}

#[test]
fn an_answer_to_a_syn_whose_session_has_ended_here_accuses_nobody() {
    // Evicted by a flood.
    let mut scene = Scene::new("[table]\nmax_sessions = 16\nshards = 1\n");
    scene.pass(ENDS, SYN, 100, 0, b"");
    for port in 0..100 {
        scene.pass(Ends::v4(5_000 + port, 80), SYN, 100, 0, b"");
    }
    assert_eq!(answered(&mut scene), []);
    // Ended by its lifetime.
    let mut scene = Scene::new("");
    scene.pass(ENDS, SYN, 100, 0, b"");
    assert_eq!(scene.wait(31).ended.len(), 1);
    assert_eq!(answered(&mut scene), []);
}

#[test]
fn a_flood_of_dropped_syns_makes_no_answer_an_accusation() {
    let mut scene = Scene::new("policy.default = \"deny\"\ntable.max_sessions = 64");
    assert!(!scene.tcp(ENDS, SYN, 100, 0, b"").is_forward());
    for port in 0..60_000 {
        let other = Ends {
            src: 77,
            ..Ends::v4(port, 80)
        };
        assert!(!scene.tcp(other, SYN, 100, 0, b"").is_forward());
    }
    assert_eq!(answered(&mut scene), []);
}

#[test]
fn a_handshake_whose_answer_was_dropped_here_accuses_nobody() {
    for (answer, expected) in [
        (Some(777), vec![]),
        (None, vec![Evidence::AckWithoutSynAck]),
    ] {
        let mut scene = Scene::new("");
        scene.pass(ENDS, SYN, 100, 0, b"");
        if let Some(ack) = answer {
            assert!(
                !scene
                    .tcp(ENDS.back(), SYN | ACK, 500, ack, b"")
                    .is_forward()
            );
        }
        for _ in 0..20 {
            dropped_for(
                &scene.tcp(ENDS, ACK, 101, 501, b""),
                DropReason::TcpAckWithoutSynAck,
            );
            scene.now += Duration::from_millis(600);
        }
        assert_eq!(evidence(&scene), expected);
    }
}

/// Acknowledgments of data that is unknown to a session: a few in a row, then the last one
/// repeatedly.
fn acknowledge(scene: &mut Scene) -> Vec<Evidence> {
    for number in 1..5 {
        let verdict = scene.tcp(ENDS, ACK, 101, 501 + number * 900, b"");
        dropped_for(&verdict, DropReason::TcpAckOfUnseen);
        scene.now += Duration::from_millis(20);
    }
    let _ = repeat(scene, ENDS, ACK, 101, 501 + 4 * 900, b"next");
    evidence(scene)
}

#[test]
fn only_a_session_that_knows_all_that_has_passed_is_a_witness() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    let saved = scene.engine.save(scene.now, SystemTime::UNIX_EPOCH);
    assert_eq!(acknowledge(&mut scene), [Evidence::UnseenDataAcknowledged]);

    // Restored from a file that is older than the data.
    let mut restored = Scene::new("");
    let (at, options) = (SystemTime::UNIX_EPOCH, RestoreOptions::default());
    let done = restored.engine.restore(&saved, restored.now, at, options);
    assert_eq!(done.unwrap().sessions, 1);
    assert_eq!(acknowledge(&mut restored), []);
    // Saved again, the session is like any other, and stays unchanged.
    let again = restored.engine.save(restored.now, at);
    assert_eq!(
        Scene::new("")
            .engine
            .restore(&again, restored.now, at, options)
            .unwrap()
            .sessions,
        1
    );

    // Data has passed that the session's check would have dropped.
    let mut counting = Scene::new("[checks]\ntcp_seq_above_window = \"count\"\n");
    counting.handshake(ENDS);
    let far = counting.pass(ENDS.back(), ACK, 501 + 4_000, 101, &[0; 900]);
    assert_eq!(far.tolerated, Some(DropReason::TcpSeqAboveWindow));
    assert_eq!(acknowledge(&mut counting), []);
}

#[test]
fn one_segment_beyond_the_known_data_accuses_no_path() {
    // The flow took another path for a while: its session here is old, and its server is silent.
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    let verdict = repeat(&mut scene, ENDS, ACK, 101, 50_501, b"ask");
    dropped_for(&verdict, DropReason::TcpAckOfUnseen);
    assert_eq!(evidence(&scene), []);
}

/// An attacker that guesses addresses and ports can forge an acknowledgment, but not a number near
/// those of its sender.
#[test]
fn a_forged_acknowledgment_accuses_no_path() {
    for (seq, expected) in [
        (101, vec![Evidence::UnseenDataAcknowledged]),
        (101_u32.wrapping_sub(2_000), vec![]),
        (101_u32.wrapping_sub(1_000_000_000), vec![]),
    ] {
        let mut scene = Scene::new("");
        scene.handshake(ENDS);
        for number in 0..20 {
            let verdict = scene.tcp(ENDS, ACK, seq, 50_000 + number * 900, b"");
            dropped_for(&verdict, DropReason::TcpAckOfUnseen);
            scene.now += Duration::from_millis(700);
        }
        assert_eq!(evidence(&scene), expected, "{seq}");
    }
    // The acknowledgment does not make a session give up its numbers either.
    let scene = Scene::new("[tcp]\nasymmetric = \"bypass\"\n");
    scene.handshake(ENDS);
    dropped_for(
        &scene.tcp(ENDS, ACK, 4_000_000_000, 50_000, b""),
        DropReason::TcpAckOfUnseen,
    );
    assert!(!scene.record().bypassed);
}
