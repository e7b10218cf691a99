//! Compares the decision on every packet of a collection of captures with that of Linux conntrack.
//!
//! `conformance.toml` names the folder of the collection and lists every known difference. Without
//! the folder the tests are reported as ignored.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use support::captures::{self, MARTIANS, collection, configuration, note};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    captures: PathBuf,
    core_floor: f64,
    all_floor: f64,
    difference: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    captures: Vec<String>,
    linux: Vec<String>,
    ours: Vec<String>,
    reason: String,
}

/// Replays a capture and returns a row per frame.
fn replay(capture: &Path, rows: &Path, options: &[&str]) -> Vec<Value> {
    let arguments = [
        &[
            "replay",
            support::path(capture),
            "--verdicts",
            support::path(rows),
            "--json",
        ],
        options,
    ];
    let output = support::portcullis(&arguments.concat());
    let code = output.status.code();
    assert!(
        code == Some(0) || code == Some(2),
        "{}: exit code {code:?}: {}",
        capture.display(),
        support::text(&output.stderr)
    );
    support::decided(rows)
}

/// Linux' verdict per packet.
fn baseline(capture: &Path) -> Option<Vec<String>> {
    let file = capture.with_extension("conntrack.json");
    let text = std::fs::read_to_string(file).ok()?;
    let json: Value = serde_json::from_str(&text).expect("a baseline");
    let runs = json["strict"]["states"].as_array().expect("states");
    let run = |run: &Value| {
        let count = run[1].as_u64().expect("a count") as usize;
        std::iter::repeat_n(run[0].as_str().expect("a state").to_owned(), count)
    };
    Some(runs.iter().flat_map(run).collect())
}

/// Class and direction that agree with a verdict of Linux; `None` if Linux has none.
fn expected(linux: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match linux {
        "NEW" => ("new", Some("original")),
        "EST>" => ("established", Some("original")),
        "EST<" => ("established", Some("reply")),
        "REL>" => ("related", Some("original")),
        "REL<" => ("related", Some("reply")),
        "INVALID" => ("invalid", None),
        "UNTRACKED" => ("untracked", None),
        "none" | "-" => return None,
        other => panic!("unknown verdict {other}"),
    })
}

fn listed(pattern: &str, file: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == file, |prefix| file.starts_with(prefix))
}

/// The baseline was made at full speed, from the packets inside GENEVE, with short frames padded.
const AS_THE_BASELINE: &[&str] = &["--decapsulate", "--pad-short", "--no-lifetimes"];

fn settings() -> Settings {
    captures::settings("conformance.toml")
}

