//! `[continuity]`: sessions that go on in another engine.
use std::time::Duration;

crate::config_section! {
    /// `[continuity]`: sessions that a store outside the engine keeps, so that another engine can
    /// resume them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ContinuityConfig = "continuity" {
        /// Whether sessions are stored. Each session then takes 16 bytes more, which record what
        /// the store has of it. The caller moves records between the engine and the store.
        enabled: bool {
            default: false, "there is no store without its caller";
            restart: true;
        }
        /// The longest time that a packet is held until the store has answered. Without an answer
        /// it is decided as if there were no store.
        hold: Duration {
            default: Self::DEFAULT_HOLD, "a hundred times what a store in reach takes";
            bounds: Self::MIN_HOLD..=Self::MAX_HOLD;
            restart: true;
        }
        /// The largest number of packets that are held. With `Z` zones, each zone is guaranteed
        /// `max_held / (2 * Z)` of them, and a source takes more only while as many stay free as it
        /// holds. So it is with `max_held_bytes` and `max_questions`.
        max_held: u32 {
            default: Self::DEFAULT_HELD, "packets of a few hundred flows";
            bounds: 1..=Self::MAX_HELD;
            unit: "packets";
            restart: true;
        }
        /// The largest number of IP bytes of held packets.
        max_held_bytes: u32 {
            default: Self::DEFAULT_HELD_BYTES, "4096 packets of 1024 bytes";
            bounds: Self::MIN_HELD_BYTES..=u32::MAX;
            unit: "bytes";
            restart: true;
        }
        /// The largest number of packets of one flow that are held.
        max_held_per_flow: u32 {
            default: Self::DEFAULT_HELD_PER_FLOW, "six initial windows (RFC 6928)";
            bounds: 1..=Self::MAX_HELD;
            unit: "packets";
            restart: true;
        }
        /// The largest number of IP bytes of held packets of one flow.
        max_held_bytes_per_flow: u32 {
            default: Self::DEFAULT_HELD_BYTES_PER_FLOW, "64 packets of 2048 bytes";
            bounds: Self::MIN_HELD_BYTES..=u32::MAX;
            unit: "bytes";
            restart: true;
        }
        /// The largest number of questions that are open at once.
        max_questions: u32 {
            default: Self::DEFAULT_QUESTIONS, "what a store can answer within `hold`";
            bounds: 1..=Self::MAX_QUESTIONS;
            unit: "questions";
            restart: true;
        }
        /// The rate of questions in vain, and as many at once before. A question that moves a
        /// session or an announcement here costs a quarter. One half is for sources that are an end
        /// of such a session within a minute. With `Z` zones, each zone is guaranteed
        /// `questions / (4 * Z)` a second of either half.
        questions: u32 {
            default: Self::DEFAULT_RATE, "one per cent of what a store answers";
            bounds: 0..=Self::MAX_RATE;
            unit: "questions per second";
            restart: true;
        }
        /// The rate of questions in vain about packets of one source, counted by prefix, and as
        /// many at once before. One that moves something here costs a quarter.
        questions_per_source: u32 {
            default: Self::DEFAULT_RATE_PER_SOURCE, "a server whose sessions move together";
            bounds: 0..=Self::MAX_RATE;
            unit: "questions per second";
            restart: true;
        }
        /// The largest number of flows that are noted as absent from the store.
        max_nothing: u32 {
            default: Self::DEFAULT_NOTHING, "512 KiB";
            bounds: 1..=Self::MAX_NOTHING;
            unit: "flows";
            restart: true;
        }
        /// The time for which a flow is noted as absent from the store. Meanwhile the store is not
        /// asked about the flow.
        nothing_for: Duration {
            default: Self::DEFAULT_NOTHING_FOR, "a stray flow asks once a second";
            bounds: Self::MIN_NOTHING_FOR..=Self::MAX_NOTHING_FOR;
            restart: true;
        }
    }
}

impl ContinuityConfig {
    /// The shortest `hold`.
    pub const MIN_HOLD: Duration = Duration::from_millis(1);
    /// The longest `hold`: a sender retransmits after 200 ms or more.
    pub const MAX_HOLD: Duration = Duration::from_secs(1);
    /// The default of `hold`.
    pub const DEFAULT_HOLD: Duration = Duration::from_millis(10);
    /// The largest `max_held` and `max_held_per_flow`.
    pub const MAX_HELD: u32 = 1 << 16;
    /// The default of `max_held`.
    pub const DEFAULT_HELD: u32 = 4096;
    /// The smallest `max_held_bytes` and `max_held_bytes_per_flow`: one packet of any length.
    pub const MIN_HELD_BYTES: u32 = 65_535;
    /// The default of `max_held_bytes`.
    pub const DEFAULT_HELD_BYTES: u32 = 4 << 20;
    /// The default of `max_held_per_flow`.
    pub const DEFAULT_HELD_PER_FLOW: u32 = 64;
    /// The default of `max_held_bytes_per_flow`.
    pub const DEFAULT_HELD_BYTES_PER_FLOW: u32 = 128 << 10;
    /// The largest `max_questions`: 2^15.
    pub const MAX_QUESTIONS: u32 = 1 << 15;
    /// The default of `max_questions`.
    pub const DEFAULT_QUESTIONS: u32 = 4096;
    /// The highest rate of questions.
    pub const MAX_RATE: u32 = 1_000_000;
    /// The default of `questions`.
    pub const DEFAULT_RATE: u32 = 5_000;
    /// The default of `questions_per_source`.
    pub const DEFAULT_RATE_PER_SOURCE: u32 = 1_000;
    /// The largest `max_nothing`: 2^24.
    pub const MAX_NOTHING: u32 = 1 << 24;
    /// The default of `max_nothing`.
    pub const DEFAULT_NOTHING: u32 = 65_536;
    /// The shortest `nothing_for`.
    pub const MIN_NOTHING_FOR: Duration = Duration::from_millis(10);
    /// The longest `nothing_for`.
    pub const MAX_NOTHING_FOR: Duration = Duration::from_secs(60);
    /// The default of `nothing_for`.
    pub const DEFAULT_NOTHING_FOR: Duration = Duration::from_secs(1);
}

crate::config_table_values!(ContinuityConfig);
