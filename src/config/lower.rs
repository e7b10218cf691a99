//! Lowering of rules from their written form to the compiled one: sets, exceptions, services and
//! zones become lists of prefixes, protocols and ports.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::error::{ConfigError, ConfigErrorCause};
use super::sets::{AddressTerm, MAX_SET_PREFIXES, Service, ServiceTerm, set_key};
use super::{Config, RuleConfig, Zones};
use crate::flow::Zone;
use crate::policy::origin::{NamedAddresses, NamedServices, RuleOrigin};
use crate::policy::ranges::AddressRanges;
use crate::policy::{IcmpType, MAX_RULES, PortRange, Protocol, Rule, ServiceMatch, merged};

/// The largest number of prefixes that come from sets and from `not`, of all rules together. Those
/// of a set are counted for each rule that names it; those that a rule lists are not counted.
pub(super) const MAX_PREFIXES: usize = 1 << 20;

/// A list of addresses with its sets resolved.
#[derive(Debug, Clone, Default)]
struct Addresses {
    prefixes: Vec<IpNet>,
    sets: Vec<NamedAddresses>,
}

/// Conditions of a rule on one end of a session.
struct EndTerms<'a> {
    listed: &'a Addresses,
    excepted: &'a Addresses,
    /// Prefixes that are an additional condition: one of them must hold the address.
    zones: Option<Vec<IpNet>>,
    /// Whether the list is empty, which matches every address.
    is_open: bool,
}

/// The resolved sets, and the prefixes used so far.
struct Lowering<'a> {
    config: &'a Config,
    zones: &'a Zones,
    inside: BTreeMap<Zone, Vec<IpNet>>,
    addresses: HashMap<&'a str, Arc<[IpNet]>>,
    services: HashMap<&'a str, Arc<[ServiceMatch]>>,
    prefixes: usize,
}

impl Config {
    /// Returns the rules that may match, in order: those that are enabled, have not expired, and do
    /// not name empty sets alone. The configuration must be validated.
    ///
    /// # Errors
    /// Returns an error for a set whose file was not read, and for exceptions that leave nothing or
    /// have no effect. The same applies to more parts or prefixes than are allowed.
    pub(super) fn lower_rules(&self, zones: &Zones) -> Result<Vec<Rule>, ConfigError> {
        let mut lowering = Lowering {
            config: self,
            zones,
            inside: self.compile_inside(zones),
            addresses: HashMap::new(),
            services: HashMap::new(),
            prefixes: 0,
        };
        let mut prefixes = 0;
        for name in self.address_sets.keys() {
            prefixes += lowering.address_set(name)?.len();
            if prefixes > MAX_PREFIXES {
                let cause = ConfigErrorCause::TooManyPrefixes(MAX_PREFIXES);
                return Err(self.error(&set_key("address_sets", name), cause));
            }
        }
        let mut rules = Vec::with_capacity(self.policy.rules.len());
        for (place, rule) in self.policy.rules.iter().enumerate() {
            // A rule must be valid even if it is not in force.
            let parts = lowering.rule(place, rule)?;
            if self.policy.is_in_force(rule) {
                rules.extend(parts);
            }
        }
        if rules.len() > MAX_RULES {
            return Err(self.error("policy.rule", ConfigErrorCause::TooManyParts(rules.len())));
        }
        Ok(rules)
    }
}

