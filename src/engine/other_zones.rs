//! The search for the session of a packet in zones other than its own: the two directions of a
//! conversation may arrive through different endpoints.

use super::Engine;
use super::candidate::Candidate;
use super::effects::Effects;
use super::live::Locked;
use super::pair::session_of_pair;
use super::path_evidence::PathEvidence;
use super::settings::Settings;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow, FlowKey, Zone};
use crate::packet::{TcpFlags, Transport};
use crate::policy::handling::Asymmetric;
use crate::session::{KeyPlace, Mark, Slot};
use crate::track::tcp::{Event, Known, Outcome, PassReason};
use crate::track::{self, dccp, sctp};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// Result of the search in one zone.
enum ZoneSearch {
    /// No session matches the packet.
    Nothing,
    /// A session was found, but the verdict of the packet's own zone applies.
    Reported,
    /// A session was found, with the verdict on the packet there.
    Decided(Verdict),
}

impl ZoneSearch {
    const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Decided(verdict) => Some(verdict),
            _ => None,
        }
    }
}

impl Engine {
    /// Notes the zone in which a session begins. Its shard's lock is held.
    #[inline]
    pub(super) fn note_begun(&self, settings: &Settings, key: &FlowKey) {
        if let Some(begun) = &settings.zone_hints.begun {
            let place = self.table.place(&key.in_zone(Zone::DEFAULT));
            begun.note(place, u32::from(key.zone().0));
        }
    }

    /// Returns the zone in which the newest session of a flow began.
    fn begun_in(&self, settings: &Settings, key: &FlowKey) -> Option<Zone> {
        let begun = settings.zone_hints.begun.as_deref()?;
        let place = self.table.place(&key.in_zone(Zone::DEFAULT));
        settings.zone_hints.zone_in(begun, place)
    }

    /// Searches for the session of a packet that matches nothing in its own zone. `place` is that
    /// of the packet's key in its own zone. No lock is held.
    ///
    /// 1. The zone in which the session of this flow was found last, and the zone in which it
    ///    began: one lookup each, outside the budget.
    /// 2. All other zones, up to [`AsymmetryConfig::searched_zones`]: one lookup each. A search
    ///    that finds nothing is charged to the budget of the zone in which the packet arrived.
    #[cold]
    #[inline(never)]
    pub(super) fn search_other_zones<T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        place: KeyPlace,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let settings = self.settings();
        let (hints, config) = (&settings.zone_hints, &settings.asymmetry);
        let own = candidate.flow.key.zone();
        if config.searches == 0 || config.searched_zones == 0 {
            return None;
        }
        let remembered = hints.remembered(place).filter(|zone| *zone != own);
        if let Some(zone) = remembered {
            let found = self.in_zone(zone, candidate, effects, trace);
            if !matches!(found, ZoneSearch::Nothing) {
                return found.verdict();
            }
        }
        let begun = self.begun_in(&settings, &candidate.flow.key);
        if let Some(zone) = begun.filter(|zone| *zone != own && Some(*zone) != remembered) {
            let found = self.in_zone(zone, candidate, effects, trace);
            if !matches!(found, ZoneSearch::Nothing) {
                hints.remember(place, zone);
                return found.verdict();
            }
        }
        let search = hints.take(own, candidate.now, config)?;
        let others = hints.zones.iter().filter(|zone| **zone != own);
        for zone in others.take(config.searched_zones as usize) {
            let found = self.in_zone(*zone, candidate, effects, trace);
            if !matches!(found, ZoneSearch::Nothing) {
                search.was_right();
                hints.remember(place, *zone);
                return found.verdict();
            }
        }
        None
    }

    fn in_zone<T: Trace>(
        &self,
        zone: Zone,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> ZoneSearch {
        let key: FlowKey = candidate.flow.key.in_zone(zone);
        let place = self.table.place(&key);
        let mut held = self.table.lock(place.shard);
        let flow = Flow {
            key,
            source: candidate.flow.source,
        };
        let found = held.shard.find(place.hash, &key);
        let found =
            found.or_else(|| session_of_pair(&held.shard, place, &flow, candidate.now, false));
        let found = found
            .filter(|number| !self.is_to_end(&mut held, place, *number))
            .filter(|number| held.shard.slab.hot(*number).deadline > candidate.now.tick());
        let Some(slot_id) = found else {
            return ZoneSearch::Nothing;
        };
        let mut locked = Locked::new(&self.table, &mut held, place);
        let mut live = locked.live(slot_id);
        let settings = live.settings;
        let slot = live.hot();
        let direction = slot.direction_of(candidate.flow.source);
        let rule = live.rule();
        let mode = settings.tcp(rule, zone).asymmetric;
        let transport = &candidate.parsed.transport;
        let split_handshake = settings.enforcement.split_handshake;
        let fit = ZoneMatch::under(mode, slot, direction, transport, split_handshake);
        if fit == ZoneMatch::Not {
            return ZoneSearch::Nothing;
        }
        if direction == Direction::Original && !has_numbers(transport) {
            // Any host may have sent the packet, and no direction is missing.
            return ZoneSearch::Nothing;
        }
        trace.step(|| Step::Elsewhere(key));
        effects.evidence = (fit == ZoneMatch::Known).then(|| PathEvidence::in_zone(zone));
        if effects.stands {
            return ZoneSearch::Reported;
        }
        let known = live.cold().has(Mark::Bypassed);
        let reason = DropReason::OtherZone;
        let tracked = Tracked {
            direction: Some(direction),
            session: Some(live.id()),
            ..Tracked::class(Class::Invalid)
        };
        if settings.bars_options(&candidate.parsed.ip, rule) {
            return ZoneSearch::Decided(Verdict::Drop(DropReason::IpOptions, tracked));
        }
        match mode {
            Asymmetric::Drop => ZoneSearch::Decided(Verdict::Drop(reason, tracked)),
            Asymmetric::Report => {
                effects.tolerated = Some((reason, rule));
                ZoneSearch::Decided(Verdict::Forward(Tracked {
                    tolerated: Some(reason),
                    ..tracked
                }))
            }
            Asymmetric::Bypass => {
                live.cold_mut().set(Mark::Bypassed, true);
                effects.bypassed |= !known;
                let moved = Candidate {
                    flow,
                    source: None,
                    flow_bits: 0,
                    ..*candidate
                };
                let evidence = effects.evidence;
                let verdict = self.hit(&mut live, &moved, effects, trace);
                effects.evidence = evidence;
                verdict.map_or(ZoneSearch::Nothing, ZoneSearch::Decided)
            }
        }
    }
}

