//! Source validation under flood: the challenged sources, the answers of a real stack, and no state
//! for sources that do not answer.

use std::time::Duration;

use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, tcp, udp};
use crate::support::scene::{Scene, dropped_for, segment};
use etherparse::TcpOptionElement::{
    self, MaximumSegmentSize, Noop, SelectiveAcknowledgementPermitted, Timestamp, WindowScale,
};
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::packet::{Checksums, Segment, SeqNum, TcpFlags, Transport, parse};
use portcullis::{
    ChallengeEvent, Class, Discard, DropReason, EndReason, Packet, Reply, Verdict, Zone,
};

const V4: Ends = Ends::v4(4000, 80);
const V6: Ends = Ends::v6(4000, 80);
const ALWAYS: &str = "[syn_challenge]\nmode = \"always\"";

/// A TCP in SYN-SENT, as in RFC 9293 3.10.7.3.
struct Client {
    ends: Ends,
    iss: u32,
    /// Data in its SYN (RFC 7413).
    data: Vec<u8>,
    options: Vec<TcpOptionElement>,
}

impl Client {
    fn new(ends: Ends, iss: u32) -> Self {
        Self {
            ends,
            iss,
            data: Vec::new(),
            options: Vec::new(),
        }
    }

    fn syn(&self) -> Vec<u8> {
        let head = Head {
            flags: SYN,
            seq: self.iss,
            ack: 0,
            window: 65_535,
        };
        tcp(self.ends, head, &self.options, &self.data)
    }

    /// Answers a SYN-ACK that must not be acceptable.
    fn answers(&self, answer: &Segment) -> Vec<u8> {
        assert_eq!(answer.flags, TcpFlags(SYN | ACK));
        // SND.NXT, with data of the SYN or of an earlier one.
        let next = SeqNum(self.iss).add(1 + 65_535);
        let acceptable = answer.ack.after(SeqNum(self.iss)) && !answer.ack.after(next);
        assert!(
            !acceptable,
            "{:?} is acceptable to {}",
            answer.ack, self.iss
        );
        segment(self.ends, RST, answer.ack.0, 0, b"")
    }
}

/// The cookie of a challenge.
#[track_caller]
fn cookie(verdict: &Verdict) -> SeqNum {
    let Verdict::Reject(DropReason::SynChallenged, Reply::Challenge(cookie), tracked) = verdict
    else {
        panic!("{verdict:?} is no challenge");
    };
    assert_eq!((tracked.class, tracked.session), (Class::New, None));
    *cookie
}

/// Challenges a SYN and returns the answer on the wire.
#[track_caller]
fn challenge(scene: &Scene, syn: &[u8]) -> Vec<u8> {
    let Verdict::Reject(DropReason::SynChallenged, reply, _) = scene.decide(syn) else {
        panic!("not challenged");
    };
    let mut out = [0; MAX_REPLY];
    write_reply_unbudgeted(reply, syn, &mut out)
        .unwrap()
        .to_vec()
}

/// The segment of a packet with correct checksums.
fn read(bytes: &[u8]) -> Segment {
    let Transport::Tcp { segment, .. } = parse(bytes, Checksums::Verify).unwrap().transport else {
        panic!("no TCP");
    };
    segment
}

fn count(scene: &Scene, event: ChallengeEvent) -> u64 {
    let events = scene.engine.stats().challenge_events;
    events.iter().find(|(each, _)| *each == event).unwrap().1
}

/// Validates a client's source.
#[track_caller]
fn validate(scene: &Scene, client: &Client) {
    let answer = read(&challenge(scene, &client.syn()));
    dropped_for(
        &scene.decide(&client.answers(&answer)),
        DropReason::SynValidated,
    );
}

