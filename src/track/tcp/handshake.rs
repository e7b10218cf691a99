//! The SYNs that are remembered, and which of them an answer belongs to.
//!
//! Any host can send a SYN with a forged source address, and an initiator may begin again on the
//! same ports. So a SYN replaces nothing until the responder answers it. Until a SYN-ACK passes,
//! the track keeps the first SYN of the initiator and the latest one with another number; in later
//! states it keeps the latest SYN that has passed. The SYN-ACK selects one of them by its
//! acknowledgment.

use super::judgment::StateChange;
use super::window::{self, Peer, PeerFlags, Side};
use super::{
    CHALLENGE_EXPECTED, Event, Fault, Known, LIBERAL, Outcome, PassReason, SIMULTANEOUS_OPEN,
    State, Step, Track,
};
use crate::flow::Direction;
use crate::packet::{Segment, SeqNum};

/// In `last_mark` after a SYN: the window scale, or [`NO_SCALE`].
const MARK_SCALE: u16 = 0x0f;
const NO_SCALE: u16 = 0x0f;
/// In `last_mark` after a SYN: it permitted SACK.
pub(super) const MARK_SACK_PERMITTED: u16 = 0x10;
/// In `last_mark` after a SYN: where the length of its data begins.
const MARK_LEN_SHIFT: u32 = 5;
/// A SYN with this much data or more: the acknowledgment of its last byte alone answers it.
const LONG: u32 = 0x7ff;

/// A SYN, as far as the answer to it needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syn {
    /// The number after its SYN flag.
    first: SeqNum,
    /// The number after its data.
    end: SeqNum,
    window: u16,
    scale: Option<u8>,
    sack_permitted: bool,
}

impl Syn {
    fn of(segment: &Segment) -> Self {
        Self {
            first: segment.seq.add(1),
            end: segment.seq.add(window::sequence_len(segment)),
            window: segment.window,
            scale: segment.options.window_scale,
            sack_permitted: segment.options.sack_permitted,
        }
    }

    /// Returns whether an acknowledgment is acceptable to the sender of this SYN: at least the SYN
    /// and at most its data (RFC 9293 3.10.7.3).
    pub(super) const fn is_acknowledged_by(&self, ack: SeqNum) -> bool {
        ack.distance_from(self.first) <= self.end.distance_from(self.first)
    }

    /// Returns whether a RST of the sender of this SYN can have this number.
    pub(super) const fn may_abort_at(&self, seq: SeqNum) -> bool {
        self.is_acknowledged_by(seq) || seq.0 == self.first.sub(1).0
    }

    /// Returns the number after its data.
    pub(super) const fn end(&self) -> SeqNum {
        self.end
    }

    /// Returns the SYN as it is repeated by `again`: with other options or less data (RFC 7413
    /// 4.2.1).
    fn repeated(self, again: Self) -> Self {
        Self {
            first: self.first,
            end: if again.end.after(self.end) {
                again.end
            } else {
                self.end
            },
            window: self.window.max(again.window),
            scale: self.scale.or(again.scale),
            sack_permitted: self.sack_permitted || again.sack_permitted,
        }
    }

    fn mark(&self) -> u16 {
        let scale = self.scale.map_or(NO_SCALE, u16::from) & MARK_SCALE;
        let sack = u16::from(self.sack_permitted) * MARK_SACK_PERMITTED;
        let len = self.end.distance_from(self.first).min(LONG) as u16;
        scale | sack | len << MARK_LEN_SHIFT
    }

    /// Returns the initiator's side after this SYN.
    fn side(&self) -> Side {
        let mut flags = PeerFlags::default();
        if self.scale.is_some() {
            flags.set(PeerFlags::WINDOW_SCALE);
        }
        if self.sack_permitted {
            flags.set(PeerFlags::SACK_PERMITTED);
        }
        let peer = Peer {
            end: self.end,
            max_end: self.end,
            max_window: u32::from(self.window).max(1),
            max_ack: SeqNum(0),
        };
        Side {
            peer,
            flags,
            scale: self.scale.unwrap_or(0),
        }
    }
}

