//! The sockets of a worker: those that hear port 6081, shared with the other workers, and one that sends from any port.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, MultiResults, RecvMsg, SockaddrIn, getsockopt, recvmmsg,
    setsockopt, sockopt,
};
use portcullis::geneve::PORT;
use portcullis::geneve::front::{Datagram, Queued, Tunnel, Waited};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::sends::SendPath;
use super::worker_stats::WorkerStats;

/// Datagrams of one call.
pub(super) const BATCH: usize = 64;
/// What a call prepares for where there are few of them.
const FEW: usize = 8;
/// How long a worker waits for a datagram before it turns nevertheless.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);
/// How long the system may take to take datagrams.
const SEND_PATIENCE: Duration = Duration::from_millis(100);
/// What the send queue is asked to hold, in bytes.
const SEND_QUEUE: usize = 8 << 20;
/// The room for a datagram: the longest one. No power of two, so that the beginnings of the buffers do not share a few places
/// of the processor's cache.
const ROOM: usize = 65_536 + 64;
/// A UDP header.
const OUTER: usize = 8;
/// Addresses of ours that we send from at most.
const EXITS: usize = 256;
/// Peers whose addresses are kept.
const PEERS: usize = 64;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The socket at port 6081.
    #[error("cannot receive at {address}:{PORT}: {source}")]
    Receive {
        /// Where.
        address: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket that sends.
    #[error(
        "the capability CAP_NET_RAW is missing: replies leave from the UDP source port with which the load balancer has sent, \
         and only a raw socket can do that. Give it with `setcap cap_net_raw+ep` on the program, with \
         AmbientCapabilities=CAP_NET_RAW in a systemd unit, or start as root"
    )]
    NotPermitted,
    /// The same, for another reason.
    #[error("cannot send: {0}")]
    Send(io::Error),
}

/// What receive queues hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueBounds {
    /// What each is asked to hold, in bytes.
    pub(super) bytes: usize,
    /// For how long a datagram may wait in it; 0 for no bound.
    pub(super) delay: Duration,
}

impl QueueBounds {
    /// From this part of `delay` on, what would open a session is dropped. The queue of a worker
    /// that is not overloaded is empty with each turn, so that 2.5 ms are more than it ever sees;
    /// and the other three parts are left to packets of sessions.
    const LONG: u32 = 4;

    /// Judges a datagram that waited for so long.
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

/// A socket at a port of an address that other workers have, too: the system shares out the flows.
pub(super) fn listen(address: Ipv4Addr, port: u16, bounds: QueueBounds) -> io::Result<UdpSocket> {
    let queue = bounds.bytes;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    // Beyond the system's limit with CAP_NET_ADMIN, up to it without.
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

/// What a socket's receive queue holds, in bytes: Linux says twice as much, for its own needs (socket(7)).
pub(super) fn receive_queue(socket: &UdpSocket) -> Option<usize> {
    getsockopt(socket, sockopt::RcvBuf).ok().map(|bytes| bytes / 2)
}

/// One received datagram, in its room.
#[derive(Debug, Clone, Copy)]
struct Outside {
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    len: usize,
    waited: Waited,
}

/// What the control messages of a datagram say.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// The address of ours that it was sent to; 0.0.0.0 if it was sent to a broadcast address or a
    /// multicast group, which no answer can leave from.
    destination: Option<Ipv4Addr>,
    /// When the system got it, by the wall clock, since the Unix epoch.
    arrived: Option<Duration>,
}

impl Control {
    fn of(message: &RecvMsg<'_, '_, SockaddrIn>) -> Self {
        let mut control = Self::default();
        // Truncated messages are an error, and say nothing.
        for each in message.cmsgs().into_iter().flatten() {
            match each {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    // They differ where the first is no address of ours (ip(7)).
                    let is_ours = info.ipi_addr == info.ipi_spec_dst;
                    let sent_to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    control.destination = Some(if is_ours { sent_to } else { Ipv4Addr::UNSPECIFIED });
                }
                ControlMessageOwned::ScmTimestampns(at) => control.arrived = Some(at.into()),
                _ => {}
            }
        }
        control
    }
}

