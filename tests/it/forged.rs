//! Forged segments: an attacker that guesses addresses and ports, but no sequence numbers, does no
//! harm.

use std::time::Duration;

use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, tcp};
use crate::support::scene::{Received, Scene, dropped_for, segment};
use etherparse::TcpOptionElement;
use portcullis::event::EndReason;
use portcullis::{DropReason, SessionRecord, Verdict};

const ENDS: Ends = Ends::v4(4000, 80);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asserts that a session is unchanged, except for the packets that it has counted.
#[track_caller]
fn unchanged(after: &SessionRecord, before: &SessionRecord) {
    let mut expected = *before;
    (expected.original, expected.reply) = (after.original, after.reply);
    expected.history = after.history;
    assert_eq!(*after, expected);
}

/// Returns the remaining lifetime of the session.
fn left(scene: &Scene) -> Duration {
    scene.record().expires.duration_since(scene.now)
}

/// A connection whose windows are scaled to 4 MiB, and the next number of each end.
fn wide(scene: &Scene) -> [u32; 2] {
    let options = [
        TcpOptionElement::SelectiveAcknowledgementPermitted,
        TcpOptionElement::WindowScale(7),
    ];
    let (client, server) = (3_123_456_789, 1_987_654_321);
    let window = 32_768;
    for (ends, flags, seq, ack, options, payload) in [
        (ENDS, SYN, client, 0, &options[..], &b""[..]),
        (ENDS.back(), SYN | ACK, server, client + 1, &options, b""),
        (ENDS, ACK, client + 1, server + 1, &[], b"hello"),
        (ENDS.back(), ACK, server + 1, client + 6, &[], b"world"),
        (ENDS, ACK, client + 6, server + 6, &[], b""),
    ] {
        let head = Head {
            flags,
            seq,
            ack,
            window,
        };
        assert!(
            scene
                .decide(&tcp(ends, head, options, payload))
                .is_forward()
        );
    }
    [client + 6, server + 6]
}

#[test]
fn a_spray_of_resets_over_all_numbers_changes_nothing() {
    let mut scene = Scene::new("");
    let next = wide(&scene);
    scene.now += seconds(60);
    let before = scene.record();
    let mut passed = 0;
    // One number in each 2 MiB: two of them are in the window of either end.
    for (from, own) in [(ENDS, 0), (ENDS.back(), 1)] {
        for seq in (0..=u32::MAX).step_by(2 << 20) {
            assert_ne!(seq, next[own]);
            for payload in [&b""[..], b"x"] {
                passed += u32::from(scene.tcp(from, RST, seq, 0, payload).is_forward());
            }
        }
    }
    assert!(passed >= 8, "{passed}");
    unchanged(&scene.record(), &before);
    let received = scene.wait(279);
    assert!(
        received.ended.is_empty() && received.resets.is_empty(),
        "{received:?}"
    );
    for (from, own, other) in [(ENDS, 0, 1), (ENDS.back(), 1, 0)] {
        assert!(
            scene
                .tcp(from, ACK, next[own], next[other], b"")
                .is_forward()
        );
    }
}

#[test]
fn an_inexact_reset_changes_nothing_in_any_state() {
    type Way = &'static [(bool, u8, u32, u32)];
    let ways: [(&str, Way); 4] = [
        ("ESTABLISHED", &[]),
        ("FIN_WAIT", &[(true, FIN | ACK, 101, 501)]),
        (
            "CLOSE_WAIT",
            &[(true, FIN | ACK, 101, 501), (false, ACK, 501, 102)],
        ),
        (
            "TIME_WAIT",
            &[
                (true, FIN | ACK, 101, 501),
                (false, FIN | ACK, 501, 102),
                (true, ACK, 102, 502),
            ],
        ),
    ];
    for (state, way) in ways {
        let mut scene = Scene::new("");
        scene.handshake(ENDS);
        for (of_client, flags, seq, ack) in way {
            let from = if *of_client { ENDS } else { ENDS.back() };
            scene.pass(from, *flags, *seq, *ack, b"");
        }
        let before = scene.record();
        assert_eq!(before.state, state);
        scene.now += seconds(1);
        for (from, seq) in [(ENDS, 300), (ENDS.back(), 900), (ENDS.back(), 503)] {
            scene.pass(from, RST, seq, 0, b"");
        }
        unchanged(&scene.record(), &before);
    }
}

