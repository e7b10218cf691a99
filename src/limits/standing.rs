//! Properties of a session that determine its counts.

use crate::packet::PROTOCOL_TCP;
use crate::track::EvictionClass;

/// Properties of a session that accounts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The session is a TCP connection whose handshake is not complete.
    pub(crate) half_open: bool,
    /// The session is never evicted.
    pub(crate) assured: bool,
}

impl Standing {
    /// Returns the standing of a session by its protocol and eviction class.
    pub(crate) const fn of(protocol: u8, class: EvictionClass) -> Self {
        Self {
            half_open: protocol == PROTOCOL_TCP && matches!(class, EvictionClass::Embryonic),
            assured: matches!(class, EvictionClass::Assured),
        }
    }
}
