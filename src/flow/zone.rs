//! The address space that a packet belongs to.
use std::fmt;

/// An address space: a GWLB endpoint, or several that the configuration groups.
///
/// Equal addresses and ports in two zones are two sessions. Zone 0 always exists and is called `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zone(pub u16);

impl Zone {
    /// The zone of what is assigned to no other.
    pub const DEFAULT: Self = Self(0);
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