#[test]
fn stacks_of_all_kinds_prove_themselves_and_their_next_syn_passes() {
    let linux = [
        MaximumSegmentSize(1460),
        SelectiveAcknowledgementPermitted,
        Timestamp(1_000, 0),
        Noop,
        WindowScale(7),
    ];
    let windows = [
        MaximumSegmentSize(1460),
        Noop,
        WindowScale(8),
        Noop,
        Noop,
        SelectiveAcknowledgementPermitted,
    ];
    let freebsd = [
        MaximumSegmentSize(1460),
        Noop,
        WindowScale(6),
        SelectiveAcknowledgementPermitted,
        Timestamp(7, 0),
    ];
    for ends in [V4, V6] {
        for (options, data) in [
            (&[][..], 0),
            (&linux, 0),
            (&windows, 0),
            (&freebsd, 0),
            (&linux, 1_000),
            (&[], 1_400),
        ] {
            let mut scene = Scene::new(ALWAYS);
            let client = Client {
                data: vec![7; data],
                options: options.to_vec(),
                ..Client::new(ends, 0xffff_ff00)
            };
            validate(&scene, &client);
            assert_eq!(scene.engine.sessions(), 0);
            scene.now += Duration::from_secs(1);
            let again = scene.decide(&client.syn());
            assert!(again.is_forward(), "{again:?}");
            assert_eq!(scene.engine.sessions(), 1);
            let next = client.iss.wrapping_add(1 + data as u32);
            scene.pass(ends.back(), SYN | ACK, 500, next, b"");
            scene.pass(ends, ACK, next, 501, b"");
            let of = |event| count(&scene, event);
            assert_eq!(of(ChallengeEvent::Challenged), 1);
            assert_eq!(of(ChallengeEvent::Validated), 1);
            assert_eq!(of(ChallengeEvent::Passed), 1);
            assert_eq!(of(ChallengeEvent::Ignored), 0);
            assert_eq!(scene.engine.stats().known_sources, 1);
            scene.engine.check_invariants().unwrap();
        }
    }
}

#[test]
fn a_challenge_is_a_bare_syn_ack_no_larger_than_the_smallest_syn() {
    for (ends, len) in [(V4, 40), (V6, 60)] {
        let scene = Scene::new(ALWAYS);
        let syn = segment(ends, SYN, 100, 0, b"");
        assert_eq!(syn.len(), len);
        let answer = challenge(&scene, &syn);
        assert_eq!(answer.len(), len);
        let (asked, answered) = (
            parse(&syn, Checksums::Verify).unwrap(),
            parse(&answer, Checksums::Verify).unwrap(),
        );
        assert_eq!(
            (answered.ip.src, answered.ip.dst),
            (asked.ip.dst, asked.ip.src)
        );
        assert_eq!(answered.ip.ttl, 64);
        let Transport::Tcp {
            src_port,
            dst_port,
            segment,
        } = answered.transport
        else {
            panic!()
        };
        assert_eq!((src_port, dst_port), (80, 4000));
        assert_eq!((segment.flags, segment.window), (TcpFlags(SYN | ACK), 0));
    }
}

#[test]
fn no_syn_can_be_completed_by_its_cookie_and_its_rst_validates() {
    let scene = Scene::new("[syn_challenge]\nmode = \"always\"\nlifetime = \"1s\"");
    let mut scene = scene;
    for number in 0..20_000_u32 {
        let client = Client::new(
            Ends::v4(number as u16, (number >> 16) as u16 + 1),
            number.wrapping_mul(0x9e37_79b9),
        );
        // `Client::answers` asserts that the cookie is not acceptable.
        validate(&scene, &client);
        scene.now += Duration::from_millis(2_500);
    }
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn a_flood_of_spoofed_syns_leaves_nothing() {
    let scene = Scene::new("[syn_challenge]\nmode = \"always\"\nper_second = 100_000_000");
    let mut syn = segment(V4, SYN, 100, 0, b"");
    let mut random = 1u64;
    for _ in 0..1_000_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        syn[13..16].copy_from_slice(&(random >> 40).to_be_bytes()[5..]);
        syn[20..22].copy_from_slice(&(random as u16).to_be_bytes());
        let packet = Packet::new(&syn, scene.now).offloaded(true);
        let verdict = scene.engine.verdict_only(packet);
        assert_eq!(
            verdict.reason(),
            Some(DropReason::SynChallenged),
            "{verdict:?}"
        );
    }
    let stats = scene.engine.stats();
    assert_eq!((stats.sessions, stats.sessions_opened), (0, 0));
    assert_eq!((stats.known_sources, stats.tombstones), (0, 0));
    assert_eq!(count(&scene, ChallengeEvent::Challenged), 1_000_000);
    scene.engine.check_invariants().unwrap();
}

