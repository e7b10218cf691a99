//! Printed values read back, and errors name their places.

use portcullis::config::Origin;
use proptest::prelude::*;

use super::*;
use crate::run::settings::page;

fn printed(text: &str, is_changed_only: bool) -> String {
    let mut report = Report::new(text, "f", None).unwrap_or_else(|errors| panic!("{errors}"));
    if is_changed_only {
        report.values.retain(|value| !value.is_default);
    }
    let mut out = Vec::new();
    report.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The values without their origins, which name other lines.
fn plain(text: &str) -> Vec<(String, String)> {
    let (config, settings) =
        config_file::parse(text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let values = values(&config, &settings).into_iter();
    values.map(|value| (value.key, value.value)).collect()
}

/// Asserts that the printed values, all or the changed ones, are the same configuration.
fn reads_back(text: &str) {
    let (before, _) = config_file::parse(text, "f").unwrap();
    for is_changed_only in [false, true] {
        let printed = printed(text, is_changed_only);
        assert_eq!(plain(&printed), plain(text), "{printed}");
        let (after, _) = config_file::parse(&printed, "f").unwrap();
        assert_eq!(after.policy, before.policy);
        assert_eq!(after.zones, before.zones);
        assert_eq!(after.zone_groups, before.zone_groups);
        assert_eq!(after.lifetimes.set, before.lifetimes.set);
        if before.address_sets.is_empty() {
            let compiled = |config: &Config| format!("{:?}", config.compile().unwrap().lifetimes);
            assert_eq!(compiled(&after), compiled(&before), "{printed}");
        }
        assert_eq!(after.limits, before.limits);
        assert_eq!(after.tcp, before.tcp);
        assert_eq!(after.lifetimes.overrides, before.lifetimes.overrides);
        assert_eq!(after.address_sets, before.address_sets);
        assert_eq!(after.service_sets, before.service_sets);
    }
}

#[test]
fn the_printed_sample_is_the_same_configuration() {
    reads_back("");
    reads_back(include_str!("../../portcullis.sample.toml"));
}

#[test]
fn printed_lifetimes_that_follow_others_are_not_set() {
    let over = "[[lifetimes.override]]\nprotocol = \"tcp\"\nports = 22\ntcp.established = \"2h\"\n";
    reads_back(over);
    reads_back(&format!("[lifetimes]\ntcp.established = \"1h\"\n{over}"));
    reads_back(&format!("[lifetimes]\ntcp.fin_wait = \"5m 40s\"\n{over}"));
    reads_back("[lifetimes]\ntcp.syn_sent = \"7s\"\n");
    let printed = printed(
        &format!("[lifetimes]\ntcp.established = \"1h\"\n{over}"),
        false,
    );
    assert!(
        printed.contains("\n# lifetimes.tcp.fin_wait = \"1h\"  # as tcp.established\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\n# lifetimes.icmp = \"30s\"  # default: "),
        "{printed}"
    );
}

#[test]
fn the_default_zone_is_named_in_print_if_it_is_in_the_file() {
    let unnamed = "zones.a = 1\n";
    reads_back(unnamed);
    assert!(printed(unnamed, false).contains("\n# zones.default = 0  # default: always there\n"));
    assert!(!printed(unnamed, true).contains("zones.default"));
    let named = "zones.a = 1\nzones.default = 0\n";
    reads_back(named);
    for is_changed_only in [false, true] {
        let printed = printed(named, is_changed_only);
        assert!(
            printed.contains("zones.default = 0  # line 2\n"),
            "{printed}"
        );
        assert!(!printed.contains("# zones.default"), "{printed}");
    }
}

#[test]
fn a_printed_rule_has_every_key() {
    let keys = [
        "enabled = false",
        "comment = 'a \"b\" \\c'",
        "expires = 2099-12-31T18:00:00Z",
        "zones = [\"default\"]",
        "source = [\"10.0.0.0/8\", \"@set\"]",
        "destination = \"2001:db8::/32\"",
        "destination_zones = \"default\"",
        "services = [\"tcp/80-90\", \"gre\", \"icmp/3/4\"]",
        "not.destination = \"@set\"",
        "direction = \"inbound\"",
        "log = true",
        "tcp = { late = \"drop\", timeout_reset = false }",
        "ip_options = \"strict\"",
        "limits = { max_sessions = 3, action = \"reject\" }",
        "ftp = { ports = [2121], refused = \"drop\" }",
    ];
    let rules: String = keys
        .iter()
        .enumerate()
        .map(|(place, key)| {
            format!("[[policy.rule]]\nname = \"r.{place}\"\naction = \"audit\"\n{key}\n")
        })
        .collect();
    reads_back(&format!(
        "[address_sets]\nset = [\"192.0.2.0/24\"]\n[ip.inside]\ndefault = \"10.0.0.0/8\"\n{rules}\
         [[policy.rule]]\nname = \"all\"\naction = \"allow\"\n{}",
        "protocol = [\"tcp\", 17]\nsource_ports = 1\ndestination_ports = [\"2-3\"]\n\
         not.source_ports = 7\n"
    ));
}

proptest! {
    #[test]
    fn printed_values_are_the_same_configuration(
        sessions in 1_u32..10_000,
        shards in prop::option::of(0_u32..4),
        millis in 1_u64..2_592_000_000,
        lifetime in 1_000_u64..60_000,
        limit in prop::option::of(1_u32..=u32::MAX),
        workers in 0_u32..=256,
        name in "[a-zA-Z0-9_.-]{1,64}",
        comment in "[^\\p{Cc}]{0,40}",
        path in "[^\\p{Cc}'\"]{1,40}",
    ) {
        let mut text = format!("table.max_sessions = {}\n", sessions * 8);
        if let Some(shards) = shards {
            text += &format!("table.shards = {}\n", 1 << shards);
        }
        if let Some(limit) = limit {
            text += &format!("limits.max_per_source = {limit}\n\
                              limits.zones.default.max_sessions = {limit}\n");
        }
        text += &format!("lifetimes.tcp.established = \"{millis}ms\"\n\
                          fragments.lifetime = \"{lifetime}ms\"\n");
        text += &format!("run.workers = {workers}\nlog.output = '{path}'\n\
                          run.sessions_file = '{path}'\n");
        if name != "default" {
            let comment = comment.replace('\\', "\\\\").replace('"', "\\\"");
            text += &format!("zones.\"{name}\" = 7\ntcp.zones.\"{name}\" = \"liberal\"\n");
            text += &format!("[[policy.rule]]\nname = \"{name}\"\naction = \"deny\"\n\
                              comment = \"{comment}\"\n");
        }
        reads_back(&text);
    }
}

/// Lines of the sample that others need.
const NEEDED: [&str; 13] = [
    "[",
    "name = ",
    "action = ",
    "protocol = ",
    "services = ",
    "office = 1",
    "lab = 2",
    "lab = [",
    "servers = ",
    "admins = ",
    "web = ",
    "sessions_file = ",
    "inside = ",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_part_of_the_sample_reads_back(kept in prop::collection::vec(any::<bool>(), 400)) {
        let sample = page::uncommented();
        let is_kept = |(line, kept): &(&str, &bool)| {
            let is_needed = NEEDED.iter().any(|start| line.starts_with(start));
            // The set has a file, which is not there.
            !line.starts_with("feed = ") && (**kept || is_needed)
        };
        let lines = sample.lines().zip(&kept).filter(is_kept);
        let text: Vec<&str> = lines.map(|(line, _)| line).collect();
        prop_assert!(sample.lines().count() <= kept.len());
        reads_back(&text.join("\n"));
    }
}

#[test]
fn only_changed_values_are_printed_on_request() {
    let lines = printed(
        "[table]\nmax_sessions = 5000\n[log]\noutput = \"stdout\"\n",
        true,
    );
    let lines: Vec<&str> = lines
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        lines,
        [
            "table.max_sessions = 5000  # line 2",
            "log.output = \"stdout\"  # line 4"
        ]
    );
}

#[test]
fn every_printed_value_has_an_origin() {
    let text = printed(include_str!("../../portcullis.sample.toml"), false);
    let values = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(" = "));
    let lists = ["lifetimes.override = [", "policy.rule = ["];
    let values: Vec<&str> = values.filter(|line| !lists.contains(line)).collect();
    assert!(values.len() > 130, "{}", values.len());
    assert_origins(values);
    let all = values_of("");
    assert!(all.len() > 130, "{}", all.len());
    for value in all {
        assert!(!matches!(value.origin, Origin::File { .. }), "{value}");
        let reason = value.origin.to_string();
        let reason = reason.trim_start_matches("default:").trim();
        assert!(!reason.is_empty(), "{value}");
    }
}

