//! RSTs at the end of a session, and the tombstone of the session.

use super::budget::Destination;
use super::one_way::Cut;
use super::pair::session_of_pair;
use super::record::NotifiedSender;
use super::settings::Settings;
use super::{Engine, Packet};
use crate::event::Sink;
use crate::flow::{Direction, End, Flow, FlowKey};
use crate::packet::{self, Checksums, PROTOCOL_SCTP, PROTOCOL_TCP, Segment, SeqNum, TcpFlags};
use crate::policy::RuleId;
use crate::policy::handling::LatePacket;
use crate::reset::{Numbers, Reset, ResetOf, Unsent};
use crate::session::{
    EndReason, Ended, Hashes, KeyPlace, Micros, Remembered, SessionId, SessionUid, ShardId,
    Tombstone, TunnelRef,
};
use crate::track::tcp::{Event, State};
use crate::verdict::{Class, DropReason, Late, Reply, Tracked, Verdict};

/// Returns session and path of a RST. The path is that of its direction; if none is known, that of
/// the other direction.
fn reset_of(uid: SessionUid, id: SessionId, direction: Direction, ended: &Ended) -> ResetOf {
    let [original, reply] = ended.tunnels;
    let (own, other) = match direction {
        Direction::Original => (original, reply),
        Direction::Reply => (reply, original),
    };
    let own_direction = own != TunnelRef::NONE || other == TunnelRef::NONE;
    ResetOf {
        session: id,
        uid,
        rule: RuleId(ended.cold.rule),
        direction,
        tunnel: if own_direction { own } else { other },
        own_direction,
    }
}

/// Returns the destination of a packet to an end, as budgets count it.
const fn destination(key: &FlowKey, to: End) -> Destination {
    Destination {
        zone: key.zone(),
        address: key.address_number(to),
    }
}

const fn reason_after(end: EndReason) -> DropReason {
    match end {
        EndReason::Reset => DropReason::TcpAfterReset,
        EndReason::Evicted => DropReason::TcpAfterEviction,
        EndReason::Revoked => DropReason::TcpAfterRevocation,
        EndReason::Deleted => DropReason::TcpAfterDeletion,
        EndReason::FtpRefused => DropReason::FtpRefused,
        _ => DropReason::TcpAfterTimeout,
    }
}

/// Answer to a late packet.
pub(super) enum LateAnswer {
    /// The packet gets this verdict.
    Verdict(Verdict),
    /// The packet opens a new session, if the policy admits it; else it gets this verdict.
    Readmit(Verdict),
}

impl Engine {
    /// Records a TCP session that has ended before its connection did, as far as is known. The
    /// caller holds the shard's lock, so that a packet finds either the session or its tombstone.
    pub(super) fn bury(&self, shard: ShardId, ended: &Ended, now: Micros) {
        self.bury_foreseen(shard, ended, None, now);
    }

    /// Records a session like [`Engine::bury`]; `known` are its hashes, if they are known.
    pub(super) fn bury_foreseen(
        &self,
        shard: ShardId,
        ended: &Ended,
        known: Option<&Hashes>,
        now: Micros,
    ) {
        let key = &ended.slot.key;
        let place = || match known {
            Some(known) => KeyPlace {
                shard,
                hash: known.index,
            },
            None => self.table.place(key),
        };
        let remembered = matches!(
            ended.reason,
            EndReason::Timeout
                | EndReason::Reset
                | EndReason::Evicted
                | EndReason::Revoked
                | EndReason::Deleted
                | EndReason::FtpRefused
        );
        if ended.slot.key.protocol() == PROTOCOL_SCTP {
            self.paths
                .forget(self.table.id(shard, ended.id, ended.slot.generation));
        }
        if ended.slot.key.protocol() != PROTOCOL_TCP {
            self.ended.note(place(), ended.reason, now);
            return;
        }
        let state = ended.slot.track.state();
        if matches!(state, State::SynSent | State::SynSent2 | State::SynRecv) {
            // The SYN was forwarded, and may still be answered.
            self.cut.note(place(), Cut::Syn, now);
        }
        let is_open = !matches!(
            state,
            State::SynSent | State::SynSent2 | State::SynRecv | State::TimeWait
        );
        // A tombstone of an earlier session of these ends is obsolete. If neither end considers the
        // connection open, no other takes its place.
        let tombstone_hash = known.and_then(|known| known.tombstone);
        if !remembered || !is_open {
            match tombstone_hash {
                Some(hash) => self.graveyard.forget_at(hash, key),
                None => self.graveyard.forget(key),
            }
            return;
        }
        let id = self.table.id(shard, ended.id, ended.slot.generation);
        let rule = RuleId(ended.cold.rule);
        let mut tombstone = Tombstone::new(&ended.slot, id, rule, ended.reason, now);
        tombstone.tunnels = ended.tunnels;
        let hash = tombstone_hash.unwrap_or_else(|| self.graveyard.hash(key));
        self.graveyard.bury_at(hash, &tombstone);
    }

