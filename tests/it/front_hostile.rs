//! Hostile or unlucky datagrams at the front end: loops, floods of refused packets, new flows of
//! the balancer in the middle of old sessions, tenants with the same addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::packets::{ACK, Ends, RST, SYN, udp};
use crate::support::tunnel::{
    ALLOW, Appliance, BLUE, GREEN, Kept, Label, OURS, datagram, established, green, segment, sent,
};
use portcullis::geneve::front::{Datagram, NotSent, Refusal, Scratch};
use portcullis::geneve::{InnerProtocol, PORT, TunnelOption, encode};
use portcullis::packet::{Checksums, parse};
use portcullis::{Packet, TunnelRef};

const ENDS: Ends = Ends::v4(4000, 80);

// ---- the cookie of an answer

#[test]
fn a_refused_syn_of_a_new_flow_is_answered_in_the_new_flow() {
    let mut appliance = Appliance::new(ALLOW);
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    appliance.reload("[policy]\ndefault = \"reject\"\non_reload = \"keep\"");
    // The balancer has forgotten the flow of cookies 1 and 2: this is another one.
    let new = Label::blue(3, 3);
    let answer = appliance.take(new, &segment(ends, SYN, 9_000_000, 0, b""));
    sent(&answer, new);
}

#[test]
fn a_refused_syn_of_a_new_flow_is_answered_there_when_the_old_session_has_expired_too() {
    let mut appliance = Appliance::new(ALLOW);
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    appliance.reload("[policy]\ndefault = \"reject\"\non_reload = \"keep\"");
    appliance.now += Duration::from_secs(341);
    while appliance
        .engine
        .expire_with(appliance.now, 64, &mut appliance.told)
        .more
    {}
    assert_eq!(appliance.engine.sessions(), 0);
    appliance.now += Duration::from_secs(20);
    let new = Label::blue(3, 3);
    let answer = appliance.take(new, &segment(ends, SYN, 9_000_000, 0, b""));
    sent(&answer, new);
}

// ---- loops

#[test]
fn a_datagram_from_our_own_address_is_not_sent_to_ourselves() {
    let mut appliance = Appliance::new(ALLOW);
    let payload = Label::blue(1, PORT).around(&udp(Ends::v4(1000, 53), b"question"));
    let from = Datagram {
        source: OURS,
        ..datagram(PORT, &payload)
    };
    let answer = appliance.handle(&from);
    assert!(
        matches!(answer, Kept::Nothing(_)),
        "{answer:?}: it comes back for ever"
    );
}

// ---- which packets may be answered

#[test]
fn an_icmp_error_is_never_answered_with_one() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"reject\"");
    let mut answered = Vec::new();
    let quoted = udp(Ends::v4(1, 2), b"12345678");
    for kind in [3u8, 4, 5, 11, 12] {
        let packet = crate::support::packets::icmp(Ends::v4(0, 0), kind, [0; 4], &quoted);
        if let Kept::Send(..) = appliance.take(Label::blue(1, 1), &packet) {
            answered.push(("ICMP", kind));
        }
    }
    let quoted = udp(Ends::v6(1, 2), b"12345678");
    for kind in [1u8, 2, 3, 4, 5, 100, 101, 127, 137] {
        let packet = crate::support::packets::icmp(Ends::v6(0, 0), kind, [0; 4], &quoted);
        if let Kept::Send(..) = appliance.take(Label::blue(1, 1), &packet) {
            answered.push(("ICMPv6", kind));
        }
    }
    assert!(answered.is_empty(), "{answered:?}");
}

