//! Restoring of saved sessions: the engine's side of [`crate::snapshot`] at its start.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Engine;
use super::ftp_settings::{FtpSettings, Parent};
use super::pair::is_pair_full;
use super::query::{opening_query, opening_query_of};
use super::settings::Settings;
use crate::config::OnReload;
use crate::continuity::Claim;
use crate::flow::{FlowKey, Variant, Zone};
use crate::ftp::SessionEnds;
use crate::lifetime::MAX_LIFETIME;
use crate::limits::Subject;
use crate::packet::{PROTOCOL_TCP, SeqNum};
use crate::policy::RuleId;
use crate::policy::handling::TcpMode;
use crate::session::{
    Cold, KeyPlace, Mark, Micros, Opened, PROTOCOLS_WITH_TRACKS, Remembered, SessionId, SessionUid,
    Shard, Slot, SlotId, StoredMark, TICK, Tombstone, TunnelRef,
};
use crate::snapshot::{
    Record, RestoreError, RestoreOptions, Restored, SavedControl, SavedRule, SavedSession,
    SavedState, SavedTombstone, Source,
};
use crate::track::tcp::Track;

/// A valid record, ready for the table.
pub(super) struct Sound {
    pub(super) key: FlowKey,
    pub(super) slot: Slot,
    pub(super) cold: Cold,
    tunnels: [TunnelRef; 2],
    parent: Option<SessionEnds>,
    pub(super) control: SavedControl,
    /// The session's record in a store.
    pub(super) stored: StoredMark,
    /// The session's identifier in logs, if it is known.
    uid: Option<SessionUid>,
}

/// Outcome of a record.
pub(super) enum Landed {
    Lives(SessionId),
    /// The session lives in place of an older copy, under its identifier.
    Replaced(SessionId),
    Expired,
    Refused,
    Present,
    NoRoom,
}

/// Records of a stream that one pass restores: parents come before their children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Sessions that no other session has announced.
    Parents,
    /// Records that `Parents` leaves.
    Rest,
    All,
}

impl Pass {
    fn takes(self, record: &Record) -> bool {
        let is_parent = matches!(record, Record::Session(session) if session.parent.is_none());
        match self {
            Self::Parents => is_parent,
            Self::Rest => !is_parent,
            Self::All => true,
        }
    }
}

/// A stream that is being restored into an engine.
struct Import<'e> {
    engine: &'e Engine,
    now: Instant,
    moment: Micros,
    /// The time since the save.
    elapsed: Duration,
    options: RestoreOptions,
}

impl Import<'_> {
    /// Checks a whole stream. Returns whether it has sessions that others have announced.
    fn check<R: io::Read + io::Seek>(
        &self,
        source: &mut Source<'_, R>,
    ) -> Result<bool, RestoreError> {
        let (mut place, mut has_children) = (0, false);
        source.read(|record| {
            let sound = match &record {
                Record::Session(session) => {
                    has_children |= session.parent.is_some();
                    self.session(session).map(|_| ())
                }
                Record::Tombstone(tombstone) => self.tombstone(tombstone).map(|_| ()),
                Record::Rule(_) | Record::Expectation(_) => return Ok(()),
            };
            let record = place;
            place += 1;
            sound.map_err(|what| RestoreError::Unsound { record, what })
        })?;
        Ok(has_children)
    }

    /// Restores the records of a pass, all of which were checked.
    fn take_over<R: io::Read + io::Seek>(
        &self,
        source: &mut Source<'_, R>,
        pass: Pass,
        settings: &Settings,
        done: &mut Restored,
    ) -> Result<(), RestoreError> {
        let engine = self.engine;
        // Numbers of rules belong to this engine: the names are stable.
        let mut numbers: HashMap<u16, RuleId> = HashMap::new();
        let rule = |numbers: &HashMap<u16, RuleId>, number| {
            numbers.get(&number).copied().unwrap_or(RuleId::DEFAULT)
        };
        let unsound = |what| RestoreError::Unsound { record: 0, what };
        source.read(|record| {
            if let Record::Rule(SavedRule { number, name }) = &record {
                let known = settings.policy.rule_named(name);
                numbers.extend(known.map(|own| (*number, own)));
                return Ok(());
            }
            if !pass.takes(&record) {
                return Ok(());
            }
            match record {
                Record::Rule(_) => {}
                Record::Session(session) => {
                    let mut sound = self.session(&session).map_err(unsound)?;
                    sound.cold.rule = rule(&numbers, sound.cold.rule).0;
                    match engine.land(&sound, self.moment) {
                        Landed::Lives(_) | Landed::Replaced(_) => done.sessions += 1,
                        Landed::Expired => done.expired += 1,
                        Landed::Refused => done.refused += 1,
                        Landed::Present => done.present += 1,
                        Landed::NoRoom => done.no_room += 1,
                    }
                }
                Record::Tombstone(tombstone) => {
                    let mut tombstone = self.tombstone(&tombstone).map_err(unsound)?;
                    tombstone.rule = rule(&numbers, tombstone.rule.0);
                    let (graveyard, moment) = (&engine.graveyard, self.moment);
                    // This engine's own tombstones are newer.
                    let known = graveyard.find(&tombstone.key, moment).is_some();
                    if !known && graveyard.lasts(&tombstone, moment) {
                        graveyard.bury(tombstone);
                        done.tombstones += 1;
                    }
                }
                Record::Expectation(mut expectation) => {
                    expectation.lifetime = expectation.lifetime.saturating_sub(self.elapsed);
                    expectation.parent.zone = engine.fixed.zones.group_of(expectation.parent.zone);
                    if !expectation.lifetime.is_zero() {
                        let ftp = &settings.ftp;
                        done.expectations += engine.helpers.import(ftp, &[expectation], self.now);
                    }
                }
            }
            Ok(())
        })
    }

    fn session(&self, session: &SavedSession) -> Result<Sound, &'static str> {
        self.engine
            .sound(session, self.moment, self.elapsed, self.options)
    }

    fn tombstone(&self, tombstone: &SavedTombstone) -> Result<Tombstone, &'static str> {
        self.engine
            .to_tombstone(tombstone, self.moment, self.elapsed, self.options)
    }
}

