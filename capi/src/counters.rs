//! Counters and gauges by name.

use std::ffi::{CString, c_char, c_void};
use std::fmt::Write;
use std::sync::Arc;

use portcullis::Stats;
use portcullis::geneve::front::FrontStats;

use crate::engine::{EngineHandle, with_engine};
use crate::raw;
use crate::shared::Shared;
use crate::status::Status;

/// Receives a counter. `context` is the caller's; `name` is valid during the call. The function
/// returns normally: it neither throws nor jumps.
pub type CounterFn =
    Option<unsafe extern "C" fn(context: *mut c_void, name: *const c_char, value: u64)>;

/// Passes counters to a function under names of which several have a beginning in common.
struct Names<'a> {
    name: String,
    each: &'a mut dyn FnMut(&str, u64),
}

impl Names<'_> {
    fn one(&mut self, name: &str, value: u64) {
        (self.each)(name, value);
    }

    fn all<'n>(&mut self, beginning: &str, values: impl Iterator<Item = (&'n str, u64)>) {
        for (name, value) in values {
            self.name.clear();
            // A write to a string does not fail.
            let _ = write!(self.name, "{beginning}.{name}");
            (self.each)(&self.name, value);
        }
    }
}

fn of_engine(stats: &Stats, names: &mut Names<'_>) {
    let dropped = stats.dropped.iter().map(|(reason, n)| (reason.name(), *n));
    let ended = stats.sessions_ended.iter();
    let unsent = stats.resets_unsent.iter();
    let challenges = stats.challenge_events.iter();
    let helpers = stats.helper_events.iter();
    names.all(
        "forwarded",
        stats.forwarded.iter().map(|(class, n)| (class.name(), *n)),
    );
    names.one("forwarded_bytes", stats.forwarded_bytes);
    names.all("dropped", dropped);
    names.one("rejected", stats.rejected);
    names.one("fragments_held", stats.fragments_held);
    names.one("fragments_waiting", stats.fragments_waiting as u64);
    names.one("datagrams_given_up", stats.datagrams_given_up);
    names.one("sessions", stats.sessions as u64);
    names.one("max_sessions", stats.max_sessions as u64);
    names.one("sessions_opened", stats.sessions_opened);
    names.all("sessions_ended", ended.map(|(why, n)| (why.name(), *n)));
    names.one("sessions_adopted", stats.sessions_adopted);
    names.one("sessions_resumed", stats.sessions_resumed);
    names.one("sessions_bypassed", stats.sessions_bypassed);
    names.one("resets_sent", stats.resets_sent);
    names.all("resets_unsent", unsent.map(|(why, n)| (why.name(), *n)));
    names.all("challenges", challenges.map(|(what, n)| (what.name(), *n)));
    names.one("known_sources", stats.known_sources as u64);
    names.one("tombstones", stats.tombstones as u64);
    names.all("helpers", helpers.map(|(what, n)| (what.name(), *n)));
    names.one("control_sessions", stats.control_sessions as u64);
    names.one("control_memory", stats.control_memory as u64);
    names.one("expectations", stats.expectations as u64);
}

fn of_front(stats: &FrontStats, names: &mut Names<'_>) {
    let refused = stats.refused.iter();
    names.one("datagrams.received", stats.received);
    names.one("datagrams.returned", stats.returned);
    names.one("datagrams.rewritten", stats.rewritten);
    names.one("datagrams.replied", stats.replied);
    names.one("datagrams.told_too_big", stats.told_too_big);
    names.all(
        "datagrams.refused",
        refused.map(|(refusal, n)| (refusal.name(), *n)),
    );
    names.one("datagrams.dropped", stats.dropped);
    names.one("datagrams.unanswered", stats.unanswered);
    names.one("datagrams.held", stats.held);
    names.one("datagrams.waiting", stats.waiting);
    names.one("tunnel_resets", stats.resets);
    names.one("tunnel_resets_lost", stats.resets_without_tunnel);
    names.one("tunnel_ends", stats.tunnel_ends as u64);
    names.one("tunnel_ends_refused", stats.tunnel_ends_refused);
}

/// Passes every counter to `each`.
fn for_each(shared: &Shared, each: &mut dyn FnMut(&str, u64)) {
    let mut names = Names {
        name: String::new(),
        each,
    };
    of_engine(&shared.any_engine().stats(), &mut names);
    if let Ok(gateway) = shared.gateway() {
        of_front(&gateway.stats(), &mut names);
    }
}

/// Passes every counter and gauge of an engine to `each`: "sessions", "dropped.policy_deny",
/// "sessions_ended.timeout". For the engine of a gateway, those of its datagrams follow
/// ("datagrams.received").
///
/// The values are not of one instant while packets are decided, but no count is lost. No lock is
/// held during `each`. Any threads may call this at once.
///
/// # Safety
/// Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_counters(
    engine: *const EngineHandle,
    each: CounterFn,
    context: *mut c_void,
) -> Status {
    let list = |shared: &Arc<Shared>| {
        let each = each.ok_or(Status::Null)?;
        for_each(shared, &mut |name, value| {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: the promise of the caller; the name lives during the call.
            unsafe { each(context, name.as_ptr(), value) };
        });
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, list) }
}

/// Reads the counter or gauge of a name, or returns `PORTCULLIS_STATUS_NOT_FOUND`.
///
/// A call reads all counters: use `portcullis_engine_counters` for more than a few. Any threads may
/// call this at once.
///
/// # Safety
/// Pointers are NULL or valid; `name` ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_counter(
    engine: *const EngineHandle,
    name: *const c_char,
    value: *mut u64,
) -> Status {
    let find = |shared: &Arc<Shared>| {
        // SAFETY: the promise of the caller.
        let name = unsafe { raw::text(name) }?;
        let mut found = None;
        for_each(shared, &mut |each, value| {
            if each == name {
                found = Some(value);
            }
        });
        let found = found.ok_or(Status::NotFound)?;
        // SAFETY: the promise of the caller.
        unsafe { raw::put(value, found) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_engine(engine, find) }
}
