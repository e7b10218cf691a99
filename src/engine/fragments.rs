//! Step 2 of the packet path: the first fragment of a datagram is decided, and later ones follow
//! it.

use super::effects::Effects;
use super::faults::invalid;
use super::history_events::note_events;
use super::{Engine, Packet};
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::fragment::{Arrival, DatagramKey, Fate, Followed, Joined, LaterFragment};
use crate::packet::{self, Fragment, Ip, IpVersion, Parsed, Transport};
use crate::policy::RuleId;
use crate::session::history::Letter;
use crate::track::tcp::window::sequence_len;
use crate::verdict::{Class, DropReason, Tracked, Verdict};

impl Engine {
    #[cold]
    #[inline(never)]
    pub(super) fn fragment<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        fragment: &Fragment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let key = DatagramKey::of(packet.zone, &parsed.ip, fragment);
        let arrival = Arrival {
            key: &key,
            fragment,
            prefix: self.counted_source(&parsed.ip),
            max_end: fragment.max_end(&parsed.ip),
            now: self.origin.micros(packet.now),
            can_hold: packet.can_hold,
        };
        match self.datagrams.join(&arrival) {
            Joined::Passes(part) => {
                trace.step(|| {
                    Step::Datagram(
                        key,
                        "a later fragment: the decision on the first one applies",
                    )
                });
                if part.complete {
                    trace.step(|| Step::Datagram(key, "complete, and forgotten"));
                }
                self.later(packet, parsed, &part, trace)
            }
            Joined::Drops(reason, tracked) => {
                trace.step(|| Step::Datagram(key, reason.describe()));
                Verdict::Drop(reason, tracked.unwrap_or(Tracked::class(Class::Invalid)))
            }
            Joined::Unknown | Joined::Expired if fragment.offset == 0 => {
                self.first::<S, T>(packet, parsed, &arrival, effects, trace)
            }
            Joined::Unknown => {
                trace.step(|| Step::Datagram(key, "unknown: a later fragment identifies no flow"));
                invalid(DropReason::FragmentBeforeFirst)
            }
            Joined::Held(id, evicted) => {
                trace.step(|| {
                    Step::Datagram(key, "waits for the first fragment, which has not arrived")
                });
                effects.released = evicted;
                Verdict::Hold(id, Tracked::class(Class::Invalid))
            }
            Joined::Expired => {
                trace.step(|| Step::Datagram(key, "the datagram has expired"));
                invalid(DropReason::FragmentExpired)
            }
        }
    }

    /// Decides a first fragment: a packet like any other, whose verdict is stored.
    fn first<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        arrival: &Arrival<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let (key, fragment) = (*arrival.key, arrival.fragment);
        if let Err(reason) = self.datagrams.open(&key) {
            trace.step(|| Step::Datagram(key, reason.describe()));
            return invalid(reason);
        }
        trace.step(|| Step::Datagram(key, "the first fragment decides"));
        let (verdict, followed) = match packet::parse_first_fragment(packet.bytes, parsed) {
            Err(malformed) => {
                trace.step(|| Step::Malformed(malformed));
                (invalid(DropReason::Malformed(malformed)), None)
            }
            Ok(first) if matches!(first.transport, Transport::Discovery { .. }) => {
                (invalid(DropReason::DiscoveryFragmented), None)
            }
            Ok(first) => {
                trace.step(|| Step::Parsed(Box::new(first)));
                // The allowed options depend on the kind of the packet, which was not known before.
                if let Some(reason) = packet.screen.check(&first, packet.tunneled) {
                    let refused = Tracked::class(Class::Invalid);
                    effects.released = self.datagrams.settle(arrival, Fate::Refused(refused));
                    return invalid(reason);
                }
                // A helper does not read a partial payload: the missing bytes appear as a gap.
                let without_payload = Packet {
                    bytes: &[],
                    ..*packet
                };
                let now = self.origin.micros(packet.now);
                let located = self.locate(packet.zone, &first, None, now);
                let verdict = self.dispatch::<S, T>(
                    &without_payload,
                    &first,
                    located.as_ref(),
                    effects,
                    trace,
                );
                if let Verdict::Hold(..) = verdict {
                    // It decides when it is submitted again, and the others wait until then.
                    self.datagrams.put_off(&key);
                    return verdict;
                }
                let tracked = *verdict.tracked();
                let followed = Followed {
                    tracked,
                    flow: located.map(|located| located.flow.key),
                    base: match &first.transport {
                        Transport::Tcp { segment, .. } if effects.believed => {
                            let end = segment.seq.add(sequence_len(segment));
                            Some(end.sub(u32::from(fragment.payload_len)))
                        }
                        _ => None,
                    },
                };
                (verdict, verdict.is_forward().then_some(followed))
            }
        };
        let fate = followed.map_or(Fate::Refused(*verdict.tracked()), Fate::Admitted);
        effects.released = self.datagrams.settle(arrival, fate);
        if effects.released.is_some() {
            trace.step(|| Step::Datagram(key, "fragments that arrived earlier are decided now"));
        }
        verdict
    }

    /// Returns the prefix by which a packet's source is counted.
    fn counted_source(&self, ip: &Ip) -> u128 {
        let v6 = matches!(ip.version, IpVersion::V6);
        self.fixed.prefixes.counted(ip.src, v6)
    }

    /// Counts a later fragment that is forwarded in its session, if the session is still there. The
    /// fragment does not refresh the session, since it proves no more than its datagram did.
    fn later<T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        part: &LaterFragment,
        trace: &mut T,
    ) -> Verdict {
        let Followed { tracked, flow, .. } = part.followed;
        let verdict = Verdict::Forward(tracked);
        if !parsed.ip.options.is_empty() && !self.allows_options_of(&part.followed) {
            return Verdict::Drop(DropReason::IpOptions, tracked);
        }
        let (Some(key), Some(session), Some(direction)) =
            (flow, tracked.session, tracked.direction)
        else {
            return verdict;
        };
        let now = self.origin.micros(packet.now);
        let (shard_id, _) = self.table.slot_of(session);
        trace.step(|| Step::Key(key, shard_id.0));
        let mut held = self.table.lock(shard_id);
        let shard = &mut held.shard;
        let found = self.table.find_id(shard, session);
        let found = found.filter(|number| shard.slab.hot(*number).deadline > now.tick());
        let Some(number) = found else {
            trace.step(|| Step::Note("the session has ended since"));
            return verdict;
        };
        let slot = shard.slab.hot_mut(number);
        slot.count(direction, parsed.ip.total_len);
        slot.touch(now);
        if let Some((from, to)) = part.moves {
            slot.track.extend(direction, from, to);
            let side = slot.track.side(direction);
            trace.step(|| Step::Side("after", direction, side));
            note_events(shard, number, direction, [Some(Letter::Data), None, None]);
        }
        trace.step(|| Step::NotRefreshed("only the first fragment may refresh it"));
        verdict
    }

    /// Returns whether a later fragment may have IP options, by the rule of its datagram's session.
    /// A datagram without a session, or with one that has ended, has no rule.
    #[cold]
    fn allows_options_of(&self, followed: &Followed) -> bool {
        let settings = self.settings();
        if !settings.any_strict_options {
            return true;
        }
        let rule = followed.tracked.session.and_then(|session| {
            let (shard, _) = self.table.slot_of(session);
            let held = self.table.lock(shard);
            let number = self.table.find_id(&held.shard, session)?;
            Some(RuleId(held.shard.slab.cold(number).rule))
        });
        settings.allows_options(rule.unwrap_or(RuleId::DEFAULT))
    }
}
