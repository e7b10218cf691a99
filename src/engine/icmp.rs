//! Step 3 of the packet path: ICMP errors belong to the session of the packet that they quote, and
//! discovery belongs to its link.

use super::effects::Effects;
use super::ended::after_end_of;
use super::faults::invalid;
use super::pair::session_of_pair;
use super::record::trace_found;
use super::{Engine, Packet};
use crate::event::Sink;
use crate::explain::{Step, Trace};
use crate::flow::Flow;
use crate::packet::{
    DiscoveryFault, ICMPV6_REDIRECT, IcmpError, IpVersion, PROTOCOL_SCTP, PROTOCOL_TCP, Parsed,
    QuotedTransport, SeqNum, validate_discovery,
};
use crate::policy::RuleId;
use crate::session::{Arrival, Held, OnPath, SlotId};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// ICMPv4 source quench (RFC 792), which RFC 6633 forbids.
const ICMPV4_SOURCE_QUENCH: u8 = 4;
/// ICMPv4 redirect (RFC 792).
const ICMPV4_REDIRECT: u8 = 5;
/// ICMPv6 packet too big (RFC 4443 3.2), which always announces an MTU.
const ICMPV6_PACKET_TOO_BIG: u8 = 2;
/// Minimum MTU of IPv4: every link carries packets of this size whole (RFC 791 3.2).
const MIN_MTU_V4: u32 = 68;
/// Minimum MTU of IPv6 (RFC 8200 5).
const MIN_MTU_V6: u32 = 1280;

/// An ICMP error and the flow of the packet that it quotes.
struct Quoted<'a> {
    error: &'a IcmpError,
    flow: Flow,
}

impl Engine {
    /// Returns whether the packet comes from a tunnel, where link-local traffic is not valid. Reads
    /// the newest settings, so it is for the few link-local packets.
    #[cold]
    pub(super) fn is_in_tunnel(&self, packet: &Packet<'_>) -> bool {
        self.settings().attachment.is_tunnel(packet.tunneled)
    }

