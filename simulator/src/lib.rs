//! A Gateway Load Balancer in a box, for people without AWS: `portcullis simulate`.
//!
//! Inner packets come from a capture, from pairs of TUN devices or from a load generator. [`balancer`] puts them into
//! GENEVE as AWS does and judges each reply, without a socket or a clock; [`flow`] keeps cookies, ports and unanswered
//! packets; the rest moves bytes. One thread sends for each source (the main one, or one for each pair of devices),
//! one receives. The balancer is behind one lock.

mod args;
mod balancer;
mod captures;
mod flood;
mod flow;
mod generate;
mod inner;
mod reflector;
mod report;
mod sender;
mod socket;
#[cfg(test)]
mod tests;
mod tun;
mod tunnel;
mod turns;

use std::hash::BuildHasher;
use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::{Condvar, Mutex};

pub use args::SimulateArgs;
use args::{PairArg, Peer, Protocol};
use balancer::{Balancer, Setup};
use captures::Playback;
pub use captures::{CaptureError, Captures};
use generate::Load;
use report::Report;
use sender::{Pace, Sender, Shared};
use socket::{RawSender, Receiver, bind, local_address, receive_overflow};
use tun::TunPair;
use tunnel::{Endpoint, Outer};

/// How long a load lasts that has no other end.
const LOAD_TIME: Duration = Duration::from_secs(10);
/// How often unanswered packets are looked through.
const EXPIRE: Duration = Duration::from_millis(10);

/// Why a simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Replies were wrong.
    #[error("{0} replies were wrong")]
    Wrong(u64),
    /// Packets were sent, or were to be, and nothing of any kind came back.
    #[error("nothing came back")]
    NothingBack,
    /// More was lost than `--max-loss` allows.
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
        /// What was asked of it.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The box would hear itself.
    #[error(
        "{0} is also the address that replies would come to: what is sent there comes back at once, from no appliance. Name an \
         appliance in another network namespace or on another machine, or give the box an address of its own with --local"
    )]
    OwnAddress(Ipv4Addr),
    /// Two pairs cannot be told apart.
    #[error("two pairs have the endpoint id {0:016x}")]
    SameEndpoint(u64),
}

/// For `map_err`: says what was asked of the system.
fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> SimulateError {
    let what = what.into();
    move |source| SimulateError::System { what, source }
}

/// Simulates, and prints the report on standard output.
///
/// # Errors
/// Wrong replies, none at all, or too few, after the report; otherwise what prevents the
/// simulation.
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
            let json = serde_json::to_string(&flooded).map_err(|error| system("report")(error.into()))?;
            return say(&(json + "\n"));
        }
        None => {}
    }
    let Some(appliance) = args.appliance else {
        // clap requires it.
        return Ok(());
    };
    let local = match args.local {
        Some(local) => local,
        None => local_address(*appliance.ip()).map_err(system(format!("no way to {appliance}")))?,
    };
    // Nowhere in particular means this machine (ip(7)).
    if *appliance.ip() == local || appliance.ip().is_unspecified() {
        return Err(SimulateError::OwnAddress(*appliance.ip()));
    }
    let pairs: Vec<&PairArg> = args.tun.iter().chain(&args.pairs).collect();
    let outer = Outer {
        destination_port: appliance.port(),
        udp_checksum: args.udp_checksum,
        ..Outer::new(local, *appliance.ip())
    };
    let setup = Setup {
        outer,
        endpoints: endpoints(args, &pairs)?,
        timeout: args.timeout,
        max_flows: args.max_flows,
        cookie_per_direction: args.cookie_per_direction,
    };
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
        balancer: Mutex::new(Balancer::new(setup, random_state())),
        answered: Condvar::new(),
        stop,
        deadline: time.map(|time| start + time),
    };
    let (sent, overflow) = exchange(args, captures, &shared, &socket, &devices, outer)?;
    let balancer = shared.balancer.lock();
    let end = balancer.last_reply().map_or(sent.at, |reply| reply.max(sent.at));
    let time = end.saturating_duration_since(start);
    let report = Report::new(
        &balancer.counters,
        balancer.flows(),
        balancer.overtaken(),
        time,
        overflow,
    );
    say(&if args.json {
        let json = serde_json::to_string(&report).map_err(|error| system("report")(error.into()))?;
        json + "\n"
    } else {
        report.to_string()
    })?;
    sent.result.and_then(|()| verdict(&report, args.max_loss))
}

/// Judges a run by its report. `max_loss` is in percent; without it, what is lost is no failure as
/// long as anything came back, since an appliance drops what its policy denies.
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