    /// Sends a RST to both ends of an established TCP session that has ended. Each RST has the
    /// exact number that its receiver expects (RFC 5961 3.2): the receiver's own last
    /// acknowledgment. The sender of a direction that was `answered` gets none.
    pub(super) fn reset_both_ends<S: Sink>(
        &self,
        id: SessionId,
        ended: &Ended,
        told: NotifiedSender,
        settings: Option<&Settings>,
        sink: &mut S,
    ) {
        let slot = &ended.slot;
        let is_open = slot.key.protocol() == PROTOCOL_TCP
            && ended.reason.is_told()
            && matches!(
                slot.track.state(),
                State::Established | State::FinWait | State::CloseWait | State::LastAck
            );
        if !is_open {
            return;
        }
        let newest;
        let settings = if let Some(settings) = settings {
            settings
        } else {
            newest = self.settings();
            &newest
        };
        let handling = settings.tcp(RuleId(ended.cold.rule), slot.key.zone());
        // A session that was stopped for its content must not leave its ends waiting.
        if !handling.timeout_reset && ended.reason != EndReason::FtpRefused {
            return;
        }
        let answered = told.direction(id);
        for direction in Direction::BOTH {
            if answered == Some(direction.opposite()) {
                continue;
            }
            let from = match direction {
                Direction::Original => slot.initiator(),
                Direction::Reply => slot.initiator().opposite(),
            };
            let receiver = Remembered::of(slot, direction.opposite());
            let sender = Remembered::of(slot, direction);
            let outcome = match receiver.expects {
                None => Err(Unsent::NumberUnknown),
                Some(_) if !S::LISTENS => Err(Unsent::NoSink),
                Some(seq) => self
                    .resets_at_end
                    .take(
                        destination(&slot.key, from.opposite()),
                        told.now,
                        settings.rates(),
                    )
                    .map(|()| {
                        let uid = ended.origin.unwrap_or(self.uid(id));
                        let of = reset_of(uid, id, direction, ended);
                        let ack = sender.expects;
                        if let Some(reset) = Reset::new(&slot.key, from, Numbers { seq, ack }, of) {
                            sink.reset(&reset);
                        }
                    }),
            };
            self.counters.reset(outcome);
        }
    }

    /// Returns the tunnel reference for a reply to this packet: that of the newest packet of the
    /// other direction of its session, or of the session's tombstone.
    ///
    /// Returns [`TunnelRef::NONE`] if nothing is known of that direction; in that case, use the
    /// packet's own path. This method is for rejected packets: it is not as fast as the packet
    /// path.
    #[must_use]
    pub fn tunnel_back(&self, packet: Packet<'_>) -> TunnelRef {
        self.known_tunnel_back(&packet).unwrap_or(TunnelRef::NONE)
    }

    /// Takes an answer to a packet from the budget of answers, and returns whether it may be sent.
    ///
    /// The rates are those of `[resets]`, but RSTs of sessions that end are counted separately, so
    /// that a flood of refused packets does not use up their budget. This budget is for answers to
    /// packets that the policy rejects ([`DropReason::PolicyReject`]), and for ICMP errors about
    /// packets that are too long (RFC 4443 2.4 f). The RSTs of `tcp.midstream = "reject"` are taken
    /// from this budget when they are decided. RSTs to late packets have a budget of their own.
    /// With several zones, each has a reserved part of the overall rate.
    #[must_use]
    pub(crate) fn may_answer(&self, packet: Packet<'_>) -> bool {
        let zone = self.fixed.zones.group_of(packet.zone);
        let Ok(parsed) = packet::parse(packet.bytes, Checksums::Trust) else {
            return false;
        };
        let address = match parsed.ip.source() {
            core::net::IpAddr::V4(source) => u128::from(source.to_bits()),
            core::net::IpAddr::V6(source) => source.to_bits(),
        };
        let now = self.origin.micros(packet.now);
        self.answers
            .take(Destination { zone, address }, now, self.settings().rates())
            .is_ok()
    }

