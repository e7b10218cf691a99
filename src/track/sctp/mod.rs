//! SCTP: the valid packets of an association, given the earlier ones (RFC 9260).
//!
//! [`Track`] is the compact state of one association; [`Track::packet`] judges one packet. There
//! are two checks: the *verification tag* must prove that the sender belongs to the association
//! (sections 8.5 and 8.5.1), and the *chunks* must fit the state ([`state`], a table). The
//! reference is Linux `nf_conntrack_proto_sctp`.
//!
//! Only an INIT opens a session. Packets between other addresses of multihomed ends belong to the
//! session of their association, if the ends have announced those addresses in it and the tag is
//! correct. The packet path finds the session (`engine/on_path.rs`), and this tracker checks such
//! packets like all others.
//!
//! # Handshakes beside the state
//! An INIT on a live association carries no tag, so any host can send one: it passes and changes
//! neither state nor lifetime. The tags of the handshake that it begins are kept as *pending*, next
//! to the association's own. They serve three cases. In a restart, the handshake takes over with
//! its COOKIE ACK, and the old tags hold until then (section 5.2.4). Two INITs may collide (section
//! 5.2.1). A repeated INIT may get a second INIT ACK with another tag, since the responder keeps no
//! state of the first.

pub mod state;

#[cfg(test)]
mod tests;

pub use state::{Cell, Event, State, transition};

use crate::flow::Direction;
use crate::packet::{SctpChunks, SctpPacket};
use crate::track::{EvictionClass, Outcome};

/// Reason for which a packet is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The chunks do not fit this state and direction.
    State,
    /// The verification tag is not the one that the receiver has chosen.
    Tag,
}

/// The verification tags of a handshake, by the direction that carries them; 0 where not yet known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tags {
    carried: [u32; 2],
    /// Directions that have carried a COOKIE ECHO, one bit each.
    echoed: u8,
}

impl Tags {
    const fn carried(self, direction: Direction) -> u32 {
        let [original, reply] = self.carried;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    const fn set(&mut self, direction: Direction, tag: u32) {
        let [original, reply] = &mut self.carried;
        match direction {
            Direction::Original => *original = tag,
            Direction::Reply => *reply = tag,
        }
    }

    const fn has_echoed(self, direction: Direction) -> bool {
        self.echoed & 1 << direction as u8 != 0
    }

    /// Returns whether this is the COOKIE ECHO of this handshake, both of whose tags must be known;
    /// records it if so.
    const fn echo(&mut self, direction: Direction, packet: &SctpPacket) -> bool {
        let is = self.fit(direction, packet) && self.carried(direction.opposite()) != 0;
        if is {
            self.echoed |= 1 << direction as u8;
        }
        is
    }

    /// Returns whether a packet carries the required tag; `false` if the receiver's tag is unknown.
    const fn fit(self, direction: Direction, packet: &SctpPacket) -> bool {
        let expected = if packet.reflected {
            self.carried(direction.opposite())
        } else {
            self.carried(direction)
        };
        expected != 0 && packet.tag == expected
    }
}

/// The state of one association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    tags: Tags,
    pending: Tags,
    state: State,
    aborted: bool,
}

/// Number of words that [`Track`] takes in a slot.
pub(crate) const WORDS: usize = 5;

const STATE_MASK: u32 = 0x0f;
const ABORTED: u32 = 0x10;
const ECHOED_SHIFT: u32 = 8;
const PENDING_ECHOED_SHIFT: u32 = 10;

