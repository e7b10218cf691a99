//! The search for the session of a packet in other zones than the one in which it came: the two
//! directions of a conversation may come through different endpoints.

use super::Engine;
use super::candidate::Candidate;
use super::effects::After;
use super::evidence::Seen;
use super::pair::session_of_pair;
use super::settings::Settings;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, FlowKey, Zone};
use crate::packet::{TcpFlags, Transport};
use crate::policy::RuleId;
use crate::policy::handling::Asymmetric;
use crate::session::{Held, Mark, Place, Slot};
use crate::track::tcp::{Event, Known, Outcome, PassReason};
use crate::track::{self, dccp, sctp};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// What was found in a zone.
enum Found {
    /// No session that the packet fits.
    Nothing,
    /// A session, but the verdict of the packet's own zone stands.
    Reported,
    /// A session, and the verdict on the packet there.
    Decided(Verdict),
}

impl Found {
    const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Decided(verdict) => Some(verdict),
            _ => None,
        }
    }
}

impl Engine {
    /// Notes in which zone a session begins. Its shard's lock is held.
    #[inline]
    pub(super) fn note_begun(&self, settings: &Settings, key: &FlowKey) {
        if let Some(begun) = &settings.elsewhere.begun {
            let place = self.table.place(&key.in_zone(Zone::DEFAULT));
            begun.note(place, u32::from(key.zone().0));
        }
    }

    /// The zone in which the newest session of a flow began.
    fn begun_in(&self, settings: &Settings, key: &FlowKey) -> Option<Zone> {
        let begun = settings.elsewhere.begun.as_deref()?;
        let place = self.table.place(&key.in_zone(Zone::DEFAULT));
        settings.elsewhere.zone_in(begun, place)
    }

    /// Looks for the session of a packet that fits nothing in its own zone. `place` is that of its key in
    /// its own zone. No lock is held.
    ///
    /// 1. The zone in which the session of this flow was found last, and the one in which it began. A
    ///    look-up each, and no budget.
    /// 2. All other zones, up to [`AsymmetryConfig::searched_zones`]: a look-up each. A search that finds
    ///    nothing is charged to the budget of the zone in which the packet came.
    #[cold]
    #[inline(never)]
    pub(super) fn elsewhere<T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        place: Place,
        after: &mut After,
        trace: &mut T,
    ) -> Option<Verdict> {
        let settings = self.settings();
        let (elsewhere, config) = (&settings.elsewhere, &settings.asymmetry);
        let own = candidate.flow.key.zone();
        if config.searches == 0 || config.searched_zones == 0 {
            return None;
        }
        let remembered = elsewhere.remembered(place).filter(|zone| *zone != own);
        if let Some(zone) = remembered {
            let found = self.in_zone(zone, candidate, after, trace);
            if !matches!(found, Found::Nothing) {
                return found.verdict();
            }
        }
        let begun = self.begun_in(&settings, &candidate.flow.key);
        if let Some(zone) = begun.filter(|zone| *zone != own && Some(*zone) != remembered) {
            let found = self.in_zone(zone, candidate, after, trace);
            if !matches!(found, Found::Nothing) {
                elsewhere.remember(place, zone);
                return found.verdict();
            }
        }
        let search = elsewhere.take(own, candidate.now, config)?;
        let others = elsewhere.zones.iter().filter(|zone| **zone != own);
        for zone in others.take(config.searched_zones as usize) {
            let found = self.in_zone(*zone, candidate, after, trace);
            if !matches!(found, Found::Nothing) {
                search.was_right();
                elsewhere.remember(place, *zone);
                return found.verdict();
            }
        }
        None
    }

    fn in_zone<T: Trace>(
        &self,
        zone: Zone,
        candidate: &Candidate<'_>,
        after: &mut After,
        trace: &mut T,
    ) -> Found {
        let key: FlowKey = candidate.flow.key.in_zone(zone);
        let place = self.table.place(&key);
        let mut held = self.table.lock(place.shard);
        let flow = Flow {
            key,
            source: candidate.flow.source,
        };
        let found = held.shard.find(place.hash, &key);
        let found = found.or_else(|| session_of_pair(&held.shard, place, &flow, candidate.now, false));
        let found = found
            .filter(|number| !self.is_to_end(&mut held, place, *number))
            .filter(|number| held.shard.slab.hot(*number).deadline > candidate.now.tick());
        let Held { shard, settings, .. } = &mut *held;
        let settings: &Settings = settings;
        let Some(number) = found else {
            return Found::Nothing;
        };
        let slot = shard.slab.hot(number);
        let direction = slot.direction_of(candidate.flow.source);
        let rule = RuleId(shard.slab.cold(number).rule);
        let reports = settings.tcp(rule, zone).asymmetric == Asymmetric::Report;
        let transport = &candidate.parsed.transport;
        let split_handshake = settings.checks.split_handshake;
        let mut fit = Fit::of(slot, direction, transport, split_handshake);
        if fit == Fit::Not && reports {
            // A session that is only reported stays where it was: to it, a FIN is as good as the ACK that it carries.
            let it = without_fin(transport);
            fit = it.map_or(fit, |it| Fit::of(slot, direction, &it, split_handshake));
        }
        if fit == Fit::Not {
            return Found::Nothing;
        }
        if direction == Direction::Original && !has_numbers(transport) {
            // Anybody may have sent it, and no half is missing.
            return Found::Nothing;
        }
        trace.step(|| Step::Elsewhere(key));
        after.seen = (fit == Fit::Known).then(|| Seen::in_zone(zone));
        if after.stands {
            return Found::Reported;
        }
        let known = shard.slab.cold(number).has(Mark::Bypassed);
        let reason = DropReason::OtherZone;
        let tracked = Tracked {
            direction: Some(direction),
            session: Some(self.table.id(place.shard, number, slot.generation)),
            ..Tracked::class(Class::Invalid)
        };
        if settings.bars_options(&candidate.parsed.ip, rule) {
            return Found::Decided(Verdict::Drop(DropReason::IpOptions, tracked));
        }
        match settings.tcp(rule, zone).asymmetric {
            Asymmetric::Drop => Found::Decided(Verdict::Drop(reason, tracked)),
            Asymmetric::Report => {
                after.tolerated = Some((reason, rule));
                Found::Decided(Verdict::Forward(Tracked {
                    tolerated: Some(reason),
                    ..tracked
                }))
            }
            Asymmetric::Bypass => {
                shard.slab.cold_mut(number).set(Mark::Bypassed, true);
                after.bypassed |= !known;
                let moved = Candidate {
                    flow,
                    flow_bits: 0,
                    ..*candidate
                };
                let seen = after.seen;
                let verdict = self.hit((shard, settings), place, number, &moved, after, trace);
                after.seen = seen;
                verdict.map_or(Found::Nothing, Found::Decided)
            }
        }
    }
}

