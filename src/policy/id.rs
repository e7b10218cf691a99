//! Numbers of rules.

/// Number of a rule: its position in the policy, counted from 0, until a reload changes the rules.
/// A rule keeps its number as long as it keeps its name, and no other rule ever gets that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u16);

impl RuleId {
    /// The default action, used if no rule matched.
    pub const DEFAULT: Self = Self(u16::MAX);
}
