//! The shards, their locks, and the bound on all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::SessionId;
use super::shard::Shard;
use super::wheel::MAX_SLOTS;
use crate::flow::FlowKey;
use crate::limits::Accounts;

/// What a shard's lock guards: its sessions, and what holds for them.
#[derive(Debug)]
pub(crate) struct Held<S> {
    pub(crate) shard: Shard,
    pub(crate) settings: Arc<S>,
}

/// A shard with its lock, alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<S> {
    held: Mutex<Held<S>>,
    /// A tick that is not later than the shard's first deadline; `u32::MAX` for none. Written under the lock.
    next_tick: AtomicU32,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Table<S> {
    shards: Box<[Padded<S>]>,
    hasher: ahash::RandomState,
    /// Sessions in all shards: the bound is on their sum, so that an uneven spread refuses nobody.
    accounts: Arc<Accounts>,
    /// Where the next call to `expire` begins.
    pub(crate) cursor: AtomicUsize,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) shard: usize,
    pub(crate) hash: u32,
}

impl<S> Table<S> {
    /// `shards` is a power of two. The seed keys the hash: a secret, or fixed in a test.
    pub(crate) fn new(
        accounts: &Arc<Accounts>,
        shards: usize,
        tunnels: bool,
        settings: &Arc<S>,
        seed: [u64; 4],
    ) -> Self {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(a, b, c, d);
        let max_sessions = accounts.max_sessions();
        let fair = max_sessions.div_ceil(shards);
        // Six standard deviations of a random spread.
        let slack = if shards == 1 { 0 } else { 6 * fair.isqrt() + 16 };
        let capacity = (fair + slack).min(max_sessions).min(MAX_SLOTS as usize / shards);
        let shards = (0..shards)
            .map(|_| Padded {
                held: Mutex::new(Held {
                    shard: Shard::new(capacity, tunnels, hasher.clone(), Arc::clone(accounts)),
                    settings: Arc::clone(settings),
                }),
                next_tick: AtomicU32::new(u32::MAX),
            })
            .collect();
        Self {
            shards,
            hasher,
            accounts: Arc::clone(accounts),
            cursor: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(crate) fn place(&self, key: &FlowKey) -> Place {
        let hash = self.hasher.hash_one(key);
        Place {
            shard: hash as usize & (self.shards.len() - 1),
            hash: (hash >> 32) as u32,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "places are masked by the number of shards"
    )]
    #[inline]
    fn padded(&self, shard: usize) -> &Padded<S> {
        &self.shards[shard & (self.shards.len() - 1)]
    }

    #[inline]
    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Held<S>> {
        self.padded(shard).held.lock()
    }

    /// Asks the processor for a shard's lock.
    #[inline]
    pub(crate) fn prefetch_lock(&self, place: Place) {
        prefetch_index::prefetch_index(&self.shards, place.shard & (self.shards.len() - 1));
    }

    /// Asks the processor for what of the index a key needs; nothing where somebody else is in the shard.
    #[inline]
    pub(crate) fn prefetch_index(&self, place: Place) {
        if let Some(held) = self.padded(place.shard).held.try_lock() {
            held.shard.prefetch_index(place.hash);
        }
    }

    /// Asks the processor for the session that a key most likely has; nothing where somebody else is in the shard.
    #[inline]
    pub(crate) fn prefetch_slot(&self, place: Place) {
        if let Some(held) = self.padded(place.shard).held.try_lock() {
            held.shard.prefetch_slot(place.hash);
        }
    }

    pub(crate) const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The name of the session in a slot.
    #[inline]
    pub(crate) fn id(&self, shard: usize, slot: u32, generation: u32) -> SessionId {
        let number = u64::from(slot) * self.shards.len() as u64 + shard as u64;
        // A generation is never 0.
        SessionId::new(u64::from(generation) << 32 | number & 0xffff_ffff)
    }

    pub(crate) fn len(&self) -> usize {
        self.accounts.len()
    }

    pub(crate) fn max_sessions(&self) -> usize {
        self.accounts.max_sessions()
    }

    /// Notes that a shard has something to do at `tick`; the caller holds its lock.
    #[inline]
    pub(crate) fn note_tick(&self, shard: usize, tick: u32) {
        let next = &self.padded(shard).next_tick;
        if tick < next.load(Ordering::Relaxed) {
            next.store(tick, Ordering::Release);
        }
    }

    /// Sets what [`Table::note_tick`] lowers; the caller holds the shard's lock.
    pub(crate) fn set_next_tick(&self, shard: usize, tick: Option<u32>) {
        self.padded(shard)
            .next_tick
            .store(tick.unwrap_or(u32::MAX), Ordering::Release);
    }

    /// A tick that is not later than the shard's first deadline.
    pub(crate) fn next_tick_of(&self, shard: usize) -> Option<u32> {
        let tick = self.padded(shard).next_tick.load(Ordering::Acquire);
        (tick != u32::MAX).then_some(tick)
    }

    /// A tick that is not later than the first deadline of all.
    pub(crate) fn next_tick(&self) -> Option<u32> {
        (0..self.shards.len())
            .filter_map(|shard| self.next_tick_of(shard))
            .min()
    }
}
