//! Sending datagrams from any address and port.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use portcullis::geneve::front::Tunnel;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::inlet::Inlet;
use super::sends::SendPath;
use super::socket::{BATCH, FEW, SocketError};
use super::worker_stats::WorkerStats;

/// Maximum time for the system to accept datagrams.
const SEND_PATIENCE: Duration = Duration::from_millis(100);
/// Requested size of the send queue, in bytes.
const SEND_QUEUE: usize = 8 << 20;
/// Length of a UDP header.
const OUTER: usize = 8;
/// Maximum number of source addresses of the appliance.
const EXITS: usize = 256;
/// Maximum number of peers whose addresses are kept.
const PEERS: usize = 64;

/// Location of the payload of a datagram to send.
#[derive(Debug, Clone, Copy)]
enum Payload {
    /// Unchanged, in the buffer of this received datagram.
    Received(usize),
    /// Created by the appliance, at this offset.
    Made(usize),
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    outer: [u8; OUTER],
    payload: Payload,
    len: usize,
    /// Source and destination of the datagram.
    path: SendPath,
    /// Index of the destination among the peers.
    peer: usize,
    /// Index of the source among the exits.
    exit: usize,
}

/// Raw socket of an address of the appliance.
struct Exit {
    source: Ipv4Addr,
    socket: Socket,
}

/// Sends UDP datagrams from any port in batches.
///
/// The sockets are raw ones: the outlet writes the UDP headers (raw(7)) but leaves the IP header to
/// the system, which then keeps the route of a destination from packet to packet. With `IP_HDRINCL`
/// it would look up the route for each packet.
pub(super) struct Outlet {
    exits: Vec<Exit>,
    waiting: Vec<Waiting>,
    made: Vec<u8>,
    peers: Vec<(Ipv4Addr, SocketAddrAny)>,
}

/// Opens a raw socket that sends from an address. The socket receives only datagrams that this
/// address would send to itself.
fn exit(source: Ipv4Addr) -> io::Result<Exit> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    // The system need not copy datagrams that the socket does not receive.
    setsockopt(&socket, sockopt::RcvBuf, &0)?;
    let own = SockAddr::from(SocketAddrV4::new(source, 0));
    socket.bind(&own)?;
    socket.connect(&own)?;
    // Datagrams are never fragmented, and ICMP cannot change the path MTU.
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_QUEUE).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_QUEUE);
    }
    Ok(Exit { source, socket })
}

impl Outlet {
    /// Opens an exit for each address. Without addresses, checks that raw sockets are permitted.
    ///
    /// # Errors
    /// Returns an error if the system refuses a raw socket, for example because a capability is
    /// missing.
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

    /// Queues a received datagram, unchanged.
    pub(super) fn put_back(&mut self, tunnel: &Tunnel, number: usize, len: usize) {
        self.put(tunnel, Payload::Received(number), len);
    }

    /// Queues a payload of the appliance's own.
    pub(super) fn put_made(&mut self, tunnel: &Tunnel, payload: &[u8]) {
        let start = self.made.len();
        self.made.extend_from_slice(payload);
        self.put(tunnel, Payload::Made(start), payload.len());
    }

    fn put(&mut self, tunnel: &Tunnel, payload: Payload, len: usize) {
        let found = self
            .peers
            .iter()
            .position(|(peer, _)| *peer == tunnel.destination);
        let peer = found.unwrap_or_else(|| {
            let address = SocketAddrAny::from(SocketAddrV4::new(tunnel.destination, 0));
            self.peers.push((tunnel.destination, address));
            self.peers.len() - 1
        });
        let found = self
            .exits
            .iter()
            .position(|exit| exit.source == tunnel.source);
        let exit = found.unwrap_or_else(|| self.open(tunnel.source));
        self.waiting.push(Waiting {
            outer: udp_header(tunnel, len),
            payload,
            len,
            path: SendPath {
                source: tunnel.source,
                destination: tunnel.destination,
            },
            peer,
            exit,
        });
    }

    /// Opens the exit of a new source address. If that fails, the returned index has no exit.
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

    /// Returns whether the queue is empty.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends all queued datagrams; `inlet` holds the buffers of received datagrams.
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
        let payload = |waiting: &Waiting| match waiting.payload {
            Payload::Received(number) => inlet.payload(number, waiting.len),
            Payload::Made(start) => self.made.get(start..start + waiting.len),
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
                        match waiting.payload {
                            Payload::Received(_) => stats.returned.add(1),
                            Payload::Made(_) => stats.made.add(1),
                        }
                        stats.sent_bytes.add(waiting.len as u64);
                    }
                    done += sent;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // The system has refused the first of the remaining datagrams.
                    if let Some(first) = batch.get(done) {
                        stats.send_failed(&error.into(), first.path);
                    }
                    done += 1;
                }
            }
        }
    }
}

/// Returns a UDP header without a checksum (0).
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