#[test]
fn guessed_numbers_validate_no_source() {
    let scene = Scene::new(ALWAYS);
    challenge(&scene, &segment(V4, SYN, 100, 0, b""));
    let mut random = 7u64;
    for _ in 0..100_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let guess = scene.tcp(V4, RST, (random >> 32) as u32, 0, b"");
        dropped_for(&guess, DropReason::TcpNoSession);
    }
    assert_eq!(count(&scene, ChallengeEvent::Ignored), 100_000);
    assert_eq!(scene.engine.stats().known_sources, 0);
    cookie(&scene.tcp(V4, SYN, 100, 0, b""));
}

#[test]
fn a_cookie_is_good_for_its_own_conversation_and_for_a_while() {
    let mut scene = Scene::new(&format!("[zones]\nblue = 1\n{ALWAYS}"));
    let number = cookie(&scene.tcp(V4, SYN, 100, 0, b"")).0;
    for other in [
        Ends { src: 3, ..V4 },
        Ends { dst: 3, ..V4 },
        Ends::v4(4001, 80),
        Ends::v4(4000, 81),
        V6,
    ] {
        dropped_for(
            &scene.tcp(other, RST, number, 0, b""),
            DropReason::TcpNoSession,
        );
    }
    // In a zone without challenges the RST is not even compared.
    scene.zone = Zone(1);
    dropped_for(
        &scene.tcp(V4, RST, number, 0, b""),
        DropReason::TcpNoSession,
    );
    assert_eq!(count(&scene, ChallengeEvent::Ignored), 5);
    challenge(&scene, &segment(Ends { src: 9, ..V4 }, SYN, 1, 0, b""));
    dropped_for(
        &scene.tcp(V4, RST, number, 0, b""),
        DropReason::TcpNoSession,
    );
    scene.zone = Zone::DEFAULT;
    // Flags other than RST make no difference, and neither do data.
    dropped_for(
        &scene.tcp(V4, ACK, number, 0, b""),
        DropReason::TcpNoSession,
    );
    scene.now += Duration::from_secs(73);
    dropped_for(
        &scene.tcp(V4, RST, number, 0, b""),
        DropReason::TcpNoSession,
    );
    assert_eq!(scene.engine.stats().known_sources, 0);
    let number = cookie(&scene.tcp(V4, SYN, 100, 0, b"")).0;
    scene.now += Duration::from_secs(4);
    // lwIP sets the ACK flag.
    dropped_for(
        &scene.tcp(V4, RST | ACK, number, 7, b""),
        DropReason::SynValidated,
    );
}

#[test]
fn a_source_is_known_by_its_prefix_for_its_lifetime() {
    let mut scene = Scene::new("[syn_challenge]\nmode = \"always\"\nlifetime = \"60s\"");
    validate(&scene, &Client::new(V4, 1));
    validate(&scene, &Client::new(V6, 1));
    scene.pass(Ends::v4(1, 80), SYN, 5, 0, b"");
    cookie(&scene.tcp(Ends { src: 3, ..V4 }, SYN, 5, 0, b""));
    // Another host of the same /64.
    scene.pass(Ends { src: 3, ..V6 }, SYN, 5, 0, b"");
    let mut far = segment(V6, SYN, 5, 0, b"");
    far[15] = 1;
    let packet = Packet::new(&far, scene.now).offloaded(true);
    cookie(&scene.engine.verdict_only(packet));
    scene.now += Duration::from_secs(59);
    scene.pass(Ends::v4(2, 80), SYN, 5, 0, b"");
    scene.now += Duration::from_secs(2);
    cookie(&scene.tcp(Ends::v4(3, 80), SYN, 5, 0, b""));
}

#[test]
fn a_completed_handshake_makes_its_initiator_known() {
    let scene = Scene::new("");
    scene.pass(V4, SYN, 100, 0, b"");
    scene.pass(V4.back(), SYN | ACK, 500, 101, b"");
    assert_eq!(scene.engine.stats().known_sources, 0);
    scene.pass(V4, ACK, 101, 501, b"");
    assert_eq!(scene.engine.stats().known_sources, 1);
    scene.reload(ALWAYS);
    scene.pass(Ends::v4(4001, 80), SYN, 100, 0, b"");
    // Its responder has not been validated for a SYN of its own.
    cookie(&scene.tcp(Ends::v4(80, 5000).back(), SYN, 100, 0, b""));
    let off = Scene::new("[syn_challenge]\nmode = \"off\"");
    off.handshake(V4);
    assert_eq!(off.engine.stats().known_sources, 0);
}

