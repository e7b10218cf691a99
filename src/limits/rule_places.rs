//! Places of rules, of which each session has one.

use super::accounts::{Accounts, LOOKS};
use super::lots::{Entry, Of};
use crate::atomic::{AtomicU32, Ordering};
use crate::policy::id::RuleId;

impl Accounts {
    #[expect(clippy::indexing_slicing, reason = "every rule number has a counter")]
    #[inline]
    fn rule(&self, rule: RuleId) -> &AtomicU32 {
        &self.rules[usize::from(rule.0)]
    }

    /// Returns the number of sessions that a rule has admitted.
    pub(super) fn sessions_of_rule(&self, rule: RuleId) -> u32 {
        let entries = self.lots.entries(Of::Rules, rule.0);
        let idle: u32 = entries.map(|entry| u32::from(entry.idle)).sum();
        let taken = self.rule(rule).load(Ordering::Relaxed);
        taken.saturating_sub(idle)
    }

    /// Claims a place for a session of a rule with a bound on its sessions.
    ///
    /// # Errors
    /// Returns the number of its sessions if there is no place.
    #[inline]
    pub(super) fn claim_of_rule(&self, rule: RuleId, bound: Option<u32>) -> Result<(), u32> {
        match bound {
            None if self.lots.take(Of::Rules, rule.0) => Ok(()),
            _ => self.claim_of_rule_shared(rule, bound.unwrap_or(u32::MAX)),
        }
    }

    #[inline(never)]
    fn claim_of_rule_shared(&self, rule: RuleId, bound: u32) -> Result<(), u32> {
        let shared = self.rule(rule);
        let lot = self.lots.lot(Of::Rules, rule.0);
        let mut taken = shared.load(Ordering::Relaxed);
        loop {
            if taken > bound {
                // A reload may have lowered the bound: idle places beyond it are given up.
                if !self.give_up_idle_of_rule(rule) {
                    return Err(taken);
                }
                taken = shared.load(Ordering::Relaxed);
                continue;
            }
            if self.lots.take(Of::Rules, rule.0) {
                return Ok(());
            }
            let places = lot.min(bound - taken);
            if places == 0 {
                let is_claimed = self.lots.take_any(Of::Rules, rule.0);
                return if is_claimed { Ok(()) } else { Err(taken) };
            }
            let exchanged = shared.compare_exchange_weak(
                taken,
                taken + places,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => {
                    if lot == 1 && taken.is_multiple_of(LOOKS) {
                        let displaced = self.lots.displace(Of::Rules, rule.0);
                        displaced
                            .into_iter()
                            .for_each(|entry| self.settle_rule(entry));
                    }
                    self.release_of_rule(rule, places - 1);
                    return Ok(());
                }
                Err(now) => taken = now,
            }
        }
    }

    /// Gives up all idle places of a rule. Returns whether there were any.
    #[cold]
    fn give_up_idle_of_rule(&self, rule: RuleId) -> bool {
        let mut any = false;
        let own = |number| number == rule.0;
        self.lots.take_idle(Of::Rules, own, |_, idle| {
            any = true;
            self.rule(rule)
                .fetch_sub(u32::from(idle), Ordering::Relaxed);
        });
        any
    }

    /// Gives back places of a rule.
    #[inline]
    pub(super) fn release_of_rule(&self, rule: RuleId, places: u32) {
        if places == 0 {
            return;
        }
        let entry = Entry {
            number: rule.0,
            idle: places as u16,
            half_open: 0,
            assured: 0,
        };
        if let Some(entry) = self.lots.put(Of::Rules, entry) {
            self.settle_rule(entry);
        }
    }

    fn settle_rule(&self, entry: Entry) {
        let rule = self.rule(RuleId(entry.number));
        rule.fetch_sub(u32::from(entry.idle), Ordering::Relaxed);
    }
}
