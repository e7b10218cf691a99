//! Rate of the reports of reached limits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Limit;
use crate::flow::Zone;
use crate::reserve::{NoMemory, Purpose};
use crate::session::time::Micros;

/// Groups of places for moments of reports. A zone has one, by a keyed hash, so that a flood in it
/// silences no more than the few zones that share its group.
const GROUPS: usize = 64;

/// Places of a group. Two sources may share one, by a keyed hash; then one of them is reported less
/// often.
const PLACES: usize = 64;

/// The least time between two reports of a source and a limit.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

/// Times at which a source and a limit were last reported. Bounded, and without locks.
#[derive(Debug)]
pub(crate) struct Notices {
    last: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl Notices {
    pub(crate) fn new(hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        Ok(Self {
            last: Purpose::Rates.zeros(GROUPS * PLACES)?,
            hasher,
        })
    }

    /// Returns whether a limit that a source has reached is to be reported now.
    pub(crate) fn is_due(&self, zone: Zone, source: u128, limit: Limit, now: Micros) -> bool {
        let group = self.hasher.hash_one(zone) as usize % GROUPS;
        let place = self.hasher.hash_one((zone, source, limit)) as usize % PLACES;
        let Some(last) = self.last.get(group * PLACES + place) else {
            return false;
        };
        let pause = PAUSE.as_micros() as u64;
        let again = |before: u64| {
            (before == 0 || now.0 >= before.saturating_add(pause)).then_some(now.0.max(1))
        };
        last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, again)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_sources_in_one_zone_does_not_silence_the_others() {
        let notices = Notices::new(ahash::RandomState::with_seeds(1, 2, 3, 4)).unwrap();
        let now = Micros(1_000_000);
        let green = Zone(500);
        let reported = |count: u128| {
            let due = |source: &u128| notices.is_due(green, *source, Limit::PerDestination, now);
            (0..count).filter(due).count()
        };
        assert_eq!(reported(20_000), PLACES);
        let heard = |zone: &u16| notices.is_due(Zone(*zone), 1, Limit::PerSource, now);
        // One in 64 zones shares the group of the flood, and few share a place with another.
        assert!((0..40).filter(heard).count() >= 36);
        let later = Micros(now.0 + PAUSE.as_micros() as u64);
        assert!(notices.is_due(green, 1, Limit::PerDestination, later));
    }
}
