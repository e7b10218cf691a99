//! Packets that the engine itself creates.
//!
//! They are the TCP RST, SCTP ABORT or ICMP error of a rejected packet, the SYN-ACK that challenges
//! a source, and the RSTs at the end of a session.
//!
//! The answer to a packet is written into the caller's buffer from that packet, so nothing is
//! allocated and a [`Verdict`](crate::Verdict) stays small. Checksums are complete, TTL is 64, no
//! options are set. The source is the destination address of the rejected packet: a firewall in the
//! path has no address of its own there. The RST at the end of a session is a complete [`Reset`].

use crate::flow::{Direction, End, FlowKey, Zone};
use crate::packet::{
    Checksums, Ip, IpVersion, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, Segment,
    SeqNum, TcpFlags, Transport, parse, parse_first_fragment, sctp,
};
use crate::policy::RuleId;
use crate::session::{SessionId, SessionUid, TunnelRef};
use crate::track::tcp::window::sequence_len;
use crate::verdict::Reply;

/// The size of the largest reply, in bytes: an ICMPv6 error stays within the minimum IPv6 MTU (RFC
/// 4443 2.4 c).
pub const MAX_REPLY: usize = 1280;

/// The size of the largest RST at the end of a session, in bytes: IPv6 and TCP headers.
pub(crate) const MAX_RESET: usize = 60;

/// The largest ICMPv4 error, in bytes; the quotation is truncated to fit (RFC 1812 4.3.2.3).
const MAX_ICMPV4: usize = 576;

const TTL: u8 = 64;

/// Writes the reply to a rejected IP packet into `out` and returns it, without regard to any
/// budget. This is for tools that show replies. To send replies, use
/// [`Engine::write_reply`](crate::Engine::write_reply) or an [`Outbox`](crate::Outbox).
///
/// Returns `None` if `packet` was not rejected with this reply (for example, it does not parse), or
/// if `out` is too small for the reply; [`MAX_REPLY`] bytes are always enough.
#[must_use]
pub fn write_reply_unbudgeted<'a>(
    reply: Reply,
    packet: &[u8],
    out: &'a mut [u8],
) -> Option<&'a [u8]> {
    let parsed = parse(packet, Checksums::Trust).ok()?;
    let parsed = parse_first_fragment(packet, &parsed).ok()?;
    let written = match (reply, &parsed.transport) {
        (
            Reply::TcpReset,
            Transport::Tcp {
                src_port,
                dst_port,
                segment,
            },
        ) => tcp_reset(&parsed.ip, Ports::back(*src_port, *dst_port), segment, out)?,
        (
            Reply::TcpResetAt(seq),
            Transport::Tcp {
                src_port, dst_port, ..
            },
        ) => {
            let back = Route::back(&parsed.ip);
            let numbers = Numbers { seq, ack: None };
            let header = reset_header(&back, Ports::back(*src_port, *dst_port), numbers);
            assemble(&back, PROTOCOL_TCP, &[&header], out)?
        }
        (
            Reply::Challenge(cookie),
            Transport::Tcp {
                src_port,
                dst_port,
                segment,
            },
        ) => {
            let back = Route::back(&parsed.ip);
            let header =
                challenge_header(&back, Ports::back(*src_port, *dst_port), segment, cookie);
            assemble(&back, PROTOCOL_TCP, &[&header], out)?
        }
        (
            Reply::SctpAbort,
            Transport::Sctp {
                src_port,
                dst_port,
                packet,
            },
        ) if packet.initiate_tag != 0 => {
            let abort = sctp::abort(*dst_port, *src_port, packet.initiate_tag);
            assemble(&Route::back(&parsed.ip), PROTOCOL_SCTP, &[&abort], out)?
        }
        (Reply::TcpReset | Reply::TcpResetAt(_) | Reply::Challenge(_) | Reply::SctpAbort, _) => {
            return None;
        }
        (Reply::Prohibited, _) => {
            // Type 3, code 13, and type 1, code 1: communication (with destination)
            // administratively prohibited.
            let (kind, code) = match parsed.ip.version {
                IpVersion::V4 => (3, 13),
                IpVersion::V6 => (1, 1),
            };
            let error = IcmpKind { kind, code, mtu: 0 };
            icmp_error(&parsed.ip, packet, error, out)?
        }
    };
    out.get(..written)
}

