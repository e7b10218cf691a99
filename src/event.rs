//! Records of sessions: what a session log is made of, and who receives them.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use crate::flow::Zone;
use crate::policy::RuleId;
use crate::session::SessionId;
use crate::session::history::{History, Letter};

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
    /// The rule that admitted it.
    pub rule: RuleId,
    /// The session that announced it.
    pub parent: Option<SessionId>,
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

    /// Zeek's `conn_state`, derived from what each end has sent.
    #[must_use]
    pub fn conn_state(&self) -> &'static str {
        use crate::flow::Direction::{Original, Reply};
        let sent = |letter, direction| self.history.contains(letter, direction);
        match self.protocol {
            crate::packet::PROTOCOL_TCP => {}
            crate::packet::PROTOCOL_UDP => {
                return match (sent(Letter::Data, Original), sent(Letter::Data, Reply)) {
                    (true, true) => "SF",
                    (true, false) => "S0",
                    (false, true) => "SHR",
                    (false, false) => "OTH",
                };
            }
            _ => return "OTH",
        }
        let opened = sent(Letter::Syn, Original);
        let answered = sent(Letter::Handshake, Reply);
        let (silent, unanswered) = (self.original.packets == 0, self.reply.packets == 0);
        let reset = (sent(Letter::Reset, Original), sent(Letter::Reset, Reply));
        let closed = (sent(Letter::Fin, Original), sent(Letter::Fin, Reply));
        match (reset, closed) {
            ((_, true), _) if opened && !answered => "REJ",
            ((_, true), _) if silent => "RSTRH",
            ((_, true), _) => "RSTR",
            ((true, false), _) if unanswered => "RSTOS0",
            ((true, false), _) => "RSTO",
            (_, (true, true)) => "SF",
            (_, (true, false)) if unanswered => "SH",
            (_, (true, false)) => "S2",
            (_, (false, true)) if silent => "SHR",
            (_, (false, true)) => "S3",
            _ if opened && answered => "S1",
            _ if opened && unanswered => "S0",
            _ => "OTH",
        }
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
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Refused,
        Self::Reused,
        Self::Evicted,
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
        }
    }
}

/// Receives what happens beside the verdicts. No lock is held while it is called, so it may call the engine.
///
/// `()` ignores everything. Every session that was opened ends exactly once: with the sink of the call to
/// [`crate::Engine::process_with`] or [`crate::Engine::expire`] that ended it.
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
}

impl Sink for () {
    const LISTENS: bool = false;
}

impl<S: Sink> Sink for &mut S {
    const LISTENS: bool = S::LISTENS;

    fn session_opened(&mut self, session: &SessionRecord) {
        (**self).session_opened(session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        (**self).session_ended(session, reason);
    }
}
