//! DCCP: the valid packets of a connection, given the earlier ones (RFC 4340).
//!
//! [`Track`] is the compact state of one connection; [`Track::packet`] judges one packet. It checks
//! whether the packet's *type* fits the state ([`state`], a table), and whether the packet
//! acknowledges a number that the other end has *sent*. The reference is Linux
//! `nf_conntrack_proto_dccp`, which makes the second check for one packet of the handshake only: a
//! Reset or Close by an attacker who has guessed addresses and ports is accepted there, and is
//! invalid here.
//!
//! Only a Request opens a session.

pub mod state;

#[cfg(test)]
mod tests;

pub use state::{Cell, State, transition};

use crate::flow::Direction;
use crate::packet::{DccpPacket, DccpType};
use crate::track::Outcome;

/// Number of bits of sequence numbers (RFC 4340, section 7.1).
const MASK: u64 = (1 << 48) - 1;

/// Maximum trusted advance past the greatest number of the sender. No burst loses more packets than
/// that, and a made-up number lies within it once in 2^24 times.
pub const MAX_ADVANCE: u64 = 1 << 24;

/// Reason for which a packet is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The type of the packet does not fit the state and direction.
    State,
    /// The packet acknowledges one that was never sent.
    Ack,
}

/// The sequence numbers that one end has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sent {
    first: u64,
    greatest: u64,
    any: bool,
}

impl Sent {
    /// Returns whether a number lies between the first and the greatest one; `false` for an end
    /// that has sent nothing.
    const fn contains(self, number: u64) -> bool {
        self.any
            && number.wrapping_sub(self.first) & MASK
                <= self.greatest.wrapping_sub(self.first) & MASK
    }

    const fn note(&mut self, number: u64) {
        if !self.any {
            *self = Self {
                first: number,
                greatest: number,
                any: true,
            };
        } else if number.wrapping_sub(self.greatest) & MASK <= MAX_ADVANCE {
            self.greatest = number;
        }
    }
}

/// The state of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    sent: [Sent; 2],
    state: State,
    /// Whether a Reset came before a Close.
    aborted: bool,
}

/// Number of words that [`Track`] takes in a slot.
pub(crate) const WORDS: usize = 8;

/// In the upper 16 bits of a first number: its end has sent something.
const ANY: u64 = 1 << 48;
/// In the upper 16 bits of the initiator's greatest number.
const ABORTED: u64 = 1 << 52;
const STATE_SHIFT: u32 = 48;

impl Track {
    /// Returns the state after a connection's first packet, which must be a Request; `None` for any
    /// other.
    #[must_use]
    pub fn open(packet: &DccpPacket) -> Option<Self> {
        if packet.kind != DccpType::Request {
            return None;
        }
        let mut client = Sent::default();
        client.note(packet.seq?);
        Some(Self {
            sent: [client, Sent::default()],
            state: State::Request,
            aborted: false,
        })
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns whether the connection ended with a Reset that answered no Close.
    #[must_use]
    pub const fn is_aborted(&self) -> bool {
        self.aborted
    }

    pub(crate) const fn to_words(self) -> [u32; WORDS] {
        const fn first(sent: Sent) -> u64 {
            sent.first | if sent.any { ANY } else { 0 }
        }
        let [client, server] = self.sent;
        let bits = (self.state as u64) << STATE_SHIFT | if self.aborted { ABORTED } else { 0 };
        let (a, b, c, d) = (
            first(client),
            client.greatest | bits,
            first(server),
            server.greatest,
        );
        [
            a as u32,
            (a >> 32) as u32,
            b as u32,
            (b >> 32) as u32,
            c as u32,
            (c >> 32) as u32,
            d as u32,
            (d >> 32) as u32,
        ]
    }

    pub(crate) const fn from_words([a, b, c, d, e, f, g, h]: [u32; WORDS]) -> Self {
        const fn long(low: u32, high: u32) -> u64 {
            low as u64 | (high as u64) << 32
        }
        const fn sent(first: u64, greatest: u64) -> Sent {
            Sent {
                first: first & MASK,
                greatest: greatest & MASK,
                any: first & ANY != 0,
            }
        }
        let bits = long(c, d);
        Self {
            sent: [sent(long(a, b), bits), sent(long(e, f), long(g, h))],
            state: State::from_bits((bits >> STATE_SHIFT & 7) as u8),
            aborted: bits & ABORTED != 0,
        }
    }

    /// Returns the record of the numbers that an end has sent.
    const fn sent(&mut self, direction: Direction) -> &mut Sent {
        let [client, server] = &mut self.sent;
        match direction {
            Direction::Original => client,
            Direction::Reply => server,
        }
    }

    /// Judges a packet. An invalid one changes nothing.
    pub fn packet(&mut self, direction: Direction, packet: &DccpPacket) -> Outcome<Fault> {
        let kind = packet.kind;
        let cell = transition(direction, kind, self.state);
        match cell {
            Cell::Invalid => return Outcome::Invalid(Fault::State),
            Cell::Reopen => return Outcome::Reopen,
            Cell::To(_) | Cell::Ignore | Cell::End => {}
        }
        let other = *self.sent(direction.opposite());
        // A Sync acknowledges the packet that caused it, which its sender may have rejected
        // (7.5.4).
        let checked = !matches!(kind, DccpType::Sync | DccpType::SyncAck);
        // A client that has received no packet has nothing to acknowledge in its Reset (5.6).
        let nothing_to_acknowledge = kind == DccpType::Reset && !other.any;
        if let Some(ack) = packet.ack
            && checked
            && !nothing_to_acknowledge
            && !other.contains(ack)
        {
            return Outcome::Invalid(Fault::Ack);
        }
        // A Request on a live connection, and a Reset of an end without one, may have any number.
        let numbered = match kind {
            DccpType::Request => self.state == State::Request,
            DccpType::Reset => false,
            _ => true,
        };
        if numbered && let Some(seq) = packet.seq {
            self.sent(direction).note(seq);
        }
        match cell {
            Cell::End => Outcome::End,
            Cell::To(state) => {
                if state == State::TimeWait {
                    self.aborted = self.state != State::Closing;
                }
                self.state = state;
                Outcome::Accept {
                    lifetime: Some(state.lifetime()),
                    assured: matches!(state, State::PartOpen | State::Open),
                }
            }
            _ => Outcome::PASS,
        }
    }
}
