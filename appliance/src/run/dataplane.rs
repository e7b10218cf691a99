//! What stands around the packet path sees of it: an engine, workers that turn, endpoints that are counted.

use std::time::{Duration, Instant};

use portcullis::{Config, ConfigError, Engine, Reload, SessionFilter, TunnelRef};
use serde::{Deserialize, Serialize};

/// The part of the appliance that decides packets.
pub(crate) trait Dataplane: Send + Sync {
    /// The engine.
    fn engine(&self) -> &Engine;

    /// The workers' counters, by their number.
    fn workers(&self) -> Vec<WorkerReading>;

    /// For how long the worker that has been still for longest has not turned.
    fn longest_stall(&self, now: Instant) -> Duration;

    /// Traffic by endpoint.
    fn endpoints(&self) -> Vec<EndpointReading>;

    /// Datagrams that the front end did not pass to the engine, by reason.
    fn refused(&self) -> Vec<(&'static str, u64)>;

    /// What packets of a session come in, as far as that is still known.
    fn describe(&self, tunnel: TunnelRef) -> Option<TunnelView>;

    /// Events of sessions that did not find room in the queue of the session log.
    fn lost_events(&self) -> u64;

    /// A configuration as the appliance would run it: with what its front end needs of the engine.
    fn adapt(&self, config: Config) -> Config;

    /// The end is near: packets are served until then.
    fn drain(&self);

    /// Exchanges the configuration of everything, or changes nothing. RSTs of sessions that end by it are sent.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what of it only a start can change.
    fn reload(&self, config: Config, now: Instant) -> Result<Reload, ConfigError>;

    /// Ends the sessions that the filter means, sends their RSTs, and says how many there were.
    fn end_sessions(&self, filter: &SessionFilter, now: Instant) -> usize;
}

/// What a worker has done since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WorkerReading {
    /// Turns of its loop.
    pub(crate) turns: u64,
    /// Datagrams received, and the bytes of their UDP payload.
    pub(crate) received: [u64; 2],
    /// Datagrams that were longer than the buffer.
    pub(crate) truncated: u64,
    /// Datagrams sent back as they came.
    pub(crate) returned: u64,
    /// Datagrams of the appliance's own: replies, errors, RSTs, rewritten SYNs.
    pub(crate) made: u64,
    /// UDP payload bytes sent.
    pub(crate) sent_bytes: u64,
    /// Datagrams that the system did not take, by reason.
    pub(crate) send_faults: Vec<(&'static str, u64)>,
    /// Calls that received something, by how many datagrams they brought: those up to each bound and above the one before
    /// it, smallest bound first. The last has no bound.
    pub(crate) batches: Vec<(Option<u64>, u64)>,
    /// RSTs whose tunnel is not known any more.
    pub(crate) resets_without_tunnel: u64,
}

/// Traffic of an endpoint since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EndpointReading {
    /// Its id as people write it.
    pub(crate) endpoint: String,
    /// The name of its zone.
    pub(crate) zone: String,
    /// Packets received, and their inner bytes.
    pub(crate) received: [u64; 2],
    /// Packets returned, and their inner bytes.
    pub(crate) returned: [u64; 2],
}

/// What packets of one direction of a session come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelView {
    /// The endpoint's id.
    pub(crate) endpoint: String,
    /// The attachment's id.
    pub(crate) attachment: String,
    /// The flow cookie.
    pub(crate) cookie: String,
    /// The load balancer's address.
    pub(crate) peer: String,
    /// The outer UDP source port.
    pub(crate) port: u16,
}

/// A session has opened or ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionEvent {
    /// It was opened by an admitted packet.
    Opened(portcullis::SessionRecord),
    /// It has ended.
    Ended(portcullis::SessionRecord, portcullis::EndReason),
}
