//! The configuration: plain data, read from TOML or built in code, checked and compiled once.
//!
//! A [`Config`] holds what was asked for. [`Config::compile`] checks all of it and makes the look-up
//! structures that the packet path reads. [`Config::warnings`] tells what is allowed but hardly meant, and
//! [`Config::effective`] every value in force with its origin.
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
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::flow::Zone;
use crate::lifetime::LifetimeTable;
pub use crate::limits::LimitSet;
use crate::limits::{Adaptive, Limits, Prefixes};
pub use crate::packet::Checksums;
pub use crate::policy::handling::{Asymmetric, LatePacket, Midstream, OptionsMode, TcpHandling, TcpMode};
use crate::policy::{Action, Policy, RuleId};
use crate::verdict::DropReason;

mod challenge;
mod compile;
mod document;
mod effective;
mod ending;
mod error;
mod expiry;
mod ftp;
mod geneve;
mod ip;
mod keys;
mod limits;
mod lower;
mod rules;
mod running;
mod sections;
mod sets;
mod tcp;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod warnings;

pub use self::challenge::{ChallengeMode, SynChallengeConfig};
pub use self::document::Document;
pub use self::effective::{EffectiveValue, Origin};
pub use self::ending::{AsymmetryConfig, OnReload, ResetsConfig, TombstonesConfig};
pub use self::error::{ConfigError, ConfigErrorCause, Location, Warning, WarningKind};
pub use self::ftp::{FtpConfig, FtpHandling, RefusedAnnouncement};
pub use self::geneve::{GeneveConfig, RunConfig, parse_endpoint};
pub use self::ip::IpConfig;
pub use self::keys::Provenance;
pub use self::limits::LimitsConfig;
pub use self::sections::{
    LifetimeOverride, LifetimesConfig, MAX_COMMENT, PolicyConfig, RuleConfig, RuleExceptions,
};
pub use self::sets::{AddressSet, AddressTerm, MAX_SET_PREFIXES, Service, ServiceTerm};

pub use self::tcp::TcpConfig;

/// The name of zone 0.
const DEFAULT_ZONE: &str = "default";

