//! Numbers of rules.

/// The number of a rule: in the order of the rules, counted from 0, until a reload changes them. A rule keeps its number
/// as long as it keeps its name, and no other rule ever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u16);

impl RuleId {
    /// No rule matched: the default action.
    pub const DEFAULT: Self = Self(u16::MAX);
}
