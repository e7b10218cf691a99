//! Metrics for Prometheus, in OpenMetrics or in the older text format ([`super::exposition`]):
//! counters and gauges as they are at the moment of the scrape, but for the sessions by state
//! ([`super::census`]).
//!
//! Counters end in `_total`, units are base units in the name, and every reason of an enumeration is a series from the start,
//! so that a rate has no gap where something happens for the first time. `docs/METRICS.md` lists them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis::asymmetry::AsymmetryReport;
use portcullis::config::parse_endpoint;
use portcullis::geneve::front::{EndpointStats, FrontStats};
use portcullis::{RuleUse, Stats, Zone};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::census::{Census, Counted, protocol_label};
use super::checkpoint::Checkpoints;
use super::exposition::{Format, to_prometheus};
use super::health::{Health, Unhealthy};
use super::http::{DoorCounters, Page};
use super::log::LogCounters;
use super::log::queue::LostEvents;
use super::plane::Plane;
use super::process::ProcessReading;
use super::reload::Reloads;
use super::shared::{SendFault, WorkerStats};
use super::view::{WallClock, ZoneNames};

/// Everything that is read for a scrape.
struct Readings {
    plane: Arc<Plane>,
    stats: Stats,
    tolerated: Vec<(&'static str, String, u64)>,
    /// By limit and rule.
    limited: Vec<(&'static str, String, u64)>,
    rules: Vec<RuleUse>,
    clock: WallClock,
    asymmetry: AsymmetryReport,
    datagrams: usize,
    front: FrontStats,
    endpoints: Vec<(String, String, EndpointStats)>,
    stall_seconds: f64,
    reasons: Vec<&'static str>,
    reloads: ReloadReadings,
    checkpoints: CheckpointReadings,
    doors: Doors,
    log: LogReadings,
    uptime_seconds: f64,
    process: ProcessReading,
    counted: Counted,
    zones: Arc<ZoneNames>,
}

/// Of reloads.
#[derive(Debug, Clone, Copy)]
struct ReloadReadings {
    applied: u64,
    refused: u64,
    has_failed: bool,
    waiting: usize,
}

impl ReloadReadings {
    fn of(reloads: &Reloads) -> Self {
        Self {
            applied: reloads.applied(),
            refused: reloads.refused(),
            has_failed: reloads.has_failed(),
            waiting: reloads.state().waiting.len(),
        }
    }
}

/// Of checkpoints.
#[derive(Debug, Clone, Copy)]
struct CheckpointReadings {
    written: u64,
    failed: u64,
    age: Option<Duration>,
}

/// What the listeners count.
#[derive(Clone, Default)]
pub(crate) struct Doors {
    /// `health.listen`.
    pub(crate) health: Arc<DoorCounters>,
    /// `health.tcp_listen`, which holds no connection.
    pub(crate) health_tcp: Arc<DoorCounters>,
    /// `metrics.listen`, if it is another address than `health.listen`.
    pub(crate) metrics: Arc<DoorCounters>,
}

/// Of the session log.
#[derive(Debug, Clone, Copy)]
struct LogReadings {
    written: u64,
    dropped: u64,
    lost: LostEvents,
    is_running: bool,
}

/// Where the numbers come from.
pub(crate) struct Metrics {
    pub(crate) plane: Arc<Plane>,
    pub(crate) health: Arc<Health>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) doors: Doors,
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
        let engine = &self.plane.shared.engine;
        let front = self.plane.shared.front.stats();
        self.plane.shared.read_receive_overflow();
        let (written, dropped) = self.log.values();
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
            plane: Arc::clone(&self.plane),
            stall_seconds: self.plane.shared.longest_stall(now).as_secs_f64(),
            reasons: self.health.verdict(now).iter().map(Unhealthy::name).collect(),
            reloads: ReloadReadings::of(&self.reloads),
            checkpoints: CheckpointReadings {
                written: self.checkpoints.written(),
                failed: self.checkpoints.failed(),
                age: self.checkpoints.age(now),
            },
            doors: self.doors.clone(),
            log: LogReadings {
                written,
                dropped,
                lost: self.plane.shared.lost_events(),
                is_running: self.log.is_running(),
            },
            uptime_seconds: now.saturating_duration_since(self.started).as_secs_f64(),
            process: ProcessReading::take(self.started_at),
            counted: self.census.read(now),
            zones: Arc::clone(&self.zones),
        }
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Endpoints with their zones.
    fn endpoints(&self, front: &FrontStats) -> Vec<(String, String, EndpointStats)> {
        let config = self.plane.shared.config.read();
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

/// A label set whose values live as long as the scrape.
#[derive(Debug, Clone, Copy)]
struct Labels<'a>(&'a [(&'static str, &'a str)]);

impl prometheus_client::encoding::EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        for label in self.0 {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

type Written = Result<(), fmt::Error>;

/// Writes families one after the other.
pub(super) struct Families<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Families<'_, '_> {
    fn counters<'l, V, L>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        series: impl IntoIterator<Item = (L, V)>,
    ) -> Written
    where
        V: EncodeCounterValue + fmt::Debug,
        L: AsRef<[(&'static str, &'l str)]>,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> Written {
        let unit = Some(&Unit::Bytes);
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a counter without labels.
    pub(super) fn number(&mut self, (name, help, unit): (&str, &str, Option<&Unit>), value: f64) -> Written {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Writes a gauge without labels.
    pub(super) fn gauge<V: EncodeGaugeValue + fmt::Debug>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: V,
    ) -> Written {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn gauges<'l, L: AsRef<[(&'static str, &'l str)]>>(
        &mut self,
        (name, help): (&str, &str),
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            let labels = Labels(labels.as_ref());
            let metric = family.encode_family(&labels)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
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
        self.process.encode(&mut to)
    }
}

impl Readings {
    fn packets(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counters(
            (
                "portcullis_forwarded_packets",
                "Inner packets let pass, by their relation to the sessions",
                None,
            ),
            stats
                .forwarded
                .iter()
                .map(|(class, count)| ([("class", class.name())], *count)),
        )?;
        to.bytes(
            "portcullis_forwarded",
            "Inner IP bytes let pass",
            stats.forwarded_bytes,
        )?;
        to.counters(
            (
                "portcullis_dropped_packets",
                "Inner packets not let pass, rejected ones included, by reason",
                None,
            ),
            stats
                .dropped
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_rejected_packets",
            "Of the dropped packets: those that earn a RST, an SCTP ABORT or an ICMP error",
            stats.rejected,
        )?;
        to.counters(
            ("portcullis_tolerated_packets", "Packets let pass although a check failed, since it only counts or the session is tracked liberally, or that an audit rule has admitted", None),
            self.tolerated
                .iter()
                .map(|(reason, rule, count)| ([("reason", *reason), ("rule", rule.as_str())], *count)),
        )?;
        to.counters(
            (
                "portcullis_limited_sessions",
                "New sessions that would have exceeded a limit, by the rule that would have admitted them",
                None,
            ),
            self.limited
                .iter()
                .map(|(limit, rule, count)| ([("limit", *limit), ("rule", rule.as_str())], *count)),
        )?;
        to.counters(
            (
                "portcullis_rule_hits",
                "New sessions that a rule has decided",
                None,
            ),
            self.rules
                .iter()
                .map(|rule| ([("rule", rule.name.as_str())], rule.hits)),
        )?;
        self.rule_traffic(to)
    }

