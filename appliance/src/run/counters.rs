//! Counters that one thread changes and all may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread changes and all may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds; only for the thread that owns the counter.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Returns the value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Reason for which a datagram could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFault {
    /// The datagram is longer than the outgoing interface's MTU.
    TooLong,
    /// The outgoing queue is full.
    NoBuffer,
    /// The load balancer cannot be reached.
    Unreachable,
    /// The system does not permit it: a packet filter, or a lost capability.
    NotPermitted,
    /// Anything else.
    Other,
}

impl SendFault {
    /// All reasons, in the order of [`super::worker_stats::WorkerStats::send_faults`].
    pub(crate) const ALL: [Self; 5] = [
        Self::TooLong,
        Self::NoBuffer,
        Self::Unreachable,
        Self::NotPermitted,
        Self::Other,
    ];

    /// Returns the stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NoBuffer => "no_buffer",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::Other => "other",
        }
    }
}
