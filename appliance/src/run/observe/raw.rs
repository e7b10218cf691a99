//! Events before they are copied: references to what the packet path has at hand.

use std::time::Instant;

use portcullis::event::HelperNote;
use portcullis::explain::Step;
use portcullis::geneve::Header;
use portcullis::geneve::front::{Answer, Datagram, Decision, NotSent, Refusal};
use portcullis::policy::{Action, RuleId};
use portcullis::{
    DropReason, EndReason, LimitReached, Reset, SessionRecord, Tracked, TunnelRef, Verdict,
};

use super::dropped::DroppedPacket;
use super::event::{
    EndedEvent, HelperEvent, Observed, PacketEvent, PacketReason, PacketReply, ReplyKind,
    ResetEvent,
};
use super::filter::{Fact, Facts, verdict_of};
use super::kind::{Class, Kind};
use super::packet::{Flow, Snap};

/// Event before it is copied.
pub(super) enum Raw<'a> {
    Opened(&'a SessionRecord),
    Ended(&'a SessionRecord, EndReason, Instant),
    Packet(RawPacket<'a>),
    Reset(RawReset<'a>),
    Limit(&'a LimitReached),
    Helper(&'a HelperNote),
}

/// RST before it is copied.
pub(super) struct RawReset<'a> {
    pub(super) reset: &'a Reset,
    pub(super) is_sent: bool,
    pub(super) at: Instant,
}

/// Decision on a datagram before it is copied.
pub(super) struct RawPacket<'a> {
    pub(super) judged: Judged,
    pub(super) datagram: &'a Datagram<'a>,
    pub(super) decision: &'a Decision<'a>,
    pub(super) decided: Option<(RuleId, Action)>,
    pub(super) steps: Option<Box<[Step]>>,
    pub(super) at: Instant,
}

/// Kind of a decision, with its reason and reply.
pub(super) struct Judged {
    kind: Kind,
    reason: Option<PacketReason>,
    reply: Option<PacketReply>,
}

impl Judged {
    /// Returns the kind of a decision.
    pub(super) fn of(decision: &Decision<'_>) -> Self {
        let of_engine = |kind, reason: DropReason| Self {
            kind,
            reason: Some(PacketReason::Engine(reason)),
            reply: None,
        };
        let is_sent = matches!(decision.answer, Answer::Send(_));
        let reply = |kind| match is_sent {
            true => PacketReply::Sent(kind),
            false => PacketReply::Withheld(kind),
        };
        match (decision.verdict, decision.answer) {
            (None, Answer::Nothing(NotSent::Refused(refusal))) => Self {
                kind: Kind::Refused,
                reason: Some(PacketReason::Front(refusal)),
                reply: None,
            },
            (Some(Verdict::Forward(_)), _) if decision.is_too_large => Self {
                kind: Kind::Refused,
                reason: Some(PacketReason::Front(Refusal::TooLarge)),
                reply: Some(reply(ReplyKind::TooBig)),
            },
            (Some(Verdict::Forward(tracked)), _) => match tracked.tolerated {
                Some(reason @ DropReason::PolicyDeny) => of_engine(Kind::Audited, reason),
                Some(reason) => of_engine(Kind::Tolerated, reason),
                None => Self::FORWARDED,
            },
            (Some(Verdict::Drop(reason, _)), _) => {
                of_engine(denied_or(Kind::Dropped, reason), reason)
            }
            (Some(Verdict::Reject(reason, made, _)), _) => Self {
                reply: Some(reply(ReplyKind::Engine(made))),
                ..of_engine(denied_or(Kind::Rejected, reason), reason)
            },
            (Some(verdict @ Verdict::Hold(..)), _) => Self {
                kind: Kind::Held,
                reason: verdict.reason().map(PacketReason::Engine),
                reply: None,
            },
            // Not made by a front end: a datagram without a verdict is refused.
            (None, _) => Self::FORWARDED,
        }
    }

    const FORWARDED: Self = Self {
        kind: Kind::Forwarded,
        reason: None,
        reply: None,
    };
}

const fn denied_or(other: Kind, reason: DropReason) -> Kind {
    match reason {
        DropReason::PolicyDeny | DropReason::PolicyReject => Kind::Denied,
        _ => other,
    }
}

/// Returns the packet in a datagram, if its GENEVE header is valid.
pub(super) fn inner<'a>(datagram: &Datagram<'a>) -> Option<&'a [u8]> {
    let (_, inner) = Header::parse(datagram.payload, |_, _| false).ok()?;
    Some(inner.bytes)
}

impl<'a> RawPacket<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self.decision.packet {
            Some(packet) => packet.bytes,
            None => inner(self.datagram).unwrap_or_default(),
        }
    }

    fn tracked(&self) -> Option<Tracked> {
        self.decision.verdict.map(|verdict| *verdict.tracked())
    }
}

