//! Metrics for Prometheus, in OpenMetrics or in the older text format ([`super::exposition`]):
//! counters and gauges as they are at the moment of the scrape, but for the sessions by state
//! ([`super::census`]).
//!
//! Counters end in `_total`, units are base units in the name, and every reason of an enumeration
//! is a series from the start, so that a rate has no gap where something happens for the first
//! time. `docs/METRICS.md` lists them.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use portcullis::config::parse_endpoint;
use portcullis::geneve::front::{EndpointStats, FrontStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::census::Census;
use super::checkpoint::Checkpoints;
use super::data_path::DataPath;
use super::exposition::{Format, to_prometheus};
use super::health::{Health, Unhealthy};
use super::http::Page;
use super::log::LogCounters;
use super::process::ProcessReading;
use super::reloads::Reloads;
use super::view::{WallClock, ZoneNames};

mod appliance;
mod engine;
pub(super) mod families;
mod readings;
mod store;
mod xdp;

use self::families::Families;
pub(crate) use self::readings::AllListenerCounters;
use self::readings::{CheckpointReadings, LogReadings, Readings, ReloadReadings};

/// Sources of the metrics.
pub(crate) struct Metrics {
    pub(crate) data_path: Arc<DataPath>,
    pub(crate) health: Arc<Health>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) listeners: AllListenerCounters,
    pub(crate) log: Arc<LogCounters>,
    pub(crate) started: Instant,
    /// The wall-clock time of `started`.
    pub(crate) started_at: SystemTime,
    pub(super) census: Arc<Census>,
    pub(crate) zones: Arc<ZoneNames>,
}

impl Metrics {
    /// Returns the answer to a scrape, in the format that its `Accept` headers prefer.
    pub(crate) fn page(&self, accept: &str, now: Instant) -> Page {
        let format = Format::of(accept);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.read(now)));
        let mut body = String::with_capacity(16 << 10);
        match encode(&mut body, &registry) {
            Ok(()) => Page {
                status: 200,
                content_type: format.content_type(),
                body: match format {
                    Format::OpenMetrics => body,
                    Format::Prometheus => to_prometheus(&body),
                },
            },
            Err(error) => Page::text(500, format!("{error}\n")),
        }
    }

    fn read(&self, now: Instant) -> Readings {
        let engine = &self.data_path.shared.engine;
        let front = self.data_path.shared.front.stats();
        self.data_path.shared.read_receive_overflow();
        let lines = self.log.values();
        Readings {
            stats: engine.stats(),
            tolerated: engine
                .tolerated()
                .into_iter()
                .map(|(reason, rule, count)| (reason.name(), rule, count))
                .collect(),
            limited: engine
                .policy()
                .limited()
                .map(|(limit, rule, count)| (limit.name(), rule.to_owned(), count))
                .collect(),
            rules: engine.rules(),
            clock: WallClock::now(),
            asymmetry: engine.asymmetry(),
            datagrams: engine.datagrams(),
            endpoints: self.endpoints(&front),
            front,
            data_path: Arc::clone(&self.data_path),
            stall_seconds: self.data_path.shared.longest_stall(now).as_secs_f64(),
            reasons: self
                .health
                .verdict(now)
                .iter()
                .map(Unhealthy::name)
                .collect(),
            reloads: ReloadReadings::of(&self.reloads),
            checkpoints: CheckpointReadings {
                written: self.checkpoints.written(),
                failed: self.checkpoints.failed(),
                age: self.checkpoints.age(now),
            },
            listeners: self.listeners.clone(),
            log: LogReadings {
                written: lines.written,
                dropped: lines.dropped,
                lost: self.data_path.shared.lost_events(),
                is_running: self.log.is_running(),
                is_closed: engine.log_gate().is_closed(),
            },
            observers: self.data_path.shared.observers.counts(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs_f64(),
            process: ProcessReading::take(self.started_at),
            counted: self.census.read(now),
            zones: Arc::clone(&self.zones),
        }
    }
}

impl Metrics {
    /// Returns the endpoints with their zones.
    fn endpoints(&self, front: &FrontStats) -> Vec<(String, String, EndpointStats)> {
        let config = self.data_path.shared.config.read();
        let unknown = config.geneve.unknown_zone().unwrap_or_default();
        let zone_of = |id| {
            let named = config.geneve.endpoints.iter();
            named
                .filter(|(text, _)| parse_endpoint(text) == Some(id))
                .map(|(_, zone)| zone.as_str())
                .next()
                .unwrap_or(unknown)
        };
        let row = |endpoint: &EndpointStats| match endpoint.id {
            Some(id) => (id.to_string(), zone_of(id).to_owned(), *endpoint),
            None => ("other".to_owned(), String::new(), *endpoint),
        };
        front.endpoints.iter().map(row).collect()
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut to = Families(&mut encoder);
        self.packets(&mut to)?;
        self.table(&mut to)?;
        self.sessions(&mut to)?;
        self.challenges(&mut to)?;
        self.resets_and_helpers(&mut to)?;
        self.traffic(&mut to)?;
        self.appliance(&mut to)?;
        self.store(&mut to)?;
        self.xdp(&mut to)?;
        self.process.encode(&mut to)
    }
}
