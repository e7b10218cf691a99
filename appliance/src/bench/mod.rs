//! `portcullis bench`: measures the cost of the engine on this machine.
//!
//! Packets are made in slices outside the timed part, see [`traffic`]; a slice of [`args::SLICE`]
//! packets fits the second-level cache, as packets do that a network interface has just delivered.
//! Each slice is one sample. All packets of a slice carry one `now`, as those of a receive batch
//! would.

mod args;
mod error;
mod latency;
mod memory;
mod mix;
mod report;
mod rules;
#[cfg(test)]
mod tests;
#[path = "../../../benches/traffic/mod.rs"]
mod traffic;
mod worker;

use std::io::Write;
use std::time::Duration;

use portcullis::config::{ChallengeMode, Checksums, LifetimeClass, LifetimeSet};
use portcullis::{Config, Engine};

pub(crate) use self::args::BenchArgs;
use self::args::Mode;
use self::error::BenchError;
use self::latency::Latency;
use self::report::{Measured, Report};

/// Fixed hash seed, so that two runs fill the same shards.
const SEED: [u64; 4] = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];

/// Sessions above which the first may end before the last are established.
const MANY_SESSIONS: u32 = 1 << 25;

/// Lifetime of sessions in a table of so many.
const LONG_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Measures, and prints the report on standard output.
///
/// # Errors
/// Arguments without sense, a packet that was not forwarded, an operation that did not do what it
/// must do, or a report that cannot be written.
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
    args.check()?;
    let config = config(args);
    fits(&config)?;
    let before = memory::resident_bytes();
    let engine = Engine::with_seed(&config, SEED)?;
    let run = worker::Run::new(&engine, args, time);
    let (after, measured) = if args.mode == Mode::Latency {
        let latency = Latency::new(&run, &config)?;
        latency.fill()?;
        let after = memory::resident_bytes();
        (after, Measured::Latency(latency.measure()?))
    } else {
        run.fill();
        run.check()?;
        let after = memory::resident_bytes();
        (after, Measured::Samples(run.measure()?))
    };
    let bytes_per_session = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) as f64 / f64::from(args.sessions));
    Report::new(args, measured, bytes_per_session).ok_or(BenchError::NoSample)
}

/// Returns the engine's configuration.
fn config(args: &BenchArgs) -> Config {
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
    if args.mode == Mode::Packets && args.sessions > MANY_SESSIONS {
        let long = |set: LifetimeSet, class| set.with(class, LONG_LIFETIME);
        config.lifetimes.set = LifetimeClass::ALL
            .into_iter()
            .fold(LifetimeSet::default(), long);
    }
    rules::set(&mut config, args.rules, args.family);
    config
}

/// Checks that the machine has memory for the full table.
fn fits(config: &Config) -> Result<(), BenchError> {
    const MIB: u64 = 1 << 20;
    let needed = config.compile()?.memory().total();
    match crate::memory::available() {
        Some(available) if available < needed => Err(BenchError::Memory {
            needed: needed / MIB,
            available: available / MIB,
        }),
        _ => Ok(()),
    }
}
