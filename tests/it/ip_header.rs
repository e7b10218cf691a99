//! Allowed contents of the IP header: source routes, options, addresses, next protocols.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::support::packets::{
    ACK, Ends, FIN, RST, SYN, chunk, echo, icmp, init, other, sctp, udp, unreachable,
};
use crate::support::scene::{Scene, dropped_for, segment};
use crate::support::seal::sealed;
use portcullis::config::Permission;
use portcullis::{Class, Discard, DropReason, Malformed, Packet, Verdict, Zone};

const V4: Ends = Ends::v4(4000, 80);
const V6: Ends = Ends::v6(4000, 80);
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Loose source and record route with one address to go.
const LOOSE: [u8; 8] = [131, 7, 4, 10, 0, 0, 9, 0];
/// Exhausted strict source and record route.
const STRICT_USED: [u8; 8] = [137, 7, 8, 10, 0, 0, 9, 0];
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];

/// An IPv4 packet with options: whole words.
fn with_options(mut packet: Vec<u8>, options: &[u8]) -> Vec<u8> {
    packet.splice(20..20, options.iter().copied());
    packet[0] += options.len() as u8 / 4;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    sealed(packet)
}

/// Returns an IPv6 packet with an extension header of type `kind`, with `body` after its first two
/// bytes.
fn with_extension(mut packet: Vec<u8>, kind: u8, body: &[u8]) -> Vec<u8> {
    let header = [&[packet[6], (body.len() / 8) as u8][..], body].concat();
    packet[6] = kind;
    packet.splice(40..40, header);
    let len = packet.len() as u16 - 40;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    sealed(packet)
}

/// Returns a routing header with one segment, without its first two bytes.
fn segments(routing_type: u8, left: u8) -> Vec<u8> {
    let mut body = vec![routing_type, left, 0, 0, 0, 0];
    body.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99).octets());
    body
}

/// A packet between two IPv4 addresses.
fn from_to(packet: &[u8], src: &str, dst: &str) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        let [src, dst] = [src, dst].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
        packet[12..16].copy_from_slice(&src);
        packet[16..20].copy_from_slice(&dst);
    } else {
        let [src, dst] = [src, dst].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
        packet[8..24].copy_from_slice(&src);
        packet[24..40].copy_from_slice(&dst);
    }
    sealed(packet)
}

fn syn(ends: Ends) -> Vec<u8> {
    segment(ends, SYN, 100, 0, b"")
}

/// Returns a scene whose packets come from a tunnel, or from a link.
fn attached(tunnel: bool) -> Scene {
    Scene::new(if tunnel {
        "engine.attachment = \"tunnel\""
    } else {
        "engine.attachment = \"link\""
    })
}

#[track_caller]
fn expect(verdict: &Verdict, reason: Option<DropReason>, what: &str) {
    assert_eq!(verdict.reason(), reason, "{what}: {verdict:?}");
}

#[test]
fn a_source_route_does_not_get_past_a_rule_for_its_first_destination() {
    let policy = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"only-host-2\"\n\
                  action = \"allow\"\n\
                  destination = [\"10.0.0.2/32\", \"2001:db8::2/128\"]\n";
    let packets = || {
        let mut packets = vec![
            with_options(udp(V4, b"x"), &LOOSE),
            with_options(udp(V4, b"x"), &STRICT_USED),
            with_options(echo(V4, true), &LOOSE),
        ];
        for routing_type in [2, 3, 4, 253] {
            packets.push(with_extension(
                udp(V6, b"x"),
                ROUTING,
                &segments(routing_type, 1),
            ));
        }
        packets
    };
    let scene = Scene::new(policy);
    for packet in packets() {
        dropped_for(&scene.decide(&packet), DropReason::SourceRoute);
    }
    assert_eq!(scene.engine.sessions(), 0);
    let allowing = Scene::new(&format!("ip.source_routes = \"allow\"\n{policy}"));
    for packet in packets() {
        assert!(allowing.decide(&packet).is_forward(), "{packet:02x?}");
    }
    // The setting does not apply to type 0.
    let type_0 = with_extension(udp(V6, b"x"), ROUTING, &segments(0, 1));
    let reason = DropReason::Malformed(Malformed::Ipv6RoutingHeaderType0);
    dropped_for(&allowing.decide(&type_0), reason);
}

