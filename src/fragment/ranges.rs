//! Bytes of a datagram that have passed.

use super::MAX_RANGES;

/// Bytes `start..end` of a datagram's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Range {
    pub(super) start: u16,
    pub(super) end: u16,
}

/// Ranges that neither overlap nor touch, in no order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ranges {
    ranges: [Range; MAX_RANGES],
    len: u8,
}

/// Result of [`Ranges::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// The bytes are new, and have been added.
    New,
    /// All of the bytes have passed before.
    Known,
    /// Some of the bytes have passed before.
    Overlap,
    /// The bytes would exceed the maximum number of ranges.
    TooMany,
}

impl Ranges {
    fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().take(usize::from(self.len)).copied()
    }

    fn find(&mut self, is: impl Fn(&Range) -> bool) -> Option<(usize, &mut Range)> {
        self.ranges
            .iter_mut()
            .take(usize::from(self.len))
            .enumerate()
            .find(|(_, range)| is(range))
    }

    /// Returns the end of the last range, or 0 if there is none.
    pub(super) fn end(&self) -> u16 {
        self.iter().map(|range| range.end).max().unwrap_or(0)
    }

    /// Returns whether the ranges are exactly the bytes `0..end`.
    pub(super) fn are_all(&self, end: u16) -> bool {
        self.len == 1 && self.iter().next() == Some(Range { start: 0, end })
    }

    /// Adds bytes, at least one, unless some of them are present.
    pub(super) fn add(&mut self, new: Range) -> Added {
        if self
            .iter()
            .any(|known| known.start <= new.start && new.end <= known.end)
        {
            return Added::Known;
        }
        if self
            .iter()
            .any(|known| new.start < known.end && known.start < new.end)
        {
            return Added::Overlap;
        }
        if let Some((_, left)) = self.find(|known| known.end == new.start) {
            left.end = new.end;
            let whole = *left;
            if let Some((place, right)) = self.find(|known| known.start == new.end) {
                let end = right.end;
                self.remove(place);
                if let Some((_, left)) = self.find(|known| *known == whole) {
                    left.end = end;
                }
            }
            return Added::New;
        }
        if let Some((_, right)) = self.find(|known| known.start == new.end) {
            right.start = new.start;
            return Added::New;
        }
        let Some(place) = self.ranges.get_mut(usize::from(self.len)) else {
            return Added::TooMany;
        };
        *place = new;
        self.len += 1;
        Added::New
    }

    /// Removes a range; the last range takes its slot.
    fn remove(&mut self, place: usize) {
        let Some(last) = self.len.checked_sub(1) else {
            return;
        };
        let moved = self.ranges.get(usize::from(last)).copied();
        if let (Some(place), Some(moved)) = (self.ranges.get_mut(place), moved) {
            *place = moved;
            self.len = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u16, end: u16) -> Range {
        Range { start, end }
    }

    #[test]
    fn fragments_in_order_and_in_reverse_make_one_range() {
        let mut ranges = Ranges::default();
        for n in 0..100 {
            assert_eq!(ranges.add(range(n * 8, n * 8 + 8)), Added::New);
            assert_eq!(ranges.len, 1);
        }
        assert!(ranges.are_all(800) && !ranges.are_all(808));
        let mut ranges = Ranges::default();
        for n in (0..100).rev() {
            assert_eq!(ranges.add(range(n * 8, n * 8 + 8)), Added::New);
            assert_eq!(ranges.len, 1);
        }
        assert!(ranges.are_all(800));
    }

    #[test]
    fn what_passed_before_is_known_and_what_touches_it_is_an_overlap() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.add(range(16, 32)), Added::New);
        for (start, end) in [(16, 32), (16, 24), (24, 32), (20, 21)] {
            assert_eq!(
                ranges.add(range(start, end)),
                Added::Known,
                "{start}..{end}"
            );
        }
        for (start, end) in [(8, 17), (31, 40), (8, 40), (16, 33), (15, 32)] {
            assert_eq!(
                ranges.add(range(start, end)),
                Added::Overlap,
                "{start}..{end}"
            );
        }
        assert_eq!(ranges.add(range(8, 16)), Added::New);
        assert_eq!(ranges.add(range(32, 40)), Added::New);
        assert_eq!(ranges.end(), 40);
    }

    #[test]
    fn one_range_too_many_changes_nothing() {
        let mut ranges = Ranges::default();
        for n in 0..MAX_RANGES as u16 {
            assert_eq!(ranges.add(range(n * 16, n * 16 + 8)), Added::New);
        }
        assert_eq!(ranges.add(range(4_000, 4_008)), Added::TooMany);
        assert_eq!(ranges.end(), MAX_RANGES as u16 * 16 - 8);
        assert_eq!(ranges.add(range(8, 16)), Added::New, "it closes a gap");
        assert_eq!(ranges.add(range(4_000, 4_008)), Added::New);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set_of_bytes(parts in prop::collection::vec((0u16..60, 1u16..10), 0..40)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 80];
            for (start, len) in parts {
                let part = &mut bytes[usize::from(start)..usize::from(start + len)];
                let expected = match (part.iter().all(|b| *b), part.iter().any(|b| *b)) {
                    // Bytes of two adjacent fragments are one range.
                    (true, _) => Added::Known,
                    (false, true) => Added::Overlap,
                    (false, false) => Added::New,
                };
                let found = ranges.add(range(start, start + len));
                if found == Added::TooMany {
                    prop_assert_eq!(expected, Added::New);
                    continue;
                }
                prop_assert_eq!(found, expected);
                if found == Added::New {
                    part.fill(true);
                }
            }
            let end = bytes.iter().rposition(|b| *b).map_or(0, |last| last + 1);
            prop_assert_eq!(usize::from(ranges.end()), end);
            prop_assert_eq!(ranges.are_all(end as u16), end > 0 && bytes[..end].iter().all(|b| *b));
            let total: usize = ranges.iter().map(|r| usize::from(r.end - r.start)).sum();
            prop_assert_eq!(total, bytes.iter().filter(|b| **b).count());
        }
    }
}
