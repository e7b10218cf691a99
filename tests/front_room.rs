//! Who keeps and who gets a tunnel end and a number where there are too few: reloads, floods, threads; and whose header an answer
//! takes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;
use portcullis::geneve::EndpointId;
use portcullis::geneve::front::{Datagram, NotSent, Refusal, Scratch};
use portcullis::{Engine, Packet, TunnelRef};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use support::packets::{ACK, Ends, RST, SYN, echo, udp};
use support::tunnel::*;

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

#[test]
fn a_known_end_of_an_endpoint_without_a_number_stays_known() {
    let mut a =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 1\nmax_tunnel_ends = 4");
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
    let mut a =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 1\nmax_tunnel_ends = 4");
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
    while a.engine.expire(a.now, 64, &mut a.told).more {}
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
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 2\nmax_tunnel_ends = 8\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n{more}"
        )
    };
    let mut a = Appliance::new(&text(""));
    // refused, but takes the second number
    assert!(matches!(a.take(ep(0xbad, 1), &udp(ENDS, b"")), Kept::Nothing(_)));
    let new = config(&text("\"0xc2\" = \"blue\"\n"));
    a.front.reload(&new).unwrap();
    a.engine.reload(&new, a.now, &mut a.told).unwrap();
    assert_eq!(a.take(ep(0xc2, 1), &udp(ENDS, b"")), Kept::Return);
    let stats = a.stats();
    assert!(
        stats.endpoints.iter().any(|e| e.id == Some(EndpointId(0xc2))),
        "{:?}",
        stats.endpoints
    );
}

#[test]
fn an_endpoint_that_takes_anothers_place_in_the_file_gets_a_number() {
    let text = |id: &str| {
        format!(
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_endpoints = 1\nmax_tunnel_ends = 8\n[geneve.endpoints]\n\"{id}\" = \"blue\"\n"
        )
    };
    let mut a = Appliance::new(&text("0xb1"));
    let new = config(&text("0xc2"));
    a.front.reload(&new).unwrap();
    a.engine.reload(&new, a.now, &mut a.told).unwrap();
    assert_eq!(a.take(ep(0xc2, 1), &udp(ENDS, b"")), Kept::Return);
    let stats = a.stats();
    assert!(
        stats.endpoints.iter().any(|e| e.id == Some(EndpointId(0xc2))),
        "{:?}",
        stats.endpoints
    );
}

#[test]
fn a_flood_of_one_endpoint_leaves_searches_to_the_others() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_tunnel_ends = 16\nunknown_endpoints = \"default\"\n[geneve.endpoints]\n\"0xb1\" = \"blue\"",
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
    // A stranger fills its quarter and goes on. Nothing of it is idle: each search is in vain.
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
fn what_a_flood_has_kept_out_is_let_in_after_it() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nmax_tunnel_ends = 16\nunknown_endpoints = \"default\"\n[geneve.endpoints]\n\"0xb1\" = \"blue\"",
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
        let p = vni(ep(0xb1, 1), 99, &segment(Ends::v4(5000 + s, 80), SYN, 1, 0, b""));
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
            "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\nunknown_endpoints = \"default\"\nmax_endpoints = 3\nmax_tunnel_ends = 64\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n{more}"
        )
    };
    let mut a = Appliance::new(&text(""));
    for e in [0xbad, 0xbae, 0xc2] {
        assert_eq!(a.take(ep(e, 1), &udp(Ends::v4(1, 2), b"")), Kept::Return);
    }
    assert!(a.front.describe(a.told.opened[0].tunnels[0]).is_some());
    let new = config(&text("\"0xc2\" = \"default\"\n"));
    a.front.reload(&new).unwrap();
    a.engine.reload(&new, a.now, &mut a.told).unwrap();
    established(&mut a, ENDS, ep(0xc2, 1), ep(0xc2, 2));
    a.now += Duration::from_secs(345);
    while a.engine.expire(a.now, 64, &mut a.told).more {}
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
                        let mut told = support::model::Log::default();
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
                            let _ = engine.expire(now, 1000, &mut ());
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
    let mut a = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmax_tunnel_ends = 64\n");
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

