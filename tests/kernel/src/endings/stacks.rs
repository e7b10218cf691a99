//! The two TCP stacks: sockets in two namespaces, their kernels' counters, and the ends of their
//! connections.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::wire::End;
use crate::namespace::{Namespace, Tun, sysctl};

/// The server's port: a well-known one, which identifies the responder even without the SYN.
pub const PORT: u16 = 443;

/// Maximum time of a socket without progress.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// A socket's state in `/proc/net/tcp`: the connection is open.
pub const ESTABLISHED: u8 = 1;
/// A socket's state: its own FIN was acknowledged, and the other end's FIN is awaited.
pub const FIN_WAIT2: u8 = 5;
/// A socket's state: a FIN was received, and its own direction is open.
pub const CLOSE_WAIT: u8 = 8;

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The address of an end.
    #[must_use]
    pub const fn address(self, end: End) -> IpAddr {
        let host = match end {
            End::Client => 1,
            End::Server => 2,
        };
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 9, 0, host)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, host as u16)),
        }
    }
}

/// Counters of the kernel of a namespace: `/proc/net/snmp` and `/proc/net/netstat`.
#[derive(Debug, Clone)]
pub struct Counts(HashMap<String, i64>);

impl Counts {
    /// Reads the counters in the calling thread's namespace.
    fn read() -> Result<Self> {
        let mut counts = HashMap::new();
        for file in ["snmp", "netstat"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
            let lines: Vec<&str> = text.lines().collect();
            let (pairs, _) = lines.as_chunks::<2>();
            for [names, values] in pairs {
                let fields = names.split_whitespace().zip(values.split_whitespace());
                let of_tcp = names.starts_with("Tcp:") || names.starts_with("TcpExt:");
                for (name, value) in fields.skip(1).filter(|_| of_tcp) {
                    counts.insert(name.to_owned(), value.parse()?);
                }
            }
        }
        Ok(Self(counts))
    }

    /// Returns the increase of a counter since an earlier reading.
    ///
    /// # Errors
    /// Returns an error if the kernel has no such counter.
    pub fn since(&self, before: &Self, name: &str) -> Result<i64> {
        let of = |counts: &Self| counts.0.get(name).copied();
        let now = of(self).with_context(|| format!("no counter {name}"))?;
        Ok(now - of(before).unwrap_or(0))
    }
}

/// Two namespaces, with a listening server in the second.
pub struct Stacks {
    namespaces: [Namespace; 2],
    listeners: [TcpListener; 2],
    next_port: u16,
}

impl Stacks {
    /// Creates both namespaces; the devices are the client's and the server's.
    ///
    /// # Errors
    /// Returns an error without root or TUN, or if the names are taken.
    pub fn start(name: &str) -> Result<(Self, [Tun; 2])> {
        let (client, client_device) = Namespace::with_path(&format!("{name}-a"), 1)?;
        let (server, server_device) = Namespace::with_path(&format!("{name}-b"), 2)?;
        let listeners = server.inside(|| {
            let listen = |family: Family| {
                let listener = TcpListener::bind((family.address(End::Server), PORT))?;
                listener.set_nonblocking(true)?;
                anyhow::Ok(listener)
            };
            Ok([listen(Family::V4)?, listen(Family::V6)?])
        })?;
        let stacks = Self {
            namespaces: [client, server],
            listeners,
            next_port: 20_000,
        };
        stacks.limit_challenges(Duration::ZERO)?;
        Ok((stacks, [client_device, server_device]))
    }

    /// Limits each connection to one challenge of a bad segment in this time; zero means no limit.
    ///
    /// # Errors
    /// Returns an error if the kernel has no such setting.
    pub fn limit_challenges(&self, each: Duration) -> Result<()> {
        for namespace in &self.namespaces {
            let millis = each.as_millis().to_string();
            namespace.inside(|| sysctl("ipv4/tcp_invalid_ratelimit", &millis))?;
        }
        Ok(())
    }

    /// Returns a port that no client has used.
    pub const fn new_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// Returns a client's socket that is being connected and does not block.
    ///
    /// # Errors
    /// Returns an error if the socket cannot be created.
    pub fn call(&self, family: Family, port: u16) -> Result<TcpStream> {
        let [client, _] = &self.namespaces;
        client.inside(|| {
            let domain = match family {
                Family::V4 => AddressFamily::INET,
                Family::V6 => AddressFamily::INET6,
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(domain, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&socket, &SocketAddr::new(family.address(End::Client), port))?;
            match rustix::net::connect(&socket, &SocketAddr::new(family.address(End::Server), PORT))
            {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
                Err(error) => Err(error).context("connect"),
            }
        })
    }

    /// Returns the server's socket of the next connection, if there is one.
    ///
    /// # Errors
    /// Nothing can be accepted.
    pub fn accept(&self, family: Family) -> Result<Option<TcpStream>> {
        let [v4, v6] = &self.listeners;
        let listener = if family == Family::V4 { v4 } else { v6 };
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("accept"),
        }
    }

    /// Returns the counters of the two kernels.
    ///
    /// # Errors
    /// Returns an error if `/proc` is missing.
    pub fn counts(&self) -> Result<[Counts; 2]> {
        let [client, server] = &self.namespaces;
        Ok([client.inside(Counts::read)?, server.inside(Counts::read)?])
    }

