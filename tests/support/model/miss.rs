//! A packet without a session: the session that it opens or the drop reason, and the evicted
//! session.

use std::time::Duration;

use portcullis::config::Midstream;
use portcullis::event::EndReason;
use portcullis::packet::{Parsed, Segment, Transport};
use portcullis::policy::Action;
use portcullis::track::tcp::{Event, Known, Outcome, Track};
use portcullis::{Class, Direction, DropReason, Reply, SessionId, Tracked, Verdict};

use super::ends::Late;
use super::session::{Session, State, Tuple};
use super::setup::DEFAULT_RULE;
use super::{Log, Run, invalid, tracked};

/// Outcome for a packet without a session.
pub(super) enum Miss {
    Verdict(Verdict),
    /// The packet's session may be in another zone; otherwise, this is the verdict.
    Elsewhere(Verdict),
}

/// The session that a packet without a session would open.
struct Plan {
    state: State,
    direction: Direction,
    adopted: bool,
    resumed: bool,
}

impl Run {
    /// Returns the session that a packet would open, or the verdict on a packet that opens none.
    fn plan(&mut self, tuple: &Tuple, parsed: &Parsed, verdict: Verdict) -> Result<Plan, Miss> {
        let state = match &parsed.transport {
            Transport::Tcp { segment, .. } => match Track::open(segment) {
                Some(track) => State::Tcp(track),
                None => return self.tcp_without_session(tuple, parsed, segment, verdict),
            },
            Transport::IcmpQuery(query) if !query.request => {
                return Err(Miss::Elsewhere(invalid(DropReason::IcmpReplyNoSession)));
            }
            _ => State::Unreplied,
        };
        Ok(Plan {
            state,
            direction: Direction::Original,
            adopted: false,
            resumed: false,
        })
    }

    /// Plans for a segment without a session that is not a SYN.
    fn tcp_without_session(
        &mut self,
        tuple: &Tuple,
        parsed: &Parsed,
        segment: &Segment,
        verdict: Verdict,
    ) -> Result<Plan, Miss> {
        match self.late(tuple, segment, verdict) {
            Some(Late::Verdict(expected)) => return Err(Miss::Verdict(expected)),
            Some(Late::Readmit(direction, refused)) => {
                let track = Track::adopt(segment, direction, true);
                return track
                    .map(|track| Plan {
                        state: State::Tcp(track),
                        direction,
                        adopted: true,
                        resumed: true,
                    })
                    .ok_or(Miss::Verdict(refused));
            }
            None => {}
        }
        match Event::of(segment.flags) {
            Event::SynAck => Err(Miss::Elsewhere(invalid(DropReason::TcpSynAckWithoutSyn))),
            Event::Ack | Event::Fin => match self.midstream(tuple, segment) {
                // A session that would begin here may already exist in the other zone.
                Ok(plan) => match self.elsewhere(tuple, parsed, verdict) {
                    Some(found) => Err(Miss::Verdict(found)),
                    None => Ok(plan),
                },
                refused => refused,
            },
            _ => Err(Miss::Elsewhere(invalid(DropReason::TcpNoSession))),
        }
    }

    /// Plans for a midstream segment of an unknown connection. Either end may be the initiator:
    /// where both are admitted, the end with a well-known port is the responder. Where a rule
    /// decides on the likelier initiator, the policy is not evaluated for the other.
    fn midstream(&self, tuple: &Tuple, segment: &Segment) -> Result<Plan, Miss> {
        let settings = &self.setup.settings;
        let from_responder = tuple.src.1 < 1024 && tuple.src.1 < tuple.dst.1;
        let mut order = [Direction::Original, Direction::Reply];
        if from_responder {
            order.reverse();
        }
        let mut reject = false;
        for direction in order {
            let (action, rule) = settings.decide(&tuple.seen_from(direction));
            let midstream = settings.handling(rule, tuple.zone).midstream;
            reject |= midstream == Midstream::Reject;
            if action.admits()
                && midstream == Midstream::Adopt
                && let Some(track) = Track::adopt(segment, direction, true)
            {
                return Ok(Plan {
                    state: State::Tcp(track),
                    direction,
                    adopted: true,
                    resumed: false,
                });
            }
            if (!action.admits() || midstream != Midstream::Adopt) && rule != DEFAULT_RULE {
                break;
            }
        }
        let reason = DropReason::TcpNoSession;
        Err(Miss::Elsewhere(if reject {
            Verdict::Reject(reason, Reply::TcpReset, tracked(Class::Invalid, None, None))
        } else {
            invalid(reason)
        }))
    }

