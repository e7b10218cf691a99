//! Connections of which a part went by unseen: picked up in their middle, or with one half on
//! another path.
//!
//! Such a connection is tracked liberally, and the numbers of its segments are trusted, until both
//! ends have been seen and each has acknowledged all known data of the other. From then on the
//! numbers are as reliable as those of a connection that was followed from its SYN, and tracking is
//! strict. Window scales were never seen: the greatest one is assumed, so that no window is
//! underestimated.

use super::{
    CHALLENGE_EXPECTED, Event, LIBERAL, Peer, PeerFlags, Side, State, Track, UNSEEN,
    judgment::digest, window,
};
use crate::flow::Direction;
use crate::packet::Segment;

/// The greatest shift of a window (RFC 7323 2.3).
const MAX_SCALE: u8 = 14;

impl Track {
    /// Returns the state of a connection that is picked up mid-stream, with an ACK of one end that
    /// travels in `direction`; `None` for any other segment. The state is liberal permanently, or
    /// with `until_seen` until both ends are known.
    #[must_use]
    pub fn adopt(segment: &Segment, direction: Direction, until_seen: bool) -> Option<Self> {
        if Event::of(segment.flags) != Event::Ack {
            return None;
        }
        let end = segment.seq.add(window::sequence_len(segment));
        let mut track = Self::picked_up(until_seen);
        let mut sender = unseen_side(end);
        let mut receiver = unseen_side(segment.ack);
        believe(&mut sender, &mut receiver, segment);
        track.put_side(direction, sender);
        track.put_side(direction.opposite(), receiver);
        track.remember(Event::Ack, direction);
        track.last_end = end;
        track.last_window = segment.window;
        track.last_mark = digest(segment);
        Some(track)
    }

    /// Returns the state of a connection whose first segment here is the responder's SYN-ACK,
    /// because its initiator takes another path. `None` for any other segment.
    #[must_use]
    pub fn adopt_answer(segment: &Segment) -> Option<Self> {
        if Event::of(segment.flags) != Event::SynAck {
            return None;
        }
        let mut track = Self::picked_up(true);
        let mut responder = Side::from_syn(segment);
        responder.peer.max_ack = segment.ack;
        responder.flags.set(PeerFlags::MAX_ACK_KNOWN);
        let mut initiator = unseen_side(segment.ack);
        initiator.peer.max_end = segment.ack.add(u32::from(segment.window));
        if !responder.flags.contains(PeerFlags::WINDOW_SCALE) {
            // RFC 7323 1.3: the scale counts only if both SYNs carried it.
            initiator.scale = 0;
        }
        track.put_side(Direction::Reply, responder);
        track.put_side(Direction::Original, initiator);
        track.remember(Event::SynAck, Direction::Reply);
        track.last_end = segment.seq.add(window::sequence_len(segment));
        track.last_window = segment.window;
        Some(track)
    }

    fn picked_up(until_seen: bool) -> Self {
        let mut track = Self::default();
        track.set_connection_flag(LIBERAL, true);
        track.set_connection_flag(UNSEEN, until_seen);
        track.set_state(State::Established);
        track
    }

    /// Continues without one direction: from here on the connection is tracked as one that was
    /// picked up mid-stream. A handshake whose SYN-ACK took another path counts as completed.
    pub fn go_on_without(&mut self, direction: Direction) {
        self.stop_resuming();
        let until_seen = !self.connection_flag(LIBERAL);
        self.set_connection_flag(LIBERAL, true);
        if self.state() == State::SynSent {
            self.set_connection_flag(CHALLENGE_EXPECTED, false);
            let scaled = self
                .side(direction.opposite())
                .flags
                .contains(PeerFlags::WINDOW_SCALE);
            let unseen = Side {
                scale: if scaled { MAX_SCALE } else { 0 },
                ..Side::default()
            };
            self.put_side(direction, unseen);
            self.set_state(State::Established);
        }
        let half_open = matches!(
            self.state(),
            State::Established | State::FinWait | State::CloseWait
        );
        if until_seen && half_open {
            self.set_connection_flag(UNSEEN, true);
        }
    }

