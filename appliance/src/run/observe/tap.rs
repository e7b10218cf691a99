//! A worker's side of the stream: sampling before anything is copied.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::event::HelperNote;
use portcullis::explain::Step;
use portcullis::geneve::front::{Datagram, Decision};
use portcullis::policy::{Action, RuleId};
use portcullis::{DeniedSession, EndReason, LimitReached, Reset, SessionRecord};

use super::super::event_queue::EventQueue;
use super::dropped::DroppedPacket;
use super::kind::Kind;
use super::packet::Flow;
use super::raw::{Judged, Raw, RawPacket, RawReset, inner};
use super::shares::Shares;
use super::switch::{Observers, Receivers, Sent, Wish};

/// Period of the shares.
const PERIOD: Duration = Duration::from_millis(100);
/// Periods in a second.
const PERIODS: u32 = 10;
/// Events of a tap that the ring receives in a period.
const RING_BUDGET: u32 = 32;
/// Least budget of a client in a period: its classes share it.
const MIN_BUDGET: u32 = 16;
/// Period of the session log's share in packets that were not forwarded.
const SECOND: Duration = Duration::from_secs(1);
/// Traced decisions of a tap for each client in a period, whether they match or not.
const TRACES: u32 = 20;
/// Packets of a period that a tap compares with the filters of clients that ask for traces.
const LOOKS: u32 = 2_000;

/// Sampling of one worker's events. Nothing is copied or sent for an event without a receiver.
#[derive(Debug)]
pub(crate) struct Tap<'s> {
    observers: &'s Observers,
    /// Queue of the session log, if it records packets that were not forwarded.
    log: Option<&'s EventQueue>,
    state: TapState,
    /// Place to which the state returns.
    home: Option<&'s Mutex<Option<TapState>>>,
}

/// State of a tap: the wishes, and what is used of the budgets of this period.
#[derive(Debug)]
pub(crate) struct TapState {
    epoch: u64,
    /// Whether all budgets are 0: another tap uses those of this caller.
    is_spent: bool,
    clients: Vec<TapClient>,
    /// Whether a client receives packets that were forwarded.
    wants_forwarded: bool,
    /// Packets that may still be compared with the filters of traces in this period.
    looks: u32,
    explains: bool,
    /// Result of [`Tap::traces`] for the packet that is reported next.
    looked: Looked,
    ring: Shares,
    period_ends: Instant,
    /// Share of the session log in packets that were not forwarded.
    drops: Shares,
    second_ends: Instant,
    drops_left_out: u64,
    ring_left_out: u64,
    queue_left_out: u64,
    /// Number of these events that were for the ring.
    ring_queue_left_out: u64,
    /// Forwarded packets that were not compared with the filters of traces.
    unexamined: u64,
    /// Session that the policy has denied or audited, until its packet is reported.
    denied: Option<(RuleId, Action)>,
    now: Instant,
}

/// Comparison of a packet with the filters of clients that ask for traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Looked {
    /// The packet does not match, is traced, or no client asks for traces.
    #[default]
    Settled,
    /// The packet may match, and no trace is left.
    Untraced,
    /// The packet was not compared: no look is left.
    Unexamined,
}

/// Client as a tap knows it.
#[derive(Debug)]
struct TapClient {
    wish: Wish,
    shares: Shares,
    /// Traces that are left in this period: one client cannot use those of another.
    traces: u32,
    left_out: u64,
    /// Events for this client that found the queue of the hub full.
    queue_left_out: u64,
}

impl TapState {
    /// Returns a state without clients, of whose budgets nothing is used.
    pub(crate) fn new(now: Instant) -> Self {
        Self::with_ring(RING_BUDGET, now)
    }

    /// Returns a state without budgets: every event is left out and counted.
    fn spent(now: Instant) -> Self {
        Self {
            is_spent: true,
            ..Self::with_ring(0, now)
        }
    }

