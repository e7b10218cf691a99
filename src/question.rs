//! Questions to a store that engines share, and what became of them.
//!
//! The library does no I/O: the caller takes a [`Question`] from its sink or outbox, asks the
//! store, and returns what it has found ([`Engine::answer`](crate::Engine::answer)).

mod expectation;

use std::time::Instant;

use crate::continuity::FlowName;
use crate::flow::End;
use crate::fragment::id::HoldId;

pub use expectation::{
    EXPECTATION_VERSION, ExpectationName, ExpectationRecordError, StoredExpectation,
};

/// A question to the store that engines share.
///
/// Answer each with [`Engine::answer`](crate::Engine::answer), from any thread. Packets of the flow
/// are held until then, for `continuity.hold` at most; an answer that comes later still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// The name of the question, and of the packets that are held for it.
    pub id: HoldId,
    /// The subject of the question.
    pub kind: QuestionKind,
    /// The conversation that the question is about.
    ///
    /// The name is the key of a session in the store. The key of an expectation is
    /// [`Engine::expectation_name`](crate::Engine::expectation_name).
    pub flow: FlowName,
    /// The end that has sent the packet.
    pub(crate) sender: End,
    /// The epoch of the session's record, for a question of the kind [`QuestionKind::Owner`]; 0
    /// for others.
    pub epoch: u64,
    /// Time of the packet, or of the end of the session.
    pub at: Instant,
}

/// The subject of a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuestionKind {
    /// The session of the flow, which another engine may have had.
    Session,
    /// The announcement of a session, which a control session on another engine may have made.
    Expectation,
    /// Whether this engine still owns a session that is about to end by its lifetime. No packet is
    /// held.
    Owner,
}

impl QuestionKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Session, Self::Expectation, Self::Owner];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Expectation => "expectation",
            Self::Owner => "owner",
        }
    }
}

/// Effect of an answer ([`Engine::answer`](crate::Engine::answer)); each has a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answered {
    /// The session goes on in this engine.
    Resumed,
    /// The engine had the session already, and knows it by its record now.
    Upgraded,
    /// The engine has the session already, and knows it as well as the record.
    Present,
    /// The policy does not admit the session, or not the announcement.
    Refused,
    /// The lifetime of the session or of the announcement has passed.
    Expired,
    /// There is no room for the session or for the announcement.
    NoRoom,
    /// The announcement is in force here.
    Announced,
    /// The store has nothing.
    Nothing,
    /// The store cannot be asked.
    NoStore,
    /// This engine owns the session.
    Owned,
    /// Another engine owns the session; it has ended here.
    Moved,
    /// A record that cannot be read is in the store; the session has ended here as one that
    /// another engine owns.
    Unreadable,
    /// The answer is of another kind, or about another flow, than the question.
    Foreign,
    /// The record contains values that nothing here can have.
    Unsound,
    /// There is no such question, or it was answered before.
    Unknown,
}

impl Answered {
    /// All effects.
    pub const ALL: [Self; 15] = [
        Self::Resumed,
        Self::Upgraded,
        Self::Present,
        Self::Refused,
        Self::Expired,
        Self::NoRoom,
        Self::Announced,
        Self::Nothing,
        Self::NoStore,
        Self::Owned,
        Self::Moved,
        Self::Unreadable,
        Self::Foreign,
        Self::Unsound,
        Self::Unknown,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Upgraded => "upgraded",
            Self::Present => "present",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::NoRoom => "no_room",
            Self::Announced => "announced",
            Self::Nothing => "nothing",
            Self::NoStore => "no_store",
            Self::Owned => "owned",
            Self::Moved => "moved",
            Self::Unreadable => "unreadable",
            Self::Foreign => "foreign",
            Self::Unsound => "unsound",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether the store has nothing that this engine could use.
    pub(crate) const fn is_in_vain(self) -> bool {
        !matches!(
            self,
            Self::Resumed | Self::Upgraded | Self::Announced | Self::Unknown
        )
    }
}

/// Reason for which a packet is decided without a question that it could have caused, or is not
/// held for one that is open; each has a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unasked {
    /// The flow was asked about not long ago, in vain (`continuity.nothing_for`).
    Nothing,
    /// The budget of the packet's source is used up (`continuity.questions_per_source`).
    ///
    /// Most stray ACK and FIN segments are counted for this or the next reason before the policy is
    /// looked up for them, which might have kept them from asking as well.
    SourceBudget,
    /// The budget of all is used up (`continuity.questions`).
    OverallBudget,
    /// As many questions are open as may be (`continuity.max_questions`).
    Questions,
    /// The packet's source, or its zone, holds its share of the open questions, of the held packets
    /// or of their bytes.
    Share,
    /// As many packets of the flow, or as many of their bytes, are held as may be
    /// (`continuity.max_held_per_flow`, `continuity.max_held_bytes_per_flow`).
    HeldPerFlow,
    /// As many packets of all flows, or as many of their bytes, are held as may be
    /// (`continuity.max_held`, `continuity.max_held_bytes`).
    Held,
}

impl Unasked {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::SourceBudget,
        Self::OverallBudget,
        Self::Questions,
        Self::Share,
        Self::HeldPerFlow,
        Self::Held,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::SourceBudget => "source_budget",
            Self::OverallBudget => "overall_budget",
            Self::Questions => "questions",
            Self::Share => "share",
            Self::HeldPerFlow => "held_per_flow",
            Self::Held => "held",
        }
    }
}

/// Counts of questions, answers and held packets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuestionStats {
    /// Questions by kind.
    pub asked: Vec<(QuestionKind, u64)>,
    /// Answers by effect, late ones included.
    pub answered: Vec<(Answered, u64)>,
    /// Answers that came after the packets were released.
    pub late: u64,
    /// Questions without an answer in time.
    pub timed_out: u64,
    /// Packets that were decided without a question, by reason.
    pub unasked: Vec<(Unasked, u64)>,
    /// Packets that were held. Each is counted again, as forwarded or dropped, when it is submitted
    /// again.
    pub packets_held: u64,
    /// Questions that are open now.
    pub open: usize,
    /// Packets that are held now.
    pub held: usize,
    /// IP bytes of these packets.
    pub held_bytes: u64,
}

impl QuestionStats {
    /// Returns counts of zero.
    pub(crate) fn none() -> Self {
        Self {
            asked: QuestionKind::ALL.map(|kind| (kind, 0)).into(),
            answered: Answered::ALL.map(|effect| (effect, 0)).into(),
            late: 0,
            timed_out: 0,
            unasked: Unasked::ALL.map(|reason| (reason, 0)).into(),
            packets_held: 0,
            open: 0,
            held: 0,
            held_bytes: 0,
        }
    }

    /// Returns the number of questions of a kind.
    #[must_use]
    pub fn asked_for(&self, kind: QuestionKind) -> u64 {
        let found = self.asked.iter().find(|(each, _)| *each == kind);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the number of answers with an effect.
    #[must_use]
    pub fn answered_by(&self, effect: Answered) -> u64 {
        let found = self.answered.iter().find(|(each, _)| *each == effect);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the number of packets that were decided without a question, for a reason.
    #[must_use]
    pub fn unasked_for(&self, reason: Unasked) -> u64 {
        let found = self.unasked.iter().find(|(each, _)| *each == reason);
        found.map_or(0, |(_, count)| *count)
    }
}
