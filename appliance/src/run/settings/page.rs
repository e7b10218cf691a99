//! The reference page of the configuration is made from the declarations, and stays true to them.

use portcullis::Config;
use portcullis::config::{Document, KeyReference, SectionReference};

use super::Settings;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIG.md");

const HEAD: &str = "\
# Configuration

Every key of the configuration file, by section. `portcullis check FILE` prints the values in force,
each with its origin. A reload (SIGHUP) applies every key that does not need a restart; the value of
a key that does waits for the next start.

A duration is a string such as `\"2h 4m\"` or `\"500ms\"`, or a number of seconds. A list of one \
value
can be written without brackets. `NAME` stands for any name, and `[]` for each table of a list,
which is written with double brackets (`[[policy.rule]]`).

This page is made by `UPDATE=1 cargo test -p portcullis-appliance page`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, sections) in [
        ("Engine and tunnel", Config::reference()),
        ("Appliance", Settings::reference()),
    ] {
        page.push_str(&format!("\n## {title}\n"));
        sections.iter().for_each(|each| section(each, &mut page));
    }
    page
}

fn section(section: &SectionReference, page: &mut String) {
    page.push_str(&format!("\n### {}\n\n", heading(&section.path)));
    if !section.about.is_empty() {
        let about = section
            .about
            .strip_prefix(&format!("`[{}]`: ", section.path));
        page.push_str(&wrapped(&capitalized(about.unwrap_or(&section.about))));
        page.push_str("\n\n");
    }
    page.push_str(
        "| key | type | default | bounds | change | meaning |\n|---|---|---|---|---|---|\n",
    );
    for key in &section.keys {
        page.push_str(&row(key));
    }
}

fn heading(path: &str) -> String {
    match path.strip_suffix("[]") {
        Some(list) => format!("`[[{list}]]`"),
        None => format!("`[{}]`", path.replace("[]", "")),
    }
}

fn row(key: &KeyReference) -> String {
    let kind = match key.unit.is_empty() {
        true => key.kind.clone(),
        false => format!("{}, {}", key.kind, key.unit),
    };
    let default = match (key.is_required, key.default.is_empty()) {
        (true, _) => "required".to_owned(),
        (false, true) => format!("not set: {}", key.why),
        (false, false) if key.why.is_empty() => format!("`{}`", key.default),
        (false, false) => format!("`{}`: {}", key.default, key.why),
    };
    let change = if key.is_restart { "restart" } else { "reload" };
    let cells = [
        format!("`{}`", key.name),
        kind,
        default,
        key.bounds.clone(),
        change.to_owned(),
        key.doc.clone(),
    ];
    format!(
        "| {} |\n",
        cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
    )
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Wraps a text at 100 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, String::len);
        if line > 0 && line + 1 + word.len() > 100 {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[test]
fn the_page_has_every_key() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, page()).unwrap();
    }
    let there = std::fs::read_to_string(PAGE).unwrap();
    assert!(
        there == page(),
        "docs/CONFIG.md is stale: UPDATE=1 cargo test -p portcullis-appliance page"
    );
}

#[test]
fn every_printed_key_is_on_the_page() {
    let mut values = Config::default().effective();
    values.extend(Settings::default().effective(&Config::default()));
    let sections: Vec<_> = Config::reference()
        .into_iter()
        .chain(Settings::reference())
        .collect();
    let is_there = |key: &str| {
        sections.iter().any(|section| {
            let below = key
                .strip_prefix(section.path.as_str())
                .and_then(|rest| rest.strip_prefix('.'));
            let name = if section.path.is_empty() {
                Some(key)
            } else {
                below
            };
            name.is_some_and(|name| {
                section
                    .keys
                    .iter()
                    .any(|key| key.name == name || key.name == "NAME")
            })
        })
    };
    for value in values {
        assert!(is_there(&value.key), "{}", value.key);
    }
}

/// Returns the sample with its commented keys, as lines such as `# key = value`, in force.
pub(crate) fn uncommented() -> String {
    let is_key = |line: &str| {
        let name = line.split([' ', '=']).next().unwrap_or_default();
        let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        line.starts_with("[[") || !name.is_empty() && name.chars().all(is_letter)
    };
    let line = |line: &'static str| match line.strip_prefix("# ") {
        Some(key) if is_key(key) && (key.contains(" = ") || key.starts_with("[[")) => key,
        _ => line,
    };
    let lines = include_str!("../../../portcullis.sample.toml").lines();
    lines.map(line).collect::<Vec<_>>().join("\n")
}

/// Returns whether a value has a path of the reference page, in some entry of each map and list.
fn has(value: &toml::Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    match (value, name.strip_suffix("[]")) {
        (toml::Value::Table(table), Some(list)) => {
            let items = table.get(list).and_then(toml::Value::as_array);
            items.is_some_and(|items| items.iter().any(|item| has(item, rest)))
        }
        (toml::Value::Table(table), None) if *name == "NAME" => {
            table.values().any(|value| has(value, rest))
        }
        (toml::Value::Table(table), None) => table.get(*name).is_some_and(|value| has(value, rest)),
        _ => false,
    }
}

#[test]
fn the_sample_has_every_key() {
    let sample = uncommented();
    let value: toml::Value = toml::from_str(&sample).unwrap();
    let sections = Config::reference().into_iter().chain(Settings::reference());
    let mut missing = Vec::new();
    for section in sections {
        for key in &section.keys {
            let path = format!("{}.{}", section.path, key.name);
            let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
            if !has(&value, &parts) {
                missing.push(path);
            }
        }
    }
    let checks = portcullis::DropReason::CHECKS.map(portcullis::DropReason::name);
    let checks = checks.map(|check| format!("checks.{check}"));
    let is_missing = |path: &&String| !has(&value, &path.split('.').collect::<Vec<_>>());
    missing.extend(checks.iter().filter(is_missing).cloned());
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_commented_keys_of_the_sample_are_valid_together() {
    let sample = uncommented();
    assert!(
        sample.contains("\ntunnel_references = false") && sample.contains("\nrule = \"web-in\"")
    );
    let mut document = Document::parse(&sample, "sample").unwrap();
    Settings::take(&mut document);
    let mut config = document
        .finish()
        .unwrap_or_else(|errors| panic!("{errors}"));
    config.load_sets(|_| Ok(String::new())).unwrap();
    config.compile().unwrap_or_else(|error| panic!("{error}"));
}
