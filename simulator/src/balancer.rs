//! The load balancer without its sockets: inner packets in, datagrams out; replies in, and what is wrong with them.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ahash::RandomState;
use portcullis::geneve::{Header, PORT};

use super::flow::{FlowTable, Made, Pending, Refused, Side};
use super::inner::{FlowKey, Inner, Kind, Place};
use super::report::{Counters, Failure};
use super::tunnel::{Endpoint, Label, MAX_INNER, Outer, geneve_header, metadata};
use super::turns::{Fate, Turn, Turns};

/// Unanswered packets in all, beyond which nothing is sent.
pub(super) const MAX_UNANSWERED: usize = 65_536;
/// Packets that were given up and whose return would be recognised.
const MAX_LATE: usize = 65_536;
/// How long the return of a packet that was given up is recognised.
const LATE: Duration = Duration::from_secs(10);

/// Why a packet is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It has no whole IP header.
    NotIp,
    /// It does not fit into a datagram or the path's MTU.
    TooLong,
    /// All flows wait for replies and there is no room for another.
    FlowTableFull,
    /// Too many packets wait for replies, of its flow or in all.
    Backlog,
    /// The system refused to send it.
    Refused,
}

impl From<Refused> for Unsent {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TableFull => Self::FlowTableFull,
            Refused::Backlog => Self::Backlog,
        }
    }
}

/// Whether a packet is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is, and has this turn if it is of a flow.
    Now(Option<Turn>),
    /// Not yet.
    Kept,
}

/// Names a packet until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    place: Place,
    number: u64,
}

/// A good reply, to be handed on: the inner packet is `payload[inner_at..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The index of the pair.
    pub(super) pair: usize,
    /// Which of its ends the packet leaves by.
    pub(super) side: Side,
    /// Where in the UDP payload the inner packet begins.
    pub(super) inner_at: usize,
}

/// What there is to know before the first packet.
pub(super) struct Setup {
    /// The way to the appliance.
    pub(super) outer: Outer,
    /// The endpoints, one for each pair.
    pub(super) endpoints: Vec<Endpoint>,
    /// When an unanswered packet is given up.
    pub(super) timeout: Duration,
    /// The most flows that are remembered.
    pub(super) max_flows: NonZeroUsize,
    /// Whether the two ways of a flow have cookies of their own.
    pub(super) cookie_per_direction: bool,
}

/// The balancer.
pub(super) struct Balancer {
    setup: Setup,
    flows: FlowTable,
    /// All packets that may still wait, in the order of sending. The answered ones are among them.
    order: VecDeque<(Ticket, Instant)>,
    /// Packets that were given up.
    late: VecDeque<(Ticket, Instant)>,
    unanswered: usize,
    number: u64,
    last_reply: Option<Instant>,
    /// The order of packets that are sent in turn.
    turns: Turns,
    /// What was seen.
    pub(super) counters: Counters,
}

impl Balancer {
    /// A balancer without flows; `hasher` makes cookies and tells packets apart.
    pub(super) fn new(setup: Setup, hasher: RandomState) -> Self {
        Self {
            turns: Turns::new(hasher.clone(), setup.timeout),
            flows: FlowTable::new(setup.max_flows, hasher, setup.cookie_per_direction),
            setup,
            order: VecDeque::new(),
            late: VecDeque::new(),
            unanswered: 0,
            number: 0,
            last_reply: None,
            counters: Counters::default(),
        }
    }

    /// How many packets wait for their reply.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// When the last reply came, right or wrong.
    pub(super) const fn last_reply(&self) -> Option<Instant> {
        self.last_reply
    }

    /// Returns how many flows are known, and how many cookies there were: two for each flow where
    /// each direction has its own.
    pub(super) fn flows(&self) -> (usize, u64) {
        let each = if self.setup.cookie_per_direction { 2 } else { 1 };
        (self.flows.len(), self.flows.epochs * each)
    }

    /// Asks whether it is the turn of a packet, which is kept if it is not; then [`Balancer::next_in_turn`] gives it back.
    pub(super) fn offer(&mut self, now: Instant, pair: usize, bytes: &[u8]) -> Offer {
        let Some(inner) = Inner::read(pair, bytes) else {
            return Offer::Now(None);
        };
        let place = match inner.kind {
            Kind::IcmpError(Some((quoted, way))) => (quoted, way.back()),
            _ => inner.place,
        };
        let syn = matches!(inner.kind, Kind::Tcp { opens: true, .. });
        match self.turns.offer(now, place, syn, bytes) {
            Some(turn) => Offer::Now(Some(turn)),
            None => Offer::Kept,
        }
    }