/// Writes the ICMP error that reports an IP packet longer than `mtu` bytes, the maximum that can be
/// forwarded.
///
/// The error is fragmentation needed (RFC 792, RFC 1191 4) or packet too big (RFC 4443 3.2).
///
/// Returns `None` if no such error may be sent (RFC 1122 3.2.2): the packet may be fragmented
/// (IPv4), is a later fragment, is an ICMP error itself, or does not parse. The same applies if its
/// source or destination is not a single host.
#[must_use]
pub(crate) fn write_too_big<'a>(mtu: u16, packet: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
    let parsed = parse(packet, Checksums::Trust).ok()?;
    let may_fragment = packet.get(6).is_some_and(|flags| flags & 0x40 == 0);
    if matches!(parsed.ip.version, IpVersion::V4) && may_fragment {
        return None;
    }
    if let Transport::Fragment(fragment) = &parsed.transport
        && fragment.offset != 0
    {
        return None;
    }
    let parsed = parse_first_fragment(packet, &parsed).ok()?;
    let one_host = |address: core::net::IpAddr| match address {
        core::net::IpAddr::V4(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast())
        }
        core::net::IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    };
    let is_error = matches!(parsed.transport, Transport::IcmpError(_));
    if is_error || !one_host(parsed.ip.source()) || !one_host(parsed.ip.destination()) {
        return None;
    }
    let (kind, code) = match parsed.ip.version {
        IpVersion::V4 => (3, 4),
        IpVersion::V6 => (2, 0),
    };
    let written = icmp_error(&parsed.ip, packet, IcmpKind { kind, code, mtu }, out)?;
    out.get(..written)
}

fn tcp_reset(ip: &Ip, ports: Ports, rejected: &Segment, out: &mut [u8]) -> Option<usize> {
    // RFC 9293 3.10.7.1: a segment with an ACK states the number that its sender expects. The
    // answer to a segment without an ACK has number 0 and acknowledges the whole segment.
    let numbers = if rejected.flags.contains(TcpFlags::ACK) {
        Numbers {
            seq: rejected.ack,
            ack: None,
        }
    } else {
        Numbers {
            seq: SeqNum(0),
            ack: Some(rejected.seq.add(sequence_len(rejected))),
        }
    };
    let back = Route::back(ip);
    let header = reset_header(&back, ports, numbers);
    assemble(&back, PROTOCOL_TCP, &[&header], out)
}

/// Returns the TCP header of a RST, with or without an acknowledgment.
fn reset_header(route: &Route, ports: Ports, numbers: Numbers) -> [u8; 20] {
    let flags = match numbers.ack {
        Some(_) => TcpFlags::RST.0 | TcpFlags::ACK.0,
        None => TcpFlags::RST.0,
    };
    bare_header(route, ports, numbers, flags)
}

/// Returns the TCP header of a challenge. The window is 0, so no data follows even if a stack
/// wrongly accepts the segment. The sequence number has no meaning: it repeats that of the SYN,
/// which discloses nothing to the receiver.
fn challenge_header(route: &Route, ports: Ports, syn: &Segment, cookie: SeqNum) -> [u8; 20] {
    let flags = TcpFlags::SYN.0 | TcpFlags::ACK.0;
    let numbers = Numbers {
        seq: syn.seq,
        ack: Some(cookie),
    };
    bare_header(route, ports, numbers, flags)
}

/// Returns a TCP header without options, with a window of 0.
fn bare_header(route: &Route, ports: Ports, numbers: Numbers, flags: u8) -> [u8; 20] {
    let mut tcp = [0u8; 20];
    let fields = ports
        .from
        .to_be_bytes()
        .into_iter()
        .chain(ports.to.to_be_bytes())
        .chain(numbers.seq.0.to_be_bytes())
        .chain(numbers.ack.map_or(0, |ack| ack.0).to_be_bytes())
        .chain([5 << 4, flags]);
    for (byte, value) in tcp.iter_mut().zip(fields) {
        *byte = value;
    }
    let sum = checksum(pseudo_header(route, PROTOCOL_TCP, tcp.len()), &[&tcp]);
    if let Some(field) = tcp.get_mut(16..18) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    tcp
}

