//! Announced sessions that have not opened yet.
//!
//! An expectation is found by the fields of its first packet: zone, protocol, both addresses and
//! the destination port; the source port is open or fixed. An expectation is used once, expires,
//! and is removed with its parent. The number of expectations is bounded, for each parent and in
//! total. While there is none, [`ExpectationTable::take`] reads one atomic number. With several
//! zones, each has a guaranteed part of the table, and one source can take at most half of it. Of
//! the common part, a source leaves as much as it takes. The source is the parent's initiator.
//!
//! Two parents can expect one session only if they are between the same hosts. The newer
//! expectation then applies.
//!
//! Locks: expectations by key and tickets by parent are `dashmap`s, the order of expiry a tree
//! under a mutex. Each is taken alone and for a few instructions. Only the caller that removes an
//! expectation from its map removes it from the order, from its parent and from the count.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::time::Instant;

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

use super::{EventCounts, Expectation, HelperEvent, HelperSink, SessionEnds};
use crate::flow::{Direction, Zone};
use crate::limits::Prefixes;
use crate::limits::sources::{Claim, Source, SourceShares};

#[cfg(test)]
mod tests;

/// Number of expired expectations that a new one clears away.
const CLEARED: usize = 8;

/// Number of shards of the maps, each with its own lock.
const SHARDS: usize = 16;

/// Limits on the number of expectations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectationLimits {
    /// Total limit: 16384 by default, at most `u32::MAX`.
    pub total: usize,
    /// Limit for one parent: 4 by default. The FTP helper has at most three.
    pub per_parent: usize,
}

impl ExpectationLimits {
    fn places(self) -> u32 {
        u32::try_from(self.total).unwrap_or(u32::MAX)
    }
}

impl Default for ExpectationLimits {
    fn default() -> Self {
        Self {
            total: 16_384,
            per_parent: 4,
        }
    }
}

/// Reason for which an expectation was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpectationError {
    /// The table is full, or its source holds its share.
    #[error("the table of expectations has no place for this source")]
    TableFull,
    /// The parent has reached its limit.
    #[error("the session has too many expectations")]
    ParentLimit,
    /// The lifetime is zero: the expectation would expire immediately.
    #[error("the expectation has no lifetime")]
    NoLifetime,
}

