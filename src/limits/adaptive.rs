//! Lifetimes that shrink while the table fills up, as in pf.

use std::time::Duration;

/// Minimum of a shortened lifetime.
const LEAST: Duration = Duration::from_secs(1);

/// Numbers of sessions at which lifetimes begin to shrink, and at which they would be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adaptive {
    start: usize,
    end: usize,
}

impl Adaptive {
    /// Converts percentages of a table; 0 and 0 shorten nothing.
    pub(crate) fn new(max_sessions: u32, start_percent: u32, end_percent: u32) -> Self {
        if (start_percent, end_percent) == (0, 0) {
            return Self {
                start: usize::MAX,
                end: usize::MAX,
            };
        }
        let of = |percent| (u64::from(max_sessions) * u64::from(percent) / 100) as usize;
        Self {
            start: of(start_percent),
            end: of(end_percent),
        }
    }

    /// Returns a lifetime in milliseconds, shortened for a number of sessions.
    pub(crate) fn scale(self, millis: u32, sessions: usize) -> u32 {
        if sessions <= self.start {
            return millis;
        }
        let whole = self.end.saturating_sub(self.start).max(1) as u64;
        let left = self.end.saturating_sub(sessions) as u64;
        let scaled = u64::from(millis) * left.min(whole) / whole;
        (scaled as u32).max(LEAST.as_millis() as u32).min(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_shrink_linearly_from_start_to_end() {
        let adaptive = Adaptive::new(1_000, 60, 120);
        let scaled = |sessions| adaptive.scale(30_000, sessions);
        assert_eq!(scaled(0), 30_000);
        assert_eq!(scaled(600), 30_000, "at the start");
        assert_eq!(scaled(601), 29_950);
        assert_eq!(scaled(900), 15_000, "in the middle");
        assert_eq!(scaled(1_000), 10_000, "a full table");
        assert_eq!(scaled(1_200), 1_000, "at the end, a second is left");
        assert_eq!(scaled(5_000), 1_000);
    }

    #[test]
    fn a_lifetime_below_a_second_stays_and_zeros_shorten_nothing() {
        assert_eq!(Adaptive::new(1_000, 60, 120).scale(300, 1_000), 300);
        assert_eq!(Adaptive::new(1_000, 0, 0).scale(30_000, 1_000), 30_000);
        assert_eq!(
            Adaptive::new(1, 60, 120).scale(30_000, 1),
            1_000,
            "a table of one"
        );
    }
}
