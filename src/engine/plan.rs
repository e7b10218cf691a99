//! Step 5 of the packet path, its first part: the session that a packet without one would open.

use super::Engine;
use super::answer::may_be_answered;
use super::budget::Destination;
use super::candidate::Candidate;
use super::effects::Effects;
use super::faults::invalid;
use super::history_events::{HistoryEvents, adopted_tcp_events, first_tcp_events, plain_events};
use super::path_evidence::PathEvidence;
use super::query::new_session;
use super::resets::LateAnswer;
use super::settings::Settings;
use crate::asymmetry::{Evidence, Sign};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, End};
use crate::packet::{IcmpQuery, Segment, Transport};
use crate::policy::handling::{Asymmetric, Midstream, TcpMode};
use crate::policy::{Action, RuleId};
use crate::session::Mark;
use crate::track::tcp::{Event, Track};
use crate::track::{dccp, sctp};
use crate::verdict::{Class, DropReason, Late, Reply, Tracked, Verdict};

/// The first port that is not a well-known one (RFC 6335 6).
const FIRST_REGISTERED_PORT: u16 = 1024;

/// Tracker of the session that a packet may open.
pub(super) enum Opening {
    Tcp(Track),
    Sctp(sctp::Track),
    Dccp(dccp::Track),
    Plain,
}

/// A session that a packet would open, if the policy admits it.
pub(super) struct Plan {
    pub(super) opening: Opening,
    pub(super) events: HistoryEvents,
    /// The direction of the packet: that of the initiator, except where a connection is adopted
    /// with a packet of its responder.
    pub(super) direction: Direction,
    pub(super) marks: &'static [Mark],
    /// For a late packet that is readmitted: the remembered state of its session.
    pub(super) late: Option<Late>,
}

impl Plan {
    /// Returns the initiator of the session, by the sender of the packet.
    pub(super) const fn initiator(&self, source: End) -> End {
        match self.direction {
            Direction::Original => source,
            Direction::Reply => source.opposite(),
        }
    }

    #[inline(always)]
    const fn new(opening: Opening, events: HistoryEvents) -> Self {
        Self {
            opening,
            events,
            direction: Direction::Original,
            marks: &[],
            late: None,
        }
    }

    fn picked_up(
        track: Track,
        segment: &Segment,
        direction: Direction,
        marks: &'static [Mark],
    ) -> Self {
        Self {
            opening: Opening::Tcp(track),
            events: adopted_tcp_events(segment),
            direction,
            marks,
            late: None,
        }
    }
}