#[test]
fn a_source_route_is_dropped_on_a_session_and_in_every_fragment() {
    let scene = Scene::new("");
    scene.handshake(V4);
    let data = with_options(segment(V4, ACK, 101, 501, b"data"), &LOOSE);
    dropped_for(&scene.decide(&data), DropReason::SourceRoute);
    // The packet has no effect: the responder's acknowledgment is of data that never arrived.
    dropped_for(
        &scene.tcp(V4.back(), ACK, 501, 105, b""),
        DropReason::TcpAckOfUnseen,
    );
    let fragment = |offset: u8, more: u8| {
        let mut packet = with_options(udp(V4, &[0; 8]), &LOOSE);
        (packet[6], packet[7]) = (more << 5, offset);
        sealed(packet)
    };
    dropped_for(&scene.decide(&fragment(0, 1)), DropReason::SourceRoute);
    dropped_for(&scene.decide(&fragment(2, 0)), DropReason::SourceRoute);
    assert_eq!(scene.engine.datagrams(), 0);
}

#[test]
fn a_routing_header_without_segments_left_is_at_its_end() {
    let scene = Scene::new("");
    for routing_type in [0, 2, 4] {
        let packet = with_extension(udp(V6, b"x"), ROUTING, &segments(routing_type, 0));
        assert!(scene.decide(&packet).is_forward(), "{routing_type}");
    }
}

#[test]
fn strict_options_pass_only_where_a_rule_allows_them() {
    let scene = Scene::new(
        "ip.options = \"strict\"\n[[policy.rule]]\nname = \"routers\"\naction = \"allow\"\n\
         protocol = [\"rsvp\", \"igmp\"]\n\
         ip_options = \"allow\"\n",
    );
    let alert = |packet| with_options(packet, &ROUTER_ALERT);
    for protocol in [46, 2] {
        assert!(
            scene
                .decide(&alert(other(V4, protocol, b"payload!")))
                .is_forward()
        );
    }
    dropped_for(&scene.decide(&alert(syn(V4))), DropReason::IpOptions);
    for kind in [HOP_BY_HOP, DESTINATION] {
        let packet = with_extension(syn(V6), kind, &[1, 4, 0, 0, 0, 0]);
        dropped_for(&scene.decide(&packet), DropReason::IpOptions);
    }
    let routed = with_extension(syn(V6), ROUTING, &segments(4, 0));
    dropped_for(&scene.decide(&routed), DropReason::IpOptions);
    // RSVP and IGMP each opened a session; dropped packets opened none.
    assert_eq!(scene.engine.sessions(), 2);
    scene.handshake(V4);
    let data = alert(segment(V4, ACK, 101, 501, b"data"));
    let verdict = scene.decide(&data);
    dropped_for(&verdict, DropReason::IpOptions);
    assert_eq!(verdict.tracked().class, Class::Invalid);
    assert!(verdict.tracked().session.is_some());
    dropped_for(
        &scene.tcp(V4.back(), ACK, 501, 105, b""),
        DropReason::TcpAckOfUnseen,
    );
    // An error belongs to a session, but a rule allows its own packets only.
    let error = alert(unreachable(false, 1, &syn(V4)));
    dropped_for(&scene.decide(&error), DropReason::IpOptions);
}

#[test]
fn one_rule_may_be_strict_and_a_reload_changes_it() {
    let strict = "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                  ip_options = \"strict\"\n";
    let scene = Scene::new(strict);
    dropped_for(
        &scene.decide(&with_options(syn(V4), &ROUTER_ALERT)),
        DropReason::IpOptions,
    );
    assert!(
        scene
            .decide(&with_options(udp(V4, b"x"), &ROUTER_ALERT))
            .is_forward()
    );
    scene.handshake(V4);
    let data = with_options(segment(V4, ACK, 101, 501, b"data"), &ROUTER_ALERT);
    dropped_for(&scene.decide(&data), DropReason::IpOptions);
    scene.reload(&strict.replace("strict", "allow"));
    assert!(scene.decide(&data).is_forward());
    scene.reload("ip.options = \"strict\"");
    let more = with_options(segment(V4, ACK, 105, 501, b"more"), &ROUTER_ALERT);
    dropped_for(&scene.decide(&more), DropReason::IpOptions);
}

