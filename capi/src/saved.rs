//! Sessions that are saved and restored.

use std::ffi::{c_char, c_void};
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use portcullis::{RestoreError, RestoreOptions, Restored};

use crate::config::wall;
use crate::engine::{EngineHandle, with_engine};
use crate::names::copy_text;
use crate::raw::{self, Sized32};
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use crate::streams::{Input, Output, ReadFn, WriteFn};

/// Option of a restore: the references to paths mean the same as when the sessions were saved.
pub const RESTORE_TUNNELS: u32 = 1;

/// Option of a restore: packets of the sessions have passed since the save, as after a crash.
pub const RESTORE_MOVED_ON: u32 = 2;

/// A restore, and its result.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RestoredOut {
    /// `sizeof(portcullis_restored)`, set by the caller.
    pub size: u32,
    /// `PORTCULLIS_RESTORE_` options, set by the caller; 0 for none.
    pub options: u32,
    /// The monotonic time, set by the caller.
    pub now_ns: u64,
    /// The wall-clock time in nanoseconds since 1970, set by the caller.
    pub wall_ns: u64,
    /// The greatest age of a stream, set by the caller; 0 takes any.
    pub max_age_ns: u64,
    /// The time since the save.
    pub age_ns: u64,
    /// Sessions that go on.
    pub sessions: u64,
    /// Sessions whose lifetime has passed since the save.
    pub expired: u64,
    /// Sessions that the policy does not admit.
    pub refused: u64,
    /// Sessions that the engine has already.
    pub present: u64,
    /// Sessions that found no room.
    pub no_room: u64,
    /// On failure, the reason. What is too long is cut.
    pub message: [c_char; 256],
}

// SAFETY: `repr(C)`, with `size` first; every field is a number.
unsafe impl Sized32 for RestoredOut {
    const LEAST: usize = 336;
}
const _: () = assert!(size_of::<RestoredOut>() == RestoredOut::LEAST);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl RestoredOut {
    fn options(&self) -> Outcome<RestoreOptions> {
        let has = |option| self.options & option != 0;
        if self.options & !(RESTORE_TUNNELS | RESTORE_MOVED_ON) != 0 {
            return Err(Status::Invalid);
        }
        let age = Duration::from_nanos(self.max_age_ns);
        Ok(RestoreOptions {
            tunnels: has(RESTORE_TUNNELS),
            moved_on: has(RESTORE_MOVED_ON),
            max_age: (self.max_age_ns > 0).then_some(age),
        })
    }

    /// Returns the request without results.
    const fn without_results(self) -> Self {
        Self {
            age_ns: 0,
            sessions: 0,
            expired: 0,
            refused: 0,
            present: 0,
            no_room: 0,
            message: [0; 256],
            ..self
        }
    }

    fn with(self, result: &Result<Restored, RestoreError>) -> Self {
        match result {
            Ok(done) => Self {
                age_ns: nanos(done.age),
                sessions: done.sessions as u64,
                expired: done.expired as u64,
                refused: done.refused as u64,
                present: done.present as u64,
                no_room: done.no_room as u64,
                ..self.without_results()
            },
            Err(error) => Self {
                message: copy_text(&error.to_string()),
                ..self.without_results()
            },
        }
    }
}

/// Passes all sessions, as one stream, to `write`, in pieces of about 32 KiB. `*sessions` is their
/// number; it may be NULL. If the call fails, `*sessions` is 0, and `write` has received no
/// complete stream.
///
/// `wall_ns` is the wall-clock time of `now_ns`, in nanoseconds since 1970. Packets may be decided
/// meanwhile; for a complete stream, stop them first. **Reloads, saves and restores of the engine
/// wait**, so `write` must not call those. Any thread may call this.
///
/// # Safety
/// Pointers are NULL or valid, and `write` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_save(
    engine: *const EngineHandle,
    now_ns: u64,
    wall_ns: u64,
    write: WriteFn,
    context: *mut c_void,
    sessions: *mut u64,
) -> Status {
    // Before the engine is examined, which may be broken.
    // SAFETY: the promise of the caller.
    if let Err(status) = unsafe { raw::put_if_asked(sessions, 0) } {
        return status;
    }
    let save = |shared: &Arc<Shared>| {
        // SAFETY: the promise of the caller.
        let mut out = unsafe { Output::new(write, context) }?;
        let now = shared.clock.instant(now_ns);
        let saved = shared.any_engine().save_to(now, wall(wall_ns), &mut out);
        let saved = saved.map_err(|_| Status::Io)?;
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(sessions, saved.sessions) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, save) }
}

/// Restores the sessions of a stream, which `read` reads two or three times. `restored` has the
/// options, and gets the result or the reason of a failure. Results of an earlier call are cleared.
///
/// A session is judged by the policy of this engine, and its lifetime goes on. If the stream
/// cannot be used, nothing has changed, unless it became unreadable after it was read once.
/// **Reloads, saves and restores of the engine wait**, so `read` must not call those. Any
/// thread may call this, usually before the first packet.
///
/// # Safety
/// Pointers are NULL or valid, and `read` is NULL or a function that writes within its buffer and
/// returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_restore(
    engine: *const EngineHandle,
    read: ReadFn,
    context: *mut c_void,
    restored: *mut RestoredOut,
) -> Status {
    // SAFETY: the promise of the caller.
    let given = match unsafe { raw::read(restored.cast_const()) } {
        Ok(given) => given,
        Err(status) => return status,
    };
    // Before the engine is examined, which may be broken: no result is that of an earlier call.
    // SAFETY: the promise of the caller.
    if let Err(status) = unsafe { raw::write(restored, &given.without_results()) } {
        return status;
    }
    let restore = |shared: &Arc<Shared>| {
        // SAFETY: the promise of the caller.
        let input = unsafe { Input::new(read, context) }?;
        let options = given.options()?;
        let now = shared.clock.instant(given.now_ns);
        let result = shared.any_engine().restore_from(
            &mut BufReader::new(input),
            now,
            wall(given.wall_ns),
            options,
        );
        // SAFETY: the promise of the caller.
        unsafe { raw::write(restored, &given.with(&result)) }?;
        match result {
            Ok(_) => Ok(()),
            Err(RestoreError::Read { .. }) => Err(Status::Io),
            Err(_) => Err(Status::Stream),
        }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, restore) }
}
