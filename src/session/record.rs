//! Records of sessions, as logs and listings show them.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use super::history::{History, Letter};
use super::{SessionId, TunnelRef};
use crate::flow::{Direction, Zone};
use crate::policy::RuleId;

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
