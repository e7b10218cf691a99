//! Budget of the questions to the store: a rate for each source, and an overall rate.
//!
//! The overall rate has two halves. One is for sources that are an end of a session that a question
//! has moved within the last minute ([`PROVEN_MILLIS`]): a flood of stray packets with forged
//! sources leaves it to them, so that sessions move during a flood. The other half is for all
//! sources.
//!
//! A question that finds something gives back three quarters of what was paid for it. So the rates
//! bound the questions in vain, and sessions move four times as fast. Nothing is free: hosts that
//! let sessions go back and forth between engines have a bound as well.
//!
//! With several zones, each is guaranteed its part of either half
//! ([`guarantee`](crate::limits::share::guarantee)).

use super::budget::{Destination, Destinations, Paid, Pool, Rates};
use super::recent::Recent;
use crate::config::{ContinuityConfig, ResetsConfig};
use crate::flow::Zone;
use crate::question::Unasked;
use crate::reserve::NoMemory;
use crate::session::Micros;

/// Number of sources that are remembered.
const SOURCES: usize = 4_096;

/// The time for which a source is remembered.
const PROVEN_MILLIS: u32 = 60_000;

/// Half of the overall rate, and its part, that a question was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuestionPaid {
    /// The half for proven sources.
    Proven(Paid),
    /// The half for all sources.
    Any(Paid),
}

/// The budget of all questions.
#[derive(Debug)]
pub(super) struct QuestionBudget {
    per_source: u32,
    /// The rates of both halves; those of a source are the same.
    for_proven: ResetsConfig,
    for_any: ResetsConfig,
    sources: Destinations,
    proven_pool: Pool,
    any_pool: Pool,
    proven: Recent,
}

impl QuestionBudget {
    /// Returns the bytes that count as those of questions: those of the sources that are
    /// remembered.
    pub(super) const fn bytes() -> usize {
        Recent::bytes(SOURCES)
    }

    pub(super) fn new(
        config: &ContinuityConfig,
        hasher: &ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let per_source = config.questions_per_source;
        let half = |overall| ResetsConfig {
            per_destination: per_source,
            overall,
        };
        let proven = config.questions / 2;
        Ok(Self {
            per_source,
            for_proven: half(proven),
            for_any: half(config.questions - proven),
            sources: Destinations::new(hasher.clone())?,
            proven_pool: Pool::default(),
            any_pool: Pool::default(),
            proven: Recent::new(SOURCES, PROVEN_MILLIS, hasher.clone())?,
        })
    }

    const fn proven_rates<'a>(&'a self, zones: &'a [Zone]) -> Rates<'a> {
        Rates {
            config: &self.for_proven,
            zones,
        }
    }

    const fn any_rates<'a>(&'a self, zones: &'a [Zone]) -> Rates<'a> {
        Rates {
            config: &self.for_any,
            zones,
        }
    }

    fn is_proven(&self, source: Destination, now: Micros) -> bool {
        self.proven.contains(&source, now)
    }

    /// Takes one question about a packet of a source.
    ///
    /// # Errors
    /// Returns the rate that is used up.
    pub(super) fn take(
        &self,
        source: Destination,
        now: Micros,
        zones: &[Zone],
    ) -> Result<QuestionPaid, Unasked> {
        let rate = self.sources.of(source).ok_or(Unasked::SourceBudget)?;
        if !rate.take(now, self.per_source) {
            return Err(Unasked::SourceBudget);
        }
        let (zone, pools) = (source.zone, (&self.proven_pool, &self.any_pool));
        let of_proven = || {
            let taken = || pools.0.take(zone, now, self.proven_rates(zones));
            self.is_proven(source, now).then(taken).flatten()
        };
        let of_any = || pools.1.take(zone, now, self.any_rates(zones));
        let paid = of_proven()
            .map(QuestionPaid::Proven)
            .or_else(|| of_any().map(QuestionPaid::Any));
        paid.ok_or_else(|| {
            rate.put_back(self.per_source);
            Unasked::OverallBudget
        })
    }

    /// Returns the rate that refuses a question about a packet of a source. Takes nothing.
    pub(super) fn refusal(
        &self,
        source: Destination,
        now: Micros,
        zones: &[Zone],
    ) -> Option<Unasked> {
        let of_source = self.sources.of(source);
        if of_source.is_none_or(|rate| rate.is_used_up(now, self.per_source)) {
            return Some(Unasked::SourceBudget);
        }
        let zone = source.zone;
        let for_proven = || {
            self.is_proven(source, now)
                && !self
                    .proven_pool
                    .is_used_up(zone, now, self.proven_rates(zones))
        };
        let used_up = self.any_pool.is_used_up(zone, now, self.any_rates(zones)) && !for_proven();
        used_up.then_some(Unasked::OverallBudget)
    }