    /// Traffic of each rule's sessions that have ended: no scrape looks at live ones, of which
    /// there may be millions.
    fn rule_traffic(&self, to: &mut Families<'_, '_>) -> Written {
        let by_rule = |value: fn(&RuleUse) -> u64| {
            let rules = self.rules.iter();
            rules.map(move |rule| ([("rule", rule.name.as_str())], value(rule)))
        };
        to.counters(
            (
                "portcullis_rule_sessions_ended",
                "Sessions of a rule that have ended",
                None,
            ),
            by_rule(|rule| rule.ended.sessions),
        )?;
        to.counters(
            (
                "portcullis_rule_packets",
                "Packets of a rule's sessions that have ended, in both directions",
                None,
            ),
            by_rule(|rule| rule.ended.packets),
        )?;
        to.counters(
            (
                "portcullis_rule",
                "IP bytes of a rule's sessions that have ended, in both directions",
                Some(&Unit::Bytes),
            ),
            by_rule(|rule| rule.ended.bytes),
        )?;
        let matched = self.rules.iter().filter_map(|rule| {
            let last = self.clock.at(rule.last_match?).as_secs();
            Some(([("rule", rule.name.as_str())], last))
        });
        to.gauges(
            (
                "portcullis_rule_last_match_timestamp_seconds",
                "When a rule last decided about a new session, in seconds since the Unix epoch",
            ),
            matched,
        )
    }

