//! Packets captured at a sender, before the network interface segments them.
//!
//! The length of such a packet is that of the frame. If the length does not fit into the header, or
//! the driver does not fill it in, the header has 0: in the IPv4 total length, or in the payload
//! length of IPv6, possibly with a jumbo payload option (RFC 2675), which Linux writes above 64
//! KiB.

/// The IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// The IPv6 header.
const IPV6_HEADER: usize = 40;
/// The protocol numbers of TCP, hop-by-hop options and "no next header".
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const NO_NEXT_HEADER: u8 = 59;
/// A hop-by-hop header that holds the jumbo payload option alone: next header, length, option.
const JUMBO_OPTION: [u8; 3] = [0, 0xc2, 4];
const JUMBO_HEADER: usize = 8;
/// The TCP header without options, and the positions of its fields.
const TCP_HEADER: usize = 20;
const TCP_SEQUENCE: usize = 4;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
/// Flags that belong to the last segment alone (FIN and PSH), and to the first alone (CWR).
const LAST_ONLY: u8 = 0x09;
const FIRST_ONLY: u8 = 0x80;
/// Maximum payload of a created segment: below 64 KiB with two headers of maximum length.
const MAX_PAYLOAD: usize = 65_000;

/// Returns the length that an IP header states, or `None` if it states none.
pub(crate) fn stated_len(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => Some(usize::from(u16_at(packet, 2)?)),
        6 => Some(IPV6_HEADER + usize::from(u16_at(packet, 4)?)),
        _ => None,
    }
}

/// Returns whether a packet's header leaves the length to the frame.
pub(crate) fn has_no_length(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.len() >= IPV4_HEADER && u16_at(packet, 2) == Some(0),
        Some(6) => {
            let next = packet.get(6).copied();
            packet.len() > IPV6_HEADER
                && u16_at(packet, 4) == Some(0)
                && next != Some(NO_NEXT_HEADER)
        }
        _ => false,
    }
}

/// Returns the packets that an interface makes from one [without a length](has_no_length): the
/// packet with its length, or TCP segments if the length does not fit into a header. The checksums
/// are those of the frame, except that of the IPv4 header.
///
/// Empty if neither is possible: a packet above 64 KiB that is not plain TCP.
pub(crate) fn with_length(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = packet.to_vec();
    strip_jumbo(&mut whole);
    if fill_in_length(&mut whole) {
        return vec![whole];
    }
    segments(&whole).unwrap_or_default()
}

/// Removes a hop-by-hop header whose only purpose is to state the length.
fn strip_jumbo(packet: &mut Vec<u8>) {
    let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
    if !is_ipv6 || packet.get(6) != Some(&HOP_BY_HOP) {
        return;
    }
    let Some([next, option @ ..]) = packet.get(IPV6_HEADER..IPV6_HEADER + 4) else {
        return;
    };
    if option != JUMBO_OPTION || packet.len() < IPV6_HEADER + JUMBO_HEADER {
        return;
    }
    let next = *next;
    packet.drain(IPV6_HEADER..IPV6_HEADER + JUMBO_HEADER);
    if let Some(field) = packet.get_mut(6) {
        *field = next;
    }
}

/// Writes the length, and the IPv4 header's checksum. Returns `false` if the length does not fit.
fn fill_in_length(packet: &mut [u8]) -> bool {
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (at, counted) = if is_ipv4 {
        (2, packet.len())
    } else {
        (4, packet.len().saturating_sub(IPV6_HEADER))
    };
    let Ok(len) = u16::try_from(counted) else {
        return false;
    };
    put(packet, at, &len.to_be_bytes());
    if is_ipv4 {
        put(packet, 10, &[0, 0]);
        let header_len = packet
            .first()
            .map_or(0, |first| 4 * usize::from(first & 0x0f));
        let sum = checksum(packet.get(..header_len).unwrap_or_default());
        put(packet, 10, &sum.to_be_bytes());
    }
    true
}

/// Splits a TCP segment into segments whose length fits into a header.
fn segments(packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (ip_len, protocol) = match packet.first()? >> 4 {
        4 => (4 * usize::from(packet.first()? & 0x0f), *packet.get(9)?),
        _ => (IPV6_HEADER, *packet.get(6)?),
    };
    let tcp = packet.get(ip_len..)?;
    let tcp_len = 4 * usize::from(tcp.get(TCP_OFFSET)? >> 4);
    if protocol != TCP || ip_len < IPV4_HEADER || tcp_len < TCP_HEADER {
        return None;
    }
    let (headers, payload) = packet.split_at_checked(ip_len + tcp_len)?;
    let first_sequence = u32::from_be_bytes(*tcp.get(TCP_SEQUENCE..)?.first_chunk()?);
    let flags = *tcp.get(TCP_FLAGS)?;
    let parts = payload.chunks(MAX_PAYLOAD);
    let last = parts.len().saturating_sub(1);
    let mut made = Vec::with_capacity(parts.len());
    let mut sequence = first_sequence;
    for (number, part) in parts.enumerate() {
        let mut segment = [headers, part].concat();
        let removed =
            if number == last { 0 } else { LAST_ONLY } | if number == 0 { 0 } else { FIRST_ONLY };
        put(&mut segment, ip_len + TCP_SEQUENCE, &sequence.to_be_bytes());
        put(&mut segment, ip_len + TCP_FLAGS, &[flags & !removed]);
        if !fill_in_length(&mut segment) {
            return None;
        }
        sequence = sequence.wrapping_add(part.len() as u32);
        made.push(segment);
    }
    Some(made)
}

/// Returns the Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(pair.first().copied().unwrap_or(0)) << 8
                | u32::from(pair.get(1).copied().unwrap_or(0))
        })
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !((folded + (folded >> 16)) as u16)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}
