//! TCP: what a connection's segments may be, given all that has passed before.
//!
//! [`Track`] is the compact state of one connection (44 bytes, it lives inside the session's slot);
//! [`Track::segment`] judges one segment. Two questions are asked, in this order: does the *kind* of segment
//! fit the state ([`state`], a table), and do its *numbers* fit the window ([`window`], four inequalities)?
//! The reference is Linux `nf_conntrack` with `tcp_loose=0` and `tcp_be_liberal=0`; where this differs stands
//! in ARCHITECTURE.md.

mod adoption;
mod handshake;
mod reset;
pub mod state;
pub mod window;

pub use state::{Cell, Event, State, transition};
pub use window::{Bound, BoundCheck, Peer, PeerFlags, Side, WindowVerdict};

use serde::{Deserialize, Serialize};

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags};
use crate::track::Lifetime;
use crate::track::LifetimeClass;

/// Repetitions of one segment after which the lifetime is cut (Linux `nf_conntrack_tcp_max_retrans`: 3).
pub const MAX_RETRANSMISSIONS: u8 = 3;

/// What the session knows beside the TCP state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// A packet of the responder has passed.
    pub seen_reply: bool,
    /// The handshake was completed and seen.
    pub assured: bool,
    /// A split handshake may be completed.
    pub split_handshake: bool,
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passes and the state is brought up to date.
    Accept {
        /// The session's lifetime from now on; `None`: it is not refreshed.
        lifetime: Option<Lifetime>,
        /// The session is assured from now on.
        assured: bool,
        /// What a strict judgement would have found; the connection is tracked liberally.
        tolerated: Option<Fault>,
    },
    /// It passes; state and lifetime stay as they were.
    Pass(PassReason),
    /// It passes, and the session ends with it: a RST is the only answer that the initiator got.
    AcceptAndEnd,
    /// It opens a new connection on the ports of this one, which has ended.
    Reopen,
    /// It is invalid; nothing has changed.
    Invalid(Fault),
}

/// Why a segment passes without being believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassReason {
    /// A SYN, SYN-ACK or ACK that may be right where our picture is stale: the receiver decides.
    OutOfStep,
    /// The answer to a SYN that was passed in LAST_ACK: a challenge ACK (RFC 5961 4.2), not the last ACK.
    ChallengeAck,
    /// A RST that its receiver challenges or ignores. It changes nothing at all.
    Rst,
    /// A bound of the window that marks old or slightly early data.
    Window(Bound),
}

/// Why a segment is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This kind of segment does not fit this state and direction.
    State,
    /// Bound I: beyond the window of the receiver.
    SeqAboveWindow,
    /// Bound III: it acknowledges data that was never sent.
    AckOfUnseen,
    /// The responder completes a handshake in which it never sent a SYN-ACK.
    SplitHandshake,
    /// A RST older than what the receiver has acknowledged (RFC 5961 3.2).
    RstBelowWindow,
}

/// A step of the judgement, for the packet tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What the table says.
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
    /// What was done, in words.
    Note(&'static str),
}

/// The state of one TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Track {
    peers: [Peer; 2],
    /// `end` of the last segment.
    last_end: SeqNum,
    /// Its window as on the wire.
    last_window: u16,
    /// After an ACK: a digest of its numbers, to know a repetition. After an ACK or a FIN: [`MARK_IN_ORDER`]. After a
    /// remembered SYN: its options and length.
    last_mark: u16,
    /// Window scales, original in the low nibble.
    scales: u8,
    /// Flags of each end; the upper bits are the connection's.
    flags: [u8; 2],
    /// State (4 bits), kind of the last segment (3), its direction (1).
    position: u8,
}

const _: () = assert!(size_of::<Track>() == 44);

