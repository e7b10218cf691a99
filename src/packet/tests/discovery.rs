//! Discovery on a link: valid messages, and invalid contents of each message.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::packet::{DiscoveryFault, validate_discovery};

/// Router alert for listener discovery in a hop-by-hop header, in front of ICMPv6.
const ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
const HOST: &str = "fe80::1";
const GLOBAL: &str = "2001:db8::1";
const TARGET: &str = "2001:db8::12:3456";
const SOLICITED: &str = "ff02::1:ff12:3456";
const GROUP: &str = "ff05::1:3";

pub(super) fn address(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// A discovery message with the hop limit and the extension header of its type; `body` is the part
/// after the checksum.
pub(super) fn message(kind: u8, source: &str, destination: &str, body: &[u8]) -> Vec<u8> {
    let is_listener = matches!(kind, 130..=132 | 143);
    let extensions = if is_listener { &ALERT[..] } else { &[] };
    let len = (extensions.len() + 4 + body.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend(if is_listener { [0, 1] } else { [ICMPV6, 255] });
    packet.extend(address(source));
    packet.extend(address(destination));
    packet.extend(extensions);
    packet.extend([kind, 0, 0, 0]);
    packet.extend(body);
    packet
}

/// Four bytes and the addresses.
fn body(word: [u8; 4], addresses: &[&str], options: &[u8]) -> Vec<u8> {
    let addresses = addresses.iter().flat_map(|text| address(text));
    word.into_iter()
        .chain(addresses)
        .chain(options.iter().copied())
        .collect()
}

fn solicitation(source: &str, destination: &str, options: &[u8]) -> Vec<u8> {
    message(135, source, destination, &body([0; 4], &[TARGET], options))
}

fn advertisement(destination: &str, flags: u8, options: &[u8]) -> Vec<u8> {
    let body = body([flags, 0, 0, 0], &[TARGET], options);
    message(136, TARGET, destination, &body)
}

fn router(source: &str, options: &[u8]) -> Vec<u8> {
    let body = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], options].concat();
    message(134, source, "ff02::1", &body)
}

fn redirect(source: &str, target: &str, options: &[u8]) -> Vec<u8> {
    message(
        137,
        source,
        GLOBAL,
        &body([0; 4], &[target, TARGET], options),
    )
}

/// A listener query of version 2; `count` is the number of sources that it states.
fn query(source: &str, destination: &str, group: &str, count: u8, sources: &[&str]) -> Vec<u8> {
    let mut all = body([0, 100, 0, 0], &[group], &[2, 125, 0, count]);
    all.extend(sources.iter().flat_map(|text| address(text)));
    message(130, source, destination, &all)
}

/// A record of a listener report of version 2.
fn record(kind: u8, auxiliary: u8, group: &str, sources: &[&str]) -> Vec<u8> {
    let mut record = vec![kind, auxiliary, 0, sources.len() as u8];
    record.extend(address(group));
    record.extend(sources.iter().flat_map(|text| address(text)));
    record
}

fn report(source: &str, destination: &str, count: u8, records: &[u8]) -> Vec<u8> {
    message(
        143,
        source,
        destination,
        &[&[0, 0, 0, count], records].concat(),
    )
}

/// An option of neighbor discovery: its number, and its length in units of 8 bytes.
fn option(number: u8, units: u8) -> Vec<u8> {
    let mut option = vec![number, units];
    option.resize(8 * usize::from(units), 7);
    option
}

#[track_caller]
fn judged(packet: &[u8]) -> Result<(), DiscoveryFault> {
    let parsed = parse(packet, Checksums::Trust).unwrap();
    assert!(matches!(parsed.transport, Transport::Discovery { .. }));
    validate_discovery(packet, &parsed)
}

fn with(options: &[(u8, u8)]) -> Vec<u8> {
    options
        .iter()
        .flat_map(|(number, units)| option(*number, *units))
        .collect()
}

