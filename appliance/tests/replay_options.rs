//! Options of `portcullis replay` about frames: tunnels, short frames, stopped time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{path, portcullis, project, rows, text};

/// A pcap's header, then time, packet and length on the wire of each record.
type Records = (Vec<u8>, Vec<([u8; 8], Vec<u8>, u32)>);

/// The packets of the project's capture, written by the project's own writer.
fn packets(scratch: &Path) -> Records {
    let file = scratch.join("plain.pcap");
    let output = portcullis(&[
        "replay",
        path(&project("demo/demo.pcap")),
        "--json",
        "--write",
        path(&file),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = std::fs::read(&file).unwrap();
    let (header, mut rest) = bytes.split_at(24);
    let mut records = Vec::new();
    while let Some((head, behind)) = rest.split_first_chunk::<16>() {
        let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let (packet, behind) = behind.split_at(length(8) as usize);
        records.push((head[..8].try_into().unwrap(), packet.to_vec(), length(12)));
        rest = behind;
    }
    assert!(records.len() > 500, "{} records", records.len());
    (header.to_vec(), records)
}

fn write(file: &Path, (header, records): &Records) {
    let mut bytes = header.clone();
    for (time, packet, wire_len) in records {
        bytes.extend_from_slice(time);
        bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&wire_len.to_le_bytes());
        bytes.extend_from_slice(packet);
    }
    std::fs::write(file, bytes).unwrap();
}

fn verdicts(capture: &Path, options: &[&str]) -> Vec<Value> {
    let file = capture.with_extension("verdicts");
    let output = portcullis(
        &[
            &["replay", path(capture), "--json", "--verdicts", path(&file)],
            options,
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    rows(&file)
}

/// A packet as a load balancer sends it: IPv4, UDP to port 6081, GENEVE with three options.
fn in_geneve(packet: &[u8]) -> Vec<u8> {
    let mut geneve = vec![0x08, 0, 0x08, 0, 0, 0, 0, 0];
    if packet[0] >> 4 == 6 {
        geneve[2..4].copy_from_slice(&[0x86, 0xdd]);
    }
    geneve.extend_from_slice(&[1, 8, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    geneve.extend_from_slice(&[1, 8, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    geneve.extend_from_slice(&[1, 8, 3, 1, 0x39, 0xf7, 0xf1, 0xa7]);
    let udp_len = (8 + geneve.len() + packet.len()) as u16;
    let mut bytes = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    bytes[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    bytes.extend_from_slice(&60_001u16.to_be_bytes());
    bytes.extend_from_slice(&6_081u16.to_be_bytes());
    bytes.extend_from_slice(&udp_len.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&geneve);
    bytes.extend_from_slice(packet);
    bytes
}

#[test]
fn packets_in_geneve_are_decided_as_they_would_be_outside() {
    let scratch = tempfile::tempdir().unwrap();
    let (header, plain) = packets(scratch.path());
    let tunneled = plain
        .iter()
        .filter(|(_, packet, _)| packet.len() < 60_000)
        .map(|(time, packet, _)| {
            let packet = in_geneve(packet);
            (*time, packet.clone(), packet.len() as u32)
        })
        .collect();
    let (outside, inside) = (
        scratch.path().join("plain.pcap"),
        scratch.path().join("geneve.pcap"),
    );
    write(&inside, &(header, tunneled));
    let config = scratch.path().join("link.toml");
    std::fs::write(
        &config,
        "[engine]\nattachment = \"link\"\n[policy]\ndefault = \"allow\"\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let expected = verdicts(&outside, &["--decapsulate", "--config", config]);
    assert_eq!(
        verdicts(&inside, &["--decapsulate", "--config", config]),
        expected
    );
    // By default, packets from a tunnel do not belong to a link.
    let mut dropped = 0;
    for (inside, outside) in verdicts(&inside, &["--decapsulate"]).iter().zip(&expected) {
        if outside["class"] == "untracked" {
            assert_eq!(inside["reason"], "discovery_in_tunnel", "{inside:?}");
            dropped += 1;
        } else {
            assert_eq!(inside, outside);
        }
    }
    assert!(dropped > 0, "the capture has discovery");
    assert!(
        verdicts(&inside, &[])
            .iter()
            .all(|row| row["session"] == 1 && row["direction"] == "original")
    );
}

#[test]
fn a_broken_tunnel_is_skipped_by_name() {
    let scratch = tempfile::tempdir().unwrap();
    let (header, plain) = packets(scratch.path());
    let mut packet = in_geneve(&plain[0].1);
    packet[28] |= 0x40;
    let file = scratch.path().join("version.pcap");
    let wire_len = packet.len() as u32;
    write(&file, &(header, vec![(plain[0].0, packet, wire_len)]));
    let rows = verdicts(&file, &["--decapsulate"]);
    assert_eq!(
        (&rows[0]["verdict"], &rows[0]["reason"]),
        (&"skip".into(), &"geneve_version".into())
    );
}

#[test]
fn short_frames_are_filled_up_only_on_request() {
    let scratch = tempfile::tempdir().unwrap();
    let (header, plain) = packets(scratch.path());
    let with_payload = plain
        .iter()
        .find(|(_, packet, _)| packet.len() > 200)
        .unwrap();
    let short = with_payload.1[..100].to_vec();
    let file = scratch.path().join("short.pcap");
    write(&file, &(header, vec![(with_payload.0, short, 100)]));
    let reason = |options: &[&str]| verdicts(&file, options)[0]["reason"].clone();
    assert!(reason(&[]).as_str().unwrap().contains("beyond_packet"));
    assert!(
        !reason(&["--pad-short"])
            .to_string()
            .contains("beyond_packet")
    );
}

#[test]
fn without_lifetimes_a_late_packet_finds_its_session() {
    let scratch = tempfile::tempdir().unwrap();
    let (header, plain) = packets(scratch.path());
    let udp = plain
        .iter()
        .find(|(_, packet, _)| packet[0] == 0x45 && packet[9] == 17)
        .unwrap();
    let mut late = udp.clone();
    let seconds = u32::from_le_bytes(late.0[..4].try_into().unwrap()) + 100_000;
    late.0[..4].copy_from_slice(&seconds.to_le_bytes());
    let file = scratch.path().join("late.pcap");
    write(&file, &(header, vec![udp.clone(), late]));
    let sessions = |options: &[&str]| verdicts(&file, options)[1]["session"].clone();
    assert_eq!(sessions(&[]), 2);
    assert_eq!(sessions(&["--no-lifetimes"]), 1);
}

/// The identification and offset of a fragment.
fn fragment(packet: &[u8]) -> Option<(Vec<u8>, u16)> {
    let field = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    match packet[0] >> 4 {
        4 if field(6) & 0x3fff != 0 => Some((packet[4..6].to_vec(), field(6) & 0x1fff)),
        6 if packet[6] == 44 => Some((packet[44..48].to_vec(), field(42) >> 3)),
        _ => None,
    }
}

#[test]
fn fragments_before_their_first_are_held_and_written_after_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (header, mut records) = packets(scratch.path());
    let plain = scratch.path().join("plain.pcap");
    let expected = verdicts(&plain, &[]);
    // Each sender emits its fragments from the last to the first.
    let of = |packet: &[u8]| fragment(packet).map(|(id, _)| id);
    let mut reversed = 0;
    for run in
        records.chunk_by_mut(|(_, one, _), (_, next, _)| of(one).is_some() && of(one) == of(next))
    {
        let times: Vec<_> = run.iter().map(|(time, ..)| *time).collect();
        reversed += run.len() - 1;
        run.reverse();
        for ((time, ..), right) in run.iter_mut().zip(times) {
            *time = right;
        }
    }
    assert!(reversed > 8, "{reversed} fragments before their first");
    let (file, out) = (
        scratch.path().join("reversed.pcap"),
        scratch.path().join("out.pcap"),
    );
    write(&file, &(header, records.clone()));
    let rows = verdicts(&file, &["--write", path(&out)]);
    let count =
        |rows: &[Value], verdict: &str| rows.iter().filter(|row| row["verdict"] == verdict).count();
    assert_eq!(count(&rows, "hold"), reversed);
    assert_eq!(count(&rows, "forward"), count(&expected, "forward"));
    assert_eq!(count(&rows, "drop"), count(&expected, "drop"));
    assert_eq!(
        rows.len(),
        records.len() + reversed,
        "a row more for each that was held"
    );
    // The output has the same packets, with the first fragment of each datagram in front.
    let written = std::fs::read(&out).unwrap();
    let mut rest = &written[24..];
    let mut seen = std::collections::HashSet::new();
    let mut packets = Vec::new();
    while let Some((head, behind)) = rest.split_first_chunk::<16>() {
        let len = u32::from_le_bytes(head[8..12].try_into().unwrap());
        let (packet, behind) = behind.split_at(len as usize);
        if let Some((id, offset)) = fragment(packet) {
            assert_eq!(seen.insert(id), offset == 0);
        }
        packets.push(packet.to_vec());
        rest = behind;
    }
    let mut came: Vec<_> = records.into_iter().map(|(_, packet, _)| packet).collect();
    came.sort();
    packets.sort();
    assert!(packets == came, "the same packets");
    // Both decisions on a held frame are explained.
    let held = rows.iter().find(|row| row["verdict"] == "hold").unwrap();
    let frame = held["n"].to_string();
    let output = portcullis(&["replay", path(&file), "--explain", &frame]);
    let text = text(&output.stdout);
    assert!(
        text.contains("waits for the first fragment")
            && text.contains("the decision on the first one applies"),
        "{text}"
    );
    let output = portcullis(&["replay", path(&file), "--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["fragments_held"].as_u64(), Some(reversed as u64));
}
