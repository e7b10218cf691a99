//! Errors of `portcullis observe`.

use std::io;

use crate::capture::CaptureError;
use crate::sessions::SessionsError;

/// Reason for which a stream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    /// The appliance cannot be asked, or refuses.
    #[error(transparent)]
    Control(#[from] SessionsError),
    /// The capture cannot be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The format of the capture has no comments.
    #[error("{0}: only a capture whose name ends in .pcapng has comments on its packets")]
    Format(String),
    /// The system refuses a signal handler.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The stream cannot be printed.
    #[error("standard output: {0}")]
    Output(io::Error),
}