    /// Remembers a source, of a session that a question has moved.
    pub(super) fn prove(&self, source: Destination, now: Micros) {
        self.proven.note(&source, now, PROVEN_MILLIS);
    }

    /// Gives back most of what was paid for a question that has found something.
    pub(super) fn put_back(&self, source: Destination, paid: QuestionPaid, zones: &[Zone]) {
        if let Some(rate) = self.sources.of(source) {
            rate.put_back_most(self.per_source);
        }
        let zone = source.zone;
        match paid {
            QuestionPaid::Proven(paid) => {
                self.proven_pool
                    .put_back_most(zone, paid, self.proven_rates(zones));
            }
            QuestionPaid::Any(paid) => {
                self.any_pool
                    .put_back_most(zone, paid, self.any_rates(zones));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Micros = Micros(3_600_000_000);

    fn budget(questions: u32, questions_per_source: u32) -> QuestionBudget {
        let config = ContinuityConfig {
            questions,
            questions_per_source,
            ..ContinuityConfig::default()
        };
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        QuestionBudget::new(&config, &hasher).unwrap()
    }

    const fn source(zone: u16, address: u128) -> Destination {
        Destination {
            zone: Zone(zone),
            address,
        }
    }

    /// Asks in vain as long as the budget allows it.
    fn in_vain(budget: &QuestionBudget, source: Destination, at: Micros, zones: &[Zone]) -> usize {
        std::iter::from_fn(|| budget.take(source, at, zones).ok()).count()
    }

    #[test]
    fn questions_that_find_something_cost_a_quarter() {
        let budget = budget(8, 100);
        let mut found = 0;
        while let Ok(paid) = budget.take(source(0, 1), AT, &[]) {
            found += 1;
            budget.put_back(source(0, 1), paid, &[]);
            budget.prove(source(0, 1), AT);
        }
        // Of each half, 3 questions in vain are paid with twelve, and the fourth needs a whole.
        assert_eq!(found, 2 * 13);
        assert_eq!(in_vain(&budget, source(0, 1), AT, &[]), 0);
        assert_eq!(
            budget.take(source(0, 1), AT, &[]),
            Err(Unasked::OverallBudget)
        );
    }

    #[test]
    fn a_source_has_its_rate_in_both_halves_together() {
        let budget = budget(100, 4);
        let paid = budget.take(source(0, 1), AT, &[]).unwrap();
        budget.put_back(source(0, 1), paid, &[]);
        budget.prove(source(0, 1), AT);
        assert_eq!(in_vain(&budget, source(0, 1), AT, &[]), 3);
        let refusal = budget.refusal(source(0, 1), AT, &[]);
        assert_eq!(refusal, Some(Unasked::SourceBudget));
        assert_eq!(budget.refusal(source(0, 2), AT, &[]), None);
        let refused = budget.take(source(0, 1), AT, &[]);
        assert_eq!(refused, Err(Unasked::SourceBudget));
    }

    #[test]
    fn a_flood_from_many_sources_leaves_half_to_those_that_have_proven_themselves() {
        let budget = budget(20, 100);
        let server = source(0, 1);
        let paid = budget.take(server, AT, &[]).unwrap();
        budget.put_back(server, paid, &[]);
        budget.prove(server, AT);
        let is_refused = |source, at| budget.refusal(source, at, &[]).is_some();
        let flood = (2..1_000).filter(|n| budget.take(source(0, *n), AT, &[]).is_ok());
        assert_eq!(flood.count(), 9);
        assert!(is_refused(source(0, 2), AT));
        assert!(!is_refused(server, AT));
        assert_eq!(in_vain(&budget, server, AT, &[]), 10);
        assert!(is_refused(server, AT));
        // A minute later it is as unknown as all others.
        let later = Micros(AT.0 + 60_000_000);
        assert_eq!(in_vain(&budget, server, later, &[]), 10);
        assert!(is_refused(server, later));
    }

    #[test]
    fn each_zone_is_sure_of_its_part_of_either_half() {
        let budget = budget(40, 100);
        let zones = [Zone(1), Zone(2)];
        assert_eq!(in_vain(&budget, source(1, 1), AT, &zones), 15);
        assert_eq!(budget.refusal(source(2, 1), AT, &zones), None);
        assert_eq!(in_vain(&budget, source(2, 1), AT, &zones), 5);
        let refusal = budget.refusal(source(2, 2), AT, &zones);
        assert_eq!(refusal, Some(Unasked::OverallBudget));
    }
}