    /// Returns whether an end's kernel has a socket for the connection of a client's port.
    ///
    /// # Errors
    /// Returns an error if `/proc` is missing.
    pub fn has_socket(&self, end: End, port: u16) -> Result<bool> {
        Ok(self.socket_state(end, port)?.is_some())
    }

    /// Returns the state of an end's socket for the connection of a client's port, by the kernel's
    /// number.
    ///
    /// # Errors
    /// Returns an error if `/proc` is missing.
    pub fn socket_state(&self, end: End, port: u16) -> Result<Option<u8>> {
        let wanted = match end {
            End::Client => (port, PORT),
            End::Server => (PORT, port),
        };
        let text = end.of(&self.namespaces).inside(|| {
            let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            Ok(read("tcp")? + &read("tcp6")?)
        })?;
        let port_of = |field: Option<&str>| {
            let (_, port) = field?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        Ok(text.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let ports = (port_of(fields.next()), port_of(fields.next()));
            let state = fields
                .next()
                .and_then(|state| u8::from_str_radix(state, 16).ok());
            state.filter(|_| ports == (Some(wanted.0), Some(wanted.1)))
        }))
    }
}

/// Returns whether a socket of [`Stacks::call`] is connected.
///
/// # Errors
/// Returns an error if the connection has failed.
pub fn is_connected(stream: &TcpStream) -> Result<bool> {
    let mut each = [PollFd::new(stream, PollFlags::OUT)];
    let ready = rustix::event::poll(&mut each, Some(&Timespec::default()))?;
    if ready > 0 {
        sockopt::socket_error(stream.as_fd())?.context("connect")?;
    }
    Ok(ready > 0)
}

/// Makes a connected socket blocking, with a timeout.
///
/// # Errors
/// Returns an error if the socket rejects the settings.
pub fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

/// Closes a socket abruptly: its stack sends a RST if the connection is alive.
pub fn abort(stream: TcpStream) {
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
}

/// End of a connection, as its socket reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Time at which the socket woke the waiting thread.
    pub at: Instant,
    /// Bytes that were not read before.
    pub unread: usize,
    /// Whether the error followed the other end's FIN.
    pub after_fin: bool,
    /// The error.
    pub error: rustix::io::Errno,
}

/// A thread that waits for the end of a connection.
pub struct Watch(JoinHandle<Result<Ended>>);

impl Watch {
    /// Begins to wait for an error only.
    ///
    /// # Errors
    /// Returns an error if the socket's handle cannot be duplicated.
    pub fn start(stream: &TcpStream) -> Result<Self> {
        let mut stream = stream.try_clone()?;
        Ok(Self(thread::spawn(move || {
            let patience = Timespec {
                tv_sec: PATIENCE.as_secs() as i64,
                tv_nsec: 0,
            };
            let mut each = [PollFd::new(&stream, PollFlags::empty())];
            let ready = rustix::event::poll(&mut each, Some(&patience))?;
            let at = Instant::now();
            ensure!(ready > 0, "the socket reports nothing");
            let (mut unread, mut buffer) = (0, [0; 4096]);
            let (after_fin, error) = loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break (true, stream.take_error()?),
                    Ok(len) => unread += len,
                    Err(error) => break (false, Some(error)),
                }
            };
            let error = error.context("the socket has woken up without an error")?;
            Ok(Ended {
                at,
                unread,
                after_fin,
                error: rustix::io::Errno::from_io_error(&error).context("errno")?,
            })
        })))
    }

    /// Returns whether the end has occurred or the wait has timed out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// Returns the end of the connection.
    ///
    /// # Errors
    /// Returns an error if the connection has not ended.
    pub fn join(self) -> Result<Ended> {
        self.0
            .join()
            .map_err(|_| anyhow!("a waiting thread died"))?
    }
}

/// Returns bytes that no other sender sends.
fn material(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

/// Threads that send bytes from one socket to the other and compare them.
pub struct Transfer([JoinHandle<Result<()>>; 2]);

impl Transfer {
    /// Begins.
    ///
    /// # Errors
    /// Returns an error if the sockets' handles cannot be duplicated.
    pub fn start(from: &TcpStream, to: &TcpStream, bytes: usize, seed: u64) -> Result<Self> {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        let sender = thread::spawn(move || from.write_all(&material(seed, bytes)).context("send"));
        let receiver = thread::spawn(move || {
            let mut received = vec![0; bytes];
            to.read_exact(&mut received).context("receive")?;
            if received != material(seed, bytes) {
                bail!("other bytes than were sent");
            }
            Ok(())
        });
        Ok(Self([sender, receiver]))
    }

    /// Returns whether both threads are done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.iter().all(JoinHandle::is_finished)
    }

    /// Waits for both threads.
    ///
    /// # Errors
    /// Returns an error if data are missing or wrong.
    pub fn join(self) -> Result<()> {
        for thread in self.0 {
            thread
                .join()
                .map_err(|_| anyhow!("a transferring thread died"))??;
        }
        Ok(())
    }
}
