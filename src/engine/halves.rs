//! Sessions of which one half does not pass here: what says so, what becomes of their packets, and where else the
//! session may be. The report of it is made in [`crate::asymmetry`].

use super::candidate::Candidate;
use super::effects::After;
use super::evidence::Seen;
use super::faults::drop_of;
use super::memo::{Memo, Noted};
use super::settings::Settings;
use super::{Engine, Packet};
use crate::asymmetry::{Evidence, Sighting, Sign};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::packet::{Parsed, Segment};
use crate::policy::RuleId;
use crate::policy::handling::Asymmetric;
use crate::reserve::NoMemory;
use crate::session::{Mark, Micros, Place, Shard};
use crate::track::tcp::{Event, Fault, State};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

use std::time::Instant;

/// For how long a handshake that was cut here may be answered, in ticks: 64 s, the time for which Linux
/// repeats a SYN-ACK.
const ANSWERED: u32 = 640;
/// Ticks in a unit of what [`CutHandshakes`] notes: 1.6 s.
const UNIT: u32 = 16;

/// What of a handshake was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its SYN was dropped, or its session ended before the handshake did.
    Syn = 0,
    /// A SYN-ACK was dropped.
    Answer = 1,
}

/// Handshakes that this firewall has cut itself: what answers them is no evidence of another path.
#[derive(Debug)]
pub(super) struct CutHandshakes(Memo);

impl CutHandshakes {
    pub(super) fn new(max_sessions: usize) -> Result<Self, NoMemory> {
        Memo::beside(max_sessions).map(Self)
    }

    pub(super) fn bytes(max_sessions: usize) -> usize {
        Memo::bytes_beside(max_sessions)
    }

    pub(super) fn note(&self, place: Place, cut: Cut, now: Micros) {
        self.0.note(place, (now.tick() / UNIT) << 1 | cut as u32);
    }

    /// Whether this firewall has dropped the SYN not long ago, or may have: a flood of others may have
    /// taken the place of that note.
    fn may_be_syn(&self, place: Place, now: Micros) -> bool {
        match self.0.get(place) {
            Noted::Own(note) => is_recent(note, now) && note & 1 == Cut::Syn as u32,
            Noted::Other(note) => is_recent(note, now),
            Noted::Nothing => false,
        }
    }

    /// Whether this firewall has dropped a SYN-ACK of the session not long ago.
    fn is_answer(&self, place: Place, now: Micros) -> bool {
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
        let cold = shard.slab.cold(number);
        let rule = RuleId(cold.rule);
        let sign = if cold.has(Mark::Stale) {
            Sign::Nothing
        } else {
            Sign::Proof
        };
        let is_it = slot.track.state() == State::SynSent
            && matches!(Event::of(segment.flags), Event::Ack | Event::Fin)
            && settings.tcp(rule, key.zone()).asymmetric == Asymmetric::Report
            && slot.direction_of(source) == Direction::Original
            && self.asymmetry.suspected(key, source, candidate.instant) == Some(Direction::Original);
        let (packets, _) = slot.traffic(Direction::Reply);
        is_it.then_some(Seen {
            opposite: Some(packets),
            ..Seen::alone(Evidence::AckWithoutSynAck, sign)
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
            Asymmetric::Drop => Some(after.failed(settings, reason, tracked, rule)),
            Asymmetric::Report => {
                after.tolerated = Some((reason, rule));
                // What passes now is not known to the session, and is no proof once it is acknowledged.
                let is_known = seen.evidence == Some(Evidence::AckWithoutSynAck);
                shard.slab.cold_mut(number).set_if(Mark::Stale, !is_known);
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
    pub(super) fn note_cut(&self, place: Place, segment: &Segment, dropped: &Tracked, now: Instant) {
        let now = self.origin.micros(now);
        match Event::of(segment.flags) {
            Event::Syn => self.cut.note(place, Cut::Syn, now),
            // One without a session answers nothing here.
            Event::SynAck if dropped.session.is_some() => self.cut.note(place, Cut::Answer, now),
            _ => {}
        }
    }
}
