//! DCCP: the generic header, and the acknowledgment number after it (RFC 4340).

use super::{Extent, Ip, Malformed, Parsed, Transport, checksum};

/// Bytes of the generic header with a sequence number of 24 bits (RFC 4340, section 5.1).
const SHORT_HEADER_LEN: usize = 12;

/// Bytes of the generic header with a sequence number of 48 bits.
const LONG_HEADER_LEN: usize = 16;

/// The types of DCCP packets (RFC 4340, section 5.1, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DccpType {
    /// Opens a connection.
    Request = 0,
    /// The server's answer to a Request.
    Response = 1,
    /// Data without an acknowledgment.
    Data = 2,
    /// An acknowledgment without data.
    Ack = 3,
    /// DCCP-DataAck: data and an acknowledgment.
    DataAck = 4,
    /// The server requests the client to close.
    CloseReq = 5,
    /// Closes the connection.
    Close = 6,
    /// Ends the connection, in answer to a Close or immediately.
    Reset = 7,
    /// Requests resynchronization after a burst of losses.
    Sync = 8,
    /// Answers a Sync.
    SyncAck = 9,
}

impl DccpType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Request,
        Self::Response,
        Self::Data,
        Self::Ack,
        Self::DataAck,
        Self::CloseReq,
        Self::Close,
        Self::Reset,
        Self::Sync,
        Self::SyncAck,
    ];

    /// Returns the name as RFC 4340 spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::Response => "Response",
            Self::Data => "Data",
            Self::Ack => "Ack",
            Self::DataAck => "DataAck",
            Self::CloseReq => "CloseReq",
            Self::Close => "Close",
            Self::Reset => "Reset",
            Self::Sync => "Sync",
            Self::SyncAck => "SyncAck",
        }
    }

    /// Returns the bytes of an acknowledgment subheader with 48-bit numbers, and of the fields
    /// after it that every packet of this type has: service code, Reset code and data.
    const fn header_len(self) -> (usize, usize) {
        match self {
            Self::Request => (0, 4),
            Self::Response | Self::Reset => (8, 4),
            Self::Data => (0, 0),
            Self::Ack
            | Self::DataAck
            | Self::CloseReq
            | Self::Close
            | Self::Sync
            | Self::SyncAck => (8, 0),
        }
    }

    const fn may_be_short(self) -> bool {
        matches!(self, Self::Data | Self::Ack | Self::DataAck)
    }
}

/// A DCCP packet without its ports: the fields that session tracking uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DccpPacket {
    /// The type.
    pub kind: DccpType,
    /// The sequence number, 48 bits; `None` where only its lower 24 bits were sent.
    pub seq: Option<u64>,
    /// The acknowledgment number, 48 bits; `None` where the packet has none or only its lower 24
    /// bits were sent.
    pub ack: Option<u64>,
    /// Bytes of application data.
    pub payload_len: u16,
}

const fn number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Parses the DCCP packet that is the payload of an IP packet.
pub(super) fn parse(ip: Ip, payload: &[u8], extent: Extent) -> Result<Parsed, Malformed> {
    let Some(&[s0, s1, d0, d1, words, coverage, _, _, type_and_x, _, q0, q1]) =
        payload.first_chunk::<SHORT_HEADER_LEN>()
    else {
        return Err(Malformed::DccpHeaderTruncated);
    };
    let long = type_and_x & 1 != 0;
    let Some(kind) = DccpType::ALL
        .get(usize::from(type_and_x >> 1 & 0x0f))
        .copied()
    else {
        return Err(Malformed::DccpType);
    };
    if !long && !kind.may_be_short() {
        return Err(Malformed::DccpShortSequence);
    }
    let generic_len = if long {
        LONG_HEADER_LEN
    } else {
        SHORT_HEADER_LEN
    };
    let (ack_len, fixed_len) = kind.header_len();
    let least = generic_len + if long { ack_len } else { ack_len / 2 } + fixed_len;
    if payload.len() < least {
        return Err(Malformed::DccpHeaderTruncated);
    }
    let header_len = 4 * usize::from(words);
    let data_len = match payload.len().checked_sub(header_len) {
        _ if header_len < least => return Err(Malformed::DccpDataOffset),
        Some(data_len) => data_len,
        None if extent.is_first() => return Err(Malformed::DccpHeaderTruncated),
        None => return Err(Malformed::DccpDataOffset),
    };
    // CsCov: 0 covers everything, n the header and n - 1 words of data (section 9.2).
    let covered = match usize::from(coverage & 0x0f) {
        0 => payload.len(),
        n => header_len + 4 * (n - 1),
    };
    let covered = match payload.get(..covered) {
        Some(covered) => covered,
        None if extent.is_first() => payload,
        None => return Err(Malformed::DccpChecksumCoverage),
    };
    if extent.is_verified() && !checksum::partial_is_valid(ip, payload.len(), covered) {
        return Err(Malformed::DccpChecksum);
    }
    let seq = match payload.get(SHORT_HEADER_LEN..LONG_HEADER_LEN) {
        Some(&[q2, q3, q4, q5]) if long => Some(number([q0, q1, q2, q3, q4, q5])),
        _ => None,
    };
    let ack = match payload.get(LONG_HEADER_LEN..LONG_HEADER_LEN + ack_len) {
        Some(&[_, _, a0, a1, a2, a3, a4, a5]) if long => Some(number([a0, a1, a2, a3, a4, a5])),
        _ => None,
    };
    Ok(Parsed {
        ip,
        transport: Transport::Dccp {
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            packet: DccpPacket {
                kind,
                seq,
                ack,
                payload_len: data_len as u16,
            },
        },
    })
}
