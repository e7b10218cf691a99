//! The sections of a configuration file that hold more than a few keys: lifetimes and rules.
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Deserialize;

use super::sets::{AddressTerm, ServiceTerm};
use super::{FtpHandling, LimitSet, OnReload, OptionsMode, TcpHandling, expiry, values};
use crate::lifetime::{LifetimeClass, LifetimeSet};
use crate::policy::{Action, IcmpType, PortRange, Protocol, RuleDirection};

/// `[lifetimes]`: what is set replaces the default of its class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "LifetimesFile")]
pub struct LifetimesConfig {
    /// The global lifetimes that were set, 1 ms to 30 days each.
    pub set: LifetimeSet,
    /// `[[lifetimes.override]]`: other lifetimes for some sessions, at most
    /// [`MAX_OVERRIDES`](crate::lifetime::MAX_OVERRIDES). Their order means nothing: see
    /// [`lifetime`](crate::lifetime) for which one applies.
    pub overrides: Vec<LifetimeOverride>,
}

/// `[[lifetimes.override]]`: lifetimes for the sessions that match; what is `None` or empty matches any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "OverrideFile")]
pub struct LifetimeOverride {
    /// The IP protocol.
    pub protocol: Option<Protocol>,
    /// Ports that the initiator calls; these need `protocol` to be TCP or UDP.
    pub ports: Vec<PortRange>,
    /// Prefixes of which one holds either end of the session.
    pub address: Vec<IpNet>,
    /// The name of a zone.
    pub zone: Option<String>,
    /// The name of the rule that has admitted the session.
    pub rule: Option<String>,
    /// The lifetimes; what is not set is the global lifetime.
    pub set: LifetimeSet,
}

/// `[policy]`: what new sessions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Action for a new session that no rule matches. The default is [`Action::Deny`], in a file
    /// and in code.
    pub default: Action,
    /// `[policy.zones]`: the default action of a zone or group, in place of `default`.
    pub zones: BTreeMap<String, Action>,
    /// The prefixes that are inside: a session is outbound if they hold its initiator.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub inside: Vec<IpNet>,
    /// What a reload does with sessions that the new policy would not admit.
    pub on_reload: OnReload,
    /// `[[policy.rule]]`, at most [`MAX_RULES`](crate::policy::MAX_RULES): the first one that matches decides.
    #[serde(rename = "rule")]
    pub rules: Vec<RuleConfig>,
    /// The moment as of which rules have expired or not. The engine has no calendar, so the caller
    /// sets this before each compilation, reload or preview; with `None` no rule has expired. See
    /// [`Config::next_expiry`](super::Config::next_expiry).
    #[serde(skip)]
    pub as_of: Option<SystemTime>,
}

