//! From the frame to the IP packet in it.

use std::fmt;

use thiserror::Error;

/// What a frame begins with: the link types that are understood, by their numbers in the registry of
/// <https://www.tcpdump.org/linktypes.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LinkType {
    /// 0: BSD loopback, an address family in the byte order of the machine that captured.
    Null,
    /// 1: Ethernet.
    Ethernet,
    /// 101, and 12 and 14 as some systems number it: an IP header.
    Raw,
    /// 108: OpenBSD loopback, an address family in network byte order.
    Loop,
    /// 113: Linux "cooked" capture, version 1.
    LinuxSll,
    /// 228: an IPv4 header.
    Ipv4,
    /// 229: an IPv6 header.
    Ipv6,
    /// 276: Linux "cooked" capture, version 2.
    LinuxSll2,
    /// Any other link type, whose frames are not looked into.
    Other(u32),
}

impl From<u32> for LinkType {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            12 | 14 | 101 => Self::Raw,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::LinuxSll2,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Ethernet => "ethernet",
            Self::Raw => "raw-ip",
            Self::Loop => "loop",
            Self::LinuxSll => "linux-sll",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::LinuxSll2 => "linux-sll2",
            Self::Other(number) => return write!(f, "link-type-{number}"),
        })
    }
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a frame carries as IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpPayload<'a> {
    /// From the IP header to the end of the captured frame, padding of the link layer included. May be empty, and is
    /// not checked.
    pub(crate) bytes: &'a [u8],
    /// The outermost VLAN tag's id; 0 is a priority tag, which names no VLAN.
    pub(crate) vlan: Option<u16>,
    /// The version that the link layer announces; `None` where it announces none (raw IP). The first nibble of `bytes`
    /// may say otherwise: a host drops such a packet.
    pub(crate) version: Option<IpVersion>,
}

/// Why a frame has no IP packet to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub(crate) enum NotIp {
    /// ARP or RARP.
    #[error("ARP")]
    Arp,
    /// MPLS, whatever is under its labels.
    #[error("MPLS")]
    Mpls,
    /// PPPoE, discovery or session.
    #[error("PPPoE")]
    Pppoe,
    /// An IEEE 802.3 frame: a length where the EtherType stands, then LLC.
    #[error("IEEE 802.3 with a length, no EtherType")]
    Llc,
    /// Another EtherType.
    #[error("EtherType {0:#06x}")]
    OtherEtherType(u16),
    /// A loopback frame of another address family.
    #[error("address family {0}")]
    OtherFamily(u32),
    /// More than [`MAX_TAGS`] VLAN tags.
    #[error("more than {MAX_TAGS} VLAN tags")]
    TooManyTags,
    /// The captured bytes end within the link layer's header.
    #[error("ends within the link header")]
    TooShort,
    /// A link type that is not understood, by its number.
    #[error("link type {0}")]
    UnsupportedLink(u32),
}

impl NotIp {
    /// A name for counters and records, the same in every version.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::Llc => "llc",
            Self::OtherEtherType(_) => "other-ethertype",
            Self::OtherFamily(_) => "other-family",
            Self::TooManyTags => "too-many-tags",
            Self::TooShort => "too-short",
            Self::UnsupportedLink(_) => "unsupported-link",
        }
    }
}

/// The most VLAN tags of one frame that are looked behind.
pub(crate) const MAX_TAGS: usize = 4;

/// Two MAC addresses.
const ETHERNET_ADDRESSES: usize = 12;
/// Packet type, device type, address length and address, before the protocol (`LINKTYPE_LINUX_SLL`).
const SLL_ADDRESSES: usize = 14;
/// What follows the protocol in version 2 (`LINKTYPE_LINUX_SLL2`), which begins with it.
const SLL2_REST: usize = 18;

/// EtherTypes below are lengths (IEEE 802.3, clause 3.2.6).
const FIRST_ETHER_TYPE: u16 = 0x0600;

/// Finds the IP packet in a frame.
///
/// The link layer decides what is IP, not the packet's first nibble, and any bytes behind an IP EtherType are handed
/// out, so that the engine is what calls them malformed. VLAN tags (0x8100, 0x88a8, 0x9100) are looked behind, up to
/// [`MAX_TAGS`]; tunnels are not.
///
/// # Errors
/// [`NotIp`] says what the frame is instead.
pub(crate) fn ip_packet(link: LinkType, bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    match link {
        LinkType::Ethernet => behind_tags(split(bytes, ETHERNET_ADDRESSES)?.1),
        LinkType::LinuxSll => behind_tags(split(bytes, SLL_ADDRESSES)?.1),
        LinkType::LinuxSll2 => cooked_v2(bytes),
        LinkType::Null | LinkType::Loop => loopback(bytes),
        LinkType::Raw => Ok(IpPayload {
            bytes,
            vlan: None,
            version: None,
        }),
        LinkType::Ipv4 => Ok(IpPayload {
            bytes,
            vlan: None,
            version: Some(IpVersion::V4),
        }),
        LinkType::Ipv6 => Ok(IpPayload {
            bytes,
            vlan: None,
            version: Some(IpVersion::V6),
        }),
        LinkType::Other(number) => Err(NotIp::UnsupportedLink(number)),
    }
}

/// `bytes` begin with an EtherType.
fn behind_tags(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (ether_type, rest) = take_u16(bytes)?;
    walk_tags(ether_type, rest)
}

/// `LINKTYPE_LINUX_SLL2`: the protocol comes first, the rest of the header behind it.
fn cooked_v2(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (ether_type, rest) = take_u16(bytes)?;
    walk_tags(ether_type, split(rest, SLL2_REST)?.1)
}

/// `rest` is what the EtherType speaks of.
fn walk_tags(mut ether_type: u16, mut rest: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let mut vlan = None;
    let mut tags = 0;
    while matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) {
        tags += 1;
        if tags > MAX_TAGS {
            return Err(NotIp::TooManyTags);
        }
        let (control, behind) = take_u16(rest)?;
        (ether_type, rest) = take_u16(behind)?;
        vlan = vlan.or(Some(control & 0x0fff));
    }
    let version = match ether_type {
        0x0800 => IpVersion::V4,
        0x86dd => IpVersion::V6,
        0x0806 | 0x8035 => return Err(NotIp::Arp),
        0x8847 | 0x8848 => return Err(NotIp::Mpls),
        0x8863 | 0x8864 => return Err(NotIp::Pppoe),
        length if length < FIRST_ETHER_TYPE => return Err(NotIp::Llc),
        other => return Err(NotIp::OtherEtherType(other)),
    };
    Ok(IpPayload {
        bytes: rest,
        vlan,
        version: Some(version),
    })
}

/// `LINKTYPE_NULL` and `LINKTYPE_LOOP`: a 32-bit address family, which is small, so that its byte order shows.
fn loopback(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (family, rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    let family = u32::from_le_bytes(*family);
    let family = family.min(family.swap_bytes());
    let version = match family {
        2 => IpVersion::V4,
        // Linux; NetBSD and OpenBSD; FreeBSD; macOS.
        10 | 24 | 28 | 30 => IpVersion::V6,
        other => return Err(NotIp::OtherFamily(other)),
    };
    Ok(IpPayload {
        bytes: rest,
        vlan: None,
        version: Some(version),
    })
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), NotIp> {
    let (field, rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    Ok((u16::from_be_bytes(*field), rest))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), NotIp> {
    bytes.split_at_checked(at).ok_or(NotIp::TooShort)
}
