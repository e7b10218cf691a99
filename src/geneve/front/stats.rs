//! Counters: one for each outcome of a datagram.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ends::Known;
use crate::geneve::{EndpointId, GeneveError, MetadataError};
use crate::verdict::DropReason;

/// The reason for which the front end itself sends nothing for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The datagram cannot be decapsulated.
    Geneve(GeneveError),
    /// The metadata is invalid or incomplete.
    Metadata(MetadataError),
    /// The datagram comes from an address that is not in `geneve.sources`.
    Source,
    /// The datagram comes from its own destination address, or from another local address: the
    /// answer would return to this appliance.
    OwnSource,
    /// The datagram's local destination address is unknown or a group. No answer can leave from
    /// there.
    NoDestination,
    /// The datagram has waited too long and was not read; see [`Waited`](super::Waited).
    QueueDelay,
    /// The endpoint is not in `geneve.endpoints`, and unknown endpoints are refused.
    Endpoint,
    /// The tunnel carries an Ethernet frame.
    Ethernet,
    /// The inner packet, padding included, is longer than `geneve.inner_mtu`, and its sender gets
    /// no ICMP error. The packet may be fragmented, must not be answered by an ICMP error, or too
    /// many errors were sent.
    TooLarge,
}

/// The refusals that carry no other reason.
const PLAIN: [Refusal; 7] = [
    Refusal::Source,
    Refusal::OwnSource,
    Refusal::NoDestination,
    Refusal::QueueDelay,
    Refusal::Endpoint,
    Refusal::Ethernet,
    Refusal::TooLarge,
];

impl Refusal {
    /// The number of refusals.
    pub const COUNT: usize = GeneveError::ALL.len() + MetadataError::ALL.len() + PLAIN.len();

    /// Returns all refusals, in the order of [`Refusal::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        GeneveError::ALL
            .iter()
            .copied()
            .map(Self::Geneve)
            .chain(MetadataError::ALL.iter().copied().map(Self::Metadata))
            .chain(PLAIN)
    }

    /// Returns a number below [`Refusal::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        const BEFORE: usize = GeneveError::ALL.len() + MetadataError::ALL.len();
        match self {
            Self::Geneve(error) => error as usize,
            Self::Metadata(error) => GeneveError::ALL.len() + error as usize,
            Self::Source => BEFORE,
            Self::OwnSource => BEFORE + 1,
            Self::NoDestination => BEFORE + 2,
            Self::QueueDelay => BEFORE + 3,
            Self::Endpoint => BEFORE + 4,
            Self::Ethernet => BEFORE + 5,
            Self::TooLarge => BEFORE + 6,
        }
    }

    /// Returns the stable name: counter label and log key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Geneve(error) => error.name(),
            Self::Metadata(error) => error.name(),
            Self::Source => "source_refused",
            Self::OwnSource => "source_own",
            Self::NoDestination => "destination_unknown",
            Self::QueueDelay => "queue_delay",
            Self::Endpoint => "endpoint_refused",
            Self::Ethernet => "inner_ethernet",
            Self::TooLarge => "inner_too_large",
        }
    }

    /// Returns a description for operators, in one sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Geneve(error) => error.describe(),
            Self::Metadata(error) => error.describe(),
            Self::Source => "The datagram comes from an address that is not in geneve.sources.",
            Self::OwnSource => {
                "The datagram comes from one of the appliance's own addresses: the answer would \
                 return to the appliance."
            }
            Self::NoDestination => {
                "The datagram was sent to a broadcast address or a multicast group, or the system \
                 did not report its destination address, so no answer can be sent."
            }
            Self::QueueDelay => {
                "The datagram waited in the receive queue longer than run.queue_delay, and was not \
                 read."
            }
            Self::Endpoint => {
                "The datagram's endpoint is not in geneve.endpoints, and others are refused."
            }
            Self::Ethernet => "The tunnel carries an Ethernet frame, which has no session.",
            Self::TooLarge => {
                "The packet is longer than geneve.inner_mtu, and its sender gets no ICMP error: \
                 the packet may be fragmented, must not be answered by an ICMP error, or the \
                 budget of errors is used up."
            }
        }
    }
}

