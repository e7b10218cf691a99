//! The tunnel ends and endpoints that were seen: bounded tables. An end that nobody uses any more makes room for another one.
//!
//! Endpoint ids are free to choose for whoever can send to us. So what is only seen gets at most
//! half of the places, of all and of each share; the other half is for ends that are proven, by a
//! packet of an answered session that came by them. Nothing is stored of an end that gets no place.
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Datagram;
use super::settings::random_state;
use crate::config::{GeneveConfig, parse_endpoint};
use crate::geneve::{EndpointId, Metadata};

/// The longest header: 8 bytes and 63 words of options (RFC 8926 section 3.4).
pub(super) const MAX_HEADER: usize = 8 + 63 * 4;
/// What tells ends apart beside the header: two addresses and a port.
const OUTER: usize = 10;
/// For how long nothing may have come by an end that makes room for another one. Longer than a load balancer keeps a flow that is
/// idle unless told otherwise, and longer than a worker remembers a header without a look at this table.
const UNUSED: u32 = 600;

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
    /// How often its place was taken by another end before, as far as a reference can tell.
    generation: u16,
    /// The second in which a header of it was last looked up.
    last_used: AtomicU32,
    key: Box<[u8]>,
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
    /// Place `n - 1` is number `n`: 0 is nobody's.
    ends: Vec<End>,
    references: HashMap<Box<[u8]>, u16, ahash::RandomState>,
    max_ends: usize,
    /// How many bits of a reference are the number of a place; the others tell how often that was taken.
    number_bits: u32,
    /// Number `n` is at place `n - 1`: 0 are all that found no room, and packets without an endpoint.
    endpoints: Vec<KnownEndpoint>,
    numbers_of_endpoints: HashMap<EndpointId, u16, ahash::RandomState>,
    max_endpoints: usize,
    /// How many of them the configuration names, or has named.
    named: usize,
    /// Of number 0.
    ends_of_others: usize,
    /// Of endpoints that are not named, number 0 included.
    ends_of_unnamed: usize,
    /// Packets whose end found no room, as often as somebody asked.
    refused: AtomicU64,
    /// Before this second no unused end is found among all, among those that are not named, among those of number 0.
    vain: [AtomicU32; 3],
}

#[derive(Debug)]
struct KnownEndpoint {
    id: EndpointId,
    /// The configuration names it, or has named it.
    named: bool,
    ends: usize,
    /// Before this second no unused end of it is found.
    vain: AtomicU32,
}

/// Standing of a tunnel endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A datagram that may be forged.
    Seen,
    /// A packet of an answered session that passed.
    Proven,
}

impl Standing {
    /// Returns how many of so many places there are for it.
    const fn of(self, places: usize) -> usize {
        match self {
            Self::Seen => places.div_ceil(2),
            Self::Proven => places,
        }
    }
}

/// What is known of a datagram's end, or that there is no room for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The reference of the end, 0 for none.
    pub(super) end: u16,
    /// The number of its endpoint, 0 for none.
    pub(super) endpoint: u16,
    /// There is more to be had for it once it is proven.
    pub(super) may_be_proven: bool,
}

/// Where a new end finds room.
enum Room {
    Free,
    /// In this place, whose end nobody uses any more.
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

