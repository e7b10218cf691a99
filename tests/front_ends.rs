//! Endpoints and tunnel ends: forged ones, full tables, names that a reload gives and takes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use portcullis::Direction;
use portcullis::geneve::front::{Datagram, NotSent, Outgoing};
use support::packets::{ACK, Ends, SYN, echo, udp};
use support::tunnel::{
    ALLOW, Appliance, BLUE, GREEN, Kept, Label, config, datagram, established, green, segment, sent,
};

// ---- bounded tables

#[test]
fn a_configured_endpoint_keeps_its_place_when_forged_ones_come_first() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nunknown_endpoints = \"default\"\n\
         max_endpoints = 4\nmax_tunnel_ends = 16\n[geneve.endpoints]\n\"0xb1\" = \"blue\"",
    );
    let ping = echo(Ends::v4(7, 0), true);
    for endpoint in 1_000..1_100 {
        let label = Label {
            endpoint,
            ..Label::blue(1, 1)
        };
        assert_eq!(appliance.take(label, &ping), Kept::Return);
    }
    let own = Label::blue(1, 60_001);
    established(&mut appliance, Ends::v4(4000, 80), own, Label::blue(2, 2));
    let mut failed = Vec::new();
    if !appliance.counts(BLUE) {
        failed.push("the configured endpoint has no counters of its own");
    }
    if appliance.told.opened.last().unwrap().tunnels[0] == portcullis::TunnelRef::NONE {
        failed.push("no RST can be sent for its sessions");
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn four_forged_endpoints_do_not_take_all_tunnel_ends() {
    // The default sizes; each forged header is its own end by nothing but the VNI.
    let mut appliance = Appliance::new(ALLOW);
    let ping = echo(Ends::v4(7, 0), true);
    for endpoint in 1..=4u64 {
        for vni in 0..1_100u32 {
            let label = Label {
                endpoint,
                ..Label::blue(1, 1)
            };
            let mut payload = label.around(&ping);
            payload[4..7].copy_from_slice(&vni.to_be_bytes()[1..]);
            assert_eq!(appliance.handle(&datagram(1, &payload)), Kept::Return);
        }
    }
    established(
        &mut appliance,
        Ends::v4(4000, 80),
        Label::blue(1, 60_001),
        Label::blue(2, 2),
    );
    let tunnels = appliance.told.opened.last().unwrap().tunnels;
    let stats = appliance.stats();
    assert_ne!(
        tunnels[0],
        portcullis::TunnelRef::NONE,
        "for ever: {} ends, {} refused",
        stats.tunnel_ends,
        stats.tunnel_ends_refused
    );
}

#[test]
fn ends_that_nobody_uses_any_more_make_room() {
    // Balancers come and go: their addresses change. A day between each of them, no session left.
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 16");
    for peer in 1..=20u8 {
        appliance.now += Duration::from_secs(86_400);
        while appliance
            .engine
            .expire(appliance.now, 64, &mut appliance.told)
            .more
        {}
        assert_eq!(appliance.engine.sessions(), 0);
        appliance.told = Default::default();
        let payload = Label::blue(1, 1).around(&segment(Ends::v4(4000, 80), SYN, 100, 0, b""));
        let from = Datagram {
            source: Ipv4Addr::new(10, 2, 0, peer),
            ..datagram(1, &payload)
        };
        assert_eq!(appliance.handle(&from), Kept::Return);
        assert_ne!(
            appliance.told.opened[0].tunnels[0],
            portcullis::TunnelRef::NONE,
            "balancer {peer} of one endpoint, 16 ends"
        );
    }
}

#[test]
fn a_repeated_syn_of_the_same_flow_ends_no_session_where_the_ends_are_full() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    // The same cookie, by another node of the balancer, whose end has found no room.
    let payload = Label::blue(1, 1).around(&segment(ends, SYN, 777, 0, b""));
    let from = Datagram {
        source: Ipv4Addr::new(10, 1, 0, 77),
        ..datagram(1, &payload)
    };
    assert_eq!(appliance.handle(&from), Kept::Return);
    assert_eq!(
        appliance.told.ended.len(),
        0,
        "{:?}",
        appliance.told.ended.first().map(|(_, why)| why)
    );
}

#[test]
fn a_syn_with_a_new_cookie_is_a_new_session_where_the_ends_are_full_too() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
    let ping = echo(Ends::v4(7, 0), true);
    assert_eq!(appliance.take(green(1, 1), &ping), Kept::Return);
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    let opened = appliance.told.opened.len();
    assert_eq!(
        appliance.take(Label::blue(3, 3), &segment(ends, SYN, 9_000_000, 0, b"")),
        Kept::Return
    );
    assert_eq!(appliance.told.opened.len(), opened + 1);
}

#[test]
fn the_newest_header_of_a_direction_replaces_the_older_where_the_ends_are_full_too() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    // The flow moves to another node of the balancer, with new cookies; no room for its end.
    for (cookie, packet) in [
        (11, segment(ends, ACK, 101, 501, b"x")),
        (12, segment(ends.back(), ACK, 501, 102, b"")),
    ] {
        let payload = Label::blue(cookie, 9).around(&packet);
        let from = Datagram {
            source: Ipv4Addr::new(10, 1, 0, 77),
            ..datagram(9, &payload)
        };
        assert_eq!(appliance.handle(&from), Kept::Return);
    }
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    for reset in &resets {
        if let Some(out) = appliance.front.reset(reset, &mut appliance.scratch) {
            panic!(
                "a RST with a cookie that is not the newest: {:?}",
                &out.payload[36..40]
            );
        }
    }
}

