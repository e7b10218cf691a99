//! Errors of `portcullis bench`.

use portcullis::{ConfigError, DropReason};
use thiserror::Error;

/// Reason why a measurement is not valid.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// The engine cannot be created.
    #[error("cannot create the engine: {0}")]
    Config(#[from] ConfigError),
    /// Packets that had to be forwarded were not.
    #[error("{count} packets were not forwarded, the first for {reason}")]
    NotForwarded {
        /// Number of packets that were not forwarded.
        count: u64,
        /// Drop reason of the first one.
        reason: DropReason,
    },
    /// The table does not hold the sessions that it must hold.
    #[error("the table holds {found} sessions instead of {expected}")]
    Sessions {
        /// Number of sessions that the table must hold.
        expected: u32,
        /// Number of sessions that it holds.
        found: usize,
    },
    /// No sample was taken.
    #[error("nothing was measured")]
    NoSample,
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
}
