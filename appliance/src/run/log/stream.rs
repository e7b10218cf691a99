//! TCP connection of the log, with or without TLS: opened again after pauses that grow.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::batch::Batch;

/// Longest time to connect, and to write a batch.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Result of writing a batch.
pub(super) struct Written {
    /// The number of items of which every byte was passed to the system.
    pub(super) items: usize,
    pub(super) result: io::Result<()>,
}

/// Connection to a receiver.
pub(super) struct Stream {
    address: String,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
    pause: Duration,
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
            retry: None,
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
            Err(error) => {
                return Written {
                    items: 0,
                    result: Err(error),
                };
            }
        };
        let mut items = 0;
        let until = Instant::now() + PATIENCE;
        for item in batch.items() {
            let result = match Instant::now() < until {
                true => connection.write_all(item),
                false => Err(ErrorKind::TimedOut.into()),
            };
            if let Err(error) = result {
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
                if connection.has_lasted() {
                    self.pause = FIRST_PAUSE;
                }
                self.connection = Some(connection);
            }
            Err(_) => self.lose(&connection),
        }
        Written { items, result }
    }

    /// Takes a pause after a connection that broke. Only a connection that lasted resets the pause:
    /// a receiver that accepts and closes would be called all the time otherwise.
    fn lose(&mut self, connection: &Connection) {
        if connection.has_lasted() {
            self.pause = FIRST_PAUSE;
        }
        self.fail(Instant::now());
    }

    /// Sets the time of the next attempt: a pause after `since`.
    fn fail(&mut self, since: Instant) {
        self.retry = Some(since + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Takes the open connection, or opens one.
    fn connected(&mut self) -> io::Result<Connection> {
        if let Some(mut open) = self.connection.take() {
            if !open.is_closed() {
                return Ok(open);
            }
            // A connection that lasted is opened again without a pause. The pause of another one
            // starts with its opening: lines that come later than that are not lost.
            match open.has_lasted() {
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
            while client.is_handshaking() {
                client.complete_io(&mut connection.socket)?;
            }
            connection.tls = Some(Box::new(client));
        }
        Ok(connection)
    }
}

impl Connection {
    /// Returns whether the connection has lived for the longest pause.
    fn has_lasted(&self) -> bool {
        self.opened.elapsed() >= LONGEST_PAUSE
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

    /// Returns whether the receiver has closed the connection. What it sends is read and ignored.
    fn is_closed(&mut self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return true;
        }
        let is_closed = loop {
            let mut bytes = [0; 512];
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(&mut self.socket),
                None => self.socket.read(&mut bytes),
            };
            match read {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break true,
            }
            if let Some(tls) = &mut self.tls {
                match tls.process_new_packets() {
                    Ok(state) if !state.peer_has_closed() => {}
                    _ => break true,
                }
            }
        };
        is_closed || self.socket.set_nonblocking(false).is_err()
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
}
