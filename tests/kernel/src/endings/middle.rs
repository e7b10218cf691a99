//! Connections that opened around the engine and then pass through it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis::{DropReason, Unsent, Verdict};

use super::expiry::{NEAR_THE_END, right_error, see_both_end};
use super::lab::{Connection, Lab, MEGABYTE, THROUGH, Way};
use super::stacks::{Family, PORT, Watch};
use super::wire::End;
use super::{ALLOW, Scene};
use crate::segment::{ACK, Segment};

/// The scenes.
pub const SCENES: &[(&str, Scene)] = &[
    ("a connection from nowhere stands still", dropped),
    (
        "a connection from nowhere is reset where that is asked for",
        rejected,
    ),
    (
        "a connection that is adopted goes on, becomes strict, and ends at both ends",
        |lab, family| adopted(lab, family, End::Client, false),
    ),
    (
        "a connection that is adopted with a packet of the server goes on",
        |lab, family| adopted(lab, family, End::Server, false),
    ),
    (
        "a connection that is adopted near 2^32 goes on beyond it",
        |lab, family| adopted(lab, family, End::Client, true),
    ),
    (
        "a connection of which one end was adopted ends at that end alone",
        half_adopted,
    ),
    ("connections are adopted for a while on command", failover),
];

/// A connection that has bypassed the engine so far, and passes through it from here on.
fn from_nowhere(lab: &mut Lab, family: Family) -> Result<Connection> {
    lab.ways = [Way::Around; 2];
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 10_000)?;
    lab.settle()?;
    lab.ways = [THROUGH; 2];
    Ok(connection)
}

/// Checks that no packet of one end arrives, and that no end is notified.
fn stands_still(lab: &mut Lab, connection: &Connection, from: End) -> Result<()> {
    connection.socket(from).write_all(&[1; 100])?;
    lab.until("packets that do not pass", |lab| {
        Ok(lab.diary.refused_for(DropReason::TcpNoSession) >= 2)
    })?;
    let to = connection.socket(from.other());
    to.set_nonblocking(true)?;
    let mut to = to;
    let read = to.read(&mut [0; 100]).map_err(|error| error.kind());
    ensure!(
        read == Err(std::io::ErrorKind::WouldBlock),
        "{read:?} was read"
    );
    to.set_nonblocking(false)?;
    ensure!(
        connection.socket(from).take_error()?.is_none(),
        "the sender was told"
    );
    ensure!(
        lab.diary.answers.is_empty() && lab.diary.resets.is_empty(),
        "an answer"
    );
    Ok(())
}

fn dropped(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = from_nowhere(lab, family)?;
    stands_still(lab, &connection, End::Client)?;
    ensure!(lab.engine.sessions() == 0, "a session");
    lab.close(connection)?;
    Ok("tcp_no_session, no answer".to_owned())
}

fn rejected(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.midstream = \"reject\"\n"))?;
    let connection = from_nowhere(lab, family)?;
    for end in End::BOTH {
        let watch = Watch::start(connection.socket(end))?;
        let before = lab.stacks.counts()?;
        connection.socket(end).write_all(&[1; 100])?;
        right_error(&lab.see_end(watch)?, false)?;
        let after = lab.stacks.counts()?;
        for (counter, expected) in [("EstabResets", 1), ("TCPChallengeACK", 0)] {
            let grown = end.of(&after).since(end.of(&before), counter)?;
            ensure!(
                grown == expected,
                "the {end:?}'s {counter} has grown by {grown}"
            );
        }
    }
    ensure!(lab.diary.answers.len() == 2, "{:?}", lab.diary.answers);
    lab.close(connection)?;
    Ok("ECONNRESET at each end that sends".to_owned())
}

fn adopted(lab: &mut Lab, family: Family, first: End, wrapped: bool) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.midstream = \"adopt\"\n"))?;
    lab.first_numbers = wrapped.then_some(NEAR_THE_END);
    let connection = from_nowhere(lab, family)?;
    ensure!(
        !wrapped || lab.diary.wrapped == [false; 2],
        "beyond 2^32 too early"
    );
    for from in [first, first.other()] {
        lab.transfer(&connection, from, MEGABYTE)?;
    }
    lab.settle()?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    ensure!(
        !wrapped || lab.diary.wrapped == [true; 2],
        "no sequence number has gone beyond 2^32"
    );
    let session = lab.diary.opened.first().context("no session")?;
    ensure!(
        session.adopted && session.src_port == connection.port && session.dst_port == PORT,
        "{session:?}"
    );
    ensure!(
        lab.engine.stats().sessions_adopted == 1,
        "sessions_adopted is not counted"
    );
    is_strict(lab, family, &connection)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    let report = lab.engine.asymmetry();
    let accused = report.lines.iter().any(|line| line.missing().is_some());
    ensure!(!accused, "{:#?}", report.lines);
    let numbers = see_both_end(lab, &connection, [false; 2], |lab| {
        lab.pass(Duration::from_secs(3600))
    })?;
    lab.close(connection)?;
    Ok(format!("1 MiB to and fro, then strict; {}", numbers.text))
}

/// Checks that a forged segment far above the window is dropped, from either end.
fn is_strict(lab: &mut Lab, family: Family, connection: &Connection) -> Result<()> {
    let client = SocketAddr::new(family.address(End::Client), connection.port);
    let server = SocketAddr::new(family.address(End::Server), PORT);
    for (end, from, to) in [(End::Client, client, server), (End::Server, server, client)] {
        let (seq, ack) = lab.diary.next_numbers(end).context("no numbers")?;
        let segment = Segment {
            seq: seq.wrapping_add(0x6000_0000),
            ack,
            flags: ACK,
            window: 500,
            len: 100,
            ..Segment::default()
        };
        let verdict = lab.forge(end, &segment.packet(from, to)?)?;
        ensure!(
            matches!(verdict, Verdict::Drop(DropReason::TcpSeqAboveWindow, _)),
            "a forged segment of the {end:?}: {verdict:?}"
        );
    }
    Ok(())
}

fn half_adopted(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.midstream = \"adopt\"\n"))?;
    let connection = from_nowhere(lab, family)?;
    // The server's packets never pass, so the number that it expects is unknown.
    lab.ways = [THROUGH, Way::Around];
    lab.transfer(&connection, End::Client, 1000)?;
    lab.settle()?;
    let watch = Watch::start(&connection.client)?;
    lab.pass(Duration::from_secs(3600))?;
    right_error(&lab.see_end(watch)?, false)?;
    ensure!(
        lab.diary.resets.len() == 1 && lab.diary.resets.iter().all(|sent| sent.to == End::Client),
        "{:?}",
        lab.diary.resets
    );
    let unsent = lab.engine.stats().resets_unsent;
    ensure!(unsent.contains(&(Unsent::NumberUnknown, 1)), "{unsent:?}");
    lab.close(connection)?;
    Ok("ECONNRESET at the client, number_unknown 1".to_owned())
}

fn failover(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    lab.engine.adopt_for(Duration::from_secs(30), lab.now());
    let connection = from_nowhere(lab, family)?;
    lab.exchange(&connection, MEGABYTE)?;
    lab.settle()?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    is_strict(lab, family, &connection)?;
    lab.close(connection)?;
    lab.pass(Duration::from_secs(31))?;
    let connection = from_nowhere(lab, family)?;
    stands_still(lab, &connection, End::Client)?;
    lab.close(connection)?;
    Ok("1 MiB to and fro within 30 s, nothing after".to_owned())
}
