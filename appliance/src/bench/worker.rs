//! The measuring threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use portcullis::{Discard, DropReason, Engine, Packet, Verdict};

use super::args::{BenchArgs, Mode, SLICE};
use super::error::BenchError;
use super::mix::Traffic;
use super::traffic::{Frame, Order, Session};

/// Step of the engine's time from one round to the next: longer than the lifetime of any session of
/// the benchmark (340 s for an established TCP connection).
const ROUND: Duration = Duration::from_secs(400);

/// Rounds before the measurement of packets: the first data and the first ACK of each end change
/// more of a session than later ones, and cost more.
pub(super) const WARM_UP: usize = 4;

/// Number of packets that are decided together outside the timed part.
const UNTIMED_BATCH: usize = 64;

/// Samples of a thread.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Nanoseconds per packet or session, as the mean of each slice.
    pub(super) nanos_each: Vec<f64>,
    /// Packets or sessions in all.
    pub(super) count: u64,
    /// The total time.
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

    /// Packets or sessions per second of the timed part.
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
pub(super) struct Share {
    first: u32,
    order: Order,
    pub(super) len: u32,
}

/// Position in the order of a share's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) round: u32,
    position: u32,
}

impl Share {
    /// Returns share `number` of `of`; their lengths differ by one session at most.
    pub(super) fn new(sessions: u32, number: u32, of: u32) -> Self {
        let cut = |number: u32| (u64::from(sessions) * u64::from(number) / u64::from(of)) as u32;
        let (first, end) = (cut(number), cut(number + 1));
        Self {
            first,
            order: Order::new(end - first),
            len: end - first,
        }
    }

    /// Returns the session at a position.
    pub(super) fn session(&self, place: Place) -> Session {
        Session(self.first + self.order.at(place.round, place.position))
    }

    /// Returns the positions of successive rounds.
    pub(super) fn rounds(&self) -> impl Iterator<Item = Place> + use<> {
        let len = self.len;
        (0..).flat_map(move |round| (0..len).map(move |position| Place { round, position }))
    }
}

/// Measurement by several threads.
pub(super) struct Run<'e> {
    pub(super) engine: &'e Engine,
    pub(super) traffic: Traffic,
    mode: Mode,
    pub(super) sessions: u32,
    pub(super) threads: u32,
    pub(super) batch: usize,
    pub(super) time: Duration,
    start: Instant,
    /// Seconds by which the engine's time is ahead.
    ahead: AtomicU64,
    not_forwarded: AtomicU64,
    first_reason: OnceLock<DropReason>,
    /// Expected and found number of sessions, where they differed.
    miscounted: OnceLock<(u32, usize)>,
}

impl<'e> Run<'e> {
    pub(super) fn new(engine: &'e Engine, args: &BenchArgs, time: Duration) -> Self {
        Self {
            engine,
            traffic: Traffic::new(args),
            mode: args.mode,
            sessions: args.sessions,
            threads: args.threads,
            batch: args.batch as usize,
            time,
            start: Instant::now(),
            ahead: AtomicU64::new(0),
            not_forwarded: AtomicU64::new(0),
            first_reason: OnceLock::new(),
            miscounted: OnceLock::new(),
        }
    }

