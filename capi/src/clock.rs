//! The caller's monotonic nanoseconds as `Instant`s.

use std::time::{Duration, Instant};

/// Maps nanoseconds of a caller to the `Instant`s of an engine, and back. The engine only compares
/// instants, so any one of them can stand for the caller's first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    instant: Instant,
    nanos: u64,
}

impl Clock {
    /// Returns a clock; `now` is the caller's time.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            instant: Instant::now(),
            nanos: now,
        }
    }

    /// Returns the instant of a time. A time that no instant can hold counts as that of the clock's
    /// creation.
    pub(crate) fn instant(&self, nanos: u64) -> Instant {
        let moment = match nanos.checked_sub(self.nanos) {
            Some(after) => self.instant.checked_add(Duration::from_nanos(after)),
            None => {
                let before = Duration::from_nanos(self.nanos - nanos);
                self.instant.checked_sub(before)
            }
        };
        moment.unwrap_or(self.instant)
    }

    /// Returns the time of an instant: 0 for one before the caller's 0, and `u64::MAX` for one that
    /// is too late.
    pub(crate) fn nanos(&self, moment: Instant) -> u64 {
        let whole = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(self.instant) {
            Some(after) => self.nanos.saturating_add(whole(after)),
            None => self
                .nanos
                .saturating_sub(whole(self.instant.saturating_duration_since(moment))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back_on_both_sides_of_the_first() {
        let clock = Clock::new(1_000);
        for nanos in [0, 1, 999, 1_000, 1_001, 1 << 40, 1_800_000_000_000_000_000] {
            assert_eq!(clock.nanos(clock.instant(nanos)), nanos);
        }
        assert!(clock.instant(0) < clock.instant(1_000));
        assert!(clock.instant(1_000) < clock.instant(u64::MAX));
    }
}
