//! The TCP transition table: state x kind of segment x direction.

use crate::flow::Direction;
use crate::packet::TcpFlags;
use crate::track::{EvictionClass, LifetimeClass};

/// State of a TCP connection as seen from the middle. A segment may be lost after it has passed
/// here, so each state is what the two ends have *sent*, not what they have received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The initiator's SYN has passed. Original: a SYN stays here (retransmission). Reply: a
    /// SYN-ACK leads to [`State::SynRecv`], a SYN to [`State::SynSent2`] (simultaneous open), a RST
    /// ends the session.
    SynSent = 0,
    /// A SYN has passed in each direction. Either: a SYN-ACK leads to [`State::SynRecv`].
    SynSent2 = 1,
    /// The SYN-ACK has passed. Original: an ACK leads to [`State::Established`]. Either: a FIN
    /// leads to [`State::FinWait`], a RST to [`State::Close`].
    SynRecv = 2,
    /// The handshake is complete. Either: a FIN leads to [`State::FinWait`], the exact RST to
    /// [`State::Close`].
    Established = 3,
    /// One end has sent a FIN. Either: an ACK leads to [`State::CloseWait`]. The other end: a FIN
    /// leads to [`State::LastAck`].
    FinWait = 4,
    /// The FIN was acknowledged; the other direction may stay open for long. The other end: a FIN
    /// leads to [`State::LastAck`].
    CloseWait = 5,
    /// Each end has sent a FIN. Either: an ACK leads to [`State::TimeWait`].
    LastAck = 6,
    /// The FINs of both ends were acknowledged. Either: a SYN opens a new session.
    TimeWait = 7,
    /// A RST closed the connection. Original: a SYN opens a new session.
    Close = 8,
}

impl State {
    /// All states, in the order of the table's columns.
    pub const ALL: [Self; 9] = [
        Self::SynSent,
        Self::SynSent2,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
    ];

    /// Returns the name that `conntrack -L` displays.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::SynSent2 => "SYN_SENT2",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
        }
    }

    /// Returns the lifetime of a session in this state.
    #[must_use]
    pub const fn lifetime(self) -> LifetimeClass {
        match self {
            Self::SynSent | Self::SynSent2 => LifetimeClass::TcpSynSent,
            Self::SynRecv => LifetimeClass::TcpSynRecv,
            Self::Established => LifetimeClass::TcpEstablished,
            Self::FinWait => LifetimeClass::TcpFinWait,
            Self::CloseWait => LifetimeClass::TcpCloseWait,
            Self::LastAck => LifetimeClass::TcpLastAck,
            Self::TimeWait => LifetimeClass::TcpTimeWait,
            Self::Close => LifetimeClass::TcpClose,
        }
    }

    /// Returns the eviction class of a session in this state.
    #[must_use]
    pub const fn eviction_class(self) -> EvictionClass {
        match self {
            Self::SynSent | Self::SynSent2 | Self::SynRecv => EvictionClass::Embryonic,
            Self::Established => EvictionClass::Assured,
            _ => EvictionClass::Closing,
        }
    }

    /// Returns whether the handshake is not complete.
    #[must_use]
    pub const fn is_opening(self) -> bool {
        matches!(self, Self::SynSent | Self::SynSent2 | Self::SynRecv)
    }

    /// Returns whether the connection is past its end: at least one FIN or a RST has passed.
    #[must_use]
    pub const fn is_closing(self) -> bool {
        matches!(self.eviction_class(), EvictionClass::Closing)
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::SynSent,
            1 => Self::SynSent2,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            _ => Self::Close,
        }
    }
}

/// Kind of a segment, by its flags. RST takes precedence over SYN, SYN over FIN, FIN over ACK;
/// meaningless combinations are malformed and never get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// SYN without ACK.
    Syn = 0,
    /// SYN with ACK.
    SynAck = 1,
    /// FIN (with ACK).
    Fin = 2,
    /// ACK, with or without data.
    Ack = 3,
    /// RST.
    Rst = 4,
    /// None of them.
    None = 5,
}

impl Event {
    /// All kinds of well-formed segments.
    pub const ALL: [Self; 5] = [Self::Syn, Self::SynAck, Self::Fin, Self::Ack, Self::Rst];

    /// Returns the kind of a segment with these flags.
    #[must_use]
    pub const fn of(flags: TcpFlags) -> Self {
        if flags.contains(TcpFlags::RST) {
            Self::Rst
        } else if flags.contains(TcpFlags::SYN) {
            if flags.contains(TcpFlags::ACK) {
                Self::SynAck
            } else {
                Self::Syn
            }
        } else if flags.contains(TcpFlags::FIN) {
            Self::Fin
        } else if flags.contains(TcpFlags::ACK) {
            Self::Ack
        } else {
            Self::None
        }
    }

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Fin => "FIN",
            Self::Ack => "ACK",
            Self::Rst => "RST",
            Self::None => "none",
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Syn,
            1 => Self::SynAck,
            2 => Self::Fin,
            3 => Self::Ack,
            4 => Self::Rst,
            _ => Self::None,
        }
    }
}

/// A cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// The segment fits: this is the state after it, once the window agrees.
    To(State),
    /// The segment may be valid if the tracked state is stale: it passes, the state stays, and its
    /// numbers are remembered so that the answer to it can resynchronize the tracker.
    Ignore,
    /// The segment may open a new connection on these ports; if it may not, it is ignored.
    Reopen,
    /// The segment fits nothing: it is dropped.
    Invalid,
}

