//! `[resets]`, `[tombstones]` and `[asymmetry]`: the end of sessions, and half-seen paths.
use std::time::Duration;

crate::config_section! {
    /// `[resets]`: the rate of RSTs at the end of sessions. RSTs to late packets, and answers to
    /// packets that are rejected or too large
    /// ([`Engine::write_reply`](crate::Engine::write_reply)), have a budget of this size each. With
    /// `Z` zones, each zone is guaranteed `overall / (2 * Z)` a second in each of the three
    /// budgets.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ResetsConfig = "resets" {
        /// The rate to one destination address, and as many at once.
        per_destination: u32 {
            default: 1_000, "a server whose sessions end together";
            bounds: 0..=Self::MAX_RATE;
            unit: "RSTs per second";
        }
        /// The rate to all destinations together, and as many at once.
        overall: u32 {
            default: 20_000, "a few per cent of a core";
            bounds: 0..=Self::MAX_RATE;
            unit: "RSTs per second";
        }
    }
}

impl ResetsConfig {
    /// The highest rate.
    pub const MAX_RATE: u32 = 1_000_000;
}

crate::config_section! {
    /// `[tombstones]`: the memory of TCP sessions that ended before their connection did.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct TombstonesConfig = "tombstones" {
        /// The largest number of ended sessions; a new one evicts the oldest.
        max: u32 {
            default: 65_536, "8 MiB";
            bounds: 0..=Self::MAX;
            unit: "sessions";
            restart: true;
        }
        /// The time for which an ended session is remembered.
        lifetime: Duration {
            default: Duration::from_secs(600), "longer than keepalives of 5 minutes";
            bounds: Duration::from_secs(1)..=Self::MAX_LIFETIME;
            restart: true;
        }
    }
}

impl TombstonesConfig {
    /// The largest `max`: 2^24.
    pub const MAX: u32 = 1 << 24;
    /// The longest `lifetime`: a day.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
}

crate::config_section! {
    /// `[asymmetry]`: the evidence of a path whose other half does not pass here, and the report of
    /// such paths.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct AsymmetryConfig = "asymmetry" {
        /// The number of packets of one direction alone after which its path is reported, if one of
        /// them proves that the other direction takes another path. Except for those of a
        /// handshake, they must take a second at least: a whole window may be in flight before the
        /// first answer.
        packets: u32 {
            default: 16, "more than an initial window";
            bounds: 2..=u32::MAX;
            unit: "packets";
        }
        /// The time for which one direction alone continues, with the same effect.
        time: Duration {
            default: Duration::from_secs(10), "longer than a few retransmissions";
            bounds: Duration::from_secs(1)..=Duration::from_secs(3_600);
        }
        /// The largest number of lines of the report; further ones are counted.
        max_entries: u32 {
            default: 4_096, "1 MiB";
            bounds: 0..=Self::MAX_ENTRIES;
            unit: "lines";
        }
        /// The number of other zones in which the session of a packet is searched.
        searched_zones: u32 {
            default: 16, "a few microseconds";
            bounds: 0..=Self::MAX_ZONES;
            unit: "zones";
        }
        /// The rate of searches without a result, all zones together: each zone in which packets
        /// come has an equal share. A search that finds the session costs nothing.
        searches: u32 {
            default: 10_000, "a few per cent of a core";
            bounds: 0..=Self::MAX_SEARCHES;
            unit: "packets per second";
        }
        /// The length of IPv4 prefixes in the report.
        prefix_v4: u8 {
            default: 24, "a common subnet";
            bounds: 0..=32;
            unit: "bits";
        }
        /// The length of IPv6 prefixes in the report.
        prefix_v6: u8 {
            default: 64, "a subnet (RFC 4291 2.5.4)";
            bounds: 0..=128;
            unit: "bits";
        }
    }
}

impl AsymmetryConfig {
    /// The largest `max_entries`: 2^20.
    pub const MAX_ENTRIES: u32 = 1 << 20;
    /// The largest `searched_zones`.
    pub const MAX_ZONES: u32 = 256;
    /// The largest `searches`.
    pub const MAX_SEARCHES: u32 = 1_000_000;
}

/// Effect of a reload on sessions that the new policy would not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnReload {
    /// The sessions end at once.
    #[default]
    End,
    /// The sessions continue under the rule that admitted them.
    Keep,
}

impl OnReload {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Keep => "keep",
        }
    }
}

crate::config_table_values!(ResetsConfig, TombstonesConfig, AsymmetryConfig);
crate::config_choices!(OnReload [End, Keep]);
