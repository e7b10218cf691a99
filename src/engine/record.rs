//! Slots to records: what leaves the table.

use super::Engine;
use crate::event::{SessionRecord, Sink, Traffic};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_GRE};
use crate::policy::RuleId;
use crate::session::{Ended, Micros, Shard, Slot, TICK};

/// The state's name.
pub(super) fn state_name(slot: &Slot) -> &'static str {
    slot.state_name()
}

impl Engine {
    /// The record of a session in a slot; `None` only before the first packet, when there is none.
    pub(super) fn record_of(&self, shard: &Shard, number: usize, slot: u32) -> Option<SessionRecord> {
        let cold = shard.slab.cold(slot);
        self.record(
            number,
            slot,
            shard.slab.hot(slot),
            cold.start(),
            cold.rule,
            cold.history,
        )
    }

    fn record(
        &self,
        shard: usize,
        number: u32,
        slot: &Slot,
        start: Micros,
        rule: u16,
        history: crate::session::history::History,
    ) -> Option<SessionRecord> {
        let (initiator, key) = (slot.initiator(), &slot.key);
        let traffic = |direction| {
            let (packets, bytes) = slot.traffic(direction);
            Traffic { packets, bytes }
        };
        Some(SessionRecord {
            id: self.table.id(shard, number, slot.generation),
            zone: key.zone(),
            protocol: key.protocol(),
            src: key.address(initiator),
            src_port: key.port(initiator),
            dst: key.address(initiator.opposite()),
            dst_port: key.port(initiator.opposite()),
            state: state_name(slot),
            assured: slot.assured(),
            history,
            original: traffic(Direction::Original),
            reply: traffic(Direction::Reply),
            start: self.origin.instant(start)?,
            last: self.origin.instant(slot.last())?,
            expires: self.origin.tick_start(slot.deadline)?,
            tunnel: Direction::BOTH.map(|direction| match key.protocol() {
                PROTOCOL_GRE | PROTOCOL_ESP | PROTOCOL_AH => slot.tunnel_id(direction),
                _ => None,
            }),
            rule: RuleId(rule),
            parent: self
                .helpers
                .parent_of(self.table.id(shard, number, slot.generation)),
        })
    }

    pub(super) fn record_of_ended(&self, shard: usize, ended: &Ended) -> Option<SessionRecord> {
        let cold = &ended.cold;
        self.record(
            shard,
            ended.number,
            &ended.slot,
            cold.start(),
            cold.rule,
            cold.history,
        )
    }

    /// Counts an ended session and tells the sink; no lock is held.
    pub(super) fn report_ended<S: Sink>(&self, shard: usize, ended: &Ended, sink: &mut S) {
        self.counters.ended(ended.reason);
        if S::LISTENS
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            sink.session_ended(&record, ended.reason);
        }
        let id = self.table.id(shard, ended.number, ended.slot.generation);
        self.helpers.ended(id, &ended.slot);
    }
}

const _: () = assert!(TICK.as_micros() == 100_000, "the documentation says 100 ms");
