//! Policy for new sessions.
//!
//! A [`CompiledPolicy`] is an ordered list of rules, compiled once. The first rule that matches a
//! new session decides; if none matches, the default action applies. Packets of known sessions
//! never reach the policy. A decision allocates nothing and takes no lock; it writes only the
//! rule's hit count.
//!
//! A policy is made by [`Config::compile`](crate::config::Config::compile).
//!
//! ```
//! use portcullis::config::Config;
//! use portcullis::Zone;
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
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

pub use ipnet::IpNet;

use self::address::AddressMap;
use self::compiled::Tables;
use self::cover::{CoverSearch, MAX_STEPS, OutOfSteps};
use self::handling::{Handling, OptionsMode, TcpHandling};
use self::hits::Hits;
use crate::flow::Zone;
use crate::limits::Bounds;
pub use crate::limits::{Limit, LimitAction, LimitScope, LimitSet};

pub(crate) mod address;
mod arrangement;
mod blocks;
mod compiled;
mod cover;
mod field;
pub(crate) mod handling;
mod hits;
pub(crate) mod id;
pub(crate) mod origin;
pub(crate) mod ranges;
mod rows;
mod rule;
mod service;
mod terms;
#[cfg(test)]
mod tests;

pub(crate) use self::field::merged;
pub use self::field::{IcmpType, PortRange, Protocol, RuleField};
pub use self::id::RuleId;
pub(crate) use self::rule::Rule;
pub use self::rule::{Action, RuleDirection};
pub(crate) use self::service::ServiceMatch;

/// The largest number of rules of a policy.
pub const MAX_RULES: usize = 65_000;

/// Name of the default decision, for sessions that no rule matches.
const DEFAULT_NAME: &str = "default";

/// First packet of a possible session, with the fields that rules compare.
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

/// Decision of the policy about a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Action for the session.
    pub action: Action,
    /// The rule that decided.
    pub rule: RuleId,
    /// Whether to log the decision: the rule's `log` is set, or the action is [`Action::Audit`].
    pub log: bool,
}

/// A rule that was compared with a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Considered<'a> {
    /// The rule.
    pub rule: RuleId,
    /// Name of the rule.
    pub name: &'a str,
    /// The first field that did not match; `None` if the rule matched. A rule that names sets of
    /// services is compared service by service, and this is the field of the last one.
    pub mismatch: Option<RuleField>,
    /// The named sets that hold an address or service of the session, such as `source in @office`.
    /// Empty if the rule names no set, or none of its sets matches.
    pub sets: String,
}

/// Explanation of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The rules up to and including the one that matched, in order; all rules if none matched.
    pub considered: Vec<Considered<'a>>,
    /// Whether the initiator is inside; `direction` is compared with it.
    pub inside: bool,
    /// The decision.
    pub decision: Decision,
}

/// Compiled rules.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// The rules, with a rule of several parts as its parts. The position of a rule is that of its
    /// first part.
    rules: Box<[Rule]>,
    default: Action,
    /// The zones with a default action of their own, in the order of the zones.
    zone_defaults: Box<[(Zone, Action)]>,
    inside: AddressMap<()>,
    tables: Tables,
    /// Hits by position of the rules; those of the default action are last.
    hits: Hits,
    /// New sessions that would have exceeded a limit, by rule and limit; those of the default
    /// action last.
    limited: Box<[[AtomicU64; Limit::ALL.len()]]>,
    /// The number of each rule, in the order of the rules; parts of a rule have one number.
    numbers: Box<[u16]>,
    /// The name that each number has or had, and the position of its rule.
    names: Box<[(String, Option<u16>)]>,
}

/// The rules have used more names than there are numbers.
#[derive(Debug)]
pub(crate) struct TooManyNames;

/// The rules have too many terms.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl TooLarge {
    /// The largest number of terms.
    pub(crate) const TERMS: usize = terms::MAX_TERMS;
}

/// Rules that never match because one earlier rule covers them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shadows {
    /// The rule and the earlier one, in order.
    pub(crate) pairs: Vec<(RuleId, RuleId)>,
    /// The first rule that was not compared with earlier ones, if the search was given up before
    /// its end. Later rules were not compared either.
    pub(crate) given_up_at: Option<RuleId>,
}

