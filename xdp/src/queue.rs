//! AF_XDP socket of one receive queue, with its frames and rings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, set_xdp_rx_ring_size,
    set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size, set_xdp_umem_fill_ring_size,
    set_xdp_umem_reg, socket_error, xdp_mmap_offsets, xdp_statistics,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with};

use crate::area::Frames;
use crate::batch::{BATCH, Batch};
use crate::error::{Step, XdpError};
use crate::head::HEAD;
use crate::ledger::{Counts, Desc};
use crate::ring::{Consumer, Producer, Ring};
use crate::stats::QueueStats;

/// Bits of the size of a frame: a page, the largest size that the kernel allows.
const SHIFT: u32 = 12;
/// Bytes of a frame that the kernel leaves unused when it receives (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
/// Number of frames: 16 MiB. Fill and completion ring have room for all of them.
const FRAMES: u32 = 4_096;
/// Entries of the rings of packets.
const PACKETS: u32 = 2_048;
/// Room for the packets of a batch that are in several pieces.
const GATHER: usize = BATCH * 9_216;
/// Requested size of the send queue, in bytes: beyond it the kernel sends no more.
const SEND_QUEUE: usize = 8 << 20;
/// Most calls to send that one flush makes. Each sends up to 32 packets.
const KICKS: usize = 16;

/// Largest frame that a socket without multi-buffer receives.
pub const SINGLE: u32 = (1 << SHIFT) - HEADROOM;

/// Result of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Flushed {
    /// Number of packets that the interface dropped, for example because it has no carrier.
    pub dropped: u32,
    /// Error of the system. The answers stay in the ring for the next flush, and until one succeeds
    /// the queue takes no others.
    pub error: Option<Errno>,
}

/// Reason why an answer was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// The ring is full: the kernel has not sent earlier packets.
    Full,
    /// The packet was answered already, or the answer does not fit into its first frame.
    Unfit,
    /// The last flush failed, for example because the interface is down.
    Failed(Errno),
}

/// Rings of a socket.
#[derive(Debug)]
struct Rings {
    rx: Consumer<Desc>,
    tx: Producer<Desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
}

impl Rings {
    /// Maps the rings of a socket whose sizes are set.
    fn map(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let offsets = xdp_mmap_offsets(socket)?;
        let (fill, completion) = (XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING);
        Ok(Self {
            rx: Consumer(Ring::map(socket, XDP_PGOFF_RX_RING, &offsets.rx, PACKETS)?),
            tx: Producer(Ring::map(socket, XDP_PGOFF_TX_RING, &offsets.tx, PACKETS)?),
            fill: Producer(Ring::map(socket, fill, &offsets.fr, FRAMES)?),
            completion: Consumer(Ring::map(socket, completion, &offsets.cr, FRAMES)?),
        })
    }
}

/// AF_XDP socket of a receive queue. One thread uses it.
///
/// A turn receives a batch, answers or ignores each packet, and flushes. A packet that is not
/// answered is released by the flush.
#[derive(Debug)]
pub struct Queue {
    socket: OwnedFd,
    frames: Frames,
    batch: Batch,
    /// Copies of the packets in several pieces, with the place of each packet of the batch.
    gathered: Box<[u8]>,
    places: Vec<usize>,
    rx: Consumer<Desc>,
    tx: Producer<Desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// Error of the last flush.
    failure: Option<Errno>,
    stats: Arc<QueueStats>,
}

