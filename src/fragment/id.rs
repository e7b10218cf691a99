//! Names of held packets.

use std::num::NonZeroU64;

/// Identifier of held packets: the fragments of one datagram until its first fragment arrives, or
/// the packets of one flow until the [`Question`](crate::Question) about it is answered.
///
/// An identifier is unique within 2^47 datagrams of an engine, or 2^44 questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(NonZeroU64);

/// The reason why a packet would be dropped that is held until a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldCause {
    /// A TCP packet without a session.
    Tcp = 0,
    /// An SCTP packet without a session.
    Sctp = 1,
    /// A DCCP packet without a session.
    Dccp = 2,
    /// An ICMP reply to a query that was not asked here.
    IcmpReply = 3,
    /// A packet that would open a session that the policy denies.
    Denied = 4,
    /// An ICMP error about a packet without a session.
    IcmpError = 5,
}

impl HoldId {
    /// Number of bits below the number in the table.
    const SERIAL_BITS: u32 = 48;
    /// The bit that is set for a question.
    const QUESTION: u64 = 1 << 47;
    /// Bits of a question below those of the cause.
    const QUESTION_BITS: u32 = 44;

    pub(super) const fn new(number: u32, serial: u64) -> Self {
        let serial = serial & (Self::QUESTION - 1);
        // Both are 0 once in 2^47 datagrams at most.
        match NonZeroU64::new((number as u64) << Self::SERIAL_BITS | serial) {
            Some(id) => Self(id),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Returns the name of a question, by its number in its table, which has 16 bits.
    pub(crate) const fn of_question(number: u32, cause: HoldCause, serial: u64) -> Self {
        let serial = serial & ((1 << Self::QUESTION_BITS) - 1);
        let low = Self::QUESTION | (cause as u64) << Self::QUESTION_BITS | serial;
        match NonZeroU64::new((number as u64) << Self::SERIAL_BITS | low) {
            Some(id) => Self(id),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Returns whether the packets wait for the answer to a question.
    #[must_use]
    pub const fn is_question(self) -> bool {
        self.0.get() & Self::QUESTION != 0
    }

    /// Returns the reason why a packet would be dropped that waits for an answer; `None` for a
    /// fragment.
    pub(crate) const fn cause(self) -> Option<HoldCause> {
        if !self.is_question() {
            return None;
        }
        Some(match (self.0.get() >> Self::QUESTION_BITS) & 7 {
            0 => HoldCause::Tcp,
            1 => HoldCause::Sctp,
            2 => HoldCause::Dccp,
            3 => HoldCause::IcmpReply,
            5 => HoldCause::IcmpError,
            _ => HoldCause::Denied,
        })
    }

    pub(crate) const fn number(self) -> u32 {
        (self.0.get() >> Self::SERIAL_BITS) as u32
    }
}

impl core::fmt::Display for HoldId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
