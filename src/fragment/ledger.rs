//! Bounded table of datagrams, with the number of slots of each zone and source.

use std::collections::HashMap;

use super::DatagramKey;
use super::chain::{Chain, List};
use super::ranks::{Ranking, Ranks};
use crate::reserve::{NoMemory, Purpose};
use crate::session::time::Micros;

/// A counted source: its zone, whether it is IPv6, and its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    pub(super) zone: u16,
    pub(super) v6: bool,
    pub(super) prefix: u128,
}

/// Reason for which a datagram is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The source has reached its limit.
    Source,
    /// All are taken.
    Table,
}

#[derive(Debug)]
struct Entry<T> {
    key: DatagramKey,
    deadline: Micros,
    source: u32,
    /// Number of the source's slots; 0 for a free entry.
    places: u32,
    value: T,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    key: SourceKey,
    zone: u32,
    /// Datagrams, oldest first.
    datagrams: List,
}

#[derive(Debug, Clone, Copy)]
struct ZoneEntry {
    number: u16,
    /// Sources by number of slots.
    sources: Ranking,
    /// Datagrams of the source, oldest first.
    datagrams: List,
}

/// Numbers that are not in use.
#[derive(Debug)]
struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    fn new(capacity: usize) -> Result<Self, NoMemory> {
        Ok(Self {
            free: Purpose::Fragments.room(capacity)?,
            next: 0,
        })
    }

    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }
}

/// Writes to a slot that exists, or to the next one.
fn write<T>(places: &mut Vec<T>, number: u32, value: T) {
    match places.get_mut(number as usize) {
        Some(place) => *place = value,
        None => places.push(value),
    }
}

/// Datagrams with a value each. All memory is reserved once.
///
/// When all slots are taken, a new datagram evicts the oldest datagram of the source with the most
/// slots, in the zone with the most slots. A zone with no more than its equal share of all slots
/// therefore never loses one. No zone or source gives up a slot for another one that has as many:
/// in that case the new datagram's own zone or source does.
///
/// A source is heavy only with more than an eighth of the limit for one source. Without a heavy
/// source, the oldest datagram of the zone is removed. Otherwise a flood from forged sources with
/// one datagram each would make the few hosts with several datagrams in flight the heaviest.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    index: HashMap<DatagramKey, u32, ahash::RandomState>,
    entries: Vec<Entry<T>>,
    entry_numbers: Numbers,
    /// All datagrams, oldest first.
    by_age: List,
    ages: Chain,
    siblings: Chain,
    /// The links of the lists of zones.
    neighbors: Chain,
    source_index: HashMap<SourceKey, u32, ahash::RandomState>,
    sources: Vec<Source>,
    source_numbers: Numbers,
    source_ranks: Ranks,
    zone_index: HashMap<u16, u32, ahash::RandomState>,
    zones: Vec<ZoneEntry>,
    zone_numbers: Numbers,
    zone_ranks: Ranks,
    /// Zones by places.
    ranking: Ranking,
    places: u32,
    max: u32,
    max_per_source: u32,
}

impl<T> Ledger<T> {
    /// Returns the bytes of a ledger with `max` slots.
    pub(super) const fn bytes(max: u32) -> usize {
        /// Returns the bytes of a map that is at most half full: the number of its slots is a power
        /// of two, at most seven in eight are used, and each has one byte beside it.
        const fn map<K, V>(capacity: usize) -> usize {
            (2 * capacity * 8 / 7 + 1).next_power_of_two() * (size_of::<(K, V)>() + 1)
        }
        let capacity = max as usize;
        let zones = if capacity < 1 << 16 {
            capacity
        } else {
            1 << 16
        };
        let numbers = size_of::<u32>();
        let of_datagram = size_of::<Entry<T>>() + size_of::<Source>() + 2 * numbers;
        capacity * of_datagram
            + 3 * Chain::bytes(capacity)
            + Ranks::bytes(capacity)
            + map::<DatagramKey, u32>(capacity)
            + map::<SourceKey, u32>(capacity)
            + zones * (size_of::<ZoneEntry>() + numbers)
            + Ranks::bytes(zones)
            + map::<u16, u32>(zones)
    }

    pub(super) fn new(
        max: u32,
        max_per_source: u32,
        hasher: &ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let purpose = Purpose::Fragments;
        let capacity = max as usize;
        let zones = capacity.min(1 << 16);
        Ok(Self {
            // A map that is at most half full clears removed entries in place instead of growing.
            index: purpose.map(2 * capacity, hasher)?,
            entries: purpose.room(capacity)?,
            entry_numbers: Numbers::new(capacity)?,
            by_age: List::EMPTY,
            ages: Chain::new(capacity)?,
            siblings: Chain::new(capacity)?,
            neighbors: Chain::new(capacity)?,
            source_index: purpose.map(2 * capacity, hasher)?,
            sources: purpose.room(capacity)?,
            source_numbers: Numbers::new(capacity)?,
            source_ranks: Ranks::new(capacity)?,
            zone_index: purpose.map(2 * zones, hasher)?,
            zones: purpose.room(zones)?,
            zone_numbers: Numbers::new(zones)?,
            zone_ranks: Ranks::new(zones)?,
            ranking: Ranking::EMPTY,
            places: 0,
            max,
            max_per_source,
        })
    }

