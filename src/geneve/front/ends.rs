//! Bounded tables of the tunnel endpoints and endpoints of received datagrams. An unused tunnel
//! endpoint makes room for another one.
//!
//! Any sender that can reach the appliance can choose endpoint IDs freely. Unproven tunnel
//! endpoints therefore get at most half of the slots, overall and of each share. The other half is
//! for proven ones, through which a packet of an answered session arrived. Nothing is stored for a
//! tunnel endpoint without a slot.
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Datagram;
use super::settings::random_state;
use crate::config::{GeneveConfig, parse_endpoint};
use crate::geneve::{EndpointId, Metadata};

/// The longest header: 8 bytes and 63 words of options (RFC 8926 section 3.4).
pub(super) const MAX_HEADER: usize = 8 + 63 * 4;
/// The size of the key beside the header: two addresses and a port.
const OUTER: usize = 10;
/// The idle time, in seconds, after which a tunnel endpoint may be evicted. It is longer than the
/// default idle timeout of a load balancer's flow, and longer than a worker caches a header
/// without a lookup in this table.
const UNUSED: u32 = 600;

/// The state that the engine's own packets need for the return path, except port and cookie.
#[derive(Debug)]
pub(super) struct End {
    pub(super) peer: Ipv4Addr,
    pub(super) local: Ipv4Addr,
    /// The UDP port to which the peer sends.
    pub(super) local_port: u16,
    /// The header, with 0 for the cookie.
    pub(super) header: Box<[u8]>,
    pub(super) cookie_offset: Option<usize>,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) attachment: Option<u64>,
    pub(super) number_of_endpoint: u16,
    /// The number of earlier evictions from its slot, modulo the number that a reference can
    /// represent.
    generation: u16,
    /// The second in which one of its headers was last looked up.
    last_used: AtomicU32,
    key: Box<[u8]>,
}

/// A tunnel endpoint as a key: outer addresses and port, header without cookie. No allocation.
pub(super) struct EndKey {
    bytes: [u8; OUTER + MAX_HEADER],
    len: usize,
}

impl EndKey {
    /// Returns the key of a datagram with this header; `None` if the header is too long.
    pub(super) fn of(
        datagram: &Datagram<'_>,
        header: &[u8],
        cookie: Option<usize>,
    ) -> Option<Self> {
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

/// The tunnel endpoints and endpoints of received datagrams.
#[derive(Debug)]
pub(super) struct Known {
    /// The tunnel endpoints. Number `n` is at index `n - 1`; number 0 is unused.
    ends: Vec<End>,
    references: HashMap<Box<[u8]>, u16, ahash::RandomState>,
    max_ends: usize,
    /// The number of bits of a reference that are the number of a slot. The other bits count the
    /// evictions from the slot.
    number_bits: u32,
    /// The endpoints. Number `n` is at index `n - 1`; number 0 represents all that found no room,
    /// and packets without an endpoint.
    endpoints: Vec<KnownEndpoint>,
    numbers_of_endpoints: HashMap<EndpointId, u16, ahash::RandomState>,
    max_endpoints: usize,
    /// The number of endpoints that the configuration names, or has named.
    named: usize,
    /// The number of tunnel endpoints of endpoint number 0.
    ends_of_others: usize,
    /// The number of tunnel endpoints of unnamed endpoints, number 0 included.
    ends_of_unnamed: usize,
    /// The number of lookups for which a tunnel endpoint found no room.
    refused: AtomicU64,
    /// The seconds before which a search for an unused tunnel endpoint finds none: among all, among
    /// those of unnamed endpoints, among those of number 0.
    vain: [AtomicU32; 3],
}

#[derive(Debug)]
struct KnownEndpoint {
    id: EndpointId,
    /// Whether the configuration names the endpoint, or has named it.
    named: bool,
    ends: usize,
    /// The second before which a search for an unused tunnel endpoint of this endpoint finds none.
    vain: AtomicU32,
}

/// Standing of a tunnel endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Unproven: only in datagrams that may be forged.
    Seen,
    /// Proven by a forwarded packet of an answered session.
    Proven,
}

impl Standing {
    /// Returns the number of `places` that are available for this standing.
    const fn of(self, places: usize) -> usize {
        match self {
            Self::Seen => places.div_ceil(2),
            Self::Proven => places,
        }
    }
}

/// The result of the lookup of a datagram's tunnel endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The reference of the tunnel endpoint, 0 for none.
    pub(super) end: u16,
    /// The number of its endpoint, 0 for none.
    pub(super) endpoint: u16,
    /// Whether a proven packet would get a slot or number that it does not have yet.
    pub(super) may_be_proven: bool,
}

