//! The sample configurations: each is valid, and decides as its page states.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use etherparse::PacketBuilder;
use portcullis::config::{Document, Permission};
use portcullis::{Config, ConfigError, DropReason, Engine, Packet, Zone};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn sample(name: &str) -> Config {
    config(&read(name)).unwrap()
}

/// The engine's part of a configuration.
fn config(text: &str) -> Result<Config, ConfigError> {
    let mut document = Document::parse(text, "t.toml")?;
    // The appliance's own sections.
    let own = ["health", "metrics", "log", "run"];
    let _: toml::Table = document.take(&own)?;
    document.config()
}

/// The rows of the table in a section of a page, without its head; each cell as it is written.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.map(cells).collect()
}

/// The pieces of configuration in a page.
fn pieces(page: &str) -> Vec<&str> {
    let pieces = page.split("```toml\n").skip(1);
    pieces
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect()
}

#[test]
fn every_sample_is_valid_and_warns_of_nothing_but_the_sources() {
    for name in [
        "appliance/portcullis.sample.toml",
        "appliance/samples/east-west.toml",
        "appliance/samples/egress.toml",
        "appliance/samples/endpoints.toml",
        "appliance/samples/ftp-servers.toml",
        "appliance/samples/geneve-proxy.toml",
        "appliance/samples/quick-start.toml",
        "packaging/portcullis.toml",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("check")
            .arg(root().join(name))
            .output()
            .unwrap();
        // No sample contains the address of the load balancer.
        let told = String::from_utf8_lossy(&output.stderr);
        let warnings: Vec<_> = told
            .lines()
            .filter(|line| !line.starts_with("warning: geneve.sources is the default"))
            .collect();
        assert!(
            output.status.success() && warnings.is_empty(),
            "{name}: {warnings:?}"
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("\nhealth.listen = "));
        assert!(
            printed.contains("MiB reserved for sessions (table.max_sessions)\n"),
            "{printed}"
        );
    }
}

/// The rule that decides the first packet of a session, and whether it passes.
fn decide(engine: &Engine, zone: u16, from: IpAddr, to: IpAddr, what: &str) -> (String, bool) {
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} to {to}"),
    };
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
            ip.icmpv4_echo_request(1, 1)
                .write(&mut bytes, b"?")
                .unwrap();
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
    let verdict = engine.verdict_only(Packet::new(&bytes, Instant::now()).zone(Zone(zone)));
    let decided = hits()
        .into_iter()
        .zip(before)
        .find(|(after, before)| after != before);
    let ((rule, _), _) = decided.expect("a rule or the default decides");
    assert!(verdict.is_forward() || verdict.reason() == Some(DropReason::PolicyDeny));
    (rule, verdict.is_forward())
}

