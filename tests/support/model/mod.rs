//! A naive reference model of the session table: a `Vec` of sessions with exact deadlines, searched
//! from front to back, beside an engine with identical input. After every step the two are
//! compared.
//!
//! The model restates the documented rules of UDP, ICMP and other protocols, of tombstones and the
//! packets at a session's end, of reloads and of restarts. For TCP it uses the library's pure
//! [`Track`], which has tests of its own, and checks how the table applies its result. A session
//! whose lifetime has passed may exist for another [`TICK`](portcullis::session::TICK): within it
//! the model follows the engine.

mod challenge;
mod ends;
mod limits;
mod miss;
mod session;
mod setup;

use std::time::{Duration, Instant};

use portcullis::config::Permission;
use portcullis::event::{EndReason, SessionRecord, Sink};
use portcullis::packet::{
    DiscoveryFault, IpVersion, Parsed, QuotedTransport, Segment, SeqNum, Transport, parse,
    validate_discovery,
};
use portcullis::session::EvictionClass;
use portcullis::track::tcp::{Event, Fault, Known, Outcome, PassReason, Track};
use portcullis::{
    Class, Direction, Discard, DropReason, Engine, Packet, Reply, Reset, SessionId, Tracked,
    Verdict, Zone,
};

use self::ends::Tombstone;
pub(crate) use self::limits::Limits;
use self::miss::Miss;
use self::session::{Session, State, Tuple};
pub(crate) use self::setup::{Handling, POLICIES, Settings, Setup};
use super::ops::{Op, Traffic};

/// Events that the sink received.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) opened: Vec<SessionRecord>,
    pub(crate) ended: Vec<(SessionRecord, EndReason)>,
    pub(crate) resets: Vec<Reset>,
}

impl Sink for Log {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.opened.push(*session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((*session, reason));
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }
}

impl Log {
    fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.ended.is_empty() && self.resets.is_empty()
    }

    /// Removes the end of a session from the log and returns it.
    fn take(&mut self, id: SessionId) -> Option<(SessionRecord, EndReason)> {
        let place = self.ended.iter().position(|(record, _)| record.id == id)?;
        Some(self.ended.remove(place))
    }
}

/// Outcomes of a step, for tests that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) ended: u64,
    pub(crate) evicted: u64,
    pub(crate) challenged: u64,
    pub(crate) refused: u64,
    /// Sessions that would have exceeded a limit.
    pub(crate) limited: u64,
    pub(crate) expired: u64,
    pub(crate) invalid: u64,
    /// Packets with identical source and destination addresses that were dropped.
    pub(crate) martians: u64,
    pub(crate) resets: u64,
    pub(crate) late: u64,
    pub(crate) readmitted: u64,
    pub(crate) adopted: u64,
    pub(crate) other_zone: u64,
    /// GRE packets in a session of another key.
    pub(crate) of_pair: u64,
    pub(crate) revoked: u64,
    pub(crate) kept: u64,
    pub(crate) restored: u64,
    /// Ended sessions, in the order of [`EndReason::ALL`].
    pub(crate) by_reason: [u64; EndReason::ALL.len()],
}

/// Expected counters of the engine since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counted {
    opened: u64,
    ended: u64,
    adopted: u64,
    resumed: u64,
    resets_sent: u64,
    number_unknown: u64,
}

/// An engine and its model.
pub(crate) struct Run {
    setup: Setup,
    pub(crate) engine: Engine,
    base: Instant,
    pub(crate) now: Duration,
    traffic: Traffic,
    /// The first moment passed to the engine: its ticks begin there.
    shown: Duration,
    sessions: Vec<Session>,
    /// Sessions that have ended.
    over: Vec<Session>,
    /// Tombstones, oldest first.
    tombstones: Vec<Tombstone>,
    /// The session whose end the verdict reports to the packet's sender, and the packet's
    /// direction.
    answered: Option<(SessionId, Direction)>,
    sources: challenge::Sources,
    counted: Counted,
    pub(crate) tally: Tally,
}

fn invalid(reason: DropReason) -> Verdict {
    Verdict::Drop(reason, tracked(Class::Invalid, None, None))
}

/// Returns the verdict on an error about a session that has ended, as the engine remembers the end.
fn after_end(verdict: Verdict) -> Verdict {
    let late = verdict.tracked().late;
    assert!(late.is_some(), "{verdict:?}");
    let tracked = tracked(Class::Invalid, None, None);
    Verdict::Drop(DropReason::IcmpErrorAfterEnd, Tracked { late, ..tracked })
}