fn class_and_direction_agree_with_linux_except_where_it_is_listed() {
    let settings = settings();
    let (folder, captures) = collection(&settings.captures);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (mut core, mut all) = ((0usize, 0usize), (0usize, 0usize));
    let mut used = vec![0usize; settings.difference.len()];
    let mut unlisted = Vec::new();
    let mut compared = 0;
    for capture in &captures {
        let file = folder.join(&capture.file);
        let Some(linux) = baseline(&file) else {
            continue;
        };
        let configuration = configuration(&file, scratch.path());
        let configured: Vec<_> = configuration
            .iter()
            .flat_map(|file| ["--config", support::path(file)])
            .collect();
        let options = [AS_THE_BASELINE, &configured].concat();
        let ours = replay(&file, &scratch.path().join("verdicts"), &options);
        assert_eq!(
            ours.len(),
            linux.len(),
            "{}: rows and packets of the baseline",
            capture.file
        );
        compared += 1;
        let (mut agreed, mut both) = (0, 0);
        let mut differing: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for (row, linux) in ours.iter().zip(&linux) {
            let Some((class, direction)) = expected(linux) else {
                continue;
            };
            let Some(our_class) = row["class"].as_str() else {
                continue;
            };
            both += 1;
            if our_class == class && (direction.is_none() || row["direction"].as_str() == direction)
            {
                agreed += 1;
                continue;
            }
            let detail = row["reason"]
                .as_str()
                .or(row["direction"].as_str())
                .unwrap_or("-");
            let n = row["n"].as_u64().expect("a frame number");
            differing
                .entry((linux.clone(), format!("{our_class} {detail}")))
                .or_default()
                .push(n);
        }
        let share = if both == 0 {
            100.0
        } else {
            agreed as f64 * 100.0 / both as f64
        };
        note!("{share:6.2} %  {agreed:5} of {both:5}  {}", capture.file);
        for ((linux, ours), frames) in differing {
            note!("          Linux {linux}, ours {ours}: frames {frames:?}");
            let entry = settings.difference.iter().position(|each| {
                each.captures
                    .iter()
                    .any(|pattern| listed(pattern, &capture.file))
                    && each.linux.contains(&linux)
                    && each.ours.contains(&ours)
            });
            match entry {
                Some(entry) => used[entry] += frames.len(),
                None => unlisted.push(format!(
                    "{}: Linux {linux}, ours {ours}: {frames:?}",
                    capture.file
                )),
            }
        }
        all = (all.0 + agreed, all.1 + both);
        if capture.core && !matches!(capture.category.as_str(), "malformed" | "frag") {
            core = (core.0 + agreed, core.1 + both);
        }
    }
    let share = |(agreed, both): (usize, usize)| agreed as f64 / both as f64;
    note!(
        "core: {:.3} % of {} packets agree",
        share(core) * 100.0,
        core.1
    );
    note!(
        "all:  {:.3} % of {} packets agree, {compared} captures",
        share(all) * 100.0,
        all.1
    );
    for (entry, count) in settings.difference.iter().zip(&used) {
        note!("listed, {count} packets: {}", entry.reason);
    }
    assert!(
        compared > 100 && core.1 > 5_000 && all.1 > 20_000,
        "the comparison has lost its material"
    );
    assert!(
        unlisted.is_empty(),
        "differences that are not listed:\n{}",
        unlisted.join("\n")
    );
    let idle: Vec<_> = settings
        .difference
        .iter()
        .zip(&used)
        .filter(|(_, count)| **count == 0)
        .map(|(e, _)| &e.reason)
        .collect();
    assert!(
        idle.is_empty(),
        "listed, but there is no such difference: {idle:?}"
    );
    assert!(
        share(core) >= settings.core_floor,
        "core agreement {}",
        share(core)
    );
    assert!(share(all) >= settings.all_floor, "agreement {}", share(all));
}

fn every_capture_gives_a_row_for_each_of_its_frames() {
    let settings = settings();
    let (folder, captures) = collection(&settings.captures);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    for capture in &captures {
        let rows = replay(
            &folder.join(&capture.file),
            &scratch.path().join("verdicts"),
            &[],
        );
        assert_eq!(rows.len(), capture.packets, "{}", capture.file);
        for (n, row) in (1..).zip(&rows) {
            assert_eq!(row["n"].as_u64(), Some(n), "{}", capture.file);
            let verdict = row["verdict"].as_str().expect("a verdict");
            assert!(["forward", "drop", "reject", "skip"].contains(&verdict));
            assert_eq!(
                row["reason"].is_null(),
                verdict == "forward",
                "{} frame {n}",
                capture.file
            );
            assert_eq!(
                row["class"].is_null(),
                verdict == "skip",
                "{} frame {n}",
                capture.file
            );
        }
    }
}

fn captures_of_martians_are_dropped_by_default() {
    let settings = settings();
    let (folder, _) = collection(&settings.captures);
    let scratch = tempfile::tempdir().expect("a scratch folder");
    for (file, reason) in MARTIANS {
        let rows = replay(&folder.join(file), &scratch.path().join("verdicts"), &[]);
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|row| row["reason"] == reason), "{file}");
    }
}

fn main() -> ExitCode {
    let folder = settings().captures;
    let needing = |name, test| captures::needing(&folder, name, test);
    captures::run(vec![
        needing(
            "class_and_direction_agree_with_linux_except_where_it_is_listed",
            class_and_direction_agree_with_linux_except_where_it_is_listed,
        ),
        needing(
            "every_capture_gives_a_row_for_each_of_its_frames",
            every_capture_gives_a_row_for_each_of_its_frames,
        ),
        needing(
            "captures_of_martians_are_dropped_by_default",
            captures_of_martians_are_dropped_by_default,
        ),
    ])
}
