//! Sessions out of the engine and into it: the engine's side of [`crate::snapshot`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::Engine;
use super::ftp_settings::Parent;
use super::pair::is_pair_full;
use super::query::{opening_query, opening_query_of};
use super::settings::Settings;
use crate::alg::SessionEnds;
use crate::config::OnReload;
use crate::flow::{FlowKey, Variant, Zone};
use crate::lifetime::MAX_LIFETIME;
use crate::limits::Subject;
use crate::packet::PROTOCOL_TCP;
use crate::policy::RuleId;
use crate::policy::handling::TcpMode;
use crate::session::{
    Cold, Held, Mark, Micros, PROTOCOLS_WITH_TRACKS, SLICE, SessionId, Shard, Slot, TICK, Tombstone,
    TunnelRef,
};
use crate::snapshot::{
    Kind, Record, RestoreError, RestoreOptions, Restored, Saved, SavedControl, SavedRule, SavedSession,
    SavedState, SavedTombstone, Source, Writer, count_of,
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

/// Records of a stream that one pass takes over: parents come before their children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Sessions that nobody has announced.
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

/// A stream on its way into an engine.
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
    fn check<R: io::Read + io::Seek>(&self, source: &mut Source<'_, R>) -> Result<bool, RestoreError> {
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

    /// Takes over the records of a pass, all of which were checked.
    fn take_over<R: io::Read + io::Seek>(
        &self,
        source: &mut Source<'_, R>,
        pass: Pass,
        settings: &Settings,
        done: &mut Restored,
    ) -> Result<(), RestoreError> {
        let engine = self.engine;
        // Numbers of rules are this engine's business: names are what lasts.
        let mut numbers: HashMap<u16, RuleId> = HashMap::new();
        let rule =
            |numbers: &HashMap<u16, RuleId>, number| numbers.get(&number).copied().unwrap_or(RuleId::DEFAULT);
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
                    match engine.land(settings, &sound, self.moment) {
                        Landed::Lives(_) => done.sessions += 1,
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
                    // What this engine knows itself is newer.
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
    /// Returns what [`Engine::save_to`] writes, in memory.
    #[must_use]
    pub fn save(&self, now: Instant, at: SystemTime) -> Vec<u8> {
        let mut stream = Vec::new();
        // Memory takes all that is written, and every record is one that the format knows.
        let saved = self.save_to(now, at, &mut stream);
        debug_assert!(saved.is_ok(), "{saved:?}");
        stream
    }

    /// Writes all sessions, what is remembered of ended ones, and what was announced, as one stream
    /// ([`crate::snapshot`]). `at` is the wall-clock time that `now` is.
    ///
    /// Sessions are copied in slices, as by [`Engine::for_each_session`]: packets go on meanwhile,
    /// and a session that changes after it was copied is saved as it was. For a stream that misses
    /// nothing, stop the packets first. Needs some 100 KiB of memory, however many sessions there
    /// are, and one byte for each of `tombstones.max`. `out` is called without a shard's lock, in
    /// pieces of about 32 KiB; reloads, previews and restores wait until the stream is written, so
    /// `out` must not call those.
    ///
    /// # Errors
    /// `out` has failed. What it holds then is no stream.
    pub fn save_to(&self, now: Instant, at: SystemTime, out: &mut impl io::Write) -> io::Result<Saved> {
        let _no_reload_meanwhile = self.reloading.lock();
        let mut writer = Writer::new(out, at)?;
        for (number, name) in self.policy().numbered() {
            let rule = SavedRule {
                number: number.0,
                name: name.to_owned(),
            };
            writer.put(Kind::Rule, &rule)?;
        }
        self.try_each_saved(now, |session| writer.put(Kind::Session, session))?;
        let moment = self.origin.micros(now);
        self.graveyard.try_each(moment, |tombstone| {
            writer.put(Kind::Tombstone, &of_tombstone(tombstone, moment))
        })?;
        for expectation in self.helpers.expectations().export(now) {
            writer.put(Kind::Expectation, &expectation)?;
        }
        let (counts, bytes) = writer.finish()?;
        Ok(Saved {
            sessions: count_of(&counts, Kind::Session),
            tombstones: count_of(&counts, Kind::Tombstone),
            expectations: count_of(&counts, Kind::Expectation),
            bytes,
        })
    }

    /// Calls `each` with every session as it would be saved. No lock is held meanwhile. What is
    /// seen of sessions that come or go is as in [`Engine::for_each_session`].
    pub fn for_each_saved(&self, now: Instant, mut each: impl FnMut(&SavedSession)) {
        let done = self.try_each_saved(now, |session| {
            each(session);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = done;
    }

    /// Calls `each` until it fails.
    fn try_each_saved<E>(
        &self,
        now: Instant,
        mut each: impl FnMut(&SavedSession) -> Result<(), E>,
    ) -> Result<(), E> {
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
                for record in records.drain(..) {
                    each(&record)?;
                }
            }
        }
        Ok(())
    }

    /// Takes over the sessions of a stream in memory, as [`Engine::restore_from`] does.
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
        self.restore_from(&mut io::Cursor::new(stream), now, at, options)
    }

    /// Takes over the sessions of a stream that [`Engine::save_to`] has written and that begins
    /// where `input` stands. `at` is the wall-clock time that `now` is: what has passed since the
    /// save is taken off each lifetime, and a clock that went back takes nothing off, unless
    /// [`RestoreOptions::max_age`] refuses such a stream.
    ///
    /// A session is judged by this engine's policy, and by `policy.on_reload` where that would not admit it; lifetimes go
    /// on from where they were. Sessions that the engine has already stay as they are. Control sessions of FTP are listened
    /// to from here on.
    ///
    /// The stream is read two or three times: once to check all of it, and then to take over its sessions, the announced ones
    /// after those that have announced them. Nobody may change it meanwhile. Needs some 100 KiB of memory beside the
    /// sessions, however long the stream is; one of version 1 is read into memory whole. Wrap a file in a
    /// [`BufReader`](io::BufReader): the lengths of chunks are read apart.
    ///
    /// # Errors
    /// Why the stream cannot be used. Nothing has changed then, unless it was changed or became
    /// unreadable after it was checked.
    pub fn restore_from(
        &self,
        input: &mut (impl io::Read + io::Seek),
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
        let admitted = decision.action.admits();
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
        if is_pair_full(shard, place, &session.key) {
            return Landed::NoRoom;
        }
        if shard.is_full() || !self.accounts.claim(session.key.zone()) {
            return Landed::NoRoom;
        }
        let profile = settings.profile(&query, rule);
        // Limits are for new sessions.
        let subject = Subject {
            key: &session.key,
            initiator: slot.initiator(),
            rule,
        };
        let counts = settings.counts(session.key.zone(), rule);
        let counts = self.accounts.admit_unasked(subject, counts).keep();
        let number = shard.insert(
            place.hash,
            session.key,
            slot.initiator(),
            now,
            (profile, rule.0),
            counts,
        );
        shard.slab.hot_mut(number).take_over(slot);
        let mut cold = session.cold;
        cold.rule = rule.0;
        cold.set(Mark::Former, !admitted);
        // What has passed since it was saved is not known here.
        cold.set(Mark::Stale, true);
        cold.set_counts(counts);
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
            src,
            dst,
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
