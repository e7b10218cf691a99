//! IPv4, TCP, UDP and ICMP queries.

use proptest::prelude::*;

use super::*;

#[test]
fn a_tcp_segment_over_ipv4_is_read_field_by_field() {
    let packet = ipv4(TCP, &tcp(TcpFlags::ACK | TcpFlags::PSH, &[], b"data"));
    let parsed = parsed(&packet);
    assert_eq!(
        parsed.ip,
        Ip {
            version: IpVersion::V4,
            src: 0xffff_c000_0201,
            dst: 0xffff_c633_6402,
            protocol: TCP,
            ttl: 64,
            options: IpOptions::NONE,
            header_len: 20,
            total_len: 44,
        }
    );
    assert_eq!(parsed.ip.source(), IpAddr::from(SOURCE4));
    assert_eq!(parsed.ip.destination(), IpAddr::from(TARGET4));
    assert_eq!(
        parsed.transport,
        Transport::Tcp {
            src_port: 1000,
            dst_port: 443,
            segment: Segment {
                seq: SeqNum(7),
                ack: SeqNum(9),
                flags: TcpFlags::ACK | TcpFlags::PSH,
                window: 0x2000,
                payload_len: 4,
                urgent: 5,
                options: TcpOptions::default(),
            },
        }
    );
    assert_eq!(parsed.payload(&packet), b"data");
}

#[test]
fn an_ipv6_address_is_its_number_even_if_it_is_a_mapped_one() {
    let packet = ipv6(UDP, &udp(b"abc"));
    let ip = parsed(&packet).ip;
    assert_eq!(
        (ip.version, ip.header_len, ip.total_len),
        (IpVersion::V6, 40, 51)
    );
    assert_eq!(ip.source(), IpAddr::from(SOURCE6));
    assert_eq!(ip.destination(), IpAddr::from(TARGET6));
    let mapped = std::net::Ipv4Addr::from(SOURCE4).to_ipv6_mapped();
    let packet = patched(packet, 8, &mapped.octets());
    let ip = parse(&packet, Checksums::Trust).unwrap().ip;
    assert_eq!(ip.src, 0xffff_c000_0201);
    assert_eq!(ip.source(), IpAddr::from(mapped));
}

#[test]
fn padding_behind_the_ip_length_is_not_payload() {
    for packet in [
        ipv4(TCP, &tcp(TcpFlags::ACK, &[], b"data")),
        ipv6(TCP, &tcp(TcpFlags::ACK, &[], b"data")),
        ipv4(UDP, &udp(b"data")),
        ipv6(UDP, &udp(b"data")),
    ] {
        let mut padded = packet.clone();
        padded.extend([0xaa; 13]);
        assert_eq!(parsed(&padded), parsed(&packet));
        assert_eq!(parsed(&padded).payload(&padded), b"data");
    }
}

#[test]
fn bytes_behind_the_udp_length_are_neither_payload_nor_summed() {
    let mut payload = udp(b"abc");
    payload.extend(b"rest");
    let mut packet = ipv4(UDP, &payload);
    let alone = ipv4(UDP, &udp(b"abc"));
    packet[26..28].copy_from_slice(&alone[26..28]);
    let parsed = parsed(&packet);
    assert_eq!(
        parsed.transport,
        Transport::Udp {
            src_port: 1000,
            dst_port: 53,
            payload_len: 3
        }
    );
    assert_eq!(parsed.payload(&packet), b"abc");
}

#[test]
fn ipv4_options_are_stepped_over() {
    let segment = tcp(TcpFlags::ACK, &[], b"data");
    let packet = ipv4_with_options(TCP, &[0x94, 4, 0, 0], &segment);
    let found = parsed(&packet);
    assert_eq!((found.ip.header_len, found.ip.total_len), (24, 48));
    assert_eq!(found.transport, parsed(&ipv4(TCP, &segment)).transport);
    assert_eq!(found.payload(&packet), b"data");
}

#[test]
fn only_tcp_and_udp_have_a_payload() {
    let packet = ipv4(ICMP, &icmp(8, 0, [0; 4], b"ping"));
    assert!(parsed(&packet).payload(&packet).is_empty());
}

