//! The datagrams whose fragments are passing.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

use super::queue::{Queue, Ticket};
use super::ranges::{Added, Range, Ranges};
use super::{DatagramKey, MAX_FRAGMENTS};
use crate::config::FragmentsConfig;
use crate::flow::FlowKey;
use crate::packet::{Fragment, Malformed, SeqNum};
use crate::session::Micros;
use crate::verdict::{DropReason, Tracked};

/// How many expired datagrams a new one clears away.
const CLEARED: usize = 8;

/// Of how many datagrams one may be remembered for having been refused.
const REFUSED_SHARE: usize = 4;

/// What the later fragments of an admitted datagram follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed {
    pub(crate) tracked: Tracked,
    /// The session's key, where the session counts the datagram.
    pub(crate) flow: Option<FlowKey>,
    /// Of a TCP segment that its window believes: the sequence number behind byte 0 of the datagram. The segment's
    /// end is this and the datagram's length, a SYN or FIN counted.
    pub(crate) base: Option<SeqNum>,
}

/// What was decided of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Admitted(Followed),
    Refused(Tracked),
}

/// A later fragment that passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) followed: Followed,
    /// From where to where the fragment moves the end of the TCP segment, if it does.
    pub(crate) moves: Option<(SeqNum, SeqNum)>,
    /// Nothing of the datagram is missing any more: it is forgotten.
    pub(crate) complete: bool,
}

/// What [`Datagrams::join`] found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joined {
    /// No such datagram.
    Unknown,
    /// There was one; its lifetime is over.
    Expired,
    /// The fragment belongs to it and passes.
    Passes(Part),
    /// The fragment belongs to it and is dropped; `None`: it fits nothing.
    Drops(DropReason, Option<Tracked>),
}

#[derive(Debug)]
struct Datagram {
    ticket: Ticket,
    deadline: Micros,
    /// `None` while the first fragment is being decided.
    fate: Option<Fate>,
    ranges: Ranges,
    /// Where it must end, for its length field to say so: see [`Fragment::max_end`].
    max_end: u16,
    /// Where the datagram ends, once its last fragment has passed.
    end: Option<u16>,
    fragments: u16,
}

/// What a fragment does to its datagram.
enum Taken {
    Passes(Part),
    /// This fragment is dropped, the datagram goes on.
    Drops(DropReason, Option<Tracked>),
    /// This fragment is dropped, and with it the rest of the datagram.
    Breaks(DropReason, Tracked),
}

impl Datagram {
    fn take(&mut self, fragment: &Fragment) -> Taken {
        let followed = match self.fate {
            Some(Fate::Admitted(followed)) => followed,
            Some(Fate::Refused(tracked)) => {
                return Taken::Drops(DropReason::FragmentOfDropped, Some(tracked));
            }
            // Two threads have a fragment each, and the other is not ready.
            None if fragment.offset == 0 => return Taken::Drops(DropReason::FragmentDuplicate, None),
            None => return Taken::Drops(DropReason::FragmentBeforeFirst, None),
        };
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
            Added::Known => return Taken::Drops(DropReason::FragmentDuplicate, Some(followed.tracked)),
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
        Taken::Passes(Part {
            followed,
            moves,
            complete: self.end.is_some_and(|end| self.ranges.are_all(end)),
        })
    }
}

/// All datagrams of which a first fragment has come and something is missing.
#[derive(Debug)]
pub(crate) struct Datagrams {
    datagrams: DashMap<DatagramKey, Datagram, ahash::RandomState>,
    /// Datagrams by zone and source address; one that has none is not there.
    sources: DashMap<(u16, bool, u128), u32, ahash::RandomState>,
    queue: Mutex<Queue>,
    /// Datagrams, or room claimed for one. While it is 0 nobody needs to look.
    live: AtomicUsize,
    /// Datagrams that are remembered for having been refused.
    refused: AtomicUsize,
    max: usize,
    max_per_source: u32,
    lifetime_micros: u64,
}

/// Claims one of `max`; whether there was one.
fn claim(count: &AtomicUsize, max: usize) -> bool {
    if count.fetch_add(1, Ordering::AcqRel) < max {
        return true;
    }
    count.fetch_sub(1, Ordering::AcqRel);
    false
}

const fn source(key: &DatagramKey) -> (u16, bool, u128) {
    (key.zone, key.v6, key.src)
}

