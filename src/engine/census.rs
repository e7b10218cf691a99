//! Counts of live sessions by zone, protocol and state.

use std::collections::BTreeMap;

use super::Engine;
use crate::session::SLICE;
use crate::stats::SessionCount;

impl Engine {
    /// Counts all sessions by zone, protocol and state, in the order of zones and protocols. Their
    /// sum is [`Stats::sessions`](crate::Stats::sessions), unless sessions begin or end during the
    /// count.
    ///
    /// The table is walked in slices, as by [`Engine::for_each_session`]: a shard's lock is held
    /// for a few sessions at a time. A million sessions take some tens of milliseconds, so call
    /// this method every few seconds at most.
    #[must_use]
    pub fn count_sessions(&self) -> Vec<SessionCount> {
        let mut counts = BTreeMap::new();
        let mut slice = Vec::with_capacity(SLICE as usize);
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                let shard = &held.shard;
                slice.extend(shard.sessions_in(slots).map(|session| {
                    let slot = shard.slab.hot(session);
                    (slot.key.zone(), slot.key.protocol(), slot.state_name())
                }));
            }) {
                for kind in slice.drain(..) {
                    *counts.entry(kind).or_insert(0) += 1;
                }
            }
        }
        counts
            .into_iter()
            .map(|((zone, protocol, state), sessions)| SessionCount {
                zone,
                protocol,
                state,
                sessions,
            })
            .collect()
    }
}
