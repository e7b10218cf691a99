//! Link types, and the results of the search for an IP packet in a frame.

use std::fmt;

use thiserror::Error;

use crate::capture::order::ByteOrder;

/// Link type of a frame: the first header. The supported ones have their numbers in the registry of
/// <https://www.tcpdump.org/linktypes.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LinkType {
    /// 0: BSD loopback, an address family in the byte order of the machine that captured.
    Null,
    /// 1: Ethernet.
    Ethernet,
    /// 9, and 50, where the framing is always present: PPP with or without HDLC-like framing, or
    /// Cisco HDLC.
    Ppp,
    /// 51: PPPoE, without the Ethernet header.
    Pppoe,
    /// 101, and 12 and 14 on some systems: an IP header.
    Raw,
    /// 104, and 112 on NetBSD: Cisco HDLC.
    CiscoHdlc,
    /// 105: IEEE 802.11.
    Wireless,
    /// 108: OpenBSD loopback, an address family in network byte order.
    Loop,
    /// 113: Linux "cooked" capture, version 1.
    LinuxSll,
    /// 127: IEEE 802.11 after a radiotap header.
    Radiotap,
    /// 166 and 204: PPP with the direction of the frame.
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
    /// 281: Ethernet with a Broadcom switch's tag after the addresses.
    BroadcomTag,
    /// 282: Ethernet with a Broadcom switch's tag before the addresses.
    BroadcomPrefix,
    /// 284: Ethernet with a Marvell switch's tag (DSA) after the addresses.
    MarvellTag,
    /// 285: like [`MarvellTag`](Self::MarvellTag), with an EtherType before the tag (EDSA).
    MarvellTypedTag,
    /// Any other link type, whose frames are not parsed.
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
    /// Returns the link type in a file whose byte order is that of the capturing machine.
    pub(in crate::capture) const fn in_order(self, order: ByteOrder) -> Self {
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

/// IP packet of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpPayload<'a> {
    /// Bytes from the IP header to the end of the link layer's payload, or of the captured frame.
    /// May include padding of the link layer, may be empty, and is not checked.
    pub(crate) bytes: &'a [u8],
    /// ID of the outermost VLAN tag; 0 is a priority tag, which belongs to no VLAN.
    pub(crate) vlan: Option<u16>,
    /// The version that the link layer announces; `None` if it announces none (raw IP). The first
    /// nibble of `bytes` may contradict it: a host drops such a packet.
    pub(crate) version: Option<IpVersion>,
}

/// Reason for which a frame has no IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub(crate) enum NotIp {
    /// ARP or RARP.
    #[error("ARP")]
    Arp,
    /// MPLS with a protocol other than IP under its labels, such as a pseudowire.
    #[error("MPLS that carries no IP")]
    Mpls,
    /// PPPoE of the discovery stage.
    #[error("PPPoE discovery")]
    Pppoe,
    /// An IEEE 802.3 frame with a length in place of the EtherType, or an IEEE 802.11 frame, with
    /// LLC for another protocol.
    #[error("LLC without an EtherType")]
    Llc,
    /// Another protocol in PPP, by its number: link configuration, or compressed headers.
    #[error("PPP protocol {0:#06x}")]
    OtherPpp(u16),
    /// A frame without a packet: a management or control frame, or an empty log message.
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
    /// An unsupported link type, by its number.
    #[error("link type {0}")]
    UnsupportedLink(u32),
}

impl NotIp {
    /// Returns a name for counters and records, stable across versions.
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

/// Maximum number of VLAN tags of one frame that are skipped.
pub(crate) const MAX_TAGS: usize = 4;

/// Maximum number of MPLS labels of one frame that are skipped.
pub(crate) const MAX_LABELS: usize = 16;

impl IpVersion {
    /// Returns the IP version of an address family, by the numbers of operating systems.
    pub(super) const fn of_family(family: u32) -> Option<Self> {
        match family {
            2 => Some(Self::V4),
            // Linux; NetBSD and OpenBSD; FreeBSD; macOS.
            10 | 24 | 28 | 30 => Some(Self::V6),
            _ => None,
        }
    }
}
