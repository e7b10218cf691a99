//! Packets that were not forwarded, as the session log records them.

use std::time::Instant;

use portcullis::policy::RuleId;
use portcullis::{Tracked, TunnelRef, Zone};

use super::event::PacketReason;
use super::kind::Kind;
use super::packet::Flow;

/// Packet that was not forwarded, for another reason than the policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DroppedPacket {
    /// [`Kind::Dropped`], [`Kind::Rejected`] or [`Kind::Refused`].
    pub(crate) kind: Kind,
    pub(crate) reason: PacketReason,
    pub(crate) at: Instant,
    /// Zone; `None` for a datagram that was refused before its zone was known.
    pub(crate) zone: Option<Zone>,
    pub(crate) tunnel: TunnelRef,
    pub(crate) flow: Option<Flow>,
    /// Bytes of the packet, padding included.
    pub(crate) bytes: u32,
    pub(crate) tracked: Option<Tracked>,
    /// Rule that has decided, if the packet would have opened a session.
    pub(crate) rule: Option<RuleId>,
}

impl DroppedPacket {
    /// Returns whether the log records events of a kind as packets that were not forwarded. Packets
    /// that the policy denies have records of their own.
    pub(crate) const fn is_of(kind: Kind) -> bool {
        matches!(kind, Kind::Dropped | Kind::Rejected | Kind::Refused)
    }
}
