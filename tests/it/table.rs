//! The full table, the two directions of a conversation, and packets that must leave no trace.

use std::time::{Duration, Instant};

use crate::support::model::{Log, Run, Setup, Tally};
use crate::support::ops::{self, Op, Traffic};
use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, echo, tcp, udp};
use portcullis::config::ChallengeMode;
use portcullis::session::EvictionClass;
use portcullis::{
    Class, Direction, Discard, DropReason, EndReason, Engine, Packet, SessionRecord, Zone,
};
use proptest::prelude::*;

/// A table that overflows continuously.
fn tiny() -> impl Strategy<Value = Setup> {
    (
        1u32..6,
        prop_oneof![Just(1u32), Just(2), Just(4)],
        any::<u64>(),
    )
        .prop_map(|(max_sessions, shards, seed)| Setup {
            seed,
            ..Setup::plain(max_sessions.max(shards), shards)
        })
}

fn records(engine: &Engine) -> Vec<SessionRecord> {
    let mut records = Vec::new();
    engine.for_each_session(|record| records.push(*record));
    records
}

proptest! {
    #![proptest_config(crate::support::proptest_config())]

    /// The rules of eviction are in `Run::made_room`.
    #[test]
    fn a_table_that_overflows_keeps_its_bound_and_its_order(setup in tiny(), ops in ops::ops()) {
        let mut run = Run::new(setup);
        for op in &ops {
            run.step(op);
        }
    }

    /// A change in the tracker that no record shows changes a later verdict. Therefore one engine
    /// gets all packets, and the other only those that the first one found valid.
    #[test]
    fn an_invalid_packet_leaves_nothing_that_a_later_verdict_shows(
        setup in tiny(),
        ops in ops::ops(),
    ) {
        let (all, valid) = (setup.engine(), setup.engine());
        let base = Instant::now();
        let mut now = Duration::ZERO;
        // The first time that is passed to an engine sets its ticks, so both get the same one.
        for engine in [&all, &valid] {
            engine.expire_with(base, 0, &mut Discard);
        }
        let mut traffic = Traffic::new();
        for op in &ops {
            match op {
                Op::Advance(by) => now += *by,
                Op::Expire { budget } => {
                    let mut logs = [Log::default(), Log::default()];
                    let done = all.expire_with(base + now, *budget, &mut logs[0]);
                    prop_assert_eq!(done, valid.expire_with(base + now, *budget, &mut logs[1]));
                }
                _ => {
                    for (zone, bytes) in traffic.packets(op) {
                        let packet = Packet::new(&bytes, base + now).zone(Zone(zone));
                        let mut log = Log::default();
                        let verdict = all.process_with(packet, &mut log);
                        // A packet of an expired session has ended the session, regardless of the
                        // verdict on the packet.
                        let is_invalid = verdict.tracked().class == Class::Invalid;
                        if !is_invalid || !log.ended.is_empty() {
                            prop_assert_eq!(verdict, valid.verdict_only(packet));
                        }
                    }
                }
            }
            prop_assert_eq!(records(&all), records(&valid));
        }
    }

    #[test]
    fn both_directions_meet_in_one_session(
        v6: bool,
        src in 1u8..5,
        dst in 1u8..5,
        src_port: u16,
        dst_port: u16,
        zone in 0u16..3,
        shards in 0u32..3,
        kind in 0u8..3,
    ) {
        let ends = Ends { v6, src, src_port, dst, dst_port };
        // One host with two ends is a martian.
        prop_assume!(src != dst);
        let engine = Setup::plain(16, 1 << shards).engine();
        let head = |flags, seq, ack| Head { flags, seq, ack, window: 1000 };
        let (there, back) = match kind {
            0 => (udp(ends, b"question"), udp(ends.back(), b"answer")),
            1 => (
                tcp(ends, head(SYN, 100, 0), &[], &[]),
                tcp(ends.back(), head(SYN | ACK, 500, 101), &[], &[]),
            ),
            _ => {
                let back = Ends { src_port, ..ends.back() };
                (echo(ends, true), echo(back, false))
            }
        };
        let now = Instant::now();
        let first = engine.verdict_only(Packet::new(&there, now).zone(Zone(zone)));
        let second = engine.verdict_only(Packet::new(&back, now).zone(Zone(zone)));
        prop_assert!(first.is_forward() && second.is_forward());
        prop_assert_eq!(first.tracked().class, Class::New);
        prop_assert_eq!(second.tracked().class, Class::Established);
        prop_assert_eq!(first.tracked().session, second.tracked().session);
        prop_assert_eq!(second.tracked().direction, Some(Direction::Reply));
        // An equal packet in another zone is another conversation.
        let elsewhere = engine.verdict_only(Packet::new(&there, now).zone(Zone(zone + 1)));
        prop_assert_eq!(elsewhere.tracked().class, Class::New);
        prop_assert_eq!(engine.sessions(), 2);
        engine.check_invariants().unwrap();
    }
}

