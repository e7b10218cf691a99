//! Synthetic packets with correct lengths and checksums.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement,
};

use super::seal::sealed;

/// FIN.
pub(crate) const FIN: u8 = 0x01;
/// SYN.
pub(crate) const SYN: u8 = 0x02;
/// RST.
pub(crate) const RST: u8 = 0x04;
/// ACK.
pub(crate) const ACK: u8 = 0x10;

/// Source and destination of a packet. Host `n` is 10.0.0.n or 2001:db8::n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) v6: bool,
    pub(crate) src: u8,
    pub(crate) src_port: u16,
    pub(crate) dst: u8,
    pub(crate) dst_port: u16,
}

impl Ends {
    /// Returns IPv4 ends, from host 1 to host 2.
    pub(crate) const fn v4(src_port: u16, dst_port: u16) -> Self {
        Self {
            v6: false,
            src: 1,
            src_port,
            dst: 2,
            dst_port,
        }
    }

    /// Returns IPv6 ends, from host 1 to host 2.
    pub(crate) const fn v6(src_port: u16, dst_port: u16) -> Self {
        Self {
            v6: true,
            ..Self::v4(src_port, dst_port)
        }
    }

    /// Returns the ends of the other direction.
    pub(crate) const fn back(self) -> Self {
        Self {
            v6: self.v6,
            src: self.dst,
            src_port: self.dst_port,
            dst: self.src,
            dst_port: self.src_port,
        }
    }

    fn ip(self) -> PacketBuilderStep<IpHeaders> {
        let v6 = |host: u8| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            address[15] = host;
            address
        };
        if self.v6 {
            PacketBuilder::ipv6(v6(self.src), v6(self.dst), 64)
        } else {
            PacketBuilder::ipv4([10, 0, 0, self.src], [10, 0, 0, self.dst], 64)
        }
    }
}

/// The numbers of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
}

/// Returns a UDP datagram.
pub(crate) fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ends.ip()
        .udp(ends.src_port, ends.dst_port)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// Returns a TCP segment.
pub(crate) fn tcp(ends: Ends, head: Head, options: &[TcpOptionElement], payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(ends.src_port, ends.dst_port, head.seq, head.window);
    header.set_options(options).unwrap();
    header.acknowledgment_number = head.ack;
    let is = |bit: u8| head.flags & bit != 0;
    (header.fin, header.syn, header.rst, header.ack) = (is(FIN), is(SYN), is(RST), is(ACK));
    (header.psh, header.urg, header.ece, header.cwr) = (is(0x08), is(0x20), is(0x40), is(0x80));
    let mut packet = Vec::new();
    ends.ip()
        .tcp_header(header)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// Returns an echo request or reply; the identifier is the source port.
pub(crate) fn echo(ends: Ends, request: bool) -> Vec<u8> {
    let id = ends.src_port.to_be_bytes();
    icmp(
        ends,
        if ends.v6 { [129, 128] } else { [0, 8] }[usize::from(request)],
        [id[0], id[1], 0, 1],
        b"ping",
    )
}

/// Returns an ICMP or ICMPv6 message of any type, with the four bytes after the checksum and the
/// rest.
pub(crate) fn icmp(ends: Ends, kind: u8, bytes5to8: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    if ends.v6 {
        ends.ip()
            .icmpv6_raw(kind, 0, bytes5to8)
            .write(&mut packet, rest)
            .unwrap();
    } else {
        ends.ip()
            .icmpv4_raw(kind, 0, bytes5to8)
            .write(&mut packet, rest)
            .unwrap();
    }
    packet
}

/// Returns a discovery message with the hop limit and the extension header of its type; `body` is
/// the part after the checksum.
pub(crate) fn discovery(source: &str, destination: &str, kind: u8, body: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let is_listener = matches!(kind, 130..=132 | 143);
    let extensions: &[u8] = if is_listener {
        &[58, 0, 5, 2, 0, 0, 1, 0]
    } else {
        &[]
    };
    let ends = [address(source), address(destination)].concat();
    let message = [&[kind, 0, 0, 0], body].concat();
    let sum = Sum16BitWords::new()
        .add_slice(&ends)
        .add_slice(&(message.len() as u32).to_be_bytes())
        .add_slice(&[0, 0, 0, 58])
        .add_slice(&message);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((extensions.len() + message.len()) as u16).to_be_bytes());
    packet.extend(if is_listener { [0, 1] } else { [58, 255] });
    packet.extend(ends);
    packet.extend(extensions);
    packet.extend([kind, 0]);
    packet.extend(sum.ones_complement().to_ne_bytes());
    packet.extend(body);
    packet
}

/// Returns a destination unreachable error about a packet, from a router (host 200) to host `to`.
pub(crate) fn unreachable(v6: bool, to: u8, quoted: &[u8]) -> Vec<u8> {
    let ends = Ends {
        v6,
        src: 200,
        src_port: 0,
        dst: to,
        dst_port: 0,
    };
    icmp(ends, if v6 { 1 } else { 3 }, [0; 4], quoted)
}

