//! Counters and gauges of an engine.

use super::Engine;
use crate::stats::{Openings, Stats};
use crate::track::EvictionClass;
use crate::verdict::DropReason;

impl Engine {
    /// Returns the counters and gauges. Takes each shard's lock for a moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.counters.snapshot();
        stats.sessions = self.table.len();
        stats.max_sessions = self.table.max_sessions();
        let settings = self.settings();
        stats.challenging_zones = self.challenging_zones(&settings);
        stats.known_sources = self.known_sources(&settings);
        stats.tombstones = self.graveyard.len();
        let datagrams = self.datagrams.gauges();
        stats.fragments_waiting = datagrams.held;
        stats.datagrams_given_up = datagrams.given_up;
        stats.helper_events = self.helpers.events();
        stats.control_sessions = self.helpers.controls();
        stats.control_memory = self.helpers.memory();
        stats.expectations = self.helpers.expectations().len();
        if let Some(questions) = &self.questions {
            stats.questions = questions.stats();
        }
        let mut by_class = [0; EvictionClass::ALL.len()];
        for shard in self.table.shard_ids() {
            let held = self.table.lock(shard);
            for (count, class) in by_class.iter_mut().zip(EvictionClass::ALL) {
                *count += held.shard.count(class);
            }
        }
        stats.sessions_by_worth = EvictionClass::ALL.into_iter().zip(by_class).collect();
        stats
    }

    /// Returns the number of sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    /// Returns the maximum number of sessions.
    #[must_use]
    pub const fn max_sessions(&self) -> usize {
        self.fixed.max_sessions as usize
    }

    /// Returns the number of assured sessions, which a full table keeps: connections that both ends
    /// have agreed on.
    ///
    /// A packet that opens a session may evict any other session that is idle for long enough.
    /// Takes no lock.
    #[must_use]
    pub fn assured_sessions(&self) -> usize {
        self.accounts.assured()
    }

    /// Returns the counters of new sessions. Takes no lock.
    #[must_use]
    pub fn openings(&self) -> Openings {
        Openings {
            opened: self.counters.sessions_opened(),
            refused: self.counters.dropped(DropReason::TableFull),
        }
    }

    /// Returns the number of fragmented datagrams that are tracked: those whose first fragment has
    /// arrived but that are incomplete.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.datagrams.gauges().datagrams
    }
}
