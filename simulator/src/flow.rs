//! Flows with their cookies, ports and unanswered packets, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ahash::RandomState;
use etherparse::IpNumber;
use lru::LruCache;

use super::inner::{FlowDirection, FlowKey, Inner, Kind, Way};
use super::targets::TargetId;
use super::tunnel::Label;

/// Default idle time after which a Gateway Load Balancer removes a TCP flow.
pub(super) const TCP_IDLE: Duration = Duration::from_secs(350);
/// Idle time after which a Gateway Load Balancer removes any other flow.
pub(super) const OTHER_IDLE: Duration = Duration::from_secs(120);
/// Maximum number of unanswered packets of one flow and direction.
const MAX_QUEUE: usize = 8192;
/// First outer source port; the dynamic ports begin here (RFC 6335 section 6).
const FIRST_PORT: u16 = 49152;

/// End of a pair at which a packet enters or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The first device of a pair.
    Client,
    /// The second device of a pair.
    Server,
}

impl Side {
    /// Returns the other end.
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
    /// Number of the packet; rises over all flows.
    pub(super) number: u64,
    /// The hash of the inner bytes.
    pub(super) hash: u64,
    /// The length of the inner packet.
    pub(super) len: usize,
    /// Label of the packet.
    pub(super) label: Label,
    /// Target that received the packet.
    pub(super) target: TargetId,
    /// Time of sending.
    pub(super) sent: Instant,
    /// Whether the packet timed out, so that its return is late.
    pub(super) given_up: bool,
}

/// One direction of a flow.
#[derive(Debug)]
pub(super) struct Lane {
    /// The label that packets get.
    pub(super) label: Label,
    /// Label with the previous cookie.
    previous: Option<Label>,
    /// Side at which packets entered; `None` before the first packet.
    side: Option<Side>,
    /// Whether a packet was sent with `label`.
    sent: bool,
    /// Number of the newest packet of all flows when a packet with `label` last came back. By then
    /// the appliance has certainly known the label.
    answered: Option<u64>,
    fin: bool,
    /// Packets by ascending `number`.
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

    /// Returns whether a packet that the appliance made may carry this label because packets were
    /// sent with it in this direction.
    fn was_sent_with(&self, label: Label) -> bool {
        (self.sent && self.label == label)
            || (self.answered.is_none() && self.previous == Some(label))
    }

    /// Returns whether the newest unanswered packet with this label was sent after packet `number`.
    fn lacks_answer_since(&self, number: u64, label: Label) -> bool {
        let newest = self
            .queue
            .iter()
            .rev()
            .find(|pending| pending.label == label);
        newest.is_some_and(|pending| pending.number > number)
    }

    /// Returns the numbers of unanswered packets that were sent before this packet with its label,
    /// newest first.
    pub(super) fn before(&self, pending: &Pending) -> impl Iterator<Item = u64> {
        let (number, label) = (pending.number, pending.label);
        let end = self.queue.partition_point(|each| each.number < number);
        let before = self.queue.range(..end).rev();
        before
            .filter(move |each| each.label == label)
            .map(|each| each.number)
    }

    /// Removes and returns the oldest packet that matches `reply`. A packet with the reply's label
    /// comes first, so that a changed cookie causes no confusion.
    pub(super) fn take(&mut self, reply: Answer) -> Option<Pending> {
        let label = reply.label;
        let same = |pending: &Pending| pending.hash == reply.hash && pending.target == reply.from;
        let at = self
            .queue
            .iter()
            .position(|pending| same(pending) && pending.label == label)
            .or_else(|| self.queue.iter().position(same))?;
        let taken = self.queue.remove(at)?;
        if taken.label == self.label && label == self.label {
            self.answered = Some(reply.latest);
        }
        Some(taken)
    }

    /// Returns the target of a packet with this hash that waits for a reply from another target.
    pub(super) fn sent_elsewhere(&self, reply: Answer) -> Option<TargetId> {
        let elsewhere =
            |pending: &&Pending| pending.hash == reply.hash && pending.target != reply.from;
        self.queue
            .iter()
            .find(elsewhere)
            .map(|pending| pending.target)
    }

    /// Returns whether a packet that was sent to a target still waits for its reply.
    fn waits_for(&self, target: TargetId) -> bool {
        let waits = |pending: &Pending| pending.target == target && !pending.given_up;
        self.queue.iter().any(waits)
    }

