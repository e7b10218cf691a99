//! Evidence of asymmetric paths as events: lines of the report that have counted more packets.

use std::collections::HashMap;
use std::time::Instant;

use ipnet::IpNet;
use portcullis::{AsymmetryLine, AsymmetryReport, Evidence as EvidenceKind, Zone};

use super::event::{AsymmetryEvent, Observed};
use super::switch::{Receivers, Sent};

/// Most events of one reading of the report.
const MAX_NEWS: usize = 64;

/// Line of the report, without its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Path {
    zone: Zone,
    other_zone: Option<Zone>,
    from: IpNet,
    to: IpNet,
    evidence: EvidenceKind,
}

impl Path {
    const fn of(line: &AsymmetryLine) -> Self {
        Self {
            zone: line.zone,
            other_zone: line.other_zone,
            from: line.from,
            to: line.to,
            evidence: line.evidence,
        }
    }
}

/// Counts of the last reading. The report, and so this memory, is bounded.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    counted: HashMap<Path, u64>,
}

impl Evidence {
    /// Returns an event for each line that is new or has counted more packets, and remembers the
    /// counts. Lines beyond a bound are reported with their next packets.
    pub(super) fn news(&mut self, report: &AsymmetryReport, now: Instant) -> Vec<Sent> {
        let mut news = Vec::new();
        let mut counted = HashMap::with_capacity(report.lines.len());
        for line in &report.lines {
            let path = Path::of(line);
            let before = self.counted.get(&path).copied();
            if before != Some(line.packets) && news.len() < MAX_NEWS {
                let mut to = Receivers::default();
                to.add_all();
                let event = AsymmetryEvent {
                    line: *line,
                    at: now,
                };
                news.push(Sent {
                    to,
                    event: Observed::Asymmetry(event),
                });
                counted.insert(path, line.packets);
            } else {
                counted.insert(path, before.unwrap_or(0));
            }
        }
        self.counted = counted;
        news
    }
}