impl CompiledPolicy {
    /// Compiles at most [`MAX_RULES`] rules; the caller has checked their number and their names.
    pub(crate) fn new(
        rules: Vec<Rule>,
        inside: &[IpNet],
        default: Action,
    ) -> Result<Self, TooLarge> {
        let mut prefixes = AddressMap::new();
        for prefix in inside {
            prefixes.at(*prefix);
        }
        let tables = Tables::new(&rules).ok_or(TooLarge)?;
        let hits = Hits::new(rules.len() + 1);
        let limited = (0..=rules.len()).map(|_| Default::default()).collect();
        let mut numbers: Vec<u16> = Vec::with_capacity(rules.len());
        let mut names: Vec<(String, Option<u16>)> = Vec::with_capacity(rules.len());
        for (place, rule) in (0..u16::MAX).zip(&rules) {
            if names.last().is_none_or(|(name, _)| *name != rule.name) {
                names.push((rule.name.clone(), Some(place)));
            }
            numbers.push(u16::try_from(names.len() - 1).unwrap_or(u16::MAX));
        }
        Ok(Self {
            numbers: numbers.into(),
            names: names.into(),
            zone_defaults: Box::default(),
            rules: rules.into(),
            default,
            inside: prefixes,
            tables,
            hits,
            limited,
        })
    }

    /// Sets the default actions of zones that have their own.
    #[must_use]
    pub(crate) fn with_zone_defaults(mut self, mut defaults: Vec<(Zone, Action)>) -> Self {
        defaults.sort_unstable_by_key(|(zone, _)| *zone);
        self.zone_defaults = defaults.into();
        self
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
        self.decision(self.tables.first_match(q, inside), q.zone)
    }

    fn count_hit(&self, rule: RuleId) {
        let place = self.place(rule).map_or(self.rules.len(), usize::from);
        self.hits.add(place, 1);
    }

    /// Returns the TCP handling of sessions that a rule admits: the rule's own settings first, then
    /// those of `otherwise`.
    pub(crate) fn handling(&self, rule: RuleId, otherwise: Handling) -> Handling {
        self.rule(rule)
            .map_or(otherwise, |rule| otherwise.under(rule.tcp))
    }

    /// Returns whether the TCP settings of any rule satisfy a condition.
    pub(crate) fn any_tcp(&self, says: impl Fn(&TcpHandling) -> bool) -> bool {
        self.rules.iter().any(|rule| says(&rule.tcp))
    }

    /// Returns the treatment of packets with IP options in sessions that a rule has admitted, if
    /// the rule sets one.
    pub(crate) fn options(&self, rule: RuleId) -> Option<OptionsMode> {
        self.rule(rule)?.ip_options
    }

    /// Returns the bounds on sessions that a rule admits.
    pub(crate) fn bounds(&self, rule: RuleId) -> Bounds {
        let limits = self.rule(rule).map(|rule| rule.limits).unwrap_or_default();
        limits.over(Bounds::default(), LimitScope::Rule)
    }

