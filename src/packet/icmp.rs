//! ICMP and ICMPv6: queries, and errors with the packet that they quote.

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};

use super::{
    Checksums, GreKey, Ip, IpVersion, Malformed, Parsed, Transport, checksum, discovery, gre, ipv4,
    ipv6,
};

/// Bytes of every ICMP header, and the minimum that an error must quote of a transport header (RFC
/// 792).
const HEADER_LEN: usize = 8;

/// Kind of an ICMP query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpKind {
    /// Echo: ICMP 8 and 0 (RFC 792), ICMPv6 128 and 129 (RFC 4443).
    Echo,
    /// Timestamp: ICMP 13 and 14 (RFC 792).
    Timestamp,
    /// Information: ICMP 15 and 16 (RFC 792).
    Information,
    /// Address mask: ICMP 17 and 18 (RFC 950).
    AddressMask,
    /// Node information: ICMPv6 139 and 140 (RFC 4620).
    NodeInformation,
    /// Extended echo: ICMP 42 and 43, ICMPv6 160 and 161 (RFC 8335).
    ExtendedEcho,
}

impl IcmpKind {
    /// All kinds, in the order of their numbers in [`Variant::IcmpQuery`], the first of which is 1.
    ///
    /// [`Variant::IcmpQuery`]: crate::session::Variant::IcmpQuery
    pub(crate) const ALL: [Self; 6] = [
        Self::Echo,
        Self::Timestamp,
        Self::Information,
        Self::AddressMask,
        Self::NodeInformation,
        Self::ExtendedEcho,
    ];

    /// Returns the type of the request.
    pub(crate) const fn request_type(self, version: IpVersion) -> u8 {
        match (self, version) {
            (Self::Echo, IpVersion::V4) => 8,
            (Self::Echo, IpVersion::V6) => 128,
            (Self::Timestamp, _) => 13,
            (Self::Information, _) => 15,
            (Self::AddressMask, _) => 17,
            (Self::NodeInformation, _) => 139,
            (Self::ExtendedEcho, IpVersion::V4) => 42,
            (Self::ExtendedEcho, IpVersion::V6) => 160,
        }
    }
}

/// An ICMP or ICMPv6 request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpQuery {
    /// Kind of the query.
    pub kind: IcmpKind,
    /// Identifier, or the Qtype of node information, which has no identifier.
    pub id: u16,
    /// Whether this is the request; otherwise it is the reply.
    pub request: bool,
    /// ICMP type as on the wire.
    pub icmp_type: u8,
    /// ICMP code as on the wire.
    pub code: u8,
}

/// An ICMP error (types 3, 4, 5, 11 and 12) or ICMPv6 error (types 1 to 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// The order of the fields matters, here and in `Quoted`: with the version in front, whose one byte
// has unused values, `Transport` needs no tag of its own, and a `Parsed` fits 128 bytes.
#[repr(C)]
pub struct IcmpError {
    /// The packet that the error is about.
    pub quoted: Quoted,
    /// ICMP type as on the wire.
    pub icmp_type: u8,
    /// ICMP code as on the wire.
    pub code: u8,
    /// The MTU that the error announces, in bytes: from ICMP type 3 code 4 (RFC 1191 4) or ICMPv6
    /// type 2. The value is 0 if the error announces no MTU, as with other errors and with routers
    /// before RFC 1191.
    pub mtu: u32,
}

/// The start of a packet, as an ICMP error quotes it. The quote has the IP version of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Quoted {
    /// Quoted part of the transport header.
    pub transport: QuotedTransport,
    /// IP version.
    pub version: IpVersion,
    /// Protocol of the transport header after all extension headers, see [`Ip::protocol`].
    pub protocol: u8,
    /// Source address, in the form of [`Ip::src`].
    pub src: u128,
    /// Destination address, in the form of [`Ip::src`].
    pub dst: u128,
    /// Length in bytes of the whole quoted packet, by its own header: usually more than the quote
    /// contains. 0 if the header cannot be trusted: many routers and hosts alter the length that
    /// they quote.
    pub total_len: u32,
}

/// Quoted part of a transport header: its first 8 bytes, and those up to a GRE key if they are
/// quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotedTransport {
    /// TCP, UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// TCP's sequence number, or SCTP's verification tag; `None` for the others.
        seq: Option<u32>,
    },
    /// A request or reply of ICMP or ICMPv6.
    IcmpQuery {
        /// Kind of the query.
        kind: IcmpKind,
        /// Identifier, see [`IcmpQuery::id`].
        id: u16,
        /// Whether this is the request; otherwise it is the reply.
        request: bool,
    },
    /// GRE, with its key or call ID; `None` if the quote ends before the key.
    Gre(Option<GreKey>),
    /// An ICMP error: an error about an error is forbidden (RFC 1122, section 3.2.2).
    IcmpError,
    /// An ICMP or ICMPv6 message that is a conversation of its own, see [`Transport::IcmpOther`].
    IcmpOther {
        /// ICMP type.
        kind: u8,
    },
    /// A fragment other than the first: it has no transport header.
    Fragment,
    /// Another protocol, or discovery.
    Other,
}

