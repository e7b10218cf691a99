//! The ends of sessions: RSTs of a timeout, answers to late packets, and reloads.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::support::packets::{ACK, Ends, FIN, RST, SYN, TcpPacket, tcp_packet};
use crate::support::scene::{Scene, config, dropped_for, segment};
use portcullis::config::ConfigErrorCause;
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::packet::SeqNum;
use portcullis::{
    Class, Direction, Discard, DropReason, EndReason, Reply, Reset, TunnelRef, Unsent, Verdict,
    Zone,
};

const ENDS: Ends = Ends::v4(4000, 80);

/// Longer than any default lifetime.
const LONG: u64 = 400;

/// The RST from one end of a conversation to the other as a real stack would send it.
fn rst(from: Ends, seq: u32, ack: u32) -> TcpPacket {
    let address = |host: u8| -> IpAddr {
        if from.v6 {
            [0x2001, 0x0db8, 0, 0, 0, 0, 0, u16::from(host)].into()
        } else {
            [10, 0, 0, host].into()
        }
    };
    TcpPacket {
        src: SocketAddr::new(address(from.src), from.src_port),
        dst: SocketAddr::new(address(from.dst), from.dst_port),
        ttl: 64,
        seq,
        ack: Some(ack),
        rst: true,
        others: false,
        bare: true,
    }
}

fn read(resets: &[Reset]) -> Vec<TcpPacket> {
    resets
        .iter()
        .map(|reset| tcp_packet(reset.bytes()))
        .collect()
}

#[test]
fn each_end_of_an_idle_connection_gets_the_number_that_it_has_acknowledged() {
    for ends in [ENDS, Ends::v6(4000, 80)] {
        let mut scene = Scene::new("");
        scene.handshake(ends);
        scene.pass(ends, ACK, 101, 501, b"ten bytes.");
        scene.pass(ends.back(), ACK, 501, 111, b"twenty bytes, unread");
        let received = scene.wait(LONG);
        assert_eq!(received.ended[0].1, EndReason::Timeout);
        // The responder has acknowledged 111, the initiator 501 but not the 20 bytes in flight.
        assert_eq!(
            read(&received.resets),
            [rst(ends, 111, 501), rst(ends.back(), 501, 111)]
        );
        let directions: Vec<_> = received
            .resets
            .iter()
            .map(|reset| reset.direction)
            .collect();
        assert_eq!(directions, [Direction::Original, Direction::Reply]);
        let record = &received.ended[0].0;
        let mut resets = received.resets.iter();
        assert!(resets.all(|reset| (reset.session, reset.rule) == (record.id, record.rule)));
        assert_eq!(scene.engine.stats().resets_sent, 2);
    }
}

#[test]
fn the_numbers_go_on_across_the_wrap_of_the_sequence_space() {
    let mut scene = Scene::new("");
    let (client, server) = (u32::MAX - 1, u32::MAX);
    scene.pass(ENDS, SYN, client, 0, b"");
    scene.pass(ENDS.back(), SYN | ACK, server, client + 1, b"");
    scene.pass(ENDS, ACK, client + 1, 0, b"over the edge");
    scene.pass(ENDS.back(), ACK, 0, 12, b"and here");
    scene.pass(ENDS, ACK, 12, 8, b"");
    let received = scene.wait(LONG);
    assert_eq!(
        read(&received.resets),
        [rst(ENDS, 12, 8), rst(ENDS.back(), 8, 12)]
    );
}

#[test]
fn a_half_closed_connection_is_told_too() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    scene.pass(ENDS, FIN | ACK, 101, 501, b"");
    scene.pass(ENDS.back(), ACK, 501, 102, b"still here");
    assert_eq!(scene.record().state, "CLOSE_WAIT");
    let received = scene.wait(LONG);
    assert_eq!(
        read(&received.resets),
        [rst(ENDS, 102, 501), rst(ENDS.back(), 501, 102)]
    );

    // The FIN alone, before it is acknowledged.
    scene.handshake(ENDS);
    scene.pass(ENDS, FIN | ACK, 101, 501, b"");
    assert_eq!(scene.record().state, "FIN_WAIT");
    let received = scene.wait(LONG);
    assert_eq!(
        read(&received.resets),
        [rst(ENDS, 101, 501), rst(ENDS.back(), 501, 101)]
    );
}

