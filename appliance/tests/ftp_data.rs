//! Compares the FTP data connections that Linux or Suricata recognize in a collection of captures
//! with the related sessions of a replay.
//!
//! The replay allows port 21 and nothing else, so every data session was announced. `ftp_data.toml`
//! lists every connection that not all three recognize. Without the captures, which are not part of
//! the project, the comparison is reported as ignored.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use support::captures::{self, note};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    captures: PathBuf,
    folders: Vec<String>,
    connections: usize,
    difference: Vec<Difference>,
}

/// Connections that not all of them recognize.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    capture: String,
    modes: Vec<String>,
    /// Each connection as `caller -> called`.
    connections: Vec<String>,
    recognized_by: BTreeSet<Who>,
    reason: String,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Who {
    Linux,
    Suricata,
    Ours,
}

fn settings() -> Settings {
    captures::settings("ftp_data.toml")
}

/// Returns the collection's folder, and the captures of the compared folders.
fn collection(settings: &Settings) -> (PathBuf, Vec<String>) {
    let root = captures::located(&settings.captures);
    let mut captures = Vec::new();
    for folder in &settings.folders {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder of the collection") {
            let name = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8");
            if name.ends_with(".pcap") || name.ends_with(".pcapng") {
                captures.push(format!("{folder}/{name}"));
            }
        }
    }
    captures.sort();
    (root, captures)
}

