//! Running the binary and reading what it writes.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod captures;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `portcullis` to its end.
pub(crate) fn portcullis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the appliance lies in the project")
        .join(path)
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Reads the verdicts of a replay, in the order of the frames: the final verdict on each.
pub(crate) fn decided(file: &Path) -> Vec<Value> {
    let mut rows = rows(file);
    rows.retain(|row| row["verdict"] != "hold");
    rows.sort_by_key(|row| row["n"].as_u64());
    rows
}

/// Reads a file of JSON lines.
pub(crate) fn rows(file: &Path) -> Vec<Value> {
    std::fs::read_to_string(file)
        .expect("the file was written")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}
