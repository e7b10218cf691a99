//! Errors of `portcullis demo`.

use std::io;

use crate::sessions::SessionsError;

/// Exit status of a program that SIGINT ends, as shells report it.
const INTERRUPTED: u8 = 130;

/// Reason for which the demo did not start, or did not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The user may not create network namespaces.
    #[error(
        "the demo creates network namespaces, which needs root: run `sudo portcullis demo`. \
         Nothing was started"
    )]
    NotRoot,
    /// Programs are missing.
    #[error("{0}. Nothing was started")]
    Missing(String),
    /// A signal has ended the demo.
    #[error("interrupted; everything that the demo has started is gone")]
    Interrupted,
    /// The system refuses something.
    #[error("{what}: {source}")]
    System {
        /// The operation.
        what: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A program has ended although it was needed, or has failed.
    #[error("{what}: {status}{tail}")]
    Program {
        /// The program, or its purpose.
        what: String,
        /// Its exit status in words.
        status: String,
        /// Last lines of its messages, each on a line of its own.
        tail: String,
    },
    /// Something was not ready in time.
    #[error("{what}: not ready within {seconds} s{tail}")]
    Late {
        /// The thing.
        what: String,
        /// The time.
        seconds: u64,
        /// Last lines of the messages of the program that was to provide it.
        tail: String,
    },
    /// The appliance cannot be asked.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The demo shows something else than it should.
    #[error("not as expected: {0}")]
    Unexpected(String),
    /// The result cannot be printed.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl DemoError {
    /// Returns the exit status: 130 for an interrupted demo, 1 for any other error.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => INTERRUPTED,
            _ => 1,
        }
    }
}

/// Returns a function for `map_err` that adds the operation to a system error.
pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
    let what = what.into();
    move |source| DemoError::System { what, source }
}