/// Match of a packet with a session, tested on a copy of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ZoneMatch {
    /// The packet would be dropped.
    Not,
    /// The packet would be allowed, but any host may have sent it: an inexact RST, an unsolicited
    /// SYN-ACK.
    Unproved,
    /// The packet would be allowed, and has numbers of the session if its protocol has any.
    Known,
}

impl ZoneMatch {
    /// Returns the match of a packet under a mode of asymmetric paths.
    fn under(
        mode: Asymmetric,
        slot: &Slot,
        direction: Direction,
        transport: &Transport,
        split_handshake: bool,
    ) -> Self {
        let fit = Self::of(slot, direction, transport, split_handshake);
        if fit != Self::Not || mode != Asymmetric::Report {
            return fit;
        }
        // A session that is only reported keeps its state: a FIN is treated like the ACK that it
        // carries.
        let without_fin = without_fin(transport);
        without_fin.map_or(fit, |segment| {
            Self::of(slot, direction, &segment, split_handshake)
        })
    }

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
                    Outcome::Pass(PassReason::OutOfStep | PassReason::Rst) => {
                        return Self::Unproved;
                    }
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

/// Returns a segment with its FIN removed.
fn without_fin(transport: &Transport) -> Option<Transport> {
    let mut without = *transport;
    let Transport::Tcp { segment, .. } = &mut without else {
        return None;
    };
    (Event::of(segment.flags) == Event::Fin).then(|| segment.flags.0 &= !TcpFlags::FIN.0)?;
    Some(without)
}

/// Returns whether a packet has numbers that only an observer of its session can have.
const fn has_numbers(transport: &Transport) -> bool {
    matches!(
        transport,
        Transport::Tcp { .. } | Transport::Sctp { .. } | Transport::Dccp { .. }
    )
}

const fn is_right<F>(outcome: &track::Outcome<F>) -> bool {
    !matches!(outcome, track::Outcome::Invalid(_) | track::Outcome::Reopen)
}
