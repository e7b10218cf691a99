//! The policy language: sets, exceptions, services, codes, zones, audit, and rules that expire.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::support::packets::{ACK, Ends, SYN, icmp, udp};
use crate::support::scene::{Scene, segment};
use portcullis::config::WarningKind;
use portcullis::policy::{Action, CompiledPolicy, NewSession, Protocol};
use portcullis::{
    Config, DeniedSession, Discard, DropReason, EndReason, Engine, Packet, RuleUse, Sink, Zone,
};

/// A configuration, and the contents of the file of each set.
fn load(text: &str, files: &[(&str, &str)]) -> Result<Config, String> {
    let mut config = Config::from_toml(text, "t.toml").map_err(|error| error.to_string())?;
    let read = |path: &str| {
        let file = files.iter().find(|(name, _)| *name == path);
        file.map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| "no such file".to_owned())
    };
    config.load_sets(read).map_err(|error| error.to_string())?;
    Ok(config)
}

/// The policy of rules that deny by default.
fn policy(text: &str) -> CompiledPolicy {
    load(text, &[]).unwrap().compile().unwrap().policy
}

/// The first error of a configuration, whether in reading, loading or compiling.
fn error(text: &str, files: &[(&str, &str)]) -> String {
    match load(text, files) {
        Err(error) => error,
        Ok(config) => config.compile().unwrap_err().to_string(),
    }
}

/// A TCP session for a policy query, as `source > destination:port`.
fn asked(text: &str) -> NewSession {
    let (src, dst) = text.split_once(" > ").unwrap();
    let (dst, port) = dst.rsplit_once(':').unwrap();
    NewSession {
        zone: Zone::DEFAULT,
        src: src.parse().unwrap(),
        dst: dst.parse::<IpAddr>().unwrap(),
        protocol: Protocol::TCP.0,
        src_port: Some(50_000),
        dst_port: Some(port.parse().unwrap()),
        icmp: None,
    }
}

/// The rule that decides about a TCP session.
fn rule_for(policy: &CompiledPolicy, text: &str) -> String {
    policy
        .rule_name(policy.look_up(&asked(text)).rule)
        .to_owned()
}

fn check(policy: &CompiledPolicy, table: &[(&str, &str)]) {
    for (session, rule) in table {
        assert_eq!(rule_for(policy, session), *rule, "{session}");
    }
}

#[test]
fn a_rule_names_sets_and_sets_name_sets() {
    let text = r#"
[address_sets]
office = ["10.1.0.0/16", "@branches"]
branches = ["10.2.0.0/16", "2001:db8:2::/48"]

[[policy.rule]]
name = "in"
action = "allow"
source = ["@office", "192.0.2.7"]
destination = "198.51.100.0/24"

[[policy.rule]]
name = "back"
action = "allow"
destination = "@branches"
"#;
    check(
        &policy(text),
        &[
            ("10.1.2.3 > 198.51.100.1:80", "in"),
            ("10.2.2.3 > 198.51.100.1:80", "in"),
            ("192.0.2.7 > 198.51.100.1:80", "in"),
            ("10.3.2.3 > 198.51.100.1:80", "default"),
            ("10.3.2.3 > 10.2.9.9:80", "back"),
            ("2001:db8::1 > 2001:db8:2::1:80", "back"),
            ("10.3.2.3 > 10.1.9.9:80", "default"),
        ],
    );
}

#[test]
fn a_file_is_a_set_and_is_read_again_with_the_configuration() {
    let text = r#"
[address_sets]
feed = { file = "feeds/drop.txt", addresses = ["203.0.113.9"] }

[[policy.rule]]
name = "drop"
action = "deny"
source = "@feed"

[[policy.rule]]
name = "rest"
action = "allow"
"#;
    let feed = "\u{feff}; a feed\r\n192.0.2.0/24 ; SBL1\r\n\r\n198.51.100.7 # one\n192.0.2.0/24\n\
                2001:db8::/32";
    let config = load(text, &[("feeds/drop.txt", feed)]).unwrap();
    assert_eq!(
        config.set_files().collect::<Vec<_>>(),
        [("feed", "feeds/drop.txt")]
    );
    assert_eq!(
        config.address_sets["feed"].loaded().unwrap().len(),
        3,
        "once each"
    );
    check(
        &config.compile().unwrap().policy,
        &[
            ("192.0.2.200 > 10.0.0.1:80", "drop"),
            ("198.51.100.7 > 10.0.0.1:80", "drop"),
            ("198.51.100.8 > 10.0.0.1:80", "rest"),
            ("203.0.113.9 > 10.0.0.1:80", "drop"),
            ("2001:db8::1 > 2001:db9::1:80", "drop"),
        ],
    );
    // A reload ends sessions, and its preview names them.
    let mut scene = Scene::new("");
    scene.engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    let bad = Ends::v4(40_000, 80);
    assert!(scene.udp(bad).is_forward());
    let newer = load(text, &[("feeds/drop.txt", "0.0.0.0/0")]).unwrap();
    let preview = scene.engine.preview(&newer, scene.now).unwrap();
    assert_eq!(preview.len(), 1);
    assert_eq!(preview[0].1, EndReason::Revoked);
    let done = scene
        .engine
        .reload(&newer, scene.now, &mut Discard)
        .unwrap();
    assert_eq!((done.judged, done.revoked), (1, 1));
    assert_eq!(scene.udp(bad).reason(), Some(DropReason::PolicyDeny));
}

