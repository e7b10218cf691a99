//! Consequences and causes of a session's end: RSTs, tombstones, late packets, reloads, restarts.

use std::time::{Duration, SystemTime};

use portcullis::config::{LatePacket, OnReload};
use portcullis::event::{EndReason, SessionRecord};
use portcullis::packet::{Segment, TcpFlags};
use portcullis::session::TICK;
use portcullis::track::tcp::{Event, PeerFlags, Track};
use portcullis::{Class, Direction, DropReason, Reply, RestoreOptions, Tracked, Verdict};

use super::super::packets::{TcpPacket, tcp_packet};
use super::session::{Session, State, Tuple};
use super::setup::{DEFAULT_RULE, Settings, Setup};
use super::{Counted, Log, Run};

/// A number that no session has: those of this engine are above 2^32.
const OF_ANOTHER_ENGINE: u64 = 1;

/// Sequence number that an end of a connection expects, if it has acknowledged any, and the end of
/// the data that it has sent.
type Numbers = (Option<u32>, u32);

fn numbers(track: &Track, direction: Direction) -> Numbers {
    let side = track.side(direction);
    let known = side.flags.contains(PeerFlags::MAX_ACK_KNOWN);
    (known.then_some(side.peer.max_ack.0), side.peer.end.0)
}

/// Remembered state of a session.
#[derive(Debug, Clone)]
pub(super) struct Tombstone {
    initiator: Tuple,
    rule: &'static str,
    /// The number of the session; [`OF_ANOTHER_ENGINE`] if another engine had it.
    id: u64,
    reason: EndReason,
    ended: Duration,
    /// Numbers of the initiator and the responder.
    ends: [Numbers; 2],
    challenged: [bool; 2],
}

/// Outcome for a late packet.
pub(super) enum Late {
    Verdict(Verdict),
    /// A new session in this direction, else the verdict.
    Readmit(Direction, Verdict),
}

impl Run {
    /// Checks a session that has ended: its record, its RSTs and its tombstone.
    pub(super) fn ended(
        &mut self,
        session: &Session,
        record: &SessionRecord,
        reason: EndReason,
        log: &mut Log,
    ) {
        self.agrees(session, record);
        self.tally.ended += 1;
        self.over.push(session.clone());
        let kind = EndReason::ALL.iter().position(|each| *each == reason);
        self.tally.by_reason[kind.unwrap()] += 1;
        self.counted.ended += 1;
        self.told(session, reason, log);
        self.bury(session, reason);
    }

    /// Checks the RSTs of a session: to both ends of a session that is established or half-closed,
    /// each with the number that the receiver has acknowledged last.
    fn told(&mut self, session: &Session, reason: EndReason, log: &mut Log) {
        let (own, others) = std::mem::take(&mut log.resets)
            .into_iter()
            .partition(|reset| reset.session == session.id);
        log.resets = others;
        let mut sent: Vec<portcullis::Reset> = own;
        let live = matches!(
            session.state_name(),
            "ESTABLISHED" | "FIN_WAIT" | "CLOSE_WAIT" | "LAST_ACK"
        );
        let handling = self
            .setup
            .settings
            .handling(session.rule, session.initiator.zone);
        let State::Tcp(track) = session.state else {
            assert!(sent.is_empty(), "a RST ends TCP alone: {sent:?}");
            return;
        };
        if !live
            || !handling.timeout_reset
            || !matches!(reason, EndReason::Timeout | EndReason::Revoked)
        {
            assert!(
                sent.is_empty(),
                "{session:?} ends by {reason:?} with {sent:?}"
            );
            return;
        }
        for direction in Direction::BOTH {
            if self.answered == Some((session.id, direction.opposite())) {
                // The verdict reports the session's end to this end.
                continue;
            }
            let (Some(seq), _) = numbers(&track, direction.opposite()) else {
                self.counted.number_unknown += 1;
                continue;
            };
            let (ack, _) = numbers(&track, direction);
            assert!(
                !sent.is_empty(),
                "{session:?} ends without a RST {direction:?}"
            );
            let reset = sent.remove(0);
            assert_eq!(
                (reset.direction, reset.zone.0),
                (direction, session.initiator.zone)
            );
            let from = session.initiator.seen_from(direction);
            let expected = TcpPacket {
                src: from.socket(from.src),
                dst: from.socket(from.dst),
                ttl: 64,
                seq,
                ack,
                rst: true,
                others: false,
                bare: true,
            };
            assert_eq!(tcp_packet(reset.bytes()), expected);
            self.tally.resets += 1;
            self.counted.resets_sent += 1;
        }
        assert!(sent.is_empty(), "{session:?} ends with {sent:?} too");
    }

