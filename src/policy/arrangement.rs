//! Position of each rule in the bit vectors.
//!
//! Positions are independent of the order of the rules, so rules that one lookup finds can be
//! adjacent. A rule is filed under the field whose value it shares with the fewest other rules. A
//! lookup reads the few words of that field and compares only these in the other fields. Within a
//! word, rules are in policy order, so the first bit that is set is the first matching rule of the
//! word.
use std::ops::Range;

use super::terms::{Field, FieldTerms, PerField};

/// Marks a position without a rule.
pub(super) const NO_RULE: u16 = u16::MAX;

/// The rules that are filed under one field.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) field: Field,
    pub(super) words: Range<u16>,
    /// The first of the rules.
    pub(super) first: u16,
}

/// Positions of rules.
#[derive(Debug)]
pub(super) struct Arrangement {
    /// Sorted by the first rule of each.
    pub(super) clusters: Vec<Cluster>,
    /// The rule at each position; [`NO_RULE`] at positions that pad a word.
    pub(super) rules: Vec<u16>,
}

/// A rule's best field so far.
#[derive(Debug, Clone, Copy)]
struct Filed {
    field: Field,
    /// The largest number of rules that name one of the rule's blocks.
    crowd: usize,
    /// The number of the first block that the rule names.
    block: u32,
}

impl Arrangement {
    /// Arranges `count` rules.
    pub(super) fn new(terms: &PerField<FieldTerms>, count: usize) -> Self {
        let mut filed = vec![
            Filed {
                field: Field::Destination,
                crowd: usize::MAX,
                block: 0,
            };
            count
        ];
        for (field, terms) in Field::ALL.into_iter().zip(&terms.0) {
            // A session's direction is looked up only if a rule names one, since it separates few
            // rules.
            if field == Field::Direction {
                continue;
            }
            let mut own = vec![
                Filed {
                    field,
                    crowd: 0,
                    block: 0,
                };
                count
            ];
            let mut block = 0;
            terms.each_group(|rules| {
                block += 1;
                let crowd = rules.len();
                for rule in rules {
                    if let Some(own) = own.get_mut(usize::from(rule)) {
                        if own.crowd == 0 {
                            own.block = block;
                        }
                        own.crowd = own.crowd.max(crowd);
                    }
                }
            });
            for (best, own) in filed.iter_mut().zip(own) {
                if own.crowd < best.crowd {
                    *best = own;
                }
            }
        }
        Self::by_block(filed)
    }

    fn by_block(filed: Vec<Filed>) -> Self {
        let mut order: Vec<(u8, u32, u16)> = (0..NO_RULE)
            .zip(filed)
            .map(|(rule, filed)| (filed.field as u8, filed.block, rule))
            .collect();
        order.sort_unstable();
        let mut arrangement = Self {
            clusters: Vec::new(),
            rules: Vec::with_capacity(order.len() + 64 * Field::ALL.len()),
        };
        for cluster in order.chunk_by(|(one, _, _), (other, _, _)| one == other) {
            let field = cluster
                .first()
                .and_then(|(field, _, _)| Field::ALL.get(usize::from(*field)));
            let Some(&field) = field else {
                continue;
            };
            let start = arrangement.words();
            for word in cluster.chunks(64) {
                let mut rules: Vec<u16> = word.iter().map(|(_, _, rule)| *rule).collect();
                rules.sort_unstable();
                rules.resize(64, NO_RULE);
                arrangement.rules.extend(rules);
            }
            let first = cluster.iter().map(|(_, _, rule)| *rule).min();
            arrangement.clusters.push(Cluster {
                field,
                words: start..arrangement.words(),
                first: first.unwrap_or(NO_RULE),
            });
        }
        arrangement
            .clusters
            .sort_unstable_by_key(|cluster| cluster.first);
        arrangement
    }

    fn words(&self) -> u16 {
        (self.rules.len() / 64) as u16
    }

    /// Returns the position of each rule.
    pub(super) fn positions(&self) -> Vec<u16> {
        let mut positions = vec![0; self.rules.len()];
        for (position, rule) in (0..NO_RULE).zip(&self.rules) {
            if let Some(own) = positions.get_mut(usize::from(*rule)) {
                *own = position;
            }
        }
        positions
    }

    /// Returns the rules of a word, in their order.
    pub(super) fn word(&self, word: u16) -> &[u16] {
        let start = usize::from(word) * 64;
        self.rules.get(start..start + 64).unwrap_or_default()
    }
}
