//! The packet path, step by step as [`Engine::process`] numbers it.

use super::candidate::{Candidate, Located, screened_anew};
use super::effects::Effects;
use super::faults::invalid;
use super::live::Locked;
use super::record::NotifiedSender;
use super::screen::Screen;
use super::settings::Settings;
use super::short_way::Fallback;
use super::{Engine, Packet};
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::flow::{Flow, Zone};
use crate::packet::{self, Checksums, Malformed, Parsed, TcpFlags, Transport};
use crate::session::{Ended, Held, KeyPlace, Micros, ShardId};
use crate::verdict::{DropReason, Verdict};

impl Engine {
    /// Prepares a packet for parsing by the settings.
    #[inline]
    pub(super) fn prepare<'p>(
        &self,
        packet: Packet<'p>,
        screen: Screen,
    ) -> (Packet<'p>, Checksums) {
        let packet = Packet {
            zone: self.fixed.zones.group_of(packet.zone),
            screen,
            ..packet
        };
        (packet, screen.checksums_of(packet.offloaded))
    }

    /// Returns a packet's flow and the location of its key, which may be known already; `None` for
    /// a packet without a flow.
    #[inline]
    pub(super) fn locate(
        &self,
        zone: Zone,
        parsed: &Parsed,
        known: Option<KeyPlace>,
        now: Micros,
    ) -> Option<Located> {
        let flow = Flow::of(zone, parsed)?;
        let place = known.unwrap_or_else(|| self.table.place(&flow.key));
        Some(Located {
            flow,
            place,
            source: None,
            now,
        })
    }

    #[inline]
    pub(super) fn decide<S: Sink, T: Trace>(
        &self,
        packet: Packet<'_>,
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        if T::ON {
            return self.decide_in_full(packet, None, sink, trace);
        }
        match self.decide_single(&packet) {
            Ok(verdict) => verdict,
            Err(known) => self.decide_in_full(packet, known, sink, trace),
        }
    }

    /// Decides a packet that does not take the [short way](super::short_way); `known` is the result
    /// of the short way's parser.
    #[inline(never)]
    pub(super) fn decide_in_full<S: Sink, T: Trace>(
        &self,
        packet: Packet<'_>,
        known: Option<Fallback>,
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        let screen = self.screen.get();
        let (packet, checksums) = self.prepare(packet, screen);
        // The short way reads a packet only if its checksums are correct under the same settings.
        let checksums = match known {
            Some(known) if known.screen == screen => Checksums::Trust,
            _ => checksums,
        };
        // The result is borrowed and not moved: copying data that was just written would wait for
        // the stores.
        let result = packet::parse(packet.bytes, checksums);
        let located = match &result {
            Ok(parsed) => {
                let now = self.origin.micros(packet.now);
                self.locate(packet.zone, parsed, known.map(|known| known.place), now)
            }
            Err(_) => None,
        };
        self.finish(&packet, &result, located.as_ref(), sink, trace)
    }

    /// Runs steps 2 to 7 on the result of step 1.
    #[inline(always)]
    pub(super) fn finish<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        result: &Result<Parsed, Malformed>,
        located: Option<&Located>,
        sink: &mut S,
        trace: &mut T,
    ) -> Verdict {
        let parsed = match result {
            Ok(parsed) => parsed,
            Err(malformed) => {
                trace.step(|| Step::Malformed(*malformed));
                let verdict = invalid(DropReason::Malformed(*malformed));
                self.counters.verdict(&verdict, 0);
                return verdict;
            }
        };
        trace.step(|| Step::Parsed(Box::new(*parsed)));
        if let Some(reason) = packet.screen.check(parsed, packet.tunneled) {
            let verdict = invalid(reason);
            self.counters.verdict(&verdict, parsed.ip.total_len);
            return verdict;
        }
        let mut effects = Effects::default();
        let verdict = self.dispatch::<S, T>(packet, parsed, located, &mut effects, trace);
        // 7. Counters and events, without a lock.
        self.counters.verdict(&verdict, parsed.ip.total_len);
        self.take_effect(packet, parsed, &effects, sink);
        if !verdict.is_forward()
            && let (Some(Located { place, .. }), Transport::Tcp { segment, .. }) =
                (located, &parsed.transport)
            && segment.flags.contains(TcpFlags::SYN)
            && !matches!(verdict, Verdict::Hold(..))
            && !verdict.reason().is_some_and(DropReason::is_challenge)
        {
            self.note_cut(*place, segment, verdict.tracked(), packet.now);
        }
        effects.report(&verdict, sink);
        if let Some(question) = &effects.question {
            self.report_question(question, packet.now, sink);
        }
        verdict
    }

    /// Reports ended sessions and counts events.
    #[inline(always)]
    fn take_effect<S: Sink>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        effects: &Effects,
        sink: &mut S,
    ) {
        if effects.has_ended() {
            self.report_ends(packet, effects, sink);
        }
        if let Some((reason, rule)) = effects.tolerated {
            self.settings().enforcement.count(reason, rule);
        }
        if effects.any_opened {
            self.counters.opened(effects.marks);
        }
        if effects.bypassed {
            self.counters.bypassed();
        }
        if let Some(evidence) = effects.evidence {
            self.note_evidence(packet, parsed, evidence);
        }
    }

    /// Reports the sessions that a packet has ended.
    #[inline(never)]
    fn report_ends<S: Sink>(&self, packet: &Packet<'_>, effects: &Effects, sink: &mut S) {
        let told = NotifiedSender {
            now: self.origin.micros(packet.now),
            by_verdict: effects.answered,
        };
        for (shard, ended) in effects.ended.iter().flatten().chain(&effects.more_ended) {
            self.report_ended(*shard, ended, told, sink);
        }
    }

    /// Runs steps 2 to 6.
    #[inline(always)]
    pub(super) fn dispatch<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        located: Option<&Located>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        match (located, &parsed.transport) {
            // 4. The session's lock.
            (Some(located), _) => {
                let (flow, place) = (located.flow, located.place);
                trace.step(|| Step::Key(flow.key, place.shard.0));
                let candidate = Candidate {
                    bytes: packet.bytes,
                    parsed,
                    flow,
                    source: located.source,
                    now: located.now,
                    instant: packet.now,
                    tunnel: packet.tunnel,
                    flow_bits: packet.flow_bits,
                    screen: packet.screen,
                    tunneled: packet.tunneled,
                    has_checksums: !packet.offloaded && !packet.bytes.is_empty(),
                    searched: false,
                    sheddable: packet.sheddable,
                    can_ask: S::LISTENS && packet.can_hold && self.questions.is_some(),
                };
                let verdict = {
                    let mut held = self.table.lock(place.shard);
                    if held.judging.is_some() {
                        self.under_reload(&mut held, place, &candidate, effects, trace);
                    }
                    let mut locked = Locked::new(&self.table, &mut held, place);
                    self.tracked::<S, T>(&mut locked, &candidate, effects, trace)
                };
                if matches!(parsed.transport, Transport::Sctp { .. })
                    && !verdict.is_forward()
                    && self.paths.len() != 0
                    && let Some(found) = self.on_path(&candidate, effects, trace)
                {
                    return found;
                }
                if effects.is_elsewhere && !verdict.is_forward() {
                    let found = self.across_zones::<S, T>(&candidate, place, effects, trace);
                    return found.unwrap_or(verdict);
                }
                verdict
            }
            (None, transport) => {
                let newest = self.screen.get();
                if newest != packet.screen
                    && let Some(reason) = newest.check_anew(packet, parsed)
                {
                    return invalid(reason);
                }
                match transport {
                    // 2. Fragments.
                    Transport::Fragment(fragment) => {
                        self.fragment::<S, T>(packet, parsed, fragment, effects, trace)
                    }
                    // 3. ICMP errors, discovery.
                    Transport::IcmpError(error) => {
                        self.related::<S, T>(packet, parsed, error, effects, trace)
                    }
                    Transport::Discovery { kind } => {
                        self.discovery(packet, parsed, *kind, effects, trace)
                    }
                    _ => invalid(DropReason::IcmpTypeUnsupported),
                }
            }
        }
    }

    /// Searches other zones for the session of a packet that its own zone drops. If no zone has the
    /// session, judges the packet in its own zone again. No lock is held.
    #[cold]
    #[inline(never)]
    fn across_zones<S: Sink, T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        place: KeyPlace,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let found = self.search_other_zones(candidate, place, effects, trace);
        if found.is_some() || !effects.then_own_zone {
            return found;
        }
        let candidate = Candidate {
            searched: true,
            ..*candidate
        };
        let mut held = self.table.lock(place.shard);
        if held.judging.is_some() {
            self.under_reload(&mut held, place, &candidate, effects, trace);
        }
        let mut locked = Locked::new(&self.table, &mut held, place);
        Some(self.tracked::<S, T>(&mut locked, &candidate, effects, trace))
    }

    /// Judges the packet's session before step 4 if a reload has not done so yet.
    #[cold]
    #[inline(never)]
    fn under_reload<T: Trace>(
        &self,
        held: &mut Held<Settings>,
        place: KeyPlace,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) {
        if let Some(ended) = self.judge_first(held, place, &candidate.flow.key) {
            self.ended_here(place.shard, &ended, candidate.now, effects, trace);
        }
        if candidate.flow.key.is_keyed_gre() {
            self.judge_pair(held, place, candidate, effects, trace);
        }
    }

    /// Runs steps 4 to 6, under the shard's lock.
    fn tracked<S: Sink, T: Trace>(
        &self,
        locked: &mut Locked<'_>,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        if candidate.screen != locked.settings.screen
            && let Some(reason) = screened_anew(candidate, locked.settings)
        {
            return invalid(reason);
        }
        let mut replaces = None;
        if let Some(slot) = locked.shard.find(locked.place.hash, &candidate.flow.key) {
            let mut live = locked.live(slot);
            if live.hot().deadline <= candidate.now.tick()
                && !self.extend_found_for_children(&mut live, candidate.now)
            {
                let ended = live.shard.end_expired(slot);
                self.ended_here(live.shard_id, &ended, candidate.now, effects, trace);
            } else {
                match self.hit(&mut live, candidate, effects, trace) {
                    Some(verdict) => return verdict,
                    None => replaces = Some(slot),
                }
            }
        } else {
            trace.step(|| Step::Miss);
        }
        if candidate.flow.key.is_keyed_gre()
            && let Some(verdict) = self.in_pair(locked, candidate, effects, trace)
        {
            return verdict;
        }
        self.miss::<S, T>(locked, candidate, replaces, effects, trace)
    }

    /// Records the end of a session under the lock that the caller holds. The rest follows once the
    /// lock is released.
    pub(super) fn ended_here<T: Trace>(
        &self,
        shard: ShardId,
        ended: &Ended,
        now: Micros,
        effects: &mut Effects,
        trace: &mut T,
    ) {
        self.bury(shard, ended, now);
        effects.end(shard, *ended);
        if T::ON
            && let Some(record) = self.record_of_ended(shard, ended)
        {
            trace.step(|| Step::Ended(Box::new(record), ended.reason));
        }
    }
}