/// Class of an ICMP message type.
enum Class {
    Query {
        kind: IcmpKind,
        request: bool,
    },
    Error,
    /// An ICMPv6 error of a type that is not assigned, or reserved, or for private experiments (RFC
    /// 4443 6.1).
    Unassigned,
    Discovery,
    Other,
}

impl Class {
    const fn of(version: IpVersion, icmp_type: u8) -> Self {
        let (kind, request) = match (version, icmp_type) {
            (IpVersion::V4, 3 | 4 | 5 | 11 | 12) | (IpVersion::V6, 1..=4) => return Self::Error,
            (IpVersion::V6, ..=127) => return Self::Unassigned,
            (IpVersion::V6, kind) if discovery::is_discovery(kind) => return Self::Discovery,
            (IpVersion::V4, 8) | (IpVersion::V6, 128) => (IcmpKind::Echo, true),
            (IpVersion::V4, 0) | (IpVersion::V6, 129) => (IcmpKind::Echo, false),
            (IpVersion::V4, 13) => (IcmpKind::Timestamp, true),
            (IpVersion::V4, 14) => (IcmpKind::Timestamp, false),
            (IpVersion::V4, 15) => (IcmpKind::Information, true),
            (IpVersion::V4, 16) => (IcmpKind::Information, false),
            (IpVersion::V4, 17) => (IcmpKind::AddressMask, true),
            (IpVersion::V4, 18) => (IcmpKind::AddressMask, false),
            (IpVersion::V6, 139) => (IcmpKind::NodeInformation, true),
            (IpVersion::V6, 140) => (IcmpKind::NodeInformation, false),
            (IpVersion::V4, 42) | (IpVersion::V6, 160) => (IcmpKind::ExtendedEcho, true),
            (IpVersion::V4, 43) | (IpVersion::V6, 161) => (IcmpKind::ExtendedEcho, false),
            _ => return Self::Other,
        };
        Self::Query { kind, request }
    }
}

/// Returns whether a message of this type may open a session, subject to the policy.
pub(crate) const fn may_open(version: IpVersion, icmp_type: u8) -> bool {
    match Class::of(version, icmp_type) {
        Class::Query { request, .. } => request,
        Class::Other => true,
        Class::Error | Class::Unassigned | Class::Discovery => false,
    }
}

/// Returns the MTU that an error announces, see [`IcmpError::mtu`]. `word` is the second word of
/// its header.
const fn announced_mtu(version: IpVersion, icmp_type: u8, code: u8, word: u32) -> u32 {
    match (version, icmp_type, code) {
        (IpVersion::V4, 3, 4) => word & 0xffff,
        (IpVersion::V6, 2, _) => word,
        _ => 0,
    }
}

/// Parses the payload of an IP packet as ICMP or ICMPv6, according to the IP version.
pub(super) fn parse(ip: Ip, payload: &[u8], checksums: Checksums) -> Result<Parsed, Malformed> {
    let &[icmp_type, code, _, _, a, b, c, d, ref rest @ ..] = payload else {
        return Err(Malformed::IcmpHeaderTruncated);
    };
    if checksums.are_verified() && !checksum::transport_is_valid(ip, payload) {
        return Err(Malformed::IcmpChecksum);
    }
    let transport = match Class::of(ip.version, icmp_type) {
        Class::Query { kind, request } => Transport::IcmpQuery(IcmpQuery {
            kind,
            id: u16::from_be_bytes([a, b]),
            request,
            icmp_type,
            code,
        }),
        Class::Error => Transport::IcmpError(IcmpError {
            quoted: match ip.version {
                IpVersion::V4 => quoted_ipv4(rest)?,
                IpVersion::V6 => quoted_ipv6(rest)?,
            },
            icmp_type,
            code,
            mtu: announced_mtu(
                ip.version,
                icmp_type,
                code,
                u32::from_be_bytes([a, b, c, d]),
            ),
        }),
        Class::Discovery => Transport::Discovery { kind: icmp_type },
        Class::Unassigned | Class::Other => Transport::IcmpOther {
            kind: icmp_type,
            code,
        },
    };
    Ok(Parsed { ip, transport })
}

