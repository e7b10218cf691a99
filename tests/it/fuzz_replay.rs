//! The seeds of the fuzz targets, and every input that once crashed one, replayed on stable.
//!
//! `fuzz/seeds/<target>/` holds small synthetic inputs, `fuzz/crashes/<target>/` every input that
//! ever crashed a target. `cargo test --test it fuzz_replay -- --ignored` writes the seeds again,
//! except those of `ftp`. These are control conversations of real programs, recorded by
//! `target/release/kernel-ftp --record fuzz/seeds/ftp` (tests/kernel).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::front::{
    self, ANSWER, FRONT_HEADER, LEAVE, NEWEST, OTHER_PEER, RELOAD, SECONDS, STORE, STRANGER, TWICE,
    WRAPPED, WRONG,
};
use crate::support::fuzz::{self, PROCESS_HEADER, REPLY, ZONE};
use crate::support::ops::{Op, Tcp, Traffic};
use crate::support::packets::{
    ACK, Ends, Head, SYN, address4, address6, chunk, discovery, icmp, init_with, other, sctp, tcp,
    udp, unreachable,
};
use crate::support::scene::Scene;
use crate::support::short_way;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(kind)
        .join(target)
}

/// Runs a target on all its stored inputs; each must exist for a reason, so there must be seeds.
fn replay(target: &str, run: fn(&[u8])) {
    let files = |kind| {
        let entries =
            fs::read_dir(folder(kind, target)).map(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> = entries.map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .unwrap()
                    .into_iter()
                    .map(|entry| entry.path())
                    .collect()
            },
        );
        files.sort();
        files
    };
    let seeds = files("seeds");
    assert!(!seeds.is_empty(), "no seeds for {target}");
    for file in seeds.into_iter().chain(files("crashes")) {
        println!("{}", file.display());
        run(&fs::read(&file).unwrap());
    }
}

#[test]
fn stored_inputs_of_process_pass() {
    replay("process", fuzz::process);
}

#[test]
fn stored_inputs_of_sequence_pass() {
    replay("sequence", fuzz::sequence);
}

#[test]
fn stored_inputs_of_short_way_pass() {
    replay("short_way", short_way::short_way);
}

#[test]
fn stored_inputs_of_config_pass() {
    replay("config", fuzz::config);
}

#[test]
fn stored_inputs_of_front_pass() {
    replay("front", front::front);
}

#[test]
fn stored_inputs_of_stored_pass() {
    replay("stored", fuzz::stored);
}

#[test]
fn a_stored_input_of_front_brings_a_session_back_from_the_store() {
    let seed = fs::read(folder("seeds", "front").join("moved")).unwrap();
    assert_eq!(front::front_resumed(&seed), 1);
}

#[test]
fn stored_inputs_of_ftp_pass() {
    replay("ftp", fuzz::ftp);
}

#[test]
fn recorded_conversations_announce_what_the_programs_then_used() {
    let opened = |file: fs::DirEntry| fuzz::ftp_opened(&fs::read(file.path()).unwrap());
    let mut conversations = 0;
    for entry in fs::read_dir(folder("seeds", "ftp")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let opened = opened(entry);
        // Upload, download and listing; an aborted conversation has fewer.
        let least = if name.contains("abor") { 0 } else { 3 };
        assert!(opened >= least, "{name}: {opened}");
        conversations += 1;
    }
    assert!(conversations > 20, "{conversations} conversations");
}

