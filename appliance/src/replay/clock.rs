//! The capture's own time as `Instant`s.

use std::time::{Duration, Instant};

/// Maps times since the Unix epoch, as frames carry them, to the `Instant`s that the engine takes,
/// and back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaptureClock {
    origin: Instant,
    /// The first frame's time.
    first: Option<Duration>,
    last: Instant,
    runs: bool,
}

impl CaptureClock {
    /// Returns a clock. A stopped clock gives all frames the time of the first one.
    pub(crate) fn new(runs: bool) -> Self {
        let origin = Instant::now();
        Self {
            origin,
            first: None,
            last: origin,
            runs,
        }
    }

    /// Returns the instant of a frame. A frame may be older than the first one, since some captures
    /// are out of order. A time that no `Instant` can hold is replaced by that of the previous
    /// frame.
    pub(crate) fn instant(&mut self, time: Duration) -> Instant {
        let first = *self.first.get_or_insert(time);
        if !self.runs {
            return self.origin;
        }
        let moment = if time >= first {
            self.origin.checked_add(time - first)
        } else {
            self.origin.checked_sub(first - time)
        };
        self.last = moment.unwrap_or(self.last);
        self.last
    }

    /// Returns the time since the Unix epoch, in seconds.
    pub(crate) fn seconds(&self, moment: Instant) -> f64 {
        let first = self.first.unwrap_or_default();
        let time = if moment >= self.origin {
            first.saturating_add(moment - self.origin)
        } else {
            first.saturating_sub(self.origin - moment)
        };
        // Microseconds are the engine's resolution.
        (time.as_secs_f64() * 1e6).round() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        let mut clock = CaptureClock::new(true);
        let first = Duration::new(1_700_000_000, 250_000_000);
        let later = clock.instant(first);
        assert_eq!(clock.seconds(later), 1_700_000_000.25);
        let before = clock.instant(first - Duration::from_secs(10));
        assert_eq!(later - before, Duration::from_secs(10));
        assert_eq!(clock.seconds(before), 1_699_999_990.25);
    }

    #[test]
    fn a_stopped_clock_gives_one_moment_to_all() {
        let mut clock = CaptureClock::new(false);
        let first = clock.instant(Duration::from_secs(5));
        assert_eq!(clock.instant(Duration::from_secs(500)), first);
        assert_eq!(clock.seconds(first), 5.0);
    }

    #[test]
    fn an_impossible_time_counts_as_that_before() {
        let mut clock = CaptureClock::new(true);
        let first = clock.instant(Duration::ZERO);
        assert_eq!(clock.instant(Duration::MAX), first);
    }
}
