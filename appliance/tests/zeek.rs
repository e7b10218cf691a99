//! Compares every connection of Zeek's own baselines with the session log of a replay.
//!
//! The tests compare `conn_state` and `history`. The rows decide which connections are *comparable*
//! ([`Apart`] has the rules). `zeek.toml` lists all others, and every known difference. Without the
//! captures, which are not part of the project, the comparison is reported as ignored.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;
use support::captures::{self, collection, note};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    captures: PathBuf,
    floor: f64,
    connections: usize,
    difference: Vec<Difference>,
    notation: Vec<Difference>,
    apart: Vec<Set>,
}

/// Connections with different results, each as `conn_state history`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    capture: String,
    zeek: String,
    ours: String,
    reason: String,
}

/// Connections of a capture that are not compared, each as Zeek's `conn_state history`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    capture: String,
    kind: Apart,
    zeek: Vec<String>,
    reason: String,
}

/// Reason for which a connection of Zeek's is not comparable: the first that applies.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Apart {
    /// The baseline does not name the ends of the connection.
    Nameless,
    /// The connection was inside a tunnel (`tunnel_parents`): a replay decides the outer packets.
    Tunneled,
    /// The replay has no session with the addresses, ports and protocol; or, of several such
    /// connections, none for this one.
    NoSession,
    /// The session exists, but some of its packets were dropped as invalid and leave no letter.
    Dropped,
    /// Zeek counted fewer packets than passed here.
    Uncounted,
}

/// A row of Zeek's `conn.log`.
struct Connection<'t> {
    fields: HashMap<&'t str, &'t str>,
}

impl Apart {
    const ALL: [Self; 5] = [
        Self::Nameless,
        Self::Tunneled,
        Self::NoSession,
        Self::Dropped,
        Self::Uncounted,
    ];
}

impl<'t> Connection<'t> {
    fn field(&self, name: &str) -> Option<&'t str> {
        self.fields.get(name).copied()
    }

    fn packets(&self) -> u64 {
        ["orig_pkts", "resp_pkts"]
            .iter()
            .map(|name| {
                self.field(name)
                    .expect("a count")
                    .parse::<u64>()
                    .expect("a count")
            })
            .sum()
    }

    /// Both ends in an order that does not depend on the initiator. Zeek's ports of ICMP are types,
    /// and are omitted.
    fn ends(&self) -> Option<[(String, String); 2]> {
        let port = |name| match self.field("proto") {
            Some("icmp") => String::new(),
            _ => self.field(name).expect("a port").to_owned(),
        };
        Some(ordered([
            (self.field("orig_h")?.to_owned(), port("orig_p")),
            (self.field("resp_h")?.to_owned(), port("resp_p")),
        ]))
    }

    /// `conn_state history`, with `?` for a state that the baseline omits and no `-` for an empty
    /// history.
    fn words(&self) -> String {
        let history = self.field("history").expect("a history");
        words(
            self.field("conn_state").unwrap_or("?"),
            if history == "-" { "" } else { history },
        )
    }
}

fn words(state: &str, history: &str) -> String {
    format!("{state} {history}").trim_end().to_owned()
}

fn ordered(mut ends: [(String, String); 2]) -> [(String, String); 2] {
    ends.sort();
    ends
}

fn session_ends(row: &Value) -> [(String, String); 2] {
    let proto = row["proto"].as_str().expect("a protocol");
    let port = |name: &str| {
        if matches!(proto, "tcp" | "udp") {
            row[name].to_string()
        } else {
            String::new()
        }
    };
    let address = |name: &str| row[name].as_str().expect("an address").to_owned();
    ordered([
        (address("src"), port("sport")),
        (address("dst"), port("dport")),
    ])
}

fn same_protocol(zeek: Option<&str>, ours: &str) -> bool {
    match zeek {
        Some("icmp") => ours.contains("icmp"),
        Some(zeek) => zeek == ours,
        None => true,
    }
}

fn packets(row: &Value) -> u64 {
    ["orig_pkts", "resp_pkts"]
        .iter()
        .map(|name| row[*name].as_u64().expect("a count"))
        .sum()
}

fn our_words(row: &Value) -> String {
    words(
        row["conn_state"].as_str().expect("a state"),
        row["history"].as_str().expect("a history"),
    )
}

/// Zeek's result in common terms: without `X` (Zeek itself gave up), and from the view of the
/// sender of the first packet if Zeek has flipped the direction before any other letter (`^` in
/// front).
fn without_notation(words: &str) -> String {
    let (state, history) = words.split_once(' ').unwrap_or((words, ""));
    let history = history.replace(['X', 'x'], "");
    let Some(turned) = history.strip_prefix('^') else {
        return self::words(state, &history);
    };
    let swap = |letter: char| {
        if letter.is_ascii_uppercase() {
            letter.to_ascii_lowercase()
        } else {
            letter.to_ascii_uppercase()
        }
    };
    let state = match state {
        "S0" => "SHR",
        "SHR" => "S0",
        "S2" => "S3",
        "S3" => "S2",
        "RSTO" => "RSTR",
        "RSTR" => "RSTO",
        same => same,
    };
    self::words(state, &turned.chars().map(swap).collect::<String>())
}

