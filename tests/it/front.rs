//! The front end with an engine: headers of replies, refused datagrams, and a single count for
//! every datagram.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::packets::{ACK, Ends, Head, RST, SYN, echo, tcp, udp};
use crate::support::seal::sealed;
use crate::support::tunnel::{
    ALLOW, Appliance, BALANCER, BLUE, GREEN, Kept, Label, OURS, config, datagram, established,
    flags, segment, sent,
};
use etherparse::TcpOptionElement;
use portcullis::config::Config;
use portcullis::geneve::front::{Answer, Datagram, FrontEnd, NotSent, Outgoing, Refusal, Scratch};
use portcullis::geneve::{
    EndpointId, GeneveError, Header, InnerProtocol, MetadataError, PORT, TunnelOption, encode,
};
use portcullis::packet::{Checksums, Transport, parse};
use portcullis::{Direction, Discard, DropReason, EndReason, LimitReached, SessionFilter, Sink};
use proptest::prelude::*;

/// Counts the limits that were reached.
#[derive(Default)]
struct Limits(usize);

impl Sink for Limits {
    fn limit_reached(&mut self, _: &LimitReached) {
        self.0 += 1;
    }
}

#[test]
fn a_sink_learns_of_limits_through_the_front_end() {
    let text = "[limits]\nmax_per_source = 1\n[policy]\ndefault = \"allow\"";
    let mut appliance = Appliance::new(text);
    let mut limits = Limits::default();
    for port in 0..2 {
        let bytes = Label::blue(1, 1).around(&udp(Ends::v4(1000 + port, 53), b""));
        let Appliance {
            front,
            engine,
            scratch,
            now,
            ..
        } = &mut appliance;
        let _ = front.handle(engine, &datagram(1, &bytes), *now, scratch, &mut limits);
    }
    assert_eq!(
        appliance.engine.stats().dropped_by(DropReason::LimitSource),
        1
    );
    assert_eq!(limits.0, 1);
}

#[test]
fn a_front_end_needs_the_tunnels_of_sessions() {
    let config = Config::from_toml("", "t.toml").unwrap();
    let error = FrontEnd::new(&config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.toml: engine.tunnel_references: the front end needs `true`, to send RSTs in the tunnels \
         of sessions"
    );
    assert!(FrontEnd::new(&FrontEnd::adapt(config)).is_ok());
}

#[test]
fn allowed_packets_go_back_as_they_came() {
    let mut appliance = Appliance::new(ALLOW);
    let mut padded = udp(Ends::v4(1000, 53), b"question");
    padded.extend([0xaa; 9]);
    for inner in [padded, echo(Ends::v6(7, 0), true)] {
        assert_eq!(appliance.take(Label::blue(1, 60_001), &inner), Kept::Return);
    }
    let back = datagram(60_001, b"").back();
    assert_eq!((back.source, back.destination), (OURS, BALANCER));
    assert_eq!((back.source_port, back.destination_port), (60_001, PORT));
    let stats = appliance.stats();
    assert_eq!((stats.returned, stats.tunnel_ends), (2, 2), "IPv4 and IPv6");
    let [others, blue] = stats.endpoints[..] else {
        panic!()
    };
    assert_eq!((others.received, blue.id), (0, Some(EndpointId(BLUE))));
    assert_eq!((blue.received, blue.sent), (2, 2));
    assert_eq!(blue.received_bytes, blue.sent_bytes);
}