#[test]
fn a_handshake_whose_last_number_is_guessed_makes_nobody_known() {
    for ack in [500, 400, 1] {
        let scene = Scene::new("");
        scene.pass(V4, SYN, 100, 0, b"");
        scene.pass(V4.back(), SYN | ACK, 500, 101, b"");
        let _ = scene.tcp(V4, ACK, 101, ack, b"");
        assert_eq!(scene.engine.stats().known_sources, 0, "{ack}");
    }
}

#[test]
fn packets_that_need_no_proof_are_not_challenged() {
    let mut scene = Scene::new(ALWAYS);
    assert!(scene.udp(V4).is_forward());
    validate(&scene, &Client::new(V4, 1));
    scene.pass(V4, SYN, 1, 0, b"");
    // The session lives longer than the proof: its SYN may still be repeated.
    scene.reload("[syn_challenge]\nmode = \"always\"\nlifetime = \"1s\"");
    scene.now += Duration::from_secs(2);
    scene.pass(V4, SYN, 1, 0, b"");
    scene.pass(V4.back(), SYN | ACK, 500, 2, b"");
    scene.pass(V4, ACK, 2, 501, b"");
    scene.pass(V4, FIN | ACK, 2, 501, b"");
    scene.pass(V4.back(), FIN | ACK, 501, 3, b"");
    scene.pass(V4, ACK, 3, 502, b"");
    scene.now += Duration::from_secs(2);
    // It replaces a finished session, and takes no additional slot.
    scene.pass(V4, SYN, 1_000_000, 0, b"");
    assert_eq!(scene.engine.stats().sessions_opened, 3);
    assert_eq!(count(&scene, ChallengeEvent::Challenged), 1);
}

#[test]
fn refused_syns_are_never_challenged() {
    for default in ["deny", "reject"] {
        let scene = Scene::new(&format!("[policy]\ndefault = \"{default}\"\n{ALWAYS}"));
        let verdict = scene.tcp(V4, SYN, 100, 0, b"");
        assert_ne!(verdict.reason(), Some(DropReason::SynChallenged));
        assert_eq!(count(&scene, ChallengeEvent::Challenged), 0);
    }
}

#[test]
fn each_zone_has_its_mode() {
    let mut scene = Scene::new(
        "[zones]\nblue = 1\ngreen = 2\n[syn_challenge]\nmode = \"off\"\n\
         [syn_challenge.zones]\nblue = \"always\"\ngreen = \"auto\"",
    );
    scene.pass(V4, SYN, 100, 0, b"");
    scene.zone = Zone(2);
    scene.pass(V4, SYN, 100, 0, b"");
    scene.zone = Zone(1);
    cookie(&scene.tcp(V4, SYN, 100, 0, b""));
    assert_eq!(scene.engine.stats().challenging_zones, [Zone(1)]);
    // A source that is known in one zone is unknown in another.
    validate(&scene, &Client::new(V4, 100));
    scene.reload("[zones]\nblue = 1\ngreen = 2\n[syn_challenge]\nmode = \"always\"");
    scene.pass(V4, SYN, 100, 0, b"");
    scene.zone = Zone(2);
    cookie(&scene.tcp(Ends::v4(1, 2), SYN, 100, 0, b""));
}

#[test]
fn challenges_begin_and_end_with_the_half_open_sessions_of_the_zone() {
    let mut scene = Scene::new(
        "[table]\nmax_sessions = 2000\nshards = 1\n[zones]\nblue = 1\n\
         [lifetimes]\ntcp.syn_sent = \"30s\"\n\
         [syn_challenge]\nstart = 10\nend = 5",
    );
    let syn = |scene: &Scene, port| scene.tcp(Ends::v4(port, 80), SYN, 1, 0, b"");
    // A tenth of its half of the table.
    for port in 0..100 {
        assert!(syn(&scene, port).is_forward(), "{port}");
        if port == 49 {
            scene.now += Duration::from_secs(10);
        }
    }
    for port in 100..1_000 {
        cookie(&syn(&scene, port));
    }
    assert_eq!(scene.engine.sessions(), 100);
    assert_eq!(scene.engine.stats().challenging_zones, [Zone::DEFAULT]);
    // Another zone is calm.
    scene.zone = Zone(1);
    assert!(syn(&scene, 1).is_forward());
    scene.zone = Zone::DEFAULT;
    // After the end of the first half of the half-open sessions there are still 5 percent.
    scene.wait(21);
    assert_eq!(scene.engine.sessions(), 51);
    cookie(&syn(&scene, 100));
    scene.pass(Ends::v4(60, 80).back(), SYN | ACK, 7, 2, b"");
    cookie(&syn(&scene, 100));
    scene.pass(Ends::v4(60, 80), ACK, 2, 8, b"");
    // One of them has completed its handshake: 49 are fewer.
    assert!(scene.engine.stats().challenging_zones.is_empty());
    assert!(syn(&scene, 100).is_forward());
}

