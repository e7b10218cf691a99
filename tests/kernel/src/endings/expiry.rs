//! Sessions that the engine ends by their lifetime and by a reload. Both stacks get a RST and
//! accept it.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portcullis::EndReason;
use rustix::io::Errno;

use super::lab::{Connection, Fate, Lab, settings};
use super::stacks::{Counts, Ended, Family, Watch};
use super::wire::End;
use super::{ALLOW, Scene};

/// The scenes.
pub const SCENES: &[(&str, Scene)] = &[
    ("an idle connection ends at both ends", |lab, family| {
        expire(
            lab,
            family,
            &Story {
                exchange: 1000,
                ..Story::default()
            },
        )
    }),
    (
        "a connection that was never used ends at both ends",
        |lab, family| expire(lab, family, &Story::default()),
    ),
    (
        "a connection that the client has half closed ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 1000,
                    half_closed: Some(End::Client),
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a connection that the server has half closed ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 1000,
                    half_closed: Some(End::Server),
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a half-closed connection whose open half goes on ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 1000,
                    half_closed: Some(End::Client),
                    unread: [0, 5000],
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a connection with unread data ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    unread: [9000, 7000],
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a connection with data in flight that never arrives ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 1000,
                    in_flight: 3000,
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a connection whose window is closed ends at both ends",
        window_closed,
    ),
    (
        "a connection with scaled windows ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 3_000_000,
                    scaled: true,
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a connection beyond 2^32 ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 200_000,
                    wrapped: true,
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a half-closed connection with unread data beyond 2^32 ends at both ends",
        |lab, family| {
            expire(
                lab,
                family,
                &Story {
                    exchange: 200_000,
                    wrapped: true,
                    half_closed: Some(End::Server),
                    unread: [4000, 6000],
                    ..Story::default()
                },
            )
        },
    ),
    (
        "a policy that refuses a running connection ends it at both ends",
        revoke,
    ),
    (
        "a policy that refuses it and keeps what runs leaves it alone",
        keep,
    ),
];

/// Sequence numbers of SYNs that soon wrap at 2^32.
pub const NEAR_THE_END: [u32; 2] = [0u32.wrapping_sub(20_000), 0u32.wrapping_sub(30_000)];

/// Maximum time for a stack to accept a RST on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1000);

/// State of a connection before its end.
#[derive(Debug, Default)]
struct Story {
    /// Bytes that are sent in both directions and read.
    exchange: usize,
    /// Bytes that the client and the server receive and do not read.
    unread: [usize; 2],
    /// The end that has closed its direction.
    half_closed: Option<End>,
    /// Bytes that each end has sent and that were lost after the engine.
    in_flight: usize,
    /// Whether the windows must have been scaled.
    scaled: bool,
    /// Whether the engine must observe sequence numbers that wrap.
    wrapped: bool,
}

fn expire(lab: &mut Lab, family: Family, story: &Story) -> Result<String> {
    lab.begin(ALLOW)?;
    lab.first_numbers = story.wrapped.then_some(NEAR_THE_END);
    let connection = lab.connect(family)?;
    lab.exchange(&connection, story.exchange)?;
    if let Some(end) = story.half_closed {
        lab.settle()?;
        connection.socket(end).shutdown(Shutdown::Write)?;
    }
    for end in End::BOTH {
        let unread = *end.of(&story.unread);
        let sender = end.other();
        if unread > 0 && story.half_closed != Some(sender) {
            send(&connection, sender, unread)?;
        }
    }
    lab.settle()?;
    if story.in_flight > 0 {
        lab.lost_behind = [true; 2];
        for end in End::BOTH {
            send(&connection, end, story.in_flight)?;
        }
        lab.run_for(Duration::from_millis(30))?;
    }
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    if story.wrapped {
        ensure!(
            lab.diary.wrapped == [true; 2],
            "no sequence number has gone beyond 2^32"
        );
    }
    if story.scaled {
        let windows = lab.diary.windows;
        ensure!(
            windows.iter().all(|window| *window > 0xffff),
            "no window was scaled: {windows:?}"
        );
    }
    // A lifetime that has not expired ends nothing.
    lab.pass(Duration::from_secs(20))?;
    ensure!(lab.diary.resets.is_empty(), "a RST before the end");
    let fins = [End::Client, End::Server].map(|end| story.half_closed == Some(end));
    let numbers = see_both_end(lab, &connection, fins, |lab| {
        lab.pass(Duration::from_secs(3600))
    })?;
    ensure!(
        matches!(lab.diary.ended.as_slice(), [(_, EndReason::Timeout)]),
        "{:?}",
        lab.diary.ended
    );
    for (end, ended) in End::BOTH.into_iter().zip(&numbers.ends) {
        let expected = if story.half_closed == Some(end.other()) {
            0
        } else {
            *end.of(&story.unread)
        };
        ensure!(
            ended.unread == expected,
            "{} of {expected} unread bytes",
            ended.unread
        );
    }
    lab.close(connection)?;
    let [client, server] = lab.diary.windows;
    Ok(match story.scaled {
        true => format!("{}, windows of {client} and {server} bytes", numbers.text),
        false => numbers.text,
    })
}

