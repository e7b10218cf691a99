//! Threads that measure.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use portcullis::{Discard, DropReason, Engine, Packet, Verdict};

use super::args::{BenchArgs, Mode, SLICE};
use super::error::BenchError;
use super::traffic::{Frame, Order, Protocol, Session};

/// Step of the engine's time from one round to the next: longer than the lifetime of any session of
/// the benchmark (340 s for an established TCP connection).
const ROUND: Duration = Duration::from_secs(400);

/// Rounds before the measurement of packets: the first data and the first ACK of each end are news
/// to a session, and cost more than all that follow.
const WARM_UP: usize = 4;

/// Samples of a thread.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Nanoseconds for each packet or session, a slice's mean each.
    pub(super) nanos_each: Vec<f64>,
    /// Packets or sessions in all.
    pub(super) count: u64,
    /// The time that they took.
    busy: Duration,
}

impl Samples {
    fn add(&mut self, took: Duration, count: usize) {
        if count > 0 {
            self.nanos_each.push(took.as_nanos() as f64 / count as f64);
            self.count += count as u64;
            self.busy += took;
        }
    }

    /// Packets or sessions in a second of the timed part.
    pub(super) fn per_second(&self) -> f64 {
        let seconds = self.busy.as_secs_f64();
        if seconds > 0.0 {
            self.count as f64 / seconds
        } else {
            0.0
        }
    }
}

/// A thread's share of the sessions.
#[derive(Debug, Clone, Copy)]
struct Share {
    first: u32,
    order: Order,
    len: u32,
}

impl Share {
    /// Share `number` of `of`; they differ by one session at the most.
    fn new(sessions: u32, number: u32, of: u32) -> Self {
        let cut = |number: u32| (u64::from(sessions) * u64::from(number) / u64::from(of)) as u32;
        let (first, end) = (cut(number), cut(number + 1));
        Self {
            first,
            order: Order::new(end - first),
            len: end - first,
        }
    }

    fn session(&self, round: u32, position: u32) -> Session {
        Session(self.first + self.order.at(round, position))
    }
}

/// Measurement by several threads.
pub(super) struct Run<'e> {
    engine: &'e Engine,
    protocol: Protocol,
    mode: Mode,
    sessions: u32,
    threads: u32,
    batch: usize,
    time: Duration,
    start: Instant,
    /// Number of steps of [`ROUND`] that the engine's time is ahead.
    round: AtomicU32,
    not_forwarded: AtomicU64,
    first_reason: OnceLock<DropReason>,
    /// Expected and found number of sessions, where they differed.
    miscounted: OnceLock<(u32, usize)>,
}

impl<'e> Run<'e> {
    pub(super) fn new(engine: &'e Engine, args: &BenchArgs, time: Duration) -> Self {
        Self {
            engine,
            protocol: args.protocol.into(),
            mode: args.mode,
            sessions: args.sessions,
            threads: args.threads,
            batch: args.batch as usize,
            time,
            start: Instant::now(),
            round: AtomicU32::new(0),
            not_forwarded: AtomicU64::new(0),
            first_reason: OnceLock::new(),
            miscounted: OnceLock::new(),
        }
    }

    /// Returns the engine's time.
    fn now(&self) -> Instant {
        Instant::now() + ROUND * self.round.load(Ordering::Relaxed)
    }

    /// Establishes all sessions, in an order that no later round has.
    pub(super) fn fill(&self) {
        let order = Order::new(self.sessions);
        for position in 0..self.sessions {
            let now = self.now();
            let session = Session(order.at(u32::MAX, position));
            for frame in session.handshake(self.protocol) {
                self.decide(&frame, now);
            }
        }
        self.count_sessions(self.sessions);
    }

    /// Lets time pass until no session is left.
    fn drain(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
        while self
            .engine
            .expire_with(self.now(), SLICE, &mut Discard)
            .more
        {}
        self.count_sessions(0);
    }

    fn count_sessions(&self, expected: u32) {
        let found = self.engine.sessions();
        if found != expected as usize {
            self.miscounted.get_or_init(|| (expected, found));
        }
    }

