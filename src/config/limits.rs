//! `[limits]`: what a zone, a rule, a source or a destination may hold.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::effective::Values;
use super::keys::key_segment;
use super::{Config, ConfigError, Zones};
use crate::limits::LimitSet;
use crate::limits::{Bounds, LimitAction, LimitScope, Limits, Prefixes};

/// `[limits]`: limits for all zones, and the prefixes by which sources and destinations are
/// counted.
///
/// A limit that is `None` does not hold. Sources and destinations are counted by zone: zones are
/// separate address spaces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Sessions that one source may have, from 1.
    pub max_per_source: Option<u32>,
    /// Sessions that one destination may have, from 1.
    pub max_per_destination: Option<u32>,
    /// TCP sessions of one source whose handshake is not complete, from 1.
    pub max_half_open_per_source: Option<u32>,
    /// New sessions per second of one source, from 1; a second's worth may come at once.
    pub new_per_second_per_source: Option<u32>,
    /// Action on a packet whose session would exceed a limit.
    pub action: LimitAction,
    /// The length of the IPv4 prefix that is counted as one source or destination, 0 to 32. Only a
    /// start can change it.
    pub ipv4_prefix: u8,
    /// The length of the IPv6 prefix that is counted as one source or destination, 0 to 128. Only a
    /// start can change it.
    pub ipv6_prefix: u8,
    /// Limits of a zone, by its name: each replaces the one for all zones.
    pub zones: BTreeMap<String, LimitSet>,
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

    /// Returns what the engine reads.
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

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_per_source: None,
            max_per_destination: None,
            max_half_open_per_source: None,
            new_per_second_per_source: None,
            action: LimitAction::default(),
            ipv4_prefix: Prefixes::DEFAULT.v4,
            ipv6_prefix: Prefixes::DEFAULT.v6,
            zones: BTreeMap::new(),
        }
    }
}

impl Config {
    pub(super) fn check_limits(&self) -> Result<(), ConfigError> {
        for (key, length, bits) in [
            ("limits.ipv4_prefix", self.limits.ipv4_prefix, 32),
            ("limits.ipv6_prefix", self.limits.ipv6_prefix, 128),
        ] {
            if length > bits {
                return Err(self.out_of_bounds(key, length, format!("0 to {bits}")));
            }
        }
        self.check_limit_set("limits", &self.limits.for_all())?;
        for (zone, set) in &self.limits.zones {
            let key = format!("limits.zones.{}", key_segment(zone));
            self.check_zone(&key, zone)?;
            self.check_limit_set(&key, set)?;
        }
        Ok(())
    }

    /// Checks the limits below a key: 0 would allow nothing, which is for the policy to say.
    pub(super) fn check_limit_set(&self, prefix: &str, set: &LimitSet) -> Result<(), ConfigError> {
        for (key, value) in set.values() {
            if value == Some(0) {
                let bounds = "at least 1; a policy rule denies sessions";
                return Err(self.out_of_bounds(&format!("{prefix}.{key}"), 0, bounds));
            }
        }
        Ok(())
    }

    pub(super) fn effective_limits(&self, values: &mut Values<'_>) {
        let default = LimitsConfig::default();
        for (key, value) in self.limits.for_all().values() {
            match value {
                Some(value) => values.entry(format!("limits.{key}"), value.to_string()),
                // There is no such key: the table's size is the limit.
                None if key == "max_sessions" => {}
                None => values.setting(
                    format!("limits.{key}"),
                    "\"none\"".to_owned(),
                    "\"none\"",
                    "a proxy may rightly have most of a quiet table",
                ),
            }
        }
        let action = |action: LimitAction| format!("\"{}\"", action.name());
        values.setting(
            "limits.action",
            action(self.limits.action),
            &action(default.action),
            "a flood gets no answers",
        );
        values.setting(
            "limits.ipv4_prefix",
            self.limits.ipv4_prefix.to_string(),
            &default.ipv4_prefix.to_string(),
            "a host",
        );
        values.setting(
            "limits.ipv6_prefix",
            self.limits.ipv6_prefix.to_string(),
            &default.ipv6_prefix.to_string(),
            "a host's subnet (RFC 4291 2.5.4)",
        );
        for (zone, set) in &self.limits.zones {
            let keys: Vec<_> = set
                .keys()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            values.entry(
                format!("limits.zones.{}", key_segment(zone)),
                super::effective::inline(&keys),
            );
        }
    }
}
