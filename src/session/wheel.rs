//! The timing wheel of a shard: hierarchical, intrusive, lazy.
//!
//! Six levels of 64 lists cover all 2^32 ticks. The level of a session's list is the highest
//! base-64 digit in which its deadline differs from the wheel's time. Refreshing a session only
//! stores the new deadline: the session stays in its list until the wheel reaches that list, and is
//! then moved to the right one. So a list may hold sessions that live longer than its time, never
//! shorter ones. Each [`EvictionClass`] has a wheel of its own, all with one time, so that a full
//! table finds its cheapest session without a search.
//!
//! The lists are doubly linked through the slots: insertion and removal are O(1), and nothing
//! allocates.

use super::slot::{Links, NIL};
use crate::reserve::{NoMemory, Purpose};
use crate::track::EvictionClass;

const BITS: u32 = 6;
const LISTS: u32 = 1 << BITS;
const LEVELS: u32 = 6;
const PER_CLASS: u32 = LISTS * LEVELS;
const KINDS: u32 = EvictionClass::ALL.len() as u32;

/// Flag in [`Links`]: there is no slot on this side, the list with that number ends here.
const END: u32 = 0x8000_0000;

/// Bound on slot numbers, exclusive.
pub(crate) const MAX_SLOTS: u32 = END;

/// Returns the next slot in the list, if there is one.
pub(crate) const fn behind(links: Links) -> Option<u32> {
    if links.next & END == 0 {
        Some(links.next)
    } else {
        None
    }
}

/// The links of all slots: the only part of them that the wheel uses.
pub(crate) trait Linked {
    fn links(&self, slot: u32) -> Links;
    fn links_mut(&mut self, slot: u32) -> &mut Links;
    fn deadline(&self, slot: u32) -> u32;
}

/// The next list that is due, now or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Time of the list: never later than its first deadline.
    pub(crate) tick: u32,
    list: u32,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    /// Tick up to which time has been processed.
    elapsed: u32,
    /// First and last slot of each list, [`NIL`] where it is empty. Sessions are appended after the
    /// last slot: those of one lifetime are in the order of their deadlines.
    ends: Box<[[u32; 2]]>,
    occupied: [[u64; LEVELS as usize]; KINDS as usize],
}

impl Wheel {
    /// The bytes of the wheel's lists.
    pub(crate) const BYTES: usize = (PER_CLASS * KINDS) as usize * size_of::<[u32; 2]>();

    pub(crate) fn new() -> Result<Self, NoMemory> {
        Ok(Self {
            elapsed: 0,
            ends: Purpose::Sessions.items((PER_CLASS * KINDS) as usize, || [NIL; 2])?,
            occupied: [[0; LEVELS as usize]; KINDS as usize],
        })
    }

    fn ends(&self, list: u32) -> [u32; 2] {
        self.ends.get(list as usize).copied().unwrap_or([NIL; 2])
    }

    fn set_ends(&mut self, list: u32, ends: [u32; 2]) {
        if let Some(there) = self.ends.get_mut(list as usize) {
            *there = ends;
        }
        let level = (list % PER_CLASS / LISTS) as usize;
        let words = self.occupied.get_mut((list / PER_CLASS) as usize);
        if let Some(word) = words.and_then(|levels| levels.get_mut(level)) {
            let bit = 1u64 << (list % LISTS);
            let [first, _] = ends;
            if first == NIL {
                *word &= !bit
            } else {
                *word |= bit
            }
        }
    }

    fn list_for(&self, class: EvictionClass, deadline: u32) -> u32 {
        let when = deadline.max(self.elapsed);
        let differing = (self.elapsed ^ when) | (LISTS - 1);
        let level = (31 - differing.leading_zeros()) / BITS;
        let place = when >> (level * BITS) & (LISTS - 1);
        class as u32 * PER_CLASS + level * LISTS + place
    }

