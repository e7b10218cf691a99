//! The outbox: budgeted replies, RSTs and events, and its bounds if it is not drained.

use std::time::{Duration, Instant};

use portcullis::config::{ChallengeMode, Midstream};
use portcullis::packet::{Checksums, Transport, parse};
use portcullis::policy::Protocol;
use portcullis::{
    Config, Direction, DropReason, Egress, EndReason, Engine, Event, Lost, Outbox, Packet, Policy,
    Reply, Rule, SessionFilter, TunnelRef, Unsent, Verdict,
};

use crate::support::packets::{ACK, Ends, RST, SYN, udp};
use crate::support::scene::segment;

const SEED: [u64; 4] = [1, 2, 3, 4];
const WEB: Ends = Ends::v4(4_000, 80);

fn engine(policy: Policy) -> Engine {
    let builder = Engine::builder().policy(policy).seed(SEED);
    builder.tunnel_references().build().unwrap()
}

/// Decides a packet that arrived on this path.
fn decide(
    engine: &Engine,
    bytes: &[u8],
    from: TunnelRef,
    now: Instant,
    outbox: &mut Outbox,
) -> Verdict {
    engine.process(&Packet::new(bytes, now).tunnel(from), outbox)
}

/// Opens an established session from path 1 to path 2, and drops the events of its packets.
fn establish(engine: &Engine, now: Instant, outbox: &mut Outbox) {
    for (ends, path, flags, seq, ack) in [
        (WEB, 1, SYN, 100, 0),
        (WEB.back(), 2, SYN | ACK, 500, 101),
        (WEB, 1, ACK, 101, 501),
    ] {
        let bytes = segment(ends, flags, seq, ack, b"");
        assert!(decide(engine, &bytes, TunnelRef(path), now, outbox).is_forward());
    }
    assert_eq!(outbox.drain().count(), 1, "one session was opened");
}

