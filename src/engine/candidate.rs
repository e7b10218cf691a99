//! A packet between parsing and verdict.

use std::time::Instant;

use super::screen::Screen;
use super::settings::Settings;
use crate::flow::Flow;
use crate::packet::{self, Parsed, Transport};
use crate::session::{Micros, Place, TunnelRef};
use crate::verdict::DropReason;

/// A packet's flow, and where its session is, if it is there.
#[derive(Clone, Copy)]
pub(super) struct Located {
    pub(super) flow: Flow,
    pub(super) place: Place,
}

/// A packet between parsing and verdict.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'p> {
    /// What a helper reads of its payload.
    pub(super) bytes: &'p [u8],
    pub(super) parsed: &'p Parsed,
    pub(super) flow: Flow,
    pub(super) now: Micros,
    /// The same moment as the caller said it.
    pub(super) instant: Instant,
    pub(super) tunnel: TunnelRef,
    /// What of it names a flow.
    pub(super) flow_bits: u64,
    /// The settings by which its IP header was judged.
    pub(super) screen: Screen,
    /// It says that it comes from a tunnel.
    pub(super) tunneled: bool,
    /// Its checksums count: an interface is not to fill them in later.
    pub(super) has_checksums: bool,
    /// Its session was looked for in other zones, and is in none.
    pub(super) searched: bool,
    /// It must not open a session.
    pub(super) sheddable: bool,
}

impl<'p> Candidate<'p> {
    /// The payload, if all of it is here: not that of a fragment.
    pub(super) fn payload(&self) -> Option<&'p [u8]> {
        (!self.bytes.is_empty()).then(|| self.parsed.payload(self.bytes))
    }
}

/// Judges a packet by the settings of its shard, which a reload has exchanged since it was parsed.
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

/// What a packet calls its tunnel.
pub(super) const fn tunnel_id(transport: &Transport) -> Option<u32> {
    match transport {
        Transport::Gre { key, .. } => key.number(),
        Transport::Esp { spi } | Transport::Ah { spi } => Some(*spi),
        _ => None,
    }
}