/// The reason for which nothing is sent for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// The front end refuses the datagram.
    Refused(Refusal),
    /// The engine drops the packet.
    Dropped(DropReason),
    /// The datagram is held until the first fragment of its datagram arrives.
    /// [`FrontEnd::next_released`](super::FrontEnd::next_released) returns its outcome.
    Held,
    /// The engine rejects the packet, but no reply can be made to it, or its sender has received as
    /// many as `[resets]` allows.
    Unanswered(DropReason),
}

impl NotSent {
    /// Returns the stable name of the reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.name(),
            Self::Held => "held",
            Self::Dropped(reason) | Self::Unanswered(reason) => reason.name(),
        }
    }
}

/// The outcome of a datagram, or of a RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outcome {
    Returned = 0,
    Rewritten = 1,
    Replied = 2,
    TooBig = 3,
    Dropped = 4,
    Unanswered = 5,
    Reset = 6,
    ResetLost = 7,
    Held = 8,
    Released = 9,
}

const OUTCOMES: usize = 10;

/// Packets and UDP payload bytes of an endpoint, received and sent.
#[derive(Debug, Default)]
struct Traffic {
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
}

/// The counters of one thread, the only one that changes them.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counters {
    outcomes: [AtomicU64; OUTCOMES],
    refused: [AtomicU64; Refusal::COUNT],
    /// The traffic by number of the endpoint.
    traffic: Box<[Traffic]>,
}

/// Adds to a counter that only one thread changes.
#[inline]
fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }
}

impl Counters {
    pub(super) fn new(max_endpoints: usize) -> Self {
        Self {
            outcomes: [const { AtomicU64::new(0) }; OUTCOMES],
            refused: [const { AtomicU64::new(0) }; Refusal::COUNT],
            traffic: (0..=max_endpoints).map(|_| Traffic::default()).collect(),
        }
    }

    #[inline]
    pub(super) fn received(&self, endpoint: u16, bytes: usize) {
        let traffic = self.traffic.get(usize::from(endpoint));
        add(traffic.map(|traffic| &traffic.received), 1);
        add(traffic.map(|traffic| &traffic.received_bytes), bytes as u64);
    }

    #[inline]
    pub(super) fn sent(&self, endpoint: u16, bytes: usize) {
        let traffic = self.traffic.get(usize::from(endpoint));
        add(traffic.map(|traffic| &traffic.sent), 1);
        add(traffic.map(|traffic| &traffic.sent_bytes), bytes as u64);
    }

    #[inline]
    pub(super) fn count(&self, outcome: Outcome) {
        add(self.outcomes.get(outcome as usize), 1);
    }

    pub(super) fn not_sent(&self, reason: NotSent) {
        match reason {
            NotSent::Refused(refusal) => add(self.refused.get(refusal.index()), 1),
            NotSent::Held => self.count(Outcome::Held),
            NotSent::Dropped(_) => self.count(Outcome::Dropped),
            NotSent::Unanswered(_) => self.count(Outcome::Unanswered),
        }
    }
}

/// Traffic of an endpoint. Packets are datagrams; bytes are those of their UDP payload, GENEVE
/// header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EndpointStats {
    /// The endpoint; `None` for all traffic without an entry of its own. These are datagrams that
    /// name no endpoint, are invalid or were not read, and endpoints above `geneve.max_endpoints`.
    /// A refused endpoint has an entry, so that operators can find it.
    pub id: Option<EndpointId>,
    /// Packets received.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets to send, both returned ones and those of the engine's own.
    pub sent: u64,
    /// Bytes to send.
    pub sent_bytes: u64,
}

