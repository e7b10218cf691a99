//! State that the threads of a running appliance share: the engine, the front end, the workers'
//! counters, and the stop flag.
//!
//! Nothing here locks on the packet path. A worker owns its counters and alone changes them. A
//! reader gets each counter whole, but not all counters of one instant.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use portcullis::geneve::front::FrontEnd;
use portcullis::{Config, ConfigError, Engine, Reload, Sink};

use super::event_queue::{EventQueue, LostEvents, SessionEvent};
use super::observe::Observers;
use super::overflow::KernelDrops;
use super::settings::RunSettings;
use super::store::StoreHandle;
use super::worker_stats::WorkerStats;
use super::xdp::state::XdpState;
use crate::output::notice;

/// State that the threads of `portcullis run` share.
pub(crate) struct Shared {
    /// Engine that decides packets.
    pub(crate) engine: Engine,
    /// Front end: extracts packets from their tunnels and builds the way back.
    pub(crate) front: FrontEnd,
    /// The configuration in force: that of the start, or of the last reload that succeeded.
    pub(crate) config: RwLock<Config>,
    /// Counters of each worker, by its number.
    pub(crate) workers: Box<[WorkerStats]>,
    /// `[run]` as of the start: only a start can change what workers read of it.
    pub(crate) run: RunSettings,
    /// Set while the appliance reports itself unhealthy and still serves: the first half of a clean
    /// end.
    pub(crate) draining: AtomicBool,
    /// Set when the workers must end.
    pub(crate) stop: Arc<AtomicBool>,
    /// Start of the appliance.
    pub(crate) started: Instant,
    /// Queue of the session log, if there is one.
    pub(crate) events: Option<EventQueue>,
    /// Stream of `portcullis observe`.
    pub(crate) observers: Observers,
    /// Store that the appliances of a group share, if there is one.
    pub(crate) store: Option<StoreHandle>,
    /// AF_XDP, once it is in use.
    pub(crate) xdp: OnceLock<XdpState>,
}

impl Shared {
    /// Returns the state of a start. `events` is the queue of the session log, if there is one.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub(crate) fn new(
        config: Config,
        run: RunSettings,
        events: Option<EventQueue>,
    ) -> Result<Self, ConfigError> {
        let config = FrontEnd::adapt(config);
        let workers = match run.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        };
        let proven = Arc::default();
        let workers = (0..workers).map(|_| WorkerStats::beside(&proven)).collect();
        Ok(Self {
            engine: Engine::new(&config)?,
            front: FrontEnd::new(&config)?,
            config: RwLock::new(config),
            run,
            workers,
            draining: AtomicBool::new(false),
            stop: Arc::default(),
            started: Instant::now(),
            events,
            observers: Observers::default(),
            store: None,
            xdp: OnceLock::new(),
        })
    }

    /// Returns this state with a store.
    pub(crate) fn with_store(self, store: Option<StoreHandle>) -> Self {
        Self { store, ..self }
    }

    /// Replaces the configuration of engine and front end, or changes nothing. `sink` receives the
    /// RSTs of sessions that end.
    ///
    /// # Errors
    /// The configuration is invalid, or differs in a key that only a restart changes.
    pub(crate) fn reload<S: Sink>(
        &self,
        config: Config,
        now: Instant,
        sink: &mut S,
    ) -> Result<Reload, ConfigError> {
        let config = FrontEnd::adapt(config);
        let mut in_force = self.config.write();
        self.front.check_reload(&config)?;
        let done = self.engine.reload(&config, now, sink)?;
        self.front.reload(&config)?;
        *in_force = config;
        Ok(done)
    }

    /// Returns the counts of events that found the queue of the session log full.
    pub(crate) fn lost_events(&self) -> LostEvents {
        self.events
            .as_ref()
            .map(EventQueue::lost)
            .unwrap_or_default()
    }

    /// Releases the place of an event that has left the queue.
    pub(crate) fn took(&self, event: &SessionEvent) {
        if let Some(events) = &self.events {
            events.took(event);
        }
    }

    /// Returns whether so few records of sessions wait in the queue that new sessions may be
    /// admitted again.
    pub(crate) fn is_log_relieved(&self) -> bool {
        self.events.as_ref().is_none_or(EventQueue::is_relieved)
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

    /// Detaches the programs of AF_XDP, if any are attached. The sockets receive all later packets.
    pub(crate) fn leave_xdp(&self) {
        // Either this sees the programs, or their start sees that the appliance ends.
        fence(Ordering::SeqCst);
        if self.xdp.get().is_some_and(XdpState::detach) {
            notice("AF_XDP: detached; packets take the socket path");
        }
    }

    /// Ends the workers, after the packets that are in their rings.
    pub(crate) fn stop(&self) {
        self.leave_xdp();
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns whether every worker has turned at least once.
    pub(crate) fn has_begun(&self) -> bool {
        self.workers.iter().all(|worker| worker.turns.value() > 0)
    }

    /// Returns the longest time since a worker's last turn. A worker turns at least every
    /// [`super::socket::PATIENCE`], with packets or without.
    pub(crate) fn longest_stall(&self, now: Instant) -> Duration {
        let since_start = now.saturating_duration_since(self.started);
        self.workers
            .iter()
            .map(|worker| since_start.saturating_sub(worker.last_turn()))
            .max()
            .unwrap_or_default()
    }
}
