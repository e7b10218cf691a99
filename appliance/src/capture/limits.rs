//! Constants of written captures, in either format.

/// Maximum length of a written packet, and the snap length that the file declares: 262,144 bytes.
/// libpcap rejects longer records (`MAXIMUM_SNAPLEN`).
pub(crate) const MAX_PACKET: usize = 262_144;

/// `LINKTYPE_RAW`: a record begins with the IP header.
pub(super) const LINKTYPE_RAW: u32 = 101;
