//! Datagrams whose fragments are passing, and fragments that wait for their first one.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::id::HoldId;
use super::ledger::{Full, Ledger, SourceKey};
use super::ranges::{Added, Range, Ranges};
use super::{DatagramKey, MAX_FRAGMENTS};
use crate::config::FragmentsConfig;
use crate::flow::FlowKey;
use crate::packet::{Fragment, Malformed, SeqNum};
use crate::reserve::{NoMemory, Purpose};
use crate::session::time::Micros;
use crate::verdict::{DropReason, Tracked};

/// Number of expired datagrams that a new one clears away.
const CLEARED: usize = 8;

/// Number of incomplete datagrams for each refused datagram that is remembered.
const REFUSED_SHARE: u32 = 4;

/// First fragments that can be decided at the same time without an allocation: one for each thread.
const DECIDING: usize = 256;

/// A fragment that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) key: &'a DatagramKey,
    pub(crate) fragment: &'a Fragment,
    /// The prefix to which its source belongs.
    pub(crate) prefix: u128,
    /// See [`Fragment::max_end`].
    pub(crate) max_end: u16,
    pub(crate) now: Micros,
    /// Whether the caller can hold it.
    pub(crate) can_hold: bool,
}

impl Arrival<'_> {
    const fn source(&self) -> SourceKey {
        SourceKey {
            zone: self.key.zone,
            v6: self.key.v6,
            prefix: self.prefix,
        }
    }
}

/// Decision that the later fragments of an admitted datagram follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed {
    pub(crate) tracked: Tracked,
    /// The session's key, if the session counts the datagram.
    pub(crate) flow: Option<FlowKey>,
    /// For a TCP segment within its window: the sequence number at which byte 0 of the datagram
    /// would be. The segment's end is this number plus the datagram's length, a SYN or FIN
    /// included.
    pub(crate) base: Option<SeqNum>,
}

/// Decision about a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Admitted(Followed),
    Refused(Tracked),
}

/// A later fragment that is forwarded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaterFragment {
    pub(crate) followed: Followed,
    /// Old and new end of the TCP segment, if the fragment moves it.
    pub(crate) moves: Option<(SeqNum, SeqNum)>,
    /// The datagram is complete and is forgotten.
    pub(crate) complete: bool,
}

/// Result of [`Datagrams::join`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joined {
    /// No such datagram.
    Unknown,
    /// The first fragment has not arrived, and this one waits for it. A second identifier names
    /// held fragments that were evicted to make room for this one.
    Held(HoldId, Option<HoldId>),
    /// The datagram is known, and its lifetime is over.
    Expired,
    /// The fragment belongs to a known datagram and is forwarded.
    Passes(LaterFragment),
    /// The fragment belongs to a known datagram and is dropped; `None` if it fits nothing.
    Drops(DropReason, Option<Tracked>),
}

/// An admitted datagram.
#[derive(Debug, Clone, Copy)]
struct Datagram {
    followed: Followed,
    ranges: Ranges,
    /// Latest end of the datagram that its length field allows: see [`Fragment::max_end`].
    max_end: u16,
    /// End of the datagram, once the last fragment has passed.
    end: Option<u16>,
    fragments: u16,
}

/// Effect of a fragment on its datagram.
enum Taken {
    Passes(LaterFragment),
    /// Only the fragment is dropped.
    Drops(DropReason, Tracked),
    /// The fragment and the rest of the datagram are dropped.
    Breaks(DropReason, Tracked),
}

impl Datagram {
    fn take(&mut self, fragment: &Fragment) -> Taken {
        let followed = self.followed;
        let new = Range {
            start: fragment.offset,
            end: fragment.offset.saturating_add(fragment.payload_len),
        };
        if new.end > self.max_end {
            let reason = DropReason::Malformed(Malformed::FragmentBeyond65535);
            return Taken::Breaks(reason, followed.tracked);
        }
        let furthest = self.ranges.end();
        let fits = match self.end {
            Some(end) if fragment.more => new.end <= end,
            Some(end) => new.end == end,
            None => fragment.more || new.end >= furthest,
        };
        if !fits {
            return Taken::Breaks(DropReason::FragmentBeyondEnd, followed.tracked);
        }
        let mut ranges = self.ranges;
        match ranges.add(new) {
            Added::New => {}
            Added::Known => return Taken::Drops(DropReason::FragmentDuplicate, followed.tracked),
            Added::Overlap => return Taken::Breaks(DropReason::FragmentOverlap, followed.tracked),
            Added::TooMany => return Taken::Breaks(DropReason::FragmentTooMany, followed.tracked),
        }
        if self.fragments >= MAX_FRAGMENTS {
            return Taken::Breaks(DropReason::FragmentTooMany, followed.tracked);
        }
        self.ranges = ranges;
        self.fragments += 1;
        if !fragment.more {
            self.end = Some(new.end);
        }
        let moves = followed
            .base
            .filter(|_| new.end > furthest)
            .map(|base| (base.add(u32::from(furthest)), base.add(u32::from(new.end))));
        Taken::Passes(LaterFragment {
            followed,
            moves,
            complete: self.end.is_some_and(|end| self.ranges.are_all(end)),
        })
    }
}

