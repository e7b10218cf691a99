//! Prefetching what the sessions that begin in a batch will touch.

use super::Engine;
use super::candidate::Located;
use crate::session::NIL;

impl Engine {
    /// Prefetches the sessions of packets. For a packet that most likely has none, prefetches the
    /// slot that its session would take, and the counts of its sender.
    #[inline(always)]
    pub(super) fn prefetch_sessions<const N: usize>(&self, located: &[Option<Located>; N]) {
        let mut sources = [None; N];
        for (located, source) in located.iter().zip(&mut sources) {
            let Some(Located { flow, place }) = located else {
                continue;
            };
            if self.table.prefetch_session(*place) == NIL {
                *source = Some(self.accounts.prefetch_counts(&flow.key, flow.source));
            }
        }
        for source in sources.into_iter().flatten() {
            self.accounts.prefetch_source(source);
        }
    }
}
