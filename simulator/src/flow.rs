//! The flows that the balancer knows: their cookies, ports and unanswered packets, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ahash::RandomState;
use lru::LruCache;

use super::inner::{FlowKey, Inner, Kind, Place, Way};
use super::tunnel::Label;

/// After how long a silence a Gateway Load Balancer forgets a TCP flow, without a setting.
const TCP_IDLE: Duration = Duration::from_secs(350);
/// The same for all else.
const OTHER_IDLE: Duration = Duration::from_secs(120);
/// Unanswered packets of one flow and way.
const MAX_QUEUE: usize = 8192;
/// The first of the outer source ports, which are the dynamic ones (RFC 6335 section 6).
const FIRST_PORT: u16 = 49152;

/// The end of the box that a packet came in at, or is to leave by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The first device of a pair.
    Client,
    /// The second device of a pair.
    Server,
}

impl Side {
    /// The other one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A packet that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    /// Rises with every packet, over all flows.
    pub(super) number: u64,
    /// The hash of the inner bytes.
    pub(super) hash: u64,
    /// The length of the inner packet.
    pub(super) len: usize,
    /// How it was labelled.
    pub(super) label: Label,
    /// When it was sent.
    pub(super) sent: Instant,
    /// Whether it was given up, so that its return would be late.
    pub(super) given_up: bool,
}

/// One way of a flow.
#[derive(Debug)]
pub(super) struct Lane {
    /// The label that packets get.
    pub(super) label: Label,
    /// The label of the cookie before.
    previous: Option<Label>,
    /// Where packets came in; `None` before the first.
    side: Option<Side>,
    /// Whether a packet was sent with `label`.
    sent: bool,
    /// The newest packet of all when one with `label` came back last, so that the appliance has certainly known it.
    answered: Option<u64>,
    fin: bool,
    /// Rising in `number`.
    queue: VecDeque<Pending>,
}

impl Lane {
    const fn new(label: Label) -> Self {
        Self {
            label,
            previous: None,
            side: None,
            sent: false,
            answered: None,
            fin: false,
            queue: VecDeque::new(),
        }
    }

    fn relabel(&mut self, label: Label) {
        if self.sent {
            self.previous = Some(self.label);
        }
        self.label = label;
        (self.sent, self.answered, self.fin) = (false, None, false);
    }

    /// Whether a packet that the appliance made may carry this label, as one that was sent this way.
    fn was_sent_with(&self, label: Label) -> bool {
        (self.sent && self.label == label) || (self.answered.is_none() && self.previous == Some(label))
    }

    /// Whether the newest packet with this label that has not come back was sent later than this one.
    fn lacks_answer_since(&self, number: u64, label: Label) -> bool {
        let newest = self.queue.iter().rev().find(|pending| pending.label == label);
        newest.is_some_and(|pending| pending.number > number)
    }

    /// The numbers of the packets that were sent before this one with its label and have not come back, the newest first.
    pub(super) fn before(&self, pending: &Pending) -> impl Iterator<Item = u64> {
        let (number, label) = (pending.number, pending.label);
        let end = self.queue.partition_point(|each| each.number < number);
        let before = self.queue.range(..end).rev();
        before
            .filter(move |each| each.label == label)
            .map(|each| each.number)
    }

    /// Takes the oldest packet of this hash out; one with this label first, so that a changed cookie confuses nothing.
    /// `latest` is the number of the newest packet of all.
    pub(super) fn take(&mut self, hash: u64, label: Label, latest: u64) -> Option<Pending> {
        let same = |pending: &Pending| pending.hash == hash;
        let at = self
            .queue
            .iter()
            .position(|pending| same(pending) && pending.label == label)
            .or_else(|| self.queue.iter().position(same))?;
        let taken = self.queue.remove(at)?;
        if taken.label == self.label && label == self.label {
            self.answered = Some(latest);
        }
        Some(taken)
    }

    /// Takes out the oldest packet with this label that is not given up, one of this length first: the one that came
    /// back altered.
    pub(super) fn take_altered(&mut self, len: usize, label: Label) -> Option<Pending> {
        let fits = |pending: &Pending| pending.label == label && !pending.given_up;
        let at = self
            .queue
            .iter()
            .position(|pending| fits(pending) && pending.len == len)
            .or_else(|| self.queue.iter().position(fits))?;
        self.queue.remove(at)
    }

