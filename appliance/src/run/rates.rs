//! Rates of sessions, from their counts at an earlier look.
//!
//! All clients of the control socket share one memory: 16 bytes a session, twice, whatever their
//! number. The first client that asks for rates creates the memory, and the end of the last one
//! frees it. Counts are read while the table is walked as for a list: no lock of a shard is held
//! longer. Clients that ask for rates wait for one another, which no packet does.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::{Engine, SessionId, SessionRecord};
use serde::{Deserialize, Serialize};

/// Most slots of the session table whose counts are kept, 16 bytes each.
const MAX_SLOTS: usize = 1 << 22;
/// Shortest time that a rate covers. A look that follows another one sooner is compared with the
/// one before that.
const MIN_SPAN: Duration = Duration::from_millis(500);

/// Traffic of a session or of a group of sessions in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct TrafficRate {
    /// Packets of both directions.
    pub(crate) packets: f64,
    /// IP bytes of both directions.
    pub(crate) bytes: f64,
}

/// Traffic of a session since an earlier look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moved {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Moved {
    /// Returns the rate of traffic that came in a time.
    pub(crate) fn rate(self, over: Duration) -> TrafficRate {
        let seconds = over.as_secs_f64().max(1e-6);
        TrafficRate {
            packets: self.packets as f64 / seconds,
            bytes: self.bytes as f64 / seconds,
        }
    }
}

/// Packets and bytes of both directions of a session, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Upper half of the session's number, which differs for each session of a slot. It is never 0
    /// for a session.
    generation: u32,
    /// Packets modulo 2^32.
    packets: u32,
    bytes: u64,
}

impl Counts {
    const NONE: Self = Self {
        generation: 0,
        packets: 0,
        bytes: 0,
    };

    fn of(session: &SessionRecord) -> Self {
        Self {
            generation: place(session.id).generation,
            packets: session.original.packets.wrapping_add(session.reply.packets),
            bytes: session.original.bytes.saturating_add(session.reply.bytes),
        }
    }
}

/// Position of a session's counts.
struct Place {
    slot: usize,
    generation: u32,
}

/// Returns the position of a session's counts. A number's lower half is that of a slot. If two
/// sessions had the same lower half, one of them would have no known rate.
const fn place(id: SessionId) -> Place {
    let number = id.number();
    Place {
        slot: (number & 0xffff_ffff) as usize,
        generation: (number >> 32) as u32,
    }
}

/// Counts of all sessions at a moment, by slot.
#[derive(Debug, Default)]
struct Snapshot {
    at: Option<Instant>,
    counts: Vec<Counts>,
}

impl Snapshot {
    fn note(&mut self, id: SessionId, counts: Counts) {
        let slot = place(id).slot;
        if slot >= MAX_SLOTS {
            return;
        }
        if slot >= self.counts.len() {
            self.counts.resize(slot + 1, Counts::NONE);
        }
        if let Some(place) = self.counts.get_mut(slot) {
            *place = counts;
        }
    }

    /// Returns the traffic of a session since the snapshot; `None` if it had begun before and its
    /// counts are not known.
    fn moved(&self, id: SessionId, start: Instant, counts: Counts) -> Option<Moved> {
        let at = self.at?;
        let place = place(id);
        let known = self.counts.get(place.slot);
        let before = match known.filter(|known| known.generation == place.generation) {
            Some(before) => *before,
            None if start >= at && place.slot < MAX_SLOTS => Counts::NONE,
            None => return None,
        };
        Some(Moved {
            packets: u64::from(counts.packets.wrapping_sub(before.packets)),
            bytes: counts.bytes.saturating_sub(before.bytes),
        })
    }
}

/// The last two snapshots.
#[derive(Debug, Default)]
struct Snapshots {
    base: Snapshot,
    recent: Snapshot,
}

impl Snapshots {
    /// Begins a look. Returns whether it makes a new snapshot, `recent`; rates follow from `base`.
    fn begin(&mut self, now: Instant) -> bool {
        let is_soon = self
            .recent
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < MIN_SPAN);
        if !is_soon {
            std::mem::swap(&mut self.base, &mut self.recent);
            self.recent.counts.clear();
            self.recent.at = Some(now);
        }
        !is_soon
    }
}

/// Outcome of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Time that the rates cover; `None` for the first look, which has no rates.
    pub(crate) over: Option<Duration>,
}

/// Counts of sessions at the last looks.
#[derive(Debug, Default)]
pub(crate) struct RateMemory(Mutex<Snapshots>);

