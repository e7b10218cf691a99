//! Sessions that go on in another engine: records, the sweep that hands them out, epochs and
//! owners.

use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use crate::support::packets::{ACK, Ends, FIN, RST, SYN};
use crate::support::scene::{Received, Scene, segment};
use crate::support::site::{EPOCH, Site, Store};
use portcullis::continuity::{
    Claim, Resumed, STORED_VERSION, StoreWhen, StoredError, StoredSession, SweepCursor, SweepTime,
};
use portcullis::{Answer, Answered, EndReason, Engine, Packet, QuestionKind, Zone};

const ENDS: Ends = Ends::v4(4000, 80);
const STORED: &str = "[continuity]\nenabled = true\n";
const FROM_1: &str = "[[policy.rule]]\nname = \"from-1\"\naction = \"allow\"\n\
                      source = [\"10.0.0.1/32\"]\n";

/// The wall-clock time of a scene's first moment.
fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + EPOCH
}

/// Runs one round of the sweep, and returns the records that are due.
fn swept(scene: &Scene, cursor: &mut SweepCursor, when: &StoreWhen) -> Vec<StoredSession> {
    let mut due = Vec::new();
    let time = SweepTime {
        now: scene.now,
        at: at(),
    };
    loop {
        let done = scene.engine.sweep(cursor, time, when, |flow, stored| {
            assert!(stored.is_of(flow));
            due.push(stored.clone());
        });
        if done.round_ended {
            return due;
        }
    }
}

fn when() -> StoreWhen {
    StoreWhen {
        min_age: Duration::from_secs(2),
        refresh_interval: Duration::from_secs(10),
        refresh_bytes: 5_000,
        ..StoreWhen::default()
    }
}

fn number_of_due(scene: &Scene, cursor: &mut SweepCursor) -> usize {
    swept(scene, cursor, &when()).len()
}

/// Returns the record of the session of a scene.
fn record(scene: &Scene) -> StoredSession {
    let name = scene.engine.flow_name(&scene.record().flow().unwrap());
    scene.engine.find_stored(&name, scene.now, at()).unwrap()
}

/// Returns a later scene with its own engine.
fn another(old: &Scene, toml: &str) -> Scene {
    Scene {
        now: old.now,
        ..Scene::new(toml)
    }
}

#[test]
fn a_session_is_due_once_it_is_old_and_again_when_it_has_moved_or_changed() {
    let mut scene = Scene::new(STORED);
    let mut cursor = SweepCursor::default();
    scene.pass(ENDS, SYN, 100, 0, b"");
    scene.wait(3);
    assert_eq!(number_of_due(&scene, &mut cursor), 0, "not assured");
    scene.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
    scene.pass(ENDS, ACK, 101, 501, b"");
    assert_eq!(number_of_due(&scene, &mut cursor), 1);
    scene.wait(20);
    assert_eq!(number_of_due(&scene, &mut cursor), 0, "it has not moved");
    scene.pass(ENDS, ACK, 101, 501, b"x");
    assert_eq!(number_of_due(&scene, &mut cursor), 1, "after the interval");
    scene.pass(ENDS, ACK, 102, 501, b"x");
    assert_eq!(number_of_due(&scene, &mut cursor), 0, "within the interval");
    for n in 0..6u32 {
        scene.pass(ENDS, ACK, 103 + n * 1_000, 501, &[0; 1_000]);
        scene.pass(ENDS.back(), ACK, 501, 1_103 + n * 1_000, b"");
    }
    assert_eq!(number_of_due(&scene, &mut cursor), 1, "after many bytes");
    scene.pass(ENDS.back(), FIN | ACK, 501, 6_103, b"");
    assert_eq!(
        number_of_due(&scene, &mut cursor),
        1,
        "its state has changed"
    );
    assert_eq!(number_of_due(&scene, &mut cursor), 0);
    let name = scene.engine.flow_name(&scene.record().flow().unwrap());
    scene.engine.store_again(&name);
    assert_eq!(number_of_due(&scene, &mut cursor), 1, "the record was lost");
    let everything = StoreWhen {
        everything: true,
        ..when()
    };
    assert_eq!(swept(&scene, &mut cursor, &everything).len(), 1);
}