/// The client sends until its buffer is full, and the server reads nothing.
fn window_closed(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    let mut client = &connection.client;
    client.set_nonblocking(true)?;
    let (mut sent, mut last) = (0, Instant::now());
    lab.until("a closed window", |_| {
        if let Ok(len) = client.write(&[7; 50_000]) {
            (sent, last) = (sent + len, Instant::now());
        }
        Ok(last.elapsed() > Duration::from_millis(100))
    })?;
    lab.settle()?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let window = lab.diary.last_window(End::Server);
    ensure!(window == 0, "the server's window is {window}");
    let numbers = see_both_end(lab, &connection, [false; 2], |lab| {
        lab.pass(Duration::from_secs(3600))
    })?;
    let [_, server] = &numbers.ends;
    ensure!(
        (1..sent).contains(&server.unread),
        "{} of {sent} bytes were unread",
        server.unread
    );
    lab.close(connection)?;
    Ok(format!("{}, {} bytes unread", numbers.text, server.unread))
}

/// Sends bytes that are never read.
fn send(connection: &Connection, from: End, bytes: usize) -> Result<()> {
    connection.socket(from).write_all(&vec![7; bytes])?;
    Ok(())
}

/// The ends of a connection after it has ended.
pub struct BothEnded {
    /// The client and the server.
    pub ends: [Ended; 2],
    /// Description of the two ends.
    pub text: String,
}

/// Ends a connection, and checks that both stacks accept the end immediately, by their sockets and
/// their counters. `fins` is the end that has closed its direction.
///
/// # Errors
/// Returns a description of the failed check.
pub fn see_both_end(
    lab: &mut Lab,
    connection: &Connection,
    fins: [bool; 2],
    end_it: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<BothEnded> {
    let watches = [
        Watch::start(&connection.client)?,
        Watch::start(&connection.server)?,
    ];
    // Both threads are waiting now.
    lab.run_for(Duration::from_millis(10))?;
    ensure!(
        !watches.iter().any(Watch::is_over),
        "the end before the end"
    );
    let before = lab.stacks.counts()?;
    end_it(lab)?;
    let [client, server] = watches;
    let ends = [lab.see_end(client)?, lab.see_end(server)?];
    let after = lab.stacks.counts()?;
    ensure!(
        lab.diary.resets.len() == 2,
        "{} RSTs instead of two",
        lab.diary.resets.len()
    );
    let mut slowest = Duration::ZERO;
    for end in End::BOTH {
        let ended = end.of(&ends);
        let has_closed = *end.of(&fins);
        believed(end, (end.of(&before), end.of(&after)), !has_closed)?;
        right_error(ended, *end.other().of(&fins))?;
        let port = connection.port;
        ensure!(
            !lab.stacks.has_socket(end, port)?,
            "the {end:?}'s kernel keeps the connection"
        );
        let sent = lab.diary.resets.iter().find(|sent| sent.to == end);
        let took = sent.map(|sent| ended.at.saturating_duration_since(sent.at));
        ensure!(
            took.is_some_and(|took| took < AT_ONCE),
            "not at once: {took:?}"
        );
        slowest = slowest.max(took.unwrap_or_default());
    }
    let [from_client, from_server] = &ends;
    let text = format!(
        "{} and {} within {} us, EstabResets +{} and +{}, no challenge",
        name(from_client.error),
        name(from_server.error),
        slowest.as_micros(),
        end_count(&before, &after, End::Client)?,
        end_count(&before, &after, End::Server)?,
    );
    Ok(BothEnded { ends, text })
}

fn end_count(before: &[Counts; 2], after: &[Counts; 2], end: End) -> Result<i64> {
    end.of(after).since(end.of(before), "EstabResets")
}

const fn name(error: Errno) -> &'static str {
    match error {
        Errno::CONNRESET => "ECONNRESET",
        Errno::PIPE => "EPIPE",
        _ => "another error",
    }
}

