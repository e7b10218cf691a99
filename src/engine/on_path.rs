//! SCTP packets between addresses of an association other than those of its session (RFC 9260 5.4),
//! and what announces such addresses.
//!
//! Addresses count where the end itself has announced them: in the INIT or INIT ACK of the
//! handshake that is in force, known by its initiate tag, or in an ASCONF with the right tag that
//! stands behind an AUTH chunk, once the other end has granted it in an ASCONF ACK (RFC 5061). The
//! firewall has no key to check an AUTH chunk, but the end that answers has: only what it grants
//! takes effect. An ASCONF without AUTH, which its receiver must discard, passes like any chunk and
//! changes nothing. One that comes from an address that was not announced finds no session. An INIT
//! ACK counts if it comes from the address that the INIT went to.
//!
//! What an announced address opens is narrow: packets between the ports of the association, with
//! the verification tag that the receiver has chosen, and no INIT. The rule that admitted the
//! association admits them, the prefixes of the zone (`ip.inside`) still hold.

use super::Engine;
use super::candidate::{Candidate, screened_anew};
use super::effects::After;
use super::faults::invalid;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Flow};
use crate::packet::{SctpChunks, SctpPacket, Transport, sctp_address};
use crate::session::{Addresses, Arrival, Held, OnPath, Owner, SessionId, Slot, TunnelRef};
use crate::track::sctp::State;
use crate::verdict::{DropReason, Verdict};

/// Chunks that say something of tags or addresses.
const HANDSHAKE: SctpChunks = OPENING.and(SctpChunks::COOKIE_ECHO).and(SctpChunks::COOKIE_ACK);

/// Chunks that announce an initiate tag and addresses. They stand alone in their packet.
const OPENING: SctpChunks = SctpChunks::INIT.and(SctpChunks::INIT_ACK);

impl Engine {
    /// Notes the tags and addresses that an SCTP packet announces. One that is passed without being
    /// believed may begin a handshake beside the association, and says nothing else. The shard of
    /// its session is locked.
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

    /// Judges an SCTP packet that fits no session of its own addresses in that of its association.
    /// `None` if it carries no tag of one, or its addresses were not announced there. No lock is
    /// held.
    #[cold]
    #[inline(never)]
    pub(super) fn on_path<T: Trace>(
        &self,
        candidate: &Candidate<'_>,
        after: &mut After,
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
        let OnPath { session, key, source } = found;
        let place = self.table.place(&key);
        let mut held = self.table.lock(place.shard);
        let number = self.table.find_id(&held.shard, session)?;
        if self.is_to_end(&mut held, place, number) {
            return None;
        }
        let Held { shard, settings, .. } = &mut *held;
        if shard.slab.hot(number).deadline <= candidate.now.tick() {
            return None;
        }
        trace.step(|| Step::Note("it belongs to an association whose ends have announced its addresses"));
        if candidate.screen != settings.screen
            && let Some(reason) = screened_anew(candidate, settings)
        {
            return Some(invalid(reason));
        }
        if settings.is_outside(key.zone(), ip) {
            return Some(invalid(DropReason::AddressOutside));
        }
        let moved = Candidate {
            flow: Flow { key, source },
            // What packets of this path came in is not where those of the session are to go.
            tunnel: TunnelRef::NONE,
            flow_bits: 0,
            ..*candidate
        };
        after.elsewhere = false;
        self.hit((shard, settings), place, number, &moved, after, trace)
    }
}