    /// Removes and returns the oldest packet with this label that has not timed out: the packet
    /// that came back altered. A packet of this length comes first.
    pub(super) fn take_altered(&mut self, len: usize, reply: Answer) -> Option<Pending> {
        let fits = |pending: &Pending| {
            pending.label == reply.label && pending.target == reply.from && !pending.given_up
        };
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

    /// Returns the packet with this number, if it is still stored.
    pub(super) fn pending(&mut self, number: u64) -> Option<&mut Pending> {
        let at = self.at(number)?;
        self.queue.get_mut(at)
    }

    /// Removes the packet with this number.
    pub(super) fn forget(&mut self, number: u64) -> Option<Pending> {
        let at = self.at(number)?;
        self.queue.remove(at)
    }
}

/// Reason for which a packet that the appliance made carries a correct label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// The label was sent in this direction. Or it belongs to the other direction, and nothing came
    /// back in this one, so that the appliance may know no other label.
    Known,
    /// The label belongs to the other direction. The appliance has known the label of this one, and
    /// has returned nothing in it since an unanswered packet of the other. The label is correct if
    /// the appliance lost the flow meanwhile, by a restart or the end of the flow's lifetime, and
    /// then rejected a mid-stream packet. An outside observer cannot determine this.
    Anew,
}

/// A flow.
#[derive(Debug)]
pub(super) struct Flow {
    up: Lane,
    down: Lane,
    ended: bool,
    last: Instant,
    /// The target of its packets.
    target: TargetId,
}

impl Flow {
    /// Returns whether a target may make packets of this flow: its own, or one that still has
    /// packets of it.
    pub(super) fn is_of(&self, target: TargetId) -> bool {
        self.target == target || self.up.waits_for(target) || self.down.waits_for(target)
    }

    /// Returns the target of its packets.
    pub(super) const fn target(&self) -> TargetId {
        self.target
    }

    /// Returns the lane of this direction.
    pub(super) const fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Returns the lane of this direction.
    pub(super) const fn lane_mut(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Returns the side by which packets of this direction leave: opposite to the side at which
    /// they enter.
    pub(super) fn exit(&self, way: Way) -> Option<Side> {
        let entry = self.lane(way).side.map(Side::other);
        entry.or(self.lane(way.back()).side)
    }

    /// Returns the reason for which a packet that the appliance made in this direction may carry
    /// this label, or `None` if it may not.
    pub(super) fn made(&self, way: Way, label: Label) -> Option<Made> {
        let (lane, back) = (self.lane(way), self.lane(way.back()));
        match lane.answered {
            _ if lane.was_sent_with(label) => Some(Made::Known),
            _ if !back.was_sent_with(label) => None,
            None => Some(Made::Known),
            Some(answered) => back
                .lacks_answer_since(answered, label)
                .then_some(Made::Anew),
        }
    }

    /// Returns whether a challenge in this direction may carry this label: that of the SYN that it
    /// answers.
    pub(super) fn challenged(&self, way: Way, label: Label) -> bool {
        self.lane(way.back()).was_sent_with(label)
    }

    /// Marks the flow as ended by a RST.
    pub(super) const fn reset(&mut self) {
        self.ended = true;
    }

    fn waits(&self) -> bool {
        let waits = |lane: &Lane| lane.queue.iter().any(|pending| !pending.given_up);
        waits(&self.up) || waits(&self.down)
    }
}

/// Fields of a reply that are compared with unanswered packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// The hash of the inner bytes.
    pub(super) hash: u64,
    /// The label of the reply.
    pub(super) label: Label,
    /// The target that sent it.
    pub(super) from: TargetId,
    /// The number of the newest packet of all.
    pub(super) latest: u64,
}

/// A packet that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure<'a> {
    /// The parsed inner packet.
    pub(super) inner: &'a Inner,
    /// Bytes of the inner packet.
    pub(super) bytes: &'a [u8],
    /// Side at which the packet entered.
    pub(super) side: Side,
    /// Number of the packet.
    pub(super) number: u64,
    /// The time.
    pub(super) now: Instant,
}

/// Settings of a flow table.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowSettings {
    /// Maximum number of remembered flows.
    pub(super) max_flows: NonZeroUsize,
    /// Whether the two directions of a flow have separate cookies.
    pub(super) cookie_per_direction: bool,
    /// Idle time after which a TCP flow is forgotten.
    pub(super) tcp_idle: Duration,
}

/// Reason for which a packet gets no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// All flows wait for replies, and there is no room for another.
    TableFull,
    /// The flow has too many unanswered packets.
    Backlog,
    /// The TCP flow was idle for too long, and the packet is not a SYN.
    Idle,
    /// No target is registered.
    NoTarget,
}

/// All flows.
pub(super) struct FlowTable {
    flows: LruCache<FlowKey, Flow, RandomState>,
    /// Flow of each cookie; the later one if two flows share a cookie.
    cookies: HashMap<u32, FlowKey, RandomState>,
    hasher: RandomState,
    settings: FlowSettings,
    /// Number of cookies so far; an input of the next cookie's hash.
    pub(super) epochs: u64,
}

