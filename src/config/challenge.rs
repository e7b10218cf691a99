//! `[syn_challenge]`: source validation under flood.
use std::collections::BTreeMap;
use std::time::Duration;

crate::config_section! {
    /// `[syn_challenge]`: when the source of a SYN must prove that it is there before the SYN
    /// passes. A SYN of an unknown source is answered by a SYN-ACK that acknowledges a wrong
    /// number. The stack of a real source answers with a RST that carries this number, and its next
    /// SYN passes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SynChallengeConfig = "syn_challenge" {
        /// When unknown sources are challenged, in zones that `zones` does not name: `auto` is
        /// while the zone has many half-open sessions.
        mode: ChallengeMode {
            default: ChallengeMode::default(), "new clients wait only while there is a flood";
        }
        /// The mode of a zone, by its name. Of several names that stand for one zone the first
        /// counts.
        zones: BTreeMap<String, ChallengeMode> {
            default: BTreeMap::new(), "all zones have `mode`";
        }
        /// With `auto`: the share of half-open TCP sessions in a zone at which challenges begin, of
        /// its part of the table (`table.max_sessions` divided by the number of zones, or its own
        /// `max_sessions` where that is less); 64 sessions at least.
        start: u32 {
            default: 10, "far above healthy zones, far below a full table";
            bounds: 1..=100;
            unit: "percent";
        }
        /// With `auto`: challenges end when a smaller share than this is half-open.
        end: u32 {
            default: 5, "half of the start, as for pf's adaptive SYN cookies";
            limit: "0 to `start`";
            unit: "percent";
        }
        /// The time for which a source is known after its last handshake or answer.
        lifetime: Duration {
            default: Duration::from_secs(600), "clients that come back are not challenged again";
            bounds: Duration::from_secs(1)..=Self::MAX_LIFETIME;
        }
        /// The largest number of known sources, rounded up to a power of two of at least 16. Each
        /// takes 8 bytes.
        max_sources: u32 {
            default: 65_536, "512 KiB";
            bounds: 0..=Self::MAX_SOURCES;
            unit: "sources";
            restart: true;
        }
        /// The rate of challenges, and as many at once. Half of them are divided by the zones, and
        /// the other half is for whichever zone comes first. A SYN beyond them is dropped, that of
        /// a real client too: the rate should be above that of all SYNs.
        per_second: u32 {
            default: 2_000_000, "above what an appliance can receive: a flood is most of the SYNs";
            bounds: 1..=Self::MAX_RATE;
            unit: "SYN-ACKs per second";
        }
    }
}

impl SynChallengeConfig {
    /// The longest `lifetime`: a day.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
    /// The largest `max_sources`: 2^24.
    pub const MAX_SOURCES: u32 = 1 << 24;
    /// The highest `per_second`.
    pub const MAX_RATE: u32 = 100_000_000;
}

/// The times at which unknown sources are challenged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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

    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Always => "always",
        }
    }
}

crate::config_table_values!(SynChallengeConfig);
crate::config_choices!(ChallengeMode [Off, Auto, Always]);