/// Checks how a socket reports the end. Linux reports a RST to an end that has received a FIN
/// (CLOSE_WAIT) with EPIPE, after the end of file; to every other end with ECONNRESET.
///
/// # Errors
/// Returns an error if the socket reports another end.
pub fn right_error(ended: &Ended, after_fin: bool) -> Result<()> {
    let expected = if after_fin {
        Errno::PIPE
    } else {
        Errno::CONNRESET
    };
    ensure!(
        ended.error == expected && ended.after_fin == after_fin,
        "{} instead of {}",
        ended.error,
        name(expected)
    );
    Ok(())
}

/// Checks that a kernel has accepted one RST, and has not challenged or answered it. `EstabResets`
/// counts the ends of ESTABLISHED and CLOSE_WAIT, not those of FIN_WAIT_2 (RFC 4022).
///
/// # Errors
/// Returns the differing counters.
pub fn believed(end: End, (before, after): (&Counts, &Counts), counted: bool) -> Result<()> {
    for (counter, expected) in [
        ("EstabResets", i64::from(counted)),
        ("InSegs", 1),
        ("OutSegs", 0),
        ("OutRsts", 0),
        ("InErrs", 0),
        ("InCsumErrors", 0),
        ("TCPChallengeACK", 0),
        ("TCPSYNChallenge", 0),
    ] {
        let grown = after.since(before, counter)?;
        ensure!(
            grown == expected,
            "the {end:?}'s {counter} has grown by {grown} instead of {expected}"
        );
    }
    Ok(())
}

const DENY: &str = "policy.default = \"deny\"\n";

fn revoke(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    let preview = lab.engine.preview(&settings(DENY)?, lab.now())?;
    ensure!(
        matches!(
            preview.as_slice(),
            [(session, EndReason::Revoked)] if session.src_port == connection.port
        ),
        "the preview names {preview:?}"
    );
    ensure!(
        lab.engine.sessions() == 1,
        "the preview has ended something"
    );
    let numbers = see_both_end(lab, &connection, [false; 2], |lab| {
        let done = lab.reload(DENY)?;
        ensure!((done.judged, done.revoked) == (1, 1), "{done:?}");
        Ok(())
    })?;
    ensure!(
        matches!(
            lab.diary.ended.as_slice(),
            [(session, EndReason::Revoked)] if session.src_port == connection.port
        ),
        "{:?}",
        lab.diary.ended
    );
    lab.close(connection)?;
    Ok(numbers.text)
}

fn keep(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    lab.resets = Fate::Lost;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    let done = lab.reload(&format!("{DENY}policy.on_reload = \"keep\"\n"))?;
    ensure!(
        (done.judged, done.kept, done.revoked) == (1, 1, 0),
        "{done:?}"
    );
    lab.exchange(&connection, 100_000)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    ensure!(
        lab.diary.resets.is_empty() && lab.engine.sessions() == 1,
        "it has ended"
    );
    lab.close(connection)?;
    Ok("goes on".to_owned())
}
