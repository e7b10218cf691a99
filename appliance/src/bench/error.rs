//! Errors of `portcullis bench`.

use portcullis::{ConfigError, DropReason};
use thiserror::Error;

/// Reason for which a measurement is not possible, or not valid.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// Arguments of which a part would have no effect.
    #[error("{0}")]
    Senseless(&'static str),
    /// The sessions do not fit in the memory of the machine.
    #[error("the table takes {needed} MiB when it is full, and {available} MiB are available")]
    Memory {
        /// MiB of all tables.
        needed: u64,
        /// Available MiB of the system or the control group.
        available: u64,
    },
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
    /// An operation on the table had a wrong result.
    #[error("{operation}: {found} sessions instead of {expected}")]
    Operation {
        /// Name of the operation.
        operation: &'static str,
        /// Number of sessions that the operation must concern.
        expected: u32,
        /// Number of sessions that it concerned.
        found: u64,
    },
    /// A histogram has impossible bounds.
    #[error("cannot create a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// No sample was taken.
    #[error("nothing was measured")]
    NoSample,
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
}