#[test]
fn listener_discovery_keeps_its_router_alert_where_options_are_strict() {
    let scene = Scene::new("ip.options = \"strict\"");
    // A report of MLD version 1 (RFC 2710), with a router alert.
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3).octets();
    let mut report = icmp(V6, 131, [0; 4], &group);
    report[7] = 1;
    report[8..24].copy_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    report[24..40].copy_from_slice(&group);
    let verdict = scene.decide(&with_extension(
        report.clone(),
        HOP_BY_HOP,
        &[5, 2, 0, 0, 1, 0],
    ));
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().class, Class::Untracked);
    let other_header = with_extension(report, DESTINATION, &[1, 4, 0, 0, 0, 0]);
    dropped_for(&scene.decide(&other_header), DropReason::IpOptions);
}

#[test]
fn later_fragments_have_options_only_if_their_rule_allows_them() {
    let rules = "ip.options = \"strict\"\n[[policy.rule]]\nname = \"video\"\naction = \"allow\"\n\
                 protocol = \"udp\"\n\
                 destination_ports = 80\nip_options = \"allow\"\n";
    for (port, passes) in [(80, true), (81, false)] {
        let scene = Scene::new(rules);
        let fragment = |offset: u8, more: u8, options: &[u8]| {
            let mut packet = with_options(udp(Ends::v4(4000, port), &[0; 8]), options);
            (packet[6], packet[7]) = (more << 5, offset);
            sealed(packet)
        };
        assert!(scene.decide(&fragment(0, 1, &[])).is_forward());
        let verdict = scene.decide(&fragment(2, 0, &ROUTER_ALERT));
        expect(
            &verdict,
            (!passes).then_some(DropReason::IpOptions),
            &port.to_string(),
        );
    }
}

#[test]
fn a_fragmented_error_has_no_options_where_they_are_strict() {
    let scene = Scene::new("ip.options = \"strict\"");
    let datagram = udp(V4, b"datagram");
    assert!(scene.decide(&datagram).is_forward());
    let whole = icmp(V4.back(), 3, [0; 4], &[&datagram[..], &[0; 4]].concat());
    let fragment = |options: &[u8], offset: u8, more: u8| {
        let mut packet = with_options(whole.clone(), options);
        (packet[6], packet[7]) = (more << 5, offset);
        sealed(packet)
    };
    dropped_for(
        &scene.decide(&fragment(&ROUTER_ALERT, 0, 1)),
        DropReason::IpOptions,
    );
    dropped_for(
        &scene.decide(&fragment(&[], 6, 0)),
        DropReason::FragmentOfDropped,
    );
    let plain = Scene {
        now: scene.now + std::time::Duration::from_secs(60),
        ..scene
    };
    assert!(plain.decide(&datagram).is_forward());
    let verdict = plain.decide(&fragment(&[], 0, 1));
    assert_eq!(verdict.tracked().class, Class::Related, "{verdict:?}");
}

#[test]
fn a_reported_packet_has_its_options_and_addresses_checked() {
    let toml = "tcp.asymmetric = \"report\"\n";
    let answer = || segment(V4.back(), SYN | ACK, 500, 101, b"");
    let alert = with_options(answer(), &ROUTER_ALERT);
    assert!(Scene::new(toml).decide(&alert).is_forward());
    let strict = Scene::new(&format!("{toml}ip.options = \"strict\"\n"));
    dropped_for(&strict.decide(&alert), DropReason::IpOptions);
    assert!(strict.decide(&answer()).is_forward());
    // The following packets also pass without a session.
    let rest = segment(V4.back(), ACK, 501, 101, b"data");
    assert!(strict.decide(&rest).is_forward());
    dropped_for(
        &strict.decide(&with_options(rest, &ROUTER_ALERT)),
        DropReason::IpOptions,
    );
    let mut inside = Scene::new(&format!(
        "{toml}[zones]\na = 1\n[ip.inside]\na = \"192.0.2.0/24\"\n"
    ));
    inside.zone = Zone(1);
    dropped_for(&inside.decide(&answer()), DropReason::AddressOutside);
}

