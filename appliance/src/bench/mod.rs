//! `portcullis bench`: what the engine costs on this machine.
//!
//! Packets are made in slices outside the timed part, see [`traffic`]; a slice of [`args::SLICE`] packets fits the
//! second-level cache, as packets do that a network interface has just delivered. Each slice is one sample. All
//! packets of a slice carry one `now`, as those of a receive batch would.

mod args;
mod error;
mod memory;
mod report;
#[cfg(test)]
mod tests;
#[path = "../../../benches/traffic/mod.rs"]
mod traffic;
mod worker;

use std::io::Write;
use std::time::Duration;

use portcullis::config::{ChallengeMode, Checksums};
use portcullis::{Config, Engine};

pub(crate) use self::args::BenchArgs;
use self::error::BenchError;
use self::report::Report;

/// A fixed hash seed, so that two runs fill the same shards.
const SEED: [u64; 4] = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];

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
