//! Turns: keep the order of a capture where an appliance could not.
//!
//! The two directions of a flow have different source ports, so an appliance may assign them to two
//! workers. The appliance may then decide an answer before the question. An endpoint, too, does not
//! answer packets that it has not received. So a packet of a capture waits here
//!
//! 1. until all earlier packets of its flow's other direction have come back or are lost;
//! 2. if it is a SYN, also for the earlier packets of its own direction, since its port may change;
//! 3. if it begins a flow (a SYN, or a packet of an idle flow), also for all earlier packets of the
//!    other direction between its two addresses, such as the reply in which an FTP server announces
//!    a connection;
//! 4. if it does not begin a flow, also for all earlier packets between its two addresses that do,
//!    in either direction. For example, the server's next reply waits for the announced connection.
//!
//! Other flows do not wait for a stuck flow: one with a packet that has not returned within
//! [`PATIENCE`]. For each further stuck flow in a row, that time is halved. A flow is no longer
//! stuck when one of its packets returns.
//!
//! A packet is lost when it times out, or when a later packet from its port returns. A flow without
//! replies, such as one that a policy denies, would send only one packet per time-out. So each
//! further loss in a row is assumed after half the previous time, but not before [`LEAST`]. If such
//! a packet returns after all, it counts as overtaken.
//!
//! An ICMP error has its turn in the flow that it quotes. Packets of a flow keep their order;
//! packets of other flows may pass them. Every packet returns or is lost, so each has its turn. The
//! number of waiting packets is bounded: [`Turns::is_full`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::inner::{FlowDirection, FlowKey, Way};

/// Time after which a flow with an unanswered packet no longer delays other flows.
const PATIENCE: Duration = Duration::from_millis(50);
/// Shortest time after which a packet is assumed lost.
const LEAST: Duration = Duration::from_millis(4);
/// Maximum number of waiting packets.
const MAX_HELD: usize = 16_384;

/// Turn of a packet, until the packet is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    place: FlowDirection,
    /// Number of the packet in the capture.
    order: u64,
}

/// A waiting packet.
struct Held {
    packet: Vec<u8>,
    turn: Turn,
    syn: bool,
    /// Whether the packet is a SYN, or its flow was idle.
    begins: bool,
}

/// Fate of a sent packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The packet came back.
    Returned,
    /// The packet timed out, or was never sent.
    Lost,
}

/// A flow with waiting or unanswered packets.
struct Flow {
    /// Unanswered packets that are not assumed lost, [`Way::Up`] first.
    unanswered: [u32; 2],
    held: VecDeque<Held>,
    /// Packets up to this order no longer count: they were sent before the flow was idle, or are
    /// assumed lost.
    past: u64,
    /// Number of consecutive losses.
    losses: u32,
    /// Whether the flow is stuck, so that other flows do not wait for it.
    stuck: bool,
    /// Time at which the newest packet was sent.
    last: Instant,
}

/// Two addresses of an endpoint.
type Hosts = (usize, IpAddr, IpAddr);

/// Packets between two addresses by their order, [`Way::Up`] first.
#[derive(Default)]
struct Line {
    /// Packets that wait or are unanswered.
    undecided: [BTreeSet<u64>; 2],
    /// Packets that wait only for `undecided` ones, each at the head of its flow.
    waiting: [BTreeMap<u64, FlowKey>; 2],
}

impl Line {
    /// Returns whether all earlier packets of the other direction are decided.
    fn is_clear(&mut self, way: Way, order: u64) -> bool {
        let back = both(&mut self.undecided, way).1;
        back.first().is_none_or(|first| *first > order)
    }

    /// Marks a packet as decided. Flows whose turn may have come become candidates.
    fn done(&mut self, way: Way, order: u64, candidates: &mut VecDeque<FlowKey>) {
        let undecided = both(&mut self.undecided, way).0;
        undecided.remove(&order);
        let first = undecided.first().copied().unwrap_or(u64::MAX);
        let waiting = both(&mut self.waiting, way).1;
        while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() < first) {
            candidates.push_back(entry.remove());
        }
    }
}

/// State of two addresses.
#[derive(Default)]
struct Between {
    /// All packets. Packets that begin a flow wait for these.
    all: Line,
    /// Packets that begin a flow, in both directions. All other packets wait for these.
    beginnings: Line,
    /// Number of consecutive flows that were stuck.
    stuck: u32,
}

impl Between {
    /// Makes other packets wait for this one.
    fn count(&mut self, turn: Turn, begins: bool) {
        let (way, order) = (turn.place.way, turn.order);
        both(&mut self.all.undecided, way).0.insert(order);
        if begins {
            for undecided in &mut self.beginnings.undecided {
                undecided.insert(order);
            }
        }
    }

