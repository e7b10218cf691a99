//! `[engine]`, `[table]`, `[fragments]` and `[gwlb]`.
use std::time::Duration;

use crate::packet::Checksums;

crate::config_section! {
    /// `[engine]`: the reading of packets.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EngineConfig = "engine" {
        /// Whether checksums are verified: `trust` leaves them to the receiving host, `require`
        /// demands one of UDP over IPv6 too. In a tunnel nothing else verifies them before the
        /// packet reaches its end, and a segment with a wrong checksum must not change a session. A
        /// caller whose packets have no checksums yet marks each with
        /// [`Packet::offloaded`](crate::Packet::offloaded).
        checksums: Checksums {
            default: Checksums::default(), "in a tunnel nothing else verifies them";
        }
        /// The source of packets: a link, or a tunnel, in which nothing of a link belongs. `auto`
        /// is a tunnel for packets of the GENEVE front end and a link for all others.
        attachment: Attachment {
            default: Attachment::default(), "a tunnel behind the GENEVE front end, else a link";
        }
        /// Whether each session stores the newest [`TunnelRef`](crate::TunnelRef) of each
        /// direction, which takes 16 bytes a session.
        tunnel_references: bool {
            default: false, "only a tunnel front end needs them";
            restart: true;
        }
    }
}

/// Source of packets. In configuration `auto`, `link` or `tunnel`.
///
/// A layer-3 tunnel connects hosts of other links. Discovery and link-local addresses do not belong
/// in a tunnel, so the engine drops them with specific reasons. On a link they are allowed, once
/// they are validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Attachment {
    /// A tunnel for packets that are marked as tunneled
    /// ([`Packet::tunneled`](crate::Packet::tunneled)), as those of the GENEVE front end are, and a
    /// link for all others.
    #[default]
    Auto,
    /// A link: a bump in the wire, or a capture of a link.
    Link,
    /// A layer-3 tunnel, or packets that a router forwarded.
    Tunnel,
}

impl Attachment {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Link => "link",
            Self::Tunnel => "tunnel",
        }
    }

    /// Returns whether a packet comes from a tunnel; `tunneled` is the mark of the packet itself.
    #[must_use]
    pub const fn is_tunnel(self, tunneled: bool) -> bool {
        match self {
            Self::Auto => tunneled,
            Self::Link => false,
            Self::Tunnel => true,
        }
    }
}

crate::config_section! {
    /// `[table]`: the size of the session table.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TableConfig = "table" {
        /// The largest number of sessions.
        max_sessions: u32 {
            default: Self::DEFAULT_SESSIONS, "2^20";
            bounds: 1..=Self::MAX_SESSIONS;
            unit: "sessions";
            restart: true;
        }
        /// The number of parts with a lock each, at most `max_sessions`. The default is 64, or
        /// fewer to have 1024 sessions in each.
        shards: Option<u32> {
            default: None, "64, or fewer to have 1024 sessions in each";
            limit: "a power of two from 1 to 1024";
            restart: true;
        }
        /// The share of the table above which the lifetimes of unanswered sessions shrink. 0, with
        /// `adaptive_end` 0 as well, turns that off.
        adaptive_start: u32 {
            default: Self::DEFAULT_ADAPTIVE_START, "pf";
            limit: "below `adaptive_end`";
            unit: "percent";
        }
        /// The share of the table at which these lifetimes would be 0. They are scaled by
        /// (end - sessions) / (end - start), and are never below a second.
        adaptive_end: u32 {
            default: Self::DEFAULT_ADAPTIVE_END, "pf";
            limit: "above `adaptive_start`, at most 1000";
            unit: "percent";
        }
    }
}

impl TableConfig {
    /// The largest `max_sessions`: 2^28.
    pub const MAX_SESSIONS: u32 = 1 << 28;
    /// The default of `max_sessions`: 2^20.
    pub const DEFAULT_SESSIONS: u32 = 1 << 20;
    /// The largest number of shards.
    pub const MAX_SHARDS: u32 = 1024;
    /// The default number of shards.
    pub const DEFAULT_SHARDS: u32 = 64;

    /// The smallest number of sessions that a shard has by default. A full table evicts within one
    /// shard, so each shard should have sessions of every kind.
    pub const SESSIONS_PER_SHARD: u32 = 1024;

    /// The default of `adaptive_start`: that of pf.
    pub const DEFAULT_ADAPTIVE_START: u32 = 60;
    /// The default of `adaptive_end`: that of pf.
    pub const DEFAULT_ADAPTIVE_END: u32 = 120;
    /// The largest `adaptive_end`.
    pub const MAX_ADAPTIVE: u32 = 1_000;

    /// Returns the number of shards in force.
    pub fn shards_in_force(&self) -> u32 {
        let at_most = 1
            << (self.max_sessions / Self::SESSIONS_PER_SHARD)
                .max(1)
                .ilog2();
        self.shards
            .unwrap_or_else(|| Self::DEFAULT_SHARDS.min(at_most))
    }
}

