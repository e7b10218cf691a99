//! Connections that go on here from a record of another engine, which may be old.
//!
//! The numbers of the record are lower bounds: each end may have sent and acknowledged up to
//! [`FORWARD`] bytes since. Until both ends were seen here and agree, segments are judged as
//! follows:
//!
//! - One that fits the windows of the record is trusted, and counts as any other: a host that does
//!   not know the numbers cannot make one.
//! - One whose numbers lie ahead of the record passes, but changes neither state nor lifetime, and
//!   its numbers are only remembered. One that lies behind the record by more than a window, or
//!   further ahead, is invalid.
//! - If the remembered segment came from the other end, and each of the two acknowledges what the
//!   other has sent, to within a window, then both ends are known. Tracking is strict from here on.
//!   A single end's segment is never enough, and a segment that agrees with nothing is forgotten
//!   when the next one comes.
//! - A RST closes the connection only with the exact number of the record. One with the number that
//!   the remembered segment acknowledges, or at which its data end, passes for its receiver to
//!   judge. Any other is invalid.
//!
//! An end may have sent up to the window that the other end offered before its first segment here.
//! So the tracker assumes that it has sent all of that window: no acknowledgment of it is refused.
//!
//! If the two segments lie ahead of the windows of the record, a host that can forge segments of
//! *both* ends might have made them. So if one end repeats a segment three times that does not fit,
//! without any other segment in between, then both ends are learned once more.
//!
//! While a connection is resumed, the fields of a [`Track`] have other meanings: the last segment
//! is the remembered one, and `max_end` of its sender is the number that it acknowledges.

use super::judgment::StateChange;
use super::state::transition;
use super::window::{self, MIN_ACK_WINDOW, PeerFlags, Side, WindowVerdict};
use super::{
    Bound, CHALLENGE_EXPECTED, Cell, Event, Fault, Known, LIBERAL, MAX_RETRANSMISSIONS, Outcome,
    PassReason, SIMULTANEOUS_OPEN, State, Step, Track, UNSEEN,
};
use crate::flow::{Direction, PerDirection};
use crate::packet::{Segment, SeqNum, TcpFlags};

/// The most bytes by which an end may have moved on since the record.
const FORWARD: u32 = 1 << 30;

/// In `flags[1]`: the connection was resumed from a record. With [`UNSEEN`], both ends are not
/// known yet; without, they are, by segments ahead of the record.
const RESUMED: u8 = 0x20;

/// In `flags[0]`, while the connection is resumed: even the lower bounds are unknown.
const UNANCHORED: u8 = SIMULTANEOUS_OPEN;

/// A segment ahead of the record, which is remembered.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    event: Event,
    direction: Direction,
    end: SeqNum,
    ack: SeqNum,
    /// As on the wire.
    window: u16,
}

impl Candidate {
    fn of(segment: &Segment, direction: Direction) -> Self {
        Self {
            event: Event::of(segment.flags),
            direction,
            end: segment.seq.add(window::sequence_len(segment)),
            ack: segment.ack,
            window: segment.window,
        }
    }

    /// Returns the most bytes that the sender has ever offered, as far as is known.
    fn offered(&self, sender: &Side) -> u32 {
        let window = u32::from(self.window) << sender.scale;
        sender.peer.max_window.max(window).max(1)
    }
}

/// Returns the later of two numbers.
const fn later(one: SeqNum, other: SeqNum) -> SeqNum {
    if other.after(one) { other } else { one }
}

/// Returns whether two numbers are at most `distance` apart.
const fn are_near(one: SeqNum, other: SeqNum, distance: u32) -> bool {
    one.distance_from(other) <= distance || other.distance_from(one) <= distance
}

/// Returns whether a number is at most `behind` bytes before `base`, or [`FORWARD`] after it.
const fn is_ahead(number: SeqNum, base: SeqNum, behind: u32) -> bool {
    number.distance_from(base) <= FORWARD || base.distance_from(number) <= behind
}

