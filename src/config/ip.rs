//! `[ip]`: checks of IP headers.
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Config;
use super::path::key_segment;
use super::validate::Errors;
use crate::policy::handling::OptionsMode;

crate::config_section! {
    /// `[ip]`: checks of the IP header. Invalid options are always malformed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct IpConfig = "ip" {
        /// Handling of packets with a source route: an IPv4 LSRR or SSRR option, or an IPv6 routing
        /// header with segments left. A source route leads a packet to another address than its
        /// destination, which is all that rules see of it. Mobile IPv6 (type 2) and segment routing
        /// (type 4) need `allow`. Type 0 is malformed in any case (RFC 5095).
        source_routes: Permission {
            default: Permission::Drop, "RFC 7126, sections 4.3 and 4.4";
        }
        /// Handling of packets with IPv4 options, or with IPv6 hop-by-hop, destination or routing
        /// headers, in sessions whose rule has no `ip_options`. `strict` drops them.
        options: OptionsMode {
            default: OptionsMode::Allow, "router alerts of IGMP and RSVP";
        }
        /// Handling of packets whose addresses or TTL cannot be right, such as the same address at
        /// both ends, or a loopback address at one of them.
        martians: Permission {
            default: Permission::Drop, "RFC 1812, section 5.3.7";
        }
        /// Prefixes by the name of a zone or group of zones: a new session of that zone must have
        /// one end in one of them. Zones that are not named here are not checked.
        inside: BTreeMap<String, Vec<IpNet>> {
            default: BTreeMap::new(), "no zone is checked";
        }
    }
}

/// Handling of a packet that a setting allows or drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Permission {
    /// The packet is dropped.
    #[default]
    Drop,
    /// The packet is allowed.
    Allow,
}

impl Permission {
    /// Returns the name in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Allow => "allow",
        }
    }
}

impl Config {
    pub(super) fn check_ip(&self, errors: &mut Errors) {
        for (zone, prefixes) in &self.ip.inside {
            let key = format!("ip.inside.{}", key_segment(zone));
            errors.check(self.check_zone(&key, zone));
            errors.check(self.check_prefixes(&key, prefixes));
            if prefixes.is_empty() {
                errors.add(self.out_of_bounds(&key, "[]", "at least one prefix"));
            }
        }
    }
}

crate::config_table_values!(IpConfig);
crate::config_choices!(Permission [Drop, Allow], OptionsMode [Allow, Strict]);