/// A RST that the engine sends unprompted, complete and ready to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// The session that has ended.
    pub session: SessionId,
    /// The identifier of the session in logs.
    pub uid: SessionUid,
    /// The zone of the session.
    pub zone: Zone,
    /// The rule that admitted the session.
    pub rule: RuleId,
    /// The direction of the RST: in the original direction it goes to the responder.
    pub direction: Direction,
    /// The tunnel of the newest packet of that direction, otherwise of the other direction,
    /// otherwise [`TunnelRef::NONE`].
    pub tunnel: TunnelRef,
    /// Whether `tunnel` is the reference of `direction`, not that of the other direction.
    pub(crate) own_direction: bool,
    bytes: [u8; MAX_RESET],
    len: u8,
}

impl Reset {
    /// Returns the IP packet: 40 bytes for IPv4, 60 for IPv6.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// RST from one end of a conversation to the other, with the sequence number that its receiver
    /// accepts.
    pub(crate) fn new(key: &FlowKey, from: End, numbers: Numbers, of: ResetOf) -> Option<Self> {
        let to = from.opposite();
        let route = Route {
            version: if key.is_ipv6() {
                IpVersion::V6
            } else {
                IpVersion::V4
            },
            from: key.address_number(from),
            to: key.address_number(to),
        };
        let ports = Ports {
            from: key.port(from),
            to: key.port(to),
        };
        let header = reset_header(&route, ports, numbers);
        let mut bytes = [0; MAX_RESET];
        let len = assemble(&route, PROTOCOL_TCP, &[&header], &mut bytes)?;
        Some(Self {
            session: of.session,
            uid: of.uid,
            zone: key.zone(),
            rule: of.rule,
            direction: of.direction,
            tunnel: of.tunnel,
            own_direction: of.own_direction,
            bytes,
            len: len as u8,
        })
    }
}

/// Session of a [`Reset`], and the path on which it leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResetOf {
    /// See [`Reset::session`].
    pub(crate) session: SessionId,
    /// See [`Reset::uid`].
    pub(crate) uid: SessionUid,
    /// See [`Reset::rule`].
    pub(crate) rule: RuleId,
    /// See [`Reset::direction`].
    pub(crate) direction: Direction,
    /// See [`Reset::tunnel`].
    pub(crate) tunnel: TunnelRef,
    /// See [`Reset::own_direction`].
    pub(crate) own_direction: bool,
}

/// Sequence number of a TCP header, and its acknowledgment number, if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) seq: SeqNum,
    pub(crate) ack: Option<SeqNum>,
}

/// Source and destination port of a packet.
#[derive(Debug, Clone, Copy)]
struct Ports {
    from: u16,
    to: u16,
}

impl Ports {
    /// Returns the ports of an answer to a packet with these ports.
    const fn back(src_port: u16, dst_port: u16) -> Self {
        Self {
            from: dst_port,
            to: src_port,
        }
    }
}

/// Addresses between which a packet is sent.
struct Route {
    version: IpVersion,
    from: u128,
    to: u128,
}

impl Route {
    /// Returns the route back to the sender of a packet.
    const fn back(ip: &Ip) -> Self {
        Self {
            version: ip.version,
            from: ip.dst,
            to: ip.src,
        }
    }
}

/// Type and code of an ICMP error, and the MTU in the lower half of its second word, or 0.
struct IcmpKind {
    kind: u8,
    code: u8,
    mtu: u16,
}

/// Writes an ICMP error about a packet.
fn icmp_error(ip: &Ip, packet: &[u8], error: IcmpKind, out: &mut [u8]) -> Option<usize> {
    let whole = packet.get(..ip.total_len as usize).unwrap_or(packet);
    let (limit, header, protocol) = match ip.version {
        IpVersion::V4 => (MAX_ICMPV4, 20, PROTOCOL_ICMP),
        IpVersion::V6 => (MAX_REPLY, 40, PROTOCOL_ICMPV6),
    };
    let [mtu_high, mtu_low] = error.mtu.to_be_bytes();
    let quote = whole.get(..limit - header - 8).unwrap_or(whole);
    let mut icmp = [error.kind, error.code, 0, 0, 0, 0, mtu_high, mtu_low];
    let back = Route::back(ip);
    let pseudo = match ip.version {
        IpVersion::V4 => 0,
        IpVersion::V6 => pseudo_header(&back, protocol, icmp.len() + quote.len()),
    };
    let sum = checksum(pseudo, &[&icmp, quote]);
    if let Some(field) = icmp.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    assemble(&back, protocol, &[&icmp, quote], out)
}

