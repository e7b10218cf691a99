//! Internet checksums (RFC 1071), over the lengths that the headers state.

use etherparse::{IpNumber, checksum::Sum16BitWords};

use super::{Ip, IpVersion};

/// Whether an IPv4 header, options included, adds up.
pub(super) fn ipv4_header_is_valid(header: &[u8]) -> bool {
    Sum16BitWords::new().add_slice(header).ones_complement() == 0
}

/// Whether a transport header with its payload adds up, together with the pseudo header where there is one: for
/// TCP and UDP (RFC 9293, RFC 768) and ICMPv6 (RFC 4443), not for ICMP over IPv4.
pub(super) fn transport_is_valid(ip: Ip, bytes: &[u8]) -> bool {
    partial_is_valid(ip, bytes.len(), bytes)
}

/// The same where the checksum covers only the `covered` first bytes of the `len` that the header and its payload
/// have: DCCP (RFC 4340, section 9.1) and UDP-Lite (RFC 3828, section 3.1).
pub(super) fn partial_is_valid(ip: Ip, len: usize, covered: &[u8]) -> bool {
    let mut sum = Sum16BitWords::new();
    match ip.version {
        IpVersion::V4 if ip.protocol == IpNumber::ICMP.0 => {}
        IpVersion::V4 => {
            sum = sum
                .add_4bytes((ip.src as u32).to_be_bytes())
                .add_4bytes((ip.dst as u32).to_be_bytes())
                .add_2bytes([0, ip.protocol])
                .add_2bytes((len as u16).to_be_bytes());
        }
        IpVersion::V6 => {
            sum = sum
                .add_16bytes(ip.src.to_be_bytes())
                .add_16bytes(ip.dst.to_be_bytes())
                .add_4bytes((len as u32).to_be_bytes())
                .add_2bytes([0, ip.protocol]);
        }
    }
    sum.add_slice(covered).ones_complement() == 0
}
