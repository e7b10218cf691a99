//! Small measurements: that they run, and that they would notice.

use portcullis::DropReason;

use super::args::{Mode, ProtocolArg};
use super::traffic::{Order, Protocol, Session};
use super::*;

fn args(mode: Mode, protocol: ProtocolArg, threads: u32) -> BenchArgs {
    BenchArgs {
        sessions: 1_500,
        threads,
        batch: 1,
        shards: None,
        protocol,
        mode,
        seconds: 1,
        verify_checksums: true,
        json: false,
    }
}

#[test]
fn every_mode_measures_every_protocol_in_one_thread_and_in_three() {
    for mode in [Mode::Packets, Mode::Setup, Mode::Expire] {
        for protocol in [ProtocolArg::Tcp, ProtocolArg::Udp] {
            for threads in [1, 3] {
                let args = BenchArgs {
                    batch: if threads == 3 { 64 } else { 1 },
                    ..args(mode, protocol, threads)
                };
                let report = measure(&args, Duration::from_millis(30)).unwrap();
                assert_eq!(report.ns_per_packet.is_none(), mode == Mode::Expire);
                assert_eq!(report.ns_per_session.is_none(), mode == Mode::Packets);
                let spread = report.ns_per_packet.or(report.ns_per_session).unwrap();
                assert!(0.0 < spread.min && spread.min <= spread.median);
            }
        }
    }
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
    assert_eq!(json["sessions"], 1_500);
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
    for number in 0..8 {
        let session = Session(number);
        let mut next = [None; 2];
        for round in 0..6 {
            let frame = session.packet(Protocol::Tcp, round);
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
