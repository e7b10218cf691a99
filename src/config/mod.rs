//! The configuration: plain data, read from TOML or built in code, then validated and compiled
//! once.
//!
//! A [`Config`] holds the settings. [`Config::compile`] validates them and builds the look-up
//! structures of the packet path. [`Config::warnings`] lists settings that are allowed but probably
//! unintended, and [`Config::effective`] every value in force with its origin. Each key is declared
//! once ([`declare`]).
//!
//! ```
//! use portcullis::config::Config;
//!
//! let config = Config::from_toml(
//!     r#"
//!     [zones]
//!     production = 1
//!
//!     [lifetimes]
//!     tcp.established = "5m 30s"
//!
//!     [[lifetimes.override]]
//!     protocol = "udp"
//!     ports = 53
//!     udp.exchange = "10s"
//!
//!     [[policy.rule]]
//!     name = "web"
//!     action = "allow"
//!     zones = ["production"]
//!     protocol = "tcp"
//!     destination_ports = [80, 443, "8000-8999"]
//!     "#,
//!     "portcullis.toml",
//! )?;
//! assert!(config.warnings().is_empty());
//! let compiled = config.compile()?;
//! assert_eq!(compiled.policy.len(), 1);
//!
//! let error = Config::from_toml("[table]\nmax_sessions = 0", "portcullis.toml").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "portcullis.toml:2: table.max_sessions: 0 is out of bounds: 1 to 268435456"
//! );
//! # Ok::<(), portcullis::config::ConfigError>(())
//! ```
use std::collections::BTreeMap;

pub use crate::geneve::{EndpointId, MetadataField, Provider};
pub use crate::lifetime::{
    LifetimeClass, LifetimeSet, Lifetimes, MAX_LIFETIME, MAX_OVERRIDES, MIN_LIFETIME,
};
pub use crate::limits::LimitSet;
pub use crate::packet::Checksums;
use crate::policy::Action;
pub use crate::policy::handling::{
    Asymmetric, LatePacket, Midstream, OptionsMode, TcpHandling, TcpMode,
};
use crate::verdict::DropReason;

mod challenge;
mod compile;
mod continuity;
pub mod declare;
#[cfg(feature = "toml")]
mod document;
mod effective;
mod ending;
mod error;
mod expiry;
mod ftp;
mod geneve;
mod ip;
mod keys;
mod lifetimes;
mod limits;
mod lower;
mod origin;
mod overrides;
mod path;
mod replaced;
mod rules;
mod running;
mod sections;
mod sets;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod text;
mod validate;
mod warnings;
mod zones;

pub use self::challenge::{ChallengeMode, SynChallengeConfig};
pub use self::compile::{Compiled, Fixed};
pub use self::continuity::ContinuityConfig;
pub use self::declare::{KeyReference, SectionReference};
#[cfg(feature = "toml")]
pub use self::document::Document;
pub use self::effective::effective_toml;
pub use self::ending::{AsymmetryConfig, OnReload, ResetsConfig, TombstonesConfig};
pub use self::error::{
    ConfigError, ConfigErrorCause, ConfigErrors, Location, TextPlace, UnknownName, Warning,
    WarningKind,
};
pub use self::ftp::{FtpConfig, FtpHandling, RefusedAnnouncement};
pub use self::geneve::{GeneveConfig, parse_endpoint};
pub use self::ip::{IpConfig, Permission};
pub use self::keys::Provenance;
pub use self::lifetimes::{LifetimeOverride, LifetimesConfig};
pub use self::limits::LimitsConfig;
pub use self::origin::{EffectiveValue, Origin};
pub use self::sections::{MAX_COMMENT, PolicyConfig, RuleConfig, RuleExceptions};
pub use self::sets::{AddressSet, AddressTerm, MAX_SET_PREFIXES, Service, ServiceTerm};
pub use self::table::{Attachment, EngineConfig, FragmentsConfig, GwlbConfig, TableConfig};
pub use self::zones::Zones;

pub use self::tcp::TcpConfig;

/// The name of zone 0.
const DEFAULT_ZONE: &str = "default";