#[test]
fn a_zone_has_its_part_of_the_budget() {
    let mut scene =
        Scene::new("[zones]\nblue = 1\n[syn_challenge]\nmode = \"always\"\nper_second = 100");
    let asked = |scene: &Scene| {
        (0..1_000)
            .filter(|port| {
                let verdict = scene.tcp(Ends::v4(*port, 80), SYN, 1, 0, b"");
                if verdict.reason() != Some(DropReason::SynChallenged) {
                    dropped_for(&verdict, DropReason::SynChallengeBudget);
                }
                verdict.reason() == Some(DropReason::SynChallenged)
            })
            .count()
    };
    // Its own quarter, and the half that all zones share.
    assert_eq!(asked(&scene), 75);
    scene.zone = Zone(1);
    assert_eq!(asked(&scene), 25);
    assert_eq!(count(&scene, ChallengeEvent::Unsent), 925 + 975);
    scene.now += Duration::from_millis(100);
    assert_eq!(asked(&scene), 2 + 5);
    // Other answers have a budget of their own.
    assert_eq!(
        scene
            .engine
            .stats()
            .resets_unsent
            .iter()
            .map(|(_, n)| n)
            .sum::<u64>(),
        0
    );
}

#[test]
fn an_overloaded_worker_lets_known_sources_open_sessions() {
    let scene = Scene::new(ALWAYS);
    let shed = |bytes: &[u8]| {
        let packet = Packet::new(bytes, scene.now).sheddable(true);
        scene.engine.verdict_only(packet)
    };
    let syn = segment(V4, SYN, 100, 0, b"");
    dropped_for(&shed(&syn), DropReason::Overload);
    validate(&scene, &Client::new(V4, 100));
    assert!(shed(&syn).is_forward());
    dropped_for(&shed(&udp(V4, b"question")), DropReason::Overload);
}

#[test]
fn a_reload_keeps_what_is_known() {
    let scene = Scene::new(&format!("[zones]\nblue = 1\n{ALWAYS}"));
    validate(&scene, &Client::new(V4, 1));
    let out = cookie(&scene.tcp(Ends { src: 3, ..V4 }, SYN, 1, 0, b""));
    scene.reload(&format!("[zones]\nblue = 1\n{ALWAYS}\nlifetime = \"9m\""));
    scene.pass(V4, SYN, 1, 0, b"");
    let answer = scene.tcp(Ends { src: 3, ..V4 }, RST, out.0, 0, b"");
    dropped_for(&answer, DropReason::SynValidated);
}

#[test]
fn a_loopback_syn_that_nobody_could_answer_passes() {
    let scene = Scene::new(ALWAYS);
    let mut syn = segment(V4, SYN, 100, 0, b"");
    syn[12..20].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 2]);
    let packet = Packet::new(&syn, scene.now).offloaded(true);
    assert!(scene.engine.verdict_only(packet).is_forward());
}

