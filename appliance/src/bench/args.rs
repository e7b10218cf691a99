//! Arguments of `portcullis bench`.

use clap::{Args, ValueEnum};

use super::traffic::{MAX_SESSIONS, Protocol};

/// Packets, or ended sessions, of one sample.
pub(super) const SLICE: usize = 1024;

/// Fewest sessions: a round with fewer ends before the clock has ticked.
const MIN_SESSIONS: u32 = 1_000;

/// Arguments of `portcullis bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Sessions in the table, which has room for just as many: 1000 to 16777216
    #[arg(
        long,
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32)
            .range(i64::from(MIN_SESSIONS)..=i64::from(MAX_SESSIONS))
    )]
    pub(super) sessions: u32,
    /// Threads, each with its own share of the sessions: 1 to 256
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Shards of the table, a power of two [default: as without configuration]
    #[arg(long)]
    pub(super) shards: Option<u32>,
    /// Protocol of all sessions
    #[arg(long, value_enum, default_value_t = ProtocolArg::Tcp)]
    pub(super) protocol: ProtocolArg,
    /// Operation to measure
    #[arg(long, value_enum, default_value_t = Mode::Packets)]
    pub(super) mode: Mode,
    /// Packets that are decided together, as those of a receive call: 1, one by one, to 1024
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=SLICE as i64)
    )]
    pub(super) batch: u32,
    /// Seconds to measure, without the time to fill the table: 1 to 60
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(super) seconds: u32,
    /// Verify all checksums, as the engine does by default; without it they are trusted, so that
    /// the size of packets does not count
    #[arg(long)]
    pub(super) verify_checksums: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// The protocol of all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProtocolArg {
    /// TCP over IPv4, with timestamps
    Tcp,
    /// UDP over IPv4
    Udp,
}

impl ProtocolArg {
    /// Returns the name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Tcp => Self::Tcp,
            ProtocolArg::Udp => Self::Udp,
        }
    }
}

/// Operation that a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Packets of established sessions in random order
    Packets,
    /// Packets that open sessions (for TCP the SYN), until the table is full; again and again
    Setup,
    /// The end of all sessions of a full table; again and again
    Expire,
}

impl Mode {
    /// Returns the name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Setup => "setup",
            Self::Expire => "expire",
        }
    }
}
