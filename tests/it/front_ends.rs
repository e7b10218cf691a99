//! Endpoints and tunnel endpoints: forged ones, full tables, floods, threads, and names that a
//! reload adds or removes.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::packets::{ACK, Ends, SYN, echo, udp};
use crate::support::tunnel::{
    ALLOW, Appliance, BLUE, GREEN, Kept, Label, config, datagram, established, green, segment, sent,
};
use portcullis::geneve::EndpointId;
use portcullis::geneve::front::{Datagram, NotSent, Outgoing, Scratch};
use portcullis::{Direction, Discard, Engine, TunnelRef};

const ENDS: Ends = Ends::v4(4000, 80);
fn ep(endpoint: u64, cookie: u32) -> Label {
    Label {
        endpoint,
        cookie,
        port: 7,
    }
}
fn vni(label: Label, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut payload = label.around(inner);
    payload[4..7].copy_from_slice(&vni.to_be_bytes()[1..]);
    payload
}
fn last(a: &Appliance) -> TunnelRef {
    a.told.opened.last().unwrap().tunnels[0]
}

// ---- bounded tables

#[test]
fn a_configured_endpoint_keeps_its_place_when_forged_ones_come_first() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\n\
         unknown_endpoints = \"default\"\n\
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
    // The default sizes; each forged header is a separate endpoint because of its VNI alone.
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

/// Endpoints that the configuration does not name.
const UNNAMED: &str =
    "[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 8\nmax_tunnel_ends = 64\n";

/// Datagrams of invented endpoints and tunnel endpoints, each a new one.
fn forge(appliance: &mut Appliance) {
    let ping = echo(Ends::v4(7, 0), true);
    for endpoint in 1_000..1_020 {
        for number in 0..40 {
            let payload = vni(ep(endpoint, 1), number, &ping);
            assert_eq!(appliance.handle(&datagram(1, &payload)), Kept::Return);
        }
    }
}

#[test]
fn forged_ends_leave_room_for_those_of_answered_sessions() {
    let mut appliance = Appliance::new(UNNAMED);
    for _ in 0..3 {
        forge(&mut appliance);
    }
    let forged = appliance.stats();
    assert!(forged.tunnel_ends <= 32 && forged.tunnel_ends_refused > 0);
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    for seq in 101..103 {
        assert_eq!(
            appliance.take(Label::blue(1, 1), &segment(ends, ACK, seq, 501, b"x")),
            Kept::Return
        );
        assert_eq!(
            appliance.take(
                Label::blue(2, 2),
                &segment(ends.back(), ACK, 501, seq + 1, b"")
            ),
            Kept::Return
        );
    }
    // Its endpoint has a label of its own, and its sessions have RSTs at their end.
    assert!(appliance.counts(BLUE));
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire_with(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        assert!(
            appliance
                .front
                .reset(reset, &mut appliance.scratch)
                .is_some()
        );
    }
}

/// Eight new tunnel endpoints in a row during a flood of forged ones: each gets its slot with the
/// first packet of its client after the answer, and keeps it.
#[test]
fn a_new_end_of_an_answered_session_has_its_place_at_once_under_a_flood_of_forged_ones() {
    let mut appliance = Appliance::new(UNNAMED);
    forge(&mut appliance);
    let before = appliance.stats().tunnel_ends;
    for number in 1..=8u8 {
        let label = |cookie| Label {
            endpoint: 0xc0 + u64::from(number),
            ..Label::blue(1, cookie)
        };
        let ends = Ends::v4(4000 + u16::from(number), 80);
        established(&mut appliance, ends, label(1), label(2));
        forge(&mut appliance);
        let data = segment(ends, ACK, 101, 501, b"x");
        assert_eq!(appliance.take(label(1), &data), Kept::Return);
        forge(&mut appliance);
        assert_eq!(appliance.stats().tunnel_ends, before + usize::from(number));
    }
}