impl Queue {
    /// Opens a socket for a queue of an interface. Packets of more than [`SINGLE`] bytes are
    /// received if `multi_buffer` is set, which needs Linux 6.6.
    ///
    /// # Errors
    /// Returns the step that failed.
    pub fn open(interface: u32, queue: u32, multi_buffer: bool) -> Result<Self, XdpError> {
        let at = |step| move |error: Errno| XdpError::new(step, error);
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(at(Step::Socket))?;
        if set_socket_send_buffer_size_force(&socket, SEND_QUEUE).is_err() {
            // Without CAP_NET_ADMIN, up to the system's limit.
            let _ = set_socket_send_buffer_size(&socket, SEND_QUEUE);
        }
        let frames = Frames::new(FRAMES, SHIFT).map_err(at(Step::Memory))?;
        let region = XdpUmemReg {
            addr: frames.memory().address(),
            len: frames.memory().len() as u64,
            chunk_size: 1 << SHIFT,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(&socket, region).map_err(at(Step::Memory))?;
        let rings = at(Step::Rings);
        set_xdp_umem_fill_ring_size(&socket, FRAMES).map_err(rings)?;
        set_xdp_umem_completion_ring_size(&socket, FRAMES).map_err(rings)?;
        set_xdp_rx_ring_size(&socket, PACKETS).map_err(rings)?;
        set_xdp_tx_ring_size(&socket, PACKETS).map_err(rings)?;
        // The rings are mapped before the socket is bound: no packet arrives while one is missing.
        let mapped = Rings::map(socket.as_fd()).map_err(rings)?;
        let mut flags = SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        if multi_buffer {
            flags |= SocketAddrXdpFlags::XDP_USE_SG;
        }
        let address = SocketAddrXdp::new(flags, interface, queue);
        bind(&socket, &address).map_err(at(Step::Bind))?;
        Ok(Self::over(socket, frames, mapped))
    }

    /// Returns a queue over the frames and rings of a socket, and lends the frames to the kernel.
    fn over(socket: OwnedFd, frames: Frames, rings: Rings) -> Self {
        let Rings {
            rx,
            tx,
            fill,
            completion,
        } = rings;
        let mut made = Self {
            socket,
            frames,
            batch: Batch::default(),
            gathered: vec![0; GATHER].into(),
            places: Vec::with_capacity(BATCH),
            rx,
            tx,
            fill,
            completion,
            failure: None,
            stats: Arc::default(),
        };
        made.refill();
        made
    }

    /// Returns the counters, which other threads may read.
    #[must_use]
    pub fn stats(&self) -> Arc<QueueStats> {
        Arc::clone(&self.stats)
    }

    /// Returns the number of frames of each owner.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.frames.ledger().counts()
    }