    fn with_ring(budget: u32, now: Instant) -> Self {
        Self {
            epoch: 0,
            is_spent: false,
            clients: Vec::new(),
            wants_forwarded: false,
            looks: 0,
            explains: false,
            looked: Looked::Settled,
            ring: Shares::new(budget),
            period_ends: now,
            drops: Shares::new(0),
            second_ends: now,
            drops_left_out: 0,
            ring_left_out: 0,
            queue_left_out: 0,
            ring_queue_left_out: 0,
            unexamined: 0,
            denied: None,
            now,
        }
    }

    /// Begins the budgets of traces and looks, if a client asks for traces.
    fn renew_traces(&mut self) {
        let may_trace = self.explains && !self.is_spent;
        for client in &mut self.clients {
            client.traces = if may_trace { TRACES } else { 0 };
        }
        self.looks = if may_trace { LOOKS } else { 0 };
    }
}

impl<'s> Tap<'s> {
    /// Returns a tap with the wishes of now.
    pub(crate) fn new(observers: &'s Observers, now: Instant) -> Self {
        Self::with_state(observers, TapState::new(now), now)
    }

    /// Returns a tap that goes on with the budgets of one of `homes`, to which they return when the
    /// tap is dropped. While other taps have them all, all events are left out.
    pub(crate) fn borrowed(
        observers: &'s Observers,
        homes: &'s [Mutex<Option<TapState>>],
        now: Instant,
    ) -> Self {
        let mut homes = homes.iter();
        let found = homes.find_map(|home| home.lock().take().map(|state| (home, state)));
        let Some((home, state)) = found else {
            return Self::with_state(observers, TapState::spent(now), now);
        };
        let mut tap = Self::with_state(observers, state, now);
        tap.home = Some(home);
        tap
    }

    fn with_state(observers: &'s Observers, state: TapState, now: Instant) -> Self {
        let mut tap = Self {
            observers,
            log: None,
            state,
            home: None,
        };
        tap.refresh(now);
        tap
    }

    /// Passes packets that were not forwarded to the queue of the session log, if it records them.
    /// The packets of a second are divided between `workers`; of each reason, one more is passed.
    pub(crate) fn with_log(mut self, queue: Option<&'s EventQueue>, workers: usize) -> Self {
        self.log = queue.filter(|queue| queue.drops_per_second() > 0);
        if let Some(queue) = self.log
            && !self.state.is_spent
            && self.state.drops.budget() == 0
        {
            let workers = u32::try_from(workers).unwrap_or(u32::MAX);
            let budget = queue.drops_per_second().checked_div(workers);
            self.state.drops = Shares::reserving(budget.unwrap_or_default().max(1));
        }
        self
    }

