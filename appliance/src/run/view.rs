//! Sessions as rows of JSON, in the session log and over the control socket.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;
use portcullis::config::Zones;
use portcullis::policy::CompiledPolicy;
use portcullis::{Config, ConfigError, SessionRecord, TunnelRef, Zone};
use serde::{Deserialize, Serialize};

use super::data_path::{DataPath, TunnelView};
use super::rates::TrafficRate;
use crate::session_view::{SessionNames, SessionView};

/// Map from the engine's instants to wall-clock time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    instant: Instant,
    time: SystemTime,
}

impl WallClock {
    /// Reads both clocks.
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    /// Returns the time of an instant since the Unix epoch.
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

    /// Returns the time of an instant in seconds since the Unix epoch.
    pub(crate) fn seconds(&self, moment: Instant) -> f64 {
        // The engine's resolution is a microsecond.
        self.at(moment).as_micros() as f64 / 1e6
    }
}

/// Names of zones in the configuration in force.
#[derive(Debug)]
pub(crate) struct ZoneNames(RwLock<Zones>);

impl ZoneNames {
    /// Returns the names in a configuration.
    ///
    /// # Errors
    /// Returns an error if the configuration does not compile.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self(RwLock::new(config.compile()?.zones)))
    }

    /// Replaces the names with those of another configuration.
    pub(crate) fn replace(&self, zones: Zones) {
        *self.0.write() = zones;
    }

    /// Returns the name of a zone; its number if it has none.
    pub(crate) fn name(&self, zone: Zone) -> String {
        let zones = self.0.read();
        zones
            .name(zone)
            .map_or_else(|| zone.to_string(), str::to_owned)
    }

    /// Returns the zone with a name or number.
    pub(crate) fn zone(&self, name: &str) -> Option<Zone> {
        self.0
            .read()
            .zone(name)
            .or_else(|| name.parse().ok().map(Zone))
    }
}

/// Live session, as the listing and the log show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListedSession {
    /// Number of the session while it lives.
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) session: SessionView,
    pub(crate) assured: bool,
    /// Seconds until the session ends if no other packet arrives.
    pub(crate) left: f64,
    /// Traffic per second, if it was asked for and is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<TrafficRate>,
    /// Tunnels of the newest packet of each direction, the original direction first.
    #[serde(default, skip_serializing_if = "nothing_known")]
    pub(crate) tunnels: [Option<TunnelView>; 2],
}

fn nothing_known(tunnels: &[Option<TunnelView>; 2]) -> bool {
    tunnels.iter().all(Option::is_none)
}

/// Renders records of sessions.
pub(crate) struct Viewer<'a> {
    pub(crate) data_path: &'a DataPath,
    pub(crate) zones: &'a ZoneNames,
    pub(crate) policy: &'a CompiledPolicy,
    pub(crate) clock: WallClock,
    pub(crate) now: Instant,
}

impl Viewer<'_> {
    /// Returns the view of a session.
    pub(crate) fn view(&self, session: &SessionRecord) -> ListedSession {
        let names = SessionNames {
            zone: self.zones.name(session.zone),
            rule: self.policy.rule_name(session.rule).to_owned(),
            parent: session.parent.map(portcullis::SessionId::number),
        };
        ListedSession {
            id: session.id.number(),
            session: SessionView::new(session, names, |moment| self.clock.seconds(moment)),
            assured: session.assured,
            left: session
                .expires
                .saturating_duration_since(self.now)
                .as_secs_f64(),
            rate: None,
            tunnels: session.tunnels.map(|tunnel| self.tunnel(tunnel)),
        }
    }

    /// Returns the tunnel of a packet, if it is still known.
    pub(crate) fn tunnel(&self, tunnel: TunnelRef) -> Option<TunnelView> {
        (tunnel != TunnelRef::NONE)
            .then(|| self.data_path.describe(tunnel))
            .flatten()
    }
}
