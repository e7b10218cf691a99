//! The endless sweep of the table for sessions that are due to be stored, and what becomes of a
//! session that is resumed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use crate::flow::FlowKey;
use crate::policy::RuleId;
use crate::session::SessionId;
use crate::snapshot::SavedSession;

/// The sessions that are stored, and when a new record of one is due.
///
/// A session is stored once it is assured and [`Self::min_age`] old. A new record is due when its
/// state has changed, when [`Self::refresh_bytes`] have passed, or when [`Self::refresh_interval`]
/// has passed and any packet with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreWhen {
    /// The least time since the session's first packet.
    pub min_age: Duration,
    /// The least time between two records of a session, unless more than time has passed.
    pub refresh_interval: Duration,
    /// IP bytes in both directions after which a new record is due; at most 2^32 - 1.
    pub refresh_bytes: u64,
    /// The protocols whose sessions are stored; empty for all.
    pub protocols: BTreeSet<u8>,
    /// The rules whose sessions are stored; `None` for all.
    pub rules: Option<BTreeSet<RuleId>>,
    /// Whether only sessions of resilient rules are stored
    /// ([`RuleConfig::resilient`](crate::config::RuleConfig::resilient)).
    pub resilient: bool,
    /// Whether a new record of each stored session is due, for a store that has lost its records.
    pub everything: bool,
}

impl Default for StoreWhen {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(2),
            refresh_interval: Duration::from_secs(10),
            refresh_bytes: 64 << 20,
            protocols: BTreeSet::new(),
            rules: None,
            resilient: false,
            everything: false,
        }
    }
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct SweepTime {
    /// The time as packets have it.
    pub now: Instant,
    /// The wall-clock time of `now`.
    pub at: SystemTime,
}

/// The place of an endless sweep, and its memory.
#[derive(Debug, Default)]
pub struct SweepCursor {
    pub(crate) shard: usize,
    pub(crate) slot: u32,
    pub(crate) due: Vec<Due>,
}

/// A session that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) key: FlowKey,
    pub(crate) epoch: u64,
    pub(crate) session: SavedSession,
}

/// Work done by one call to [`Engine::sweep`](crate::Engine::sweep).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Slots that were visited, free ones included.
    pub slots: usize,
    /// Sessions that were handed out.
    pub due: usize,
    /// Whether the call has ended a round: the next call begins with the first session again.
    pub round_ended: bool,
}

/// Outcome of [`Engine::resume`](crate::Engine::resume).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumed {
    /// The session goes on in this engine.
    Resumed(SessionId),
    /// The engine had adopted the session midstream, and knows it by its record now.
    Upgraded(SessionId),
    /// The policy does not admit the session, and `policy.on_reload` is `end`.
    Refused,
    /// The engine has the session already, and knows it as well as the record.
    Present,
    /// The lifetime of the session has passed.
    Expired,
    /// The table, the zone or the pair has no room.
    NoRoom,
}
