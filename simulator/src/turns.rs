//! Whose turn it is: the order of a capture, kept where an appliance could not keep it.
//!
//! The two directions of a flow travel under source ports of their own, so an appliance may give them to two workers, and an
//! answer that is sent behind its question may be decided before it. Nor would an endpoint answer what it has not got. So of the
//! packets of a capture one waits here
//!
//! 1. until all before it of its flow's other direction have come back or are lost;
//! 2. if it is a SYN, also until all before it of its own direction have or are: its port may be a new one;
//! 3. if it begins something, as a SYN does or a packet of a flow that was at rest, until all before it of the other direction
//!    between its two addresses have or are, such as the reply in which an FTP server announces a connection; and any other
//!    packet until all before it have or are that begin something in either direction, such as that connection, which must come
//!    before the server says that it is over, and before the next announcement.
//!
//! Other flows do not wait for one that is stuck: of which a packet has not come back for [`PATIENCE`], or less, by half for each
//! such flow in a row, until something of it comes back.
//!
//! A packet is lost when it is given up, or when one that was sent after it from the same port comes back. In a flow of which
//! nothing comes back, as one that a policy denies, that would be one packet for each time-out; so each loss in a row is
//! assumed after half the time of the one before, down to [`LEAST`]. If such a packet comes back all the same, it was overtaken, which
//! is counted.
//!
//! An ICMP error takes its turn in the flow that it quotes. Packets of a flow keep their order; those of other flows pass. As
//! every packet comes back or is lost, each has its turn. What waits is bounded: [`Turns::is_full`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::inner::{FlowKey, Place, Way};

/// When a flow of which a packet has not come back no longer holds others up.
const PATIENCE: Duration = Duration::from_millis(50);
/// The least time after which a packet is taken for lost.
const LEAST: Duration = Duration::from_millis(4);
/// Packets that wait for their turn, in all.
const MAX_HELD: usize = 16_384;

/// A packet whose turn it is, until it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    place: Place,
    /// Its number in the capture.
    order: u64,
}

/// A packet that waits.
struct Held {
    packet: Vec<u8>,
    turn: Turn,
    syn: bool,
    /// Whether its flow was at rest, or it is a SYN.
    begins: bool,
}

/// What became of a packet that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It came back.
    Returned,
    /// It was given up, or was never sent.
    Lost,
}

/// A flow of which something waits or is unanswered.
struct Flow {
    /// Packets that are unanswered and not taken for lost, [`Way::Up`] first.
    unanswered: [u32; 2],
    held: VecDeque<Held>,
    /// All up to this order are of no concern: sent before the flow was at rest, or taken for lost.
    past: u64,
    /// Losses in a row.
    losses: u32,
    /// Whether other flows do not wait for it.
    stuck: bool,
    /// When the newest packet was sent.
    last: Instant,
}

/// Two addresses of an endpoint.
type Hosts = (usize, IpAddr, IpAddr);

/// Packets between two addresses by their order, [`Way::Up`] first.
#[derive(Default)]
struct Line {
    /// Those that wait or are unanswered.
    undecided: [BTreeSet<u64>; 2],
    /// Those that wait for them and for nothing else, each at the head of its flow.
    waiting: [BTreeMap<u64, FlowKey>; 2],
}

impl Line {
    /// Whether all before this one of the other direction are decided.
    fn is_clear(&mut self, way: Way, order: u64) -> bool {
        let back = both(&mut self.undecided, way).1;
        back.first().is_none_or(|first| *first > order)
    }

    /// This one is decided. Those whose turn it may be now are candidates.
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

/// What is between two addresses.
#[derive(Default)]
struct Between {
    /// All packets, for which those wait that begin something.
    all: Line,
    /// Those that begin something, for which all others wait, so that here they are of both directions.
    beginnings: Line,
    /// Flows in a row that were stuck.
    stuck: u32,
}

impl Between {
    /// Others are to wait for this one.
    fn count(&mut self, turn: Turn, begins: bool) {
        let ((_, way), order) = (turn.place, turn.order);
        both(&mut self.all.undecided, way).0.insert(order);
        if begins {
            for undecided in &mut self.beginnings.undecided {
                undecided.insert(order);
            }
        }
    }

    /// How long a packet may be undecided before its flow is stuck.
    fn patience(&self) -> Duration {
        (PATIENCE / 2u32.saturating_pow(self.stuck)).max(LEAST)
    }