fn flags(packet: &[u8]) -> u8 {
    match parse(packet, Checksums::Verify).unwrap().transport {
        Transport::Tcp { segment, .. } => segment.flags.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flood_of_rejects_gets_no_more_replies_than_the_budget_allows() {
    let mut config = Config::default();
    config.resets.per_destination = 30;
    config.resets.overall = 40;
    let builder = Engine::builder_from(config).seed(SEED);
    let engine = builder.policy(Policy::reject_by_default()).build().unwrap();
    let (now, mut outbox) = (Instant::now(), Outbox::new());
    let (mut replies, mut denied) = (0, 0);
    for n in 0..100_000u32 {
        let ends = Ends {
            src: 1 + (n % 2) as u8 * 9,
            ..Ends::v4(1_024 + (n / 2) as u16, 80)
        };
        let syn = segment(ends, SYN, 1, 0, b"");
        let verdict = engine.process(&Packet::new(&syn, now), &mut outbox);
        assert_eq!(verdict.reason(), Some(DropReason::PolicyReject));
        for event in outbox.drain() {
            match event {
                Event::Transmit(packet) => {
                    assert_eq!(flags(packet.bytes), RST | ACK);
                    replies += 1;
                }
                Event::Denied(_) => denied += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((replies, denied), (40, 100_000));
    assert_eq!(outbox.lost().over_budget, 100_000 - 40);
}

#[test]
fn the_lower_interface_has_the_same_budget() {
    let mut config = Config::default();
    config.resets.per_destination = 30;
    let builder = Engine::builder_from(config).seed(SEED);
    let engine = builder.policy(Policy::reject_by_default()).build().unwrap();
    let now = Instant::now();
    let syn = segment(WEB, SYN, 1, 0, b"");
    let packet = Packet::new(&syn, now);
    let replies = (0..1_000).filter(|_| {
        let verdict = engine.verdict_only(packet);
        let mut out = [0; portcullis::event::MAX_REPLY];
        engine.write_reply(&packet, &verdict, &mut out).is_some()
    });
    assert_eq!(replies.count(), 30);
}

#[test]
fn both_ends_of_a_session_that_times_out_get_a_rst() {
    let engine = engine(Policy::allow_by_default());
    let (start, mut outbox) = (Instant::now(), Outbox::new());
    establish(&engine, start, &mut outbox);
    assert_eq!(engine.expire(start, &mut outbox).ended, 0);
    assert!(outbox.is_empty());
    let done = engine.expire(start + Duration::from_secs(4_000), &mut outbox);
    assert_eq!((done.ended, done.more), (1, false));
    let events: Vec<_> = outbox.drain().collect();
    let [
        Event::Ended(record, EndReason::Timeout),
        Event::Transmit(to_responder),
        Event::Transmit(to_initiator),
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((record.src_port, record.dst_port), (4_000, 80));
    // Each leaves on the path of the packets in its direction.
    assert_eq!(to_responder.egress, Egress::Onward(TunnelRef(1)));
    assert_eq!(to_initiator.egress, Egress::Onward(TunnelRef(2)));
    assert_eq!(flags(to_responder.bytes) & RST, RST);
    assert_eq!(flags(to_initiator.bytes) & RST, RST);
    let stats = engine.stats();
    assert_eq!(stats.resets_sent, 2);
    assert!(
        stats.resets_unsent.contains(&(Unsent::NoSink, 0)),
        "{stats:?}"
    );
}

#[test]
fn a_rst_goes_back_to_an_end_to_which_no_packet_has_traveled() {
    let mut config = Config::allow_all();
    config.tcp.midstream = Midstream::Adopt;
    let builder = Engine::builder_from(config).seed(SEED);
    let engine = builder.tunnel_references().build().unwrap();
    let (start, mut outbox) = (Instant::now() + Duration::from_secs(600), Outbox::new());
    // Only the direction of the client on path 1 is visible.
    for n in 0..5 {
        let ack = segment(WEB, ACK, 1_000 + n, 5_000 + n, b"x");
        assert!(decide(&engine, &ack, TunnelRef(1), start, &mut outbox).is_forward());
    }
    outbox.drain().for_each(drop);
    assert_eq!(
        engine
            .expire(start + Duration::from_secs(600_000), &mut outbox)
            .ended,
        1
    );
    let resets: Vec<_> = outbox
        .drain()
        .filter_map(|event| match event {
            Event::Transmit(packet) => packet
                .session
                .map(|(_, direction)| (direction, packet.egress)),
            _ => None,
        })
        .collect();
    assert!(
        resets.contains(&(Direction::Reply, Egress::Back(TunnelRef(1)))),
        "{resets:?}"
    );
    let to_responder = |(direction, egress): &(Direction, Egress)| {
        *direction == Direction::Reply || *egress == Egress::Onward(TunnelRef(1))
    };
    assert!(resets.iter().all(to_responder), "{resets:?}");
}

#[test]
fn a_reply_leaves_on_the_path_of_its_packet_or_of_the_other_direction() {
    let engine =
        engine(Policy::allow_by_default().rule(Rule::reject("names").protocol(Protocol::UDP)));
    let (start, mut outbox) = (Instant::now(), Outbox::new());
    establish(&engine, start, &mut outbox);
    let query = udp(Ends::v4(5_000, 53), b"question");
    let verdict = decide(&engine, &query, TunnelRef(7), start, &mut outbox);
    assert!(matches!(
        verdict,
        Verdict::Reject(DropReason::PolicyReject, ..)
    ));
    let egress = |outbox: &mut Outbox| {
        let mut packets = outbox.drain().filter_map(|event| match event {
            Event::Transmit(packet) => Some(packet.egress),
            _ => None,
        });
        packets.next()
    };
    assert_eq!(egress(&mut outbox), Some(Egress::Back(TunnelRef(7))));
    // The session times out, and a packet of the initiator arrives too late.
    let later = start + Duration::from_secs(4_000);
    let _ = engine.expire(later, &mut outbox);
    assert_eq!(outbox.drain().count(), 3);
    let late = segment(WEB, ACK, 101, 501, b"late");
    let verdict = decide(&engine, &late, TunnelRef(1), later, &mut outbox);
    assert!(
        matches!(verdict, Verdict::Reject(DropReason::TcpAfterTimeout, ..)),
        "{verdict:?}"
    );
    assert_eq!(egress(&mut outbox), Some(Egress::Onward(TunnelRef(2))));
}

#[test]
fn a_batch_fills_the_outbox_as_its_packets_do_one_by_one() {
    let policy = || Policy::reject_by_default().rule(Rule::allow("names").protocol(Protocol::UDP));
    let (single, batched) = (engine(policy()), engine(policy()));
    let (mut one, mut other) = (Outbox::new(), Outbox::new());
    let now = Instant::now();
    // Enough sessions for packets of a batch to be decided together.
    let packets: Vec<_> = (0..600u16)
        .map(|n| match n % 3 {
            0 => segment(Ends::v4(2_000 + n, 80), SYN, 1, 0, b""),
            _ => udp(Ends::v4(2_000 + n, 53), b"question"),
        })
        .collect();
    let mut verdicts = Vec::new();
    for some in packets.chunks(50) {
        let packets: Vec<_> = some.iter().map(|bytes| Packet::new(bytes, now)).collect();
        batched.process_batch(&packets, &mut other, &mut verdicts);
        let singly: Vec<_> = packets
            .iter()
            .map(|packet| single.process(packet, &mut one))
            .collect();
        assert_eq!(singly, verdicts);
    }
    assert_eq!(one.len(), 200 * 2 + 400);
    assert!(one.drain().eq(other.drain()));
}

#[test]
fn an_outbox_that_nobody_drains_is_bounded_and_counts_what_it_loses() {
    let engine =
        engine(Policy::reject_by_default().rule(Rule::allow("names").protocol(Protocol::UDP)));
    let (now, mut outbox) = (Instant::now(), Outbox::with_limits(3, 5));
    for n in 0..20 {
        let syn = segment(Ends::v4(2_000 + n, 80), SYN, u32::from(n), 0, b"");
        let _ = decide(&engine, &syn, TunnelRef::NONE, now, &mut outbox);
    }
    // Denials take at most half of the room for events.
    assert_eq!(outbox.len(), 3 + 2);
    let lost = outbox.lost();
    assert_eq!((lost.packets, lost.events, lost.over_budget), (17, 18, 0));
    let query = udp(Ends::v4(2_000, 53), b"question");
    assert!(decide(&engine, &query, TunnelRef::NONE, now, &mut outbox).is_forward());
    assert_eq!(
        (outbox.len(), outbox.lost()),
        (3 + 2 + 1, lost),
        "a session was opened"
    );
    // The oldest are kept, whole.
    let acknowledged: Vec<_> = outbox
        .drain()
        .filter_map(|event| match event {
            Event::Transmit(packet) => {
                match parse(packet.bytes, Checksums::Verify).unwrap().transport {
                    Transport::Tcp { segment, .. } => Some(segment.ack.0),
                    other => panic!("{other:?}"),
                }
            }
            _ => None,
        })
        .collect();
    assert_eq!(acknowledged, [1, 2, 3]);
    // There is room again.
    let syn = segment(Ends::v4(3_000, 80), SYN, 1, 0, b"");
    let _ = decide(&engine, &syn, TunnelRef::NONE, now, &mut outbox);
    assert_eq!((outbox.len(), outbox.lost()), (2, lost));
}

/// Opens a number of established sessions from the initiator of [`WEB`].
fn establish_many(engine: &Engine, sessions: u16, now: Instant, outbox: &mut Outbox) {
    for n in 0..sessions {
        let ends = Ends::v4(4_000 + n, 80);
        for (ends, flags, seq, ack) in [
            (ends, SYN, 100, 0),
            (ends.back(), SYN | ACK, 500, 101),
            (ends, ACK, 101, 501),
        ] {
            let bytes = segment(ends, flags, seq, ack, b"");
            assert!(decide(engine, &bytes, TunnelRef::NONE, now, outbox).is_forward());
        }
        outbox.drain().for_each(drop);
    }
}

/// Counts replies and RSTs at the end of sessions.
fn packets(outbox: &mut Outbox) -> (usize, usize) {
    outbox
        .drain()
        .fold((0, 0), |(replies, resets), event| match event {
            Event::Transmit(packet) if packet.session.is_some() => (replies, resets + 1),
            Event::Transmit(_) => (replies + 1, resets),
            _ => (replies, resets),
        })
}

#[test]
fn no_flood_of_challenges_displaces_the_rsts_of_sessions_that_time_out() {
    let mut config = Config::allow_all();
    config.syn_challenge.mode = ChallengeMode::Off;
    let engine = Engine::with_seed(&config, SEED).unwrap();
    let (start, mut outbox) = (Instant::now(), Outbox::new());
    establish_many(&engine, 200, start, &mut outbox);
    config.syn_challenge.mode = ChallengeMode::Always;
    engine.reload(&config, start, &mut outbox).unwrap();
    assert!(outbox.is_empty());
    let later = start + Duration::from_secs(4_000);
    let syns: Vec<_> = (0..1_500u16)
        .map(|n| segment(Ends::v4(10_000 + n, 80), SYN, 1, 0, b""))
        .collect();
    let batch: Vec<_> = syns.iter().map(|bytes| Packet::new(bytes, later)).collect();
    let mut verdicts = Vec::new();
    engine.process_batch(&batch, &mut outbox, &mut verdicts);
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Reject(_, Reply::Challenge(_), _)))
    );
    while engine.expire(later, &mut outbox).more {}
    assert_eq!(engine.stats().resets_sent, 400);
    assert_eq!(outbox.lost().packets, 1_500 - 1_024);
    assert_eq!(packets(&mut outbox), (1_024, 400));
}

/// Returns an engine that ends sessions at a reload, with 600 established ones.
fn engine_of_600(now: Instant, outbox: &mut Outbox) -> Engine {
    let mut config = Config::allow_all();
    config.syn_challenge.mode = ChallengeMode::Off;
    let engine = Engine::with_seed(&config, SEED).unwrap();
    establish_many(&engine, 600, now, outbox);
    engine
}

/// Asserts that an outbox holds the records and RSTs of 600 sessions, and then has its usual bound.
fn assert_all_are_kept(engine: &Engine, now: Instant, mut outbox: Outbox) {
    assert_eq!(outbox.lost(), Lost::default());
    assert_eq!(outbox.len(), 600 + 1_200);
    assert_eq!(packets(&mut outbox), (0, 1_200));
    for n in 0..3 {
        let query = udp(Ends::v4(2_000 + n, 53), b"question");
        let _ = decide(engine, &query, TunnelRef::NONE, now, &mut outbox);
    }
    assert_eq!(
        (outbox.len(), outbox.lost().events),
        (1, 2),
        "the bound is back"
    );
}

#[test]
fn an_outbox_keeps_the_rsts_of_all_sessions_that_an_operator_ends() {
    let (now, mut outbox) = (Instant::now(), Outbox::with_limits(1, 1));
    let engine = engine_of_600(now, &mut outbox);
    let ended = engine.end_sessions(&SessionFilter::default(), now, &mut outbox);
    assert_eq!(ended, 600);
    assert_all_are_kept(&engine, now, outbox);
}

#[test]
fn an_outbox_keeps_the_rsts_of_all_sessions_that_a_reload_ends() {
    let (now, mut outbox) = (Instant::now(), Outbox::with_limits(1, 1));
    let engine = engine_of_600(now, &mut outbox);
    let mut config = Config::default();
    config.syn_challenge.mode = ChallengeMode::Off;
    config.policy.rules = vec![Rule::allow("names").protocol(Protocol::UDP).into()];
    let reload = engine.reload(&config, now, &mut outbox).unwrap();
    assert_eq!(reload.revoked, 600);
    assert_all_are_kept(&engine, now, outbox);
}

/// Memory of an outbox around a mass end, in bytes.
#[derive(Debug)]
struct Footprint {
    /// Most memory in use during the mass end.
    peak: u64,
    /// Memory still allocated after the records and RSTs were drained.
    drained: i64,
    /// Memory still allocated after the next drain.
    after: i64,
}

/// Ends a number of established sessions at the same time, under a budget of RSTs, with a bounded
/// outbox. Asserts that nothing is lost.
fn mass_end(sessions: u32, budget: u32, limit: usize) -> (Footprint, Engine, Outbox) {
    let mut config = Config::allow_all();
    config.syn_challenge.mode = ChallengeMode::Off;
    (config.resets.overall, config.resets.per_destination) = (budget, budget);
    let engine = Engine::with_seed(&config, SEED).unwrap();
    let now = Instant::now();
    for n in 0..sessions {
        let ends = Ends {
            src: 3 + (n % 200) as u8,
            ..Ends::v4(1_024 + (n / 200) as u16, 80)
        };
        for (ends, flags, seq, ack) in [
            (ends, SYN, 100, 0),
            (ends.back(), SYN | ACK, 500, 101),
            (ends, ACK, 101, 501),
        ] {
            let bytes = segment(ends, flags, seq, ack, b"");
            assert!(engine.verdict_only(Packet::new(&bytes, now)).is_forward());
        }
    }
    let mut outbox = Outbox::with_limits(limit, limit);
    let ending = allocation_counter::measure(|| {
        let ended = engine.end_sessions(&SessionFilter::default(), now, &mut outbox);
        assert_eq!(ended, sessions as usize);
        let resets = (2 * sessions).min(budget) as usize;
        assert_eq!(outbox.len(), sessions as usize + resets);
        assert_eq!(packets(&mut outbox), (0, resets));
    });
    assert_eq!(outbox.lost(), Lost::default());
    let next = allocation_counter::measure(|| outbox.drain().for_each(drop));
    let footprint = Footprint {
        peak: ending.bytes_max,
        drained: ending.bytes_current,
        after: ending.bytes_current + next.bytes_current,
    };
    (footprint, engine, outbox)
}

#[test]
fn the_memory_of_a_mass_end_is_freed_by_the_next_drain() {
    let limit = 64;
    let (footprint, engine, mut outbox) = mass_end(5_000, 10_000, limit);
    assert!(footprint.drained > 1_000_000, "{footprint:?}");
    // Room for 256 entries of 256 bytes, for the packets of 64 replies and 64 RSTs, and for what
    // else is allocated meanwhile.
    let bound = 4_096 + 4 * limit as i64 * 256 + limit as i64 * (1_280 + 60);
    assert!(footprint.after <= bound, "{footprint:?}");
    // The remaining memory has room for everything within the bounds.
    let now = Instant::now();
    let queries: Vec<_> = (0..limit as u16 + 1)
        .map(|n| udp(Ends::v4(2_000 + n, 53), b"question"))
        .collect();
    let info = allocation_counter::measure(|| {
        for query in &queries {
            let _ = decide(&engine, query, TunnelRef::NONE, now, &mut outbox);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    assert_eq!((outbox.len(), outbox.lost().events), (limit, 1));
}

#[test]
fn packets_after_a_mass_end_are_whole_when_the_memory_shrinks() {
    let (_, engine, mut outbox) = mass_end(300, 600, 64);
    let now = Instant::now();
    assert_eq!(
        engine.end_sessions(&SessionFilter::default(), now, &mut outbox),
        0
    );
    // A second mass end, which is drained, and a reply before the next drain.
    establish_many(&engine, 100, now, &mut outbox);
    engine.end_sessions(&SessionFilter::default(), now, &mut outbox);
    outbox.drain().for_each(drop);
    let syn = segment(Ends::v4(9_000, 80), SYN, 77, 0, b"");
    let reload = engine.reload(&Config::default(), now, &mut outbox).unwrap();
    assert_eq!(reload.revoked, 0);
    let mut config = Config::default();
    config.policy.default = portcullis::policy::Action::Reject;
    engine.reload(&config, now, &mut outbox).unwrap();
    let verdict = decide(&engine, &syn, TunnelRef::NONE, now, &mut outbox);
    assert!(matches!(verdict, Verdict::Reject(..)), "{verdict:?}");
    let events: Vec<_> = outbox.drain().collect();
    let Some(Event::Transmit(reply)) = events
        .iter()
        .find(|event| matches!(event, Event::Transmit(_)))
    else {
        panic!("{events:?}")
    };
    assert_eq!(flags(reply.bytes), RST | ACK);
}

/// The figures of docs/LIBRARY.md: `cargo test --test it footprint -- --ignored --nocapture`.
#[test]
#[ignore = "prints the memory of a mass end"]
fn footprint_of_a_mass_end() {
    for sessions in [1_000, 10_000, 100_000, 1_000_000] {
        for budget in [20_000, 1_000_000] {
            let (footprint, ..) = mass_end(sessions, budget, Outbox::DEFAULT_LIMIT);
            let each = |bytes: i64| bytes / i64::from(sessions);
            println!(
                "{sessions} sessions, {budget} RSTs: peak {}, drained {} a session; after {}",
                each(footprint.peak as i64),
                each(footprint.drained),
                footprint.after
            );
            assert!(footprint.after < 4 << 20, "{footprint:?}");
        }
    }
}

#[test]
fn one_default_denies_in_code_and_in_a_file() {
    let now = Instant::now();
    let syn = segment(WEB, SYN, 1, 0, b"");
    for config in [
        Config::default(),
        Config::from_toml("", "empty.toml").unwrap(),
    ] {
        let engine = Engine::with_seed(&config, SEED).unwrap();
        let verdict = engine.verdict_only(Packet::new(&syn, now));
        assert!(
            matches!(verdict, Verdict::Drop(DropReason::PolicyDeny, _)),
            "{verdict:?}"
        );
    }
    let built = Engine::builder().seed(SEED).build().unwrap();
    assert!(!built.verdict_only(Packet::new(&syn, now)).is_forward());
}

#[test]
fn rules_built_in_code_match_what_they_name() {
    let inside: ipnet::IpNet = "10.0.0.0/28".parse().unwrap();
    let policy = Policy::deny_by_default()
        .rule(
            Rule::deny("not-this")
                .to(inside)
                .protocol(Protocol::TCP)
                .ports([81]),
        )
        .rule(
            Rule::allow("web")
                .from(inside)
                .to(inside)
                .protocol(Protocol::TCP)
                .ports([80..=89]),
        )
        .rule(
            Rule::audit("names")
                .protocol(Protocol::UDP)
                .ports([53])
                .logged(),
        )
        .rule(Rule::reject("elsewhere").zone("guests"));
    let builder = Engine::builder().policy(policy).zone("guests", 3);
    let engine = builder.max_sessions(1_000).seed(SEED).build().unwrap();
    assert_eq!(engine.max_sessions(), 1_000);
    let now = Instant::now();
    let verdict = |bytes: &[u8], zone| {
        engine.verdict_only(Packet::new(bytes, now).zone(portcullis::Zone(zone)))
    };
    let syn = |src, port| {
        segment(
            Ends {
                src,
                ..Ends::v4(4_000, port)
            },
            SYN,
            1,
            0,
            b"",
        )
    };
    assert!(verdict(&syn(1, 80), 0).is_forward());
    assert!(!verdict(&syn(1, 81), 0).is_forward());
    assert!(verdict(&syn(1, 89), 0).is_forward());
    assert!(!verdict(&syn(1, 90), 0).is_forward());
    assert!(!verdict(&syn(16, 80), 0).is_forward());
    let audited = verdict(&udp(Ends::v4(4_000, 53), b""), 0);
    assert_eq!(audited.tracked().tolerated, Some(DropReason::PolicyDeny));
    assert_eq!(
        verdict(&syn(16, 80), 3).reason(),
        Some(DropReason::PolicyReject)
    );
    let hits: Vec<_> = engine
        .policy()
        .hits()
        .map(|(rule, hits)| (rule.to_owned(), hits))
        .collect();
    let expected = [
        ("not-this", 1),
        ("web", 2),
        ("names", 1),
        ("elsewhere", 1),
        ("default", 2),
    ];
    assert_eq!(hits, expected.map(|(rule, hits)| (rule.to_owned(), hits)));
}

#[test]
fn policies_built_in_code_are_validated_as_files_are() {
    for (rule, error) in [
        (Rule::allow("a b"), "policy.rule[0].name"),
        (
            Rule::allow("web").ports([80]),
            "policy.rule[0].destination_ports",
        ),
        (
            Rule::allow("web").zone("nowhere"),
            "policy.rule[0].zones[0]",
        ),
    ] {
        let policy = Policy::deny_by_default().rule(rule);
        let found = Engine::builder()
            .policy(policy)
            .build()
            .unwrap_err()
            .to_string();
        assert!(found.starts_with(error), "{found}");
    }
}