#[test]
fn packets_to_a_group_get_no_answer() {
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"reject\"\n[tcp]\nmidstream = \"reject\"\n");
    let mut answered = Vec::new();
    for (name, mut packet) in [
        ("udp", udp(Ends::v4(1, 53), b"?")),
        ("syn", segment(Ends::v4(1, 80), SYN, 1, 0, b"")),
        ("ack", segment(Ends::v4(1, 80), ACK, 1, 1, b"")),
    ] {
        // To 224.0.0.1, with correct checksums.
        let transport = packet.split_off(20);
        packet[16..20].copy_from_slice(&[224, 0, 0, 1]);
        packet[10..12].fill(0);
        let sum = etherparse::Ipv4HeaderSlice::from_slice(&packet)
            .unwrap()
            .to_header()
            .calc_header_checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut transport = transport;
        let at = if name == "udp" { 6 } else { 16 };
        let old = u16::from_be_bytes([transport[at], transport[at + 1]]);
        let mut sum =
            u32::from(!old) + u32::from(!0x0a00u16) + u32::from(!0x0002u16) + 0xe000 + 0x0001;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        transport[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        packet.extend(transport);
        let parsed = parse(&packet, Checksums::Verify);
        if parsed.is_err() {
            continue;
        }
        if let Kept::Send(..) = appliance.take(Label::blue(1, 1), &packet) {
            answered.push(name);
        }
    }
    assert!(answered.is_empty(), "{answered:?}");
}

#[test]
fn refused_packets_are_answered_within_a_budget() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"reject\"\n[resets]\nper_destination = 10\noverall = 10",
    );
    let mut answered = 0;
    for port in 0..5_000u16 {
        // One spoofed source, which gets all the answers.
        let answer = appliance.take(Label::blue(1, 1), &udp(Ends::v6(1_000 + port, 53), b"?"));
        answered += usize::from(matches!(answer, Kept::Send(..)));
    }
    assert!(
        answered < 5_000,
        "{answered} ICMPv6 errors at one instant (RFC 4443 2.4 f: MUST limit)"
    );
}

#[test]
fn too_large_packets_are_answered_within_a_budget() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\ninner_mtu = 1280\n[resets]\n\
         per_destination = 10\noverall = 10",
    );
    let packet = udp(Ends::v6(1_000, 53), &[0; 1_400]);
    let mut answered = 0;
    for _ in 0..5_000 {
        answered += usize::from(matches!(
            appliance.take(Label::blue(1, 1), &packet),
            Kept::Send(..)
        ));
    }
    assert!(
        answered < 5_000,
        "{answered} ICMPv6 errors at one instant (RFC 4443 2.4 f: MUST limit)"
    );
}

// ---- too large

#[test]
fn padding_does_not_make_a_small_packet_too_large_for_its_sender() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\ninner_mtu = 1280");
    let mut packet = udp(Ends::v6(1_000, 53), b"?");
    packet.resize(1_400, 0);
    let answer = appliance.take(Label::blue(1, 1), &packet);
    assert!(
        !matches!(answer, Kept::Send(..)),
        "packet too big, MTU 1280, about 49 bytes"
    );
}

// ---- MSS

fn raw_tcp(options: &[u8], ends: Ends) -> Vec<u8> {
    let mut packet = segment(ends, SYN, 1, 0, b"");
    let ip = if ends.v6 { 40 } else { 20 };
    assert!(options.len().is_multiple_of(4));
    packet[ip + 12] = (((20 + options.len()) / 4) << 4) as u8;
    packet.extend(options);
    fix(&mut packet, ip);
    packet
}

