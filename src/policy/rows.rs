//! Sets of rules as bit vectors, in a forest: a set holds its own rules and those of its ancestors.
use std::collections::HashMap;
use std::ops::Range;

/// The number of a set; 0 is the empty set, which has no parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct NodeId(pub(super) u32);

impl NodeId {
    pub(super) const EMPTY: Self = Self(0);
}

/// Storage of a set's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One word, in the node itself.
    Single,
    /// Words by ascending number.
    Sparse,
    /// All words from the first to the last one.
    Dense,
}

/// A set's own words, and its parent.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The bits of a single word; otherwise the location of the words, with the index of the first
    /// in the upper half and their number in the lower half.
    data: u64,
    parent: NodeId,
    /// The number of the first word.
    word: u16,
    form: Form,
}

impl Node {
    const EMPTY: Self = Self {
        data: 0,
        parent: NodeId::EMPTY,
        word: 0,
        form: Form::Single,
    };

    fn stored(&self) -> Range<usize> {
        let start = (self.data >> 32) as usize;
        start..start + self.count()
    }

    /// Returns the number of stored words.
    fn count(&self) -> usize {
        match self.form {
            Form::Single => 1,
            Form::Sparse | Form::Dense => self.data as u32 as usize,
        }
    }
}

/// 64 positions of rules: bit `b` of word `w` stands for position `64 * w + b`.
pub(super) type Chunk = (u16, u64);

/// All sets.
#[derive(Debug)]
pub(super) struct Rows {
    nodes: Vec<Node>,
    sparse_words: Vec<u16>,
    sparse_bits: Vec<u64>,
    dense: Vec<u64>,
}

impl Rows {
    /// Bits of a word in a set, including those of its ancestors.
    pub(super) fn word(&self, id: NodeId, word: u16) -> u64 {
        self.chain(id)
            .fold(0, |bits, node| bits | self.own_word(node, word))
    }

    /// Calls `visit` with the words of a range that a set and its ancestors store, set by set. A
    /// word may be visited several times, with bits of different sets.
    pub(super) fn each_word(
        &self,
        id: NodeId,
        range: &Range<u16>,
        mut visit: impl FnMut(u16, u64),
    ) {
        for node in self.chain(id) {
            match node.form {
                Form::Single => {
                    if range.contains(&node.word) {
                        visit(node.word, node.data);
                    }
                }
                Form::Sparse => {
                    let words = self.sparse_words.get(node.stored()).unwrap_or_default();
                    let bits = self.sparse_bits.get(node.stored()).unwrap_or_default();
                    let start = words.partition_point(|word| *word < range.start);
                    let words = words.get(start..).unwrap_or_default();
                    let bits = bits.get(start..).unwrap_or_default();
                    for (word, bits) in words.iter().zip(bits) {
                        if *word >= range.end {
                            break;
                        }
                        visit(*word, *bits);
                    }
                }
                Form::Dense => {
                    let first = node.word.max(range.start);
                    let bits = self.dense.get(node.stored()).unwrap_or_default();
                    let bits = bits
                        .get(usize::from(first - node.word)..)
                        .unwrap_or_default();
                    for (word, bits) in (first..range.end).zip(bits) {
                        visit(word, *bits);
                    }
                }
            }
        }
    }

    /// Returns the number of words of a range that a set and its ancestors store.
    pub(super) fn stored_words(&self, id: NodeId, range: &Range<u16>) -> usize {
        let stored = self.chain(id).map(|node| match node.form {
            Form::Single => usize::from(range.contains(&node.word)),
            Form::Sparse => {
                let words = self.sparse_words.get(node.stored()).unwrap_or_default();
                let below = |end| words.partition_point(|word| *word < end);
                below(range.end) - below(range.start)
            }
            Form::Dense => {
                let end = usize::from(node.word) + node.count();
                let end = end.min(usize::from(range.end));
                end.saturating_sub(usize::from(range.start.max(node.word)))
            }
        });
        stored.sum()
    }

    /// Returns the innermost common ancestor of two sets, which may be one of them.
    pub(super) fn common(&self, mut one: NodeId, mut other: NodeId) -> NodeId {
        // A set has a greater number than its parent.
        while one != other {
            if one < other {
                std::mem::swap(&mut one, &mut other);
            }
            one = self.node(one).map_or(NodeId::EMPTY, |node| node.parent);
        }
        one
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes)
            + size_of_val(&*self.sparse_words)
            + size_of_val(&*self.sparse_bits)
            + size_of_val(&*self.dense)
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// Returns a set and its ancestors, except the empty set.
    fn chain(&self, id: NodeId) -> impl Iterator<Item = &Node> {
        let mut at = id;
        std::iter::from_fn(move || {
            if at == NodeId::EMPTY {
                return None;
            }
            let node = self.node(at)?;
            at = node.parent;
            Some(node)
        })
    }

    fn own_word(&self, node: &Node, word: u16) -> u64 {
        let found = match node.form {
            Form::Single => (node.word == word).then_some(node.data),
            Form::Sparse => {
                let words = self.sparse_words.get(node.stored()).unwrap_or_default();
                let place = words.binary_search(&word).ok();
                place.and_then(|place| self.sparse_bits.get(node.stored().start + place).copied())
            }
            Form::Dense => {
                let place = word.checked_sub(node.word).map(usize::from);
                let place = place.filter(|place| *place < node.count());
                place.and_then(|place| self.dense.get(node.stored().start + place).copied())
            }
        };
        found.unwrap_or_default()
    }
}