/// The slot for a new tunnel endpoint.
enum Room {
    Free,
    /// The slot of an unused tunnel endpoint.
    Instead(usize),
}

impl Known {
    pub(super) fn new(config: &GeneveConfig) -> Self {
        let mut known = Self {
            ends: Vec::new(),
            references: HashMap::with_hasher(random_state()),
            max_ends: config.max_tunnel_ends as usize,
            number_bits: (config.max_tunnel_ends + 1).next_power_of_two().ilog2(),
            endpoints: Vec::new(),
            numbers_of_endpoints: HashMap::with_hasher(random_state()),
            max_endpoints: config.max_endpoints as usize,
            named: 0,
            ends_of_others: 0,
            ends_of_unnamed: 0,
            refused: AtomicU64::new(0),
            vain: [const { AtomicU32::new(0) }; 3],
        };
        known.name(config);
        known
    }

    /// Assigns numbers to the endpoints of a configuration, so that no other endpoints take them.
    /// An endpoint that the configuration no longer names keeps its number.
    pub(super) fn name(&mut self, config: &GeneveConfig) {
        // The set is ordered, so that each start assigns the same numbers to the same endpoints.
        let named: BTreeSet<_> = config
            .endpoints
            .keys()
            .filter_map(|id| parse_endpoint(id))
            .collect();
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| endpoint.named) {
            if !named.contains(&endpoint.id) {
                endpoint.named = false;
                self.named -= 1;
                self.ends_of_unnamed += endpoint.ends;
            }
        }
        for id in named {
            let number = self.number(id, None);
            if let Some(place) = usize::from(number).checked_sub(1)
                && let Some(endpoint) = self.endpoints.get_mut(place)
                && !endpoint.named
            {
                endpoint.named = true;
                self.named += 1;
                self.ends_of_unnamed -= endpoint.ends;
            }
        }
    }

    /// Returns the slot of a reference, and the generation of its tunnel endpoint.
    const fn split(&self, reference: u16) -> (usize, u16) {
        let bits = self.number_bits;
        let number = reference as usize & ((1 << bits) - 1);
        (number.wrapping_sub(1), (reference as u32 >> bits) as u16)
    }

    /// Returns the reference of the tunnel endpoint in a slot.
    const fn reference(&self, place: usize, generation: u16) -> u16 {
        (place + 1) as u16 | ((generation as u32) << self.number_bits) as u16
    }

    /// Returns the number of generations of one slot that a reference can distinguish.
    const fn generations(&self) -> u32 {
        1 << 16_u32.saturating_sub(self.number_bits)
    }

    /// Returns the tunnel endpoint of a reference; `None` if it was evicted.
    pub(super) fn end(&self, reference: u16) -> Option<&End> {
        let (place, generation) = self.split(reference);
        self.ends
            .get(place)
            .filter(|end| end.generation == generation)
    }

    /// Returns the reference of a known tunnel endpoint, and marks it as used in this second.
    pub(super) fn find(&self, key: &EndKey, second: u32) -> Option<u16> {
        let reference = self.references.get(key.bytes()).copied()?;
        self.end(reference)?
            .last_used
            .store(second, Ordering::Relaxed);
        Some(reference)
    }

    /// Returns the number of a known endpoint.
    pub(super) fn endpoint(&self, id: Option<EndpointId>) -> Option<u16> {
        match id {
            Some(id) => self.numbers_of_endpoints.get(&id).copied(),
            None => Some(0),
        }
    }

    /// Returns the number of an endpoint, or 0 if it has none and cannot get one. Returns `None` if
    /// a number is available for it.
    pub(super) fn number_in_force(&self, id: Option<EndpointId>) -> Option<u16> {
        let none = || (!self.has_number(Some(Standing::Seen))).then_some(0);
        self.endpoint(id).or_else(none)
    }

    /// Returns the slot of a datagram's tunnel endpoint, if nothing needs to be added for it.
    pub(super) fn place(&self, key: &EndKey, id: Option<EndpointId>, second: u32) -> Option<Place> {
        let endpoint = self.number_in_force(id)?;
        let end = self.find(key, second);
        if end.is_none() && self.room(endpoint, second, Standing::Seen).is_some() {
            return None;
        }
        let finds_room = || self.room(endpoint, second, Standing::Proven).is_some();
        let gets_number = endpoint == 0 && id.is_some() && self.has_number(Some(Standing::Proven));
        if end.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Some(Place {
            end: end.unwrap_or(0),
            endpoint,
            may_be_proven: gets_number || end.is_none() && finds_room(),
        })
    }

    /// Adds a tunnel endpoint and its endpoint, if there is room. Returns the tunnel endpoint's
    /// reference and the endpoint's number, each 0 if it does not exist.
    pub(super) fn add(
        &mut self,
        datagram: &Datagram<'_>,
        key: &EndKey,
        metadata: &Metadata,
        second: u32,
        standing: Standing,
    ) -> (u16, u16) {
        let number_of_endpoint = self.add_endpoint(metadata.endpoint, standing);
        if let Some(reference) = self.find(key, second) {
            return (reference, number_of_endpoint);
        }
        let Some(room) = self.room(number_of_endpoint, second, standing) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return (0, number_of_endpoint);
        };
        self.hold(number_of_endpoint, 1);
        let mut end = End {
            peer: datagram.source,
            local: datagram.destination,
            local_port: datagram.destination_port,
            header: key.header().into(),
            cookie_offset: metadata.cookie.map(|cookie| cookie.offset),
            endpoint: metadata.endpoint,
            attachment: metadata.attachment,
            number_of_endpoint,
            generation: 0,
            last_used: AtomicU32::new(second),
            key: key.bytes().into(),
        };
        let generations = self.generations();
        let reference = match room {
            Room::Free => {
                self.ends.push(end);
                self.reference(self.ends.len() - 1, 0)
            }
            Room::Instead(place) => {
                let Some(former) = self.ends.get_mut(place) else {
                    return (0, number_of_endpoint);
                };
                end.generation = ((u32::from(former.generation) + 1) % generations) as u16;
                let generation = end.generation;
                let former = std::mem::replace(former, end);
                self.references.remove(&former.key);
                self.hold(former.number_of_endpoint, -1);
                self.reference(place, generation)
            }
        };
        self.references.insert(key.bytes().into(), reference);
        (reference, number_of_endpoint)
    }

    /// Returns the room for one more tunnel endpoint of an endpoint.
    ///
    /// No endpoint has more than a quarter of all slots. If the configuration names endpoints, all
    /// unnamed ones together have no more than a quarter either. Unproven tunnel endpoints have
    /// half of each share, and half of all slots unless their endpoint is named.
    ///
    /// Unused tunnel endpoints make room. An endpoint that has used up its share evicts one of its
    /// own.
    fn room(&self, number_of_endpoint: u16, second: u32, standing: Standing) -> Option<Room> {
        let share = standing.of(self.max_ends.div_ceil(4));
        let is_named = self.is_named(number_of_endpoint);
        let most = if is_named {
            self.max_ends
        } else {
            standing.of(self.max_ends)
        };
        let [all, unnamed, of_others] = &self.vain;
        if self.held_by(number_of_endpoint) >= share {
            let endpoint = self.endpoint_of(number_of_endpoint);
            let vain = endpoint.map_or(of_others, |endpoint| &endpoint.vain);
            return self.unused(second, vain, |end| {
                end.number_of_endpoint == number_of_endpoint
            });
        }
        if !is_named && self.named > 0 && self.ends_of_unnamed >= share {
            return self.unused(second, unnamed, |end| {
                !self.is_named(end.number_of_endpoint)
            });
        }
        if self.ends.len() < most {
            return Some(Room::Free);
        }
        self.unused(second, all, |_| true)
    }

    /// Returns the least recently used of the tunnel endpoints that may be evicted.
    ///
    /// A search without a result records when the next one can succeed, so that a flood of new
    /// tunnel endpoints does not cost a search for each datagram.
    fn unused(&self, second: u32, vain: &AtomicU32, may_go: impl Fn(&End) -> bool) -> Option<Room> {
        // Without generations, an old reference would denote the new tunnel endpoint.
        if self.generations() == 1 || second < vain.load(Ordering::Relaxed) {
            return None;
        }
        let (place, end) = self
            .ends
            .iter()
            .enumerate()
            .filter(|(_, end)| may_go(end))
            .min_by_key(|(_, end)| end.last_used.load(Ordering::Relaxed))?;
        let free = end
            .last_used
            .load(Ordering::Relaxed)
            .saturating_add(UNUSED + 1);
        if second < free {
            vain.store(free, Ordering::Relaxed);
            return None;
        }
        Some(Room::Instead(place))
    }

    fn endpoint_of(&self, number: u16) -> Option<&KnownEndpoint> {
        self.endpoints.get(usize::from(number).checked_sub(1)?)
    }

    fn is_named(&self, number_of_endpoint: u16) -> bool {
        self.endpoint_of(number_of_endpoint)
            .is_some_and(|endpoint| endpoint.named)
    }

    /// Returns the number of tunnel endpoints of an endpoint.
    fn held_by(&self, number_of_endpoint: u16) -> usize {
        self.endpoint_of(number_of_endpoint)
            .map_or(self.ends_of_others, |endpoint| endpoint.ends)
    }

    /// Adjusts the number of tunnel endpoints of an endpoint by `change`.
    fn hold(&mut self, number_of_endpoint: u16, change: isize) {
        let place = usize::from(number_of_endpoint).checked_sub(1);
        let (named, ends) = match place.and_then(|place| self.endpoints.get_mut(place)) {
            Some(endpoint) => (endpoint.named, &mut endpoint.ends),
            None => (false, &mut self.ends_of_others),
        };
        *ends = ends.saturating_add_signed(change);
        if !named {
            self.ends_of_unnamed = self.ends_of_unnamed.saturating_add_signed(change);
        }
    }

    /// Returns the number of times that a tunnel endpoint found no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the number of an endpoint, a new one if one is available; 0 for none.
    pub(super) fn add_endpoint(&mut self, id: Option<EndpointId>, standing: Standing) -> u16 {
        id.map_or(0, |id| self.number(id, Some(standing)))
    }

    /// Returns whether one more endpoint gets a number; without a standing, one that is named.
    /// Unnamed endpoints have slots in addition to those of named ones.
    fn has_number(&self, standing: Option<Standing>) -> bool {
        let unnamed = self.endpoints.len() - self.named;
        let most = standing.map(|standing| standing.of(self.max_endpoints.div_ceil(2)));
        self.endpoints.len() < self.max_numbers() && most.is_none_or(|most| unnamed < most)
    }

    fn number(&mut self, id: EndpointId, standing: Option<Standing>) -> u16 {
        if let Some(number) = self.numbers_of_endpoints.get(&id) {
            return *number;
        }
        let number = u16::try_from(self.endpoints.len() + 1).unwrap_or(0);
        if number == 0 || !self.has_number(standing) {
            return 0;
        }
        self.endpoints.push(KnownEndpoint {
            id,
            named: false,
            ends: 0,
            vain: AtomicU32::new(0),
        });
        self.numbers_of_endpoints.insert(id, number);
        // The tunnel endpoints of this endpoint had number 0 before.
        for end in self.ends.iter_mut().filter(|end| end.endpoint == Some(id)) {
            end.number_of_endpoint = number;
        }
        let own = self
            .ends
            .iter()
            .filter(|end| end.number_of_endpoint == number)
            .count();
        self.ends_of_others -= own;
        if let Some(endpoint) = self.endpoints.last_mut() {
            endpoint.ends = own;
        }
        number
    }

    /// Returns the number of known tunnel endpoints.
    pub(super) const fn ends(&self) -> usize {
        self.ends.len()
    }

    /// Returns the endpoints in the order of their numbers, from 1.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.endpoints.iter().map(|endpoint| endpoint.id)
    }

    /// Returns the largest number of endpoints with a number: as many as can be named, and half as
    /// many unnamed ones.
    pub(super) const fn max_numbers(&self) -> usize {
        let numbers = self.max_endpoints + self.max_endpoints.div_ceil(2);
        if numbers < u16::MAX as usize {
            numbers
        } else {
            u16::MAX as usize
        }
    }
}
