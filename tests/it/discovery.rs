//! Valid discovery passes without a session on a link, and is dropped in a tunnel.

use crate::support::packets::{Ends, discovery, icmp, other};
use crate::support::scene::{Scene, dropped_for};
use crate::support::seal::sealed;
use crate::support::tunnel::{Appliance, Kept, Label};
use portcullis::geneve::front::NotSent;
use portcullis::{Class, DropReason, Malformed, Packet, Verdict};

const DENY: &str = "[policy]\ndefault = \"deny\"\n";
const REDIRECTS: &str = "[checks]\nicmp_redirect = \"count\"\n";

/// A router solicitation.
fn solicitation() -> Vec<u8> {
    discovery("fe80::1", "ff02::2", 133, &[0; 4])
}

/// A redirect to a better router, `fe80::2`, for a destination.
fn redirect(source: &str) -> Vec<u8> {
    let mut body = vec![0; 36];
    body[4..6].copy_from_slice(&[0xfe, 0x80]);
    body[19] = 2;
    body[20..24].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[35] = 9;
    discovery(source, "2001:db8::1", 137, &body)
}

#[track_caller]
fn untracked(verdict: &Verdict) {
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().class, Class::Untracked);
}

#[test]
fn the_attachment_says_whether_packets_come_from_a_tunnel() {
    for (attachment, tunneled, passes) in [
        ("auto", false, true),
        ("auto", true, false),
        ("link", false, true),
        ("link", true, true),
        ("tunnel", false, false),
        ("tunnel", true, false),
    ] {
        let scene = Scene::new(&format!("[engine]\nattachment = \"{attachment}\""));
        let bytes = solicitation();
        let packet = Packet::new(&bytes, scene.now).tunneled(tunneled);
        let verdict = scene.engine.verdict_only(packet);
        if passes {
            untracked(&verdict);
        } else {
            dropped_for(&verdict, DropReason::DiscoveryInTunnel);
        }
    }
}

#[test]
fn a_reload_exchanges_the_attachment() {
    let scene = Scene::new("");
    untracked(&scene.decide(&solicitation()));
    scene.reload("[engine]\nattachment = \"tunnel\"");
    dropped_for(
        &scene.decide(&solicitation()),
        DropReason::DiscoveryInTunnel,
    );
    scene.reload("[engine]\nattachment = \"link\"");
    untracked(&scene.decide(&solicitation()));
}

#[test]
fn the_front_end_is_a_tunnel() {
    let mut appliance = Appliance::new(&format!(
        "[geneve]\nunknown_endpoints = \"default\"\n{REDIRECTS}"
    ));
    for (packet, reason) in [
        (solicitation(), DropReason::DiscoveryInTunnel),
        (redirect("fe80::1"), DropReason::IcmpRedirect),
    ] {
        let answer = appliance.take(Label::blue(1, 1), &packet);
        assert_eq!(answer, Kept::Nothing(NotSent::Dropped(reason)));
    }
}

#[test]
fn valid_discovery_passes_on_a_link_whatever_the_policy_says_and_opens_nothing() {
    let scene = Scene::new(DENY);
    untracked(&scene.decide(&solicitation()));
    // A listener report without a group.
    untracked(&scene.decide(&discovery("fe80::1", "ff02::16", 143, &[0; 4])));
    assert_eq!(scene.engine.sessions(), 0);
}

#[test]
fn no_discovery_type_carries_a_payload_between_global_addresses() {
    let scene = Scene::new(DENY);
    let payload = [b'X'; 1200];
    for kind in (130..=137).chain([143]) {
        for hop_limit in [1, 255] {
            let mut packet = icmp(Ends::v6(0, 0), kind, [0; 4], &payload);
            packet[7] = hop_limit;
            let verdict = scene.decide(&packet);
            assert!(!verdict.is_forward(), "type {kind}, hop limit {hop_limit}");
        }
    }
}

#[test]
fn the_hop_limit_of_another_type_is_off_link() {
    let scene = Scene::new("");
    for (packet, other) in [
        (solicitation(), 1),
        (discovery("fe80::1", "ff02::16", 143, &[0; 4]), 255),
    ] {
        // No packet in transit has 0 (`ttl_zero`).
        for hop_limit in [other, 64] {
            let mut packet = packet.clone();
            packet[7] = hop_limit;
            dropped_for(&scene.decide(&packet), DropReason::DiscoveryOffLink);
        }
    }
}

#[test]
fn a_listener_query_from_the_unspecified_address_is_malformed() {
    let scene = Scene::new("");
    let query = |source| discovery(source, "ff02::1", 130, &[0; 20]);
    untracked(&scene.decide(&query("fe80::1")));
    let reason = DropReason::Malformed(Malformed::DiscoverySource);
    dropped_for(&scene.decide(&query("::")), reason);
}

#[test]
fn a_redirect_passes_on_a_link_if_it_is_allowed_and_valid() {
    let scene = Scene::new("");
    dropped_for(
        &scene.decide(&redirect("fe80::1")),
        DropReason::IcmpRedirect,
    );
    scene.reload(REDIRECTS);
    untracked(&scene.decide(&redirect("fe80::1")));
    let source = DropReason::Malformed(Malformed::DiscoverySource);
    dropped_for(&scene.decide(&redirect("2001:db8::2")), source);
    let mut forwarded = redirect("fe80::1");
    forwarded[7] = 254;
    dropped_for(&scene.decide(&forwarded), DropReason::DiscoveryOffLink);
    scene.reload(&format!("{REDIRECTS}[engine]\nattachment = \"tunnel\"\n"));
    dropped_for(
        &scene.decide(&redirect("fe80::1")),
        DropReason::IcmpRedirect,
    );
}

#[test]
fn group_management_of_ipv4_asks_the_policy() {
    let scene = Scene::new(DENY);
    let mut report = other(Ends::v4(0, 0), 2, &[0x16, 0, 9, 4, 224, 0, 0, 251]);
    report[8] = 1;
    dropped_for(&scene.decide(&sealed(report)), DropReason::PolicyDeny);
}

#[test]
fn discovery_has_no_martian_addresses() {
    let scene = Scene::new(DENY);
    let target = "2001:db8::9"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets();
    let solicit = |source, destination| {
        let body = [&[0; 4][..], &target].concat();
        scene.decide(&discovery(source, destination, 135, &body))
    };
    untracked(&solicit("2001:db8::1", "2001:db8::9"));
    untracked(&solicit("fe80::1", "fe80::9"));
    untracked(&solicit("::", "ff02::1:ff00:9"));
    for (source, destination, reason) in [
        ("::1", "2001:db8::9", DropReason::AddressLoopback),
        ("2001:db8::1", "::1", DropReason::AddressLoopback),
        ("2001:db8::1", "::", DropReason::AddressUnspecified),
        ("::", "2001:db8::9", DropReason::AddressUnspecified),
        ("::ffff:10.0.0.1", "2001:db8::9", DropReason::AddressMapped),
        ("2001:db8::1", "::ffff:10.0.0.1", DropReason::AddressMapped),
        ("fe80::1", "fe80::1", DropReason::AddressLand),
    ] {
        dropped_for(&solicit(source, destination), reason);
    }
}
