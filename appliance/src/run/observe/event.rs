//! Events as the workers send them: copies of facts, without text.

use std::net::Ipv4Addr;
use std::time::Instant;

use portcullis::event::HelperNote;
use portcullis::explain::Step;
use portcullis::geneve::front::Refusal;
use portcullis::policy::{Action, RuleId};
use portcullis::{
    DropReason, EndReason, LimitReached, Reply, Reset, SessionId, SessionRecord, SessionUid,
    Tracked, TunnelRef, Zone,
};

use super::kind::{Class, Kind};
use super::packet::{Flow, Snap};

/// Event of the stream.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "events fill slots of queues that are allocated once; a box would allocate for each"
)]
pub(crate) enum Observed {
    /// A session was opened.
    Opened(SessionRecord),
    /// A session has ended.
    Ended(EndedEvent),
    /// A packet was decided.
    Packet(PacketEvent),
    /// A RST was made for one end of a session that has ended.
    Reset(ResetEvent),
    /// A new session would have exceeded a limit.
    Limit(LimitReached),
    /// A helper has found something.
    Helper(HelperEvent),
    /// A line of the report of asymmetric paths that is new, or that has counted more packets.
    Asymmetry(AsymmetryEvent),
}

/// End of a session.
#[derive(Debug)]
pub(crate) struct EndedEvent {
    pub(crate) record: SessionRecord,
    pub(crate) reason: EndReason,
    pub(crate) at: Instant,
}

/// Decision on a packet.
#[derive(Debug)]
pub(crate) struct PacketEvent {
    pub(crate) kind: Kind,
    pub(crate) at: Instant,
    pub(crate) reason: Option<PacketReason>,
    /// Zone; `None` for a datagram that was refused before its zone was known.
    pub(crate) zone: Option<Zone>,
    pub(crate) tunnel: TunnelRef,
    /// The load balancer's address.
    pub(crate) peer: Ipv4Addr,
    pub(crate) tracked: Option<Tracked>,
    /// Rule and action that decided, if the packet would have opened a session.
    pub(crate) decided: Option<(RuleId, Action)>,
    pub(crate) reply: Option<PacketReply>,
    pub(crate) flow: Option<Flow>,
    pub(crate) snap: Snap,
    /// Facts of the session; `None` until [`Observed::look_up`] has found it.
    pub(crate) session: Option<SessionFacts>,
    /// Steps of the decision, if a client has asked for them.
    pub(crate) steps: Option<Box<[Step]>>,
}

/// Finding of a helper.
#[derive(Debug)]
pub(crate) struct HelperEvent {
    pub(crate) note: HelperNote,
    /// Facts of the session; `None` until [`Observed::look_up`] has found it.
    pub(crate) session: Option<SessionFacts>,
}

/// Facts of a session that its events do not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    pub(crate) uid: SessionUid,
    pub(crate) rule: RuleId,
    pub(crate) zone: Zone,
    /// Flow of the original direction.
    pub(crate) flow: Flow,
}

impl SessionFacts {
    /// Returns the facts in a session's record.
    pub(crate) fn of(record: &SessionRecord) -> Self {
        Self {
            uid: record.uid,
            rule: record.rule,
            zone: record.zone,
            flow: Flow::of_session(record),
        }
    }
}

impl Class {
    /// Returns the class of a decision on a packet.
    #[inline]
    pub(crate) fn of_packet(kind: Kind, reason: Option<PacketReason>) -> Self {
        match reason {
            Some(PacketReason::Engine(reason)) => Self::of_reason(reason),
            Some(PacketReason::Front(refusal)) => Self::of_refusal(refusal),
            None => Self::of_kind(kind),
        }
    }
}

/// Reason of a decision on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketReason {
    /// The engine's reason.
    Engine(DropReason),
    /// The front end's reason.
    Front(Refusal),
}

impl PacketReason {
    /// Returns the stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Engine(reason) => reason.name(),
            Self::Front(refusal) => refusal.name(),
        }
    }

    /// Returns the description for operators.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Engine(reason) => reason.describe(),
            Self::Front(refusal) => refusal.describe(),
        }
    }
}

/// Reply to a packet that was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketReply {
    /// The reply was sent.
    Sent(ReplyKind),
    /// The reply could not be made, or the budget of its receiver was used up.
    Withheld(ReplyKind),
}

/// Kind of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    /// The engine's reply.
    Engine(Reply),
    /// An ICMP error that reports the MTU.
    TooBig,
}

impl ReplyKind {
    /// Returns the stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Engine(Reply::TcpReset | Reply::TcpResetAt(_)) => "tcp_reset",
            Self::Engine(Reply::SctpAbort) => "sctp_abort",
            Self::Engine(Reply::Prohibited) => "icmp_prohibited",
            Self::Engine(Reply::Challenge(_)) => "syn_challenge",
            Self::TooBig => "icmp_too_big",
        }
    }
}

/// RST that the engine has made.
#[derive(Debug)]
pub(crate) struct ResetEvent {
    pub(crate) reset: Reset,
    /// Whether it was sent: its tunnel was known.
    pub(crate) is_sent: bool,
    pub(crate) at: Instant,
}

/// Line of the report of asymmetric paths.
#[derive(Debug)]
pub(crate) struct AsymmetryEvent {
    pub(crate) line: portcullis::AsymmetryLine,
    pub(crate) at: Instant,
}

impl Observed {
    /// Returns the kind.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Opened(_) => Kind::Opened,
            Self::Ended(_) => Kind::Ended,
            Self::Packet(event) => event.kind,
            Self::Reset(_) => Kind::Reset,
            Self::Limit(_) => Kind::Limit,
            Self::Helper(_) => Kind::Helper,
            Self::Asymmetry(_) => Kind::Asymmetry,
        }
    }

    /// Returns the class.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Packet(event) => Class::of_packet(event.kind, event.reason),
            other => Class::of_kind(other.kind()),
        }
    }

    /// Adds the facts of the event's session, if `find` finds it. Called soon after the event: the
    /// session of a packet that was not forwarded usually lives on.
    pub(crate) fn look_up(&mut self, find: impl FnOnce(SessionId) -> Option<SessionFacts>) {
        let (id, facts) = match self {
            Self::Packet(event) => (
                event.tracked.and_then(|tracked| tracked.session),
                &mut event.session,
            ),
            Self::Helper(event) => (Some(event.note.session), &mut event.session),
            _ => return,
        };
        *facts = id.and_then(find);
    }

    /// Returns the steps of the decision, if they were recorded.
    pub(crate) fn steps(&self) -> Option<&[Step]> {
        match self {
            Self::Packet(event) => event.steps.as_deref(),
            _ => None,
        }
    }
}
