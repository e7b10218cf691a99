//! SCTP: the common header and the kinds of chunks of a packet (RFC 9260).

use std::fmt;

use crc::{CRC_32_ISCSI, Crc, Table};

use super::{Extent, Ip, Malformed, Parsed, Transport};

/// Bytes of the common header (RFC 9260, section 3.1).
const HEADER_LEN: usize = 12;

/// Bytes of a chunk's type, flags and length (RFC 9260, section 3.2).
const CHUNK_HEADER_LEN: usize = 4;

/// Bytes of an INIT or INIT ACK chunk without parameters (RFC 9260, sections 3.3.2 and 3.3.3).
const INIT_LEN: usize = 20;

/// Limit on chunks: twice the number of DATA chunks with 1 byte each that a frame of 9000 bytes can
/// hold.
const MAX_CHUNKS: usize = 1024;

/// The type of ABORT (RFC 9260, section 3.3.7).
const ABORT: u8 = 6;

/// The flag T of ABORT and SHUTDOWN COMPLETE (RFC 9260, sections 3.3.7 and 3.3.13).
const FLAG_T: u8 = 0x01;

/// CRC32c (RFC 9260, appendix A), 16 bytes per step.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// An SCTP packet without its ports: the fields that session tracking uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SctpPacket {
    /// The verification tag; 0 in the packet of an INIT, and only there.
    pub tag: u32,
    /// The initiate tag of an INIT or INIT ACK, never 0 there; 0 in every other packet.
    pub initiate_tag: u32,
    /// The kinds of chunks, in a valid combination.
    pub chunks: SctpChunks,
    /// The flag T of an ABORT or SHUTDOWN COMPLETE: the verification tag is that of the packet that
    /// the chunk answers, reflected.
    pub reflected: bool,
}

/// Set of the kinds of chunks in a packet. A set is sufficient, since chunks that may share a
/// packet have one valid order.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SctpChunks(u16);

impl SctpChunks {
    /// DATA (0) or I-DATA (64, RFC 8260).
    pub const DATA: Self = Self(0x0001);
    /// INIT (1), the only chunk of its packet.
    pub const INIT: Self = Self(0x0002);
    /// INIT ACK (2), the only chunk of its packet.
    pub const INIT_ACK: Self = Self(0x0004);
    /// SACK (3).
    pub const SACK: Self = Self(0x0008);
    /// HEARTBEAT (4).
    pub const HEARTBEAT: Self = Self(0x0010);
    /// HEARTBEAT ACK (5).
    pub const HEARTBEAT_ACK: Self = Self(0x0020);
    /// ABORT (6).
    pub const ABORT: Self = Self(0x0040);
    /// SHUTDOWN (7).
    pub const SHUTDOWN: Self = Self(0x0080);
    /// SHUTDOWN ACK (8).
    pub const SHUTDOWN_ACK: Self = Self(0x0100);
    /// ERROR (9).
    pub const ERROR: Self = Self(0x0200);
    /// COOKIE ECHO (10), the first chunk of its packet except for an AUTH.
    pub const COOKIE_ECHO: Self = Self(0x0400);
    /// COOKIE ACK (11), the first chunk of its packet except for an AUTH.
    pub const COOKIE_ACK: Self = Self(0x0800);
    /// SHUTDOWN COMPLETE (14), the only chunk of its packet.
    pub const SHUTDOWN_COMPLETE: Self = Self(0x1000);
    /// AUTH (15, RFC 4895).
    pub const AUTH: Self = Self(0x2000);
    /// ASCONF (0xc1) or ASCONF ACK (0x80, RFC 5061).
    pub const ASCONF: Self = Self(0x8000);
    /// Any other chunk, known or not: the upper bits of its type determine the treatment by its
    /// receiver.
    pub const OTHER: Self = Self(0x4000);

    /// All kinds, with their names.
    const NAMES: [(Self, &'static str); 16] = [
        (Self::DATA, "DATA"),
        (Self::INIT, "INIT"),
        (Self::INIT_ACK, "INIT ACK"),
        (Self::SACK, "SACK"),
        (Self::HEARTBEAT, "HEARTBEAT"),
        (Self::HEARTBEAT_ACK, "HEARTBEAT ACK"),
        (Self::ABORT, "ABORT"),
        (Self::SHUTDOWN, "SHUTDOWN"),
        (Self::SHUTDOWN_ACK, "SHUTDOWN ACK"),
        (Self::ERROR, "ERROR"),
        (Self::COOKIE_ECHO, "COOKIE ECHO"),
        (Self::COOKIE_ACK, "COOKIE ACK"),
        (Self::SHUTDOWN_COMPLETE, "SHUTDOWN COMPLETE"),
        (Self::AUTH, "AUTH"),
        (Self::ASCONF, "ASCONF"),
        (Self::OTHER, "other"),
    ];

    /// Returns whether the set contains any of `kinds`.
    #[inline]
    #[must_use]
    pub const fn any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// Returns the union with `more`.
    #[inline]
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Returns the set without the kinds of `less`.
    #[inline]
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// Returns whether the set is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the kind of a chunk type (IANA, SCTP chunk types).
    const fn of_type(chunk_type: u8) -> Self {
        match chunk_type {
            0 | 64 => Self::DATA,
            1 => Self::INIT,
            2 => Self::INIT_ACK,
            3 => Self::SACK,
            4 => Self::HEARTBEAT,
            5 => Self::HEARTBEAT_ACK,
            ABORT => Self::ABORT,
            7 => Self::SHUTDOWN,
            8 => Self::SHUTDOWN_ACK,
            9 => Self::ERROR,
            10 => Self::COOKIE_ECHO,
            11 => Self::COOKIE_ACK,
            14 => Self::SHUTDOWN_COMPLETE,
            15 => Self::AUTH,
            0x80 | 0xc1 => Self::ASCONF,
            _ => Self::OTHER,
        }
    }
}

impl fmt::Display for SctpChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, name) in Self::NAMES {
            if self.any(kind) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SctpChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SctpChunks({self})")
    }
}

