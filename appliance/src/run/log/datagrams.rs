//! UDP socket of the log.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Time after which the name of the receiver is resolved again.
const RESOLVE: Duration = Duration::from_secs(60);
/// Time after a failure to open the socket until the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Longest time that the datagrams of a batch wait in all for room in the system's buffers.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time until a queue of the system that was full is tried again, where it does not report room.
const PAUSE: Duration = Duration::from_millis(1);

/// Socket that is connected to a receiver. The name of the receiver is resolved again from time to
/// time; the socket and its source port are kept as long as the addresses are.
#[derive(Debug)]
pub(super) struct Datagrams {
    address: String,
    socket: Option<UdpSocket>,
    /// Time at which the name is resolved again.
    renewal: Option<Instant>,
    /// Time until which datagrams of the batch may wait.
    until: Instant,
    /// Whether the receiver's host has refused a datagram.
    is_refused: bool,
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
            until: Instant::now(),
            is_refused: false,
        }
    }

    /// Opens the socket, or resolves the name of the receiver again if that is due. Called once
    /// before each batch: a slow resolver must not delay every datagram.
    ///
    /// # Errors
    /// Returns an error if there is no socket. A name that cannot be resolved again leaves the
    /// socket as it is.
    pub(super) fn prepare(&mut self) -> io::Result<Transport> {
        let result = self.open_or_renew();
        self.until = Instant::now() + PATIENCE;
        result
    }

    fn open_or_renew(&mut self) -> io::Result<Transport> {
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

    /// Sends a datagram; waits for room in the system's buffers, for [`PATIENCE`] in a batch.
    ///
    /// # Errors
    /// Returns an error if there is no socket, or the system refuses the datagram.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut is_repeated = false;
        loop {
            let Err(error) = socket.send(message) else {
                return Ok(());
            };
            let left = self.until.saturating_duration_since(Instant::now());
            match error.raw_os_error().map(Errno::from_raw) {
                // The error is that of an earlier datagram. This one was not sent.
                Some(Errno::ECONNREFUSED) if !is_repeated => {
                    is_repeated = true;
                    self.is_refused = true;
                }
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN) if !left.is_zero() => {
                    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                    // An interrupted wait is repeated, until the time is over.
                    let _ = poll(&mut polled, left);
                }
                Some(Errno::ENOBUFS) if !left.is_zero() => thread::sleep(PAUSE),
                _ => return Err(error),
            }
        }
    }

    /// Returns the refusal of an earlier datagram once, so that its loss is reported.
    ///
    /// # Errors
    /// Returns an error if the receiver's host has refused a datagram since the last call.
    pub(super) fn take_refusal(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.is_refused) {
            true => Err(io::ErrorKind::ConnectionRefused.into()),
            false => Ok(()),
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

    #[test]
    fn a_refusal_of_an_earlier_datagram_costs_no_other_and_is_reported_once() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut datagrams = Datagrams::new(&address.to_string());
        datagrams.prepare().unwrap();
        drop(receiver);
        for _ in 0..3 {
            datagrams.send(b"lost").unwrap();
        }
        let receiver = UdpSocket::bind(address).unwrap();
        datagrams.send(b"next").unwrap();
        datagrams.take_refusal().unwrap_err();
        datagrams.take_refusal().unwrap();
        let mut message = [0; 8];
        let length = receiver.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"next");
    }

    #[test]
    fn datagrams_wait_for_room_in_the_buffer_and_not_forever() {
        let directory = tempfile::tempdir().unwrap();
        // A socket of the system that reports a full receiver to the sender, as UDP does not.
        let path = directory.path().join("socket");
        let receiver = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut datagrams = Datagrams::new("nowhere");
        datagrams.socket = Some(UdpSocket::from(std::os::fd::OwnedFd::from(sender)));
        let mut sent = 0;
        while datagrams.send(b"line").is_ok() {
            sent += 1;
        }
        let error = datagrams.send(b"line").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let reader = thread::spawn(move || {
            let mut message = [0; 8];
            for _ in 0..=sent {
                receiver.recv(&mut message).unwrap();
            }
        });
        datagrams.until = Instant::now() + PATIENCE * 60;
        datagrams.send(b"late").unwrap();
        reader.join().unwrap();
    }
}
