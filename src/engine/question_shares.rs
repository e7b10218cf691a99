//! Shares of open questions and held packets, by zone and source.
//!
//! With `Z` zones in force, each is sure of its part of each bound
//! ([`guarantee`](crate::limits::share::guarantee)); the rest is first come, first served. A source
//! takes more only while as much stays free for the other sources of its zone as it holds already.
//! So one source fills at most half of what its zone can have, and a flood from one zone leaves the
//! parts of the others.
//!
//! A packet counts for the source that has caused the question of its flow. All memory is reserved
//! at the start: no more sources and zones hold something than there are questions.

use std::collections::HashMap;

use crate::config::ContinuityConfig;
use crate::flow::Zone;
use crate::limits::share::guarantee;
use crate::question::Unasked;
use crate::reserve::{NoMemory, Purpose};

/// Number of shared resources: questions, packets, and IP bytes.
const KINDS: usize = 3;

/// Numbers of questions, packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load(pub(super) [u64; KINDS]);

impl Load {
    pub(super) const fn new(questions: u64, packets: u64, bytes: u64) -> Self {
        Self([questions, packets, bytes])
    }

    /// Returns the bounds of a configuration.
    pub(super) fn most(config: &ContinuityConfig) -> Self {
        Self([config.max_questions, config.max_held, config.max_held_bytes].map(u64::from))
    }

    pub(super) const fn packets(self) -> u64 {
        let [_, packets, _] = self.0;
        packets
    }

    pub(super) const fn bytes(self) -> u64 {
        let [_, _, bytes] = self.0;
        bytes
    }

    fn each(self, other: Self, compute: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = self;
        for (own, other) in result.0.iter_mut().zip(other.0) {
            *own = compute(*own, other);
        }
        result
    }

    pub(super) fn plus(self, more: Self) -> Self {
        self.each(more, u64::saturating_add)
    }

    fn minus(self, less: Self) -> Self {
        self.each(less, u64::saturating_sub)
    }

    fn least(self, other: Self) -> Self {
        self.each(other, u64::min)
    }
}

/// Source that a question counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Payer {
    pub(super) zone: Zone,
    /// The counted prefix of the source.
    pub(super) source: u128,
    /// Whether the zone is in force, and so has a guarantee.
    pub(super) is_sure: bool,
}

impl Payer {
    /// Returns a source of a zone; `zones` are those in force, in order.
    pub(super) fn new(zone: Zone, source: u128, zones: &[Zone]) -> Self {
        Self {
            zone,
            source,
            is_sure: zones.binary_search(&zone).is_ok(),
        }
    }
}

/// Bounds, and what zones and sources hold of them.
#[derive(Debug)]
pub(super) struct QuestionShares {
    max: Load,
    used: Load,
    /// Number of zones in force, and what each of them is sure of.
    zones_in_force: usize,
    guarantee: Load,
    /// The parts of guarantees that are in use.
    covered: Load,
    zones: HashMap<Zone, Load, ahash::RandomState>,
    sources: HashMap<Payer, Load, ahash::RandomState>,
}

impl QuestionShares {
    pub(super) fn new(max: Load, hasher: &ahash::RandomState) -> Result<Self, NoMemory> {
        let [questions, ..] = max.0;
        // Room for twice as many: a map that is at most half full never grows.
        let room = 2 * questions as usize;
        Ok(Self {
            max,
            used: Load::default(),
            zones_in_force: 0,
            guarantee: Load::default(),
            covered: Load::default(),
            zones: Purpose::Questions.map(room, hasher)?,
            sources: Purpose::Questions.map(room, hasher)?,
        })
    }

    /// Returns the bytes for a number of questions.
    pub(super) const fn bytes(questions: u32) -> usize {
        let entries = size_of::<(Zone, Load)>() + size_of::<(Payer, Load)>() + 2;
        4 * questions as usize * entries
    }

    pub(super) const fn used(&self) -> Load {
        self.used
    }

    /// Divides the bounds among a number of zones, if it has changed.
    fn divide(&mut self, zones: usize) {
        if self.zones_in_force == zones {
            return;
        }
        self.zones_in_force = zones;
        let share = |max: u64| guarantee(u32::try_from(max).unwrap_or(u32::MAX), zones);
        self.guarantee = Load(self.max.0.map(|max| u64::from(share(max))));
        let parts = self.zones.values().map(|used| used.least(self.guarantee));
        self.covered = parts.fold(Load::default(), Load::plus);
    }