crate::config_section! {
    /// `[fragments]`: the datagrams whose fragments are passing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FragmentsConfig = "fragments" {
        /// The largest number of incomplete datagrams.
        max_datagrams: u32 {
            default: Self::DEFAULT_DATAGRAMS, "twice what Linux' ipfrag_high_thresh holds";
            bounds: 1..=Self::MAX_DATAGRAMS;
            unit: "datagrams";
            restart: true;
        }
        /// The largest number of those of one source, counted by prefix. More than `max_datagrams`
        /// is no limit.
        max_per_source: u32 {
            default: Self::DEFAULT_PER_SOURCE, "a sixteenth of the default of all";
            bounds: 1..=Self::MAX_DATAGRAMS;
            unit: "datagrams";
            restart: true;
        }
        /// The longest time for all fragments of a datagram, from the first one on. RFC 8200,
        /// section 4.5, waits no longer than 60 s.
        lifetime: Duration {
            default: Self::DEFAULT_LIFETIME, "Linux' ipfrag_time";
            bounds: Self::MIN_LIFETIME..=Self::MAX_LIFETIME;
            restart: true;
        }
        /// The longest time that fragments wait for the first one of their datagram, where the
        /// caller can hold them. 0 drops them at once.
        hold: Duration {
            default: Self::DEFAULT_HOLD, "a first fragment that is late comes within milliseconds";
            bounds: Duration::ZERO..=Self::MAX_HOLD;
            restart: true;
        }
        /// The largest number of fragments that wait.
        max_held: u32 {
            default: Self::DEFAULT_HELD, "some 1.5 MiB of full Ethernet frames";
            bounds: 1..=Self::MAX_HELD;
            unit: "fragments";
            restart: true;
        }
        /// The largest number of those of one source, counted by prefix. More than `max_held` is no
        /// limit.
        max_held_per_source: u32 {
            default: Self::DEFAULT_HELD_PER_SOURCE, "one datagram in as many fragments as may be";
            bounds: 1..=Self::MAX_HELD;
            unit: "fragments";
            restart: true;
        }
    }
}

impl FragmentsConfig {
    /// The largest `max_datagrams`: 2^20.
    pub const MAX_DATAGRAMS: u32 = 1 << 20;
    /// The default of `max_datagrams`: 4096, about twice as many as fit the 4 MiB of Linux'
    /// `ipfrag_high_thresh` with one fragment each.
    pub const DEFAULT_DATAGRAMS: u32 = 4096;
    /// The default of `max_per_source`: a sixteenth of all.
    pub const DEFAULT_PER_SOURCE: u32 = 256;
    /// The shortest `lifetime`.
    pub const MIN_LIFETIME: Duration = Duration::from_secs(1);
    /// The longest `lifetime`: the reassembly timeout of RFC 8200, section 4.5, is 60 s.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(60);
    /// The default of `lifetime`: 30 s, Linux' `ipfrag_time`.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(30);
    /// The longest `hold`: a receiver discards an incomplete datagram long before.
    pub const MAX_HOLD: Duration = Duration::from_secs(10);
    /// The default of `hold`: 1 s. Reordering takes milliseconds.
    pub const DEFAULT_HOLD: Duration = Duration::from_secs(1);
    /// The largest `max_held`: 2^16.
    pub const MAX_HELD: u32 = 1 << 16;
    /// The default of `max_held`: 1024, some 1.5 MiB of full Ethernet frames.
    pub const DEFAULT_HELD: u32 = 1024;
    /// The default of `max_held_per_source`: one datagram with as many fragments as are
    /// accepted.
    pub const DEFAULT_HELD_PER_SOURCE: u32 = 128;
}

crate::config_section! {
    /// `[gwlb]`: the timers of the Gateway Load Balancer in front, for warnings about lifetimes
    /// that are not below them. They change nothing else.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GwlbConfig = "gwlb" {
        /// Whether there is such a balancer. If not, no lifetime is compared with its timers.
        enabled: bool {
            default: true, "the balancer this engine is for";
        }
        /// The idle timer of its TCP flows, with the bounds of AWS.
        tcp_idle: Duration {
            default: Duration::from_secs(350), "GWLB's default";
            bounds: Duration::from_secs(60)..=Duration::from_secs(6000);
        }
        /// The idle timer of its other flows; AWS has 120 s and offers no setting.
        other_idle: Duration {
            default: Duration::from_secs(120), "GWLB's fixed value";
            bounds: Duration::from_secs(1)..=Duration::from_secs(6000);
        }
    }
}

crate::config_table_values!(EngineConfig, TableConfig, FragmentsConfig, GwlbConfig);
crate::config_choices!(Attachment [Auto, Link, Tunnel], Checksums [Verify, Require, Trust]);
