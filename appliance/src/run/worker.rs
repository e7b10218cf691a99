//! Worker threads. A turn of a worker receives a batch, decides it, ends expired sessions and sends
//! the results.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portcullis::geneve::front::{Answer, Datagram, Decision, Queued, Released, Scratch};

use super::event_sink::EventSink;
use super::inlet::{Inlet, Port, QueueBounds, Received, ports, receive_queue};
use super::outlet::Outlet;
use super::shared::Shared;
use super::socket::SocketError;
use super::streak::Streak;
use super::worker_stats::WorkerStats;
use super::xdp::rings::Rings;
use super::xdp::state::OpenQueue;

/// Sessions that a worker examines for expiry in one turn: some 50 us, less than a batch of
/// datagrams takes.
const EXPIRY_BUDGET: usize = 256;
/// Failures in a row after which a worker gives up.
const MAX_FAILURES: u32 = 100;
/// Under load, a worker waits for more datagrams after a batch of fewer than this.
const SMALL: usize = 16;
/// Maximum time between two batches that count as load.
const CLOSE: Duration = Duration::from_micros(250);
/// Pause after a socket has failed, so that a persistent failure does not occupy a processor.
const REST: Duration = Duration::from_millis(10);
/// Longest time to empty the rings at the end. They hold some milliseconds of packets.
const LAST: Duration = Duration::from_millis(500);
/// Turns in a row without a packet after which the rings are empty at the end.
const QUIET: u32 = 2;

/// Worker before its start, with its sockets.
pub(crate) struct Worker {
    number: usize,
    ports: Vec<Port>,
    bounds: QueueBounds,
    outlet: Outlet,
    queues: Vec<OpenQueue>,
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
            queues: Vec::new(),
        })
    }

    /// Adds the rings of a receive queue of an interface.
    pub(crate) fn add(&mut self, queue: OpenQueue) {
        self.queues.push(queue);
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
            rings: Rings::new(self.queues, self.bounds),
            outlet: self.outlet,
            scratch: Scratch::new(&shared.front),
            sink: EventSink::new(shared),
            failures: 0,
        };
        let coalesce = shared.run.coalesce;
        let mut streak = Streak::new(CLOSE, shared.started);
        // More sessions have expired than one turn may end: the next turn does not wait for
        // datagrams.
        let mut expiring = false;
        while !shared.stop.load(Ordering::Relaxed) {
            let count = turns.receive(!expiring)?;
            let now = Instant::now();
            stats.turn(now.saturating_duration_since(shared.started));
            let is_loaded = streak.note(now);
            expiring = turns.decide(now);
            turns.send(now);
            let is_small = (1..SMALL).contains(&count);
            if is_small && is_loaded && !coalesce.is_zero() {
                std::thread::sleep(coalesce);
            }
        }
        turns.finish();
        Ok(())
    }
}

/// Decides datagrams in a batch, or one by one while an observer asks for their traces.
struct Decider<'t, 's> {
    shared: &'s Shared,
    stats: &'t WorkerStats,
    scratch: &'t mut Scratch,
    sink: &'t mut EventSink<'s>,
    now: Instant,
}

impl Decider<'_, '_> {
    /// Counts and decides the datagrams. `put` gets the number of each with its answer.
    #[inline]
    fn decide<'b>(
        &mut self,
        datagrams: impl Iterator<Item = Queued<'b>>,
        mut put: impl FnMut(usize, &Datagram<'_>, &Answer<'_>),
    ) {
        let stats = self.stats;
        let mut put = |number, datagram: &Datagram<'_>, answer: &Answer<'_>| {
            stats.received.add(1);
            stats.received_bytes.add(datagram.payload.len() as u64);
            put(number, datagram, answer);
        };
        if self.sink.tap.explains() {
            return self.decide_one_by_one(datagrams, put);
        }
        self.shared.front.handle_queued_batch(
            &self.shared.engine,
            datagrams,
            self.now,
            self.scratch,
            self.sink,
            |number, datagram, decision, sink| {
                put(number, datagram, &decision.answer);
                sink.tap.packet(datagram, &decision);
            },
        );
    }

    /// Decides the datagrams one by one, and traces those that an observer asks for.
    #[cold]
    fn decide_one_by_one<'b>(
        &mut self,
        datagrams: impl Iterator<Item = Queued<'b>>,
        mut put: impl FnMut(usize, &Datagram<'_>, &Answer<'_>),
    ) {
        let (engine, front) = (&self.shared.engine, &self.shared.front);
        let (scratch, sink) = (&mut *self.scratch, &mut *self.sink);
        for (number, queued) in datagrams.enumerate() {
            if sink.tap.traces(&queued.datagram) {
                let (decision, steps) = front.explain(engine, &queued, self.now, scratch, sink);
                put(number, &queued.datagram, &decision.answer);
                sink.tap.traced(&queued.datagram, &decision, steps);
                continue;
            }
            let each =
                |_, datagram: &Datagram<'_>, decision: Decision<'_>, sink: &mut EventSink<'_>| {
                    put(number, datagram, &decision.answer);
                    sink.tap.packet(datagram, &decision);
                };
            front.handle_queued_batch(engine, [queued], self.now, scratch, sink, each);
        }
    }
}