    /// Counts a new session of a rule that would exceed a limit.
    pub(crate) fn count_limited(&self, rule: RuleId, limit: Limit) {
        let place = self.place(rule).map_or(self.rules.len(), usize::from);
        let counts = self.limited.get(place);
        if let Some(count) = counts.and_then(|counts| counts.get(limit as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of new sessions that would have exceeded a limit, for each limit that was
    /// reached and each rule, by name, that would have admitted the session.
    pub fn limited(&self) -> impl Iterator<Item = (Limit, &str, u64)> {
        let rules = self.rules.iter().map(|rule| rule.name.as_str());
        let rows = rules.chain([DEFAULT_NAME]).zip(&self.limited);
        rows.flat_map(|(rule, counts)| {
            let counts = Limit::ALL.into_iter().zip(counts);
            counts.map(move |(limit, count)| (limit, rule, count.load(Ordering::Relaxed)))
        })
        .filter(|(_, _, count)| *count > 0)
    }

    /// Returns whether any rule drops packets with IP options.
    pub(crate) fn any_strict_options(&self) -> bool {
        let mut modes = self.rules.iter().map(|rule| rule.ip_options);
        modes.any(|mode| mode == Some(OptionsMode::Strict))
    }

    /// Returns whether sessions that a rule decides are to be logged; always `false` for the
    /// default action.
    #[must_use]
    pub fn logs(&self, rule: RuleId) -> bool {
        self.rule(rule).is_some_and(|rule| rule.log)
    }

    /// Returns whether a rule is resilient: its sessions are stored where the store has those of
    /// such rules only. Always `false` for the default action.
    #[must_use]
    pub fn is_resilient(&self, rule: RuleId) -> bool {
        self.rule(rule).is_some_and(|rule| rule.resilient)
    }

    /// Returns the name of a rule, even if a reload has removed it; `default` for
    /// [`RuleId::DEFAULT`] and any number without a rule.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        self.names
            .get(usize::from(rule.0))
            .map_or(DEFAULT_NAME, |(name, _)| name)
    }

    /// Returns the rules' numbers and names.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (RuleId, &str)> {
        let rules = (0..u16::MAX).zip(self.numbers.iter().zip(&self.rules));
        rules
            .filter(|(place, (number, _))| self.place(RuleId(**number)) == Some(*place))
            .map(|(_, (number, rule))| (RuleId(*number), rule.name.as_str()))
    }

    /// Returns the number of the rule with a name.
    pub fn rule_named(&self, name: &str) -> Option<RuleId> {
        let place = self.rules.iter().position(|rule| rule.name == name)?;
        self.numbers.get(place).copied().map(RuleId)
    }

    /// Gives each rule the number that its name had in `previous`, and new numbers to new names.
    pub(crate) fn keep_numbers(&mut self, previous: &Self) -> Result<(), TooManyNames> {
        let mut names: Vec<(String, Option<u16>)> = previous
            .names
            .iter()
            .map(|(name, _)| (name.clone(), None))
            .collect();
        let known: HashMap<&str, u16> = (0..u16::MAX)
            .zip(&previous.names)
            .map(|(number, (name, _))| (name.as_str(), number))
            .collect();
        let mut before: Option<(&str, u16)> = None;
        for ((place, rule), number) in (0..u16::MAX).zip(&self.rules).zip(&mut self.numbers) {
            match (before, known.get(rule.name.as_str())) {
                (Some((name, own)), _) if name == rule.name => {
                    *number = own;
                    continue;
                }
                (_, Some(known)) => *number = *known,
                (_, None) if names.len() >= MAX_RULES => return Err(TooManyNames),
                (_, None) => {
                    *number = names.len() as u16;
                    names.push((rule.name.clone(), None));
                }
            }
            before = Some((&rule.name, *number));
            if let Some((_, entry)) = names.get_mut(usize::from(*number)) {
                *entry = Some(place);
            }
        }
        self.names = names.into();
        Ok(())
    }

    /// Takes over the hits of a previous policy, by the names of the rules.
    pub(crate) fn take_hits(&self, previous: &Self) {
        let before = previous.hits.take(previous.rules.len());
        self.hits.add(self.rules.len(), before);
        let numbers = previous.numbers.iter().map(|number| RuleId(*number));
        for (rule, counts) in numbers.chain([RuleId::DEFAULT]).zip(&previous.limited) {
            let place = match rule {
                RuleId::DEFAULT => Some(self.rules.len()),
                rule => self.place(rule).map(usize::from),
            };
            let own = place.and_then(|place| self.limited.get(place));
            for (own, before) in own.into_iter().flatten().zip(counts) {
                own.fetch_add(before.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        for (place, number) in previous.numbers.iter().enumerate() {
            if let Some(own) = self.place(RuleId(*number)) {
                self.hits.add(usize::from(own), previous.hits.take(place));
            }
        }
    }

    /// Returns the position of a rule in the policy.
    fn place(&self, rule: RuleId) -> Option<u16> {
        self.names
            .get(usize::from(rule.0))
            .and_then(|(_, place)| *place)
    }

    fn number(&self, place: u16) -> RuleId {
        self.numbers
            .get(usize::from(place))
            .map_or(RuleId::DEFAULT, |number| RuleId(*number))
    }

    /// Returns the number of rules that may match: those that are enabled, have not expired, and
    /// name no empty set alone.
    pub fn len(&self) -> usize {
        self.numbered().count()
    }

    /// Returns whether the policy has no rules, only the default action.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns each rule's name and the number of sessions that it decided, in order, the default
    /// last.
    pub fn hits(&self) -> impl Iterator<Item = (&str, u64)> {
        self.uses().map(|(_, name, _, hits)| (name, hits))
    }

    /// Returns each rule with its name, action and hits, in order, the default last.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (RuleId, &str, Action, u64)> {
        let default = (
            RuleId::DEFAULT,
            DEFAULT_NAME,
            self.default,
            self.rules.len(),
        );
        let rules = self.numbered().filter_map(|(rule, name)| {
            let place = usize::from(self.place(rule)?);
            Some((rule, name, self.rules.get(place)?.action, place))
        });
        rules
            .chain([default])
            .map(|(rule, name, action, place)| (rule, name, action, self.hits.get(place)))
    }

    /// Returns the result of [`Self::decide`], and the reason for which each earlier rule did not
    /// match. Counts no hit. This method allocates and compares rule by rule, so it is for
    /// diagnosis and not for the packet path.
    pub fn explain(&self, q: &NewSession) -> Explanation<'_> {
        let inside = self.is_inside(q.src);
        let mut considered: Vec<Considered<'_>> = Vec::new();
        let mut matched = None;
        for (place, rule) in (0..u16::MAX).zip(&self.rules) {
            let mismatch = rule.mismatch(q, inside);
            let number = self.number(place);
            match considered.last_mut() {
                Some(part) if part.rule == number => part.mismatch = mismatch,
                _ => considered.push(Considered {
                    rule: number,
                    name: &rule.name,
                    mismatch,
                    sets: rule
                        .origin
                        .as_ref()
                        .map_or_else(String::new, |origin| origin.holding(q)),
                }),
            }
            if mismatch.is_none() {
                matched = Some(place);
                break;
            }
        }
        Explanation {
            considered,
            inside,
            decision: self.decision(matched, q.zone),
        }
    }

    /// Finds rules that never match, because an earlier rule covers them. A rule that only several
    /// earlier rules cover together is not found. A rule of several parts never matches if each
    /// part is covered; the pair then names the rule that covers the first of them.
    pub(crate) fn shadowed(&self) -> Shadows {
        self.shadowed_within(MAX_STEPS)
    }

    fn shadowed_within(&self, steps: u64) -> Shadows {
        let mut search = CoverSearch::new(&self.tables, &self.rules, steps);
        let mut shadows = Shadows::default();
        for (rule, _) in self.numbered() {
            match self.first_cover(rule, &mut search) {
                Ok(None) => {}
                Ok(Some(earlier)) => shadows.pairs.push((rule, self.number(earlier))),
                Err(OutOfSteps) => {
                    shadows.given_up_at = Some(rule);
                    break;
                }
            }
        }
        shadows
    }

    /// Returns the index of the rule that covers the first part of a rule, if each of its parts is
    /// covered.
    fn first_cover(
        &self,
        rule: RuleId,
        search: &mut CoverSearch<'_>,
    ) -> Result<Option<u16>, OutOfSteps> {
        let Some(first) = self.place(rule) else {
            return Ok(None);
        };
        let cover = search.first_cover(first, first)?;
        let parts = (first..u16::MAX).skip(1).take_while(|place| {
            usize::from(*place) < self.rules.len() && self.number(*place) == rule
        });
        for part in parts {
            if cover.is_none() || search.first_cover(part, first)?.is_none() {
                return Ok(None);
            }
        }
        Ok(cover)
    }

    /// Returns the bytes of the policy: its rules with their names and counters, and the tables
    /// that find the rule of a new session.
    pub(crate) fn bytes(&self) -> usize {
        let per_rule = size_of::<AtomicU64>() * Limit::ALL.len()
            + size_of::<u16>()
            + size_of::<(String, Option<u16>)>();
        let lists = self.rules.iter().map(|rule| rule.bytes() + rule.name.len());
        let hits = Hits::bytes(self.rules.len() + 1);
        self.tables.bytes() + hits + per_rule * self.rules.len() + lists.sum::<usize>()
    }

    fn rule(&self, rule: RuleId) -> Option<&Rule> {
        self.rules.get(usize::from(self.place(rule)?))
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.longest_match(address).is_some()
    }

    fn decision(&self, matched: Option<u16>, zone: Zone) -> Decision {
        match matched.and_then(|place| Some((place, self.rules.get(usize::from(place))?))) {
            Some((place, found)) => Decision {
                action: found.action,
                rule: self.number(place),
                log: found.log || found.action == Action::Audit,
            },
            None => {
                let action = self.default_of(zone);
                Decision {
                    action,
                    rule: RuleId::DEFAULT,
                    log: action == Action::Audit,
                }
            }
        }
    }

    /// Returns the default action for sessions of a zone that no rule matches.
    fn default_of(&self, zone: Zone) -> Action {
        let place = self
            .zone_defaults
            .binary_search_by_key(&zone, |(each, _)| *each);
        let own = place.ok().and_then(|place| self.zone_defaults.get(place));
        own.map_or(self.default, |(_, action)| *action)
    }
}
