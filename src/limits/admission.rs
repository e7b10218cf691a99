//! One new session against all limits: counted by all of them, or by none.

use std::sync::atomic::Ordering;

use super::accounts::Accounts;
use super::counted::{Ask, Excess, Holding, Key, KeyHash, Kind, SMALL_SOURCE};
use super::standing::Standing;
use super::{Bounds, Exceeded, Limit, LimitScope, Limits};
use crate::flow::{End, FlowKey};
use crate::packet::PROTOCOL_TCP;
use crate::policy::id::RuleId;
use crate::session::time::Micros;

/// Entries that a session is counted in, beside that of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// The entry of its destination.
    pub(crate) destination: bool,
    /// The entries of its source and destination under its rule.
    pub(crate) of_rule: bool,
}

/// A session as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) key: &'a FlowKey,
    pub(crate) initiator: End,
    pub(crate) rule: RuleId,
}

impl Subject<'_> {
    fn entry(&self, accounts: &Accounts, kind: Kind) -> Key {
        let end = match kind {
            Kind::Source | Kind::SourceOfRule => self.initiator,
            Kind::Destination | Kind::DestinationOfRule => self.initiator.opposite(),
        };
        let v6 = self.key.is_ipv6();
        let prefix = accounts.prefixes.counted(self.key.address_number(end), v6);
        Key::new(kind, self.key.zone(), self.rule, prefix, v6)
    }

    /// Returns the keys of the entries that the session is counted in.
    pub(super) fn entries(self, accounts: &Accounts, counts: Counts) -> impl Iterator<Item = Key> {
        Admitted::STEPS
            .into_iter()
            .filter(move |kind| counts.has(*kind))
            .map(move |kind| self.entry(accounts, kind))
    }

    /// Returns the standing that every session is counted with until [`Accounts::changed`] says
    /// otherwise.
    pub(crate) fn first_standing(&self) -> Standing {
        Standing {
            half_open: self.key.protocol() == PROTOCOL_TCP,
            assured: false,
        }
    }
}

/// The hash of the entry of an end of a session that has begun it, or may begin it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceHash {
    end: End,
    hash: KeyHash,
}

/// Circumstances of a new session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    /// The hash of the entry of an end of the session's key, if it is known.
    pub(crate) source: Option<SourceHash>,
    /// A control session has announced it: no rate holds for it.
    pub(crate) is_announced: bool,
    /// A finished session that ends for it if it is admitted, and the entries that it is counted
    /// in.
    pub(crate) replaces: Option<(Subject<'r>, Counts)>,
    pub(crate) now: Micros,
}

impl Request<'_> {
    /// Returns whether the finished session that ends for the new one is counted in an entry.
    fn replaces_one_of(&self, accounts: &Accounts, kind: Kind, entry: &Key) -> bool {
        self.replaces.is_some_and(|(finished, counts)| {
            counts.has(kind) && finished.entry(accounts, kind) == *entry
        })
    }
}

/// Counted session; dropping the value takes the counts back.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    accounts: &'a Accounts,
    subject: Subject<'a>,
    counts: Counts,
    /// Number of [`Admitted::STEPS`] that are done.
    done: usize,
    is_kept: bool,
}

impl Admitted<'_> {
    /// Keeps the counts. The session's slot stores the returned value.
    pub(crate) fn keep(mut self) -> Counts {
        self.is_kept = true;
        self.counts
    }

    /// The order in which a session is counted.
    const STEPS: [Kind; 4] = [
        Kind::Source,
        Kind::SourceOfRule,
        Kind::Destination,
        Kind::DestinationOfRule,
    ];
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let standing = self.subject.first_standing();
        for kind in Self::STEPS.into_iter().take(self.done) {
            if self.counts.has(kind) {
                self.accounts
                    .counted
                    .end(&self.subject.entry(self.accounts, kind), standing);
            }
        }
        self.accounts
            .rule(self.subject.rule)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    const fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Source => true,
            Kind::Destination => self.destination,
            Kind::SourceOfRule | Kind::DestinationOfRule => self.of_rule,
        }
    }
}

impl Accounts {
    /// Prefetches the part of the counts of an initiator that is read first. Returns the hash by
    /// which [`Accounts::prefetch_source`] prefetches the rest. Takes no lock.
    #[inline]
    pub(crate) fn prefetch_counts(&self, key: &FlowKey, initiator: End) -> SourceHash {
        let rule = RuleId::DEFAULT;
        let subject = Subject {
            key,
            initiator,
            rule,
        };
        let source = subject.entry(self, Kind::Source);
        SourceHash {
            end: initiator,
            hash: self.counted.prefetch_set(&source),
        }
    }

    /// Prefetches the counts of an initiator.
    #[inline]
    pub(crate) fn prefetch_source(&self, source: SourceHash) {
        self.counted.prefetch_entry(source.hash);
    }

    /// Returns the hash of an entry of a session; that of its source may be known.
    #[inline]
    fn hash(
        &self,
        subject: &Subject<'_>,
        kind: Kind,
        entry: &Key,
        known: Option<SourceHash>,
    ) -> KeyHash {
        match known {
            Some(source) if kind == Kind::Source && source.end == subject.initiator => source.hash,
            _ => self.counted.hash(entry),
        }
    }

