//! The report of asymmetric paths, as the summary shows it.

use portcullis::{AsymmetryLine, AsymmetryReport};
use serde::Serialize;

use super::clock::CaptureClock;

/// A line of the report.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HalfRow {
    pub(crate) zone: u16,
    pub(crate) other_zone: Option<u16>,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Source and destination of the missing direction.
    pub(crate) missing: Option<(String, String)>,
    pub(crate) evidence: &'static str,
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    /// Seconds since the Unix epoch.
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) cause: &'static str,
    pub(crate) likely: &'static str,
}

impl HalfRow {
    fn new(line: &AsymmetryLine, clock: &CaptureClock) -> Self {
        Self {
            zone: line.zone.0,
            other_zone: line.other_zone.map(|zone| zone.0),
            from: line.from.to_string(),
            to: line.to.to_string(),
            missing: line
                .missing()
                .map(|(from, to)| (from.to_string(), to.to_string())),
            evidence: line.evidence.name(),
            flows: line.flows,
            packets: line.packets,
            first: clock.seconds(line.first),
            last: clock.seconds(line.last),
            cause: line.cause().name(),
            likely: line.cause().describe(),
        }
    }

    pub(crate) fn all(report: &AsymmetryReport, clock: &CaptureClock) -> Vec<Self> {
        report
            .lines
            .iter()
            .map(|line| Self::new(line, clock))
            .collect()
    }
}