#[test]
fn a_session_of_another_zone_has_no_options_that_its_rule_forbids() {
    for mode in ["drop", "report", "bypass"] {
        let mut scene = Scene::new(&format!(
            "ip.options = \"strict\"\ntcp.asymmetric = \"{mode}\"\n[zones]\na = 1\nb = 2\n"
        ));
        scene.zone = Zone(1);
        scene.handshake(V4);
        scene.zone = Zone(2);
        let data = with_options(segment(V4, ACK, 101, 501, b"data"), &ROUTER_ALERT);
        dropped_for(&scene.decide(&data), DropReason::IpOptions);
        let plain = segment(V4, ACK, 101, 501, b"data");
        assert_eq!(scene.decide(&plain).is_forward(), mode != "drop", "{mode}");
    }
}

#[test]
fn hip_mobility_and_shim6_are_protocols_to_the_policy() {
    // Mobility, HIP and Shim6 headers, the experiments, and IPv4's protocol 0.
    for (ends, protocol) in [
        (V6, 135),
        (V6, 139),
        (V6, 140),
        (V6, 253),
        (V6, 254),
        (V4, 0),
        (V4, 139),
    ] {
        let rule = |action| {
            format!("[[policy.rule]]\nname = \"x\"\naction = \"{action}\"\nprotocol = {protocol}\n")
        };
        let packet = other(ends, protocol, &[59, 0, 1, 0, 0, 0, 0, 0]);
        let deny = Scene::new(&rule("deny"));
        dropped_for(&deny.decide(&packet), DropReason::PolicyDeny);
        let allow = Scene::new(&format!("[policy]\ndefault = \"deny\"\n{}", rule("allow")));
        assert!(allow.decide(&packet).is_forward(), "{protocol}");
        assert_eq!(allow.record().protocol, protocol);
    }
}

#[test]
fn an_error_about_hip_is_of_its_session() {
    let scene = Scene::new("");
    let packet = other(V6, 139, &[59, 0, 1, 0, 0, 0, 0, 0]);
    assert!(scene.decide(&packet).is_forward());
    let verdict = scene.decide(&unreachable(true, 1, &packet));
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().class, Class::Related);
}

