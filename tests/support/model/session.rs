//! A session in the model.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis::config::{LifetimeClass, Lifetimes};
use portcullis::event::EndReason;
use portcullis::packet::{IpVersion, Parsed, Transport};
use portcullis::session::EvictionClass;
use portcullis::session::TICK;
use portcullis::track::tcp::Track;
use portcullis::{Direction, SessionId};

/// A packet's addresses, directed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(super) zone: u16,
    pub(super) v6: bool,
    pub(super) protocol: u8,
    pub(super) src: (u128, u16),
    pub(super) dst: (u128, u16),
    /// For an ICMP query: whether the packet is the request.
    pub(super) asks: Option<bool>,
    /// For an ICMP message that is neither a request nor a reply: its type. It has no reply.
    pub(super) message: Option<u8>,
    /// The key of GRE, if it has one.
    pub(super) gre: Option<u32>,
}

impl Tuple {
    pub(super) fn of(zone: u16, parsed: &Parsed) -> Option<Self> {
        let (src_port, dst_port, asks) = match parsed.transport {
            Transport::Tcp {
                src_port, dst_port, ..
            }
            | Transport::Udp {
                src_port, dst_port, ..
            } => (src_port, dst_port, None),
            Transport::IcmpQuery(query) => (query.id, query.id, Some(query.request)),
            Transport::IcmpOther { kind, .. }
                if parsed.ip.version == IpVersion::V4 || kind >= 128 =>
            {
                (0, 0, Some(true))
            }
            Transport::Other | Transport::Gre { .. } | Transport::Esp { .. } => (0, 0, None),
            _ => return None,
        };
        Some(Self {
            zone,
            v6: parsed.ip.version == IpVersion::V6,
            protocol: parsed.ip.protocol,
            src: (parsed.ip.src, src_port),
            dst: (parsed.ip.dst, dst_port),
            asks,
            message: match parsed.transport {
                Transport::IcmpOther { kind, .. } => Some(kind),
                _ => None,
            },
            gre: match parsed.transport {
                Transport::Gre { key, .. } => key.number(),
                _ => None,
            },
        })
    }

    pub(super) fn back(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            asks: self.asks.map(|asks| !asks),
            ..self
        }
    }

    /// Returns an end as on the wire.
    pub(super) fn socket(&self, (address, port): (u128, u16)) -> SocketAddr {
        let address = if self.v6 {
            IpAddr::V6(address.into())
        } else {
            IpAddr::V4((address as u32).into())
        };
        SocketAddr::new(address, port)
    }

    /// Returns the tuple as the first packet of a session would have it, for a packet that travels
    /// in `direction`.
    pub(super) fn seen_from(self, direction: Direction) -> Self {
        match direction {
            Direction::Original => self,
            Direction::Reply => self.back(),
        }
    }

    /// Returns the direction of a GRE packet in a session of its addresses, regardless of the keys.
    pub(super) fn direction_in_pair(&self, packet: &Self) -> Option<Direction> {
        let packet = Self {
            gre: self.gre,
            ..*packet
        };
        self.direction_of(&packet)
    }

    /// Returns the direction of a packet in a session that this tuple has begun.
    pub(super) fn direction_of(&self, packet: &Self) -> Option<Direction> {
        if packet == self {
            Some(Direction::Original)
        } else if *packet == self.back() {
            Some(Direction::Reply)
        } else {
            None
        }
    }
}

/// A session in the model. Moments are durations since the run began.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) initiator: Tuple,
    /// The name of the rule that admitted the session.
    pub(super) rule: &'static str,
    /// The session is counted by its destination: there was a limit when it began or was last
    /// judged.
    pub(super) by_destination: bool,
    pub(super) lifetimes: Lifetimes,
    pub(super) start: Duration,
    pub(super) last: Duration,
    /// The exact end of the session's lifetime.
    pub(super) deadline: Duration,
    /// Time after that deadline, in addition to a tick, within which the session may end: if a
    /// reload or a restart has moved its end, the end was rounded up again.
    pub(super) slack: Duration,
    pub(super) seen_reply: bool,
    pub(super) assured: bool,
    /// The session was adopted midstream.
    pub(super) adopted: bool,
    /// The session was opened by a late packet.
    pub(super) resumed: bool,
    pub(super) state: State,
    /// The first GRE key of each direction.
    pub(super) keys: [Option<u32>; 2],
    pub(super) packets: [u32; 2],
    pub(super) bytes: [u64; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unreplied,
    Exchange,
    Replied,
    Stream,
    Tcp(Track),
}

