//! Flows of which the store that engines share has nothing.

use super::recent::Recent;
use crate::config::ContinuityConfig;
use crate::flow::FlowKey;
use crate::question::QuestionKind;
use crate::reserve::NoMemory;
use crate::session::Micros;

/// Flows of which the store has nothing.
#[derive(Debug)]
pub(super) struct NothingMemory {
    flows: Recent,
    millis: u32,
}

impl NothingMemory {
    /// Returns the bytes that the memory of a configuration takes.
    pub(super) const fn bytes(config: &ContinuityConfig) -> usize {
        Recent::bytes(config.max_nothing as usize)
    }

    pub(super) fn new(
        config: &ContinuityConfig,
        hasher: ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let millis = u32::try_from(config.nothing_for.as_millis()).unwrap_or(u32::MAX);
        Ok(Self {
            flows: Recent::new(config.max_nothing as usize, millis, hasher)?,
            millis,
        })
    }

    /// Records that the store has nothing of a flow.
    pub(super) fn remember(&self, flow: &FlowKey, kind: QuestionKind, now: Micros) {
        let millis = match kind {
            // A SYN is sent again after a second: its question is asked anew then.
            QuestionKind::Expectation => self.millis / 2,
            _ => self.millis,
        };
        self.flows.note(&(flow, kind), now, millis);
    }

    /// Returns whether the store had nothing of a flow not long ago.
    pub(super) fn contains(&self, flow: &FlowKey, kind: QuestionKind, now: Micros) -> bool {
        self.flows.contains(&(flow, kind), now)
    }
}