#[test]
fn a_challenge_goes_back_in_the_header_of_its_syn() {
    for ends in [Ends::v4(1000, 80), Ends::v6(1000, 80)] {
        let text = "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve.endpoints]\n\
                    \"0xb1\" = \"blue\"\n\
                    [syn_challenge]\nlifetime = \"1s\"\n[syn_challenge.zones]\n";
        let mut appliance = Appliance::new(text);
        let (original, reply) = (Label::blue(1, 60_001), Label::blue(2, 60_002));
        established(&mut appliance, ends, original, reply);
        // The record of an earlier session of these ends has another return path.
        let all = SessionFilter::default();
        assert_eq!(
            appliance
                .engine
                .end_sessions(&all, appliance.now, &mut Discard),
            1
        );
        assert_eq!(appliance.engine.stats().tombstones, 1);
        appliance.reload(&format!("{text}blue = \"always\"\n"));
        appliance.now += Duration::from_secs(2);
        let (label, syn) = (Label::blue(3, 60_003), segment(ends, SYN, 9_000, 0, b""));
        let inner = sent(&appliance.take(label, &syn), label);
        assert_eq!(inner.len(), syn.len(), "no larger than the SYN");
        let Transport::Tcp {
            segment: answer, ..
        } = parse(&inner, Checksums::Verify).unwrap().transport
        else {
            panic!("no TCP");
        };
        assert_eq!(flags(&inner), SYN | ACK);
        let rst = segment(ends, RST, answer.ack.0, 0, b"");
        let validated = NotSent::Dropped(DropReason::SynValidated);
        assert_eq!(appliance.take(label, &rst), Kept::Nothing(validated));
        assert_eq!(appliance.take(label, &syn), Kept::Return);
        assert_eq!(appliance.stats().replied, 1);
    }
}

#[test]
fn of_100000_interleaved_packets_not_one_has_a_wrong_header() {
    const FLOWS: u16 = 1_000;
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[resets]\nper_destination = 1000000\noverall = 1000000\n\
         [zones]\nblue = 1\ngreen = 2\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n\
         \"0xc2\" = \"green\"\n",
    );
    let mut newest: HashMap<(u16, u16, Direction), Label> = HashMap::new();
    let mut random = 1u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    // Equal addresses and ports behind both endpoints, IPv4 and IPv6.
    let ends = |flow: u16, direction| {
        let ends = if flow.is_multiple_of(5) {
            Ends::v6(10_000 + flow, 80)
        } else {
            Ends::v4(10_000 + flow, 80)
        };
        match direction {
            Direction::Original => ends,
            Direction::Reply => ends.back(),
        }
    };
    let mut label = |zone: u16, rehashed: bool, old: Option<Label>| Label {
        endpoint: [BLUE, GREEN][usize::from(zone)],
        cookie: match old {
            Some(old) if !rehashed => old.cookie,
            _ => next() as u32,
        },
        port: 1 + (next() % 65_535) as u16,
    };
    let steps = [
        (Direction::Original, SYN, 100, 0),
        (Direction::Reply, SYN | ACK, 500, 101),
        (Direction::Original, ACK, 101, 501),
    ];
    let mut packets = 0;
    for turn in 0..50u16 {
        for flow in 0..FLOWS {
            for zone in 0..2 {
                let (direction, flags, seq, ack) = match steps.get(usize::from(turn)) {
                    Some(step) => *step,
                    None if (turn + flow + zone).is_multiple_of(2) => {
                        (Direction::Original, ACK, 101, 501)
                    }
                    None => (Direction::Reply, ACK, 501, 101),
                };
                let key = (zone, flow, direction);
                // A separate cookie for each direction, sometimes a new one in the middle, and
                // always another port.
                let rehashed = turn > 3 && (turn + flow) % 17 == 0;
                let own = label(zone, rehashed, newest.get(&key).copied());
                newest.insert(key, own);
                let inner = segment(ends(flow, direction), flags, seq, ack, b"");
                assert_eq!(
                    appliance.take(own, &inner),
                    Kept::Return,
                    "{turn} {flow} {zone}"
                );
                packets += 1;
            }
        }
    }
    assert_eq!(packets, 100_000);
    assert_eq!(appliance.stats().returned, 100_000);
    // Packets that the engine creates have the stored tunnel headers.
    appliance.now += Duration::from_secs(4_000);
    while appliance
        .engine
        .expire_with(appliance.now, 4_096, &mut appliance.told)
        .more
    {}
    let resets = std::mem::take(&mut appliance.told.resets);
    assert_eq!(resets.len(), 4 * usize::from(FLOWS));
    for reset in &resets {
        let Outgoing { tunnel, payload } = appliance
            .front
            .reset(reset, &mut appliance.scratch)
            .unwrap();
        let kept = Kept::Send(tunnel, payload.to_vec());
        let parsed = parse(reset.bytes(), Checksums::Verify).unwrap();
        let Transport::Tcp {
            src_port, dst_port, ..
        } = parsed.transport
        else {
            panic!()
        };
        let (flow, direction) = if dst_port == 80 {
            (src_port - 10_000, Direction::Original)
        } else {
            (dst_port - 10_000, Direction::Reply)
        };
        let label = newest[&(reset.zone.0 - 1, flow, direction)];
        assert_eq!(sent(&kept, label), reset.bytes());
    }
    // The answers to late packets have them too: they travel in the other direction, unless the
    // balancer has begun a new flow and has forgotten the old one.
    for flow in 0..FLOWS {
        let is_new = flow % 2 == 0;
        let known = newest[&(1, flow, Direction::Reply)];
        let late = Label {
            cookie: known.cookie ^ u32::from(is_new),
            port: 7,
            ..known
        };
        let answer = appliance.take(
            late,
            &segment(ends(flow, Direction::Reply), ACK, 501, 101, b"late"),
        );
        let back = if is_new {
            late
        } else {
            newest[&(1, flow, Direction::Original)]
        };
        assert_eq!(flags(&sent(&answer, back)), RST);
    }
    let stats = appliance.stats();
    assert_eq!((stats.resets, stats.replied), (4_000, 1_000));
    assert_eq!(stats.tunnel_ends, 4, "two endpoints, two versions");
}

