//! From a checked configuration to what the packet path reads.
use std::collections::BTreeMap;
use std::collections::HashMap;

use ipnet::IpNet;

use super::error::{ConfigError, ConfigErrorCause};
use super::{
    AsymmetryConfig, Attachment, CheckMode, Checksums, Config, FragmentsConfig, FtpConfig, FtpHandling,
    IpConfig, OnReload, Permission, ResetsConfig, SynChallengeConfig, TcpConfig, TcpHandling,
    TombstonesConfig, Zones,
};
use crate::flow::Zone;
use crate::lifetime::{LifetimeTable, Lifetimes, Override, OverrideMatch};
use crate::limits::{Adaptive, Limits, Prefixes};
use crate::policy::{Policy, RuleId, TooLarge, TooManyNames};
use crate::verdict::DropReason;

/// The compiled form of a checked configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Compiled {
    /// Which new sessions are allowed.
    pub policy: Policy,
    /// How long sessions live.
    pub lifetimes: LifetimeTable,
    /// The zones by name.
    pub zones: Zones,
    /// Are checksums verified?
    pub checksums: Checksums,
    /// What packets come from.
    pub attachment: Attachment,
    /// How TCP is tracked in each zone that says something.
    pub tcp_zones: Vec<(Zone, TcpHandling)>,
    /// How TCP is tracked where neither rule nor zone says.
    pub tcp: TcpConfig,
    /// How many RSTs are sent.
    pub resets: ResetsConfig,
    /// When the source of a SYN must prove itself.
    pub syn_challenge: SynChallengeConfig,
    /// What is taken for evidence of an asymmetric path.
    pub asymmetry: AsymmetryConfig,
    /// What a reload does with sessions that it would not admit.
    pub on_reload: OnReload,
    /// What the IP header of a packet may say.
    pub ip: IpConfig,
    /// Prefixes of which one must hold an end of each new session, by zone.
    pub inside: BTreeMap<Zone, Vec<IpNet>>,
    /// What becomes of ICMP redirects.
    pub icmp_redirects: Permission,
    /// Checks that only count.
    pub counting: Vec<DropReason>,
    /// Adaptive lifetimes of unanswered sessions.
    pub(crate) adaptive: Adaptive,
    /// Limits of zones, rules and sources.
    pub(crate) limits: Limits,
    /// What a reload cannot change.
    pub fixed: Fixed,
    /// What is a control session of FTP, and what it may announce.
    pub ftp: FtpConfig,
    /// What rules say of the control sessions that they admit.
    pub ftp_rules: Vec<(RuleId, FtpHandling)>,
}

/// What only a start can change: the sizes of what is reserved then, and what sessions are told apart by.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// How many sessions there can be.
    pub max_sessions: u32,
    /// How many parts the session table has: a power of two.
    pub shards: u32,
    /// The prefixes by which sources and destinations are counted.
    pub(crate) prefixes: Prefixes,
    /// How many fragmented datagrams there can be, and for how long.
    pub fragments: FragmentsConfig,
    /// What is remembered of ended sessions.
    pub tombstones: TombstonesConfig,
    /// Number of sources that can be known to be real.
    pub known_sources: u32,
    /// Does each session remember where its packets came from?
    pub tunnel_references: bool,
    /// Zones that are one.
    pub zones: Zones,
    /// The keys of the engine that only a start can change, with their values.
    values: Vec<(String, String)>,
}

impl Fixed {
    /// Returns a key whose value differs in `other`.
    fn differs(&self, other: &Self) -> Option<&str> {
        let differing = self
            .values
            .iter()
            .zip(&other.values)
            .find(|(one, other)| one != other);
        let key = differing.map(|((key, _), _)| key.as_str());
        key.or_else(|| (!self.zones.same_groups(&other.zones)).then_some("zone_groups"))
    }
}

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
            values: self.restart_values(),
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