    /// Runs step 3 for discovery: valid discovery is forwarded untracked on a link.
    #[cold]
    #[inline(never)]
    pub(super) fn discovery<T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        kind: u8,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let is_redirect = kind == ICMPV6_REDIRECT;
        if is_redirect && !self.tolerates_redirect(packet) {
            return invalid(DropReason::IcmpRedirect);
        }
        if !is_redirect && self.is_in_tunnel(packet) {
            return invalid(DropReason::DiscoveryInTunnel);
        }
        match validate_discovery(packet.bytes, parsed) {
            Ok(()) => {
                trace.step(|| Step::Note("valid discovery on a link is never tracked"));
                let tracked = Tracked::class(Class::Untracked);
                match is_redirect {
                    true => tolerated_redirect(tracked, RuleId::DEFAULT, effects, trace),
                    false => Verdict::Forward(tracked),
                }
            }
            Err(DiscoveryFault::OffLink) => invalid(DropReason::DiscoveryOffLink),
            Err(DiscoveryFault::Malformed(malformed)) => {
                trace.step(|| Step::Malformed(malformed));
                invalid(DropReason::Malformed(malformed))
            }
        }
    }

    /// Returns whether a redirect is forwarded: on a link, if its check only counts.
    fn tolerates_redirect(&self, packet: &Packet<'_>) -> bool {
        let only_counts = |reason| self.settings().enforcement.only_counts(reason);
        only_counts(DropReason::IcmpRedirect) && !self.is_in_tunnel(packet)
    }

    /// Returns the reason to refuse an ICMP error regardless of its session.
    fn refused(
        &self,
        packet: &Packet<'_>,
        version: IpVersion,
        error: &IcmpError,
    ) -> Option<DropReason> {
        let is_v4 = matches!(version, IpVersion::V4);
        if is_redirect(version, error) && !self.tolerates_redirect(packet) {
            return Some(DropReason::IcmpRedirect);
        }
        if is_v4 && error.icmp_type == ICMPV4_SOURCE_QUENCH {
            return Some(DropReason::IcmpSourceQuench);
        }
        if let QuotedTransport::IcmpError = error.quoted.transport {
            return Some(DropReason::IcmpErrorAboutError);
        }
        let is_too_small = if is_v4 {
            // Routers older than RFC 1191 announce no MTU: their receivers estimate one.
            error.mtu != 0 && error.mtu < MIN_MTU_V4
        } else {
            error.icmp_type == ICMPV6_PACKET_TOO_BIG && error.mtu < MIN_MTU_V6
        };
        is_too_small.then_some(DropReason::IcmpErrorMtuTooSmall)
    }

    /// Runs step 3 for an ICMP error: it is related to the session of the packet that it quotes.
    /// The error neither refreshes nor changes the session. Without a session here, the error may
    /// be held ([`Engine::ask_for_quoted`]).
    pub(super) fn related<S: Sink, T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        error: &IcmpError,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        if let Some(reason) = self.refused(packet, parsed.ip.version, error) {
            return invalid(reason);
        }
        let Some(quoted) = Flow::of_quoted(packet.zone, &error.quoted) else {
            trace.step(|| Step::Note("the quoted packet identifies no flow"));
            return invalid(DropReason::IcmpErrorNoSession);
        };
        let verdict = self.related_to(
            packet,
            parsed,
            &Quoted {
                error,
                flow: quoted,
            },
            effects,
            trace,
        );
        if verdict.reason() == Some(DropReason::IcmpErrorNoSession)
            && let Some(quoted) = self.quoted_on_path(packet, error)
        {
            return self.related_to(
                packet,
                parsed,
                &Quoted {
                    error,
                    flow: quoted,
                },
                effects,
                trace,
            );
        }
        if verdict.reason() == Some(DropReason::IcmpErrorNoSession)
            && let Some(late) = self.error_after_end(&quoted, self.origin.micros(packet.now))
        {
            return late;
        }
        let is_asked = verdict.reason() == Some(DropReason::IcmpErrorNoSession)
            && S::LISTENS
            && packet.can_hold
            // Else it is dropped with a session, too.
            && parsed.ip.dst == error.quoted.src;
        if is_asked
            && let now = self.origin.micros(packet.now)
            && let Some(held) = self.ask_for_quoted(&parsed.ip, &quoted, now, effects, trace)
        {
            return held;
        }
        verdict
    }

    /// Returns the flow of the association of a quoted SCTP packet on one of its further paths. The
    /// quote does not show whether the packet had the flag T.
    #[cold]
    fn quoted_on_path(&self, packet: &Packet<'_>, error: &IcmpError) -> Option<Flow> {
        let quoted = &error.quoted;
        let QuotedTransport::Ports {
            src,
            dst,
            seq: Some(tag),
        } = quoted.transport
        else {
            return None;
        };
        if quoted.protocol != PROTOCOL_SCTP {
            return None;
        }
        let find = |reflected| {
            self.paths.find(&Arrival {
                zone: packet.zone,
                src: quoted.src,
                src_port: src,
                dst: quoted.dst,
                dst_port: dst,
                tag,
                reflected,
            })
        };
        let OnPath { key, source, .. } = find(false).or_else(|| find(true))?;
        Some(Flow { key, source })
    }

    /// Runs step 3 for an ICMP error about a packet of a flow.
    fn related_to<T: Trace>(
        &self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        quoted: &Quoted<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Verdict {
        let Quoted {
            error,
            flow: quoted,
        } = *quoted;
        let now = self.origin.micros(packet.now);
        let place = self.table.place(&quoted.key);
        trace.step(|| Step::Key(quoted.key, place.shard.0));
        let mut held = self.table.lock(place.shard);
        let found = held.shard.find(place.hash, &quoted.key);
        // A quote that does not reach the key may be about any session of the pair.
        let any = matches!(error.quoted.transport, QuotedTransport::Gre(None));
        let found = found.or_else(|| session_of_pair(&held.shard, place, &quoted, now, any));
        let found = found.filter(|number| !self.is_to_end(&mut held, place, *number));
        let Held {
            shard, settings, ..
        } = &*held;
        let lives = |slot: &SlotId| {
            let hot = shard.slab.hot(*slot);
            hot.deadline > now.tick()
                || self
                    .extend_for_children(settings, place.shard, hot, *slot, now)
                    .is_some()
        };
        let Some(number) = found.filter(lives) else {
            if let Some(number) = found {
                trace.step(|| Step::Note("the session has expired"));
                return after_end_of(shard.slab.hot(number), now);
            }
            trace.step(|| Step::Miss);
            return invalid(DropReason::IcmpErrorNoSession);
        };
        let slot = shard.slab.hot(number);
        // The error travels back to the sender of the quoted packet.
        let direction = slot.direction_of(quoted.source).opposite();
        let tracked = Tracked {
            class: Class::Related,
            direction: Some(direction),
            session: Some(self.table.id(place.shard, number, slot.generation)),
            tolerated: None,
            late: None,
        };
        if T::ON
            && let Some(record) = self.record_of(shard, place.shard, number)
        {
            trace_found(record, direction, packet.now, trace);
        }
        let rule = RuleId(shard.slab.cold(number).rule);
        let invalid = Tracked {
            class: Class::Invalid,
            ..tracked
        };
        if parsed.ip.dst != error.quoted.src {
            return effects.failed(settings, DropReason::IcmpErrorNotToSender, invalid, rule);
        }
        if let QuotedTransport::Ports { seq: Some(seq), .. } = error.quoted.transport
            && slot.key.protocol() == PROTOCOL_TCP
            && !slot.track.may_quote(direction.opposite(), SeqNum(seq))
        {
            return effects.failed(settings, DropReason::IcmpErrorSequence, invalid, rule);
        }
        if names_a_fitting_mtu(error) {
            return effects.failed(settings, DropReason::IcmpErrorMtuFits, invalid, rule);
        }
        match is_redirect(parsed.ip.version, error) {
            true => tolerated_redirect(tracked, rule, effects, trace),
            false => Verdict::Forward(tracked),
        }
    }
}