/// Returns whether the letters of `part` occur in `whole`, in the same order.
fn is_part_of(part: &str, whole: &str) -> bool {
    let mut whole = whole.chars();
    part.chars().all(|letter| whole.any(|each| each == letter))
}

fn baseline(capture: &Path) -> PathBuf {
    capture.with_extension("zeek-conn.tsv")
}

/// Sessions and verdicts of a replay that treats checksums as Zeek did: verified, except with its
/// option `-C`.
fn replay(capture: &Path, command: &str, scratch: &Path) -> (Vec<Value>, Vec<Value>) {
    let verified = !command.is_empty() && !command.split_whitespace().any(|word| word == "-C");
    let [sessions, verdicts] = ["sessions", "verdicts"].map(|name| scratch.join(name));
    let configuration = support::captures::configuration(capture, scratch);
    let configured = configuration
        .iter()
        .flat_map(|file| ["--config", support::path(file)]);
    let arguments = [
        "replay",
        support::path(capture),
        "--sessions",
        support::path(&sessions),
        "--verdicts",
        support::path(&verdicts),
        "--checksums",
        if verified { "verify" } else { "trust" },
        "--json",
    ];
    let arguments: Vec<_> = arguments.into_iter().chain(configured).collect();
    let output = support::portcullis(&arguments);
    let code = output.status.code();
    assert!(
        code == Some(0) || code == Some(2),
        "{}: exit code {code:?}: {}",
        capture.display(),
        support::text(&output.stderr)
    );
    (support::rows(&sessions), support::decided(&verdicts))
}

fn parse(text: &str) -> (&str, Vec<Connection<'_>>) {
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("# command:"))
        .map_or("", str::trim);
    let mut rows = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t'));
    let head: Vec<_> = rows.next().expect("a head line").collect();
    let connections = rows
        .map(|row| Connection {
            fields: head.iter().copied().zip(row).collect(),
        })
        .collect();
    (command, connections)
}

/// Results of the comparison, with a line for each connection that differs.
struct Findings<'s> {
    settings: &'s Settings,
    identical: usize,
    /// Number of uses of each entry.
    difference: Vec<usize>,
    notation: Vec<usize>,
    /// Unused entries of each list.
    apart: Vec<Vec<&'s str>>,
    unlisted: Vec<String>,
}

impl Findings<'_> {
    fn set_apart(&mut self, capture: &str, kind: Apart, zeek: &str, name: &str) {
        note!("          apart, {kind:?}: {name}");
        for (set, left) in self.settings.apart.iter().zip(&mut self.apart) {
            if set.capture == capture
                && set.kind == kind
                && let Some(place) = left.iter().position(|words| *words == zeek)
            {
                left.remove(place);
                return;
            }
        }
        self.unlisted.push(format!("{capture}: {kind:?}: {name}"));
    }

    fn compare(&mut self, capture: &str, zeek: &str, ours: &str, name: &str) {
        let comparable = zeek.strip_prefix("? ");
        if zeek == ours || comparable.is_some_and(|history| ours.ends_with(&format!(" {history}")))
        {
            self.identical += 1;
            return;
        }
        let (list, used) = if without_notation(zeek) == ours {
            note!("          in other words: {name}: Zeek {zeek}, ours {ours}");
            (&self.settings.notation, &mut self.notation)
        } else {
            note!("          different: {name}: Zeek {zeek}, ours {ours}");
            (&self.settings.difference, &mut self.difference)
        };
        let of =
            |each: &Difference| each.capture == capture && each.zeek == zeek && each.ours == ours;
        match list.iter().position(of) {
            Some(entry) => used[entry] += 1,
            None => self
                .unlisted
                .push(format!("{capture}: {name}: Zeek {zeek}, ours {ours}")),
        }
    }

    fn capture(
        &mut self,
        file: &str,
        connections: &[Connection<'_>],
        sessions: &[Value],
        verdicts: &[Value],
    ) {
        let mut taken = vec![false; sessions.len()];
        for connection in connections {
            let zeek = connection.words();
            let Some(ends) = connection.ends() else {
                self.set_apart(file, Apart::Nameless, &zeek, &zeek);
                continue;
            };
            let [(a, a_port), (b, b_port)] = &ends;
            let name = format!(
                "{} {a} {a_port} {b} {b_port}, {zeek}",
                connection.field("proto").unwrap_or("?")
            );
            if !matches!(connection.field("tunnel_parents"), None | Some("-")) {
                self.set_apart(file, Apart::Tunneled, &zeek, &name);
                continue;
            }
            let found = sessions.iter().zip(&taken).position(|(row, taken)| {
                let proto = row["proto"].as_str().expect("a protocol");
                !taken
                    && same_protocol(connection.field("proto"), proto)
                    && session_ends(row) == ends
            });
            let Some(found) = found else {
                self.set_apart(file, Apart::NoSession, &zeek, &name);
                continue;
            };
            taken[found] = true;
            let session = &sessions[found];
            let dropped = verdicts
                .iter()
                .any(|row| row["session"] == session["id"] && row["class"] == "invalid");
            if dropped {
                let ours = session["history"].as_str().expect("a history");
                let theirs = connection.field("history").expect("a history");
                assert!(
                    is_part_of(ours, theirs),
                    "{file}: {name}: {ours} is no part of {theirs}"
                );
                self.set_apart(file, Apart::Dropped, &zeek, &name);
            } else if connection.packets() < packets(session) {
                self.set_apart(file, Apart::Uncounted, &zeek, &name);
            } else {
                self.compare(file, &zeek, &our_words(session), &name);
            }
        }
    }
}

