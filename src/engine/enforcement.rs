//! Strictness of checks: those that only count.

use dashmap::DashMap;

use crate::config::Compiled;
use crate::policy::RuleId;
use crate::verdict::DropReason;

/// The settings, and the counts of tolerated packets.
#[derive(Debug)]
pub(super) struct Enforcement {
    /// Whether split handshakes are completed.
    pub(super) split_handshake: bool,
    /// Bit set of those of [`DropReason::CHECKS`] that only count.
    counting: u16,
    /// Tolerated packets by reason and rule. The size is bounded by their product; no guard is held
    /// during any other call.
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
            split_handshake: is_counting(&&DropReason::TcpSplitHandshake),
            counting,
            tolerated: DashMap::with_hasher(hasher),
        }
    }

    /// Returns whether the check with this reason only counts.
    pub(super) fn only_counts(&self, reason: DropReason) -> bool {
        self.counting != 0
            && (0..)
                .zip(&DropReason::CHECKS)
                .any(|(place, check): (u32, _)| *check == reason && self.counting >> place & 1 == 1)
    }

    /// Counts a tolerated packet. A shard's lock may be held: this method takes none.
    pub(super) fn count(&self, reason: DropReason, rule: RuleId) {
        *self.tolerated.entry((reason, rule)).or_insert(0) += 1;
    }

    /// Takes over the counts of the previous settings.
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
