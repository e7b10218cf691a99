//! A replay reports asymmetric paths in captures that have one direction, and in no others.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use support::captures::{self, collection, note};

#[derive(Deserialize)]
struct Settings {
    captures: PathBuf,
}

/// Every connection becomes a session, regardless of where it begins and even if only one direction
/// is present.
const LENIENT: &str = "[policy]\ndefault = \"allow\"\n[tcp]\nmode = \"liberal\"\n\
                       midstream = \"adopt\"\nasymmetric = \"bypass\"\n";

fn summary(capture: &Path, options: &[&str]) -> Value {
    let arguments = [
        &[
            "replay",
            support::path(capture),
            "--json",
            "--decapsulate",
            "--pad-short",
        ],
        options,
    ]
    .concat();
    let output = support::portcullis(&arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The directions of one-way connections, as the prefixes of the report.
fn one_way(capture: &Path, scratch: &Path) -> BTreeSet<(String, String)> {
    let config = scratch.join("lenient.toml");
    std::fs::write(&config, LENIENT).expect("the configuration is written");
    let rows = scratch.join("sessions");
    summary(
        capture,
        &[
            "--config",
            support::path(&config),
            "--sessions",
            support::path(&rows),
        ],
    );
    let sessions = support::rows(&rows);
    let mut found = BTreeSet::new();
    for session in sessions.iter().filter(|session| session["proto"] == "tcp") {
        let (src, dst) = (prefix(&session["src"]), prefix(&session["dst"]));
        if session["resp_pkts"] == 0 {
            found.insert((src.clone(), dst.clone()));
        }
        if session["orig_pkts"] == 0 {
            found.insert((dst, src));
        }
    }
    found
}

fn prefix(address: &Value) -> String {
    match address
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address")
    {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            format!("{}/64", std::net::Ipv6Addr::from_bits(bits))
        }
    }
}

fn settings() -> Settings {
    let file = support::project("appliance/tests/conformance.toml");
    toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn no_path_is_accused_of_which_the_capture_holds_both_directions() {
    let settings = settings();
    let (folder, captures) = collection(&settings.captures);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (mut accused, mut oneway) = (0, 0);
    for capture in &captures {
        let file = folder.join(&capture.file);
        let summary = summary(&file, &[]);
        let empty = Vec::new();
        let lines = summary["asymmetry"].as_array().unwrap_or(&empty);
        let lines: Vec<_> = lines
            .iter()
            .filter(|line| !line["missing"].is_null())
            .collect();
        if lines.is_empty() {
            continue;
        }
        let really = one_way(&file, scratch.path());
        for line in lines {
            let path = (
                line["from"].as_str().unwrap().to_owned(),
                line["to"].as_str().unwrap().to_owned(),
            );
            note!("{}: {line}", capture.file);
            assert!(
                really.contains(&path),
                "{}: {line}, but one-way are {really:?}",
                capture.file
            );
            accused += 1;
            oneway += usize::from(capture.category == "tcp-oneway");
        }
    }
    assert!(
        oneway >= 5 && accused > oneway,
        "{accused} accused, {oneway} of them in captures of one direction"
    );
}

fn main() -> ExitCode {
    captures::run(vec![captures::needing(
        &settings().captures,
        "no_path_is_accused_of_which_the_capture_holds_both_directions",
        no_path_is_accused_of_which_the_capture_holds_both_directions,
    )])
}
