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
    /// Puts off the end of a session that another engine may own by now; `None` if the session is
    /// to end.
    pub(crate) fn put_off(&mut self, session: SlotId, now: Micros) -> Option<PutOff> {
        let slot = self.hot(session);
        let (key, reason, before) = (slot.key, slot.end_of_life(), slot.deadline);
        // Only a session that ends by its lifetime is followed by RSTs.
        if key.protocol() != PROTOCOL_TCP || reason != EndReason::Timeout {
            return None;
        }
        let mark = self.stored_mut(session)?;
        let epoch = u64::from(mark.epoch()?);
        let deadline = now.tick().saturating_add(ASKING_TICKS);
        mark.ask(before, deadline).then_some(PutOff {
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
    /// The tick at which the session ends if nobody else owns it.
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