#[test]
fn embryonic_and_closed_sessions_end_without_rsts() {
    /// A segment: whether the responder sends it, flags, seq, ack.
    type Segment = (bool, u8, u32, u32);
    let closes: [(&str, &[Segment]); 5] = [
        ("SYN_SENT", &[(false, SYN, 100, 0)]),
        (
            "SYN_RECV",
            &[(false, SYN, 100, 0), (true, SYN | ACK, 500, 101)],
        ),
        ("SYN_SENT2", &[(false, SYN, 100, 0), (true, SYN, 500, 0)]),
        (
            "CLOSE",
            &[
                (false, SYN, 100, 0),
                (true, SYN | ACK, 500, 101),
                (false, ACK, 101, 501),
                (true, RST, 501, 0),
            ],
        ),
        (
            "TIME_WAIT",
            &[
                (false, SYN, 100, 0),
                (true, SYN | ACK, 500, 101),
                (false, ACK, 101, 501),
                (false, FIN | ACK, 101, 501),
                (true, FIN | ACK, 501, 102),
                (false, ACK, 102, 502),
            ],
        ),
    ];
    for (state, story) in closes {
        let mut scene = Scene::new("");
        for (back, flags, seq, ack) in story {
            let ends = if *back { ENDS.back() } else { ENDS };
            scene.pass(ends, *flags, *seq, *ack, b"");
        }
        assert_eq!(scene.record().state, state);
        let received = scene.wait(LONG);
        assert_eq!(
            (received.ended.len(), received.resets.len()),
            (1, 0),
            "{state}"
        );
    }
    let mut scene = Scene::new("");
    assert!(scene.udp(ENDS).is_forward() && scene.udp(ENDS.back()).is_forward());
    assert_eq!(scene.wait(LONG).resets, []);
}

#[test]
fn the_rule_says_before_the_zone_and_the_zone_before_the_rest_whether_ends_are_told() {
    let rule = |value| {
        format!(
            "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             destination_ports = 80\n\
             tcp = {{ timeout_reset = {value} }}\n"
        )
    };
    let zone =
        |value| format!("[zones]\nlab = 1\n[tcp.zones]\nlab = {{ timeout_reset = {value} }}\n");
    let global = "[tcp]\ntimeout_reset = false\n";
    for (toml, told) in [
        (String::new(), true),
        (global.to_owned(), false),
        (zone(false), false),
        (rule(false), false),
        (global.to_owned() + &rule(true), true),
        (zone(false) + &rule(true), true),
        (zone(true) + &rule(false), false),
    ] {
        let mut scene = Scene::new(&toml);
        scene.zone = Zone(1);
        scene.handshake(ENDS);
        let received = scene.wait(LONG);
        assert_eq!(received.resets.len(), if told { 2 } else { 0 }, "{toml}");
        assert!(received.resets.iter().all(|reset| reset.zone == Zone(1)));
    }
}