#[test]
fn only_an_exact_reset_ends_a_handshake() {
    for (from, seq, ack, closes) in [
        (ENDS, 101, None, true),
        (ENDS, 102, None, false),
        (ENDS, 900, None, false),
        (ENDS.back(), 501, None, true),
        (ENDS.back(), 502, None, false),
        (ENDS.back(), 0, Some(101), false),
        (ENDS.back(), 501, Some(101), true),
    ] {
        let scene = Scene::new("");
        scene.pass(ENDS, SYN, 100, 0, b"");
        scene.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
        let flags = if ack.is_some() { RST | ACK } else { RST };
        scene.pass(from, flags, seq, ack.unwrap_or(0), b"");
        let expected = if closes { "CLOSE" } else { "SYN_RECV" };
        assert_eq!(scene.record().state, expected, "RST {seq} {ack:?}");
    }
    let scene = Scene::new("");
    scene.pass(ENDS, SYN, 100, 0, b"");
    scene.pass(ENDS.back(), SYN | ACK, 3_000_000_000, 101, b"");
    dropped_for(
        &scene.tcp(ENDS.back(), RST, 0, 0, b""),
        DropReason::TcpSeqAboveWindow,
    );
    assert_eq!(scene.record().state, "SYN_RECV");
}

/// A cap limits how far a segment extends a session.
#[test]
fn no_cap_brings_the_end_nearer() {
    let toml = "[lifetimes.tcp]\nestablished = \"1000s\"\nunacknowledged = \"50s\"\n\
                retransmitted = \"20s\"\n";
    let mut scene = Scene::new(toml);
    scene.handshake(ENDS);
    let end = scene.record().expires;
    scene.now += seconds(10);
    // Unacknowledged data, a repeated ACK, a closed window.
    scene.pass(ENDS, ACK, 101, 501, b"data");
    assert_eq!(scene.record().expires, end);
    for _ in 0..6 {
        scene.pass(ENDS, ACK, 105, 501, b"");
    }
    assert_eq!(scene.record().expires, end);
    let closed = Head {
        flags: ACK,
        seq: 501,
        ack: 105,
        window: 0,
    };
    assert!(
        scene
            .decide(&tcp(ENDS.back(), closed, &[], b""))
            .is_forward()
    );
    assert_eq!(scene.record().expires, end);
    // Near the end they extend it by what the cap allows.
    scene.now += seconds(985);
    scene.pass(ENDS.back(), ACK, 501, 105, b"data");
    assert_eq!(left(&scene), seconds(50));
    // Acknowledged data extend it by the whole lifetime.
    scene.pass(ENDS, ACK, 105, 505, b"");
    assert_eq!(left(&scene), seconds(1000));
}

#[test]
fn only_what_closes_brings_the_end_nearer() {
    let toml =
        "[lifetimes.tcp]\nestablished = \"1000s\"\nfin_wait = \"90s\"\nclose_wait = \"80s\"\n";
    for (what, seq, flags, expected) in [
        ("an exact RST", 101, RST, 10),
        ("a FIN", 101, FIN | ACK, 90),
        (
            "a FIN ahead of a hole that its receiver queues",
            300,
            FIN | ACK,
            90,
        ),
        ("a FIN behind the window", 100_000, FIN | ACK, 1000),
        (
            "a FIN beyond what the receiver takes by less than a window",
            1200,
            FIN | ACK,
            1000,
        ),
        ("an inexact RST", 300, RST, 1000),
        ("a SYN", 90_000, SYN, 1000),
    ] {
        let scene = Scene::new(toml);
        scene.handshake(ENDS);
        let ack = if flags & ACK == 0 { 0 } else { 501 };
        let _ = scene.tcp(ENDS, flags, seq, ack, b"");
        assert_eq!(left(&scene), seconds(expected), "{what}");
    }
    // A FIN with an impossible acknowledgment is not queued (RFC 5961 5.2).
    let scene = Scene::new(toml);
    scene.handshake(ENDS);
    let _ = scene.tcp(ENDS, FIN | ACK, 101, 501_u32.wrapping_sub(1_000_000), b"");
    assert_eq!(
        (left(&scene), scene.record().state),
        (seconds(1000), "ESTABLISHED")
    );
    // A new handshake that is forged from both sides does no harm either.
    scene.pass(ENDS, SYN, 9_000_000, 0, b"");
    scene.pass(ENDS.back(), SYN | ACK, 7_000_000, 9_000_001, b"");
    assert_eq!(
        (left(&scene), scene.record().state),
        (seconds(1000), "SYN_RECV")
    );
}

