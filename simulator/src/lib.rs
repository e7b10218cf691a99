//! A Gateway Load Balancer in a box, for people without AWS: `portcullis simulate`.
//!
//! Inner packets come from a capture, from pairs of TUN devices, or from a load generator.
//! `balancer` puts them into GENEVE as AWS does, without sockets and clock. `judge` compares
//! each reply with the packet that it answers. `flow` stores cookies, ports and unanswered
//! packets, and `targets` chooses the appliance of each flow. All other modules move bytes: one
//! thread per source sends (the main thread, or one per pair of devices), and one thread receives.
//! One lock protects the balancer.

mod args;
mod balancer;
mod captures;
mod checker;
mod control;
mod exchange;
mod flood;
mod flow;
mod generate;
mod health;
mod inner;
mod judge;
mod parse;
mod reflector;
mod report;
#[cfg(test)]
#[path = "../../appliance/src/schema.rs"]
mod schema;
mod sender;
mod socket;
mod sticky;
mod target_args;
mod targets;
#[cfg(test)]
mod tests;
mod tun;
mod tunnel;
mod turns;

use std::hash::BuildHasher;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::{Condvar, Mutex};

pub use args::SimulateArgs;
use args::{PairArg, Peer};
use balancer::{Balancer, Setup};
pub use captures::{CaptureError, Captures};
use exchange::exchange;
use flow::FlowSettings;
use report::Report;
use sender::Shared;
use socket::{bind, local_address};
use tun::TunPair;
use tunnel::Endpoint;

/// Duration of a load that has no other end.
const LOAD_TIME: Duration = Duration::from_secs(10);
/// Interval at which unanswered packets are checked for their time-out.
const EXPIRE: Duration = Duration::from_millis(10);

/// Reason for which a simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Replies were wrong.
    #[error("{0} replies were wrong")]
    Wrong(u64),
    /// Packets were sent, or were to be sent, and no reply of any kind arrived.
    #[error("nothing came back")]
    NothingBack,
    /// More packets were lost than `--max-loss` allows.
    #[error("{loss:.4} % of the packets were lost, and at most {max} % are allowed")]
    Loss {
        /// Percent.
        loss: f64,
        /// Percent.
        max: f64,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// The operation.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The simulator would receive its own packets.
    #[error(
        "{0} is also the address to which replies come, so packets sent there would return \
         without an appliance. Name an appliance in another network namespace or on another \
         machine, or set the local address with --local"
    )]
    OwnAddress(Ipv4Addr),
    /// An option about targets is wrong.
    #[error("{0}")]
    Targets(String),
    /// Two pairs cannot be distinguished.
    #[error("two pairs have the endpoint id {0:016x}")]
    SameEndpoint(u64),
}

/// Returns a function for `map_err` that adds the operation to a system error.
fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> SimulateError {
    let what = what.into();
    move |source| SimulateError::System { what, source }
}

/// Runs a simulation and prints the report on standard output.
///
/// # Errors
/// Returns an error after the report if replies were wrong or missing, or too many packets were
/// lost. Returns one before the report if the simulation could not run.
pub fn run(args: &SimulateArgs, captures: &dyn Captures) -> Result<(), SimulateError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(system("signals"))?;
    }
    match &args.peer {
        Some(Peer::Reflector(args)) => {
            let reflected = reflector::run(args, &stop).map_err(system("reflector"))?;
            return say(&format!("{reflected:>14} reflected\n"));
        }
        Some(Peer::Flood(args)) => {
            let flooded = flood::run(args, &stop).map_err(system("flood"))?;
            let json =
                serde_json::to_string(&flooded).map_err(|error| system("report")(error.into()))?;
            return say(&(json + "\n"));
        }
        None => {}
    }
    balance(args, captures, stop)
}

