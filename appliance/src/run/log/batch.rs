//! Items that wait for the output: lines or records.

use std::io;

use super::counters::LogCounters;

/// Complete items, one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// End of each item.
    ends: Vec<usize>,
}

impl Batch {
    /// Adds an item; `end` follows it.
    pub(super) fn put(&mut self, item: &[u8], end: &[u8]) {
        self.bytes.extend_from_slice(item);
        self.bytes.extend_from_slice(end);
        self.ends.push(self.bytes.len());
    }

    /// Returns the number of items.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns all items in one piece.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the items, each with its end.
    pub(super) fn items(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges.map(|(start, end)| self.bytes.get(*start..*end).unwrap_or_default())
    }

    /// Removes the first `count` items.
    pub(super) fn remove_first(&mut self, count: usize) {
        let count = count.min(self.ends.len());
        let taken = match count.checked_sub(1) {
            Some(last) => self.ends.get(last).copied().unwrap_or_default(),
            None => return,
        };
        self.bytes.drain(..taken);
        self.ends.drain(..count);
        for end in &mut self.ends {
            *end -= taken;
        }
    }

    /// Removes all items.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Result of writing a batch.
#[derive(Debug)]
#[must_use]
pub(super) struct Written {
    /// The number of items that are done with, from the first on: they are counted, or a part of
    /// the last one was written. The others are neither written nor counted.
    pub(super) items: usize,
    /// An error if items are left or were dropped, or if items of an earlier batch were.
    pub(super) result: io::Result<()>,
}

impl Written {
    /// Returns the result for a batch of which no item was written.
    pub(super) const fn nothing(error: io::Error) -> Self {
        Self {
            items: 0,
            result: Err(error),
        }
    }

    /// Counts the items that are left of `len` as dropped, and returns the result.
    ///
    /// # Errors
    /// Returns an error if items were dropped.
    pub(super) fn drop_rest(self, len: usize, counters: &LogCounters) -> io::Result<()> {
        counters.add_dropped(len.saturating_sub(self.items) as u64);
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_items_are_removed_and_the_others_stay_whole() {
        let mut batch = Batch::default();
        for item in [&b"one"[..], b"two", b"three"] {
            batch.put(item, b"\n");
        }
        batch.remove_first(0);
        batch.remove_first(2);
        assert_eq!(batch.items().collect::<Vec<_>>(), [b"three\n"]);
        batch.put(b"four", b"\n");
        assert_eq!(batch.bytes(), b"three\nfour\n");
        batch.remove_first(9);
        assert_eq!((batch.len(), batch.bytes()), (0, &b""[..]));
    }
}
