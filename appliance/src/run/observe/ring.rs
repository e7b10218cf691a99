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

/// Event of the ring.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) event: Arc<Observed>,
    /// Later events that the ring does not hold: they did not reach it, or were displaced.
    pub(crate) missing: u64,
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

    /// Returns all events, the oldest first. `missed` events have not reached the ring until now.
    pub(super) fn events(&self, missed: u64) -> Vec<Past> {
        let mut events: Vec<_> = self.classes.iter().flatten().collect();
        events.sort_unstable_by_key(|each| each.number);
        let since = |(place, each): (usize, &Numbered)| {
            let displaced = (self.next - each.number).saturating_sub((events.len() - place) as u64);
            Past {
                event: Arc::clone(&each.event),
                missing: displaced + missed.saturating_sub(each.missed),
            }
        };
        events.iter().copied().enumerate().map(since).collect()
    }
}