/// Returns whether an ICMP error is a redirect of IPv4; those of IPv6 are discovery.
const fn is_redirect(version: IpVersion, error: &IcmpError) -> bool {
    matches!(version, IpVersion::V4) && error.icmp_type == ICMPV4_REDIRECT
}

/// Returns the verdict on a redirect that passes, and counts it.
#[cold]
fn tolerated_redirect<T: Trace>(
    tracked: Tracked,
    rule: RuleId,
    effects: &mut Effects,
    trace: &mut T,
) -> Verdict {
    let reason = DropReason::IcmpRedirect;
    trace.step(|| Step::Note("a redirect on a link, whose check only counts"));
    effects.tolerated = Some((reason, rule));
    Verdict::Forward(Tracked {
        tolerated: Some(reason),
        ..tracked
    })
}

/// Returns whether an error announces an MTU that the quoted packet of a host does not exceed.
///
/// Packets of a tunnel are not checked against the MTU: the packet that had to fit may have been
/// encapsulated once more. A packet whose length is uncertain is not checked either. Some routers
/// quote the length of an IPv4 packet without its header, some with a matching checksum: an
/// allowance of 20 bytes covers this.
const fn names_a_fitting_mtu(error: &IcmpError) -> bool {
    let allowance = match error.quoted.version {
        IpVersion::V4 => 20,
        IpVersion::V6 => 0,
    };
    let total_len = error.quoted.total_len;
    match error.quoted.transport {
        QuotedTransport::Ports { .. }
        | QuotedTransport::IcmpQuery { .. }
        | QuotedTransport::IcmpOther { .. } => total_len != 0 && total_len + allowance <= error.mtu,
        QuotedTransport::Gre(_)
        | QuotedTransport::IcmpError
        | QuotedTransport::Fragment
        | QuotedTransport::Other => false,
    }
}
