//! `[syn_challenge]`: source validation under flood.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::values;

/// `[syn_challenge]`: when the source of a SYN must prove that it is there before the SYN passes.
///
/// A SYN of an unknown source is answered by a SYN-ACK that acknowledges a wrong number. The stack
/// of a real source answers with a RST that carries this number, and its next SYN passes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynChallengeConfig {
    /// When, in zones that `zones` does not name.
    pub mode: ChallengeMode,
    /// The mode of a zone, by its name. Of several names that stand for one zone the first counts.
    pub zones: BTreeMap<String, ChallengeMode>,
    /// With `auto`: challenges begin in a zone when its half-open TCP sessions reach this many
    /// percent of its part of the table (`table.max_sessions` divided by the number of zones, or
    /// its own `max_sessions` where that is less), and 64 at least. 1 to 100.
    pub start: u32,
    /// With `auto`: challenges end when fewer than this many percent are half-open, 0 to `start`.
    pub end: u32,
    /// For how long a source is known after its last handshake or answer, 1 s to
    /// [`Self::MAX_LIFETIME`].
    #[serde(deserialize_with = "values::scalar")]
    pub lifetime: Duration,
    /// Number of sources that can be known, 0 to [`Self::MAX_SOURCES`], rounded up to a power of
    /// two of at least 16. Each takes 8 bytes.
    pub max_sources: u32,
    /// Challenges a second, 1 to [`Self::MAX_RATE`]; as many at once. Half of them are divided by
    /// the zones, and the other half is for whichever zone comes first. A SYN beyond them is
    /// dropped, that of a real client too: the rate should be above that of all SYNs.
    pub per_second: u32,
}

impl SynChallengeConfig {
    /// The longest `lifetime`: a day.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
    /// The largest `max_sources`: 2^24.
    pub const MAX_SOURCES: u32 = 1 << 24;
    /// The highest `per_second`.
    pub const MAX_RATE: u32 = 100_000_000;
}

impl Default for SynChallengeConfig {
    fn default() -> Self {
        Self {
            mode: ChallengeMode::default(),
            zones: BTreeMap::new(),
            start: 10,
            end: 5,
            lifetime: Duration::from_secs(600),
            max_sources: 65_536,
            per_second: 2_000_000,
        }
    }
}

/// When unknown sources are challenged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChallengeMode {
    /// Never.
    Off,
    /// While the zone has many half-open sessions.
    #[default]
    Auto,
    /// At any time.
    Always,
}

impl ChallengeMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Off, Self::Auto, Self::Always];

    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Always => "always",
        }
    }
}
