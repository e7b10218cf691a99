//! One part of all tombstones: places, their index, and their order by age, overall and by zone.

use std::collections::HashMap;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::Tombstone;
use crate::flow::{FlowKey, Zone};
use crate::limits::share::guarantee;
use crate::reserve::{NoMemory, Purpose};
use crate::session::index::{Index, Places};

/// The number of no place.
const NONE: u32 = u32::MAX;

/// The neighbors of a place in a list, toward older and newer ones.
#[derive(Debug, Clone, Copy)]
struct Links {
    older: u32,
    newer: u32,
}

impl Links {
    const NONE: Self = Self {
        older: NONE,
        newer: NONE,
    };
}

/// A list by age.
#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl List {
    const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
        len: 0,
    };

    fn push(&mut self, links: &mut [Links], place: u32) {
        let newest = self.newest;
        if let Some(own) = links.get_mut(place as usize) {
            *own = Links {
                older: newest,
                newer: NONE,
            };
        }
        match links.get_mut(newest as usize) {
            Some(before) => before.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.len += 1;
    }

    fn remove(&mut self, links: &mut [Links], place: u32) {
        let Some(own) = links.get_mut(place as usize) else {
            return;
        };
        let Links { older, newer } = std::mem::replace(own, Links::NONE);
        match links.get_mut(older as usize) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match links.get_mut(newer as usize) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
        self.len = self.len.saturating_sub(1);
    }
}

/// One part. The caller locks it.
#[derive(Debug)]
pub(super) struct Part {
    index: Index,
    outline: Arc<Places>,
    /// Tombstones; the memory is reserved at the start and filled from the front.
    places: Vec<Tombstone>,
    /// The hash of each place's key.
    hashes: Vec<u32>,
    /// Number of tombstones added before that of each place: their order by age.
    orders: Vec<u64>,
    added: u64,
    capacity: usize,
    /// Places whose tombstones were removed.
    free: Vec<u32>,
    all: List,
    links_of_all: Vec<Links>,
    zones: HashMap<Zone, List, ahash::RandomState>,
    links_of_zones: Vec<Links>,
    /// The zones that have a guarantee, in order.
    named: Box<[Zone]>,
    guarantee: u32,
}

impl Part {
    /// Returns the bytes of a part, without the lists of zones.
    pub(super) const fn bytes(capacity: usize) -> usize {
        let links = 2 * size_of::<Links>();
        let numbers = 2 * size_of::<u32>();
        capacity * (size_of::<Tombstone>() + links + numbers + size_of::<u64>())
            + Index::bytes(capacity)
    }

    pub(super) fn new(capacity: usize, hasher: ahash::RandomState) -> Result<Self, NoMemory> {
        let purpose = Purpose::Tombstones;
        let index = Index::new(purpose, capacity)?;
        Ok(Self {
            outline: index.places(),
            index,
            places: purpose.room(capacity)?,
            hashes: purpose.room(capacity)?,
            orders: purpose.room(capacity)?,
            added: 0,
            capacity,
            free: purpose.room(capacity)?,
            all: List::EMPTY,
            links_of_all: purpose.room(capacity)?,
            zones: HashMap::with_hasher(hasher),
            links_of_zones: purpose.room(capacity)?,
            named: Box::default(),
            guarantee: 0,
        })
    }

    pub(super) fn set_zones(&mut self, zones: &[Zone]) {
        self.guarantee = guarantee(
            u32::try_from(self.capacity).unwrap_or(u32::MAX),
            zones.len(),
        );
        self.named = zones.into();
        self.named.sort_unstable();
        // The lists of these zones need no memory later.
        self.zones.reserve(zones.len());
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len as usize
    }