/// Messages as hosts and routers send them.
fn valid() -> Vec<Vec<u8>> {
    let records = [
        record(4, 0, GROUP, &[]),
        record(6, 0, "ff02::fb", &[GLOBAL, TARGET]),
    ]
    .concat();
    vec![
        // Router solicitation: with an address, and without.
        message(133, HOST, "ff02::2", &body([0; 4], &[], &option(1, 1))),
        message(133, "::", "ff02::2", &[0; 4]),
        router(
            HOST,
            &with(&[
                (1, 1),
                (5, 1),
                (3, 4),
                (3, 4),
                (25, 5),
                (31, 3),
                (24, 2),
                (38, 2),
            ]),
        ),
        // Address resolution, a probe of a known neighbor, and duplicate address detection with a
        // nonce.
        solicitation(GLOBAL, SOLICITED, &option(1, 1)),
        solicitation(GLOBAL, TARGET, &[]),
        solicitation("::", SOLICITED, &option(14, 1)),
        // InfiniBand, 6LoWPAN registration with a router, and an option of a later standard.
        solicitation(GLOBAL, SOLICITED, &option(1, 3)),
        solicitation(GLOBAL, "fe80::9", &with(&[(1, 2), (33, 2)])),
        solicitation(GLOBAL, SOLICITED, &with(&[(1, 1), (200, 4)])),
        advertisement(GLOBAL, 0x60, &option(2, 1)),
        // Unsolicited: to all nodes, and to all routers (RFC 9131).
        advertisement("ff02::1", 0x20, &option(2, 1)),
        advertisement("ff02::2", 0x20, &[]),
        redirect(HOST, "fe80::2", &with(&[(2, 1), (4, 10)])),
        redirect(HOST, TARGET, &[]),
        // Listener queries: general and of a group, of both versions.
        message(
            130,
            HOST,
            "ff02::1",
            &body([0x27, 0x10, 0, 0], &["::"], &[]),
        ),
        message(130, HOST, GROUP, &body([3, 0xe8, 0, 0], &[GROUP], &[])),
        query(HOST, "ff02::1", "::", 0, &[]),
        query(HOST, GROUP, GROUP, 2, &[GLOBAL, TARGET]),
        // Reports, also of a host without an address (RFC 3590), and done.
        message(131, HOST, GROUP, &body([0; 4], &[GROUP], &[])),
        message(131, "::", SOLICITED, &body([0; 4], &[SOLICITED], &[])),
        message(132, HOST, "ff02::2", &body([0; 4], &[GROUP], &[])),
        report(HOST, "ff02::16", 2, &records),
        report("::", "ff02::16", 1, &record(4, 0, SOLICITED, &[])),
    ]
}

/// Messages that must not pass, by reason.
pub(super) fn table() -> Vec<(Malformed, Vec<Vec<u8>>)> {
    use Malformed as M;
    let exclude = record(4, 0, GROUP, &[]);
    let v1_query = body([0x27, 0x10, 0, 0], &["::"], &[]);
    let v1_report = body([0; 4], &[GROUP], &[]);
    let cut = |packet: Vec<u8>, by: usize| {
        let len = packet.len() - by;
        let length = ((len - 40) as u16).to_be_bytes();
        patched(packet[..len].to_vec(), 4, &length)
    };
    let without_alert = {
        let mut packet = message(130, HOST, "ff02::1", &v1_query);
        packet.drain(40..48);
        let length = ((packet.len() - 40) as u16).to_be_bytes();
        patched(patched(packet, 4, &length), 6, &[ICMPV6])
    };
    let behind_options = {
        let mut packet = solicitation(GLOBAL, SOLICITED, &[]);
        packet.splice(40..40, [ICMPV6, 0, 1, 4, 0, 0, 0, 0]);
        let length = ((packet.len() - 40) as u16).to_be_bytes();
        patched(patched(packet, 4, &length), 6, &[60])
    };
    let long_alert = {
        let mut packet = message(143, HOST, "ff02::16", &[0; 4]);
        packet.splice(48..48, [1, 6, 0, 0, 0, 0, 0, 0]);
        let length = ((packet.len() - 40) as u16).to_be_bytes();
        patched(patched(packet, 4, &length), 41, &[1])
    };
    vec![
        (
            M::DiscoverySource,
            vec![
                router(GLOBAL, &[]),
                router("::", &[]),
                redirect(GLOBAL, TARGET, &[]),
                patched(advertisement(GLOBAL, 0x60, &[]), 8, &[0; 16]),
                message(130, "::", "ff02::1", &v1_query),
                query("::", "ff02::1", "::", 0, &[]),
                query(GLOBAL, "ff02::1", "::", 0, &[]),
                message(131, GLOBAL, GROUP, &v1_report),
                message(132, GLOBAL, "ff02::2", &v1_report),
                report(GLOBAL, "ff02::16", 1, &exclude),
            ],
        ),
        (
            M::DiscoveryHeaders,
            vec![
                without_alert,
                behind_options,
                long_alert,
                // The router alert of another protocol, another option, and padding that is not
                // empty.
                patched(report(HOST, "ff02::16", 1, &exclude), 45, &[1]),
                patched(report(HOST, "ff02::16", 1, &exclude), 42, &[0xc2]),
                patched(report(HOST, "ff02::16", 1, &exclude), 42, &[1, 2, 9, 9]),
                // A destination header in place of the hop-by-hop header.
                patched(report(HOST, "ff02::16", 1, &exclude), 6, &[60]),
            ],
        ),
        (
            M::DiscoveryLength,
            vec![
                cut(solicitation(GLOBAL, SOLICITED, &[]), 1),
                cut(advertisement(GLOBAL, 0x60, &[]), 8),
                cut(router(HOST, &[]), 4),
                cut(redirect(HOST, TARGET, &[]), 1),
                cut(message(130, HOST, "ff02::1", &v1_query), 1),
                cut(query(HOST, "ff02::1", "::", 0, &[]), 2),
                query(HOST, GROUP, GROUP, 0, &[GLOBAL]),
                query(HOST, GROUP, GROUP, 2, &[GLOBAL]),
                message(131, HOST, GROUP, &body([0; 4], &[GROUP], &[0; 8])),
                message(132, HOST, "ff02::2", &body([0; 4], &[GROUP], b"X")),
                report(HOST, "ff02::16", 2, &exclude),
                report(HOST, "ff02::16", 0, &exclude),
                report(HOST, "ff02::16", 1, &[&exclude[..], b"X"].concat()),
                report(HOST, "ff02::16", 1, &patched(exclude.clone(), 2, &[0, 1])),
            ],
        ),
        (M::DiscoveryFields, wrong_fields()),
        (M::DiscoveryOptions, wrong_options()),
    ]
}

