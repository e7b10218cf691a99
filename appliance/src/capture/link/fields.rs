//! Fields at the beginning of a header.

use super::types::NotIp;

/// Splits off a 16-bit field in network byte order.
pub(super) fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), NotIp> {
    let (field, rest) = bytes.split_first_chunk().ok_or(NotIp::TooShort)?;
    Ok((u16::from_be_bytes(*field), rest))
}

/// Splits bytes at a length.
pub(super) fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), NotIp> {
    bytes.split_at_checked(at).ok_or(NotIp::TooShort)
}
