//! Inverted rules: for each field, the rules that match a value.
//!
//! Each block of values that a rule names has the set of rules that name it. Its parent is the set
//! of the enclosing block; the root is the set of rules that leave the field open. A rule is stored
//! once for each block that it names, so the tables are linear in the size of the policy. The
//! innermost block that holds a session's value gives all rules that match it in this field.
//!
//! A lookup reads, word by word, the sets of the field that a rule is filed under
//! ([`Arrangement`]), and compares each word with the sets of the other fields. If that field
//! separates few rules of a policy, whole vectors are compared instead ([`Tables::compare_all`]). A
//! rule is at most once in the sets that a session reads in one field, so the worst policy costs
//! two words for each rule and field. A policy whose rules share their blocks costs two words for
//! each 64 rules and field.
use super::NewSession;
use super::arrangement::{Arrangement, Cluster, NO_RULE};
use super::blocks::{FieldValue, Nested};
use super::rows::{NodeId, RowBuilder, Rows};
use super::rule::Rule;
use super::terms::{Field, FieldTerms, MAX_TERMS, PerField};

/// The largest number of words: those of [`MAX_RULES`](super::MAX_RULES), and one for each field.
const MAX_WORDS: usize = 1024;
const _: () = assert!(super::MAX_RULES.div_ceil(64) + Field::ALL.len() <= MAX_WORDS);

/// Maximum number of words that a lookup compares one by one; above it, whole vectors are compared.
const FEW_WORDS: usize = 48;

/// Bound and amount of a lookup's work.
#[derive(Debug)]
pub(super) struct Effort {
    /// The most words of a cluster that are compared one by one.
    pub(super) few: usize,
    /// The number of words that were read: those of the field that rules are filed under, or of all
    /// fields where whole vectors were compared.
    pub(super) words: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            few: FEW_WORDS,
            words: 0,
        }
    }
}

/// A field's sets of rules.
#[derive(Debug)]
pub(super) struct FieldTable {
    narrow: Nested<u16>,
    wide: Nested<u32>,
    widest: Nested<u128>,
    /// The rules that leave the field open.
    pub(super) open: NodeId,
    /// Whether any rule names a value.
    pub(super) is_named: bool,
}

impl FieldTable {
    fn new(terms: &FieldTerms, positions: &[u16], rows: &mut RowBuilder) -> Self {
        let mut scratch: Vec<u16> = Vec::new();
        let mut add = |rules: &mut dyn Iterator<Item = u16>, parent| {
            scratch.clear();
            scratch.extend(rules.filter_map(|rule| positions.get(usize::from(rule)).copied()));
            rows.add(&mut scratch, parent)
        };
        let open = add(&mut terms.open.iter().copied(), NodeId::EMPTY);
        Self {
            narrow: Nested::new(terms.narrow.by_block(), open, |mut rules, parent| {
                add(&mut rules, parent)
            }),
            wide: Nested::new(terms.wide.by_block(), open, |mut rules, parent| {
                add(&mut rules, parent)
            }),
            widest: Nested::new(terms.widest.by_block(), open, |mut rules, parent| {
                add(&mut rules, parent)
            }),
            open,
            is_named: terms.is_named(positions.len()),
        }
    }

    /// Returns the set of the innermost block that holds a value.
    pub(super) fn node(&self, value: FieldValue) -> NodeId {
        match value {
            FieldValue::None => self.open,
            FieldValue::Narrow(value) => self.narrow.node(value),
            FieldValue::Wide(value) => self.wide.node(value),
            FieldValue::Widest(value) => self.widest.node(value),
        }
    }

    fn bytes(&self) -> usize {
        self.narrow.bytes() + self.wide.bytes() + self.widest.bytes()
    }
}

/// All fields' tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) rows: Rows,
    pub(super) arrangement: Arrangement,
    pub(super) fields: PerField<FieldTable>,
}

impl Tables {
    /// Returns `None` if the rules have more than [`MAX_TERMS`] terms.
    pub(super) fn new(rules: &[Rule]) -> Option<Self> {
        Self::within(rules, MAX_TERMS)
    }

    /// Returns `None` if the rules have more than `room` terms.
    pub(super) fn within(rules: &[Rule], mut room: usize) -> Option<Self> {
        let mut terms = PerField(Field::ALL.map(|_| FieldTerms::default()));
        for (field, terms) in Field::ALL.into_iter().zip(&mut terms.0) {
            *terms = FieldTerms::new(rules, field, &mut room)?;
        }
        let count = rules.len().min(super::MAX_RULES);
        let arrangement = Arrangement::new(&terms, count);
        let mut positions = arrangement.positions();
        positions.truncate(count);
        let mut rows = RowBuilder::new();
        let fields = PerField(
            terms
                .0
                .map(|terms| FieldTable::new(&terms, &positions, &mut rows)),
        );
        Some(Self {
            rows: rows.finish(),
            arrangement,
            fields,
        })
    }

