//! Compilation of a validated configuration into the structures of the packet path.
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::SystemTime;

use ipnet::IpNet;

use super::error::{ConfigError, ConfigErrorCause};
use super::{
    AsymmetryConfig, Attachment, CheckMode, Checksums, Config, ContinuityConfig, FragmentsConfig,
    FtpConfig, FtpHandling, IpConfig, OnReload, ResetsConfig, SynChallengeConfig, TcpConfig,
    TcpHandling, TombstonesConfig, Zones,
};
use crate::flow::Zone;
use crate::lifetime::{LifetimeTable, Lifetimes, Override, OverrideMatch};
use crate::limits::{Adaptive, Limits, Prefixes};
use crate::policy::{CompiledPolicy, RuleId, TooLarge, TooManyNames};
use crate::verdict::DropReason;

/// The compiled form of a validated configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Compiled {
    /// The decisions on new sessions.
    pub policy: CompiledPolicy,
    /// The lifetimes of sessions.
    pub lifetimes: LifetimeTable,
    /// The zones by name.
    pub zones: Zones,
    /// Whether checksums are verified.
    pub checksums: Checksums,
    /// The source of packets.
    pub attachment: Attachment,
    /// The tracking of TCP in each zone that has a setting.
    pub tcp_zones: Vec<(Zone, TcpHandling)>,
    /// The tracking of TCP without a setting of the rule or zone.
    pub tcp: TcpConfig,
    /// The budgets of RSTs.
    pub resets: ResetsConfig,
    /// The validation of the sources of SYNs.
    pub syn_challenge: SynChallengeConfig,
    /// The evidence of an asymmetric path.
    pub asymmetry: AsymmetryConfig,
    /// The effect of a reload on sessions that it would not admit.
    pub on_reload: OnReload,
    /// The checks of the IP header.
    pub ip: IpConfig,
    /// Prefixes by zone; one of them must hold an end of each new session.
    pub inside: BTreeMap<Zone, Vec<IpNet>>,
    /// The checks that only count.
    pub counting: Vec<DropReason>,
    /// Adaptive lifetimes of unanswered sessions.
    pub(crate) adaptive: Adaptive,
    /// Limits of zones, rules and sources.
    pub(crate) limits: Limits,
    /// The settings that a reload cannot change.
    pub fixed: Fixed,
    /// The control sessions of FTP, and the sessions that they may announce.
    pub ftp: FtpConfig,
    /// The settings of rules for the control sessions that they admit.
    pub ftp_rules: Vec<(RuleId, FtpHandling)>,
    /// The time at which the next rule expires.
    pub rules_expire: Option<SystemTime>,
}

/// Settings that only a start can change: the sizes of tables that are allocated then, and the
/// attributes that distinguish sessions.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The largest number of sessions.
    pub max_sessions: u32,
    /// The number of shards of the session table, a power of two.
    pub shards: u32,
    /// The prefixes by which sources and destinations are counted.
    pub(crate) prefixes: Prefixes,
    /// The bounds on fragmented datagrams.
    pub fragments: FragmentsConfig,
    /// The memory of ended sessions.
    pub tombstones: TombstonesConfig,
    /// The largest number of validated sources.
    pub known_sources: u32,
    /// Whether each session stores references to the tunnels of its packets.
    pub tunnel_references: bool,
    /// Whether each session records its state in the store.
    pub continuity: bool,
    /// The bounds on questions to a store, and on packets that wait for their answers.
    pub questions: ContinuityConfig,
    /// The zones and their groups.
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
    /// Validates the configuration and builds the look-up structures.
    ///
    /// # Errors
    /// Returns an error that [`Self::validate`] finds, or one of rules whose tables would take too
    /// much memory.
    pub fn compile(&self) -> Result<Compiled, ConfigError> {
        self.compile_after(None)
    }

    /// Compiles the configuration like [`Self::compile`]. Rules keep the numbers that their names
    /// had in the previous policy.
    ///
    /// # Errors
    /// Returns the errors of [`Self::compile`], or the changed key that only a start can change.
    pub(crate) fn compile_after(
        &self,
        previous: Option<(&CompiledPolicy, &Fixed)>,
    ) -> Result<Compiled, ConfigError> {
        self.validate()?;
        let zones = Zones::new(&self.zones, &self.zone_groups);
        let mut policy = self.compile_policy(&zones)?;
        if let Some((previous, fixed)) = previous {
            if let Some(key) = fixed.differs(&self.fixed(&zones)) {
                return Err(self.error(key, ConfigErrorCause::NotReloadable));
            }
            policy.keep_numbers(previous).map_err(|TooManyNames| {
                self.error("policy.rule", ConfigErrorCause::TooManyNames)
            })?;
        }
        // The policy holds only the rules that may match.
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
            counting: DropReason::CHECKS
                .iter()
                .copied()
                .filter(|check| self.checks.get(check.name()) == Some(&CheckMode::Count))
                .collect(),
            ftp: self.ftp.clone(),
            ftp_rules,
            rules_expire: self.next_expiry(),
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
            continuity: self.continuity.enabled,
            questions: self.continuity,
            zones: zones.clone(),
            values: self.restart_values(),
        }
    }

    /// Returns the `ip.inside` prefixes by zone. Zones of one group share their prefixes, like all
    /// other settings.
    pub(super) fn compile_inside(&self, zones: &Zones) -> BTreeMap<Zone, Vec<IpNet>> {
        let mut inside: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, prefixes) in &self.ip.inside {
            if let Some(zone) = zones.zone(name) {
                inside.entry(zone).or_default().extend(prefixes);
            }
        }
        inside
    }

    fn compile_lifetimes(&self, zones: &Zones, policy: &CompiledPolicy) -> LifetimeTable {
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
                    ports: each
                        .ports
                        .iter()
                        .map(|range| (range.first, range.last))
                        .collect(),
                    addresses: each.address.clone(),
                    zone: each.zone.as_deref().and_then(|name| zones.zone(name)),
                    rule: each
                        .rule
                        .as_deref()
                        .and_then(|name| policy.rule_named(name)),
                };
                Override {
                    matcher,
                    lifetimes: each.set,
                }
            })
            .collect();
        LifetimeTable::new(Lifetimes::default().with(&self.lifetimes.set), &overrides)
    }

    /// Returns the policy of a validated configuration.
    pub(super) fn compile_policy(&self, zones: &Zones) -> Result<CompiledPolicy, ConfigError> {
        let rules = self.lower_rules(zones)?;
        let defaults = self.policy.zones.iter();
        let defaults = defaults.filter_map(|(name, action)| Some((zones.zone(name)?, *action)));
        let defaults: Vec<_> = defaults.collect();
        let mut actions = BTreeMap::new();
        for (zone, action) in &defaults {
            if actions
                .insert(zone, action)
                .is_some_and(|earlier| earlier != action)
            {
                let why = "two names of one zone have different actions".to_owned();
                return Err(self.error("policy.zones", ConfigErrorCause::Syntax(why)));
            }
        }
        CompiledPolicy::new(rules, &self.policy.inside, self.policy.default)
            .map(|policy| policy.with_zone_defaults(defaults))
            .map_err(|TooLarge| {
                self.error(
                    "policy.rule",
                    ConfigErrorCause::PolicyTooLarge(TooLarge::TERMS),
                )
            })
    }
}