impl Engine {
    /// Plans the session that a packet would open.
    ///
    /// # Errors
    /// Returns the verdict on a packet that opens no session.
    pub(super) fn plan<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        // Each arm ends with the whole result, so the result is built in place and not copied.
        match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => match Track::open(segment) {
                Some(track) => Ok(Plan::new(Opening::Tcp(track), first_tcp_events(segment))),
                None => self.tcp_without_session(settings, candidate, segment, effects, trace),
            },
            Transport::Sctp { packet, .. } => match sctp::Track::open(packet) {
                Some(association) => Ok(Plan::new(Opening::Sctp(association), [None; 3])),
                None => {
                    effects.search_other_zones(settings);
                    Err(invalid(DropReason::SctpNoSession))
                }
            },
            transport @ Transport::Dccp { packet, .. } => match dccp::Track::open(packet) {
                Some(connection) => {
                    let events = plain_events(transport);
                    Ok(Plan::new(Opening::Dccp(connection), events))
                }
                None => {
                    effects.search_other_zones(settings);
                    Err(invalid(DropReason::DccpNoSession))
                }
            },
            Transport::IcmpQuery(IcmpQuery { request: false, .. }) => {
                effects.search_other_zones(settings);
                Err(invalid(DropReason::IcmpReplyNoSession))
            }
            transport => Ok(Plan::new(Opening::Plain, plain_events(transport))),
        }
    }

    /// Plans for a TCP segment without a session that is not a SYN.
    ///
    /// Such a segment is late, of a session that has ended; or belongs to a connection whose
    /// beginning or other direction is unknown; or is forged.
    #[cold]
    #[inline(never)]
    fn tcp_without_session<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        if let Some(verdict) = self.answers_challenge(settings, candidate, segment, trace) {
            return Err(verdict);
        }
        let (flow, now) = (&candidate.flow, candidate.now);
        if let Some(tombstone) = self.graveyard.find(&flow.key, now) {
            trace.step(|| {
                let ago = crate::session::TICK * now.tick().saturating_sub(tombstone.ended.tick());
                Step::Buried(tombstone.id, tombstone.reason, ago)
            });
            let direction = tombstone.direction_of(flow.source);
            effects.evidence = Some(PathEvidence::alone(Evidence::AfterEnd, Sign::Nothing));
            return match self.late(settings, &tombstone, flow.source, segment, now) {
                LateAnswer::Verdict(verdict) => {
                    if let Verdict::Reject(..) = verdict {
                        effects.answered = Some((tombstone.id, direction));
                    }
                    Err(verdict)
                }
                LateAnswer::Readmit(verdict) => match Track::adopt(segment, direction, true) {
                    Some(track) => Ok(Plan {
                        late: verdict.tracked().late,
                        ..Plan::picked_up(
                            track,
                            segment,
                            direction,
                            &[Mark::Adopted, Mark::Resumed],
                        )
                    }),
                    None => Err(verdict),
                },
            };
        }
        let answer = match Event::of(segment.flags) {
            Event::SynAck => self.unsolicited_syn_ack(settings, candidate, segment, effects, trace),
            event @ (Event::Ack | Event::Fin) => {
                // A retransmitted FIN means that the peer is gone; it is not evidence of asymmetry.
                effects.evidence = Some(match event {
                    Event::Ack => PathEvidence::middle(segment),
                    _ => PathEvidence::present(),
                });
                self.midstream(settings, candidate, segment, effects, trace)
            }
            _ => {
                effects.evidence = Some(PathEvidence::present());
                effects.search_other_zones(settings);
                Err(invalid(DropReason::TcpNoSession))
            }
        };
        let passes = answer.as_ref().err().is_none_or(Verdict::is_forward);
        if passes && !candidate.searched && settings.zone_hints.has_others() {
            // The packet's session may be in another zone; in that case no session begins here.
            trace.step(|| Step::Note("its session is first searched for in other zones"));
            effects.tolerated = None;
            effects.search_other_zones(settings);
            effects.then_own_zone = true;
            return Err(invalid(DropReason::TcpNoSession));
        }
        answer
    }

    /// Plans for a SYN-ACK whose SYN has not passed here.
    fn unsolicited_syn_ack<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        let reason = DropReason::TcpSynAckWithoutSyn;
        effects.evidence = Some(PathEvidence::alone(Evidence::SynAckWithoutSyn, Sign::Proof));
        if settings.any_asymmetric {
            let zone = candidate.flow.key.zone();
            let query = new_session(zone, candidate.parsed, Direction::Reply);
            let decision = settings.policy.look_up(&query);
            let mode = settings.tcp(decision.rule, zone).asymmetric;
            match (decision.action, mode) {
                (Action::Allow | Action::Audit, Asymmetric::Bypass) => {
                    if let Some(track) = Track::adopt_answer(segment) {
                        trace.step(|| {
                            Step::Note(
                                "its SYN took another path: the session begins with this direction",
                            )
                        });
                        let marks = &[Mark::Adopted, Mark::Bypassed];
                        let mut plan = Plan::picked_up(track, segment, Direction::Reply, marks);
                        plan.events =
                            [Some(crate::session::history::Letter::Handshake), None, None];
                        return Ok(plan);
                    }
                }
                (Action::Allow | Action::Audit, Asymmetric::Report) => {
                    if let Some(reason) =
                        settings.bars_untracked(zone, &candidate.parsed.ip, decision.rule)
                    {
                        // The rule of its session in another zone may allow it.
                        effects.search_other_zones(settings);
                        return Err(invalid(reason));
                    }
                    effects.tolerated = Some((reason, decision.rule));
                    return Err(Verdict::Forward(Tracked {
                        tolerated: Some(reason),
                        ..Tracked::class(Class::Invalid)
                    }));
                }
                _ => {}
            }
        }
        effects.search_other_zones(settings);
        Err(invalid(reason))
    }

    /// Plans for a midstream segment of an unknown connection.
    fn midstream<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        effects.search_other_zones(settings);
        if settings.any_asymmetric
            && let Some(verdict) = self.follows_reported(settings, candidate, effects)
        {
            return Err(verdict);
        }
        let drop = invalid(DropReason::TcpNoSession);
        let failover = self.is_failing_over(settings, candidate.now);
        if !settings.any_midstream && !failover {
            return Err(drop);
        }
        let rejects = match adopted(settings, candidate, segment, failover) {
            Ok(plan) => {
                trace.step(|| Step::Note("adopted midstream"));
                return Ok(plan);
            }
            Err(rejects) => rejects,
        };
        if !rejects || !may_be_answered(&candidate.parsed.ip) {
            return Err(drop);
        }
        let (key, source) = (&candidate.flow.key, candidate.flow.source);
        let destination = Destination {
            zone: key.zone(),
            address: key.address_number(source),
        };
        if let Err(unsent) = self
            .answers
            .take(destination, candidate.now, settings.rates())
        {
            self.counters.reset(Err(unsent));
            return Err(drop);
        }
        Err(Verdict::Reject(
            DropReason::TcpNoSession,
            Reply::TcpReset,
            Tracked::class(Class::Invalid),
        ))
    }

    /// Returns the verdict on a segment that follows one that was allowed as evidence of another
    /// path. The segment is allowed too, since no session tracks it.
    fn follows_reported(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        let (key, source) = (&candidate.flow.key, candidate.flow.source);
        let direction = self.asymmetry.suspected(key, source, candidate.instant)?;
        let query = new_session(key.zone(), candidate.parsed, direction);
        let decision = settings.policy.look_up(&query);
        let mode = settings.tcp(decision.rule, key.zone()).asymmetric;
        if !decision.action.admits() || mode != Asymmetric::Report {
            return None;
        }
        if let Some(reason) =
            settings.bars_untracked(key.zone(), &candidate.parsed.ip, decision.rule)
        {
            return Some(invalid(reason));
        }
        let reason = DropReason::TcpNoSession;
        effects.tolerated = Some((reason, decision.rule));
        Some(Verdict::Forward(Tracked {
            tolerated: Some(reason),
            ..Tracked::class(Class::Invalid)
        }))
    }
}

