//! The packet path, step by step as [`Engine::process`] numbers it.

use super::candidate::{Candidate, Located, screened_anew, tunnel_id};
use super::effects::After;
use super::evidence::Seen;
use super::faults::{drop_of, drop_of_dccp, drop_of_sctp, invalid};
use super::letters::{note, plain_letters, tcp_letters};
use super::listening::Ruling;
use super::record::{state_name, trace_found};
use super::screen::Screen;
use super::settings::Settings;
use super::{Engine, Packet};
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, Zone};
use crate::packet::{self, Checksums, Malformed, PROTOCOL_TCP, Parsed, Segment, TcpFlags, Transport};
use crate::policy::{Action, RuleId};
use crate::session::{EndReason, Ended, Held, Mark, Micros, Place, Shard, Slot, TunnelRef};
use crate::track::datagram::{self, Family};
use crate::track::tcp::{Event, Known, Outcome, PassReason, State};
use crate::track::{self, Lifetime};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

impl Engine {
    /// What the settings say of a packet before it is parsed.
    #[inline]
    pub(super) fn dress<'p>(&self, packet: Packet<'p>, screen: Screen) -> (Packet<'p>, Checksums) {
        let packet = Packet {
            zone: self.fixed.zones.group_of(packet.zone),
            screen,
            ..packet
        };
        let checksums = if packet.offloaded {
            Checksums::Trust
        } else {
            screen.checksums()
        };
        (packet, checksums)
    }

    /// A packet's flow, and where its session is, if it is there.
    #[inline]
    pub(super) fn locate(&self, zone: Zone, parsed: &Parsed) -> Option<Located> {
        let flow = Flow::of(zone, parsed)?;
        let place = self.table.place(&flow.key);
        Some(Located { flow, place })
    }

    pub(super) fn decide<S: Sink, T: Trace>(
        &self,
        packet: Packet<'_>,
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        let (packet, checksums) = self.dress(packet, self.screen.get());
        // Borrowed and not moved out: a copy of what was just written would wait for the stores.
        let result = packet::parse(packet.bytes, checksums);
        let located = match &result {
            Ok(parsed) => self.locate(packet.zone, parsed),
            Err(_) => None,
        };
        self.settle(&packet, (&result, located), sink, trace)
    }

    /// Steps 2 to 7, and what the first has found.
    #[inline(always)]
    pub(super) fn settle<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        (result, located): (&Result<Parsed, Malformed>, Option<Located>),
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        let parsed = match result {
            Ok(parsed) => parsed,
            Err(malformed) => {
                trace.step(|| Step::Malformed(*malformed));
                let verdict = invalid(DropReason::Malformed(*malformed));
                self.counters.verdict(&verdict, 0);
                return verdict;
            }
        };
        trace.step(|| Step::Parsed(Box::new(*parsed)));
        if let Some(reason) = packet.screen.check(parsed, packet.tunneled) {
            let verdict = invalid(reason);
            self.counters.verdict(&verdict, parsed.ip.total_len);
            return verdict;
        }
        let mut after = After::default();
        let verdict = self.route::<S, T>(packet, (parsed, located), &mut after, trace);
        // 7. Counters and events, without a lock.
        self.counters.verdict(&verdict, parsed.ip.total_len);
        for (shard, ended) in after.ended.iter().flatten().chain(&after.more_ended) {
            let now = self.origin.micros(packet.now);
            self.report_ended(*shard, ended, (now, after.answered), sink);
        }
        if let Some((reason, rule)) = after.tolerated {
            self.settings().checks.count(reason, rule);
        }
        if after.any_opened {
            self.counters.opened(after.marks);
        }
        if after.bypassed {
            self.counters.bypassed();
        }
        if let Some(seen) = after.seen {
            self.note_half(packet, parsed, seen);
        }
        if !verdict.is_forward()
            && let (Some(Located { place, .. }), Transport::Tcp { segment, .. }) =
                (located, &parsed.transport)
            && segment.flags.contains(TcpFlags::SYN)
            && !verdict.reason().is_some_and(DropReason::is_challenge)
        {
            self.note_cut(place, segment, verdict.tracked(), packet.now);
        }
        if let Some(record) = &after.opened {
            sink.session_opened(record);
        }
        for note in &after.helped {
            sink.helper_event(note);
        }
        if let Some(reached) = &after.limited {
            sink.limit_reached(reached);
        }
        if S::LISTENS
            && let Some(denied) = &after.denied
        {
            match verdict {
                Verdict::Drop(DropReason::PolicyDeny | DropReason::PolicyReject, _)
                | Verdict::Reject(DropReason::PolicyDeny | DropReason::PolicyReject, ..) => {
                    sink.session_denied(denied);
                }
                Verdict::Forward(_) if denied.action == Action::Audit => sink.session_audited(denied),
                _ => {}
            }
        }
        if let Some(id) = after.released {
            sink.released(id);
        }
        verdict
    }

    /// Steps 2 to 6.
    #[inline(always)]
    pub(super) fn route<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        (parsed, located): (&Parsed, Option<Located>),
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        match (located, &parsed.transport) {
            // 4. The session's lock.
            (Some(Located { flow, place }), _) => {
                trace.step(|| Step::Key(flow.key, place.shard));
                let candidate = Candidate {
                    bytes: packet.bytes,
                    parsed,
                    flow,
                    now: self.origin.micros(packet.now),
                    instant: packet.now,
                    tunnel: packet.tunnel,
                    flow_bits: packet.flow_bits,
                    screen: packet.screen,
                    tunneled: packet.tunneled,
                    has_checksums: !packet.offloaded && !packet.bytes.is_empty(),
                    searched: false,
                    sheddable: packet.sheddable,
                };
                let verdict = {
                    let mut held = self.table.lock(place.shard);
                    if held.judging.is_some() {
                        self.under_reload(&mut held, place, &candidate, after, trace);
                    }
                    let Held { shard, settings, .. } = &mut *held;
                    self.tracked::<S, T>((shard, settings), place, &candidate, after, trace)
                };
                if matches!(parsed.transport, Transport::Sctp { .. })
                    && !verdict.is_forward()
                    && self.paths.len() != 0
                    && let Some(found) = self.on_path(&candidate, after, trace)
                {
                    return found;
                }
                if after.elsewhere && !verdict.is_forward() {
                    return self.beyond::<S, T>(&candidate, place, verdict, after, trace);
                }
                verdict
            }
            (None, transport) => {
                let newest = self.screen.get();
                if newest != packet.screen
                    && let Some(reason) = newest.check_anew(packet, parsed)
                {
                    return invalid(reason);
                }
                match transport {
                    // 2. Fragments.
                    Transport::Fragment(fragment) => {
                        self.fragment::<S, T>(packet, parsed, fragment, after, trace)
                    }
                    // 3. ICMP errors, discovery.
                    Transport::IcmpError(error) => self.related(packet, parsed, error, after, trace),
                    Transport::Discovery { kind } => self.discovery(packet, parsed, *kind, trace),
                    _ => invalid(DropReason::IcmpTypeUnsupported),
                }
            }
        }
    }

    /// A packet that fits nothing in its own zone, or not for sure; no lock is held.
    #[cold]
    #[inline(never)]
    fn beyond<S: Sink, T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        place: Place,
        verdict: Verdict,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        if let Some(found) = self.elsewhere(candidate, place, after, trace) {
            return found;
        }
        if !after.then_here {
            return verdict;
        }
        let candidate = Candidate {
            searched: true,
            ..*candidate
        };
        let mut held = self.table.lock(place.shard);
        if held.judging.is_some() {
            self.under_reload(&mut held, place, &candidate, after, trace);
        }
        let Held { shard, settings, .. } = &mut *held;
        self.tracked::<S, T>((shard, settings), place, &candidate, after, trace)
    }

    /// Judges the packet's session before step 4 if a reload has not done so yet.
    #[cold]
    #[inline(never)]
    fn under_reload<T: Trace>(
        &self,
        held: &mut Held<Settings>,
        place: Place,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) {
        if let Some(ended) = self.judge_first(held, place, &candidate.flow.key) {
            self.ended_here(place.shard, &ended, candidate.now, after, trace);
        }
        if candidate.flow.key.is_keyed_gre() {
            self.judge_pair(held, place, candidate, after, trace);
        }
    }

    /// Steps 4 to 6, under the shard's lock.
    fn tracked<S: Sink, T: Trace>(
        &self,
        (shard, settings): (&mut Shard, &Settings),
        place: Place,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        if candidate.screen != settings.screen
            && let Some(reason) = screened_anew(candidate, settings)
        {
            return invalid(reason);
        }
        let mut replaces = None;
        if let Some(slot) = shard.find(place.hash, &candidate.flow.key) {
            if shard.slab.hot(slot).deadline <= candidate.now.tick()
                && !self.spare_at(shard, settings, place.shard, slot, candidate.now)
            {
                let ended = shard.end_expired(slot);
                self.ended_here(place.shard, &ended, candidate.now, after, trace);
            } else {
                match self.hit((&mut *shard, settings), place, slot, candidate, after, trace) {
                    Some(verdict) => return verdict,
                    None => replaces = Some(slot),
                }
            }
        } else {
            trace.step(|| Step::Miss);
        }
        if candidate.flow.key.is_keyed_gre()
            && let Some(verdict) = self.in_pair(shard, settings, place, candidate, after, trace)
        {
            return verdict;
        }
        self.miss::<S, T>((shard, settings), place, candidate, replaces, after, trace)
    }

    /// A session has ended under the lock that the caller holds; the rest follows once it is released.
    pub(super) fn ended_here<T: Trace>(
        &self,
        shard: usize,
        ended: &Ended,
        now: Micros,
        after: &mut After,
        trace: &mut T,
    ) {
        self.bury(shard, ended, now);
        after.end(shard, *ended);
        if T::ON
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            trace.step(|| Step::Ended(Box::new(record), ended.reason));
        }
    }

    /// Step 6. `None` where the packet would open a new connection in place of this session.
    pub(super) fn hit<T: Trace>(
        &self,
        (shard, settings): (&mut Shard, &Settings),
        place: Place,
        number: u32,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Option<Verdict> {
        let now = candidate.now;
        let slot = shard.slab.hot_mut(number);
        let direction = slot.direction_of(candidate.flow.source);
        let id = self.table.id(place.shard, number, slot.generation);
        let class = match direction {
            Direction::Original if !slot.seen_reply() && self.helpers.is_child(id) => Class::Related,
            Direction::Original if !slot.seen_reply() => Class::New,
            _ => Class::Established,
        };
        let tracked = Tracked {
            class,
            direction: Some(direction),
            session: Some(id),
            tolerated: None,
            late: None,
        };
        if settings.any_strict_options
            && !candidate.parsed.ip.options.is_empty()
            && !settings.allows_options(RuleId(shard.slab.cold(number).rule))
        {
            let invalid = Tracked {
                class: Class::Invalid,
                ..tracked
            };
            return Some(Verdict::Drop(DropReason::IpOptions, invalid));
        }
        if T::ON
            && let Some(record) = self.record_of(shard, place.shard, number)
        {
            trace_found(record, direction, candidate.instant, trace);
        }
        trace.step(|| {
            let rule = RuleId(shard.slab.cold(number).rule);
            Step::Policy(format!("admitted by {}", settings.policy.rule_name(rule)))
        });
        let bytes = candidate.parsed.ip.total_len;
        let slot = shard.slab.hot_mut(number);
        let before = slot.eviction_class();
        let mut tolerated = None;
        let mut refused = false;
        // A RST that its receiver ignores is counted, and nothing else.
        let mut ignored = false;
        let tcp_before = (slot.key.protocol() == PROTOCOL_TCP).then(|| slot.track.state());
        let (lifetime, letters) = match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => {
                if candidate.flow_bits != 0 && Event::of(segment.flags) == Event::Syn {
                    let [original, reply] = shard.slab.tunnels(number);
                    let last = match direction {
                        Direction::Original => original,
                        Direction::Reply => reply,
                    };
                    let differs = (last.0 ^ candidate.tunnel.0) & candidate.flow_bits != 0;
                    if last != TunnelRef::NONE && differs {
                        trace
                            .step(|| Step::Note("a SYN of another flow of the load balancer: a new session"));
                        return None;
                    }
                }
                let slot = shard.slab.hot_mut(number);
                let letters = tcp_letters(segment, slot, direction);
                let kept = settings.ftp.may_be_control(slot).then_some(slot.track);
                match judge(slot, direction, segment, settings.checks.split_handshake, trace) {
                    Outcome::Accept {
                        lifetime,
                        assured,
                        tolerated: fault,
                    } => {
                        if assured {
                            slot.set_assured();
                            if tcp_before == Some(State::SynRecv) && fault.is_none() {
                                self.note_handshake(settings, slot, direction, segment, now);
                            }
                        }
                        tolerated = fault.map(drop_of);
                        if let Some(kept) = kept {
                            let is_right = fault.is_none();
                            let heard = (&*shard, settings);
                            let ruling = self.hear(
                                heard,
                                (number, tracked),
                                candidate,
                                is_right,
                                &mut after.helped,
                                trace,
                            );
                            if ruling != Ruling::Passes {
                                if ruling == Ruling::Drops {
                                    // As if it had not come.
                                    shard.slab.hot_mut(number).track = kept;
                                }
                                let deadline = shard.slab.hot(number).deadline;
                                shard.rearm(number, deadline, before);
                                if ruling == Ruling::Stops {
                                    let ended = shard.remove(number, EndReason::FtpRefused);
                                    self.ended_here(place.shard, &ended, now, after, trace);
                                }
                                return Some(ftp_refused(tracked));
                            }
                        }
                        after.believed = true;
                        (lifetime, letters)
                    }
                    Outcome::Pass(reason) => {
                        if let Some(kept) = kept
                            && !self.may_pass_unread((&*shard, settings), (number, tracked), candidate)
                        {
                            shard.slab.hot_mut(number).track = kept;
                            return Some(ftp_refused(tracked));
                        }
                        after.believed = matches!(reason, PassReason::Window(_));
                        ignored = matches!(reason, PassReason::Rst);
                        (None, letters)
                    }
                    Outcome::AcceptAndEnd => {
                        refused = true;
                        (None, letters)
                    }
                    Outcome::Reopen => return None,
                    Outcome::Invalid(fault) => {
                        let slot = shard.slab.hot(number);
                        let stale = shard.slab.cold(number).has(Mark::Stale);
                        let seen = Seen::of(slot, direction, segment, fault, stale)
                            .or_else(|| self.goes_on(settings, shard, number, (candidate, segment)));
                        if let Some(seen) = seen {
                            let held = (&mut *shard, settings);
                            let verdict = self.half(
                                (seen, fault),
                                held,
                                place,
                                (number, tracked),
                                candidate,
                                after,
                                trace,
                            );
                            let unread = |verdict: &Verdict| {
                                verdict.is_forward() && verdict.tracked().class == Class::Invalid
                            };
                            if kept.is_some()
                                && verdict.as_ref().is_some_and(unread)
                                && !self.may_pass_unread((&*shard, settings), (number, tracked), candidate)
                            {
                                after.tolerated = None;
                                return Some(ftp_refused(tracked));
                            }
                            return verdict;
                        }
                        after.seen = Some(Seen::present());
                        let rule = RuleId(shard.slab.cold(number).rule);
                        let invalid = Tracked {
                            class: Class::Invalid,
                            ..tracked
                        };
                        let verdict = after.failed(settings, drop_of(fault), invalid, rule);
                        shard
                            .slab
                            .cold_mut(number)
                            .set_if(Mark::Stale, verdict.is_forward());
                        if kept.is_some()
                            && verdict.is_forward()
                            && !self.may_pass_unread((&*shard, settings), (number, tracked), candidate)
                        {
                            after.tolerated = None;
                            return Some(ftp_refused(tracked));
                        }
                        return Some(verdict);
                    }
                }
            }
            transport @ (Transport::Sctp { .. } | Transport::Dccp { .. }) => {
                let letters = plain_letters(transport);
                match judge_by_state(slot, direction, transport, trace) {
                    track::Outcome::Accept { lifetime, assured } => {
                        if assured {
                            slot.set_assured();
                        }
                        self.note_paths(id, slot, direction, candidate, lifetime.is_some());
                        (lifetime.map(Lifetime::of), letters)
                    }
                    track::Outcome::End => {
                        refused = true;
                        (None, letters)
                    }
                    track::Outcome::Reopen => return None,
                    track::Outcome::Invalid(reason) => {
                        let invalid = Tracked {
                            class: Class::Invalid,
                            ..tracked
                        };
                        let rule = RuleId(shard.slab.cold(number).rule);
                        return Some(after.failed(settings, reason, invalid, rule));
                    }
                }
            }
            transport => {
                let family = Family::of(slot.key.protocol());
                let state = datagram::State::from_bits(slot.plain_state());
                // Only a conversation that may become a stream is asked for its age: the start stands on a cache
                // line that no other packet needs.
                let age_ms = match state {
                    datagram::State::Replied | datagram::State::Exchange => {
                        now.since(shard.slab.cold(number).start()).as_millis() as u64
                    }
                    datagram::State::Unreplied | datagram::State::Stream => 0,
                };
                let slot = shard.slab.hot_mut(number);
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
                (Some(datagram::lifetime(family, next)), plain_letters(transport))
            }
        };
        let slot = shard.slab.hot_mut(number);
        slot.count(direction, bytes);
        if ignored {
            note(shard, number, direction, letters);
            trace.step(|| Step::NotRefreshed("the receiver of this RST does not take it"));
            return Some(Verdict::Forward(tracked));
        }
        if direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.touch(now);
        if slot.key.protocol() == PROTOCOL_TCP && slot.track.is_unseen() && after.seen.is_none() {
            after.seen = Some(Seen::of_unseen(slot, direction, &candidate.parsed.transport));
        }
        shard.slab.note_tunnel(number, direction, candidate.tunnel);
        note(shard, number, direction, letters);
        if refused {
            // Its worth has changed with its state: the shard's counts must follow first.
            let deadline = shard.slab.hot(number).deadline;
            shard.rearm(number, deadline, before);
            let ended = shard.remove(number, EndReason::Refused);
            self.ended_here(place.shard, &ended, now, after, trace);
            return Some(Verdict::Forward(tracked));
        }
        match lifetime {
            Some(lifetime) => {
                let slot = shard.slab.hot(number);
                let deadline = match tcp_before {
                    Some(state) => settings.tcp_deadline(slot, state, lifetime, now, trace),
                    None => settings.deadline(slot, lifetime, now, trace),
                };
                if shard.rearm(number, deadline, before) {
                    self.table.note_tick(place.shard, deadline);
                }
            }
            None => trace.step(|| Step::NotRefreshed("this packet proves nothing about the session")),
        }
        if let Some(reason) = tolerated {
            after.tolerated = Some((reason, RuleId(shard.slab.cold(number).rule)));
        }
        Some(Verdict::Forward(Tracked { tolerated, ..tracked }))
    }
}

/// The verdict on what stops with a refused announcement.
const fn ftp_refused(tracked: Tracked) -> Verdict {
    let refused = Tracked {
        class: Class::Invalid,
        ..tracked
    };
    Verdict::Drop(DropReason::FtpRefused, refused)
}

/// Runs TCP's judgement, with its steps where anybody looks.
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
    let outcome = slot
        .track
        .segment(direction, segment, known, |step| trace.step(|| Step::Tcp(step)));
    let after = state_name(slot);
    trace.step(|| Step::State(before, after));
    for each in Direction::BOTH {
        let side = slot.track.side(each);
        trace.step(|| Step::Side("after", each, side));
    }
    outcome
}

/// Runs the judgement of SCTP or DCCP.
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