#[test]
fn a_syn_with_another_cookie_is_a_new_session_if_the_policy_admits_it() {
    let mut appliance = Appliance::new(ALLOW);
    let ends = Ends::v4(4000, 80);
    let handshake = [
        (Label::blue(1, 1), segment(ends, SYN, 100, 0, b"")),
        (
            Label::blue(2, 2),
            segment(ends.back(), SYN | ACK, 500, 101, b""),
        ),
        (Label::blue(1, 1), segment(ends, ACK, 101, 501, b"")),
    ];
    for (label, packet) in &handshake {
        assert_eq!(appliance.take(*label, packet), Kept::Return);
    }
    let again = segment(ends, SYN, 9_000_000, 0, b"");
    // With an equal cookie, the ends must resolve the conflict.
    assert_eq!(appliance.take(Label::blue(1, 9), &again), Kept::Return);
    assert_eq!(
        (appliance.told.opened.len(), appliance.told.ended.len()),
        (1, 0)
    );

    let deny = config("[policy]\non_reload = \"keep\"");
    let reloaded = appliance
        .engine
        .reload(&deny, appliance.now, &mut appliance.told);
    assert_eq!(reloaded.unwrap().kept, 1);
    let refused = appliance.take(Label::blue(3, 1), &again);
    assert_eq!(
        refused,
        Kept::Nothing(NotSent::Dropped(DropReason::PolicyDeny))
    );
    assert_eq!(
        (appliance.told.ended.len(), appliance.engine.sessions()),
        (0, 1),
        "what was refused ends nothing"
    );

    let allow = config(ALLOW);
    appliance
        .engine
        .reload(&allow, appliance.now, &mut appliance.told)
        .unwrap();
    assert_eq!(appliance.take(Label::blue(3, 1), &again), Kept::Return);
    assert_eq!(appliance.told.opened.len(), 2);
    let [(ended, reason)] = appliance.told.ended[..] else {
        panic!()
    };
    assert_eq!((ended.state, reason), ("ESTABLISHED", EndReason::Reused));
    // A repetition has the cookie of the new flow.
    assert_eq!(appliance.take(Label::blue(3, 1), &again), Kept::Return);
    assert_eq!(
        (appliance.told.opened.len(), appliance.engine.sessions()),
        (2, 1)
    );
    assert_eq!(
        appliance
            .front
            .describe(appliance.told.opened[1].tunnels[0])
            .unwrap()
            .cookie,
        Some(3)
    );
}

