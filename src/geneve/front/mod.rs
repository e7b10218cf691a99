//! The front end between an appliance's sockets and the engine, without a socket of its own.
//!
//! A datagram to UDP port 6081 goes in ([`FrontEnd::handle`]), and what is to be sent for it comes out: the same bytes, an answer
//! of our own in the right tunnel header, or nothing. Every datagram has exactly one outcome, and a counter for it
//! ([`FrontStats`]).
//!
//! **The reply rule** of the load balancers: the outer IP addresses are swapped, both UDP ports stay as they came, and the GENEVE
//! header goes back byte for byte. What the engine forwards is returned untouched ([`Answer::Return`]): no byte of it is
//! even copied, unless `mss_clamp` asks for it.
//!
//! **Packets of our own** (a RST, an ICMP error) can only travel in a flow that the balancer knows. The engine keeps for each
//! session and direction a [`TunnelRef`] of the newest packet: the number of an interned [tunnel end](TunnelDescription),
//! the outer source port and the flow cookie. A packet of our own takes that of the direction in which it travels, else that
//! of the other one. For the engine to keep them, [`FrontEnd::adapt`] sets `engine.tunnel_references`.
//!
//! **Flows of the balancer**: a SYN with another cookie than the last packet of its session and direction is the first of a new
//! flow, and so of a new session, if the policy admits it.
//!
//! **Zones**: the endpoint id in the header says which zone a packet is in. Endpoints that nobody has named are refused or
//! share a zone. Nothing is made for an endpoint but an entry of a bounded table.
//!
//! Threads share one front end and have a [`Scratch`] each, which remembers the headers that came last: a packet whose header
//! differs from one of those in nothing but the cookie needs no second look at its options. Only the first packet of a
//! tunnel end allocates.
//!
//! ```
//! use std::time::Instant;
//! use portcullis::geneve::front::{Answer, Datagram, FrontEnd, Scratch};
//! use portcullis::{Config, Engine};
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
//! match front.handle(&engine, &datagram, Instant::now(), &mut scratch, &mut ()) {
//!     Answer::Return => { /* send `datagram.payload` to `datagram.back()` */ }
//!     Answer::Send(outgoing) => { /* send `outgoing.payload` to `outgoing.tunnel` */ }
//!     Answer::Nothing(reason) => println!("{}", reason.name()),
//! }
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
mod ends;
mod mss;
mod scratch;
mod settings;
mod stats;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use self::ends::Known;
pub use self::scratch::Scratch;
use self::scratch::{Found, split_ref};
use self::settings::Settings;
use self::stats::{Counters, Outcome};
pub use self::stats::{EndpointStats, FrontStats, NotSent, Refusal};
use super::EndpointId;
use crate::config::{Config, ConfigError};
use crate::engine::{Engine, Packet};
use crate::event::Sink;
use crate::reset::{self, Reset};
use crate::session::TunnelRef;
use crate::verdict::Verdict;

/// One received datagram, as the socket gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The outer source address: the load balancer's.
    pub source: Ipv4Addr,
    /// The outer UDP source port.
    pub source_port: u16,
    /// The outer destination address: ours.
    pub destination: Ipv4Addr,
    /// The outer UDP destination port: [`super::PORT`].
    pub destination_port: u16,
    /// The UDP payload: a GENEVE header and the packet in it.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// The tunnel in which this datagram goes back: the addresses are swapped, the ports are not.
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

/// The outer addresses and ports of a datagram that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The source address: ours.
    pub source: Ipv4Addr,
    /// The destination address: the load balancer's.
    pub destination: Ipv4Addr,
    /// The UDP source port: that with which the load balancer has sent.
    pub source_port: u16,
    /// The UDP destination port.
    pub destination_port: u16,
}

/// A datagram that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Where it goes.
    pub tunnel: Tunnel,
    /// Its UDP payload.
    pub payload: &'a [u8],
}

/// What is to be sent for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an answer that nobody sends lets nothing through"]
pub enum Answer<'a> {
    /// The same UDP payload, to [`Datagram::back`].
    Return,
    /// This: a reject, an ICMP error, or the SYN with a smaller MSS.
    Send(Outgoing<'a>),
    /// Nothing.
    Nothing(NotSent),
}

