//! Checks of a configuration that was read or built.
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use ipnet::IpNet;

use super::declare::{Checker, Table};
use super::error::{ConfigError, ConfigErrorCause, ConfigErrors, UnknownName};
use super::path::key_segment;
use super::text::{listed, shown};
use super::{Config, DEFAULT_ZONE, TableConfig};
use crate::policy::{MAX_RULES, PortRange};
use crate::verdict::DropReason;

pub(super) type Checked = Result<(), ConfigError>;

/// The largest number of errors that are collected, beside those of single keys.
const MAX_ERRORS: usize = 100;

/// Errors of a configuration.
#[derive(Debug)]
pub(super) struct Errors {
    pub(super) list: Vec<ConfigError>,
    /// The number of the first of them, those of single keys, which do not count.
    of_keys: usize,
    /// Whether errors may have been left out.
    pub(super) is_cut: bool,
}

impl Errors {
    pub(super) fn add(&mut self, error: ConfigError) {
        if self.is_full() {
            self.is_cut = true;
        } else {
            self.list.push(error);
        }
    }

    /// Adds the error of a check, if it has one.
    pub(super) fn check(&mut self, checked: Checked) {
        if let Err(error) = checked {
            self.add(error);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    fn is_full(&self) -> bool {
        self.list.len() - self.of_keys >= MAX_ERRORS
    }
}

impl Config {
    /// Checks everything but the memory that the compiled rules take.
    ///
    /// # Errors
    /// Returns the first error. Possible errors are a value out of its bounds, a bad, duplicate or
    /// unknown name, a prefix with host bits, and a reversed port range. Others are ports or ICMP
    /// types without their protocol, zones of one number, too many rules or overrides, and two
    /// equally specific overrides.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_all().map_err(ConfigError::from)
    }

    /// Checks everything that [`Self::validate`] checks, and collects the errors.
    ///
    /// # Errors
    /// All errors: at most 100 of values out of their bounds, and at most 100 of other kinds.
    pub fn validate_all(&self) -> Result<(), ConfigErrors> {
        let errors = self.errors();
        ConfigErrors::new(errors.list, errors.is_cut).map_or(Ok(()), Err)
    }

    /// Returns the errors of the configuration.
    pub(super) fn errors(&self) -> Errors {
        let mut checker = Checker::new(&self.provenance);
        self.visit(self, &mut checker);
        let is_cut = checker.is_cut();
        let list = checker.into_errors();
        let of_keys = list.len();
        let mut errors = Errors {
            list,
            of_keys,
            is_cut,
        };
        errors.check(self.check_table());
        self.check_limits(&mut errors);
        self.check_zones(&mut errors);
        errors.check(self.check_zone_groups());
        self.check_sets(&mut errors);
        self.check_geneve(&mut errors);
        self.check_overrides(&mut errors);
        for zone in self.tcp.zones.keys() {
            errors.check(self.check_zone(&format!("tcp.zones.{}", key_segment(zone)), zone));
        }
        self.check_ip(&mut errors);
        self.check_challenge(&mut errors);
        self.check_checks(&mut errors);
        self.check_policy(&mut errors);
        errors
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
            let bounds =
                format!("above table.adaptive_start, {start}, and at most {most}; or both 0");
            return Err(self.out_of_bounds("table.adaptive_end", end, bounds));
        }
        let Some(shards) = shards else {
            return Ok(());
        };
        if !shards.is_power_of_two() || shards > TableConfig::MAX_SHARDS {
            let bounds = format!("a power of two from 1 to {}", TableConfig::MAX_SHARDS);
            return Err(self.out_of_bounds("table.shards", shards, bounds));
        }
        if max_sessions > 0 && shards > max_sessions {
            let bounds = format!("at most table.max_sessions, {max_sessions}");
            return Err(self.out_of_bounds("table.shards", shards, bounds));
        }
        Ok(())
    }

    fn check_challenge(&self, errors: &mut Errors) {
        let config = &self.syn_challenge;
        if config.start > 0 && config.end > config.start {
            let bounds = format!("0 to {}", config.start);
            errors.add(self.out_of_bounds("syn_challenge.end", config.end, bounds));
        }
        for zone in config.zones.keys() {
            let key = format!("syn_challenge.zones.{}", key_segment(zone));
            errors.check(self.check_zone(&key, zone));
        }
    }

    fn check_zones(&self, errors: &mut Errors) {
        let mut taken = BTreeMap::from([(0, DEFAULT_ZONE)]);
        for (name, &id) in &self.zones {
            let key = format!("zones.{}", key_segment(name));
            if name == DEFAULT_ZONE {
                if id != 0 {
                    errors.add(self.error(&key, ConfigErrorCause::DefaultZone(id)));
                }
                continue;
            }
            errors.check(self.check_name(&key, name));
            if let Some(first) = taken.insert(id, name) {
                let first = first.to_owned();
                errors.add(self.error(&key, ConfigErrorCause::DuplicateZone { id, first }));
            }
        }
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

    fn check_checks(&self, errors: &mut Errors) {
        for check in self.checks.keys() {
            if !DropReason::CHECKS.iter().any(|each| each.name() == check) {
                let names = DropReason::CHECKS.map(DropReason::name);
                let cause = ConfigErrorCause::UnknownCheck(UnknownName::new(check, names));
                errors.add(self.error(&format!("checks.{}", key_segment(check)), cause));
            }
        }
    }

    pub(super) fn check_name(&self, key: &str, name: &str) -> Checked {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
            Ok(())
        } else {
            Err(self.error(key, ConfigErrorCause::BadName(shown(name).into_owned())))
        }
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

    /// Checks the name of a zone or a group.
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
        let written = usize::from(self.zones.contains_key(DEFAULT_ZONE));
        let count = self.zones.len() + 1 - written;
        let known = listed([DEFAULT_ZONE].into_iter().chain(others), count);
        let zone = shown(zone).into_owned();
        Err(self.error(key, ConfigErrorCause::UnknownZone { zone, known }))
    }

    fn check_policy(&self, errors: &mut Errors) {
        let rules = &self.policy.rules;
        errors.check(self.check_prefixes("policy.inside", &self.policy.inside));
        for zone in self.policy.zones.keys() {
            errors.check(self.check_zone(&format!("policy.zones.{}", key_segment(zone)), zone));
        }
        if rules.len() > MAX_RULES {
            errors.add(self.error("policy.rule", ConfigErrorCause::TooManyRules(rules.len())));
            return;
        }
        let known = self.destination_zones();
        let mut names: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
        for (place, rule) in rules.iter().enumerate() {
            if errors.is_full() {
                errors.is_cut = true;
                return;
            }
            let key = format!("policy.rule[{place}]");
            let name = format!("{key}.name");
            errors.check(self.check_name(&name, &rule.name));
            if rule.name == "default" {
                errors.add(self.error(&name, ConfigErrorCause::ReservedName));
            }
            if let Some(first) = names.insert(&rule.name, place) {
                let first = self.provenance.mention(&format!("policy.rule[{first}]"));
                let cause = ConfigErrorCause::DuplicateName {
                    name: shown(&rule.name).into_owned(),
                    first,
                };
                errors.add(self.error(&name, cause));
            }
            self.check_rule(&key, rule, &known, errors);
        }
    }
}