/// Writes an IP packet.
fn assemble(route: &Route, protocol: u8, parts: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let mut header = [0u8; 40];
    let header = match route.version {
        IpVersion::V4 => {
            let (total, from, to) = (20 + payload, route.from as u32, route.to as u32);
            let fields = [0x45, 0]
                .into_iter()
                .chain((total as u16).to_be_bytes())
                // Identification 0 with don't-fragment: RFC 6864 4.1, an atomic datagram.
                .chain([0, 0, 0x40, 0, TTL, protocol, 0, 0])
                .chain(from.to_be_bytes())
                .chain(to.to_be_bytes());
            let header = header.get_mut(..20)?;
            for (byte, value) in header.iter_mut().zip(fields) {
                *byte = value;
            }
            let sum = checksum(0, &[header]);
            header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
            &*header
        }
        IpVersion::V6 => {
            let fields = [0x60, 0, 0, 0]
                .into_iter()
                .chain((payload as u16).to_be_bytes())
                .chain([protocol, TTL])
                .chain(route.from.to_be_bytes())
                .chain(route.to.to_be_bytes());
            for (byte, value) in header.iter_mut().zip(fields) {
                *byte = value;
            }
            &header[..]
        }
    };
    let mut at = 0;
    for part in core::iter::once(&header).chain(parts) {
        out.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(at)
}

/// Returns the sum of the pseudo-header's words, which is equal for both directions.
fn pseudo_header(route: &Route, protocol: u8, len: usize) -> u64 {
    let words = |address: u128| {
        (0..8)
            .map(move |word| (address >> (16 * word)) as u16)
            .map(u64::from)
    };
    let (from, to) = match route.version {
        IpVersion::V4 => (route.from & 0xffff_ffff, route.to & 0xffff_ffff),
        IpVersion::V6 => (route.from, route.to),
    };
    words(from).chain(words(to)).sum::<u64>() + u64::from(protocol) + len as u64
}

/// Returns the Internet checksum (RFC 1071) of the parts, added to `sum`. All parts but the last
/// have an even length.
fn checksum(mut sum: u64, parts: &[&[u8]]) -> u16 {
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        sum += words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)))
            .sum::<u64>();
        sum += rest.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>();
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The reason for which a packet of the engine's own was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsent {
    /// The destination has received as many packets as `resets.per_destination` allows.
    DestinationBudget,
    /// The total has reached `resets.overall`, and the zone has used its guaranteed share.
    OverallBudget,
    /// The sequence number that the receiver accepts is unknown.
    NumberUnknown,
    /// The session ended in a call without a sink.
    NoSink,
}

impl Unsent {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::DestinationBudget,
        Self::OverallBudget,
        Self::NumberUnknown,
        Self::NoSink,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DestinationBudget => "destination_budget",
            Self::OverallBudget => "overall_budget",
            Self::NumberUnknown => "number_unknown",
            Self::NoSink => "no_sink",
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::packet::QuotedTransport;

