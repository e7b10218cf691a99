//! The sources that are known to be real: a bounded, set-associative, lock-free table.
//!
//! A source enters the table by an act that only a real host can perform: it returns a cookie, or
//! completes a handshake. A spoofed source does neither, and cannot take a slot. A source whose
//! entry was displaced is challenged again.
//!
//! Half of the table is divided among the zones, and each part belongs to its zone alone. An entry
//! displaced there moves to the other half, which all zones share. A zone can therefore use slots
//! that others leave free, but cannot take the reserved part of another.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::Zone;
use crate::reserve::{NoMemory, Purpose};
use crate::session::Micros;

/// Entries of a set: 64 bytes, a cache line.
const WAYS: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

/// A fingerprint in the upper half, the time of the proof in seconds in the lower half; 0 for a
/// free slot.
#[derive(Debug, Default)]
struct Entry(AtomicU64);

/// A source, counted by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) zone: Zone,
    pub(super) is_ipv6: bool,
    /// Masked address of the source.
    pub(super) prefix: u128,
}

/// Position of a source's zone among all zones.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZonePlace {
    pub(super) index: usize,
    pub(super) count: usize,
}

/// The table.
#[derive(Debug)]
pub(super) struct Sources {
    sets: Box<[Set]>,
    hasher: ahash::RandomState,
}

/// Returns a time in whole seconds, never 0.
const fn second(now: Micros) -> u32 {
    (now.0 / 1_000_000) as u32 + 1
}

/// Returns whether a source is still known: for `lifetime` seconds and up to one more, since the
/// time of its proof is stored in whole seconds.
const fn lives(proof: u32, lifetime: u32, now: u32) -> bool {
    now.saturating_sub(proof) <= lifetime
}

impl Set {
    /// Returns the time of the last proof of a fingerprint, in seconds.
    fn find(&self, fingerprint: u32) -> Option<u32> {
        let words = self.0.iter().map(|entry| entry.0.load(Ordering::Relaxed));
        let found = words.filter(|word| (word >> 32) as u32 == fingerprint && *word != 0);
        found.map(|word| word as u32).max()
    }

    /// Writes an entry in place of an older one of its source, or else of the oldest, and returns
    /// the displaced one. If two threads choose one slot, one of the sources is challenged once
    /// more.
    fn put(&self, word: u64) -> Option<u64> {
        let same = |entry: &&Entry| entry.0.load(Ordering::Relaxed) >> 32 == word >> 32;
        if let Some(own) = self.0.iter().find(same) {
            let known = own.0.load(Ordering::Relaxed);
            if known < word {
                own.0.store(word, Ordering::Relaxed);
            }
            return None;
        }
        let oldest = self
            .0
            .iter()
            .min_by_key(|entry| entry.0.load(Ordering::Relaxed) as u32)?;
        Some(oldest.0.swap(word, Ordering::Relaxed)).filter(|displaced| *displaced != 0)
    }
}

impl Sources {
    /// Returns the number of sets of a table of at least `max` entries: a power of two of entries,
    /// and at least two sets.
    fn sets(max: usize) -> usize {
        max.div_ceil(WAYS).next_power_of_two().max(2)
    }

    /// Returns the bytes of a table for `max` sources.
    pub(super) fn bytes(max: usize) -> usize {
        Self::sets(max) * size_of::<Set>()
    }

    pub(super) fn new(max: usize, hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        let sets = Self::sets(max);
        Ok(Self {
            sets: Purpose::KnownSources.items(sets, Set::default)?,
            hasher,
        })
    }

