//! Search for rules that never match, since an earlier rule matches all of their sessions.
use super::arrangement::NO_RULE;
use super::blocks::{Block, FieldValue, Value};
use super::compiled::Tables;
use super::rows::NodeId;
use super::rule::Rule;
use super::terms::{Field, PerField, RuleTerms};

/// Maximum number of steps of a search through all rules: half a second or less. 65,000 rules that
/// differ take some hundred steps each.
pub(super) const MAX_STEPS: u64 = 1 << 27;

/// Finds earlier rules that cover a rule.
#[derive(Debug)]
pub(super) struct CoverSearch<'a> {
    tables: &'a Tables,
    rules: &'a [Rule],
    /// Steps that are left.
    steps: u64,
}

/// The search has used all its steps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfSteps;

impl<'a> CoverSearch<'a> {
    pub(super) fn new(tables: &'a Tables, rules: &'a [Rule], steps: u64) -> Self {
        Self {
            tables,
            rules,
            steps,
        }
    }

    /// Returns the first rule before position `before` that covers the rule, or part of a rule, at
    /// `place`.
    pub(super) fn first_cover(
        &mut self,
        place: u16,
        before: u16,
    ) -> Result<Option<u16>, OutOfSteps> {
        let Some(rule) = self.rules.get(usize::from(place)) else {
            return Ok(None);
        };
        let named = PerField(Field::ALL.map(|field| self.sets(rule, field)));
        let mut after = None;
        loop {
            let Some(found) = self.next_cover(&named, after, before)? else {
                return Ok(None);
            };
            let earlier = self.rules.get(usize::from(found));
            if let Some(earlier) = earlier {
                self.take(comparison_steps(earlier, rule))?;
                if earlier.covers(rule) {
                    return Ok(Some(found));
                }
            }
            after = Some(found);
        }
    }

    fn take(&mut self, steps: u64) -> Result<(), OutOfSteps> {
        self.steps = self.steps.checked_sub(steps).ok_or(OutOfSteps)?;
        Ok(())
    }

    /// Returns the sets of rules that name a block around each block of a rule; those that leave
    /// the field open are in all of them.
    fn sets(&self, rule: &Rule, field: Field) -> Vec<NodeId> {
        let Some(table) = self.tables.fields.get(field) else {
            return Vec::new();
        };
        fn everything<T: Value>(last: T) -> Vec<Block<T>> {
            let first = T::LEAST;
            vec![Block { first, last }]
        }
        let terms = match (RuleTerms::new(rule, field), field) {
            (Some(terms), _) => terms,
            // An open list of addresses equals the default route of either version.
            (None, Field::Source | Field::Destination) => RuleTerms {
                narrow: Vec::new(),
                wide: everything(u32::MAX),
                widest: everything(u128::MAX),
            },
            (None, _) => return vec![table.open],
        };
        let common = |first, last| self.tables.rows.common(table.node(first), table.node(last));
        let narrow = terms.narrow.iter().map(|block| {
            let Block { first, last } = *block;
            common(FieldValue::Narrow(first), FieldValue::Narrow(last))
        });
        let wide = terms.wide.iter().map(|block| {
            let Block { first, last } = *block;
            common(FieldValue::Wide(first), FieldValue::Wide(last))
        });
        let widest = terms.widest.iter().map(|block| {
            let Block { first, last } = *block;
            common(FieldValue::Widest(first), FieldValue::Widest(last))
        });
        let mut sets: Vec<NodeId> = narrow.chain(wide).chain(widest).collect();
        sets.sort_unstable();
        sets.dedup();
        if sets.is_empty() {
            // A field without a value, such as a reversed range: the rule is covered by the open
            // rules.
            sets.push(table.open);
        }
        sets
    }

    /// Returns the first rule after `after` and before `before` that is in all sets.
    fn next_cover(
        &mut self,
        named: &PerField<Vec<NodeId>>,
        after: Option<u16>,
        before: u16,
    ) -> Result<Option<u16>, OutOfSteps> {
        let (tables, mut left) = (self.tables, Some(self.steps));
        let mut first = before;
        for cluster in &tables.arrangement.clusters {
            if cluster.first >= first {
                continue;
            }
            let sets = named.get(cluster.field).map_or(&[][..], |sets| sets);
            let Some(filed) = sets.first() else {
                continue;
            };
            tables
                .rows
                .each_word(*filed, &cluster.words, |word, mut bits| {
                    left = left.and_then(|left| left.checked_sub(1));
                    let rules = tables.arrangement.word(word);
                    if left.is_none() || rules.first().is_none_or(|rule| *rule >= first) {
                        return;
                    }
                    let skipped =
                        after.map_or(0, |after| rules.partition_point(|rule| *rule <= after));
                    bits &= u64::MAX.checked_shl(skipped as u32).unwrap_or(0);
                    for set in named.0.iter().flatten() {
                        if bits == 0 {
                            return;
                        }
                        left = left.and_then(|left| left.checked_sub(1));
                        bits &= tables.rows.word(*set, word);
                    }
                    if let Some(rule) = rules.get(bits.trailing_zeros() as usize) {
                        first = first.min(*rule);
                    }
                });
        }
        self.steps = left.ok_or(OutOfSteps)?;
        Ok((first < before && first != NO_RULE).then_some(first))
    }
}

/// Returns the approximate number of steps of [`Rule::covers`].
fn comparison_steps(one: &Rule, other: &Rule) -> u64 {
    let product = |one: usize, other: usize| (one as u64).saturating_mul(other as u64);
    let sum = |one: usize, other: usize| 16 * (one + other) as u64;
    1 + product(one.zones.len(), other.zones.len())
        + product(one.protocol.len(), other.protocol.len())
        + product(
            one.icmp_types.len() * one.protocol.len(),
            other.icmp_types.len() * other.protocol.len(),
        )
        + sum(one.source.len(), other.source.len())
        + sum(one.destination.len(), other.destination.len())
        + product(one.source_ports.len(), other.source_ports.len())
        + product(one.destination_ports.len(), other.destination_ports.len())
}
