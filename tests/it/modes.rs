//! TCP modes by rule and zone, checks that only count, and permitted ICMP.

use std::time::{Duration, Instant};

use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, icmp, tcp, udp, unreachable};
use portcullis::{Class, Config, Discard, DropReason, Engine, Packet, Verdict, Zone};

const ENDS: Ends = Ends::v4(4000, 80);

fn engine(toml: &str) -> Engine {
    let text = format!("[policy]\ndefault = \"allow\"\n{toml}");
    let config = Config::from_toml(&text, "test.toml").expect("a configuration");
    Engine::with_seed(&config, [1; 4]).expect("an engine")
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    tcp(
        ends,
        Head {
            flags,
            seq,
            ack,
            window: 1000,
        },
        &[],
        payload,
    )
}

/// Decides packets of a zone, all at one time.
fn decide(engine: &Engine, now: Instant, zone: u16, packets: &[Vec<u8>]) -> Vec<Verdict> {
    packets
        .iter()
        .map(|bytes| engine.verdict_only(Packet::new(bytes, now).zone(Zone(zone))))
        .collect()
}

/// Decides a packet, and returns the last line of its explanation.
fn explained(engine: &Engine, now: Instant, bytes: &[u8]) -> (Verdict, String) {
    let (verdict, steps) = engine.explain(Packet::new(bytes, now), &mut Discard);
    (verdict, steps.last().expect("a step").to_string())
}

fn handshake() -> Vec<Vec<u8>> {
    vec![
        segment(ENDS, SYN, 100, 0, b""),
        segment(ENDS.back(), SYN | ACK, 500, 101, b""),
        segment(ENDS, ACK, 101, 501, b""),
    ]
}

const FAR: u32 = 101 + 100_000;

#[test]
fn a_liberal_session_lets_numbers_outside_the_window_pass_and_counts_them() {
    let engine = engine("[tcp]\nmode = \"liberal\"");
    let now = Instant::now();
    decide(&engine, now, 0, &handshake());
    let verdicts = decide(&engine, now, 0, &[segment(ENDS, ACK, FAR, 501, b"far")]);
    assert!(verdicts[0].is_forward());
    assert_eq!(verdicts[0].tracked().class, Class::Established);
    assert_eq!(
        verdicts[0].tracked().tolerated,
        Some(DropReason::TcpSeqAboveWindow)
    );
    assert_eq!(
        engine.tolerated(),
        [(DropReason::TcpSeqAboveWindow, "default".to_owned(), 1)]
    );
    assert_eq!(engine.stats().dropped_total(), 0);
}

#[test]
fn a_liberal_session_judges_a_rst_as_strictly_as_ever() {
    let engine = engine("[tcp]\nmode = \"liberal\"");
    let now = Instant::now();
    decide(&engine, now, 0, &handshake());
    let verdicts = decide(&engine, now, 0, &[segment(ENDS, RST, FAR, 0, b"")]);
    assert_eq!(verdicts[0].reason(), Some(DropReason::TcpSeqAboveWindow));
}

#[test]
fn the_rule_decides_before_the_zone_and_the_zone_before_the_rest() {
    let engine = engine(
        "[zones]\nlab = 1\n[tcp.zones]\nlab = \"liberal\"\n\
         [[policy.rule]]\nname = \"strict-web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         destination_ports = 443\ntcp = \"strict\"\n",
    );
    let now = Instant::now();
    for (zone, port, passes) in [(0, 80, false), (1, 80, true), (1, 443, false)] {
        let ends = Ends::v4(4000 + zone, port);
        let opening = [
            segment(ends, SYN, 100, 0, b""),
            segment(ends.back(), SYN | ACK, 500, 101, b""),
            segment(ends, ACK, 101, 501, b""),
            segment(ends, ACK, FAR, 501, b"far"),
        ];
        let verdicts = decide(&engine, now, zone, &opening);
        assert_eq!(verdicts[3].is_forward(), passes, "zone {zone} port {port}");
    }
}