#[test]
fn only_the_chosen_protocols_and_rules_are_stored() {
    let rules = "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                 destination_ports = 80\n[[policy.rule]]\nname = \"rest\"\naction = \"allow\"\n";
    let mut scene = Scene::new(&format!("{rules}{STORED}"));
    scene.handshake(ENDS);
    scene.handshake(Ends::v4(4000, 81));
    let _ = scene.udp(Ends::v4(4000, 53));
    let _ = scene.udp(Ends::v4(4000, 53).back());
    scene.wait(3);
    let web = scene.engine.policy().rule_named("web").unwrap();
    let due = |change: &dyn Fn(&mut StoreWhen)| {
        let mut when = StoreWhen {
            everything: true,
            ..when()
        };
        change(&mut when);
        let all = swept(&scene, &mut SweepCursor::default(), &when);
        all.into_iter()
            .map(|stored| stored.session.dst_port)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(&|when| when.rules = Some([web].into())), [80]);
    assert_eq!(
        due(&|when| when.protocols = [17].into()).len(),
        2,
        "and the stored one"
    );
    assert_eq!(due(&|_| {}).len(), 3);
}

#[test]
fn only_sessions_of_resilient_rules_are_stored_where_that_is_asked_for() {
    let rules = "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                 destination_ports = 80\nresilient = true\n\
                 [[policy.rule]]\nname = \"rest\"\naction = \"allow\"\n";
    let mut scene = Scene::new(&format!("{rules}{STORED}"));
    scene.handshake(ENDS);
    scene.handshake(Ends::v4(4000, 81));
    scene.wait(3);
    let policy = scene.engine.policy();
    let is_resilient = |name| policy.is_resilient(policy.rule_named(name).unwrap());
    assert!(is_resilient("web") && !is_resilient("rest"));
    let ports = |resilient| {
        let when = StoreWhen {
            resilient,
            ..when()
        };
        let all = swept(&scene, &mut SweepCursor::default(), &when);
        let ports = all.into_iter().map(|stored| stored.session.dst_port);
        ports.collect::<Vec<_>>()
    };
    assert_eq!(ports(true), [80]);
    assert_eq!(ports(false), [81], "the other one");
}

#[test]
fn nothing_is_stored_unless_the_configuration_says_so() {
    let mut scene = Scene::new("");
    scene.handshake(ENDS);
    scene.wait(3);
    let everything = StoreWhen {
        everything: true,
        ..when()
    };
    assert_eq!(swept(&scene, &mut SweepCursor::default(), &everything), []);
    let name = scene.engine.flow_name(&scene.record().flow().unwrap());
    assert_eq!(scene.engine.find_stored(&name, scene.now, at()), None);
    assert_eq!(scene.record().stored, None);
}

