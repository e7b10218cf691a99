//! IEEE 802.11 frames, with and without the radiotap header.

use super::ethernet::after_ether_type;
use super::fields::{split, take_u16};
use super::types::{IpPayload, NotIp};
use crate::capture::order::ByteOrder;

/// Version, padding, length and the first word of flags (<https://www.radiotap.org>).
const RADIOTAP_FIXED: usize = 8;
/// The flags of a radiotap header: another word of them follows.
const RADIOTAP_MORE: u32 = 1 << 31;
/// The flags of a radiotap header: the time of arrival is present, eight bytes at a multiple of 8.
const RADIOTAP_TIME: u32 = 1;
/// The flags of a radiotap header: the flags of the frame are present.
const RADIOTAP_FRAME_FLAGS: u32 = 1 << 1;
/// A frame's flags: its header is padded to a multiple of four bytes.
const PADDED: u8 = 0x20;
/// A frame's flags: it failed its check sequence.
const BAD_CHECK: u8 = 0x40;

/// The header of an 802.11 data frame with three addresses (IEEE 802.11, clause 9.3.2).
const HEADER: usize = 24;
/// The LLC and SNAP headers before an EtherType: RFC 1042, and bridged Ethernet (IEEE 802.1H).
const SNAP: [[u8; 6]; 2] = [[0xaa, 0xaa, 3, 0, 0, 0], [0xaa, 0xaa, 3, 0, 0, 0xf8]];

/// Finds the packet in a frame with a radiotap header, whose fields are little endian on every
/// machine.
pub(super) fn radiotap(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let len = ByteOrder::Little.u16_at(bytes, 2).ok_or(NotIp::TooShort)?;
    let len = usize::from(len);
    if bytes.first() != Some(&0) || len < RADIOTAP_FIXED {
        return Err(NotIp::BadLinkHeader);
    }
    let (header, frame) = split(bytes, len)?;
    let flags = frame_flags(header)?;
    if flags & BAD_CHECK != 0 {
        return Err(NotIp::BadFrame);
    }
    data_frame(frame, flags & PADDED != 0)
}

/// Returns the flags of the frame, or 0 if the header has none.
fn frame_flags(header: &[u8]) -> Result<u8, NotIp> {
    let word = |at| {
        ByteOrder::Little
            .u32_at(header, at)
            .ok_or(NotIp::BadLinkHeader)
    };
    let present = word(4)?;
    let mut at = RADIOTAP_FIXED;
    let mut last = present;
    while last & RADIOTAP_MORE != 0 {
        last = word(at)?;
        at += 4;
    }
    if present & RADIOTAP_TIME != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    if present & RADIOTAP_FRAME_FLAGS == 0 {
        return Ok(0);
    }
    header.get(at).copied().ok_or(NotIp::BadLinkHeader)
}

/// Finds the packet in a frame that begins with its 802.11 header.
pub(super) fn data_frame(bytes: &[u8], padded: bool) -> Result<IpPayload<'_>, NotIp> {
    let (&[control, flags], _) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    let (kind, subtype) = (control >> 2 & 3, control >> 4);
    let carries_data = kind == 2 && subtype & 4 == 0;
    if !carries_data {
        return Err(NotIp::NoData);
    }
    let (to_ds, from_ds) = (flags & 1 != 0, flags & 2 != 0);
    let (more_fragments, protected, order) = (flags & 4 != 0, flags & 0x40 != 0, flags & 0x80 != 0);
    if protected {
        return Err(NotIp::Encrypted);
    }
    let sequence = ByteOrder::Little.u16_at(bytes, 22).ok_or(NotIp::TooShort)?;
    if more_fragments || sequence & 0x000f != 0 {
        return Err(NotIp::LinkFragment);
    }
    let is_qos = subtype & 8 != 0;
    let mut len = HEADER;
    if to_ds && from_ds {
        len += 6;
    }
    if is_qos {
        let qos = *bytes.get(len).ok_or(NotIp::TooShort)?;
        if qos & 0x80 != 0 {
            return Err(NotIp::Aggregate);
        }
        len += 2;
        if order {
            len += 4;
        }
    }
    if padded {
        len = len.next_multiple_of(4);
    }
    let (_, rest) = split(bytes, len)?;
    let (llc, rest) = split(rest, SNAP[0].len())?;
    if !SNAP.iter().any(|each| each == llc) {
        return Err(NotIp::Llc);
    }
    let (ether_type, rest) = take_u16(rest)?;
    after_ether_type(ether_type, rest)
}
