//! Forged RSTs: each is in the window of its receiver, and none has the exact number.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::lab::{Connection, Lab};
use super::stacks::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT2, Family, PORT};
use super::wire::End;
use super::{ALLOW, Scene};
use crate::segment::{RST, Segment};

/// The scenes.
pub const SCENES: &[(&str, Scene)] = &[
    ("200,000 forged RSTs leave an idle connection alone", idle),
    (
        "forged RSTs leave a half-closed connection alone",
        half_closed,
    ),
];

/// Time without packets after the forged ones, by the engine's clock.
const SILENCE: Duration = Duration::from_secs(60);

/// Linux's default: a connection challenges one RST in this time, so the others get no answer.
const CHALLENGES: Duration = Duration::from_millis(500);

/// Sends forged RSTs to both ends through the engine. All of them pass, and each end challenges
/// some.
fn forge(lab: &mut Lab, connection: &Connection, family: Family, to_each: u32) -> Result<String> {
    lab.stacks.limit_challenges(CHALLENGES)?;
    let told = forge_with_few_challenges(lab, connection, family, to_each);
    lab.stacks.limit_challenges(Duration::ZERO)?;
    told
}

fn forge_with_few_challenges(
    lab: &mut Lab,
    connection: &Connection,
    family: Family,
    to_each: u32,
) -> Result<String> {
    let before = lab.stacks.counts()?;
    let address = |end| match end {
        End::Client => SocketAddr::new(family.address(end), connection.port),
        End::Server => SocketAddr::new(family.address(end), PORT),
    };
    for to in End::BOTH {
        let from = to.other();
        let (_, expected) = lab.diary.next_numbers(to).context("no numbers were seen")?;
        // The window as on the wire: the scaled window is larger.
        let window = u32::from(lab.diary.last_window(to));
        ensure!(window > 1, "the {to:?} offers no window");
        for number in 0..to_each {
            let segment = Segment {
                seq: expected.wrapping_add(1 + number % (window - 1)),
                flags: RST,
                ..Segment::default()
            };
            lab.forge_and_deliver(from, &segment.packet(address(from), address(to))?)?;
            if number % 64 == 0 {
                lab.run_for(Duration::ZERO)?;
            }
        }
    }
    lab.run_for(Duration::from_millis(20))?;
    ensure!(
        lab.diary.refused.is_empty(),
        "{:?}",
        lab.diary.refused.first()
    );
    let after = lab.stacks.counts()?;
    let mut challenges = 0;
    for end in End::BOTH {
        let grown = |counter| end.of(&after).since(end.of(&before), counter);
        let received = grown("InSegs")?;
        ensure!(
            received >= i64::from(to_each),
            "the {end:?} has got {received} segments, fewer than {to_each}"
        );
        ensure!(
            grown("TCPChallengeACK")? > 0,
            "the {end:?} has challenged none"
        );
        ensure!(
            grown("EstabResets")? == 0,
            "the {end:?}'s connection was reset"
        );
        challenges += grown("TCPChallengeACK")?;
    }
    ensure!(
        challenges < i64::from(to_each),
        "all of them are challenged, and the challenges refresh the session"
    );
    Ok(format!("{} RSTs, {challenges} challenge ACKs", 2 * to_each))
}

/// The engine has ended nothing and sent nothing, and the sockets are in the expected states.
fn see_nothing(lab: &Lab, connection: &Connection, states: [u8; 2]) -> Result<()> {
    let sent = lab.engine.stats().resets_sent;
    ensure!(sent == 0, "{sent} RSTs of the engine");
    ensure!(
        lab.diary.resets.is_empty() && lab.diary.answers.is_empty() && lab.diary.ended.is_empty(),
        "{:?}, {:?}, {:?}",
        lab.diary.resets,
        lab.diary.answers,
        lab.diary.ended
    );
    for end in End::BOTH {
        let state = lab.stacks.socket_state(end, connection.port)?;
        let expected = *end.of(&states);
        ensure!(
            state == Some(expected),
            "the {end:?}'s socket is in state {state:?} instead of {expected}"
        );
    }
    Ok(())
}

fn idle(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    let told = forge(lab, &connection, family, 100_000)?;
    see_nothing(lab, &connection, [ESTABLISHED; 2])?;
    lab.pass(SILENCE)?;
    lab.run_for(Duration::from_millis(50))?;
    see_nothing(lab, &connection, [ESTABLISHED; 2])?;
    lab.exchange(&connection, 100_000)?;
    see_nothing(lab, &connection, [ESTABLISHED; 2])?;
    lab.close(connection)?;
    Ok(format!("{told}, 60 s, then data to and fro"))
}

fn half_closed(lab: &mut Lab, family: Family) -> Result<String> {
    lab.begin(ALLOW)?;
    let connection = lab.connect(family)?;
    lab.exchange(&connection, 100_000)?;
    lab.settle()?;
    connection.client.shutdown(Shutdown::Write)?;
    lab.settle()?;
    let told = forge(lab, &connection, family, 10_000)?;
    let states = [FIN_WAIT2, CLOSE_WAIT];
    see_nothing(lab, &connection, states)?;
    // Less than the shortest default lifetime of a half-closed connection.
    lab.pass(Duration::from_secs(50))?;
    lab.run_for(Duration::from_millis(50))?;
    see_nothing(lab, &connection, states)?;
    lab.transfer(&connection, End::Server, 100_000)?;
    see_nothing(lab, &connection, states)?;
    lab.close(connection)?;
    Ok(format!("{told}, 50 s, then data of the open half"))
}
