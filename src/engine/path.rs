//! The packet path, step by step as [`Engine::process`] numbers it.

use std::time::Instant;

use super::record::state_name;
use super::{Engine, Packet};
use crate::event::{EndReason, SessionRecord, Sink};
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, Zone};
use crate::packet::{self, Checksums, IcmpError, IcmpQuery, Parsed, QuotedTransport, Segment, Transport};
use crate::policy::{Action, NewSession, Policy};
use crate::session::history::Letter;
use crate::session::{Ended, Micros, Shard, Slot};
use crate::track::Lifetime;
use crate::track::datagram::{self, Family};
use crate::track::tcp::window::sequence_len;
use crate::track::tcp::{Event, Fault, Known, Outcome, Track};
use crate::verdict::{Class, DropReason, Reply, Tracked, Verdict};

/// What happens once the lock is released.
#[derive(Default)]
struct After {
    /// The session that the packet opened.
    opened: Option<SessionRecord>,
    any_opened: bool,
    /// Sessions that ended: one whose ports were reused or that was found expired, and one that made room.
    ended: [Option<Ended>; 2],
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
    parsed: &'p Parsed,
    flow: Flow,
    now: Micros,
    /// The same moment as the caller said it.
    instant: Instant,
}

/// What a packet may open, where it has no session.
enum Opening {
    Tcp(Track),
    Plain,
}

const fn drop_of(fault: Fault) -> DropReason {
    match fault {
        Fault::State => DropReason::TcpState,
        Fault::SeqAboveWindow => DropReason::TcpSeqAboveWindow,
        Fault::AckOfUnseen => DropReason::TcpAckOfUnseen,
        Fault::RstBelowWindow => DropReason::TcpRstBelowWindow,
    }
}

