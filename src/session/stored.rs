//! Note about the newest record of a session in a store outside the engine: 16 bytes beside its
//! slot, which no packet touches.

use super::slot::Slot;
use super::time::Micros;
use crate::flow::Direction;

/// The last record of a session that was handed out to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoredMark {
    /// The tick of the record.
    tick: u32,
    /// The session's IP bytes at that time, modulo 2^32.
    bytes: u32,
    /// The number of take-overs.
    epoch: u32,
    /// The lower half of the tick to which the end was put off to ask for the owner.
    asked: u16,
    /// State of the session at that time.
    state: u8,
    flags: u8,
}

const _: () = assert!(size_of::<StoredMark>() == 16);

/// A record was handed out, or the session was resumed from one.
const STORED: u8 = 0x01;
/// The next sweep hands out a record, whatever has moved since the last one.
const DUE: u8 = 0x02;
/// The session's end was put off, to ask whether another engine owns it.
const ASKED: u8 = 0x04;

/// Ticks by which the end of a session is put off to ask for its owner: one second.
pub(crate) const ASKING_TICKS: u32 = 10;

/// Conditions for a new record of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refresh {
    /// The least ticks between two records of a session in one state.
    pub(crate) ticks: u32,
    /// Bytes after which a record is due earlier.
    pub(crate) bytes: u32,
    /// Records of all sessions are due.
    pub(crate) everything: bool,
}

impl StoredMark {
    /// Returns the mark of a session that was resumed from a record, which a new record with the
    /// epoch `epoch` must replace at once.
    pub(crate) const fn resumed(epoch: u32) -> Self {
        Self {
            tick: 0,
            bytes: 0,
            epoch,
            asked: 0,
            state: 0,
            flags: STORED | DUE,
        }
    }

    /// Returns the epoch of the record, if there is one.
    pub(crate) fn epoch(&self) -> Option<u32> {
        self.is_stored().then_some(self.epoch)
    }

    pub(crate) const fn is_stored(&self) -> bool {
        self.flags & STORED != 0
    }

    /// Requests a record at the next sweep, if the session has one.
    pub(crate) const fn set_due(&mut self) {
        if self.is_stored() {
            self.flags |= DUE;
        }
    }

    /// Returns whether a session that has a record needs a new one.
    pub(crate) fn is_due(&self, slot: &Slot, now: Micros, refresh: Refresh) -> bool {
        if self.flags & DUE != 0 || refresh.everything || self.state != digest(slot) {
            return true;
        }
        let moved = bytes(slot).wrapping_sub(self.bytes);
        let waited = now.tick().saturating_sub(self.tick);
        moved >= refresh.bytes.max(1) || moved > 0 && waited >= refresh.ticks
    }

    /// Notes that a record of the session is handed out.
    pub(crate) fn note(&mut self, slot: &Slot, now: Micros) {
        *self = Self {
            tick: now.tick(),
            bytes: bytes(slot),
            state: digest(slot),
            flags: self.flags & !DUE | STORED,
            ..*self
        };
        if slot.deadline > now.tick().saturating_add(ASKING_TICKS) {
            // The session was continued after its owner was asked for.
            self.flags &= !ASKED;
        }
    }

    /// Returns whether the owner is to be asked for before the session ends at the tick
    /// `deadline`: not if that is the end of such a delay, since no packet has refreshed the
    /// session meanwhile.
    pub(crate) const fn is_to_ask(&self, deadline: u32) -> bool {
        self.is_stored() && !self.is_put_off_to(deadline)
    }

    /// Returns whether the tick `deadline`, at which the session ends, is the end of such a delay:
    /// no packet has refreshed the session since its owner was asked for.
    pub(crate) const fn is_put_off_to(&self, deadline: u32) -> bool {
        self.flags & ASKED != 0 && deadline as u16 == self.asked
    }

    /// Notes that the owner is asked for, and that the end of the session is put off to the tick
    /// `until`.
    pub(crate) const fn ask(&mut self, until: u32) {
        self.flags |= ASKED;
        self.asked = until as u16;
    }
}

/// Returns the IP bytes of both directions, modulo 2^32.
fn bytes(slot: &Slot) -> u32 {
    let of = |direction| slot.traffic(direction).1 as u32;
    of(Direction::Original).wrapping_add(of(Direction::Reply))
}

/// Returns the part of a session's state whose change makes a record due.
fn digest(slot: &Slot) -> u8 {
    slot.state_number() << 1 | u8::from(slot.assured())
}
