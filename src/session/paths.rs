//! Further paths of SCTP associations: the addresses that their ends have announced.
//!
//! An association is one session, that of the addresses of its handshake. Packets between other
//! addresses of its ends (RFC 9260 5.4, 6.4) belong to the association if both addresses were
//! announced, each by its own end, and the packet carries the correct verification tag. This module
//! finds the session and the addresses of both ends by the ports and the tag of a packet.
//!
//! Any host can send an INIT, so the addresses of a handshake count only while that handshake is in
//! force: each list belongs to the initiate tag with which it was announced. Each end has at most
//! two lists: that of the tag in force and that of the newest other tag. A forged INIT therefore
//! neither adds nor removes addresses, and the addresses of a restart (RFC 9260 5.2) count once the
//! restart takes effect.
//!
//! The table is bounded, and shared by zone and source ([`crate::limits::share`]; the source is the
//! initiator). An association that finds no room has no further paths. A newer association can
//! displace one whose handshake is not complete, or that has no further address in force. A flood
//! of INITs therefore locks no association out for long. The oldest association of the same source
//! is displaced if that source has any, otherwise the oldest of the zone. A source that has reached
//! its share therefore takes nothing from another.
//!
//! Locking: the table has one lock, held for a few instructions; only packets with announcements
//! write to the table. While there are no such associations, [`PathTable::find`] reads one atomic
//! number.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::SessionId;
use crate::flow::{Direction, End, FlowKey, Zone};
use crate::limits::Prefixes;
use crate::limits::sources::{Claim, Source, SourceShares};
use crate::packet::sctp_address::{Change, MAX_REQUESTS, Requests};

/// Maximum number of addresses of an end in addition to that of its session.
pub(crate) const MAX_ADDRESSES: usize = 8;

/// Maximum number of associations with further paths, regardless of the size of the session table.
const MAX_ASSOCIATIONS: usize = 4096;

/// A bounded list of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Addresses {
    list: [u128; MAX_ADDRESSES],
    len: u8,
}

impl Addresses {
    pub(crate) fn as_slice(&self) -> &[u128] {
        self.list.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(crate) fn contains(&self, address: u128) -> bool {
        self.as_slice().contains(&address)
    }

    /// Adds an address, if there is room.
    pub(crate) fn add(&mut self, address: u128) {
        if self.contains(address) {
            return;
        }
        if let Some(place) = self.list.get_mut(usize::from(self.len)) {
            *place = address;
            self.len += 1;
        }
    }

    fn keep(&mut self, mut is_kept: impl FnMut(u128) -> bool) {
        let before = *self;
        *self = Self::default();
        for address in before.as_slice() {
            if is_kept(*address) {
                self.add(*address);
            }
        }
    }
}

/// The ports and the tag of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct TagKey {
    zone: Zone,
    src_port: u16,
    dst_port: u16,
    tag: u32,
}

/// The addresses of an end that belong to an initiate tag of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Announced {
    /// The tag, or 0 if there is none.
    tag: u32,
    /// The addresses in addition to that of the session.
    addresses: Addresses,
}

/// State of an end of an association.
#[derive(Debug, Default)]
struct Peer {
    /// The tag of the end's packets, or 0.
    carries: u32,
    /// Lists that the end has announced, newest last. If the end has announced a list with the tag
    /// in force, that list is among them.
    announced: [Announced; 2],
    /// Changes that the end has requested, and the source of the request. Few ends ever request
    /// any.
    requested: Option<Box<(Requests, u128)>>,
}

impl Peer {
    fn addresses(&self, tag: u32) -> Option<&Addresses> {
        let mut lists = self.announced.iter();
        let found = lists.find(|list| tag != 0 && list.tag == tag)?;
        Some(&found.addresses)
    }

    /// Returns the addresses of a tag, which need not be the one in force. A new list displaces the
    /// older one that is not in force.
    fn addresses_mut(&mut self, tag: u32, in_force: u32) -> &mut Addresses {
        let [older, newer] = &mut self.announced;
        if older.tag == tag {
            return &mut older.addresses;
        }
        if newer.tag != tag {
            if older.tag != in_force {
                *older = *newer;
            }
            *newer = Announced {
                tag,
                addresses: Addresses::default(),
            };
        }
        &mut newer.addresses
    }
}

#[derive(Debug)]
struct Association {
    key: FlowKey,
    initiator: End,
    /// Each end by the direction in which it sends, original first.
    peers: [Peer; 2],
    is_up: bool,
    claim: Claim,
    /// Sequence number of the association, by the order of arrival.
    number: u64,
}

