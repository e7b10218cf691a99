//! `[ftp]`: the helper of FTP.
use std::time::Duration;

use ipnet::IpNet;
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
    /// Prefixes of addresses at which data are expected, besides the server's own, if a 227 announces
    /// them: those of other hosts. The public address of a server behind NAT need not be listed.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub passive_addresses: Vec<IpNet>,
    /// Prefixes of addresses that PORT and EPRT may announce in place of the client's own: the public
    /// addresses of clients behind NAT. Data are expected at the client's own.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub active_addresses: Vec<IpNet>,
    /// After how many refused PORT and EPRT a session is not listened to any more; 0 is never.
    pub max_refused: u16,
    /// The port that a server must call from in active mode: 20 by RFC 959; 0, the default, is any.
    pub active_source_port: u16,
    /// What becomes of a packet with an announcement that is refused. A rule can say otherwise.
    pub refused: RefusedAnnouncement,
    /// How many bytes all control sessions together may take, from [`Self::MIN_MEMORY`]. With
    /// several zones each has a part for certain, and one source leaves some to others. Beyond its
    /// share a control session gives up what waits for missing segments, and one that is new, or
    /// takes too much still, is not listened to.
    pub max_memory: u32,
}

/// What becomes of a packet with an announcement that is refused: of a foreign address, a low port, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RefusedAnnouncement {
    /// The text passes, and nothing is opened.
    #[default]
    Pass,
    /// It is dropped, and so is all that its sender sends behind it: the control session comes to a stand. So are data that
    /// the helper cannot read whole and in their place, such as fragments and lines over 512 bytes; TLS that is not agreed on
    /// by AUTH and 234 passes as little.
    Drop,
}

impl RefusedAnnouncement {
    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// What a rule says of the control sessions that it admits; `[ftp]` holds where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtpHandling {
    /// See [`FtpConfig::ports`]; an empty list turns the helper off.
    pub ports: Option<Vec<u16>>,
    /// See [`FtpConfig::refused`].
    pub refused: Option<RefusedAnnouncement>,
}

impl FtpHandling {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said, as keys with their values.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("ports", self.ports.as_ref().map(|ports| format!("{ports:?}"))),
            (
                "refused",
                self.refused.map(|refused| format!("\"{}\"", refused.name())),
            ),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

impl FtpConfig {
    /// The longest `lifetime`.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

    /// The least `max_memory`: a few control sessions.
    pub const MIN_MEMORY: u32 = 1 << 16;

    /// The settings of the helper.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            port_floor: self.port_floor,
            lifetime: self.lifetime,
            passive_addresses: self.passive_addresses.clone(),
            active_addresses: self.active_addresses.clone(),
            max_refused: self.max_refused,
            active_source_port: (self.active_source_port != 0).then_some(self.active_source_port),
            ..Settings::default()
        }
    }
}

impl Default for FtpConfig {
    fn default() -> Self {
        let Settings {
            port_floor,
            lifetime,
            max_refused,
            ..
        } = Settings::default();
        Self {
            ports: vec![CONTROL_PORT],
            port_floor,
            lifetime,
            passive_addresses: Vec::new(),
            active_addresses: Vec::new(),
            max_refused,
            active_source_port: 0,
            refused: RefusedAnnouncement::default(),
            max_memory: 64 << 20,
        }
    }
}
