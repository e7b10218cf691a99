//! Step 5 of the packet path, its second part: the admission of a new session.

use super::Engine;
use super::answer::reject;
use super::budget::Destination;
use super::candidate::{Candidate, tunnel_id};
use super::control::ftp_refused;
use super::effects::Effects;
use super::faults::invalid;
use super::helpers::AnnouncedSession;
use super::history_events::note_events;
use super::live::{Live, Locked};
use super::plan::{Opening, Plan};
use super::query::{new_session, trace_policy};
use super::settings::Settings;
use crate::event::{DeniedSession, IcmpTypeCode, LimitReached, Sink};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::limits::{Admitted, Exceeded, LimitAction, LimitScope, Request, Subject};
use crate::packet::Transport;
use crate::policy::{Action, Decision, NewSession, RuleId};
use crate::session::{EndReason, Mark, Newcomer, Opened, SlotId};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// Verdict on a packet whose session would exceed a limit.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    action: LimitAction,
    reason: DropReason,
}

/// A new session that needs a place in the table.
#[derive(Clone, Copy)]
struct Applicant<'a, 'c> {
    settings: &'c Settings,
    candidate: &'c Candidate<'c>,
    subject: Subject<'a>,
    permit: &'c Permit<'c>,
}

/// A permission of the policy to open a session.
///
/// A permit is completed in place, and passed on by reference as the plan is: both are large, and a
/// copy of data that was just written waits for the stores.
struct Permit<'p> {
    plan: &'p Plan,
    query: NewSession,
    rule: RuleId,
    /// The announcement that admits the session regardless of the policy.
    announced: Option<AnnouncedSession>,
    /// The decision of a rule that only audits.
    audited: Option<Decision>,
    /// Tracking result of the packet as far as it is known.
    tracked: Tracked,
}

impl<'p> Permit<'p> {
    /// Returns the permission before the policy has decided.
    #[inline(always)]
    fn undecided(query: NewSession, plan: &'p Plan) -> Self {
        Self {
            plan,
            query,
            rule: RuleId::DEFAULT,
            announced: None,
            audited: None,
            tracked: Tracked {
                direction: Some(plan.direction),
                late: plan.late,
                ..Tracked::class(Class::New)
            },
        }
    }
}

