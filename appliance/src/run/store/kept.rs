//! Changes that no sweep repeats, kept while the store cannot be reached.

use std::collections::VecDeque;
use std::time::Instant;

use super::change::{Change, time_left};

/// Most changes that are kept: some 4 MB.
pub(super) const MAX_KEPT: usize = 16_384;

/// Changes in the order in which they were handed over.
///
/// Some may have been carried out before the connection broke. A deletion that is repeated can
/// delete the record of a later connection of its flow and owner; the sweep that follows each
/// outage writes that record again.
pub(super) struct Kept<T>(VecDeque<Change<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Kept<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a change. Returns false if there is no room.
    pub(super) fn add(&mut self, change: Change<T>) -> bool {
        let has_room = self.0.len() < MAX_KEPT;
        if has_room {
            self.0.push_back(change);
        }
        has_room
    }

    /// Removes announcements whose time is over, and returns their number.
    pub(super) fn forget_over(&mut self, now: Instant) -> u64 {
        let before = self.0.len();
        self.0.retain(|change| match change {
            Change::Announce { ttl, since, .. } => !time_left(*ttl, *since, now).is_zero(),
            _ => true,
        });
        before.saturating_sub(self.0.len()) as u64
    }

    /// Moves up to `most` changes to a batch.
    pub(super) fn take(&mut self, most: usize, batch: &mut Vec<Change<T>>) {
        let most = most.min(self.0.len());
        batch.extend(self.0.drain(..most));
    }

    /// Puts a batch that was taken back to its place.
    pub(super) fn put_back(&mut self, batch: &mut Vec<Change<T>>) {
        for change in batch.drain(..).rev() {
            self.0.push_front(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn withdraw(name: u32) -> Change<u32> {
        Change::Withdraw {
            key: name.to_be_bytes().to_vec(),
        }
    }

    #[test]
    fn an_announcement_is_kept_while_its_time_lasts() {
        let mut kept = Kept::default();
        let since = Instant::now();
        for seconds in [1, 3] {
            let added = kept.add(Change::Announce {
                key: vec![seconds],
                value: Vec::new(),
                ttl: Duration::from_secs(seconds.into()),
                since,
            });
            assert!(added);
        }
        assert!(kept.add(withdraw(7)));
        assert_eq!(kept.forget_over(since), 0);
        assert_eq!(kept.forget_over(since + Duration::from_secs(1)), 1);
        let mut batch = Vec::new();
        kept.take(MAX_KEPT, &mut batch);
        let [Change::Announce { key, .. }, Change::Withdraw { .. }] = batch.as_slice() else {
            panic!("{batch:?}");
        };
        assert_eq!(key, &[3]);
        let later = since + Duration::from_secs(2);
        let left = time_left(Duration::from_secs(3), since, later);
        assert_eq!(left, Duration::from_secs(1));
    }

    #[test]
    fn changes_keep_their_order_and_have_a_bound() {
        let mut kept = Kept::default();
        let most = u32::try_from(MAX_KEPT).unwrap();
        assert!((0..most).all(|name| kept.add(withdraw(name))));
        assert!(!kept.add(withdraw(most)));
        let mut batch = Vec::new();
        kept.take(3, &mut batch);
        kept.put_back(&mut batch);
        kept.take(MAX_KEPT + 1, &mut batch);
        let names = batch.iter().map(|change| match change {
            Change::Withdraw { key } => key.clone(),
            _ => Vec::new(),
        });
        assert!(names.eq((0..most).map(|name| name.to_be_bytes().to_vec())));
        assert!(kept.is_empty());
    }
}
