//! Sessions out of the engine and into it: the engine's side of [`crate::snapshot`].

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::Engine;
use super::helpers::Parent;
use super::reload::{opening_query, opening_query_of};
use super::settings::Settings;
use crate::alg::SessionEnds;
use crate::config::{OnReload, TcpMode};
use crate::flow::{FlowKey, Variant, Zone};
use crate::lifetime::MAX_LIFETIME;
use crate::packet::PROTOCOL_TCP;
use crate::policy::{Action, RuleId};
use crate::session::{
    Cold, Held, Mark, Micros, PROTOCOLS_WITH_TRACKS, SLICE, SessionId, Shard, Slot, TICK, Tombstone,
    TunnelRef,
};
use crate::snapshot::{
    RestoreError, RestoreOptions, Restored, Saved, SavedControl, SavedSession, SavedState, SavedTombstone,
};
use crate::track::tcp::Track;

/// A record that was found sound, ready for the table.
struct Sound {
    key: FlowKey,
    slot: Slot,
    cold: Cold,
    tunnels: [TunnelRef; 2],
    parent: Option<SessionEnds>,
    control: SavedControl,
}

/// What became of a record.
enum Landed {
    Lives(SessionId),
    Expired,
    Refused,
    Present,
    NoRoom,
}

impl Engine {
    /// All sessions, what is remembered of ended ones, and what was announced, as one stream ([`crate::snapshot`]). `at` is
    /// the wall-clock time that `now` is.
    ///
    /// Shard by shard, each copied under its lock: packets go on meanwhile, and a session that changes after its shard was
    /// copied is saved as it was. For a stream that misses nothing, stop the packets first.
    #[must_use]
    pub fn save(&self, now: Instant, at: SystemTime) -> Vec<u8> {
        let _no_reload_meanwhile = self.reloading.lock();
        let mut saved = Saved::default();
        self.for_each_saved(now, |session| saved.sessions.push(*session));
        let moment = self.origin.micros(now);
        saved.tombstones = self
            .graveyard
            .all(moment)
            .iter()
            .map(|each| of_tombstone(each, moment))
            .collect();
        saved.expectations = self.helpers.expectations().export(now);
        let policy = self.policy();
        saved.rules = policy
            .numbered()
            .map(|(number, name)| (number.0, name.to_owned()))
            .collect();
        saved.to_stream(at)
    }

    /// Calls `each` with every session as it would be saved. No lock is held meanwhile. What is seen of
    /// sessions that come or go is as in [`Engine::for_each_session`].
    pub fn for_each_saved(&self, now: Instant, mut each: impl FnMut(&SavedSession)) {
        let now = self.origin.micros(now);
        let mut records = Vec::with_capacity(SLICE as usize);
        for number in 0..self.table.shards() {
            let mut walk = self.table.walk(number);
            while walk.next(|held, slots| {
                for session in held.shard.sessions_in(slots) {
                    let deadline = self.deadline_of(held, number, session, now);
                    if deadline > now.tick() {
                        records.push(self.saved(&held.shard, number, session, (deadline, now)));
                    }
                }
            }) {
                records.iter().for_each(&mut each);
                records.clear();
            }
        }
    }

