//! The transport header of a first fragment.

use etherparse::IpNumber;

use super::{Checksums, Extent, Fragment, Malformed, Parsed, Transport, icmp, other, tcp, udp};

/// Minimum data offset of a TCP header, in words (RFC 9293, section 3.1).
const MIN_TCP_WORDS: u8 = 5;

/// Parses the transport header of a first fragment, one with offset 0. `parsed` is the result of
/// [`parse`](super::parse) for `bytes`; any packet but a first fragment is returned unchanged.
///
/// Lengths in the result that derive from the IP header (the payloads of TCP, UDP-Lite and DCCP)
/// are those of the fragment. A length that the transport header states (the UDP payload) is that
/// of the whole datagram. Checksums cover the whole datagram and are not verified. For SCTP, the
/// chunks are those that begin in the fragment; chunks in a later fragment may change the state and
/// are not tracked.
///
/// # Errors
///
/// Returns [`Malformed::FragmentTiny`] if the transport header, or the quote of an ICMP error,
/// continues in the next fragment; otherwise the faults that `parse` finds in the header of a whole
/// packet.
pub fn parse_first_fragment(bytes: &[u8], parsed: &Parsed) -> Result<Parsed, Malformed> {
    let Transport::Fragment(Fragment {
        offset: 0,
        transport_offset,
        ..
    }) = parsed.transport
    else {
        return Ok(*parsed);
    };
    let ip = parsed.ip;
    let payload = bytes
        .get(usize::from(transport_offset)..ip.total_len as usize)
        .unwrap_or_default();
    let found = match IpNumber(ip.protocol) {
        IpNumber::TCP => tcp::parse(ip, payload, Checksums::Trust),
        IpNumber::UDP => udp::parse_first(ip, payload),
        IpNumber::ICMP | IpNumber::IPV6_ICMP => icmp::parse(ip, payload, Checksums::Trust),
        _ => other(ip, payload, Extent::First),
    };
    found.map_err(|reason| match reason {
        Malformed::TcpHeaderTruncated
        | Malformed::UdpHeaderTruncated
        | Malformed::IcmpHeaderTruncated
        | Malformed::IcmpErrorQuoteTruncated
        | Malformed::SctpHeaderTruncated
        | Malformed::SctpNoChunk
        | Malformed::DccpHeaderTruncated
        | Malformed::UdpLiteHeaderTruncated
        | Malformed::GreHeaderTruncated
        | Malformed::EspHeaderTruncated
        | Malformed::AhHeaderTruncated => Malformed::FragmentTiny,
        // The options are cut off, unless the length is below that of a header without options.
        Malformed::TcpHeaderLength
            if payload
                .get(12)
                .is_some_and(|byte| byte >> 4 >= MIN_TCP_WORDS) =>
        {
            Malformed::FragmentTiny
        }
        reason => reason,
    })
}