#[test]
fn martians_over_ipv4_are_dropped_by_name() {
    use DropReason::{
        AddressLand as Land, AddressLinkLocal as LinkLocal, AddressLoopback as Loopback,
        AddressReserved as Reserved, AddressUnspecified as Unspecified,
        ConnectionToMulticast as ToGroup,
    };
    let host = "10.0.0.1";
    let all = "255.255.255.255";
    // Source, destination, the reason to drop TCP and UDP on a link, and the reason to drop UDP in
    // a tunnel.
    let table = [
        (host, host, Some(Land), Some(Land), Some(Land)),
        (
            "127.0.0.1",
            host,
            Some(Loopback),
            Some(Loopback),
            Some(Loopback),
        ),
        (
            host,
            "127.0.0.1",
            Some(Loopback),
            Some(Loopback),
            Some(Loopback),
        ),
        (
            host,
            "127.255.255.255",
            Some(Loopback),
            Some(Loopback),
            Some(Loopback),
        ),
        (
            "127.0.0.1",
            "224.0.0.251",
            Some(Loopback),
            Some(Loopback),
            Some(Loopback),
        ),
        ("127.0.0.1", "127.0.0.1", None, None, Some(Loopback)),
        ("127.0.0.1", "127.8.7.6", None, None, Some(Loopback)),
        (
            "0.0.0.0",
            host,
            Some(Unspecified),
            Some(Unspecified),
            Some(Unspecified),
        ),
        (
            host,
            "0.0.0.0",
            Some(Unspecified),
            Some(Unspecified),
            Some(Unspecified),
        ),
        (
            "0.0.0.0",
            "0.0.0.0",
            Some(Unspecified),
            Some(Unspecified),
            Some(Unspecified),
        ),
        ("0.0.0.0", all, Some(ToGroup), None, Some(Unspecified)),
        (
            "0.0.0.0",
            "224.0.0.1",
            Some(ToGroup),
            Some(Unspecified),
            Some(Unspecified),
        ),
        (
            "0.1.2.3",
            host,
            Some(Reserved),
            Some(Reserved),
            Some(Reserved),
        ),
        (
            host,
            "0.1.2.3",
            Some(Reserved),
            Some(Reserved),
            Some(Reserved),
        ),
        (
            "240.0.0.1",
            host,
            Some(Reserved),
            Some(Reserved),
            Some(Reserved),
        ),
        (
            host,
            "240.0.0.1",
            Some(Reserved),
            Some(Reserved),
            Some(Reserved),
        ),
        (
            host,
            "255.255.255.254",
            Some(Reserved),
            Some(Reserved),
            Some(Reserved),
        ),
        (host, all, Some(ToGroup), None, Some(Reserved)),
        (host, "224.0.0.251", Some(ToGroup), None, Some(LinkLocal)),
        (host, "239.1.2.3", Some(ToGroup), None, None),
        // Clouds have services in 169.254.0.0/16, and tunnels have their endpoints there.
        (host, "169.254.169.254", None, None, None),
        // The last of the other ranges.
        (host, "223.255.255.255", None, None, None),
        ("126.255.255.255", "128.0.0.1", None, None, None),
        ("1.0.0.0", host, None, None, None),
    ];
    for (src, dst, tcp, udp_link, udp_tunnel) in table {
        let what = format!("{src} -> {dst}");
        let segment = from_to(&syn(V4), src, dst);
        expect(&attached(false).decide(&segment), tcp, &what);
        let datagram = from_to(&udp(V4, b"x"), src, dst);
        expect(&attached(false).decide(&datagram), udp_link, &what);
        expect(&attached(true).decide(&datagram), udp_tunnel, &what);
    }
}

#[test]
fn martians_over_ipv6_are_dropped_by_name() {
    use DropReason::{
        AddressLand as Land, AddressLinkLocal as LinkLocal, AddressLoopback as Loopback,
        AddressMapped as Mapped, AddressUnspecified as Unspecified,
        ConnectionToMulticast as ToGroup,
    };
    let host = "2001:db8::1";
    let table = [
        (host, host, Some(Land), Some(Land), Some(Land)),
        ("fd00::1", "fd00::1", Some(Land), Some(Land), Some(Land)),
        ("::1", host, Some(Loopback), Some(Loopback), Some(Loopback)),
        (host, "::1", Some(Loopback), Some(Loopback), Some(Loopback)),
        ("::1", "::1", None, None, Some(Loopback)),
        (
            "::",
            host,
            Some(Unspecified),
            Some(Unspecified),
            Some(Unspecified),
        ),
        (
            host,
            "::",
            Some(Unspecified),
            Some(Unspecified),
            Some(Unspecified),
        ),
        (
            "::ffff:10.0.0.1",
            host,
            Some(Mapped),
            Some(Mapped),
            Some(Mapped),
        ),
        (
            host,
            "::ffff:10.0.0.1",
            Some(Mapped),
            Some(Mapped),
            Some(Mapped),
        ),
        (
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.2",
            Some(Mapped),
            Some(Mapped),
            Some(Mapped),
        ),
        (host, "::10.0.0.1", Some(Mapped), Some(Mapped), Some(Mapped)),
        (host, "64:ff9b::10.0.0.1", None, None, None),
        ("fe80::1", host, None, None, Some(LinkLocal)),
        (host, "febf::1", None, None, Some(LinkLocal)),
        ("fec0::1", host, None, None, None),
        (host, "ff02::fb", Some(ToGroup), None, Some(LinkLocal)),
        (host, "ff01::1", Some(ToGroup), None, Some(LinkLocal)),
        (host, "ff05::1", Some(ToGroup), None, None),
        ("fd00::1", host, None, None, None),
    ];
    for (src, dst, tcp, udp_link, udp_tunnel) in table {
        let what = format!("{src} -> {dst}");
        let segment = from_to(&syn(V6), src, dst);
        expect(&attached(false).decide(&segment), tcp, &what);
        let datagram = from_to(&udp(V6, b"x"), src, dst);
        expect(&attached(false).decide(&datagram), udp_link, &what);
        expect(&attached(true).decide(&datagram), udp_tunnel, &what);
    }
}