    /// Returns the entries of the index, for reading without the lock.
    pub(super) fn outline(&self) -> Arc<Places> {
        Arc::clone(&self.outline)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Tombstone> {
        self.places.get(place as usize)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Tombstone> {
        self.places.get_mut(place as usize)
    }

    pub(super) fn find(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        self.index.find(hash, |place| {
            self.get(place).is_some_and(|each| each.key == *key)
        })
    }

    /// Appends up to `count` places from `first` on to `ages`, free ones included, each with its
    /// number in the order of age. Returns whether there were any.
    pub(super) fn ages(&self, first: u32, count: u32, ages: &mut Vec<(u64, u32)>) -> bool {
        let before = ages.len();
        let numbered = (first..).zip(self.orders.get(first as usize..).unwrap_or_default());
        let own = |(place, order): (u32, &u64)| (*order, place);
        ages.extend(numbered.take(count as usize).map(own));
        ages.len() > before
    }

    /// Returns the tombstone in a place, unless the place is free.
    pub(super) fn in_use(&self, place: u32) -> Option<Tombstone> {
        let found = self.get(place)?;
        let hash = self.hashes.get(place as usize)?;
        let is_indexed = self.index.find(*hash, |each| each == place).is_some();
        is_indexed.then_some(*found)
    }

    pub(super) fn remove(&mut self, place: u32) {
        let Some(zone) = self.get(place).map(|tombstone| tombstone.key.zone()) else {
            return;
        };
        if let Some(hash) = self.hashes.get(place as usize) {
            self.index.remove(*hash, place);
        }
        self.all.remove(&mut self.links_of_all, place);
        if let Some(list) = self.zones.get_mut(&zone) {
            list.remove(&mut self.links_of_zones, place);
            if list.len == 0 {
                self.zones.remove(&zone);
            }
        }
        self.free.push(place);
    }

    /// Adds a tombstone whose conversation has none. The tombstone that it displaces is lost.
    pub(super) fn add(&mut self, hash: u32, tombstone: &Tombstone, lifetime_us: u64) {
        if self.free.is_empty() && self.places.len() >= self.capacity {
            if let Some(place) = self.gives_way(tombstone, lifetime_us) {
                self.replace(place, hash, tombstone);
            }
            self.prefetch_oldest();
            return;
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.hashes.push(0);
                self.orders.push(0);
                self.links_of_all.push(Links::NONE);
                self.links_of_zones.push(Links::NONE);
                self.places.push(*tombstone);
                (self.places.len() - 1) as u32
            }
        };
        let zone = tombstone.key.zone();
        self.fill(place, hash, tombstone);
        self.all.push(&mut self.links_of_all, place);
        let list = self.zones.entry(zone).or_insert(List::EMPTY);
        list.push(&mut self.links_of_zones, place);
    }

    /// Puts a tombstone in the place of another one.
    fn replace(&mut self, place: u32, hash: u32, tombstone: &Tombstone) {
        let Some(displaced) = self.get(place).map(|displaced| displaced.key.zone()) else {
            return;
        };
        let zone = tombstone.key.zone();
        if displaced == zone {
            if let Some(hash) = self.hashes.get(place as usize) {
                self.index.remove(*hash, place);
            }
            self.all.remove(&mut self.links_of_all, place);
        } else {
            self.remove(place);
            self.free.pop();
        }
        self.fill(place, hash, tombstone);
        self.all.push(&mut self.links_of_all, place);
        let list = self.zones.entry(zone).or_insert(List::EMPTY);
        if displaced == zone {
            list.remove(&mut self.links_of_zones, place);
        }
        list.push(&mut self.links_of_zones, place);
    }

    /// Writes a tombstone in a free place, and enters the place in the index.
    fn fill(&mut self, place: u32, hash: u32, tombstone: &Tombstone) {
        if let Some(own) = self.get_mut(place) {
            *own = *tombstone;
        }
        if let Some(own) = self.hashes.get_mut(place as usize) {
            *own = hash;
        }
        if let Some(own) = self.orders.get_mut(place as usize) {
            *own = self.added;
            self.added += 1;
        }
        self.index.insert(hash, place);
    }

    /// Prefetches the tombstone that a later one will most likely displace, and its index entries.
    fn prefetch_oldest(&self) {
        let oldest = self.all.oldest as usize;
        prefetch_index(&self.places, oldest);
        if let Some(hash) = self.hashes.get(oldest) {
            self.outline.prefetch(*hash);
        }
    }

    /// Returns the place that a new tombstone takes over.
    fn gives_way(&self, newest: &Tombstone, lifetime_us: u64) -> Option<u32> {
        let oldest = self.get(self.all.oldest)?;
        if self.guarantee == 0 || newest.ended.0.saturating_sub(oldest.ended.0) >= lifetime_us {
            return Some(self.all.oldest);
        }
        let zone = newest.key.zone();
        let own = self.zones.get(&zone).copied().unwrap_or(List::EMPTY);
        if own.len > 0 && own.len >= self.guarantee_of(zone) {
            return Some(own.oldest);
        }
        // A zone uses this branch only until it has its guarantee.
        self.zones
            .iter()
            .max_by_key(|(zone, list)| (list.len.saturating_sub(self.guarantee_of(**zone)), **zone))
            .map(|(_, list)| list.oldest)
    }

    fn guarantee_of(&self, zone: Zone) -> u32 {
        match self.named.binary_search(&zone) {
            Ok(_) => self.guarantee,
            Err(_) => 0,
        }
    }
}