impl Engine {
    /// Restores the sessions of a stream in memory, as [`Engine::restore_from`] does.
    ///
    /// # Errors
    /// Returns why the stream cannot be used. In that case nothing has changed.
    pub fn restore(
        &self,
        stream: &[u8],
        now: Instant,
        at: SystemTime,
        options: RestoreOptions,
    ) -> Result<Restored, RestoreError> {
        self.restore_from(&mut io::Cursor::new(stream), now, at, options)
    }

    /// Restores the sessions of a stream that [`Engine::save_to`] has written and that begins at
    /// the current position of `input`.
    ///
    /// `at` is the wall-clock time of `now`. The time since the save is subtracted from each
    /// lifetime. If the clock went back, nothing is subtracted, unless [`RestoreOptions::max_age`]
    /// refuses such a stream.
    ///
    /// A session is judged by this engine's policy, and by `policy.on_reload` if the policy would
    /// not admit it; its lifetime continues. Sessions that the engine already has are unchanged.
    /// Control sessions of FTP are inspected from here on.
    ///
    /// The stream is read two or three times: once to check all of it, and then to restore its
    /// sessions, announced ones after those that have announced them. The stream must not change in
    /// the meantime. The call needs some 100 KiB of memory beside the sessions, however long the
    /// stream is; a stream of version 1 is read into memory whole. A restored session takes some 40
    /// bytes for its identifier ([`SessionUid`]) until it ends. Wrap a file in a
    /// [`BufReader`](io::BufReader): the lengths of chunks are read separately.
    ///
    /// # Errors
    /// Returns why the stream cannot be used. In that case nothing has changed, unless the stream
    /// was changed or became unreadable after it was checked.
    pub fn restore_from<R: io::Read + io::Seek>(
        &self,
        input: &mut R,
        now: Instant,
        at: SystemTime,
        options: RestoreOptions,
    ) -> Result<Restored, RestoreError> {
        let mut source = Source::open(input)?;
        let import = Import {
            engine: self,
            now,
            moment: self.origin.micros(now),
            elapsed: source.age(at, options.max_age)?,
            options,
        };
        let has_children = import.check(&mut source)?;
        let _no_reload_meanwhile = self.reloading.lock();
        let settings = self.settings();
        let mut done = Restored {
            age: import.elapsed,
            ..Restored::default()
        };
        let passes: &[Pass] = if has_children {
            &[Pass::Parents, Pass::Rest]
        } else {
            &[Pass::All]
        };
        for pass in passes {
            import.take_over(&mut source, *pass, &settings, &mut done)?;
        }
        Ok(done)
    }

