//! Open-loop flood: packets of small flows without state, sent in batches. Replies are not judged.
//!
//! The flood can exceed a load with bookkeeping, or attack an appliance. The packets are IPv4, from
//! a number of flows, or each of a new flow.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use etherparse::{IpNumber, Ipv4Header, TcpHeader, UdpHeader};
use nix::sys::socket::{setsockopt, sockopt};
use portcullis::geneve::InnerProtocol;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use serde::Serialize;

use super::parse::{ENDPOINT, appliance, hexadecimal, seconds};
use super::socket::{RawSender, local_address};
use super::tunnel::{Endpoint, GENEVE_LEN, OVERHEAD, Outer, geneve_header};

/// Most datagrams per call.
const BATCH: usize = 32;
/// Longest payload of a UDP datagram over IPv4, which bounds the datagrams that the system makes
/// from one piece.
const MAX_PAYLOAD: usize = 65_507;
/// Pause of a flood that is ahead of its rate.
const REST: Duration = Duration::from_micros(50);
/// Maximum delay that the flood catches up on.
const CATCH_UP: Duration = Duration::from_millis(10);
/// Shortest inner packet: UDP without payload.
const HEADERS: usize = Ipv4Header::MIN_LEN + UdpHeader::LEN;
/// Offset of a fragment whose first fragment is missing, in units of eight bytes.
const LATER: u16 = 9;
/// Flag for more fragments (RFC 791).
const MORE_FRAGMENTS: u16 = 0x2000;
/// The server of all flows, in the network for measurements (RFC 2544).
const SERVER: [u8; 4] = [198, 19, 0, 2];
const SERVER_PORT: u16 = 443;
/// The first address of the clients: 10.128.0.0/9.
const CLIENTS: u32 = 0x0a80_0000;
/// Flows of one client port: as many as there are clients.
const FLOWS_OF_PORT: u64 = 1 << 23;
/// The first client port, and the first outer port.
const FIRST_PORT: u16 = 49_152;

/// Kind of the packets of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Attack {
    /// UDP datagrams
    Udp,
    /// TCP SYNs
    Syn,
    /// TCP RSTs
    Rst,
    /// TCP ACKs
    Ack,
    /// First fragments of UDP datagrams that are never completed, and later ones without a first
    Fragment,
}

impl Attack {
    /// Returns the flags of the TCP segments; `None` for UDP.
    const fn tcp_flags(self) -> Option<u8> {
        match self {
            Self::Syn => Some(0x02),
            Self::Rst => Some(0x04),
            Self::Ack => Some(0x10),
            Self::Udp | Self::Fragment => None,
        }
    }
}

/// Arguments of a flood.
#[derive(Debug, Clone, Args)]
pub(crate) struct FloodArgs {
    /// The appliance: an IPv4 address, its port 6081 unless another is given
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = appliance)]
    appliance: SocketAddrV4,
    /// Outer source address, local or not [default: that of the route to the appliance]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<Ipv4Addr>,
    /// Number of flows; 0 makes each packet the first of a new flow
    #[arg(long, value_name = "N", default_value_t = 0)]
    flows: u64,
    /// Kind of the packets
    #[arg(long, value_enum, default_value_t = Attack::Udp)]
    attack: Attack,
    /// Length in bytes of an inner packet; TCP packets have 40
    #[arg(
        long,
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(HEADERS as i64..=8500)
    )]
    size: u16,
    /// Packets per second [default: as fast as the system takes them]
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Total number of packets
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Pass the datagrams of a batch to the system as one (UDP segmentation offload): several times
    /// as fast, but all have one outer port, and `--from` must be an address of this host
    #[arg(long)]
    segmented: bool,
    /// The endpoint id in the tunnel headers, 16 hexadecimal digits
    #[arg(long, value_name = "ENDPOINT", default_value = ENDPOINT, value_parser = hexadecimal)]
    endpoint: u64,
}

/// Result of a flood.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Flooded {
    sent: u64,
    /// Packets that the system refused.
    refused: u64,
    seconds: f64,
    sent_per_second: f64,
}