#[test]
fn forged_data_with_an_old_acknowledgment_teach_nothing() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    scene.now += seconds(5);
    for old in [200_000, 1_000_000_000] {
        scene.pass(ENDS, ACK, 901, 501_u32.wrapping_sub(old), &[b'x'; 900]);
        dropped_for(
            &scene.tcp(ENDS.back(), ACK, 501, 1801, b""),
            DropReason::TcpAckOfUnseen,
        );
    }
    // The session does not count as one with data in flight.
    scene.pass(ENDS, ACK, 101, 501, b"");
    assert_eq!(left(&scene), seconds(340));
}

#[test]
fn the_refusal_of_a_fast_open_syn_passes() {
    for again in [None, Some(&b""[..])] {
        for ack in [101, 150, 201] {
            let scene = Scene::new("");
            scene.pass(ENDS, SYN, 100, 0, &[b'x'; 100]);
            if let Some(payload) = again {
                scene.pass(ENDS, SYN, 100, 0, payload);
            }
            scene.pass(ENDS.back(), RST | ACK, 0, ack, b"");
            assert_eq!(scene.engine.sessions(), 0);
        }
    }
}

#[test]
fn a_syn_on_the_same_ports_does_not_break_the_handshake() {
    let first = 2_000_000_000_u32;
    for distance in [1_u32, 1_000, 70_000, 1_000_000_000] {
        for second in [first - distance, first + distance] {
            for answered in [first, second] {
                let scene = Scene::new("");
                scene.pass(ENDS, SYN, first, 0, b"");
                scene.pass(ENDS, SYN, second, 0, b"");
                scene.pass(ENDS.back(), SYN | ACK, 500, answered + 1, b"");
                scene.pass(ENDS, ACK, answered + 1, 501, b"");
                scene.pass(ENDS, ACK, answered + 1, 501, b"GET /");
                assert_eq!(scene.record().state, "ESTABLISHED");
            }
        }
    }
    let scene = Scene::new("");
    scene.pass(ENDS, SYN, 1_000_000, 0, b"");
    scene.pass(ENDS.back(), SYN, 123_456_789, 0, b"");
    scene.pass(ENDS.back(), SYN | ACK, 3_000_000_000, 1_000_001, b"");
    scene.pass(ENDS, ACK, 1_000_001, 3_000_000_001, b"");
    assert_eq!(scene.record().state, "ESTABLISHED");
}

/// Both ends are forged: a SYN of the responder, and the SYN-ACK of the initiator that answers it.
#[test]
fn a_forged_simultaneous_open_does_not_break_the_handshake() {
    let (client, server) = (1_000_000_u32, 3_000_000_000_u32);
    for guess in [
        client - 1,
        client + 1,
        client.wrapping_sub(70_000),
        2_500_000_000,
    ] {
        let scene = Scene::new("");
        scene.pass(ENDS, SYN, client, 0, b"");
        scene.pass(ENDS.back(), SYN, 123_456_789, 0, b"");
        dropped_for(
            &scene.tcp(ENDS, SYN | ACK, guess, 123_456_790, b""),
            DropReason::TcpSeqAboveWindow,
        );
        scene.pass(ENDS.back(), SYN | ACK, server, client + 1, b"");
        scene.pass(ENDS, ACK, client + 1, server + 1, b"GET /");
        assert_eq!(scene.record().state, "ESTABLISHED", "{guess}");
    }
    // With a forged SYN of the initiator as well, whose number the SYN-ACK has.
    let scene = Scene::new("");
    scene.pass(ENDS, SYN, client, 0, b"");
    scene.pass(ENDS.back(), SYN, 123_456_789, 0, b"");
    scene.pass(ENDS, SYN, 77, 0, b"");
    scene.pass(ENDS, SYN | ACK, 77, 123_456_790, b"");
    scene.pass(ENDS.back(), SYN | ACK, server, client + 1, b"");
    scene.pass(ENDS, ACK, client + 1, server + 1, b"GET /");
    assert_eq!(scene.record().state, "ESTABLISHED");
    // A genuine one, after a forged SYN of the initiator, which opened the session.
    let scene = Scene::new("");
    scene.pass(ENDS, SYN, 77, 0, b"");
    scene.pass(ENDS, SYN, client, 0, b"");
    scene.pass(ENDS.back(), SYN, server, 0, b"");
    scene.pass(ENDS, SYN | ACK, client, server + 1, b"");
    scene.pass(ENDS.back(), SYN | ACK, server, client + 1, b"");
    scene.pass(ENDS, ACK, client + 1, server + 1, b"hello");
    assert_eq!(scene.record().state, "ESTABLISHED");
}

