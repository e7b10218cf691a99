//! `[limits]`: limits of zones, rules, sources and destinations.
use std::collections::BTreeMap;

use super::path::key_segment;
use super::validate::Errors;
use super::{Config, Zones};
use crate::limits::{Bounds, LimitAction, LimitScope, LimitSet, Limits, Prefixes};

crate::config_section! {
    /// `[limits]`: limits for all zones, and the prefixes by which sources and destinations are
    /// counted. A key that is not set is no limit. Sources and destinations are counted by zone:
    /// zones are separate address spaces.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct LimitsConfig = "limits" {
        /// The largest number of sessions of one source.
        max_per_source: Option<u32> {
            default: None, "no limit: a proxy may rightly have most of a quiet table";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The largest number of sessions of one destination.
        max_per_destination: Option<u32> {
            default: None, "no limit: a proxy may rightly have most of a quiet table";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The largest number of TCP sessions of one source whose handshake is not complete.
        max_half_open_per_source: Option<u32> {
            default: None, "no limit: a proxy may rightly have most of a quiet table";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The rate of new sessions of one source; a second's worth may come at once.
        new_per_second_per_source: Option<u32> {
            default: None, "no limit: a proxy may rightly have most of a quiet table";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions per second";
        }
        /// The action on a packet whose session would exceed a limit: `reject` answers with a RST,
        /// ABORT or ICMP error, as far as the budgets of `[resets]` go.
        action: LimitAction {
            default: LimitAction::default(), "a flood gets no answers";
        }
        /// The length of the IPv4 prefix that is counted as one source or destination.
        ipv4_prefix: u8 {
            default: Prefixes::DEFAULT.v4, "a host";
            bounds: 0..=32;
            unit: "bits";
            restart: true;
        }
        /// The length of the IPv6 prefix that is counted as one source or destination.
        ipv6_prefix: u8 {
            default: Prefixes::DEFAULT.v6, "a host's subnet (RFC 4291 2.5.4)";
            bounds: 0..=128;
            unit: "bits";
            restart: true;
        }
        /// Limits of a zone, by its name: each replaces the one for all zones.
        zones: BTreeMap<String, LimitSet> {
            default: BTreeMap::new(), "the limits for all zones";
        }
    }
}

crate::config_keys! {
    /// The limits of a zone or of a rule. Those of a rule count the sessions that it has admitted,
    /// and hold beside those of the zone.
    LimitSet = "" {
        /// The largest number of sessions in all.
        max_sessions: Option<u32> {
            why: "no limit";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The largest number of sessions of one source.
        max_per_source: Option<u32> {
            why: "`limits.max_per_source`";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The largest number of sessions of one destination.
        max_per_destination: Option<u32> {
            why: "`limits.max_per_destination`";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The largest number of TCP sessions of one source whose handshake is not complete.
        max_half_open_per_source: Option<u32> {
            why: "`limits.max_half_open_per_source`";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions";
        }
        /// The rate of new sessions of one source; a second's worth may come at once.
        new_per_second_per_source: Option<u32> {
            why: "`limits.new_per_second_per_source`";
            bounds: 1..=u32::MAX;
            limit: "a policy rule denies sessions";
            unit: "sessions per second";
        }
        /// The action on a packet whose session would exceed a limit.
        action: Option<LimitAction> {
            why: "`limits.action`";
        }
    }
}

impl LimitsConfig {
    /// Returns the counted prefixes.
    pub(crate) const fn prefixes(&self) -> Prefixes {
        Prefixes {
            v4: self.ipv4_prefix,
            v6: self.ipv6_prefix,
        }
    }

    const fn for_all(&self) -> LimitSet {
        LimitSet {
            max_sessions: None,
            max_per_source: self.max_per_source,
            max_per_destination: self.max_per_destination,
            max_half_open_per_source: self.max_half_open_per_source,
            new_per_second_per_source: self.new_per_second_per_source,
            action: Some(self.action),
        }
    }

    /// Returns the limits in the engine's form.
    pub(super) fn compile(&self, zones: &Zones) -> Limits {
        let all = self.for_all().over(Bounds::default(), LimitScope::All);
        let of_zones: BTreeMap<_, _> = self
            .zones
            .iter()
            .filter_map(|(name, set)| Some((zones.zone(name)?, set.over(all, LimitScope::Zone))))
            .collect();
        Limits {
            prefixes: self.prefixes(),
            all,
            zones: of_zones.into_iter().collect(),
        }
    }
}

impl Config {
    pub(super) fn check_limits(&self, errors: &mut Errors) {
        for zone in self.limits.zones.keys() {
            errors.check(self.check_zone(&format!("limits.zones.{}", key_segment(zone)), zone));
        }
    }
}

crate::config_table_values!(LimitsConfig, LimitSet);
crate::config_choices!(LimitAction [Drop, Reject]);
