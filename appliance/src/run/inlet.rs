//! Receiving datagrams: the sockets of a worker at port 6081, which it shares with other workers.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, MultiResults, RecvMsg, SockaddrIn, getsockopt,
    recvmmsg, setsockopt, sockopt,
};
use portcullis::geneve::PORT;
use portcullis::geneve::front::{Datagram, Queued, Waited};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::socket::{BATCH, FEW, PATIENCE, SocketError};

/// Bytes for each datagram: the longest one fits. The size is not a power of two, so that the
/// beginnings of the buffers do not compete for a few sets of the processor's cache.
const ROOM: usize = 65_536 + 64;

/// Bounds of receive queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueBounds {
    /// Requested size of each queue, in bytes.
    pub(super) bytes: usize,
    /// Maximum time that a datagram may wait in a queue; 0 for no bound.
    pub(super) delay: Duration,
}

impl QueueBounds {
    /// Datagrams that have waited for this part of `delay` may not open sessions. The queue of a
    /// worker that is not overloaded is empty after each turn, so its datagrams never wait 2.5 ms;
    /// and the other three parts are left to packets of sessions.
    const LONG: u32 = 4;

    /// Returns whether a datagram that has waited for a time may not open a session.
    pub(super) fn is_long(self, age: Duration) -> bool {
        !self.delay.is_zero() && self.judge(age) != Waited::Briefly
    }

    /// Classifies a datagram by its waiting time.
    fn judge(self, age: Duration) -> Waited {
        if age > self.delay {
            Waited::TooLong
        } else if age > self.delay / Self::LONG {
            Waited::Long
        } else {
            Waited::Briefly
        }
    }
}

/// Opens a socket at a shared port of an address: the system distributes the flows among the
/// workers.
pub(super) fn listen(address: Ipv4Addr, port: u16, bounds: QueueBounds) -> io::Result<UdpSocket> {
    let queue = bounds.bytes;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    // Above the system's limit with CAP_NET_ADMIN, up to the limit without.
    if setsockopt(&socket, sockopt::RcvBufForce, &queue).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &queue);
    }
    if address.is_unspecified() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    if !bounds.delay.is_zero() {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(address, port)))?;
    Ok(socket.into())
}

/// Returns the size of a socket's receive queue, in bytes. Linux reports twice as much, for its own
/// needs (socket(7)).
pub(super) fn receive_queue(socket: &UdpSocket) -> Option<usize> {
    getsockopt(socket, sockopt::RcvBuf)
        .ok()
        .map(|bytes| bytes / 2)
}

/// Received datagram, in its buffer.
#[derive(Debug, Clone, Copy)]
struct Outside {
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    len: usize,
    waited: Waited,
}

/// Control messages of a datagram.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// The local destination address; 0.0.0.0 if the datagram was sent to a broadcast address or a
    /// multicast group, which cannot be the source of an answer.
    destination: Option<Ipv4Addr>,
    /// Time at which the system received the datagram, by the wall clock, since the Unix epoch.
    arrived: Option<Duration>,
}

impl Control {
    fn of(message: &RecvMsg<'_, '_, SockaddrIn>) -> Self {
        let mut control = Self::default();
        // Truncated messages are an error, and carry no information.
        for each in message.cmsgs().into_iter().flatten() {
            match each {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    // They differ if the first is not an address of this host (ip(7)).
                    let is_ours = info.ipi_addr == info.ipi_spec_dst;
                    let sent_to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    control.destination = Some(if is_ours {
                        sent_to
                    } else {
                        Ipv4Addr::UNSPECIFIED
                    });
                }
                ControlMessageOwned::ScmTimestampns(at) => control.arrived = Some(at.into()),
                _ => {}
            }
        }
        control
    }
}

/// Clocks after a call.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    /// The wall clock, on which the system's timestamps are based, since the Unix epoch.
    wall: Duration,
    /// Time for which the worker has read the queue without emptying it.
    behind: Duration,
}

impl Clocks {
    /// Returns the waiting time of a datagram that arrived at a time of the wall clock, but at most
    /// the time for which the worker has not emptied the queue.
    ///
    /// A datagram that waited because the worker could not run is therefore not dropped, as long as
    /// the worker catches up. Setting the wall clock makes no datagram old, and neither does a time
    /// in the future.
    fn age(&self, arrived: Duration) -> Duration {
        self.wall.saturating_sub(arrived).min(self.behind)
    }
}

struct Listener {
    socket: UdpSocket,
    address: Ipv4Addr,
    bounds: QueueBounds,
    /// Return of the first call that left the queue non-empty; `None` if the last one has emptied
    /// it.
    behind_since: Option<Instant>,
}

