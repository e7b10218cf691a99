//! Sockets of a GENEVE endpoint: one receives at port 6081, one sends from any port.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt};
use portcullis::geneve::PORT;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Maximum number of datagrams per call.
const BATCH: usize = 64;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Requested size of the receive queue, in bytes.
const RECEIVE_QUEUE: usize = 32 << 20;
/// Longest wait of a call for a datagram, after which the end of the run is checked.
const PATIENCE: Duration = Duration::from_millis(20);

/// Returns a UDP socket at port 6081 of an address, with a large receive queue and a time-out.
///
/// # Errors
/// Returns the system's error, most likely that the port is in use.
pub(super) fn bind(address: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, PORT))?;
    // Exceeds the system's limit with CAP_NET_ADMIN; without it, the limit applies.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_QUEUE).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_QUEUE);
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Returns the address from which the system would send to `peer`.
///
/// # Errors
/// Returns an error if no route exists, or the source is not an IPv4 address.
pub(super) fn local_address(peer: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((peer, PORT))?;
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Receives datagrams in batches.
pub(super) struct Receiver<'s> {
    socket: &'s UdpSocket,
    /// Reused: without control messages and with addresses of one length, no call shrinks the room
    /// for the next one.
    headers: MultiHeaders<SockaddrIn>,
    buffers: Vec<Vec<u8>>,
    received: Vec<(SocketAddrV4, usize)>,
}

impl<'s> Receiver<'s> {
    /// Returns a receiver for a socket of [`bind`].
    pub(super) fn new(socket: &'s UdpSocket) -> Self {
        Self {
            socket,
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![vec![0; MAX_DATAGRAM]; BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Waits briefly for datagrams, and returns the senders and UDP payloads of those that arrived.
    ///
    /// # Errors
    /// Returns the system's error. An empty result is not an error.
    pub(super) fn receive(&mut self) -> io::Result<impl Iterator<Item = (SocketAddrV4, &[u8])>> {
        self.received.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            flags,
            None,
        ) {
            Ok(messages) => self.received.extend(messages.map(|message| {
                let from = message.address.map_or(
                    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
                    SocketAddrV4::from,
                );
                (from, message.bytes)
            })),
            // ICMP errors about earlier datagrams are reported as refused connections.
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        let datagrams = self.received.iter().zip(&self.buffers);
        Ok(datagrams.map(|((from, len), buffer)| (*from, buffer.get(..*len).unwrap_or_default())))
    }
}

/// Returns the number of datagrams that the kernel discarded because the receive queue of port 6081
/// of this address was full.
pub(super) fn receive_overflow(address: Ipv4Addr) -> u32 {
    let local = format!("{:08X}:{PORT:04X}", u32::from_ne_bytes(address.octets()));
    let table = std::fs::read_to_string("/proc/self/net/udp").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(&local))
        .filter_map(|line| line.split_whitespace().last()?.parse::<u32>().ok())
        .sum()
}

/// Sender of whole IPv4 packets, from any source port.
pub(super) struct RawSender {
    socket: Socket,
}

impl AsFd for RawSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RawSender {
    /// Returns a socket for sending.
    ///
    /// # Errors
    /// Returns the system's error; without `CAP_NET_RAW`, that the operation is not permitted.
    pub(super) fn new() -> io::Result<Self> {
        // IPPROTO_RAW: packets include their IP header, and nothing is received (raw(7)).
        let protocol = Protocol::from(nix::libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.set_header_included_v4(true)?;
        Ok(Self { socket })
    }

    /// Sends a packet whose header has this destination address.
    ///
    /// # Errors
    /// Returns the system's error, for example that the packet exceeds the path's MTU.
    pub(super) fn send(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(destination, 0));
        self.socket.send_to(packet, &to).map(drop)
    }
}