/// How and when sending ended.
struct Sent {
    at: Instant,
    result: Result<(), SimulateError>,
}

/// Sends from all sources while replies are judged and handed on; then waits for the last replies. Returns also how
/// many replies the kernel threw away.
fn exchange(
    args: &SimulateArgs,
    captures: &dyn Captures,
    shared: &Shared,
    socket: &UdpSocket,
    devices: &[TunPair],
    outer: Outer,
) -> Result<(Sent, u32), SimulateError> {
    let pace = match args.rate {
        _ if !devices.is_empty() => Pace::Live,
        Some(rate) => Pace::Rate(rate as f64),
        None => Pace::Window(usize::from(args.window)),
    };
    let sender = || {
        let raw = RawSender::new().map_err(system("a raw socket, which needs CAP_NET_RAW"))?;
        Ok::<_, SimulateError>(Sender::new(shared, raw, outer.destination, pace))
    };
    let mut senders = (0..devices.len().max(1))
        .map(|_| sender())
        .collect::<Result<Vec<_>, _>>()?;
    let finished = AtomicBool::new(false);
    let overflow_before = receive_overflow(outer.source);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let received = receive(shared, socket, devices, &finished);
            if received.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            received
        });
        let mut result = if devices.is_empty() {
            senders
                .first_mut()
                .map_or(Ok(()), |sender| send(args, captures, sender))
        } else {
            send_live(shared, devices, &mut senders)
        };
        let at = Instant::now();
        let last = at + args.timeout + 2 * EXPIRE;
        shared.wait_below(0, || Instant::now() > last);
        finished.store(true, Ordering::Relaxed);
        if let Ok(received) = receiver.join() {
            result = result.and(received.map_err(system("receiving")));
        }
        let overflow = receive_overflow(outer.source).saturating_sub(overflow_before);
        Ok((Sent { at, result }, overflow))
    })
}

/// Sends a capture or a load.
fn send(args: &SimulateArgs, captures: &dyn Captures, sender: &mut Sender<'_>) -> Result<(), SimulateError> {
    if let Some(path) = &args.capture {
        let playback = Playback {
            path,
            loops: args.loops,
            decapsulate: args.decapsulate,
        };
        playback.send(captures, sender)?;
    }
    if let Some(protocol) = args.generate {
        let load = Load {
            tcp: protocol == Protocol::Tcp,
            flows: args.flows,
            size: usize::from(args.size),
            port: args.server_port,
            connection: args.connection,
            packets: args.packets,
        };
        generate::run(sender, load);
    }
    Ok(())
}

/// Sends what comes in at the devices, with a thread for each pair.
fn send_live(shared: &Shared, devices: &[TunPair], senders: &mut [Sender<'_>]) -> Result<(), SimulateError> {
    thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .zip(senders)
            .enumerate()
            .map(|(pair, (devices, sender))| {
                scope.spawn(move || {
                    let sent = devices.run(sender, pair);
                    if sent.is_err() {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    sent
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect::<io::Result<()>>()
            .map_err(system("reading a TUN device"))
    })
}

/// Judges replies and hands them on until all is over.
fn receive(
    shared: &Shared,
    socket: &UdpSocket,
    devices: &[TunPair],
    finished: &AtomicBool,
) -> io::Result<()> {
    let mut receiver = Receiver::new(socket);
    let mut expired = Instant::now();
    while !finished.load(Ordering::Relaxed) {
        let datagrams = receiver.receive()?;
        let mut deliveries = Vec::new();
        let mut balancer = shared.balancer.lock();
        let now = Instant::now();
        for (source, payload) in datagrams {
            let delivery = balancer.receive(now, source, payload);
            if let Some(delivery) = delivery.filter(|_| !devices.is_empty()) {
                let inner = payload.get(delivery.inner_at..).unwrap_or_default();
                deliveries.push((delivery, inner));
            }
        }
        if now.saturating_duration_since(expired) >= EXPIRE {
            balancer.expire(now);
            expired = now;
        }
        drop(balancer);
        shared.answered.notify_all();
        let refused = deliveries
            .iter()
            .filter(|(delivery, inner)| {
                devices
                    .get(delivery.pair)
                    .is_some_and(|pair| !pair.write(delivery.side, inner))
            })
            .count();
        if refused > 0 {
            shared.balancer.lock().counters.not_delivered += refused as u64;
        }
    }
    Ok(())
}

/// The endpoint of each pair, or the one of a source without devices.
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

/// A hasher of seeds from the operating system.
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