impl Association {
    /// Returns whether the association can be displaced by a newer one.
    fn gives_way(&self) -> bool {
        let has_further = |direction| {
            let addresses = self.addresses(direction);
            addresses.is_some_and(|addresses| !addresses.as_slice().is_empty())
        };
        !self.is_up || !Direction::BOTH.into_iter().any(has_further)
    }

    /// Returns the initiate tag in force of the end that sends in a direction; the other end's
    /// packets carry it.
    const fn tag_in_force(&self, direction: Direction) -> u32 {
        self.peer(direction.opposite()).carries
    }

    /// Returns the further addresses in force of the end that sends in a direction.
    fn addresses(&self, direction: Direction) -> Option<&Addresses> {
        self.peer(direction).addresses(self.tag_in_force(direction))
    }

    const fn peer(&self, direction: Direction) -> &Peer {
        let [original, reply] = &self.peers;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    const fn peer_mut(&mut self, direction: Direction) -> &mut Peer {
        let [original, reply] = &mut self.peers;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    const fn end(&self, direction: Direction) -> End {
        match direction {
            Direction::Original => self.initiator,
            Direction::Reply => self.initiator.opposite(),
        }
    }

    /// Returns the ports and the tag of packets of a direction.
    fn tag_key(&self, direction: Direction) -> Option<TagKey> {
        let from = self.end(direction);
        let tag = self.peer(direction).carries;
        (tag != 0).then(|| TagKey {
            zone: self.key.zone(),
            src_port: self.key.port(from),
            dst_port: self.key.port(from.opposite()),
            tag,
        })
    }

    fn has(&self, direction: Direction, address: u128) -> bool {
        address == self.key.address_number(self.end(direction))
            || self
                .addresses(direction)
                .is_some_and(|addresses| addresses.contains(address))
    }
}

/// A packet without a session of its own, or one that an ICMP error quotes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) zone: Zone,
    pub(crate) src: u128,
    pub(crate) src_port: u16,
    pub(crate) dst: u128,
    pub(crate) dst_port: u16,
    pub(crate) tag: u32,
    /// The flag T: the tag is that of packets to the sender.
    pub(crate) reflected: bool,
}

/// The session that a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnPath {
    pub(crate) session: SessionId,
    pub(crate) key: FlowKey,
    /// The end that sent the packet, in the session's key.
    pub(crate) source: End,
}

/// A session, as seen by the path table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) session: SessionId,
    pub(crate) key: FlowKey,
    pub(crate) initiator: End,
    /// The tags that packets carry, original direction first; 0 where not known yet.
    pub(crate) tags: [u32; 2],
    /// The session's handshake is complete.
    pub(crate) is_up: bool,
}

#[derive(Debug)]
struct Inner {
    associations: HashMap<SessionId, Association, ahash::RandomState>,
    by_tag: HashMap<TagKey, SessionId, ahash::RandomState>,
    /// Associations that can be displaced, by zone, in the order of their arrival.
    of_zone: BTreeMap<(Zone, u64), SessionId>,
    /// Associations that can be displaced, by source.
    of_source: BTreeMap<(Source, u64), SessionId>,
    /// The number of the next association.
    next: u64,
}

impl Inner {
    /// Removes an association from the table.
    fn remove(&mut self, session: SessionId) -> Option<Association> {
        let association = self.associations.remove(&session)?;
        let (source, number) = (association.claim.source(), association.number);
        self.of_zone.remove(&(source.zone, number));
        self.of_source.remove(&(source, number));
        for direction in Direction::BOTH {
            self.forget_tag(session, association.tag_key(direction));
        }
        Some(association)
    }

    fn forget_tag(&mut self, session: SessionId, key: Option<TagKey>) {
        if let Some(key) = key
            && self.by_tag.get(&key) == Some(&session)
        {
            self.by_tag.remove(&key);
        }
    }

    /// Sets the tags of an association. A tag that already belongs to another association is left
    /// to it.
    fn set_tags(&mut self, owner: &Owner) {
        let session = owner.session;
        let Some(association) = self.associations.get_mut(&session) else {
            return;
        };
        association.is_up |= owner.is_up;
        let before = Direction::BOTH.map(|direction| association.tag_key(direction));
        for (direction, tag) in Direction::BOTH.into_iter().zip(owner.tags) {
            association.peer_mut(direction).carries = tag;
        }
        let now = Direction::BOTH.map(|direction| association.tag_key(direction));
        if now != before {
            // Changes that were requested before a restart are not granted after it.
            for peer in &mut association.peers {
                peer.requested = None;
            }
            for key in before {
                self.forget_tag(session, key);
            }
            for key in now.into_iter().flatten() {
                self.by_tag.entry(key).or_insert(session);
            }
        }
        self.sort(session);
    }

