//! The state machines: small facts about a packet go in, an outcome comes out.
//!
//! Nothing here sees bytes, locks or a clock. A tracker changes its own compact state only when it accepts a
//! packet; how long the session then lives is for the caller, who is told the [`Lifetime`] to use.

pub mod datagram;
pub mod tcp;

use crate::lifetime::LifetimeClass;

/// How much a session is worth when the table is full; the order of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Worth {
    /// Before the handshake ends, or without an answer yet: evicted first.
    Embryonic = 0,
    /// On its way out: evicted when nothing embryonic is left.
    Closing = 1,
    /// Traffic both ways: never evicted for a new session.
    Assured = 2,
}

impl Worth {
    /// All, in the order of eviction.
    pub const ALL: [Self; 3] = [Self::Embryonic, Self::Closing, Self::Assured];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embryonic => "embryonic",
            Self::Closing => "closing",
            Self::Assured => "assured",
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
