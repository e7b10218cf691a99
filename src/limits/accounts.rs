//! Counts of sessions by zone, and the places of the table that each zone is sure of.
//!
//! Threads take places in lots; see [`super::lots`]. So the shared counters include idle places,
//! which no session uses yet. Methods say whether their result includes them.

use super::Limits;
use super::counted::CountedTable;
use super::lots::{Entry, Lots, Of};
use super::prefix::Prefixes;
use super::standing::Standing;
use super::zone_counts::{Word, ZoneAccount, ZoneCounts, difference, sum};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::flow::Zone;
use crate::policy::id::RuleId;
use crate::reserve::{NoMemory, Purpose};

/// A zone or a rule whose entry another one uses displaces it at one in so many sessions.
pub(super) const LOOKS: u32 = 16;

/// Counters of all zones together, on cache lines of their own: they are written more often than
/// what lies beside them in [`Accounts`].
#[derive(Debug)]
#[repr(align(128))]
struct Sums {
    committed: AtomicUsize,
    /// The sum of all guarantees.
    guaranteed: AtomicUsize,
    /// Sessions and idle places.
    live: AtomicUsize,
    /// Sessions that are never evicted, without the differences that stripes keep. Can be below
    /// zero.
    assured: AtomicU32,
}

/// The counters of all zones, and the bound on their sum.
///
/// The sum of the places in use and of the unused guarantees never exceeds the bound: `committed`
/// is the sum over all zones of the greater of sessions and guarantee. A zone within its guarantee
/// takes a place without further checks; beyond it, a place comes out of those that are not
/// committed. Idle places count as sessions of their zone.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(super) zones: Box<[ZoneAccount]>,
    sums: Sums,
    max_sessions: usize,
    /// Sessions and idle places by the number of the rule that has admitted them.
    pub(super) rules: Box<[AtomicU32]>,
    pub(super) lots: Box<Lots>,
    pub(super) counted: CountedTable,
    pub(super) prefixes: Prefixes,
}

impl Accounts {
    /// Bytes of the counters of zones and rules.
    pub(super) const BYTES: usize =
        ((size_of::<ZoneAccount>() + size_of::<AtomicU32>()) << 16) + size_of::<Lots>();

    pub(crate) fn new(
        max_sessions: usize,
        prefixes: Prefixes,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        Self::with_lot(max_sessions, Lots::size(max_sessions), prefixes, hasher)
    }

    /// Returns accounts whose lots have a size.
    pub(crate) fn with_lot(
        max_sessions: usize,
        lot: u16,
        prefixes: Prefixes,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let purpose = Purpose::CountedPrefixes;
        Ok(Self {
            lots: Box::new(Lots::new(lot)),
            rules: purpose.items(usize::from(RuleId::DEFAULT.0) + 1, || AtomicU32::new(0))?,
            counted: CountedTable::new(max_sessions, hasher)?,
            prefixes,
            zones: purpose.items(usize::from(Zone::MAX.0) + 1, ZoneAccount::default)?,
            sums: Sums {
                committed: AtomicUsize::new(0),
                guaranteed: AtomicUsize::new(0),
                live: AtomicUsize::new(0),
                assured: AtomicU32::new(0),
            },
            max_sessions,
        })
    }

    #[expect(clippy::indexing_slicing, reason = "every zone number has an account")]
    #[inline]
    pub(super) fn account(&self, zone: Zone) -> &ZoneAccount {
        &self.zones[usize::from(zone.0)]
    }