impl Session {
    pub(super) fn direction_of(&self, tuple: &Tuple) -> Option<Direction> {
        self.initiator.direction_of(tuple)
    }

    pub(super) fn state_name(&self) -> &'static str {
        match &self.state {
            State::Unreplied => "UNREPLIED",
            State::Exchange => "EXCHANGE",
            State::Replied => "REPLIED",
            State::Stream => "STREAM",
            State::Tcp(track) => track.state().name(),
        }
    }

    pub(super) fn class(&self) -> LifetimeClass {
        match (self.state, self.initiator.protocol) {
            (State::Tcp(track), _) => track.state().lifetime(),
            (State::Unreplied, 17) => LifetimeClass::UdpUnreplied,
            (State::Exchange, _) => LifetimeClass::UdpExchange,
            (State::Replied, 17) => LifetimeClass::UdpReplied,
            (State::Stream, _) => LifetimeClass::UdpStream,
            (_, 1 | 58) => LifetimeClass::Icmp,
            (State::Unreplied, _) => LifetimeClass::OtherUnreplied,
            (State::Replied, _) => LifetimeClass::OtherReplied,
        }
    }

    /// Returns the lifetime of the session's present state, out of `among`.
    pub(super) fn lifetime(&self, among: &Lifetimes) -> Duration {
        let lifetime = among.of(self.class());
        let cap = match self.state {
            State::Tcp(track) => track.lifetime(self.seen_reply).cap,
            _ => None,
        };
        cap.map_or(lifetime, |cap| lifetime.min(among.of(cap)))
    }

    /// Returns the moment after which the session no longer exists, once `expire` was called.
    pub(super) fn latest(&self) -> Duration {
        self.deadline + TICK + self.slack
    }

    pub(super) fn eviction_class(&self) -> EvictionClass {
        match (self.state, self.initiator.protocol) {
            (State::Tcp(track), _) => match track.state().name() {
                "SYN_SENT" | "SYN_SENT2" | "SYN_RECV" => EvictionClass::Embryonic,
                // Adopted midstream, and not answered yet.
                "ESTABLISHED" if !self.assured => EvictionClass::Embryonic,
                "ESTABLISHED" => EvictionClass::Assured,
                _ => EvictionClass::Closing,
            },
            (State::Unreplied, _) => EvictionClass::Embryonic,
            _ => EvictionClass::Datagram,
        }
    }

    /// Returns whether a new session may take the session's place at a moment.
    pub(super) fn is_evictable(&self, now: Duration) -> bool {
        let idle = now.saturating_sub(self.last);
        match (self.eviction_class(), self.state) {
            (EvictionClass::Assured, _) => false,
            (EvictionClass::Closing, State::Tcp(track)) => {
                let half_closed = matches!(track.state().name(), "FIN_WAIT" | "CLOSE_WAIT");
                !half_closed || idle >= EvictionClass::HALF_CLOSED_GRACE
            }
            (EvictionClass::Datagram, State::Stream) => idle >= EvictionClass::STREAM_GRACE,
            _ => true,
        }
    }

    /// Returns the reason for the session's end when its lifetime has passed.
    pub(super) fn end_of_life(&self) -> EndReason {
        match self.state_name() {
            "TIME_WAIT" => EndReason::Closed,
            "CLOSE" => EndReason::Reset,
            _ => EndReason::Timeout,
        }
    }

    /// Notes the GRE key of a packet that is trusted.
    pub(super) fn note_key(&mut self, direction: Direction, parsed: &Parsed) {
        if let Transport::Gre { key, .. } = parsed.transport {
            let noted = &mut self.keys[direction as usize];
            *noted = noted.or(key.number());
        }
    }

    /// Returns the rank of the session for a GRE packet of another key: the greatest is the best
    /// match.
    pub(super) fn fit(
        &self,
        direction: Direction,
        key: Option<u32>,
    ) -> (bool, bool, bool, Duration) {
        let noted = self.keys[direction as usize];
        let is_answer = direction == Direction::Reply;
        (is_answer, noted == key, noted.is_none(), self.last)
    }

    /// Counts a packet that proves nothing about the session.
    pub(super) fn count_only(&mut self, direction: Direction, bytes: u32) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += u64::from(bytes);
    }

    pub(super) fn count(&mut self, direction: Direction, bytes: u32, now: Duration) {
        self.count_only(direction, bytes);
        self.last = now;
        self.seen_reply |= direction == Direction::Reply;
    }
}