impl Track {
    /// Returns the state after a connection's first segment, which must be a SYN; `None` for any
    /// other.
    #[must_use]
    pub fn open(segment: &Segment) -> Option<Self> {
        if Event::of(segment.flags) != Event::Syn {
            return None;
        }
        let syn = Syn::of(segment);
        let Side { peer, flags, scale } = syn.side();
        let responder = Peer {
            max_ack: syn.first,
            ..Peer::default()
        };
        // Written once: the result is that of `begin_with` on an empty track.
        let mut track = Self {
            peers: [peer, responder],
            last_end: syn.end,
            last_window: syn.window,
            last_mark: syn.mark(),
            scales: scale & 0x0f,
            flags: [flags.0, 0],
            position: 0,
        };
        track.remember(Event::Syn, Direction::Original);
        track.set_state(State::SynSent);
        Some(track)
    }

    /// Discards both ends and begins with a SYN: SYN_SENT.
    pub(super) fn begin_with(&mut self, syn: Syn) {
        self.stop_resuming();
        if self.is_unseen() {
            // Nothing of the new connection was missed.
            self.set_connection_flag(LIBERAL, false);
        }
        self.put_side(Direction::Original, syn.side());
        self.put_side(Direction::Reply, Side::default());
        let [_, responder] = &mut self.peers;
        responder.max_ack = syn.first;
        self.set_connection_flag(CHALLENGE_EXPECTED, false);
        self.set_connection_flag(SIMULTANEOUS_OPEN, false);
        self.remember_syn(Direction::Original, syn);
        self.set_state(State::SynSent);
    }

    /// Stores a SYN as the initiator's. The data that the initiator can acknowledge stays.
    fn put_syn(&mut self, syn: Syn) {
        let mut side = syn.side();
        side.peer.max_ack = self.side(Direction::Original).peer.max_ack;
        self.put_side(Direction::Original, side);
    }

    fn remember_syn(&mut self, direction: Direction, syn: Syn) {
        self.remember(Event::Syn, direction);
        self.last_end = syn.end;
        self.last_window = syn.window;
        self.last_mark = syn.mark();
    }

    /// Returns the latest SYN of the initiator, while no later segment has replaced it.
    fn remembered_syn(&self) -> Option<Syn> {
        if self.last() != (Event::Syn, Direction::Original) {
            return None;
        }
        let len = u32::from(self.last_mark >> MARK_LEN_SHIFT);
        let scale = self.last_mark & MARK_SCALE;
        Some(Syn {
            first: self.last_end.sub(if len < LONG { len } else { 0 }),
            end: self.last_end,
            window: self.last_window,
            scale: (scale != NO_SCALE).then_some(scale as u8),
            sack_permitted: self.last_mark & MARK_SACK_PERMITTED != 0,
        })
    }

    /// Returns the SYN that the handshake follows, until a SYN-ACK has answered it.
    pub(super) fn current_syn(&self) -> Syn {
        let initiator = self.side(Direction::Original);
        let has = |flag| initiator.flags.contains(flag);
        Syn {
            first: self.side(Direction::Reply).peer.max_ack,
            end: initiator.peer.end,
            window: initiator.peer.max_window.min(u32::from(u16::MAX)) as u16,
            scale: has(PeerFlags::WINDOW_SCALE).then_some(initiator.scale),
            sack_permitted: has(PeerFlags::SACK_PERMITTED),
        }
    }

    /// Returns the remembered SYN, if it is not the one that the handshake follows.
    pub(super) fn other_syn(&self) -> Option<Syn> {
        let answered = self.side(Direction::Reply).peer.max_ack;
        self.remembered_syn()
            .filter(|syn| !syn.is_acknowledged_by(answered))
    }

    /// Records a SYN of the initiator that comes before any SYN-ACK.
    pub(super) fn another_syn(&mut self, segment: &Segment) {
        let (syn, current) = (Syn::of(segment), self.current_syn());
        if syn.first == current.first {
            let repeated = current.repeated(syn);
            self.put_syn(repeated);
            if self.other_syn().is_none() {
                self.remember_syn(Direction::Original, repeated);
            }
            return;
        }
        let known = self
            .remembered_syn()
            .filter(|known| known.first == syn.first);
        self.remember_syn(
            Direction::Original,
            known.map_or(syn, |known| known.repeated(syn)),
        );
    }

    /// Makes the handshake follow the SYN that a SYN-ACK acknowledges, if it is the other one; the
    /// previous one stays remembered.
    fn select_syn(&mut self, ack: SeqNum) {
        let current = self.current_syn();
        let other = self.other_syn().filter(|syn| syn.is_acknowledged_by(ack));
        if let Some(other) = other
            && !current.is_acknowledged_by(ack)
        {
            self.put_syn(other);
            let [_, responder] = &mut self.peers;
            responder.max_ack = other.first;
            self.remember_syn(Direction::Original, current);
        }
    }

