//! `portcullis demo`: the appliance at work between two kernels, without AWS.
//!
//! The demo creates network namespaces for a client, a server, the simulated load balancer and the
//! appliance ([`topology`]). Real programs use the server through the appliance ([`traffic`]), and
//! a small attack runs beside a download ([`attack`]). Each step has an expected result
//! ([`story`]).
//! Nothing remains, however the demo ends: namespaces have no names, programs end with their parent
//! ([`launch`]), and a second process removes the folder ([`workspace`]).

mod accept;
mod attack;
mod child;
mod content;
mod error;
mod fetch;
mod ftp;
mod launch;
mod namespace;
mod packets;
mod readings;
mod relay;
mod services;
mod stop;
mod story;
mod topology;
mod traffic;
mod visitors;
mod workspace;

use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};
use nix::unistd::{geteuid, getpgrp, tcgetpgrp};

pub(crate) use self::error::DemoError;
use self::launch::LaunchArgs;
use self::stop::Stop;
use self::story::{Places, Story};
use self::topology::Topology;

/// Programs that the demo needs, with their packages in Debian and in Fedora.
const PROGRAMS: [Needed; 2] = [
    Needed {
        name: "ip",
        packages: "iproute2 (Debian, Ubuntu) or iproute (Fedora, Amazon Linux)",
    },
    Needed {
        name: "curl",
        packages: "curl",
    },
];
/// Interval at which a kept demo checks its programs.
const TURN: Duration = Duration::from_millis(200);
/// The network of the demo.
const PICTURE: &str = "\
portcullis demo: an appliance between a client, an attacker and a server

  client   10.1.0.10 --+                                  +-- server 10.2.0.20
  attacker 10.1.0.66 --+-- load balancer (simulated) -----+   web, DNS, FTP
                                   |  GENEVE
                              portcullis: denies what no rule allows
";

/// A program that the demo needs.
struct Needed {
    name: &'static str,
    packages: &'static str,
}

/// The arguments of `portcullis demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct DemoArgs {
    /// Keep everything running, with some traffic, until Enter or Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Processes that the demo starts of its own program.
#[derive(Debug, Subcommand)]
enum Part {
    /// Become a program in a network namespace
    #[command(hide = true)]
    Launch(LaunchArgs),
    /// Remove the folder of a demo after its end
    #[command(hide = true)]
    Guard {
        /// The folder
        folder: PathBuf,
    },
}

/// Runs the demo, or one of its parts.
///
/// # Errors
/// Returns an error before anything is started if the user is not root or a program is missing.
/// Returns one later if a step fails or has an unexpected result, or a signal comes; nothing
/// remains then either.
pub(crate) fn run(args: &DemoArgs) -> Result<(), DemoError> {
    match &args.part {
        Some(Part::Launch(args)) => launch::launch(args),
        Some(Part::Guard { folder }) => workspace::guard(folder),
        None => show(args),
    }
}

fn show(args: &DemoArgs) -> Result<(), DemoError> {
    if !geteuid().is_root() {
        return Err(DemoError::NotRoot);
    }
    if let Some(missing) = missing(&launch::folders()) {
        return Err(DemoError::Missing(missing));
    }
    let stop = Stop::on_signals()?;
    let mut story = Story::new(args.json);
    story.say(PICTURE)?;
    let mut topology = Topology::new(&stop)?;
    story.say("\nTraffic that the policy allows, and a port that it does not name:\n")?;
    traffic::run(&mut topology, &stop, &mut story)?;
    story.say("\nAn attack, beside a download that goes on:\n")?;
    attack::run(&mut topology, &stop, &mut story)?;
    let control = topology.readings.control().display().to_string();
    let metrics = format!("http://127.0.0.1:{}/metrics", topology.pages.metrics_port);
    let console = format!("http://127.0.0.1:{}/", topology.pages.console_port);
    let token = topology.pages.token.clone();
    let places = Places {
        control: &control,
        metrics: &metrics,
        console: &console,
        token: &token,
    };
    story.finish(&topology.readings.stats()?, args.keep.then_some(places))?;
    if args.keep {
        drop_typed_ahead();
        story.say(&further(&topology, places))?;
        keep(&mut topology, &stop)?;
    } else {
        story.say("\n`portcullis demo --keep` lets you look around in the running appliance.\n")?;
    }
    match story.failed()[..] {
        [] => Ok(()),
        ref failed => Err(DemoError::Unexpected(failed.join(", "))),
    }
}

/// Returns the missing programs in words; `None` if all are in one of the folders.
fn missing(folders: &[PathBuf]) -> Option<String> {
    let has = |folder: &PathBuf, name| folder.join(name).is_file();
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| !folders.iter().any(|folder| has(folder, program.name)))
        .map(|program| {
            format!(
                "`{}` is missing: install {}",
                program.name, program.packages
            )
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Returns the commands with which a running demo can be examined.
fn further(topology: &Topology, places: Places<'_>) -> String {
    let Places {
        control,
        metrics,
        console,
        token,
    } = places;
    let client = topology.client.path().display().to_string();
    format!(
        "\nIt goes on until Enter or Ctrl-C. The web console, for any user and this password:\n
  {console}  {token}

In another terminal, as root:\n
  portcullis sessions top --control {control}
  portcullis sessions rules --control {control}
  portcullis observe --control {control}
  curl {metrics}
  nsenter --net={client} curl http://{}/      # as the client\n",
        topology::SERVER
    )
}

/// Returns whether standard input is a terminal that the demo may read. The system would stop a
/// demo in the background that reads its terminal.
fn reads_terminal() -> bool {
    let input = io::stdin();
    let is_behind = tcgetpgrp(&input).is_ok_and(|group| group != getpgrp());
    input.is_terminal() && !is_behind
}

/// Drops the input that was typed before the demo has asked for Enter.
fn drop_typed_ahead() {
    if reads_terminal() {
        // Input that stays ends the demo early, and does no other harm.
        let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
    }
}

/// Goes on with some traffic until Enter is pressed or a signal comes.
fn keep(topology: &mut Topology, stop: &Stop) -> Result<(), DemoError> {
    visitors::start(&topology.client)?;
    let is_ended = || -> bool {
        let mut input = io::stdin();
        if !reads_terminal() {
            return false;
        }
        let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut ready, PollTimeout::ZERO), Ok(count) if count > 0)
            && input.read(&mut [0]).is_ok()
    };
    loop {
        match stop.sleep(TURN) {
            // A signal is the way to end a kept demo.
            Err(DemoError::Interrupted) => return Ok(()),
            other => other?,
        }
        if is_ended() {
            return Ok(());
        }
        topology.check()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_their_packages() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        let all = missing(&folders).unwrap();
        assert!(all.contains("`ip` is missing: install iproute2"), "{all}");
        assert!(all.ends_with("; `curl` is missing: install curl"), "{all}");
        std::fs::write(folder.path().join("curl"), "").unwrap();
        let one = missing(&folders).unwrap();
        assert!(!one.contains("curl"), "{one}");
        std::fs::write(folder.path().join("ip"), "").unwrap();
        assert_eq!(missing(&folders), None);
    }

    #[test]
    fn the_picture_fits_a_terminal() {
        assert!(PICTURE.lines().all(|line| line.len() <= 80));
    }
}
