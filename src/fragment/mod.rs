//! Fragments, their datagrams and the decisions about them.
//!
//! This is virtual reassembly: the engine keeps no payload. The first fragment of a datagram, the
//! one with offset 0 and the transport header, takes the normal path of a packet. The decision
//! about the first fragment is stored here and applies to later fragments. Only their position is
//! checked, against the [bytes](MAX_RANGES) that have passed: a fragment that overlaps others,
//! contradicts the datagram's end or arrives too late is dropped.
//!
//! **Before the first.** A fragment that arrives before the first of its datagram cannot be decided
//! yet. A caller that can keep the packet marks it with
//! [`Packet::can_hold`](crate::Packet::can_hold) and gets [`Verdict::Hold`](crate::Verdict::Hold).
//! The caller submits the packet again, unmarked, as soon as
//! [`Sink::released`](crate::Sink::released) names its [`HoldId`] or
//! [`FragmentsConfig::hold`](crate::config::FragmentsConfig::hold) has passed. Only then is the
//! fragment decided, like a later fragment that arrives at that moment.
//! [`HeldPackets`](crate::HeldPackets) stores such packets. For all other callers such a fragment
//! is dropped.
//!
//! **Bounds.** Incomplete datagrams and held fragments are bounded in total and by source prefix
//! ([`FragmentsConfig`](crate::config::FragmentsConfig)), and a new one is never refused. A source
//! at its own bound loses its oldest datagram. A full table evicts the oldest datagram of the
//! source with the most, in the zone with the most. If none of that zone's sources has more than an
//! eighth of the limit for one source, the oldest datagram of the zone is evicted. The reasons for
//! which datagrams were evicted or refused are remembered, for a quarter as many datagrams in
//! addition.
//!
//! **Locks.** One mutex guards everything. It is locked once for each fragment (twice for a first
//! fragment), for a few instructions, and never together with a session's shard. The lock covers
//! the choice between following the first fragment's decision and waiting for it, so no fragment is
//! forgotten.

mod chain;
pub(crate) mod id;
mod ledger;
mod ranges;
mod ranks;
mod table;

#[cfg(test)]
mod tests;

use crate::flow::Zone;
use crate::packet::{Fragment, Ip, IpVersion};

pub use id::HoldId;
pub(crate) use table::{Arrival, Datagrams, Fate, Followed, Joined, LaterFragment};

/// Maximum number of fragments of a datagram. 65535 bytes over links with 576 bytes, the smallest
/// MTU that IPv4 hosts must accept (RFC 791), are 119 fragments.
pub(crate) const MAX_FRAGMENTS: u16 = 128;

/// Maximum number of separate ranges of bytes of a datagram, with gaps between them. Fragments that
/// arrive in order make one range.
pub(crate) const MAX_RANGES: usize = 16;

/// Fields that all fragments of a datagram share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Source address, in the form of [`Ip::src`].
    pub src: u128,
    /// Destination address, in the form of [`Ip::dst`].
    pub dst: u128,
    /// The identification.
    pub id: u32,
    /// The zone.
    pub zone: u16,
    /// IPv4: the protocol (RFC 791). IPv6: 0, since later fragments may name another header (RFC
    /// 8200, section 4.5).
    pub protocol: u8,
    /// Whether it is IPv6.
    pub v6: bool,
}

impl DatagramKey {
    /// Returns the datagram of a fragment.
    #[must_use]
    pub const fn of(zone: Zone, ip: &Ip, fragment: &Fragment) -> Self {
        let (protocol, v6) = match ip.version {
            IpVersion::V4 => (ip.protocol, false),
            IpVersion::V6 => (0, true),
        };
        Self {
            src: ip.src,
            dst: ip.dst,
            id: fragment.id,
            zone: zone.0,
            protocol,
            v6,
        }
    }
}

impl core::fmt::Display for DatagramKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let version = if self.v6 {
            IpVersion::V6
        } else {
            IpVersion::V4
        };
        write!(
            f,
            "datagram {:#x} {} -> {}",
            self.id,
            version.address(self.src),
            version.address(self.dst)
        )?;
        if !self.v6 {
            write!(f, " protocol {}", self.protocol)?;
        }
        write!(f, " zone {}", self.zone)
    }
}
