//! ICMP errors and their quotes.

use super::*;

#[track_caller]
fn quoted(packet: &[u8]) -> Quoted {
    match parsed(packet).transport {
        Transport::IcmpError(error) => error.quoted,
        other => panic!("no ICMP error: {other:?}"),
    }
}

fn about4(quote: &[u8]) -> Vec<u8> {
    ipv4(ICMP, &icmp(11, 0, [0; 4], quote))
}

fn about6(quote: &[u8]) -> Vec<u8> {
    ipv6(ICMPV6, &icmp(3, 0, [0; 4], quote))
}

#[test]
fn eight_bytes_of_tcp_give_ports_and_sequence_number() {
    let whole = ipv4(TCP, &tcp(TcpFlags::ACK, &[], &[0; 500]));
    let expected = Quoted {
        transport: QuotedTransport::Ports {
            src: 1000,
            dst: 443,
            seq: Some(7),
        },
        version: IpVersion::V4,
        protocol: TCP,
        src: 0xffff_c000_0201,
        dst: 0xffff_c633_6402,
        total_len: 540,
    };
    assert_eq!(quoted(&about4(&whole[..28])), expected);
    assert_eq!(quoted(&about4(&whole)), expected);

    let whole = ipv6(TCP, &tcp(TcpFlags::ACK, &[], &[0; 500]));
    let expected = Quoted {
        transport: QuotedTransport::Ports {
            src: 1000,
            dst: 443,
            seq: Some(7),
        },
        version: IpVersion::V6,
        protocol: TCP,
        src: u128::from_be_bytes(SOURCE6),
        dst: u128::from_be_bytes(TARGET6),
        total_len: 560,
    };
    assert_eq!(quoted(&about6(&whole[..48])), expected);
}

#[test]
fn udp_gives_ports_alone() {
    let expected = QuotedTransport::Ports {
        src: 1000,
        dst: 53,
        seq: None,
    };
    assert_eq!(quoted(&about4(&ipv4(UDP, &udp(&[])))).transport, expected);
    assert_eq!(quoted(&about6(&ipv6(UDP, &udp(&[])))).transport, expected);
}

#[test]
fn a_query_gives_kind_id_and_direction() {
    let expected = |request| QuotedTransport::IcmpQuery {
        kind: IcmpKind::Echo,
        id: 0x0102,
        request,
    };
    for (icmp_type, request) in [(8, true), (0, false)] {
        let quote = ipv4(ICMP, &icmp(icmp_type, 0, [1, 2, 3, 4], &[]));
        assert_eq!(quoted(&about4(&quote)).transport, expected(request));
    }
    for (icmp_type, request) in [(128, true), (129, false)] {
        let quote = ipv6(ICMPV6, &icmp(icmp_type, 0, [1, 2, 3, 4], &[]));
        assert_eq!(quoted(&about6(&quote)).transport, expected(request));
    }
}

#[test]
fn an_error_about_an_error_says_so() {
    let inner = about4(&ipv4(UDP, &udp(&[])));
    assert_eq!(
        quoted(&about4(&inner)).transport,
        QuotedTransport::IcmpError
    );
    let inner = about6(&ipv6(UDP, &udp(&[])));
    assert_eq!(
        quoted(&about6(&inner)).transport,
        QuotedTransport::IcmpError
    );
}

#[test]
fn other_protocols_and_messages_are_other() {
    assert_eq!(
        quoted(&about4(&ipv4(89, &[]))).transport,
        QuotedTransport::Other
    );
    let advertisement = ipv4(ICMP, &icmp(9, 0, [0; 4], &[]));
    assert_eq!(
        quoted(&about4(&advertisement)).transport,
        QuotedTransport::IcmpOther { kind: 9 }
    );
    for quote in [ipv6_raw(50, &[]), ipv6(ICMPV6, &icmp(135, 0, [0; 4], &[]))] {
        assert_eq!(quoted(&about6(&quote)).transport, QuotedTransport::Other);
    }
}

#[test]
fn a_later_fragment_has_no_ports_and_a_first_one_has() {
    let first = patched(ipv4(UDP, &udp(&[])), 6, &[0x20, 0]);
    assert!(matches!(
        quoted(&about4(&first)).transport,
        QuotedTransport::Ports { src: 1000, .. }
    ));
    let later = patched(ipv4(UDP, &[]), 6, &[0, 1]);
    assert_eq!(quoted(&about4(&later)).transport, QuotedTransport::Fragment);

    let fragment = |offset| {
        ipv6_raw(
            44,
            &[&[UDP, 0, 0, offset, 0, 0, 0, 1][..], &udp(&[])].concat(),
        )
    };
    assert!(matches!(
        quoted(&about6(&fragment(1))).transport,
        QuotedTransport::Ports { .. }
    ));
    assert_eq!(
        quoted(&about6(&fragment(8))).transport,
        QuotedTransport::Fragment
    );
}