#[test]
fn a_record_reads_back_and_bytes_that_are_none_are_an_error() {
    let scene = Scene::new(&format!("{FROM_1}{STORED}"));
    scene.handshake(ENDS);
    let stored = record(&scene);
    let rule = (stored.zone.as_str(), stored.rule.as_str());
    assert_eq!(rule, ("default", "from-1"));
    let mut bytes = vec![7];
    stored.encode(&mut bytes);
    let bytes = bytes.split_off(1);
    assert_eq!(StoredSession::decode(&bytes), Ok(stored.clone()));
    assert!(bytes.len() < 200, "{} bytes", bytes.len());
    assert_eq!(bytes[..11], *b"\xb5\x02\x07default\x06", "names come first");
    for len in 2..bytes.len() {
        let torn = StoredSession::decode(&bytes[..len]);
        assert_eq!(torn, Err(StoredError::Unreadable), "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(StoredSession::decode(&longer), Err(StoredError::Unreadable));
    // A record of version 1 ends before the identifier: a presence byte and two numbers.
    let mut first = stored;
    first.session.uid = None;
    let mut bytes_of_first = Vec::new();
    first.encode(&mut bytes_of_first);
    bytes_of_first.pop();
    bytes_of_first[1] = 1;
    assert_eq!(StoredSession::decode(&bytes_of_first), Ok(first));
    let found = STORED_VERSION + 1;
    let later = [&[0xb5, found][..], &bytes[2..]].concat();
    assert_eq!(
        StoredSession::decode(&later),
        Err(StoredError::Version { found })
    );
    for foreign in [&b""[..], b"\xb5", b"PCULLIS\n"] {
        assert_eq!(StoredSession::decode(foreign), Err(StoredError::Foreign));
    }
}

proptest! {
    /// A changed record that decodes is resumed or refused, and the table stays in order.
    #[test]
    fn changed_records_do_no_harm(
        changes in prop::collection::vec((2usize..200, any::<u8>()), 1..6),
    ) {
        let scene = Scene::new(STORED);
        scene.handshake(ENDS);
        let mut bytes = Vec::new();
        record(&scene).encode(&mut bytes);
        for (place, value) in changes {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let new = another(&scene, STORED);
        if let Ok(stored) = StoredSession::decode(&bytes) {
            let _ = new.engine.resume(&stored, new.now, at());
            let _ = new.tcp(ENDS, ACK, 101, 501, b"x");
            new.engine.check_invariants().unwrap();
        }
    }
}

#[test]
fn zone_and_rule_of_a_record_are_those_of_the_same_names() {
    let toml = |zone: u16, first: &str| {
        format!(
            "[zones]\nlab = {zone}\n[policy]\ndefault = \"deny\"\n{first}{FROM_1}\
             zones = [\"lab\"]\n{STORED}"
        )
    };
    let old = Scene {
        zone: Zone(3),
        ..Scene::new(&toml(3, ""))
    };
    old.handshake(ENDS);
    let stored = record(&old);
    let other_rule = "[[policy.rule]]\nname = \"other\"\naction = \"allow\"\n\
                      source = [\"192.0.2.1/32\"]\n";
    let new = Scene {
        zone: Zone(9),
        ..another(&old, &toml(9, other_rule))
    };
    let resumed = new.engine.resume(&stored, new.now, at());
    assert!(matches!(resumed, Ok(Resumed::Resumed(_))), "{resumed:?}");
    let session = new.record();
    assert_eq!(session.zone, Zone(9));
    assert_eq!(session.uid, old.record().uid);
    assert_eq!(new.engine.policy().rule_name(session.rule), "from-1");
    new.pass(ENDS, ACK, 101, 501, b"x");
    // A zone of another name is not the session's.
    let foreign = another(&old, STORED);
    let refused = foreign.engine.resume(&stored, foreign.now, at());
    assert!(
        matches!(refused, Err(StoredError::Unsound(_))),
        "{refused:?}"
    );
}

#[test]
fn a_session_that_the_policy_forbids_or_whose_time_is_over_is_not_resumed() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let stored = record(&old);
    let forbids = another(&old, &format!("[policy]\ndefault = \"deny\"\n{STORED}"));
    let resume = |scene: &Scene, at: SystemTime| scene.engine.resume(&stored, scene.now, at);
    assert_eq!(resume(&forbids, at()), Ok(Resumed::Refused));
    let new = another(&old, STORED);
    let left = stored.time_left();
    assert_eq!(resume(&new, at() + left), Ok(Resumed::Expired));
    let slack = StoredSession::CLOCK_SLACK;
    let ahead = at() - slack - Duration::from_millis(1);
    assert_eq!(resume(&new, ahead), Err(StoredError::Future));
    assert_eq!(new.engine.sessions(), 0);
    let resumed = resume(&new, at() - slack);
    assert!(matches!(resumed, Ok(Resumed::Resumed(_))), "{resumed:?}");
    assert_eq!(resume(&new, at()), Ok(Resumed::Present));
}

#[test]
fn a_resumed_session_is_stored_at_once_with_the_next_epoch() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let stored = record(&old);
    assert_eq!((stored.epoch, old.record().stored), (0, Some(0)));
    let new = another(&old, STORED);
    new.engine.resume(&stored, new.now, at()).unwrap();
    assert_eq!(new.record().stored, Some(1));
    let mut cursor = SweepCursor::default();
    let due = swept(&new, &mut cursor, &when());
    assert_eq!(due.len(), 1, "regardless of its age");
    assert_eq!(due[0].epoch, 1);
    assert_eq!(swept(&new, &mut cursor, &when()), []);
}

#[test]
fn a_session_that_another_engine_took_over_ends_silently() {
    let scene = Scene::new(STORED);
    scene.handshake(ENDS);
    let name = scene.engine.flow_name(&scene.record().flow().unwrap());
    let claim = record(&scene).claim();
    let time = SweepTime {
        now: scene.now,
        at: at(),
    };
    let mut received = Received::default();
    let mut disown = |epoch| {
        let claim = Claim { epoch, ..claim };
        scene.engine.disown(&name, &claim, time, &mut received)
    };
    assert!(!disown(0), "it is of this epoch");
    assert!(disown(1));
    assert!(!disown(1), "it has ended");
    let reasons: Vec<_> = received.ended.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [EndReason::Moved]);
    assert_eq!(received.resets.len(), 0);
    assert_eq!(scene.engine.stats().tombstones, 0);
    scene.engine.check_invariants().unwrap();
}