    /// Takes places for a source, all or none.
    ///
    /// # Errors
    /// Returns the bound that is reached.
    pub(super) fn claim(&mut self, payer: &Payer, zones: usize, more: Load) -> Result<(), Unasked> {
        self.divide(zones);
        let of_source = self.sources.get(payer).copied().unwrap_or_default();
        let own = self.zones.get(&payer.zone).copied().unwrap_or_default();
        let own_unused = match payer.is_sure {
            true => self.guarantee.minus(own),
            false => Load::default(),
        };
        let all = Load(
            self.guarantee
                .0
                .map(|share| share.saturating_mul(zones as u64)),
        );
        let free = self.max.minus(self.used);
        // What other zones are sure of stays free.
        let room = free.minus(all.minus(self.covered).minus(own_unused));
        let wanted = more.0.into_iter().enumerate().filter(|(_, more)| *more > 0);
        for (kind, more) in wanted {
            let at = |load: Load| load.0.get(kind).copied().unwrap_or_default();
            if more > at(free) {
                return Err(if kind == 0 {
                    Unasked::Questions
                } else {
                    Unasked::Held
                });
            }
            if more > at(room) || at(room) - more < at(of_source) {
                return Err(Unasked::Share);
            }
        }
        self.used = self.used.plus(more);
        self.sources.insert(*payer, of_source.plus(more));
        if payer.is_sure {
            self.note_zone(payer.zone, own, own.plus(more));
        }
        Ok(())
    }

    /// Gives places back.
    pub(super) fn release(&mut self, payer: &Payer, less: Load) {
        self.used = self.used.minus(less);
        if let Some(held) = self.sources.get_mut(payer) {
            *held = held.minus(less);
            if *held == Load::default() {
                self.sources.remove(payer);
            }
        }
        if payer.is_sure
            && let Some(own) = self.zones.get(&payer.zone).copied()
        {
            self.note_zone(payer.zone, own, own.minus(less));
        }
    }

    fn note_zone(&mut self, zone: Zone, before: Load, after: Load) {
        let part = |used: Load| used.least(self.guarantee);
        self.covered = self.covered.minus(part(before)).plus(part(after));
        if after == Load::default() {
            self.zones.remove(&zone);
        } else {
            self.zones.insert(zone, after);
        }
    }

    /// Checks that the sums agree.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        let sum = |loads: &mut dyn Iterator<Item = Load>| loads.fold(Load::default(), Load::plus);
        let of_sources = sum(&mut self.sources.values().copied());
        let covered = sum(&mut self.zones.values().map(|used| used.least(self.guarantee)));
        if of_sources != self.used || covered != self.covered {
            return Err(format!("sources hold {of_sources:?} of {:?}", self.used));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Load = Load::new(1, 1, 100);

    fn shares(questions: u64, packets: u64) -> QuestionShares {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        QuestionShares::new(Load::new(questions, packets, 1 << 20), &hasher).unwrap()
    }

    const fn payer(zone: u16, source: u128) -> Payer {
        Payer {
            zone: Zone(zone),
            source,
            is_sure: zone < 100,
        }
    }

    /// Takes as many places as there are, and returns their number and the bound.
    fn fill(shares: &mut QuestionShares, payer: &Payer, zones: usize) -> (u64, Unasked) {
        let mut taken = 0;
        loop {
            match shares.claim(payer, zones, ONE) {
                Ok(()) => taken += 1,
                Err(why) => return (taken, why),
            }
            shares.check_invariants().unwrap();
        }
    }

    #[test]
    fn each_source_leaves_as_much_as_it_holds() {
        let mut shares = shares(64, 1_000);
        let taken: Vec<u64> = (1..=4)
            .map(|source| fill(&mut shares, &payer(1, source), 1).0)
            .collect();
        assert_eq!(taken, [32, 16, 8, 4]);
        for source in 5..20 {
            fill(&mut shares, &payer(1, source), 1);
        }
        assert_eq!(
            fill(&mut shares, &payer(1, 99), 1),
            (0, Unasked::Questions),
            "all are taken"
        );
        for _ in 0..32 {
            shares.release(&payer(1, 1), ONE);
        }
        assert_eq!(fill(&mut shares, &payer(1, 99), 1).0, 16);
    }

    #[test]
    fn a_zone_is_sure_of_its_part_and_a_zone_without_a_name_of_none() {
        let mut shares = shares(1_000, 80);
        // Of 80 packets, each of two zones is sure of 20.
        for source in 0..200 {
            fill(&mut shares, &payer(100, source), 2);
        }
        assert_eq!(shares.used().packets(), 40, "what nobody is sure of");
        for source in 0..200 {
            fill(&mut shares, &payer(1, source), 2);
        }
        assert_eq!(shares.used().packets(), 60);
        assert_eq!(fill(&mut shares, &payer(2, 1), 2), (10, Unasked::Share));
        for source in 2..20 {
            fill(&mut shares, &payer(2, source), 2);
        }
        assert_eq!(shares.used().packets(), 80);
        assert_eq!(fill(&mut shares, &payer(2, 99), 2), (0, Unasked::Held));
    }

    #[test]
    fn what_is_given_back_is_free_whatever_a_reload_has_changed() {
        let mut shares = shares(100, 100);
        let (one, two) = (payer(1, 1), payer(2, 2));
        let (of_one, _) = fill(&mut shares, &one, 2);
        let (of_two, _) = fill(&mut shares, &two, 4);
        for (payer, count) in [(one, of_one), (two, of_two)] {
            for _ in 0..count {
                shares.release(&payer, ONE);
            }
            shares.check_invariants().unwrap();
        }
        assert_eq!(shares.used(), Load::default());
        assert!(shares.zones.is_empty() && shares.sources.is_empty());
    }
}
