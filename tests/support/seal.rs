//! Correct checksums for a packet that a test has built or edited by hand.

use crc::{CRC_32_ISCSI, Crc};
use etherparse::checksum::Sum16BitWords;
use portcullis::packet::{Checksums, IpVersion, Parsed, Transport, parse};

/// Writes the checksums that the packet's headers announce. A fragment or a malformed packet gets
/// only the checksum of its IPv4 header.
pub(crate) fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    seal_ipv4(&mut packet);
    let Ok(parsed) = parse(&packet, Checksums::Trust) else {
        return packet;
    };
    if matches!(parsed.transport, Transport::Fragment(_)) {
        return packet;
    }
    let range = usize::from(parsed.ip.header_len)..parsed.ip.total_len as usize;
    seal_transport(&parsed, &mut packet[range]);
    packet
}

fn seal_ipv4(packet: &mut [u8]) {
    let len = packet
        .first()
        .map_or(0, |first| 4 * usize::from(first & 15));
    if packet.first().is_none_or(|first| first >> 4 != 4) || len < 20 || packet.len() < len {
        return;
    }
    packet[10..12].fill(0);
    let sum = Sum16BitWords::new().add_slice(&packet[..len]);
    packet[10..12].copy_from_slice(&sum.ones_complement().to_ne_bytes());
}

fn seal_transport(parsed: &Parsed, payload: &mut [u8]) {
    let (at, has_pseudo_header) = match parsed.ip.protocol {
        1 => (2, false),
        6 => (16, true),
        17 | 33 | 136 => (6, true),
        47 if payload[0] & 0x80 != 0 => (4, false),
        58 => (2, true),
        132 => {
            payload[8..12].fill(0);
            let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(payload);
            payload[8..12].copy_from_slice(&sum.to_le_bytes());
            return;
        }
        _ => return,
    };
    payload[at..at + 2].fill(0);
    let stated = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
    let (len, covered) = match parsed.ip.protocol {
        17 => (stated, stated),
        136 if stated > 0 => (payload.len(), stated),
        33 if payload[5] & 15 > 0 => {
            let words = usize::from(payload[4]) + usize::from(payload[5] & 15) - 1;
            (payload.len(), 4 * words)
        }
        _ => (payload.len(), payload.len()),
    };
    let mut sum = Sum16BitWords::new().add_slice(&payload[..covered]);
    if has_pseudo_header {
        sum = match parsed.ip.version {
            IpVersion::V4 => sum
                .add_4bytes((parsed.ip.src as u32).to_be_bytes())
                .add_4bytes((parsed.ip.dst as u32).to_be_bytes()),
            IpVersion::V6 => sum
                .add_16bytes(parsed.ip.src.to_be_bytes())
                .add_16bytes(parsed.ip.dst.to_be_bytes()),
        };
        sum = sum
            .add_4bytes((len as u32).to_be_bytes())
            .add_2bytes([0, parsed.ip.protocol]);
    }
    let sum = match parsed.ip.protocol {
        17 | 136 => sum.to_ones_complement_with_no_zero(),
        _ => sum.ones_complement(),
    };
    payload[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}
