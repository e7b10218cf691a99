//! Places taken in lots, and counts kept apart, by thread.
//!
//! Every new session needs a place of its zone and one of its rule. If all threads took them from
//! shared counters, each session would wait for the cache lines that another processor has just
//! written. So a thread takes several places at once, a lot, into a [`Stripe`] of its own, and the
//! places of sessions that end return to the stripe first.
//!
//! A shared counter includes the idle places of all stripes:
//!
//! - It never exceeds its bound, so the sessions never do: a bound is as hard as without stripes.
//! - A counter that has reached its bound refuses nothing while places are idle: they are taken
//!   back from the stripes before.
//! - The number of sessions is the counter without the idle places. It is exact whenever no thread
//!   is between the two.
//!
//! A stripe also keeps apart how many sessions of a zone have become half-open or assured there, as
//! differences to the zone's counters.
//!
//! An entry is one word, so that all of its numbers change together.

use crate::atomic::{AtomicU64, Ordering};
use crate::stripe::{ENTRIES, STRIPES, stripe_number};

/// Most places of a lot.
const MAX_LOT: usize = 64;

/// Sessions of the table for each place of a lot: all stripes together can hold 0.4% of the table
/// in one entry each.
const SESSIONS_PER_PLACE: usize = 8_192;

/// Numbers of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The zone or the rule.
    pub(super) number: u16,
    /// Places that are taken and not in use.
    pub(super) idle: u16,
    /// Difference to the half-open sessions of the zone.
    pub(super) half_open: i16,
    /// Difference to the assured sessions of the zone.
    pub(super) assured: i16,
}

impl Entry {
    const fn of(word: u64) -> Self {
        Self {
            number: (word >> 48) as u16,
            idle: (word >> 32) as u16,
            half_open: (word >> 16) as i16,
            assured: word as i16,
        }
    }

    const fn word(self) -> u64 {
        (self.number as u64) << 48
            | (self.idle as u64) << 32
            | (self.half_open as u16 as u64) << 16
            | self.assured as u16 as u64
    }

    const fn empty(number: u16) -> Self {
        Self {
            number,
            idle: 0,
            half_open: 0,
            assured: 0,
        }
    }

    const fn is_empty(self) -> bool {
        self.word() as u32 == 0 && self.idle == 0
    }
}

/// One idle place in the word of an entry.
const ONE_IDLE: u64 = 1 << 32;

#[inline]
fn exchange(at: &AtomicU64, before: u64, after: u64) -> Result<u64, u64> {
    at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed)
}

/// Outcome of an attempt to put something into an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// The entry is full: these numbers were taken out of it, those to be put in included.
    Overflow(Entry),
    /// The entry is in use by another number.
    Foreign,
}

/// Entries of a kind in a stripe: a direct-mapped table.
#[derive(Debug)]
pub(super) struct Entries([AtomicU64; ENTRIES]);

impl Default for Entries {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Entries {
    fn at(&self, number: u16) -> Option<&AtomicU64> {
        self.0.get(usize::from(number) % ENTRIES)
    }

    /// Takes an idle place. Returns whether there was one.
    #[inline]
    fn take(&self, number: u16) -> bool {
        let Some(at) = self.at(number) else {
            return false;
        };
        let mut word = at.load(Ordering::Relaxed);
        loop {
            let entry = Entry::of(word);
            if entry.number != number || entry.idle == 0 {
                return false;
            }
            match exchange(at, word, word - ONE_IDLE) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Adds the numbers of `more`. An entry that would have more than twice `lot` of anything is
    /// emptied.
    #[inline]
    fn put(&self, more: Entry, lot: u16) -> Put {
        let Some(at) = self.at(more.number) else {
            return Put::Foreign;
        };
        let most = 2 * lot;
        let mut word = at.load(Ordering::Relaxed);
        loop {
            let entry = Entry::of(word);
            if entry.number != more.number && !entry.is_empty() {
                return Put::Foreign;
            }
            // No entry has more than twice the largest lot of anything.
            let sum = Entry {
                number: more.number,
                idle: entry.idle.wrapping_add(more.idle),
                half_open: entry.half_open.wrapping_add(more.half_open),
                assured: entry.assured.wrapping_add(more.assured),
            };
            let is_full = sum.idle > most
                || sum.half_open.unsigned_abs() > most
                || sum.assured.unsigned_abs() > most;
            let after = if is_full {
                Entry::empty(more.number)
            } else {
                sum
            };
            match exchange(at, word, after.word()) {
                Ok(_) if is_full => return Put::Overflow(sum),
                Ok(_) => return Put::Done,
                Err(now) => word = now,
            }
        }
    }

    /// Empties the entry where a number belongs if another number uses it. Returns that entry.
    fn displace(&self, number: u16) -> Option<Entry> {
        let other = |word| {
            let is_other = Entry::of(word).number != number;
            is_other.then(|| Entry::empty(number).word())
        };
        let at = self.at(number)?;
        let before = at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, other);
        let before = before.ok().map(Entry::of);
        before.filter(|entry| !entry.is_empty())
    }

    fn get(&self, number: u16) -> Option<Entry> {
        let entry = Entry::of(self.at(number)?.load(Ordering::Relaxed));
        (entry.number == number).then_some(entry)
    }
}

/// What one thread holds, alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    zones: Entries,
    rules: Entries,
}

/// Kind of number that an entry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Zones,
    Rules,
}

