//! The engine and the front end, combined in one type.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::{Config, ConfigError};
use crate::engine::{self, Engine, Reload, SessionFilter};
use crate::event::{DeniedSession, HelperNote, LimitReached, Sink};
use crate::fragment::HoldId;
use crate::geneve::front::{Answer, FrontEnd, FrontStats, Outgoing, Queued, Scratch, Watch};
use crate::outbox::{Event, Lost, Outbox};
use crate::question::{Answered, Question};
use crate::reset::Reset;
use crate::session::{EndReason, SessionRecord};

/// The number of sessions that one call to [`Gateway::poll`] checks for expiry.
const EXPIRY_BUDGET: usize = 256;

/// Interval between checks of held fragments. They wait for at most `fragments.hold`, and another
/// thread may have decided their first fragment meanwhile.
const HELD_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between checks of packets that wait for an answer, which another thread may have
/// received meanwhile.
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);

/// Appliance behind a load balancer, without I/O: an [`Engine`] and the [`FrontEnd`] that
/// decapsulates packets.
///
/// Datagrams go in, and the datagrams to send are passed to a closure: forwarded ones, replies,
/// RSTs at the end of sessions, and fragments that were held. Threads share a gateway, and each has
/// a [`GatewayWorker`].
///
/// ```
/// use std::time::Instant;
/// use portcullis::{Config, Gateway};
/// use portcullis::geneve::front::Datagram;
///
/// let gateway = Gateway::new(&Config::default())?;
/// let mut worker = gateway.worker();
/// let datagram = Datagram {
///     source: [10, 0, 0, 1].into(),
///     source_port: 60_001,
///     destination: [10, 0, 0, 2].into(),
///     destination_port: 6081,
///     payload: b"no GENEVE header",
/// };
/// let now = Instant::now();
/// gateway.handle_batch(&mut worker, [datagram], now, |out| {
///     // Send `out.payload` from and to the addresses and ports of `out.tunnel`.
///     println!("{} bytes to {}", out.payload.len(), out.tunnel.destination);
/// });
/// // After each batch, and at the returned time if no datagram comes before.
/// let next = gateway.poll(&mut worker, now, |out| println!("{} bytes", out.payload.len()));
/// assert_eq!(next, None, "there are no sessions");
/// for event in worker.events() {
///     println!("{event:?}");
/// }
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Gateway {
    engine: Engine,
    front: FrontEnd,
    /// The configuration in force. The lock is held briefly.
    config: Mutex<Config>,
    /// Held by a reload, which may wait until a save ends.
    reloading: Mutex<()>,
}

/// State of one thread of a [`Gateway`]: its counters, its buffers, and the events that were not
/// read yet.
#[derive(Debug)]
pub struct GatewayWorker {
    scratch: Scratch,
    collected: Collected,
}

/// Outcome of [`Gateway::reload`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayReload {
    /// The effect on the sessions.
    pub sessions: Reload,
    /// Keys whose new values need a restart. Their running values stay in force.
    pub needs_restart: Vec<&'static str>,
}

/// The RSTs, which are sent in tunnels, and an outbox for all other events.
#[derive(Debug)]
struct Collected {
    /// RSTs of the current call. All of them are sent before it returns.
    resets: Vec<Reset>,
    /// Whether an operator has ended sessions in the current call. The room for their RSTs is
    /// freed afterwards.
    ordered: bool,
    events: Outbox,
}

