//! Choice of the session of a full shard that is evicted for a new one.
//!
//! A full shard examines a bounded number of sessions, one class after the other. They are those at
//! the head of the wheel's list, which are closest to their end, and some at random, so that the
//! heaviest source is found wherever its sessions are. If none of these may be evicted, a row of
//! consecutive slots is examined; in a small shard these are all slots.
//!
//! Among the evictable sessions, the first choice is the zone that is furthest above its guarantee,
//! then the heaviest source. Then comes any session but a TCP handshake in a zone that has few of
//! these. The last criterion is the longest idle time; for closing sessions, the nearest end.
//!
//! Sources weigh in steps of a 64th of the table. Below one step all sources are equal: in a flood
//! from forged sources, which have one session each, a client with some connections would otherwise
//! be the heaviest.

use std::cmp::Reverse;

use super::EndReason;
use super::due::{Expired, Run};
use super::id::SlotId;
use super::shard::{Ended, Shard, Slab};
use super::time::Micros;
use super::wheel::behind;
use crate::flow::Zone;
use crate::limits::Subject;
use crate::packet::PROTOCOL_TCP;
use crate::track::EvictionClass;

/// Number of sessions that a full shard lets expire or reschedules before it evicts one.
const DUE: usize = 16;
/// Number of sessions at the head of a class that are examined.
const HEADS: usize = 8;
/// Number of random slots that are examined.
const RANDOM: usize = 8;
/// Number of consecutive slots that are examined if none of those may be evicted, or if the shard
/// has no more.
const ROW: usize = 32;

/// The classes of sessions that may be evicted, in order.
const CLASSES: [EvictionClass; 3] = [
    EvictionClass::Embryonic,
    EvictionClass::Closing,
    EvictionClass::Datagram,
];

/// A session that has ended for a new one.
pub(crate) struct Room {
    pub(crate) ended: Ended,
    /// The new session's zone has a place now; if not, another session took it.
    pub(crate) is_granted: bool,
}

/// The new session that needs room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) now: Micros,
}

/// The sessions among which a victim is sought.
#[derive(Debug, Clone, Copy)]
struct LookedAt<'a> {
    /// Number of sessions at the head of each class.
    heads: usize,
    /// Slots, some of which may be free.
    slots: &'a [u32],
}

/// The order of candidates: the greatest is evicted.
type Rank = (u32, u32, bool, Reverse<u64>);

/// Weight of a new session compared with those that it would evict.
struct Weight {
    zone: Zone,
    /// Sessions of the new session's zone above the guarantee.
    excess: u32,
    /// Sessions of the new session's source that prove nothing yet; 0 for a small source.
    source: u32,
}

impl Shard {
    /// Ends one session to make room for a new one; returns `None` if all sessions examined are
    /// worth more than the new one. An expired session comes first. The place of the session that
    /// ends is claimed for the new one's zone.
    ///
    /// A new session evicts a session of another zone only if that zone is further above its
    /// guarantee than the new session's zone. If its own source is heavy, it evicts no session of a
    /// lighter source. A source is heavy if it has half-open sessions for a 64th of the table, and
    /// at least 64 (or, for protocols without a handshake, evictable sessions).
    pub(crate) fn make_room(
        &mut self,
        newcomer: &Newcomer<'_>,
        mut spare: impl FnMut(&Slab, SlotId) -> Option<u32>,
    ) -> Option<Room> {
        let zone = newcomer.subject.key.zone();
        let mut spare = |slab: &mut Slab, slot| spare(slab, slot);
        for _ in 0..DUE {
            let mut run = Run::default();
            let mut ended = None;
            let step = self.expire(newcomer.now.tick(), &mut run, &mut spare, &mut ended);
            self.finish(run);
            match step {
                Expired::Ended(ended, _) => {
                    let is_granted = self.accounts.claim(zone);
                    return Some(Room {
                        ended: *ended,
                        is_granted,
                    });
                }
                Expired::Moved => {}
                Expired::Idle => break,
            }
        }
        let weight = Weight {
            zone,
            excess: self.accounts.zone(zone).excess(),
            source: self.accounts.weight_of_new(newcomer.subject),
        };
        if self.slots() as usize > ROW {
            let looked_at = LookedAt {
                heads: HEADS,
                slots: &self.random_slots(),
            };
            if let Some(room) = self.evict(&weight, looked_at, newcomer.now) {
                return Some(room);
            }
            // All sessions examined may belong to zones and sources that yield nothing to this one.
        }
        let looked_at = LookedAt {
            heads: 0,
            slots: &self.next_row(),
        };
        self.evict(&weight, looked_at, newcomer.now)
    }

