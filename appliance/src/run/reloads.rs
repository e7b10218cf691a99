//! Outcomes of reloads of the configuration file.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Outcomes of reloads.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    state: Mutex<ReloadState>,
}

/// State after the last reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ReloadState {
    /// Reason for which the last file was rejected; `None` once a file is applied.
    pub(crate) failed: Option<String>,
    /// Keys of the file whose values wait for a restart.
    pub(crate) waiting: Vec<&'static str>,
}

impl Reloads {
    /// Returns the number of files that were applied.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Returns the number of rejected files.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the state after the last reload.
    pub(crate) fn state(&self) -> ReloadState {
        self.state.lock().clone()
    }

    /// Returns whether the last file was rejected: the configuration in force is an older one.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    /// Counts a rejected file.
    pub(super) fn refuse(&self, error: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.state.lock().failed = Some(error.to_owned());
    }

    /// Counts an applied file; `waiting` are its keys that wait for a restart.
    pub(super) fn apply(&self, waiting: Vec<&'static str>) {
        self.applied.fetch_add(1, Ordering::Relaxed);
        *self.state.lock() = ReloadState {
            failed: None,
            waiting,
        };
    }
}
