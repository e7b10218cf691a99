//! A collection of captures that is not part of the project; `conformance.toml` says where it lies.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A capture of it.
pub(crate) struct Capture {
    pub(crate) core: bool,
    pub(crate) category: String,
    pub(crate) file: String,
    pub(crate) packets: usize,
}

/// Captures whose every packet is a martian, with the reason for which each is dropped.
pub(crate) const MARTIANS: [(&str, &str); 1] = [(
    // The traffic of a generator that writes no TTL.
    "tcp-loss/zeek_tcp__retransmit-fast009.pcap",
    "ttl_zero",
)];

/// Writes the configuration by which comparisons with other trackers replay a capture, if it needs
/// one: those judge no addresses, and what they say of a martian connection is worth comparing.
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
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let text = std::fs::read_to_string(&file).expect("the settings of a comparison");
    toml::from_str(&text).expect("valid settings of a comparison")
}

/// Returns whether a collection is there.
///
/// # Panics
/// The collection is missing and `CI` is set.
pub(crate) fn is_there(collection: &Path) -> bool {
    let is_there = collection.exists();
    if !is_there {
        let missing = collection.display();
        assert!(std::env::var_os("CI").is_none(), "no captures at {missing}");
        eprintln!("skipped: no captures at {missing}");
    }
    is_there
}

/// The collection's folder and captures, or `None` where it is absent and may be.
pub(crate) fn collection(folder: &Path) -> Option<(PathBuf, Vec<Capture>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let manifest = folder.join("MANIFEST.tsv");
    if !is_there(&manifest) {
        return None;
    }
    let text = std::fs::read_to_string(manifest).expect("the manifest is read");
    let mut lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
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
    Some((folder, captures))
}