/// The clocks after a call.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    /// The wall clock, of which the system's timestamps are, since the Unix epoch.
    wall: Duration,
    /// For how long the worker has taken datagrams out of the queue without emptying it.
    behind: Duration,
}

impl Clocks {
    /// Returns how long a datagram waited that came at a moment of the wall clock, but no longer
    /// than the worker has been behind.
    ///
    /// So what waited because the worker was kept from working is not held against it, as long as
    /// the worker catches up; and a wall clock that is set makes nothing old, nor does the future.
    fn age(&self, arrived: Duration) -> Duration {
        self.wall.saturating_sub(arrived).min(self.behind)
    }
}

struct Listener {
    socket: UdpSocket,
    address: Ipv4Addr,
    bounds: QueueBounds,
    /// When the first call returned of those that have not emptied its queue; `None` if the last
    /// one has.
    behind_since: Option<Instant>,
}

impl Listener {
    /// Whether each datagram must say which of our addresses it was sent to.
    const fn is_wildcard(&self) -> bool {
        self.address.is_unspecified()
    }

    /// Returns headers for one call, with room for all control messages that the socket is set to
    /// send.
    ///
    /// They are not reused: a call leaves in each the length of the control messages that it wrote,
    /// the next call would take this length for the room there is, and nix offers no way to set it
    /// back.
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

    /// Writes what a call has taken to `received`, where it had room for `room` datagrams. Returns
    /// how many lack the address that they were sent to.
    ///
    /// Datagrams come in the order of their arrival: where the first has not waited long, none has,
    /// and of the others no time is read.
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
            // Without its address a datagram of a wildcard socket is refused by the front end: an
            // answer could only leave from a guessed one.
            let destination = if self.is_wildcard() {
                unaddressed += usize::from(control.destination.is_none());
                control.destination.unwrap_or(Ipv4Addr::UNSPECIFIED)
            } else {
                self.address
            };
            let from = message
                .address
                .map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::from);
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

/// What a call has brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    /// Datagrams.
    pub(super) count: usize,
    /// Those of which the system did not say which address they were sent to. No sender can cause
    /// that.
    pub(super) unaddressed: usize,
}

/// Receives datagrams in batches.
pub(super) struct Inlet {
    listeners: Vec<Listener>,
    /// Whose turn it is, where there are several.
    next: usize,
    rooms: Vec<u8>,
    received: Vec<Outside>,
    /// For how many datagrams the next call asks: twice as many as there were.
    ask: usize,
}

/// Sockets at port 6081 of these addresses.
///
/// # Errors
/// What the system says.
pub(super) fn ports(
    addresses: &[Ipv4Addr],
    bounds: QueueBounds,
) -> Result<Vec<(UdpSocket, Ipv4Addr)>, SocketError> {
    addresses
        .iter()
        .map(|address| match listen(*address, PORT, bounds) {
            Ok(socket) => Ok((socket, *address)),
            Err(source) => Err(SocketError::Receive {
                address: *address,
                source,
            }),
        })
        .collect()
}

