//! Options about targets.

use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::flow::{OTHER_IDLE, TCP_IDLE};
use super::health::{HealthCheck, HttpProbe, Probe};
use super::parse::{appliance, seconds};
use super::sticky::Stickiness;
use super::targets::{Failover, GroupSettings};

/// Default port of health checks.
const HEALTH_PORT: u16 = 80;

/// Options about targets, their health and their flows.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Targets")]
pub(super) struct TargetArgs {
    /// An appliance among several; repeat for each. Flows are distributed over them
    #[arg(long = "target", value_name = "ADDRESS[:PORT]", value_parser = appliance)]
    pub(super) targets: Vec<SocketAddrV4>,
    /// Read commands from standard input and answer each with a line of JSON: targets,
    /// register ADDRESS[:PORT], deregister ADDRESS
    #[arg(long)]
    pub(super) control: bool,
    /// Check the health of each target: http://:PORT/PATH or tcp://:PORT [default: none, all
    /// targets are healthy]
    #[arg(long, value_name = "URL", value_parser = probe)]
    health_check: Option<Probe>,
    /// Time between two checks of a target
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    health_interval: Duration,
    /// Time after which a check has failed [default: 5, or --health-interval if that is shorter]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    health_timeout: Option<Duration>,
    /// Consecutive successes after which an unhealthy target is healthy
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = threshold())]
    healthy_threshold: u8,
    /// Consecutive failures after which a target is unhealthy
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = threshold())]
    unhealthy_threshold: u8,
    /// HTTP status codes of a successful check, such as 200 or 200-299,301
    #[arg(long, value_name = "CODES", default_value = "200-399", value_parser = codes)]
    health_codes: StatusCodes,
    /// Fields by which flows share a target
    #[arg(long, value_enum, default_value_t = Stickiness::FiveTuple)]
    stickiness: Stickiness,
    /// Treatment of existing flows whose target becomes unhealthy
    #[arg(long, value_enum, default_value_t = Failover::NoRebalance)]
    on_unhealthy: Failover,
    /// Treatment of existing flows whose target is deregistered, after the delay
    #[arg(long, value_enum, default_value_t = Failover::NoRebalance)]
    on_deregistration: Failover,
    /// Time for which a deregistered target keeps its flows in any case; at most 3600
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = delay)]
    deregistration_delay: Duration,
    /// Silence after which a TCP flow is forgotten; at most 6000. Any other flow has 120 s
    #[arg(long, value_name = "SECONDS", default_value = "350", value_parser = flow_timeout)]
    pub(super) flow_timeout: Duration,
}

impl TargetArgs {
    /// Returns the settings of the group of targets.
    ///
    /// # Errors
    /// Returns an error if the time-out of checks is longer than their interval.
    pub(super) fn group(&self, max_flows: std::num::NonZeroUsize) -> Result<GroupSettings, String> {
        let timeout = self
            .health_timeout
            .unwrap_or_else(|| self.health_interval.min(Duration::from_secs(5)));
        if timeout > self.health_interval {
            return Err("--health-timeout is longer than --health-interval".to_owned());
        }
        let health = self.health_check.clone().map(|mut probe| {
            if let Some(http) = &mut probe.http {
                http.codes.clone_from(&self.health_codes.0);
            }
            HealthCheck {
                probe,
                interval: self.health_interval,
                timeout,
                healthy_threshold: self.healthy_threshold,
                unhealthy_threshold: self.unhealthy_threshold,
            }
        });
        Ok(GroupSettings {
            stickiness: self.stickiness,
            on_unhealthy: self.on_unhealthy,
            on_deregistration: self.on_deregistration,
            deregistration_delay: self.deregistration_delay,
            health,
            sticky_idle: self.flow_timeout.max(OTHER_IDLE),
            max_sticky: max_flows,
        })
    }
}

/// Accepted status codes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StatusCodes(Vec<RangeInclusive<u16>>);

/// Bounds of AWS for the thresholds.
fn threshold() -> RangedU64ValueParser<u8> {
    RangedU64ValueParser::new().range(2..=10)
}

/// Reads the URL of a check, which names no host: it is each target's own.
pub(super) fn probe(text: &str) -> Result<Probe, String> {
    let shape = || "http://:PORT/PATH or tcp://:PORT is needed, without a host".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let port = match authority.strip_prefix(':') {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(shape)?,
        None if authority.is_empty() => HEALTH_PORT,
        None => return Err(shape()),
    };
    // Control characters and blanks would end the request line (RFC 9112 section 3).
    if path.len() > 1024 || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the path is at most 1024 characters, without blanks".to_owned());
    }
    match scheme {
        "http" => Ok(Probe {
            port,
            http: Some(HttpProbe {
                path: path.to_owned(),
                codes: Vec::new(),
            }),
        }),
        "tcp" if path == "/" => Ok(Probe { port, http: None }),
        _ => Err(shape()),
    }
}

/// Reads status codes and ranges of them, separated by commas.
fn codes(text: &str) -> Result<StatusCodes, String> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (200..600).contains(&first).then_some(())?;
        (first..600).contains(&last).then_some(first..=last)
    };
    text.split(',')
        .map(|part| range(part).ok_or_else(|| format!("{part:?} is not a status code or a range")))
        .collect::<Result<_, _>>()
        .map(StatusCodes)
}

fn delay(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=3600.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("0 to 3600 seconds are needed".to_owned()),
    }
}

fn flow_timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 6000.0 => Ok(Duration::from_secs_f64(number)),
        _ => Err("more than 0 and at most 6000 seconds are needed".to_owned()),
    }
}

const _: () = assert!(TCP_IDLE.as_secs() == 350);