impl Track {
    /// Continues from a record of another engine, whose numbers are lower bounds.
    pub fn resume(&mut self) {
        let sides = Direction::BOTH.map(|direction| self.side(direction));
        let is_known = sides
            .iter()
            .all(|side| side.peer.max_window != 0 && side.flags.contains(PeerFlags::MAX_ACK_KNOWN));
        if !self.is_open() || !is_known {
            self.go_on_after_gap();
            return;
        }
        // A connection that was liberal there is judged by the rules here.
        let unanchored = self.is_resuming() && self.connection_flag(UNANCHORED);
        self.set_connection_flag(LIBERAL | UNSEEN, true);
        self.set_connection_flag(UNANCHORED, unanchored);
        self.set_resumed(true);
        self.set_retransmissions(0);
        self.remember(Event::None, Direction::Original);
    }

    /// Returns whether the connection was resumed from a record, and both ends are not known yet.
    #[inline]
    #[must_use]
    pub const fn is_resuming(&self) -> bool {
        self.is_unseen() && self.is_resumed()
    }

    const fn is_open(&self) -> bool {
        matches!(
            self.state(),
            State::Established | State::FinWait | State::CloseWait
        )
    }

    /// Returns whether the connection was resumed from a record, and a window ahead of it.
    pub(super) const fn is_resumed(&self) -> bool {
        let [_, high] = self.flags;
        high & RESUMED != 0
    }

    const fn set_resumed(&mut self, on: bool) {
        let [_, high] = &mut self.flags;
        *high = *high & !RESUMED | if on { RESUMED } else { 0 };
    }

    /// Stops resuming with the numbers of the record: from here on, the connection is judged as any
    /// other.
    pub(super) fn stop_resuming(&mut self) {
        if self.is_resuming() {
            let [one, other] = Direction::BOTH.map(|direction| self.recorded(direction));
            self.put_side(Direction::Original, one);
            self.put_side(Direction::Reply, other);
            self.set_connection_flag(LIBERAL | UNSEEN | UNANCHORED, false);
            self.remember(Event::None, Direction::Original);
        }
        self.set_resumed(false);
    }

    /// Returns an end as the record has it.
    fn recorded(&self, direction: Direction) -> Side {
        let mut side = self.side(direction);
        let offered = self.side(direction.opposite()).peer.max_window;
        side.peer.max_end = side.peer.end.add(offered);
        side
    }

    /// Replaces the record of an end, but not the remembered segment.
    fn record(&mut self, direction: Direction, mut side: Side) {
        side.peer.max_end = self.side(direction).peer.max_end;
        self.put_side(direction, side);
    }

    fn candidate(&self) -> Option<Candidate> {
        let (event, direction) = self.last();
        matches!(event, Event::Ack | Event::Fin).then(|| Candidate {
            event,
            direction,
            end: self.last_end,
            ack: self.side(direction).peer.max_end,
            window: self.last_window,
        })
    }

    fn set_candidate(&mut self, candidate: Candidate) {
        let last = self
            .candidate()
            .filter(|last| last.direction == candidate.direction);
        let mut side = self.side(candidate.direction);
        side.peer.max_end = candidate.ack;
        self.put_side(candidate.direction, side);
        self.remember(candidate.event, candidate.direction);
        self.last_end = candidate.end;
        // A segment that was overtaken may have a smaller window.
        self.last_window = last.map_or(0, |last| last.window).max(candidate.window);
        self.last_mark = 0;
    }