fn wrong_fields() -> Vec<Vec<u8>> {
    let exclude = record(4, 0, GROUP, &[]);
    let v1_report = body([0; 4], &[GROUP], &[]);
    let mut packets: Vec<_> = valid()
        .into_iter()
        .map(|packet| {
            // The code is not 0.
            let at = if packet[6] == 0 { 49 } else { 41 };
            patched(packet, at, &[1])
        })
        .collect();
    packets.extend([
        // Targets that belong to no host, and duplicate address detection that queries a host.
        patched(solicitation(GLOBAL, SOLICITED, &[]), 48, &[0xff]),
        patched(solicitation(GLOBAL, TARGET, &[]), 48, &[0; 16]),
        solicitation("::", TARGET, &[]),
        // Groups that do not contain the target.
        solicitation(GLOBAL, "ff02::1", &[]),
        solicitation(GLOBAL, "ff02::1:ff12:3457", &[]),
        solicitation(GLOBAL, "ff05::1:ff12:3456", &[]),
        // A solicited answer to a group, and groups of more than the link.
        advertisement("ff02::1", 0x60, &[]),
        advertisement("ff05::1", 0x20, &[]),
        message(133, HOST, "ff05::2", &[0; 4]),
        // Redirects: to an invalid router, of a group, to a group, and too long.
        redirect(HOST, "2001:db8::7", &[]),
        patched(redirect(HOST, "fe80::2", &[]), 64, &[0xff]),
        patched(redirect(HOST, TARGET, &[]), 24, &address("ff02::1")),
        redirect(HOST, TARGET, &option(4, 151)),
        // Listener discovery: addresses that are not groups, and destinations of other messages.
        message(130, HOST, "ff02::1", &body([0; 4], &[GLOBAL], &[])),
        message(130, HOST, "ff02::2", &body([0; 4], &["::"], &[])),
        message(130, HOST, "ff02::1", &body([0; 4], &[GROUP], &[])),
        query(HOST, "ff02::1", "::", 1, &[GLOBAL]),
        query(HOST, GROUP, GROUP, 1, &[GROUP]),
        message(131, HOST, "ff02::2", &v1_report),
        message(131, HOST, GLOBAL, &body([0; 4], &[GLOBAL], &[])),
        message(132, HOST, GROUP, &v1_report),
        report(HOST, GLOBAL, 1, &exclude),
        report(HOST, "ff02::16", 1, &record(0, 0, GROUP, &[])),
        report(HOST, "ff02::16", 1, &record(7, 0, GROUP, &[])),
        report(HOST, "ff02::16", 1, &record(4, 1, GROUP, &[])),
        report(HOST, "ff02::16", 1, &record(4, 0, GLOBAL, &[])),
        report(HOST, "ff02::16", 1, &record(4, 0, GROUP, &["::"])),
    ]);
    packets
}

