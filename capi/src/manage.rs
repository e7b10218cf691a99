//! Reloads and sessions of an engine.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis::policy::RuleId;
use portcullis::{Reload, SessionId};

use crate::config::{self, ConfigIn, Refused};
use crate::engine::{EngineHandle, with_engine};
use crate::filter::{self, FilterIn};
use crate::names::copy_text;
use crate::outbox::{OutboxHandle, OutboxState, with_outbox};
use crate::raw::{self, Sized32};
use crate::session::SessionOut;
use crate::shared::Shared;
use crate::status::{Outcome, Status};

/// The result of a reload.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ReloadOut {
    /// `sizeof(portcullis_reload)`, set by the caller.
    pub size: u32,
    /// The number of keys whose new values need a restart. Their running values stay in force.
    pub needs_restart: u32,
    /// Sessions that were judged again.
    pub judged: u64,
    /// Sessions that ended because the new policy does not admit them.
    pub revoked: u64,
    /// Sessions that ended because their new lifetime is over.
    pub expired: u64,
    /// Sessions that go on although the new policy would not admit them (`policy.on_reload`).
    pub kept: u64,
    /// Sessions whose deadline has changed.
    pub retimed: u64,
    /// On failure, the reason. On success, the keys that need a restart, separated by commas. What
    /// is too long is cut.
    pub message: [c_char; 1024],
}

// SAFETY: `repr(C)`, with `size` first; every field is a number.
unsafe impl Sized32 for ReloadOut {
    const LEAST: usize = 1072;
}
const _: () = assert!(size_of::<ReloadOut>() == ReloadOut::LEAST);

impl ReloadOut {
    pub(crate) fn new(message: &str) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            needs_restart: 0,
            judged: 0,
            revoked: 0,
            expired: 0,
            kept: 0,
            retimed: 0,
            message: copy_text(message),
        }
    }

    pub(crate) fn done(reload: &Reload, needs_restart: &[&str]) -> Self {
        Self {
            needs_restart: needs_restart.len() as u32,
            judged: reload.judged as u64,
            revoked: reload.revoked as u64,
            expired: reload.expired as u64,
            kept: reload.kept as u64,
            retimed: reload.retimed as u64,
            ..Self::new(&needs_restart.join(", "))
        }
    }
}

/// Writes the result of a reload, or the reason of its failure.
///
/// # Safety
/// A pointer that is not NULL points to a writable struct of the size that it states.
pub(crate) unsafe fn report(result: Result<ReloadOut, Refused>, reload: *mut ReloadOut) -> Outcome {
    let (written, outcome) = match result {
        Ok(done) => (done, Ok(())),
        Err(refused) => (ReloadOut::new(&refused.message), Err(refused.status)),
    };
    // SAFETY: the promise of the caller.
    unsafe { raw::write(reload, &written) }?;
    outcome
}

/// Replaces the configuration of an engine, or changes nothing. `*reload` gets the result, or the
/// reason of a failure. Sessions that end are in `outbox` afterwards, with their RSTs.
///
/// Keys that only a new engine can change keep their running values. Any thread may call this,
/// with an outbox of its own, while others decide packets.
///
/// # Safety
/// Pointers are NULL or valid; `config` is as its fields say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_reload(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    config: *const ConfigIn,
    now_ns: u64,
    reload: *mut ReloadOut,
) -> Status {
    let change = |shared: &Shared, state: &mut OutboxState| {
        let (engine, in_force) = shared.engine_and_config()?;
        // Before the change: a struct that is too short gets no result.
        // SAFETY: the promise of the caller.
        unsafe { raw::write(reload, &ReloadOut::new("")) }?;
        // SAFETY: the promise of the caller.
        let result = unsafe { config::load(config) }.and_then(|mut config| {
            let mut in_force = in_force.lock();
            let needs_restart = config.keep_running(&in_force);
            let now = shared.clock.instant(now_ns);
            let done = engine.reload(&config, now, &mut state.outbox)?;
            *in_force = config;
            Ok(ReloadOut::done(&done, &needs_restart))
        });
        // SAFETY: the promise of the caller.
        unsafe { report(result, reload) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, change) }
}

/// Receives the record of a session, and returns 0; any other value ends the listing. `context` is
/// the caller's. The function returns normally: it neither throws nor jumps.
pub type SessionFn =
    Option<unsafe extern "C" fn(context: *mut c_void, session: *const SessionOut) -> i32>;

