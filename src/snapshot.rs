//! Sessions outside an engine: what [`Engine::save`](crate::Engine::save) writes and
//! [`Engine::restore`](crate::Engine::restore) reads, session by session or as one stream.
//!
//! A stream is a fixed head (magic, version, length and CRC-64 of the rest) and a body in the
//! [postcard](https://postcard.jamesmunns.com/wire-format) format: [`SavedSession`]s, what is remembered of ended ones, and
//! what control sessions have announced. Times are relative, so that they mean something to another engine: the head has
//! the wall-clock time of the save, and a restore takes what has passed since off each lifetime. A stream that is torn,
//! foreign, of another version or not sound in any record is refused as a whole, before anything is changed.
//!
//! Not in it: fragmented datagrams on their way, what a helper has read of an unfinished line, counters, and the report of
//! asymmetric paths.

use core::net::IpAddr;
use std::time::{Duration, SystemTime};

use crc::{CRC_64_XZ, Crc, Table};
use serde::{Deserialize, Serialize};

use crate::alg::{Expectation, SessionEnds};
use crate::event::EndReason;
use crate::flow::Variant;
use crate::track::tcp::Track;

/// The first bytes of a stream.
const MAGIC: [u8; 8] = *b"PCULLIS\n";

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Magic, version, length and checksum of the body, and the time of the save.
const HEAD: usize = 8 + 4 + 8 + 8 + 8;

const CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// A session as it leaves an engine, or enters one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedSession {
    /// Its zone's number.
    pub zone: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's address.
    pub src: IpAddr,
    /// The initiator's port; the identifier of an ICMP query; 0 for protocols without either.
    pub src_port: u16,
    /// The responder's address.
    pub dst: IpAddr,
    /// The responder's port; the identifier of an ICMP query; 0 for protocols without either.
    pub dst_port: u16,
    /// What else tells two conversations of these ends apart.
    pub variant: Variant,
    /// Microseconds since its first packet.
    pub age_us: u64,
    /// Microseconds since its last packet that counted.
    pub idle_us: u64,
    /// Microseconds that are left of its lifetime.
    pub left_us: u64,
    /// What its protocol's tracker knows.
    pub state: SavedState,
    /// The bits of what few packets ask: replied, assured, state of a protocol without a handshake, letters noted.
    pub flags: u8,
    /// The letters of its history, four bits each.
    pub history: u64,
    /// Marks: adopted 1, resumed 2, bypassed 4, kept against the policy 8.
    pub marks: u8,
    /// Packets in each direction, original first.
    pub packets: [u32; 2],
    /// IP bytes in each direction.
    pub bytes: [u64; 2],
    /// The number of the rule that has admitted it. An engine with another policy asks that one anew.
    pub rule: u16,
    /// The ends of the session that has announced it.
    pub parent: Option<SessionEnds>,
    /// Of a control session: where it goes on.
    pub control: Option<SavedControl>,
    /// What the newest packet of each direction came in, in the words of the engine's caller.
    pub tunnels: [u64; 2],
}

/// Where a control session goes on. Directions are original first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SavedControl {
    /// The number of the next byte of each direction, if a line begins with both.
    pub lines: Option<[u32; 2]>,
    /// The server has answered every command.
    pub at_rest: bool,
    /// The ends have agreed to encrypt it: nothing is read any more.
    pub encrypted: bool,
    /// From which number on nothing of a direction passes, since an announcement was refused.
    pub stopped: [Option<u32>; 2],
}

/// What a tracker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SavedState {
    /// A TCP connection: windows, numbers and state.
    Tcp(Track),
    /// SCTP, DCCP, tunnels: their own words; all else has none.
    Words([u32; 8]),
}

/// What is remembered of a TCP session that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedTombstone {
    pub(crate) zone: u16,
    pub(crate) src: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst: IpAddr,
    pub(crate) dst_port: u16,
    /// The place of its reason in [`EndReason::ALL`].
    pub(crate) reason: u8,
    pub(crate) rule: u16,
    pub(crate) ago_us: u64,
    /// What each end expects, if it is known, and has sent; original first.
    pub(crate) ends: [(Option<u32>, u32); 2],
    pub(crate) challenged: u8,
    pub(crate) tunnels: [u64; 2],
}

impl SavedTombstone {
    pub(crate) fn reason(&self) -> Option<EndReason> {
        EndReason::ALL.get(usize::from(self.reason)).copied()
    }
}