/// A datagram whose fragments are dropped.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    tracked: Tracked,
    reason: DropReason,
}

/// State under the lock.
#[derive(Debug)]
struct State {
    /// Datagrams whose first fragment is being decided.
    deciding: Vec<DatagramKey>,
    admitted: Ledger<Datagram>,
    refused: Ledger<Refusal>,
    /// Datagrams whose first fragment has not arrived, with a slot for each held fragment.
    waiting: Ledger<HoldId>,
    last_hold: u64,
    given_up: u64,
}

/// Numbers of datagrams and fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Gauges {
    /// Incomplete datagrams.
    pub(crate) datagrams: usize,
    /// Fragments that are held.
    pub(crate) held: usize,
    /// Datagrams that were evicted for others, since the start.
    pub(crate) given_up: u64,
}

/// All incomplete datagrams: a fragment has arrived, and some are missing.
#[derive(Debug)]
pub(crate) struct Datagrams {
    state: Mutex<State>,
    /// Number of datagrams under the lock. While it is 0, the lock need not be taken.
    live: AtomicUsize,
    lifetime_micros: u64,
    hold_micros: u64,
}

fn micros(duration: core::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl State {
    /// Returns the number of datagrams.
    fn len(&self) -> usize {
        self.admitted.len() + self.refused.len() + self.waiting.len()
    }

    /// Removes expired datagrams, at most `budget` of each kind.
    fn expire(&mut self, now: Micros, budget: usize) {
        for _ in 0..budget {
            let Some(key) = self.admitted.due(now) else {
                break;
            };
            self.admitted.remove(&key);
        }
        for _ in 0..budget {
            let Some(key) = self.refused.due(now) else {
                break;
            };
            self.refused.remove(&key);
        }
        for _ in 0..budget {
            let Some(key) = self.waiting.due(now) else {
                break;
            };
            self.waiting.remove(&key);
        }
    }

    /// Adds an admitted datagram, for which another one may be evicted.
    fn admit(&mut self, arrival: &Arrival<'_>, followed: Followed, lifetime: u64) {
        let deadline = Micros(arrival.now.0.saturating_add(lifetime));
        let source = arrival.source();
        if let Some((victim, full)) = self.admitted.victim(&source)
            && let Some((datagram, owner)) = self.admitted.remove(&victim)
        {
            self.given_up += 1;
            let refusal = Refusal {
                tracked: datagram.followed.tracked,
                reason: match full {
                    Full::Source => DropReason::FragmentSourceLimit,
                    Full::Table => DropReason::FragmentTableFull,
                },
            };
            self.refuse(victim, owner, deadline, refusal);
        }
        let mut ranges = Ranges::default();
        ranges.add(Range {
            start: 0,
            end: arrival.fragment.payload_len,
        });
        let datagram = Datagram {
            followed,
            ranges,
            max_end: arrival.max_end,
            end: None,
            fragments: 1,
        };
        self.admitted
            .insert(*arrival.key, source, deadline, |_| datagram);
    }

    /// Records why the fragments of a datagram are dropped, which may evict another such record.
    fn refuse(&mut self, key: DatagramKey, source: SourceKey, deadline: Micros, refusal: Refusal) {
        if let Some((victim, _)) = self.refused.victim(&source) {
            self.refused.remove(&victim);
        }
        self.refused.insert(key, source, deadline, |_| refusal);
    }

    /// Holds a fragment, if it may be held and there is room. A full table evicts the oldest
    /// datagram of the zone and source that have the most: a late first fragment arrives within
    /// milliseconds, so the newest datagrams are the most likely to be completed.
    fn hold(&mut self, arrival: &Arrival<'_>, hold: u64) -> Joined {
        // Also accepts a fragment that was held until now: a caller that submits it again needs no
        // other call.
        self.expire(arrival.now, CLEARED);
        if !arrival.can_hold || hold == 0 {
            return Joined::Unknown;
        }
        let key = arrival.key;
        let known = self
            .waiting
            .get_mut(key)
            .map(|(id, deadline)| (*id, deadline));
        let known = match known {
            Some((_, deadline)) if deadline <= arrival.now => {
                self.waiting.remove(key);
                None
            }
            known => known,
        };
        let source = arrival.source();
        let evicted = match self.waiting.victim(&source) {
            // A datagram does not evict itself: its held fragments matter more than later ones.
            Some((victim, _)) if victim == *key => return Joined::Unknown,
            Some((victim, _)) => self.waiting.remove(&victim).map(|(id, _)| id),
            None => None,
        };
        if let Some((id, _)) = known {
            self.waiting.grow(key);
            return Joined::Held(id, evicted);
        }
        let deadline = Micros(arrival.now.0.saturating_add(hold));
        self.last_hold += 1;
        let mut id = HoldId::new(0, self.last_hold);
        self.waiting.insert(*key, source, deadline, |number| {
            id = HoldId::new(number, self.last_hold);
            id
        });
        Joined::Held(id, evicted)
    }

    /// Handles a fragment of an expired datagram. A fragment that can be held may belong to a new
    /// datagram with the same identification.
    fn anew(&mut self, arrival: &Arrival<'_>, hold: u64) -> Joined {
        if arrival.fragment.offset == 0 {
            return Joined::Expired;
        }
        match self.hold(arrival, hold) {
            Joined::Unknown => Joined::Expired,
            held => held,
        }
    }

    fn join(&mut self, arrival: &Arrival<'_>, lifetime: u64, hold: u64) -> Joined {
        let Arrival {
            key, fragment, now, ..
        } = *arrival;
        if let Some((datagram, deadline)) = self.admitted.get_mut(key) {
            if deadline <= now {
                self.admitted.remove(key);
                return self.anew(arrival, hold);
            }
            return match datagram.take(fragment) {
                Taken::Passes(part) => {
                    if part.complete {
                        self.admitted.remove(key);
                    }
                    Joined::Passes(part)
                }
                Taken::Drops(reason, tracked) => Joined::Drops(reason, Some(tracked)),
                Taken::Breaks(reason, tracked) => {
                    self.admitted.remove(key);
                    let deadline = Micros(now.0.saturating_add(lifetime));
                    let refusal = Refusal {
                        tracked,
                        reason: DropReason::FragmentOfDropped,
                    };
                    self.refuse(*key, arrival.source(), deadline, refusal);
                    Joined::Drops(reason, None)
                }
            };
        }
        if let Some((refusal, deadline)) = self.refused.get_mut(key) {
            if deadline <= now {
                self.refused.remove(key);
                return self.anew(arrival, hold);
            }
            return Joined::Drops(refusal.reason, Some(refusal.tracked));
        }
        if fragment.offset != 0 {
            return self.hold(arrival, hold);
        }
        if self.deciding.contains(key) {
            // Another thread has decided a copy of this fragment first.
            return Joined::Drops(DropReason::FragmentDuplicate, None);
        }
        Joined::Unknown
    }
}

impl Datagrams {
    /// Returns how many refused datagrams are remembered.
    const fn max_refused(config: &FragmentsConfig) -> u32 {
        let share = config.max_datagrams / REFUSED_SHARE;
        if share == 0 { 1 } else { share }
    }

    /// Returns the bytes that the datagrams take under a configuration.
    pub(crate) const fn bytes(config: &FragmentsConfig) -> usize {
        Ledger::<Datagram>::bytes(config.max_datagrams)
            + Ledger::<Refusal>::bytes(Self::max_refused(config))
            + Ledger::<HoldId>::bytes(config.max_held)
    }

    /// Creates an empty table. The seed keys the hashes: a secret, or fixed in a test.
    pub(crate) fn new(config: &FragmentsConfig, seed: [u64; 4]) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        // The hash differs from that of the sessions.
        let hasher = ahash::RandomState::with_seeds(d, c, b, a);
        let max = config.max_datagrams;
        let refused = Self::max_refused(config);
        Ok(Self {
            state: Mutex::new(State {
                deciding: Purpose::Fragments.room(DECIDING)?,
                admitted: Ledger::new(max, config.max_per_source, &hasher)?,
                refused: Ledger::new(refused, config.max_per_source, &hasher)?,
                waiting: Ledger::new(config.max_held, config.max_held_per_source, &hasher)?,
                last_hold: 0,
                given_up: 0,
            }),
            live: AtomicUsize::new(0),
            lifetime_micros: micros(config.lifetime),
            hold_micros: micros(config.hold),
        })
    }

    /// Runs a function under the lock, and records the resulting number of datagrams.
    fn with<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = run(&mut state);
        self.live.store(state.len(), Ordering::Relaxed);
        result
    }

    /// Returns the numbers of datagrams and fragments.
    pub(crate) fn gauges(&self) -> Gauges {
        let state = self.state.lock();
        Gauges {
            datagrams: state.admitted.len(),
            held: state.waiting.places() as usize,
            given_up: state.given_up,
        }
    }

    /// Finds the datagram of a fragment, and decides on the fragment if there is one.
    ///
    /// A fragment that arrives before the first is held if its caller can do that, also while
    /// another thread decides the first: [`Datagrams::settle`] then releases it.
    pub(crate) fn join(&self, arrival: &Arrival<'_>) -> Joined {
        self.with(|state| state.join(arrival, self.lifetime_micros, self.hold_micros))
    }

    /// Begins a datagram whose first fragment has arrived; [`Datagrams::settle`] or
    /// [`Datagrams::put_off`] must follow.
    ///
    /// # Errors
    /// Another thread is deciding a copy of this fragment, or has decided it.
    pub(crate) fn open(&self, key: &DatagramKey) -> Result<(), DropReason> {
        self.with(|state| {
            if state.deciding.contains(key)
                || state.admitted.contains(key)
                || state.refused.contains(key)
            {
                return Err(DropReason::FragmentDuplicate);
            }
            state.deciding.push(*key);
            Ok(())
        })
    }

    /// Puts off the decision about a datagram: its first fragment is held, and is submitted again.
    pub(crate) fn put_off(&self, key: &DatagramKey) {
        self.with(|state| state.deciding.retain(|deciding| deciding != key));
    }

    /// Records the decision about a datagram. Returns the identifier of the fragments that waited
    /// for it.
    pub(crate) fn settle(&self, arrival: &Arrival<'_>, fate: Fate) -> Option<HoldId> {
        self.with(|state| {
            state.deciding.retain(|deciding| deciding != arrival.key);
            state.expire(arrival.now, CLEARED);
            match fate {
                Fate::Admitted(followed) => state.admit(arrival, followed, self.lifetime_micros),
                Fate::Refused(tracked) => {
                    let deadline = Micros(arrival.now.0.saturating_add(self.lifetime_micros));
                    let refusal = Refusal {
                        tracked,
                        reason: DropReason::FragmentOfDropped,
                    };
                    state.refuse(*arrival.key, arrival.source(), deadline, refusal);
                }
            }
            state.waiting.remove(arrival.key).map(|(id, _)| id)
        })
    }

    /// Returns whether the fragments of an identifier still wait for their first one.
    pub(crate) fn holds(&self, id: HoldId) -> bool {
        self.state.lock().waiting.at(id.number()) == Some(&id)
    }

    /// Removes expired datagrams, at most `budget` of each kind.
    pub(crate) fn expire(&self, now: Micros, budget: usize) {
        if self.live.load(Ordering::Relaxed) > 0 {
            self.with(|state| state.expire(now, budget));
        }
    }

    /// Checks that maps, lists and counts agree; no packet may pass meanwhile.
    ///
    /// # Errors
    /// Returns a description of the first inconsistency.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let state = self.state.lock();
        let named = |name: &str, result: Result<(), String>| {
            result.map_err(|what| format!("{name}: {what}"))
        };
        named("admitted", state.admitted.check_invariants())?;
        named("refused", state.refused.check_invariants())?;
        named("waiting", state.waiting.check_invariants())?;
        if let Some(key) = state.deciding.first() {
            return Err(format!("{key} was never decided"));
        }
        let twice = |key: &DatagramKey| state.refused.contains(key) || state.waiting.contains(key);
        if let Some((key, _)) = state.admitted.iter().find(|(key, _)| twice(key)) {
            return Err(format!("{key} is in two places"));
        }
        let live = self.live.load(Ordering::Relaxed);
        if live != state.len() {
            return Err(format!("{} datagrams, counted {live}", state.len()));
        }
        Ok(())
    }
}