impl Stripe {
    const fn entries(&self, of: Of) -> &Entries {
        match of {
            Of::Zones => &self.zones,
            Of::Rules => &self.rules,
        }
    }
}

/// The stripes of all threads. See the [module](self).
#[derive(Debug)]
pub(super) struct Lots {
    stripes: [Stripe; STRIPES],
    /// Places of a lot; 0 in a small table, where all places are taken one by one.
    lot: u16,
}

impl Lots {
    /// Returns the places of a lot for a table of a size.
    pub(super) const fn size(max_sessions: usize) -> u16 {
        let lot = max_sessions / SESSIONS_PER_PLACE;
        if lot > MAX_LOT {
            MAX_LOT as u16
        } else {
            lot as u16
        }
    }

    pub(super) fn new(lot: u16) -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::default()),
            lot,
        }
    }

    #[inline]
    fn own(&self, of: Of) -> Option<&Entries> {
        if self.lot == 0 {
            return None;
        }
        let stripe = self.stripes.get(stripe_number())?;
        Some(stripe.entries(of))
    }

    /// Returns the most that the idle places of a zone or a rule, or any difference, can be.
    pub(super) const fn slack(&self) -> u32 {
        2 * self.lot as u32 * STRIPES as u32
    }

    /// Takes an idle place of the calling thread. Returns whether there was one.
    #[inline]
    pub(super) fn take(&self, of: Of, number: u16) -> bool {
        self.own(of).is_some_and(|entries| entries.take(number))
    }

    /// Returns how many places to take from the shared counter at once.
    pub(super) fn lot(&self, of: Of, number: u16) -> u32 {
        let is_own = self.own(of).and_then(|entries| {
            let entry = Entry::of(entries.at(number)?.load(Ordering::Relaxed));
            (entry.number == number || entry.is_empty()).then_some(())
        });
        is_own.map_or(1, |()| u32::from(self.lot))
    }

    /// Puts numbers into the calling thread's entry. Returns the numbers that the caller must add
    /// to the shared counters instead.
    #[inline]
    pub(super) fn put(&self, of: Of, more: Entry) -> Option<Entry> {
        let Some(entries) = self.own(of) else {
            return Some(more);
        };
        match entries.put(more, self.lot) {
            Put::Done => None,
            Put::Overflow(sum) => Some(sum),
            Put::Foreign => Some(more),
        }
    }

    /// Empties the calling thread's entry of another number where this one belongs.
    pub(super) fn displace(&self, of: Of, number: u16) -> Option<Entry> {
        self.own(of)?.displace(number)
    }

    /// Takes an idle place of any thread. Returns whether there was one.
    pub(super) fn take_any(&self, of: Of, number: u16) -> bool {
        let mut all = self.stripes.iter();
        self.lot != 0 && all.any(|stripe| stripe.entries(of).take(number))
    }

    /// Takes all idle places for which `wanted` holds out of the stripes, and calls `each` with the
    /// number and the places of each entry.
    pub(super) fn take_idle(
        &self,
        of: Of,
        wanted: impl Fn(u16) -> bool,
        mut each: impl FnMut(u16, u16),
    ) {
        if self.lot == 0 {
            return;
        }
        for at in self.stripes.iter().flat_map(|stripe| &stripe.entries(of).0) {
            let take = |word| {
                let entry = Entry::of(word);
                let is_wanted = entry.idle > 0 && wanted(entry.number);
                is_wanted.then_some(Entry { idle: 0, ..entry }.word())
            };
            if let Ok(before) = at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                let before = Entry::of(before);
                each(before.number, before.idle);
            }
        }
    }

    /// Returns the entries of a number in all stripes.
    pub(super) fn entries(&self, of: Of, number: u16) -> impl Iterator<Item = Entry> {
        let used = if self.lot == 0 { 0 } else { STRIPES };
        self.stripes
            .iter()
            .take(used)
            .filter_map(move |stripe| stripe.entries(of).get(number))
    }

    /// Returns the entries of all numbers in all stripes.
    pub(super) fn all(&self, of: Of) -> impl Iterator<Item = Entry> {
        let used = if self.lot == 0 { 0 } else { STRIPES };
        self.stripes.iter().take(used).flat_map(move |stripe| {
            let words = stripe.entries(of).0.iter();
            words.map(|word| Entry::of(word.load(Ordering::Relaxed)))
        })
    }
}
