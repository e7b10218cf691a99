//! Zeek's `history`: the kinds of packets of a session, in the order of their first appearance.
//!
//! The letters and the conditions for them are those of the `history` field of Zeek's `conn.log`. A
//! segment adds one letter for its kind (`r`, else `s` or `h`, else `f`, else `d`, else `a`: a FIN
//! or SYN with payload is not a `d`), then `w`, then `t`. [`History::add`] enforces three rules
//! that depend on earlier letters:
//!
//! - an end has one letter for its SYNs, `s` or `h`, whichever came first;
//! - a zero window is not noted once the peer has sent its FIN: no more data will be sent to the
//!   end;
//! - an end that has sent a RST adds neither `w` nor `t`: its numbers are no longer meaningful.
//!
//! Zeek's other letters are not used. `c` (bad checksum), `i` and `q` (flags that exclude each
//! other) belong to packets that are malformed and reach no session. `g` (a gap that was
//! acknowledged) would need the position of every hole. `^` (direction flipped by a list of server
//! ports) does not occur: the initiator is the sender of the first packet. `x` means that Zeek
//! itself gave up. `t` and `w` appear once, where Zeek repeats them at the 10th, 100th, 1000th
//! packet: that would need four counters.

use crate::flow::Direction;

/// Kinds of packets, with Zeek's letters: a capital for the original direction, a small letter for
/// the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Letter {
    /// `h`: a SYN with ACK (handshake).
    Handshake = 0,
    /// `s`: a SYN without ACK.
    Syn = 1,
    /// `a`: a pure ACK.
    Ack = 2,
    /// `d`: payload without SYN, FIN or RST; for UDP, any datagram.
    Data = 3,
    /// `f`: a FIN.
    Fin = 4,
    /// `r`: a RST.
    Reset = 5,
    /// `t`: payload that adds nothing beyond the data that the end has already sent.
    Retransmission = 6,
    /// `w`: a zero window.
    ZeroWindow = 7,
}

impl Letter {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Handshake,
        Self::Syn,
        Self::Ack,
        Self::Data,
        Self::Fin,
        Self::Reset,
        Self::Retransmission,
        Self::ZeroWindow,
    ];

    /// Returns Zeek's letter for a direction.
    #[must_use]
    pub const fn letter(self, direction: Direction) -> char {
        let small = match self {
            Self::Handshake => 'h',
            Self::Syn => 's',
            Self::Ack => 'a',
            Self::Data => 'd',
            Self::Fin => 'f',
            Self::Reset => 'r',
            Self::Retransmission => 't',
            Self::ZeroWindow => 'w',
        };
        match direction {
            Direction::Original => small.to_ascii_uppercase(),
            Direction::Reply => small,
        }
    }

    /// Returns the code of a letter: four bits that are never zero, except for the letter that
    /// cannot occur. A session begins with its initiator's first packet, for TCP a SYN, so `H`
    /// never comes before `S`, and an end has only one of the two.
    const fn code(self, direction: Direction) -> u64 {
        (self as u64) << 1 | direction as u64
    }

    const fn from_code(code: u64) -> Self {
        match code >> 1 & 0x07 {
            0 => Self::Handshake,
            1 => Self::Syn,
            2 => Self::Ack,
            3 => Self::Data,
            4 => Self::Fin,
            5 => Self::Reset,
            6 => Self::Retransmission,
            _ => Self::ZeroWindow,
        }
    }
}

/// Every letter at its first appearance, in 7 bytes: four bits each, the first in the lowest, zero
/// after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History(u64);

impl History {
    /// Maximum number of letters: seven for each end. No history is ever truncated.
    pub const CAPACITY: u32 = 14;

    /// Returns the history of seven bytes; see [`History::bits`].
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the letters in the lower seven bytes; the highest is 0.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the number of letters.
    #[must_use]
    pub const fn len(self) -> u32 {
        (u64::BITS - self.0.leading_zeros()).div_ceil(4)
    }

    /// Returns whether there are no letters.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the letters in order, each with the direction of the packet that added it.
    pub fn letters(self) -> impl Iterator<Item = (Letter, Direction)> {
        (0..self.len()).map(move |position| {
            let code = self.0 >> (4 * position) & 0x0f;
            let direction = if code & 1 == Direction::Original as u64 {
                Direction::Original
            } else {
                Direction::Reply
            };
            (Letter::from_code(code), direction)
        })
    }

