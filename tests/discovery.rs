//! Discovery on a link passes without a session; in a tunnel nothing of a link belongs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use portcullis::geneve::front::NotSent;
use portcullis::{Class, DropReason, Packet};
use support::packets::{Ends, icmp};
use support::scene::{Scene, dropped_for};
use support::tunnel::{Appliance, Kept, Label};

/// A neighbor solicitation with the hop limit that says that it has not left its link.
fn solicitation() -> Vec<u8> {
    let mut packet = icmp(Ends::v6(0, 0), 135, [0; 4], &[0; 16]);
    packet[7] = 255;
    packet
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
        let verdict = scene
            .engine
            .process(Packet::new(&bytes, scene.now).tunneled(tunneled));
        if passes {
            assert_eq!(
                verdict.tracked().class,
                Class::Untracked,
                "{attachment} {tunneled}"
            );
            assert!(verdict.is_forward(), "{attachment} {tunneled}: {verdict:?}");
        } else {
            dropped_for(&verdict, DropReason::DiscoveryInTunnel);
        }
    }
}

#[test]
fn a_reload_exchanges_the_attachment() {
    let scene = Scene::new("");
    assert!(scene.decide(&solicitation()).is_forward());
    scene.reload("[engine]\nattachment = \"tunnel\"");
    dropped_for(&scene.decide(&solicitation()), DropReason::DiscoveryInTunnel);
    scene.reload("[engine]\nattachment = \"link\"");
    assert!(scene.decide(&solicitation()).is_forward());
}

#[test]
fn the_front_end_is_a_tunnel() {
    let mut appliance = Appliance::new("[geneve]\nunknown_endpoints = \"default\"");
    let answer = appliance.take(Label::blue(1, 1), &solicitation());
    let reason = NotSent::Dropped(DropReason::DiscoveryInTunnel);
    assert_eq!(answer, Kept::Nothing(reason));
}
