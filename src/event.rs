//! Session records, and the sink that receives them.

use core::net::IpAddr;
use std::time::Instant;

use crate::flow::{Direction, Variant, Zone};
use crate::fragment::id::HoldId;
pub use crate::ftp::{Expectation, HelperEvent, SessionEnds};
pub use crate::limits::{Exceeded, Limit};
use crate::policy::{Action, RuleId};
use crate::question::Question;
pub use crate::reset::{MAX_REPLY, Reset, Unsent, write_reply_unbudgeted};
pub use crate::session::{EndReason, SessionRecord, Traffic};
use crate::session::{SessionId, TunnelRef};

/// A packet that would have opened a session if the policy had admitted it. Also the packet of a
/// session that [`Action::Audit`] admits and [`Action::Deny`] would not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeniedSession {
    /// The zone of the session.
    pub zone: Zone,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's address, which is the source address of the packet.
    pub src: IpAddr,
    /// The initiator's port, or the identifier of an ICMP query; 0 for protocols without either.
    pub src_port: u16,
    /// The responder's address.
    pub dst: IpAddr,
    /// The responder's port, or the identifier of an ICMP query; 0 for protocols without either.
    pub dst_port: u16,
    /// Further distinction between conversations of the two ends.
    pub variant: Variant,
    /// Type and code of an ICMP message.
    pub icmp: Option<IcmpTypeCode>,
    /// The IP bytes of the packet, header included, padding excluded. For a fragmented datagram,
    /// those of the first fragment.
    pub bytes: u32,
    /// The rule that decided.
    pub rule: RuleId,
    /// Action of the rule: [`Action::Deny`], [`Action::Reject`] or [`Action::Audit`].
    pub action: Action,
    /// Whether the decision is to be logged: the rule requests it, or the action is
    /// [`Action::Audit`].
    pub log: bool,
    /// Time of the packet.
    pub at: Instant,
    /// The tunnel of the packet.
    pub tunnel: TunnelRef,
}

/// Type and code of an ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpTypeCode {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
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

/// A helper's finding in a control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HelperNote {
    /// The control session.
    pub session: SessionId,
    /// The finding.
    pub event: HelperEvent,
    /// The direction of the line or segment that caused the finding.
    pub from: Direction,
    /// The announced session, if the event is that it is expected, that there is no room for it, or
    /// that it was withdrawn.
    pub expectation: Option<Expectation>,
    /// Time of the packet.
    pub at: Instant,
}

/// Receives the events that accompany the verdicts. No lock is held during a call, so a sink may
/// call the engine.
///
/// This is the lower interface, for callers that want no queue. An [`Outbox`](crate::Outbox) is a
/// sink that keeps everything until it is drained; [`Discard`] keeps nothing. Every session that
/// was opened ends exactly once, in the sink of the call to
/// [`Engine::process_with`](crate::Engine::process_with) or
/// [`Engine::expire_with`](crate::Engine::expire_with) that ended it.
pub trait Sink {
    /// Whether the sink uses the records. With `false`, the engine does not build them.
    const LISTENS: bool = true;

    /// Receives a session that an admitted packet opened.
    fn session_opened(&mut self, session: &SessionRecord) {
        let _ = session;
    }

    /// Receives a session that has ended.
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        let _ = (session, reason);
    }

    /// Receives a session that the policy denied or rejected.
    ///
    /// Called for each packet that would have opened the session and is dropped with
    /// [`DropReason::PolicyDeny`] or [`DropReason::PolicyReject`], retransmissions included. Later
    /// fragments, and TCP segments from the middle of a connection, open nothing and are not
    /// reported.
    ///
    /// [`DropReason::PolicyDeny`]: crate::DropReason::PolicyDeny
    /// [`DropReason::PolicyReject`]: crate::DropReason::PolicyReject
    fn session_denied(&mut self, denied: &DeniedSession) {
        let _ = denied;
    }

    /// Receives a session that the policy admitted by [`Action::Audit`].
    ///
    /// Called for the packet that opened the session, in addition to [`Sink::session_opened`].
    /// [`Action::Deny`] would have dropped this packet.
    fn session_audited(&mut self, audited: &DeniedSession) {
        let _ = audited;
    }

    /// Receives a new session that would have exceeded a limit.
    ///
    /// Called at most once in ten seconds for each source and limit; the counters count every
    /// packet.
    fn limit_reached(&mut self, reached: &LimitReached) {
        let _ = reached;
    }

    /// Receives a helper's finding in a control session.
    ///
    /// Called at most 32 times for each packet; the counters count every finding.
    fn helper_event(&mut self, note: &HelperNote) {
        let _ = note;
    }

    /// Receives the number of sessions whose ends follow because an operator has asked for them:
    /// by [`Engine::end_sessions`](crate::Engine::end_sessions), or by
    /// [`Engine::reload`](crate::Engine::reload). At most two RSTs for each follow, too.
    ///
    /// Called for a few sessions at a time. While a reload is in progress,
    /// [`Engine::expire`](crate::Engine::expire) does part of its work, so the sink of that call
    /// receives some of the numbers. No packet causes this call. A bounded sink can make room, or
    /// count what it does not keep.
    fn ends_follow(&mut self, sessions: usize) {
        let _ = sessions;
    }

    /// Receives a RST to send to one end of a session that has ended.
    fn reset(&mut self, reset: &Reset) {
        let _ = reset;
    }

    /// Receives the identifier of held packets that are to be processed again.
    ///
    /// The packet of this call decided their first fragment, or displaced them; or their question
    /// was answered ([`Engine::answer`](crate::Engine::answer)). See
    /// [`Verdict::Hold`](crate::Verdict::Hold).
    fn released(&mut self, id: HoldId) {
        let _ = id;
    }

    /// Receives a question to the store that engines share.
    ///
    /// Called while `continuity.enabled` is set: for the first packet of a flow that is held, or
    /// for a session that is about to end. Answer it by
    /// [`Engine::answer`](crate::Engine::answer). Other packets of the flow are held for the same
    /// question.
    fn question(&mut self, question: &Question) {
        let _ = question;
    }
}

/// Sink that discards every event and every RST.
///
/// Sessions that time out then end without RSTs to their ends; [`Unsent::NoSink`] counts them. For
/// measurements and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Discard;

impl Sink for Discard {
    const LISTENS: bool = false;
}

/// Collects the RSTs to send and discards everything else.
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

    fn ends_follow(&mut self, sessions: usize) {
        (**self).ends_follow(sessions);
    }

    fn reset(&mut self, reset: &Reset) {
        (**self).reset(reset);
    }

    fn released(&mut self, id: HoldId) {
        (**self).released(id);
    }

    fn question(&mut self, question: &Question) {
        (**self).question(question);
    }
}
