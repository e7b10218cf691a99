//! The part of a shard that threads read without its lock, to prefetch memory.

use std::num::NonZeroUsize;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::id::TunnelRef;
use super::index::Places;
use super::slot::{Cold, NIL, Slot};
use crate::flow::PerDirection;

/// The index and the addresses of the slabs of a shard.
///
/// The entries of the index may change at any time, so a slot that they name is only a candidate.
/// The slabs are given by address: they are reserved once and never move.
#[derive(Debug)]
#[repr(align(32))]
pub(crate) struct Outline {
    places: Arc<Places>,
    slots: usize,
    cold: usize,
    tunnels: Option<NonZeroUsize>,
}

impl Outline {
    /// Returns an outline; `slots`, `cold` and `tunnels` are the addresses of the slabs.
    pub(super) fn new(
        places: Arc<Places>,
        slots: usize,
        cold: usize,
        tunnels: Option<usize>,
    ) -> Self {
        Self {
            places,
            slots,
            cold,
            tunnels: tunnels.and_then(NonZeroUsize::new),
        }
    }

    /// Prefetches the index entries of a hash.
    #[inline]
    pub(crate) fn prefetch_index(&self, hash: u32) {
        self.places.prefetch(hash);
    }

    /// Returns the slot that a hash most likely refers to; [`NIL`] if there is none.
    #[inline]
    pub(crate) fn candidate(&self, hash: u32) -> u32 {
        self.places.candidate(hash).unwrap_or(NIL)
    }

    /// Prefetches both cache lines of a slot, and its tunnel references.
    #[inline]
    pub(crate) fn prefetch_slot(&self, slot: u32) {
        if slot == NIL {
            return;
        }
        let at = self.slots + slot as usize * size_of::<Slot>();
        prefetch_address(at);
        prefetch_address(at + size_of::<Slot>() / 2);
        if let Some(tunnels) = self.tunnels {
            let at = tunnels.get() + slot as usize * size_of::<PerDirection<TunnelRef>>();
            prefetch_address(at);
        }
    }

    /// Prefetches all parts of a slot for a new session.
    #[inline]
    pub(super) fn prefetch_free(&self, slot: u32) {
        if slot == NIL {
            return;
        }
        self.prefetch_slot(slot);
        prefetch_address(self.cold + slot as usize * size_of::<Cold>());
    }
}

/// Prefetches the cache line at an address. Nothing is read: the address need not be valid.
#[inline(always)]
pub(super) fn prefetch_address(address: usize) {
    const NOTHING: &[u8] = &[];
    prefetch_index(NOTHING, address.wrapping_sub(NOTHING.as_ptr().addr()));
}