/// Plans to adopt a connection midstream.
///
/// Either end may be the initiator: if both are admitted, the end with a well-known port is the
/// responder. If a rule, and not the default action, decides on the likelier initiator, the policy
/// is not evaluated for the other.
///
/// # Errors
/// Returns whether such a segment is to be rejected.
fn adopted(
    settings: &Settings,
    candidate: &Candidate<'_>,
    segment: &Segment,
    failover: bool,
) -> Result<Plan, bool> {
    let zone = candidate.flow.key.zone();
    let query = new_session(zone, candidate.parsed, Direction::Original);
    let from_responder =
        query.src_port < Some(FIRST_REGISTERED_PORT) && query.src_port < query.dst_port;
    let order = if from_responder {
        [Direction::Reply, Direction::Original]
    } else {
        [Direction::Original, Direction::Reply]
    };
    let mut rejects = false;
    for direction in order {
        let decision = settings
            .policy
            .look_up(&new_session(zone, candidate.parsed, direction));
        let handling = settings.tcp(decision.rule, zone);
        rejects |= handling.midstream == Midstream::Reject;
        let adopts = failover || handling.midstream == Midstream::Adopt;
        if !decision.action.admits() || !adopts {
            if decision.rule != RuleId::DEFAULT {
                break;
            }
            continue;
        }
        let until_seen = handling.mode == TcpMode::Strict;
        if let Some(track) = Track::adopt(segment, direction, until_seen) {
            return Ok(Plan::picked_up(track, segment, direction, &[Mark::Adopted]));
        }
    }
    Err(rejects)
}