/// Returns a packet of any protocol.
pub(crate) fn other(ends: Ends, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ends.ip()
        .write(&mut packet, IpNumber(protocol), payload)
        .unwrap();
    packet
}

/// Returns an SCTP chunk without its padding: `body` is whole words.
pub(crate) fn chunk(chunk_type: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![chunk_type, flags];
    chunk.extend((4 + body.len() as u16).to_be_bytes());
    chunk.extend(body);
    chunk
}

/// Returns an SCTP INIT (1) or INIT ACK (2).
pub(crate) fn init(chunk_type: u8, tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    chunk(chunk_type, 0, &body)
}

/// Returns an SCTP INIT (1) or INIT ACK (2) with parameters.
pub(crate) fn init_with(chunk_type: u8, tag: u32, parameters: &[u8]) -> Vec<u8> {
    let bare = init(chunk_type, tag);
    chunk(chunk_type, 0, &[&bare[4..], parameters].concat())
}

/// Returns an SCTP parameter with the IPv4 address 10.0.0.`host`.
pub(crate) fn address4(host: u8) -> Vec<u8> {
    vec![0, 5, 0, 8, 10, 0, 0, host]
}

/// Returns an SCTP parameter with the IPv6 address 2001:db8::`host`.
pub(crate) fn address6(host: u8) -> Vec<u8> {
    let mut parameter = vec![0, 6, 0, 20, 0x20, 0x01, 0x0d, 0xb8];
    parameter.resize(19, 0);
    parameter.push(host);
    parameter
}

/// Returns an SCTP packet.
pub(crate) fn sctp(ends: Ends, tag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(ends.src_port.to_be_bytes());
    payload.extend(ends.dst_port.to_be_bytes());
    payload.extend(tag.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(chunks);
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&payload);
    payload[8..12].copy_from_slice(&sum.to_le_bytes());
    other(ends, 132, &payload)
}

/// Returns a DCCP packet with numbers of 48 bits. All fields after the acknowledgment number are 0.
pub(crate) fn dccp(ends: Ends, kind: u8, seq: u32, ack: u32) -> Vec<u8> {
    let (acks, rest) = match kind {
        0 => (false, 4),
        1 | 7 => (true, 4),
        2 => (false, 0),
        _ => (true, 0),
    };
    let mut payload = Vec::new();
    payload.extend(ends.src_port.to_be_bytes());
    payload.extend(ends.dst_port.to_be_bytes());
    payload.extend([((16 + 8 * usize::from(acks) + rest) / 4) as u8, 0, 0, 0]);
    payload.extend([kind << 1 | 1, 0, 0, 0]);
    payload.extend(seq.to_be_bytes());
    if acks {
        payload.extend([0; 4]);
        payload.extend(ack.to_be_bytes());
    }
    payload.resize(payload.len() + rest, 0);
    sealed(other(ends, 33, &payload))
}

/// Fields of a TCP packet whose checksums are correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpPacket {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) seq: u32,
    /// Acknowledgment number; `None` without the flag.
    pub(crate) ack: Option<u32>,
    pub(crate) rst: bool,
    /// The packet has any other flag.
    pub(crate) others: bool,
    /// The packet has neither options nor data.
    pub(crate) bare: bool,
}

/// Reads a TCP packet.
pub(crate) fn tcp_packet(bytes: &[u8]) -> TcpPacket {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ip(bytes).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else {
        panic!("no TCP: {bytes:?}");
    };
    let header = tcp.to_header();
    let (src, dst, ttl, sum): (IpAddr, IpAddr, u8, u16) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), bytes.len());
            let sum = header.calc_checksum_ipv4(&ip, tcp.payload()).unwrap();
            (
                ip.source.into(),
                ip.destination.into(),
                ip.time_to_live,
                sum,
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let ip = ip.header().to_header();
            assert_eq!(usize::from(ip.payload_length) + 40, bytes.len());
            let sum = header.calc_checksum_ipv6(&ip, tcp.payload()).unwrap();
            (ip.source.into(), ip.destination.into(), ip.hop_limit, sum)
        }
        other => panic!("no IP: {other:?}"),
    };
    assert_eq!(header.checksum, sum);
    let others = [
        header.fin, header.syn, header.psh, header.urg, header.ece, header.cwr, header.ns,
    ];
    TcpPacket {
        src: SocketAddr::new(src, header.source_port),
        dst: SocketAddr::new(dst, header.destination_port),
        ttl,
        seq: header.sequence_number,
        ack: header.ack.then_some(header.acknowledgment_number),
        rst: header.rst,
        others: others.contains(&true),
        bare: header.options.is_empty() && tcp.payload().is_empty(),
    }
}
