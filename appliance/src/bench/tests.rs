//! Small measurements: they run, and detect faults.

use hdrhistogram::Histogram;
use portcullis::DropReason;

use super::args::{Family, MixArg, Mode, ProtocolArg};
use super::latency::Times;
use super::mix::{Shares, Traffic};
use super::report::{DuringOperation, Spread};
use super::traffic::{Order, Protocol, Session};
use super::*;

fn args(mode: Mode, protocol: ProtocolArg, threads: u32) -> BenchArgs {
    BenchArgs {
        mode,
        sessions: 1_500,
        protocol,
        mix: None,
        family: Family::V4,
        threads,
        batch: 1,
        rules: 0,
        shards: None,
        verify_checksums: mode != Mode::Expire,
        seconds: 1,
        json: false,
    }
}

#[test]
fn every_mode_measures_every_protocol_in_one_thread_and_in_three() {
    for mode in [Mode::Packets, Mode::Setup, Mode::Expire] {
        for protocol in [ProtocolArg::Tcp, ProtocolArg::Udp] {
            for (threads, family) in [(1, Family::V6), (3, Family::V4)] {
                let batched = threads == 3 && mode != Mode::Expire;
                let args = BenchArgs {
                    batch: if batched { 64 } else { 1 },
                    family,
                    ..args(mode, protocol, threads)
                };
                let report = measure(&args, Duration::from_millis(30)).unwrap();
                assert_eq!(report.ns_per_packet.is_none(), mode == Mode::Expire);
                assert_eq!(report.ns_per_session.is_none(), mode == Mode::Packets);
                let spread = report.ns_per_packet.or(report.ns_per_session).unwrap();
                assert!(0.0 < spread.min && spread.min <= spread.median);
                assert!(report.shares.is_none() && report.latency.is_none());
            }
        }
    }
}

/// A packet that is not forwarded would be an error, so the mixes are right in every round.
#[test]
fn every_mix_is_forwarded_for_many_rounds() {
    for mix in [MixArg::Internet, MixArg::Short] {
        for family in [Family::V4, Family::V6] {
            let args = BenchArgs {
                mix: Some(mix),
                family,
                batch: 64,
                rules: 3,
                ..args(Mode::Packets, ProtocolArg::Tcp, 2)
            };
            let engine = Engine::with_seed(&config(&args), SEED).unwrap();
            let run = worker::Run::new(&engine, &args, Duration::from_millis(1));
            run.fill();
            run.check().unwrap();
            let share = worker::Share::new(args.sessions, 0, 1);
            run.warm_up(&share, &mut share.rounds(), 200 * args.sessions as usize);
            run.check().unwrap();
            assert_eq!(engine.sessions(), args.sessions as usize);
            let report = measure(&args, Duration::from_millis(30)).unwrap();
            assert!(report.ns_per_packet.is_some() && report.shares.is_some());
        }
    }
}

