//! Checks of a rule.
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::declare::Checker;
use super::error::ConfigErrorCause;
use super::sets::ServiceTerm;
use super::validate::{Checked, Errors};
use super::{Config, MAX_COMMENT, RuleConfig, Zones};
use crate::flow::Zone;
use crate::policy::{PortRange, Protocol};

/// The protocols with ports that a rule compares, for messages.
const WITH_PORTS: &str = "tcp, udp, udplite, sctp or dccp";

/// The zones by name, and those with prefixes, which a destination can be in.
pub(super) struct DestinationZones {
    zones: Zones,
    inside: BTreeMap<Zone, Vec<IpNet>>,
}

impl Config {
    pub(super) fn destination_zones(&self) -> DestinationZones {
        let zones = Zones::new(&self.zones, &self.zone_groups);
        let inside = self.compile_inside(&zones);
        DestinationZones { zones, inside }
    }

    pub(super) fn check_rule(
        &self,
        key: &str,
        rule: &RuleConfig,
        known: &DestinationZones,
        errors: &mut Errors,
    ) {
        if !rule.limits.is_empty() {
            let mut checker = Checker::new(&self.provenance);
            checker.table(&format!("{key}.limits"), &rule.limits);
            checker
                .into_errors()
                .into_iter()
                .for_each(|error| errors.add(error));
        }
        let comment = &rule.comment;
        if comment.len() > MAX_COMMENT || comment.chars().any(char::is_control) {
            let cause = ConfigErrorCause::BadComment(MAX_COMMENT);
            errors.add(self.error(&format!("{key}.comment"), cause));
        }
        for (place, zone) in rule.zones.iter().enumerate() {
            errors.check(self.check_zone(&format!("{key}.zones[{place}]"), zone));
        }
        errors.check(self.check_destination_zones(key, rule, known));
        for (name, terms) in [
            ("source", &rule.source),
            ("destination", &rule.destination),
            ("not.source", &rule.not.source),
            ("not.destination", &rule.not.destination),
        ] {
            errors.check(self.check_address_terms(&format!("{key}.{name}"), terms));
        }
        errors.check(self.check_services(key, rule));
        for (ranges, name) in [
            (&rule.source_ports, "source_ports"),
            (&rule.destination_ports, "destination_ports"),
            (&rule.not.source_ports, "not.source_ports"),
            (&rule.not.destination_ports, "not.destination_ports"),
        ] {
            errors.check(self.check_ports(&format!("{key}.{name}"), rule, ranges));
        }
        errors.check(self.check_icmp_types(key, rule));
    }

    fn check_destination_zones(
        &self,
        key: &str,
        rule: &RuleConfig,
        known: &DestinationZones,
    ) -> Checked {
        let DestinationZones { zones, inside } = known;
        for (place, name) in rule.destination_zones.iter().enumerate() {
            let key = format!("{key}.destination_zones[{place}]");
            self.check_zone(&key, name)?;
            let prefixes = zones.zone(name).and_then(|zone| inside.get(&zone));
            if prefixes.is_none_or(Vec::is_empty) {
                return Err(self.error(&key, ConfigErrorCause::NoZonePrefixes(name.clone())));
            }
        }
        Ok(())
    }

    fn check_services(&self, key: &str, rule: &RuleConfig) -> Checked {
        if rule.services.is_empty() {
            return Ok(());
        }
        self.check_service_terms(&format!("{key}.services"), rule)?;
        for (name, is_written) in [
            ("protocol", !rule.protocol.is_empty()),
            ("source_ports", !rule.source_ports.is_empty()),
            ("destination_ports", !rule.destination_ports.is_empty()),
            ("icmp_types", !rule.icmp_types.is_empty()),
            ("not.protocol", !rule.not.protocol.is_empty()),
            ("not.source_ports", !rule.not.source_ports.is_empty()),
            (
                "not.destination_ports",
                !rule.not.destination_ports.is_empty(),
            ),
        ] {
            if is_written {
                let cause = ConfigErrorCause::ServicesAndMore(name);
                return Err(self.error(&format!("{key}.{name}"), cause));
            }
        }
        Ok(())
    }

    fn check_service_terms(&self, key: &str, rule: &RuleConfig) -> Checked {
        for (place, term) in rule.services.iter().enumerate() {
            if let ServiceTerm::Set(name) = term {
                self.check_set_name(&format!("{key}[{place}]"), name, "service_sets")?;
            }
        }
        Ok(())
    }

    fn check_ports(&self, key: &str, rule: &RuleConfig, ranges: &[PortRange]) -> Checked {
        if ranges.is_empty() {
            return Ok(());
        }
        if rule.protocol.is_empty() {
            return Err(self.error(key, ConfigErrorCause::PortsNeedProtocol(WITH_PORTS)));
        }
        if let Some(protocol) = rule.protocol.iter().find(|protocol| !protocol.has_ports()) {
            let protocol = protocol.to_string();
            let allowed = WITH_PORTS;
            return Err(self.error(key, ConfigErrorCause::NoPorts { protocol, allowed }));
        }
        self.check_ranges(key, ranges)
    }

    fn check_icmp_types(&self, key: &str, rule: &RuleConfig) -> Checked {
        if rule.icmp_types.is_empty() {
            return Ok(());
        }
        let is_icmp = |protocol: &Protocol| matches!(*protocol, Protocol::ICMP | Protocol::ICMPV6);
        if rule.protocol.is_empty() || !rule.protocol.iter().all(is_icmp) {
            return Err(self.error(
                &format!("{key}.icmp_types"),
                ConfigErrorCause::IcmpTypesNeedIcmp,
            ));
        }
        for (place, kind) in rule.icmp_types.iter().enumerate() {
            if rule
                .protocol
                .iter()
                .all(|protocol| kind.of(*protocol).is_none())
            {
                let protocols: Vec<String> =
                    rule.protocol.iter().map(Protocol::to_string).collect();
                let (kind, protocol) = (kind.to_string(), protocols.join(" or "));
                let cause = ConfigErrorCause::NoSuchIcmpType { kind, protocol };
                return Err(self.error(&format!("{key}.icmp_types[{place}]"), cause));
            }
        }
        Ok(())
    }
}
