//! Zeek's `history`: which kinds of packets a session has seen, in the order of their first appearance.

use crate::flow::Direction;

/// The kinds, with Zeek's letters; a capital is the original direction's, a small letter the reply's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Letter {
    /// `s`: a SYN without ACK.
    Syn = 0,
    /// `h`: a SYN with ACK (handshake).
    Handshake = 1,
    /// `a`: a pure ACK.
    Ack = 2,
    /// `d`: a packet with payload (data).
    Data = 3,
    /// `f`: a FIN.
    Fin = 4,
    /// `r`: a RST.
    Reset = 5,
    /// `t`: a retransmitted payload.
    Retransmission = 6,
    /// `w`: a zero window.
    ZeroWindow = 7,
    /// `i`: an inconsistent packet, such as FIN and RST together.
    Inconsistent = 8,
}

impl Letter {
    const ALL: [(Self, u8); 9] = [
        (Self::Syn, b's'),
        (Self::Handshake, b'h'),
        (Self::Ack, b'a'),
        (Self::Data, b'd'),
        (Self::Fin, b'f'),
        (Self::Reset, b'r'),
        (Self::Retransmission, b't'),
        (Self::ZeroWindow, b'w'),
        (Self::Inconsistent, b'i'),
    ];
}

/// Up to [`History::CAPACITY`] letters in 8 bytes: five bits each behind a four-bit length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History(u64);

impl History {
    /// Letters beyond the twelfth are not kept: real connections have rarely more than ten.
    pub const CAPACITY: u32 = 12;

    /// How many letters there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        (self.0 & 0xf) as u32
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    const fn code(letter: Letter, direction: Direction) -> u64 {
        (letter as u64) << 1 | direction as u64
    }

    const fn at(self, position: u32) -> u64 {
        self.0 >> (4 + 5 * position) & 0x1f
    }

    /// Whether a letter has been seen in a direction.
    #[must_use]
    pub fn contains(self, letter: Letter, direction: Direction) -> bool {
        let code = Self::code(letter, direction);
        (0..self.len()).any(|position| self.at(position) == code)
    }

    /// Adds a letter at its first appearance.
    pub fn add(&mut self, letter: Letter, direction: Direction) {
        let len = self.len();
        if len < Self::CAPACITY && !self.contains(letter, direction) {
            self.0 = (self.0 | Self::code(letter, direction) << (4 + 5 * len)) + 1;
        }
    }
}

impl core::fmt::Display for History {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for position in 0..self.len() {
            let code = self.at(position);
            let letter = Letter::ALL.iter().find(|(letter, _)| *letter as u64 == code >> 1);
            let small = letter.map_or(b'?', |(_, byte)| *byte);
            f.write_char(char::from(if code & 1 == 0 {
                small.to_ascii_uppercase()
            } else {
                small
            }))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    #[test]
    fn letters_stand_in_order_of_first_appearance() {
        let mut history = History::default();
        for (letter, direction) in [
            (Letter::Syn, Original),
            (Letter::Handshake, Reply),
            (Letter::Ack, Original),
            (Letter::Data, Original),
            (Letter::Ack, Original),
            (Letter::Data, Reply),
            (Letter::Fin, Original),
            (Letter::Reset, Reply),
        ] {
            history.add(letter, direction);
        }
        assert_eq!(history.to_string(), "ShADdFr");
        assert!(history.contains(Letter::Reset, Reply) && !history.contains(Letter::Reset, Original));
    }

    #[test]
    fn a_full_history_stays_as_it_is() {
        let mut history = History::default();
        for direction in Direction::BOTH {
            for (letter, _) in Letter::ALL {
                history.add(letter, direction);
            }
        }
        assert_eq!(history.to_string(), "SHADFRTWIsha");
        assert_eq!(history.len(), History::CAPACITY);
    }
}