    /// A packet that was kept and whose turn it is now.
    pub(super) fn next_in_turn(&mut self, now: Instant) -> Option<(Turn, Vec<u8>)> {
        self.turns.next(now)
    }

    /// How many packets are kept until it is their turn, and whether no more can be.
    pub(super) const fn kept(&self) -> (usize, bool) {
        (self.turns.held(), self.turns.is_full())
    }

    /// Whether nothing is left of packets that waited for their turn.
    #[cfg(test)]
    pub(super) fn nothing_waits(&self) -> bool {
        self.turns.is_at_rest()
    }

    /// How many packets came back after others had been sent that should have waited for them.
    pub(super) const fn overtaken(&self) -> u64 {
        self.turns.overtaken()
    }

    /// As [`Balancer::send`], of a packet whose turn it is.
    ///
    /// # Errors
    /// As those of [`Balancer::send`].
    pub(super) fn send_in_turn(
        &mut self,
        now: Instant,
        pair: usize,
        side: Side,
        inner: &[u8],
        turn: Option<Turn>,
        out: &mut Vec<u8>,
    ) -> Result<Ticket, Unsent> {
        let sent = self.send(now, pair, side, inner, out);
        match (&sent, turn) {
            (_, None) => {}
            (Ok(ticket), Some(turn)) => self.turns.sent(ticket.number, turn),
            (Err(_), Some(turn)) => self.turns.done(turn, Fate::Lost),
        }
        sent
    }

