//! Connections with one direction that bypasses the engine, or arrives through another zone.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis::{AsymmetryCause as Cause, AsymmetryLine, Evidence};
use portcullis::{DropReason, SessionRecord, Zone};

use super::lab::{Connection, Lab, MEGABYTE, THROUGH, Way};
use super::stacks::Family;
use super::wire::End;
use super::{ALLOW, Scene};

/// The scenes.
pub const SCENES: &[(&str, Scene)] = &[
    (
        "a connection whose replies go around is dropped and named",
        |lab, family| dropped(lab, family, End::Client),
    ),
    (
        "a connection whose requests go around is dropped and named",
        |lab, family| dropped(lab, family, End::Server),
    ),
    (
        "a connection whose replies go around is bypassed and named",
        |lab, family| passed(lab, family, End::Client, "bypass"),
    ),
    (
        "a connection whose requests go around is bypassed and named",
        |lab, family| passed(lab, family, End::Server, "bypass"),
    ),
    (
        "a connection whose replies go around passes where it is only reported",
        |lab, family| passed(lab, family, End::Client, "report"),
    ),
    (
        "a connection whose requests go around passes where it is only reported",
        |lab, family| passed(lab, family, End::Server, "report"),
    ),
    (
        "replies that begin to go around are bypassed and named",
        |lab, family| begin_to_go_around(lab, family, End::Client),
    ),
    (
        "requests that begin to go around are bypassed and named",
        |lab, family| begin_to_go_around(lab, family, End::Server),
    ),
    (
        "a connection whose replies begin to go around stands still and is named",
        |lab, family| stand_still(lab, family, End::Client),
    ),
    (
        "a connection whose requests begin to go around stands still and is named",
        |lab, family| stand_still(lab, family, End::Server),
    ),
    ("two halves in two zones are dropped and named", two_zones),
    (
        "two halves in two zones are bypassed and named",
        |lab, family| two_zones_pass(lab, family, "bypass"),
    ),
    (
        "two halves in two zones pass where that is only reported",
        |lab, family| two_zones_pass(lab, family, "report"),
    ),
    (
        "two halves in two zones of one group are nothing special",
        one_group,
    ),
];

const ZONES: [Way; 2] = [Way::Through(Zone(1)), Way::Through(Zone(2))];
const ZONE_NAMES: &str = "[zones]\neast = 1\nwest = 2\n";

/// The route of one end's packets through the engine, and of the other's around it.
fn only(seen: End) -> [Way; 2] {
    match seen {
        End::Client => [THROUGH, Way::Around],
        End::Server => [Way::Around, THROUGH],
    }
}

/// Returns the evidence and the drop reason if only one end's part of the handshake passes.
const fn evidence_of(seen: End) -> (Evidence, DropReason) {
    match seen {
        End::Client => (Evidence::AckWithoutSynAck, DropReason::TcpAckWithoutSynAck),
        End::Server => (Evidence::SynAckWithoutSyn, DropReason::TcpSynAckWithoutSyn),
    }
}

/// The only line of the report: the packets of `seen` arrive, and those of the other end do not.
fn only_line(lab: &Lab, family: Family, seen: End) -> Result<AsymmetryLine> {
    let report = lab.engine.asymmetry();
    let [line] = report.lines.as_slice() else {
        anyhow::bail!(
            "{} lines instead of one: {:#?}",
            report.lines.len(),
            report.lines
        );
    };
    let (from, to) = line.missing().context("no direction is missing")?;
    let ends = (from.addr(), to.addr());
    let missing = (family.address(seen.other()), family.address(seen));
    ensure!(ends == missing, "{line}");
    ensure!(
        line.flows == 1 && line.packets > 0 && line.first <= line.last,
        "{line:?}"
    );
    Ok(*line)
}

fn only_session(lab: &Lab) -> Result<SessionRecord> {
    let mut sessions = Vec::new();
    lab.engine
        .for_each_session(|session| sessions.push(*session));
    let [session] = sessions.as_slice() else {
        anyhow::bail!("{} sessions instead of one", sessions.len());
    };
    Ok(*session)
}

fn dropped(lab: &mut Lab, family: Family, seen: End) -> Result<String> {
    lab.begin(ALLOW)?;
    lab.ways = only(seen);
    let (evidence, reason) = evidence_of(seen);
    let client = lab.call(family)?;
    let mut told = seen == End::Server;
    lab.until("two packets that tell", |lab| {
        if !told && super::stacks::is_connected(&client)? {
            // Only the client's state is connected.
            (&client).write_all(&[1; 500])?;
            told = true;
        }
        Ok(lab.diary.refused_for(reason) >= 2)
    })?;
    ensure!(
        lab.engine.asymmetry().lines.is_empty(),
        "accused after two packets"
    );
    lab.pass(Duration::from_secs(10))?;
    lab.until("the report", |lab| {
        Ok(!lab.engine.asymmetry().lines.is_empty())
    })?;
    let line = only_line(lab, family, seen)?;
    ensure!(
        line.evidence == evidence && line.cause() == Cause::RoutingAsymmetry,
        "{line}"
    );
    ensure!(
        lab.stacks.accept(family)?.is_none(),
        "a connection in spite of it"
    );
    lab.hang_up(family, client)?;
    Ok(format!("{line}"))
}

