//! The session log: a thread that writes a line for each session that has ended, behind a bounded queue.
//!
//! Workers put events into the queue ([`queue`]) and never wait. A disk that is full or slow, or a reader of standard output that
//! does not read, costs lines, which are counted: those that found the queue full by the sender, those that could not be written
//! by the output. What a line looks like is said in [`rows`], where it goes in [`output`].

mod counters;
pub(crate) mod output;
mod rows;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) use self::counters::LogCounters;
use self::counters::Running;
use self::output::Output;
pub(crate) use self::output::open;
use super::data_path::DataPath;
use super::event_queue::SessionEvent;
use super::settings::LogSettings;
use super::view::{Viewer, WallClock, ZoneNames};
use crate::output::notice;

/// How long a line may lie in the buffer before it is written, and how long the thread waits for an event.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long an output that fails is left alone.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a failing output is told of at most.
const SILENCE: Duration = Duration::from_secs(60);
/// After so many lines the buffer is written whatever comes.
const LINES: usize = 256;

/// What the log's thread needs.
pub(crate) struct SessionLog {
    pub(crate) settings: LogSettings,
    pub(crate) data_path: Arc<DataPath>,
    pub(crate) zones: Arc<ZoneNames>,
    pub(crate) counters: Arc<LogCounters>,
}

impl SessionLog {
    /// Writes what comes until all senders are gone or `stop` is set, then what is left in the queue.
    ///
    /// # Errors
    /// There can be no thread.
    pub(crate) fn start(
        self,
        events: Receiver<SessionEvent>,
        output: Output,
        stop: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("session-log".to_owned())
            .spawn(move || self.run(&events, output, &stop))
    }

    fn run(&self, events: &Receiver<SessionEvent>, output: Output, stop: &AtomicBool) {
        let _running = Running::new(&self.counters);
        let mut lines = Lines::new(output, &self.counters, stop);
        loop {
            match events.recv_timeout(lines.wait(Instant::now())) {
                Ok(event) => self.put(&event, &mut lines),
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if lines.is_due(Instant::now()) {
                lines.flush();
            }
        }
        for event in events.try_iter() {
            self.put(&event, &mut lines);
        }
        lines.finish();
    }

    fn put(&self, event: &SessionEvent, lines: &mut Lines<'_>) {
        self.data_path.shared.took(event);
        let policy = self.data_path.shared.engine.policy();
        let viewer = Viewer {
            data_path: &self.data_path,
            zones: &self.zones,
            policy: &policy,
            clock: WallClock::now(),
            now: Instant::now(),
        };
        if rows::put(&self.settings, &viewer, event, |line| lines.put(line)).is_err() {
            self.counters.add_dropped(1);
        }
    }
}

/// Whole lines on their way to an output that may fail.
struct Lines<'a> {
    output: Output,
    buffer: Vec<u8>,
    count: usize,
    /// When the first line in the buffer has waited long enough.
    due: Option<Instant>,
    counters: &'a LogCounters,
    /// Nobody waits any more.
    stop: &'a AtomicBool,
    /// A failure was told of, and nothing was written since.
    fails: bool,
    /// When a failure was told of.
    told: Option<Instant>,
}

impl<'a> Lines<'a> {
    fn new(output: Output, counters: &'a LogCounters, stop: &'a AtomicBool) -> Self {
        Self {
            output,
            buffer: Vec::with_capacity(64 << 10),
            count: 0,
            // A header is written at once.
            due: Some(Instant::now()),
            counters,
            stop,
            fails: false,
            told: None,
        }
    }

    /// For how long there is nothing to do but to wait for events.
    fn wait(&self, now: Instant) -> Duration {
        self.due
            .map_or(PATIENCE, |due| due.saturating_duration_since(now))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.count >= LINES || self.due.is_some_and(|due| due <= now)
    }

    fn put(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.count += 1;
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    fn flush(&mut self) {
        let result = self.output.write(&self.buffer, self.counters);
        self.buffer.clear();
        self.count = 0;
        self.due = None;
        match result {
            Ok(()) => {
                if self.fails {
                    notice("session log: lines are written again");
                }
                self.fails = false;
                self.told = self.told.filter(|told| told.elapsed() < SILENCE);
            }
            Err(error) => {
                if self.told.is_none() {
                    notice(&format!("session log: lines are lost: {error}"));
                    self.told = Some(Instant::now());
                    self.fails = true;
                }
                if !self.stop.load(Ordering::Relaxed) {
                    thread::sleep(PAUSE);
                }
                // What was begun does not wait for another line.
                self.due = self.output.has_begun().then(|| Instant::now() + PATIENCE);
            }
        }
    }

    fn finish(mut self) {
        self.flush();
        self.output.give_up(self.counters);
    }
}
