//! Lines of sessions that live for long, at an interval.
//!
//! A thread visits all sessions once in each interval, and puts those that are older than the
//! interval into the queue of the log. It pauses where the queue's share is full, and after each
//! thousand sessions: a round may last longer than the interval then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portcullis::{SessionId, SessionRecord};

use super::super::data_path::DataPath;
use super::super::event_sink::EventSender;
use super::super::settings::LogSettings;

/// Sessions that are visited between two pauses.
const PORTION: u32 = 1_000;
/// Length of a pause: at most 200,000 sessions are visited in a second.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time until the thread ends with the appliance.
const PATIENCE: Duration = Duration::from_millis(100);

/// Thread that makes the lines.
pub(crate) struct Interim {
    interval: Duration,
    data_path: Arc<DataPath>,
}

impl Interim {
    /// Returns the thread, if the settings ask for such lines.
    pub(crate) fn new(settings: &LogSettings, data_path: &Arc<DataPath>) -> Option<Self> {
        settings.interim().map(|interval| Self {
            interval,
            data_path: Arc::clone(data_path),
        })
    }

    /// Makes lines until `stop` is set.
    ///
    /// # Errors
    /// Returns an error if the system refuses a thread.
    pub(crate) fn start(self, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("log-interim".to_owned())
            .spawn(move || self.run(&stop))
    }

    fn run(&self, stop: &AtomicBool) {
        let mut due = Instant::now() + self.interval;
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() < due {
                thread::sleep(PATIENCE.min(self.interval));
                continue;
            }
            due = Instant::now() + self.interval;
            self.round(stop);
        }
    }

    /// Visits all sessions.
    fn round(&self, stop: &AtomicBool) {
        let shared = &self.data_path.shared;
        let sender = EventSender::new(shared);
        let now = Instant::now();
        let is_old =
            |session: &SessionRecord| now.saturating_duration_since(session.start) >= self.interval;
        let mut visited: u32 = 0;
        shared.engine.for_each_session(|session| {
            visited = visited.wrapping_add(1);
            if visited.is_multiple_of(PORTION) {
                thread::sleep(PAUSE);
            }
            if is_old(session) && sender.records(session) {
                self.update(session.id, &sender, stop);
            }
        });
    }

    /// Puts a session into the queue, as it is after any wait for room. A session that has ended
    /// meanwhile is skipped: its last line is already in the queue.
    fn update(&self, id: SessionId, sender: &EventSender<'_>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let found = self.data_path.shared.engine.inspect(id, now);
            if found.is_none_or(|found| sender.updated(&found.record, now)) {
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}
