//! Identity of a conversation: its zone, its two ends and its protocol.
//!
//! A [`FlowKey`] is canonical: its two ends are sorted, so both directions of a conversation have
//! one key. One key means one hash, one shard, one lock, and no second index entry for replies.

mod key;
mod packet_flow;
mod zone;

pub use key::{End, FlowKey, Variant};
pub(crate) use packet_flow::Flow;
pub use zone::Zone;

/// Direction of a packet in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The direction of the session's first packet: initiator to responder.
    Original,
    /// The opposite direction: responder to initiator.
    Reply,
}

impl Direction {
    /// Both directions, original first.
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// Returns the other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }

    /// Returns the stable name: `original` or `reply`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reply => "reply",
        }
    }
}

/// A value for each direction of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct PerDirection<T>(pub(crate) [T; 2]);

impl<T> core::ops::Index<Direction> for PerDirection<T> {
    type Output = T;

    #[expect(clippy::indexing_slicing, reason = "a direction is 0 or 1")]
    #[inline]
    fn index(&self, direction: Direction) -> &T {
        &self.0[direction as usize]
    }
}

impl<T> core::ops::IndexMut<Direction> for PerDirection<T> {
    #[expect(clippy::indexing_slicing, reason = "a direction is 0 or 1")]
    #[inline]
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        &mut self.0[direction as usize]
    }
}

impl core::fmt::Display for Direction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
