//! RSTs: which of them end a connection.
//!
//! A RST ends a connection here only if its receiver takes it. In the handshake that is one that
//! acknowledges the SYN (RFC 9293 3.10.7.3); in all other states it is one with the exact number
//! that the receiver expects (RFC 5961 3.2). Any other may be a forgery: it passes if it is in the
//! window, and changes nothing.

use super::judgment::StateChange;
use super::window::{self, PeerFlags, Side, WindowVerdict};
use super::{Bound, Event, Fault, Known, MARK_IN_ORDER, Outcome, PassReason, State, Step, Track};
use crate::flow::Direction;
use crate::packet::{Segment, TcpFlags};

/// Decision about a RST.
enum Rst {
    /// The RST closes the connection if it is within the window.
    Closes,
    /// The RST closes the connection without a window check.
    Trusted,
    /// The RST ends the handshake of the SYN that it answers; another remembered SYN takes its
    /// place.
    EndsHandshake,
    /// The RST ends the attempt of the other SYN.
    EndsOther,
    /// The RST passes and changes no state.
    Aside,
    /// The RST passes and changes no state if it is within the window.
    Challenged,
    /// No receiver would take it.
    Invalid(Fault),
}

impl Track {
    /// Judges a RST.
    pub(super) fn reset(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        before: State,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        if self.is_resuming() {
            return self.reset_while_resuming(direction, segment, known, step);
        }
        let judged = match before {
            State::SynSent | State::SynSent2 => self.judge_opening(direction, segment, &mut step),
            State::SynRecv => self.judge_syn_recv(direction, segment, &mut step),
            State::LastAck | State::TimeWait | State::Close => {
                self.judge_closed(direction, segment, &mut step)
            }
            State::Established | State::FinWait | State::CloseWait => {
                self.judge_open(direction, segment, before, &mut step)
            }
        };
        let change = StateChange {
            event: Event::Rst,
            before,
            next: State::Close,
        };
        match judged {
            Rst::Closes => self.in_window(direction, segment, known, change, step),
            Rst::Trusted => self.accept(direction, known, change, None),
            Rst::EndsHandshake => match self.other_syn() {
                Some(other) => {
                    step(Step::Note(
                        "another remembered SYN takes the place of this one",
                    ));
                    self.begin_with(other);
                    Outcome::Accept {
                        lifetime: None,
                        assured: false,
                        tolerated: None,
                    }
                }
                None => self.accept(direction, known, change, None),
            },
            Rst::EndsOther => {
                self.forget_other_syn();
                Outcome::Pass(PassReason::Rst)
            }
            Rst::Aside => Outcome::Pass(PassReason::Rst),
            Rst::Challenged => self.challenged(direction, segment, step),
            Rst::Invalid(fault) => Outcome::Invalid(fault),
        }
    }

    /// Judges a RST in SYN_SENT or SYN_SENT2. The initiator accepts a refusal that acknowledges its
    /// SYN or some of its data (RFC 9293 3.10.7.3), and itself sends a RST with a number of its SYN
    /// or its data.
    fn judge_opening(
        &self,
        direction: Direction,
        segment: &Segment,
        step: &mut impl FnMut(Step),
    ) -> Rst {
        let (current, other) = (self.current_syn(), self.other_syn());
        if direction == Direction::Reply {
            if !segment.flags.contains(TcpFlags::ACK) {
                step(Step::Note(
                    "a refusal without an acknowledgment proves nothing",
                ));
                return Rst::Aside;
            }
            if current.is_acknowledged_by(segment.ack) {
                return Rst::EndsHandshake;
            }
            return if other.is_some_and(|syn| syn.is_acknowledged_by(segment.ack)) {
                Rst::EndsOther
            } else {
                Rst::Invalid(Fault::AckOfUnseen)
            };
        }
        if current.may_abort_at(segment.seq) {
            Rst::EndsHandshake
        } else if other.is_some_and(|syn| syn.may_abort_at(segment.seq)) {
            Rst::EndsOther
        } else if self.answers_challenge(segment.seq) {
            step(Step::Note(
                "answers a challenge: the initiator retransmits its SYN",
            ));
            Rst::Aside
        } else if segment.seq.after(current.end()) {
            Rst::Invalid(Fault::SeqAboveWindow)
        } else {
            Rst::Invalid(Fault::RstBelowWindow)
        }
    }

