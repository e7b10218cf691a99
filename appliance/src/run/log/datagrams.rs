//! UDP socket of the log.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// Time after which the name of the receiver is resolved again.
const RESOLVE: Duration = Duration::from_secs(60);
/// Time after a failure to open the socket until the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Socket that is connected to a receiver, and opened again from time to time: the address of a
/// name may change.
#[derive(Debug)]
pub(super) struct Datagrams {
    address: String,
    socket: Option<UdpSocket>,
    /// Time at which the socket is opened again.
    renewal: Option<Instant>,
}

impl Datagrams {
    /// Returns a socket that is opened when there is something to send.
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            socket: None,
            renewal: None,
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// Returns an error if the name cannot be resolved, or the system refuses the datagram. UDP
    /// reports a receiver that is not there with the next datagram, if at all.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        if self.renewal.is_none_or(|renewal| renewal <= now) {
            self.renewal = Some(now + RETRY);
            self.socket = Some(self.open()?);
            self.renewal = Some(now + RESOLVE);
        }
        match &self.socket {
            Some(socket) => socket.send(message).map(|_| ()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn open(&self) -> io::Result<UdpSocket> {
        let receiver = self.address.to_socket_addrs()?.next();
        let receiver = receiver.ok_or(io::ErrorKind::NotFound)?;
        let own: SocketAddr = match receiver {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own)?;
        socket.connect(receiver)?;
        // A full send buffer must not stop the log.
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}
