//! Per-thread state: counters, the newest headers, and a buffer for a packet of the engine's own.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ends::{EndKey, MAX_HEADER, Place, Standing};
use super::owned::HeldDatagram;
use super::settings::Settings;
use super::stats::{Counters, Refusal};
use super::{Datagram, FrontEnd};
use crate::engine::Packet;
use crate::flow::Zone;
use crate::geneve::{GeneveError, Header, InnerProtocol, Metadata};
use crate::session::TunnelRef;

/// The number of headers that are remembered, a power of two.
const REMEMBERED: usize = 128;
/// The longest header that is remembered, in bytes. Longer ones are parsed each time.
const MAX_REMEMBERED: usize = 64;
/// The time for which headers are remembered.
const LAPSE: Duration = Duration::from_secs(30);
/// The longest UDP payload, in bytes.
const MAX_PAYLOAD: usize = 65_535;

/// The result of parsing the outside of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) header_len: usize,
    pub(super) zone: Zone,
    /// The number of its endpoint, 0 for none.
    pub(super) endpoint: u16,
    /// The bits of its reference that identify a flow.
    pub(super) flow_bits: u64,
    /// The reference of its tunnel endpoint, 0 for none.
    end: u16,
    cookie: u32,
    /// Whether a packet of an answered session would give the tunnel endpoint or endpoint a slot.
    pub(super) may_be_proven: bool,
}

impl Found {
    /// Returns the packet in the datagram.
    pub(super) fn packet<'b>(&self, datagram: &Datagram<'b>, now: Instant) -> Packet<'b> {
        let inner = datagram.payload.get(self.header_len..).unwrap_or_default();
        Packet::new(inner, now)
            .zone(self.zone)
            .tunneled(true)
            .tunnel(self.tunnel(datagram))
            .flow_bits(self.flow_bits)
    }

    /// Returns the reference that a session keeps of the datagram. If the tunnel endpoint is not
    /// known, the reference still distinguishes the flow from others.
    pub(super) fn tunnel(&self, datagram: &Datagram<'_>) -> TunnelRef {
        let port = u64::from(datagram.source_port);
        TunnelRef(u64::from(self.end) << 48 | port << 32 | u64::from(self.cookie))
    }
}

/// Returns the tunnel endpoint's reference, the port and the cookie of a tunnel reference.
pub(super) const fn split_ref(tunnel: TunnelRef) -> (u16, u16, u32) {
    (
        (tunnel.0 >> 48) as u16,
        (tunnel.0 >> 32) as u16,
        tunnel.0 as u32,
    )
}

/// A received header, and the result of parsing it.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    outer: u64,
    port: u16,
    /// The length of the header; 0 if nothing is remembered.
    len: u8,
    /// The offset of the cookie; 0 if there is none.
    cookie_offset: u8,
    end: u16,
    endpoint: u16,
    may_be_proven: bool,
    zone: Zone,
    /// The first nibble of the inner packet.
    version: u8,
    header: [u8; MAX_REMEMBERED],
}

impl Remembered {
    const NOTHING: Self = Self {
        outer: 0,
        port: 0,
        len: 0,
        cookie_offset: 0,
        end: 0,
        endpoint: 0,
        may_be_proven: false,
        zone: Zone::DEFAULT,
        version: 0,
        header: [0; MAX_REMEMBERED],
    };

    /// Returns the entry of a datagram that was looked up; `None` if its header is too long.
    fn of(
        datagram: &Datagram<'_>,
        spot: Spot,
        found: &Found,
        version: u8,
        cookie_offset: Option<usize>,
    ) -> Option<Self> {
        let mut header = [0; MAX_REMEMBERED];
        header
            .get_mut(..found.header_len)?
            .copy_from_slice(datagram.payload.get(..found.header_len)?);
        Some(Self {
            outer: spot.outer,
            port: datagram.destination_port,
            len: found.header_len as u8,
            cookie_offset: cookie_offset.unwrap_or(0) as u8,
            end: found.end,
            endpoint: found.endpoint,
            may_be_proven: found.may_be_proven,
            zone: found.zone,
            version,
            header,
        })
    }

    /// Returns the result for a datagram whose outside differs in port and cookie alone; else
    /// `None`.
    #[inline]
    fn matches(&self, datagram: &Datagram<'_>, outer: u64, mask: u32) -> Option<Found> {
        let header_len = usize::from(self.len);
        let (header, inner) = datagram.payload.split_at_checked(header_len)?;
        let own = self.header.get(..header_len)?;
        if self.len == 0 || self.outer != outer || self.port != datagram.destination_port {
            return None;
        }
        if inner.first().map(|first| first >> 4) != Some(self.version) {
            return None;
        }
        let offset = usize::from(self.cookie_offset);
        let (cookie, flow_bits) = if offset == 0 {
            if header != own {
                return None;
            }
            (0, 0)
        } else {
            let (before, at) = header.split_at_checked(offset)?;
            let (own_before, own_at) = own.split_at_checked(offset)?;
            let (cookie, behind) = at.split_first_chunk::<4>()?;
            let (_, own_behind) = own_at.split_first_chunk::<4>()?;
            if before != own_before || behind != own_behind {
                return None;
            }
            (u32::from_be_bytes(*cookie), u64::from(mask))
        };
        Some(Found {
            header_len,
            zone: self.zone,
            endpoint: self.endpoint,
            flow_bits,
            end: self.end,
            cookie,
            may_be_proven: self.may_be_proven,
        })
    }
}

