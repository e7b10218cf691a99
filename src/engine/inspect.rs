//! One session, looked at closely: for people.

use std::time::{Duration, Instant};

use super::Engine;
use crate::flow::Direction;
use crate::packet::PROTOCOL_TCP;
use crate::session::{SessionId, SessionRecord, Slot};
use crate::track::Lifetime;
use crate::track::tcp::Side;

/// What the engine knows of a live session beside its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionDetail {
    /// Its record.
    pub record: SessionRecord,
    /// Of TCP: what each end has sent and allowed, original first.
    pub sides: Option<[Side; 2]>,
    /// TCP is tracked liberally: what does not fit the window passes.
    pub liberal: bool,
    /// Which lifetime its state has.
    pub lifetime: Lifetime,
    /// How long that is.
    pub lifetime_length: Duration,
    /// Which set of lifetimes applies: 0 is the global one, n the n-th override.
    pub profile: u8,
    /// What is left of it; zero for one that is over.
    pub left: Duration,
    /// Sessions that it has announced live.
    pub has_children: bool,
    /// The session that has announced it, while that lives.
    pub parent: Option<SessionRecord>,
    /// A full table may end it in favour of a new session, if nothing is worth less.
    pub evictable: bool,
}

impl Engine {
    /// Returns a live session by its name. Takes the lock of its shard for a moment.
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
        let (number, session) = self.table.slot_of(id);
        let held = self.table.lock(number);
        let shard = &held.shard;
        let slot = shard
            .sessions_in(session..session.saturating_add(1).min(shard.slots()))
            .next()
            .map(|session| shard.slab.hot(session))?;
        if self.table.id(number, session, slot.generation) != id {
            return None;
        }
        let record = self.record_of(shard, number, session)?;
        Some(read(&held.settings, shard.slab.hot(session), record))
    }
}
