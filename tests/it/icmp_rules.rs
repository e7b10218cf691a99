//! ICMP messages of all types but errors consult the policy; errors must be valid.

use std::time::{Duration, SystemTime};

use crate::support::packets::{Ends, icmp, other, udp, unreachable};
use crate::support::scene::{Scene, config, dropped_for};
use crate::support::seal::sealed;
use portcullis::session::Variant;
use portcullis::snapshot::RestoreOptions;
use portcullis::{Class, Config, Direction, DropReason, Engine, Malformed, Packet, Verdict};

const V4: Ends = Ends::v4(0, 0);
const V6: Ends = Ends::v6(0, 0);

/// A policy that allows some ICMP types and denies all other packets.
fn allows(types: &str) -> String {
    format!(
        "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"some\"\naction = \"allow\"\n\
         protocol = [\"icmp\", \"icmpv6\"]\nicmp_types = {types}\n"
    )
}

#[track_caller]
fn new(verdict: &Verdict) {
    assert!(verdict.is_forward(), "{verdict:?}");
    assert_eq!(verdict.tracked().class, Class::New);
    assert_eq!(verdict.tracked().direction, Some(Direction::Original));
}

#[test]
fn every_type_that_is_no_reply_error_or_discovery_can_be_allowed_and_denied() {
    let types = [9, 10, 19, 30, 31, 40, 41, 42, 253];
    let types6 = [
        138, 141, 142, 144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 160, 200,
    ];
    let all = types.map(|kind| (V4, kind)).into_iter();
    for (ends, kind) in all.chain(types6.map(|kind| (V6, kind))) {
        let packet = icmp(ends, kind, [0, 7, 0, 1], b"12345678");
        new(&Scene::new(&allows(&format!("[{kind}]"))).decide(&packet));
        new(&Scene::new("").decide(&packet));
        let denying = Scene::new(&allows("[8, 128]"));
        dropped_for(&denying.decide(&packet), DropReason::PolicyDeny);
        assert_eq!(denying.engine.sessions(), 0);
    }
}

#[test]
fn an_extended_echo_and_its_reply_are_one_session() {
    for (ends, request, reply) in [(V4, 42, 43), (V6, 160, 161)] {
        let scene = Scene::new(&allows("\"extended-echo-request\""));
        let answer = icmp(ends.back(), reply, [0, 7, 1, 0], b"");
        dropped_for(&scene.decide(&answer), DropReason::IcmpReplyNoSession);
        new(&scene.decide(&icmp(ends, request, [0, 7, 1, 1], b"interface")));
        let verdict = scene.decide(&answer);
        assert!(verdict.is_forward(), "{verdict:?}");
        assert_eq!(verdict.tracked().direction, Some(Direction::Reply));
        // Another identifier is another query.
        let stray = icmp(ends.back(), reply, [0, 8, 1, 0], b"");
        dropped_for(&scene.decide(&stray), DropReason::IcmpReplyNoSession);
        // The other end does not send queries in this session.
        let back = scene.decide(&icmp(ends.back(), request, [0, 7, 1, 1], b"interface"));
        new(&back);
        assert_eq!(scene.engine.sessions(), 2);
    }
}

#[test]
fn messages_of_each_type_and_direction_are_a_session_of_their_own() {
    let scene = Scene::new(
        "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"routers\"\naction = \"allow\"\n\
         source = \"10.0.0.1\"\nprotocol = \"icmp\"\nicmp_types = [9, 40]\n",
    );
    for _ in 0..2 {
        new(&scene.decide(&icmp(V4, 9, [1, 2, 0, 9], &[])));
    }
    assert_eq!(scene.engine.sessions(), 1);
    new(&scene.decide(&icmp(V4, 40, [0; 4], &[])));
    assert_eq!(scene.engine.sessions(), 2);
    let back = scene.decide(&icmp(V4.back(), 9, [1, 2, 0, 9], &[]));
    dropped_for(&back, DropReason::PolicyDeny);
    assert_eq!(scene.engine.sessions(), 2);
}