#[test]
fn the_pieces_of_the_pages_are_valid() {
    for (name, count) in [("docs/GENEVE_PROXY.md", 2), ("docs/GWLB.md", 3)] {
        let page = read(name);
        let pieces = pieces(&page);
        assert_eq!(pieces.len(), count, "{name}");
        for piece in pieces {
            config(piece).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn the_sample_of_geneve_proxy_decides_as_its_page_says() {
    let engine = Engine::new(&sample("appliance/samples/geneve-proxy.toml")).unwrap();
    let page = read("docs/GENEVE_PROXY.md");
    let rows = rows(&page, "The sample");
    for row in &rows {
        let &[session, by, fate] = row.as_slice() else {
            panic!("{row:?}")
        };
        let (ends, what) = session.split_once(", ").unwrap();
        let (from, to) = ends.split_once(" to ").unwrap();
        assert_eq!(
            decide(&engine, 0, from.parse().unwrap(), to.parse().unwrap(), what),
            (by.trim_matches('`').to_owned(), fate == "allowed"),
            "{row:?}"
        );
    }
    assert_eq!(rows.len(), 13);
}

/// A list of the page's table: `None` if it is missing.
fn list(cell: &str) -> Option<Vec<u16>> {
    if cell == "missing" {
        return None;
    }
    let numbers = cell.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    let numbers = numbers.split(", ").filter(|number| !number.is_empty());
    Some(numbers.map(|number| number.parse().unwrap()).collect())
}

#[test]
fn geneve_proxys_lists_allow_as_much_as_the_rules_that_the_page_makes_of_them() {
    let page = read("docs/GENEVE_PROXY.md");
    let rows = rows(&page, "What the two `allowed_` lists allow");
    let (from, to) = (IpAddr::from([10, 1, 0, 5]), IpAddr::from([8, 8, 8, 8]));
    let mut nothing = 0;
    for row in &rows {
        let &[protocols, ports, rules] = row.as_slice() else {
            panic!("{row:?}")
        };
        let mut text = String::from("[policy]\ndefault = \"deny\"\n");
        for (number, rule) in rules
            .split("; and ")
            .filter(|rule| *rule != "none")
            .enumerate()
        {
            text += &format!("[[policy.rule]]\nname = \"rule-{number}\"\naction = \"allow\"\n");
            let keys = rule.split('`').skip(1).step_by(2);
            keys.for_each(|key| text += &format!("{key}\n"));
        }
        let engine = Engine::new(&config(&text).unwrap()).unwrap();
        let (protocols, ports) = (list(protocols), list(ports));
        // A missing list matches anything; otherwise only its elements match.
        let has =
            |list: &Option<Vec<u16>>, value| list.as_ref().is_none_or(|list| list.contains(&value));
        let mut any = false;
        for (protocol, name) in [(6, "TCP"), (17, "UDP")] {
            for port in [443, 80, 25] {
                let expected = has(&protocols, protocol) && has(&ports, port);
                let (_, passes) = decide(&engine, 0, from, to, &format!("{name} {port}"));
                assert_eq!(passes, expected, "{row:?}: {name} {port}");
                any |= passes;
            }
        }
        let (_, passes) = decide(&engine, 0, from, to, "ping");
        assert_eq!(passes, has(&protocols, 1), "{row:?}: ping");
        nothing += usize::from(!any && !passes);
    }
    assert_eq!((rows.len(), nothing), (12, 3));
}

#[test]
fn an_empty_list_of_what_is_allowed_allows_nothing() {
    let page = read("docs/GENEVE_PROXY.md");
    let mut empty = 0;
    for row in rows(&page, "What the two `allowed_` lists allow") {
        if row[0] == "[]" {
            assert_eq!(row[2], "none");
            empty += 1;
        } else if row[1] == "[]" {
            assert!(
                ["none", "`protocol = \"icmp\"`"].contains(&row[2]),
                "{row:?}"
            );
            empty += 1;
        }
    }
    assert_eq!(empty, 5);
}

#[test]
fn ports_without_a_protocol_that_has_them_are_an_error() {
    for protocol in ["", "protocol = [\"tcp\", \"icmp\"]\n"] {
        let text = format!(
            "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\n{protocol}destination_ports = [443]"
        );
        let error = config(&text).unwrap_err().to_string();
        assert!(error.contains("ports need `protocol`"), "{error}");
    }
}

#[test]
fn numbers_of_protocols_are_taken_as_geneve_proxys_file_has_them() {
    let page = read("docs/GENEVE_PROXY.md");
    let numbers = "protocol = [0x0006, 0x0011]";
    assert!(page.contains(numbers));
    let of = |protocol: &str| {
        let rule = format!("[[policy.rule]]\nname = \"a\"\naction = \"allow\"\n{protocol}\n");
        config(&format!("{rule}destination_ports = [443, 80]")).unwrap()
    };
    assert_eq!(
        of(numbers).policy,
        of("protocol = [\"tcp\", \"udp\"]").policy
    );
}

#[test]
fn who_is_inside_is_as_the_page_says() {
    let page = read("docs/GENEVE_PROXY.md");
    let rule = "[[policy.rule]]\nname = \"out\"\naction = \"allow\"\ndirection = \"outbound\"";
    let engine = |text: &str| {
        let mut config = config(&format!("{text}\n{rule}")).unwrap();
        // Some of the prefixes cannot be those of senders.
        config.ip.martians = Permission::Allow;
        Engine::new(&config).unwrap()
    };
    let (theirs, ours) = (
        engine(pieces(&page)[0]),
        engine("[policy]\ndefault = \"deny\""),
    );
    let mut seen = 0;
    let check = |address: IpAddr, [there, here]: [&str; 2]| {
        let to = if address.is_ipv4() {
            "8.8.8.8"
        } else {
            "2001:db8:ffff::1"
        };
        let is_inside = |engine| match decide(engine, 0, address, to.parse().unwrap(), "UDP 443").1
        {
            true => "inside",
            false => "outside",
        };
        assert_eq!(is_inside(&ours), here, "{address}");
        if there != "no IPv6 passes" {
            assert_eq!(is_inside(&theirs), there, "{address}");
        }
    };
    for row in rows(&page, "Who is inside") {
        for prefix in row[0].split('`').skip(1).step_by(2) {
            let (first, _) = prefix.split_once('/').unwrap();
            check(first.parse().unwrap(), [row[1], row[2]]);
            seen += 1;
        }
    }
    assert_eq!(seen, 15);
    // Beside and between them.
    for address in [
        "9.255.255.255",
        "172.32.0.0",
        "192.0.0.9",
        "192.0.0.172",
        "198.20.0.0",
    ] {
        check(address.parse().unwrap(), ["outside", "outside"]);
    }
}

#[test]
fn the_samples_say_who_is_inside_for_ipv6_too() {
    let inside: IpAddr = "2001:db8::1".parse().unwrap();
    let outside: IpAddr = "2001:db8:ffff::1".parse().unwrap();
    let engine = Engine::new(&sample("appliance/samples/quick-start.toml")).unwrap();
    for (from, to, what, rule, passes) in [
        (inside, outside, "TCP 443", "all-out", true),
        (inside, outside, "TCP 80", "all-out", true),
        (outside, inside, "TCP 80", "http-in", true),
        (outside, inside, "TCP 443", "default", false),
    ] {
        let found = decide(&engine, 0, from, to, what);
        assert_eq!(found, (rule.to_owned(), passes), "{from} {what}");
    }
}

#[test]
fn the_pages_rule_drops_ipv6_and_nothing_else() {
    let page = read("docs/GENEVE_PROXY.md");
    let text = read("appliance/samples/geneve-proxy.toml");
    let first = format!("{}\n[[policy.rule]]", pieces(&page)[1]);
    let engine =
        Engine::new(&config(&text.replacen("[[policy.rule]]", &first, 1)).unwrap()).unwrap();
    for (from, to, rule, passes) in [
        ("2001:db8::1", "2001:db8:ffff::1", "no-ipv6", false),
        ("2001:db8:ffff::1", "2001:db8::1", "no-ipv6", false),
        ("10.1.0.5", "8.8.8.8", "outbound-allowed", true),
        ("8.8.8.8", "10.1.0.5", "inbound-allowed-ports", true),
    ] {
        let found = decide(
            &engine,
            0,
            from.parse().unwrap(),
            to.parse().unwrap(),
            "TCP 443",
        );
        assert_eq!(found, (rule.to_owned(), passes), "{from}");
    }
}

#[test]
fn endpoints_have_policies_of_their_own() {
    let config = sample("appliance/samples/endpoints.toml");
    let engine = Engine::new(&config).unwrap();
    let inside = IpAddr::from([10, 0, 0, 5]);
    let outside = IpAddr::from([198, 51, 100, 1]);
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
            IpAddr::from([10, 0, 0, 6]),
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
    let inside = IpAddr::from([10, 0, 0, 5]);
    let outside = IpAddr::from([198, 51, 100, 1]);
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

/// A session, the rule that decides about it, and whether it passes.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str, bool);

/// Checks that a sample decides sessions as expected.
fn decides(name: &str, cases: &[Case<'_>]) {
    let engine = Engine::new(&sample(name)).unwrap();
    for (from, to, what, rule, passes) in cases {
        assert_eq!(
            decide(&engine, 0, from.parse().unwrap(), to.parse().unwrap(), what),
            ((*rule).to_owned(), *passes),
            "{name}: {from} to {to}, {what}"
        );
    }
}

#[test]
fn the_sample_of_east_west_lets_each_tier_reach_the_next() {
    let [web, application, database] = ["10.1.0.5", "10.2.0.5", "10.3.0.5"];
    let monitoring = "10.9.0.5";
    decides(
        "appliance/samples/east-west.toml",
        &[
            (web, application, "TCP 8443", "web-to-application", true),
            (
                application,
                database,
                "TCP 5432",
                "application-to-database",
                true,
            ),
            (web, database, "TCP 5432", "other-tiers", false),
            (application, web, "TCP 8443", "other-tiers", false),
            (monitoring, database, "TCP 9100", "monitoring", true),
            (monitoring, web, "ping", "monitoring-ping", true),
            (web, monitoring, "ping", "default", false),
            (web, "198.51.100.1", "TCP 443", "default", false),
        ],
    );
}

#[test]
fn the_sample_of_egress_lets_browsers_out_and_nothing_in() {
    let [inside, outside] = ["10.1.0.5", "198.51.100.1"];
    decides(
        "appliance/samples/egress.toml",
        &[
            (inside, outside, "TCP 80", "web-out", true),
            (inside, outside, "TCP 443", "web-out", true),
            (inside, outside, "UDP 443", "web-out", true),
            (
                "2001:db8::5",
                "2001:db8:ffff::1",
                "TCP 443",
                "web-out",
                true,
            ),
            (inside, outside, "UDP 53", "dns-out", true),
            (inside, outside, "UDP 123", "ntp-out", true),
            (inside, outside, "TCP 22", "default", false),
            (inside, "192.0.2.1", "TCP 443", "blocked", false),
            (outside, inside, "TCP 443", "default", false),
            (outside, inside, "ping", "default", false),
        ],
    );
}

#[test]
fn the_sample_of_ftp_servers_opens_the_port_of_commands_alone() {
    let [client, server] = ["198.51.100.1", "10.1.2.5"];
    decides(
        "appliance/samples/ftp-servers.toml",
        &[
            (client, server, "TCP 21", "ftp", true),
            (client, server, "TCP 20", "default", false),
            (client, server, "TCP 50000", "default", false),
            (client, "10.1.3.5", "TCP 21", "default", false),
            (server, client, "TCP 40000", "default", false),
        ],
    );
}
