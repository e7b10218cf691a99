//! Conversion of slots to records, which leave the table.

use std::time::Instant;

use super::Engine;
use super::ftp_settings::Parent;
use super::live::Live;
use super::settings::Settings;
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_GRE};
use crate::policy::RuleId;
use crate::session::{
    Cold, Ended, Mark, Micros, SessionId, SessionRecord, SessionUid, Shard, ShardId, Slot, SlotId,
    TICK, Traffic, TunnelRef,
};

/// Returns the name of the session's state.
pub(super) fn state_name(slot: &Slot) -> &'static str {
    slot.state_name()
}

/// Data that a shard keeps beside a session.
#[derive(Debug, Clone, Copy)]
struct Beside {
    tunnels: [TunnelRef; 2],
    stored: Option<u32>,
    origin: Option<SessionUid>,
}

impl Beside {
    fn of(shard: &Shard, slot: SlotId) -> Self {
        Self {
            tunnels: shard.slab.tunnels(slot),
            stored: shard.slab.stored(slot).epoch(),
            origin: shard.slab.origin(slot),
        }
    }
}

impl Engine {
    /// Returns the identifier of a session that this engine has opened.
    pub(super) const fn uid(&self, id: SessionId) -> SessionUid {
        SessionUid::new(self.number, id)
    }

    /// Returns the names of a control session, which another engine may have opened.
    pub(super) fn control_session(
        &self,
        session: SessionId,
        origin: Option<SessionUid>,
        rule: RuleId,
    ) -> Parent {
        Parent {
            session,
            uid: origin.unwrap_or(self.uid(session)),
            rule,
        }
    }

    /// Returns the record of a session in a slot; `None` only before the first packet, when there
    /// are no sessions.
    pub(super) fn record_of(
        &self,
        shard: &Shard,
        shard_id: ShardId,
        slot: SlotId,
    ) -> Option<SessionRecord> {
        let (hot, cold) = (shard.slab.hot(slot), shard.slab.cold(slot));
        let id = self.table.id(shard_id, slot, hot.generation);
        self.record(id, hot, cold, Beside::of(shard, slot))
    }

    fn record(
        &self,
        id: SessionId,
        slot: &Slot,
        cold: &Cold,
        beside: Beside,
    ) -> Option<SessionRecord> {
        let (initiator, key) = (slot.initiator(), &slot.key);
        let parent = self.helpers.parent_of(id);
        let traffic = |direction| {
            let (packets, bytes) = slot.traffic(direction);
            Traffic { packets, bytes }
        };
        Some(SessionRecord {
            id,
            uid: beside.origin.unwrap_or(self.uid(id)),
            zone: key.zone(),
            protocol: key.protocol(),
            src: key.address(initiator),
            src_port: key.port(initiator),
            dst: key.address(initiator.opposite()),
            dst_port: key.port(initiator.opposite()),
            variant: key.variant(),
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
            parent: parent.map(|parent| parent.session),
            parent_uid: parent.map(|parent| parent.uid),
            adopted: cold.has(Mark::Adopted),
            resumed: cold.has(Mark::Resumed),
            bypassed: cold.has(Mark::Bypassed),
            no_longer_admitted: cold.has(Mark::NoLongerAdmitted),
            stored: beside.stored,
            tunnels: beside.tunnels,
        })
    }

    pub(super) fn record_of_ended(&self, shard: ShardId, ended: &Ended) -> Option<SessionRecord> {
        let id = self.table.id(shard, ended.id, ended.slot.generation);
        let beside = Beside {
            tunnels: ended.tunnels,
            stored: ended.stored,
            origin: ended.origin,
        };
        self.record(id, &ended.slot, &ended.cold, beside)
    }

    /// Counts an ended session and reports it to the sink, with a RST to each end where the reason
    /// requires one. No lock is held.
    pub(super) fn report_ended<S: Sink>(
        &self,
        shard: ShardId,
        ended: &Ended,
        told: NotifiedSender,
        sink: &mut S,
    ) {
        self.rule_counters.ended(std::iter::once(ended));
        self.report_counted(shard, ended, told, None, sink);
    }

    /// Reports an ended session like [`Engine::report_ended`]; its rule has counted it. `settings`
    /// are the newest ones, if they are at hand.
    pub(super) fn report_counted<S: Sink>(
        &self,
        shard: ShardId,
        ended: &Ended,
        told: NotifiedSender,
        settings: Option<&Settings>,
        sink: &mut S,
    ) {
        self.counters.ended(ended.reason);
        if S::LISTENS
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            sink.session_ended(&record, ended.reason);
        }
        let id = self.table.id(shard, ended.id, ended.slot.generation);
        self.helpers.ended(id, &ended.slot);
        self.reset_both_ends(id, ended, told, settings, sink);
    }
}

impl Live<'_> {
    /// Returns the record of the session.
    pub(super) fn record(&self, engine: &Engine) -> Option<SessionRecord> {
        engine.record_of(self.shard, self.shard_id, self.slot)
    }
}

/// The sender that needs no RST at a session's end, if any.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotifiedSender {
    pub(super) now: Micros,
    /// Session and direction of the sender to which the verdict on its packet reports the end.
    pub(super) by_verdict: Option<(SessionId, Direction)>,
}

impl NotifiedSender {
    /// Returns the value for a session neither end of which was notified that it has ended.
    pub(super) const fn nobody(now: Micros) -> Self {
        Self {
            now,
            by_verdict: None,
        }
    }

    /// Returns the direction whose sender was notified of the end of a session.
    pub(super) fn direction(&self, id: SessionId) -> Option<Direction> {
        let told = self.by_verdict.filter(|(session, _)| *session == id);
        told.map(|(_, direction)| direction)
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