fn tracked(class: Class, direction: Option<Direction>, session: Option<SessionId>) -> Tracked {
    Tracked {
        class,
        direction,
        session,
        tolerated: None,
        late: None,
    }
}

impl Run {
    pub(crate) fn new(setup: Setup) -> Self {
        let (engine, base) = (setup.engine(), Instant::now());
        engine.expire_with(base, 0, &mut Discard);
        Self {
            engine,
            setup,
            base,
            now: Duration::ZERO,
            traffic: Traffic::new(),
            shown: Duration::ZERO,
            sessions: Vec::new(),
            over: Vec::new(),
            tombstones: Vec::new(),
            answered: None,
            sources: challenge::Sources::default(),
            counted: Counted::default(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Performs one operation and compares.
    pub(crate) fn step(&mut self, op: &Op) {
        match *op {
            Op::Advance(by) => self.now += by,
            Op::Expire { budget } => {
                self.expire(budget);
            }
            Op::Reload(ref settings) => self.reload(settings),
            Op::Restart { down } => self.restart(down),
            _ => {
                for (zone, bytes) in self.traffic.packets(op) {
                    let _ = self.packet(zone, &bytes);
                    self.compare();
                }
            }
        }
        self.compare();
    }

    /// Ends everything that is due.
    pub(crate) fn expire(&mut self, budget: usize) -> bool {
        let mut log = Log::default();
        // No verdict reports these ends. After a restart, a session may have the identifier of one
        // whose end the last verdict reported.
        self.answered = None;
        let done = self.engine.expire_with(self.instant(), budget, &mut log);
        assert!(log.opened.is_empty());
        assert_eq!(done.ended, log.ended.len(), "each end is reported");
        assert!(
            done.ended + done.moved <= budget,
            "{done:?}, budget {budget}"
        );
        for (record, reason) in std::mem::take(&mut log.ended) {
            let session = self.remove(record.id);
            self.died(&session, &record, reason, &mut log);
        }
        assert!(log.is_empty(), "unexpected: {log:?}");
        if !done.more {
            for session in &self.sessions {
                assert!(
                    session.latest() > self.now,
                    "nothing more is due, yet {session:?} is there at {:?}",
                    self.now
                );
            }
        } else {
            assert_eq!(
                done.ended + done.moved,
                budget,
                "more is due only where the budget ran out"
            );
        }
        done.more
    }

    /// Decides a packet and compares the verdict and the events.
    pub(crate) fn packet(&mut self, zone: u16, bytes: &[u8]) -> Verdict {
        let before = self.records();
        let mut log = Log::default();
        let packet = Packet::new(bytes, self.instant()).zone(Zone(zone));
        let verdict = self.engine.process_with(packet, &mut log);
        let silent = log.is_empty();
        self.answered = match verdict {
            Verdict::Reject(.., tracked) if tracked.late.is_some() => {
                tracked.session.zip(tracked.direction)
            }
            _ => None,
        };
        let expected = self.expected(zone, bytes, &mut log, verdict);
        assert_eq!(verdict, expected);
        assert!(log.is_empty(), "unexpected: {log:?}");
        if verdict.tracked().class == Class::Invalid {
            self.tally.invalid += 1;
            if silent {
                let after = self.records();
                assert!(after == before, "an invalid packet changes nothing");
            }
        }
        if let Verdict::Reject(_, Reply::Challenge(cookie), _) = verdict {
            self.compare();
            return self.answers(zone, bytes, cookie);
        }
        verdict
    }

    fn expected(&mut self, zone: u16, bytes: &[u8], log: &mut Log, verdict: Verdict) -> Verdict {
        let parsed = match parse(bytes, portcullis::config::Checksums::Verify) {
            Ok(parsed) => parsed,
            Err(malformed) => return invalid(DropReason::Malformed(malformed)),
        };
        // The traffic has no martians but these.
        if self.setup.settings.martians == Permission::Drop && parsed.ip.src == parsed.ip.dst {
            self.tally.martians += 1;
            return invalid(DropReason::AddressLand);
        }
        let Some(tuple) = Tuple::of(zone, &parsed) else {
            return match &parsed.transport {
                Transport::Fragment(_) => invalid(DropReason::FragmentBeforeFirst),
                Transport::Discovery { kind: 137 } => invalid(DropReason::IcmpRedirect),
                Transport::Discovery { .. } => match validate_discovery(bytes, &parsed) {
                    Ok(()) => Verdict::Forward(tracked(Class::Untracked, None, None)),
                    Err(DiscoveryFault::OffLink) => invalid(DropReason::DiscoveryOffLink),
                    Err(DiscoveryFault::Malformed(fault)) => invalid(DropReason::Malformed(fault)),
                },
                Transport::IcmpError(_) => {
                    self.related(zone, &parsed, verdict).unwrap_or_else(invalid)
                }
                _ => invalid(DropReason::IcmpTypeUnsupported),
            };
        };
        let found = self
            .sessions
            .iter()
            .find_map(|session| Some((session.id, session.direction_of(&tuple)?)));
        let mut replaces = None;
        if let Some((id, direction)) = found
            && !self.outlived(id, log)
        {
            if let Some(expected) = self.hit(id, direction, &parsed, log) {
                return expected;
            }
            replaces = Some(id);
        }
        if let Some((id, direction)) = self.of_pair(&tuple, verdict, false)
            && let Some(expected) = self.hit(id, direction, &parsed, log)
        {
            self.tally.of_pair += 1;
            return expected;
        }
        if self.is_answer(&tuple, bytes) {
            return invalid(DropReason::SynValidated);
        }
        match self.miss(&tuple, &parsed, replaces, log, verdict) {
            Miss::Verdict(expected) => expected,
            Miss::Elsewhere(expected) => {
                let by_policy = matches!(
                    expected.reason(),
                    Some(DropReason::PolicyDeny | DropReason::PolicyReject)
                );
                if by_policy {
                    // The policy's verdict on a packet stands, even if another zone has a session
                    // of its addresses.
                    return expected;
                }
                if let Some(elsewhere) = self.elsewhere(&tuple, &parsed, verdict) {
                    self.tally.other_zone += 1;
                    return elsewhere;
                }
                expected
            }
        }
    }

    /// Returns the session of its address pair that a GRE packet belongs to if none has its key,
    /// and the direction there. The engine decides between sessions that match equally well, and
    /// whether a session at the end of its lifetime still exists.
    fn of_pair(
        &self,
        tuple: &Tuple,
        verdict: Verdict,
        any: bool,
    ) -> Option<(SessionId, Direction)> {
        if tuple.protocol != 47 {
            return None;
        }
        let in_pair = |session: &Session| {
            let direction = session.initiator.direction_in_pair(tuple)?;
            let fits = any || direction == Direction::Reply;
            (fits && self.now < session.latest()).then(|| (session.clone(), direction))
        };
        let candidates: Vec<_> = self.sessions.iter().filter_map(in_pair).collect();
        let chosen = verdict.tracked().session;
        let best = candidates
            .iter()
            .find(|(session, _)| Some(session.id) == chosen);
        for (session, direction) in &candidates {
            let is_worse = best.is_some_and(|(best, own)| {
                best.fit(*own, tuple.gre) >= session.fit(*direction, tuple.gre)
            });
            assert!(
                is_worse || self.now >= session.deadline,
                "{verdict:?} although {session:?} fits"
            );
        }
        best.map(|(session, direction)| (session.id, *direction))
    }

    /// Returns whether the packet of a session arrived after the session's end.
    fn outlived(&mut self, id: SessionId, log: &mut Log) -> bool {
        let by_time = |(_, reason): &(SessionRecord, EndReason)| {
            matches!(
                reason,
                EndReason::Timeout | EndReason::Closed | EndReason::Reset
            )
        };
        let place = log
            .ended
            .iter()
            .position(|end| end.0.id == id && by_time(end));
        let session = self.find(id);
        let Some(place) = place else {
            assert!(
                self.now < session.latest(),
                "{session:?} counts as there at {:?}",
                self.now
            );
            return false;
        };
        let (record, reason) = log.ended.remove(place);
        let session = self.remove(id);
        self.died(&session, &record, reason, log);
        true
    }

    fn hit(
        &mut self,
        id: SessionId,
        direction: Direction,
        parsed: &Parsed,
        log: &mut Log,
    ) -> Option<Verdict> {
        let now = self.now;
        let session = self
            .sessions
            .iter_mut()
            .find(|session| session.id == id)
            .unwrap();
        session.note_key(direction, parsed);
        let class = if direction == Direction::Original && !session.seen_reply {
            Class::New
        } else {
            Class::Established
        };
        let mut tracked = tracked(class, Some(direction), Some(id));
        let bytes = parsed.ip.total_len;
        let mut state_before = None;
        let mut proven = None;
        let cap = match (&mut session.state, &parsed.transport) {
            (State::Tcp(track), Transport::Tcp { segment, .. }) => {
                let known = Known {
                    seen_reply: session.seen_reply,
                    assured: session.assured,
                    split_handshake: false,
                };
                let untouched = *track;
                state_before = Some(untouched.state());
                match track.segment(direction, segment, known, |_| {}) {
                    Outcome::Accept {
                        lifetime,
                        assured,
                        tolerated,
                    } => {
                        if assured
                            && tolerated.is_none()
                            && challenge::is_proof(&untouched, track, direction, segment)
                        {
                            proven = Some(session.initiator);
                        }
                        tracked.tolerated = tolerated.map(reason_of);
                        session.assured |= assured;
                        session.count(direction, bytes, now);
                        if let Some(lifetime) = lifetime {
                            assert_eq!(lifetime.class, session.class());
                            lifetime.cap
                        } else {
                            return Some(Verdict::Forward(tracked));
                        }
                    }
                    Outcome::Pass(PassReason::Rst) => {
                        // The packet is only counted.
                        session.count_only(direction, bytes);
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::Pass(_) => {
                        session.count(direction, bytes, now);
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::AcceptAndEnd => {
                        session.count(direction, bytes, now);
                        let (record, reason) = log.take(id).expect("a refused session ends");
                        assert_eq!(reason, EndReason::Refused);
                        let session = self.remove(id);
                        self.ended(&session, &record, reason, log);
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::Reopen => return None,
                    Outcome::Invalid(fault) => {
                        assert_eq!(*track, untouched, "an invalid segment changes nothing");
                        let reason = if completes_unanswered(&untouched, direction, segment, fault)
                        {
                            DropReason::TcpAckWithoutSynAck
                        } else {
                            reason_of(fault)
                        };
                        return Some(Verdict::Drop(
                            reason,
                            Tracked {
                                class: Class::Invalid,
                                ..tracked
                            },
                        ));
                    }
                }
            }
            (state, _) => {
                let age = now - session.start;
                *state = match (*state, direction) {
                    (State::Unreplied, Direction::Original) => State::Unreplied,
                    (State::Unreplied, Direction::Reply) => match session.initiator.protocol {
                        17 if session.initiator.dst.1 == 53 || session.packets[0] == 1 => {
                            State::Exchange
                        }
                        _ => State::Replied,
                    },
                    (State::Exchange | State::Replied, _)
                        if session.initiator.protocol == 17 && age >= Duration::from_secs(2) =>
                    {
                        State::Stream
                    }
                    (State::Exchange, _) if session.initiator.dst.1 != 53 => State::Replied,
                    (other, _) => other,
                };
                session.assured |= *state != State::Unreplied;
                session.count(direction, bytes, now);
                None
            }
        };
        let lifetimes = session.lifetimes;
        let lifetime = lifetimes.of(session.class());
        let refreshed = now + cap.map_or(lifetime, |cap| lifetime.min(lifetimes.of(cap)));
        // Only a segment that continues a TCP handshake or closes the connection moves the
        // session's end forward.
        let kept = match (state_before, &session.state) {
            (None, _) => Duration::ZERO,
            (Some(before), State::Tcp(track))
                if track.state() != before
                    && (before.is_opening()
                        || session.eviction_class() == EvictionClass::Closing) =>
            {
                session.deadline.min(now + lifetime)
            }
            (Some(_), _) => session.deadline,
        };
        // The older deadline may be later than `kept` by the slack; in that case it stays.
        session.slack = (kept + session.slack).saturating_sub(refreshed.max(kept));
        session.deadline = refreshed.max(kept);
        if let Some(initiator) = proven {
            self.has_proven(&initiator);
        }
        Some(Verdict::Forward(tracked))
    }

    /// Returns the verdict on an ICMP error, or the reason for which it is invalid.
    fn related(&self, zone: u16, parsed: &Parsed, verdict: Verdict) -> Result<Verdict, DropReason> {
        let Transport::IcmpError(error) = &parsed.transport else {
            unreachable!();
        };
        let quoted = &error.quoted;
        let v6 = quoted.version == IpVersion::V6;
        match error.icmp_type {
            4 if !v6 => return Err(DropReason::IcmpSourceQuench),
            5 if !v6 => return Err(DropReason::IcmpRedirect),
            _ => {}
        }
        let (src_port, dst_port, asks) = match quoted.transport {
            QuotedTransport::Ports { src, dst, .. } => (src, dst, None),
            QuotedTransport::IcmpQuery { id, request, .. } => (id, id, Some(request)),
            QuotedTransport::Other | QuotedTransport::Gre(_) => (0, 0, None),
            QuotedTransport::IcmpOther { .. } => (0, 0, Some(true)),
            QuotedTransport::IcmpError => return Err(DropReason::IcmpErrorAboutError),
            QuotedTransport::Fragment => return Err(DropReason::IcmpErrorNoSession),
        };
        if (1..if v6 { 1280 } else { 68 }).contains(&error.mtu) {
            return Err(DropReason::IcmpErrorMtuTooSmall);
        }
        let tuple = Tuple {
            zone,
            v6,
            protocol: quoted.protocol,
            src: (quoted.src, src_port),
            dst: (quoted.dst, dst_port),
            asks,
            message: match quoted.transport {
                QuotedTransport::IcmpOther { kind } => Some(kind),
                _ => None,
            },
            gre: match quoted.transport {
                QuotedTransport::Gre(Some(key)) => key.number(),
                _ => None,
            },
        };
        let found = self
            .sessions
            .iter()
            .find_map(|session| Some((session, session.direction_of(&tuple)?)));
        let found = found.or_else(|| {
            // A quoted key counts like the key of the packet itself.
            let any = matches!(quoted.transport, QuotedTransport::Gre(None));
            let (id, direction) = self.of_pair(&tuple, verdict, any)?;
            Some((self.find(id), direction))
        });
        let is_late = verdict.reason() == Some(DropReason::IcmpErrorAfterEnd);
        let Some((session, direction)) = found else {
            // The engine's note of an ended session is a hint, which may be lost.
            if is_late {
                // The note of an end has no GRE key.
                let was_there = |session: &Session| {
                    let in_pair = || session.initiator.direction_in_pair(&tuple).is_some();
                    session.direction_of(&tuple).is_some() || tuple.protocol == 47 && in_pair()
                };
                assert!(self.over.iter().any(was_there), "{tuple:?} has never ended");
                return Ok(after_end(verdict));
            }
            return Err(DropReason::IcmpErrorNoSession);
        };
        let absent = is_late || verdict.reason() == Some(DropReason::IcmpErrorNoSession);
        if absent {
            assert!(
                self.now >= session.deadline,
                "{session:?} is there at {:?}",
                self.now
            );
            if is_late {
                return Ok(after_end(verdict));
            }
            return Err(DropReason::IcmpErrorNoSession);
        }
        assert!(
            self.now < session.latest(),
            "{session:?} is gone at {:?}",
            self.now
        );
        let tracked = |class| tracked(class, Some(direction.opposite()), Some(session.id));
        if parsed.ip.dst != quoted.src {
            return Ok(Verdict::Drop(
                DropReason::IcmpErrorNotToSender,
                tracked(Class::Invalid),
            ));
        }
        if let (State::Tcp(track), QuotedTransport::Ports { seq: Some(seq), .. }) =
            (&session.state, quoted.transport)
            && !track.may_quote(direction, SeqNum(seq))
        {
            return Ok(Verdict::Drop(
                DropReason::IcmpErrorSequence,
                tracked(Class::Invalid),
            ));
        }
        let is_tunnel = matches!(
            quoted.transport,
            QuotedTransport::Other | QuotedTransport::Gre(_)
        );
        let allowance = if v6 { 0 } else { 20 };
        let is_known = quoted.total_len != 0;
        if is_known && error.mtu >= quoted.total_len + allowance && !is_tunnel {
            return Ok(Verdict::Drop(
                DropReason::IcmpErrorMtuFits,
                tracked(Class::Invalid),
            ));
        }
        Ok(Verdict::Forward(tracked(Class::Related)))
    }

    fn find(&self, id: SessionId) -> &Session {
        self.sessions
            .iter()
            .find(|session| session.id == id)
            .unwrap()
    }

    fn remove(&mut self, id: SessionId) -> Session {
        let place = self.sessions.iter().position(|session| session.id == id);
        self.sessions.remove(place.expect("a session ends once"))
    }

    /// Checks a session that ended because its lifetime had passed.
    fn died(
        &mut self,
        session: &Session,
        record: &SessionRecord,
        reason: EndReason,
        log: &mut Log,
    ) {
        assert!(
            self.now >= session.deadline,
            "{session:?} ended at {:?}, before its lifetime",
            self.now
        );
        assert_eq!(reason, session.end_of_life());
        self.ended(session, record, reason, log);
        self.tally.expired += 1;
    }

    /// Checks a record against the model's session.
    fn agrees(&self, session: &Session, record: &SessionRecord) {
        let tuple = &session.initiator;
        assert_eq!(record.id, session.id);
        assert_eq!(record.zone, Zone(tuple.zone));
        assert_eq!(record.protocol, tuple.protocol);
        assert_eq!(
            (record.src_port, record.dst_port),
            (tuple.src.1, tuple.dst.1)
        );
        assert_eq!(record.src.is_ipv6(), tuple.v6);
        assert_eq!(record.state, session.state_name());
        assert_eq!(record.assured, session.assured, "{session:?}");
        assert_eq!(
            [record.original.packets, record.reply.packets],
            session.packets
        );
        assert_eq!([record.original.bytes, record.reply.bytes], session.bytes);
        assert_eq!(record.start, self.base + session.start);
        assert_eq!(record.last, self.base + session.last);
        assert_eq!(
            (record.adopted, record.resumed),
            (session.adopted, session.resumed)
        );
        assert!(!record.bypassed);
        assert_eq!(self.engine.policy().rule_name(record.rule), session.rule);
        let deadline = self.base + session.deadline;
        assert!(
            deadline <= record.expires && record.expires < self.base + session.latest(),
            "{session:?} announces its end {:?} late",
            record.expires.checked_duration_since(deadline)
        );
    }

    pub(crate) fn records(&self) -> Vec<SessionRecord> {
        let mut records = Vec::new();
        self.engine.for_each_session(|record| records.push(*record));
        records
    }

    /// Compares the visible state of the engine with the model.
    pub(crate) fn compare(&self) {
        let records = self.records();
        assert_eq!(records.len(), self.sessions.len());
        for record in &records {
            self.agrees(self.find(record.id), record);
        }
        let stats = self.engine.stats();
        let ended: u64 = stats.sessions_ended.iter().map(|(_, count)| count).sum();
        assert_eq!(self.engine.sessions(), self.sessions.len());
        assert_eq!(stats.sessions, self.sessions.len());
        let unsent: u64 = stats.resets_unsent.iter().map(|(_, count)| count).sum();
        let counted = Counted {
            opened: stats.sessions_opened,
            ended,
            adopted: stats.sessions_adopted,
            resumed: stats.sessions_resumed,
            resets_sent: stats.resets_sent,
            number_unknown: unsent,
        };
        assert_eq!(counted, self.counted);
        assert_eq!(stats.tombstones, self.tombstones.len());
        assert_eq!(stats.sessions_opened - ended, self.sessions.len() as u64);
        assert!(self.sessions.len() <= self.setup.max_sessions as usize);
        for (class, count) in stats.sessions_by_worth {
            let expected = self
                .sessions
                .iter()
                .filter(|session| session.eviction_class() == class)
                .count();
            assert_eq!(count, expected, "{class:?}");
        }
        if let Some(first) = records.iter().map(|record| record.expires).min() {
            let next = self.engine.next_expiry();
            assert!(
                next.is_some_and(|next| next <= first),
                "{next:?} is later than {first:?}"
            );
        }
        self.engine.check_invariants().unwrap();
    }
}

fn reason_of(fault: Fault) -> DropReason {
    match fault {
        Fault::State => DropReason::TcpState,
        Fault::SeqAboveWindow => DropReason::TcpSeqAboveWindow,
        Fault::AckOfUnseen => DropReason::TcpAckOfUnseen,
        Fault::SplitHandshake => DropReason::TcpSplitHandshake,
        Fault::RstBelowWindow => DropReason::TcpRstBelowWindow,
    }
}

/// Returns whether a segment completes a handshake whose SYN-ACK has not passed: an ACK of the
/// initiator, at most a megabyte after its SYN.
fn completes_unanswered(
    track: &Track,
    direction: Direction,
    segment: &Segment,
    fault: Fault,
) -> bool {
    let ahead = segment.seq.0.wrapping_sub(track.side(direction).peer.end.0);
    fault == Fault::State
        && track.state().name() == "SYN_SENT"
        && direction == Direction::Original
        && Event::of(segment.flags) == Event::Ack
        && ahead <= 1 << 20
}