    /// Returns the time for which a packet may be undecided before its flow is stuck.
    fn patience(&self) -> Duration {
        (PATIENCE / 2u32.saturating_pow(self.stuck)).max(LEAST)
    }

    /// Returns the packets for which a packet waits.
    const fn line(&mut self, begins: bool) -> &mut Line {
        if begins {
            &mut self.all
        } else {
            &mut self.beginnings
        }
    }
}

/// Returns the values of both directions, this one first.
fn both<T>([up, down]: &mut [T; 2], way: Way) -> (&mut T, &mut T) {
    match way {
        Way::Up => (up, down),
        Way::Down => (down, up),
    }
}

const fn hosts(key: &FlowKey) -> Hosts {
    (key.pair, key.low.0, key.high.0)
}

/// All packets that wait or are unanswered.
pub(super) struct Turns {
    orders: u64,
    flows: HashMap<FlowKey, Flow, RandomState>,
    between: HashMap<Hosts, Between, RandomState>,
    /// Sent packets by the balancer's number.
    sent: HashMap<u64, Turn, RandomState>,
    /// Flows whose first packet may have its turn.
    candidates: VecDeque<FlowKey>,
    /// Times at which a flow is stuck if this packet is still undecided.
    fading: BTreeSet<(Instant, Turn)>,
    /// Times at which the first packet of a flow has waited long enough.
    alarms: BTreeSet<(Instant, FlowKey)>,
    held: usize,
    /// Time after which an unanswered packet is lost.
    timeout: Duration,
    /// Packets that came back after they were assumed lost.
    overtaken: u64,
}

impl Turns {
    /// Returns an empty value. A packet is lost after `timeout`.
    pub(super) fn new(hasher: RandomState, timeout: Duration) -> Self {
        Self {
            orders: 0,
            flows: HashMap::with_hasher(hasher.clone()),
            between: HashMap::with_hasher(hasher.clone()),
            sent: HashMap::with_hasher(hasher),
            candidates: VecDeque::new(),
            fading: BTreeSet::new(),
            alarms: BTreeSet::new(),
            held: 0,
            timeout,
            overtaken: 0,
        }
    }

    /// Returns the number of waiting packets.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Returns whether no further packet can wait.
    pub(super) const fn is_full(&self) -> bool {
        self.held >= MAX_HELD
    }

