//! Properties of the parser for any bytes, and for any packet that etherparse builds.

use etherparse::{PacketBuilder, TcpOptionElement};
use proptest::prelude::*;

use super::*;

/// Bytes that resemble a packet more often than random ones.
fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop::sample::select(vec![
        0u8, 1, 6, 6, 6, 17, 17, 33, 43, 44, 47, 50, 51, 58, 59, 60, 132, 132, 135, 136,
    ]);
    let body = prop::collection::vec(any::<u8>(), 0..120);
    (any::<bool>(), protocol, body, any::<[u8; 24]>()).prop_map(|(v4, protocol, body, noise)| {
        let [
            length_noise,
            ihl,
            fragment_high,
            fragment_low,
            next,
            units,
            icmp_type,
            offset,
            ..,
        ] = noise;
        let mut body = body;
        if let [a, b, ..] = body.as_mut_slice() {
            match protocol {
                0 | 43 | 44 | 60 | 135 => {
                    (*a, *b) = (
                        [0, 6, 17, 43, 44, 58, 59, 60][usize::from(next & 7)],
                        units & 3,
                    )
                }
                1 | 58 => *a = [3, 11, 1, 2, 4, 8, 128, icmp_type][usize::from(next & 7)],
                _ => {}
            }
        }
        match (protocol, body.as_mut_slice()) {
            (6, [_, _, _, _, _, _, _, _, _, _, _, _, words, flags, ..]) => {
                *words = 0x50 + (offset & 0x30);
                *flags = (*flags & !7) | 0x10 | (units & 1);
            }
            (132, [_, _, _, _, _, _, _, _, _, _, _, _, chunk, _, high, low, ..]) => {
                (*chunk, *high, *low) = (units & 15, 0, offset & 0x3f);
            }
            (33, [_, _, _, _, words, coverage, _, _, kind, ..]) => {
                (*words, *coverage, *kind) = (4 + (offset & 7), units & 3, next & 0x1f);
            }
            (136, [_, _, _, _, high, low, ..]) => (*high, *low) = (0, offset & 0x3f),
            (47, [flags, version, ..]) => (*flags, *version) = (units & 0xf0, next & 0x81),
            (17, datagram @ [_, _, _, _, _, _, _, _, ..]) => {
                datagram[4] = 0;
                datagram[5] = (datagram.len() as u8).saturating_sub(units & 3);
            }
            _ => {}
        }
        let mut packet = if v4 {
            ipv4(protocol, &body)
        } else {
            ipv6_raw(protocol, &body)
        };
        if v4 {
            packet[0] = 0x45 + u8::from(ihl > 200);
            packet[6] = if fragment_high > 200 {
                fragment_low & 0x3f
            } else {
                0
            };
        }
        if length_noise > 230 {
            packet.truncate(usize::from(length_noise) % (packet.len() + 1));
        }
        packet
    })
}