    /// Judges the first SYN-ACK of the responder, which answers one of the remembered SYNs.
    pub(super) fn syn_ack(
        &mut self,
        segment: &Segment,
        known: Known,
        before: State,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        if before == State::SynSent && self.is_source_challenge(segment) {
            self.expect_answer(segment.ack);
            step(Step::Note(
                "a challenge: the sender of the SYN answers with a RST and retransmits its SYN",
            ));
            return Outcome::Pass(PassReason::OutOfStep);
        }
        let untouched = *self;
        self.select_syn(segment.ack);
        // The number that the initiator would acknowledge, if it has seen a SYN of the responder.
        let crossed = self.side(Direction::Original).peer.max_ack == segment.seq.add(1);
        let change = StateChange {
            event: Event::SynAck,
            before,
            next: State::SynRecv,
        };
        let outcome = self.in_window(Direction::Reply, segment, known, change, step);
        match outcome {
            Outcome::Accept { .. } if !crossed => {
                // The SYN of the responder that passed was not its own.
                self.set_connection_flag(SIMULTANEOUS_OPEN, false);
            }
            Outcome::Invalid(_) => *self = untouched,
            _ => {}
        }
        outcome
    }

    /// Judges the initiator's SYN-ACK of a simultaneous open: its number is that of one of the
    /// initiator's SYNs (RFC 9293 3.5, figure 7). Otherwise any host could replace that number, by
    /// first forging a SYN of the responder.
    pub(super) fn own_syn_ack(
        &mut self,
        segment: &Segment,
        known: Known,
        step: impl FnMut(Step),
    ) -> Outcome {
        let untouched = *self;
        if !self.select_own_syn(segment.seq) {
            return Outcome::Invalid(Fault::SeqAboveWindow);
        }
        let change = StateChange {
            event: Event::SynAck,
            before: State::SynSent2,
            next: State::SynRecv,
        };
        let outcome = self.in_window(Direction::Original, segment, known, change, step);
        if let Outcome::Invalid(_) = outcome {
            *self = untouched;
        }
        outcome
    }

    /// Judges the responder's ACK that completes a split handshake.
    #[cold]
    pub(super) fn split_handshake(
        &mut self,
        segment: &Segment,
        known: Known,
        change: StateChange,
        mut step: impl FnMut(Step),
    ) -> Outcome {
        if !known.split_handshake {
            return Outcome::Invalid(Fault::SplitHandshake);
        }
        step(Step::Note(
            "completes a split handshake, whose check only counts",
        ));
        let mut outcome = self.in_window(Direction::Reply, segment, known, change, step);
        if let Outcome::Accept { tolerated, .. } = &mut outcome {
            tolerated.get_or_insert(Fault::SplitHandshake);
        }
        outcome
    }

    /// Selects the SYN whose number the initiator's own SYN-ACK has (RFC 9293 3.5, figure 7).
    /// Returns `false` if no SYN has it; then the state does not change.
    fn select_own_syn(&mut self, seq: SeqNum) -> bool {
        let first = seq.add(1);
        if self.current_syn().first == first {
            return true;
        }
        let is_other = self.other_syn().is_some_and(|syn| syn.first == first);
        if is_other {
            self.select_syn(first);
        }
        is_other
    }

    /// Discards the other SYN: the responder has refused it, or its sender has given it up.
    pub(super) fn forget_other_syn(&mut self) {
        let current = self.current_syn();
        self.remember_syn(Direction::Original, current);
    }

    /// Returns the remembered SYN, if this SYN-ACK of the responder answers it.
    pub(super) fn answered_syn(
        &self,
        event: Event,
        direction: Direction,
        segment: &Segment,
    ) -> Option<Syn> {
        if (event, direction) != (Event::SynAck, Direction::Reply) {
            return None;
        }
        self.remembered_syn()
            .filter(|syn| syn.is_acknowledged_by(segment.ack))
    }

