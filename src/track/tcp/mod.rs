//! TCP: the valid segments of a connection, given the earlier ones.
//!
//! [`Track`] is the compact state of one connection (44 bytes, it lives inside the session's slot);
//! [`Track::segment`] judges one segment. Two questions are asked, in this order: does the *kind*
//! of segment fit the state ([`state`], a table), and do its *numbers* fit the window ([`window`],
//! four inequalities)? The reference is Linux `nf_conntrack` with `tcp_loose=0` and
//! `tcp_be_liberal=0`; docs/DEVIATIONS.md lists the differences.

mod adoption;
mod handshake;
mod judgment;
mod packed;
mod reset;
mod resume;
pub mod state;
mod usual;
pub mod window;

pub use state::{Cell, Event, State, transition};
pub use window::{Bound, BoundCheck, Peer, PeerFlags, Side, WindowVerdict};

use self::judgment::StateChange;
#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum};
use crate::track::Lifetime;
use crate::track::LifetimeClass;

/// Repetitions of one segment after which the lifetime is cut (Linux
/// `nf_conntrack_tcp_max_retrans`: 3).
pub const MAX_RETRANSMISSIONS: u8 = 3;

/// Facts about the session beside the TCP state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// A packet of the responder has passed.
    pub seen_reply: bool,
    /// The handshake was completed and seen.
    pub assured: bool,
    /// A split handshake may be completed: its check only counts.
    pub split_handshake: bool,
}

/// Outcome for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The segment passes and the state is updated.
    Accept {
        /// The session's lifetime from now on; `None`: it is not refreshed.
        lifetime: Option<Lifetime>,
        /// The session is assured from now on.
        assured: bool,
        /// Fault that does not count: the connection is tracked liberally, or a split handshake may
        /// be completed.
        tolerated: Option<Fault>,
    },
    /// The segment passes; state and lifetime do not change.
    Pass(PassReason),
    /// The segment passes and the session ends with it: a RST is the only answer that the initiator
    /// got.
    AcceptAndEnd,
    /// The segment opens a new connection on the ports of this one, which has ended.
    Reopen,
    /// The segment is invalid; the state has not changed.
    Invalid(Fault),
}

/// Reason for which a segment passes without changing the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassReason {
    /// A SYN, SYN-ACK or ACK that may be valid if the tracked state is stale: the receiver decides.
    OutOfStep,
    /// The answer to a SYN that was passed in LAST_ACK: a challenge ACK (RFC 5961 4.2), not the
    /// last ACK.
    ChallengeAck,
    /// A RST that its receiver challenges or ignores. It changes nothing at all.
    Rst,
    /// A bound of the window that marks old or slightly early data.
    Window(Bound),
}

/// Reason for which a segment is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The kind of the segment does not fit the state and direction.
    State,
    /// Bound I: beyond the window of the receiver.
    SeqAboveWindow,
    /// Bound III: it acknowledges data that was never sent.
    AckOfUnseen,
    /// The responder completes a handshake in which it never sent a SYN-ACK.
    SplitHandshake,
    /// The RST is older than the data that the receiver has acknowledged (RFC 5961 3.2).
    RstBelowWindow,
}

/// A step of the judgment, for the packet tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look-up in the table of states.
    Transition {
        /// The kind of segment.
        event: Event,
        /// The direction that it travels.
        direction: Direction,
        /// The state before it.
        state: State,
        /// The table's cell.
        cell: Cell,
    },
    /// A RST's number against the one that its receiver expects.
    Rst {
        /// The sequence number of the RST.
        seq: SeqNum,
        /// The exact number that closes the connection.
        expected: SeqNum,
    },
    /// An inequality of the window.
    Bound(BoundCheck),
    /// Description of an action.
    Note(&'static str),
}