crate::config_section! {
    /// The configuration of the engine.
    ///
    /// [`Config::default`] equals an empty file: every value is at its default, and every session
    /// is denied. [`Config::allow_all`] allows every session.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Config = "" {
        /// `[engine]`.
        engine: EngineConfig { default: EngineConfig::default(), ""; }
        /// `[table]`.
        table: TableConfig { default: TableConfig::default(), ""; }
        /// `[limits]`.
        limits: LimitsConfig { default: LimitsConfig::default(), ""; }
        /// `[fragments]`.
        fragments: FragmentsConfig { default: FragmentsConfig::default(), ""; }
        /// `[zones]`: address spaces, a number for each name. `default` is 0 without being written.
        zones: BTreeMap<String, u16> {
            default: BTreeMap::new(), "always there";
            implied: implied_zones;
        }
        /// `[zone_groups]`: names of zones that share one address space, by the name of the group.
        /// They are one zone to sessions, rules and lifetimes; any of the names stands for all.
        zone_groups: BTreeMap<String, Vec<String>> {
            default: BTreeMap::new(), "no groups";
            kept_apart: true;
        }
        /// `[address_sets]`: named sets of addresses, which rules name as `@name`.
        address_sets: BTreeMap<String, AddressSet> { default: BTreeMap::new(), "no sets"; }
        /// `[service_sets]`: named sets of services, which rules name as `@name`.
        service_sets: BTreeMap<String, Vec<ServiceTerm>> { default: BTreeMap::new(), "no sets"; }
        /// `[gwlb]`.
        gwlb: GwlbConfig { default: GwlbConfig::default(), ""; }
        /// `[geneve]`.
        geneve: GeneveConfig { default: GeneveConfig::default(), ""; }
        /// `[tcp]`.
        tcp: TcpConfig { default: TcpConfig::default(), ""; }
        /// `[resets]`.
        resets: ResetsConfig { default: ResetsConfig::default(), ""; }
        /// `[tombstones]`.
        tombstones: TombstonesConfig { default: TombstonesConfig::default(), ""; }
        /// `[continuity]`.
        continuity: ContinuityConfig { default: ContinuityConfig::default(), ""; }
        /// `[asymmetry]`.
        asymmetry: AsymmetryConfig { default: AsymmetryConfig::default(), ""; }
        /// `[syn_challenge]`.
        syn_challenge: SynChallengeConfig { default: SynChallengeConfig::default(), ""; }
        /// `[ip]`.
        ip: IpConfig { default: IpConfig::default(), ""; }
        /// `[ftp]`.
        ftp: FtpConfig { default: FtpConfig::default(), ""; }
        /// `[checks]`: handling of packets that do not pass a check
        /// ([`DropReason::CHECKS`](crate::DropReason::CHECKS)), by its name. `drop` drops the
        /// packet. `count` forwards it and counts it by reason and rule; it changes no session, but
        /// a handshake that `tcp_split_handshake` only counts is completed. Redirects
        /// (`icmp_redirect`) are dropped in a tunnel in any case.
        checks: BTreeMap<String, CheckMode> {
            default: BTreeMap::new(), "a check drops";
            implied: implied_checks;
        }
        /// `[lifetimes]`: the lifetime of a session by its state.
        lifetimes: LifetimesConfig { default: LifetimesConfig::default(), ""; }
        /// `[policy]`.
        policy: PolicyConfig { default: PolicyConfig::default(), ""; }
    }
    also {
        /// The source of each value; leave it at its default for a configuration built in code.
        provenance: Provenance = Provenance::default();
    }
}

fn implied_zones() -> BTreeMap<String, u16> {
    BTreeMap::from([(DEFAULT_ZONE.to_owned(), 0)])
}

fn implied_checks() -> BTreeMap<String, CheckMode> {
    let checks = DropReason::CHECKS.iter();
    checks
        .map(|check| (check.name().to_owned(), CheckMode::Drop))
        .collect()
}

/// Handling of a packet that does not pass a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CheckMode {
    /// The packet is dropped.
    #[default]
    Drop,
    /// The packet is forwarded, changes nothing, and is counted by reason and rule.
    Count,
}

impl CheckMode {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Count => "count",
        }
    }
}

crate::config_choices!(CheckMode [Drop, Count]);

impl Config {
    /// Returns the defaults with a policy that allows every session, for captures, measurements and
    /// tests.
    #[must_use]
    pub fn allow_all() -> Self {
        let mut config = Self::default();
        config.policy.default = Action::Allow;
        config
    }

    /// Parses and validates a configuration. `file_name` is only for messages; no file is opened.
    ///
    /// # Errors
    /// Returns the first error of the file; [`Document::finish`] returns all of them. The error
    /// names the file, the line and the key.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        Document::parse(text, file_name)?.config()
    }

    /// Returns the sections of the reference page: every key with its type, default and bounds.
    #[must_use]
    pub fn reference() -> Vec<SectionReference> {
        declare::reference::sections::<Self>("")
    }
}