#[test]
fn an_empty_set_matches_nothing_and_cannot_be_negated() {
    let rule = |line: &str| {
        format!(
            "[address_sets]\nfeed = {{ file = \"f\" }}\n[[policy.rule]]\nname = \"r\"\n\
             action = \"allow\"\n{line}\n"
        )
    };
    let empty = load(&rule("source = \"@feed\""), &[("f", "# nothing today\n")]).unwrap();
    let compiled = empty.compile().unwrap().policy;
    assert!(
        compiled.is_empty(),
        "an empty list of a compiled rule would match anything"
    );
    check(&compiled, &[("10.0.0.1 > 10.0.0.2:80", "default")]);
    let warned = empty.warnings();
    let is_empty_set =
        |kind: &WarningKind| matches!(kind, WarningKind::EmptySet { set } if set == "feed");
    assert!(
        warned.iter().any(|warning| is_empty_set(&warning.kind)),
        "{warned:?}"
    );
    let never =
        |kind: &WarningKind| matches!(kind, WarningKind::NeverMatches { rule } if rule == "r");
    assert!(
        warned.iter().any(|warning| never(&warning.kind)),
        "{warned:?}"
    );
    assert_eq!(
        error(&rule("not.source = \"@feed\""), &[("f", "")]),
        "t.toml:6: policy.rule[0].not.source: the set `@feed` is empty: `not` would exclude nothing"
    );
    // An override of a rule that admits nothing applies to no session, and not to all.
    let with_override = rule("source = \"@feed\"")
        + "[[lifetimes.override]]\nrule = \"r\"\nudp.unreplied = \"9s\"\n";
    let config = load(&with_override, &[("f", "")]).unwrap();
    let mut scene = Scene::new("");
    let mut config = config;
    config.policy.default = Action::Allow;
    scene.engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    assert!(scene.udp(Ends::v4(1, 2)).is_forward());
    assert!(
        scene.wait(10).ended.is_empty(),
        "10 s are over, and the default is 30"
    );
}

#[test]
fn not_leaves_out_addresses_ports_and_protocols() {
    let text = r#"
[address_sets]
office = ["10.0.0.0/8"]

[[policy.rule]]
name = "strangers"
action = "allow"
not.source = "@office"
destination = "192.0.2.0/24"
not.destination = ["192.0.2.128/25", "192.0.2.1"]

[[policy.rule]]
name = "high"
action = "allow"
protocol = "tcp"
destination_ports = "1000-2000"
not.destination_ports = ["1200-1300", 1000, 2000]

[[policy.rule]]
name = "not-tcp"
action = "allow"
not.protocol = "tcp"
"#;
    let policy = policy(text);
    check(
        &policy,
        &[
            ("198.51.100.1 > 192.0.2.2:1", "strangers"),
            ("10.9.9.9 > 192.0.2.2:1", "default"),
            ("198.51.100.1 > 192.0.2.1:1", "default"),
            ("198.51.100.1 > 192.0.2.200:1", "default"),
            ("2001:db8::1 > 192.0.2.2:1", "strangers"),
            ("10.0.0.1 > 10.0.0.2:1001", "high"),
            ("10.0.0.1 > 10.0.0.2:1199", "high"),
            ("10.0.0.1 > 10.0.0.2:1200", "default"),
            ("10.0.0.1 > 10.0.0.2:1300", "default"),
            ("10.0.0.1 > 10.0.0.2:1301", "high"),
            ("10.0.0.1 > 10.0.0.2:1999", "high"),
            ("10.0.0.1 > 10.0.0.2:2000", "default"),
            ("10.0.0.1 > 10.0.0.2:1000", "default"),
        ],
    );
    let gre = NewSession {
        protocol: 47,
        src_port: None,
        dst_port: None,
        ..asked("10.0.0.1 > 10.0.0.2:1")
    };
    assert_eq!(policy.rule_name(policy.look_up(&gre).rule), "not-tcp");
}

