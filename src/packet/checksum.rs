//! Internet checksums (RFC 1071), over the lengths that the headers state.

use etherparse::{IpNumber, checksum::Sum16BitWords};

use super::{Ip, IpVersion};

/// Bytes summed in one step of a long sum.
const BLOCK_LEN: usize = 32;

/// Number of bytes from which a sum counts as long. For fewer, vector instructions cost more than
/// they save.
const LONG: usize = 256;

/// Returns whether the checksum of an IPv4 header, options included, is correct.
pub(super) fn ipv4_header_is_valid(header: &[u8]) -> bool {
    Sum16BitWords::new().add_slice(header).ones_complement() == 0
}

/// Returns whether the checksum of bytes without a pseudo header is correct.
pub(super) fn is_valid(bytes: &[u8]) -> bool {
    add(Sum16BitWords::new(), bytes).ones_complement() == 0
}

/// Returns whether the checksum of a transport header with its payload is correct. The pseudo
/// header is included for TCP and UDP (RFC 9293, RFC 768) and ICMPv6 (RFC 4443), not for ICMP over
/// IPv4.
pub(super) fn transport_is_valid(ip: Ip, bytes: &[u8]) -> bool {
    partial_is_valid(ip, bytes.len(), bytes)
}

/// Verifies a checksum over the first `covered` of the `len` bytes of the header and its payload:
/// DCCP (RFC 4340, section 9.1) and UDP-Lite (RFC 3828, section 3.1).
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
    add(sum, covered).ones_complement() == 0
}

/// Returns whether the checksum of a segment or datagram over IPv4, pseudo header included, is
/// correct.
pub(super) fn ipv4_transport_is_valid(addresses: [u32; 2], protocol: u8, bytes: &[u8]) -> bool {
    let [src, dst] = addresses;
    let sum = Sum16BitWords::new()
        .add_4bytes(src.to_be_bytes())
        .add_4bytes(dst.to_be_bytes())
        .add_2bytes([0, protocol])
        .add_2bytes((bytes.len() as u16).to_be_bytes());
    add(sum, bytes).ones_complement() == 0
}

/// Returns whether the checksum of a segment or datagram over IPv6, pseudo header included, is
/// correct.
pub(super) fn ipv6_transport_is_valid(addresses: [u128; 2], protocol: u8, bytes: &[u8]) -> bool {
    let [src, dst] = addresses;
    let sum = Sum16BitWords::new()
        .add_16bytes(src.to_be_bytes())
        .add_16bytes(dst.to_be_bytes())
        .add_4bytes((bytes.len() as u32).to_be_bytes())
        .add_2bytes([0, protocol]);
    add(sum, bytes).ones_complement() == 0
}

/// Adds bytes to a sum, in vectors if they are long.
#[inline]
fn add(mut sum: Sum16BitWords, bytes: &[u8]) -> Sum16BitWords {
    if bytes.len() < LONG {
        return sum.add_slice(bytes);
    }
    let (blocks, rest) = bytes.as_chunks();
    sum.add_8bytes(sum_blocks(blocks).to_ne_bytes())
        .add_slice(rest)
}

/// Sums words of 32 bits in the byte order of this machine. The sum of such words is equivalent to
/// that of their halves, and the byte order does not matter to the validity of a sum (RFC 1071,
/// section 2). The lanes have room for more words than a packet has.
#[inline(never)]
fn sum_blocks(blocks: &[[u8; BLOCK_LEN]]) -> u64 {
    let mut lanes = [0; BLOCK_LEN / 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    use super::is_valid;

    proptest! {
        #[test]
        fn a_long_sum_is_that_of_its_16_bit_words(
            mut bytes in prop::collection::vec(any::<u8>(), 2..600),
            right: bool,
        ) {
            if right {
                bytes[..2].fill(0);
                let checksum = Sum16BitWords::new().add_slice(&bytes).ones_complement();
                bytes[..2].copy_from_slice(&checksum.to_ne_bytes());
            }
            let expected = Sum16BitWords::new().add_slice(&bytes).ones_complement() == 0;
            prop_assert!(expected || !right);
            prop_assert_eq!(is_valid(&bytes), expected);
        }
    }

    #[test]
    fn the_largest_sum_carries_to_its_end() {
        for len in [1usize, 2, 255, 256, 257, 287, 288, 65_534, 65_535] {
            let ones = vec![0xff; len];
            assert_eq!(is_valid(&ones), len.is_multiple_of(2), "{len}");
            assert!(!is_valid(&vec![0; len]), "{len}");
        }
    }
}
