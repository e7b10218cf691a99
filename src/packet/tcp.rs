//! TCP: the header fields that session tracking needs, and the options.

use std::fmt;

use super::{Checksums, Ip, Malformed, Parsed, SeqNum, TcpFlags, Transport, checksum};

/// Bytes of a TCP header without options (RFC 9293, section 3.1).
pub(super) const MIN_HEADER_LEN: usize = 20;

/// Maximum shift of a window scale option (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// A TCP segment without its ports and its payload: the fields that session tracking uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: SeqNum,
    /// Acknowledgment number as on the wire; valid only with the flag ACK.
    pub ack: SeqNum,
    /// The flags, in a combination that is [valid](TcpFlags::is_valid_combination).
    pub flags: TcpFlags,
    /// Window as on the wire, not scaled.
    pub window: u16,
    /// Bytes of payload, without SYN and FIN, which take one sequence number each.
    pub payload_len: u32,
    /// Urgent pointer as on the wire; valid only with the flag URG.
    pub urgent: u16,
    /// The options that session tracking uses.
    pub options: TcpOptions,
}

/// The TCP options that session tracking uses, regardless of the segment's flags: the caller must
/// respect that some options are valid only on a SYN. If an option occurs twice, the last one
/// counts; SACK blocks accumulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Maximum segment size in bytes (RFC 9293, section 3.2).
    pub mss: Option<u16>,
    /// Window scale: a shift count, as sent but at most 14 (RFC 7323, section 2.3).
    pub window_scale: Option<u8>,
    /// Selective acknowledgments are permitted (RFC 2018, section 2).
    pub sack_permitted: bool,
    /// Timestamps: the value and the echo reply (RFC 7323, section 3.2).
    pub timestamps: Option<(u32, u32)>,
    /// Selective acknowledgments (RFC 2018, section 3).
    pub sack: SackBlocks,
}

/// Up to four SACK blocks, the most that fit into 40 bytes of options. A block has a left edge, the
/// first byte that is acknowledged, and a right edge, the first byte that is not. The edges are as
/// on the wire, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    /// Blocks as on the wire, zero from `len` on. Bytes rather than numbers need no alignment,
    /// which keeps a parsed packet within two cache lines.
    blocks: [[u8; 8]; Self::CAPACITY],
    len: u8,
}

impl SackBlocks {
    /// Maximum number of blocks.
    pub const CAPACITY: usize = 4;

    /// Returns whether the list has no blocks.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of blocks, at most [`CAPACITY`](Self::CAPACITY).
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns the blocks as (left edge, right edge), in the order of the packet.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        self.blocks
            .iter()
            .take(self.len())
            .map(|&[a, b, c, d, e, f, g, h]| {
                (
                    SeqNum(u32::from_be_bytes([a, b, c, d])),
                    SeqNum(u32::from_be_bytes([e, f, g, h])),
                )
            })
    }

    /// Adds a block as on the wire, unless the list is full.
    #[inline]
    fn push(&mut self, block: [u8; 8]) {
        let len = self.len();
        if let Some(slot) = self.blocks.get_mut(len) {
            *slot = block;
            self.len += 1;
        }
    }
}

/// Creates a list of the first four blocks, each (left edge, right edge).
impl FromIterator<(SeqNum, SeqNum)> for SackBlocks {
    fn from_iter<I: IntoIterator<Item = (SeqNum, SeqNum)>>(blocks: I) -> Self {
        let mut all = Self::default();
        for (left, right) in blocks.into_iter().take(Self::CAPACITY) {
            let edges = (u64::from(left.0) << 32) | u64::from(right.0);
            all.push(edges.to_be_bytes());
        }
        all
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Option kinds (IANA, TCP parameters).
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
}

impl TcpOptions {
    /// Reads the options after the 20 fixed bytes of a TCP header.
    ///
    /// An unknown option, or a known option of a wrong length, is skipped. The walk ends without an
    /// error at an option whose length is below 2 or exceeds the header, as in Linux: earlier
    /// options count.
    #[must_use]
    pub fn parse(options: &[u8]) -> Self {
        Self::usual(options)
            .or_else(|| Self::of_syn(options))
            .unwrap_or_else(|| Self::walk(options))
    }

