//! Numbered items, ranked by the amount that each has; the first is found in constant time.
//!
//! Items with equal amounts share a bucket, and the buckets form a list sorted by amount. Amounts
//! change by one, so an item moves to the neighboring bucket or to a new one between the two. Every
//! operation takes constant time, and the order is exact.

use super::chain::{Chain, List, NIL};
use crate::reserve::{NoMemory, Purpose};

#[derive(Debug, Clone, Copy)]
struct Bucket {
    amount: u32,
    /// Items, in the order in which they reached the amount.
    items: List,
    lower: u32,
    higher: u32,
}

/// The buckets of one ranking.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranking {
    lowest: u32,
    highest: u32,
}

impl Ranking {
    pub(super) const EMPTY: Self = Self {
        lowest: NIL,
        highest: NIL,
    };
}

/// Rankings whose items share one numbering.
#[derive(Debug)]
pub(super) struct Ranks {
    buckets: Vec<Bucket>,
    free: u32,
    chain: Chain,
    /// The bucket of each item.
    bucket_of: Vec<u32>,
}

impl Ranks {
    /// Returns the bytes of rankings of `capacity` items.
    pub(super) const fn bytes(capacity: usize) -> usize {
        capacity * (size_of::<Bucket>() + size_of::<u32>()) + Chain::bytes(capacity)
    }

