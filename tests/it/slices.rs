//! Operations that walk the session table in slices, and packets that come between the slices.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::support::packets::{Ends, udp};
use crate::support::scene::{Received, config};
use portcullis::{
    Config, Discard, EndReason, Engine, Packet, Reload, SessionFilter, SessionId, SessionRecord,
    Sink,
};

/// Enough for several slices of a single shard.
const SESSIONS: u16 = 400;

const OPEN: &str = "[table]\nmax_sessions = 1024\nshards = 1\n[policy]\ndefault = \"allow\"\n";

/// Denies every 40th port, of which the first slice has some.
fn narrow(lifetime: u32) -> Config {
    let ports: Vec<u16> = denied().collect();
    config(&format!(
        "{OPEN}on_reload = \"end\"\n[[policy.rule]]\nname = \"shut\"\naction = \"deny\"\n\
         protocol = \"udp\"\ndestination_ports = {ports:?}\n\
         [lifetimes]\nudp.unreplied = \"{lifetime}s\"\n"
    ))
}

fn denied() -> impl Iterator<Item = u16> {
    (1_000..1_000 + SESSIONS).filter(|port| port % 40 == 0)
}

fn datagram(port: u16) -> Vec<u8> {
    udp(Ends::v4(4_000, port), b"?")
}

fn filled(now: Instant) -> Engine {
    let engine = Engine::with_seed(&config(OPEN), [1, 2, 3, 4]).unwrap();
    for port in 1_000..1_000 + SESSIONS {
        assert!(
            engine
                .verdict_only(Packet::new(&datagram(port), now))
                .is_forward()
        );
    }
    engine
}

/// Calls a closure once, between the first slice in which a session ends and the next one.
struct Between<F: FnMut()> {
    then: Option<F>,
    received: Received,
}

impl<F: FnMut()> Between<F> {
    fn new(then: F) -> Self {
        Self {
            then: Some(then),
            received: Received::default(),
        }
    }
}

impl<F: FnMut()> Sink for Between<F> {
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.received.session_ended(session, reason);
        if let Some(mut then) = self.then.take() {
            then();
        }
    }
}

fn reload_with(
    engine: &Engine,
    new: &Config,
    now: Instant,
    then: impl FnMut(),
) -> (Reload, Received) {
    let mut sink = Between::new(then);
    let done = engine.reload(new, now, &mut sink).unwrap();
    assert!(sink.then.is_none(), "nothing has ended");
    (done, sink.received)
}

#[test]
fn the_first_packet_of_a_session_judges_it_before_the_reload_comes_to_it() {
    let now = Instant::now();
    let engine = filled(now);
    let (shut, open) = (1_360, 1_361);
    let mut received = Received::default();
    let (done, by_reload) = reload_with(&engine, &narrow(10), now, || {
        // The reload has reached slot 16 of 400.
        assert_eq!(engine.stats().sessions_opened, u64::from(SESSIONS));
        let verdict = engine.process_with(Packet::new(&datagram(shut), now), &mut received);
        assert!(!verdict.is_forward(), "{verdict:?}");
        assert!(
            engine
                .verdict_only(Packet::new(&datagram(open), now))
                .is_forward()
        );
        let mut left = None;
        engine.for_each_session(|session| {
            if session.dst_port == open {
                left = Some(session.expires - now);
            }
        });
        let left = left.unwrap();
        assert!(
            left <= Duration::from_millis(10_100),
            "the old lifetime: {left:?}"
        );
    });
    assert_eq!(received.ended.len(), 1);
    assert_eq!(received.ended[0].0.dst_port, shut);
    assert_eq!(received.ended[0].1, EndReason::Revoked);
    let shut_ports = denied().count();
    assert_eq!(by_reload.ended.len(), shut_ports - 1);
    let expected = (usize::from(SESSIONS), shut_ports, 0);
    assert_eq!((done.judged, done.revoked, done.expired), expected);
    assert_eq!(done.retimed, usize::from(SESSIONS) - shut_ports);
    assert_eq!(engine.sessions(), usize::from(SESSIONS) - shut_ports);
    engine.check_invariants().unwrap();
}

