//! Strictness of checks: those that only count, split handshakes, ICMP redirects.

use dashmap::DashMap;

use crate::config::{Compiled, Permission};
use crate::policy::RuleId;
use crate::verdict::DropReason;

/// The settings, and the count of what they have let pass.
#[derive(Debug)]
pub(super) struct Enforcement {
    pub(super) split_handshake: bool,
    pub(super) icmp_redirects: bool,
    /// A bit for each of [`DropReason::CHECKS`] that only counts.
    counting: u16,
    /// What was tolerated, by reason and rule. Bounded by their product; no guard is held while anything else
    /// is called.
    tolerated: DashMap<(DropReason, RuleId), u64, ahash::RandomState>,
}

const _: () = assert!(DropReason::CHECKS.len() <= 16);

impl Enforcement {
    pub(super) fn new(compiled: &Compiled, hasher: ahash::RandomState) -> Self {
        let is_counting = |reason: &&DropReason| compiled.counting.contains(reason);
        let counting = (0..)
            .zip(&DropReason::CHECKS)
            .filter(|(_, reason)| is_counting(reason))
            .fold(0, |bits, (place, _): (u32, _)| bits | 1 << place);
        Self {
            split_handshake: compiled.tcp.split_handshake == Permission::Allow,
            icmp_redirects: compiled.icmp_redirects == Permission::Allow,
            counting,
            tolerated: DashMap::with_hasher(hasher),
        }
    }

    /// Returns whether the check that has this reason only counts.
    pub(super) fn only_counts(&self, reason: DropReason) -> bool {
        self.counting != 0
            && (0..)
                .zip(&DropReason::CHECKS)
                .any(|(place, check): (u32, _)| *check == reason && self.counting >> place & 1 == 1)
    }

    /// Counts a packet that was let pass. A shard's lock may be held: nothing here takes one.
    pub(super) fn count(&self, reason: DropReason, rule: RuleId) {
        *self.tolerated.entry((reason, rule)).or_insert(0) += 1;
    }

    /// Takes over what settings before these have counted.
    pub(super) fn take_tolerated(&self, previous: &Self) {
        let mut taken = Vec::new();
        previous.tolerated.retain(|key, count| {
            taken.push((*key, *count));
            false
        });
        for (key, count) in taken {
            *self.tolerated.entry(key).or_insert(0) += count;
        }
    }

    /// Returns the tolerated packets by reason and rule, in order.
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