/// The first packet of a session that may be expected. Ports and addresses as in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The zone.
    pub zone: Zone,
    /// The IP protocol number.
    pub protocol: u8,
    /// Address and port of the expected initiator.
    pub source: SocketAddr,
    /// Address and port of the expected responder.
    pub destination: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    zone: Zone,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl Key {
    fn of(expectation: &Expectation) -> Self {
        Self {
            zone: expectation.parent.zone,
            protocol: expectation.protocol,
            source: expectation.source.to_canonical(),
            destination: expectation.destination.ip().to_canonical(),
            port: expectation.destination.port(),
        }
    }

    fn of_call(call: &Call) -> Self {
        Self {
            zone: call.zone,
            protocol: call.protocol,
            source: call.source.ip().to_canonical(),
            destination: call.destination.ip().to_canonical(),
            port: call.destination.port(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    expectation: Expectation,
    deadline: Instant,
    /// Serial number, unique in the table.
    ticket: u64,
    /// Claimed slot; `None` until the expectation takes over the slot of the one that it replaces.
    place: Option<Claim>,
}

impl Waiting {
    fn admits(&self, call: &Call) -> bool {
        self.expectation
            .source_port
            .is_none_or(|port| port == call.source.port())
    }
}

/// A sink that opens and withdraws expectations in a table and counts events.
#[derive(Debug, Clone, Copy)]
pub struct TableSink<'a> {
    /// Table that receives the expectations.
    pub table: &'a ExpectationTable,
    /// Counters of events.
    pub counts: &'a EventCounts,
    /// Time at which the segment arrived.
    pub now: Instant,
}

impl HelperSink for TableSink<'_> {
    fn event(&mut self, event: HelperEvent, _: Direction) {
        self.counts.count(event);
    }

    fn expect(&mut self, expectation: &Expectation) -> bool {
        self.table.insert(expectation, self.now).is_ok()
    }

    fn withdraw(&mut self, expectation: &Expectation) -> bool {
        self.table.withdraw_one(expectation)
    }
}

/// All expectations of an engine.
#[derive(Debug)]
pub struct ExpectationTable {
    limits: ExpectationLimits,
    waiting: DashMap<Key, Waiting, ahash::RandomState>,
    parents: DashMap<SessionEnds, Vec<(u64, Key)>, ahash::RandomState>,
    order: Mutex<BTreeMap<(Instant, u64), Key>>,
    places: SourceShares,
    prefixes: Prefixes,
    tickets: AtomicU64,
    refused_full: AtomicU64,
    refused_parent: AtomicU64,
    expired: AtomicU64,
}

impl ExpectationTable {
    /// Creates an empty table. The seed keys the hashes: a secret, or fixed in a test.
    #[must_use]
    pub fn new(limits: ExpectationLimits, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        // The hash differs from those of the sessions and fragments.
        let hasher = ahash::RandomState::with_seeds(c, d, a, b);
        Self {
            limits,
            waiting: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            parents: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            order: Mutex::default(),
            places: SourceShares::new(limits.places(), [], hasher),
            prefixes: Prefixes::DEFAULT,
            tickets: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            refused_parent: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// Returns the table with other prefixes for counting sources.
    pub(crate) fn counted_by(self, prefixes: Prefixes) -> Self {
        Self { prefixes, ..self }
    }

    /// Exchanges the zones that have a guaranteed part of the table. Without zones, or with one,
    /// nothing is guaranteed.
    pub(crate) fn set_zones(&self, zones: &[Zone]) {
        self.places.set(self.limits.places(), zones.iter().copied());
    }

    /// Returns the source to which an expectation is counted: the initiator of its parent.
    fn source_of(&self, expectation: &Expectation) -> Source {
        let parent = &expectation.parent;
        let (address, is_v6) = match parent.initiator.ip() {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), false),
            IpAddr::V6(address) => (address.to_bits(), true),
        };
        Source {
            zone: parent.zone,
            prefix: self.prefixes.counted(address, is_v6),
        }
    }

    /// Returns the number of expectations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.used()
    }

    /// Returns whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the numbers of expectations that were refused: for a full table, and for the limit
    /// of a parent.
    #[must_use]
    pub fn refused(&self) -> (u64, u64) {
        (
            self.refused_full.load(Ordering::Relaxed),
            self.refused_parent.load(Ordering::Relaxed),
        )
    }

    /// Returns the number of expectations that expired before their session arrived.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Adds an expectation, valid from `now` on. An expectation of an equal session is replaced,
    /// also one of another parent.
    ///
    /// # Errors
    /// See [`ExpectationError`].
    pub fn insert(&self, expectation: &Expectation, now: Instant) -> Result<(), ExpectationError> {
        self.expire(now, CLEARED);
        let deadline = now
            .checked_add(expectation.lifetime)
            .filter(|deadline| *deadline > now)
            .ok_or(ExpectationError::NoLifetime)?;
        let key = Key::of(expectation);
        // A replaced expectation does not count against the limits, and stays if the new one is
        // refused.
        let replaced = self
            .waiting
            .get(&key)
            .map(|waiting| waiting.expectation.parent);
        let per_parent = self.limits.per_parent + usize::from(replaced == Some(expectation.parent));
        let place = self.places.claim(self.source_of(expectation), 1);
        if place.is_none() && replaced.is_none() {
            self.refused_full.fetch_add(1, Ordering::Relaxed);
            return Err(ExpectationError::TableFull);
        }
        let waiting = Waiting {
            expectation: *expectation,
            deadline,
            ticket: self.tickets.fetch_add(1, Ordering::Relaxed),
            place,
        };
        let room = {
            let mut of_parent = self.parents.entry(expectation.parent).or_default();
            let room = of_parent.len() < per_parent;
            if room {
                of_parent.push((waiting.ticket, key));
            }
            room
        };
        if !room {
            // With a limit of 0, the list is empty and is removed.
            self.parents
                .remove_if(&expectation.parent, |_, tickets| tickets.is_empty());
            self.return_place(place);
            self.refused_parent.fetch_add(1, Ordering::Relaxed);
            return Err(ExpectationError::ParentLimit);
        }
        match self.waiting.insert(key, waiting) {
            // The older one, or that of another thread.
            Some(old) if place.is_some() => self.release(&key, &old),
            Some(old) => self.replace(&key, &old, waiting.ticket),
            // The older one is gone, and its slot with it.
            None if place.is_none() => {
                self.forget(&key, waiting.ticket);
                self.refused_full.fetch_add(1, Ordering::Relaxed);
                return Err(ExpectationError::TableFull);
            }
            None => {}
        }
        self.order.lock().insert((deadline, waiting.ticket), key);
        let held = self
            .parents
            .get(&expectation.parent)
            .is_some_and(|tickets| tickets.contains(&(waiting.ticket, key)));
        if !held {
            // Another thread has taken it already, or has withdrawn all of its parent.
            self.forget(&key, waiting.ticket);
            self.order.lock().remove(&(deadline, waiting.ticket));
        }
        Ok(())
    }

    /// Returns the expectation of a session without taking it.
    #[must_use]
    pub fn find(&self, call: &Call, now: Instant) -> Option<Expectation> {
        if self.is_empty() {
            return None;
        }
        let waiting = *self.waiting.get(&Key::of_call(call))?;
        (waiting.admits(call) && waiting.deadline > now).then_some(waiting.expectation)
    }

    /// Takes the expectation of a session, with the rest of its lifetime. The expectation is used
    /// up: of several callers, one gets it. An expectation of its parent that differs only in the
    /// responder's address is withdrawn: one announcement admits one session.
    #[must_use]
    pub fn take(&self, call: &Call, now: Instant) -> Option<Expectation> {
        if self.is_empty() {
            return None;
        }
        let key = Key::of_call(call);
        let (_, waiting) = self.waiting.remove_if(&key, |_, waiting| {
            waiting.admits(call) && waiting.deadline > now
        })?;
        self.release(&key, &waiting);
        self.withdraw_twin(&key, &waiting.expectation.parent);
        Some(Expectation {
            lifetime: waiting.deadline.saturating_duration_since(now),
            ..waiting.expectation
        })
    }

    /// Withdraws the expectation of a session that has arrived at its other announced address.
    fn withdraw_twin(&self, taken: &Key, parent: &SessionEnds) {
        let is_twin = |(_, key): &&(u64, Key)| {
            let elsewhere = Key {
                destination: taken.destination,
                ..*key
            };
            elsewhere == *taken && key != taken
        };
        let twin = self
            .parents
            .get(parent)
            .and_then(|tickets| tickets.iter().find(is_twin).copied());
        if let Some((ticket, key)) = twin {
            self.forget(&key, ticket);
        }
    }

    /// Withdraws one expectation. Returns whether its parent still had it.
    pub fn withdraw_one(&self, expectation: &Expectation) -> bool {
        if self.is_empty() {
            return false;
        }
        let key = Key::of(expectation);
        let removed = self.waiting.remove_if(&key, |_, waiting| {
            waiting.expectation.parent == expectation.parent
                && waiting.expectation.source_port == expectation.source_port
        });
        if let Some((_, waiting)) = &removed {
            self.release(&key, waiting);
        }
        removed.is_some()
    }

    /// Withdraws all expectations of a session that has ended, and returns their number.
    pub fn withdraw(&self, parent: &SessionEnds) -> usize {
        if self.is_empty() {
            return 0;
        }
        let Some((_, tickets)) = self.parents.remove(parent) else {
            return 0;
        };
        tickets
            .into_iter()
            .filter(|(ticket, key)| self.forget(key, *ticket))
            .count()
    }

    /// Returns the time at which the next expectation expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        self.order
            .lock()
            .first_key_value()
            .map(|((deadline, _), _)| *deadline)
    }

    /// Removes expired expectations, at most `budget`, and returns their number.
    pub fn expire(&self, now: Instant, budget: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        for done in 0..budget {
            let due = self
                .order
                .lock()
                .first_entry()
                .filter(|entry| entry.key().0 <= now)
                .map(|entry| entry.remove_entry());
            let Some(((_, ticket), key)) = due else {
                return done;
            };
            if self.forget(&key, ticket) {
                self.expired.fetch_add(1, Ordering::Relaxed);
            }
        }
        budget
    }

    /// Returns all expectations, each with the rest of its lifetime, for another appliance.
    #[must_use]
    pub fn export(&self, now: Instant) -> Vec<Expectation> {
        let left = |waiting: &Waiting| Expectation {
            lifetime: waiting.deadline.saturating_duration_since(now),
            ..waiting.expectation
        };
        let mut all: Vec<Expectation> = Vec::with_capacity(self.len());
        all.extend(self.waiting.iter().map(|waiting| left(&waiting)));
        all.retain(|expectation| !expectation.lifetime.is_zero());
        all
    }

    /// Adds the expectations of another appliance, and returns the number of those accepted.
    /// Refused ones are counted.
    pub fn import(&self, expectations: &[Expectation], now: Instant) -> usize {
        expectations
            .iter()
            .filter(|expectation| self.insert(expectation, now).is_ok())
            .count()
    }

    /// Removes an expectation unless another one has its slot. Returns whether this call removed
    /// it.
    fn forget(&self, key: &Key, ticket: u64) -> bool {
        let removed = self
            .waiting
            .remove_if(key, |_, waiting| waiting.ticket == ticket);
        if let Some((_, waiting)) = &removed {
            self.release(key, waiting);
        }
        removed.is_some()
    }

    /// Hands the slot of an expectation to the one that has replaced it.
    fn replace(&self, key: &Key, old: &Waiting, ticket: u64) {
        self.unlist(key, old);
        let mut place = old.place;
        if let Some(mut newer) = self.waiting.get_mut(key)
            && newer.ticket == ticket
        {
            newer.place = place.take();
        }
        self.return_place(place);
    }

    fn return_place(&self, place: Option<Claim>) {
        if let Some(place) = place {
            self.places.release(place);
        }
    }

    /// Releases the slots of an expectation that was removed from the map.
    fn release(&self, key: &Key, waiting: &Waiting) {
        self.unlist(key, waiting);
        self.return_place(waiting.place);
    }

    /// Removes an expectation that is no longer in the map from the order and from its parent.
    fn unlist(&self, key: &Key, waiting: &Waiting) {
        self.order
            .lock()
            .remove(&(waiting.deadline, waiting.ticket));
        if let Entry::Occupied(mut tickets) = self.parents.entry(waiting.expectation.parent) {
            tickets
                .get_mut()
                .retain(|(ticket, of)| *ticket != waiting.ticket || of != key);
            if tickets.get().is_empty() {
                tickets.remove();
            }
        }
    }
}