    /// Returns the first error so far.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if let Some(reason) = self.first_reason.get() {
            return Err(BenchError::NotForwarded {
                count: self.not_forwarded.load(Ordering::Relaxed),
                reason: *reason,
            });
        }
        match self.miscounted.get() {
            Some(&(expected, found)) => Err(BenchError::Sessions { expected, found }),
            None => Ok(()),
        }
    }

    #[inline]
    fn decide(&self, frame: &Frame, now: Instant) {
        self.check_verdict(self.engine.verdict_only(Packet::new(frame.bytes(), now)));
    }

    #[inline]
    fn check_verdict(&self, verdict: Verdict) {
        if let Some(reason) = verdict.reason() {
            self.not_forwarded.fetch_add(1, Ordering::Relaxed);
            self.first_reason.get_or_init(|| reason);
        }
    }

    /// Measures in all threads. The table is full before.
    pub(super) fn measure(&self) -> Result<Vec<Samples>, BenchError> {
        if self.mode == Mode::Setup {
            self.drain();
        }
        let barrier = Barrier::new(self.threads as usize);
        let stop = AtomicBool::new(false);
        let samples = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| {
                    let share = Share::new(self.sessions, number, self.threads);
                    let (barrier, stop) = (&barrier, &stop);
                    scope.spawn(move || match self.mode {
                        Mode::Packets => self.packets(&share, barrier),
                        Mode::Setup | Mode::Expire => self.rounds(&share, barrier, stop),
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .collect()
        });
        self.check()?;
        Ok(samples)
    }

    fn packets(&self, share: &Share, barrier: &Barrier) -> Samples {
        let mut samples = Samples::default();
        let mut frames = vec![Frame::EMPTY; SLICE];
        let mut at = (0..).flat_map(|round| (0..share.len).map(move |position| (round, position)));
        for (round, position) in at.by_ref().take(share.len as usize * WARM_UP) {
            let frame = share.session(round, position).packet(self.protocol, round);
            self.decide(&frame, self.now());
        }
        barrier.wait();
        let start = Instant::now();
        while start.elapsed() < self.time && self.check().is_ok() {
            for (frame, (round, position)) in frames.iter_mut().zip(&mut at) {
                *frame = share.session(round, position).packet(self.protocol, round);
            }
            self.time_slice(&frames, &mut samples);
        }
        samples
    }

    fn time_slice(&self, frames: &[Frame], samples: &mut Samples) {
        let now = self.now();
        let packets: Vec<_> = frames
            .iter()
            .map(|frame| Packet::new(frame.bytes(), now))
            .collect();
        let start = Instant::now();
        if self.batch == 1 {
            for frame in frames {
                self.decide(frame, now);
            }
        } else {
            for batch in packets.chunks(self.batch) {
                self.engine
                    .process_batch_with(batch, &mut Discard, |_, verdict, _| {
                        self.check_verdict(verdict)
                    });
            }
        }
        samples.add(start.elapsed(), frames.len());
    }

    /// Rounds of setup, or of expiry, with the other half of each round not timed. The threads keep
    /// together.
    fn rounds(&self, share: &Share, barrier: &Barrier, stop: &AtomicBool) -> Samples {
        let mut samples = Samples::default();
        let mut frames = vec![Frame::EMPTY; SLICE];
        for round in 0.. {
            barrier.wait();
            if self.mode == Mode::Setup {
                self.set_up(share, round, &mut frames, &mut samples);
            } else {
                self.expire(&mut samples);
            }
            if barrier.wait().is_leader() {
                if self.mode == Mode::Setup {
                    self.count_sessions(self.sessions);
                    self.drain();
                } else {
                    self.count_sessions(0);
                    self.round.fetch_add(1, Ordering::Relaxed);
                    self.fill();
                }
                let over = self.start.elapsed() >= self.time || self.check().is_err();
                stop.store(over, Ordering::Relaxed);
            }
            barrier.wait();
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        samples
    }

    fn set_up(&self, share: &Share, round: u32, frames: &mut [Frame], samples: &mut Samples) {
        let mut position = 0;
        while position < share.len {
            let mut made = 0;
            for frame in frames.iter_mut().take((share.len - position) as usize) {
                *frame = share.session(round, position).opening(self.protocol);
                position += 1;
                made += 1;
            }
            self.time_slice(frames.get(..made).unwrap_or_default(), samples);
        }
    }

    fn expire(&self, samples: &mut Samples) {
        let later = self.now() + ROUND;
        loop {
            let start = Instant::now();
            let done = self.engine.expire_with(later, SLICE, &mut Discard);
            samples.add(start.elapsed(), done.ended);
            if !done.more {
                break;
            }
        }
    }
}
