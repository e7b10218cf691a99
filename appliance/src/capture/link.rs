//! From the frame to the IP packet in it.

mod host;
mod ppp;
mod wireless;

use std::fmt;

use thiserror::Error;

use super::order::ByteOrder;
pub(crate) use ppp::MAX_LABELS;

/// What a frame begins with: the link types that are understood, by their numbers in the registry of
/// <https://www.tcpdump.org/linktypes.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LinkType {
    /// 0: BSD loopback, an address family in the byte order of the machine that captured.
    Null,
    /// 1: Ethernet.
    Ethernet,
    /// 9, and 50 where the framing is always there: PPP with or without HDLC-like framing, or Cisco
    /// HDLC.
    Ppp,
    /// 51: PPPoE, without the Ethernet header.
    Pppoe,
    /// 101, and 12 and 14 as some systems number it: an IP header.
    Raw,
    /// 104, and 112 as NetBSD numbers it: Cisco HDLC.
    CiscoHdlc,
    /// 105: IEEE 802.11.
    Wireless,
    /// 108: OpenBSD loopback, an address family in network byte order.
    Loop,
    /// 113: Linux "cooked" capture, version 1.
    LinuxSll,
    /// 127: IEEE 802.11 after a radiotap header.
    Radiotap,
    /// 166 and 204: PPP with the direction in which the frame went.
    PppWithDirection,
    /// 219: MPLS.
    Mpls,
    /// 226: Solaris' IP observability.
    Ipnet,
    /// 228: an IPv4 header.
    Ipv4,
    /// 229: an IPv6 header.
    Ipv6,
    /// 239: netfilter's log, with numbers in the byte order of the machine that captured.
    Nflog(ByteOrder),
    /// 276: Linux "cooked" capture, version 2.
    LinuxSll2,
    /// 281: Ethernet with a Broadcom switch's tag behind the addresses.
    BroadcomTag,
    /// 282: Ethernet with a Broadcom switch's tag before the addresses.
    BroadcomPrefix,
    /// 284: Ethernet with a Marvell switch's tag (DSA) behind the addresses.
    MarvellTag,
    /// 285: as [`MarvellTag`](Self::MarvellTag), with an EtherType before the tag (EDSA).
    MarvellTypedTag,
    /// Any other link type, whose frames are not looked into.
    Other(u32),
}

impl From<u32> for LinkType {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 | 50 => Self::Ppp,
            51 => Self::Pppoe,
            12 | 14 | 101 => Self::Raw,
            104 | 112 => Self::CiscoHdlc,
            105 => Self::Wireless,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            127 => Self::Radiotap,
            166 | 204 => Self::PppWithDirection,
            219 => Self::Mpls,
            226 => Self::Ipnet,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            239 => Self::Nflog(ByteOrder::Little),
            276 => Self::LinuxSll2,
            281 => Self::BroadcomTag,
            282 => Self::BroadcomPrefix,
            284 => Self::MarvellTag,
            285 => Self::MarvellTypedTag,
            other => Self::Other(other),
        }
    }
}

