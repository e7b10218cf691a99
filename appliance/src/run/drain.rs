//! The end of a run: asked for once, packets are served for the drain time; asked for twice, no longer.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// When the run ends.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    due: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Ending {
    /// The end is asked for: it comes after the drain time, or at once if that runs already. Returns how long is left.
    pub(crate) fn ask(&self, drain: Duration, now: Instant) -> Duration {
        let mut due = self.due.lock();
        let at = match *due {
            None => now.checked_add(drain).unwrap_or(now),
            Some(_) => now,
        };
        *due = Some(at);
        self.changed.notify_all();
        at.saturating_duration_since(now)
    }

    /// Waits for the end, however long it takes until somebody asks.
    pub(crate) fn wait(&self) {
        let mut due = self.due.lock();
        loop {
            match *due {
                None => self.changed.wait(&mut due),
                Some(at) if at <= Instant::now() => return,
                Some(at) => {
                    self.changed.wait_until(&mut due, at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_after_the_drain_time_and_a_second_request_cuts_it_short() {
        let ending = Ending::default();
        let now = Instant::now();
        assert_eq!(ending.ask(Duration::from_secs(3_600), now), Duration::from_secs(3_600));
        assert_eq!(ending.ask(Duration::from_secs(3_600), now), Duration::ZERO);
        ending.wait();
    }

    #[test]
    fn whoever_waits_is_woken_when_the_time_has_passed() {
        let ending = Ending::default();
        let drain = Duration::from_millis(50);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| ending.wait());
            ending.ask(drain, begin);
        });
        assert!(begin.elapsed() >= drain);
    }
}
