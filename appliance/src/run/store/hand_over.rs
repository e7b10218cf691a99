//! Hand-over of all sessions at the end of an appliance.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time to hand the sessions over at the end.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Hand-over of all sessions at the end.
#[derive(Debug, Default)]
pub(crate) struct HandOver {
    pub(super) asked: AtomicBool,
    pub(super) done: AtomicBool,
    /// Sessions that the store has not taken.
    pub(super) lost: AtomicU64,
}

impl HandOver {
    /// Hands all sessions over: each is written once more. Returns the outcome in words.
    pub(crate) fn run(&self) -> String {
        self.asked.store(true, Ordering::Relaxed);
        let until = Instant::now() + HAND_OVER;
        while !self.done.load(Ordering::Acquire) {
            if Instant::now() >= until {
                return format!(
                    "warning: not all sessions are handed over within {} s",
                    HAND_OVER.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        match self.lost.load(Ordering::Relaxed) {
            0 => "all sessions are handed over".to_owned(),
            lost => format!("warning: {lost} records of sessions could not be written"),
        }
    }
}
