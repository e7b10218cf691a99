//! Shares of a bounded resource by zone, and within a zone by source.
//!
//! The slots of a source are counted exactly. There are never more sources than slots in use, so
//! the resource itself bounds the memory.
//!
//! Lock: the entry of a source, taken alone and held for a few instructions.

use dashmap::{DashMap, Entry};

use super::share::{Drawn, ZoneShares};
use crate::flow::Zone;

/// A source: its zone and its counted prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source {
    /// The zone.
    pub(crate) zone: Zone,
    /// The address without the bits that are not counted.
    pub(crate) prefix: u128,
}

/// Slots claimed for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    source: Source,
    /// Places of the zone.
    zone: u32,
    /// Slots of the common part alone.
    common: u32,
}

impl Claim {
    /// Returns the source of the slots.
    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// Returns the number of claimed slots.
    pub(crate) const fn places(&self) -> u32 {
        self.zone.saturating_add(self.common)
    }
}

/// Shares by zone and source. See the [module](self).
#[derive(Debug)]
pub(crate) struct SourceShares {
    shares: ZoneShares,
    held: DashMap<Source, u32, ahash::RandomState>,
}

impl SourceShares {
    /// Returns shares of `max` slots among the given zones, with all slots free.
    pub(crate) fn new(
        max: u32,
        zones: impl IntoIterator<Item = Zone>,
        hasher: ahash::RandomState,
    ) -> Self {
        Self {
            shares: ZoneShares::new(max, zones),
            held: DashMap::with_hasher(hasher),
        }
    }

    /// Exchanges the number of slots and the zones that have a guarantee.
    pub(crate) fn set(&self, max: u32, zones: impl IntoIterator<Item = Zone>) {
        self.shares.set(max, zones);
    }

    /// Returns the number of slots in use.
    pub(crate) fn used(&self) -> usize {
        self.shares.used()
    }

    /// Returns the number of slots of a source.
    pub(crate) fn held(&self, source: Source) -> u32 {
        self.held.get(&source).map_or(0, |held| *held)
    }

    /// Takes `places` slots for a source, all or none.
    pub(crate) fn claim(&self, source: Source, places: u32) -> Option<Claim> {
        let mut claim = Claim {
            source,
            zone: 0,
            common: 0,
        };
        self.grow(&mut claim, places).then_some(claim)
    }

    /// Adds `places` slots to a claim, all or none.
    pub(crate) fn grow(&self, claim: &mut Claim, places: u32) -> bool {
        let mut entry = self.held.entry(claim.source).or_insert(0);
        let held = *entry;
        let drawn = self
            .shares
            .claim_for_source(claim.source.zone, places, held);
        match drawn {
            Some(Drawn::Zone) => claim.zone += places,
            Some(Drawn::Common) => claim.common += places,
            None => {}
        }
        if drawn.is_some() {
            *entry += places;
        }
        drop(entry);
        if drawn.is_none() && held == 0 {
            self.held.remove_if(&claim.source, |_, held| *held == 0);
        }
        drawn.is_some()
    }

    /// Gives back `places` slots of a claim, or all if it has fewer.
    pub(crate) fn shrink(&self, claim: &mut Claim, places: u32) {
        let common = places.min(claim.common);
        let zone = (places - common).min(claim.zone);
        claim.common -= common;
        claim.zone -= zone;
        if let Entry::Occupied(mut held) = self.held.entry(claim.source) {
            *held.get_mut() = held.get().saturating_sub(common + zone);
            if *held.get() == 0 {
                held.remove();
            }
        }
        for (places, drawn) in [(common, Drawn::Common), (zone, Drawn::Zone)] {
            if places > 0 {
                self.shares.release_drawn(claim.source.zone, places, drawn);
            }
        }
    }

    /// Gives back all slots of a claim.
    pub(crate) fn release(&self, mut claim: Claim) {
        let places = claim.places();
        self.shrink(&mut claim, places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(prefix: u128) -> Source {
        Source {
            zone: Zone(1),
            prefix,
        }
    }

    fn shares(max: u32) -> SourceShares {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        SourceShares::new(max, [Zone(0), Zone(1)], hasher)
    }

    #[test]
    fn one_source_leaves_places_to_another_of_its_zone() {
        let shares = shares(100);
        let all: Vec<_> = std::iter::repeat_with(|| shares.claim(source(1), 1))
            .map_while(|claim| claim)
            .collect();
        // Half of the guarantee of 25, rounded up, and half of the common 50.
        assert_eq!(all.len(), 13 + 25);
        assert!(shares.claim(source(2), 1).is_some());
        for claim in all {
            shares.release(claim);
        }
        assert_eq!((shares.used(), shares.held.len()), (1, 1));
    }

    #[test]
    fn a_claim_grows_and_shrinks_as_what_it_stands_for() {
        let shares = shares(1000);
        let mut claim = shares
            .claim(source(1), 10)
            .unwrap_or_else(|| unreachable!());
        assert!(shares.grow(&mut claim, 200));
        assert!(!shares.grow(&mut claim, 1000), "more than there is");
        assert_eq!((claim.places(), shares.used()), (210, 210));
        shares.shrink(&mut claim, 205);
        assert_eq!((claim.places(), shares.used()), (5, 5));
        shares.release(claim);
        assert_eq!((shares.used(), shares.held.len()), (0, 0));
    }

    #[test]
    fn a_refused_source_leaves_no_trace() {
        let shares = shares(0);
        assert!(shares.claim(source(1), 1).is_none());
        assert!(shares.held.is_empty());
    }
}
