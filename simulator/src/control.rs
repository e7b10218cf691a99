//! Commands on standard input, each answered by a line of JSON on standard output.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::balancer::Balancer;
use super::parse::appliance;
use super::sender::Shared;
use super::targets::TargetReport;

/// Maximum length of a command line.
const MAX_LINE: usize = 256;
/// Interval at which the end of the run is checked, in milliseconds.
const PATIENCE: u16 = 50;

/// Answer to a command.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Answer {
    /// The command, as it was read.
    command: String,
    /// Whether it was carried out.
    ok: bool,
    /// Reason for which it was not carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// All targets, after the command.
    targets: Vec<TargetReport>,
}

/// Carries out a command.
pub(super) fn answer(balancer: &mut Balancer, now: Instant, line: &str) -> Answer {
    let mut words = line.split_whitespace();
    let result = match (words.next(), words.next(), words.next()) {
        (Some("targets"), None, None) => Ok(()),
        (Some("register"), Some(target), None) => register(balancer, now, target),
        (Some("deregister"), Some(target), None) => target
            .parse::<Ipv4Addr>()
            .map_err(|_| "an IPv4 address is needed".to_owned())
            .and_then(|address| {
                let done = balancer.targets.deregister(now, address);
                done.map_err(|error| error.to_string())
            }),
        _ => Err("targets, register ADDRESS[:PORT] or deregister ADDRESS is needed".to_owned()),
    };
    Answer {
        command: line.to_owned(),
        ok: result.is_ok(),
        error: result.err(),
        targets: balancer.target_reports(now),
    }
}

fn register(balancer: &mut Balancer, now: Instant, target: &str) -> Result<(), String> {
    let address = appliance(target)?;
    if *address.ip() == balancer.setup.local || address.ip().is_unspecified() {
        return Err("the address is the balancer's own".to_owned());
    }
    let done = balancer.targets.register(now, address);
    done.map_err(|error| error.to_string())
}

/// Splits the input into lines. A line that is too long is truncated.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Adds bytes, and calls `each` with every line that ends in them.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' {
                each(String::from_utf8_lossy(&self.begun).trim());
                self.begun.clear();
            } else if self.begun.len() < MAX_LINE {
                self.begun.push(*byte);
            }
        }
    }
}

/// Answers commands until standard input ends or the run is over.
///
/// # Errors
/// Returns an error if standard input cannot be read, or standard output cannot be written.
pub(super) fn serve(shared: &Shared, finished: &AtomicBool) -> io::Result<()> {
    let input = io::stdin();
    let mut lines = Lines::default();
    let mut buffer = [0; 1024];
    while !finished.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(
            std::os::fd::AsFd::as_fd(&input),
            PollFlags::POLLIN,
        )];
        match poll(&mut ready, PollTimeout::from(PATIENCE)) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // `Stdin` is not used, since `poll` has no access to its buffer.
        let len = match rustix::io::read(&input, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut answers = Vec::new();
        lines.push(buffer.get(..len).unwrap_or_default(), |line| {
            if !line.is_empty() {
                answers.push(answer(&mut shared.balancer.lock(), Instant::now(), line));
            }
        });
        let mut output = io::stdout().lock();
        for answer in answers {
            let json = serde_json::to_string(&answer)?;
            writeln!(output, "{json}")?;
        }
        output.flush()?;
    }
    Ok(())
}
