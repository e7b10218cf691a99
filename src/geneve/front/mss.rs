//! Reduction of the MSS that a SYN announces (RFC 9293 section 3.7.1).
use crate::packet::{self, Checksums, Fragment, IpVersion, TcpFlags, Transport};

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
/// The size of a TCP header before its options, in bytes. The position of its checksum follows.
const FIXED: usize = 20;
const CHECKSUM: usize = 16;

/// A TCP header in an IP packet, with an MSS that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The offsets at which the header begins and ends, options included.
    start: usize,
    end: usize,
    limit: u16,
}

/// Returns the header of a TCP SYN with an MSS above `limit` for IPv4, or above `limit - 20` for
/// IPv6.
///
/// A SYN may have the option more than once, and receivers differ in the one that they use (Linux
/// takes the last). One value that is too large is enough. The SYN may also be in a first fragment,
/// which has the whole header.
pub(super) fn find(packet: &[u8], limit: u16) -> Option<Place> {
    let mut parsed = packet::parse(packet, Checksums::Trust).ok()?;
    let mut start = usize::from(parsed.ip.header_len);
    if let Transport::Fragment(Fragment {
        offset: 0,
        transport_offset,
        ..
    }) = parsed.transport
    {
        start = usize::from(transport_offset);
        parsed = packet::parse_first_fragment(packet, &parsed).ok()?;
    }
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
    let header = packet.get(start..parsed.ip.total_len as usize)?;
    let len = usize::from(header.get(12)? >> 4) * 4;
    let header = header.get(..len)?;
    let mut at = FIXED;
    while let Some((value, mss)) = next(header, at) {
        if mss > limit {
            let end = start + len;
            return Some(Place { start, end, limit });
        }
        at = value + 2;
    }
    None
}

/// Returns the next MSS of a TCP header, from the option that begins at `at`, and the offset of its
/// value. The search ends at an option whose length is below 2 or exceeds the header: receivers do
/// not read further.
fn next(header: &[u8], mut at: usize) -> Option<(usize, u16)> {
    loop {
        at += match *header.get(at..)? {
            [OPTION_END, ..] => return None,
            [OPTION_NOP, ..] => 1,
            [OPTION_MSS, 4, a, b, ..] => return Some((at + 2, u16::from_be_bytes([a, b]))),
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return None,
        };
    }
}

impl Place {
    /// Writes the limit over each MSS above it, in a copy of the packet, and corrects the checksum
    /// by the difference (RFC 1624). The rest of the checksummed bytes may be missing, as in a
    /// first fragment.
    pub(super) fn write(self, packet: &mut [u8]) {
        self.try_write(packet);
    }

    fn try_write(self, packet: &mut [u8]) -> Option<()> {
        let header = packet.get_mut(self.start..self.end)?;
        let mut at = FIXED;
        while let Some((value, before)) = next(header, at) {
            at = value + 2;
            if before <= self.limit {
                continue;
            }
            *header.get_mut(value..)?.first_chunk_mut::<2>()? = self.limit.to_be_bytes();
            // A value at an odd offset counts with its bytes swapped.
            let (before, after) = if value.is_multiple_of(2) {
                (before, self.limit)
            } else {
                (before.swap_bytes(), self.limit.swap_bytes())
            };
            let checksum = header.get_mut(CHECKSUM..)?.first_chunk_mut::<2>()?;
            let mut sum =
                u32::from(!u16::from_be_bytes(*checksum)) + u32::from(!before) + u32::from(after);
            while sum > 0xffff {
                sum = (sum >> 16) + (sum & 0xffff);
            }
            *checksum = (!(sum as u16)).to_be_bytes();
        }
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
            let builder = PacketBuilder::ipv6([1; 16], [2; 16], 9)
                .tcp(1, 2, 7, 100)
                .syn();
            builder
                .options(options)
                .unwrap()
                .write(&mut bytes, data)
                .unwrap();
        } else {
            let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
                .tcp(1, 2, 7, 100)
                .syn();
            builder
                .options(options)
                .unwrap()
                .write(&mut bytes, data)
                .unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_smaller_mss_leaves_the_checksum_right_wherever_the_option_stands_and_how_often(
            v6 in any::<bool>(),
            values in prop::collection::vec((900u16.., 0usize..4, any::<bool>()), 1..4),
            data in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            use TcpOptionElement::{MaximumSegmentSize, Noop, WindowScale};
            let mut options = Vec::new();
            for &(mss, noops, behind) in &values {
                options.extend(vec![Noop; noops]);
                options.extend(behind.then_some(WindowScale(7)));
                options.push(MaximumSegmentSize(mss));
            }
            let mut packet = syn(v6, &options, &data);
            let largest = values.iter().map(|each| each.0).max().unwrap();
            let found = find(&packet, largest.saturating_add(20));
            prop_assert_eq!(found.is_some(), v6 && largest > u16::MAX - 20);
            let limit = 1_000;
            let effective = if v6 { limit - 20 } else { limit };
            let place = find(&packet, limit);
            prop_assert_eq!(place.is_some(), values.iter().any(|each| each.0 > effective));
            if let Some(place) = place {
                place.write(&mut packet);
                prop_assert!(packet::parse(&packet, Checksums::Verify).is_ok());
                prop_assert_eq!(find(&packet, limit), None);
                prop_assert!(find(&packet, limit - 1).is_some());
                for option in &mut options {
                    if let MaximumSegmentSize(mss) = option {
                        *mss = effective.min(*mss);
                    }
                }
                prop_assert_eq!(packet, syn(v6, &options, &data));
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
