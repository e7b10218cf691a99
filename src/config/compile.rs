//! From a checked configuration to what the packet path reads.
use super::error::{ConfigError, ConfigErrorCause};
use super::{CheckMode, Compiled, Config, RuleConfig, Zones};
use crate::lifetime::{LifetimeTable, Lifetimes, OverrideMatch};
use crate::policy::{Policy, Rule, TooLarge, TooManyNames};
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
    pub(crate) fn compile_after(&self, previous: Option<&Policy>) -> Result<Compiled, ConfigError> {
        self.validate()?;
        let zones = Zones::new(&self.zones, &self.zone_groups);
        let mut policy = self.compile_policy(&zones)?;
        if let Some(previous) = previous {
            policy
                .keep_numbers(previous)
                .map_err(|TooManyNames| self.error("policy.rule", ConfigErrorCause::TooManyNames))?;
        }
        Ok(Compiled {
            lifetimes: self.compile_lifetimes(&zones, &policy),
            policy,
            checksums: self.engine.checksums,
            tcp_zones: self
                .tcp
                .zones
                .iter()
                .filter_map(|(name, handling)| Some((zones.zone(name)?, *handling)))
                .collect(),
            tcp: self.tcp.clone(),
            tunnel_references: self.engine.tunnel_references,
            resets: self.resets,
            tombstones: self.tombstones,
            asymmetry: self.asymmetry,
            on_reload: self.policy.on_reload,
            icmp_redirects: self.icmp.redirects,
            counting: DropReason::CHECKS
                .iter()
                .copied()
                .filter(|check| self.checks.get(check.name()) == Some(&CheckMode::Count))
                .collect(),
            max_sessions: self.table.max_sessions,
            shards: self.table.shards_in_force(),
            fragments: self.fragments,
            ftp: self.ftp.clone(),
            zones,
        })
    }

    fn compile_lifetimes(&self, zones: &Zones, policy: &Policy) -> LifetimeTable {
        let overrides: Vec<_> = self
            .lifetimes
            .overrides
            .iter()
            .map(|each| {
                let matcher = OverrideMatch {
                    protocol: each.protocol.map(|protocol| protocol.0),
                    ports: each.ports.iter().map(|range| (range.first, range.last)).collect(),
                    addresses: each.address.clone(),
                    zone: each.zone.as_deref().and_then(|name| zones.zone(name)),
                    rule: each.rule.as_deref().and_then(|name| policy.rule_named(name)),
                };
                (matcher, each.set)
            })
            .collect();
        LifetimeTable::new(Lifetimes::default().with(&self.lifetimes.set), &overrides)
    }

    /// The policy of a checked configuration.
    pub(super) fn compile_policy(&self, zones: &Zones) -> Result<Policy, ConfigError> {
        let rules = self
            .policy
            .rules
            .iter()
            .map(|rule| compile_rule(rule, zones))
            .collect();
        Policy::new(rules, &self.policy.inside, self.policy.default)
            .map_err(|TooLarge| self.error("policy.rule", ConfigErrorCause::PolicyTooLarge(TooLarge::MIB)))
    }
}

fn compile_rule(rule: &RuleConfig, zones: &Zones) -> Rule {
    Rule {
        name: rule.name.clone(),
        action: rule.action,
        zones: rule.zones.iter().filter_map(|name| zones.zone(name)).collect(),
        source: rule.source.clone(),
        destination: rule.destination.clone(),
        protocol: rule.protocol.clone(),
        source_ports: rule.source_ports.clone(),
        destination_ports: rule.destination_ports.clone(),
        icmp_types: rule.icmp_types.clone(),
        direction: rule.direction,
        log: rule.log,
        tcp: rule.tcp,
    }
}
