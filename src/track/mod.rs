//! The state machines: small facts about a packet go in, an outcome comes out.
//!
//! The trackers see neither bytes nor locks nor a clock. A tracker changes its own compact state
//! only when it accepts a packet; it returns the [`Lifetime`] that the caller applies.

pub mod datagram;
pub mod dccp;
mod lifetime;
pub mod sctp;
pub mod tcp;

use std::time::Duration;

pub use self::lifetime::LifetimeClass;

/// Eviction class of a session in a full table; the order is that of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EvictionClass {
    /// Before the handshake ends, or without an answer yet: evicted first.
    Embryonic = 0,
    /// Closing: evicted when nothing embryonic is left. A half-closed TCP session is kept within
    /// [`EvictionClass::HALF_CLOSED_GRACE`] of a packet.
    Closing = 1,
    /// Traffic in both directions without a connection: evicted when nothing else is left, the
    /// longest idle first. A stream is kept within [`EvictionClass::STREAM_GRACE`] of a packet.
    Datagram = 2,
    /// A connection that both ends have agreed on: never evicted for a new session.
    Assured = 3,
}

impl EvictionClass {
    /// All, in the order of eviction.
    pub const ALL: [Self; 4] = [
        Self::Embryonic,
        Self::Closing,
        Self::Datagram,
        Self::Assured,
    ];

    /// Time that a long-running datagram session (a stream) is kept in a full table after its last
    /// packet. Shorter exchanges have no such time: a forged query is enough to get an answer from
    /// a server.
    pub const STREAM_GRACE: Duration = Duration::from_secs(1);

    /// Time that a half-closed TCP session is kept in a full table after its last packet: its other
    /// direction may carry data for any time.
    pub const HALF_CLOSED_GRACE: Duration = Duration::from_secs(30);

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embryonic => "embryonic",
            Self::Closing => "closing",
            Self::Datagram => "datagram",
            Self::Assured => "assured",
        }
    }
}

/// Outcome for a packet of SCTP or DCCP. That of TCP has more cases: [`tcp::Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<Fault> {
    /// The packet passes.
    Accept {
        /// The session's lifetime from now on; `None`: the packet proves nothing, and it is not
        /// refreshed.
        lifetime: Option<LifetimeClass>,
        /// The session is assured from now on.
        assured: bool,
    },
    /// The packet passes and ends the session: a refusal is the only answer that the initiator got.
    End,
    /// The packet opens a new session on the ports of this one, which has ended.
    Reopen,
    /// The packet is invalid; the state has not changed.
    Invalid(Fault),
}

impl<Fault> Outcome<Fault> {
    /// The packet passes without a change of state: it may be valid, and its receiver decides.
    pub(crate) const PASS: Self = Self::Accept {
        lifetime: None,
        assured: false,
    };

    /// Converts the fault.
    pub(crate) fn map<F>(self, fault: impl FnOnce(Fault) -> F) -> Outcome<F> {
        match self {
            Self::Accept { lifetime, assured } => Outcome::Accept { lifetime, assured },
            Self::End => Outcome::End,
            Self::Reopen => Outcome::Reopen,
            Self::Invalid(found) => Outcome::Invalid(fault(found)),
        }
    }
}

/// Lifetime of a session from this packet on: that of its state, capped by a shorter one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The lifetime of the session's state.
    pub class: LifetimeClass,
    /// Upper limit for now, such as that for unacknowledged data.
    pub cap: Option<LifetimeClass>,
}

impl Lifetime {
    /// Returns the lifetime of a state, without a cap.
    #[must_use]
    pub const fn of(class: LifetimeClass) -> Self {
        Self { class, cap: None }
    }
}
