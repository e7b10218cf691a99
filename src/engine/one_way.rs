//! One-way sessions: the evidence, the verdicts on their packets, and the search in other zones.
//! The report is made in [`crate::asymmetry`].

use super::candidate::Candidate;
use super::effects::Effects;
use super::faults::drop_of;
use super::live::Live;
use super::matched::Matched;
use super::memo::{Memo, Noted};
use super::path_evidence::{Missing, PathEvidence};
use super::{Engine, Packet};
use crate::asymmetry::{Evidence, Sighting, Sign};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::packet::{Parsed, Segment};
use crate::policy::handling::Asymmetric;
use crate::reserve::NoMemory;
use crate::session::{KeyPlace, Mark, Micros};
use crate::track::tcp::{Event, State};
use crate::verdict::{DropReason, Tracked, Verdict};

use std::time::Instant;

/// Time for which a cut handshake may be answered, in ticks: 64 s, the time for which Linux
/// retransmits a SYN-ACK.
const ANSWERED: u32 = 640;
/// Ticks in a unit of the notes of [`CutHandshakes`]: 1.6 s.
const UNIT: u32 = 16;

/// Part of a handshake that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The SYN was dropped, or its session ended before the handshake did.
    Syn = 0,
    /// A SYN-ACK was dropped.
    Answer = 1,
}

/// Handshakes that this firewall has cut: answers to them are not evidence of another path.
#[derive(Debug)]
pub(super) struct CutHandshakes(Memo);

impl CutHandshakes {
    pub(super) fn new(max_sessions: usize) -> Result<Self, NoMemory> {
        Memo::beside(max_sessions).map(Self)
    }

    pub(super) fn bytes(max_sessions: usize) -> usize {
        Memo::bytes_beside(max_sessions)
    }

    pub(super) fn note(&self, place: KeyPlace, cut: Cut, now: Micros) {
        self.0.note(place, (now.tick() / UNIT) << 1 | cut as u32);
    }

    /// Returns whether this firewall has dropped the SYN recently, or may have: a flood of other
    /// handshakes may have displaced the note.
    fn may_be_syn(&self, place: KeyPlace, now: Micros) -> bool {
        match self.0.get(place) {
            Noted::Own(note) => is_recent(note, now) && note & 1 == Cut::Syn as u32,
            Noted::Other(note) => is_recent(note, now),
            Noted::Nothing => false,
        }
    }

    /// Returns whether this firewall has dropped a SYN-ACK of the session recently.
    fn is_answer(&self, place: KeyPlace, now: Micros) -> bool {
        let Noted::Own(note) = self.0.get(place) else {
            return false;
        };
        is_recent(note, now) && note & 1 == Cut::Answer as u32
    }
}

const fn is_recent(note: u32, now: Micros) -> bool {
    (now.tick() / UNIT).saturating_sub(note >> 1) <= ANSWERED / UNIT
}

impl Engine {
    /// Returns the evidence in an allowed segment of an end that has completed a handshake whose
    /// SYN-ACK did not pass here. The session keeps its state and does not track later segments.
    #[cold]
    pub(super) fn goes_on(
        &self,
        live: &Live<'_>,
        candidate: &Candidate<'_>,
        segment: &Segment,
    ) -> Option<PathEvidence> {
        let slot = live.hot();
        let (key, source) = (&candidate.flow.key, candidate.flow.source);
        let sign = if live.cold().has(Mark::Stale) {
            Sign::Nothing
        } else {
            Sign::Proof
        };
        let is_it = slot.track.state() == State::SynSent
            && matches!(Event::of(segment.flags), Event::Ack | Event::Fin)
            && live.tcp().asymmetric == Asymmetric::Report
            && slot.direction_of(source) == Direction::Original
            && self.asymmetry.suspected(key, source, candidate.instant)
                == Some(Direction::Original);
        let (packets, _) = slot.traffic(Direction::Reply);
        is_it.then_some(PathEvidence {
            opposite: Some(packets),
            ..PathEvidence::alone(Evidence::AckWithoutSynAck, sign)
        })
    }

