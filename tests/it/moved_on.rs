//! Sessions that were saved while packets continued, as by a checkpoint before a crash.

use std::time::{Duration, SystemTime};

use crate::support::packets::{ACK, Ends, FIN, RST, SYN};
use crate::support::scene::Scene;
use portcullis::{DropReason, RestoreError, RestoreOptions, Restored};

const ENDS: Ends = Ends::v4(40_000, 80);
const SAVED_AT: SystemTime = SystemTime::UNIX_EPOCH;

/// Restores sessions whose packets continued, into a separate engine.
fn restored(stream: &[u8], old: &Scene, toml: &str) -> (Scene, Restored) {
    let new = Scene {
        now: old.now,
        ..Scene::new(toml)
    };
    let options = RestoreOptions {
        moved_on: true,
        ..RestoreOptions::default()
    };
    let done = new
        .engine
        .restore(stream, new.now, SAVED_AT, options)
        .unwrap();
    (new, done)
}

#[test]
fn a_connection_that_moved_on_after_the_save_is_learned_anew_and_then_judged_strictly() {
    // Numbers of the first segments after the restore: the progress of each end.
    for (client, server) in [
        (0, 0),
        (700, 0),
        (90_000, 0),
        (0, 90_000),
        (50_000, 7_000_000),
    ] {
        for client_first in [true, false] {
            let old = Scene::new("");
            old.handshake(ENDS);
            let stream = old.engine.save(old.now, SAVED_AT);
            let (new, done) = restored(&stream, &old, "");
            assert_eq!(done.sessions, 1);
            let (c, s) = (101 + client, 501 + server);
            if client_first {
                new.pass(ENDS, ACK, c, s, b"abc");
                new.pass(ENDS.back(), ACK, s, c + 3, b"defg");
            } else {
                new.pass(ENDS.back(), ACK, s, c, b"defg");
                new.pass(ENDS, ACK, c, s + 4, b"abc");
            }
            new.pass(ENDS, ACK, c + 3, s + 4, b"");
            new.pass(ENDS.back(), ACK, s + 4, c + 3, b"");
            let far = new.tcp(ENDS, ACK, c + 2_000_000, s + 4, b"x");
            assert_eq!(
                far.reason(),
                Some(DropReason::TcpSeqAboveWindow),
                "{client} {server}"
            );
            // Its FIN is checked by its numbers, like that of any other connection.
            new.pass(ENDS, FIN | ACK, c + 3, s + 4, b"");
            new.pass(ENDS.back(), FIN | ACK, s + 4, c + 4, b"");
            new.pass(ENDS, ACK, c + 4, s + 5, b"");
            assert_eq!(new.record().state, "TIME_WAIT");
        }
    }
}