    /// Returns whether no sent packet is undecided.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Returns whether no state of flows remains.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.held == 0 && self.flows.is_empty() && self.between.is_empty() && self.sent.is_empty()
    }

    /// Returns the number of packets that came back after later packets had been sent out of turn.
    pub(super) const fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Adds the next packet of the capture. Returns its turn if it is sent now; otherwise it is
    /// kept, and [`Turns::next`] returns it later.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        place: FlowDirection,
        syn: bool,
        packet: &[u8],
    ) -> Option<Turn> {
        self.orders += 1;
        let turn = Turn {
            place,
            order: self.orders,
        };
        let FlowDirection { key, way } = place;
        let between = self.between.entry(hosts(&key)).or_default();
        let begins = syn || !self.flows.contains_key(&key);
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            unanswered: [0; 2],
            held: VecDeque::new(),
            past: turn.order - 1,
            losses: 0,
            stuck: false,
            last: now,
        });
        let held = Held {
            packet: Vec::new(),
            turn,
            syn,
            begins,
        };
        if !flow.stuck {
            between.count(turn, begins);
        }
        if flow.held.is_empty()
            && flow.is_free(&held)
            && between.line(begins).is_clear(way, turn.order)
        {
            flow.release(now, way);
            self.fading.insert((now + between.patience(), turn));
            return Some(turn);
        }
        let packet = packet.to_vec();
        let is_head = flow.held.is_empty();
        flow.held.push_back(Held { packet, ..held });
        self.held += 1;
        if is_head {
            self.candidates.push_back(key);
        }
        None
    }

    /// Returns a kept packet whose turn has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Turn, Vec<u8>)> {
        while let Some((end, turn)) = self.fading.first().copied()
            && end <= now
        {
            self.fading.pop_first();
            self.fade(turn);
        }
        while let Some((end, key)) = self.alarms.first().copied()
            && end <= now
        {
            self.alarms.pop_first();
            self.candidates.push_back(key);
        }
        while let Some(key) = self.candidates.pop_front() {
            if let Some(held) = self.release(now, key) {
                self.held -= 1;
                return Some((held.turn, held.packet));
            }
        }
        None
    }

    /// Removes and returns the first packet of a flow if its turn has come.
    fn release(&mut self, now: Instant, key: FlowKey) -> Option<Held> {
        let flow = self.flows.get_mut(&key)?;
        let head = flow.held.front()?;
        let (way, order) = (head.turn.place.way, head.turn.order);
        if !flow.is_free(head) {
            let end = flow.last + (self.timeout / 2u32.saturating_pow(flow.losses)).max(LEAST);
            if end > now {
                self.alarms.insert((end, key));
                return None;
            }
            flow.unanswered = [0; 2];
            flow.past = order - 1;
            flow.losses += 1;
        }
        let head = flow.held.front()?;
        let mut patience = PATIENCE;
        if let Some(between) = self.between.get_mut(&hosts(&key)) {
            let line = between.line(head.begins);
            let clear = line.is_clear(way, order);
            let waiting = both(&mut line.waiting, way).0;
            if !clear {
                waiting.insert(order, key);
                return None;
            }
            waiting.remove(&order);
            patience = between.patience();
        }
        let held = flow.held.pop_front()?;
        flow.release(now, way);
        self.fading.insert((now + patience, held.turn));
        if !flow.held.is_empty() {
            self.candidates.push_back(key);
        }
        Some(held)
    }

    /// Records that the packet of this turn was sent with this number.
    pub(super) fn sent(&mut self, number: u64, turn: Turn) {
        self.sent.insert(number, turn);
    }

    /// Records the fate of the packet with this number. Returns false if it was known before.
    pub(super) fn decided(&mut self, number: u64, fate: Fate) -> bool {
        let turn = self.sent.remove(&number);
        if let Some(turn) = turn {
            self.done(turn, fate);
        }
        turn.is_some()
    }

    /// Records the fate of the packet of this turn.
    pub(super) fn done(&mut self, turn: Turn, fate: Fate) {
        let FlowDirection { key, way } = turn.place;
        if let Some(flow) = self.flows.get_mut(&key) {
            let is_past = turn.order <= flow.past;
            match fate {
                Fate::Returned => {
                    flow.losses = 0;
                    self.overtaken += u64::from(is_past);
                    if let Some(between) = self.between.get_mut(&hosts(&key)) {
                        between.stuck = 0;
                    }
                    if flow.stuck && !flow.held.is_empty() {
                        let between = self.between.entry(hosts(&key)).or_default();
                        for held in &flow.held {
                            between.count(held.turn, held.begins);
                        }
                    }
                    flow.stuck = false;
                }
                Fate::Lost if is_past => {}
                Fate::Lost => flow.losses = flow.losses.max(1),
            }
            if !is_past {
                let unanswered = both(&mut flow.unanswered, way).0;
                *unanswered = unanswered.saturating_sub(1);
            }
            if !flow.held.is_empty() {
                self.candidates.push_back(key);
            } else if flow.unanswered == [0; 2] {
                self.flows.remove(&key);
            }
        }
        self.done_between(turn);
    }

    /// Marks a flow as stuck if the packet of this turn is undecided.
    fn fade(&mut self, turn: Turn) {
        let FlowDirection { key, way } = turn.place;
        let Some(between) = self.between.get_mut(&hosts(&key)) else {
            return;
        };
        if !both(&mut between.all.undecided, way)
            .0
            .contains(&turn.order)
        {
            return;
        }
        between.stuck += 1;
        let mut turns = vec![turn];
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.stuck = true;
            turns.extend(flow.held.iter().map(|held| held.turn));
        }
        for turn in turns {
            self.done_between(turn);
        }
    }

    /// Ends the wait of other flows for the packet of this turn.
    fn done_between(&mut self, turn: Turn) {
        let FlowDirection { key, way } = turn.place;
        let hosts = hosts(&key);
        let Some(between) = self.between.get_mut(&hosts) else {
            return;
        };
        for way in [Way::Up, Way::Down] {
            between
                .beginnings
                .done(way, turn.order, &mut self.candidates);
        }
        between.all.done(way, turn.order, &mut self.candidates);
        if between.all.undecided.iter().all(BTreeSet::is_empty) {
            self.between.remove(&hosts);
        }
    }
}

impl Flow {
    /// Records that a packet of this direction is about to be sent.
    fn release(&mut self, now: Instant, way: Way) {
        *both(&mut self.unanswered, way).0 += 1;
        self.last = now;
    }

    /// Returns whether no packet of the flow delays this one, provided that it is the first waiting
    /// packet.
    fn is_free(&self, held: &Held) -> bool {
        let ([up, down], way) = (self.unanswered, held.turn.place.way);
        let (own, back) = match way {
            Way::Up => (up, down),
            Way::Down => (down, up),
        };
        back == 0 && (own == 0 || !held.syn)
    }
}