    /// Returns the verdict on a packet without a session. `replaces` is a finished session whose
    /// ports it takes.
    pub(super) fn miss(
        &mut self,
        tuple: &Tuple,
        parsed: &Parsed,
        replaces: Option<SessionId>,
        log: &mut Log,
        verdict: Verdict,
    ) -> Miss {
        let plan = match self.plan(tuple, parsed, verdict) {
            Ok(plan) => plan,
            Err(miss) => return miss,
        };
        let is_tcp = matches!(plan.state, State::Tcp(_));
        let new = Tracked {
            late: verdict.tracked().late.filter(|_| plan.resumed),
            ..tracked(Class::New, Some(plan.direction), None)
        };
        let initiator = tuple.seen_from(plan.direction);
        let (action, rule) = self.setup.settings.decide(&initiator);
        let refused = match action {
            Action::Allow | Action::Audit => None,
            Action::Deny => Some(Verdict::Drop(DropReason::PolicyDeny, new)),
            Action::Reject => {
                let reply = match parsed.transport {
                    Transport::Tcp { .. } => Reply::TcpReset,
                    Transport::Sctp { .. } => Reply::SctpAbort,
                    _ => Reply::Prohibited,
                };
                Some(Verdict::Reject(DropReason::PolicyReject, reply, new))
            }
        };
        // An adopted segment matches nothing in its zone; of other protocols, this holds for
        // packets that are not admitted.
        let picked_up = plan.adopted && !plan.resumed;
        if let Some(refused) = refused {
            return if is_tcp && !picked_up {
                Miss::Verdict(refused)
            } else {
                Miss::Elsewhere(refused)
            };
        }
        if is_tcp
            && !plan.adopted
            && replaces.is_none()
            && let Some(challenged) = self.challenged(tuple, new, verdict)
        {
            return Miss::Verdict(challenged);
        }
        if let Some(reason) = self.limited(&initiator, replaces) {
            self.tally.limited += 1;
            let limited = Verdict::Drop(reason, new);
            return if picked_up {
                Miss::Elsewhere(limited)
            } else {
                Miss::Verdict(limited)
            };
        }
        if let Some(id) = replaces {
            let (record, reason) = log.take(id).expect("its ports are reused");
            assert_eq!(reason, EndReason::Reused);
            let session = self.remove(id);
            self.ended(&session, &record, reason, log);
        }
        if !self.has_place(initiator.zone) {
            if log.opened.is_empty() {
                let were_over = log.ended.len();
                for (record, reason) in std::mem::take(&mut log.ended) {
                    // The evicted session had expired, and its slot was reserved for its own zone.
                    assert_ne!(reason, EndReason::Evicted);
                    let session = self.remove(record.id);
                    self.died(&session, &record, reason, log);
                }
                // A new session waits for at most two of them.
                if were_over < 2 {
                    self.refuses(initiator.zone);
                } else {
                    self.tally.refused += 1;
                }
                let is_full = self.sessions.len() == self.setup.max_sessions as usize;
                let reason = if is_full {
                    DropReason::TableFull
                } else {
                    DropReason::LimitZoneShare
                };
                let full = Verdict::Drop(reason, new);
                return if picked_up {
                    Miss::Elsewhere(full)
                } else {
                    Miss::Verdict(full)
                };
            }
            self.made_room(initiator.zone, log);
        }
        let mut session = Session {
            id: verdict
                .tracked()
                .session
                .expect("the packet opens a session"),
            initiator,
            rule,
            by_destination: self.setup.settings.limits.per_destination.is_some(),
            lifetimes: self.setup.settings.lifetimes(&initiator),
            start: self.now,
            last: self.now,
            deadline: self.now,
            slack: Duration::ZERO,
            seen_reply: false,
            assured: false,
            adopted: plan.adopted,
            resumed: plan.resumed,
            state: plan.state,
            keys: [None; 2],
            packets: [0; 2],
            bytes: [0; 2],
        };
        session.note_key(plan.direction, parsed);
        session.count(plan.direction, parsed.ip.total_len, self.now);
        session.deadline += session.lifetime(&session.lifetimes);
        assert!(
            self.sessions.iter().all(|other| other.id != session.id),
            "a name is used once"
        );
        assert_eq!(log.opened.len(), 1, "the sink hears of a new session");
        self.agrees(&session, &log.opened.remove(0));
        self.tally.opened += 1;
        self.tally.adopted += u64::from(plan.adopted);
        self.tally.readmitted += u64::from(plan.resumed);
        self.counted.opened += 1;
        self.counted.adopted += u64::from(plan.adopted);
        self.counted.resumed += u64::from(plan.resumed);
        let tracked = Tracked {
            session: Some(session.id),
            tolerated: (action == Action::Audit).then_some(DropReason::PolicyDeny),
            ..new
        };
        self.sessions.push(session);
        Miss::Verdict(Verdict::Forward(tracked))
    }