impl PolicyConfig {
    /// Inside unless said otherwise: RFC 1918, RFC 6598 (shared address space) and RFC 4193 (unique local).
    pub const DEFAULT_INSIDE: [&'static str; 5] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    ];
}

impl Default for PolicyConfig {
    /// Returns a policy without rules, which denies every session.
    fn default() -> Self {
        let inside = Self::DEFAULT_INSIDE
            .into_iter()
            .filter_map(|prefix| prefix.parse().ok())
            .collect();
        Self {
            default: Action::Deny,
            zones: BTreeMap::new(),
            as_of: None,
            inside,
            on_reload: OnReload::default(),
            rules: Vec::new(),
        }
    }
}

/// `[[policy.rule]]`. An empty list matches anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The rule's name, another for each: 1 to 64 characters of `A-Z`, `a-z`, `0-9`, `_`, `.` and `-`, not
    /// `default`.
    pub name: String,
    /// What happens to the session.
    pub action: Action,
    /// Whether the rule is compared at all.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Purpose of the rule, for people: at most [`MAX_COMMENT`] bytes without control characters.
    #[serde(default)]
    pub comment: String,
    /// From when on the rule is not compared any more, as if it were not there.
    #[serde(default, deserialize_with = "expiry::optional")]
    pub expires: Option<SystemTime>,
    /// Names of zones.
    #[serde(default, deserialize_with = "values::list")]
    pub zones: Vec<String>,
    /// Prefixes and sets of which one holds the initiator.
    #[serde(default, deserialize_with = "values::list")]
    pub source: Vec<AddressTerm>,
    /// Prefixes and sets of which one holds the responder.
    #[serde(default, deserialize_with = "values::list")]
    pub destination: Vec<AddressTerm>,
    /// Names of zones and groups of which one has the responder: its `ip.inside` prefixes hold it.
    #[serde(default, deserialize_with = "values::list")]
    pub destination_zones: Vec<String>,
    /// Services and sets of services, in place of `protocol`, ports and `icmp_types`.
    #[serde(default, deserialize_with = "values::list")]
    pub services: Vec<ServiceTerm>,
    /// Exceptions from what the other keys match.
    #[serde(default)]
    pub not: RuleExceptions,
    /// IP protocols.
    #[serde(default, deserialize_with = "values::list")]
    pub protocol: Vec<Protocol>,
    /// Ports of the initiator; these need `protocol` to name only protocols with ports.
    #[serde(default, deserialize_with = "values::list")]
    pub source_ports: Vec<PortRange>,
    /// Ports of the responder; these need `protocol` to name only protocols with ports.
    #[serde(default, deserialize_with = "values::list")]
    pub destination_ports: Vec<PortRange>,
    /// Types of ICMP messages, with a code or without; these need `protocol` to name ICMP, ICMPv6
    /// or both and nothing else.
    #[serde(default, deserialize_with = "values::list")]
    pub icmp_types: Vec<IcmpType>,
    /// Which end must be the initiator.
    #[serde(default)]
    pub direction: RuleDirection,
    /// Should sessions that this rule decides be logged?
    #[serde(default)]
    pub log: bool,
    /// How are TCP sessions tracked that this rule allows? What is missing is the zone's word, or the global one.
    #[serde(default)]
    pub tcp: TcpHandling,
    /// What happens to packets with IP options in sessions that this rule allows? Without it: what `ip.options` says.
    #[serde(default)]
    pub ip_options: Option<OptionsMode>,
    /// Limits of the sessions that this rule allows, beside those of `[limits]`.
    #[serde(default)]
    pub limits: LimitSet,
    /// What is a control session of FTP among the sessions that this rule allows, and what becomes of refused
    /// announcements? What is missing is the word of `[ftp]`.
    #[serde(default)]
    pub ftp: FtpHandling,
}

impl RuleConfig {
    /// A rule that matches everything.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self {
            name: name.into(),
            action,
            enabled: true,
            comment: String::new(),
            expires: None,
            zones: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            destination_zones: Vec::new(),
            services: Vec::new(),
            not: RuleExceptions::default(),
            protocol: Vec::new(),
            source_ports: Vec::new(),
            destination_ports: Vec::new(),
            icmp_types: Vec::new(),
            direction: RuleDirection::Any,
            log: false,
            tcp: TcpHandling::default(),
            ip_options: None,
            limits: LimitSet::default(),
            ftp: FtpHandling::default(),
        }
    }
}

/// The largest number of bytes of a rule's comment.
pub const MAX_COMMENT: usize = 512;

const fn enabled() -> bool {
    true
}

/// `not` of a rule: a session that is in one of these lists does not match. An empty list leaves
/// out nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleExceptions {
    /// Prefixes and sets that do not hold the initiator.
    #[serde(deserialize_with = "values::list")]
    pub source: Vec<AddressTerm>,
    /// Prefixes and sets that do not hold the responder.
    #[serde(deserialize_with = "values::list")]
    pub destination: Vec<AddressTerm>,
    /// IP protocols that the session does not have.
    #[serde(deserialize_with = "values::list")]
    pub protocol: Vec<Protocol>,
    /// Ports that the initiator does not have; these need `protocol` as `source_ports` does.
    #[serde(deserialize_with = "values::list")]
    pub source_ports: Vec<PortRange>,
    /// Ports that the responder does not have; these need `protocol` as `destination_ports` does.
    #[serde(deserialize_with = "values::list")]
    pub destination_ports: Vec<PortRange>,
}