impl<'a> Lowering<'a> {
    /// Returns the prefixes of a set.
    fn address_set(&mut self, name: &'a str) -> Result<Arc<[IpNet]>, ConfigError> {
        if let Some(known) = self.addresses.get(name) {
            return Ok(Arc::clone(known));
        }
        let key = set_key("address_sets", name);
        let Some(set) = self.config.address_sets.get(name) else {
            return Ok(Arc::from([]));
        };
        let too_large = || {
            self.config
                .error(&key, ConfigErrorCause::SetTooLarge(MAX_SET_PREFIXES))
        };
        let mut prefixes: BTreeSet<IpNet> = BTreeSet::new();
        if set.file.is_some() {
            let not_read = || {
                self.config
                    .error(&key, ConfigErrorCause::SetNotRead(name.to_owned()))
            };
            prefixes.extend(set.loaded().ok_or_else(not_read)?);
        }
        // Nested sets are resolved here without recursion, since they may be deep.
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut left: Vec<&AddressTerm> = set.addresses.iter().collect();
        while let Some(term) = left.pop() {
            match term {
                AddressTerm::Prefix(prefix) => {
                    prefixes.insert(*prefix);
                }
                AddressTerm::Set(inner) if names.insert(inner) => {
                    if let Some(inner_set) = self.config.address_sets.get(inner) {
                        left.extend(&inner_set.addresses);
                        if inner_set.file.is_some() {
                            let key = set_key("address_sets", inner);
                            let cause = || ConfigErrorCause::SetNotRead(inner.clone());
                            let loaded = inner_set.loaded();
                            prefixes
                                .extend(loaded.ok_or_else(|| self.config.error(&key, cause()))?);
                        }
                    }
                }
                AddressTerm::Set(_) => {}
            }
            if prefixes.len() > MAX_SET_PREFIXES {
                return Err(too_large());
            }
        }
        let prefixes: Arc<[IpNet]> = prefixes.into_iter().collect();
        self.addresses.insert(name, Arc::clone(&prefixes));
        Ok(prefixes)
    }

    /// Resolves the sets of a list.
    fn terms(&mut self, terms: &'a [AddressTerm]) -> Result<Addresses, ConfigError> {
        let mut addresses = Addresses::default();
        for term in terms {
            match term {
                AddressTerm::Prefix(prefix) => addresses.prefixes.push(*prefix),
                AddressTerm::Set(name) => {
                    let prefixes = self.address_set(name)?;
                    addresses.prefixes.extend(prefixes.iter());
                    let name = name.clone();
                    addresses.sets.push(NamedAddresses { name, prefixes });
                }
            }
        }
        Ok(addresses)
    }

    fn spend(&mut self, key: &str, prefixes: usize) -> Result<(), ConfigError> {
        self.prefixes = self.prefixes.saturating_add(prefixes);
        if self.prefixes > MAX_PREFIXES {
            return Err(self
                .config
                .error(key, ConfigErrorCause::TooManyPrefixes(MAX_PREFIXES)));
        }
        Ok(())
    }

    /// Returns the prefixes of a rule's end; `None` if the end can never match. An empty list
    /// matches every address.
    fn end(&mut self, key: &str, end: EndTerms<'_>) -> Result<Option<Vec<IpNet>>, ConfigError> {
        let EndTerms {
            listed,
            excepted,
            zones,
            is_open,
        } = end;
        if let Some(empty) = excepted.sets.iter().find(|set| set.prefixes.is_empty()) {
            let cause = ConfigErrorCause::EmptyNegation(empty.name.clone());
            return Err(self.config.error(&format!("not.{key}"), cause));
        }
        if excepted.prefixes.is_empty() && zones.is_none() {
            let is_empty = listed.prefixes.is_empty() && !is_open;
            // Prefixes that the rule itself lists are bounded by the length of the file.
            let named: usize = listed.sets.iter().map(|set| set.prefixes.len()).sum();
            self.spend(key, named)?;
            return Ok((!is_empty).then(|| listed.prefixes.clone()));
        }
        let mut ranges = if is_open {
            AddressRanges::everything()
        } else {
            AddressRanges::of(&listed.prefixes)
        };
        if let Some(zones) = zones {
            ranges = ranges.intersection(&AddressRanges::of(&zones));
        }
        let left = ranges.without(&AddressRanges::of(&excepted.prefixes));
        if left.is_empty() {
            return Ok(None);
        }
        let too_many = || {
            self.config
                .error(key, ConfigErrorCause::TooManyPrefixes(MAX_PREFIXES))
        };
        let prefixes = left.prefixes(MAX_PREFIXES).ok_or_else(too_many)?;
        self.spend(key, prefixes.len())?;
        Ok(Some(prefixes))
    }

