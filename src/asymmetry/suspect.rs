//! One-way conversation, and the evidence of its packets.

use std::time::{Duration, Instant};

use super::{Evidence, Sighting, Sign};
use crate::config::AsymmetryConfig;
use crate::flow::{End, FlowKey};
use crate::packet::SeqNum;

/// A conversation with only one direction so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    pub(super) key: FlowKey,
    /// The end that is seen.
    pub(super) source: End,
    pub(super) evidence: Evidence,
    opposite: Option<u32>,
    pub(super) packets: u32,
    pub(super) first: Instant,
    pub(super) last: Instant,
    /// Packets of the conversation that its line counts.
    pub(super) listed: u32,
    /// Highest acknowledgment of data that never passed.
    pub(super) ack: Option<SeqNum>,
    /// Whether one packet of the conversation, or two together, are a proof.
    pub(super) proved: bool,
}

/// Minimum time for which one direction alone must last to prove anything, however many packets
/// arrive: a sender may have a whole window in flight before the first answer. The time covers a
/// long round trip and the longest delayed acknowledgment (RFC 1122 4.2.3.2: 0.5 s).
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// Time for which a suspect keeps its slot against others, in multiples of the time that proves it.
const PATIENCE: u32 = 6;

/// Asymmetry that the packets of a conversation prove.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    pub(super) evidence: Evidence,
    /// The end that sent the packets.
    pub(super) source: End,
    pub(super) packets: u32,
    pub(super) first: Instant,
    pub(super) last: Instant,
    /// The proof is the first of its conversation.
    pub(super) news: bool,
}

/// Change that a packet makes to the report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    /// Proof that was wrong: the other direction has arrived.
    pub(super) retracted: Option<Proof>,
    pub(super) proved: Option<Proof>,
}

impl Suspect {
    pub(super) const fn new(sighting: &Sighting, evidence: Evidence) -> Self {
        let ack = match sighting.sign {
            Sign::Acknowledges { ack, .. } => Some(ack),
            Sign::Nothing | Sign::Proof => None,
        };
        Self {
            ack,
            proved: matches!(sighting.sign, Sign::Proof),
            key: sighting.key,
            source: sighting.source,
            evidence,
            opposite: sighting.opposite,
            packets: 1,
            first: sighting.at,
            last: sighting.at,
            listed: 0,
        }
    }

    /// Adds the evidence of another packet of the same direction.
    fn weigh(&mut self, sighting: &Sighting, config: &AsymmetryConfig) {
        let (ack, first_hand) = match sighting.sign {
            Sign::Nothing => return,
            Sign::Proof => {
                self.proved = true;
                return;
            }
            Sign::Acknowledges { ack, first_hand } => (ack, first_hand),
        };
        let silence = sighting.at.saturating_duration_since(self.last);
        if !self.proved && silence > config.time {
            // Both directions may have taken another path meanwhile.
            (self.ack, self.first, self.packets) = (Some(ack), sighting.at, 0);
            return;
        }
        let known = *self.ack.get_or_insert(ack);
        if ack.after(known) {
            self.ack = Some(ack);
            let time = sighting.at.saturating_duration_since(self.first);
            self.proved |= first_hand || time >= ROUND_TRIP.min(config.time);
        }
    }

    pub(super) fn may_be_forgotten(&self, at: Instant, config: &AsymmetryConfig) -> bool {
        let quiet = at.saturating_duration_since(self.last);
        self.packets <= 1 || quiet > config.time * PATIENCE
    }

    /// Returns the part of the report that names a missing direction, if the suspect has one.
    pub(super) fn listing(&self) -> Option<Proof> {
        (self.listed > 0 && self.evidence.is_one_sided() && self.evidence != Evidence::OtherZone)
            .then_some(Proof {
                evidence: self.evidence,
                source: self.source,
                packets: self.listed,
                first: self.first,
                last: self.last,
                news: false,
            })
    }

    /// Records another packet of the conversation and returns the resulting change.
    pub(super) fn again(
        &mut self,
        sighting: &Sighting,
        evidence: Evidence,
        config: &AsymmetryConfig,
    ) -> Change {
        let without_session = |evidence| {
            matches!(
                evidence,
                Evidence::BeginningUnseen | Evidence::SynAckWithoutSyn
            )
        };
        let other_end = sighting.source != self.source;
        let other_counted = match (self.opposite, sighting.opposite) {
            (Some(before), Some(now)) => before != now,
            (None, Some(now)) => now > 0,
            _ => false,
        };
        if !other_end && !other_counted {
            if self.evidence == Evidence::BeginningUnseen && self.listed > 0 {
                self.last = sighting.at;
                return Change::default();
            }
            self.weigh(sighting, config);
            self.packets = self.packets.saturating_add(1);
            self.last = self.last.max(sighting.at);
            self.opposite = self.opposite.or(sighting.opposite);
            return Change {
                retracted: None,
                proved: self.proof(config),
            };
        }
        // The other direction has arrived after all.
        let retracted = self.listing();
        let unseen_beginning = without_session(self.evidence)
            && (without_session(evidence) || other_counted)
            || self.evidence == Evidence::OneDirectionOnly && without_session(evidence);
        if !unseen_beginning {
            *self = Self::new(sighting, evidence);
            return Change {
                retracted,
                proved: self.proof(config),
            };
        }
        // Only the beginning is missing, which is reported once.
        let known = self.evidence == Evidence::BeginningUnseen && self.listed > 0;
        let first = self.first;
        *self = Self {
            listed: 1,
            ..Self::new(sighting, Evidence::BeginningUnseen)
        };
        let proof = Proof {
            evidence: Evidence::BeginningUnseen,
            source: self.source,
            packets: 1,
            first,
            last: sighting.at,
            news: true,
        };
        Change {
            retracted,
            proved: (!known).then_some(proof),
        }
    }

    /// Returns the proof by the packets so far. After the proof, each further packet counts alone.
    pub(super) fn proof(&mut self, config: &AsymmetryConfig) -> Option<Proof> {
        if !self.proved {
            return None;
        }
        let time = self.last.saturating_duration_since(self.first);
        let long = time >= config.time && self.packets > 1;
        let alone = matches!(
            self.evidence,
            Evidence::OneDirectionOnly
                | Evidence::BeginningUnseen
                | Evidence::UnseenDataAcknowledged
        );
        let many =
            self.packets >= config.packets && (!alone || time >= ROUND_TRIP.min(config.time));
        if self.listed == 0 && !many && !long {
            return None;
        }
        if self.evidence == Evidence::BeginningUnseen {
            // From here on, only one direction of the conversation counts.
            self.evidence = Evidence::OneDirectionOnly;
        }
        let news = self.listed == 0;
        let packets = if news { self.packets } else { 1 };
        self.listed = self.listed.saturating_add(packets);
        Some(Proof {
            evidence: self.evidence,
            source: self.source,
            packets,
            first: if news { self.first } else { self.last },
            last: self.last,
            news,
        })
    }
}
