//! Sessions live exactly as long as documented: a model with exact deadlines beside the engine.

use std::time::Duration;

use crate::support::model::{Run, Setup};
use crate::support::ops::{self, Op};
use crate::support::packets::{ACK, Ends, FIN, Head, SYN, tcp, udp};
use crate::support::scene::{Scene, dropped_for};
use portcullis::config::TombstonesConfig;
use portcullis::config::{LifetimeClass, Lifetimes};
use portcullis::session::TICK;
use portcullis::{Class, DropReason};
use proptest::prelude::*;

fn setup() -> impl Strategy<Value = Setup> {
    (
        prop_oneof![4u32..10, Just(64)],
        prop_oneof![Just(1u32), Just(2), Just(4)],
        (prop_oneof![0u32..4, Just(200)], 1_000u64..900_000),
        ops::settings(),
        any::<u64>(),
    )
        .prop_map(
            |(max_sessions, shards, (max, lifetime), settings, seed)| Setup {
                max_sessions,
                shards,
                tombstones: TombstonesConfig {
                    max,
                    lifetime: Duration::from_millis(lifetime),
                },
                settings,
                seed,
            },
        )
}

proptest! {
    #![proptest_config(crate::support::proptest_config())]

    /// No session ends before its lifetime, none exists a tick after it once `expire` has nothing
    /// more to do, and every session ends exactly once; see [`Run::compare`] and [`Run::expire`].
    #[test]
    fn the_engine_agrees_with_the_model_after_every_step(setup in setup(), ops in ops::ops()) {
        let mut run = Run::new(setup);
        for op in &ops {
            run.step(op);
        }
        // Time passes until all sessions have ended.
        run.now += Duration::from_secs(100_000);
        while run.expire(7) {
            run.compare();
        }
        run.compare();
        prop_assert_eq!(run.engine.sessions(), 0);
        prop_assert_eq!(run.engine.next_expiry(), None);
    }

    /// Adds RSTs, tombstones, reloads and restarts at random times: records, verdicts, events and
    /// counters are those that the documented rules predict, and a restored table continues as the
    /// saved one would have.
    #[test]
    fn the_engine_agrees_with_the_model_through_reloads_and_restarts(
        setup in setup(),
        ops in ops::any_ops(),
    ) {
        let mut run = Run::new(setup);
        for op in &ops {
            run.step(op);
        }
        run.now += Duration::from_secs(100_000);
        while run.expire(7) {}
        run.compare();
        prop_assert_eq!(run.engine.sessions(), 0);
    }

    /// A caller that sleeps until `next_expiry` and then calls `expire` misses nothing and rarely
    /// wakes up.
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
            // A session moves down at most once for each level of the wheel, in each shard.
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
        // One byte before the next one, acknowledged by the other end long ago (RFC 9293 3.8.4).
        assert!(run.packet(0, &segment(V4, ACK, 100, 501)).is_forward());
        assert!(
            run.packet(0, &segment(V4.back(), ACK, 501, 101))
                .is_forward()
        );
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

/// The states of the sessions that have ended within a time, and the RSTs that were sent for them.
fn ended_within(scene: &mut Scene, seconds: u64) -> (Vec<&'static str>, usize) {
    let received = scene.wait(seconds);
    let states = received
        .ended
        .iter()
        .map(|(record, _)| record.state)
        .collect();
    (states, received.resets.len())
}

#[test]
fn a_half_closed_connection_lives_as_long_as_an_established_one() {
    let mut scene = Scene::new("");
    scene.handshake(V4);
    scene.pass(V4, ACK | FIN, 101, 501, b"");
    assert_eq!(scene.record().state, "FIN_WAIT");
    assert_eq!(ended_within(&mut scene, 280), (vec![], 0));
    scene.pass(V4.back(), ACK, 501, 102, b"");
    assert_eq!(scene.record().state, "CLOSE_WAIT");
    assert_eq!(ended_within(&mut scene, 339), (vec![], 0));
    scene.pass(V4.back(), ACK, 501, 102, b"the answer");
    scene.pass(V4, ACK, 102, 511, b"");
    assert_eq!(ended_within(&mut scene, 341), (vec!["CLOSE_WAIT"], 2));
}

#[test]
fn a_completed_handshake_ends_the_lifetimes_of_the_handshake() {
    let mut scene = Scene::new("[lifetimes]\ntcp.established = \"2s\"\n[gwlb]\nenabled = false\n");
    let ends = Ends::v4(4000, 80);
    scene.pass(ends, SYN, 100, 0, b"");
    scene.pass(ends.back(), SYN | ACK, 500, 101, b"");
    scene.pass(ends, ACK, 101, 501, b"");
    let left = scene.record().expires.duration_since(scene.now);
    assert!(left <= Duration::from_secs(2) + TICK, "{left:?}");
    let (states, resets) = ended_within(&mut scene, 3);
    assert_eq!((states, resets), (vec!["ESTABLISHED"], 2));
}

#[test]
fn data_refreshes_a_half_closed_connection_by_its_whole_lifetime() {
    let mut scene = Scene::new("");
    scene.handshake(V4);
    scene.pass(V4, ACK | FIN, 101, 501, b"");
    scene.pass(V4.back(), ACK, 501, 102, b"");
    for round in 0..20 {
        scene.pass(V4.back(), ACK, 501 + 10 * round, 102, b"ten bytes!");
        scene.pass(V4, ACK, 102, 511 + 10 * round, b"");
        let left = scene.record().expires.duration_since(scene.now);
        assert!(left >= lifetime(LifetimeClass::TcpEstablished), "{left:?}");
        assert_eq!(ended_within(&mut scene, 339), (vec![], 0), "round {round}");
    }
}

/// The acknowledgment of the first FIN is late, so the FIN is repeated: one direction is still
/// open.
#[test]
fn a_fin_that_is_repeated_closes_one_half_only() {
    let story = |scene: &mut Scene, first: Ends, [own, other]: [u32; 2]| {
        scene.handshake(V4);
        scene.pass(first, ACK | FIN, own, other, b"");
        scene.now += Duration::from_millis(300);
        scene.pass(first, ACK | FIN, own, other, b"");
        assert_eq!(scene.record().state, "FIN_WAIT");
        scene.pass(first.back(), ACK, other, own + 1, b"");
        scene.pass(first, ACK | FIN, own, other, b"");
        assert_eq!(scene.record().state, "CLOSE_WAIT");
        assert!(ended_within(scene, 299).0.is_empty());
        scene.pass(first.back(), ACK, other, own + 1, b"answer");
        scene.pass(first, ACK, own + 1, other + 6, b"");
        scene.pass(first.back(), ACK | FIN, other + 6, own + 1, b"");
        assert_eq!(scene.record().state, "LAST_ACK");
        scene.pass(first, ACK, own + 1, other + 7, b"");
        assert_eq!(scene.record().state, "TIME_WAIT");
    };
    story(&mut Scene::new(""), V4, [101, 501]);
    story(&mut Scene::new(""), V4.back(), [501, 101]);
}

#[test]
fn half_closed_connections_follow_the_established_ones_unless_they_are_set() {
    let hour = "[[lifetimes.override]]\nprotocol = \"tcp\"\nports = 80\ntcp.established = \"1h\"\n";
    for (toml, seconds) in [
        ("[lifetimes]\ntcp.established = \"1h\"\n".to_owned(), 3600),
        (hour.to_owned(), 3600),
        (format!("[lifetimes]\ntcp.close_wait = \"70s\"\n{hour}"), 70),
        (format!("{hour}tcp.close_wait = \"20s\"\n"), 20),
    ] {
        let mut scene = Scene::new(&toml);
        scene.handshake(V4);
        scene.pass(V4, ACK | FIN, 101, 501, b"");
        scene.pass(V4.back(), ACK, 501, 102, b"");
        assert_eq!(ended_within(&mut scene, seconds - 1), (vec![], 0), "{toml}");
        assert_eq!(
            ended_within(&mut scene, 2),
            (vec!["CLOSE_WAIT"], 2),
            "{toml}"
        );
    }
}

/// A UDP conversation to a port: for each packet, whether the responder sends it, and the preceding
/// milliseconds.
fn conversation(toml: &str, port: u16, packets: &[(bool, u64)]) -> (&'static str, Duration) {
    let ends = Ends::v4(4000, port);
    let mut scene = Scene::new(toml);
    for (answers, wait) in packets {
        scene.now += Duration::from_millis(*wait);
        let ends = if *answers { ends.back() } else { ends };
        assert!(scene.udp(ends).is_forward());
    }
    let record = scene.record();
    (record.state, record.expires.duration_since(scene.now))
}

#[test]
fn one_udp_exchange_is_kept_for_less_than_a_conversation() {
    const ASK: (bool, u64) = (false, 10);
    const ANSWER: (bool, u64) = (true, 10);
    let whole = |(state, left): (&'static str, Duration)| (state, left.as_secs());
    let said = |port, packets: &[(bool, u64)]| whole(conversation("", port, packets));
    assert_eq!(said(5000, &[ASK, ANSWER]), ("EXCHANGE", 30));
    assert_eq!(said(5000, &[ASK, ANSWER, ASK]), ("REPLIED", 110));
    assert_eq!(said(5000, &[ASK, ANSWER, ANSWER]), ("REPLIED", 110));
    assert_eq!(said(5000, &[ASK, ASK, ANSWER]), ("REPLIED", 110));
    assert_eq!(said(5000, &[ASK, ANSWER, (false, 25_000)]), ("STREAM", 110));
    // A and AAAA queries from one port, and one of them repeated.
    assert_eq!(
        said(53, &[ASK, ASK, ANSWER, ANSWER, ASK, ANSWER]),
        ("EXCHANGE", 30)
    );
    assert_eq!(
        said(53, &[ASK, ANSWER, (false, 2_000), ANSWER]),
        ("STREAM", 110)
    );
    // An answer from port 53 alone does not make its sender a server.
    let back = Ends::v4(53, 5000);
    let scene = Scene::new("");
    for ends in [back, back, back.back()] {
        assert!(scene.udp(ends).is_forward());
    }
    assert_eq!(scene.record().state, "REPLIED");

    let toml = "[lifetimes]\nudp.replied = \"60s\"\n";
    assert_eq!(
        whole(conversation(toml, 5000, &[ASK, ANSWER])),
        ("EXCHANGE", 60)
    );
    let toml = "[lifetimes]\nudp.replied = \"60s\"\nudp.exchange = \"5s\"\n";
    assert_eq!(
        whole(conversation(toml, 5000, &[ASK, ANSWER])),
        ("EXCHANGE", 5)
    );
}

#[test]
fn an_answer_after_a_minute_belongs_to_its_conversation() {
    let mut scene = Scene::new(
        "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"out\"\naction = \"allow\"\n\
         source = \"10.0.0.1\"\n",
    );
    let ends = Ends::v4(4500, 4500);
    for ends in [ends, ends.back(), ends] {
        assert!(scene.udp(ends).is_forward());
    }
    scene.wait(109);
    assert!(scene.udp(ends.back()).is_forward());
    scene.wait(111);
    dropped_for(&scene.udp(ends.back()), DropReason::PolicyDeny);
}

#[test]
fn a_deadline_that_a_reload_puts_before_an_earlier_clock_is_due_at_once() {
    let ends = Ends::v4(4_000, 9);
    let toml =
        "[lifetimes]\ntcp.syn_sent = \"16s\"\nudp.unreplied = \"20s\"\n[table]\nshards = 1\n";
    let mut scene = Scene::new(toml);
    assert!(scene.udp(ends).is_forward());
    scene.pass(ends, SYN, 100, 0, b"");
    assert_eq!(
        scene.wait(16).ended.len(),
        1,
        "the wheel is at its deadline"
    );
    // Another thread has an older clock, by which the session has half a second left.
    scene.now -= Duration::from_millis(1_500);
    let (done, _) = scene.reload(&toml.replace("20s", "15s"));
    assert_eq!(done.retimed, 1);
    scene.engine.check_invariants().unwrap();
    assert!(scene.engine.next_expiry().is_some());
    scene.wait(1);
    assert_eq!(scene.engine.sessions(), 1, "the wheel is still ahead");
    assert_eq!(scene.wait(1).ended.len(), 1);
    scene.engine.check_invariants().unwrap();
}
