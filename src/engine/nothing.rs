//! Flows of which the store that engines share has nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::ContinuityConfig;
use crate::flow::FlowKey;
use crate::question::QuestionKind;
use crate::reserve::{NoMemory, Purpose};
use crate::session::Micros;

/// Flows of which the store has nothing, by keyed hash: a place for each remainder, in which a
/// newer flow replaces an older one.
#[derive(Debug)]
pub(super) struct NothingMemory {
    /// The upper half of a flow's hash, and the millisecond until which it counts.
    places: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
    millis: u32,
}

impl NothingMemory {
    /// Returns the bytes that the memory of a configuration takes.
    pub(super) const fn bytes(config: &ContinuityConfig) -> usize {
        config.max_nothing as usize * size_of::<AtomicU64>()
    }

    pub(super) fn new(
        config: &ContinuityConfig,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let millis = config.nothing_for.as_millis();
        Ok(Self {
            places: Purpose::Questions.items(config.max_nothing as usize, AtomicU64::default)?,
            hasher,
            millis: u32::try_from(millis).unwrap_or(u32::MAX),
        })
    }

    fn hash(&self, flow: &FlowKey, kind: QuestionKind) -> u64 {
        self.hasher.hash_one((flow, kind))
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        self.places.get(hash as usize % self.places.len().max(1))
    }

    /// Records that the store has nothing of a flow.
    pub(super) fn remember(&self, flow: &FlowKey, kind: QuestionKind, now: Micros) {
        let millis = match kind {
            // A SYN is sent again after a second: its question is asked anew then.
            QuestionKind::Expectation => self.millis / 2,
            _ => self.millis,
        };
        let hash = self.hash(flow, kind);
        let until = millis_of(now).wrapping_add(millis);
        if let Some(place) = self.place(hash) {
            let word = hash >> 32 << 32 | u64::from(until);
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Returns whether the store had nothing of a flow not long ago.
    pub(super) fn contains(&self, flow: &FlowKey, kind: QuestionKind, now: Micros) -> bool {
        let hash = self.hash(flow, kind);
        let word = self
            .place(hash)
            .map_or(0, |place| place.load(Ordering::Relaxed));
        let left = (word as u32).wrapping_sub(millis_of(now));
        word >> 32 == hash >> 32 && (1..=self.millis).contains(&left)
    }
}

const fn millis_of(now: Micros) -> u32 {
    (now.0 / 1_000) as u32
}