/// Reads a quoted IPv4 packet. The total length and the checksum are not verified. Some routers and
/// hosts quote the length without the header, with swapped bytes, or as 0; and a checksum for
/// another TTL, or 0. The transport header is read from the whole quote. Bytes after a packet with
/// less than 8 bytes of payload, which are padding or an extension (RFC 4884), identify no session.
fn quoted_ipv4(bytes: &[u8]) -> Result<Quoted, Malformed> {
    match bytes {
        [] => return Err(Malformed::IcmpErrorQuoteTruncated),
        [0x45..=0x4f, ..] => {}
        _ => return Err(Malformed::IcmpErrorQuoteMalformed),
    }
    let Ok(header) = Ipv4HeaderSlice::from_slice(bytes) else {
        return Err(Malformed::IcmpErrorQuoteTruncated);
    };
    let header_len = header.slice().len();
    let protocol = header.protocol();
    let src = u32::from_be_bytes(header.source());
    if !ipv4::is_unicast(src) {
        return Err(Malformed::IcmpErrorQuoteMalformed);
    }
    let payload = bytes.get(header_len..).unwrap_or_default();
    let quoted = || quoted_transport(IpVersion::V4, protocol, payload);
    let transport = if header.fragments_offset().value() == 0 {
        quoted()?
    } else if matches!(bytes, [_, _, _, _, _, _, 0, 0x40, ..]) {
        // Either a last fragment, 512 bytes into its datagram, or the flag DF in host byte order,
        // from a kernel that quotes the packet as it converted it. The bytes of a fragment in place
        // of ports identify no session.
        quoted().unwrap_or(QuotedTransport::Fragment)
    } else {
        QuotedTransport::Fragment
    };
    let total_len = usize::from(header.total_len());
    let is_credible = total_len >= header_len && checksum::is_valid(header.slice());
    Ok(Quoted {
        transport,
        version: IpVersion::V4,
        protocol: protocol.0,
        src: ipv4::mapped(src),
        dst: ipv4::mapped(u32::from_be_bytes(header.destination())),
        total_len: if is_credible { total_len as u32 } else { 0 },
    })
}

/// Reads a quoted IPv6 packet like [`quoted_ipv4`], without verifying its length.
fn quoted_ipv6(bytes: &[u8]) -> Result<Quoted, Malformed> {
    match bytes {
        [] => return Err(Malformed::IcmpErrorQuoteTruncated),
        [0x60..=0x6f, ..] => {}
        _ => return Err(Malformed::IcmpErrorQuoteMalformed),
    }
    let Ok(header) = Ipv6HeaderSlice::from_slice(bytes) else {
        return Err(Malformed::IcmpErrorQuoteTruncated);
    };
    let src = u128::from_be_bytes(header.source());
    if !ipv6::is_unicast(src) {
        return Err(Malformed::IcmpErrorQuoteMalformed);
    }
    let payload = bytes.get(ipv6::HEADER_LEN..).unwrap_or_default();
    let chain = ipv6::walk(header.next_header(), payload).map_err(|reason| match reason {
        Malformed::Ipv6ExtensionTruncated => Malformed::IcmpErrorQuoteTruncated,
        _ => Malformed::IcmpErrorQuoteMalformed,
    })?;
    let transport = match chain.fragment {
        Some(fragment) if fragment.offset != 0 => QuotedTransport::Fragment,
        _ => {
            let rest = payload.get(chain.len..).unwrap_or_default();
            quoted_transport(IpVersion::V6, chain.protocol, rest)?
        }
    };
    Ok(Quoted {
        transport,
        version: IpVersion::V6,
        protocol: chain.protocol.0,
        src,
        dst: u128::from_be_bytes(header.destination()),
        total_len: match usize::from(header.payload_length()) {
            len if len < payload.len() => 0,
            len => (ipv6::HEADER_LEN + len) as u32,
        },
    })
}

fn quoted_transport(
    version: IpVersion,
    protocol: IpNumber,
    bytes: &[u8],
) -> Result<QuotedTransport, Malformed> {
    let (has_ports, has_number) = match (version, protocol) {
        (_, IpNumber::TCP | IpNumber::SCTP) => (true, true),
        (_, IpNumber::UDP | IpNumber::UDP_LITE | IpNumber::DCCP) => (true, false),
        (_, IpNumber::GRE) => return gre::quoted_key(bytes).map(QuotedTransport::Gre),
        (IpVersion::V4, IpNumber::ICMP) | (IpVersion::V6, IpNumber::IPV6_ICMP) => (false, false),
        (IpVersion::V4, IpNumber::IPV6_ICMP) | (IpVersion::V6, IpNumber::ICMP) => {
            return Err(Malformed::IcmpErrorQuoteMalformed);
        }
        _ => return Ok(QuotedTransport::Other),
    };
    let Some(&[a, b, c, d, e, f, g, h]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(Malformed::IcmpErrorQuoteTruncated);
    };
    if has_ports {
        return Ok(QuotedTransport::Ports {
            src: u16::from_be_bytes([a, b]),
            dst: u16::from_be_bytes([c, d]),
            seq: has_number.then_some(u32::from_be_bytes([e, f, g, h])),
        });
    }
    Ok(match Class::of(version, a) {
        Class::Query { kind, request } => QuotedTransport::IcmpQuery {
            kind,
            id: u16::from_be_bytes([e, f]),
            request,
        },
        Class::Error | Class::Unassigned => QuotedTransport::IcmpError,
        Class::Other => QuotedTransport::IcmpOther { kind: a },
        Class::Discovery => QuotedTransport::Other,
    })
}
