//! Transfers of several kinds between the two stacks, with every byte checked.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::net::sockopt;

/// The server's port.
const PORT: u16 = 7000;

/// Maximum time without progress, after which a transfer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The client sends.
    Upload = 0,
    /// The server sends.
    Download = 1,
    /// Both ends send at the same time.
    Both = 2,
    /// The client sends all its data and closes its direction; then the server sends.
    HalfClosed = 3,
    /// The server reads slowly into a small buffer: its window closes.
    SlowServer = 4,
    /// The client reads slowly into a small buffer.
    SlowClient = 5,
    /// Short messages in both directions, with pauses in which keepalives are sent.
    Chatty = 6,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Upload,
        Self::Download,
        Self::Both,
        Self::HalfClosed,
        Self::SlowServer,
        Self::SlowClient,
        Self::Chatty,
    ];

    const fn client_sends(self) -> bool {
        !matches!(self, Self::Download | Self::SlowClient)
    }

    const fn server_sends(self) -> bool {
        !matches!(self, Self::Upload | Self::SlowServer)
    }
}

/// The client's request for a transfer: kind, bytes in each direction, and the seed of the bytes.
#[derive(Debug, Clone, Copy)]
struct Order {
    kind: Kind,
    bytes: u64,
    seed: u64,
}

impl Order {
    const LEN: usize = 17;

    fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let all = [self.kind as u8]
            .into_iter()
            .chain(self.bytes.to_be_bytes())
            .chain(self.seed.to_be_bytes());
        for (to, from) in out.iter_mut().zip(all) {
            *to = from;
        }
        out
    }

    fn decode(bytes: [u8; Self::LEN]) -> Result<Self> {
        let [kind, rest @ ..] = bytes;
        let (bytes, seed) = rest.split_first_chunk::<8>().context("order")?;
        let kind = Kind::ALL.into_iter().find(|each| *each as u8 == kind);
        Ok(Self {
            kind: kind.context("no such kind of transfer")?,
            bytes: u64::from_be_bytes(*bytes),
            seed: u64::from_be_bytes(*seed.first_chunk().context("order")?),
        })
    }
}

/// Finished transfers, and failures of clients and server.
#[derive(Debug, Default)]
pub struct Log {
    /// Finished transfers: their kinds, and whether they used IPv6.
    pub done: Mutex<Vec<(Kind, bool)>>,
    /// Descriptions of the failures.
    pub failures: Mutex<Vec<String>>,
}

impl Log {
    fn fail(&self, who: &str, error: &anyhow::Error) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.push(format!("{who}: {error:#}"));
        }
    }

    fn finish(&self, kind: Kind, v6: bool) {
        if let Ok(mut done) = self.done.lock() {
            done.push((kind, v6));
        }
    }
}

/// Starts a server on one address. It ends when `stop` is set and no client connects any more.
///
/// # Errors
/// Returns an error if the server cannot listen on the address.
pub fn serve(address: IpAddr, stop: Arc<AtomicBool>, log: Arc<Log>) -> Result<JoinHandle<()>> {
    let listener = TcpListener::bind((address, PORT))?;
    listener.set_nonblocking(true)?;
    Ok(thread::spawn(move || {
        let mut busy: Vec<JoinHandle<()>> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let log = Arc::clone(&log);
                    busy.push(thread::spawn(move || {
                        if let Err(error) = answer(stream) {
                            log.fail("server", &error);
                        }
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(5))
                }
                Err(error) => log.fail("accept", &error.into()),
            }
            busy.retain(|each| !each.is_finished());
        }
    }))
}

/// Starts a client that runs one transfer after the other until `stop` is set.
pub fn call(address: IpAddr, seed: u64, stop: Arc<AtomicBool>, log: Arc<Log>) -> JoinHandle<()> {
    /// Successive connections of all clients begin with different kinds.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    thread::spawn(move || {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        while !stop.load(Ordering::Relaxed) {
            let next = usize::from(NEXT.fetch_add(1, Ordering::Relaxed)) % Kind::ALL.len();
            let Some(kind) = Kind::ALL.get(next).copied() else {
                return;
            };
            let bytes = match kind {
                Kind::SlowServer | Kind::SlowClient => dice.random_range(60_000..250_000),
                Kind::Chatty => dice.random_range(5..20),
                _ => dice.random_range(1..3_000_000),
            };
            let order = Order {
                kind,
                bytes,
                seed: dice.random(),
            };
            match ask(address, order) {
                Ok(()) => log.finish(kind, address.is_ipv6()),
                Err(error) => {
                    log.fail(&format!("client, {order:?} to {address}"), &error);
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    })
}

