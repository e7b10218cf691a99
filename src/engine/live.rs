//! A shard and one of its sessions under the shard's lock, as passed between the steps of the
//! packet path.

use super::settings::Settings;
use crate::policy::RuleId;
use crate::policy::handling::Handling;
use crate::session::{
    Cold, EndReason, Ended, Held, KeyPlace, SessionId, Shard, ShardId, Slot, SlotId, Table,
};
use crate::track::EvictionClass;

/// A shard under its lock, and the location of a packet's key in it.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    pub(super) table: &'a Table<Settings>,
    pub(super) shard: &'a mut Shard,
    pub(super) settings: &'a Settings,
    pub(super) place: KeyPlace,
}

impl<'a> Locked<'a> {
    #[inline]
    pub(super) fn new(
        table: &'a Table<Settings>,
        held: &'a mut Held<Settings>,
        place: KeyPlace,
    ) -> Self {
        let Held {
            shard, settings, ..
        } = held;
        Self {
            table,
            shard,
            settings,
            place,
        }
    }

    /// Returns the session in a slot of the shard.
    #[inline]
    pub(super) fn live(&mut self, slot: SlotId) -> Live<'_> {
        Live {
            table: self.table,
            shard: self.shard,
            settings: self.settings,
            shard_id: self.place.shard,
            slot,
        }
    }
}

/// A session under its shard's lock.
#[derive(Debug)]
pub(super) struct Live<'a> {
    table: &'a Table<Settings>,
    pub(super) shard: &'a mut Shard,
    pub(super) settings: &'a Settings,
    pub(super) shard_id: ShardId,
    pub(super) slot: SlotId,
}

impl Live<'_> {
    /// Returns the part of the session that every packet reads.
    #[inline]
    pub(super) fn hot(&self) -> &Slot {
        self.shard.slab.hot(self.slot)
    }

    #[inline]
    pub(super) fn hot_mut(&mut self) -> &mut Slot {
        self.shard.slab.hot_mut(self.slot)
    }

    /// Returns the part of the session that few packets read.
    #[inline]
    pub(super) fn cold(&self) -> &Cold {
        self.shard.slab.cold(self.slot)
    }

    #[inline]
    pub(super) fn cold_mut(&mut self) -> &mut Cold {
        self.shard.slab.cold_mut(self.slot)
    }

    /// Returns the identifier of the session.
    #[inline]
    pub(super) fn id(&self) -> SessionId {
        self.table
            .id(self.shard_id, self.slot, self.hot().generation)
    }

    /// Returns the rule that admitted the session.
    pub(super) fn rule(&self) -> RuleId {
        RuleId(self.cold().rule)
    }

    /// Returns the handling of TCP in the session.
    pub(super) fn tcp(&self) -> Handling {
        self.settings.tcp(self.rule(), self.hot().key.zone())
    }

    /// Sets the deadline of the session, whose class was `before`.
    #[inline]
    pub(super) fn rearm(&mut self, deadline: u32, before: EvictionClass) {
        if self.shard.rearm(self.slot, deadline, before) {
            self.table.note_tick(self.shard_id, deadline);
        }
    }

    /// Schedules the end of a new session by its deadline.
    #[inline]
    pub(super) fn schedule(&mut self) {
        self.shard.schedule(self.slot);
        self.table.note_free(self.shard_id, self.shard);
        self.table.note_tick(self.shard_id, self.hot().deadline);
    }

    /// Ends the session and releases its slot.
    pub(super) fn end(&mut self, reason: EndReason) -> Ended {
        self.shard.remove(self.slot, reason)
    }
}
