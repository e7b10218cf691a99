//! IPsec: the security parameters index of ESP (RFC 4303) and of the authentication header (RFC
//! 4302).

use super::{Extent, Ip, IpVersion, Malformed, Parsed, Transport};

/// Bytes of an ESP header: SPI and sequence number (RFC 4303, section 2).
const ESP_HEADER_LEN: usize = 8;

/// Bytes of an authentication header without its check value (RFC 4302, section 2).
const AH_HEADER_LEN: usize = 12;

/// Parses the ESP packet that is the payload of an IP packet.
pub(super) fn parse_esp(ip: Ip, payload: &[u8]) -> Result<Parsed, Malformed> {
    let Some(&[a, b, c, d, ..]) = payload.first_chunk::<ESP_HEADER_LEN>() else {
        return Err(Malformed::EspHeaderTruncated);
    };
    let spi = u32::from_be_bytes([a, b, c, d]);
    // Section 2.1: SPI 0 is for local use, never on the wire.
    if spi == 0 {
        return Err(Malformed::EspSpiZero);
    }
    let transport = Transport::Esp { spi };
    Ok(Parsed { ip, transport })
}

/// Parses the authentication header at the start of an IP packet's payload; the protected data is
/// not read.
pub(super) fn parse_ah(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    let Some(&[_, words, _, _, a, b, c, d, ..]) = payload.first_chunk::<AH_HEADER_LEN>() else {
        return Err(Malformed::AhHeaderTruncated);
    };
    // The length in 4-byte words minus 2 (section 2.2); in IPv6 a header is a multiple of 8 bytes
    // long (section 3.3.3.2.1).
    let len = 4 * (usize::from(words) + 2);
    if len < AH_HEADER_LEN || (ip.version == IpVersion::V6 && !len.is_multiple_of(8)) {
        return Err(Malformed::AhLength);
    }
    if len > payload.len() {
        return Err(if extent.is_first() {
            Malformed::AhHeaderTruncated
        } else {
            Malformed::AhLength
        });
    }
    let spi = u32::from_be_bytes([a, b, c, d]);
    // Section 2.4: SPI 0 is for local use, never on the wire.
    if spi == 0 {
        return Err(Malformed::AhSpiZero);
    }
    let transport = Transport::Ah { spi };
    Ok(Parsed { ip, transport })
}
