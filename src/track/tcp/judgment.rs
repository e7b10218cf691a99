//! Judgment of a segment after the table of states: the window, the new state and the lifetime.

use super::window::{self, Bound, PeerFlags, WindowVerdict};
use super::{
    CHALLENGE_EXPECTED, Event, Fault, Known, LIBERAL, MARK_IN_ORDER, Outcome, PassReason,
    SIMULTANEOUS_OPEN, State, Step, Track,
};
use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags};

/// Kind of a segment and the transition that it makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateChange {
    pub(super) event: Event,
    pub(super) before: State,
    pub(super) next: State,
}

impl Track {
    /// Returns whether a SYN on the ports of a finished connection opens a new one. It does if the
    /// old one was closed by FINs, and, while it is in TIME_WAIT, the SYN has a higher number than
    /// all that its sender has sent (RFC 9293 3.6.1); or if its sender has closed the old one by a
    /// RST. The receiver judges any other SYN.
    pub(super) fn may_reopen(&self, direction: Direction, segment: &Segment) -> bool {
        let [original, reply] = self.flags;
        let closed = (original | reply) & PeerFlags::CLOSE_INITIATOR.0 != 0;
        let higher = segment.seq.after(self.side(direction).peer.end);
        closed && (higher || self.state() == State::Close) || self.last() == (Event::Rst, direction)
    }

    /// Returns whether a FIN repeats the one that has closed its sender's half, while the other
    /// half is open.
    pub(super) const fn repeats_first_fin(
        &self,
        event: Event,
        direction: Direction,
        before: State,
    ) -> bool {
        let [original, reply] = self.flags;
        let flags = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        matches!(event, Event::Fin)
            && matches!(before, State::FinWait | State::CloseWait)
            && flags & PeerFlags::CLOSE_INITIATOR.0 != 0
    }

    pub(super) fn is_challenge_ack(
        &self,
        event: Event,
        direction: Direction,
        before: State,
    ) -> bool {
        before == State::LastAck
            && event == Event::Ack
            && self.last() == (Event::Syn, direction.opposite())
            && self.connection_flag(CHALLENGE_EXPECTED)
    }

    pub(super) fn stage(&self, before: State) -> window::Stage {
        window::Stage {
            opening: matches!(before, State::SynSent | State::SynSent2),
            followed: !self.connection_flag(LIBERAL),
        }
    }

    pub(super) fn in_window(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        change: StateChange,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        if self.is_resuming() {
            return self.resuming(direction, segment, known, change, step);
        }
        let StateChange { event, before, .. } = change;
        let mut sender = self.side(direction);
        let mut receiver = self.side(direction.opposite());
        let in_order = sender.peer.max_window != 0 && !segment.seq.after(sender.peer.end);
        let stage = self.stage(before);
        let verdict = window::check(&mut sender, &mut receiver, segment, stage, |check| {
            step(Step::Bound(check))
        });
        // A RST outside the window is never tolerated: it is the cheapest forgery.
        let liberal = self.connection_flag(LIBERAL) && event != Event::Rst;
        // A FIN that its receiver ignores may be tolerated, but closes nothing.
        let ignored = event == Event::Fin
            && match verdict {
                WindowVerdict::Fits => false,
                WindowVerdict::Passes(_) => true,
                WindowVerdict::Breaks(_) => !self.is_unseen(),
            };
        let change = StateChange {
            next: if ignored { before } else { change.next },
            ..change
        };
        let fault = match verdict {
            WindowVerdict::Fits => None,
            WindowVerdict::Passes(_) if event == Event::Rst => {
                return Outcome::Pass(PassReason::Rst);
            }
            WindowVerdict::Passes(_) if liberal => None,
            WindowVerdict::Passes(bound) => {
                self.put_side(direction, sender);
                self.put_side(direction.opposite(), receiver);
                return Outcome::Pass(PassReason::Window(bound));
            }
            WindowVerdict::Breaks(Bound::SeqUpper | Bound::SeqLower) => Some(Fault::SeqAboveWindow),
            WindowVerdict::Breaks(Bound::AckUpper | Bound::AckLower) => Some(Fault::AckOfUnseen),
        };
        if let Some(fault) = fault {
            if liberal && self.is_unseen() {
                step(Step::Note(
                    "not all of the connection was seen: the numbers of the segment are trusted",
                ));
                self.relearn(direction, segment);
                return self.accept(direction, known, change, None);
            }
            if liberal {
                step(Step::Note(
                    "outside the window, which liberal tracking tolerates",
                ));
                self.note_acknowledgment(direction, segment);
                return self.accept(direction, known, change, Some(fault));
            }
            if self.is_resumed() {
                return self.note_refused(direction, segment, known, fault);
            }
            return Outcome::Invalid(fault);
        }
        self.put_side(direction, sender);
        self.put_side(direction.opposite(), receiver);
        if self.is_unseen() {
            self.settle();
        }
        self.remember_numbers(event, direction, segment, in_order);
        self.accept(direction, known, change, None)
    }

