//! UDP: ports and the length of the payload.

use super::{Checksums, Ip, IpVersion, Malformed, Parsed, Transport, checksum};

/// Bytes of a UDP header (RFC 768).
pub(super) const HEADER_LEN: u16 = 8;

/// Parses the UDP datagram that is the payload of an IP packet. Bytes after the UDP length are not
/// part of the datagram, neither for its payload nor for its checksum.
#[inline(always)]
pub(super) fn parse(ip: Ip, payload: &[u8], checksums: Checksums) -> Result<Parsed, Malformed> {
    let &[s0, s1, d0, d1, l0, l1, c0, c1, ..] = payload else {
        return Err(Malformed::UdpHeaderTruncated);
    };
    let len = u16::from_be_bytes([l0, l1]);
    let Some(payload_len) = len.checked_sub(HEADER_LEN) else {
        return Err(Malformed::UdpLength);
    };
    let Some(datagram) = payload.get(..usize::from(len)) else {
        return Err(Malformed::UdpLength);
    };
    if checksums.are_verified() {
        match (u16::from_be_bytes([c0, c1]), ip.version) {
            // A sender writes 0xffff if the sum is 0.
            (0, IpVersion::V6) if checksums == Checksums::Require => {
                return Err(Malformed::UdpChecksumMissingIpv6);
            }
            (0, _) => {}
            _ if checksum::transport_is_valid(ip, datagram) => {}
            _ => return Err(Malformed::UdpChecksum),
        }
    }
    Ok(Parsed {
        ip,
        transport: Transport::Udp {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            payload_len,
        },
    })
}

/// Parses the header of a UDP datagram that continues in other fragments: its length and checksum
/// cover more than `payload`, which is that of the first fragment.
pub(super) fn parse_first(ip: Ip, payload: &[u8]) -> Result<Parsed, Malformed> {
    let &[s0, s1, d0, d1, l0, l1, _, _, ..] = payload else {
        return Err(Malformed::UdpHeaderTruncated);
    };
    let len = u16::from_be_bytes([l0, l1]);
    let Some(payload_len) = len.checked_sub(HEADER_LEN) else {
        return Err(Malformed::UdpLength);
    };
    Ok(Parsed {
        ip,
        transport: Transport::Udp {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            payload_len,
        },
    })
}
