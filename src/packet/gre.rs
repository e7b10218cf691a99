//! GRE (RFC 2784, RFC 2890) and the enhanced GRE of PPTP (RFC 2637).

use super::{Extent, Ip, Malformed, Parsed, Transport, checksum};

/// Bytes of the header without its optional fields.
const MIN_HEADER_LEN: usize = 4;

const CHECKSUM_PRESENT: u16 = 0x8000;
/// Routing of RFC 1701, which RFC 2784 removed.
const ROUTING_PRESENT: u16 = 0x4000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
/// Strict source route and the upper bit of the recursion control of RFC 1701: a receiver that does
/// not support it must discard a packet with one of them (RFC 2784, section 2.3). The reserved bits
/// after them must be ignored.
const MUST_BE_ZERO: u16 = ROUTING_PRESENT | 0x0c00;
/// Enhanced GRE only.
const ACKNOWLEDGMENT_PRESENT: u16 = 0x0080;
const VERSION: u16 = 0x0007;

/// The protocol type of enhanced GRE: PPP.
const PPP: u16 = 0x880b;

/// Distinction between the tunnels of two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GreKey {
    /// Version 0 without a key.
    None,
    /// The key of version 0 (RFC 2890). The directions of a tunnel may have different keys: NVGRE
    /// stores a flow identifier in it (RFC 7637 3.2), and each end may choose its own.
    Key(u32),
    /// The call ID of version 1, PPTP. Each end chooses the call ID that it receives, so the
    /// directions of a call have different call IDs. Only the control connection pairs them.
    CallId(u16),
}

impl GreKey {
    /// Returns the key or call ID as a number.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Key(key) => Some(key),
            Self::CallId(id) => Some(id as u32),
        }
    }
}

/// Kind of a header's key, determined by the first word.
enum Layout {
    None,
    Key { offset: usize },
    CallId,
}

/// Returns the layout for flags, version and protocol type.
const fn layout(flags: u16, protocol: u16) -> Result<Layout, Malformed> {
    match flags & VERSION {
        0 if flags & MUST_BE_ZERO != 0 => Err(Malformed::GreFlags),
        0 if flags & KEY_PRESENT == 0 => Ok(Layout::None),
        0 if flags & CHECKSUM_PRESENT != 0 => Ok(Layout::Key { offset: 8 }),
        0 => Ok(Layout::Key { offset: 4 }),
        1 if flags & (CHECKSUM_PRESENT | MUST_BE_ZERO | KEY_PRESENT) != KEY_PRESENT
            || protocol != PPP =>
        {
            Err(Malformed::GreFlags)
        }
        1 => Ok(Layout::CallId),
        _ => Err(Malformed::GreVersion),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Returns the key of the header that an ICMP error quotes, or `None` if the quote ends before the
/// key. An error need not quote more than 8 bytes (RFC 792), and after a checksum the key begins
/// there.
///
/// # Errors
///
/// Returns [`Malformed::IcmpErrorQuoteTruncated`] if not even the flags are quoted, and
/// [`Malformed::IcmpErrorQuoteMalformed`] for a header that would not have been forwarded.
pub(super) fn quoted_key(bytes: &[u8]) -> Result<Option<GreKey>, Malformed> {
    let Some([f0, f1, p0, p1]) = word(bytes, 0) else {
        return Err(Malformed::IcmpErrorQuoteTruncated);
    };
    let layout = layout(u16::from_be_bytes([f0, f1]), u16::from_be_bytes([p0, p1]))
        .map_err(|_| Malformed::IcmpErrorQuoteMalformed)?;
    match layout {
        Layout::None => Ok(Some(GreKey::None)),
        Layout::Key { offset } => {
            Ok(word(bytes, offset).map(|key| GreKey::Key(u32::from_be_bytes(key))))
        }
        Layout::CallId => match word(bytes, 4) {
            Some([_, _, a, b]) => Ok(Some(GreKey::CallId(u16::from_be_bytes([a, b])))),
            None => Err(Malformed::IcmpErrorQuoteTruncated),
        },
    }
}

/// Parses the GRE packet that is the payload of an IP packet.
pub(super) fn parse(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    let Some([f0, f1, p0, p1]) = word(payload, 0) else {
        return Err(Malformed::GreHeaderTruncated);
    };
    let flags = u16::from_be_bytes([f0, f1]);
    let protocol = u16::from_be_bytes([p0, p1]);
    let layout = layout(flags, protocol)?;
    let mut header_len = MIN_HEADER_LEN;
    for field in [CHECKSUM_PRESENT, KEY_PRESENT, SEQUENCE_PRESENT] {
        header_len += 4 * usize::from(flags & field != 0);
    }
    if let Layout::CallId = layout {
        header_len += 4 * usize::from(flags & ACKNOWLEDGMENT_PRESENT != 0);
    }
    let Some(rest) = payload.get(header_len..) else {
        return Err(Malformed::GreHeaderTruncated);
    };
    let key = match layout {
        Layout::None => GreKey::None,
        Layout::Key { offset } => match word(payload, offset) {
            Some(key) => GreKey::Key(u32::from_be_bytes(key)),
            None => return Err(Malformed::GreHeaderTruncated),
        },
        Layout::CallId => match word(payload, 4) {
            // The upper half of the key is the length of the payload (RFC 2637, section 4.1).
            Some([l0, l1, a, b]) => {
                if rest.len() < usize::from(u16::from_be_bytes([l0, l1])) && !extent.is_first() {
                    return Err(Malformed::GrePayloadLength);
                }
                GreKey::CallId(u16::from_be_bytes([a, b]))
            }
            None => return Err(Malformed::GreHeaderTruncated),
        },
    };
    // The checksum covers header and payload, without a pseudo header (RFC 2784, section 2.5).
    if extent.is_verified() && flags & CHECKSUM_PRESENT != 0 && !checksum::is_valid(payload) {
        return Err(Malformed::GreChecksum);
    }
    Ok(Parsed {
        ip,
        transport: Transport::Gre { key, protocol },
    })
}
