//! A reload that judges the sessions of a shard in slices, and the data that it needs in the
//! meantime.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::id::{SessionId, SlotId};
use super::time::Micros;

/// Slots that are visited under one hold of a shard's lock: about a microsecond, or some 10 if all
/// of its sessions end. A packet most often waits for one slice.
pub(crate) const SLICE: u32 = 16;

/// A reload whose settings are in force in a shard, some of whose sessions are not judged yet.
///
/// Every session is judged as of the time of the reload, either by the reload or by an earlier
/// packet of the session.
#[derive(Debug)]
pub(crate) struct Judging<S> {
    /// The previous settings of the sessions.
    pub(crate) previous: Arc<S>,
    /// The sessions that had live children before the reload.
    pub(crate) families: Arc<HashSet<SessionId>>,
    pub(crate) now: Micros,
    pub(crate) tally: Arc<Tally>,
}

/// The counts of a reload, including sessions that packets judge.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) judged: AtomicUsize,
    pub(crate) revoked: AtomicUsize,
    pub(crate) expired: AtomicUsize,
    pub(crate) kept: AtomicUsize,
    pub(crate) retimed: AtomicUsize,
}

impl Tally {
    /// Adds one to a count. Every count is written under the lock of a shard, and read when all
    /// sessions are judged.
    pub(crate) fn count(count: &AtomicUsize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The slots of a shard whose sessions are not judged yet: those of a range of numbers, except for
/// those that are marked.
#[derive(Debug, Default)]
pub(crate) struct Unjudged {
    slots: Range<u32>,
    /// One bit per slot, set for a session that is judged already or that needs no judgment.
    judged: Box<[u64]>,
}

impl Unjudged {
    /// Returns the bits for a shard of `capacity` slots, all of them clear.
    pub(crate) fn bits(capacity: usize) -> Box<[u64]> {
        vec![0; capacity.div_ceil(64)].into_boxed_slice()
    }

    /// Begins with all slots below `end` unjudged. Returns the previous bits.
    pub(crate) fn begin(&mut self, end: u32, bits: Box<[u64]>) -> Box<[u64]> {
        self.slots = 0..end;
        std::mem::replace(&mut self.judged, bits)
    }

    /// Takes the next slice of slots, each of which must still be tested with
    /// [`Unjudged::contains`]; returns `None` after the last.
    pub(crate) fn next_slice(&mut self) -> Option<Range<u32>> {
        let start = self.slots.start;
        let end = self.slots.end.min(start.saturating_add(SLICE));
        (start < end).then_some(start..end)
    }

    /// Ends a slice whose sessions are all judged.
    pub(crate) fn end_slice(&mut self, slice: &Range<u32>) {
        self.slots.start = self.slots.start.max(slice.end);
    }

    /// Returns whether the session in a slot is still to be judged.
    pub(crate) fn contains(&self, slot: SlotId) -> bool {
        let word = self
            .judged
            .get(slot.0 as usize / 64)
            .copied()
            .unwrap_or(u64::MAX);
        self.slots.contains(&slot.0) && word & (1 << (slot.0 % 64)) == 0
    }

    /// Notes that the session in a slot no longer needs to be judged.
    #[inline]
    pub(crate) fn set_judged(&mut self, slot: SlotId) {
        if self.slots.contains(&slot.0)
            && let Some(word) = self.judged.get_mut(slot.0 as usize / 64)
        {
            *word |= 1 << (slot.0 % 64);
        }
    }

    /// Removes all slots. Returns the bits, so that the caller can free them without a lock.
    pub(crate) fn end(&mut self) -> Box<[u64]> {
        self.begin(0, Box::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_judged_once_by_the_slices_or_before_them() {
        let mut unjudged = Unjudged::default();
        assert!(!unjudged.contains(SlotId(0)));
        unjudged.begin(130, Unjudged::bits(200));
        unjudged.set_judged(SlotId(3));
        unjudged.set_judged(SlotId(129));
        unjudged.set_judged(SlotId(150));
        let mut seen = Vec::new();
        while let Some(slice) = unjudged.next_slice() {
            assert!(slice.len() <= SLICE as usize);
            for slot in slice.clone() {
                if unjudged.contains(SlotId(slot)) {
                    unjudged.set_judged(SlotId(slot));
                    seen.push(slot);
                }
            }
            unjudged.end_slice(&slice);
        }
        let expected: Vec<u32> = (0..130).filter(|slot| ![3, 129].contains(slot)).collect();
        assert_eq!(seen, expected);
        assert!(!unjudged.contains(SlotId(10)));
        unjudged.end();
        assert_eq!(unjudged.next_slice(), None);
    }
}