    /// Inserts a session by its deadline.
    pub(crate) fn schedule(&mut self, slots: &mut impl Linked, slot: u32, class: EvictionClass) {
        let list = self.list_for(class, slots.deadline(slot));
        let [first, last] = self.ends(list);
        if first == NIL {
            *slots.links_mut(slot) = Links {
                next: END | list,
                previous: END | list,
            };
            self.set_ends(list, [slot, slot]);
        } else {
            *slots.links_mut(slot) = Links {
                next: END | list,
                previous: last,
            };
            slots.links_mut(last).next = slot;
            self.set_ends(list, [first, slot]);
        }
    }

    /// Removes a session.
    pub(crate) fn take(&mut self, slots: &mut impl Linked, slot: u32) {
        let Links { next, previous } = slots.links(slot);
        match (previous & END != 0, next & END != 0) {
            (true, true) => self.set_ends(next & !END, [NIL; 2]),
            (true, false) => {
                slots.links_mut(next).previous = previous;
                let list = previous & !END;
                let [_, last] = self.ends(list);
                self.set_ends(list, [next, last]);
            }
            (false, true) => {
                slots.links_mut(previous).next = next;
                let list = next & !END;
                let [first, _] = self.ends(list);
                self.set_ends(list, [first, previous]);
            }
            (false, false) => {
                slots.links_mut(previous).next = next;
                slots.links_mut(next).previous = previous;
            }
        }
    }

    /// Returns the earliest list of an eviction class.
    pub(crate) fn earliest_of(&self, class: EvictionClass) -> Option<Due> {
        let levels = self.occupied.get(class as usize)?;
        let mut earliest: Option<Due> = None;
        for (level, word) in (0..LEVELS).zip(levels) {
            if *word == 0 {
                continue;
            }
            // Every occupied list of a level is at or after the wheel's own place in that level.
            let shift = level * BITS;
            let here = self.elapsed >> shift & (LISTS - 1);
            let ahead = (word.rotate_right(here)).trailing_zeros();
            let place = (here + ahead) & (LISTS - 1);
            let above = self
                .elapsed
                .checked_shr(shift + BITS)
                .unwrap_or(0)
                .checked_shl(shift + BITS);
            let tick = above.unwrap_or(0) | place << shift;
            let due = Due {
                tick: tick.max(self.elapsed),
                list: class as u32 * PER_CLASS + level * LISTS + place,
            };
            if earliest.is_none_or(|best| due.tick < best.tick) {
                earliest = Some(due);
            }
        }
        earliest
    }

    /// Returns the earliest list of all classes.
    pub(crate) fn earliest(&self) -> Option<Due> {
        EvictionClass::ALL
            .into_iter()
            .filter_map(|class| self.earliest_of(class))
            .min_by_key(|due| due.tick)
    }

    /// Returns the session at the head of a list.
    pub(crate) fn first(&self, due: Due) -> u32 {
        let [first, _] = self.ends(due.list);
        first
    }

    /// Advances the time to `tick`, which is the time of a list or has no list before it. Later
    /// insertions are relative to that time.
    pub(crate) fn advance(&mut self, tick: u32) {
        self.elapsed = self.elapsed.max(tick);
    }

    /// Returns the tick at which a deadline is due: one in the past is due at once, at the wheel's
    /// own time. A deadline is in the past if a reload shortens a lifetime after the caller's clock
    /// has moved back.
    pub(crate) fn due_tick(&self, deadline: u32) -> u32 {
        deadline.max(self.elapsed)
    }

