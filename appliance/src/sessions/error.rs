//! Errors of `portcullis sessions`.

use std::io;

/// Reason for which a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    /// No appliance answers.
    #[error("{path}: {source}: is the appliance running, and `run.control` its socket?")]
    Connect {
        /// The socket.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A filter or a limit precedes the command, which would ignore it.
    #[error(
        "a filter or limit before the command has no effect: put the options of `{0}` after it"
    )]
    Misplaced(&'static str),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The appliance refuses.
    #[error("{0}")]
    Refused(String),
    /// The connection is broken.
    #[error("the appliance no longer answers: {0}")]
    Broken(io::Error),
    /// The answer cannot be read.
    #[error("the answer cannot be read; the appliance may have another version: {0}")]
    Answer(String),
    /// The answer cannot be printed.
    #[error("standard output: {0}")]
    Output(io::Error),
}
