//! `portcullis bench`: what the engine costs on this machine.
//!
//! Packets are made in slices outside the timed part, see [`traffic`]; a slice of [`SLICE`] packets fits the
//! second-level cache, as packets do that a network interface has just delivered. Each slice is one sample. All
//! packets of a slice carry one `now`, as those of a receive batch would.

mod memory;
mod report;
#[cfg(test)]
mod tests;
#[path = "../../../benches/traffic/mod.rs"]
mod traffic;
mod worker;

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use portcullis::config::{ChallengeMode, Checksums};
use portcullis::{Config, ConfigError, DropReason, Engine};
use thiserror::Error;

use report::Report;
use traffic::{MAX_SESSIONS, Protocol};

/// Packets, or ended sessions, of one sample.
const SLICE: usize = 1024;

/// The fewest sessions: below, a round is over before the clock has ticked.
const MIN_SESSIONS: u32 = 1_000;

/// A fixed hash seed, so that two runs fill the same shards.
const SEED: [u64; 4] = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];

/// What `portcullis bench` measures.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Sessions in the table, which has room for just as many: 1000 to 16777216
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(i64::from(MIN_SESSIONS)..=i64::from(MAX_SESSIONS)))]
    sessions: u32,
    /// Threads, each with its own share of the sessions: 1 to 256
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Shards of the table, a power of two [default: as without configuration]
    #[arg(long)]
    shards: Option<u32>,
    /// Protocol of all sessions
    #[arg(long, value_enum, default_value_t = ProtocolArg::Tcp)]
    protocol: ProtocolArg,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Mode::Packets)]
    mode: Mode,
    /// Packets that are decided together, as those of a receive call: 1, one by one, to 1024
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SLICE as i64))]
    batch: u32,
    /// How long to measure, filling the table not counted: 1 to 60
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Verify all checksums, as the engine does by default; without it they are trusted, so that
    /// the size of packets does not count
    #[arg(long)]
    verify_checksums: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The protocol of all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// TCP over IPv4, with timestamps
    Tcp,
    /// UDP over IPv4
    Udp,
}

impl ProtocolArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Tcp => Self::Tcp,
            ProtocolArg::Udp => Self::Udp,
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Packets of established sessions in random order
    Packets,
    /// Packets that open sessions (for TCP the SYN), until the table is full; again and again
    Setup,
    /// The end of all sessions of a full table; again and again
    Expire,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Setup => "setup",
            Self::Expire => "expire",
        }
    }
}

/// Why a measurement says nothing.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// The engine cannot be made.
    #[error("the engine cannot be made: {0}")]
    Config(#[from] ConfigError),
    /// Packets that had to be forwarded were not.
    #[error("{count} packets were not forwarded, the first for {reason}")]
    NotForwarded {
        /// How many.
        count: u64,
        /// Why the first was not.
        reason: DropReason,
    },
    /// The table does not hold the sessions that it must hold.
    #[error("the table holds {found} sessions in place of {expected}")]
    Sessions {
        /// How many it should hold.
        expected: u32,
        /// How many it does.
        found: usize,
    },
    /// Not one sample was taken.
    #[error("nothing was measured")]
    NoSample,
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Measures, and prints the report on standard output.
///
/// # Errors
/// A packet that was not forwarded, or a report that cannot be written.
pub(crate) fn run(args: &BenchArgs) -> Result<(), BenchError> {
    let report = measure(args, Duration::from_secs(u64::from(args.seconds)))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

/// Fills a table and measures for about as long as `time`.
fn measure(args: &BenchArgs, time: Duration) -> Result<Report, BenchError> {
    let mut config = Config::allow_all();
    config.table.max_sessions = args.sessions;
    config.table.shards = args.shards;
    // The load opens sessions as fast as it can, which is a flood to the engine.
    config.syn_challenge.mode = ChallengeMode::Off;
    config.engine.checksums = if args.verify_checksums {
        Checksums::Verify
    } else {
        Checksums::Trust
    };
    let before = memory::resident_bytes();
    let engine = Engine::with_seed(&config, SEED)?;
    let run = worker::Run::new(&engine, args, time);
    run.fill();
    run.check()?;
    let after = memory::resident_bytes();
    let samples = run.measure()?;
    let bytes_per_session = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) as f64 / f64::from(args.sessions));
    Report::new(args, &samples, bytes_per_session).ok_or(BenchError::NoSample)
}
