//! Sequence numbers: a type of wrapping 32-bit numbers, so that no code uses bare arithmetic.

use std::fmt;

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

/// A TCP sequence or acknowledgment number (RFC 9293, section 3.4): a point on a circle of 2^32
/// bytes.
///
/// The type has no `Ord`, since "less than" means nothing on a circle. [`before`](Self::before) and
/// [`after`](Self::after) compare two numbers that are less than 2^31 apart; at exactly 2^31 each
/// is before and after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Returns whether this number is before `other` on the shorter arc.
    #[inline]
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Returns whether this number is after `other` on the shorter arc.
    #[inline]
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Returns the number `bytes` after this one, wrapping.
    #[inline]
    #[must_use]
    pub const fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Returns the number `bytes` before this one, wrapping.
    #[inline]
    #[must_use]
    pub const fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    /// Returns the distance in bytes from `other` forward to this number, wrapping:
    /// `other.add(self.distance_from(other)) == self`.
    #[inline]
    #[must_use]
    pub const fn distance_from(self, other: Self) -> u32 {
        self.0.wrapping_sub(other.0)
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNum;

    #[test]
    fn order_survives_the_wrap() {
        let last = SeqNum(u32::MAX);
        let first = last.add(1);
        assert_eq!(first, SeqNum(0));
        assert!(last.before(first) && first.after(last));
        assert!(!last.after(first) && !first.before(last));
        assert_eq!(first.distance_from(last), 1);
        assert_eq!(last.distance_from(first), u32::MAX);
    }

    #[test]
    fn a_number_is_neither_before_nor_after_itself() {
        let seq = SeqNum(7);
        assert!(!seq.before(seq) && !seq.after(seq));
        assert_eq!(seq.distance_from(seq), 0);
    }

    #[test]
    fn order_holds_up_to_half_the_circle() {
        let seq = SeqNum(0xffff_fff0);
        assert!(seq.before(seq.add(0x7fff_ffff)));
        assert!(seq.after(seq.add(0x8000_0001)));
    }

    #[test]
    fn display_is_the_number() {
        assert_eq!(
            format!("{:>5}|{}", SeqNum(12), SeqNum(u32::MAX)),
            "   12|4294967295"
        );
    }
}