    fn places(&self, source: &Source, zone: ZonePlace) -> Places<'_> {
        let hash = self.hasher.hash_one(source);
        let half = self.sets.len() / 2;
        let count = zone.count.max(1);
        let first = zone.index * half / count;
        let own = (first + hash as usize % (half / count).max(1)) % half;
        // A fingerprint is never 0, so that no entry equals a free slot.
        let fingerprint = (hash >> 32) as u32 | 1;
        // Only the fingerprint of a displaced entry is stored, so its next set must follow from
        // that alone.
        let shared = half + (fingerprint as usize >> 1 ^ own) % half;
        Places {
            own: self.sets.get(own),
            shared: self.sets.get(shared),
            fingerprint,
            own_index: own,
        }
    }

    /// Returns whether a source was validated within the last `lifetime` seconds.
    pub(super) fn is_known(
        &self,
        source: &Source,
        zone: ZonePlace,
        lifetime: u32,
        now: Micros,
    ) -> bool {
        let places = self.places(source, zone);
        let is_in = |set: &Set| {
            let proof = set.find(places.fingerprint);
            proof.is_some_and(|at| lives(at, lifetime, second(now)))
        };
        places.own.is_some_and(is_in) || places.shared.is_some_and(is_in)
    }

    /// Records a source as validated.
    pub(super) fn note(&self, source: &Source, zone: ZonePlace, lifetime: u32, now: Micros) {
        let places = self.places(source, zone);
        let word = u64::from(places.fingerprint) << 32 | u64::from(second(now));
        let Some(displaced) = places.own.and_then(|own| own.put(word)) else {
            return;
        };
        if lives(displaced as u32, lifetime, second(now)) {
            let half = self.sets.len() / 2;
            let fingerprint = (displaced >> 32) as usize;
            let shared = half + (fingerprint >> 1 ^ places.own_index) % half;
            if let Some(set) = self.sets.get(shared) {
                set.put(displaced);
            }
        }
    }

    /// Returns the number of sources that were known at the most recent proof. Reads every entry.
    pub(super) fn len(&self, lifetime: u32) -> usize {
        let seconds = || {
            let entries = self.sets.iter().flat_map(|set| &set.0);
            entries.map(|entry| entry.0.load(Ordering::Relaxed) as u32)
        };
        let last = seconds().max().unwrap_or(0);
        seconds()
            .filter(|at| *at != 0 && lives(*at, lifetime, last))
            .count()
    }
}

/// Sets that can hold a source.
struct Places<'t> {
    own: Option<&'t Set>,
    shared: Option<&'t Set>,
    fingerprint: u32,
    own_index: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: ZonePlace = ZonePlace { index: 0, count: 1 };

    fn sources(max: usize) -> Sources {
        Sources::new(max, ahash::RandomState::with_seeds(1, 2, 3, 4)).unwrap()
    }

    const fn source(prefix: u128) -> Source {
        Source {
            zone: Zone::DEFAULT,
            is_ipv6: false,
            prefix,
        }
    }

    const fn at(seconds: u64) -> Micros {
        Micros(3_600_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn a_source_is_known_for_its_lifetime_after_its_last_proof() {
        let sources = sources(64);
        sources.note(&source(1), ALONE, 60, at(0));
        assert!(sources.is_known(&source(1), ALONE, 60, at(59)));
        assert!(sources.is_known(&source(1), ALONE, 60, at(60)));
        assert!(!sources.is_known(&source(1), ALONE, 60, at(61)));
        sources.note(&source(1), ALONE, 60, at(50));
        assert!(sources.is_known(&source(1), ALONE, 60, at(109)));
        assert_eq!(sources.len(60), 1);
        for other in [
            source(2),
            Source {
                is_ipv6: true,
                ..source(1)
            },
            Source {
                zone: Zone(1),
                ..source(1)
            },
        ] {
            assert!(!sources.is_known(&other, ALONE, 60, at(50)), "{other:?}");
        }
    }

    #[test]
    fn the_newest_sources_are_kept_and_no_more_than_there_are_places() {
        let sources = sources(1 << 10);
        for prefix in 0..100_000 {
            sources.note(&source(prefix), ALONE, 600, at(prefix as u64 / 100));
        }
        assert!(sources.len(600) <= 1 << 10);
        let known = |prefix| sources.is_known(&source(prefix), ALONE, 600, at(1_000));
        let newest = (99_900..100_000).filter(|prefix| known(*prefix)).count();
        assert!(newest >= 99, "{newest} of the newest 100");
        assert_eq!((0..50_000).filter(|prefix| known(*prefix)).count(), 0);
    }

    #[test]
    fn a_zone_with_many_sources_does_not_displace_those_of_another_zone() {
        let sources = sources(1 << 10);
        let [green, blue] = [0, 1].map(|index| ZonePlace { index, count: 2 });
        let of_blue = |prefix| Source {
            zone: Zone(1),
            ..source(prefix)
        };
        for prefix in 0..50 {
            sources.note(&of_blue(prefix), blue, 600, at(0));
        }
        for prefix in 0..100_000 {
            sources.note(&source(prefix), green, 600, at(1));
        }
        let known = (0..50).filter(|prefix| sources.is_known(&of_blue(*prefix), blue, 600, at(2)));
        assert_eq!(known.count(), 50);
    }

    #[test]
    fn strangers_are_not_known_by_chance() {
        let sources = sources(1 << 12);
        for prefix in 0..10_000 {
            sources.note(&source(prefix), ALONE, 600, at(0));
        }
        let known = |prefix: &u128| sources.is_known(&source(*prefix), ALONE, 600, at(0));
        assert_eq!((1_000_000..2_000_000).filter(known).count(), 0);
    }
}