#[test]
fn services_of_several_protocols_are_one_rule() {
    let text = r#"
[service_sets]
web = ["tcp/80", "tcp/443", "udp/443"]
usual = ["@web", "udp/53", "tcp/53", "icmp/echo-request", "gre"]

[[policy.rule]]
name = "usual"
action = "allow"
services = ["@usual", "tcp/8000-8099"]
limits.max_sessions = 5

[[policy.rule]]
name = "rest"
action = "deny"
"#;
    let policy = policy(text);
    assert_eq!(policy.len(), 2, "parts are no rules");
    let with = |protocol: u8, dst_port: Option<u16>, icmp: Option<(u8, u8)>| NewSession {
        protocol,
        dst_port,
        src_port: dst_port.map(|_| 50_000),
        icmp,
        ..asked("10.0.0.1 > 10.0.0.2:1")
    };
    for (session, rule) in [
        (with(6, Some(80), None), "usual"),
        (with(6, Some(443), None), "usual"),
        (with(17, Some(443), None), "usual"),
        (with(17, Some(80), None), "rest"),
        (with(17, Some(53), None), "usual"),
        (with(6, Some(8_050), None), "usual"),
        (with(17, Some(8_050), None), "rest"),
        (with(47, None, None), "usual"),
        (with(1, None, Some((8, 0))), "usual"),
        (with(1, None, Some((13, 0))), "rest"),
        (with(58, None, Some((128, 0))), "rest"),
    ] {
        let decision = policy.decide(&session);
        assert_eq!(policy.rule_name(decision.rule), rule, "{session:?}");
        assert_eq!(policy.explain(&session).decision, decision, "{session:?}");
    }
    assert_eq!(
        policy.hits().collect::<Vec<_>>(),
        [("usual", 7), ("rest", 4), ("default", 0)]
    );
}

#[test]
fn rules_of_parts_keep_number_hits_and_limits_over_a_reload() {
    let services = "services = [\"tcp/80\", \"udp/53\"]\n";
    let rule = |name: &str, more: &str| {
        format!("[[policy.rule]]\nname = \"{name}\"\naction = \"allow\"\n{more}")
    };
    let first = rule("a", services) + &rule("b", "protocol = \"udp\"\nlimits.max_sessions = 1\n");
    let mut scene = Scene::new(&(first.clone() + "[policy]\ndefault = \"deny\"\n"));
    assert!(scene.udp(Ends::v4(1, 53)).is_forward());
    assert!(scene.udp(Ends::v4(1, 9)).is_forward());
    assert!(!scene.udp(Ends::v4(1, 10)).is_forward(), "the limit of `b`");
    let number = scene.engine.policy().rule_named("b");
    let second = rule("c", "protocol = \"gre\"\n")
        + &rule("b", "services = [\"gre\", \"udp\", \"tcp/9\"]\n")
        + &first.replace("\"b\"", "\"d\"");
    let config = load(&(second + "[policy]\ndefault = \"deny\"\n"), &[]).unwrap();
    let done = scene
        .engine
        .reload(&config, scene.now, &mut Discard)
        .unwrap();
    assert_eq!((done.judged, done.revoked), (2, 0));
    let policy = scene.engine.policy();
    assert_eq!(policy.rule_named("b"), number, "the number of a name");
    let hits: Vec<_> = policy.hits().collect();
    assert_eq!(
        hits,
        [("c", 0), ("b", 2), ("a", 1), ("d", 0), ("default", 0)]
    );
    scene.wait(120);
    assert!(scene.udp(Ends::v4(1, 9)).is_forward());
}