    /// Takes over changed wishes, and begins a new period if it is due. Called once for a batch of
    /// packets.
    #[inline]
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.state.now = now;
        if self.observers.epoch() != self.state.epoch {
            self.take_wishes();
        }
        if now >= self.state.period_ends {
            self.begin_period();
        }
    }

    #[cold]
    fn take_wishes(&mut self) {
        self.count();
        // Read first: wishes that change in between are taken over again.
        self.state.epoch = self.observers.epoch();
        let is_spent = self.state.is_spent;
        // The client's thread bounds the rate. A budget of a few would leave no share for rare
        // classes here.
        let budget = |rate: u32| match is_spent {
            true => 0,
            false => (rate / PERIODS).max(MIN_BUDGET),
        };
        let client = |wish: &Wish| TapClient {
            wish: wish.clone(),
            shares: Shares::new(budget(wish.rate)),
            traces: 0,
            left_out: 0,
            queue_left_out: 0,
        };
        self.state.clients = self.observers.wishes().iter().map(client).collect();
        let mut clients = self.state.clients.iter();
        self.state.wants_forwarded =
            clients.any(|each| each.wish.filter.kinds.has(Kind::Forwarded) && !each.wish.explain);
        self.state.explains = self.state.clients.iter().any(|each| each.wish.explain);
        self.state.renew_traces();
    }

    #[cold]
    fn begin_period(&mut self) {
        self.count();
        self.state.period_ends = self.state.now + PERIOD;
        self.state.ring.renew();
        if self.state.now >= self.state.second_ends {
            self.state.second_ends = self.state.now + SECOND;
            self.state.drops.renew();
        }
        for client in &mut self.state.clients {
            client.shares.renew();
        }
        self.state.renew_traces();
    }

    /// Adds what was left out to the shared counters.
    fn count(&mut self) {
        let ring = std::mem::take(&mut self.state.ring_left_out);
        let queue = std::mem::take(&mut self.state.queue_left_out);
        self.observers.count_left_out(ring, queue);
        let ring_queue = std::mem::take(&mut self.state.ring_queue_left_out);
        self.observers.count_missed_by_ring(ring + ring_queue);
        let drops = std::mem::take(&mut self.state.drops_left_out);
        if let Some(queue) = self.log.filter(|_| drops > 0) {
            queue.count_drops_left_out(drops);
        }
        let unexamined = std::mem::take(&mut self.state.unexamined);
        self.count_unexamined(unexamined);
        for client in &mut self.state.clients {
            let queued = std::mem::take(&mut client.queue_left_out);
            if queued > 0 {
                let counter = &client.wish.left_out.queue;
                counter.fetch_add(queued, Ordering::Relaxed);
            }
            let left_out = std::mem::take(&mut client.left_out);
            if left_out > 0 {
                client
                    .wish
                    .left_out
                    .rate
                    .fetch_add(left_out, Ordering::Relaxed);
                let total = &self.observers.counters.client_rate;
                total.fetch_add(left_out, Ordering::Relaxed);
            }
        }
    }

    /// Adds packets that were not compared to the counters of each client that asks for traces.
    fn count_unexamined(&self, count: u64) {
        if count == 0 {
            return;
        }
        let clients = self.state.clients.iter();
        for client in clients.filter(|each| each.wish.explain) {
            let counter = &client.wish.left_out.unexamined;
            counter.fetch_add(count, Ordering::Relaxed);
        }
        let total = &self.observers.counters.unexamined;
        total.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns whether a client asks for traces, so that packets are decided one by one.
    #[inline]
    pub(crate) const fn explains(&self) -> bool {
        self.state.explains
    }

    /// Returns whether the decision on a datagram is to be traced, and takes one of the traces that
    /// the period allows each client whose filter it may match.
    pub(crate) fn traces(&mut self, datagram: &Datagram<'_>) -> bool {
        let state = &mut self.state;
        if state.looks == 0 {
            state.looked = Looked::Unexamined;
            return false;
        }
        state.looks -= 1;
        let flow = inner(datagram).and_then(Flow::of);
        let (mut may_match, mut is_traced) = (false, false);
        for client in state.clients.iter_mut().filter(|each| each.wish.explain) {
            if client.wish.filter.may_match(flow) {
                may_match = true;
                is_traced |= client.traces > 0;
                client.traces = client.traces.saturating_sub(1);
            }
        }
        state.looked = match may_match && !is_traced {
            true => Looked::Untraced,
            false => Looked::Settled,
        };
        is_traced
    }

    /// Reports that a session was opened.
    #[inline]
    pub(crate) fn opened(&mut self, session: &SessionRecord) {
        self.offer(Raw::Opened(session));
    }

    /// Reports that a session has ended.
    #[inline]
    pub(crate) fn ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.offer(Raw::Ended(session, reason, self.state.now));
    }

    /// Notes the rule that has denied or audited a packet, which is reported next.
    #[inline]
    pub(crate) fn denied(&mut self, denied: &DeniedSession) {
        self.state.denied = Some((denied.rule, denied.action));
    }

    /// Reports that a limit was reached.
    pub(crate) fn limited(&mut self, reached: &LimitReached) {
        self.offer(Raw::Limit(reached));
    }

    /// Reports a helper's finding.
    pub(crate) fn helper(&mut self, note: &HelperNote) {
        self.offer(Raw::Helper(note));
    }

    /// Reports a RST, and whether it was sent.
    pub(crate) fn reset(&mut self, reset: &Reset, is_sent: bool) {
        self.offer(Raw::Reset(RawReset {
            reset,
            is_sent,
            at: self.state.now,
        }));
    }

    /// Reports the decision on a datagram.
    #[inline]
    pub(crate) fn packet(&mut self, datagram: &Datagram<'_>, decision: &Decision<'_>) {
        let looked = std::mem::take(&mut self.state.looked);
        if decision.is_forwarded() && !self.state.wants_forwarded {
            let is_tolerated = decision
                .verdict
                .is_some_and(|verdict| verdict.tracked().tolerated.is_some());
            if !is_tolerated && looked != Looked::Untraced {
                if looked == Looked::Unexamined {
                    self.state.unexamined += 1;
                }
                return;
            }
        }
        self.report(datagram, decision, None);
    }

    /// Reports a decision that was traced.
    #[cold]
    pub(crate) fn traced(
        &mut self,
        datagram: &Datagram<'_>,
        decision: &Decision<'_>,
        steps: Vec<Step>,
    ) {
        self.report(datagram, decision, Some(steps.into_boxed_slice()));
    }

    fn report(
        &mut self,
        datagram: &Datagram<'_>,
        decision: &Decision<'_>,
        steps: Option<Box<[Step]>>,
    ) {
        let decided = self.state.denied.take();
        self.offer(Raw::Packet(RawPacket {
            judged: Judged::of(decision),
            datagram,
            decision,
            decided,
            steps,
            at: self.state.now,
        }));
    }

    /// Sends an event to the ring and to the clients that have a share left for its class.
    #[inline]
    fn offer(&mut self, raw: Raw<'_>) {
        let mut to = Receivers::default();
        if !matches!(raw.kind(), Kind::Held | Kind::Forwarded) {
            if self.state.ring.take(raw.class()) {
                to.add_ring();
            } else {
                self.state.ring_left_out += 1;
            }
        }
        if !self.state.clients.is_empty() {
            self.offer_to_clients(&raw, &mut to);
        }
        if let Some(queue) = self.log {
            self.log_drop(&raw, queue);
        }
        if !to.is_empty() {
            let event = raw.into_event();
            if !self.observers.send(Sent { to, event }) {
                self.state.queue_left_out += 1;
                self.state.ring_queue_left_out += u64::from(to.has_ring());
                let clients = self.state.clients.iter_mut();
                for client in clients.filter(|each| to.has(each.wish.slot)) {
                    client.queue_left_out += 1;
                }
            }
        }
    }

    /// Passes a packet that was not forwarded to the session log, if its reason has a share left.
    fn log_drop(&mut self, raw: &Raw<'_>, queue: &EventQueue) {
        if !DroppedPacket::is_of(raw.kind()) || !queue.records_unreadable() && !raw.is_readable() {
            return;
        }
        if !self.state.drops.take(raw.class()) {
            self.state.drops_left_out += 1;
        } else if let Some(packet) = raw.dropped() {
            queue.send_drop(&packet);
        }
    }

    fn offer_to_clients(&mut self, raw: &Raw<'_>, to: &mut Receivers) {
        let (class, kind) = (raw.class(), raw.kind());
        let mut facts = None;
        for client in &mut self.state.clients {
            let filter = &client.wish.filter;
            // A client of traces receives nothing but packets.
            let is_wanted = filter.kinds.has(kind) && (!client.wish.explain || raw.is_packet());
            let matches = is_wanted
                && (filter.is_everything()
                    || filter.matches(facts.get_or_insert_with(|| raw.facts())));
            if !matches {
                continue;
            }
            // A packet whose decision was not traced is left out by a client of traces.
            let is_shown = !client.wish.explain || raw.is_traced();
            if is_shown && client.shares.take(class) {
                to.add(client.wish.slot);
            } else {
                client.left_out += 1;
            }
        }
    }
}

impl Drop for Tap<'_> {
    fn drop(&mut self) {
        self.count();
        if let Some(home) = self.home {
            self.state.denied = None;
            let unused = TapState::new(self.state.now);
            *home.lock() = Some(std::mem::replace(&mut self.state, unused));
        }
    }
}