    /// Reads the two layouts of almost every segment of an established connection: no options, and
    /// aligned timestamps alone (RFC 7323, appendix A).
    #[inline(always)]
    fn usual(options: &[u8]) -> Option<Self> {
        match *options {
            [] => Some(Self::default()),
            [
                kind::NO_OPERATION,
                kind::NO_OPERATION,
                kind::TIMESTAMPS,
                10,
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
            ] => Some(Self {
                timestamps: Some(timestamps([a, b, c, d, e, f, g, h])),
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Reads the options of a SYN in the order of Linux: MSS, SACK permitted, timestamps, padding,
    /// window scale.
    #[inline(always)]
    fn of_syn(options: &[u8]) -> Option<Self> {
        match *options {
            [
                kind::MSS,
                4,
                m,
                n,
                kind::SACK_PERMITTED,
                2,
                kind::TIMESTAMPS,
                10,
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                kind::NO_OPERATION,
                kind::WINDOW_SCALE,
                3,
                shift,
            ] => Some(Self {
                mss: Some(u16::from_be_bytes([m, n])),
                window_scale: Some(shift.min(MAX_WINDOW_SCALE)),
                sack_permitted: true,
                timestamps: Some(timestamps([a, b, c, d, e, f, g, h])),
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Reads options of any layout.
    fn walk(mut rest: &[u8]) -> Self {
        let mut found = Self::default();
        loop {
            let (option_kind, len) = match *rest {
                [] | [kind::END, ..] => return found,
                [kind::NO_OPERATION, ref after @ ..] => {
                    rest = after;
                    continue;
                }
                [option_kind, len, ..] if len >= 2 => (option_kind, usize::from(len)),
                _ => return found,
            };
            let Some((option, after)) = rest.split_at_checked(len) else {
                return found;
            };
            match (option_kind, option) {
                (kind::MSS, &[_, _, a, b]) => found.mss = Some(u16::from_be_bytes([a, b])),
                (kind::WINDOW_SCALE, &[_, _, shift]) => {
                    found.window_scale = Some(shift.min(MAX_WINDOW_SCALE));
                }
                (kind::SACK_PERMITTED, &[_, _]) => found.sack_permitted = true,
                (kind::TIMESTAMPS, &[_, _, a, b, c, d, e, f, g, h]) => {
                    found.timestamps = Some(timestamps([a, b, c, d, e, f, g, h]));
                }
                (kind::SACK, [_, _, blocks @ ..]) => {
                    if let (blocks, []) = blocks.as_chunks::<8>() {
                        for block in blocks {
                            found.sack.push(*block);
                        }
                    }
                }
                _ => {}
            }
            rest = after;
        }
    }
}

/// Splits the body of a timestamps option into the value and the echo reply.
#[inline]
fn timestamps([a, b, c, d, e, f, g, h]: [u8; 8]) -> (u32, u32) {
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// Parses the TCP segment that is the payload of an IP packet.
#[inline(always)]
pub(super) fn parse(ip: Ip, payload: &[u8], checksums: Checksums) -> Result<Parsed, Malformed> {
    let Some((fixed, rest)) = payload.split_first_chunk::<MIN_HEADER_LEN>() else {
        return Err(Malformed::TcpHeaderTruncated);
    };
    let &[_, _, _, _, _, _, _, _, _, _, _, _, offset, flags, ..] = fixed;
    let options_len = (4 * usize::from(offset >> 4)).checked_sub(MIN_HEADER_LEN);
    let Some((options, data)) = options_len.and_then(|len| rest.split_at_checked(len)) else {
        return Err(Malformed::TcpHeaderLength);
    };
    if checksums.are_verified() && !checksum::transport_is_valid(ip, payload) {
        return Err(Malformed::TcpChecksum);
    }
    if !TcpFlags(flags).is_valid_combination() {
        return Err(Malformed::TcpFlags);
    }
    match TcpOptions::usual(options) {
        Some(options) => assemble(ip, fixed, options, data.len()),
        None => walk_and_assemble(ip, fixed, options, data.len()),
    }
}

/// Assembles the result from a valid header. Never fails, but returns a `Result`, so that it is
/// built in place and not copied.
#[inline(always)]
fn assemble(
    ip: Ip,
    fixed: &[u8; MIN_HEADER_LEN],
    options: TcpOptions,
    payload_len: usize,
) -> Result<Parsed, Malformed> {
    let &[
        p0,
        p1,
        p2,
        p3,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3,
        _,
        flags,
        w0,
        w1,
        _,
        _,
        u0,
        u1,
    ] = fixed;
    Ok(Parsed {
        ip,
        transport: Transport::Tcp {
            src_port: u16::from_be_bytes([p0, p1]),
            dst_port: u16::from_be_bytes([p2, p3]),
            segment: Segment {
                seq: SeqNum(u32::from_be_bytes([s0, s1, s2, s3])),
                ack: SeqNum(u32::from_be_bytes([a0, a1, a2, a3])),
                flags: TcpFlags(flags),
                window: u16::from_be_bytes([w0, w1]),
                payload_len: payload_len as u32,
                urgent: u16::from_be_bytes([u0, u1]),
                options,
            },
        },
    })
}

/// Parses unusual options for [`assemble`]. A separate function, because options in memory slow
/// down the usual segment.
#[inline(never)]
fn walk_and_assemble(
    ip: Ip,
    fixed: &[u8; MIN_HEADER_LEN],
    options: &[u8],
    payload_len: usize,
) -> Result<Parsed, Malformed> {
    match TcpOptions::of_syn(options) {
        Some(found) => assemble(ip, fixed, found, payload_len),
        None => assemble(ip, fixed, TcpOptions::walk(options), payload_len),
    }
}
