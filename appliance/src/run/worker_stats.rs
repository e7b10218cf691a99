//! Counters of a worker. Only the worker changes them; a reader gets each counter whole, but not
//! all counters of one instant.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use portcullis_xdp::Refused;

use super::counters::{Count, SendFault};
use super::overflow::QueueDrops;
use super::sends::{ProvenPaths, SendPath, Sends};

/// The counts of batch sizes: of 1, 2 to 3, 4 to 7, and so on; the last holds 64 and more.
pub(crate) const BATCH_CLASSES: usize = 7;

/// Counters of a worker. The front end and the engine count the outcome of each datagram.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerStats {
    /// Turns of its loop.
    pub(crate) turns: Count,
    /// Time of the last turn, in microseconds since [`super::shared::Shared::started`].
    last_turn_us: Count,
    /// Datagrams received, and their UDP payload's bytes.
    pub(crate) received: Count,
    /// See `received`.
    pub(crate) received_bytes: Count,
    /// Datagrams handed to the system unchanged.
    pub(crate) returned: Count,
    /// The appliance's own datagrams handed to the system: replies, errors, RSTs, rewritten SYNs,
    /// and fragments that were held.
    pub(crate) made: Count,
    /// UDP payload bytes handed to the system.
    pub(crate) sent_bytes: Count,
    /// Datagrams that the system did not accept, by [`SendFault`].
    pub(crate) send_faults: [Count; SendFault::ALL.len()],
    /// Record of sends for the health check.
    pub(crate) sends: Sends,
    /// Calls that received datagrams, by the number of datagrams: class `n` is 2^n to 2^(n+1) - 1.
    pub(crate) batches: [Count; BATCH_CLASSES],
    /// Datagrams that found no room in the receive queues, as of the last reading of the kernel's
    /// counts.
    pub(crate) receive_overflow: QueueDrops,
    /// Calls to receive that have failed.
    pub(crate) receive_failed: Count,
    /// Datagrams that arrived without their destination address.
    pub(crate) unaddressed: Count,
    /// Frames of AF_XDP that the system would not have given to a socket, by [`Refused`].
    pub(crate) refused_frames: [Count; Refused::ALL.len()],
    /// RSTs whose tunnel is no longer known.
    pub(crate) resets_without_tunnel: Count,
}

impl WorkerStats {
    /// Returns zeroed counters of a worker that shares the proven paths with other workers.
    pub(crate) fn beside(proven: &Arc<ProvenPaths>) -> Self {
        Self {
            sends: Sends::beside(proven),
            ..Self::default()
        }
    }

    /// Records a turn of the worker, at a time since the start.
    pub(crate) fn turn(&self, since_start: Duration) {
        self.turns.add(1);
        self.last_turn_us
            .set(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the time of the last turn since the start.
    pub(crate) fn last_turn(&self) -> Duration {
        Duration::from_micros(self.last_turn_us.value())
    }

    /// Records a call that received `datagrams`, 1 or more.
    pub(crate) fn batch(&self, datagrams: usize) {
        let class = (datagrams.max(1).ilog2() as usize).min(BATCH_CLASSES - 1);
        if let Some(count) = self.batches.get(class) {
            count.add(1);
        }
    }

    /// Records a datagram that the system did not accept.
    pub(crate) fn send_failed(&self, error: &io::Error, path: SendPath) {
        let fault = self.count_fault(error);
        self.sends.failed(path, fault);
    }

    /// Records an answer that was not sent in the frame of what it answers.
    pub(crate) fn answer_failed(&self, error: &io::Error) {
        let fault = self.count_fault(error);
        self.sends.failed_without_route(fault);
    }

    fn count_fault(&self, error: &io::Error) -> SendFault {
        let fault = match error.raw_os_error() {
            Some(nix::libc::EMSGSIZE) => SendFault::TooLong,
            Some(nix::libc::ENOBUFS | nix::libc::EAGAIN) => SendFault::NoBuffer,
            Some(nix::libc::ENETUNREACH | nix::libc::EHOSTUNREACH | nix::libc::ENETDOWN) => {
                SendFault::Unreachable
            }
            Some(nix::libc::EPERM | nix::libc::EACCES) => SendFault::NotPermitted,
            _ => SendFault::Other,
        };
        if let Some(count) = self.send_faults.get(fault as usize) {
            count.add(1);
        }
        fault
    }
}
