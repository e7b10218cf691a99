//! Attached programs and counters of a running appliance.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portcullis_xdp::{Attachment, Mode, Queue, QueueStats};

/// Network interface, as its rings know it.
#[derive(Debug)]
pub(crate) struct Link {
    /// Name.
    pub(crate) name: String,
    /// Local addresses in order: a frame from one of them is forged.
    pub(crate) local: Arc<[Ipv4Addr]>,
    is_gone: AtomicBool,
}

impl Link {
    /// Returns an interface that exists.
    pub(crate) fn new(name: &str, local: Arc<[Ipv4Addr]>) -> Self {
        Self {
            name: name.to_owned(),
            local,
            is_gone: AtomicBool::new(false),
        }
    }

    /// Notes that the interface was removed. Returns whether that is new.
    pub(crate) fn lose(&self) -> bool {
        !self.is_gone.swap(true, Ordering::Relaxed)
    }

    /// Returns whether the interface was removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// Network interface in use.
#[derive(Debug)]
pub(crate) struct Port {
    /// Interface.
    pub(crate) link: Arc<Link>,
    /// Way in which the program runs.
    pub(crate) mode: Mode,
    /// Counters of each receive queue, by its number.
    pub(crate) queues: Vec<Arc<QueueStats>>,
}

/// Rings of a receive queue, before a worker has them.
#[derive(Debug)]
pub(crate) struct OpenQueue {
    /// Interface.
    pub(crate) link: Arc<Link>,
    /// Rings.
    pub(crate) queue: Queue,
}

/// AF_XDP of a running appliance.
#[derive(Debug, Default)]
pub(crate) struct XdpState {
    pub(super) attachments: Mutex<Vec<Attachment>>,
    /// Interfaces in use, or that were until the program was detached.
    pub(crate) ports: Vec<Port>,
}

impl XdpState {
    /// Returns a state without attached programs.
    #[cfg(test)]
    pub(crate) fn of(ports: Vec<Port>) -> Self {
        Self {
            attachments: Mutex::default(),
            ports,
        }
    }

    /// Returns the number of frames that were lost before the engine.
    pub(crate) fn dropped(&self) -> u64 {
        let queues = self.ports.iter().flat_map(|port| &port.queues);
        queues.map(|stats| stats.lost()).sum()
    }

    /// Returns whether the programs are attached.
    pub(crate) fn is_attached(&self) -> bool {
        !self.attachments.lock().is_empty()
    }

    /// Detaches the programs, so that the sockets receive every later packet. Packets in the rings
    /// are still served. Returns whether any program was attached.
    pub(crate) fn detach(&self) -> bool {
        let attachments = std::mem::take(&mut *self.attachments.lock());
        !attachments.is_empty()
    }
}
