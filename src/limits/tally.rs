//! Recount of the session table, to check the accounts against it.

use std::collections::{BTreeMap, HashMap};

use super::accounts::{Accounts, ZoneAccount};
use super::admission::{Counts, Subject};
use super::counted::{Holding, Key};
use super::standing::Standing;
use crate::atomic::Ordering;
use crate::flow::Zone;
use crate::policy::RuleId;

impl Accounts {
    /// Compares the counts with those of the table.
    ///
    /// # Errors
    /// Returns the first difference, as text.
    pub(crate) fn check_invariants(&self, tally: &Tally) -> Result<(), String> {
        self.check_zones(tally)?;
        self.check_rules(tally)?;
        self.check_sums(tally)?;
        self.check_prefixes(tally)
    }

    fn check_zones(&self, tally: &Tally) -> Result<(), String> {
        let of_zone = |account: &ZoneAccount| {
            let assured = account.assured.load(Ordering::Relaxed);
            [account.sessions(), account.half_open(), assured]
        };
        // Tests check after each step, so zones and rules without sessions cost no lookup.
        let zones = (0..=Zone::MAX.0).map(Zone).zip(&self.zones);
        let used = zones.filter(|(_, account)| of_zone(account) != [0; 3]);
        let all = tally
            .zones
            .keys()
            .map(|zone| (*zone, self.zone(*zone)))
            .chain(used);
        for (zone, account) in all {
            let own = of_zone(account);
            let of_table = tally.zones.get(&zone).copied().unwrap_or_default();
            if own != of_table {
                return Err(format!(
                    "zone {zone}: {of_table:?} sessions, half-open, assured, counted {own:?}"
                ));
            }
        }
        Ok(())
    }

    fn check_rules(&self, tally: &Tally) -> Result<(), String> {
        let rules = (0..=RuleId::DEFAULT.0).map(RuleId).zip(&self.rules);
        let used = rules.filter(|(_, count)| count.load(Ordering::Relaxed) != 0);
        let all = tally
            .rules
            .keys()
            .map(|rule| (*rule, self.rule(*rule)))
            .chain(used);
        for (rule, count) in all {
            let of_table = tally.rules.get(&rule).copied().unwrap_or_default();
            let own = count.load(Ordering::Relaxed);
            if own != of_table {
                return Err(format!(
                    "rule {}: {of_table} sessions, counted {own}",
                    rule.0
                ));
            }
        }
        Ok(())
    }

    fn check_sums(&self, tally: &Tally) -> Result<(), String> {
        let committed = self.committed();
        if committed != self.sum_committed() {
            let sum = self.sum_committed();
            return Err(format!("{committed} places committed, {sum} by zones"));
        }
        if self.assured() != tally.assured {
            let counted = self.assured();
            return Err(format!(
                "{} assured sessions, counted {counted}",
                tally.assured
            ));
        }
        Ok(())
    }

    fn check_prefixes(&self, tally: &Tally) -> Result<(), String> {
        let mut broken = None;
        self.counted.for_each(|key, holding| {
            let truth = tally.prefixes.get(key).copied().unwrap_or_default();
            if holding.sessions > truth.sessions
                || holding.half_open > truth.half_open
                || holding.assured > truth.assured
            {
                broken = Some(format!("{key:?} holds {truth:?}, counted {holding:?}"));
            }
        });
        if let Some(broken) = broken {
            return Err(broken);
        }
        if self.counted.has_forgotten() {
            return Ok(());
        }
        // If nothing was forgotten, counts are exact.
        let mut all = tally.prefixes.iter();
        match all.find(|(key, truth)| self.counted.holding(key) != **truth) {
            Some((key, truth)) => Err(format!(
                "{key:?} holds {truth:?}, counted {:?}",
                self.counted.holding(key)
            )),
            None => Ok(()),
        }
    }
}

/// Counts of the table itself, to compare the accounts with.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Sessions, half-open ones and assured ones.
    zones: BTreeMap<Zone, [u32; 3]>,
    rules: BTreeMap<RuleId, u32>,
    assured: usize,
    prefixes: HashMap<Key, Holding>,
}

impl Tally {
    /// Adds a session.
    pub(crate) fn add(
        &mut self,
        accounts: &Accounts,
        subject: Subject<'_>,
        counts: Counts,
        standing: Standing,
    ) {
        let [all, half_open, assured] = self.zones.entry(subject.key.zone()).or_default();
        *all += 1;
        *half_open += u32::from(standing.half_open);
        *assured += u32::from(standing.assured);
        *self.rules.entry(subject.rule).or_default() += 1;
        self.assured += usize::from(standing.assured);
        for key in subject.entries(accounts, counts) {
            self.prefixes.entry(key).or_default().add(standing);
        }
    }
}
