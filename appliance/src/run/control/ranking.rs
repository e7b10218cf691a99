//! The first of many things in an order, in bounded memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Position in an order: things with a greater value come first, and among equal ones those with
/// more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) value: u64,
    pub(super) bytes: u64,
}

struct Ranked<T> {
    rank: Rank,
    thing: T,
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    /// In a heap, the last one in the order is on top.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank.cmp(&self.rank)
    }
}

/// The first things of an order.
pub(super) struct First<T> {
    limit: usize,
    heap: BinaryHeap<Ranked<T>>,
}

impl<T> First<T> {
    /// Keeps at most `limit` things.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            heap: BinaryHeap::new(),
        }
    }

    /// Adds a thing, and drops the last one beyond the limit.
    pub(super) fn push(&mut self, rank: Rank, thing: T) {
        if self.heap.len() < self.limit {
            self.heap.push(Ranked { rank, thing });
        } else if let Some(mut last) = self.heap.peek_mut()
            && last.rank < rank
        {
            *last = Ranked { rank, thing };
        }
    }

    /// Returns the things in their order.
    pub(super) fn into_order(self) -> impl Iterator<Item = T> {
        let ranked = self.heap.into_sorted_vec().into_iter();
        ranked.map(|ranked| ranked.thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_are_kept_in_order() {
        let mut first = First::new(3);
        for (value, bytes) in [(2, 0), (9, 1), (1, 7), (9, 4), (3, 0)] {
            first.push(Rank { value, bytes }, (value, bytes));
        }
        let order: Vec<_> = first.into_order().collect();
        assert_eq!(order, [(9, 4), (9, 1), (3, 0)]);
        let mut none = First::new(0);
        none.push(Rank { value: 1, bytes: 1 }, ());
        assert_eq!(none.into_order().count(), 0);
    }
}
