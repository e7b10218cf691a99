//! TCP connection of the log, with or without TLS: opened again after pauses that grow.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{SockRef, TcpKeepalive};

use super::batch::{Batch, Written};

/// Longest time to connect to an address, for a handshake of TLS, and to write a batch.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most reads of what a receiver sends, before a batch.
const MAX_READS: u32 = 64;
/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Least life of a connection that is opened again without a pause.
const LASTING: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause if no session is admitted meanwhile.
const LONGEST_PAUSE_CLOSED: Duration = Duration::from_secs(1);
/// Time after which a connection ends whose receiver confirms nothing; if there is nothing to
/// confirm, the time after which the receiver is probed.
const SILENCE: Duration = Duration::from_secs(5);
/// Interval of the probes.
const PROBES: Duration = Duration::from_secs(1);

/// Connection to a receiver.
pub(super) struct Stream {
    address: String,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
    pause: Duration,
    longest_pause: Duration,
    /// No attempt to connect is made before this time.
    retry: Option<Instant>,
}

struct Connection {
    opened: Instant,
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    /// Returns a connection without TLS, which is opened when there is something to write.
    pub(super) fn plain(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            tls: None,
            connection: None,
            pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
            retry: None,
        }
    }

    /// Returns a connection that is tried at least every second: no session is admitted while it is
    /// down.
    pub(super) fn that_closes_the_gate(self) -> Self {
        Self {
            longest_pause: LONGEST_PAUSE_CLOSED,
            ..self
        }
    }

    /// Returns a connection with TLS to a receiver whose certificate is signed by one of the file
    /// `ca`, or by one that the system trusts.
    ///
    /// # Errors
    /// Returns an error if there are no such certificates.
    pub(super) fn with_tls(address: &str, ca: Option<&Path>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let certificates = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
                for certificate in certificates {
                    let certificate = certificate.map_err(io::Error::other)?;
                    roots.add(certificate).map_err(io::Error::other)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(io::Error::other("there are no certificates to trust"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Some(Arc::new(config)),
            ..Self::plain(address)
        })
    }

    /// Writes items until one fails. A connection that has failed is closed: an item of which a
    /// part was written cannot be continued on another one.
    pub(super) fn write(&mut self, batch: &Batch) -> Written {
        let mut connection = match self.connected() {
            Ok(connection) => connection,
            Err(error) => return Written::nothing(error),
        };
        let mut items = 0;
        let until = Instant::now() + PATIENCE;
        for item in batch.items() {
            let result = match Instant::now() < until {
                true => connection.write_all(item),
                false => Err(ErrorKind::TimedOut.into()),
            };
            if let Err(error) = result {
                // TLS takes an item whose bytes it cannot send; the next call reports the failure.
                items -= usize::from(items > 0 && connection.has_unsent());
                self.lose(&connection);
                return Written {
                    items,
                    result: Err(error),
                };
            }
            items += 1;
        }
        let result = connection.flush();
        match result {
            Ok(()) => {
                if connection.has_lasted(self.pause) {
                    self.pause = FIRST_PAUSE;
                }
                self.connection = Some(connection);
            }
            Err(_) => {
                // TLS takes an item whose bytes it cannot send, and reports the next call as
                // failed: this one, for the last item.
                items = items.saturating_sub(1);
                self.lose(&connection);
            }
        }
        Written { items, result }
    }

    /// Takes a pause after a connection that broke. Only a connection that lasted resets the pause:
    /// a receiver that accepts and closes would be called all the time otherwise.
    fn lose(&mut self, connection: &Connection) {
        if connection.has_lasted(self.pause) {
            self.pause = FIRST_PAUSE;
        }
        self.fail(Instant::now());
    }

    /// Sets the time of the next attempt: a pause after `since`.
    fn fail(&mut self, since: Instant) {
        self.retry = Some(since + self.pause);
        self.pause = (self.pause * 2).min(self.longest_pause);
    }

    /// Takes the open connection, or opens one.
    fn connected(&mut self) -> io::Result<Connection> {
        if let Some(mut open) = self.connection.take() {
            if !open.is_closed() {
                return Ok(open);
            }
            // A connection that lasted is opened again without a pause. The pause of another one
            // starts with its opening: lines that come later than that are not lost.
            match open.has_lasted(self.pause) {
                true => self.pause = FIRST_PAUSE,
                false => self.fail(open.opened),
            }
        }
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return Err(ErrorKind::NotConnected.into());
        }
        let opened = self.connect();
        if opened.is_err() {
            self.fail(Instant::now());
        }
        opened
    }

    fn connect(&self) -> io::Result<Connection> {
        let mut result = Err(ErrorKind::NotFound.into());
        for address in self.address.to_socket_addrs()?.take(4) {
            result = TcpStream::connect_timeout(&address, PATIENCE);
            if result.is_ok() {
                break;
            }
        }
        let socket = result?;
        end_if_silent(&socket)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection {
            opened: Instant::now(),
            socket,
            tls: None,
        };
        if let Some(config) = &self.tls {
            let (host, _) = self.address.rsplit_once(':').unwrap_or((&self.address, ""));
            let host = host.trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let client = ClientConnection::new(Arc::clone(config), name);
            let mut client = client.map_err(io::Error::other)?;
            // The certificate is verified before a line counts as written.
            let mut bounded = Bounded {
                socket: &connection.socket,
                until: Instant::now() + PATIENCE,
            };
            while client.is_handshaking() {
                client.complete_io(&mut bounded)?;
            }
            connection.socket.set_write_timeout(Some(PATIENCE))?;
            connection.socket.set_read_timeout(Some(PATIENCE))?;
            connection.tls = Some(Box::new(client));
        }
        Ok(connection)
    }
}

