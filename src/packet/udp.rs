//! UDP: ports and the length of the payload.

use etherparse::UdpHeaderSlice;

use super::{Checksums, Ip, IpVersion, Malformed, Transport, checksum};

/// Bytes of a UDP header (RFC 768).
pub(super) const HEADER_LEN: u16 = 8;

/// Parses the UDP datagram that is the payload of an IP packet. What lies behind the UDP length is not the
/// datagram's, neither for its payload nor for its checksum.
#[inline]
pub(super) fn parse(ip: &Ip, payload: &[u8], checksums: Checksums) -> Result<Transport, Malformed> {
    let Ok(header) = UdpHeaderSlice::from_slice(payload) else {
        return Err(Malformed::UdpHeaderTruncated);
    };
    let len = header.length();
    let Some(payload_len) = len.checked_sub(HEADER_LEN) else {
        return Err(Malformed::UdpLength);
    };
    let Some(datagram) = payload.get(..usize::from(len)) else {
        return Err(Malformed::UdpLength);
    };
    if checksums == Checksums::Verify {
        match (header.checksum(), ip.version) {
            (0, IpVersion::V4) => {}
            (0, IpVersion::V6) => return Err(Malformed::UdpChecksumMissingIpv6),
            _ if checksum::transport_is_valid(ip, datagram) => {}
            _ => return Err(Malformed::UdpChecksum),
        }
    }
    Ok(Transport::Udp {
        src_port: header.source_port(),
        dst_port: header.destination_port(),
        payload_len,
    })
}