    /// Returns the verdict on a packet that matches nothing in its own zone, if its session is in
    /// the other one.
    pub(super) fn elsewhere(
        &self,
        tuple: &Tuple,
        parsed: &Parsed,
        verdict: Verdict,
    ) -> Option<Verdict> {
        let there = Tuple {
            zone: 1 - tuple.zone,
            ..*tuple
        };
        let found = self
            .sessions
            .iter()
            .find_map(|session| Some((session, session.direction_of(&there)?)));
        let found = found.or_else(|| {
            let (id, direction) = self.of_pair(&there, verdict, false)?;
            Some((self.find(id), direction))
        });
        let (session, direction) = found?;
        let has_numbers = matches!(
            parsed.transport,
            Transport::Tcp { .. } | Transport::Sctp { .. } | Transport::Dccp { .. }
        );
        if direction == Direction::Original && !has_numbers {
            return None;
        }
        let agrees = verdict.reason() == Some(DropReason::OtherZone);
        if self.now >= session.latest() || self.now >= session.deadline && !agrees {
            return None;
        }
        if let (State::Tcp(track), Transport::Tcp { segment, .. }) =
            (session.state, &parsed.transport)
        {
            let known = Known {
                seen_reply: session.seen_reply,
                assured: session.assured,
                split_handshake: false,
            };
            let outcome = { track }.segment(direction, segment, known, |_| {});
            if matches!(outcome, Outcome::Invalid(_) | Outcome::Reopen) {
                return None;
            }
        }
        let tracked = tracked(Class::Invalid, Some(direction), Some(session.id));
        Some(Verdict::Drop(DropReason::OtherZone, tracked))
    }

    /// Returns the number of sessions of a zone.
    fn sessions_of(&self, zone: u16) -> usize {
        let of_zone = |session: &&Session| session.initiator.zone == zone;
        self.sessions.iter().filter(of_zone).count()
    }

    /// Returns the number of slots of each of the two zones that the other one cannot take.
    fn guarantee(&self) -> usize {
        match self.setup.max_sessions as usize {
            0 | 1 => 0,
            max => (max / 4).max(1),
        }
    }

    /// Returns how far a zone is above its guarantee.
    fn excess(&self, zone: u16) -> usize {
        self.sessions_of(zone).saturating_sub(self.guarantee())
    }

    /// Returns whether a zone can have one more session without the end of another one.
    fn has_place(&self, zone: u16) -> bool {
        let taken = |zone| self.sessions_of(zone).max(self.guarantee());
        self.sessions_of(zone) < self.guarantee()
            || taken(0) + taken(1) < self.setup.max_sessions as usize
    }

    /// Returns whether a new session of a zone may take the slot of a session.
    fn may_evict(&self, zone: u16, session: &Session, excess: [usize; 2]) -> bool {
        let [own, its] = [zone, session.initiator.zone].map(|zone| excess[usize::from(zone)]);
        session.is_evictable(self.now) && (session.initiator.zone == zone || its > own)
    }

    /// Checks that a full table had no session to end for a new session of a zone.
    fn refuses(&mut self, zone: u16) {
        self.tally.refused += 1;
        if self.setup.shards > 1 {
            // The bound is on all shards together, but room is made only in the new session's
            // shard.
            return;
        }
        let excess = [0, 1].map(|zone| self.excess(zone));
        for session in &self.sessions {
            assert!(
                !self.may_evict(zone, session, excess),
                "{session:?} is worth less than a new session"
            );
            assert!(
                !self.finds_what_expired() || self.now < session.latest(),
                "{session:?} has outlived its lifetime"
            );
        }
    }

    /// Checks the session that ended for a new session.
    fn made_room(&mut self, zone: u16, log: &mut Log) {
        let mut ended = std::mem::take(&mut log.ended);
        let (record, reason) = ended.pop().expect("one goes for one that comes");
        for (record, reason) in ended {
            // The slot of the session was reserved for its own zone.
            assert_ne!(reason, EndReason::Evicted);
            let session = self.remove(record.id);
            assert_ne!(session.initiator.zone, zone);
            self.died(&session, &record, reason, log);
        }
        let excess = [0, 1].map(|zone| self.excess(zone));
        let session = self.remove(record.id);
        if reason != EndReason::Evicted {
            self.died(&session, &record, reason, log);
            return;
        }
        self.ended(&session, &record, reason, log);
        self.tally.evicted += 1;
        assert!(
            self.now < session.latest(),
            "{session:?} had expired before it was evicted"
        );
        let class = session.eviction_class();
        assert!(
            self.may_evict(zone, &session, excess),
            "{session:?} was worth more than a new one"
        );
        if self.setup.shards > 1 {
            // The bound is on all shards together, but room is made only in the new session's
            // shard.
            return;
        }
        for other in &self.sessions {
            if self.may_evict(zone, other, excess) {
                let its = |session: &Session| excess[usize::from(session.initiator.zone)];
                assert!(
                    (other.eviction_class(), its(&session)) >= (class, its(other)),
                    "{other:?} is worth less than {session:?}"
                );
            }
            assert!(
                !self.finds_what_expired() || self.now < other.latest(),
                "{other:?} has outlived its lifetime and {session:?} was evicted"
            );
        }
    }

    /// Returns whether a full table is certain to find expired sessions. The table takes a bounded
    /// number of steps, and each session that lives on may take one for each level of the wheel.
    fn finds_what_expired(&self) -> bool {
        let alive = self
            .sessions
            .iter()
            .filter(|session| self.now < session.latest());
        alive.count() * 6 < 16
    }
}
