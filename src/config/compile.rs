//! From a checked configuration to what the packet path reads.
use super::error::{ConfigError, ConfigErrorCause};
use super::{CheckMode, Compiled, Config, RuleConfig, Zones};
use crate::lifetime::{LifetimeTable, Lifetimes, OverrideMatch};
use crate::policy::{Policy, Rule, TooLarge};
use crate::verdict::DropReason;

impl Config {
    /// Checks the configuration and makes the look-up structures.
    ///
    /// # Errors
    /// All that [`Self::validate`] finds, and rules whose tables would take too much memory.
    pub fn compile(&self) -> Result<Compiled, ConfigError> {
        self.validate()?;
        let zones = Zones::new(&self.zones);
        Ok(Compiled {
            policy: self.compile_policy(&zones)?,
            lifetimes: self.compile_lifetimes(&zones),
            checksums: self.engine.checksums,
            tcp_zones: self
                .tcp
                .zones
                .iter()
                .filter_map(|(name, mode)| Some((zones.zone(name)?, *mode)))
                .collect(),
            tcp_mode: self.tcp.mode,
            split_handshake: self.tcp.split_handshake,
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

    fn compile_lifetimes(&self, zones: &Zones) -> LifetimeTable {
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
