//! The threads of a run: senders, the receiver, the checker and the reader of commands.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::args::{Protocol, SimulateArgs};
use super::captures::{Captures, Playback};
use super::checker::watch;
use super::control::serve;
use super::generate::{self, Load};
use super::sender::{Pace, Sender, Shared};
use super::socket::{RawSender, Receiver, receive_overflow};
use super::tun::TunPair;
use super::{EXPIRE, SimulateError, system};

/// Time and outcome of sending.
pub(super) struct Sent {
    /// Time at which sending ended.
    pub(super) at: Instant,
    /// Outcome of sending and of the other threads.
    pub(super) result: Result<(), SimulateError>,
}

/// Sends from all sources while replies are judged and forwarded, then waits for the last replies.
/// Also returns the number of replies that the kernel discarded.
pub(super) fn exchange(
    args: &SimulateArgs,
    captures: &dyn Captures,
    shared: &Shared,
    socket: &UdpSocket,
    devices: &[TunPair],
) -> Result<(Sent, u32), SimulateError> {
    let pace = match args.rate {
        _ if !devices.is_empty() => Pace::Live,
        Some(rate) => Pace::Rate(rate as f64),
        None => Pace::Window(usize::from(args.window)),
    };
    let sender = || {
        let raw = RawSender::new().map_err(system("a raw socket, which needs CAP_NET_RAW"))?;
        Ok::<_, SimulateError>(Sender::new(shared, raw, pace))
    };
    let mut senders = (0..devices.len().max(1))
        .map(|_| sender())
        .collect::<Result<Vec<_>, _>>()?;
    let finished = AtomicBool::new(false);
    let (local, check) = {
        let balancer = shared.balancer.lock();
        (balancer.setup.local, balancer.setup.group.health.clone())
    };
    let overflow_before = receive_overflow(local);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let received = receive(shared, socket, devices, &finished);
            if received.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            received
        });
        scope.spawn(|| watch(shared, check.as_ref(), &finished));
        let control = args
            .targets
            .control
            .then(|| scope.spawn(|| serve(shared, &finished)));
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
        if let Some(Ok(served)) = control.map(thread::ScopedJoinHandle::join) {
            result = result.and(served.map_err(system("commands on standard input")));
        }
        let overflow = receive_overflow(local).saturating_sub(overflow_before);
        Ok((Sent { at, result }, overflow))
    })
}

/// Sends a capture or a load.
fn send(
    args: &SimulateArgs,
    captures: &dyn Captures,
    sender: &mut Sender<'_>,
) -> Result<(), SimulateError> {
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

/// Sends the packets that enter the devices, with one thread per pair.
fn send_live(
    shared: &Shared,
    devices: &[TunPair],
    senders: &mut [Sender<'_>],
) -> Result<(), SimulateError> {
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

/// Judges replies and forwards them until the run is over.
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
