//! Parser: from bytes to headers, once for each packet.
//!
//! [`parse`] takes exactly one IP packet and returns the input of the rest of the engine: a
//! [`Parsed`], which borrows nothing, is `Copy` and fits two cache lines. A packet that cannot be
//! parsed is [`Malformed`], with the reason. The parser does not allocate.
//!
//! This is the only module that uses the crate `etherparse`. Where that crate is laxer than a
//! firewall may be (lengths of 0, ICMP of the other IP version, TCP options after an unknown one,
//! unbounded chains of extension headers), this module has its own parser.

mod checksum;
mod dccp;
mod discovery;
mod first;
mod flags;
mod gre;
mod icmp;
mod ipsec;
mod ipv4;
mod ipv6;
mod malformed;
mod options;
pub(crate) mod plain;
pub(crate) mod sctp;
pub(crate) mod sctp_address;
mod seq;
mod tcp;
mod udp;
mod udp_lite;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::IpNumber;

pub use dccp::{DccpPacket, DccpType};
pub(crate) use discovery::REDIRECT as ICMPV6_REDIRECT;
pub use discovery::{DiscoveryFault, validate_discovery};
pub use first::parse_first_fragment;
pub use flags::TcpFlags;
pub use gre::GreKey;
pub(crate) use icmp::may_open;
pub use icmp::{IcmpError, IcmpKind, IcmpQuery, Quoted, QuotedTransport};
pub use malformed::Malformed;
pub use options::IpOptions;
pub use sctp::{SctpChunks, SctpPacket};
pub use seq::SeqNum;
pub use tcp::{SackBlocks, Segment, TcpOptions};

/// The IP protocol number of ICMP for IPv4.
pub const PROTOCOL_ICMP: u8 = IpNumber::ICMP.0;
/// The IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = IpNumber::TCP.0;
/// The IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = IpNumber::UDP.0;
/// The IP protocol number of ICMP for IPv6.
pub const PROTOCOL_ICMPV6: u8 = IpNumber::IPV6_ICMP.0;

/// The IP protocol number of DCCP.
pub const PROTOCOL_DCCP: u8 = IpNumber::DCCP.0;
/// The IP protocol number of GRE.
pub const PROTOCOL_GRE: u8 = IpNumber::GRE.0;
/// The IP protocol number of ESP.
pub const PROTOCOL_ESP: u8 = IpNumber::ENCAPSULATING_SECURITY_PAYLOAD.0;
/// The IP protocol number of the authentication header.
pub const PROTOCOL_AH: u8 = IpNumber::AUTHENTICATION_HEADER.0;
/// The IP protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = IpNumber::SCTP.0;
/// The IP protocol number of UDP-Lite.
pub const PROTOCOL_UDP_LITE: u8 = IpNumber::UDP_LITE.0;

/// A packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Fields of the IP header, extension headers included.
    pub ip: Ip,
    /// Fields of the transport header.
    pub transport: Transport,
}

impl Parsed {
    /// Returns the payload of the TCP segment, UDP or UDP-Lite datagram in `bytes`, the parsed
    /// packet; empty for all other packets. Neither padding nor bytes after the UDP length are
    /// payload. For a first fragment ([`parse_first_fragment`]) the payload is the part that the
    /// fragment has.
    #[inline]
    #[must_use]
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let range = match self.transport {
            Transport::Tcp { segment, .. } => {
                let end = self.ip.total_len as usize;
                end.saturating_sub(segment.payload_len as usize)..end
            }
            Transport::Udp { payload_len, .. } => {
                let start = usize::from(self.ip.header_len) + usize::from(udp::HEADER_LEN);
                let end = start + usize::from(payload_len);
                start..end.min(self.ip.total_len as usize)
            }
            _ => return &[],
        };
        bytes.get(range).unwrap_or_default()
    }

    /// Returns the IP payload: the transport header and the data after it.
    pub(crate) fn ip_payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let range = usize::from(self.ip.header_len)..self.ip.total_len as usize;
        bytes.get(range).unwrap_or_default()
    }
}