fn settings() -> Settings {
    captures::settings("zeek.toml")
}

fn conn_state_and_history_agree_with_zeek_except_where_it_is_listed() {
    let settings = settings();
    let (folder, captures) = collection(&settings.captures);
    let has_baseline = |file: &String| baseline(&folder.join(file)).exists();
    let files: Vec<_> = captures
        .into_iter()
        .map(|capture| capture.file)
        .filter(has_baseline)
        .collect();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut findings = Findings {
        settings: &settings,
        identical: 0,
        difference: vec![0; settings.difference.len()],
        notation: vec![0; settings.notation.len()],
        apart: settings
            .apart
            .iter()
            .map(|set| set.zeek.iter().map(String::as_str).collect())
            .collect(),
        unlisted: Vec::new(),
    };
    let mut total = 0;
    for file in &files {
        let capture = folder.join(file);
        let text = std::fs::read_to_string(baseline(&capture)).expect("the baseline is read");
        let (command, connections) = parse(&text);
        note!("{file}: {} connections", connections.len());
        let (sessions, verdicts) = replay(&capture, command, scratch.path());
        findings.capture(file, &connections, &sessions, &verdicts);
        total += connections.len();
    }
    let sum = |counts: &[usize]| counts.iter().sum::<usize>();
    let (same, other_words) = (findings.identical, sum(&findings.notation));
    let comparable = same + other_words + sum(&findings.difference);
    let share = |part: usize| part as f64 / comparable as f64;
    note!(
        "{comparable} of {total} connections of {} captures are comparable: {same} identical \
         ({:.1} %), \
         {other_words} in other words, {} different; agreement {:.1} %",
        files.len(),
        share(same) * 100.0,
        sum(&findings.difference),
        share(same + other_words) * 100.0
    );
    assert!(
        findings.unlisted.is_empty(),
        "not listed:\n{}",
        findings.unlisted.join("\n")
    );
    for (list, used) in [
        (&settings.difference, &findings.difference),
        (&settings.notation, &findings.notation),
    ] {
        for (entry, count) in list.iter().zip(used) {
            note!("listed, {count}: {}: {}", entry.capture, entry.reason);
            assert_ne!(
                *count, 0,
                "listed, but there is no such difference: {}",
                entry.reason
            );
        }
    }
    for (set, left) in settings.apart.iter().zip(&findings.apart) {
        note!(
            "apart, {}, {:?}: {}: {}",
            set.zeek.len(),
            set.kind,
            set.capture,
            set.reason
        );
        assert!(
            left.is_empty(),
            "{}: listed, but not set apart: {left:?}",
            set.capture
        );
    }
    for kind in Apart::ALL {
        let of_kind = settings.apart.iter().filter(|set| set.kind == kind);
        note!(
            "{} connections apart as {kind:?}",
            of_kind.map(|set| set.zeek.len()).sum::<usize>()
        );
    }
    assert_eq!(
        total, settings.connections,
        "the comparison has lost its material"
    );
    assert!(
        share(same + other_words) >= settings.floor,
        "agreement {}",
        share(same + other_words)
    );
}

fn the_caret_of_a_reversed_connection_is_undone() {
    assert_eq!(without_notation("SHR ^d"), "S0 D");
    assert_eq!(without_notation("SF ^hADadFf"), "SF HadADfF");
    assert_eq!(without_notation("SF ShAdDaXFf"), "SF ShAdDaFf");
    assert_eq!(without_notation("OTH"), "OTH");
    assert_eq!(without_notation("S0 D^"), "S0 D^");
}

fn main() -> ExitCode {
    captures::run(vec![
        captures::needing(
            &settings().captures,
            "conn_state_and_history_agree_with_zeek_except_where_it_is_listed",
            conn_state_and_history_agree_with_zeek_except_where_it_is_listed,
        ),
        captures::always(
            "the_caret_of_a_reversed_connection_is_undone",
            the_caret_of_a_reversed_connection_is_undone,
        ),
    ])
}
