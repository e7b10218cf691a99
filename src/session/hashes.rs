//! Hashes of a session that were computed before they are needed.

use super::tombstone::TombstoneHash;
use crate::limits::SourceHash;

/// Hashes of a session that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hashes {
    /// The hash of its key in the shard.
    pub(crate) index: u32,
    /// The hash of the counts of its source.
    pub(super) source: SourceHash,
    /// The hash of its key among the tombstones, if it may leave one.
    pub(crate) tombstone: Option<TombstoneHash>,
}
