//! A new configuration for a running engine, and its effect on sessions.
//!
//! Each shard holds its settings under its own lock. The settings are exchanged in one step, and
//! the shard's sessions are then judged in slices, between which the lock is released. The first
//! packet of a session that is not judged yet judges the session first. A packet is therefore
//! processed with either the old settings and the unchanged session, or the new settings and the
//! judged session. Work outside any shard (the addresses of an ICMP error, budgets) uses the newest
//! settings, which are exchanged first.
//!
//! A shard is under one reload at a time. A newer reload that reaches a shard with sessions that
//! are not judged yet completes the older reload first.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Engine;
use super::query::{opening_query, opening_query_of};
use super::record::NotifiedSender;
use super::settings::Settings;
use crate::config::{Config, ConfigError, OnReload};
use crate::event::Sink;
use crate::flow::FlowKey;
use crate::packet::PROTOCOL_TCP;
use crate::policy::RuleId;
use crate::policy::handling::TcpMode;
use crate::session::{
    EndReason, Ended, Held, Judging, KeyPlace, Mark, Micros, SLICE, SessionId, SessionRecord,
    ShardId, Slot, SlotId, Tally, Unjudged,
};

/// Result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reload {
    /// Sessions that were judged again.
    pub judged: usize,
    /// Sessions that ended because the new policy does not admit them.
    pub revoked: usize,
    /// Sessions that ended because their new lifetime is over.
    pub expired: usize,
    /// Sessions that continue although the new policy would not admit them, because
    /// `policy.on_reload` is `"keep"`.
    pub kept: usize,
    /// Sessions whose deadline has changed.
    pub retimed: usize,
}

/// Fate of a session under new settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ends(EndReason),
    /// The session continues under a rule, with a profile of lifetimes and a deadline.
    Lives {
        rule: RuleId,
        admitted: bool,
        profile: u8,
        deadline: u32,
    },
}

/// Outcome of judging a slice of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) ended: usize,
    pub(super) kept: usize,
}

/// Outcome of an attempt to put new settings in force in a shard.
enum Exchange {
    Done,
    /// An older reload must still judge sessions in the shard.
    Waits,
    /// The shard has newer settings.
    Overtaken,
}

/// A change of the settings by which sessions are judged.
struct Change<'a> {
    previous: &'a Settings,
    settings: &'a Settings,
    now: Micros,
    /// Sessions that had live children before: their children keep them alive.
    families: &'a HashSet<SessionId>,
}

impl Engine {
    /// Replaces the policy and the settings.
    ///
    /// A session ends only if the new policy would not admit it and
    /// [`policy.on_reload`](crate::config::PolicyConfig::on_reload) requires that, or if its
    /// lifetime is over under the new settings. `sink` receives each of these, with a RST to both
    /// ends of established TCP sessions. An announced session is judged as its control session.
    /// Rules keep their counters by their names.
    ///
    /// Each session is judged once, as of `now`: by this call, in slices of a few sessions under
    /// the lock of their shard, or by its first packet, whichever is earlier. The sink of the
    /// judging call receives the sessions that end. [`Reload`] counts both. Sessions that end for
    /// another reason in the meantime are not judged. A reload that is overtaken by a newer one
    /// judges the shards that it has reached, and leaves the others to the newer one.
    ///
    /// A call makes up to two RSTs for each session that ends. An [`Outbox`](crate::Outbox) has
    /// room for all of them.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid, or if a key that only a restart can change
    /// differs: sizes of tables, `zone_groups`, `engine.tunnel_references`. In that case nothing
    /// has changed. [`Config::keep_running`] keeps the running values of such keys and names them.
    pub fn reload<S: Sink>(
        &self,
        config: &Config,
        now: Instant,
        sink: &mut S,
    ) -> Result<Reload, ConfigError> {
        let (previous, settings) = {
            let _one_at_a_time = self.reloading.lock();
            let previous = self.settings();
            let settings = Arc::new(self.settings_after(config, &previous)?);
            settings.take_counts(&previous);
            self.reserve_rules(&settings);
            self.accounts.guarantee(&settings.zones, &settings.limits);
            *self.settings.write() = Arc::clone(&settings);
            self.screen.set(settings.screen);
            self.set_shares(&settings);
            (previous, settings)
        };
        let now = self.origin.micros(now);
        let families = Arc::new(self.helpers.families());
        let tally = Arc::new(Tally::default());
        for shard_id in self.table.shard_ids() {
            loop {
                let judging = |previous| Judging {
                    previous,
                    families: Arc::clone(&families),
                    now,
                    tally: Arc::clone(&tally),
                };
                match self.exchange(shard_id, &settings, judging) {
                    Exchange::Done => break,
                    // An older reload has not judged all sessions of this shard.
                    Exchange::Waits => while self.judge_slice(shard_id, None, sink).is_some() {},
                    Exchange::Overtaken => return Ok(self.end_reload(&previous, &tally)),
                }
            }
            while self.judge_slice(shard_id, Some(&tally), sink).is_some() {}
        }
        Ok(self.end_reload(&previous, &tally))
    }