impl Inlet {
    /// Receives from sockets of [`ports`]; stays on the thread that has made it.
    pub(super) fn new(ports: Vec<(UdpSocket, Ipv4Addr)>, bounds: QueueBounds) -> Self {
        let listener = |(socket, address): (UdpSocket, Ipv4Addr)| Listener {
            socket,
            address,
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

    /// Receives nothing.
    pub(super) fn without_sockets() -> Self {
        let bounds = QueueBounds {
            bytes: 0,
            delay: Duration::ZERO,
        };
        Self::new(Vec::new(), bounds)
    }

    /// Takes the datagrams that are there, and waits for them if asked, [`PATIENCE`] at most.
    ///
    /// # Errors
    /// What the system says. That nothing came is none.
    pub(super) fn receive(&mut self, wait: bool) -> io::Result<Received> {
        if self.ask <= FEW {
            self.receive_some::<FEW>(wait)
        } else {
            self.receive_some::<BATCH>(wait)
        }
    }

    /// The same, at most `N`.
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
            // A refused connection is what an ICMP error about an earlier datagram looks like.
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

    /// Waits, if asked, until one of several sockets has something, and makes it the next one.
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
        let ready: Vec<_> = polled.iter().map(|socket| socket.any() == Some(true)).collect();
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

    /// The datagrams of the last call, in their order.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Queued<'_>> {
        let rooms = self.rooms.chunks_exact(ROOM);
        self.received.iter().zip(rooms).map(|(received, room)| Queued {
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

/// Where the payload of a datagram to send is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// As it came, in this room.
    Room(usize),
    /// Of our own, from here on.
    Made(usize),
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    outer: [u8; OUTER],
    place: Place,
    len: usize,
    /// From where to where it goes.
    path: SendPath,
    /// The place of its destination among the peers.
    peer: usize,
    /// The place of its source among the exits.
    exit: usize,
}

/// A raw socket of one of our addresses.
struct Exit {
    source: Ipv4Addr,
    socket: Socket,
}

/// Sends UDP datagrams from any port in batches.
///
/// Its sockets are raw ones that send UDP headers of our making (raw(7)) but leave the IP header to the system, which then keeps
/// the route of a destination from packet to packet; with `IP_HDRINCL` it would make one anew for each.
pub(super) struct Outlet {
    exits: Vec<Exit>,
    waiting: Vec<Waiting>,
    made: Vec<u8>,
    peers: Vec<(Ipv4Addr, SocketAddrAny)>,
}

/// A raw socket that sends from an address, and hears nothing but what this address would send to itself.
fn exit(source: Ipv4Addr) -> io::Result<Exit> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    // What the system does not deliver to it, it need not copy.
    setsockopt(&socket, sockopt::RcvBuf, &0)?;
    let own = SockAddr::from(SocketAddrV4::new(source, 0));
    socket.bind(&own)?;
    socket.connect(&own)?;
    // Never to be fragmented, and never by what somebody says of the path.
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_QUEUE).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_QUEUE);
    }
    Ok(Exit { source, socket })
}