    /// Returns the parts of a rule; none if the rule can never match.
    fn rule(&mut self, place: usize, rule: &'a RuleConfig) -> Result<Vec<Rule>, ConfigError> {
        let key = format!("policy.rule[{place}]");
        let config = self.config;
        // Errors below are about keys of this rule, except for those of sets, which have their own
        // keys.
        let at = |error: ConfigError| match error.location.key.starts_with("address_sets.") {
            true => error,
            false => config.error(&format!("{key}.{}", error.location.key), error.cause),
        };
        let mut origin = RuleOrigin::default();
        let (source, not_source) = (self.terms(&rule.source)?, self.terms(&rule.not.source)?);
        let end = EndTerms {
            listed: &source,
            excepted: &not_source,
            zones: None,
            is_open: rule.source.is_empty(),
        };
        let sources = self.end("source", end).map_err(at)?;
        (origin.source, origin.not_source) = (source.sets, not_source.sets);
        let destination = self.terms(&rule.destination)?;
        let not_destination = self.terms(&rule.not.destination)?;
        let end = EndTerms {
            listed: &destination,
            excepted: &not_destination,
            zones: self.prefixes_of_zones(&rule.destination_zones),
            is_open: rule.destination.is_empty(),
        };
        let destinations = self.end("destination", end).map_err(at)?;
        (origin.destination, origin.not_destination) = (destination.sets, not_destination.sets);
        let parts = if rule.services.is_empty() {
            let part = plain_part(rule);
            vec![part.map_err(|cause| config.error(&format!("{key}.not"), cause))?]
        } else {
            self.service_parts(&rule.services, &mut origin)
        };
        let (Some(sources), Some(destinations)) = (sources, destinations) else {
            return self.impossible(&key, rule);
        };
        let origin = (!origin.is_empty()).then(|| Arc::new(origin));
        let more = parts.len().saturating_sub(1);
        self.spend(
            &key,
            (sources.len() + destinations.len()).saturating_mul(more),
        )?;
        let zones: Vec<_> = rule
            .zones
            .iter()
            .filter_map(|name| self.zones.zone(name))
            .collect();
        let whole = |part: ServiceMatch| Rule {
            zones: zones.clone(),
            source: sources.clone(),
            destination: destinations.clone(),
            origin: origin.clone(),
            ..part_of(rule, part)
        };
        Ok(parts.into_iter().map(whole).collect())
    }

    /// Returns the prefixes of destination zones; `None` if a rule names none.
    fn prefixes_of_zones(&self, names: &[String]) -> Option<Vec<IpNet>> {
        if names.is_empty() {
            return None;
        }
        let zones = names.iter().filter_map(|name| self.zones.zone(name));
        let prefixes = zones.filter_map(|zone| self.inside.get(&zone)).flatten();
        Some(prefixes.copied().collect())
    }

    /// Returns no parts for a rule that can never match because of its sets, which may change
    /// without the configuration. Without sets, the lists exclude each other, which is an error.
    fn impossible(&self, key: &str, rule: &RuleConfig) -> Result<Vec<Rule>, ConfigError> {
        let lists = [
            &rule.source,
            &rule.destination,
            &rule.not.source,
            &rule.not.destination,
        ];
        let mut terms = lists.into_iter().flatten();
        if terms.any(|term| matches!(term, AddressTerm::Set(_))) {
            return Ok(Vec::new());
        }
        Err(self.config.error(key, ConfigErrorCause::MatchesNothing))
    }

    /// Returns the parts of a rule that names services: one for each list of ports or ICMP types.
    fn service_parts(
        &mut self,
        terms: &'a [ServiceTerm],
        origin: &mut RuleOrigin,
    ) -> Vec<ServiceMatch> {
        let mut services = Vec::new();
        for term in terms {
            match term {
                ServiceTerm::Service(service) => services.push(*service),
                ServiceTerm::Set(name) => {
                    let of_set = services_of(self.config, name);
                    let parts = self.services.entry(name);
                    let parts = parts.or_insert_with(|| parts_of(&of_set).into());
                    origin.services.push(NamedServices {
                        name: name.clone(),
                        parts: Arc::clone(parts),
                    });
                    services.extend(of_set);
                }
            }
        }
        parts_of(&services)
    }
}

/// Returns a rule of one part, without addresses, zones and sets.
fn part_of(rule: &RuleConfig, part: ServiceMatch) -> Rule {
    Rule {
        name: rule.name.clone(),
        action: rule.action,
        zones: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        protocol: part.protocol,
        source_ports: part.source_ports,
        destination_ports: part.destination_ports,
        icmp_types: part.icmp_types,
        direction: rule.direction,
        log: rule.log,
        resilient: rule.resilient,
        tcp: rule.tcp,
        ip_options: rule.ip_options,
        limits: rule.limits,
        origin: None,
    }
}