impl Flooded {
    /// Adds a batch.
    ///
    /// # Errors
    /// Returns the error of the batch if the system has accepted nothing so far, and its error is
    /// not one that passes.
    fn add(&mut self, batch: &[Template], passed: Passed) -> io::Result<()> {
        self.sent += passed.sent;
        self.refused += (batch.len() as u64).saturating_sub(passed.sent);
        match passed.error {
            Some(error) if self.sent == 0 && !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Batch that was passed to the system.
#[derive(Debug, Default)]
struct Passed {
    /// Datagrams that the system accepted.
    sent: u64,
    /// First error.
    error: Option<io::Error>,
}

/// Returns whether the next datagrams may be accepted: a queue is full, or the error reports what
/// an earlier datagram met.
fn is_passing(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::Interrupted,
        io::ErrorKind::ConnectionRefused,
    ];
    let no_buffer = rustix::io::Errno::NOBUFS.raw_os_error();
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(no_buffer)
}

/// Outer packet that is changed into the packet of any flow.
#[derive(Debug, Clone)]
struct Template {
    bytes: Vec<u8>,
    attack: Attack,
    /// Sum over the constant part of the inner IPv4 header, for its checksum.
    ip_sum: u32,
    /// Sum over the constant part of the pseudo header and the TCP segment, for its checksum.
    tcp_sum: u32,
}

/// Returns the sum over the 16-bit words of `bytes`, whose length is even (RFC 1071).
fn words(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    words.sum()
}

/// Returns the checksum of a sum.
const fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

impl Template {
    fn new(outer: Outer, endpoint: u64, attack: Attack, size: usize) -> Self {
        let (protocol, transport) = match attack.tcp_flags() {
            Some(flags) => {
                let mut tcp = TcpHeader::new(0, SERVER_PORT, 0, 0xffff)
                    .to_bytes()
                    .to_vec();
                if let Some(byte) = tcp.get_mut(13) {
                    *byte = flags;
                }
                (IpNumber::TCP, tcp)
            }
            None => {
                let udp = UdpHeader {
                    source_port: 0,
                    destination_port: SERVER_PORT,
                    length: (size - Ipv4Header::MIN_LEN) as u16,
                    // 0 means that there is no checksum.
                    checksum: 0,
                };
                let payload = vec![0x5a; size.saturating_sub(HEADERS)];
                (IpNumber::UDP, [&udp.to_bytes()[..], &payload].concat())
            }
        };
        let ip = Ipv4Header {
            total_len: (Ipv4Header::MIN_LEN + transport.len()) as u16,
            time_to_live: 64,
            dont_fragment: attack != Attack::Fragment,
            protocol,
            destination: SERVER,
            ..Ipv4Header::default()
        };
        let ip = ip.to_bytes();
        let inner = [&ip[..], &transport].concat();
        let header = geneve_header(
            Endpoint {
                id: endpoint,
                attachment: 0,
            },
            0,
            InnerProtocol::Ipv4,
        );
        let mut bytes = Vec::new();
        outer.write(0, &header, &inner, &mut bytes);
        Self {
            bytes,
            attack,
            ip_sum: words(&ip),
            // The pseudo header (RFC 9293 3.1) without the source, and the segment.
            tcp_sum: words(&SERVER) + 6 + transport.len() as u32 + words(&transport),
        }
    }

    /// Returns the UDP payload.
    fn payload(&self) -> &[u8] {
        let headers = Ipv4Header::MIN_LEN + UdpHeader::LEN;
        self.bytes.get(headers..).unwrap_or_default()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    /// Changes the template into the packet of a flow.
    fn become_flow(&mut self, flow: u64) {
        const IP: usize = OVERHEAD;
        const TRANSPORT: usize = IP + Ipv4Header::MIN_LEN;
        let source = (CLIENTS | (flow % FLOWS_OF_PORT) as u32).to_be_bytes();
        let port = (FIRST_PORT | (flow / FLOWS_OF_PORT) as u16).to_be_bytes();
        let number = (flow as u32).to_be_bytes();
        self.put(
            Ipv4Header::MIN_LEN,
            &(FIRST_PORT | flow as u16).to_be_bytes(),
        );
        // The cookie is the last word of the GENEVE header.
        self.put(IP - 4, &number);
        let mut ip_sum = self.ip_sum + words(&source);
        if self.attack == Attack::Fragment {
            let place = if flow.is_multiple_of(2) {
                MORE_FRAGMENTS
            } else {
                MORE_FRAGMENTS | LATER
            };
            let fields = [(flow as u16).to_be_bytes(), place.to_be_bytes()].concat();
            self.put(IP + 4, &fields);
            ip_sum += words(&fields);
        }
        self.put(IP + 10, &folded(ip_sum));
        self.put(IP + 12, &source);
        self.put(TRANSPORT, &port);
        if self.attack.tcp_flags().is_some() {
            // An arbitrary sequence number, which no session expects.
            self.put(TRANSPORT + 4, &number);
            let sum = self.tcp_sum + words(&source) + words(&port) + words(&number);
            self.put(TRANSPORT + 16, &folded(sum));
        }
    }
}

const _: () = assert!(OVERHEAD == Ipv4Header::MIN_LEN + UdpHeader::LEN + GENEVE_LEN);

/// Sends until all packets are sent, the time is over, or `stop` is set.
///
/// # Errors
/// Returns an error if no raw socket can be created, no route to the appliance exists, or the
/// system does not accept such datagrams.
pub(super) fn run(args: &FloodArgs, stop: &Arc<AtomicBool>) -> io::Result<Flooded> {
    let from = match args.from {
        Some(from) => from,
        None => local_address(*args.appliance.ip())?,
    };
    let outer = Outer {
        destination_port: args.appliance.port(),
        ..Outer::new(from, *args.appliance.ip())
    };
    let template = Template::new(outer, args.endpoint, args.attack, usize::from(args.size));
    let mut sender = match args.segmented {
        true => Sender::segmented(from, args.appliance, &template)?,
        false => Sender::Raw {
            socket: RawSender::new()?,
            to: SocketAddrV4::new(*args.appliance.ip(), 0).into(),
        },
    };
    let mut packets = vec![template; sender.batch()];
    let begun = Instant::now();
    let (mut done, mut paced_from, mut paced) = (Flooded::default(), begun, 0);
    let mut next = 0u64;
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < args.seconds {
        let left = args.packets.map_or(u64::MAX, |packets| packets - next);
        let mut count = left.min(packets.len() as u64);
        if let Some(rate) = args.rate {
            let due = |time: Duration| (time.as_secs_f64() * rate as f64) as u64;
            let mut behind = due(paced_from.elapsed()).saturating_sub(paced);
            if behind > due(CATCH_UP) {
                (paced_from, paced, behind) = (Instant::now(), 0, 1);
            }
            count = count.min(behind);
            if count == 0 && left > 0 {
                std::thread::sleep(REST);
                continue;
            }
        }
        if count == 0 {
            break;
        }
        let batch = packets.get_mut(..count as usize).unwrap_or_default();
        for packet in batch.iter_mut() {
            packet.become_flow(if args.flows == 0 {
                next
            } else {
                next % args.flows
            });
            next += 1;
        }
        paced += count;
        done.add(batch, sender.send(batch))?;
    }
    done.seconds = begun.elapsed().as_secs_f64();
    done.sent_per_second = done.sent as f64 / done.seconds;
    Ok(done)
}

/// Sender of batches.
enum Sender {
    /// Each datagram has headers of its own.
    Raw {
        socket: RawSender,
        to: SocketAddrAny,
    },
    /// The system makes the datagrams from one piece.
    Segmented {
        socket: UdpSocket,
        piece: Vec<u8>,
        /// Length of a datagram.
        len: usize,
    },
}

impl Sender {
    /// Returns a sender of datagrams of the template's length.
    fn segmented(from: Ipv4Addr, to: SocketAddrV4, template: &Template) -> io::Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        let len = template.payload().len();
        setsockopt(&socket, sockopt::UdpGsoSegment, &(len as i32))?;
        Ok(Self::Segmented {
            socket,
            piece: Vec::with_capacity(BATCH * len),
            len,
        })
    }

    /// Returns the most datagrams of a batch.
    fn batch(&self) -> usize {
        match self {
            Self::Raw { .. } => BATCH,
            Self::Segmented { len, .. } => (MAX_PAYLOAD / len.max(&1)).clamp(1, BATCH),
        }
    }

    /// Sends a batch.
    fn send(&mut self, batch: &[Template]) -> Passed {
        match self {
            Self::Raw { socket, to } => send(socket, to, batch),
            Self::Segmented { socket, piece, .. } => {
                piece.clear();
                for packet in batch {
                    piece.extend_from_slice(packet.payload());
                }
                match socket.send(piece) {
                    Ok(_) => Passed {
                        sent: batch.len() as u64,
                        error: None,
                    },
                    // The batch is lost, as on a wire.
                    Err(error) => Passed {
                        sent: 0,
                        error: Some(error),
                    },
                }
            }
        }
    }
}

/// Sends a batch.
fn send(socket: &RawSender, to: &SocketAddrAny, batch: &[Template]) -> Passed {
    let slices: Vec<[IoSlice<'_>; 1]> = batch
        .iter()
        .map(|packet| [IoSlice::new(&packet.bytes)])
        .collect();
    let mut control: Vec<SendAncillaryBuffer<'_, '_, '_>> = batch
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let mut messages: Vec<MMsgHdr<'_>> = slices
        .iter()
        .zip(&mut control)
        .map(|(slices, control)| MMsgHdr::new_with_addr(to, slices, control))
        .collect();
    let (mut done, mut passed) = (0, Passed::default());
    while let Some(left) = messages.get_mut(done..).filter(|left| !left.is_empty()) {
        match sendmmsg(socket, left, SendFlags::empty()) {
            Ok(sent) => {
                done += sent.max(1);
                passed.sent += sent as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            // The first remaining datagram is lost, as on a wire.
            Err(error) => {
                done += 1;
                passed.error.get_or_insert(error.into());
            }
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use portcullis::geneve::Header;
    use portcullis::packet::{Checksums, Transport, parse};

    use super::*;

    #[test]
    fn every_packet_is_a_right_one_of_its_flow() {
        let outer = Outer::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for attack in Attack::value_variants() {
            let mut template = Template::new(outer, 0xb1, *attack, 100);
            let mut seen = HashSet::new();
            for flow in [
                0,
                1,
                2,
                65_535,
                65_536,
                FLOWS_OF_PORT - 1,
                FLOWS_OF_PORT,
                1 << 24,
            ] {
                template.become_flow(flow);
                let (header, inner) = Header::parse(template.payload(), |_, _| false).unwrap();
                assert_eq!(
                    super::super::tunnel::metadata(&header),
                    (Some(0xb1), Some(flow as u32))
                );
                let parsed = parse(inner.bytes, Checksums::Verify).unwrap();
                let transport = parsed.transport;
                assert!(seen.insert(inner.bytes.to_vec()));
                match attack {
                    Attack::Fragment => {
                        assert!(matches!(transport, Transport::Fragment(found)
                            if found.more && (found.offset == 0) == flow.is_multiple_of(2)));
                    }
                    Attack::Udp => assert!(matches!(transport, Transport::Udp { .. })),
                    Attack::Syn | Attack::Rst | Attack::Ack => {
                        assert_eq!(inner.bytes.len(), 40);
                        assert!(matches!(transport, Transport::Tcp { .. }));
                    }
                }
            }
        }
    }

    /// Returns a receiver, and a batch for it from a sender whose datagrams the system makes.
    fn segmented(size: usize) -> (UdpSocket, Sender, Vec<Template>) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let std::net::SocketAddr::V4(to) = receiver.local_addr().unwrap() else {
            panic!("an IPv4 address");
        };
        let outer = Outer::new([127, 0, 0, 1].into(), *to.ip());
        let template = Template::new(outer, 0xb1, Attack::Udp, size);
        let sender = Sender::segmented([127, 0, 0, 1].into(), to, &template).unwrap();
        let mut batch = vec![template; BATCH];
        for (flow, packet) in (0..).zip(&mut batch) {
            packet.become_flow(flow);
        }
        (receiver, sender, batch)
    }

    #[test]
    fn the_system_makes_the_datagrams_of_a_piece() {
        for (size, wanted) in [(40, BATCH), (2_500, 25), (8_500, 7)] {
            let (receiver, mut sender, mut batch) = segmented(size);
            assert_eq!(sender.batch(), wanted);
            // The receive queue has room for these.
            batch.truncate(wanted.min(7));
            let mut done = Flooded::default();
            done.add(&batch, sender.send(&batch)).unwrap();
            assert_eq!((done.sent, done.refused), (batch.len() as u64, 0));
            for packet in &batch {
                let mut datagram = [0; 9_000];
                let len = receiver.recv(&mut datagram).unwrap();
                assert_eq!(&datagram[..len], packet.payload());
            }
        }
    }

    #[test]
    fn datagrams_that_the_system_never_accepts_are_an_error() {
        let (_receiver, mut sender, batch) = segmented(8_500);
        let mut done = Flooded::default();
        let error = done.add(&batch, sender.send(&batch)).unwrap_err();
        let too_long = rustix::io::Errno::MSGSIZE.raw_os_error();
        assert_eq!(error.raw_os_error(), Some(too_long));
        // A full queue passes, and so does an error after datagrams that were accepted.
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused] {
            let error = Some(kind.into());
            done.add(&batch, Passed { sent: 0, error }).unwrap();
        }
        assert_eq!((done.sent, done.refused), (0, 3 * BATCH as u64));
        let most = batch.get(..sender.batch()).unwrap();
        done.add(most, sender.send(most)).unwrap();
        done.add(&batch, sender.send(&batch)).unwrap();
        assert_eq!((done.sent, done.refused), (7, 4 * BATCH as u64));
    }
}
