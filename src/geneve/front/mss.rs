//! The MSS that a SYN announces (RFC 9293 section 3.7.1), made smaller.
use crate::packet::{self, Checksums, IpVersion, TcpFlags, Transport};

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
/// The bytes of a TCP header before its options, and the place of its checksum.
const FIXED: usize = 20;
const CHECKSUM: usize = 16;

/// An MSS that is too large, in an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    /// Where the TCP header begins.
    tcp: usize,
    /// Where the value stands in it.
    value: usize,
    limit: u16,
}

/// The MSS of a TCP SYN, if it is above `limit` for IPv4, or 20 less for IPv6.
pub(super) fn find(packet: &[u8], limit: u16) -> Option<TooLarge> {
    let parsed = packet::parse(packet, Checksums::Trust).ok()?;
    let Transport::Tcp { segment, .. } = parsed.transport else {
        return None;
    };
    if !segment.flags.contains(TcpFlags::SYN) {
        return None;
    }
    let limit = match parsed.ip.version {
        IpVersion::V4 => limit,
        IpVersion::V6 => limit.saturating_sub(20),
    };
    let tcp = usize::from(parsed.ip.header_len);
    let header = packet.get(tcp..parsed.ip.total_len as usize)?;
    let end = usize::from(header.get(12)? >> 4) * 4;
    let header = header.get(..end)?;
    let mut at = FIXED;
    loop {
        match *header.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                if kind == OPTION_MSS && len == 4 {
                    let value = at + 2;
                    let mss = header.get(value..)?.first_chunk::<2>()?;
                    let too_large = u16::from_be_bytes(*mss) > limit;
                    return too_large.then_some(TooLarge { tcp, value, limit });
                }
                if len < 2 {
                    return None;
                }
                at += len;
            }
        }
    }
}

impl TooLarge {
    /// Writes the limit into a copy of the packet, and corrects the checksum by the difference (RFC 1624).
    pub(super) fn write(self, packet: &mut [u8]) {
        self.try_write(packet);
    }

    fn try_write(self, packet: &mut [u8]) -> Option<()> {
        let header = packet.get_mut(self.tcp..)?;
        let field = header.get_mut(self.value..)?.first_chunk_mut::<2>()?;
        let before = u16::from_be_bytes(*field);
        *field = self.limit.to_be_bytes();
        // A value at an odd place counts with its bytes swapped.
        let (before, after) = if self.value.is_multiple_of(2) {
            (before, self.limit)
        } else {
            (before.swap_bytes(), self.limit.swap_bytes())
        };
        let checksum = header.get_mut(CHECKSUM..)?.first_chunk_mut::<2>()?;
        let mut sum = u32::from(!u16::from_be_bytes(*checksum)) + u32::from(!before) + u32::from(after);
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        *checksum = (!(sum as u16)).to_be_bytes();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    use super::*;

    fn syn(v6: bool, options: &[TcpOptionElement], data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if v6 {
            let builder = PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(1, 2, 7, 100).syn();
            builder.options(options).unwrap().write(&mut bytes, data).unwrap();
        } else {
            let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
                .tcp(1, 2, 7, 100)
                .syn();
            builder.options(options).unwrap().write(&mut bytes, data).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_smaller_mss_leaves_the_checksum_right_wherever_the_option_stands(
            v6 in any::<bool>(), mss in 1_000u16.., noops in 0usize..4, behind in any::<bool>(),
            data in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            use TcpOptionElement::{MaximumSegmentSize, Noop, WindowScale};
            let mut options = vec![Noop; noops];
            if behind {
                options.push(WindowScale(7));
            }
            options.push(MaximumSegmentSize(mss));
            let mut packet = syn(v6, &options, &data);
            prop_assert_eq!(find(&packet, u16::MAX), None);
            let limit = 1_000;
            let place = find(&packet, limit);
            if v6 || mss > limit {
                place.unwrap().write(&mut packet);
                prop_assert!(packet::parse(&packet, Checksums::Verify).is_ok());
                prop_assert_eq!(find(&packet, limit), None);
                prop_assert!(find(&packet, limit - 1).is_some());
            } else {
                prop_assert_eq!(place, None);
            }
        }
    }

    #[test]
    fn only_a_syn_with_the_option_announces_an_mss() {
        let mss = [TcpOptionElement::MaximumSegmentSize(9_000)];
        assert!(find(&syn(false, &mss, b""), 1_000).is_some());
        assert_eq!(find(&syn(false, &[], b""), 1_000), None);
        let mut ack = syn(false, &mss, b"");
        ack[33] = 0x10;
        assert_eq!(find(&ack, 1_000), None);
    }
}
