//! Records of sessions: what a session log is made of, and who receives them.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use crate::alg::{Expectation, HelperEvent};
use crate::flow::{Direction, Zone};
use crate::fragment::HoldId;
use crate::limits::Exceeded;
use crate::policy::{Action, RuleId};
use crate::reset::Reset;
use crate::session::history::{History, Letter};
use crate::session::{SessionId, TunnelRef};

/// All that is known of a session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// Its name while it lives.
    pub id: SessionId,
    /// Its zone.
    pub zone: Zone,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's address.
    pub src: IpAddr,
    /// The initiator's port; the identifier of an ICMP query; 0 for protocols without either.
    pub src_port: u16,
    /// The responder's address.
    pub dst: IpAddr,
    /// The responder's port; the identifier of an ICMP query; 0 for protocols without either.
    pub dst_port: u16,
    /// The state's name, as `conntrack -L` users know it.
    pub state: &'static str,
    /// The handshake was completed, or both ends have talked.
    pub assured: bool,
    /// Zeek's history letters.
    pub history: History,
    /// Packets and IP bytes from the initiator.
    pub original: Traffic,
    /// Packets and IP bytes from the responder.
    pub reply: Traffic,
    /// When the first packet came.
    pub start: Instant,
    /// When the last packet that counted came.
    pub last: Instant,
    /// When it ends if nothing else comes.
    pub expires: Instant,
    /// Of a tunnel: what the first packet of each direction, original first, called it. GRE's key or call ID, the
    /// security parameters index of ESP and AH.
    pub tunnel: [Option<u32>; 2],
    /// The rule that admitted it.
    pub rule: RuleId,
    /// The session that announced it.
    pub parent: Option<SessionId>,
    /// It was picked up in the middle of its connection.
    pub adopted: bool,
    /// It goes on with a session that had ended: a late packet was readmitted.
    pub resumed: bool,
    /// Half of it was found to be missing, and it passes nevertheless.
    pub bypassed: bool,
    /// A reload has brought a policy that would not admit it, and was told to keep it.
    pub former: bool,
    /// What the newest packet of each direction came in, original first.
    pub tunnels: [TunnelRef; 2],
}

/// What went in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets; stays at 2^32 - 1 when it gets there.
    pub packets: u32,
    /// IP bytes, headers included, padding excluded; stays at 2^48 - 1 when it gets there.
    pub bytes: u64,
}

impl SessionRecord {
    /// From the first packet to the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.last.saturating_duration_since(self.start)
    }

    /// Zeek's `conn_state`: how the conversation stands, from what each end has sent. All states that a session can
    /// have:
    ///
    /// | state | TCP | UDP |
    /// |---|---|---|
    /// | `S0` | a SYN without any answer | no datagram of the responder |
    /// | `S1` | established, no end has closed | |
    /// | `S2`, `S3` | only the initiator, only the responder has closed | |
    /// | `SF` | both ends have closed with a FIN | both ends have sent |
    /// | `REJ` | the SYN was refused with a RST | |
    /// | `RSTO`, `RSTR` | reset by the initiator, by the responder | |
    /// | `RSTOS0` | reset by the initiator, without a SYN-ACK | |
    /// | `SH` | closed by the initiator, without a SYN-ACK | |
    /// | `OTH` | anything else | |
    ///
    /// Every other protocol is `OTH`. `SHR` and `RSTRH` do not occur: the initiator's first packet has always passed.
    #[must_use]
    pub fn conn_state(&self) -> &'static str {
        match self.protocol {
            crate::packet::PROTOCOL_TCP => tcp_conn_state(self.history),
            crate::packet::PROTOCOL_UDP => {
                let sent = |direction| self.history.contains(Letter::Data, direction);
                match (sent(Direction::Original), sent(Direction::Reply)) {
                    (true, true) => "SF",
                    (true, false) => "S0",
                    (false, true) => "SHR",
                    (false, false) => "OTH",
                }
            }
            _ => "OTH",
        }
    }
}

/// What Zeek calls the state of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// It has sent nothing.
    Inactive,
    /// It has sent a SYN that nobody has answered.
    SynSent,
    /// It has sent, but its SYN was not seen.
    Partial,
    /// The handshake was seen.
    Established,
    /// It has sent a FIN.
    Closed,
    /// It has sent a RST.
    Reset,
}

impl Endpoint {
    /// No SYN of it was seen, and it has neither closed nor reset.
    const fn is_inactive(self) -> bool {
        matches!(self, Self::Inactive | Self::Partial)
    }