#[test]
fn no_connection_is_made_to_a_group() {
    let scene = Scene::new("");
    let group = |packet: &[u8]| from_to(packet, "10.0.0.1", "239.0.0.1");
    let v6_group = |packet: &[u8]| from_to(packet, "2001:db8::1", "ff05::1");
    for packet in [
        group(&sctp(V4, 0, &init(1, 1))),
        group(&crate::support::packets::dccp(V4, 0, 1, 0)),
        v6_group(&sctp(V6, 0, &init(1, 1))),
        v6_group(&sctp(V6, 1, &chunk(6, 0, &[]))),
    ] {
        dropped_for(&scene.decide(&packet), DropReason::ConnectionToMulticast);
    }
    assert!(scene.decide(&group(&echo(V4, true))).is_forward());
    assert!(scene.decide(&group(&other(V4, 103, b"pim"))).is_forward());
}

#[test]
fn a_host_without_an_address_may_request_one() {
    let discover = from_to(
        &udp(Ends::v4(68, 67), b"discover"),
        "0.0.0.0",
        "255.255.255.255",
    );
    assert!(attached(false).decide(&discover).is_forward());
    dropped_for(
        &attached(true).decide(&discover),
        DropReason::AddressUnspecified,
    );
    // Duplicate address detection (RFC 4862, section 5.4).
    let mut probe = icmp(
        V6,
        135,
        [0; 4],
        &Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets(),
    );
    probe[7] = 255;
    let probe = from_to(&probe, "::", "ff02::1:ff00:1");
    let verdict = attached(false).decide(&probe);
    assert!(verdict.is_forward(), "{verdict:?}");
    dropped_for(
        &attached(true).decide(&probe),
        DropReason::DiscoveryInTunnel,
    );
    let igmp = from_to(
        &other(V4, 2, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]),
        "0.0.0.0",
        "224.0.0.1",
    );
    assert!(attached(false).decide(&igmp).is_forward());
}

#[test]
fn loopback_traffic_is_allowed_on_a_loopback_interface() {
    for (ends, address) in [
        (Ends::v4(5000, 5000), "127.0.0.1"),
        (Ends::v6(5000, 80), "::1"),
    ] {
        let scene = Scene::new("");
        let own = |packet: &[u8]| from_to(packet, address, address);
        assert!(scene.decide(&own(&udp(ends, b"x"))).is_forward());
        assert!(scene.decide(&own(&syn(ends))).is_forward());
        assert_eq!(scene.engine.sessions(), 2);
    }
}

#[test]
fn nothing_has_a_time_to_live_of_0() {
    let scene = Scene::new("");
    for (at, packet) in [
        (8, syn(V4)),
        (7, syn(V6)),
        (8, from_to(&syn(V4), "127.0.0.1", "127.0.0.1")),
    ] {
        let mut last = packet.clone();
        last[at] = 0;
        dropped_for(&scene.decide(&sealed(last)), DropReason::TtlZero);
        let mut one = packet;
        one[at] = 1;
        assert!(scene.decide(&sealed(one)).is_forward());
    }
}

#[test]
fn a_martian_changes_no_session_and_follows_none() {
    let scene = Scene::new("");
    scene.handshake(V4);
    let mut reset = segment(V4.back(), RST, 501, 0, b"");
    reset[8] = 0;
    dropped_for(&scene.decide(&sealed(reset)), DropReason::TtlZero);
    assert_eq!(scene.record().state, "ESTABLISHED");
    let mut fragment = from_to(&udp(V4, &[0; 8]), "10.0.0.1", "10.0.0.1");
    fragment[6] = 0x20;
    dropped_for(&scene.decide(&sealed(fragment)), DropReason::AddressLand);
    assert_eq!(scene.engine.datagrams(), 0);
}

