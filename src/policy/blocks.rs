//! Blocks of values that nest, such as prefixes, and the innermost block that holds a value.
use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;

use super::field::PortRange;
use super::rows::NodeId;

/// A value that blocks are made of.
pub(super) trait Value: Copy + Ord {
    /// The least value.
    const LEAST: Self;

    /// Returns the next value, or `None` after the greatest.
    fn next(self) -> Option<Self>;
}

macro_rules! value {
    ($($integer:ty)*) => {
        $(impl Value for $integer {
            const LEAST: Self = 0;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}

value!(u16 u32 u128);

/// The values from `first` to `last`. Two blocks are disjoint, or one holds the other: the number
/// of values is a power of two, and the first value is a multiple of it.
///
/// A block is ordered before all blocks that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<T> {
    pub(super) first: T,
    pub(super) last: T,
}

impl<T: Value> Block<T> {
    pub(super) fn single(value: T) -> Self {
        Self {
            first: value,
            last: value,
        }
    }

    pub(super) fn holds(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl<T: Value> Ord for Block<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.first
            .cmp(&other.first)
            .then(other.last.cmp(&self.last))
    }
}

impl<T: Value> PartialOrd for Block<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A prefix as a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    V4(Block<u32>),
    V6(Block<u128>),
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(Block {
                first: net.network().into(),
                last: net.broadcast().into(),
            }),
            IpNet::V6(net) => Self::V6(Block {
                first: net.network().into(),
                last: net.broadcast().into(),
            }),
        }
    }
}

/// Splits prefixes by IP version, leaving out prefixes that another one holds.
pub(super) fn outermost(nets: &[IpNet]) -> (Vec<Block<u32>>, Vec<Block<u128>>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for net in nets {
        match Prefix::from(*net) {
            Prefix::V4(block) => v4.push(block),
            Prefix::V6(block) => v6.push(block),
        }
    }
    keep_outermost(&mut v4);
    keep_outermost(&mut v6);
    (v4, v6)
}

pub(super) fn keep_outermost<T: Value>(blocks: &mut Vec<Block<T>>) {
    blocks.sort_unstable();
    // A block inside another one follows it, and every block between the two is inside it too.
    blocks.dedup_by(|inner, outer| outer.holds(inner));
}

/// Returns whether each of the inner prefixes is in one of the outer ones. Takes the time to sort
/// the outer prefixes.
pub(super) fn hold_all(outer: &[IpNet], inner: &[IpNet]) -> bool {
    fn held<T: Value>(outer: &[Block<T>], inner: &Block<T>) -> bool {
        let after = outer.partition_point(|block| block.first <= inner.first);
        let before = after.checked_sub(1).and_then(|place| outer.get(place));
        before.is_some_and(|block| block.holds(inner))
    }
    let (v4, v6) = outermost(outer);
    inner.iter().all(|net| match Prefix::from(*net) {
        Prefix::V4(block) => held(&v4, &block),
        Prefix::V6(block) => held(&v6, &block),
    })
}

/// Returns the smallest list of blocks that make up a range: at most 30.
pub(super) fn blocks_of(range: PortRange) -> impl Iterator<Item = Block<u16>> {
    let (mut at, end) = (u32::from(range.first), u32::from(range.last) + 1);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let aligned = if at == 0 {
            1 << 16
        } else {
            at & at.wrapping_neg()
        };
        let size = aligned.min(1 << (end - at).ilog2());
        let block = Block {
            first: at as u16,
            last: (at + size - 1) as u16,
        };
        at += size;
        Some(block)
    })
}

/// The innermost block that holds each value, as a node of the rows.
#[derive(Debug)]
pub(super) struct Nested<T> {
    /// The least value of each run of values in the same block, ascending, beginning with the
    /// least.
    starts: Box<[T]>,
    nodes: Box<[NodeId]>,
    /// Every [`WINDOW`]th start, so that a search misses the cache in one window only.
    tops: Box<[T]>,
}

/// Number of starts in a window: four cache lines of IPv4 addresses.
const WINDOW: usize = 64;

impl<T: Value> Nested<T> {
    /// Maps blocks, which must be ordered and distinct, to nodes. `outside` is the node of values
    /// that no block holds; `node` makes the node of a block from that of the enclosing block.
    pub(super) fn new<I>(
        blocks: impl Iterator<Item = (Block<T>, I)>,
        outside: NodeId,
        mut node: impl FnMut(I, NodeId) -> NodeId,
    ) -> Self {
        let mut runs = Runs(vec![(T::LEAST, outside)]);
        let mut around: Vec<(Block<T>, NodeId)> = Vec::new();
        let leave = |around: &mut Vec<(Block<T>, NodeId)>, runs: &mut Runs<T>| {
            let Some((left, _)) = around.pop() else {
                return;
            };
            if let Some(start) = left.last.next() {
                runs.begin(start, around.last().map_or(outside, |(_, node)| *node));
            }
        };
        for (block, content) in blocks {
            while around
                .last()
                .is_some_and(|(outer, _)| outer.last < block.first)
            {
                leave(&mut around, &mut runs);
            }
            let own = node(content, around.last().map_or(outside, |(_, node)| *node));
            runs.begin(block.first, own);
            around.push((block, own));
        }
        while !around.is_empty() {
            leave(&mut around, &mut runs);
        }
        let (starts, nodes): (Vec<_>, Vec<_>) = runs.0.into_iter().unzip();
        Self {
            tops: starts.iter().copied().step_by(WINDOW).collect(),
            starts: starts.into(),
            nodes: nodes.into(),
        }
    }

