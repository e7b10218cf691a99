//! Settings of what is remembered and sent when sessions end, and of what is reported of half-seen paths.
use std::time::Duration;

use serde::Deserialize;

use super::values;

/// `[resets]`: how many RSTs the engine sends at the end of sessions. As many again are those to
/// late packets, and as many the answers to packets that are rejected or too large
/// ([`Engine::write_reply`](crate::Engine::write_reply)): each has a budget of its own. With `Z`
/// zones, each zone has `overall / (2 * Z)` a second for certain in each of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResetsConfig {
    /// RSTs a second to one destination address, 0 to [`Self::MAX_RATE`]; as many at once.
    pub per_destination: u32,
    /// RSTs a second to all of them, 0 to [`Self::MAX_RATE`]; as many at once.
    pub overall: u32,
}

impl ResetsConfig {
    /// The highest rate.
    pub const MAX_RATE: u32 = 1_000_000;
}

impl Default for ResetsConfig {
    fn default() -> Self {
        Self {
            per_destination: 1_000,
            overall: 20_000,
        }
    }
}

/// `[tombstones]`: how much is remembered of TCP sessions that ended before their connection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TombstonesConfig {
    /// How many, 0 to [`Self::MAX`]; the oldest makes room.
    pub max: u32,
    /// For how long, 1 s to [`Self::MAX_LIFETIME`].
    #[serde(deserialize_with = "values::scalar")]
    pub lifetime: Duration,
}

impl TombstonesConfig {
    /// The largest `max`: 2^24.
    pub const MAX: u32 = 1 << 24;
    /// The longest `lifetime`: a day.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
}

impl Default for TombstonesConfig {
    fn default() -> Self {
        Self {
            max: 65_536,
            lifetime: Duration::from_secs(600),
        }
    }
}

/// `[asymmetry]`: what is taken for evidence of a path whose other half does not pass here, and how much of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsymmetryConfig {
    /// Packets of one direction alone after which its path is reported, if one of them is a proof
    /// ([`crate::asymmetry`]): 2 to 2^32 - 1. But for those of a handshake, they must take a second at
    /// least: a whole window may be on its way before the first answer.
    pub packets: u32,
    /// The time that one direction alone goes on, with the same effect.
    #[serde(deserialize_with = "values::scalar")]
    pub time: Duration,
    /// Lines of the report, 0 to [`Self::MAX_ENTRIES`]; what finds no place is counted.
    pub max_entries: u32,
    /// Other zones in which a packet's session is looked for, 0 to [`Self::MAX_ZONES`].
    pub searched_zones: u32,
    /// How many packets a second may be looked for in vain, 0 to 1,000,000, all zones together: each zone
    /// in which packets come has an equal share. A search that finds the session costs nothing.
    pub searches: u32,
    /// The length of IPv4 prefixes in the report.
    pub prefix_v4: u8,
    /// The length of IPv6 prefixes in the report.
    pub prefix_v6: u8,
}

impl AsymmetryConfig {
    /// The largest `max_entries`: 2^20.
    pub const MAX_ENTRIES: u32 = 1 << 20;
    /// The largest `searched_zones`.
    pub const MAX_ZONES: u32 = 256;
    /// The largest `searches`.
    pub const MAX_SEARCHES: u32 = 1_000_000;
}

impl Default for AsymmetryConfig {
    fn default() -> Self {
        Self {
            packets: 16,
            time: Duration::from_secs(10),
            max_entries: 4_096,
            searched_zones: 16,
            searches: 10_000,
            prefix_v4: 24,
            prefix_v6: 64,
        }
    }
}

/// What a reload does with sessions that the new policy would not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReload {
    /// They end at once.
    #[default]
    End,
    /// They live on under the rule that has admitted them.
    Keep,
}

impl OnReload {
    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Keep => "keep",
        }
    }
}