    /// Takes over the sessions of a stream that [`Engine::save`] has written. `at` is the wall-clock time that `now` is:
    /// what has passed since the save is taken off each lifetime, and a clock that went back takes nothing off.
    ///
    /// A session is judged by this engine's policy, and by `policy.on_reload` where that would not admit it; lifetimes go
    /// on from where they were. Sessions that the engine has already stay as they are. Control sessions of FTP are listened
    /// to from here on.
    ///
    /// # Errors
    /// Why the stream cannot be used. Nothing has changed then.
    pub fn restore(
        &self,
        stream: &[u8],
        now: Instant,
        at: SystemTime,
        options: RestoreOptions,
    ) -> Result<Restored, RestoreError> {
        let (saved, elapsed) = Saved::from_stream(stream, at)?;
        let moment = self.origin.micros(now);
        let unsound = |(record, what)| RestoreError::Unsound { record, what };
        let sessions = saved
            .sessions
            .iter()
            .enumerate()
            .map(|(record, session)| {
                self.sound(session, moment, elapsed, options)
                    .map_err(|what| unsound((record, what)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let behind = sessions.len();
        let tombstones = saved
            .tombstones
            .iter()
            .enumerate()
            .map(|(record, tombstone)| {
                self.to_tombstone(tombstone, moment, elapsed, options)
                    .map_err(|what| unsound((behind + record, what)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let _no_reload_meanwhile = self.reloading.lock();
        let settings = self.settings();
        // Numbers of rules are this engine's business: names are what lasts.
        let numbers: std::collections::HashMap<u16, RuleId> = saved
            .rules
            .iter()
            .filter_map(|(number, name)| Some((*number, settings.policy.rule_named(name)?)))
            .collect();
        let rule = |number| numbers.get(&number).copied().unwrap_or(RuleId::DEFAULT);
        let mut done = Restored::default();
        // Who has announced comes before what was announced.
        let (children, others): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| session.parent.is_some());
        for mut session in others.into_iter().chain(children) {
            session.cold.rule = rule(session.cold.rule).0;
            match self.land(&settings, &session, moment) {
                Landed::Lives(_) => done.sessions += 1,
                Landed::Expired => done.expired += 1,
                Landed::Refused => done.refused += 1,
                Landed::Present => done.present += 1,
                Landed::NoRoom => done.no_room += 1,
            }
        }
        for mut tombstone in tombstones {
            tombstone.rule = rule(tombstone.rule.0);
            // What this engine knows itself is newer.
            let known = self.graveyard.find(&tombstone.key, moment).is_some();
            if !known && self.graveyard.lasts(&tombstone, moment) {
                self.graveyard.bury(tombstone);
                done.tombstones += 1;
            }
        }
        let mut expectations = saved.expectations;
        for expectation in &mut expectations {
            expectation.lifetime = expectation.lifetime.saturating_sub(elapsed);
            expectation.parent.zone = self.fixed.zones.group_of(expectation.parent.zone);
        }
        expectations.retain(|expectation| !expectation.lifetime.is_zero());
        done.expectations = self.helpers.import(&settings.ftp, &expectations, now);
        Ok(done)
    }

    /// Takes over one session, as another engine has saved it; `elapsed` is the time since then.
    ///
    /// # Errors
    /// What no session can be.
    pub fn insert_saved(
        &self,
        session: &SavedSession,
        now: Instant,
        elapsed: Duration,
        options: RestoreOptions,
    ) -> Result<Option<SessionId>, RestoreError> {
        let moment = self.origin.micros(now);
        let mut sound = self
            .sound(session, moment, elapsed, options)
            .map_err(|what| RestoreError::Unsound { record: 0, what })?;
        // The numbers of another engine's rules mean nothing here.
        sound.cold.rule = RuleId::DEFAULT.0;
        let _no_reload_meanwhile = self.reloading.lock();
        Ok(match self.land(&self.settings(), &sound, moment) {
            Landed::Lives(id) => Some(id),
            _ => None,
        })
    }

    /// When a session ends, that of live children included.
    fn deadline_of(&self, held: &Held<Settings>, number: usize, session: u32, now: Micros) -> u32 {
        let slot = held.shard.slab.hot(session);
        if slot.deadline > now.tick() {
            return slot.deadline;
        }
        self.spare(&held.settings, number, slot, session, now)
            .unwrap_or(slot.deadline)
    }

    /// The session between two ends.
    fn id_of(&self, ends: &SessionEnds) -> Option<SessionId> {
        let key = ends.key()?;
        let place = self.table.place(&key);
        let held = self.table.lock(place.shard);
        let number = held.shard.find(place.hash, &key)?;
        Some(
            self.table
                .id(place.shard, number, held.shard.slab.hot(number).generation),
        )
    }

    fn land(&self, settings: &Settings, session: &Sound, now: Micros) -> Landed {
        let slot = &session.slot;
        if slot.deadline <= now.tick() {
            return Landed::Expired;
        }
        let query = opening_query(slot);
        // As a reload judges it: a child as the session that has announced it.
        let asked = session.parent.map_or(query, |ends| opening_query_of(&ends));
        let decision = settings.policy.look_up(&asked);
        let admitted = decision.action == Action::Allow;
        let rule = match admitted {
            true => decision.rule,
            false if settings.on_reload == OnReload::End => return Landed::Refused,
            false => RuleId(session.cold.rule),
        };
        let parent = session.parent.and_then(|parent| self.id_of(&parent));
        let place = self.table.place(&session.key);
        let mut held = self.table.lock(place.shard);
        let shard: &mut Shard = &mut held.shard;
        if shard.find(place.hash, &session.key).is_some() {
            return Landed::Present;
        }
        if shard.is_full() || !self.accounts.claim(session.key.zone()) {
            return Landed::NoRoom;
        }
        let profile = settings.profile(&query, rule);
        let number = shard.insert(place.hash, session.key, slot.initiator(), now, (profile, rule.0));
        shard.slab.hot_mut(number).take_over(slot);
        let mut cold = session.cold;
        cold.rule = rule.0;
        cold.set(Mark::Former, !admitted);
        // What has passed since it was saved is not known here.
        cold.set(Mark::Stale, true);
        *shard.slab.cold_mut(number) = cold;
        shard.slab.set_tunnels(number, session.tunnels);
        let own = shard.slab.hot_mut(number);
        if own.key.protocol() == PROTOCOL_TCP && settings.tcp(rule, own.key.zone()).mode != TcpMode::Strict {
            own.track.set_liberal();
        }
        let deadline = own.deadline;
        let id = self.table.id(place.shard, number, own.generation);
        if let Some(ends) = session.parent {
            self.helpers.belongs(id, parent, ends);
        }
        if settings.ftp.is_control(own, rule) && session.parent.is_none() {
            self.helpers
                .go_on(&settings.ftp, own, Parent { session: id, rule }, session.control);
        }
        shard.hang(number);
        self.table.note_tick(place.shard, deadline);
        self.counters.opened(&[]);
        Landed::Lives(id)
    }

    fn saved(
        &self,
        shard: &Shard,
        number: usize,
        session: u32,
        (deadline, now): (u32, Micros),
    ) -> SavedSession {
        let (slot, cold) = (shard.slab.hot(session), shard.slab.cold(session));
        let (key, initiator) = (&slot.key, slot.initiator());
        let id = self.table.id(number, session, slot.generation);
        let (history, marks) = cold.parts();
        let traffic = crate::flow::Direction::BOTH.map(|direction| slot.traffic(direction));
        let micros = |since: Micros| u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        SavedSession {
            zone: key.zone().0,
            protocol: key.protocol(),
            src: key.address(initiator),
            src_port: key.port(initiator),
            dst: key.address(initiator.opposite()),
            dst_port: key.port(initiator.opposite()),
            variant: key.variant(),
            age_us: micros(cold.start()),
            idle_us: micros(slot.last()),
            left_us: (u64::from(deadline) * TICK.as_micros() as u64).saturating_sub(now.0),
            state: match key.protocol() {
                PROTOCOL_TCP => SavedState::Tcp(slot.track),
                _ => SavedState::Words(slot.track.words()),
            },
            flags: slot.saved_flags(),
            history,
            marks,
            packets: traffic.map(|(packets, _)| packets),
            bytes: traffic.map(|(_, bytes)| bytes),
            rule: cold.rule,
            parent: self.helpers.ends_of_parent(id),
            control: self.helpers.whereabouts(id),
            tunnels: shard.slab.tunnels(session).map(|tunnel| tunnel.0),
        }
    }
}

impl Engine {
    /// A record as a session, or what is wrong with it.
    fn sound(
        &self,
        session: &SavedSession,
        now: Micros,
        elapsed: Duration,
        options: RestoreOptions,
    ) -> Result<Sound, &'static str> {
        let src = SocketAddr::new(session.src, session.src_port);
        let dst = SocketAddr::new(session.dst, session.dst_port);
        let zone = self.fixed.zones.group_of(Zone(session.zone));
        let mut parent = session.parent;
        if let Some(parent) = &mut parent {
            parent.zone = self.fixed.zones.group_of(parent.zone);
            if *parent == SessionEnds::new(zone, src, dst) {
                return Err("it has announced itself");
            }
        }
        let (key, initiator) = FlowKey::between(zone, session.protocol, (src, dst), session.variant)?;
        let track = match session.state {
            SavedState::Tcp(track) if session.protocol == PROTOCOL_TCP => {
                if !track.is_sound() {
                    return Err("the state of its connection is none");
                }
                track
            }
            SavedState::Words(words) if session.protocol != PROTOCOL_TCP => {
                if !PROTOCOLS_WITH_TRACKS.contains(&session.protocol) && words != [0; 8] {
                    return Err("its protocol has no state");
                }
                Track::from_words(words)
            }
            _ => return Err("its state is that of another protocol"),
        };
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let ago = |micros: u64| Micros(now.0.saturating_sub(micros.saturating_add(elapsed_us)));
        let left_us = session.left_us.min((MAX_LIFETIME + TICK).as_micros() as u64);
        let deadline = match left_us.checked_sub(elapsed_us) {
            Some(left) if left > 0 => Micros(now.0 + left).next_tick(),
            _ => 0,
        };
        let mut slot = Slot::new(key);
        slot.occupy(key, initiator, ago(session.idle_us), 0);
        slot.track = track;
        slot.deadline = deadline;
        slot.restore(session.flags, session.packets, session.bytes);
        let mut cold = Cold::new(ago(session.age_us.max(session.idle_us)), session.rule);
        cold.set_parts(session.history, session.marks);
        Ok(Sound {
            key,
            slot,
            cold,
            tunnels: tunnels(session.tunnels, options),
            parent,
            control: session.control.unwrap_or_default(),
        })
    }
}

fn tunnels(saved: [u64; 2], options: RestoreOptions) -> [TunnelRef; 2] {
    if options.tunnels {
        saved.map(TunnelRef)
    } else {
        [TunnelRef::NONE; 2]
    }
}

fn of_tombstone(tombstone: &Tombstone, now: Micros) -> SavedTombstone {
    let (key, initiator) = (&tombstone.key, tombstone.initiator);
    SavedTombstone {
        zone: key.zone().0,
        src: key.address(initiator),
        src_port: key.port(initiator),
        dst: key.address(initiator.opposite()),
        dst_port: key.port(initiator.opposite()),
        reason: tombstone.reason as u8,
        rule: tombstone.rule.0,
        ago_us: now.0.saturating_sub(tombstone.ended.0),
        ends: tombstone
            .ends()
            .map(|end| (end.expects.map(|number| number.0), end.sent.0)),
        challenged: tombstone.challenged(),
        tunnels: tombstone.tunnels.map(|tunnel| tunnel.0),
    }
}

impl Engine {
    fn to_tombstone(
        &self,
        saved: &SavedTombstone,
        now: Micros,
        elapsed: Duration,
        options: RestoreOptions,
    ) -> Result<Tombstone, &'static str> {
        let src = SocketAddr::new(saved.src, saved.src_port);
        let dst = SocketAddr::new(saved.dst, saved.dst_port);
        let plain = Variant::Plain;
        let (key, initiator) = FlowKey::between(
            self.fixed.zones.group_of(Zone(saved.zone)),
            PROTOCOL_TCP,
            (src, dst),
            plain,
        )?;
        let reason = saved
            .reason()
            .ok_or("its session has ended for no known reason")?;
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let ended = Micros(now.0.saturating_sub(saved.ago_us.saturating_add(elapsed_us)));
        Ok(Tombstone::restored(
            (key, initiator),
            (reason, RuleId(saved.rule), ended),
            (saved.ends, saved.challenged),
            tunnels(saved.tunnels, options),
        ))
    }
}
