//! Prefetching what the sessions that begin in a batch will touch.

use super::Engine;
use super::candidate::Located;
use crate::flow::Flow;
use crate::session::NIL;

impl Engine {
    /// Prefetches the sessions of packets. For a packet that most likely has none, prefetches the
    /// slot that its session would take, and the counts of its sender.
    #[inline(always)]
    pub(super) fn prefetch_sessions(&self, located: &mut [Option<Located>]) {
        for located in located.iter_mut().flatten() {
            if self.table.prefetch_session(located.place) == NIL {
                let Flow { key, source } = &located.flow;
                located.source = Some(self.accounts.prefetch_counts(key, *source));
            }
        }
        for located in located.iter().flatten() {
            if let Some(source) = located.source {
                self.accounts.prefetch_source(source);
            }
        }
    }
}