impl Raw<'_> {
    /// Returns the kind.
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Opened(_) => Kind::Opened,
            Self::Ended(..) => Kind::Ended,
            Self::Packet(packet) => packet.judged.kind,
            Self::Reset(_) => Kind::Reset,
            Self::Limit(_) => Kind::Limit,
            Self::Helper(_) => Kind::Helper,
        }
    }

    /// Returns the class.
    #[inline]
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Packet(packet) => Class::of_packet(packet.judged.kind, packet.judged.reason),
            other => Class::of_kind(other.kind()),
        }
    }

    /// Returns whether the event is a decision on a packet.
    pub(super) const fn is_packet(&self) -> bool {
        matches!(self, Self::Packet(_))
    }

    /// Returns whether the event is a decision that was traced.
    pub(super) const fn is_traced(&self) -> bool {
        matches!(self, Self::Packet(packet) if packet.steps.is_some())
    }

    /// Returns the facts that filters compare.
    pub(super) fn facts(&self) -> Facts {
        match self {
            Self::Opened(record) => Facts::of_record(Kind::Opened, record, None),
            Self::Ended(record, reason, _) => {
                Facts::of_record(Kind::Ended, record, Some(reason.name()))
            }
            Self::Packet(packet) => Facts {
                kind: packet.judged.kind,
                reason: packet.judged.reason.map(PacketReason::name),
                verdict: verdict_of(packet.judged.kind, packet.judged.reason),
                zone: packet.decision.packet.map(|packet| packet.zone),
                flow: Fact::Known(Flow::of(packet.bytes())),
                rule: Facts::rule_of(packet.decided, packet.tracked()),
                session: packet.tracked().and_then(|tracked| tracked.session),
                uid: None,
            },
            Self::Reset(raw) => Facts::of_reset(raw.reset),
            Self::Limit(reached) => Facts::of_limit(reached),
            Self::Helper(note) => Facts::of_helper(note),
        }
    }

    /// Returns whether the addresses of an event's packet can be read.
    pub(super) fn is_readable(&self) -> bool {
        match self {
            Self::Packet(packet) => Flow::is_readable(packet.bytes()),
            _ => false,
        }
    }

    /// Returns what the session log records of a packet that was not forwarded; `None` for other
    /// events.
    pub(super) fn dropped(&self) -> Option<DroppedPacket> {
        let Self::Packet(packet) = self else {
            return None;
        };
        let (bytes, inside) = (packet.bytes(), packet.decision.packet);
        Some(DroppedPacket {
            kind: packet.judged.kind,
            reason: packet.judged.reason?,
            at: packet.at,
            zone: inside.map(|inside| inside.zone),
            tunnel: inside.map_or(TunnelRef::NONE, |inside| inside.tunnel),
            flow: Flow::of(bytes),
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            tracked: packet.tracked(),
            rule: packet.decided.map(|(rule, _)| rule),
        })
    }

    /// Copies the event.
    pub(super) fn into_event(self) -> Observed {
        match self {
            Self::Opened(record) => Observed::Opened(*record),
            Self::Ended(record, reason, at) => Observed::Ended(EndedEvent {
                record: *record,
                reason,
                at,
            }),
            Self::Packet(packet) => {
                let bytes = packet.bytes();
                let inside = packet.decision.packet;
                Observed::Packet(PacketEvent {
                    kind: packet.judged.kind,
                    at: packet.at,
                    reason: packet.judged.reason,
                    zone: inside.map(|inside| inside.zone),
                    tunnel: inside.map_or(TunnelRef::NONE, |inside| inside.tunnel),
                    peer: packet.datagram.source,
                    tracked: packet.tracked(),
                    decided: packet.decided,
                    reply: packet.judged.reply,
                    flow: Flow::of(bytes),
                    snap: Snap::of(bytes),
                    session: None,
                    steps: packet.steps,
                })
            }
            Self::Reset(raw) => Observed::Reset(ResetEvent {
                reset: *raw.reset,
                is_sent: raw.is_sent,
                at: raw.at,
            }),
            Self::Limit(reached) => Observed::Limit(*reached),
            Self::Helper(note) => Observed::Helper(HelperEvent {
                note: *note,
                session: None,
            }),
        }
    }
}
