//! How many packets of its own the engine sends: a rate for each destination, and one for all.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::ResetsConfig;
use crate::flow::Zone;
use crate::session::Micros;

/// Counters of destinations. Two destinations may share one, by a keyed hash: memory stays bounded and nothing is
/// looked for.
const DESTINATIONS: usize = 4_096;

/// A rate with a burst of one second's worth, in one word: the moment at which the next packet would be on time (the
/// generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Rate(AtomicU64);

const SECOND: u64 = 1_000_000_000;

impl Rate {
    /// Takes one packet, if the rate allows.
    pub(super) fn take(&self, now: Micros, per_second: u32) -> bool {
        let now = now.0 * 1_000;
        if per_second == 0 {
            return false;
        }
        let interval = SECOND / u64::from(per_second);
        let take = |due: u64| {
            let due = due.max(now);
            (due + interval <= now + SECOND).then_some(due + interval)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Gives one packet back.
    pub(super) fn put_back(&self, per_second: u32) {
        let interval = SECOND / u64::from(per_second.max(1));
        self.0.fetch_sub(interval, Ordering::Relaxed);
    }
}

/// Why a packet of the engine's own was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsent {
    /// Its destination has had as many as `resets.per_destination` allows.
    DestinationBudget,
    /// All together are as many as `resets.overall` allows.
    OverallBudget,
    /// The number that its receiver accepts was never seen.
    NumberUnknown,
    /// Nobody listens: the session was found to be over by a call without a sink.
    NoSink,
}

impl Unsent {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::DestinationBudget,
        Self::OverallBudget,
        Self::NumberUnknown,
        Self::NoSink,
    ];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DestinationBudget => "destination_budget",
            Self::OverallBudget => "overall_budget",
            Self::NumberUnknown => "number_unknown",
            Self::NoSink => "no_sink",
        }
    }
}

/// Both rates.
#[derive(Debug)]
pub(super) struct Budget {
    destinations: Box<[Rate]>,
    overall: Rate,
    hasher: ahash::RandomState,
}

impl Budget {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            destinations: (0..DESTINATIONS).map(|_| Rate::default()).collect(),
            overall: Rate::default(),
            hasher,
        }
    }

    /// Takes a packet to a destination.
    pub(super) fn take(
        &self,
        (zone, address): (Zone, u128),
        now: Micros,
        config: &ResetsConfig,
    ) -> Result<(), Unsent> {
        let hash = self.hasher.hash_one((zone, address)) as usize;
        let Some(destination) = self.destinations.get(hash % DESTINATIONS) else {
            return Err(Unsent::DestinationBudget);
        };
        if !destination.take(now, config.per_destination) {
            return Err(Unsent::DestinationBudget);
        }
        if !self.overall.take(now, config.overall) {
            destination.put_back(config.per_destination);
            return Err(Unsent::OverallBudget);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ResetsConfig = ResetsConfig {
        per_destination: 10,
        overall: 25,
    };

    fn budget() -> Budget {
        Budget::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn taken(budget: &Budget, destination: u128, at: Micros) -> usize {
        (0..100)
            .filter(|_| budget.take((Zone::DEFAULT, destination), at, &CONFIG).is_ok())
            .count()
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
            budget.take((Zone::DEFAULT, 9), at, &CONFIG),
            Err(Unsent::OverallBudget)
        );
        // What the overall budget refused was not taken from the destination's.
        assert_eq!(taken(&budget, 4, Micros(at.0 + 10_000_000)), 10);
    }

    #[test]
    fn a_rate_of_zero_sends_nothing() {
        let none = ResetsConfig {
            per_destination: 0,
            ..CONFIG
        };
        let refused = budget().take((Zone::DEFAULT, 1), Micros(1), &none);
        assert_eq!(refused, Err(Unsent::DestinationBudget));
    }
}
