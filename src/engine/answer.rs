//! Replies to rejected packets, and the packets that may get one.

use crate::packet::{Ip, IpVersion, Parsed, Transport};
use crate::verdict::{DropReason, Reply, Tracked, Verdict};

/// Returns the verdict of a rejection; the packet is dropped if no reply may be sent.
pub(super) fn reject(reason: DropReason, parsed: &Parsed, tracked: Tracked) -> Verdict {
    let reply = match parsed.transport {
        Transport::Tcp { .. } => Reply::TcpReset,
        // Only an INIT reaches this point: no other chunk opens an association.
        Transport::Sctp { .. } => Reply::SctpAbort,
        _ => Reply::Prohibited,
    };
    // An ICMP error must not be answered with another (RFC 1122 3.2.2), and unknown types may be
    // errors.
    let may_be_error = matches!(parsed.transport, Transport::IcmpOther { .. })
        && matches!(parsed.ip.version, IpVersion::V4);
    if may_be_error || !may_be_answered(&parsed.ip) {
        return Verdict::Drop(reason, tracked);
    }
    Verdict::Reject(reason, reply, tracked)
}

/// Returns whether a packet comes from a single host to which an error may be sent, and is not
/// addressed to a group. All members of a group would answer (RFC 1122 3.2.2, RFC 4443 2.4 e).
pub(super) fn may_be_answered(ip: &Ip) -> bool {
    let from_one = match ip.source() {
        core::net::IpAddr::V4(from) => !(from.is_unspecified() || from.is_loopback()),
        core::net::IpAddr::V6(from) => !(from.is_unspecified() || from.is_loopback()),
    };
    let to_group = match ip.destination() {
        core::net::IpAddr::V4(to) => to.is_multicast() || to.is_broadcast(),
        core::net::IpAddr::V6(to) => to.is_multicast(),
    };
    from_one && !to_group
}