#[test]
fn a_flow_that_comes_back_replaces_the_older_copy_of_its_session() {
    let first = Scene::new(STORED);
    first.handshake(ENDS);
    let own = first.record();
    let second = another(&first, STORED);
    second
        .engine
        .resume(&record(&first), second.now, at())
        .unwrap();
    // Far more than the first engine's window, and a FIN.
    second.pass(ENDS, ACK, 100_000_101, 200_000_501, b"");
    second.pass(ENDS.back(), ACK, 200_000_501, 100_000_101, b"");
    second.pass(ENDS.back(), FIN | ACK, 200_000_501, 100_000_101, b"");
    second.pass(ENDS, ACK, 100_000_101, 200_000_502, b"");
    let stored = record(&second);
    assert!(
        !first
            .tcp(ENDS, ACK, 100_000_101, 200_000_502, b"x")
            .is_forward()
    );
    let resumed = first.engine.resume(&stored, first.now, at());
    assert_eq!(resumed, Ok(Resumed::Upgraded(own.id)));
    first.engine.check_invariants().unwrap();
    let session = first.record();
    assert_eq!((session.state, session.stored), ("CLOSE_WAIT", Some(2)));
    first.pass(ENDS, ACK, 100_000_101, 200_000_502, b"x");
    first.pass(ENDS.back(), ACK, 200_000_502, 100_000_102, b"");
    first.pass(ENDS, FIN | ACK, 100_000_102, 200_000_502, b"");
    // An older record, or the same again, changes nothing.
    assert_eq!(
        first.engine.resume(&stored, first.now, at()),
        Ok(Resumed::Present)
    );
}

#[test]
fn a_session_that_was_adopted_midstream_is_known_by_its_record_then() {
    let adopt = format!("[tcp]\nmidstream = \"adopt\"\n{STORED}");
    // The engine takes the end with the lower port for the responder.
    let ends = Ends::v4(80, 4000);
    let old = Scene::new(STORED);
    old.handshake(ends);
    let stored = record(&old);
    let new = another(&old, &adopt);
    new.pass(ends.back(), ACK, 501, 101, b"answer");
    let adopted = new.record();
    assert_eq!((adopted.adopted, adopted.src_port), (true, 4000));
    let resumed = new.engine.resume(&stored, new.now, at());
    assert_eq!(resumed, Ok(Resumed::Upgraded(adopted.id)));
    new.engine.check_invariants().unwrap();
    let session = new.record();
    assert_eq!((session.id, session.src_port), (adopted.id, 80));
    assert_eq!((session.adopted, session.assured), (false, true));
    new.pass(ends.back(), ACK, 507, 101, b"more");
    new.pass(ends, ACK, 101, 511, b"");
    assert_eq!(new.engine.sessions(), 1);
}

