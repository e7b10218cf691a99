//! IPv6 extension headers.

use super::*;

/// An extension header of 8 bytes that names the next.
const fn extension(next: u8) -> [u8; 8] {
    [next, 0, 0, 0, 0, 0, 0, 0]
}

fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [next, 0xff, high, low, 0xca, 0xfe, 0xba, 0xbe]
}

fn syn() -> Vec<u8> {
    for_ipv6(TCP, &tcp(TcpFlags::SYN, &[], b"data"))
}

#[test]
fn the_transport_header_is_found_behind_every_walked_extension() {
    for next in [0, 43, 60] {
        let packet = ipv6_raw(next, &[&extension(TCP)[..], &syn()].concat());
        let found = parsed(&packet);
        assert_eq!(
            (found.ip.protocol, found.ip.header_len, found.ip.total_len),
            (TCP, 48, 72)
        );
        assert!(matches!(
            found.transport,
            Transport::Tcp { src_port: 1000, .. }
        ));
        assert_eq!(found.payload(&packet), b"data");
    }
}

#[test]
fn mobility_hip_shim6_and_experiments_are_protocols() {
    // RFC 6275, RFC 7401, RFC 5533; RFC 3692.
    for protocol in [135, 139, 140, 253, 254] {
        let found = parsed(&ipv6_raw(
            60,
            &[&extension(protocol)[..], &extension(TCP), &syn()].concat(),
        ));
        assert_eq!((found.ip.protocol, found.ip.header_len), (protocol, 48));
        assert_eq!(found.transport, Transport::Other);
    }
}

#[test]
fn protocol_0_is_an_extension_header_in_ipv6_alone() {
    let found = parsed(&ipv4(0, &[&extension(TCP)[..], &syn()].concat()));
    assert_eq!((found.ip.protocol, found.transport), (0, Transport::Other));
    assert!(found.ip.options.is_empty());
}

#[test]
fn an_extension_counts_its_length_in_8_bytes_beyond_the_first() {
    let mut long = vec![TCP, 2];
    long.resize(24, 0);
    let found = parsed(&ipv6_raw(60, &[long, syn()].concat()));
    assert_eq!((found.ip.protocol, found.ip.header_len), (TCP, 64));
}

#[test]
fn eight_extensions_are_walked() {
    let mut payload = extension(60).repeat(7);
    payload.extend(extension(TCP));
    payload.extend(syn());
    assert_eq!(parsed(&ipv6_raw(0, &payload)).ip.header_len, 104);
}

#[test]
fn esp_ah_and_no_next_header_end_the_chain() {
    let ah = [TCP, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0];
    let esp = [0, 0, 0, 7, 0, 0, 0, 1];
    let ends = [
        (50, &esp[..], Transport::Esp { spi: 7 }),
        (51, &ah[..], Transport::Ah { spi: 7 }),
        (59, &[0xff; 4][..], Transport::Other),
    ];
    for (last, payload, transport) in ends {
        let found = parsed(&ipv6_raw(60, &[&extension(last)[..], payload].concat()));
        assert_eq!((found.ip.protocol, found.ip.header_len), (last, 48));
        assert_eq!(found.transport, transport);
    }
}

#[test]
fn no_next_header_may_have_no_payload() {
    let found = parsed(&ipv6_raw(59, &[]));
    assert_eq!((found.ip.protocol, found.ip.total_len), (59, 40));
    assert_eq!(found.transport, Transport::Other);
}

#[test]
fn a_routing_header_of_type_0_without_segments_left_passes() {
    let found = parsed(&ipv6_raw(43, &[&extension(TCP)[..], &syn()].concat()));
    assert_eq!(found.ip.protocol, TCP);
}

#[test]
fn a_checksum_over_an_address_to_come_is_not_verified() {
    let wrong = tcp(TcpFlags::SYN, &[], &[]);
    for (segments_left, expected) in [(0, Err(Malformed::TcpChecksum)), (1, Ok(TCP))] {
        let mut payload = vec![TCP, 2, 4, segments_left, 0, 0, 0, 0];
        payload.resize(24, 0);
        payload.extend(&wrong);
        let found = parse(&ipv6_raw(43, &payload), Checksums::Verify);
        assert_eq!(found.map(|parsed| parsed.ip.protocol), expected);
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let packet = ipv6_raw(44, &[&fragment_header(TCP, 0, false)[..], &syn()].concat());
    let found = parsed(&packet);
    assert_eq!((found.ip.protocol, found.ip.header_len), (TCP, 48));
    assert!(matches!(found.transport, Transport::Tcp { .. }));
    assert_eq!(found.payload(&packet), b"data");
}

#[test]
fn a_first_fragment_says_where_its_transport_header_begins() {
    let payload = [
        &extension(44)[..],
        &fragment_header(60, 0, true),
        &extension(UDP),
        &[0; 8],
    ];
    let found = parsed(&ipv6_raw(0, &payload.concat()));
    assert_eq!((found.ip.protocol, found.ip.header_len), (UDP, 64));
    assert_eq!(
        found.transport,
        Transport::Fragment(Fragment {
            id: 0xcafe_babe,
            offset: 0,
            more: true,
            payload_len: 16,
            transport_offset: 64
        })
    );
}

#[test]
fn behind_the_header_of_a_later_fragment_there_is_no_extension() {
    let payload = [&fragment_header(60, 1232, false)[..], &[0xff; 5]];
    let found = parsed(&ipv6_raw(44, &payload.concat()));
    assert_eq!((found.ip.protocol, found.ip.header_len), (60, 48));
    assert_eq!(
        found.transport,
        Transport::Fragment(Fragment {
            id: 0xcafe_babe,
            offset: 1232,
            more: false,
            payload_len: 5,
            transport_offset: 48
        })
    );
}

#[test]
fn extensions_before_the_fragment_header_count_for_the_largest_packet() {
    let last = |before: &[u8], first| {
        let payload = [before, &fragment_header(TCP, 65528, false), &[0; 7]];
        parse(&ipv6_raw(first, &payload.concat()), Checksums::Trust)
    };
    assert!(last(&[], 44).is_ok());
    assert_eq!(last(&extension(44), 0), Err(Malformed::FragmentBeyond65535));
}
