//! The sweep for sessions that are due to be stored.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Engine;
use super::settings::Settings;
use crate::continuity::{Due, FlowName, StoreWhen, StoredSession, SweepCursor, SweepTime, Swept};
use crate::policy::RuleId;
use crate::session::{Held, Micros, Refresh, ShardId, SlotId, TICK};

/// Slots that are read under one hold of a shard's lock. None of their sessions ends.
const SLOTS: u32 = 64;

/// Conditions for a new record, in the units of the table.
struct Terms<'a> {
    when: &'a StoreWhen,
    refresh: Refresh,
    now: Micros,
}

impl<'a> Terms<'a> {
    fn new(when: &'a StoreWhen, now: Micros) -> Self {
        let ticks = when.refresh_interval.as_millis() / TICK.as_millis();
        Self {
            when,
            refresh: Refresh {
                ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
                bytes: u32::try_from(when.refresh_bytes).unwrap_or(u32::MAX),
                everything: when.everything,
            },
            now,
        }
    }

    /// Returns whether a record of the session in a slot is due.
    fn are_met(&self, held: &Held<Settings>, session: SlotId) -> bool {
        let slab = &held.shard.slab;
        let slot = slab.hot(session);
        if !slot.in_use() || !slot.assured() {
            return false;
        }
        let mark = slab.stored(session);
        if mark.is_stored() {
            return mark.is_due(slot, self.now, self.refresh);
        }
        let cold = slab.cold(session);
        let when = self.when;
        let rule = RuleId(cold.rule);
        self.now.since(cold.start()) >= when.min_age
            && (!when.resilient || held.settings.policy.is_resilient(rule))
            && (when.protocols.is_empty() || when.protocols.contains(&slot.key.protocol()))
            && when
                .rules
                .as_ref()
                .is_none_or(|rules| rules.contains(&rule))
    }
}

impl Engine {
    /// Calls `each` with the sessions of one slice of the table that are due to be stored, and goes
    /// on with the next slice at the next call, endlessly.
    ///
    /// A slice is 64 slots of one shard, whose lock is held while they are read. No lock is held
    /// while `each` runs. Does nothing unless `continuity.enabled` is set. A caller paces
    /// itself by [`Swept`], such as one round a second.
    pub fn sweep(
        &self,
        cursor: &mut SweepCursor,
        time: SweepTime,
        when: &StoreWhen,
        mut each: impl FnMut(&FlowName, &StoredSession),
    ) -> Swept {
        let mut swept = Swept::default();
        if !self.fixed.continuity {
            swept.round_ended = true;
            return swept;
        }
        let now = self.origin.micros(time.now);
        let shard_id = ShardId(cursor.shard);
        let settings = {
            let mut held = self.table.lock(shard_id);
            let terms = Terms::new(when, now);
            let end = held.shard.slots().min(cursor.slot.saturating_add(SLOTS));
            for session in (cursor.slot..end).map(SlotId) {
                swept.slots += 1;
                if terms.are_met(&held, session) {
                    cursor
                        .due
                        .extend(self.hand_out(&mut held, shard_id, session, now));
                }
            }
            cursor.slot = end;
            if end >= held.shard.slots() {
                cursor.slot = 0;
                cursor.shard = (cursor.shard + 1) % self.table.shards();
                swept.round_ended = cursor.shard == 0;
            }
            let settings = Arc::clone(&held.settings);
            self.table.give_way(shard_id, held);
            settings
        };
        swept.due = cursor.due.len();
        let mut scratch = None;
        for due in cursor.due.drain(..) {
            let (name, stored) = of_due(&settings, due, time.at, &mut scratch);
            each(&name, stored);
        }
        swept
    }

    /// Returns the record of a conversation's session for a store, as [`Engine::sweep`] would hand
    /// it out if it were due.
    #[must_use]
    pub fn find_stored(
        &self,
        flow: &FlowName,
        now: Instant,
        at: SystemTime,
    ) -> Option<StoredSession> {
        let now = self.origin.micros(now);
        let place = self.table.place(flow.key());
        let (settings, due) = {
            let mut held = self.table.lock(place.shard);
            let slot = held.shard.find(place.hash, flow.key())?;
            let due = self.hand_out(&mut held, place.shard, slot, now)?;
            (Arc::clone(&held.settings), due)
        };
        let mut scratch = None;
        of_due(&settings, due, at, &mut scratch);
        scratch
    }

    /// Requests a new record of a session at the next sweep, because one that was handed out did
    /// not reach the store.
    pub fn store_again(&self, flow: &FlowName) {
        let place = self.table.place(flow.key());
        let mut held = self.table.lock(place.shard);
        let shard = &mut held.shard;
        if let Some(slot) = shard.find(place.hash, flow.key())
            && let Some(mark) = shard.slab.stored_mut(slot)
        {
            mark.set_due();
        }
    }

    /// Copies a session out for the store, and notes that. `None` if the session is over.
    fn hand_out(
        &self,
        held: &mut Held<Settings>,
        shard_id: ShardId,
        session: SlotId,
        now: Micros,
    ) -> Option<Due> {
        let deadline = self.deadline_of(held, shard_id, session, now);
        if deadline <= now.tick() {
            return None;
        }
        let shard = &mut held.shard;
        let slot = *shard.slab.hot(session);
        let mark = shard.slab.stored_mut(session)?;
        mark.note(&slot, now);
        let epoch = mark.epoch().map_or(0, u64::from);
        Some(Due {
            key: slot.key,
            epoch,
            session: self.saved(shard, shard_id, session, deadline, now),
        })
    }
}

/// Names zone and rule of a session that is due. The record is that of `scratch`.
fn of_due<'s>(
    settings: &Settings,
    due: Due,
    at: SystemTime,
    scratch: &'s mut Option<StoredSession>,
) -> (FlowName, &'s StoredSession) {
    let stored =
        scratch.get_or_insert_with(|| StoredSession::new(SystemTime::UNIX_EPOCH, due.session));
    let zone = due.key.zone();
    stored.zone.clear();
    stored.zone.push_str(&settings.stored_zone_name(zone));
    stored.rule.clear();
    let rule = settings.policy.rule_name(RuleId(due.session.rule));
    stored.rule.push_str(rule);
    stored.saved_at = at;
    stored.epoch = due.epoch;
    stored.session = due.session;
    (FlowName::new(&due.key, &stored.zone), stored)
}