/// A liberal session passes the segments, and keeps its state and its deadline.
#[test]
fn a_fin_that_its_receiver_ignores_closes_no_liberal_session() {
    for mode in [
        "mode = \"strict\"",
        "mode = \"liberal\"",
        "mode = \"liberal\"\nmidstream = \"adopt\"",
    ] {
        let scene = Scene::new(&format!("[tcp]\n{mode}\n"));
        scene.handshake(ENDS);
        let before = scene.record().expires;
        for (from, seq, ack) in [
            (ENDS, 3_000_000_000, 2_000_000_000),
            (ENDS.back(), 3_000_000_000, 2_000_000_000),
            (ENDS, 1_000_000_000, 4_000_000_000),
            (ENDS.back(), 4_000_000_000, 4_000_000_000),
            (ENDS, 4_000_000_000, 501),
            (ENDS.back(), 501, 4_000_000_000),
        ] {
            let verdict = scene.tcp(from, FIN | ACK, seq, ack, b"");
            assert!(
                mode == "mode = \"strict\"" || verdict.is_forward(),
                "{verdict:?}"
            );
            assert_eq!(scene.record().state, "ESTABLISHED", "{mode}: {seq} {ack}");
        }
        assert!(scene.record().expires >= before);
        // The genuine ones close it.
        scene.pass(ENDS, FIN | ACK, 101, 501, b"");
        scene.pass(ENDS.back(), FIN | ACK, 501, 102, b"");
        scene.pass(ENDS, ACK, 102, 502, b"");
        assert_eq!(scene.record().state, "TIME_WAIT", "{mode}");
    }
}

#[test]
fn a_forged_handshake_must_guess_the_number_of_the_syn_ack() {
    let scene = Scene::new("");
    let server = 1_234_567_890_u32;
    scene.pass(ENDS, SYN, 100, 0, b"");
    scene.pass(ENDS.back(), SYN | ACK, server, 101, b"");
    for guess in (server - 66_000..=server).chain(server + 2..server + 66_000) {
        let verdict = scene.tcp(ENDS, ACK, 101, guess, b"");
        assert_eq!(
            verdict.reason(),
            Some(DropReason::TcpAckOfUnseen),
            "{guess}"
        );
    }
    assert_eq!(scene.record().state, "SYN_RECV");
    scene.pass(ENDS, ACK, 101, server + 1, b"");
    assert_eq!(scene.record().state, "ESTABLISHED");
}

#[test]
fn a_reset_to_a_session_that_is_over_is_never_answered() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    let received = scene.wait(341);
    assert!(matches!(
        received.ended.as_slice(),
        [(_, EndReason::Timeout)]
    ));
    assert_eq!(received.resets.len(), 2, "a full lifetime of silence");
    for seq in [0, 101, 102, 4_000_000_000] {
        dropped_for(
            &scene.tcp(ENDS, RST, seq, 0, b""),
            DropReason::TcpAfterTimeout,
        );
    }
}

/// Xorshift: equal numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
    ];
}

/// A connection in a table of its own, with the initial numbers of both ends.
struct Victim {
    scene: Scene,
    client: u32,
    server: u32,
}

impl Victim {
    const SMALL: &str = "[table]\nmax_sessions = 16\n[tombstones]\nmax = 16\n\
                         [fragments]\nmax_datagrams = 16\nmax_per_source = 4\n";