    /// What a packet waits for.
    const fn line(&mut self, begins: bool) -> &mut Line {
        if begins {
            &mut self.all
        } else {
            &mut self.beginnings
        }
    }
}

/// Both directions of something, this one first.
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
    /// Packets that were sent, by the balancer's number.
    sent: HashMap<u64, Turn, RandomState>,
    /// Flows whose head may have its turn.
    candidates: VecDeque<FlowKey>,
    /// When a flow is stuck if this packet of it is still undecided.
    fading: BTreeSet<(Instant, Turn)>,
    /// When the head of a flow has waited long enough.
    alarms: BTreeSet<(Instant, FlowKey)>,
    held: usize,
    /// When a packet is given up.
    timeout: Duration,
    /// Packets that came back though they were taken for lost.
    overtaken: u64,
}

impl Turns {
    /// Nothing waits. A packet is given up after `timeout`.
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

    /// How many packets wait.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Whether there is no room for another packet.
    pub(super) const fn is_full(&self) -> bool {
        self.held >= MAX_HELD
    }

    /// Whether nothing that was sent is undecided.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether nothing is left of flows.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.held == 0 && self.flows.is_empty() && self.between.is_empty() && self.sent.is_empty()
    }

    /// How many packets came back after others that should have waited for them were sent.
    pub(super) const fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// The next packet of the capture: its turn, if it is to be sent now; otherwise it is kept, and comes by [`Turns::next`].
    pub(super) fn offer(&mut self, now: Instant, place: Place, syn: bool, packet: &[u8]) -> Option<Turn> {
        self.orders += 1;
        let turn = Turn {
            place,
            order: self.orders,
        };
        let (key, way) = place;
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
        if flow.held.is_empty() && flow.is_free(&held) && between.line(begins).is_clear(way, turn.order) {
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

    /// A packet that was kept and whose turn it is now.
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

    /// Takes out the head of a flow if it is its turn.
    fn release(&mut self, now: Instant, key: FlowKey) -> Option<Held> {
        let flow = self.flows.get_mut(&key)?;
        let head = flow.held.front()?;
        let ((_, way), order) = (head.turn.place, head.turn.order);
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

    /// The packet of this turn was sent, and has this number until it is decided.
    pub(super) fn sent(&mut self, number: u64, turn: Turn) {
        self.sent.insert(number, turn);
    }

    /// What became of the packet of this number. False if that was known before.
    pub(super) fn decided(&mut self, number: u64, fate: Fate) -> bool {
        let turn = self.sent.remove(&number);
        if let Some(turn) = turn {
            self.done(turn, fate);
        }
        turn.is_some()
    }

    /// What became of the packet of this turn.
    pub(super) fn done(&mut self, turn: Turn, fate: Fate) {
        let (key, way) = turn.place;
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

    /// If the packet of this turn is undecided, its flow is stuck.
    fn fade(&mut self, turn: Turn) {
        let (key, way) = turn.place;
        let Some(between) = self.between.get_mut(&hosts(&key)) else {
            return;
        };
        if !both(&mut between.all.undecided, way).0.contains(&turn.order) {
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

    /// The packet of this turn no longer holds other flows up.
    fn done_between(&mut self, turn: Turn) {
        let (key, way) = turn.place;
        let hosts = hosts(&key);
        let Some(between) = self.between.get_mut(&hosts) else {
            return;
        };
        for way in [Way::Up, Way::Down] {
            between.beginnings.done(way, turn.order, &mut self.candidates);
        }
        between.all.done(way, turn.order, &mut self.candidates);
        if between.all.undecided.iter().all(BTreeSet::is_empty) {
            self.between.remove(&hosts);
        }
    }
}

impl Flow {
    /// A packet of this way is about to be sent.
    fn release(&mut self, now: Instant, way: Way) {
        *both(&mut self.unanswered, way).0 += 1;
        self.last = now;
    }

    /// Whether no packet of the flow stands in the way of this one, if it is the first that waits.
    fn is_free(&self, held: &Held) -> bool {
        let ([up, down], (_, way)) = (self.unanswered, held.turn.place);
        let (own, back) = match way {
            Way::Up => (up, down),
            Way::Down => (down, up),
        };
        back == 0 && (own == 0 || !held.syn)
    }
}
