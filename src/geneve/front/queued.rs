//! How long a datagram has waited, and what follows.

use super::Datagram;

/// How long a datagram waited before it was handed to the front end, measured with what its queue
/// may hold in time. The longer it waited, the less is done for it, so that a queue that is too
/// long becomes shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Waited {
    /// Not long: it is decided as always.
    #[default]
    Briefly,
    /// Long: the caller is behind. A packet that would open a session is dropped
    /// ([`DropReason::Overload`](crate::DropReason::Overload)), unless it is a SYN while SYNs are
    /// not the flood (see [`Packet::sheddable`](crate::Packet::sheddable)); all others are decided
    /// as always.
    Long,
    /// Too long: it is refused unread ([`Refusal::QueueDelay`](super::Refusal::QueueDelay)).
    TooLong,
}

/// A datagram and how long it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued<'a> {
    /// The datagram.
    pub datagram: Datagram<'a>,
    /// How long it waited.
    pub waited: Waited,
}

impl<'a> From<Datagram<'a>> for Queued<'a> {
    /// A datagram that did not wait.
    fn from(datagram: Datagram<'a>) -> Self {
        Self {
            datagram,
            waited: Waited::Briefly,
        }
    }
}
