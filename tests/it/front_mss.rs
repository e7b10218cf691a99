//! `geneve.mss_clamp` through the front end: no SYN leaves with a larger MSS, regardless of where
//! and how often the option occurs, and its checksum is correct.

use std::net::Ipv4Addr;
use std::time::Instant;

use etherparse::{Ipv4HeaderSlice, PacketBuilder, TcpHeader};
use portcullis::geneve::front::{Answer, Datagram, FrontEnd, Scratch};
use portcullis::geneve::{InnerProtocol, PORT, TunnelOption, encode};
use portcullis::packet::{Checksums, parse};
use portcullis::{Config, Discard, Engine};

const LIMIT: u16 = 1_000;
/// Bytes before the TCP header.
const V4: usize = 20;
const V6: usize = 40;
/// An MSS of 8800.
const LARGE: [u8; 4] = [2, 4, 0x22, 0x60];

/// Returns the packet as sent by a new appliance that allows it and clamps its MSS.
fn clamped(inner: &[u8]) -> Vec<u8> {
    let text = format!("[policy]\ndefault = \"allow\"\n[geneve]\nmss_clamp = {LIMIT}");
    let config = FrontEnd::adapt(Config::from_toml(&text, "t.toml").unwrap());
    let engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    let front = FrontEnd::new(&config).unwrap();
    let mut scratch = Scratch::new(&front);
    let option = |kind, data| TunnelOption {
        class: 0x0108,
        kind,
        data,
    };
    let options = [
        option(1, &[0xb1; 8][..]),
        option(2, &[0; 8]),
        option(3, &[7; 4]),
    ];
    let protocol = if inner[0] >> 4 == 6 {
        InnerProtocol::Ipv6
    } else {
        InnerProtocol::Ipv4
    };
    let mut payload = vec![0; 40];
    assert_eq!(encode(protocol, 0, &options, &mut payload), Some(40));
    payload.extend(inner);
    let datagram = Datagram {
        source: Ipv4Addr::new(10, 1, 0, 1),
        source_port: 60_001,
        destination: Ipv4Addr::new(10, 1, 0, 2),
        destination_port: PORT,
        payload: &payload,
    };
    match front.handle(
        &engine,
        &datagram,
        Instant::now(),
        &mut scratch,
        &mut Discard,
    ) {
        Answer::Return => inner.to_vec(),
        Answer::Send(outgoing) => {
            assert_eq!(outgoing.payload[..40], payload[..40], "the same header");
            outgoing.payload[40..].to_vec()
        }
        Answer::Nothing(reason) => panic!("{}", reason.name()),
    }
}