/// The body of a stream.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) tombstones: Vec<SavedTombstone>,
    pub(crate) expectations: Vec<Expectation>,
    /// The names of the rules that the records name by number.
    pub(crate) rules: Vec<(u16, String)>,
}

/// Why a stream, or a record of it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It does not begin like one.
    #[error("this is no stream of saved sessions")]
    Foreign,
    /// It was written by another version.
    #[error("the stream has version {found}; version {VERSION} can be read")]
    Version {
        /// The version of the stream.
        found: u32,
    },
    /// It ends too early, or goes on for too long.
    #[error("the stream is torn: its body has {found} bytes of {expected}")]
    Torn {
        /// Bytes behind the head.
        found: u64,
        /// Bytes that the head announces.
        expected: u64,
    },
    /// Its bytes are not those that were written.
    #[error("the checksum of the stream is wrong")]
    Checksum,
    /// It does not read as records.
    #[error("the stream does not read: {0}")]
    Unreadable(String),
    /// A record says what no session can be.
    #[error("record {record} is no session: {what}")]
    Unsound {
        /// Its place in the stream, counted from 0.
        record: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// How a restore goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreOptions {
    /// Are the tunnel references of the records taken over? Only where they mean the same to the caller as before.
    pub tunnels: bool,
}

/// What a restore has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Restored {
    /// Sessions that go on.
    pub sessions: usize,
    /// Sessions whose lifetime has passed since the save.
    pub expired: usize,
    /// Sessions that the policy does not admit, where `policy.on_reload` is `end`.
    pub refused: usize,
    /// Sessions that the engine has already.
    pub present: usize,
    /// Sessions that found no room.
    pub no_room: usize,
    /// What is remembered of ended sessions.
    pub tombstones: usize,
    /// Announced sessions that may still come.
    pub expectations: usize,
}

impl Saved {
    pub(crate) fn to_stream(&self, at: SystemTime) -> Vec<u8> {
        let mut stream = Vec::with_capacity(HEAD + 128 * self.sessions.len());
        stream.extend_from_slice(&[0; HEAD]);
        // Writing to memory does not fail, and every type here is one that the format knows.
        let mut stream = postcard::to_extend(self, stream).unwrap_or_default();
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since_epoch.as_micros())
            .unwrap_or(u64::MAX)
            .to_le_bytes();
        let Some((head, body)) = stream.split_at_mut_checked(HEAD) else {
            return stream;
        };
        let mut digest = CHECKSUM.digest();
        digest.update(&micros);
        digest.update(body);
        let fields = MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain((body.len() as u64).to_le_bytes())
            .chain(digest.finalize().to_le_bytes())
            .chain(micros);
        for (byte, value) in head.iter_mut().zip(fields) {
            *byte = value;
        }
        stream
    }

    /// The records of a stream, and the time that has passed since it was written.
    pub(crate) fn from_stream(stream: &[u8], at: SystemTime) -> Result<(Self, Duration), RestoreError> {
        let (magic, rest) = stream.split_first_chunk::<8>().ok_or(RestoreError::Foreign)?;
        if *magic != MAGIC {
            return Err(RestoreError::Foreign);
        }
        let torn = |found: usize, expected: u64| RestoreError::Torn {
            found: found as u64,
            expected,
        };
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(torn(0, 0))?;
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(RestoreError::Version { found });
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(torn(0, 0))?;
        let length = u64::from_le_bytes(*length);
        let (checksum, checked) = rest.split_first_chunk::<8>().ok_or(torn(0, length))?;
        let (micros, body) = checked.split_first_chunk::<8>().ok_or(torn(0, length))?;
        if body.len() as u64 != length {
            return Err(torn(body.len(), length));
        }
        if CHECKSUM.checksum(checked) != u64::from_le_bytes(*checksum) {
            return Err(RestoreError::Checksum);
        }
        let unreadable = |error: postcard::Error| RestoreError::Unreadable(error.to_string());
        let (saved, rest) = postcard::take_from_bytes::<Self>(body).map_err(unreadable)?;
        if !rest.is_empty() {
            return Err(RestoreError::Unreadable(format!(
                "{} bytes behind the last record",
                rest.len()
            )));
        }
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(u64::from_le_bytes(*micros)));
        let elapsed = written.and_then(|written| at.duration_since(written).ok());
        Ok((saved, elapsed.unwrap_or_default()))
    }
}