/// State of one thread that calls [`FrontEnd::handle`]. About 100 KiB, and 48 bytes for each of
/// `max_endpoints`.
#[derive(Debug)]
pub struct Scratch {
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    remembered: Box<[Remembered; REMEMBERED]>,
    /// The time at which all remembered headers are looked up again, which marks tunnel endpoints
    /// in use.
    lapse: Option<Instant>,
    out: Box<[u8]>,
    /// Datagrams that were held and that this thread decides next.
    ready: VecDeque<HeldDatagram>,
    /// The datagram that was decided last of those that were held.
    kept: Option<HeldDatagram>,
}

impl Scratch {
    /// Returns the state for a thread that feeds this front end. Its counts remain after it is
    /// dropped.
    #[must_use]
    pub fn new(front: &FrontEnd) -> Self {
        Self {
            settings: Arc::clone(&front.settings.read()),
            counters: counters_of(front),
            remembered: Box::new([Remembered::NOTHING; REMEMBERED]),
            lapse: None,
            out: vec![0; MAX_HEADER + MAX_PAYLOAD].into(),
            ready: VecDeque::new(),
            kept: None,
        }
    }

    /// Takes over the settings of the front end if they have changed.
    #[inline]
    pub(super) fn follow(&mut self, front: &FrontEnd) {
        if self.settings.epoch != front.epoch.load(Ordering::Acquire) {
            self.refresh(front);
        }
    }

    /// Discards all headers at intervals, so that they are looked up again.
    #[inline]
    pub(super) fn lapse(&mut self, now: Instant) {
        if self.lapse.is_none_or(|lapse| lapse <= now) {
            *self.remembered = [Remembered::NOTHING; REMEMBERED];
            self.lapse = now.checked_add(LAPSE);
        }
    }

