use portcullis::config::Checksums;
use portcullis::{Config, Engine, Packet, Verdict};

use super::super::generate::{Generator, Load, MIN_SIZE};
use super::*;

/// Decides all packets of some rounds; returns how many sessions there were.
fn decide(load: Load, rounds: u64) -> usize {
    let mut config = Config::default();
    config.engine.checksums = Checksums::Verify;
    let engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    let mut generator = Generator::new(load);
    let mut packet = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        for flow in 0..load.flows {
            generator.packet(flow, round, &mut packet);
            let verdict = engine.process(Packet::new(&packet, start + Duration::from_millis(round)));
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