fn json(file: &Path) -> Value {
    let text =
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// `caller -> called`, of an object with these four fields.
fn connection(row: &Value) -> String {
    let word = |name: &str| row[name].as_str().expect("an address");
    let port = |name: &str| row[name].as_u64().expect("a port");
    format!(
        "{} {} -> {} {}",
        word("src"),
        port("sport"),
        word("dst"),
        port("dport")
    )
}

/// A replay: a row for each frame, and the sessions by their numbers.
fn replay(capture: &Path, mode: &str, scratch: &Path) -> (Vec<Value>, BTreeMap<u64, Value>) {
    let config = scratch.join("config.toml");
    let tcp = match mode {
        "strict" => "mode = \"strict\"",
        _ => "mode = \"liberal\"\nmidstream = \"adopt\"",
    };
    let text = format!(
        "[tcp]\n{tcp}\n[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\n\
         action = \"allow\"\nprotocol = \"tcp\"\ndestination_ports = 21\n"
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let (verdicts, sessions) = (scratch.join("verdicts"), scratch.join("sessions"));
    let arguments = [
        "replay",
        support::path(capture),
        "--config",
        support::path(&config),
        "--verdicts",
        support::path(&verdicts),
        "--sessions",
        support::path(&sessions),
        "--json",
        "--decapsulate",
        "--pad-short",
        "--no-lifetimes",
    ];
    let output = support::portcullis(&arguments);
    let code = output.status.code();
    assert!(
        code == Some(0) || code == Some(2),
        "{}: exit code {code:?}: {}",
        capture.display(),
        support::text(&output.stderr)
    );
    let sessions = support::rows(&sessions);
    let number = |row: &Value| row["id"].as_u64().expect("a number");
    (
        support::decided(&verdicts),
        sessions
            .into_iter()
            .map(|row| (number(&row), row))
            .collect(),
    )
}

/// The data sessions of the replay; each must belong to a control session between the same hosts.
fn ours(sessions: &BTreeMap<u64, Value>) -> BTreeSet<String> {
    let children = sessions.values().filter(|row| !row["parent"].is_null());
    children
        .map(|row| {
            let parent = &sessions[&row["parent"].as_u64().expect("a number")];
            assert_eq!(parent["dport"].as_u64(), Some(21), "{row}");
            let hosts = |row: &Value| {
                BTreeSet::from(
                    ["src", "dst"].map(|end| row[end].as_str().expect("an address").to_owned()),
                )
            };
            assert_eq!(hosts(row), hosts(parent), "{row}");
            assert_eq!(row["rule"], parent["rule"], "{row}");
            connection(row)
        })
        .collect()
}

/// The data connections of Linux: those of the frames that Linux classifies as related. If the
/// replay has no session, the frame represents the connection.
fn linux(baseline: &Value, rows: &[Value], sessions: &BTreeMap<u64, Value>) -> BTreeSet<String> {
    let runs = baseline["states"].as_array().expect("states");
    let verdicts = runs.iter().flat_map(|run| {
        let count = run[1].as_u64().expect("a count") as usize;
        std::iter::repeat_n(run[0].as_str().expect("a state"), count)
    });
    let verdicts: Vec<_> = verdicts.collect();
    assert_eq!(verdicts.len(), rows.len(), "frames of the baseline");
    let related = verdicts
        .iter()
        .zip(rows)
        .filter(|(verdict, _)| verdict.starts_with("REL"));
    related
        .map(|(_, row)| match row["session"].as_u64() {
            Some(session) => connection(&sessions[&session]),
            None => format!("frame {}", row["n"]),
        })
        .collect()
}

/// The data connections of Suricata.
fn suricata(baseline: &Value) -> BTreeSet<String> {
    let flows = baseline["flows"].as_array().expect("flows");
    let data = flows
        .iter()
        .filter(|flow| flow["app_proto"].as_str() == Some("ftp-data"));
    data.map(connection).collect()
}

fn data_connections_that_linux_or_suricata_recognise_are_related_to_their_control_session() {
    let settings = settings();
    let (root, captures) = collection(&settings);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut used = vec![BTreeSet::new(); settings.difference.len()];
    let (mut recognized, mut unlisted) = (0, Vec::new());
    for capture in &captures {
        let file = root.join(capture);
        let conntrack = json(&file.with_extension("conntrack.json"));
        let tools = json(&file.with_extension("tools.json"));
        for mode in ["strict", "loose"] {
            let (rows, sessions) = replay(&file, mode, scratch.path());
            let mut by: BTreeMap<String, BTreeSet<Who>> = BTreeMap::new();
            for (who, connections) in [
                (Who::Linux, linux(&conntrack[mode], &rows, &sessions)),
                (Who::Suricata, suricata(&tools[&format!("suricata_{mode}")])),
                (Who::Ours, ours(&sessions)),
            ] {
                for connection in connections {
                    by.entry(connection).or_default().insert(who);
                }
            }
            note!("{:3} {mode} {capture}", by.len());
            for (connection, who) in by {
                if who.len() == 3 {
                    recognized += usize::from(mode == "strict");
                    continue;
                }
                let entry = settings.difference.iter().position(|each| {
                    each.capture == *capture
                        && each.modes.iter().any(|each| each == mode)
                        && each.connections.contains(&connection)
                        && each.recognized_by == who
                });
                note!("    {connection}: {who:?}");
                match entry {
                    Some(entry) => {
                        used[entry].insert((mode, connection));
                    }
                    None => unlisted.push(format!("{capture}, {mode}: {connection}: {who:?}")),
                }
            }
        }
    }
    note!("{recognized} data connections are recognized by all three");
    assert!(
        unlisted.is_empty(),
        "differences that are not listed:\n{}",
        unlisted.join("\n")
    );
    for (entry, used) in settings.difference.iter().zip(&used) {
        note!("listed, {}: {}", used.len(), entry.reason);
        assert_eq!(
            used.len(),
            entry.connections.len() * entry.modes.len(),
            "{}: listed, but there is no such difference",
            entry.capture
        );
    }
    assert_eq!(recognized, settings.connections, "recognized by all three");
}

fn main() -> ExitCode {
    captures::run(vec![captures::needing(
        &settings().captures,
        "data_connections_that_linux_or_suricata_recognise_are_related_to_their_control_session",
        data_connections_that_linux_or_suricata_recognise_are_related_to_their_control_session,
    )])
}
