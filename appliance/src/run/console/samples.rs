//! Counters of the last minutes, read every few seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::{DropReason, Stats};

/// Interval of the samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
/// Time that the samples cover.
pub(super) const SPAN: Duration = Duration::from_secs(15 * 60);
/// Most samples: one more than intervals.
const MAX_SAMPLES: usize = (SPAN.as_secs() / INTERVAL.as_secs()) as usize + 1;

/// Counters at a moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) forwarded: u64,
    /// Forwarded IP bytes.
    pub(super) bytes: u64,
    /// By the position of their reason.
    pub(super) dropped: Vec<u64>,
    pub(super) opened: u64,
    pub(super) sessions: usize,
    /// Datagrams that each worker has received.
    pub(super) received: Vec<u64>,
}

impl Sample {
    /// Returns the counters of the engine and of the workers.
    pub(super) fn new(at: Instant, stats: &Stats, received: Vec<u64>) -> Self {
        Self {
            at,
            forwarded: stats.forwarded_total(),
            bytes: stats.forwarded_bytes,
            dropped: stats.dropped.iter().map(|(_, count)| *count).collect(),
            opened: stats.sessions_opened,
            sessions: stats.sessions,
            received,
        }
    }

    fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// Samples of the last minutes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

/// Rate of something at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Seconds before now.
    pub(super) ago: f64,
    /// Value per second.
    pub(super) value: f64,
}

/// Drops of one reason.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drops {
    pub(super) reason: DropReason,
    pub(super) points: Vec<Point>,
    /// Drops of the time that the samples cover.
    pub(super) recent: u64,
}

/// Rates of the last minutes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) forwarded: Vec<Point>,
    pub(super) dropped: Vec<Point>,
    pub(super) bits: Vec<Point>,
    pub(super) opened: Vec<Point>,
    /// Number of sessions, which is no rate.
    pub(super) sessions: Vec<Point>,
    /// Reasons that occurred, those with the most drops first.
    pub(super) reasons: Vec<Drops>,
    /// Datagrams that each worker receives now.
    pub(super) received: Vec<f64>,
}

impl Samples {
    /// Adds a sample. The oldest ones make room.
    pub(super) fn note(&self, sample: Sample) {
        let mut samples = self.0.lock();
        while samples.len() >= MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns the rates between the samples.
    pub(super) fn rates(&self, now: Instant) -> Rates {
        let samples: Vec<Sample> = self.0.lock().iter().cloned().collect();
        let between = |value: &dyn Fn(&Sample) -> u64| -> Vec<Point> {
            let pairs = samples.iter().zip(samples.iter().skip(1));
            pairs.map(|(from, to)| rate(from, to, now, value)).collect()
        };
        let mut reasons: Vec<_> = DropReason::all()
            .enumerate()
            .filter_map(|(place, reason)| {
                let of = move |sample: &Sample| sample.dropped.get(place).copied().unwrap_or(0);
                let (first, last) = (samples.first().map(of)?, samples.last().map(of)?);
                let recent = last.saturating_sub(first);
                (recent > 0).then(|| Drops {
                    reason,
                    points: between(&of),
                    recent,
                })
            })
            .collect();
        reasons.sort_by_key(|drops| std::cmp::Reverse(drops.recent));
        let mut last = samples.iter().rev();
        let received = match (last.next(), last.next()) {
            (Some(to), Some(from)) => (0..to.received.len())
                .map(|worker| {
                    let of = move |sample: &Sample| {
                        sample.received.get(worker).copied().unwrap_or_default()
                    };
                    rate(from, to, now, &of).value
                })
                .collect(),
            _ => Vec::new(),
        };
        Rates {
            forwarded: between(&|sample| sample.forwarded),
            dropped: between(&Sample::dropped_total),
            bits: between(&|sample| sample.bytes.saturating_mul(8)),
            opened: between(&|sample| sample.opened),
            sessions: samples
                .iter()
                .map(|sample| Point {
                    ago: ago(sample, now),
                    value: sample.sessions as f64,
                })
                .collect(),
            reasons,
            received,
        }
    }
}

fn ago(sample: &Sample, now: Instant) -> f64 {
    now.saturating_duration_since(sample.at).as_secs_f64()
}

/// Returns the rate of a counter between two samples.
fn rate(from: &Sample, to: &Sample, now: Instant, value: &dyn Fn(&Sample) -> u64) -> Point {
    let time = to.at.saturating_duration_since(from.at).as_secs_f64();
    Point {
        ago: ago(to, now),
        value: value(to).saturating_sub(value(from)) as f64 / time.max(1e-3),
    }
}

/// Returns the newest value; 0 before the second sample.
pub(super) fn newest(points: &[Point]) -> f64 {
    points.last().map_or(0.0, |point| point.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, count: u64) -> Sample {
        let mut dropped = vec![0; DropReason::COUNT];
        dropped[2] = count;
        dropped[5] = 3 * count;
        Sample {
            at,
            forwarded: 10 * count,
            bytes: 100 * count,
            dropped,
            opened: count,
            sessions: 7,
            received: vec![count, 2 * count],
        }
    }

    #[test]
    fn rates_are_those_between_two_samples_and_reasons_are_sorted() {
        let start = Instant::now();
        let samples = Samples::default();
        assert_eq!(samples.rates(start), Rates::default());
        samples.note(sample(start, 100));
        assert!(
            samples.rates(start).forwarded.is_empty(),
            "one sample has no rate"
        );
        samples.note(sample(start + INTERVAL, 130));
        samples.note(sample(start + 2 * INTERVAL, 130));
        let rates = samples.rates(start + 2 * INTERVAL);
        let point = |ago, value| Point { ago, value };
        assert_eq!(rates.forwarded, [point(3.0, 100.0), point(0.0, 0.0)]);
        assert_eq!(rates.bits, [point(3.0, 8_000.0), point(0.0, 0.0)]);
        assert_eq!(rates.dropped, [point(3.0, 40.0), point(0.0, 0.0)]);
        assert_eq!(rates.received, [0.0, 0.0]);
        let all: Vec<_> = DropReason::all().collect();
        let reasons: Vec<_> = rates
            .reasons
            .iter()
            .map(|drops| (drops.reason, drops.recent))
            .collect();
        assert_eq!(reasons, [(all[5], 90), (all[2], 30)]);
    }

    #[test]
    fn the_samples_are_bounded() {
        let start = Instant::now();
        let samples = Samples::default();
        for n in 0..3 * MAX_SAMPLES as u32 {
            samples.note(sample(start + n * INTERVAL, u64::from(n)));
        }
        let now = start + (3 * MAX_SAMPLES as u32 - 1) * INTERVAL;
        let rates = samples.rates(now);
        assert_eq!(rates.sessions.len(), MAX_SAMPLES);
        assert_eq!(rates.sessions[0].ago, SPAN.as_secs_f64());
        assert_eq!(rates.forwarded.len(), MAX_SAMPLES - 1);
    }
}