    /// Ends the session that is evicted first among the sessions examined.
    fn evict(&mut self, weight: &Weight, looked_at: LookedAt<'_>, now: Micros) -> Option<Room> {
        for class in CLASSES {
            let Some(victim) = self.victim(class, weight, looked_at, now) else {
                continue;
            };
            let slot = self.slab.hot(victim);
            // A session that another engine may own by now is not reported to its ends.
            let reason = if slot.deadline <= now.tick() && !self.slab.is_to_ask(victim) {
                slot.end_of_life()
            } else {
                EndReason::Evicted
            };
            if self.accounts.hand_over(slot.key.zone(), weight.zone) {
                let ended = self.unlink(victim, reason);
                let is_granted = true;
                return Some(Room { ended, is_granted });
            }
        }
        None
    }

    /// Returns the session of a class that is evicted first, if any may be.
    fn victim(
        &mut self,
        class: EvictionClass,
        weight: &Weight,
        looked_at: LookedAt<'_>,
        now: Micros,
    ) -> Option<SlotId> {
        let mut best: Option<(Rank, SlotId)> = None;
        let mut head = self
            .wheel
            .earliest_of(class)
            .map(|due| SlotId(self.wheel.first(due)));
        for _ in 0..looked_at.heads {
            let Some(session) = head else { break };
            head = behind(self.slab.hot(session).links).map(SlotId);
            match self.rank(session, weight, now) {
                Some(rank) => best = best.max(Some((rank, session))),
                None => {
                    // A refreshed session may still be in the list in which it was scheduled long
                    // ago.
                    self.wheel.take(&mut self.slab, session.0);
                    self.wheel.schedule(&mut self.slab, session.0, class);
                }
            }
        }
        for session in looked_at.slots {
            let session = SlotId(*session);
            let slot = self.slab.hot.get(session.0 as usize);
            if slot.is_some_and(|slot| slot.in_use() && slot.eviction_class() == class)
                && let Some(rank) = self.rank(session, weight, now)
            {
                best = best.max(Some((rank, session)));
            }
        }
        best.map(|(_, session)| session)
    }

    /// Returns the rank of a session that a new one may evict.
    fn rank(&self, session: SlotId, weight: &Weight, now: Micros) -> Option<Rank> {
        let slot = self.slab.hot(session);
        if !slot.is_evictable(now) {
            return None;
        }
        let zone = slot.key.zone();
        let excess = self.accounts.zone(zone).excess();
        if zone != weight.zone && excess <= weight.excess {
            return None;
        }
        let (subject, _) = self.slab.counted(session);
        let source = self.accounts.source(subject).evictable();
        if source < weight.source {
            return None;
        }
        let end = match slot.eviction_class() {
            EvictionClass::Closing => u64::from(slot.deadline),
            // The deadline is a poor measure: lifetimes shrink while the table fills up.
            _ => slot.last().0,
        };
        // A flood of datagrams must not evict the few handshakes in progress.
        let is_spared = slot.eviction_class() == EvictionClass::Embryonic
            && slot.key.protocol() == PROTOCOL_TCP
            && self.accounts.zone(zone).has_few_half_open();
        let heaviness = source / self.accounts.heavy_source();
        Some((excess, heaviness, !is_spared, Reverse(end)))
    }

    /// Returns the next slots in the order of their numbers, so that repeated searches reach every
    /// slot.
    fn next_row(&mut self) -> [u32; ROW] {
        let slots = self.slots().max(1);
        std::array::from_fn(|_| {
            self.row = (self.row + 1) % slots;
            self.row
        })
    }

    /// Returns random slot numbers, some of which may be free.
    fn random_slots(&mut self) -> [u32; RANDOM] {
        let slots = u64::from(self.slots());
        std::array::from_fn(|_| {
            let mut x = self.random;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            self.random = x;
            (((x >> 32) * slots) >> 32) as u32
        })
    }
}