    fn bury(&mut self, session: &Session, reason: EndReason) {
        let State::Tcp(track) = session.state else {
            return;
        };
        let ends = &session.initiator;
        self.tombstones
            .retain(|older| older.initiator.direction_of(ends).is_none());
        let before_its_connection = matches!(
            reason,
            EndReason::Timeout | EndReason::Reset | EndReason::Evicted | EndReason::Revoked
        );
        let in_handshake_or_over = matches!(
            session.state_name(),
            "SYN_SENT" | "SYN_SENT2" | "SYN_RECV" | "TIME_WAIT"
        );
        if !before_its_connection || in_handshake_or_over {
            return;
        }
        if self.tombstones.len() >= self.setup.tombstones.max as usize {
            match self.gives_way(session.initiator.zone) {
                Some(place) => drop(self.tombstones.remove(place)),
                // No session is remembered at all.
                None => return,
            }
        }
        self.tombstones.push(Tombstone {
            initiator: session.initiator,
            rule: session.rule,
            id: session.id.number(),
            reason,
            ended: self.now,
            ends: Direction::BOTH.map(|direction| numbers(&track, direction)),
            challenged: [false; 2],
        });
    }

    /// Returns the tombstone that one of a zone displaces: the oldest if it is over, else the
    /// oldest of a zone that has its quarter. That zone is the new tombstone's own, or the one that
    /// has more.
    fn gives_way(&self, zone: u16) -> Option<usize> {
        let oldest = self.tombstones.first()?;
        let max = self.setup.tombstones.max as usize;
        if max < 2 || self.now - oldest.ended >= self.setup.tombstones.lifetime {
            return Some(0);
        }
        let is_of = |zone: u16| move |each: &Tombstone| each.initiator.zone == zone;
        let own = self
            .tombstones
            .iter()
            .filter(|each| is_of(zone)(each))
            .count();
        let from = if own >= (max / 4).max(1) {
            zone
        } else {
            1 - zone
        };
        self.tombstones.iter().position(is_of(from))
    }

    /// Returns the number of the engine's ticks that have begun between two moments.
    fn ticks_between(&self, from: Duration, to: Duration) -> u32 {
        let shown = self.shown.as_micros() as i64;
        let tick =
            |at: Duration| (at.as_micros() as i64 - shown).div_euclid(TICK.as_micros() as i64);
        (tick(to) - tick(from)) as u32
    }

