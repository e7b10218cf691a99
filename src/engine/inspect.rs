//! Detailed inspection of a single session, for operators.

use std::time::{Duration, Instant};

use super::Engine;
use crate::flow::Direction;
use crate::packet::PROTOCOL_TCP;
use crate::session::{SessionId, SessionRecord, Slot};
use crate::track::Lifetime;
use crate::track::tcp::Side;

/// Details of a live session in addition to its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionDetail {
    /// The session's record.
    pub record: SessionRecord,
    /// For TCP: sent and allowed sequence numbers of each end, original first.
    pub sides: Option<[Side; 2]>,
    /// TCP is tracked liberally: segments outside the window are allowed.
    pub liberal: bool,
    /// Lifetime of the session's state.
    pub lifetime: Lifetime,
    /// Length of that lifetime.
    pub lifetime_length: Duration,
    /// Profile of lifetimes: 0 is the global one, n the n-th override.
    pub profile: u8,
    /// Remaining lifetime; zero for a session that is over.
    pub left: Duration,
    /// The session has announced sessions that are live.
    pub has_children: bool,
    /// The session that announced this one, while that session is live.
    pub parent: Option<SessionRecord>,
    /// Whether a full table may evict the session for a new one, if no session of a lower eviction
    /// class exists.
    pub evictable: bool,
}

impl Engine {
    /// Returns a live session by its identifier. Takes the lock of its shard briefly.
    #[must_use]
    pub fn inspect(&self, id: SessionId, now: Instant) -> Option<SessionDetail> {
        let moment = self.origin.micros(now);
        let mut detail = self.with_session(id, |settings, slot, record| {
            let lifetime = slot.lifetime();
            let is_tcp = slot.key.protocol() == PROTOCOL_TCP;
            let millis = settings.millis(slot.profile, lifetime);
            SessionDetail {
                sides: is_tcp.then(|| Direction::BOTH.map(|direction| slot.track.side(direction))),
                liberal: is_tcp && slot.track.is_liberal(),
                lifetime,
                lifetime_length: Duration::from_millis(u64::from(millis)),
                profile: slot.profile,
                left: record.expires.saturating_duration_since(now),
                has_children: false,
                parent: None,
                evictable: slot.is_evictable(moment),
                record,
            }
        })?;
        detail.has_children = self.helpers.has_children(id);
        let parent = detail.record.parent;
        detail.parent = parent.and_then(|parent| self.with_session(parent, |_, _, record| record));
        Some(detail)
    }

    fn with_session<R>(
        &self,
        id: SessionId,
        read: impl FnOnce(&super::Settings, &Slot, SessionRecord) -> R,
    ) -> Option<R> {
        let (shard_id, _) = self.table.slot_of(id);
        let held = self.table.lock(shard_id);
        let shard = &held.shard;
        let session = self.table.find_id(shard, id)?;
        let record = self.record_of(shard, shard_id, session)?;
        Some(read(&held.settings, shard.slab.hot(session), record))
    }
}