use Cell::{Ignore as Ig, Invalid as Iv, Reopen as Re, To};
use State::{
    Close as Cl, CloseWait as Cw, Established as Es, FinWait as Fw, LastAck as La, SynRecv as Sr,
    SynSent as Ss, SynSent2 as S2, TimeWait as Tw,
};

type Row = [Cell; 9];

/// The table: direction, then kind of segment, then state. The reference is Linux
/// `nf_conntrack_proto_tcp` with `nf_conntrack_tcp_loose=0`; segments without a session are not
/// decided here.
const TABLE: [[Row; 6]; 2] = [
    [
        // original: SYN_SENT SYN_SENT2 SYN_RECV ESTABL FIN_WAIT CLOSE_W LAST_ACK TIME_W CLOSE
        //
        // SYN: a retransmission; on a live session the responder decides (challenge ACK, RFC 5961
        // 4.2).
        [To(Ss), To(S2), Ig, Ig, Ig, Ig, Ig, Re, Re],
        // SYN-ACK: the initiator sends one only in a simultaneous open.
        [Iv, To(Sr), To(Sr), Iv, Iv, Iv, Iv, Iv, Iv],
        // FIN: not before the responder's SYN-ACK; the second FIN of the pair leads to LAST_ACK. A
        // repetition of the first one does not change the state.
        [
            Iv,
            Iv,
            To(Fw),
            To(Fw),
            To(La),
            To(La),
            To(La),
            To(Tw),
            To(Cl),
        ],
        // ACK: completes the handshake, acknowledges FINs.
        [
            Iv,
            Iv,
            To(Es),
            To(Es),
            To(Cw),
            To(Cw),
            To(Tw),
            To(Tw),
            To(Cl),
        ],
        // RST: closes, if its sequence number says so.
        [
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
        ],
        // none of the flags
        [Iv, Iv, Iv, Iv, Iv, Iv, Iv, Iv, Iv],
    ],
    [
        // reply: SYN_SENT SYN_SENT2 SYN_RECV ESTABL FIN_WAIT CLOSE_W LAST_ACK TIME_W CLOSE
        //
        // SYN: simultaneous open; after TIME_WAIT the ends may swap roles.
        [To(S2), To(S2), Iv, Iv, Iv, Iv, Iv, Re, Iv],
        // SYN-ACK: the standard open; later it is a retransmission or the answer to an ignored SYN.
        [To(Sr), To(Sr), Ig, Ig, Ig, Ig, Ig, Ig, Ig],
        // FIN: not before the SYN-ACK.
        [
            Iv,
            Iv,
            To(Fw),
            To(Fw),
            To(La),
            To(La),
            To(La),
            To(Tw),
            To(Cl),
        ],
        // ACK: in SYN_SENT possibly a half-open responder's challenge; in SYN_RECV the answer to a
        // late SYN.
        [
            Ig,
            Ig,
            To(Sr),
            To(Es),
            To(Cw),
            To(Cw),
            To(Tw),
            To(Tw),
            To(Cl),
        ],
        // RST: refuses or closes.
        [
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
            To(Cl),
        ],
        // none of the flags
        [Iv, Iv, Iv, Iv, Iv, Iv, Iv, Iv, Iv],
    ],
];

/// The cell for a segment.
#[expect(
    clippy::indexing_slicing,
    reason = "the three indices are enums whose variants are the table's rows"
)]
#[inline]
#[must_use]
pub const fn transition(direction: Direction, event: Event, state: State) -> Cell {
    TABLE[direction as usize][event as usize][state as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_events_survive_their_bits() {
        for state in State::ALL {
            assert_eq!(State::from_bits(state as u8), state);
        }
        for event in Event::ALL {
            assert_eq!(Event::from_bits(event as u8), event);
        }
    }

    #[test]
    fn an_ordinary_connection_passes_through_every_state() {
        use Direction::{Original as O, Reply as R};
        let story = [
            (O, Event::Syn, State::SynSent),
            (R, Event::SynAck, State::SynRecv),
            (O, Event::Ack, State::Established),
            (R, Event::Ack, State::Established),
            (O, Event::Fin, State::FinWait),
            (R, Event::Ack, State::CloseWait),
            (R, Event::Fin, State::LastAck),
            (O, Event::Ack, State::TimeWait),
        ];
        let mut state = State::SynSent;
        for (direction, event, expected) in story {
            assert_eq!(
                transition(direction, event, state),
                To(expected),
                "{event:?} in {state:?}"
            );
            state = expected;
        }
    }

    #[test]
    fn a_segment_without_meaning_fits_nowhere() {
        for direction in Direction::BOTH {
            for state in State::ALL {
                assert_eq!(transition(direction, Event::None, state), Iv);
            }
        }
    }

    #[test]
    fn no_state_is_left_towards_the_handshake() {
        for direction in Direction::BOTH {
            for event in Event::ALL {
                for state in State::ALL.into_iter().skip(3) {
                    if let To(next) = transition(direction, event, state) {
                        assert!(
                            next as u8 >= State::Established as u8,
                            "{event:?} in {state:?}"
                        );
                    }
                }
            }
        }
    }
}
