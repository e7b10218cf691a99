//! Counts of sessions by zone, and the places of the table that each zone is sure of.

use super::Limits;
use super::counted::CountedTable;
use super::prefix::Prefixes;
use super::standing::Standing;
use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::flow::Zone;
use crate::policy::id::RuleId;
use crate::reserve::{NoMemory, Purpose};

/// The counters of a zone.
#[derive(Debug, Default)]
pub(crate) struct ZoneAccount {
    /// The guarantee, places that no other zone can take, in the upper half; the number of sessions
    /// in the lower one. Both change together, so that a new guarantee finds exact sums.
    word: AtomicU64,
    half_open: AtomicU32,
    /// Sessions that are never evicted.
    pub(super) assured: AtomicU32,
}

/// The two numbers of an account's word.
#[derive(Debug, Clone, Copy)]
struct Word {
    guarantee: u32,
    sessions: u32,
}

impl Word {
    const fn of(word: u64) -> Self {
        Self {
            guarantee: (word >> 32) as u32,
            sessions: word as u32,
        }
    }

    const fn packed(self) -> u64 {
        (self.guarantee as u64) << 32 | self.sessions as u64
    }

    /// Returns the number of sessions beyond the guarantee.
    const fn beyond(self) -> u32 {
        self.sessions.saturating_sub(self.guarantee)
    }

    /// Returns the places that the zone uses or is sure of.
    fn committed(self) -> u32 {
        self.sessions.max(self.guarantee)
    }
}

impl ZoneAccount {
    fn word(&self) -> Word {
        Word::of(self.word.load(Ordering::Relaxed))
    }

    /// Returns the number of sessions of the zone.
    pub(crate) fn sessions(&self) -> u32 {
        self.word().sessions
    }

    /// Returns the number of TCP sessions of the zone whose handshake is not complete.
    pub(crate) fn half_open(&self) -> u32 {
        self.half_open.load(Ordering::Relaxed)
    }

    /// Returns whether half-open TCP sessions are less than a fifth of those that may be evicted.
    pub(crate) fn has_few_half_open(&self) -> bool {
        let half_open = self.half_open();
        let assured = self.assured.load(Ordering::Relaxed);
        let others = self
            .sessions()
            .saturating_sub(assured)
            .saturating_sub(half_open);
        half_open < others / 4
    }

    /// Returns the number of places that no other zone can take.
    pub(crate) fn guarantee(&self) -> u32 {
        self.word().guarantee
    }

    /// Returns the number of sessions that the zone has beyond its guarantee.
    pub(crate) fn excess(&self) -> u32 {
        self.word().beyond()
    }
}

/// Sessions of one zone and one rule that have ended under one hold of a shard's lock, and that the
/// accounts still count. They are counted together: threads share the counters' cache lines.
#[derive(Debug)]
pub(crate) struct Departures {
    zone: Zone,
    /// Sessions whose places are given back.
    sessions: u32,
    half_open: u32,
    assured: u32,
    rule: RuleId,
    of_rule: u32,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            zone: Zone::default(),
            sessions: 0,
            half_open: 0,
            assured: 0,
            rule: RuleId::DEFAULT,
            of_rule: 0,
        }
    }
}

impl Departures {
    /// Returns a session that has ended and whose place was handed over to another.
    pub(crate) fn without_place(zone: Zone, rule: RuleId, standing: Standing) -> Self {
        Self {
            zone,
            sessions: 0,
            half_open: u32::from(standing.half_open),
            assured: u32::from(standing.assured),
            rule,
            of_rule: 1,
        }
    }

    /// Adds a session that has ended with a standing. Counts earlier ones first if they are of
    /// another zone or rule.
    pub(crate) fn add(
        &mut self,
        accounts: &Accounts,
        zone: Zone,
        rule: RuleId,
        standing: Standing,
    ) {
        if (self.zone, self.rule) != (zone, rule) {
            accounts.depart(self);
            self.zone = zone;
            self.rule = rule;
        }
        self.sessions += 1;
        self.of_rule += 1;
        self.half_open += u32::from(standing.half_open);
        self.assured += u32::from(standing.assured);
    }
}

/// Sums over all zones. They change with nearly every session that begins or ends, so they are
/// apart from fields that every packet reads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sums {
    /// The places that zones use or are sure of in the upper half, the number of sessions in the
    /// lower one: most sessions change both, with one operation.
    places: AtomicU64,
    /// Sessions that are never evicted.
    assured: AtomicUsize,
}

/// The two numbers of [`Sums::places`], or changes of them.
#[derive(Debug, Clone, Copy)]
struct Places {
    committed: u32,
    live: u32,
}

impl Places {
    const fn of(places: u64) -> Self {
        Self {
            committed: (places >> 32) as u32,
            live: places as u32,
        }
    }

    const fn packed(self) -> u64 {
        (self.committed as u64) << 32 | self.live as u64
    }
}

impl Sums {
    fn places(&self) -> Places {
        Places::of(self.places.load(Ordering::Relaxed))
    }