impl LinkType {
    /// Returns the link type in a file of a byte order: that of the machine that captured.
    pub(super) const fn in_order(self, order: ByteOrder) -> Self {
        match self {
            Self::Nflog(_) => Self::Nflog(order),
            other => other,
        }
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Ethernet => "ethernet",
            Self::Ppp => "ppp",
            Self::Pppoe => "pppoe",
            Self::Raw => "raw-ip",
            Self::CiscoHdlc => "c-hdlc",
            Self::Wireless => "802.11",
            Self::Loop => "loop",
            Self::LinuxSll => "linux-sll",
            Self::Radiotap => "802.11-radiotap",
            Self::PppWithDirection => "ppp-with-direction",
            Self::Mpls => "mpls",
            Self::Ipnet => "ipnet",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Nflog(_) => "nflog",
            Self::LinuxSll2 => "linux-sll2",
            Self::BroadcomTag => "brcm-tag",
            Self::BroadcomPrefix => "brcm-tag-prepend",
            Self::MarvellTag => "dsa",
            Self::MarvellTypedTag => "edsa",
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
    /// From the IP header to the end of what the link layer calls its payload, or of the captured
    /// frame: padding of the link layer may be included. May be empty, and is not checked.
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
    /// MPLS with something else than IP under its labels, such as a pseudowire.
    #[error("MPLS that carries no IP")]
    Mpls,
    /// PPPoE of the discovery stage.
    #[error("PPPoE discovery")]
    Pppoe,
    /// An IEEE 802.3 frame with a length where the EtherType stands, or an IEEE 802.11 frame, with
    /// LLC for another protocol.
    #[error("LLC without an EtherType")]
    Llc,
    /// Another protocol in PPP, by its number: those that configure the link, or compressed
    /// headers.
    #[error("PPP protocol {0:#06x}")]
    OtherPpp(u16),
    /// A frame without a packet: of management or control, or one of an empty log message.
    #[error("a frame that carries no data")]
    NoData,
    /// An encrypted IEEE 802.11 frame.
    #[error("encrypted")]
    Encrypted,
    /// An IEEE 802.11 frame that holds several packets (A-MSDU).
    #[error("several packets in one frame")]
    Aggregate,
    /// A fragment of an IEEE 802.11 frame.
    #[error("a fragment of a frame")]
    LinkFragment,
    /// A frame that failed its check sequence: no host accepted it.
    #[error("failed its frame check sequence")]
    BadFrame,
    /// Another EtherType.
    #[error("EtherType {0:#06x}")]
    OtherEtherType(u16),
    /// A loopback frame of another address family.
    #[error("address family {0}")]
    OtherFamily(u32),
    /// More than [`MAX_TAGS`] VLAN tags.
    #[error("more than {MAX_TAGS} VLAN tags")]
    TooManyTags,
    /// More than [`MAX_LABELS`] MPLS labels.
    #[error("more than {MAX_LABELS} MPLS labels")]
    TooManyLabels,
    /// The link layer's header contradicts itself.
    #[error("a link header that contradicts itself")]
    BadLinkHeader,
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
            Self::OtherPpp(_) => "other-ppp",
            Self::NoData => "no-data",
            Self::Encrypted => "encrypted",
            Self::Aggregate => "aggregate",
            Self::LinkFragment => "link-fragment",
            Self::BadFrame => "bad-frame",
            Self::TooManyLabels => "too-many-labels",
            Self::BadLinkHeader => "bad-link-header",
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

/// A switch's tag, without an EtherType.
const SWITCH_TAG: usize = 4;
/// An EtherType and two reserved bytes before a Marvell switch's tag.
const TAG_TYPE: usize = 4;

/// EtherTypes below are lengths (IEEE 802.3, clause 3.2.6).
const FIRST_ETHER_TYPE: u16 = 0x0600;

/// Finds the IP packet in a frame.
///
/// The link layer decides what is IP, not the packet's first nibble, and any bytes behind an IP EtherType are handed
/// out, so that the engine is what calls them malformed. VLAN tags (0x8100, 0x88a8, 0x9100) are looked behind, up to
/// [`MAX_TAGS`], and so are PPPoE and MPLS, up to [`MAX_LABELS`] labels; tunnels are not.
///
/// # Errors
/// [`NotIp`] says what the frame is instead.
pub(crate) fn ip_packet(link: LinkType, bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    match link {
        LinkType::Ethernet => behind_tags(split(bytes, ETHERNET_ADDRESSES)?.1),
        LinkType::LinuxSll => behind_tags(split(bytes, SLL_ADDRESSES)?.1),
        LinkType::LinuxSll2 => cooked_v2(bytes),
        LinkType::Ppp => ppp::ppp(bytes),
        LinkType::PppWithDirection => ppp::ppp_after_direction(bytes),
        LinkType::Pppoe => ppp::pppoe(bytes),
        LinkType::CiscoHdlc => ppp::cisco_hdlc(bytes),
        LinkType::Mpls => ppp::mpls(bytes),
        LinkType::Wireless => wireless::data_frame(bytes, false),
        LinkType::Radiotap => wireless::radiotap(bytes),
        LinkType::Nflog(order) => host::nflog(bytes, order),
        LinkType::Ipnet => host::ipnet(bytes),
        LinkType::BroadcomTag => behind_tags(split(bytes, ETHERNET_ADDRESSES + SWITCH_TAG)?.1),
        LinkType::BroadcomPrefix => behind_tags(split(bytes, SWITCH_TAG + ETHERNET_ADDRESSES)?.1),
        LinkType::MarvellTag => marvell(split(bytes, ETHERNET_ADDRESSES)?.1),
        LinkType::MarvellTypedTag => marvell(split(bytes, ETHERNET_ADDRESSES + TAG_TYPE)?.1),
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

/// `bytes` begin with a Marvell switch's tag, which takes the place of a frame's outermost VLAN
/// tag.
fn marvell(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (&[mode, _, high, low], rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    let is_tagged = mode & 0x20 != 0;
    let vlan = is_tagged.then(|| u16::from_be_bytes([high & 0x0f, low]));
    let inside = behind_tags(rest)?;
    Ok(IpPayload {
        vlan: vlan.or(inside.vlan),
        ..inside
    })
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
        0x8847 | 0x8848 => return ppp::mpls(rest).map(|inside| IpPayload { vlan, ..inside }),
        0x8863 => return Err(NotIp::Pppoe),
        0x8864 => return ppp::pppoe(rest).map(|inside| IpPayload { vlan, ..inside }),
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
    let version = family_version(family).ok_or(NotIp::OtherFamily(family))?;
    Ok(IpPayload {
        bytes: rest,
        vlan: None,
        version: Some(version),
    })
}

/// Returns the IP version of an address family, as systems number it.
fn family_version(family: u32) -> Option<IpVersion> {
    match family {
        2 => Some(IpVersion::V4),
        // Linux; NetBSD and OpenBSD; FreeBSD; macOS.
        10 | 24 | 28 | 30 => Some(IpVersion::V6),
        _ => None,
    }
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), NotIp> {
    let (field, rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    Ok((u16::from_be_bytes(*field), rest))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), NotIp> {
    bytes.split_at_checked(at).ok_or(NotIp::TooShort)
}
