//! Captures of every kind in `portcullis replay`, and its reports on them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{path, portcullis, project, rows, text};

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [198, 51, 100, 2];

/// An IPv4 packet without checksums, which a replay trusts.
fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    packet
}

/// Flags, sequence number, acknowledgment number and length of the payload.
#[derive(Clone, Copy)]
struct Tcp(u8, u32, u32, usize);

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment between port 40000 of the client and port 80 of the server.
fn tcp(from_client: bool, Tcp(flags, seq, ack, payload): Tcp) -> Vec<u8> {
    let (src, dst) = if from_client {
        (40_000_u16, 80_u16)
    } else {
        (80, 40_000)
    };
    let mut segment = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    let options: &[u8] = if flags & SYN != 0 { &[1, 3, 3, 7] } else { &[] };
    let offset = 0x50 + ((options.len() as u8 / 4) << 4);
    segment.extend([offset, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.resize(segment.len() + payload, 7);
    if from_client {
        ipv4(CLIENT, SERVER, 6, &segment)
    } else {
        ipv4(SERVER, CLIENT, 6, &segment)
    }
}

/// A handshake.
fn handshake() -> Vec<Vec<u8>> {
    vec![
        tcp(true, Tcp(SYN, 99, 0, 0)),
        tcp(false, Tcp(SYN | ACK, 499, 100, 0)),
        tcp(true, Tcp(ACK, 100, 500, 0)),
    ]
}

/// A pcap of raw IP packets, a tenth of a second apart unless times are given.
fn pcap(packets: &[Vec<u8>], times: Option<&[f64]>) -> Vec<u8> {
    let mut bytes = vec![
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0,
    ];
    for (number, packet) in packets.iter().enumerate() {
        let time = times.map_or(number as f64 / 10.0, |times| times[number]) + 1_700_000_000.0;
        let micros = (time * 1e6).round() as u64;
        for field in [
            (micros / 1_000_000) as u32,
            (micros % 1_000_000) as u32,
            packet.len() as u32,
            packet.len() as u32,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(packet);
    }
    bytes
}

struct Replayed {
    summary: Value,
    text: String,
    verdicts: Vec<Value>,
    sessions: Vec<Value>,
}

fn replay(bytes: &[u8]) -> Replayed {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| scratch.path().join(name);
    let (capture, verdicts, sessions) = (file("in"), file("v"), file("s"));
    std::fs::write(&capture, bytes).unwrap();
    let outputs = ["--verdicts", path(&verdicts), "--sessions", path(&sessions)];
    let json = portcullis(&[&["replay", path(&capture), "--json"][..], &outputs].concat());
    assert!(json.status.success(), "{}", text(&json.stderr));
    let plain = portcullis(&["replay", path(&capture)]);
    Replayed {
        summary: serde_json::from_slice(&json.stdout).unwrap(),
        text: text(&plain.stdout),
        verdicts: rows(&verdicts),
        sessions: rows(&sessions),
    }
}

fn verdicts_of(replayed: &Replayed) -> Vec<&str> {
    replayed
        .verdicts
        .iter()
        .map(|row| row["verdict"].as_str().unwrap())
        .collect()
}

fn demo() -> PathBuf {
    project("demo/demo.pcap")
}

/// Runs a command to its end and returns its standard output and standard error.
fn outputs(arguments: &[&str]) -> (Vec<u8>, String) {
    let output = portcullis(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    (output.stdout, text(&output.stderr))
}

#[test]
fn packets_that_state_no_length_have_that_of_their_frame() {
    // 100 kB do not fit into an IPv4 packet: an interface makes two segments.
    for (payload, segments) in [(1, 1), (3_000, 1), (60_000, 1), (100_000, 2)] {
        let mut packets = handshake();
        packets.push(tcp(false, Tcp(ACK, 500, 100, 0)));
        let mut data = tcp(true, Tcp(ACK, 100, 500, payload));
        data[2..4].copy_from_slice(&[0, 0]);
        packets.push(data);
        packets.push(tcp(false, Tcp(ACK, 500, 100 + payload as u32, 0)));
        let replayed = replay(&pcap(&packets, None));
        assert_eq!(verdicts_of(&replayed), ["forward"; 6], "{payload}");
        let session = &replayed.sessions[0];
        assert_eq!(session["orig_pkts"], 2 + segments);
        assert_eq!(
            session["orig_ip_bytes"],
            44 + 40 + segments * 40 + payload as u64
        );
        assert_eq!(replayed.summary["without_length"], 1);
        assert!(
            replayed.text.contains("1 packets state no length"),
            "{}",
            replayed.text
        );
    }
}

#[test]
fn a_frame_is_dropped_if_one_of_its_segments_is() {
    let mut packets = handshake();
    // The SYN-ACK offers 65,535 bytes, unscaled.
    let mut data = tcp(true, Tcp(ACK, 100, 500, 200_000));
    data[2..4].copy_from_slice(&[0, 0]);
    packets.push(data);
    let replayed = replay(&pcap(&packets, None));
    assert_eq!(replayed.verdicts.len(), 4);
    assert_eq!(replayed.verdicts[3]["reason"], "tcp_seq_above_window");
}

#[test]
fn a_length_that_is_wrong_but_stated_stays_malformed() {
    let mut packets = handshake();
    packets[0][2..4].copy_from_slice(&[0, 10]);
    let replayed = replay(&pcap(&packets, None));
    assert_eq!(
        replayed.verdicts[0]["reason"],
        "ipv4_total_length_below_header"
    );
    assert_eq!(replayed.summary["without_length"], 0);
}

#[test]
fn time_that_runs_backwards_is_noted_with_its_first_frame() {
    let packets = handshake();
    let replayed = replay(&pcap(&packets, Some(&[5.0, 3.5, 5.5])));
    assert_eq!(verdicts_of(&replayed), ["forward"; 3]);
    let note = &replayed.summary["time_backwards"];
    assert_eq!(
        (&note["frames"], &note["first_frame"]),
        (&1.into(), &2.into())
    );
    assert_eq!(note["seconds"], 1.5);
    assert!(
        replayed
            .text
            .contains("note: time runs backward in 1 frames, first in frame 2"),
        "{}",
        replayed.text
    );
    let replayed = replay(&pcap(&packets, Some(&[1.0, 1.0, 1.5])));
    assert!(replayed.summary["time_backwards"].is_null());
    assert!(!replayed.text.contains("note:"), "{}", replayed.text);
}

#[test]
fn an_answer_before_its_question_is_noted() {
    let udp = |src: u16, dst: u16, payload: &[u8]| {
        let len = (8 + payload.len()) as u16;
        [
            &src.to_be_bytes(),
            &dst.to_be_bytes(),
            &len.to_be_bytes(),
            &[0, 0][..],
            payload,
        ]
        .concat()
    };
    let ntp = |mode: u8, at: usize| {
        let mut message = vec![0; 48];
        message[0] = 0x20 | mode;
        message[at..at + 8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        message
    };
    let [syn, syn_ack, _] = <[Vec<u8>; 3]>::try_from(handshake()).unwrap();
    let dns = |flags: u8| [0x12, 0x34, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let echo = |kind: u8| [kind, 0, 0, 0, 0, 7, 0, 1];
    let exchanges = [
        (syn, syn_ack),
        (
            ipv4(CLIENT, SERVER, 17, &udp(5000, 53, &dns(1))),
            ipv4(SERVER, CLIENT, 17, &udp(53, 5000, &dns(0x81))),
        ),
        (
            ipv4(CLIENT, SERVER, 17, &udp(123, 123, &ntp(3, 40))),
            ipv4(SERVER, CLIENT, 17, &udp(123, 123, &ntp(4, 24))),
        ),
        (
            ipv4(CLIENT, SERVER, 1, &echo(8)),
            ipv4(SERVER, CLIENT, 1, &echo(0)),
        ),
    ];
    for (question, answer) in exchanges {
        let arp_like = ipv4(CLIENT, SERVER, 200, &[]);
        let swapped = replay(&pcap(&[arp_like, answer.clone(), question.clone()], None));
        let note = &swapped.summary["answers_first"];
        assert_eq!(note["answers"], 1, "{question:02x?}");
        assert_eq!(note["answer_frame"], 2);
        assert_eq!(note["question_frame"], 3);
        assert!(
            swapped.text.contains("the first in frame 2"),
            "{}",
            swapped.text
        );
        // In order, with the question repeated, and with an unrelated question much later.
        for (packets, times) in [
            (
                vec![question.clone(), answer.clone(), question.clone()],
                [0.0, 0.1, 0.2],
            ),
            (
                vec![question.clone(), answer.clone(), answer.clone()],
                [0.0, 0.1, 0.2],
            ),
            (
                vec![answer.clone(), answer.clone(), question.clone()],
                [0.0, 0.1, 9.0],
            ),
        ] {
            let replayed = replay(&pcap(&packets, Some(&times)));
            assert!(
                replayed.summary["answers_first"].is_null(),
                "{question:02x?}"
            );
        }
    }
}

#[test]
fn the_answer_to_a_denied_question_is_not_before_its_question() {
    let [syn, syn_ack, _] = <[Vec<u8>; 3]>::try_from(handshake()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (capture, config) = (scratch.path().join("in"), scratch.path().join("deny.toml"));
    let packets = [syn.clone(), syn_ack, syn];
    std::fs::write(&capture, pcap(&packets, Some(&[0.0, 0.05, 1.02]))).unwrap();
    std::fs::write(&config, "[policy]\ndefault = \"deny\"\n").unwrap();
    let said = portcullis(&[
        "replay",
        path(&capture),
        "--config",
        path(&config),
        "--json",
    ]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(summary["verdicts"]["drop"], 3, "{summary}");
    assert!(summary["answers_first"].is_null(), "{summary}");
}

#[test]
fn sessions_of_every_protocol_with_ports_show_them() {
    let ports = [0x9c, 0x40, 0x13, 0x88]; // 40000 to 5000
    let tag = [0, 0, 0, 0];
    let init = [
        &ports[..],
        &tag,
        &[0; 4],
        &[1, 0, 0, 20],
        &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9],
    ]
    .concat();
    let request = [
        &ports[..],
        &[5, 0, 0, 0],
        &[0x01, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 1],
    ]
    .concat();
    let udp_lite = [&ports[..], &[0, 0, 0, 0]].concat();
    for (protocol, name, payload) in [
        (132, "sctp", init),
        (33, "dccp", request),
        (136, "udplite", udp_lite),
    ] {
        let replayed = replay(&pcap(&[ipv4(CLIENT, SERVER, protocol, &payload)], None));
        assert_eq!(
            verdicts_of(&replayed),
            ["forward"],
            "{name}: {:?}",
            replayed.verdicts
        );
        let session = &replayed.sessions[0];
        assert_eq!(
            (&session["sport"], &session["dport"]),
            (&40_000.into(), &5_000.into())
        );
        assert_eq!(session["proto"], name);
        assert_eq!(
            replayed.summary["talkers"][0]["initiator"],
            "192.0.2.1:40000"
        );
    }
    let replayed = replay(&pcap(&[ipv4(CLIENT, SERVER, 200, &[1, 2, 3, 4])], None));
    assert!(replayed.sessions[0]["sport"].is_null());
}

#[test]
fn the_summary_names_the_first_frames_of_each_drop_reason() {
    let late = tcp(false, Tcp(ACK, 5, 5, 0));
    let mut packets = handshake();
    packets.extend(std::iter::repeat_n(
        ipv4([192, 0, 2, 9], SERVER, 6, &late[20..]),
        5,
    ));
    let replayed = replay(&pcap(&packets, None));
    let frames = &replayed.summary["first_frames"]["tcp_no_session"];
    assert_eq!(*frames, serde_json::json!([4, 5, 6]));
    assert_eq!(replayed.summary["drops"]["tcp_no_session"], 5);
    assert!(replayed.text.contains("4, 5, 6"), "{}", replayed.text);
}

#[test]
fn a_dash_is_standard_output() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    let demo = demo();
    for option in ["--verdicts", "--sessions", "--write"] {
        let (expected, _) = outputs(&["replay", path(&demo), option, path(&file)]);
        let (found, summary) = outputs(&["replay", path(&demo), option, "-"]);
        assert_eq!(found, std::fs::read(&file).unwrap(), "{option}");
        assert_eq!(
            summary,
            text(&expected),
            "{option}: the summary goes to standard error"
        );
    }
    let output = portcullis(&["replay", path(&demo), "--verdicts", "-", "--write", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("standard output and standard output are the same file"),
        "{}",
        text(&output.stderr)
    );
    assert!(!Path::new("-").exists());
}

#[test]
fn a_pcapng_holds_every_packet_with_its_verdict() {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| scratch.path().join(name);
    let (written, verdicts, again) = (file("out.pcapng"), file("v"), file("again"));
    let demo = demo();
    let first = ["--write", path(&written), "--verdicts", path(&verdicts)];
    outputs(&[&["replay", path(&demo)][..], &first].concat());
    let bytes = std::fs::read(&written).unwrap();
    let decided = rows(&verdicts);
    let is_packet = |row: &&Value| row["verdict"] == "forward" || row["verdict"] == "drop";
    let packets: Vec<_> = decided.iter().filter(is_packet).collect();
    for row in &packets {
        let parts = ["verdict", "reason", "class", "direction"].map(|field| row[field].as_str());
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        let comment = format!("{}; frame {} of the capture", parts.join(", "), row["n"]);
        let is_there = bytes
            .windows(comment.len())
            .any(|part| part == comment.as_bytes());
        assert!(is_there, "{comment}");
    }
    // Equal packets get equal verdicts.
    outputs(&["replay", path(&written), "--verdicts", path(&again)]);
    let again = rows(&again);
    assert_eq!(again.len(), packets.len());
    for (row, packet) in again.iter().zip(packets) {
        assert_eq!(
            (&row["verdict"], &row["reason"]),
            (&packet["verdict"], &packet["reason"]),
            "{row} {packet}"
        );
    }
}

#[test]
fn the_first_drop_and_the_first_one_for_a_reason_are_explained() {
    let scratch = tempfile::tempdir().unwrap();
    let verdicts = scratch.path().join("v");
    let demo = demo();
    outputs(&["replay", path(&demo), "--verdicts", path(&verdicts)]);
    let dropped: Vec<_> = rows(&verdicts)
        .into_iter()
        .filter(|row| row["verdict"] == "drop")
        .collect();
    let explain = |wanted: &str| text(&outputs(&["replay", path(&demo), "--explain", wanted]).0);
    let first = dropped[0]["n"].to_string();
    assert_eq!(explain("first-drop"), explain(&first));
    assert!(explain("first-drop").contains("verdict: drop"));
    let reasons: std::collections::BTreeSet<_> = dropped
        .iter()
        .map(|row| row["reason"].as_str().unwrap())
        .collect();
    assert!(!reasons.is_empty());
    for reason in reasons {
        let first = dropped.iter().find(|row| row["reason"] == reason).unwrap();
        assert_eq!(
            explain(reason),
            explain(&first["n"].to_string()),
            "{reason}"
        );
    }
    for (wanted, message) in [
        (
            "syn_challenged",
            "no packet of the capture was dropped or rejected for that reason",
        ),
        ("no_such_reason", "not a frame's number"),
        ("0", "frames are counted from 1"),
    ] {
        let output = portcullis(&["replay", path(&demo), "--explain", wanted]);
        assert_eq!(output.status.code(), Some(1), "{wanted}");
        assert!(
            text(&output.stderr).contains(message),
            "{}",
            text(&output.stderr)
        );
    }
}