    /// Returns the engine's time.
    pub(super) fn now(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.ahead.load(Ordering::Relaxed))
    }

    /// Advances the engine's time.
    pub(super) fn advance(&self, step: Duration) {
        self.ahead.fetch_add(step.as_secs(), Ordering::Relaxed);
    }

    /// Establishes all sessions.
    pub(super) fn fill(&self) {
        self.fill_first(self.sessions);
    }

    /// Establishes the first sessions, in an order different from later rounds.
    pub(super) fn fill_first(&self, count: u32) {
        let order = Order::new(count);
        let mut positions = 0..count;
        let mut frames = Vec::with_capacity(UNTIMED_BATCH);
        while !positions.is_empty() {
            let sessions: Vec<_> = positions
                .by_ref()
                .take(UNTIMED_BATCH)
                .map(|position| Session(order.at(u32::MAX, position)))
                .collect();
            for step in 0..3 {
                frames.clear();
                frames.extend(sessions.iter().filter_map(|session| {
                    let protocol = self.traffic.protocol(*session);
                    (step < protocol.handshake_len())
                        .then(|| session.handshake_packet(protocol, step))
                }));
                self.decide_all(&frames);
            }
        }
        self.count_sessions(count);
    }

    /// Advances the engine's time until no session is left.
    fn drain(&self) {
        self.advance(ROUND);
        while self
            .engine
            .expire_with(self.now(), SLICE, &mut Discard)
            .more
        {}
        self.count_sessions(0);
    }

    /// Records an error if the table holds another number of sessions.
    pub(super) fn count_sessions(&self, expected: u32) {
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

    /// Decides packets outside the timed part.
    pub(super) fn decide_all(&self, frames: &[Frame]) {
        let now = self.now();
        for frames in frames.chunks(UNTIMED_BATCH) {
            let packets: Vec<_> = frames
                .iter()
                .map(|frame| Packet::new(frame.bytes(), now))
                .collect();
            self.decide(&packets);
        }
    }

    /// Decides packets together, or a single one by itself.
    #[inline]
    pub(super) fn decide(&self, packets: &[Packet<'_>]) {
        if let [packet] = packets {
            self.check_verdict(self.engine.verdict_only(*packet));
        } else {
            self.engine
                .process_batch_with(packets, &mut Discard, |_, verdict, _| {
                    self.check_verdict(verdict)
                });
        }
    }

    #[inline]
    fn check_verdict(&self, verdict: Verdict) {
        if let Some(reason) = verdict.reason() {
            self.not_forwarded.fetch_add(1, Ordering::Relaxed);
            self.first_reason.get_or_init(|| reason);
        }
    }

    /// Measures in all threads. The table must be full.
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
                        // Latency has threads of its own.
                        Mode::Packets | Mode::Latency => self.packets(&share, barrier),
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
        let mut at = share.rounds();
        self.warm_up(share, &mut at, share.len as usize * WARM_UP);
        barrier.wait();
        let start = Instant::now();
        while start.elapsed() < self.time && self.check().is_ok() {
            self.make(share, &mut at, &mut frames);
            self.time_slice(&frames, &mut samples);
        }
        samples
    }

    /// Decides the next `count` packets of a share.
    pub(super) fn warm_up(
        &self,
        share: &Share,
        at: &mut impl Iterator<Item = Place>,
        count: usize,
    ) {
        let mut frames = vec![Frame::EMPTY; SLICE];
        let mut left = count;
        while left > 0 && self.check().is_ok() {
            let now = left.min(SLICE);
            if let Some(frames) = frames.get_mut(..now) {
                self.make(share, at, frames);
                self.decide_all(frames);
            }
            left -= now;
        }
    }

    /// Writes the next packets of a share.
    pub(super) fn make(
        &self,
        share: &Share,
        at: &mut impl Iterator<Item = Place>,
        frames: &mut [Frame],
    ) {
        for (frame, place) in frames.iter_mut().zip(at) {
            *frame = self.traffic.packet(share.session(place), place.round);
        }
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
                let packet = Packet::new(frame.bytes(), now);
                self.check_verdict(self.engine.verdict_only(packet));
            }
        } else {
            for batch in packets.chunks(self.batch) {
                self.decide(batch);
            }
        }
        samples.add(start.elapsed(), frames.len());
    }

    /// Measures rounds of setup, or of expiry. The other half of each round is not timed, and the
    /// threads wait for each other.
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
                    self.advance(ROUND);
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
                let session = share.session(Place { round, position });
                *frame = session.opening(self.traffic.protocol(session));
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
