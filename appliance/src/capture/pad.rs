//! Packets truncated by the snap length.

/// Maximum length of a packet from [`pad_cut`]: 256 KiB, libpcap's largest snap length and four
/// times the longest IP packet without a jumbo payload.
pub(crate) const MAX_PADDED: usize = 256 << 10;

/// A packet at the length that it had on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padded<'a> {
    /// The packet, captured bytes first, then `padded` zeros.
    pub(crate) bytes: &'a [u8],
    /// Number of bytes at the end that were not captured and are zeros. If not 0, checksums over
    /// the packet's payload are meaningless.
    pub(crate) padded: usize,
}

/// Appends `cut` zeros ([`Frame::cut`](super::Frame::cut)) to the captured bytes of an IP packet,
/// in `scratch`, so that its length is that of the wire.
///
/// A complete packet is returned unchanged and not copied. The result is not longer than
/// [`MAX_PADDED`], unless the captured bytes alone are. `scratch` is overwritten; reuse the buffer,
/// so that it is allocated once.
pub(crate) fn pad_cut<'b>(ip: &'b [u8], cut: usize, scratch: &'b mut Vec<u8>) -> Padded<'b> {
    let padded = cut.min(MAX_PADDED.saturating_sub(ip.len()));
    if padded == 0 {
        return Padded { bytes: ip, padded };
    }
    scratch.clear();
    scratch.extend_from_slice(ip);
    scratch.resize(ip.len() + padded, 0);
    Padded {
        bytes: scratch,
        padded,
    }
}
