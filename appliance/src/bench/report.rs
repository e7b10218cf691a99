//! Report of a measurement, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::args::{BenchArgs, Mode, name_of};
use super::latency::Times;
use super::mix::{Shares, Traffic};
use super::worker::Samples;

/// The minimum and the median sample.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Spread {
    /// Returns `None` without a sample.
    pub(super) fn of(samples: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.collect();
        sorted.sort_by(f64::total_cmp);
        let min = *sorted.first()?;
        let median = *sorted.get(sorted.len() / 2)?;
        Some(Self { min, median })
    }
}

/// Times of the calls with packets during one operation on the table.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DuringOperation {
    pub(super) operation: &'static str,
    /// Runs of the operation.
    pub(super) runs: usize,
    /// Median time of a run, in milliseconds; `None` without an operation.
    pub(super) run_ms: Option<f64>,
    /// Calls that were timed.
    pub(super) calls: u64,
    /// Median time of a call, in nanoseconds; `None` if no call was timed, as below.
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) p999_ns: Option<u64>,
    pub(super) max_ns: Option<u64>,
}

impl DuringOperation {
    pub(super) fn new(times: &Times) -> Self {
        let runs = times.runs.iter().map(|run| run.as_secs_f64() * 1e3);
        let is_timed = !times.calls.is_empty();
        let at = |percent: f64| is_timed.then(|| times.calls.value_at_quantile(percent / 100.0));
        Self {
            operation: times.operation,
            runs: times.runs.len(),
            run_ms: Spread::of(runs).map(|spread| spread.median),
            calls: times.calls.len(),
            p50_ns: at(50.0),
            p99_ns: at(99.0),
            p999_ns: at(99.9),
            max_ns: is_timed.then(|| times.calls.max()),
        }
    }
}

/// A row of the table of times, in microseconds.
impl fmt::Display for DuringOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: Option<u64>, decimals: usize| match ns {
            None => "-".to_owned(),
            Some(ns) => format!("{:.decimals$}", ns as f64 / 1e3),
        };
        write!(
            f,
            "{:>19}{:>10}{:>10}{:>10}   ",
            us(self.p50_ns, 2),
            us(self.p99_ns, 2),
            us(self.p999_ns, 2),
            us(self.max_ns, 1)
        )?;
        match self.run_ms {
            None => write!(f, "no operation"),
            Some(ms) => write!(f, "{} ({} runs of {ms:.1} ms)", self.operation, self.runs),
        }
    }
}

/// Measurement of a mode.
pub(super) enum Measured {
    /// The samples of each thread.
    Samples(Vec<Samples>),
    /// The times of calls during each operation.
    Latency(Vec<Times>),
}

/// Result of a measurement. Figures that a mode does not measure are `None`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report {
    mode: String,
    protocol: String,
    family: u8,
    mix: Option<String>,
    sessions: u32,
    threads: u32,
    batch: u32,
    rules: u32,
    checksums_verified: bool,
    /// Number of measured packets, or ended sessions.
    measured: u64,
    /// Nanoseconds of one thread.
    pub(super) ns_per_packet: Option<Spread>,
    /// Nanoseconds of one thread: to open a session, or to end one.
    pub(super) ns_per_session: Option<Spread>,
    /// All threads together.
    pub(super) packets_per_second: Option<f64>,
    /// All threads together: sessions opened, or ended.
    pub(super) sessions_per_second: Option<f64>,
    /// Growth of the resident memory by the full table, divided by its sessions.
    pub(super) bytes_per_session: Option<f64>,
    /// Shares of the kinds of packets of a mix.
    pub(super) shares: Option<Shares>,
    /// Times of calls during operations on the table.
    pub(super) latency: Option<Vec<DuringOperation>>,
}

