//! Names of sessions and of the tunnels of their packets.

use std::num::NonZeroU64;

/// The name of a session: unique among the sessions of an engine until a slot was taken 2^32 times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The name of a session by its number, which is not 0.
    pub(crate) const fn new(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The name with a number that was read from a log; `None` for 0.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number itself, for logs.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

impl core::fmt::Display for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a packet came in, in the caller's own words: whatever it needs to send a packet back the same way. The engine
/// keeps the newest of each direction and hands it out with the packets that it makes; it never looks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TunnelRef(pub u64);

impl TunnelRef {
    /// Nothing is known; a packet with this changes nothing.
    pub const NONE: Self = Self(0);
}