#[test]
fn a_rejected_packet_is_answered_the_way_it_came() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"reject\"");
    let label = Label::blue(7, 60_001);
    for ends in [Ends::v4(4000, 23), Ends::v6(4000, 23)] {
        let answer = appliance.take(label, &segment(ends, SYN, 100, 0, b""));
        assert_eq!(flags(&sent(&answer, label)), RST | ACK);
        let answer = appliance.take(label, &udp(ends, b"question"));
        let inner = sent(&answer, label);
        let Transport::IcmpError(error) = parse(&inner, Checksums::Verify).unwrap().transport
        else {
            panic!()
        };
        assert_eq!(
            (error.icmp_type, error.code),
            if ends.v6 { (1, 1) } else { (3, 13) }
        );
    }
    assert_eq!(appliance.stats().replied, 4);
}

#[test]
fn the_error_about_a_long_packet_takes_the_tunnel_of_the_other_direction() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\ninner_mtu = 1500");
    for ends in [Ends::v4(4000, 53), Ends::v6(4000, 53)] {
        let large = |ends| udp(ends, &[7; 1_500]);
        let way = Label::blue(1, 1);
        assert_eq!(appliance.take(way, &udp(ends, b"x")), Kept::Return);
        let inner = sent(&appliance.take(way, &large(ends)), way);
        assert_eq!(
            parse(&inner, Checksums::Verify).unwrap().ip.destination(),
            parse(&large(ends), Checksums::Verify).unwrap().ip.source()
        );
        let back = Label::blue(2, 2);
        assert_eq!(appliance.take(back, &udp(ends.back(), b"y")), Kept::Return);
        let inner = sent(&appliance.take(way, &large(ends)), back);
        let Transport::IcmpError(error) = parse(&inner, Checksums::Verify).unwrap().transport
        else {
            panic!()
        };
        assert_eq!(
            (error.icmp_type, error.code),
            if ends.v6 { (2, 0) } else { (3, 4) }
        );
    }
    let mut may_be_fragmented = udp(Ends::v4(4000, 53), &[7; 1_500]);
    may_be_fragmented[6] = 0;
    let header_sum = etherparse::Ipv4HeaderSlice::from_slice(&may_be_fragmented)
        .unwrap()
        .to_header()
        .calc_header_checksum();
    may_be_fragmented[10..12].copy_from_slice(&header_sum.to_be_bytes());
    assert_eq!(
        appliance.take(Label::blue(1, 1), &may_be_fragmented),
        Kept::Nothing(NotSent::Refused(Refusal::TooLarge))
    );
    assert_eq!(appliance.stats().told_too_big, 4);
}

#[test]
fn an_mss_is_clamped_in_syns_and_nothing_else_is_touched() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"allow\"\n[geneve]\nmss_clamp = 8400");
    let syn = |mss| {
        let head = Head {
            flags: SYN,
            seq: 1,
            ack: 0,
            window: 9,
        };
        let options = [
            TcpOptionElement::Noop,
            TcpOptionElement::MaximumSegmentSize(mss),
        ];
        tcp(Ends::v4(4000, 80), head, &options, b"")
    };
    let label = Label::blue(1, 1);
    assert_eq!(appliance.take(label, &syn(8_400)), Kept::Return);
    let inner = sent(&appliance.take(label, &syn(8_961)), label);
    assert_eq!(inner, syn(8_400), "checksum included");
    assert_eq!(appliance.stats().rewritten, 1);
}