    /// Continues after segments may have passed unseen in both directions: until both ends are
    /// known again, the numbers of a segment are trusted. A handshake may have been completed
    /// meanwhile, and counts as completed; a later SYN-ACK is still judged by the SYN. The state
    /// does not change in a simultaneous open, or once both ends have closed.
    pub fn go_on_after_gap(&mut self) {
        self.stop_resuming();
        match self.state() {
            State::SynSent => {
                self.go_on_without(Direction::Reply);
                return;
            }
            State::SynRecv => self.set_state(State::Established),
            State::Established | State::FinWait | State::CloseWait => {}
            // Both ends wait for the handshake, or have closed: nothing new can have followed.
            State::SynSent2 | State::LastAck | State::TimeWait | State::Close => return,
        }
        if !self.is_liberal() {
            self.set_connection_flag(LIBERAL, true);
            self.set_connection_flag(UNSEEN, true);
        }
    }

    /// Returns whether the connection is liberal only because a part of it was not seen yet.
    #[must_use]
    pub const fn is_unseen(&self) -> bool {
        self.connection_flag(UNSEEN)
            && matches!(
                self.state(),
                State::Established | State::FinWait | State::CloseWait
            )
    }

    /// Allows numbers outside the window from here on.
    pub fn set_liberal(&mut self) {
        self.stop_resuming();
        self.set_connection_flag(LIBERAL, true);
        if self.is_unseen() {
            // Permanently, and not only until both ends were seen.
            self.set_connection_flag(UNSEEN, false);
        }
    }

    /// Judges numbers strictly again, once both ends are known as they are now: tolerated segments
    /// may have moved them.
    pub const fn set_strict(&mut self) {
        let open = matches!(
            self.state(),
            State::Established | State::FinWait | State::CloseWait
        );
        if self.is_liberal() && open {
            self.set_connection_flag(UNSEEN, true);
        }
    }

    /// Returns whether numbers outside the window pass.
    #[must_use]
    pub const fn is_liberal(&self) -> bool {
        self.connection_flag(LIBERAL)
    }

    /// Trusts the numbers of a segment that does not fit the known ones.
    pub(super) fn relearn(&mut self, direction: Direction, segment: &Segment) {
        let mut sender = self.side(direction);
        let mut receiver = self.side(direction.opposite());
        believe(&mut sender, &mut receiver, segment);
        self.put_side(direction, sender);
        self.put_side(direction.opposite(), receiver);
    }

    /// Becomes strict once both ends are known: each was seen, and has acknowledged all that the
    /// other is known to have sent.
    pub(super) fn settle(&mut self) {
        let (original, reply) = (self.side(Direction::Original), self.side(Direction::Reply));
        let knows = |side: Side, other: Side| {
            side.peer.max_window != 0
                && side.flags.contains(PeerFlags::MAX_ACK_KNOWN)
                && side.peer.max_ack == other.peer.end
        };
        if knows(original, reply) && knows(reply, original) {
            self.set_connection_flag(UNSEEN, false);
            self.set_connection_flag(LIBERAL, false);
        }
    }
}

/// Returns an end of which only the data is known that the other end has acknowledged.
fn unseen_side(end: crate::packet::SeqNum) -> Side {
    Side {
        peer: Peer {
            end,
            max_end: end,
            max_window: 0,
            max_ack: crate::packet::SeqNum(0),
        },
        flags: PeerFlags::SACK_PERMITTED,
        scale: MAX_SCALE,
    }
}

/// Adopts a segment's numbers for its sender, and for the data that its receiver has sent.
fn believe(sender: &mut Side, receiver: &mut Side, segment: &Segment) {
    let end = segment.seq.add(window::sequence_len(segment));
    let window = (u32::from(segment.window) << sender.scale).max(1);
    let (tx, rx) = (&mut sender.peer, &mut receiver.peer);
    let first = tx.max_window == 0;
    if first || end.after(tx.end) {
        tx.end = end;
    }
    if first || tx.end.after(tx.max_end) {
        tx.max_end = tx.end.add(rx.max_window.max(1));
    }
    tx.max_window = tx.max_window.max(window);
    if !segment.flags.contains(crate::packet::TcpFlags::ACK) {
        return;
    }
    if !sender.flags.contains(PeerFlags::MAX_ACK_KNOWN) || segment.ack.after(tx.max_ack) {
        tx.max_ack = segment.ack;
        sender.flags.set(PeerFlags::MAX_ACK_KNOWN);
    }
    if segment.ack.after(rx.end) {
        rx.end = segment.ack;
    }
    let allowed = segment.ack.add(window);
    if allowed.after(rx.max_end) {
        rx.max_end = allowed;
    }
}
