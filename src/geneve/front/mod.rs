//! The front end between an appliance's sockets and the engine, without a socket of its own.
//!
//! A datagram to UDP port 6081 goes in ([`FrontEnd::handle`]), and the answer comes out. The answer
//! is the unchanged bytes, a packet of the engine's own in the right tunnel header, or nothing.
//! Every datagram has exactly one outcome, and a counter for it ([`FrontStats`]).
//!
//! A fragment that comes before the first one of its datagram is held, at most for
//! `fragments.hold`. Its outcome comes from [`FrontEnd::next_released`].
//!
//! **The reply rule** of the load balancers: the outer IP addresses are swapped, both UDP ports
//! stay unchanged, and the GENEVE header goes back byte for byte. A packet that the engine forwards
//! is returned unchanged ([`Answer::Return`]), and is not even copied unless `mss_clamp` requires
//! it.
//!
//! **Packets of the engine's own** (a RST, an ICMP error) can only travel in a flow that the
//! balancer knows. For each session and direction, the engine keeps a [`TunnelRef`] of the newest
//! packet: the number of an interned [tunnel endpoint](TunnelDescription), the outer source port
//! and the flow cookie. A packet of its own takes the reference of its direction, else of the other
//! direction. [`FrontEnd::adapt`] sets `engine.tunnel_references`, so that the engine keeps them.
//!
//! **Flows of the balancer**: a SYN whose cookie differs from that of the last packet of its
//! session and direction is the first of a new flow. It opens a new session, if the policy admits
//! it.
//!
//! **Zones**: the endpoint id in the header determines the zone of a packet. Endpoints that the
//! configuration does not name are refused or share a zone. An endpoint takes no memory but an
//! entry of a bounded table.
//!
//! Threads share one front end and have a [`Scratch`] each, which caches the newest headers. A
//! packet whose header differs from a cached one in the cookie alone needs no second parsing of
//! its options. Only the first packet of a tunnel endpoint allocates.
//!
//! ```
//! use std::time::Instant;
//! use portcullis::geneve::front::{Answer, Datagram, FrontEnd, Scratch};
//! use portcullis::{Config, Discard, Engine};
//!
//! let config = FrontEnd::adapt(Config::default());
//! let (engine, front) = (Engine::new(&config)?, FrontEnd::new(&config)?);
//! let mut scratch = Scratch::new(&front);
//! let datagram = Datagram {
//!     source: [10, 0, 0, 1].into(),
//!     source_port: 60_001,
//!     destination: [10, 0, 0, 2].into(),
//!     destination_port: 6081,
//!     payload: b"no GENEVE header",
//! };
//! match front.handle(&engine, &datagram, Instant::now(), &mut scratch, &mut Discard) {
//!     Answer::Return => { /* send `datagram.payload` to `datagram.back()` */ }
//!     Answer::Send(outgoing) => { /* send `outgoing.payload` to `outgoing.tunnel` */ }
//!     Answer::Nothing(reason) => println!("{}", reason.name()),
//! }
//! // After that, and every few milliseconds without a datagram:
//! while let Some(answer) =
//!     front.next_released(&engine, Instant::now(), &mut scratch, &mut Discard)
//! {
//!     if let Answer::Send(outgoing) = answer {
//!         // Send `outgoing.payload` to `outgoing.tunnel`.
//!     }
//! }
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
mod decision;
mod ends;
mod held;
mod mss;
mod owned;
mod queued;
mod replies;
mod scratch;
mod settings;
mod stats;
mod watch;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

pub use self::decision::{Answer, DecidedPacket, Decision, Outgoing, Released};
use self::decision::{Decided, Entered, Written, nothing, send};
use self::ends::{Known, Standing};
use self::owned::HeldDatagram;
pub use self::queued::{Queued, Waited};
use self::replies::way_back;
pub use self::scratch::Scratch;
use self::scratch::{Found, split_ref};
use self::settings::Settings;
use self::stats::{Counters, Outcome};
pub use self::stats::{EndpointStats, FrontStats, NotSent, Refusal};
pub(crate) use self::watch::Watch;
use super::EndpointId;
use crate::config::{Config, ConfigError};
use crate::engine::{Engine, HeldPackets, Packet};
use crate::event::Sink;
use crate::explain::Step;
use crate::reset;
use crate::session::{Origin, TunnelRef};
use crate::verdict::{Class, Reply, Verdict};