#[test]
fn a_session_that_is_opened_during_a_reload_is_not_judged_by_it() {
    let now = Instant::now();
    let engine = filled(now);
    let (done, _) = reload_with(&engine, &narrow(10), now, || {
        // Into the slots that have become free, and after the last one.
        for port in 3_000..3_050 {
            assert!(
                engine
                    .verdict_only(Packet::new(&datagram(port), now))
                    .is_forward()
            );
        }
    });
    assert_eq!(done.judged, usize::from(SESSIONS));
    assert_eq!(
        engine.sessions(),
        usize::from(SESSIONS) + 50 - denied().count()
    );
    engine.check_invariants().unwrap();
}

#[test]
fn a_session_that_ends_during_a_reload_is_not_judged() {
    let now = Instant::now();
    let engine = filled(now);
    let mut deleted = 0;
    let (done, _) = reload_with(&engine, &narrow(10), now, || {
        let filter = SessionFilter {
            ports: vec![portcullis::policy::PortRange {
                first: 1_390,
                last: 1_399,
            }],
            ..SessionFilter::default()
        };
        deleted = engine.end_sessions(&filter, now, &mut Discard);
    });
    assert_eq!((deleted, done.judged), (10, usize::from(SESSIONS) - 10));
    engine.check_invariants().unwrap();
}

#[test]
fn expiry_during_a_reload_sees_no_lifetime_of_the_old_settings() {
    let now = Instant::now();
    let engine = filled(now);
    let later = now + Duration::from_secs(40);
    // By the old lifetime of 30 s all sessions have expired by then; by the new one, none.
    let mut ended = 0;
    let (done, _) = reload_with(&engine, &narrow(300), now, || {
        let (before, mut told) = (engine.sessions(), 0);
        loop {
            let step = engine.expire_with(later, 100, &mut Discard);
            told += step.ended;
            if !step.more {
                break;
            }
        }
        ended = usize::from(SESSIONS) - engine.sessions();
        assert_eq!(told, before - engine.sessions(), "ended, and not told");
    });
    assert_eq!(ended, denied().count(), "only the denied ones");
    assert_eq!(done.judged, usize::from(SESSIONS));
    assert_eq!(done.retimed, usize::from(SESSIONS) - denied().count());
    engine.check_invariants().unwrap();
}

#[test]
fn a_newer_reload_finishes_a_shard_that_an_older_one_has_begun() {
    let now = Instant::now();
    let engine = filled(now);
    let mut newer = Reload::default();
    let (older, _) = reload_with(&engine, &narrow(10), now, || {
        newer = engine.reload(&config(OPEN), now, &mut Discard).unwrap();
    });
    assert_eq!(
        (older.judged, older.revoked),
        (usize::from(SESSIONS), denied().count())
    );
    assert_eq!(newer.judged, usize::from(SESSIONS) - denied().count());
    assert_eq!((newer.revoked, newer.retimed), (0, newer.judged));
    engine.check_invariants().unwrap();
}

#[test]
fn a_preview_during_a_reload_is_of_what_the_reload_leaves() {
    let now = Instant::now();
    let engine = filled(now);
    let deny = config(&OPEN.replace("allow", "deny"));
    let mut previewed = HashSet::new();
    reload_with(&engine, &narrow(10), now, || {
        let would_end = engine.preview(&deny, now).unwrap();
        previewed = would_end.iter().map(|(session, _)| session.id).collect();
    });
    let mut left = HashSet::new();
    engine.for_each_session(|session| {
        left.insert(session.id);
    });
    assert_eq!(previewed, left);
}

