//! SCTP, DCCP, UDP-Lite, GRE, ESP and AH.

use super::*;

pub(super) const SCTP: u8 = 132;
pub(super) const DCCP: u8 = 33;
pub(super) const UDP_LITE: u8 = 136;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;

/// An SCTP chunk with its padding.
pub(super) fn chunk(chunk_type: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![chunk_type, flags];
    chunk.extend((4 + body.len() as u16).to_be_bytes());
    chunk.extend(body);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// An INIT (1) or INIT ACK (2).
pub(super) fn init(chunk_type: u8, tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    chunk(chunk_type, 0, &body)
}

/// An SCTP packet from port 1000 to 2905, without its checksum.
pub(super) fn sctp(tag: u32, chunks: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0x03, 0xe8, 0x0b, 0x59];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(chunks.concat());
    packet
}

/// A DCCP packet from port 1000 to 5001, sequence number 7; `rest` follows the generic header of 16
/// bytes; its first `header` bytes count as header.
pub(super) fn dccp(kind: DccpType, coverage: u8, header: usize, rest: &[u8]) -> Vec<u8> {
    let words = ((16 + header) / 4) as u8;
    let mut packet = vec![0x03, 0xe8, 0x13, 0x89, words, coverage, 0, 0];
    packet.extend([(kind as u8) << 1 | 1, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend(rest);
    packet
}

/// A UDP-Lite datagram from port 1000 to 53.
pub(super) fn udp_lite(coverage: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x03, 0xe8, 0, 53];
    datagram.extend(coverage.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// Sets the CRC32c of an SCTP packet, calculated bit by bit.
pub(super) fn set_crc32c(packet: &mut [u8]) {
    packet[8..12].fill(0);
    let mut crc = u32::MAX;
    for byte in packet.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
}

#[track_caller]
fn sctp_of(packet: &[u8]) -> SctpPacket {
    match parsed(packet).transport {
        Transport::Sctp {
            src_port: 1000,
            dst_port: 2905,
            packet,
        } => packet,
        other => panic!("no SCTP: {other:?}"),
    }
}

#[test]
fn an_init_gives_its_initiate_tag() {
    for chunk_type in [1, 2] {
        let tag = if chunk_type == 1 { 0 } else { 9 };
        let payload = sctp(tag, &[&init(chunk_type, 0x0102_0304)]);
        for packet in [ipv4(SCTP, &payload), ipv6(SCTP, &payload)] {
            let found = sctp_of(&packet);
            assert_eq!((found.tag, found.initiate_tag), (tag, 0x0102_0304));
            assert!(!found.reflected);
        }
    }
}

#[test]
fn chunks_are_walked_over_their_padding() {
    let data = chunk(0, 3, &[0; 13]);
    let sack = chunk(3, 0, &[0; 12]);
    let unknown = chunk(0xcf, 0, &[1]);
    let found = sctp_of(&ipv4(SCTP, &sctp(5, &[&sack, &data, &unknown, &data])));
    let expected = SctpChunks::SACK
        .and(SctpChunks::DATA)
        .and(SctpChunks::OTHER);
    assert_eq!(found.chunks, expected);
    assert_eq!(found.chunks.to_string(), "DATA, SACK, other");
}

#[test]
fn the_t_bit_is_that_of_abort_and_shutdown_complete() {
    for (chunk_type, reflects) in [(6, true), (14, true), (7, false), (4, false)] {
        let found = sctp_of(&ipv4(SCTP, &sctp(5, &[&chunk(chunk_type, 1, &[])])));
        assert_eq!(found.reflected, reflects, "{chunk_type}");
    }
}

#[test]
fn chunks_that_rfc_9260_allows_together_parse() {
    let auth = chunk(15, 0, &[0; 8]);
    let bundles: [&[&[u8]]; 5] = [
        &[
            &chunk(10, 0, &[1; 8]),
            &chunk(9, 0, &[]),
            &chunk(0, 3, &[0; 13]),
        ],
        &[&auth, &chunk(10, 0, &[1; 8])],
        &[&auth, &chunk(11, 0, &[]), &chunk(3, 0, &[0; 12])],
        &[&chunk(9, 0, &[]), &chunk(6, 0, &[])],
        &[&chunk(0, 3, &[0; 13]), &chunk(7, 0, &[0; 4])],
    ];
    for (place, chunks) in bundles.into_iter().enumerate() {
        let found = parse(&ipv4(SCTP, &sctp(5, chunks)), Checksums::Verify);
        assert!(found.is_ok(), "{place}: {found:?}");
    }
}

#[test]
fn an_sctp_checksum_has_the_check_value_of_its_kind() {
    // The check value of CRC-32/ISCSI over "123456789", which is in the catalogs.
    let mut packet = b"12345678....9".to_vec();
    set_crc32c(&mut packet);
    assert_eq!(
        crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(b"123456789"),
        0xe306_9283
    );
    let zeroed = [b"12345678", &[0; 4][..], b"9"].concat();
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&zeroed);
    assert_eq!(packet[8..12], crc.to_le_bytes());
}

#[test]
fn dccp_numbers_are_of_48_bits_where_all_were_sent() {
    let ack = [0, 0, 1, 2, 3, 4, 5, 6];
    let packet = ipv4(
        DCCP,
        &dccp(DccpType::DataAck, 0, 8, &[&ack[..], b"data"].concat()),
    );
    let expected = Transport::Dccp {
        src_port: 1000,
        dst_port: 5001,
        packet: DccpPacket {
            kind: DccpType::DataAck,
            seq: Some(7),
            ack: Some(0x0102_0304_0506),
            payload_len: 4,
        },
    };
    assert_eq!(parsed(&packet).transport, expected);
    let short = [
        0x03,
        0xe8,
        0x13,
        0x89,
        4,
        0,
        0,
        0,
        3 << 1,
        0,
        0,
        7,
        0,
        0,
        0,
        9,
    ];
    let Transport::Dccp { packet, .. } = parsed(&ipv6(DCCP, &short)).transport else {
        panic!("no DCCP");
    };
    assert_eq!(
        (packet.kind, packet.seq, packet.ack),
        (DccpType::Ack, None, None)
    );
}

#[test]
fn a_partial_checksum_leaves_the_rest_alone() {
    let cases = [
        ipv4(DCCP, &dccp(DccpType::Data, 2, 0, b"datadata")),
        ipv6(DCCP, &dccp(DccpType::Data, 2, 0, b"datadata")),
        ipv4(UDP_LITE, &udp_lite(12, b"datadata")),
        ipv6(UDP_LITE, &udp_lite(8, b"datadata")),
    ];
    for mut packet in cases {
        *packet.last_mut().unwrap() ^= 1;
        let _ = parsed(&packet);
    }
}

#[test]
fn udp_lite_is_a_datagram_of_all_the_room_there_is() {
    let packet = ipv4(UDP_LITE, &udp_lite(0, b"abc"));
    let found = parsed(&packet);
    assert_eq!(found.ip.protocol, PROTOCOL_UDP_LITE);
    assert_eq!(found.payload(&packet), b"abc");
    assert!(matches!(
        found.transport,
        Transport::Udp {
            src_port: 1000,
            dst_port: 53,
            payload_len: 3
        }
    ));
}

#[test]
fn a_gre_key_is_found_behind_a_checksum() {
    let cases: [(&[u8], GreKey); 5] = [
        (&[0, 0, 8, 0], GreKey::None),
        (&[0x10, 0, 8, 0, 0, 0, 0, 1], GreKey::None),
        (&[0x20, 0, 8, 0, 1, 2, 3, 4], GreKey::Key(0x0102_0304)),
        (
            &[0xa0, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            GreKey::Key(0x0102_0304),
        ),
        // The bits after the recursion control are to be ignored.
        (&[0x03, 0xf8, 8, 0], GreKey::None),
    ];
    for (payload, key) in cases {
        let expected = Transport::Gre {
            key,
            protocol: 0x800,
        };
        assert_eq!(parsed(&ipv4(GRE, payload)).transport, expected);
    }
    let call = [
        0x30, 0x81, 0x88, 0x0b, 0, 3, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3,
    ];
    let expected = Transport::Gre {
        key: GreKey::CallId(9),
        protocol: 0x880b,
    };
    assert_eq!(parsed(&ipv4(GRE, &call)).transport, expected);
}

#[test]
fn esp_and_ah_give_their_spi() {
    let esp = [0, 0, 1, 2, 0, 0, 0, 1];
    assert_eq!(
        parsed(&ipv4(ESP, &esp)).transport,
        Transport::Esp { spi: 0x102 }
    );
    let ah = [
        6, 4, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    for packet in [ipv4(AH, &ah), ipv6(AH, &ah)] {
        assert_eq!(parsed(&packet).transport, Transport::Ah { spi: 0x102 });
    }
}

#[test]
fn a_quote_gives_the_ports_of_sctp_dccp_and_udp_lite_and_the_key_of_gre() {
    let about = |quote: &[u8]| {
        let packet = ipv4(ICMP, &icmp(3, 2, [0; 4], quote));
        match parse(&packet, Checksums::Verify).map(|parsed| parsed.transport) {
            Ok(Transport::IcmpError(error)) => Ok(error.quoted.transport),
            Ok(other) => panic!("no ICMP error: {other:?}"),
            Err(malformed) => Err(malformed),
        }
    };
    for protocol in [SCTP, DCCP, UDP_LITE] {
        let quote = ipv4(protocol, &udp_lite(0, &[0; 20]));
        let expected = QuotedTransport::Ports {
            src: 1000,
            dst: 53,
            seq: (protocol == SCTP).then_some(0),
        };
        assert_eq!(about(&quote[..28]), Ok(expected), "{protocol}");
    }
    let keyed = ipv4(GRE, &[0x20, 0, 8, 0, 0, 0, 0, 5]);
    assert_eq!(
        about(&keyed),
        Ok(QuotedTransport::Gre(Some(GreKey::Key(5))))
    );
    let beyond = ipv4(GRE, &[0xa0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(
        about(&beyond),
        Ok(QuotedTransport::Gre(Some(GreKey::Key(5))))
    );
    assert_eq!(about(&beyond[..28]), Ok(QuotedTransport::Gre(None)));
}

/// Parses the first `len` bytes of a payload of which more fragments follow.
fn first(protocol: u8, payload: &[u8], len: usize) -> Result<Transport, Malformed> {
    assert!(len.is_multiple_of(8));
    let packet = patched(ipv4(protocol, &payload[..len]), 6, &[0x20, 0]);
    let fragment = parse(&packet, Checksums::Verify).unwrap();
    parse_first_fragment(&packet, &fragment).map(|parsed| parsed.transport)
}

#[test]
fn a_first_fragment_has_the_header_and_may_lack_the_rest() {
    let cookie = chunk(10, 0, &[1; 64]);
    let Ok(Transport::Sctp { packet, .. }) = first(SCTP, &sctp(5, &[&cookie]), 16) else {
        panic!("no SCTP");
    };
    assert_eq!((packet.tag, packet.chunks), (5, SctpChunks::COOKIE_ECHO));
    let request = dccp(DccpType::Request, 9, 4, &[0; 100]);
    assert!(matches!(
        first(DCCP, &request, 24),
        Ok(Transport::Dccp { .. })
    ));
    let lite = udp_lite(100, &[0; 100]);
    assert!(matches!(
        first(UDP_LITE, &lite, 16),
        Ok(Transport::Udp { payload_len: 8, .. })
    ));
    let call = [&[0x20, 1, 0x88, 0x0b, 0, 99, 0, 9][..], &[0; 99]].concat();
    assert!(matches!(first(GRE, &call, 16), Ok(Transport::Gre { .. })));
    assert_eq!(
        first(ESP, &[1; 64], 8),
        Ok(Transport::Esp { spi: 0x0101_0101 })
    );
    let ah = [&[6, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1][..], &[0; 20]].concat();
    assert_eq!(first(AH, &ah, 16), Ok(Transport::Ah { spi: 7 }));
}

#[test]
fn a_header_in_two_fragments_is_tiny() {
    let opening = sctp(0, &[&init(1, 9)]);
    let request = dccp(DccpType::Request, 0, 12, &[0; 40]);
    let ah = [&[6, 5, 0, 0, 0, 0, 0, 7][..], &[0; 40]].concat();
    for (protocol, payload, len) in [
        (SCTP, &opening, 8),
        (SCTP, &opening, 16),
        (DCCP, &request, 16),
        (DCCP, &request, 24),
        (
            GRE,
            &vec![0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            8,
        ),
        (AH, &ah, 8),
        (AH, &ah, 24),
    ] {
        let found = first(protocol, payload, len);
        assert_eq!(
            found,
            Err(Malformed::FragmentTiny),
            "{protocol}, {len} bytes"
        );
    }
    let found = first(SCTP, &sctp(5, &[&[0; 4]]), 16);
    assert_eq!(
        found,
        Err(Malformed::SctpChunkLength),
        "no length can be below 4"
    );
}
