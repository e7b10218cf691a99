//! Bounded notes about flows: a direct-mapped table in which a newer flow may displace an older
//! one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reserve::{NoMemory, Purpose};
use crate::session::KeyPlace;

/// Numbers noted for some flows, each under the hash of its key. Two flows may share a hash, so a
/// note is a hint. Reads and writes touch one cache line and take no lock.
#[derive(Debug)]
pub(super) struct Memo {
    /// The hash in the upper half, the number plus one in the lower; 0 for a free slot.
    places: Box<[AtomicU64]>,
}

/// Content of the slot of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// The place is free.
    Nothing,
    /// The number that was noted for the flow itself.
    Own(u32),
    /// The number that was noted for another flow, which may have displaced this one.
    Other(u32),
}

impl Memo {
    const fn places(places: usize) -> usize {
        if places < 1 {
            1
        } else {
            places.next_power_of_two()
        }
    }

    /// Returns the bytes of a memo with at least this many slots.
    pub(super) const fn bytes(places: usize) -> usize {
        Self::places(places) * size_of::<AtomicU64>()
    }

    /// Returns a memo with at least this many slots, rounded up to a power of two.
    pub(super) fn new(places: usize) -> Result<Self, NoMemory> {
        let places = Self::places(places);
        Ok(Self {
            places: Purpose::Hints.zeros(places)?,
        })
    }

    /// Returns a memo for the flows of a table of `max_sessions` sessions: an eighth of them, and
    /// 512 KiB at most.
    pub(super) fn beside(max_sessions: usize) -> Result<Self, NoMemory> {
        Self::new(Self::places_beside(max_sessions))
    }

    /// Returns the bytes of [`Memo::beside`].
    pub(super) fn bytes_beside(max_sessions: usize) -> usize {
        Self::bytes(Self::places_beside(max_sessions))
    }

    fn places_beside(max_sessions: usize) -> usize {
        (max_sessions / 8).clamp(1 << 10, 1 << 16)
    }

    fn place(&self, place: KeyPlace) -> Option<&AtomicU64> {
        self.places
            .get(place.hash as usize & (self.places.len() - 1))
    }

    /// Notes a number, replacing any earlier one in its slot.
    pub(super) fn note(&self, place: KeyPlace, number: u32) {
        let word = u64::from(place.hash) << 32 | u64::from(number.saturating_add(1));
        if let Some(at) = self.place(place)
            && at.load(Ordering::Relaxed) != word
        {
            at.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, place: KeyPlace) -> Noted {
        let word = self.place(place).map_or(0, |at| at.load(Ordering::Relaxed));
        let hash = (word >> 32) as u32;
        match (word as u32).checked_sub(1) {
            None => Noted::Nothing,
            Some(number) if hash == place.hash => Noted::Own(number),
            Some(number) => Noted::Other(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ShardId;

    const fn at(hash: u32) -> KeyPlace {
        KeyPlace {
            shard: ShardId(0),
            hash,
        }
    }

    #[test]
    fn a_note_is_found_until_another_flow_takes_its_place() {
        let memo = Memo::new(5).unwrap();
        assert_eq!(memo.get(at(3)), Noted::Nothing);
        memo.note(at(3), 0);
        memo.note(at(4), 9);
        assert_eq!(memo.get(at(3)), Noted::Own(0));
        assert_eq!(memo.get(at(3 + 8)), Noted::Other(0));
        memo.note(at(3 + 8), 7);
        assert_eq!(memo.get(at(3)), Noted::Other(7));
        assert_eq!(memo.get(at(4)), Noted::Own(9));
    }

    #[test]
    fn the_greatest_number_is_kept_as_near_as_it_can_be() {
        let memo = Memo::new(1).unwrap();
        memo.note(at(u32::MAX), u32::MAX);
        assert_eq!(memo.get(at(u32::MAX)), Noted::Own(u32::MAX - 1));
    }
}
