//! The state machines: small facts about a packet go in, an outcome comes out.
//!
//! Nothing here sees bytes, locks or a clock. A tracker changes its own compact state only when it accepts a
//! packet; how long the session then lives is for the caller, who is told the [`Lifetime`] to use.

pub mod datagram;
pub mod dccp;
mod lifetime;
pub mod sctp;
pub mod tcp;

use std::time::Duration;

pub use self::lifetime::LifetimeClass;

/// How much a session is worth when the table is full; the order of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EvictionClass {
    /// Before the handshake ends, or without an answer yet: evicted first.
    Embryonic = 0,
    /// On its way out: evicted when nothing embryonic is left. A half-closed TCP session is kept within
    /// [`EvictionClass::HALF_CLOSED_GRACE`] of a packet.
    Closing = 1,
    /// Traffic both ways without a connection: evicted when nothing else is left, the one that was
    /// idle for longest first. A stream is kept within [`EvictionClass::STREAM_GRACE`] of a packet.
    Datagram = 2,
    /// A connection that both ends have agreed on: never evicted for a new session.
    Assured = 3,
}

impl EvictionClass {
    /// All, in the order of eviction.
    pub const ALL: [Self; 4] = [Self::Embryonic, Self::Closing, Self::Datagram, Self::Assured];

    /// Time that a datagram session that has gone on for a while (a stream) is kept in a full table
    /// after its last packet. Shorter exchanges have no such time: anybody gets an answer of a
    /// server to a forged question.
    pub const STREAM_GRACE: Duration = Duration::from_secs(1);

    /// Time that a half-closed TCP session is kept in a full table after its last packet: its other
    /// half may carry data for as long as it likes.
    pub const HALF_CLOSED_GRACE: Duration = Duration::from_secs(30);

    /// The stable name.
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

/// What becomes of a packet of SCTP or DCCP. TCP has more to say: [`tcp::Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<Fault> {
    /// It passes.
    Accept {
        /// The session's lifetime from now on; `None`: the packet proves nothing, and it is not refreshed.
        lifetime: Option<LifetimeClass>,
        /// The session is assured from now on.
        assured: bool,
    },
    /// It passes, and the session ends with it: a refusal is the only answer that the initiator got.
    End,
    /// It opens a new session on the ports of this one, which has ended.
    Reopen,
    /// It is invalid; nothing has changed.
    Invalid(Fault),
}

impl<Fault> Outcome<Fault> {
    /// It passes without being believed: it may be right, and its receiver decides.
    pub(crate) const PASS: Self = Self::Accept {
        lifetime: None,
        assured: false,
    };

    /// The same with another word for the fault.
    pub(crate) fn map<F>(self, fault: impl FnOnce(Fault) -> F) -> Outcome<F> {
        match self {
            Self::Accept { lifetime, assured } => Outcome::Accept { lifetime, assured },
            Self::End => Outcome::End,
            Self::Reopen => Outcome::Reopen,
            Self::Invalid(found) => Outcome::Invalid(fault(found)),
        }
    }
}

/// Which lifetime a session has from this packet on: that of its state, cut to another where that is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The lifetime of the session's state.
    pub class: LifetimeClass,
    /// An upper limit for now, such as that for data that nobody acknowledges.
    pub cap: Option<LifetimeClass>,
}

impl Lifetime {
    /// The lifetime of a state, uncut.
    #[must_use]
    pub const fn of(class: LifetimeClass) -> Self {
        Self { class, cap: None }
    }
}
