//! A lock-free rate; tests/loom explores its interleavings.

use crate::atomic::{AtomicU64, Ordering};
use crate::session::Micros;

/// A rate with a burst of one second, in one word: the time at which the next packet would be on
/// schedule (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Rate(AtomicU64);

const SECOND: u64 = 1_000_000_000;

impl Rate {
    /// Takes one packet, if the rate allows it.
    pub(super) fn take(&self, now: Micros, per_second: u32) -> bool {
        let now = now.0 * 1_000;
        if per_second == 0 {
            return false;
        }
        let interval = SECOND / u64::from(per_second);
        let take = |due: u64| {
            let due = due.max(now);
            (due + interval <= now + SECOND).then_some(due + interval)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Returns whether the rate would refuse a packet. Takes none, and writes nothing.
    pub(super) fn is_used_up(&self, now: Micros, per_second: u32) -> bool {
        let now = now.0 * 1_000;
        per_second == 0
            || self.0.load(Ordering::Relaxed).max(now) + SECOND / u64::from(per_second)
                > now + SECOND
    }

    /// Returns one packet to the rate.
    pub(super) fn put_back(&self, per_second: u32) {
        self.put_back_nanos(SECOND / u64::from(per_second.max(1)));
    }

    /// Returns three quarters of a packet to the rate. If the packet's time has passed, as many
    /// more can be taken at once.
    pub(super) fn put_back_most(&self, per_second: u32) {
        self.put_back_nanos(3 * SECOND / (4 * u64::from(per_second.max(1))));
    }

    /// Makes the schedule earlier. A `per_second` that has changed since the packet was taken makes
    /// the rate inexact for a second at most.
    fn put_back_nanos(&self, interval: u64) {
        let earlier = |due: u64| Some(due.saturating_sub(interval));
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
    }
}
