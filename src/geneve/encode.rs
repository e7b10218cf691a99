//! Encoding of a header.

use super::header::{FIXED, OPTION_HEADER};
use super::{InnerProtocol, TunnelOption};

/// The largest size of a header's options, in bytes: 63 words (RFC 8926 section 3.4).
const MAX_OPTIONS: usize = 63 * 4;
/// The largest size of an option's data, in bytes: 31 words (RFC 8926 section 3.5).
const MAX_DATA: usize = 31 * 4;

/// Writes a header of version 0 with these options, in order, to the beginning of `out`.
///
/// Returns the length of the header in bytes. The C bit is set if an option is critical; the O bit
/// and all reserved bits are 0.
///
/// Returns `None`, with `out` in any state, if no such header exists or `out` has no room for it.
/// No header exists for a VNI of more than 24 bits, for options longer than 252 bytes in all, or
/// for option data longer than 124 bytes or not a multiple of 4.
#[must_use]
pub fn encode(
    protocol: InnerProtocol,
    vni: u32,
    options: &[TunnelOption<'_>],
    out: &mut [u8],
) -> Option<usize> {
    let mut words = 0u8;
    let mut critical = 0u8;
    let (fixed, mut rest) = out.split_first_chunk_mut::<FIXED>()?;
    for option in options {
        let len = option.data.len();
        if len > MAX_DATA || !len.is_multiple_of(4) {
            return None;
        }
        let (head, behind) = rest.split_first_chunk_mut::<OPTION_HEADER>()?;
        let (data, behind) = behind.split_at_mut_checked(len)?;
        let [class_high, class_low] = option.class.to_be_bytes();
        let data_words = u8::try_from(len / 4).ok()?;
        *head = [class_high, class_low, option.kind, data_words];
        data.copy_from_slice(option.data);
        rest = behind;
        // At most 63 + 32.
        words += 1 + data_words;
        if usize::from(words) * 4 > MAX_OPTIONS {
            return None;
        }
        critical |= u8::from(option.is_critical()) << 6;
    }
    let [too_high @ 0, vni_high, vni_middle, vni_low] = vni.to_be_bytes() else {
        return None;
    };
    let [ether_high, ether_low] = protocol.ether_type().to_be_bytes();
    *fixed = [
        words, critical, ether_high, ether_low, vni_high, vni_middle, vni_low, too_high,
    ];
    Some(FIXED + usize::from(words) * 4)
}