/// How a packet fits a session, found out on a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It would not pass.
    Not,
    /// It would pass, but anybody may have sent it: a RST that is not exact, a SYN-ACK that answers nothing.
    Unproved,
    /// It would pass, and has numbers of the session if its protocol has any.
    Known,
}

impl Fit {
    fn of(slot: &Slot, direction: Direction, transport: &Transport, split_handshake: bool) -> Self {
        let is_right = match transport {
            Transport::Tcp { segment, .. } => {
                let known = Known {
                    seen_reply: slot.seen_reply(),
                    assured: slot.assured(),
                    split_handshake,
                };
                let mut track = slot.track;
                match track.segment(direction, segment, known, |_| {}) {
                    Outcome::Pass(PassReason::OutOfStep | PassReason::Rst) => return Self::Unproved,
                    outcome => !matches!(outcome, Outcome::Invalid(_) | Outcome::Reopen),
                }
            }
            Transport::Sctp { packet, .. } => {
                let mut association: sctp::Track = slot.sctp();
                is_right(&association.packet(direction, packet))
            }
            Transport::Dccp { packet, .. } => {
                let mut connection: dccp::Track = slot.dccp();
                is_right(&connection.packet(direction, packet))
            }
            _ => true,
        };
        if is_right { Self::Known } else { Self::Not }
    }
}

/// A segment with a FIN as it would be without.
fn without_fin(transport: &Transport) -> Option<Transport> {
    let mut without = *transport;
    let Transport::Tcp { segment, .. } = &mut without else {
        return None;
    };
    (Event::of(segment.flags) == Event::Fin).then(|| segment.flags.0 &= !TcpFlags::FIN.0)?;
    Some(without)
}

/// Whether a packet has numbers that only one who has seen its session can know.
const fn has_numbers(transport: &Transport) -> bool {
    matches!(
        transport,
        Transport::Tcp { .. } | Transport::Sctp { .. } | Transport::Dccp { .. }
    )
}

const fn is_right<F>(outcome: &track::Outcome<F>) -> bool {
    !matches!(outcome, track::Outcome::Invalid(_) | track::Outcome::Reopen)
}