    fn at(&self, number: u64) -> Option<usize> {
        self.queue
            .binary_search_by_key(&number, |pending| pending.number)
            .ok()
    }

    /// The packet of this number, if it is still here.
    pub(super) fn pending(&mut self, number: u64) -> Option<&mut Pending> {
        let at = self.at(number)?;
        self.queue.get_mut(at)
    }

    /// Forgets the packet of this number.
    pub(super) fn forget(&mut self, number: u64) -> Option<Pending> {
        let at = self.at(number)?;
        self.queue.remove(at)
    }
}

/// Why a packet that the appliance made carries a right label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// The label was sent this way; or it is the other way's, and nothing has come back of this way, so that the appliance may
    /// have seen no other.
    Known,
    /// It is the other way's, though the appliance has known this one's, and returned nothing of this way since a packet of
    /// the other that it has not returned: right if it has forgotten the flow in between, as over a restart or after the
    /// flow's lifetime, and then refuses what it takes for a flow's middle. Nobody outside can tell.
    Anew,
}

/// A flow.
#[derive(Debug)]
pub(super) struct Flow {
    up: Lane,
    down: Lane,
    ended: bool,
    last: Instant,
}

impl Flow {
    /// Its lane this way.
    pub(super) const fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Its lane this way.
    pub(super) const fn lane_mut(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Where a packet that goes this way leaves the box: opposite to where such packets come in.
    pub(super) fn exit(&self, way: Way) -> Option<Side> {
        let entry = self.lane(way).side.map(Side::other);
        entry.or(self.lane(way.back()).side)
    }

    /// Whether a packet that the appliance made, and that goes this way, may carry this label, and why: `None` if it may not.
    pub(super) fn made(&self, way: Way, label: Label) -> Option<Made> {
        let (lane, back) = (self.lane(way), self.lane(way.back()));
        match lane.answered {
            _ if lane.was_sent_with(label) => Some(Made::Known),
            _ if !back.was_sent_with(label) => None,
            None => Some(Made::Known),
            Some(answered) => back.lacks_answer_since(answered, label).then_some(Made::Anew),
        }
    }

    /// Whether a challenge that goes this way may carry this label: that of the SYN which it
    /// answers.
    pub(super) fn challenged(&self, way: Way, label: Label) -> bool {
        self.lane(way.back()).was_sent_with(label)
    }

    /// A RST ended it.
    pub(super) const fn reset(&mut self) {
        self.ended = true;
    }

    fn waits(&self) -> bool {
        let waits = |lane: &Lane| lane.queue.iter().any(|pending| !pending.given_up);
        waits(&self.up) || waits(&self.down)
    }
}

/// Why a packet gets no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// All flows wait for replies, and there is no room for another.
    TableFull,
    /// The flow has too many unanswered packets.
    Backlog,
}

/// All flows.
pub(super) struct FlowTable {
    flows: LruCache<FlowKey, Flow, RandomState>,
    /// Which flow has which cookie. Of two flows that share one, the later.
    cookies: HashMap<u32, FlowKey, RandomState>,
    hasher: RandomState,
    cookie_per_direction: bool,
    /// Cookies given out to flows so far; part of the next cookie's hash.
    pub(super) epochs: u64,
}

