//! Protocols that both PPP and Ethernet carry: the protocol field of PPP, PPPoE, and MPLS.

use super::fields::take_u16;
use super::types::{IpPayload, IpVersion, MAX_LABELS, NotIp};

/// Version 1 and type 1 of PPPoE (RFC 2516, section 4).
const PPPOE_VERSION: u8 = 0x11;

/// Finds the packet after the protocol field of PPP. The field's first byte may be omitted if it is
/// 0 (RFC 1661, section 2): only the last byte is odd.
pub(super) fn protocol(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (number, rest) = match bytes {
        [last, rest @ ..] if last & 1 == 1 => (u16::from(*last), rest),
        _ => take_u16(bytes)?,
    };
    let version = match number {
        0x0021 => IpVersion::V4,
        0x0057 => IpVersion::V6,
        0x0281 | 0x0283 => return mpls(rest),
        other => return Err(NotIp::OtherPpp(other)),
    };
    Ok(IpPayload {
        bytes: rest,
        vlan: None,
        version: Some(version),
    })
}

/// Finds the packet in a PPPoE frame (RFC 2516, section 4) of the session stage; frames of the
/// discovery stage carry no packet.
pub(super) fn pppoe(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let (&[version, code, _, _, l0, l1], rest) =
        bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    if version != PPPOE_VERSION {
        return Err(NotIp::BadLinkHeader);
    }
    if code != 0 {
        return Err(NotIp::Pppoe);
    }
    // Padding of the link follows the stated length. A capture may have truncated the frame before
    // it.
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    protocol(rest.get(..len).unwrap_or(rest))
}

/// Finds the packet under a stack of MPLS labels (RFC 3032). No label states the protocol, so the
/// first nibble determines it, as in load-balancing routers (RFC 4928): any value other than those
/// of IP means a pseudowire.
pub(super) fn mpls(bytes: &[u8]) -> Result<IpPayload<'_>, NotIp> {
    let mut rest = bytes;
    for _ in 0..MAX_LABELS {
        let (&[_, _, bottom, _], behind) = rest.split_first_chunk().ok_or(NotIp::TooShort)?;
        rest = behind;
        if bottom & 1 == 0 {
            continue;
        }
        let version = match rest.first().map(|first| first >> 4) {
            Some(4) => IpVersion::V4,
            Some(6) => IpVersion::V6,
            Some(_) => return Err(NotIp::Mpls),
            None => return Err(NotIp::TooShort),
        };
        return Ok(IpPayload {
            bytes: rest,
            vlan: None,
            version: Some(version),
        });
    }
    Err(NotIp::TooManyLabels)
}
