//! The sample configurations: each is valid, and decides as its page says.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use etherparse::PacketBuilder;
use portcullis::config::Document;
use portcullis::{Config, DropReason, Engine, Packet, Zone};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sample(name: &str) -> Config {
    let text = std::fs::read_to_string(root().join(name)).unwrap();
    let mut document = Document::parse(&text, name).unwrap();
    // The appliance's own sections.
    let own = [
        "health",
        "metrics",
        "log",
        "run.drain",
        "run.sessions_file",
        "run.control",
    ];
    let _: toml::Table = document.take(&own).unwrap();
    document.config().unwrap()
}

#[test]
fn every_sample_is_valid_and_without_a_warning() {
    for name in [
        "appliance/portcullis.sample.toml",
        "appliance/samples/endpoints.toml",
        "appliance/samples/geneve-proxy.toml",
        "appliance/samples/quick-start.toml",
        "packaging/portcullis.toml",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("check")
            .arg(root().join(name))
            .output()
            .unwrap();
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && warnings.is_empty(),
            "{name}: {warnings}"
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("\nhealth.listen = "));
    }
}

/// The rule that decides the first packet of a session, and whether it passes.
fn decide(engine: &Engine, zone: u16, from: Ipv4Addr, to: Ipv4Addr, what: &str) -> (String, bool) {
    let ip = PacketBuilder::ipv4(from.octets(), to.octets(), 64);
    let mut bytes = Vec::new();
    match what.split_once(' ') {
        Some(("TCP", port)) => ip
            .tcp(40_000, port.parse().unwrap(), 1, 1_024)
            .syn()
            .write(&mut bytes, b"")
            .unwrap(),
        Some(("UDP", port)) => ip
            .udp(40_000, port.parse().unwrap())
            .write(&mut bytes, b"?")
            .unwrap(),
        _ => {
            assert_eq!(what, "ping");
            ip.icmpv4_echo_request(1, 1).write(&mut bytes, b"?").unwrap();
        }
    }
    let hits = || {
        engine
            .policy()
            .hits()
            .map(|(rule, count)| (rule.to_owned(), count))
            .collect::<Vec<_>>()
    };
    let before = hits();
    let verdict = engine.process(Packet::new(&bytes, Instant::now()).zone(Zone(zone)));
    let decided = hits()
        .into_iter()
        .zip(before)
        .find(|(after, before)| after != before);
    let ((rule, _), _) = decided.expect("a rule or the default decides");
    assert!(verdict.is_forward() || verdict.reason() == Some(DropReason::PolicyDeny));
    (rule, verdict.is_forward())
}

#[test]
fn the_sample_of_geneve_proxy_decides_as_its_page_says() {
    let engine = Engine::new(&sample("appliance/samples/geneve-proxy.toml")).unwrap();
    let page = std::fs::read_to_string(root().join("docs/GENEVE_PROXY.md")).unwrap();
    let mut rows = 0;
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, session, by, fate, _] = cells[..] else {
            continue;
        };
        let Some((ends, what)) = session.split_once(", ") else {
            continue;
        };
        let (from, to) = ends.split_once(" to ").unwrap();
        let found = decide(&engine, 0, from.parse().unwrap(), to.parse().unwrap(), what);
        assert_eq!(
            found,
            (by.trim_matches('`').to_owned(), fate == "allowed"),
            "{line}"
        );
        rows += 1;
    }
    assert_eq!(rows, 8);
}

#[test]
fn endpoints_have_policies_of_their_own() {
    let config = sample("appliance/samples/endpoints.toml");
    let engine = Engine::new(&config).unwrap();
    let inside = Ipv4Addr::new(10, 0, 0, 5);
    let outside = Ipv4Addr::new(198, 51, 100, 1);
    for (zone, from, to, what, rule, passes) in [
        ("red", inside, outside, "TCP 443", "red-web", true),
        ("red", inside, outside, "TCP 25", "default", false),
        ("blue", inside, outside, "TCP 25", "blue-anything-out", true),
        ("red", inside, outside, "ping", "default", false),
        ("blue", inside, outside, "ping", "blue-anything-out", true),
        ("east", outside, inside, "TCP 443", "shop-in", true),
        (
            "west",
            outside,
            Ipv4Addr::new(10, 0, 0, 6),
            "TCP 443",
            "shop-in",
            true,
        ),
        ("west", outside, inside, "TCP 80", "default", false),
        ("red", inside, outside, "UDP 53", "dns", true),
        ("default", outside, inside, "UDP 53", "default", false),
    ] {
        let zone = config.zones.get(zone).copied().unwrap_or(0);
        assert_eq!(
            decide(&engine, zone, from, to, what),
            (rule.to_owned(), passes),
            "{zone} {what}"
        );
    }
}

#[test]
fn the_quick_start_lets_http_in_and_everything_out() {
    let engine = Engine::new(&sample("appliance/samples/quick-start.toml")).unwrap();
    let inside = Ipv4Addr::new(10, 0, 0, 5);
    let outside = Ipv4Addr::new(198, 51, 100, 1);
    for (from, to, what, rule, passes) in [
        (outside, inside, "TCP 80", "http-in", true),
        (outside, inside, "TCP 443", "default", false),
        (outside, inside, "ping", "default", false),
        (inside, outside, "TCP 25", "all-out", true),
        (inside, outside, "ping", "all-out", true),
    ] {
        assert_eq!(
            decide(&engine, 0, from, to, what),
            (rule.to_owned(), passes),
            "{what}"
        );
    }
}
