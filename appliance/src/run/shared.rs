//! What the threads of a running appliance share: the engine, the front end, the workers' counters, and the end of it all.
//!
//! Nothing here locks on the packet path. A worker owns its counters and alone changes them; whoever reads them gets each one
//! whole, but not all of one instant.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use portcullis::geneve::front::FrontEnd;
use portcullis::{
    Config, ConfigError, DeniedSession, EndReason, Engine, LimitReached, Reload, SessionRecord, Sink,
};

use super::log::queue::{EventQueue, LostEvents};
use super::overflow::{KernelDrops, QueueDrops};
use super::sends::{SendPath, Sends};

/// What the threads of `portcullis run` share.
pub(crate) struct Shared {
    /// Decides.
    pub(crate) engine: Engine,
    /// Takes packets out of their tunnel and finds the way back.
    pub(crate) front: FrontEnd,
    /// The configuration in force: that of the start, or of the last reload that succeeded.
    pub(crate) config: RwLock<Config>,
    /// One for each worker, by its number.
    pub(crate) workers: Box<[WorkerStats]>,
    /// Set when the appliance shall call itself unhealthy and go on serving: the first half of a clean end.
    pub(crate) draining: AtomicBool,
    /// Set when the workers shall end.
    pub(crate) stop: Arc<AtomicBool>,
    /// When the appliance has started.
    pub(crate) started: Instant,
    /// Where the session log is told of events, if there is one.
    pub(crate) events: Option<EventQueue>,
}

impl Shared {
    /// What is shared at the start. `events` is the queue of the session log, if there is one.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn new(config: Config, events: Option<EventQueue>) -> Result<Self, ConfigError> {
        let config = FrontEnd::adapt(config);
        let workers = match config.run.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        };
        let proven = Arc::default();
        let worker = |_| WorkerStats {
            sends: Sends::beside(&proven),
            ..WorkerStats::default()
        };
        let workers = (0..workers).map(worker).collect();
        Ok(Self {
            engine: Engine::new(&config)?,
            front: FrontEnd::new(&config)?,
            config: RwLock::new(config),
            workers,
            draining: AtomicBool::new(false),
            stop: Arc::default(),
            started: Instant::now(),
            events,
        })
    }

    /// Exchanges the configuration of engine and front end, or changes nothing. The RSTs of sessions that end by it go to
    /// `sink`.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what of it only a start can change.
    pub(crate) fn reload<S: Sink>(
        &self,
        config: Config,
        now: Instant,
        sink: &mut S,
    ) -> Result<Reload, ConfigError> {
        let config = FrontEnd::adapt(config);
        let mut in_force = self.config.write();
        config.check_running(&in_force)?;
        self.front.check_reload(&config)?;
        let done = self.engine.reload(&config, now, sink)?;
        self.front.reload(&config)?;
        *in_force = config;
        Ok(done)
    }

    /// Events that the queue of the session log had no room for.
    pub(crate) fn lost_events(&self) -> LostEvents {
        self.events.as_ref().map(EventQueue::lost).unwrap_or_default()
    }

    /// An event has left that queue.
    pub(crate) fn took(&self, event: &SessionEvent) {
        if let Some(events) = &self.events {
            events.took(event);
        }
    }

    /// Reads how many datagrams found the workers' receive queues full. Where the system does not
    /// say, the counts stay.
    pub(crate) fn read_receive_overflow(&self) {
        if let Ok(kernel) = KernelDrops::read() {
            for worker in &self.workers {
                worker.receive_overflow.update(&kernel);
            }
        }
    }

    /// Whether every worker has turned at least once.
    pub(crate) fn has_begun(&self) -> bool {
        self.workers.iter().all(|worker| worker.turns.value() > 0)
    }

    /// For how long the worker that has been still for longest has not turned. A worker turns at least every
    /// [`super::socket::PATIENCE`], packets or not.
    pub(crate) fn longest_stall(&self, now: Instant) -> Duration {
        let since_start = now.saturating_duration_since(self.started);
        self.workers
            .iter()
            .map(|worker| since_start.saturating_sub(worker.last_turn()))
            .max()
            .unwrap_or_default()
    }
}

