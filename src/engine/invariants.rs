//! Checks of the table for property tests and fuzzing.

use super::Engine;
use crate::limits::{Standing, Tally};

impl Engine {
    /// Returns every slot, list and entry of the table as text, to compare two tables; for property
    /// tests and fuzzing.
    #[doc(hidden)]
    #[must_use]
    pub fn table_state(&self) -> String {
        let state = |shard_id| {
            let held = self.table.lock(shard_id);
            let next = self.table.next_tick_of(shard_id);
            format!("{:?} {next:?}\n", held.shard.state())
        };
        self.table.shard_ids().map(state).collect()
    }

    /// Checks that the table's structures agree; for property tests and fuzzing.
    ///
    /// # Errors
    /// Returns a description of the inconsistency.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        self.datagrams.check_invariants()?;
        if let Some(questions) = &self.questions {
            questions.check_invariants()?;
        }
        let mut sessions = 0;
        let mut tally = Tally::default();
        let mut first = u32::MAX;
        for shard_id in self.table.shard_ids() {
            let held = self.table.lock(shard_id);
            let shard = &held.shard;
            shard
                .check_invariants()
                .map_err(|what| format!("shard {}: {what}", shard_id.0))?;
            sessions += shard.len();
            for each in shard.sessions() {
                let slot = shard.slab.hot(each);
                let standing = Standing::of(slot.key.protocol(), slot.eviction_class());
                let (subject, counts) = shard.slab.counted(each);
                tally.add(&self.accounts, subject, counts, standing);
            }
            let hint = self.table.next_tick_of(shard_id).unwrap_or(u32::MAX);
            let due = shard.sessions().map(|slot| shard.due_tick(slot)).min();
            if due.is_some_and(|tick| tick < hint) {
                return Err(format!(
                    "shard {}: due at {due:?}, announced {hint}",
                    shard_id.0
                ));
            }
            first = first.min(hint);
        }
        if sessions != self.table.len() || sessions > self.table.max_sessions() {
            return Err(format!(
                "{sessions} sessions, counted {}, bound {}",
                self.table.len(),
                self.table.max_sessions()
            ));
        }
        self.accounts.check_invariants(&tally)
    }
}