/// All that can be set.
///
/// [`Config::default`] equals an empty file: every value is at its default, and every session is
/// denied. [`Config::allow_all`] allows every session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[engine]`.
    pub engine: EngineConfig,
    /// `[table]`.
    pub table: TableConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[fragments]`.
    pub fragments: FragmentsConfig,
    /// `[zones]`: a number for each name. `default = 0` need not be there.
    #[serde(deserialize_with = "zone_numbers")]
    pub zones: BTreeMap<String, u16>,
    /// `[zone_groups]`: names of zones that share one address space, by the name of the group. They are one zone to
    /// everything: sessions, rules, lifetimes; any of the names stands for all.
    pub zone_groups: BTreeMap<String, Vec<String>>,
    /// `[address_sets]`: named sets of addresses, which rules name as `@name`.
    pub address_sets: BTreeMap<String, AddressSet>,
    /// `[service_sets]`: named sets of services, which rules name as `@name`.
    #[serde(deserialize_with = "sets::service_sets")]
    pub service_sets: BTreeMap<String, Vec<ServiceTerm>>,
    /// `[gwlb]`.
    pub gwlb: GwlbConfig,
    /// `[geneve]`.
    pub geneve: GeneveConfig,
    /// `[run]`.
    pub run: RunConfig,
    /// `[lifetimes]`.
    pub lifetimes: LifetimesConfig,
    /// `[policy]`.
    pub policy: PolicyConfig,
    /// `[tcp]`.
    pub tcp: TcpConfig,
    /// `[resets]`.
    pub resets: ResetsConfig,
    /// `[syn_challenge]`.
    pub syn_challenge: SynChallengeConfig,
    /// `[tombstones]`.
    pub tombstones: TombstonesConfig,
    /// `[asymmetry]`.
    pub asymmetry: AsymmetryConfig,
    /// `[ip]`.
    pub ip: IpConfig,
    /// `[icmp]`.
    pub icmp: IcmpConfig,
    /// `[ftp]`.
    pub ftp: FtpConfig,
    /// `[checks]`: drop reasons that are a check's ([`DropReason::CHECKS`]), by name.
    pub checks: BTreeMap<String, CheckMode>,
    /// Where the values come from; leave it at its default for a configuration that is built in code.
    #[serde(skip)]
    pub provenance: Provenance,
}

/// `[engine]`: how packets are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Whether checksums are verified. In a tunnel nobody else does it before the packet reaches its end, and a segment
    /// with a wrong checksum must not change a session. A caller whose packets have no checksums yet, since an interface
    /// is to fill them in, says so of each one ([`Packet::offloaded`](crate::Packet::offloaded)).
    pub checksums: Checksums,
    /// What packets come from: a link, or a tunnel in which nothing of a link belongs.
    pub attachment: Attachment,
    /// Does each session remember the newest [`TunnelRef`](crate::TunnelRef) of each direction? 16 bytes a session.
    pub tunnel_references: bool,
}

/// Where packets come from. In configuration `auto`, `link` or `tunnel`.
///
/// A layer-3 tunnel connects hosts of other links. Discovery and link-local addresses have no business in
/// it, so the engine drops them by name. On a link they pass, once they are found valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// A tunnel for packets that say so ([`Packet::tunneled`](crate::Packet::tunneled)), as those of the GENEVE
    /// front end do, and a link for all others.
    #[default]
    Auto,
    /// A link: a bump in the wire, or a capture of a link.
    Link,
    /// A layer-3 tunnel, or packets that a router has forwarded.
    Tunnel,
}

impl Attachment {
    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Link => "link",
            Self::Tunnel => "tunnel",
        }
    }

    /// Whether a packet comes from a tunnel; `tunneled` is what the packet itself says.
    #[must_use]
    pub const fn is_tunnel(self, tunneled: bool) -> bool {
        match self {
            Self::Auto => tunneled,
            Self::Link => false,
            Self::Tunnel => true,
        }
    }
}

/// `[table]`: the size of the session table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// How many sessions there can be, 1 to [`Self::MAX_SESSIONS`].
    #[serde(deserialize_with = "values::sessions")]
    pub max_sessions: u32,
    /// How many parts with a lock each, a power of two from 1 to [`Self::MAX_SHARDS`] and not above
    /// `max_sessions`; `None` for [`Self::DEFAULT_SHARDS`], or fewer if there are fewer sessions.
    #[serde(deserialize_with = "values::shards")]
    pub shards: Option<u32>,
    /// The share of the table, in percent, above which the lifetimes of sessions that nobody has
    /// answered yet shrink. 0, with `adaptive_end` 0 as well, turns that off.
    pub adaptive_start: u32,
    /// The share of the table, in percent, at which these lifetimes would be 0: they are scaled by
    /// (end - sessions) / (end - start), and are never below a second. Above `adaptive_start`, up to
    /// [`Self::MAX_ADAPTIVE`].
    pub adaptive_end: u32,
}

impl TableConfig {
    /// The largest `max_sessions`: 2^28.
    pub const MAX_SESSIONS: u32 = 1 << 28;
    /// The default of `max_sessions`: 2^20.
    pub const DEFAULT_SESSIONS: u32 = 1 << 20;
    /// The largest number of shards.
    pub const MAX_SHARDS: u32 = 1024;
    /// The default number of shards.
    pub const DEFAULT_SHARDS: u32 = 64;

    /// The least number of sessions that a shard has by default: a full table evicts within one shard, and so
    /// each shard should have some of every kind.
    pub const SESSIONS_PER_SHARD: u32 = 1024;

    /// The default of `adaptive_start`: that of pf.
    pub const DEFAULT_ADAPTIVE_START: u32 = 60;
    /// The default of `adaptive_end`: that of pf.
    pub const DEFAULT_ADAPTIVE_END: u32 = 120;
    /// The largest `adaptive_end`.
    pub const MAX_ADAPTIVE: u32 = 1_000;

    /// The number of shards in force.
    pub fn shards_in_force(&self) -> u32 {
        let at_most = 1 << (self.max_sessions / Self::SESSIONS_PER_SHARD).max(1).ilog2();
        self.shards.unwrap_or_else(|| Self::DEFAULT_SHARDS.min(at_most))
    }
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            max_sessions: Self::DEFAULT_SESSIONS,
            shards: None,
            adaptive_start: Self::DEFAULT_ADAPTIVE_START,
            adaptive_end: Self::DEFAULT_ADAPTIVE_END,
        }
    }
}

/// `[fragments]`: the datagrams whose fragments are passing (see [`fragment`](crate::fragment)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FragmentsConfig {
    /// How many incomplete datagrams there can be, 1 to [`Self::MAX_DATAGRAMS`].
    #[serde(deserialize_with = "values::datagrams")]
    pub max_datagrams: u32,
    /// Number of those that can be of one source, counted by prefix, 1 to [`Self::MAX_DATAGRAMS`];
    /// more than `max_datagrams` is no limit.
    #[serde(deserialize_with = "values::datagrams")]
    pub max_per_source: u32,
    /// How long all fragments of a datagram may take, from the first one on: 1 s to [`Self::MAX_LIFETIME`].
    #[serde(deserialize_with = "values::scalar")]
    pub lifetime: Duration,
    /// Longest time that fragments wait for the first one of their datagram, where the caller can
    /// hold them: up to
    /// [`Self::MAX_HOLD`], 0 for not at all.
    #[serde(deserialize_with = "values::scalar")]
    pub hold: Duration,
    /// Number of fragments that can wait, 1 to [`Self::MAX_HELD`].
    #[serde(deserialize_with = "values::held")]
    pub max_held: u32,
    /// Number of those that can be of one source, counted by prefix, 1 to [`Self::MAX_HELD`]; more
    /// than `max_held` is no limit.
    #[serde(deserialize_with = "values::held")]
    pub max_held_per_source: u32,
}

impl FragmentsConfig {
    /// The largest `max_datagrams`: 2^20.
    pub const MAX_DATAGRAMS: u32 = 1 << 20;
    /// The default of `max_datagrams`: 4096, some twice as many as fit the 4 MiB of Linux' `ipfrag_high_thresh` with
    /// one fragment each.
    pub const DEFAULT_DATAGRAMS: u32 = 4096;
    /// The default of `max_per_source`: a sixteenth of all.
    pub const DEFAULT_PER_SOURCE: u32 = 256;
    /// The shortest `lifetime`.
    pub const MIN_LIFETIME: Duration = Duration::from_secs(1);
    /// The longest `lifetime`: RFC 8200, section 4.5, waits no longer than 60 s.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(60);
    /// The default of `lifetime`: 30 s, Linux' `ipfrag_time`.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(30);
    /// The longest `hold`: whoever waits for a datagram has given it up long before.
    pub const MAX_HOLD: Duration = Duration::from_secs(10);
    /// The default of `hold`: 1 s. Reordering is a matter of milliseconds.
    pub const DEFAULT_HOLD: Duration = Duration::from_secs(1);
    /// The largest `max_held`: 2^16.
    pub const MAX_HELD: u32 = 1 << 16;
    /// The default of `max_held`: 1024, some 1.5 MiB of full Ethernet frames.
    pub const DEFAULT_HELD: u32 = 1024;
    /// The default of `max_held_per_source`: one datagram in as many fragments as
    /// [may be](crate::fragment::MAX_FRAGMENTS).
    pub const DEFAULT_HELD_PER_SOURCE: u32 = 128;
}

impl Default for FragmentsConfig {
    fn default() -> Self {
        Self {
            max_datagrams: Self::DEFAULT_DATAGRAMS,
            max_per_source: Self::DEFAULT_PER_SOURCE,
            lifetime: Self::DEFAULT_LIFETIME,
            hold: Self::DEFAULT_HOLD,
            max_held: Self::DEFAULT_HELD,
            max_held_per_source: Self::DEFAULT_HELD_PER_SOURCE,
        }
    }
}

/// `[gwlb]`: the timers of the Gateway Load Balancer in front, for warnings about lifetimes that are not below
/// them. They change nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GwlbConfig {
    /// Is there such a balancer? If not, no lifetime is compared with its timers.
    pub enabled: bool,
    /// Its idle timer of TCP flows, 60 s to 6000 s as it allows; its default and ours is 350 s.
    #[serde(deserialize_with = "values::scalar")]
    pub tcp_idle: Duration,
    /// Its idle timer of all other flows, 1 s to 6000 s; AWS has 120 s and offers no setting.
    #[serde(deserialize_with = "values::scalar")]
    pub other_idle: Duration,
}

impl Default for GwlbConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            tcp_idle: Duration::from_secs(350),
            other_idle: Duration::from_secs(120),
        }
    }
}

/// Whether something passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// It is dropped.
    #[default]
    Drop,
    /// It passes.
    Allow,
}

impl Permission {
    /// The name in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Allow => "allow",
        }
    }
}

/// `[icmp]`: what ICMP may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IcmpConfig {
    /// What becomes of redirects: they change a host's routes, and belong on the link of that host alone. In a tunnel
    /// ([`EngineConfig::attachment`]) they are dropped in any case.
    pub redirects: Permission,
}

/// What a check does with a packet that does not pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckMode {
    /// The packet is dropped.
    #[default]
    Drop,
    /// The packet passes, changes nothing, and is counted by reason and rule: what the check would drop.
    Count,
}

/// What a checked configuration compiles to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Compiled {
    /// Which new sessions are allowed.
    pub policy: Policy,
    /// How long sessions live.
    pub lifetimes: LifetimeTable,
    /// The zones by name.
    pub zones: Zones,
    /// Are checksums verified?
    pub checksums: Checksums,
    /// What packets come from.
    pub attachment: Attachment,
    /// How TCP is tracked in each zone that says something.
    pub tcp_zones: Vec<(Zone, TcpHandling)>,
    /// How TCP is tracked where neither rule nor zone says.
    pub tcp: TcpConfig,
    /// How many RSTs are sent.
    pub resets: ResetsConfig,
    /// When the source of a SYN must prove itself.
    pub syn_challenge: SynChallengeConfig,
    /// What is taken for evidence of an asymmetric path.
    pub asymmetry: AsymmetryConfig,
    /// What a reload does with sessions that it would not admit.
    pub on_reload: OnReload,
    /// What the IP header of a packet may say.
    pub ip: IpConfig,
    /// Prefixes of which one must hold an end of each new session, by zone.
    pub inside: BTreeMap<Zone, Vec<IpNet>>,
    /// What becomes of ICMP redirects.
    pub icmp_redirects: Permission,
    /// Checks that only count.
    pub counting: Vec<DropReason>,
    /// Adaptive lifetimes of unanswered sessions.
    pub(crate) adaptive: Adaptive,
    /// Limits of zones, rules and sources.
    pub(crate) limits: Limits,
    /// What a reload cannot change.
    pub fixed: Fixed,
    /// What is a control session of FTP, and what it may announce.
    pub ftp: FtpConfig,
    /// What rules say of the control sessions that they admit.
    pub ftp_rules: Vec<(RuleId, FtpHandling)>,
}

/// What only a start can change: the sizes of what is reserved then, and what sessions are told apart by.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// How many sessions there can be.
    pub max_sessions: u32,
    /// How many parts the session table has: a power of two.
    pub shards: u32,
    /// The prefixes by which sources and destinations are counted.
    pub(crate) prefixes: Prefixes,
    /// How many fragmented datagrams there can be, and for how long.
    pub fragments: FragmentsConfig,
    /// What is remembered of ended sessions.
    pub tombstones: TombstonesConfig,
    /// Number of sources that can be known to be real.
    pub known_sources: u32,
    /// Does each session remember where its packets came from?
    pub tunnel_references: bool,
    /// Zones that are one.
    pub zones: Zones,
}

impl Fixed {
    /// The key of something that is not the same in `other`.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let keys = [
            ("table.max_sessions", self.max_sessions != other.max_sessions),
            ("table.shards", self.shards != other.shards),
            ("limits.ipv4_prefix", self.prefixes.v4 != other.prefixes.v4),
            ("limits.ipv6_prefix", self.prefixes.v6 != other.prefixes.v6),
            ("fragments", self.fragments != other.fragments),
            ("tombstones", self.tombstones != other.tombstones),
            (
                "syn_challenge.max_sources",
                self.known_sources != other.known_sources,
            ),
            (
                "engine.tunnel_references",
                self.tunnel_references != other.tunnel_references,
            ),
            ("zone_groups", !self.zones.same_groups(&other.zones)),
        ];
        keys.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
    }
}

/// The zones by name; `default` is always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    names: BTreeMap<String, Zone>,
    /// Members of groups, and the zone that stands for the group; ordered by the member.
    members: Box<[(Zone, Zone)]>,
    /// The zones that `[zones]` names, in order, those of a group as one.
    named: Box<[Zone]>,
}

impl Zones {
    /// The zone that stands for a group is its member with the smallest number.
    pub(crate) fn new(numbers: &BTreeMap<String, u16>, groups: &BTreeMap<String, Vec<String>>) -> Self {
        let zones = numbers.iter().map(|(name, id)| (name.clone(), Zone(*id)));
        let mut names: BTreeMap<_, _> = zones.chain([(DEFAULT_ZONE.to_owned(), Zone::DEFAULT)]).collect();
        let mut members = Vec::new();
        for (group, zones) in groups {
            let zones: Vec<_> = zones.iter().filter_map(|name| names.get(name)).copied().collect();
            let Some(first) = zones.iter().min().copied() else {
                continue;
            };
            names.insert(group.clone(), first);
            members.extend(zones.into_iter().map(|zone| (zone, first)));
        }
        for zone in names.values_mut() {
            if let Some((_, first)) = members.iter().find(|(member, _)| member == zone) {
                *zone = *first;
            }
        }
        members.sort_unstable();
        let mut zones = Self {
            names,
            members: members.into(),
            named: Box::default(),
        };
        let named = numbers.values().map(|id| zones.group_of(Zone(*id)));
        let named: std::collections::BTreeSet<_> = named.collect();
        zones.named = named.into_iter().collect();
        zones
    }

    /// The zone that stands for a zone: the first of its group, or itself.
    #[inline]
    #[must_use]
    pub fn group_of(&self, zone: Zone) -> Zone {
        if self.members.is_empty() {
            return zone;
        }
        match self.members.binary_search_by_key(&zone, |(member, _)| *member) {
            Ok(place) => self.members.get(place).map_or(zone, |(_, first)| *first),
            Err(_) => zone,
        }
    }

    /// Each zone once, those of a group as one.
    pub fn distinct(&self) -> impl Iterator<Item = Zone> {
        let zones: std::collections::BTreeSet<_> = self.names.values().copied().collect();
        zones.into_iter()
    }

    /// Returns the zones that have a guaranteed share of what is bounded, in order: those that
    /// `[zones]` names. The default zone has one only if it is named there, since most
    /// configurations with zones leave it unused.
    pub(crate) fn named(&self) -> &[Zone] {
        &self.named
    }

    /// Whether the same zones are grouped in the same way.
    #[must_use]
    pub(crate) fn same_groups(&self, other: &Self) -> bool {
        self.members == other.members
    }

    /// The zone of a name.
    pub fn zone(&self, name: &str) -> Option<Zone> {
        self.names.get(name).copied()
    }

    /// The name of a zone, found by a search through all of them.
    pub fn name(&self, zone: Zone) -> Option<&str> {
        self.iter().find(|(_, own)| *own == zone).map(|(name, _)| name)
    }

    /// All names with their zones, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Zone)> {
        self.names.iter().map(|(name, zone)| (name.as_str(), *zone))
    }
}

impl Config {
    /// Returns the defaults with a policy that allows every session, for captures, measurements and
    /// tests.
    #[must_use]
    pub fn allow_all() -> Self {
        let mut config = Self::default();
        config.policy.default = Action::Allow;
        config
    }

    /// Reads and checks a configuration. `file_name` is only for messages; nothing is opened.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a value of the wrong type, and all that [`Self::validate`] finds. The
    /// error names the file, the line and the key.
    pub fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        Document::parse(text, file_name)?.config()
    }
}

fn zone_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(deserialize_with = "number")] u16);

    fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        values::scalar(deserializer).map(|values::ZoneNumber(number)| number)
    }

    let numbers = BTreeMap::<String, Number>::deserialize(deserializer)?;
    Ok(numbers
        .into_iter()
        .map(|(name, Number(number))| (name, number))
        .collect())
}
