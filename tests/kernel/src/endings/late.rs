//! Packets after the end of a session: late packets, challenges of the engine's RSTs, and unrelated
//! packets.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis::{DropReason, EndReason, Verdict};

use super::expiry::{NEAR_THE_END, right_error};
use super::lab::{Connection, Fate, Lab, MEGABYTE};
use super::stacks::{Family, PORT, Watch};
use super::wire::End;
use super::{ALLOW, Scene};
use crate::segment::{ACK, PSH, Segment};

/// The scenes.
pub const SCENES: &[(&str, Scene)] = &[
    ("a late packet gets the RST that was lost", |lab, family| {
        late(lab, family, false)
    }),
    (
        "a late packet beyond 2^32 gets the RST that was lost",
        |lab, family| late(lab, family, true),
    ),
    (
        "an end whose last ACK was lost learns of the end with its next packet",
        ack_lost,
    ),
    (
        "a packet that finds its session over ends it at both ends",
        found_over,
    ),
    (
        "a stranger's packet gets no answer, nor one after the tombstone",
        strangers,
    ),
    (
        "a late packet is readmitted where that is asked for",
        readmitted,
    ),
    ("a challenge of a RST earns one more", |lab, family| {
        challenged(lab, family, "reset")
    }),
    (
        "a challenge of a RST earns one more where late packets are dropped",
        |lab, family| challenged(lab, family, "drop"),
    ),
    (
        "a second challenge earns nothing where late packets are dropped",
        challenged_twice,
    ),
];

/// A connection whose session has ended without notice to either end.
fn forgotten(lab: &mut Lab, family: Family) -> Result<Connection> {
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 50_000)?;
    lab.settle()?;
    lab.resets = Fate::Lost;
    lab.pass(Duration::from_secs(3600))?;
    ensure!(
        lab.diary.resets.len() == 2,
        "{} RSTs instead of two",
        lab.diary.resets.len()
    );
    Ok(connection)
}

fn late(lab: &mut Lab, family: Family, wrapped: bool) -> Result<String> {
    lab.begin(ALLOW)?;
    lab.first_numbers = wrapped.then_some(NEAR_THE_END);
    let connection = forgotten(lab, family)?;
    ensure!(
        !wrapped || lab.diary.wrapped == [true; 2],
        "no sequence number has gone beyond 2^32"
    );
    lab.pass(Duration::from_secs(60))?;
    for (number, end) in End::BOTH.into_iter().enumerate() {
        let mut socket = connection.socket(end);
        let watch = Watch::start(socket)?;
        let before = lab.stacks.counts()?;
        socket.write_all(&[1; 100])?;
        right_error(&lab.see_end(watch)?, false)?;
        let after = lab.stacks.counts()?;
        for (counter, expected) in [("EstabResets", 1), ("TCPChallengeACK", 0), ("InErrs", 0)] {
            let grown = end.of(&after).since(end.of(&before), counter)?;
            ensure!(
                grown == expected,
                "the {end:?}'s {counter} has grown by {grown}"
            );
        }
        let refused = lab
            .diary
            .refused
            .get(number..)
            .context("nothing was refused")?;
        let [refused] = refused else {
            anyhow::bail!("{refused:?} instead of one packet");
        };
        ensure!(
            refused.from == end
                && refused.answered
                && refused.reason == DropReason::TcpAfterTimeout,
            "{refused:?}"
        );
        let late = refused.tracked.late.context("nothing is said of the end")?;
        let ago = late.ago().as_secs();
        ensure!(
            late.reason == EndReason::Timeout && (60..70).contains(&ago),
            "{late:?}"
        );
    }
    ensure!(lab.diary.answers.len() == 2, "{:?}", lab.diary.answers);
    let counted = lab.engine.stats().dropped_by(DropReason::TcpAfterTimeout);
    ensure!(counted == 2, "tcp_after_timeout is {counted}");
    lab.close(connection)?;
    Ok("ECONNRESET at each end that sends, tcp_after_timeout 2".to_owned())
}

/// The server has received data that bypassed the engine, so it expects another number.
fn ack_lost(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 1000)?;
    lab.settle()?;
    lab.lost_before = [false, true];
    (&connection.client).write_all(&[1; 100])?;
    lab.run_for(Duration::from_millis(60))?;
    let watches = [
        Watch::start(&connection.client)?,
        Watch::start(&connection.server)?,
    ];
    let before = lab.stacks.counts()?;
    lab.pass(Duration::from_secs(3600))?;
    let [client, server] = watches;
    right_error(&lab.see_end(client)?, false)?;
    lab.lost_before = [false; 2];
    lab.run_for(Duration::from_millis(10))?;
    ensure!(
        !server.is_over(),
        "the server has believed a RST of an old number"
    );
    (&connection.server).write_all(&[1; 100])?;
    right_error(&lab.see_end(server)?, false)?;
    let after = lab.stacks.counts()?;
    for end in End::BOTH {
        for (counter, expected) in [("EstabResets", 1), ("TCPChallengeACK", 0)] {
            let grown = end.of(&after).since(end.of(&before), counter)?;
            ensure!(
                grown == expected,
                "the {end:?}'s {counter} has grown by {grown}"
            );
        }
    }
    lab.close(connection)?;
    Ok("ECONNRESET at the client, then at the server".to_owned())
}

