//! A small attack beside a download that goes on.

use std::fs;
use std::io;
use std::time::Duration;

use etherparse::TcpHeader;

use super::error::DemoError;
use super::fetch::Fetch;
use super::ftp;
use super::namespace::Namespace;
use super::packets::{
    Overheard, PacketSender, header, overhear, reset, segment, syn, with_offset_beyond_end,
    with_wrong_checksum,
};
use super::services::{STEADY, WEB};
use super::stop::Stop;
use super::story::{Count, Step, Story, number};
use super::topology::{ATTACKER, CLIENT, HALF_OPEN, NOBODY, SERVER, Topology};
use crate::run::protocol::FilterSpec;

/// Ports of the scan, from 1 on.
const SCANNED: u16 = 1024;
/// Scanned ports that a rule allows: those of the web and of FTP.
const OPEN: u64 = 2;
/// SYNs of the flood.
const FLOOD: u16 = 10_000;
/// Segments of no connection.
const STRAYS: u16 = 2_000;
/// Damaged packets of each kind.
const DAMAGED: u16 = 25;
/// Reasons for which damaged packets are dropped, one for each kind.
const DAMAGES: [&str; 4] = [
    "tcp_header_length",
    "tcp_flags",
    "tcp_checksum",
    "address_land",
];
/// Resets with guessed sequence numbers.
const GUESSES: u16 = 1_000;
/// Distance of the first guess from the expected number, and of each from the one before: together
/// they span nearly all numbers, outside of every window.
const FIRST_GUESS: u32 = 100_000_000;
const GUESS_STEP: u32 = 4_000_000;
/// Reasons for which guesses are dropped.
const OUTSIDE: [&str; 2] = ["tcp_seq_above_window", "tcp_rst_below_window"];
/// Resets inside of the window, with a pause after each, which Linux waits between challenges.
const NEAR: u32 = 3;
const NEAR_PAUSE: Duration = Duration::from_millis(550);
/// Distance of the near resets from the expected number.
const NEAR_OFFSET: u32 = 1_000;
/// First client port of scans, floods and strays.
const FIRST_PORT: u16 = 20_000;
/// Time for a download to be under way.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// Attacks while a download goes on, and records a step for each kind of attack and for the
/// download.
///
/// # Errors
/// Returns an error if a program or a socket cannot be used, and [`DemoError::Interrupted`] after a
/// signal.
pub(crate) fn run(
    topology: &mut Topology,
    stop: &Stop,
    story: &mut Story,
) -> Result<(), DemoError> {
    let url = format!("http://{SERVER}/steady");
    let folder = topology.workspace.folder();
    let mut download = Fetch::start("steady", &url, &topology.client, folder)?;
    let attack = Attack {
        topology,
        stop,
        sender: PacketSender::new(&topology.client)?,
    };
    stop.sleep(UNDER_WAY)?;
    let connection = overhear(&topology.client, stop)?;
    story.record(attack.scan()?)?;
    story.record(attack.blind_resets(connection)?)?;
    story.record(attack.near_resets(connection)?)?;
    story.record(attack.flood()?)?;
    story.record(attack.strays()?)?;
    story.record(attack.damaged()?)?;
    let outlasts = download.is_running()?;
    let fetched = download.finish(stop)?;
    let end = if outlasts {
        "; it has outlasted the attack"
    } else {
        ""
    };
    let text = format!("{}{end}", fetched.words());
    let counts = [Count("bytes", fetched.received.bytes as u64)];
    let ok = fetched.is_whole(STEADY);
    story.record(Step::new("download", ok, text, counts))?;
    topology.check()
}

/// The attacker.
struct Attack<'a> {
    topology: &'a Topology,
    stop: &'a Stop,
    sender: PacketSender,
}

