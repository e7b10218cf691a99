//! Names of held fragments.

use std::num::NonZeroU64;

/// Identifier of the fragments of one datagram that are held until its first fragment arrives.
///
/// An identifier is unique within 2^48 datagrams of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(NonZeroU64);

impl HoldId {
    /// Number of bits below the number in the table.
    const SERIAL_BITS: u32 = 48;

    pub(super) const fn new(number: u32, serial: u64) -> Self {
        let serial = serial & ((1 << Self::SERIAL_BITS) - 1);
        // Both are 0 once in 2^48 datagrams at most.
        match NonZeroU64::new((number as u64) << Self::SERIAL_BITS | serial) {
            Some(id) => Self(id),
            None => Self(NonZeroU64::MAX),
        }
    }

    pub(super) const fn number(self) -> u32 {
        (self.0.get() >> Self::SERIAL_BITS) as u32
    }
}

impl core::fmt::Display for HoldId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
