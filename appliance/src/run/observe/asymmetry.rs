//! Evidence of asymmetric paths as events: lines of the report that have counted more packets.

use std::collections::HashMap;
use std::hash::Hash;
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

/// Count of a thing.
#[derive(Debug, Clone, Copy)]
struct Count<K> {
    of: K,
    packets: u64,
}

/// Last report of a thing, or its appearance.
#[derive(Debug, Clone, Copy)]
struct Reported {
    /// Count of the report; `None` before the first one.
    packets: Option<u64>,
    /// Number of the reading of the report, or of the one before the thing appeared.
    reading: u64,
}

/// Turns of things whose counts change: those that have waited for the longest come first, so none
/// starves behind others.
#[derive(Debug)]
struct Turns<K> {
    /// Number of readings.
    readings: u64,
    reported: HashMap<K, Reported>,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// Returns the positions of at most `most` things that are new or have counted more packets,
    /// and remembers their counts. A new thing waits from the reading in which it appears. Things
    /// that are missing are forgotten.
    fn next(&mut self, counts: &[Count<K>], most: usize) -> Vec<usize> {
        let is_new = Reported {
            packets: None,
            reading: self.readings,
        };
        self.readings += 1;
        let before = |count: &Count<K>| self.reported.get(&count.of).copied().unwrap_or(is_new);
        let is_changed = |count: &Count<K>| before(count).packets != Some(count.packets);
        let mut changed: Vec<_> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| is_changed(count))
            .collect();
        changed.sort_by_key(|(_, count)| before(count).reading);
        changed.truncate(most);
        let kept = |count: &Count<K>| (count.of, before(count));
        let mut reported: HashMap<_, _> = counts.iter().map(kept).collect();
        for (_, count) in &changed {
            let now = Reported {
                packets: Some(count.packets),
                reading: self.readings,
            };
            reported.insert(count.of, now);
        }
        self.reported = reported;
        changed.into_iter().map(|(place, _)| place).collect()
    }
}

/// Last events of the lines of the report. The report, and so this memory, is bounded.
#[derive(Debug)]
pub(super) struct Evidence(Turns<Path>);

impl Default for Evidence {
    fn default() -> Self {
        Self(Turns {
            readings: 0,
            reported: HashMap::new(),
        })
    }
}

impl Evidence {
    /// Returns an event for each line that is new or has counted more packets, up to a bound. The
    /// lines beyond it come with the next readings.
    pub(super) fn news(&mut self, report: &AsymmetryReport, now: Instant) -> Vec<Sent> {
        let count = |line: &AsymmetryLine| Count {
            of: Path::of(line),
            packets: line.packets,
        };
        let counts: Vec<_> = report.lines.iter().map(count).collect();
        let places = self.0.next(&counts, MAX_NEWS).into_iter();
        let lines = places.filter_map(|place| report.lines.get(place));
        let sent = |line: &AsymmetryLine| {
            let mut to = Receivers::default();
            to.add_all();
            let event = AsymmetryEvent {
                line: *line,
                at: now,
            };
            Sent {
                to,
                event: Observed::Asymmetry(event),
            }
        };
        lines.map(sent).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn counts(packets: u64) -> Vec<Count<u32>> {
        (0..200).map(|of| Count { of, packets }).collect()
    }

    fn turns() -> Turns<u32> {
        Turns {
            readings: 0,
            reported: HashMap::new(),
        }
    }

    #[test]
    fn lines_that_change_all_the_time_take_turns() {
        let mut turns = turns();
        for _ in 0..3 {
            let mut seen = HashSet::new();
            for packets in 1..=4 {
                let places = turns.next(&counts(packets), 50);
                assert_eq!(places.len(), 50);
                seen.extend(places);
            }
            assert_eq!(seen.len(), 200, "each line within four readings");
        }
    }

    #[test]
    fn lines_that_appear_all_the_time_do_not_starve_those_that_change() {
        let mut turns = turns();
        assert_eq!(turns.next(&counts(1), 200).len(), 200);
        let mut seen = HashSet::new();
        // As many lines appear in each reading as it has room for.
        for reading in 1..=4 {
            let appeared = (0..64 * reading).map(|of| Count {
                of: 1_000 + of,
                packets: 1,
            });
            let all: Vec<_> = counts(1 + u64::from(reading))
                .into_iter()
                .chain(appeared)
                .collect();
            let places = turns.next(&all, 64);
            assert_eq!(places.len(), 64);
            seen.extend(places.into_iter().filter(|place| *place < 200));
        }
        assert_eq!(seen.len(), 200, "each line that has changed");
    }

    #[test]
    fn a_line_without_more_packets_is_not_news_and_one_that_left_is_forgotten() {
        let mut turns = turns();
        let count: usize = (0..10).map(|_| turns.next(&counts(1), 50).len()).sum();
        assert_eq!(count, 200, "each line once");
        assert!(turns.next(&[], 50).is_empty());
        assert_eq!(turns.next(&counts(1), 50).len(), 50, "new again");
    }
}