    /// Judges an ACK or a FIN while the connection is resumed.
    #[cold]
    pub(super) fn resuming(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        change: StateChange,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        if !segment.flags.contains(TcpFlags::ACK) {
            // A FIN without an acknowledgment agrees with nothing.
            return Outcome::Pass(PassReason::OutOfStep);
        }
        let own = Candidate::of(segment, direction);
        let (mut sender, mut receiver) = (
            self.recorded(direction),
            self.recorded(direction.opposite()),
        );
        let is_ahead = self.connection_flag(UNANCHORED) || is_ahead_of(&own, &sender, &receiver);
        let verdict = match self.connection_flag(UNANCHORED) {
            true => WindowVerdict::Breaks(Bound::SeqUpper),
            false => {
                let stage = window::Stage {
                    opening: false,
                    followed: true,
                };
                window::check(&mut sender, &mut receiver, segment, stage, |check| {
                    step(Step::Bound(check))
                })
            }
        };
        let fits = verdict == WindowVerdict::Fits;
        if !is_ahead && !fits {
            return match verdict {
                WindowVerdict::Breaks(Bound::AckUpper | Bound::AckLower) => {
                    Outcome::Invalid(Fault::AckOfUnseen)
                }
                WindowVerdict::Passes(bound @ (Bound::SeqLower | Bound::AckLower)) => {
                    Outcome::Pass(PassReason::Window(bound))
                }
                _ => Outcome::Invalid(Fault::SeqAboveWindow),
            };
        }
        if let Some(other) = self.candidate()
            && self.agree(&own, &other)
        {
            step(Step::Note(
                "both ends were seen and agree: the connection is judged strictly again",
            ));
            self.settle_resumed(&own, &other, known, fits);
            return self.segment(direction, segment, known, step);
        }
        if !fits {
            step(Step::Note(
                "ahead of the record that the connection was resumed from: passed and remembered",
            ));
            self.set_candidate(own);
            return Outcome::Accept {
                lifetime: None,
                assured: known.assured,
                tolerated: None,
            };
        }
        step(Step::Note(
            "fits the record that the connection was resumed from",
        ));
        self.record(direction, sender);
        self.record(direction.opposite(), receiver);
        self.set_candidate(own);
        if !matches!(
            change.next,
            State::Established | State::FinWait | State::CloseWait
        ) {
            self.stop_resuming();
        }
        self.accept(direction, known, change, None)
    }

    /// Returns whether each of two segments acknowledges what the other one's sender has sent, to
    /// within a window.
    fn agree(&self, own: &Candidate, other: &Candidate) -> bool {
        if own.direction == other.direction {
            return false;
        }
        let acknowledges = |one: &Candidate, another: &Candidate| {
            let offered = one.offered(&self.side(one.direction));
            are_near(one.ack, another.end, offered.max(MIN_ACK_WINDOW))
        };
        acknowledges(own, other) && acknowledges(other, own)
    }

    /// Becomes strict with the numbers of two segments that agree. `fits` says that one of them
    /// fits the record.
    fn settle_resumed(&mut self, own: &Candidate, other: &Candidate, known: Known, fits: bool) {
        let is_anchored = !self.connection_flag(UNANCHORED);
        let record = PerDirection(Direction::BOTH.map(|direction| self.side(direction)));
        for (one, another) in [(own, other), (other, own)] {
            let (sender, receiver) = (record[one.direction], record[another.direction]);
            let mut side = sender;
            // With the byte of a probe, see below, and that before a keepalive.
            side.peer.max_window = one.offered(&sender).saturating_add(2);
            side.peer.max_ack = one.ack;
            // The end may have sent all that it was allowed to send before it was seen here, and
            // one byte more to probe a full window (RFC 9293 3.8.6.1).
            let allowed = another.ack.add(another.offered(&receiver)).add(1);
            side.peer.end = later(allowed, one.end);
            if is_anchored {
                side.peer.max_ack = later(sender.peer.max_ack, one.ack);
                side.peer.end = later(sender.peer.end, side.peer.end);
            }
            side.peer.max_end = side.peer.end;
            side.flags.set(PeerFlags::MAX_ACK_KNOWN);
            side.flags.clear(PeerFlags::DATA_UNACKNOWLEDGED);
            self.put_side(one.direction, side);
        }
        self.set_connection_flag(LIBERAL | UNSEEN | UNANCHORED, false);
        self.set_resumed(!fits);
        self.set_retransmissions(0);
        self.remember(Event::None, Direction::Original);
        if other.event == Event::Fin
            && own.ack == other.end
            && let Cell::To(next) = transition(other.direction, Event::Fin, self.state())
            && !self.repeats_first_fin(Event::Fin, other.direction, self.state())
        {
            let change = StateChange {
                event: Event::Fin,
                before: self.state(),
                next,
            };
            let _ = self.accept(other.direction, known, change, None);
        }
    }

