//! Shed load: packets that waited too long open no session, and packets of sessions pass as usual.

use crate::support::packets::{ACK, Ends, SYN, echo, icmp, udp, unreachable};
use crate::support::scene::{Scene, segment};
use crate::support::tunnel::{ALLOW, Appliance, Kept, Label, datagram};
use etherparse::Ipv4HeaderSlice;
use portcullis::geneve::front::{NotSent, Queued, Refusal, Waited};
use portcullis::{Class, Discard, DropReason, Packet, Verdict};

const V4: Ends = Ends::v4(4000, 80);

/// Decides a packet as one that must not open a session.
fn shed(scene: &Scene, bytes: &[u8]) -> Verdict {
    scene
        .engine
        .verdict_only(Packet::new(bytes, scene.now).sheddable(true))
}

/// A fragment of an IPv4 packet: its payload from `start` to `end`.
fn fragment(whole: &[u8], start: usize, end: usize) -> Vec<u8> {
    let (header, payload) = whole.split_at(20);
    let mut part = [header, &payload[start..end]].concat();
    let more = u16::from(end < payload.len()) << 13;
    let len = part.len() as u16;
    part[2..4].copy_from_slice(&len.to_be_bytes());
    part[6..8].copy_from_slice(&(more | (start / 8) as u16).to_be_bytes());
    let sum = Ipv4HeaderSlice::from_slice(&part)
        .unwrap()
        .to_header()
        .calc_header_checksum();
    part[10..12].copy_from_slice(&sum.to_be_bytes());
    part
}

#[test]
fn a_shed_packet_that_would_open_a_session_is_dropped() {
    let scene = Scene::new("");
    for packet in [
        udp(V4, b"question"),
        udp(Ends::v6(4000, 53), b"question"),
        echo(V4, true),
        fragment(&udp(V4, &[1; 64]), 0, 32),
    ] {
        let verdict = shed(&scene, &packet);
        assert_eq!(verdict.reason(), Some(DropReason::Overload), "{verdict:?}");
        assert_eq!(verdict.tracked().class, Class::New);
    }
    assert_eq!(scene.engine.sessions(), 0);
    assert_eq!(scene.engine.stats().dropped_by(DropReason::Overload), 4);
    // The policy was not evaluated, so its decision does not matter.
    let denies = Scene::new("policy.default = \"reject\"");
    assert_eq!(
        shed(&denies, &udp(V4, b"question")).reason(),
        Some(DropReason::Overload)
    );
    assert!(
        scene.decide(&udp(V4, b"question")).is_forward(),
        "it may come again"
    );
}

#[test]
fn a_syn_passes_unless_syns_may_be_the_flood() {
    let syn = segment(V4, SYN, 100, 0, b"");
    for (mode, passes) in [("auto", true), ("always", false), ("off", false)] {
        let scene = Scene::new(&format!("[syn_challenge]\nmode = \"{mode}\""));
        let verdict = shed(&scene, &syn);
        assert_eq!(verdict.is_forward(), passes, "{mode}");
        let reason = (!passes).then_some(DropReason::Overload);
        assert_eq!(verdict.reason(), reason, "{mode}");
    }
    // A tenth of this table is half-open from here on, which is a flood.
    let scene = Scene::new("[table]\nmax_sessions = 640");
    for port in 0..64 {
        let ends = Ends::v4(5_000 + port, 80);
        assert!(shed(&scene, &segment(ends, SYN, 1, 0, b"")).is_forward());
    }
    assert_eq!(shed(&scene, &syn).reason(), Some(DropReason::Overload));
}

#[test]
fn packets_of_a_session_pass_both_ways_under_overload() {
    let scene = Scene::new("");
    scene.handshake(V4);
    let ends = Ends::v4(4001, 53);
    assert!(scene.decide(&udp(ends, &[1; 64])).is_forward());
    for packet in [
        segment(V4, ACK, 101, 501, b"data"),
        segment(V4.back(), ACK, 501, 105, b"data"),
        udp(ends.back(), b"answer"),
        // An error about a session, and a fragmented datagram of one.
        unreachable(false, 1, &udp(ends, &[1; 64])),
        fragment(&udp(ends, &[1; 64]), 0, 32),
        fragment(&udp(ends, &[1; 64]), 32, 72),
    ] {
        let verdict = shed(&scene, &packet);
        assert!(verdict.is_forward(), "{verdict:?}");
    }
    // The second half of a handshake belongs to the session that the first half opened.
    let ends = Ends::v4(4002, 80);
    assert!(scene.decide(&segment(ends, SYN, 100, 0, b"")).is_forward());
    assert!(shed(&scene, &segment(ends.back(), SYN | ACK, 500, 101, b"")).is_forward());
    assert!(shed(&scene, &segment(ends, ACK, 101, 501, b"")).is_forward());
}

