//! Readings of one scrape.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portcullis::AsymmetryReport;
use portcullis::geneve::front::{EndpointStats, FrontStats};
use portcullis::{RuleUse, Stats};

use crate::run::census::Counted;
use crate::run::console::ConsoleCounters;
use crate::run::data_path::DataPath;
use crate::run::event_queue::LostEvents;
use crate::run::http::ListenerCounters;
use crate::run::observe::ObserveCounts;
use crate::run::process::ProcessReading;
use crate::run::reloads::Reloads;
use crate::run::view::{WallClock, ZoneNames};

/// State and counters that a scrape reads.
pub(super) struct Readings {
    pub(super) data_path: Arc<DataPath>,
    pub(super) stats: Stats,
    pub(super) tolerated: Vec<(&'static str, String, u64)>,
    /// Counts by limit and rule.
    pub(super) limited: Vec<(&'static str, String, u64)>,
    pub(super) rules: Vec<RuleUse>,
    pub(super) clock: WallClock,
    pub(super) asymmetry: AsymmetryReport,
    pub(super) datagrams: usize,
    pub(super) front: FrontStats,
    pub(super) endpoints: Vec<(String, String, EndpointStats)>,
    pub(super) stall_seconds: f64,
    pub(super) reasons: Vec<&'static str>,
    pub(super) reloads: ReloadReadings,
    pub(super) checkpoints: CheckpointReadings,
    pub(super) listeners: AllListenerCounters,
    pub(super) log: LogReadings,
    pub(super) observers: ObserveCounts,
    pub(super) uptime_seconds: f64,
    pub(super) process: ProcessReading,
    pub(super) counted: Counted,
    pub(super) zones: Arc<ZoneNames>,
}

/// Readings of reloads.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReloadReadings {
    pub(super) applied: u64,
    pub(super) refused: u64,
    pub(super) has_failed: bool,
    pub(super) waiting: usize,
}

impl ReloadReadings {
    pub(super) fn of(reloads: &Reloads) -> Self {
        Self {
            applied: reloads.applied(),
            refused: reloads.refused(),
            has_failed: reloads.has_failed(),
            waiting: reloads.state().waiting.len(),
        }
    }
}

/// Readings of checkpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckpointReadings {
    pub(super) written: u64,
    pub(super) failed: u64,
    pub(super) age: Option<Duration>,
}

/// Counters of the listeners.
#[derive(Clone, Default)]
pub(crate) struct AllListenerCounters {
    /// `health.listen`.
    pub(crate) health: Arc<ListenerCounters>,
    /// `health.tcp_listen`, which holds no connection.
    pub(crate) health_tcp: Arc<ListenerCounters>,
    /// `metrics.listen`, if it differs from `health.listen`.
    pub(crate) metrics: Arc<ListenerCounters>,
    /// `console.listen`.
    pub(crate) console: Arc<ListenerCounters>,
    /// Requests at `console.listen`.
    pub(in crate::run) console_requests: Arc<ConsoleCounters>,
}

/// Readings of the session log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogReadings {
    pub(super) written: u64,
    pub(super) dropped: u64,
    pub(super) lost: LostEvents,
    pub(super) is_running: bool,
    /// No new session is admitted, since the log cannot be written.
    pub(super) is_closed: bool,
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}
