//! Zones: address spaces that are kept apart.

/// An address space: a GWLB endpoint, a VLAN, a tenant. The same addresses in two zones are two
/// conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Zone(pub u16);

impl Zone {
    /// Zone of packets whose caller sets none.
    pub const DEFAULT: Self = Self(0);

    /// The zone with the greatest number.
    pub const MAX: Self = Self(u16::MAX);
}

impl core::fmt::Display for Zone {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}