impl FlowTable {
    /// Returns an empty table. `hasher` creates the cookies.
    pub(super) fn new(settings: FlowSettings, hasher: RandomState) -> Self {
        Self {
            flows: LruCache::with_hasher(settings.max_flows, hasher.clone()),
            cookies: HashMap::with_hasher(hasher.clone()),
            hasher,
            settings,
            epochs: 0,
        }
    }

    /// Returns the number of flows.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns the flow of this key.
    pub(super) fn flow(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.flows.peek_mut(key)
    }

    /// Returns the flow and direction to which a label was given last.
    pub(super) fn labeled(&self, label: Label) -> Option<FlowDirection> {
        let key = *self.cookies.get(&label.cookie)?;
        let flow = self.flows.peek(&key)?;
        [Way::Up, Way::Down]
            .into_iter()
            .find(|way| flow.lane(*way).label == label)
            .map(|way| FlowDirection { key, way })
    }

    /// Returns the hash that identifies an inner packet.
    pub(super) fn hash(&self, inner: &[u8]) -> u64 {
        self.hasher.hash_one(inner)
    }

    /// Returns the targets of flows that have not ended and were not idle for too long.
    pub(super) fn live_targets(&self, now: Instant) -> impl Iterator<Item = TargetId> {
        self.flows
            .iter()
            .filter(move |(key, flow)| {
                !flow.ended && now.saturating_duration_since(flow.last) < self.idle(key)
            })
            .map(|(_, flow)| flow.target)
    }

    /// Returns the idle time after which a flow is forgotten. The flow of TCP fragments, which has
    /// no ports, is not one of TCP.
    const fn idle(&self, key: &FlowKey) -> Duration {
        if key.protocol == IpNumber::TCP.0 && (key.low.1 != 0 || key.high.1 != 0) {
            self.settings.tcp_idle
        } else {
            OTHER_IDLE
        }
    }

    /// Notes a packet that is about to be sent; returns its label and target. A new flow replaces
    /// the longest unused one if there is no room. `route` maps the flow's present target, `None`
    /// for a new flow, to the one for this packet.
    ///
    /// # Errors
    /// Returns the reason for which the packet is not sent.
    pub(super) fn note(
        &mut self,
        packet: Departure<'_>,
        route: impl FnOnce(Option<TargetId>) -> Option<TargetId>,
    ) -> Result<(Label, TargetId), Refused> {
        let FlowDirection { key, way } = packet.inner.place;
        let hash = self.hash(packet.bytes);
        let tcp = match packet.inner.kind {
            Kind::Tcp {
                opens, fin, rst, ..
            } => Some((opens, fin, rst)),
            _ => None,
        };
        let idle = self.idle(&key);
        let current = match self.flows.get(&key) {
            None => {
                self.make_room()?;
                None
            }
            Some(flow) => {
                let silent = packet.now.saturating_duration_since(flow.last) >= idle;
                let renewed = match tcp {
                    Some((opens, ..)) if silent && !opens => return Err(Refused::Idle),
                    Some((opens, ..)) => silent || (opens && flow.ended),
                    None => silent,
                };
                (!renewed).then_some(flow.target)
            }
        };
        let target = route(current).ok_or(Refused::NoTarget)?;
        if current.is_none() {
            self.renew(key, target, packet.now);
        }
        let Some(flow) = self.flows.peek_mut(&key) else {
            return Err(Refused::TableFull);
        };
        flow.target = target;
        let lane = flow.lane_mut(way);
        if lane.queue.len() >= MAX_QUEUE {
            if lane.queue.front().is_some_and(|oldest| !oldest.given_up) {
                return Err(Refused::Backlog);
            }
            lane.queue.pop_front();
        }
        lane.sent = true;
        lane.side = Some(packet.side);
        let label = lane.label;
        lane.queue.push_back(Pending {
            number: packet.number,
            hash,
            len: packet.bytes.len(),
            label,
            target,
            sent: packet.now,
            given_up: false,
        });
        flow.last = packet.now;
        if let Some((_, fin, rst)) = tcp {
            flow.lane_mut(way).fin |= fin;
            flow.ended |= rst || (flow.up.fin && flow.down.fin);
        }
        Ok((label, target))
    }

    fn make_room(&mut self) -> Result<(), Refused> {
        if self.flows.len() < self.settings.max_flows.get() {
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

    /// Gives a new or known flow a new cookie and new ports.
    fn renew(&mut self, key: FlowKey, target: TargetId, now: Instant) {
        self.epochs += 1;
        let (up, down) = (self.label(&key, Way::Up), self.label(&key, Way::Down));
        match self.flows.pop(&key) {
            None => {
                let flow = Flow {
                    up: Lane::new(up),
                    down: Lane::new(down),
                    ended: false,
                    last: now,
                    target,
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

    /// The two directions never share a port: the upper half of the range belongs to one of them.
    fn label(&self, key: &FlowKey, way: Way) -> Label {
        let of_way = self.settings.cookie_per_direction.then_some(way);
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