#[test]
fn packets_that_open_nothing_are_dropped_by_their_own_name() {
    let scene = Scene::new("");
    for (packet, reason) in [
        (segment(V4, ACK, 100, 1, b"data"), DropReason::TcpNoSession),
        (
            unreachable(false, 1, &udp(V4, b"question")),
            DropReason::IcmpErrorNoSession,
        ),
        (
            icmp(V4, 5, [0; 4], &udp(V4, b"question")),
            DropReason::IcmpRedirect,
        ),
        (
            fragment(&udp(V4, &[1; 64]), 32, 72),
            DropReason::FragmentBeforeFirst,
        ),
    ] {
        assert_eq!(shed(&scene, &packet).reason(), Some(reason));
    }
}

#[test]
fn announced_sessions_pass_under_overload() {
    const CONTROL: Ends = Ends::v4(4000, 21);
    const ENTERING: &[u8] = b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n";
    let scene = Scene::new("");
    scene.handshake(CONTROL);
    for packet in [
        segment(CONTROL.back(), ACK, 501, 101, b"220 ready\r\n"),
        segment(CONTROL, ACK, 101, 512, b"PASV\r\n"),
        segment(CONTROL.back(), ACK, 512, 107, ENTERING),
    ] {
        assert!(scene.decide(&packet).is_forward());
    }
    let data = segment(Ends::v4(4003, 195 << 8 | 80), SYN, 100, 0, b"");
    let verdict = shed(&scene, &data);
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().class, Class::Related);
}

#[test]
fn a_batch_is_shed_by_how_long_each_datagram_waited_and_keeps_its_order() {
    let mut appliance = Appliance::new(ALLOW);
    let flow = |number: u16| Ends::v4(10_000 + number, 53);
    let label = |number: u16| Label::blue(number.into(), 50_000 + number);
    for number in 0..4 {
        let inner = udp(flow(number), b"question");
        assert_eq!(appliance.take(label(number), &inner), Kept::Return);
    }
    let wanted = |number: u16, waited| match waited {
        Waited::Briefly => Kept::Return,
        Waited::Long if number < 4 => Kept::Return,
        Waited::Long => Kept::Nothing(NotSent::Dropped(DropReason::Overload)),
        Waited::TooLong => Kept::Nothing(NotSent::Refused(Refusal::QueueDelay)),
    };
    // Batch sizes above and below the minimum for joint decisions, and one.
    for count in [40, 3, 1] {
        let payloads: Vec<_> = (0..count)
            .map(|place: u16| {
                let waited = match place % 4 {
                    0 => Waited::TooLong,
                    3 => Waited::Briefly,
                    _ => Waited::Long,
                };
                // Flows 0 to 3 are known, those from 100 on are not, and open where they waited
                // briefly.
                let number = if place.is_multiple_of(3) {
                    place % 4
                } else {
                    100 + count + place
                };
                (
                    number,
                    waited,
                    label(number).around(&udp(flow(number), b"more")),
                )
            })
            .collect();
        let queued = payloads.iter().map(|(number, waited, payload)| Queued {
            datagram: datagram(50_000 + number, payload),
            waited: *waited,
        });
        let mut answers = vec![None; payloads.len()];
        let mut decided = Vec::new();
        appliance.front.handle_queued_batch(
            &appliance.engine,
            queued,
            appliance.now,
            &mut appliance.scratch,
            &mut Discard,
            |place, datagram, decision, _| {
                assert_eq!(datagram.payload, payloads[place].2);
                let kept = Kept::of(decision.answer);
                if kept != Kept::Nothing(NotSent::Refused(Refusal::QueueDelay)) {
                    decided.push(place);
                }
                assert_eq!(answers[place].replace(kept), None, "one answer for each");
            },
        );
        assert!(decided.is_sorted(), "{decided:?}");
        for ((number, waited, _), answer) in payloads.iter().zip(&answers) {
            assert_eq!(
                *answer,
                Some(wanted(*number, *waited)),
                "{number} {waited:?}"
            );
        }
    }
    // Each packet has one outcome, which `stats` checks.
    let stats = appliance.stats();
    assert_eq!(stats.received, 4 + 40 + 3 + 1);
    assert_eq!(stats.refused_by(Refusal::QueueDelay), 12);
    let shed = appliance.engine.stats().dropped_by(DropReason::Overload);
    assert_eq!(shed, stats.dropped);
    appliance.engine.check_invariants().unwrap();
}
