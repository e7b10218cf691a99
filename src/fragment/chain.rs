//! Doubly linked lists of numbered items, in memory that is reserved once.

use crate::reserve::{NoMemory, Purpose};

/// No item.
pub(super) const NIL: u32 = u32::MAX;

/// The ends of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        first: NIL,
        last: NIL,
    };

    pub(super) const fn is_empty(self) -> bool {
        self.first == NIL
    }
}

#[derive(Debug, Clone, Copy)]
struct Links {
    previous: u32,
    next: u32,
}

/// The links of items that are each in at most one of any number of lists.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<Links>,
}

impl Chain {
    /// Returns the bytes of the links of `capacity` items.
    pub(super) const fn bytes(capacity: usize) -> usize {
        capacity * size_of::<Links>()
    }

    pub(super) fn new(capacity: usize) -> Result<Self, NoMemory> {
        Ok(Self {
            links: Purpose::Fragments.room(capacity)?,
        })
    }

    fn link(&mut self, item: u32) -> Option<&mut Links> {
        self.links.get_mut(item as usize)
    }

    /// Returns the item after another one.
    pub(super) fn next(&self, item: u32) -> Option<u32> {
        let links = self.links.get(item as usize)?;
        (links.next != NIL).then_some(links.next)
    }

    /// Appends an item that is in no list.
    pub(super) fn push(&mut self, list: &mut List, item: u32) {
        let links = Links {
            previous: list.last,
            next: NIL,
        };
        while self.links.len() <= item as usize {
            self.links.push(links);
        }
        if let Some(place) = self.link(item) {
            *place = links;
        }
        match self.link(list.last) {
            Some(last) => last.next = item,
            None => list.first = item,
        }
        list.last = item;
    }

    /// Removes an item of this list.
    pub(super) fn remove(&mut self, list: &mut List, item: u32) {
        let Some(&mut Links { previous, next }) = self.link(item) else {
            return;
        };
        match self.link(previous) {
            Some(before) => before.next = next,
            None => list.first = next,
        }
        match self.link(next) {
            Some(after) => after.previous = previous,
            None => list.last = previous,
        }
    }

    /// Returns the items of a list in their order.
    pub(super) fn iter(&self, list: List) -> impl Iterator<Item = u32> + '_ {
        let first = (!list.is_empty()).then_some(list.first);
        std::iter::successors(first, |item| self.next(*item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(chain: &Chain, list: List) -> Vec<u32> {
        chain.iter(list).collect()
    }

    #[test]
    fn items_keep_their_order_and_leave_from_anywhere() {
        let mut chain = Chain::new(4).unwrap();
        let (mut one, mut other) = (List::EMPTY, List::EMPTY);
        for item in [3, 0, 2] {
            chain.push(&mut one, item);
        }
        chain.push(&mut other, 1);
        assert_eq!(items(&chain, one), [3, 0, 2]);
        chain.remove(&mut one, 0);
        assert_eq!(items(&chain, one), [3, 2]);
        chain.remove(&mut one, 3);
        chain.push(&mut other, 3);
        assert_eq!(
            (items(&chain, one), items(&chain, other)),
            (vec![2], vec![1, 3])
        );
        chain.remove(&mut one, 2);
        assert!(one.is_empty());
        chain.push(&mut one, 0);
        assert_eq!(items(&chain, one), [0]);
    }
}
