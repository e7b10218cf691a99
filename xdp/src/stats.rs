//! Counters of a queue. Its thread alone changes them; others read each counter whole, but not all
//! of one instant.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::xdp::XdpStatistics;

use crate::ledger::{Counts, Ledger};

/// Counter that one thread changes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.set(self.value() + more);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of a queue.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Packets received.
    pub received: Count,
    /// Packets put into the ring of packets to send.
    pub sent: Count,
    /// Calls that wake the kernel to send.
    pub wakeups: Count,
    /// Of these, calls that the kernel refused, for example because the interface is down.
    pub wakeup_failures: Count,
    /// Packets with a descriptor that is wrong, or with too many pieces.
    pub malformed: Count,
    /// Descriptors that name a frame which the kernel does not own. No sender can cause them.
    pub foreign: Count,
    frames: [Count; 4],
    /// Packets that the kernel dropped before the receive ring: their size is not supported, for
    /// example.
    pub dropped: Count,
    /// Packets that found the receive ring full.
    pub rx_full: Count,
    /// Packets that found no frame in the fill ring.
    pub fill_empty: Count,
    /// Descriptors in the fill ring, and in the ring of packets to send, that the kernel refused.
    pub invalid: Count,
}

impl QueueStats {
    /// Returns the number of frames of each owner after the last flush.
    #[must_use]
    pub fn frames(&self) -> Counts {
        let [free, fill, received, transmit] = &self.frames;
        Counts {
            free: free.value() as u32,
            fill: fill.value() as u32,
            received: received.value() as u32,
            transmit: transmit.value() as u32,
        }
    }

    /// Returns the number of packets that were lost before [`crate::Queue::receive`] returned them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let counts = [
            &self.dropped,
            &self.rx_full,
            &self.fill_empty,
            &self.malformed,
        ];
        counts.into_iter().map(Count::value).sum()
    }

    pub(crate) fn publish(&self, ledger: &Ledger, malformed: u64) {
        let counts = ledger.counts();
        let values = [counts.free, counts.fill, counts.received, counts.transmit];
        for (count, value) in self.frames.iter().zip(values) {
            count.set(u64::from(value));
        }
        self.foreign.set(ledger.foreign());
        self.malformed.set(malformed);
    }

    pub(crate) fn set_kernel(&self, kernel: &XdpStatistics) {
        // The kernel counts a packet without a frame as dropped, too.
        let empty = kernel.rx_fill_ring_empty_descs.unwrap_or_default();
        self.dropped.set(kernel.rx_dropped.saturating_sub(empty));
        self.rx_full.set(kernel.rx_ring_full.unwrap_or_default());
        self.fill_empty.set(empty);
        self.invalid
            .set(kernel.rx_invalid_descs + kernel.tx_invalid_descs);
    }
}