impl Attack<'_> {
    /// Sends packets, and returns the number of those that were sent and that were dropped for
    /// these reasons.
    fn send(
        &self,
        packets: impl IntoIterator<Item = io::Result<Vec<u8>>>,
        reasons: &[&str],
        expected: u64,
    ) -> Result<Outcome, DemoError> {
        const PER_MILLISECOND: usize = 4;
        let readings = &self.topology.readings;
        let before = readings.stats()?;
        let sent = self.sender.send(packets, PER_MILLISECOND, self.stop)?;
        let dropped = readings.dropped_since(&before, reasons, expected, self.stop)?;
        Ok(Outcome {
            sent,
            dropped,
            ok: dropped == expected,
        })
    }

    fn scan(&self) -> Result<Step, DemoError> {
        let packets = (1..=SCANNED).map(|port| segment(ATTACKER, syn(FIRST_PORT, port)));
        let expected = u64::from(SCANNED) - OPEN;
        let outcome = self.send(packets, &["policy_deny"], expected)?;
        let text = format!(
            "SYNs from {ATTACKER} to {} ports: {} denied; rules allow {WEB} and {}",
            number(outcome.sent),
            number(outcome.dropped),
            ftp::PORT
        );
        Ok(outcome.step("port scan", text))
    }

    fn flood(&self) -> Result<Step, DemoError> {
        let packets = (0..FLOOD).map(|n| segment(NOBODY, syn(FIRST_PORT + n, WEB)));
        let expected = u64::from(FLOOD) - HALF_OPEN;
        let outcome = self.send(packets, &["limit_half_open"], expected)?;
        let text = format!(
            "{} SYNs from {NOBODY} to port {WEB}: {} dropped, since a source may have {HALF_OPEN} \
             half-open sessions",
            number(outcome.sent),
            number(outcome.dropped)
        );
        Ok(outcome.step("SYN flood", text))
    }

    fn strays(&self) -> Result<Step, DemoError> {
        let ack = |n: u16| TcpHeader {
            ack: true,
            acknowledgment_number: 1,
            ..header(FIRST_PORT + 1 + n, WEB, 1)
        };
        let packets = (0..STRAYS).map(|n| segment(ATTACKER, ack(n)));
        let outcome = self.send(packets, &["tcp_no_session"], STRAYS.into())?;
        let text = format!(
            "{} ACKs of no connection: {} dropped",
            number(outcome.sent),
            number(outcome.dropped)
        );
        Ok(outcome.step("stray ACKs", text))
    }

    fn damaged(&self) -> Result<Step, DemoError> {
        let port = |n: u16| FIRST_PORT - 1 - n;
        let whole = |n| segment(ATTACKER, syn(port(n), WEB));
        let both = |n| TcpHeader {
            fin: true,
            ..syn(port(n), WEB)
        };
        let packets = (0..DAMAGED).flat_map(|n| {
            [
                whole(n).map(with_offset_beyond_end),
                segment(ATTACKER, both(n)),
                whole(n).map(with_wrong_checksum),
                // From the server to itself.
                segment(SERVER, syn(port(n), WEB)),
            ]
        });
        let expected = u64::from(DAMAGED) * DAMAGES.len() as u64;
        let outcome = self.send(packets, &DAMAGES, expected)?;
        let text = format!(
            "{} packets with an impossible length, flags, checksum or source: {} dropped",
            number(outcome.sent),
            number(outcome.dropped)
        );
        Ok(outcome.step("bad packets", text))
    }

    /// Resets the download with the right addresses and ports, and guessed numbers.
    fn blind_resets(&self, connection: Overheard) -> Result<Step, DemoError> {
        let guess = |n: u16| {
            let distance = FIRST_GUESS.wrapping_add(GUESS_STEP.wrapping_mul(n.into()));
            reset(connection.port, connection.next.wrapping_add(distance))
        };
        let packets = (0..GUESSES).map(|n| segment(CLIENT, guess(n)));
        let outcome = self.send(packets, &OUTSIDE, GUESSES.into())?;
        let text = format!(
            "{} RSTs for the download, their sequence numbers guessed: {} dropped",
            number(outcome.sent),
            number(outcome.dropped)
        );
        Ok(outcome.step("blind RSTs", text))
    }

    /// Resets the download with numbers that its server may expect, but does not.
    fn near_resets(&self, connection: Overheard) -> Result<Step, DemoError> {
        let before = challenges(&self.topology.server)?;
        for n in 0..NEAR {
            let sequence = connection.next.wrapping_add(NEAR_OFFSET + n);
            let packet = segment(CLIENT, reset(connection.port, sequence));
            self.sender.send([packet], 1, self.stop)?;
            self.stop.sleep(NEAR_PAUSE)?;
        }
        let challenged = challenges(&self.topology.server)?.saturating_sub(before);
        let sessions = self.topology.readings.sessions(FilterSpec {
            port: vec![connection.port.to_string()],
            ..FilterSpec::default()
        })?;
        let state = sessions
            .first()
            .map(|session| session.session.state.clone());
        let state = state.as_deref().unwrap_or("gone");
        let text = format!(
            "{NEAR} RSTs inside of its window: not trusted, so the session stays {state}; passed \
             to the server, which challenges {challenged} of them (RFC 5961)"
        );
        let counts = [Count("sent", NEAR.into()), Count("challenged", challenged)];
        let ok = state == "ESTABLISHED" && challenged > 0;
        Ok(Step::new("near RSTs", ok, text, counts))
    }
}

/// Result of one kind of attack.
struct Outcome {
    sent: u64,
    dropped: u64,
    ok: bool,
}

impl Outcome {
    fn step(&self, name: &'static str, text: String) -> Step {
        let counts = [Count("sent", self.sent), Count("dropped", self.dropped)];
        Step::new(name, self.ok, text, counts)
    }
}

/// Returns the number of challenge ACKs that the kernel of a namespace has sent.
fn challenges(namespace: &Namespace) -> Result<u64, DemoError> {
    let read = || fs::read_to_string("/proc/thread-self/net/netstat");
    let text = namespace.inside("counters", read)?;
    Ok(counter(&text, "TCPChallengeACK").unwrap_or_default())
}

/// Returns a counter of `/proc/net/netstat`: a line of names and a line of values for each group.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let place = names.split(' ').position(|each| each == name);
        if let Some(place) = place {
            return values.split(' ').nth(place)?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_kernel_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPChallengeACK\nTcpExt: 0 7\nIpExt: InNoRoutes\n\
                    IpExt: 3\n";
        assert_eq!(counter(text, "TCPChallengeACK"), Some(7));
        assert_eq!(counter(text, "InNoRoutes"), Some(3));
        assert_eq!(counter(text, "TCPSynChallenge"), None);
        assert_eq!(counter("", "InNoRoutes"), None);
    }

    #[test]
    fn no_guess_comes_near_the_window() {
        let last = u64::from(FIRST_GUESS) + u64::from(GUESS_STEP) * u64::from(GUESSES - 1);
        // The window of a server that receives no more than a request is far below 64 MiB.
        assert!(
            u64::from(FIRST_GUESS) > 1 << 26 && last + (1 << 26) < 1 << 32,
            "{last}"
        );
    }
}
