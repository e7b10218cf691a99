//! Records of sessions: what a session log is made of, and who receives them.

use core::net::IpAddr;
use std::time::Instant;

use crate::alg::{Expectation, HelperEvent};
use crate::flow::{Direction, Zone};
use crate::fragment::id::HoldId;
use crate::limits::Exceeded;
use crate::policy::{Action, RuleId};
use crate::reset::Reset;
pub use crate::session::{EndReason, SessionRecord, Traffic};
use crate::session::{SessionId, TunnelRef};

/// A packet that would have opened a session, had the policy admitted it; or that has opened one
/// which [`Action::Audit`] admits and [`Action::Deny`] would not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeniedSession {
    /// The zone in which the session would be.
    pub zone: Zone,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's address: that of the packet's sender.
    pub src: IpAddr,
    /// The initiator's port; the identifier of an ICMP query; 0 for protocols without either.
    pub src_port: u16,
    /// The responder's address.
    pub dst: IpAddr,
    /// The responder's port; the identifier of an ICMP query; 0 for protocols without either.
    pub dst_port: u16,
    /// The packet's IP bytes, header included, padding excluded; of a fragmented datagram, those of the first fragment.
    pub bytes: u32,
    /// The rule that has decided.
    pub rule: RuleId,
    /// Action of the rule: [`Action::Deny`], [`Action::Reject`] or [`Action::Audit`].
    pub action: Action,
    /// The decision is to be logged: the rule says so, or the action is [`Action::Audit`].
    pub log: bool,
    /// Time of the packet.
    pub at: Instant,
    /// What it came in.
    pub tunnel: TunnelRef,
}

/// A new session that would have exceeded a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitReached {
    /// The limit, its value and the count.
    pub exceeded: Exceeded,
    /// The zone.
    pub zone: Zone,
    /// The initiator.
    pub src: IpAddr,
    /// The responder.
    pub dst: IpAddr,
    /// The rule that would have admitted the session.
    pub rule: RuleId,
    /// Time of the packet.
    pub at: Instant,
}

/// Finding of a helper in a control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HelperNote {
    /// The control session.
    pub session: SessionId,
    /// The finding.
    pub event: HelperEvent,
    /// The direction of the line or segment that caused it.
    pub from: Direction,
    /// The announced session, if the event is that it may come, that there is no room for it, or
    /// that it was withdrawn.
    pub expectation: Option<Expectation>,
    /// Time of the packet.
    pub at: Instant,
}

/// Receives what happens beside the verdicts. No lock is held while it is called, so it may call the engine.
///
/// This is the lower interface, for callers that want no queue; an [`Outbox`](crate::Outbox) is a
/// sink that keeps everything until it is drained, and [`Discard`] one that keeps nothing. Every
/// session that was opened ends exactly once: with the sink of the call to
/// [`Engine::process_with`](crate::Engine::process_with) or
/// [`Engine::expire_with`](crate::Engine::expire_with) that ended it.
pub trait Sink {
    /// Whether anybody listens: with `false` the records are not even made.
    const LISTENS: bool = true;

    /// A session was opened by an admitted packet.
    fn session_opened(&mut self, session: &SessionRecord) {
        let _ = session;
    }

    /// A session has ended.
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        let _ = (session, reason);
    }

    /// The policy has denied or rejected a session: called for each packet that would have opened it and is dropped with
    /// [`DropReason::PolicyDeny`] or [`DropReason::PolicyReject`], as often as its sender repeats it. Later fragments, and TCP
    /// segments of the middle of a connection, open nothing and are not told of.
    ///
    /// [`DropReason::PolicyDeny`]: crate::DropReason::PolicyDeny
    /// [`DropReason::PolicyReject`]: crate::DropReason::PolicyReject
    fn session_denied(&mut self, denied: &DeniedSession) {
        let _ = denied;
    }

    /// The policy has admitted a session by [`Action::Audit`]: called for the packet that has
    /// opened it, beside [`Sink::session_opened`]. [`Action::Deny`] would have dropped this packet.
    fn session_audited(&mut self, audited: &DeniedSession) {
        let _ = audited;
    }

    /// A new session would have exceeded a limit. At most once in ten seconds for a source and a
    /// limit: the counters count every packet.
    fn limit_reached(&mut self, reached: &LimitReached) {
        let _ = reached;
    }

    /// A helper has found something in a control session. At most 32 for each packet: the counters
    /// count all.
    fn helper_event(&mut self, note: &HelperNote) {
        let _ = note;
    }

    /// A RST is to be sent to one end of a session that has ended.
    fn reset(&mut self, reset: &Reset) {
        let _ = reset;
    }

    /// The packets that are held under this name are to be handed in again: their first fragment was decided by the
    /// packet of this call, or they have lost their places to it. See
    /// [`Verdict::Hold`](crate::Verdict::Hold).
    fn released(&mut self, id: HoldId) {
        let _ = id;
    }
}

/// Sink that discards every event and every RST.
///
/// Sessions that time out then end without RSTs to their ends, which
/// [`Unsent::NoSink`](crate::Unsent::NoSink) counts. For measurements and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Discard;

impl Sink for Discard {
    const LISTENS: bool = false;
}

/// Collects the RSTs that are to be sent, and nothing else.
impl Sink for Vec<Reset> {
    fn reset(&mut self, reset: &Reset) {
        self.push(*reset);
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Sink> Sink for &mut S {
    const LISTENS: bool = S::LISTENS;

    fn session_opened(&mut self, session: &SessionRecord) {
        (**self).session_opened(session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        (**self).session_ended(session, reason);
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        (**self).session_denied(denied);
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        (**self).session_audited(audited);
    }

    fn limit_reached(&mut self, reached: &LimitReached) {
        (**self).limit_reached(reached);
    }

    fn helper_event(&mut self, note: &HelperNote) {
        (**self).helper_event(note);
    }

    fn reset(&mut self, reset: &Reset) {
        (**self).reset(reset);
    }

    fn released(&mut self, id: HoldId) {
        (**self).released(id);
    }
}