#[test]
fn an_icmp_code_narrows_a_type() {
    let text = r#"
[[policy.rule]]
name = "odd"
action = "deny"
protocol = "icmp"
icmp_types = ["echo-request/5", "10/3"]

[[policy.rule]]
name = "ping"
action = "allow"
protocol = ["icmp", "icmpv6"]
icmp_types = ["echo-request"]
"#;
    let scene = Scene::new(&("[policy]\ndefault = \"reject\"\n".to_owned() + text));
    let ends = Ends::v4(0, 0);
    assert!(
        scene
            .decide(&icmp(ends, 8, [0, 7, 1, 1], b"ping"))
            .is_forward()
    );
    let mut odd = icmp(ends, 8, [0, 9, 1, 1], b"ping");
    // The code, and a checksum that fits.
    odd[21] = 5;
    let sum = u16::from_be_bytes([odd[22], odd[23]]);
    let sum = sum.checked_sub(5).unwrap_or(sum.wrapping_sub(6));
    odd[22..24].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(scene.decide(&odd).reason(), Some(DropReason::PolicyDeny));
    let policy = scene.engine.policy();
    assert_eq!(
        policy.hits().collect::<Vec<_>>(),
        [("odd", 1), ("ping", 1), ("default", 0)]
    );
    // A type covers itself with any code, and not the reverse.
    let shadowed = |first: &str, second: &str| {
        let rule = |name: &str, kind: &str| {
            format!(
                "[[policy.rule]]\nname = \"{name}\"\naction = \"allow\"\nprotocol = \"icmp\"\n\
                 icmp_types = \"{kind}\"\n"
            )
        };
        let config = load(&(rule("a", first) + &rule("b", second)), &[]).unwrap();
        config
            .warnings()
            .iter()
            .any(|warning| matches!(warning.kind, WarningKind::Shadowed { .. }))
    };
    assert!(shadowed("echo-request", "echo-request/1"));
    assert!(shadowed("8/1", "echo-request/1"));
    assert!(!shadowed("echo-request/1", "echo-request"));
    assert!(!shadowed("echo-request/1", "echo-request/2"));
}

#[test]
fn a_destination_has_a_zone_by_its_prefixes() {
    let text = r#"
[zones]
a = 1
b = 2
c = 3

[zone_groups]
bc = ["b", "c"]

[ip.inside]
b = ["10.2.0.0/16"]
c = ["10.3.0.0/16"]

[[policy.rule]]
name = "to-bc"
action = "allow"
zones = "a"
destination_zones = "bc"
not.destination = "10.3.3.0/24"
"#;
    let policy = policy(text);
    let from = |zone: u16, text: &str| {
        let session = NewSession {
            zone: Zone(zone),
            ..asked(text)
        };
        policy.rule_name(policy.look_up(&session).rule).to_owned()
    };
    assert_eq!(from(1, "10.1.0.1 > 10.2.0.1:80"), "to-bc");
    assert_eq!(from(1, "10.1.0.1 > 10.3.0.1:80"), "to-bc");
    assert_eq!(from(1, "10.1.0.1 > 10.3.3.1:80"), "default");
    assert_eq!(from(1, "10.1.0.1 > 10.4.0.1:80"), "default");
    assert_eq!(from(2, "10.1.0.1 > 10.2.0.1:80"), "default");
    let zone_a = text.replace(
        "destination_zones = \"bc\"",
        "destination_zones = [\"bc\", \"a\"]",
    );
    let told = error(&zone_a, &[]);
    assert!(
        told.contains("destination_zones[1]: the zone `a` has no prefixes in [ip.inside]"),
        "{told}"
    );
}

#[test]
fn a_zone_has_a_default_action_of_its_own() {
    let text = "[zones]\na = 1\nb = 2\nc = 3\n[zone_groups]\nbc = [\"b\", \"c\"]\n\
        [policy]\ndefault = \"deny\"\nzones = { a = \"allow\", bc = \"reject\" }\n";
    let mut scene = Scene::new(text);
    for (zone, reason) in [
        (0, Some(DropReason::PolicyDeny)),
        (1, None),
        (2, Some(DropReason::PolicyReject)),
        (3, Some(DropReason::PolicyReject)),
    ] {
        scene.zone = Zone(zone);
        assert_eq!(scene.udp(Ends::v4(1, 2)).reason(), reason, "zone {zone}");
    }
}

#[derive(Default)]
struct Told {
    opened: usize,
    denied: Vec<DeniedSession>,
    audited: Vec<DeniedSession>,
}

impl Sink for Told {
    fn session_opened(&mut self, _: &portcullis::SessionRecord) {
        self.opened += 1;
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        self.denied.push(*denied);
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        self.audited.push(*audited);
    }
}

