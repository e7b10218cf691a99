//! Packets that were not forwarded for another reason than the policy: their objects of JSON, and
//! names and numbers of other formats.

use portcullis::geneve::front::Refusal;
use portcullis::packet::Malformed;
use portcullis::policy::Action;
use portcullis::{Direction, DropReason, SessionUid};
use serde::Serialize;

use super::super::super::data_path::TunnelView;
use super::super::super::observe::dropped::DroppedPacket;
use super::super::super::observe::event::PacketReason;
use super::super::super::observe::kind::Kind;
use super::super::super::view::Viewer;
use crate::five_tuple::FiveTuple;

/// Row of a packet that was dropped, rejected or refused. Fields in common with an event of
/// `portcullis observe` have equal names; ports are not the identifier of an ICMP query.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DroppedRow<'a> {
    /// `drop`, `reject` or `refuse`.
    verdict: &'static str,
    /// Stable name of the reason.
    reason: &'static str,
    /// Source and destination of the packet; absent if it cannot be read. `zone` is `null` for a
    /// datagram that was refused before its zone was known.
    #[serde(flatten)]
    flow: Option<FiveTuple<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
    /// Bytes of the packet, padding included.
    bytes: u32,
    /// Identifier of the packet's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    /// Number of the packet's session in this run of the appliance.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    /// Direction of the packet in its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// Rule that has decided, or that has admitted the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    /// Tunnel of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<TunnelView>,
}

impl<'a> DroppedRow<'a> {
    /// Returns the row of a packet.
    pub(super) fn new(packet: &DroppedPacket, viewer: &Viewer<'a>) -> Self {
        let zone = packet.zone.map(|zone| viewer.zones.name(zone));
        let flow = packet.flow.and_then(|flow| flow.five_tuple(zone));
        let tracked = packet.tracked;
        let session = SessionOfPacket::find(packet, viewer);
        Self {
            verdict: verdict(packet.kind),
            reason: packet.reason.name(),
            community_id: flow.as_ref().and_then(FiveTuple::community_id),
            flow,
            bytes: packet.bytes,
            uid: session.uid.map(|uid| uid.to_string()),
            session: tracked
                .and_then(|tracked| tracked.session)
                .map(portcullis::SessionId::number),
            direction: tracked
                .and_then(|tracked| tracked.direction)
                .map(Direction::name),
            rule: session.rule,
            tunnel: viewer.tunnel(packet.tunnel),
        }
    }
}

/// Facts that the session of a packet has, if it still lives, and the rule that has decided the
/// packet.
pub(super) struct SessionOfPacket<'a> {
    pub(super) uid: Option<SessionUid>,
    pub(super) rule: Option<&'a str>,
}

impl<'a> SessionOfPacket<'a> {
    /// Looks the session of a packet up.
    pub(super) fn find(packet: &DroppedPacket, viewer: &Viewer<'a>) -> Self {
        let engine = &viewer.data_path.shared.engine;
        let id = packet.tracked.and_then(|tracked| tracked.session);
        let found = id.and_then(|id| engine.inspect(id, viewer.now));
        let rule = packet
            .rule
            .or(found.as_ref().map(|found| found.record.rule));
        Self {
            uid: found.map(|found| found.record.uid),
            rule: rule.map(|rule| viewer.policy.rule_name(rule)),
        }
    }
}

/// Returns the name of the verdict on a packet.
pub(super) const fn verdict(kind: Kind) -> &'static str {
    match kind {
        Kind::Rejected => "reject",
        Kind::Refused => "refuse",
        _ => "drop",
    }
}

/// Returns the reason of a packet that the policy has decided by an action.
pub(super) const fn reason_of_action(action: Action) -> Option<&'static str> {
    match action {
        Action::Deny | Action::Audit => Some(DropReason::PolicyDeny.name()),
        Action::Reject => Some(DropReason::PolicyReject.name()),
        Action::Allow => None,
    }
}

/// Returns IPFIX's `forwardingStatus` of a dropped packet: the number that is registered for its
/// reason (RFC 7270), or 128 for a reason without a number.
pub(super) const fn forwarding_status(reason: PacketReason) -> u8 {
    match reason {
        // Fragmentation is not allowed.
        PacketReason::Front(Refusal::TooLarge) => 133,
        // Bad header checksum.
        PacketReason::Engine(DropReason::Malformed(Malformed::Ipv4HeaderChecksum)) => 134,
        // Bad total length.
        PacketReason::Engine(DropReason::Malformed(
            Malformed::Ipv4TotalLengthBelowHeader | Malformed::Ipv4TotalLengthBeyondPacket,
        )) => 135,
        // Bad header length.
        PacketReason::Engine(DropReason::Malformed(Malformed::Ipv4HeaderLength)) => 136,
        // Bad TTL.
        PacketReason::Engine(DropReason::TtlZero) => 137,
        // Policer.
        PacketReason::Engine(
            DropReason::LimitSessions
            | DropReason::LimitSource
            | DropReason::LimitDestination
            | DropReason::LimitHalfOpen
            | DropReason::LimitRate
            | DropReason::LimitSourceShare
            | DropReason::LimitZoneShare,
        ) => 138,
        // Unknown.
        PacketReason::Engine(_) | PacketReason::Front(_) => 128,
    }
}