    /// Returns whether the history has a letter for a direction.
    #[must_use]
    pub fn contains(self, letter: Letter, direction: Direction) -> bool {
        const LOWEST: u64 = 0x1111_1111_1111_1111;
        let code = letter.code(direction);
        if code == 0 {
            // The places after the last letter have this code too.
            return self.letters().any(|each| each == (letter, direction));
        }
        // All places are compared at once: a place of the letter becomes 0, and a subtraction sets
        // its highest bit.
        let differs = self.0 ^ (code * LOWEST);
        differs.wrapping_sub(LOWEST) & !differs & (LOWEST << 3) != 0
    }

    /// Adds a letter at its first appearance, if the rules in this module's documentation allow it.
    pub fn add(&mut self, letter: Letter, direction: Direction) {
        let seen = |letter, direction| self.contains(letter, direction);
        let peer = direction.opposite();
        let left_out = seen(letter, direction)
            || match letter {
                Letter::Syn => seen(Letter::Handshake, direction),
                Letter::Handshake => seen(Letter::Syn, direction),
                Letter::Retransmission => seen(Letter::Reset, direction),
                Letter::ZeroWindow => seen(Letter::Reset, direction) || seen(Letter::Fin, peer),
                Letter::Ack | Letter::Data | Letter::Fin | Letter::Reset => false,
            };
        let len = self.len();
        if !left_out && len < Self::CAPACITY {
            self.0 |= letter.code(direction) << (4 * len);
        }
    }
}

impl core::fmt::Display for History {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        self.letters()
            .try_for_each(|(letter, direction)| f.write_char(letter.letter(direction)))
    }
}

/// Returns a history of the given letters, for tests.
#[cfg(test)]
pub(crate) fn history(letters: &str) -> History {
    let mut history = History::default();
    for char in letters.chars() {
        let (letter, direction) = Direction::BOTH
            .into_iter()
            .flat_map(|direction| Letter::ALL.map(|letter| (letter, direction)))
            .find(|(letter, direction)| letter.letter(*direction) == char)
            .expect("a letter");
        history.add(letter, direction);
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    #[test]
    fn a_history_contains_the_letters_that_it_lists() {
        for text in ["", "S", "ShADAdAFr", "ShAaDdFfRrWwT", "dDtTwWrRfFaAsS"] {
            let history = history(text);
            let listed: Vec<_> = history.letters().collect();
            for direction in [Original, Reply] {
                for letter in Letter::ALL {
                    assert_eq!(
                        history.contains(letter, direction),
                        listed.contains(&(letter, direction)),
                        "{history} {letter:?} {direction:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn letters_stand_in_order_of_first_appearance() {
        assert_eq!(history("ShADAdAFr").to_string(), "ShADdFr");
        let history = history("ShADdFr");
        assert_eq!(history.len(), 7);
        assert!(
            history.contains(Letter::Reset, Reply) && !history.contains(Letter::Reset, Original)
        );
        assert!(History::default().is_empty());
        assert_eq!(History::default().len(), 0);
    }

    #[test]
    fn all_that_one_session_can_show_is_kept() {
        assert_eq!(history("ShADadTtWwFfRr").to_string(), "ShADadTtWwFfRr");
        assert_eq!(history("ShADadTtWwFfRr").len(), History::CAPACITY);
        assert_eq!(history("SsADadTtWwFfRr").to_string(), "SsADadTtWwFfRr");
    }

    #[test]
    fn an_end_has_one_letter_for_its_syns() {
        assert_eq!(history("SsHh").to_string(), "Ss");
        assert_eq!(history("Shs").to_string(), "Sh");
    }

    #[test]
    fn a_zero_window_is_not_noted_behind_the_fin_of_its_peer() {
        assert_eq!(history("ShAFw").to_string(), "ShAF");
        assert_eq!(history("ShAFW").to_string(), "ShAFW");
    }

    #[test]
    fn an_end_that_has_sent_a_reset_adds_no_window_and_no_repetition() {
        assert_eq!(history("ShARWT").to_string(), "ShAR");
        assert_eq!(history("ShARwt").to_string(), "ShARwt");
    }

    #[test]
    fn only_the_handshake_letter_of_an_initiator_has_no_code() {
        for direction in Direction::BOTH {
            for letter in Letter::ALL {
                let code = letter.code(direction);
                assert_eq!(
                    code == 0,
                    (letter, direction) == (Letter::Handshake, Original)
                );
                assert_eq!(Letter::from_code(code), letter);
            }
        }
    }
}