    /// Returns the counts of a zone.
    #[inline]
    pub(crate) fn zone(&self, zone: Zone) -> ZoneCounts<'_> {
        ZoneCounts {
            account: self.account(zone),
            lots: &self.lots,
            zone,
        }
    }

    /// Returns the number of sessions in all zones.
    pub(crate) fn len(&self) -> usize {
        let entries = self.lots.all(Of::Zones);
        let idle: usize = entries.map(|entry| usize::from(entry.idle)).sum();
        self.taken().saturating_sub(idle)
    }

    /// Returns the number of sessions in all zones, with the idle places: at most 0.4% of the table
    /// for each eight zones. Faster than [`Accounts::len`].
    #[inline]
    pub(crate) fn taken(&self) -> usize {
        self.sums.live.load(Ordering::Relaxed)
    }

    /// Returns the number of sessions that are never evicted.
    pub(crate) fn assured(&self) -> usize {
        let shared = self.sums.assured.load(Ordering::Relaxed);
        sum(shared, self.lots.all(Of::Zones).map(|entry| entry.assured)) as usize
    }

    /// Returns how many sessions there can be.
    pub(crate) const fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Returns how many more sessions a zone could have if no other zone took a place meanwhile.
    /// Idle places are not included.
    pub(crate) fn free(&self, zone: Zone) -> usize {
        let Word {
            guarantee,
            sessions,
        } = self.account(zone).word();
        let of_guarantee = guarantee.saturating_sub(sessions);
        let others = self.sums.committed.load(Ordering::Relaxed);
        of_guarantee as usize + self.max_sessions.saturating_sub(others)
    }

    /// Returns how many places a zone has free, or could have by evicting sessions: its own ones,
    /// and those of other zones that are beyond their guarantees. It is an upper bound. An idle
    /// place is as good as one whose session may be evicted.
    pub(super) fn room(&self, zone: Zone) -> usize {
        let counts = self.zone(zone);
        let own = counts.taken().saturating_sub(counts.assured()) as usize;
        let evictable = self.taken().saturating_sub(self.assured());
        let committed = self.sums.committed.load(Ordering::Relaxed);
        let excess = committed.saturating_sub(self.sums.guaranteed.load(Ordering::Relaxed));
        let of_others = evictable
            .saturating_sub(own)
            .min(excess.saturating_sub(counts.excess() as usize));
        self.free(zone) + own + of_others
    }

    /// Claims a place for one more session of a zone. Returns whether there was one.
    #[inline]
    pub(crate) fn claim(&self, zone: Zone) -> bool {
        self.lots.take(Of::Zones, zone.0) || self.claim_shared(zone)
    }

    /// Claims a lot, or the last places one by one.
    #[inline(never)]
    fn claim_shared(&self, zone: Zone) -> bool {
        let lot = self.lots.lot(Of::Zones, zone.0);
        if lot > 1 && self.take(zone, lot) {
            self.put_idle(zone, lot - 1);
            return true;
        }
        if lot == 1 && self.account(zone).word().sessions.is_multiple_of(LOOKS) {
            // The zone that has this entry may be idle for long.
            let displaced = self.lots.displace(Of::Zones, zone.0);
            displaced.into_iter().for_each(|entry| self.settle(entry));
        }
        self.take(zone, 1) || self.claim_idle(zone)
    }

    /// Claims a place that is idle in another thread's stripe, or that an idle place of another
    /// zone makes free.
    #[cold]
    fn claim_idle(&self, zone: Zone) -> bool {
        loop {
            if self.lots.take_any(Of::Zones, zone.0) {
                return true;
            }
            let mut any = false;
            self.lots.take_idle(
                Of::Zones,
                |_| true,
                |number, idle| {
                    any = true;
                    self.give_back(Zone(number), u32::from(idle));
                },
            );
            if !any {
                return false;
            }
            if self.take(zone, 1) {
                return true;
            }
        }
    }

    /// Puts idle places of a zone into the calling thread's stripe.
    fn put_idle(&self, zone: Zone, places: u32) {
        self.put(Entry {
            number: zone.0,
            idle: places as u16,
            half_open: 0,
            assured: 0,
        });
    }

    #[inline]
    fn put(&self, entry: Entry) {
        if let Some(entry) = self.lots.put(Of::Zones, entry) {
            self.settle(entry);
        }
    }

    /// Adds the numbers of a zone's entry to the shared counters.
    #[inline(never)]
    fn settle(&self, entry: Entry) {
        let zone = Zone(entry.number);
        if entry.idle > 0 {
            self.give_back(zone, u32::from(entry.idle));
        }
        let account = self.account(zone);
        let add = |number: &AtomicU32, difference: i16| {
            if difference != 0 {
                number.fetch_add(i32::from(difference) as u32, Ordering::Relaxed);
            }
        };
        add(&account.half_open, entry.half_open);
        add(&account.assured, entry.assured);
        add(&self.sums.assured, entry.assured);
    }

    /// Claims places of a zone, all or none.
    fn take(&self, zone: Zone, places: u32) -> bool {
        if !self.count_places(zone, places, 0) {
            return false;
        }
        // New guarantees may stand for places that other zones have taken before.
        let more = |live: usize| {
            let sum = live + places as usize;
            (sum <= self.max_sessions).then_some(sum)
        };
        let live = &self.sums.live;
        let fits = live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if fits.is_err() {
            self.leave(zone, places);
        }
        fits.is_ok()
    }

    /// Gives back places to the shared counters.
    fn give_back(&self, zone: Zone, places: u32) {
        self.leave(zone, places);
        self.sums.live.fetch_sub(places as usize, Ordering::Relaxed);
    }

    /// Hands the place of an evicted session over to one of another zone. Returns whether that is
    /// allowed: a zone within its guarantee gives no place to another one.
    pub(crate) fn hand_over(&self, from: Zone, to: Zone) -> bool {
        if from == to {
            return true;
        }
        if !self.leave_above(from) {
            return false;
        }
        // The place is committed to no zone now, and no other caller can take it.
        self.count_places(to, 1, 1)
    }

    /// Counts more places of a zone, all or none. Beyond the zone's guarantee they need places that
    /// are not committed, or those that the caller `brings`.
    fn count_places(&self, zone: Zone, places: u32, brings: u32) -> bool {
        let account = self.account(zone);
        // Places in hand beside those of the guarantee.
        let mut in_hand = brings;
        let mut seen = account.word.load(Ordering::Relaxed);
        let counted = loop {
            let before = Word::of(seen);
            let after = Word {
                sessions: before.sessions + places,
                ..before
            };
            let needs = after.excess() - before.excess();
            if needs > in_hand {
                if !self.commit(needs - in_hand) {
                    break false;
                }
                in_hand = needs;
            }
            let exchanged = account.word.compare_exchange_weak(
                seen,
                after.packed(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => {
                    in_hand -= needs;
                    break true;
                }
                Err(now) => seen = now,
            }
        };
        self.uncommit(in_hand);
        counted
    }

    /// Commits more places, if there are so many.
    fn commit(&self, places: u32) -> bool {
        let more = |committed: usize| {
            let sum = committed + places as usize;
            (sum <= self.max_sessions).then_some(sum)
        };
        let committed = &self.sums.committed;
        committed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn uncommit(&self, places: u32) {
        if places > 0 {
            let committed = &self.sums.committed;
            committed.fetch_sub(places as usize, Ordering::Relaxed);
        }
    }

    /// Counts places of a zone less.
    fn leave(&self, zone: Zone, places: u32) {
        let word = &self.account(zone).word;
        let before = Word::of(word.fetch_sub(u64::from(places), Ordering::Relaxed));
        let after = Word {
            sessions: before.sessions - places,
            ..before
        };
        self.uncommit(before.excess() - after.excess());
    }

    /// Counts one session of a zone less, if the zone is above its guarantee.
    fn leave_above(&self, zone: Zone) -> bool {
        let less = |word: u64| {
            let Word {
                guarantee,
                sessions,
            } = Word::of(word);
            (sessions > guarantee).then(|| word - 1)
        };
        let word = &self.account(zone).word;
        word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Makes the guarantees those of the given zones: half of the table is shared equally among
    /// `zones`, which are in order, and none has a guarantee where they are fewer than two. A zone
    /// is sure of no more places than `limits` allow it to use. Packets may go on meanwhile.
    pub(crate) fn guarantee(&self, zones: &[Zone], limits: &Limits) {
        let each = match zones.len() {
            0 | 1 => 0,
            many if many > self.max_sessions => 0,
            many => (self.max_sessions / (2 * many)).max(1),
        };
        let mut sum = 0;
        for (zone, account) in (0..=Zone::MAX.0).map(Zone).zip(&self.zones) {
            let guarantee = match zones.binary_search(&zone) {
                Ok(_) => limits
                    .of_zone(zone)
                    .max_sessions
                    .unwrap_or(u32::MAX)
                    .min(each as u32),
                Err(_) => 0,
            };
            sum += guarantee as usize;
            if account.word().guarantee == guarantee {
                continue;
            }
            let exchange = |word: u64| {
                let sessions = Word::of(word).sessions;
                Some(
                    Word {
                        guarantee,
                        sessions,
                    }
                    .packed(),
                )
            };
            let exchanged =
                account
                    .word
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, exchange);
            if let Ok(before) = exchanged.map(Word::of) {
                let sessions = before.sessions;
                self.sums.committed.fetch_add(
                    Word {
                        guarantee,
                        sessions,
                    }
                    .committed(),
                    Ordering::Relaxed,
                );
                self.sums
                    .committed
                    .fetch_sub(before.committed(), Ordering::Relaxed);
            }
        }
        self.sums.guaranteed.store(sum, Ordering::Relaxed);
    }

    pub(super) fn committed(&self) -> usize {
        self.sums.committed.load(Ordering::Relaxed)
    }

    pub(super) fn sum_committed(&self) -> usize {
        let greater = |account: &ZoneAccount| account.word().committed();
        self.zones.iter().map(greater).sum()
    }

    /// Counts a session that begins with a standing.
    #[inline]
    pub(crate) fn begins(&self, zone: Zone, standing: Standing) {
        self.changes(zone, Standing::default(), standing);
    }

    /// Counts a session that ends with a standing.
    #[inline]
    pub(crate) fn ends(&self, zone: Zone, standing: Standing) {
        self.changes(zone, standing, Standing::default());
    }

    /// Counts a session that ends with a standing, and gives back its place.
    #[inline]
    pub(crate) fn release(&self, zone: Zone, standing: Standing) {
        let mut entry = difference(zone, standing, Standing::default());
        entry.idle = 1;
        self.put(entry);
    }

    /// Counts a session whose standing changes.
    pub(crate) fn changes(&self, zone: Zone, before: Standing, after: Standing) {
        if before != after {
            self.put(difference(zone, before, after));
        }
    }
}

#[cfg(test)]
mod tests;