#[test]
fn a_connection_that_has_opened_here_gives_way_to_no_record() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let new = another(&old, STORED);
    new.handshake(ENDS);
    let resumed = new.engine.resume(&record(&old), new.now, at());
    assert_eq!(resumed, Ok(Resumed::Present));
}

/// Returns the record of a connection that has moved often, and a scene in which its ends have
/// connected again so many seconds later.
fn reconnected(later: u64) -> (StoredSession, Scene) {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let mut stored = record(&old);
    stored.epoch = 9;
    let mut new = another(&old, STORED);
    new.wait(later);
    new.pass(ENDS, SYN, 9_000, 0, b"");
    new.pass(ENDS.back(), SYN | ACK, 70_000, 9_001, b"");
    new.pass(ENDS, ACK, 9_001, 70_001, b"");
    (stored, new)
}

#[test]
fn the_record_of_an_earlier_connection_neither_replaces_nor_ends_a_later_one() {
    for is_stored in [false, true] {
        let (leftover, new) = reconnected(6);
        let time = SweepTime {
            now: new.now,
            at: at() + Duration::from_secs(6),
        };
        let name = new.engine.flow_name(&new.record().flow().unwrap());
        if is_stored {
            let stored = new.engine.find_stored(&name, time.now, time.at);
            assert_eq!(stored.map(|stored| stored.epoch), Some(0));
        }
        let resumed = new.engine.resume(&leftover, time.now, time.at);
        assert_eq!(resumed, Ok(Resumed::Present));
        let mut received = Received::default();
        let claim = leftover.claim();
        assert!(!new.engine.disown(&name, &claim, time, &mut received));
        new.pass(ENDS, ACK, 9_001, 70_001, b"x");
        assert_eq!(new.record().stored, is_stored.then_some(0));
        // A later connection elsewhere ends this one, and so does the same one with a higher epoch.
        for (epoch, later, ends) in [(0, 5, false), (0, 12, true), (1, 5, true)] {
            let (_, new) = reconnected(6);
            let claim = Claim {
                epoch,
                began: at() + Duration::from_secs(later),
                ..claim
            };
            let ended = new.engine.disown(&name, &claim, time, &mut received);
            assert_eq!(ended, ends, "{epoch} {later}");
        }
    }
}

#[test]
fn the_copy_of_an_earlier_connection_gives_way_whatever_its_epoch() {
    let (leftover, mut new) = reconnected(6);
    let name = new.engine.flow_name(&new.record().flow().unwrap());
    let at = at() + Duration::from_secs(6);
    let later = new.engine.find_stored(&name, new.now, at).unwrap();
    let stale = another(&new, STORED);
    let resumed = stale.engine.resume(&leftover, stale.now, at);
    assert!(matches!(resumed, Ok(Resumed::Resumed(_))), "{resumed:?}");
    assert_eq!(stale.record().stored, Some(10));
    let resumed = stale.engine.resume(&later, stale.now, at);
    assert!(matches!(resumed, Ok(Resumed::Upgraded(_))), "{resumed:?}");
    assert_eq!(stale.record().stored, Some(1));
    stale.pass(ENDS, ACK, 9_001, 70_001, b"x");
    // Within the slack of the clocks the two are one connection, and the epoch decides.
    (_, new) = reconnected(5);
    let at = at - Duration::from_secs(1);
    let _ = new.engine.find_stored(&name, new.now, at);
    let resumed = new.engine.resume(&leftover, new.now, at);
    assert!(matches!(resumed, Ok(Resumed::Upgraded(_))), "{resumed:?}");
}