    /// Returns whether the responder's SYN-ACK belongs to the two SYNs of a simultaneous open: it
    /// neither answers a newer SYN of the initiator that was passed, nor differs from the numbers
    /// that the responder has sent.
    pub(super) fn completes_simultaneous_open(&self, segment: &Segment) -> bool {
        let initiator = self.side(Direction::Original).peer;
        let responder = self.side(Direction::Reply).peer;
        let end = segment.seq.add(window::sequence_len(segment));
        let other = end.after(responder.end) || end.before(responder.end.sub(initiator.max_window));
        let answers_newer = self
            .other_syn()
            .is_some_and(|syn| syn.is_acknowledged_by(segment.ack));
        self.connection_flag(SIMULTANEOUS_OPEN) && !other && !answers_newer
    }

    /// Records a segment that passes out of step, so that the answer to it is recognized.
    pub(super) fn note_out_of_step(
        &mut self,
        event: Event,
        direction: Direction,
        segment: &Segment,
        state: State,
    ) {
        match event {
            // A SYN-ACK that does not answer the remembered SYN is stale; the right one may still
            // come.
            Event::SynAck if self.last() == (Event::Syn, direction.opposite()) => {}
            Event::Syn => {
                self.remember_syn(direction, Syn::of(segment));
                if direction == Direction::Original && state == State::LastAck {
                    self.set_connection_flag(CHALLENGE_EXPECTED, true);
                }
            }
            Event::Ack if state == State::SynSent => {
                // Perhaps a challenge ACK of a half-open responder.
                self.expect_answer(segment.ack);
            }
            Event::Ack if state == State::SynSent2 => {}
            _ => {
                self.remember(event, direction);
                self.last_end = segment.seq.add(window::sequence_len(segment));
                self.last_window = segment.window;
                self.last_mark = 0;
            }
        }
    }

    /// Returns whether a SYN-ACK challenges the sender of the SYN to prove its address: it has a
    /// window of 0 and no payload, and acknowledges a number before the SYN. Firewalls downstream
    /// send such challenges, and so does this one where a packet passes two of its zones. No
    /// initiator accepts it (RFC 9293 3.10.7.3).
    fn is_source_challenge(&self, segment: &Segment) -> bool {
        let syns = [Some(self.current_syn()), self.other_syn()];
        let is_old = |syn: &Syn| segment.ack.before(syn.first);
        let is_accepted = |syn: &Syn| syn.is_acknowledged_by(segment.ack);
        segment.window == 0
            && window::sequence_len(segment) == 1
            && syns.iter().flatten().any(is_old)
            && !syns.iter().flatten().any(is_accepted)
    }

    /// Notes an acknowledgment that passes in SYN_SENT: the RST that it earns carries its number.
    fn expect_answer(&mut self, ack: SeqNum) {
        let [_, responder] = &mut self.peers;
        responder.max_end = ack;
        self.set_connection_flag(CHALLENGE_EXPECTED, true);
    }

    /// Returns whether a RST of the initiator answers an ACK or a challenge that passed in
    /// SYN_SENT.
    pub(super) fn answers_challenge(&self, seq: SeqNum) -> bool {
        let [_, responder] = self.peers;
        self.state() == State::SynSent
            && self.connection_flag(CHALLENGE_EXPECTED)
            && responder.max_end == seq
    }

    /// Records more data of the remembered SYN. Returns whether it differs from the SYN that the
    /// handshake follows.
    pub(super) fn extend_syn(&mut self, direction: Direction, from: SeqNum, to: SeqNum) -> bool {
        let Some(syn) = self.remembered_syn() else {
            return false;
        };
        if direction != Direction::Original || syn.end != from {
            return false;
        }
        let is_other = self.other_syn().is_some();
        self.remember_syn(direction, Syn { end: to, ..syn });
        is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{TcpFlags, TcpOptions};

    #[test]
    fn a_new_track_is_an_empty_one_that_begins_with_the_syn() {
        for scale in [None, Some(0), Some(14)] {
            for sack_permitted in [false, true] {
                for (seq, payload_len, window) in [(1, 0, 0), (u32::MAX, 5_000, 1), (7, 9, 65_535)]
                {
                    let segment = Segment {
                        seq: SeqNum(seq),
                        ack: SeqNum(3),
                        flags: TcpFlags::SYN,
                        window,
                        payload_len,
                        urgent: 0,
                        options: TcpOptions {
                            window_scale: scale,
                            sack_permitted,
                            ..TcpOptions::default()
                        },
                    };
                    let mut expected = Track::default();
                    expected.begin_with(Syn::of(&segment));
                    assert_eq!(Track::open(&segment), Some(expected));
                }
            }
        }
    }
}
