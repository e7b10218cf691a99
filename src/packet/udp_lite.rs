//! UDP-Lite: UDP with a checksum that may exclude a part of the payload (RFC 3828).

use super::{Extent, Ip, Malformed, Parsed, Transport, checksum, udp};

/// Parses the UDP-Lite datagram that is the payload of an IP packet. The datagram's length is that
/// of the payload: the field that is the length in UDP states the coverage of the checksum.
pub(super) fn parse(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    let &[s0, s1, d0, d1, l0, l1, c0, c1, ref data @ ..] = payload else {
        return Err(Malformed::UdpLiteHeaderTruncated);
    };
    // 0 covers everything; the header is always covered (section 3.1).
    let covered = match u16::from_be_bytes([l0, l1]) {
        0 => Some(payload),
        len if len < udp::HEADER_LEN => None,
        _ if extent.is_first() => Some(payload),
        len => payload.get(..usize::from(len)),
    };
    let Some(covered) = covered else {
        return Err(Malformed::UdpLiteChecksumCoverage);
    };
    if extent.is_verified() {
        // Unlike in UDP, the checksum is mandatory with both IP versions.
        if [c0, c1] == [0, 0] {
            return Err(Malformed::UdpLiteChecksumMissing);
        }
        if !checksum::partial_is_valid(ip, payload.len(), covered) {
            return Err(Malformed::UdpLiteChecksum);
        }
    }
    Ok(Parsed {
        ip,
        transport: Transport::Udp {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            payload_len: data.len() as u16,
        },
    })
}