/// Corrects lengths and checksums of a TCP packet without IP options.
fn fix(packet: &mut [u8], ip: usize) {
    let len = packet.len();
    if ip == 20 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[10..12].fill(0);
        let sum = etherparse::Ipv4HeaderSlice::from_slice(packet)
            .unwrap()
            .to_header()
            .calc_header_checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
    packet[ip + 16..ip + 18].fill(0);
    let addresses = if ip == 20 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let mut sum: u32 = addresses
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    sum += 6 + (len - ip) as u32;
    for word in packet[ip..].chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    packet[ip + 16..ip + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

// ---- codec, metadata, other providers

#[test]
fn providers_through_the_front_end() {
    let with = |class, options: &[(u8, Vec<u8>)], inner: &[u8]| {
        let options: Vec<_> = options
            .iter()
            .map(|(kind, data)| TunnelOption {
                class,
                kind: *kind,
                data,
            })
            .collect();
        let mut out = vec![0; 260];
        let len = encode(InnerProtocol::Ipv4, 0, &options, &mut out).unwrap();
        out.truncate(len);
        out.extend(inner);
        out
    };
    let ends = Ends::v4(4000, 80);
    // Tencent: the bits of direction do not make another flow; 29 bits of cookie do.
    let mut appliance =
        Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nprovider = \"tencent\"");
    let id = vec![0, 0, 0, 0, 0, 0, 0, 7];
    for (cookie, opened) in [(0x2000_0001u32, 1), (0x4000_0001, 1), (0x4000_0002, 2)] {
        let payload = with(
            0x0167,
            &[(3, cookie.to_be_bytes().to_vec()), (1, id.clone())],
            &segment(ends, SYN, 100, 0, b""),
        );
        assert_eq!(appliance.handle(&datagram(1, &payload)), Kept::Return);
        assert_eq!(appliance.told.opened.len(), opened, "{cookie:#x}");
    }
    // GCP: two directions, one zone.
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"n\"\naction = \"allow\"\n\
         zones = \"net\"\n[zones]\nnet = 1\n\
         [geneve]\nprovider = \"gcp\"\n[geneve.endpoints]\n\"0x123\" = \"net\"",
    );
    for (last, packet) in [
        (0x30u8, segment(ends, SYN, 100, 0, b"")),
        (0x31, segment(ends.back(), SYN | ACK, 500, 101, b"")),
        (0x30, segment(ends, ACK, 101, 501, b"")),
    ] {
        let payload = with(
            0x0132,
            &[
                (1, vec![0, 0, 0x12, last]),
                (2, vec![1; 4]),
                (3, vec![2; 8]),
            ],
            &packet,
        );
        assert_eq!(appliance.handle(&datagram(1, &payload)), Kept::Return);
    }
    assert_eq!(appliance.stats().endpoints.len(), 2);
}

#[test]
fn options_in_any_order_among_254_bytes_of_others_pass_and_answer_untouched() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"reject\"");
    let id = BLUE.to_be_bytes();
    let junk = [5u8; 124];
    let option = |class, kind, data| TunnelOption { class, kind, data };
    let orders: [&[TunnelOption<'_>]; 3] = [
        &[
            option(0x0108, 3, &id[..4]),
            option(0x0108, 1, &id),
            option(0xffff, 0, &junk),
            option(0x0108, 9, &[]),
        ],
        &[
            option(0, 0, &[]),
            option(0x0108, 1, &id),
            option(0x0132, 1, &id[..4]),
            option(0x0108, 3, &id[..4]),
        ],
        &[
            option(0xffff, 0x7f, &junk),
            option(0xfffe, 1, &junk[..84]),
            option(0x0108, 1, &id),
            option(0x0108, 3, &id[..4]),
        ],
    ];
    for options in orders {
        let mut header = vec![0; 260];
        let len = encode(InnerProtocol::Ipv4, 0xff_ffff, options, &mut header).unwrap();
        header.truncate(len);
        // Reserved bits too.
        header[1] |= 0x3f;
        header[7] = 0xee;
        header[11] |= 0xe0;
        let payload = [&header[..], &segment(Ends::v4(4000, 23), SYN, 100, 0, b"")].concat();
        for _ in 0..2 {
            let Kept::Send(_, answer) = appliance.handle(&datagram(5, &payload)) else {
                panic!()
            };
            assert_eq!(answer[..len], header[..]);
        }
    }
    appliance.stats();
}