fn lengths_are_consistent(bytes: &[u8], parsed: &Parsed, whole: bool) -> Result<(), TestCaseError> {
    let Ip {
        version,
        header_len,
        total_len,
        src,
        ..
    } = parsed.ip;
    let (header_len, total_len) = (usize::from(header_len), total_len as usize);
    let least = match version {
        IpVersion::V4 => 20,
        IpVersion::V6 => 40,
    };
    prop_assert!(least <= header_len && header_len <= total_len && total_len <= bytes.len());
    if version == IpVersion::V4 {
        prop_assert_eq!(src >> 32, 0xffff);
    }
    let payload = parsed.payload(bytes);
    match parsed.transport {
        Transport::Tcp { segment, .. } => {
            let tcp_header_len = total_len - header_len - payload.len();
            prop_assert!((20..=60).contains(&tcp_header_len) && tcp_header_len.is_multiple_of(4));
            prop_assert_eq!(payload.len(), segment.payload_len as usize);
            prop_assert!(segment.flags.is_valid_combination());
            prop_assert!(segment.options.sack.len() <= SackBlocks::CAPACITY);
        }
        Transport::Udp { payload_len, .. } => {
            // A first fragment has a part of the payload.
            prop_assert!(payload.len() <= usize::from(payload_len));
            prop_assert!(!whole || payload.len() == usize::from(payload_len));
            prop_assert!(header_len + 8 + payload.len() <= total_len);
        }
        Transport::Fragment(fragment) => {
            prop_assert!(payload.is_empty());
            prop_assert!(fragment.offset != 0 || fragment.more);
            prop_assert!(fragment.offset.is_multiple_of(8) && fragment.payload_len > 0);
            prop_assert!(usize::from(fragment.offset) + usize::from(fragment.payload_len) <= 65535);
            prop_assert_eq!(usize::from(fragment.transport_offset), header_len);
            prop_assert!(total_len - header_len <= usize::from(fragment.payload_len));
        }
        _ => prop_assert!(payload.is_empty()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_never_panic_and_what_parses_has_consistent_lengths(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..160),
            packet_like(),
            packet_like(),
        ]
    ) {
        let trusted = parse(&bytes, Checksums::Trust);
        if let Ok(parsed) = &trusted {
            lengths_are_consistent(&bytes, parsed, true)?;
            if let Ok(first) = parse_first_fragment(&bytes, parsed) {
                lengths_are_consistent(&bytes, &first, first == *parsed)?;
            }
        }
        // Checksums may reject a packet, but never change the parsed values.
        if let Ok(verified) = parse(&bytes, Checksums::Verify) {
            prop_assert_eq!(Ok(verified), trusted);
        }
    }

    #[test]
    fn any_options_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
        let options = TcpOptions::parse(&bytes);
        prop_assert!(options.window_scale.is_none_or(|shift| shift <= 14));
    }

    #[test]
    fn a_built_tcp_packet_reads_back(
        v6 in any::<bool>(),
        (src, dst) in any::<([u8; 16], [u8; 16])>(),
        (src_port, dst_port, window, seq, ack) in any::<(u16, u16, u16, u32, u32)>(),
        flags in 0usize..5,
        (mss, shift, stamps) in (any::<u16>(), 0u8..=14, any::<(u32, u32)>()),
        (wants_mss, wants_shift, wants_stamps, wants_sack) in any::<(bool, bool, bool, bool)>(),
        data in prop::collection::vec(any::<u8>(), 0..100),
        padding in 0usize..10,
    ) {
        let (mut src4, mut src6) = ([src[0], src[1], src[2], src[3]], src);
        (src4[0], src6[0]) = (src4[0] & 0x7f, src6[0] & 0x7f);
        let dst4 = [dst[0], dst[1], dst[2], dst[3]];
        let builder = match v6 {
            true => PacketBuilder::ipv6(src6, dst, 33),
            false => PacketBuilder::ipv4(src4, dst4, 33),
        };
        let builder = builder.tcp(src_port, dst_port, seq, window);
        let (builder, expected_flags) = match flags {
            0 => (builder.syn(), TcpFlags::SYN),
            1 => (builder.syn().ack(ack), TcpFlags::SYN | TcpFlags::ACK),
            2 => (builder.ack(ack).psh(), TcpFlags::ACK | TcpFlags::PSH),
            3 => (builder.fin().ack(ack), TcpFlags::FIN | TcpFlags::ACK),
            _ => (builder.rst().ack(ack), TcpFlags::RST | TcpFlags::ACK),
        };
        let mut options = Vec::new();
        if wants_mss { options.push(TcpOptionElement::MaximumSegmentSize(mss)); }
        if wants_sack { options.push(TcpOptionElement::SelectiveAcknowledgementPermitted); }
        if wants_stamps { options.push(TcpOptionElement::Timestamp(stamps.0, stamps.1)); }
        if wants_shift { options.push(TcpOptionElement::WindowScale(shift)); }
        let builder = builder.options(&options).unwrap();
        let mut packet = Vec::new();
        builder.write(&mut packet, &data).unwrap();
        let len = packet.len();
        packet.resize(len + padding, 0xee);

        let parsed = parse(&packet, Checksums::Verify).unwrap();
        prop_assert_eq!(Ok(parsed), parse(&packet, Checksums::Trust));
        lengths_are_consistent(&packet, &parsed, true)?;
        let (source, destination) = match v6 {
            true => (IpAddr::from(src6), IpAddr::from(dst)),
            false => (IpAddr::from(src4), IpAddr::from(dst4)),
        };
        prop_assert_eq!((parsed.ip.source(), parsed.ip.destination()), (source, destination));
        prop_assert_eq!((parsed.ip.ttl, parsed.ip.total_len as usize), (33, len));
        let segment = Segment {
            seq: SeqNum(seq),
            ack: SeqNum(if flags == 0 { 0 } else { ack }),
            flags: expected_flags,
            window,
            payload_len: data.len() as u32,
            urgent: 0,
            options: TcpOptions {
                mss: wants_mss.then_some(mss),
                window_scale: wants_shift.then_some(shift),
                sack_permitted: wants_sack,
                timestamps: wants_stamps.then_some(stamps),
                sack: SackBlocks::default(),
            },
        };
        prop_assert_eq!(parsed.transport, Transport::Tcp { src_port, dst_port, segment });
        prop_assert_eq!(parsed.payload(&packet), data);
    }

    #[test]
    fn a_built_udp_packet_or_echo_reads_back(
        v6 in any::<bool>(),
        (src_port, dst_port) in any::<(u16, u16)>(),
        data in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let builder = || match v6 {
            true => PacketBuilder::ipv6(SOURCE6, TARGET6, 1),
            false => PacketBuilder::ipv4(SOURCE4, TARGET4, 1),
        };
        let mut packet = Vec::new();
        builder().udp(src_port, dst_port).write(&mut packet, &data).unwrap();
        let parsed = parse(&packet, Checksums::Verify).unwrap();
        let payload_len = data.len() as u16;
        prop_assert_eq!(parsed.transport, Transport::Udp { src_port, dst_port, payload_len });
        prop_assert_eq!(parsed.payload(&packet), &data);

        let mut packet = Vec::new();
        match v6 {
            true => builder().icmpv6_echo_request(src_port, 1).write(&mut packet, &data).unwrap(),
            false => builder().icmpv4_echo_request(src_port, 1).write(&mut packet, &data).unwrap(),
        }
        let icmp_type = if v6 { 128 } else { 8 };
        let query = IcmpQuery {
            kind: IcmpKind::Echo,
            id: src_port,
            request: true,
            icmp_type,
            code: 0,
        };
        let parsed = parse(&packet, Checksums::Verify).unwrap();
        prop_assert_eq!(parsed.transport, Transport::IcmpQuery(query));
    }
}
