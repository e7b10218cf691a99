//! Arguments of `portcullis bench`.

use clap::{Args, ValueEnum};

use super::error::BenchError;
use super::traffic::MAX_SESSIONS;

/// Number of packets, or ended sessions, of one sample.
pub(super) const SLICE: usize = 1024;

/// Minimum number of sessions: a round with fewer ends before the clock has ticked.
const MIN_SESSIONS: u32 = 1_000;

/// Maximum number of rules of a policy.
const MAX_RULES: u32 = 65_000;

/// Arguments of `portcullis bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Operation to measure
    #[arg(long, value_enum, default_value_t = Mode::Packets)]
    pub(super) mode: Mode,
    /// Sessions in the table, which has room for just as many: 1000 to 134217728
    #[arg(
        long,
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32)
            .range(i64::from(MIN_SESSIONS)..=i64::from(MAX_SESSIONS))
    )]
    pub(super) sessions: u32,
    /// Protocol of all sessions
    #[arg(long, value_enum, default_value_t = ProtocolArg::Tcp, conflicts_with = "mix")]
    pub(super) protocol: ProtocolArg,
    /// Mix of kinds of packets, instead of sessions of one protocol
    #[arg(long, value_enum)]
    pub(super) mix: Option<MixArg>,
    /// IP version of all packets
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub(super) family: Family,
    /// Threads, each with its own share of the sessions: 1 to 256
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Packets that are decided together, as those of a receive call: 1, one by one, to 1024
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=SLICE as i64)
    )]
    pub(super) batch: u32,
    /// Rules of the policy, each for other servers: 0, allow everything, to 65000
    #[arg(
        long,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32)
            .range(0..=i64::from(MAX_RULES))
    )]
    pub(super) rules: u32,
    /// Shards of the table, a power of two [default: as without configuration]
    #[arg(long)]
    pub(super) shards: Option<u32>,
    /// Verify all checksums, as the engine does by default; without it they are trusted, so that
    /// the size of packets does not count
    #[arg(long)]
    pub(super) verify_checksums: bool,
    /// Seconds to measure, without the time to fill the table: 1 to 60
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(super) seconds: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl BenchArgs {
    /// Rejects combinations of which a part would have no effect.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let no = |reason| Err(BenchError::Senseless(reason));
        if self.mix.is_some() && self.mode != Mode::Packets {
            return no("--mix needs --mode packets: the mix itself opens and ends sessions");
        }
        if self.rules > 0 && matches!(self.mode, Mode::Packets | Mode::Expire) && self.mix.is_none()
        {
            return no(
                "--rules needs new sessions, or a reload: --mode setup or latency, or --mix",
            );
        }
        if self.mode == Mode::Expire && self.batch > 1 {
            return no("--batch needs packets: --mode expire has none");
        }
        if self.mode == Mode::Expire && self.verify_checksums {
            return no("--verify-checksums needs packets: --mode expire has none");
        }
        if self.mode == Mode::Latency && self.protocol != ProtocolArg::Tcp {
            return no("--mode latency needs --protocol tcp: its UDP sessions are idle, and end");
        }
        Ok(())
    }
}

/// The protocol of all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProtocolArg {
    /// TCP, with timestamps
    Tcp,
    /// UDP
    Udp,
}

/// A mix of kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MixArg {
    /// Long TCP connections (60 % of the sessions), UDP (20 %), and short TCP connections (20 %)
    Internet,
    /// TCP connections of 12 packets (90 % of the sessions), and UDP (10 %)
    Short,
}

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6, without extension headers
    #[value(name = "6")]
    V6,
}

impl Family {
    /// Returns the number in the report.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
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
    /// The time of each call with packets while another thread lists, previews, reloads, saves,
    /// expires and deletes sessions, one after the other
    Latency,
}

/// Returns the name of a value, as on the command line.
pub(super) fn name_of(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