impl Datagrams {
    /// The seed keys the hashes: a secret, or fixed in a test.
    pub(crate) fn new(config: &FragmentsConfig, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        // Another hash than that of the sessions.
        let hasher = ahash::RandomState::with_seeds(d, c, b, a);
        let max = config.max_datagrams as usize;
        let shards: usize = if max < 256 { 2 } else { 16 };
        let fair = max.div_ceil(shards);
        // Six standard deviations of a random spread; and twice that, since a map at most half full clears the
        // traces of what was removed in place instead of growing.
        let capacity = shards * 2 * (fair + 6 * fair.isqrt() + 16);
        Self {
            datagrams: DashMap::with_capacity_and_hasher_and_shard_amount(capacity, hasher.clone(), shards),
            sources: DashMap::with_capacity_and_hasher_and_shard_amount(capacity, hasher, shards),
            queue: Mutex::new(Queue::new(max)),
            live: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            max,
            max_per_source: config.max_per_source,
            lifetime_micros: u64::try_from(config.lifetime.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Finds the datagram of a fragment, and says what becomes of the fragment if there is one.
    pub(crate) fn join(&self, key: &DatagramKey, fragment: &Fragment, now: Micros) -> Joined {
        if self.live.load(Ordering::Acquire) == 0 {
            return Joined::Unknown;
        }
        let (ticket, taken) = {
            let Some(mut datagram) = self.datagrams.get_mut(key) else {
                return Joined::Unknown;
            };
            let alive = datagram.deadline > now;
            (datagram.ticket, alive.then(|| datagram.take(fragment)))
        };
        match taken {
            None => {
                self.forget(key, ticket);
                Joined::Expired
            }
            Some(Taken::Passes(part)) => {
                if part.complete {
                    self.forget(key, ticket);
                }
                Joined::Passes(part)
            }
            Some(Taken::Drops(reason, tracked)) => Joined::Drops(reason, tracked),
            Some(Taken::Breaks(reason, tracked)) => {
                self.settle(key, ticket, Fate::Refused(tracked));
                Joined::Drops(reason, None)
            }
        }
    }

    /// Takes up a datagram whose first fragment has come; [`Datagrams::settle`] must follow. `max_end` is where it must
    /// end at most, see [`Fragment::max_end`].
    ///
    /// # Errors
    /// Why there is no room for it.
    pub(crate) fn open(
        &self,
        key: &DatagramKey,
        fragment: &Fragment,
        max_end: u16,
        now: Micros,
    ) -> Result<Ticket, DropReason> {
        self.expire(now, CLEARED);
        if !claim(&self.live, self.max) {
            return Err(DropReason::FragmentTableFull);
        }
        if !self.claim_source(key) {
            self.live.fetch_sub(1, Ordering::AcqRel);
            return Err(DropReason::FragmentSourceLimit);
        }
        let deadline = Micros(now.0.saturating_add(self.lifetime_micros));
        let ticket = self.queue.lock().push(*key, deadline);
        let mut ranges = Ranges::default();
        ranges.add(Range {
            start: 0,
            end: fragment.payload_len,
        });
        let datagram = Datagram {
            ticket,
            deadline,
            fate: None,
            ranges,
            max_end,
            end: None,
            fragments: 1,
        };
        let taken = match self.datagrams.entry(*key) {
            Entry::Vacant(place) => {
                place.insert(datagram);
                true
            }
            Entry::Occupied(_) => false,
        };
        if taken {
            return Ok(ticket);
        }
        // Another thread had the same fragment and was faster.
        self.release(key, ticket);
        Err(DropReason::FragmentDuplicate)
    }

    /// Says what was decided of a datagram. One too many that was refused is forgotten.
    pub(crate) fn settle(&self, key: &DatagramKey, ticket: Ticket, fate: Fate) {
        let refuse = matches!(fate, Fate::Refused(_));
        if refuse && !claim(&self.refused, self.max / REFUSED_SHARE) {
            self.forget(key, ticket);
            return;
        }
        let settled = match self.datagrams.get_mut(key) {
            Some(mut datagram)
                if datagram.ticket == ticket && !matches!(datagram.fate, Some(Fate::Refused(_))) =>
            {
                datagram.fate = Some(fate);
                true
            }
            _ => false,
        };
        if refuse && !settled {
            self.refused.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Forgets datagrams whose lifetime is over, at most `budget`.
    pub(crate) fn expire(&self, now: Micros, budget: usize) {
        if self.live.load(Ordering::Acquire) == 0 {
            return;
        }
        for _ in 0..budget {
            let due = self.queue.lock().due(now);
            match due {
                Some((key, ticket)) if self.forget(&key, ticket) => {}
                // Nothing is due, or another thread is at it.
                _ => break,
            }
        }
    }

    /// Forgets a datagram; whether this call did.
    fn forget(&self, key: &DatagramKey, ticket: Ticket) -> bool {
        let Some((_, datagram)) = self
            .datagrams
            .remove_if(key, |_, datagram| datagram.ticket == ticket)
        else {
            return false;
        };
        if let Some(Fate::Refused(_)) = datagram.fate {
            self.refused.fetch_sub(1, Ordering::AcqRel);
        }
        self.release(key, ticket);
        true
    }

    /// Gives back what a datagram had taken, once it is out of the map.
    fn release(&self, key: &DatagramKey, ticket: Ticket) {
        self.queue.lock().remove(ticket);
        if let Entry::Occupied(mut count) = self.sources.entry(source(key)) {
            if *count.get() > 1 {
                *count.get_mut() -= 1;
            } else {
                count.remove();
            }
        }
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    fn claim_source(&self, key: &DatagramKey) -> bool {
        let mut count = self.sources.entry(source(key)).or_insert(0);
        let free = *count < self.max_per_source;
        if free {
            *count += 1;
        }
        free
    }

    /// Whether maps, queue and counts tell one story; no packet may pass meanwhile.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let (live, queued) = (self.len(), self.queue.lock().len());
        let datagrams = self.datagrams.len();
        let by_source: usize = self.sources.iter().map(|count| *count as usize).sum();
        let refused = self
            .datagrams
            .iter()
            .filter(|datagram| matches!(datagram.fate, Some(Fate::Refused(_))))
            .count();
        let undecided = self
            .datagrams
            .iter()
            .filter(|datagram| datagram.fate.is_none())
            .count();
        if [queued, datagrams, by_source] != [live; 3] || live > self.max || undecided != 0 {
            return Err(format!(
                "{datagrams} datagrams, {undecided} undecided, {queued} queued, {by_source} by source, counted {live}, \
                 bound {}",
                self.max
            ));
        }
        let counted = self.refused.load(Ordering::Relaxed);
        if refused != counted {
            return Err(format!("{refused} refused datagrams, counted {counted}"));
        }
        if self
            .sources
            .iter()
            .any(|count| *count == 0 || *count > self.max_per_source)
        {
            return Err("a source with no datagrams, or too many".to_owned());
        }
        Ok(())
    }
}
