//! From a checked configuration to what the packet path reads.
use std::collections::BTreeMap;
use std::collections::HashMap;

use ipnet::IpNet;

use super::error::{ConfigError, ConfigErrorCause};
use super::{CheckMode, Compiled, Config, Fixed, Zones};
use crate::flow::Zone;
use crate::lifetime::{LifetimeTable, Lifetimes, Override, OverrideMatch};
use crate::limits::Adaptive;
use crate::policy::{Policy, TooLarge, TooManyNames};
use crate::verdict::DropReason;

impl Config {
    /// Checks the configuration and makes the look-up structures.
    ///
    /// # Errors
    /// All that [`Self::validate`] finds, and rules whose tables would take too much memory.
    pub fn compile(&self) -> Result<Compiled, ConfigError> {
        self.compile_after(None)
    }

    /// The same, where rules keep the numbers that their names have had in the policy before.
    ///
    /// # Errors
    /// Those of [`Self::compile`], and what of the configuration only a start can change.
    pub(crate) fn compile_after(&self, previous: Option<(&Policy, &Fixed)>) -> Result<Compiled, ConfigError> {
        self.validate()?;
        let zones = Zones::new(&self.zones, &self.zone_groups);
        let mut policy = self.compile_policy(&zones)?;
        if let Some((previous, fixed)) = previous {
            if let Some(key) = fixed.differs(&self.fixed(&zones)) {
                return Err(self.error(key, ConfigErrorCause::NotReloadable));
            }
            policy
                .keep_numbers(previous)
                .map_err(|TooManyNames| self.error("policy.rule", ConfigErrorCause::TooManyNames))?;
        }
        // The policy has only the rules that may match.
        let rules = self.policy.rules.iter().filter(|rule| !rule.ftp.is_empty());
        let said: HashMap<&str, _> = rules.map(|rule| (rule.name.as_str(), &rule.ftp)).collect();
        let ftp_rules = policy
            .numbered()
            .filter_map(|(number, name)| Some((number, (*said.get(name)?).clone())))
            .collect();
        Ok(Compiled {
            lifetimes: self.compile_lifetimes(&zones, &policy),
            policy,
            checksums: self.engine.checksums,
            attachment: self.engine.attachment,
            tcp_zones: self
                .tcp
                .zones
                .iter()
                .filter_map(|(name, handling)| Some((zones.zone(name)?, *handling)))
                .collect(),
            tcp: self.tcp.clone(),
            resets: self.resets,
            syn_challenge: self.syn_challenge.clone(),
            asymmetry: self.asymmetry,
            on_reload: self.policy.on_reload,
            inside: self.compile_inside(&zones),
            ip: self.ip.clone(),
            icmp_redirects: self.icmp.redirects,
            counting: DropReason::CHECKS
                .iter()
                .copied()
                .filter(|check| self.checks.get(check.name()) == Some(&CheckMode::Count))
                .collect(),
            ftp: self.ftp.clone(),
            ftp_rules,
            adaptive: Adaptive::new(
                self.table.max_sessions,
                self.table.adaptive_start,
                self.table.adaptive_end,
            ),
            limits: self.limits.compile(&zones),
            fixed: self.fixed(&zones),
            zones,
        })
    }

    fn fixed(&self, zones: &Zones) -> Fixed {
        Fixed {
            max_sessions: self.table.max_sessions,
            shards: self.table.shards_in_force(),
            prefixes: self.limits.prefixes(),
            fragments: self.fragments,
            tombstones: self.tombstones,
            known_sources: self.syn_challenge.max_sources,
            tunnel_references: self.engine.tunnel_references,
            zones: zones.clone(),
        }
    }

    /// Zones of one group share their prefixes, as they share all else.
    pub(super) fn compile_inside(&self, zones: &Zones) -> BTreeMap<Zone, Vec<IpNet>> {
        let mut inside: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, prefixes) in &self.ip.inside {
            if let Some(zone) = zones.zone(name) {
                inside.entry(zone).or_default().extend(prefixes);
            }
        }
        inside
    }

    fn compile_lifetimes(&self, zones: &Zones, policy: &Policy) -> LifetimeTable {
        let overrides: Vec<_> = self
            .lifetimes
            .overrides
            .iter()
            // A rule that is not in force admits nothing.
            .filter(|each| {
                each.rule
                    .as_deref()
                    .is_none_or(|name| policy.rule_named(name).is_some())
            })
            .map(|each| {
                let matcher = OverrideMatch {
                    protocol: each.protocol.map(|protocol| protocol.0),
                    ports: each.ports.iter().map(|range| (range.first, range.last)).collect(),
                    addresses: each.address.clone(),
                    zone: each.zone.as_deref().and_then(|name| zones.zone(name)),
                    rule: each.rule.as_deref().and_then(|name| policy.rule_named(name)),
                };
                Override {
                    matcher,
                    lifetimes: each.set,
                }
            })
            .collect();
        LifetimeTable::new(Lifetimes::default().with(&self.lifetimes.set), &overrides)
    }

    /// The policy of a checked configuration.
    pub(super) fn compile_policy(&self, zones: &Zones) -> Result<Policy, ConfigError> {
        let rules = self.lower_rules(zones)?;
        let defaults = self.policy.zones.iter();
        let defaults = defaults.filter_map(|(name, action)| Some((zones.zone(name)?, *action)));
        let defaults: Vec<_> = defaults.collect();
        for (zone, action) in &defaults {
            if defaults
                .iter()
                .any(|(other, said)| other == zone && said != action)
            {
                let why = "two names of one zone have different actions".to_owned();
                return Err(self.error("policy.zones", ConfigErrorCause::Syntax(why)));
            }
        }
        Policy::new(rules, &self.policy.inside, self.policy.default)
            .map(|policy| policy.with_zone_defaults(defaults))
            .map_err(|TooLarge| self.error("policy.rule", ConfigErrorCause::PolicyTooLarge(TooLarge::TERMS)))
    }
}
