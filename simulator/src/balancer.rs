//! The load balancer without its sockets: inner packets in, datagrams out. [`super::judge`] compares
//! the replies with them.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::flow::{Departure, FlowSettings, FlowTable, Pending, Refused, Side};
use super::inner::{Inner, Kind, Place};
use super::report::{Counters, Observed};
use super::targets::{GroupSettings, TargetGroup, TargetReport};
use super::tunnel::{Endpoint, MAX_INNER, Outer, geneve_header};
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
    /// Its TCP flow was silent for too long, and it is not a SYN.
    Idle,
    /// No target is registered.
    NoTarget,
    /// The system refused to send it.
    Refused,
}

impl From<Refused> for Unsent {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TableFull => Self::FlowTableFull,
            Refused::Backlog => Self::Backlog,
            Refused::Idle => Self::Idle,
            Refused::NoTarget => Self::NoTarget,
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
    /// Address of the target.
    pub(super) destination: Ipv4Addr,
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
    /// Our address.
    pub(super) local: Ipv4Addr,
    /// Whether to fill in the outer UDP checksum.
    pub(super) udp_checksum: bool,
    /// The endpoints, one for each pair.
    pub(super) endpoints: Vec<Endpoint>,
    /// When an unanswered packet is given up.
    pub(super) timeout: Duration,
    /// The flows.
    pub(super) flows: FlowSettings,
    /// The targets.
    pub(super) group: GroupSettings,
}

/// The balancer.
pub(super) struct Balancer {
    pub(super) setup: Setup,
    pub(super) flows: FlowTable,
    /// The targets.
    pub(super) targets: TargetGroup,
    /// All packets that may still wait, in the order of sending. The answered ones are among them.
    order: VecDeque<(Ticket, Instant)>,
    /// Packets that were given up.
    late: VecDeque<(Ticket, Instant)>,
    pub(super) unanswered: usize,
    pub(super) number: u64,
    pub(super) last_reply: Option<Instant>,
    /// The order of packets that are sent in turn.
    pub(super) turns: Turns,
    /// What was seen.
    pub(super) counters: Counters,
}

impl Balancer {
    /// A balancer without flows; `hasher` makes cookies and tells packets apart.
    pub(super) fn new(setup: Setup, hasher: RandomState) -> Self {
        Self {
            turns: Turns::new(hasher.clone(), setup.timeout),
            flows: FlowTable::new(setup.flows, hasher.clone()),
            targets: TargetGroup::new(setup.group.clone(), hasher),
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
        let each = if self.setup.flows.cookie_per_direction {
            2
        } else {
            1
        };
        (self.flows.len(), self.flows.epochs * each)
    }

    /// Returns the figures of each target.
    pub(super) fn target_reports(&mut self, now: Instant) -> Vec<TargetReport> {
        self.targets.advance(now);
        self.targets.report(self.flows.live_targets(now))
    }

    /// Returns what the report of a run is made of.
    pub(super) fn observed(&mut self, now: Instant) -> Observed {
        let (flows, cookies) = self.flows();
        Observed {
            flows,
            cookies,
            overtaken: self.overtaken(),
            targets: self.target_reports(now),
        }
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
        let departure = Departure {
            inner: &inner,
            bytes,
            side,
            number: self.number,
            now,
        };
        let targets = &mut self.targets;
        let route = |current| targets.route(now, &inner.place.0, current);
        let (label, target) = self.flows.note(departure, route)?;
        let address = self.targets.address(target).ok_or(Unsent::NoTarget)?;
        let geneve = geneve_header(*endpoint, label.cookie, inner.protocol);
        let outer = Outer {
            source: self.setup.local,
            destination: *address.ip(),
            destination_port: address.port(),
            udp_checksum: self.setup.udp_checksum,
        };
        outer.write(label.port, &geneve, bytes, out);
        self.targets.count(target, |counters| {
            counters.sent += 1;
            counters.sent_bytes += bytes.len() as u64;
        });
        let ticket = Ticket {
            place: inner.place,
            number: self.number,
            destination: outer.destination,
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
            && let Some(pending) = flow.lane_mut(way).forget(ticket.number)
        {
            self.unanswered -= 1;
            self.targets.count(pending.target, |counters| {
                counters.sent -= 1;
                counters.sent_bytes -= inner_len as u64;
            });
        }
        self.turns.decided(ticket.number, Fate::Lost);
        self.counters.unsent(inner_len);
        self.counters.not_sent.count(reason);
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
                    self.targets
                        .count(pending.target, |counters| counters.dropped += 1);
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
