//! Packet path for its surroundings: the state shared with the workers, and a socket for the RSTs
//! of sessions that an operator ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;
use portcullis::geneve::front::{Answer, Released, Scratch};
use portcullis::{Config, ConfigError, Reload, SessionFilter, TunnelRef};
use serde::{Deserialize, Serialize};

use super::event_sink::EventSink;
use super::inlet::Inlet;
use super::observe::tap::{Tap, TapState};
use super::outlet::Outlet;
use super::overrides::Overrides;
use super::settings::Settings;
use super::shared::Shared;
use super::socket::SocketError;
use super::worker_stats::WorkerStats;

/// Socket for RSTs, and for held packets after an answer of the store, that no worker sends.
struct Sender {
    outlet: Outlet,
    /// Empty inlet: no received datagram is sent here.
    inlet: Inlet,
    scratch: Scratch,
}

/// Packet path for its surroundings.
pub(crate) struct DataPath {
    pub(crate) shared: Arc<Shared>,
    overrides: Overrides,
    sender: Option<Mutex<Sender>>,
    /// Budgets of the stream of events between two calls; `None` while a call uses them. Calls of
    /// the control socket, of a reload and of the store's threads may overlap.
    taps: [Mutex<Option<TapState>>; 5],
    /// Counters of `sender`.
    pub(crate) sent: WorkerStats,
}

impl DataPath {
    /// Returns a data path with a socket for RSTs.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub(crate) fn new(shared: Arc<Shared>, overrides: Overrides) -> Result<Self, SocketError> {
        let sender = Sender {
            outlet: Outlet::new(&[])?,
            inlet: Inlet::without_sockets(),
            scratch: Scratch::new(&shared.front),
        };
        Ok(Self {
            sender: Some(Mutex::new(sender)),
            ..Self::silent(shared, overrides)
        })
    }

    /// Returns a data path without a socket: RSTs are lost.
    pub(crate) fn silent(shared: Arc<Shared>, overrides: Overrides) -> Self {
        Self {
            shared,
            overrides,
            sender: None,
            taps: std::array::from_fn(|_| Mutex::new(Some(TapState::new(Instant::now())))),
            sent: WorkerStats::default(),
        }
    }

    /// Returns the configuration of a file as this appliance runs it: with the overrides of the
    /// start, and adapted to the front end.
    pub(crate) fn adapt(&self, mut config: Config) -> Config {
        self.overrides.apply(&mut config);
        portcullis::geneve::front::FrontEnd::adapt(config)
    }

    /// Puts the arguments of the start in place of the appliance's own settings.
    pub(crate) fn adapt_settings(&self, settings: &mut Settings) {
        self.overrides.apply_own(settings);
    }

    /// Marks the appliance as draining; packets are still served, through the sockets.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.leave_xdp();
    }

    /// Replaces the configuration of engine and front end, or changes nothing. Sends the RSTs of
    /// sessions that end.
    ///
    /// # Errors
    /// The configuration is invalid, or differs in a key that only a restart changes.
    pub(crate) fn reload(&self, config: Config, now: Instant) -> Result<Reload, ConfigError> {
        let config = self.adapt(config);
        self.with_sink(|sink| self.shared.reload(config, now, sink))
    }

    /// Ends the sessions that a filter selects, sends their RSTs, and returns their number.
    pub(crate) fn end_sessions(&self, filter: &SessionFilter, now: Instant) -> usize {
        self.with_sink(|sink| self.shared.engine.end_sessions(filter, now, sink))
    }

    /// Lets `work` use the engine with a sink, and sends the RSTs that follow. With a store, also
    /// sends the datagrams that were held and wait no longer.
    pub(super) fn with_sink<R>(&self, work: impl FnOnce(&mut EventSink<'_>) -> R) -> R {
        let observers = &self.shared.observers;
        let tap = Tap::borrowed(observers, &self.taps, Instant::now());
        let mut sink = EventSink::with_tap(&self.shared, tap);
        let done = work(&mut sink);
        let Some(sender) = &self.sender else {
            return done;
        };
        let mut sender = sender.lock();
        let Sender {
            outlet,
            inlet,
            scratch,
        } = &mut *sender;
        let Shared { engine, front, .. } = &*self.shared;
        if self.shared.store.is_some() {
            let now = Instant::now();
            while let Some(released) = front.decide_released(engine, now, scratch, &mut sink) {
                let Released { datagram, decision } = released;
                if let Answer::Send(outgoing) = decision.answer {
                    outlet.put_made(&outgoing.tunnel, outgoing.payload);
                }
                sink.tap.packet(&datagram, &decision);
            }
        }
        let EventSink { resets, tap, .. } = &mut sink;
        for reset in resets.iter() {
            let outgoing = front.reset(reset, scratch);
            tap.reset(reset, outgoing.is_some());
            match outgoing {
                Some(outgoing) => outlet.put_made(&outgoing.tunnel, outgoing.payload),
                None => self.sent.resets_without_tunnel.add(1),
            }
        }
        if !outlet.is_empty() {
            outlet.flush(inlet, &self.sent);
        }
        done
    }

    /// Returns the tunnel of a session, if it is still known.
    pub(crate) fn describe(&self, tunnel: TunnelRef) -> Option<TunnelView> {
        let found = self.shared.front.describe(tunnel)?;
        Some(TunnelView {
            endpoint: found.endpoint.map(|endpoint| endpoint.to_string()),
            attachment: found.attachment.map(|id| format!("{id:#018x}")),
            cookie: found.cookie.map(|cookie| format!("{cookie:#010x}")),
            peer: found.peer.to_string(),
            port: found.port,
        })
    }
}

/// Tunnel of one direction of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct TunnelView {
    /// The endpoint's id.
    pub(crate) endpoint: Option<String>,
    /// The attachment's id.
    pub(crate) attachment: Option<String>,
    /// The flow cookie.
    pub(crate) cookie: Option<String>,
    /// The load balancer's address.
    pub(crate) peer: String,
    /// The outer UDP source port.
    pub(crate) port: u16,
}