#[test]
fn a_quote_is_walked_through_options_and_extensions() {
    let quote = ipv4_with_options(TCP, &[1; 8], &tcp(TcpFlags::ACK, &[], &[])[..8]);
    assert!(matches!(
        quoted(&about4(&quote)).transport,
        QuotedTransport::Ports { seq: Some(7), .. }
    ));
    let quote = ipv6_raw(
        60,
        &[
            &[TCP, 0, 0, 0, 0, 0, 0, 0][..],
            &tcp(TcpFlags::ACK, &[], &[]),
        ]
        .concat(),
    );
    let found = quoted(&about6(&quote));
    assert_eq!(found.protocol, TCP);
    assert!(matches!(
        found.transport,
        QuotedTransport::Ports { seq: Some(7), .. }
    ));
}

#[test]
fn what_follows_a_quoted_ip_header_is_read_whatever_length_that_says() {
    // The length may have been altered. Padding and an RFC 4884 structure follow.
    let behind = [&[0; 88][..], &[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0]].concat();
    let quote4 = ipv4(UDP, &[]);
    let quote6 = ipv6_raw(UDP, &[]);
    for packet in [
        about4(&[&quote4[..], &behind].concat()),
        about6(&[&quote6[..], &behind].concat()),
    ] {
        let expected = QuotedTransport::Ports {
            src: 0,
            dst: 0,
            seq: None,
        };
        assert_eq!(quoted(&packet).transport, expected);
    }
    let cut = about4(&quote4);
    assert_eq!(
        parse(&cut, Checksums::Trust),
        Err(Malformed::IcmpErrorQuoteTruncated)
    );
}

#[test]
fn a_quoted_length_counts_only_where_nothing_contradicts_it() {
    let whole4 = ipv4(UDP, &udp(&[0; 100]));
    assert_eq!(quoted(&about4(&whole4[..28])).total_len, 128);
    let mut altered = whole4.clone();
    altered[3] = 108;
    assert_eq!(quoted(&about4(&altered[..28])).total_len, 0);
    fix_ipv4(&mut altered);
    assert_eq!(quoted(&about4(&altered[..28])).total_len, 108);
    let whole6 = ipv6(UDP, &udp(&[0; 100]));
    assert_eq!(quoted(&about6(&whole6[..48])).total_len, 148);
    let altered = patched(whole6, 4, &[0, 0]);
    assert_eq!(quoted(&about6(&altered[..48])).total_len, 0);
}

#[test]
fn a_gre_key_beyond_the_quote_is_not_known() {
    let gre = |flags: u8| ipv4(47, &[flags, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let known = |len: usize, flags| quoted(&about4(&gre(flags)[..len])).transport;
    assert_eq!(known(28, 0xa0), QuotedTransport::Gre(None));
    assert_eq!(known(32, 0xa0), QuotedTransport::Gre(Some(GreKey::Key(9))));
    assert_eq!(known(28, 0x20), QuotedTransport::Gre(Some(GreKey::Key(0))));
    assert_eq!(known(24, 0x20), QuotedTransport::Gre(None));
    assert_eq!(known(24, 0), QuotedTransport::Gre(Some(GreKey::None)));
}

#[test]
fn these_types_are_errors() {
    for icmp_type in [3, 4, 5, 11, 12] {
        let packet = ipv4(ICMP, &icmp(icmp_type, 1, [0; 4], &ipv4(UDP, &udp(&[]))));
        let Transport::IcmpError(error) = parsed(&packet).transport else {
            panic!("{icmp_type} is no error");
        };
        assert_eq!((error.icmp_type, error.code), (icmp_type, 1));
    }
    for icmp_type in [1, 2, 3, 4] {
        let packet = ipv6(ICMPV6, &icmp(icmp_type, 1, [0; 4], &ipv6(UDP, &udp(&[]))));
        let Transport::IcmpError(error) = parsed(&packet).transport else {
            panic!("{icmp_type} is no error");
        };
        assert_eq!((error.icmp_type, error.code), (icmp_type, 1));
    }
}

#[test]
fn only_errors_about_a_size_announce_an_mtu() {
    let mtu = |packet: &[u8]| match parse(packet, Checksums::Trust).unwrap().transport {
        Transport::IcmpError(error) => error.mtu,
        other => panic!("{other:?}"),
    };
    let word = [1, 2, 0x05, 0xdc];
    let quote4 = ipv4(UDP, &udp(&[]));
    for (icmp_type, code, expected) in [(3, 4, 0x05dc), (3, 3, 0), (11, 4, 0)] {
        let error = ipv4(ICMP, &icmp(icmp_type, code, word, &quote4));
        assert_eq!(mtu(&error), expected, "{icmp_type} {code}");
    }
    let quote6 = ipv6(UDP, &udp(&[]));
    for (icmp_type, code, expected) in [(2, 0, 0x0102_05dc), (1, 4, 0), (3, 0, 0)] {
        let error = ipv6(ICMPV6, &icmp(icmp_type, code, word, &quote6));
        assert_eq!(mtu(&error), expected, "{icmp_type} {code}");
    }
}
