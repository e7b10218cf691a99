//! Step 5 of the packet path: a packet without a session, and what it may open.

use super::Engine;
use super::answer::{may_be_answered, reject};
use super::candidate::{Candidate, tunnel_id};
use super::effects::After;
use super::evidence::Seen;
use super::faults::invalid;
use super::ftp_settings::Parent;
use super::letters::{Letters, note, plain_letters, tcp_letters_of_adopted, tcp_letters_of_first};
use super::listening::{Heard, Ruling};
use super::query::{new_session, trace_policy};
use super::resets::LateAnswer;
use super::settings::Settings;
use crate::asymmetry::{Evidence, Sign};
use crate::event::{DeniedSession, LimitReached, Sink};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::limits::{Admitted, Exceeded, LimitAction, LimitScope, Request, Subject};
use crate::packet::{IcmpQuery, Segment, Transport};
use crate::policy::handling::{Asymmetric, Midstream, TcpMode};
use crate::policy::{Action, Decision, RuleId};
use crate::session::{EndReason, Mark, Newcomer, Place, Shard};
use crate::snapshot::SavedControl;
use crate::track::tcp::{Event, Track};
use crate::track::{dccp, sctp};
use crate::verdict::{Class, DropReason, Late, Reply, Tracked, Verdict};

/// The first port that is not a well-known one (RFC 6335 6).
const FIRST_REGISTERED_PORT: u16 = 1024;

/// What a packet may open, where it has no session.
enum Opening {
    Tcp(Track),
    Sctp(sctp::Track),
    Dccp(dccp::Track),
    Plain,
}

/// Fate of a packet whose session would exceed a limit.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    action: LimitAction,
    reason: DropReason,
}

/// A session that a packet would open, if the policy admits it.
pub(super) struct Plan {
    opening: Opening,
    letters: Letters,
    /// The direction in which the packet travels: that of the initiator, but where a connection is picked up with a packet
    /// of its responder.
    direction: Direction,
    marks: &'static [Mark],
    /// Of a late packet that is readmitted: what is remembered of its session.
    late: Option<Late>,
}

impl Plan {
    const fn new(opening: Opening, letters: Letters) -> Self {
        Self {
            opening,
            letters,
            direction: Direction::Original,
            marks: &[],
            late: None,
        }
    }

    fn picked_up(track: Track, segment: &Segment, direction: Direction, marks: &'static [Mark]) -> Self {
        Self {
            opening: Opening::Tcp(track),
            letters: tcp_letters_of_adopted(segment),
            direction,
            marks,
            late: None,
        }
    }
}

