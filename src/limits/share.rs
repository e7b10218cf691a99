//! Shares of a bounded resource by zone: guarantees, not quotas.
//!
//! With `Z` zones in force, each has `max / (2 * Z)` slots that no other zone can take, and at
//! least one. The rest is the common part, which is first come, first served. With fewer than two
//! zones there are no guarantees, and everything is common.
//!
//! A source that already holds half of its zone's guarantee draws from the common part alone. A
//! source draws from the common part only while it leaves about as much as it takes. One source
//! therefore never uses up the guarantee of its zone, and each further source takes a fraction of
//! the remaining slots.
//!
//! The counters are exact and lock-free. Two rules hold at any time:
//! - the slots in use never exceed `max`;
//! - the slots in use and the guarantees not in use together do not exceed `max`. The exception is
//!   a reload that adds zones while the resource is full: the new guarantees take effect as slots
//!   are returned.
//!
//! Zones that no configuration names have no guarantee.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::by_zone::ByZone;
use crate::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::flow::Zone;

#[cfg(test)]
mod tests;

/// The counter of a zone: the number of guaranteed slots, and the number in use.
#[derive(Debug, Clone, Copy)]
struct Account {
    guarantee: u32,
    used: u32,
}

impl Account {
    const fn of(word: u64) -> Self {
        Self {
            guarantee: (word >> 32) as u32,
            used: word as u32,
        }
    }

    const fn word(self) -> u64 {
        (self.guarantee as u64) << 32 | self.used as u64
    }

    /// Returns the number of used slots from the common part.
    const fn excess(self) -> i64 {
        self.used.saturating_sub(self.guarantee) as i64
    }
}

/// Origin of the slots of a claim, which is needed to return them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// The guarantee of the zone, or the common part once that is used up.
    Zone,
    /// The common part alone.
    Common,
}

/// Shares of a bounded resource by zone. See the [module](self).
#[derive(Debug)]
pub(crate) struct ZoneShares {
    accounts: ByZone<AtomicU64>,
    /// Remaining slots of the common part. Below zero while guarantees wait for slots.
    common: AtomicI64,
    /// Places in use.
    used: AtomicU64,
    max: AtomicU64,
    /// The zones with a guarantee.
    named: Mutex<BTreeSet<Zone>>,
}

impl ZoneShares {
    /// Returns shares of `max` slots among the given zones, with all slots free.
    pub(crate) fn new(max: u32, zones: impl IntoIterator<Item = Zone>) -> Self {
        let shares = Self {
            accounts: ByZone::default(),
            common: AtomicI64::new(i64::from(max)),
            used: AtomicU64::new(0),
            max: AtomicU64::new(u64::from(max)),
            named: Mutex::default(),
        };
        shares.set(max, zones);
        shares
    }

    fn account(&self, zone: Zone) -> Option<&AtomicU64> {
        self.accounts.get(zone)
    }

    /// Exchanges the number of slots and the zones that have a guarantee. Slots in use stay in use,
    /// even above a smaller `max`.
    pub(crate) fn set(&self, max: u32, zones: impl IntoIterator<Item = Zone>) {
        let mut named = self.named.lock();
        let zones: BTreeSet<Zone> = zones.into_iter().collect();
        let guarantee = guarantee(max, zones.len());
        let before = self.max.swap(u64::from(max), Ordering::AcqRel);
        self.common
            .fetch_add(i64::from(max) - before as i64, Ordering::AcqRel);
        for zone in named.difference(&zones) {
            self.guarantee_to(*zone, 0);
        }
        for zone in &zones {
            self.guarantee_to(*zone, guarantee);
        }
        *named = zones;
    }

    fn guarantee_to(&self, zone: Zone, guarantee: u32) {
        let Some(account) = self.account(zone) else {
            return;
        };
        let change = |word| {
            Some(
                Account {
                    guarantee,
                    ..Account::of(word)
                }
                .word(),
            )
        };
        let changed = account.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        let before = Account::of(changed.unwrap_or_else(|word| word));
        let after = Account {
            guarantee,
            ..before
        };
        let taken = i64::from(after.guarantee) + after.excess();
        let returned = i64::from(before.guarantee) + before.excess();
        self.common.fetch_add(returned - taken, Ordering::AcqRel);
    }

    /// Takes a slot for a zone, if one is left in its guarantee or in the common part.
    pub(crate) fn claim(&self, zone: Zone) -> bool {
        self.claim_places(zone, 1)
    }

    /// Takes `places` slots for a zone, all or none.
    pub(crate) fn claim_places(&self, zone: Zone, places: u32) -> bool {
        self.claim_leaving(zone, places, 0)
    }

