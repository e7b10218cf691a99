//! Counts of sessions by zone, and the places of the table that each zone is sure of.

use std::collections::{BTreeMap, HashMap};

use super::Limits;
use super::admission::{Counts, Subject};
use super::counted::{CountedTable, Holding, Key};
use super::prefix::Prefixes;
use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::flow::Zone;
use crate::packet::PROTOCOL_TCP;
use crate::policy::id::RuleId;
use crate::reserve::{NoMemory, Purpose};
use crate::track::EvictionClass;

/// Properties of a session that accounts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The session is a TCP connection whose handshake is not complete.
    pub(crate) half_open: bool,
    /// The session is never evicted.
    pub(crate) assured: bool,
}

impl Standing {
    /// Returns the standing of a session by its protocol and worth.
    pub(crate) const fn of(protocol: u8, worth: EvictionClass) -> Self {
        Self {
            half_open: protocol == PROTOCOL_TCP && matches!(worth, EvictionClass::Embryonic),
            assured: matches!(worth, EvictionClass::Assured),
        }
    }
}

/// The counters of a zone.
#[derive(Debug, Default)]
pub(crate) struct ZoneAccount {
    /// The guarantee, places that no other zone can take, in the upper half; the number of sessions
    /// in the lower one. Both change together, so that a new guarantee finds exact sums.
    word: AtomicU64,
    half_open: AtomicU32,
    /// Sessions that are never evicted.
    assured: AtomicU32,
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

    /// Returns the places that the zone uses or is sure of.
    fn committed(self) -> usize {
        self.sessions.max(self.guarantee) as usize
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

    /// Returns whether half-open TCP sessions are less than a fifth of what may be evicted.
    pub(crate) fn has_few_half_open(&self) -> bool {
        let half_open = self.half_open();
        let assured = self.assured.load(Ordering::Relaxed);
        let others = self.sessions().saturating_sub(assured).saturating_sub(half_open);
        half_open < others / 4
    }

    /// Returns the number of places that no other zone can take.
    pub(crate) fn guarantee(&self) -> u32 {
        self.word().guarantee
    }

    /// Returns how many sessions the zone has beyond what it is sure of.
    pub(crate) fn excess(&self) -> u32 {
        let Word { guarantee, sessions } = self.word();
        sessions.saturating_sub(guarantee)
    }
}

/// The counters of all zones, and the bound on their sum.
///
/// The sum of what zones use and of what they are still sure of never exceeds the bound:
/// `committed` is the sum over all zones of the greater of sessions and guarantee. A zone within
/// its guarantee takes a place without asking anybody; beyond it, a place comes out of what is not
/// committed.
#[derive(Debug)]
pub(crate) struct Accounts {
    zones: Box<[ZoneAccount]>,
    committed: AtomicUsize,
    /// The sum of all guarantees.
    guaranteed: AtomicUsize,
    live: AtomicUsize,
    /// Sessions that are never evicted.
    assured: AtomicUsize,
    max_sessions: usize,
    /// Sessions by the number of the rule that has admitted them.
    rules: Box<[AtomicU32]>,
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
            committed: AtomicUsize::new(0),
            guaranteed: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            assured: AtomicUsize::new(0),
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
        self.live.load(Ordering::Relaxed)
    }

    /// Returns the number of sessions that are never evicted.
    pub(crate) fn assured(&self) -> usize {
        self.assured.load(Ordering::Relaxed)
    }

    /// Returns how many sessions there can be.
    pub(crate) const fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// Returns how many more sessions a zone could have if no other zone took a place meanwhile.
    pub(crate) fn free(&self, zone: Zone) -> usize {
        let Word { guarantee, sessions } = self.zone(zone).word();
        let of_guarantee = guarantee.saturating_sub(sessions);
        let others = self.committed.load(Ordering::Relaxed);
        of_guarantee as usize + self.max_sessions.saturating_sub(others)
    }

    /// Returns how many places a zone has free, or could have by evicting sessions: its own ones,
    /// and those of other zones that are beyond their guarantees. It is an upper bound.
    pub(super) fn room(&self, zone: Zone) -> usize {
        let account = self.zone(zone);
        let assured = account.assured.load(Ordering::Relaxed);
        let own = account.sessions().saturating_sub(assured) as usize;
        let evictable = self.len().saturating_sub(self.assured());
        let committed = self.committed.load(Ordering::Relaxed);
        let excess = committed.saturating_sub(self.guaranteed.load(Ordering::Relaxed));
        let of_others = evictable
            .saturating_sub(own)
            .min(excess.saturating_sub(account.excess() as usize));
        self.free(zone) + own + of_others
    }

    /// Claims a place for one more session of a zone. Returns whether there was one.
    pub(crate) fn claim(&self, zone: Zone) -> bool {
        if !self.take(zone, false) {
            return false;
        }
        // New guarantees may stand for places that other zones have taken before.
        let more = |live: usize| (live < self.max_sessions).then_some(live + 1);
        let fits = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if fits.is_err() && self.leave(zone) {
            self.committed.fetch_sub(1, Ordering::Relaxed);
        }
        fits.is_ok()
    }

