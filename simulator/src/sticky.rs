//! Fields of a flow that determine its target.

use clap::ValueEnum;

use super::inner::{FlowEnd, FlowKey};

/// Fields by which flows share a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the names of AWS")]
pub(super) enum Stickiness {
    /// Both addresses and ports, and the protocol
    FiveTuple,
    /// Both addresses, and the protocol
    ThreeTuple,
    /// Both addresses
    TwoTuple,
}

/// Fields of a flow that determine its target. Unused ones are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StickyKey {
    pair: usize,
    protocol: u8,
    low: FlowEnd,
    high: FlowEnd,
}

impl StickyKey {
    /// Returns the key of a flow, without the fields that do not count.
    pub(super) const fn new(key: &FlowKey, stickiness: Stickiness) -> Self {
        let (protocol, low_port, high_port) = match stickiness {
            Stickiness::FiveTuple => (key.protocol, key.low.1, key.high.1),
            Stickiness::ThreeTuple => (key.protocol, 0, 0),
            Stickiness::TwoTuple => (0, 0, 0),
        };
        Self {
            pair: key.pair,
            protocol,
            low: (key.low.0, low_port),
            high: (key.high.0, high_port),
        }
    }
}
