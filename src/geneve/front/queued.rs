//! The waiting time of a datagram, and its consequences.

use super::Datagram;

/// Waiting time of a datagram before it was passed to the front end, relative to the time limit of
/// its queue. The longer the wait, the less work is done for the datagram, so that an overlong
/// queue becomes shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Waited {
    /// Not long: the datagram is decided normally.
    #[default]
    Briefly,
    /// Long: the caller is overloaded. A packet that would open a session is dropped
    /// ([`DropReason::Overload`](crate::DropReason::Overload)), unless it is a SYN and SYNs are not
    /// the flood (see [`Packet::sheddable`](crate::Packet::sheddable)). All others are decided
    /// normally.
    Long,
    /// Too long: the datagram is refused unread
    /// ([`Refusal::QueueDelay`](super::Refusal::QueueDelay)).
    TooLong,
}

/// A datagram and its waiting time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued<'a> {
    /// The datagram.
    pub datagram: Datagram<'a>,
    /// The waiting time.
    pub waited: Waited,
}

impl<'a> From<Datagram<'a>> for Queued<'a> {
    /// Returns a datagram that did not wait.
    fn from(datagram: Datagram<'a>) -> Self {
        Self {
            datagram,
            waited: Waited::Briefly,
        }
    }
}
