//! Evidence in a packet that one direction of its conversation takes another path.

use crate::asymmetry::{Evidence, Sign};
use crate::flow::{Direction, Zone};
use crate::packet::{Segment, TcpFlags, Transport};
use crate::session::Slot;
use crate::track::tcp::{Event, Fault, Peer, State};

/// Maximum distance ahead of its window at which a number counts as the sender's own, in bytes.
const NEAR: u32 = 1 << 20;

/// Returns whether a segment lies a window or more before the data that its sender, whose direction
/// passes here, has sent. Such a segment is forged, or too old to prove anything.
fn is_older(segment: &Segment, sender: Peer, receiver: Peer) -> bool {
    segment.seq.before(sender.end.sub(receiver.max_window))
}

/// Returns the acknowledgment in a segment as a sign of the other direction.
const fn acknowledges(segment: &Segment, first_hand: bool) -> Sign {
    if !segment.flags.contains(TcpFlags::ACK) {
        return Sign::Nothing;
    }
    Sign::Acknowledges {
        ack: segment.ack,
        first_hand,
    }
}

/// Evidence in a packet about the other direction of its conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathEvidence {
    /// The evidence; `None` if the packet only shows that its own direction passes here.
    pub(super) evidence: Option<Evidence>,
    pub(super) sign: Sign,
    /// Packets of the other direction that the session has seen.
    pub(super) opposite: Option<u32>,
    pub(super) other_zone: Option<Zone>,
}

impl PathEvidence {
    /// Returns the evidence of a packet without a session.
    pub(super) const fn alone(evidence: Evidence, sign: Sign) -> Self {
        Self {
            evidence: Some(evidence),
            sign,
            opposite: None,
            other_zone: None,
        }
    }

    /// Returns the evidence of a packet whose session is in another zone.
    pub(super) const fn in_zone(zone: Zone) -> Self {
        Self {
            other_zone: Some(zone),
            ..Self::alone(Evidence::OtherZone, Sign::Nothing)
        }
    }

    /// Returns the evidence of an invalid packet, which only shows that its own direction passes
    /// here.
    pub(super) const fn present() -> Self {
        Self {
            evidence: None,
            sign: Sign::Nothing,
            opposite: None,
            other_zone: None,
        }
    }

    /// Returns the evidence of a segment that acknowledges something and has no session.
    pub(super) const fn middle(segment: &Segment) -> Self {
        Self::alone(Evidence::BeginningUnseen, acknowledges(segment, false))
    }

    /// Returns the evidence of a packet whose session has not passed here completely yet.
    pub(super) fn of_unseen(slot: &Slot, direction: Direction, transport: &Transport) -> Self {
        let (packets, _) = slot.traffic(direction.opposite());
        let sign = match transport {
            Transport::Tcp { segment, .. } => acknowledges(segment, false),
            _ => Sign::Nothing,
        };
        Self {
            opposite: Some(packets),
            ..Self::alone(Evidence::OneDirectionOnly, sign)
        }
    }

    /// Returns the evidence of an invalid segment that would be valid if a missing segment had
    /// passed here. A `stale` session has missed some segments, so its numbers prove little.
    #[cold]
    pub(super) fn of(
        slot: &Slot,
        direction: Direction,
        segment: &Segment,
        fault: Fault,
        stale: bool,
    ) -> Option<Self> {
        let (track, sender) = (&slot.track, slot.track.side(direction).peer);
        let receiver = track.side(direction.opposite()).peer;
        if Event::of(segment.flags) != Event::Ack {
            return None;
        }
        let follows = |distance| {
            !segment.seq.before(sender.end) && segment.seq.distance_from(sender.end) <= distance
        };
        let open = matches!(
            track.state(),
            State::Established | State::FinWait | State::CloseWait
        );
        let proof = if stale { Sign::Nothing } else { Sign::Proof };
        let (evidence, sign) = match fault {
            Fault::State
                if track.state() == State::SynSent
                    && direction == Direction::Original
                    && follows(NEAR) =>
            {
                (Evidence::AckWithoutSynAck, proof)
            }
            Fault::AckOfUnseen
                if open && !track.is_liberal() && !is_older(segment, sender, receiver) =>
            {
                (
                    Evidence::UnseenDataAcknowledged,
                    acknowledges(segment, !stale),
                )
            }
            Fault::SeqAboveWindow if open && !track.is_liberal() && follows(0) => {
                // The segment continues where the window offered here has ended: another offer took
                // another path.
                (Evidence::OneDirectionOnly, proof)
            }
            _ => return None,
        };
        let (packets, _) = slot.traffic(direction.opposite());
        Some(Self {
            opposite: Some(packets),
            ..Self::alone(evidence, sign)
        })
    }
}

/// An invalid segment that is evidence that the other direction does not pass here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing {
    pub(super) evidence: PathEvidence,
    pub(super) fault: Fault,
}