#[test]
fn audit_admits_counts_and_reports_what_deny_would_have_dropped() {
    let text = r#"
[policy]
default = "audit"

[[policy.rule]]
name = "web"
action = "allow"
protocol = "tcp"
destination_ports = 80

[[policy.rule]]
name = "dns"
action = "audit"
protocol = "udp"
destination_ports = 53
limits.max_sessions = 1
"#;
    let scene = Scene::new(text);
    let mut told = Told::default();
    let mut process = |bytes: &[u8]| {
        scene
            .engine
            .process_with(Packet::new(bytes, scene.now), &mut told)
    };
    let web = process(&segment(Ends::v4(1, 80), SYN, 1, 0, b""));
    assert_eq!((web.is_forward(), web.tracked().tolerated), (true, None));
    for (bytes, is_first) in [
        (udp(Ends::v4(1, 53), b"q"), true),
        (udp(Ends::v4(1, 53), b"q"), false),
        (udp(Ends::v4(1, 99), b"q"), true),
        (segment(Ends::v4(1, 22), SYN, 1, 0, b""), true),
    ] {
        let verdict = process(&bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
        let expected = is_first.then_some(DropReason::PolicyDeny);
        assert_eq!(
            verdict.tracked().tolerated,
            expected,
            "only what asks the policy"
        );
    }
    let limited = process(&udp(Ends::v4(2, 53), b"q"));
    assert!(
        !limited.is_forward(),
        "audited sessions keep to the limits of their rule"
    );
    assert_eq!(
        (told.opened, told.denied.len(), told.audited.len()),
        (4, 0, 3)
    );
    assert!(
        told.audited
            .iter()
            .all(|audited| audited.action == Action::Audit && audited.log)
    );
    let counted: Vec<_> = scene.engine.tolerated();
    let deny = DropReason::PolicyDeny;
    assert_eq!(
        counted,
        [(deny, "dns".to_owned(), 1), (deny, "default".to_owned(), 2)]
    );
}

#[test]
fn a_reload_keeps_audited_sessions_and_ends_them_once_they_are_denied() {
    let text = |action: &str| format!("[policy]\ndefault = \"{action}\"\n");
    let mut scene = Scene::new(&text("audit"));
    scene.handshake(Ends::v4(1, 80));
    let again = Config::from_toml(&text("audit"), "t.toml").unwrap();
    assert_eq!(
        scene
            .engine
            .reload(&again, scene.now, &mut Discard)
            .unwrap()
            .revoked,
        0
    );
    let deny = Config::from_toml(&text("deny"), "t.toml").unwrap();
    assert_eq!(scene.engine.preview(&deny, scene.now).unwrap().len(), 1);
    assert_eq!(
        scene
            .engine
            .reload(&deny, scene.now, &mut Discard)
            .unwrap()
            .revoked,
        1
    );
    scene.now += Duration::from_secs(1);
    let late = scene.tcp(Ends::v4(1, 80), ACK, 101, 501, b"");
    assert!(!late.is_forward());
}

#[test]
fn a_disabled_rule_is_checked_but_not_compared() {
    let rule = "[[policy.rule]]\nname = \"r\"\naction = \"allow\"\nenabled = false\n\
                comment = \"ticket 7\"\n";
    let config = load(rule, &[]).unwrap();
    let policy = config.compile().unwrap().policy;
    assert!(policy.is_empty());
    assert_eq!(config.next_expiry(), None);
    let values: Vec<_> = config.effective().iter().map(ToString::to_string).collect();
    let line = "policy.rule[0] = \
                { name = \"r\", action = \"allow\", enabled = false, comment = \"ticket 7\" }  # \
                line 1";
    assert!(values.contains(&line.to_owned()), "{values:?}");
    assert!(
        error(&(rule.to_owned() + "source = \"@gone\"\n"), &[]).contains("there is no set `@gone`")
    );
}

#[test]
fn a_rule_expires_at_its_moment_and_its_sessions_are_judged_without_it() {
    let text = r#"
[policy]
default = "deny"

[[policy.rule]]
name = "contractor"
action = "allow"
protocol = "udp"
destination_ports = 53
expires = 2027-01-31

[[policy.rule]]
name = "later"
action = "allow"
protocol = "tcp"
expires = "2027-02-01T00:00:00+01:00"
"#;
    let moment = |text: &str| -> SystemTime { humantime::parse_rfc3339(text).unwrap() };
    let mut config = load(text, &[]).unwrap();
    config.policy.as_of = Some(moment("2027-01-30T23:59:59Z"));
    assert_eq!(config.next_expiry(), Some(moment("2027-01-31T00:00:00Z")));
    let mut scene = Scene::new("");
    scene.engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
    assert!(scene.udp(Ends::v4(1, 53)).is_forward());
    config.policy.as_of = config.next_expiry();
    assert_eq!(scene.engine.preview(&config, scene.now).unwrap().len(), 1);
    assert_eq!(
        scene
            .engine
            .reload(&config, scene.now, &mut Discard)
            .unwrap()
            .revoked,
        1
    );
    assert_eq!(
        scene.udp(Ends::v4(1, 53)).reason(),
        Some(DropReason::PolicyDeny)
    );
    assert_eq!(config.next_expiry(), Some(moment("2027-01-31T23:00:00Z")));
    let warned: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    let told = "t.toml:10: policy.rule[0].expires: rule `contractor` has expired at \
                2027-01-31T00:00:00Z: it is no longer compared";
    assert!(warned.contains(&told.to_owned()), "{warned:?}");
    config.policy.as_of = Some(moment("2028-01-01T00:00:00Z"));
    assert_eq!(config.next_expiry(), None);
    assert!(config.compile().unwrap().policy.is_empty());
    config.policy.as_of = None;
    assert_eq!(
        config.compile().unwrap().policy.len(),
        2,
        "without a moment nothing expires"
    );
}

fn of<'a>(rules: &'a [RuleUse], name: &str) -> &'a RuleUse {
    rules.iter().find(|rule| rule.name == name).unwrap()
}