impl Engine {
    /// Runs step 5. A packet whose session another engine may have had is held first
    /// ([`Engine::ask_elsewhere`]). `replaces` is a finished session whose ports the packet reuses,
    /// if the policy admits it.
    pub(super) fn miss<S: Sink, T: Trace>(
        &self,
        locked: &mut Locked<'_>,
        candidate: &Candidate<'_>,
        replaces: Option<SlotId>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let settings = locked.settings;
        if candidate.can_ask
            && replaces.is_none()
            && let Some(verdict) = self.ask_elsewhere(settings, candidate, effects, trace)
        {
            return verdict;
        }
        let planned = self.plan(settings, candidate, effects, trace);
        let plan = match &planned {
            Ok(plan) => plan,
            Err(verdict) => return *verdict,
        };
        let zone = candidate.flow.key.zone();
        if settings.is_outside(zone, &candidate.parsed.ip) {
            return invalid(DropReason::AddressOutside);
        }
        let query = new_session(zone, candidate.parsed, plan.direction);
        let mut permit = Permit::undecided(query, plan);
        let denied = self.permit::<S, T>(settings, candidate, &mut permit, effects, trace);
        if let Err(verdict) = denied {
            return verdict;
        }
        if let Some(verdict) = self.bars(settings, candidate, &permit, trace) {
            return verdict;
        }
        // A session that replaces a finished one does not increase the count.
        let is_syn = matches!(plan.opening, Opening::Tcp(_)) && plan.marks.is_empty();
        if is_syn
            && permit.announced.is_none()
            && replaces.is_none()
            && let Some(verdict) = self.challenge(settings, candidate, permit.tracked, trace)
        {
            return verdict;
        }
        let applicant = Applicant {
            settings,
            candidate,
            subject: Subject {
                key: &candidate.flow.key,
                initiator: plan.initiator(candidate.flow.source),
                rule: permit.rule,
            },
            permit: &permit,
        };
        let admitted = self.place::<S, T>(locked, &applicant, replaces, effects, trace);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(verdict) => {
                if let Some(announced) = &permit.announced {
                    self.helpers.give_back(announced, candidate.instant);
                }
                return verdict;
            }
        };
        let slot = locked.shard.insert(
            locked.place.hash,
            &Opened {
                subject: applicant.subject,
                profile: settings.profile(&permit.query, permit.rule),
                now: candidate.now,
                counts: admitted.keep(),
            },
        );
        self.open::<S, T>(&mut locked.live(slot), candidate, &permit, effects, trace)
    }

    /// Evaluates the policy, unless a control session has announced the new session.
    ///
    /// # Errors
    /// Returns the verdict on a packet that is not admitted.
    #[inline(always)]
    fn permit<S: Sink, T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        permit: &mut Permit<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<(), Verdict> {
        let plan = permit.plan;
        if T::ON {
            trace_policy(&settings.policy, &permit.query, trace);
        }
        let is_tcp = matches!(plan.opening, Opening::Tcp(_));
        if is_tcp
            && plan.marks.is_empty()
            && let Some(announced) =
                self.helpers
                    .announced(&permit.query, settings, candidate.instant)
        {
            trace.step(|| {
                Step::Note("announced by a control session: admitted by the rule of that one")
            });
            permit.tracked.class = Class::Related;
            permit.rule = announced.rule;
            permit.announced = Some(announced);
            return Ok(());
        }
        let tracked = permit.tracked;
        if candidate.sheddable && !self.passes_under_overload(settings, candidate) {
            trace.step(|| {
                Step::Note(
                    "the caller is overloaded: only packets of sessions pass, and \
                                      SYNs unless they are the flood",
                )
            });
            return Err(Verdict::Drop(DropReason::Overload, tracked));
        }
        let decision = settings.policy.decide(&permit.query);
        self.rule_counters.matched(decision.rule, candidate.now);
        if !decision.action.admits() && !is_tcp {
            // The packet is evidence if it answers a packet that went through another zone; the
            // policy stands.
            effects.search_other_zones(settings);
            effects.stands = true;
        }
        if S::LISTENS && !decision.action.admits() && plan.marks.is_empty() {
            effects.denied = Some(denied(candidate, decision));
        }
        match decision.action {
            Action::Allow => {}
            Action::Audit => permit.audited = Some(decision),
            Action::Deny => return Err(Verdict::Drop(DropReason::PolicyDeny, tracked)),
            Action::Reject => {
                let parsed = candidate.parsed;
                return Err(reject(DropReason::PolicyReject, parsed, tracked));
            }
        }
        permit.rule = decision.rule;
        Ok(())
    }

    /// Returns the verdict on a packet that may not be the first of its session although the policy
    /// admits it.
    #[inline(always)]
    fn bars<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        permit: &Permit<'_>,
        trace: &mut T,
    ) -> Option<Verdict> {
        let barred = if settings.bars_options(&candidate.parsed.ip, permit.rule) {
            Some(invalid(DropReason::IpOptions))
        } else if self
            .log_gate
            .bars(&settings.policy, permit.rule, permit.audited.is_some())
        {
            trace.step(|| Step::Note("the session log cannot be written: no new session"));
            Some(Verdict::Drop(DropReason::LogUnavailable, permit.tracked))
        } else {
            None
        };
        if barred.is_some() {
            if let Some(announced) = &permit.announced {
                self.helpers.give_back(announced, candidate.instant);
            }
            return barred;
        }
        let is_whole = !candidate.bytes.is_empty();
        let bars = permit.announced.is_none()
            && settings
                .ftp
                .bars_opening(&permit.query, permit.rule, candidate.parsed, is_whole);
        bars.then(|| ftp_refused(permit.tracked))
    }

    /// Finds a place for a new session within all limits, and ends the sessions that it displaces.
    ///
    /// # Errors
    /// Returns the verdict on the packet if there is no place.
    #[inline(always)]
    fn place<'a, S: Sink, T: Trace>(
        &'a self,
        locked: &mut Locked<'_>,
        applicant: &Applicant<'a, '_>,
        replaces: Option<SlotId>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Admitted<'a>, Verdict> {
        let Applicant {
            settings,
            candidate,
            subject,
            permit,
        } = *applicant;
        let new = permit.tracked;
        let request = Request {
            source: candidate.source,
            is_announced: permit.announced.is_some(),
            replaces: replaces.map(|finished| locked.shard.slab.counted(finished)),
            now: candidate.now,
        };
        let admitted = self
            .within_limits::<S, T>(applicant, request, effects, trace)
            .map_err(|refusal| self.over_limit(settings, candidate, refusal, new))?;
        let shard_id = locked.place.shard;
        if let Some(finished) = replaces {
            let ended = locked.shard.remove(finished, EndReason::Reused);
            self.ended_here(shard_id, &ended, candidate.now, effects, trace);
        }
        let is_full = locked.shard.is_full() || !self.accounts.claim(subject.key.zone());
        if !is_full || self.made_room(locked, applicant, effects, trace) {
            return Ok(admitted);
        }
        trace.step(|| Step::Note("the table is full of sessions that are worth more"));
        // The session is still counted here, as the limits must include it.
        Err(match self.accounts.why_full(subject) {
            Some(exceeded) => {
                let refused = self.exceeds::<S, T>(applicant, exceeded, effects, trace);
                self.over_limit(settings, candidate, refused, new)
            }
            None => Verdict::Drop(DropReason::TableFull, new),
        })
    }

    /// Evicts a session of a full table for a new one. Returns whether the new session has the
    /// place.
    fn made_room<T: Trace>(
        &self,
        locked: &mut Locked<'_>,
        applicant: &Applicant<'_, '_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> bool {
        let (settings, shard_id) = (locked.settings, locked.place.shard);
        let now = applicant.candidate.now;
        let newcomer = Newcomer {
            subject: applicant.subject,
            now,
        };
        // The place of a session that was over may be reserved for its own zone; then another
        // session is evicted.
        for _ in 0..2 {
            let room = locked.shard.make_room(&newcomer, |slab, slot_id| {
                self.extend_for_children(settings, shard_id, slab.hot(slot_id), slot_id, now)
                    .or_else(|| {
                        // Another engine may own it: the next expiry asks before it ends.
                        let is_to_ask = self.fixed.continuity && slab.is_to_ask(slot_id);
                        is_to_ask.then(|| now.tick().saturating_add(1))
                    })
            });
            let Some(room) = room else { break };
            self.ended_here(shard_id, &room.ended, now, effects, trace);
            if room.is_granted {
                return true;
            }
        }
        false
    }

    /// Begins the session in a slot that was taken for it.
    #[inline(always)]
    fn open<S: Sink, T: Trace>(
        &self,
        live: &mut Live<'_>,
        candidate: &Candidate<'_>,
        permit: &Permit<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let (plan, settings) = (permit.plan, live.settings);
        self.begin(live, candidate, plan, permit.rule, effects);
        let slot = live.hot_mut();
        if plan.direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.count(plan.direction, candidate.parsed.ip.total_len);
        let lifetime = slot.lifetime();
        slot.deadline = settings.deadline(slot, lifetime, candidate.now, trace);
        let id = live.id();
        if let Some(announced) = &permit.announced {
            self.helpers.note_announced(id, announced);
        }
        let passes = !plan.marks.contains(&Mark::Adopted)
            || self.gate_adopted(live, candidate, plan.direction, effects, trace);
        for mark in plan.marks {
            live.cold_mut().set(*mark, true);
        }
        effects.marks = plan.marks;
        live.shard
            .slab
            .note_tunnel(live.slot, plan.direction, candidate.tunnel);
        note_events(live.shard, live.slot, plan.direction, plan.events);
        live.schedule();
        self.note_begun(settings, &candidate.flow.key);
        effects.any_opened = true;
        if S::LISTENS || T::ON {
            effects.opened = live.record(self);
            if let Some(record) = effects.opened {
                trace.step(|| Step::Opened(Box::new(record)));
            }
        }
        let tracked = Tracked {
            session: Some(id),
            ..permit.tracked
        };
        if !passes {
            return ftp_refused(tracked);
        }
        if let Some(decision) = permit.audited {
            return note_audited::<S>(candidate, decision, tracked, effects);
        }
        Verdict::Forward(tracked)
    }

    /// Sets the state of a new session.
    #[inline(always)]
    fn begin(
        &self,
        live: &mut Live<'_>,
        candidate: &Candidate<'_>,
        plan: &Plan,
        rule: RuleId,
        effects: &mut Effects,
    ) {
        let (id, settings) = (live.id(), live.settings);
        let slot = live.hot_mut();
        if let Transport::IcmpQuery(_) = candidate.parsed.transport {
            // The client of a query is not always the end that sent the packet: see `Flow::of`.
            debug_assert_eq!(
                slot.direction_of(candidate.flow.source),
                Direction::Original
            );
        }
        match &plan.opening {
            Opening::Tcp(track) => {
                slot.track = *track;
                effects.believed = true;
                if !settings.is_strict(rule, candidate.flow.key.zone()) {
                    slot.track.set_liberal();
                }
            }
            Opening::Sctp(association) => {
                slot.set_sctp(*association);
                self.note_paths(id, slot, Direction::Original, candidate, true);
            }
            Opening::Dccp(connection) => slot.set_dccp(*connection),
            Opening::Plain => {
                if let Some(id) = tunnel_id(&candidate.parsed.transport) {
                    slot.note_tunnel_id(Direction::Original, id);
                }
            }
        }
    }

    /// Counts a new session. If the session exceeds a limit, returns the fate of its packet and the
    /// reason.
    #[inline(always)]
    fn within_limits<'a, S: Sink, T: Trace>(
        &'a self,
        applicant: &Applicant<'a, '_>,
        request: Request<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Result<Admitted<'a>, Refusal> {
        let Applicant {
            settings, subject, ..
        } = *applicant;
        let of_rule = settings.policy.bounds(subject.rule);
        self.accounts
            .admit(subject, &settings.limits, &of_rule, &request)
            .map_err(|exceeded| self.exceeds::<S, T>(applicant, exceeded, effects, trace))
    }

    /// Counts and reports a limit that a new session would exceed. Returns the fate of the
    /// session's packet and the reason.
    #[cold]
    #[inline(never)]
    fn exceeds<S: Sink, T: Trace>(
        &self,
        applicant: &Applicant<'_, '_>,
        exceeded: Exceeded,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Refusal {
        let Applicant {
            settings,
            candidate,
            subject,
            ..
        } = *applicant;
        trace.step(|| Step::Limit(exceeded));
        settings.policy.count_limited(subject.rule, exceeded.limit);
        let zone = subject.key.zone();
        let v6 = subject.key.is_ipv6();
        let prefix = settings
            .limits
            .prefixes
            .counted(subject.key.address_number(subject.initiator), v6);
        if S::LISTENS
            && self
                .notices
                .is_due(zone, prefix, exceeded.limit, candidate.now)
        {
            effects.limited = Some(LimitReached {
                exceeded,
                zone,
                src: subject.key.address(subject.initiator),
                dst: subject.key.address(subject.initiator.opposite()),
                rule: subject.rule,
                at: candidate.instant,
            });
        }
        let action = match exceeded.scope {
            LimitScope::Rule => settings.policy.bounds(subject.rule).action,
            LimitScope::Zone | LimitScope::All => settings.limits.of_zone(zone).action,
        };
        Refusal {
            action,
            reason: exceeded.limit.reason(),
        }
    }

    /// Returns the verdict on a packet whose session would exceed a limit.
    #[cold]
    fn over_limit(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        refusal: Refusal,
        new: Tracked,
    ) -> Verdict {
        let Refusal { action, reason } = refusal;
        if action == LimitAction::Drop {
            return Verdict::Drop(reason, new);
        }
        let key = &candidate.flow.key;
        let destination = Destination {
            zone: key.zone(),
            address: key.address_number(candidate.flow.source),
        };
        let verdict = reject(reason, candidate.parsed, new);
        if matches!(verdict, Verdict::Drop(..)) {
            return verdict;
        }
        match self
            .answers
            .take(destination, candidate.now, settings.rates())
        {
            Ok(()) => verdict,
            Err(unsent) => {
                self.counters.reset(Err(unsent));
                Verdict::Drop(reason, new)
            }
        }
    }
}

/// Notes a packet that has opened a session by an audited decision: one that `deny` would have
/// dropped.
#[cold]
#[inline(never)]
fn note_audited<S: Sink>(
    candidate: &Candidate<'_>,
    decision: Decision,
    tracked: Tracked,
    effects: &mut Effects,
) -> Verdict {
    let reason = DropReason::PolicyDeny;
    effects.tolerated = Some((reason, decision.rule));
    if S::LISTENS && effects.marks.is_empty() {
        effects.denied = Some(denied(candidate, decision));
    }
    Verdict::Forward(Tracked {
        tolerated: Some(reason),
        ..tracked
    })
}

/// Returns the report of a packet that the policy prevents from opening a session.
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
        variant: key.variant(),
        icmp: match candidate.parsed.transport {
            Transport::IcmpQuery(query) => Some(IcmpTypeCode {
                kind: query.icmp_type,
                code: query.code,
            }),
            Transport::IcmpOther { kind, code } => Some(IcmpTypeCode { kind, code }),
            _ => None,
        },
        bytes: candidate.parsed.ip.total_len,
        rule: decision.rule,
        action: decision.action,
        log: decision.log,
        at: candidate.instant,
        tunnel: candidate.tunnel,
    }
}
