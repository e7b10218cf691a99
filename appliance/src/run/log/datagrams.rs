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
        if self.renewal.is_none_or(|renewal| renewal <= Instant::now()) {
            let renewed = self.renew();
            // The resolver may have taken long. A receiver that was found once stays in use while
            // its name cannot be resolved.
            let pause = if self.socket.is_some() {
                RESOLVE
            } else {
                RETRY
            };
            self.renewal = Some(Instant::now() + pause);
            if self.socket.is_none() {
                renewed?;
            }
        }
        match &self.socket {
            Some(socket) => socket.send(message).map(|_| ()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Resolves the name, and opens a socket if the receiver has another address than before: a
    /// collector knows an exporter by its port.
    fn renew(&mut self) -> io::Result<()> {
        let receiver = self.address.to_socket_addrs()?.next();
        let receiver = receiver.ok_or(io::ErrorKind::NotFound)?;
        let socket = self.socket.as_ref();
        if socket.is_none_or(|socket| socket.peer_addr().ok() != Some(receiver)) {
            self.socket = Some(open(receiver)?);
        }
        Ok(())
    }
}

/// Opens a socket that is connected to a receiver.
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
    fn a_socket_is_kept_while_the_receiver_stays_or_is_not_found() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut datagrams = Datagrams::new(&receiver.local_addr().unwrap().to_string());
        datagrams.send(b"first").unwrap();
        let port = |datagrams: &Datagrams| datagrams.socket.as_ref().unwrap().local_addr().unwrap();
        let first = port(&datagrams);
        // The second address has no port, so it is not found.
        for address in [
            receiver.local_addr().unwrap().to_string(),
            "127.0.0.1".to_owned(),
        ] {
            datagrams.address = address;
            datagrams.renewal = Some(Instant::now());
            datagrams.send(b"next").unwrap();
            assert_eq!(port(&datagrams), first);
            assert!(datagrams.renewal > Some(Instant::now() + RETRY));
        }
        let mut unknown = Datagrams::new("127.0.0.1");
        assert!(unknown.send(b"lost").is_err());
        assert!(unknown.renewal > Some(Instant::now()));
    }
}