    /// Gives the endpoints of a configuration their numbers, so that no other takes them. One that it does not name any more
    /// keeps its own.
    pub(super) fn name(&mut self, config: &GeneveConfig) {
        // In order, so that each start gives the same endpoints the same numbers.
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

    /// The place of a reference, and which of its ends is meant.
    const fn split(&self, reference: u16) -> (usize, u16) {
        let bits = self.number_bits;
        let number = reference as usize & ((1 << bits) - 1);
        (number.wrapping_sub(1), (reference as u32 >> bits) as u16)
    }

    /// The reference of the end in a place.
    const fn reference(&self, place: usize, generation: u16) -> u16 {
        (place + 1) as u16 | ((generation as u32) << self.number_bits) as u16
    }

    /// How many ends of one place a reference tells apart.
    const fn generations(&self) -> u32 {
        1 << 16_u32.saturating_sub(self.number_bits)
    }

    /// The end of a reference; `None` if it has made room for another one.
    pub(super) fn end(&self, reference: u16) -> Option<&End> {
        let (place, generation) = self.split(reference);
        self.ends.get(place).filter(|end| end.generation == generation)
    }

    /// The reference of an end that was seen before. It is used in this second.
    pub(super) fn find(&self, key: &EndKey, second: u32) -> Option<u16> {
        let reference = self.references.get(key.bytes()).copied()?;
        self.end(reference)?.last_used.store(second, Ordering::Relaxed);
        Some(reference)
    }

    /// The number of an endpoint that was seen before.
    pub(super) fn endpoint(&self, id: Option<EndpointId>) -> Option<u16> {
        match id {
            Some(id) => self.numbers_of_endpoints.get(&id).copied(),
            None => Some(0),
        }
    }

    /// The number of an endpoint, 0 if it has none and gets none; `None` if there is one to be had.
    pub(super) fn number_in_force(&self, id: Option<EndpointId>) -> Option<u16> {
        let none = || (!self.has_number(Some(Standing::Seen))).then_some(0);
        self.endpoint(id).or_else(none)
    }

    /// Returns the place of a datagram's end, if nothing needs to be added for it.
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

    /// Takes an end in, if there is room, and its endpoint: its reference and the number of its endpoint, 0 where there is none.
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

    /// Where one more end of an endpoint finds room. No endpoint has more than a quarter of all, nor have those together that
    /// nobody has named where others are named. What is only seen has half of each, and half of all
    /// unless its endpoint is named. What nobody uses any more makes room: one of its own where an
    /// endpoint has its share.
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
            return self.unused(second, vain, |end| end.number_of_endpoint == number_of_endpoint);
        }
        if !is_named && self.named > 0 && self.ends_of_unnamed >= share {
            return self.unused(second, unnamed, |end| !self.is_named(end.number_of_endpoint));
        }
        if self.ends.len() < most {
            return Some(Room::Free);
        }
        self.unused(second, all, |_| true)
    }

    /// The end that was not used for longest, of those that may go. A search in vain says when the next one can find something:
    /// a flood of new ends shall not cost one for each datagram.
    fn unused(&self, second: u32, vain: &AtomicU32, may_go: impl Fn(&End) -> bool) -> Option<Room> {
        // Without a generation a reference of old would mean the new end.
        if self.generations() == 1 || second < vain.load(Ordering::Relaxed) {
            return None;
        }
        let (place, end) = self
            .ends
            .iter()
            .enumerate()
            .filter(|(_, end)| may_go(end))
            .min_by_key(|(_, end)| end.last_used.load(Ordering::Relaxed))?;
        let free = end.last_used.load(Ordering::Relaxed).saturating_add(UNUSED + 1);
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

    /// How many ends an endpoint has.
    fn held_by(&self, number_of_endpoint: u16) -> usize {
        self.endpoint_of(number_of_endpoint)
            .map_or(self.ends_of_others, |endpoint| endpoint.ends)
    }

    /// Notes that an endpoint has one end more or less.
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

    /// How often an end found no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The number of an endpoint, a new one if there is any; 0 for none.
    pub(super) fn add_endpoint(&mut self, id: Option<EndpointId>, standing: Standing) -> u16 {
        id.map_or(0, |id| self.number(id, Some(standing)))
    }

    /// Whether one more endpoint gets a number: one that is named where there is no standing. Those
    /// that nobody has named have places beside those of the others.
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
        // What came of it before was counted among the others.
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

    /// How many ends are known.
    pub(super) const fn ends(&self) -> usize {
        self.ends.len()
    }

    /// The endpoints in the order of their numbers, from 1.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.endpoints.iter().map(|endpoint| endpoint.id)
    }

    /// How many endpoints have a number at most: as many as can be named, and half as many that are not.
    pub(super) const fn max_numbers(&self) -> usize {
        let numbers = self.max_endpoints + self.max_endpoints.div_ceil(2);
        if numbers < u16::MAX as usize {
            numbers
        } else {
            u16::MAX as usize
        }
    }
}
