//! Restart of a thread that has failed.
//!
//! A panic is a fault of the program. It must neither go unseen nor end what the thread does: the
//! thread begins again after a pause.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::notice;

/// Pause before a thread begins again.
const PAUSE: Duration = Duration::from_secs(1);
/// Step of the pause, in which the end is noticed.
const STEP: Duration = Duration::from_millis(10);

/// Runs `body` until it returns. After a panic, calls `failed`, reports the failure of `name`, and
/// calls `body` again, unless `stop` is set. The argument of `body` says whether it begins again.
pub(super) fn supervise(
    name: &str,
    stop: &AtomicBool,
    mut failed: impl FnMut(),
    mut body: impl FnMut(bool),
) {
    let mut is_again = false;
    // The state behind `body` is put right by its next call.
    while catch_unwind(AssertUnwindSafe(|| body(is_again))).is_err() {
        is_again = true;
        failed();
        notice(&format!(
            "error: {name}: the thread has failed and begins again"
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
