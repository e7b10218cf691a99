use portcullis::config::Checksums;
use portcullis::{Config, Engine, Packet, Verdict};

use super::super::generate::{Generator, Load, MIN_SIZE};
use super::super::report::Report;
use super::super::verdict;
use super::*;

/// Decides all packets of some rounds, and returns the number of sessions.
fn decide(load: Load, rounds: u64) -> usize {
    let mut config = Config::allow_all();
    config.engine.checksums = Checksums::Verify;
    let engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    let mut generator = Generator::new(load);
    let mut packet = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        for flow in 0..load.flows {
            generator.packet(flow, round, &mut packet);
            let verdict =
                engine.verdict_only(Packet::new(&packet, start + Duration::from_millis(round)));
            assert!(
                matches!(verdict, Verdict::Forward(_)),
                "round {round}, flow {flow}: {verdict:?}"
            );
        }
    }
    let mut sessions = 0;
    engine.for_each_session(|_| sessions += 1);
    sessions
}

const LOAD: Load = Load {
    tcp: true,
    flows: 50,
    size: 100,
    port: 443,
    connection: 0,
    packets: None,
};

#[test]
fn a_strict_firewall_lets_the_whole_load_pass() {
    assert_eq!(decide(LOAD, 200), 50);
    assert_eq!(
        decide(
            Load {
                connection: 7,
                ..LOAD
            },
            200
        ),
        50
    );
    assert_eq!(
        decide(
            Load {
                connection: 2,
                size: MIN_SIZE,
                ..LOAD
            },
            200
        ),
        50
    );
    assert_eq!(decide(Load { size: 8500, ..LOAD }, 200), 50);
    assert_eq!(decide(Load { tcp: false, ..LOAD }, 200), 50);
}

#[test]
fn packets_have_the_size_asked_for_and_no_two_with_data_are_the_same() {
    let mut generator = Generator::new(Load { tcp: false, ..LOAD });
    let mut seen = std::collections::HashSet::new();
    let (mut packet, mut from_clients) = (Vec::new(), 0);
    for round in 0..100 {
        for flow in 0..50 {
            from_clients += u32::from(generator.packet(flow, round, &mut packet) == Side::Client);
            assert_eq!(packet.len(), 100);
            assert!(seen.insert(packet.clone()));
        }
    }
    assert_eq!(from_clients, 50 + 99 * 25, "a first round, then half");
}

/// Returns the outcome of a run in which `lost` of 200 packets do not return.
fn outcome(lost: usize, max_loss: Option<f64>) -> Result<(), String> {
    let mut lb = Rig::new(1_000, false);
    for number in 0..200u8 {
        let sent = lb.send(Side::Client, &udp(Side::Client, &[number]));
        if usize::from(number) >= lost {
            assert!(lb.reply(&sent).is_some());
        }
    }
    lb.wait(2 * TIMEOUT);
    let observed = lb.balancer.observed(lb.now);
    let report = Report::new(&lb.balancer.counters, observed, TIMEOUT, 0);
    verdict(&report, max_loss).map_err(|error| error.to_string())
}

#[test]
fn a_run_fails_if_nothing_came_back_or_more_was_lost_than_allowed() {
    assert_eq!(outcome(0, Some(0.0)), Ok(()));
    assert_eq!(outcome(199, None), Ok(()), "a policy may drop them");
    assert_eq!(outcome(200, None), Err("nothing came back".to_owned()));
    assert_eq!(
        outcome(200, Some(100.0)),
        Err("nothing came back".to_owned())
    );
    assert_eq!(outcome(3, Some(1.5)), Ok(()));
    let error = "1.5000 % of the packets were lost, and at most 1.4 % are allowed";
    assert_eq!(outcome(3, Some(1.4)), Err(error.to_owned()));
}

#[test]
fn a_run_without_packets_is_no_failure_and_one_that_could_send_none_is() {
    let report = |lb: &mut Rig| {
        let observed = lb.balancer.observed(lb.now);
        Report::new(&lb.balancer.counters, observed, TIMEOUT, 0)
    };
    let mut lb = Rig::new(10, false);
    assert!(verdict(&report(&mut lb), Some(0.0)).is_ok());
    assert!(lb.try_send(0, Side::Client, b"no packet").is_err());
    assert!(verdict(&report(&mut lb), None).is_err());
}

#[test]
fn cookies_of_both_directions_are_counted() {
    for (per_direction, cookies) in [(false, 1), (true, 2)] {
        let mut lb = Rig::new(10, per_direction);
        lb.pass(Side::Client, &udp(Side::Client, b"question"));
        lb.pass(Side::Server, &udp(Side::Server, b"answer"));
        assert_eq!(lb.balancer.flows(), (1, cookies));
    }
}
