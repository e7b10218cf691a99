//! Which new sessions are allowed.
//!
//! A [`Policy`] is an ordered list of rules, compiled once. The first rule that matches a new session decides;
//! if none does, the default action. Packets of a known session never come here. A decision allocates nothing
//! and takes no lock; the only thing it writes is the rule's hit count.
//!
//! A policy is made by [`Config::compile`](crate::config::Config::compile).
//!
//! ```
//! use portcullis::config::Config;
//! use portcullis::flow::Zone;
//! use portcullis::policy::{Action, NewSession, Protocol, RuleId};
//!
//! let config = Config::from_toml(
//!     r#"
//!     [[policy.rule]]
//!     name = "web"
//!     action = "allow"
//!     protocol = "tcp"
//!     destination_ports = [80, 443]
//!     "#,
//!     "example.toml",
//! )?;
//! let policy = config.compile()?.policy;
//! let web = NewSession {
//!     zone: Zone::DEFAULT,
//!     src: [10, 0, 0, 1].into(),
//!     dst: [192, 0, 2, 1].into(),
//!     protocol: Protocol::TCP.0,
//!     src_port: Some(50_000),
//!     dst_port: Some(443),
//!     icmp: None,
//! };
//! let decision = policy.decide(&web);
//! assert_eq!(decision.action, Action::Allow);
//! assert_eq!(policy.rule_name(decision.rule), "web");
//!
//! let mail = NewSession { dst_port: Some(25), ..web };
//! assert_eq!(policy.decide(&mail).rule, RuleId::DEFAULT);
//! assert_eq!(policy.hits().collect::<Vec<_>>(), [("web", 1), ("default", 1)]);
//! # Ok::<(), portcullis::config::ConfigError>(())
//! ```
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

use self::address::AddressMap;
use self::compiled::Tables;
use crate::config::TcpMode;
use crate::flow::Zone;

pub(crate) mod address;
mod compiled;
mod rows;
mod rule;
#[cfg(test)]
mod tests;

pub(crate) use self::rule::Rule;
pub use self::rule::{Action, IcmpType, PortRange, Protocol, RuleDirection, RuleField};

/// The largest number of rules of a policy.
pub const MAX_RULES: usize = 65_000;

/// The name of what decides if no rule matches.
const DEFAULT_NAME: &str = "default";

/// The number of a rule, counted from 0 in the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u16);

impl RuleId {
    /// No rule matched: the default action.
    pub const DEFAULT: Self = Self(u16::MAX);
}

/// The first packet of what may become a session, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewSession {
    /// The zone that the packet came from.
    pub zone: Zone,
    /// The initiator.
    pub src: IpAddr,
    /// The responder.
    pub dst: IpAddr,
    /// The IP protocol number, after IPv6 extension headers.
    pub protocol: u8,
    /// The initiator's port, of a protocol with ports.
    pub src_port: Option<u16>,
    /// The responder's port, of a protocol with ports.
    pub dst_port: Option<u16>,
    /// Type and code of an ICMP or ICMPv6 message.
    pub icmp: Option<(u8, u8)>,
}

/// What the policy says about a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What happens to it.
    pub action: Action,
    /// The rule that said so.
    pub rule: RuleId,
    /// The rule wants its sessions logged; never so for the default action.
    pub log: bool,
}

/// A rule that was compared with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Considered<'a> {
    /// The rule.
    pub rule: RuleId,
    /// Its name.
    pub name: &'a str,
    /// The first field that did not match; `None` if the rule matched.
    pub mismatch: Option<RuleField>,
}

/// How a decision came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Every rule up to the one that matched, that one included, in order; all of them if none did.
    pub considered: Vec<Considered<'a>>,
    /// Is the initiator inside? What `direction` is compared with.
    pub inside: bool,
    /// The decision.
    pub decision: Decision,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Policy {
    rules: Box<[Rule]>,
    default: Action,
    inside: AddressMap<()>,
    tables: Tables,
    hits: Box<[AtomicU64]>,
    default_hits: AtomicU64,
}

/// The tables of a policy would take too much memory.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl TooLarge {
    /// The bound, in MiB.
    pub(crate) const MIB: usize = rows::MAX_CHUNKS * 16 / 1024 / 1024;
}

impl Policy {
    /// Compiles at most [`MAX_RULES`] rules; the caller has checked their number and their names.
    pub(crate) fn new(rules: Vec<Rule>, inside: &[IpNet], default: Action) -> Result<Self, TooLarge> {
        let mut prefixes = AddressMap::new();
        for prefix in inside {
            prefixes.at(*prefix);
        }
        let tables = Tables::new(&rules).ok_or(TooLarge)?;
        let hits = rules.iter().map(|_| AtomicU64::new(0)).collect();
        let default_hits = AtomicU64::new(0);
        Ok(Self {
            rules: rules.into(),
            default,
            inside: prefixes,
            tables,
            hits,
            default_hits,
        })
    }