/// A SYN with these options, which are whole words.
fn syn(v6: bool, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(4_000, 80, 1, 60_000);
    header.syn = true;
    header.set_options_raw(options).unwrap();
    assert_eq!(header.options.as_slice(), options);
    let mut packet = Vec::new();
    let ip = if v6 {
        PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    ip.tcp_header(header).write(&mut packet, data).unwrap();
    packet
}

/// The first fragment of an IPv4 packet, with a number of bytes of payload, and the rest of that
/// payload.
fn first_fragment(whole: &[u8], len: usize) -> (Vec<u8>, &[u8]) {
    let (first, rest) = whole.split_at(V4 + len);
    let mut first = first.to_vec();
    first[2..4].copy_from_slice(&((V4 + len) as u16).to_be_bytes());
    first[6] = 0x20;
    let sum = Ipv4HeaderSlice::from_slice(&first)
        .unwrap()
        .to_header()
        .calc_header_checksum();
    first[10..12].copy_from_slice(&sum.to_be_bytes());
    (first, rest)
}

/// Returns the first fragment of an IPv6 packet, and the rest of the payload.
fn first_fragment_v6(whole: &[u8], len: usize) -> (Vec<u8>, &[u8]) {
    let (payload, rest) = whole[V6..].split_at(len);
    let fragment = [6, 0, 0, 1, 0, 0, 0, 9];
    let mut first = [&whole[..V6], &fragment, payload].concat();
    first[4..6].copy_from_slice(&((8 + len) as u16).to_be_bytes());
    first[6] = 44;
    (first, rest)
}

#[test]
fn every_mss_of_a_syn_is_clamped() {
    let small = [2, 4, 3, 0];
    let limit = |v6| {
        let value = if v6 { LIMIT - 20 } else { LIMIT }.to_be_bytes();
        [2, 4, value[0], value[1]]
    };
    for v6 in [false, true] {
        for (options, expected) in [
            ([small, LARGE], [small, limit(v6)]),
            ([LARGE, small], [limit(v6), small]),
            ([LARGE, LARGE], [limit(v6), limit(v6)]),
            ([LARGE, [2, 4, 0xff, 0xff]], [limit(v6), limit(v6)]),
            ([small, small], [small, small]),
        ] {
            assert_eq!(
                clamped(&syn(v6, &options.concat(), b"odd")),
                syn(v6, &expected.concat(), b"odd"),
                "{options:?}"
            );
        }
    }
}

#[test]
fn an_mss_is_clamped_behind_other_options_at_any_place() {
    for v6 in [false, true] {
        let [high, low] = if v6 { LIMIT - 20 } else { LIMIT }.to_be_bytes();
        for options in [
            &[1, 2, 4, 0x22, 0x60, 0, 0, 0][..],
            &[3, 3, 7, 2, 4, 0x22, 0x60, 0],
            &[4, 2, 2, 4, 0x22, 0x60, 1, 1],
            &[253, 5, 1, 2, 3, 2, 4, 0x22, 0x60, 0, 0, 0],
            &[30, 4, 9, 9, 2, 4, 0x22, 0x60],
            &[2, 4, 0x22, 0x60, 3, 3, 7, 2, 4, 0x22, 0x60, 0],
        ] {
            let mut expected = options.to_vec();
            for at in 0..expected.len() - 3 {
                if expected[at..at + 4] == LARGE {
                    expected[at + 2..at + 4].copy_from_slice(&[high, low]);
                }
            }
            assert_eq!(
                clamped(&syn(v6, options, b"")),
                syn(v6, &expected, b""),
                "{options:?}"
            );
        }
    }
}

#[test]
fn bytes_that_are_not_an_option_are_not_an_mss() {
    for options in [
        // After the end, inside another option, of a wrong length, after a length that is zero or
        // too large.
        &[0, 0, 0, 0, 2, 4, 0x22, 0x60][..],
        &[253, 8, 0, 0, 2, 4, 0x22, 0x60],
        &[2, 6, 0x22, 0x60, 0x22, 0x60, 0, 0],
        &[253, 1, 0, 0, 2, 4, 0x22, 0x60],
        &[253, 9, 0, 0, 2, 4, 0x22, 0x60],
    ] {
        let packet = syn(false, options, b"");
        assert_eq!(clamped(&packet), packet, "{options:?}");
    }
}

#[test]
fn an_mss_behind_extension_headers_is_clamped() {
    let plain = syn(true, &LARGE, b"");
    let mut packet = plain[..V6].to_vec();
    // Hop-by-hop options, then destination options.
    packet[6] = 0;
    packet.extend([60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(&plain[V6..]);
    packet[4..6].copy_from_slice(&((plain.len() - V6 + 16) as u16).to_be_bytes());
    let inner = clamped(&packet);
    assert!(parse(&inner, Checksums::Verify).is_ok());
    assert_eq!(inner[78..80], (LIMIT - 20).to_be_bytes());
}

#[test]
fn an_mss_in_a_first_fragment_is_clamped() {
    // The checksum is that of the whole segment, most of which is missing.
    let data = [0xa5; 33];
    let large = [LARGE, LARGE].concat();
    let packet = syn(false, &large, &data);
    let (first, rest) = first_fragment(&packet, 32);
    let [high, low] = LIMIT.to_be_bytes();
    let expected = syn(false, &[2, 4, high, low, 2, 4, high, low], &data);
    assert_eq!(clamped(&first), first_fragment(&expected, 32).0);
    assert_eq!(first_fragment(&expected, 32).1, rest);
    assert!(parse(&expected, Checksums::Verify).is_ok());

    let packet = syn(true, &large, &data);
    let (first, rest) = first_fragment_v6(&packet, 40);
    let [high, low] = (LIMIT - 20).to_be_bytes();
    let expected = syn(true, &[2, 4, high, low, 2, 4, high, low], &data);
    assert_eq!(clamped(&first), first_fragment_v6(&expected, 40).0);
    assert_eq!(first_fragment_v6(&expected, 40).1, rest);
    assert!(parse(&expected, Checksums::Verify).is_ok());
}