impl Connection {
    /// Returns whether the connection has lived for longer than a second, and than the pause that
    /// would follow.
    fn has_lasted(&self, pause: Duration) -> bool {
        self.opened.elapsed() >= pause.max(LASTING)
    }

    /// Returns whether TLS holds bytes of an item that the system has not taken.
    fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).write_all(bytes),
            None => self.socket.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).flush(),
            None => self.socket.flush(),
        }
    }

    /// Returns whether the receiver has closed the connection. What it sends is read and ignored;
    /// the rest of more than [`MAX_READS`] waits for the next batch.
    fn is_closed(&mut self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return true;
        }
        let mut is_closed = false;
        for _ in 0..MAX_READS {
            match self.read_ignored() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    is_closed = error.kind() != ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        is_closed || self.socket.set_nonblocking(false).is_err()
    }

    /// Reads once, and drops what was read.
    ///
    /// # Errors
    /// Returns `WouldBlock` if there is nothing to read, and another error if the connection is
    /// closed or broken.
    fn read_ignored(&mut self) -> io::Result<()> {
        let mut bytes = [0; 512];
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(&mut bytes)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            };
        };
        let read = tls.read_tls(&mut self.socket)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        // Plaintext that stays would fill the buffer, and the next read would fail.
        while matches!(tls.reader().read(&mut bytes), Ok(1..)) {}
        match read == 0 || state.peer_has_closed() {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }
}

/// Makes the system end a connection whose receiver is silent: a path that drops packets would be
/// noticed only after some 15 minutes of retransmissions, and without lines to send, never.
fn end_if_silent(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    let probes = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBES);
    socket.set_tcp_keepalive(&probes)
}

/// Socket whose reads and writes end at one time in all.
struct Bounded<'s> {
    socket: &'s TcpStream,
    until: Instant,
}

impl Bounded<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(bytes)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.put(b"line", b"");
        batch
    }

    /// Accepts a connection, closes it, and waits until the other end has noticed.
    fn accept_and_close(listener: &TcpListener, stream: &mut Stream) {
        drop(listener.accept().unwrap());
        while !stream.connection.as_mut().unwrap().is_closed() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_receiver_that_accepts_and_closes_is_called_after_pauses_that_grow() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::plain(&listener.local_addr().unwrap().to_string());
        assert_eq!(stream.write(&batch()).items, 1);
        accept_and_close(&listener, &mut stream);
        // The pause after the opening is over.
        let earlier = Instant::now().checked_sub(FIRST_PAUSE).unwrap();
        stream.connection.as_mut().unwrap().opened = earlier;
        assert_eq!(stream.write(&batch()).items, 1);
        assert_eq!(stream.pause, FIRST_PAUSE * 2);
        accept_and_close(&listener, &mut stream);
        // The pause after the opening is not over.
        stream.connection.as_mut().unwrap().opened = Instant::now() + LONGEST_PAUSE * 60;
        for _ in 0..2 {
            let written = stream.write(&batch());
            assert_eq!(written.items, 0);
            let error = written.result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
            assert_eq!(stream.pause, FIRST_PAUSE * 4);
        }
    }

    #[test]
    fn a_connection_that_lasted_is_opened_again_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::plain(&listener.local_addr().unwrap().to_string());
        stream.pause = LONGEST_PAUSE;
        assert_eq!(stream.write(&batch()).items, 1);
        assert_eq!(stream.pause, LONGEST_PAUSE);
        accept_and_close(&listener, &mut stream);
        let earlier = Instant::now().checked_sub(LONGEST_PAUSE).unwrap();
        stream.connection.as_mut().unwrap().opened = earlier;
        assert_eq!(stream.write(&batch()).items, 1);
        assert_eq!(stream.pause, FIRST_PAUSE);
    }

    #[test]
    fn a_bounded_socket_neither_reads_nor_writes_after_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"early").unwrap();
        let mut bounded = Bounded {
            socket: &socket,
            until: Instant::now() + Duration::from_secs(600),
        };
        assert_eq!(bounded.read(&mut [0]).unwrap(), 1);
        bounded.write_all(b"early").unwrap();
        bounded.until = Instant::now();
        let late = [bounded.read(&mut [0]), bounded.write(b"late")];
        for result in late {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        }
    }

    #[test]
    fn a_receiver_that_never_stops_sending_does_not_hold_the_log() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::plain(&listener.local_addr().unwrap().to_string());
        assert_eq!(stream.write(&batch()).items, 1);
        let (mut peer, _) = listener.accept().unwrap();
        // More than is read before a batch; all of it is in the buffers of the sockets.
        let sent = MAX_READS as usize * 512 * 2;
        peer.write_all(&vec![0; sent]).unwrap();
        let connection = stream.connection.as_mut().unwrap();
        assert!(!connection.is_closed());
        connection.socket.set_nonblocking(true).unwrap();
        let mut rest = vec![0; sent];
        assert!(connection.socket.read(&mut rest).unwrap() > 0);
    }
    #[test]
    fn a_receiver_whose_absence_keeps_sessions_out_is_called_every_second() {
        let mut stream = Stream::plain("nowhere").that_closes_the_gate();
        for _ in 0..8 {
            stream.retry = None;
            assert!(stream.write(&Batch::default()).result.is_err());
        }
        assert_eq!(stream.pause, LONGEST_PAUSE_CLOSED);
        assert!(stream.retry.unwrap() <= Instant::now() + LONGEST_PAUSE_CLOSED);
    }
}
