//! The time of each call with packets while another thread operates on the table.
//!
//! Three quarters of the sessions are established TCP connections, whose packets are timed. The
//! others are UDP sessions of one packet each: some operations end them, and they are opened again
//! outside the recorded time. Each operation repeats for its share of the time.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use portcullis::policy::Protocol;
use portcullis::{Config, Discard, Packet, SessionFilter};

use super::args::SLICE;
use super::error::BenchError;
use super::rules;
use super::traffic::{Frame, Session};
use super::worker::{Run, Share, WARM_UP};

/// Step of the engine's time that ends the idle sessions (30 s), and no established connection
/// (300 s).
const IDLE_END: Duration = Duration::from_secs(60);

/// Number of sessions that one call of the expiry visits, as in the appliance.
const EXPIRY_BUDGET: usize = 256;

/// Maximum distinguishable time, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Significant digits of a recorded time.
const DIGITS: u8 = 2;

/// No operation: times are not recorded.
const PAUSE: usize = usize::MAX;

/// Operation on the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    None,
    List,
    Preview,
    Reload,
    Save,
    Expire,
    Delete,
}

impl Operation {
    /// All operations in the order of the measurement.
    const ALL: [Self; 7] = [
        Self::None,
        Self::List,
        Self::Preview,
        Self::Reload,
        Self::Save,
        Self::Expire,
        Self::Delete,
    ];

    /// Returns the name in the report.
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::List => "list",
            Self::Preview => "preview",
            Self::Reload => "reload",
            Self::Save => "save",
            Self::Expire => "expire",
            Self::Delete => "delete",
        }
    }
}

/// Times of the calls during one operation.
pub(super) struct Times {
    /// Name of the operation.
    pub(super) operation: &'static str,
    /// Time of each run of the operation; empty without an operation.
    pub(super) runs: Vec<Duration>,
    /// Nanoseconds of the calls.
    pub(super) calls: Histogram<u64>,
}

/// Measurement of the times of calls.
pub(super) struct Latency<'r> {
    run: &'r Run<'r>,
    config: &'r Config,
    changed: Config,
    /// Number of sessions with packets, which come first; the others are idle.
    active: u32,
    /// Index in [`Operation::ALL`], or [`PAUSE`].
    operation: AtomicUsize,
    /// Packets of each thread.
    decided: Vec<AtomicU64>,
    /// A histogram without times.
    empty: Histogram<u64>,
    stop: AtomicBool,
}

impl<'r> Latency<'r> {
    pub(super) fn new(run: &'r Run<'r>, config: &'r Config) -> Result<Self, BenchError> {
        Ok(Self {
            run,
            config,
            changed: rules::changed(config),
            active: run.sessions - run.sessions / 4,
            operation: AtomicUsize::new(PAUSE),
            decided: (0..run.threads).map(|_| AtomicU64::new(0)).collect(),
            empty: Histogram::new_with_max(LONGEST, DIGITS)?,
            stop: AtomicBool::new(false),
        })
    }

    /// Opens all sessions.
    pub(super) fn fill(&self) -> Result<(), BenchError> {
        self.run.fill_first(self.active);
        self.fill_idle();
        self.run.check()
    }

    /// Opens the idle sessions that are not open.
    fn fill_idle(&self) {
        let (mut frames, udp) = (Vec::with_capacity(SLICE), self.run.traffic.udp());
        let mut idle = self.active..self.run.sessions;
        loop {
            frames.clear();
            frames.extend(
                idle.by_ref()
                    .take(64)
                    .map(|number| Session(number).opening(udp)),
            );
            if frames.is_empty() {
                break;
            }
            self.run.decide_all(&frames);
        }
        self.run.count_sessions(self.run.sessions);
    }