#[test]
fn an_adopted_session_gives_way_to_a_record_that_is_older_than_its_adoption() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let mut stored = record(&old);
    stored.epoch = 1;
    let adopt = format!("[tcp]\nmidstream = \"adopt\"\n{STORED}");
    let mut new = another(&old, &adopt);
    new.wait(60);
    new.pass(ENDS.back(), ACK, 501, 101, b"answer");
    new.pass(ENDS, ACK, 101, 507, b"");
    assert!(record(&new).claim().adopted);
    let at = at() + Duration::from_secs(60);
    let resumed = new.engine.resume(&stored, new.now, at);
    assert!(matches!(resumed, Ok(Resumed::Upgraded(_))), "{resumed:?}");
    assert!(!new.record().adopted);
}

#[test]
fn a_stray_segment_does_not_bring_an_earlier_connection_back() {
    let connect = |site: &mut Site, seq: u32| {
        for (ends, flags, seq, ack) in [
            (ENDS, SYN, seq, 0),
            (ENDS.back(), SYN | ACK, 500, seq + 1),
            (ENDS, ACK, seq + 1, 501),
        ] {
            assert_eq!(site.take(&segment(ends, flags, seq, ack, b"")), ["forward"]);
        }
    };
    let mut old = Site::new(FROM_1);
    connect(&mut old, 1_000_000_000);
    let mut store = Store::default();
    old.save(&mut store);
    for bytes in store.sessions.values_mut() {
        let mut stored = StoredSession::decode(bytes).unwrap();
        stored.epoch = 9;
        bytes.clear();
        stored.encode(bytes);
    }
    let mut new = Site::new(FROM_1);
    new.wait(6_000);
    connect(&mut new, 100);
    new.save(&mut Store::default());
    new.wait(2_000);
    let stray = segment(ENDS, ACK, 1_000_000_001, 501, b"x");
    assert_eq!(new.take(&stray), ["hold"]);
    assert_eq!(new.ask(&store), [Answered::Present]);
    assert_eq!(new.ready(), ["tcp_seq_above_window"]);
    let next = segment(ENDS, ACK, 101, 501, b"x");
    assert_eq!(new.take(&next), ["forward"]);
}

#[test]
fn the_time_at_which_a_session_began_survives_clocks_that_differ() {
    let mut old = Scene::new(STORED);
    old.handshake(ENDS);
    old.wait(20);
    old.pass(ENDS, ACK, 101, 501, b"x");
    let stored = record(&old);
    assert_eq!(stored.claim().began, at() - Duration::from_secs(20));
    let new = another(&old, STORED);
    let behind = at() - StoredSession::CLOCK_SLACK;
    new.engine.resume(&stored, new.now, behind).unwrap();
    let name = new.engine.flow_name(&new.record().flow().unwrap());
    let again = new.engine.find_stored(&name, new.now, behind).unwrap();
    assert_eq!(again.claim().began, stored.claim().began);
    assert_eq!(again.claim().epoch, 1);
}

/// Ends the session of a site by its lifetime, and returns what the sink received.
fn run_out(site: &mut Site) -> (Received, usize) {
    let mut received = Received::default();
    site.wait(500_000);
    while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
    let asked = site.inbox.questions.len();
    site.wait(1_200);
    while site.engine.expire_with(site.now, 100, &mut received).more {}
    (received, asked)
}