    /// Adds to the sums unless one of those that are added to has reached `most`. Returns whether
    /// they were added.
    fn try_add(&self, more: Places, most: usize) -> bool {
        let room = |now: u32, more: u32| more == 0 || (now as usize) < most;
        let added = |places: u64| {
            let Places { committed, live } = Places::of(places);
            let fits = room(committed, more.committed) && room(live, more.live);
            fits.then(|| places + more.packed())
        };
        self.places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added)
            .is_ok()
    }

    fn add(&self, more: Places) {
        self.places.fetch_add(more.packed(), Ordering::Relaxed);
    }

    fn sub(&self, fewer: Places) {
        self.places.fetch_sub(fewer.packed(), Ordering::Relaxed);
    }
}

/// The counters of all zones, and the bound on their sum.
///
/// The sum of the places in use and of the unused guarantees never exceeds the bound: the committed
/// places are the sum over all zones of the greater of sessions and guarantee. A zone within its
/// guarantee takes a place without further checks; beyond it, a place comes out of those that are
/// not committed.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(super) zones: Box<[ZoneAccount]>,
    sums: Sums,
    /// The sum of all guarantees.
    guaranteed: AtomicUsize,
    max_sessions: usize,
    /// Sessions by the number of the rule that has admitted them.
    pub(super) rules: Box<[AtomicU32]>,
    pub(super) counted: CountedTable,
    pub(super) prefixes: Prefixes,
}

impl Accounts {
    /// Bytes of the counters of zones and rules.
    pub(super) const BYTES: usize = (size_of::<ZoneAccount>() + size_of::<AtomicU32>()) << 16;

    pub(crate) fn new(
        max_sessions: usize,
        prefixes: Prefixes,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let purpose = Purpose::CountedPrefixes;
        Ok(Self {
            rules: purpose.items(usize::from(RuleId::DEFAULT.0) + 1, || AtomicU32::new(0))?,
            counted: CountedTable::new(max_sessions, hasher)?,
            prefixes,
            zones: purpose.items(usize::from(Zone::MAX.0) + 1, ZoneAccount::default)?,
            sums: Sums::default(),
            guaranteed: AtomicUsize::new(0),
            max_sessions,
        })
    }

    /// Returns the counters of a zone.
    #[expect(clippy::indexing_slicing, reason = "every zone number has an account")]
    #[inline]
    pub(crate) fn zone(&self, zone: Zone) -> &ZoneAccount {
        &self.zones[usize::from(zone.0)]
    }

    /// Returns the counter of the sessions that a rule has admitted.
    #[expect(clippy::indexing_slicing, reason = "every rule number has a counter")]
    #[inline]
    pub(super) fn rule(&self, rule: RuleId) -> &AtomicU32 {
        &self.rules[usize::from(rule.0)]
    }

    /// Returns the number of sessions in all zones.
    pub(crate) fn len(&self) -> usize {
        self.sums.places().live as usize
    }

    /// Returns the number of places that zones use or are sure of.
    pub(super) fn committed(&self) -> usize {
        self.sums.places().committed as usize
    }

    /// Returns the number of sessions that are never evicted.
    pub(crate) fn assured(&self) -> usize {
        self.sums.assured.load(Ordering::Relaxed)
    }

    /// Returns how many sessions there can be.
    pub(crate) const fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Returns how many more sessions a zone could have if no other zone took a place meanwhile.
    pub(crate) fn free(&self, zone: Zone) -> usize {
        let Word {
            guarantee,
            sessions,
        } = self.zone(zone).word();
        let of_guarantee = guarantee.saturating_sub(sessions);
        of_guarantee as usize + self.max_sessions.saturating_sub(self.committed())
    }

    /// Returns how many places a zone has free, or could have by evicting sessions: its own ones,
    /// and those of other zones that are beyond their guarantees. It is an upper bound.
    pub(super) fn room(&self, zone: Zone) -> usize {
        let account = self.zone(zone);
        let assured = account.assured.load(Ordering::Relaxed);
        let own = account.sessions().saturating_sub(assured) as usize;
        let evictable = self.len().saturating_sub(self.assured());
        let excess = self
            .committed()
            .saturating_sub(self.guaranteed.load(Ordering::Relaxed));
        let of_others = evictable
            .saturating_sub(own)
            .min(excess.saturating_sub(account.excess() as usize));
        self.free(zone) + own + of_others
    }

    /// Claims a place for one more session of a zone. Returns whether there was one.
    pub(crate) fn claim(&self, zone: Zone) -> bool {
        let Word {
            guarantee,
            sessions,
        } = self.zone(zone).word();
        let live = Places {
            committed: 0,
            live: 1,
        };
        if sessions >= guarantee {
            let more = Places {
                committed: 1,
                ..live
            };
            let fits = self.sums.try_add(more, self.max_sessions);
            if fits {
                self.take_brought(zone);
            }
            return fits;
        }
        // The place may have gone by now. A session that is not sure of its place is not counted
        // among those alive: another zone within its guarantee would be refused meanwhile.
        if !self.take(zone) {
            return false;
        }
        // New guarantees may stand for places that other zones have taken before, so the number of
        // sessions has a bound of its own.
        let fits = self.sums.try_add(live, self.max_sessions);
        if !fits && self.leave(zone) {
            self.sums.sub(Places {
                committed: 1,
                live: 0,
            });
        }
        fits
    }