/// A snapshot of the counters.
///
/// Each datagram is in exactly one of `returned`, `rewritten`, `replied`, `told_too_big`,
/// `refused`, `dropped`, `unanswered` and `waiting`: they add up to `received`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrontStats {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams that are returned unchanged.
    pub returned: u64,
    /// SYNs that are returned with a smaller MSS.
    pub rewritten: u64,
    /// Datagrams that are rejected, with a RST or ICMP error to send.
    pub replied: u64,
    /// Datagrams that are too large to return, with an ICMP error to send that reports it.
    pub told_too_big: u64,
    /// Datagrams that the front end refuses, by reason, including reasons that never occurred.
    pub refused: Vec<(Refusal, u64)>,
    /// Datagrams that the engine drops; [`Stats`](crate::Stats) has the reasons.
    pub dropped: u64,
    /// Datagrams that the engine rejects without a reply that could be sent.
    pub unanswered: u64,
    /// Datagrams that were held because the first fragment of their datagram had not arrived. They
    /// get another outcome later.
    pub held: u64,
    /// Held datagrams that still wait.
    pub waiting: u64,
    /// RSTs of [`FrontEnd::reset`](super::FrontEnd::reset).
    pub resets: u64,
    /// RSTs whose session's tunnel is unknown.
    pub resets_without_tunnel: u64,
    /// Traffic by endpoint, beginning with all traffic without an entry of its own.
    pub endpoints: Vec<EndpointStats>,
    /// Known tunnel endpoints.
    pub tunnel_ends: usize,
    /// Number of times that a tunnel endpoint found no room: no packets can be created for its
    /// sessions.
    pub tunnel_ends_refused: u64,
}

impl FrontStats {
    pub(super) fn sum(all: &[Arc<Counters>], known: &Known) -> Self {
        let sum = |of: &dyn Fn(&Counters) -> Option<&AtomicU64>| {
            all.iter()
                .filter_map(|counters| of(counters))
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        let outcome = |outcome: Outcome| sum(&|counters| counters.outcomes.get(outcome as usize));
        let traffic = |number: usize, id| EndpointStats {
            id,
            received: sum(&|counters| counters.traffic.get(number).map(|each| &each.received)),
            received_bytes: sum(&|counters| {
                counters
                    .traffic
                    .get(number)
                    .map(|each| &each.received_bytes)
            }),
            sent: sum(&|counters| counters.traffic.get(number).map(|each| &each.sent)),
            sent_bytes: sum(&|counters| counters.traffic.get(number).map(|each| &each.sent_bytes)),
        };
        let named = known
            .endpoints()
            .enumerate()
            .map(|(place, id)| traffic(place + 1, Some(id)));
        let endpoints: Vec<_> = std::iter::once(traffic(0, None)).chain(named).collect();
        Self {
            received: endpoints.iter().map(|endpoint| endpoint.received).sum(),
            returned: outcome(Outcome::Returned),
            rewritten: outcome(Outcome::Rewritten),
            replied: outcome(Outcome::Replied),
            told_too_big: outcome(Outcome::TooBig),
            refused: Refusal::all()
                .map(|refusal| {
                    (
                        refusal,
                        sum(&|counters| counters.refused.get(refusal.index())),
                    )
                })
                .collect(),
            dropped: outcome(Outcome::Dropped),
            unanswered: outcome(Outcome::Unanswered),
            held: outcome(Outcome::Held),
            waiting: outcome(Outcome::Held).saturating_sub(outcome(Outcome::Released)),
            resets: outcome(Outcome::Reset),
            resets_without_tunnel: outcome(Outcome::ResetLost),
            endpoints,
            tunnel_ends: known.ends(),
            tunnel_ends_refused: known.refused(),
        }
    }

    /// Returns the count of one refusal.
    #[must_use]
    pub fn refused_by(&self, refusal: Refusal) -> u64 {
        self.refused
            .iter()
            .find(|(each, _)| *each == refusal)
            .map_or(0, |(_, count)| *count)
    }

    /// Returns the number of datagrams with an outcome: all received ones except those that are
    /// held now.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        let refused: u64 = self.refused.iter().map(|(_, count)| count).sum();
        self.returned
            + self.rewritten
            + self.replied
            + self.told_too_big
            + refused
            + self.dropped
            + self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_refusal_has_its_own_name_and_counter() {
        let names: HashSet<_> = Refusal::all().map(Refusal::name).collect();
        assert_eq!(names.len(), Refusal::COUNT);
        for (index, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal.index(), index);
            assert!(!refusal.describe().is_empty());
        }
    }
}