/// The state of one TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
#[repr(C)]
pub struct Track {
    peers: [Peer; 2],
    /// `end` of the last segment.
    last_end: SeqNum,
    /// Window of the last segment, as on the wire.
    last_window: u16,
    /// After an ACK: a digest of its numbers, to know a repetition. After an ACK or a FIN:
    /// [`MARK_IN_ORDER`]. After a remembered SYN: its options and length.
    last_mark: u16,
    /// Window scales, original in the low nibble.
    scales: u8,
    /// Flags of each end; the upper bits are the connection's.
    flags: [u8; 2],
    /// State (4 bits), kind of the last segment (3), its direction (1).
    position: u8,
}

const _: () = assert!(size_of::<Track>() == 44);

/// In `flags[0]`: in LAST_ACK, an ACK of the responder may be a challenge. In SYN_SENT, one has
/// passed, and the responder's `max_end` holds the number of the RST that answers it.
const CHALLENGE_EXPECTED: u8 = 0x40;
/// In `flags[0]`, while the connection is established or half closed: it is liberal only until both
/// ends were seen.
const UNSEEN: u8 = CHALLENGE_EXPECTED;
/// In `flags[0]`: both ends sent a SYN.
const SIMULTANEOUS_OPEN: u8 = 0x80;
/// In `flags[0]`: numbers outside the window pass.
const LIBERAL: u8 = 0x20;
/// In `last_mark` after an ACK or a FIN: it began no later than where the data before it ended.
const MARK_IN_ORDER: u16 = 1;
/// In `flags[1]`: where the count of repetitions stands.
const RETRANSMISSIONS_SHIFT: u8 = 6;

impl Track {
    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> State {
        State::from_bits(self.position & 0x0f)
    }

    /// Judges a segment. Each part of the judgment is reported to `step`.
    pub fn segment(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        let event = Event::of(segment.flags);
        let before = self.state();
        let cell = transition(direction, event, before);
        step(Step::Transition {
            event,
            direction,
            state: before,
            cell,
        });
        if event == Event::Rst {
            return self.reset(direction, segment, known, before, step);
        }
        match (event, direction, before) {
            (Event::Syn, Direction::Original, State::SynSent | State::SynSent2) => {
                self.another_syn(segment);
                // A SYN without an answer does not extend the lifetime.
                return Outcome::Accept {
                    lifetime: None,
                    assured: false,
                    tolerated: None,
                };
            }
            (Event::SynAck, Direction::Reply, State::SynSent | State::SynSent2) => {
                return self.syn_ack(segment, known, before, step);
            }
            (Event::SynAck, Direction::Original, State::SynSent2) => {
                return self.own_syn_ack(segment, known, step);
            }
            _ => {}
        }
        let next = match cell {
            Cell::To(State::LastAck) if self.repeats_first_fin(event, direction, before) => {
                step(Step::Note(
                    "the first FIN again: the other direction stays open",
                ));
                before
            }
            Cell::To(next) => next,
            // In a simultaneous open the responder's SYN-ACK may be the later of the two.
            Cell::Ignore
                if (event, direction, before)
                    == (Event::SynAck, Direction::Reply, State::SynRecv)
                    && self.completes_simultaneous_open(segment) =>
            {
                State::SynRecv
            }
            Cell::Invalid => return Outcome::Invalid(Fault::State),
            Cell::Reopen if self.may_reopen(direction, segment) => return Outcome::Reopen,
            Cell::Reopen | Cell::Ignore => {
                return self.out_of_step(direction, segment, known, step);
            }
        };
        let mut change = StateChange {
            event,
            before,
            next,
        };
        if next == State::TimeWait && self.is_challenge_ack(event, direction, before) {
            self.set_connection_flag(CHALLENGE_EXPECTED, false);
            return Outcome::Pass(PassReason::ChallengeAck);
        }
        if self.ends_simultaneous_open(event, direction, next) {
            change.next = State::Established;
            let flags = self.side(direction).flags;
            if !flags.contains(PeerFlags::MAX_ACK_KNOWN) {
                return self.split_handshake(segment, known, change, step);
            }
        }
        self.in_window(direction, segment, known, change, step)
    }