#[test]
fn a_stored_session_is_not_ended_before_its_owner_was_asked_for() {
    let open = || {
        let mut site = Site::new(FROM_1);
        for (ends, flags, seq, ack) in [
            (ENDS, SYN, 100, 0),
            (ENDS.back(), SYN | ACK, 500, 101),
            (ENDS, ACK, 101, 501),
        ] {
            assert_eq!(site.take(&segment(ends, flags, seq, ack, b"")), ["forward"]);
        }
        site
    };
    // A session without a record ends at once.
    let mut site = open();
    assert_eq!(run_out(&mut site).1, 0);
    assert_eq!(site.engine.sessions(), 0);
    let moved = |epoch, before: u64| {
        Answer::Moved(Claim {
            epoch,
            began: at() - Duration::from_secs(before),
            adopted: false,
        })
    };
    // Without an answer, and with the answer that it is its own, a session ends after a second. So
    // it does if the store has the record of an earlier connection.
    for answer in [
        None,
        Some(Answer::Owned),
        Some(Answer::NoStore),
        Some(moved(9, 6)),
    ] {
        let mut site = open();
        site.save(&mut Store::default());
        site.wait(500_000);
        while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
        let question = site.question();
        assert_eq!((question.kind, question.epoch), (QuestionKind::Owner, 0));
        assert_eq!(site.engine.sessions(), 1, "its end is put off");
        if let Some(answer) = &answer {
            site.answer(question.id, answer);
        }
        let mut received = Received::default();
        site.wait(1_200);
        while site.engine.expire_with(site.now, 100, &mut received).more {}
        assert_eq!(received.ended.len(), 1, "{answer:?}");
        assert_eq!(received.ended[0].1, EndReason::Timeout);
        assert_eq!(received.resets.len(), 2);
        site.engine.check_invariants().unwrap();
    }
    // With the answer that another engine has it, it ends silently.
    let mut site = open();
    site.save(&mut Store::default());
    site.wait(500_000);
    while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
    let question = site.question();
    let answered = site.answer(question.id, &moved(1, 0));
    assert_eq!(answered, Answered::Moved);
    assert_eq!(site.engine.sessions(), 0);
    let (received, _) = run_out(&mut site);
    assert_eq!((received.ended.len(), received.resets.len()), (0, 0));
    // So it does if the record in the store cannot be read, unless a packet has come meanwhile.
    for is_alive in [false, true] {
        let mut site = open();
        site.save(&mut Store::default());
        site.wait(500_000);
        while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
        let question = site.question();
        if is_alive {
            let segment = segment(ENDS, ACK, 101, 501, b"");
            assert_eq!(site.take(&segment), ["forward"]);
        }
        let answered = site.answer(question.id, &Answer::Unreadable);
        let ended = if is_alive {
            Answered::Owned
        } else {
            Answered::Unreadable
        };
        assert_eq!(answered, ended);
        assert_eq!(site.engine.sessions(), usize::from(is_alive));
        let mut received = Received::default();
        site.wait(1_200);
        while site.engine.expire_with(site.now, 100, &mut received).more {}
        assert_eq!((received.ended.len(), received.resets.len()), (0, 0));
        site.engine.check_invariants().unwrap();
    }
}

#[test]
fn a_full_table_ends_no_stored_session_before_its_owner_was_asked_for() {
    for is_stored in [false, true] {
        let mut site = Site::new(&format!(
            "{FROM_1}\n[table]\nmax_sessions = 16\nshards = 1\n"
        ));
        for port in 1..=16 {
            let ends = Ends::v4(port, 80);
            site.take(&segment(ends, SYN, 100, 0, b""));
            site.take(&segment(ends.back(), SYN | ACK, 500, 101, b""));
            assert_eq!(site.take(&segment(ends, ACK, 101, 501, b"")), ["forward"]);
        }
        if is_stored {
            site.save(&mut Store::default());
        }
        site.wait(500_000);
        let mut received = Received::default();
        let syn = segment(Ends::v4(17, 80), SYN, 100, 0, b"");
        let verdict = site
            .engine
            .process_with(Packet::new(&syn, site.now), &mut received);
        // A session without a record makes room at once.
        assert_eq!(verdict.is_forward(), !is_stored);
        let ended = if is_stored { 0 } else { 1 };
        assert_eq!(
            (received.ended.len(), received.resets.len()),
            (ended, 2 * ended)
        );
        // The next expiry asks.
        site.wait(200);
        while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
        let asked = if is_stored { 16 } else { 0 };
        assert_eq!(site.inbox.questions.len(), asked);
        site.engine.check_invariants().unwrap();
    }
}