/// What a [`TunnelRef`] stands for.
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
    /// Our address.
    pub local: Ipv4Addr,
    /// The outer UDP source port.
    pub port: u16,
}

/// The front end. See the [module](self).
#[derive(Debug)]
pub struct FrontEnd {
    settings: RwLock<Arc<Settings>>,
    /// That of the settings: who has seen another one looks again.
    epoch: AtomicU64,
    known: RwLock<Known>,
    /// One for each [`Scratch`] that there is or was.
    counters: Mutex<Vec<Arc<Counters>>>,
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<FrontEnd>();
};

impl FrontEnd {
    /// A front end with the settings of `[geneve]` and the zones of a configuration.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let settings = Settings::new(config);
        Ok(Self {
            epoch: AtomicU64::new(settings.epoch),
            settings: RwLock::new(Arc::new(settings)),
            known: RwLock::new(Known::new(&config.geneve)),
            counters: Mutex::new(Vec::new()),
        })
    }

    /// A configuration with what a front end needs of the engine: that sessions remember their tunnels.
    #[must_use]
    pub fn adapt(mut config: Config) -> Config {
        config.engine.tunnel_references = true;
        config
    }

    /// Whether [`FrontEnd::reload`] would take this configuration over.
    ///
    /// # Errors
    /// As those of `reload`.
    pub fn check_reload(&self, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        config.check_tunnel(&self.settings.read().config)
    }

    /// Exchanges the settings. Each thread takes the new ones over with its next datagram.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what of `[geneve]` only a start can change: the provider, the addresses to
    /// listen at, the sizes of tables. Nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        self.check_reload(config)?;
        let settings = Settings::new(config);
        let mut own = self.settings.write();
        self.epoch.store(settings.epoch, Ordering::Release);
        *own = Arc::new(settings);
        Ok(())
    }

    /// Decides a datagram that came at `now`, and says what to send for it. `sink` learns of the sessions that open and end
    /// by it, and gets the RSTs that the engine makes, for [`FrontEnd::reset`].
    pub fn handle<'b, S: Sink>(
        &self,
        engine: &Engine,
        datagram: &'b Datagram<'b>,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> Answer<'b> {
        scratch.follow(self);
        let found = match scratch.find(self, datagram) {
            Ok(found) => found,
            Err(refusal) => {
                scratch.counters().received(0, datagram.payload.len());
                return nothing(scratch, NotSent::Refused(refusal));
            }
        };
        scratch
            .counters()
            .received(found.endpoint, datagram.payload.len());
        let inner = datagram.payload.get(found.header_len..).unwrap_or_default();
        let packet = Packet::new(inner, now)
            .zone(found.zone)
            .tunnel(found.tunnel(datagram))
            .flow_bits(found.flow_bits);
        match engine.process_with(packet, sink) {
            Verdict::Forward(_) => {}
            Verdict::Drop(reason, _) => return nothing(scratch, NotSent::Dropped(reason)),
            Verdict::Reject(reason, reply, _) => {
                let written = self.answer(engine, (datagram, &found, packet), scratch, |out| {
                    reset::write_reply(reply, inner, out).map(<[u8]>::len)
                });
                return match written {
                    Some((tunnel, len)) => send(scratch, Outcome::Replied, &found, tunnel, len),
                    None => nothing(scratch, NotSent::Unanswered(reason)),
                };
            }
        }
        let mtu = scratch.settings().inner_mtu;
        if inner.len() > usize::from(mtu) {
            let written = self.answer(engine, (datagram, &found, packet), scratch, |out| {
                reset::write_too_big(mtu, inner, out).map(<[u8]>::len)
            });
            return match written {
                Some((tunnel, len)) => send(scratch, Outcome::TooBig, &found, tunnel, len),
                None => nothing(scratch, NotSent::Refused(Refusal::TooLarge)),
            };
        }
        if let Some(limit) = scratch.settings().mss
            && let Some(place) = mss::find(inner, limit)
            && let Some(copy) = scratch.out().get_mut(..datagram.payload.len())
        {
            copy.copy_from_slice(datagram.payload);
            if let Some(inner) = copy.get_mut(found.header_len..) {
                place.write(inner);
            }
            let len = datagram.payload.len();
            return send(scratch, Outcome::Rewritten, &found, datagram.back(), len);
        }
        scratch.counters().count(Outcome::Returned);
        scratch.counters().sent(found.endpoint, datagram.payload.len());
        Answer::Return
    }

    /// A RST that a [`Sink`] was given, in the right tunnel header; `None` if no header of its session is known.
    pub fn reset<'b>(&self, reset: &Reset, scratch: &'b mut Scratch) -> Option<Outgoing<'b>> {
        scratch.follow(self);
        let Some((tunnel, header_len, endpoint)) = self.write_header(reset.tunnel, scratch.out()) else {
            scratch.counters().count(Outcome::ResetLost);
            return None;
        };
        let bytes = reset.bytes();
        scratch
            .out()
            .get_mut(header_len..header_len + bytes.len())?
            .copy_from_slice(bytes);
        let len = header_len + bytes.len();
        scratch.counters().count(Outcome::Reset);
        scratch.counters().sent(endpoint, len);
        let payload = scratch.out().get(..len)?;
        Some(Outgoing { tunnel, payload })
    }

    /// The counters, and what is known of tunnels. Not of one instant while datagrams come.
    #[must_use]
    pub fn stats(&self) -> FrontStats {
        let counters = self.counters.lock();
        FrontStats::sum(&counters, &self.known.read())
    }

    /// What a reference stands for: one of a session of an engine that this front end feeds. `None` for
    /// [`TunnelRef::NONE`] and for one of a former run.
    #[must_use]
    pub fn describe(&self, tunnel: TunnelRef) -> Option<TunnelDescription> {
        let (number, port, cookie) = split_ref(tunnel);
        let known = self.known.read();
        let end = known.end(number)?;
        Some(TunnelDescription {
            endpoint: end.endpoint,
            attachment: end.attachment,
            cookie: end.cookie_offset.map(|_| cookie),
            peer: end.peer,
            local: end.local,
            port,
        })
    }

    /// Writes a packet of our own that answers one, behind the header in which it goes back; where it goes, and the length
    /// of all.
    #[cold]
    #[inline(never)]
    fn answer(
        &self,
        engine: &Engine,
        (datagram, found, packet): (&Datagram<'_>, &Found, Packet<'_>),
        scratch: &mut Scratch,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<(Tunnel, usize)> {
        let known = self.write_header(engine.tunnel_back(packet), scratch.out());
        let (tunnel, header_len) = match known {
            Some((tunnel, header_len, _)) => (tunnel, header_len),
            // Nothing is known of the other direction: back the way it came.
            None => {
                let header = datagram.payload.get(..found.header_len)?;
                scratch.out().get_mut(..found.header_len)?.copy_from_slice(header);
                (datagram.back(), found.header_len)
            }
        };
        let written = write(scratch.out().get_mut(header_len..)?)?;
        Some((tunnel, header_len + written))
    }

    /// Writes the header that a reference stands for: where a datagram with it goes, its length, and the number of its
    /// endpoint.
    fn write_header(&self, tunnel: TunnelRef, out: &mut [u8]) -> Option<(Tunnel, usize, u16)> {
        let (number, port, cookie) = split_ref(tunnel);
        let known = self.known.read();
        let end = known.end(number)?;
        let len = end.header.len();
        out.get_mut(..len)?.copy_from_slice(&end.header);
        if let Some(offset) = end.cookie_offset {
            out.get_mut(offset..offset + 4)?
                .copy_from_slice(&cookie.to_be_bytes());
        }
        let tunnel = Tunnel {
            source: end.local,
            destination: end.peer,
            source_port: port,
            destination_port: end.local_port,
        };
        Some((tunnel, len, end.number_of_endpoint))
    }
}

fn nothing(scratch: &Scratch, reason: NotSent) -> Answer<'static> {
    scratch.counters().not_sent(reason);
    Answer::Nothing(reason)
}

fn send<'b>(
    scratch: &'b mut Scratch,
    outcome: Outcome,
    found: &Found,
    tunnel: Tunnel,
    len: usize,
) -> Answer<'b> {
    scratch.counters().count(outcome);
    scratch.counters().sent(found.endpoint, len);
    let payload = scratch.written(len);
    Answer::Send(Outgoing { tunnel, payload })
}
