//! Defaults, exact messages, precedence, origins and warnings.
use std::time::Duration;

use super::declare::duration;
use super::*;
use crate::flow::Zone;
use crate::lifetime::{LifetimeClass, LifetimeSet, Lifetimes, MAX_OVERRIDES};
use crate::policy::{Action, MAX_RULES, NewSession, PortRange, Protocol, RuleId};

fn parse(text: &str) -> Config {
    Config::from_toml(text, "t.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> String {
    Config::from_toml(text, "t.toml")
        .map(|_| ())
        .unwrap_err()
        .to_string()
}

fn tcp_to(dst: &str, port: u16) -> NewSession {
    NewSession {
        zone: Zone::DEFAULT,
        src: "10.0.0.1".parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 6,
        src_port: Some(50_000),
        dst_port: Some(port),
        icmp: None,
    }
}

#[test]
fn without_a_file_everything_is_denied_at_the_defaults() {
    let config = Config::default();
    assert!(config.warnings().is_empty());
    let compiled = config.compile().unwrap();
    assert_eq!(compiled.checksums, Checksums::Verify);
    assert_eq!(compiled.tcp.mode, TcpMode::Strict);
    assert_eq!(compiled.fixed.max_sessions, 1_048_576);
    assert_eq!(compiled.fixed.shards, 64);
    assert_eq!(
        compiled.zones.iter().collect::<Vec<_>>(),
        [("default", Zone(0))]
    );
    assert_eq!(compiled.zones.name(Zone(0)), Some("default"));
    assert_eq!(compiled.lifetimes.profiles(), 1);
    assert_eq!(compiled.lifetimes.profile(0), &Lifetimes::default());
    assert_eq!(
        compiled.policy.decide(&tcp_to("192.0.2.1", 80)).action,
        Action::Deny
    );
}

#[test]
fn an_empty_file_equals_no_file() {
    let config = parse("");
    assert_eq!(config.policy.default, Action::Deny);
    assert_eq!(parse("[policy]").policy.default, Action::Deny);
    assert_eq!(
        parse("[policy]\ndefault = \"reject\"").policy.default,
        Action::Reject
    );
    let without_origin = Config {
        provenance: Provenance::default(),
        ..config
    };
    assert_eq!(without_origin, Config::default());
}

#[test]
fn a_policy_that_allows_everything_is_asked_for_by_name() {
    let mut config = Config::allow_all();
    assert_eq!(config.policy.default, Action::Allow);
    config.policy.default = Action::Deny;
    assert_eq!(config, Config::default());
}

#[test]
fn a_small_table_has_fewer_shards() {
    let shards = |max: u32| {
        parse(&format!("[table]\nmax_sessions = {max}"))
            .compile()
            .unwrap()
            .fixed
            .shards
    };
    assert_eq!(
        (
            shards(1),
            shards(2_047),
            shards(2_048),
            shards(65_536),
            shards(1 << 28)
        ),
        (1, 1, 2, 64, 64)
    );
    assert_eq!(
        parse("[table]\nshards = 1024")
            .compile()
            .unwrap()
            .fixed
            .shards,
        1024
    );
}

#[test]
fn durations_are_strings_or_seconds() {
    let rows = [
        ("\"30s\"", 30_000),
        ("\"5m\"", 300_000),
        ("\"2h4m\"", 7_440_000),
        ("\"2h 4m\"", 7_440_000),
        ("\"1d\"", 86_400_000),
        ("\"500ms\"", 500),
        ("45", 45_000),
        ("\"30d\"", 2_592_000_000_u32),
    ];
    for (text, millis) in rows {
        let config = parse(&format!("[lifetimes]\nicmp = {text}"));
        let lifetimes = config.compile().unwrap().lifetimes;
        assert_eq!(
            lifetimes.profile(0).millis(LifetimeClass::Icmp),
            millis,
            "{text}"
        );
    }
}

#[test]
fn a_duration_reads_as_it_is_written() {
    for text in ["0s", "1ms", "1d 2h 3m 4s 5ms", "30d", "5m 50s"] {
        assert_eq!(duration(humantime::parse_duration(text).unwrap()), text);
    }
    assert_eq!(duration(Duration::from_micros(10)), "10us");
    assert_eq!(
        duration(Duration::MAX).parse::<u64>().ok(),
        None,
        "the longest is no panic"
    );
}

#[test]
fn every_lifetime_has_a_key() {
    for class in LifetimeClass::ALL {
        let config = parse(&format!("[lifetimes]\n{} = 7", class.name()));
        assert_eq!(config.lifetimes.set.of(class), Some(Duration::from_secs(7)));
        assert_eq!(config.lifetimes.set.iter().count(), 1);
        let config = parse(&format!("[[lifetimes.override]]\n{} = 8", class.name()));
        assert_eq!(
            config.lifetimes.overrides[0].set.of(class),
            Some(Duration::from_secs(8))
        );
    }
}

#[test]
fn all_errors_are_found_at_once_and_none_that_only_follows_from_another() {
    let errors = |text: &str| -> Vec<String> {
        let document = Document::parse(text, "t.toml").unwrap();
        let errors = document.finish().map(|_| ()).unwrap_err();
        errors
            .iter()
            .map(|error| error.location.key.clone())
            .collect()
    };
    let several = "[table]\nmax_sessions = 0\nshards = 3\nsize = 1\n[zones]\na = 0\n[ip.inside]\n\
                   b = \"x\"\n\
                   [[policy.rule]]\nname = \"r\"\naction = \"alow\"\nzones = \"c\"\n\
                   [[policy.rule]]\nname = \"s s\"\naction = \"deny\"\nzones = \"c\"\n\
                   limits.max_sessions = 0\n";
    assert_eq!(
        errors(several),
        [
            "table.max_sessions",
            "table.shards",
            "table.size",
            "zones.a",
            "ip.inside.b",
            "policy.rule[0].action",
            "policy.rule[1].name",
            "policy.rule[1].zones",
            "policy.rule[1].limits.max_sessions",
        ]
    );
    let zones = "[zones]\na = \"1\"\n[tcp.zones]\na = \"liberal\"\n[[policy.rule]]\nname = \"r\"\n\
                 action = \"deny\"\nzones = \"a\"";
    assert_eq!(errors(zones), ["zones.a"], "the zone may be there");
    let rules = "[[policy.rule]]\nname = \"r\"\naction = 1\n[[lifetimes.override]]\nrule = \"r\"";
    assert_eq!(
        errors(rules),
        ["policy.rule[0].action"],
        "the rule may be there"
    );
}

#[test]
fn errors_are_bounded_in_number() {
    let errors = |text: &str| {
        let document = Document::parse(text, "t.toml").unwrap();
        document.finish().map(|_| ()).unwrap_err()
    };
    let unknown: String = (0..1_000).map(|n| format!("x{n} = 1\n")).collect();
    let unknown = errors(&unknown);
    assert_eq!(unknown.iter().count(), 100);
    assert!(unknown.may_have_more());
    assert!(!errors("x = 1\ny = 2").may_have_more());
}

#[test]
fn values_out_of_bounds_do_not_hide_errors_of_several_keys() {
    let overrides: String = (1..=200)
        .map(|port| {
            format!(
                "[[lifetimes.override]]\nprotocol = \"tcp\"\nports = {port}\n\
                     tcp.established = \"31d\"\n"
            )
        })
        .collect();
    let text =
        format!("{overrides}[[policy.rule]]\nname = \"r\"\naction = \"deny\"\nzones = \"none\"\n");
    let document = Document::parse(&text, "t.toml").unwrap();
    let errors = document.finish().map(|_| ()).unwrap_err();
    let is_bounds =
        |error: &&ConfigError| matches!(error.cause, ConfigErrorCause::OutOfBounds { .. });
    assert_eq!(errors.iter().filter(is_bounds).count(), 100);
    assert!(errors.may_have_more());
    let last = errors.iter().last().unwrap();
    assert!(
        matches!(last.cause, ConfigErrorCause::UnknownZone { .. }),
        "{last}"
    );
}

#[test]
fn messages_are_bounded_in_length() {
    let zones: String = (1..=5_000).map(|n| format!("zone-{n} = {n}\n")).collect();
    let sets: String = (1..=5_000)
        .map(|n| format!("set-{n} = [\"192.0.2.1\"]\n"))
        .collect();
    let rules: String = (0..200)
        .map(|n| {
            let keys = "action = \"deny\"\nzones = \"none\"\nsource = \"@none\"\n";
            format!("[[policy.rule]]\nname = \"r{n}\"\n{keys}")
        })
        .collect();
    let text = format!("[zones]\n{zones}[address_sets]\n{sets}{rules}");
    let document = Document::parse(&text, "t.toml").unwrap();
    let errors = document.finish().map(|_| ()).unwrap_err();
    let all = errors.to_string();
    assert!(
        all.contains("there is no zone `none`: the zones are default, zone-1, zone-10, "),
        "{all}"
    );
    assert!(all.contains(", ... and 4981 more\n"), "{all}");
    assert!(
        all.contains("there is no set `@none`: [address_sets] has set-1, "),
        "{all}"
    );
    assert!(all.contains(", ... and 4980 more\n"), "{all}");
    assert!(all.len() < 100 * 512, "{}", all.len());
    let long = "n".repeat(100_000);
    for text in [
        format!("table.max_sessions = \"{long}\""),
        format!("table.{long} = 1"),
        format!("table.\"{}\" = 1", "\u{20ac}".repeat(100_000)),
        format!("{long} = 1"),
        format!("tcp.mode = \"{long}\""),
        format!("tcp.zones.{long} = \"liberal\""),
        format!("zones.\"{long} \" = 1"),
        format!("ip.inside.default = \"{long}\""),
        format!("table.max_sessions = 1{}", "0".repeat(100_000)),
        format!("[[policy.rule]]\nname = \"{long}\"\naction = \"deny\""),
        format!("[[policy.rule]]\nname = \"r\"\naction = \"deny\"\nexpires = \"{long}\""),
    ] {
        let error = error(&text);
        assert!(
            error.len() < 5_000 && error.contains("..."),
            "{}: {error}",
            error.len()
        );
    }
}

#[test]
fn a_long_name_is_like_no_other() {
    use crate::config::text::similar;

    assert_eq!(
        similar("establishe", ["established"]),
        Some("established".to_owned())
    );
    let long = "a".repeat(65);
    assert_eq!(similar(&long, [long.as_str()]), None);
}

#[test]
fn an_error_is_one_line_whatever_the_file_holds() {
    let forged = "a\\nportcullis: forged \\u001b[31m line\\u202e";
    for text in [
        format!("table.max_sessions = \"{forged}\""),
        format!("table.\"{forged}\" = 1"),
        format!("\"{forged}\" = 1"),
        format!("tcp.mode = \"{forged}\""),
        format!("checks.\"{forged}\" = \"count\""),
        format!("zones.\"{forged}\" = 1"),
        format!("limits.zones.\"{forged}\".max_sessions = 1"),
        format!("ip.inside.default = \"{forged}\""),
        format!("[[policy.rule]]\nname = \"{forged}\"\naction = \"deny\""),
        format!("[[policy.rule]]\nname = \"r\"\naction = \"deny\"\nexpires = \"{forged}\""),
        format!("[[policy.rule]]\nname = \"r\"\naction = \"deny\"\nsource = \"@{forged}\""),
    ] {
        let document = Document::parse(&text, "t.toml");
        let errors = document
            .and_then(|document| document.finish().map(|_| ()))
            .unwrap_err();
        for error in &errors {
            let shown = error.to_string();
            assert!(
                !shown.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{shown:?}"
            );
            assert!(shown.contains("forged"), "{shown:?}");
        }
    }
    let shown = error("tcp.mode = 'a \\ \"b\" ü'");
    assert!(
        shown.contains("`a \\ \"b\" ü`"),
        "quotes are as they are: {shown}"
    );
}

#[test]
fn an_error_about_a_replaced_key_names_the_replacement() {
    let allow = "write `\"count\"` in place of `\"allow\"`";
    let split = "`checks.tcp_split_handshake` has replaced `tcp.split_handshake`";
    let redirect = "`checks.icmp_redirect` has replaced `icmp.redirects`";
    let loose = "`mode = \"liberal\"` with `midstream = \"adopt\"` has replaced `loose`: a zone or \
                 rule with another mode needs `midstream = \"drop\"` then";
    let rule = "[[policy.rule]]\nname = \"r\"\naction = \"allow\"\n";
    for (text, message) in [
        (
            "[tcp]\nsplit_handshake = \"allow\"".to_owned(),
            format!("t.toml:2: tcp.split_handshake: {split}: {allow}"),
        ),
        (
            "[icmp]\nredirects = \"drop\"".to_owned(),
            format!("t.toml:1: icmp: {redirect}: {allow}"),
        ),
        (
            "tcp.mode = \"loose\"".to_owned(),
            format!("t.toml:1: tcp.mode: {loose}"),
        ),
        (
            "[tcp.zones]\ndefault = \"loose\"".to_owned(),
            format!("t.toml:2: tcp.zones.default: {loose}"),
        ),
        (
            format!("{rule}tcp = \"loose\""),
            format!("t.toml:4: policy.rule[0].tcp: {loose}"),
        ),
        (
            format!("{rule}tcp.mode = \"loose\""),
            format!("t.toml:4: policy.rule[0].tcp.mode: {loose}"),
        ),
    ] {
        assert_eq!(error(&text), message);
    }
    let elsewhere = error("[table]\nsplit_handshake = \"allow\"");
    assert!(
        elsewhere.contains("unknown key `split_handshake`"),
        "{elsewhere}"
    );
}

#[test]
fn a_misspelled_name_is_answered_with_the_one_that_was_meant() {
    for (text, meant) in [
        ("[table]\nmax_session = 5", "max_sessions"),
        ("[limts]", "limits"),
        ("[tcp]\nmode = \"libral\"", "liberal"),
        ("[checks]\ntcp_sate = \"count\"", "tcp_state"),
        ("[[policy.rule]]\nname = \"a\"\naction = \"alow\"", "allow"),
        (
            "[[policy.rule]]\nname = \"a\"\naction = \"deny\"\nprot = \"tcp\"",
            "protocol",
        ),
        ("[lifetimes]\ntcp.establish = 1", "established"),
        ("[lifetimes]\ntpc.established = 1", "tcp"),
        (
            "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"icmpv6\"\n\
             icmp_types = \"neighbour-solicitation/0\"",
            "neighbor-solicitation",
        ),
    ] {
        let error = error(text);
        assert!(
            error.contains(&format!("did you mean `{meant}`?")),
            "{error}"
        );
    }
    assert!(!error("[nonsense]").contains("did you mean"));
}

#[test]
fn a_key_of_another_section_is_answered_with_its_path() {
    for (text, meant) in [
        ("[table]\nmidstream = \"drop\"", Some("tcp.midstream")),
        ("port_floor = 7", Some("ftp.port_floor")),
        (
            "[resets]\nsearched_zones = 7",
            Some("asymmetry.searched_zones"),
        ),
        // Two sections have the key; tables in lists, and tables by name, have no path of their
        // own.
        ("[gwlb]\nprovider = \"gwlb\"\nmode = \"auto\"", None),
        ("[engine]\ndestination_zones = \"x\"", None),
    ] {
        let error = error(text);
        match meant {
            Some(meant) => {
                let meant = format!("did you mean `{meant}`?");
                assert!(error.contains(&meant), "{error}");
            }
            None => assert!(
                !error.contains("`tcp.mode`") && !error.contains("NAME"),
                "{error}"
            ),
        }
    }
}

#[test]
fn names_are_compared_by_letters_and_not_by_bytes() {
    let error = error("tcp.mode = \"\u{65e5}\u{672c}\u{8a9e}\u{65e5}\u{672c}\u{8a9e}\"");
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn the_message_of_an_error_is_bounded_without_its_location() {
    let sets: String = (0..10_000)
        .map(|n| format!("s{n} = [\"@s{}\"]\n", (n + 1) % 10_000))
        .collect();
    let long = "n".repeat(100_000);
    for text in [
        format!("[address_sets]\n{sets}"),
        format!("zones.\"{long}\" = 1"),
        format!("[geneve.endpoints]\n\"{long}\" = \"default\""),
        format!("[geneve.endpoints]\n\"a\\nb{long}\" = \"default\""),
    ] {
        let error = Config::from_toml(&text, "t.toml").unwrap_err();
        let message = error.message();
        assert!(message.len() < 5_000, "{}", message.len());
        assert!(!message.contains(char::is_control), "{message}");
        assert!(
            error.location.key.len() <= 1_024,
            "{}",
            error.location.key.len()
        );
        assert!(error.to_string().len() < 6_000, "{error}");
        let start: String = message.chars().take(12).collect();
        assert!(
            error.to_string().contains(&start),
            "the cause has room: {error}"
        );
    }
    let circle = error(&format!("[address_sets]\n{sets}"));
    assert!(circle.contains("@s1 names @s"), "{circle}");
    assert!(circle.ends_with(", and so on: 9991 more names"), "{circle}");
}

#[test]
fn a_syntax_error_names_the_key_of_its_value() {
    let text = "[table]\nmax_sessions = 1\n[zones]\na = {b = [1, 2,, 3]}\n";
    let errors = Document::parse(text, "t.toml").unwrap_err();
    let first = errors.iter().next().unwrap();
    assert_eq!(
        (first.location.line, first.location.key.as_str()),
        (Some(4), "zones.a.b")
    );
}

#[test]
fn many_zones_and_addresses_are_checked_in_one_pass() {
    let zones: String = (1..=65_535).map(|n| format!("z{n} = {n}\n")).collect();
    let each = |value: &dyn Fn(u32) -> String| -> String {
        (1..=65_535).map(|n| format!("{}\n", value(n))).collect()
    };
    let groups = each(&|n| format!("g{n} = [\"z{n}\"]"));
    let actions = each(&|n| format!("z{n} = \"reject\""));
    let text = format!("[zones]\n{zones}[zone_groups]\n{groups}[policy.zones]\n{actions}");
    let compiled = parse(&text).compile().unwrap();
    assert_eq!(compiled.zones.zone("g65535"), Some(Zone(65_535)));
    let both = format!("{text}g7 = \"allow\"\n");
    let error = parse(&both).compile().unwrap_err().to_string();
    assert!(
        error.contains("two names of one zone have different actions"),
        "{error}"
    );
    let address = |n: u32| format!("\"{}\"", std::net::Ipv4Addr::from(n));
    let listen: Vec<String> = (1..=65_535).chain([7]).map(address).collect();
    let error = Config::from_toml(&format!("geneve.listen = [{}]", listen.join(",")), "t.toml");
    let errors = error.unwrap_err().to_string();
    assert!(
        errors.contains("a list of 65536 is out of bounds: 1 to 64 entries"),
        "{errors}"
    );
}

/// Files and their error messages.
const ERRORS: &[(&str, &str)] = &[
    ("[table", "t.toml:1: unclosed table, expected `]`"),
    (
        "[tabel]\n",
        "t.toml:1: tabel: unknown key `tabel`: did you mean `table`? Known: `engine`, `table`, \
         `limits`, `fragments`, `zones`, `zone_groups`, `address_sets`, `service_sets`, `gwlb`, \
         `geneve`, `tcp`, `resets`, `tombstones`, `continuity`, `asymmetry`, `syn_challenge`, \
         `ip`, `ftp`, `checks`, `lifetimes`, `policy`",
    ),
    (
        "[limits]\nipv4_prefix = 33",
        "t.toml:2: limits.ipv4_prefix: 33 is out of bounds: 0 to 32",
    ),
    (
        "[limits]\nmax_per_source = 0",
        "t.toml:2: limits.max_per_source: 0 is out of bounds: at least 1; a policy rule denies \
         sessions",
    ),
    (
        "[limits.zones.lab]\nmax_sessions = 5",
        "t.toml:1: limits.zones.lab: there is no zone `lab`: the zones are default",
    ),
    (
        "[limits.zones.default]\nmax_sessions = 0",
        "t.toml:2: limits.zones.default.max_sessions: 0 is out of bounds: at least 1; a policy \
         rule denies sessions",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\n\
         limits = { new_per_second_per_source = 0 }",
        "t.toml:4: policy.rule[0].limits.new_per_second_per_source: 0 is out of bounds: at least \
         1; a policy rule denies sessions",
    ),
    (
        "[table]\nadaptive_start = 80\nadaptive_end = 80",
        "t.toml:3: table.adaptive_end: 80 is out of bounds: above table.adaptive_start, 80, and at \
         most 1000; or both 0",
    ),
    (
        "[limits]\nipv6_prefix = 129",
        "t.toml:2: limits.ipv6_prefix: 129 is out of bounds: 0 to 128",
    ),
    (
        "[syn_challenge]\nstart = 0",
        "t.toml:2: syn_challenge.start: 0 is out of bounds: 1 to 100",
    ),
    (
        "[syn_challenge]\nstart = 20\nend = 21",
        "t.toml:3: syn_challenge.end: 21 is out of bounds: 0 to 20",
    ),
    (
        "[syn_challenge]\nper_second = 0",
        "t.toml:2: syn_challenge.per_second: 0 is out of bounds: 1 to 100000000",
    ),
    (
        "[syn_challenge]\nmax_sources = 16_777_217",
        "t.toml:2: syn_challenge.max_sources: 16777217 is out of bounds: 0 to 16777216",
    ),
    (
        "[syn_challenge]\nmode = \"on\"",
        "t.toml:2: syn_challenge.mode: unknown value `on`: expected one of `off`, `auto`, `always`",
    ),
    (
        "[table]\nmax_session = 5",
        "t.toml:2: table.max_session: unknown key `max_session`: did you mean `max_sessions`? \
         Known: `max_sessions`, `shards`, `adaptive_start`, `adaptive_end`",
    ),
    (
        "[table]\nmax_sessions = \"many\"",
        "t.toml:2: table.max_sessions: `many` is a string: write a whole number, not in quotes",
    ),
    (
        "[table]\nmax_sessions = true",
        "t.toml:2: table.max_sessions: true is of the wrong type: expected a whole number",
    ),
    (
        "[table]\nmax_sessions = 0",
        "t.toml:2: table.max_sessions: 0 is out of bounds: 1 to 268435456",
    ),
    (
        "[table]\nmax_sessions = -3",
        "t.toml:2: table.max_sessions: -3 is out of bounds: 1 to 268435456",
    ),
    (
        "[table]\nmax_sessions = 99_999_999_999",
        "t.toml:2: table.max_sessions: 99999999999 is out of bounds: 1 to 268435456",
    ),
    (
        "[table]\nshards = 65",
        "t.toml:2: table.shards: 65 is out of bounds: a power of two from 1 to 1024",
    ),
    (
        "[table]\nshards = 2048",
        "t.toml:2: table.shards: 2048 is out of bounds: a power of two from 1 to 1024",
    ),
    (
        "[table]\nmax_sessions = 2\nshards = 4",
        "t.toml:3: table.shards: 4 is out of bounds: at most table.max_sessions, 2",
    ),
    (
        "[engine]\nchecksums = \"check\"",
        "t.toml:2: engine.checksums: unknown value `check`: expected one of `verify`, `require`, \
         `trust`",
    ),
    (
        "[ip]\noptions = \"drop\"",
        "t.toml:2: ip.options: unknown value `drop`: expected one of `allow`, `strict`",
    ),
    (
        "[ip]\nsource_routes = \"strict\"",
        "t.toml:2: ip.source_routes: unknown value `strict`: expected one of `drop`, `allow`",
    ),
    (
        "[ip]\nmartians = false",
        "t.toml:2: ip.martians: false is of the wrong type: expected a name in quotes",
    ),
    (
        "[ip]\ninside = [\"10.0.0.0/8\"]",
        "t.toml:2: ip.inside: a list is of the wrong type: expected a table",
    ),
    (
        "[ip.inside]\noffice = \"10.0.0.0/8\"",
        "t.toml:2: ip.inside.office: there is no zone `office`: the zones are default",
    ),
    (
        "[ip.inside]\ndefault = [\"10.0.0.0/8\", \"10.1.2.3/16\"]",
        "t.toml:2: ip.inside.default[1]: 10.1.2.3/16 has host bits set: the network is 10.1.0.0/16",
    ),
    (
        "[ip.inside]\ndefault = []",
        "t.toml:2: ip.inside.default: [] is out of bounds: at least one prefix",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nip_options = \"drop\"",
        "t.toml:4: policy.rule[0].ip_options: unknown value `drop`: expected one of `allow`, \
         `strict`",
    ),
    (
        "[tcp]\nmode = \"lax\"",
        "t.toml:2: tcp.mode: unknown value `lax`: expected one of `strict`, `liberal`",
    ),
    (
        "[tcp.zones]\noffice = \"liberal\"",
        "t.toml:2: tcp.zones.office: there is no zone `office`: the zones are default",
    ),
    (
        "[checks]\npolicy_deny = \"count\"",
        "t.toml:2: checks.policy_deny: unknown check `policy_deny`: expected one of `tcp_state`, \
         `tcp_seq_above_window`, `tcp_ack_of_unseen`, `tcp_rst_below_window`, \
         `tcp_split_handshake`, `icmp_error_not_to_sender`, `icmp_error_sequence`, \
         `icmp_error_mtu_fits`, `icmp_redirect`, `sctp_state`, `sctp_tag`, `dccp_state`, \
         `dccp_ack_of_unseen`",
    ),
    (
        "[fragments]\nmax_datagrams = 0",
        "t.toml:2: fragments.max_datagrams: 0 is out of bounds: 1 to 1048576",
    ),
    (
        "[fragments]\nmax_datagrams = 99_999_999_999",
        "t.toml:2: fragments.max_datagrams: 99999999999 is out of bounds: 1 to 1048576",
    ),
    (
        "[fragments]\nmax_per_source = 1048577",
        "t.toml:2: fragments.max_per_source: 1048577 is out of bounds: 1 to 1048576",
    ),
    (
        "[fragments]\nlifetime = \"61s\"",
        "t.toml:2: fragments.lifetime: 1m 1s is out of bounds: 1s to 1m",
    ),
    (
        "[fragments]\nhold = \"11s\"",
        "t.toml:2: fragments.hold: 11s is out of bounds: 0s to 10s",
    ),
    (
        "[fragments]\nmax_held = 0",
        "t.toml:2: fragments.max_held: 0 is out of bounds: 1 to 65536",
    ),
    (
        "[fragments]\nmax_held_per_source = 65537",
        "t.toml:2: fragments.max_held_per_source: 65537 is out of bounds: 1 to 65536",
    ),
    (
        "[zones]\na = 1\nb = 1",
        "t.toml:3: zones.b: zone number 1 is taken by `a`",
    ),
    (
        "[zones]\na = 0",
        "t.toml:2: zones.a: zone number 0 is taken by `default`",
    ),
    (
        "[zones]\ndefault = 5",
        "t.toml:2: zones.default: the zone `default` is always 0, not 5",
    ),
    (
        "[zones]\n\"a b\" = 5",
        "t.toml:2: zones.\"a b\": `a b` is not a name: 1 to 64 characters of A-Z, a-z, 0-9, `_`, \
         `.` and `-`",
    ),
    (
        "[zones]\na = 70000",
        "t.toml:2: zones.a: 70000 is out of bounds: 0 to 65535",
    ),
    (
        "[gwlb]\ntcp_idle = 59",
        "t.toml:2: gwlb.tcp_idle: 59s is out of bounds: 1m to 1h 40m",
    ),
    (
        "[gwlb]\nother_idle = \"2h\"",
        "t.toml:2: gwlb.other_idle: 2h is out of bounds: 1s to 1h 40m",
    ),
    (
        "[lifetimes]\nicmp = 0",
        "t.toml:2: lifetimes.icmp: 0s is out of bounds: 1ms to 30d",
    ),
    (
        "[lifetimes]\nicmp = -1",
        "t.toml:2: lifetimes.icmp: a duration cannot be negative: -1",
    ),
    (
        "[lifetimes]\nicmp = \"soon\"",
        "t.toml:2: lifetimes.icmp: `soon` is not a duration such as \"2h 4m\" or \"500ms\": \
         expected number at 0",
    ),
    (
        "[lifetimes]\nicmp = 1.5",
        "t.toml:2: lifetimes.icmp: 1.5 is of the wrong type: expected a duration such as \"30s\", \
         or whole seconds",
    ),
    (
        "[lifetimes]\ntcp.established = \"31d\"",
        "t.toml:2: lifetimes.tcp.established: 31d is out of bounds: 1ms to 30d",
    ),
    (
        "[lifetimes]\ntcp.open = \"31d\"",
        "t.toml:2: lifetimes.tcp.open: unknown key `open`: expected one of `syn_sent`, `syn_recv`, \
         `established`, `fin_wait`, `close_wait`, `last_ack`, `time_wait`, `close`, \
         `unacknowledged`, `retransmitted`",
    ),
    (
        "[lifetimes.tcp]\nclose = \"10us\"",
        "t.toml:2: lifetimes.tcp.close: 10us is out of bounds: 1ms to 30d",
    ),
    (
        "[[lifetimes.override]]\nport = 22",
        "t.toml:2: lifetimes.override[0].port: unknown key `port`: did you mean `ports`? Known: \
         `protocol`, `ports`, `address`, `zone`, `rule`, `tcp`, `udp`, `icmp`, `other`, `sctp`, \
         `dccp`",
    ),
    (
        "[[lifetimes.override]]\nports = 22",
        "t.toml:2: lifetimes.override[0].ports: ports need `protocol` to be tcp or udp",
    ),
    (
        "[[lifetimes.override]]\nprotocol = \"icmp\"\nports = 22",
        "t.toml:3: lifetimes.override[0].ports: ports need `protocol` to be tcp or udp, not icmp",
    ),
    (
        "[[lifetimes.override]]\nprotocol = \"tcp\"\nports = \"30-20\"",
        "t.toml:3: lifetimes.override[0].ports: 30-20 is reversed: write 20-30",
    ),
    (
        "[[lifetimes.override]]\naddress = [\"10.0.0.0/8\", \"10.1.2.3/16\"]",
        "t.toml:2: lifetimes.override[0].address[1]: 10.1.2.3/16 has host bits set: the network is \
         10.1.0.0/16",
    ),
    (
        "[[lifetimes.override]]\nzone = \"x\"",
        "t.toml:2: lifetimes.override[0].zone: there is no zone `x`: the zones are default",
    ),
    (
        "[[lifetimes.override]]\nudp.stream = 0",
        "t.toml:2: lifetimes.override[0].udp.stream: 0s is out of bounds: 1ms to 30d",
    ),
    (
        "[[lifetimes.override]]\n[[lifetimes.override]]\n",
        "t.toml:2: lifetimes.override[1]: equally specific as lifetimes.override[0] (line 1) for \
         every session: make one of them more specific",
    ),
    (
        "[[lifetimes.override]]\nprotocol = \"tcp\"\n[[lifetimes.override]]\nprotocol = \"udp\"\n\
         [[lifetimes.override]]\nprotocol = 6",
        "t.toml:5: lifetimes.override[2]: equally specific as lifetimes.override[0] (line 1) for \
         protocol tcp: make one of them more specific",
    ),
    (
        "[zones]\nz = 1\n[[lifetimes.override]]\naddress = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\n\
         zone = \"z\"\nprotocol = \"tcp\"\nports = [1, \"10-20\"]\n[[lifetimes.override]]\n\
         address = [\"10.1.0.0/16\", \"::/0\"]\nzone = \"z\"\nprotocol = \"tcp\"\n\
         ports = [\"20-30\"]",
        "t.toml:8: lifetimes.override[1]: equally specific as lifetimes.override[0] (line 3) for \
         address 10.1.0.0/16, port 20, zone z, protocol tcp: make one of them more specific",
    ),
    (
        "[policy]\ndefault = \"drop\"",
        "t.toml:2: policy.default: unknown value `drop`: expected one of `allow`, `deny`, \
         `reject`, `audit`",
    ),
    (
        "[policy]\ninside = [\"10.0.0.1/8\"]",
        "t.toml:2: policy.inside[0]: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
    ),
    (
        "[policy]\ninside = 7",
        "t.toml:2: policy.inside: 7 is not an address or a prefix such as \"10.0.0.0/8\"",
    ),
    (
        "[[policy.rule]]\naction = \"allow\"",
        "t.toml:1: policy.rule[0]: missing key `name`",
    ),
    (
        "[[policy.rule]]\nname = \"a\"",
        "t.toml:1: policy.rule[0]: missing key `action`",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprot = \"tcp\"",
        "t.toml:4: policy.rule[0].prot: unknown key `prot`: did you mean `protocol`? Known: \
         `name`, `action`, `enabled`, `comment`, `expires`, `zones`, `source`, `destination`, \
         `destination_zones`, `services`, `not`, `protocol`, `source_ports`, `destination_ports`, \
         `icmp_types`, `direction`, `log`, `resilient`, `tcp`, `ip_options`, `limits`, `ftp`",
    ),
    (
        "[[policy.rule]]\nname = \"a b\"\naction = \"allow\"\n",
        "t.toml:2: policy.rule[0].name: `a b` is not a name: 1 to 64 characters of A-Z, a-z, 0-9, \
         `_`, `.` and `-`",
    ),
    (
        "[[policy.rule]]\nname = \"\"\naction = \"allow\"\n",
        "t.toml:2: policy.rule[0].name: `` is not a name: 1 to 64 characters of A-Z, a-z, 0-9, \
         `_`, `.` and `-`",
    ),
    (
        "[[policy.rule]]\nname = \"default\"\naction = \"allow\"\n",
        "t.toml:2: policy.rule[0].name: `default` is the name of the default action: give the \
         rule another name",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\n[[policy.rule]]\nname = \"b\"\n\
         action = \"allow\"\n[[policy.rule]]\nname = \"a\"\naction = \"allow\"\n",
        "t.toml:8: policy.rule[2].name: the name `a` is taken by policy.rule[0] (line 1)",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nzones = [\"default\", \"x\"]",
        "t.toml:4: policy.rule[0].zones[1]: there is no zone `x`: the zones are default",
    ),
    (
        "[zones]\nz = 1\n[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nzones = \"x\"",
        "t.toml:6: policy.rule[0].zones: there is no zone `x`: the zones are default, z",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nsource = []",
        "t.toml:4: policy.rule[0].source: an empty list matches nothing: leave the key out to \
         match anything",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nsource = \"10.0.0\"",
        "t.toml:4: policy.rule[0].source: `10.0.0` is not an address or a prefix such as \
         \"10.0.0.0/8\"",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nsource = \"10.1.2.3/8\"",
        "t.toml:4: policy.rule[0].source: 10.1.2.3/8 has host bits set: the network is 10.0.0.0/8",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\ndestination = [\"2001:db8::1/32\"]",
        "t.toml:4: policy.rule[0].destination[0]: 2001:db8::1/32 has host bits set: the network is \
         2001:db8::/32",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tpc\"",
        "t.toml:4: policy.rule[0].protocol: `tpc` is not a protocol: a number from 0 to 255 or one \
         of \
         icmp, igmp, ipip, tcp, udp, dccp, ipv6, rsvp, gre, esp, ah, icmpv6, eigrp, ospf, pim, \
         vrrp, l2tp, sctp, udplite",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = 256",
        "t.toml:4: policy.rule[0].protocol: 256 is not a protocol: a number from 0 to 255",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\ndestination_ports = 80",
        "t.toml:4: policy.rule[0].destination_ports: ports need `protocol` to be tcp, udp, \
         udplite, sctp or dccp",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = [\"tcp\", \"gre\"]\n\
         destination_ports = 80",
        "t.toml:5: policy.rule[0].destination_ports: ports need `protocol` to be tcp, udp, \
         udplite, sctp or dccp, not gre",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         source_ports = [1, \"20-10\"]",
        "t.toml:5: policy.rule[0].source_ports[1]: 20-10 is reversed: write 10-20",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         source_ports = [1, 70000]",
        "t.toml:5: policy.rule[0].source_ports[1]: 70000 is not a port (0 to 65535)",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         source_ports = [1, \"20-\"]",
        "t.toml:5: policy.rule[0].source_ports[1]: `20-` is not a port (0 to 65535) or a range of \
         ports \
         such as `8000-8999`",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         source_ports = [\n  1,\n  true,\n]",
        "t.toml:7: policy.rule[0].source_ports[1]: true is of the wrong type: expected a port or a \
         range of ports such as \"8000-8999\"",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nicmp_types = 8",
        "t.toml:4: policy.rule[0].icmp_types: ICMP types need `protocol` to be icmp, icmpv6 or \
         both",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = [\"icmp\", \"tcp\"]\n\
         icmp_types = 8",
        "t.toml:5: policy.rule[0].icmp_types: ICMP types need `protocol` to be icmp, icmpv6 or \
         both",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"icmp\"\nicmp_types = \
         \"packet-too-big\"",
        "t.toml:5: policy.rule[0].icmp_types: packet-too-big is not a type of icmp",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nprotocol = \"icmp\"\n\
         icmp_types = \"ping\"",
        "t.toml:5: policy.rule[0].icmp_types: `ping` is not an ICMP type: a number from 0 to 255 \
         or \
         one of echo-reply, destination-unreachable, source-quench, redirect, echo-request, \
         router-advertisement, router-solicitation, time-exceeded, parameter-problem, \
         timestamp-request, timestamp-reply, information-request, information-reply, \
         address-mask-request, address-mask-reply, packet-too-big, neighbor-solicitation, \
         neighbor-advertisement, node-information-query, extended-echo-request, \
         extended-echo-reply",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\ndirection = \"up\"",
        "t.toml:4: policy.rule[0].direction: unknown value `up`: expected one of `outbound`, \
         `inbound`, `any`",
    ),
    (
        "[[policy.rule]]\nname = \"a\"\naction = \"allow\"\nlog = 1",
        "t.toml:4: policy.rule[0].log: 1 is of the wrong type: expected `true` or `false`",
    ),
];

#[test]
fn an_error_names_file_line_key_and_cause() {
    let mut wrong = String::new();
    for (text, message) in ERRORS {
        let got = error(text);
        if got != *message {
            wrong += &format!("    (\n        {text:?},\n        {got:?},\n    ),\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_key_of_the_reference_has_a_meaning_and_a_reason_for_its_default() {
    let sections = Config::reference();
    for section in &sections {
        for key in &section.keys {
            let name = format!("{}.{}", section.path, key.name);
            let is_lifetime = section.path == "lifetimes";
            assert!(is_lifetime || !key.doc.is_empty(), "{name}");
            assert!(!key.kind.is_empty(), "{name}");
            assert!(
                key.is_required || !key.why.is_empty() || key.default == "false",
                "{name}"
            );
        }
    }
    let keys: usize = sections.iter().map(|section| section.keys.len()).sum();
    assert!(keys > 150, "{keys}");
}

#[test]
fn a_key_that_a_reload_cannot_change_is_kept_and_is_said_to_need_a_restart() {
    let needs_restart: Vec<String> = Config::reference()
        .iter()
        .flat_map(|section| &section.keys)
        .filter(|key| key.is_restart)
        .map(|key| format!("{}.{}", key.section, key.name))
        .collect();
    // Groups are kept and compared by the zones that they join.
    let groups = "zone_groups.NAME";
    assert!(needs_restart.iter().any(|key| key == groups));
    let of_engine: Vec<&String> = needs_restart
        .iter()
        .filter(|key| !key.starts_with("geneve.") && *key != groups)
        .collect();
    let values = Config::default().restart_values();
    let values: Vec<&String> = values.iter().map(|(key, _)| key).collect();
    assert_eq!(values, of_engine);
}

#[test]
fn counts_beyond_their_bounds_are_errors() {
    let config = Config {
        policy: PolicyConfig {
            rules: (0..=MAX_RULES)
                .map(|n| RuleConfig::new(format!("r{n}"), Action::Allow))
                .collect(),
            ..PolicyConfig::default()
        },
        ..Config::default()
    };
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "policy.rule: 65001 rules are too many: at most 65000"
    );
    let mut config = Config::default();
    config.lifetimes.overrides = vec![LifetimeOverride::default(); MAX_OVERRIDES + 1];
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "lifetimes.override: 255 overrides are too many: at most 254"
    );
}

#[test]
fn a_configuration_built_in_code_is_checked_as_well() {
    let mut rule = RuleConfig::new("web", Action::Allow);
    rule.protocol = vec![Protocol::TCP];
    rule.destination_ports = vec![PortRange { first: 9, last: 1 }];
    let policy = PolicyConfig {
        rules: vec![rule],
        ..PolicyConfig::default()
    };
    let config = Config {
        policy,
        ..Config::default()
    };
    assert_eq!(
        config.compile().unwrap_err().to_string(),
        "policy.rule[0].destination_ports[0]: 9-1 is reversed: write 1-9"
    );
}

#[test]
fn rules_are_read_and_compiled() {
    let config = parse(
        r#"
        [zones]
        vpce-a = 7
        [policy]
        inside = []
        [[policy.rule]]
        name = "everything"
        action = "reject"
        zones = "vpce-a"
        source = ["10.0.0.0/8", "2001:db8::/32"]
        destination = "192.0.2.1"
        protocol = ["tcp", 17]
        source_ports = "1024-65535"
        destination_ports = [80, "8000-8999"]
        direction = "inbound"
        log = true
        [[policy.rule]]
        name = "ping"
        action = "allow"
        protocol = ["icmp", "icmpv6"]
        icmp_types = ["echo-request", 13]
        "#,
    );
    let policy = config.compile().unwrap().policy;
    let hit = NewSession {
        zone: Zone(7),
        ..tcp_to("192.0.2.1", 8080)
    };
    let decision = policy.decide(&hit);
    assert_eq!(
        (decision.action, decision.rule, decision.log),
        (Action::Reject, RuleId(0), true)
    );
    let misses = [
        NewSession {
            zone: Zone(0),
            ..hit
        },
        NewSession {
            src: "11.0.0.1".parse().unwrap(),
            ..hit
        },
        NewSession {
            dst: "192.0.2.2".parse().unwrap(),
            ..hit
        },
        NewSession {
            protocol: 132,
            ..hit
        },
        NewSession {
            src_port: Some(1023),
            ..hit
        },
        NewSession {
            dst_port: Some(81),
            ..hit
        },
    ];
    for miss in misses {
        assert_eq!(policy.decide(&miss).rule, RuleId::DEFAULT, "{miss:?}");
    }
    let ping = NewSession {
        protocol: 58,
        src_port: None,
        dst_port: None,
        icmp: Some((128, 0)),
        ..hit
    };
    assert_eq!(policy.rule_name(policy.decide(&ping).rule), "ping");
}

#[test]
fn the_most_specific_override_of_a_file_applies() {
    let config = parse(
        r#"
        [zones]
        b = 2
        [lifetimes]
        udp.replied = "20s"
        [[lifetimes.override]]
        protocol = "tcp"
        tcp.established = "1m"
        [[lifetimes.override]]
        protocol = "tcp"
        zone = "b"
        tcp.established = "2m"
        [[lifetimes.override]]
        protocol = "tcp"
        ports = [22, "6000-6010"]
        tcp.established = "3m"
        [[lifetimes.override]]
        address = ["192.0.2.0/24", "2001:db8::/32"]
        tcp.established = "4m"
        [[lifetimes.override]]
        address = "192.0.2.128/25"
        zone = "b"
        tcp.established = "5m"
        "#,
    );
    let lifetimes = config.compile().unwrap().lifetimes;
    assert_eq!(lifetimes.profiles(), 6);
    let rows = [
        ("the protocol", 0, "198.51.100.1", 6, 80, 60),
        ("no override", 0, "198.51.100.1", 17, 80, 340),
        ("the zone", 2, "198.51.100.1", 6, 80, 120),
        ("the port before the zone", 2, "198.51.100.1", 6, 22, 180),
        ("the second range", 2, "198.51.100.1", 6, 6010, 180),
        ("beside the range", 0, "198.51.100.1", 6, 6011, 60),
        ("the address before the port", 2, "192.0.2.1", 6, 22, 240),
        ("the longer prefix", 2, "192.0.2.129", 6, 22, 300),
        (
            "the longer prefix in another zone",
            0,
            "192.0.2.129",
            6,
            22,
            240,
        ),
        ("IPv6", 0, "2001:db8::1", 17, 1, 240),
    ];
    for (claim, zone, dst, protocol, port, seconds) in rows {
        let src = "10.0.0.1".parse().unwrap();
        let profile = lifetimes.select(&crate::lifetime::Subject {
            zone: Zone(zone),
            src,
            dst: dst.parse().unwrap(),
            protocol,
            dst_port: Some(port),
            rule: RuleId::DEFAULT,
        });
        let profile = lifetimes.profile(profile);
        assert_eq!(
            profile.of(LifetimeClass::TcpEstablished).as_secs(),
            seconds,
            "{claim}"
        );
        assert_eq!(profile.millis(LifetimeClass::UdpReplied), 20_000, "{claim}");
    }
}

#[test]
fn overrides_that_cannot_tie_are_no_error() {
    let pairs = [
        ("protocol = \"tcp\"", "protocol = \"udp\""),
        ("address = \"10.0.1.0/24\"", "address = \"10.0.2.0/24\""),
        ("address = \"10.0.0.0/8\"", "address = \"10.0.0.0/9\""),
        (
            "protocol = \"tcp\"\nports = [80, 81]",
            "protocol = \"tcp\"\nports = \"80-81\"",
        ),
        (
            "protocol = \"tcp\"\nports = \"80-89\"",
            "protocol = \"tcp\"\nports = \"90-99\"",
        ),
        (
            "protocol = \"tcp\"\nports = 53",
            "protocol = \"udp\"\nports = 53",
        ),
        ("zone = \"default\"", "protocol = \"udp\""),
        ("address = \"0.0.0.0/0\"", "address = \"::/0\""),
    ];
    for (one, other) in pairs {
        parse(&format!(
            "[[lifetimes.override]]\n{one}\n[[lifetimes.override]]\n{other}"
        ));
    }
}

fn warnings(text: &str) -> Vec<String> {
    parse(text)
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_lifetime_not_below_the_load_balancers_is_a_warning() {
    let long = "[lifetimes]\ntcp.established = 350\ntcp.time_wait = \"1h\"\nother.replied = 120\n\
                icmp = 119\n\
                [[lifetimes.override]]\nudp.stream = \"10m\"\ntcp.established = 349\n";
    assert_eq!(
        warnings(long),
        [
            "t.toml:2: lifetimes.tcp.established: 5m 50s is not below gwlb.tcp_idle (5m 50s): the \
             load balancer \
             forgets the flow before the session ends",
            "t.toml:4: lifetimes.other.replied: 2m is not below gwlb.other_idle (2m): the load \
             balancer forgets \
             the flow before the session ends",
            "t.toml:7: lifetimes.override[0].udp.stream: 10m is not below gwlb.other_idle (2m): \
             the load balancer \
             forgets the flow before the session ends",
        ]
    );
    assert!(warnings(&format!("{long}[gwlb]\nenabled = false")).is_empty());
    assert_eq!(
        warnings(&format!("{long}[gwlb]\ntcp_idle = 351\nother_idle = 601")).len(),
        0
    );
    let short = warnings("[gwlb]\ntcp_idle = 330");
    assert_eq!(short.len(), 1, "a default is compared as well: {short:?}");
    let followed = warnings("[lifetimes]\ntcp.established = \"1h\"\nudp.replied = \"2m\"");
    assert_eq!(
        followed.len(),
        2,
        "what follows needs no warning: {followed:?}"
    );
    let chosen = warnings("[lifetimes]\ntcp.close_wait = \"1h\"\nudp.exchange = \"2m\"");
    assert_eq!(chosen.len(), 2, "{chosen:?}");
}

#[test]
fn a_rule_that_an_earlier_one_covers_is_a_warning() {
    let rules = "[[policy.rule]]\nname = \"all-tcp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                 [[policy.rule]]\nname = \"web\"\naction = \"deny\"\nprotocol = \"tcp\"\n\
                 destination_ports = 80\n";
    assert_eq!(
        warnings(rules),
        ["t.toml:5: policy.rule[1]: rule `web` never matches: `all-tcp` covers it"]
    );
}

/// Asserts that two texts have equal lines, and shows the first that differs.
fn similar(got: &str, expected: &str) {
    for (got, expected) in got.lines().zip(expected.lines()) {
        assert_eq!(got, expected);
    }
    assert_eq!(got.lines().count(), expected.lines().count());
}

#[test]
fn effective_values_tell_where_they_come_from() {
    let config = parse(
        "[table]\nmax_sessions = 32\n[zones]\nb = 2\n[lifetimes]\ntcp.established = 300\n\
         [[lifetimes.override]]\nprotocol = \"tcp\"\nports = 22\ntcp.established = \"5m 30s\"\n\
         [[policy.rule]]\nname = \"web\"\naction = \"allow\"\nzones = \"b\"\nprotocol = \"tcp\"\n\
         destination_ports = [80, \"90-99\"]\nlog = true\n",
    );
    let lines: Vec<String> = config.effective().iter().map(ToString::to_string).collect();
    let got = lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/config/tests/effective.txt"
    );
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &got).unwrap();
    }
    similar(&got, &std::fs::read_to_string(PAGE).unwrap());
}

#[test]
fn a_value_set_in_code_has_no_line() {
    let mut config = Config::default();
    config.gwlb.tcp_idle = Duration::from_secs(6000);
    config.lifetimes.set =
        LifetimeSet::default().with(LifetimeClass::TcpEstablished, Duration::from_secs(5000));
    let origin = |key: &str| {
        config
            .effective()
            .iter()
            .find(|value| value.key == key)
            .unwrap()
            .origin
    };
    assert_eq!(origin("gwlb.tcp_idle"), Origin::File { line: None });
    assert_eq!(
        origin("lifetimes.tcp.established"),
        Origin::File { line: None }
    );
    assert_eq!(
        origin("policy.default"),
        Origin::Default {
            source: "what no rule allows is denied"
        }
    );
}

#[test]
fn sizes_of_ftp_have_bounds_and_reach_the_helper() {
    for (line, says) in [
        (
            "max_line = 64",
            "ftp.max_line: 64 is out of bounds: 128 to 65536",
        ),
        (
            "reorder_bytes = 1000",
            "ftp.reorder_bytes: 1000 is out of bounds: 4096 to 1048576",
        ),
        (
            "max_pipelined = 0",
            "ftp.max_pipelined: 0 is out of bounds: 1 to 1024",
        ),
        (
            "max_memory = 1",
            "ftp.max_memory: 1 is out of bounds: at least 65536",
        ),
        ("active_opening = \"late\"", "unknown value `late`"),
    ] {
        let error = Config::from_toml(&format!("[ftp]\n{line}\n"), "t.toml").unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let text = "[ftp]\nmax_line = 512\nreorder_bytes = 4096\nmax_pipelined = 5\n\
                active_opening = \"reply\"\n";
    let settings = Config::from_toml(text, "t.toml").unwrap().ftp.settings();
    let sizes = [
        settings.max_line,
        settings.reorder_bytes,
        settings.max_pipelined,
    ];
    assert_eq!(sizes, [512, 4_096, 5]);
    assert_eq!(
        settings.active_opening,
        crate::ftp::helper::ActiveOpening::Reply
    );
}