impl Outlet {
    /// A way out of these addresses; where they are not named, tries at once whether there may be one.
    ///
    /// # Errors
    /// What the system says; that a capability is missing, for one.
    pub(super) fn new(addresses: &[Ipv4Addr]) -> Result<Self, SocketError> {
        let open = |address| {
            exit(address).map_err(|error| match error.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EACCES) => SocketError::NotPermitted,
                _ => SocketError::Send(error),
            })
        };
        let named = addresses.iter().filter(|address| !address.is_unspecified());
        let exits = named
            .map(|address| open(*address))
            .collect::<Result<Vec<_>, _>>()?;
        if exits.is_empty() {
            open(Ipv4Addr::LOCALHOST)?;
        }
        Ok(Self {
            exits,
            waiting: Vec::with_capacity(2 * BATCH),
            made: Vec::new(),
            peers: Vec::with_capacity(PEERS),
        })
    }

    /// Puts the received datagram of a number in line, as it came.
    pub(super) fn put_back(&mut self, tunnel: &Tunnel, number: usize, len: usize) {
        self.put(tunnel, Place::Room(number), len);
    }

    /// Puts a payload of our own in line.
    pub(super) fn put_made(&mut self, tunnel: &Tunnel, payload: &[u8]) {
        let start = self.made.len();
        self.made.extend_from_slice(payload);
        self.put(tunnel, Place::Made(start), payload.len());
    }

    fn put(&mut self, tunnel: &Tunnel, place: Place, len: usize) {
        let found = self
            .peers
            .iter()
            .position(|(peer, _)| *peer == tunnel.destination);
        let peer = found.unwrap_or_else(|| {
            let address = SocketAddrAny::from(SocketAddrV4::new(tunnel.destination, 0));
            self.peers.push((tunnel.destination, address));
            self.peers.len() - 1
        });
        let found = self.exits.iter().position(|exit| exit.source == tunnel.source);
        let exit = found.unwrap_or_else(|| self.open(tunnel.source));
        self.waiting.push(Waiting {
            outer: udp_header(tunnel, len),
            place,
            len,
            path: SendPath {
                source: tunnel.source,
                destination: tunnel.destination,
            },
            peer,
            exit,
        });
    }

    /// Opens the exit of an address that was not sent from before. Where that fails, there is none at the place.
    #[cold]
    fn open(&mut self, source: Ipv4Addr) -> usize {
        if self.exits.len() < EXITS
            && let Ok(exit) = exit(source)
        {
            self.exits.push(exit);
            self.exits.len() - 1
        } else {
            EXITS
        }
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends all that waits; `inlet` has the rooms that received datagrams are in.
    pub(super) fn flush(&mut self, inlet: &Inlet, stats: &WorkerStats) {
        for of_one_exit in self.waiting.chunk_by(|one, next| one.exit == next.exit) {
            for batch in of_one_exit.chunks(BATCH) {
                if batch.len() <= FEW {
                    self.send::<FEW>(batch, inlet, stats);
                } else {
                    self.send::<BATCH>(batch, inlet, stats);
                }
            }
        }
        self.waiting.clear();
        self.made.clear();
        if self.peers.len() >= PEERS {
            self.peers.clear();
        }
    }

    /// Sends datagrams of one exit, at most `N`.
    fn send<const N: usize>(&self, batch: &[Waiting], inlet: &Inlet, stats: &WorkerStats) {
        let Some(exit) = batch.first().and_then(|first| self.exits.get(first.exit)) else {
            for waiting in batch {
                stats.send_failed(&io::ErrorKind::AddrNotAvailable.into(), waiting.path);
            }
            return;
        };
        let payload = |waiting: &Waiting| {
            let (bytes, start) = match waiting.place {
                Place::Room(number) => (&inlet.rooms, number * ROOM),
                Place::Made(start) => (&self.made, start),
            };
            bytes.get(start..start + waiting.len)
        };
        let slices: [[IoSlice<'_>; 2]; N] = std::array::from_fn(|place| {
            let waiting = batch.get(place);
            let outer: &[u8] = waiting.map_or(&[], |waiting| &waiting.outer);
            [
                IoSlice::new(outer),
                IoSlice::new(waiting.and_then(payload).unwrap_or_default()),
            ]
        });
        let mut control: [SendAncillaryBuffer<'_, '_, '_>; N] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages: Vec<MMsgHdr<'_>> = batch
            .iter()
            .zip(&slices)
            .zip(&mut control)
            .filter_map(|((waiting, slices), control)| {
                let (_, address) = self.peers.get(waiting.peer)?;
                Some(MMsgHdr::new_with_addr(address, slices, control))
            })
            .collect();
        let mut done = 0;
        while let Some(left) = messages.get_mut(done..).filter(|left| !left.is_empty()) {
            match sendmmsg(&exit.socket, left, SendFlags::empty()) {
                Ok(sent) => {
                    let sent = sent.max(1);
                    if let Some(first) = batch.get(done) {
                        stats.sends.succeeded(first.path);
                    }
                    for waiting in batch.iter().skip(done).take(sent) {
                        match waiting.place {
                            Place::Room(_) => stats.returned.add(1),
                            Place::Made(_) => stats.made.add(1),
                        }
                        stats.sent_bytes.add(waiting.len as u64);
                    }
                    done += sent;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // It is the first of those left that the system does not take.
                    if let Some(first) = batch.get(done) {
                        stats.send_failed(&error.into(), first.path);
                    }
                    done += 1;
                }
            }
        }
    }
}

/// A UDP header. The checksum is 0, which says that there is none.
fn udp_header(tunnel: &Tunnel, payload: usize) -> [u8; OUTER] {
    let [source_high, source_low] = tunnel.source_port.to_be_bytes();
    let [destination_high, destination_low] = tunnel.destination_port.to_be_bytes();
    let [len_high, len_low] = ((payload + OUTER) as u16).to_be_bytes();
    [
        source_high,
        source_low,
        destination_high,
        destination_low,
        len_high,
        len_low,
        0,
        0,
    ]
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