#[test]
fn a_payload_of_other_bytes_is_empty_and_not_a_panic() {
    let packet = ipv4(UDP, &udp(b"abc"));
    assert!(parsed(&packet).payload(&packet[..20]).is_empty());
}

#[test]
fn a_udp_checksum_of_0_is_none_over_ipv4_and_one_of_ffff_is_a_sum() {
    let mut packet = ipv4(UDP, &udp(b"abc"));
    packet[26..28].fill(0);
    assert!(parse(&packet, Checksums::Verify).is_ok());

    // The word for which the sum is 0, which is sent as ffff.
    for build in [ipv4, ipv6] {
        let at = if build(UDP, &udp(b"ab"))[0] == 0x45 {
            26
        } else {
            46
        };
        let plain = build(UDP, &udp(&[0, 0]));
        let word = [plain[at], plain[at + 1]];
        let packet = build(UDP, &udp(&word));
        assert_eq!(packet[at..at + 2], [0xff, 0xff]);
        assert!(parse(&packet, Checksums::Verify).is_ok());
    }
}

#[test]
fn an_odd_last_byte_is_summed() {
    for len in 0..5 {
        parsed(&ipv4(TCP, &tcp(TcpFlags::ACK, &[], &b"odd!!"[..len])));
        parsed(&ipv6(TCP, &tcp(TcpFlags::ACK, &[], &b"odd!!"[..len])));
    }
}

#[test]
fn the_ports_may_be_0() {
    let packet = ipv4(TCP, &patched(tcp(TcpFlags::SYN, &[], &[]), 0, &[0; 4]));
    let transport = parsed(&packet).transport;
    assert!(matches!(
        transport,
        Transport::Tcp {
            src_port: 0,
            dst_port: 0,
            ..
        }
    ));
}

#[test]
fn another_protocol_is_other() {
    for protocol in [0, 2, 4, 41, 43, 44, 59, 60, 89, 253] {
        let found = parsed(&ipv4(protocol, &[0; 3]));
        assert_eq!(
            (found.ip.protocol, found.transport),
            (protocol, Transport::Other)
        );
    }
}

#[test]
fn the_reserved_bit_and_dont_fragment_make_no_fragment() {
    for bits in [0x40, 0x80, 0xc0] {
        let packet = patched(ipv4(UDP, &udp(b"abc")), 6, &[bits, 0]);
        assert!(matches!(parsed(&packet).transport, Transport::Udp { .. }));
    }
}

#[test]
fn an_ipv4_fragment_says_where_it_belongs() {
    // Offset 185 words of 8 bytes, the last one.
    let packet = patched(ipv4(TCP, &[0; 13]), 6, &[0, 185]);
    assert_eq!(
        parsed(&packet).transport,
        Transport::Fragment(Fragment {
            id: 0x1234,
            offset: 1480,
            more: false,
            payload_len: 13,
            transport_offset: 20
        })
    );
    // The first fragment; its TCP header is not parsed.
    let packet = patched(ipv4_with_options(TCP, &[1; 4], &[0; 8]), 6, &[0x20, 0]);
    assert_eq!(
        parsed(&packet).transport,
        Transport::Fragment(Fragment {
            id: 0x1234,
            offset: 0,
            more: true,
            payload_len: 8,
            transport_offset: 24
        })
    );
}

#[test]
fn a_first_fragment_has_the_transport_header_of_its_datagram() {
    // 24 bytes of a UDP datagram of 1008, and 4 bytes of padding.
    let mut datagram = udp(&[7; 16]);
    datagram[4..6].copy_from_slice(&1008u16.to_be_bytes());
    let mut packet = patched(ipv4(UDP, &datagram), 6, &[0x20, 0]);
    packet.extend([9; 4]);
    let first = parse_first_fragment(&packet, &parsed(&packet)).unwrap();
    assert_eq!(
        first.transport,
        Transport::Udp {
            src_port: 1000,
            dst_port: 53,
            payload_len: 1000
        }
    );
    assert_eq!(first.payload(&packet), [7; 16]);
    // The TCP payload is the part in the fragment.
    let packet = patched(ipv4(TCP, &tcp(TcpFlags::ACK, &[], &[7; 12])), 6, &[0x20, 0]);
    let first = parse_first_fragment(&packet, &parsed(&packet)).unwrap();
    assert!(matches!(first.transport, Transport::Tcp { segment, .. } if segment.payload_len == 12));
    assert_eq!(first.payload(&packet), [7; 12]);
    // Other packets are unchanged.
    for packet in [
        ipv4(UDP, &udp(b"abc")),
        patched(ipv4(UDP, &[0; 8]), 6, &[0, 9]),
    ] {
        let whole = parsed(&packet);
        assert_eq!(parse_first_fragment(&packet, &whole), Ok(whole));
    }
}