/// Inputs of `stored`: records of sessions of several protocols.
fn stored_sessions() -> [(&'static str, Vec<u8>); 4] {
    let record = |open: &dyn Fn(&Scene)| {
        let scene = Scene::new("[continuity]\nenabled = true\n");
        open(&scene);
        let flow = scene.engine.flow_name(&scene.record().flow().unwrap());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let stored = scene.engine.find_stored(&flow, scene.now, at).unwrap();
        let mut bytes = Vec::new();
        stored.encode(&mut bytes);
        bytes
    };
    let control = Ends::v4(4000, 21);
    [
        ("tcp", record(&|scene| scene.handshake(Ends::v6(4000, 80)))),
        (
            "ftp",
            record(&|scene| {
                scene.handshake(control);
                scene.pass(control.back(), ACK, 501, 101, b"220 ready\r\n");
                scene.pass(control, ACK, 101, 512, b"PASV\r\n");
            }),
        ),
        (
            "udp",
            record(&|scene| {
                let _ = scene.udp(Ends::v4(4000, 53));
                let _ = scene.udp(Ends::v4(4000, 53).back());
            }),
        ),
        (
            "sctp",
            record(&|scene| {
                let ends = Ends::v4(5000, 5000);
                let _ = scene.decide(&sctp(ends, 0, &init_with(1, 7, &[])));
                let _ = scene.decide(&sctp(ends.back(), 7, &init_with(2, 8, &[])));
            }),
        ),
    ]
}

/// An input of `process`: a packet in a frame.
fn frame(flags: u8, wait: u8, packet: &[u8]) -> Vec<u8> {
    let [high, low] = (packet.len() as u16).to_be_bytes();
    let header: [u8; PROCESS_HEADER] = [flags | high & 7, low, wait];
    [&header[..], packet].concat()
}

/// An input of `process`: GRE with a different key for each end, an SCTP association with further
/// addresses, changes of them, and errors about both.
fn paths() -> Vec<u8> {
    let gre = |ends: Ends, key: u8| other(ends, 47, &[0xa0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, key]);
    let (first, second) = (
        Ends::v4(5000, 5000),
        Ends {
            src: 11,
            ..Ends::v4(5000, 5000)
        },
    );
    let request = [
        &[0, 0, 0, 5][..],
        &address4(1),
        &[0xc0, 1, 0, 16, 0, 0, 0, 1],
        &address4(21),
    ]
    .concat();
    let auth = chunk(15, 0, &[0; 24]);
    let packets = [
        gre(Ends::v4(0, 0), 1),
        gre(Ends::v4(0, 0).back(), 2),
        unreachable(false, 1, &gre(Ends::v4(0, 0), 1)[..28]),
        sctp(
            first,
            0,
            &init_with(1, 7, &[address4(11), address6(11)].concat()),
        ),
        sctp(first.back(), 7, &init_with(2, 8, &address4(12))),
        sctp(first, 8, &chunk(10, 0, &[7; 8])),
        sctp(first.back(), 7, &chunk(11, 0, &[])),
        sctp(second, 8, &chunk(4, 0, &[0; 16])),
        sctp(second.back(), 7, &chunk(5, 0, &[0; 16])),
        sctp(first, 8, &[auth.clone(), chunk(0xc1, 0, &request)].concat()),
        sctp(
            first.back(),
            7,
            &[auth, chunk(0x80, 0, &[0, 0, 0, 5])].concat(),
        ),
        sctp(Ends { src: 21, ..first }, 8, &chunk(7, 0, &[0; 4])),
        unreachable(false, 11, &sctp(second, 8, &chunk(0, 3, &[0; 16]))[..28]),
    ];
    packets
        .iter()
        .flat_map(|bytes| frame(0, 1, bytes))
        .collect()
}

/// An input of `front`: one datagram.
fn in_tunnel(what: u8, label: [u8; 3], bytes: &[u8]) -> Vec<u8> {
    let [high, low] = (bytes.len() as u16).to_be_bytes();
    let [endpoint, cookie, port] = label;
    let header: [u8; FRONT_HEADER] = [what, endpoint, cookie, port, high, low];
    [&header[..], bytes].concat()
}

/// The seeds of `front`, by name: settings, and datagrams.
fn front_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let head = |flags, seq, ack| Head {
        flags,
        seq,
        ack,
        window: 9_000,
    };
    let ends = Ends::v4(4000, 80);
    let mss = [etherparse::TcpOptionElement::MaximumSegmentSize(1_460)];
    let syn = tcp(ends, head(SYN, 100, 0), &mss, b"");
    let handshake = [
        in_tunnel(WRAPPED, [1, 1, 1], &syn),
        in_tunnel(
            WRAPPED,
            [1, 2, 2],
            &tcp(ends.back(), head(SYN | ACK, 500, 101), &mss, b""),
        ),
        in_tunnel(
            WRAPPED,
            [1, 1, 3],
            &tcp(ends, head(ACK, 101, 501), &[], b"GET"),
        ),
    ]
    .concat();
    let late = tcp(ends.back(), head(ACK, 501, 101), &[], b"late");
    let ending = in_tunnel(
        WRAPPED | SECONDS,
        [255, 4, 4],
        &udp(Ends::v6(1, 53), b"question"),
    );
    let large = udp(ends, &[7; 1_300]);
    let story = |settings: u8, parts: &[&[u8]]| [&[settings], parts.concat().as_slice()].concat();
    let gwlb = [
        &[
            8, 0, 8, 0, 0, 0, 0, 0, 1, 8, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1, 8, 2, 2, 0, 0, 0, 0, 0,
            0, 0, 0,
        ][..],
        &[1, 8, 3, 1, 1, 2, 3, 4],
        &syn,
    ]
    .concat();
    vec![
        (
            "session",
            story(
                2,
                &[&handshake, &ending, &in_tunnel(WRAPPED, [1, 9, 9], &late)],
            ),
        ),
        (
            "moved",
            story(
                2 | STORE,
                &[
                    &handshake,
                    &in_tunnel(WRAPPED, [1, 1, LEAVE], &late),
                    &in_tunnel(WRAPPED, [1, 1, 0], &late),
                    &in_tunnel(WRAPPED, [1, 1, ANSWER | TWICE], &late),
                    &in_tunnel(WRAPPED, [1, 1, LEAVE], &late),
                    &in_tunnel(WRAPPED, [1, 1, ANSWER | WRONG | NEWEST], &late),
                ],
            ),
        ),
        (
            "clamped",
            story(
                0x12,
                &[&handshake, &in_tunnel(WRAPPED, [1, 7, 7], &syn), &ending],
            ),
        ),
        (
            "rejected",
            story(
                1,
                &[&handshake, &in_tunnel(WRAPPED | RELOAD, [1, 1, 1], &syn)],
            ),
        ),
        (
            "too_large",
            story(
                2,
                &[
                    &in_tunnel(WRAPPED, [1, 1, 1], &large),
                    &in_tunnel(WRAPPED, [9, 1, 1], &large),
                ],
            ),
        ),
        (
            "gcp",
            story(
                6,
                &[
                    &handshake,
                    &ending,
                    &in_tunnel(WRAPPED | OTHER_PEER, [1, 1, 1], &late),
                ],
            ),
        ),
        (
            "tencent",
            story(
                0x2a,
                &[&handshake, &in_tunnel(WRAPPED | STRANGER, [2, 1, 1], &syn)],
            ),
        ),
        (
            "raw",
            story(
                2,
                &[
                    &in_tunnel(0, [0, 0, 9], &gwlb),
                    &in_tunnel(0, [0, 0, 9], &gwlb[..39]),
                ],
            ),
        ),
    ]
}