impl Gateway {
    /// Returns a gateway with a configuration. It always sets `engine.tunnel_references`, since
    /// RSTs travel in the tunnels to which sessions have references.
    ///
    /// # Errors
    /// Returns the first error of the configuration, or names the table that could not be
    /// allocated.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let config = FrontEnd::adapt(config.clone());
        Ok(Self {
            engine: Engine::new(&config)?,
            front: FrontEnd::new(&config)?,
            config: Mutex::new(config),
            reloading: Mutex::new(()),
        })
    }

    /// Returns the state of one more thread. It keeps at most [`Outbox::DEFAULT_LIMIT`] events.
    #[must_use]
    pub fn worker(&self) -> GatewayWorker {
        self.worker_with_event_limit(Outbox::DEFAULT_LIMIT)
    }

    /// Returns the state of one more thread, which keeps at most `events` events between two calls
    /// of [`GatewayWorker::events`]. At most half of them are [`Event::Denied`] or
    /// [`Event::Audited`].
    ///
    /// The bound includes the records of sessions that [`Gateway::reload`] or
    /// [`Gateway::end_sessions`] ends. To read all of them, set `events` to the maximum number of
    /// sessions; memory is allocated only when events need it.
    #[must_use]
    pub fn worker_with_event_limit(&self, events: usize) -> GatewayWorker {
        GatewayWorker {
            scratch: Scratch::new(&self.front),
            collected: Collected {
                resets: Vec::new(),
                ordered: false,
                events: Outbox::with_limits(0, events),
            },
        }
    }

    /// Decides datagrams that came at `now`, in order, and calls `send` with everything to send.
    ///
    /// A [`Datagram`](crate::geneve::front::Datagram) is always decided. A [`Queued`] one carries
    /// its waiting time, and may be shed.
    pub fn handle_batch<'b>(
        &self,
        worker: &mut GatewayWorker,
        datagrams: impl IntoIterator<Item = impl Into<Queued<'b>>>,
        now: Instant,
        mut send: impl FnMut(Outgoing<'_>),
    ) {
        let GatewayWorker { scratch, collected } = worker;
        let datagrams = datagrams.into_iter().map(Into::into);
        self.front.handle_queued_batch(
            &self.engine,
            datagrams,
            now,
            scratch,
            collected,
            |_, datagram, decision, _| match decision.answer {
                Answer::Return => send(Outgoing {
                    tunnel: datagram.back(),
                    payload: datagram.payload,
                }),
                Answer::Send(own) => send(own),
                Answer::Nothing(_) => {}
            },
        );
        self.send_rest(worker, now, &mut send);
    }

    /// Advances the time: ends sessions whose lifetime is over, a few hundred at a time, and
    /// decides fragments that have been held for long enough. Calls `send` with everything to send.
    ///
    /// Returns the latest time for the next call, if no datagram comes before; `None` if there is
    /// nothing to wait for. Call this after each batch, too.
    pub fn poll(
        &self,
        worker: &mut GatewayWorker,
        now: Instant,
        mut send: impl FnMut(Outgoing<'_>),
    ) -> Option<Instant> {
        let done = self
            .engine
            .expire_with(now, EXPIRY_BUDGET, &mut worker.collected);
        self.send_rest(worker, now, &mut send);
        if done.more {
            return Some(now);
        }
        let interval = match self.engine.open_questions() {
            0 => HELD_INTERVAL,
            _ => ANSWER_INTERVAL,
        };
        let held = self
            .front
            .holds_any()
            .then(|| now.checked_add(interval))
            .flatten();
        self.engine.next_expiry().into_iter().chain(held).min()
    }

    /// Replaces the whole configuration, or changes nothing. Keys that only a restart can change
    /// keep their running values and are listed in the result. Calls `send` with the RSTs of
    /// sessions that the new policy ends.
    ///
    /// The RSTs have no bound but their budget. Records of ended sessions beyond the event limit of
    /// the worker are discarded and counted ([`GatewayWorker::lost`]).
    ///
    /// # Errors
    /// Returns the first error of the configuration.
    pub fn reload(
        &self,
        worker: &mut GatewayWorker,
        config: &Config,
        now: Instant,
        mut send: impl FnMut(Outgoing<'_>),
    ) -> Result<GatewayReload, ConfigError> {
        let reloaded = {
            let _one_at_a_time = self.reloading.lock();
            let mut config = FrontEnd::adapt(config.clone());
            let needs_restart = config.keep_running(&self.config.lock());
            self.front.check_reload(&config)?;
            let sessions = self.engine.reload(&config, now, &mut worker.collected)?;
            self.front.reload(&config)?;
            *self.config.lock() = config;
            GatewayReload {
                sessions,
                needs_restart,
            }
        };
        self.send_rest(worker, now, &mut send);
        Ok(reloaded)
    }

    /// Ends the sessions that a filter selects, calls `send` with their RSTs, and returns the
    /// number of sessions. RSTs and records are kept as by [`Gateway::reload`].
    pub fn end_sessions(
        &self,
        worker: &mut GatewayWorker,
        filter: &SessionFilter,
        now: Instant,
        mut send: impl FnMut(Outgoing<'_>),
    ) -> usize {
        let ended = self.engine.end_sessions(filter, now, &mut worker.collected);
        self.send_rest(worker, now, &mut send);
        ended
    }

    /// Decides everything that is held immediately, before a thread ends.
    pub fn release_held(
        &self,
        worker: &mut GatewayWorker,
        now: Instant,
        mut send: impl FnMut(Outgoing<'_>),
    ) {
        self.front.release_held();
        self.send_rest(worker, now, &mut send);
    }

    /// Takes the answer to a [`Question`] that a worker's events contain ([`Engine::answer`]). `at`
    /// is the wall-clock time of `now`.
    ///
    /// Any thread may call this, with a sink of its own. The packets that were held are ready: the
    /// next call to [`Gateway::poll`] of any worker decides them, so wake one.
    pub fn answer<S: Sink>(
        &self,
        id: HoldId,
        answer: &engine::Answer,
        now: Instant,
        at: SystemTime,
        sink: &mut S,
    ) -> Answered {
        let mut watch = Watch::new(sink);
        let answered = self.engine.answer(id, answer, now, at, &mut watch);
        let released = watch.released;
        for id in released {
            self.front.release(id);
            sink.released(id);
        }
        answered
    }

    /// Returns the engine, for its sessions, counters and settings.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the front end, for its counters and tunnels.
    #[must_use]
    pub const fn front(&self) -> &FrontEnd {
        &self.front
    }

    /// Returns the counters of the front end.
    #[must_use]
    pub fn stats(&self) -> FrontStats {
        self.front.stats()
    }

    /// Returns a copy of the configuration in force: that before a reload, until its call returns.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// Sends the fragments that were released, and then the RSTs.
    fn send_rest(
        &self,
        worker: &mut GatewayWorker,
        now: Instant,
        send: &mut impl FnMut(Outgoing<'_>),
    ) {
        let GatewayWorker { scratch, collected } = worker;
        while let Some(answer) = self
            .front
            .next_released(&self.engine, now, scratch, collected)
        {
            if let Answer::Send(own) = answer {
                send(own);
            }
        }
        for reset in collected.resets.drain(..) {
            if let Some(own) = self.front.reset(&reset, scratch) {
                send(own);
            }
        }
        if std::mem::take(&mut collected.ordered) {
            collected.resets.shrink_to(Outbox::DEFAULT_LIMIT);
        }
    }
}

impl GatewayWorker {
    /// Removes all events and returns them, oldest first. Packets to send are not included.
    ///
    /// A worker keeps a bounded number of events ([`Gateway::worker_with_event_limit`]), also when
    /// an operator ends many sessions; newer ones are discarded and counted
    /// ([`GatewayWorker::lost`]).
    pub fn events(&mut self) -> impl Iterator<Item = Event<'_>> {
        self.collected.events.drain()
    }

    /// Returns the counter of events that were not kept. [`Lost::packets`] and
    /// [`Lost::over_budget`] stay 0: a gateway sends its packets at once, and
    /// [`FrontStats::unanswered`] counts the rejected packets that got no reply.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.collected.events.lost()
    }
}

// A method that is missing here is lost to every user of a gateway.
#[deny(clippy::missing_trait_methods)]
impl Sink for Collected {
    const LISTENS: bool = true;

    fn session_opened(&mut self, session: &SessionRecord) {
        self.events.session_opened(session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.events.session_ended(session, reason);
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        self.events.session_denied(denied);
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        self.events.session_audited(audited);
    }

    fn limit_reached(&mut self, reached: &LimitReached) {
        self.events.limit_reached(reached);
    }

    fn helper_event(&mut self, note: &HelperNote) {
        self.events.helper_event(note);
    }

    /// Makes no room for events: the event limit of the worker holds for these ends as well.
    fn ends_follow(&mut self, _sessions: usize) {
        self.ordered = true;
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }

    fn released(&mut self, id: HoldId) {
        self.events.released(id);
    }

    fn question(&mut self, question: &Question) {
        self.events.question(question);
    }
}
