//! A packet for every malformation.

use super::transports::{AH, DCCP, ESP, GRE, SCTP, UDP_LITE, chunk, dccp, init, sctp, udp_lite};
use super::*;

/// A fragment of `len` bytes of protocol TCP at `offset` bytes.
fn fragment4(offset: u16, more: bool, len: usize) -> Vec<u8> {
    let field = (offset >> 3) | if more { 0x2000 } else { 0 };
    patched(ipv4(TCP, &vec![0; len]), 6, &field.to_be_bytes())
}

fn fragment6(offset: u16, more: bool, len: usize) -> Vec<u8> {
    let mut payload = vec![TCP, 0];
    payload.extend((offset | u16::from(more)).to_be_bytes());
    payload.extend([0, 0, 0, 1]);
    payload.resize(8 + len, 0);
    ipv6_raw(44, &payload)
}

/// Every reason, with packets that produce it even if checksums are trusted.
fn table() -> Vec<(Malformed, Vec<Vec<u8>>)> {
    use Malformed as M;
    let syn = tcp(TcpFlags::SYN, &[], &[]);
    let v4 = ipv4(TCP, &syn);
    let v6 = ipv6(TCP, &syn);
    let cut = |packet: &Vec<u8>, len: usize| packet[..len].to_vec();
    let quote4 = ipv4(UDP, &udp(b"abc"));
    let quote6 = ipv6(UDP, &udp(b"abc"));
    let error4 = |quote: &[u8]| ipv4(ICMP, &icmp(3, 3, [0; 4], quote));
    let error6 = |quote: &[u8]| ipv6(ICMPV6, &icmp(1, 4, [0; 4], quote));
    let mut eight_extensions = [60, 0, 0, 0, 0, 0, 0, 0].repeat(9);
    eight_extensions[64] = TCP;
    eight_extensions.extend(&syn);
    vec![
        (M::Empty, vec![vec![]]),
        (
            M::IpVersionUnknown,
            vec![vec![0], patched(v4.clone(), 0, &[0x55])],
        ),
        (
            M::Ipv4HeaderTruncated,
            vec![
                vec![0x45],
                cut(&v4, 19),
                cut(&ipv4_with_options(TCP, &[1; 4], &[]), 23),
            ],
        ),
        (
            M::Ipv4HeaderLength,
            vec![
                patched(v4.clone(), 0, &[0x44]),
                patched(v4.clone(), 0, &[0x40]),
            ],
        ),
        (
            M::Ipv4TotalLengthBelowHeader,
            vec![
                patched(v4.clone(), 2, &[0, 19]),
                patched(v4.clone(), 2, &[0, 0]),
            ],
        ),
        (
            M::Ipv4TotalLengthBeyondPacket,
            vec![cut(&v4, 39), patched(v4.clone(), 2, &[0, 41])],
        ),
        (
            M::Ipv4Option,
            super::options::INVALID
                .iter()
                .map(|(_, options)| ipv4_with_options(TCP, options, &syn))
                .collect(),
        ),
        (M::Ipv6HeaderTruncated, vec![vec![0x60], cut(&v6, 39)]),
        (
            M::Ipv6PayloadLengthZero,
            vec![
                patched(v6.clone(), 4, &[0, 0]),
                ipv6_raw(0, &[]),
                ipv6_raw(TCP, &[]),
            ],
        ),
        (
            M::Ipv6PayloadLengthBeyondPacket,
            vec![cut(&v6, 59), patched(v6.clone(), 4, &[0, 21])],
        ),
        (
            M::Ipv6ExtensionTruncated,
            vec![
                ipv6_raw(60, &[TCP, 0, 0, 0, 0, 0, 0]),
                ipv6_raw(60, &[TCP, 1, 0, 0, 0, 0, 0, 0]),
                ipv6_raw(44, &[TCP, 0, 0, 0, 0, 0, 0]),
            ],
        ),
        (
            M::Ipv6ExtensionChainTooLong,
            vec![ipv6_raw(60, &eight_extensions)],
        ),
        (
            M::Ipv6HopByHopNotFirst,
            vec![ipv6_raw(
                60,
                &[0, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0, 0, 0, 0, 0],
            )],
        ),
        (
            M::Ipv6RoutingHeaderType0,
            vec![ipv6_raw(43, &[TCP, 0, 0, 1, 0, 0, 0, 0])],
        ),
        (
            M::Ipv6FragmentHeaderRepeated,
            vec![ipv6_raw(
                44,
                &[44, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0, 0, 0, 0, 0],
            )],
        ),
        (
            M::SourceAddressNotUnicast,
            vec![
                patched(v4.clone(), 12, &[224, 0, 0, 1]),
                patched(v4.clone(), 12, &[239, 255, 255, 255]),
                patched(v4.clone(), 12, &[255, 255, 255, 255]),
                patched(v6.clone(), 8, &[0xff, 2]),
            ],
        ),
        (
            M::FragmentEmpty,
            vec![
                fragment4(8, false, 0),
                fragment4(0, true, 0),
                fragment6(8, true, 0),
            ],
        ),
        (
            M::FragmentLengthNotMultipleOf8,
            vec![fragment4(0, true, 9), fragment6(8, true, 7)],
        ),
        (
            M::FragmentBeyond65535,
            vec![fragment4(65512, false, 4), fragment6(65528, false, 8)],
        ),
        (
            M::FragmentInsideTcpHeader,
            vec![
                fragment4(8, false, 12),
                fragment4(16, true, 8),
                fragment6(8, true, 8),
            ],
        ),
        (
            M::TcpHeaderTruncated,
            vec![ipv4(TCP, &syn[..19]), ipv6(TCP, &syn[..19]), ipv4(TCP, &[])],
        ),
        (
            M::TcpHeaderLength,
            vec![
                ipv4(TCP, &patched(syn.clone(), 12, &[0x40])),
                ipv4(TCP, &patched(syn.clone(), 12, &[0x60])),
                ipv6(TCP, &patched(syn.clone(), 12, &[0x00])),
            ],
        ),
        (
            M::TcpFlags,
            vec![
                ipv4(TCP, &tcp(TcpFlags::default(), &[], &[])),
                ipv4(TCP, &tcp(TcpFlags::FIN, &[], &[])),
                ipv6(TCP, &tcp(TcpFlags::SYN | TcpFlags::FIN, &[], &[])),
                ipv6(TCP, &tcp(TcpFlags::SYN | TcpFlags::RST, &[], &[])),
            ],
        ),
        (
            M::UdpHeaderTruncated,
            vec![ipv4(UDP, &udp(&[])[..7]), ipv6(UDP, &udp(&[])[..7])],
        ),
        (
            M::UdpLength,
            vec![
                ipv4(UDP, &patched(udp(b"abc"), 4, &[0, 7])),
                ipv4(UDP, &patched(udp(b"abc"), 4, &[0, 12])),
                ipv6(UDP, &patched(udp(b"abc"), 4, &[0, 0])),
            ],
        ),
        (
            M::IcmpHeaderTruncated,
            vec![
                ipv4(ICMP, &[8, 0, 0, 0, 0, 0, 0]),
                ipv6(ICMPV6, &[135, 0, 0, 0]),
            ],
        ),
        (
            M::IcmpVersionMismatch,
            vec![
                ipv4(ICMPV6, &icmp(128, 0, [0; 4], &[])),
                ipv6(ICMP, &icmp(8, 0, [0; 4], &[])),
                patched(fragment4(8, false, 8), 9, &[ICMPV6]),
            ],
        ),
        (
            M::IcmpErrorQuoteTruncated,
            vec![
                error4(&[]),
                error4(&quote4[..19]),
                error4(&quote4[..27]),
                error6(&[]),
                error6(&quote6[..39]),
                error6(&quote6[..47]),
                error6(&ipv6_raw(60, &[TCP, 1, 0, 0, 0, 0, 0, 0])),
            ],
        ),
        (
            M::IcmpErrorQuoteMalformed,
            vec![
                error4(&quote6),
                error4(&patched(quote4.clone(), 0, &[0x44])),
                error4(&ipv4(ICMPV6, &icmp(128, 0, [0; 4], &[]))),
                error6(&quote4),
                error6(&ipv6(ICMP, &icmp(8, 0, [0; 4], &[]))),
                error6(&ipv6_raw(43, &[TCP, 0, 0, 1, 0, 0, 0, 0])),
                error4(&ipv4(GRE, &[0x40, 0, 8, 0])),
            ],
        ),
    ]
}

