//! Frames of serial links: PPP with and without HDLC-like framing, and Cisco HDLC.

use super::ethernet::after_ether_type;
use super::fields::{split, take_u16};
use super::ppp::protocol;
use super::types::{IpPayload, NotIp};

/// The address and control fields of HDLC-like framing (RFC 1662, section 3.1).
const PPP_FRAMING: [u8; 2] = [0xff, 0x03];
/// The address fields of Cisco HDLC: unicast and broadcast (RFC 1547, section 4.3.1).
const CISCO_ADDRESSES: [u8; 2] = [0x0f, 0x8f];

/// Finds the packet in a PPP frame with or without the address and control fields, or in a Cisco
/// HDLC frame, which some captures store under the link type of PPP.
pub(super) fn ppp(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    match bytes.first() {
        Some(first) if CISCO_ADDRESSES.contains(first) => cisco_hdlc(bytes),
        _ => protocol(bytes.strip_prefix(&PPP_FRAMING).unwrap_or(bytes)),
    }
}

/// Finds the packet in a PPP frame that begins with its direction. `pppd` writes the direction over
/// the address field, other programs before the frame.
pub(super) fn ppp_after_direction(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (_, rest) = split(bytes, 1)?;
    match rest {
        // The control field without the address field.
        [0x03, protocol_field @ ..] => protocol(protocol_field),
        _ => ppp(rest),
    }
}

/// Finds the packet in a frame of Cisco HDLC: address, control, EtherType.
pub(super) fn cisco_hdlc(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (_, rest) = split(bytes, 2)?;
    let (ether_type, rest) = take_u16(rest)?;
    after_ether_type(ether_type, rest)
}
