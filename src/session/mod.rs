//! The session table: shards, slots, timing wheel, eviction.
//!
//! Lock order: a packet takes exactly one shard's lock, and beside it only leaf locks that are held
//! for a few instructions, such as those of the limits. References borrowed from a guard do not
//! leave the callers of this module in the engine; records are copied out.

mod due;
pub(crate) mod end;
mod eviction;
mod handover;
mod hashes;
pub mod history;
pub(crate) mod id;
mod index;
mod judging;
mod lock;
mod outline;
mod paths;
mod record;
mod shard;
mod slot;
#[cfg(test)]
mod spread;
mod stored;
mod table;
pub(crate) mod time;
mod tombstone;
mod wheel;

pub(crate) use due::{Expired, RUN, Steps};
pub(crate) use eviction::Newcomer;
pub(crate) use handover::PutOff;
pub(crate) use hashes::Hashes;
pub(crate) use judging::{Judging, SLICE, Tally, Unjudged};
pub(crate) use paths::{Addresses, Arrival, OnPath, Owner, PathTable};
pub(crate) use shard::{Ended, Kept, Opened, Shard, Slab};
#[cfg(feature = "snapshot")]
pub(crate) use slot::PROTOCOLS_WITH_TRACKS;
pub(crate) use slot::{Cold, Mark, NIL, Slot};
#[cfg(feature = "snapshot")]
pub(crate) use stored::{Refresh, StoredMark};
pub(crate) use table::{
    Held, KeyPlace, Table, session_bytes, stored_mark_bytes, tunnel_reference_bytes,
};
pub(crate) use time::{HEADROOM, Micros, Origin};
pub(crate) use tombstone::{Graveyard, Remembered, Tombstone};

pub use end::EndReason;
pub use id::{SessionId, SessionUid, TunnelRef};
pub(crate) use id::{ShardId, SlotId};
pub use record::{SessionRecord, Traffic};
pub use time::TICK;

pub use crate::flow::{End as FlowEnd, FlowKey, Variant};
pub use crate::track::EvictionClass;
pub use crate::track::datagram::State as DatagramState;
pub use crate::track::dccp::State as DccpState;
pub use crate::track::sctp::State as SctpState;
pub use crate::track::tcp::State as TcpState;

/// Bytes of a session in the slabs of its shard. Its entry in the index is extra (10.3 bytes at the
/// table's maximum load).
pub const SESSION_BYTES: usize = size_of::<slot::Slot>() + size_of::<slot::Cold>();

#[cfg(test)]
pub(crate) mod testing {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::{Kept, Table};
    use crate::flow::{Flow, FlowKey, Zone};
    use crate::limits::{Accounts, Prefixes};
    use crate::packet::{Ip, IpVersion, Parsed, Transport};

    /// Returns the key of a UDP conversation between two hosts, distinguished by `n`.
    pub(crate) fn key(n: u32) -> FlowKey {
        key_in(Zone::DEFAULT, n)
    }

    /// Returns the key of the conversation of [`key`] in a zone.
    pub(crate) fn key_in(zone: Zone, n: u32) -> FlowKey {
        let src = Ipv4Addr::from_bits(0x0a00_0000 | n);
        let dst = Ipv4Addr::from_bits(0xc000_0201);
        key_of(
            zone,
            SocketAddr::from((src, 4000)),
            SocketAddr::from((dst, 53)),
        )
    }

    /// Returns the key of a UDP conversation between two endpoints.
    pub(crate) fn key_of(zone: Zone, src: SocketAddr, dst: SocketAddr) -> FlowKey {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let parsed = Parsed {
            ip: Ip {
                version: match src {
                    SocketAddr::V4(_) => IpVersion::V4,
                    SocketAddr::V6(_) => IpVersion::V6,
                },
                src: bits(src.ip()),
                dst: bits(dst.ip()),
                protocol: 17,
                ttl: 64,
                options: crate::packet::IpOptions::NONE,
                header_len: 20,
                total_len: 28,
            },
            transport: Transport::Udp {
                src_port: src.port(),
                dst_port: dst.port(),
                payload_len: 0,
            },
        };
        Flow::of(zone, &parsed).expect("UDP has a flow").key
    }

    /// Returns an empty table.
    pub(crate) fn table(max_sessions: usize, shards: usize, seed: [u64; 4]) -> Table<()> {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let accounts = Accounts::new(max_sessions, Prefixes::DEFAULT, hasher).unwrap();
        Table::new(
            &Arc::new(accounts),
            shards,
            Kept::default(),
            &Arc::new(()),
            seed,
        )
        .unwrap()
    }
}
