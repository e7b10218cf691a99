//! Session log: a thread that writes a line for each event, fed by a bounded queue.
//!
//! Workers put events into the queue ([`super::event_queue`]) and never wait. A full or slow disk,
//! or a stalled reader of standard output, causes lost lines, which are counted: by the sender if
//! the queue is full, by the output if a write fails. [`formats`] makes the lines,
//! [`destination`] writes them.

mod batch;
mod counters;
mod datagrams;
mod destination;
mod formats;
mod interim;
mod ipfix;
mod output;
mod stream;
mod syslog;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portcullis::{LogFault, LogGate, LogScope};

use self::batch::{Batch, Written};
pub(crate) use self::counters::LogCounters;
use self::counters::Running;
pub(crate) use self::destination::{Destination, open};
use self::formats::Formatter;
pub(crate) use self::interim::Interim;
use super::data_path::DataPath;
use super::event_queue::SessionEvent;
use super::settings::{LogSettings, Logged, LoggedDenied};
use super::view::{Viewer, WallClock, ZoneNames};
use crate::output::notice;

/// Maximum time that a line stays in the buffer, and that the thread waits for an event.
const PATIENCE: Duration = Duration::from_millis(200);
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_millis(100);
/// Shortest interval between reports of a failing output.
const SILENCE: Duration = Duration::from_secs(60);
/// Number of lines after which the buffer is written.
const LINES: usize = 256;

/// Parts that the log's thread uses.
pub(crate) struct SessionLog {
    pub(crate) settings: LogSettings,
    pub(crate) data_path: Arc<DataPath>,
    pub(crate) zones: Arc<ZoneNames>,
    pub(crate) counters: Arc<LogCounters>,
}

impl SessionLog {
    /// Writes events until all senders are gone or `stop` is set, then the rest of
    /// the queue.
    ///
    /// # Errors
    /// Returns an error if the system refuses a thread.
    pub(crate) fn start(
        self,
        events: Receiver<SessionEvent>,
        output: Destination,
        stop: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<()>> {
        if let Some(gate) = self.gate() {
            gate.set_scope(self.scope());
            // Until the output is known to be open.
            gate.report(LogFault::WriterFails);
        }
        thread::Builder::new()
            .name("session-log".to_owned())
            .spawn(move || self.run(&events, output, &stop))
    }

    fn run(&self, events: &Receiver<SessionEvent>, output: Destination, stop: &AtomicBool) {
        let gate = self.gate();
        let _running = Running::new(&self.counters, gate);
        let mut lines = Lines::new(output, &self.counters, stop);
        lines.gate = gate;
        let mut formatter = Formatter::new(&self.settings);
        loop {
            if let Some(gate) = gate {
                self.reopen(gate);
            }
            if lines.are_stuck() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                lines.flush();
                continue;
            }
            match events.recv_timeout(lines.wait(Instant::now())) {
                Ok(event) => self.put(&event, &mut formatter, &mut lines),
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if lines.is_due(Instant::now()) {
                lines.flush();
            }
        }
        for event in events.try_iter() {
            self.put(&event, &mut formatter, &mut lines);
        }
        lines.finish();
    }

    /// Returns the gate that is closed while the log cannot be written, if the settings ask for
    /// that.
    fn gate(&self) -> Option<&LogGate> {
        let gate = self.data_path.shared.engine.log_gate();
        self.settings.fail_closed.then_some(gate)
    }

    /// Returns the sessions of which the log has a line.
    fn scope(&self) -> LogScope {
        match (self.settings.sessions, self.settings.denied) {
            (Logged::All, _) => LogScope::All,
            (Logged::Marked, LoggedDenied::None) => LogScope::Marked,
            // An audited session has a line among the denied ones.
            (Logged::Marked, _) => LogScope::MarkedAndAudited,
        }
    }

    /// Clears the fault of the queue once few records of sessions wait. Called in each turn, not
    /// only after an event: a worker may report the fault after the writer has taken the last one.
    fn reopen(&self, gate: &LogGate) {
        if gate.has(LogFault::QueueFull) && self.data_path.shared.is_log_relieved() {
            gate.clear(LogFault::QueueFull);
        }
    }

    fn put(&self, event: &SessionEvent, formatter: &mut Formatter, lines: &mut Lines<'_>) {
        self.data_path.shared.took(event);
        let policy = self.data_path.shared.engine.policy();
        let viewer = Viewer {
            data_path: &self.data_path,
            zones: &self.zones,
            policy: &policy,
            clock: WallClock::now(),
            now: match event {
                // The row is of that time, and a session that ended since has a later line.
                SessionEvent::Updated(_, at) => *at,
                _ => Instant::now(),
            },
        };
        if formatter
            .put(&viewer, event, |item| lines.put(item))
            .is_err()
        {
            self.counters.add_dropped(1);
        }
    }
}

/// Complete lines for an output that may fail.
struct Lines<'a> {
    output: Destination,
    batch: Batch,
    /// Time at which the buffer must be written.
    due: Option<Instant>,
    counters: &'a LogCounters,
    /// Gate that is closed while lines cannot be written; they are kept until they can. Without a
    /// gate, they are lost.
    gate: Option<&'a LogGate>,
    /// Set when the appliance ends.
    stop: &'a AtomicBool,
    /// Whether a failure was reported, and nothing was written since.
    fails: bool,
    /// Time of the last report of a failure.
    reported: Option<Instant>,
}