impl Report {
    /// Returns `None` without a sample.
    pub(super) fn new(
        args: &BenchArgs,
        measured: Measured,
        bytes_per_session: Option<f64>,
    ) -> Option<Self> {
        let mut report = Self {
            mode: name_of(&args.mode),
            protocol: match args.mix {
                None => name_of(&args.protocol),
                Some(_) => "mixed".to_owned(),
            },
            family: args.family.number(),
            mix: args.mix.as_ref().map(name_of),
            sessions: args.sessions,
            threads: args.threads,
            batch: args.batch,
            rules: args.rules,
            checksums_verified: args.verify_checksums,
            measured: 0,
            ns_per_packet: None,
            ns_per_session: None,
            packets_per_second: None,
            sessions_per_second: None,
            bytes_per_session,
            shares: Traffic::new(args).shares(),
            latency: None,
        };
        match measured {
            Measured::Samples(samples) => report.add_samples(args, &samples)?,
            Measured::Latency(times) => {
                let latency: Vec<_> = times.iter().map(DuringOperation::new).collect();
                let calls: u64 = latency.iter().map(|each| each.calls).sum();
                report.measured = calls * u64::from(args.batch);
                report.latency = Some(latency);
            }
        }
        (report.measured > 0).then_some(report)
    }

    fn add_samples(&mut self, args: &BenchArgs, samples: &[Samples]) -> Option<()> {
        let each = samples.iter().flat_map(|each| &each.nanos_each);
        let spread = Spread::of(each.copied())?;
        let per_second: f64 = samples.iter().map(Samples::per_second).sum();
        let (packets, sessions) = (args.mode != Mode::Expire, args.mode != Mode::Packets);
        self.measured = samples.iter().map(|each| each.count).sum();
        self.ns_per_packet = packets.then_some(spread);
        self.ns_per_session = sessions.then_some(spread);
        self.packets_per_second = packets.then_some(per_second);
        self.sessions_per_second = sessions.then_some(per_second);
        Some(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.mix.as_ref().unwrap_or(&self.protocol);
        let checksums = if self.checksums_verified {
            "verified"
        } else {
            "trusted"
        };
        write!(
            f,
            "{}: {} sessions ({kind}, IPv{}), {} thread(s), batches of {}, checksums {checksums}",
            self.mode, self.sessions, self.family, self.threads, self.batch
        )?;
        if self.rules > 0 {
            write!(f, ", {} rules", self.rules)?;
        }
        writeln!(f)?;
        let (what, verb) = if self.ns_per_packet.is_some() || self.latency.is_some() {
            ("packet", "decided")
        } else {
            ("session", "ended")
        };
        writeln!(f, "{:>14} {what}s {verb}", self.measured)?;
        if let Some(Spread { min, median }) = self.ns_per_packet.or(self.ns_per_session) {
            writeln!(f, "{median:>14.1} ns per {what}, median ({min:.1} at best)")?;
        }
        if let Some(rate) = self.packets_per_second {
            writeln!(f, "{rate:>14.0} packets per second")?;
        }
        if let Some(rate) = self.sessions_per_second {
            writeln!(f, "{rate:>14.0} sessions per second")?;
        }
        match self.bytes_per_session {
            Some(bytes) => writeln!(f, "{bytes:>14.1} bytes per session")?,
            None => writeln!(f, "{:>14} bytes per session", "unknown")?,
        }
        if let Some(shares) = &self.shares {
            for (share, name) in shares.named() {
                writeln!(f, "{:>14.1} % {name}", share * 100.0)?;
            }
        }
        self.latency
            .as_ref()
            .map_or(Ok(()), |latency| write_latency(f, latency))
    }
}

/// Writes the times of calls as a table, in microseconds.
fn write_latency(f: &mut fmt::Formatter<'_>, latency: &[DuringOperation]) -> fmt::Result {
    writeln!(
        f,
        "us per call     p50       p99     p99.9       max   during"
    )?;
    for each in latency {
        writeln!(f, "{each}")?;
    }
    Ok(())
}
