//! A packet between parsing and verdict.

use std::time::Instant;

use super::screen::Screen;
use super::settings::Settings;
use crate::flow::Flow;
use crate::limits::SourceHash;
use crate::packet::{self, Parsed, Transport};
use crate::session::{KeyPlace, Micros, TunnelRef};
use crate::verdict::DropReason;

/// A packet's flow, and the location of its key in the table.
#[derive(Clone, Copy)]
pub(super) struct Located {
    pub(super) flow: Flow,
    pub(super) place: KeyPlace,
    /// The hash of the counts of the packet's sender, if they were prefetched.
    pub(super) source: Option<SourceHash>,
    /// The time of the packet.
    pub(super) now: Micros,
}

/// A packet between parsing and verdict.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'p> {
    /// Bytes of the packet; a helper reads its payload.
    pub(super) bytes: &'p [u8],
    pub(super) parsed: &'p Parsed,
    pub(super) flow: Flow,
    /// The hash of the counts of an end of `flow`, if it is known.
    pub(super) source: Option<SourceHash>,
    pub(super) now: Micros,
    /// The time `now`, as the caller passed it.
    pub(super) instant: Instant,
    pub(super) tunnel: TunnelRef,
    /// Bits of `tunnel` that identify a flow.
    pub(super) flow_bits: u64,
    /// Settings by which the packet's IP header was judged.
    pub(super) screen: Screen,
    /// The packet comes from a tunnel.
    pub(super) tunneled: bool,
    /// Checksums are present: no interface fills them in later.
    pub(super) has_checksums: bool,
    /// The packet's session was searched for in other zones and was not found.
    pub(super) searched: bool,
    /// The packet must not open a session.
    pub(super) sheddable: bool,
    /// The packet may be held until a question about its session is answered.
    pub(super) can_ask: bool,
}

impl<'p> Candidate<'p> {
    /// Returns the payload if all of it is available; `None` for a fragment.
    pub(super) fn payload(&self) -> Option<&'p [u8]> {
        (!self.bytes.is_empty()).then(|| self.parsed.payload(self.bytes))
    }
}

/// Judges a packet by the settings of its shard if a reload has exchanged them since the packet was
/// parsed.
#[cold]
#[inline(never)]
pub(super) fn screened_anew(candidate: &Candidate<'_>, settings: &Settings) -> Option<DropReason> {
    let (before, now) = (candidate.screen.checksums(), settings.screen.checksums());
    if candidate.has_checksums
        && now != before
        && let Err(malformed) = packet::parse(candidate.bytes, now)
    {
        return Some(DropReason::Malformed(malformed));
    }
    settings.screen.check(candidate.parsed, candidate.tunneled)
}

/// Returns the identifier of a packet's tunnel.
pub(super) const fn tunnel_id(transport: &Transport) -> Option<u32> {
    match transport {
        Transport::Gre { key, .. } => key.number(),
        Transport::Esp { spi } | Transport::Ah { spi } => Some(*spi),
        _ => None,
    }
}
