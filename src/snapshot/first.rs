//! Streams of the first version, which are read but no longer written.
//!
//! Data after magic and version: the length of the body, the CRC-64 of time and body, the time of
//! the save, and the body in one piece.

use serde::Deserialize;

use super::record::{CHECKSUM, Record, SavedRule};
use super::second::SecondSession;
use super::{RestoreError, SavedTombstone};
use crate::ftp::Expectation;

/// The body of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct FirstVersion {
    sessions: Vec<SecondSession>,
    tombstones: Vec<SavedTombstone>,
    expectations: Vec<Expectation>,
    rules: Vec<SavedRule>,
}

impl FirstVersion {
    pub(super) const NUMBER: u32 = 1;

    /// Reads the data after the version. Returns the records, and the time of the save as bytes.
    pub(super) fn from_rest(rest: &[u8]) -> Result<(Self, [u8; 8]), RestoreError> {
        let torn = RestoreError::Torn;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(torn.clone())?;
        let (checksum, checked) = rest.split_first_chunk::<8>().ok_or(torn.clone())?;
        let (micros, body) = checked.split_first_chunk::<8>().ok_or(torn.clone())?;
        let missing = u64::from_le_bytes(*length).saturating_sub(body.len() as u64);
        if missing > 0 {
            return Err(torn);
        }
        if CHECKSUM.checksum(checked) != u64::from_le_bytes(*checksum) {
            return Err(RestoreError::Checksum);
        }
        let unreadable = |error: postcard::Error| RestoreError::Unreadable(error.to_string());
        let (records, rest) = postcard::take_from_bytes::<Self>(body).map_err(unreadable)?;
        if !rest.is_empty() {
            let what = format!("{} bytes after the last record", rest.len());
            return Err(RestoreError::Unreadable(what));
        }
        Ok((records, *micros))
    }

    /// Calls `each` with every record, in the order of the newer versions.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(Record) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        for SavedRule { number, name } in &self.rules {
            let (number, name) = (*number, name.clone());
            each(Record::Rule(SavedRule { number, name }))?;
        }
        for session in &self.sessions {
            each(Record::Session((*session).into()))?;
        }
        for tombstone in &self.tombstones {
            each(Record::Tombstone(*tombstone))?;
        }
        for expectation in &self.expectations {
            each(Record::Expectation(*expectation))?;
        }
        Ok(())
    }
}