#[test]
fn a_syn_in_fragments_is_challenged_too() {
    let scene = Scene::new(ALWAYS);
    let mut first = segment(V4, SYN, 100, 0, &[7; 28]);
    first[6] = 0x20;
    let packet = Packet::new(&first, scene.now).offloaded(true);
    cookie(&scene.engine.verdict_only(packet));
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn explain_says_who_was_challenged_and_who_has_answered() {
    let scene = Scene::new(ALWAYS);
    let explain = |bytes: &[u8]| {
        let (verdict, steps) = scene
            .engine
            .explain(Packet::new(bytes, scene.now), &mut Discard);
        let lines: Vec<_> = steps.iter().map(ToString::to_string).collect();
        (verdict, lines.join("\n"))
    };
    let client = Client::new(V4, 100);
    let (verdict, steps) = explain(&client.syn());
    assert!(
        steps.contains("the source is unknown: a SYN-ACK that acknowledges"),
        "{steps}"
    );
    let number = cookie(&verdict).0;
    let (_, steps) = explain(&segment(V4, RST, number ^ 1, 0, b""));
    assert!(steps.contains("is not the cookie"), "{steps}");
    let (_, steps) = explain(&segment(V4, RST, number, 0, b""));
    assert!(
        steps.contains("the packet returns the cookie of a challenge"),
        "{steps}"
    );
    let (verdict, steps) = explain(&client.syn());
    assert!(verdict.is_forward());
    assert!(
        steps.contains("the source was validated recently"),
        "{steps}"
    );
}

#[test]
fn sessions_end_as_ever_while_others_are_challenged() {
    let mut scene = Scene::new("");
    scene.handshake(V4);
    scene.reload("[syn_challenge]\nmode = \"always\"\nlifetime = \"1s\"");
    scene.now += Duration::from_secs(5);
    challenge(&scene, &segment(Ends::v4(9, 80), SYN, 1, 0, b""));
    scene.pass(V4, ACK, 101, 501, b"data");
    scene.pass(V4.back(), ACK, 501, 105, b"");
    scene.pass(V4, RST, 105, 0, b"");
    let received = scene.wait(3_600);
    assert_eq!(received.ended.len(), 1);
    assert_ne!(received.ended[0].1, EndReason::Evicted);
}

#[test]
fn a_source_is_known_for_no_less_than_its_lifetime() {
    let mut scene = Scene::new("[syn_challenge]\nmode = \"always\"\nlifetime = \"1s\"");
    for port in 0..20 {
        let ends = Ends::v4(port, 80);
        validate(&scene, &Client::new(ends, 100));
        scene.now += Duration::from_millis(990);
        scene.pass(ends, SYN, 100, 0, b"");
        scene.now += Duration::from_millis(3_370);
    }
}

#[test]
fn a_client_whose_packets_pass_another_zone_first_connects_nevertheless() {
    for mode in [
        "mode = \"strict\"",
        "mode = \"liberal\"",
        "mode = \"liberal\"\nmidstream = \"adopt\"",
    ] {
        let mut scene = Scene::new(&format!(
            "[zones]\nblue = 1\ngreen = 2\n[tcp]\n{mode}\n[syn_challenge]\nmode = \"off\"\n\
             [syn_challenge.zones]\ngreen = \"always\"",
        ));
        let client = Client::new(V4, 5_000);
        scene.zone = Zone(1);
        assert!(scene.decide(&client.syn()).is_forward());
        scene.zone = Zone(2);
        let answer = challenge(&scene, &client.syn());
        scene.zone = Zone(1);
        let verdict = scene.decide(&answer);
        assert!(verdict.is_forward(), "{mode}: {verdict:?}");
        let proof = client.answers(&read(&answer));
        let verdict = scene.decide(&proof);
        assert!(verdict.is_forward(), "{mode}: {verdict:?}");
        scene.zone = Zone(2);
        dropped_for(&scene.decide(&proof), DropReason::SynValidated);
        for zone in [1, 2] {
            scene.zone = Zone(zone);
            assert!(scene.decide(&client.syn()).is_forward(), "{mode}, {zone}");
        }
        for zone in [2, 1] {
            scene.zone = Zone(zone);
            scene.pass(V4.back(), SYN | ACK, 900, 5_001, b"");
        }
        // A repeated, late challenge and answer change nothing.
        let _late = scene.decide(&answer);
        let _late = scene.decide(&proof);
        for zone in [1, 2] {
            scene.zone = Zone(zone);
            scene.pass(V4, ACK, 5_001, 901, b"data");
        }
        let states: Vec<_> = scene
            .records()
            .iter()
            .map(|record| record.assured)
            .collect();
        assert_eq!(states, [true, true], "{mode}");
    }
}

#[test]
fn a_zone_of_few_sessions_is_challenged_before_they_are_used_up() {
    let mut scene = Scene::new(
        "[table]\nmax_sessions = 65536\n[zones]\nblue = 1\n[limits.zones.blue]\n\
         max_sessions = 1000",
    );
    scene.zone = Zone(1);
    for port in 0..100 {
        assert!(
            scene.tcp(Ends::v4(port, 80), SYN, 1, 0, b"").is_forward(),
            "{port}"
        );
    }
    for port in 100..2_000 {
        cookie(&scene.tcp(Ends::v4(port, 80), SYN, 1, 0, b""));
    }
    assert_eq!(scene.engine.stats().challenging_zones, [Zone(1)]);
}