/// Collects sets. The words of equal sets are stored once.
#[derive(Debug)]
pub(super) struct RowBuilder {
    rows: Rows,
    known: HashMap<Box<[Chunk]>, Node>,
}

impl RowBuilder {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows {
                nodes: vec![Node::EMPTY],
                sparse_words: Vec::new(),
                sparse_bits: Vec::new(),
                dense: Vec::new(),
            },
            known: HashMap::new(),
        }
    }

    /// Adds a set of rules below `parent` and returns its number, which is above that of `parent`.
    /// Sorts the positions.
    pub(super) fn add(&mut self, positions: &mut [u16], parent: NodeId) -> NodeId {
        positions.sort_unstable();
        let chunks: Vec<Chunk> = positions
            .chunk_by(|one, other| one / 64 == other / 64)
            .map(|chunk| {
                let word = chunk.first().map_or(0, |position| position / 64);
                (
                    word,
                    chunk
                        .iter()
                        .fold(0, |bits, position| bits | 1 << (position % 64)),
                )
            })
            .collect();
        let stored = match chunks.as_slice() {
            [] => return parent,
            [(word, bits)] => Node {
                data: *bits,
                word: *word,
                ..Node::EMPTY
            },
            _ => self.store(chunks),
        };
        let id = NodeId(u32::try_from(self.rows.nodes.len()).unwrap_or(u32::MAX));
        self.rows.nodes.push(Node { parent, ..stored });
        id
    }

    fn store(&mut self, chunks: Vec<Chunk>) -> Node {
        if let Some(node) = self.known.get(chunks.as_slice()) {
            return *node;
        }
        let (first, last) = match chunks.as_slice() {
            [(first, _), .., (last, _)] => (*first, *last),
            _ => (0, 0),
        };
        let span = usize::from(last - first) + 1;
        let rows = &mut self.rows;
        let (form, start, count) = if span <= 2 * chunks.len() {
            let start = rows.dense.len();
            rows.dense.resize(start + span, 0);
            for (word, bits) in &chunks {
                if let Some(stored) = rows.dense.get_mut(start + usize::from(word - first)) {
                    *stored = *bits;
                }
            }
            (Form::Dense, start, span)
        } else {
            let start = rows.sparse_words.len();
            rows.sparse_words
                .extend(chunks.iter().map(|(word, _)| *word));
            rows.sparse_bits
                .extend(chunks.iter().map(|(_, bits)| *bits));
            (Form::Sparse, start, chunks.len())
        };
        let node = Node {
            data: (start as u64) << 32 | count as u64,
            word: first,
            form,
            ..Node::EMPTY
        };
        self.known.insert(chunks.into(), node);
        node
    }

    pub(super) fn finish(self) -> Rows {
        let mut rows = self.rows;
        rows.nodes.shrink_to_fit();
        rows.sparse_words.shrink_to_fit();
        rows.sparse_bits.shrink_to_fit();
        rows.dense.shrink_to_fit();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rows: &Rows, id: NodeId, range: Range<u16>) -> Vec<Chunk> {
        let mut found = Vec::new();
        rows.each_word(id, &range, |word, bits| found.push((word, bits)));
        found
    }

    #[test]
    fn a_set_has_its_own_rules_and_those_above_in_every_form() {
        let mut builder = RowBuilder::new();
        let dense = builder.add(&mut [64, 130, 65, 192], NodeId::EMPTY);
        let sparse = builder.add(&mut [640, 0, 6_400], dense);
        let single = builder.add(&mut [131], sparse);
        let none = builder.add(&mut [], single);
        assert_eq!(none, single, "a set without rules is the one above");
        let rows = builder.finish();
        assert_eq!(rows.nodes.len(), 4);
        let at = |word| rows.word(single, word);
        assert_eq!([at(0), at(1), at(2), at(3)], [1, 3, 0b1100, 1]);
        assert_eq!([at(10), at(100), at(4), at(101)], [1, 1, 0, 0]);
        assert_eq!(rows.word(dense, 2), 0b100);
        assert_eq!(rows.word(NodeId::EMPTY, 0), 0);
        let expected = [(2, 0b1000), (10, 1), (2, 0b100), (3, 1)];
        assert_eq!(words(&rows, single, 2..100), expected);
        assert_eq!(rows.stored_words(single, &(0..1_024)), 1 + 3 + 3);
        assert_eq!(rows.stored_words(single, &(2..100)), 1 + 1 + 2);
        assert_eq!(rows.stored_words(single, &(4..10)), 0);
    }

    #[test]
    fn equal_sets_are_stored_once() {
        let mut builder = RowBuilder::new();
        let one = builder.add(&mut [1, 1_000], NodeId::EMPTY);
        let bytes =
            |builder: &RowBuilder| (builder.rows.sparse_bits.len(), builder.rows.dense.len());
        let before = bytes(&builder);
        let other = builder.add(&mut [1_000, 1], one);
        assert_ne!(one, other);
        assert_eq!(bytes(&builder), before);
        assert_eq!(builder.rows.common(one, other), one);
    }

    #[test]
    fn a_node_takes_16_bytes() {
        assert_eq!(size_of::<Node>(), 16);
    }
}
