//! Sessions that another engine may own: ends that are put off, and copies that are replaced.

use super::EndReason;
use super::id::SlotId;
use super::shard::Slab;
#[cfg(feature = "snapshot")]
use super::shard::{Opened, Shard};
use super::stored::ASKING_TICKS;
use super::time::Micros;
use crate::flow::FlowKey;
use crate::packet::PROTOCOL_TCP;

impl Slab {
    /// Returns whether a session that is over by its lifetime must not end yet: another engine may
    /// own it by now, and is to be asked for first.
    pub(crate) fn is_to_ask(&self, session: SlotId) -> bool {
        let slot = self.hot(session);
        // Only a session that ends by its lifetime is followed by RSTs.
        slot.key.protocol() == PROTOCOL_TCP
            && slot.end_of_life() == EndReason::Timeout
            && self.stored(session).is_to_ask(slot.deadline)
    }

    /// Puts off the end of a session that another engine may own by now; `None` if the session is
    /// to end.
    pub(crate) fn put_off(&mut self, session: SlotId, now: Micros) -> Option<PutOff> {
        if !self.is_to_ask(session) {
            return None;
        }
        let key = self.hot(session).key;
        let mark = self.stored_mut(session)?;
        let epoch = u64::from(mark.epoch()?);
        let deadline = now.tick().saturating_add(ASKING_TICKS);
        mark.ask(deadline);
        Some(PutOff {
            key,
            epoch,
            deadline,
        })
    }
}

/// A session whose end is put off, to ask for its owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PutOff {
    pub(crate) key: FlowKey,
    pub(crate) epoch: u64,
    /// The tick at which the session ends if no other engine owns it.
    pub(crate) deadline: u32,
}

#[cfg(feature = "snapshot")]
impl Shard {
    /// Puts a session in the place of an older copy of it, under the same identifier. Like
    /// [`Shard::insert`], except that the place of the older one is handed over.
    pub(crate) fn replace(&mut self, older: SlotId, hash: u32, session: &Opened<'_>) -> SlotId {
        let generation = self.slab.hot(older).generation;
        let origin = self.unlink(older, EndReason::Moved).origin;
        let slot = self.insert(hash, session);
        debug_assert_eq!(
            slot, older,
            "the slot that was released last is taken first"
        );
        self.slab.hot_mut(slot).generation = generation;
        if let Some(origin) = origin {
            self.slab.set_origin(slot, origin);
        }
        slot
    }
}
