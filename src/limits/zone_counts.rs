//! Counters of one zone.

use super::lots::{Entry, Lots, Of};
use super::standing::Standing;
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::flow::Zone;

/// The counters of a zone.
#[derive(Debug, Default)]
pub(super) struct ZoneAccount {
    /// The guarantee, places that no other zone can take, in the upper half; the number of sessions
    /// and idle places in the lower one. Both change together, so that a new guarantee finds exact
    /// sums.
    pub(super) word: AtomicU64,
    /// Half-open sessions, and below it sessions that are never evicted, without the differences
    /// that stripes keep. Either can be below zero.
    pub(super) half_open: AtomicU32,
    pub(super) assured: AtomicU32,
}

/// The two numbers of an account's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) guarantee: u32,
    /// Sessions and idle places.
    pub(super) sessions: u32,
}

impl Word {
    pub(super) const fn of(word: u64) -> Self {
        Self {
            guarantee: (word >> 32) as u32,
            sessions: word as u32,
        }
    }

    pub(super) const fn packed(self) -> u64 {
        (self.guarantee as u64) << 32 | self.sessions as u64
    }

    /// Returns the places that the zone uses or is sure of.
    pub(super) fn committed(self) -> usize {
        self.sessions.max(self.guarantee) as usize
    }

    /// Returns the places that the zone uses beyond its guarantee.
    pub(super) const fn excess(self) -> u32 {
        self.sessions.saturating_sub(self.guarantee)
    }
}

impl ZoneAccount {
    pub(super) fn word(&self) -> Word {
        Word::of(self.word.load(Ordering::Relaxed))
    }

    /// Returns whether nothing was ever counted, or as much was taken away as was added.
    pub(super) fn is_zero(&self) -> bool {
        let numbers = [&self.half_open, &self.assured];
        let mut numbers = numbers.iter().map(|number| number.load(Ordering::Relaxed));
        self.word().sessions == 0 && numbers.all(|number| number == 0)
    }
}

/// The counts of one zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ZoneCounts<'a> {
    pub(super) account: &'a ZoneAccount,
    pub(super) lots: &'a Lots,
    pub(super) zone: Zone,
}

impl ZoneCounts<'_> {
    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.lots.entries(Of::Zones, self.zone.0)
    }

    /// Returns the number of sessions of the zone.
    pub(crate) fn sessions(&self) -> u32 {
        let idle: u32 = self.entries().map(|entry| u32::from(entry.idle)).sum();
        self.account.word().sessions.saturating_sub(idle)
    }

    /// Returns the number of sessions of the zone and its idle places.
    pub(super) fn taken(&self) -> u32 {
        self.account.word().sessions
    }

    /// Returns the number of TCP sessions of the zone whose handshake is not complete.
    pub(crate) fn half_open(&self) -> u32 {
        let shared = self.account.half_open.load(Ordering::Relaxed);
        sum(shared, self.entries().map(|entry| entry.half_open))
    }

    /// Returns whether at least `bound` TCP sessions of the zone have no complete handshake.
    pub(crate) fn has_half_open(&self, bound: u32) -> bool {
        let shared = self.account.half_open.load(Ordering::Relaxed) as i32;
        // The differences of the stripes are read only where they can matter.
        let slack = i64::from(self.lots.slack());
        let distance = i64::from(shared) - i64::from(bound);
        if distance.abs() > slack {
            return distance > 0;
        }
        self.half_open() >= bound
    }

    /// Returns the number of sessions of the zone that are never evicted.
    pub(super) fn assured(&self) -> u32 {
        let shared = self.account.assured.load(Ordering::Relaxed);
        sum(shared, self.entries().map(|entry| entry.assured))
    }

    /// Returns whether half-open TCP sessions are less than a fifth of those that may be evicted,
    /// but for what the stripes keep.
    pub(crate) fn has_few_half_open(&self) -> bool {
        let account = self.account;
        let shared = |number: &AtomicU32| sum(number.load(Ordering::Relaxed), std::iter::empty());
        let half_open = shared(&account.half_open);
        let others = self
            .taken()
            .saturating_sub(shared(&account.assured))
            .saturating_sub(half_open);
        half_open < others / 4
    }

    /// Returns the number of places that no other zone can take.
    pub(crate) fn guarantee(&self) -> u32 {
        self.account.word().guarantee
    }

    /// Returns the number of sessions and idle places that the zone has beyond its guarantee.
    pub(crate) fn excess(&self) -> u32 {
        self.account.word().excess()
    }
}

/// Returns a shared counter with the differences that the stripes keep.
pub(super) fn sum(shared: u32, differences: impl Iterator<Item = i16>) -> u32 {
    let add = |sum: i32, difference| sum.wrapping_add(i32::from(difference));
    // Threads may be between the counter and a stripe.
    differences.fold(shared as i32, add).max(0) as u32
}

/// Returns the change of a zone's counts by a session whose standing changes.
pub(super) fn difference(zone: Zone, before: Standing, after: Standing) -> Entry {
    Entry {
        number: zone.0,
        idle: 0,
        half_open: i16::from(after.half_open) - i16::from(before.half_open),
        assured: i16::from(after.assured) - i16::from(before.assured),
    }
}
