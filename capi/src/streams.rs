//! Callbacks of C as readers and writers.

use std::ffi::c_void;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::status::{Outcome, Status};

/// Receives bytes, and returns 0; any other value is a failure and ends the call. `context` is the
/// caller's. The function returns normally: it neither throws nor jumps.
pub type WriteFn =
    Option<unsafe extern "C" fn(context: *mut c_void, bytes: *const u8, length: usize) -> i32>;

/// Reads up to `length` bytes of a stream from `offset` on into `buffer`, like `pread`, and returns
/// their number: 0 at the end of the stream, and a negative number for a failure. `context` is the
/// caller's. The function returns normally: it neither throws nor jumps.
pub type ReadFn = Option<
    unsafe extern "C" fn(context: *mut c_void, offset: u64, buffer: *mut u8, length: usize) -> i64,
>;

/// A caller's function that receives bytes.
pub(crate) struct Output {
    write: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> i32,
    context: *mut c_void,
}

impl Output {
    /// Returns a writer.
    ///
    /// # Safety
    /// `write` is a function that may be called with `context` and returns normally.
    pub(crate) unsafe fn new(write: WriteFn, context: *mut c_void) -> Outcome<Self> {
        let write = write.ok_or(Status::Null)?;
        Ok(Self { write, context })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: `new` was promised a function for this context; the bytes live during the call.
        match unsafe { (self.write)(self.context, bytes.as_ptr(), bytes.len()) } {
            0 => Ok(bytes.len()),
            _ => Err(io::Error::other("the caller's function has failed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A caller's function that reads a stream from any offset.
pub(crate) struct Input {
    read: unsafe extern "C" fn(*mut c_void, u64, *mut u8, usize) -> i64,
    context: *mut c_void,
    offset: u64,
}

impl Input {
    /// Returns a reader.
    ///
    /// # Safety
    /// `read` is a function that may be called with `context`, writes within its buffer and returns
    /// normally.
    pub(crate) unsafe fn new(read: ReadFn, context: *mut c_void) -> Outcome<Self> {
        let read = read.ok_or(Status::Null)?;
        Ok(Self {
            read,
            context,
            offset: 0,
        })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (to, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: `new` was promised a function for this context; the buffer lives during the call.
        let count = unsafe { (self.read)(self.context, self.offset, to, length) };
        let count = usize::try_from(count)
            .map_err(|_| io::Error::other("the caller's function has failed"))?;
        if count > length {
            return Err(io::Error::other("the caller's function has read too much"));
        }
        self.offset += count as u64;
        Ok(count)
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.offset = offset.ok_or(io::ErrorKind::Unsupported)?;
        Ok(self.offset)
    }
}