/// The operations reach every case; otherwise the properties would prove little.
#[test]
fn the_random_traffic_meets_every_kind_of_end() {
    let setup = (tiny(), ops::settings()).prop_map(|(setup, settings)| Setup { settings, ..setup });
    let runs = crate::support::tallies(&(setup, ops::any_ops()), |(setup, ops)| {
        let mut run = Run::new(setup);
        ops.iter().for_each(|op| run.step(op));
        run.tally
    });
    let sum = |of: fn(&Tally) -> u64| runs.iter().map(of).sum::<u64>();
    for (what, count, least) in [
        ("refused", sum(|tally| tally.refused), 100),
        ("evicted", sum(|tally| tally.evicted), 100),
        ("expired", sum(|tally| tally.expired), 100),
        ("invalid", sum(|tally| tally.invalid), 100),
        ("challenged", sum(|tally| tally.challenged), 50),
        ("limited", sum(|tally| tally.limited), 100),
        ("martians", sum(|tally| tally.martians), 50),
        ("RSTs", sum(|tally| tally.resets), 100),
        ("late", sum(|tally| tally.late), 100),
        ("readmitted", sum(|tally| tally.readmitted), 10),
        ("adopted", sum(|tally| tally.adopted), 50),
        ("of another zone", sum(|tally| tally.other_zone), 10),
        ("of another GRE key", sum(|tally| tally.of_pair), 10),
        ("revoked", sum(|tally| tally.revoked), 50),
        ("kept", sum(|tally| tally.kept), 20),
        ("restored", sum(|tally| tally.restored), 50),
    ] {
        assert!(count >= least, "{what}: {count}");
    }
    for (place, reason) in EndReason::ALL.into_iter().enumerate() {
        let count: u64 = runs.iter().map(|tally| tally.by_reason[place]).sum();
        // Deletions are not among the operations: see tests/it/deletion.rs.
        let elsewhere = [EndReason::Deleted, EndReason::FtpRefused];
        assert_eq!(count > 0, !elsewhere.contains(&reason), "{}", reason.name());
    }
}

const WEB: u16 = 80;

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    tcp(ends, head, &[], &[])
}

