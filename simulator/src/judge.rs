//! Evaluation of replies: each is compared with the packet that it answers.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use portcullis::geneve::{Header, PORT};

use super::balancer::{Balancer, Delivery};
use super::flow::{Answer, Made, Pending};
use super::inner::{FlowDirection, FlowKey, Inner, Kind};
use super::report::Failure;
use super::targets::TargetId;
use super::tunnel::{Label, geneve_header, metadata};
use super::turns::Fate;

impl Balancer {
    /// Judges a UDP payload that came from `source` to port 6081. Returns a correct reply, which
    /// the caller forwards.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddrV4,
        payload: &[u8],
    ) -> Option<Delivery> {
        self.last_reply = Some(now);
        match self.judge(now, source, payload) {
            Ok(delivery) => Some(delivery),
            Err((failure, text)) => {
                if let Some(target) = self.targets.find(*source.ip()) {
                    self.targets.count(target, |counters| counters.wrong += 1);
                }
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
        let Some(from) = self.targets.find(*source.ip()) else {
            return Err((Failure::Unexpected, Wrong::Sender));
        };
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
            answer: Answer {
                hash: self.flows.hash(inner_bytes),
                label: got,
                from,
                latest: self.number,
            },
        };
        let Some(inner) = Inner::read(own.unwrap_or_default(), inner_bytes) else {
            return Err(self.not_ours(&reply));
        };
        let Some((place, pending)) = self.take(own, &inner, &reply) else {
            if let Some(made) = self.made(&inner, &reply) {
                return made;
            }
            return Err(match self.sent_elsewhere(own, &inner, &reply) {
                Some(target) => (Failure::WrongTarget, Wrong::Target(target)),
                None => self.not_ours(&reply),
            });
        };
        self.check(place, pending.label, &inner, &reply)?;
        self.counters.returned(
            now.saturating_duration_since(pending.sent),
            pending.given_up,
        );
        self.targets.count(from, |counters| {
            counters.returned += 1;
            counters.dropped -= u64::from(pending.given_up);
        });
        self.delivery(place, &reply)
            .ok_or((Failure::Unexpected, Wrong::NeverSent))
    }

    /// Removes and returns the sent packet that has the reply's bytes. The endpoint in the reply's
    /// header is searched first, then all others, so that a swapped endpoint is detected.
    fn take(
        &mut self,
        own: Option<usize>,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Option<(FlowDirection, Pending)> {
        let others = (0..self.setup.endpoints.len()).filter(|pair| Some(*pair) != own);
        let FlowDirection { key, way } = inner.place;
        for pair in own.into_iter().chain(others) {
            let key = FlowKey { pair, ..key };
            let Some(lane) = self.flows.flow(&key).map(|flow| flow.lane_mut(way)) else {
                continue;
            };
            if let Some(pending) = lane.take(reply.answer) {
                if !pending.given_up {
                    self.unanswered -= 1;
                }
                if !self.turns.is_empty() {
                    // Earlier packets from the same port were decided before this one.
                    let mut before = lane.before(&pending);
                    while before
                        .next()
                        .is_some_and(|number| self.turns.decided(number, Fate::Lost))
                    {
                    }
                    self.turns.decided(pending.number, Fate::Returned);
                }
                return Some((FlowDirection { key, way }, pending));
            }
        }
        None
    }

    /// Finds the target of a packet with the bytes of the reply, if that target is another one than
    /// the sender of the reply.
    fn sent_elsewhere(
        &mut self,
        own: Option<usize>,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Option<Ipv4Addr> {
        let FlowDirection { key, way } = inner.place;
        let pair = own?;
        let lane = self.flows.flow(&FlowKey { pair, ..key })?.lane(way);
        let target = lane.sent_elsewhere(reply.answer)?;
        self.targets.address(target).map(|address| *address.ip())
    }

    /// Returns the failure of a packet that a target made, if its flow has another target.
    fn wrong_maker(&self, of: bool, current: TargetId) -> Result<(), (Failure, Wrong)> {
        match self.targets.address(current) {
            Some(address) if !of => Err((Failure::WrongTarget, Wrong::Target(*address.ip()))),
            _ => Ok(()),
        }
    }

    /// Checks that the reply has the header and port of a place with a label.
    fn check(
        &self,
        place: FlowDirection,
        sent: Label,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Result<(), (Failure, Wrong)> {
        let expected = self
            .setup
            .endpoints
            .get(place.key.pair)
            .map(|endpoint| geneve_header(*endpoint, sent.cookie, inner.protocol));
        let same_header = expected.is_some_and(|expected| expected == *reply.header);
        if same_header && reply.answer.label.port == sent.port {
            return Ok(());
        }
        let got = reply.answer.label;
        Err((
            Failure::WrongHeader,
            Wrong::Label {
                sent,
                got,
                same_header,
            },
        ))
    }

    /// Judges a packet that was never sent as one that the appliance made. Returns `None` if the
    /// appliance makes no such packets, or if the flow is unknown.
    fn made(
        &mut self,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Option<Result<Delivery, (Failure, Wrong)>> {
        let place = match inner.kind {
            Kind::Tcp { rst: true, .. } => inner.place,
            Kind::Tcp {
                challenges: true, ..
            } => return self.challenge(inner, reply),
            Kind::IcmpError(Some(quoted)) => quoted.back(),
            _ => return None,
        };
        let FlowDirection { key, way } = place;
        let flow = self.flows.flow(&key)?;
        let (of, current) = (flow.is_of(reply.answer.from), flow.target());
        if let Err(wrong) = self.wrong_maker(of, current) {
            return Some(Err(wrong));
        }
        let flow = self.flows.flow(&key)?;
        let made = flow.made(way, reply.answer.label);
        let may = made.is_some();
        let is_rst = matches!(inner.kind, Kind::Tcp { .. });
        if is_rst && may {
            flow.reset();
        }
        let label = if may {
            reply.answer.label
        } else {
            flow.lane(way).label
        };
        if let Err(wrong) = self.check(place, label, inner, reply) {
            return Some(Err(wrong));
        }
        if is_rst {
            self.counters.made_rst += 1;
        } else {
            self.counters.made_icmp += 1;
        }
        self.counters.other_header += u64::from(made == Some(Made::Anew));
        self.targets
            .count(reply.answer.from, |counters| counters.made += 1);
        self.delivery(place, reply).map(Ok)
    }

    /// Judges a SYN-ACK that was never sent as a challenge. It must carry the header of the SYN
    /// that it answers.
    fn challenge(
        &mut self,
        inner: &Inner,
        reply: &Reply<'_>,
    ) -> Option<Result<Delivery, (Failure, Wrong)>> {
        let FlowDirection { key, way } = inner.place;
        let flow = self.flows.flow(&key)?;
        let (of, current) = (flow.is_of(reply.answer.from), flow.target());
        if let Err(wrong) = self.wrong_maker(of, current) {
            return Some(Err(wrong));
        }
        let flow = self.flows.flow(&key)?;
        let label = if flow.challenged(way, reply.answer.label) {
            reply.answer.label
        } else {
            flow.lane(way.back()).label
        };
        if let Err(wrong) = self.check(inner.place, label, inner, reply) {
            return Some(Err(wrong));
        }
        self.counters.made_challenges += 1;
        self.targets
            .count(reply.answer.from, |counters| counters.made += 1);
        self.delivery(inner.place, reply).map(Ok)
    }

    fn delivery(&mut self, place: FlowDirection, reply: &Reply<'_>) -> Option<Delivery> {
        let FlowDirection { key, way } = place;
        let side = self.flows.flow(&key)?.exit(way)?;
        Some(Delivery {
            pair: key.pair,
            side,
            inner_at: reply.header.len(),
        })
    }

    /// Returns the failure of a reply whose bytes were never sent: altered if a packet with its
    /// header waits for a reply, unexpected otherwise.
    fn not_ours(&mut self, reply: &Reply<'_>) -> (Failure, Wrong) {
        let altered =
            self.flows
                .labeled(reply.answer.label)
                .and_then(|FlowDirection { key, way }| {
                    let lane = self.flows.flow(&key)?.lane_mut(way);
                    lane.take_altered(reply.inner.len(), reply.answer)
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
}

/// A parsed reply.
struct Reply<'a> {
    header: &'a [u8],
    inner: &'a [u8],
    answer: Answer,
}

/// Description of a wrong reply.
enum Wrong {
    Sender,
    Target(Ipv4Addr),
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
            Self::Sender => f.write_str("the sender is not a target"),
            Self::Target(target) => write!(f, "the packets of this flow were sent to {target}"),
            Self::Geneve(text) => f.write_str(text),
            Self::Label { sent, got, .. } if sent.cookie != got.cookie => {
                write!(
                    f,
                    "flow cookie {:08x} instead of {:08x}",
                    got.cookie, sent.cookie
                )
            }
            Self::Label {
                sent,
                got,
                same_header: true,
            } => write!(
                f,
                "source port {} instead of {}; the destination port is {PORT}",
                got.port, sent.port
            ),
            Self::Label { .. } => {
                f.write_str("the GENEVE header differs from the one that was sent")
            }
            Self::Bytes { sent, got } => write!(
                f,
                "{got} inner bytes differ from the {sent} bytes sent under this header"
            ),
            Self::NeverSent => f.write_str("never sent, answered twice, or of an unknown flow"),
        }
    }
}
