//! Decisions on datagrams: the answer to send, with the packet and the verdict that led to it.

use super::scratch::{Found, Scratch};
use super::stats::{NotSent, Outcome, Refusal};
use super::watch::Watch;
use super::{Datagram, Tunnel};
use crate::engine::{Engine, Packet};
use crate::event::Sink;
use crate::flow::Zone;
use crate::fragment::HoldId;
use crate::session::TunnelRef;
use crate::verdict::Verdict;

/// A datagram to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The outer addresses and ports.
    pub tunnel: Tunnel,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// The answer to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an answer has no effect unless the caller sends it"]
pub enum Answer<'a> {
    /// Send the unchanged UDP payload to [`Datagram::back`].
    Return,
    /// Send this datagram: a reject, an ICMP error, or the SYN with a smaller MSS.
    Send(Outgoing<'a>),
    /// Send nothing.
    Nothing(NotSent),
}

/// The decision on a datagram: the answer, and the facts behind it for an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The answer.
    pub answer: Answer<'a>,
    /// The engine's verdict on the packet; `None` for a datagram that was refused before.
    pub verdict: Option<Verdict>,
    /// The packet in the datagram; `None` for a datagram that was refused before.
    pub packet: Option<DecidedPacket<'a>>,
    /// Whether the packet would be forwarded, but is longer than `geneve.inner_mtu`: its sender
    /// gets an ICMP error if one may be sent, and the packet is discarded.
    pub is_too_large: bool,
}

/// The packet in a datagram that was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedPacket<'a> {
    /// The packet, from its IP header on.
    pub bytes: &'a [u8],
    /// The zone of its endpoint.
    pub zone: Zone,
    /// The tunnel that it came in.
    pub tunnel: TunnelRef,
}

impl Decision<'_> {
    pub(super) fn refused(scratch: &Scratch, refusal: Refusal) -> Self {
        Self {
            answer: nothing(scratch, NotSent::Refused(refusal)),
            verdict: None,
            packet: None,
            is_too_large: false,
        }
    }

    /// Returns whether the packet was forwarded, unchanged or with a smaller MSS.
    #[must_use]
    pub const fn is_forwarded(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Forward(_))) && !self.is_too_large
    }
}

/// The outcome of a datagram that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released<'a> {
    /// The datagram.
    pub datagram: Datagram<'a>,
    /// The decision. A datagram to return is an [`Answer::Send`].
    pub decision: Decision<'a>,
}

/// A decapsulated packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entered<'a, 'b> {
    pub(super) datagram: &'a Datagram<'a>,
    pub(super) found: &'a Found,
    pub(super) packet: Packet<'b>,
}

impl<'b> Entered<'_, 'b> {
    /// Returns the facts of the packet that a [`Decision`] shows.
    #[inline]
    pub(super) fn inside(&self) -> DecidedPacket<'b> {
        DecidedPacket {
            bytes: self.packet.bytes(),
            zone: self.found.zone,
            tunnel: self.found.tunnel(self.datagram),
        }
    }
}

/// The engine's decision on a packet, with the packets that it releases.
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) released: Vec<HoldId>,
}

impl Decided {
    /// Lets the engine decide a packet.
    #[inline]
    pub(super) fn by<S: Sink>(engine: &Engine, packet: Packet<'_>, sink: &mut S) -> Self {
        let mut watch = Watch::new(sink);
        let verdict = engine.process_with(packet, &mut watch);
        Self {
            verdict,
            released: watch.released,
        }
    }
}

/// The engine's own datagram in a [`Scratch`].
pub(super) struct Written {
    pub(super) tunnel: Tunnel,
    pub(super) len: usize,
    /// The number of the endpoint through which it leaves.
    pub(super) endpoint: u16,
}

pub(super) fn nothing(scratch: &Scratch, reason: NotSent) -> Answer<'static> {
    scratch.counters().not_sent(reason);
    Answer::Nothing(reason)
}

pub(super) fn send(scratch: &mut Scratch, outcome: Outcome, written: Written) -> Answer<'_> {
    let Written {
        tunnel,
        len,
        endpoint,
    } = written;
    scratch.counters().count(outcome);
    scratch.counters().sent(endpoint, len);
    let payload = scratch.written(len);
    Answer::Send(Outgoing { tunnel, payload })
}