/// The number of datagrams that are decided together.
const BATCH: usize = 32;
/// The number of datagrams below which each is decided alone.
const FEW: usize = 4;

/// One received datagram, as the socket delivered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The outer source address, which is the load balancer's.
    pub source: Ipv4Addr,
    /// The outer UDP source port.
    pub source_port: u16,
    /// The outer destination address, which is the local one. A datagram without one (0.0.0.0) is
    /// refused.
    pub destination: Ipv4Addr,
    /// The outer UDP destination port, [`super::PORT`].
    pub destination_port: u16,
    /// The UDP payload: a GENEVE header and the inner packet.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// A datagram without addresses and bytes.
    const EMPTY: Self = Self {
        source: Ipv4Addr::UNSPECIFIED,
        source_port: 0,
        destination: Ipv4Addr::UNSPECIFIED,
        destination_port: 0,
        payload: &[],
    };

    /// Returns the tunnel in which this datagram goes back: the addresses are swapped, the ports
    /// are not.
    #[must_use]
    pub const fn back(&self) -> Tunnel {
        Tunnel {
            source: self.destination,
            destination: self.source,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }
}

/// The outer addresses and ports of a datagram to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The source address, which is the local one.
    pub source: Ipv4Addr,
    /// The destination address, which is the load balancer's.
    pub destination: Ipv4Addr,
    /// The UDP source port, with which the load balancer sent.
    pub source_port: u16,
    /// The UDP destination port.
    pub destination_port: u16,
}

/// The tunnel that a [`TunnelRef`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelDescription {
    /// The endpoint.
    pub endpoint: Option<EndpointId>,
    /// The attachment.
    pub attachment: Option<u64>,
    /// The flow cookie.
    pub cookie: Option<u32>,
    /// The load balancer's address.
    pub peer: Ipv4Addr,
    /// The local address.
    pub local: Ipv4Addr,
    /// The outer UDP source port.
    pub port: u16,
}

/// The front end between sockets and the engine. See the [module](self).
#[derive(Debug)]
pub struct FrontEnd {
    settings: RwLock<Arc<Settings>>,
    /// The epoch of the settings. A thread with another one takes the settings over.
    epoch: AtomicU64,
    known: RwLock<Known>,
    origin: Origin,
    held: HeldPackets<HeldDatagram>,
    /// The counters of each [`Scratch`], past ones included.
    counters: Mutex<Vec<Arc<Counters>>>,
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<FrontEnd>();
};