#[test]
fn a_rule_counts_the_traffic_of_its_sessions_and_its_last_match() {
    let rule = "[[policy.rule]]\nname = \"dns\"\naction = \"allow\"\n\
                services = [\"udp/53\", \"tcp/53\"]\n";
    let mut scene = Scene::new(&(rule.to_owned() + "[policy]\ndefault = \"deny\"\n"));
    let before = scene.engine.rules_with_live();
    assert_eq!(
        before
            .iter()
            .map(|rule| rule.name.as_str())
            .collect::<Vec<_>>(),
        ["dns", "default"]
    );
    assert!(
        before
            .iter()
            .all(|rule| rule.hits == 0 && rule.last_match.is_none())
    );
    let ends = Ends::v4(1, 53);
    let bytes = udp(ends, b"question").len() as u64;
    for _ in 0..3 {
        assert!(scene.decide(&udp(ends, b"question")).is_forward());
    }
    assert!(scene.decide(&udp(ends.back(), b"question")).is_forward());
    let first = scene.now;
    scene.now += Duration::from_secs(5);
    assert!(!scene.udp(Ends::v4(1, 99)).is_forward());
    let rules = scene.engine.rules_with_live();
    let dns = of(&rules, "dns");
    assert_eq!((dns.hits, dns.ended.sessions), (1, 0));
    assert_eq!(
        (dns.live.sessions, dns.live.packets, dns.live.bytes),
        (1, 4, 4 * bytes)
    );
    let since = |last: Option<std::time::Instant>| last.unwrap().saturating_duration_since(first);
    assert!(since(dns.last_match) < Duration::from_millis(100));
    assert_eq!(of(&rules, "default").hits, 1);
    assert!(since(of(&rules, "default").last_match) >= Duration::from_millis(4_900));
    // A reload keeps the counts, and a session that ends counts once.
    let config =
        crate::support::scene::config(&(rule.to_owned() + "[policy]\ndefault = \"deny\"\n"));
    scene
        .engine
        .reload(&config, scene.now, &mut Discard)
        .unwrap();
    assert_eq!(scene.wait(600).ended.len(), 1);
    let rules = scene.engine.rules_with_live();
    let dns = of(&rules, "dns");
    assert_eq!((dns.hits, dns.live.sessions), (1, 0));
    assert_eq!(
        (dns.ended.sessions, dns.ended.packets, dns.ended.bytes),
        (1, 4, 4 * bytes)
    );
}

#[test]
fn an_explanation_names_rule_and_set() {
    let text = r#"
[address_sets]
office = ["10.0.0.0/8"]
guests = ["10.9.0.0/16"]
servers = ["192.0.2.0/24"]

[service_sets]
web = ["tcp/80"]

[[policy.rule]]
name = "staff"
action = "allow"
source = "@office"
not.source = "@guests"
destination = "@servers"
services = "@web"
"#;
    let policy = policy(text);
    let explained = |session: &str| {
        let explanation = policy.explain(&asked(session));
        let first = &explanation.considered[0];
        (first.mismatch.map(|field| field.name()), first.sets.clone())
    };
    let said = |sets: &str| sets.to_owned();
    assert_eq!(
        explained("10.1.1.1 > 192.0.2.1:80"),
        (
            None,
            said("source in @office, destination in @servers, service in @web")
        )
    );
    assert_eq!(
        explained("10.9.1.1 > 192.0.2.1:443"),
        (
            Some("source"),
            said("source in @office, destination in @servers, not.source in @guests")
        )
    );
    assert_eq!(
        explained("8.8.8.8 > 8.8.4.4:1"),
        (Some("source"), String::new())
    );
}

