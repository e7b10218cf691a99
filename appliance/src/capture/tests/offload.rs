//! Packets without a length, before the sender's interface segments them.

use portcullis::packet::{Checksums, TcpFlags, Transport, parse};
use proptest::prelude::*;

use super::super::*;

const SEQUENCE: u32 = 0xffff_0000;

/// A TCP segment (flags CWR, ACK, PSH, FIN) without a length.
fn segment(is_ipv6: bool, is_jumbo: bool, payload: usize) -> Vec<u8> {
    let mut tcp = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x99, 1, 0, 0, 0, 0, 0,
    ];
    tcp[4..8].copy_from_slice(&SEQUENCE.to_be_bytes());
    tcp.extend((0..payload).map(|at| (at % 251) as u8));
    let mut ip = Vec::new();
    if is_ipv6 {
        ip.extend([0x60, 0, 0, 0, 0, 0, if is_jumbo { 0 } else { 6 }, 64]);
        for end in [1, 2] {
            ip.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
        }
        if is_jumbo {
            ip.extend([6, 0, 0xc2, 4]);
            ip.extend((tcp.len() as u32 + 8).to_be_bytes());
        }
    } else {
        ip.extend([0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0]);
        ip.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    }
    [ip, tcp].concat()
}

/// The sequence number, flags and payload of each packet.
fn parsed(packets: &[Vec<u8>]) -> Vec<(u32, TcpFlags, Vec<u8>)> {
    let each = |bytes: &Vec<u8>| {
        let parsed = parse(bytes, Checksums::Trust).expect("a packet with a length");
        let Transport::Tcp { segment, .. } = parsed.transport else {
            panic!("no TCP")
        };
        (segment.seq.0, segment.flags, parsed.payload(bytes).to_vec())
    };
    packets.iter().map(each).collect()
}

#[test]
fn a_packet_that_fits_gets_its_length() {
    for is_ipv6 in [false, true] {
        for payload in [0, 1, 1460, 65_000, 65_495] {
            let packet = segment(is_ipv6, false, payload);
            assert!(has_no_length(&packet));
            let made = with_length(&packet);
            assert_eq!(made.len(), 1);
            assert_eq!(stated_len(&made[0]), Some(packet.len()));
            assert_eq!(parsed(&made)[0].2.len(), payload);
        }
    }
    let made = with_length(&segment(false, false, 100));
    let header = &made[0][..20];
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    assert_eq!(
        (sum >> 16) + (sum & 0xffff),
        0xffff,
        "the header's checksum is right"
    );
}

#[test]
fn a_packet_above_64_kib_becomes_segments() {
    for (is_ipv6, is_jumbo) in [(false, false), (true, false), (true, true)] {
        let payload: Vec<u8> = (0..180_000).map(|at| (at % 251) as u8).collect();
        let made = with_length(&segment(is_ipv6, is_jumbo, payload.len()));
        let parts = parsed(&made);
        assert_eq!(parts.len(), 3);
        let mut sequence = SEQUENCE;
        for (number, (found, flags, part)) in parts.iter().enumerate() {
            assert_eq!(*found, sequence);
            sequence = sequence.wrapping_add(part.len() as u32);
            assert!(flags.contains(TcpFlags::ACK));
            assert_eq!(flags.contains(TcpFlags::CWR), number == 0);
            assert_eq!(flags.contains(TcpFlags::FIN), number == 2);
            assert_eq!(flags.contains(TcpFlags::PSH), number == 2);
        }
        let joined: Vec<u8> = parts.into_iter().flat_map(|(_, _, part)| part).collect();
        assert_eq!(joined, payload);
    }
}

#[test]
fn a_jumbo_payload_option_of_a_short_packet_goes() {
    let made = with_length(&segment(true, true, 1000));
    assert_eq!((made.len(), made[0].len()), (1, 1060));
    assert_eq!(parsed(&made)[0].2.len(), 1000);
}

#[test]
fn a_packet_with_a_length_or_without_a_payload_is_left_alone() {
    let mut stated = segment(false, false, 10);
    stated[3] = 1;
    assert!(!has_no_length(&stated));
    let mut nothing_follows = segment(true, false, 10);
    nothing_follows[6] = 59;
    assert!(!has_no_length(&nothing_follows));
    for bytes in [&[][..], &[0x45, 0, 0, 0], &[0x60; 40], &[0x15; 60]] {
        assert!(!has_no_length(bytes), "{bytes:02x?}");
    }
}

#[test]
fn what_is_no_tcp_is_not_cut() {
    let mut udp = segment(false, false, 70_000);
    udp[9] = 17;
    assert!(has_no_length(&udp));
    assert_eq!(with_length(&udp), Vec::<Vec<u8>>::new());
}

proptest! {
    #[test]
    fn no_packet_panics_and_each_one_made_has_its_length(
        head in prop::collection::vec(any::<u8>(), 0..120),
        is_ipv6 in any::<bool>(),
        more in prop::sample::select(vec![0_usize, 1000, 65_400, 66_000, 140_000]),
    ) {
        let mut bytes = head;
        bytes.resize(bytes.len() + more, 7);
        if let Some(first) = bytes.first_mut() {
            *first = if is_ipv6 { 0x60 } else { 0x40 | *first & 0x0f };
        }
        let at = if is_ipv6 { 4 } else { 2 };
        if let Some(field) = bytes.get_mut(at..at + 2) {
            field.copy_from_slice(&[0, 0]);
        }
        for made in with_length(&bytes) {
            prop_assert!(made.len() < 1 << 17);
            prop_assert!(made.len() < 40 || stated_len(&made) == Some(made.len()));
        }
    }
}
