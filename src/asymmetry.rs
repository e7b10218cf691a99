//! Evidence of one-way conversations, and the report on them.
//!
//! Only a packet that shows the receipt of data that never passed here proves that the other
//! direction takes another path. Examples: the receiver of a SYN answers it, an end acknowledges a
//! SYN-ACK or data, or a sender exceeds the window that it was offered. A retransmission proves
//! nothing. The answer to a packet that this firewall dropped, or that passed before a restart,
//! proves nothing either.
//!
//! Each piece of [`Evidence`] makes its conversation a *suspect*, and states whether it is a proof.
//! A line of the report needs a proof, and the absence of the other direction for a while
//! ([`AsymmetryConfig::packets`], [`AsymmetryConfig::time`]). Two kinds of evidence need neither: a
//! session in another zone, and a packet of a session that has ended here.
//!
//! The report has one line for each zone, pair of prefixes and kind, so a thousand connections over
//! one wrong route make one line. The numbers of suspects and lines are bounded; those that find no
//! room are counted.

use core::fmt;
use core::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::AsymmetryConfig;
use crate::flow::{Direction, End, FlowKey, Zone};
use crate::limits::share::ZoneShares;
use crate::packet::SeqNum;
use crate::reserve::{NoMemory, Purpose};

mod suspect;

use suspect::{Change, Proof, Suspect};

/// Evidence that one direction of a conversation is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Evidence {
    /// A SYN-ACK arrived whose SYN did not pass here.
    SynAckWithoutSyn,
    /// The initiator completed a handshake whose SYN-ACK did not pass here.
    AckWithoutSynAck,
    /// One end acknowledged data that did not pass here.
    UnseenDataAcknowledged,
    /// Only packets of one direction continued to arrive.
    OneDirectionOnly,
    /// The session of the conversation is in another zone.
    OtherZone,
    /// Both directions pass, but the beginning of the conversation did not.
    BeginningUnseen,
    /// The session has ended here, but the ends continue to send.
    AfterEnd,
}

impl Evidence {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::SynAckWithoutSyn,
        Self::AckWithoutSynAck,
        Self::UnseenDataAcknowledged,
        Self::OneDirectionOnly,
        Self::OtherZone,
        Self::BeginningUnseen,
        Self::AfterEnd,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynAckWithoutSyn => "syn_ack_without_syn",
            Self::AckWithoutSynAck => "ack_without_syn_ack",
            Self::UnseenDataAcknowledged => "unseen_data_acknowledged",
            Self::OneDirectionOnly => "one_direction_only",
            Self::OtherZone => "other_zone",
            Self::BeginningUnseen => "beginning_unseen",
            Self::AfterEnd => "after_end",
        }
    }

    /// Returns the likely cause.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::SynAckWithoutSyn
            | Self::AckWithoutSynAck
            | Self::UnseenDataAcknowledged
            | Self::OneDirectionOnly => Cause::RoutingAsymmetry,
            Self::OtherZone => Cause::ApplianceModeMissing,
            Self::BeginningUnseen => Cause::FlowMoved,
            Self::AfterEnd => Cause::ExpiredHereFirst,
        }
    }

    /// Returns whether one direction of the conversation is missing or arrives in the wrong place.
    #[must_use]
    pub const fn is_one_sided(self) -> bool {
        !matches!(self, Self::BeginningUnseen | Self::AfterEnd)
    }
}

/// Probable cause of an asymmetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The other direction is routed past this firewall.
    RoutingAsymmetry,
    /// A load balancer moved a live flow to this firewall.
    FlowMoved,
    /// The firewall's lifetime is shorter than the silence of the two ends.
    ExpiredHereFirst,
    /// The two directions arrive through different endpoints.
    ApplianceModeMissing,
}

