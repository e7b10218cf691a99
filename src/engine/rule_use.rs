//! Traffic of each rule's sessions, and the time of its last match.
//!
//! A session's packets and bytes are added to those of its rule when it ends, so the packet path
//! writes nothing here for a packet of a session. Counters are indexed by the numbers of the rules,
//! which a reload keeps, and belong to no shard.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::Engine;
use crate::flow::Direction;
use crate::policy::{Action, RuleId};
use crate::session::{Ended, Micros, Slot};

/// Rules whose counters are allocated together.
const PAGE: usize = 256;

/// Least time between two matches that are both noted.
const RESOLUTION_US: u64 = 100_000;

#[derive(Debug, Default)]
struct Cell {
    sessions: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    /// The newest match that was noted; 0 for none.
    last_match: AtomicU64,
}

/// The counters of all rules, in pages that are allocated on first use: 2 MiB at most.
#[derive(Debug)]
pub(super) struct RuleCounters(Box<[OnceLock<Box<[Cell]>>]>);

/// Sessions of a rule, and their traffic in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleTraffic {
    /// Sessions.
    pub sessions: u64,
    /// Packets.
    pub packets: u64,
    /// IP bytes, headers included, padding excluded.
    pub bytes: u64,
}

impl RuleTraffic {
    fn add(&mut self, slot: &Slot) {
        let (packets, bytes) = traffic_of(slot);
        self.sessions += 1;
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// Decisions and traffic of a rule since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleUse {
    /// The rule; [`RuleId::DEFAULT`] for the default action.
    pub rule: RuleId,
    /// The rule's name.
    pub name: String,
    /// The rule's action; for the default action, that of zones without one of their own.
    pub action: Action,
    /// New sessions that the rule has decided, those that it denied included.
    pub hits: u64,
    /// Time of the rule's last decision about a new session, to a tenth of a second.
    pub last_match: Option<Instant>,
    /// Sessions of the rule that have ended. A session counts under the rule that it had at its
    /// end; an announced session counts under the rule of its control session.
    pub ended: RuleTraffic,
    /// Live sessions of the rule.
    pub live: RuleTraffic,
}

impl Default for RuleCounters {
    fn default() -> Self {
        let pages = (usize::from(u16::MAX) + 1).div_ceil(PAGE);
        Self((0..pages).map(|_| OnceLock::new()).collect())
    }
}

impl RuleCounters {
    fn cell(&self, rule: RuleId) -> Option<&Cell> {
        let number = usize::from(rule.0);
        self.0.get(number / PAGE)?.get()?.get(number % PAGE)
    }

    fn made(&self, rule: RuleId) -> Option<&Cell> {
        let number = usize::from(rule.0);
        let page = self.0.get(number / PAGE)?;
        let page = page.get_or_init(|| (0..PAGE).map(|_| Cell::default()).collect());
        page.get(number % PAGE)
    }

    /// Allocates the counters of all rules up to the highest one, so that no packet has to.
    pub(super) fn reserve(&self, rules: impl Iterator<Item = RuleId>) {
        for rule in rules.chain([RuleId::DEFAULT]) {
            self.made(rule);
        }
    }

    /// Notes that a rule has decided about a new session. Most calls only read.
    pub(super) fn matched(&self, rule: RuleId, now: Micros) {
        if let Some(cell) = self.cell(rule)
            && now
                .0
                .saturating_sub(cell.last_match.load(Ordering::Relaxed))
                >= RESOLUTION_US
        {
            cell.last_match.store(now.0, Ordering::Relaxed);
        }
    }

    /// Adds the traffic of sessions that have ended. Successive sessions of one rule are added
    /// together.
    pub(super) fn ended<'a>(&self, sessions: impl Iterator<Item = &'a Ended>) {
        let (mut rule, mut traffic) = (RuleId::DEFAULT, RuleTraffic::default());
        for ended in sessions {
            if ended.cold.rule != rule.0 {
                self.add(rule, &traffic);
                (rule, traffic) = (RuleId(ended.cold.rule), RuleTraffic::default());
            }
            traffic.add(&ended.slot);
        }
        self.add(rule, &traffic);
    }

    fn add(&self, rule: RuleId, traffic: &RuleTraffic) {
        if traffic.sessions > 0
            && let Some(cell) = self.cell(rule)
        {
            cell.sessions.fetch_add(traffic.sessions, Ordering::Relaxed);
            cell.packets.fetch_add(traffic.packets, Ordering::Relaxed);
            cell.bytes.fetch_add(traffic.bytes, Ordering::Relaxed);
        }
    }

    fn values(&self, rule: RuleId) -> (RuleTraffic, Micros) {
        let Some(cell) = self.cell(rule) else {
            return (RuleTraffic::default(), Micros(0));
        };
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traffic = RuleTraffic {
            sessions: value(&cell.sessions),
            packets: value(&cell.packets),
            bytes: value(&cell.bytes),
        };
        (traffic, Micros(value(&cell.last_match)))
    }
}

fn traffic_of(slot: &Slot) -> (u64, u64) {
    Direction::BOTH
        .iter()
        .fold((0, 0), |(packets, bytes), direction| {
            let (more, more_bytes) = slot.traffic(*direction);
            (packets + u64::from(more), bytes + more_bytes)
        })
}

impl Engine {
    /// Returns the decisions and traffic of each rule, in the order of the rules, the default
    /// action last. Live sessions are not visited, so this call is cheap: `live` is 0.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleUse> {
        let policy = self.policy();
        policy
            .uses()
            .map(|(rule, name, action, hits)| {
                let (ended, last) = self.rule_counters.values(rule);
                RuleUse {
                    rule,
                    name: name.to_owned(),
                    action,
                    hits,
                    last_match: (last.0 != 0).then(|| self.origin.instant(last)).flatten(),
                    ended,
                    live: RuleTraffic::default(),
                }
            })
            .collect()
    }

    /// Returns the time at which the next rule in force expires, without a wait for a reload.
    ///
    /// Call [`Engine::reload`] at that time, with it in
    /// [`policy.as_of`](crate::config::PolicyConfig::as_of); see
    /// [`Config::next_expiry`](crate::Config::next_expiry).
    #[must_use]
    pub fn next_rule_expiry(&self) -> Option<SystemTime> {
        self.settings().rules_expire
    }

    /// Returns the decisions and traffic of each rule like [`Engine::rules`], with its live
    /// sessions.
    ///
    /// Visits all sessions in slices, as [`Engine::for_each_session`] does. A session that ends
    /// during the walk may be counted as ended, as live, or not at all, but never twice.
    #[must_use]
    pub fn rules_with_live(&self) -> Vec<RuleUse> {
        let mut rules = self.rules();
        let mut live = std::collections::HashMap::new();
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                for session in held.shard.sessions_in(slots) {
                    let rule = held.shard.slab.cold(session).rule;
                    let of_rule: &mut RuleTraffic = live.entry(rule).or_default();
                    of_rule.add(held.shard.slab.hot(session));
                }
            }) {}
        }
        for rule in &mut rules {
            rule.live = live.get(&rule.rule.0).copied().unwrap_or_default();
        }
        rules
    }
}
