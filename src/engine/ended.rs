//! Sessions that have ended recently, of protocols whose sessions leave no tombstone.
//!
//! An ICMP error can arrive long after the packet that it quotes. Linux reports the missing rest of
//! a datagram 30 s after its first fragment, and a router may queue for seconds. By then the
//! session of a query and its answer may have ended. Such an error is dropped like any other
//! without a session, but for a reason of its own, so that it is not mistaken for a forgery.

use super::Engine;
use super::memo::{Memo, Noted};
use crate::flow::Flow;
use crate::packet::PROTOCOL_TCP;
use crate::reserve::NoMemory;
use crate::session::EndReason;
use crate::session::{KeyPlace, Micros, Slot};
use crate::verdict::{Class, DropReason, Late, Tracked, Verdict};

/// Time for which the end of a session is remembered, in ticks: two minutes.
///
/// This is the maximum segment lifetime (RFC 9293 3.4.2), and the longest that a host may wait for
/// fragments (RFC 1122 3.3.2).
const KNOWN_TICKS: u32 = 1_200;

/// Bits of a note that hold the reason.
const REASON_BITS: u32 = 4;
/// Bits that hold the tick of the end.
const TICK_MASK: u32 = (1 << (32 - REASON_BITS)) - 1;

const _: () = assert!(EndReason::ALL.len() <= 1 << REASON_BITS);

/// Times and reasons of the ends of sessions. A newer entry may displace an older one.
#[derive(Debug)]
pub(super) struct EndedSessions(Memo);

impl EndedSessions {
    pub(super) fn new(max_sessions: usize) -> Result<Self, NoMemory> {
        Memo::beside(max_sessions).map(Self)
    }

    pub(super) fn bytes(max_sessions: usize) -> usize {
        Memo::bytes_beside(max_sessions)
    }

    pub(super) fn note(&self, place: KeyPlace, reason: EndReason, now: Micros) {
        let tick = now.tick() & TICK_MASK;
        self.0.note(place, tick << REASON_BITS | reason as u32);
    }

    fn find(&self, place: KeyPlace, now: Micros) -> Option<Late> {
        let Noted::Own(note) = self.0.get(place) else {
            return None;
        };
        let ago = (now.tick() & TICK_MASK).wrapping_sub(note >> REASON_BITS) & TICK_MASK;
        let reason = EndReason::ALL.get((note & ((1 << REASON_BITS) - 1)) as usize)?;
        (ago < KNOWN_TICKS).then(|| Late::new(*reason, ago))
    }
}

/// Returns the verdict on an ICMP error about a session that has ended.
const fn after_end(late: Late) -> Verdict {
    let tracked = Tracked {
        late: Some(late),
        ..Tracked::class(Class::Invalid)
    };
    Verdict::Drop(DropReason::IcmpErrorAfterEnd, tracked)
}

/// Returns the verdict on an ICMP error about a session that has expired but is still in the table.
pub(super) fn after_end_of(slot: &Slot, now: Micros) -> Verdict {
    let ago = now.tick().saturating_sub(slot.deadline);
    after_end(Late::new(slot.end_of_life(), ago))
}

impl Engine {
    /// Returns the verdict on an ICMP error about a packet of a session that has ended recently.
    #[cold]
    pub(super) fn error_after_end(&self, quoted: &Flow, now: Micros) -> Option<Verdict> {
        if quoted.key.protocol() == PROTOCOL_TCP {
            let tombstone = self.graveyard.find(&quoted.key, now)?;
            let ago = now.tick().saturating_sub(tombstone.ended.tick());
            return (ago < KNOWN_TICKS).then(|| after_end(Late::new(tombstone.reason, ago)));
        }
        let late = self.ended.find(self.table.place(&quoted.key), now)?;
        Some(after_end(late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ShardId;

    const AT: KeyPlace = KeyPlace {
        shard: ShardId(0),
        hash: 9,
    };

    #[test]
    fn an_end_is_known_for_two_minutes_with_its_reason() {
        let ended = EndedSessions::new(100).unwrap();
        let start = Micros(3_600_000_000);
        assert_eq!(ended.find(AT, start), None);
        for reason in EndReason::ALL {
            ended.note(AT, reason, start);
            let after = |seconds: u64| ended.find(AT, Micros(start.0 + seconds * 1_000_000));
            assert_eq!(after(0), Some(Late::new(reason, 0)));
            assert_eq!(after(119), Some(Late::new(reason, 1_190)));
            assert_eq!(after(120), None);
        }
        let other = KeyPlace {
            shard: ShardId(0),
            hash: 10,
        };
        assert_eq!(ended.find(other, start), None);
    }
}
