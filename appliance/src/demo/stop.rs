//! The end of a demo by a signal, and waits that notice it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::error::{DemoError, system};

/// Interval at which waits look for their event and for a signal.
const TURN: Duration = Duration::from_millis(10);

/// Flag that SIGINT, SIGTERM and SIGHUP set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// Returns an error if the system refuses a signal handler.
    pub(crate) fn on_signals() -> Result<Self, DemoError> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0)).map_err(system("signals"))?;
        }
        Ok(stop)
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// Returns [`DemoError::Interrupted`] after a signal.
    pub(crate) fn check(&self) -> Result<(), DemoError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(DemoError::Interrupted);
        }
        Ok(())
    }

    /// Waits until `probe` finds something, and returns it; `None` if the limit comes first.
    ///
    /// # Errors
    /// Returns the errors of `probe`, and [`DemoError::Interrupted`] after a signal.
    pub(crate) fn wait_for<T>(
        &self,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>, DemoError>,
    ) -> Result<Option<T>, DemoError> {
        let begun = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = probe()? {
                return Ok(Some(found));
            }
            if begun.elapsed() >= limit {
                return Ok(None);
            }
            thread::sleep(TURN.min(limit));
        }
    }

    /// Waits for this time.
    ///
    /// # Errors
    /// Returns [`DemoError::Interrupted`] after a signal.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), DemoError> {
        self.wait_for(time, || Ok(None::<()>)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_returns_what_it_finds_and_nothing_after_its_limit() {
        let stop = Stop::default();
        let mut turns = 0;
        let found = stop.wait_for(Duration::from_secs(60), || {
            turns += 1;
            Ok((turns == 3).then_some(turns))
        });
        assert_eq!(found.unwrap(), Some(3));
        let nothing = stop.wait_for(Duration::ZERO, || Ok(None::<()>));
        assert_eq!(nothing.unwrap(), None);
    }

    #[test]
    fn a_signal_ends_every_wait() {
        let stop = Stop::default();
        stop.0.store(true, Ordering::Relaxed);
        let error = stop.sleep(Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.exit_code(), 130);
        let failed = stop.wait_for(Duration::from_secs(60), || Ok(Some(())));
        assert!(matches!(failed, Err(DemoError::Interrupted)));
    }
}