    fn send(&self, of_client: bool, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Verdict {
        let (own, other, ends) = if of_client {
            (self.client, self.server, ENDS)
        } else {
            (self.server, self.client, ENDS.back())
        };
        let head = Head {
            flags,
            seq: own.wrapping_add(seq),
            ack: if flags & ACK == 0 {
                0
            } else {
                other.wrapping_add(ack)
            },
            window: 60_000,
        };
        self.scene.decide(&tcp(ends, head, &[], payload))
    }

    fn in_stage(stage: Stage, random: &mut Random) -> Self {
        let victim = Self {
            scene: Scene::new(Self::SMALL),
            client: random.next() as u32,
            server: random.next() as u32,
        };
        let life: [(bool, u8, u32, u32, &[u8]); 8] = [
            (true, SYN, 0, 0, b""),
            (false, SYN | ACK, 0, 1, b""),
            (true, ACK, 1, 1, b""),
            (true, ACK, 1, 1, b"0123456789"),
            (false, ACK, 1, 11, b"0123456789"),
            (true, ACK, 11, 11, b""),
            (true, FIN | ACK, 11, 11, b""),
            (false, ACK, 11, 12, b""),
        ];
        let lines = match stage {
            Stage::SynSent => 1,
            Stage::SynRecv => 2,
            Stage::Established => 6,
            Stage::FinWait => 7,
            Stage::CloseWait => 8,
        };
        for (of_client, flags, seq, ack, payload) in &life[..lines] {
            let verdict = victim.send(*of_client, *flags, *seq, *ack, payload);
            assert!(verdict.is_forward(), "{verdict:?}");
        }
        victim
    }

    /// A segment of an attacker who has found the window of an end, but no exact number.
    fn forge(&self, stage: Stage, of_client: bool, random: &mut Random) -> (u8, u32, u32) {
        const KINDS: [u8; 6] = [SYN, SYN | ACK, RST, RST | ACK, ACK | FIN, ACK];
        let flags = KINDS[random.below(6) as usize];
        let own = if of_client { self.client } else { self.server };
        let base = match (of_client, stage) {
            (false, Stage::SynSent) => random.next() as u32,
            _ => own.wrapping_add(11),
        };
        let seq = match random.below(3) {
            0 => random.next() as u32,
            1 => base.wrapping_add(2 + random.below(50_000) as u32),
            _ => base.wrapping_sub(20 + random.below(50_000) as u32),
        };
        let ack = if flags & ACK == 0 {
            0
        } else {
            random.next() as u32
        };
        let payload: &[u8] = if random.below(4) == 0 {
            b"evil evil evil"
        } else {
            b""
        };
        let head = Head {
            flags,
            seq,
            ack,
            window: (random.next() as u16) >> random.below(16),
        };
        let ends = if of_client { ENDS } else { ENDS.back() };
        let _ = self.scene.decide(&tcp(ends, head, &[], payload));
        (flags, seq, ack)
    }

    /// Returns the verdicts on the rest of the conversation.
    fn goes_on(&self, stage: Stage) -> Vec<Verdict> {
        let rest: &[(bool, u8, u32, u32, &[u8])] = match stage {
            Stage::SynSent => &[
                (false, SYN | ACK, 0, 1, b""),
                (true, ACK, 1, 1, b""),
                (true, ACK, 1, 1, b"xx"),
                (false, ACK, 1, 3, b"yy"),
            ],
            Stage::SynRecv => &[
                (true, ACK, 1, 1, b""),
                (true, ACK, 1, 1, b"xx"),
                (false, ACK, 1, 3, b"yy"),
            ],
            Stage::Established => &[
                (true, ACK, 11, 11, b"xx"),
                (false, ACK, 11, 13, b"yy"),
                (true, ACK, 13, 13, b""),
            ],
            Stage::FinWait | Stage::CloseWait => &[
                (false, ACK, 11, 12, b"yy"),
                (true, ACK, 12, 13, b""),
                (false, FIN | ACK, 13, 12, b""),
                (true, ACK, 12, 14, b""),
            ],
        };
        rest.iter()
            .map(|(of_client, flags, seq, ack, payload)| {
                self.send(*of_client, *flags, *seq, *ack, payload)
            })
            .collect()
    }
}

#[test]
fn blind_forgeries_break_no_connection_and_shorten_no_lifetime() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..20_000 {
        let stage = Stage::ALL[random.below(5) as usize];
        let victim = Victim::in_stage(stage, &mut random);
        let before = victim.scene.record().expires;
        let of_client = random.below(2) == 0;
        let mut forged = Vec::new();
        for _ in 0..1 + random.below(3) {
            forged.push(victim.forge(stage, of_client, &mut random));
            let after = victim.scene.record().expires;
            assert!(
                after >= before,
                "round {round}, {stage:?}, of the client: {of_client}, {forged:?}"
            );
        }
        for verdict in victim.goes_on(stage) {
            assert!(
                verdict.is_forward(),
                "round {round}, {stage:?}, of the client: {of_client}, {forged:?}: {verdict:?}"
            );
        }
    }
}

#[test]
fn a_flood_of_resets_leaves_no_rst_of_our_own() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    let mut received = Received::default();
    for n in 0..200_000_u32 {
        scene.now += Duration::from_micros(100);
        let bytes = segment(ENDS.back(), RST, 502 + n % 999, 0, b"");
        let packet = portcullis::Packet::new(&bytes, scene.now);
        assert!(
            scene
                .engine
                .process_with(packet, &mut received)
                .is_forward()
        );
    }
    assert!(received.resets.is_empty() && received.ended.is_empty());
    let received = scene.wait(60);
    assert!(received.resets.is_empty() && received.ended.is_empty());
    scene.pass(ENDS, ACK, 101, 501, b"request");
    scene.pass(ENDS.back(), ACK, 501, 108, b"answer");
    assert_eq!(scene.engine.stats().resets_sent, 0);
}
