//! SCTP packets between addresses of an association other than those of its session (RFC 9260 5.4),
//! and the announcement of such addresses.
//!
//! Addresses count where the end itself has announced them: in the INIT or INIT ACK of the
//! handshake in force, identified by its initiate tag, or in an ASCONF (RFC 5061). The ASCONF must
//! carry the correct tag and follow an AUTH chunk, and takes effect once the other end has granted
//! it in an ASCONF ACK. The firewall has no key to verify an AUTH chunk, but the answering end has:
//! only changes that this end grants take effect.
//!
//! An ASCONF without AUTH, which its receiver must discard, is forwarded like any chunk and changes
//! nothing. An ASCONF from an address that was not announced matches no session. An INIT ACK counts
//! if it comes from the destination address of the INIT.
//!
//! An announced address allows few packets: those between the ports of the association, with the
//! verification tag that the receiver has chosen, and no INIT. The rule that admitted the
//! association admits them; the prefixes of the zone (`ip.inside`) still apply.

use super::Engine;
use super::candidate::{Candidate, screened_anew};
use super::effects::Effects;
use super::faults::invalid;
use super::live::Locked;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::packet::{SctpChunks, SctpPacket, Transport, sctp_address};
use crate::session::{Addresses, Arrival, OnPath, Owner, SessionId, Slot, TunnelRef};
use crate::track::sctp::State;
use crate::verdict::{DropReason, Verdict};

/// Chunks that carry tags or addresses.
const HANDSHAKE: SctpChunks = OPENING
    .and(SctpChunks::COOKIE_ECHO)
    .and(SctpChunks::COOKIE_ACK);

/// Chunks that announce an initiate tag and addresses. Each must be alone in its packet.
const OPENING: SctpChunks = SctpChunks::INIT.and(SctpChunks::INIT_ACK);

impl Engine {
    /// Notes the tags and addresses that an SCTP packet announces. A packet that is allowed but not
    /// trusted may begin a handshake beside the association; nothing else in it is noted. The shard
    /// of its session is locked.
    #[inline]
    pub(super) fn note_paths(
        &self,
        session: SessionId,
        slot: &Slot,
        direction: Direction,
        candidate: &Candidate<'_>,
        is_believed: bool,
    ) {
        let kinds = if is_believed {
            HANDSHAKE.and(SctpChunks::ASCONF)
        } else {
            OPENING
        };
        if let Transport::Sctp { packet, .. } = &candidate.parsed.transport
            && packet.chunks.any(kinds)
        {
            self.note_announced(session, slot, direction, candidate, packet);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_announced(
        &self,
        session: SessionId,
        slot: &Slot,
        direction: Direction,
        candidate: &Candidate<'_>,
        packet: &SctpPacket,
    ) {
        let association = slot.sctp();
        let owner = Owner {
            session,
            key: slot.key,
            initiator: slot.initiator(),
            tags: association.tags(),
            is_up: association.state() == State::Established,
        };
        let bytes = candidate.parsed.ip_payload(candidate.bytes);
        if packet.chunks.any(OPENING) {
            let mut addresses = Addresses::default();
            sctp_address::announced(bytes, |address| addresses.add(address));
            self.paths
                .announce(&owner, direction, packet.initiate_tag, &addresses);
        } else if packet.chunks.any(HANDSHAKE) {
            self.paths.set_tags(&owner);
        }
        if packet.chunks.any(SctpChunks::ASCONF) && owner.is_up {
            if let Some(asked) = self.paths.requested(session, direction.opposite())
                && let Some(granted) = sctp_address::granted(bytes, &asked)
            {
                self.paths.change(session, direction.opposite(), granted);
            }
            if let Some(requests) = sctp_address::requests(bytes) {
                let from = candidate.parsed.ip.src;
                self.paths.request(&owner, direction, requests, from);
            }
        }
    }

    /// Judges an SCTP packet that matches no session by its addresses, in the session of its
    /// association. Returns `None` if it carries no tag of an association, or if its addresses were
    /// not announced there. No lock is held.
    #[cold]
    #[inline(never)]
    pub(super) fn on_path<T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let Transport::Sctp {
            src_port,
            dst_port,
            packet,
        } = &candidate.parsed.transport
        else {
            return None;
        };
        let ip = &candidate.parsed.ip;
        let found = self.paths.find(&Arrival {
            zone: candidate.flow.key.zone(),
            src: ip.src,
            src_port: *src_port,
            dst: ip.dst,
            dst_port: *dst_port,
            tag: packet.tag,
            reflected: packet.reflected,
        })?;
        if found.key == candidate.flow.key {
            return None;
        }
        let OnPath {
            session,
            key,
            source,
        } = found;
        let place = self.table.place(&key);
        let mut held = self.table.lock(place.shard);
        let number = self.table.find_id(&held.shard, session)?;
        if self.is_to_end(&mut held, place, number) {
            return None;
        }
        let mut locked = Locked::new(&self.table, &mut held, place);
        let mut live = locked.live(number);
        if live.hot().deadline <= candidate.now.tick() {
            return None;
        }
        trace.step(|| {
            Step::Note(
                "the packet belongs to an association whose ends have announced its addresses",
            )
        });
        if candidate.screen != live.settings.screen
            && let Some(reason) = screened_anew(candidate, live.settings)
        {
            return Some(invalid(reason));
        }
        if live.settings.is_outside(key.zone(), ip) {
            return Some(invalid(DropReason::AddressOutside));
        }
        let moved = Candidate {
            flow: Flow { key, source },
            source: None,
            // The tunnel of this path is not the tunnel for packets of the session.
            tunnel: TunnelRef::NONE,
            flow_bits: 0,
            ..*candidate
        };
        effects.is_elsewhere = false;
        self.hit(&mut live, &moved, effects, trace)
    }
}