#[test]
fn the_last_byte_of_the_largest_ipv4_packet_may_come_in_a_fragment() {
    // 65512 and 3 bytes, after a header of 20.
    let packet = patched(ipv4(UDP, &[0; 3]), 6, &[0x1f, 0xfd]);
    assert!(matches!(
        parsed(&packet).transport,
        Transport::Fragment(Fragment {
            offset: 65512,
            payload_len: 3,
            ..
        })
    ));
}

#[test]
fn icmp_queries_have_a_kind_an_id_and_a_direction() {
    let table = [
        (8, IcmpKind::Echo, true),
        (0, IcmpKind::Echo, false),
        (13, IcmpKind::Timestamp, true),
        (14, IcmpKind::Timestamp, false),
        (15, IcmpKind::Information, true),
        (16, IcmpKind::Information, false),
        (17, IcmpKind::AddressMask, true),
        (18, IcmpKind::AddressMask, false),
        (42, IcmpKind::ExtendedEcho, true),
        (43, IcmpKind::ExtendedEcho, false),
    ];
    let table6 = [
        (128, IcmpKind::Echo, true),
        (129, IcmpKind::Echo, false),
        (139, IcmpKind::NodeInformation, true),
        (140, IcmpKind::NodeInformation, false),
        (160, IcmpKind::ExtendedEcho, true),
        (161, IcmpKind::ExtendedEcho, false),
    ];
    let packets = table
        .map(|row| {
            (
                row,
                ipv4(ICMP, &icmp(row.0, 1, [0xab, 0xcd, 0, 1], b"ping")),
            )
        })
        .into_iter()
        .chain(table6.map(|row| {
            (
                row,
                ipv6(ICMPV6, &icmp(row.0, 1, [0xab, 0xcd, 0, 1], b"ping")),
            )
        }));
    for ((icmp_type, kind, request), packet) in packets {
        let expected = IcmpQuery {
            kind,
            id: 0xabcd,
            request,
            icmp_type,
            code: 1,
        };
        assert_eq!(parsed(&packet).transport, Transport::IcmpQuery(expected));
    }
}

#[test]
fn neighbor_and_listener_discovery_belong_to_the_link() {
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        let packet = ipv6(ICMPV6, &icmp(kind, 0, [0; 4], &[0; 16]));
        assert_eq!(parsed(&packet).transport, Transport::Discovery { kind });
    }
}

#[test]
fn other_icmp_messages_are_other() {
    for kind in [1, 2, 6, 7, 9, 10, 19, 30, 40, 128, 255] {
        let packet = ipv4(ICMP, &icmp(kind, 2, [0; 4], &[]));
        assert_eq!(
            parsed(&packet).transport,
            Transport::IcmpOther { kind, code: 2 }
        );
    }
    for kind in [0, 5, 127, 138, 141, 142, 144, 155, 255] {
        let packet = ipv6(ICMPV6, &icmp(kind, 2, [0; 4], &[]));
        assert_eq!(
            parsed(&packet).transport,
            Transport::IcmpOther { kind, code: 2 }
        );
    }
}

/// The options of a segment with these bytes, padded with ends of options.
fn options(bytes: &[u8]) -> TcpOptions {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    segment(&ipv4(TCP, &tcp(TcpFlags::SYN, &bytes, b"data"))).options
}

