//! UDP, UDP-Lite, ICMP queries and every protocol that has no state machine of its own.
//!
//! Life cycle: *unreplied* until the first packet of the responder, then *replied*; a UDP conversation that
//! still talks both ways two seconds after it began is a *stream* (the rule of Linux `nf_conntrack_proto_udp`:
//! a DNS question does not hold its slot for as long as a call does).

use crate::flow::Direction;
use crate::lifetime::LifetimeClass;
use crate::packet::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, PROTOCOL_UDP_LITE};
use crate::track::{Lifetime, Worth};

/// How old a two-way UDP conversation is when it becomes a stream, in milliseconds (Linux: 2 s).
pub const STREAM_AGE_MS: u64 = 2_000;

/// The states of a conversation without a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Only the initiator has spoken.
    Unreplied = 0,
    /// Both have spoken.
    Replied = 1,
    /// UDP only: both have spoken for longer than [`STREAM_AGE_MS`].
    Stream = 2,
}

impl State {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Unreplied, Self::Replied, Self::Stream];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreplied => "UNREPLIED",
            Self::Replied => "REPLIED",
            Self::Stream => "STREAM",
        }
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Unreplied,
            1 => Self::Replied,
            _ => Self::Stream,
        }
    }
}

/// The families of protocols that have lifetimes of their own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// UDP and UDP-Lite.
    Udp,
    /// ICMP and ICMPv6 queries.
    Icmp,
    /// Everything else.
    Other,
}

impl Family {
    /// The family of an IP protocol number.
    #[must_use]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            PROTOCOL_UDP | PROTOCOL_UDP_LITE => Self::Udp,
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// The state after a packet. A packet of the responder makes it replied, one of either end may make it a stream.
#[must_use]
pub fn next(family: Family, state: State, direction: Direction, age_ms: u64) -> State {
    match (state, direction) {
        (State::Unreplied, Direction::Original) => State::Unreplied,
        (State::Unreplied, Direction::Reply) => State::Replied,
        (State::Replied, _) if family == Family::Udp && age_ms >= STREAM_AGE_MS => State::Stream,
        (State::Replied, _) => State::Replied,
        (State::Stream, _) => State::Stream,
    }
}

/// The lifetime that a state has.
#[must_use]
pub const fn lifetime(family: Family, state: State) -> Lifetime {
    Lifetime::of(match (family, state) {
        (Family::Udp, State::Unreplied) => LifetimeClass::UdpUnreplied,
        (Family::Udp, State::Replied) => LifetimeClass::UdpReplied,
        (Family::Udp, State::Stream) => LifetimeClass::UdpStream,
        (Family::Icmp, _) => LifetimeClass::Icmp,
        (Family::Other, State::Unreplied) => LifetimeClass::OtherUnreplied,
        (Family::Other, _) => LifetimeClass::OtherReplied,
    })
}

/// What a session in this state is worth: an answer makes it assured, except that ping answers are cheap to
/// make and short-lived, and stay evictable.
#[must_use]
pub const fn worth(family: Family, state: State) -> Worth {
    match (family, state) {
        (_, State::Unreplied) | (Family::Icmp, _) => Worth::Embryonic,
        _ => Worth::Assured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};
    use State::{Replied, Stream, Unreplied};

    #[test]
    fn only_the_responder_ends_the_unreplied_state() {
        assert_eq!(next(Family::Udp, Unreplied, Original, 60_000), Unreplied);
        assert_eq!(next(Family::Udp, Unreplied, Reply, 60_000), Replied);
    }

    #[test]
    fn a_two_way_udp_conversation_becomes_a_stream_after_two_seconds() {
        assert_eq!(next(Family::Udp, Replied, Original, 1_999), Replied);
        assert_eq!(next(Family::Udp, Replied, Original, 2_000), Stream);
        assert_eq!(next(Family::Udp, Replied, Reply, 2_000), Stream);
        assert_eq!(next(Family::Udp, Stream, Original, 0), Stream);
    }

    #[test]
    fn only_udp_has_streams() {
        for family in [Family::Icmp, Family::Other] {
            assert_eq!(next(family, Replied, Reply, 60_000), Replied);
        }
    }

    #[test]
    fn the_unanswered_and_pings_are_evictable() {
        assert_eq!(worth(Family::Udp, Unreplied), Worth::Embryonic);
        assert_eq!(worth(Family::Udp, Replied), Worth::Assured);
        assert_eq!(worth(Family::Icmp, Replied), Worth::Embryonic);
        assert_eq!(worth(Family::Other, Replied), Worth::Assured);
    }
}