    /// Returns the number of datagrams.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the number of slots in use.
    pub(super) const fn places(&self) -> u32 {
        self.places
    }

    fn entry(&self, key: &DatagramKey) -> Option<&Entry<T>> {
        self.entries.get(*self.index.get(key)? as usize)
    }

    /// Returns a datagram and the time of its expiry.
    pub(super) fn get_mut(&mut self, key: &DatagramKey) -> Option<(&mut T, Micros)> {
        let entry = self.entries.get_mut(*self.index.get(key)? as usize)?;
        Some((&mut entry.value, entry.deadline))
    }

    /// Returns the datagram with a number, if there is one.
    pub(super) fn at(&self, number: u32) -> Option<&T> {
        let entry = self.entries.get(number as usize)?;
        (entry.places > 0).then_some(&entry.value)
    }

    /// Returns the oldest datagram, if it has expired by `now`.
    pub(super) fn due(&self, now: Micros) -> Option<DatagramKey> {
        let entry = self.entries.get(self.by_age.first as usize)?;
        (entry.deadline <= now).then_some(entry.key)
    }

    /// Returns the datagram that must be evicted before a source can take one more slot, and why.
    pub(super) fn victim(&self, newcomer: &SourceKey) -> Option<(DatagramKey, Full)> {
        let own = self.source_index.get(newcomer).copied();
        let own_places = own.map_or(0, |own| self.source_ranks.amount(own));
        if let Some(own) = own
            && own_places >= self.max_per_source
        {
            return self.oldest_of(own).map(|key| (key, Full::Source));
        }
        if self.places < self.max {
            return None;
        }
        let heaviest = self.zone_ranks.most(&self.ranking)?;
        let own_zone = self
            .zone_index
            .get(&newcomer.zone)
            .copied()
            .filter(|zone| self.zone_ranks.amount(*zone) >= self.zone_ranks.amount(heaviest));
        let zone = self.zones.get(own_zone.unwrap_or(heaviest) as usize)?;
        let heaviest = self.source_ranks.most(&zone.sources)?;
        if self.source_ranks.amount(heaviest) <= self.light() {
            let entry = self.entries.get(zone.datagrams.first as usize)?;
            return Some((entry.key, Full::Table));
        }
        let source = own
            .filter(|_| own_zone.is_some() && own_places >= self.source_ranks.amount(heaviest))
            .unwrap_or(heaviest);
        self.oldest_of(source).map(|key| (key, Full::Table))
    }

    /// Returns how many slots a source may have without being heavy.
    fn light(&self) -> u32 {
        (self.max_per_source / 8).max(1)
    }

    fn oldest_of(&self, source: u32) -> Option<DatagramKey> {
        let source = self.sources.get(source as usize)?;
        let entry = self.entries.get(source.datagrams.first as usize)?;
        Some(entry.key)
    }

    /// Adds a new datagram, with one slot. There must be room: see [`Ledger::victim`]. `value`
    /// receives the number by which [`Ledger::at`] finds the datagram.
    pub(super) fn insert(
        &mut self,
        key: DatagramKey,
        source: SourceKey,
        deadline: Micros,
        value: impl FnOnce(u32) -> T,
    ) {
        let source = self.source_of(source);
        let number = self.entry_numbers.take();
        let entry = Entry {
            key,
            deadline,
            source,
            places: 0,
            value: value(number),
        };
        write(&mut self.entries, number, entry);
        self.index.insert(key, number);
        self.ages.push(&mut self.by_age, number);
        if let Some(source) = self.sources.get_mut(source as usize) {
            self.siblings.push(&mut source.datagrams, number);
            if let Some(zone) = self.zones.get_mut(source.zone as usize) {
                self.neighbors.push(&mut zone.datagrams, number);
            }
        }
        self.grow(&key);
    }

    /// Gives a datagram one more slot. There must be room: see [`Ledger::victim`].
    pub(super) fn grow(&mut self, key: &DatagramKey) {
        let Some(number) = self.index.get(key) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(*number as usize) else {
            return;
        };
        entry.places += 1;
        self.places += 1;
        let source = entry.source;
        let Some(zone) = self.sources.get(source as usize).map(|source| source.zone) else {
            return;
        };
        if let Some(entry) = self.zones.get_mut(zone as usize) {
            match self.source_ranks.amount(source) {
                0 => self.source_ranks.insert(&mut entry.sources, source),
                _ => self.source_ranks.raise(&mut entry.sources, source),
            }
        }
        match self.zone_ranks.amount(zone) {
            0 => self.zone_ranks.insert(&mut self.ranking, zone),
            _ => self.zone_ranks.raise(&mut self.ranking, zone),
        }
    }