#[test]
fn the_options_of_a_syn_are_read() {
    let found = options(&[
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7,
    ]);
    let expected = TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((1, 2)),
        sack: SackBlocks::default(),
    };
    assert_eq!(found, expected);
}

/// Bytes near the layout of a SYN of Linux: up to two of them are changed.
fn nearly_of_linux() -> impl Strategy<Value = [u8; 20]> {
    let layout = [
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7,
    ];
    let change = (0usize..20, prop_oneof![0u8..11, any::<u8>()]);
    prop::collection::vec(change, 0..3).prop_map(move |changes| {
        let mut options = layout;
        for (place, value) in changes {
            options[place] = value;
        }
        options
    })
}

proptest! {
    /// Padding in front changes the layout, and not the meaning.
    #[test]
    fn the_options_of_linux_are_read_as_in_any_other_layout(usual in nearly_of_linux()) {
        let unusual = [&[1, 1, 1, 1][..], &usual].concat();
        prop_assert_eq!(TcpOptions::parse(&usual), TcpOptions::parse(&unusual));
        prop_assert_eq!(options(&usual), TcpOptions::parse(&unusual));
    }
}

#[test]
fn aligned_timestamps_are_read_as_any_others() {
    let timestamps = [8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
    let aligned = [&[1, 1][..], &timestamps].concat();
    let expected = TcpOptions {
        timestamps: Some((0x0001_0203, 0x0405_0607)),
        ..Default::default()
    };
    assert_eq!(options(&aligned), expected);
    assert_eq!(options(&timestamps), expected);
    assert_eq!(options(&[&[1][..], &timestamps].concat()), expected);
}

#[test]
fn an_unknown_option_ends_nothing() {
    let found = options(&[253, 6, 1, 2, 3, 4, 3, 3, 5]);
    assert_eq!(found.window_scale, Some(5));
}

#[test]
fn a_known_option_of_a_wrong_length_is_stepped_over() {
    let found = options(&[2, 3, 9, 4, 3, 1, 5, 4, 9, 9, 8, 3, 1, 3, 3, 5]);
    assert_eq!(
        found,
        TcpOptions {
            window_scale: Some(5),
            ..Default::default()
        }
    );
}

#[test]
fn the_end_of_options_ends_the_walk() {
    assert_eq!(options(&[1, 0, 3, 3, 5]), TcpOptions::default());
}

#[test]
fn a_length_below_2_or_beyond_the_header_ends_the_walk_and_keeps_the_segment() {
    let first = TcpOptions {
        window_scale: Some(5),
        ..Default::default()
    };
    assert_eq!(options(&[3, 3, 5, 254, 0, 2, 4, 1]), first);
    assert_eq!(options(&[3, 3, 5, 254, 1, 4, 2]), first);
    assert_eq!(options(&[3, 3, 5, 2, 9, 4, 2, 1]), first);
    assert_eq!(options(&[3, 3, 5, 254]), first);
}

#[test]
fn a_window_scale_above_14_counts_as_14() {
    assert_eq!(options(&[3, 3, 15]).window_scale, Some(14));
    assert_eq!(options(&[3, 3, 255]).window_scale, Some(14));
    assert_eq!(options(&[3, 3, 14]).window_scale, Some(14));
}

#[test]
fn sack_blocks_are_read_in_order_up_to_four() {
    let block = |n: u8| [0, 0, 0, n, 0, 0, 1, n];
    let pair = |n: u32| (SeqNum(n), SeqNum(256 + n));
    let mut bytes = vec![1, 1, 5, 34];
    bytes.extend((1..=4).flat_map(block));
    let sack = options(&bytes).sack;
    assert_eq!(
        sack.iter().collect::<Vec<_>>(),
        [pair(1), pair(2), pair(3), pair(4)]
    );
    assert_eq!((sack.len(), sack.is_empty()), (4, false));

    let two = [&[5, 10][..], &block(1), &[5, 10], &block(2)].concat();
    assert_eq!(options(&two).sack, [pair(1), pair(2)].into_iter().collect());
    assert_eq!(format!("{:?}", options(&[5, 2]).sack), "[]");
    let five: SackBlocks = (1..=5).map(pair).collect();
    assert_eq!(five, sack);
}