    /// Takes over the counts that the previous settings have added since the exchange.
    fn end_reload(&self, previous: &Settings, tally: &Tally) -> Reload {
        self.settings().take_counts(previous);
        Reload {
            judged: tally.judged.load(Ordering::Relaxed),
            revoked: tally.revoked.load(Ordering::Relaxed),
            expired: tally.expired.load(Ordering::Relaxed),
            kept: tally.kept.load(Ordering::Relaxed),
            retimed: tally.retimed.load(Ordering::Relaxed),
        }
    }

    /// Puts new settings in force in a shard, whose sessions are to be judged from then on. All
    /// memory is allocated before the shard is locked.
    fn exchange(
        &self,
        shard_id: ShardId,
        settings: &Arc<Settings>,
        judging: impl FnOnce(Arc<Settings>) -> Judging<Settings>,
    ) -> Exchange {
        let _one_at_a_time = self.reloading.lock();
        if !Arc::ptr_eq(&self.settings(), settings) {
            return Exchange::Overtaken;
        }
        let (own, capacity) = {
            let held = self.table.lock(shard_id);
            (Arc::clone(&held.settings), held.shard.capacity())
        };
        // Only a reload exchanges the settings, so these are still the shard's.
        let judging = Arc::new(judging(own));
        let bits = Unjudged::bits(capacity);
        let mut held = self.table.lock(shard_id);
        if held.judging.is_some() {
            return Exchange::Waits;
        }
        held.settings = Arc::clone(settings);
        held.judging = Some(judging);
        let end = held.shard.slots();
        let _freed_without_the_lock = held.shard.unjudged.begin(end, bits);
        drop(held);
        Exchange::Done
    }

    /// Judges the next sessions of a shard under a reload, and reports those that end to `sink`.
    /// Returns the outcome; `None` if the shard is under no reload, or under a reload other than
    /// that of `tally`.
    pub(super) fn judge_slice<S: Sink>(
        &self,
        shard_id: ShardId,
        tally: Option<&Arc<Tally>>,
        sink: &mut S,
    ) -> Option<Slice> {
        let mut ended = Vec::with_capacity(SLICE as usize);
        let mut held = self.table.lock(shard_id);
        let judging = held.judging.clone()?;
        if tally.is_some_and(|tally| !Arc::ptr_eq(tally, &judging.tally)) {
            return None;
        }
        let mut looked_at = 0;
        if let Some(slice) = held.shard.unjudged.next_slice() {
            for session in slice.clone().map(SlotId) {
                if held.shard.unjudged.contains(session) && held.shard.slab.hot(session).in_use() {
                    looked_at += 1;
                    ended.extend(self.judge_session(&mut held, &judging, shard_id, session));
                }
            }
            held.shard.unjudged.end_slice(&slice);
        }
        let over = held.shard.unjudged.next_slice().is_none();
        // These are freed once the lock is released: they may hold the last reference to large
        // settings.
        let _freed = over.then(|| (held.judging.take(), held.shard.unjudged.end()));
        match tally {
            Some(_) => self.table.give_way(shard_id, held),
            // Expiry, by a worker.
            None => self.table.hand_over(shard_id, held),
        }
        // No lock is held: the sink may call the engine.
        if !ended.is_empty() {
            sink.ends_follow(ended.len());
        }
        for ended in &ended {
            self.report_ended(shard_id, ended, NotifiedSender::nobody(judging.now), sink);
        }
        Some(Slice {
            ended: ended.len(),
            kept: looked_at - ended.len(),
        })
    }

    /// Judges the session of a packet before the packet, if a reload has not reached it yet.
    /// Returns the session if it ends; the caller reports it once the lock is released.
    #[cold]
    #[inline(never)]
    pub(super) fn judge_first(
        &self,
        held: &mut Held<Settings>,
        place: KeyPlace,
        key: &FlowKey,
    ) -> Option<Ended> {
        let judging = held.judging.clone()?;
        let session = held.shard.find(place.hash, key)?;
        if !held.shard.unjudged.contains(session) {
            return None;
        }
        self.judge_session(held, &judging, place.shard, session)
    }