impl Listener {
    /// Returns whether each datagram must carry its destination address.
    const fn is_wildcard(&self) -> bool {
        self.address.is_unspecified()
    }

    /// Returns headers for one call, with room for all control messages that the socket is set to
    /// send.
    ///
    /// The headers are not reused: a call stores in each the length of the control messages that it
    /// wrote. The next call would use this length as the available room, and nix offers no way to
    /// reset it.
    fn headers<const N: usize>(&self) -> MultiHeaders<SockaddrIn> {
        use nix::libc::{in_pktinfo, timespec};
        let control = match (self.is_wildcard(), self.bounds.delay.is_zero()) {
            (true, true) => Some(nix::cmsg_space!(in_pktinfo)),
            (true, false) => Some(nix::cmsg_space!(in_pktinfo, timespec)),
            (false, true) => None,
            (false, false) => Some(nix::cmsg_space!(timespec)),
        };
        MultiHeaders::preallocate(N, control)
    }

    /// Reads the clocks after a call, if a datagram may have waited long.
    fn clocks(&mut self) -> Option<Clocks> {
        if self.bounds.delay.is_zero() {
            return None;
        }
        let now = Instant::now();
        let since = *self.behind_since.get_or_insert(now);
        let behind = now.saturating_duration_since(since);
        if self.bounds.judge(behind) == Waited::Briefly {
            return None;
        }
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.unwrap_or_default();
        Some(Clocks { wall, behind })
    }

    /// Writes the datagrams of a call with room for `room` datagrams to `received`. Returns the
    /// number of those without a destination address.
    ///
    /// Datagrams are in the order of their arrival: if the first has not waited long, none has, and
    /// the times of the others are not read.
    fn outsides(
        &mut self,
        messages: MultiResults<'_, SockaddrIn>,
        room: usize,
        received: &mut Vec<Outside>,
    ) -> usize {
        let mut clocks = self.clocks();
        let mut unaddressed = 0;
        for message in messages {
            let control = if clocks.is_some() || self.is_wildcard() {
                Control::of(&message)
            } else {
                Control::default()
            };
            let waited = match (clocks, control.arrived) {
                (Some(clocks), Some(arrived)) => self.bounds.judge(clocks.age(arrived)),
                _ => Waited::Briefly,
            };
            if waited == Waited::Briefly {
                clocks = None;
            }
            // The front end refuses a datagram of a wildcard socket without its destination
            // address: the source of an answer would be a guess.
            let destination = if self.is_wildcard() {
                unaddressed += usize::from(control.destination.is_none());
                control.destination.unwrap_or(Ipv4Addr::UNSPECIFIED)
            } else {
                self.address
            };
            let from = message.address.map_or(
                SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
                SocketAddrV4::from,
            );
            received.push(Outside {
                source: *from.ip(),
                source_port: from.port(),
                destination,
                len: message.bytes,
                waited,
            });
        }
        if received.len() < room {
            self.behind_since = None;
        }
        unaddressed
    }
}

/// Result of a call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    /// Number of datagrams.
    pub(super) count: usize,
    /// Datagrams without a destination address. No sender can cause them.
    pub(super) unaddressed: usize,
}

/// Receives datagrams in batches.
pub(super) struct Inlet {
    listeners: Vec<Listener>,
    /// Index of the next listener, if there are several.
    next: usize,
    rooms: Vec<u8>,
    received: Vec<Outside>,
    /// Number of datagrams that the next call requests: twice as many as the last one returned.
    ask: usize,
}

/// Socket at port 6081 of an address.
pub(super) struct Port {
    pub(super) socket: UdpSocket,
    pub(super) address: Ipv4Addr,
}

/// Opens sockets at port 6081 of addresses.
///
/// # Errors
/// Returns the error of the system.
pub(super) fn ports(addresses: &[Ipv4Addr], bounds: QueueBounds) -> Result<Vec<Port>, SocketError> {
    addresses
        .iter()
        .map(|address| match listen(*address, PORT, bounds) {
            Ok(socket) => Ok(Port {
                socket,
                address: *address,
            }),
            Err(source) => Err(SocketError::Receive {
                address: *address,
                source,
            }),
        })
        .collect()
}

impl Inlet {
    /// Returns an inlet for sockets of [`ports`]. It stays on the thread that created it.
    pub(super) fn new(ports: Vec<Port>, bounds: QueueBounds) -> Self {
        let listener = |port: Port| Listener {
            socket: port.socket,
            address: port.address,
            bounds,
            behind_since: None,
        };
        Self {
            listeners: ports.into_iter().map(listener).collect(),
            next: 0,
            rooms: vec![0; BATCH * ROOM],
            received: Vec::with_capacity(BATCH),
            ask: BATCH,
        }
    }

