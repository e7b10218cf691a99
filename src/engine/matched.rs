//! A packet of a session, between being judged and its verdict.

use super::candidate::Candidate;
use super::history_events::HistoryEvents;
use crate::flow::Direction;
use crate::track::tcp::State;
use crate::track::{EvictionClass, Lifetime};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// A packet and its session.
pub(super) struct Matched<'a, 'p> {
    pub(super) candidate: &'a Candidate<'p>,
    pub(super) tracked: Tracked,
    pub(super) direction: Direction,
    /// Class of the session before the packet.
    pub(super) before: EvictionClass,
    /// State of the TCP connection before the packet.
    pub(super) tcp_before: Option<State>,
}

impl Matched<'_, '_> {
    /// Returns the tracking result in the verdict on an invalid packet.
    pub(super) const fn invalid(&self) -> Tracked {
        Tracked {
            class: Class::Invalid,
            ..self.tracked
        }
    }
}

/// Outcome of judging a packet, before it is counted.
pub(super) enum Judged {
    Passes(Passage),
    /// The packet has no further effect.
    Ruled(Verdict),
    /// The packet would open a new connection in place of the session.
    Reopens,
}

/// A packet that passes, and its role in the session.
pub(super) struct Passage {
    /// Lifetime that the packet sets; `None` if the packet proves nothing about the session.
    pub(super) lifetime: Option<Lifetime>,
    pub(super) events: HistoryEvents,
    /// Check that the packet has failed and that only counts.
    pub(super) tolerated: Option<DropReason>,
    pub(super) role: Role,
    pub(super) reading: Reading,
}

/// Role of a passing packet in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The packet counts in the session.
    Counts,
    /// The packet is a RST that its receiver ignores: it is only counted.
    Ignored,
    /// The packet refuses the session, which ends.
    Refuses,
}

/// Data of a passing segment that a helper may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The numbers are valid: the helper reads the data.
    Whole,
    /// The segment is allowed although its numbers may be wrong: the helper does not read it.
    Unread,
    /// No helper applies.
    Exempt,
}
