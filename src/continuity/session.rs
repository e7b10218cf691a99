//! The record of a session in a store.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::flow_name::{FlowName, MAX_ZONE_NAME};
use crate::flow::{FlowKey, Zone};
use crate::session::{Mark, SessionUid};
use crate::snapshot::SavedSession;

/// The version of records that [`StoredSession::encode`] writes; version 1 can be read as well. The
/// layout of [`SavedSession`] is a part of it.
pub const STORED_VERSION: u8 = 2;

/// The version whose records have no [`SessionUid`] at their end.
const FIRST: u8 = 1;

/// The first byte of a record.
const MAGIC: u8 = 0xb5;
/// No record is longer.
const MAX_LEN: usize = 1024;

/// A session as a store keeps it: it means the same in every engine.
///
/// Zone and rule are named, since their numbers belong to one engine. The numbers of zones in
/// [`Self::session`] have no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredSession {
    /// The name of the session's zone.
    pub zone: String,
    /// The name of the rule that has admitted the session.
    pub rule: String,
    /// The wall-clock time of the record.
    pub saved_at: SystemTime,
    /// The number of times that the session was taken over by another engine.
    pub epoch: u64,
    /// The session.
    pub session: SavedSession,
}

/// A record as it is written, after magic and version.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    zone: &'a str,
    rule: &'a str,
    saved_at_us: u64,
    epoch: u32,
    session: SavedSession,
}

/// Reason for which bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// The bytes do not begin like a record.
    #[error("this is no record of a stored session")]
    Foreign,
    /// An unknown version wrote the record.
    #[error("the record has version {found}; versions 1 to {STORED_VERSION} can be read")]
    Version {
        /// The version of the record.
        found: u8,
    },
    /// The bytes cannot be parsed.
    #[error("the record does not read")]
    Unreadable,
    /// The record was made further in the future than [`StoredSession::CLOCK_SLACK`].
    #[error("the record is from the future: the clocks of two hosts differ too much")]
    Future,
    /// The record contains values that no session can have, or names an unknown zone.
    #[error("the record is no session: {0}")]
    Unsound(&'static str),
}

impl StoredSession {
    /// The most time by which the clock of the engine that has made a record may be ahead.
    pub const CLOCK_SLACK: Duration = Claim::SLACK;

    /// Returns a record without names and of epoch 0.
    pub(crate) const fn new(saved_at: SystemTime, session: SavedSession) -> Self {
        Self {
            zone: String::new(),
            rule: String::new(),
            saved_at,
            epoch: 0,
            session,
        }
    }

    /// Returns whether this is the record of a conversation.
    #[must_use]
    pub fn is_of(&self, flow: &FlowName) -> bool {
        let session = &self.session;
        let src = SocketAddr::new(session.src, session.src_port);
        let dst = SocketAddr::new(session.dst, session.dst_port);
        // The number of the zone is not in the name.
        FlowKey::between(Zone::DEFAULT, session.protocol, src, dst, session.variant)
            .is_ok_and(|(key, _)| FlowName::new(&key, &self.zone).as_bytes() == flow.as_bytes())
    }

    /// Returns the claim of the record to its flow.
    #[must_use]
    pub fn claim(&self) -> Claim {
        let age = Duration::from_micros(self.session.age_us);
        let began = self.saved_at.checked_sub(age);
        Claim {
            epoch: self.epoch,
            began: began.unwrap_or(SystemTime::UNIX_EPOCH),
            adopted: self.session.marks & Mark::Adopted as u8 != 0,
        }
    }

    /// Returns the time that was left of the session's lifetime when the record was made.
    #[must_use]
    pub const fn time_left(&self) -> Duration {
        Duration::from_micros(self.session.left_us)
    }

    /// Appends the bytes of the record, at most 1 KiB.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let since = self.saved_at.duration_since(SystemTime::UNIX_EPOCH);
        let written = Written {
            zone: &self.zone,
            rule: &self.rule,
            saved_at_us: u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX),
            epoch: u32::try_from(self.epoch).unwrap_or(u32::MAX),
            session: self.session,
        };
        out.extend([MAGIC, STORED_VERSION]);
        // A write to memory does not fail, and the format supports every record.
        let record = (written, self.session.uid);
        if let Ok(bytes) = postcard::to_extend(&record, std::mem::take(out)) {
            *out = bytes;
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Returns why the bytes are not a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoredError> {
        let [MAGIC, version, rest @ ..] = bytes else {
            return Err(StoredError::Foreign);
        };
        if !(FIRST..=STORED_VERSION).contains(version) {
            return Err(StoredError::Version { found: *version });
        }
        if bytes.len() > MAX_LEN {
            return Err(StoredError::Unreadable);
        }
        let unreadable = |_| StoredError::Unreadable;
        let (mut written, mut rest) =
            postcard::take_from_bytes::<Written<'_>>(rest).map_err(unreadable)?;
        if *version > FIRST {
            (written.session.uid, rest) =
                postcard::take_from_bytes::<Option<SessionUid>>(rest).map_err(unreadable)?;
        }
        let named = |name: &str| (1..=MAX_ZONE_NAME).contains(&name.len());
        if !rest.is_empty() || !named(written.zone) || !named(written.rule) {
            return Err(StoredError::Unreadable);
        }
        let saved_at =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(written.saved_at_us));
        Ok(Self {
            zone: written.zone.to_owned(),
            rule: written.rule.to_owned(),
            saved_at: saved_at.ok_or(StoredError::Unreadable)?,
            epoch: u64::from(written.epoch),
            session: written.session,
        })
    }
}
