//! Worker threads. A turn of a worker receives a batch, decides it, ends expired sessions and sends
//! the results.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portcullis::geneve::front::{Answer, Datagram, Decision, Released, Scratch};

use super::event_sink::EventSink;
use super::inlet::{Inlet, Port, QueueBounds, Received, ports, receive_queue};
use super::outlet::Outlet;
use super::shared::Shared;
use super::socket::SocketError;
use super::worker_stats::WorkerStats;

/// Sessions that a worker examines for expiry in one turn: some 50 us, less than a batch of
/// datagrams takes.
const EXPIRY_BUDGET: usize = 256;
/// Failures in a row after which a worker gives up.
const MAX_FAILURES: u32 = 100;
/// Under load, a worker waits for more datagrams after a batch of fewer than this.
const SMALL: usize = 16;
/// Maximum time between two batches that count as load.
const CLOSE: Duration = Duration::from_micros(250);
/// Number of close batches in a row that count as load.
const STREAK: u32 = 8;
/// Pause after a socket has failed, so that a persistent failure does not occupy a processor.
const REST: Duration = Duration::from_millis(10);

/// Worker before its start, with its sockets.
pub(crate) struct Worker {
    number: usize,
    ports: Vec<Port>,
    bounds: QueueBounds,
    outlet: Outlet,
}

impl Worker {
    /// Opens the sockets of a worker.
    ///
    /// # Errors
    /// Returns an error if a socket cannot be opened.
    pub(crate) fn new(number: usize, shared: &Shared) -> Result<Self, SocketError> {
        let config = shared.config.read();
        let bounds = QueueBounds {
            bytes: shared.run.receive_queue as usize,
            delay: shared.run.queue_delay,
        };
        let ports = ports(&config.geneve.listen, bounds)?;
        if let Some(stats) = shared.workers.get(number) {
            for port in &ports {
                // The drops of a socket that the system does not identify are not counted.
                let _ = stats.receive_overflow.watch(&port.socket);
            }
        }
        Ok(Self {
            number,
            ports,
            bounds,
            outlet: Outlet::new(&config.geneve.listen)?,
        })
    }

    /// Returns the size of the smallest receive queue in bytes, if it is less than requested.
    pub(crate) fn short_queue(&self, asked: usize) -> Option<usize> {
        self.ports
            .iter()
            .filter_map(|port| receive_queue(&port.socket))
            .min()
            .filter(|granted| *granted < asked)
    }

    /// Works until the appliance stops.
    ///
    /// # Errors
    /// Returns an error if the receiving socket fails [`MAX_FAILURES`] times in a row.
    pub(crate) fn run(self, shared: &Shared) -> io::Result<()> {
        let Some(stats) = shared.workers.get(self.number) else {
            return Ok(());
        };
        let mut turns = Turns {
            shared,
            stats,
            inlet: Inlet::new(self.ports, self.bounds),
            outlet: self.outlet,
            scratch: Scratch::new(&shared.front),
            sink: EventSink::new(shared),
            failures: 0,
        };
        let coalesce = shared.run.coalesce;
        let (mut streak, mut last) = (0, shared.started);
        // More sessions have expired than one turn may end: the next turn does not wait for
        // datagrams.
        let mut expiring = false;
        while !shared.stop.load(Ordering::Relaxed) {
            let count = turns.receive(!expiring)?;
            let now = Instant::now();
            stats.turn(now.saturating_duration_since(shared.started));
            streak = if now.saturating_duration_since(last) < CLOSE {
                streak + 1
            } else {
                0
            };
            last = now;
            expiring = turns.decide(now);
            turns.send();
            let is_small = (1..SMALL).contains(&count);
            if is_small && streak >= STREAK && !coalesce.is_zero() {
                std::thread::sleep(coalesce);
            }
        }
        turns.finish();
        Ok(())
    }
}

/// Outgoing datagrams of a turn, with the counters of received ones.
struct Answers<'t> {
    stats: &'t WorkerStats,
    outlet: &'t mut Outlet,
}

impl Answers<'_> {
    /// Counts the datagram with a number in its batch, and queues its answer.
    #[inline]
    fn put(&mut self, number: usize, datagram: &Datagram<'_>, answer: &Answer<'_>) {
        self.stats.received.add(1);
        self.stats.received_bytes.add(datagram.payload.len() as u64);
        match answer {
            Answer::Return => {
                let len = datagram.payload.len();
                self.outlet.put_back(&datagram.back(), number, len);
            }
            Answer::Send(outgoing) => self.outlet.put_made(&outgoing.tunnel, outgoing.payload),
            Answer::Nothing(_) => {}
        }
    }
}