    /// Decides about a new session and counts the hit.
    pub fn decide(&self, q: &NewSession) -> Decision {
        let decision = self.look_up(q);
        self.count_hit(decision.rule);
        decision
    }

    /// Decides about a new session without counting a hit.
    pub fn look_up(&self, q: &NewSession) -> Decision {
        let inside = self.tables.directional() && self.is_inside(q.src);
        self.decision(self.tables.matches(q, Some(inside)).first_rule().map(RuleId))
    }

    fn count_hit(&self, rule: RuleId) {
        let hits = self.hits.get(usize::from(rule.0)).unwrap_or(&self.default_hits);
        hits.fetch_add(1, Ordering::Relaxed);
    }

    /// How strictly TCP is tracked in sessions that a rule has allowed; `None` where the rule does not say.
    pub fn tcp_mode(&self, rule: RuleId) -> Option<TcpMode> {
        self.rule(rule)?.tcp
    }

    /// Does any rule allow this mode?
    pub(crate) fn uses_tcp_mode(&self, mode: TcpMode) -> bool {
        self.rules.iter().any(|rule| rule.tcp == Some(mode))
    }

    /// The name of a rule; `default` for [`RuleId::DEFAULT`] and any number that is no rule's.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        self.rule(rule).map_or(DEFAULT_NAME, |rule| &rule.name)
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Is there no rule, only the default action?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Each rule's name and how many sessions it decided, in order, the default last.
    pub fn hits(&self) -> impl Iterator<Item = (&str, u64)> {
        let rules = self
            .rules
            .iter()
            .zip(&self.hits)
            .map(|(rule, hits)| (rule.name.as_str(), hits));
        rules
            .chain([(DEFAULT_NAME, &self.default_hits)])
            .map(|(name, hits)| (name, hits.load(Ordering::Relaxed)))
    }

    /// What [`Self::decide`] would say, and why each rule before did not match. Counts no hit; allocates and
    /// compares rule by rule, so it is for people, not for packets.
    pub fn explain(&self, q: &NewSession) -> Explanation<'_> {
        let inside = self.is_inside(q.src);
        let mut considered = Vec::new();
        let mut matched = None;
        for (number, rule) in (0..u16::MAX).zip(&self.rules) {
            let mismatch = rule.mismatch(q, inside);
            considered.push(Considered {
                rule: RuleId(number),
                name: &rule.name,
                mismatch,
            });
            if mismatch.is_none() {
                matched = Some(RuleId(number));
                break;
            }
        }
        Explanation {
            considered,
            inside,
            decision: self.decision(matched),
        }
    }

    /// Pairs of (a rule that can never match, the earlier rule that covers it), in order.
    pub(crate) fn shadowed(&self) -> impl Iterator<Item = (RuleId, RuleId)> {
        (0..u16::MAX).zip(&self.rules).filter_map(|(number, rule)| {
            // Whoever covers the rule matches this session of it as well.
            let protocol = || rule.protocol.first().map_or(0, |protocol| protocol.0);
            let icmp = rule.icmp_pairs().next();
            let any = IpAddr::from([0, 0, 0, 0]);
            let q = NewSession {
                zone: rule.zones.first().copied().unwrap_or_default(),
                src: rule.source.first().map_or(any, IpNet::network),
                dst: rule.destination.first().map_or(any, IpNet::network),
                protocol: icmp.map_or_else(protocol, |(protocol, _)| protocol.0),
                src_port: rule.source_ports.first().map(|range| range.first),
                dst_port: rule.destination_ports.first().map(|range| range.first),
                icmp: icmp.map(|(_, kind)| (kind, 0)),
            };
            self.tables
                .matches(&q, None)
                .rules()
                .take_while(|earlier| *earlier < number)
                .find(|earlier| {
                    self.rule(RuleId(*earlier))
                        .is_some_and(|earlier| earlier.covers(rule))
                })
                .map(|earlier| (RuleId(number), RuleId(earlier)))
        })
    }

    fn rule(&self, rule: RuleId) -> Option<&Rule> {
        self.rules.get(usize::from(rule.0))
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.longest_match(address).is_some()
    }

    fn decision(&self, matched: Option<RuleId>) -> Decision {
        match matched.and_then(|rule| Some((rule, self.rule(rule)?))) {
            Some((rule, found)) => Decision {
                action: found.action,
                rule,
                log: found.log,
            },
            None => Decision {
                action: self.default,
                rule: RuleId::DEFAULT,
                log: false,
            },
        }
    }
}
