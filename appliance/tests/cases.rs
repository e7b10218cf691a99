//! Small captures made from public reports, each with the correct verdict on the frames that
//! matter.
//!
//! A folder of `tests/cases` is a case: `case.md` describes its source and the correct result,
//! `in.pcap` is replayed with `config.toml` and `args` if they exist, and `expected.json` lists
//! frames with the fields of their rows in `--verdicts`.
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

use serde_json::Value;
use support::{path, portcullis, project, rows, text};

/// Cases that are known to fail. A case that passes must be removed from the list.
const KNOWN_WRONG: &[&str] = &[];

/// The fields of a row for which a case may have expectations.
const JUDGED: [&str; 4] = ["verdict", "class", "reason", "direction"];

/// The folders of the cases, by name.
fn cases() -> BTreeMap<String, PathBuf> {
    let folder = project("tests/cases");
    std::fs::read_dir(&folder)
        .expect("the folder of cases is read")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|case| case.join("expected.json").exists())
        .map(|case| (case.file_name().unwrap().to_str().unwrap().to_owned(), case))
        .collect()
}

/// Replays a case and returns the differences from its expectations.
fn differences(case: &Path) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let verdicts = scratch.path().join("verdicts");
    let (capture, config) = (case.join("in.pcap"), case.join("config.toml"));
    let mut arguments = vec!["replay", path(&capture), "--verdicts", path(&verdicts)];
    if config.exists() {
        arguments.extend(["--config", path(&config)]);
    }
    let more = std::fs::read_to_string(case.join("args")).unwrap_or_default();
    arguments.extend(more.split_whitespace());
    let output = portcullis(&arguments);
    if !verdicts.exists() {
        return vec![text(&output.stderr)];
    }
    // A held fragment has a second row, which is the one that counts.
    let rows: BTreeMap<_, _> = rows(&verdicts)
        .into_iter()
        .map(|row| (row["n"].as_u64().expect("a frame number"), row))
        .collect();
    let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&expected).expect("a list of frames");
    assert!(!expected.is_empty(), "{}: expects nothing", case.display());
    let mut differences = Vec::new();
    for frame in &expected {
        let number = frame["n"].as_u64().expect("a frame number");
        let row = rows.get(&number).unwrap_or(&Value::Null);
        let mut judged = 0;
        for field in JUDGED {
            let Some(right) = frame.get(field) else {
                continue;
            };
            judged += 1;
            if row[field] != *right {
                differences.push(format!(
                    "frame {number}: {field} {}, expected {right} (reason {})",
                    row[field], row["reason"]
                ));
            }
        }
        assert!(
            judged > 0,
            "{}: frame {number} expects nothing",
            case.display()
        );
    }
    differences
}

#[test]
fn every_case_is_right_but_those_known_to_be_wrong() {
    let cases = cases();
    let known: BTreeSet<_> = KNOWN_WRONG.iter().copied().collect();
    assert_eq!(known.len(), KNOWN_WRONG.len(), "a case is listed twice");
    let mut faults = Vec::new();
    for name in &known {
        if !cases.contains_key(*name) {
            faults.push(format!(
                "{name}: listed as wrong, but there is no such case"
            ));
        }
    }
    for (name, case) in &cases {
        match (differences(case), known.contains(name.as_str())) {
            (differences, true) if differences.is_empty() => {
                faults.push(format!("{name}: right now, take it off the list"));
            }
            (differences, false) => {
                faults.extend(differences.iter().map(|each| format!("{name}: {each}")));
            }
            _ => {}
        }
    }
    assert!(cases.len() >= 43, "only {} cases are there", cases.len());
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
