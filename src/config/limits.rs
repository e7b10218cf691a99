//! `[limits]`: what a zone, a rule, a source or a destination may hold.
use serde::Deserialize;

use super::effective::Values;
use super::{Config, ConfigError};
use crate::limits::{Limits, Prefixes};

/// `[limits]`: limits for all zones, and the prefixes by which sources and destinations are counted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The length of the IPv4 prefix that is counted as one source or destination, 0 to 32. Only a start
    /// can change it.
    pub ipv4_prefix: u8,
    /// The length of the IPv6 prefix that is counted as one source or destination, 0 to 128. Only a start
    /// can change it.
    pub ipv6_prefix: u8,
}

impl LimitsConfig {
    /// Returns the counted prefixes.
    pub(crate) const fn prefixes(&self) -> Prefixes {
        Prefixes {
            v4: self.ipv4_prefix,
            v6: self.ipv6_prefix,
        }
    }
}

impl LimitsConfig {
    /// Returns what the engine reads.
    pub(super) const fn compile(&self) -> Limits {
        Limits {
            prefixes: self.prefixes(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            ipv4_prefix: Prefixes::DEFAULT.v4,
            ipv6_prefix: Prefixes::DEFAULT.v6,
        }
    }
}

impl Config {
    pub(super) fn check_limits(&self) -> Result<(), ConfigError> {
        for (key, length, bits) in [
            ("limits.ipv4_prefix", self.limits.ipv4_prefix, 32),
            ("limits.ipv6_prefix", self.limits.ipv6_prefix, 128),
        ] {
            if length > bits {
                return Err(self.out_of_bounds(key, length, format!("0 to {bits}")));
            }
        }
        Ok(())
    }

    pub(super) fn effective_limits(&self, values: &mut Values<'_>) {
        let default = LimitsConfig::default();
        values.setting(
            "limits.ipv4_prefix",
            self.limits.ipv4_prefix.to_string(),
            &default.ipv4_prefix.to_string(),
            "a host",
        );
        values.setting(
            "limits.ipv6_prefix",
            self.limits.ipv6_prefix.to_string(),
            &default.ipv6_prefix.to_string(),
            "a host's subnet (RFC 4291 2.5.4)",
        );
    }
}
