//! Counters of the session log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis::{LogFault, LogGate};

/// Counters of lines that were written and of lines that were lost.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    written: AtomicU64,
    dropped: AtomicU64,
    runs: AtomicBool,
}

/// Values of the counters at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LoggedLines {
    pub(crate) written: u64,
    /// Lines that could not be written.
    pub(crate) dropped: u64,
}

impl LogCounters {
    /// Returns the values.
    pub(crate) fn values(&self) -> LoggedLines {
        LoggedLines {
            written: self.written.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Returns whether the thread that writes the log runs.
    pub(crate) fn is_running(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    pub(super) fn add_written(&self, lines: u64) {
        self.written.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Marks the thread of the log as running until the value is dropped. Without the thread, the gate
/// is closed.
pub(super) struct Running<'c> {
    counters: &'c LogCounters,
    gate: Option<&'c LogGate>,
}

impl<'c> Running<'c> {
    pub(super) fn new(counters: &'c LogCounters, gate: Option<&'c LogGate>) -> Self {
        counters.runs.store(true, Ordering::Relaxed);
        Self { counters, gate }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.runs.store(false, Ordering::Relaxed);
        if let Some(gate) = self.gate {
            gate.report(LogFault::NoWriter);
        }
    }
}