/// A packet arrives for an expired session: [`portcullis::Engine::expire`] was not called in time.
fn found_over(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 1000)?;
    lab.settle()?;
    let watches = [
        Watch::start(&connection.client)?,
        Watch::start(&connection.server)?,
    ];
    let before = lab.stacks.counts()?;
    lab.skip(Duration::from_secs(3600));
    (&connection.client).write_all(&[1; 100])?;
    for watch in watches {
        right_error(&lab.see_end(watch)?, false)?;
    }
    let after = lab.stacks.counts()?;
    for end in End::BOTH {
        for (counter, expected) in [("EstabResets", 1), ("TCPChallengeACK", 0), ("OutRsts", 0)] {
            let grown = end.of(&after).since(end.of(&before), counter)?;
            ensure!(
                grown == expected,
                "the {end:?}'s {counter} has grown by {grown}"
            );
        }
    }
    let counts = (lab.diary.resets.len(), lab.diary.answers.len());
    lab.close(connection)?;
    Ok(format!(
        "ECONNRESET at both, {} RSTs and {} answer",
        counts.0, counts.1
    ))
}

fn strangers(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = forgotten(lab, family)?;
    let client = SocketAddr::new(family.address(End::Client), 9);
    let server = SocketAddr::new(family.address(End::Server), PORT);
    let segment = Segment {
        seq: 1_000_000,
        ack: 2_000_000,
        flags: ACK | PSH,
        window: 500,
        len: 100,
        ..Segment::default()
    };
    for (end, from, to) in [(End::Client, client, server), (End::Server, server, client)] {
        let verdict = lab.forge(end, &segment.packet(from, to)?)?;
        ensure!(
            matches!(verdict, Verdict::Drop(DropReason::TcpNoSession, _)),
            "{verdict:?}"
        );
    }
    // The connection is remembered for ten minutes.
    lab.pass(Duration::from_secs(601))?;
    let mut socket = connection.socket(End::Client);
    socket.write_all(&[1; 100])?;
    lab.until("the packet of a session that is forgotten", |lab| {
        Ok(lab.diary.refused_for(DropReason::TcpNoSession) > 2)
    })?;
    ensure!(
        socket.take_error()?.is_none(),
        "the client was told something"
    );
    ensure!(lab.diary.answers.is_empty(), "{:?}", lab.diary.answers);
    lab.close(connection)?;
    Ok("tcp_no_session, no answer".to_owned())
}

fn readmitted(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.late = \"readmit\"\n"))?;
    let connection = forgotten(lab, family)?;
    lab.exchange(&connection, MEGABYTE)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let resumed = lab.diary.opened.last().context("no session")?;
    ensure!(
        resumed.resumed && resumed.adopted && resumed.src_port == connection.port,
        "{resumed:?}"
    );
    ensure!(
        lab.engine.stats().sessions_resumed == 1,
        "sessions_resumed is not counted"
    );
    lab.close(connection)?;
    Ok("resumed, 1 MiB to and fro".to_owned())
}

/// An expired connection whose two RSTs miss the exact number by one.
fn missed(lab: &mut Lab, family: Family, late: &str) -> Result<Connection> {
    lab.begin(&format!("{ALLOW}tcp.late = \"{late}\"\n"))?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 50_000)?;
    lab.settle()?;
    lab.resets = Fate::Raised(1);
    Ok(connection)
}

fn challenged(lab: &mut Lab, family: Family, late: &str) -> Result<String> {
    let connection = missed(lab, family, late)?;
    let watches = [
        Watch::start(&connection.client)?,
        Watch::start(&connection.server)?,
    ];
    let before = lab.stacks.counts()?;
    lab.pass(Duration::from_secs(3600))?;
    for watch in watches {
        right_error(&lab.see_end(watch)?, false)?;
    }
    let after = lab.stacks.counts()?;
    for end in End::BOTH {
        for (counter, expected) in [
            ("TCPChallengeACK", 1),
            ("EstabResets", 1),
            ("InSegs", 2),
            ("OutSegs", 1),
        ] {
            let grown = end.of(&after).since(end.of(&before), counter)?;
            ensure!(
                grown == expected,
                "the {end:?}'s {counter} has grown by {grown} instead of {expected}"
            );
        }
        let to = |list: &[super::lab::Sent]| list.iter().filter(|sent| sent.to == end).count();
        let counts = (to(&lab.diary.resets), to(&lab.diary.answers));
        ensure!(counts == (1, 1), "{counts:?} RSTs to the {end:?}");
    }
    lab.close(connection)?;
    Ok("one challenge ACK and one more RST at each end, ECONNRESET".to_owned())
}

fn challenged_twice(lab: &mut Lab, family: Family) -> Result<String> {
    let connection = missed(lab, family, "drop")?;
    lab.answers = Fate::Raised(1);
    lab.pass(Duration::from_secs(3600))?;
    lab.until("the second challenge", |lab| {
        let silent = lab.diary.refused.iter().filter(|each| !each.answered);
        Ok(silent.count() == 2)
    })?;
    ensure!(lab.diary.answers.len() == 2, "{:?}", lab.diary.answers);
    for end in End::BOTH {
        ensure!(
            connection.socket(end).take_error()?.is_none(),
            "the {end:?}'s connection has ended"
        );
    }
    lab.close(connection)?;
    Ok("two challenge ACKs, one answer, at each end".to_owned())
}
