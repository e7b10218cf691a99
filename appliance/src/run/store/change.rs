//! Changes of the store that wait to be written.

use std::time::{Duration, Instant};

/// Change of the store. `T` is what the appliance calls the session.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// Writes the record of a session.
    Put {
        session: T,
        key: Vec<u8>,
        epoch: u64,
        value: Vec<u8>,
        /// Time after which the store discards it.
        ttl: Duration,
    },
    /// Writes an announced session.
    Announce {
        key: Vec<u8>,
        value: Vec<u8>,
        /// Time after `since` at which the store discards it.
        ttl: Duration,
        since: Instant,
    },
    /// Deletes the record of a session that has ended here, if it is still of this appliance.
    Delete { key: Vec<u8>, epoch: u64 },
    /// Notifies the former owner of a session that it has moved.
    Notify { key: Vec<u8>, value: Vec<u8> },
    /// Deletes an announced session.
    Withdraw { key: Vec<u8> },
}

impl<T> Change<T> {
    /// Returns whether this is the record of a session, which a later sweep repeats.
    pub(super) const fn is_record(&self) -> bool {
        matches!(self, Self::Put { .. })
    }
}

/// Returns what is left at `now` of a time to live that has begun at `since`.
pub(super) fn time_left(ttl: Duration, since: Instant, now: Instant) -> Duration {
    ttl.saturating_sub(now.saturating_duration_since(since))
}
