//! The tunnel ends and endpoints that were seen: bounded tables that only grow.
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Datagram;
use super::settings::random_state;
use crate::config::GeneveConfig;
use crate::geneve::{EndpointId, Metadata};

/// The longest header: 8 bytes and 63 words of options (RFC 8926 section 3.4).
pub(super) const MAX_HEADER: usize = 8 + 63 * 4;
/// What tells ends apart beside the header: two addresses and a port.
const OUTER: usize = 10;

/// All that packets of our own need to go back to where others came from, but for port and cookie.
#[derive(Debug)]
pub(super) struct End {
    pub(super) peer: Ipv4Addr,
    pub(super) local: Ipv4Addr,
    /// The port that the peer sends to.
    pub(super) local_port: u16,
    /// With 0 for the cookie.
    pub(super) header: Box<[u8]>,
    pub(super) cookie_offset: Option<usize>,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) attachment: Option<u64>,
    pub(super) number_of_endpoint: u16,
}

/// An end as a key: outer addresses and port, header without cookie. No allocation.
pub(super) struct EndKey {
    bytes: [u8; OUTER + MAX_HEADER],
    len: usize,
}

impl EndKey {
    /// The key of a datagram whose header is this; `None` for one that is too long.
    pub(super) fn of(datagram: &Datagram<'_>, header: &[u8], cookie: Option<usize>) -> Option<Self> {
        let mut bytes = [0; OUTER + MAX_HEADER];
        let len = OUTER + header.len();
        let (outer, rest) = bytes.split_at_mut_checked(OUTER)?;
        let outside = datagram
            .source
            .octets()
            .into_iter()
            .chain(datagram.destination.octets())
            .chain(datagram.destination_port.to_be_bytes());
        for (byte, value) in outer.iter_mut().zip(outside) {
            *byte = value;
        }
        let copy = rest.get_mut(..header.len())?;
        copy.copy_from_slice(header);
        if let Some(offset) = cookie {
            copy.get_mut(offset..offset + 4)?.fill(0);
        }
        Some(Self { bytes, len })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn header(&self) -> &[u8] {
        self.bytes.get(OUTER..self.len).unwrap_or_default()
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Known {
    /// Number `n` is at place `n - 1`: 0 is nobody's.
    ends: Vec<Arc<End>>,
    numbers: HashMap<Box<[u8]>, u16, ahash::RandomState>,
    max_ends: usize,
    /// Number `n` is at place `n - 1`: 0 are all that found no room, and packets without an endpoint.
    endpoints: Vec<KnownEndpoint>,
    numbers_of_endpoints: HashMap<EndpointId, u16, ahash::RandomState>,
    max_endpoints: usize,
    /// Of number 0.
    ends_of_others: usize,
    /// Packets whose end found no room, as often as somebody asked.
    refused: AtomicU64,
}

#[derive(Debug)]
struct KnownEndpoint {
    id: EndpointId,
    ends: usize,
}

impl Known {
    pub(super) fn new(config: &GeneveConfig) -> Self {
        Self {
            ends: Vec::new(),
            numbers: HashMap::with_hasher(random_state()),
            max_ends: config.max_tunnel_ends as usize,
            endpoints: Vec::new(),
            numbers_of_endpoints: HashMap::with_hasher(random_state()),
            max_endpoints: config.max_endpoints as usize,
            ends_of_others: 0,
            refused: AtomicU64::new(0),
        }
    }

    /// The end of a number.
    pub(super) fn end(&self, number: u16) -> Option<&End> {
        self.ends
            .get(usize::from(number).checked_sub(1)?)
            .map(|end| &**end)
    }

    /// The number of an end that was seen before.
    pub(super) fn find(&self, key: &EndKey) -> Option<u16> {
        self.numbers.get(key.bytes()).copied()
    }

    /// The number of an endpoint that was seen before.
    pub(super) fn endpoint(&self, id: Option<EndpointId>) -> Option<u16> {
        match id {
            Some(id) => self.numbers_of_endpoints.get(&id).copied(),
            None => Some(0),
        }
    }

    /// Takes an end in, if there is room, and its endpoint: their numbers, 0 where there is none.
    pub(super) fn add(&mut self, datagram: &Datagram<'_>, key: &EndKey, metadata: &Metadata) -> (u16, u16) {
        let number_of_endpoint = self.add_endpoint(metadata.endpoint);
        if let Some(number) = self.find(key) {
            return (number, number_of_endpoint);
        }
        let number = u16::try_from(self.ends.len() + 1);
        let (Ok(number), true) = (number, self.has_room(number_of_endpoint)) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return (0, number_of_endpoint);
        };
        *self.ends_of(number_of_endpoint) += 1;
        self.ends.push(Arc::new(End {
            peer: datagram.source,
            local: datagram.destination,
            local_port: datagram.destination_port,
            header: key.header().into(),
            cookie_offset: metadata.cookie.map(|cookie| cookie.offset),
            endpoint: metadata.endpoint,
            attachment: metadata.attachment,
            number_of_endpoint,
        }));
        self.numbers.insert(key.bytes().into(), number);
        (number, number_of_endpoint)
    }

    /// Whether there is room for one more end of an endpoint.
    fn has_room(&self, number_of_endpoint: u16) -> bool {
        let taken = usize::from(number_of_endpoint)
            .checked_sub(1)
            .and_then(|place| self.endpoints.get(place))
            .map_or(self.ends_of_others, |endpoint| endpoint.ends);
        self.ends.len() < self.max_ends && taken < self.max_ends.div_ceil(4)
    }

    fn ends_of(&mut self, number_of_endpoint: u16) -> &mut usize {
        let place = usize::from(number_of_endpoint).checked_sub(1);
        match place.and_then(|place| self.endpoints.get_mut(place)) {
            Some(endpoint) => &mut endpoint.ends,
            None => &mut self.ends_of_others,
        }
    }

    /// The number of the endpoint whose end [`Known::add`] would refuse; `None` where it would take something in.
    pub(super) fn refuses(&self, id: Option<EndpointId>) -> Option<u16> {
        let number = match self.endpoint(id) {
            Some(number) => number,
            None if self.endpoints.len() < self.max_endpoints => return None,
            None => 0,
        };
        if self.has_room(number) {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Some(number)
    }

    /// How often an end found no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn add_endpoint(&mut self, id: Option<EndpointId>) -> u16 {
        if let Some(number) = self.endpoint(id) {
            return number;
        }
        let number = u16::try_from(self.endpoints.len() + 1).unwrap_or(0);
        match id {
            Some(id) if number != 0 && self.endpoints.len() < self.max_endpoints => {
                self.endpoints.push(KnownEndpoint { id, ends: 0 });
                self.numbers_of_endpoints.insert(id, number);
                number
            }
            _ => 0,
        }
    }

    /// How many ends are known.
    pub(super) const fn ends(&self) -> usize {
        self.ends.len()
    }

    /// The endpoints in the order of their numbers, from 1.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.endpoints.iter().map(|endpoint| endpoint.id)
    }

    /// How many endpoints have a number at most.
    pub(super) const fn max_endpoints(&self) -> usize {
        self.max_endpoints
    }
}