/// The version of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Returns the address that `number` represents in a packet of this version; see [`Ip::src`].
    #[inline]
    #[must_use]
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

/// Fields of the IP header and of the IPv6 extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// IP version, which also distinguishes an IPv4 address from an IPv4-mapped IPv6 address.
    pub version: IpVersion,
    /// Source address as a big-endian number; an IPv4 address as the IPv4-mapped one, `0xffff << 32
    /// | address`.
    pub src: u128,
    /// Destination address, in the form of [`src`](Self::src).
    pub dst: u128,
    /// Protocol of the transport header after all extension headers. For an IPv6 fragment other
    /// than the first, the protocol that its fragment header states, which may be an extension
    /// header.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 options, and IPv6 extension headers with options or a route.
    pub options: IpOptions,
    /// Bytes before the transport header, including IPv4 options and IPv6 extension headers.
    pub header_len: u16,
    /// Bytes of the packet on the wire without padding: the IPv4 total length, or the IPv6 payload
    /// length plus 40.
    pub total_len: u32,
}

impl Ip {
    /// Returns the source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.version.address(self.src)
    }

    /// Returns the destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.version.address(self.dst)
    }

    /// Returns whether the packet is an ordinary one between two hosts: its addresses differ and
    /// are in ranges without special ones, and it has a time to live.
    #[inline]
    pub(crate) const fn is_ordinary(&self) -> bool {
        let are_ordinary = match self.version {
            IpVersion::V4 => {
                ipv4::is_ordinary(self.src as u32) && ipv4::is_ordinary(self.dst as u32)
            }
            IpVersion::V6 => ipv6::is_ordinary(self.src) && ipv6::is_ordinary(self.dst),
        };
        are_ordinary && self.src != self.dst && self.ttl != 0
    }
}

/// Fields of the transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment with a valid combination of flags.
    Tcp {
        /// Source port; 0 is possible.
        src_port: u16,
        /// Destination port; 0 is possible.
        dst_port: u16,
        /// The rest of the header.
        segment: Segment,
    },
    /// A UDP or UDP-Lite datagram, distinguished by [`Ip::protocol`].
    Udp {
        /// Source port; 0 is possible.
        src_port: u16,
        /// Destination port; 0 is possible.
        dst_port: u16,
        /// Bytes of payload by the UDP length, which may be less than the rest of the IP packet. In
        /// a first fragment, the length of the whole datagram's payload. UDP-Lite has no length:
        /// all the remaining bytes are its payload.
        payload_len: u16,
    },
    /// An SCTP packet with a possible combination of chunks.
    Sctp {
        /// Source port; 0 is possible.
        src_port: u16,
        /// Destination port; 0 is possible.
        dst_port: u16,
        /// The rest of the header, and the kinds of chunks.
        packet: SctpPacket,
    },
    /// A DCCP packet.
    Dccp {
        /// Source port; 0 is possible.
        src_port: u16,
        /// Destination port; 0 is possible.
        dst_port: u16,
        /// The rest of the header.
        packet: DccpPacket,
    },
    /// A GRE packet of version 0 or 1.
    Gre {
        /// Key or call ID.
        key: GreKey,
        /// Protocol type of the inner packet, an Ethertype.
        protocol: u16,
    },
    /// An ESP packet.
    Esp {
        /// Security parameters index, chosen by the receiver; never 0.
        spi: u32,
    },
    /// A packet with an authentication header.
    Ah {
        /// Security parameters index, chosen by the receiver; never 0.
        spi: u32,
    },
    /// An ICMP or ICMPv6 request or reply.
    IcmpQuery(IcmpQuery),
    /// An ICMP or ICMPv6 error with the packet that it quotes.
    IcmpError(IcmpError),
    /// IPv6 neighbor discovery (ICMPv6 133 to 137) or multicast listener discovery (130, 131, 132
    /// and 143). Such a message belongs to a link and to no session; [`validate_discovery`] checks
    /// its contents.
    Discovery {
        /// ICMPv6 type.
        kind: u8,
    },
    /// An ICMP or ICMPv6 message that is none of the above, such as a router advertisement over
    /// IPv4. An ICMPv6 type below 128 is an unassigned error.
    IcmpOther {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// A fragment that is not the whole packet. For the transport header of a first fragment, see
    /// [`parse_first_fragment`].
    Fragment(Fragment),
    /// Another protocol: see [`Ip::protocol`]. Also IPv6's "no next header" (59): such a packet
    /// belongs to a conversation of that protocol number, and needs a rule like any other.
    Other,
}

