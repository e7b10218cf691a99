//! EtherTypes and the tags before them.

use super::fields::{split, take_u16};
use super::ppp;
use super::types::{IpPayload, IpVersion, MAX_TAGS, NotIp};

/// Bytes after the protocol field of a `LINKTYPE_LINUX_SLL2` header.
const SLL2_REST: usize = 18;

/// Smaller EtherTypes are lengths (IEEE 802.3, clause 3.2.6).
const FIRST_ETHER_TYPE: u16 = 0x0600;

/// Finds the packet in bytes that begin with an EtherType.
pub(super) fn from_ether_type(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (ether_type, rest) = take_u16(bytes)?;
    after_ether_type(ether_type, rest)
}

/// Finds the packet after a Marvell switch's tag, which replaces a frame's outermost VLAN tag.
pub(super) fn marvell(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (&[mode, _, high, low], rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    let is_tagged = mode & 0x20 != 0;
    let vlan = is_tagged.then(|| u16::from_be_bytes([high & 0x0f, low]));
    let inside = from_ether_type(rest)?;
    Ok(IpPayload {
        vlan: vlan.or(inside.vlan),
        ..inside
    })
}

/// Finds the packet in a frame of `LINKTYPE_LINUX_SLL2`, whose protocol field comes first.
pub(super) fn cooked_v2(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (ether_type, rest) = take_u16(bytes)?;
    after_ether_type(ether_type, split(rest, SLL2_REST)?.1)
}

/// Finds the packet in the payload of an EtherType. Skips VLAN tags.
pub(super) fn after_ether_type(
    mut ether_type: u16,
    mut rest: &[u8],
) -> Result<IpPayload<'_>, NotIp> {
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
