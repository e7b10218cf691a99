//! Tests of the parser as a whole, and the packets that they use.

mod chains;
mod discovery;
mod errors;
mod headers;
mod options;
mod plain;
mod properties;
mod reasons;
mod transports;

use etherparse::checksum::Sum16BitWords;

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const SOURCE4: [u8; 4] = [192, 0, 2, 1];
const TARGET4: [u8; 4] = [198, 51, 100, 2];
const SOURCE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const TARGET6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// An IPv4 packet with correct checksums; `options` is whole words.
fn ipv4_with_options(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(((header_len + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
    packet.extend(SOURCE4);
    packet.extend(TARGET4);
    packet.extend(options);
    fix_ipv4(&mut packet);
    let mut pseudo = Vec::new();
    pseudo.extend(SOURCE4);
    pseudo.extend(TARGET4);
    pseudo.extend([0, protocol]);
    pseudo.extend((payload.len() as u16).to_be_bytes());
    packet.extend(with_checksum(protocol, &pseudo, payload));
    packet
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with_options(protocol, &[], payload)
}

/// Corrects an IPv4 header's checksum.
fn fix_ipv4(packet: &mut [u8]) {
    let header_len = 4 * usize::from(packet[0] & 15);
    packet[10..12].fill(0);
    let sum = Sum16BitWords::new().add_slice(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.ones_complement().to_ne_bytes());
}

/// An IPv6 packet whose payload is as given.
fn ipv6_raw(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(SOURCE6);
    packet.extend(TARGET6);
    packet.extend(payload);
    packet
}

/// A transport header and its payload with the correct checksum for [`ipv6_raw`].
fn for_ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut pseudo = Vec::new();
    pseudo.extend(SOURCE6);
    pseudo.extend(TARGET6);
    pseudo.extend((payload.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    with_checksum(protocol, &pseudo, payload)
}

/// An IPv6 packet with the correct checksum.
fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_raw(protocol, &for_ipv6(protocol, payload))
}

fn with_checksum(protocol: u8, pseudo: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let mut covered = payload.len();
    let (at, pseudo) = match protocol {
        transports::SCTP if payload.len() >= 12 => {
            transports::set_crc32c(&mut payload);
            return payload;
        }
        transports::DCCP => {
            if let &[_, _, _, _, words, coverage, ..] = &payload[..]
                && coverage != 0
            {
                covered = covered.min(4 * usize::from(words) + 4 * usize::from(coverage - 1));
            }
            (6, pseudo)
        }
        transports::UDP_LITE => {
            if let &[_, _, _, _, a, b, ..] = &payload[..]
                && (a, b) != (0, 0)
            {
                covered = covered.min(usize::from(u16::from_be_bytes([a, b])));
            }
            (6, pseudo)
        }
        transports::GRE if payload.len() > 4 && payload[0] & 0x80 != 0 => (4, &[][..]),
        TCP => (16, pseudo),
        UDP => (6, pseudo),
        ICMPV6 => (2, pseudo),
        ICMP => (2, &[][..]),
        _ => return payload,
    };
    if covered >= at + 2 {
        payload[at..at + 2].fill(0);
        let sum = Sum16BitWords::new()
            .add_slice(pseudo)
            .add_slice(&payload[..covered]);
        let checksum = match protocol {
            UDP | transports::UDP_LITE => sum.to_ones_complement_with_no_zero(),
            _ => sum.ones_complement(),
        };
        payload[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
    payload
}

/// A TCP segment from port 1000 to 443, sequence number 7, acknowledgment number 9; `options` is
/// whole words.
fn tcp(flags: TcpFlags, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x03, 0xe8, 0x01, 0xbb, 0, 0, 0, 7, 0, 0, 0, 9];
    segment.extend([(((20 + options.len()) / 4) << 4) as u8, flags.0]);
    segment.extend([0x20, 0, 0, 0, 0, 5]);
    segment.extend(options);
    segment.extend(data);
    segment
}

/// A UDP datagram from port 1000 to 53.
fn udp(data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x03, 0xe8, 0, 53];
    datagram.extend((8 + data.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// An ICMP message with 4 bytes of header after the checksum.
fn icmp(icmp_type: u8, code: u8, header: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(header);
    message.extend(rest);
    message
}

/// Returns the packet with bytes replaced from `at` on and a correct IPv4 header checksum.
fn patched(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    if packet[0] >> 4 == 4 && packet.len() >= 20 && packet.len() >= 4 * usize::from(packet[0] & 15)
    {
        fix_ipv4(&mut packet);
    }
    packet
}

/// Returns the result, which must be equal for [`Checksums::Verify`] and [`Checksums::Trust`].
#[track_caller]
fn parsed(packet: &[u8]) -> Parsed {
    let verified = parse(packet, Checksums::Verify).unwrap();
    assert_eq!(parse(packet, Checksums::Trust), Ok(verified));
    verified
}

#[track_caller]
fn segment(packet: &[u8]) -> Segment {
    match parsed(packet).transport {
        Transport::Tcp { segment, .. } => segment,
        other => panic!("no TCP segment: {other:?}"),
    }
}

#[test]
fn a_parsed_packet_fits_two_cache_lines() {
    assert!(size_of::<Parsed>() <= 128, "{}", size_of::<Parsed>());
    assert_eq!(
        size_of::<Result<Parsed, Malformed>>(),
        size_of::<Parsed>(),
        "no room for the reason"
    );
}

#[test]
fn checksums_are_named_in_lowercase_and_verified_by_default() {
    use crate::config::declare::Scalar;

    assert_eq!(Checksums::from_text("verify"), Ok(Checksums::Verify));
    assert_eq!(Checksums::from_text("trust"), Ok(Checksums::Trust));
    assert_eq!(Checksums::from_text("require"), Ok(Checksums::Require));
    assert_eq!(Checksums::default(), Checksums::Verify);
    assert!(Checksums::from_text("Verify").is_err());
}
