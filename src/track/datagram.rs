//! UDP, UDP-Lite, ICMP queries and every protocol that has no state machine of its own.
//!
//! Life cycle: *unreplied* until the first packet of the responder, then *replied*. A UDP
//! conversation of one packet in each direction is an *exchange*, and is kept for as long as it
//! takes a late copy to arrive; a conversation with a DNS server stays one until it is a stream. A
//! UDP conversation that continues two seconds after its start is a *stream* (the rule of Linux
//! `nf_conntrack_proto_udp`: a DNS query does not hold its slot for as long as a call).

use crate::flow::Direction;
use crate::packet::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, PROTOCOL_UDP_LITE};
use crate::track::{EvictionClass, Lifetime, LifetimeClass};

/// Age at which a two-way UDP conversation becomes a stream, in milliseconds (Linux: 2 s).
pub const STREAM_AGE_MS: u64 = 2_000;

/// Responder's port of conversations with one answer for each query, although a resolver may send
/// several queries from one port. RFC 4787 REQ-5 a allows a shorter timer for the protocol of a
/// well-known port.
const DNS_PORT: u16 = 53;

/// The states of a conversation without a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Only the initiator has sent.
    Unreplied = 0,
    /// Both ends have sent.
    Replied = 1,
    /// UDP only: both ends have sent, and the session is at least 2 seconds old.
    Stream = 2,
    /// UDP only: one packet in each direction so far, or a young conversation with a DNS server.
    Exchange = 3,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Unreplied, Self::Replied, Self::Stream, Self::Exchange];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreplied => "UNREPLIED",
            Self::Replied => "REPLIED",
            Self::Stream => "STREAM",
            Self::Exchange => "EXCHANGE",
        }
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Unreplied,
            1 => Self::Replied,
            2 => Self::Stream,
            _ => Self::Exchange,
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
    /// Any other protocol.
    Other,
}

impl Family {
    /// Returns the family of an IP protocol number.
    #[must_use]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            PROTOCOL_UDP | PROTOCOL_UDP_LITE => Self::Udp,
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// Inputs of the next state, beside the state and the direction of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The family of the session's protocol.
    pub family: Family,
    /// The responder's port; 0 for a protocol without ports.
    pub responder_port: u16,
    /// Packets of the initiator before this one.
    pub asked: u32,
    /// The age of the session in milliseconds; read in the states [`State::Replied`] and
    /// [`State::Exchange`] only.
    pub age_ms: u64,
}

/// Returns the state after a packet. A packet of the responder ends the unreplied state; one of
/// either end may make the conversation a stream.
#[must_use]
pub const fn next(known: Known, state: State, direction: Direction) -> State {
    let is_udp = matches!(known.family, Family::Udp);
    let is_dns = is_udp && known.responder_port == DNS_PORT;
    match (state, direction) {
        (State::Unreplied, Direction::Original) => State::Unreplied,
        (State::Unreplied, Direction::Reply) if is_dns || is_udp && known.asked <= 1 => {
            State::Exchange
        }
        (State::Unreplied, Direction::Reply) => State::Replied,
        (State::Replied | State::Exchange, _) if is_udp && known.age_ms >= STREAM_AGE_MS => {
            State::Stream
        }
        (State::Exchange, _) if is_dns => State::Exchange,
        (State::Replied | State::Exchange, _) => State::Replied,
        (State::Stream, _) => State::Stream,
    }
}

/// Returns the lifetime of a state.
#[must_use]
pub const fn lifetime(family: Family, state: State) -> Lifetime {
    Lifetime::of(match (family, state) {
        (Family::Udp, State::Unreplied) => LifetimeClass::UdpUnreplied,
        (Family::Udp, State::Exchange) => LifetimeClass::UdpExchange,
        (Family::Udp, State::Replied) => LifetimeClass::UdpReplied,
        (Family::Udp, State::Stream) => LifetimeClass::UdpStream,
        (Family::Icmp, _) => LifetimeClass::Icmp,
        (Family::Other, State::Unreplied) => LifetimeClass::OtherUnreplied,
        (Family::Other, _) => LifetimeClass::OtherReplied,
    })
}

/// Returns the eviction class of a session in this state. An answer raises it, and an accomplice
/// can easily send one: sessions without a connection are never safe from eviction.
#[must_use]
pub const fn eviction_class(state: State) -> EvictionClass {
    match state {
        State::Unreplied => EvictionClass::Embryonic,
        State::Exchange | State::Replied | State::Stream => EvictionClass::Datagram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};
    use State::{Exchange, Replied, Stream, Unreplied};

    const UDP: Known = Known {
        family: Family::Udp,
        responder_port: 5000,
        asked: 2,
        age_ms: 0,
    };

    #[test]
    fn states_keep_their_numbers() {
        for state in State::ALL {
            assert_eq!(State::from_bits(state as u8), state);
        }
    }

    #[test]
    fn only_the_responder_ends_the_unreplied_state() {
        let old = Known {
            age_ms: 60_000,
            ..UDP
        };
        assert_eq!(next(old, Unreplied, Original), Unreplied);
        assert_eq!(next(old, Unreplied, Reply), Replied);
    }

    #[test]
    fn one_packet_each_way_is_an_exchange_and_a_third_ends_it() {
        let once = Known { asked: 1, ..UDP };
        assert_eq!(next(once, Unreplied, Reply), Exchange);
        for direction in Direction::BOTH {
            assert_eq!(next(UDP, Exchange, direction), Replied);
        }
        let old = Known {
            age_ms: 2_000,
            ..UDP
        };
        assert_eq!(next(old, Exchange, Original), Stream);
    }

    #[test]
    fn questions_to_a_dns_server_are_exchanges_until_they_are_a_stream() {
        let dns = Known {
            responder_port: 53,
            ..UDP
        };
        assert_eq!(next(dns, Unreplied, Reply), Exchange);
        for age_ms in [0, 1_999] {
            assert_eq!(next(Known { age_ms, ..dns }, Exchange, Original), Exchange);
        }
        assert_eq!(
            next(
                Known {
                    age_ms: 2_000,
                    ..dns
                },
                Exchange,
                Reply
            ),
            Stream
        );
    }

    #[test]
    fn a_two_way_udp_conversation_becomes_a_stream_after_two_seconds() {
        let aged = |age_ms| Known { age_ms, ..UDP };
        assert_eq!(next(aged(1_999), Replied, Original), Replied);
        assert_eq!(next(aged(2_000), Replied, Original), Stream);
        assert_eq!(next(aged(2_000), Replied, Reply), Stream);
        assert_eq!(next(aged(0), Stream, Original), Stream);
    }

    #[test]
    fn only_udp_has_streams_and_exchanges() {
        for family in [Family::Icmp, Family::Other] {
            let known = Known {
                family,
                responder_port: 53,
                asked: 1,
                age_ms: 60_000,
            };
            assert_eq!(next(known, Unreplied, Reply), Replied);
            assert_eq!(next(known, Replied, Reply), Replied);
        }
    }

    #[test]
    fn the_unanswered_and_pings_are_evictable() {
        assert_eq!(eviction_class(Unreplied), EvictionClass::Embryonic);
        for answered in [Exchange, Replied, Stream] {
            assert_eq!(eviction_class(answered), EvictionClass::Datagram);
        }
    }
}