fn wrong_options() -> Vec<Vec<u8>> {
    let solicited = |options: &[u8]| solicitation(GLOBAL, SOLICITED, options);
    vec![
        // Empty, past the end, and bytes that are not an option.
        solicited(&[1, 0, 0, 0, 0, 0, 0, 0]),
        solicited(&[1, 2, 0, 0, 0, 0, 0, 0]),
        solicited(&[&option(1, 1)[..], &[1]].concat()),
        solicited(b"X"),
        // Of a wrong length, or twice.
        solicited(&option(1, 4)),
        solicited(&with(&[(1, 1), (1, 1)])),
        router(HOST, &option(3, 3)),
        router(HOST, &option(5, 2)),
        router(HOST, &with(&[(5, 1), (5, 1)])),
        // The source link-layer address of a host without an address.
        solicitation("::", SOLICITED, &option(1, 1)),
        message(133, "::", "ff02::2", &body([0; 4], &[], &option(1, 1))),
        // Foreign options above the bound: unknown ones, and those of other messages.
        solicited(&option(200, 5)),
        solicited(&with(&[(200, 2), (201, 3)])),
        solicited(&option(25, 100)),
        advertisement(GLOBAL, 0x60, &with(&[(3, 4), (24, 1)])),
        router(HOST, &option(253, 5)),
        // Secure neighbor discovery: a CGA and a signature.
        solicited(&with(&[(11, 24), (12, 19)])),
    ]
}

#[test]
fn discovery_as_hosts_and_routers_send_it_is_valid() {
    for (place, packet) in valid().iter().enumerate() {
        assert_eq!(judged(packet), Ok(()), "message {place}, type {:?}", packet);
    }
}

#[test]
fn discovery_that_its_type_does_not_allow_is_refused_by_name() {
    for (reason, packets) in table() {
        for (place, packet) in packets.iter().enumerate() {
            let found = judged(packet);
            assert_eq!(found, Err(reason.into()), "message {place} of {reason:?}");
        }
    }
}

#[test]
fn the_hop_limit_is_the_one_of_the_type() {
    for packet in valid() {
        let right = packet[7];
        for hop_limit in [0, 1, 2, 64, 254, 255] {
            let expected = if hop_limit == right {
                Ok(())
            } else {
                Err(DiscoveryFault::OffLink)
            };
            let moved = patched(packet.clone(), 7, &[hop_limit]);
            assert_eq!(judged(&moved), expected, "{hop_limit} in place of {right}");
        }
    }
}

#[test]
fn the_padding_of_a_frame_is_no_part_of_the_message_and_is_short() {
    for packet in valid() {
        assert_eq!(judged(&[&packet[..], &[0; 18]].concat()), Ok(()));
        let padded = [&packet[..], &[0; 33]].concat();
        let fault = DiscoveryFault::Malformed(Malformed::DiscoveryLength);
        assert_eq!(judged(&padded), Err(fault));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Messages that pass stay small with any options: none of the three that hosts exchange freely
    /// carries a payload.
    #[test]
    fn what_passes_is_no_channel(
        which in 0..3usize,
        options in prop::collection::vec((any::<u8>(), 0..=8u8), 0..40),
        junk in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let options = [with(&options), junk].concat();
        let packet = match which {
            0 => solicitation(GLOBAL, SOLICITED, &options),
            1 => advertisement(GLOBAL, 0x60, &options),
            _ => message(133, HOST, "ff02::2", &body([0; 4], &[], &options)),
        };
        if judged(&packet).is_ok() {
            prop_assert!(packet.len() <= 200, "{} bytes", packet.len());
        }
    }

    /// Any change of any message is checked without a panic, and a truncated message never passes.
    #[test]
    fn any_message_is_judged(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = valid();
        let mut packet = which.get(&messages).clone();
        for (at, byte) in &changes {
            let at = at.index(packet.len());
            packet[at] = *byte;
        }
        if let Ok(parsed) = parse(&packet, Checksums::Trust) {
            let _ = validate_discovery(&packet, &parsed);
            // Bytes other than those that were parsed do not panic either.
            let short = &packet[..cut.index(packet.len())];
            if let Transport::Discovery { .. } = parsed.transport {
                prop_assert!(validate_discovery(short, &parsed).is_err());
            }
        }
    }
}