// ---- zones, groups, reloads

const GROUP: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"shop\"\naction = \"allow\"\nzones = \"shop\"\n\
    [zones]\neast = 1\nwest = 2\nred = 3\n[zone_groups]\nshop = [\"east\", \"west\"]\n[geneve.endpoints]\n";

#[test]
fn an_endpoint_can_be_given_the_name_of_a_group() {
    let mut appliance = Appliance::new(&format!(
        "{GROUP}\"0xb1\" = \"shop\"\n\"0xc2\" = \"west\"\n\"0xd3\" = \"red\""
    ));
    established(&mut appliance, Ends::v4(4000, 80), Label::blue(1, 1), green(2, 2));
    let red = Label {
        endpoint: 0xd3,
        ..green(3, 3)
    };
    let answer = appliance.take(red, &segment(Ends::v4(4000, 80), ACK, 101, 501, b""));
    assert!(matches!(answer, Kept::Nothing(NotSent::Dropped(_))), "{answer:?}");
}

#[test]
fn a_group_is_one_address_space_and_each_direction_keeps_its_endpoint() {
    let mut appliance = Appliance::new(&format!("{GROUP}\"0xb1\" = \"east\"\n\"0xc2\" = \"west\""));
    let (own, back) = (Label::blue(1, 1), green(2, 2));
    established(&mut appliance, Ends::v4(4000, 80), own, back);
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        let Outgoing { tunnel, payload } = appliance.front.reset(reset, &mut appliance.scratch).unwrap();
        let kept = Kept::Send(tunnel, payload.to_vec());
        let label = if reset.direction == Direction::Original {
            own
        } else {
            back
        };
        assert_eq!(sent(&kept, label), reset.bytes());
    }
}

#[test]
fn what_is_sent_counts_for_the_endpoint_by_which_it_goes() {
    let mut appliance = Appliance::new(&format!(
        "[geneve]\ninner_mtu = 1280\n{GROUP}\"0xb1\" = \"east\"\n\"0xc2\" = \"west\""
    ));
    let ends = Ends::v4(4000, 53);
    assert_eq!(appliance.take(Label::blue(1, 1), &udp(ends, b"?")), Kept::Return);
    assert_eq!(appliance.take(green(2, 2), &udp(ends.back(), b"!")), Kept::Return);
    let answer = appliance.take(Label::blue(1, 1), &udp(ends, &[0; 1_400]));
    sent(&answer, green(2, 2));
    let stats = appliance.stats();
    let counts: Vec<_> = stats
        .endpoints
        .iter()
        .map(|each| (each.id.map(|id| id.0), each.received, each.sent))
        .collect();
    assert_eq!(counts, [(None, 0, 0), (Some(BLUE), 2, 1), (Some(GREEN), 1, 2)]);
}

#[test]
fn an_endpoint_that_a_reload_names_has_counters_of_its_own() {
    let text = "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 2\nunknown_endpoints = \"default\"\n";
    let mut appliance = Appliance::new(text);
    let ping = echo(Ends::v4(7, 0), true);
    for endpoint in 1..=9 {
        assert_eq!(
            appliance.take(
                Label {
                    endpoint,
                    ..Label::blue(1, 1)
                },
                &ping
            ),
            Kept::Return
        );
    }
    let named = config(&format!("{text}[geneve.endpoints]\n\"0xb1\" = \"blue\"\n"));
    appliance.front.reload(&named).unwrap();
    assert_eq!(appliance.take(Label::blue(1, 1), &ping), Kept::Return);
    assert!(appliance.counts(BLUE));
}

#[test]
fn nothing_is_sent_to_a_balancer_that_a_reload_has_taken_off_the_list() {
    let mut appliance = Appliance::new(ALLOW);
    established(
        &mut appliance,
        Ends::v4(4000, 80),
        Label::blue(1, 1),
        Label::blue(2, 2),
    );
    let narrower = config("[policy]\ndefault = \"allow\"\n[geneve]\nsources = \"10.9.0.0/16\"");
    appliance.front.reload(&narrower).unwrap();
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        assert!(
            appliance.front.reset(reset, &mut appliance.scratch).is_none(),
            "a RST to a peer that is refused"
        );
    }
}

#[test]
fn a_reload_maps_an_endpoint_to_another_zone_at_once() {
    let text = |zone: &str| {
        format!(
            "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"red\"\naction = \"allow\"\nzones = \"red\"\n\
         [zones]\nred = 1\nblue = 2\n[geneve.endpoints]\n\"0xb1\" = \"{zone}\""
        )
    };
    let mut appliance = Appliance::new(&text("red"));
    let ping = echo(Ends::v4(7, 0), true);
    assert_eq!(appliance.take(Label::blue(1, 1), &ping), Kept::Return);
    let other = config(&text("blue"));
    appliance
        .engine
        .reload(&other, appliance.now, &mut appliance.told)
        .unwrap();
    appliance.front.reload(&other).unwrap();
    // Dropped it is; the reason is `other_zone`.
    assert!(matches!(
        appliance.take(Label::blue(1, 1), &ping),
        Kept::Nothing(NotSent::Dropped(_))
    ));
}

#[test]
fn an_endpoint_that_is_refused_can_be_seen_by_its_id() {
    let mut appliance = Appliance::new("[zones]\nblue = 1\n[geneve.endpoints]\n\"0xb1\" = \"blue\"");
    let ping = echo(Ends::v4(7, 0), true);
    assert!(matches!(
        appliance.take(green(1, 1), &ping),
        Kept::Nothing(NotSent::Refused(_))
    ));
    assert!(appliance.counts(GREEN));
}
