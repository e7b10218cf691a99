//! Load of a thread that works in batches.
//!
//! A thread under load rests after a small batch, so that the next one is larger, as network
//! interfaces do. Load is a streak of batches that come close to each other.

use std::time::{Duration, Instant};

/// Number of close batches in a row that count as load.
const LOAD: u32 = 8;

/// Batches in a row, each close to the one before it.
#[derive(Debug)]
pub(super) struct Streak {
    /// Maximum time between two batches that are close.
    close: Duration,
    count: u32,
    last: Instant,
}

impl Streak {
    /// Returns an empty streak; `now` counts as a batch.
    pub(super) const fn new(close: Duration, now: Instant) -> Self {
        Self {
            close,
            count: 0,
            last: now,
        }
    }

    /// Notes a batch. Returns whether the thread is under load.
    #[inline]
    pub(super) fn note(&mut self, now: Instant) -> bool {
        let is_close = now.saturating_duration_since(self.last) < self.close;
        self.count = if is_close {
            self.count.saturating_add(1)
        } else {
            0
        };
        self.last = now;
        self.count >= LOAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_a_streak_of_close_batches_and_ends_with_a_pause() {
        let close = Duration::from_millis(1);
        let (mut now, near) = (Instant::now(), Duration::from_micros(999));
        let mut streak = Streak::new(close, now);
        let mut loads = |gaps: &[Duration]| -> Vec<bool> {
            let note = |gap: &Duration| {
                now += *gap;
                streak.note(now)
            };
            gaps.iter().map(note).collect()
        };
        assert_eq!(loads(&[near; 7]), [false; 7]);
        assert_eq!(loads(&[near; 3]), [true; 3]);
        assert_eq!(loads(&[close]), [false]);
        assert_eq!(loads(&[near; 7]), [false; 7]);
        assert_eq!(loads(&[near]), [true]);
    }

    #[test]
    fn a_streak_has_no_end() {
        let now = Instant::now();
        let mut streak = Streak::new(Duration::from_millis(1), now);
        streak.count = u32::MAX;
        assert!(streak.note(now) && streak.note(now));
    }
}
