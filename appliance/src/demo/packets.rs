//! Packets of the demo that no kernel sends on its own, and a look at those of a kernel.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::error::{DemoError, system};
use super::namespace::Namespace;
use super::services::WEB;
use super::stop::Stop;
use super::topology::{CLIENT, SERVER};

/// Protocol number of a packet socket for packets of both directions: `ETH_P_ALL`.
const EVERYTHING: u16 = 3;
/// Length of an IPv4 header without options.
const IPV4: usize = 20;
/// Place of the TCP data offset, and of the checksum, in a packet.
const DATA_OFFSET: usize = IPV4 + 12;
const CHECKSUM: usize = IPV4 + 16;
/// Longest wait of a receiver before it looks for a signal.
const TURN: Duration = Duration::from_millis(100);
/// Number of attempts to send a packet while a queue is full.
const ATTEMPTS: usize = 1000;

/// Sender of whole IPv4 packets.
#[derive(Debug)]
pub(crate) struct PacketSender(Socket);

impl PacketSender {
    /// Returns a sender in a namespace.
    ///
    /// # Errors
    /// Returns an error if the system refuses the socket.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self, DemoError> {
        // A socket of this protocol takes packets with their IP header (raw(7)).
        let raw = Protocol::from(i32::from(u8::MAX));
        let socket = || Socket::new(Domain::IPV4, Type::RAW, Some(raw));
        namespace.inside("raw socket", socket).map(Self)
    }

    /// Sends packets to the server, so many per millisecond, and returns their number.
    ///
    /// # Errors
    /// Returns the system's error, and [`DemoError::Interrupted`] after a signal.
    pub(crate) fn send(
        &self,
        packets: impl IntoIterator<Item = io::Result<Vec<u8>>>,
        per_millisecond: usize,
        stop: &Stop,
    ) -> Result<u64, DemoError> {
        let mut sent = 0;
        for packet in packets {
            let packet = packet.map_err(system("a packet"))?;
            self.send_one(&packet).map_err(system("a packet"))?;
            sent += 1;
            if sent % per_millisecond as u64 == 0 {
                stop.check()?;
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(sent)
    }

    fn send_one(&self, packet: &[u8]) -> io::Result<()> {
        let server = SockAddr::from(SocketAddr::V4(SocketAddrV4::new(SERVER, 0)));
        let full = rustix::io::Errno::NOBUFS.raw_os_error();
        for _ in 0..ATTEMPTS {
            match self.0.send_to(packet, &server) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(full) => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Returns a TCP segment without data from an address to the server.
///
/// # Errors
/// Returns an error if the packet cannot be built.
pub(crate) fn segment(from: Ipv4Addr, header: TcpHeader) -> io::Result<Vec<u8>> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.octets(), SERVER.octets(), 64)
        .tcp_header(header)
        .write(&mut packet, &[])
        .map_err(io::Error::other)?;
    Ok(packet)
}

/// Returns a header from a port to a port of the server, with this sequence number and no flags.
pub(crate) fn header(from: u16, to: u16, sequence: u32) -> TcpHeader {
    TcpHeader::new(from, to, sequence, u16::MAX)
}

/// Returns a SYN from a port to a port of the server.
pub(crate) fn syn(from: u16, to: u16) -> TcpHeader {
    TcpHeader {
        syn: true,
        ..header(from, to, 1)
    }
}

/// Returns a RST from a port to the web server, with this sequence number.
pub(crate) fn reset(from: u16, sequence: u32) -> TcpHeader {
    TcpHeader {
        rst: true,
        ..header(from, WEB, sequence)
    }
}

/// Returns a packet whose data offset points after its end.
pub(crate) fn with_offset_beyond_end(mut packet: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = packet.get_mut(DATA_OFFSET) {
        *byte = 0xf0;
    }
    packet
}

/// Returns a packet with a wrong TCP checksum.
pub(crate) fn with_wrong_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = packet.get_mut(CHECKSUM) {
        *byte ^= 0x55;
    }
    packet
}

/// Sends echo requests from the client, and returns the number of those that are answered.
///
/// # Errors
/// Returns the system's error, and [`DemoError::Interrupted`] after a signal.
pub(crate) fn ping(client: &Namespace, count: u16, stop: &Stop) -> Result<u16, DemoError> {
    const ID: u16 = 0x7063;
    let answers = client.inside("ping", || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_read_timeout(Some(TURN))?;
        Ok(socket)
    })?;
    let sender = PacketSender::new(client)?;
    let mut answered = 0;
    for number in 0..count {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT.octets(), SERVER.octets(), 64)
            .icmpv4_echo_request(ID, number)
            .write(&mut packet, b"portcullis demo")
            .map_err(io::Error::other)
            .map_err(system("an echo request"))?;
        sender
            .send_one(&packet)
            .map_err(system("an echo request"))?;
        let [a, b, c, d] = [ID.to_be_bytes(), number.to_be_bytes()].concat()[..] else {
            continue;
        };
        let found = stop.wait_for(Duration::from_secs(1), || {
            let answer = receive(&answers)?;
            // Type and code 0 are an echo reply (RFC 792); two bytes of checksum follow.
            let reply = answer.get(IPV4..).unwrap_or_default();
            let is_reply = reply.starts_with(&[0, 0]) && reply.get(4..8) == Some(&[a, b, c, d]);
            Ok(is_reply.then_some(()))
        })?;
        answered += u16::from(found.is_some());
    }
    Ok(answered)
}

