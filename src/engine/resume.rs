//! Resuming of sessions that another engine had, and ending of those that another engine took.

use std::time::{Duration, Instant, SystemTime};

use super::Engine;
use super::record::NotifiedSender;
use super::restore::Landed;
use crate::continuity::{Claim, FlowName, Resumed, StoredError, StoredSession, SweepTime};
use crate::event::Sink;
use crate::flow::FlowKey;
use crate::packet::PROTOCOL_TCP;
use crate::policy::RuleId;
use crate::session::{EndReason, Mark, Micros, SessionRecord, Slab, SlotId, StoredMark};
use crate::snapshot::RestoreOptions;

impl Engine {
    /// Returns the record of a conversation's session, if there is one.
    #[must_use]
    pub fn find_flow(&self, flow: &FlowKey) -> Option<SessionRecord> {
        let place = self.table.place(flow);
        let held = self.table.lock(place.shard);
        let slot = held.shard.find(place.hash, flow)?;
        self.record_of(&held.shard, place.shard, slot)
    }

    /// Resumes a session from a record that another engine has stored. `at` is the wall-clock time
    /// of `now`.
    ///
    /// The policy is asked again. The state, the initiator and the window scales are those of the
    /// record. Its sequence numbers are lower bounds, since the session may have moved on since.
    ///
    /// A session that this engine has already is replaced, under its identifier, if it was adopted
    /// midstream, or if the record beats its own ([`Claim::beats`]): another engine has had it
    /// meanwhile. A connection that has opened here never gives way to the record of an earlier
    /// one.
    /// The call waits neither for a reload nor for a save ([`Engine::save_to`]).
    ///
    /// A record that was made up to [`StoredSession::CLOCK_SLACK`] in the future counts as one of
    /// now, since the clocks of two hosts differ.
    ///
    /// # Errors
    /// Returns why the record cannot be a session here.
    pub fn resume(
        &self,
        stored: &StoredSession,
        now: Instant,
        at: SystemTime,
    ) -> Result<Resumed, StoredError> {
        // A save or a reload may hold its lock for long: this takes none of them ([`Self::land`]).
        let settings = self.settings();
        let zone = settings
            .stored_zone(&stored.zone)
            .ok_or(StoredError::Unsound("its zone is unknown"))?;
        let mut session = stored.session;
        session.zone = zone.0;
        if let Some(parent) = &mut session.parent {
            parent.zone = zone;
        }
        let elapsed = match at.duration_since(stored.saved_at) {
            Ok(elapsed) => elapsed,
            Err(ahead) if ahead.duration() <= StoredSession::CLOCK_SLACK => {
                // The time at which the session began stays the same, however often it moves.
                let ahead = u64::try_from(ahead.duration().as_micros()).unwrap_or(u64::MAX);
                session.age_us = session.age_us.saturating_sub(ahead);
                Duration::ZERO
            }
            Err(_) => return Err(StoredError::Future),
        };
        let moment = self.origin.micros(now);
        let mut sound = self
            .sound(&session, moment, elapsed, RestoreOptions::default())
            .map_err(StoredError::Unsound)?;
        if session.protocol == PROTOCOL_TCP {
            sound.slot.track.resume();
            // Lines may have passed since.
            sound.control.lines = None;
            sound.control.at_rest = false;
        }
        let rule = settings.policy.rule_named(&stored.rule);
        sound.cold.rule = rule.unwrap_or(RuleId::DEFAULT).0;
        // A record of the next epoch replaces the one that the session was resumed from.
        let epoch = u32::try_from(stored.epoch.saturating_add(1)).unwrap_or(u32::MAX);
        sound.stored = StoredMark::resumed(epoch);
        Ok(match self.land(&sound, moment) {
            Landed::Lives(id) => {
                // The end of a copy that this engine had before says nothing any more.
                self.graveyard.forget(&sound.key);
                Resumed::Resumed(id)
            }
            Landed::Replaced(id) => Resumed::Upgraded(id),
            Landed::Expired => Resumed::Expired,
            Landed::Refused => Resumed::Refused,
            Landed::Present => Resumed::Present,
            Landed::NoRoom => Resumed::NoRoom,
        })
    }

    /// Ends a session silently, because another engine has taken it over ([`EndReason::Moved`]).
    ///
    /// Nothing happens if the engine does not have the session, or if `claim` does not beat that of
    /// its session ([`Claim::beats`]). Returns whether a session has ended.
    pub fn disown<S: Sink>(
        &self,
        flow: &FlowName,
        claim: &Claim,
        time: SweepTime,
        sink: &mut S,
    ) -> bool {
        let now = self.origin.micros(time.now);
        self.end_moved(flow, now, sink, |slab, slot| {
            let cold = slab.cold(slot);
            let age = now.since(cold.start());
            let own = Claim {
                epoch: slab.stored(slot).epoch().map_or(0, u64::from),
                began: time.at.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
                adopted: cold.has(Mark::Adopted),
            };
            claim.beats(&own)
        })
    }

    /// Ends a session silently whose owner was asked for before its end, because its record in the
    /// store is one of another engine and cannot be read. A session that a packet has refreshed
    /// since lives on. Returns whether the session has ended.
    pub(super) fn disown_put_off<S: Sink>(
        &self,
        flow: &FlowName,
        now: Instant,
        sink: &mut S,
    ) -> bool {
        self.end_moved(flow, self.origin.micros(now), sink, |slab, slot| {
            slab.stored(slot).is_put_off_to(slab.hot(slot).deadline)
        })
    }

    /// Ends a session as moved, if it is there and `is_lost` says so. Returns whether it has ended.
    fn end_moved<S: Sink>(
        &self,
        flow: &FlowName,
        now: Micros,
        sink: &mut S,
        is_lost: impl FnOnce(&Slab, SlotId) -> bool,
    ) -> bool {
        let place = self.table.place(flow.key());
        let ended = {
            let mut held = self.table.lock(place.shard);
            let shard = &mut held.shard;
            let Some(slot) = shard.find(place.hash, flow.key()) else {
                return false;
            };
            if !is_lost(&shard.slab, slot) {
                return false;
            }
            let ended = shard.remove(slot, EndReason::Moved);
            // This leaves no tombstone.
            self.bury(place.shard, &ended, now);
            ended
        };
        let nobody = NotifiedSender::nobody(now);
        self.report_ended(place.shard, &ended, nobody, sink);
        true
    }
}