/// Runs the balancer and prints the report on standard output.
fn balance(
    args: &SimulateArgs,
    captures: &dyn Captures,
    stop: Arc<AtomicBool>,
) -> Result<(), SimulateError> {
    let targets: Vec<SocketAddrV4> = args
        .appliance
        .iter()
        .chain(&args.targets.targets)
        .copied()
        .collect();
    let local = local(args, &targets)?;
    let pairs: Vec<&PairArg> = args.tun.iter().chain(&args.pairs).collect();
    let setup = Setup {
        local,
        udp_checksum: args.udp_checksum,
        endpoints: endpoints(args, &pairs)?,
        timeout: args.timeout,
        flows: FlowSettings {
            max_flows: args.max_flows,
            cookie_per_direction: args.cookie_per_direction,
            tcp_idle: args.targets.flow_timeout,
        },
        group: args
            .targets
            .group(args.max_flows)
            .map_err(SimulateError::Targets)?,
    };
    let mut balancer = Balancer::new(setup, random_state());
    for target in targets {
        balancer
            .targets
            .register(Instant::now(), target)
            .map_err(|error| SimulateError::Targets(error.to_string()))?;
    }
    balancer.targets.take_changes();
    let socket = bind(local).map_err(system(format!("UDP port 6081 of {local}")))?;
    let devices = pairs
        .iter()
        .map(|pair| {
            TunPair::open(&pair.client, &pair.server, args.mtu)
                .map_err(|(name, error)| system(format!("{}: TUN device {name}", pair.name))(error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let time = match (args.seconds, args.generate, args.packets) {
        (None, Some(_), None) => Some(LOAD_TIME),
        (seconds, ..) => seconds,
    };
    let start = Instant::now();
    let shared = Shared {
        balancer: Mutex::new(balancer),
        answered: Condvar::new(),
        stop,
        deadline: time.map(|time| start + time),
    };
    let (sent, overflow) = exchange(args, captures, &shared, &socket, &devices)?;
    let mut balancer = shared.balancer.lock();
    let end = balancer
        .last_reply()
        .map_or(sent.at, |reply| reply.max(sent.at));
    let observed = balancer.observed(Instant::now());
    let time = end.saturating_duration_since(start);
    let report = Report::new(&balancer.counters, observed, time, overflow);
    say(&if args.json {
        let json =
            serde_json::to_string(&report).map_err(|error| system("report")(error.into()))?;
        json + "\n"
    } else {
        report.to_string()
    })?;
    sent.result.and_then(|()| verdict(&report, args.max_loss))
}

/// Returns the address that receives replies. It differs from every target's address.
fn local(args: &SimulateArgs, targets: &[SocketAddrV4]) -> Result<Ipv4Addr, SimulateError> {
    let local = match (args.local, targets.first()) {
        (Some(local), _) => local,
        (None, Some(target)) => {
            local_address(*target.ip()).map_err(system(format!("no route to {target}")))?
        }
        (None, None) => return Err(SimulateError::Targets("no target".to_owned())),
    };
    // The unspecified address means this machine (ip(7)).
    let own = |target: &&SocketAddrV4| *target.ip() == local || target.ip().is_unspecified();
    match targets.iter().find(own) {
        Some(target) => Err(SimulateError::OwnAddress(*target.ip())),
        None => Ok(local),
    }
}

/// Returns the outcome of a run. `max_loss` is in percent. Without it, lost packets are not a
/// failure if any reply arrived, since an appliance drops packets that its policy denies.
fn verdict(report: &Report, max_loss: Option<f64>) -> Result<(), SimulateError> {
    if report.failures() > 0 {
        return Err(SimulateError::Wrong(report.failures()));
    }
    if report.is_in_vain() {
        return Err(SimulateError::NothingBack);
    }
    let loss = report.loss() * 100.0;
    match max_loss {
        Some(max) if loss > max => Err(SimulateError::Loss { loss, max }),
        _ => Ok(()),
    }
}

/// Returns the endpoint of each pair, or a single endpoint for a source without devices.
fn endpoints(args: &SimulateArgs, pairs: &[&PairArg]) -> Result<Vec<Endpoint>, SimulateError> {
    let endpoint = |id: Option<u64>| Endpoint {
        id: id.unwrap_or(args.endpoint),
        attachment: args.attachment,
    };
    if pairs.is_empty() {
        return Ok(vec![endpoint(None)]);
    }
    let endpoints: Vec<Endpoint> = pairs.iter().map(|pair| endpoint(pair.endpoint)).collect();
    let mut ids: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.id).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find_map(|ids| match ids {
        [a, b] if a == b => Some(*a),
        _ => None,
    });
    match twice {
        Some(id) => Err(SimulateError::SameEndpoint(id)),
        None => Ok(endpoints),
    }
}

/// Returns a hasher with seeds from the operating system.
fn random_state() -> RandomState {
    let seed = std::hash::RandomState::new();
    let [a, b, c, d] = [0u8, 1, 2, 3].map(|number| seed.hash_one(number));
    RandomState::with_seeds(a, b, c, d)
}

fn say(text: &str) -> Result<(), SimulateError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(system("standard output"))
}
