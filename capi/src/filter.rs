//! Filters that select sessions.

use portcullis::policy::{IpNet, PortRange, Protocol};
use portcullis::{SessionFilter, SessionId, Zone};

use crate::raw::{self, Sized32};
use crate::session::Address;
use crate::status::{Outcome, Status};

/// Field of a filter: every session matches, whatever the other fields are.
pub const FILTER_ALL: u32 = 1;

/// Field of a filter: `id` is the session's.
pub const FILTER_ID: u32 = 2;

/// Field of a filter: `zone` is the session's.
pub const FILTER_ZONE: u32 = 4;

/// Field of a filter: `protocol` is the session's.
pub const FILTER_PROTOCOL: u32 = 8;

/// Field of a filter: `source` and `source_prefix` contain the initiator.
pub const FILTER_SOURCE: u32 = 16;

/// Field of a filter: `destination` and `destination_prefix` contain the responder.
pub const FILTER_DESTINATION: u32 = 32;

/// Field of a filter: `port` is that of either end.
pub const FILTER_PORT: u32 = 64;

/// Selects the sessions that match all of the stated fields.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FilterIn {
    /// `sizeof(portcullis_filter)`.
    pub size: u32,
    /// `PORTCULLIS_FILTER_` fields. 0 is invalid, so that a filter of zeros ends no sessions.
    pub fields: u32,
    /// The identifier of a session.
    pub id: u64,
    /// The number of a zone.
    pub zone: u16,
    /// A port.
    pub port: u16,
    /// An IP protocol number.
    pub protocol: u8,
    /// The length of the prefix of `source`.
    pub source_prefix: u8,
    /// The length of the prefix of `destination`.
    pub destination_prefix: u8,
    /// An address in the initiator's prefix.
    pub source: Address,
    /// An address in the responder's prefix.
    pub destination: Address,
    /// 0.
    pub reserved: [u8; 7],
}

// SAFETY: `repr(C)`, with `size` first; every field is a number.
unsafe impl Sized32 for FilterIn {
    const LEAST: usize = 64;
}
const _: () = assert!(size_of::<FilterIn>() == FilterIn::LEAST);

/// Reads a caller's filter.
///
/// # Safety
/// A pointer that is not NULL points to a struct of the size that it states.
pub(crate) unsafe fn read(filter: *const FilterIn) -> Outcome<SessionFilter> {
    // SAFETY: the promise of the caller.
    unsafe { raw::read(filter) }?.filter()
}

impl FilterIn {
    const FIELDS: u32 = FILTER_ALL
        | FILTER_ID
        | FILTER_ZONE
        | FILTER_PROTOCOL
        | FILTER_SOURCE
        | FILTER_DESTINATION
        | FILTER_PORT;

    fn filter(&self) -> Outcome<SessionFilter> {
        let unknown = self.fields & !Self::FIELDS != 0 || self.reserved != [0; 7];
        if unknown || self.fields == 0 {
            return Err(Status::Invalid);
        }
        let mut filter = SessionFilter::default();
        if self.fields & FILTER_ALL != 0 {
            return Ok(filter);
        }
        let has = |field| self.fields & field != 0;
        if has(FILTER_ID) {
            filter.ids = vec![SessionId::from_number(self.id).ok_or(Status::Invalid)?];
        }
        filter.zone = has(FILTER_ZONE).then_some(Zone(self.zone));
        filter.protocol = has(FILTER_PROTOCOL).then_some(Protocol(self.protocol));
        if has(FILTER_SOURCE) {
            filter.source = vec![prefix(&self.source, self.source_prefix)?];
        }
        if has(FILTER_DESTINATION) {
            filter.destination = vec![prefix(&self.destination, self.destination_prefix)?];
        }
        if has(FILTER_PORT) {
            filter.ports = vec![PortRange::single(self.port)];
        }
        Ok(filter)
    }
}

fn prefix(address: &Address, length: u8) -> Outcome<IpNet> {
    IpNet::new(address.ip()?, length).map_err(|_| Status::Invalid)
}
