//! `[policy]` and its rules.
use std::collections::BTreeMap;
use std::time::SystemTime;

use ipnet::IpNet;

use super::declare::{self, KeyReference, Printer, SectionReference, Value};
#[cfg(feature = "toml")]
use super::declare::{Item, Problems};
use super::sets::{AddressTerm, ServiceTerm};
use super::{FtpHandling, LimitSet, OnReload, OptionsMode, TcpHandling};
use crate::policy::{Action, IcmpType, PortRange, Protocol, RuleDirection};

crate::config_section! {
    /// `[policy]`: the decision on new sessions.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct PolicyConfig = "policy" {
        /// Action on a new session that no rule matches: `allow`, `deny` (silent), `reject` (with a
        /// RST, ABORT or ICMP error), or `audit` (passes, and is counted and logged as what `deny`
        /// would drop).
        default: Action {
            default: Action::Deny, "what no rule allows is denied";
        }
        /// The default action of a zone or group, in place of `default`.
        zones: BTreeMap<String, Action> {
            default: BTreeMap::new(), "`default`";
        }
        /// The prefixes that are inside: a session is outbound if they hold its initiator.
        inside: Vec<IpNet> {
            default: Self::default_inside(), "RFC 1918, RFC 6598, RFC 4193";
        }
        /// Handling of sessions that the policy of a reload would not admit: `end` ends them,
        /// `keep` leaves them under the rule that has admitted them.
        on_reload: OnReload {
            default: OnReload::default(), "what is denied is denied";
        }
        /// The rules, at most 65,000: the first one that matches decides. Only new sessions are
        /// compared.
        rules: Vec<RuleConfig> {
            default: Vec::new(), "no rules";
            name: "rule";
        }
    }
    also {
        /// The moment as of which rules have expired or not. The engine has no calendar, so the
        /// caller sets this before each compilation, reload or preview; with `None` no rule has
        /// expired. See [`Config::next_expiry`](super::Config::next_expiry).
        as_of: Option<SystemTime> = None;
    }
}

impl PolicyConfig {
    /// Prefixes that are inside by default: RFC 1918, RFC 6598 (shared address space) and RFC 4193
    /// (unique local).
    pub const DEFAULT_INSIDE: [&'static str; 5] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    ];

    fn default_inside() -> Vec<IpNet> {
        let prefixes = Self::DEFAULT_INSIDE.into_iter();
        prefixes.filter_map(|prefix| prefix.parse().ok()).collect()
    }
}

crate::config_section! {
    /// A rule. A list that is missing matches anything.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RuleConfig = "" {
        /// The name of the rule, another for each: 1 to 64 characters of `A-Z`, `a-z`, `0-9`, `_`,
        /// `.` and `-`, not `default`.
        name: String {
            default: String::new(), "";
            required: true;
        }
        /// Action on a session that the rule matches.
        action: Action {
            default: Action::Deny, "";
            required: true;
        }
        /// Whether the rule is compared at all.
        enabled: bool {
            default: true, "a written rule is in force";
        }
        /// The purpose of the rule, for people, without control characters.
        comment: String {
            default: String::new(), "none";
            limit: "at most 512 bytes";
        }
        /// The time from which the rule is no longer compared. A date is its beginning in UTC.
        expires: Option<SystemTime> {
            default: None, "never";
        }
        /// Names of zones and groups.
        zones: Vec<String> {
            default: Vec::new(), "all zones";
            never_empty: true;
        }
        /// Prefixes and sets (`@name`) of which one holds the initiator.
        source: Vec<AddressTerm> {
            default: Vec::new(), "all addresses";
            never_empty: true;
        }
        /// Prefixes and sets (`@name`) of which one holds the responder.
        destination: Vec<AddressTerm> {
            default: Vec::new(), "all addresses";
            never_empty: true;
        }
        /// Names of zones and groups of which one has the responder: its `ip.inside` prefixes hold
        /// it.
        destination_zones: Vec<String> {
            default: Vec::new(), "all zones";
            never_empty: true;
        }
        /// Services and sets of services (`@name`), in place of `protocol`, ports and `icmp_types`.
        services: Vec<ServiceTerm> {
            default: Vec::new(), "all services";
            never_empty: true;
        }
        /// Exceptions from what the other keys match.
        not: RuleExceptions {
            default: RuleExceptions::default(), "no exceptions";
        }
        /// IP protocols.
        protocol: Vec<Protocol> {
            default: Vec::new(), "all protocols";
            never_empty: true;
        }
        /// Ports of the initiator. They need `protocol` to name only protocols with ports.
        source_ports: Vec<PortRange> {
            default: Vec::new(), "all ports";
            never_empty: true;
        }
        /// Ports of the responder. They need `protocol` to name only protocols with ports.
        destination_ports: Vec<PortRange> {
            default: Vec::new(), "all ports";
            never_empty: true;
        }
        /// Types of ICMP messages, with a code (`echo-request/0`) or without. They need `protocol`
        /// to name ICMP, ICMPv6 or both and nothing else.
        icmp_types: Vec<IcmpType> {
            default: Vec::new(), "all types";
            never_empty: true;
        }
        /// The end that must be the initiator: `outbound` is one that `policy.inside` holds.
        direction: RuleDirection {
            default: RuleDirection::Any, "both directions";
        }
        /// Whether sessions that this rule decides are logged where the log has marked ones only.
        log: bool {
            default: false, "";
        }
        /// Whether sessions that this rule allows are stored where the store has those of resilient
        /// rules only (`store.rules`).
        resilient: bool {
            default: false, "";
        }
        /// Tracking of TCP sessions that this rule allows: a mode alone, or a table.
        tcp: TcpHandling {
            default: TcpHandling::default(), "the settings of the zone";
        }
        /// Handling of packets with IP options in sessions that this rule allows.
        ip_options: Option<OptionsMode> {
            default: None, "`ip.options`";
        }
        /// Limits of the sessions that this rule allows, beside those of `[limits]`.
        limits: LimitSet {
            default: LimitSet::default(), "no limits";
        }
        /// Handling of FTP in the sessions that this rule allows.
        ftp: FtpHandling {
            default: FtpHandling::default(), "the settings of `[ftp]`";
        }
    }
}