fn values_of(text: &str) -> Vec<EffectiveValue> {
    let (config, settings) = config_file::parse(text, "f").unwrap();
    values(&config, &settings)
}

fn assert_origins(values: Vec<&str>) {
    for line in values {
        let (_, origin) = line.rsplit_once("  # ").unwrap_or_else(|| panic!("{line}"));
        let is_origin = |start: &&str| origin.starts_with(start);
        assert!(
            ["line ", "default: ", "as "].iter().any(is_origin),
            "{line}"
        );
    }
}

fn errors(text: &str) -> ConfigErrors {
    Report::new(text, "f.toml", None).map(|_| ()).unwrap_err()
}

#[test]
fn all_errors_of_a_file_are_shown_with_their_lines() {
    let text = "[table]\nmax_sessions = 0\n\n[tabel]\nx = 1\n\n[tcp]\nmode = \"strikt\"\n\n\
                [[policy.rule]]\nname = \"a\"\naction = \"allow\"\nzones = [\"lab\"]\n\
                [health]\nfull_table = 101\n";
    let errors = errors(text);
    let shown: Vec<String> = errors
        .iter()
        .map(|error| snippet::render(error, text, false))
        .collect();
    assert_eq!(shown.len(), 5, "{errors}");
    for (shown, wanted) in shown.iter().zip([
        [
            "error: table.max_sessions: 0 is out of bounds: 1 to 268435456",
            "--> f.toml:2:16",
            "2 | max_sessions = 0",
            "               ^",
        ],
        [
            "error: tabel: unknown key `tabel`: did you mean `table`?",
            "--> f.toml:4:2",
            "4 | [tabel]",
            "  ^^^^^",
        ],
        [
            "did you mean `strict`?",
            "--> f.toml:8:8",
            "8 | mode = \"strikt\"",
            "       ^^^^^^^^",
        ],
        [
            "there is no zone `lab`",
            "--> f.toml:13:10",
            "13 | zones = [\"lab\"]",
            "         ^^^^^",
        ],
        [
            "101 is out of bounds: 0 to 100",
            "--> f.toml:15:14",
            "15 | full_table = 101",
            "             ^^^",
        ],
    ]) {
        for wanted in wanted {
            assert!(shown.contains(wanted), "{wanted}\n{shown}");
        }
    }
}