impl Track {
    /// Returns the state after an association's first packet, which must be an INIT; `None` for any
    /// other.
    #[must_use]
    pub const fn open(packet: &SctpPacket) -> Option<Self> {
        if !packet.chunks.any(SctpChunks::INIT) {
            return None;
        }
        Some(Self {
            tags: Tags {
                carried: [0, packet.initiate_tag],
                echoed: 0,
            },
            pending: Tags {
                carried: [0; 2],
                echoed: 0,
            },
            state: State::InitSent,
            aborted: false,
        })
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns the verification tags that packets carry, original direction first; 0 where not
    /// known.
    #[must_use]
    pub const fn tags(&self) -> [u32; 2] {
        self.tags.carried
    }

    /// Returns whether an ABORT ended the association.
    #[must_use]
    pub const fn is_aborted(&self) -> bool {
        self.aborted
    }

    pub(crate) const fn to_words(self) -> [u32; WORDS] {
        let [a, b] = self.tags.carried;
        let [c, d] = self.pending.carried;
        let bits = self.state as u32
            | if self.aborted { ABORTED } else { 0 }
            | (self.tags.echoed as u32) << ECHOED_SHIFT
            | (self.pending.echoed as u32) << PENDING_ECHOED_SHIFT;
        [a, b, c, d, bits]
    }

    pub(crate) const fn from_words([a, b, c, d, bits]: [u32; WORDS]) -> Self {
        Self {
            tags: Tags {
                carried: [a, b],
                echoed: (bits >> ECHOED_SHIFT & 3) as u8,
            },
            pending: Tags {
                carried: [c, d],
                echoed: (bits >> PENDING_ECHOED_SHIFT & 3) as u8,
            },
            state: State::from_bits((bits & STATE_MASK) as u8),
            aborted: bits & ABORTED != 0,
        }
    }

    /// Judges a packet. An invalid one changes nothing.
    pub fn packet(&mut self, direction: Direction, packet: &SctpPacket) -> Outcome<Fault> {
        let mut next = *self;
        let outcome = next.judge(direction, packet);
        if let Outcome::Accept { .. } = outcome {
            *self = next;
        }
        outcome
    }

    fn judge(&mut self, direction: Direction, packet: &SctpPacket) -> Outcome<Fault> {
        let chunks = packet.chunks;
        if chunks.any(SctpChunks::INIT) {
            return self.init(direction, packet);
        }
        if chunks.any(SctpChunks::INIT_ACK) {
            return self.init_ack(direction, packet);
        }
        if chunks.any(SctpChunks::COOKIE_ACK) && self.completes_pending(direction, packet) {
            self.tags = self.pending;
            self.pending = Tags::default();
            self.state = State::Established;
            return self.chunks(direction, chunks);
        }
        if chunks.any(SctpChunks::COOKIE_ECHO) {
            // In a collision the two handshakes may have the same tags.
            let own = self.tags.echo(direction, packet);
            let pending = self.pending.echo(direction, packet);
            return match (own, pending) {
                (true, _) => self.chunks(direction, chunks),
                (false, true) if self.state.eviction_class() == EvictionClass::Embryonic => {
                    // The other handshake is the one that its sender has abandoned.
                    core::mem::swap(&mut self.tags, &mut self.pending);
                    self.chunks(direction, chunks)
                }
                (false, true) => Outcome::PASS,
                (false, false) => Outcome::Invalid(Fault::Tag),
            };
        }
        if self.tags.fit(direction, packet) {
            if chunks.any(SctpChunks::COOKIE_ACK)
                && self.state == State::CookieEchoed
                && !self.tags.has_echoed(direction.opposite())
            {
                return Outcome::Invalid(Fault::State);
            }
            return self.chunks(direction, chunks);
        }
        // The answer to an INIT that was passed: it does not concern the association itself.
        if chunks.any(SctpChunks::ABORT) && self.pending.fit(direction, packet) {
            return Outcome::PASS;
        }
        let known = self.tags.carried(direction) != 0;
        Outcome::Invalid(if known { Fault::Tag } else { Fault::State })
    }

    /// Handles an INIT, which opens, repeats, restarts or collides.
    fn init(&mut self, direction: Direction, packet: &SctpPacket) -> Outcome<Fault> {
        match transition(direction, Event::Init, self.state) {
            Cell::Reopen => return Outcome::Reopen,
            Cell::Invalid => return Outcome::Invalid(Fault::State),
            Cell::To(_) | Cell::Ignore | Cell::End => {}
        }
        let back = direction.opposite();
        let tag = packet.initiate_tag;
        if self.tags.carried(back) != tag && self.pending.carried(back) != tag {
            self.pending.set(back, tag);
            self.pending.echoed = 0;
        }
        Outcome::PASS
    }

    /// Handles an INIT ACK, which sets the tag that its receiver must send from now on.
    fn init_ack(&mut self, direction: Direction, packet: &SctpPacket) -> Outcome<Fault> {
        let back = direction.opposite();
        let answered = matches!(self.state, State::InitSent | State::CookieWait);
        if answered && self.tags.fit(direction, packet) {
            let told = self.tags.carried(back);
            if told == 0 {
                self.tags.set(back, packet.initiate_tag);
            } else if told != packet.initiate_tag {
                self.pending = Tags::default();
                self.pending.set(direction, packet.tag);
                self.pending.set(back, packet.initiate_tag);
            }
        } else if self.pending.fit(direction, packet) {
            // The answer to an INIT beside the association, which is unchanged.
            self.pending.set(back, packet.initiate_tag);
            if !answered {
                return Outcome::PASS;
            }
        } else if !self.tags.fit(direction, packet) {
            return Outcome::Invalid(Fault::Tag);
        }
        self.chunks(direction, packet.chunks)
    }

    /// Returns whether this is the COOKIE ACK with which a pending handshake takes over.
    fn completes_pending(&self, direction: Direction, packet: &SctpPacket) -> bool {
        self.state != State::Closed
            && self.pending.fit(direction, packet)
            && self.pending.has_echoed(direction.opposite())
    }

    /// Walks the table, one kind of chunk after the other, in their valid order.
    fn chunks(&mut self, direction: Direction, chunks: SctpChunks) -> Outcome<Fault> {
        const KINDS: [(SctpChunks, Event); 7] = [
            (SctpChunks::INIT_ACK, Event::InitAck),
            (SctpChunks::COOKIE_ECHO, Event::CookieEcho),
            (SctpChunks::COOKIE_ACK, Event::CookieAck),
            (SctpChunks::SHUTDOWN, Event::Shutdown),
            (SctpChunks::SHUTDOWN_ACK, Event::ShutdownAck),
            (SctpChunks::SHUTDOWN_COMPLETE, Event::ShutdownComplete),
            (SctpChunks::ABORT, Event::Abort),
        ];
        let mut believed = false;
        let mut rest = chunks;
        for (kind, event) in KINDS {
            if !rest.any(kind) {
                continue;
            }
            rest = rest.without(kind);
            match transition(direction, event, self.state) {
                Cell::To(state) => {
                    believed = true;
                    self.aborted = event == Event::Abort;
                    self.state = state;
                }
                Cell::Ignore => {}
                Cell::End => return Outcome::End,
                Cell::Reopen => return Outcome::Reopen,
                Cell::Invalid => return Outcome::Invalid(Fault::State),
            }
        }
        // Chunks that change no state are alone in their packet, or accompany one that may have
        // changed it.
        if rest == chunks {
            match transition(direction, Event::Other, self.state) {
                Cell::To(_) => believed = true,
                Cell::Ignore | Cell::End | Cell::Reopen => {}
                Cell::Invalid => return Outcome::Invalid(Fault::State),
            }
        }
        Outcome::Accept {
            lifetime: believed.then_some(self.state.lifetime()),
            assured: self.state == State::Established,
        }
    }
}
