//! Slots to records: what leaves the table.

use std::time::Instant;

use super::Engine;
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_GRE};
use crate::policy::RuleId;
use crate::session::{
    Cold, Ended, Mark, Micros, SessionId, SessionRecord, Shard, Slot, TICK, Traffic, TunnelRef,
};

/// The state's name.
pub(super) fn state_name(slot: &Slot) -> &'static str {
    slot.state_name()
}

impl Engine {
    /// The record of a session in a slot; `None` only before the first packet, when there is none.
    pub(super) fn record_of(&self, shard: &Shard, number: usize, slot: u32) -> Option<SessionRecord> {
        let (hot, cold) = (shard.slab.hot(slot), shard.slab.cold(slot));
        self.record((number, slot), hot, cold, shard.slab.tunnels(slot))
    }

    fn record(
        &self,
        (shard, number): (usize, u32),
        slot: &Slot,
        cold: &Cold,
        tunnels: [TunnelRef; 2],
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
            history: cold.history(),
            original: traffic(Direction::Original),
            reply: traffic(Direction::Reply),
            start: self.origin.instant(cold.start())?,
            last: self.origin.instant(slot.last())?,
            expires: self.origin.tick_start(slot.deadline)?,
            tunnel: Direction::BOTH.map(|direction| match key.protocol() {
                PROTOCOL_GRE | PROTOCOL_ESP | PROTOCOL_AH => slot.tunnel_id(direction),
                _ => None,
            }),
            rule: RuleId(cold.rule),
            parent: self
                .helpers
                .parent_of(self.table.id(shard, number, slot.generation)),
            adopted: cold.has(Mark::Adopted),
            resumed: cold.has(Mark::Resumed),
            bypassed: cold.has(Mark::Bypassed),
            former: cold.has(Mark::Former),
            tunnels,
        })
    }

    pub(super) fn record_of_ended(&self, shard: usize, ended: &Ended) -> Option<SessionRecord> {
        self.record((shard, ended.number), &ended.slot, &ended.cold, ended.tunnels)
    }

    /// `answered`: a session whose end was told to the sender of a direction already. Counts an ended session and tells the sink, with a RST to each end where its end calls for it; no lock is held.
    pub(super) fn report_ended<S: Sink>(
        &self,
        shard: usize,
        ended: &Ended,
        (now, answered): (Micros, Option<(SessionId, Direction)>),
        sink: &mut S,
    ) {
        self.counters.ended(ended.reason);
        self.rule_counters.ended(RuleId(ended.cold.rule), &ended.slot);
        if S::LISTENS
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            sink.session_ended(&record, ended.reason);
        }
        let id = self.table.id(shard, ended.number, ended.slot.generation);
        self.helpers.ended(id, &ended.slot);
        let answered = answered
            .filter(|(session, _)| *session == id)
            .map(|(_, direction)| direction);
        self.reset_both_ends(shard, ended, (now, answered), sink);
    }
}

const _: () = assert!(TICK.as_micros() == 100_000, "the documentation says 100 ms");

/// Traces that a packet belongs to a session.
pub(super) fn trace_found<T: Trace>(
    session: SessionRecord,
    direction: Direction,
    now: Instant,
    trace: &mut T,
) {
    trace.step(|| Step::Found {
        idle: now.saturating_duration_since(session.last),
        left: session.expires.saturating_duration_since(now),
        session: Box::new(session),
        direction,
    });
}
