//! Replies to packets that are rejected or too long, within the budget of replies.

use std::time::Instant;

use super::{Engine, Expiry, Packet};
use crate::outbox::{Egress, Made, Outbox};
use crate::reset::{write_reply_unbudgeted, write_too_big};
use crate::session::TunnelRef;
use crate::verdict::{DropReason, Reply, Verdict};

/// Number of sessions that one call to [`Engine::expire`] visits: some 50 us of work.
const EXPIRY_BUDGET: usize = 256;

impl Engine {
    /// Ends sessions whose lifetime has passed by `now`, a few hundred at a time. `outbox` receives
    /// their records and the RSTs to both ends of established TCP sessions.
    ///
    /// Call this method after each packet or batch, and at [`Engine::next_expiry`] if none arrives;
    /// a call with nothing to do costs little. If [`Expiry::more`] is set, drain the outbox and
    /// call it again soon. [`Engine::expire_with`] takes any sink and any budget.
    pub fn expire(&self, now: Instant, outbox: &mut Outbox) -> Expiry {
        self.expire_with(now, EXPIRY_BUDGET, outbox)
    }

    /// Writes the reply to a rejected packet into `out` and returns it, for callers of
    /// [`Engine::process_with`]. [`MAX_REPLY`](crate::reset::MAX_REPLY) bytes are always enough.
    ///
    /// Returns `None` if the verdict is not [`Verdict::Reject`], if `out` is too small, or if the
    /// budget of `[resets]` allows no reply now. A reply to a packet that the policy rejects takes
    /// from that budget, so call this once for each verdict; the verdict itself has paid for
    /// others.
    #[must_use]
    pub fn write_reply<'a>(
        &self,
        packet: &Packet<'_>,
        verdict: &Verdict,
        out: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let Verdict::Reject(reason, reply, _) = verdict else {
            return None;
        };
        let written = write_reply_unbudgeted(*reply, packet.bytes(), out)?;
        self.may_reply(*reason, packet).then_some(written)
    }

    /// Writes the ICMP error about a packet that is too long to its sender, and returns the error:
    /// fragmentation needed (RFC 792, RFC 1191 4) or packet too big (RFC 4443 3.2). `mtu` is the
    /// length in bytes of the longest packet that can be forwarded.
    ///
    /// Returns `None` if `out` is too small, if the budget of `[resets]` allows no error now, or if
    /// such an error must not be sent. The latter holds if the packet is IPv4 and may be
    /// fragmented, is an ICMP error or a later fragment, or is not from one host to one host (RFC
    /// 1122 3.2.2).
    #[must_use]
    pub fn write_too_big<'a>(
        &self,
        packet: &Packet<'_>,
        mtu: u16,
        out: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let written = write_too_big(mtu, packet.bytes(), out)?;
        self.may_answer(*packet).then_some(written)
    }

    /// Returns whether the budget allows the reply to a packet that is rejected for this reason.
    /// For every reason except a rejection by the policy, the verdict has already taken the reply
    /// from a budget.
    pub(crate) fn may_reply(&self, reason: DropReason, packet: &Packet<'_>) -> bool {
        reason != DropReason::PolicyReject || self.may_answer(*packet)
    }

    /// Adds the reply to a rejected packet to an outbox, if there is room and the budget allows the
    /// reply.
    #[cold]
    #[inline(never)]
    pub(super) fn reply_into(&self, outbox: &mut Outbox, packet: &Packet<'_>, verdict: &Verdict) {
        let Verdict::Reject(reason, reply, _) = verdict else {
            return;
        };
        outbox.add(|out| {
            let Some(written) = write_reply_unbudgeted(*reply, packet.bytes(), out) else {
                return Made::Nothing;
            };
            let len = written.len();
            if !self.may_reply(*reason, packet) {
                return Made::OverBudget;
            }
            let zone = self.fixed.zones.group_of(packet.zone);
            let egress = self.egress_of_reply(packet, *reply);
            Made::Packet { len, zone, egress }
        });
    }

    /// Returns the path of a reply. A challenge takes the reverse path of its SYN; any other reply
    /// takes the path of the session's other direction, if known.
    fn egress_of_reply(&self, packet: &Packet<'_>, reply: Reply) -> Egress {
        if !matches!(reply, Reply::Challenge(_)) && self.fixed.tunnel_references {
            let known = self.tunnel_back(*packet);
            if known != TunnelRef::NONE {
                return Egress::Onward(known);
            }
        }
        Egress::Back(packet.tunnel)
    }
}
