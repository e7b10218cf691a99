//! Headers that a host prepends to a packet: netfilter's log, and Solaris' IP observability.

use super::ethernet::after_ether_type;
use super::fields::split;
use super::types::{IpPayload, IpVersion, NotIp};
use crate::capture::order::ByteOrder;

/// Address family, version and resource of an NFLOG header.
const NFLOG_HEADER: usize = 4;
/// The length and type of an attribute.
const ATTRIBUTE_HEADER: usize = 4;
/// `NFULA_PACKET_HDR`: the EtherType, in network byte order, and the hook.
const PACKET_HEADER: u16 = 1;
/// `NFULA_PAYLOAD`: the packet.
const PAYLOAD: u16 = 9;
/// The bits of an attribute's type; higher bits are flags for nesting and byte order.
const TYPE_BITS: u16 = 0x3fff;
/// The length of Solaris' header, `dl_ipnetinfo`.
const IPNET_HEADER: usize = 24;
/// `AF_INET6` of Solaris.
const SOLARIS_INET6: u8 = 26;

/// Finds the packet in a message of `nfnetlink_log`: a header, then attributes, one of which is the
/// packet. Lengths and types are in the byte order of the machine that captured.
pub(super) fn nflog(bytes: &[u8], order: ByteOrder) -> Result<IpPayload<'_>, NotIp> {
    let (header, mut rest) = split(bytes, NFLOG_HEADER)?;
    let &[family, version, ..] = header else {
        return Err(NotIp::TooShort);
    };
    if version != 0 {
        return Err(NotIp::BadLinkHeader);
    }
    let mut ether_type = None;
    while !rest.is_empty() {
        let len = usize::from(order.u16_at(rest, 0).ok_or(NotIp::TooShort)?);
        let kind = order.u16_at(rest, 2).ok_or(NotIp::TooShort)? & TYPE_BITS;
        if len < ATTRIBUTE_HEADER {
            return Err(NotIp::BadLinkHeader);
        }
        // The capture may have truncated the packet.
        let value = rest
            .get(ATTRIBUTE_HEADER..len.min(rest.len()))
            .unwrap_or_default();
        match kind {
            PACKET_HEADER => ether_type = ByteOrder::Big.u16_at(value, 0),
            PAYLOAD => return packet_of(family, ether_type, value),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(NotIp::NoData)
}

/// Returns the logged packet. If the family is that of a link, the EtherType determines the
/// protocol.
fn packet_of(family: u8, ether_type: Option<u16>, bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let family = u32::from(family);
    match (IpVersion::of_family(family), ether_type) {
        (Some(version), _) => Ok(IpPayload {
            bytes,
            vlan: None,
            version: Some(version),
        }),
        (None, Some(ether_type)) => after_ether_type(ether_type, bytes),
        (None, None) => Err(NotIp::OtherFamily(family)),
    }
}

/// Finds the packet in a frame of Solaris' IP observability: version, address family, and more.
pub(super) fn ipnet(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (header, rest) = split(bytes, IPNET_HEADER)?;
    let version = match header {
        [_, 2, ..] => IpVersion::V4,
        [_, SOLARIS_INET6, ..] => IpVersion::V6,
        [_, family, ..] => return Err(NotIp::OtherFamily(u32::from(*family))),
        _ => return Err(NotIp::TooShort),
    };
    Ok(IpPayload {
        bytes: rest,
        vlan: None,
        version: Some(version),
    })
}