    /// Measures each operation. All sessions must be open.
    pub(super) fn measure(&self) -> Result<Vec<Times>, BenchError> {
        let barrier = Barrier::new(self.run.threads as usize + 1);
        let (runs, histograms) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.run.threads)
                .zip(&self.decided)
                .map(|(number, decided)| {
                    let share = Share::new(self.active, number, self.run.threads);
                    let barrier = &barrier;
                    scope.spawn(move || self.packets(&share, decided, barrier))
                })
                .collect();
            barrier.wait();
            let runs = self.operate();
            self.stop.store(true, Ordering::Relaxed);
            let histograms: Vec<_> = threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .collect();
            (runs, histograms)
        });
        self.run.check()?;
        let runs = runs?;
        Ok(Operation::ALL
            .iter()
            .zip(runs)
            .enumerate()
            .map(|(place, (operation, runs))| {
                let mut calls = self.empty.clone();
                for each in histograms.iter().filter_map(|each| each.get(place)) {
                    // All have equal bounds.
                    let _ = calls.add(each);
                }
                Times {
                    operation: operation.name(),
                    runs,
                    calls,
                }
            })
            .collect())
    }

    /// Times calls with packets of a share until the operations are done.
    fn packets(
        &self,
        share: &Share,
        decided: &AtomicU64,
        barrier: &Barrier,
    ) -> Vec<Histogram<u64>> {
        let run = self.run;
        let mut histograms = vec![self.empty.clone(); Operation::ALL.len()];
        let mut frames = vec![Frame::EMPTY; SLICE];
        let mut at = share.rounds();
        run.warm_up(share, &mut at, share.len as usize * WARM_UP);
        barrier.wait();
        while !self.stop.load(Ordering::Relaxed) {
            run.make(share, &mut at, &mut frames);
            let now = run.now();
            let packets: Vec<_> = frames
                .iter()
                .map(|frame| Packet::new(frame.bytes(), now))
                .collect();
            for batch in packets.chunks(run.batch) {
                let before = self.operation.load(Ordering::Relaxed);
                let start = Instant::now();
                run.decide(batch);
                let took = start.elapsed();
                // A call that overlaps the start or the end of an operation counts as well.
                let after = self.operation.load(Ordering::Relaxed);
                let during = if before == PAUSE { after } else { before };
                if let Some(histogram) = histograms.get_mut(during) {
                    histogram.saturating_record(took.as_nanos() as u64);
                }
            }
            decided.fetch_add(frames.len() as u64, Ordering::Relaxed);
        }
        histograms
    }

    /// Repeats each operation for its share of the time, at least once, and returns the times of
    /// the runs of each.
    fn operate(&self) -> Result<Vec<Vec<Duration>>, BenchError> {
        let time = self.run.time / Operation::ALL.len() as u32;
        let mut all = Vec::new();
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            let mut runs = Vec::new();
            let begin = Instant::now();
            while runs.is_empty() || begin.elapsed() < time {
                self.prepare(operation)?;
                self.operation.store(place, Ordering::Relaxed);
                let start = Instant::now();
                let result = self.perform(operation, runs.len(), time);
                let took = start.elapsed();
                self.operation.store(PAUSE, Ordering::Relaxed);
                result?;
                self.run.check()?;
                runs.push(took);
            }
            if operation == Operation::None {
                runs.clear();
            }
            all.push(runs);
        }
        Ok(all)
    }

    /// Brings the table into the state that an operation needs.
    fn prepare(&self, operation: Operation) -> Result<(), BenchError> {
        if operation == Operation::None {
            return Ok(());
        }
        if operation == Operation::Expire {
            self.wait_for_all()?;
        }
        self.fill_idle();
        if operation == Operation::Expire {
            self.run.advance(IDLE_END);
        }
        self.run.check()
    }

    /// Waits until a packet of each connection was decided: any two rounds hold one.
    fn wait_for_all(&self) -> Result<(), BenchError> {
        let count = |decided: &AtomicU64| decided.load(Ordering::Relaxed);
        let before: Vec<_> = self.decided.iter().map(count).collect();
        let enough = 2 * u64::from(self.active.div_ceil(self.run.threads));
        for (decided, before) in self.decided.iter().zip(before) {
            while count(decided) < before + enough {
                self.run.check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Performs an operation, and checks its result.
    fn perform(
        &self,
        operation: Operation,
        number: usize,
        time: Duration,
    ) -> Result<(), BenchError> {
        let (engine, now) = (self.run.engine, self.run.now());
        let (all, idle) = (self.run.sessions, self.run.sessions - self.active);
        // The configurations alternate, so that each reload judges all sessions again.
        let config = if number.is_multiple_of(2) {
            &self.changed
        } else {
            self.config
        };
        let (expected, found) = match operation {
            Operation::None => {
                std::thread::sleep(time);
                (0, 0)
            }
            Operation::List => {
                let mut count = 0;
                engine.for_each_session(|session| {
                    black_box(session);
                    count += 1;
                });
                (all, count)
            }
            Operation::Preview => (0, engine.preview(&self.changed, now)?.len() as u64),
            Operation::Reload => {
                let done = engine.reload(config, now, &mut Discard)?;
                (0, (done.revoked + done.expired) as u64)
            }
            Operation::Save => {
                let saved = engine.save_to(now, SystemTime::now(), &mut std::io::sink())?;
                (all, saved.sessions as u64)
            }
            Operation::Expire => {
                let mut ended = 0;
                loop {
                    let done = engine.expire_with(now, EXPIRY_BUDGET, &mut Discard);
                    ended += done.ended as u64;
                    if !done.more {
                        break;
                    }
                }
                (idle, ended)
            }
            Operation::Delete => {
                let filter = SessionFilter {
                    protocol: Some(Protocol::UDP),
                    ..SessionFilter::default()
                };
                let ended = engine.end_sessions(&filter, now, &mut Discard);
                (idle, ended as u64)
            }
        };
        if found == u64::from(expected) {
            Ok(())
        } else {
            Err(BenchError::Operation {
                operation: operation.name(),
                expected,
                found,
            })
        }
    }
}