#[test]
fn a_walk_sees_each_session_once_whatever_comes_and_goes() {
    let now = Instant::now();
    let engine = filled(now);
    let lasting: HashSet<u16> = (1_000..1_000 + SESSIONS)
        .filter(|port| port % 3 == 0)
        .collect();
    let mut seen: Vec<(SessionId, u16)> = Vec::new();
    let mut next = 5_000;
    engine.for_each_session(|session| {
        seen.push((session.id, session.dst_port));
        if !lasting.contains(&session.dst_port) {
            let filter = SessionFilter {
                ids: vec![session.id],
                ..SessionFilter::default()
            };
            engine.end_sessions(&filter, now, &mut Discard);
            if next < 5_100 {
                assert!(
                    engine
                        .verdict_only(Packet::new(&datagram(next), now))
                        .is_forward()
                );
                next += 1;
            }
        }
    });
    let ids: HashSet<SessionId> = seen.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), seen.len(), "one is seen twice");
    let ports: HashSet<u16> = seen.iter().map(|(_, port)| *port).collect();
    assert!(lasting.is_subset(&ports));
}

#[test]
fn a_walk_ends_when_it_is_broken_off() {
    let engine = filled(Instant::now());
    let mut seen = 0;
    let found = engine.try_each_session(|session| {
        seen += 1;
        match seen {
            3 => ControlFlow::Break(session.id),
            _ => ControlFlow::Continue(()),
        }
    });
    assert!(found.is_break() && seen == 3, "{found:?}");
    let all = engine.try_each_session(|_| -> ControlFlow<()> { ControlFlow::Continue(()) });
    assert!(all.is_continue());
}

#[test]
fn zones_have_names_in_the_settings_in_force() {
    let before =
        format!("{OPEN}[zones]\nblue = 7\nred = 9\n[zone_groups]\nboth = [\"blue\", \"red\"]\n");
    let engine = Engine::new(&config(&before)).unwrap();
    let number = |name| engine.zone_named(name).map(|zone| zone.0);
    assert_eq!(["blue", "red", "both"].map(number), [Some(7); 3]);
    assert_eq!((number("default"), number("green")), (Some(0), None));
    let after = before.replace("[zone_groups]", "green = 11\n[zone_groups]");
    let reloaded = engine.reload(&config(&after), Instant::now(), &mut Discard);
    assert!(reloaded.is_ok(), "{reloaded:?}");
    assert_eq!(number("green"), Some(11));
}

#[test]
fn a_session_is_found_by_its_name_and_no_other() {
    let now = Instant::now();
    let engine = filled(now);
    engine.for_each_session(|session| {
        assert_eq!(engine.inspect(session.id, now).unwrap().record, *session);
    });
    let ids: Vec<SessionId> = {
        let mut ids = Vec::new();
        engine.for_each_session(|session| ids.push(session.id));
        ids
    };
    engine.end_sessions(&SessionFilter::default(), now, &mut Discard);
    assert!(ids.iter().all(|id| engine.inspect(*id, now).is_none()));
    let unknown = SessionId::from_number(u64::MAX).unwrap();
    assert!(engine.inspect(unknown, now).is_none());
}

#[test]
fn sessions_are_counted_by_zone_protocol_and_state() {
    let now = Instant::now();
    let engine = filled(now);
    let bytes = datagram(9);
    let other = Packet::new(&bytes, now).zone(portcullis::Zone(3));
    assert!(engine.verdict_only(other).is_forward());
    let counts: Vec<_> = engine
        .count_sessions()
        .into_iter()
        .map(|count| (count.zone.0, count.protocol, count.state, count.sessions))
        .collect();
    let state = engine_state(&engine);
    assert_eq!(
        counts,
        [(0, 17, state, u64::from(SESSIONS)), (3, 17, state, 1)]
    );
}

/// The state of all sessions.
fn engine_state(engine: &Engine) -> &'static str {
    let mut states = std::collections::BTreeSet::new();
    engine.for_each_session(|session| {
        states.insert(session.state);
    });
    assert_eq!(states.len(), 1, "{states:?}");
    states.pop_first().unwrap()
}
