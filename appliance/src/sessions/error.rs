//! Errors of `portcullis sessions`.

use std::io;

/// Why the appliance could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    /// Nobody answers.
    #[error("{path}: {source}: is the appliance running, and `run.control` its socket?")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A filter, or a limit, that would not count.
    #[error("a filter or limit before the command would not count: put what `{0}` takes behind it")]
    Misplaced(&'static str),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The appliance refuses.
    #[error("{0}")]
    Refused(String),
    /// The connection is broken.
    #[error("the appliance does not answer any more: {0}")]
    Broken(io::Error),
    /// The answer makes no sense.
    #[error("the answer cannot be read, is it of another version? {0}")]
    Answer(String),
    /// The answer cannot be printed.
    #[error("standard output: {0}")]
    Output(io::Error),
}
