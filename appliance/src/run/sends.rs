//! Record of the workers' sends for the health check: failures that a sender cannot cause.
//!
//! Any host that may send tunnels can forge one from an address without a route, or to a broadcast
//! address, which cannot be the source of an answer. Such a send fails without a fault of the
//! appliance. A failure therefore counts only between two addresses that have worked before, or
//! while nothing has been sent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::counters::{Count, SendFault};

/// Number of pairs of addresses that are remembered. A load balancer has one address in each zone.
const PATHS: usize = 64;

/// Source and destination of a datagram that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendPath {
    /// Address of the appliance.
    pub(crate) source: Ipv4Addr,
    /// Address of the load balancer.
    pub(crate) destination: Ipv4Addr,
}

impl SendPath {
    /// Returns both addresses as a number, which is never 0: no datagram is sent from 0.0.0.0 to
    /// 0.0.0.0.
    fn bits(self) -> u64 {
        u64::from(self.source.to_bits()) << 32 | u64::from(self.destination.to_bits())
    }
}

/// The paths on which a datagram was sent, shared by the workers. A new one replaces the oldest.
#[derive(Debug)]
pub(crate) struct ProvenPaths {
    paths: [AtomicU64; PATHS],
    noted: AtomicU32,
}

impl Default for ProvenPaths {
    fn default() -> Self {
        Self {
            paths: [const { AtomicU64::new(0) }; PATHS],
            noted: AtomicU32::new(0),
        }
    }
}

impl ProvenPaths {
    fn contains(&self, path: u64) -> bool {
        self.paths
            .iter()
            .any(|each| each.load(Ordering::Relaxed) == path)
    }

    #[cold]
    fn note(&self, path: u64) {
        if !self.contains(path) {
            let place = self.noted.fetch_add(1, Ordering::Relaxed) as usize % PATHS;
            if let Some(place) = self.paths.get(place) {
                place.store(path, Ordering::Relaxed);
            }
        }
    }

    /// Notes that something was sent, which proves no path.
    fn note_any(&self) {
        if self.is_empty() {
            self.noted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_empty(&self) -> bool {
        self.noted.load(Ordering::Relaxed) == 0
    }
}

/// A worker's record. Only the worker writes it.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    proven: Arc<ProvenPaths>,
    /// The path of the last success: most often that of the next one.
    last: AtomicU64,
    failed: Count,
}

impl Sends {
    /// Returns a record that shares the proven paths with other workers.
    pub(crate) fn beside(proven: &Arc<ProvenPaths>) -> Self {
        Self {
            proven: Arc::clone(proven),
            ..Self::default()
        }
    }

    /// Records that a datagram was sent.
    #[inline]
    pub(crate) fn succeeded(&self, path: SendPath) {
        let path = path.bits();
        if self.last.load(Ordering::Relaxed) != path {
            self.last.store(path, Ordering::Relaxed);
            self.proven.note(path);
        }
    }

    /// Records that the system did not accept a datagram. One that is too long for the interface is
    /// no evidence about others.
    pub(crate) fn failed(&self, path: SendPath, fault: SendFault) {
        let path = path.bits();
        let is_proven = || {
            self.last.load(Ordering::Relaxed) == path
                || self.proven.contains(path)
                || self.proven.is_empty()
        };
        if fault != SendFault::TooLong && is_proven() {
            self.failed.add(1);
        }
    }

    /// Records that answers were sent without a route, in the frames of what they answer. A frame
    /// may come from any address, so that this proves no path.
    #[inline]
    pub(crate) fn succeeded_without_route(&self) {
        self.proven.note_any();
    }

    /// Records that an answer was not sent without a route. No address of a sender can cause that.
    pub(crate) fn failed_without_route(&self, fault: SendFault) {
        if fault != SendFault::TooLong {
            self.failed.add(1);
        }
    }

    /// Returns the number of failures that count.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(destination: u8) -> SendPath {
        SendPath {
            source: Ipv4Addr::new(10, 0, 0, 2),
            destination: Ipv4Addr::new(10, 0, 0, destination),
        }
    }

    #[test]
    fn a_failure_counts_where_sends_have_worked_for_any_worker() {
        let proven = Arc::default();
        let (one, other) = (Sends::beside(&proven), Sends::beside(&proven));
        one.succeeded(path(1));
        other.failed(path(1), SendFault::Other);
        assert_eq!((one.failures(), other.failures()), (0, 1));
    }

    #[test]
    fn a_forged_source_or_destination_fails_without_counting() {
        let sends = Sends::default();
        sends.succeeded(path(1));
        sends.failed(path(99), SendFault::Unreachable);
        let broadcast = SendPath {
            source: Ipv4Addr::new(10, 0, 0, 255),
            ..path(1)
        };
        sends.failed(broadcast, SendFault::Other);
        assert_eq!(sends.failures(), 0);
        sends.failed(path(1), SendFault::Unreachable);
        assert_eq!(sends.failures(), 1);
    }

    #[test]
    fn every_failure_counts_until_something_was_sent() {
        let sends = Sends::default();
        sends.failed(path(1), SendFault::Unreachable);
        sends.failed(path(2), SendFault::NotPermitted);
        assert_eq!(sends.failures(), 2);
    }

    #[test]
    fn an_answer_without_a_route_proves_no_path() {
        let sends = Sends::default();
        sends.succeeded_without_route();
        sends.failed(path(99), SendFault::Unreachable);
        assert_eq!(sends.failures(), 0);
        sends.failed_without_route(SendFault::TooLong);
        assert_eq!(sends.failures(), 0);
        sends.failed_without_route(SendFault::Unreachable);
        assert_eq!(sends.failures(), 1);
    }

    #[test]
    fn a_datagram_that_is_too_long_says_nothing_about_others() {
        let sends = Sends::default();
        sends.succeeded(path(1));
        sends.failed(path(1), SendFault::TooLong);
        assert_eq!(sends.failures(), 0);
    }

    #[test]
    fn paths_in_use_come_back_after_many_others() {
        let sends = Sends::default();
        for round in 0..3 {
            for host in 0..=u8::try_from(PATHS).unwrap() {
                sends.succeeded(path(host));
            }
            sends.succeeded(path(200));
            sends.failed(path(200), SendFault::Other);
            assert_eq!(sends.failures(), round + 1);
        }
    }
}