    /// Returns an inlet that receives nothing.
    pub(super) fn without_sockets() -> Self {
        let bounds = QueueBounds {
            bytes: 0,
            delay: Duration::ZERO,
        };
        Self::new(Vec::new(), bounds)
    }

    /// Returns the sockets.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(|each| each.socket.as_fd())
    }

    /// Forgets the datagrams of the last call, instead of another one.
    pub(super) fn clear(&mut self) {
        self.received.clear();
    }

    /// Receives the waiting datagrams. If requested, waits for them, at most [`PATIENCE`].
    ///
    /// # Errors
    /// Returns the error of the system. The absence of datagrams is not an error.
    pub(super) fn receive(&mut self, wait: bool) -> io::Result<Received> {
        if self.ask <= FEW {
            self.receive_some::<FEW>(wait)
        } else {
            self.receive_some::<BATCH>(wait)
        }
    }

    /// Receives at most `N` datagrams.
    fn receive_some<const N: usize>(&mut self, wait: bool) -> io::Result<Received> {
        self.received.clear();
        let several = self.listeners.len() > 1;
        if several && !self.wait(wait)? {
            return Ok(Received::default());
        }
        let Some(listener) = self.listeners.get_mut(self.next) else {
            return Ok(Received::default());
        };
        let mut headers = listener.headers::<N>();
        let mut rooms = self.rooms.chunks_exact_mut(ROOM);
        let mut slices: [[IoSliceMut<'_>; 1]; N] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        let flags = if several || !wait {
            MsgFlags::MSG_DONTWAIT
        } else {
            MsgFlags::MSG_WAITFORONE
        };
        let result = recvmmsg(
            listener.socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut().take(self.ask),
            flags,
            None,
        );
        let unaddressed = match result {
            Ok(messages) => listener.outsides(messages, self.ask, &mut self.received),
            // An ICMP error about an earlier datagram appears as a refused connection.
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ECONNREFUSED) => {
                listener.behind_since = None;
                0
            }
            Err(error) => return Err(error.into()),
        };
        self.ask = (2 * self.received.len()).clamp(FEW, BATCH);
        Ok(Received {
            count: self.received.len(),
            unaddressed,
        })
    }

    /// Waits, if requested, until one of several sockets is readable, and makes it the next one.
    /// Returns whether one is readable.
    fn wait(&mut self, wait: bool) -> io::Result<bool> {
        let mut polled: Vec<_> = self
            .listeners
            .iter()
            .map(|listener| PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let patience = if wait { PATIENCE } else { Duration::ZERO };
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, patience) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = polled
            .iter()
            .map(|socket| socket.any() == Some(true))
            .collect();
        for (listener, is_ready) in self.listeners.iter_mut().zip(&ready) {
            if !is_ready {
                listener.behind_since = None;
            }
        }
        let count = ready.len();
        let mut turns = (1..=count).map(|step| (self.next + step) % count);
        let turn = turns.find(|place| ready.get(*place) == Some(&true));
        if let Some(place) = turn {
            self.next = place;
        }
        Ok(turn.is_some())
    }

    /// Returns the first `len` bytes of the buffer of a received datagram.
    #[inline]
    pub(super) fn payload(&self, number: usize, len: usize) -> Option<&[u8]> {
        let start = number * ROOM;
        self.rooms.get(start..start + len)
    }

    /// Returns the datagrams of the last call, in order.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Queued<'_>> {
        let rooms = self.rooms.chunks_exact(ROOM);
        self.received
            .iter()
            .zip(rooms)
            .map(|(received, room)| Queued {
                datagram: Datagram {
                    source: received.source,
                    source_port: received.source_port,
                    destination: received.destination,
                    destination_port: PORT,
                    payload: room.get(..received.len).unwrap_or_default(),
                },
                waited: received.waited,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_quarter_of_the_bound_is_long_and_what_is_beyond_it_too_long() {
        let bounds = QueueBounds {
            bytes: 0,
            delay: ms(40),
        };
        for (age, waited) in [
            (ms(0), Waited::Briefly),
            (ms(10), Waited::Briefly),
            (ms(11), Waited::Long),
            (ms(40), Waited::Long),
            (ms(41), Waited::TooLong),
        ] {
            assert_eq!(bounds.judge(age), waited, "{age:?}");
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_makes_nothing_older_than_the_worker_is_behind() {
        let clocks = Clocks {
            wall: ms(1_000_000),
            behind: ms(5),
        };
        for (arrived, age) in [
            (ms(999_997), ms(3)),
            (ms(999_000), ms(5)),
            (ms(0), ms(5)),
            (ms(1_000_001), ms(0)),
            (Duration::MAX, ms(0)),
        ] {
            assert_eq!(clocks.age(arrived), age, "{arrived:?}");
        }
    }
}