#[test]
fn a_session_of_messages_has_the_lifetime_of_icmp_and_no_ports() {
    let mut scene = Scene::new("[lifetimes]\nicmp = \"7s\"\n");
    new(&scene.decide(&icmp(V4, 9, [1, 2, 0, 9], &[])));
    let record = scene.record();
    assert_eq!((record.src_port, record.dst_port), (0, 0));
    assert_eq!(record.expires - record.last, Duration::from_secs(7));
    assert_eq!(scene.wait(8).ended.len(), 1);
}

#[test]
fn a_reload_judges_a_session_of_messages_by_its_type() {
    let scene = Scene::new(&allows("[9, 42]"));
    new(&scene.decide(&icmp(V4, 9, [1, 2, 0, 9], &[])));
    new(&scene.decide(&icmp(V4, 42, [0, 7, 1, 1], &[])));
    let (done, _) = scene.reload(&allows("[9, 42, 10]"));
    assert_eq!((done.judged, done.revoked), (2, 0));
    let (done, _) = scene.reload(&allows("[42]"));
    assert_eq!((done.judged, done.revoked), (2, 1));
    let (done, _) = scene.reload(&allows("[9]"));
    assert_eq!((done.judged, done.revoked), (1, 1));
}

#[test]
fn sessions_of_messages_are_saved_and_restored() {
    let scene = Scene::new("");
    let packets = [
        icmp(V6, 151, [0; 4], &[]),
        icmp(V6.back(), 151, [0; 4], &[]),
        icmp(V6, 160, [0, 7, 1, 1], &[]),
    ];
    for packet in &packets {
        new(&scene.decide(packet));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mut variants = Vec::new();
    scene
        .engine
        .for_each_saved(scene.now, |session| variants.push(session.variant));
    let is_message = |variant: &&Variant| **variant == Variant::IcmpMessage(151);
    assert_eq!(
        (variants.len(), variants.iter().filter(is_message).count()),
        (3, 2)
    );
    let saved = scene.engine.save(scene.now, at);
    let other = Scene {
        now: scene.now,
        ..Scene::new(&allows("[151, 160]"))
    };
    let restored = other
        .engine
        .restore(&saved, scene.now, at, RestoreOptions::default());
    assert_eq!(restored.unwrap().sessions, 3);
    for packet in &packets {
        new(&other.decide(packet));
    }
    assert_eq!(other.engine.sessions(), 3);
}

#[test]
fn an_error_about_a_message_is_related_to_its_session() {
    let scene = Scene::new("");
    let message = icmp(V4, 40, [0; 4], b"quoted");
    let about = unreachable(false, 1, &message);
    dropped_for(&scene.decide(&about), DropReason::IcmpErrorNoSession);
    new(&scene.decide(&message));
    assert_eq!(scene.decide(&about).tracked().class, Class::Related);
}

#[test]
fn a_rejected_message_is_not_answered_where_it_may_be_an_error() {
    let scene = Scene::new("[policy]\ndefault = \"reject\"\n");
    let verdict = scene.decide(&icmp(V4, 40, [0; 4], &[]));
    dropped_for(&verdict, DropReason::PolicyReject);
    let verdict = scene.decide(&icmp(V6, 160, [0; 4], &[]));
    assert!(matches!(
        verdict,
        Verdict::Reject(DropReason::PolicyReject, ..)
    ));
}

#[test]
fn types_that_no_rule_can_match_are_warned_of() {
    let warnings = |protocol: &str, types: &str| -> Vec<String> {
        let text = format!(
            "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = {protocol}\n\
             icmp_types = {types}\n"
        );
        let config = Config::from_toml(&text, "t.toml").unwrap();
        config.warnings().iter().map(ToString::to_string).collect()
    };
    let both = "[\"icmp\", \"icmpv6\"]";
    for (protocol, types) in [
        (both, "[8, 9, 10, 30, 40, 42, 128, 144, 153, 160]"),
        (
            both,
            "[\"router-advertisement\", \"extended-echo-request\"]",
        ),
        ("\"icmp\"", "[13, 15, 17, 255]"),
    ] {
        assert!(warnings(protocol, types).is_empty(), "{types}");
    }
    for (protocol, types, named) in [
        (
            both,
            "[\"echo-reply\", 8, 3, \"time-exceeded\"]",
            "echo-reply, 3, time-exceeded",
        ),
        ("\"icmp\"", "[4, 5, 11, 12, 43]", "4, 5, 11, 12, 43"),
        (
            "\"icmpv6\"",
            "[1, 8, 127, 134, \"redirect\", 143, 161]",
            "1, 8, 127, 134, redirect, 143, 161",
        ),
    ] {
        let found = warnings(protocol, types);
        let expected = format!("t.toml:5: policy.rule[0].icmp_types: {named} can never match");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&expected), "{found:?}");
    }
}

