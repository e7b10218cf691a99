//! The packet path, step by step as [`Engine::process`] numbers it.

use std::time::Instant;

use super::helpers::Parent;
use super::letters::{note, plain_letters, tcp_letters, tcp_letters_of_adopted, tcp_letters_of_first};
use super::record::state_name;
use super::{Engine, Packet};
use crate::config::TcpMode;
use crate::event::{EndReason, SessionRecord, Sink};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, Zone};
use crate::lifetime::LifetimeClass;
use crate::packet::{self, Checksums, IcmpQuery, IpVersion, Parsed, Segment, Transport};
use crate::policy::{Action, NewSession, Policy, RuleId};
use crate::session::{Ended, Micros, Shard, Slot};
use crate::track::datagram::{self, Family};
use crate::track::tcp::{Fault, Known, Outcome, PassReason, State, Track};
use crate::track::{self, Lifetime, Worth, dccp, sctp};
use crate::verdict::{Class, DropReason, Reply, Tracked, Verdict};

/// ICMPv6 redirect (RFC 4861 4.5).
const ICMPV6_REDIRECT: u8 = 137;

/// What happens once the lock is released.
#[derive(Default)]
pub(super) struct After {
    /// The shard of the session, or 0.
    shard: usize,
    /// The packet is a TCP segment whose data counts: it passed and its window believes its end.
    pub(super) believed: bool,
    /// The session that the packet opened.
    opened: Option<SessionRecord>,
    any_opened: bool,
    /// Sessions that ended: one whose ports were reused or that was found expired, and one that made room.
    ended: [Option<Ended>; 2],
    /// What a check has let pass, and the rule of the session.
    tolerated: Option<(DropReason, RuleId)>,
}

impl After {
    fn end(&mut self, ended: Ended) {
        if let Some(place) = self.ended.iter_mut().find(|place| place.is_none()) {
            *place = Some(ended);
        }
    }
}

/// A packet between parsing and verdict.
struct Candidate<'p> {
    /// What a helper reads of its payload.
    bytes: &'p [u8],
    parsed: &'p Parsed,
    flow: Flow,
    now: Micros,
    /// The same moment as the caller said it.
    instant: Instant,
}

/// What a packet may open, where it has no session.
enum Opening {
    Tcp(Track),
    Sctp(sctp::Track),
    Dccp(dccp::Track),
    Plain,
}

const fn drop_of(fault: Fault) -> DropReason {
    match fault {
        Fault::State => DropReason::TcpState,
        Fault::SeqAboveWindow => DropReason::TcpSeqAboveWindow,
        Fault::AckOfUnseen => DropReason::TcpAckOfUnseen,
        Fault::SplitHandshake => DropReason::TcpSplitHandshake,
        Fault::RstBelowWindow => DropReason::TcpRstBelowWindow,
    }
}

const fn drop_of_sctp(fault: sctp::Fault) -> DropReason {
    match fault {
        sctp::Fault::State => DropReason::SctpState,
        sctp::Fault::Tag => DropReason::SctpTag,
    }
}

const fn drop_of_dccp(fault: dccp::Fault) -> DropReason {
    match fault {
        dccp::Fault::State => DropReason::DccpState,
        dccp::Fault::Ack => DropReason::DccpAckOfUnseen,
    }
}

pub(super) const fn invalid(reason: DropReason) -> Verdict {
    Verdict::Drop(reason, Tracked::class(Class::Invalid))
}

impl Engine {
    pub(super) fn decide<S: Sink, T: Trace>(
        &self,
        packet: Packet<'_>,
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        // 1. Parse.
        let checksums = if packet.offloaded {
            Checksums::Trust
        } else {
            self.checksums
        };
        // Borrowed and not moved out: a copy of what was just written would wait for the stores.
        let result = packet::parse(packet.bytes, checksums);
        let parsed = match &result {
            Ok(parsed) => parsed,
            Err(malformed) => {
                trace.step(|| Step::Malformed(*malformed));
                let verdict = invalid(DropReason::Malformed(*malformed));
                self.counters.verdict(&verdict, 0);
                return verdict;
            }
        };
        trace.step(|| Step::Parsed(Box::new(*parsed)));
        let mut after = After::default();
        let verdict = self.route::<S, T>(&packet, parsed, &mut after, trace);
        // 7. Counters and events, without a lock.
        self.counters.verdict(&verdict, parsed.ip.total_len);
        for ended in after.ended.iter().flatten() {
            self.report_ended(after.shard, ended, sink);
        }
        if let Some((reason, rule)) = after.tolerated {
            self.checks.count(reason, rule);
        }
        if after.any_opened {
            self.counters.opened();
        }
        if let Some(record) = &after.opened {
            sink.session_opened(record);
        }
        verdict
    }