    /// Returns the outcome for a segment whose session is remembered.
    pub(super) fn late(
        &mut self,
        tuple: &Tuple,
        segment: &Segment,
        verdict: Verdict,
    ) -> Option<Late> {
        let find = |tombstone: &Tombstone| tombstone.initiator.direction_of(tuple);
        let (place, direction) = self
            .tombstones
            .iter()
            .enumerate()
            .find_map(|(place, tombstone)| Some((place, find(tombstone)?)))?;
        let tombstone = self.tombstones[place].clone();
        if self.now - tombstone.ended >= self.setup.tombstones.lifetime {
            return None;
        }
        let handling = self.setup.settings.handling(tombstone.rule, tuple.zone);
        let event = Event::of(segment.flags);
        let says = *verdict.tracked();
        let late = says
            .late
            .expect("a late packet is told the end of its session");
        assert_eq!(late.reason, tombstone.reason);
        assert_eq!(
            late.ago(),
            TICK * self.ticks_between(tombstone.ended, self.now)
        );
        let tracked = Tracked {
            class: Class::Invalid,
            direction: Some(direction),
            session: says.session,
            tolerated: None,
            late: says.late,
        };
        let reason = match tombstone.reason {
            EndReason::Timeout => DropReason::TcpAfterTimeout,
            EndReason::Reset => DropReason::TcpAfterReset,
            EndReason::Evicted => DropReason::TcpAfterEviction,
            EndReason::Revoked => DropReason::TcpAfterRevocation,
            other => panic!("{other:?} is not remembered"),
        };
        if event != Event::Rst && handling.late == LatePacket::Readmit {
            return Some(Late::Readmit(direction, Verdict::Drop(reason, tracked)));
        }
        assert_eq!(
            says.session.map(portcullis::SessionId::number),
            Some(tombstone.id)
        );
        self.tally.late += 1;
        let (known, _) = tombstone.ends[direction as usize];
        let answered = match handling.late {
            _ if event == Event::Rst => false,
            LatePacket::Drop => {
                let told = matches!(tombstone.reason, EndReason::Timeout | EndReason::Revoked);
                let challenge = event == Event::Ack && segment.payload_len == 0;
                let first = !self.tombstones[place].challenged[direction as usize];
                let answered = told && known.is_some() && challenge && first;
                self.tombstones[place].challenged[direction as usize] |= answered;
                answered
            }
            _ => true,
        };
        if !answered {
            return Some(Late::Verdict(Verdict::Drop(reason, tracked)));
        }
        self.counted.resets_sent += 1;
        let (_, peer_sent) = tombstone.ends[direction.opposite() as usize];
        let is_before = |a: u32, b: u32| (a.wrapping_sub(b) as i32) < 0;
        let has_ack = segment.flags.contains(TcpFlags::ACK);
        let expects = match known {
            Some(known)
                if !has_ack
                    || is_before(segment.ack.0, known)
                    || is_before(peer_sent, segment.ack.0) =>
            {
                Some(known)
            }
            _ if has_ack => Some(segment.ack.0),
            _ => None,
        };
        let reply = expects.map_or(Reply::TcpReset, |seq| {
            Reply::TcpResetAt(portcullis::packet::SeqNum(seq))
        });
        Some(Late::Verdict(Verdict::Reject(reason, reply, tracked)))
    }

    /// Reloads a new policy and new lifetimes. Every session is judged by them; `preview` has
    /// predicted the sessions that end.
    pub(crate) fn reload(&mut self, settings: &Settings) {
        let setup = Setup {
            settings: *settings,
            ..self.setup.clone()
        };
        let (config, before) = (setup.config(), self.records());
        let preview = self.engine.preview(&config, self.instant()).unwrap();
        assert_eq!(self.records(), before, "a preview changes nothing");
        let mut log = Log::default();
        let done = self
            .engine
            .reload(&config, self.instant(), &mut log)
            .unwrap();
        assert!(log.opened.is_empty());
        assert_eq!(preview, log.ended, "a preview names those that end");
        self.setup = setup;
        let records_after = self.records();
        let (mut judged, mut kept) = (0, 0);
        for record in &before {
            if record.expires <= self.instant() {
                // The session was over before.
                assert!(!log.ended.iter().any(|(ended, _)| ended.id == record.id));
                continue;
            }
            judged += 1;
            let ends = log.ended.iter().find(|(ended, _)| ended.id == record.id);
            let ends = ends.map(|(_, reason)| *reason);
            let now = self.now;
            let session = self
                .sessions
                .iter_mut()
                .find(|session| session.id == record.id);
            let session = session.unwrap();
            let (action, rule) = settings.decide(&session.initiator);
            let admitted = action.admits();
            if !admitted && settings.on_reload == OnReload::End {
                assert_eq!(ends, Some(EndReason::Revoked), "{session:?}");
                continue;
            }
            let lifetimes = settings.lifetimes(&session.initiator);
            let was = session.lifetime(&session.lifetimes);
            let will_be = session.lifetime(&lifetimes);
            // The lifetime counts from the last packet, if that packet has set the deadline;
            // otherwise only a shorter one applies.
            let renewed = session.last + will_be;
            let off = session.deadline.abs_diff(session.last + was);
            let far = off > 2 * TICK + session.slack;
            let (deadline, slack) = if was == will_be || will_be > was && far {
                (session.deadline, session.slack)
            } else if will_be < was {
                (session.deadline.min(renewed), session.slack)
            } else if off == Duration::ZERO && session.slack == Duration::ZERO {
                (renewed, session.slack)
            } else {
                // The difference is smaller than a tick: either outcome is valid.
                let after = records_after.iter().find(|after| after.id == record.id);
                let expires = after.map_or(now, |after| {
                    after.expires.saturating_duration_since(self.base)
                });
                let near = |deadline: Duration| expires.abs_diff(deadline) <= TICK + session.slack;
                let deadline = if near(renewed) {
                    renewed
                } else {
                    session.deadline
                };
                (deadline, session.slack)
            };
            if let Some(reason) = ends {
                assert_eq!(reason, session.end_of_life());
                assert!(
                    deadline <= now,
                    "{session:?} ends at {now:?}, before {deadline:?}"
                );
                continue;
            }
            assert!(
                now < deadline + TICK + slack,
                "{session:?} lives on at {now:?}"
            );
            kept += usize::from(!admitted);
            if admitted {
                session.rule = rule;
            }
            session.by_destination = settings.limits.per_destination.is_some();
            (session.lifetimes, session.deadline, session.slack) = (lifetimes, deadline, slack);
            if let State::Tcp(track) = &mut session.state {
                track.set_strict();
            }
        }
        let revoked = |(_, reason): &&(SessionRecord, EndReason)| *reason == EndReason::Revoked;
        let revoked = log.ended.iter().filter(revoked).count();
        assert_eq!(
            (done.judged, done.revoked, done.expired, done.kept),
            (judged, revoked, log.ended.len() - revoked, kept)
        );
        self.tally.revoked += revoked as u64;
        self.tally.kept += kept as u64;
        for (record, reason) in std::mem::take(&mut log.ended) {
            let session = self.remove(record.id);
            self.ended(&session, &record, reason, &mut log);
        }
        assert!(log.resets.is_empty(), "unexpected: {log:?}");
    }

