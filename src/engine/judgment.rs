//! Step 6 of the packet path: the judgment of a packet by the state machine of its session.

use super::Engine;
use super::candidate::{Candidate, tunnel_id};
use super::control::Gated;
use super::effects::Effects;
use super::faults::{drop_of, drop_of_dccp, drop_of_sctp};
use super::history_events::{note_events, plain_events, tcp_events};
use super::live::Live;
use super::matched::{Judged, Matched, Passage, Reading, Role};
use super::path_evidence::{Missing, PathEvidence};
use super::record::{state_name, trace_found};
use crate::explain::{Step, Trace};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_TCP, Segment, Transport};
use crate::session::{EndReason, Mark, SessionId, Slot, TunnelRef};
use crate::track::datagram::{self, Family};
use crate::track::tcp::{Event, Fault, Known, Outcome, PassReason, State};
use crate::track::{self, Lifetime};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

impl Engine {
    /// Runs step 6. Returns `None` if the packet would open a new connection in place of this
    /// session.
    pub(super) fn hit<T: Trace>(
        &self,
        live: &mut Live<'_>,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let matched = self.matched(live, candidate);
        if live.settings.any_strict_options
            && !candidate.parsed.ip.options.is_empty()
            && !live.settings.allows_options(live.rule())
        {
            return Some(Verdict::Drop(DropReason::IpOptions, matched.invalid()));
        }
        if T::ON
            && let Some(record) = live.record(self)
        {
            trace_found(record, matched.direction, candidate.instant, trace);
        }
        trace.step(|| {
            let rule = live.settings.policy.rule_name(live.rule());
            Step::Policy(format!("admitted by {rule}"))
        });
        let judged = match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => {
                let slot = live.hot();
                let kept = live.settings.ftp.may_be_control(slot).then_some(slot.track);
                let judged = self.judge_segment(live, &matched, segment, effects, trace);
                match kept {
                    None => judged,
                    Some(track) => {
                        let gated = Gated {
                            matched: &matched,
                            track,
                            judged,
                        };
                        self.gate(live, gated, effects, trace)
                    }
                }
            }
            transport @ (Transport::Sctp { .. } | Transport::Dccp { .. }) => {
                self.judge_association(live, &matched, transport, effects, trace)
            }
            transport => judge_datagram(live, &matched, transport, trace),
        };
        match judged {
            Judged::Passes(passage) => Some(self.pass(live, &matched, &passage, effects, trace)),
            Judged::Ruled(verdict) => Some(verdict),
            Judged::Reopens => None,
        }
    }

    #[inline(always)]
    fn matched<'a, 'p>(
        &self,
        live: &mut Live<'_>,
        candidate: &'a Candidate<'p>,
    ) -> Matched<'a, 'p> {
        let slot = live.hot();
        let direction = slot.direction_of(candidate.flow.source);
        let id = live.id();
        let tracked = Tracked {
            class: self.class_of(slot, id, direction),
            direction: Some(direction),
            session: Some(id),
            tolerated: None,
            late: None,
        };
        Matched {
            candidate,
            tracked,
            direction,
            before: slot.eviction_class(),
            tcp_before: (slot.key.protocol() == PROTOCOL_TCP).then(|| slot.track.state()),
        }
    }

    #[inline(always)]
    pub(super) fn class_of(&self, slot: &Slot, id: SessionId, direction: Direction) -> Class {
        match direction {
            Direction::Original if !slot.seen_reply() && self.helpers.is_child(id) => {
                Class::Related
            }
            Direction::Original if !slot.seen_reply() => Class::New,
            _ => Class::Established,
        }
    }

    #[inline(always)]
    fn judge_segment<T: Trace>(
        &self,
        live: &mut Live<'_>,
        matched: &Matched<'_, '_>,
        segment: &Segment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Judged {
        let (candidate, direction) = (matched.candidate, matched.direction);
        if candidate.flow_bits != 0
            && Event::of(segment.flags) == Event::Syn
            && is_of_another_flow(live, matched)
        {
            trace.step(|| Step::Note("a SYN of another flow of the load balancer: a new session"));
            return Judged::Reopens;
        }
        let settings = live.settings;
        let slot = live.hot_mut();
        let events = tcp_events(segment, slot, direction);
        let passage = Passage {
            lifetime: None,
            events,
            tolerated: None,
            role: Role::Counts,
            reading: Reading::Unread,
        };
        match judge(
            slot,
            direction,
            segment,
            settings.enforcement.split_handshake,
            trace,
        ) {
            Outcome::Accept {
                lifetime,
                assured,
                tolerated,
            } => {
                if assured {
                    slot.set_assured();
                    if matched.tcp_before == Some(State::SynRecv) && tolerated.is_none() {
                        self.note_handshake(settings, slot, direction, segment, candidate.now);
                    }
                }
                effects.believed = true;
                let reading = match tolerated {
                    None | Some(Fault::SplitHandshake) => Reading::Whole,
                    Some(_) => Reading::Unread,
                };
                Judged::Passes(Passage {
                    lifetime,
                    tolerated: tolerated.map(drop_of),
                    reading,
                    ..passage
                })
            }
            Outcome::Pass(reason) => {
                effects.believed = matches!(reason, PassReason::Window(_));
                let role = match reason {
                    PassReason::Rst => Role::Ignored,
                    _ => Role::Counts,
                };
                Judged::Passes(Passage { role, ..passage })
            }
            Outcome::AcceptAndEnd => Judged::Passes(Passage {
                role: Role::Refuses,
                reading: Reading::Exempt,
                ..passage
            }),
            Outcome::Reopen => Judged::Reopens,
            Outcome::Invalid(fault) => {
                let invalid = Invalid { segment, fault };
                self.judge_invalid(live, matched, &invalid, effects, trace)
            }
        }
    }

    /// Judges an invalid segment, which may be evidence of another path.
    fn judge_invalid<T: Trace>(
        &self,
        live: &mut Live<'_>,
        matched: &Matched<'_, '_>,
        invalid: &Invalid<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Judged {
        let Invalid { segment, fault } = *invalid;
        if matched.candidate.can_ask
            && let Some(verdict) =
                self.ask_who_has_moved_on(live, matched.candidate, segment, effects, trace)
        {
            return Judged::Ruled(verdict);
        }
        let stale = live.cold().has(Mark::Stale);
        let evidence = PathEvidence::of(live.hot(), matched.direction, segment, fault, stale)
            .or_else(|| self.goes_on(live, matched.candidate, segment));
        if let Some(evidence) = evidence {
            let missing = Missing { evidence, fault };
            let verdict = self.judge_one_way(live, matched, &missing, effects, trace);
            return verdict.map_or(Judged::Reopens, Judged::Ruled);
        }
        effects.evidence = Some(PathEvidence::present());
        let rule = live.rule();
        let verdict = effects.failed(live.settings, drop_of(fault), matched.invalid(), rule);
        live.cold_mut().set_if(Mark::Stale, verdict.is_forward());
        Judged::Ruled(verdict)
    }

    /// Judges a packet of SCTP or DCCP.
    #[inline(always)]
    fn judge_association<T: Trace>(
        &self,
        live: &mut Live<'_>,
        matched: &Matched<'_, '_>,
        transport: &Transport,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Judged {
        let id = live.id();
        let slot = live.hot_mut();
        let passage = Passage {
            lifetime: None,
            events: plain_events(transport),
            tolerated: None,
            role: Role::Counts,
            reading: Reading::Exempt,
        };
        match judge_by_state(slot, matched.direction, transport, trace) {
            track::Outcome::Accept { lifetime, assured } => {
                if assured {
                    slot.set_assured();
                }
                self.note_paths(
                    id,
                    slot,
                    matched.direction,
                    matched.candidate,
                    lifetime.is_some(),
                );
                Judged::Passes(Passage {
                    lifetime: lifetime.map(Lifetime::of),
                    ..passage
                })
            }
            track::Outcome::End => Judged::Passes(Passage {
                role: Role::Refuses,
                ..passage
            }),
            track::Outcome::Reopen => Judged::Reopens,
            track::Outcome::Invalid(reason) => {
                let rule = live.rule();
                Judged::Ruled(effects.failed(live.settings, reason, matched.invalid(), rule))
            }
        }
    }

    /// Counts a packet that passes in its session, and gives the session its new lifetime.
    #[inline(always)]
    fn pass<T: Trace>(
        &self,
        live: &mut Live<'_>,
        matched: &Matched<'_, '_>,
        passage: &Passage,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let &Matched {
            candidate,
            tracked,
            direction,
            before,
            ..
        } = matched;
        let (now, slot_id, settings) = (candidate.now, live.slot, live.settings);
        let slot = live.hot_mut();
        slot.count(direction, candidate.parsed.ip.total_len);
        if passage.role == Role::Ignored {
            note_events(live.shard, slot_id, direction, passage.events);
            trace.step(|| Step::NotRefreshed("the receiver of this RST does not take it"));
            return Verdict::Forward(tracked);
        }
        if direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.touch(now);
        if slot.key.protocol() == PROTOCOL_TCP
            && slot.track.is_unseen()
            && effects.evidence.is_none()
        {
            let evidence = PathEvidence::of_unseen(slot, direction, &candidate.parsed.transport);
            effects.evidence = Some(evidence);
        }
        live.shard
            .slab
            .note_tunnel(slot_id, direction, candidate.tunnel);
        note_events(live.shard, slot_id, direction, passage.events);
        if passage.role == Role::Refuses {
            // The session's class has changed with its state: the shard's counts must be updated
            // first.
            live.rearm(live.hot().deadline, before);
            let ended = live.end(EndReason::Refused);
            self.ended_here(live.shard_id, &ended, now, effects, trace);
            return Verdict::Forward(tracked);
        }
        match passage.lifetime {
            Some(lifetime) => {
                let slot = live.hot();
                let deadline = match matched.tcp_before {
                    Some(state) => settings.tcp_deadline(slot, state, lifetime, now, trace),
                    None => settings.deadline(slot, lifetime, now, trace),
                };
                live.rearm(deadline, before);
            }
            None => {
                trace.step(|| Step::NotRefreshed("this packet proves nothing about the session"))
            }
        }
        let tolerated = passage.tolerated;
        if let Some(reason) = tolerated {
            effects.tolerated = Some((reason, live.rule()));
        }
        Verdict::Forward(Tracked {
            tolerated,
            ..tracked
        })
    }
}

/// A segment that fails its window or its state.
struct Invalid<'a> {
    segment: &'a Segment,
    fault: Fault,
}

/// Returns whether a packet belongs to another flow of the load balancer than the last packet in
/// its direction.
fn is_of_another_flow(live: &Live<'_>, matched: &Matched<'_, '_>) -> bool {
    let candidate = matched.candidate;
    let [original, reply] = live.shard.slab.tunnels(live.slot);
    let last = match matched.direction {
        Direction::Original => original,
        Direction::Reply => reply,
    };
    last != TunnelRef::NONE && (last.0 ^ candidate.tunnel.0) & candidate.flow_bits != 0
}

/// Judges a packet of a connectionless protocol.
#[inline(always)]
fn judge_datagram<T: Trace>(
    live: &mut Live<'_>,
    matched: &Matched<'_, '_>,
    transport: &Transport,
    trace: &mut T,
) -> Judged {
    let (now, direction) = (matched.candidate.now, matched.direction);
    let slot = live.hot();
    let family = Family::of(slot.key.protocol());
    let state = datagram::State::from_bits(slot.plain_state());
    // The age is read only for a conversation that may become a stream: its start is on a cache
    // line that no other packet needs.
    let age_ms = match state {
        datagram::State::Replied | datagram::State::Exchange => {
            now.since(live.cold().start()).as_millis() as u64
        }
        datagram::State::Unreplied | datagram::State::Stream => 0,
    };
    let slot = live.hot_mut();
    let (asked, _) = slot.traffic(Direction::Original);
    let known = datagram::Known {
        family,
        responder_port: slot.key.port(slot.initiator().opposite()),
        asked,
        age_ms,
    };
    let next = datagram::next(known, state, direction);
    trace.step(|| Step::State(state.name(), next.name()));
    slot.set_plain_state(next as u8);
    if next != datagram::State::Unreplied {
        slot.set_assured();
    }
    if let Some(id) = tunnel_id(transport) {
        slot.note_tunnel_id(direction, id);
    }
    Judged::Passes(Passage {
        lifetime: Some(datagram::lifetime(family, next)),
        events: plain_events(transport),
        tolerated: None,
        role: Role::Counts,
        reading: Reading::Exempt,
    })
}

/// Runs the TCP state machine, and records the steps if the packet is traced.
fn judge<T: Trace>(
    slot: &mut Slot,
    direction: Direction,
    segment: &Segment,
    split_handshake: bool,
    trace: &mut T,
) -> Outcome {
    let known = Known {
        seen_reply: slot.seen_reply(),
        assured: slot.assured(),
        split_handshake,
    };
    if !T::ON {
        return slot.track.segment(direction, segment, known, |_| {});
    }
    let before = state_name(slot);
    for each in Direction::BOTH {
        let side = slot.track.side(each);
        trace.step(|| Step::Side("before", each, side));
    }
    let outcome = slot.track.segment(direction, segment, known, |step| {
        trace.step(|| Step::Tcp(step))
    });
    let after = state_name(slot);
    trace.step(|| Step::State(before, after));
    for each in Direction::BOTH {
        let side = slot.track.side(each);
        trace.step(|| Step::Side("after", each, side));
    }
    outcome
}

/// Runs the state machine of SCTP or DCCP.
fn judge_by_state<T: Trace>(
    slot: &mut Slot,
    direction: Direction,
    transport: &Transport,
    trace: &mut T,
) -> track::Outcome<DropReason> {
    let before = slot.state_name();
    let outcome = match transport {
        Transport::Sctp { packet, .. } => {
            let mut association = slot.sctp();
            let outcome = association.packet(direction, packet);
            slot.set_sctp(association);
            outcome.map(drop_of_sctp)
        }
        Transport::Dccp { packet, .. } => {
            let mut connection = slot.dccp();
            let outcome = connection.packet(direction, packet);
            slot.set_dccp(connection);
            outcome.map(drop_of_dccp)
        }
        _ => track::Outcome::PASS,
    };
    trace.step(|| Step::State(before, slot.state_name()));
    outcome
}