    /// Restores one session that another engine has saved; `elapsed` is the time since then.
    ///
    /// # Errors
    /// Returns why the record cannot be a session.
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
        // Numbers of another engine's rules have no meaning here.
        sound.cold.rule = RuleId::DEFAULT.0;
        let _no_reload_meanwhile = self.reloading.lock();
        Ok(match self.land(&sound, moment) {
            Landed::Lives(id) => Some(id),
            _ => None,
        })
    }

    /// Returns the session between two ends.
    fn session_at(&self, ends: &SessionEnds) -> Option<Parent> {
        let key = ends.key()?;
        let place = self.table.place(&key);
        let held = self.table.lock(place.shard);
        let number = held.shard.find(place.hash, &key)?;
        let slab = &held.shard.slab;
        let session = self
            .table
            .id(place.shard, number, slab.hot(number).generation);
        let rule = RuleId(slab.cold(number).rule);
        Some(self.control_session(session, slab.origin(number), rule))
    }

    /// Puts a session into the table, if the policy admits it and there is room.
    pub(super) fn land(&self, session: &Sound, now: Micros) -> Landed {
        if session.slot.deadline <= now.tick() {
            return Landed::Expired;
        }
        let place = self.table.place(&session.key);
        loop {
            // A reload that reaches the shard later judges the session as one of these settings.
            let settings = Arc::clone(&self.table.lock(place.shard).settings);
            if let Some(landed) = self.land_under(&settings, session, place, now) {
                return landed;
            }
        }
    }

    /// Puts a session into its shard under the settings in force there; `None` if a reload has
    /// replaced them meanwhile.
    fn land_under(
        &self,
        settings: &Arc<Settings>,
        session: &Sound,
        place: KeyPlace,
        now: Micros,
    ) -> Option<Landed> {
        let slot = &session.slot;
        let query = opening_query(slot);
        // A child is judged as the session that announced it, as in a reload.
        let asked = session.parent.map_or(query, |ends| opening_query_of(&ends));
        let decision = settings.policy.look_up(&asked);
        let admitted = decision.action.admits();
        let rule = match admitted {
            true => decision.rule,
            false if settings.on_reload == OnReload::End => return Some(Landed::Refused),
            false => RuleId(session.cold.rule),
        };
        let parent = session.parent.and_then(|parent| self.session_at(&parent));
        let mut held = self.table.lock(place.shard);
        if !Arc::ptr_eq(&held.settings, settings) {
            return None;
        }
        let shard: &mut Shard = &mut held.shard;
        let older = match self.claim_place(shard, place, session) {
            Ok(older) => older,
            Err(landed) => return Some(landed),
        };
        let profile = settings.profile(&query, rule);
        // Limits apply only to new sessions.
        let subject = Subject {
            key: &session.key,
            initiator: slot.initiator(),
            rule,
        };
        let counts = settings.counts(session.key.zone(), rule);
        let counts = self.accounts.admit_unasked(subject, counts).keep();
        let opened = Opened {
            subject,
            profile,
            now,
            counts,
        };
        let replaced = older.map(|older| *shard.slab.hot(older));
        let mut tunnels = session.tunnels;
        let slot_id = match older {
            None => shard.insert(place.hash, &opened),
            Some(older) => {
                if tunnels == [TunnelRef::NONE; 2] {
                    tunnels = shard.slab.tunnels(older);
                }
                self.forget_copy(shard, place, older);
                shard.replace(older, place.hash, &opened)
            }
        };
        let own = shard.slab.hot_mut(slot_id);
        own.take_over(slot);
        own.deadline = own.deadline.max(replaced.map_or(0, |older| older.deadline));
        let mut cold = session.cold;
        cold.rule = rule.0;
        cold.set(Mark::NoLongerAdmitted, !admitted);
        cold.set_counts(counts);
        put_beside(shard, slot_id, session, cold, tunnels);
        let own = shard.slab.hot_mut(slot_id);
        track_under(settings, rule, own);
        let deadline = own.deadline;
        let id = self.table.id(place.shard, slot_id, own.generation);
        let control = self.control_session(id, session.uid, rule);
        match session.parent {
            Some(ends) => self.helpers.note_parent(id, parent, ends),
            None => self.inspect_again(&settings.ftp, own, control, session),
        }
        shard.schedule(slot_id);
        self.table.note_tick(place.shard, deadline);
        if replaced.is_some() {
            return Some(Landed::Replaced(id));
        }
        self.counters.opened(&[]);
        Some(Landed::Lives(id))
    }

    /// Goes on with the inspection of a control session where its record left it.
    fn inspect_again(&self, ftp: &FtpSettings, own: &Slot, control: Parent, session: &Sound) {
        if ftp.is_control(own, control.rule) {
            self.helpers
                .resume_inspection(ftp, own, control, session.control);
        }
    }

    /// Discards the state that a helper has of an older copy of a session.
    fn forget_copy(&self, shard: &Shard, place: KeyPlace, older: SlotId) {
        let slot = shard.slab.hot(older);
        let id = self.table.id(place.shard, older, slot.generation);
        self.helpers.ended(id, slot);
    }

    /// Claims the place of a session: that of an older copy, or a new one.
    fn claim_place(
        &self,
        shard: &Shard,
        place: KeyPlace,
        session: &Sound,
    ) -> Result<Option<SlotId>, Landed> {
        match shard.find(place.hash, &session.key) {
            Some(older) if is_older(shard, older, session) => Ok(Some(older)),
            Some(_) => Err(Landed::Present),
            None if is_pair_full(shard, place, &session.key)
                || shard.is_full()
                || !self.accounts.claim(session.key.zone()) =>
            {
                Err(Landed::NoRoom)
            }
            None => Ok(None),
        }
    }

    /// Returns a record as a session, or the error in it.
    pub(super) fn sound(
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
        let (key, initiator) = FlowKey::between(zone, session.protocol, src, dst, session.variant)?;
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
        let left_us = session
            .left_us
            .min((MAX_LIFETIME + TICK).as_micros() as u64);
        let deadline = match left_us.checked_sub(elapsed_us) {
            Some(left) if left > 0 => Micros(now.0 + left).next_tick(),
            _ => 0,
        };
        let mut slot = Slot::new(key);
        slot.occupy(key, initiator, ago(session.idle_us), 0);
        slot.track = track;
        slot.deadline = deadline;
        slot.restore(session.flags, session.packets, session.bytes);
        let mut control = session.control.unwrap_or_default();
        if options.moved_on {
            if session.protocol == PROTOCOL_TCP {
                slot.track.go_on_after_gap();
            }
            control.lines = None;
            control.at_rest = false;
        }
        let mut cold = Cold::new(ago(session.age_us.max(session.idle_us)), session.rule);
        cold.set_parts(session.history, session.marks);
        Ok(Sound {
            key,
            slot,
            cold,
            tunnels: tunnels(session.tunnels, options),
            parent,
            control,
            stored: StoredMark::default(),
            uid: session.uid,
        })
    }

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
            src,
            dst,
            plain,
        )?;
        let reason = saved
            .reason()
            .ok_or("its session has ended for no known reason")?;
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let ended = Micros(
            now.0
                .saturating_sub(saved.ago_us.saturating_add(elapsed_us)),
        );
        Ok(Tombstone {
            key,
            initiator,
            challenged: saved.challenged,
            reason,
            rule: RuleId(saved.rule),
            // This is not the identifier of a session of this engine.
            id: SessionId::new(0),
            ended,
            ends: saved.ends.map(|(expects, sent)| Remembered {
                expects: expects.map(SeqNum),
                sent: SeqNum(sent),
            }),
            tunnels: tunnels(saved.tunnels, options),
        })
    }
}