#[test]
fn a_zone_that_adopts_picks_a_connection_up_in_its_middle() {
    let engine =
        engine("[zones]\nlab = 1\n[tcp.zones.lab]\nmode = \"liberal\"\nmidstream = \"adopt\"\n");
    let now = Instant::now();
    let stray = [
        segment(ENDS, ACK, 70_000, 9_000, b"data"),
        segment(ENDS.back(), ACK, 9_000, 70_004, b"more"),
    ];
    let verdicts = decide(&engine, now, 0, &stray);
    assert_eq!(
        verdicts[0].reason(),
        Some(DropReason::TcpNoSession),
        "the other zone is strict"
    );
    let verdicts = decide(&engine, now, 1, &stray);
    assert!(verdicts.iter().all(Verdict::is_forward));
    assert_eq!(verdicts[0].tracked().class, Class::New);
    assert_eq!(verdicts[1].tracked().class, Class::Established);
    assert_eq!(verdicts[0].tracked().session, verdicts[1].tracked().session);
    let only_acks = [
        segment(Ends::v4(4001, 80), RST, 1, 0, b""),
        segment(Ends::v4(4002, 80), SYN | ACK, 1, 1, b""),
    ];
    let reasons: Vec<_> = decide(&engine, now, 1, &only_acks)
        .iter()
        .map(Verdict::reason)
        .collect();
    assert_eq!(
        reasons,
        [DropReason::TcpNoSession, DropReason::TcpSynAckWithoutSyn].map(Some),
        "only an ACK shows a connection"
    );
}

#[test]
fn denied_connections_are_not_picked_up_either() {
    let engine = engine(
        "[tcp]\nmode = \"liberal\"\nmidstream = \"adopt\"\n[[policy.rule]]\n\
         name = \"no-web\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
         destination_ports = 80\n",
    );
    let verdicts = decide(
        &engine,
        Instant::now(),
        0,
        &[segment(ENDS, ACK, 70_000, 9_000, b"data")],
    );
    assert!(!verdicts[0].is_forward());
    assert_eq!(engine.sessions(), 0);
}

#[test]
fn a_picked_up_connection_that_nobody_answers_is_evictable_and_short_lived() {
    let engine = engine(
        "[table]\nmax_sessions = 1\nshards = 1\n[tcp]\nmode = \"liberal\"\nmidstream = \"adopt\"\n",
    );
    let now = Instant::now();
    decide(
        &engine,
        now,
        0,
        &[segment(ENDS, ACK, 70_000, 9_000, b"data")],
    );
    let mut expires = None;
    engine.for_each_session(|session| expires = Some(session.expires));
    assert!(
        expires.expect("a session") <= now + Duration::from_secs(301),
        "tcp.unacknowledged"
    );
    let verdicts = decide(&engine, now, 0, &[udp(Ends::v4(5000, 53), b"question")]);
    assert!(
        verdicts[0].is_forward(),
        "a flood of ACKs does not hold the table"
    );
}

#[test]
fn a_check_that_only_counts_lets_pass_and_says_what_it_would_drop_by_which_rule() {
    let engine = engine(
        "[checks]\ntcp_seq_above_window = \"count\"\nicmp_error_not_to_sender = \"count\"\n\
         [[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         destination_ports = 80\n",
    );
    let now = Instant::now();
    decide(&engine, now, 0, &handshake());
    let far = segment(ENDS, ACK, FAR, 501, b"far");
    let verdicts = decide(
        &engine,
        now,
        0,
        &[far.clone(), far, segment(ENDS, ACK, 101, 9_999, b"unseen")],
    );
    assert!(verdicts[0].is_forward() && verdicts[1].is_forward());
    assert_eq!(
        verdicts[0].tracked().tolerated,
        Some(DropReason::TcpSeqAboveWindow)
    );
    assert_eq!(
        verdicts[2].reason(),
        Some(DropReason::TcpAckOfUnseen),
        "the other checks still drop"
    );
    let datagram = udp(Ends::v4(6000, 53), b"question");
    let verdicts = decide(
        &engine,
        now,
        0,
        &[datagram.clone(), unreachable(false, 99, &datagram)],
    );
    assert!(verdicts[1].is_forward());
    assert_eq!(
        engine.tolerated(),
        [
            (DropReason::TcpSeqAboveWindow, "web".to_owned(), 2),
            (DropReason::IcmpErrorNotToSender, "default".to_owned(), 1)
        ]
    );
}