const fn invalid(reason: DropReason) -> Verdict {
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
        let parsed = match packet::parse(packet.bytes, checksums) {
            Ok(parsed) => parsed,
            Err(malformed) => {
                trace.step(|| Step::Malformed(malformed));
                let verdict = invalid(DropReason::Malformed(malformed));
                self.counters.verdict(&verdict, 0);
                return verdict;
            }
        };
        trace.step(|| Step::Parsed(Box::new(parsed)));
        let now = self.origin.micros(packet.now);
        let mut after = After::default();
        let mut shard_number = 0;
        let verdict = match (Flow::of(packet.zone, &parsed), &parsed.transport) {
            // 4. The session's lock.
            (Some(flow), _) => {
                let place = self.table.place(&flow.key);
                shard_number = place.shard;
                trace.step(|| Step::Key(flow.key, place.shard));
                let candidate = Candidate {
                    parsed: &parsed,
                    flow,
                    now,
                    instant: packet.now,
                };
                let mut shard = self.table.lock(place.shard);
                self.tracked::<S, T>(&mut shard, place, &candidate, &mut after, trace)
            }
            // 2. Fragments.
            (None, Transport::Fragment(_)) => invalid(DropReason::Fragment),
            // 3. ICMP errors, discovery.
            (None, Transport::IcmpError(error)) => self.related(&packet, &parsed, error, trace),
            (None, Transport::Neighbour) => {
                trace.step(|| Step::Note("discovery on the link is never tracked"));
                Verdict::Forward(Tracked::class(Class::Untracked))
            }
            (None, _) => invalid(DropReason::IcmpTypeUnsupported),
        };
        // 7. Counters and events, without a lock.
        self.counters.verdict(&verdict, parsed.ip.total_len);
        for ended in after.ended.iter().flatten() {
            self.report_ended(shard_number, ended, sink);
        }
        if after.any_opened {
            self.counters.opened();
        }
        if let Some(record) = &after.opened {
            sink.session_opened(record);
        }
        verdict
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
        if let Some(slot) = shard.find(place.hash, &candidate.flow.key) {
            if shard.slab.hot(slot).deadline <= candidate.now.tick() {
                let ended = shard.end_expired(slot);
                self.table.release();
                self.trace_ended(place.shard, &ended, trace);
                after.end(ended);
            } else if let Some(verdict) = self.hit(shard, place, slot, candidate, after, trace) {
                return verdict;
            }
        } else {
            trace.step(|| Step::Miss);
        }
        self.miss::<S, T>(shard, place, candidate, after, trace)
    }

    fn trace_ended<T: Trace>(&self, shard: usize, ended: &Ended, trace: &mut T) {
        if T::ON
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            trace.step(|| Step::Ended(Box::new(record), ended.reason));
        }
    }

    /// Step 6. `None` where the packet opens a new connection in place of this session, which has ended.
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
        let class = match direction {
            Direction::Original if !slot.seen_reply() => Class::New,
            _ => Class::Established,
        };
        let tracked = Tracked {
            class,
            direction: Some(direction),
            session: Some(self.table.id(place.shard, number, slot.generation)),
        };
        if T::ON
            && let Some(record) = self.record_of(shard, place.shard, number)
        {
            trace_found(record, direction, candidate.instant, trace);
        }
        let bytes = candidate.parsed.ip.total_len;
        let age_ms = now.since(shard.slab.cold(number).start()).as_millis() as u64;
        let slot = shard.slab.hot_mut(number);
        let before = slot.worth();
        let (lifetime, letters) = match &candidate.parsed.transport {
            Transport::Tcp { segment, .. } => {
                let letters = tcp_letters(segment, slot, direction);
                match judge(slot, direction, segment, trace) {
                    Outcome::Accept { lifetime, assured } => {
                        if assured {
                            slot.set_assured();
                        }
                        (lifetime, letters)
                    }
                    Outcome::Pass(_) => (None, letters),
                    Outcome::AcceptAndEnd => {
                        slot.count(direction, bytes);
                        slot.touch(now);
                        note(shard, number, direction, letters);
                        // Its worth has changed with its state: the shard's counts must follow first.
                        let deadline = shard.slab.hot(number).deadline;
                        shard.rearm(number, deadline, before);
                        let ended = shard.remove(number, EndReason::Refused);
                        self.table.release();
                        self.trace_ended(place.shard, &ended, trace);
                        after.end(ended);
                        return Some(Verdict::Forward(tracked));
                    }
                    Outcome::Reopen => {
                        let ended = shard.remove(number, EndReason::Reused);
                        self.table.release();
                        self.trace_ended(place.shard, &ended, trace);
                        after.end(ended);
                        return None;
                    }
                    Outcome::Invalid(fault) => {
                        return Some(Verdict::Drop(
                            drop_of(fault),
                            Tracked {
                                class: Class::Invalid,
                                ..tracked
                            },
                        ));
                    }
                }
            }
            transport => {
                let family = Family::of(slot.key.protocol());
                let state = datagram::State::from_bits(slot.plain_state());
                let next = datagram::next(family, state, direction, age_ms);
                trace.step(|| Step::State(state.name(), next.name()));
                slot.set_plain_state(next as u8);
                if next != datagram::State::Unreplied {
                    slot.set_assured();
                }
                (Some(datagram::lifetime(family, next)), plain_letters(transport))
            }
        };
        if direction == Direction::Reply {
            slot.set_seen_reply();
        }
        slot.count(direction, bytes);
        slot.touch(now);
        note(shard, number, direction, letters);
        match lifetime {
            Some(lifetime) => {
                let deadline = self.deadline(shard.slab.hot(number), lifetime, now, trace);
                if shard.rearm(number, deadline, before) {
                    self.table.note_tick(place.shard, deadline);
                }
            }
            None => trace.step(|| Step::NotRefreshed("this packet proves nothing about the session")),
        }
        Some(Verdict::Forward(tracked))
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

    /// Step 5.
    fn miss<S: Sink, T: Trace>(
        &self,
        shard: &mut Shard,
        place: crate::session::Place,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Verdict {
        let parsed = candidate.parsed;
        let (opening, letters) = match &parsed.transport {
            Transport::Tcp { segment, .. } => match Track::open(segment) {
                Some(track) => (Opening::Tcp(track), tcp_letters_of_first(segment)),
                None => return invalid(DropReason::TcpNoSession),
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
        let decision = self.policy.decide(&query);
        let new = Tracked {
            class: Class::New,
            direction: Some(Direction::Original),
            session: None,
        };
        match decision.action {
            Action::Allow => {}
            Action::Deny => return Verdict::Drop(DropReason::PolicyDeny, new),
            Action::Reject => return reject(parsed, new),
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
            (profile, decision.rule.0),
        );
        let slot = shard.slab.hot_mut(number);
        if let Transport::IcmpQuery(_) = parsed.transport {
            // The asker of a query is not always the end that the packet came from: see `Flow::of`.
            debug_assert_eq!(slot.direction_of(candidate.flow.source), Direction::Original);
        }
        let lifetime = match opening {
            Opening::Tcp(track) => {
                slot.track = track;
                Lifetime::of(track.state().lifetime())
            }
            Opening::Plain => datagram::lifetime(Family::of(query.protocol), datagram::State::Unreplied),
        };
        slot.count(Direction::Original, parsed.ip.total_len);
        slot.deadline = self.deadline(slot, lifetime, candidate.now, trace);
        let (deadline, generation) = (slot.deadline, slot.generation);
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
            session: Some(self.table.id(place.shard, number, generation)),
            ..new
        })
    }

    /// Step 3: an ICMP error is related to the session of the packet that it quotes. It refreshes and changes
    /// nothing.
    fn related<T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        error: &IcmpError,
        trace: &mut T,
    ) -> Verdict {
        if let QuotedTransport::IcmpError = error.quoted.transport {
            return invalid(DropReason::IcmpErrorAboutError);
        }
        let Some(quoted) = Flow::of_quoted(packet.zone, &error.quoted) else {
            trace.step(|| Step::Note("the quoted packet names no flow"));
            return invalid(DropReason::IcmpErrorNoSession);
        };
        let now = self.origin.micros(packet.now);
        let place = self.table.place(&quoted.key);
        trace.step(|| Step::Key(quoted.key, place.shard));
        let shard = self.table.lock(place.shard);
        let found = shard.find(place.hash, &quoted.key);
        let Some(number) = found.filter(|slot| shard.slab.hot(*slot).deadline > now.tick()) else {
            trace.step(|| Step::Miss);
            return invalid(DropReason::IcmpErrorNoSession);
        };
        let slot = shard.slab.hot(number);
        // The error travels back to whoever sent the quoted packet.
        let direction = slot.direction_of(quoted.source).opposite();
        let tracked = Tracked {
            class: Class::Related,
            direction: Some(direction),
            session: Some(self.table.id(place.shard, number, slot.generation)),
        };
        if T::ON
            && let Some(record) = self.record_of(&shard, place.shard, number)
        {
            trace_found(record, direction, packet.now, trace);
        }
        if parsed.ip.dst != error.quoted.src {
            return Verdict::Drop(
                DropReason::IcmpErrorNotToSender,
                Tracked {
                    class: Class::Invalid,
                    ..tracked
                },
            );
        }
        Verdict::Forward(tracked)
    }
}