#[test]
fn a_forged_end_of_a_real_endpoint_leaves_room_for_its_real_ones() {
    let mut appliance = Appliance::new(&format!(
        "{UNNAMED}[geneve.endpoints]\n\"0xb1\" = \"default\"\n"
    ));
    let ping = echo(Ends::v4(7, 0), true);
    for number in 1..100 {
        let payload = vni(Label::blue(1, 1), number, &ping);
        assert_eq!(appliance.handle(&datagram(1, &payload)), Kept::Return);
    }
    assert_eq!(appliance.stats().tunnel_ends, 8, "half of a quarter");
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    assert_eq!(
        appliance.take(Label::blue(1, 1), &segment(ends, ACK, 101, 501, b"x")),
        Kept::Return
    );
    assert_eq!(appliance.stats().tunnel_ends, 9);
    let answer = segment(ends.back(), ACK, 501, 102, b"");
    assert_eq!(appliance.take(Label::blue(2, 2), &answer), Kept::Return);
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire_with(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        assert!(
            appliance
                .front
                .reset(reset, &mut appliance.scratch)
                .is_some()
        );
    }
}

#[test]
fn ends_that_nobody_uses_any_more_make_room() {
    // Balancers come and go: their addresses change, a day apart, with no session left.
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 16");
    for peer in 1..=20u8 {
        appliance.now += Duration::from_secs(86_400);
        while appliance
            .engine
            .expire_with(appliance.now, 64, &mut appliance.told)
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
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    // An equal cookie from another node of the balancer, whose tunnel endpoint has found no room.
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
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
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
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 1");
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
        .expire_with(appliance.now, 64, &mut appliance.told)
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

const GROUP: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"shop\"\n\
                     action = \"allow\"\nzones = \"shop\"\n\
    [zones]\neast = 1\nwest = 2\nred = 3\n[zone_groups]\nshop = [\"east\", \"west\"]\n\
    [geneve.endpoints]\n";

#[test]
fn an_endpoint_can_be_given_the_name_of_a_group() {
    let mut appliance = Appliance::new(&format!(
        "{GROUP}\"0xb1\" = \"shop\"\n\"0xc2\" = \"west\"\n\"0xd3\" = \"red\""
    ));
    established(
        &mut appliance,
        Ends::v4(4000, 80),
        Label::blue(1, 1),
        green(2, 2),
    );
    let red = Label {
        endpoint: 0xd3,
        ..green(3, 3)
    };
    let answer = appliance.take(red, &segment(Ends::v4(4000, 80), ACK, 101, 501, b""));
    assert!(
        matches!(answer, Kept::Nothing(NotSent::Dropped(_))),
        "{answer:?}"
    );
}

#[test]
fn a_group_is_one_address_space_and_each_direction_keeps_its_endpoint() {
    let mut appliance = Appliance::new(&format!("{GROUP}\"0xb1\" = \"east\"\n\"0xc2\" = \"west\""));
    let (own, back) = (Label::blue(1, 1), green(2, 2));
    established(&mut appliance, Ends::v4(4000, 80), own, back);
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire_with(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        let Outgoing { tunnel, payload } = appliance
            .front
            .reset(reset, &mut appliance.scratch)
            .unwrap();
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
fn a_sent_packet_counts_for_the_endpoint_by_which_it_leaves() {
    let mut appliance = Appliance::new(&format!(
        "[geneve]\ninner_mtu = 1280\n{GROUP}\"0xb1\" = \"east\"\n\"0xc2\" = \"west\""
    ));
    let ends = Ends::v4(4000, 53);
    assert_eq!(
        appliance.take(Label::blue(1, 1), &udp(ends, b"?")),
        Kept::Return
    );
    assert_eq!(
        appliance.take(green(2, 2), &udp(ends.back(), b"!")),
        Kept::Return
    );
    let answer = appliance.take(Label::blue(1, 1), &udp(ends, &[0; 1_400]));
    sent(&answer, green(2, 2));
    let stats = appliance.stats();
    let counts: Vec<_> = stats
        .endpoints
        .iter()
        .map(|each| (each.id.map(|id| id.0), each.received, each.sent))
        .collect();
    assert_eq!(
        counts,
        [(None, 0, 0), (Some(BLUE), 2, 1), (Some(GREEN), 1, 2)]
    );
}

#[test]
fn an_endpoint_that_a_reload_names_has_counters_of_its_own() {
    let text = "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 2\n\
                unknown_endpoints = \"default\"\n";
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
        .expire_with(appliance.now, 64, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 2);
    for reset in &resets {
        assert!(
            appliance
                .front
                .reset(reset, &mut appliance.scratch)
                .is_none(),
            "a RST to a peer that is refused"
        );
    }
}

#[test]
fn a_reload_maps_an_endpoint_to_another_zone_at_once() {
    let text = |zone: &str| {
        format!(
            "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"red\"\naction = \"allow\"\n\
             zones = \"red\"\n\
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
    // The packet is dropped; the reason is `other_zone`.
    assert!(matches!(
        appliance.take(Label::blue(1, 1), &ping),
        Kept::Nothing(NotSent::Dropped(_))
    ));
}

#[test]
fn an_endpoint_that_is_refused_can_be_seen_by_its_id() {
    let mut appliance =
        Appliance::new("[zones]\nblue = 1\n[geneve.endpoints]\n\"0xb1\" = \"blue\"");
    let ping = echo(Ends::v4(7, 0), true);
    assert!(matches!(
        appliance.take(green(1, 1), &ping),
        Kept::Nothing(NotSent::Refused(_))
    ));
    assert!(appliance.counts(GREEN));
}

// ---- too few places

#[test]
fn a_known_end_of_an_endpoint_without_a_number_stays_known() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 1\nmax_tunnel_ends = 4",
    );
    assert_eq!(a.take(ep(1, 1), &udp(Ends::v4(1, 2), b"")), Kept::Return); // takes the only number
    assert_eq!(a.take(ep(2, 1), &udp(Ends::v4(3, 2), b"")), Kept::Return);
    let first = last(&a);
    assert!(a.front.describe(first).is_some(), "it has an end");
    a.now += Duration::from_secs(31); // what the thread remembers lapses
    assert_eq!(a.take(ep(2, 1), &udp(Ends::v4(5, 2), b"")), Kept::Return);
    let stats = a.stats();
    assert!(
        a.front.describe(last(&a)).is_some(),
        "its end is in the table, but not found: {stats:?}"
    );
}

#[test]
fn a_session_of_an_endpoint_without_a_number_is_reset_at_its_end() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 1\nmax_tunnel_ends = 4",
    );
    assert_eq!(a.take(ep(1, 1), &udp(Ends::v4(1, 2), b"")), Kept::Return);
    established(&mut a, ENDS, ep(2, 1), ep(2, 2));
    a.now += Duration::from_secs(31);
    assert_eq!(
        a.take(ep(2, 1), &segment(ENDS, ACK, 101, 501, b"x")),
        Kept::Return
    );
    assert_eq!(
        a.take(ep(2, 2), &segment(ENDS.back(), ACK, 501, 102, b"")),
        Kept::Return
    );
    a.now += Duration::from_secs(345);
    while a.engine.expire_with(a.now, 64, &mut a.told).more {}
    let resets = std::mem::take(&mut a.told.resets);
    assert_eq!(resets.len(), 2);
    for r in &resets {
        assert!(a.front.reset(r, &mut a.scratch).is_some(), "RST lost");
    }
}

#[test]
fn an_endpoint_that_a_reload_names_gets_a_number_though_forged_ones_came() {
    let text = |more: &str| {
        format!(
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 2\n\
             max_tunnel_ends = 8\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n{more}"
        )
    };
    let mut a = Appliance::new(&text(""));
    // refused, but takes the second number
    assert!(matches!(
        a.take(ep(0xbad, 1), &udp(ENDS, b"")),
        Kept::Nothing(_)
    ));
    a.reload(&text("\"0xc2\" = \"blue\"\n"));
    assert_eq!(a.take(ep(0xc2, 1), &udp(ENDS, b"")), Kept::Return);
    assert!(a.counts(0xc2));
}

#[test]
fn an_endpoint_that_takes_anothers_place_in_the_file_gets_a_number() {
    let text = |id: &str| {
        format!(
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 1\n\
             max_tunnel_ends = 8\n[geneve.endpoints]\n\"{id}\" = \"blue\"\n"
        )
    };
    let mut a = Appliance::new(&text("0xb1"));
    a.reload(&text("0xc2"));
    assert_eq!(a.take(ep(0xc2, 1), &udp(ENDS, b"")), Kept::Return);
    assert!(a.counts(0xc2));
}

#[test]
fn a_flood_of_one_endpoint_leaves_searches_to_the_others() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_tunnel_ends = 16\n\
         unknown_endpoints = \"default\"\n[geneve.endpoints]\n\"0xb1\" = \"blue\"",
    );
    let ping = echo(Ends::v4(7, 0), true);
    let h = |a: &mut Appliance, l, v: u32| {
        let p = vni(l, v, &ping);
        assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
    };
    for v in 0..4 {
        h(&mut a, ep(0xb1, 1), v);
    } // blue's share, of balancers that go
    a.now += Duration::from_secs(700);
    // An unknown endpoint fills its quarter and continues. None of its entries is idle: each search
    // fails.
    for v in 0..30 {
        h(&mut a, ep(0xbad, 1), v);
    }
    // Blue's balancer has a new header.
    let p = vni(ep(0xb1, 1), 99, &segment(ENDS, SYN, 1, 0, b""));
    assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
    assert!(a.front.describe(last(&a)).is_some(), "at once");
    // and it stays so for 30 s without any further flood
}

