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
                "Inner packets let pass, by their relation to the sessions",
            ),
            stats
                .forwarded
                .iter()
                .map(|(class, count)| ([("class", class.name())], *count)),
        )?;
        to.bytes(
            "portcullis_forwarded",
            "Inner IP bytes let pass",
            stats.forwarded_bytes,
        )?;
        to.counters(
            Family::new(
                "portcullis_dropped_packets",
                "Inner packets not let pass, rejected ones included, by reason",
            ),
            stats
                .dropped
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_rejected_packets",
            "Of the dropped packets: those that earn a RST, an SCTP ABORT or an ICMP error",
            stats.rejected,
        )?;
        to.counters(
Family::new("portcullis_tolerated_packets", "Packets let pass although a check failed, since it only counts or the session is tracked liberally, or that an audit rule has admitted"),
            self.tolerated
                .iter()
                .map(|(reason, rule, count)| ([("reason", *reason), ("rule", rule.as_str())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_limited_sessions",
                "New sessions that would have exceeded a limit, by the rule that would have admitted them",
            ),
            self.limited
                .iter()
                .map(|(limit, rule, count)| ([("limit", *limit), ("rule", rule.as_str())], *count)),
        )?;
        to.counters(
            Family::new("portcullis_rule_hits", "New sessions that a rule has decided"),
            self.rules
                .iter()
                .map(|rule| ([("rule", rule.name.as_str())], rule.hits)),
        )?;
        self.rule_traffic(to)
    }

    /// Traffic of each rule's sessions that have ended: no scrape looks at live ones, of which
    /// there may be millions.
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
                "When a rule last decided about a new session, in seconds since the Unix epoch",
            ),
            matched,
        )
    }

    pub(super) fn table(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.gauges(
            Family::new(
                "portcullis_sessions",
                "Sessions now, by what they are worth to a full table",
            ),
            stats
                .sessions_by_worth
                .iter()
                .map(|(worth, count)| ([("worth", worth.name())], *count as u64)),
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
            "Of the sessions opened: picked up in their middle, resumed ones included",
            stats.sessions_adopted,
        )?;
        to.counter(
            "portcullis_sessions_resumed",
            "Of the sessions adopted: late packets that were readmitted",
            stats.sessions_resumed,
        )?;
        to.counter(
            "portcullis_sessions_bypassed",
            "Sessions that pass although half of them is missing",
            stats.sessions_bypassed,
        )?;
        to.gauge(
            Family::new("portcullis_tombstones", "Ended sessions that are remembered"),
            stats.tombstones as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_fragmented_datagrams",
                "Fragmented datagrams that pass and of which something is missing",
            ),
            self.datagrams as u64,
        )?;
        to.counter(
            "portcullis_fragmented_datagrams_given_up",
            "Of those: given up for newer ones, at a bound of their source or of all",
            stats.datagrams_given_up,
        )?;
        to.counter(
            "portcullis_fragments_held",
            "Fragments held since their first one had not come; each is counted as forwarded or dropped later",
            stats.fragments_held,
        )?;
        to.gauge(
            Family::new("portcullis_fragments_waiting", "Fragments that are held now"),
            stats.fragments_waiting as u64,
        )
    }

    /// The sessions as they were last counted.
    pub(super) fn sessions(&self, to: &mut Families<'_, '_>) -> Written {
        let zone = |zone: Option<Zone>| zone.map_or_else(|| "other".to_owned(), |zone| self.zones.name(zone));
        // A zone may have the name of a label that stands for others.
        let mut rows: BTreeMap<_, u64> = BTreeMap::new();
        for ((of, protocol, state), count) in &self.counted.sessions {
            *rows
                .entry((zone(*of), protocol_label(*protocol), *state))
                .or_default() += *count;
        }
        to.gauges(
Family::new("portcullis_sessions_by_state", "Sessions by zone, protocol and state, as last counted; `other` are rare protocols, and zones after the 64th"),
            rows.iter().map(|((zone, protocol, state), count)| {
                let labels = [
                    ("zone", zone.as_str()),
                    ("protocol", protocol.as_str()),
                    ("state", *state),
                ];
                (labels, *count)
            }),
        )?;
        // Before the first count there is no age.
        let Some(age) = self.counted.age else {
            return Ok(());
        };
        to.gauge(
Family::new("portcullis_sessions_by_state_age", "Since the sessions were last counted by state: at least every 10 s while metrics are read, or 20 times as \
                 long as it takes").in_unit(&Unit::Seconds),
            age.as_secs_f64(),
        )
    }

    pub(super) fn challenges(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counters(
            Family::new(
                "portcullis_syn_challenge_events",
                "SYNs of unknown sources that were challenged or not, and what came of it",
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
            Family::new("portcullis_resets_unsent", "RSTs that were not made, by reason"),
            stats
                .resets_unsent
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_helper_events",
                "What helpers have seen and done in control sessions",
            ),
            stats
                .helper_events
                .iter()
                .map(|(event, count)| ([("event", event.name())], *count)),
        )?;
        to.gauge(
            Family::new(
                "portcullis_control_sessions",
                "Control sessions that a helper listens to",
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
            "Packets of asymmetric paths whose line found no place in the report",
            self.asymmetry.unlisted,
        )
    }
}