#[test]
fn endpoints_keep_the_same_addresses_apart() {
    let mut appliance = Appliance::new(
        "[zones]\nblue = 1\ngreen = 2\n[geneve.endpoints]\n\"0xb1\" = \"blue\"\n\
         \"0x00000000000000c2\" = \"green\"\n\
         [[policy.rule]]\nname = \"ping\"\naction = \"allow\"\nprotocol = \"icmp\"\n\
         zones = \"blue\"",
    );
    let green = Label {
        endpoint: GREEN,
        ..Label::blue(1, 1)
    };
    let ping = echo(Ends::v4(7, 7), true);
    assert_eq!(appliance.take(Label::blue(1, 1), &ping), Kept::Return);
    assert_eq!(
        appliance.take(green, &echo(Ends::v4(8, 0), true)),
        Kept::Nothing(NotSent::Dropped(DropReason::PolicyDeny))
    );
    let answer = echo(Ends::v4(7, 7).back(), false);
    assert_eq!(
        appliance.take(green, &answer),
        Kept::Nothing(NotSent::Dropped(DropReason::OtherZone))
    );
    let nobody = Label {
        endpoint: 5,
        ..green
    };
    assert_eq!(
        appliance.take(nobody, &ping),
        Kept::Nothing(NotSent::Refused(Refusal::Endpoint)),
        "some are named: others are refused"
    );
    let stats = appliance.stats();
    let refused = stats
        .endpoints
        .iter()
        .find(|each| each.id == Some(EndpointId(5)));
    assert_eq!(refused.map(|each| (each.received, each.sent)), Some((1, 0)));
}

#[test]
fn forged_endpoints_fill_a_bounded_table_and_leave_the_others_their_share() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[geneve]\nmax_endpoints = 4\nmax_tunnel_ends = 16",
    );
    let ping = echo(Ends::v4(7, 0), true);
    for endpoint in 0..1_000 {
        let label = Label {
            endpoint,
            ..Label::blue(1, 1)
        };
        assert_eq!(appliance.take(label, &ping), Kept::Return);
    }
    let stats = appliance.stats();
    assert_eq!(
        stats.endpoints.len(),
        2,
        "one that nobody has named and that has proven nothing, and all others"
    );
    assert_eq!(stats.endpoints[0].received, 999);
    assert_eq!(
        stats.tunnel_ends, 3,
        "one, and half of a quarter of 16 for all others"
    );
    assert_eq!(stats.tunnel_ends_refused, 997);
    // Without a tunnel endpoint the other direction is unknown: an answer takes the reverse path of
    // the packet.
    let label = Label {
        endpoint: 999,
        ..Label::blue(3, 3)
    };
    let fin = segment(Ends::v4(1, 2), ACK, 5, 5, b"");
    assert_eq!(
        appliance.take(label, &fin),
        Kept::Nothing(NotSent::Dropped(DropReason::TcpNoSession))
    );
}

#[test]
fn a_reload_holds_from_the_next_datagram_on() {
    let mut appliance = Appliance::new(ALLOW);
    let ping = echo(Ends::v4(7, 0), true);
    assert_eq!(appliance.take(Label::blue(1, 1), &ping), Kept::Return);
    let narrower = config("[policy]\ndefault = \"allow\"\n[geneve]\nsources = \"10.1.0.9\"");
    appliance.front.reload(&narrower).unwrap();
    assert_eq!(
        appliance.take(Label::blue(1, 1), &ping),
        Kept::Nothing(NotSent::Refused(Refusal::Source))
    );
    let refused = config("[policy]\ndefault = \"allow\"\n[geneve]\nunknown_endpoints = \"refuse\"");
    appliance.front.reload(&refused).unwrap();
    assert_eq!(
        appliance.take(Label::blue(1, 1), &ping),
        Kept::Nothing(NotSent::Refused(Refusal::Endpoint))
    );
    let other = config("[geneve]\nmax_endpoints = 5");
    assert_eq!(
        appliance.front.reload(&other).unwrap_err().to_string(),
        "t.toml:2: geneve.max_endpoints: only a start can change this"
    );
    appliance.front.reload(&config(ALLOW)).unwrap();
    assert_eq!(appliance.take(Label::blue(1, 1), &ping), Kept::Return);
}