#[test]
fn redirects_that_only_count_in_a_tunnel_are_warned_of() {
    let warnings = |attachment| {
        let text = format!(
            "[engine]\nattachment = \"{attachment}\"\n[checks]\nicmp_redirect = \"count\"\n"
        );
        Config::from_toml(&text, "t.toml").unwrap().warnings()
    };
    assert!(warnings("auto").is_empty() && warnings("link").is_empty());
    let found = warnings("tunnel");
    assert_eq!(found.len(), 1);
    let text = found[0].to_string();
    assert!(
        text.starts_with("t.toml:4: checks.icmp_redirect: "),
        "{text}"
    );
}

/// An ICMP error with code 4 instead of its own.
fn with_code_4(mut error: Vec<u8>) -> Vec<u8> {
    error[21] = 4;
    sealed(error)
}

/// A UDP session of hosts 1 and 2, and an error of router 200 to host 1.
fn about(ends: Ends, kind: u8, word: [u8; 4], len: usize) -> (Scene, Vec<u8>) {
    let scene = Scene::new(
        "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"u\"\naction = \"allow\"\n\
         protocol = \"udp\"\n",
    );
    let datagram = udp(ends, &vec![0; len]);
    assert!(scene.decide(&datagram).is_forward());
    let router = Ends {
        src: 200,
        dst: 1,
        ..ends
    };
    (scene, icmp(router, kind, word, &datagram))
}

#[test]
fn errors_of_no_assigned_type_are_refused_whatever_they_quote() {
    for kind in (0..=127).filter(|kind| !(1..=4).contains(kind)) {
        let (scene, error) = about(V6, kind, [0; 4], 1400);
        dropped_for(&scene.decide(&error), DropReason::IcmpTypeUnsupported);
    }
    for kind in [1, 2, 3, 4] {
        let (scene, error) = about(V6, kind, [0, 0, 5, 0], 1400);
        assert_eq!(scene.decide(&error).tracked().class, Class::Related);
    }
}

#[test]
fn a_source_quench_is_refused() {
    let (scene, error) = about(V4, 4, [0; 4], 100);
    dropped_for(&scene.decide(&error), DropReason::IcmpSourceQuench);
}

/// Fragmentation needed, or packet too big, about a packet of a length: whether it passes, or the
/// reason for the drop.
fn too_big(ends: Ends, mtu: u32, len: usize) -> Option<DropReason> {
    let headers = if ends.v6 { 48 } else { 28 };
    let kind = if ends.v6 { 2 } else { 3 };
    let (scene, mut error) = about(ends, kind, mtu.to_be_bytes(), len - headers);
    if !ends.v6 {
        error = with_code_4(error);
    }
    let verdict = scene.decide(&error);
    let class = verdict.tracked().class;
    assert_eq!(verdict.is_forward(), class == Class::Related, "{verdict:?}");
    verdict.reason()
}

#[test]
fn no_error_announces_less_than_the_least_mtu() {
    let small = Some(DropReason::IcmpErrorMtuTooSmall);
    for (mtu, expected) in [(1, small), (67, small), (68, None), (1400, None), (0, None)] {
        assert_eq!(too_big(V4, mtu, 1500), expected, "IPv4, {mtu}");
    }
    // A packet too big always announces an MTU: 0 is as small as any other.
    for (mtu, expected) in [
        (0, small),
        (1, small),
        (1279, small),
        (1280, None),
        (1400, None),
    ] {
        assert_eq!(too_big(V6, mtu, 1500), expected, "IPv6, {mtu}");
    }
}