impl Engine {
    /// Step 5. `replaces` is a finished session whose ports the packet takes, if the policy admits it.
    pub(super) fn miss<S: Sink, T: Trace>(
        &self,
        (shard, settings): (&mut Shard, &Settings),
        place: Place,
        candidate: &Candidate<'_>,
        replaces: Option<u32>,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        let parsed = candidate.parsed;
        let plan = match self.plan(settings, candidate, after, trace) {
            Ok(plan) => plan,
            Err(verdict) => return verdict,
        };
        let zone = candidate.flow.key.zone();
        if settings.is_outside(zone, &parsed.ip) {
            return invalid(DropReason::AddressOutside);
        }
        let query = new_session(zone, parsed, plan.direction);
        if T::ON {
            trace_policy(&settings.policy, &query, trace);
        }
        let parent = match plan.opening {
            Opening::Tcp(_) if plan.marks.is_empty() => {
                self.helpers.announced(&query, settings, candidate.instant)
            }
            _ => None,
        };
        let new = Tracked {
            class: if parent.is_some() {
                Class::Related
            } else {
                Class::New
            },
            direction: Some(plan.direction),
            session: None,
            tolerated: None,
            late: plan.late,
        };
        let mut audited = None;
        let rule = if let Some(parent) = parent {
            trace.step(|| Step::Note("announced by a control session: admitted by the rule of that one"));
            parent.rule
        } else if candidate.sheddable && !self.passes_under_overload(settings, candidate) {
            trace.step(|| Step::Note("the caller is overloaded: only packets of sessions pass, and SYNs unless they are the flood"));
            return Verdict::Drop(DropReason::Overload, new);
        } else {
            let decision = settings.policy.decide(&query);
            self.rule_counters.matched(decision.rule, candidate.now);
            if !decision.action.admits() && !matches!(plan.opening, Opening::Tcp(_)) {
                // Told of, if it is the answer to what went through another zone, but what the policy says stands.
                after.look_elsewhere(settings);
                after.stands = true;
            }
            if S::LISTENS && !decision.action.admits() && plan.marks.is_empty() {
                after.denied = Some(denied(candidate, decision));
            }
            match decision.action {
                Action::Allow => {}
                Action::Audit => audited = Some(decision),
                Action::Deny => return Verdict::Drop(DropReason::PolicyDeny, new),
                Action::Reject => return reject(DropReason::PolicyReject, parsed, new),
            }
            decision.rule
        };
        if settings.bars_options(&parsed.ip, rule) {
            if let Some(announced) = &parent {
                self.helpers.give_back(announced, candidate.instant);
            }
            return invalid(DropReason::IpOptions);
        }
        let is_whole = !candidate.bytes.is_empty();
        if parent.is_none() && settings.ftp.bars_opening(&query, rule, parsed, is_whole) {
            let tracked = Tracked {
                class: Class::Invalid,
                ..new
            };
            return Verdict::Drop(DropReason::FtpRefused, tracked);
        }
        // What takes the place of a finished session adds none.
        let is_syn = matches!(plan.opening, Opening::Tcp(_)) && plan.marks.is_empty();
        if is_syn
            && parent.is_none()
            && replaces.is_none()
            && let Some(verdict) = self.challenge(settings, candidate, new, trace)
        {
            return verdict;
        }
        let initiator = match plan.direction {
            Direction::Original => candidate.flow.source,
            Direction::Reply => candidate.flow.source.opposite(),
        };
        let subject = Subject {
            key: &candidate.flow.key,
            initiator,
            rule,
        };
        let request = Request {
            is_announced: parent.is_some(),
            replaces: replaces.map(|finished| shard.slab.counted(finished)),
            now: candidate.now,
        };
        let admitted = self.within_limits::<S, T>(settings, candidate, subject, request, after, trace);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if let Some(announced) = &parent {
                    self.helpers.give_back(announced, candidate.instant);
                }
                return self.over_limit(settings, candidate, refusal, new);
            }
        };
        if let Some(finished) = replaces {
            let ended = shard.remove(finished, EndReason::Reused);
            self.ended_here(place.shard, &ended, candidate.now, after, trace);
        }
        if shard.is_full() || !self.accounts.claim(zone) {
            // The session that makes room leaves its place to the new one.
            let newcomer = Newcomer {
                subject,
                now: candidate.now,
            };
            let mut is_granted = false;
            // The place of one that was over may be kept for its own zone: then another one goes.
            for _ in 0..2 {
                let room = shard.make_room(&newcomer, |slot, number| {
                    self.spare(settings, place.shard, slot, number, candidate.now)
                });
                let Some(room) = room else { break };
                self.ended_here(place.shard, &room.ended, candidate.now, after, trace);
                is_granted = room.is_granted;
                if is_granted {
                    break;
                }
            }
            if !is_granted {
                trace.step(|| Step::Note("the table is full of sessions that are worth more"));
                if let Some(announced) = &parent {
                    self.helpers.give_back(announced, candidate.instant);
                }
                if let Some(exceeded) = self.accounts.why_full(subject) {
                    let refused = self.exceeds::<S, T>(settings, candidate, subject, exceeded, after, trace);
                    return self.over_limit(settings, candidate, refused, new);
                }
                return Verdict::Drop(DropReason::TableFull, new);
            }
        }
        let profile = settings.profile(&query, rule);
        let number = shard.insert(
            place.hash,
            candidate.flow.key,
            initiator,
            candidate.now,
            (profile, rule.0),
            admitted.keep(),
        );
        let slot = shard.slab.hot_mut(number);
        if let Transport::IcmpQuery(_) = parsed.transport {
            // The asker of a query is not always the end that the packet came from: see `Flow::of`.
            debug_assert_eq!(slot.direction_of(candidate.flow.source), Direction::Original);
        }
        match plan.opening {
            Opening::Tcp(track) => {
                slot.track = track;
                after.believed = true;
                if settings.tcp(rule, zone).mode != TcpMode::Strict {
                    slot.track.set_liberal();
                }
            }
            Opening::Sctp(association) => {
                slot.set_sctp(association);
                let id = self.table.id(place.shard, number, slot.generation);
                self.note_paths(id, slot, Direction::Original, candidate, true);
            }
            Opening::Dccp(connection) => slot.set_dccp(connection),
            Opening::Plain => {
                if let Some(id) = tunnel_id(&parsed.transport) {
                    slot.note_tunnel_id(Direction::Original, id);
                }
            }
        }
        if plan.direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.count(plan.direction, parsed.ip.total_len);
        let lifetime = slot.lifetime();
        slot.deadline = settings.deadline(slot, lifetime, candidate.now, trace);
        let deadline = slot.deadline;
        let id = self.table.id(place.shard, number, slot.generation);
        if let Some(announced) = &parent {
            self.helpers.adopted(id, announced);
        }
        let slot = shard.slab.hot(number);
        let mut passes = true;
        if plan.marks.contains(&Mark::Adopted) && settings.ftp.is_control(slot, rule) {
            let own = Parent { session: id, rule };
            self.helpers
                .go_on(&settings.ftp, slot, own, SavedControl::default());
            if let Transport::Tcp { segment, .. } = &parsed.transport {
                let heard = Heard {
                    direction: plan.direction,
                    segment,
                    payload: candidate.payload(),
                    now: candidate.instant,
                };
                // One that stops ends with the next data of its sender, which nobody lets pass.
                let ruling = self
                    .helpers
                    .control(&settings.ftp, slot, own, &heard, &mut after.helped);
                passes = ruling == Ruling::Passes;
                for note in &after.helped {
                    trace.step(|| Step::Helper(Box::new(*note)));
                }
            }
        }
        for mark in plan.marks {
            shard.slab.cold_mut(number).set(*mark, true);
        }
        after.marks = plan.marks;
        shard.slab.note_tunnel(number, plan.direction, candidate.tunnel);
        note(shard, number, plan.direction, plan.letters);
        shard.hang(number);
        self.table.note_tick(place.shard, deadline);
        self.note_begun(settings, &candidate.flow.key);
        after.any_opened = true;
        if S::LISTENS || T::ON {
            after.opened = self.record_of(shard, place.shard, number);
            if let Some(record) = after.opened {
                trace.step(|| Step::Opened(Box::new(record)));
            }
        }
        let tracked = Tracked {
            session: Some(id),
            ..new
        };
        if !passes {
            let class = Class::Invalid;
            return Verdict::Drop(DropReason::FtpRefused, Tracked { class, ..tracked });
        }
        if let Some(decision) = audited {
            return note_audited::<S>(candidate, decision, tracked, after);
        }
        Verdict::Forward(tracked)
    }

    /// Counts a new session. If it exceeds a limit: what becomes of its packet, and for which
    /// reason.
    fn within_limits<'a, S: Sink, T: Trace>(
        &'a self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        subject: Subject<'a>,
        request: Request<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Result<Admitted<'a>, Refusal> {
        let of_rule = settings.policy.bounds(subject.rule);
        self.accounts
            .admit(subject, &settings.limits, of_rule, request)
            .map_err(|exceeded| self.exceeds::<S, T>(settings, candidate, subject, exceeded, after, trace))
    }

    /// Counts and reports a limit that a new session would exceed. Returns what becomes of its
    /// packet, and for which reason.
    #[cold]
    #[inline(never)]
    fn exceeds<S: Sink, T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        subject: Subject<'_>,
        exceeded: Exceeded,
        after: &mut After,
        trace: &mut T,
    ) -> Refusal {
        trace.step(|| Step::Limit(exceeded));
        settings.policy.count_limited(subject.rule, exceeded.limit);
        let zone = subject.key.zone();
        let v6 = subject.key.is_ipv6();
        let prefix = settings
            .limits
            .prefixes
            .counted(subject.key.address_number(subject.initiator), v6);
        if S::LISTENS && self.notices.is_due(zone, prefix, exceeded.limit, candidate.now) {
            after.limited = Some(LimitReached {
                exceeded,
                zone,
                src: subject.key.address(subject.initiator),
                dst: subject.key.address(subject.initiator.opposite()),
                rule: subject.rule,
                at: candidate.instant,
            });
        }
        let bounds = match exceeded.scope {
            LimitScope::Rule => settings.policy.bounds(subject.rule),
            LimitScope::Zone | LimitScope::All => settings.limits.of_zone(zone),
        };
        Refusal {
            action: bounds.action,
            reason: exceeded.limit.reason(),
        }
    }

    /// The verdict on a packet whose session would exceed a limit.
    #[cold]
    fn over_limit(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        Refusal { action, reason }: Refusal,
        new: Tracked,
    ) -> Verdict {
        if action == LimitAction::Drop {
            return Verdict::Drop(reason, new);
        }
        let key = &candidate.flow.key;
        let destination = (key.zone(), key.address_number(candidate.flow.source));
        let verdict = reject(reason, candidate.parsed, new);
        if matches!(verdict, Verdict::Drop(..)) {
            return verdict;
        }
        match self.answers.take(destination, candidate.now, settings.rates()) {
            Ok(()) => verdict,
            Err(unsent) => {
                self.counters.reset(Err(unsent));
                Verdict::Drop(reason, new)
            }
        }
    }

    /// What a packet would open, or the verdict on one that opens nothing.
    fn plan<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        let plan = match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => match Track::open(segment) {
                Some(track) => Plan::new(Opening::Tcp(track), tcp_letters_of_first(segment)),
                None => return self.headless(settings, candidate, segment, after, trace),
            },
            Transport::Sctp { packet, .. } => match sctp::Track::open(packet) {
                Some(association) => Plan::new(Opening::Sctp(association), [None; 3]),
                None => {
                    after.look_elsewhere(settings);
                    return Err(invalid(DropReason::SctpNoSession));
                }
            },
            transport @ Transport::Dccp { packet, .. } => match dccp::Track::open(packet) {
                Some(connection) => Plan::new(Opening::Dccp(connection), plain_letters(transport)),
                None => {
                    after.look_elsewhere(settings);
                    return Err(invalid(DropReason::DccpNoSession));
                }
            },
            Transport::IcmpQuery(IcmpQuery { request: false, .. }) => {
                after.look_elsewhere(settings);
                return Err(invalid(DropReason::IcmpReplyNoSession));
            }
            transport => Plan::new(Opening::Plain, plain_letters(transport)),
        };
        Ok(plan)
    }

    /// A TCP segment without a session that is no SYN: the late one of a session that has ended, one of a connection whose
    /// beginning or other half was not seen, or a forgery.
    #[cold]
    #[inline(never)]
    fn headless<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        after: &mut After,
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
            after.seen = Some(Seen::alone(Evidence::AfterEnd, Sign::Nothing));
            return match self.late(settings, &tombstone, (flow.source, segment), now) {
                LateAnswer::Verdict(verdict) => {
                    if let Verdict::Reject(..) = verdict {
                        after.answered = Some((tombstone.id, direction));
                    }
                    Err(verdict)
                }
                LateAnswer::Readmit(verdict) => match Track::adopt(segment, direction, true) {
                    Some(track) => Ok(Plan {
                        late: verdict.tracked().late,
                        ..Plan::picked_up(track, segment, direction, &[Mark::Adopted, Mark::Resumed])
                    }),
                    None => Err(verdict),
                },
            };
        }
        let answer = match Event::of(segment.flags) {
            Event::SynAck => self.answer_to_nothing(settings, candidate, segment, after, trace),
            event @ (Event::Ack | Event::Fin) => {
                // Whoever repeats a FIN in vain speaks to somebody who has gone.
                after.seen = Some(match event {
                    Event::Ack => Seen::middle(segment),
                    _ => Seen::present(),
                });
                self.midstream(settings, candidate, segment, after, trace)
            }
            _ => {
                after.seen = Some(Seen::present());
                after.look_elsewhere(settings);
                Err(invalid(DropReason::TcpNoSession))
            }
        };
        let passes = answer.as_ref().err().is_none_or(Verdict::is_forward);
        if passes && !candidate.searched && settings.elsewhere.has_others() {
            // Its session may be in another zone, and then nothing begins here.
            trace.step(|| Step::Note("first its session is looked for in other zones"));
            after.tolerated = None;
            after.look_elsewhere(settings);
            after.then_here = true;
            return Err(invalid(DropReason::TcpNoSession));
        }
        answer
    }

    /// A SYN-ACK whose SYN has not passed here.
    fn answer_to_nothing<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        after: &mut After,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        let reason = DropReason::TcpSynAckWithoutSyn;
        after.seen = Some(Seen::alone(Evidence::SynAckWithoutSyn, Sign::Proof));
        if settings.any_asymmetric {
            let zone = candidate.flow.key.zone();
            let query = new_session(zone, candidate.parsed, Direction::Reply);
            let decision = settings.policy.look_up(&query);
            let mode = settings.tcp(decision.rule, zone).asymmetric;
            match (decision.action, mode) {
                (Action::Allow | Action::Audit, Asymmetric::Bypass) => {
                    if let Some(track) = Track::adopt_answer(segment) {
                        trace.step(|| {
                            Step::Note("its SYN took another path: the session begins with this half of it")
                        });
                        let marks = &[Mark::Adopted, Mark::Bypassed];
                        let mut plan = Plan::picked_up(track, segment, Direction::Reply, marks);
                        plan.letters = [Some(crate::session::history::Letter::Handshake), None, None];
                        return Ok(plan);
                    }
                }
                (Action::Allow | Action::Audit, Asymmetric::Report) => {
                    if let Some(reason) = settings.bars_untracked(zone, &candidate.parsed.ip, decision.rule) {
                        // The rule of its session in another zone may allow it.
                        after.look_elsewhere(settings);
                        return Err(invalid(reason));
                    }
                    after.tolerated = Some((reason, decision.rule));
                    return Err(Verdict::Forward(Tracked {
                        tolerated: Some(reason),
                        ..Tracked::class(Class::Invalid)
                    }));
                }
                _ => {}
            }
        }
        after.look_elsewhere(settings);
        Err(invalid(reason))
    }

    /// A segment of the middle of a connection that was never seen. Either end may have begun it: where both are admitted,
    /// a well-known port is that of the responder. Where a rule, and not the default, speaks of the likelier of the two,
    /// the other is not asked.
    fn midstream<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        after: &mut After,
        trace: &mut T,
    ) -> Result<Plan, Verdict> {
        after.look_elsewhere(settings);
        let drop = invalid(DropReason::TcpNoSession);
        let (key, source) = (&candidate.flow.key, candidate.flow.source);
        if settings.any_asymmetric
            && let Some(direction) = self.asymmetry.suspected(key, source, candidate.instant)
        {
            // What follows a packet that was let pass is let pass too: there is no session that would tell.
            let query = new_session(key.zone(), candidate.parsed, direction);
            let decision = settings.policy.look_up(&query);
            let mode = settings.tcp(decision.rule, key.zone()).asymmetric;
            if decision.action.admits() && mode == Asymmetric::Report {
                if let Some(reason) = settings.bars_untracked(key.zone(), &candidate.parsed.ip, decision.rule)
                {
                    return Err(invalid(reason));
                }
                let reason = DropReason::TcpNoSession;
                after.tolerated = Some((reason, decision.rule));
                return Err(Verdict::Forward(Tracked {
                    tolerated: Some(reason),
                    ..Tracked::class(Class::Invalid)
                }));
            }
        }
        let failover = self.is_failing_over(settings, candidate.now);
        if !settings.any_midstream && !failover {
            return Err(drop);
        }
        let zone = candidate.flow.key.zone();
        let query = new_session(zone, candidate.parsed, Direction::Original);
        let from_responder = query.src_port < Some(FIRST_REGISTERED_PORT) && query.src_port < query.dst_port;
        let order = if from_responder {
            [Direction::Reply, Direction::Original]
        } else {
            [Direction::Original, Direction::Reply]
        };
        let mut reject = false;
        for direction in order {
            let decision = settings
                .policy
                .look_up(&new_session(zone, candidate.parsed, direction));
            let handling = settings.tcp(decision.rule, zone);
            reject |= handling.midstream == Midstream::Reject;
            let loose = handling.mode == TcpMode::Loose;
            let adopts = loose || failover || handling.midstream == Midstream::Adopt;
            if !decision.action.admits() || !adopts {
                if decision.rule != RuleId::DEFAULT {
                    break;
                }
                continue;
            }
            let until_seen = handling.mode == TcpMode::Strict;
            if let Some(track) = Track::adopt(segment, direction, until_seen) {
                trace.step(|| Step::Note("picked up in the middle of its connection"));
                return Ok(Plan::picked_up(track, segment, direction, &[Mark::Adopted]));
            }
        }
        if reject && may_be_answered(&candidate.parsed.ip) {
            let destination = (key.zone(), key.address_number(source));
            if let Err(unsent) = self.answers.take(destination, candidate.now, settings.rates()) {
                self.counters.reset(Err(unsent));
                return Err(drop);
            }
            return Err(Verdict::Reject(
                DropReason::TcpNoSession,
                Reply::TcpReset,
                Tracked::class(Class::Invalid),
            ));
        }
        Err(drop)
    }
}

/// Notes a packet that has opened a session by an audited decision: what `deny` would have dropped.
#[cold]
#[inline(never)]
fn note_audited<S: Sink>(
    candidate: &Candidate<'_>,
    decision: Decision,
    tracked: Tracked,
    after: &mut After,
) -> Verdict {
    let reason = DropReason::PolicyDeny;
    after.tolerated = Some((reason, decision.rule));
    if S::LISTENS && after.marks.is_empty() {
        after.denied = Some(denied(candidate, decision));
    }
    Verdict::Forward(Tracked {
        tolerated: Some(reason),
        ..tracked
    })
}

/// What is told of a packet that the policy keeps from opening a session.
#[cold]
#[inline(never)]
fn denied(candidate: &Candidate<'_>, decision: Decision) -> DeniedSession {
    let Flow { key, source } = &candidate.flow;
    DeniedSession {
        zone: key.zone(),
        protocol: key.protocol(),
        src: key.address(*source),
        src_port: key.port(*source),
        dst: key.address(source.opposite()),
        dst_port: key.port(source.opposite()),
        bytes: candidate.parsed.ip.total_len,
        rule: decision.rule,
        action: decision.action,
        log: decision.log,
        at: candidate.instant,
        tunnel: candidate.tunnel,
    }
}