#[test]
#[ignore = "writes the seeds that are checked in"]
fn write_seeds() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder("seeds", target)).unwrap();
        fs::write(folder("seeds", target).join(name), bytes).unwrap();
    };
    for (name, bytes) in stored_sessions() {
        write("stored", name, &bytes);
    }
    let question = udp(Ends::v4(4000, 53), b"question");
    let conversations: [(&str, Vec<Op>); 4] = [
        (
            "tcp",
            vec![
                Op::Handshake { talk: 0 },
                Op::Tcp {
                    talk: 0,
                    reply: false,
                    what: Tcp::Data(20),
                },
                Op::Tcp {
                    talk: 0,
                    reply: true,
                    what: Tcp::Ack,
                },
                Op::Close {
                    talk: 0,
                    reply: false,
                },
                Op::Handshake { talk: 0 },
            ],
        ),
        (
            "tcp_reset",
            vec![
                Op::Handshake { talk: 1 },
                Op::Tcp {
                    talk: 1,
                    reply: true,
                    what: Tcp::RstOff(5),
                },
                Op::Tcp {
                    talk: 1,
                    reply: true,
                    what: Tcp::Rst,
                },
                Op::Tcp {
                    talk: 2,
                    reply: false,
                    what: Tcp::Syn,
                },
                Op::Tcp {
                    talk: 2,
                    reply: true,
                    what: Tcp::Rst,
                },
            ],
        ),
        (
            "datagrams",
            vec![
                Op::Udp {
                    talk: 1,
                    reply: false,
                },
                Op::Udp {
                    talk: 1,
                    reply: true,
                },
                Op::Echo {
                    talk: 4,
                    reply: false,
                    request: true,
                },
                Op::Echo {
                    talk: 4,
                    reply: true,
                    request: false,
                },
                Op::Other {
                    talk: 2,
                    reply: false,
                },
                Op::Unreachable {
                    talk: 1,
                    to_sender: true,
                },
            ],
        ),
        (
            "overflow",
            (0..8)
                .map(|talk| Op::Handshake { talk })
                .chain((0..8).map(|talk| Op::Udp { talk, reply: false }))
                .collect(),
        ),
    ];
    for (name, ops) in conversations {
        let mut traffic = Traffic::new();
        let packets = ops.iter().flat_map(|op| traffic.packets(op));
        let input: Vec<u8> = packets
            .flat_map(|(zone, bytes)| frame(if zone == 1 { ZONE } else { 0 }, 3, &bytes))
            .collect();
        write("process", name, &input);
    }
    write("process", "paths", &paths());
    let swapped = [
        frame(0, 0, &question),
        frame(REPLY, 40, &[27, 0]),
        frame(REPLY, 255, &[]),
    ]
    .concat();
    write("process", "swapped", &swapped);
    let error = unreachable(true, 1, &udp(Ends::v6(4000, 53), b"question"));
    let odd = [
        icmp(Ends::v6(0, 0), 135, [0; 4], &[0; 16]),
        error,
        question[..24].to_vec(),
    ];
    let input: Vec<u8> = odd.iter().flat_map(|packet| frame(0, 1, packet)).collect();
    write("process", "odd", &input);
    let link = [
        discovery(
            "fe80::1",
            "ff02::2",
            133,
            &[0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1],
        ),
        discovery("fe80::1", "ff02::1", 130, &[0; 20]),
        discovery("fe80::1", "ff02::16", 143, &[0; 4]),
        icmp(Ends::v4(0, 0), 42, [0, 7, 1, 1], b"interface"),
    ];
    let input: Vec<u8> = link.iter().flat_map(|packet| frame(0, 1, packet)).collect();
    write("process", "link", &input);

    // `arbitrary` gives the input of `sequence` its structure: random bytes reach all of its steps.
    let mut state = 1u64;
    for (name, len) in [("short", 64), ("medium", 400), ("long", 2_000)] {
        let bytes: Vec<u8> = (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        write("sequence", name, &bytes);
    }

    for (name, input) in front_seeds() {
        write("front", name, &input);
    }

    for (name, text) in [
        ("empty", ""),
        (
            "table",
            "[engine]\nchecksums = \"verify\"\n[table]\nmax_sessions = 1000\nshards = 4\n[tcp]\n\
             mode = \"strict\"\n",
        ),
        (
            "lifetimes",
            "[zones]\nblue = 1\n[lifetimes]\nicmp = \"2s\"\ntcp.established = \"5m 30s\"\n\
             [[lifetimes.override]]\nprotocol = \"udp\"\nports = [53, \"1000-2000\"]\n\
             udp.replied = \"10s\"\n\
             [[lifetimes.override]]\nzone = \"blue\"\n\
             address = [\"10.0.0.0/8\", \"2001:db8::/32\"]\nother.replied = \"1h\"\n",
        ),
        (
            "policy",
            "[policy]\ndefault = \"reject\"\ninside = \"10.0.0.0/8\"\n[[policy.rule]]\n\
             name = \"web\"\naction = \"allow\"\n\
             protocol = \"tcp\"\ndestination_ports = [80, \"8000-8999\"]\n\
             source = \"10.1.0.0/16\"\ndirection = \"outbound\"\n\
             [[policy.rule]]\nname = \"ping\"\naction = \"deny\"\n\
             protocol = [\"icmp\", \"icmpv6\"]\n\
             icmp_types = \"echo-request\"\nlog = true\n",
        ),
        (
            "wrong",
            "[table]\nmax_sessions = 0\nshards = 3\n[lifetimes]\ntcp.close = \"1ns\"\n",
        ),
    ] {
        write("config", name, text.as_bytes());
    }
}
