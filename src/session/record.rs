//! Records of sessions, as logs and listings show them.

use core::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::history::{History, Letter};
use super::{SessionId, SessionUid, TunnelRef};
use crate::flow::{Direction, FlowKey, Variant, Zone};
use crate::packet::{IcmpKind, IpVersion};
use crate::policy::RuleId;

/// State of a session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The session's identifier while it lives.
    pub id: SessionId,
    /// The session's identifier in logs: it stays when the session is restored or resumed.
    pub uid: SessionUid,
    /// The session's zone.
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
    /// Further distinction between conversations of the two ends.
    pub variant: Variant,
    /// The state's name, as in `conntrack -L`.
    pub state: &'static str,
    /// The handshake was completed, or both ends have sent packets.
    pub assured: bool,
    /// Zeek's history letters.
    pub history: History,
    /// Packets and IP bytes from the initiator.
    pub original: Traffic,
    /// Packets and IP bytes from the responder.
    pub reply: Traffic,
    /// Time of the first packet.
    pub start: Instant,
    /// Time of the last packet that counted.
    pub last: Instant,
    /// Time at which the session ends if no further packet arrives.
    pub expires: Instant,
    /// For a tunnel: the identifier in the first packet of each direction, original first. This is
    /// GRE's key or call ID, or the security parameters index of ESP and AH.
    pub tunnel: [Option<u32>; 2],
    /// The rule that admitted the session.
    pub rule: RuleId,
    /// The session that announced this one.
    pub parent: Option<SessionId>,
    /// The identifier in logs of the session that announced this one.
    pub parent_uid: Option<SessionUid>,
    /// The session was adopted midstream.
    pub adopted: bool,
    /// The session continues one that had ended: a late packet was readmitted.
    pub resumed: bool,
    /// Half of the session was found to be missing, and its packets are allowed nevertheless.
    pub bypassed: bool,
    /// A reload has brought a policy that would not admit the session, and `policy.on_reload` keeps
    /// it.
    pub no_longer_admitted: bool,
    /// The epoch of the session's record in a store, if a record of it was handed out
    /// ([`Engine::sweep`](crate::Engine::sweep)) or the session was resumed from one.
    pub stored: Option<u32>,
    /// Tunnel of the newest packet of each direction, original first.
    pub tunnels: [TunnelRef; 2],
}

/// Traffic of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets; saturates at 2^32 - 1.
    pub packets: u32,
    /// IP bytes, headers included, padding excluded; saturates at 2^48 - 1.
    pub bytes: u64,
}

impl SessionRecord {
    /// Returns the canonical key of the session's conversation; `None` if a caller has changed the
    /// record so that no conversation has its ends.
    #[must_use]
    pub fn flow(&self) -> Option<FlowKey> {
        let src = SocketAddr::new(self.src, self.src_port);
        let dst = SocketAddr::new(self.dst, self.dst_port);
        let key = FlowKey::between(self.zone, self.protocol, src, dst, self.variant);
        key.ok().map(|(key, _)| key)
    }

    /// Returns the type of the initiator's ICMP messages; `None` for other protocols. The messages
    /// of a session may differ in their codes.
    #[must_use]
    pub fn icmp_type(&self) -> Option<u8> {
        let version = match self.src {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        };
        match self.variant {
            Variant::IcmpMessage(kind) => Some(kind),
            Variant::IcmpQuery(number) => {
                let kind = IcmpKind::ALL.get(usize::from(number.checked_sub(1)?))?;
                Some(kind.request_type(version))
            }
            _ => None,
        }
    }

    /// Returns the time from the first packet to the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.last.saturating_duration_since(self.start)
    }

    /// Returns Zeek's `conn_state`: the state of the conversation, derived from the packets of each
    /// end.
    ///
    /// A session can have these states:
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
    /// Every other protocol is `OTH`. `SHR` and `RSTRH` do not occur: the initiator's first packet
    /// has always passed.
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

/// Zeek's state of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// The endpoint has sent nothing.
    Inactive,
    /// The endpoint has sent a SYN that was not answered.
    SynSent,
    /// The endpoint has sent packets, but its SYN was not seen.
    Partial,
    /// The handshake was seen.
    Established,
    /// The endpoint has sent a FIN.
    Closed,
    /// The endpoint has sent a RST.
    Reset,
}

impl Endpoint {
    /// Returns whether no SYN of the endpoint was seen, and it has neither closed nor reset.
    const fn is_inactive(self) -> bool {
        matches!(self, Self::Inactive | Self::Partial)
    }

    /// Returns the states of this end and its peer after a letter of this end. Only an end's first
    /// FIN or RST counts, and the history keeps exactly that.
    const fn after(self, letter: Letter, peer: Self) -> (Self, Self) {
        match (letter, self) {
            (Letter::Syn | Letter::Handshake, Self::Inactive) => match peer {
                Self::SynSent => (Self::Established, Self::Established),
                _ => (Self::SynSent, peer),
            },
            (Letter::Ack | Letter::Data, Self::Inactive) => (Self::Partial, peer),
            (Letter::Fin, Self::Reset) => (Self::Reset, peer),
            (Letter::Fin, _) => (Self::Closed, peer),
            // After an exchange of FINs a RST is a late answer, not the end of the conversation.
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