impl<'a> Lines<'a> {
    fn new(output: Destination, counters: &'a LogCounters, stop: &'a AtomicBool) -> Self {
        Self {
            output,
            batch: Batch::default(),
            // A header is written immediately.
            due: Some(Instant::now()),
            counters,
            gate: None,
            stop,
            fails: false,
            reported: None,
        }
    }

    /// Returns the time until the buffer must be written.
    fn wait(&self, now: Instant) -> Duration {
        self.due
            .map_or(PATIENCE, |due| due.saturating_duration_since(now))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.batch.len() >= LINES || self.due.is_some_and(|due| due <= now)
    }

    fn put(&mut self, item: &[u8]) {
        self.batch.put(item, self.output.item_end());
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Returns whether lines are kept that could not be written. No others are taken meanwhile: the
    /// queue bounds them.
    fn are_stuck(&self) -> bool {
        self.batch.len() > 0
            && self
                .gate
                .is_some_and(|gate| gate.has(LogFault::WriterFails))
    }

    fn flush(&mut self) {
        let result = match self.gate {
            Some(_) if self.batch.len() == 0 => self.output.probe(self.counters),
            Some(_) => {
                let Written { items, result } = self.output.write(&self.batch, self.counters);
                self.batch.remove_first(items);
                result
            }
            None => {
                let written = self.output.write(&self.batch, self.counters);
                let result = written.drop_rest(self.batch.len(), self.counters);
                self.batch.clear();
                result
            }
        };
        // With a gate, the output is looked after without lines too.
        self.due = self.gate.map(|_| Instant::now() + PATIENCE);
        match result {
            Ok(()) => {
                if let Some(gate) = self.gate {
                    gate.clear(LogFault::WriterFails);
                }
                if self.fails {
                    notice("session log: lines are written again");
                }
                self.fails = false;
                self.reported = self
                    .reported
                    .filter(|reported| reported.elapsed() < SILENCE);
            }
            Err(error) => {
                let effect = match self.gate {
                    Some(gate) => {
                        gate.report(LogFault::WriterFails);
                        "no new session is admitted"
                    }
                    None => "lines are lost",
                };
                if self.reported.is_none() {
                    notice(&format!("session log: {effect}: {error}"));
                    self.reported = Some(Instant::now());
                    self.fails = true;
                }
                if !self.stop.load(Ordering::Relaxed) {
                    thread::sleep(PAUSE);
                }
                // A partly written line does not wait for another line.
                let is_due = self.gate.is_some() || self.output.has_begun();
                self.due = is_due.then(|| Instant::now() + PATIENCE);
            }
        }
    }

    fn finish(mut self) {
        self.flush();
        self.counters.add_dropped(self.batch.len() as u64);
        self.output.give_up(self.counters);
    }
}
