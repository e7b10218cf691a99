//! Checks of `[[lifetimes.override]]`.
use std::collections::HashMap;

use ipnet::IpNet;

use super::error::ConfigErrorCause;
use super::text::shown;
use super::validate::{Checked, Errors};
use super::{Config, LifetimeOverride, Zones};
use crate::flow::Zone;
use crate::lifetime::MAX_OVERRIDES;
use crate::policy::{PortRange, Protocol};

impl Config {
    pub(super) fn check_overrides(&self, errors: &mut Errors) {
        let overrides = &self.lifetimes.overrides;
        if overrides.len() > MAX_OVERRIDES {
            let cause = ConfigErrorCause::TooManyOverrides(overrides.len());
            errors.add(self.error("lifetimes.override", cause));
            return;
        }
        let before = errors.len();
        for (place, each) in overrides.iter().enumerate() {
            errors.check(self.check_override(&format!("lifetimes.override[{place}]"), each));
        }
        if errors.len() == before {
            errors.check(self.check_ambiguity());
        }
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
                None => {
                    return Err(self.error(&ports, ConfigErrorCause::PortsNeedProtocol(ALLOWED)));
                }
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
                ConfigErrorCause::UnknownRule(shown(rule).into_owned()),
            ));
        }
        Ok(())
    }

    /// Checks that no two overrides are equally specific for a session.
    ///
    /// Such overrides name the same rule, zone and protocol, port ranges of one width that overlap,
    /// and the same prefix: two of one length that hold one address are equal. Overrides that
    /// differ only in their ranges are grouped; overlapping ranges of one width are adjacent in
    /// sorted order.
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
        // The first tie in the order of the overrides, so that the message does not depend on the
        // hash.
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
        let first = self
            .provenance
            .mention(&format!("lifetimes.override[{first}]"));
        let cause = ConfigErrorCause::AmbiguousOverrides { first, shared };
        Err(self.error(&format!("lifetimes.override[{second}]"), cause))
    }
}
