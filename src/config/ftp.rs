//! `[ftp]`: the helper of FTP.
use std::time::Duration;

use serde::Deserialize;

use super::values;
use crate::alg::ftp::{CONTROL_PORT, Settings};

/// `[ftp]`: which sessions are control sessions of FTP, and what they may announce.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtpConfig {
    /// The ports of servers; none turns the helper off.
    pub ports: Vec<u16>,
    /// The lowest port that may be announced.
    pub port_floor: u16,
    /// How long an announced session may take to come, 1 s to [`Self::MAX_LIFETIME`].
    #[serde(deserialize_with = "values::scalar")]
    pub lifetime: Duration,
}

impl FtpConfig {
    /// The longest `lifetime`.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(300);

    /// The settings of the helper.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            port_floor: self.port_floor,
            lifetime: self.lifetime,
            ..Settings::default()
        }
    }
}

impl Default for FtpConfig {
    fn default() -> Self {
        let Settings {
            port_floor, lifetime, ..
        } = Settings::default();
        Self {
            ports: vec![CONTROL_PORT],
            port_floor,
            lifetime,
        }
    }
}