/// Judges a session by the TCP mode of its rule here.
fn track_under(settings: &Settings, rule: RuleId, slot: &mut Slot) {
    let is_strict = || settings.tcp(rule, slot.key.zone()).mode == TcpMode::Strict;
    if slot.key.protocol() == PROTOCOL_TCP && !is_strict() {
        slot.track.set_liberal();
    }
}

/// Sets what a shard keeps of a session beside its slot.
fn put_beside(
    shard: &mut Shard,
    slot: SlotId,
    session: &Sound,
    mut cold: Cold,
    tunnels: [TunnelRef; 2],
) {
    // Packets that passed since the save are unknown here.
    cold.set(Mark::Stale, true);
    *shard.slab.cold_mut(slot) = cold;
    shard.slab.set_tunnels(slot, tunnels);
    if let Some(mark) = shard.slab.stored_mut(slot) {
        *mark = session.stored;
    }
    if let Some(uid) = session.uid {
        shard.slab.set_origin(slot, uid);
    }
}

/// Returns whether the engine's own copy of a session gives way to a record from a store: it was
/// adopted midstream, or another engine has had the session since. A record of an earlier
/// connection changes nothing.
fn is_older(shard: &Shard, own: SlotId, record: &Sound) -> bool {
    let Some(epoch) = record.stored.epoch() else {
        return false;
    };
    // The two are compared by the clock of the engine alone.
    let claim = |cold: &Cold, epoch: u32| Claim {
        epoch: epoch.into(),
        began: SystemTime::UNIX_EPOCH + Duration::from_micros(cold.start().0),
        adopted: cold.has(Mark::Adopted),
    };
    let cold = shard.slab.cold(own);
    match shard.slab.stored(own).epoch() {
        // The epoch is the one that the session would have here, which is one more.
        Some(own) => claim(&record.cold, epoch.saturating_sub(1)).beats(&claim(cold, own)),
        None => cold.has(Mark::Adopted),
    }
}

fn tunnels(saved: [u64; 2], options: RestoreOptions) -> [TunnelRef; 2] {
    if options.tunnels {
        saved.map(TunnelRef)
    } else {
        [TunnelRef::NONE; 2]
    }
}