/// Position of a fragment in its packet. A fragment with offset 0 that is also the last is a whole
/// packet (RFC 6946).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Identification: 16 bits of IPv4, 32 bits of IPv6.
    pub id: u32,
    /// Position of the fragment in the datagram, in bytes: a multiple of 8.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Bytes that the fragment carries: never 0, and a multiple of 8 if more fragments follow. In a
    /// first fragment of IPv6, extension headers after the fragment header are included.
    pub payload_len: u16,
    /// Position of the transport header in the packet if `offset` is 0, and of the fragment's
    /// payload otherwise. At most [`Ip::total_len`], which may cut the transport header short.
    pub transport_offset: u16,
}

impl Fragment {
    /// Checks a fragment of `payload_len` bytes, of a packet that may have at most `max_len` bytes.
    fn new(
        id: u32,
        offset: u16,
        more: bool,
        payload_len: usize,
        max_len: u32,
        transport_offset: usize,
    ) -> Result<Self, Malformed> {
        if payload_len == 0 {
            return Err(Malformed::FragmentEmpty);
        }
        if more && !payload_len.is_multiple_of(8) {
            return Err(Malformed::FragmentLengthNotMultipleOf8);
        }
        if u32::from(offset) + payload_len as u32 > max_len {
            return Err(Malformed::FragmentBeyond65535);
        }
        Ok(Self {
            id,
            offset,
            more,
            payload_len: payload_len as u16,
            transport_offset: transport_offset as u16,
        })
    }

    /// Returns the maximum size of a datagram that begins with this fragment: the length field of
    /// the datagram counts its bytes, and the headers that the first fragment has before them. An
    /// IPv4 header counts with its options. For IPv6, only extension headers before the fragment
    /// header count (RFC 8200, section 4.5). Later fragments may have other headers, which are not
    /// part of the datagram.
    pub(crate) const fn max_end(&self, ip: &Ip) -> u16 {
        let headers = ip.total_len.saturating_sub(self.payload_len as u32);
        let uncounted = match ip.version {
            IpVersion::V4 => 0,
            IpVersion::V6 => (ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN) as u32,
        };
        // At most the 65,535 bytes of a packet that was parsed.
        u16::MAX.saturating_sub(headers.saturating_sub(uncounted) as u16)
    }

    /// Returns the result of parsing a fragment. A later TCP fragment cannot lie within the header
    /// of 20 bytes that the first fragment must contain whole: such a fragment is an attempt to
    /// overwrite the first fragment's header.
    #[inline(never)]
    fn parsed(self, ip: Ip) -> Result<Parsed, Malformed> {
        if ip.protocol == PROTOCOL_TCP
            && (1..tcp::MIN_HEADER_LEN).contains(&usize::from(self.offset))
        {
            return Err(Malformed::FragmentInsideTcpHeader);
        }
        Ok(Parsed {
            ip,
            transport: Transport::Fragment(self),
        })
    }
}

/// Verification of checksums. In the configuration: `verify`, `require` or `trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Checksums {
    /// The checksums of the IPv4 header and of TCP, UDP, UDP-Lite, ICMP, SCTP, DCCP and GRE (if it
    /// has one) must be correct. A UDP checksum of 0 passes: it means that there is no checksum
    /// over IPv4 (RFC 768), and for tunnels over IPv6 (RFC 6935, RFC 6936).
    ///
    /// Two kinds of packets cannot be verified and pass: fragments, and packets with an IPv6
    /// routing header that has segments left. The checksum of the latter is computed with the final
    /// destination address.
    #[default]
    Verify,
    /// Like `Verify`, but UDP over IPv6 must have a checksum (RFC 8200, section 8.1).
    Require,
    /// No checksum is verified: the network interface or hypervisor has done so, or the ends will.
    Trust,
}

