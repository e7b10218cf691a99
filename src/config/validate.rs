//! What a configuration must keep to, whether it was read or built.
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::error::{ConfigError, ConfigErrorCause};
use super::keys::key_segment;
use super::{
    AsymmetryConfig, Config, DEFAULT_ZONE, FragmentsConfig, FtpConfig, GwlbConfig, LifetimeOverride,
    ResetsConfig, SynChallengeConfig, TableConfig, TcpConfig, TombstonesConfig, Zones, values,
};
use crate::flow::Zone;
use crate::lifetime::{LifetimeSet, MAX_LIFETIME, MAX_OVERRIDES, MIN_LIFETIME};
use crate::policy::{MAX_RULES, PortRange, Protocol};
use crate::verdict::DropReason;

/// GWLB's bounds of its TCP idle timer.
const TCP_IDLE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6000));
/// Bounds of the idle timer of other flows: it is no setting of GWLB, so they are wide.
const OTHER_IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(6000));

pub(super) type Checked = Result<(), ConfigError>;

impl Config {
    /// Checks everything but the memory that the compiled rules take.
    ///
    /// # Errors
    /// The first thing found that cannot be: a value out of its bounds, a bad, duplicate or unknown name, a
    /// prefix with host bits, a reversed port range, ports or ICMP types without their protocol, zones of the same
    /// number, too many rules or overrides, or two overrides of which neither is more specific.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_table()?;
        self.check_limits()?;
        self.check_fragments()?;
        self.check_zones()?;
        self.check_zone_groups()?;
        self.check_sets()?;
        let GwlbConfig {
            tcp_idle, other_idle, ..
        } = self.gwlb;
        self.check_duration("gwlb.tcp_idle", tcp_idle, TCP_IDLE)?;
        self.check_duration("gwlb.other_idle", other_idle, OTHER_IDLE)?;
        self.check_geneve()?;
        self.check_lifetimes("lifetimes", &self.lifetimes.set)?;
        self.check_overrides()?;
        self.check_tcp()?;
        self.check_ip()?;
        let lifetime = (Duration::from_secs(1), FtpConfig::MAX_LIFETIME);
        self.check_duration("ftp.lifetime", self.ftp.lifetime, lifetime)?;
        for (key, value, bounds) in self.ftp.sizes() {
            if !bounds.contains(&value) {
                let bounds = match bounds.into_inner() {
                    (least, u32::MAX) => format!("at least {least}"),
                    (least, most) => format!("{least} to {most}"),
                };
                return Err(self.out_of_bounds(key, value, bounds));
            }
        }
        self.check_ending()?;
        self.check_challenge()?;
        self.check_checks()?;
        self.check_policy()
    }

    pub(crate) fn error(&self, key: &str, cause: ConfigErrorCause) -> ConfigError {
        ConfigError {
            location: self.provenance.locate(key),
            cause,
        }
    }

    pub(super) fn out_of_bounds(
        &self,
        key: &str,
        value: impl fmt::Display,
        bounds: impl Into<String>,
    ) -> ConfigError {
        let (value, bounds) = (value.to_string(), bounds.into());
        self.error(key, ConfigErrorCause::OutOfBounds { value, bounds })
    }

    fn check_table(&self) -> Checked {
        let TableConfig {
            max_sessions,
            shards,
            adaptive_start: start,
            adaptive_end: end,
        } = self.table;
        let is_off = start == 0 && end == 0;
        if !is_off && (start >= end || end > TableConfig::MAX_ADAPTIVE) {
            let most = TableConfig::MAX_ADAPTIVE;
            let bounds = format!("above table.adaptive_start, {start}, and at most {most}; or both 0");
            return Err(self.out_of_bounds("table.adaptive_end", end, bounds));
        }
        if !(1..=TableConfig::MAX_SESSIONS).contains(&max_sessions) {
            let bounds = format!("1 to {}", TableConfig::MAX_SESSIONS);
            return Err(self.out_of_bounds("table.max_sessions", max_sessions, bounds));
        }
        let Some(shards) = shards else {
            return Ok(());
        };
        if !shards.is_power_of_two() || shards > TableConfig::MAX_SHARDS {
            let bounds = format!("a power of two from 1 to {}", TableConfig::MAX_SHARDS);
            return Err(self.out_of_bounds("table.shards", shards, bounds));
        }
        if shards > max_sessions {
            let bounds = format!("at most table.max_sessions, {max_sessions}");
            return Err(self.out_of_bounds("table.shards", shards, bounds));
        }
        Ok(())
    }

    fn check_fragments(&self) -> Checked {
        const LIFETIME: (Duration, Duration) = (FragmentsConfig::MIN_LIFETIME, FragmentsConfig::MAX_LIFETIME);
        let FragmentsConfig {
            max_datagrams,
            max_per_source,
            lifetime,
            hold,
            max_held,
            max_held_per_source,
        } = self.fragments;
        for (key, count) in [
            ("fragments.max_datagrams", max_datagrams),
            ("fragments.max_per_source", max_per_source),
        ] {
            if !(1..=FragmentsConfig::MAX_DATAGRAMS).contains(&count) {
                let bounds = format!("1 to {}", FragmentsConfig::MAX_DATAGRAMS);
                return Err(self.out_of_bounds(key, count, bounds));
            }
        }
        for (key, count) in [
            ("fragments.max_held", max_held),
            ("fragments.max_held_per_source", max_held_per_source),
        ] {
            if !(1..=FragmentsConfig::MAX_HELD).contains(&count) {
                let bounds = format!("1 to {}", FragmentsConfig::MAX_HELD);
                return Err(self.out_of_bounds(key, count, bounds));
            }
        }
        self.check_duration("fragments.lifetime", lifetime, LIFETIME)?;
        self.check_duration(
            "fragments.hold",
            hold,
            (Duration::ZERO, FragmentsConfig::MAX_HOLD),
        )
    }

    fn check_zones(&self) -> Checked {
        let mut taken = BTreeMap::from([(0, DEFAULT_ZONE)]);
        for (name, &id) in &self.zones {
            let key = format!("zones.{}", key_segment(name));
            if name == DEFAULT_ZONE {
                if id != 0 {
                    return Err(self.error(&key, ConfigErrorCause::DefaultZone(id)));
                }
                continue;
            }
            self.check_name(&key, name)?;
            if let Some(first) = taken.insert(id, name) {
                let first = first.to_owned();
                return Err(self.error(&key, ConfigErrorCause::DuplicateZone { id, first }));
            }
        }
        Ok(())
    }

    fn check_zone_groups(&self) -> Checked {
        let mut groups: HashMap<&str, &str> = HashMap::new();
        for (group, zones) in &self.zone_groups {
            let key = format!("zone_groups.{}", key_segment(group));
            self.check_name(&key, group)?;
            if group == DEFAULT_ZONE || self.zones.contains_key(group) {
                return Err(self.error(&key, ConfigErrorCause::GroupIsZone(group.clone())));
            }
            if zones.is_empty() {
                return Err(self.error(&key, ConfigErrorCause::EmptyGroup));
            }
            for (place, zone) in zones.iter().enumerate() {
                let key = format!("{key}[{place}]");
                self.check_single_zone(&key, zone)?;
                if let Some(first) = groups.insert(zone, group) {
                    let (zone, first) = (zone.clone(), first.to_owned());
                    return Err(self.error(&key, ConfigErrorCause::ZoneInTwoGroups { zone, first }));
                }
            }
        }
        Ok(())
    }

    fn check_ending(&self) -> Checked {
        let within = |key: &str, value: u32, (low, high): (u32, u32)| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(self.out_of_bounds(key, value, format!("{low} to {high}")))
            }
        };
        let rates = (0, ResetsConfig::MAX_RATE);
        within("resets.per_destination", self.resets.per_destination, rates)?;
        within("resets.overall", self.resets.overall, rates)?;
        within("tombstones.max", self.tombstones.max, (0, TombstonesConfig::MAX))?;
        let second = Duration::from_secs(1);
        let lifetime = (second, TombstonesConfig::MAX_LIFETIME);
        self.check_duration("tombstones.lifetime", self.tombstones.lifetime, lifetime)?;
        let asymmetry = &self.asymmetry;
        within("asymmetry.packets", asymmetry.packets, (2, u32::MAX))?;
        let time = (second, Duration::from_secs(3_600));
        self.check_duration("asymmetry.time", asymmetry.time, time)?;
        let entries = (0, AsymmetryConfig::MAX_ENTRIES);
        within("asymmetry.max_entries", asymmetry.max_entries, entries)?;
        let zones = (0, AsymmetryConfig::MAX_ZONES);
        within("asymmetry.searched_zones", asymmetry.searched_zones, zones)?;
        let searches = (0, AsymmetryConfig::MAX_SEARCHES);
        within("asymmetry.searches", asymmetry.searches, searches)?;
        within("asymmetry.prefix_v4", asymmetry.prefix_v4.into(), (0, 32))?;
        within("asymmetry.prefix_v6", asymmetry.prefix_v6.into(), (0, 128))
    }

    fn check_challenge(&self) -> Checked {
        let config = &self.syn_challenge;
        let bounded = [
            ("start", config.start, (1, 100)),
            ("end", config.end, (0, config.start)),
            (
                "max_sources",
                config.max_sources,
                (0, SynChallengeConfig::MAX_SOURCES),
            ),
            ("per_second", config.per_second, (1, SynChallengeConfig::MAX_RATE)),
        ];
        for (name, value, (low, high)) in bounded {
            if !(low..=high).contains(&value) {
                let key = format!("syn_challenge.{name}");
                return Err(self.out_of_bounds(&key, value, format!("{low} to {high}")));
            }
        }
        let lifetime = (Duration::from_secs(1), SynChallengeConfig::MAX_LIFETIME);
        self.check_duration("syn_challenge.lifetime", config.lifetime, lifetime)?;
        for zone in config.zones.keys() {
            self.check_zone(&format!("syn_challenge.zones.{}", key_segment(zone)), zone)?;
        }
        Ok(())
    }

    fn check_tcp(&self) -> Checked {
        let failover = (Duration::ZERO, TcpConfig::MAX_FAILOVER);
        self.check_duration("tcp.failover", self.tcp.failover, failover)?;
        for zone in self.tcp.zones.keys() {
            self.check_zone(&format!("tcp.zones.{}", key_segment(zone)), zone)?;
        }
        Ok(())
    }

    fn check_checks(&self) -> Checked {
        for check in self.checks.keys() {
            if !DropReason::CHECKS.iter().any(|each| each.name() == check) {
                let key = format!("checks.{}", key_segment(check));
                let known = DropReason::CHECKS.map(DropReason::name).join(", ");
                return Err(self.error(
                    &key,
                    ConfigErrorCause::UnknownCheck {
                        check: check.clone(),
                        known,
                    },
                ));
            }
        }
        Ok(())
    }

    pub(super) fn check_name(&self, key: &str, name: &str) -> Checked {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
            Ok(())
        } else {
            Err(self.error(key, ConfigErrorCause::BadName(name.to_owned())))
        }
    }

    pub(super) fn check_duration(
        &self,
        key: &str,
        value: Duration,
        (min, max): (Duration, Duration),
    ) -> Checked {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        let bounds = format!("{} to {}", values::duration(min), values::duration(max));
        Err(self.out_of_bounds(key, values::duration(value), bounds))
    }

    fn check_lifetimes(&self, prefix: &str, set: &LifetimeSet) -> Checked {
        for (class, lifetime) in set.iter() {
            let key = format!("{prefix}.{}", class.name());
            self.check_duration(&key, lifetime, (MIN_LIFETIME, MAX_LIFETIME))?;
        }
        Ok(())
    }

    pub(super) fn check_prefixes(&self, key: &str, prefixes: &[IpNet]) -> Checked {
        for (place, prefix) in prefixes.iter().enumerate() {
            let network = prefix.trunc();
            if *prefix != network {
                let (prefix, network) = (prefix.to_string(), network.to_string());
                let cause = ConfigErrorCause::HostBits { prefix, network };
                return Err(self.error(&format!("{key}[{place}]"), cause));
            }
        }
        Ok(())
    }

    pub(super) fn check_ranges(&self, key: &str, ranges: &[PortRange]) -> Checked {
        for (place, &PortRange { first, last }) in ranges.iter().enumerate() {
            if first > last {
                let cause = ConfigErrorCause::ReversedRange { first, last };
                return Err(self.error(&format!("{key}[{place}]"), cause));
            }
        }
        Ok(())
    }

    /// A zone or a group.
    pub(super) fn check_zone(&self, key: &str, zone: &str) -> Checked {
        if self.zone_groups.contains_key(zone) {
            return Ok(());
        }
        self.check_single_zone(key, zone)
    }

    fn check_single_zone(&self, key: &str, zone: &str) -> Checked {
        if zone == DEFAULT_ZONE || self.zones.contains_key(zone) {
            return Ok(());
        }
        let others = self
            .zones
            .keys()
            .map(String::as_str)
            .filter(|name| *name != DEFAULT_ZONE);
        let known: Vec<&str> = [DEFAULT_ZONE].into_iter().chain(others).collect();
        let (zone, known) = (zone.to_owned(), known.join(", "));
        Err(self.error(key, ConfigErrorCause::UnknownZone { zone, known }))
    }

    fn check_overrides(&self) -> Checked {
        let overrides = &self.lifetimes.overrides;
        if overrides.len() > MAX_OVERRIDES {
            return Err(self.error(
                "lifetimes.override",
                ConfigErrorCause::TooManyOverrides(overrides.len()),
            ));
        }
        for (place, each) in overrides.iter().enumerate() {
            self.check_override(&format!("lifetimes.override[{place}]"), each)?;
        }
        self.check_ambiguity()
    }

    fn check_override(&self, key: &str, each: &LifetimeOverride) -> Checked {
        const ALLOWED: &str = "tcp or udp";
        if !each.ports.is_empty() {
            let ports = format!("{key}.ports");
            match each.protocol {
                Some(Protocol::TCP | Protocol::UDP) => {}
                Some(protocol) => {
                    let protocol = protocol.to_string();
                    return Err(self.error(
                        &ports,
                        ConfigErrorCause::NoPorts {
                            protocol,
                            allowed: ALLOWED,
                        },
                    ));
                }
                None => return Err(self.error(&ports, ConfigErrorCause::PortsNeedProtocol(ALLOWED))),
            }
            self.check_ranges(&ports, &each.ports)?;
        }
        self.check_prefixes(&format!("{key}.address"), &each.address)?;
        if let Some(zone) = &each.zone {
            self.check_zone(&format!("{key}.zone"), zone)?;
        }
        if let Some(rule) = &each.rule
            && !self.policy.rules.iter().any(|known| known.name == *rule)
        {
            return Err(self.error(
                &format!("{key}.rule"),
                ConfigErrorCause::UnknownRule(rule.clone()),
            ));
        }
        self.check_lifetimes(key, &each.set)
    }

    /// Overrides tie for a session only if they name the same prefix (two of one length that hold the same
    /// address are the same), the same rule, port ranges of one width that overlap, the same zone and the same protocol. What
    /// ties but for the ranges is grouped; ranges of one width overlap in neighbours if at all.
    fn check_ambiguity(&self) -> Checked {
        type Shape<'a> = (
            Option<IpNet>,
            Option<&'a str>,
            Option<u16>,
            Option<Zone>,
            Option<Protocol>,
        );
        let zones = Zones::new(&self.zones, &self.zone_groups);
        let mut groups: HashMap<Shape<'_>, Vec<(PortRange, usize)>> = HashMap::new();
        for (place, each) in self.lifetimes.overrides.iter().enumerate() {
            let every_port = PortRange {
                first: 0,
                last: u16::MAX,
            };
            let ranges: Vec<(PortRange, Option<u16>)> = match each.ports.as_slice() {
                [] => vec![(every_port, None)],
                ports => ports
                    .iter()
                    .map(|range| (*range, Some(range.last.saturating_sub(range.first))))
                    .collect(),
            };
            let prefixes: Vec<Option<IpNet>> = match each.address.as_slice() {
                [] => vec![None],
                prefixes => prefixes.iter().copied().map(Some).collect(),
            };
            for prefix in prefixes {
                for (range, width) in &ranges {
                    let zone = each.zone.as_deref().and_then(|name| zones.zone(name));
                    let shape = (prefix, each.rule.as_deref(), *width, zone, each.protocol);
                    groups.entry(shape).or_default().push((*range, place));
                }
            }
        }
        // The first tie in the order of the overrides, so that the message does not depend on the hash.
        let mut tie: Option<(usize, usize, String)> = None;
        for ((prefix, rule, width, zone, protocol), mut ranges) in groups {
            ranges.sort_unstable();
            for ((low, one), (high, other)) in ranges.iter().zip(ranges.iter().skip(1)) {
                if one == other || high.first > low.last {
                    continue;
                }
                let overlap = PortRange {
                    first: high.first,
                    last: low.last,
                };
                let shared = [
                    prefix.map(|prefix| format!("address {prefix}")),
                    width.map(|_| format!("port {overlap}")),
                    rule.map(|rule| format!("rule {rule}")),
                    zone.and_then(|zone| zones.name(zone))
                        .map(|zone| format!("zone {zone}")),
                    protocol.map(|protocol| format!("protocol {protocol}")),
                ];
                let shared: Vec<String> = shared.into_iter().flatten().collect();
                let shared = if shared.is_empty() {
                    "every session".to_owned()
                } else {
                    shared.join(", ")
                };
                let found = (*one.max(other), *one.min(other), shared);
                if tie.as_ref().is_none_or(|tie| found < *tie) {
                    tie = Some(found);
                }
            }
        }
        let Some((second, first, shared)) = tie else {
            return Ok(());
        };
        let first = self.provenance.mention(&format!("lifetimes.override[{first}]"));
        let cause = ConfigErrorCause::AmbiguousOverrides { first, shared };
        Err(self.error(&format!("lifetimes.override[{second}]"), cause))
    }

    fn check_policy(&self) -> Checked {
        let rules = &self.policy.rules;
        self.check_prefixes("policy.inside", &self.policy.inside)?;
        for zone in self.policy.zones.keys() {
            self.check_zone(&format!("policy.zones.{}", key_segment(zone)), zone)?;
        }
        if rules.len() > MAX_RULES {
            return Err(self.error("policy.rule", ConfigErrorCause::TooManyRules(rules.len())));
        }
        let known = self.destination_zones();
        let mut names: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
        for (place, rule) in rules.iter().enumerate() {
            let key = format!("policy.rule[{place}]");
            let name = format!("{key}.name");
            self.check_name(&name, &rule.name)?;
            if rule.name == "default" {
                return Err(self.error(&name, ConfigErrorCause::ReservedName));
            }
            if let Some(first) = names.insert(&rule.name, place) {
                let first = self.provenance.mention(&format!("policy.rule[{first}]"));
                let cause = ConfigErrorCause::DuplicateName {
                    name: rule.name.clone(),
                    first,
                };
                return Err(self.error(&name, cause));
            }
            self.check_rule(&key, rule, &known)?;
        }
        Ok(())
    }
}