    fn known_tunnel_back(&self, packet: &Packet<'_>) -> Option<TunnelRef> {
        let zone = self.fixed.zones.group_of(packet.zone);
        let parsed = packet::parse(packet.bytes, Checksums::Trust).ok()?;
        let parsed = packet::parse_first_fragment(packet.bytes, &parsed).ok()?;
        let flow = Flow::of(zone, &parsed)?;
        let place = self.table.place(&flow.key);
        let live = {
            let held = self.table.lock(place.shard);
            let slab = &held.shard.slab;
            let number = held.shard.find(place.hash, &flow.key);
            let now = self.origin.micros(packet.now);
            let number = number.or_else(|| session_of_pair(&held.shard, place, &flow, now, false));
            number.map(|number| {
                (
                    slab.hot(number).direction_of(flow.source),
                    slab.tunnels(number),
                )
            })
        };
        let (direction, tunnels) = live.or_else(|| {
            let tombstone = self
                .graveyard
                .find(&flow.key, self.origin.micros(packet.now))?;
            Some((tombstone.direction_of(flow.source), tombstone.tunnels))
        })?;
        let [original, reply] = tunnels;
        let (own, other) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        if own != TunnelRef::NONE && (own.0 ^ packet.tunnel.0) & packet.flow_bits != 0 {
            // The packet belongs to a new flow, but the known state is that of the old flow, which
            // is over at both ends.
            return None;
        }
        Some(other)
    }

    /// Decides a late packet, whose session has a tombstone.
    pub(super) fn late(
        &self,
        settings: &Settings,
        tombstone: &Tombstone,
        source: End,
        segment: &Segment,
        now: Micros,
    ) -> LateAnswer {
        let direction = tombstone.direction_of(source);
        let ticks = now.tick().saturating_sub(tombstone.ended.tick());
        let tracked = Tracked {
            class: Class::Invalid,
            direction: Some(direction),
            session: Some(tombstone.id),
            tolerated: None,
            late: Some(Late::new(tombstone.reason, ticks)),
        };
        let reason = reason_after(tombstone.reason);
        let silent = LateAnswer::Verdict(Verdict::Drop(reason, tracked));
        let event = Event::of(segment.flags);
        if event == Event::Rst {
            // A RST is never answered.
            return silent;
        }
        match settings.late(tombstone.rule, tombstone.key.zone()) {
            // A session that was ended for its content must not continue even if its receiver
            // missed the RST.
            LatePacket::Readmit if tombstone.reason == EndReason::FtpRefused => {}
            LatePacket::Readmit => return LateAnswer::Readmit(Verdict::Drop(reason, tracked)),
            LatePacket::Drop => {
                // Only the challenge ACK that answers a RST of the engine.
                let was_told =
                    tombstone.reason.is_told() && tombstone.end(direction).expects.is_some();
                let challenge = event == Event::Ack && segment.payload_len == 0 && was_told;
                if !challenge || !self.graveyard.challenge(&tombstone.key, direction) {
                    return silent;
                }
            }
            LatePacket::Reset => {}
        }
        let outcome =
            self.late_resets
                .take(destination(&tombstone.key, source), now, settings.rates());
        self.counters.reset(outcome);
        if outcome.is_err() {
            return silent;
        }
        let seq = expected_by(tombstone, direction, segment);
        let reply = seq.map_or(Reply::TcpReset, Reply::TcpResetAt);
        LateAnswer::Verdict(Verdict::Reject(reason, reply, tracked))
    }
}

/// Returns the number that the sender of a late segment expects: its acknowledgment, if it is
/// plausible, else the last one that it has sent.
fn expected_by(tombstone: &Tombstone, direction: Direction, segment: &Segment) -> Option<SeqNum> {
    let known = tombstone.end(direction).expects;
    if !segment.flags.contains(TcpFlags::ACK) {
        return known;
    }
    let peer = tombstone.end(direction.opposite());
    match known {
        Some(known) if segment.ack.before(known) || segment.ack.after(peer.sent) => Some(known),
        _ => Some(segment.ack),
    }
}