#[test]
fn a_rejected_later_fragment_gets_no_answer() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"reject\"");
    let whole = udp(Ends::v4(1_000, 53), &[1; 64]);
    let cut = |from: usize, to: usize, more: bool| {
        let mut packet = whole[..20].to_vec();
        packet.extend(&whole[20 + from..20 + to]);
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[4..6].copy_from_slice(&[0, 9]);
        let offset = (from / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet[10..12].fill(0);
        let sum = etherparse::Ipv4HeaderSlice::from_slice(&packet)
            .unwrap()
            .to_header()
            .calc_header_checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let first = appliance.take(Label::blue(1, 1), &cut(0, 32, true));
    assert!(matches!(first, Kept::Send(..)), "{first:?}");
    let later = appliance.take(Label::blue(1, 1), &cut(32, 72, false));
    assert!(matches!(later, Kept::Nothing(_)), "{later:?}");
    appliance.stats();
}

// ---- endpoints with the same inner addresses

const TENANTS: &str = "[zones]\nblue = 1\ngreen = 2\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n\
                       \"0xc2\" = \"green\"\n\
    [[policy.rule]]\nname = \"blue\"\naction = \"allow\"\nzones = \"blue\"\n";

#[test]
fn the_answer_to_one_tenant_does_not_depend_on_the_sessions_of_another() {
    let mut appliance = Appliance::new(&format!("[policy]\ndefault = \"reject\"\n{TENANTS}"));
    let mut wrong = Vec::new();
    for ends in [Ends::v4(4000, 53), Ends::v6(4000, 53)] {
        let packet = udp(ends, b"?");
        let before = appliance.take(green(2, 2), &packet);
        assert!(matches!(before, Kept::Send(..)), "{before:?}");
        assert_eq!(appliance.take(Label::blue(1, 1), &packet), Kept::Return);
        let after = appliance.take(green(2, 2), &packet);
        if after != before {
            wrong.push(format!("{after:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_denied_packet_does_not_pass_by_the_session_of_another_tenant() {
    let mut wrong = Vec::new();
    for mode in ["report", "bypass"] {
        let mut appliance = Appliance::new(&format!("[tcp]\nasymmetric = \"{mode}\"\n{TENANTS}"));
        let packet = udp(Ends::v4(4000, 53), b"?");
        assert!(matches!(
            appliance.take(green(2, 2), &packet),
            Kept::Nothing(_)
        ));
        assert_eq!(appliance.take(Label::blue(1, 1), &packet), Kept::Return);
        // The same direction: no direction of a conversation is missing.
        if appliance.take(green(2, 2), &packet) == Kept::Return {
            wrong.push(mode);
        }
    }
    assert!(
        wrong.is_empty(),
        "green is denied, but passes with {wrong:?}"
    );
}

// ---- what is remembered, and what is read each time

#[test]
fn memory_and_batches_change_no_answer() {
    let text = "[policy]\ndefault = \"reject\"\n[[policy.rule]]\nname = \"web\"\n\
                action = \"allow\"\n\
        protocol = \"tcp\"\ndestination_ports = 80\nzones = \"blue\"\n[zones]\nblue = 1\n\
        [geneve]\ninner_mtu = 1280\nmss_clamp = 500\nunknown_endpoints = \"default\"\n\
        max_tunnel_ends = 64\n\
        [geneve.endpoints]\n\"0xb1\" = \"blue\"";
    let (mut warm, mut cold, mut batched) = (
        Appliance::new(text),
        Appliance::new(text),
        Appliance::new(text),
    );
    (cold.now, batched.now) = (warm.now, warm.now);
    let mut batch: Vec<([Ipv4Addr; 2], u16, Vec<u8>, Kept)> = Vec::new();
    let mut random = 7u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for step in 0..200_000 {
        let label = Label {
            endpoint: [BLUE, GREEN, 3][next(3) as usize],
            cookie: next(3) as u32,
            port: 1 + next(3) as u16,
        };
        let port = [80, 23][next(2) as usize];
        let ends = if next(2) == 0 {
            Ends::v4(4000 + next(8) as u16, port)
        } else {
            Ends::v6(4000 + next(8) as u16, port)
        };
        let ends = if next(2) == 0 { ends } else { ends.back() };
        let inner = match next(4) {
            0 => segment(ends, SYN, next(5) as u32, 0, b""),
            1 => segment(ends, ACK, next(5) as u32, next(5) as u32, b""),
            2 => udp(ends, &vec![0; next(1_400) as usize]),
            _ => raw_tcp(&[1, 2, 4, 0x22, 0x60, 0, 0, 0], ends),
        };
        let mut payload = label.around(&inner);
        for _ in 0..next(3) {
            let at = next(41) as usize;
            payload[at] ^= 1 << next(8);
        }
        if next(50) == 0 {
            payload.truncate(next(60) as usize);
        }
        let packet = Datagram {
            source: Ipv4Addr::new(10, 1, 0, 1 + next(2) as u8),
            destination: Ipv4Addr::new(10, 1, 0, 3 + next(2) as u8),
            ..datagram(label.port, &payload)
        };
        // One engine decides one by one, one without a memory of headers, one in batches.
        cold.scratch = Scratch::new(&cold.front);
        let (left, right) = (warm.handle(&packet), cold.handle(&packet));
        assert_eq!(left, right, "step {step}");
        if let Kept::Send(tunnel, sent) = &left {
            assert_eq!(tunnel.destination_port, PORT);
            assert!(portcullis::geneve::Header::parse(sent, |_, _| false).is_ok());
        }
        let outer = [packet.source, packet.destination];
        batch.push((outer, label.port, payload, left));
        if next(40) == 0 || step == 199_999 {
            let datagrams = batch.iter().map(|(outer, port, payload, _)| Datagram {
                source: outer[0],
                destination: outer[1],
                ..datagram(*port, payload)
            });
            let mut answers = vec![None; batch.len()];
            let Appliance {
                engine,
                front,
                now,
                scratch,
                told,
            } = &mut batched;
            front.handle_batch(
                engine,
                datagrams,
                *now,
                scratch,
                told,
                |place, datagram, answer| {
                    assert_eq!(datagram.payload, batch[place].2);
                    assert_eq!(
                        answers[place].replace(Kept::of(answer)),
                        None,
                        "each has one answer"
                    );
                },
            );
            for (answer, (.., expected)) in answers.into_iter().zip(batch.drain(..)) {
                assert_eq!(answer, Some(expected), "step {step}");
            }
        }
    }
    let (left, right) = (warm.stats(), cold.stats());
    assert_eq!(left.received, 200_000);
    assert_eq!(left, batched.stats());
    assert_eq!(
        format!("{:?}", warm.engine.stats()),
        format!("{:?}", batched.engine.stats())
    );
    let mut right = right;
    right.tunnel_ends_refused = left.tunnel_ends_refused;
    assert_eq!(left, right);
}

// ---- what is answered, and what can be seen

#[test]
fn a_rst_is_never_answered_with_a_rst() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"reject\"\n[tcp]\nmidstream = \"reject\"\nlate = \"reset\"",
    );
    for flags in [RST, RST | ACK] {
        for ends in [Ends::v4(4000, 80), Ends::v6(4000, 80)] {
            let answer = appliance.take(Label::blue(1, 1), &segment(ends, flags, 5, 5, b""));
            assert!(matches!(answer, Kept::Nothing(_)), "{answer:?}");
        }
    }
}

#[test]
fn a_syn_of_a_new_flow_in_the_reply_direction_is_a_new_session() {
    let mut appliance = Appliance::new(ALLOW);
    let ends = Ends::v4(4000, 80);
    established(&mut appliance, ends, Label::blue(1, 1), Label::blue(2, 2));
    assert_eq!(
        appliance.take(
            Label::blue(9, 9),
            &segment(ends.back(), SYN, 7_000_000, 0, b"")
        ),
        Kept::Return
    );
    assert_eq!(appliance.told.opened.len(), 2);
    assert_eq!(appliance.told.opened[1].src_port, 80);
}

// ---- the budget of answers, and their way

#[test]
fn a_packet_that_cannot_be_answered_uses_no_budget() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\ninner_mtu = 1280\n[resets]\nper_destination = 3\n\
         overall = 3",
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
    assert!(
        matches!(answer, Kept::Send(..)),
        "path MTU discovery: {answer:?}"
    );
}

#[test]
fn a_rejected_rst_takes_nothing_from_the_budget() {
    let mut a = Appliance::new(
        "[policy]\ndefault = \"reject\"\n[resets]\nper_destination = 3\noverall = 3",
    );
    for _ in 0..9 {
        for inner in [udp(ENDS, b"")].iter().take(0) {
            let _ = a.take(Label::blue(1, 1), inner);
        }
        let frag = {
            // a later fragment without a first one is not rejected, so a GRE-like packet is used
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
    let mut a = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[tcp]\nasymmetric = \"bypass\"\nlate = \"reset\"",
    );
    let own = Label::blue(1, 1);
    assert_eq!(a.take(own, &segment(ENDS, SYN, 100, 0, b"")), Kept::Return);
    assert_eq!(
        a.take(own, &segment(ENDS, ACK, 101, 501, b"")),
        Kept::Return
    );
    assert_eq!(
        a.take(own, &segment(ENDS, ACK, 101, 501, b"data")),
        Kept::Return
    );
    a.now += Duration::from_secs(400);
    while a.engine.expire_with(a.now, 64, &mut a.told).more {}
    assert_eq!(a.engine.sessions(), 0);
    // The other direction arrives, with its own cookie.
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
