//! Sets of rules as sparse bit vectors.
use std::collections::{BTreeMap, HashMap};

/// The largest number of chunks of all rows of a policy: 4 Mi, 64 MiB of memory.
pub(super) const MAX_CHUNKS: usize = 4 * 1024 * 1024;

/// 64 rules of a row: bit `b` stands for rule `word * 64 + b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Chunk {
    word: u16,
    bits: u64,
}

/// The number of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RowId(u32);

/// Rows of chunks, each row stored once. Row 0 is empty.
#[derive(Debug)]
pub(super) struct Rows(Vec<Box<[Chunk]>>);

impl Rows {
    /// The non-zero chunks of a row, by ascending word.
    pub(super) fn row(&self, id: RowId) -> &[Chunk] {
        self.0.get(id.0 as usize).map_or(&[], |row| row)
    }
}

/// A set of rules that is still being put together: the non-zero words by number.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleSet(BTreeMap<u16, u64>);

impl RuleSet {
    pub(super) fn insert(&mut self, rule: u16) {
        *self.0.entry(rule / 64).or_default() |= 1 << (rule % 64);
    }

    pub(super) fn remove(&mut self, rule: u16) {
        if let Some(word) = self.0.get_mut(&(rule / 64)) {
            *word &= !(1 << (rule % 64));
            if *word == 0 {
                self.0.remove(&(rule / 64));
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (word, bits) in &other.0 {
            *self.0.entry(*word).or_default() |= bits;
        }
    }
}

/// Collects rows.
#[derive(Debug, Default)]
pub(super) struct RowBuilder {
    ids: HashMap<Box<[Chunk]>, RowId>,
    chunks: usize,
}

impl RowBuilder {
    /// The row of a set of rules. Beyond [`MAX_CHUNKS`] nothing more is stored, and [`Self::finish`] fails.
    pub(super) fn row(&mut self, set: &RuleSet) -> RowId {
        if self.chunks > MAX_CHUNKS || set.0.is_empty() {
            return RowId::default();
        }
        let chunks: Box<[Chunk]> = set.0.iter().map(|(&word, &bits)| Chunk { word, bits }).collect();
        let next = RowId(u32::try_from(self.ids.len() + 1).unwrap_or(u32::MAX));
        let total = &mut self.chunks;
        *self.ids.entry(chunks).or_insert_with_key(|chunks| {
            *total += chunks.len();
            next
        })
    }

    /// All rows; `None` if they are more than [`MAX_CHUNKS`] allows.
    pub(super) fn finish(self) -> Option<Rows> {
        if self.chunks > MAX_CHUNKS {
            return None;
        }
        let mut rows: Vec<Box<[Chunk]>> = vec![Box::default(); self.ids.len() + 1];
        for (chunks, id) in self.ids {
            if let Some(row) = rows.get_mut(id.0 as usize) {
                *row = chunks;
            }
        }
        Some(Rows(rows))
    }
}

/// Walks a row together with the rules that leave the field open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    open: &'a [u64],
    row: &'a [Chunk],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(open: &'a [u64], row: &'a [Chunk]) -> Self {
        Self { open, row }
    }

    /// The 64 rules of a word that match; words must be asked for in ascending order.
    pub(super) fn word(&mut self, word: u16) -> u64 {
        let open = self.open.get(usize::from(word)).copied().unwrap_or_default();
        while let Some((chunk, rest)) = self.row.split_first() {
            if chunk.word > word {
                break;
            }
            self.row = rest;
            if chunk.word == word {
                return open | chunk.bits;
            }
        }
        open
    }
}