#[test]
fn a_mix_has_the_documented_shares() {
    let documented = |mix| match mix {
        MixArg::Internet => Shares {
            data: 0.53,
            ack: 0.18,
            udp: 0.20,
            handshake: 0.037,
            close: 0.037,
            icmp_error: 0.016,
        },
        MixArg::Short => Shares {
            data: 0.33,
            ack: 0.11,
            udp: 0.10,
            handshake: 0.22,
            close: 0.22,
            icmp_error: 0.016,
        },
    };
    for mix in [MixArg::Internet, MixArg::Short] {
        let args = BenchArgs {
            mix: Some(mix),
            ..args(Mode::Packets, ProtocolArg::Tcp, 1)
        };
        let found = Traffic::new(&args).shares().unwrap();
        for (found, documented) in found.named().iter().zip(documented(mix).named()) {
            let difference = (found.0 - documented.0).abs();
            assert!(difference < 0.02, "{mix:?}: {found:?}, not {documented:?}");
        }
        let sum: f64 = found.named().iter().map(|(share, _)| share).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}

#[test]
fn latency_has_the_times_of_calls_during_every_operation() {
    for (threads, batch, family, rules) in [(1, 1, Family::V4, 0), (2, 64, Family::V6, 10)] {
        let args = BenchArgs {
            batch,
            family,
            rules,
            ..args(Mode::Latency, ProtocolArg::Tcp, threads)
        };
        // 30 ms for each operation: another process may take the processor for a while.
        let report = measure(&args, Duration::from_millis(210)).unwrap();
        assert!(report.ns_per_packet.is_none() && report.ns_per_session.is_none());
        let latency = report.latency.unwrap();
        let names: Vec<_> = latency.iter().map(|each| each.operation).collect();
        let operations = [
            "none", "list", "preview", "reload", "save", "expire", "delete",
        ];
        assert_eq!(names, operations);
        for each in &latency {
            assert_eq!(each.runs == 0, each.operation == "none");
            assert_eq!(each.run_ms.is_none(), each.operation == "none");
            assert!(each.p50_ns <= each.p99_ns && each.p99_ns <= each.p999_ns);
            assert!(each.p999_ns <= each.max_ns);
        }
        assert!(latency[0].calls > 0);
    }
}

#[test]
fn an_operation_in_which_no_call_was_timed_has_no_times() {
    let mut times = Times {
        operation: "list",
        runs: vec![Duration::from_millis(1)],
        calls: Histogram::new_with_max(1_000_000, 2).unwrap(),
    };
    let keys = ["p50_ns", "p99_ns", "p999_ns", "max_ns"];
    let report = DuringOperation::new(&times);
    let json = serde_json::to_value(&report).unwrap();
    assert!(keys.iter().all(|key| json.get(key).unwrap().is_null()));
    let words: Vec<_> = format!("{report}")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words.join(" "), "- - - - list (1 runs of 1.0 ms)");

    // A time of zero counts as a time.
    times.calls.record(0).unwrap();
    let json = serde_json::to_value(DuringOperation::new(&times)).unwrap();
    assert!(keys.iter().all(|key| json[key] == 0), "{json}");
}

#[test]
fn a_new_session_is_admitted_by_one_of_many_rules() {
    let args = BenchArgs {
        rules: 1_000,
        ..args(Mode::Setup, ProtocolArg::Udp, 1)
    };
    let engine = Engine::with_seed(&config(&args), SEED).unwrap();
    let run = worker::Run::new(&engine, &args, Duration::from_millis(1));
    run.fill();
    run.check().unwrap();
    let used = engine.rules().iter().filter(|rule| rule.hits > 0).count();
    assert!(used > 500, "{used}");
}

#[test]
fn arguments_without_effect_are_refused() {
    let plain = |mode| args(mode, ProtocolArg::Tcp, 1);
    let senseless = [
        BenchArgs {
            mix: Some(MixArg::Short),
            ..plain(Mode::Setup)
        },
        BenchArgs {
            mix: Some(MixArg::Short),
            ..plain(Mode::Latency)
        },
        BenchArgs {
            rules: 1,
            ..plain(Mode::Packets)
        },
        BenchArgs {
            rules: 1,
            ..plain(Mode::Expire)
        },
        BenchArgs {
            batch: 2,
            ..plain(Mode::Expire)
        },
        BenchArgs {
            verify_checksums: true,
            ..plain(Mode::Expire)
        },
        args(Mode::Latency, ProtocolArg::Udp, 1),
    ];
    for args in senseless {
        let result = measure(&args, Duration::from_millis(1));
        assert!(matches!(result, Err(BenchError::Senseless(_))), "{args:?}");
    }
}

#[test]
fn a_table_larger_than_the_memory_is_an_error() {
    let mut config = Config::allow_all();
    fits(&config).unwrap();
    // 2^28 sessions take more than 40 GiB.
    config.table.max_sessions = 1 << 28;
    let available = crate::memory::available().unwrap();
    assert_eq!(fits(&config).is_ok(), available > 40 << 30, "{available}");
}

