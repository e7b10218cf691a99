//! Slots and memory of control sessions, divided by zone and by source.
//!
//! The source is the initiator of the control session. See [`crate::limits::share`] for the
//! guarantee of a zone and the bound on a single source.

use crate::flow::Zone;
use crate::limits::Prefixes;
use crate::limits::sources::{Claim, Source, SourceShares};
use crate::session::Slot;

/// Share of a control session.
#[derive(Debug)]
pub(super) struct Holding {
    place: Claim,
    memory: Claim,
}

/// The shares of control sessions.
#[derive(Debug)]
pub(super) struct ControlShares {
    places: SourceShares,
    memory: SourceShares,
    max_controls: u32,
    prefixes: Prefixes,
}

impl ControlShares {
    /// Returns shares for up to `max_controls` control sessions, with no memory until
    /// [`ControlShares::set`].
    pub(super) fn new(max_controls: u32, prefixes: Prefixes, hasher: &ahash::RandomState) -> Self {
        Self {
            places: SourceShares::new(max_controls, [], hasher.clone()),
            memory: SourceShares::new(0, [], hasher.clone()),
            max_controls,
            prefixes,
        }
    }

    /// Sets the zones, and the bytes for all control sessions, from a configuration.
    pub(super) fn set(&self, zones: &[Zone], max_memory: u32) {
        self.places.set(self.max_controls, zones.iter().copied());
        self.memory.set(max_memory, zones.iter().copied());
    }

    /// Claims a slot and memory for a control session.
    pub(super) fn claim(&self, slot: &Slot, memory: usize) -> Option<Holding> {
        let (key, initiator) = (&slot.key, slot.initiator());
        let address = key.address_number(initiator);
        let source = Source {
            zone: key.zone(),
            prefix: self.prefixes.counted(address, key.is_ipv6()),
        };
        let place = self.places.claim(source, 1)?;
        let Some(memory) = self.memory.claim(source, bytes(memory)) else {
            self.places.release(place);
            return None;
        };
        Some(Holding { place, memory })
    }

    /// Adjusts the memory of a control session to its current size; `false` if its share does not
    /// allow that much.
    pub(super) fn fit(&self, holding: &mut Holding, memory: usize) -> bool {
        let (held, memory) = (holding.memory.places(), bytes(memory));
        if memory < held {
            self.memory.shrink(&mut holding.memory, held - memory);
        }
        memory <= held || self.memory.grow(&mut holding.memory, memory - held)
    }

    /// Releases everything that a control session held.
    pub(super) fn release(&self, holding: Holding) {
        self.memory.release(holding.memory);
        self.places.release(holding.place);
    }

    /// Returns the number of control sessions.
    pub(super) fn controls(&self) -> usize {
        self.places.used()
    }

    /// Returns the bytes that control sessions hold.
    pub(super) fn memory(&self) -> usize {
        self.memory.used()
    }
}

fn bytes(memory: usize) -> u32 {
    u32::try_from(memory).unwrap_or(u32::MAX)
}