    /// Judges a RST in SYN_RECV: the exact number closes. A refusal of the SYN passes, since the
    /// SYN-ACK may not have reached the initiator.
    fn judge_syn_recv(
        &self,
        direction: Direction,
        segment: &Segment,
        step: &mut impl FnMut(Step),
    ) -> Rst {
        let (sender, receiver) = (self.side(direction), self.side(direction.opposite()));
        let acknowledges = segment.flags.contains(TcpFlags::ACK);
        let expected = receiver.peer.max_ack;
        step(Step::Rst {
            seq: segment.seq,
            expected,
        });
        if segment.seq == expected || segment.seq == sender.peer.end {
            return if self.other_syn().is_some() {
                Rst::EndsHandshake
            } else {
                Rst::Closes
            };
        }
        // The least and the greatest acknowledgment that are acceptable to the initiator.
        let (least, greatest) = (sender.peer.max_ack, receiver.peer.end);
        let refuses = !segment.ack.before(least) && !segment.ack.after(greatest)
            || self
                .other_syn()
                .is_some_and(|syn| syn.is_acknowledged_by(segment.ack));
        if direction == Direction::Reply && acknowledges && refuses {
            step(Step::Note(
                "refuses a SYN: only an initiator that waits for the SYN-ACK accepts it",
            ));
            return Rst::Aside;
        }
        if segment.seq.before(expected) {
            return Rst::Invalid(Fault::RstBelowWindow);
        }
        Rst::Challenged
    }

    /// Judges a RST in ESTABLISHED, FIN_WAIT or CLOSE_WAIT.
    fn judge_open(
        &self,
        direction: Direction,
        segment: &Segment,
        before: State,
        step: &mut impl FnMut(Step),
    ) -> Rst {
        let refuses = segment.flags.contains(TcpFlags::ACK)
            && self
                .other_syn()
                .is_some_and(|syn| syn.is_acknowledged_by(segment.ack));
        if refuses && direction == Direction::Reply {
            // An attacker that can forge a SYN can forge its refusal.
            step(Step::Note(
                "refuses the SYN that was passed, which proves nothing about the connection",
            ));
            return Rst::Aside;
        }
        let receiver = self.side(direction.opposite());
        let is_known = receiver.flags.contains(PeerFlags::MAX_ACK_KNOWN) || !self.is_liberal();
        if !is_known {
            // The expected number of a receiver that was never seen is unknown.
            return Rst::Aside;
        }
        let expected = receiver.peer.max_ack;
        step(Step::Rst {
            seq: segment.seq,
            expected,
        });
        let is_old = segment.seq.before(expected);
        if segment.seq == expected || !is_old && self.ends_own_data(direction, segment) {
            return Rst::Closes;
        }
        if is_old {
            // A closed socket answers late data with the number that those acknowledged: old, but
            // no forgery.
            return if before == State::Established {
                Rst::Invalid(Fault::RstBelowWindow)
            } else {
                Rst::Aside
            };
        }
        Rst::Challenged
    }

    /// Judges a RST in LAST_ACK, TIME_WAIT or CLOSE: any RST passes, and the exact one closes. It
    /// must not discard a remembered SYN that begins a new connection on these ports.
    fn judge_closed(
        &self,
        direction: Direction,
        segment: &Segment,
        step: &mut impl FnMut(Step),
    ) -> Rst {
        let (sender, receiver) = (self.side(direction), self.side(direction.opposite()));
        let is_known = receiver.flags.contains(PeerFlags::MAX_ACK_KNOWN);
        let expected = receiver.peer.max_ack;
        step(Step::Rst {
            seq: segment.seq,
            expected,
        });
        let is_exact = is_known && segment.seq == expected || segment.seq == sender.peer.end;
        let (event, from) = self.last();
        let awaits_answer = event == Event::Syn && from != direction;
        if is_exact && !awaits_answer {
            Rst::Trusted
        } else {
            Rst::Aside
        }
    }

    /// Returns whether the RST comes right after the sender's own last data, which is not
    /// acknowledged yet. A segment ahead of a hole does not count: its number is free to choose for
    /// any host that knows the window.
    fn ends_own_data(&self, direction: Direction, segment: &Segment) -> bool {
        let (event, last) = self.last();
        matches!(event, Event::Ack | Event::Fin)
            && last == direction
            && self.last_mark & MARK_IN_ORDER != 0
            && segment.seq == self.last_end
            && segment.seq == self.side(direction).peer.end
    }

    /// Handles a RST that is not exact: its receiver challenges it (RFC 5961 3.2) if it is in the
    /// window.
    fn challenged(
        &self,
        direction: Direction,
        segment: &Segment,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        step(Step::Note(
            "not the exact number: the receiver will challenge it (RFC 5961 3.2)",
        ));
        let (mut sender, mut receiver): (Side, Side) =
            (self.side(direction), self.side(direction.opposite()));
        let stage = self.stage(self.state());
        let verdict = window::check(&mut sender, &mut receiver, segment, stage, |check| {
            step(Step::Bound(check))
        });
        match verdict {
            WindowVerdict::Fits | WindowVerdict::Passes(_) => Outcome::Pass(PassReason::Rst),
            WindowVerdict::Breaks(Bound::SeqUpper | Bound::SeqLower) => {
                Outcome::Invalid(Fault::SeqAboveWindow)
            }
            WindowVerdict::Breaks(Bound::AckUpper | Bound::AckLower) => {
                Outcome::Invalid(Fault::AckOfUnseen)
            }
        }
    }
}