#[test]
fn no_error_announces_an_mtu_that_its_packet_fits() {
    let fits = Some(DropReason::IcmpErrorMtuFits);
    for ends in [V4, V6] {
        // Some routers quote an IPv4 packet without the length of its header.
        let least = if ends.v6 { 1400 } else { 1420 };
        for (mtu, expected) in [(1399, None), (least - 1, None), (least, fits), (9000, fits)] {
            assert_eq!(too_big(ends, mtu, 1400), expected, "{ends:?} {mtu}");
        }
    }
    assert_eq!(too_big(V6, u32::MAX, 1400), fits);
    // The upper half of IPv4's word is not part of the MTU (RFC 1191 4, RFC 4884 4.1).
    assert_eq!(too_big(V4, 0x0005_0514, 1400), None);
}

/// Recomputes the checksum of an IPv4 header.
fn fix_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.ones_complement().to_ne_bytes());
}

/// An error about a datagram whose quote is changed by `alter`: the verdict.
fn altered(ends: Ends, mtu: u16, alter: impl Fn(&mut Vec<u8>)) -> Verdict {
    let scene = Scene::new("");
    let datagram = udp(ends, &[0; 1400]);
    assert!(scene.decide(&datagram).is_forward());
    let mut quote = datagram[..if ends.v6 { 48 } else { 28 }].to_vec();
    alter(&mut quote);
    let router = Ends {
        src: 200,
        dst: 1,
        ..ends
    };
    let [high, low] = mtu.to_be_bytes();
    let error = icmp(
        router,
        if ends.v6 { 2 } else { 3 },
        [0, 0, high, low],
        &quote,
    );
    scene.decide(&if ends.v6 { error } else { with_code_4(error) })
}

#[test]
fn an_error_is_judged_by_what_it_quotes_and_not_by_the_length_that_it_quotes() {
    // Total length, 1428 before, and whether the checksum of the header is made to fit.
    let lengths = [
        0,
        1,
        1408,
        1428,
        1428_u16.swap_bytes(),
        1408_u16.swap_bytes(),
        20,
        28,
    ];
    for (len, fits) in lengths
        .into_iter()
        .flat_map(|len| [(len, false), (len, true)])
    {
        let verdict = altered(V4, 1400, |quote| {
            quote[2..4].copy_from_slice(&len.to_be_bytes());
            if fits {
                fix_header(quote);
            }
        });
        // A sender that recomputes the checksum claims that the packet was as short as that.
        if fits && matches!(len, 20 | 28) {
            dropped_for(&verdict, DropReason::IcmpErrorMtuFits);
        } else {
            assert_eq!(
                verdict.tracked().class,
                Class::Related,
                "{len} {fits}: {verdict:?}"
            );
        }
    }
    for len in [0_u16, 8, 1408, 1408_u16.swap_bytes()] {
        let verdict = altered(V6, 1280, |quote| {
            quote[4..6].copy_from_slice(&len.to_be_bytes())
        });
        if len == 8 {
            dropped_for(&verdict, DropReason::IcmpErrorMtuFits);
        } else {
            assert_eq!(
                verdict.tracked().class,
                Class::Related,
                "{len}: {verdict:?}"
            );
        }
    }
}

#[test]
fn a_quote_may_differ_in_what_routers_change() {
    type Alter = fn(&mut Vec<u8>);
    let alterations: [(&str, Alter); 6] = [
        ("time to live", |quote| quote[8] = 0),
        ("type of service", |quote| quote[1] = 0xb9),
        ("identification", |quote| quote[4..6].reverse()),
        ("checksum", |quote| quote[10..12].fill(0)),
        ("DF in the order of a host", |quote| {
            quote[6..8].copy_from_slice(&[0, 0x40]);
        }),
        ("padding and an extension (RFC 4884)", |quote| {
            quote.resize(128, 0);
            quote.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0]);
        }),
    ];
    for (what, alter) in alterations {
        let verdict = altered(V4, 1400, alter);
        assert_eq!(
            verdict.tracked().class,
            Class::Related,
            "{what}: {verdict:?}"
        );
    }
    let verdict = altered(V6, 1300, |quote| quote[7] = 0);
    assert_eq!(
        verdict.tracked().class,
        Class::Related,
        "hop limit: {verdict:?}"
    );
    // Options of the quoted header precede the ports.
    let verdict = altered(V4, 1400, |quote| {
        quote[0] = 0x47;
        quote.splice(20..20, [7, 7, 4, 0, 0, 0, 0, 0]);
    });
    assert_eq!(
        verdict.tracked().class,
        Class::Related,
        "options: {verdict:?}"
    );
    // A later fragment has no ports.
    let verdict = altered(V4, 1400, |quote| quote[6..8].copy_from_slice(&[0, 0x41]));
    dropped_for(&verdict, DropReason::IcmpErrorNoSession);
}

