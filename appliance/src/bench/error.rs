//! Errors of `portcullis bench`.

use portcullis::{ConfigError, DropReason};
use thiserror::Error;

/// Reason why a measurement is not valid.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// The engine cannot be made.
    #[error("the engine cannot be made: {0}")]
    Config(#[from] ConfigError),
    /// Packets that had to be forwarded were not.
    #[error("{count} packets were not forwarded, the first for {reason}")]
    NotForwarded {
        /// How many.
        count: u64,
        /// Why the first was not.
        reason: DropReason,
    },
    /// The table does not hold the sessions that it must hold.
    #[error("the table holds {found} sessions in place of {expected}")]
    Sessions {
        /// How many it should hold.
        expected: u32,
        /// How many it does.
        found: usize,
    },
    /// Not one sample was taken.
    #[error("nothing was measured")]
    NoSample,
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
}
