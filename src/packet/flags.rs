//! TCP flags, and their valid combinations.

use std::{fmt, ops::BitOr};

/// The eight flags of a TCP header (RFC 9293, section 3.1), with the bits at their positions on the
/// wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

/// One bit per combination of FIN, SYN, RST, ACK and URG that a TCP may send; the bit's number is
/// the combination.
const VALID_COMBINATIONS: u64 = {
    const FIN: u8 = TcpFlags::FIN.0;
    const SYN: u8 = TcpFlags::SYN.0;
    const RST: u8 = TcpFlags::RST.0;
    const ACK: u8 = TcpFlags::ACK.0;
    const URG: u8 = TcpFlags::URG.0;
    (1 << SYN)
        | (1 << (SYN | URG))
        | (1 << (SYN | ACK))
        | (1 << RST)
        | (1 << (RST | ACK))
        | (1 << (FIN | ACK))
        | (1 << (FIN | ACK | URG))
        | (1 << ACK)
        | (1 << (ACK | URG))
};

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push: deliver at once.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion was experienced, or the sender of a SYN supports ECN (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Returns whether all flags of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether a TCP may send this combination.
    ///
    /// PSH, ECE and CWR are ignored. Of the other flags, these nine combinations are valid, as in
    /// Linux: SYN, SYN URG, SYN ACK, RST, RST ACK, FIN ACK, FIN ACK URG, ACK, ACK URG. All other
    /// combinations are scans or damage: no flag at all, SYN with FIN or RST, FIN without ACK, RST
    /// with FIN, and so on.
    #[inline]
    #[must_use]
    pub const fn is_valid_combination(self) -> bool {
        let ignored = Self::PSH.0 | Self::ECE.0 | Self::CWR.0;
        (VALID_COMBINATIONS >> (self.0 & !ignored)) & 1 == 1
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A letter per flag, in the order F S R P A U E C: `SA` is SYN with ACK. No flag at all is `-`.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(TcpFlags, &str); 8] = [
            (TcpFlags::FIN, "F"),
            (TcpFlags::SYN, "S"),
            (TcpFlags::RST, "R"),
            (TcpFlags::PSH, "P"),
            (TcpFlags::ACK, "A"),
            (TcpFlags::URG, "U"),
            (TcpFlags::ECE, "E"),
            (TcpFlags::CWR, "C"),
        ];
        if self.0 == 0 {
            return f.write_str("-");
        }
        LETTERS
            .iter()
            .filter(|(flag, _)| self.contains(*flag))
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

#[cfg(test)]
mod tests {
    use super::TcpFlags;

    #[test]
    fn nine_combinations_are_valid_whatever_psh_ece_and_cwr() {
        let (fin, syn, rst) = (TcpFlags::FIN, TcpFlags::SYN, TcpFlags::RST);
        let (ack, urg) = (TcpFlags::ACK, TcpFlags::URG);
        let valid = [
            syn,
            syn | urg,
            syn | ack,
            rst,
            rst | ack,
            fin | ack,
            fin | ack | urg,
            ack,
            ack | urg,
        ];
        for bits in 0..=u8::MAX {
            let expected = valid.contains(&TcpFlags(bits & 0x37));
            assert_eq!(
                TcpFlags(bits).is_valid_combination(),
                expected,
                "{}",
                TcpFlags(bits)
            );
        }
    }

    #[test]
    fn contains_asks_for_all_flags() {
        let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
        assert!(syn_ack.contains(TcpFlags::SYN) && syn_ack.contains(syn_ack));
        assert!(!TcpFlags::ACK.contains(syn_ack));
    }

    #[test]
    fn display_is_a_letter_per_flag() {
        assert_eq!((TcpFlags::SYN | TcpFlags::ACK).to_string(), "SA");
        assert_eq!(TcpFlags(0xff).to_string(), "FSRPAUEC");
        assert_eq!(TcpFlags(0).to_string(), "-");
    }
}
