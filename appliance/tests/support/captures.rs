//! The collection of captures, which is not part of the project.
//!
//! The settings beside the tests name its folder. Tests that need the collection have a harness of
//! their own, which reports them as ignored where the folder is absent.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use serde::de::DeserializeOwned;

/// One capture of the collection.
pub(crate) struct Capture {
    pub(crate) core: bool,
    pub(crate) category: String,
    pub(crate) file: String,
    pub(crate) packets: usize,
}

/// Captures in which every packet is a martian, with the reason for which each is dropped.
pub(crate) const MARTIANS: [(&str, &str); 1] = [(
    // The traffic of a generator that writes no TTL.
    "tcp-loss/zeek_tcp__retransmit-fast009.pcap",
    "ttl_zero",
)];

/// Writes the configuration with which comparisons with other trackers replay a capture, if it
/// needs one: other trackers do not check addresses, and their results for martian connections are
/// useful for comparison.
pub(crate) fn configuration(capture: &Path, scratch: &Path) -> Option<PathBuf> {
    let is_martian = MARTIANS.iter().any(|(file, _)| capture.ends_with(file));
    is_martian.then(|| {
        let file = scratch.join("martians.toml");
        let text = "[policy]\ndefault = \"allow\"\n[ip]\nmartians = \"allow\"\n";
        std::fs::write(&file, text).expect("a configuration");
        file
    })
}

/// Reads the settings of a comparison: a TOML file beside the tests.
pub(crate) fn settings<T: DeserializeOwned>(name: &str) -> T {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    let text = std::fs::read_to_string(&file).expect("the settings of a comparison");
    toml::from_str(&text).expect("valid settings of a comparison")
}

/// Prints a line of a comparison, with `--nocapture` alone.
#[allow(unused_macros, reason = "each test file uses a part")]
macro_rules! note {
    ($($arguments:tt)*) => {
        if std::env::args().any(|argument| argument == "--nocapture") {
            println!($($arguments)*);
        }
    };
}
#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use note;

/// A test that runs anywhere.
pub(crate) fn always(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A test that needs the collection, and is reported as ignored if its folder is absent.
pub(crate) fn needing(folder: &Path, name: &str, test: fn()) -> Trial {
    let is_absent = !located(folder).exists();
    always(name, test).with_ignored_flag(is_absent)
}

/// Runs tests as the harness of Rust does.
pub(crate) fn run(tests: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Resolves the folder that a settings file names.
pub(crate) fn located(folder: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Returns the collection's folder and captures.
pub(crate) fn collection(folder: &Path) -> (PathBuf, Vec<Capture>) {
    let folder = located(folder);
    let manifest = folder.join("MANIFEST.tsv");
    let text = std::fs::read_to_string(manifest).expect("the manifest is read");
    let mut lines = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let head = lines.next().expect("a head line");
    let column = |name: &str| {
        head.iter()
            .position(|each| *each == name)
            .expect("a column of the manifest")
    };
    let [tier, category, file, packets] = ["tier", "category", "file", "packets"].map(column);
    let captures = lines
        .map(|row| Capture {
            core: row[tier] == "core",
            category: row[category].to_owned(),
            file: row[file].to_owned(),
            packets: row[packets].parse().expect("a number of packets"),
        })
        .collect::<Vec<_>>();
    assert!(
        captures.len() > 100,
        "{} captures in the manifest",
        captures.len()
    );
    (folder, captures)
}