/// State of a working worker.
struct Turns<'s> {
    shared: &'s Shared,
    stats: &'s WorkerStats,
    inlet: Inlet,
    outlet: Outlet,
    scratch: Scratch,
    sink: EventSink<'s>,
    /// Failed calls to receive in a row.
    failures: u32,
}

impl Turns<'_> {
    /// Receives a batch, and waits for it if requested. Returns the number of datagrams.
    ///
    /// # Errors
    /// Returns an error if receiving has failed [`MAX_FAILURES`] times in a row.
    #[inline]
    fn receive(&mut self, wait: bool) -> io::Result<usize> {
        match self.inlet.receive(wait) {
            Ok(Received { count, unaddressed }) => {
                self.failures = 0;
                if count > 0 {
                    self.stats.batch(count);
                }
                if unaddressed > 0 {
                    self.stats.unaddressed.add(unaddressed as u64);
                }
                Ok(count)
            }
            Err(_) if self.failures < MAX_FAILURES => {
                // A lack of memory, for example, is temporary.
                self.failures += 1;
                self.stats.receive_failed.add(1);
                std::thread::sleep(REST);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Decides the received datagrams and those that were held, and ends expired sessions. Returns
    /// whether more sessions have expired.
    #[inline]
    fn decide(&mut self, now: Instant) -> bool {
        let Self {
            shared,
            stats,
            inlet,
            outlet,
            scratch,
            sink,
            ..
        } = self;
        sink.refresh(now);
        if sink.tap.explains() {
            return self.decide_one_by_one(now);
        }
        shared.front.handle_queued_batch(
            &shared.engine,
            inlet.datagrams(),
            now,
            scratch,
            sink,
            |number, datagram, decision, sink| {
                Answers { stats, outlet }.put(number, datagram, &decision.answer);
                sink.tap.packet(datagram, &decision);
            },
        );
        self.after_datagrams(now)
    }

    /// Decides the received datagrams one by one, and traces those that an observer asks for.
    #[cold]
    fn decide_one_by_one(&mut self, now: Instant) -> bool {
        let (engine, front) = (&self.shared.engine, &self.shared.front);
        let (scratch, sink) = (&mut self.scratch, &mut self.sink);
        for (number, queued) in self.inlet.datagrams().enumerate() {
            let mut answers = Answers {
                stats: self.stats,
                outlet: &mut self.outlet,
            };
            if sink.tap.traces(&queued.datagram) {
                let (decision, steps) = front.explain(engine, &queued, now, scratch, sink);
                answers.put(number, &queued.datagram, &decision.answer);
                sink.tap.traced(&queued.datagram, &decision, steps);
                continue;
            }
            let each =
                |_, datagram: &Datagram<'_>, decision: Decision<'_>, sink: &mut EventSink<'_>| {
                    answers.put(number, datagram, &decision.answer);
                    sink.tap.packet(datagram, &decision);
                };
            front.handle_queued_batch(engine, [queued], now, scratch, sink, each);
        }
        self.after_datagrams(now)
    }

    /// Decides the datagrams that were held, and ends expired sessions. Returns whether more
    /// sessions have expired.
    fn after_datagrams(&mut self, now: Instant) -> bool {
        self.put_released(now);
        let engine = &self.shared.engine;
        engine.next_expiry().is_some_and(|due| due <= now)
            && engine.expire_with(now, EXPIRY_BUDGET, &mut self.sink).more
    }

    /// Queues the held datagrams that no longer wait.
    #[inline]
    fn put_released(&mut self, now: Instant) {
        let shared = self.shared;
        while let Some(Released { datagram, decision }) =
            shared
                .front
                .decide_released(&shared.engine, now, &mut self.scratch, &mut self.sink)
        {
            if let Answer::Send(outgoing) = decision.answer {
                self.outlet.put_made(&outgoing.tunnel, outgoing.payload);
            }
            self.sink.tap.packet(&datagram, &decision);
        }
    }

    /// Sends all queued datagrams, and the RSTs.
    #[inline]
    fn send(&mut self) {
        let EventSink { resets, tap, .. } = &mut self.sink;
        for reset in resets.drain(..) {
            let outgoing = self.shared.front.reset(&reset, &mut self.scratch);
            tap.reset(&reset, outgoing.is_some());
            match outgoing {
                Some(outgoing) => self.outlet.put_made(&outgoing.tunnel, outgoing.payload),
                None => self.stats.resets_without_tunnel.add(1),
            }
        }
        if !self.outlet.is_empty() {
            self.outlet.flush(&self.inlet, self.stats);
        }
    }

    /// Releases and sends the datagrams that are still held, so that each has an outcome.
    fn finish(mut self) {
        self.shared.front.release_held();
        self.put_released(Instant::now());
        self.outlet.flush(&self.inlet, self.stats);
        // The kernel's counts end with the sockets.
        self.shared.read_receive_overflow();
    }
}