#[test]
fn without_the_option_nothing_outside_the_saved_windows_passes() {
    let old = Scene::new("");
    old.handshake(ENDS);
    let stream = old.engine.save(old.now, SAVED_AT);
    let new = Scene::new("");
    new.engine
        .restore(&stream, new.now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    let verdict = new.tcp(ENDS, ACK, 90_101, 501, b"abc");
    assert_eq!(verdict.reason(), Some(DropReason::TcpSeqAboveWindow));
}

#[test]
fn a_handshake_that_was_completed_after_the_save_counts_as_completed() {
    let saved_after = |segments: usize| {
        let old = Scene::new("");
        let steps = [
            (ENDS, SYN, 100, 0),
            (ENDS.back(), SYN | ACK, 500, 101),
            (ENDS, ACK, 101, 501),
        ];
        for (ends, flags, seq, ack) in &steps[..segments] {
            old.pass(*ends, *flags, *seq, *ack, b"");
        }
        let stream = old.engine.save(old.now, SAVED_AT);
        restored(&stream, &old, "").0
    };
    for segments in 1..=3 {
        let new = saved_after(segments);
        new.pass(ENDS, ACK, 9_101, 20_501, b"request");
        new.pass(ENDS.back(), ACK, 20_501, 9_108, b"answer");
        assert_eq!(
            new.record().state,
            "ESTABLISHED",
            "saved after {segments} segments"
        );
    }
    // Or no such segment has passed, and the handshake continues.
    let new = saved_after(1);
    new.pass(ENDS, SYN, 100, 0, b"");
    new.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
    new.pass(ENDS, ACK, 101, 501, b"");
    new.pass(ENDS.back(), ACK, 501, 101, b"banner");
    new.pass(ENDS, ACK, 101, 507, b"");
    let far = new.tcp(ENDS, ACK, 2_000_000, 507, b"x");
    assert_eq!(far.reason(), Some(DropReason::TcpSeqAboveWindow));
    let new = saved_after(2);
    new.pass(ENDS.back(), SYN | ACK, 500, 101, b"");
    new.pass(ENDS, ACK, 101, 501, b"");
    new.pass(ENDS.back(), ACK, 501, 101, b"banner");
}

#[test]
fn a_forged_reset_closes_no_connection_that_moved_on() {
    let old = Scene::new("");
    old.handshake(ENDS);
    let stream = old.engine.save(old.now, SAVED_AT);
    let (new, _) = restored(&stream, &old, "");
    new.pass(ENDS, ACK, 50_101, 501, b"abc");
    new.pass(ENDS.back(), ACK, 501, 50_104, b"");
    for seq in [1, 40_000, 90_000, 4_000_000_000] {
        // The segment may pass, for the receiver to ignore, but it ends nothing here.
        let _ = new.tcp(ENDS, RST, seq, 0, b"");
        assert_eq!(new.record().state, "ESTABLISHED", "{seq}");
    }
}

#[test]
fn a_control_session_that_moved_on_is_read_from_its_next_lines_on() {
    let toml = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\n\
                protocol = \"tcp\"\ndestination_ports = 21";
    let control = Ends::v4(40_100, 21);
    let old = Scene::new(toml);
    old.handshake(control);
    old.pass(control.back(), ACK, 501, 101, b"220 ready\r\n");
    old.pass(control, ACK, 101, 512, b"USER a\r\n");
    let stream = old.engine.save(old.now, SAVED_AT);
    let (new, _) = restored(&stream, &old, toml);
    // The first data may be the rest of a line, and the reply to an unknown command.
    for turn in 0..2 {
        let (client, server) = (5_000 + turn * 6, 7_000 + turn * 8);
        new.pass(control, ACK, client, server, b"NOOP\r\n");
        new.pass(control.back(), ACK, server, client + 6, b"200 ok\r\n");
    }
    new.pass(control, ACK, 5_012, 7_016, b"EPSV\r\n");
    let entering = b"229 Entering Extended Passive Mode (|||50001|)\r\n";
    new.pass(control.back(), ACK, 7_016, 5_018, entering);
    new.handshake(Ends::v4(50_101, 50_001));
    let unannounced = new.tcp(Ends::v4(50_102, 50_002), SYN, 1, 0, b"");
    assert_eq!(unannounced.reason(), Some(DropReason::PolicyDeny));
}

#[test]
fn a_stream_that_is_too_old_or_of_the_future_is_refused_where_a_limit_is_set() {
    let minute = Duration::from_secs(60);
    let old = Scene::new("");
    old.handshake(ENDS);
    let saved_at = SAVED_AT + 1_000 * minute;
    let stream = old.engine.save(old.now, saved_at);
    let slack = RestoreOptions::CLOCK_SLACK;
    let nanosecond = Duration::from_nanos(1);
    let restore = |at: SystemTime, max_age: Option<Duration>| {
        let new = Scene::new("");
        let options = RestoreOptions {
            max_age,
            ..RestoreOptions::default()
        };
        let done = new.engine.restore(&stream, new.now, at, options);
        assert_eq!(new.engine.sessions(), usize::from(done.is_ok()));
        done
    };
    for (at, age) in [
        (saved_at + minute, minute),
        (saved_at, Duration::ZERO),
        (saved_at - slack, Duration::ZERO),
    ] {
        assert_eq!(restore(at, Some(minute)).unwrap().age, age);
    }
    let error = restore(saved_at + minute + nanosecond, Some(minute)).unwrap_err();
    assert!(
        matches!(error, RestoreError::TooOld { max, .. } if max == minute),
        "{error}"
    );
    let error = restore(saved_at - slack - nanosecond, Some(minute)).unwrap_err();
    assert!(
        matches!(error, RestoreError::ClockWentBack { .. }),
        "{error}"
    );
    // Without a limit, both are restored.
    assert_eq!(
        restore(saved_at + 2 * minute, None).unwrap().age,
        2 * minute
    );
    assert_eq!(
        restore(saved_at - minute, None).unwrap().age,
        Duration::ZERO
    );
}

#[test]
fn a_session_that_is_no_ftp_is_not_read_after_a_restart_either() {
    let toml = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\n\
                protocol = \"tcp\"\nsource = [\"10.0.0.1\"]\ndestination_ports = 21";
    let control = Ends::v4(40_100, 21);
    for post in [&b"NOOP\r\n"[..], b"POST / HTTP/1.1\r\n"] {
        let old = Scene::new(toml);
        old.handshake(control);
        let (mut client, mut server) = (101, 501);
        old.pass(control.back(), ACK, server, client, b"220 ready\r\n");
        server += 11;
        old.pass(control, ACK, client, server, post);
        client += post.len() as u32;
        old.pass(control.back(), ACK, server, client, b"");
        let stream = old.engine.save(old.now, SAVED_AT);
        let (new, done) = restored(&stream, &old, toml);
        assert_eq!(done.sessions, 1);
        for line in [
            &b"NOOP\r\n"[..],
            b"NOOP\r\n",
            b"NOOP\r\n",
            b"PORT 10,0,0,1,195,80\r\n",
        ] {
            new.pass(control, ACK, client, server, line);
            client += line.len() as u32;
            new.pass(control.back(), ACK, server, client, b"200 ok\r\n");
            server += 8;
        }
        let data = new.tcp(Ends::v4(50_000, 20).back(), SYN, 1, 0, b"");
        assert_eq!(data.is_forward(), post.starts_with(b"NOOP"), "{data:?}");
    }
}