/// Passes the record of each session that matches `filter` to `each`; NULL matches every session.
///
/// The records are of different moments, while packets are decided. A session that lives during the
/// whole listing is listed exactly once. No lock is held during `each`, which may call the engine,
/// but not release it. Any threads may call this at once.
///
/// # Safety
/// Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_sessions(
    engine: *const EngineHandle,
    filter: *const FilterIn,
    now_ns: u64,
    each: SessionFn,
    context: *mut c_void,
) -> Status {
    let list = |shared: &Arc<Shared>| {
        let each = each.ok_or(Status::Null)?;
        let filter = match filter.is_null() {
            true => None,
            // SAFETY: not NULL; the rest is the promise of the caller.
            false => Some(unsafe { filter::read(filter) }?),
        };
        let now = shared.clock.instant(now_ns);
        let _ended_early = shared.any_engine().try_each_session(|session| {
            let matches = filter
                .as_ref()
                .is_none_or(|filter| filter.matches(session, now));
            if !matches {
                return ControlFlow::Continue(());
            }
            let record = SessionOut::new(session, &shared.clock);
            // SAFETY: the promise of the caller; the record lives during the call.
            match unsafe { each(context, &raw const record) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, list) }
}

/// Reads the record of a live session, or returns `PORTCULLIS_STATUS_NOT_FOUND`.
///
/// Any threads may call this at once.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_session(
    engine: *const EngineHandle,
    id: u64,
    now_ns: u64,
    session: *mut SessionOut,
) -> Status {
    let find = |shared: &Arc<Shared>| {
        let id = SessionId::from_number(id).ok_or(Status::NotFound)?;
        let now = shared.clock.instant(now_ns);
        let found = shared.any_engine().inspect(id, now);
        let found = found.ok_or(Status::NotFound)?;
        let record = SessionOut::new(&found.record, &shared.clock);
        // SAFETY: the promise of the caller.
        unsafe { raw::write(session, &record) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, find) }
}

/// Ends the sessions that match `filter`. Their records are in `outbox` afterwards, with RSTs to
/// both ends of established TCP sessions. `*ended` is their number; it may be NULL.
///
/// Any thread may call this, with an outbox of its own, while others decide packets.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_end_sessions(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    filter: *const FilterIn,
    now_ns: u64,
    ended: *mut u64,
) -> Status {
    let end = |shared: &Shared, state: &mut OutboxState| {
        // SAFETY: the promise of the caller.
        let filter = unsafe { filter::read(filter) }?;
        raw::check_if_asked(ended)?;
        let now = shared.clock.instant(now_ns);
        let engine = shared.engine()?;
        let count = engine.end_sessions(&filter, now, &mut state.outbox);
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(ended, count as u64) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, end) }
}

/// Writes the name of a rule of the policy in force, with a NUL at its end: "default" for the
/// default action.
///
/// Any threads may call this at once.
///
/// # Safety
/// Pointers are NULL or valid; `buffer` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_rule_name(
    engine: *const EngineHandle,
    rule: u16,
    buffer: *mut c_char,
    size: usize,
) -> Status {
    let name = |shared: &Arc<Shared>| {
        let policy = shared.any_engine().policy();
        // SAFETY: the promise of the caller.
        unsafe { raw::put_text(buffer, size, policy.rule_name(RuleId(rule))) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, name) }
}

/// Reads the number of the zone of a name in the configuration in force, or returns
/// `PORTCULLIS_STATUS_NOT_FOUND`. The zones of a group have the number that records state.
///
/// Any threads may call this at once. The call does not wait for a reload.
///
/// # Safety
/// Pointers are NULL or valid; `name` ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_zone(
    engine: *const EngineHandle,
    name: *const c_char,
    zone: *mut u16,
) -> Status {
    let find = |shared: &Arc<Shared>| {
        // SAFETY: the promise of the caller.
        let name = unsafe { raw::text(name) }?;
        let named = shared.any_engine().zone_named(name);
        let named = named.ok_or(Status::NotFound)?;
        // SAFETY: the promise of the caller.
        unsafe { raw::put(zone, named.0) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, find) }
}

/// Reads the wall-clock time, in nanoseconds since 1970, at which the next rule in force expires;
/// `UINT64_MAX` if none does. Then reload the configuration, with that time or a later one in its
/// `wall_ns`: rules expire only at a reload.
///
/// Any threads may call this at once. The call does not wait for a reload.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_next_rule_expiry(
    engine: *const EngineHandle,
    wall_ns: *mut u64,
) -> Status {
    let read = |shared: &Arc<Shared>| {
        let next = shared.any_engine().next_rule_expiry();
        let nanos = next.map_or(u64::MAX, |next| {
            let since = next.duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            })
        });
        // SAFETY: the promise of the caller.
        unsafe { raw::put(wall_ns, nanos) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, read) }
}