#[test]
fn what_cannot_be_answered_takes_nothing_from_the_budget() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\ninner_mtu = 1280\n[resets]\nper_destination = 3\noverall = 3",
    );
    // IPv4 that may be fragmented: never answered.
    let mut p = udp(Ends::v4(1000, 53), &[0; 1400]);
    p[6] &= !0x40;
    p[10] = 0;
    p[11] = 0;
    let s: u32 = (0..10)
        .map(|i| u32::from(u16::from_be_bytes([p[2 * i], p[2 * i + 1]])))
        .sum();
    let s = (s >> 16) + (s & 0xffff);
    let s = !((s + (s >> 16)) as u16);
    p[10..12].copy_from_slice(&s.to_be_bytes());
    for _ in 0..3 {
        assert_eq!(
            a.take(Label::blue(1, 1), &p),
            Kept::Nothing(NotSent::Refused(Refusal::TooLarge))
        );
    }
    let answer = a.take(Label::blue(1, 1), &udp(Ends::v6(1000, 53), &[0; 1400]));
    assert!(matches!(answer, Kept::Send(..)), "path MTU discovery: {answer:?}");
}

#[test]
fn a_rejected_rst_takes_nothing_from_the_budget() {
    let mut a = Appliance::new("[policy]\ndefault = \"reject\"\n[resets]\nper_destination = 3\noverall = 3");
    for _ in 0..9 {
        for inner in [udp(ENDS, b"")].iter().take(0) {
            let _ = a.take(Label::blue(1, 1), inner);
        }
        let frag = {
            // a later fragment of nothing is no reject; ICMP timestamp? use GRE-like packet
            segment(ENDS, RST, 1, 0, b"")
        };
        let r = a.take(Label::blue(1, 1), &frag);
        assert!(matches!(r, Kept::Nothing(_)), "{r:?}");
    }
    let answer = a.take(Label::blue(1, 1), &segment(ENDS, SYN, 1, 0, b""));
    assert!(matches!(answer, Kept::Send(..)), "{answer:?}");
}

#[test]
fn a_late_packet_of_the_half_that_never_came_is_answered_by_the_way_of_the_other() {
    let mut a =
        Appliance::new("[policy]\ndefault = \"allow\"\n[tcp]\nasymmetric = \"bypass\"\nlate = \"reset\"");
    let own = Label::blue(1, 1);
    assert_eq!(a.take(own, &segment(ENDS, SYN, 100, 0, b"")), Kept::Return);
    assert_eq!(a.take(own, &segment(ENDS, ACK, 101, 501, b"")), Kept::Return);
    assert_eq!(a.take(own, &segment(ENDS, ACK, 101, 501, b"data")), Kept::Return);
    a.now += Duration::from_secs(400);
    while a.engine.expire(a.now, 64, &mut a.told).more {}
    assert_eq!(a.engine.sessions(), 0);
    // The other half comes, with its own cookie.
    let back = Label::blue(2, 2);
    let packet = segment(ENDS.back(), ACK, 501, 105, b"more");
    let answer = a.take(back, &packet);
    // A RST to the responder travels in the original direction.
    sent(&answer, own);
}

#[test]
fn tunnel_back_is_none_where_nothing_is_known_of_the_other_direction() {
    let mut a = Appliance::new(ALLOW);
    let own = Label::blue(1, 1);
    let syn = segment(ENDS, SYN, 100, 0, b"");
    assert_eq!(a.take(own, &syn), Kept::Return);
    let back = a.engine.tunnel_back(Packet::new(&syn, a.now));
    assert_eq!(back, TunnelRef::NONE, "as its documentation says");
}