fn pass(run: &mut Run, packets: &[Vec<u8>]) {
    for bytes in packets {
        let verdict = run.packet(0, bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
        run.compare();
    }
}

fn handshake(ends: Ends) -> [Vec<u8>; 3] {
    [
        segment(ends, SYN, 100, 0),
        segment(ends.back(), SYN | ACK, 500, 101),
        segment(ends, ACK, 101, 501),
    ]
}

fn sessions_of(run: &Run, class: EvictionClass) -> usize {
    let stats = run.engine.stats();
    let found = stats
        .sessions_by_worth
        .iter()
        .find(|(each, _)| *each == class);
    found.map_or(0, |(_, count)| *count)
}

#[test]
fn a_flood_of_syns_evicts_its_own_then_the_closing_and_never_an_established_connection() {
    let mut run = Run::new(Setup::plain(4, 1));
    // A slot of the other zone stays there.
    for bytes in handshake(Ends::v4(9, WEB)) {
        assert!(run.packet(1, &bytes).is_forward());
        run.compare();
    }
    let established = Ends::v4(1, WEB);
    let closing = Ends::v4(2, WEB);
    pass(&mut run, &handshake(established));
    pass(&mut run, &handshake(closing));
    pass(&mut run, &[segment(closing, FIN | ACK, 101, 501)]);
    // Half-closed for longer than its grace period.
    run.now += Duration::from_secs(30);
    for port in 1000..1100 {
        pass(&mut run, &[segment(Ends::v4(port, WEB), SYN, 7, 0)]);
        assert_eq!(
            (
                sessions_of(&run, EvictionClass::Closing),
                sessions_of(&run, EvictionClass::Assured)
            ),
            (1, 2)
        );
    }
    assert_eq!(run.tally.evicted, 99);
    // The last session of the flood becomes a connection: no embryonic session is left, so the
    // closing one is evicted next.
    let last = Ends::v4(1099, WEB);
    pass(
        &mut run,
        &[
            segment(last.back(), SYN | ACK, 500, 8),
            segment(last, ACK, 8, 501),
        ],
    );
    pass(&mut run, &[segment(Ends::v4(2000, WEB), SYN, 7, 0)]);
    assert_eq!(
        (
            sessions_of(&run, EvictionClass::Closing),
            sessions_of(&run, EvictionClass::Assured)
        ),
        (0, 3)
    );
    // If all are established, the new session is refused.
    let newcomer = Ends::v4(2000, WEB);
    pass(
        &mut run,
        &[
            segment(newcomer.back(), SYN | ACK, 500, 8),
            segment(newcomer, ACK, 8, 501),
        ],
    );
    let refused = run.packet(0, &segment(Ends::v4(3000, WEB), SYN, 7, 0));
    assert_eq!(refused.reason(), Some(DropReason::TableFull));
    assert_eq!(sessions_of(&run, EvictionClass::Assured), 4);
    assert_eq!(run.engine.assured_sessions(), 4);
    let openings = run.engine.openings();
    assert_eq!((openings.opened, openings.refused), (104, 1));
}

#[test]
fn an_expired_session_never_counts_against_the_bound() {
    // One slot belongs to the other zone.
    let mut run = Run::new(Setup::plain(3, 1));
    for port in [1, 2] {
        pass(&mut run, &handshake(Ends::v4(port, WEB)));
    }
    let newcomer = udp(Ends::v4(3, 53), b"question");
    assert!(!run.packet(0, &newcomer).is_forward());
    run.now += Duration::from_secs(3_600);
    pass(&mut run, &[newcomer]);
    assert_eq!((run.tally.evicted, run.tally.expired), (0, 1));
}

#[test]
fn a_refused_connection_leaves_the_counts_of_worth_right() {
    let mut run = Run::new(Setup::plain(2, 1));
    let ends = Ends::v4(1, WEB);
    pass(
        &mut run,
        &[
            segment(ends, SYN, 100, 0),
            segment(ends.back(), RST | ACK, 0, 101),
        ],
    );
    assert_eq!(run.engine.sessions(), 0);
    assert_eq!(sessions_of(&run, EvictionClass::Embryonic), 0);
}

/// `expire` is not called for hours; then all sessions of a full table are over and new ones come.
#[test]
fn a_session_that_was_over_is_not_called_evicted() {
    let mut run = Run::new(Setup::plain(6, 1));
    let question = |talk| Op::Udp { talk, reply: false };
    run.step(&question(0));
    run.step(&Op::Advance(Duration::from_millis(23_000_401)));
    for talk in [2, 1, 6, 0, 4] {
        run.step(&question(talk));
    }
    run.step(&Op::Advance(Duration::from_millis(30_100)));
    run.step(&Op::Handshake { talk: 0 });
    run.step(&question(5));
    assert_eq!(run.tally.evicted, 0);
}

/// A flood of SYNs evicts its own oldest sessions, so a pending handshake has the time of the whole
/// table.
#[test]
fn a_full_table_evicts_the_embryonic_session_closest_to_its_end() {
    let mut config = portcullis::Config::allow_all();
    config.table.max_sessions = 64;
    // The time of the whole table, not a shorter one.
    (config.table.adaptive_start, config.table.adaptive_end) = (0, 0);
    // Challenges would keep the flood out of the table.
    config.syn_challenge.mode = ChallengeMode::Off;
    let engine = portcullis::Engine::with_seed(&config, [7; 4]).unwrap();
    let base = Instant::now();
    for n in 0..2_000u16 {
        let now = base + Duration::from_millis(u64::from(n));
        let ends = Ends {
            src: (n % 200) as u8 + 3,
            ..Ends::v4(1_000 + n, WEB)
        };
        let syn = segment(ends, SYN, 100, 0);
        assert!(engine.verdict_only(Packet::new(&syn, now)).is_forward());
    }
    let mut ports = Vec::new();
    engine.for_each_session(|session| ports.push(session.src_port));
    ports.sort_unstable();
    assert_eq!(ports, (3_000 - 64..3_000).collect::<Vec<u16>>());
}