    /// Records whether an association can be displaced.
    fn sort(&mut self, session: SessionId) {
        let Some(association) = self.associations.get(&session) else {
            return;
        };
        let (source, number) = (association.claim.source(), association.number);
        if association.gives_way() {
            self.of_zone.insert((source.zone, number), session);
            self.of_source.insert((source, number), session);
        } else {
            self.of_zone.remove(&(source.zone, number));
            self.of_source.remove(&(source, number));
        }
    }

    /// Removes the oldest displaceable association of a source.
    fn oldest_of_source(&mut self, source: Source) -> Option<Association> {
        let mut range = self.of_source.range((source, 0)..=(source, u64::MAX));
        let session = *range.next()?.1;
        self.remove(session)
    }

    /// Removes the oldest displaceable association of a zone.
    fn oldest_of_zone(&mut self, zone: Zone) -> Option<Association> {
        let mut range = self.of_zone.range((zone, 0)..=(zone, u64::MAX));
        let session = *range.next()?.1;
        self.remove(session)
    }
}

/// All associations with further paths.
#[derive(Debug)]
pub(crate) struct PathTable {
    inner: RwLock<Inner>,
    len: AtomicUsize,
    places: SourceShares,
    prefixes: Prefixes,
    max: usize,
}

impl PathTable {
    const fn max(max_sessions: usize) -> usize {
        if max_sessions / 8 < MAX_ASSOCIATIONS {
            max_sessions / 8 + 1
        } else {
            MAX_ASSOCIATIONS
        }
    }

    /// Returns the maximum size in bytes of a table for `max_sessions` sessions.
    pub(crate) const fn bytes(max_sessions: usize) -> usize {
        let each = size_of::<Association>()
            + 2 * size_of::<(TagKey, SessionId)>()
            + 2 * size_of::<(Source, u64, SessionId)>();
        // A hash table and the nodes of a tree may be half empty.
        2 * Self::max(max_sessions) * (each + 64)
    }

    pub(crate) fn new(
        max_sessions: usize,
        prefixes: Prefixes,
        hasher: &ahash::RandomState,
    ) -> Self {
        let max = Self::max(max_sessions);
        Self {
            inner: RwLock::new(Inner {
                associations: HashMap::with_hasher(hasher.clone()),
                by_tag: HashMap::with_hasher(hasher.clone()),
                of_zone: BTreeMap::new(),
                of_source: BTreeMap::new(),
                next: 0,
            }),
            len: AtomicUsize::new(0),
            places: SourceShares::new(max as u32, [], hasher.clone()),
            prefixes,
            max,
        }
    }

    /// Sets the zones that have a guaranteed part of the table.
    pub(crate) fn set_zones(&self, zones: &[Zone]) {
        self.places.set(self.max as u32, zones.iter().copied());
    }

    /// Returns the number of associations that have further paths.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Records the addresses that an end has announced with an initiate tag. The session's shard is
    /// locked.
    pub(crate) fn announce(
        &self,
        owner: &Owner,
        direction: Direction,
        tag: u32,
        addresses: &Addresses,
    ) {
        if !self.hold(owner, !addresses.as_slice().is_empty()) {
            return;
        }
        let mut inner = self.inner.write();
        if let Some(association) = inner.associations.get_mut(&owner.session) {
            let own = association.key.address_number(association.end(direction));
            let in_force = association.tag_in_force(direction);
            let known = association.peer_mut(direction).addresses_mut(tag, in_force);
            for address in addresses.as_slice() {
                if *address != own {
                    known.add(*address);
                }
            }
        }
        inner.sort(owner.session);
    }

