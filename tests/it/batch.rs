//! Packets in batches get the same verdicts as one by one.

use std::time::{Duration, Instant};

use crate::support::model::{Log, Settings, Setup};
use crate::support::ops::{self, Op, Traffic};
use crate::support::packets::{Ends, udp};
use crate::support::scene::Scene;
use portcullis::config::LifetimeClass;
use portcullis::{Discard, Engine, Packet, Zone};
use proptest::prelude::*;

/// Sessions from which on a batch fetches memory ahead, and a few more.
const MANY: u32 = 300;

/// A table with room for `room` sessions beside many that stay.
fn setup(room: u32, shards: u32, seed: u64) -> Setup {
    let setup = Setup::plain(MANY + room, shards);
    Setup {
        seed,
        settings: that_lasts(setup.settings),
        ..setup
    }
}

/// Settings in which a datagram without an answer opens a session that outlives the test.
fn that_lasts(settings: Settings) -> Settings {
    let day = Duration::from_secs(86_400);
    Settings {
        global: settings.global.with(LifetimeClass::UdpUnreplied, day),
        ..settings
    }
}

/// Many sessions that no operation touches.
fn fill(engine: &Engine, now: Instant) {
    for number in 0..MANY as u16 {
        let ends = Ends {
            src: 100 + (number % 100) as u8,
            dst: 201 + (number % 2) as u8,
            ..Ends::v4(1_024 + number, 9)
        };
        // Each zone is guaranteed a part of the table.
        let bytes = udp(ends, b"");
        let packet = Packet::new(&bytes, now).zone(Zone(number % 2));
        assert!(engine.verdict_only(packet).is_forward());
    }
    assert_eq!(engine.sessions(), MANY as usize);
}

fn told(log: &Log) -> String {
    format!("{:?}{:?}{:?}", log.opened, log.ended, log.resets)
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 256,
        ..crate::support::proptest_config()
    })]

    /// Compares verdicts, events in their order, counters and the remaining sessions. The table is
    /// full at times, a conversation occurs several times in a batch, and settings change between
    /// batches. Single packets are limited to the full way in half of the cases.
    #[test]
    fn a_batch_is_decided_as_its_packets_one_by_one(
        room in 0u32..6,
        shards in prop_oneof![Just(1u32), Just(4)],
        seed in any::<u64>(),
        many in any::<bool>(),
        full in any::<bool>(),
        ops in prop::collection::vec(ops::any_op(), 1..250),
        batch in 1usize..100,
    ) {
        let mut setup = setup(room, shards, seed);
        let (single, batched) = (setup.engine(), setup.engine());
        let single = if full { single.full_way_only() } else { single };
        let base = Instant::now();
        if many {
            fill(&single, base);
            fill(&batched, base);
        }
        let mut now = base;
        let (mut one, mut other) = (Log::default(), Log::default());
        let mut traffic = Traffic::new();
        let mut waiting: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut verdicts = Vec::new();
        for op in ops.iter().chain([&Op::Expire { budget: 1_000 }]) {
            waiting.extend(traffic.packets(op));
            let pause = matches!(op, Op::Advance(_) | Op::Expire { .. } | Op::Reload(_));
            if waiting.len() >= batch || pause {
                let packets: Vec<_> = waiting
                    .iter()
                    .map(|(zone, bytes)| Packet::new(bytes, now).zone(Zone(*zone)))
                    .collect();
                let mut next = 0;
                verdicts.clear();
                batched.process_batch_with(&packets, &mut other, |number, verdict, _| {
                    assert_eq!(number, next, "each in its turn");
                    next += 1;
                    verdicts.push(verdict);
                });
                prop_assert_eq!(verdicts.len(), packets.len());
                for (packet, verdict) in packets.iter().zip(&verdicts) {
                    prop_assert_eq!(single.process_with(*packet, &mut one), *verdict);
                }
                prop_assert_eq!(told(&one), told(&other));
                (one, other) = (Log::default(), Log::default());
                waiting.clear();
            }
            match op {
                Op::Advance(by) => now += *by,
                Op::Expire { budget } => {
                    let done = single.expire_with(now, *budget, &mut one);
                    prop_assert_eq!(done, batched.expire_with(now, *budget, &mut other));
                }
                Op::Reload(settings) => {
                    setup.settings = that_lasts(**settings);
                    let done = single.reload(&setup.config(), now, &mut one).unwrap();
                    let other_done = batched.reload(&setup.config(), now, &mut other).unwrap();
                    prop_assert_eq!(done, other_done);
                }
                _ => {}
            }
        }
        prop_assert_eq!(told(&one), told(&other));
        prop_assert_eq!(format!("{:?}", single.stats()), format!("{:?}", batched.stats()));
        batched.check_invariants().unwrap();
    }
}

#[test]
fn an_empty_batch_does_nothing_and_each_packet_has_one_call() {
    let s = Scene::new("");
    for n in 0..300u16 {
        assert!(s.udp(Ends::v4(2000 + n, 53)).is_forward());
    }
    let mut v = vec![];
    s.engine.verdicts_only(&[], &mut v);
    assert!(v.is_empty());
    let bytes: Vec<_> = (0..100u16)
        .map(|n| udp(Ends::v4(2000 + n, 53), b"x"))
        .collect();
    let packets: Vec<_> = bytes.iter().map(|b| Packet::new(b, s.now)).collect();
    let mut n = 0;
    s.engine
        .process_batch_with(&packets, &mut Discard, |i, v, _| {
            assert!(v.is_forward());
            let _ = s.engine.verdict_only(packets[99 - i]);
            s.engine.for_each_session(|_| {});
            let _ = s.reload("");
            n += 1;
        });
    assert_eq!(n, 100);
    let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        s.engine
            .process_batch_with(&packets, &mut Discard, |i, _, _| assert!(i < 40))
    }));
    assert!(r.is_err());
    let _ = s.engine.verdict_only(packets[0]);
    s.engine.check_invariants().unwrap();
}