    /// Counts a new session, unless that exceeds a limit.
    #[inline(always)]
    pub(crate) fn admit<'a>(
        &'a self,
        subject: Subject<'a>,
        limits: &Limits,
        of_rule: &Bounds,
        request: &Request<'_>,
    ) -> Result<Admitted<'a>, Exceeded> {
        let of_zone = limits.of_zone(subject.key.zone());
        self.check_zone(&subject, of_zone, request.replaces.is_some())?;
        let of_same_rule = |(finished, _): (Subject<'_>, Counts)| finished.rule == subject.rule;
        self.count_rule(
            &subject,
            of_rule,
            request.replaces.is_some_and(of_same_rule),
        )?;
        let mut admitted = Admitted {
            accounts: self,
            subject,
            counts: Counts {
                destination: of_zone.max_per_destination.is_some(),
                of_rule: of_rule.has_entries(),
            },
            done: 0,
            is_kept: false,
        };
        // An error drops `admitted`, which takes the counts back.
        self.count(&subject, Kind::Source, of_zone, request)?;
        admitted.done = 1;
        if admitted.counts != Counts::default() {
            self.count_beside(&mut admitted, of_zone, of_rule, request)?;
        }
        Ok(admitted)
    }

    /// Counts a session in the entries beside that of its source. Few configurations have any.
    #[cold]
    #[inline(never)]
    fn count_beside(
        &self,
        admitted: &mut Admitted<'_>,
        of_zone: &Bounds,
        of_rule: &Bounds,
        request: &Request<'_>,
    ) -> Result<(), Exceeded> {
        for kind in Admitted::STEPS.into_iter().skip(admitted.done) {
            if admitted.counts.has(kind) {
                let bounds = match kind {
                    Kind::Source | Kind::Destination => of_zone,
                    Kind::SourceOfRule | Kind::DestinationOfRule => of_rule,
                };
                self.count(&admitted.subject, kind, bounds, request)?;
            }
            admitted.done += 1;
        }
        Ok(())
    }

    /// Counts a session that no limit holds for, since it was there before.
    pub(crate) fn admit_unasked<'a>(
        &'a self,
        subject: Subject<'a>,
        counts: Counts,
    ) -> Admitted<'a> {
        self.rule(subject.rule).fetch_add(1, Ordering::Relaxed);
        let ask = Ask {
            standing: subject.first_standing(),
            ..Ask::default()
        };
        for kind in Admitted::STEPS.into_iter().filter(|kind| counts.has(*kind)) {
            // An ask without bounds is never refused.
            let _never_refused = self.counted.begin(&subject.entry(self, kind), &ask);
        }
        Admitted {
            accounts: self,
            subject,
            counts,
            done: Admitted::STEPS.len(),
            is_kept: false,
        }
    }

    fn check_zone(
        &self,
        subject: &Subject<'_>,
        bounds: &Bounds,
        replaces_one: bool,
    ) -> Result<(), Exceeded> {
        let sessions = self.zone(subject.key.zone()).sessions();
        let sessions = sessions.saturating_sub(u32::from(replaces_one));
        match bounds.max_sessions {
            Some(value) if sessions >= value => Err(Exceeded {
                limit: Limit::Sessions,
                scope: bounds.scope,
                value,
                count: sessions,
            }),
            _ => Ok(()),
        }
    }

    fn count_rule(
        &self,
        subject: &Subject<'_>,
        bounds: &Bounds,
        replaces_one: bool,
    ) -> Result<(), Exceeded> {
        let count = self.rule(subject.rule);
        let Some(value) = bounds.max_sessions else {
            // Threads share the counter: an addition waits for its cache line once.
            count.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let most = value.saturating_add(u32::from(replaces_one));
        let more = |sessions: u32| (sessions < most).then_some(sessions + 1);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(drop)
            .map_err(|count| Exceeded {
                limit: Limit::Sessions,
                scope: bounds.scope,
                value,
                count,
            })
    }

    #[inline]
    fn count(
        &self,
        subject: &Subject<'_>,
        kind: Kind,
        bounds: &Bounds,
        request: &Request<'_>,
    ) -> Result<(), Exceeded> {
        let is_source = matches!(kind, Kind::Source | Kind::SourceOfRule);
        let standing = subject.first_standing();
        let room = || self.room(subject.key.zone());
        let entry = subject.entry(self, kind);
        let rate = bounds.new_per_second_per_source;
        let ask = Ask {
            sessions: if is_source {
                bounds.max_per_source
            } else {
                bounds.max_per_destination
            },
            replaces_one: request.replaces_one_of(self, kind, &entry),
            half_open: bounds.max_half_open_per_source.filter(|_| is_source),
            rate: rate.filter(|_| is_source && !request.is_announced),
            room: (kind == Kind::Source).then_some(&room),
            standing,
            now: request.now,
        };
        let hash = self.hash(subject, kind, &entry, request.source);
        let excess = match self.counted.begin_at(hash, &entry, &ask) {
            Ok(()) => return Ok(()),
            Err(excess) => excess,
        };
        let (limit, value, count) = match excess {
            Excess::Sessions(count) if is_source => (Limit::PerSource, ask.sessions, count),
            Excess::Sessions(count) => (Limit::PerDestination, ask.sessions, count),
            Excess::HalfOpen(count) => (Limit::HalfOpenPerSource, ask.half_open, count),
            Excess::Rate => (Limit::RatePerSource, rate, rate.unwrap_or(0)),
            Excess::Share { count, room } => {
                let room = u32::try_from(room).unwrap_or(u32::MAX);
                (Limit::SourceShare, Some(room), count)
            }
        };
        Err(Exceeded {
            limit,
            scope: match limit {
                Limit::SourceShare => LimitScope::All,
                _ => bounds.scope,
            },
            value: value.unwrap_or(0),
            count,
        })
    }

    /// Counts the change of a session's standing by its source.
    #[inline]
    pub(crate) fn changed(
        &self,
        subject: Subject<'_>,
        counts: Counts,
        before: Standing,
        after: Standing,
    ) {
        if before != after {
            self.change(subject, counts, before, after);
        }
    }

    fn change(&self, subject: Subject<'_>, counts: Counts, before: Standing, after: Standing) {
        for kind in Admitted::STEPS.into_iter().filter(|kind| counts.has(*kind)) {
            self.counted
                .change(&subject.entry(self, kind), before, after);
        }
    }

    /// Counts the end of a session by its source and destination. [`Accounts::depart`] counts the
    /// end by zone and rule. `source` is the hash of the entry of its source, if it is known.
    pub(crate) fn ended(
        &self,
        subject: Subject<'_>,
        counts: Counts,
        standing: Standing,
        source: Option<SourceHash>,
    ) {
        let entry = subject.entry(self, Kind::Source);
        let hash = self.hash(&subject, Kind::Source, &entry, source);
        self.counted.end_at(hash, &entry, standing);
        if counts != Counts::default() {
            self.ended_beside(subject, counts, standing);
        }
    }

    /// Counts the end of a session in the entries beside that of its source.
    #[cold]
    #[inline(never)]
    fn ended_beside(&self, subject: Subject<'_>, counts: Counts, standing: Standing) {
        let beside = Admitted::STEPS.into_iter().skip(1);
        for kind in beside.filter(|kind| counts.has(*kind)) {
            self.counted.end(&subject.entry(self, kind), standing);
        }
    }

    /// Counts a session under the rule and in the entries of `moved`, and no longer in those of
    /// `subject`. The entry of its source does not change.
    pub(crate) fn moved(
        &self,
        subject: Subject<'_>,
        before: Counts,
        moved: Subject<'_>,
        after: Counts,
        standing: Standing,
    ) {
        self.rule(subject.rule).fetch_sub(1, Ordering::Relaxed);
        self.rule(moved.rule).fetch_add(1, Ordering::Relaxed);
        let beside = |kind: &Kind| *kind != Kind::Source;
        for kind in Admitted::STEPS.into_iter().filter(beside) {
            if before.has(kind) {
                self.counted.end(&subject.entry(self, kind), standing);
            }
            if after.has(kind) {
                let ask = Ask {
                    standing,
                    ..Ask::default()
                };
                let _never_refused = self.counted.begin(&moved.entry(self, kind), &ask);
            }
        }
    }

    /// Returns the weight of a new session's source in a full table: its half-open sessions, or for
    /// a protocol without a handshake those that may be evicted; 0 for a small source.
    pub(crate) fn weight_of_new(&self, subject: Subject<'_>) -> u32 {
        let holding = self.source(subject);
        let unproven = match subject.key.protocol() {
            PROTOCOL_TCP => holding.half_open,
            _ => holding.evictable(),
        };
        if unproven < self.heavy_source() {
            0
        } else {
            unproven
        }
    }

    /// Returns how many sessions that may be evicted make a source a heavy one: a 64th of the
    /// table.
    pub(crate) fn heavy_source(&self) -> u32 {
        ((self.max_sessions() / 64) as u32).max(SMALL_SOURCE)
    }

    /// Returns the limit that explains the lack of room for a new session in a full table: its
    /// source is heavy, or the remaining places belong to other zones. `None`: the table is just
    /// full.
    pub(crate) fn why_full(&self, subject: Subject<'_>) -> Option<Exceeded> {
        let zone = self.zone(subject.key.zone());
        let heavy = self.weight_of_new(subject);
        let (limit, value, count) = if heavy > 0 {
            (Limit::SourceShare, 0, heavy)
        } else if self.free(subject.key.zone()) == 0 && self.len() < self.max_sessions() {
            (Limit::ZoneShare, zone.guarantee(), zone.sessions())
        } else {
            return None;
        };
        Some(Exceeded {
            limit,
            scope: LimitScope::All,
            value,
            count,
        })
    }

    /// Returns the known counts of a session's source.
    pub(crate) fn source(&self, subject: Subject<'_>) -> Holding {
        self.counted.holding(&subject.entry(self, Kind::Source))
    }
}
