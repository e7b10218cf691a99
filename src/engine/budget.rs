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

/// Part of the overall rate that a packet was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paid {
    /// The guaranteed rate of its zone.
    ByZone,
    /// The rate that all zones share.
    InCommon,
}

/// The overall rate, as a zone may use it.
#[derive(Debug, Clone, Copy)]
struct Parts<'a> {
    /// The zone's guaranteed rate, if it has one, and the packets of it for each second.
    own: Option<(&'a Rate, u32)>,
    /// The packets for each second that all zones share.
    common: u32,
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

    /// Takes one packet to a destination from the budget. Returns the part that has paid for it.
    pub(super) fn take(
        &self,
        destination: Destination,
        now: Micros,
        rates: Rates<'_>,
    ) -> Result<Paid, Unsent> {
        let per_destination = rates.config.per_destination;
        let Some(rate) = self.of_destination(destination) else {
            return Err(Unsent::DestinationBudget);
        };
        if !rate.take(now, per_destination) {
            return Err(Unsent::DestinationBudget);
        }
        let parts = self.parts(destination.zone, rates);
        if parts.own.is_some_and(|(rate, own)| rate.take(now, own)) {
            Ok(Paid::ByZone)
        } else if self.common.take(now, parts.common) {
            Ok(Paid::InCommon)
        } else {
            rate.put_back(per_destination);
            Err(Unsent::OverallBudget)
        }
    }

    /// Gives back one packet to a destination, which a part has paid for.
    pub(super) fn put_back(&self, destination: Destination, paid: Paid, rates: Rates<'_>) {
        if let Some(rate) = self.of_destination(destination) {
            rate.put_back(rates.config.per_destination);
        }
        let parts = self.parts(destination.zone, rates);
        match (paid, parts.own) {
            (Paid::ByZone, Some((rate, own))) => rate.put_back(own),
            // The zone has lost its guarantee meanwhile.
            (Paid::ByZone, None) => {}
            (Paid::InCommon, _) => self.common.put_back(parts.common),
        }
    }

    /// Returns whether a zone has used up the overall rate. Writes nothing.
    pub(super) fn is_used_up(&self, zone: Zone, now: Micros, rates: Rates<'_>) -> bool {
        let parts = self.parts(zone, rates);
        self.common.is_used_up(now, parts.common)
            && parts
                .own
                .is_none_or(|(rate, own)| rate.is_used_up(now, own))
    }

    fn of_destination(&self, destination: Destination) -> Option<&Rate> {
        let Destination { zone, address } = destination;
        let hash = self.hasher.hash_one((zone, address)) as usize;
        self.destinations.get(hash % DESTINATIONS)
    }

    fn parts(&self, zone: Zone, rates: Rates<'_>) -> Parts<'_> {
        let overall = rates.config.overall;
        let own = guarantee(overall, rates.zones.len());
        if own == 0 {
            return Parts {
                own: None,
                common: overall,
            };
        }
        let is_sure = rates.zones.binary_search(&zone).is_ok();
        let zones = u32::try_from(rates.zones.len()).unwrap_or(u32::MAX);
        Parts {
            own: self
                .zones
                .get(zone)
                .filter(|_| is_sure)
                .map(|rate| (rate, own)),
            common: overall.saturating_sub(own.saturating_mul(zones)),
        }
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
    fn what_is_given_back_can_be_taken_again_from_the_same_part() {
        let config = ResetsConfig {
            per_destination: 8,
            overall: 8,
        };
        let zones = [Zone(1), Zone(2)];
        let rates = Rates {
            config: &config,
            zones: &zones,
        };
        let (budget, at) = (budget(), Micros(3_600_000_000));
        let destination = to(Zone(1), 1);
        for _ in 0..3 {
            let parts = std::iter::from_fn(|| budget.take(destination, at, rates).ok());
            let parts: Vec<_> = parts.collect();
            let own = parts.iter().filter(|paid| **paid == Paid::ByZone).count();
            assert_eq!((own, parts.len()), (2, 6));
            assert!(budget.is_used_up(Zone(1), at, rates));
            assert!(!budget.is_used_up(Zone(2), at, rates), "its own part");
            assert!(budget.is_used_up(Zone(3), at, rates));
            for paid in parts {
                budget.put_back(destination, paid, rates);
            }
            assert!(!budget.is_used_up(Zone(3), at, rates));
        }
        // A zone that has lost its guarantee meanwhile.
        let paid = budget.take(destination, at, rates).unwrap();
        let alone = Rates {
            zones: &[],
            ..rates
        };
        budget.put_back(destination, paid, alone);
        let other = to(Zone(1), 2);
        let all = std::iter::from_fn(|| budget.take(other, at, alone).ok());
        assert_eq!(all.count(), 8);
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
