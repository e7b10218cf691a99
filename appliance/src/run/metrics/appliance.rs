//! Families of the appliance: workers, endpoints, the front end, reloads, checkpoints and
//! listeners.

use portcullis::geneve::front::EndpointStats;
use portcullis_xdp::Refused;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::families::{Families, Family, Labels, Written};
use super::readings::{AllListenerCounters, CheckpointReadings, LogReadings, Readings};
use crate::run::counters::SendFault;
use crate::run::health::Unhealthy;
use crate::run::worker_stats::WorkerStats;

impl Readings {
    /// Returns the workers with their label values; `control` sends the RSTs of sessions that an
    /// operator ends.
    pub(super) fn workers(&self) -> Vec<(String, &WorkerStats)> {
        let workers = self.data_path.shared.workers.iter().enumerate();
        workers
            .map(|(number, worker)| (number.to_string(), worker))
            .chain([("control".to_owned(), &self.data_path.sent)])
            .collect()
    }

    pub(super) fn traffic(&self, to: &mut Families<'_, '_>) -> Written {
        let workers = self.workers();
        let mut of_workers = |family: Family<'_>, value: fn(&WorkerStats) -> u64| {
            to.counters(
                family,
                workers
                    .iter()
                    .map(|(name, worker)| ([("worker", name.as_str())], value(worker))),
            )
        };
        of_workers(
            Family::new("portcullis_worker_turns", "Turns of the worker's loop"),
            |worker| worker.turns.value(),
        )?;
        of_workers(
            Family::new("portcullis_worker_received_datagrams", "Datagrams received"),
            |worker| worker.received.value(),
        )?;
        of_workers(
            Family::new("portcullis_worker_received", "UDP payload received").in_unit(&Unit::Bytes),
            |worker| worker.received_bytes.value(),
        )?;
        of_workers(
            Family::new(
                "portcullis_worker_receive_overflow_datagrams",
                "Datagrams that the kernel dropped at the receive queue: no room, or a wrong UDP \
                 checksum",
            ),
            |worker| worker.receive_overflow.value(),
        )?;
        of_workers(
            Family::new(
                "portcullis_worker_receive_failures",
                "Calls to receive that have failed",
            ),
            |worker| worker.receive_failed.value(),
        )?;
        of_workers(
            Family::new(
                "portcullis_worker_returned_datagrams",
                "Datagrams returned unchanged",
            ),
            |worker| worker.returned.value(),
        )?;
        of_workers(
            Family::new(
                "portcullis_worker_made_datagrams",
                "Datagrams of the appliance's own: replies, errors, RSTs, rewritten SYNs, and \
                 fragments that were held",
            ),
            |worker| worker.made.value(),
        )?;
        of_workers(
            Family::new("portcullis_worker_sent", "UDP payload sent").in_unit(&Unit::Bytes),
            |worker| worker.sent_bytes.value(),
        )?;
        of_workers(
            Family::new(
                "portcullis_worker_resets_without_tunnel",
                "RSTs whose tunnel is no longer known",
            ),
            |worker| worker.resets_without_tunnel.value(),
        )?;
        self.send_faults(to)?;
        self.refused_frames(to)?;
        self.batches(to)?;
        self.endpoints(to)?;
        self.front(to)
    }

    fn send_faults(&self, to: &mut Families<'_, '_>) -> Written {
        let workers = self.workers();
        to.counters(
            Family::new(
                "portcullis_worker_send_faults",
                "Datagrams that the system did not take, by reason",
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
        )
    }

    fn refused_frames(&self, to: &mut Families<'_, '_>) -> Written {
        let workers = self.workers();
        to.counters(
            Family::new(
                "portcullis_worker_refused_frames",
                "Frames of AF_XDP that are not datagrams for a socket: an invalid header, a wrong \
                 checksum of the IP header, or a source that cannot be answered",
            ),
            workers.iter().flat_map(|(name, worker)| {
                let reasons = Refused::ALL.iter().zip(&worker.refused_frames);
                reasons.map(move |(reason, count)| {
                    (
                        [("worker", name.as_str()), ("reason", reason.name())],
                        count.value(),
                    )
                })
            }),
        )
    }

    pub(super) fn batches(&self, to: &mut Families<'_, '_>) -> Written {
        let mut family = to.0.encode_descriptor(
            "portcullis_worker_batch_datagrams",
            "Datagrams that a call has received",
            None,
            MetricType::Histogram,
        )?;
        for (number, worker) in self.data_path.shared.workers.iter().enumerate() {
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
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(
                    worker.received.value() as f64,
                    calls,
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    pub(super) fn endpoints(&self, to: &mut Families<'_, '_>) -> Written {
        let mut of_endpoints = |family: Family<'_>, value: fn(&EndpointStats) -> u64| {
            to.counters(
                family,
                self.endpoints.iter().map(|(endpoint, zone, stats)| {
                    (
                        [("endpoint", endpoint.as_str()), ("zone", zone.as_str())],
                        value(stats),
                    )
                }),
            )
        };
        of_endpoints(
            Family::new(
                "portcullis_endpoint_received_datagrams",
                "Datagrams from an endpoint; `other` are those that name none, were refused, or \
                 whose endpoint has no counter",
            ),
            |each| each.received,
        )?;
        of_endpoints(
            Family::new(
                "portcullis_endpoint_received",
                "UDP payload from an endpoint",
            )
            .in_unit(&Unit::Bytes),
            |each| each.received_bytes,
        )?;
        of_endpoints(
            Family::new(
                "portcullis_endpoint_sent_datagrams",
                "Datagrams to an endpoint",
            ),
            |each| each.sent,
        )?;
        of_endpoints(
            Family::new("portcullis_endpoint_sent", "UDP payload to an endpoint")
                .in_unit(&Unit::Bytes),
            |each| each.sent_bytes,
        )
    }

    pub(super) fn front(&self, to: &mut Families<'_, '_>) -> Written {
        let front = &self.front;
        let refused = front.refused.iter().map(|(_, count)| count).sum::<u64>();
        to.counters(
            Family::new("portcullis_datagrams", "Datagrams received, by outcome"),
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
            Family::new(
                "portcullis_refused_datagrams",
                "Datagrams that the front end did not pass to the engine, by reason",
            ),
            front
                .refused
                .iter()
                .map(|(refusal, count)| ([("reason", refusal.name())], *count)),
        )?;
        to.gauge(
            Family::new("portcullis_tunnel_ends", "Known tunnel endpoints"),
            front.tunnel_ends as u64,
        )?;
        to.counter(
            "portcullis_tunnel_ends_refused",
            "Tunnel endpoints that found no room: nothing can be sent in their sessions",
            front.tunnel_ends_refused,
        )
    }

    pub(super) fn appliance(&self, to: &mut Families<'_, '_>) -> Written {
        self.session_log(to)?;
        to.gauge(
            Family::new(
                "portcullis_healthy",
                "1 if health checks are answered with 200",
            ),
            u64::from(self.reasons.is_empty()),
        )?;
        to.gauges(
            Family::new(
                "portcullis_unhealthy",
                "1 for each reason for which health checks are answered with 503",
            ),
            Unhealthy::NAMES.map(|reason| {
                (
                    [("reason", reason)],
                    u64::from(self.reasons.contains(&reason)),
                )
            }),
        )?;
        self.observers(to)?;
        self.reloads(to)?;
        self.checkpoints(to)?;
        self.listeners(to)?;
        to.gauge(
            Family::new(
                "portcullis_worker_stall",
                "Time since the last turn of the slowest worker",
            )
            .in_unit(&Unit::Seconds),
            self.stall_seconds,
        )?;
        to.gauge(
            Family::new("portcullis_uptime", "Time since the start").in_unit(&Unit::Seconds),
            self.uptime_seconds,
        )?;
        let mut info =
            to.0.encode_descriptor("portcullis_build", "The version", None, MetricType::Info)?;
        info.encode_info(&Labels(&[("version", env!("CARGO_PKG_VERSION"))]))
    }

    fn session_log(&self, to: &mut Families<'_, '_>) -> Written {
        let LogReadings {
            written,
            dropped,
            lost,
            is_running,
            is_closed,
        } = self.log;
        to.counter(
            "portcullis_log_lines",
            "Lines of the session log written",
            written,
        )?;
        to.counters(
            Family::new(
                "portcullis_log_lines_dropped",
                "Lines of the session log lost, by cause",
            ),
            [
                ([("cause", "denied_queue_full")], lost.denied),
                ([("cause", "drops_queue_full")], lost.drops),
                ([("cause", "queue_full")], lost.sessions),
                ([("cause", "write_failed")], dropped),
            ],
        )?;
        to.counter(
            "portcullis_log_left_out_packets",
            "Dropped packets without a line, because `log.drops` or the share of their reason was \
             used up",
            lost.drops_left_out,
        )?;
        to.gauge(
            Family::new(
                "portcullis_log_running",
                "1 while there is a thread that writes the session log",
            ),
            u64::from(is_running),
        )?;
        to.gauge(
            Family::new(
                "portcullis_log_closed",
                "1 while no new session is admitted since the session log cannot be written \
                 (log.fail_closed)",
            ),
            u64::from(is_closed),
        )
    }

    pub(super) fn observers(&self, to: &mut Families<'_, '_>) -> Written {
        let counts = self.observers;
        to.gauge(
            Family::new(
                "portcullis_observe_clients",
                "Clients of `portcullis observe` that are connected",
            ),
            counts.clients as u64,
        )?;
        to.counters(
            Family::new(
                "portcullis_observe_events",
                "Events of `portcullis observe`: kept for `--last`, or delivered to clients",
            ),
            [("kept", counts.kept), ("delivered", counts.delivered)]
                .map(|(to, count)| ([("to", to)], count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_observe_left_out_events",
                "Events left out of `portcullis observe`, by cause: beyond the share of their \
                 reason among the past events or beyond the rate of a client, a queue was full, \
                 the session had gone before a filter that depends on it was evaluated, or \
                 packets were not compared with the filters of `--explain`",
            ),
            [
                ("client_queue", counts.client_queue),
                ("client_rate", counts.client_rate),
                ("past_share", counts.ring_share),
                ("queue", counts.hub_queue),
                ("session_gone", counts.session_gone),
                ("unexamined", counts.unexamined),
            ]
            .map(|(cause, count)| ([("cause", cause)], count)),
        )?;
        to.counter(
            "portcullis_observe_failures",
            "Failures of the thread that distributes events; it begins again after a second",
            counts.failures,
        )
    }

    pub(super) fn reloads(&self, to: &mut Families<'_, '_>) -> Written {
        let reloads = self.reloads;
        to.counters(
            Family::new(
                "portcullis_reloads",
                "Reloads of the configuration file, by outcome",
            ),
            [("applied", reloads.applied), ("refused", reloads.refused)]
                .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        to.gauge(
            Family::new(
                "portcullis_reload_failed",
                "1 if the last configuration file was refused, so that an older configuration is \
                 in force",
            ),
            u64::from(reloads.has_failed),
        )?;
        to.gauge(
            Family::new(
                "portcullis_reload_waiting_keys",
                "Keys of the configuration file that wait for a restart",
            ),
            reloads.waiting as u64,
        )
    }

    pub(super) fn checkpoints(&self, to: &mut Families<'_, '_>) -> Written {
        let CheckpointReadings {
            written,
            failed,
            age,
        } = self.checkpoints;
        to.counters(
            Family::new(
                "portcullis_checkpoints",
                "Checkpoints of the sessions (`run.checkpoint`), by outcome",
            ),
            [("written", written), ("failed", failed)]
                .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        // The age is unknown before the first checkpoint.
        let Some(age) = age else { return Ok(()) };
        to.gauge(
            Family::new("portcullis_checkpoint_age", "Age of the newest checkpoint")
                .in_unit(&Unit::Seconds),
            age.as_secs_f64(),
        )
    }

    pub(super) fn listeners(&self, to: &mut Families<'_, '_>) -> Written {
        let AllListenerCounters {
            health,
            health_tcp,
            metrics,
            console,
            console_requests,
        } = &self.listeners;
        to.counters(
            Family::new(
                "portcullis_listener_refused_connections",
                "Connections from sources that `health.sources` does not allow",
            ),
            [("health", health), ("health_tcp", health_tcp)]
                .map(|(listener, counters)| ([("listener", listener)], counters.refused())),
        )?;
        to.counters(
            Family::new(
                "portcullis_listener_evicted_connections",
                "Connections evicted for others: the oldest of the source address with the most",
            ),
            [
                ("health", health),
                ("metrics", metrics),
                ("console", console),
            ]
            .map(|(listener, counters)| ([("listener", listener)], counters.evicted())),
        )?;
        to.counters(
            Family::new(
                "portcullis_console_requests",
                "Requests to the console (`console.listen`), by outcome; `handshake` counts \
                 connections whose TLS handshake has failed",
            ),
            console_requests
                .values()
                .map(|(outcome, count)| ([("outcome", outcome.name())], count)),
        )
    }
}