    /// Creates rankings of at most `capacity` items in all.
    pub(super) fn new(capacity: usize) -> Result<Self, NoMemory> {
        Ok(Self {
            // An item that moves is briefly in neither of the two buckets.
            buckets: Purpose::Fragments.room(capacity + 1)?,
            free: NIL,
            chain: Chain::new(capacity)?,
            bucket_of: Purpose::Fragments.room(capacity)?,
        })
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize)
    }

    /// Returns the bucket with an amount: one of two neighbors, or a new bucket between them.
    fn bucket_between(
        &mut self,
        ranking: &mut Ranking,
        amount: u32,
        lower: u32,
        higher: u32,
    ) -> u32 {
        for neighbor in [lower, higher] {
            if self
                .bucket(neighbor)
                .is_some_and(|bucket| bucket.amount == amount)
            {
                return neighbor;
            }
        }
        let bucket = Bucket {
            amount,
            items: List::EMPTY,
            lower,
            higher,
        };
        let number = match self.buckets.get_mut(self.free as usize) {
            Some(free) => {
                let number = self.free;
                self.free = free.higher;
                *free = bucket;
                number
            }
            None => {
                self.buckets.push(bucket);
                (self.buckets.len() - 1) as u32
            }
        };
        match self.buckets.get_mut(lower as usize) {
            Some(bucket) => bucket.higher = number,
            None => ranking.lowest = number,
        }
        match self.buckets.get_mut(higher as usize) {
            Some(bucket) => bucket.lower = number,
            None => ranking.highest = number,
        }
        number
    }

    fn put(&mut self, item: u32, number: u32) {
        while self.bucket_of.len() <= item as usize {
            self.bucket_of.push(NIL);
        }
        if let Some(place) = self.bucket_of.get_mut(item as usize) {
            *place = number;
        }
        if let Some(bucket) = self.buckets.get_mut(number as usize) {
            self.chain.push(&mut bucket.items, item);
        }
    }

    /// Removes an item from its bucket, and removes the bucket if it is then empty.
    fn take(&mut self, ranking: &mut Ranking, item: u32, number: u32) {
        let Some(bucket) = self.buckets.get_mut(number as usize) else {
            return;
        };
        self.chain.remove(&mut bucket.items, item);
        if !bucket.items.is_empty() {
            return;
        }
        let (lower, higher) = (bucket.lower, bucket.higher);
        bucket.higher = self.free;
        self.free = number;
        match self.buckets.get_mut(lower as usize) {
            Some(bucket) => bucket.higher = higher,
            None => ranking.lowest = higher,
        }
        match self.buckets.get_mut(higher as usize) {
            Some(bucket) => bucket.lower = lower,
            None => ranking.highest = lower,
        }
    }

    /// Adds an item with the amount one.
    pub(super) fn insert(&mut self, ranking: &mut Ranking, item: u32) {
        let number = self.bucket_between(ranking, 1, NIL, ranking.lowest);
        self.put(item, number);
    }

    /// Increments an item's amount.
    pub(super) fn raise(&mut self, ranking: &mut Ranking, item: u32) {
        let number = self.number_of(item);
        let Some(&Bucket { amount, higher, .. }) = self.bucket(number) else {
            return;
        };
        let next = self.bucket_between(ranking, amount + 1, number, higher);
        self.take(ranking, item, number);
        self.put(item, next);
    }

    /// Decrements an item's amount. Returns whether any is left; if not, the item is removed.
    pub(super) fn lower(&mut self, ranking: &mut Ranking, item: u32) -> bool {
        let number = self.number_of(item);
        let Some(&Bucket { amount, lower, .. }) = self.bucket(number) else {
            return false;
        };
        if amount <= 1 {
            self.take(ranking, item, number);
            if let Some(place) = self.bucket_of.get_mut(item as usize) {
                *place = NIL;
            }
            return false;
        }
        let next = self.bucket_between(ranking, amount - 1, lower, number);
        self.take(ranking, item, number);
        self.put(item, next);
        true
    }

    fn number_of(&self, item: u32) -> u32 {
        self.bucket_of.get(item as usize).copied().unwrap_or(NIL)
    }

    /// Returns the amount of an item in a ranking.
    pub(super) fn amount(&self, item: u32) -> u32 {
        self.bucket(self.number_of(item))
            .map_or(0, |bucket| bucket.amount)
    }

    /// Returns the item with the greatest amount; of several, the one that reached it first.
    pub(super) fn most(&self, ranking: &Ranking) -> Option<u32> {
        let bucket = self.bucket(ranking.highest)?;
        Some(bucket.items.first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_items_with_equally_much_the_first_to_get_there_comes_first() {
        let (mut ranks, mut ranking) = (Ranks::new(4).unwrap(), Ranking::EMPTY);
        for item in [2, 0, 1] {
            ranks.insert(&mut ranking, item);
        }
        assert_eq!(ranks.most(&ranking), Some(2));
        ranks.raise(&mut ranking, 1);
        ranks.raise(&mut ranking, 0);
        assert_eq!(ranks.most(&ranking), Some(1));
        assert!(ranks.lower(&mut ranking, 1));
        assert_eq!(ranks.most(&ranking), Some(0));
    }

    proptest! {
        #[test]
        fn the_item_with_most_is_known_exactly(
            steps in prop::collection::vec((0u32..12, any::<bool>()), 0..400)
        ) {
            let mut ranks = Ranks::new(12).unwrap();
            let mut rankings = [Ranking::EMPTY; 2];
            let mut amounts = [0u32; 12];
            for (item, more) in steps {
                let ranking = &mut rankings[item as usize % 2];
                let amount = &mut amounts[item as usize];
                match (*amount, more) {
                    (0, true) => ranks.insert(ranking, item),
                    (_, true) => ranks.raise(ranking, item),
                    (0, false) => continue,
                    (_, false) => prop_assert_eq!(ranks.lower(ranking, item), *amount > 1),
                }
                *amount = if more { *amount + 1 } else { *amount - 1 };
                for (parity, ranking) in rankings.iter().enumerate() {
                    let most = amounts.iter().skip(parity).step_by(2).max().copied();
                    match ranks.most(ranking) {
                        Some(item) => {
                            prop_assert_eq!(Some(amounts[item as usize]), most);
                            prop_assert_eq!(Some(ranks.amount(item)), most);
                        }
                        None => prop_assert_eq!(most, Some(0)),
                    }
                }
                prop_assert!(ranks.buckets.len() <= 13, "buckets are used again");
            }
        }
    }
}
