//! IPv4 options, and the recorded kinds of IPv6 extension headers.

use super::*;

/// Malformed options, each with its fault.
pub(super) const INVALID: &[(&str, &[u8])] = &[
    ("a length of 0", &[130, 0, 0, 0]),
    ("a length of 1", &[130, 1, 0, 0]),
    ("a type without a length", &[1, 1, 1, 130]),
    ("a length beyond the header", &[130, 5, 0, 0]),
    ("a source route without a pointer", &[131, 2, 0, 0]),
    (
        "a source route whose pointer is in its own header",
        &[131, 7, 3, 10, 0, 0, 9, 0],
    ),
    ("two source routes", &[131, 3, 4, 137, 3, 4, 0, 0]),
    (
        "a recorded route whose pointer is in its own header",
        &[7, 7, 3, 0, 0, 0, 0, 0],
    ),
    (
        "a recorded route without room for an address",
        &[7, 7, 5, 0, 0, 0, 0, 0],
    ),
    ("timestamps without flags", &[68, 3, 5, 0]),
    (
        "timestamps whose pointer is in their own header",
        &[68, 8, 4, 0, 0, 0, 0, 0],
    ),
    (
        "timestamps without room for one",
        &[68, 8, 6, 0, 0, 0, 0, 0],
    ),
    (
        "timestamps without room for an address",
        &[68, 8, 5, 1, 0, 0, 0, 0],
    ),
    ("a router alert without a value", &[148, 2, 0, 0]),
    (
        "a fault behind a right option",
        &[148, 4, 0, 0, 130, 1, 0, 0],
    ),
];

/// Options that are well-formed.
const VALID: &[(&str, &[u8])] = &[
    ("no operation", &[1, 1, 1, 1]),
    ("nothing after the end", &[0, 130, 1, 0]),
    ("a security label", &[130, 4, 0, 0]),
    ("an unknown option without a value", &[222, 2, 0, 0]),
    ("a recorded route with room", &[7, 7, 4, 0, 0, 0, 0, 0]),
    ("a full recorded route", &[7, 7, 8, 10, 0, 0, 1, 0]),
    ("timestamps with room", &[68, 8, 5, 0, 0, 0, 0, 0]),
    ("full timestamps with addresses", &[68, 4, 5, 1]),
    ("a router alert", &[148, 4, 0, 0]),
];

fn options_of(packet: &[u8]) -> IpOptions {
    parsed(packet).ip.options
}

#[test]
fn malformed_ipv4_options_are_a_malformed_packet() {
    for (what, options) in INVALID {
        let packet = ipv4_with_options(UDP, options, &udp(b"abc"));
        for checksums in [Checksums::Trust, Checksums::Verify] {
            assert_eq!(
                parse(&packet, checksums),
                Err(Malformed::Ipv4Option),
                "{what}"
            );
        }
    }
}

#[test]
fn well_formed_ipv4_options_are_noted() {
    for (what, options) in VALID {
        let packet = ipv4_with_options(UDP, options, &udp(b"abc"));
        assert_eq!(options_of(&packet), IpOptions::IPV4, "{what}");
    }
    assert!(options_of(&ipv4(UDP, &udp(b"abc"))).is_empty());
}

#[test]
fn an_ipv4_source_route_is_one_wherever_its_pointer_stands() {
    for kind in [131, 137] {
        // Unused, half used, and exhausted: the pointer is past the end.
        for pointer in [4, 8, 12] {
            let mut options = vec![1, kind, 11, pointer];
            options.extend([10, 0, 0, 98, 10, 0, 0, 99]);
            let found = options_of(&ipv4_with_options(UDP, &options, &udp(b"abc")));
            assert_eq!(
                found,
                IpOptions::IPV4 | IpOptions::SOURCE_ROUTE,
                "{kind} {pointer}"
            );
        }
    }
}

#[test]
fn ipv6_extension_headers_with_options_are_noted() {
    let datagram = for_ipv6(UDP, &udp(b"abc"));
    // Without segments left, and of an unassigned type.
    let of = |first: u8| {
        options_of(&ipv6_raw(
            first,
            &[&[UDP, 0, 77, 0, 0, 0, 0, 0], &datagram[..]].concat(),
        ))
    };
    assert_eq!(of(0), IpOptions::HOP_BY_HOP);
    assert_eq!(of(43), IpOptions::ROUTING);
    assert_eq!(of(60), IpOptions::DESTINATION);
    // An atomic fragment has no options.
    assert_eq!(
        options_of(&ipv6_raw(
            44,
            &[&[UDP, 0, 0, 0, 0, 0, 0, 1], &datagram[..]].concat()
        )),
        IpOptions::NONE
    );
    let chain = [
        &[60, 0, 0, 0, 0, 0, 0, 0],
        &[UDP, 0, 0, 0, 0, 0, 0, 0],
        &datagram[..],
    ]
    .concat();
    let both = options_of(&ipv6_raw(0, &chain));
    assert_eq!(both, IpOptions::HOP_BY_HOP | IpOptions::DESTINATION);
    assert!(both.contains(IpOptions::DESTINATION) && !both.contains(IpOptions::ROUTING));
}

#[test]
fn an_ipv6_routing_header_with_segments_left_is_a_source_route_whatever_its_type() {
    for routing_type in 1..=255 {
        let payload = [&[UDP, 0, routing_type, 1, 0, 0, 0, 0], &udp(b"abc")[..]].concat();
        let found = options_of(&ipv6_raw(43, &payload));
        assert_eq!(
            found,
            IpOptions::ROUTING | IpOptions::SOURCE_ROUTE,
            "{routing_type}"
        );
    }
}

#[test]
fn udp_over_ipv6_may_leave_its_checksum_out_unless_it_is_required() {
    let without = ipv6_raw(UDP, &udp(b"abc"));
    let with = ipv6(UDP, &udp(b"abc"));
    for checksums in [Checksums::Verify, Checksums::Trust] {
        assert!(parse(&without, checksums).is_ok(), "{checksums:?}");
    }
    let required = Checksums::Require;
    assert_eq!(
        parse(&without, required),
        Err(Malformed::UdpChecksumMissingIpv6)
    );
    assert!(parse(&with, required).is_ok());
    assert!(parse(&patched(ipv4(UDP, &udp(b"abc")), 26, &[0, 0]), required).is_ok());
}
