//! The load balancer without sockets: inner packets in, datagrams out. [`super::judge`] compares
//! the replies with them.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::flow::{Departure, FlowSettings, FlowTable, Pending, Refused, Side};
use super::inner::{FlowDirection, Inner, Kind};
use super::report::{Counters, Observed, Unsent};
use super::targets::{GroupSettings, TargetGroup, TargetReport};
use super::tunnel::{Endpoint, MAX_INNER, Outer, geneve_header};
use super::turns::{Fate, Turn, Turns};

/// Maximum number of unanswered packets; at this number, nothing is sent.
pub(super) const MAX_UNANSWERED: usize = 65_536;
/// Maximum number of packets that timed out and whose late return is recognized.
const MAX_LATE: usize = 65_536;
/// Time for which the late return of a packet is recognized after its time-out.
const LATE: Duration = Duration::from_secs(10);

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

/// Decision about a packet in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// The packet is sent now. It has a turn if it belongs to a flow.
    Now(Option<Turn>),
    /// The packet is kept for later.
    Kept,
}

/// Identifies a packet until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    place: FlowDirection,
    number: u64,
    /// Address of the target.
    pub(super) destination: Ipv4Addr,
}

/// A correct reply to forward; the inner packet is `payload[inner_at..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The index of the pair.
    pub(super) pair: usize,
    /// End of the pair through which the packet leaves.
    pub(super) side: Side,
    /// Offset of the inner packet in the UDP payload.
    pub(super) inner_at: usize,
}

/// Settings of a balancer.
pub(super) struct Setup {
    /// Our address.
    pub(super) local: Ipv4Addr,
    /// Whether to fill in the outer UDP checksum.
    pub(super) udp_checksum: bool,
    /// The endpoints, one for each pair.
    pub(super) endpoints: Vec<Endpoint>,
    /// Time after which an unanswered packet counts as dropped.
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
    /// Packets in the order of sending, including answered ones that have not been removed yet.
    order: VecDeque<(Ticket, Instant)>,
    /// Packets that timed out and may still return.
    late: VecDeque<(Ticket, Instant)>,
    pub(super) unanswered: usize,
    pub(super) number: u64,
    pub(super) last_reply: Option<Instant>,
    /// The order of packets that are sent in turn.
    pub(super) turns: Turns,
    /// Counters of the run.
    pub(super) counters: Counters,
}

impl Balancer {
    /// Returns a balancer without flows and targets. `hasher` creates cookies, identifies packets
    /// and distributes flows.
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

    /// Returns the number of unanswered packets.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Returns the time of the last reply, correct or wrong.
    pub(super) const fn last_reply(&self) -> Option<Instant> {
        self.last_reply
    }

    /// Returns the number of flows, and the number of cookies so far: two per flow if each
    /// direction has its own.
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

    /// Returns the part of a report that the balancer does not count.
    pub(super) fn observed(&mut self, now: Instant) -> Observed {
        let (flows, cookies) = self.flows();
        Observed {
            flows,
            cookies,
            overtaken: self.overtaken(),
            targets: self.target_reports(now),
        }
    }

    /// Decides whether a packet is sent now. Otherwise the packet is kept, and
    /// [`Balancer::next_in_turn`] returns it later.
    pub(super) fn offer(&mut self, now: Instant, pair: usize, bytes: &[u8]) -> Offer {
        let Some(inner) = Inner::read(pair, bytes) else {
            return Offer::Now(None);
        };
        let place = match inner.kind {
            Kind::IcmpError(Some(quoted)) => quoted.back(),
            _ => inner.place,
        };
        let syn = matches!(inner.kind, Kind::Tcp { opens: true, .. });
        match self.turns.offer(now, place, syn, bytes) {
            Some(turn) => Offer::Now(Some(turn)),
            None => Offer::Kept,
        }
    }

    /// Returns a kept packet whose turn has come.
    pub(super) fn next_in_turn(&mut self, now: Instant) -> Option<(Turn, Vec<u8>)> {
        self.turns.next(now)
    }

    /// Returns the number of kept packets, and whether no more can be kept.
    pub(super) const fn kept(&self) -> (usize, bool) {
        (self.turns.held(), self.turns.is_full())
    }

    /// Returns whether no state of kept packets remains.
    #[cfg(test)]
    pub(super) fn nothing_waits(&self) -> bool {
        self.turns.is_at_rest()
    }

    /// Returns the number of packets that returned after later packets had been sent out of turn.
    pub(super) const fn overtaken(&self) -> u64 {
        self.turns.overtaken()
    }

    /// Sends a packet whose turn has come; otherwise like [`Balancer::send`].
    ///
    /// # Errors
    /// Returns the errors of [`Balancer::send`].
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

    /// Encapsulates an inner packet that entered at this side of the pair, and writes the whole
    /// outer packet to `out`. The packet counts as sent; [`Balancer::unsend`] reverts that.
    ///
    /// # Errors
    /// Returns an error if the packet cannot be sent; the reason has been counted.
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
        let route = |current| targets.route(now, &inner.place.key, current);
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
            self.order
                .retain(|(ticket, _)| waiting(flows, *ticket).is_some());
        }
        Ok(ticket)
    }

    /// Reverts the counts of [`Balancer::send`] for a packet that the system did not send.
    pub(super) fn unsend(&mut self, ticket: Ticket, inner_len: usize, reason: Unsent) {
        let FlowDirection { key, way } = ticket.place;
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

    /// Counts packets that were unanswered for the time-out as dropped.
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
            let FlowDirection { key, way } = ticket.place;
            if let Some(flow) = self.flows.flow(&key) {
                flow.lane_mut(way).forget(ticket.number);
            }
            self.late.pop_front();
        }
    }
}

/// Returns a ticket's packet unless it is answered or timed out.
fn waiting(flows: &mut FlowTable, ticket: Ticket) -> Option<&mut Pending> {
    let FlowDirection { key, way } = ticket.place;
    let pending = flows.flow(&key)?.lane_mut(way).pending(ticket.number)?;
    (!pending.given_up).then_some(pending)
}