    /// Returns whether the caller must determine whether the initiator is inside.
    pub(super) fn directional(&self) -> bool {
        let direction = self.fields.get(Field::Direction);
        direction.is_some_and(|direction| direction.is_named)
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let fields: usize = self.fields.0.iter().map(FieldTable::bytes).sum();
        self.rows.bytes() + fields + size_of_val(&*self.arrangement.rules)
    }

    /// Returns the first rule that matches a session.
    pub(super) fn first_match(&self, q: &NewSession, inside: bool) -> Option<u16> {
        self.first_match_with(q, inside, &mut Effort::default())
    }

    /// Returns the first rule that matches a session, with the effort that it takes.
    pub(super) fn first_match_with(
        &self,
        q: &NewSession,
        inside: bool,
        effort: &mut Effort,
    ) -> Option<u16> {
        let mut first = NO_RULE;
        if self.arrangement.clusters.is_empty() {
            return None;
        }
        let mut nodes = PerField([NodeId::EMPTY; Field::ALL.len()]);
        let tables = Field::ALL.into_iter().zip(&self.fields.0);
        for (node, (field, table)) in nodes.0.iter_mut().zip(tables) {
            *node = if table.is_named {
                table.node(field.value(q, inside))
            } else {
                table.open
            };
        }
        for cluster in &self.arrangement.clusters {
            if cluster.first >= first {
                continue;
            }
            let filed = nodes.get(cluster.field).copied().unwrap_or_default();
            let stored = self.rows.stored_words(filed, &cluster.words);
            if stored <= effort.few {
                effort.words += stored;
                self.compare_few(cluster, &nodes, &mut first);
            } else {
                effort.words += self.compare_all(cluster, &nodes, &mut first);
            }
        }
        (first != NO_RULE).then_some(first)
    }

    /// Returns the fields in which rules differ, except one, with their sets.
    fn others<'a>(
        &'a self,
        nodes: &'a PerField<NodeId>,
        but: Field,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let tables = Field::ALL.into_iter().zip(&self.fields.0).zip(&nodes.0);
        tables
            .filter(move |((field, table), _)| *field != but && table.is_named)
            .map(|(_, node)| *node)
    }

    /// Sets `first` to the first rule of a cluster that matches, if it is before `first`. Compares
    /// each word of the field that the rules are filed under.
    fn compare_few(&self, cluster: &Cluster, nodes: &PerField<NodeId>, first: &mut u16) {
        let filed = nodes.get(cluster.field).copied().unwrap_or_default();
        self.rows
            .each_word(filed, &cluster.words, |word, mut bits| {
                let rules = self.arrangement.word(word);
                if rules.first().is_none_or(|rule| rule >= first) {
                    return;
                }
                for node in self.others(nodes, cluster.field) {
                    bits &= self.rows.word(node, word);
                    if bits == 0 {
                        return;
                    }
                }
                if let Some(rule) = rules.get(bits.trailing_zeros() as usize) {
                    *first = (*first).min(*rule);
                }
            });
    }

    /// Sets `first` as [`Self::compare_few`] does, by whole vectors. Returns how many words it
    /// read.
    fn compare_all(&self, cluster: &Cluster, nodes: &PerField<NodeId>, first: &mut u16) -> usize {
        let mut read = 0;
        let mut all = [u64::MAX; MAX_WORDS];
        let mut own = [0_u64; MAX_WORDS];
        let filed = nodes.get(cluster.field).copied().unwrap_or_default();
        let count = cluster.words.len();
        for node in [filed].into_iter().chain(self.others(nodes, cluster.field)) {
            let own = own.get_mut(..count).unwrap_or_default();
            own.fill(0);
            self.rows.each_word(node, &cluster.words, |word, bits| {
                read += 1;
                if let Some(own) = own.get_mut(usize::from(word - cluster.words.start)) {
                    *own |= bits;
                }
            });
            for (all, own) in all.iter_mut().zip(&*own) {
                *all &= own;
            }
        }
        for (word, bits) in cluster.words.clone().zip(all) {
            if let Some(rule) = self
                .arrangement
                .word(word)
                .get(bits.trailing_zeros() as usize)
            {
                *first = (*first).min(*rule);
            }
        }
        read
    }
}
