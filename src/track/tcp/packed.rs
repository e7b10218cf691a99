//! Packed fields of a [`Track`]: the two sides, the last segment and the flags of the connection.

use super::window::{Peer, PeerFlags, Side};
use super::{Event, MAX_RETRANSMISSIONS, RETRANSMISSIONS_SHIFT, State, Track};
use crate::flow::Direction;
use crate::packet::SeqNum;

impl Track {
    /// Creates a track from plain numbers, for a protocol that stores them in TCP's place.
    pub(crate) const fn from_words([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        const fn peer(end: u32, max_end: u32, max_window: u32, max_ack: u32) -> Peer {
            Peer {
                end: SeqNum(end),
                max_end: SeqNum(max_end),
                max_window,
                max_ack: SeqNum(max_ack),
            }
        }
        Self {
            peers: [peer(a, b, c, d), peer(e, f, g, h)],
            last_end: SeqNum(0),
            last_window: 0,
            last_mark: 0,
            scales: 0,
            flags: [0; 2],
            position: 0,
        }
    }

    /// Returns whether a restored state is one that segments can lead to, as far as can be checked:
    /// scales and kinds within their bounds.
    pub(crate) const fn is_sound(&self) -> bool {
        let (state, event) = (self.position & 0x0f, self.position >> 4 & 0x07);
        state <= State::Close as u8
            && event <= Event::None as u8
            && self.scales & 0x0f <= 14
            && self.scales >> 4 <= 14
    }

    /// Returns the words that [`Track::from_words`] takes.
    pub(crate) const fn words(&self) -> [u32; 8] {
        let [one, two] = self.peers;
        [
            one.end.0,
            one.max_end.0,
            one.max_window,
            one.max_ack.0,
            two.end.0,
            two.max_end.0,
            two.max_window,
            two.max_ack.0,
        ]
    }

    /// Returns the data that one end has sent and allowed, by the direction in which it sends.
    #[must_use]
    pub const fn side(&self, direction: Direction) -> Side {
        let [original, reply] = self.peers;
        let [original_flags, reply_flags] = self.flags;
        match direction {
            Direction::Original => Side {
                peer: original,
                flags: PeerFlags(original_flags & PeerFlags::MASK),
                scale: self.scales & 0x0f,
            },
            Direction::Reply => Side {
                peer: reply,
                flags: PeerFlags(reply_flags & PeerFlags::MASK),
                scale: self.scales >> 4,
            },
        }
    }

    pub(super) fn put_side(&mut self, direction: Direction, side: Side) {
        let [original, reply] = &mut self.peers;
        let [original_flags, reply_flags] = &mut self.flags;
        let (peer, flags) = match direction {
            Direction::Original => {
                self.scales = self.scales & 0xf0 | side.scale & 0x0f;
                (original, original_flags)
            }
            Direction::Reply => {
                self.scales = self.scales & 0x0f | side.scale << 4;
                (reply, reply_flags)
            }
        };
        *peer = side.peer;
        *flags = *flags & !PeerFlags::MASK | side.flags.0;
    }

    pub(super) const fn last(&self) -> (Event, Direction) {
        let event = Event::from_bits(self.position >> 4 & 0x07);
        (
            event,
            if self.position & 0x80 == 0 {
                Direction::Original
            } else {
                Direction::Reply
            },
        )
    }

    pub(super) const fn remember(&mut self, event: Event, direction: Direction) {
        self.position = self.position & 0x0f | (event as u8) << 4 | (direction as u8) << 7;
    }

    pub(super) const fn set_state(&mut self, state: State) {
        self.position = self.position & 0xf0 | state as u8;
    }

    pub(super) const fn connection_flag(&self, flag: u8) -> bool {
        let [low, _] = self.flags;
        low & flag != 0
    }

    pub(super) const fn set_connection_flag(&mut self, flag: u8, on: bool) {
        let [low, _] = &mut self.flags;
        if on { *low |= flag } else { *low &= !flag }
    }

    pub(super) const fn retransmissions(&self) -> u8 {
        let [_, high] = self.flags;
        high >> RETRANSMISSIONS_SHIFT
    }

    pub(super) const fn set_retransmissions(&mut self, count: u8) {
        let [_, high] = &mut self.flags;
        let count = if count > MAX_RETRANSMISSIONS {
            MAX_RETRANSMISSIONS
        } else {
            count
        };
        *high = *high & !(0x03 << RETRANSMISSIONS_SHIFT) | count << RETRANSMISSIONS_SHIFT;
    }
}