    /// Returns the node of the innermost block that holds a value.
    pub(super) fn node(&self, value: T) -> NodeId {
        let top = self.tops.partition_point(|start| *start <= value);
        let first = top.saturating_sub(1) * WINDOW;
        let end = self.starts.len().min(first + WINDOW);
        let window = self.starts.get(first..end).unwrap_or_default();
        let after = first + window.partition_point(|start| *start <= value);
        let found = after.checked_sub(1).and_then(|place| self.nodes.get(place));
        found.copied().unwrap_or_default()
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.nodes) + size_of_val(&*self.tops)
    }
}

/// Runs of values in the same block, by their least value.
struct Runs<T>(Vec<(T, NodeId)>);

impl<T: Value> Runs<T> {
    fn begin(&mut self, start: T, node: NodeId) {
        match self.0.last_mut() {
            Some((last, before)) if *last == start => *before = node,
            Some((_, before)) if *before == node => {}
            _ => self.0.push((start, node)),
        }
    }
}

/// A value of any field, as [`Nested`] maps hold it.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldValue {
    /// The session has no value in the field.
    None,
    /// A zone, a protocol, a port or a direction.
    Narrow(u16),
    /// An IPv4 address, or the type and code of an ICMP message.
    Wide(u32),
    /// An IPv6 address.
    Widest(u128),
}

impl From<IpAddr> for FieldValue {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Wide(address.into()),
            IpAddr::V6(address) => Self::Widest(address.into()),
        }
    }
}

impl From<Option<u16>> for FieldValue {
    fn from(value: Option<u16>) -> Self {
        value.map_or(Self::None, Self::Narrow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_at_most_30_blocks_that_make_it_up() {
        let most = |first, last| blocks_of(PortRange { first, last }).count();
        assert_eq!((most(1, 65_534), most(0, 65_535), most(7, 7)), (30, 1, 1));
        for (first, last) in [
            (1, 65_534),
            (1_024, 65_535),
            (0, 0),
            (8_000, 8_999),
            (65_535, 65_535),
        ] {
            let mut next = u32::from(first);
            for block in blocks_of(PortRange { first, last }) {
                assert_eq!(u32::from(block.first), next);
                next = u32::from(block.last) + 1;
            }
            assert_eq!(next, u32::from(last) + 1);
        }
        assert_eq!(most(9, 8), 0, "a reversed range holds no port");
    }

    #[test]
    fn a_value_is_in_the_innermost_block() {
        let blocks = [(0, 15), (0, 3), (3, 3), (8, 15), (12, 15), (65_534, 65_535)];
        let outside = NodeId(100);
        let blocks = blocks.map(|(first, last)| Block { first, last });
        let mut number = 0;
        let nested: Nested<u16> = Nested::new(
            blocks.into_iter().map(|block| (block, ())),
            outside,
            |(), _| {
                number += 1;
                NodeId(number)
            },
        );
        for value in (0..40).chain(65_500..=u16::MAX) {
            let inner = (1..)
                .zip(&blocks)
                .filter(|(_, block)| block.holds(&Block::single(value)));
            let expected = inner
                .map(|(node, _)| NodeId(node))
                .last()
                .unwrap_or(outside);
            assert_eq!(nested.node(value), expected, "{value}");
        }
    }

    #[test]
    fn a_search_through_many_windows_finds_every_block() {
        let blocks = (0..1_000_u32).map(|number| (Block::single(number * 3), number));
        let nested: Nested<u32> =
            Nested::new(blocks, NodeId::EMPTY, |number, _| NodeId(number + 1));
        for value in 0..3_100 {
            let is_block = value % 3 == 0 && value < 3_000;
            let expected = if is_block {
                NodeId(value / 3 + 1)
            } else {
                NodeId::EMPTY
            };
            assert_eq!(nested.node(value), expected, "{value}");
        }
        assert_eq!(nested.node(u32::MAX), NodeId::EMPTY);
    }

    #[test]
    fn prefixes_hold_others_of_their_version() {
        let nets = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        let outer = nets(&["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/32", "::/0"]);
        let held = [
            "10.0.0.0/8",
            "10.255.255.255/32",
            "10.2.0.0/16",
            "::/128",
            "::/0",
        ];
        assert!(hold_all(&outer, &nets(&held)));
        for other in ["0.0.0.0/0", "9.255.255.255/32", "11.0.0.0/8", "0.0.0.1/32"] {
            assert!(!hold_all(&outer, &nets(&[other])), "{other}");
        }
    }
}