    fn built(
        builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    fn syn_v4() -> Vec<u8> {
        built(
            PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 9], 50)
                .tcp(4000, 80, 1_000, 512)
                .syn(),
            b"tfo",
        )
    }

    fn syn_v6() -> Vec<u8> {
        built(
            PacketBuilder::ipv6([1; 16], [2; 16], 50)
                .tcp(4000, 80, 1_000, 512)
                .syn(),
            b"",
        )
    }

    #[test]
    fn a_syn_is_refused_as_a_closed_port_would() {
        for (packet, len) in [(syn_v4(), 4), (syn_v6(), 1)] {
            let mut out = [0; MAX_REPLY];
            let reply = write_reply_unbudgeted(Reply::TcpReset, &packet, &mut out).unwrap();
            let asked = parse(&packet, Checksums::Verify).unwrap();
            let answer = parse(reply, Checksums::Verify).expect("checksums are right");
            assert_eq!((answer.ip.src, answer.ip.dst), (asked.ip.dst, asked.ip.src));
            assert_eq!(answer.ip.ttl, 64);
            let Transport::Tcp {
                src_port,
                dst_port,
                segment,
            } = answer.transport
            else {
                panic!()
            };
            assert_eq!((src_port, dst_port), (80, 4000));
            assert_eq!(segment.flags, TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0));
            assert_eq!((segment.seq, segment.ack), (SeqNum(0), SeqNum(1_000 + len)));
        }
    }

    #[test]
    fn a_segment_with_an_ack_gets_the_number_that_it_expects() {
        let packet = built(
            PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 9], 50)
                .tcp(1, 2, 7, 512)
                .ack(99),
            b"x",
        );
        let mut out = [0; MAX_REPLY];
        let reply = write_reply_unbudgeted(Reply::TcpReset, &packet, &mut out).unwrap();
        let Transport::Tcp { segment, .. } = parse(reply, Checksums::Verify).unwrap().transport
        else {
            panic!()
        };
        assert_eq!((segment.seq, segment.flags), (SeqNum(99), TcpFlags::RST));
    }

    #[test]
    fn an_icmp_error_quotes_the_packet_within_its_limit() {
        for version in [4, 6] {
            let mut packet = Vec::new();
            if version == 4 {
                let builder = PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 9], 50).udp(4000, 53);
                builder.write(&mut packet, &[7; 1400]).unwrap();
            } else {
                let builder = PacketBuilder::ipv6([1; 16], [2; 16], 50).udp(4000, 53);
                builder.write(&mut packet, &[7; 1400]).unwrap();
            }
            let mut out = [0; MAX_REPLY];
            let reply = write_reply_unbudgeted(Reply::Prohibited, &packet, &mut out).unwrap();
            assert_eq!(reply.len(), if version == 4 { 576 } else { 1280 });
            let Transport::IcmpError(error) = parse(reply, Checksums::Verify).unwrap().transport
            else {
                panic!("an ICMP error")
            };
            assert_eq!(
                (error.icmp_type, error.code),
                if version == 4 { (3, 13) } else { (1, 1) }
            );
            assert_eq!(
                error.quoted.transport,
                QuotedTransport::Ports {
                    src: 4000,
                    dst: 53,
                    seq: None
                }
            );
        }
    }

    #[test]
    fn who_sends_too_much_is_told_how_much_may_be_sent() {
        let mut v4 = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 9], 50).udp(4000, 53);
        builder.write(&mut v4, &[7; 9000]).unwrap();
        let mut v6 = Vec::new();
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 50).udp(4000, 53);
        builder.write(&mut v6, &[7; 9000]).unwrap();
        let mut out = [0; MAX_REPLY];
        for (packet, kind) in [(&v4, (3, 4)), (&v6, (2, 0))] {
            let told = write_too_big(8500, packet, &mut out).unwrap();
            let header = if kind == (3, 4) { 20 } else { 40 };
            assert_eq!(told[header + 6..header + 8], 8500u16.to_be_bytes());
            let Transport::IcmpError(error) = parse(told, Checksums::Verify).unwrap().transport
            else {
                panic!("an ICMP error")
            };
            assert_eq!((error.icmp_type, error.code), kind);
            let told = told.to_vec();
            assert_eq!(
                write_too_big(100, &told, &mut out),
                None,
                "no error about an error"
            );
        }
        v4[6] = 0;
        assert_eq!(
            write_too_big(8500, &v4, &mut out),
            None,
            "it may be fragmented"
        );
        v4[6] = 0x40;
        v4[16..20].copy_from_slice(&[224, 0, 0, 1]);
        assert_eq!(
            write_too_big(8500, &v4, &mut out),
            None,
            "it went to a group"
        );
    }

    #[test]
    fn a_short_buffer_gets_nothing() {
        assert_eq!(
            write_reply_unbudgeted(Reply::TcpReset, &syn_v4(), &mut [0; 39]),
            None
        );
        assert!(write_reply_unbudgeted(Reply::TcpReset, &syn_v4(), &mut [0; 40]).is_some());
        assert_eq!(
            write_reply_unbudgeted(Reply::TcpReset, b"nonsense", &mut [0; 40]),
            None
        );
    }
}
