//! The packet path as those see it who stand around it: what is shared with the workers, and a way to send RSTs of sessions
//! that end by an operator's word.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;
use portcullis::geneve::front::Scratch;
use portcullis::{Config, ConfigError, Reload, SessionFilter, TunnelRef};
use serde::{Deserialize, Serialize};

use super::event_sink::EventSink;
use super::inlet::Inlet;
use super::outlet::Outlet;
use super::overrides::Overrides;
use super::shared::Shared;
use super::socket::SocketError;
use super::worker_stats::WorkerStats;

/// Sends what nobody on the packet path sends.
struct Sender {
    outlet: Outlet,
    scratch: Scratch,
}

/// The packet path from outside.
pub(crate) struct DataPath {
    pub(crate) shared: Arc<Shared>,
    overrides: Overrides,
    sender: Option<Mutex<Sender>>,
    /// What `sender` has sent.
    pub(crate) sent: WorkerStats,
}

impl DataPath {
    /// With a socket for RSTs.
    ///
    /// # Errors
    /// There is none to be had.
    pub(crate) fn new(shared: Arc<Shared>, overrides: Overrides) -> Result<Self, SocketError> {
        let sender = Sender {
            outlet: Outlet::new(&[])?,
            scratch: Scratch::new(&shared.front),
        };
        Ok(Self {
            sender: Some(Mutex::new(sender)),
            ..Self::silent(shared, overrides)
        })
    }

    /// Without one: RSTs are lost.
    pub(crate) fn silent(shared: Arc<Shared>, overrides: Overrides) -> Self {
        Self {
            shared,
            overrides,
            sender: None,
            sent: WorkerStats::default(),
        }
    }

    /// A configuration of the file as this appliance runs it: with the arguments of the start, and what the front end needs of
    /// the engine.
    pub(crate) fn adapt(&self, mut config: Config) -> Config {
        self.overrides.apply(&mut config);
        portcullis::geneve::front::FrontEnd::adapt(config)
    }

    /// The end is near: packets are served until then.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Exchanges the configuration of everything, or changes nothing. RSTs of sessions that end by it are sent.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what of it only a start can change.
    pub(crate) fn reload(&self, config: Config, now: Instant) -> Result<Reload, ConfigError> {
        let config = self.adapt(config);
        self.with_sink(|sink| self.shared.reload(config, now, sink))
    }

    /// Ends the sessions that the filter means, sends their RSTs, and says how many there were.
    pub(crate) fn end_sessions(&self, filter: &SessionFilter, now: Instant) -> usize {
        self.with_sink(|sink| self.shared.engine.end_sessions(filter, now, sink))
    }

    fn with_sink<R>(&self, work: impl FnOnce(&mut EventSink<'_>) -> R) -> R {
        let mut sink = EventSink::new(&self.shared);
        let done = work(&mut sink);
        let Some(sender) = &self.sender else {
            return done;
        };
        let mut sender = sender.lock();
        let Sender { outlet, scratch } = &mut *sender;
        for reset in &sink.resets {
            match self.shared.front.reset(reset, scratch) {
                Some(outgoing) => outlet.put_made(&outgoing.tunnel, outgoing.payload),
                None => self.sent.resets_without_tunnel.add(1),
            }
        }
        if !outlet.is_empty() {
            // All that is sent is our own: nothing was received.
            outlet.flush(&Inlet::without_sockets(), &self.sent);
        }
        done
    }

    /// What packets of a session come in, as far as that is still known.
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

/// What packets of one direction of a session come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
