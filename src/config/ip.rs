//! Settings of what the IP header of a packet may say.
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::effective::Values;
use super::error::ConfigError;
use super::keys::key_segment;
use super::values::{self, quoted, quoted_list};
use super::{Config, Permission};
use crate::policy::handling::OptionsMode;

/// `[ip]`: checks of the IP header. Invalid options are always malformed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpConfig {
    /// What happens to packets with a source route: an IPv4 LSRR or SSRR option, or an IPv6 routing
    /// header with segments left. A source route leads a packet elsewhere than its destination address
    /// says, which is all that rules see of it. Mobile IPv6 (type 2) and segment routing (type 4) need
    /// `allow`. Type 0 is malformed in any case (RFC 5095).
    pub source_routes: Permission,
    /// What happens to packets with IPv4 options, or with IPv6 hop-by-hop, destination or routing
    /// headers, in sessions whose rule has no `ip_options`.
    pub options: OptionsMode,
    /// What happens to packets whose addresses or TTL cannot be right, such as the same address at both
    /// ends, or a loopback address at one of them.
    pub martians: Permission,
    /// Prefixes by the name of a zone or group of zones: a new session of that zone must have one end
    /// in one of them. Zones that are not named here are not checked.
    #[serde(deserialize_with = "prefixes_by_zone")]
    pub inside: BTreeMap<String, Vec<IpNet>>,
}

impl Config {
    pub(super) fn check_ip(&self) -> Result<(), ConfigError> {
        for (zone, prefixes) in &self.ip.inside {
            let key = format!("ip.inside.{}", key_segment(zone));
            self.check_zone(&key, zone)?;
            self.check_prefixes(&key, prefixes)?;
            if prefixes.is_empty() {
                return Err(self.out_of_bounds(&key, "[]", "at least one prefix"));
            }
        }
        Ok(())
    }

    pub(super) fn effective_ip(&self, values: &mut Values<'_>) {
        let ip = &self.ip;
        let settings = [
            (
                "ip.source_routes",
                (ip.source_routes.name(), "drop"),
                "RFC 7126, sections 4.3 and 4.4",
            ),
            (
                "ip.options",
                (ip.options.name(), "allow"),
                "router alerts of IGMP and RSVP",
            ),
            (
                "ip.martians",
                (ip.martians.name(), "drop"),
                "RFC 1812, section 5.3.7",
            ),
        ];
        for (key, (value, default), source) in settings {
            values.setting(key, quoted(value), &quoted(default), source);
        }
        for (zone, prefixes) in &ip.inside {
            let key = format!("ip.inside.{}", key_segment(zone));
            values.entry(key, quoted_list(prefixes));
        }
    }
}

fn prefixes_by_zone<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<IpNet>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Prefixes(#[serde(deserialize_with = "values::list")] Vec<IpNet>);

    let zones = BTreeMap::<String, Prefixes>::deserialize(deserializer)?;
    Ok(zones
        .into_iter()
        .map(|(zone, Prefixes(prefixes))| (zone, prefixes))
        .collect())
}