#[test]
fn one_switch_lets_martians_pass_and_a_reload_turns_it() {
    let martian = || from_to(&syn(V4), "10.0.0.1", "10.0.0.1");
    let scene = Scene::new("ip.martians = \"allow\"");
    assert!(scene.decide(&martian()).is_forward());
    let mut without_time = syn(V6);
    without_time[7] = 0;
    assert!(scene.decide(&without_time).is_forward());
    scene.reload("");
    dropped_for(&scene.decide(&martian()), DropReason::AddressLand);
    dropped_for(&scene.decide(&without_time), DropReason::TtlZero);
}

#[test]
fn a_reload_within_a_batch_holds_for_all_that_follows() {
    let scene = Scene::new(
        "ip.martians = \"allow\"\nip.source_routes = \"allow\"\nengine.checksums = \"trust\"\n",
    );
    // With so many sessions the packets of a batch are parsed before the first of them is decided.
    for port in 0..300 {
        assert!(
            scene
                .decide(&udp(Ends::v4(5000 + port, 9), b""))
                .is_forward()
        );
    }
    let datagram = udp(V4, b"x");
    let error = unreachable(false, 1, &datagram);
    let mut damaged = error.clone();
    damaged[22] ^= 1;
    let mut fragment = udp(V4, &[0; 8]);
    fragment[6] = 0x20;
    let mut checksum = datagram.clone();
    checksum[26] ^= 1;
    let packets = [
        (datagram.clone(), None),
        (
            from_to(&datagram, "10.0.0.1", "10.0.0.1"),
            Some(DropReason::AddressLand),
        ),
        (
            with_options(datagram, &LOOSE),
            Some(DropReason::SourceRoute),
        ),
        (
            checksum,
            Some(DropReason::Malformed(Malformed::UdpChecksum)),
        ),
        (
            from_to(&error, "127.0.0.1", "10.0.0.1"),
            Some(DropReason::AddressLoopback),
        ),
        (
            damaged,
            Some(DropReason::Malformed(Malformed::IcmpChecksum)),
        ),
        (
            with_options(fragment, &LOOSE),
            Some(DropReason::SourceRoute),
        ),
        (error, None),
    ];
    let batch: Vec<_> = packets
        .iter()
        .map(|(bytes, _)| Packet::new(bytes, scene.now))
        .collect();
    scene
        .engine
        .process_batch_with(&batch, &mut Discard, |number, verdict, _| {
            expect(&verdict, packets[number].1, &number.to_string());
            if number == 0 {
                scene.reload("");
            }
        });
}

#[test]
fn a_zone_with_prefixes_of_its_own_takes_no_strangers() {
    let toml = "[zones]\noffice = 1\nlab = 2\nfree = 3\n[ip.inside]\n\
                office = [\"10.1.0.0/16\", \"2001:db8:1::/48\"]\n\
                lab = \"10.2.0.0/16\"\n";
    let mut scene = Scene::new(toml);
    for (zone, src, dst, passes) in [
        (1, "10.1.0.1", "198.51.100.1", true),
        (1, "198.51.100.1", "10.1.255.254", true),
        (1, "10.2.0.1", "198.51.100.1", false),
        (1, "198.51.100.1", "203.0.113.1", false),
        (2, "10.2.0.1", "198.51.100.1", true),
        (2, "10.1.0.1", "198.51.100.1", false),
        (3, "198.51.100.1", "203.0.113.1", true),
        (0, "198.51.100.1", "203.0.113.1", true),
    ] {
        scene.zone = Zone(zone);
        let verdict = scene.decide(&from_to(&udp(V4, b"x"), src, dst));
        let reason = (!passes).then_some(DropReason::AddressOutside);
        expect(&verdict, reason, &format!("zone {zone}: {src} -> {dst}"));
    }
    scene.zone = Zone(1);
    for (src, passes) in [("2001:db8:1::7", true), ("2001:db8:2::7", false)] {
        let verdict = scene.decide(&from_to(&udp(V6, b"x"), src, "2001:db8:9::1"));
        expect(
            &verdict,
            (!passes).then_some(DropReason::AddressOutside),
            src,
        );
    }
    // Open sessions stay, and new ones are subject to the new prefixes.
    let sessions = scene.engine.sessions();
    let open = from_to(&udp(V4, b"x"), "10.1.0.1", "198.51.100.1");
    scene.reload(&toml.replace("10.1.0.0/16", "10.9.0.0/16"));
    assert_eq!(scene.engine.sessions(), sessions);
    assert!(scene.decide(&open).is_forward());
    let new = from_to(&udp(Ends::v4(1, 2), b"x"), "10.1.0.1", "198.51.100.1");
    dropped_for(&scene.decide(&new), DropReason::AddressOutside);
}

