//! A worker: receives a batch, decides it, sends what is to be sent, lets a little time pass, and begins anew.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portcullis::geneve::front::{Answer, Scratch};

use super::event_sink::EventSink;
use super::shared::Shared;
use super::socket::{Inlet, Outlet, QueueBounds, Received, SocketError, ports, receive_queue};

/// Sessions that a worker looks at for expiry in one turn: some 50 us, less than a batch of datagrams takes.
const EXPIRY_BUDGET: usize = 256;
/// Failures in a row after which a worker gives up.
const MAX_FAILURES: u32 = 100;
/// A batch of fewer datagrams is worth waiting for more, under load.
const SMALL: usize = 16;
/// Batches that follow each other within this time are load,
const CLOSE: Duration = Duration::from_micros(250);
/// once there were so many of them.
const STREAK: u32 = 8;
/// How long a worker rests after its socket has failed, lest it fills a processor with failing.
const REST: Duration = Duration::from_millis(10);

/// A worker before its start: its sockets are there.
pub(crate) struct Worker {
    number: usize,
    ports: Vec<(UdpSocket, Ipv4Addr)>,
    bounds: QueueBounds,
    outlet: Outlet,
}

impl Worker {
    /// The worker of a number, with its sockets.
    ///
    /// # Errors
    /// A socket could not be had.
    pub(crate) fn new(number: usize, shared: &Shared) -> Result<Self, SocketError> {
        let config = shared.config.read();
        let bounds = QueueBounds {
            bytes: shared.run.receive_queue as usize,
            delay: shared.run.queue_delay,
        };
        let ports = ports(&config.geneve.listen, bounds)?;
        if let Some(stats) = shared.workers.get(number) {
            for (socket, _) in &ports {
                // A socket that the system does not identify keeps nobody from working: its drops
                // are not counted.
                let _ = stats.receive_overflow.watch(socket);
            }
        }
        Ok(Self {
            number,
            ports,
            bounds,
            outlet: Outlet::new(&config.geneve.listen)?,
        })
    }

    /// What its smallest receive queue holds in bytes, if that is less than was asked for.
    pub(crate) fn short_queue(&self, asked: usize) -> Option<usize> {
        self.ports
            .iter()
            .filter_map(|(socket, _)| receive_queue(socket))
            .min()
            .filter(|granted| *granted < asked)
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// What the system says of the socket that receives, if it says so again and again.
    pub(crate) fn run(self, shared: &Shared) -> io::Result<()> {
        let Some(stats) = shared.workers.get(self.number) else {
            return Ok(());
        };
        let (mut inlet, mut outlet) = (Inlet::new(self.ports, self.bounds), self.outlet);
        let mut scratch = Scratch::new(&shared.front);
        let mut sink = EventSink::new(shared);
        let coalesce = shared.run.coalesce;
        let (mut streak, mut last) = (0, shared.started);
        let mut failures = 0;
        // More sessions are over than one turn has ended: the next one does not wait for datagrams.
        let mut expiring = false;
        while !shared.stop.load(Ordering::Relaxed) {
            let mut small = false;
            match inlet.receive(!expiring) {
                Ok(Received { count, unaddressed }) => {
                    failures = 0;
                    if count > 0 {
                        stats.batch(count);
                    }
                    if unaddressed > 0 {
                        stats.unaddressed.add(unaddressed as u64);
                    }
                    small = (1..SMALL).contains(&count);
                }
                Err(_) if failures < MAX_FAILURES => {
                    // Such as a lack of memory, which passes.
                    failures += 1;
                    stats.receive_failed.add(1);
                    std::thread::sleep(REST);
                }
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            stats.turn(now.saturating_duration_since(shared.started));
            streak = if now.saturating_duration_since(last) < CLOSE {
                streak + 1
            } else {
                0
            };
            last = now;
            sink.log.refresh();
            let datagrams = inlet.datagrams();
            shared.front.handle_queued_batch(
                &shared.engine,
                datagrams,
                now,
                &mut scratch,
                &mut sink,
                |number, datagram, answer| {
                    stats.received.add(1);
                    stats.received_bytes.add(datagram.payload.len() as u64);
                    match answer {
                        Answer::Return => {
                            outlet.put_back(&datagram.back(), number, datagram.payload.len());
                        }
                        Answer::Send(outgoing) => outlet.put_made(&outgoing.tunnel, outgoing.payload),
                        Answer::Nothing(_) => {}
                    }
                },
            );
            put_released(shared, now, &mut scratch, &mut sink, &mut outlet);
            expiring = shared.engine.next_expiry().is_some_and(|due| due <= now)
                && shared.engine.expire(now, EXPIRY_BUDGET, &mut sink).more;
            for reset in sink.resets.drain(..) {
                match shared.front.reset(&reset, &mut scratch) {
                    Some(outgoing) => outlet.put_made(&outgoing.tunnel, outgoing.payload),
                    None => stats.resets_without_tunnel.add(1),
                }
            }
            if !outlet.is_empty() {
                outlet.flush(&inlet, stats);
            }
            if small && streak >= STREAK && !coalesce.is_zero() {
                std::thread::sleep(coalesce);
            }
        }
        // Nothing is left without an outcome.
        shared.front.release_held();
        put_released(shared, Instant::now(), &mut scratch, &mut sink, &mut outlet);
        outlet.flush(&inlet, stats);
        // The counts end with the sockets.
        shared.read_receive_overflow();
        Ok(())
    }
}

/// Puts the datagrams in line that were held and wait no longer.
fn put_released(
    shared: &Shared,
    now: Instant,
    scratch: &mut Scratch,
    sink: &mut EventSink<'_>,
    outlet: &mut Outlet,
) {
    while let Some(answer) = shared.front.next_released(&shared.engine, now, scratch, sink) {
        if let Answer::Send(outgoing) = answer {
            outlet.put_made(&outgoing.tunnel, outgoing.payload);
        }
    }
}
