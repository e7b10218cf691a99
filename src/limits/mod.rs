//! Limits on what a zone, a rule or a source may hold, and the counts that they are held against.
//!
//! Every shard counts its sessions here as they begin, change and end, under its own lock. Counts
//! are atomic, so that a packet takes no other shard's lock to read them.

mod accounts;
pub(crate) mod by_zone;
mod prefix;
pub(crate) mod share;
pub(crate) mod sources;

pub(crate) use self::accounts::{Accounts, Standing};
pub(crate) use self::prefix::Prefixes;

/// The limits of one configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    /// The prefixes by which sources and destinations are counted.
    pub(crate) prefixes: Prefixes,
}
