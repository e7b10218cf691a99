//! Restart of a thread of the store that has failed.
//!
//! A panic must neither end continuity unseen nor touch packets: it is counted and shown.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::super::supervise;
use super::state::{Counted, StoreState};

/// Runs `body` until it returns. After a panic, calls it again; its argument says whether it begins
/// again. `name` is that of the thread.
pub(super) fn supervise(
    name: &'static str,
    state: &StoreState,
    stop: &AtomicBool,
    body: impl FnMut(bool),
) {
    let failed = || {
        state.counters.add(Counted::ThreadFailed);
        state.lacks_records();
        state.troubles.note(
            name,
            "the thread has failed and begins again",
            Instant::now(),
        );
    };
    supervise::supervise(&format!("store: {name}"), stop, failed, body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_begins_again_and_is_shown() {
        let state = StoreState::new(Instant::now());
        let stop = AtomicBool::new(false);
        let mut calls = Vec::new();
        supervise("store-sweep", &state, &stop, |is_again| {
            calls.push(is_again);
            assert!(calls.len() > 2, "fails twice");
        });
        assert_eq!(calls, [false, true, true]);
        assert_eq!(state.counters.of(Counted::ThreadFailed), 2);
        let shown = state.troubles.current(Instant::now());
        assert_eq!(
            shown,
            ["store-sweep: the thread has failed and begins again"]
        );
        assert!(state.take_lack(), "records may have been lost");
    }

    #[test]
    fn a_thread_that_fails_at_the_end_stays_ended() {
        let state = StoreState::new(Instant::now());
        let stop = AtomicBool::new(true);
        supervise("store-ask", &state, &stop, |is_again| {
            assert!(is_again, "fails")
        });
        assert_eq!(state.counters.of(Counted::ThreadFailed), 1);
    }
}
