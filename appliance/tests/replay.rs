//! `portcullis replay` and `check` as a user runs them, on the project's own capture.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::Value;
use support::{path, portcullis, project, rows, text};

fn demo() -> std::path::PathBuf {
    project("demo/demo.pcap")
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn summary_verdicts_and_sessions_agree() {
    let scratch = tempfile::tempdir().unwrap();
    let (verdicts, sessions) = (scratch.path().join("v"), scratch.path().join("s"));
    let output = portcullis(&[
        "replay",
        path(&demo()),
        "--json",
        "--verdicts",
        path(&verdicts),
        "--sessions",
        path(&sessions),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (verdicts, sessions) = (rows(&verdicts), rows(&sessions));
    assert_eq!(number(&summary["frames"]) as usize, verdicts.len());
    assert_eq!(number(&summary["sessions"]) as usize, sessions.len());
    for (verdict, count) in summary["verdicts"].as_object().unwrap() {
        let seen = verdicts
            .iter()
            .filter(|row| row["verdict"] == **verdict)
            .count();
        assert_eq!(number(count) as usize, seen, "{verdict}");
    }
    // Every forwarded packet is counted by its session, except ICMP errors, which are related and
    // change none.
    for session in &sessions {
        let of_session = |direction: &str| {
            verdicts
                .iter()
                .filter(|row| {
                    row["session"] == session["id"]
                        && row["verdict"] == "forward"
                        && (row["class"] != "related" || !session["parent"].is_null())
                        && row["direction"] == direction
                })
                .count() as u64
        };
        assert_eq!(
            number(&session["orig_pkts"]),
            of_session("original"),
            "{session}"
        );
        assert_eq!(
            number(&session["resp_pkts"]),
            of_session("reply"),
            "{session}"
        );
        assert!(session["start"].as_f64() <= session["last"].as_f64());
    }
    let ids: std::collections::HashSet<_> = sessions.iter().map(|row| number(&row["id"])).collect();
    assert_eq!(ids.len(), sessions.len(), "each session has its own id");
    let finished = sessions
        .iter()
        .filter(|row| row["conn_state"] == "SF" && row["proto"] == "tcp")
        .count();
    assert!(
        finished >= 20,
        "{finished} TCP connections came to their ordinary end"
    );
    assert!(
        sessions
            .iter()
            .any(|row| row["conn_state"] == "REJ" && row["end_reason"] == "refused")
    );
    assert!(
        sessions
            .iter()
            .any(|row| row["conn_state"] == "S0" && row["state"] == "SYN_SENT")
    );
    assert!(verdicts.iter().any(|row| row["class"] == "related"));
    assert!(verdicts.iter().any(|row| row["class"] == "untracked"));
}

#[test]
fn a_replay_gives_the_same_result_every_time() {
    let run = || portcullis(&["replay", path(&demo()), "--json"]).stdout;
    assert_eq!(text(&run()), text(&run()));
}

#[test]
fn what_was_forwarded_is_forwarded_again() {
    let scratch = tempfile::tempdir().unwrap();
    let written = scratch.path().join("out.pcap");
    let first = portcullis(&["replay", path(&demo()), "--json", "--write", path(&written)]);
    let second = portcullis(&["replay", path(&written), "--json", "--checksums", "verify"]);
    let [first, second] = [first, second].map(|output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    assert_eq!(second["verdicts"]["forward"], first["verdicts"]["forward"]);
    assert_eq!(second["frames"], first["verdicts"]["forward"]);
    assert_eq!(second["sessions_by_state"], first["sessions_by_state"]);
}

#[test]
fn a_policy_decides_new_sessions_and_its_rejections_are_written() {
    let scratch = tempfile::tempdir().unwrap();
    let (config, written) = (
        scratch.path().join("c.toml"),
        scratch.path().join("out.pcap"),
    );
    std::fs::write(
        &config,
        r#"
        [policy]
        default = "deny"
        [[policy.rule]]
        name = "web"
        action = "allow"
        protocol = "tcp"
        destination_ports = [80]
        [[policy.rule]]
        name = "no-ftp"
        action = "reject"
        protocol = "tcp"
        destination_ports = [21]
        [[policy.rule]]
        name = "no-dns"
        action = "reject"
        protocol = "udp"
        destination_ports = [53]
        "#,
    )
    .unwrap();
    let output = portcullis(&[
        "replay",
        path(&demo()),
        "--json",
        "--config",
        path(&config),
        "--write",
        path(&written),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(number(&summary["drops"]["policy_deny"]) > 0);
    let rejected = number(&summary["drops"]["policy_reject"]);
    assert!(rejected > 5, "{rejected}");
    let hits = |name: &str| {
        let rules = summary["rules"].as_array().unwrap();
        number(&rules.iter().find(|rule| rule["name"] == name).unwrap()["hits"])
    };
    assert_eq!(hits("no-ftp") + hits("no-dns"), rejected);
    assert!(hits("web") > 5);
    // The replies are in the file, with correct checksums: RSTs and ICMP errors.
    let verdicts = scratch.path().join("v");
    let again = portcullis(&[
        "replay",
        path(&written),
        "--checksums",
        "verify",
        "--json",
        "--verdicts",
        path(&verdicts),
    ]);
    assert!(again.status.success());
    let replies = rows(&verdicts)
        .iter()
        .filter(|row| row["reason"] == "tcp_no_session" || row["reason"] == "icmp_error_no_session")
        .count() as u64;
    assert_eq!(replies, rejected);
}

#[test]
fn an_explanation_names_session_bounds_rule_and_lifetime() {
    let scratch = tempfile::tempdir().unwrap();
    let verdicts = scratch.path().join("v");
    assert!(
        portcullis(&["replay", path(&demo()), "--verdicts", path(&verdicts)])
            .status
            .success()
    );
    let rows = rows(&verdicts);
    let frame = |what: &dyn Fn(&Value) -> bool| {
        rows.iter()
            .find(|row| what(row))
            .map(|row| number(&row["n"]).to_string())
            .expect("such a frame")
    };
    let explain = |n: &str| {
        let output = portcullis(&["replay", path(&demo()), "--explain", n]);
        assert!(output.status.success());
        text(&output.stdout)
    };
    let new = explain(&frame(&|row| {
        row["class"] == "new" && row["verdict"] == "forward"
    }));
    for part in [
        "no session has this key",
        "policy: allow by default",
        "opened",
        "lifetime",
        "verdict: forward, new",
    ] {
        assert!(new.contains(part), "{part} in\n{new}");
    }
    let established = (1..=rows.len()).find_map(|n| {
        let row = &rows[n - 1];
        let text = (row["class"] == "established").then(|| explain(&n.to_string()))?;
        text.contains("TCP").then_some(text)
    });
    let established = established.expect("an established TCP packet");
    for part in [
        "found",
        "transition:",
        "bound I:",
        "bound II:",
        "bound III:",
        "bound IV:",
        "limit",
        "state",
    ] {
        assert!(established.contains(part), "{part} in\n{established}");
    }
    let dropped = explain(&frame(&|row| row["reason"] == "tcp_no_session"));
    assert!(
        dropped.contains("verdict: drop, invalid: tcp_no_session"),
        "{dropped}"
    );
    let skipped = explain(&frame(&|row| row["verdict"] == "skip"));
    assert!(skipped.contains("no IP packet: arp"), "{skipped}");
}

#[test]
fn events_of_the_helper_are_in_the_summary_and_in_explanations() {
    let output = portcullis(&["replay", path(&demo()), "--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ftp = &summary["ftp"];
    let announced = number(&ftp["announced"]);
    assert!(announced > 0);
    assert_eq!(number(&ftp["events"]["expectation_opened"]), announced);
    let sessions = ftp["sessions"].as_array().unwrap();
    let of_sessions = |key: &str| sessions.iter().map(|row| number(&row[key])).sum::<u64>();
    assert_eq!(of_sessions("announced"), announced);
    assert_eq!(of_sessions("opened"), number(&ftp["opened"]));
    assert!(number(&ftp["opened"]) > 0);
    let events = sessions
        .iter()
        .flat_map(|row| row["events"].as_array().unwrap());
    let mut explained = 0;
    for event in events
        .filter(|event| event["event"] == "expectation_opened")
        .take(3)
    {
        let frame = number(&event["frame"]).to_string();
        let output = portcullis(&["replay", path(&demo()), "--explain", &frame]);
        let said = text(&output.stdout);
        let about = event["about"].as_str().unwrap();
        let direction = event["direction"].as_str().unwrap();
        let line = format!("helper: expectation_opened, {direction} direction: {about}");
        assert!(said.contains(&line), "{line} in\n{said}");
        explained += 1;
    }
    assert!(explained > 0);
    let said = text(&portcullis(&["replay", path(&demo())]).stdout);
    let headline = format!("FTP: {announced} data sessions announced, ");
    assert!(said.contains(&headline), "{headline} in\n{said}");
}

#[test]
fn a_frame_that_is_not_there_cannot_be_explained() {
    let output = portcullis(&["replay", path(&demo()), "--explain", "1000000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("the capture has only"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_cut_capture_is_decided_as_far_as_it_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let (cut, verdicts) = (scratch.path().join("cut.pcap"), scratch.path().join("v"));
    let whole = std::fs::read(demo()).unwrap();
    let all = {
        assert!(
            portcullis(&["replay", path(&demo()), "--verdicts", path(&verdicts)])
                .status
                .success()
        );
        rows(&verdicts)
    };
    let mut ends_within_a_frame = 0;
    for len in [24, 25, 40, 41, 1_000, 54_321, whole.len() - 1] {
        std::fs::write(&cut, &whole[..len]).unwrap();
        let output = portcullis(&["replay", path(&cut), "--verdicts", path(&verdicts)]);
        let some = rows(&verdicts);
        assert_eq!(some, all[..some.len()], "{len}");
        assert!(
            text(&output.stdout).contains("frames,"),
            "the summary is printed all the same"
        );
        if output.status.code() == Some(0) {
            continue;
        }
        ends_within_a_frame += 1;
        assert_eq!(output.status.code(), Some(2), "{len}");
        let error = text(&output.stderr);
        let offset = error
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse::<usize>().ok());
        assert!(
            offset
                .into_iter()
                .any(|offset| offset <= len && len - offset < 70_000 && offset >= 24),
            "{error}"
        );
    }
    assert!(ends_within_a_frame >= 5);
}

#[test]
fn what_is_no_capture_is_refused() {
    for (bytes, code) in [(&b"nonsense, not a capture at all"[..], 2), (&b""[..], 2)] {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.pcap");
        std::fs::write(&file, bytes).unwrap();
        let output = portcullis(&["replay", path(&file)]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
    let missing = portcullis(&["replay", "/nonexistent/x.pcap"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nonexistent/x.pcap"));
}

#[test]
fn check_prints_values_with_their_origin_and_refuses_what_is_wrong() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("c.toml");
    std::fs::write(&file, "[lifetimes]\ntcp.established = \"2h\"\n").unwrap();
    let output = portcullis(&["check", path(&file)]);
    assert!(output.status.success());
    let values = text(&output.stdout);
    assert!(
        values.contains("lifetimes.tcp.established = \"2h\"  # line 2"),
        "{values}"
    );
    assert!(
        values.contains("lifetimes.udp.stream = \"1m 50s\"  # default"),
        "{values}"
    );
    assert!(
        text(&output.stderr).contains("warning"),
        "two hours outlive the load balancer's timer"
    );

    std::fs::write(&file, "[lifetimes]\ntcp.establisched = \"2h\"\n").unwrap();
    let output = portcullis(&["check", path(&file)]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("c.toml") && error.contains("establisched"),
        "{error}"
    );
}