impl Cause {
    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoutingAsymmetry => "routing_asymmetry",
            Self::FlowMoved => "flow_moved",
            Self::ExpiredHereFirst => "expired_here_first",
            Self::ApplianceModeMissing => "appliance_mode_missing",
        }
    }

    /// Returns a description of the cause, with the remedy.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::RoutingAsymmetry => {
                "routing asymmetry: the other direction takes a path around this firewall"
            }
            Self::FlowMoved => {
                "a load balancer moved live flows here, or they began before the start: see \
                 tcp.midstream and tcp.failover"
            }
            Self::ExpiredHereFirst => {
                "the session ended here first: the ends are idle for longer than its lifetime"
            }
            Self::ApplianceModeMissing => {
                "appliance mode is missing between endpoints, or they share an address space and \
                 belong in a zone group"
            }
        }
    }
}

/// A line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AsymmetryLine {
    /// Zone of the packets.
    pub zone: Zone,
    /// Zone of the session, if it differs.
    pub other_zone: Option<Zone>,
    /// Source prefix of the packets.
    pub from: IpNet,
    /// Destination prefix of the packets.
    pub to: IpNet,
    /// Evidence in the packets.
    pub evidence: Evidence,
    /// Number of conversations.
    pub flows: u64,
    /// Number of packets with this evidence.
    pub packets: u64,
    /// Time of the first of these packets.
    pub first: Instant,
    /// Time of the last of these packets.
    pub last: Instant,
}

impl AsymmetryLine {
    /// Returns the direction that is missing, as source and destination; `None` where both arrive.
    #[must_use]
    pub fn missing(&self) -> Option<(IpNet, IpNet)> {
        self.evidence.is_one_sided().then_some((self.to, self.from))
    }

    /// Returns the likely cause.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.evidence.cause()
    }
}

impl fmt::Display for AsymmetryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.evidence.name())?;
        if let Some((from, to)) = self.missing() {
            write!(f, ", missing {from} -> {to}")?;
        }
        let (flows, packets) = (self.flows, self.packets);
        write!(
            f,
            " ({flows} flows, {packets} packets): {}",
            self.cause().describe()
        )
    }
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AsymmetryReport {
    /// Lines of the report, those with the most packets first.
    pub lines: Vec<AsymmetryLine>,
    /// Packets without room for their line.
    pub unlisted: u64,
    /// Packets without room for their conversation among the suspects.
    pub unnoticed: u64,
}

/// Evidence of one packet about the missing direction of its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// No evidence: the packet may repeat or answer one that was dropped here or that passed
    /// before.
    Nothing,
    /// Proof: the sender has received data that never passed.
    Proof,
    /// The packet acknowledges data that never passed. A single packet may repeat an older one, or
    /// may have been in flight when the flow moved here. An acknowledgment that advances is a
    /// proof.
    Acknowledges {
        /// Acknowledgment number of the packet.
        ack: SeqNum,
        /// All of the connection has passed here so far, so no round trip is needed for a proof.
        first_hand: bool,
    },
}

/// A packet that is relevant to the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    pub(crate) key: FlowKey,
    /// The end that sent the packet.
    pub(crate) source: End,
    /// Evidence in the packet; `None` if it only shows that its direction arrives.
    pub(crate) evidence: Option<Evidence>,
    pub(crate) sign: Sign,
    /// For a packet with a session: the number of packets that the session has seen in the other
    /// direction.
    pub(crate) opposite: Option<u32>,
    pub(crate) other_zone: Option<Zone>,
    pub(crate) at: Instant,
}

/// Slots of one shard; the hash of a conversation selects its slot.
type SuspectSlots = Box<[Option<Suspect>]>;

/// Time for which a one-way connection that is only reported may be idle and still continue: the
/// default lifetime of an established connection.
const GOES_ON: Duration = Duration::from_secs(340);

/// Number of shards, each with its own lock, and of suspects in a shard.
const SHARDS: usize = 16;
const SUSPECTS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct LineKey {
    zone: Zone,
    other_zone: Option<Zone>,
    from: IpNet,
    to: IpNet,
    evidence: Evidence,
}