    fn table(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.gauges(
            (
                "portcullis_sessions",
                "Sessions now, by what they are worth to a full table",
            ),
            stats
                .sessions_by_worth
                .iter()
                .map(|(worth, count)| ([("worth", worth.name())], *count as u64)),
        )?;
        to.gauge(
            ("portcullis_sessions_max", "The bound of the session table", None),
            stats.max_sessions as u64,
        )?;
        to.counter(
            "portcullis_sessions_opened",
            "Sessions opened",
            stats.sessions_opened,
        )?;
        to.counters(
            ("portcullis_sessions_ended", "Sessions ended, by reason", None),
            stats
                .sessions_ended
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_sessions_adopted",
            "Of the sessions opened: picked up in their middle, resumed ones included",
            stats.sessions_adopted,
        )?;
        to.counter(
            "portcullis_sessions_resumed",
            "Of the sessions adopted: late packets that were readmitted",
            stats.sessions_resumed,
        )?;
        to.counter(
            "portcullis_sessions_bypassed",
            "Sessions that pass although half of them is missing",
            stats.sessions_bypassed,
        )?;
        to.gauge(
            (
                "portcullis_tombstones",
                "Ended sessions that are remembered",
                None,
            ),
            stats.tombstones as u64,
        )?;
        to.gauge(
            (
                "portcullis_fragmented_datagrams",
                "Fragmented datagrams that pass and of which something is missing",
                None,
            ),
            self.datagrams as u64,
        )?;
        to.counter(
            "portcullis_fragmented_datagrams_given_up",
            "Of those: given up for newer ones, at a bound of their source or of all",
            stats.datagrams_given_up,
        )?;
        to.counter(
            "portcullis_fragments_held",
            "Fragments held since their first one had not come; each is counted as forwarded or dropped later",
            stats.fragments_held,
        )?;
        to.gauge(
            (
                "portcullis_fragments_waiting",
                "Fragments that are held now",
                None,
            ),
            stats.fragments_waiting as u64,
        )
    }

    /// The sessions as they were last counted.
    fn sessions(&self, to: &mut Families<'_, '_>) -> Written {
        let zone = |zone: Option<Zone>| zone.map_or_else(|| "other".to_owned(), |zone| self.zones.name(zone));
        // A zone may have the name of a label that stands for others.
        let mut rows: BTreeMap<_, u64> = BTreeMap::new();
        for ((of, protocol, state), count) in &self.counted.sessions {
            *rows
                .entry((zone(*of), protocol_label(*protocol), *state))
                .or_default() += *count;
        }
        to.gauges(
            (
                "portcullis_sessions_by_state",
                "Sessions by zone, protocol and state, as last counted; `other` are rare protocols, and zones after the 64th",
            ),
            rows.iter().map(|((zone, protocol, state), count)| {
                let labels = [
                    ("zone", zone.as_str()),
                    ("protocol", protocol.as_str()),
                    ("state", *state),
                ];
                (labels, *count)
            }),
        )?;
        // Before the first count there is no age.
        let Some(age) = self.counted.age else {
            return Ok(());
        };
        to.gauge(
            (
                "portcullis_sessions_by_state_age",
                "Since the sessions were last counted by state: at least every 10 s while metrics are read, or 20 times as \
                 long as it takes",
                Some(&Unit::Seconds),
            ),
            age.as_secs_f64(),
        )
    }