#[test]
fn threads_count_for_themselves_and_what_they_counted_stays() {
    let appliance = Appliance::new(ALLOW);
    let ping = Label::blue(1, 1).around(&echo(Ends::v4(7, 0), true));
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut scratch = Scratch::new(&appliance.front);
                    for _ in 0..1_000 {
                        let datagram = datagram(1, &ping);
                        let answer = appliance.front.handle(
                            &appliance.engine,
                            &datagram,
                            appliance.now,
                            &mut scratch,
                            &mut Discard,
                        );
                        assert_eq!(answer, Answer::Return);
                    }
                });
            }
        });
    }
    let stats = appliance.stats();
    assert_eq!((stats.received, stats.returned), (12_000, 12_000));
}

#[test]
fn every_refusal_has_a_datagram_that_shows_it() {
    let mut appliance = Appliance::new(
        "[policy]\ndefault = \"allow\"\n[zones]\nblue = 1\n[geneve]\ninner_mtu = 1280\n\
         required = [\"endpoint\", \"attachment\", \"cookie\"]\n[geneve.endpoints]\n\
         \"0xb1\" = \"blue\"",
    );
    let ping = echo(Ends::v4(7, 0), true);
    let good = Label::blue(1, 1).around(&ping);
    let changed = |at: usize, value: u8| {
        let mut datagram = good.clone();
        datagram[at] = value;
        datagram
    };
    let with = |options: &[(u8, usize)]| {
        let data = [0; 8];
        let options: Vec<_> = options
            .iter()
            .map(|(kind, len)| TunnelOption {
                class: 0x0108,
                kind: *kind,
                data: &data[..*len],
            })
            .collect();
        let mut out = vec![0; 264];
        let len = encode(InnerProtocol::Ipv4, 0, &options, &mut out).unwrap();
        out.truncate(len);
        out.extend(&ping);
        out
    };
    let mut large = udp(Ends::v4(1, 2), &[0; 1_400]);
    large[6] = 0;
    let large = sealed(large);
    let shown = [
        (
            good[..7].to_vec(),
            Refusal::Geneve(GeneveError::HeaderTruncated),
        ),
        (changed(0, 0x48), Refusal::Geneve(GeneveError::Version)),
        (
            good[..30].to_vec(),
            Refusal::Geneve(GeneveError::OptionsTruncated),
        ),
        (
            changed(11, 0x1f),
            Refusal::Geneve(GeneveError::OptionLength),
        ),
        (changed(1, 0x80), Refusal::Geneve(GeneveError::Control)),
        (
            changed(10, 0x81),
            Refusal::Geneve(GeneveError::CriticalOption),
        ),
        (changed(1, 0x40), Refusal::Geneve(GeneveError::CriticalBit)),
        (
            changed(3, 0x06),
            Refusal::Geneve(GeneveError::ProtocolUnknown),
        ),
        (
            good[..40].to_vec(),
            Refusal::Geneve(GeneveError::InnerEmpty),
        ),
        (
            changed(40, 0x65),
            Refusal::Geneve(GeneveError::InnerVersion),
        ),
        (
            with(&[(1, 8), (1, 8)]),
            Refusal::Metadata(MetadataError::EndpointDuplicate),
        ),
        (
            with(&[(1, 4)]),
            Refusal::Metadata(MetadataError::EndpointLength),
        ),
        (
            with(&[(2, 8)]),
            Refusal::Metadata(MetadataError::EndpointMissing),
        ),
        (
            with(&[(2, 8), (2, 8)]),
            Refusal::Metadata(MetadataError::AttachmentDuplicate),
        ),
        (
            with(&[(2, 0)]),
            Refusal::Metadata(MetadataError::AttachmentLength),
        ),
        (
            with(&[(1, 8)]),
            Refusal::Metadata(MetadataError::AttachmentMissing),
        ),
        (
            with(&[(3, 4), (3, 4)]),
            Refusal::Metadata(MetadataError::CookieDuplicate),
        ),
        (
            with(&[(3, 8)]),
            Refusal::Metadata(MetadataError::CookieLength),
        ),
        (
            with(&[(1, 8), (2, 8)]),
            Refusal::Metadata(MetadataError::CookieMissing),
        ),
        (changed(19, 0xb2), Refusal::Endpoint),
        (
            [&[0, 0, 0x65, 0x58, 0, 0, 0, 0], &[0; 20][..]].concat(),
            Refusal::Ethernet,
        ),
        (Label::blue(1, 1).around(&large), Refusal::TooLarge),
    ];
    // Known or unknown, earlier packets prove nothing.
    for _ in 0..2 {
        for (payload, refusal) in &shown {
            let answer = appliance.handle(&datagram(1, payload));
            assert_eq!(answer, Kept::Nothing(NotSent::Refused(*refusal)));
            assert_eq!(appliance.handle(&datagram(1, &good)), Kept::Return);
        }
    }
    let stranger = Datagram {
        source: [192, 0, 2, 1].into(),
        ..datagram(1, &good)
    };
    assert_eq!(
        appliance.handle(&stranger),
        Kept::Nothing(NotSent::Refused(Refusal::Source))
    );
    let ourselves = Datagram {
        source: OURS,
        ..datagram(1, &good)
    };
    assert_eq!(
        appliance.handle(&ourselves),
        Kept::Nothing(NotSent::Refused(Refusal::OwnSource))
    );
    let nowhere = Datagram {
        destination: [0; 4].into(),
        ..datagram(1, &good)
    };
    assert_eq!(
        appliance.handle(&nowhere),
        Kept::Nothing(NotSent::Refused(Refusal::NoDestination))
    );
    let stats = appliance.stats();
    for refusal in Refusal::all() {
        let count = match refusal {
            Refusal::Source | Refusal::OwnSource | Refusal::NoDestination => 1,
            // The reason needs a queue: see `tests/it/overload.rs`.
            Refusal::QueueDelay => 0,
            _ => 2,
        };
        assert_eq!(stats.refused_by(refusal), count, "{refusal:?}");
    }
}