    /// Judges a session as [`Engine::judge_first`] does, for a caller that cannot report its end. A
    /// session that ends is left to the reload. Returns whether the session ends; if so, the caller
    /// treats it as gone.
    pub(super) fn is_to_end(
        &self,
        held: &mut Held<Settings>,
        place: KeyPlace,
        session: SlotId,
    ) -> bool {
        let Some(judging) = held.judging.clone() else {
            return false;
        };
        if !held.shard.unjudged.contains(session) {
            return false;
        }
        let ends = matches!(
            self.fate_in(held, &judging, place.shard, session),
            Some(Fate::Ends(_))
        );
        if !ends {
            self.judge_session(held, &judging, place.shard, session);
        }
        ends
    }

    /// Compiles a configuration into settings that follow others.
    fn settings_after(
        &self,
        config: &Config,
        previous: &Settings,
    ) -> Result<Settings, ConfigError> {
        let compiled = config.compile_after(Some((&previous.policy, &self.fixed)))?;
        let memory = compiled.memory();
        Settings::new(
            compiled,
            self.hasher.clone(),
            &self.accounts,
            Some(previous),
        )
        .map_err(|lack| memory.error(config, lack))
    }

    /// Returns the sessions that [`Engine::reload`] would end, and the reasons, if it were called
    /// now with this configuration. Nothing changes.
    ///
    /// # Errors
    /// See [`Engine::reload`].
    pub fn preview(
        &self,
        config: &Config,
        now: Instant,
    ) -> Result<Vec<(SessionRecord, EndReason)>, ConfigError> {
        let _no_reload_meanwhile = self.reloading.lock();
        let previous = self.settings();
        let settings = self.settings_after(config, &previous)?;
        let now = self.origin.micros(now);
        let families = self.helpers.families();
        let mut would_end = Vec::new();
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                let held: &Held<Settings> = held;
                for session in held.shard.sessions_in(slots) {
                    let Some((slot, rule)) = self.after_reload(held, shard_id, session) else {
                        continue;
                    };
                    let id = self.table.id(shard_id, session, slot.generation);
                    if slot.deadline <= now.tick() && !families.contains(&id) {
                        continue;
                    }
                    let change = Change {
                        previous: &held.settings,
                        settings: &settings,
                        now,
                        families: &families,
                    };
                    if let Fate::Ends(reason) = self.fate(&slot, rule, id, &change, false) {
                        let record = self.record_of(&held.shard, shard_id, session);
                        would_end.extend(record.map(|record| (record, reason)));
                    }
                }
            }) {}
        }
        Ok(would_end)
    }

    /// Returns a session and its rule as the current reload of its shard will leave them; `None` if
    /// the reload ends it.
    fn after_reload(
        &self,
        held: &Held<Settings>,
        shard_id: ShardId,
        session: SlotId,
    ) -> Option<(Slot, RuleId)> {
        let mut slot = *held.shard.slab.hot(session);
        let before = RuleId(held.shard.slab.cold(session).rule);
        let judging = held.judging.as_ref();
        let Some(judging) = judging.filter(|_| held.shard.unjudged.contains(session)) else {
            return Some((slot, before));
        };
        match self.fate_in(held, judging, shard_id, session) {
            None => Some((slot, before)),
            Some(Fate::Ends(_)) => None,
            Some(Fate::Lives {
                rule,
                profile,
                deadline,
                ..
            }) => {
                (slot.profile, slot.deadline) = (profile, deadline);
                Some((slot, rule))
            }
        }
    }

    /// Returns the fate of a session under the current reload of its shard; `None` if the session
    /// was already over, regardless of the settings.
    fn fate_in(
        &self,
        held: &Held<Settings>,
        judging: &Judging<Settings>,
        shard_id: ShardId,
        session: SlotId,
    ) -> Option<Fate> {
        let slot = held.shard.slab.hot(session);
        let id = self.table.id(shard_id, session, slot.generation);
        // A control session continues with its children.
        if slot.deadline <= judging.now.tick() && !judging.families.contains(&id) {
            return None;
        }
        let rule = RuleId(held.shard.slab.cold(session).rule);
        let change = Change {
            previous: &judging.previous,
            settings: &held.settings,
            now: judging.now,
            families: &judging.families,
        };
        let is_stored = held.shard.slab.stored(session).is_stored();
        Some(self.fate(slot, rule, id, &change, is_stored))
    }

    /// Judges a session that the current reload of its shard has not judged yet. The caller holds
    /// the shard's lock. Returns the session if it ends.
    fn judge_session(
        &self,
        held: &mut Held<Settings>,
        judging: &Judging<Settings>,
        shard_id: ShardId,
        session: SlotId,
    ) -> Option<Ended> {
        held.shard.unjudged.set_judged(session);
        let fate = self.fate_in(held, judging, shard_id, session)?;
        let tally = &*judging.tally;
        Tally::count(&tally.judged);
        let Held {
            shard, settings, ..
        } = held;
        let (rule, admitted, profile, deadline) = match fate {
            Fate::Ends(reason) => {
                let ended = shard.remove(session, reason);
                self.bury(shard_id, &ended, judging.now);
                Tally::count(match reason {
                    EndReason::Revoked => &tally.revoked,
                    _ => &tally.expired,
                });
                return Some(ended);
            }
            Fate::Lives {
                rule,
                admitted,
                profile,
                deadline,
            } => (rule, admitted, profile, deadline),
        };
        if !admitted {
            Tally::count(&tally.kept);
        }
        let zone = shard.slab.hot(session).key.zone();
        shard.put_under(session, rule, settings.counts(zone, rule));
        shard
            .slab
            .cold_mut(session)
            .set(Mark::NoLongerAdmitted, !admitted);
        let origin = shard.slab.origin(session);
        let slot = shard.slab.hot_mut(session);
        slot.profile = profile;
        if slot.key.protocol() == PROTOCOL_TCP {
            match settings.tcp(rule, slot.key.zone()).mode {
                TcpMode::Strict => slot.track.set_strict(),
                _ => slot.track.set_liberal(),
            }
            let id = self.table.id(shard_id, session, slot.generation);
            let control = self.control_session(id, origin, rule);
            self.helpers.under_rule(control, slot, &settings.ftp);
        }
        if deadline != slot.deadline {
            Tally::count(&tally.retimed);
            let class = slot.eviction_class();
            if shard.rearm(session, deadline, class) {
                self.table.note_tick(shard_id, deadline);
            }
        }
        None
    }

    /// Returns the fate of a session under new settings. The lock of its shard is held. The end of
    /// a session that has a record in a store is left to [`Engine::expire`]. `families` are the
    /// sessions that had live children before: their children keep them alive even if they
    /// end now.
    fn fate(
        &self,
        slot: &Slot,
        rule: RuleId,
        id: SessionId,
        change: &Change<'_>,
        is_stored: bool,
    ) -> Fate {
        let Change {
            previous,
            settings,
            now,
            families,
        } = *change;
        let own = opening_query(slot);
        // A child is judged like the session that announced it, whether or not that session still
        // exists.
        let asked = self
            .helpers
            .ends_of_parent(id)
            .map_or(own, |ends| opening_query_of(&ends));
        let decision = settings.policy.look_up(&asked);
        let decided = decision.action.admits().then_some(decision.rule);
        if decided.is_none() && settings.on_reload == OnReload::End {
            return Fate::Ends(EndReason::Revoked);
        }
        let admitted = decided.is_some();
        let rule = decided.unwrap_or(rule);
        let profile = settings.profile(&own, rule);
        let lifetime = slot.lifetime();
        let before = previous.millis(slot.profile, lifetime);
        let after = settings.millis(profile, lifetime);
        // The lifetime counts from the last packet, as if the new lifetime had applied then. A
        // deadline set for another reason, such as a segment that cut it or one that did not
        // refresh it, is kept unless the new one is earlier.
        let renewed = slot.last().deadline(after);
        let is_of_lifetime = slot.deadline.abs_diff(slot.last().deadline(before)) <= 1;
        let deadline = match (before == after, is_of_lifetime) {
            (true, _) => slot.deadline,
            (false, true) => renewed,
            (false, false) if after < before => slot.deadline.min(renewed),
            (false, false) => slot.deadline,
        };
        if deadline <= now.tick() && !families.contains(&id) {
            if !is_stored {
                return Fate::Ends(slot.end_of_life());
            }
            // Expiry asks for its owner first.
            return Fate::Lives {
                rule,
                admitted,
                profile,
                deadline: now.tick() + 1,
            };
        }
        Fate::Lives {
            rule,
            admitted,
            profile,
            deadline,
        }
    }
}
