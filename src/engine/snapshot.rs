//! Saving of sessions: the engine's side of [`crate::snapshot`] when it stops.

use std::convert::Infallible;
use std::io;
use std::time::{Instant, SystemTime};

use super::Engine;
use super::settings::Settings;
use crate::packet::PROTOCOL_TCP;
use crate::session::{Held, Micros, SLICE, Shard, ShardId, SlotId, TICK, Tombstone};
use crate::snapshot::{
    Kind, NamedSession, Saved, SavedRule, SavedSession, SavedState, SavedTombstone, Writer,
    count_of,
};

impl Engine {
    /// Returns the stream of [`Engine::save_to`], in memory.
    #[must_use]
    pub fn save(&self, now: Instant, at: SystemTime) -> Vec<u8> {
        let mut stream = Vec::new();
        // A write to memory does not fail, and the format supports every record.
        let saved = self.save_to(now, at, &mut stream);
        debug_assert!(saved.is_ok(), "{saved:?}");
        stream
    }

    /// Writes all sessions, the tombstones of ended ones, and the announced sessions, as one stream
    /// ([`crate::snapshot`]). `at` is the wall-clock time of `now`.
    ///
    /// Sessions are copied in slices, as by [`Engine::for_each_session`]. Packets are processed
    /// during the save, and a session that changes after it was copied is saved as it was. For a
    /// complete stream, stop the packets first.
    ///
    /// The call needs some 100 KiB of memory, regardless of the number of sessions, and one byte
    /// for each of `tombstones.max`. `out` is called without a shard's lock, in pieces of about 32
    /// KiB. Reloads, previews and restores wait until the stream is written, so `out` must not call
    /// those.
    ///
    /// # Errors
    /// Returns the error of `out`. The content of `out` is then not a complete stream.
    pub fn save_to(
        &self,
        now: Instant,
        at: SystemTime,
        out: &mut impl io::Write,
    ) -> io::Result<Saved> {
        let _no_reload_meanwhile = self.reloading.lock();
        let mut writer = Writer::new(out, at)?;
        for (number, name) in self.policy().numbered() {
            let rule = SavedRule {
                number: number.0,
                name: name.to_owned(),
            };
            writer.put(Kind::Rule, &rule)?;
        }
        self.try_each_saved(now, |session| {
            writer.put(Kind::Session, &NamedSession::new(session))
        })?;
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

    /// Calls `each` with every session as it would be saved. No lock is held during the call.
    /// Sessions that begin or end during the walk are treated as in [`Engine::for_each_session`].
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
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                for session in held.shard.sessions_in(slots) {
                    let deadline = self.deadline_of(held, shard_id, session, now);
                    if deadline > now.tick() {
                        records.push(self.saved(&held.shard, shard_id, session, deadline, now));
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

    /// Returns the deadline of a session, extended by live children.
    pub(super) fn deadline_of(
        &self,
        held: &Held<Settings>,
        shard_id: ShardId,
        session: SlotId,
        now: Micros,
    ) -> u32 {
        let slot = held.shard.slab.hot(session);
        if slot.deadline > now.tick() {
            return slot.deadline;
        }
        self.extend_for_children(&held.settings, shard_id, slot, session, now)
            .unwrap_or(slot.deadline)
    }

    pub(super) fn saved(
        &self,
        shard: &Shard,
        shard_id: ShardId,
        session: SlotId,
        deadline: u32,
        now: Micros,
    ) -> SavedSession {
        let (slot, cold) = (shard.slab.hot(session), shard.slab.cold(session));
        let (key, initiator) = (&slot.key, slot.initiator());
        let id = self.table.id(shard_id, session, slot.generation);
        let (history, marks) = cold.parts();
        let traffic = crate::flow::Direction::BOTH.map(|direction| slot.traffic(direction));
        let micros =
            |since: Micros| u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
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
            control: self.helpers.saved_control(id),
            tunnels: shard.slab.tunnels(session).map(|tunnel| tunnel.0),
            uid: Some(shard.slab.origin(session).unwrap_or(self.uid(id))),
        }
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