    /// Judges a segment that is invalid because an earlier segment has not passed here. Returns
    /// `None` as [`Engine::hit`] does.
    #[cold]
    #[inline(never)]
    pub(super) fn judge_one_way<T: Trace>(
        &self,
        live: &mut Live<'_>,
        matched: &Matched<'_, '_>,
        missing: &Missing,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let Missing { evidence, fault } = *missing;
        let candidate = matched.candidate;
        effects.evidence = Some(evidence);
        let (rule, known) = (live.rule(), live.cold().has(Mark::Bypassed));
        let settings = live.settings;
        let state_only_counts = settings.enforcement.only_counts(DropReason::TcpState);
        let reason = match evidence.evidence {
            Some(Evidence::AckWithoutSynAck) if !state_only_counts => {
                DropReason::TcpAckWithoutSynAck
            }
            _ => drop_of(fault),
        };
        let tracked = matched.invalid();
        trace.step(|| {
            Step::Note(
                "the packet that it answers did not pass here: it may have taken another path",
            )
        });
        match settings.tcp(rule, candidate.flow.key.zone()).asymmetric {
            Asymmetric::Drop => Some(effects.failed(settings, reason, tracked, rule)),
            Asymmetric::Report => {
                effects.tolerated = Some((reason, rule));
                // The session does not track the segment that is allowed now; an acknowledgment of
                // it later proves nothing.
                let is_known = evidence.evidence == Some(Evidence::AckWithoutSynAck);
                live.cold_mut().set_if(Mark::Stale, !is_known);
                Some(Verdict::Forward(Tracked {
                    tolerated: Some(reason),
                    ..tracked
                }))
            }
            Asymmetric::Bypass => {
                trace.step(|| {
                    Step::Note("bypass: the session continues without the missing direction")
                });
                live.hot_mut()
                    .track
                    .go_on_without(matched.direction.opposite());
                live.cold_mut().set(Mark::Bypassed, true);
                effects.bypassed |= !known;
                // The segment is judged again without the unknown numbers: a connection that
                // continues this way has no such fault.
                self.hit(live, candidate, effects, trace)
            }
        }
    }

    /// Adds the evidence in a packet to the report of asymmetry.
    #[cold]
    #[inline(never)]
    pub(super) fn note_evidence(&self, packet: &Packet<'_>, parsed: &Parsed, seen: PathEvidence) {
        let Some(flow) = Flow::of(packet.zone, parsed) else {
            return;
        };
        let now = self.origin.micros(packet.now);
        let place = self.table.place(&flow.key);
        let sign = match seen.evidence {
            Some(Evidence::SynAckWithoutSyn) if self.cut.may_be_syn(place, now) => Sign::Nothing,
            Some(Evidence::AckWithoutSynAck) if self.cut.is_answer(place, now) => Sign::Nothing,
            _ => seen.sign,
        };
        let sighting = Sighting {
            key: flow.key,
            source: flow.source,
            evidence: seen.evidence,
            sign,
            opposite: seen.opposite,
            other_zone: seen.other_zone,
            at: packet.now,
        };
        self.asymmetry.see(&sighting, &self.settings().asymmetry);
    }

    /// Notes that a packet of a handshake was dropped here.
    #[cold]
    #[inline(never)]
    pub(super) fn note_cut(
        &self,
        place: KeyPlace,
        segment: &Segment,
        dropped: &Tracked,
        now: Instant,
    ) {
        let now = self.origin.micros(now);
        match Event::of(segment.flags) {
            Event::Syn => self.cut.note(place, Cut::Syn, now),
            // A SYN-ACK without a session answers no SYN here.
            Event::SynAck if dropped.session.is_some() => self.cut.note(place, Cut::Answer, now),
            _ => {}
        }
    }
}