    /// Updates the tags of an association, and claims a slot for one without a slot if
    /// `needs_place` is set. Returns whether the association has a slot.
    fn hold(&self, owner: &Owner, needs_place: bool) -> bool {
        let is_known =
            self.len() != 0 && self.inner.read().associations.contains_key(&owner.session);
        let claim = match is_known {
            true => None,
            false if !needs_place => return false,
            false => match self.claim(owner) {
                Some(claim) => Some(claim),
                None => return false,
            },
        };
        let mut inner = self.inner.write();
        if let Some(claim) = claim {
            let number = inner.next;
            inner.next += 1;
            let association = Association {
                key: owner.key,
                initiator: owner.initiator,
                peers: Default::default(),
                is_up: false,
                claim,
                number,
            };
            inner.associations.insert(owner.session, association);
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        inner.set_tags(owner);
        true
    }

    /// Claims a slot, displacing another association if necessary.
    fn claim(&self, owner: &Owner) -> Option<Claim> {
        let zone = owner.key.zone();
        let address = owner.key.address_number(owner.initiator);
        let source = Source {
            zone,
            prefix: self.prefixes.counted(address, owner.key.is_ipv6()),
        };
        if let Some(claim) = self.places.claim(source, 1) {
            return Some(claim);
        }
        if self.places.held(source) != 0 {
            // The slot is handed over unchanged, regardless of the source's current share.
            let removed = self.inner.write().oldest_of_source(source)?;
            self.len.fetch_sub(1, Ordering::Relaxed);
            return Some(removed.claim);
        }
        let removed = self.inner.write().oldest_of_zone(zone)?;
        self.gone(removed);
        self.places.claim(source, 1)
    }

    fn gone(&self, removed: Association) {
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.places.release(removed.claim);
    }

    /// Updates the tags of a session whose handshake continues or has been repeated.
    pub(crate) fn set_tags(&self, owner: &Owner) {
        if self.len() != 0 {
            self.inner.write().set_tags(owner);
        }
    }

    /// Records changes that an end requests, from one of its addresses.
    pub(crate) fn request(
        &self,
        owner: &Owner,
        direction: Direction,
        requests: Requests,
        from: u128,
    ) {
        let adds = requests
            .changes
            .iter()
            .flatten()
            .any(|request| matches!(request.change, Change::Add(_)));
        if !self.hold(owner, adds) {
            return;
        }
        if let Some(association) = self.inner.write().associations.get_mut(&owner.session) {
            association.peer_mut(direction).requested = Some(Box::new((requests, from)));
        }
    }

    /// Returns the changes that the end that sends in a direction has requested.
    pub(crate) fn requested(&self, session: SessionId, direction: Direction) -> Option<Requests> {
        if self.len() == 0 {
            return None;
        }
        let inner = self.inner.read();
        let peer = inner.associations.get(&session)?.peer(direction);
        peer.requested.as_ref().map(|asked| asked.0)
    }

    /// Applies changes that the other end has granted. The address of the session stays.
    pub(crate) fn change(
        &self,
        session: SessionId,
        direction: Direction,
        granted: [Option<Change>; MAX_REQUESTS],
    ) {
        let mut inner = self.inner.write();
        let Some(association) = inner.associations.get_mut(&session) else {
            return;
        };
        let own = association.key.address_number(association.end(direction));
        let in_force = association.tag_in_force(direction);
        let peer = association.peer_mut(direction);
        let Some(asked) = peer.requested.take() else {
            return;
        };
        let (_, from) = *asked;
        let addresses = peer.addresses_mut(in_force, in_force);
        for change in granted.into_iter().flatten() {
            match change {
                Change::Add(address) if address == own => {}
                Change::Add(address) => addresses.add(address),
                Change::Delete(address) => addresses.keep(|each| each != address),
                Change::DeleteOthers => addresses.keep(|each| each == from),
            }
        }
        inner.sort(session);
    }

    /// Returns the session of a packet between announced addresses, if the packet carries the
    /// correct tag.
    pub(crate) fn find(&self, arrival: &Arrival) -> Option<OnPath> {
        if self.len() == 0 {
            return None;
        }
        let (src_port, dst_port) = if arrival.reflected {
            (arrival.dst_port, arrival.src_port)
        } else {
            (arrival.src_port, arrival.dst_port)
        };
        let key = TagKey {
            zone: arrival.zone,
            src_port,
            dst_port,
            tag: arrival.tag,
        };
        let inner = self.inner.read();
        let session = *inner.by_tag.get(&key)?;
        let association = inner.associations.get(&session)?;
        let is_right = |direction: &Direction| {
            let carries = if arrival.reflected {
                direction.opposite()
            } else {
                *direction
            };
            association.tag_key(carries) == Some(key)
                && association.has(*direction, arrival.src)
                && association.has(direction.opposite(), arrival.dst)
        };
        let direction = Direction::BOTH.into_iter().find(is_right)?;
        Some(OnPath {
            session,
            key: association.key,
            source: association.end(direction),
        })
    }

    /// Removes the state of a session that has ended.
    pub(crate) fn forget(&self, session: SessionId) {
        if self.len() == 0 {
            return;
        }
        let removed = self.inner.write().remove(session);
        if let Some(removed) = removed {
            self.gone(removed);
        }
    }
}