/// Runs TCP's judgement, with its steps where anybody looks.
fn judge<T: Trace>(slot: &mut Slot, direction: Direction, segment: &Segment, trace: &mut T) -> Outcome {
    let known = Known {
        seen_reply: slot.seen_reply(),
        assured: slot.assured(),
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

/// What the policy is asked.
fn new_session(zone: Zone, parsed: &Parsed) -> NewSession {
    let (src_port, dst_port, icmp) = match &parsed.transport {
        Transport::Tcp {
            src_port, dst_port, ..
        }
        | Transport::Udp {
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

fn trace_found<T: Trace>(session: SessionRecord, direction: Direction, now: Instant, trace: &mut T) {
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
    let to_group = match parsed.ip.destination() {
        core::net::IpAddr::V4(to) => to.is_multicast() || to.is_broadcast(),
        core::net::IpAddr::V6(to) => to.is_multicast(),
    };
    if to_group {
        return Verdict::Drop(DropReason::PolicyReject, tracked);
    }
    Verdict::Reject(DropReason::PolicyReject, reply, tracked)
}

/// The letters that a packet may add to the history, in the order in which they are added.
type Letters = [Option<Letter>; 3];

fn tcp_letters_of_first(segment: &Segment) -> Letters {
    [
        Some(Letter::Syn),
        (segment.window == 0).then_some(Letter::ZeroWindow),
        None,
    ]
}

/// One letter for the kind of segment, then what its numbers say against what the sender has sent before.
fn tcp_letters(segment: &Segment, slot: &Slot, direction: Direction) -> Letters {
    let kind = match Event::of(segment.flags) {
        // Neither the window nor the payload of a RST counts.
        Event::Rst => return [Some(Letter::Reset), None, None],
        Event::Syn => Some(Letter::Syn),
        Event::SynAck => Some(Letter::Handshake),
        Event::Fin => Some(Letter::Fin),
        Event::Ack if segment.payload_len > 0 => Some(Letter::Data),
        Event::Ack => Some(Letter::Ack),
        Event::None => None,
    };
    let sent = slot.track.side(direction).peer;
    let repeated = segment.payload_len > 0
        && sent.max_window != 0
        && !segment.seq.add(sequence_len(segment)).after(sent.end);
    [
        kind,
        (segment.window == 0).then_some(Letter::ZeroWindow),
        repeated.then_some(Letter::Retransmission),
    ]
}

fn plain_letters(transport: &Transport) -> Letters {
    match transport {
        // An empty datagram too: it says that its sender is there.
        Transport::Udp { .. } => [Some(Letter::Data), None, None],
        _ => [None; 3],
    }
}

/// Adds letters to a session's history; the cold part is read only for a letter that may be new.
fn note(shard: &mut Shard, number: u32, direction: Direction, letters: Letters) {
    for letter in letters.into_iter().flatten() {
        if !shard.slab.hot(number).letter_noted(letter, direction) {
            shard.slab.cold_mut(number).history.add(letter, direction);
            shard.slab.hot_mut(number).note_letter(letter, direction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::End;
    use crate::packet::{SeqNum, TcpFlags, TcpOptions};

    /// A segment of the initiator, whose SYN has the number 1000.
    fn segment(flags: TcpFlags, seq: u32, payload_len: u32, window: u16) -> Segment {
        Segment {
            seq: SeqNum(seq),
            ack: SeqNum(0),
            flags,
            window,
            payload_len,
            urgent: 0,
            options: TcpOptions::default(),
        }
    }

    fn letters(direction: Direction, segment: &Segment) -> String {
        let mut slot = Slot::new(crate::session::testing::key(1));
        slot.occupy(slot.key, End::Low, Micros(0), 0);
        slot.track = Track::open(&self::segment(TcpFlags::SYN, 1_000, 0, 500)).expect("a SYN");
        let letters = tcp_letters(segment, &slot, direction).into_iter().flatten();
        letters.map(|letter| letter.letter(direction)).collect()
    }

    #[test]
    fn a_segment_has_one_letter_for_its_kind() {
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        let rows = [
            (syn, 0, "S"),
            (syn | ack, 0, "H"),
            (ack, 0, "A"),
            (ack, 10, "D"),
            (fin | ack, 0, "F"),
            (fin | ack, 10, "F"),
            (rst, 0, "R"),
            (rst | ack, 10, "R"),
        ];
        for (flags, payload_len, expected) in rows {
            let segment = segment(flags, 1_001, payload_len, 500);
            assert_eq!(letters(Direction::Original, &segment), expected, "{flags}");
        }
    }

    #[test]
    fn any_segment_but_a_reset_can_close_the_window() {
        for (flags, expected) in [
            (TcpFlags::SYN, "SW"),
            (TcpFlags::ACK, "AW"),
            (TcpFlags::FIN | TcpFlags::ACK, "FW"),
            (TcpFlags::RST, "R"),
        ] {
            assert_eq!(
                letters(Direction::Original, &segment(flags, 1_001, 0, 0)),
                expected
            );
        }
        let syn = segment(TcpFlags::SYN, 1_000, 5, 0);
        assert_eq!(
            tcp_letters_of_first(&syn),
            [Some(Letter::Syn), Some(Letter::ZeroWindow), None]
        );
    }

    #[test]
    fn payload_that_ends_where_the_sender_has_been_is_a_retransmission() {
        let (ack, fin) = (TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK);
        let old = |flags, seq| letters(Direction::Original, &segment(flags, seq, 1, 500));
        assert_eq!(old(ack, 1_000), "DT");
        assert_eq!(old(ack, 1_001), "D");
        assert_eq!(old(fin, 999), "FT");
        assert_eq!(old(fin, 1_000), "F");
    }

    #[test]
    fn an_end_of_which_nothing_was_seen_repeats_nothing() {
        let first = segment(TcpFlags::ACK, u32::MAX - 5, 1, 500);
        assert_eq!(letters(Direction::Reply, &first), "d");
    }

    #[test]
    fn an_empty_datagram_is_noted_and_an_icmp_query_is_not() {
        let udp = Transport::Udp {
            src_port: 1,
            dst_port: 2,
            payload_len: 0,
        };
        assert_eq!(plain_letters(&udp), [Some(Letter::Data), None, None]);
        let echo = Transport::IcmpQuery(IcmpQuery {
            kind: packet::IcmpKind::Echo,
            id: 1,
            request: true,
            icmp_type: 8,
            code: 0,
        });
        assert_eq!(plain_letters(&echo), [None; 3]);
    }
}