    /// Returns the number of sessions in the lists of each eviction class.
    ///
    /// # Errors
    /// Returns a description of a broken link.
    pub(crate) fn count(&self, slots: &impl Linked) -> Result<[usize; KINDS as usize], String> {
        let mut counts = [0; KINDS as usize];
        for (list, [first, last]) in (0u32..).zip(&self.ends) {
            let mut at = (*first != NIL).then_some(*first);
            let mut previous = END | list;
            while let Some(slot) = at {
                if slots.links(slot).previous != previous {
                    return Err(format!("slot {slot} in list {list}: broken link back"));
                }
                if let Some(count) = counts.get_mut((list / PER_CLASS) as usize) {
                    *count += 1;
                }
                previous = slot;
                at = behind(slots.links(slot));
            }
            if *first != NIL && previous != *last {
                return Err(format!("list {list} ends with {previous}, not {last}"));
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::slot::Slot;

    struct Slots(Vec<Slot>);

    impl Linked for Slots {
        fn links(&self, slot: u32) -> Links {
            self.0[slot as usize].links
        }
        fn links_mut(&mut self, slot: u32) -> &mut Links {
            &mut self.0[slot as usize].links
        }
        fn deadline(&self, slot: u32) -> u32 {
            self.0[slot as usize].deadline
        }
    }

    fn slots(deadlines: &[u32]) -> Slots {
        let slot = |deadline: &u32| {
            let mut slot = Slot::new(crate::session::testing::key(0));
            slot.deadline = *deadline;
            slot
        };
        Slots(deadlines.iter().map(slot).collect())
    }

    #[test]
    fn the_earliest_list_is_never_late() {
        let mut slots = slots(&[5, 70, 5_000, 4_000_000_000, 63, 64]);
        let mut wheel = Wheel::new().unwrap();
        for slot in 0..6 {
            wheel.schedule(&mut slots, slot, EvictionClass::Assured);
        }
        assert_eq!(wheel.earliest().unwrap().tick, 5);
        wheel.take(&mut slots, 0);
        assert_eq!(wheel.earliest().unwrap().tick, 63);
        wheel.take(&mut slots, 4);
        assert_eq!(wheel.earliest().unwrap().tick, 64);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut slots = slots(&[5]);
        let mut wheel = Wheel::new().unwrap();
        wheel.advance(1_000);
        wheel.schedule(&mut slots, 0, EvictionClass::Embryonic);
        assert_eq!(wheel.earliest().unwrap().tick, 1_000);
    }

    proptest! {
        /// Time moves in steps of any size; every session is due at its deadline, in order, exactly
        /// once.
        #[test]
        fn every_session_comes_up_on_time(
            deadlines in proptest::collection::vec(
                (0u32..2_000_000, 0usize..EvictionClass::ALL.len()),
                1..60,
            ),
            steps in proptest::collection::vec(1u32..500_000, 1..40),
        ) {
            let ticks: Vec<_> = deadlines.iter().map(|(deadline, _)| *deadline).collect();
            let mut slots = slots(&ticks);
            let mut wheel = Wheel::new().unwrap();
            for (slot, (_, class)) in deadlines.iter().enumerate() {
                wheel.schedule(&mut slots, slot as u32, EvictionClass::ALL[*class]);
            }
            let mut left: Vec<bool> = vec![true; deadlines.len()];
            let mut now = 0u32;
            for step in steps {
                now += step;
                while let Some(due) = wheel.earliest() {
                    let first = (0..left.len()).filter(|i| left[*i]).map(|i| deadlines[i].0).min();
                    prop_assert!(due.tick <= first.unwrap());
                    if due.tick > now {
                        break;
                    }
                    wheel.advance(due.tick);
                    let slot = wheel.first(due);
                    wheel.take(&mut slots, slot);
                    if slots.deadline(slot) <= due.tick {
                        left[slot as usize] = false;
                    } else {
                        let (_, class) = deadlines[slot as usize];
                        wheel.schedule(&mut slots, slot, EvictionClass::ALL[class]);
                    }
                }
                wheel.advance(now);
                for (i, (deadline, _)) in deadlines.iter().enumerate() {
                    prop_assert_eq!(left[i], *deadline > now, "deadline {} now {}", deadline, now);
                }
            }
        }
    }
}
