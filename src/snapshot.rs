//! Sessions outside an engine, as [`Engine::save_to`](crate::Engine::save_to) writes and
//! [`Engine::restore_from`](crate::Engine::restore_from) reads them, session by session or as one
//! stream.
//!
//! A stream has a head (magic, version, the time of the save), chunks of records in the
//! [postcard](https://postcard.jamesmunns.com/wire-format) format, each with a CRC-64 of the stream
//! up to its end, and a last chunk with the number of records. The records are [`SavedSession`]s,
//! the records of ended sessions, the expectations of control sessions, and the names of the rules.
//! A stream is written and read with one chunk in memory.
//!
//! Times are relative, so that they are valid in another engine: the head has the wall-clock time
//! of the save, and a restore subtracts the time since then from each lifetime. A stream that is
//! truncated, foreign, of an unknown version or invalid in any record is refused as a whole, before
//! any change. Streams of versions 1 to 3 can be read; their sessions get new identifiers
//! ([`SessionUid`]).
//!
//! A stream does not contain fragmented datagrams in progress, unfinished lines that a helper has
//! read, counters, or the report of asymmetric paths.

mod first;
mod record;
mod second;
mod stream;

use core::net::IpAddr;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::Variant;
use crate::ftp::SessionEnds;
pub use crate::ftp::helper::SavedControl;
use crate::session::SessionUid;
use crate::session::end::EndReason;
use crate::track::tcp::Track;

pub(crate) use record::{Kind, NamedSession, Record, SavedRule, count_of};
pub use stream::VERSION;
pub(crate) use stream::{Source, Writer};

/// A session outside an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedSession {
    /// Number of the session's zone.
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
    /// Further distinction between conversations of the two ends.
    pub variant: Variant,
    /// Microseconds since its first packet.
    pub age_us: u64,
    /// Microseconds since its last packet that counted.
    pub idle_us: u64,
    /// Microseconds that are left of its lifetime.
    pub left_us: u64,
    /// State of the protocol's tracker.
    pub state: SavedState,
    /// Bits of rarely used state: replied, assured, state of a protocol without a handshake,
    /// recorded letters.
    pub flags: u8,
    /// The letters of its history, four bits each.
    pub history: u64,
    /// Marks: adopted 1, resumed 2, bypassed 4, kept against the policy 8.
    pub marks: u8,
    /// Packets in each direction, original first.
    pub packets: [u32; 2],
    /// IP bytes in each direction.
    pub bytes: [u64; 2],
    /// The number of the rule that admitted it. An engine with a different policy evaluates that
    /// policy.
    pub rule: u16,
    /// The ends of the session that announced it.
    pub parent: Option<SessionEnds>,
    /// For a control session: the position at which it continues.
    pub control: Option<SavedControl>,
    /// Tunnel of the newest packet of each direction, as the engine's caller encodes it.
    pub tunnels: [u64; 2],
    /// The session's identifier in logs, if it is known. It is not a part of the serialized form:
    /// a stream has it after each session.
    #[serde(skip)]
    pub uid: Option<SessionUid>,
}

/// State of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SavedState {
    /// A TCP connection: windows, numbers and state.
    Tcp(Track),
    /// SCTP, DCCP, tunnels: their own words; all other protocols have none.
    Words([u32; 8]),
}

/// Record of a TCP session that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedTombstone {
    pub(crate) zone: u16,
    pub(crate) src: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst: IpAddr,
    pub(crate) dst_port: u16,
    /// The index of its reason in [`EndReason::ALL`].
    pub(crate) reason: u8,
    pub(crate) rule: u16,
    pub(crate) ago_us: u64,
    /// Next expected number of each end, if known, and its last sent number; original first.
    pub(crate) ends: [(Option<u32>, u32); 2],
    pub(crate) challenged: u8,
    pub(crate) tunnels: [u64; 2],
}

impl SavedTombstone {
    pub(crate) fn reason(&self) -> Option<EndReason> {
        EndReason::ALL.get(usize::from(self.reason)).copied()
    }
}

/// Reason for which a stream, or a record of it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The data does not begin like a snapshot.
    #[error("this is not a stream of saved sessions")]
    Foreign,
    /// An unknown version wrote the stream.
    #[error("the stream has version {found}; versions 1 to {VERSION} can be read")]
    Version {
        /// The version of the stream.
        found: u32,
    },
    /// The stream ends too early.
    #[error("the stream is truncated: it ends before its last record")]
    Torn,
    /// The bytes differ from those that were written.
    #[error("the checksum of the stream is wrong")]
    Checksum,
    /// The data cannot be parsed as records.
    #[error("the stream cannot be decoded: {0}")]
    Unreadable(String),
    /// The snapshot is older than [`RestoreOptions::max_age`].
    #[error(
        "the stream was saved {} ago, and at most {} are allowed",
        seconds(*age),
        seconds(*max)
    )]
    TooOld {
        /// The time since the save.
        age: Duration,
        /// The limit.
        max: Duration,
    },
    /// The wall clock is before the time of the save, so the age of the sessions is unknown.
    #[error("the stream was saved {} in the future: the clock was set back", seconds(*ahead))]
    ClockWentBack {
        /// Time by which the snapshot is ahead.
        ahead: Duration,
    },
    /// A record contains values that no session can have.
    #[error("record {record} is not a session: {what}")]
    Unsound {
        /// Position of the record in the stream, counted from 0.
        record: usize,
        /// Description of the fault.
        what: &'static str,
    },
    /// Reading the stream failed.
    #[error("{what}")]
    Read {
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The system's error.
        what: String,
    },
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        Self::Read {
            kind: error.kind(),
            what: error.to_string(),
        }
    }
}

/// Counts of the written records of a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Saved {
    /// Sessions.
    pub sessions: u64,
    /// Tombstones of ended sessions.
    pub tombstones: u64,
    /// Announced sessions that may still open.
    pub expectations: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Options of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreOptions {
    /// Are the tunnel references of the records taken over? Only where they mean the same to the
    /// caller as before.
    pub tunnels: bool,
    /// Whether packets of the sessions have passed since the save, as after a crash that followed a
    /// checkpoint. Where each end of a TCP connection stands is learned anew then, from its next
    /// segments; a handshake counts as completed; and control sessions are read from their next
    /// lines on.
    pub moved_on: bool,
    /// Refuses a stream that was saved longer ago, or more than [`Self::CLOCK_SLACK`] in the
    /// future. Without it, any stream is taken, and one of the future as if it were of now.
    pub max_age: Option<Duration>,
}

impl RestoreOptions {
    /// Time by which the clock may have gone back since the save, where `max_age` is set: more than
    /// a time server corrects a running clock.
    pub const CLOCK_SLACK: Duration = Duration::from_secs(10);
}

/// Result of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Restored {
    /// The time since the save, by the wall clock.
    pub age: Duration,
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
    /// Tombstones of ended sessions.
    pub tombstones: usize,
    /// Announced sessions that may still open.
    pub expectations: usize,
}
