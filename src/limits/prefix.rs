//! Prefixes by which sources and destinations are counted.

/// The lengths of counted prefixes: all addresses of a prefix are one source, or one destination.
///
/// A host has one IPv4 address, but at least a /64 of IPv6 addresses (RFC 4291 2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefixes {
    /// The length for IPv4, 0 to 32.
    pub(crate) v4: u8,
    /// The length for IPv6, 0 to 128.
    pub(crate) v6: u8,
}

impl Prefixes {
    /// The default lengths: /32 and /64.
    pub(crate) const DEFAULT: Self = Self { v4: 32, v6: 64 };

    /// Returns the first address of the prefix that is counted for an address. The address is the
    /// number that packets and session keys hold: an IPv4 address has 96 bits before it.
    #[inline]
    pub(crate) fn counted(self, address: u128, v6: bool) -> u128 {
        if v6 {
            let host_bits = 128u32.saturating_sub(u32::from(self.v6));
            return address & u128::MAX.checked_shl(host_bits).unwrap_or(0);
        }
        // At most 32 bits: a shift of one word.
        let host_bits = 32u32.saturating_sub(u32::from(self.v4));
        address & (u128::MAX << 64 | u128::from(u64::MAX << host_bits))
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_prefix_are_counted_as_one() {
        let prefixes = Prefixes { v4: 24, v6: 64 };
        let v4 = |last: u128| 0xffff_0a00_0100 | last;
        assert_eq!(prefixes.counted(v4(7), false), v4(0));
        assert_eq!(
            prefixes.counted(v4(7), false),
            prefixes.counted(v4(255), false)
        );
        assert_ne!(
            prefixes.counted(v4(7), false),
            prefixes.counted(v4(512), false)
        );
        let v6 = 0x2001_0db8_0000_0001_0000_0000_0000_0007;
        assert_eq!(prefixes.counted(v6, true), 0x2001_0db8_0000_0001 << 64);
        assert_ne!(
            prefixes.counted(v6, true),
            prefixes.counted(v6 + (1 << 64), true)
        );
    }

    #[test]
    fn lengths_of_nothing_and_of_all_bits_are_exact() {
        let all = Prefixes { v4: 32, v6: 128 };
        assert_eq!(all.counted(0xffff_0a00_0001, false), 0xffff_0a00_0001);
        assert_eq!(all.counted(u128::MAX, true), u128::MAX);
        let none = Prefixes { v4: 0, v6: 0 };
        assert_eq!(none.counted(0xffff_0a00_0001, false), 0xffff_0000_0000);
        assert_eq!(none.counted(u128::MAX, true), 0);
    }
}