    /// Takes `places` slots for a zone, all or none; from the common part only while enough of it
    /// is left.
    fn claim_leaving(&self, zone: Zone, places: u32, left: i64) -> bool {
        let Some(account) = self.account(zone) else {
            return false;
        };
        let mut word = account.load(Ordering::Acquire);
        loop {
            let before = Account::of(word);
            let Some(used) = before.used.checked_add(places) else {
                return false;
            };
            let after = Account { used, ..before };
            let common = after.excess() - before.excess();
            if common > 0 && !self.claim_common(common, left) {
                return false;
            }
            match account.compare_exchange_weak(
                word,
                after.word(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if self.use_places(places) => return true,
                // A reload has added this guarantee, and others still use its slots.
                Ok(_) => {
                    self.give_back(account, places);
                    return false;
                }
                Err(now) => {
                    self.common.fetch_add(common, Ordering::AcqRel);
                    word = now;
                }
            }
        }
    }

    /// Takes `places` slots for a source of a zone that already holds `held`, all or none. A source
    /// with half of its zone's guarantee draws from the common part. There the source leaves as
    /// much as it takes.
    pub(crate) fn claim_for_source(&self, zone: Zone, places: u32, held: u32) -> Option<Drawn> {
        let own = self.guarantee(zone).div_ceil(2);
        let holds = held.saturating_add(places);
        if holds <= own {
            let claimed = self.claim_leaving(zone, places, i64::from(held));
            return claimed.then_some(Drawn::Zone);
        }
        let taken = i64::from(held.saturating_sub(own));
        if !self.claim_common(i64::from(places), taken) {
            return None;
        }
        if !self.use_places(places) {
            self.common.fetch_add(i64::from(places), Ordering::AcqRel);
            return None;
        }
        Some(Drawn::Common)
    }

    fn claim_common(&self, places: i64, leaving: i64) -> bool {
        let take = |left: i64| (left - places >= leaving).then_some(left - places);
        self.common
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    /// Counts taken slots. Returns `false` if there are not enough.
    fn use_places(&self, places: u32) -> bool {
        let max = self.max.load(Ordering::Acquire);
        let take =
            |used: u64| (used + u64::from(places) <= max).then_some(used + u64::from(places));
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn give_back(&self, account: &AtomicU64, places: u32) {
        let less = |word| {
            let account = Account::of(word);
            let used = account.used.saturating_sub(places);
            Some(Account { used, ..account }.word())
        };
        let changed = account.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        let before = Account::of(changed.unwrap_or_else(|word| word));
        let used = before.used.saturating_sub(places);
        let common = before.excess() - Account { used, ..before }.excess();
        if common > 0 {
            self.common.fetch_add(common, Ordering::AcqRel);
        }
    }

    /// Gives back a slot of a zone.
    pub(crate) fn release(&self, zone: Zone) {
        self.release_drawn(zone, 1, Drawn::Zone);
    }

    /// Gives slots back to the parts from which they were taken. The caller must have claimed them.
    pub(crate) fn release_drawn(&self, zone: Zone, places: u32, drawn: Drawn) {
        // The sum comes first, so that it never exceeds the value that the other counters allow.
        self.used.fetch_sub(u64::from(places), Ordering::AcqRel);
        match drawn {
            Drawn::Common => {
                self.common.fetch_add(i64::from(places), Ordering::AcqRel);
            }
            Drawn::Zone => {
                if let Some(account) = self.account(zone) {
                    self.give_back(account, places);
                }
            }
        }
    }

    /// Returns the number of slots in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire) as usize
    }

    /// Returns the number of slots that a zone uses, except those of sources that draw from the
    /// common part.
    #[cfg(test)]
    pub(crate) fn used_by(&self, zone: Zone) -> u32 {
        self.account(zone).map_or(0, |account| {
            Account::of(account.load(Ordering::Acquire)).used
        })
    }

    /// Returns the number of slots guaranteed to a zone.
    pub(crate) fn guarantee(&self, zone: Zone) -> u32 {
        self.account(zone).map_or(0, |account| {
            Account::of(account.load(Ordering::Acquire)).guarantee
        })
    }
}

/// Returns the number of slots, out of `max`, that each of a number of zones is guaranteed.
pub(crate) fn guarantee(max: u32, zones: usize) -> u32 {
    let zones = u32::try_from(zones).unwrap_or(u32::MAX);
    if zones < 2 || zones > max {
        return 0;
    }
    (max / zones / 2).max(1)
}