    /// What a letter of its own makes of this end and its peer. An end's first FIN or RST is all that counts, and
    /// that is what the history keeps.
    const fn after(self, letter: Letter, peer: Self) -> (Self, Self) {
        match (letter, self) {
            (Letter::Syn | Letter::Handshake, Self::Inactive) => match peer {
                Self::SynSent => (Self::Established, Self::Established),
                _ => (Self::SynSent, peer),
            },
            (Letter::Ack | Letter::Data, Self::Inactive) => (Self::Partial, peer),
            (Letter::Fin, Self::Reset) => (Self::Reset, peer),
            (Letter::Fin, _) => (Self::Closed, peer),
            // Behind an exchange of FINs a RST is a late answer, not the end of the conversation.
            (Letter::Reset, Self::Closed) if matches!(peer, Self::Closed) => (self, peer),
            (Letter::Reset, _) => (Self::Reset, peer),
            _ => (self, peer),
        }
    }
}

fn tcp_conn_state(history: History) -> &'static str {
    let (mut initiator, mut responder) = (Endpoint::Inactive, Endpoint::Inactive);
    for (letter, direction) in history.letters() {
        match direction {
            Direction::Original => (initiator, responder) = initiator.after(letter, responder),
            Direction::Reply => (responder, initiator) = responder.after(letter, initiator),
        }
    }
    let without_data = || {
        let sent = |direction| history.contains(Letter::Data, direction);
        !Direction::BOTH.into_iter().any(sent)
    };
    match (initiator, responder) {
        (Endpoint::SynSent, Endpoint::Reset) => "REJ",
        (Endpoint::Reset, Endpoint::Reset) if without_data() => "REJ",
        (from, Endpoint::Reset) if from.is_inactive() => "RSTRH",
        (_, Endpoint::Reset) => "RSTR",
        (Endpoint::Reset, to) if to.is_inactive() => "RSTOS0",
        (Endpoint::Reset, _) => "RSTO",
        (Endpoint::Closed, Endpoint::Closed) => "SF",
        (Endpoint::Closed, to) if to.is_inactive() => "SH",
        (Endpoint::Closed, _) => "S2",
        (from, Endpoint::Closed) if from.is_inactive() => "SHR",
        (_, Endpoint::Closed) => "S3",
        (Endpoint::SynSent, Endpoint::Inactive) => "S0",
        (Endpoint::Established, Endpoint::Established) => "S1",
        _ => "OTH",
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Its lifetime passed without a packet.
    Timeout,
    /// Both ends closed it with a FIN, and its TIME_WAIT passed.
    Closed,
    /// A RST closed it.
    Reset,
    /// A RST was the only answer to its first packet.
    Refused,
    /// A new connection took its ports.
    Reused,
    /// The table was full, and it was worth less than a new session.
    Evicted,
    /// A reload brought a policy that does not admit it.
    Revoked,
    /// An operator ended it.
    Deleted,
    /// A control session announced what is refused, or said what cannot be read, and its rule lets
    /// no such session go on (`ftp.refused = "drop"`).
    FtpRefused,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Refused,
        Self::Reused,
        Self::Evicted,
        Self::Revoked,
        Self::Deleted,
        Self::FtpRefused,
    ];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Reused => "reused",
            Self::Evicted => "evicted",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::FtpRefused => "ftp_refused",
        }
    }

    /// Whether both ends of an established TCP session are told with a RST: they cannot know of its end.
    pub(crate) const fn is_told(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Revoked | Self::Deleted | Self::FtpRefused
        )
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::history::history;

    #[test]
    fn conn_state_follows_from_the_letters_and_their_order() {
        let rows = [
            ("S", "S0"),
            ("SAD", "S0"),
            ("Sa", "OTH"),
            ("Sh", "S1"),
            ("Ss", "S1"),
            ("ShADad", "S1"),
            ("SAF", "SH"),
            ("ShADF", "S2"),
            ("ShADf", "S3"),
            ("ShADadFf", "SF"),
            ("ShADadfFa", "SF"),
            ("Sr", "REJ"),
            ("SaR", "RSTOS0"),
            ("SR", "RSTOS0"),
            ("ShR", "RSTO"),
            ("ShADdr", "RSTR"),
            ("ShADadFr", "RSTR"),
            ("ShADadfR", "RSTO"),
            ("ShADaRf", "RSTO"),
        ];
        for (letters, state) in rows {
            assert_eq!(tcp_conn_state(history(letters)), state, "{letters}");
        }
    }

    #[test]
    fn a_reset_behind_both_fins_leaves_the_conversation_finished() {
        assert_eq!(tcp_conn_state(history("ShADadFfR")), "SF");
        assert_eq!(tcp_conn_state(history("ShADadFfr")), "SF");
        assert_eq!(tcp_conn_state(history("ShADadFrf")), "RSTR");
    }

    #[test]
    fn resets_of_both_ends_without_data_refuse_the_connection() {
        assert_eq!(tcp_conn_state(history("ShRr")), "REJ");
        assert_eq!(tcp_conn_state(history("ShADRr")), "RSTR");
    }
}