    /// Judges a RST while the connection is resumed.
    #[cold]
    pub(super) fn reset_while_resuming(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        let expected = self.side(direction.opposite()).peer.max_ack;
        step(Step::Rst {
            seq: segment.seq,
            expected,
        });
        if segment.seq == expected && !self.connection_flag(UNANCHORED) {
            let change = StateChange {
                event: Event::Rst,
                before: self.state(),
                next: State::Close,
            };
            self.stop_resuming();
            return self.accept(direction, known, change, None);
        }
        let is_answer = self.candidate().is_some_and(|candidate| {
            let number = if candidate.direction == direction {
                candidate.end
            } else {
                candidate.ack
            };
            segment.seq == number
        });
        if is_answer {
            step(Step::Note(
                "fits the last segment: its receiver judges it, and nothing changes here",
            ));
            return Outcome::Pass(PassReason::Rst);
        }
        Outcome::Invalid(if segment.seq.before(expected) {
            Fault::RstBelowWindow
        } else {
            Fault::SeqAboveWindow
        })
    }

    /// Notes a segment that does not fit a connection whose ends were learned ahead of the record.
    /// If it repeats the last ones, both ends are learned once more, and it passes.
    #[cold]
    pub(super) fn note_refused(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        fault: Fault,
    ) -> Outcome {
        let own = Candidate::of(segment, direction);
        if !self.is_open() || !matches!(own.event, Event::Ack | Event::Fin) {
            return Outcome::Invalid(fault);
        }
        // The digest of an accepted ACK and the event stand elsewhere, so this is not one.
        let (event, last) = self.last();
        let ack = SeqNum(u32::from(self.last_window) << 16 | u32::from(self.last_mark));
        let repeats = (event, last) == (Event::None, direction)
            && are_near(self.last_end, own.end, MIN_ACK_WINDOW)
            && are_near(ack, own.ack, MIN_ACK_WINDOW);
        let times = if repeats {
            self.retransmissions() + 1
        } else {
            1
        };
        if times >= MAX_RETRANSMISSIONS {
            self.set_connection_flag(LIBERAL | UNSEEN | UNANCHORED, true);
            self.set_retransmissions(0);
            self.set_candidate(own);
            return Outcome::Accept {
                lifetime: None,
                assured: known.assured,
                tolerated: None,
            };
        }
        self.set_retransmissions(times);
        self.remember(Event::None, direction);
        self.last_end = own.end;
        self.last_window = (own.ack.0 >> 16) as u16;
        self.last_mark = own.ack.0 as u16;
        Outcome::Invalid(fault)
    }

    /// Records more data of the remembered segment, since a later IP fragment of it has come.
    pub(super) fn extend_candidate(&mut self, direction: Direction, from: SeqNum, to: SeqNum) {
        let (_, last) = self.last();
        if last == direction && self.last_end == from {
            self.last_end = to;
        }
    }
}

/// Returns whether both numbers of a segment are at most a window behind the record, and not too
/// far ahead of it.
fn is_ahead_of(own: &Candidate, sender: &Side, receiver: &Side) -> bool {
    let behind = |offered: u32| offered.max(MIN_ACK_WINDOW);
    is_ahead(own.end, sender.peer.end, behind(receiver.peer.max_window))
        && is_ahead(own.ack, receiver.peer.end, behind(sender.peer.max_window))
}

const _: () = assert!(UNSEEN == CHALLENGE_EXPECTED);
