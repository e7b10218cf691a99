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

/// Destination of a packet that the engine sends, or source of one that it asks about.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Destination {
    pub(super) zone: Zone,
    /// Address as [`crate::flow::FlowKey::address_number`] returns it.
    pub(super) address: u128,
}

/// Part of an overall rate that a packet was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paid {
    /// The guaranteed rate of its zone.
    ByZone,
    /// The rate that all zones share.
    InCommon,
}

/// The rates of destinations.
#[derive(Debug)]
pub(super) struct Destinations {
    rates: Box<[Rate]>,
    hasher: ahash::RandomState,
}

impl Destinations {
    pub(super) fn new(hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        Ok(Self {
            rates: Purpose::Rates.items(DESTINATIONS, Rate::default)?,
            hasher,
        })
    }

    /// Returns the rate of a destination, which always exists.
    pub(super) fn of(&self, destination: Destination) -> Option<&Rate> {
        let hash = self.hasher.hash_one(destination) as usize;
        self.rates.get(hash % DESTINATIONS)
    }
}

/// An overall rate that zones share.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Guaranteed rate of each zone.
    zones: ByZone<Rate>,
    /// Rate that all zones share.
    common: Rate,
}

/// The overall rate, as a zone may use it.
#[derive(Debug, Clone, Copy)]
struct Parts<'a> {
    /// The zone's guaranteed rate, if it has one, and the packets of it for each second.
    own: Option<(&'a Rate, u32)>,
    /// The packets for each second that all zones share.
    common: u32,
}

impl Pool {
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
        let of_zone = is_sure.then(|| self.zones.get(zone)).flatten();
        Parts {
            own: of_zone.map(|rate| (rate, own)),
            common: overall.saturating_sub(own.saturating_mul(zones)),
        }
    }

    /// Takes one packet of a zone. Returns the part that has paid for it, `None` if the rate is
    /// used up.
    pub(super) fn take(&self, zone: Zone, now: Micros, rates: Rates<'_>) -> Option<Paid> {
        let parts = self.parts(zone, rates);
        if parts.own.is_some_and(|(rate, own)| rate.take(now, own)) {
            Some(Paid::ByZone)
        } else {
            let taken = self.common.take(now, parts.common);
            taken.then_some(Paid::InCommon)
        }
    }

    /// Gives back three quarters of a packet, which a part has paid for.
    pub(super) fn put_back_most(&self, zone: Zone, paid: Paid, rates: Rates<'_>) {
        let parts = self.parts(zone, rates);
        match (paid, parts.own) {
            (Paid::ByZone, Some((rate, own))) => rate.put_back_most(own),
            // The zone has lost its guarantee meanwhile.
            (Paid::ByZone, None) => {}
            (Paid::InCommon, _) => self.common.put_back_most(parts.common),
        }
    }

    /// Returns whether a zone has used up the rate. Takes nothing.
    pub(super) fn is_used_up(&self, zone: Zone, now: Micros, rates: Rates<'_>) -> bool {
        let parts = self.parts(zone, rates);
        self.common.is_used_up(now, parts.common)
            && parts
                .own
                .is_none_or(|(rate, own)| rate.is_used_up(now, own))
    }
}

/// The budget of one kind of packet.
#[derive(Debug)]
pub(super) struct Budget {
    destinations: Destinations,
    pool: Pool,
}

impl Budget {
    pub(super) fn new(hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        Ok(Self {
            destinations: Destinations::new(hasher)?,
            pool: Pool::default(),
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
        let Some(rate) = self.destinations.of(destination) else {
            return Err(Unsent::DestinationBudget);
        };
        if !rate.take(now, per_destination) {
            return Err(Unsent::DestinationBudget);
        }
        if self.pool.take(destination.zone, now, rates).is_none() {
            rate.put_back(per_destination);
            return Err(Unsent::OverallBudget);
        }
        Ok(())
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
    fn what_is_given_back_goes_to_the_part_that_has_paid() {
        let config = ResetsConfig {
            per_destination: 0,
            overall: 8,
        };
        let zones = [Zone(1), Zone(2)];
        let rates = Rates {
            config: &config,
            zones: &zones,
        };
        let (pool, at, zone) = (Pool::default(), Micros(3_600_000_000), Zone(1));
        let take_all = || std::iter::from_fn(|| pool.take(zone, at, rates)).collect::<Vec<_>>();
        let parts = take_all();
        let own = parts.iter().filter(|paid| **paid == Paid::ByZone).count();
        assert_eq!((own, parts.len()), (2, 6));
        assert!(pool.is_used_up(zone, at, rates));
        assert!(!pool.is_used_up(Zone(2), at, rates), "its own part");
        assert!(pool.is_used_up(Zone(3), at, rates), "no zone in force");
        for paid in parts {
            pool.put_back_most(zone, paid, rates);
        }
        assert!(!pool.is_used_up(Zone(3), at, rates));
        // Three quarters of two, and of four.
        assert_eq!(
            take_all(),
            [Paid::ByZone, Paid::InCommon, Paid::InCommon, Paid::InCommon]
        );
        // A zone that has lost its guarantee meanwhile.
        let alone = Rates {
            zones: &[],
            ..rates
        };
        pool.put_back_most(zone, Paid::ByZone, alone);
        assert!(pool.is_used_up(zone, at, rates));
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
