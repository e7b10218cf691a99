//! Location of the IP packet in a frame.

mod ethernet;
mod fields;
mod host;
mod ppp;
mod serial;
mod types;
mod wireless;

use self::ethernet::{cooked_v2, from_ether_type, marvell};
use self::fields::split;
pub(crate) use self::types::{IpPayload, IpVersion, LinkType, NotIp};

/// Two MAC addresses.
const ETHERNET_ADDRESSES: usize = 12;
/// Packet type, device type, address length and address, before the protocol
/// (`LINKTYPE_LINUX_SLL`).
const SLL_ADDRESSES: usize = 14;
/// A switch's tag, without an EtherType.
const SWITCH_TAG: usize = 4;
/// An EtherType and two reserved bytes before a Marvell switch's tag.
const TAG_TYPE: usize = 4;

/// Finds the IP packet in a frame.
///
/// The link layer decides which frames carry IP, not the packet's first nibble. All bytes after an
/// IP EtherType are returned, so that the engine rejects malformed packets. VLAN tags (0x8100,
/// 0x88a8, 0x9100) are skipped, up to [`types::MAX_TAGS`], and so are PPPoE and MPLS, up to
/// [`types::MAX_LABELS`] labels; tunnels are not.
///
/// # Errors
/// [`NotIp`] names the kind of a frame without an IP packet.
pub(crate) fn ip_packet(link: LinkType, bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    match link {
        LinkType::Ethernet => from_ether_type(split(bytes, ETHERNET_ADDRESSES)?.1),
        LinkType::LinuxSll => from_ether_type(split(bytes, SLL_ADDRESSES)?.1),
        LinkType::LinuxSll2 => cooked_v2(bytes),
        LinkType::Ppp => serial::ppp(bytes),
        LinkType::PppWithDirection => serial::ppp_after_direction(bytes),
        LinkType::Pppoe => ppp::pppoe(bytes),
        LinkType::CiscoHdlc => serial::cisco_hdlc(bytes),
        LinkType::Mpls => ppp::mpls(bytes),
        LinkType::Wireless => wireless::data_frame(bytes, false),
        LinkType::Radiotap => wireless::radiotap(bytes),
        LinkType::Nflog(order) => host::nflog(bytes, order),
        LinkType::Ipnet => host::ipnet(bytes),
        LinkType::BroadcomTag => from_ether_type(split(bytes, ETHERNET_ADDRESSES + SWITCH_TAG)?.1),
        LinkType::BroadcomPrefix => {
            from_ether_type(split(bytes, SWITCH_TAG + ETHERNET_ADDRESSES)?.1)
        }
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

/// `LINKTYPE_NULL` and `LINKTYPE_LOOP`: a 32-bit address family, whose small value reveals its byte
/// order.
fn loopback(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (family, rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    let family = u32::from_le_bytes(*family);
    let family = family.min(family.swap_bytes());
    let version = IpVersion::of_family(family).ok_or(NotIp::OtherFamily(family))?;
    Ok(IpPayload {
        bytes: rest,
        vlan: None,
        version: Some(version),
    })
}
