//! End of a run: after a first request, packets are served for the drain time; a second request
//! ends the run immediately.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time at which the run ends.
#[derive(Debug, Default)]
pub(crate) struct Ending(Mutex<Option<Instant>>);

impl Ending {
    /// Requests the end, which occurs after the drain time, or immediately if the drain is already
    /// running. Returns the remaining time.
    pub(crate) fn ask(&self, drain: Duration, now: Instant) -> Duration {
        let mut due = self.0.lock();
        let at = match *due {
            None => now.checked_add(drain).unwrap_or(now),
            Some(_) => now,
        };
        *due = Some(at);
        at.saturating_duration_since(now)
    }

    /// Returns whether the run must end now.
    pub(crate) fn has_come(&self, now: Instant) -> bool {
        self.0.lock().is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_end_comes_after_the_drain_time() {
        let (ending, now) = (Ending::default(), Instant::now());
        assert!(!ending.has_come(now + HOUR), "nobody has asked");
        assert_eq!(ending.ask(HOUR, now), HOUR);
        assert!(!ending.has_come(now));
        assert!(ending.has_come(now + HOUR));
    }

    #[test]
    fn a_second_request_cuts_the_drain_time_short() {
        let (ending, now) = (Ending::default(), Instant::now());
        ending.ask(HOUR, now);
        assert_eq!(ending.ask(HOUR, now), Duration::ZERO);
        assert!(ending.has_come(now));
    }
}
