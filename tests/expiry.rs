//! Sessions live exactly as long as the documented rules say: a model with exact deadlines against the engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::time::Duration;

use portcullis::config::TombstonesConfig;
use portcullis::lifetime::{LifetimeClass, Lifetimes};
use portcullis::session::TICK;
use portcullis::{Class, DropReason};
use proptest::prelude::*;
use support::model::{Run, Setup};
use support::ops::{self, Op};
use support::packets::{ACK, Ends, Head, SYN, tcp, udp};

fn setup() -> impl Strategy<Value = Setup> {
    (
        prop_oneof![4u32..10, Just(64)],
        prop_oneof![Just(1u32), Just(2), Just(4)],
        (prop_oneof![0u32..4, Just(200)], 1_000u64..900_000),
        ops::settings(),
        any::<u64>(),
    )
        .prop_map(|(max_sessions, shards, (max, lifetime), settings, seed)| Setup {
            max_sessions,
            shards,
            tombstones: TombstonesConfig {
                max,
                lifetime: Duration::from_millis(lifetime),
            },
            settings,
            seed,
        })
}

proptest! {
    #![proptest_config(support::proptest_config())]

    /// No session ends before its lifetime, none is there a tick after it once `expire` has nothing more to do,
    /// and every one ends exactly once: see [`Run::compare`] and [`Run::expire`].
    #[test]
    fn the_engine_agrees_with_the_model_after_every_step(setup in setup(), ops in ops::ops()) {
        let mut run = Run::new(setup);
        for op in &ops {
            run.step(op);
        }
        // Time goes by until all is over.
        run.now += Duration::from_secs(100_000);
        while run.expire(7) {
            run.compare();
        }
        run.compare();
        prop_assert_eq!(run.engine.sessions(), 0);
        prop_assert_eq!(run.engine.next_expiry(), None);
    }

    /// The same with RSTs, tombstones, reloads and restarts at random moments: the records, the verdicts, what the sink is
    /// told and the counters are those that the documented rules predict, and a restored table goes on as the saved one
    /// would have.
    #[test]
    fn the_engine_agrees_with_the_model_through_reloads_and_restarts(setup in setup(), ops in ops::any_ops()) {
        let mut run = Run::new(setup);
        for op in &ops {
            run.step(op);
        }
        run.now += Duration::from_secs(100_000);
        while run.expire(7) {}
        run.compare();
        prop_assert_eq!(run.engine.sessions(), 0);
    }

    /// A caller that sleeps until `next_expiry` and then calls `expire` misses nothing and wakes for little.
    #[test]
    fn waking_at_next_expiry_ends_every_session_on_time(setup in setup(), ops in ops::ops()) {
        let mut run = Run::new(setup);
        for op in ops.iter().filter(|op| !matches!(op, Op::Advance(_) | Op::Expire { .. })) {
            run.step(op);
        }
        let sessions = run.engine.sessions();
        let mut wakes = 0;
        while let Some(next) = run.engine.next_expiry() {
            run.now += next.saturating_duration_since(run.instant());
            while run.expire(1000) {}
            run.compare();
            wakes += 1;
            // A session is hung up lower at most once a level of the wheel, in each shard.
            prop_assert!(wakes <= 7 * (sessions + 4), "{} wakes for {} sessions", wakes, sessions);
        }
        prop_assert_eq!(run.engine.sessions(), 0);
    }
}

const V4: Ends = Ends::v4(4000, 80);

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    tcp(ends, head, &[], &[])
}

fn lifetime(class: LifetimeClass) -> Duration {
    Lifetimes::default().of(class)
}

#[test]
fn a_repeated_syn_does_not_refresh_an_unanswered_session() {
    let mut run = Run::new(Setup::plain(8, 1));
    let syn = segment(V4, SYN, 100, 0);
    let _ = run.packet(0, &syn);
    let expires = run.records()[0].expires;
    run.now += lifetime(LifetimeClass::TcpSynSent) / 2;
    assert!(run.packet(0, &syn).is_forward());
    assert_eq!(run.records()[0].expires, expires);
    run.now += lifetime(LifetimeClass::TcpSynSent) / 2 + TICK;
    run.expire(10);
    assert_eq!(run.engine.sessions(), 0);
}

#[test]
fn a_keepalive_and_its_answer_refresh_an_established_session() {
    let mut run = Run::new(Setup::plain(8, 1));
    for bytes in [
        segment(V4, SYN, 100, 0),
        segment(V4.back(), SYN | ACK, 500, 101),
        segment(V4, ACK, 101, 501),
    ] {
        assert!(run.packet(0, &bytes).is_forward());
    }
    for round in 0..5 {
        let expires = run.records()[0].expires;
        run.now += lifetime(LifetimeClass::TcpEstablished) - Duration::from_secs(1);
        // One byte before the next one, which the other end has acknowledged long ago (RFC 9293 3.8.4).
        assert!(run.packet(0, &segment(V4, ACK, 100, 501)).is_forward());
        assert!(run.packet(0, &segment(V4.back(), ACK, 501, 101)).is_forward());
        assert!(run.records()[0].expires > expires, "round {round}");
        run.expire(10);
        assert_eq!(run.engine.sessions(), 1);
    }
}

#[test]
fn a_session_past_its_deadline_is_absent_although_nobody_called_expire() {
    let mut run = Run::new(Setup::plain(8, 1));
    let question = udp(V4, b"question");
    let first = run.packet(0, &question);
    run.now += lifetime(LifetimeClass::UdpUnreplied) + TICK;
    let second = run.packet(0, &udp(V4.back(), b"late"));
    assert_eq!(
        second.tracked().class,
        Class::New,
        "the late answer opens a session of its own"
    );
    assert_ne!(first.tracked().session, second.tracked().session);
    assert_eq!(run.engine.sessions(), 1);

    let mut run = Run::new(Setup::plain(8, 1));
    let _ = run.packet(0, &segment(V4, SYN, 100, 0));
    run.now += lifetime(LifetimeClass::TcpSynSent) + TICK;
    let late = run.packet(0, &segment(V4.back(), SYN | ACK, 500, 101));
    assert_eq!(late.reason(), Some(DropReason::TcpSynAckWithoutSyn));
    run.compare();
}

#[test]
fn a_session_is_there_until_the_last_millisecond_of_its_lifetime() {
    let mut run = Run::new(Setup::plain(8, 1));
    run.now += Duration::from_millis(37);
    let _ = run.packet(0, &udp(V4, b"question"));
    run.now += lifetime(LifetimeClass::UdpUnreplied) - Duration::from_millis(1);
    run.expire(10);
    assert_eq!(run.engine.sessions(), 1);
    assert_eq!(
        run.packet(0, &udp(V4.back(), b"answer")).tracked().class,
        Class::Established
    );
}