#[test]
fn text_that_is_not_toml_is_shown_line_by_line() {
    let text = "[table]\nmax_sessions = \n[zones]\na == 1\n";
    let errors = errors(text);
    let lines: Vec<_> = errors
        .iter()
        .filter_map(|error| error.location.line)
        .collect();
    assert!(lines.contains(&2) && lines.contains(&4), "{errors}");
}

/// Returns a result as JSON.
fn object(report: &Result<Report, ConfigErrors>) -> serde_json::Value {
    serde_json::to_value(CheckRow::new("f.toml", report)).unwrap()
}

#[test]
fn the_schema_is_up_to_date_with_the_result_like_every_page() {
    crate::schema::check::<CheckRow<'_>>("check");
}

#[test]
fn json_has_errors_and_values() {
    let text = "[table]\nmax_sessions = 0\n";
    let object = object(&Report::new(text, "f.toml", None));
    assert_eq!(object["valid"], false);
    assert_eq!(
        object["errors"][0],
        serde_json::json!({
            "file": "f.toml", "line": 2, "column": 16, "key": "table.max_sessions",
            "message": "0 is out of bounds: 1 to 268435456",
        })
    );
    let object = self::object(&Report::new("table.max_sessions = 7", "f.toml", None));
    assert_eq!(
        (&object["valid"], &object["errors"]),
        (&true.into(), &serde_json::json!([]))
    );
    let values = object["values"].as_array().unwrap();
    let of = |key: &str| values.iter().find(|value| value["key"] == key).unwrap();
    assert_eq!(
        *of("table.max_sessions"),
        serde_json::json!({
            "key": "table.max_sessions", "toml": "7", "is_default": false,
            "origin": { "kind": "file", "line": 1 },
        })
    );
    assert_eq!(of("limits.max_per_source")["toml"], serde_json::Value::Null);
    assert_eq!(of("health.full_table")["origin"]["kind"], "default");
    assert!(object["memory"]["total_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn json_of_an_unreadable_file_has_its_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("binary.toml");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let source = config_file::text(&path).unwrap_err();
    let object = CheckRow::unreadable("binary.toml", &source);
    let object = serde_json::to_value(object).unwrap();
    assert_eq!(object["valid"], false);
    assert_eq!(object["errors"][0]["file"], "binary.toml");
    let message = object["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("UTF-8"), "{message}");
}

#[test]
fn a_file_that_is_not_utf8_is_answered_with_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("binary.toml");
    std::fs::write(&path, b"[table]\r\nmax_sessions = 5\n# \xff\n").unwrap();
    let error = config_file::text(&path).unwrap_err().to_string();
    assert_eq!(error, "line 3 is not UTF-8");
}

#[test]
fn an_error_has_its_column_whatever_the_line_ends_and_the_letters_before() {
    for (text, place) in [
        ("[table]\r\nmax_sessions = 0\r\n", (2, 16)),
        ("\u{feff}[table]\nmax_sessions = 0", (2, 16)),
        ("\u{feff}table.max_sessions = 0", (1, 22)),
        ("\u{feff}= 0", (1, 1)),
        ("table = { x = 0, max_sessions = 0 }", (1, 11)),
        (
            "tcp = { mode = \"\u{65e5}\u{672c}\", late = \"x\" }",
            (1, 16),
        ),
        ("\ttcp.late\t=\t\"x\"", (1, 13)),
        ("table.max_sessions = \"\"\"\n\n0\"\"\"", (1, 22)),
        (
            "[[policy.rule]]\nname = 'r'\naction = 'deny'\nzones = [\n'default',\n 'x']",
            (6, 2),
        ),
    ] {
        let errors = errors(text);
        let location = &errors.iter().next().unwrap().location;
        let column = location.text.as_ref().unwrap().column;
        assert_eq!(
            (location.line, column),
            (Some(place.0), place.1),
            "{text:?}"
        );
        let shown = snippet::render(errors.iter().next().unwrap(), text, false);
        let place = format!("--> f.toml:{}:{}", place.0, place.1);
        assert!(shown.contains(&place), "{shown}");
    }
}

#[test]
fn the_number_of_errors_says_if_there_may_be_more() {
    assert_eq!(errors_text(1, false), "1 error");
    assert_eq!(errors_text(100, false), "100 errors");
    assert_eq!(
        errors_text(100, true),
        "the first 100 errors; there may be more"
    );
}

#[test]
fn a_snippet_of_very_long_lines_is_left_out() {
    let long = format!("table.max_sessions = 0 # {}\n", "x".repeat(100_000));
    let errors = errors(&long);
    let shown = snippet::render(errors.iter().next().unwrap(), &long, false);
    assert_eq!(
        shown,
        "error: f.toml:1: table.max_sessions: 0 is out of bounds: 1 to 268435456"
    );
}

#[test]
fn settings_that_weaken_a_log_that_fails_closed_are_warnings() {
    let of = |text: &str| Report::new(text, "f", None).unwrap().warnings.join("\n");
    let open = "log.output = \"stdout\"\ntcp.asymmetric = \"report\"\n";
    assert!(!of(open).contains("log.fail_closed"));
    let closed = "log = { output = \"stdout\", fail_closed = true }\n";
    let limit = "limits.new_per_second_per_source = 100\n";
    let no_limit = "limits.new_per_second_per_source is not";
    assert!(of(closed).contains(no_limit));
    let text = of(&format!("{closed}{limit}"));
    assert!(!text.contains("log.fail_closed"), "{text}");
    for report in [
        "tcp.asymmetric = \"report\"\n",
        "tcp.zones.default = { asymmetric = \"report\" }\n",
        "policy.rule = [{ name = \"a\", action = \"allow\", tcp = { asymmetric = \"report\" } }]\n",
    ] {
        let text = of(&format!("{closed}{limit}{report}"));
        assert!(
            text.contains("tcp.asymmetric is \"report\""),
            "{report}{text}"
        );
        assert!(!text.contains(no_limit), "{text}");
    }
}

#[test]
fn a_policy_that_allows_by_default_is_a_warning() {
    let of = |text: &str| Report::new(text, "f", None).unwrap().warnings.join("\n");
    assert!(!of("").contains("sessions that no rule names"));
    assert!(
        of("policy.default = \"allow\"")
            .contains("policy.default is \"allow\": sessions that no rule names pass")
    );
    let zone = of("policy.zones.default = \"audit\"");
    assert!(zone.contains("policy.zones.default is \"audit\""), "{zone}");
}