    /// Saves the engine, and restores another one from that after some time.
    pub(crate) fn restart(&mut self, down: Duration) {
        let clock = |now| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + now;
        let stream = self.engine.save(self.instant(), clock(self.now));
        let saved_at = self.instant();
        let before = self.records();
        self.now += down;
        self.shown = self.now;
        self.engine = self.setup.engine();
        self.forgets_sources();
        let options = RestoreOptions::default();
        let restored = self
            .engine
            .restore(&stream, self.instant(), clock(self.now), options);
        let restored = restored.unwrap();
        let records = self.records();
        assert_eq!(restored.sessions, records.len());
        let settings = self.setup.settings;
        let now = self.now;
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.retain_mut(|session| {
            let old = before
                .iter()
                .find(|record| record.id == session.id)
                .unwrap();
            let (action, rule) = settings.decide(&session.initiator);
            let refused = !action.admits() && settings.on_reload == OnReload::End;
            let over = old.expires <= saved_at || now >= session.latest();
            let new = records.iter().find(|new| {
                (new.zone, new.protocol) == (old.zone, old.protocol)
                    && (new.src, new.src_port) == (old.src, old.src_port)
                    && (new.dst, new.dst_port) == (old.dst, old.dst_port)
                    && new.tunnel == old.tunnel
            });
            let Some(new) = new else {
                let due = refused || over || now >= session.deadline;
                assert!(due, "{session:?} is not restored at {now:?}");
                return false;
            };
            assert!(!refused && !over, "{session:?} is restored at {now:?}");
            session.id = new.id;
            session.slack += TICK;
            session.lifetimes = settings.lifetimes(&session.initiator);
            session.by_destination = settings.limits.per_destination.is_some();
            if action.admits() {
                session.rule = rule;
            } else if !settings.has_rule(session.rule) {
                session.rule = DEFAULT_RULE;
            }
            true
        });
        self.sessions = sessions;
        self.tally.restored += self.sessions.len() as u64;
        let all = std::mem::take(&mut self.tombstones);
        let lifetime = self.setup.tombstones.lifetime;
        for tombstone in &all {
            if now - tombstone.ended < lifetime {
                let known = settings.has_rule(tombstone.rule);
                self.tombstones.push(Tombstone {
                    id: OF_ANOTHER_ENGINE,
                    rule: if known { tombstone.rule } else { DEFAULT_RULE },
                    ..tombstone.clone()
                });
            }
        }
        assert_eq!(restored.tombstones, self.tombstones.len());
        self.counted = Counted {
            opened: restored.sessions as u64,
            ..Counted::default()
        };
    }
}
