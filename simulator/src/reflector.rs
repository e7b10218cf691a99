//! Bare reflector: the minimum of an appliance. It swaps the outer addresses of each datagram and
//! sends it back, with one system call in each direction. Tests use it as a peer, and measurements
//! as a baseline.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};

use super::socket::{RawSender, bind};
use super::tunnel::{GENEVE_LEN, Outer};

/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Interval, in datagrams, at which the fault is injected.
const EVERY: u64 = 100;

/// Arguments of the reflector.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReflectorArgs {
    /// IPv4 address to listen on, at port 6081
    #[arg(long, value_name = "ADDRESS")]
    listen: Ipv4Addr,
    /// Answer every hundredth datagram wrongly, to test the detection
    #[arg(long, value_enum, hide = true)]
    fault: Option<Fault>,
}

/// Fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// The GENEVE header of the previous datagram
    SwapCookie,
    /// The source port of the previous datagram
    SwapPort,
    /// A changed last byte
    FlipByte,
    /// A second copy
    Duplicate,
    /// No answer
    Drop,
}

/// Reflects until `stop` is set; returns the number of datagrams.
///
/// # Errors
/// Returns the system's error.
pub(super) fn run(args: &ReflectorArgs, stop: &Arc<AtomicBool>) -> io::Result<u64> {
    let socket = bind(args.listen)?;
    let raw = RawSender::new()?;
    match args.fault {
        None => reflect(&socket, &raw, args.listen, stop),
        Some(fault) => reflect_wrongly(&socket, &raw, args.listen, stop, fault),
    }
}

/// Receives a datagram. Returns its length and its sender's address and port, or `None` if none
/// arrived.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, Ipv4Addr, u16)>> {
    match socket.recv_from(buffer) {
        Ok((len, SocketAddr::V4(from))) => Ok(Some((len, *from.ip(), from.port()))),
        Ok((_, SocketAddr::V6(_))) => Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn reflect(
    socket: &UdpSocket,
    raw: &RawSender,
    listen: Ipv4Addr,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut packet = Vec::with_capacity(MAX_DATAGRAM);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Some((len, peer, port)) = receive(socket, &mut buffer)? {
            let payload = buffer.get(..len).unwrap_or_default();
            Outer::new(listen, peer).write(port, payload, &[], &mut packet);
            // A datagram that cannot be sent is lost, as on a wire.
            let _ = raw.send(&packet, peer);
            count += 1;
        }
    }
    Ok(count)
}

fn reflect_wrongly(
    socket: &UdpSocket,
    raw: &RawSender,
    listen: Ipv4Addr,
    stop: &AtomicBool,
    fault: Fault,
) -> io::Result<u64> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut packet = Vec::new();
    let mut before = (Vec::new(), 0);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some((len, peer, mut port)) = receive(socket, &mut buffer)? else {
            continue;
        };
        let (header, inner) = buffer
            .get_mut(..len)
            .and_then(|payload| payload.split_at_mut_checked(GENEVE_LEN))
            .unwrap_or_default();
        let now = (header.to_vec(), port);
        count += 1;
        let mut copies = 1;
        if count % EVERY == 0 {
            match fault {
                Fault::SwapCookie => header.swap_with_slice(&mut before.0),
                Fault::SwapPort => port = before.1,
                Fault::FlipByte => {
                    if let Some(last) = inner.last_mut() {
                        *last ^= 1;
                    }
                }
                Fault::Duplicate => copies = 2,
                Fault::Drop => copies = 0,
            }
        }
        before = now;
        Outer::new(listen, peer).write(port, header, inner, &mut packet);
        for _ in 0..copies {
            let _ = raw.send(&packet, peer);
        }
    }
    Ok(count)
}