    /// Puts the inner packet, which came in at this side of the pair, into the tunnel: writes the whole outer packet
    /// to `out`. It counts as sent from now on; tell with [`Balancer::unsend`] if it was not.
    ///
    /// # Errors
    /// The reason for which it cannot be sent, which has been counted.
    pub(super) fn send(
        &mut self,
        now: Instant,
        pair: usize,
        side: Side,
        inner: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Ticket, Unsent> {
        let sent = self.try_send(now, pair, side, inner, out);
        match sent {
            Ok(_) => self.counters.sent(inner.len()),
            Err(reason) => self.counters.not_sent.count(reason),
        }
        sent
    }

    fn try_send(
        &mut self,
        now: Instant,
        pair: usize,
        side: Side,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Ticket, Unsent> {
        let endpoint = self.setup.endpoints.get(pair).ok_or(Unsent::Refused)?;
        let inner = Inner::read(pair, bytes).ok_or(Unsent::NotIp)?;
        if bytes.len() > MAX_INNER {
            return Err(Unsent::TooLong);
        }
        if self.unanswered >= MAX_UNANSWERED {
            return Err(Unsent::Backlog);
        }
        self.number += 1;
        let label = self.flows.note(&inner, bytes, side, self.number, now)?;
        let geneve = geneve_header(*endpoint, label.cookie, inner.protocol);
        self.setup.outer.write(label.port, &geneve, bytes, out);
        let ticket = Ticket {
            place: inner.place,
            number: self.number,
        };
        self.unanswered += 1;
        self.order.push_back((ticket, now));
        if self.order.len() > 2 * MAX_UNANSWERED {
            let flows = &mut self.flows;
            self.order.retain(|(ticket, _)| waiting(flows, *ticket).is_some());
        }
        Ok(ticket)
    }

    /// Takes back what [`Balancer::send`] counted.
    pub(super) fn unsend(&mut self, ticket: Ticket, inner_len: usize, reason: Unsent) {
        let (key, way) = ticket.place;
        if let Some(flow) = self.flows.flow(&key)
            && flow.lane_mut(way).forget(ticket.number).is_some()
        {
            self.unanswered -= 1;
        }
        self.turns.decided(ticket.number, Fate::Lost);
        self.counters.unsent(inner_len);
        self.counters.not_sent.count(reason);
    }

    /// Judges a UDP payload that came from `source` to our port 6081. What is right is to be handed on.
    pub(super) fn receive(&mut self, now: Instant, source: SocketAddrV4, payload: &[u8]) -> Option<Delivery> {
        self.last_reply = Some(now);
        match self.judge(now, source, payload) {
            Ok(delivery) => Some(delivery),
            Err((failure, text)) => {
                self.counters.failed(failure, || {
                    format!("from {source}, {} bytes: {text}", payload.len())
                });
                None
            }
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        source: SocketAddrV4,
        payload: &[u8],
    ) -> Result<Delivery, (Failure, Wrong)> {
        let appliance = self.setup.outer.destination;
        if *source.ip() != appliance {
            return Err((Failure::Unexpected, Wrong::Sender(appliance)));
        }
        let (header, inner_bytes) = Header::parse(payload, |_, _| false)
            .map_err(|error| (Failure::WrongHeader, Wrong::Geneve(error.describe())))?;
        let inner_bytes = inner_bytes.bytes;
        let (endpoint, cookie) = metadata(&header);
        let got = Label {
            cookie: cookie.unwrap_or_default(),
            port: source.port(),
        };
        let own = self
            .setup
            .endpoints
            .iter()
            .position(|each| Some(each.id) == endpoint);
        let reply = Reply {
            header: header.bytes(),
            inner: inner_bytes,
            got,
        };
        let Some(inner) = Inner::read(own.unwrap_or_default(), inner_bytes) else {
            return Err(self.not_ours(&reply));
        };
        let Some((place, pending)) = self.take(own, &inner, &reply) else {
            return self
                .made(&inner, &reply)
                .unwrap_or_else(|| Err(self.not_ours(&reply)));
        };
        self.check(place, pending.label, &inner, &reply)?;
        self.counters
            .returned(now.saturating_duration_since(pending.sent), pending.given_up);
        self.delivery(place, &reply)
            .ok_or((Failure::Unexpected, Wrong::NeverSent))
    }

    /// Finds and takes out the sent packet with the bytes of the reply: of the endpoint that its header names, or, so
    /// that a swapped endpoint is seen, of any other.
    fn take(&mut self, own: Option<usize>, inner: &Inner, reply: &Reply<'_>) -> Option<(Place, Pending)> {
        let hash = self.flows.hash(reply.inner);
        let others = (0..self.setup.endpoints.len()).filter(|pair| Some(*pair) != own);
        let (key, way) = inner.place;
        for pair in own.into_iter().chain(others) {
            let key = FlowKey { pair, ..key };
            let Some(lane) = self.flows.flow(&key).map(|flow| flow.lane_mut(way)) else {
                continue;
            };
            if let Some(pending) = lane.take(hash, reply.got, self.number) {
                if !pending.given_up {
                    self.unanswered -= 1;
                }
                if !self.turns.is_empty() {
                    // What was sent before it from its port was decided before it.
                    let mut before = lane.before(&pending);
                    while before
                        .next()
                        .is_some_and(|number| self.turns.decided(number, Fate::Lost))
                    {}
                    self.turns.decided(pending.number, Fate::Returned);
                }
                return Some(((key, way), pending));
            }
        }
        None
    }

    /// Whether the reply's header and port are those of this place with this label.
    fn check(
        &self,
        (key, _): Place,
        sent: Label,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Result<(), (Failure, Wrong)> {
        let expected = self
            .setup
            .endpoints
            .get(key.pair)
            .map(|endpoint| geneve_header(*endpoint, sent.cookie, inner.protocol));
        let same_header = expected.is_some_and(|expected| expected == *reply.header);
        if same_header && reply.got.port == sent.port {
            return Ok(());
        }
        let got = reply.got;
        Err((
            Failure::WrongHeader,
            Wrong::Label {
                sent,
                got,
                same_header,
            },
        ))
    }

    /// Judges a packet that was never sent as one that the appliance made: `None` if it is of no kind that it makes, or
    /// of no flow.
    fn made(&mut self, inner: &Inner, reply: &Reply<'_>) -> Option<Result<Delivery, (Failure, Wrong)>> {
        let place = match inner.kind {
            Kind::Tcp { rst: true, .. } => inner.place,
            Kind::Tcp { challenges: true, .. } => return self.challenge(inner, reply),
            Kind::IcmpError(Some((quoted, way))) => (quoted, way.back()),
            _ => return None,
        };
        let (key, way) = place;
        let flow = self.flows.flow(&key)?;
        let made = flow.made(way, reply.got);
        let may = made.is_some();
        let is_rst = matches!(inner.kind, Kind::Tcp { .. });
        if is_rst && may {
            flow.reset();
        }
        let label = if may { reply.got } else { flow.lane(way).label };
        if let Err(wrong) = self.check(place, label, inner, reply) {
            return Some(Err(wrong));
        }
        if is_rst {
            self.counters.made_rst += 1;
        } else {
            self.counters.made_icmp += 1;
        }
        self.counters.other_header += u64::from(made == Some(Made::Anew));
        self.delivery(place, reply).map(Ok)
    }

    /// Judges a SYN-ACK that was never sent as a challenge: it goes back in the header of the SYN
    /// that it answers.
    fn challenge(&mut self, inner: &Inner, reply: &Reply<'_>) -> Option<Result<Delivery, (Failure, Wrong)>> {
        let (key, way) = inner.place;
        let flow = self.flows.flow(&key)?;
        let label = if flow.challenged(way, reply.got) {
            reply.got
        } else {
            flow.lane(way.back()).label
        };
        if let Err(wrong) = self.check(inner.place, label, inner, reply) {
            return Some(Err(wrong));
        }
        self.counters.made_challenges += 1;
        self.delivery(inner.place, reply).map(Ok)
    }

    fn delivery(&mut self, (key, way): Place, reply: &Reply<'_>) -> Option<Delivery> {
        let side = self.flows.flow(&key)?.exit(way)?;
        Some(Delivery {
            pair: key.pair,
            side,
            inner_at: reply.header.len(),
        })
    }

    /// A reply that was not sent with these bytes: altered, if its header is one that waits for a reply.
    fn not_ours(&mut self, reply: &Reply<'_>) -> (Failure, Wrong) {
        let altered = self.flows.labelled(reply.got).and_then(|(key, way)| {
            let lane = self.flows.flow(&key)?.lane_mut(way);
            lane.take_altered(reply.inner.len(), reply.got)
        });
        match altered {
            Some(pending) => {
                self.unanswered -= 1;
                self.turns.decided(pending.number, Fate::Returned);
                let (sent, got) = (pending.len, reply.inner.len());
                (Failure::WrongBytes, Wrong::Bytes { sent, got })
            }
            None => (Failure::Unexpected, Wrong::NeverSent),
        }
    }

    /// Gives up what has been unanswered for the time-out.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((ticket, sent)) = self.order.front().copied() {
            let due = now.saturating_duration_since(sent) >= self.setup.timeout;
            match waiting(&mut self.flows, ticket) {
                Some(_) if !due => break,
                Some(pending) => {
                    pending.given_up = true;
                    self.unanswered -= 1;
                    self.turns.decided(ticket.number, Fate::Lost);
                    self.counters.dropped += 1;
                    self.late.push_back((ticket, sent));
                }
                None => {}
            }
            self.order.pop_front();
        }
        while let Some((ticket, sent)) = self.late.front().copied() {
            let old = now.saturating_duration_since(sent) >= self.setup.timeout + LATE;
            if !old && self.late.len() <= MAX_LATE {
                break;
            }
            let (key, way) = ticket.place;
            if let Some(flow) = self.flows.flow(&key) {
                flow.lane_mut(way).forget(ticket.number);
            }
            self.late.pop_front();
        }
    }
}

/// The packet of a ticket, if it is neither answered nor given up.
fn waiting(flows: &mut FlowTable, ticket: Ticket) -> Option<&mut Pending> {
    let (key, way) = ticket.place;
    let pending = flows.flow(&key)?.lane_mut(way).pending(ticket.number)?;
    (!pending.given_up).then_some(pending)
}

/// A reply, taken apart.
struct Reply<'a> {
    header: &'a [u8],
    inner: &'a [u8],
    got: Label,
}

/// What is wrong with a reply, in words.
enum Wrong {
    Sender(Ipv4Addr),
    Geneve(&'static str),
    Label {
        sent: Label,
        got: Label,
        same_header: bool,
    },
    Bytes {
        sent: usize,
        got: usize,
    },
    NeverSent,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender(appliance) => write!(f, "the sender is not the appliance, {appliance}"),
            Self::Geneve(text) => f.write_str(text),
            Self::Label { sent, got, .. } if sent.cookie != got.cookie => write!(
                f,
                "flow cookie {:08x} in place of {:08x}",
                got.cookie, sent.cookie
            ),
            Self::Label {
                sent,
                got,
                same_header: true,
            } => write!(
                f,
                "source port {} in place of {}; the destination port is {PORT}",
                got.port, sent.port
            ),
            Self::Label { .. } => f.write_str("the GENEVE header is not byte for byte the one that was sent"),
            Self::Bytes { sent, got } => write!(
                f,
                "{got} inner bytes that are not the {sent} bytes sent under this header"
            ),
            Self::NeverSent => f.write_str("never sent, answered twice, or of a flow that is not known"),
        }
    }
}
