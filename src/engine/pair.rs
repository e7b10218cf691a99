//! GRE sessions of one pair of addresses, whose directions may have different keys.
//!
//! RFC 2890 does not require that both directions of a tunnel carry the same key. In some tunnels
//! each end has its own key; in NVGRE (RFC 7637 3.2) the key holds a flow identifier that the
//! sender chooses. The packets of such tunnels have only their addresses in common.
//!
//! A packet belongs to the session of its own key if there is one. If not, it belongs to a session
//! of the pair in which it would be an answer, if any. The first choice is the session that was
//! answered with this key before. The second is a session that has not been answered with a key
//! yet, and the last is the session with the newest packet. Only a packet that is not an answer in
//! any session of the pair may open one.
//!
//! All keys of a pair have one hash, so that one shard holds the sessions of the pair and one
//! search finds them. A pair has at most [`MAX_KEYS`] sessions; packets with further keys belong to
//! the most recently used one. Neither end can therefore make searches long, and the flow
//! identifiers of NVGRE do not create hundreds of sessions for one tunnel.

use super::Engine;
use super::candidate::Candidate;
use super::effects::Effects;
use super::live::Locked;
use super::settings::Settings;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, FlowKey};
use crate::session::{Held, KeyPlace, Micros, Shard, Slot, SlotId};
use crate::verdict::Verdict;

/// Maximum number of sessions that the keys of one address pair open.
pub(super) const MAX_KEYS: usize = 16;

/// Rank of a session for a packet of another key; the greatest is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_answer: bool,
    has_key: bool,
    has_none: bool,
    last: u64,
}

impl Rank {
    fn of(slot: &Slot, flow: &Flow) -> Self {
        let direction = slot.direction_of(flow.source);
        let noted = slot.tunnel_id(direction);
        Self {
            is_answer: direction == Direction::Reply,
            has_key: noted == flow.key.gre_key(),
            has_none: noted.is_none(),
            last: slot.last().0,
        }
    }
}

/// Returns the session of an address pair that a GRE packet belongs to, if no session has the
/// packet's key. `any` is for the quote of an ICMP error that does not reach the key, which may
/// belong to either direction of any session.
pub(super) fn session_of_pair(
    shard: &Shard,
    place: KeyPlace,
    flow: &Flow,
    now: Micros,
    any: bool,
) -> Option<SlotId> {
    if !flow.key.is_keyed_gre() {
        return None;
    }
    let mut best: Option<(Rank, SlotId)> = None;
    let mut sessions = 0;
    shard.find_by(place.hash, |number, slot| {
        if !slot.key.is_of_pair(&flow.key) {
            return false;
        }
        sessions += 1;
        if slot.deadline > now.tick() {
            let fit = (Rank::of(slot, flow), number);
            if best.is_none_or(|best| best < fit) {
                best = Some(fit);
            }
        }
        false
    });
    let (fit, number) = best?;
    (fit.is_answer || any || sessions >= MAX_KEYS).then_some(number)
}

/// Returns whether an address pair has as many GRE sessions as its keys may open.
pub(super) fn is_pair_full(shard: &Shard, place: KeyPlace, key: &FlowKey) -> bool {
    let mut sessions = 0;
    if key.is_keyed_gre() {
        shard.find_by(place.hash, |_, slot| {
            sessions += usize::from(slot.key.is_of_pair(key));
            false
        });
    }
    sessions >= MAX_KEYS
}

impl Engine {
    /// Runs step 4 for a GRE packet without a session of its own key. Returns `None` if no session
    /// of its address pair matches it.
    #[cold]
    #[inline(never)]
    pub(super) fn in_pair<T: Trace>(
        &self,
        locked: &mut Locked<'_>,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let (shard, place) = (&*locked.shard, locked.place);
        let slot = session_of_pair(shard, place, &candidate.flow, candidate.now, false)?;
        trace.step(|| {
            Step::Note(
                "the packet belongs to a session of its address pair, regardless of its GRE key",
            )
        });
        self.hit(&mut locked.live(slot), candidate, effects, trace)
    }

    /// Judges the session of an address pair that a GRE packet belongs to, if a reload has not done
    /// so yet. If that session ends, the packet may belong to another session of the pair, which is
    /// judged next, and so on.
    #[cold]
    #[inline(never)]
    pub(super) fn judge_pair<T: Trace>(
        &self,
        held: &mut Held<Settings>,
        place: KeyPlace,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) {
        let (flow, now) = (&candidate.flow, candidate.now);
        // A pair has one more session if the last one began when all others had expired.
        for _ in 0..=MAX_KEYS {
            let own = held.shard.find(place.hash, &flow.key);
            if own.is_some_and(|own| held.shard.slab.hot(own).deadline > now.tick()) {
                return;
            }
            let Some(number) = session_of_pair(&held.shard, place, flow, now, false) else {
                return;
            };
            let key = held.shard.slab.hot(number).key;
            let Some(ended) = self.judge_first(held, place, &key) else {
                return;
            };
            self.ended_here(place.shard, &ended, now, effects, trace);
        }
    }
}
