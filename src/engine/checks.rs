//! How strictly packets are judged: TCP modes by rule and zone, checks that only count, what ICMP may do.

use dashmap::DashMap;

use crate::config::{Compiled, Permission, TcpMode};
use crate::flow::Zone;
use crate::policy::{Policy, RuleId};
use crate::verdict::DropReason;

/// The settings, and the count of what they have let pass.
#[derive(Debug)]
pub(super) struct Checks {
    tcp_mode: TcpMode,
    tcp_zones: Box<[(Zone, TcpMode)]>,
    /// Whether anything at all may be picked up in its middle: the packet path asks no further where not.
    any_loose: bool,
    pub(super) split_handshake: bool,
    pub(super) icmp_redirects: bool,
    /// A bit for each of [`DropReason::CHECKS`] that only counts.
    counting: u16,
    /// What was tolerated, by reason and rule. Bounded by their product; no guard is held while anything else
    /// is called.
    tolerated: DashMap<(DropReason, RuleId), u64, ahash::RandomState>,
}

const _: () = assert!(DropReason::CHECKS.len() <= 16);

impl Checks {
    pub(super) fn new(compiled: &Compiled, hasher: ahash::RandomState) -> Self {
        let is_counting = |reason: &&DropReason| compiled.counting.contains(reason);
        let counting = (0..)
            .zip(&DropReason::CHECKS)
            .filter(|(_, reason)| is_counting(reason))
            .fold(0, |bits, (place, _): (u32, _)| bits | 1 << place);
        Self {
            tcp_mode: compiled.tcp_mode,
            tcp_zones: compiled.tcp_zones.clone().into(),
            any_loose: compiled.tcp_mode == TcpMode::Loose
                || compiled.tcp_zones.iter().any(|(_, mode)| *mode == TcpMode::Loose)
                || compiled.policy.uses_tcp_mode(TcpMode::Loose),
            split_handshake: compiled.split_handshake == Permission::Allow,
            icmp_redirects: compiled.icmp_redirects == Permission::Allow,
            counting,
            tolerated: DashMap::with_hasher(hasher),
        }
    }

    /// How TCP is tracked in sessions of a zone that a rule has allowed.
    pub(super) fn tcp_mode(&self, policy: &Policy, rule: RuleId, zone: Zone) -> TcpMode {
        let of_zone = || {
            self.tcp_zones
                .iter()
                .find(|(each, _)| *each == zone)
                .map(|(_, mode)| *mode)
        };
        policy.tcp_mode(rule).or_else(of_zone).unwrap_or(self.tcp_mode)
    }

    /// Whether a connection may be picked up in its middle, in some zone by some rule.
    pub(super) const fn any_loose(&self) -> bool {
        self.any_loose
    }

    /// Whether the check that has this reason only counts.
    pub(super) fn only_counts(&self, reason: DropReason) -> bool {
        self.counting != 0
            && (0..)
                .zip(&DropReason::CHECKS)
                .any(|(place, check): (u32, _)| *check == reason && self.counting >> place & 1 == 1)
    }

    /// Counts a packet that was let pass. No shard's lock is held.
    pub(super) fn count(&self, reason: DropReason, rule: RuleId) {
        *self.tolerated.entry((reason, rule)).or_insert(0) += 1;
    }

    /// What was let pass, by reason and rule, in order.
    pub(super) fn tolerated(&self) -> Vec<(DropReason, RuleId, u64)> {
        let mut counts: Vec<_> = self
            .tolerated
            .iter()
            .map(|entry| (entry.key().0, entry.key().1, *entry.value()))
            .collect();
        counts.sort_unstable_by_key(|(reason, rule, _)| (reason.index(), *rule));
        counts
    }
}
