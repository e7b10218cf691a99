//! Restart of a thread of the store that has failed.
//!
//! A panic is a fault of the program. It must neither end continuity unseen nor touch packets: it
//! is counted and shown, and the thread begins again after a pause.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::state::{Counted, StoreState};
use crate::output::notice;

/// Pause before a thread begins again.
const PAUSE: Duration = Duration::from_secs(1);
/// Step of the pause, in which the end is noticed.
const STEP: Duration = Duration::from_millis(10);

/// Runs `body` until it returns. After a panic, calls it again; its argument says whether it begins
/// again. `name` is that of the thread.
pub(super) fn supervise(
    name: &'static str,
    state: &StoreState,
    stop: &AtomicBool,
    mut body: impl FnMut(bool),
) {
    let mut is_again = false;
    // The state behind `body` is put right by its next call.
    while catch_unwind(AssertUnwindSafe(|| body(is_again))).is_err() {
        is_again = true;
        state.counters.add(Counted::ThreadFailed);
        state.lacks_records();
        state.troubles.note(
            name,
            "the thread has failed and begins again",
            Instant::now(),
        );
        notice(&format!(
            "error: store: {name}: the thread has failed and begins again"
        ));
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            thread::sleep(STEP);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
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
