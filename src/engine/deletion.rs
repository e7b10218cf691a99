//! Sessions that an operator ends, and the filter that selects them.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Engine;
use super::record::NotifiedSender;
use super::settings::Settings;
use crate::event::Sink;
use crate::flow::Zone;
use crate::policy::{PortRange, Protocol, RuleId};
use crate::session::{EndReason, Ended, Held, SLICE, SessionId, SessionRecord, ShardId, SlotId};

/// Selects the sessions that match all of its fields. A field that is empty, `None` or zero matches
/// any session; so does [`SessionFilter::default`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Identifiers of sessions, one of which is the session's.
    pub ids: Vec<SessionId>,
    /// Prefixes, one of which contains either end.
    pub address: Vec<IpNet>,
    /// Prefixes, one of which contains the initiator.
    pub source: Vec<IpNet>,
    /// Prefixes, one of which contains the responder.
    pub destination: Vec<IpNet>,
    /// Ports, one of which is that of either end. A session of a protocol without ports never
    /// matches.
    pub ports: Vec<PortRange>,
    /// The IP protocol.
    pub protocol: Option<Protocol>,
    /// The state's name, as in [`SessionRecord::state`], in upper or lower case.
    pub state: Option<String>,
    /// The zone.
    pub zone: Option<Zone>,
    /// The rule that admitted the session.
    pub rule: Option<RuleId>,
    /// Minimum time since the session's first packet.
    pub min_age: Duration,
    /// Minimum time since the session's last packet.
    pub min_idle: Duration,
    /// Minimum number of IP bytes in both directions together.
    pub min_bytes: u64,
}

impl SessionFilter {
    /// Returns whether the filter matches a session.
    #[must_use]
    pub fn matches(&self, session: &SessionRecord, now: Instant) -> bool {
        let within = |nets: &[IpNet], addresses: &[core::net::IpAddr]| {
            nets.is_empty()
                || nets
                    .iter()
                    .any(|net| addresses.iter().any(|each| net.contains(each)))
        };
        let ports = || {
            Protocol(session.protocol).has_ports()
                && self.ports.iter().any(|range| {
                    range.contains(session.src_port) || range.contains(session.dst_port)
                })
        };
        let bytes = session.original.bytes.saturating_add(session.reply.bytes);
        let old_enough = |since, least| now.saturating_duration_since(since) >= least;
        (self.ids.is_empty() || self.ids.contains(&session.id))
            && self.zone.is_none_or(|zone| zone == session.zone)
            && self
                .protocol
                .is_none_or(|protocol| protocol.0 == session.protocol)
            && self.rule.is_none_or(|rule| rule == session.rule)
            && self
                .state
                .as_ref()
                .is_none_or(|state| state.eq_ignore_ascii_case(session.state))
            && bytes >= self.min_bytes
            && (self.ports.is_empty() || ports())
            && within(&self.source, &[session.src])
            && within(&self.destination, &[session.dst])
            && within(&self.address, &[session.src, session.dst])
            && old_enough(session.start, self.min_age)
            && old_enough(session.last, self.min_idle)
    }

    /// Returns whether the filter matches every session.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Engine {
    /// Ends the sessions that a filter matches, and returns their number.
    ///
    /// `sink` receives each ended session, and RSTs to both ends of established TCP sessions. A
    /// late packet of such a session finds that it was ended ([`EndReason::Deleted`]); a new
    /// connection may be opened, if the policy admits it.
    ///
    /// Visits each session once, in short slices under the lock of their shard, as
    /// [`Engine::for_each_session`] does.
    ///
    /// A call makes up to two RSTs for each session that ends. An [`Outbox`](crate::Outbox) has
    /// room for all of them.
    pub fn end_sessions<S: Sink>(
        &self,
        filter: &SessionFilter,
        now: Instant,
        sink: &mut S,
    ) -> usize {
        let moment = self.origin.micros(now);
        let mut count = 0;
        let mut ended = Vec::with_capacity(SLICE as usize);
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                for session in slots.map(SlotId) {
                    ended.extend(self.end_if(held, shard_id, session, filter, now));
                }
            }) {
                count += ended.len();
                if !ended.is_empty() {
                    sink.ends_follow(ended.len());
                }
                // No lock is held: the sink may call the engine.
                for ended in ended.drain(..) {
                    self.report_ended(shard_id, &ended, NotifiedSender::nobody(moment), sink);
                }
            }
        }
        count
    }

    /// Ends the session in a slot if the filter matches it. The caller holds the lock.
    fn end_if(
        &self,
        held: &mut Held<Settings>,
        shard_id: ShardId,
        session: SlotId,
        filter: &SessionFilter,
        now: Instant,
    ) -> Option<Ended> {
        let (shard, moment) = (&mut held.shard, self.origin.micros(now));
        let slot = shard.slab.hot(session);
        // An expired session ends by its lifetime, regardless of the filter.
        if !slot.in_use() || slot.deadline <= moment.tick() {
            return None;
        }
        let record = self.record_of(shard, shard_id, session)?;
        if !filter.matches(&record, now) {
            return None;
        }
        let ended = shard.remove(session, EndReason::Deleted);
        self.bury(shard_id, &ended, moment);
        Some(ended)
    }
}
