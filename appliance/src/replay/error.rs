//! Errors of a replay.

use std::io;

use portcullis::ConfigError;

use super::explain::ExplainTarget;
use crate::capture::CaptureError;
use crate::config_file::ConfigFileError;

/// Reason for which a replay failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The capture cannot be read to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The configuration file cannot be used.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The configuration does not compile.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A result cannot be written.
    #[error("{name}: {source}")]
    Output {
        /// The file.
        name: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A result would overwrite the capture, or two results would be written to one file.
    #[error("{0} and {1} are the same file")]
    SameFile(String, String),
    /// `--explain` requests a decision that did not occur.
    #[error("--explain {0}: no packet of the capture was dropped or rejected for that reason")]
    NoSuchDrop(ExplainTarget),
    /// `--explain` names a frame after the end of the capture.
    #[error("--explain {asked}: the capture has only {frames} frames")]
    NoSuchFrame {
        /// The requested frame.
        asked: u64,
        /// Frames in the capture.
        frames: u64,
    },
}

impl ReplayError {
    /// Returns the exit status: 2 for a capture that is broken or truncated, 1 for any other error.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Capture(CaptureError::Io { .. } | CaptureError::Read { .. }) => 1,
            Self::Capture(_) => 2,
            _ => 1,
        }
    }
}