impl Checksums {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Require => "require",
            Self::Trust => "trust",
        }
    }

    /// Returns whether checksums are verified.
    #[inline]
    #[must_use]
    pub const fn are_verified(self) -> bool {
        !matches!(self, Self::Trust)
    }
}

/// Part of a datagram that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The whole datagram.
    Whole(Checksums),
    /// The first fragment. Announced bytes and data under a checksum may be in later fragments.
    First,
}

impl Extent {
    const fn is_first(self) -> bool {
        matches!(self, Self::First)
    }

    /// Returns whether the checksum is verified.
    const fn is_verified(self) -> bool {
        matches!(self, Self::Whole(checksums) if checksums.are_verified())
    }
}

/// IP header and payload.
struct Network<'a> {
    ip: Ip,
    /// Bytes from the transport header to the end of the IP packet.
    payload: &'a [u8],
    fragment: Option<Fragment>,
    /// Whether the destination address will be replaced on the path; see [`Checksums::Verify`].
    rerouted: bool,
}

/// Parses `bytes`, exactly one IP packet from its first byte; bytes after the length that its
/// header states are padding and ignored.
///
/// # Errors
///
/// Returns the reason for which the packet is [`Malformed`].
pub fn parse(bytes: &[u8], checksums: Checksums) -> Result<Parsed, Malformed> {
    let Some(first) = bytes.first() else {
        return Err(Malformed::Empty);
    };
    // Each version has its own path to the end, so that values stay in registers.
    match first >> 4 {
        4 => {
            let network = ipv4::parse(bytes, checksums)?;
            if network.ip.protocol == IpNumber::IPV6_ICMP.0 {
                return Err(Malformed::IcmpVersionMismatch);
            }
            network.transport(IpNumber::ICMP, checksums)
        }
        6 => {
            let network = ipv6::parse(bytes)?;
            if network.ip.protocol == IpNumber::ICMP.0 {
                return Err(Malformed::IcmpVersionMismatch);
            }
            network.transport(IpNumber::IPV6_ICMP, checksums)
        }
        _ => Err(Malformed::IpVersionUnknown),
    }
}

impl Network<'_> {
    /// Parses the transport header; `icmp` is the ICMP of this IP version.
    #[inline(always)]
    fn transport(self, icmp: IpNumber, checksums: Checksums) -> Result<Parsed, Malformed> {
        let Self { ip, payload, .. } = self;
        if let Some(fragment) = self.fragment {
            return fragment.parsed(ip);
        }
        let checksums = if self.rerouted {
            Checksums::Trust
        } else {
            checksums
        };
        // Each arm ends with the whole result, so the result is built in place and not copied.
        match IpNumber(ip.protocol) {
            IpNumber::TCP => tcp::parse(ip, payload, checksums),
            IpNumber::UDP => udp::parse(ip, payload, checksums),
            protocol if protocol == icmp => icmp::parse(ip, payload, checksums),
            _ => other(ip, payload, Extent::Whole(checksums)),
        }
    }
}

/// Parses protocols other than TCP, UDP and ICMP.
fn other(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    match IpNumber(ip.protocol) {
        IpNumber::SCTP => sctp::parse(ip, payload, extent),
        IpNumber::DCCP => dccp::parse(ip, payload, extent),
        IpNumber::UDP_LITE => udp_lite::parse(ip, payload, extent),
        IpNumber::GRE => gre::parse(ip, payload, extent),
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => ipsec::parse_esp(ip, payload),
        IpNumber::AUTHENTICATION_HEADER => ipsec::parse_ah(ip, payload, extent),
        _ => Ok(Parsed {
            ip,
            transport: Transport::Other,
        }),
    }
}
