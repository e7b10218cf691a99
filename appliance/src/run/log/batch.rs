//! Items that wait for the output: lines or records.

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

    /// Removes all items.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}
