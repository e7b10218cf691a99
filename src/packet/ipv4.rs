//! The IPv4 header.

use super::{Checksums, Fragment, Ip, IpOptions, IpVersion, Malformed, Network, checksum, options};

/// Bytes of an IPv4 header without options (RFC 791).
const MIN_HEADER_LEN: usize = 20;

/// The flag "more fragments", in the field that also holds the fragment offset.
const MORE_FRAGMENTS: u16 = 0x2000;

/// Maximum payload of a whole IPv4 packet, in bytes.
const MAX_PAYLOAD_LEN: u32 = u16::MAX as u32 - MIN_HEADER_LEN as u32;

/// Parses the header of an IPv4 packet; bytes after the total length are padding.
#[inline(always)]
pub(super) fn parse(bytes: &[u8], checksums: Checksums) -> Result<Network<'_>, Malformed> {
    let Some(fixed) = bytes.first_chunk::<MIN_HEADER_LEN>() else {
        return Err(Malformed::Ipv4HeaderTruncated);
    };
    let &[
        first,
        _,
        l0,
        l1,
        i0,
        i1,
        f0,
        f1,
        ttl,
        protocol,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = fixed;
    let header_len = 4 * usize::from(first & 0x0f);
    if header_len < MIN_HEADER_LEN {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let Some(header) = bytes.get(..header_len) else {
        return Err(Malformed::Ipv4HeaderTruncated);
    };
    let total_len = u16::from_be_bytes([l0, l1]);
    if usize::from(total_len) < header_len {
        return Err(Malformed::Ipv4TotalLengthBelowHeader);
    }
    let Some(payload) = bytes.get(header_len..usize::from(total_len)) else {
        return Err(Malformed::Ipv4TotalLengthBeyondPacket);
    };
    if checksums.are_verified() && !checksum::ipv4_header_is_valid(header) {
        return Err(Malformed::Ipv4HeaderChecksum);
    }
    let options = match header.get(MIN_HEADER_LEN..) {
        None | Some([]) => IpOptions::NONE,
        Some(options) => options::walk_ipv4(options)?,
    };
    let src = u32::from_be_bytes([s0, s1, s2, s3]);
    if !is_unicast(src) {
        return Err(Malformed::SourceAddressNotUnicast);
    }
    let field = u16::from_be_bytes([f0, f1]);
    let id = u16::from_be_bytes([i0, i1]);
    let fragment = fragment(field, id, payload.len(), header_len)?;
    Ok(Network {
        ip: Ip {
            version: IpVersion::V4,
            src: mapped(src),
            dst: mapped(u32::from_be_bytes([d0, d1, d2, d3])),
            protocol,
            ttl,
            options,
            header_len: header_len as u16,
            total_len: u32::from(total_len),
        },
        payload,
        fragment,
        rerouted: false,
    })
}

/// Reads the fields of a fragment: `field` holds the flags and the offset. Returns `None` for a
/// whole packet.
#[inline(always)]
fn fragment(
    field: u16,
    id: u16,
    payload_len: usize,
    header_len: usize,
) -> Result<Option<Fragment>, Malformed> {
    let more = field & MORE_FRAGMENTS != 0;
    // The offset has 13 bits and counts units of 8 bytes.
    let offset = field << 3;
    if !more && offset == 0 {
        return Ok(None);
    }
    Fragment::new(
        u32::from(id),
        offset,
        more,
        payload_len,
        MAX_PAYLOAD_LEN,
        header_len,
    )
    .map(Some)
}

/// Returns whether an address may be the source of a packet: it is neither multicast (RFC 5771) nor
/// the limited broadcast address.
#[inline]
pub(super) const fn is_unicast(address: u32) -> bool {
    address >> 28 != 0xe && address != u32::MAX
}

/// Returns whether an address is in none of the ranges 0.0.0.0/8, 127.0.0.0/8 and 224.0.0.0/3.
#[expect(clippy::indexing_slicing, reason = "an octet is below 256")]
#[inline(always)]
pub(super) const fn is_ordinary(address: u32) -> bool {
    // Two instructions; the comparisons would be eight, and every packet has two addresses.
    ORDINARY[(address >> 24) as usize]
}

/// Whether addresses that begin with an octet are ordinary.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
static ORDINARY: [bool; 256] = {
    let mut ordinary = [false; 256];
    let mut octet = 1;
    while octet < 224 {
        ordinary[octet] = octet != 127;
        octet += 1;
    }
    ordinary
};

/// Returns the number of the IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
#[inline]
pub(super) const fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | address as u128
}