impl RuleExceptions {
    /// Returns whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A lifetime as the file has it.
type Lifetime = Option<Duration>;

macro_rules! lifetime_table {
    ($(#[$doc:meta])* $name:ident { $($field:ident => $class:ident,)* }) => {
        $(#[$doc])*
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $name {
            $(#[serde(deserialize_with = "values::optional")] $field: Lifetime,)*
        }

        impl $name {
            fn classes(&self) -> impl Iterator<Item = (LifetimeClass, Lifetime)> {
                [$((LifetimeClass::$class, self.$field),)*].into_iter()
            }
        }
    };
}

lifetime_table! {
    /// Keys below `tcp`.
    TcpFile {
        syn_sent => TcpSynSent,
        syn_recv => TcpSynRecv,
        established => TcpEstablished,
        fin_wait => TcpFinWait,
        close_wait => TcpCloseWait,
        last_ack => TcpLastAck,
        time_wait => TcpTimeWait,
        close => TcpClose,
        unacknowledged => TcpUnacknowledged,
        retransmitted => TcpRetransmitted,
    }
}

lifetime_table! {
    /// Keys below `udp`.
    UdpFile {
        unreplied => UdpUnreplied,
        exchange => UdpExchange,
        replied => UdpReplied,
        stream => UdpStream,
    }
}

lifetime_table! {
    /// Keys below `other`.
    OtherFile {
        unreplied => OtherUnreplied,
        replied => OtherReplied,
    }
}

lifetime_table! {
    /// Keys below `sctp`.
    SctpFile {
        init_sent => SctpInitSent,
        cookie_wait => SctpCookieWait,
        cookie_echoed => SctpCookieEchoed,
        established => SctpEstablished,
        shutdown_sent => SctpShutdownSent,
        shutdown_recd => SctpShutdownRecd,
        shutdown_ack_sent => SctpShutdownAckSent,
        closed => SctpClosed,
    }
}

lifetime_table! {
    /// Keys below `dccp`.
    DccpFile {
        request => DccpRequest,
        respond => DccpRespond,
        partopen => DccpPartOpen,
        open => DccpOpen,
        closereq => DccpCloseReq,
        closing => DccpClosing,
        timewait => DccpTimeWait,
    }
}

fn lifetime_set(
    (tcp, udp, icmp, other): (&TcpFile, &UdpFile, Lifetime, &OtherFile),
    (sctp, dccp): (&SctpFile, &DccpFile),
) -> LifetimeSet {
    tcp.classes()
        .chain(udp.classes())
        .chain([(LifetimeClass::Icmp, icmp)])
        .chain(other.classes())
        .chain(sctp.classes())
        .chain(dccp.classes())
        .filter_map(|(class, lifetime)| Some((class, lifetime?)))
        .fold(LifetimeSet::default(), |set, (class, lifetime)| {
            set.with(class, lifetime)
        })
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LifetimesFile {
    tcp: TcpFile,
    udp: UdpFile,
    #[serde(deserialize_with = "values::optional")]
    icmp: Lifetime,
    other: OtherFile,
    sctp: SctpFile,
    dccp: DccpFile,
    r#override: Vec<LifetimeOverride>,
}

impl From<LifetimesFile> for LifetimesConfig {
    fn from(file: LifetimesFile) -> Self {
        let set = lifetime_set(
            (&file.tcp, &file.udp, file.icmp, &file.other),
            (&file.sctp, &file.dccp),
        );
        Self {
            set,
            overrides: file.r#override,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OverrideFile {
    #[serde(deserialize_with = "values::optional")]
    protocol: Option<Protocol>,
    #[serde(deserialize_with = "values::list")]
    ports: Vec<PortRange>,
    #[serde(deserialize_with = "values::list")]
    address: Vec<IpNet>,
    zone: Option<String>,
    rule: Option<String>,
    tcp: TcpFile,
    udp: UdpFile,
    #[serde(deserialize_with = "values::optional")]
    icmp: Lifetime,
    other: OtherFile,
    sctp: SctpFile,
    dccp: DccpFile,
}

impl From<OverrideFile> for LifetimeOverride {
    fn from(file: OverrideFile) -> Self {
        let set = lifetime_set(
            (&file.tcp, &file.udp, file.icmp, &file.other),
            (&file.sctp, &file.dccp),
        );
        Self {
            protocol: file.protocol,
            ports: file.ports,
            address: file.address,
            zone: file.zone,
            rule: file.rule,
            set,
        }
    }
}
