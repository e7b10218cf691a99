//! What the threads of a running appliance share: the engine, the front end, the workers' counters, and the end of it all.
//!
//! Nothing here locks on the packet path. A worker owns its counters and alone changes them; whoever reads them gets each one
//! whole, but not all of one instant.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use portcullis::geneve::front::FrontEnd;
use portcullis::{Config, ConfigError, Engine, Reload, Sink};

use super::event_queue::{EventQueue, LostEvents, SessionEvent};
use super::overflow::KernelDrops;
use super::worker_stats::WorkerStats;

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
        let workers = (0..workers).map(|_| WorkerStats::beside(&proven)).collect();
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
