//! Parser of inner packets: the flow, and the flags that begin and end it.

use std::net::IpAddr;

use etherparse::{IpNumber, LaxIpSlice};
use portcullis::geneve::InnerProtocol;

/// TCP's flags, byte 13 of its header (RFC 9293 section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The type, code, checksum and four more bytes before the packet that an ICMP error quotes (RFC
/// 792, RFC 4443).
const ICMP_HEADER: usize = 8;

/// End of a flow: address and port. The port is 0 where the load balancer ignores ports.
pub(super) type FlowEnd = (IpAddr, u16);

/// Key of a flow: endpoint and five-tuple. Ports count only for TCP and UDP packets that are not
/// fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowKey {
    /// Index of the pair, and so of the endpoint.
    pub(super) pair: usize,
    /// The IP protocol's number.
    pub(super) protocol: u8,
    /// The lower end.
    pub(super) low: FlowEnd,
    /// The higher end.
    pub(super) high: FlowEnd,
}

/// Direction of a packet in its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// From the lower end to the higher.
    Up,
    /// From the higher end to the lower.
    Down,
}

impl Way {
    /// Returns the other direction.
    pub(super) const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// A flow and a direction in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowDirection {
    /// The flow.
    pub(super) key: FlowKey,
    /// The direction.
    pub(super) way: Way,
}

impl FlowDirection {
    /// Returns the other direction of the flow.
    pub(super) const fn back(self) -> Self {
        Self {
            key: self.key,
            way: self.way.back(),
        }
    }
}

/// Meaning of a packet for its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP, with the flags that matter.
    Tcp {
        /// SYN without ACK.
        opens: bool,
        /// FIN.
        fin: bool,
        /// RST.
        rst: bool,
        /// SYN-ACK without options and with a window of 0. Servers do not send one; an appliance
        /// that challenges the source of a SYN does.
        challenges: bool,
    },
    /// ICMP or ICMPv6 error, with the flow and direction of the quoted packet.
    IcmpError(Option<FlowDirection>),
    /// Any other packet.
    Other,
}

/// A parsed inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inner {
    /// Protocol in the GENEVE header.
    pub(super) protocol: InnerProtocol,
    /// Flow and direction.
    pub(super) place: FlowDirection,
    /// Meaning for the flow.
    pub(super) kind: Kind,
}

impl Inner {
    /// Parses a packet of the pair with this index. Returns `None` if it has no complete IP header.
    ///
    /// The parser is lax on purpose: the appliance checks for errors after the IP header.
    pub(super) fn read(pair: usize, packet: &[u8]) -> Option<Self> {
        let mut inner = read(pair, packet)?;
        if let Kind::IcmpError(quoted) = &mut inner.0.kind {
            *quoted = inner
                .1
                .get(ICMP_HEADER..)
                .and_then(|quote| read(pair, quote))
                .map(|(quote, _)| quote.place);
        }
        Some(inner.0)
    }
}

/// Parses a packet without the packet that it quotes, and returns its IP payload.
fn read(pair: usize, packet: &[u8]) -> Option<(Inner, &[u8])> {
    let (ip, _) = LaxIpSlice::from_slice(packet).ok()?;
    let (source, destination) = (ip.source_addr(), ip.destination_addr());
    let payload = ip.payload();
    let bytes = payload.payload;
    let (ports, kind) = if payload.fragmented {
        ((0, 0), Kind::Other)
    } else {
        match payload.ip_number {
            IpNumber::TCP => (ports(bytes), tcp(bytes)),
            IpNumber::UDP => (ports(bytes), Kind::Other),
            IpNumber::ICMP if matches!(bytes.first(), Some(3 | 4 | 5 | 11 | 12)) => {
                ((0, 0), Kind::IcmpError(None))
            }
            // Types below 128 are errors (RFC 4443 section 2.1).
            IpNumber::IPV6_ICMP if bytes.first().is_some_and(|kind| kind & 0x80 == 0) => {
                ((0, 0), Kind::IcmpError(None))
            }
            _ => ((0, 0), Kind::Other),
        }
    };
    let (from, to) = ((source, ports.0), (destination, ports.1));
    let (low, high, way) = if from <= to {
        (from, to, Way::Up)
    } else {
        (to, from, Way::Down)
    };
    let key = FlowKey {
        pair,
        protocol: payload.ip_number.0,
        low,
        high,
    };
    let protocol = if source.is_ipv4() {
        InnerProtocol::Ipv4
    } else {
        InnerProtocol::Ipv6
    };
    let inner = Inner {
        protocol,
        place: FlowDirection { key, way },
        kind,
    };
    Some((inner, bytes))
}

/// Returns the source and destination port, 0 if the header is truncated.
fn ports(bytes: &[u8]) -> (u16, u16) {
    match bytes.first_chunk() {
        Some(&[a, b, c, d]) => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        None => (0, 0),
    }
}

fn tcp(bytes: &[u8]) -> Kind {
    let flags = bytes.get(13).copied().unwrap_or_default();
    Kind::Tcp {
        opens: flags & (SYN | ACK | RST) == SYN,
        fin: flags & FIN != 0,
        rst: flags & RST != 0,
        challenges: flags == SYN | ACK && bytes.len() == 20 && bytes.get(14..16) == Some(&[0, 0]),
    }
}
