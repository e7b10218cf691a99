//! Engines of C: their beginning and end.

use std::ffi::c_char;
use std::sync::Arc;

use parking_lot::Mutex;
use portcullis::Engine;

use crate::config::{self, ConfigIn};
use crate::guard::guard;
use crate::raw;
use crate::shared::{Kind, Shared};
use crate::status::{Outcome, Status};

/// A stateful session firewall engine. Threads share it.
#[derive(Debug)]
pub struct EngineHandle {
    pub(crate) shared: Arc<Shared>,
}

/// Makes a call with the state of an engine.
///
/// # Safety
/// A pointer that is not NULL is an engine that is not released during the call.
pub(crate) unsafe fn with_engine(
    engine: *const EngineHandle,
    call: impl FnOnce(&Arc<Shared>) -> Outcome,
) -> Status {
    // SAFETY: the promise of the caller.
    match unsafe { raw::object(engine) } {
        Ok(engine) => engine.shared.guard(|| call(&engine.shared)),
        Err(status) => status,
    }
}

/// Creates an engine.
///
/// `now_ns` is the caller's monotonic time. On success, `*engine` is the engine, which
/// `portcullis_engine_free` releases; otherwise it is NULL, and `message`, a buffer of
/// `message_size` bytes, gets the reason. A message that is too long is cut. `message` may be NULL.
///
/// Any thread may call this at any time.
///
/// # Safety
/// Pointers are NULL or valid; `config` is as its fields say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_new(
    config: *const ConfigIn,
    now_ns: u64,
    engine: *mut *mut EngineHandle,
    message: *mut c_char,
    message_size: usize,
) -> Status {
    let build = |config| {
        let made = Box::new(Engine::new(&config)?);
        let kind = Kind::Engine(made, Box::new(Mutex::new(config)));
        Ok(EngineHandle {
            shared: Shared::new(kind, now_ns),
        })
    };
    // SAFETY: the promise of the caller.
    guard(|| unsafe { config::create(config, engine, message, message_size, build) })
}

/// Releases an engine. NULL is ignored.
///
/// Its outboxes stay valid and are released on their own, before or after. No other thread may be
/// in a call with `engine`, and no callback of such a call may release it.
///
/// # Safety
/// `engine` is NULL or an engine of `portcullis_engine_new` that was not released before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_free(engine: *mut EngineHandle) {
    guard(|| {
        // SAFETY: the promise of the caller.
        unsafe { raw::release(engine) };
        Ok(())
    });
}
