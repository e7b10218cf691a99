//! Identifiers of sessions and of the tunnels of their packets.

use std::num::NonZeroU64;

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

/// The identifier of a session: unique among the sessions of an engine until a slot was used 2^32
/// times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// Returns the identifier with a number other than 0.
    pub(crate) const fn new(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Returns the identifier with a number that was read from a log; `None` for 0.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number, for logs.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

impl core::fmt::Display for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// The identifier of a session among the sessions of all engines, for logs.
///
/// A session that is restored or resumed in another engine gets a new [`SessionId`] there, and
/// keeps the identifier of this type. As a text: the number of the engine in 16 hexadecimal
/// digits, a hyphen, and the number of the session there.
///
/// ```
/// use portcullis::{SessionId, SessionUid};
///
/// let id = SessionId::from_number(0x1_0000_002a).expect("not 0");
/// let uid = SessionUid::new(0x8c1f_03a2_b4d5_e6f7, id);
/// assert_eq!(uid.to_string(), "8c1f03a2b4d5e6f7-10000002a");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct SessionUid {
    engine: u64,
    session: SessionId,
}

impl SessionUid {
    /// Returns the identifier of a session of an engine with a number.
    #[must_use]
    pub const fn new(engine: u64, session: SessionId) -> Self {
        Self { engine, session }
    }

    /// Returns the number of the engine that has opened the session.
    #[must_use]
    pub const fn engine(self) -> u64 {
        self.engine
    }

    /// Returns the session's identifier in the engine that has opened it.
    #[must_use]
    pub const fn session(self) -> SessionId {
        self.session
    }
}

impl core::fmt::Display for SessionUid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}-{:x}", self.engine, self.session.number())
    }
}

/// The number of a shard of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardId(pub(crate) usize);

/// The number of a slot in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(pub(crate) u32);

/// Reference to the tunnel that a packet arrived in, defined by the caller: the data needed to send
/// a packet back the same way.
///
/// The engine keeps the newest reference of each direction and returns it with the packets that it
/// creates; it never interprets the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TunnelRef(pub u64);

impl TunnelRef {
    /// The tunnel is unknown; a packet with this reference changes nothing.
    pub const NONE: Self = Self(0);
}
