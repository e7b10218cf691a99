//! The kinds of records of a stream, and the checksum of all its versions.

use crc::{CRC_64_XZ, Crc, Table};
use serde::{Deserialize, Serialize};

use super::{SavedSession, SavedTombstone};
use crate::ftp::Expectation;
use crate::session::SessionUid;

pub(super) static CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// The kinds of records, in their order in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Rule,
    Session,
    Tombstone,
    Expectation,
    End,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Rule,
        Self::Session,
        Self::Tombstone,
        Self::Expectation,
        Self::End,
    ];
}

/// The number of records of each kind except the last.
pub(crate) type Counts = [u64; 4];

/// Returns the number of records of a kind.
pub(crate) fn count_of(counts: &Counts, kind: Kind) -> u64 {
    counts.get(kind as usize).copied().unwrap_or_default()
}

pub(super) fn count(counts: &mut Counts, kind: Kind) {
    if let Some(count) = counts.get_mut(kind as usize) {
        *count += 1;
    }
}

/// One record of a stream.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a record is handed to one call, and a box for each session would cost more"
)]
pub(crate) enum Record {
    Rule(SavedRule),
    Session(SavedSession),
    Tombstone(SavedTombstone),
    Expectation(Expectation),
}

/// The name of a rule that other records name by its number.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedRule {
    pub(crate) number: u16,
    pub(crate) name: String,
}

/// A session with its identifier, as streams since version 4 have it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NamedSession<S = SavedSession> {
    session: S,
    uid: Option<SessionUid>,
}

impl<'s> NamedSession<&'s SavedSession> {
    pub(crate) const fn new(session: &'s SavedSession) -> Self {
        Self {
            session,
            uid: session.uid,
        }
    }
}

impl From<NamedSession> for SavedSession {
    fn from(named: NamedSession) -> Self {
        Self {
            uid: named.uid,
            ..named.session
        }
    }
}
