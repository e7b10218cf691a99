//! Report of a measurement, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::args::{BenchArgs, Mode};
use super::worker::Samples;

/// The least and the middle sample.
#[derive(Debug, Clone, Copy, Serialize)]
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

/// Result of a measurement. Figures that a mode does not measure are `None`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    mode: &'static str,
    protocol: &'static str,
    sessions: u32,
    threads: u32,
    batch: u32,
    checksums_verified: bool,
    /// Packets, or ended sessions, that were measured.
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
}

impl Report {
    /// Returns `None` without a sample.
    pub(super) fn new(
        args: &BenchArgs,
        samples: &[Samples],
        bytes_per_session: Option<f64>,
    ) -> Option<Self> {
        let spread = Spread::of(
            samples
                .iter()
                .flat_map(|each| each.nanos_each.iter().copied()),
        )?;
        let per_second: f64 = samples.iter().map(Samples::per_second).sum();
        let (packets, sessions) = (args.mode != Mode::Expire, args.mode != Mode::Packets);
        Some(Self {
            mode: args.mode.name(),
            protocol: args.protocol.name(),
            sessions: args.sessions,
            threads: args.threads,
            batch: args.batch,
            checksums_verified: args.verify_checksums,
            measured: samples.iter().map(|each| each.count).sum(),
            ns_per_packet: packets.then_some(spread),
            ns_per_session: sessions.then_some(spread),
            packets_per_second: packets.then_some(per_second),
            sessions_per_second: sessions.then_some(per_second),
            bytes_per_session,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} {} sessions, {} thread(s), batches of {}, checksums {}",
            self.mode,
            self.sessions,
            self.protocol,
            self.threads,
            self.batch,
            if self.checksums_verified {
                "verified"
            } else {
                "trusted"
            }
        )?;
        let (what, verb) = match self.ns_per_packet {
            Some(_) => ("packet", "decided"),
            None => ("session", "ended"),
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
            Some(bytes) => writeln!(f, "{bytes:>14.1} bytes per session"),
            None => writeln!(f, "{:>14} bytes per session", "unknown"),
        }
    }
}