    /// Returns whether an ACK of the responder ends a simultaneous open, in which both peers send a
    /// SYN-ACK (RFC 9293 3.5, figure 7).
    #[inline(always)]
    fn ends_simultaneous_open(&self, event: Event, direction: Direction, next: State) -> bool {
        next == State::SynRecv
            && event == Event::Ack
            && direction == Direction::Reply
            && self.connection_flag(SIMULTANEOUS_OPEN)
    }

    /// Judges a segment that the state ignores: it may be valid if the tracked state is stale.
    fn out_of_step(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        let event = Event::of(segment.flags);
        let Some(syn) = self.answered_syn(event, direction, segment) else {
            self.note_out_of_step(event, direction, segment, self.state());
            step(Step::Note(
                "may be valid if the tracked state is stale: passed and remembered",
            ));
            return Outcome::Pass(PassReason::OutOfStep);
        };
        step(Step::Note(
            "answers the SYN that was passed: tracking is synchronized with both ends again",
        ));
        let unchanged = *self;
        self.begin_with(syn);
        let change = StateChange {
            event,
            before: State::SynSent,
            next: State::SynRecv,
        };
        let outcome = self.in_window(direction, segment, known, change, step);
        if let Outcome::Invalid(_) = outcome {
            *self = unchanged;
        }
        outcome
    }

    /// Records more data of a segment that has passed: its end moves from `from` to `to`, since a
    /// later IP fragment of it has come. See [`window::extend`].
    pub fn extend(&mut self, direction: Direction, from: SeqNum, to: SeqNum) {
        if self.extend_syn(direction, from, to) {
            return;
        }
        if self.is_resuming() {
            self.extend_candidate(direction, from, to);
            return;
        }
        let mut sender = self.side(direction);
        let mut receiver = self.side(direction.opposite());
        window::extend(&mut sender, &mut receiver, from, to);
        self.put_side(direction, sender);
        self.put_side(direction.opposite(), receiver);
        let (_, last_direction) = self.last();
        if last_direction == direction && self.last_end == from {
            self.last_end = to;
        }
    }

    /// Returns whether an end can have a segment with this sequence number in flight, or had not
    /// long ago; the quote of an ICMP error must fit (RFC 5927 4.1).
    #[must_use]
    pub fn may_quote(&self, direction: Direction, seq: SeqNum) -> bool {
        let sender = self.side(direction).peer;
        let window = self
            .side(direction.opposite())
            .peer
            .max_window
            .max(window::MIN_ACK_WINDOW);
        sender.max_window != 0 && !seq.after(sender.end) && !seq.before(sender.end.sub(window))
    }

    /// Returns the lifetime of the connection after its last segment that counted.
    #[must_use]
    pub fn lifetime(&self, seen_reply: bool) -> Lifetime {
        let (event, _) = self.last();
        let [original, reply] = self.flags;
        let unacknowledged = (original | reply) & PeerFlags::DATA_UNACKNOWLEDGED.0 != 0;
        let cap = if event == Event::Rst {
            None
        } else if (!seen_reply || self.is_unseen() && !self.is_resumed())
            && self.state() == State::Established
        {
            // The connection was picked up mid-stream, and has no answer yet, or is not completely
            // known.
            Some(LifetimeClass::TcpUnacknowledged)
        } else if self.retransmissions() >= MAX_RETRANSMISSIONS {
            Some(LifetimeClass::TcpRetransmitted)
        } else if unacknowledged {
            Some(LifetimeClass::TcpUnacknowledged)
        } else if event == Event::Ack && self.last_window == 0 {
            Some(LifetimeClass::TcpRetransmitted)
        } else {
            None
        };
        Lifetime {
            class: self.state().lifetime(),
            cap,
        }
    }
}

#[cfg(test)]
mod tests;