/// Returns the table for the transports of [`super::transports`].
fn table_of_transports() -> Vec<(Malformed, Vec<Vec<u8>>)> {
    use Malformed as M;
    let data = chunk(0, 3, &[0; 13]);
    let with = |tag, chunks: &[&[u8]]| ipv4(SCTP, &sctp(tag, chunks));
    let long = |chunk: &[u8], len: u16| patched(chunk.to_vec(), 2, &len.to_be_bytes());
    let request = dccp(DccpType::Request, 0, 4, &[0; 4]);
    let close = dccp(DccpType::Close, 0, 8, &[0; 8]);
    let ah = [6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    vec![
        (
            M::SctpHeaderTruncated,
            vec![
                ipv4(SCTP, &[]),
                ipv4(SCTP, &sctp(5, &[])[..11]),
                ipv6(SCTP, &[0; 11]),
            ],
        ),
        (M::SctpNoChunk, vec![with(5, &[]), with(0, &[])]),
        (
            M::SctpChunkLength,
            vec![
                with(5, &[&long(&data, 3)]),
                with(5, &[&long(&data, 0)]),
                with(5, &[&long(&data, 21)]),
                with(5, &[&data[..17]]),
                with(5, &[&data, &[0; 3]]),
            ],
        ),
        (
            M::SctpTooManyChunks,
            vec![with(5, &[&chunk(0xc1, 0, &[]).repeat(1025)])],
        ),
        (
            M::SctpBundling,
            vec![
                with(0, &[&init(1, 9), &data]),
                with(5, &[&data, &init(1, 9)]),
                with(5, &[&init(2, 9), &data]),
                with(5, &[&chunk(14, 0, &[]), &data]),
                with(5, &[&data, &chunk(10, 0, &[])]),
                with(5, &[&data, &chunk(11, 0, &[])]),
                with(5, &[&data, &chunk(6, 0, &[])]),
                with(5, &[&chunk(6, 0, &[]), &data]),
            ],
        ),
        (
            M::SctpInit,
            vec![
                with(0, &[&init(1, 0)]),
                with(5, &[&init(2, 0)]),
                with(0, &[&long(&init(1, 9), 16)[..16]]),
            ],
        ),
        (
            M::SctpTagOfInit,
            vec![
                with(5, &[&init(1, 9)]),
                with(0, &[&data]),
                with(0, &[&init(2, 9)]),
            ],
        ),
        (
            M::DccpHeaderTruncated,
            vec![
                ipv4(DCCP, &request[..11]),
                ipv4(DCCP, &request[..19]),
                ipv6(DCCP, &close[..23]),
            ],
        ),
        (
            M::DccpType,
            (10..16)
                .map(|kind| ipv4(DCCP, &patched(close.clone(), 8, &[kind << 1 | 1])))
                .collect(),
        ),
        (
            M::DccpShortSequence,
            [0, 1, 5, 6, 7, 8, 9]
                .map(|kind| ipv4(DCCP, &patched(close.clone(), 8, &[kind << 1])))
                .to_vec(),
        ),
        (
            M::DccpDataOffset,
            vec![
                ipv4(DCCP, &patched(request.clone(), 4, &[4])),
                ipv4(DCCP, &patched(request.clone(), 4, &[6])),
                ipv6(DCCP, &patched(request.clone(), 4, &[0])),
            ],
        ),
        (
            M::DccpChecksumCoverage,
            vec![
                ipv4(DCCP, &patched(request.clone(), 5, &[2])),
                ipv6(DCCP, &patched(request, 5, &[15])),
            ],
        ),
        (
            M::UdpLiteHeaderTruncated,
            vec![ipv4(UDP_LITE, &[1; 7]), ipv6(UDP_LITE, &[1; 7])],
        ),
        (
            M::UdpLiteChecksumCoverage,
            vec![
                ipv4(UDP_LITE, &udp_lite(1, b"abc")),
                ipv4(UDP_LITE, &udp_lite(7, b"abc")),
                ipv6(UDP_LITE, &udp_lite(12, b"abc")),
            ],
        ),
        (
            M::GreHeaderTruncated,
            vec![
                ipv4(GRE, &[0, 0]),
                ipv4(GRE, &[0x80, 0, 8, 0]),
                ipv4(GRE, &[0x20, 0, 8, 0, 0, 0, 0]),
                ipv6(GRE, &[0x30, 0, 8, 0, 0, 0, 0, 1]),
                ipv4(GRE, &[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 9]),
            ],
        ),
        (
            M::GreVersion,
            vec![ipv4(GRE, &[0, 2, 8, 0]), ipv4(GRE, &[0, 7, 8, 0])],
        ),
        (
            M::GreFlags,
            vec![
                ipv4(GRE, &[0x40, 0, 8, 0]),
                ipv4(GRE, &[0x08, 0, 8, 0]),
                ipv4(GRE, &[0x04, 0, 8, 0]),
                ipv4(GRE, &[0, 1, 0x88, 0x0b, 0, 0, 0, 9]),
                ipv4(GRE, &[0xa0, 1, 0x88, 0x0b, 0, 0, 0, 9]),
                ipv4(GRE, &[0x20, 1, 8, 0, 0, 0, 0, 9]),
            ],
        ),
        (
            M::GrePayloadLength,
            vec![ipv4(GRE, &[0x20, 1, 0x88, 0x0b, 0, 1, 0, 9])],
        ),
        (
            M::EspHeaderTruncated,
            vec![ipv4(ESP, &[1; 7]), ipv6(ESP, &[1])],
        ),
        (M::EspSpiZero, vec![ipv4(ESP, &[0; 8])]),
        (M::AhHeaderTruncated, vec![ipv4(AH, &ah[..11])]),
        (
            M::AhLength,
            vec![
                ipv4(AH, &patched(ah.to_vec(), 1, &[0])),
                ipv4(AH, &patched(ah.to_vec(), 1, &[2])),
                ipv6(AH, &ah),
            ],
        ),
        (M::AhSpiZero, vec![ipv4(AH, &patched(ah.to_vec(), 7, &[0]))]),
    ]
}

/// First fragments that [`parse_first_fragment`] rejects because their transport header continues
/// in the next fragment.
fn tiny_fragments() -> Vec<Vec<u8>> {
    let first = |packet: Vec<u8>| patched(packet, 6, &[0x20, 0]);
    let first6 = |protocol: u8, payload: &[u8]| {
        let mut fragment = vec![protocol, 0, 0, 1, 0, 0, 0, 1];
        fragment.extend(payload);
        ipv6_raw(44, &fragment)
    };
    // A data offset of 28 bytes, of which 24 are present.
    let options = tcp(TcpFlags::SYN, &[1; 8], &[]);
    let quote = icmp(3, 3, [0; 4], &ipv4(UDP, &udp(b"abc"))[..24]);
    vec![
        fragment4(0, true, 8),
        fragment4(0, true, 16),
        fragment6(0, true, 16),
        first(ipv4(TCP, &options[..24])),
        first6(TCP, &options[..24]),
        first6(UDP, &[]),
        first(ipv4(ICMP, &quote)),
    ]
    .into_iter()
    .filter(|packet| parse(packet, Checksums::Trust).is_ok())
    .collect()
}

#[test]
fn a_first_fragment_without_its_whole_transport_header_is_tiny() {
    let packets = tiny_fragments();
    assert_eq!(packets.len(), 6, "one carries nothing and is no fragment");
    for packet in packets {
        let found = parse_first_fragment(&packet, &parsed(&packet));
        assert_eq!(found, Err(Malformed::FragmentTiny), "{packet:02x?}");
    }
    // A data offset below the minimum is wrong regardless of what follows.
    let short = patched(tcp(TcpFlags::SYN, &[], &[0; 4]), 12, &[0x40]);
    let packet = patched(ipv4(TCP, &short), 6, &[0x20, 0]);
    assert_eq!(
        parse_first_fragment(&packet, &parsed(&packet)),
        Err(Malformed::TcpHeaderLength)
    );
}

fn verified_table() -> Vec<(Malformed, Vec<Vec<u8>>)> {
    use Malformed as M;
    let syn = tcp(TcpFlags::SYN, &[], b"x");
    let damaged = |mut packet: Vec<u8>| {
        *packet.last_mut().unwrap() ^= 1;
        packet
    };
    let data = sctp(5, &[&chunk(0, 3, &[0; 13])]);
    let request = dccp(DccpType::Request, 0, 4, &[0; 4]);
    let echo = |icmp_type| icmp(icmp_type, 0, [0, 1, 0, 1], b"ping");
    let mut header_damaged = ipv4(TCP, &syn);
    header_damaged[8] -= 1;
    vec![
        (M::Ipv4HeaderChecksum, vec![header_damaged]),
        (
            M::TcpChecksum,
            vec![damaged(ipv4(TCP, &syn)), damaged(ipv6(TCP, &syn))],
        ),
        (
            M::UdpChecksum,
            vec![
                damaged(ipv4(UDP, &udp(b"abc"))),
                damaged(ipv6(UDP, &udp(b"abc"))),
            ],
        ),
        (M::UdpChecksumMissingIpv6, vec![ipv6_raw(UDP, &udp(b"abc"))]),
        (
            M::IcmpChecksum,
            vec![
                damaged(ipv4(ICMP, &echo(8))),
                damaged(ipv6(ICMPV6, &echo(128))),
            ],
        ),
        (
            M::SctpChecksum,
            vec![damaged(ipv4(SCTP, &data)), damaged(ipv6(SCTP, &data))],
        ),
        (
            M::DccpChecksum,
            vec![damaged(ipv4(DCCP, &request)), damaged(ipv6(DCCP, &request))],
        ),
        (
            M::UdpLiteChecksum,
            vec![
                damaged(ipv4(UDP_LITE, &udp_lite(0, b"abc"))),
                damaged(ipv6(UDP_LITE, &udp_lite(11, b"abc"))),
            ],
        ),
        (
            M::UdpLiteChecksumMissing,
            vec![ipv6_raw(UDP_LITE, &udp_lite(0, b"abc"))],
        ),
        (
            M::GreChecksum,
            vec![damaged(ipv4(GRE, &[0x80, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3]))],
        ),
    ]
}

#[test]
fn every_reason_has_a_packet_that_is_malformed_for_it() {
    for (reason, packets) in table().into_iter().chain(table_of_transports()) {
        for (i, packet) in packets.iter().enumerate() {
            for checksums in [Checksums::Trust, Checksums::Verify] {
                let found = parse(packet, checksums);
                assert_eq!(
                    found,
                    Err(reason),
                    "packet {i} of {reason:?}, {checksums:?}"
                );
            }
        }
    }
    for (reason, packets) in verified_table() {
        for (i, packet) in packets.iter().enumerate() {
            let found = parse(packet, Checksums::Require);
            assert_eq!(found, Err(reason), "packet {i} of {reason:?}");
            let required_only = reason == Malformed::UdpChecksumMissingIpv6;
            assert_eq!(
                parse(packet, Checksums::Verify).is_ok(),
                required_only,
                "packet {i} of {reason:?}, verified"
            );
            assert!(
                parse(packet, Checksums::Trust).is_ok(),
                "packet {i} of {reason:?}, trusted"
            );
        }
    }
    let covered: Vec<_> = table()
        .into_iter()
        .chain(table_of_transports())
        .chain(verified_table())
        .chain(discovery::table())
        .filter(|(_, packets)| !packets.is_empty())
        .map(|(reason, _)| reason)
        .chain([Malformed::FragmentTiny])
        .collect();
    for reason in Malformed::ALL {
        assert!(covered.contains(reason), "no packet for {reason:?}");
    }
}
