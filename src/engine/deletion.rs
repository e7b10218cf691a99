//! Sessions that an operator ends, and how sessions are picked out.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Engine;
use crate::event::{EndReason, SessionRecord, Sink};
use crate::flow::Zone;
use crate::policy::{PortRange, Protocol, RuleId};
use crate::session::{Ended, Micros, SessionId};

/// Which sessions are meant: those that fit all of it. What is empty, `None` or zero fits any session, and so does
/// [`SessionFilter::default`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Names of sessions, of which it has one.
    pub ids: Vec<SessionId>,
    /// Prefixes, of which one holds either end.
    pub address: Vec<IpNet>,
    /// Prefixes, of which one holds the initiator.
    pub source: Vec<IpNet>,
    /// Prefixes, of which one holds the responder.
    pub destination: Vec<IpNet>,
    /// Ports, of which one is that of either end; a session of a protocol without ports fits none.
    pub ports: Vec<PortRange>,
    /// The IP protocol.
    pub protocol: Option<Protocol>,
    /// The state's name, as in [`SessionRecord::state`], in upper or lower case.
    pub state: Option<String>,
    /// The zone.
    pub zone: Option<Zone>,
    /// The rule that has admitted it.
    pub rule: Option<RuleId>,
    /// The least time since its first packet.
    pub min_age: Duration,
    /// The least time since its last packet.
    pub min_idle: Duration,
    /// The least number of IP bytes, both directions together.
    pub min_bytes: u64,
}

impl SessionFilter {
    /// Whether a session is meant.
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
                && self
                    .ports
                    .iter()
                    .any(|range| range.contains(session.src_port) || range.contains(session.dst_port))
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

    /// Whether every session is meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Engine {
    /// Ends the sessions that a filter means, and tells `sink` of each, with a RST to both ends of established TCP ones;
    /// returns how many. A late packet of one of them finds out that it was ended ([`EndReason::Deleted`]); a new
    /// connection is free to come, if the policy admits it.
    ///
    /// Each session is looked at once, shard by shard; a shard is locked meanwhile.
    pub fn end_sessions<S: Sink>(&self, filter: &SessionFilter, now: Instant, sink: &mut S) -> usize {
        let moment = self.origin.micros(now);
        let mut count = 0;
        for number in 0..self.table.shards() {
            let ended = self.end_in_shard(number, filter, (now, moment));
            count += ended.len();
            for ended in &ended {
                self.report_ended(number, ended, (moment, None), sink);
            }
        }
        count
    }

    fn end_in_shard(
        &self,
        number: usize,
        filter: &SessionFilter,
        (now, moment): (Instant, Micros),
    ) -> Vec<Ended> {
        let mut held = self.table.lock(number);
        let shard = &mut held.shard;
        let meant: Vec<u32> = shard
            .sessions()
            // One that is over ends by its lifetime, whatever is asked for.
            .filter(|session| shard.slab.hot(*session).deadline > moment.tick())
            .filter(|session| {
                self.record_of(shard, number, *session)
                    .is_some_and(|record| filter.matches(&record, now))
            })
            .collect();
        meant
            .into_iter()
            .map(|session| {
                let ended = shard.remove(session, EndReason::Deleted);
                self.bury(number, &ended, moment);
                ended
            })
            .collect()
    }
}