impl RuleConfig {
    /// Returns a rule that matches everything.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self {
            name: name.into(),
            action,
            ..Self::default()
        }
    }
}

/// The largest number of bytes of a rule's comment.
pub const MAX_COMMENT: usize = 512;

crate::config_section! {
    /// Exceptions of a rule: a session that is in one of these lists does not match. A list that is
    /// missing excepts nothing.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RuleExceptions = "" {
        /// Prefixes and sets that do not hold the initiator.
        source: Vec<AddressTerm> {
            default: Vec::new(), "no exception";
            never_empty: true;
        }
        /// Prefixes and sets that do not hold the responder.
        destination: Vec<AddressTerm> {
            default: Vec::new(), "no exception";
            never_empty: true;
        }
        /// IP protocols that the session does not have.
        protocol: Vec<Protocol> {
            default: Vec::new(), "no exception";
            never_empty: true;
        }
        /// Ports that the initiator does not have. They need `protocol` as `source_ports` does.
        source_ports: Vec<PortRange> {
            default: Vec::new(), "no exception";
            never_empty: true;
        }
        /// Ports that the responder does not have. They need `protocol` as `destination_ports`
        /// does.
        destination_ports: Vec<PortRange> {
            default: Vec::new(), "no exception";
            never_empty: true;
        }
    }
}

impl RuleExceptions {
    /// Returns whether there are no exceptions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

crate::config_table_values!(PolicyConfig, RuleConfig, RuleExceptions);
crate::config_choices!(Action [Allow, Deny, Reject, Audit], RuleDirection [Outbound, Inbound, Any]);

/// An array of tables. A table with errors keeps its index, so that later ones keep theirs.
impl Value for Vec<RuleConfig> {
    type Bound = ();

    fn kind() -> String {
        "list of tables".to_owned()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        Some(declare::read::tables(item, problems))
    }

    fn toml(&self) -> String {
        let rules: Vec<String> = self.iter().map(declare::print::inline_table).collect();
        format!("[{}]", rules.join(", "))
    }

    fn print(&self, _: &Self, _: &'static str, printer: &mut Printer<'_>) {
        for (place, rule) in self.iter().enumerate() {
            printer.within_item(place, |printer| printer.entry(rule.toml()));
        }
    }

    fn describe(row: KeyReference, sections: &mut Vec<SectionReference>) {
        declare::reference::nested::<RuleConfig>(row, "[]", sections);
    }
}