    /// Gives back the place of a session that has ended.
    pub(crate) fn release(&self, zone: Zone) {
        if self.leave(zone) {
            self.committed.fetch_sub(1, Ordering::Relaxed);
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
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
        // The place is committed to nobody now, and cannot be taken by anybody else.
        self.take(to, true)
    }

    /// Counts one more session of a zone. Beyond the zone's guarantee it needs a place that is not
    /// committed, or the one that the caller `brings`.
    fn take(&self, zone: Zone, brings: bool) -> bool {
        let account = self.zone(zone);
        // Whether a place is in hand beside those of the guarantee.
        let mut in_hand = brings;
        let mut seen = account.word.load(Ordering::Relaxed);
        let taken = loop {
            let Word { guarantee, sessions } = Word::of(seen);
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
            let exchanged =
                account
                    .word
                    .compare_exchange_weak(seen, more.packed(), Ordering::Relaxed, Ordering::Relaxed);
            match exchanged {
                Ok(_) => {
                    in_hand &= !needs;
                    break true;
                }
                Err(now) => seen = now,
            }
        };
        if in_hand {
            self.committed.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Commits one more place, if there is one.
    fn commit(&self) -> bool {
        let more = |committed: usize| (committed < self.max_sessions).then_some(committed + 1);
        self.committed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one session of a zone less. Returns whether its place was beyond the guarantee.
    fn leave(&self, zone: Zone) -> bool {
        let before = Word::of(self.zone(zone).word.fetch_sub(1, Ordering::Relaxed));
        before.sessions > before.guarantee
    }

    /// Counts one session of a zone less, if the zone is above its guarantee.
    fn leave_above(&self, zone: Zone) -> bool {
        let less = |word: u64| {
            let Word { guarantee, sessions } = Word::of(word);
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
                Some(Word { guarantee, sessions }.packed())
            };
            let exchanged = account
                .word
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, exchange);
            if let Ok(before) = exchanged.map(Word::of) {
                let sessions = before.sessions;
                self.committed
                    .fetch_add(Word { guarantee, sessions }.committed(), Ordering::Relaxed);
                self.committed.fetch_sub(before.committed(), Ordering::Relaxed);
            }
        }
        self.guaranteed.store(sum, Ordering::Relaxed);
    }

    fn sum_committed(&self) -> usize {
        let greater = |account: &ZoneAccount| account.word().committed();
        self.zones.iter().map(greater).sum()
    }

    /// Counts a session that begins with a standing.
    pub(crate) fn begins(&self, zone: Zone, standing: Standing) {
        if standing.half_open {
            self.zone(zone).half_open.fetch_add(1, Ordering::Relaxed);
        }
        if standing.assured {
            self.zone(zone).assured.fetch_add(1, Ordering::Relaxed);
            self.assured.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a session that ends with a standing.
    pub(crate) fn ends(&self, zone: Zone, standing: Standing) {
        if standing.half_open {
            self.zone(zone).half_open.fetch_sub(1, Ordering::Relaxed);
        }
        if standing.assured {
            self.zone(zone).assured.fetch_sub(1, Ordering::Relaxed);
            self.assured.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a session whose standing changes.
    pub(crate) fn changes(&self, zone: Zone, before: Standing, after: Standing) {
        if before != after {
            self.ends(zone, before);
            self.begins(zone, after);
        }
    }

    /// Compares the counts with those of the table.
    ///
    /// # Errors
    /// The first difference, in words.
    pub(crate) fn check_invariants(&self, tally: &Tally) -> Result<(), String> {
        let of_zone = |account: &ZoneAccount| {
            let assured = account.assured.load(Ordering::Relaxed);
            [account.sessions(), account.half_open(), assured]
        };
        // The tests ask after each step: zones and rules without sessions cost no look-up.
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
                return Err(format!("rule {}: {of_table} sessions, counted {own}", rule.0));
            }
        }
        let committed = self.committed.load(Ordering::Relaxed);
        if committed != self.sum_committed() {
            let sum = self.sum_committed();
            return Err(format!("{committed} places committed, {sum} by zones"));
        }
        if self.assured() != tally.assured {
            let counted = self.assured();
            return Err(format!("{} assured sessions, counted {counted}", tally.assured));
        }
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
        if self.counted.forgotten() > 0 {
            return Ok(());
        }
        // Where nothing was forgotten, counts are exact.
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

#[cfg(test)]
mod tests {
    use super::super::Bounds;
    use super::*;

    const BLUE: Zone = Zone(1);
    const GREEN: Zone = Zone(2);

    fn accounts(max_sessions: usize) -> Accounts {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        Accounts::new(max_sessions, Prefixes::DEFAULT, hasher).unwrap()
    }

    fn guarantee(accounts: &Accounts, zones: &[Zone]) {
        accounts.guarantee(zones, &Limits::default());
    }

    fn claimed(accounts: &Accounts, zone: Zone) -> usize {
        (0..1_000).take_while(|_| accounts.claim(zone)).count()
    }

    #[test]
    fn a_single_zone_has_the_whole_table() {
        let accounts = accounts(100);
        guarantee(&accounts, &[Zone::DEFAULT]);
        assert_eq!(claimed(&accounts, Zone(7)), 100);
        assert_eq!(accounts.free(Zone::DEFAULT), 0);
    }

    #[test]
    fn a_zone_cannot_take_what_others_are_sure_of() {
        let accounts = accounts(100);
        guarantee(&accounts, &[BLUE, GREEN]);
        assert_eq!((accounts.free(GREEN), claimed(&accounts, GREEN)), (75, 75));
        assert_eq!((accounts.free(BLUE), claimed(&accounts, BLUE)), (25, 25));
        assert_eq!(accounts.len(), 100);
        accounts.release(GREEN);
        assert!(
            accounts.claim(BLUE),
            "what is free beyond guarantees is anybody's"
        );
        accounts.release(BLUE);
        assert!(accounts.claim(GREEN));
        for _ in 0..60 {
            accounts.release(GREEN);
        }
        assert_eq!(claimed(&accounts, BLUE), 50, "green keeps 25");
    }

    #[test]
    fn a_zone_gives_back_what_is_above_its_guarantee_and_no_more() {
        let accounts = accounts(8);
        guarantee(&accounts, &[BLUE, GREEN]);
        assert_eq!(claimed(&accounts, GREEN), 6);
        assert_eq!(claimed(&accounts, BLUE), 2);
        for _ in 0..4 {
            assert!(accounts.hand_over(GREEN, BLUE));
        }
        assert!(!accounts.hand_over(GREEN, BLUE), "green is at its guarantee");
        assert!(accounts.hand_over(GREEN, GREEN));
        assert_eq!(accounts.len(), 8);
        assert_eq!(
            accounts.committed.load(Ordering::Relaxed),
            accounts.sum_committed()
        );
    }

    #[test]
    fn new_guarantees_count_what_zones_hold_already() {
        let accounts = accounts(100);
        guarantee(&accounts, &[BLUE]);
        assert_eq!(claimed(&accounts, BLUE), 100);
        guarantee(&accounts, &[BLUE, GREEN]);
        assert!(!accounts.claim(GREEN), "nobody has a place to spare");
        accounts.release(BLUE);
        assert_eq!(accounts.len(), 99);
        guarantee(&accounts, &[]);
        assert!(accounts.claim(GREEN));
        assert_eq!(
            accounts.committed.load(Ordering::Relaxed),
            accounts.sum_committed()
        );
    }

    #[test]
    fn a_zone_is_not_sure_of_more_than_its_limit() {
        let accounts = accounts(100);
        let bounds = Bounds {
            max_sessions: Some(5),
            ..Bounds::default()
        };
        let limits = Limits {
            zones: [(GREEN, bounds)].into(),
            ..Limits::default()
        };
        accounts.guarantee(&[BLUE, GREEN], &limits);
        assert_eq!(claimed(&accounts, BLUE), 95, "green could not use more");
        assert_eq!(claimed(&accounts, GREEN), 5);
        accounts.check_invariants(&Tally::default()).unwrap_err();
        for (zone, held) in [(BLUE, 95), (GREEN, 5)] {
            for _ in 0..held {
                accounts.release(zone);
            }
        }
        accounts.check_invariants(&Tally::default()).unwrap();
    }

    #[test]
    fn sessions_that_a_zone_cannot_evict_are_no_room_for_it() {
        let accounts = accounts(100);
        guarantee(&accounts, &[BLUE, GREEN]);
        let evictable = |zone, count| {
            for _ in 0..count {
                assert!(accounts.claim(zone));
                accounts.begins(zone, Standing::default());
            }
        };
        evictable(BLUE, 25);
        assert_eq!(accounts.free(GREEN), 75);
        assert_eq!(accounts.room(GREEN), 75, "blue is sure of its places");
        evictable(BLUE, 10);
        assert_eq!(accounts.free(GREEN), 65);
        assert_eq!(accounts.room(GREEN), 75, "10 of blue may be evicted");
        let assured = Standing {
            assured: true,
            ..Standing::default()
        };
        for _ in 0..20 {
            assert!(accounts.claim(GREEN));
            accounts.begins(GREEN, assured);
        }
        evictable(GREEN, 10);
        assert_eq!((accounts.free(GREEN), accounts.room(GREEN)), (35, 55));
    }

    #[test]
    fn threads_leave_exact_sums_behind() {
        let accounts = accounts(64);
        guarantee(&accounts, &[BLUE, GREEN]);
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let accounts = &accounts;
                scope.spawn(move || {
                    let zone = if thread % 2 == 0 { BLUE } else { GREEN };
                    for round in 0..20_000u32 {
                        let held = (0..round % 40).filter(|_| accounts.claim(zone)).count();
                        for _ in 0..held {
                            accounts.release(zone);
                        }
                    }
                });
            }
        });
        assert_eq!(accounts.len(), 0);
        accounts.check_invariants(&Tally::default()).unwrap();
        assert_eq!(claimed(&accounts, BLUE), 48);
    }
}