#[test]
fn each_rst_goes_out_in_the_newest_tunnel_of_its_direction() {
    let mut scene = Scene::new("[engine]\ntunnel_references = true");
    let mut send = |ends, tunnel, flags, seq, ack| {
        scene.tunnel = TunnelRef(tunnel);
        scene.pass(ends, flags, seq, ack, b"");
    };
    send(ENDS, 7, SYN, 100, 0);
    send(ENDS.back(), 9, SYN | ACK, 500, 101);
    send(ENDS, 8, ACK, 101, 501);
    // A packet without a reference removes none.
    send(ENDS, 0, ACK, 101, 501);
    let tunnels = |resets: &[Reset]| {
        resets
            .iter()
            .map(|reset| reset.tunnel.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(tunnels(&scene.wait(LONG).resets), [8, 9]);
}

#[test]
fn a_direction_without_a_tunnel_uses_that_of_the_other() {
    for (toml, expected) in [("[engine]\ntunnel_references = true", [5, 5]), ("", [0, 0])] {
        let mut scene = Scene::new(toml);
        scene.pass(ENDS, SYN, 100, 0, b"");
        scene.tunnel = TunnelRef(5);
        scene.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
        scene.tunnel = TunnelRef::NONE;
        scene.pass(ENDS, ACK, 101, 501, b"");
        let resets = scene.wait(LONG).resets;
        assert_eq!([resets[0].tunnel.0, resets[1].tunnel.0], expected);
    }
}

/// A connection that has expired a while ago.
fn expired(toml: &str) -> Scene {
    let mut scene = Scene::new(toml);
    scene.handshake(ENDS);
    assert_eq!(scene.wait(LONG).ended.len(), 1);
    scene
}

#[test]
fn a_late_packet_gets_the_rst_that_its_sender_accepts() {
    let scene = expired("");
    let late = segment(ENDS, ACK, 101, 501, b"hello?");
    let verdict = scene.decide(&late);
    let Verdict::Reject(DropReason::TcpAfterTimeout, reply, tracked) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(reply, Reply::TcpResetAt(SeqNum(501)));
    assert_eq!(
        (tracked.class, tracked.direction),
        (Class::Invalid, Some(Direction::Original))
    );
    let mut buffer = [0; MAX_REPLY];
    let written = tcp_packet(write_reply_unbudgeted(reply, &late, &mut buffer).unwrap());
    assert_eq!((written.seq, written.ack, written.rst), (501, None, true));
    assert_eq!(
        (written.src, written.dst),
        (rst(ENDS.back(), 0, 0).src, rst(ENDS.back(), 0, 0).dst)
    );
    // An acknowledgment that neither end can have sent is answered with the known number.
    for forged in [9_999, 400] {
        let verdict = scene.tcp(ENDS, ACK, 101, forged, b"");
        assert!(
            matches!(
                verdict,
                Verdict::Reject(_, Reply::TcpResetAt(SeqNum(501)), _)
            ),
            "{verdict:?}"
        );
    }
    assert_eq!(scene.engine.stats().resets_sent, 2 + 3);
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn the_reason_says_how_long_ago_the_session_ended_and_why() {
    let mut scene = expired("");
    scene.now += Duration::from_millis(61_250);
    let verdict = scene.tcp(ENDS.back(), ACK, 501, 101, b"late");
    let late = verdict.tracked().late.unwrap();
    assert_eq!(late.reason, EndReason::Timeout);
    assert!(
        Duration::from_millis(61_250).abs_diff(late.ago()) < Duration::from_millis(100),
        "{late:?}"
    );
    assert_eq!(verdict.tracked().direction, Some(Direction::Reply));
}

#[test]
fn a_late_packet_is_dropped_where_the_settings_say_so() {
    let scene = expired("[tcp]\nlate = \"drop\"");
    dropped_for(
        &scene.tcp(ENDS, ACK, 101, 501, b"late"),
        DropReason::TcpAfterTimeout,
    );
    dropped_for(
        &scene.tcp(ENDS, FIN | ACK, 101, 501, b""),
        DropReason::TcpAfterTimeout,
    );
}

#[test]
fn a_late_packet_is_readmitted_through_policy_where_the_settings_say_so() {
    let readmit = "[tcp]\nlate = \"readmit\"\n";
    let scene = expired(readmit);
    let verdict = scene.tcp(ENDS.back(), ACK, 501, 101, b"late");
    assert!(verdict.is_forward());
    assert_eq!(verdict.tracked().direction, Some(Direction::Reply));
    let record = scene.record();
    assert!(record.resumed && record.adopted);
    assert_eq!(
        (record.src_port, record.dst_port),
        (4000, 80),
        "the initiator is who it was"
    );
    let stats = scene.engine.stats();
    assert_eq!((stats.sessions_resumed, stats.sessions_adopted), (1, 1));
    scene.pass(ENDS, ACK, 101, 505, b"it goes on");

    let scene = expired(readmit);
    scene.reload(&format!(
        "{readmit}[[policy.rule]]\nname = \"no-web\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
         destination_ports = 80\n"
    ));
    let verdict = scene.tcp(ENDS.back(), ACK, 501, 101, b"late");
    dropped_for(&verdict, DropReason::PolicyDeny);
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn a_rst_is_never_answered() {
    for late in ["reset", "drop", "readmit"] {
        let scene = expired(&format!("[tcp]\nlate = \"{late}\""));
        for flags in [RST, RST | ACK] {
            dropped_for(
                &scene.tcp(ENDS, flags, 101, 501, b""),
                DropReason::TcpAfterTimeout,
            );
        }
        assert_eq!(scene.engine.stats().resets_sent, 2);
    }
}

#[test]
fn the_challenge_ack_of_each_end_earns_one_more_rst() {
    let scene = expired("[tcp]\nlate = \"drop\"");
    for (ends, seq, ack) in [(ENDS, 101, 501), (ENDS.back(), 501, 101)] {
        let verdict = scene.tcp(ends, ACK, seq, ack, b"");
        let expected = Reply::TcpResetAt(SeqNum(ack));
        let Verdict::Reject(DropReason::TcpAfterTimeout, reply, _) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(reply, expected);
        dropped_for(
            &scene.tcp(ends, ACK, seq, ack, b""),
            DropReason::TcpAfterTimeout,
        );
    }
    assert_eq!(scene.engine.stats().resets_sent, 4);
}

#[test]
fn a_session_is_remembered_for_its_time_and_within_the_bound() {
    let mut scene = expired("[tombstones]\nlifetime = \"60s\"");
    scene.now += Duration::from_millis(59_999);
    assert_eq!(
        scene.tcp(ENDS, ACK, 101, 501, b"").reason(),
        Some(DropReason::TcpAfterTimeout)
    );
    scene.now += Duration::from_millis(1);
    dropped_for(
        &scene.tcp(ENDS, ACK, 101, 501, b""),
        DropReason::TcpNoSession,
    );

    let mut scene = Scene::new("[tombstones]\nmax = 2");
    for port in 1..=3 {
        scene.handshake(Ends::v4(port, 80));
        scene.wait(1);
    }
    scene.wait(LONG);
    let reasons = [1, 2, 3].map(|port| scene.tcp(Ends::v4(port, 80), ACK, 101, 501, b"").reason());
    let remembered = reasons
        .iter()
        .filter(|reason| **reason == Some(DropReason::TcpAfterTimeout));
    assert_eq!(remembered.count(), 2, "{reasons:?}");
    assert_eq!(scene.engine.stats().tombstones, 2);
}

#[test]
fn a_packet_of_an_unknown_session_gets_nothing() {
    let scene = expired("");
    let stranger = Ends::v4(4001, 80);
    dropped_for(
        &scene.tcp(stranger, ACK, 101, 501, b"data"),
        DropReason::TcpNoSession,
    );
    dropped_for(
        &scene.tcp(stranger, FIN | ACK, 101, 501, b""),
        DropReason::TcpNoSession,
    );
    dropped_for(
        &scene.tcp(stranger, SYN | ACK, 101, 501, b""),
        DropReason::TcpSynAckWithoutSyn,
    );
}

#[test]
fn a_new_connection_on_the_same_ports_is_nobodys_past() {
    let scene = expired("");
    scene.handshake(ENDS);
    assert!(scene.pass(ENDS, ACK, 101, 501, b"data").late.is_none());
}

#[test]
fn rsts_beyond_the_budgets_are_counted() {
    for (toml, sent, by_destination, overall) in [
        ("", 4, 0, 0),
        ("[resets]\nper_destination = 1", 2, 2, 0),
        ("[resets]\noverall = 3", 3, 0, 1),
        ("[resets]\nper_destination = 0", 0, 4, 0),
    ] {
        let mut scene = Scene::new(toml);
        scene.handshake(ENDS);
        scene.handshake(Ends::v4(4001, 80));
        let received = scene.wait(LONG);
        assert_eq!(received.resets.len(), sent, "{toml}");
        let unsent =
            [Unsent::DestinationBudget, Unsent::OverallBudget].map(|reason| scene.unsent(reason));
        assert_eq!(unsent, [by_destination, overall], "{toml}");
        assert_eq!(scene.engine.stats().resets_sent, sent as u64);
    }
    // A late packet without a budget is dropped silently, and counted too.
    let scene = expired("[resets]\nper_destination = 0");
    dropped_for(
        &scene.tcp(ENDS, ACK, 101, 501, b"late"),
        DropReason::TcpAfterTimeout,
    );
    assert_eq!(scene.unsent(Unsent::DestinationBudget), 3);
}

#[test]
fn without_a_sink_a_rst_is_unsent() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    scene.now += Duration::from_secs(LONG);
    let _ = scene.engine.expire_with(scene.now, 10, &mut Discard);
    assert_eq!(
        (
            scene.unsent(Unsent::NoSink),
            scene.engine.stats().resets_sent
        ),
        (2, 0)
    );
}

#[test]
fn an_end_that_was_never_seen_gets_no_guess() {
    let mut scene = Scene::new("[tcp]\nmidstream = \"adopt\"");
    scene.pass(ENDS, ACK, 7_000, 9_000, b"data");
    let received = scene.wait(LONG);
    // The responder has sent nothing; the initiator has acknowledged 9000.
    let only = tcp_packet(received.resets[0].bytes());
    assert_eq!(
        (received.resets.len(), only.seq, only.ack),
        (1, 9_000, None)
    );
    assert_eq!(received.resets[0].direction, Direction::Reply);
    assert_eq!(scene.unsent(Unsent::NumberUnknown), 1);
}

#[test]
fn an_ended_session_is_reported_before_its_rsts_and_a_reload_sends_them_too() {
    let deny = "[[policy.rule]]\nname = \"no-web\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
                destination_ports = 80\n";
    let scene = Scene::new("");
    scene.handshake(ENDS);
    let other = Ends::v4(4000, 443);
    scene.handshake(other);
    let preview = scene.engine.preview(&config(deny), scene.now).unwrap();
    assert_eq!(scene.engine.sessions(), 2, "a preview changes nothing");
    let (done, received) = scene.reload(deny);
    assert_eq!(preview, received.ended);
    assert_eq!((done.judged, done.revoked), (2, 1));
    assert_eq!(received.ended[0].1, EndReason::Revoked);
    assert_eq!(
        read(&received.resets),
        [rst(ENDS, 101, 501), rst(ENDS.back(), 501, 101)]
    );
    scene.pass(other, ACK, 101, 501, b"lives on");
    let verdict = scene.tcp(ENDS, ACK, 101, 501, b"late");
    assert_eq!(verdict.reason(), Some(DropReason::TcpAfterRevocation));
}

#[test]
fn a_reload_that_keeps_lets_sessions_live_that_it_would_not_admit() {
    let keep = "[policy]\ndefault = \"deny\"\non_reload = \"keep\"\n";
    let scene = Scene::new("");
    scene.handshake(ENDS);
    let (done, received) = scene.reload(keep);
    assert_eq!((done.kept, done.revoked, received.ended.len()), (1, 0, 0));
    scene.pass(ENDS, ACK, 101, 501, b"lives on");
    dropped_for(
        &scene.tcp(Ends::v4(4001, 80), SYN, 100, 0, b""),
        DropReason::PolicyDeny,
    );
}

#[test]
fn lifetimes_of_rule_port_and_zone_hold_at_once_after_a_reload() {
    let head = "[zones]\nlab = 1\n[lifetimes]\ntcp.established = \"100s\"\n";
    let web = "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
               destination_ports = 80\n";
    for by in [
        "rule = \"web\"",
        "protocol = \"tcp\"\nports = 80",
        "zone = \"lab\"",
        "address = \"10.0.0.2\"",
    ] {
        let with = |seconds: u64| {
            format!("{head}[[lifetimes.override]]\n{by}\ntcp.established = \"{seconds}s\"\n{web}")
        };
        let start = |seconds| {
            let mut scene = Scene::new(&with(seconds));
            scene.zone = Zone(1);
            scene.handshake(ENDS);
            assert_eq!(scene.wait(50).ended.len(), 0);
            scene
        };
        // Shorter, and over already.
        let scene = start(90);
        let (done, received) = scene.reload(&with(20));
        assert_eq!(
            (done.expired, received.ended.len(), received.resets.len()),
            (1, 1, 2),
            "{by}"
        );
        assert_eq!(received.ended[0].1, EndReason::Timeout);
        // Shorter, and over soon.
        let mut scene = start(90);
        let (done, _) = scene.reload(&with(60));
        assert_eq!((done.expired, done.retimed), (0, 1), "{by}");
        assert_eq!(scene.wait(9).ended.len(), 0);
        assert_eq!(scene.wait(2).ended.len(), 1);
        // Longer.
        let mut scene = start(90);
        scene.reload(&with(300));
        assert_eq!(scene.wait(249).ended.len(), 0, "{by}");
        assert_eq!(scene.wait(2).ended.len(), 1, "{by}");
    }
}

#[test]
fn a_key_that_only_a_start_can_change_is_an_error_and_changes_nothing() {
    let base = "[zones]\na = 1\nb = 2\n";
    let mut scene = Scene::new(base);
    scene.handshake(ENDS);
    let before = scene.records();
    for change in [
        "[table]\nmax_sessions = 7\n",
        "[tombstones]\nmax = 7\n",
        "[fragments]\nmax_datagrams = 7\n",
        "[engine]\ntunnel_references = true\n",
        "[zone_groups]\nab = [\"a\", \"b\"]\n",
    ] {
        let wrong = config(&format!(
            "{base}{change}[policy]\ndefault = \"deny\"\n[lifetimes]\ntcp.established = \"1s\"\n"
        ));
        let error = scene
            .engine
            .reload(&wrong, scene.now, &mut Discard)
            .unwrap_err();
        assert!(
            matches!(error.cause, ConfigErrorCause::NotReloadable),
            "{change}: {error}"
        );
        assert!(scene.engine.preview(&wrong, scene.now).is_err());
        assert_eq!(scene.records(), before);
        // Neither the policy nor a lifetime of the rejected configuration is in force.
        assert!(scene.udp(Ends::v4(53, 53)).is_forward());
        scene.wait(31);
        assert_eq!(scene.records(), before);
    }
}

#[test]
fn rules_keep_their_hits_by_their_names() {
    let rule = |name: &str, port: &str| {
        format!(
            "[[policy.rule]]\nname = \"{name}\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             destination_ports = {port}\n"
        )
    };
    let scene = Scene::new(&(rule("web", "80") + &rule("tls", "443")));
    for port in [80, 443, 22] {
        scene.pass(Ends::v4(4000 + port, port), SYN, 100, 0, b"");
        scene.pass(Ends::v4(5000 + port, port), SYN, 100, 0, b"");
    }
    let hits = |scene: &Scene| {
        let policy = scene.engine.policy();
        policy
            .hits()
            .map(|(name, hits)| (name.to_owned(), hits))
            .collect::<Vec<_>>()
    };
    let named = |hits: &[(&str, u64)]| -> Vec<(String, u64)> {
        hits.iter()
            .map(|(name, hits)| ((*name).to_owned(), *hits))
            .collect()
    };
    assert_eq!(
        hits(&scene),
        named(&[("web", 2), ("tls", 2), ("default", 2)])
    );
    // The order changes, one rule is removed, one is added.
    scene.reload(&(rule("ssh", "22") + &rule("web", "[80, 8080]")));
    assert_eq!(
        hits(&scene),
        named(&[("ssh", 0), ("web", 2), ("default", 2)])
    );
    scene.pass(Ends::v4(1, 8080), SYN, 100, 0, b"");
    assert_eq!(
        hits(&scene),
        named(&[("ssh", 0), ("web", 3), ("default", 2)])
    );
}

#[test]
fn busy_data_keep_their_idle_control_session_alive() {
    let mut scene = Scene::new("");
    let (control, data) = (Ends::v4(4000, 21), Ends::v4(40_000, 50_000));
    scene.handshake(control);
    scene.pass(control.back(), ACK, 501, 101, b"220 ready\r\n");
    scene.pass(control, ACK, 101, 512, b"PASV\r\n");
    let answer = b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n";
    scene.pass(control.back(), ACK, 512, 107, answer);
    scene.pass(control, ACK, 107, 512 + answer.len() as u32, b"");
    scene.handshake(data);
    let (mut at, count) = (501, |scene: &Scene| scene.engine.sessions());
    for _ in 0..10 {
        assert_eq!(scene.wait(200).ended.len(), 0);
        scene.pass(data.back(), ACK, at, 101, b"bytes");
        at += 5;
        scene.pass(data, ACK, 101, at, b"");
    }
    assert_eq!(count(&scene), 2);
    // A reload with a shorter lifetime does not remove it either.
    let (done, _) = scene.reload("[lifetimes]\ntcp.established = \"300s\"\n");
    assert_eq!((done.expired, count(&scene)), (0, 2));
    // Once the data have passed, both end by their own lifetimes.
    scene.wait(LONG);
    scene.wait(LONG);
    assert_eq!(count(&scene), 0);
}
