//! SCTP associations with several addresses at each end (RFC 9260 5.4, 6.4; RFC 5061).

use crate::support::packets::{
    Ends, address4, address6, chunk, init, init_with, sctp, unreachable,
};
use crate::support::scene::{Scene, dropped_for};
use portcullis::{Class, Direction, Discard, DropReason, Packet, Zone};

/// Host 1 may open any session, and no other host may open one.
const OUT: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"out\"\n\
                   action = \"allow\"\nsource = \"10.0.0.1\"\n";

/// The tags chosen by the initiator and the responder: each is in the other end's packets.
const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0001;

/// The first path, from host 1 to host 2, and others: hosts 11 and 21 are at the end of host 1,
/// hosts 12 and 22 at that of host 2.
const FIRST: Ends = Ends::v4(36412, 36412);
const SECOND: Ends = path(11, 12);

const fn path(src: u8, dst: u8) -> Ends {
    Ends { src, dst, ..FIRST }
}

const DATA: u8 = 0;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COMPLETE: u8 = 14;
const ASCONF: u8 = 0xc1;
const ASCONF_ACK: u8 = 0x80;

/// A packet with one chunk.
fn one(ends: Ends, tag: u32, kind: u8) -> Vec<u8> {
    sctp(
        ends,
        tag,
        &chunk(kind, if kind == DATA { 3 } else { 0 }, &[0; 16]),
    )
}

/// A line of a story: a packet, and the reason for its drop, if any.
type Line<'a> = (Ends, u32, u8, Option<DropReason>);

