//! Sessions of which one half does not pass here: what says so, what becomes of their packets, and where else the
//! session may be. The report of it is made in [`crate::asymmetry`].

use super::path::{After, Candidate, drop_of};
use super::settings::Settings;
use super::{Engine, Packet};
use crate::asymmetry::{Evidence, Sighting};
use crate::config::Asymmetric;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, Zone};
use crate::packet::{Parsed, Segment};
use crate::policy::RuleId;
use crate::session::{Mark, Place, Shard, Slot};
use crate::track::tcp::{Event, Fault, State};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// How far ahead of its window a sender may be before that is somebody else's number, in bytes.
const NEAR: u32 = 1 << 20;

/// What a packet says of the half of its conversation that it does not belong to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// `None`: nothing but that its direction comes.
    evidence: Option<Evidence>,
    /// Packets of the other direction that the session has seen.
    opposite: Option<u32>,
    other_zone: Option<Zone>,
}

impl Seen {
    /// Of a packet without a session.
    pub(super) const fn alone(evidence: Evidence) -> Self {
        Self {
            evidence: Some(evidence),
            opposite: None,
            other_zone: None,
        }
    }

    /// Of a packet whose session is in another zone.
    pub(super) const fn in_zone(zone: Zone) -> Self {
        Self {
            other_zone: Some(zone),
            ..Self::alone(Evidence::OtherZone)
        }
    }

    /// Of an invalid packet that says nothing of the other half, but that its own half is there.
    pub(super) const fn present() -> Self {
        Self {
            evidence: None,
            opposite: None,
            other_zone: None,
        }
    }

    /// Of a packet whose session is not wholly seen yet.
    pub(super) fn of_unseen(slot: &Slot, direction: Direction) -> Self {
        let (packets, _) = slot.traffic(direction.opposite());
        Self {
            opposite: Some(packets),
            ..Self::alone(Evidence::OneDirectionOnly)
        }
    }

    /// Of an invalid segment: whether it would be valid if something had passed that has not.
    #[cold]
    pub(super) fn of(slot: &Slot, direction: Direction, segment: &Segment, fault: Fault) -> Option<Self> {
        let (track, sender) = (&slot.track, slot.track.side(direction).peer);
        if Event::of(segment.flags) != Event::Ack {
            return None;
        }
        let follows =
            |distance| !segment.seq.before(sender.end) && segment.seq.distance_from(sender.end) <= distance;
        let open = matches!(
            track.state(),
            State::Established | State::FinWait | State::CloseWait
        );
        let evidence = match fault {
            Fault::State
                if track.state() == State::SynSent && direction == Direction::Original && follows(NEAR) =>
            {
                Evidence::AckWithoutSynAck
            }
            Fault::AckOfUnseen if open && !track.is_liberal() => Evidence::UnseenDataAcknowledged,
            Fault::SeqAboveWindow if open && !track.is_liberal() && follows(0) => Evidence::OneDirectionOnly,
            _ => return None,
        };
        let (packets, _) = slot.traffic(direction.opposite());
        Some(Self {
            opposite: Some(packets),
            ..Self::alone(evidence)
        })
    }
}

impl Engine {
    /// A segment of an end that has completed a handshake whose SYN-ACK did not pass here, and was let pass: its session stays
    /// where it was, and knows nothing of what follows.
    #[cold]
    pub(super) fn goes_on(
        &self,
        settings: &Settings,
        shard: &Shard,
        number: u32,
        (candidate, segment): (&Candidate<'_>, &Segment),
    ) -> Option<Seen> {
        let slot = shard.slab.hot(number);
        let (key, source) = (&candidate.flow.key, candidate.flow.source);
        let rule = RuleId(shard.slab.cold(number).rule);
        let is_it = slot.track.state() == State::SynSent
            && matches!(Event::of(segment.flags), Event::Ack | Event::Fin)
            && settings.tcp(rule, key.zone()).asymmetric == Asymmetric::Report
            && slot.direction_of(source) == Direction::Original
            && self.asymmetry.suspected(key, source, candidate.instant) == Some(Direction::Original);
        let (packets, _) = slot.traffic(Direction::Reply);
        is_it.then_some(Seen {
            opposite: Some(packets),
            ..Seen::alone(Evidence::AckWithoutSynAck)
        })
    }

    /// A segment that is invalid because something has not passed here. `None` as for [`Engine::hit`].
    #[cold]
    #[inline(never)]
    #[expect(
        clippy::too_many_arguments,
        reason = "the state of one packet's judgement, called from one place"
    )]
    pub(super) fn half<T: Trace>(
        &self,
        (seen, fault): (Seen, Fault),
        (shard, settings): (&mut Shard, &Settings),
        place: Place,
        (number, tracked): (u32, Tracked),
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Option<Verdict> {
        after.seen = Some(seen);
        let cold = shard.slab.cold(number);
        let (rule, known) = (RuleId(cold.rule), cold.has(Mark::Bypassed));
        let state_only_counts = settings.checks.only_counts(DropReason::TcpState);
        let reason = match seen.evidence {
            Some(Evidence::AckWithoutSynAck) if !state_only_counts => DropReason::TcpAckWithoutSynAck,
            _ => drop_of(fault),
        };
        let tracked = Tracked {
            class: Class::Invalid,
            ..tracked
        };
        trace.step(|| Step::Note("what it answers did not pass here: perhaps it took another path"));
        match settings.tcp(rule, candidate.flow.key.zone()).asymmetric {
            Asymmetric::Drop => Some(settings.failed(reason, tracked, rule, after)),
            Asymmetric::Report => {
                after.tolerated = Some((reason, rule));
                Some(Verdict::Forward(Tracked {
                    tolerated: Some(reason),
                    ..tracked
                }))
            }
            Asymmetric::Bypass => {
                trace.step(|| Step::Note("bypass: the session goes on without the half that is missing"));
                let direction = tracked.direction.unwrap_or(Direction::Original);
                shard
                    .slab
                    .hot_mut(number)
                    .track
                    .go_on_without(direction.opposite());
                shard.slab.cold_mut(number).set(Mark::Bypassed, true);
                after.bypassed |= !known;
                // Judged again, without the numbers that were never seen: a connection that goes on so has no such fault.
                self.hit((shard, settings), place, number, candidate, after, trace)
            }
        }
    }

    /// Hands on what a packet has said.
    #[cold]
    #[inline(never)]
    pub(super) fn note_half(&self, packet: &Packet<'_>, parsed: &Parsed, seen: Seen) {
        let Some(flow) = Flow::of(packet.zone, parsed) else {
            return;
        };
        let sighting = Sighting {
            key: flow.key,
            source: flow.source,
            evidence: seen.evidence,
            opposite: seen.opposite,
            other_zone: seen.other_zone,
            at: packet.now,
        };
        self.asymmetry.see(&sighting, &self.settings().asymmetry);
    }
}