/// State of a working worker.
struct Turns<'s> {
    shared: &'s Shared,
    stats: &'s WorkerStats,
    inlet: Inlet,
    rings: Rings,
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
        match self.try_receive(wait) {
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

    /// Receives from the rings, if the worker has any, and from the sockets.
    #[inline]
    fn try_receive(&mut self, wait: bool) -> io::Result<Received> {
        if self.rings.is_empty() {
            return self.inlet.receive(wait);
        }
        // Before the first error: no batch is decided twice.
        self.rings.clear();
        self.inlet.clear();
        let reads_sockets = self.rings.wait(wait, self.inlet.sockets())?;
        let in_rings = self.rings.receive(self.stats);
        let mut received = Received::default();
        if reads_sockets {
            received = self.inlet.receive(false)?;
        }
        received.count += in_rings;
        Ok(received)
    }

    /// Decides the received datagrams and those that were held, and ends expired sessions. Returns
    /// whether more sessions have expired.
    #[inline]
    fn decide(&mut self, now: Instant) -> bool {
        let Self {
            shared,
            stats,
            inlet,
            rings,
            outlet,
            scratch,
            sink,
            ..
        } = self;
        sink.refresh(now);
        let mut decider = Decider {
            shared,
            stats,
            scratch,
            sink,
            now,
        };
        for ring in rings.iter_mut() {
            let (datagrams, replies) = ring.batch();
            decider.decide(datagrams, |number, _, answer| replies.put(number, answer));
            ring.answer(outlet, stats);
        }
        let put = |number, datagram: &Datagram<'_>, answer: &Answer<'_>| match answer {
            Answer::Return => outlet.put_back(&datagram.back(), number, datagram.payload.len()),
            Answer::Send(outgoing) => outlet.put_made(&outgoing.tunnel, outgoing.payload),
            Answer::Nothing(_) => {}
        };
        decider.decide(inlet.datagrams(), put);
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
    fn send(&mut self, now: Instant) {
        self.rings.flush(now, self.stats);
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

    /// Decides and answers the datagrams that are still in the rings, for at most [`LAST`].
    fn empty_rings(&mut self) {
        self.inlet.clear();
        let end = Instant::now() + LAST;
        let mut quiet = 0;
        while !self.rings.is_empty() && quiet < QUIET && Instant::now() < end {
            self.rings.receive(self.stats);
            let now = Instant::now();
            self.decide(now);
            self.send(now);
            if self.rings.are_ready() {
                quiet = 0;
                continue;
            }
            // A frame may be on its way to the ring although the program is detached, and an
            // interface that is down may come up and send.
            quiet = if self.rings.are_idle() { quiet + 1 } else { 0 };
            std::thread::sleep(REST);
        }
        self.rings.clear();
        self.rings.abandon(self.stats);
    }

    /// Decides the datagrams that are still in the rings, then releases and sends those that are
    /// held, so that each has an outcome.
    fn finish(mut self) {
        self.empty_rings();
        self.shared.front.release_held();
        self.put_released(Instant::now());
        self.outlet.flush(&self.inlet, self.stats);
        // The kernel's counts end with the sockets.
        self.rings.read_kernel();
        self.shared.read_receive_overflow();
    }
}