#[test]
fn an_error_about_a_tunnel_is_not_measured() {
    for (protocol, payload) in [
        (47, &[0, 0, 8, 0, 0, 0, 0, 0][..]),
        (50, &[0, 0, 0, 9, 0, 0, 0, 1]),
    ] {
        let scene = Scene::new("");
        let packet = other(V4, protocol, payload);
        assert!(scene.decide(&packet).is_forward());
        let mut error = icmp(V4.back(), 3, [0, 0, 5, 0], &packet);
        error = with_code_4(error);
        assert_eq!(scene.decide(&error).tracked().class, Class::Related);
    }
}

#[test]
fn the_mtu_of_an_error_of_another_kind_is_no_mtu() {
    let (scene, error) = about(V4, 11, [0, 0, 0xff, 0xff], 100);
    assert_eq!(scene.decide(&error).tracked().class, Class::Related);
}

#[test]
fn an_mtu_that_fits_may_only_be_counted() {
    let (scene, mut error) = about(V4, 3, [0, 0, 5, 0], 100);
    error = with_code_4(error);
    let mut counting = config("[checks]\nicmp_error_mtu_fits = \"count\"\n");
    counting.policy.default = portcullis::policy::Action::Allow;
    let engine = Engine::with_seed(&counting, [1, 2, 3, 4]).unwrap();
    let scene = Scene { engine, ..scene };
    assert!(scene.decide(&udp(V4, &[0; 100])).is_forward());
    let verdict = scene.decide(&error);
    assert!(verdict.is_forward());
    assert_eq!(
        verdict.tracked().tolerated,
        Some(DropReason::IcmpErrorMtuFits)
    );
}

#[test]
fn an_error_about_a_first_fragment_is_measured_against_the_fragment() {
    // 1,400 bytes of a larger datagram that did not fit 1,280.
    let (scene, _) = about(V4, 3, [0; 4], 1372);
    let mut quoted = udp(V4, &[0; 1372]);
    quoted[6] = 0x20;
    fix_header(&mut quoted);
    let router = Ends {
        src: 200,
        dst: 1,
        ..V4
    };
    for (mtu, passes) in [(1280, true), (1420, false)] {
        let mut error = icmp(router, 3, u32::to_be_bytes(mtu), &quoted);
        error = with_code_4(error);
        assert_eq!(scene.decide(&error).is_forward(), passes, "{mtu}");
    }
}

#[test]
fn no_error_goes_to_a_group() {
    // A packet of a session with a group, and an error about a packet that the group is supposed to
    // have sent.
    for (ends, at, group) in [
        (V4, 12, &[239, 1, 2, 3][..]),
        (
            V6,
            8,
            &[0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        ),
    ] {
        let len = group.len();
        let to_group = |mut packet: Vec<u8>| {
            packet[at + len..at + 2 * len].copy_from_slice(group);
            sealed(packet)
        };
        let scene = Scene::new("");
        assert!(scene.decide(&to_group(udp(ends, b"to all"))).is_forward());
        let mut quoted = udp(ends.back(), b"from all");
        quoted[at..at + len].copy_from_slice(group);
        let error = to_group(unreachable(ends.v6, 2, &quoted));
        let reason = DropReason::Malformed(Malformed::IcmpErrorQuoteMalformed);
        // Malformed packets cannot be sealed.
        let error = Packet::new(&error, scene.now).offloaded(true);
        dropped_for(&scene.engine.verdict_only(error), reason);
    }
}