fn passed(lab: &mut Lab, family: Family, seen: End, mode: &str) -> Result<String> {
    let mut config = format!("{ALLOW}tcp.asymmetric = \"{mode}\"\n");
    if (mode, seen) == ("report", End::Server) {
        // No session has recorded the SYN-ACK, so later segments have no session.
        config.push_str("tcp.midstream = \"adopt\"\n");
    }
    lab.begin(&config)?;
    lab.ways = only(seen);
    let connection = lab.connect(family)?;
    lab.exchange(&connection, MEGABYTE)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let line = only_line(lab, family, seen)?;
    ensure!(
        line.evidence == evidence_of(seen).0 && line.cause() == Cause::RoutingAsymmetry,
        "{line}"
    );
    if mode == "bypass" {
        let session = only_session(lab)?;
        ensure!(
            session.bypassed && session.src_port == connection.port,
            "not marked: {session:?}"
        );
        let bypassed = lab.engine.stats().sessions_bypassed;
        ensure!(bypassed == 1, "sessions_bypassed is {bypassed}");
    }
    lab.close(connection)?;
    Ok(format!("1 MiB to and fro; {line}"))
}

fn begin_to_go_around(lab: &mut Lab, family: Family, seen: End) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.asymmetric = \"bypass\"\n"))?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    lab.ways = only(seen);
    lab.exchange(&connection, MEGABYTE)?;
    // Longer than a round trip, so that these are not packets before the first answer.
    lab.pass(Duration::from_secs(2))?;
    lab.exchange(&connection, MEGABYTE)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let line = only_line(lab, family, seen)?;
    ensure!(line.cause() == Cause::RoutingAsymmetry, "{line}");
    ensure!(only_session(lab)?.bypassed, "not marked");
    lab.close(connection)?;
    Ok(format!("2 MiB to and fro; {line}"))
}

/// The client continues to send; either its packets or their acknowledgments pass.
fn stand_still(lab: &mut Lab, family: Family, seen: End) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    lab.ways = only(seen);
    for socket in [&connection.client, &connection.server] {
        socket.set_nonblocking(true)?;
    }
    let (mut client, mut server, mut buffer) =
        (&connection.client, &connection.server, vec![0; 1 << 16]);
    let mut go_on = || {
        // As many bytes as the socket accepts.
        let _ = client.write(&[1; 10_000]);
        let _ = server.read(&mut buffer);
    };
    lab.until("packets that tell", |lab| {
        go_on();
        Ok(lab.diary.refused.len() >= 2)
    })?;
    lab.pass(Duration::from_secs(10))?;
    lab.until("the report", |lab| {
        go_on();
        Ok(!lab.engine.asymmetry().lines.is_empty())
    })?;
    let line = only_line(lab, family, seen)?;
    let (evidence, reason) = match seen {
        End::Client => (Evidence::OneDirectionOnly, DropReason::TcpSeqAboveWindow),
        End::Server => (Evidence::UnseenDataAcknowledged, DropReason::TcpAckOfUnseen),
    };
    ensure!(
        line.evidence == evidence && line.cause() == Cause::RoutingAsymmetry,
        "{line}"
    );
    ensure!(
        lab.diary.refused_for(reason) == lab.diary.refused.len(),
        "{:?}",
        lab.diary.refused
    );
    lab.close(connection)?;
    Ok(format!("{} {line}", reason.name()))
}

fn other_zone(lab: &Lab, family: Family) -> Result<AsymmetryLine> {
    let line = only_line(lab, family, End::Server)?;
    ensure!(
        line.evidence == Evidence::OtherZone && line.cause() == Cause::ApplianceModeMissing,
        "{line}"
    );
    ensure!(
        (line.zone, line.other_zone) == (Zone(2), Some(Zone(1))),
        "{line:?}"
    );
    Ok(line)
}

fn two_zones(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(&format!("{ALLOW}{ZONE_NAMES}"))?;
    lab.ways = ZONES;
    let client = lab.call(family)?;
    lab.until("the report", |lab| {
        Ok(!lab.engine.asymmetry().lines.is_empty())
    })?;
    let line = other_zone(lab, family)?;
    ensure!(
        lab.diary.refused_for(DropReason::OtherZone) == lab.diary.refused.len(),
        "{:?}",
        lab.diary.refused
    );
    lab.hang_up(family, client)?;
    Ok(format!("{line}"))
}

fn two_zones_pass(lab: &mut Lab, family: Family, mode: &str) -> Result<String> {
    lab.begin(&format!("{ALLOW}tcp.asymmetric = \"{mode}\"\n{ZONE_NAMES}"))?;
    lab.ways = ZONES;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, MEGABYTE)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let lines = lab.engine.asymmetry().lines;
    ensure!(
        lines
            .iter()
            .any(|line| line.evidence == Evidence::OtherZone),
        "{lines:#?}"
    );
    if mode == "bypass" {
        ensure!(only_session(lab)?.bypassed, "not marked");
        let line = other_zone(lab, family)?;
        lab.close(connection)?;
        return Ok(format!("1 MiB to and fro; {line}"));
    }
    lab.close(connection)?;
    Ok("1 MiB to and fro".to_owned())
}

fn one_group(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(&format!(
        "{ALLOW}{ZONE_NAMES}[zone_groups]\nboth = [\"east\", \"west\"]\n"
    ))?;
    lab.ways = ZONES;
    let connection: Connection = lab.connect(family)?;
    lab.exchange(&connection, MEGABYTE)?;
    ensure!(lab.diary.refused.is_empty(), "{:?}", lab.diary.refused);
    let report = lab.engine.asymmetry();
    ensure!(report.lines.is_empty(), "{:#?}", report.lines);
    let session = only_session(lab)?;
    ensure!(
        !session.bypassed && !session.adopted && session.assured,
        "{session:?}"
    );
    lab.close(connection)?;
    Ok("1 MiB to and fro, no evidence".to_owned())
}
