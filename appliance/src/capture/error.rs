//! Errors of captures.

use std::io;

use thiserror::Error;

/// A capture that cannot be opened, read further, or written.
///
/// `name` is the path as given, or `standard input`. `offset` is the position, from the start of
/// the file, of the record or block that could not be read.
#[derive(Debug, Error)]
pub(crate) enum CaptureError {
    /// The file could not be opened, created, written or flushed.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Error of the system.
        source: io::Error,
    },
    /// Reading failed in the middle of the file.
    #[error("{name}: cannot read the capture at byte {offset}: {source}")]
    Read {
        /// The file.
        name: String,
        /// The record or block that could not be read.
        offset: u64,
        /// Error of the system.
        source: io::Error,
    },
    /// The first bytes do not match any capture format.
    #[error("{name}: not a pcap or pcapng capture: byte 0 begins {found}")]
    NotACapture {
        /// The file.
        name: String,
        /// The first bytes in hexadecimal, and the likely format.
        found: String,
    },
    /// The file ends in the middle of a record or block.
    #[error("{name}: truncated at byte {offset}: {what}")]
    Truncated {
        /// The file.
        name: String,
        /// The incomplete record or block.
        offset: u64,
        /// Description of the missing part.
        what: String,
    },
    /// A record or block contradicts its format.
    #[error("{name}: broken at byte {offset}: {what}")]
    Broken {
        /// The file.
        name: String,
        /// The invalid record or block.
        offset: u64,
        /// Description of the contradiction.
        what: String,
    },
}

/// A [`CaptureError`] before the reader adds the file's name.
#[derive(Debug)]
pub(super) enum Fault {
    /// See [`CaptureError::Read`].
    Read { offset: u64, source: io::Error },
    /// See [`CaptureError::NotACapture`].
    NotACapture { found: String },
    /// See [`CaptureError::Truncated`].
    Truncated { offset: u64, what: String },
    /// See [`CaptureError::Broken`].
    Broken { offset: u64, what: String },
}

impl Fault {
    /// Returns the fault of a record or block that contradicts its format.
    pub(super) fn broken(offset: u64, what: impl Into<String>) -> Self {
        Self::Broken {
            offset,
            what: what.into(),
        }
    }

    /// Returns the fault of a file that ends within a record or block.
    pub(super) fn truncated(offset: u64, what: impl Into<String>) -> Self {
        Self::Truncated {
            offset,
            what: what.into(),
        }
    }

    /// Returns the error for the file called `name`.
    pub(super) fn of(self, name: &str) -> CaptureError {
        let name = name.to_owned();
        match self {
            Self::Read { offset, source } => CaptureError::Read {
                name,
                offset,
                source,
            },
            Self::NotACapture { found } => CaptureError::NotACapture { name, found },
            Self::Truncated { offset, what } => CaptureError::Truncated { name, offset, what },
            Self::Broken { offset, what } => CaptureError::Broken { name, offset, what },
        }
    }
}
