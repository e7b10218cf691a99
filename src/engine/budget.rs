//! Budgets of the packets that the engine sends: a rate for each destination, and an overall rate.
//!
//! Each kind of packet has its own budget with both rates, so that no sender uses up the budget of
//! another kind:
//!
//! | budget | pays for | provoked by |
//! |---|---|---|
//! | ends | RSTs to both ends of a session that ends | hosts that cause sessions to end |
//! | late | RSTs to late packets of sessions that have ended | senders of late packets |
//! | answers | rejections, `tcp.midstream = "reject"`, front ends' ICMP errors | any host |
//!
//! With several zones, each is guaranteed its part of the overall rate
//! ([`guarantee`](crate::limits::share::guarantee)); the rest is first come, first served.

use super::rate::Rate;
use crate::config::ResetsConfig;
use crate::flow::Zone;
use crate::limits::by_zone::ByZone;
use crate::limits::share::guarantee;
use crate::reserve::{NoMemory, Purpose};
use crate::reset::Unsent;
use crate::session::Micros;

/// Number of rate counters for destinations. Two destinations may share a counter, by a keyed hash:
/// memory stays bounded and no search is needed.
const DESTINATIONS: usize = 4_096;

/// The rates in force, and the zones that share them, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates<'a> {
    pub(super) config: &'a ResetsConfig,
    pub(super) zones: &'a [Zone],
}

/// Destination of a packet that the engine sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    pub(super) zone: Zone,
    /// Address as [`crate::flow::FlowKey::address_number`] returns it.
    pub(super) address: u128,
}

/// The budget of one kind of packet.
#[derive(Debug)]
pub(super) struct Budget {
    destinations: Box<[Rate]>,
    /// Guaranteed rate of each zone.
    zones: ByZone<Rate>,
    /// Rate that all zones share.
    common: Rate,
    hasher: ahash::RandomState,
}

impl Budget {
    pub(super) fn new(hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        Ok(Self {
            destinations: Purpose::Rates.items(DESTINATIONS, Rate::default)?,
            zones: ByZone::default(),
            common: Rate::default(),
            hasher,
        })
    }

    /// Takes one packet to a destination from the budget.
    pub(super) fn take(
        &self,
        destination: Destination,
        now: Micros,
        rates: Rates<'_>,
    ) -> Result<(), Unsent> {
        let per_destination = rates.config.per_destination;
        let Destination { zone, address } = destination;
        let hash = self.hasher.hash_one((zone, address)) as usize;
        let Some(destination) = self.destinations.get(hash % DESTINATIONS) else {
            return Err(Unsent::DestinationBudget);
        };
        if !destination.take(now, per_destination) {
            return Err(Unsent::DestinationBudget);
        }
        if !self.take_of_all(zone, now, rates) {
            destination.put_back(per_destination);
            return Err(Unsent::OverallBudget);
        }
        Ok(())
    }

    fn take_of_all(&self, zone: Zone, now: Micros, rates: Rates<'_>) -> bool {
        let overall = rates.config.overall;
        let own = guarantee(overall, rates.zones.len());
        if own == 0 {
            return self.common.take(now, overall);
        }
        let is_sure = rates.zones.binary_search(&zone).is_ok();
        let of_zone = self.zones.get(zone).filter(|_| is_sure);
        if of_zone.is_some_and(|rate| rate.take(now, own)) {
            return true;
        }
        let zones = u32::try_from(rates.zones.len()).unwrap_or(u32::MAX);
        self.common
            .take(now, overall.saturating_sub(own.saturating_mul(zones)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn to(zone: Zone, address: u128) -> Destination {
        Destination { zone, address }
    }

    const CONFIG: ResetsConfig = ResetsConfig {
        per_destination: 10,
        overall: 25,
    };

    fn budget() -> Budget {
        Budget::new(ahash::RandomState::with_seeds(1, 2, 3, 4)).unwrap()
    }

    const ALONE: Rates<'_> = Rates {
        config: &CONFIG,
        zones: &[Zone::DEFAULT],
    };

    fn taken(budget: &Budget, destination: u128, at: Micros) -> usize {
        (0..100)
            .filter(|_| {
                budget
                    .take(to(Zone::DEFAULT, destination), at, ALONE)
                    .is_ok()
            })
            .count()
    }

    #[test]
    fn a_zone_is_sure_of_its_part_whatever_another_takes() {
        let config = ResetsConfig {
            per_destination: 1_000,
            overall: 40,
        };
        let zones = [Zone(1), Zone(2)];
        let rates = Rates {
            config: &config,
            zones: &zones,
        };
        let budget = budget();
        let taken = |zone, address, at: u64| {
            let at = Micros(3_600_000_000 + at);
            let take = || budget.take(to(Zone(zone), address), at, rates).is_ok();
            std::iter::repeat_with(take)
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!(taken(1, 1, 0), 30, "its 10, and all 20 that are common");
        assert_eq!(taken(3, 2, 0), 0, "a zone that no configuration names");
        assert_eq!(taken(2, 3, 0), 10);
        // Half a second later.
        assert_eq!(taken(1, 1, 500_000), 15);
        assert_eq!(taken(2, 3, 500_000), 5);
    }

    #[test]
    fn zones_beyond_the_rate_share_it() {
        let zones: Vec<_> = (0..30).map(Zone).collect();
        let rates = Rates {
            zones: &zones,
            ..ALONE
        };
        let budget = budget();
        let at = Micros(3_600_000_000);
        let taken = (0..100).filter(|n| budget.take(to(Zone(*n % 30), 1), at, rates).is_ok());
        assert_eq!(taken.count(), 25);
    }

    #[test]
    fn a_destination_has_its_rate_and_a_second_of_it_at_once() {
        let budget = budget();
        let at = |tenths: u64| Micros(3_600_000_000 + tenths * 100_000);
        assert_eq!(taken(&budget, 1, at(0)), 10);
        assert_eq!(taken(&budget, 1, at(1)), 1);
        assert_eq!(taken(&budget, 1, at(6)), 5);
    }

    #[test]
    fn all_destinations_together_have_one_too() {
        let budget = budget();
        let at = Micros(3_600_000_000);
        let each: Vec<_> = (1..=4)
            .map(|destination| taken(&budget, destination, at))
            .collect();
        assert_eq!(each, [10, 10, 5, 0]);
        assert_eq!(
            budget.take(to(Zone::DEFAULT, 9), at, ALONE),
            Err(Unsent::OverallBudget)
        );
        // Packets that the overall budget refused did not count against the destination's budget.
        assert_eq!(taken(&budget, 4, Micros(at.0 + 10_000_000)), 10);
    }

    #[test]
    fn a_rate_of_zero_sends_nothing() {
        let none = ResetsConfig {
            per_destination: 0,
            ..CONFIG
        };
        let rates = Rates {
            config: &none,
            ..ALONE
        };
        let refused = budget().take(to(Zone::DEFAULT, 1), Micros(1), rates);
        assert_eq!(refused, Err(Unsent::DestinationBudget));
    }
}