/// A writer that resumes a session in the engine that writes to it.
struct Resuming<'a> {
    engine: &'a Engine,
    stored: &'a StoredSession,
    now: Instant,
    resumed: Option<Resumed>,
}

impl std::io::Write for Resuming<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let resumed = self.engine.resume(self.stored, self.now, at());
        self.resumed.get_or_insert(resumed.unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_session_is_resumed_while_all_sessions_are_saved() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let stored = record(&old);
    let new = another(&old, STORED);
    let mut out = Resuming {
        engine: &new.engine,
        stored: &stored,
        now: new.now,
        resumed: None,
    };
    new.engine.save_to(new.now, at(), &mut out).unwrap();
    assert!(
        matches!(out.resumed, Some(Resumed::Resumed(_))),
        "{:?}",
        out.resumed
    );
    assert_eq!(new.engine.sessions(), 1);
}

#[test]
fn a_reset_ends_a_resumed_session_only_with_an_exact_number() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    let stored = record(&old);
    let state = |forged: &[(Ends, u32)]| {
        let new = another(&old, STORED);
        new.engine.resume(&stored, new.now, at()).unwrap();
        for (ends, seq) in forged {
            let _ = new.tcp(*ends, RST, *seq, 0, b"");
        }
        new.record().state
    };
    let guesses: Vec<_> = (0..1_000).map(|n| (ENDS, 102 + n * 1_000_003)).collect();
    assert_eq!(state(&guesses), "ESTABLISHED");
    assert_eq!(state(&[(ENDS, 101)]), "CLOSE");
    assert_eq!(state(&[(ENDS.back(), 501)]), "CLOSE");
}

#[test]
fn the_name_of_a_flow_is_that_of_both_directions_and_of_its_zone() {
    let name = |zone: Zone, ends: Ends, config: &str| {
        let scene = Scene {
            zone,
            ..Scene::new(config)
        };
        scene.pass(ends, SYN, 100, 0, b"");
        scene.engine.flow_name(&scene.record().flow().unwrap())
    };
    let zones = "[zones]\na = 1\nb = 2\n";
    let first = name(Zone(1), ENDS, zones);
    assert_eq!(name(Zone(1), ENDS.back(), zones), first);
    assert_ne!(name(Zone(2), ENDS, zones).as_bytes(), first.as_bytes());
    let renumbered = name(Zone(7), ENDS, "[zones]\na = 7\n");
    assert_eq!(renumbered.as_bytes(), first.as_bytes());
    assert_ne!(
        name(Zone(1), Ends::v4(4001, 80), zones).as_bytes(),
        first.as_bytes()
    );
}

/// Resumed sessions take the short way once both ends are known, with the effects of the full one.
#[test]
fn a_resumed_session_is_judged_alike_by_the_short_way() {
    let old = Scene::new(STORED);
    old.handshake(ENDS);
    old.pass(ENDS, ACK, 101, 501, b"a");
    old.pass(ENDS.back(), ACK, 501, 102, b"b");
    let stored = record(&old);
    let engine = |full: bool| {
        let engine = another(&old, STORED).engine;
        let engine = if full { engine.full_way_only() } else { engine };
        engine.resume(&stored, old.now, at()).unwrap();
        engine
    };
    let (short, full) = (engine(false), engine(true));
    let decide = |engine: &Engine, bytes: &[u8]| engine.verdict_only(Packet::new(bytes, old.now));
    let (mut client, mut server) = (50_102u32, 90_502u32);
    for turn in 0..200u32 {
        let (to_server, to_client) = (
            segment(ENDS, ACK, client, server, &[0; 100]),
            segment(ENDS.back(), ACK, server, client + 100, &[0; 40]),
        );
        for packet in [&to_server, &to_client] {
            let verdict = decide(&short, packet);
            assert!(verdict.is_forward(), "{turn}: {verdict:?}");
            assert_eq!(verdict, decide(&full, packet), "{turn}");
        }
        (client, server) = (client + 100, server + 40);
    }
    assert_eq!(short.table_state(), full.table_state());
}