/// In `flags[0]`: in LAST_ACK, an ACK of the responder may be a challenge. In SYN_SENT, one has passed, and the
/// responder's `max_end` holds the number of the RST that answers it.
const CHALLENGE_EXPECTED: u8 = 0x40;
/// In `flags[0]`, while the connection is established or half closed: it is liberal only until both ends were seen.
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
    /// Whether an end can have a segment with this sequence number in flight, or had not long ago; what an ICMP
    /// error quotes must fit (RFC 5927 4.1).
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

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        State::from_bits(self.position & 0x0f)
    }

    /// The memory of both ends as plain numbers, for a protocol that has it in TCP's place.
    pub(crate) const fn from_words([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        const fn peer(end: u32, max_end: u32, max_window: u32, max_ack: u32) -> Peer {
            Peer {
                end: SeqNum(end),
                max_end: SeqNum(max_end),
                max_window,
                max_ack: SeqNum(max_ack),
            }
        }
        Self {
            peers: [peer(a, b, c, d), peer(e, f, g, h)],
            last_end: SeqNum(0),
            last_window: 0,
            last_mark: 0,
            scales: 0,
            flags: [0; 2],
            position: 0,
        }
    }

    /// Whether a state that came from elsewhere is one that segments can lead to, as far as a look at it tells: scales
    /// and kinds within their bounds.
    pub(crate) const fn is_sound(&self) -> bool {
        let (state, event) = (self.position & 0x0f, self.position >> 4 & 0x07);
        state <= State::Close as u8
            && event <= Event::None as u8
            && self.scales & 0x0f <= 14
            && self.scales >> 4 <= 14
    }

    /// What [`Track::from_words`] was made of.
    pub(crate) const fn words(&self) -> [u32; 8] {
        let [one, two] = self.peers;
        [
            one.end.0,
            one.max_end.0,
            one.max_window,
            one.max_ack.0,
            two.end.0,
            two.max_end.0,
            two.max_window,
            two.max_ack.0,
        ]
    }

    /// What one end has sent and allowed, by the direction in which it sends.
    #[must_use]
    pub const fn side(&self, direction: Direction) -> Side {
        let [original, reply] = self.peers;
        let [original_flags, reply_flags] = self.flags;
        match direction {
            Direction::Original => Side {
                peer: original,
                flags: PeerFlags(original_flags & PeerFlags::MASK),
                scale: self.scales & 0x0f,
            },
            Direction::Reply => Side {
                peer: reply,
                flags: PeerFlags(reply_flags & PeerFlags::MASK),
                scale: self.scales >> 4,
            },
        }
    }

    fn put_side(&mut self, direction: Direction, side: Side) {
        let [original, reply] = &mut self.peers;
        let [original_flags, reply_flags] = &mut self.flags;
        let (peer, flags) = match direction {
            Direction::Original => {
                self.scales = self.scales & 0xf0 | side.scale & 0x0f;
                (original, original_flags)
            }
            Direction::Reply => {
                self.scales = self.scales & 0x0f | side.scale << 4;
                (reply, reply_flags)
            }
        };
        *peer = side.peer;
        *flags = *flags & !PeerFlags::MASK | side.flags.0;
    }

    const fn last(&self) -> (Event, Direction) {
        let event = Event::from_bits(self.position >> 4 & 0x07);
        (
            event,
            if self.position & 0x80 == 0 {
                Direction::Original
            } else {
                Direction::Reply
            },
        )
    }

    const fn remember(&mut self, event: Event, direction: Direction) {
        self.position = self.position & 0x0f | (event as u8) << 4 | (direction as u8) << 7;
    }

    const fn set_state(&mut self, state: State) {
        self.position = self.position & 0xf0 | state as u8;
    }

    const fn connection_flag(&self, flag: u8) -> bool {
        let [low, _] = self.flags;
        low & flag != 0
    }

    const fn set_connection_flag(&mut self, flag: u8, on: bool) {
        let [low, _] = &mut self.flags;
        if on { *low |= flag } else { *low &= !flag }
    }

    const fn retransmissions(&self) -> u8 {
        let [_, high] = self.flags;
        high >> RETRANSMISSIONS_SHIFT
    }

    const fn set_retransmissions(&mut self, count: u8) {
        let [_, high] = &mut self.flags;
        let count = if count > MAX_RETRANSMISSIONS {
            MAX_RETRANSMISSIONS
        } else {
            count
        };
        *high = *high & !(0x03 << RETRANSMISSIONS_SHIFT) | count << RETRANSMISSIONS_SHIFT;
    }

    /// Judges a segment. `step` is told each part of the judgement.
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
        let is_opening = matches!(before, State::SynSent | State::SynSent2);
        if is_opening && (event, direction) == (Event::Syn, Direction::Original) {
            self.another_syn(segment);
            // A SYN that nobody answers keeps nothing alive.
            return Outcome::Accept {
                lifetime: None,
                assured: false,
                tolerated: None,
            };
        }
        if is_opening && (event, direction) == (Event::SynAck, Direction::Reply) {
            return self.syn_ack(segment, known, before, step);
        }
        if before == State::SynSent2 && (event, direction) == (Event::SynAck, Direction::Original) {
            return self.own_syn_ack(segment, known, step);
        }
        let mut next = match cell {
            Cell::To(State::LastAck) if self.repeats_first_fin(event, direction, before) => {
                step(Step::Note("the first FIN once more: the other half stays open"));
                before
            }
            Cell::To(next) => next,
            // In a simultaneous open the responder's SYN-ACK may be the later of the two.
            Cell::Ignore
                if (event, direction, before) == (Event::SynAck, Direction::Reply, State::SynRecv)
                    && self.completes_simultaneous_open(segment) =>
            {
                State::SynRecv
            }
            Cell::Invalid => return Outcome::Invalid(Fault::State),
            Cell::Reopen if self.may_reopen(direction, segment) => return Outcome::Reopen,
            Cell::Reopen | Cell::Ignore => {
                if let Some(syn) = self.answered_syn(event, direction, segment) {
                    step(Step::Note(
                        "answers the SYN that was passed: both ends are in step, so are we again",
                    ));
                    let before = *self;
                    self.begin_with(syn);
                    let stages = (event, State::SynSent, State::SynRecv);
                    let outcome = self.in_window(direction, segment, known, stages, step);
                    if let Outcome::Invalid(_) = outcome {
                        *self = before;
                    }
                    return outcome;
                }
                self.note_out_of_step(event, direction, segment, before);
                step(Step::Note(
                    "may be right where our picture is stale: passed and remembered",
                ));
                return Outcome::Pass(PassReason::OutOfStep);
            }
        };
        match next {
            State::TimeWait if self.is_challenge_ack(event, direction, before) => {
                self.set_connection_flag(CHALLENGE_EXPECTED, false);
                return Outcome::Pass(PassReason::ChallengeAck);
            }
            State::SynRecv
                if event == Event::Ack
                    && direction == Direction::Reply
                    && self.connection_flag(SIMULTANEOUS_OPEN) =>
            {
                // In a simultaneous open both ends send a SYN-ACK (RFC 9293 3.5, figure 7).
                if !known.split_handshake && !self.side(direction).flags.contains(PeerFlags::MAX_ACK_KNOWN) {
                    return Outcome::Invalid(Fault::SplitHandshake);
                }
                next = State::Established;
            }
            _ => {}
        }
        self.in_window(direction, segment, known, (event, before, next), step)
    }

    /// Takes note of more data of a segment that has passed: its end moves from `from` to `to`, since a later IP
    /// fragment of it has come. See [`window::extend`].
    pub fn extend(&mut self, direction: Direction, from: SeqNum, to: SeqNum) {
        if self.extend_syn(direction, from, to) {
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

    /// A SYN on the ports of a finished connection opens a new one if the old one was closed by FINs, and, while it
    /// is in TIME_WAIT, the SYN has a higher number than all that its sender has sent (RFC 9293 3.6.1); or if its
    /// sender has closed the old one by a RST. Any other SYN is for the receiver to judge.
    fn may_reopen(&self, direction: Direction, segment: &Segment) -> bool {
        let [original, reply] = self.flags;
        let closed = (original | reply) & PeerFlags::CLOSE_INITIATOR.0 != 0;
        let higher = segment.seq.after(self.side(direction).peer.end);
        closed && (higher || self.state() == State::Close) || self.last() == (Event::Rst, direction)
    }

    /// Whether a FIN repeats the one that has closed its sender's half, while the other half is open.
    const fn repeats_first_fin(&self, event: Event, direction: Direction, before: State) -> bool {
        let [original, reply] = self.flags;
        let flags = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        matches!(event, Event::Fin)
            && matches!(before, State::FinWait | State::CloseWait)
            && flags & PeerFlags::CLOSE_INITIATOR.0 != 0
    }

    fn is_challenge_ack(&self, event: Event, direction: Direction, before: State) -> bool {
        before == State::LastAck
            && event == Event::Ack
            && self.last() == (Event::Syn, direction.opposite())
            && self.connection_flag(CHALLENGE_EXPECTED)
    }

    fn stage(&self, before: State) -> window::Stage {
        window::Stage {
            opening: matches!(before, State::SynSent | State::SynSent2),
            followed: !self.connection_flag(LIBERAL),
        }
    }

    fn in_window(
        &mut self,
        direction: Direction,
        segment: &Segment,
        known: Known,
        (event, before, next): (Event, State, State),
        mut step: impl FnMut(Step),
    ) -> Outcome {
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
        let next = if ignored { before } else { next };
        let fault = match verdict {
            WindowVerdict::Fits => None,
            WindowVerdict::Passes(_) if event == Event::Rst => return Outcome::Pass(PassReason::Rst),
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
                    "not all of the connection was seen: the segment is taken at its word",
                ));
                self.relearn(direction, segment);
                return self.accept(direction, known, (event, before, next), None);
            }
            if liberal {
                step(Step::Note("outside the window, which is tolerated"));
                self.note_acknowledgment(direction, segment);
                return self.accept(direction, known, (event, before, next), Some(fault));
            }
            return Outcome::Invalid(fault);
        }
        self.put_side(direction, sender);
        self.put_side(direction.opposite(), receiver);
        if self.is_unseen() {
            self.settle();
        }
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
        self.accept(direction, known, (event, before, next), None)
    }

    /// Takes note of what the sender of a tolerated segment expects: the number of the RST that would end the connection.
    fn note_acknowledgment(&mut self, direction: Direction, segment: &Segment) {
        let mut sender = self.side(direction);
        if segment.flags.contains(TcpFlags::ACK) && segment.ack.after(sender.peer.max_ack) {
            sender.peer.max_ack = segment.ack;
            sender.flags.set(PeerFlags::MAX_ACK_KNOWN);
            self.put_side(direction, sender);
        }
    }

    /// The segment counts: takes the new state and says how long the session has from here.
    fn accept(
        &mut self,
        direction: Direction,
        known: Known,
        (event, before, next): (Event, State, State),
        tolerated: Option<Fault>,
    ) -> Outcome {
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
        if before != next && !matches!(next, State::Established | State::FinWait | State::CloseWait) {
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

    /// How long the connection has after its last segment that counted.
    #[must_use]
    pub fn lifetime(&self, seen_reply: bool) -> Lifetime {
        let (event, _) = self.last();
        let [original, reply] = self.flags;
        let unacknowledged = (original | reply) & PeerFlags::DATA_UNACKNOWLEDGED.0 != 0;
        let cap = if event == Event::Rst {
            None
        } else if (!seen_reply || self.is_unseen()) && self.state() == State::Established {
            // Picked up in its middle, and nobody has answered yet, or not all of it is known.
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

/// A digest of the numbers of an ACK, of 15 bits, that, with its end, its window and its direction, tells a repetition.
fn digest(segment: &Segment) -> u16 {
    let mixed = (segment.seq.0 ^ segment.ack.0.rotate_left(16)).wrapping_mul(0x9e37_79b1);
    (mixed >> 16) as u16 & !MARK_IN_ORDER
}

#[cfg(test)]
mod tests;