#[test]
fn an_invalid_close_of_each_end_leaves_the_lifetime_as_it_is() {
    let engine = engine("[lifetimes]\ntcp.established = \"1h\"\n[gwlb]\nenabled = false");
    let now = Instant::now();
    decide(&engine, now, 0, &handshake());
    for ends in [ENDS, ENDS.back()] {
        decide(&engine, now, 0, &[segment(ends, RST, FAR, 0, b"")]);
        decide(&engine, now, 0, &[segment(ends, FIN | ACK, FAR, 0, b"")]);
    }
    let mut expires = None;
    engine.for_each_session(|session| expires = Some(session.expires));
    let left = expires.expect("a session") - now;
    assert!(left >= Duration::from_secs(3_600), "{left:?}");
}

#[test]
fn a_redirect_passes_only_where_its_check_only_counts() {
    let now = Instant::now();
    let datagram = udp(ENDS, b"question");
    for (toml, passes) in [("", false), ("[checks]\nicmp_redirect = \"count\"", true)] {
        let engine = engine(toml);
        let redirect = icmp(
            Ends {
                src: 200,
                dst: ENDS.src,
                ..ENDS
            },
            5,
            [0; 4],
            &datagram,
        );
        decide(&engine, now, 0, std::slice::from_ref(&datagram));
        let (verdict, shown) = explained(&engine, now, &redirect);
        let tracked = verdict.tracked();
        assert_eq!(verdict.is_forward(), passes);
        assert_eq!(tracked.class == Class::Related, passes);
        let reason = DropReason::IcmpRedirect;
        assert_eq!(tracked.tolerated, passes.then_some(reason));
        let counted = [(reason, "default".to_owned(), 1)];
        assert_eq!(engine.tolerated(), counted[..usize::from(passes)]);
        let start = match passes {
            true => "verdict: forward, related, reply: tolerated icmp_redirect: ",
            false => "verdict: drop, invalid: icmp_redirect: ",
        };
        assert!(shown.starts_with(start), "{shown}");
    }
}

#[test]
fn a_split_handshake_is_completed_only_where_its_check_only_counts() {
    let now = Instant::now();
    for (toml, passes) in [
        ("", false),
        ("[checks]\ntcp_split_handshake = \"count\"", true),
    ] {
        let engine = engine(toml);
        let story = [
            segment(ENDS, SYN, 100, 0, b""),
            segment(ENDS.back(), SYN, 500, 0, b""),
            segment(ENDS, SYN | ACK, 100, 501, b""),
        ];
        decide(&engine, now, 0, &story);
        let last = segment(ENDS.back(), ACK, 501, 101, b"");
        let (verdict, shown) = explained(&engine, now, &last);
        let reason = DropReason::TcpSplitHandshake;
        let start = match passes {
            true => "verdict: forward, established, reply: tolerated tcp_split_handshake: ",
            false => "verdict: drop, invalid, reply: tcp_split_handshake: ",
        };
        assert!(shown.starts_with(start), "{shown}");
        assert_eq!(verdict.is_forward(), passes);
        assert_eq!(verdict.tracked().tolerated, passes.then_some(reason));
        let counted = [(reason, "default".to_owned(), 1)];
        assert_eq!(engine.tolerated(), counted[..usize::from(passes)]);
        let mut state = None;
        engine.for_each_session(|session| state = Some(session.state));
        assert_eq!(state == Some("ESTABLISHED"), passes, "{state:?}");
    }
}

#[test]
fn a_syn_that_the_policy_denies_does_not_end_the_finished_session() {
    let engine = engine(
        "[[policy.rule]]\nname = \"no-web-from-outside\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
         source_ports = 80\n",
    );
    let now = Instant::now();
    let mut story = handshake();
    story.extend([
        segment(ENDS, ACK | 1, 101, 501, b""),
        segment(ENDS.back(), ACK | 1, 501, 102, b""),
        segment(ENDS, ACK, 102, 502, b""),
    ]);
    decide(&engine, now, 0, &story);
    // The responder opens a connection on the same ports, which the policy denies.
    let verdicts = decide(
        &engine,
        now,
        0,
        &[segment(ENDS.back(), SYN, 90_000, 0, b"")],
    );
    assert_eq!(verdicts[0].reason(), Some(DropReason::PolicyDeny));
    assert_eq!(engine.sessions(), 1);
    assert!(
        decide(
            &engine,
            now,
            0,
            &[segment(ENDS.back(), ACK | 1, 501, 102, b"")]
        )[0]
        .is_forward()
    );
}
