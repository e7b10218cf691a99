//! Fragments, their datagrams and the decisions about them.
//!
//! This is virtual reassembly: the engine keeps no payload. The first fragment of a datagram, the
//! one with offset 0 and the transport header, takes the normal path of a packet. The decision
//! about it is kept here, and later fragments follow it. Only their position is checked, by the
//! [bytes](MAX_RANGES) that have passed: a fragment that overlaps others, contradicts the
//! datagram's end or comes too late is dropped.
//!
//! **Before the first.** A fragment that comes before the first of its datagram cannot be decided
//! yet. A caller that can keep it says so with [`Packet::can_hold`](crate::Packet::can_hold), gets
//! [`Verdict::Hold`](crate::Verdict::Hold), and hands the packet in again, without that, as soon as
//! [`Sink::released`](crate::Sink::released) names its [`HoldId`] or
//! [`FragmentsConfig::hold`](crate::config::FragmentsConfig::hold) has passed. Only then it is
//! decided, like a later fragment that comes at that moment. [`HeldPackets`](crate::HeldPackets)
//! keeps packets for that. For all other callers such a fragment is dropped.
//!
//! **Bounds.** Incomplete datagrams and held fragments are bounded in total and by source prefix
//! ([`FragmentsConfig`](crate::config::FragmentsConfig)), and a new one is never refused. At its
//! own bound a source gives up its own oldest datagram. A full table gives up the oldest datagram
//! of the source that has most, in the zone that has most; or the oldest one of that zone, if none
//! of its sources has more than an eighth of the limit for one source. The reason for which a
//! datagram was given up or refused is remembered, for a quarter as many datagrams beside the
//! others.
//!
//! **Locks.** One mutex guards everything. It is taken once for each fragment (twice for a first
//! one), for a few instructions, and never with a session's shard. The lock covers the choice
//! between following the first fragment's decision and waiting for it, so no fragment is forgotten.

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

/// The most fragments that a datagram may come in. 65535 bytes over links with the least MTU that
/// IPv4 hosts must take, 576 bytes (RFC 791), are 119.
pub(crate) const MAX_FRAGMENTS: u16 = 128;

/// The most separate ranges of bytes that a datagram may have while parts are missing between them.
/// Fragments that arrive in order make one.
pub(crate) const MAX_RANGES: usize = 16;

/// Fields that all fragments of a datagram share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Source address, in the form of [`Ip::src`].
    pub src: u128,
    /// Destination address, in the same form.
    pub dst: u128,
    /// The identification.
    pub id: u32,
    /// The zone.
    pub zone: u16,
    /// IPv4: the protocol (RFC 791). IPv6: 0, since the later fragments may name another header
    /// (RFC 8200, section 4.5).
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