fn ask(address: IpAddr, order: Order) -> Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::new(address, PORT), PATIENCE).context("connect")?;
    prepare(&stream, order.kind == Kind::SlowClient)?;
    stream.write_all(&order.encode())?;
    transfer(stream, order, true)
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    let mut order = [0; Order::LEN];
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut order).context("order")?;
    let order = Order::decode(order)?;
    prepare(&stream, order.kind == Kind::SlowServer)?;
    transfer(stream, order, false)
}

fn prepare(stream: &TcpStream, small: bool) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    if small {
        sockopt::set_socket_recv_buffer_size(stream, 4096)?;
    }
    Ok(())
}

/// The transfer itself. Each end closes its direction after its last byte, and reads to the end of
/// the other's data.
fn transfer(stream: TcpStream, order: Order, client: bool) -> Result<()> {
    if order.kind == Kind::Chatty {
        return chat(stream, order, client);
    }
    let (sends, receives) = if client {
        (order.kind.client_sends(), order.kind.server_sends())
    } else {
        (order.kind.server_sends(), order.kind.client_sends())
    };
    let (out_seed, in_seed) = if client {
        (order.seed, order.seed ^ 1)
    } else {
        (order.seed ^ 1, order.seed)
    };
    let slow = matches!(
        (order.kind, client),
        (Kind::SlowClient, true) | (Kind::SlowServer, false)
    );
    let waits = order.kind == Kind::HalfClosed && !client;
    let expected = if receives { order.bytes } else { 0 };
    if waits {
        // Only after the client has closed its half.
        receive(&stream, in_seed, expected, slow)?;
        return send(&stream, out_seed, order.bytes);
    }
    let writer = stream.try_clone()?;
    let sender =
        thread::spawn(move || send(&writer, out_seed, if sends { order.bytes } else { 0 }));
    let received = receive(&stream, in_seed, expected, slow);
    match sender.join() {
        Ok(sent) => sent.and(received),
        Err(_) => bail!("the sending thread died"),
    }
}

fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let mut buffer = [0; 16_384];
    let mut left = bytes;
    while left > 0 {
        source.fill_bytes(&mut buffer);
        let part = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let chunk = buffer.get(..part).unwrap_or_default();
        stream.write_all(chunk).context("send")?;
        left -= part as u64;
    }
    stream.shutdown(Shutdown::Write).context("close")?;
    Ok(())
}

/// Reads to the end and compares every byte.
fn receive(mut stream: &TcpStream, seed: u64, bytes: u64, slow: bool) -> Result<()> {
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let (mut expected, mut buffer) = ([0; 16_384], [0; 16_384]);
    let mut left = bytes;
    let mut paused = 0;
    while left > 0 {
        source.fill_bytes(&mut expected);
        let part = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut got = 0;
        while got < part {
            let room = buffer.get_mut(got..part).context("buffer")?;
            let read = stream.read(room).context("receive")?;
            ensure!(read > 0, "closed with {left} bytes missing");
            got += read;
        }
        ensure!(
            buffer.get(..part) == expected.get(..part),
            "another byte than was sent, {left} before the end"
        );
        left -= part as u64;
        if slow && paused < 4 {
            paused += 1;
            thread::sleep(Duration::from_millis(700));
        }
    }
    ensure!(
        stream.read(&mut [0]).context("end")? == 0,
        "more than was sent"
    );
    Ok(())
}

/// Sends a number and receives it back, with occasional pauses that are long enough for keepalives.
fn chat(mut stream: TcpStream, order: Order, client: bool) -> Result<()> {
    for round in 0..order.bytes {
        let mut number = round.to_be_bytes();
        if client {
            stream.write_all(&number)?;
        }
        number = [0; 8];
        stream.read_exact(&mut number).context("chat")?;
        ensure!(
            u64::from_be_bytes(number) == round,
            "another number than was sent"
        );
        if !client {
            stream.write_all(&number)?;
        } else if round == order.bytes / 2 {
            thread::sleep(Duration::from_millis(3500));
        }
    }
    stream.shutdown(Shutdown::Write)?;
    ensure!(
        stream.read(&mut [0]).context("end")? == 0,
        "more than was sent"
    );
    Ok(())
}
