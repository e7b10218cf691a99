//! Time inside the table: microseconds and wheel ticks since the engine's origin.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The wheel's resolution: a session ends at most this long after its lifetime, and never before.
pub const TICK: Duration = Duration::from_micros(TICK_MICROS);

pub(crate) const TICK_MICROS: u64 = 100_000;

/// Time between the origin and the first `now`: 32 days, more than the longest lifetime.
///
/// With this headroom, a slightly older `now` of another thread is not clamped, and a restored
/// session can be older than the engine.
pub(crate) const HEADROOM: Duration = Duration::from_secs(32 * 86_400);

/// Microseconds since the origin. A slot stores 48 bits: 8.9 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    pub(crate) const MAX: Self = Self((1 << 48) - 1);

    /// Returns the tick that contains this time.
    pub(crate) const fn tick(self) -> u32 {
        (self.0 / TICK_MICROS) as u32
    }

    /// Returns the first tick at which a session that is refreshed now has exceeded this lifetime.
    #[inline]
    pub(crate) fn deadline(self, lifetime_ms: u32) -> u32 {
        // Rounded up; cheaper than `div_ceil`, which multiplies the quotient again.
        let rounded = u64::from(lifetime_ms) * 1_000 + (TICK_MICROS - 1);
        let ticks = self.0.saturating_add(rounded) / TICK_MICROS;
        ticks.min(u64::from(u32::MAX)) as u32
    }

    /// Returns the first tick that does not begin before this time.
    pub(crate) fn next_tick(self) -> u32 {
        self.deadline(0)
    }

    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Maps the caller's `Instant`s to [`Micros`]. The first call determines the origin.
#[derive(Debug, Default)]
pub(crate) struct Origin(OnceLock<Instant>);

impl Origin {
    /// Returns a time in microseconds; a time before the origin counts as the origin.
    pub(crate) fn micros(&self, now: Instant) -> Micros {
        let origin = *self
            .0
            .get_or_init(|| now.checked_sub(HEADROOM).unwrap_or(now));
        let micros = now.saturating_duration_since(origin).as_micros();
        Micros(u64::try_from(micros).unwrap_or(u64::MAX).min(Micros::MAX.0))
    }

    /// Returns the instant of a time; `None` before the first [`Origin::micros`].
    pub(crate) fn instant(&self, at: Micros) -> Option<Instant> {
        self.0.get()?.checked_add(Duration::from_micros(at.0))
    }

    /// Returns the time at which a tick begins.
    pub(crate) fn tick_start(&self, tick: u32) -> Option<Instant> {
        self.instant(Micros(u64::from(tick) * TICK_MICROS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_a_tick_late() {
        for (now, ms) in [
            (0, 1),
            (1, 100),
            (99_999, 30_000),
            (100_000, 30_000),
            (123_456_789, 1),
        ] {
            let at = Micros(now);
            let end = now + u64::from(ms) * 1_000;
            let fires = u64::from(at.deadline(ms)) * TICK_MICROS;
            assert!(fires >= end && fires - end < TICK_MICROS, "{now} {ms}");
        }
    }

    #[test]
    fn an_older_now_saturates() {
        let origin = Origin::default();
        let now = Instant::now();
        let headroom = HEADROOM.as_micros() as u64;
        assert_eq!(origin.micros(now).0, headroom);
        assert_eq!(origin.micros(now - 2 * HEADROOM).0, 0);
        assert_eq!(origin.instant(Micros(headroom)), Some(now));
    }
}