    fn challenges(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counters(
            (
                "portcullis_syn_challenge_events",
                "SYNs of unknown sources that were challenged or not, and what came of it",
                None,
            ),
            stats
                .challenge_events
                .iter()
                .map(|(event, count)| ([("event", event.name())], *count)),
        )?;
        to.gauge(
            (
                "portcullis_syn_challenge_zones",
                "Zones whose unknown sources are challenged now",
                None,
            ),
            stats.challenging_zones.len() as u64,
        )?;
        to.gauge(
            (
                "portcullis_syn_challenge_known_sources",
                "Sources that have proven themselves and are not challenged",
                None,
            ),
            stats.known_sources as u64,
        )
    }

    fn resets_and_helpers(&self, to: &mut Families<'_, '_>) -> Written {
        let stats = &self.stats;
        to.counter(
            "portcullis_resets_sent",
            "RSTs made at the end of sessions and for late packets",
            stats.resets_sent,
        )?;
        to.counters(
            (
                "portcullis_resets_unsent",
                "RSTs that were not made, by reason",
                None,
            ),
            stats
                .resets_unsent
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counters(
            (
                "portcullis_helper_events",
                "What helpers have seen and done in control sessions",
                None,
            ),
            stats
                .helper_events
                .iter()
                .map(|(event, count)| ([("event", event.name())], *count)),
        )?;
        to.gauge(
            (
                "portcullis_control_sessions",
                "Control sessions that a helper listens to",
                None,
            ),
            stats.control_sessions as u64,
        )?;
        to.gauge(
            (
                "portcullis_expectations",
                "Announced sessions that have not come yet",
                None,
            ),
            stats.expectations as u64,
        )?;
        to.gauge(
            (
                "portcullis_asymmetry_lines",
                "Lines of the report of asymmetric paths",
                None,
            ),
            self.asymmetry.lines.len() as u64,
        )?;
        to.counter(
            "portcullis_asymmetry_unlisted_packets",
            "Packets of asymmetric paths whose line found no place in the report",
            self.asymmetry.unlisted,
        )
    }

    /// The workers with the values of their label; `control` sends what ends by an operator's word.
    fn workers(&self) -> Vec<(String, &WorkerStats)> {
        let workers = self.plane.shared.workers.iter().enumerate();
        workers
            .map(|(number, worker)| (number.to_string(), worker))
            .chain([("control".to_owned(), &self.plane.sent)])
            .collect()
    }

    fn traffic(&self, to: &mut Families<'_, '_>) -> Written {
        let workers = self.workers();
        let mut of_workers = |name, help, unit: Option<&Unit>, value: fn(&WorkerStats) -> u64| {
            to.counters(
                (name, help, unit),
                workers
                    .iter()
                    .map(|(name, worker)| ([("worker", name.as_str())], value(worker))),
            )
        };
        of_workers(
            "portcullis_worker_turns",
            "Turns of the worker's loop",
            None,
            |worker| worker.turns.value(),
        )?;
        of_workers(
            "portcullis_worker_received_datagrams",
            "Datagrams received",
            None,
            |worker| worker.received.value(),
        )?;
        of_workers(
            "portcullis_worker_received",
            "UDP payload received",
            Some(&Unit::Bytes),
            |worker| worker.received_bytes.value(),
        )?;
        of_workers(
            "portcullis_worker_receive_overflow_datagrams",
            "Datagrams that the kernel dropped at the receive queue: no room, or a wrong UDP checksum",
            None,
            |worker| worker.receive_overflow.value(),
        )?;
        of_workers(
            "portcullis_worker_receive_failures",
            "Calls to receive that have failed",
            None,
            |worker| worker.receive_failed.value(),
        )?;
        of_workers(
            "portcullis_worker_returned_datagrams",
            "Datagrams sent back as they came",
            None,
            |worker| worker.returned.value(),
        )?;
        of_workers(
            "portcullis_worker_made_datagrams",
            "Datagrams of the appliance's own: replies, errors, RSTs, rewritten SYNs, and fragments that were held",
            None,
            |worker| worker.made.value(),
        )?;
        of_workers(
            "portcullis_worker_sent",
            "UDP payload sent",
            Some(&Unit::Bytes),
            |worker| worker.sent_bytes.value(),
        )?;
        of_workers(
            "portcullis_worker_resets_without_tunnel",
            "RSTs whose tunnel is not known any more",
            None,
            |worker| worker.resets_without_tunnel.value(),
        )?;
        to.counters(
            (
                "portcullis_worker_send_faults",
                "Datagrams that the system did not take, by reason",
                None,
            ),
            workers.iter().flat_map(|(name, worker)| {
                let faults = SendFault::ALL.iter().zip(&worker.send_faults);
                faults.map(move |(fault, count)| {
                    (
                        [("worker", name.as_str()), ("reason", fault.name())],
                        count.value(),
                    )
                })
            }),
        )?;
        self.batches(to)?;
        self.endpoints(to)?;
        self.front(to)
    }

    fn batches(&self, to: &mut Families<'_, '_>) -> Written {
        let mut family = to.0.encode_descriptor(
            "portcullis_worker_batch_datagrams",
            "Datagrams that a call has received",
            None,
            MetricType::Histogram,
        )?;
        for (number, worker) in self.plane.shared.workers.iter().enumerate() {
            let number = number.to_string();
            let labels = [("worker", number.as_str())];
            let labels = Labels(&labels);
            let last = worker.batches.len() - 1;
            // Class n is 2^n to 2^(n+1) - 1; the last has no upper bound.
            let bound = |class: usize| match class {
                class if class == last => f64::INFINITY,
                class => f64::from((2u32 << class) - 1),
            };
            let buckets: Vec<(f64, u64)> = worker
                .batches
                .iter()
                .enumerate()
                .map(|(class, count)| (bound(class), count.value()))
                .collect();
            let calls = buckets.iter().map(|(_, count)| count).sum();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                worker.received.value() as f64,
                calls,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn endpoints(&self, to: &mut Families<'_, '_>) -> Written {
        let mut of_endpoints = |name, help, unit: Option<&Unit>, value: fn(&EndpointStats) -> u64| {
            to.counters(
                (name, help, unit),
                self.endpoints.iter().map(|(endpoint, zone, stats)| {
                    (
                        [("endpoint", endpoint.as_str()), ("zone", zone.as_str())],
                        value(stats),
                    )
                }),
            )
        };
        of_endpoints(
            "portcullis_endpoint_received_datagrams",
            "Datagrams from an endpoint; `other` are those that name none, were refused, or whose endpoint has no counter",
            None,
            |each| each.received,
        )?;
        of_endpoints(
            "portcullis_endpoint_received",
            "UDP payload from an endpoint",
            Some(&Unit::Bytes),
            |each| each.received_bytes,
        )?;
        of_endpoints(
            "portcullis_endpoint_sent_datagrams",
            "Datagrams to an endpoint",
            None,
            |each| each.sent,
        )?;
        of_endpoints(
            "portcullis_endpoint_sent",
            "UDP payload to an endpoint",
            Some(&Unit::Bytes),
            |each| each.sent_bytes,
        )
    }

    fn front(&self, to: &mut Families<'_, '_>) -> Written {
        let front = &self.front;
        let refused = front.refused.iter().map(|(_, count)| count).sum::<u64>();
        to.counters(
            (
                "portcullis_datagrams",
                "Datagrams received, by what became of them",
                None,
            ),
            [
                ("returned", front.returned),
                ("rewritten", front.rewritten),
                ("replied", front.replied),
                ("told_too_big", front.told_too_big),
                ("refused", refused),
                ("dropped", front.dropped),
                ("unanswered", front.unanswered),
            ]
            .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        to.counters(
            (
                "portcullis_refused_datagrams",
                "Datagrams that the front end did not pass to the engine, by reason",
                None,
            ),
            front
                .refused
                .iter()
                .map(|(refusal, count)| ([("reason", refusal.name())], *count)),
        )?;
        to.gauge(
            ("portcullis_tunnel_ends", "Tunnel ends that are known", None),
            front.tunnel_ends as u64,
        )?;
        to.counter(
            "portcullis_tunnel_ends_refused",
            "Tunnel ends that found no room: nothing can be sent in their sessions",
            front.tunnel_ends_refused,
        )
    }

    fn appliance(&self, to: &mut Families<'_, '_>) -> Written {
        let LogReadings {
            written,
            dropped,
            lost,
            is_running,
        } = self.log;
        to.counter(
            "portcullis_log_lines",
            "Lines of the session log written",
            written,
        )?;
        to.counters(
            (
                "portcullis_log_lines_dropped",
                "Lines of the session log lost, by cause",
                None,
            ),
            [
                ([("cause", "denied_queue_full")], lost.denied),
                ([("cause", "queue_full")], lost.sessions),
                ([("cause", "write_failed")], dropped),
            ],
        )?;
        to.gauge(
            (
                "portcullis_log_running",
                "1 while there is a thread that writes the session log",
                None,
            ),
            u64::from(is_running),
        )?;
        to.gauge(
            (
                "portcullis_healthy",
                "1 if health checks are answered with 200",
                None,
            ),
            u64::from(self.reasons.is_empty()),
        )?;
        to.gauges(
            (
                "portcullis_unhealthy",
                "1 for each reason for which health checks are answered with 503",
            ),
            Unhealthy::NAMES.map(|reason| ([("reason", reason)], u64::from(self.reasons.contains(&reason)))),
        )?;
        self.reloads(to)?;
        self.checkpoints(to)?;
        self.doors(to)?;
        to.gauge(
            (
                "portcullis_worker_stall",
                "For how long the slowest worker has not turned",
                Some(&Unit::Seconds),
            ),
            self.stall_seconds,
        )?;
        to.gauge(
            ("portcullis_uptime", "Since the start", Some(&Unit::Seconds)),
            self.uptime_seconds,
        )?;
        let mut info =
            to.0.encode_descriptor("portcullis_build", "The version", None, MetricType::Info)?;
        info.encode_info(&Labels(&[("version", env!("CARGO_PKG_VERSION"))]))
    }

    fn reloads(&self, to: &mut Families<'_, '_>) -> Written {
        let reloads = self.reloads;
        to.counters(
            (
                "portcullis_reloads",
                "Reloads of the configuration file, by outcome",
                None,
            ),
            [("applied", reloads.applied), ("refused", reloads.refused)]
                .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        to.gauge(
            (
                "portcullis_reload_failed",
                "1 if the last configuration file was refused: what is in force is not what it says",
                None,
            ),
            u64::from(reloads.has_failed),
        )?;
        to.gauge(
            (
                "portcullis_reload_waiting_keys",
                "Keys of the configuration file that wait for a restart",
                None,
            ),
            reloads.waiting as u64,
        )
    }

    fn checkpoints(&self, to: &mut Families<'_, '_>) -> Written {
        let CheckpointReadings { written, failed, age } = self.checkpoints;
        to.counters(
            (
                "portcullis_checkpoints",
                "Checkpoints of the sessions (`run.checkpoint`), by outcome",
                None,
            ),
            [("written", written), ("failed", failed)]
                .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        // Before the first one there is no age.
        let Some(age) = age else { return Ok(()) };
        to.gauge(
            (
                "portcullis_checkpoint_age",
                "Since the newest checkpoint was begun",
                Some(&Unit::Seconds),
            ),
            age.as_secs_f64(),
        )
    }

    fn doors(&self, to: &mut Families<'_, '_>) -> Written {
        let Doors {
            health,
            health_tcp,
            metrics,
        } = &self.doors;
        to.counters(
            (
                "portcullis_listener_refused_connections",
                "Connections from sources that `health.sources` does not allow",
                None,
            ),
            [("health", health), ("health_tcp", health_tcp)]
                .map(|(listener, counters)| ([("listener", listener)], counters.refused())),
        )?;
        to.counters(
            (
                "portcullis_listener_evicted_connections",
                "Connections that made room for others: the oldest of the source address with the most",
                None,
            ),
            [("health", health), ("metrics", metrics)]
                .map(|(listener, counters)| ([("listener", listener)], counters.evicted())),
        )
    }
}