    /// Counts one session of a zone less. Returns whether its place was beyond the guarantee.
    fn leave(&self, zone: Zone) -> bool {
        let word = &self.zone(zone).word;
        Word::of(word.fetch_sub(1, Ordering::Relaxed)).beyond() > 0
    }

    /// Gives back the place of a session that has ended.
    pub(crate) fn release(&self, zone: Zone) {
        self.release_all(zone, 1);
    }

    /// Gives back the places of sessions of one zone that have ended.
    fn release_all(&self, zone: Zone, places: u32) {
        let before = self
            .zone(zone)
            .word
            .fetch_sub(u64::from(places), Ordering::Relaxed);
        self.sums.sub(Places {
            committed: Word::of(before).beyond().min(places),
            live: places,
        });
    }

    /// Counts the end of sessions, and gives back their places. `departures` is empty afterwards.
    pub(crate) fn depart(&self, departures: &mut Departures) {
        let Departures {
            zone,
            sessions,
            half_open,
            assured,
            rule,
            of_rule,
        } = std::mem::take(departures);
        if of_rule > 0 {
            self.rule(rule).fetch_sub(of_rule, Ordering::Relaxed);
        }
        if half_open > 0 {
            self.zone(zone)
                .half_open
                .fetch_sub(half_open, Ordering::Relaxed);
        }
        if assured > 0 {
            self.zone(zone)
                .assured
                .fetch_sub(assured, Ordering::Relaxed);
            self.sums
                .assured
                .fetch_sub(assured as usize, Ordering::Relaxed);
        }
        if sessions > 0 {
            self.release_all(zone, sessions);
        }
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
        self.take_brought(to);
        true
    }

    /// Counts one more session of a zone, with a place that the caller brings. Gives that place
    /// back if the zone's guarantee has one.
    fn take_brought(&self, zone: Zone) {
        let before = Word::of(self.zone(zone).word.fetch_add(1, Ordering::Relaxed));
        if before.sessions < before.guarantee {
            self.sums.sub(Places {
                committed: 1,
                live: 0,
            });
        }
    }

    /// Counts one more session of a zone. Beyond the zone's guarantee it needs a place that is not
    /// committed.
    fn take(&self, zone: Zone) -> bool {
        let account = self.zone(zone);
        // Whether a place is in hand beside those of the guarantee.
        let mut in_hand = false;
        let mut seen = account.word.load(Ordering::Relaxed);
        let taken = loop {
            let Word {
                guarantee,
                sessions,
            } = Word::of(seen);
            let needs = sessions >= guarantee;
            if needs && !in_hand {
                in_hand = self.commit();
                if !in_hand {
                    break false;
                }
            }
            let more = Word {
                guarantee,
                sessions: sessions + 1,
            };
            let exchanged = account.word.compare_exchange_weak(
                seen,
                more.packed(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => {
                    in_hand &= !needs;
                    break true;
                }
                Err(now) => seen = now,
            }
        };
        if in_hand {
            self.sums.sub(Places {
                committed: 1,
                live: 0,
            });
        }
        taken
    }

    /// Commits one more place, if there is one.
    fn commit(&self) -> bool {
        let more = Places {
            committed: 1,
            live: 0,
        };
        self.sums.try_add(more, self.max_sessions)
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
        let word = &self.zone(zone).word;
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
            if account.guarantee() == guarantee {
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
                let after = Word {
                    guarantee,
                    sessions: before.sessions,
                };
                let committed = |word: Word| Places {
                    committed: word.committed(),
                    live: 0,
                };
                self.sums.add(committed(after));
                self.sums.sub(committed(before));
            }
        }
        self.guaranteed.store(sum, Ordering::Relaxed);
    }

    pub(super) fn sum_committed(&self) -> usize {
        let greater = |account: &ZoneAccount| account.word().committed() as usize;
        self.zones.iter().map(greater).sum()
    }

    /// Counts a session that begins with a standing.
    pub(crate) fn begins(&self, zone: Zone, standing: Standing) {
        if standing.half_open {
            self.zone(zone).half_open.fetch_add(1, Ordering::Relaxed);
        }
        if standing.assured {
            self.zone(zone).assured.fetch_add(1, Ordering::Relaxed);
            self.sums.assured.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a session that ends with a standing.
    pub(crate) fn ends(&self, zone: Zone, standing: Standing) {
        if standing.half_open {
            self.zone(zone).half_open.fetch_sub(1, Ordering::Relaxed);
        }
        if standing.assured {
            self.zone(zone).assured.fetch_sub(1, Ordering::Relaxed);
            self.sums.assured.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a session whose standing changes.
    pub(crate) fn changes(&self, zone: Zone, before: Standing, after: Standing) {
        if before != after {
            self.ends(zone, before);
            self.begins(zone, after);
        }
    }
}

#[cfg(test)]
mod tests;