/// Returns the part of a rule that names no services.
fn plain_part(rule: &RuleConfig) -> Result<ServiceMatch, ConfigErrorCause> {
    let protocol = if rule.not.protocol.is_empty() {
        rule.protocol.clone()
    } else {
        let of_all = (0..=u8::MAX).map(Protocol);
        let named =
            |protocol: &Protocol| rule.protocol.is_empty() || rule.protocol.contains(protocol);
        let left =
            of_all.filter(|protocol| named(protocol) && !rule.not.protocol.contains(protocol));
        let left: Vec<_> = left.collect();
        if left.is_empty() {
            return Err(ConfigErrorCause::MatchesNothing);
        }
        left
    };
    Ok(ServiceMatch {
        protocol,
        source_ports: ports_without(&rule.source_ports, &rule.not.source_ports)?,
        destination_ports: ports_without(&rule.destination_ports, &rule.not.destination_ports)?,
        icmp_types: rule.icmp_types.clone(),
    })
}

fn ports_without(
    list: &[PortRange],
    excepted: &[PortRange],
) -> Result<Vec<PortRange>, ConfigErrorCause> {
    if excepted.is_empty() {
        return Ok(list.to_vec());
    }
    let every_port = [PortRange {
        first: 0,
        last: u16::MAX,
    }];
    let list = if list.is_empty() { &every_port } else { list };
    let mut left = Vec::new();
    for range in merged(list) {
        let mut next = Some(range.first);
        for hole in merged(excepted) {
            let Some(first) = next.filter(|_| hole.last >= range.first && hole.first <= range.last)
            else {
                continue;
            };
            if first < hole.first {
                let last = hole.first - 1;
                left.push(PortRange { first, last });
            }
            next = hole.last.checked_add(1).filter(|next| *next <= range.last);
        }
        left.extend(next.map(|first| PortRange {
            first,
            last: range.last,
        }));
    }
    if left.is_empty() {
        return Err(ConfigErrorCause::MatchesNothing);
    }
    Ok(left)
}

/// Returns the services of a set, including those of nested sets.
fn services_of(config: &Config, name: &str) -> Vec<Service> {
    let mut services = Vec::new();
    let mut names = BTreeSet::from([name]);
    let mut left: Vec<&ServiceTerm> = config
        .service_sets
        .get(name)
        .into_iter()
        .flatten()
        .collect();
    while let Some(term) = left.pop() {
        match term {
            ServiceTerm::Service(service) => services.push(*service),
            ServiceTerm::Set(inner) if names.insert(inner) => {
                left.extend(config.service_sets.get(inner).into_iter().flatten());
            }
            ServiceTerm::Set(_) => {}
        }
    }
    services
}

/// Joins services: protocols with equal ports share one part, and services that a whole protocol
/// covers are omitted.
fn parts_of(services: &[Service]) -> Vec<ServiceMatch> {
    let whole: BTreeSet<Protocol> = services
        .iter()
        .filter(|service| service.ports.is_none() && service.icmp.is_none())
        .map(|service| service.protocol)
        .collect();
    let mut ports: BTreeMap<Protocol, Vec<PortRange>> = BTreeMap::new();
    let mut icmp: BTreeMap<Protocol, Vec<IcmpType>> = BTreeMap::new();
    for service in services
        .iter()
        .filter(|service| !whole.contains(&service.protocol))
    {
        ports
            .entry(service.protocol)
            .or_default()
            .extend(service.ports);
        icmp.entry(service.protocol)
            .or_default()
            .extend(service.icmp);
    }
    let mut by_ports: BTreeMap<Vec<PortRange>, Vec<Protocol>> = BTreeMap::new();
    for (protocol, ranges) in ports {
        if !ranges.is_empty() {
            by_ports.entry(merged(&ranges)).or_default().push(protocol);
        }
    }
    let mut parts = Vec::new();
    if !whole.is_empty() {
        parts.push(ServiceMatch {
            protocol: whole.into_iter().collect(),
            ..ServiceMatch::default()
        });
    }
    parts.extend(
        by_ports
            .into_iter()
            .map(|(destination_ports, protocol)| ServiceMatch {
                protocol,
                destination_ports,
                ..ServiceMatch::default()
            }),
    );
    let icmp = icmp.into_iter().filter(|(_, types)| !types.is_empty());
    parts.extend(icmp.map(|(protocol, icmp_types)| ServiceMatch {
        protocol: vec![protocol],
        icmp_types,
        ..ServiceMatch::default()
    }));
    parts
}