impl FrontEnd {
    /// Returns a front end with the settings of `[geneve]` and the zones of a configuration.
    ///
    /// # Errors
    /// Returns the first error of the configuration, or that `engine.tunnel_references` is off:
    /// RSTs travel in the tunnels to which sessions have references. [`FrontEnd::adapt`] sets
    /// the key.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        config.check_tunnel_references()?;
        let settings = Settings::new(config);
        Ok(Self {
            epoch: AtomicU64::new(settings.epoch),
            settings: RwLock::new(Arc::new(settings)),
            known: RwLock::new(Known::new(&config.geneve)),
            origin: Origin::default(),
            held: HeldPackets::with_config(config),
            counters: Mutex::new(Vec::new()),
        })
    }

    /// Returns a configuration with the engine settings that a front end needs: sessions store
    /// references to their tunnels.
    ///
    /// For callers that combine an [`Engine`] and a front end of their own, such as the appliance
    /// with its log and its batches: both, and each reload, need the adapted configuration.
    /// [`Gateway`](crate::Gateway) calls this itself.
    #[must_use]
    pub fn adapt(mut config: Config) -> Config {
        config.engine.tunnel_references = true;
        config
    }

    /// Checks whether [`FrontEnd::reload`] would accept this configuration.
    ///
    /// # Errors
    /// Returns the errors of `reload`.
    pub fn check_reload(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        config.check_tunnel(&self.settings.read().config)
    }

    /// Replaces the settings. Each thread takes the new ones over with its next datagram.
    ///
    /// # Errors
    /// Returns an error of the configuration, or the key of `[geneve]` that only a start can
    /// change: the provider, the addresses to listen at, the sizes of tables. The front end is then
    /// unchanged.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        self.check_reload(config)?;
        let settings = Settings::new(config);
        self.known.write().name(&config.geneve);
        let mut own = self.settings.write();
        self.epoch.store(settings.epoch, Ordering::Release);
        *own = Arc::new(settings);
        Ok(())
    }

    /// Decides a datagram that came at `now`, and returns the answer to send.
    ///
    /// `sink` receives the sessions that open and end by the datagram, and the RSTs that the engine
    /// makes, for [`FrontEnd::reset`]. The datagram may release held ones: call
    /// [`FrontEnd::next_released`] afterwards.
    pub fn handle<'b, S: Sink>(
        &self,
        engine: &Engine,
        datagram: &'b Datagram<'b>,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> Answer<'b> {
        let queued = Queued::from(*datagram);
        self.decide(engine, &queued, now, scratch, |packet| {
            Decided::by(engine, packet, sink)
        })
        .answer
    }

    /// Decides a datagram like [`FrontEnd::handle_queued_batch`], and returns the steps of the
    /// engine's decision; none for a datagram that the front end refuses. Allocates; meant for
    /// diagnosing single packets.
    pub fn explain<'b, S: Sink>(
        &self,
        engine: &Engine,
        queued: &Queued<'b>,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> (Decision<'b>, Vec<Step>) {
        let mut steps = Vec::new();
        let decision = self.decide(engine, queued, now, scratch, |packet| {
            let mut watch = Watch::new(sink);
            let (verdict, of_packet) = engine.explain(packet, &mut watch);
            steps = of_packet;
            Decided {
                verdict,
                released: watch.released,
            }
        });
        (decision, steps)
    }

    /// Decides one datagram; `decide` returns the engine's decision on its packet.
    #[inline]
    fn decide<'b>(
        &self,
        engine: &Engine,
        queued: &Queued<'b>,
        now: Instant,
        scratch: &'b mut Scratch,
        decide: impl FnOnce(Packet<'b>) -> Decided,
    ) -> Decision<'b> {
        match self.enter(queued, now, scratch) {
            Ok((found, packet)) => {
                let decided = decide(packet);
                self.take_released(decided.released, scratch);
                let entered = Entered {
                    datagram: &queued.datagram,
                    found: &found,
                    packet,
                };
                self.leave(engine, entered, decided.verdict, scratch)
            }
            Err(refusal) => Decision::refused(scratch, refusal),
        }
    }

    /// Decides datagrams that came at `now`, in order and with the verdicts of
    /// [`FrontEnd::handle`].
    ///
    /// This is faster where there are many sessions: see [`Engine::process_batch`]. `each` is
    /// called with the index of each datagram and its answer. The outer headers of up to 32
    /// datagrams are read before the first of them is decided. Datagrams that are refused at that
    /// point are reported first, and a reload takes effect for the next 32. A tunnel endpoint that
    /// a later datagram evicts is not available for the answer to an earlier one.
    pub fn handle_batch<'b, S: Sink>(
        &self,
        engine: &Engine,
        datagrams: impl IntoIterator<Item = Datagram<'b>>,
        now: Instant,
        scratch: &mut Scratch,
        sink: &mut S,
        mut each: impl FnMut(usize, &Datagram<'_>, Answer<'_>),
    ) {
        let datagrams = datagrams.into_iter().map(Queued::from);
        self.handle_queued_batch(
            engine,
            datagrams,
            now,
            scratch,
            sink,
            |place, datagram, decision, _| each(place, datagram, decision.answer),
        );
    }

    /// Decides datagrams like [`FrontEnd::handle_batch`], and sheds load if they have waited for
    /// too long ([`Waited`]). Datagrams are not reordered: those that are decided are decided in
    /// order.
    ///
    /// `each` also receives the verdict, and the sink: the events of a datagram reach the sink just
    /// before that call.
    pub fn handle_queued_batch<'b, S: Sink>(
        &self,
        engine: &Engine,
        datagrams: impl IntoIterator<Item = Queued<'b>>,
        now: Instant,
        scratch: &mut Scratch,
        sink: &mut S,
        mut each: impl FnMut(usize, &Datagram<'_>, Decision<'_>, &mut S),
    ) {
        let datagrams = datagrams.into_iter();
        if datagrams.size_hint().1.is_some_and(|count| count < FEW) {
            for (place, queued) in datagrams.enumerate() {
                let decision = self.decide(engine, &queued, now, scratch, |packet| {
                    Decided::by(engine, packet, sink)
                });
                each(place, &queued.datagram, decision, sink);
            }
            return;
        }
        let mut datagrams = datagrams.enumerate().peekable();
        let mut packets = [Packet::new(&[], now); BATCH];
        while datagrams.peek().is_some() {
            let mut entered: [Option<(usize, Datagram<'b>, Found)>; BATCH] = [None; BATCH];
            let mut count = 0;
            for (place, queued) in datagrams.by_ref().take(BATCH) {
                let datagram = queued.datagram;
                match self.enter(&queued, now, scratch) {
                    Ok((found, entering)) => {
                        if let (Some(packet), Some(room)) =
                            (packets.get_mut(count), entered.get_mut(count))
                        {
                            *packet = entering;
                            *room = Some((place, datagram, found));
                            count += 1;
                        }
                    }
                    Err(refusal) => {
                        each(place, &datagram, Decision::refused(scratch, refusal), sink);
                    }
                }
            }
            let packets = packets.get(..count).unwrap_or_default();
            let mut watch = Watch::new(sink);
            engine.process_batch_with(packets, &mut watch, |number, verdict, watch| {
                if let (Some(Some((place, datagram, found))), Some(packet)) =
                    (entered.get(number), packets.get(number))
                {
                    let packet = *packet;
                    let entered = Entered {
                        datagram,
                        found,
                        packet,
                    };
                    let decision = self.leave(engine, entered, verdict, scratch);
                    each(*place, datagram, decision, watch.sink);
                }
            });
            self.take_released(watch.released, scratch);
        }
    }

    /// Decapsulates a packet.
    #[inline]
    fn enter<'b>(
        &self,
        queued: &Queued<'b>,
        now: Instant,
        scratch: &mut Scratch,
    ) -> Result<(Found, Packet<'b>), Refusal> {
        scratch.follow(self);
        scratch.lapse(now);
        let datagram = &queued.datagram;
        let len = datagram.payload.len();
        if queued.waited == Waited::TooLong {
            scratch.counters().received(0, len);
            return Err(Refusal::QueueDelay);
        }
        match scratch.find(self, datagram, now) {
            Ok(found) => {
                scratch.counters().received(found.endpoint, len);
                let packet = found.packet(datagram, now);
                // A packet that is too long to be returned is not held. This also bounds the memory
                // of held packets.
                let can_hold = packet.bytes().len() <= usize::from(scratch.settings().inner_mtu);
                let sheddable = queued.waited == Waited::Long;
                Ok((found, packet.sheddable(sheddable).can_hold(can_hold)))
            }
            Err((refusal, endpoint)) => {
                scratch.counters().received(endpoint, len);
                Err(refusal)
            }
        }
    }

    /// Returns the decision on a packet after the engine's verdict.
    #[inline]
    fn leave<'b>(
        &self,
        engine: &Engine,
        entered: Entered<'_, 'b>,
        verdict: Verdict,
        scratch: &'b mut Scratch,
    ) -> Decision<'b> {
        if let Verdict::Hold(id, _) = verdict {
            return self.hold(engine, entered, id, verdict, scratch);
        }
        let packet = entered.inside();
        let is_too_large = matches!(verdict, Verdict::Forward(_))
            && packet.bytes.len() > usize::from(scratch.settings().inner_mtu);
        let answer = self.answer_to(engine, entered, verdict, scratch);
        Decision {
            answer,
            verdict: Some(verdict),
            packet: Some(packet),
            is_too_large,
        }
    }

    /// Returns the answer to a packet that is not held.
    #[inline]
    fn answer_to<'b>(
        &self,
        engine: &Engine,
        entered: Entered<'_, '_>,
        verdict: Verdict,
        scratch: &'b mut Scratch,
    ) -> Answer<'b> {
        let Entered {
            datagram,
            found,
            packet,
        } = entered;
        let inner = packet.bytes();
        match verdict {
            Verdict::Forward(tracked) => {
                if found.may_be_proven && tracked.class == Class::Established {
                    scratch.prove(self, datagram, packet.now());
                }
            }
            Verdict::Drop(reason, _) => return nothing(scratch, NotSent::Dropped(reason)),
            Verdict::Hold(..) => return nothing(scratch, NotSent::Held),
            Verdict::Reject(reason, reply @ Reply::Challenge(_), _) => {
                let write = |out: &mut [u8]| {
                    reset::write_reply_unbudgeted(reply, inner, out).map(<[u8]>::len)
                };
                return match way_back(datagram, found, scratch, write) {
                    Some(written) => send(scratch, Outcome::Replied, written),
                    None => nothing(scratch, NotSent::Unanswered(reason)),
                };
            }
            Verdict::Reject(reason, reply, _) => {
                let written = self.answer(engine, entered, scratch, |out| {
                    reset::write_reply_unbudgeted(reply, inner, out).map(<[u8]>::len)
                });
                // All other answers were charged to a budget when the verdict was made.
                let may = |_: &Written| engine.may_reply(reason, &packet);
                return match written.filter(may) {
                    Some(written) => send(scratch, Outcome::Replied, written),
                    None => nothing(scratch, NotSent::Unanswered(reason)),
                };
            }
        }
        let mtu = scratch.settings().inner_mtu;
        if inner.len() > usize::from(mtu) {
            return self.too_large(engine, entered, mtu, scratch);
        }
        if let Some(limit) = scratch.settings().mss
            && let Some(place) = mss::find(inner, limit)
            && let Some(copy) = scratch.out().get_mut(..datagram.payload.len())
        {
            copy.copy_from_slice(datagram.payload);
            if let Some(inner) = copy.get_mut(found.header_len..) {
                place.write(inner);
            }
            let written = Written {
                tunnel: datagram.back(),
                len: datagram.payload.len(),
                endpoint: found.endpoint,
            };
            return send(scratch, Outcome::Rewritten, written);
        }
        scratch.counters().count(Outcome::Returned);
        scratch
            .counters()
            .sent(found.endpoint, datagram.payload.len());
        Answer::Return
    }

    /// Returns whether any datagram is held.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns the counters and the known tunnels. They are not of one instant while datagrams
    /// come.
    #[must_use]
    pub fn stats(&self) -> FrontStats {
        let counters = self.counters.lock();
        FrontStats::sum(&counters, &self.known.read())
    }

    /// Returns the tunnel of a reference in a session of an engine that this front end feeds.
    ///
    /// Returns `None` for [`TunnelRef::NONE`] and for a reference whose tunnel is no longer known.
    /// References have no meaning for another front end.
    #[must_use]
    pub fn describe(&self, tunnel: TunnelRef) -> Option<TunnelDescription> {
        let (reference, port, cookie) = split_ref(tunnel);
        let known = self.known.read();
        let end = known.end(reference)?;
        Some(TunnelDescription {
            endpoint: end.endpoint,
            attachment: end.attachment,
            cookie: end.cookie_offset.map(|_| cookie),
            peer: end.peer,
            local: end.local,
            port,
        })
    }

    /// Returns a moment in seconds since the front end's origin.
    fn second(&self, now: Instant) -> u32 {
        u32::try_from(self.origin.micros(now).0 / 1_000_000).unwrap_or(u32::MAX)
    }

    /// Returns the number of an endpoint, refused or not; 0 for none.
    #[cold]
    fn number_of(&self, endpoint: Option<EndpointId>) -> u16 {
        let seen = self.known.read().number_in_force(endpoint);
        seen.unwrap_or_else(|| self.known.write().add_endpoint(endpoint, Standing::Seen))
    }
}