    /// Records the numbers of an accepted ACK or FIN, and counts repetitions of an ACK.
    #[inline]
    fn remember_numbers(
        &mut self,
        event: Event,
        direction: Direction,
        segment: &Segment,
        in_order: bool,
    ) {
        if event == Event::Ack {
            let end = segment.seq.add(window::sequence_len(segment));
            let mark = digest(segment) | (u16::from(in_order) * MARK_IN_ORDER);
            if self.last() == (Event::Ack, direction)
                && (self.last_end, self.last_window, self.last_mark) == (end, segment.window, mark)
            {
                self.set_retransmissions(self.retransmissions() + 1);
            } else {
                self.last_end = end;
                self.last_window = segment.window;
                self.last_mark = mark;
                self.set_retransmissions(0);
            }
        }
        if event == Event::Fin {
            self.last_end = segment.seq.add(window::sequence_len(segment));
            self.last_mark = u16::from(in_order) * MARK_IN_ORDER;
        }
    }

    /// Records the next number that the sender of a tolerated segment expects: that of the RST that
    /// would end the connection.
    fn note_acknowledgment(&mut self, direction: Direction, segment: &Segment) {
        let mut sender = self.side(direction);
        if segment.flags.contains(TcpFlags::ACK) && segment.ack.after(sender.peer.max_ack) {
            sender.peer.max_ack = segment.ack;
            sender.flags.set(PeerFlags::MAX_ACK_KNOWN);
            self.put_side(direction, sender);
        }
    }

    /// Accepts the segment: sets the new state and returns the session's lifetime.
    pub(super) fn accept(
        &mut self,
        direction: Direction,
        known: Known,
        change: StateChange,
        tolerated: Option<Fault>,
    ) -> Outcome {
        let StateChange {
            event,
            before,
            next,
        } = change;
        if next == State::Established && before != State::Established {
            // From here on the bit means something else.
            self.set_connection_flag(SIMULTANEOUS_OPEN, false);
        }
        if next == State::SynSent2 {
            self.set_connection_flag(SIMULTANEOUS_OPEN, true);
        }
        let is_opening = matches!(before, State::SynSent | State::SynSent2);
        let keeps_syn = is_opening
            && (direction == Direction::Reply && event == Event::Syn
                || event == Event::SynAck && self.other_syn().is_some());
        if !keeps_syn {
            self.remember(event, direction);
        }
        self.set_state(next);
        if before != next && !matches!(next, State::Established | State::FinWait | State::CloseWait)
        {
            // From here on the bit means something else.
            self.set_connection_flag(CHALLENGE_EXPECTED, false);
        }
        if before != next && next == State::FinWait {
            let [original, reply] = &mut self.flags;
            let flags = if direction == Direction::Original {
                original
            } else {
                reply
            };
            *flags |= PeerFlags::CLOSE_INITIATOR.0;
        }
        let seen_reply = known.seen_reply || direction == Direction::Reply;
        let in_handshake = matches!(before, State::SynSent | State::SynSent2 | State::SynRecv);
        if !known.seen_reply && in_handshake && event == Event::Rst {
            return Outcome::AcceptAndEnd;
        }
        let assured = known.assured
            || seen_reply
                && !self.is_unseen()
                && matches!(before, State::SynRecv | State::Established)
                && next == State::Established;
        Outcome::Accept {
            lifetime: Some(self.lifetime(seen_reply)),
            assured,
            tolerated,
        }
    }
}

/// Returns a digest of the numbers of an ACK, of 15 bits, that, with its end, its window and its
/// direction, identifies a repetition.
pub(super) fn digest(segment: &Segment) -> u16 {
    digest_of(segment.seq, segment.ack)
}

/// Returns the digest of a sequence number and an acknowledgment number.
#[inline]
pub(super) const fn digest_of(seq: SeqNum, ack: SeqNum) -> u16 {
    let mixed = (seq.0 ^ ack.0.rotate_left(16)).wrapping_mul(0x9e37_79b1);
    (mixed >> 16) as u16 & !MARK_IN_ORDER
}