/// Parses the SCTP packet that is the payload of an IP packet.
pub(super) fn parse(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    let Some((&[s0, s1, d0, d1, t0, t1, t2, t3, c0, c1, c2, c3], chunks)) =
        payload.split_first_chunk::<HEADER_LEN>()
    else {
        return Err(Malformed::SctpHeaderTruncated);
    };
    if extent.is_verified() {
        // Unlike the other numbers of the header, the checksum has its least significant byte first
        // (appendix A).
        let stated = u32::from_le_bytes([c0, c1, c2, c3]);
        let mut digest = CRC32C.digest();
        digest.update(&[s0, s1, d0, d1, t0, t1, t2, t3, 0, 0, 0, 0]);
        digest.update(chunks);
        if digest.finalize() != stated {
            return Err(Malformed::SctpChecksum);
        }
    }
    let mut packet = walk(chunks, extent)?;
    packet.tag = u32::from_be_bytes([t0, t1, t2, t3]);
    // RFC 9260, sections 8.5 and 8.5.1.
    if (packet.tag == 0) != packet.chunks.any(SctpChunks::INIT) {
        return Err(Malformed::SctpTagOfInit);
    }
    Ok(Parsed {
        ip,
        transport: Transport::Sctp {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            packet,
        },
    })
}

/// Returns the packet with an ABORT that answers an INIT, from and to these ports. The tag is the
/// initiate tag of the INIT, so the flag T is not set (RFC 9260 8.4, rule 3).
pub(crate) fn abort(from: u16, to: u16, initiate_tag: u32) -> [u8; HEADER_LEN + CHUNK_HEADER_LEN] {
    let [s0, s1] = from.to_be_bytes();
    let [d0, d1] = to.to_be_bytes();
    let [t0, t1, t2, t3] = initiate_tag.to_be_bytes();
    let mut packet = [s0, s1, d0, d1, t0, t1, t2, t3, 0, 0, 0, 0, ABORT, 0, 0, 4];
    let sum = CRC32C.checksum(&packet).to_le_bytes();
    if let Some(field) = packet.get_mut(8..HEADER_LEN) {
        field.copy_from_slice(&sum);
    }
    packet
}

/// Walks the chunks of a packet; the caller sets the tag of the result.
fn walk(mut rest: &[u8], extent: Extent) -> Result<SctpPacket, Malformed> {
    /// The only chunks of their packets (RFC 9260, section 6.10).
    const ALONE: SctpChunks = SctpChunks::INIT
        .and(SctpChunks::INIT_ACK)
        .and(SctpChunks::SHUTDOWN_COMPLETE);
    /// Must be first (RFC 9260, sections 5.1 and 3.3.12), except after an AUTH (RFC 4895, section
    /// 6.3).
    const FIRST: SctpChunks = SctpChunks::COOKIE_ECHO.and(SctpChunks::COOKIE_ACK);
    let mut packet = SctpPacket {
        tag: 0,
        initiate_tag: 0,
        chunks: SctpChunks::default(),
        reflected: false,
    };
    for walked in 0.. {
        let &[chunk_type, flags, l0, l1, ref body @ ..] = rest else {
            break;
        };
        if walked == MAX_CHUNKS {
            return Err(Malformed::SctpTooManyChunks);
        }
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // The length excludes padding, but a receiver skips to the next word, which must be
        // present.
        let after = rest.get(len.next_multiple_of(4)..);
        let after = match after {
            _ if len < CHUNK_HEADER_LEN => return Err(Malformed::SctpChunkLength),
            Some(after) => after,
            None if extent.is_first() => &[],
            None => return Err(Malformed::SctpChunkLength),
        };
        let kind = SctpChunks::of_type(chunk_type);
        let seen = packet.chunks;
        if seen.any(ALONE)
            || (kind.any(ALONE) && !seen.is_empty())
            || (kind.any(FIRST) && !seen.without(SctpChunks::AUTH).is_empty())
            || (seen.any(SctpChunks::ABORT) && kind.any(SctpChunks::DATA))
            || (seen.any(SctpChunks::DATA) && kind.any(SctpChunks::ABORT))
        {
            return Err(Malformed::SctpBundling);
        }
        if kind.any(SctpChunks::INIT.and(SctpChunks::INIT_ACK)) {
            packet.initiate_tag = match body {
                &[a, b, c, d, ..] if len >= INIT_LEN => u32::from_be_bytes([a, b, c, d]),
                _ if len >= INIT_LEN => return Err(Malformed::SctpHeaderTruncated),
                _ => return Err(Malformed::SctpInit),
            };
            if packet.initiate_tag == 0 {
                return Err(Malformed::SctpInit);
            }
        }
        if kind.any(SctpChunks::ABORT.and(SctpChunks::SHUTDOWN_COMPLETE)) {
            packet.reflected = flags & FLAG_T != 0;
        }
        packet.chunks = seen.and(kind);
        rest = after;
    }
    if packet.chunks.is_empty() {
        return Err(Malformed::SctpNoChunk);
    }
    if rest.is_empty() || extent.is_first() {
        Ok(packet)
    } else {
        Err(Malformed::SctpChunkLength)
    }
}
