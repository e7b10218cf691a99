//! The session table: shards, slots, timing wheel, eviction.
//!
//! Lock order: a packet takes exactly one shard's lock, and beside it only leaf locks that are held
//! for a few instructions, such as those of [`crate::limits`]. Nothing that a guard borrows leaves
//! this module's callers in `crate::engine`; records are copied out.

mod eviction;
pub mod history;
mod index;
mod judging;
mod paths;
mod shard;
mod slot;
mod table;
mod time;
mod tombstone;
mod wheel;

use std::num::NonZeroU64;

pub(crate) use eviction::Newcomer;
pub(crate) use judging::{Judging, Tally, Unjudged};
pub(crate) use paths::{Addresses, Arrival, OnPath, Owner, PathTable};
pub(crate) use shard::{Ended, Expired, Shard};
pub(crate) use slot::{Cold, Mark, PROTOCOLS_WITH_TRACKS, Slot};
pub(crate) use table::{Held, Place, SLICE, Table, session_bytes, tunnel_reference_bytes};
pub(crate) use time::{HEADROOM, Micros, Origin};
pub(crate) use tombstone::{Graveyard, Remembered, Tombstone};

pub use time::TICK;

/// Bytes that a session takes in the slabs of its shard; its place in the index comes on top (10.3 bytes at
/// the table's greatest load).
pub const SESSION_BYTES: usize = size_of::<slot::Slot>() + size_of::<slot::Cold>();

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

/// What a packet came in, in the caller's own words: whatever it needs to send a packet back the same way. The engine
/// keeps the newest of each direction and hands it out with the packets that it makes; it never looks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TunnelRef(pub u64);

impl TunnelRef {
    /// Nothing is known; a packet with this changes nothing.
    pub const NONE: Self = Self(0);
}

impl core::fmt::Display for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::flow::{Flow, FlowKey, Zone};
    use crate::packet::{Ip, IpVersion, Parsed, Transport};

    /// A UDP conversation between two hosts, told apart by `n`.
    pub(crate) fn key(n: u32) -> FlowKey {
        key_in(Zone::DEFAULT, n)
    }

    /// The same conversation in a zone.
    pub(crate) fn key_in(zone: Zone, n: u32) -> FlowKey {
        let parsed = Parsed {
            ip: Ip {
                version: IpVersion::V4,
                src: 0xffff_0a00_0000 | u128::from(n),
                dst: 0xffff_c000_0201,
                protocol: 17,
                ttl: 64,
                options: crate::packet::IpOptions::NONE,
                header_len: 20,
                total_len: 28,
            },
            transport: Transport::Udp {
                src_port: 4000,
                dst_port: 53,
                payload_len: 0,
            },
        };
        Flow::of(zone, &parsed).expect("UDP has a flow").key
    }
}
