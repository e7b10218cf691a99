//! Families of the engine: packets, rules, sessions, challenges, RSTs and helpers.

use std::collections::BTreeMap;

use portcullis::{RuleUse, Zone};
use prometheus_client::registry::Unit;

use super::families::{Families, Family, Written};
use super::readings::Readings;
use crate::run::census::protocol_label;

impl Readings {
    pub(super) fn packets(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counters(
            Family::new(
                "portcullis_forwarded_packets",
                "Inner packets forwarded, by their relation to the sessions",
            ),
            stats
                .forwarded
                .iter()
                .map(|(class, count)| ([("class", class.name())], *count)),
        )?;
        to.bytes(
            "portcullis_forwarded",
            "Inner IP bytes forwarded",
            stats.forwarded_bytes,
        )?;
        to.counters(
            Family::new(
                "portcullis_dropped_packets",
                "Inner packets dropped, rejected ones included, by reason",
            ),
            stats
                .dropped
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_rejected_packets",
            "Dropped packets that call for a RST, an SCTP ABORT or an ICMP error",
            stats.rejected,
        )?;
        to.counters(
            Family::new(
                "portcullis_tolerated_packets",
                "Packets forwarded although a check failed, because the check only counts or the \
                 session is tracked liberally, and packets that an audit rule admitted",
            ),
            self.tolerated.iter().map(|(reason, rule, count)| {
                ([("reason", *reason), ("rule", rule.as_str())], *count)
            }),
        )?;
        to.counters(
            Family::new(
                "portcullis_limited_sessions",
                "New sessions that would have exceeded a limit, by the rule that would have \
                 admitted them",
            ),
            self.limited
                .iter()
                .map(|(limit, rule, count)| ([("limit", *limit), ("rule", rule.as_str())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_rule_hits",
                "New sessions that a rule has decided",
            ),
            self.rules
                .iter()
                .map(|rule| ([("rule", rule.name.as_str())], rule.hits)),
        )?;
        self.rule_traffic(to)
    }

    /// Traffic of each rule's sessions that have ended: no scrape visits live ones, of which there
    /// may be millions.
    pub(super) fn rule_traffic(&self, to: &mut Families<'_, '_>) -> Written {
        let by_rule = |value: fn(&RuleUse) -> u64| {
            let rules = self.rules.iter();
            rules.map(move |rule| ([("rule", rule.name.as_str())], value(rule)))
        };
        to.counters(
            Family::new(
                "portcullis_rule_sessions_ended",
                "Sessions of a rule that have ended",
            ),
            by_rule(|rule| rule.ended.sessions),
        )?;
        to.counters(
            Family::new(
                "portcullis_rule_packets",
                "Packets of a rule's sessions that have ended, in both directions",
            ),
            by_rule(|rule| rule.ended.packets),
        )?;
        to.counters(
            Family::new(
                "portcullis_rule",
                "IP bytes of a rule's sessions that have ended, in both directions",
            )
            .in_unit(&Unit::Bytes),
            by_rule(|rule| rule.ended.bytes),
        )?;
        let matched = self.rules.iter().filter_map(|rule| {
            let last = self.clock.at(rule.last_match?).as_secs();
            Some(([("rule", rule.name.as_str())], last))
        });
        to.gauges(
            Family::new(
                "portcullis_rule_last_match_timestamp_seconds",
                "Time of a rule's last decision about a new session, in seconds since the Unix \
                 epoch",
            ),
            matched,
        )
    }

    pub(super) fn table(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.gauges(
            Family::new(
                "portcullis_sessions",
                "Current sessions, by the class in which a full table evicts them",
            ),
            stats
                .sessions_by_worth
                .iter()
                .map(|(class, count)| ([("worth", class.name())], *count as u64)),
        )?;
        to.gauge(
            Family::new("portcullis_sessions_max", "The bound of the session table"),
            stats.max_sessions as u64,
        )?;
        to.counter(
            "portcullis_sessions_opened",
            "Sessions opened",
            stats.sessions_opened,
        )?;
        to.counters(
            Family::new("portcullis_sessions_ended", "Sessions ended, by reason"),
            stats
                .sessions_ended
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_sessions_adopted",
            "Opened sessions that were picked up in their middle, resumed ones included",
            stats.sessions_adopted,
        )?;
        to.counter(
            "portcullis_sessions_resumed",
            "Adopted sessions whose first packet was a late one that was readmitted",
            stats.sessions_resumed,
        )?;
        to.counter(
            "portcullis_sessions_bypassed",
            "Sessions bypassed because half of them is missing",
            stats.sessions_bypassed,
        )?;
        to.gauge(
            Family::new(
                "portcullis_tombstones",
                "Ended sessions that are remembered",
            ),
            stats.tombstones as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_fragmented_datagrams",
                "Incomplete fragmented datagrams that are forwarded",
            ),
            self.datagrams as u64,
        )?;
        to.counter(
            "portcullis_fragmented_datagrams_given_up",
            "Incomplete fragmented datagrams given up for newer ones, at the bound of their \
             source or of all",
            stats.datagrams_given_up,
        )?;
        to.counter(
            "portcullis_fragments_held",
            "Fragments held because the first one had not come; each is counted as forwarded or \
             dropped later",
            stats.fragments_held,
        )?;
        to.gauge(
            Family::new(
                "portcullis_fragments_waiting",
                "Fragments that are held now",
            ),
            stats.fragments_waiting as u64,
        )
    }

    /// Writes the sessions as they were last counted.
    pub(super) fn sessions(&self, to: &mut Families<'_, '_>) -> Written {
        let zone = |zone: Option<Zone>| {
            zone.map_or_else(|| "other".to_owned(), |zone| self.zones.name(zone))
        };
        // A zone may have the name of a label that represents others.
        let mut rows: BTreeMap<_, u64> = BTreeMap::new();
        for ((of, protocol, state), count) in &self.counted.sessions {
            *rows
                .entry((zone(*of), protocol_label(*protocol), *state))
                .or_default() += *count;
        }
        to.gauges(
            Family::new(
                "portcullis_sessions_by_state",
                "Sessions by zone, protocol and state, as last counted; `other` are rare \
                 protocols, and zones after the 64th",
            ),
            rows.iter().map(|((zone, protocol, state), count)| {
                let labels = [
                    ("zone", zone.as_str()),
                    ("protocol", protocol.as_str()),
                    ("state", *state),
                ];
                (labels, *count)
            }),
        )?;
        // The age is unknown before the first count.
        let Some(age) = self.counted.age else {
            return Ok(());
        };
        to.gauge(
            Family::new(
                "portcullis_sessions_by_state_age",
                "Age of the count of sessions by state: counted every 10 s while metrics are \
                 read, or every 20 durations of a count",
            )
            .in_unit(&Unit::Seconds),
            age.as_secs_f64(),
        )
    }

    pub(super) fn challenges(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counters(
            Family::new(
                "portcullis_syn_challenge_events",
                "SYNs of unknown sources, and challenges, by outcome",
            ),
            stats
                .challenge_events
                .iter()
                .map(|(event, count)| ([("event", event.name())], *count)),
        )?;
        to.gauge(
            Family::new(
                "portcullis_syn_challenge_zones",
                "Zones whose unknown sources are challenged now",
            ),
            stats.challenging_zones.len() as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_syn_challenge_known_sources",
                "Sources that have proven themselves and are not challenged",
            ),
            stats.known_sources as u64,
        )
    }

    pub(super) fn resets_and_helpers(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counter(
            "portcullis_resets_sent",
            "RSTs made at the end of sessions and for late packets",
            stats.resets_sent,
        )?;
        to.counters(
            Family::new(
                "portcullis_resets_unsent",
                "RSTs that were not made, by reason",
            ),
            stats
                .resets_unsent
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_helper_events",
                "Events of helpers in control sessions",
            ),
            stats
                .helper_events
                .iter()
                .map(|(event, count)| ([("event", event.name())], *count)),
        )?;
        to.gauge(
            Family::new(
                "portcullis_control_sessions",
                "Control sessions that a helper inspects",
            ),
            stats.control_sessions as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_expectations",
                "Announced sessions that have not come yet",
            ),
            stats.expectations as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_asymmetry_lines",
                "Lines of the report of asymmetric paths",
            ),
            self.asymmetry.lines.len() as u64,
        )?;
        to.counter(
            "portcullis_asymmetry_unlisted_packets",
            "Packets of asymmetric paths whose line found no room in the report",
            self.asymmetry.unlisted,
        )
    }
}
