//! Internet checksums (RFC 1071), over the lengths that the headers state.

use etherparse::IpNumber;

use super::{Ip, IpVersion};

/// Bytes that are summed at once: two vectors of 16 bytes, or one of 32.
const LANES: usize = 8;

/// Returns whether an IPv4 header, options included, adds up.
pub(super) fn ipv4_header_is_valid(header: &[u8]) -> bool {
    is_valid(sum(header))
}

/// Whether a transport header with its payload adds up, together with the pseudo header where there is one: for
/// TCP and UDP (RFC 9293, RFC 768) and ICMPv6 (RFC 4443), not for ICMP over IPv4.
pub(super) fn transport_is_valid(ip: Ip, bytes: &[u8]) -> bool {
    partial_is_valid(ip, bytes.len(), bytes)
}

/// The same where the checksum covers only the `covered` first bytes of the `len` that the header and its payload
/// have: DCCP (RFC 4340, section 9.1) and UDP-Lite (RFC 3828, section 3.1).
pub(super) fn partial_is_valid(ip: Ip, len: usize, covered: &[u8]) -> bool {
    let number = |number: u32| u64::from(number.to_be());
    let pseudo = match ip.version {
        IpVersion::V4 if ip.protocol == IpNumber::ICMP.0 => 0,
        IpVersion::V4 => {
            let ends = number(ip.src as u32) + number(ip.dst as u32);
            ends + number(len as u32) + number(u32::from(ip.protocol))
        }
        IpVersion::V6 => {
            // Each half of an address is two words.
            let [a, b, c, d] = [ip.src, ip.src >> 64, ip.dst, ip.dst >> 64].map(|half| {
                let half = (half as u64).to_be();
                (half & 0xffff_ffff) + (half >> 32)
            });
            a + b + c + d + number(len as u32) + number(u32::from(ip.protocol))
        }
    };
    is_valid(pseudo + sum(covered))
}

/// Sums bytes as words of 32 bits in the order of this machine, padded with zeros.
///
/// A sum of longer words is worth as much as that of their halves of 16 bits, and the order of bytes does
/// not matter to whether it is all ones (RFC 1071, section 2). 64 bits hold more of them than a packet has.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0; LANES];
    let (blocks, rest) = bytes.as_chunks::<{ 4 * LANES }>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks();
    let mut total: u64 = lanes.iter().sum();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    total + u64::from(u32::from_ne_bytes(last))
}

/// Returns whether a sum, with the checksum in it, is all ones.
#[inline]
pub(super) const fn is_valid(sum: u64) -> bool {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    use super::{is_valid, sum};

    proptest! {
        #[test]
        fn a_sum_is_valid_where_that_of_16_bit_words_is(
            mut bytes in prop::collection::vec(any::<u8>(), 2..300),
            right: bool,
        ) {
            if right {
                bytes[..2].fill(0);
                let checksum = Sum16BitWords::new().add_slice(&bytes).ones_complement();
                bytes[..2].copy_from_slice(&checksum.to_ne_bytes());
            }
            let expected = Sum16BitWords::new().add_slice(&bytes).ones_complement() == 0;
            prop_assert!(expected || !right);
            prop_assert_eq!(is_valid(sum(&bytes)), expected);
        }
    }

    #[test]
    fn the_largest_sum_carries_to_its_end() {
        for len in [1usize, 2, 3, 4, 31, 32, 33, 65_534, 65_535] {
            let ones = vec![0xff; len];
            assert_eq!(is_valid(sum(&ones)), len.is_multiple_of(2), "{len}");
            assert!(!is_valid(sum(&vec![0; len])), "{len}");
        }
    }
}
