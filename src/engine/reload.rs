//! A new configuration for a running engine, and what becomes of its sessions.
//!
//! Each shard holds its settings under its own lock, and its sessions are judged anew when these are exchanged: a packet
//! finds either the old settings and the session as they left it, or both new. What has no shard (the addresses of an error
//! in ICMP, budgets) takes the newest settings, which are exchanged first.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::Engine;
use super::helpers::Parent;
use super::settings::Settings;
use crate::alg::SessionEnds;
use crate::config::{Config, ConfigError, OnReload, TcpMode};
use crate::event::{EndReason, SessionRecord, Sink};
use crate::packet::{IpVersion, PROTOCOL_TCP};
use crate::policy::{Action, NewSession, Protocol, RuleId};
use crate::session::{Ended, Held, Mark, Micros, SessionId, Shard, Slot};

/// What a reload has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reload {
    /// Sessions that were judged anew.
    pub judged: usize,
    /// Those that ended since the new policy does not admit them.
    pub revoked: usize,
    /// Those that ended since their new lifetime is over.
    pub expired: usize,
    /// Those that live on although the new policy would not admit them, as `policy.on_reload = "keep"` says.
    pub kept: usize,
    /// Those that end at another time than before.
    pub retimed: usize,
}

/// What new settings make of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ends(EndReason),
    /// It lives on, under a rule, with a profile of lifetimes and a deadline.
    Lives {
        rule: RuleId,
        admitted: bool,
        profile: u8,
        deadline: u32,
    },
}

impl Engine {
    /// Exchanges policy and settings. No session is lost but those that the new policy would not admit, if
    /// [`policy.on_reload`](crate::config::PolicyConfig::on_reload) says so, and those whose lifetime is over by the new
    /// settings; `sink` is told of each, with a RST to both ends of established TCP ones. What was announced by a control
    /// session is judged as that one. Rules keep their counters by their names.
    ///
    /// Each session is looked at once, shard by shard; a shard is locked meanwhile.
    ///
    /// # Errors
    /// What is wrong with the configuration, or a key that only a start can change and whose value
    /// differs: sizes of tables, `zone_groups`, `engine.tunnel_references`. Nothing has changed
    /// then. [`Config::keep_running`] keeps the running values of such keys and names them.
    pub fn reload<S: Sink>(
        &self,
        config: &Config,
        now: Instant,
        sink: &mut S,
    ) -> Result<Reload, ConfigError> {
        let (previous, settings) = {
            let _one_at_a_time = self.reloading.lock();
            let previous = self.settings();
            let compiled = config.compile_after(Some((&previous.policy, &self.fixed)))?;
            let settings = Arc::new(Settings::new(compiled, self.hasher.clone(), Some(&previous)));
            settings.take_counts(&previous);
            *self.settings.write() = Arc::clone(&settings);
            self.screen.set(settings.screen);
            self.set_shares(&settings);
            (previous, settings)
        };
        let now = self.origin.micros(now);
        let families = self.helpers.families();
        let mut done = Reload::default();
        for number in 0..self.table.shards() {
            let ended = {
                let _one_at_a_time = self.reloading.lock();
                if !Arc::ptr_eq(&self.settings(), &settings) {
                    // A newer reload has come between: it judges the rest.
                    break;
                }
                let mut held = self.table.lock(number);
                let Held { shard, settings: own } = &mut *held;
                let before = std::mem::replace(own, Arc::clone(&settings));
                self.judge_anew(shard, (&before, &settings), number, now, &families, &mut done)
            };
            // No lock is held: the sink may call the engine.
            for ended in &ended {
                self.report_ended(number, ended, (now, None), sink);
            }
        }
        // What was counted by the old settings meanwhile.
        self.settings().take_counts(&previous);
        Ok(done)
    }

    /// Which sessions [`Engine::reload`] would end, and why, if it were called now with this configuration. Nothing
    /// changes.
    ///
    /// # Errors
    /// As those of [`Engine::reload`].
    pub fn preview(
        &self,
        config: &Config,
        now: Instant,
    ) -> Result<Vec<(SessionRecord, EndReason)>, ConfigError> {
        let _no_reload_meanwhile = self.reloading.lock();
        let previous = self.settings();
        let compiled = config.compile_after(Some((&previous.policy, &self.fixed)))?;
        let settings = Settings::new(compiled, self.hasher.clone(), Some(&previous));
        let now = self.origin.micros(now);
        let families = self.helpers.families();
        let mut would_end = Vec::new();
        for number in 0..self.table.shards() {
            let held = self.table.lock(number);
            let (shard, own) = (&held.shard, &held.settings);
            for session in shard.sessions() {
                let slot = shard.slab.hot(session);
                if slot.deadline <= now.tick() {
                    continue;
                }
                let id = self.table.id(number, session, slot.generation);
                let rule = RuleId(shard.slab.cold(session).rule);
                let fate = self.fate(slot, rule, id, (own, &settings), now, &families);
                if let Fate::Ends(reason) = fate {
                    would_end.extend(
                        self.record_of(shard, number, session)
                            .map(|record| (record, reason)),
                    );
                }
            }
        }
        Ok(would_end)
    }

