//! Sessions that are saved while packets flow, for a start after a crash.
//!
//! A thread of its own writes one checkpoint after the other, so none begins while another one is
//! written. The file is complete at any time: it is written under another name, synced, and
//! renamed. Once the appliance ends, no checkpoint is put in place any more, since the sessions
//! that are saved then are newer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::Engine;

use super::data_path::DataPath;
use super::saved;
use super::settings::RunSettings;
use crate::output::notice;

/// Interval at which the thread checks whether a checkpoint is due.
const LOOK: Duration = Duration::from_millis(100);

/// Results of checkpoints, and permission for further ones.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    written: AtomicU64,
    failed: AtomicU64,
    /// Start of the last written checkpoint.
    newest: Mutex<Option<Instant>>,
    /// Stops a checkpoint that is being written.
    stop: AtomicBool,
    /// Set when no checkpoint may be put in place any more. Held while one is.
    ended: Mutex<bool>,
}

impl Checkpoints {
    /// Checkpoints that were written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Checkpoints that could not be written.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns the age of the newest checkpoint of this run, if there is one.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let newest = *self.newest.lock();
        newest.map(|begun| now.saturating_duration_since(begun))
    }

    /// Ends checkpoints: none is put in place after this, and one that is being written stops soon.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        *self.ended.lock() = true;
    }

    /// Writes a checkpoint of the sessions that are saved in `path` at the end. Returns false if
    /// the appliance has ended meanwhile.
    fn write(&self, engine: &Engine, path: &Path) -> io::Result<bool> {
        let [place, temporary] = saved::checkpoint_of(path);
        let begun = Instant::now();
        let written = saved::write(engine, &temporary, &self.stop);
        let ended = self.ended.lock();
        if *ended {
            let _ = std::fs::remove_file(&temporary);
            return Ok(false);
        }
        written?;
        saved::replace(&temporary, &place)?;
        // A file that an end saved and the start did not restore is older than this one.
        saved::set_aside(path)?;
        *self.newest.lock() = Some(begun);
        Ok(true)
    }
}

/// Schedule of checkpoints.
#[derive(Debug, Default)]
struct Schedule {
    /// Start and end of the last checkpoint.
    last: Option<(Instant, Instant)>,
}

impl Schedule {
    /// Returns whether a checkpoint is due: immediately at the start, then at every interval, but
    /// so that checkpoints take at most half of the time.
    fn is_due(&self, interval: Duration, now: Instant) -> bool {
        self.last.is_none_or(|(begun, ended)| {
            let took = ended.saturating_duration_since(begun);
            now.saturating_duration_since(begun) >= interval.max(took.saturating_mul(2))
        })
    }
}

/// Writer of checkpoints, on a thread of its own.
pub(super) struct CheckpointWriter<F> {
    pub(super) data_path: Arc<DataPath>,
    pub(super) checkpoints: Arc<Checkpoints>,
    /// Returns the settings in force.
    pub(super) settings: F,
}

impl<F: Fn() -> RunSettings + Send + 'static> CheckpointWriter<F> {
    /// Starts the thread. It writes checkpoints by the settings in force, once all workers have
    /// begun, and ends with `stop`.
    ///
    /// # Errors
    /// Returns an error if the system refuses a thread.
    pub(super) fn start(self, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || self.run(&stop))
    }

    fn run(&self, stop: &AtomicBool) {
        let mut schedule = Schedule::default();
        let mut has_failed = false;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            let settings = (self.settings)();
            let (Some(path), Some(interval)) = (settings.sessions_file, settings.checkpoint.0)
            else {
                continue;
            };
            let begun = Instant::now();
            let shared = &self.data_path.shared;
            if !shared.has_begun() || !schedule.is_due(interval, begun) {
                continue;
            }
            match self.checkpoints.write(&shared.engine, &path) {
                Ok(false) => return,
                Ok(true) => {
                    self.checkpoints.written.fetch_add(1, Ordering::Relaxed);
                    if has_failed {
                        notice(&format!(
                            "{}: checkpoints are written again",
                            path.display()
                        ));
                    }
                    has_failed = false;
                }
                Err(error) => {
                    self.checkpoints.failed.fetch_add(1, Ordering::Relaxed);
                    // A failure is reported once, not at every interval.
                    if !has_failed {
                        notice(&format!(
                            "warning: {}: no checkpoint: {error}",
                            path.display()
                        ));
                    }
                    has_failed = true;
                }
            }
            schedule.last = Some((begun, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_at_the_start_and_then_at_each_interval_but_not_all_the_time() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.is_due(10 * second, now));
        schedule.last = Some((now, now + second));
        assert!(!schedule.is_due(10 * second, now + 9 * second));
        assert!(schedule.is_due(10 * second, now + 10 * second));
        schedule.last = Some((now, now + 15 * second));
        assert!(!schedule.is_due(10 * second, now + 29 * second));
        assert!(schedule.is_due(10 * second, now + 30 * second));
    }
}
