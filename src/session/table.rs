//! The shards, their locks, and the bound on all of them together.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::MutexGuard;

use super::id::{SessionId, ShardId, SlotId, TunnelRef};
use super::judging::{Judging, SLICE};
use super::lock::ShardLock;
use super::outline::Outline;
use super::shard::{Kept, Shard};
use super::slot::NIL;
use super::stored::StoredMark;
use super::wheel::MAX_SLOTS;
use crate::flow::FlowKey;
use crate::limits::Accounts;
use crate::reserve::{NoMemory, Purpose};

/// Content of a shard's lock: its sessions and their settings.
#[derive(Debug)]
pub(crate) struct Held<S> {
    pub(crate) settings: Arc<S>,
    /// The reload that has set these settings, until it has judged every session of the shard. A
    /// packet tests it beside `settings`, on a cache line that it needs in any case.
    pub(crate) judging: Option<Arc<Judging<S>>>,
    pub(crate) shard: Shard,
}

/// A shard with its lock, alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<S> {
    held: ShardLock<Held<S>>,
    /// A tick that is not later than the shard's first deadline; `u32::MAX` for none. Written under
    /// the lock.
    next_tick: AtomicU32,
    /// The slot that a new session most likely takes; [`NIL`] for none that was released. Written
    /// under the lock, but not by each end of a session: for prefetching only.
    next_free: AtomicU32,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Table<S> {
    shards: Box<[Padded<S>]>,
    /// The part of each shard that is read without its lock: apart from the shards, since it is
    /// never written.
    outlines: Box<[Outline]>,
    hasher: ahash::RandomState,
    /// Counts of the sessions in all shards: the bound is on their sum, so that an uneven spread
    /// refuses no session.
    accounts: Arc<Accounts>,
    /// Shard at which the next call to `expire` begins.
    pub(crate) cursor: AtomicUsize,
}

/// Place of a key: its shard, and its hash there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPlace {
    pub(crate) shard: ShardId,
    pub(crate) hash: u32,
}

/// Returns the number of slots of each shard.
const fn capacity(max_sessions: usize, shards: usize) -> usize {
    let fair = max_sessions.div_ceil(shards);
    // Six standard deviations of a random spread.
    let slack = if shards == 1 {
        0
    } else {
        6 * fair.isqrt() + 16
    };
    let (most, wanted) = (MAX_SLOTS as usize / shards, fair + slack);
    let wanted = if wanted < max_sessions {
        wanted
    } else {
        max_sessions
    };
    if wanted < most { wanted } else { most }
}

/// Returns the bytes that the sessions of a full table take, without tunnel references.
pub(crate) const fn session_bytes(max_sessions: usize, shards: usize) -> usize {
    shards * (Shard::bytes(capacity(max_sessions, shards)) + size_of::<Padded<()>>())
}

/// Returns the bytes that the tunnel references of a table's sessions take.
pub(crate) const fn tunnel_reference_bytes(max_sessions: usize, shards: usize) -> usize {
    shards * capacity(max_sessions, shards) * size_of::<[TunnelRef; 2]>()
}

/// Returns the bytes that the marks of a table's stored sessions take.
pub(crate) const fn stored_mark_bytes(max_sessions: usize, shards: usize) -> usize {
    shards * capacity(max_sessions, shards) * size_of::<StoredMark>()
}

