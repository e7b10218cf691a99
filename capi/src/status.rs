//! Outcomes of calls.

use std::ffi::{CStr, c_char};

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The call has done its work.
    Ok = 0,
    /// A pointer that must not be NULL is NULL.
    Null = 1,
    /// An argument is invalid: a length, the `size` of a struct, a flag, a misaligned pointer, text
    /// that is not UTF-8, a reserved field that is not 0, or a handle that belongs to another one.
    Invalid = 2,
    /// The configuration is invalid, or cannot be put in force. The message has the reason.
    Config = 3,
    /// The caller's buffer is too small. Nothing was written to it.
    TooSmall = 4,
    /// Nothing has this name or number.
    NotFound = 5,
    /// The outbox or worker is in use, by another thread or by the call whose callback made this
    /// call. Nothing was done.
    Busy = 6,
    /// A file could not be read, or a callback has reported a failure.
    Io = 7,
    /// The stream of saved sessions cannot be used. The message has the reason.
    Stream = 8,
    /// The library has met a defect of its own. The engine or gateway, with everything that was
    /// made from it, returns this status from now on; release it and create another one.
    Panic = 9,
}

/// Results of functions below the exported ones.
pub(crate) type Outcome<T = ()> = Result<T, Status>;

impl Status {
    /// All statuses.
    pub(crate) const ALL: [Self; 10] = [
        Self::Ok,
        Self::Null,
        Self::Invalid,
        Self::Config,
        Self::TooSmall,
        Self::NotFound,
        Self::Busy,
        Self::Io,
        Self::Stream,
        Self::Panic,
    ];

    const fn text(self) -> &'static CStr {
        match self {
            Self::Ok => c"success",
            Self::Null => c"a pointer is NULL",
            Self::Invalid => c"an argument is invalid",
            Self::Config => c"the configuration is invalid",
            Self::TooSmall => c"the buffer is too small",
            Self::NotFound => c"nothing has this name or number",
            Self::Busy => c"the outbox or worker is in use",
            Self::Io => c"reading or writing has failed",
            Self::Stream => c"the stream of saved sessions cannot be used",
            Self::Panic => c"a defect of the library: the handle can only be released",
        }
    }
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Self::Ok,
            Err(status) => status,
        }
    }
}

/// Returns the text of a status in one line, or "unknown status". The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_status_text(status: i32) -> *const c_char {
    let known = Status::ALL.iter().find(|known| **known as i32 == status);
    known
        .map_or(c"unknown status", |known| known.text())
        .as_ptr()
}
