//! The newest events, in bounded room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Observed;
use super::kind::Class;

/// Events that the ring holds.
pub(crate) const RING: usize = 4096;

/// Bounded memory of the newest events. A full ring drops the oldest event of the class that has
/// the most, so that a flood does not displace the events of other reasons.
#[derive(Debug)]
pub(crate) struct Ring {
    room: usize,
    held: usize,
    /// Number of the next event.
    next: u64,
    /// Events of each class, the oldest first.
    classes: Box<[VecDeque<Numbered>]>,
}

/// Event with its number.
#[derive(Debug)]
struct Numbered {
    number: u64,
    /// Events that the ring had missed before this one.
    missed: u64,
    event: Arc<Observed>,
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(RING)
    }
}

impl Ring {
    /// Returns an empty ring for `room` events.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            held: 0,
            next: 0,
            classes: (0..Class::COUNT).map(|_| VecDeque::new()).collect(),
        }
    }

    /// Adds an event, before which `missed` events did not reach the ring.
    pub(super) fn push(&mut self, event: Arc<Observed>, missed: u64) {
        if self.held >= self.room
            && let Some(largest) = self.classes.iter_mut().max_by_key(|class| class.len())
            && largest.pop_front().is_some()
        {
            self.held -= 1;
        }
        if let Some(class) = self.classes.get_mut(event.class().index()) {
            class.push_back(Numbered {
                number: self.next,
                missed,
                event,
            });
            self.next += 1;
            self.held += 1;
        }
    }

    /// Returns the number of events that were ever added.
    pub(super) const fn received(&self) -> u64 {
        self.next
    }

    /// Returns the number of events that did not reach the ring before its oldest event; `None` if it
    /// is empty.
    pub(super) fn missed_before_oldest(&self) -> Option<u64> {
        let oldest = self.classes.iter().filter_map(VecDeque::front);
        let oldest = oldest.min_by_key(|each| each.number);
        oldest.map(|each| each.missed)
    }

    /// Returns all events, the oldest first.
    pub(super) fn events(&self) -> Vec<Arc<Observed>> {
        let mut events: Vec<_> = self.classes.iter().flatten().collect();
        events.sort_unstable_by_key(|each| each.number);
        let events = events.into_iter().map(|each| Arc::clone(&each.event));
        events.collect()
    }
}