impl<S> Table<S> {
    /// Returns an empty table. `shards` is a power of two. The seed keys the hash: it is secret, or
    /// fixed in a test.
    pub(crate) fn new(
        accounts: &Arc<Accounts>,
        shards: usize,
        kept: Kept,
        settings: &Arc<S>,
        seed: [u64; 4],
    ) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(a, b, c, d);
        let max_sessions = accounts.max_sessions();
        let capacity = capacity(max_sessions, shards);
        let padded = || {
            let shard = Shard::new(capacity, kept, hasher.clone(), Arc::clone(accounts))?;
            Ok(Padded {
                held: ShardLock::new(Held {
                    settings: Arc::clone(settings),
                    judging: None,
                    shard,
                }),
                next_tick: AtomicU32::new(u32::MAX),
                next_free: AtomicU32::new(NIL),
            })
        };
        let shards = Purpose::Sessions.try_items(shards, padded)?;
        let outlines = shards
            .iter()
            .map(|padded| padded.held.lock().shard.outline());
        Ok(Self {
            outlines: outlines.collect(),
            shards,
            hasher,
            accounts: Arc::clone(accounts),
            cursor: AtomicUsize::new(0),
        })
    }

    #[inline]
    pub(crate) fn place(&self, key: &FlowKey) -> KeyPlace {
        let hash = self.hasher.hash_one(key);
        KeyPlace {
            shard: ShardId(hash as usize & (self.shards.len() - 1)),
            hash: (hash >> 32) as u32,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "places are masked by the number of shards"
    )]
    #[inline]
    fn padded(&self, shard: ShardId) -> &Padded<S> {
        &self.shards[shard.0 & (self.shards.len() - 1)]
    }

    #[inline]
    pub(crate) fn lock(&self, shard: ShardId) -> MutexGuard<'_, Held<S>> {
        self.padded(shard).held.lock()
    }

    /// Releases a shard's lock between two slices of work, and gives the threads that wait for it a
    /// few microseconds to take it. For workers, which have packets to decide.
    pub(crate) fn hand_over(&self, shard: ShardId, held: MutexGuard<'_, Held<S>>) {
        self.padded(shard).held.hand_over(held);
    }

    /// Releases a shard's lock between two slices of work, as [`Table::hand_over`] does, and leaves
    /// the processor to threads that did not take the lock in time.
    pub(crate) fn give_way(&self, shard: ShardId, held: MutexGuard<'_, Held<S>>) {
        if !self.padded(shard).held.hand_over(held) {
            std::thread::yield_now();
        }
    }

    /// Returns the outline of the shard of a place.
    #[expect(clippy::indexing_slicing, reason = "a place is of this table")]
    #[inline]
    fn outline(&self, shard: ShardId) -> &Outline {
        &self.outlines[shard.0]
    }

    /// Prefetches a key's index entries, and the lock of its shard. Takes no lock.
    #[inline]
    pub(crate) fn prefetch_index(&self, place: KeyPlace) {
        prefetch_index::prefetch_index(&self.shards, place.shard.0);
        self.outline(place.shard).prefetch_index(place.hash);
    }

    /// Prefetches the session that a key most likely has, and returns its slot. Takes no lock, so
    /// the slot is a guess: see [`Slab::holder_mut`](super::shard::Slab::holder_mut).
    #[inline]
    pub(crate) fn prefetch_slot(&self, place: KeyPlace) -> u32 {
        let outline = self.outline(place.shard);
        let slot = outline.candidate(place.hash);
        outline.prefetch_slot(slot);
        slot
    }

    /// Prefetches like [`Table::prefetch_slot`]; for a key without a session, the slot that a new
    /// session would most likely take. Takes no lock.
    #[inline]
    pub(crate) fn prefetch_session(&self, place: KeyPlace) -> u32 {
        let slot = self.prefetch_slot(place);
        if slot == NIL {
            let next_free = &self.padded(place.shard).next_free;
            let free = next_free.load(Ordering::Relaxed);
            self.outline(place.shard).prefetch_free(free);
        }
        slot
    }

    /// Notes the slot that the next session of a shard takes, for [`Table::prefetch_session`]; the
    /// caller holds the shard's lock.
    #[inline]
    pub(crate) fn note_free(&self, shard_id: ShardId, shard: &Shard) {
        let next_free = &self.padded(shard_id).next_free;
        let free = shard.first_free();
        if next_free.load(Ordering::Relaxed) != free {
            next_free.store(free, Ordering::Relaxed);
        }
    }

    /// Begins a walk through all slots of a shard.
    pub(crate) const fn walk(&self, shard: ShardId) -> Walk<'_, S> {
        Walk {
            table: self,
            shard,
            next: 0,
        }
    }

    /// Returns the shard and the slot that the identifier of a session refers to.
    pub(crate) fn slot_of(&self, id: SessionId) -> (ShardId, SlotId) {
        let number = (id.number() & 0xffff_ffff) as usize;
        let shards = self.shards.len();
        (ShardId(number % shards), SlotId((number / shards) as u32))
    }

    /// Returns the slot of a session in its shard, which [`Table::slot_of`] returns, unless the
    /// session has ended.
    pub(crate) fn find_id(&self, shard: &Shard, id: SessionId) -> Option<SlotId> {
        let (own, slot) = self.slot_of(id);
        let lives = slot.0 < shard.slots() && {
            let hot = shard.slab.hot(slot);
            hot.in_use() && self.id(own, slot, hot.generation) == id
        };
        lives.then_some(slot)
    }

    pub(crate) const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Returns the numbers of all shards, in order.
    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<S> {
        (0..self.shards.len()).map(ShardId)
    }

    /// Returns the identifier of the session in a slot.
    #[inline]
    pub(crate) fn id(&self, shard: ShardId, slot: SlotId, generation: u32) -> SessionId {
        let number = u64::from(slot.0) * self.shards.len() as u64 + shard.0 as u64;
        // A generation is never 0.
        SessionId::new(u64::from(generation) << 32 | number & 0xffff_ffff)
    }

    pub(crate) fn len(&self) -> usize {
        self.accounts.len()
    }

    pub(crate) fn max_sessions(&self) -> usize {
        self.accounts.max_sessions()
    }

    /// Notes that a shard has work to do at `tick`; the caller holds its lock.
    #[inline]
    pub(crate) fn note_tick(&self, shard: ShardId, tick: u32) {
        let next = &self.padded(shard).next_tick;
        if tick < next.load(Ordering::Relaxed) {
            next.store(tick, Ordering::Release);
        }
    }

    /// Sets the tick that [`Table::note_tick`] lowers; the caller holds the shard's lock.
    pub(crate) fn set_next_tick(&self, shard: ShardId, tick: Option<u32>) {
        self.padded(shard)
            .next_tick
            .store(tick.unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Returns a tick that is not later than the shard's first deadline.
    pub(crate) fn next_tick_of(&self, shard: ShardId) -> Option<u32> {
        let tick = self.padded(shard).next_tick.load(Ordering::Acquire);
        (tick != u32::MAX).then_some(tick)
    }

    /// Returns a tick that is not later than the first deadline of all shards.
    pub(crate) fn next_tick(&self) -> Option<u32> {
        self.shard_ids()
            .filter_map(|shard| self.next_tick_of(shard))
            .min()
    }
}

/// A walk through the slots of a shard, in slices between which its lock is released.
///
/// Slots are visited in the order of their numbers, each at most once, and a session never changes
/// its slot. So a session that lives during the whole walk is visited exactly once. A session that
/// begins or ends during the walk is visited at most once.
#[derive(Debug)]
pub(crate) struct Walk<'t, S> {
    table: &'t Table<S>,
    shard: ShardId,
    next: u32,
}

impl<S> Walk<'_, S> {
    /// Calls `slice` with the locked shard and the numbers of its next slots, some of which may be
    /// free. Returns whether there were any. A thread that waits for the lock gets it afterwards.
    pub(crate) fn next(&mut self, slice: impl FnOnce(&mut Held<S>, Range<u32>)) -> bool {
        let mut held = self.table.lock(self.shard);
        let end = held.shard.slots().min(self.next.saturating_add(SLICE));
        if self.next >= end {
            return false;
        }
        slice(&mut held, self.next..end);
        self.table.give_way(self.shard, held);
        self.next = end;
        true
    }
}