    /// Judges all sessions of a shard by new settings, and ends those that it must. The caller holds its lock.
    fn judge_anew(
        &self,
        shard: &mut Shard,
        (previous, settings): (&Settings, &Settings),
        number: usize,
        now: Micros,
        families: &HashSet<SessionId>,
        done: &mut Reload,
    ) -> Vec<Ended> {
        let sessions: Vec<u32> = shard.sessions().collect();
        let mut all_ended = Vec::new();
        for session in sessions {
            let slot = shard.slab.hot(session);
            if slot.deadline <= now.tick() {
                // It is over, whatever the settings say.
                continue;
            }
            done.judged += 1;
            let id = self.table.id(number, session, slot.generation);
            let before = RuleId(shard.slab.cold(session).rule);
            match self.fate(slot, before, id, (previous, settings), now, families) {
                Fate::Ends(reason) => {
                    let ended = shard.remove(session, reason);
                    self.bury(number, &ended, now);
                    match reason {
                        EndReason::Revoked => done.revoked += 1,
                        _ => done.expired += 1,
                    }
                    all_ended.push(ended);
                }
                Fate::Lives {
                    rule,
                    admitted,
                    profile,
                    deadline,
                } => {
                    done.kept += usize::from(!admitted);
                    let cold = shard.slab.cold_mut(session);
                    cold.rule = rule.0;
                    cold.set(Mark::Former, !admitted);
                    let slot = shard.slab.hot_mut(session);
                    slot.profile = profile;
                    if slot.key.protocol() == PROTOCOL_TCP {
                        match settings.tcp(rule, slot.key.zone()).mode {
                            TcpMode::Strict => slot.track.set_strict(),
                            _ => slot.track.set_liberal(),
                        }
                        self.helpers
                            .under_rule(Parent { session: id, rule }, slot, &settings.ftp);
                    }
                    if deadline != slot.deadline {
                        done.retimed += 1;
                        let worth = slot.worth();
                        if shard.rearm(session, deadline, worth) {
                            self.table.note_tick(number, deadline);
                        }
                    }
                }
            }
        }
        all_ended
    }

    /// What new settings make of a session, whose shard's lock is held. `families` are the sessions that had live children
    /// before: their children keep them alive even if they end now.
    fn fate(
        &self,
        slot: &Slot,
        rule: RuleId,
        id: SessionId,
        (previous, settings): (&Settings, &Settings),
        now: Micros,
        families: &HashSet<SessionId>,
    ) -> Fate {
        let own = opening_query(slot);
        // A child is judged as the session that has announced it, whether that is still there or not.
        let asked = self
            .helpers
            .ends_of_parent(id)
            .map_or(own, |ends| opening_query_of(&ends));
        let decision = settings.policy.look_up(&asked);
        let decided = (decision.action == Action::Allow).then_some(decision.rule);
        if decided.is_none() && settings.on_reload == OnReload::End {
            return Fate::Ends(EndReason::Revoked);
        }
        let admitted = decided.is_some();
        let rule = decided.unwrap_or(rule);
        let profile = settings.profile(&own, rule);
        let lifetime = slot.lifetime();
        let before = previous.millis(slot.profile, lifetime);
        let after = settings.millis(profile, lifetime);
        // It counts from the last packet, as if the new lifetime had held then. Where something else has set the deadline,
        // such as a segment that cut it or one that did not refresh it, that stays, but for what is shorter now.
        let renewed = slot.last().deadline(after);
        let is_of_lifetime = slot.deadline.abs_diff(slot.last().deadline(before)) <= 1;
        let deadline = match (before == after, is_of_lifetime) {
            (true, _) => slot.deadline,
            (false, true) => renewed,
            (false, false) if after < before => slot.deadline.min(renewed),
            (false, false) => slot.deadline,
        };
        if deadline <= now.tick() && !families.contains(&id) {
            return Fate::Ends(slot.end_of_life());
        }
        Fate::Lives {
            rule,
            admitted,
            profile,
            deadline,
        }
    }
}

/// What the policy was asked of a control session.
pub(super) fn opening_query_of(ends: &SessionEnds) -> NewSession {
    NewSession {
        zone: ends.zone,
        src: ends.initiator.ip(),
        dst: ends.responder.ip(),
        protocol: PROTOCOL_TCP,
        src_port: Some(ends.initiator.port()),
        dst_port: Some(ends.responder.port()),
        icmp: None,
    }
}

/// What the policy was asked when a session was opened.
pub(super) fn opening_query(slot: &Slot) -> NewSession {
    let (key, initiator) = (&slot.key, slot.initiator());
    let has_ports = Protocol(key.protocol()).has_ports();
    let port = |end| has_ports.then(|| key.port(end));
    let version = if key.is_ipv6() {
        IpVersion::V6
    } else {
        IpVersion::V4
    };
    NewSession {
        zone: key.zone(),
        src: key.address(initiator),
        dst: key.address(initiator.opposite()),
        protocol: key.protocol(),
        src_port: port(initiator),
        dst_port: port(initiator.opposite()),
        icmp: key
            .icmp_kind()
            .map(|kind| kind.request_type(version))
            .or(key.icmp_message())
            .map(|icmp_type| (icmp_type, 0)),
    }
}