    /// Steps 2 to 6.
    #[inline(always)]
    pub(super) fn route<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        match (Flow::of(packet.zone, parsed), &parsed.transport) {
            // 4. The session's lock.
            (Some(flow), _) => {
                let place = self.table.place(&flow.key);
                after.shard = place.shard;
                trace.step(|| Step::Key(flow.key, place.shard));
                let candidate = Candidate {
                    bytes: packet.bytes,
                    parsed,
                    flow,
                    now: self.origin.micros(packet.now),
                    instant: packet.now,
                };
                let mut shard = self.table.lock(place.shard);
                self.tracked::<S, T>(&mut shard, place, &candidate, after, trace)
            }
            // 2. Fragments.
            (None, Transport::Fragment(fragment)) => {
                self.fragment::<S, T>(packet, parsed, fragment, after, trace)
            }
            // 3. ICMP errors, discovery.
            (None, Transport::IcmpError(error)) => self.related(packet, parsed, error, after, trace),
            // Discovery has the hop limit 255, listener discovery 1: what a router has forwarded has neither.
            (None, Transport::Neighbour) if !matches!(parsed.ip.ttl, 1 | 255) => {
                invalid(DropReason::DiscoveryOffLink)
            }
            (None, Transport::Neighbour) => {
                trace.step(|| Step::Note("discovery on the link is never tracked"));
                Verdict::Forward(Tracked::class(Class::Untracked))
            }
            (
                None,
                Transport::IcmpOther {
                    kind: ICMPV6_REDIRECT,
                    ..
                },
            ) if matches!(parsed.ip.version, IpVersion::V6) => {
                if self.checks.icmp_redirects {
                    Verdict::Forward(Tracked::class(Class::Untracked))
                } else {
                    invalid(DropReason::IcmpRedirect)
                }
            }
            (None, _) => invalid(DropReason::IcmpTypeUnsupported),
        }
    }

    /// Steps 4 to 6, under the shard's lock.
    fn tracked<S: Sink, T: Trace>(
        &self,
        shard: &mut Shard,
        place: crate::session::Place,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        let mut replaces = None;
        if let Some(slot) = shard.find(place.hash, &candidate.flow.key) {
            if shard.slab.hot(slot).deadline <= candidate.now.tick() {
                let ended = shard.end_expired(slot);
                self.table.release();
                self.trace_ended(place.shard, &ended, trace);
                after.end(ended);
            } else {
                match self.hit(shard, place, slot, candidate, after, trace) {
                    Some(verdict) => return verdict,
                    None => replaces = Some(slot),
                }
            }
        } else {
            trace.step(|| Step::Miss);
        }
        self.miss::<S, T>(shard, place, candidate, replaces, after, trace)
    }

    fn trace_ended<T: Trace>(&self, shard: usize, ended: &Ended, trace: &mut T) {
        if T::ON
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            trace.step(|| Step::Ended(Box::new(record), ended.reason));
        }
    }

    /// Step 6. `None` where the packet would open a new connection in place of this session.
    fn hit<T: Trace>(
        &self,
        shard: &mut Shard,
        place: crate::session::Place,
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
            Direction::Original if !slot.seen_reply() => match self.helpers.parent_of(id) {
                Some(_) => Class::Related,
                None => Class::New,
            },
            _ => Class::Established,
        };
        let tracked = Tracked {
            class,
            direction: Some(direction),
            session: Some(id),
            tolerated: None,
        };
        if T::ON
            && let Some(record) = self.record_of(shard, place.shard, number)
        {
            trace_found(record, direction, candidate.instant, trace);
        }
        trace.step(|| {
            let rule = RuleId(shard.slab.cold(number).rule);
            Step::Policy(format!("admitted by {}", self.policy.rule_name(rule)))
        });
        let bytes = candidate.parsed.ip.total_len;
        let slot = shard.slab.hot_mut(number);
        let before = slot.worth();
        let mut tolerated = None;
        let mut refused = false;
        let mut right = false;
        let (lifetime, letters) = match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => {
                let letters = tcp_letters(segment, slot, direction);
                match judge(slot, direction, segment, self.checks.split_handshake, trace) {
                    Outcome::Accept {
                        lifetime,
                        assured,
                        tolerated: fault,
                    } => {
                        if assured {
                            slot.set_assured();
                        }
                        tolerated = fault.map(drop_of);
                        right = fault.is_none();
                        after.believed = true;
                        (lifetime, letters)
                    }
                    Outcome::Pass(reason) => {
                        after.believed = matches!(reason, PassReason::Window(_));
                        (None, letters)
                    }
                    Outcome::AcceptAndEnd => {
                        refused = true;
                        (None, letters)
                    }
                    Outcome::Reopen => return None,
                    Outcome::Invalid(fault) => {
                        let stale = slot.assured() && slot.track.note_invalid_close(direction, segment);
                        if stale {
                            trace.step(|| {
                                Step::Note("both ends have tried to close: the session is kept for less")
                            });
                            self.shorten(shard, place.shard, number, now, before, trace);
                        }
                        let rule = RuleId(shard.slab.cold(number).rule);
                        let invalid = Tracked {
                            class: Class::Invalid,
                            ..tracked
                        };
                        return Some(self.failed(drop_of(fault), invalid, rule, after));
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
                        return Some(self.failed(reason, invalid, rule, after));
                    }
                }
            }
            transport => {
                let family = Family::of(slot.key.protocol());
                let state = datagram::State::from_bits(slot.plain_state());
                // Only a conversation that may become a stream is asked for its age: the start stands on a cache
                // line that no other packet needs.
                let age_ms = match state {
                    datagram::State::Replied => now.since(shard.slab.cold(number).start()).as_millis() as u64,
                    datagram::State::Unreplied | datagram::State::Stream => 0,
                };
                let slot = shard.slab.hot_mut(number);
                let next = datagram::next(family, state, direction, age_ms);
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
        if direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.count(direction, bytes);
        slot.touch(now);
        if right
            && self.helpers.is_control(slot)
            && let Transport::Tcp { segment, .. } = &candidate.parsed.transport
        {
            let rule = RuleId(shard.slab.cold(number).rule);
            let payload = candidate.parsed.payload(candidate.bytes);
            self.helpers.control(
                shard.slab.hot(number),
                Parent { session: id, rule },
                direction,
                (segment, payload),
                candidate.instant,
            );
        }
        note(shard, number, direction, letters);
        if refused {
            // Its worth has changed with its state: the shard's counts must follow first.
            let deadline = shard.slab.hot(number).deadline;
            shard.rearm(number, deadline, before);
            let ended = shard.remove(number, EndReason::Refused);
            self.table.release();
            self.trace_ended(place.shard, &ended, trace);
            after.end(ended);
            return Some(Verdict::Forward(tracked));
        }
        match lifetime {
            Some(lifetime) => {
                let deadline = self.deadline(shard.slab.hot(number), lifetime, now, trace);
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

    /// What becomes of a packet that has failed a check: dropped, or counted where the check is told to.
    pub(super) fn failed(
        &self,
        reason: DropReason,
        tracked: Tracked,
        rule: RuleId,
        after: &mut After,
    ) -> Verdict {
        if !self.checks.only_counts(reason) {
            return Verdict::Drop(reason, tracked);
        }
        after.tolerated = Some((reason, rule));
        Verdict::Forward(Tracked {
            tolerated: Some(reason),
            ..tracked
        })
    }

    /// Cuts a session's lifetime to that of unacknowledged data, if it has more left.
    fn shorten<T: Trace>(
        &self,
        shard: &mut Shard,
        shard_number: usize,
        number: u32,
        now: Micros,
        before: Worth,
        trace: &mut T,
    ) {
        let lifetime = Lifetime::of(LifetimeClass::TcpUnacknowledged);
        let deadline = self.deadline(shard.slab.hot(number), lifetime, now, trace);
        if deadline < shard.slab.hot(number).deadline && shard.rearm(number, deadline, before) {
            self.table.note_tick(shard_number, deadline);
        }
    }

    fn deadline<T: Trace>(&self, slot: &Slot, lifetime: Lifetime, now: Micros, trace: &mut T) -> u32 {
        let lifetimes = self.lifetimes.profile(slot.profile);
        let mut millis = lifetimes.millis(lifetime.class);
        if let Some(cap) = lifetime.cap {
            millis = millis.min(lifetimes.millis(cap));
        }
        trace.step(|| Step::Lifetime {
            class: lifetime.class,
            cap: lifetime.cap,
            lifetime: std::time::Duration::from_millis(u64::from(millis)),
            profile: slot.profile,
        });
        // A thread with an older clock does not take back what a newer packet has given.
        now.max(slot.last()).deadline(millis)
    }

    /// Step 5. `replaces` is a finished session whose ports the packet takes, if the policy admits it.
    fn miss<S: Sink, T: Trace>(
        &self,
        shard: &mut Shard,
        place: crate::session::Place,
        candidate: &Candidate<'_>,
        replaces: Option<u32>,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        let parsed = candidate.parsed;
        let (opening, letters) = match &parsed.transport {
            Transport::Tcp { segment, .. } => match Track::open(segment) {
                Some(track) => (Opening::Tcp(track), tcp_letters_of_first(segment)),
                None => match self.adopt(candidate, segment) {
                    Some(track) => (Opening::Tcp(track), tcp_letters_of_adopted(segment)),
                    None => return invalid(DropReason::TcpNoSession),
                },
            },
            Transport::Sctp { packet, .. } => match sctp::Track::open(packet) {
                Some(association) => (Opening::Sctp(association), [None; 3]),
                None => return invalid(DropReason::SctpNoSession),
            },
            Transport::Dccp { packet, .. } => match dccp::Track::open(packet) {
                Some(connection) => (Opening::Dccp(connection), plain_letters(&parsed.transport)),
                None => return invalid(DropReason::DccpNoSession),
            },
            Transport::IcmpQuery(IcmpQuery { request: false, .. }) => {
                return invalid(DropReason::IcmpReplyNoSession);
            }
            transport => (Opening::Plain, plain_letters(transport)),
        };
        let zone = candidate.flow.key.zone();
        let query = new_session(zone, parsed);
        if T::ON {
            trace_policy(&self.policy, &query, trace);
        }
        let parent = match opening {
            Opening::Tcp(_) => self.helpers.announced(&query, candidate.instant),
            _ => None,
        };
        let new = Tracked {
            class: if parent.is_some() {
                Class::Related
            } else {
                Class::New
            },
            direction: Some(Direction::Original),
            session: None,
            tolerated: None,
        };
        let rule = if let Some(parent) = parent {
            trace.step(|| Step::Note("announced by a control session: admitted by the rule of that one"));
            parent.rule
        } else {
            let decision = self.policy.decide(&query);
            match decision.action {
                Action::Allow => {}
                Action::Deny => return Verdict::Drop(DropReason::PolicyDeny, new),
                Action::Reject => return reject(parsed, new),
            }
            decision.rule
        };
        if let Some(finished) = replaces {
            let ended = shard.remove(finished, EndReason::Reused);
            self.table.release();
            self.trace_ended(place.shard, &ended, trace);
            after.end(ended);
        }
        if shard.is_full() || !self.table.reserve() {
            // Whoever makes room leaves its place in the common count to the newcomer.
            let Some(ended) = shard.make_room(candidate.now.tick()) else {
                trace.step(|| Step::Note("the table is full of sessions that are worth more"));
                return Verdict::Drop(DropReason::TableFull, new);
            };
            self.trace_ended(place.shard, &ended, trace);
            after.end(ended);
        }
        let profile = self
            .lifetimes
            .select(zone, query.src, query.dst, query.protocol, query.dst_port);
        let number = shard.insert(
            place.hash,
            candidate.flow.key,
            candidate.flow.source,
            candidate.now,
            (profile, rule.0),
        );
        let slot = shard.slab.hot_mut(number);
        if let Transport::IcmpQuery(_) = parsed.transport {
            // The asker of a query is not always the end that the packet came from: see `Flow::of`.
            debug_assert_eq!(slot.direction_of(candidate.flow.source), Direction::Original);
        }
        let lifetime = match opening {
            Opening::Tcp(track) => {
                slot.track = track;
                after.believed = true;
                let mode = self.checks.tcp_mode(&self.policy, rule, zone);
                if mode != TcpMode::Strict {
                    slot.track.set_liberal();
                }
                let cap = match track.state() {
                    // Picked up in its middle: nobody has answered yet.
                    State::Established => Some(LifetimeClass::TcpUnacknowledged),
                    _ => None,
                };
                Lifetime {
                    class: track.state().lifetime(),
                    cap,
                }
            }
            Opening::Sctp(association) => {
                slot.set_sctp(association);
                Lifetime::of(association.state().lifetime())
            }
            Opening::Dccp(connection) => {
                slot.set_dccp(connection);
                Lifetime::of(connection.state().lifetime())
            }
            Opening::Plain => {
                if let Some(id) = tunnel_id(&parsed.transport) {
                    slot.note_tunnel_id(Direction::Original, id);
                }
                datagram::lifetime(Family::of(query.protocol), datagram::State::Unreplied)
            }
        };
        slot.count(Direction::Original, parsed.ip.total_len);
        slot.deadline = self.deadline(slot, lifetime, candidate.now, trace);
        let deadline = slot.deadline;
        let id = self.table.id(place.shard, number, slot.generation);
        if let Some(parent) = parent {
            self.helpers.adopted(id, parent.session);
        }
        note(shard, number, Direction::Original, letters);
        shard.hang(number);
        self.table.note_tick(place.shard, deadline);
        after.any_opened = true;
        if S::LISTENS || T::ON {
            after.opened = self.record_of(shard, place.shard, number);
            if let Some(record) = after.opened {
                trace.step(|| Step::Opened(Box::new(record)));
            }
        }
        Verdict::Forward(Tracked {
            session: Some(id),
            ..new
        })
    }

    /// A connection that is picked up in its middle, where a rule or zone lets it be; the policy is asked again,
    /// like for any other new session.
    fn adopt(&self, candidate: &Candidate<'_>, segment: &Segment) -> Option<Track> {
        if !self.checks.any_loose() {
            return None;
        }
        let track = Track::adopt(segment)?;
        let zone = candidate.flow.key.zone();
        let decision = self.policy.look_up(&new_session(zone, candidate.parsed));
        let loose = self.checks.tcp_mode(&self.policy, decision.rule, zone) == TcpMode::Loose;
        (loose && decision.action == Action::Allow).then_some(track)
    }
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

/// What the policy is asked.
fn new_session(zone: Zone, parsed: &Parsed) -> NewSession {
    let (src_port, dst_port, icmp) = match &parsed.transport {
        Transport::Tcp {
            src_port, dst_port, ..
        }
        | Transport::Udp {
            src_port, dst_port, ..
        }
        | Transport::Sctp {
            src_port, dst_port, ..
        }
        | Transport::Dccp {
            src_port, dst_port, ..
        } => (Some(*src_port), Some(*dst_port), None),
        Transport::IcmpQuery(query) => (None, None, Some((query.icmp_type, query.code))),
        _ => (None, None, None),
    };
    NewSession {
        zone,
        src: parsed.ip.source(),
        dst: parsed.ip.destination(),
        protocol: parsed.ip.protocol,
        src_port,
        dst_port,
        icmp,
    }
}

pub(super) fn trace_found<T: Trace>(
    session: SessionRecord,
    direction: Direction,
    now: Instant,
    trace: &mut T,
) {
    trace.step(|| Step::Found {
        idle: now.saturating_duration_since(session.last),
        left: session.expires.saturating_duration_since(now),
        session: Box::new(session),
        direction,
    });
}

fn trace_policy<T: Trace>(policy: &Policy, query: &NewSession, trace: &mut T) {
    let explanation = policy.explain(query);
    for rule in &explanation.considered {
        trace.step(|| match rule.mismatch {
            Some(field) => Step::Policy(format!("rule {}: {} does not match", rule.name, field.name())),
            None => Step::Policy(format!("rule {} matches", rule.name)),
        });
    }
    trace.step(|| {
        let decision = explanation.decision;
        Step::Policy(format!(
            "{} by {}",
            decision.action.name(),
            policy.rule_name(decision.rule)
        ))
    });
}

/// A rejection, if a reply may be sent at all: none to a group, which would multiply it (RFC 1122 3.2.2).
fn reject(parsed: &Parsed, tracked: Tracked) -> Verdict {
    let reply = match parsed.transport {
        Transport::Tcp { .. } => Reply::TcpReset,
        _ => Reply::Prohibited,
    };
    if !may_be_answered(parsed.ip.source()) {
        return Verdict::Drop(DropReason::PolicyReject, tracked);
    }
    let to_group = match parsed.ip.destination() {
        core::net::IpAddr::V4(to) => to.is_multicast() || to.is_broadcast(),
        core::net::IpAddr::V6(to) => to.is_multicast(),
    };
    if to_group {
        return Verdict::Drop(DropReason::PolicyReject, tracked);
    }
    Verdict::Reject(DropReason::PolicyReject, reply, tracked)
}

/// Whether a source is one host that an error may be sent to (RFC 1122 3.2.2, RFC 4443 2.4 e).
const fn may_be_answered(source: core::net::IpAddr) -> bool {
    match source {
        core::net::IpAddr::V4(from) => !(from.is_unspecified() || from.is_loopback()),
        core::net::IpAddr::V6(from) => !(from.is_unspecified() || from.is_loopback()),
    }
}

/// What a packet calls its tunnel.
const fn tunnel_id(transport: &Transport) -> Option<u32> {
    match transport {
        Transport::Gre { key, .. } => key.number(),
        Transport::Esp { spi } | Transport::Ah { spi } => Some(*spi),
        _ => None,
    }
}