#[test]
fn zones_of_a_group_share_their_prefixes() {
    let mut scene = Scene::new(
        "[zones]\na = 1\nb = 2\n[zone_groups]\nboth = [\"a\", \"b\"]\n[ip.inside]\n\
         a = \"10.1.0.0/16\"\nb = \"10.2.0.0/16\"\n",
    );
    for zone in [1, 2] {
        scene.zone = Zone(zone);
        for (src, passes) in [("10.1.0.1", true), ("10.2.0.1", true), ("10.3.0.1", false)] {
            let packet = from_to(&udp(Ends::v4(zone, 9), b"x"), src, "198.51.100.1");
            let reason = (!passes).then_some(DropReason::AddressOutside);
            expect(
                &scene.decide(&packet),
                reason,
                &format!("zone {zone}, {src}"),
            );
        }
    }
}

#[test]
fn a_segment_with_a_wrong_checksum_changes_nothing_by_default() {
    for (flags, seq, ack) in [(RST, 501, 0), (FIN | ACK, 501, 101)] {
        let mut packet = segment(V4.back(), flags, seq, ack, b"");
        let at = packet.len() - 4;
        packet[at] ^= 0x55;
        let scene = Scene::new("");
        scene.handshake(V4);
        let before = scene.record();
        let reason = DropReason::Malformed(Malformed::TcpChecksum);
        dropped_for(&scene.decide(&packet), reason);
        assert_eq!(scene.record(), before);
        // A caller marks packets whose checksum the interface has not written yet.
        let verdict = scene
            .engine
            .verdict_only(Packet::new(&packet, scene.now).offloaded(true));
        assert!(verdict.is_forward(), "{verdict:?}");
        let trusting = Scene::new("engine.checksums = \"trust\"");
        trusting.handshake(V4);
        assert!(trusting.decide(&packet).is_forward());
        assert_ne!(trusting.record().state, "ESTABLISHED");
    }
}

#[test]
fn udp_over_ipv6_without_a_checksum_passes_unless_one_is_required() {
    let mut vxlan = udp(Ends::v6(4789, 4789), &[0; 50]);
    vxlan[46..48].fill(0);
    for checksums in ["verify", "trust"] {
        let scene = Scene::new(&format!("engine.checksums = \"{checksums}\""));
        assert!(scene.decide(&vxlan).is_forward(), "{checksums}");
    }
    let scene = Scene::new("");
    assert!(scene.decide(&vxlan).is_forward());
    scene.reload("engine.checksums = \"require\"");
    let reason = DropReason::Malformed(Malformed::UdpChecksumMissingIpv6);
    dropped_for(&scene.decide(&vxlan), reason);
    assert!(
        scene
            .decide(&udp(Ends::v6(4789, 4789), &[0; 50]))
            .is_forward()
    );
}

#[test]
fn the_switches_are_on_by_default() {
    let config = portcullis::Config::default();
    assert_eq!(config.ip.martians, Permission::Drop);
    assert_eq!(config.ip.source_routes, Permission::Drop);
    assert!(config.engine.checksums.are_verified());
}