#[test]
fn endpoints_kept_out_by_a_flood_get_in_after_it() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_tunnel_ends = 16\n\
         unknown_endpoints = \"default\"\n[geneve.endpoints]\n\"0xb1\" = \"blue\"",
    );
    let ping = echo(Ends::v4(7, 0), true);
    for v in 0..4 {
        let p = vni(ep(0xb1, 1), v, &ping);
        assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
    }
    a.now += Duration::from_secs(700);
    for v in 0..30 {
        let p = vni(ep(0xbad, 1), v, &ping);
        assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
    }
    let p = vni(ep(0xb1, 1), 99, &segment(ENDS, SYN, 1, 0, b""));
    assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
    let mut when = None;
    for s in 1..40u16 {
        a.now += Duration::from_secs(1);
        let p = vni(
            ep(0xb1, 1),
            99,
            &segment(Ends::v4(5000 + s, 80), SYN, 1, 0, b""),
        );
        assert_eq!(a.handle(&datagram(1, &p)), Kept::Return);
        if a.front.describe(last(&a)).is_some() {
            when = Some(s);
            break;
        }
    }
    assert_eq!(when, Some(1));
}

#[test]
fn the_resets_of_an_endpoint_that_a_reload_names_count_for_it() {
    let text = |more: &str| {
        format!(
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\n\
             unknown_endpoints = \"default\"\nmax_endpoints = 3\nmax_tunnel_ends = 64\n\
             [geneve.endpoints]\n\"0xb1\" = \"blue\"\n{more}"
        )
    };
    let mut a = Appliance::new(&text(""));
    for e in [0xbad, 0xbae, 0xc2] {
        assert_eq!(a.take(ep(e, 1), &udp(Ends::v4(1, 2), b"")), Kept::Return);
    }
    assert!(a.front.describe(a.told.opened[0].tunnels[0]).is_some());
    a.reload(&text("\"0xc2\" = \"default\"\n"));
    established(&mut a, ENDS, ep(0xc2, 1), ep(0xc2, 2));
    a.now += Duration::from_secs(345);
    while a.engine.expire_with(a.now, 64, &mut a.told).more {}
    for r in std::mem::take(&mut a.told.resets) {
        assert!(a.front.reset(&r, &mut a.scratch).is_some());
    }
    let stats = a.stats();
    let found = stats
        .endpoints
        .iter()
        .find(|e| e.id == Some(EndpointId(0xc2)))
        .map(|e| (e.received, e.sent));
    assert_eq!(found, Some((3, 5)), "{:?}", stats.endpoints);
}

