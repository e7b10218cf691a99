//! Hints about the zone of a flow's session, and the budget of searches for it.

use std::sync::Arc;

use super::memo::{Memo, Noted};
use super::rate::Rate;
use crate::config::AsymmetryConfig;
use crate::flow::Zone;
use crate::reserve::{NoMemory, Purpose};
use crate::session::{KeyPlace, Micros};

/// Minimum and maximum number of flows whose zone is remembered, in each of two tables of 8 KiB to
/// 2 MiB.
const MIN_REMEMBERED: usize = 1 << 10;
const MAX_REMEMBERED: usize = 1 << 18;

/// The other zones, the budget of searches that find nothing, and hints from earlier searches.
#[derive(Debug)]
pub(super) struct ZoneHints {
    /// Each zone once, in their order.
    pub(super) zones: Box<[Zone]>,
    /// Budgets of searches that find nothing, by the zone of the packet; zones without a name share
    /// one.
    budgets: Box<[Rate]>,
    /// The zone in which the session of a flow was found last, by the flow's key where its packets
    /// arrive; `None` where there is one zone. Only a packet that matches a session writes here: a
    /// flood of forged packets cannot displace a hint.
    found: Option<Arc<Memo>>,
    /// The zone in which the newest session of a flow began, by its key without a zone; `None`
    /// where no path may be asymmetric. With this hint, the first packet of a flow that arrives in
    /// another zone needs no search.
    pub(super) begun: Option<Arc<Memo>>,
}

impl ZoneHints {
    /// Returns the hints for zones in their order. Hints of `previous` are kept: a wrong hint costs
    /// one lookup.
    pub(super) fn new(
        zones: Box<[Zone]>,
        any_asymmetric: bool,
        max_sessions: usize,
        previous: Option<&Self>,
    ) -> Result<Self, NoMemory> {
        let places = Self::places(max_sessions);
        let keep = |known: Option<&Option<Arc<Memo>>>| match known {
            Some(Some(known)) => Ok(Arc::clone(known)),
            _ => Memo::new(places).map(Arc::new),
        };
        let several = zones.len() > 1;
        let found = several.then(|| keep(previous.map(|previous| &previous.found)));
        let begun =
            (several && any_asymmetric).then(|| keep(previous.map(|previous| &previous.begun)));
        Ok(Self {
            budgets: Purpose::Hints.items(zones.len() + 1, Rate::default)?,
            zones,
            found: found.transpose()?,
            begun: begun.transpose()?,
        })
    }

    fn places(max_sessions: usize) -> usize {
        (max_sessions / 2).clamp(MIN_REMEMBERED, MAX_REMEMBERED)
    }

    /// Returns the maximum size of the hints in bytes.
    pub(super) fn bytes(max_sessions: usize, zones: usize) -> usize {
        if zones > 1 {
            2 * Memo::bytes(Self::places(max_sessions))
        } else {
            0
        }
    }

    /// Returns whether there is more than one zone.
    pub(super) const fn has_others(&self) -> bool {
        self.zones.len() > 1
    }

    /// Returns the zone in which the session of a flow was found last.
    pub(super) fn remembered(&self, place: KeyPlace) -> Option<Zone> {
        self.zone_in(self.found.as_deref()?, place)
    }

    pub(super) fn zone_in(&self, memo: &Memo, place: KeyPlace) -> Option<Zone> {
        let Noted::Own(zone) = memo.get(place) else {
            return None;
        };
        let zone = Zone(u16::try_from(zone).ok()?);
        // A reload may have removed the zone's name.
        self.zones.binary_search(&zone).is_ok().then_some(zone)
    }

    pub(super) fn remember(&self, place: KeyPlace, zone: Zone) {
        if let Some(found) = &self.found {
            found.note(place, u32::from(zone.0));
        }
    }

    /// Takes one search for a packet of a zone, and returns a guard that can give the search back.
    pub(super) fn take(
        &self,
        zone: Zone,
        now: Micros,
        config: &AsymmetryConfig,
    ) -> Option<Search<'_>> {
        let number = self.zones.binary_search(&zone).unwrap_or(self.zones.len());
        let rate = self.budgets.get(number)?;
        let share = config.searches.div_ceil((self.zones.len() as u32).max(1));
        rate.take(now, share).then_some(Search { rate, share })
    }
}

/// A search that was taken from a budget.
pub(super) struct Search<'a> {
    rate: &'a Rate,
    share: u32,
}

impl Search<'_> {
    /// Gives the search back to the budget because it has found a session.
    pub(super) fn was_right(self) {
        self.rate.put_back(self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ShardId;

    const CONFIG: AsymmetryConfig = AsymmetryConfig {
        packets: 16,
        time: std::time::Duration::from_secs(10),
        max_entries: 1,
        searched_zones: 16,
        searches: 20,
        prefix_v4: 24,
        prefix_v6: 64,
    };

    fn zones(numbers: &[u16]) -> Box<[Zone]> {
        numbers.iter().copied().map(Zone).collect()
    }

    fn taken(elsewhere: &ZoneHints, zone: u16, at: Micros) -> usize {
        (0..100)
            .filter(|_| elsewhere.take(Zone(zone), at, &CONFIG).is_some())
            .count()
    }

    #[test]
    fn zones_share_the_searches_and_none_takes_those_of_another() {
        let elsewhere = ZoneHints::new(zones(&[0, 1, 5, 7]), true, 100, None).unwrap();
        let at = Micros(3_600_000_000);
        let each: Vec<_> = [0, 1, 5, 7].map(|zone| taken(&elsewhere, zone, at)).into();
        assert_eq!(each, [5, 5, 5, 5]);
        // Zones that the configuration does not name share one budget.
        assert_eq!((taken(&elsewhere, 2, at), taken(&elsewhere, 9, at)), (5, 0));
    }

    #[test]
    fn a_search_that_was_right_costs_nothing() {
        let elsewhere = ZoneHints::new(zones(&[0, 1]), true, 100, None).unwrap();
        let at = Micros(3_600_000_000);
        for _ in 0..100 {
            let search = elsewhere.take(Zone(1), at, &CONFIG);
            search.expect("a search").was_right();
        }
        assert_eq!(taken(&elsewhere, 1, at), 10);
    }

    #[test]
    fn what_was_found_is_remembered_through_a_reload_while_its_zone_is_there() {
        let place = KeyPlace {
            shard: ShardId(3),
            hash: 77,
        };
        let elsewhere = ZoneHints::new(zones(&[0, 1, 2]), true, 100, None).unwrap();
        assert_eq!(elsewhere.remembered(place), None);
        elsewhere.remember(place, Zone(2));
        assert_eq!(elsewhere.remembered(place), Some(Zone(2)));
        let reloaded = ZoneHints::new(zones(&[0, 2, 9]), true, 100, Some(&elsewhere)).unwrap();
        assert_eq!(reloaded.remembered(place), Some(Zone(2)));
        let renamed = ZoneHints::new(zones(&[0, 1]), true, 100, Some(&reloaded)).unwrap();
        assert_eq!(renamed.remembered(place), None);
        assert!(
            !ZoneHints::new(zones(&[0]), true, 100, Some(&renamed))
                .unwrap()
                .has_others()
        );
    }
}