#[test]
fn unknown_options_go_back_with_the_header_in_answers_too() {
    let mut appliance = Appliance::new("[policy]\ndefault = \"reject\"");
    let options = [
        (0x0108u16, 3u8, vec![9; 4]),
        (0xfff0, 5, vec![1; 40]),
        (0x0108, 1, vec![2; 8]),
    ];
    let options: Vec<_> = options
        .iter()
        .map(|(class, kind, data)| TunnelOption {
            class: *class,
            kind: *kind,
            data,
        })
        .collect();
    let mut header = vec![0; 8 + 8 + 44 + 12];
    encode(InnerProtocol::Ipv4, 0x12_3456, &options, &mut header).unwrap();
    let syn = segment(Ends::v4(4000, 23), SYN, 100, 0, b"");
    let payload = [&header[..], &syn].concat();
    for _ in 0..2 {
        let Kept::Send(_, answer) = appliance.handle(&datagram(5, &payload)) else {
            panic!()
        };
        assert_eq!(answer[..header.len()], header);
        assert_eq!(flags(&answer[header.len()..]), RST | ACK);
    }
}

proptest! {
    #![proptest_config(crate::support::proptest_config())]

    #[test]
    fn any_datagram_has_one_outcome_and_an_answer_that_is_well_formed(
        datagrams in prop::collection::vec(
            (
                any::<bool>(),
                any::<u8>(),
                any::<u32>(),
                any::<u16>(),
                prop::collection::vec(any::<u8>(), 0..120),
            ),
            1..40,
        ),
        mtu in 1280u32..1400, clamp in prop_oneof![Just(0u32), 64..2000u32],
    ) {
        let mut appliance = Appliance::new(&format!(
            "[policy]\ndefault = \"reject\"\n[geneve]\ninner_mtu = {mtu}\nmss_clamp = {clamp}\n\
             max_tunnel_ends = 8"
        ));
        for (whole, endpoint, cookie, port, bytes) in &datagrams {
            let label = Label { endpoint: u64::from(*endpoint), cookie: *cookie, port: *port };
            let payload = if *whole {
                let ends = Ends { src: bytes.len() as u8 | 1, ..Ends::v4(*port, 80) };
                let flags = bytes.first().copied().unwrap_or(SYN);
                label.around(&segment(ends, flags, *cookie, 1, bytes))
            } else {
                bytes.clone()
            };
            match appliance.handle(&datagram(*port, &payload)) {
                Kept::Send(tunnel, sent) => {
                    prop_assert_eq!((tunnel.source, tunnel.destination), (OURS, BALANCER));
                    let (_, inner) = Header::parse(&sent, |_, _| false).unwrap();
                    prop_assert!(parse(inner.bytes, Checksums::Verify).is_ok());
                }
                Kept::Return | Kept::Nothing(_) => {}
            }
        }
        let stats = appliance.stats();
        prop_assert_eq!(stats.received, datagrams.len() as u64);
        prop_assert!(stats.tunnel_ends <= 8);
    }

    #[test]
    fn headers_follow_their_packets_in_any_order(
        steps in prop::collection::vec(
            (0u16..4, any::<bool>(), any::<bool>(), 1u16.., any::<u32>()),
            1..80,
        ),
    ) {
        // The model: the newest label of each flow and direction, which a rejected late packet
        // needs.
        let mut appliance = Appliance::new(ALLOW);
        let mut newest: HashMap<(u16, bool), Label> = HashMap::new();
        for flow in 0..4 {
            let ends = Ends::v4(1_000 + flow, 80);
            let own = Label::blue(u32::from(flow), 1);
            for (packet, reply) in [
                (segment(ends, SYN, 100, 0, b""), false),
                (segment(ends.back(), SYN | ACK, 500, 101, b""), true),
                (segment(ends, ACK, 101, 501, b""), false),
            ] {
                prop_assert_eq!(appliance.take(own, &packet), Kept::Return);
                newest.insert((flow, reply), own);
            }
        }
        for (flow, reply, valid, port, cookie) in steps {
            let ends = Ends::v4(1_000 + flow, 80);
            let own = Label::blue(cookie, port);
            let (ends, seq, ack) = if reply { (ends.back(), 501, 101) } else { (ends, 101, 501) };
            // Invalid packets change nothing.
            let seq = if valid { seq } else { seq + 1_000_000_000 };
            let answer = appliance.take(own, &segment(ends, ACK, seq, ack, b""));
            if valid {
                prop_assert_eq!(answer, Kept::Return);
                newest.insert((flow, reply), own);
            } else {
                prop_assert!(matches!(answer, Kept::Nothing(_)), "{:?}", answer);
            }
        }
        appliance.now += Duration::from_secs(4_000);
        while appliance.engine.expire_with(appliance.now, 16, &mut appliance.told).more {}
        let resets = std::mem::take(&mut appliance.told.resets);
        prop_assert_eq!(resets.len(), 8);
        for reset in &resets {
            let scratch = &mut appliance.scratch;
            let Outgoing { tunnel, payload } = appliance.front.reset(reset, scratch).unwrap();
            let reply = reset.direction == Direction::Reply;
            let parsed = parse(reset.bytes(), Checksums::Verify).unwrap();
            let Transport::Tcp { src_port, dst_port, .. } = parsed.transport else { panic!() };
            let flow = if reply { dst_port } else { src_port } - 1_000;
            let kept = Kept::Send(tunnel, payload.to_vec());
            prop_assert_eq!(sent(&kept, newest[&(flow, reply)]), reset.bytes());
        }
    }
}