    #[cold]
    fn refresh(&mut self, front: &FrontEnd) {
        self.settings = Arc::clone(&front.settings.read());
        *self.remembered = [Remembered::NOTHING; REMEMBERED];
        let is_known = |own: &Arc<Counters>| Arc::ptr_eq(own, &self.counters);
        if !front.counters.lock().iter().any(is_known) {
            // The front end is not the previous one.
            self.counters = counters_of(front);
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns an owned handle to the settings.
    pub(super) fn settings_in_force(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn next_ready(&mut self) -> Option<HeldDatagram> {
        self.ready.pop_front()
    }

    /// Keeps a datagram that was held until the next one, for an observer.
    pub(super) fn keep(&mut self, datagram: HeldDatagram) {
        self.kept = Some(datagram);
    }

    /// Returns the datagram that was kept last.
    pub(super) fn kept(&self) -> Datagram<'_> {
        self.kept
            .as_ref()
            .map_or(Datagram::EMPTY, HeldDatagram::datagram)
    }

    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn add_ready(&mut self, datagrams: Vec<HeldDatagram>) {
        self.ready.extend(datagrams);
    }

    pub(super) fn out(&mut self) -> &mut [u8] {
        &mut self.out
    }

    pub(super) fn written(&self, len: usize) -> &[u8] {
        self.out.get(..len).unwrap_or_default()
    }

    /// Parses the outside of a datagram that came at `now`. If the datagram is refused, returns the
    /// refusal with the number of its endpoint, 0 for none.
    #[inline]
    pub(super) fn find(
        &mut self,
        front: &FrontEnd,
        datagram: &Datagram<'_>,
        now: Instant,
    ) -> Result<Found, (Refusal, u16)> {
        let spot = Spot::of(datagram);
        let mask = self.settings.config.provider.cookie_mask();
        let remembered = self
            .remembered
            .get(spot.place)
            .and_then(|each| each.matches(datagram, spot.outer, mask));
        match remembered {
            Some(found) => Ok(found),
            None => self.look_up(front, datagram, now, spot),
        }
    }

    /// Parses the outside of a datagram without the remembered headers.
    #[cold]
    #[inline(never)]
    fn look_up(
        &mut self,
        front: &FrontEnd,
        datagram: &Datagram<'_>,
        now: Instant,
        spot: Spot,
    ) -> Result<Found, (Refusal, u16)> {
        let settings = &self.settings;
        let refused = |refusal| (refusal, 0);
        if !settings.allows(datagram.source) {
            return Err(refused(Refusal::Source));
        }
        if settings.is_ours(datagram.source) || datagram.source == datagram.destination {
            return Err(refused(Refusal::OwnSource));
        }
        if datagram.destination.is_unspecified() {
            return Err(refused(Refusal::NoDestination));
        }
        let (header, inner) = Header::parse(datagram.payload, |_, _| false)
            .map_err(Refusal::Geneve)
            .map_err(refused)?;
        let version = match inner.protocol {
            InnerProtocol::Ipv4 => 4,
            InnerProtocol::Ipv6 => 6,
            InnerProtocol::Ethernet => return Err(refused(Refusal::Ethernet)),
        };
        let provider = settings.config.provider;
        let metadata = Metadata::read(provider, &header, settings.config.required_in_force())
            .map_err(Refusal::Metadata)
            .map_err(refused)?;
        let Some(zone) = settings.zone(metadata.endpoint) else {
            return Err((Refusal::Endpoint, front.number_of(metadata.endpoint)));
        };
        let cookie_offset = metadata.cookie.map(|cookie| cookie.offset);
        let key = EndKey::of(datagram, header.bytes(), cookie_offset)
            .ok_or(refused(Refusal::Geneve(GeneveError::OptionsTruncated)))?;
        let second = front.second(now);
        let seen = front.known.read().place(&key, metadata.endpoint, second);
        let Place {
            end,
            endpoint,
            may_be_proven,
        } = match seen {
            Some(seen) => seen,
            None => {
                let mut known = front.known.write();
                let (end, endpoint) = known.add(datagram, &key, &metadata, second, Standing::Seen);
                Place {
                    end,
                    endpoint,
                    may_be_proven: false,
                }
            }
        };
        let found = Found {
            header_len: header.bytes().len(),
            zone,
            endpoint,
            flow_bits: metadata
                .cookie
                .map_or(0, |_| u64::from(provider.cookie_mask())),
            end,
            cookie: metadata.cookie.map_or(0, |cookie| cookie.value),
            may_be_proven,
        };
        if let Some(place) = self.remembered.get_mut(spot.place)
            && let Some(remembered) = Remembered::of(datagram, spot, &found, version, cookie_offset)
        {
            *place = remembered;
        }
        Ok(found)
    }

    /// Adds the tunnel endpoint and the endpoint of a datagram with a packet of an answered
    /// session.
    #[cold]
    #[inline(never)]
    pub(super) fn prove(&mut self, front: &FrontEnd, datagram: &Datagram<'_>, now: Instant) {
        if let Some(remembered) = self.remembered.get_mut(Spot::of(datagram).place) {
            // The next datagram looks the header up again.
            *remembered = Remembered::NOTHING;
        }
        let config = &self.settings.config;
        let Ok((header, _)) = Header::parse(datagram.payload, |_, _| false) else {
            return;
        };
        let Ok(metadata) = Metadata::read(config.provider, &header, config.required_in_force())
        else {
            return;
        };
        let cookie_offset = metadata.cookie.map(|cookie| cookie.offset);
        let Some(key) = EndKey::of(datagram, header.bytes(), cookie_offset) else {
            return;
        };
        let second = front.second(now);
        let mut known = front.known.write();
        known.add(datagram, &key, &metadata, second, Standing::Proven);
    }
}

/// Outer addresses of a datagram, and the index at which its header may be remembered.
#[derive(Debug, Clone, Copy)]
struct Spot {
    outer: u64,
    place: usize,
}

impl Spot {
    #[inline]
    fn of(datagram: &Datagram<'_>) -> Self {
        let outer =
            u64::from(datagram.source.to_bits()) << 32 | u64::from(datagram.destination.to_bits());
        Self {
            outer,
            place: place_of(outer, datagram.payload),
        }
    }
}

/// Returns the slot of a remembered header: a hash of its outer addresses, its first word and the
/// beginning of its first option's data. A collision costs only a lookup.
#[inline]
fn place_of(outer: u64, payload: &[u8]) -> usize {
    let first = payload
        .first_chunk::<4>()
        .map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    let data = payload
        .get(12..20)
        .and_then(<[u8]>::first_chunk::<8>)
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed =
        (outer ^ first.rotate_left(17) ^ data.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % REMEMBERED
}

/// Returns counters that no other thread changes: those of a thread that has ended, or new ones.
fn counters_of(front: &FrontEnd) -> Arc<Counters> {
    let mut all = front.counters.lock();
    // The counters cannot become shared meanwhile: they are handed out only here, under the lock.
    // `get_mut` also synchronizes with all writes of the previous thread.
    if let Some(free) = all.iter_mut().find_map(|counters| {
        Arc::get_mut(counters)?;
        Some(&*counters)
    }) {
        return Arc::clone(free);
    }
    let counters = Arc::new(Counters::new(front.known.read().max_numbers()));
    all.push(Arc::clone(&counters));
    counters
}
