//! Limits that a zone or a rule sets.

use super::{Bounds, LimitAction, LimitScope};

/// The limits of a zone or of a rule. Those of a rule count the sessions that it has admitted, and
/// hold beside those of the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSet {
    /// Sessions in all, from 1.
    pub max_sessions: Option<u32>,
    /// See [`LimitsConfig::max_per_source`](crate::config::LimitsConfig::max_per_source).
    pub max_per_source: Option<u32>,
    /// See [`LimitsConfig::max_per_destination`](crate::config::LimitsConfig::max_per_destination).
    pub max_per_destination: Option<u32>,
    /// See [`LimitsConfig::max_half_open_per_source`].
    ///
    /// [`LimitsConfig::max_half_open_per_source`]:
    ///     crate::config::LimitsConfig::max_half_open_per_source
    pub max_half_open_per_source: Option<u32>,
    /// See [`LimitsConfig::new_per_second_per_source`].
    ///
    /// [`LimitsConfig::new_per_second_per_source`]:
    ///     crate::config::LimitsConfig::new_per_second_per_source
    pub new_per_second_per_source: Option<u32>,
    /// See [`LimitsConfig::action`](crate::config::LimitsConfig::action).
    pub action: Option<LimitAction>,
}

impl LimitSet {
    /// Returns whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the bounds of a scope in which `otherwise` would hold without this.
    pub(crate) fn over(&self, otherwise: Bounds, scope: LimitScope) -> Bounds {
        Bounds {
            max_sessions: self.max_sessions.or(otherwise.max_sessions),
            max_per_source: self.max_per_source.or(otherwise.max_per_source),
            max_per_destination: self.max_per_destination.or(otherwise.max_per_destination),
            max_half_open_per_source: self
                .max_half_open_per_source
                .or(otherwise.max_half_open_per_source),
            new_per_second_per_source: self
                .new_per_second_per_source
                .or(otherwise.new_per_second_per_source),
            action: self.action.unwrap_or(otherwise.action),
            scope,
        }
    }
}
