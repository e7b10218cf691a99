//! Outboxes of C: packets to send and events of one thread.

use std::ffi::c_void;
use std::sync::Arc;

use parking_lot::Mutex;
use portcullis::{Outbox, Verdict};

use crate::engine::{EngineHandle, with_engine};
use crate::event::{EventFn, pass_all};
use crate::guard::guard;
use crate::raw;
use crate::shared::Shared;
use crate::status::{Outcome, Status};

/// The number of packets that are passed to the engine together.
pub(crate) const CHUNK: usize = 64;

/// A bounded queue of packets to send and of events, for one thread at a time.
#[derive(Debug)]
pub struct OutboxHandle {
    shared: Arc<Shared>,
    state: Mutex<OutboxState>,
}

#[derive(Debug)]
pub(crate) struct OutboxState {
    pub(crate) outbox: Outbox,
    /// Verdicts of a part of a batch.
    pub(crate) verdicts: Vec<Verdict>,
}

/// Makes a call with an engine and an outbox of it.
///
/// # Safety
/// Pointers that are not NULL are an engine and an outbox that are not released during the call.
pub(crate) unsafe fn with_outbox(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    call: impl FnOnce(&Shared, &mut OutboxState) -> Outcome,
) -> Status {
    let own = |shared: &Arc<Shared>| {
        // SAFETY: the promise of the caller.
        let outbox = unsafe { raw::object(outbox) }?;
        if !Arc::ptr_eq(shared, &outbox.shared) {
            return Err(Status::Invalid);
        }
        let mut state = outbox.state.try_lock().ok_or(Status::Busy)?;
        call(shared, &mut state)
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, own) }
}

/// Makes a call with an outbox.
///
/// # Safety
/// A pointer that is not NULL is an outbox that is not released during the call.
unsafe fn with_outbox_alone(
    outbox: *const OutboxHandle,
    call: impl FnOnce(&Shared, &mut OutboxState) -> Outcome,
) -> Status {
    // SAFETY: the promise of the caller.
    let outbox = match unsafe { raw::object(outbox) } {
        Ok(outbox) => outbox,
        Err(status) => return status,
    };
    outbox.shared.guard(|| {
        let mut state = outbox.state.try_lock().ok_or(Status::Busy)?;
        call(&outbox.shared, &mut state)
    })
}

/// Creates an outbox of an engine. Each thread that decides packets has one of its own.
///
/// An outbox keeps at most 1024 replies, 1024 RSTs and 1024 events, of which half may be denied and
/// audited sessions, until it is drained. Others are lost and counted. When the caller ends
/// sessions, or reloads, there is room for all records and RSTs.
///
/// On success, `*outbox` is the outbox, which `portcullis_outbox_free` releases; otherwise it is
/// NULL. Any thread may call this at any time.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_outbox_new(
    engine: *const EngineHandle,
    outbox: *mut *mut OutboxHandle,
) -> Status {
    // Before anything else, so that the outbox is NULL whatever fails.
    // SAFETY: the promise of the caller.
    if let Err(status) = unsafe { raw::put(outbox, std::ptr::null_mut()) } {
        return status;
    }
    let create = |shared: &Arc<Shared>| {
        shared.engine()?;
        let created = OutboxHandle {
            shared: Arc::clone(shared),
            state: Mutex::new(OutboxState {
                outbox: Outbox::new(),
                verdicts: Vec::with_capacity(CHUNK),
            }),
        };
        // SAFETY: the promise of the caller.
        unsafe { raw::put(outbox, raw::hand_out(created)) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, create) }
}

/// Removes all entries of an outbox and passes them to `each`, oldest first.
///
/// No lock of the engine is held during `each`, which may call the engine with any other outbox; a
/// call with this one returns `PORTCULLIS_STATUS_BUSY`. One thread at a time uses an outbox.
///
/// # Safety
/// `outbox` is NULL or an outbox that was not released, and `each` is NULL or a function that
/// returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_outbox_drain(
    outbox: *const OutboxHandle,
    each: EventFn,
    context: *mut c_void,
) -> Status {
    let drain = |shared: &Shared, state: &mut OutboxState| {
        // Before the drain, which discards what it does not pass.
        let each = each.ok_or(Status::Null)?;
        // SAFETY: the promise of the caller.
        unsafe { pass_all(state.outbox.drain(), &shared.clock, each, context) };
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox_alone(outbox, drain) }
}

/// Reads the counts of entries that an outbox did not keep since it was created: packets and events
/// without room, and replies beyond the budget of `[resets]`. Each pointer may be NULL.
///
/// One thread at a time uses an outbox.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_outbox_lost(
    outbox: *const OutboxHandle,
    packets: *mut u64,
    events: *mut u64,
    over_budget: *mut u64,
) -> Status {
    let read = |_: &Shared, state: &mut OutboxState| {
        let lost = state.outbox.lost();
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(packets, lost.packets) }?;
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(events, lost.events) }?;
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(over_budget, lost.over_budget) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox_alone(outbox, read) }
}

/// Releases an outbox with all its entries. NULL is ignored.
///
/// Returns `PORTCULLIS_STATUS_BUSY`, and releases nothing, in a callback of this outbox.
///
/// # Safety
/// `outbox` is NULL or an outbox that was not released before, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_outbox_free(outbox: *mut OutboxHandle) -> Status {
    // SAFETY: the promise of the caller.
    guard(|| unsafe { raw::release_unless(outbox, |each| each.state.is_locked()) })
}
