//! How often a reached limit is reported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Limit;
use crate::flow::Zone;
use crate::session::Micros;

/// Places for moments of reports. Two sources may share one, by a keyed hash; then one of them is
/// reported less often.
const PLACES: usize = 1_024;

/// The least time between two reports of a source and a limit.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

/// When a source and a limit were last reported. Bounded, and without locks.
#[derive(Debug)]
pub(crate) struct Notices {
    last: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl Notices {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            last: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher,
        }
    }

    /// Returns whether a limit that a source has reached is to be reported now.
    pub(crate) fn is_due(&self, zone: Zone, source: u128, limit: Limit, now: Micros) -> bool {
        let hash = self.hasher.hash_one((zone, source, limit)) as usize;
        let Some(last) = self.last.get(hash % PLACES) else {
            return false;
        };
        let pause = PAUSE.as_micros() as u64;
        let again =
            |before: u64| (before == 0 || now.0 >= before.saturating_add(pause)).then_some(now.0.max(1));
        last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, again)
            .is_ok()
    }
}