/// A session has opened or ended, or was not admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionEvent {
    /// It was opened by an admitted packet.
    Opened(SessionRecord),
    /// It has ended.
    Ended(SessionRecord, EndReason),
    /// The policy has denied or rejected it.
    Denied(DeniedSession),
    /// A new session would have exceeded a limit.
    Limited(LimitReached),
}

/// A counter that one thread changes and all may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds; only for the thread that owns the counter.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// The value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Why a datagram that was to be sent was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFault {
    /// It is longer than the outgoing interface's MTU.
    TooLong,
    /// The outgoing queue is full.
    NoBuffer,
    /// There is no route to the load balancer.
    Unreachable,
    /// The system does not permit it: a packet filter, or a lost capability.
    NotPermitted,
    /// Anything else.
    Other,
}

impl SendFault {
    /// All of them, in the order of [`WorkerStats::send_faults`].
    pub(crate) const ALL: [Self; 5] = [
        Self::TooLong,
        Self::NoBuffer,
        Self::Unreachable,
        Self::NotPermitted,
        Self::Other,
    ];

    /// The stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NoBuffer => "no_buffer",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::Other => "other",
        }
    }
}

/// The counts of batch sizes: of 1, 2 to 3, 4 to 7, and so on; the last holds 64 and more.
pub(crate) const BATCH_CLASSES: usize = 7;

/// What a worker has done. What became of each datagram is counted by the front end and the engine.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerStats {
    /// Turns of its loop.
    pub(crate) turns: Count,
    /// When it last turned: microseconds since [`Shared::started`].
    last_turn_us: Count,
    /// Datagrams received, and their UDP payload's bytes.
    pub(crate) received: Count,
    /// See `received`.
    pub(crate) received_bytes: Count,
    /// Datagrams handed to the system as they came.
    pub(crate) returned: Count,
    /// Datagrams of our own handed to the system: replies, errors, RSTs, rewritten SYNs, and
    /// fragments that were held.
    pub(crate) made: Count,
    /// UDP payload bytes handed to the system.
    pub(crate) sent_bytes: Count,
    /// Datagrams that the system did not take, by [`SendFault`].
    pub(crate) send_faults: [Count; SendFault::ALL.len()],
    /// Where sends succeed and fail, for the health check.
    pub(crate) sends: Sends,
    /// Calls that received something, by how many datagrams they brought: class `n` is 2^n to 2^(n+1) - 1.
    pub(crate) batches: [Count; BATCH_CLASSES],
    /// Datagrams that found no room in the receive queues, as of the last reading of the kernel's
    /// counts.
    pub(crate) receive_overflow: QueueDrops,
    /// Calls to receive that have failed.
    pub(crate) receive_failed: Count,
    /// Datagrams that came without the address that they were sent to.
    pub(crate) unaddressed: Count,
    /// RSTs whose tunnel is not known any more.
    pub(crate) resets_without_tunnel: Count,
}

impl WorkerStats {
    /// Notes that the worker turns, at this time since the start.
    pub(crate) fn turn(&self, since_start: Duration) {
        self.turns.add(1);
        self.last_turn_us
            .set(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX));
    }

    /// When it last turned, counted from the start.
    pub(crate) fn last_turn(&self) -> Duration {
        Duration::from_micros(self.last_turn_us.value())
    }

    /// Notes a call that brought `datagrams`, 1 or more.
    pub(crate) fn batch(&self, datagrams: usize) {
        let class = (datagrams.max(1).ilog2() as usize).min(BATCH_CLASSES - 1);
        if let Some(count) = self.batches.get(class) {
            count.add(1);
        }
    }

    /// Notes a datagram that the system did not take.
    pub(crate) fn send_failed(&self, error: &io::Error, path: SendPath) {
        let fault = match error.raw_os_error() {
            Some(nix::libc::EMSGSIZE) => SendFault::TooLong,
            Some(nix::libc::ENOBUFS | nix::libc::EAGAIN) => SendFault::NoBuffer,
            Some(nix::libc::ENETUNREACH | nix::libc::EHOSTUNREACH) => SendFault::Unreachable,
            Some(nix::libc::EPERM | nix::libc::EACCES) => SendFault::NotPermitted,
            _ => SendFault::Other,
        };
        if let Some(count) = self.send_faults.get(fault as usize) {
            count.add(1);
        }
        self.sends.failed(path, fault);
    }
}