#[test]
fn a_spread_has_the_least_and_the_middle_sample() {
    assert!(Spread::of([].into_iter()).is_none());
    let spread = Spread::of([5.0, 1.0, 3.0].into_iter()).unwrap();
    assert_eq!((spread.min, spread.median), (1.0, 3.0));
}

#[test]
fn the_report_is_one_json_object() {
    let report = measure(
        &args(Mode::Packets, ProtocolArg::Tcp, 1),
        Duration::from_millis(10),
    )
    .unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(json["mode"], "packets");
    assert_eq!(json["family"], 4);
    assert_eq!(json["sessions"], 1_500);
    // Every key is in every report.
    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    let page = include_str!("../../../docs/BENCH.md");
    for key in &keys {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    assert_eq!(keys.len(), 17);
    assert!(json["ns_per_packet"]["median"].as_f64().unwrap() > 0.0);
    assert!(json["packets_per_second"].as_f64().unwrap() > 0.0);
    assert!(json["sessions_per_second"].is_null());
}

#[test]
fn a_packet_that_is_not_forwarded_is_an_error() {
    let engine = Engine::with_seed(&Config::allow_all(), SEED).unwrap();
    // The table is empty: no packet has a session.
    let args = args(Mode::Packets, ProtocolArg::Tcp, 2);
    let run = worker::Run::new(&engine, &args, Duration::from_millis(10));
    assert!(matches!(
        run.measure(),
        Err(BenchError::NotForwarded {
            reason: DropReason::TcpNoSession,
            ..
        })
    ));
}

#[test]
fn a_table_that_is_too_small_is_an_error() {
    let mut config = Config::allow_all();
    config.table.max_sessions = 1_000;
    let engine = Engine::with_seed(&config, SEED).unwrap();
    let run = worker::Run::new(
        &engine,
        &args(Mode::Packets, ProtocolArg::Tcp, 1),
        Duration::from_millis(10),
    );
    run.fill();
    assert!(run.check().is_err());
}

#[test]
fn an_order_visits_every_session_once_a_round() {
    for len in [1, 2, 3, 64, 1_000, 1_023, 4_097] {
        for round in [0, 1, u32::MAX] {
            let mut seen = vec![false; len as usize];
            for position in 0..len {
                seen[Order::new(len).at(round, position) as usize] = true;
            }
            assert!(seen.iter().all(|seen| *seen), "{len} {round}");
        }
    }
}

#[test]
fn segments_have_right_checksums_and_carry_on_where_the_last_one_ended() {
    use portcullis::packet::{self, Transport};
    for (number, protocol) in (0..8).flat_map(|n| [(n, Protocol::Tcp), (n, Protocol::Tcp6)]) {
        let session = Session(number);
        let mut next = [None; 2];
        for round in 0..6 {
            let frame = session.packet(protocol, round);
            let parsed = packet::parse(frame.bytes(), Checksums::Verify).unwrap();
            let Transport::Tcp {
                segment, dst_port, ..
            } = parsed.transport
            else {
                panic!("not TCP");
            };
            let from = usize::from(dst_port != 443);
            let (sender, receiver) = if from == 0 { (0, 1) } else { (1, 0) };
            assert!(next[sender].is_none_or(|expected| expected == segment.seq));
            assert!(next[receiver].is_none_or(|expected| expected == segment.ack));
            next[sender] = Some(segment.seq.add(segment.payload_len));
        }
    }
}

#[test]
fn datagrams_of_every_session_have_right_checksums() {
    use portcullis::packet;
    for number in (0..400_000).chain([(1 << 24) - 1, 1 << 24, super::traffic::MAX_SESSIONS - 1]) {
        for protocol in [Protocol::Udp, Protocol::Udp6] {
            let frame = Session(number).packet(protocol, number);
            packet::parse(frame.bytes(), Checksums::Verify).unwrap();
        }
    }
}

#[test]
fn the_schema_is_up_to_date_with_the_report_like_every_page() {
    crate::schema::check::<super::report::Report>("bench");
}