    /// Returns whether packets are ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.rx.len() > 0
    }

    /// Returns the number of frames in the ring of packets to send.
    #[must_use]
    pub fn unsent(&self) -> u32 {
        self.tx.len()
    }

    /// Returns the share of the receive ring that is in use, in percent.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.rx.len() * 100 / PACKETS
    }

    /// Receives the packets that are ready, at most [`BATCH`], and returns their number.
    pub fn receive(&mut self) -> usize {
        self.reap();
        let Self {
            frames,
            batch,
            gathered,
            places,
            rx,
            ..
        } = self;
        frames.receive(batch, rx, GATHER);
        places.clear();
        let mut used = 0;
        for number in 0..batch.packets().len() {
            places.push(used);
            if let pieces @ [_, _, ..] = batch.pieces(number) {
                for piece in pieces {
                    let bytes = frames.bytes(piece);
                    if let Some(room) = gathered.get_mut(used..used + bytes.len()) {
                        room.copy_from_slice(bytes);
                    }
                    used += bytes.len();
                }
            }
        }
        let count = batch.packets().len();
        self.stats.received.add(count as u64);
        count
    }

    /// Returns a received packet, from its Ethernet header on; nothing after it was answered.
    #[must_use]
    pub fn packet(&self, number: usize) -> &[u8] {
        match self.batch.pieces(number) {
            [] => &[],
            [piece] => self.frames.bytes(piece),
            pieces => {
                let len: usize = pieces.iter().map(|piece| piece.len()).sum();
                let start = self.places.get(number).copied().unwrap_or_default();
                self.gathered.get(start..start + len).unwrap_or_default()
            }
        }
    }

    /// Sends the first `len` bytes of a received packet, with other headers, without copying them.
    ///
    /// # Errors
    /// The packet is not sent. It is released by the next flush.
    pub fn send_back(
        &mut self,
        number: usize,
        head: &[u8; HEAD],
        len: usize,
    ) -> Result<(), NotSent> {
        let (first, pieces) = match self.batch.pieces(number) {
            pieces @ [first, ..] if first.len() >= HEAD => (*first, pieces.len()),
            _ => return Err(NotSent::Unfit),
        };
        self.check_room(pieces)?;
        if !self.frames.write(&first, 0, head) {
            return Err(NotSent::Unfit);
        }
        let (tx, batch) = (&mut self.tx, &mut self.batch);
        // There is room for all pieces.
        let send = |desc| {
            let _ = tx.push(desc);
        };
        if !self.frames.transmit(batch, number, len, send) {
            return Err(NotSent::Unfit);
        }
        self.stats.sent.add(1);
        Ok(())
    }

    /// Sends another payload in the first frame of a received packet.
    ///
    /// # Errors
    /// Nothing is sent. The packet is released by the next flush.
    pub fn send_instead(
        &mut self,
        number: usize,
        head: &[u8; HEAD],
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let first = *self.batch.pieces(number).first().ok_or(NotSent::Unfit)?;
        self.check_room(1)?;
        let fits = self.frames.write(&first, 0, head) && self.frames.write(&first, HEAD, payload);
        let len = HEAD + payload.len();
        let desc = fits.then(|| self.frames.transmit_one(&mut self.batch, number, len));
        let desc = desc.flatten().ok_or(NotSent::Unfit)?;
        if !self.tx.push(desc) {
            return Err(NotSent::Full);
        }
        self.stats.sent.add(1);
        Ok(())
    }

    fn check_room(&self, pieces: usize) -> Result<(), NotSent> {
        match self.failure {
            Some(error) => Err(NotSent::Failed(error)),
            None if (self.tx.room() as usize) < pieces => Err(NotSent::Full),
            None => Ok(()),
        }
    }

    /// Releases the packets that were not answered, lends free frames to the kernel, and lets it
    /// send the answers.
    pub fn flush(&mut self) -> Flushed {
        self.frames.release_all(&mut self.batch);
        self.tx.publish();
        let flushed = self.kick();
        self.failure = flushed.error;
        self.reap();
        self.refill();
        self.stats
            .publish(self.frames.ledger(), self.batch.malformed());
        flushed
    }

    /// Wakes the kernel until it has taken all packets to send.
    fn kick(&self) -> Flushed {
        let (mut flushed, mut calls) = (Flushed::default(), 0);
        while calls < KICKS
            && flushed.dropped < PACKETS
            && self.tx.len() > 0
            && self.tx.wants_wakeup()
        {
            self.stats.wakeups.add(1);
            let before = self.tx.len();
            let result = send(&self.socket, &[], SendFlags::DONTWAIT).map(|_| ());
            match outcome(result, before, self.tx.len()) {
                // The kernel sends a bounded number in one call.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => calls += 1,
                // The kernel has taken a packet, and the interface has dropped it.
                Err(Errno::BUSY) => flushed.dropped += 1,
                Err(Errno::NOBUFS) => break,
                Err(error) => {
                    self.stats.wakeup_failures.add(1);
                    flushed.error = Some(error);
                    break;
                }
            }
        }
        flushed
    }

    /// Takes back the frames of packets that were sent.
    fn reap(&mut self) {
        let done = self.completion.len();
        for place in 0..done {
            if let Some(addr) = self.completion.get(place) {
                self.frames.complete(addr);
            }
        }
        if done > 0 {
            self.completion.consume(done);
        }
    }

    /// Lends all free frames to the kernel: an answer uses a frame of the packet that it answers.
    fn refill(&mut self) {
        let mut lent = 0;
        while self.fill.room() > 0
            && let Some(addr) = self.frames.lend()
        {
            lent += u32::from(self.fill.push(addr));
        }
        if lent > 0 {
            self.fill.publish();
        }
    }

    /// Returns whether the interface was removed. The kernel reports that once, and not to `poll`.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(socket_error(&self.socket), Ok(Err(Errno::NETDOWN)))
    }

    /// Reads the kernel's counters of the socket.
    pub fn read_kernel(&self) {
        if let Ok(kernel) = xdp_statistics(&self.socket) {
            self.stats.set_kernel(&kernel);
        }
    }
}

/// Returns the outcome of a call to send, by the frames in the ring before and after it.
///
/// The kernel reports success also if it has taken nothing: when the interface has fewer send
/// queues than at the start, so that none is left for this socket. (Linux 6.18 refuses `ethtool -L`
/// while sockets use the queues; a driver may remove queues itself.) It takes the frames once there
/// are as many as before.
const fn outcome(result: Result<(), Errno>, before: u32, after: u32) -> Result<(), Errno> {
    match result {
        Ok(()) if before > 0 && after >= before => Err(Errno::NETDOWN),
        other => other,
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