/// All state about one-sided conversations.
#[derive(Debug)]
pub(crate) struct Asymmetry {
    suspects: Box<[Mutex<SuspectSlots>]>,
    lines: DashMap<LineKey, AsymmetryLine, ahash::RandomState>,
    /// The slots of lines, by zone.
    places: ZoneShares,
    unlisted: AtomicU64,
    unnoticed: AtomicU64,
    hasher: ahash::RandomState,
}

impl Asymmetry {
    pub(crate) fn new(seed: [u64; 4]) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(b, d, a, c);
        let shard = || Purpose::Suspects.items(SUSPECTS, || None).map(Mutex::new);
        Ok(Self {
            suspects: Purpose::Suspects.try_items(SHARDS, shard)?,
            lines: DashMap::with_hasher(hasher.clone()),
            places: ZoneShares::new(AsymmetryConfig::default().max_entries, []),
            unlisted: AtomicU64::new(0),
            unnoticed: AtomicU64::new(0),
            hasher,
        })
    }

    /// Divides the lines of the report among the zones of a configuration.
    pub(crate) fn set_shares(&self, config: &AsymmetryConfig, zones: &[Zone]) {
        self.places.set(config.max_entries, zones.iter().copied());
    }

    /// Records a packet. No lock of the session table is held.
    pub(crate) fn see(&self, sighting: &Sighting, config: &AsymmetryConfig) {
        let change = match sighting.evidence {
            None => self.cleared(sighting),
            Some(evidence @ (Evidence::OtherZone | Evidence::AfterEnd)) => {
                let news = self.is_news(sighting, evidence);
                Change {
                    proved: Some(Proof {
                        evidence,
                        source: sighting.source,
                        packets: 1,
                        first: sighting.at,
                        last: sighting.at,
                        news,
                    }),
                    ..Change::default()
                }
            }
            Some(evidence) => self.suspect(sighting, evidence, config),
        };
        if let Some(wrong) = change.retracted {
            self.retract(sighting, wrong, config);
        }
        if let Some(proof) = change.proved {
            self.list(sighting, proof, config);
        }
    }

    /// Clears a suspect whose other direction has arrived.
    fn cleared(&self, sighting: &Sighting) -> Change {
        let retracted = self.place(&sighting.key, |place| {
            let suspect = place.filter(|suspect| {
                suspect.key == sighting.key && suspect.source != sighting.source
            })?;
            *place = None;
            suspect.listing()
        });
        Change {
            retracted: retracted.flatten(),
            proved: None,
        }
    }

    fn place<T>(&self, key: &FlowKey, with: impl FnOnce(&mut Option<Suspect>) -> T) -> Option<T> {
        let hash = self.hasher.hash_one(key) as usize;
        let mut shard = self.suspects.get(hash % SHARDS)?.lock();
        shard.get_mut(hash / SHARDS % SUSPECTS).map(with)
    }

    /// Returns whether the slot holds another conversation or other evidence, and stores this one.
    fn is_news(&self, sighting: &Sighting, evidence: Evidence) -> bool {
        let news = self.place(&sighting.key, |place| {
            let known = place
                .is_some_and(|suspect| suspect.key == sighting.key && suspect.evidence == evidence);
            if !known {
                *place = Some(Suspect::new(sighting, evidence));
            }
            !known
        });
        news.unwrap_or(true)
    }

    fn suspect(&self, sighting: &Sighting, evidence: Evidence, config: &AsymmetryConfig) -> Change {
        let noticed = self.place(&sighting.key, |place| match place {
            Some(suspect) if suspect.key == sighting.key => {
                Some(suspect.again(sighting, evidence, config))
            }
            Some(other) if !other.may_be_forgotten(sighting.at, config) => None,
            place => Some(Change {
                retracted: None,
                proved: place.insert(Suspect::new(sighting, evidence)).proof(config),
            }),
        });
        noticed.flatten().unwrap_or_else(|| {
            self.unnoticed.fetch_add(1, Ordering::Relaxed);
            Change::default()
        })
    }

    fn line_key(sighting: &Sighting, proof: &Proof, config: &AsymmetryConfig) -> LineKey {
        let key = &sighting.key;
        let prefix = |address: IpAddr| {
            let length = if address.is_ipv4() {
                config.prefix_v4
            } else {
                config.prefix_v6
            };
            IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
        };
        LineKey {
            zone: key.zone(),
            other_zone: sighting.other_zone,
            from: prefix(key.address(proof.source)),
            to: prefix(key.address(proof.source.opposite())),
            evidence: proof.evidence,
        }
    }

    /// Removes the contribution of a conversation from the report.
    fn retract(&self, sighting: &Sighting, wrong: Proof, config: &AsymmetryConfig) {
        let line_key = Self::line_key(sighting, &wrong, config);
        let removed = self.lines.remove_if_mut(&line_key, |_, line| {
            line.flows = line.flows.saturating_sub(1);
            line.packets = line.packets.saturating_sub(u64::from(wrong.packets));
            line.flows == 0
        });
        if removed.is_some() {
            self.places.release(line_key.zone);
        }
    }

    fn list(&self, sighting: &Sighting, proof: Proof, config: &AsymmetryConfig) {
        let line_key = Self::line_key(sighting, &proof, config);
        let Proof {
            evidence,
            packets,
            first,
            last,
            news,
            ..
        } = proof;
        match self.lines.entry(line_key) {
            Entry::Occupied(mut line) => {
                let line = line.get_mut();
                line.flows += u64::from(news);
                line.packets += u64::from(packets);
                line.first = line.first.min(first);
                line.last = line.last.max(last);
            }
            Entry::Vacant(place) => {
                if !self.places.claim(line_key.zone) {
                    self.unlisted
                        .fetch_add(u64::from(packets), Ordering::Relaxed);
                    return;
                }
                place.insert(AsymmetryLine {
                    zone: line_key.zone,
                    other_zone: line_key.other_zone,
                    from: line_key.from,
                    to: line_key.to,
                    evidence,
                    flows: 1,
                    packets: u64::from(packets),
                    first,
                    last,
                });
            }
        }
    }

    /// Returns the direction in which an end sends, if a recent packet showed that the other
    /// direction is missing.
    pub(crate) fn suspected(&self, key: &FlowKey, source: End, now: Instant) -> Option<Direction> {
        self.place(key, |place| {
            let suspect = place.filter(|suspect| {
                let silent = now.saturating_duration_since(suspect.last);
                (suspect.key, suspect.source) == (*key, source) && silent <= GOES_ON
            })?;
            match suspect.evidence {
                Evidence::SynAckWithoutSyn => Some(Direction::Reply),
                Evidence::AckWithoutSynAck => Some(Direction::Original),
                _ => None,
            }
        })?
    }

    pub(crate) fn report(&self) -> AsymmetryReport {
        let mut lines: Vec<_> = self.lines.iter().map(|line| *line.value()).collect();
        let order = |line: &AsymmetryLine| {
            (
                std::cmp::Reverse(line.packets),
                line.zone,
                line.from,
                line.to,
                line.evidence,
                line.other_zone,
            )
        };
        lines.sort_unstable_by_key(order);
        AsymmetryReport {
            lines,
            unlisted: self.unlisted.load(Ordering::Relaxed),
            unnoticed: self.unnoticed.load(Ordering::Relaxed),
        }
    }

    /// Removes all lines and the history of the suspects. Conversations stay suspects, so that
    /// their packets continue to pass.
    pub(crate) fn clear(&self) {
        for shard in &self.suspects {
            for suspect in shard.lock().iter_mut().flatten() {
                (suspect.packets, suspect.listed, suspect.first) = (0, 0, suspect.last);
                suspect.proved = false;
            }
        }
        self.lines.retain(|key, _| {
            self.places.release(key.zone);
            false
        });
    }
}

#[cfg(test)]
mod tests;
