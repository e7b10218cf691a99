//! UDP socket of the log.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// Time after which the name of the receiver is resolved again.
const RESOLVE: Duration = Duration::from_secs(60);
/// Time after a failure to open the socket until the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Socket that is connected to a receiver. The name of the receiver is resolved again from time to
/// time; the socket and its source port are kept as long as the addresses are.
#[derive(Debug)]
pub(super) struct Datagrams {
    address: String,
    socket: Option<UdpSocket>,
    /// Time at which the name is resolved again.
    renewal: Option<Instant>,
}

/// State of the socket before a batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// The socket of the previous batch.
    Kept,
    /// A socket that has sent nothing, with a source port of its own.
    Opened,
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

    /// Opens the socket, or resolves the name of the receiver again if that is due. Called once
    /// before each batch: a slow resolver must not delay every datagram.
    ///
    /// # Errors
    /// Returns an error if there is no socket. A name that cannot be resolved again leaves the
    /// socket as it is.
    pub(super) fn prepare(&mut self) -> io::Result<Transport> {
        if self.renewal.is_some_and(|due| Instant::now() < due) {
            return match self.socket {
                Some(_) => Ok(Transport::Kept),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
        }
        let renewed = self.renew();
        let result = match (renewed, &self.socket) {
            (Err(_), Some(_)) => Ok(Transport::Kept),
            (renewed, _) => renewed,
        };
        // The time starts after the resolver, which may be slow.
        let pause = if result.is_ok() { RESOLVE } else { RETRY };
        self.renewal = Some(Instant::now() + pause);
        result
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// Returns an error if there is no socket, or the system refuses the datagram. UDP reports a
    /// receiver that is not there with the next datagram, if at all.
    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        match &self.socket {
            Some(socket) => socket.send(message).map(|_| ()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Resolves the name, and replaces the socket if a new one would have other addresses: those of
    /// the receiver and of this host may change.
    fn renew(&mut self) -> io::Result<Transport> {
        let receivers: Vec<SocketAddr> = self.address.to_socket_addrs()?.collect();
        let current = self.socket.as_ref().and_then(|open| open.peer_addr().ok());
        let receiver = current
            .filter(|current| receivers.contains(current))
            .or_else(|| receivers.first().copied())
            .ok_or(io::ErrorKind::NotFound)?;
        let opened = open(receiver)?;
        let addresses = |socket: &UdpSocket| {
            let own = socket.local_addr().ok()?.ip();
            Some((own, socket.peer_addr().ok()?))
        };
        let kept = self.socket.as_ref().and_then(addresses);
        if kept.is_some() && kept == addresses(&opened) {
            return Ok(Transport::Kept);
        }
        self.socket = Some(opened);
        Ok(Transport::Opened)
    }

    /// Changes the address, as if the name of the receiver had another one now.
    #[cfg(test)]
    pub(super) fn redirect(&mut self, address: &str) {
        address.clone_into(&mut self.address);
        self.renewal = None;
    }
}

fn open(receiver: SocketAddr) -> io::Result<UdpSocket> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_kept_until_its_receiver_has_another_address() {
        let receivers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [first, second] = receivers
            .each_ref()
            .map(|receiver| receiver.local_addr().unwrap().to_string());
        let mut datagrams = Datagrams::new(&first);
        assert_eq!(datagrams.prepare().unwrap(), Transport::Opened);
        assert_eq!(datagrams.prepare().unwrap(), Transport::Kept);
        datagrams.redirect(&first);
        assert_eq!(datagrams.prepare().unwrap(), Transport::Kept);
        // An address without a port cannot be resolved.
        datagrams.redirect("nowhere");
        assert_eq!(datagrams.prepare().unwrap(), Transport::Kept);
        datagrams.send(b"one").unwrap();
        datagrams.redirect(&second);
        assert_eq!(datagrams.prepare().unwrap(), Transport::Opened);
        datagrams.send(b"two").unwrap();
        for (receiver, sent) in receivers.iter().zip([b"one", b"two"]) {
            let mut message = [0; 3];
            receiver.recv(&mut message).unwrap();
            assert_eq!(&message, sent);
        }
    }

    #[test]
    fn a_name_that_is_not_resolved_is_an_error_only_without_a_socket() {
        let mut datagrams = Datagrams::new("nowhere");
        let error = datagrams.prepare().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(datagrams.renewal.is_some());
        datagrams.send(b"lost").unwrap_err();
    }
}