impl RateMemory {
    /// Calls `each` with every session, ended ones included, and its traffic since an earlier look,
    /// if that is known.
    pub(crate) fn walk(
        &self,
        engine: &Engine,
        mut each: impl FnMut(&SessionRecord, Option<Moved>),
    ) -> Look {
        let mut snapshots = self.0.lock();
        let now = Instant::now();
        let is_new = snapshots.begin(now);
        let Snapshots { base, recent } = &mut *snapshots;
        engine.for_each_session(|session| {
            let counts = Counts::of(session);
            each(session, base.moved(session.id, session.start, counts));
            if is_new {
                recent.note(session.id, counts);
            }
        });
        Look {
            over: base.at.map(|at| now.saturating_duration_since(at)),
        }
    }
}

/// Memory of rates that exists while a client holds it.
#[derive(Debug, Default)]
pub(crate) struct SharedRates(Mutex<Weak<RateMemory>>);

impl SharedRates {
    /// Returns the memory, and creates it if no client holds it.
    pub(crate) fn hold(&self) -> Arc<RateMemory> {
        let mut held = self.0.lock();
        held.upgrade().unwrap_or_else(|| {
            let memory = Arc::default();
            *held = Arc::downgrade(&memory);
            memory
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn id(generation: u64, slot: u64) -> SessionId {
        SessionId::from_number(generation << 32 | slot).unwrap()
    }

    fn counts(generation: u32, packets: u32, bytes: u64) -> Counts {
        Counts {
            generation,
            packets,
            bytes,
        }
    }

    #[test]
    fn traffic_counts_from_the_snapshot_or_from_the_start_of_the_session() {
        let at = Instant::now();
        let before = at - Duration::from_secs(9);
        let mut snapshot = Snapshot::default();
        let unknown = snapshot.moved(id(1, 0), before, counts(1, 3, 300));
        assert_eq!(unknown, None, "there was no look before");
        snapshot.at = Some(at);
        snapshot.note(id(1, 7), counts(1, u32::MAX, 5_000));
        let moved = |id, start, counts| {
            let moved = snapshot.moved(id, start, counts);
            moved.map(|moved| (moved.packets, moved.bytes))
        };
        assert_eq!(
            moved(id(1, 7), before, counts(1, 2, 5_100)),
            Some((3, 100)),
            "packets wrap"
        );
        assert_eq!(
            moved(id(2, 7), at, counts(2, 2, 80)),
            Some((2, 80)),
            "a new session in the slot of an ended one"
        );
        assert_eq!(
            moved(id(2, 7), before, counts(2, 2, 80)),
            None,
            "restored or adopted with counts from an unknown time"
        );
        assert_eq!(
            moved(id(1, MAX_SLOTS as u64), at, counts(1, 2, 80)),
            None,
            "no counts are kept for it"
        );
    }

    #[test]
    fn no_slot_makes_a_snapshot_larger_than_its_bound() {
        let mut snapshot = Snapshot::default();
        snapshot.note(id(1, u64::from(u32::MAX)), counts(1, 1, 1));
        snapshot.note(id(1, MAX_SLOTS as u64), counts(1, 1, 1));
        assert_eq!(snapshot.counts.len(), 0);
        snapshot.note(id(1, MAX_SLOTS as u64 - 1), counts(1, 1, 1));
        assert_eq!(snapshot.counts.len(), MAX_SLOTS);
    }

    #[test]
    fn a_look_soon_after_another_one_keeps_the_base() {
        let start = Instant::now();
        let mut snapshots = Snapshots::default();
        let mut look = |millis: u64| {
            let is_new = snapshots.begin(start + Duration::from_millis(millis));
            (is_new, snapshots.base.at.map(|at| at - start))
        };
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(look(0), (true, None));
        assert_eq!(look(100), (false, None));
        assert_eq!(look(2_000), (true, millis(0)));
        assert_eq!(look(2_001), (false, millis(0)));
        assert_eq!(look(2_500), (true, millis(2_000)));
    }

    #[test]
    fn the_memory_lives_as_long_as_a_client_holds_it() {
        let rates = SharedRates::default();
        let first = rates.hold();
        let second = rates.hold();
        assert!(Arc::ptr_eq(&first, &second));
        first.0.lock().recent.at = Some(Instant::now());
        drop((first, second));
        assert!(rates.hold().0.lock().recent.at.is_none());
    }
}
