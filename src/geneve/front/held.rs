//! Fragments that wait for the first one of their datagram, and their outcomes.

use std::time::Instant;

use super::decision::{Decided, DecidedPacket, Decision, Entered, Released, nothing};
use super::owned::HeldDatagram;
use super::scratch::Scratch;
use super::stats::{NotSent, Outcome};
use super::{Answer, FrontEnd, Outgoing};
use crate::engine::Engine;
use crate::event::Sink;
use crate::fragment::HoldId;
use crate::verdict::Verdict;

impl FrontEnd {
    /// Decides the next datagram that was held ([`NotSent::Held`]) and need not wait any longer.
    ///
    /// A datagram is released when the first fragment has come or its time is over. Returns `None`,
    /// at little cost, if there is none. A datagram to return is an [`Answer::Send`], since the
    /// caller no longer has it.
    ///
    /// Call it until it returns `None`, with the `scratch` that handled the datagrams, after the
    /// answers to each datagram or batch were sent or queued. While no datagrams come, call it
    /// every few milliseconds.
    pub fn next_released<'b, S: Sink>(
        &self,
        engine: &Engine,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> Option<Answer<'b>> {
        let released = self.decide_released(engine, now, scratch, sink)?;
        Some(released.decision.answer)
    }

    /// Decides a datagram like [`FrontEnd::next_released`], and also returns the datagram and the
    /// verdict.
    pub fn decide_released<'b, S: Sink>(
        &self,
        engine: &Engine,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> Option<Released<'b>> {
        let held = scratch.next_ready().or_else(|| self.held.next(now))?;
        Some(self.decide_held(engine, held, now, scratch, sink))
    }

    /// Releases everything that is held, before a thread ends.
    ///
    /// [`FrontEnd::next_released`] then returns all of it.
    pub fn release_held(&self) {
        self.held.release_all();
    }

    /// Makes the datagrams that are held under a name ready for [`FrontEnd::next_released`] of any
    /// thread.
    ///
    /// A sink that is passed to [`Engine::answer`] calls this with each name that
    /// [`Sink::released`] receives. The sinks of datagrams need not: the front end takes their
    /// names.
    pub fn release(&self, id: HoldId) {
        self.held.release(id);
    }

    #[cold]
    fn decide_held<'b, S: Sink>(
        &self,
        engine: &Engine,
        held: HeldDatagram,
        now: Instant,
        scratch: &'b mut Scratch,
        sink: &mut S,
    ) -> Released<'b> {
        scratch.counters().count(Outcome::Released);
        // The outer headers are read again: there may have been a reload in between.
        scratch.follow(self);
        scratch.lapse(now);
        let datagram = held.datagram();
        let found = match scratch.find(self, &datagram, now) {
            Ok(found) => found,
            Err((refusal, _)) => {
                let decision = Decision::refused(scratch, refusal);
                scratch.keep(held);
                let datagram = scratch.kept();
                return Released { datagram, decision };
            }
        };
        let decided = Decided::by(engine, found.packet(&datagram, now), sink);
        self.take_released(decided.released, scratch);
        let entered = Entered {
            datagram: &datagram,
            found: &found,
            packet: found.packet(&datagram, now),
        };
        let inside = entered.inside();
        let Decision {
            answer,
            verdict,
            is_too_large,
            ..
        } = self.leave(engine, entered, decided.verdict, scratch);
        let sent = match answer {
            Answer::Nothing(reason) => Err(reason),
            Answer::Send(outgoing) => Ok((outgoing.tunnel, outgoing.payload.len())),
            Answer::Return => {
                let len = datagram.payload.len();
                if let Some(out) = scratch.out().get_mut(..len) {
                    out.copy_from_slice(datagram.payload);
                }
                Ok((datagram.back(), len))
            }
        };
        let DecidedPacket { zone, tunnel, .. } = inside;
        let packet = move |payload| DecidedPacket {
            bytes: <[u8]>::get(payload, found.header_len..).unwrap_or_default(),
            zone,
            tunnel,
        };
        scratch.keep(held);
        let (datagram, out) = (scratch.kept(), &*scratch);
        let answer = match sent {
            Err(reason) => Answer::Nothing(reason),
            Ok((tunnel, len)) => Answer::Send(Outgoing {
                tunnel,
                payload: out.written(len),
            }),
        };
        Released {
            datagram,
            decision: Decision {
                answer,
                verdict,
                packet: Some(packet(datagram.payload)),
                is_too_large,
            },
        }
    }

    /// Holds a datagram. If it cannot be held, it is decided immediately.
    #[cold]
    pub(super) fn hold<'b>(
        &self,
        engine: &Engine,
        entered: Entered<'_, 'b>,
        id: HoldId,
        verdict: Verdict,
        scratch: &'b mut Scratch,
    ) -> Decision<'b> {
        let held = HeldDatagram::of(entered.datagram);
        match self.held.put(engine, id, held, entered.packet.now()) {
            None => Decision {
                answer: nothing(scratch, NotSent::Held),
                verdict: Some(verdict),
                packet: Some(entered.inside()),
                is_too_large: false,
            },
            Some(_) => {
                let packet = entered.packet.can_hold(false);
                let verdict = engine.verdict_only(packet);
                self.leave(engine, Entered { packet, ..entered }, verdict, scratch)
            }
        }
    }

    /// Takes the datagrams with these identifiers for [`FrontEnd::next_released`]. If that is not
    /// called, they stay among the held datagrams, whose number is bounded.
    #[inline]
    pub(super) fn take_released(&self, released: Vec<HoldId>, scratch: &mut Scratch) {
        for id in released {
            if scratch.ready_len() < self.held.max() {
                scratch.add_ready(self.held.take(id));
            } else {
                self.held.release(id);
            }
        }
    }
}
