//! A session as a row of JSON: in the session log, and to whoever asks by the control socket.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;
use portcullis::config::Zones;
use portcullis::policy::{Policy, Protocol};
use portcullis::{Config, ConfigError, SessionRecord, TunnelRef, Zone};
use serde::{Deserialize, Serialize};

use super::data_path::{DataPath, TunnelView};
use crate::session_ports::port_or_identifier;

/// Maps the engine's moments to wall-clock time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    instant: Instant,
    time: SystemTime,
}

impl WallClock {
    /// Both clocks now.
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    /// Since the Unix epoch.
    pub(crate) fn at(&self, moment: Instant) -> Duration {
        let time = match self.instant.checked_duration_since(moment) {
            Some(ago) => self.time.checked_sub(ago),
            None => self
                .time
                .checked_add(moment.saturating_duration_since(self.instant)),
        };
        time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .unwrap_or_default()
    }

    /// Seconds since the Unix epoch.
    pub(crate) fn seconds(&self, moment: Instant) -> f64 {
        // Microseconds are what the engine knows.
        self.at(moment).as_micros() as f64 / 1e6
    }
}

/// The names of zones, as the configuration in force has them.
#[derive(Debug)]
pub(crate) struct ZoneNames(RwLock<Zones>);

impl ZoneNames {
    /// The names in a configuration.
    ///
    /// # Errors
    /// It does not compile.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self(RwLock::new(config.compile()?.zones)))
    }

    /// Takes over the names of another configuration, if it compiles.
    pub(crate) fn replace(&self, config: &Config) {
        if let Ok(compiled) = config.compile() {
            *self.0.write() = compiled.zones;
        }
    }

    /// The name of a zone; its number if it has none.
    pub(crate) fn name(&self, zone: Zone) -> String {
        let zones = self.0.read();
        zones.name(zone).map_or_else(|| zone.to_string(), str::to_owned)
    }

    /// The zone of a name or number.
    pub(crate) fn zone(&self, name: &str) -> Option<Zone> {
        self.0.read().zone(name).or_else(|| name.parse().ok().map(Zone))
    }
}

/// A session as a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionView {
    /// Its name while it lives.
    pub(crate) id: u64,
    pub(crate) zone: String,
    /// The protocol's name, or its number.
    pub(crate) proto: String,
    pub(crate) src: IpAddr,
    /// The port, or an ICMP query's identifier.
    pub(crate) sport: Option<u16>,
    pub(crate) dst: IpAddr,
    pub(crate) dport: Option<u16>,
    pub(crate) state: String,
    pub(crate) assured: bool,
    /// Zeek's letters.
    pub(crate) history: String,
    /// Zeek's state of the connection.
    pub(crate) conn_state: String,
    pub(crate) orig_pkts: u32,
    /// IP bytes.
    pub(crate) orig_bytes: u64,
    pub(crate) reply_pkts: u32,
    /// IP bytes.
    pub(crate) reply_bytes: u64,
    /// Seconds since the Unix epoch.
    pub(crate) start: f64,
    /// Seconds since the Unix epoch: the last packet that counted.
    pub(crate) last: f64,
    /// Seconds until it ends if nothing else comes.
    pub(crate) left: f64,
    pub(crate) rule: String,
    pub(crate) parent: Option<u64>,
    /// It was picked up in the middle of its connection.
    pub(crate) adopted: bool,
    /// It goes on with one that had ended.
    pub(crate) resumed: bool,
    /// Half of it is missing.
    pub(crate) bypassed: bool,
    /// What the newest packet of each direction came in, original first.
    #[serde(default, skip_serializing_if = "nothing_known")]
    pub(crate) tunnels: [Option<TunnelView>; 2],
}

fn nothing_known(tunnels: &[Option<TunnelView>; 2]) -> bool {
    tunnels.iter().all(Option::is_none)
}

impl SessionView {
    /// Bytes of both directions.
    pub(crate) fn bytes(&self) -> u64 {
        self.orig_bytes.saturating_add(self.reply_bytes)
    }

    /// Packets of both directions.
    pub(crate) fn packets(&self) -> u64 {
        u64::from(self.orig_pkts) + u64::from(self.reply_pkts)
    }
}

/// What turns records into rows.
pub(crate) struct Viewer<'a> {
    pub(crate) data_path: &'a DataPath,
    pub(crate) zones: &'a ZoneNames,
    pub(crate) policy: &'a Policy,
    pub(crate) clock: WallClock,
    pub(crate) now: Instant,
}

impl Viewer<'_> {
    pub(crate) fn view(&self, session: &SessionRecord) -> SessionView {
        let port = |port| self.port(session.protocol, port);
        SessionView {
            id: session.id.number(),
            zone: self.zones.name(session.zone),
            proto: Protocol(session.protocol).to_string(),
            src: session.src,
            sport: port(session.src_port),
            dst: session.dst,
            dport: port(session.dst_port),
            state: session.state.to_owned(),
            assured: session.assured,
            history: session.history.to_string(),
            conn_state: session.conn_state().to_owned(),
            orig_pkts: session.original.packets,
            orig_bytes: session.original.bytes,
            reply_pkts: session.reply.packets,
            reply_bytes: session.reply.bytes,
            start: self.clock.seconds(session.start),
            last: self.clock.seconds(session.last),
            left: session.expires.saturating_duration_since(self.now).as_secs_f64(),
            rule: self.policy.rule_name(session.rule).to_owned(),
            parent: session.parent.map(portcullis::SessionId::number),
            adopted: session.adopted,
            resumed: session.resumed,
            bypassed: session.bypassed,
            tunnels: session.tunnels.map(|tunnel| self.tunnel(tunnel)),
        }
    }

    /// The port, or an ICMP query's identifier, of a protocol that has either.
    pub(crate) fn port(&self, protocol: u8, port: u16) -> Option<u16> {
        port_or_identifier(Protocol(protocol), port)
    }

    /// What a packet came in, as far as that is still known.
    pub(crate) fn tunnel(&self, tunnel: TunnelRef) -> Option<TunnelView> {
        (tunnel != TunnelRef::NONE)
            .then(|| self.data_path.describe(tunnel))
            .flatten()
    }
}