/// Receives a packet; an empty one if none comes in time.
fn receive(mut socket: &Socket) -> Result<Vec<u8>, DemoError> {
    let mut packet = vec![0; usize::from(u16::MAX)];
    match socket.read(&mut packet) {
        Ok(len) => {
            packet.truncate(len);
            Ok(packet)
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(system("receipt of a packet")(error)),
    }
}

/// Numbers of a live connection of the client to the web server, as an attacker on its path sees
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overheard {
    /// Port of the client.
    pub(crate) port: u16,
    /// Sequence number that the server expects next.
    pub(crate) next: u32,
}

/// Waits for a segment of the client to the web server and returns its numbers.
///
/// # Errors
/// Returns an error if no segment comes within seconds, and [`DemoError::Interrupted`] after a
/// signal.
pub(crate) fn overhear(client: &Namespace, stop: &Stop) -> Result<Overheard, DemoError> {
    const LIMIT: Duration = Duration::from_secs(5);
    let protocol = Protocol::from(i32::from(EVERYTHING.to_be()));
    let socket = client.inside("packet socket", || {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        socket.set_read_timeout(Some(TURN))?;
        Ok(socket)
    })?;
    let heard = stop.wait_for(LIMIT, || Ok(overheard(&receive(&socket)?)))?;
    heard.ok_or_else(|| DemoError::Late {
        what: "a segment of the download".to_owned(),
        seconds: LIMIT.as_secs(),
        tail: String::new(),
    })
}

/// Returns the numbers of an established connection's segment; `None` for any other packet.
fn overheard(packet: &[u8]) -> Option<Overheard> {
    let packet = SlicedPacket::from_ip(packet).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
    else {
        return None;
    };
    let is_ours = ip.header().source_addr() == CLIENT
        && ip.header().destination_addr() == SERVER
        && tcp.destination_port() == WEB;
    let is_plain = tcp.ack() && !tcp.syn() && !tcp.fin() && !tcp.rst();
    (is_ours && is_plain).then(|| Overheard {
        port: tcp.source_port(),
        next: tcp
            .sequence_number()
            .wrapping_add(tcp.payload().len() as u32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_segments_to_the_web_server_are_overheard() {
        let ack = TcpHeader {
            ack: true,
            ..header(40_000, WEB, u32::MAX)
        };
        let heard = |from, header: &TcpHeader| overheard(&segment(from, header.clone()).unwrap());
        let expected = Overheard {
            port: 40_000,
            next: u32::MAX,
        };
        assert_eq!(heard(CLIENT, &ack), Some(expected));
        assert_eq!(heard(SERVER, &ack), None);
        assert_eq!(heard(CLIENT, &syn(40_000, WEB)), None);
        assert_eq!(heard(CLIENT, &reset(40_000, 1)), None);
        let elsewhere = TcpHeader {
            destination_port: 21,
            ..ack
        };
        assert_eq!(heard(CLIENT, &elsewhere), None);
        assert_eq!(overheard(b""), None);
    }

    #[test]
    fn damaged_packets_are_dropped_for_the_damage() {
        use std::time::Instant;

        use portcullis::{Config, DropReason, Engine, Malformed, Packet};

        let engine = Engine::new(&Config::default()).unwrap();
        let reason = |packet: &[u8]| {
            engine
                .verdict_only(Packet::new(packet, Instant::now()))
                .reason()
        };
        let whole = segment(CLIENT, syn(40_000, WEB)).unwrap();
        let malformed = |kind| Some(DropReason::Malformed(kind));
        assert_eq!(reason(&whole), Some(DropReason::PolicyDeny));
        assert_eq!(
            reason(&with_offset_beyond_end(whole.clone())),
            malformed(Malformed::TcpHeaderLength)
        );
        assert_eq!(
            reason(&with_wrong_checksum(whole)),
            malformed(Malformed::TcpChecksum)
        );
    }
}