#[track_caller]
fn tell(scene: &Scene, story: &[Line<'_>]) {
    for (line, (ends, tag, kind, reason)) in story.iter().enumerate() {
        let verdict = scene.decide(&one(*ends, *tag, *kind));
        assert_eq!(verdict.reason(), *reason, "line {line}: {verdict:?}");
        scene.engine.check_invariants().unwrap();
    }
}

/// An established association whose ends have announced these parameters.
fn association(scene: &Scene, of_a: &[u8], of_b: &[u8]) {
    for packet in [
        sctp(FIRST, 0, &init_with(1, A, of_a)),
        sctp(FIRST.back(), A, &init_with(2, B, of_b)),
        sctp(FIRST, B, &chunk(10, 0, &[7; 8])),
        sctp(FIRST.back(), A, &chunk(11, 0, &[])),
    ] {
        let verdict = scene.decide(&packet);
        assert!(verdict.is_forward(), "{verdict:?}");
    }
}

/// An association of hosts 1, 11 and 21 with hosts 2, 12 and 22.
fn multihomed() -> Scene {
    let scene = Scene::new(OUT);
    let all = |own: u8| [address4(own), address4(own + 10), address4(own + 20)].concat();
    association(&scene, &all(1), &all(2));
    scene
}

const NO_SESSION: Option<DropReason> = Some(DropReason::SctpNoSession);

#[test]
fn heartbeats_and_data_pass_between_all_announced_addresses_in_the_session_of_the_association() {
    let scene = multihomed();
    for ends in [SECOND, path(21, 22), path(1, 12), path(11, 2), path(21, 12)] {
        tell(
            &scene,
            &[
                (ends, B, HEARTBEAT, None),
                (ends.back(), A, HEARTBEAT_ACK, None),
                (ends.back(), A, HEARTBEAT, None),
                (ends, B, HEARTBEAT_ACK, None),
                (ends, B, DATA, None),
                (ends.back(), A, 3, None),
            ],
        );
    }
    let record = scene.record();
    assert_eq!((record.original.packets, record.reply.packets), (17, 17));
    assert_eq!(record.state, "ESTABLISHED");
    let verdict = scene.decide(&one(SECOND.back(), A, DATA));
    let tracked = verdict.tracked();
    assert_eq!(
        (tracked.class, tracked.direction, tracked.session),
        (Class::Established, Some(Direction::Reply), Some(record.id))
    );
}

#[test]
fn nobody_else_gets_in_by_an_announced_address() {
    let scene = multihomed();
    tell(
        &scene,
        &[
            // No tag, a wrong tag, and that of the other direction.
            (SECOND, 1, HEARTBEAT, NO_SESSION),
            (SECOND, A, HEARTBEAT, NO_SESSION),
            (SECOND.back(), B, HEARTBEAT, NO_SESSION),
            // An address that was not announced, one of the other end, and another port.
            (path(13, 12), B, HEARTBEAT, NO_SESSION),
            (path(11, 13), B, DATA, NO_SESSION),
            (path(12, 11), B, DATA, NO_SESSION),
            (path(11, 21), B, DATA, NO_SESSION),
            (
                Ends {
                    src_port: 1,
                    ..SECOND
                },
                B,
                DATA,
                NO_SESSION,
            ),
            (
                Ends {
                    dst_port: 1,
                    ..SECOND
                },
                B,
                DATA,
                NO_SESSION,
            ),
        ],
    );
    // An announced address opens nothing new, and nothing in another zone.
    let opening = sctp(SECOND, 0, &init(1, A));
    dropped_for(&scene.decide(&opening), DropReason::PolicyDeny);
    let data = one(SECOND, B, DATA);
    let elsewhere = Packet::new(&data, scene.now).zone(Zone(7));
    dropped_for(
        &scene.engine.verdict_only(elsewhere),
        DropReason::SctpNoSession,
    );
    assert_eq!(scene.record().original.packets, 2);
}

#[test]
fn one_end_may_have_several_addresses_and_the_other_one() {
    for (of_a, of_b, good, bad) in [
        (vec![], address4(12), path(1, 12), path(11, 2)),
        (address4(11), vec![], path(11, 2), path(1, 12)),
    ] {
        let scene = Scene::new(OUT);
        association(&scene, &of_a, &of_b);
        tell(
            &scene,
            &[
                (good, B, HEARTBEAT, None),
                (good.back(), A, HEARTBEAT_ACK, None),
                (bad, B, HEARTBEAT, NO_SESSION),
            ],
        );
    }
}

#[test]
fn a_path_may_be_of_the_other_version_of_ip() {
    let scene = Scene::new(OUT);
    association(&scene, &address6(11), &address6(12));
    let ends = Ends { v6: true, ..SECOND };
    tell(
        &scene,
        &[
            (ends, B, HEARTBEAT, None),
            (ends.back(), A, HEARTBEAT_ACK, None),
            (SECOND, B, HEARTBEAT, NO_SESSION),
        ],
    );
}

#[test]
fn nothing_passes_on_another_path_before_the_cookie() {
    let scene = Scene::new(OUT);
    let opening = sctp(FIRST, 0, &init_with(1, A, &address4(11)));
    assert!(scene.decide(&opening).is_forward());
    tell(&scene, &[(path(11, 2), B, HEARTBEAT, NO_SESSION)]);
    let answer = sctp(FIRST.back(), A, &init_with(2, B, &address4(12)));
    assert!(scene.decide(&answer).is_forward());
    tell(&scene, &[(SECOND, B, DATA, Some(DropReason::SctpState))]);
}

#[test]
fn an_init_ack_with_a_wrong_tag_announces_nothing() {
    let scene = Scene::new(OUT);
    let opening = sctp(FIRST, 0, &init_with(1, A, &address4(11)));
    assert!(scene.decide(&opening).is_forward());
    let forged = sctp(FIRST.back(), A + 1, &init_with(2, B, &address4(66)));
    dropped_for(&scene.decide(&forged), DropReason::SctpTag);
    association(&scene, &[], &[]);
    tell(
        &scene,
        &[
            (path(1, 66), B, HEARTBEAT, NO_SESSION),
            (path(11, 2), B, HEARTBEAT, None),
        ],
    );
}

#[test]
fn an_association_may_end_on_any_of_its_paths() {
    let third = path(21, 22);
    for (story, state) in [
        (vec![(SECOND, B, SHUTDOWN, None)], "SHUTDOWN_SENT"),
        (
            vec![
                (SECOND, B, SHUTDOWN, None),
                (FIRST.back(), A, SHUTDOWN_ACK, None),
                (third, B, COMPLETE, None),
            ],
            "CLOSED",
        ),
        (vec![(SECOND.back(), A, ABORT, None)], "CLOSED"),
        (
            vec![(SECOND.back(), A + 1, ABORT, NO_SESSION)],
            "ESTABLISHED",
        ),
    ] {
        let scene = multihomed();
        tell(&scene, &story);
        assert_eq!(scene.record().state, state, "{story:?}");
    }
    // The flag T: the tag is that of the other direction (RFC 9260 8.5.1).
    for (tag, reason) in [(A, NO_SESSION), (B, None)] {
        let scene = multihomed();
        let reflected = sctp(SECOND.back(), tag, &chunk(ABORT, 1, &[]));
        assert_eq!(scene.decide(&reflected).reason(), reason);
    }
}

#[test]
fn traffic_on_another_path_keeps_the_association_and_nothing_outlives_it() {
    let mut scene = multihomed();
    for _ in 0..5 {
        scene.wait(100);
        tell(&scene, &[(SECOND, B, HEARTBEAT, None)]);
    }
    assert_eq!(scene.wait(111).ended.len(), 1);
    tell(&scene, &[(SECOND, B, HEARTBEAT, NO_SESSION)]);
    // An expired address is unknown, whether or not it was removed.
    let mut scene = multihomed();
    scene.now += std::time::Duration::from_secs(200);
    tell(&scene, &[(SECOND, B, HEARTBEAT, NO_SESSION)]);
}

#[test]
fn a_restart_brings_the_tags_of_its_paths_with_it() {
    let scene = multihomed();
    let (a, b) = (A + 9, B + 9);
    for packet in [
        sctp(FIRST, 0, &init_with(1, a, &address4(11))),
        sctp(FIRST.back(), a, &init_with(2, b, &address4(12))),
    ] {
        assert!(scene.decide(&packet).is_forward());
    }
    tell(
        &scene,
        &[
            (SECOND, b, HEARTBEAT, NO_SESSION),
            (SECOND, B, HEARTBEAT, None),
        ],
    );
    for packet in [
        sctp(FIRST, b, &chunk(10, 0, &[7; 8])),
        sctp(FIRST.back(), a, &chunk(11, 0, &[])),
    ] {
        assert!(scene.decide(&packet).is_forward());
    }
    tell(
        &scene,
        &[
            (SECOND, B, HEARTBEAT, NO_SESSION),
            (SECOND, b, HEARTBEAT, None),
        ],
    );
}

/// Sends packets that all pass.
#[track_caller]
fn passes(scene: &Scene, packets: &[Vec<u8>]) {
    for (n, packet) in packets.iter().enumerate() {
        let verdict = scene.decide(packet);
        assert!(verdict.is_forward(), "packet {n}: {verdict:?}");
        scene.engine.check_invariants().unwrap();
    }
}

#[test]
fn a_forged_init_before_the_genuine_one_adds_and_removes_no_address() {
    let scene = Scene::new(OUT);
    let forged = sctp(FIRST, 0, &init_with(1, 0x6666, &address4(66)));
    passes(&scene, &[forged]);
    association(&scene, &address4(11), &address4(12));
    tell(
        &scene,
        &[
            (SECOND, B, HEARTBEAT, None),
            (SECOND.back(), A, HEARTBEAT_ACK, None),
            (path(66, 2), B, HEARTBEAT, NO_SESSION),
            (path(66, 12), B, DATA, NO_SESSION),
        ],
    );
}

#[test]
fn forged_inits_beside_an_association_that_is_up_add_and_remove_no_address() {
    for forger in [FIRST, FIRST.back()] {
        let scene = multihomed();
        for tag in 0x6666..0x6670 {
            let forged = sctp(forger, 0, &init_with(1, tag, &address4(66)));
            let abort = sctp(forger.back(), tag, &chunk(ABORT, 0, &[]));
            passes(&scene, &[forged, abort]);
        }
        tell(
            &scene,
            &[
                (SECOND, B, HEARTBEAT, None),
                (path(21, 22).back(), A, DATA, None),
                (path(66, 2), B, HEARTBEAT, NO_SESSION),
                (path(66, 1), A, HEARTBEAT, NO_SESSION),
            ],
        );
    }
}

#[test]
fn a_restart_brings_the_addresses_of_its_ends_with_it() {
    let scene = multihomed();
    let (a, b) = (A + 9, B + 9);
    passes(
        &scene,
        &[
            sctp(FIRST, 0, &init_with(1, a, &address4(31))),
            sctp(FIRST.back(), a, &init_with(2, b, &address4(32))),
            sctp(FIRST, b, &chunk(10, 0, &[7; 8])),
        ],
    );
    let (old, new) = (SECOND, path(31, 32));
    tell(
        &scene,
        &[
            (old, B, HEARTBEAT, None),
            (path(31, 2), B, HEARTBEAT, NO_SESSION),
        ],
    );
    passes(&scene, &[sctp(FIRST.back(), a, &chunk(11, 0, &[]))]);
    tell(
        &scene,
        &[
            (new, b, HEARTBEAT, None),
            (new.back(), a, HEARTBEAT_ACK, None),
            (old, b, HEARTBEAT, NO_SESSION),
            (path(11, 2), b, HEARTBEAT, NO_SESSION),
        ],
    );
}

#[test]
fn two_inits_that_collide_announce_the_addresses_of_both_ends() {
    let scene = Scene::new(OUT);
    passes(
        &scene,
        &[
            sctp(FIRST, 0, &init_with(1, A, &address4(11))),
            sctp(FIRST.back(), 0, &init_with(1, B, &address4(12))),
            sctp(FIRST, B, &init_with(2, A, &address4(11))),
            sctp(FIRST.back(), A, &init_with(2, B, &address4(12))),
            sctp(FIRST, B, &chunk(10, 0, &[7; 8])),
            sctp(FIRST.back(), A, &chunk(10, 0, &[7; 8])),
            sctp(FIRST, B, &chunk(11, 0, &[])),
            sctp(FIRST.back(), A, &chunk(11, 0, &[])),
        ],
    );
    tell(
        &scene,
        &[
            (SECOND, B, HEARTBEAT, None),
            (SECOND.back(), A, HEARTBEAT_ACK, None),
            (path(13, 12), B, HEARTBEAT, NO_SESSION),
        ],
    );
}

#[test]
fn a_closed_session_of_its_own_addresses_does_not_hide_a_path() {
    let scene = Scene::new("");
    let own = sctp(SECOND, 0, &init(1, 7));
    assert!(scene.decide(&own).is_forward());
    association(&scene, &address4(11), &address4(12));
    tell(
        &scene,
        &[
            (SECOND, B, HEARTBEAT, None),
            (SECOND, 9, HEARTBEAT, Some(DropReason::SctpState)),
        ],
    );
}

#[test]
fn an_icmp_error_about_a_packet_of_another_path_is_related() {
    let scene = multihomed();
    let about = |tag| unreachable(false, SECOND.src, &one(SECOND, tag, DATA)[..28]);
    let verdict = scene.decide(&about(B));
    let tracked = verdict.tracked();
    assert_eq!(
        (tracked.class, tracked.direction, tracked.session),
        (
            Class::Related,
            Some(Direction::Reply),
            Some(scene.record().id)
        )
    );
    dropped_for(&scene.decide(&about(B + 1)), DropReason::IcmpErrorNoSession);
    let to_another = unreachable(false, 1, &one(SECOND, B, DATA)[..28]);
    dropped_for(&scene.decide(&to_another), DropReason::IcmpErrorNotToSender);
}

/// Returns a packet with an ASCONF of one request, after an AUTH chunk or without one.
fn asconf(ends: Ends, tag: u32, has_auth: bool, kind: u16, address: &[u8]) -> Vec<u8> {
    let [k0, k1] = kind.to_be_bytes();
    let len = 8 + address.len() as u8;
    let request = [&[k0, k1, 0, len, 0, 0, 0, 1][..], address].concat();
    let body = [&[0, 0, 0, 5][..], &address4(ends.src), &request].concat();
    let auth = if has_auth {
        chunk(15, 0, &[0; 24])
    } else {
        Vec::new()
    };
    sctp(ends, tag, &[auth, chunk(ASCONF, 0, &body)].concat())
}

/// Returns a packet with the ASCONF ACK that answers a request.
fn asconf_ack(ends: Ends, tag: u32, refuses: bool) -> Vec<u8> {
    let refusal: &[u8] = if refuses {
        &[0xc0, 3, 0, 8, 0, 0, 0, 1]
    } else {
        &[]
    };
    let body = [&[0, 0, 0, 5][..], refusal].concat();
    let chunks = [chunk(15, 0, &[0; 24]), chunk(ASCONF_ACK, 0, &body)].concat();
    sctp(ends, tag, &chunks)
}

const ADD: u16 = 0xc001;
const DELETE: u16 = 0xc002;

#[test]
fn an_address_that_asconf_adds_counts_once_the_other_end_has_granted_it() {
    let new = path(31, 2);
    for (has_auth, refuses, reason) in [
        (true, false, None),
        (true, true, NO_SESSION),
        (false, false, NO_SESSION),
    ] {
        // The association has one address at each end.
        let scene = Scene::new(OUT);
        association(&scene, &[], &[]);
        let request = asconf(FIRST, B, has_auth, ADD, &address4(31));
        assert!(scene.decide(&request).is_forward());
        tell(&scene, &[(new, B, HEARTBEAT, NO_SESSION)]);
        assert!(
            scene
                .decide(&asconf_ack(FIRST.back(), A, refuses))
                .is_forward()
        );
        tell(&scene, &[(new, B, HEARTBEAT, reason)]);
    }
}

#[test]
fn only_the_ends_of_an_association_add_an_address() {
    let scene = multihomed();
    let forged = asconf(FIRST, B + 1, true, ADD, &address4(31));
    dropped_for(&scene.decide(&forged), DropReason::SctpTag);
    let from_the_new_address = asconf(path(31, 2), B, true, ADD, &address4(31));
    dropped_for(
        &scene.decide(&from_the_new_address),
        DropReason::SctpNoSession,
    );
    assert!(
        scene
            .decide(&asconf_ack(FIRST.back(), A, false))
            .is_forward()
    );
    // An end does not grant its own request.
    let request = asconf(FIRST, B, true, ADD, &address4(31));
    assert!(scene.decide(&request).is_forward());
    assert!(scene.decide(&asconf_ack(FIRST, B, false)).is_forward());
    tell(&scene, &[(path(31, 2), B, HEARTBEAT, NO_SESSION)]);
}

#[test]
fn an_address_that_asconf_deletes_is_gone() {
    for (address, left) in [
        (address4(11), Some(path(21, 2))),
        (vec![0, 5, 0, 8, 0, 0, 0, 0], None),
    ] {
        let scene = multihomed();
        tell(
            &scene,
            &[(path(11, 2), B, DATA, None), (path(21, 2), B, DATA, None)],
        );
        assert!(
            scene
                .decide(&asconf(FIRST, B, true, DELETE, &address))
                .is_forward()
        );
        assert!(
            scene
                .decide(&asconf_ack(FIRST.back(), A, false))
                .is_forward()
        );
        let reason = if left.is_some() { None } else { NO_SESSION };
        tell(
            &scene,
            &[
                (path(11, 2), B, DATA, NO_SESSION),
                (path(21, 2), B, DATA, reason),
                (FIRST, B, DATA, None),
                (path(1, 12), B, DATA, None),
            ],
        );
    }
}

#[test]
fn the_number_of_associations_and_of_their_addresses_is_bounded() {
    // With 64 sessions there are 9 slots.
    let scene = Scene::new("[table]\nmax_sessions = 64\n");
    let many: Vec<u8> = (20..40).flat_map(address4).collect();
    association(&scene, &many, &[]);
    tell(
        &scene,
        &[
            (path(27, 2), B, HEARTBEAT, None),
            (path(28, 2), B, HEARTBEAT, NO_SESSION),
        ],
    );
    let other = |src_port: u16, tag: u32| {
        let ends = Ends { src_port, ..FIRST };
        let packets = [
            sctp(ends, 0, &init_with(1, tag, &address4(11))),
            sctp(ends.back(), tag, &init(2, tag + 1)),
            sctp(ends, tag + 1, &chunk(10, 0, &[7; 8])),
            sctp(ends.back(), tag, &chunk(11, 0, &[])),
        ];
        (packets, one(Ends { src: 11, ..ends }, tag + 1, HEARTBEAT))
    };
    // Incomplete handshakes make room for later ones.
    for n in 0..30 {
        let (packets, _) = other(1000 + n, 100 * u32::from(n) + 1);
        assert!(scene.decide(&packets[0]).is_forward());
    }
    let mut passed = Vec::new();
    for n in 0..20 {
        let (packets, heartbeat) = other(2000 + n, 100_000 + 100 * u32::from(n));
        for packet in packets {
            assert!(scene.decide(&packet).is_forward());
        }
        passed.push(scene.decide(&heartbeat).is_forward());
    }
    let count = passed.iter().filter(|passed| **passed).count();
    assert!(passed[0] && (2..9).contains(&count), "{passed:?}");
    // Existing associations stay.
    tell(&scene, &[(path(27, 2), B, HEARTBEAT, None)]);
}

#[test]
fn a_zone_that_fills_the_table_leaves_places_to_another() {
    let mut both = Scene::new("[table]\nmax_sessions = 512\n[zones]\nred = 1\nblue = 2\n");
    let opened = |both: &Scene, n: u16| {
        let ends = Ends {
            src: 3 + (n % 190) as u8,
            src_port: 1000 + n,
            ..FIRST
        };
        let tag = 1 + 2 * u32::from(n);
        for packet in [
            sctp(ends, 0, &init_with(1, tag, &address4(201))),
            sctp(ends.back(), tag, &init(2, tag + 1)),
            sctp(ends, tag + 1, &chunk(10, 0, &[7; 8])),
            sctp(ends.back(), tag, &chunk(11, 0, &[])),
        ] {
            assert!(both.decide(&packet).is_forward());
        }
        let heartbeat = one(Ends { src: 201, ..ends }, tag + 1, HEARTBEAT);
        both.decide(&heartbeat).is_forward()
    };
    both.zone = Zone(1);
    let red = (0..190).filter(|n| opened(&both, *n)).count();
    both.zone = Zone(2);
    let blue = (0..4).filter(|n| opened(&both, *n)).count();
    // Of 65 slots, each of the two zones is guaranteed 16.
    assert_eq!(red, 65 - 16);
    assert_eq!(blue, 4);
}

/// The INIT of an association whose initiator has the address of host 201 beside its own, and the
/// following packets: the rest of the handshake and a HEARTBEAT from host 201.
fn opening(ends: Ends, tag: u32) -> (Vec<u8>, [Vec<u8>; 4]) {
    let rest = [
        sctp(ends.back(), tag, &init(2, tag + 1)),
        sctp(ends, tag + 1, &chunk(10, 0, &[7; 8])),
        sctp(ends.back(), tag, &chunk(11, 0, &[])),
        one(Ends { src: 201, ..ends }, tag + 1, HEARTBEAT),
    ];
    (sctp(ends, 0, &init_with(1, tag, &address4(201))), rest)
}

#[test]
fn a_source_that_has_its_share_displaces_only_its_own_handshakes() {
    // With 64 sessions there are 9 slots, of which one source may have 5.
    let scene = Scene::new("[table]\nmax_sessions = 64\n");
    let (first, rest) = opening(Ends { src: 3, ..FIRST }, 1);
    assert!(scene.decide(&first).is_forward());
    let mut last = None;
    for n in 0..30 {
        let ends = Ends {
            src_port: 1000 + n,
            ..FIRST
        };
        let (first, rest) = opening(ends, 101 + 2 * u32::from(n));
        assert!(scene.decide(&first).is_forward());
        last = Some(rest);
    }
    for packet in rest.into_iter().chain(last.unwrap()) {
        let verdict = scene.decide(&packet);
        assert!(verdict.is_forward(), "{verdict:?}");
    }
    scene.engine.check_invariants().unwrap();
}

#[test]
fn the_handshakes_of_one_zone_do_not_keep_another_from_displacing_its_own() {
    let mut both = Scene::new("[table]\nmax_sessions = 512\n[zones]\nred = 1\nblue = 2\n");
    // Of 65 slots, red takes all except the 16 of blue, and blue takes those.
    let mut last = None;
    for (zone, hosts) in [(Zone(1), 3..103), (Zone(2), 3..20)] {
        both.zone = zone;
        for src in hosts {
            let (first, rest) = opening(Ends { src, ..FIRST }, 1 + 2 * u32::from(src));
            assert!(both.decide(&first).is_forward());
            last = Some(rest);
        }
    }
    for packet in last.unwrap() {
        let verdict = both.decide(&packet);
        assert!(verdict.is_forward(), "{verdict:?}");
    }
}

#[test]
fn explain_says_that_a_packet_is_on_another_path() {
    let scene = multihomed();
    let data = one(SECOND, B, DATA);
    let (_, steps) = scene
        .engine
        .explain(Packet::new(&data, scene.now), &mut Discard);
    let text: String = steps.iter().map(|step| format!("{step}\n")).collect();
    assert!(
        text.contains("whose ends have announced its addresses"),
        "{text}"
    );
    assert!(text.contains("ESTABLISHED"), "{text}");
}