#[test]
fn threads_agree_on_ends_that_make_room() {
    use std::sync::atomic::{AtomicU64, Ordering};
    for max in [1u32, 2, 3, 5, 16, 64] {
        let config = config(&format!(
            "[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 6\nmax_tunnel_ends = {max}\n"
        ));
        let engine = Engine::new(&config).unwrap();
        let front = portcullis::geneve::front::FrontEnd::new(&config).unwrap();
        let base = Instant::now();
        let clock = AtomicU64::new(0);
        let known = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for t in 0..4u64 {
                let (engine, front, clock, known) = (&engine, &front, &clock, &known);
                scope.spawn(move || {
                    let mut scratch = Scratch::new(front);
                    let mut x = t + 77;
                    let mut rnd = |n: u64| {
                        x = x
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        (x >> 33) % n
                    };
                    for i in 0..20_000u64 {
                        if t == 0 && i % 20 == 0 {
                            clock.fetch_add(rnd(700), Ordering::Relaxed);
                        }
                        let now = base + Duration::from_secs(clock.load(Ordering::Relaxed));
                        let (e, v, peer) = (1 + rnd(8), rnd(2) as u32, rnd(4) as u8);
                        let p = vni(
                            ep(e, 3),
                            v,
                            &segment(
                                Ends {
                                    src: 1 + t as u8,
                                    ..Ends::v4(1024 + (i % 60_000) as u16, 80)
                                },
                                SYN,
                                i as u32,
                                0,
                                b"",
                            ),
                        );
                        let from = Datagram {
                            source: Ipv4Addr::new(10, 7, 0, peer),
                            ..datagram(1, &p)
                        };
                        let mut told = crate::support::model::Log::default();
                        let _ = front.handle(engine, &from, now, &mut scratch, &mut told);
                        for o in &told.opened {
                            if let Some(d) = front.describe(o.tunnels[0]) {
                                known.fetch_add(1, Ordering::Relaxed);
                                assert_eq!(
                                    (d.endpoint, d.peer),
                                    (Some(EndpointId(e)), Ipv4Addr::new(10, 7, 0, peer))
                                );
                            }
                        }
                        if i % 64 == 0 {
                            let _ = engine.expire_with(now, 1000, &mut Discard);
                        }
                    }
                });
            }
        });
        let stats = front.stats();
        eprintln!(
            "{max}: ends {} refused {} known {}",
            stats.tunnel_ends,
            stats.tunnel_ends_refused,
            known.load(Ordering::Relaxed)
        );
        assert!(stats.tunnel_ends <= max as usize);
        assert_eq!(stats.received, stats.outcomes());
    }
}

#[test]
fn as_many_ends_make_room_as_nobody_uses() {
    // Those that only occur in packets have half of a quarter: 16.
    let mut a = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 128\n");
    let ping = echo(Ends::v4(7, 0), true);
    for v in 0..16 {
        let p = vni(ep(1, 1), v, &ping);
        let _ = a.handle(&datagram(1, &p));
    }
    a.now += Duration::from_secs(700);
    let mut found = 0;
    for v in 0..16u32 {
        let p = vni(
            ep(1, 1),
            100 + v,
            &segment(Ends::v4(5000 + v as u16, 80), SYN, 1, 0, b""),
        );
        let _ = a.handle(&datagram(1, &p));
        found += u32::from(a.front.describe(last(&a)).is_some());
    }
    assert_eq!(found, 16);
}
