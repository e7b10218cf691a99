//! Fragments: which datagram each belongs to, and what was decided of that datagram.
//!
//! This is virtual reassembly: no payload is kept and no fragment is held back. The first fragment of a datagram, the
//! one with offset 0 and the transport header, goes the way of every packet; what is decided of it is kept here, and
//! the fragments that come later follow it. Of these only their place is checked, by the [bytes](MAX_RANGES) that
//! have passed: what overlaps, contradicts the datagram's end, comes before the first or too late is dropped.
//!
//! A datagram is forgotten when its last byte has passed, or when its lifetime is over. How many there are at once, in
//! all and of one source address, is bounded ([`FragmentsConfig`](crate::config::FragmentsConfig)). At most a
//! quarter of all are remembered for having been refused, so that what the policy denies does not crowd out what
//! it allows; a datagram beyond that is simply not known, and its fragments are dropped for that.
//!
//! Locks: the datagrams and the counts per source are `dashmap`s, the order of expiry a list behind a mutex. Each is
//! taken alone, for a few instructions, and never with a session's shard. Who removes a datagram from its map, and
//! nobody else, takes it off the list and out of the counts.

mod queue;
mod ranges;
mod table;

#[cfg(test)]
mod tests;

use crate::flow::Zone;
use crate::packet::{Fragment, Ip, IpVersion};

pub(crate) use table::{Datagrams, Fate, Followed, Joined, Part};

/// The most fragments that a datagram may come in. 65535 bytes over links with the least MTU that IPv4 hosts must
/// take, 576 bytes (RFC 791), are 119.
pub const MAX_FRAGMENTS: u16 = 128;

/// The most separate ranges of bytes that a datagram may have while parts are missing between them. Fragments that
/// arrive in order make one.
pub const MAX_RANGES: usize = 16;

/// What the fragments of one datagram have in common.
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
    /// IPv4: the protocol (RFC 791). IPv6: 0, since the later fragments may name another header (RFC 8200, section
    /// 4.5).
    pub protocol: u8,
    /// Whether it is IPv6.
    pub v6: bool,
}

impl DatagramKey {
    /// The datagram of a fragment.
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
        let version = if self.v6 { IpVersion::V6 } else { IpVersion::V4 };
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