impl FlowTable {
    /// An empty table; `hasher` makes the cookies.
    pub(super) fn new(max_flows: NonZeroUsize, hasher: RandomState, cookie_per_direction: bool) -> Self {
        Self {
            flows: LruCache::with_hasher(max_flows, hasher.clone()),
            cookies: HashMap::with_hasher(hasher.clone()),
            hasher,
            cookie_per_direction,
            epochs: 0,
        }
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The flow of this key.
    pub(super) fn flow(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.flows.peek_mut(key)
    }

    /// The flow and way that a label was given to last.
    pub(super) fn labelled(&self, label: Label) -> Option<Place> {
        let key = *self.cookies.get(&label.cookie)?;
        let flow = self.flows.peek(&key)?;
        [Way::Up, Way::Down]
            .into_iter()
            .find(|way| flow.lane(*way).label == label)
            .map(|way| (key, way))
    }

    /// The hash by which inner packets are told apart.
    pub(super) fn hash(&self, inner: &[u8]) -> u64 {
        self.hasher.hash_one(inner)
    }

    /// Notes a packet that is about to be sent and says how it is labelled. Its flow is made if there is none; the
    /// longest unused one gives way to it.
    pub(super) fn note(
        &mut self,
        inner: &Inner,
        bytes: &[u8],
        side: Side,
        number: u64,
        now: Instant,
    ) -> Result<Label, Refused> {
        let (key, way) = inner.place;
        let hash = self.hash(bytes);
        let tcp = match inner.kind {
            Kind::Tcp { opens, fin, rst, .. } => Some((opens, fin, rst)),
            _ => None,
        };
        let renewed = match self.flows.get(&key) {
            None => {
                self.make_room()?;
                true
            }
            Some(flow) => {
                let silence = now.saturating_duration_since(flow.last);
                match tcp {
                    Some((opens, ..)) => silence >= TCP_IDLE || (opens && flow.ended),
                    None => silence >= OTHER_IDLE,
                }
            }
        };
        if renewed {
            self.renew(key, now);
        }
        let Some(flow) = self.flows.peek_mut(&key) else {
            return Err(Refused::TableFull);
        };
        let lane = flow.lane_mut(way);
        if lane.queue.len() >= MAX_QUEUE {
            if lane.queue.front().is_some_and(|oldest| !oldest.given_up) {
                return Err(Refused::Backlog);
            }
            lane.queue.pop_front();
        }
        lane.sent = true;
        lane.side = Some(side);
        let label = lane.label;
        lane.queue.push_back(Pending {
            number,
            hash,
            len: bytes.len(),
            label,
            sent: now,
            given_up: false,
        });
        flow.last = now;
        if let Some((_, fin, rst)) = tcp {
            flow.lane_mut(way).fin |= fin;
            flow.ended |= rst || (flow.up.fin && flow.down.fin);
        }
        Ok(label)
    }

    fn make_room(&mut self) -> Result<(), Refused> {
        if self.flows.len() < self.flows.cap().get() {
            return Ok(());
        }
        if self.flows.peek_lru().is_some_and(|(_, flow)| flow.waits()) {
            return Err(Refused::TableFull);
        }
        if let Some((key, flow)) = self.flows.pop_lru() {
            self.forget_cookies(&key, &flow);
        }
        Ok(())
    }

    fn forget_cookies(&mut self, key: &FlowKey, flow: &Flow) {
        for cookie in [flow.up.label.cookie, flow.down.label.cookie] {
            if self.cookies.get(&cookie) == Some(key) {
                self.cookies.remove(&cookie);
            }
        }
    }

    /// Gives a flow, new or known, a new cookie and new ports.
    fn renew(&mut self, key: FlowKey, now: Instant) {
        self.epochs += 1;
        let (up, down) = (self.label(&key, Way::Up), self.label(&key, Way::Down));
        match self.flows.pop(&key) {
            None => {
                let flow = Flow {
                    up: Lane::new(up),
                    down: Lane::new(down),
                    ended: false,
                    last: now,
                };
                self.flows.push(key, flow);
            }
            Some(mut flow) => {
                self.forget_cookies(&key, &flow);
                flow.ended = false;
                flow.up.relabel(up);
                flow.down.relabel(down);
                self.flows.push(key, flow);
            }
        }
        self.cookies.insert(up.cookie, key);
        self.cookies.insert(down.cookie, key);
    }

    /// Two ways never share a port: the higher bit is the way's.
    fn label(&self, key: &FlowKey, way: Way) -> Label {
        let of_way = self.cookie_per_direction.then_some(way);
        let cookie = self.hasher.hash_one((key, self.epochs, of_way, "cookie")) as u32;
        let range = (u16::MAX - FIRST_PORT) / 2 + 1;
        let port = self.hasher.hash_one((key, self.epochs, way, "port")) % u64::from(range);
        let start = match way {
            Way::Up => FIRST_PORT,
            Way::Down => FIRST_PORT + range,
        };
        Label {
            cookie,
            port: start + port as u16,
        }
    }
}
