//! Comparison of the compact and the full parser.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::plain::{Ack, Addresses, Plain, Usual};
use super::*;

const MODES: [Checksums; 3] = [Checksums::Verify, Checksums::Require, Checksums::Trust];

/// Checks that a usual packet parses, with equal values. Returns whether the packet is usual.
fn compare(bytes: &[u8], checksums: Checksums) -> bool {
    if Plain::is_tcp_ipv4(bytes) {
        let read = Plain::read_tcp_ipv4(bytes, checksums);
        assert_eq!(read, Plain::read(bytes, checksums));
    }
    let Some(plain) = Plain::read(bytes, checksums) else {
        return false;
    };
    let parsed = parse(bytes, checksums).expect("a usual packet is not malformed");
    let ip = &parsed.ip;
    let (version, src, dst) = match plain.addresses {
        Addresses::V4 { src, dst } => (IpVersion::V4, ipv4::mapped(src), ipv4::mapped(dst)),
        Addresses::V6 { src, dst } => (IpVersion::V6, src, dst),
    };
    assert_eq!((ip.version, ip.src, ip.dst), (version, src, dst));
    assert_eq!(ip.protocol, plain.protocol);
    assert!(ip.is_ordinary());
    assert_eq!(ip.total_len, plain.total_len);
    assert!(ip.options.is_empty());
    match (plain.usual, &parsed.transport) {
        (
            Usual::Tcp(ack),
            Transport::Tcp {
                src_port,
                dst_port,
                segment,
            },
        ) => {
            assert_eq!((*src_port, *dst_port), (plain.src_port, plain.dst_port));
            let Ack {
                seq,
                ack,
                window,
                payload_len,
            } = ack;
            assert_eq!((segment.seq, segment.ack), (seq, ack));
            assert_eq!(segment.window, window);
            assert_eq!(segment.payload_len, u32::from(payload_len));
            assert_eq!(segment.flags.0 & 0x37, TcpFlags::ACK.0);
            let options = TcpOptions {
                timestamps: segment.options.timestamps,
                ..TcpOptions::default()
            };
            assert_eq!(segment.options, options, "nothing but timestamps");
        }
        (
            Usual::Udp,
            Transport::Udp {
                src_port, dst_port, ..
            },
        ) => assert_eq!((*src_port, *dst_port), (plain.src_port, plain.dst_port)),
        other => panic!("{other:?}"),
    }
    true
}

/// A usual packet, with some bytes changed and its end moved.
fn nearly_usual() -> impl Strategy<Value = Vec<u8>> {
    let options = prop_oneof![
        Just(Vec::new()),
        Just(vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        Just(vec![1, 1, 1, 1]),
    ];
    let tcp = (options, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(options, data)| {
        let words = 5 + options.len() as u8 / 4;
        let fixed = [
            0x10,
            0,
            0,
            80,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            words << 4,
            0x10,
            9,
            9,
        ];
        let rest = [0; 4];
        (TCP, [&fixed[..], &rest, &options, &data].concat())
    });
    let udp = prop::collection::vec(any::<u8>(), 0..9).prop_map(|data| {
        let len = 8 + data.len() as u8;
        (UDP, [&[0x10, 0, 0, 53, 0, len, 0, 0][..], &data].concat())
    });
    let changes = prop::collection::vec((0usize..80, any::<u8>()), 0..3);
    (prop_oneof![tcp, udp], any::<bool>(), changes, -3i8..6).prop_map(
        |((protocol, payload), v6, changes, by)| {
            let mut packet = if v6 {
                ipv6(protocol, &payload)
            } else {
                ipv4(protocol, &payload)
            };
            for (at, value) in changes {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            let len = packet.len().saturating_add_signed(isize::from(by));
            packet.resize(len, 0);
            packet
        },
    )
}

#[test]
fn a_packet_in_the_usual_form_reads_as_the_full_parser_reads_it() {
    let usual = Cell::new([0; 3]);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 10_000,
        ..ProptestConfig::default()
    });
    let result = runner.run(&nearly_usual(), |bytes| {
        let mut counts = usual.get();
        for (count, checksums) in counts.iter_mut().zip(MODES) {
            *count += u32::from(compare(&bytes, checksums));
        }
        usual.set(counts);
        Ok(())
    });
    result.expect("both parsers agree");
    let counts = usual.get();
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}

#[test]
fn a_datagram_without_a_checksum_is_usual_where_the_full_parser_takes_it() {
    let bare = [0x10, 0, 0, 53, 0, 8, 0, 0];
    let mut packet = ipv4(UDP, &bare);
    packet[26..28].fill(0);
    assert!(MODES.iter().all(|mode| compare(&packet, *mode)));
    let mut packet = ipv6(UDP, &bare);
    packet[46..48].fill(0);
    let usual = MODES.map(|mode| compare(&packet, mode));
    assert_eq!(usual, [true, false, true]);
}

/// Whatever the settings say about special addresses, they are left to the full way.
#[test]
fn a_packet_with_special_addresses_is_not_usual() {
    let datagram = [0x10, 0, 0, 53, 0, 8, 0, 0];
    let is_usual = |packet: &[u8]| Plain::read(packet, Checksums::Trust).is_some();
    for first in 0..=u8::MAX {
        let is_ordinary = !matches!(first, 0 | 127 | 224..);
        for at in [12, 16] {
            let mut packet = ipv4(UDP, &datagram);
            packet[at] = first;
            assert_eq!(is_usual(&packet), is_ordinary, "{first} at {at}");
        }
        for at in [8, 24] {
            let mut packet = ipv6(UDP, &datagram);
            packet[at] = first;
            assert_eq!(is_usual(&packet), first >> 5 == 1, "{first} at {at}");
        }
    }
    for (mut packet, ends) in [
        (ipv4(UDP, &datagram), [12, 16, 20]),
        (ipv6(UDP, &datagram), [8, 24, 40]),
    ] {
        let [src, dst, end] = ends;
        assert!(is_usual(&packet));
        packet.copy_within(dst..end, src);
        assert!(!is_usual(&packet), "both ends are one host");
    }
}