    /// Removes a datagram, and returns it with its source.
    pub(super) fn remove(&mut self, key: &DatagramKey) -> Option<(T, SourceKey)>
    where
        T: Copy,
    {
        let number = self.index.remove(key)?;
        let entry = self.entries.get_mut(number as usize)?;
        let (value, source) = (entry.value, entry.source);
        let places = core::mem::take(&mut entry.places);
        self.ages.remove(&mut self.by_age, number);
        self.entry_numbers.give_back(number);
        self.places -= places;
        let owner = self.sources.get_mut(source as usize)?;
        self.siblings.remove(&mut owner.datagrams, number);
        if let Some(zone) = self.zones.get_mut(owner.zone as usize) {
            self.neighbors.remove(&mut zone.datagrams, number);
        }
        let owner = owner.key;
        for _ in 0..places {
            self.shrink(source);
        }
        Some((value, owner))
    }

    /// Takes a slot from a source and its zone; a source or zone without slots is removed.
    fn shrink(&mut self, number: u32) {
        let Some(&Source { key, zone, .. }) = self.sources.get(number as usize) else {
            return;
        };
        if let Some(entry) = self.zones.get_mut(zone as usize)
            && !self.source_ranks.lower(&mut entry.sources, number)
        {
            self.source_index.remove(&key);
            self.source_numbers.give_back(number);
        }
        if !self.zone_ranks.lower(&mut self.ranking, zone) {
            self.zone_index.remove(&key.zone);
            self.zone_numbers.give_back(zone);
        }
    }

    /// Returns the number of a source, which is added if it is missing.
    fn source_of(&mut self, key: SourceKey) -> u32 {
        if let Some(number) = self.source_index.get(&key) {
            return *number;
        }
        let zone = match self.zone_index.get(&key.zone) {
            Some(zone) => *zone,
            None => {
                let zone = self.zone_numbers.take();
                let entry = ZoneEntry {
                    number: key.zone,
                    sources: Ranking::EMPTY,
                    datagrams: List::EMPTY,
                };
                write(&mut self.zones, zone, entry);
                self.zone_index.insert(key.zone, zone);
                zone
            }
        };
        let number = self.source_numbers.take();
        let source = Source {
            key,
            zone,
            datagrams: List::EMPTY,
        };
        write(&mut self.sources, number, source);
        self.source_index.insert(key, number);
        number
    }

    /// Returns all datagrams, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DatagramKey, &T)> {
        let entry = |number: u32| self.entries.get(number as usize);
        self.ages
            .iter(self.by_age)
            .filter_map(move |number| entry(number).map(|entry| (&entry.key, &entry.value)))
    }

    /// Checks that index, lists, ranks and sums agree.
    ///
    /// # Errors
    /// Returns a description of the first inconsistency.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        let mut by_source: HashMap<u32, u32> = HashMap::new();
        let mut by_zone: HashMap<u32, u32> = HashMap::new();
        let mut aged = 0;
        for number in self.ages.iter(self.by_age) {
            let entry = self.entries.get(number as usize).ok_or("no such entry")?;
            let source = self
                .sources
                .get(entry.source as usize)
                .ok_or("no such source")?;
            if self.index.get(&entry.key) != Some(&number) || entry.places == 0 {
                return Err(format!("{} has {} places", entry.key, entry.places));
            }
            *by_source.entry(entry.source).or_default() += entry.places;
            *by_zone.entry(source.zone).or_default() += entry.places;
            aged += 1;
        }
        let sum: u32 = by_zone.values().sum();
        if aged != self.index.len() || sum != self.places || self.places > self.max {
            let counted = self.places;
            return Err(format!("{aged} datagrams, {sum} places, counted {counted}"));
        }
        if by_source.len() != self.source_index.len() || by_zone.len() != self.zone_index.len() {
            return Err("a source or a zone without a place".to_owned());
        }
        for (source, places) in &by_source {
            let datagrams = self
                .sources
                .get(*source as usize)
                .map(|source| source.datagrams);
            let owned: u32 = self
                .siblings
                .iter(datagrams.unwrap_or(List::EMPTY))
                .filter_map(|number| self.entries.get(number as usize))
                .map(|entry| entry.places)
                .sum();
            let ranked = self.source_ranks.amount(*source);
            if [owned, ranked] != [*places; 2] || *places > self.max_per_source {
                return Err(format!(
                    "a source has {places} places, {owned} owned, {ranked} ranked"
                ));
            }
        }
        for (zone, places) in &by_zone {
            let ranked = self.zone_ranks.amount(*zone);
            let entry = self.zones.get(*zone as usize).ok_or("no such zone")?;
            let listed: u32 = self
                .neighbors
                .iter(entry.datagrams)
                .filter_map(|number| self.entries.get(number as usize))
                .map(|entry| entry.places)
                .sum();
            if [ranked, listed] != [*places; 2] {
                let number = entry.number;
                return Err(format!(
                    "zone {number} has {places} places, {ranked} ranked, {listed} listed"
                ));
            }
        }
        Ok(())
    }

    /// Returns whether the ledger holds a datagram.
    pub(super) fn contains(&self, key: &DatagramKey) -> bool {
        self.entry(key).is_some()
    }
}
