//! The IPv4 header.

use etherparse::Ipv4HeaderSlice;

use super::{Checksums, Fragment, Ip, IpVersion, Malformed, Network, checksum};

/// Bytes of an IPv4 header without options (RFC 791).
const MIN_HEADER_LEN: usize = 20;

/// The most bytes that the payload of a whole IPv4 packet can have.
const MAX_PAYLOAD_LEN: u32 = u16::MAX as u32 - MIN_HEADER_LEN as u32;

/// Parses the header of an IPv4 packet; bytes behind the total length are padding.
#[inline]
pub(super) fn parse(bytes: &[u8], checksums: Checksums) -> Result<Network<'_>, Malformed> {
    let Ok(header) = Ipv4HeaderSlice::from_slice(bytes) else {
        return Err(match bytes {
            [first, ..] if bytes.len() >= MIN_HEADER_LEN && first & 0x0f < 5 => Malformed::Ipv4HeaderLength,
            _ => Malformed::Ipv4HeaderTruncated,
        });
    };
    let header_len = header.slice().len();
    let total_len = header.total_len();
    if usize::from(total_len) < header_len {
        return Err(Malformed::Ipv4TotalLengthBelowHeader);
    }
    let Some(payload) = bytes.get(header_len..usize::from(total_len)) else {
        return Err(Malformed::Ipv4TotalLengthBeyondPacket);
    };
    if checksums == Checksums::Verify && !checksum::ipv4_header_is_valid(header.slice()) {
        return Err(Malformed::Ipv4HeaderChecksum);
    }
    let src = u32::from_be_bytes(header.source());
    // Multicast (RFC 5771) and the limited broadcast address.
    if src >> 28 == 0xe || src == u32::MAX {
        return Err(Malformed::SourceAddressNotUnicast);
    }
    let more = header.more_fragments();
    // The field counts units of 8 bytes and has 13 bits.
    let offset = header.fragments_offset().value() << 3;
    let fragment = if more || offset != 0 {
        Some(Fragment::new(
            u32::from(header.identification()),
            offset,
            more,
            payload.len(),
            MAX_PAYLOAD_LEN,
            header_len,
        )?)
    } else {
        None
    };
    Ok(Network {
        ip: Ip {
            version: IpVersion::V4,
            src: mapped(src),
            dst: mapped(u32::from_be_bytes(header.destination())),
            protocol: header.protocol().0,
            ttl: header.ttl(),
            header_len: header_len as u16,
            total_len: u32::from(total_len),
        },
        payload,
        fragment,
        rerouted: false,
    })
}

/// The number of the IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
#[inline]
pub(super) const fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | address as u128
}
