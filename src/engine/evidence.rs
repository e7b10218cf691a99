//! Evidence in a packet that half of its conversation takes another path.

use crate::asymmetry::{Evidence, Sign};
use crate::flow::{Direction, Zone};
use crate::packet::{Segment, TcpFlags, Transport};
use crate::session::Slot;
use crate::track::tcp::{Event, Fault, Peer, State};

/// How far ahead of its window a sender may be before that is somebody else's number, in bytes.
const NEAR: u32 = 1 << 20;

/// Whether a segment lies a window or more behind what its sender has sent, whose half comes here: it is
/// forged, or too old to tell anything.
fn is_older(segment: &Segment, sender: Peer, receiver: Peer) -> bool {
    segment.seq.before(sender.end.sub(receiver.max_window))
}

/// What a segment acknowledges.
const fn acknowledges(segment: &Segment, first_hand: bool) -> Sign {
    if !segment.flags.contains(TcpFlags::ACK) {
        return Sign::Nothing;
    }
    Sign::Acknowledges {
        ack: segment.ack,
        first_hand,
    }
}

/// What a packet says of the half of its conversation that it does not belong to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// `None`: nothing but that its direction comes.
    pub(super) evidence: Option<Evidence>,
    pub(super) sign: Sign,
    /// Packets of the other direction that the session has seen.
    pub(super) opposite: Option<u32>,
    pub(super) other_zone: Option<Zone>,
}

impl Seen {
    /// Of a packet without a session.
    pub(super) const fn alone(evidence: Evidence, sign: Sign) -> Self {
        Self {
            evidence: Some(evidence),
            sign,
            opposite: None,
            other_zone: None,
        }
    }

    /// Of a packet whose session is in another zone.
    pub(super) const fn in_zone(zone: Zone) -> Self {
        Self {
            other_zone: Some(zone),
            ..Self::alone(Evidence::OtherZone, Sign::Nothing)
        }
    }

    /// Of an invalid packet that says nothing of the other half, but that its own half is there.
    pub(super) const fn present() -> Self {
        Self {
            evidence: None,
            sign: Sign::Nothing,
            opposite: None,
            other_zone: None,
        }
    }

    /// Of a segment without a session that acknowledges something.
    pub(super) const fn middle(segment: &Segment) -> Self {
        Self::alone(Evidence::BeginningUnseen, acknowledges(segment, false))
    }

    /// Of a packet whose session is not wholly seen yet.
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

    /// Of an invalid segment: whether it would be valid if something had passed that has not. A `stale`
    /// session does not know all that has passed, so that its numbers prove little.
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
        let follows =
            |distance| !segment.seq.before(sender.end) && segment.seq.distance_from(sender.end) <= distance;
        let open = matches!(
            track.state(),
            State::Established | State::FinWait | State::CloseWait
        );
        let proof = if stale { Sign::Nothing } else { Sign::Proof };
        let (evidence, sign) = match fault {
            Fault::State
                if track.state() == State::SynSent && direction == Direction::Original && follows(NEAR) =>
            {
                (Evidence::AckWithoutSynAck, proof)
            }
            Fault::AckOfUnseen if open && !track.is_liberal() && !is_older(segment, sender, receiver) => {
                (Evidence::UnseenDataAcknowledged, acknowledges(segment, !stale))
            }
            Fault::SeqAboveWindow if open && !track.is_liberal() && follows(0) => {
                // It goes on where the window that was offered here has ended: another offer went elsewhere.
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