#[test]
fn a_bad_set_rule_or_file_is_an_error_that_names_its_place() {
    let rule = |line: &str| format!("[[policy.rule]]\nname = \"r\"\naction = \"allow\"\n{line}\n");
    let sets = |lines: &str| format!("[address_sets]\n{lines}\n");
    let long = "x".repeat(513);
    let mut wrong = Vec::new();
    for (text, expected) in [
        (
            rule("source = \"@x\""),
            "t.toml:4: policy.rule[0].source: there is no set `@x`: [address_sets] has none",
        ),
        (
            sets("y = [\"10.0.0.0/8\"]") + &rule("not.destination = [\"@x\"]"),
            "t.toml:6: policy.rule[0].not.destination[0]: there is no set `@x`: [address_sets] has \
             y",
        ),
        (
            rule("services = \"@x\""),
            "t.toml:4: policy.rule[0].services: there is no set `@x`: [service_sets] has none",
        ),
        (
            sets("a = [\"@a\"]"),
            "t.toml:2: address_sets.a: the set contains itself: @a names @a",
        ),
        (
            sets("a = [\"@b\"]\nb = [\"@c\", \"10.0.0.0/8\"]\nc = [\"@b\"]"),
            "t.toml:3: address_sets.b: the set contains itself: @b names @c names @b",
        ),
        (
            "[service_sets]\na = [\"@a\"]\n".to_owned(),
            "t.toml:2: service_sets.a: the set contains itself: @a names @a",
        ),
        (
            sets("a = [\"10.0.0.0/8\", \"10.0.0.0/8\"]"),
            "t.toml:2: address_sets.a[1]: `10.0.0.0/8` is in the set already, at place 0",
        ),
        (
            sets("a = [\"10.0.0.1/8\"]"),
            "t.toml:2: address_sets.a[0]: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
        ),
        (
            sets("a = []"),
            "t.toml:2: address_sets.a: an empty list matches nothing: leave the key out to match \
             anything",
        ),
        (
            sets("a = {}"),
            "t.toml:2: address_sets.a: a set needs `addresses`, `file` or both",
        ),
        (
            sets("\"a b\" = [\"10.0.0.0/8\"]"),
            "t.toml:2: address_sets.\"a b\": `a b` is not a name: 1 to 64 characters of A-Z, a-z, \
             0-9, `_`, `.` and `-`",
        ),
        (
            sets("a = { file = \"gone\" }"),
            "t.toml:2: address_sets.a.file: gone: no such file",
        ),
        (
            sets("a = { file = \"bad\" }"),
            "bad:3: address_sets.a: `10.0.0` is not an address or a prefix such as \
             \\\"10.0.0.0/8\\\"",
        ),
        (
            sets("a = { file = \"host\" }"),
            "host:2: address_sets.a: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
        ),
        (
            rule("services = [\"tcp/80\"]\nprotocol = \"tcp\""),
            "t.toml:5: policy.rule[0].protocol: `services` replaces `protocol`: write only one of \
             them",
        ),
        (
            rule("services = \"tcp/90-80\""),
            "t.toml:4: policy.rule[0].services: `tcp/90-80` is reversed: write tcp/80-90",
        ),
        (
            rule("services = \"gre/7\""),
            "t.toml:4: policy.rule[0].services: `gre/7`: gre has no ports",
        ),
        (
            rule("services = \"icmp/packet-too-big\""),
            "t.toml:4: policy.rule[0].services: `icmp/packet-too-big`: packet-too-big is not a \
             type of icmp",
        ),
        (
            rule("not.destination_ports = 80"),
            "t.toml:4: policy.rule[0].not.destination_ports: ports need `protocol` to be tcp, udp, \
             udplite, sctp or dccp",
        ),
        (
            rule("source = \"10.0.0.0/8\"\nnot.source = \"0.0.0.0/0\""),
            "t.toml:1: policy.rule[0]: the rule can match nothing: `not` or `destination_zones` \
             excludes everything that is listed",
        ),
        (
            rule("protocol = \"tcp\"\nnot.protocol = \"tcp\""),
            "t.toml:5: policy.rule[0].not: the rule can match nothing: `not` or \
             `destination_zones` excludes everything that is listed",
        ),
        (
            rule("protocol = \"tcp\"\ndestination_ports = 80\nnot.destination_ports = \"70-90\""),
            "t.toml:6: policy.rule[0].not: the rule can match nothing: `not` or \
             `destination_zones` excludes everything that is listed",
        ),
        (
            rule("expires = \"soon\""),
            "t.toml:4: policy.rule[0].expires: `soon` is not a date or time: write a date such as \
             2027-01-31 (its beginning, in UTC), or a time such as 2027-01-31T18:00:00Z",
        ),
        (
            rule("expires = 2027-01-31T18:00:00"),
            "t.toml:4: policy.rule[0].expires: `2027-01-31T18:00:00` has no offset from UTC: write \
             a date such as 2027-01-31 (its beginning, in UTC), or a time such as \
             2027-01-31T18:00:00Z",
        ),
        (
            rule("comment = \"a\\nb\""),
            "t.toml:4: policy.rule[0].comment: a comment has at most 512 bytes and no control \
             characters",
        ),
        (
            rule(&format!("comment = \"{long}\"")),
            "t.toml:4: policy.rule[0].comment: a comment has at most 512 bytes and no control \
             characters",
        ),
        (
            rule("protocol = \"icmp\"\nicmp_types = \"8/256\""),
            "t.toml:5: policy.rule[0].icmp_types: `8/256` has no ICMP code from 0 to 255 after \
             its slash",
        ),
        (
            "[policy.zones]\nx = \"deny\"\n".to_owned(),
            "t.toml:2: policy.zones.x: there is no zone `x`: the zones are default",
        ),
        (
            rule("destination_zones = \"x\""),
            "t.toml:4: policy.rule[0].destination_zones: there is no zone `x`: the zones are \
             default",
        ),
    ] {
        let files = [
            ("bad", "# feed\n10.0.0.0/8\n10.0.0\n"),
            ("host", "\n10.0.0.1/8"),
        ];
        let told = error(&text, &files);
        if told != expected {
            wrong.push(format!("{told}\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn sets_and_rules_are_bounded() {
    let lines: String = (0..(1 << 18) + 1)
        .map(|n: u32| format!("{}\n", std::net::Ipv4Addr::from(n << 4)))
        .collect();
    let text = "[address_sets]\na = { file = \"f\" }\n";
    assert_eq!(
        error(text, &[("f", &lines)]),
        "f:262145: address_sets.a: a set has at most 262144 prefixes"
    );
    let fits: String = lines
        .lines()
        .take(1 << 18)
        .map(|line| format!("{line}\n"))
        .collect();
    let rules: String = (0..5)
        .map(|n| format!("[[policy.rule]]\nname = \"r{n}\"\naction = \"allow\"\nsource = \"@a\"\n"))
        .collect();
    let told = error(&(text.to_owned() + &rules), &[("f", &fits)]);
    assert!(
        told.contains("policy.rule[4].source: the rules have more than 1048576 prefixes"),
        "{told}"
    );
}

#[test]
fn a_rule_out_of_force_leaves_the_ftp_ports_of_others_alone() {
    for out in [
        "enabled = false",
        "source = \"@none\"",
        "expires = 2001-01-01",
    ] {
        let text = format!(
            "[address_sets]\nnone = {{ file = \"none.txt\" }}\n[[policy.rule]]\nname = \"old\"\n\
             action = \"allow\"\n{out}\n\
             [[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             ftp.ports = [2121]\n\
             [[policy.rule]]\nname = \"b\"\naction = \"allow\"\n"
        );
        let mut config = load(&text, &[("none.txt", "")]).unwrap();
        config.policy.as_of = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let compiled = config.compile().unwrap();
        let [(rule, handling)] = &compiled.ftp_rules[..] else {
            panic!("{out}: {:?}", compiled.ftp_rules);
        };
        assert_eq!(compiled.policy.rule_name(*rule), "a", "{out}");
        assert_eq!(handling.ports.as_deref(), Some(&[2121][..]), "{out}");
    }
}

#[test]
fn two_names_of_one_zone_have_one_default_action() {
    let text = |action: &str| {
        format!(
            "[zones]\na = 1\nb = 2\n[zone_groups]\nab = [\"a\", \"b\"]\n\
             [policy.zones]\na = \"allow\"\nb = \"{action}\"\n"
        )
    };
    let refused = error(&text("deny"), &[]);
    assert!(refused.contains("two names of one zone"), "{refused}");
    load(&text("allow"), &[]).unwrap().compile().unwrap();
}

#[test]
fn a_moment_that_cannot_be_written_is_refused() {
    let text =
        |at: &str| format!("[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nexpires = {at}\n");
    assert!(load(&text("9999-12-31T23:59:59-05:00"), &[]).is_err());
    let config = load(&text("9999-12-31T23:59:59Z"), &[]).unwrap();
    assert!(
        config
            .effective()
            .iter()
            .any(|value| value.to_string().contains("9999-12-31T23:59:59Z"))
    );
}
