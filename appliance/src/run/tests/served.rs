//! Health and metrics from outside.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use portcullis::{DropReason, EndReason};
use portcullis_xdp::Mode;

use super::*;
use crate::run::xdp::state::{Link, Port, XdpState};

#[test]
fn health_is_200_while_workers_turn_and_503_with_the_reason_while_one_does_not() {
    let appliance = TestAppliance::start("health.stall = \"200ms\"\n");
    assert_eq!(get(appliance.health(), "/"), (200, "healthy\n".to_owned()));
    appliance.turning.store(false, Ordering::Relaxed);
    wait_for("503", || get(appliance.health(), "/").0 == 503);
    let (_, body) = get(appliance.health(), "/any/path");
    assert!(
        body.starts_with("stalled_worker: a worker has not turned for "),
        "{body}"
    );
    appliance.turning.store(true, Ordering::Relaxed);
    wait_for("200", || get(appliance.health(), "/").0 == 200);
    appliance.finish();
}

#[test]
fn nothing_but_a_file_is_read_by_a_reload_and_a_directory_for_sessions_must_be_there() {
    let appliance = TestAppliance::start("");
    let running = appliance.operations().appliance();
    appliance.rewrite("run.sessions_file = \"DIR/missing/sessions\"\n");
    let error = running.reload().unwrap_err();
    assert!(
        error.contains("run.sessions_file: ") && error.contains("missing/sessions: "),
        "{error}"
    );
    let file = appliance.directory.path().join("portcullis.toml");
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let begin = Instant::now();
    let error = running.reload().unwrap_err();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(get(appliance.health(), "/").0, 200);
    appliance.finish();
}

#[test]
fn draining_is_unhealthy_and_ends_after_its_time() {
    let appliance =
        TestAppliance::start("run.drain = \"300ms\"\nhealth.tcp_listen = \"127.0.0.1:0\"\n");
    let tcp = appliance.operations().addresses.health_tcp.unwrap();
    assert!(TcpStream::connect(tcp).is_ok());
    let begin = Instant::now();
    appliance.operations().end();
    let (status, body) = get(appliance.health(), "/");
    assert_eq!(
        (status, body.as_str()),
        (503, "draining: the appliance is about to end\n")
    );
    assert!(
        appliance.packet(&syn(1, 9, 80), 0).is_forward(),
        "packets are served"
    );
    wait_for("the port's end", || TcpStream::connect(tcp).is_err());
    wait_for("the end", || appliance.operations().is_over());
    assert!(begin.elapsed() >= Duration::from_millis(300));
    appliance.finish();
}

#[test]
fn idle_and_slow_clients_delay_no_other_client() {
    let appliance = TestAppliance::start("");
    let idle: Vec<_> = (0..200)
        .filter_map(|n| {
            let mut stream = TcpStream::connect(appliance.health()).ok()?;
            if n % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nSlow: ").ok()?;
            }
            Some(stream)
        })
        .collect();
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(appliance.health(), "/").0, 200);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    // Invalid requests, or requests to write, are not answered with content either.
    let mut odd = TcpStream::connect(appliance.health()).unwrap();
    odd.write_all(&[0; 100_000]).unwrap_or_default();
    let mut post = TcpStream::connect(appliance.health()).unwrap();
    post.write_all(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    post.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert_eq!(get(appliance.health(), "/").0, 200);
    drop(idle);
    appliance.finish();
}

/// A parsed exposition: the type of each family, and the value of each series.
struct Exposition {
    kinds: HashMap<String, String>,
    series: HashMap<String, f64>,
}

/// Reads OpenMetrics text, and fails on all invalid contents.
fn parse(text: &str) -> Exposition {
    let mut found = Exposition {
        kinds: HashMap::new(),
        series: HashMap::new(),
    };
    let mut helped = HashSet::new();
    let body = text.strip_suffix("# EOF\n").expect("an end");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                found
                    .kinds
                    .insert(name.to_owned(), kind.to_owned())
                    .is_none(),
                "{line}"
            );
            continue;
        }
        if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = ["_total", "_bucket", "_sum", "_count", "_info"]
            .iter()
            .find_map(|suffix| {
                name.strip_suffix(suffix)
                    .filter(|name| found.kinds.contains_key(*name))
            })
            .unwrap_or(name);
        let kind = found
            .kinds
            .get(family)
            .unwrap_or_else(|| panic!("no type: {line}"));
        match kind.as_str() {
            "counter" => assert!(name.ends_with("_total"), "{line}"),
            "gauge" => assert_eq!(name, family, "{line}"),
            "histogram" => assert_ne!(name, family, "{line}"),
            "info" => assert!(name.ends_with("_info"), "{line}"),
            other => panic!("{other}"),
        }
        assert!(
            name.starts_with("portcullis_") || name.starts_with("process_"),
            "{line}"
        );
        let value = value.parse().unwrap();
        assert!(
            found.series.insert(series.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    assert!(found.kinds.keys().all(|name| helped.contains(name)));
    found
}

#[test]
fn the_exposition_parses_and_has_a_series_for_every_reason() {
    let appliance = TestAppliance::start("run.workers = 2\n");
    appliance.connection(1, 1_000);
    appliance.query(2, 1);
    assert!(!appliance.packet(&udp(3, 4_000, 99), 0).is_forward());
    for worker in &appliance.shared.workers {
        worker.batch(3);
        worker.received.add(3);
    }
    let metrics = appliance.operations().addresses.metrics.unwrap();
    assert_eq!(get(metrics, "/").0, 404);
    let found = parse(&open_metrics(metrics));
    let value = |series: &str| {
        *found
            .series
            .get(series)
            .unwrap_or_else(|| panic!("no {series}"))
    };
    for reason in DropReason::all() {
        value(&format!(
            "portcullis_dropped_packets_total{{reason=\"{}\"}}",
            reason.name()
        ));
    }
    for reason in EndReason::ALL {
        value(&format!(
            "portcullis_sessions_ended_total{{reason=\"{}\"}}",
            reason.name()
        ));
    }
    for refusal in portcullis::geneve::front::Refusal::all() {
        value(&format!(
            "portcullis_refused_datagrams_total{{reason=\"{}\"}}",
            refusal.name()
        ));
    }
    for (series, wanted) in [
        (
            "portcullis_dropped_packets_total{reason=\"policy_deny\"}",
            1.0,
        ),
        ("portcullis_rule_hits_total{rule=\"dns\"}", 1.0),
        ("portcullis_sessions{worth=\"assured\"}", 1.0),
        ("portcullis_sessions{worth=\"embryonic\"}", 1.0),
        ("portcullis_sessions_opened_total", 2.0),
        (
            "portcullis_worker_received_datagrams_total{worker=\"1\"}",
            3.0,
        ),
        ("portcullis_worker_batch_datagrams_count{worker=\"1\"}", 1.0),
        (
            "portcullis_worker_batch_datagrams_bucket{le=\"1.0\",worker=\"1\"}",
            0.0,
        ),
        (
            "portcullis_worker_batch_datagrams_bucket{le=\"3.0\",worker=\"1\"}",
            1.0,
        ),
        (
            "portcullis_worker_batch_datagrams_bucket{le=\"+Inf\",worker=\"1\"}",
            1.0,
        ),
        ("portcullis_expectations", 0.0),
        ("portcullis_asymmetry_lines", 0.0),
        ("portcullis_healthy", 1.0),
        ("portcullis_unhealthy{reason=\"draining\"}", 0.0),
        ("portcullis_unhealthy{reason=\"send_failing\"}", 0.0),
        ("portcullis_reload_failed", 0.0),
        (
            "portcullis_log_lines_dropped_total{cause=\"queue_full\"}",
            0.0,
        ),
    ] {
        assert!(
            (value(series) - wanted).abs() < 1e-9,
            "{series}: {}",
            value(series)
        );
    }
    assert!(value("portcullis_forwarded_bytes_total") > 0.0);
    appliance.operations().end();
    let found = parse(&open_metrics(metrics));
    assert!((found.series["portcullis_unhealthy{reason=\"draining\"}"] - 1.0).abs() < 1e-9);
    appliance.finish();
}

#[test]
fn health_and_metrics_can_share_an_address() {
    let appliance = TestAppliance::start("metrics.listen = \"127.0.0.1:0\"\n");
    let addresses = appliance.operations().addresses;
    assert_eq!(addresses.health, addresses.metrics);
    assert!(open_metrics(appliance.health()).ends_with("# EOF\n"));
    appliance.finish();
}

#[test]
fn a_client_that_does_not_ask_for_open_metrics_gets_the_older_format_with_the_same_series() {
    let appliance = TestAppliance::start("");
    appliance.connection(1, 1_000);
    let metrics = appliance.operations().addresses.metrics.unwrap();
    // The sessions by state are counted beside the scrapes.
    let until = Instant::now() + Duration::from_secs(20);
    let open = loop {
        let found = parse(&open_metrics(metrics));
        if found
            .kinds
            .contains_key("portcullis_sessions_by_state_age_seconds")
        {
            break found;
        }
        assert!(Instant::now() < until, "the sessions are not counted");
        thread::sleep(Duration::from_millis(20));
    };
    for headers in [
        "",
        "Accept: */*\r\n",
        "Accept: text/html\r\nAccept: text/plain\r\n",
    ] {
        let (head, plain) = get_with(metrics, "/metrics", headers);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("text/plain; version=0.0.4; charset=utf-8"),
            "{head}"
        );
        let mut helped = HashSet::new();
        let mut kinds = HashMap::new();
        let mut series = HashSet::new();
        for line in plain.lines() {
            let mut words = line.splitn(4, ' ');
            if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let family = name.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| {
                        family
                            .strip_suffix(suffix)
                            .filter(|name| kinds.contains_key(*name))
                    })
                    .unwrap_or(family);
                assert!(kinds.contains_key(family), "{line}");
                assert!(series.insert(name.to_owned()), "twice: {line}");
                continue;
            }
            let (_, what, name, rest) = (words.next(), words.next(), words.next(), words.next());
            let (name, rest) = (name.unwrap().to_owned(), rest.unwrap().to_owned());
            match what.unwrap() {
                "HELP" => assert!(helped.insert(name), "{line}"),
                "TYPE" => {
                    assert!(
                        ["counter", "gauge", "histogram"].contains(&rest.as_str()),
                        "{line}"
                    );
                    assert!(helped.contains(&name), "{line}");
                    assert!(kinds.insert(name, rest).is_none(), "{line}");
                }
                _ => panic!("{line}"),
            }
        }
        assert_eq!(kinds.len(), open.kinds.len());
        assert!(
            open.series.keys().all(|name| series.contains(name)),
            "{plain}"
        );
    }
    appliance.finish();
}

#[test]
fn sessions_are_counted_by_zone_protocol_and_state_while_metrics_are_read() {
    let appliance = TestAppliance::start("");
    appliance.connection(1, 1_000);
    appliance.connection(2, 1_000);
    appliance.query(2, 1);
    let metrics = appliance.operations().addresses.metrics.unwrap();
    let established =
        "portcullis_sessions_by_state{zone=\"default\",protocol=\"tcp\",state=\"ESTABLISHED\"}";
    let mut text = String::new();
    wait_for("a count", || {
        text = get(metrics, "/metrics").1;
        text.contains(established)
    });
    let of = |start: &str| -> Vec<&str> {
        text.lines()
            .filter(|line| line.starts_with(start))
            .collect()
    };
    let rows = of("portcullis_sessions_by_state{");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(of(established), [format!("{established} 2")]);
    let query = "portcullis_sessions_by_state{zone=\"blue\",protocol=\"udp\",state=";
    assert!(
        of(query).iter().all(|row| row.ends_with(" 1")) && of(query).len() == 1,
        "{rows:?}"
    );
    assert_eq!(of("portcullis_sessions_by_state_age_seconds ").len(), 1);
    appliance.finish();
}

/// Starts an appliance that has a store, with more lines of configuration.
fn with_store(more: &str) -> TestAppliance {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("key"), "0123456789abcdef").unwrap();
    let store = "store.url = \"unix:///nonexistent\"\nstore.group_key_file = \"DIR/key\"\n";
    TestAppliance::start_in(directory, &format!("{store}{more}"))
}

#[test]
fn families_of_the_store_are_there_if_there_is_a_store() {
    for (appliance, is_there) in [(TestAppliance::start(""), false), (with_store(""), true)] {
        let metrics = appliance.operations().addresses.metrics.unwrap();
        let text = get(metrics, "/metrics").1;
        for family in ["portcullis_store_events", "portcullis_questions_open"] {
            assert_eq!(text.contains(family), is_there, "{family}");
        }
        appliance.finish();
    }
}

/// The page is generated by `UPDATE=1 cargo test -p portcullis-appliance
/// the_page_lists_every_metric`.
#[test]
fn the_page_lists_every_metric() {
    let appliance = with_store("run.sessions_file = \"DIR/sessions\"\nrun.checkpoint = \"1s\"\n");
    appliance.connection(1, 1_000);
    let port = Port {
        link: Arc::new(Link::new("ens5", Arc::default())),
        mode: Mode::Native,
        queues: vec![Arc::default()],
    };
    appliance.shared.xdp.set(XdpState::of(vec![port])).unwrap();
    let metrics = appliance.operations().addresses.metrics.unwrap();
    wait_for("a count of the sessions and a checkpoint", || {
        let text = open_metrics(metrics);
        let late = [
            "\nportcullis_sessions_by_state{",
            "\nportcullis_checkpoint_age_seconds ",
        ];
        late.iter().all(|series| text.contains(series))
    });
    let text = open_metrics(metrics);
    appliance.finish();
    let kinds = parse(&text).kinds;
    let mut page = "\
# Metrics

`/metrics` at `metrics.listen` serves OpenMetrics 1.0 to a client whose `Accept` names it, as
Prometheus' does, and Prometheus' text format 0.0.4 to every other one. The names below are those of
families in OpenMetrics. A counter's series end in `_total`, and so does its family in the older
format; `portcullis_build_info` is a gauge there.

Each reason has a series from the start. Families of the store and of questions are there if
`store.url` is set, those of `portcullis_xdp` if AF_XDP is in use (`run.io`).
`portcullis_sessions_by_state` has a series for each zone,
protocol and state that has had a session. It is counted in the background while metrics are read;
`portcullis_sessions_by_state_age_seconds` is the age of the count.

`packaging/grafana/portcullis.json` is a dashboard of these metrics, and
`packaging/prometheus/portcullis.rules.yml` has alert rules. Their thresholds are starting points.

A test generates this page: `UPDATE=1 cargo test -p portcullis-appliance the_page`.

| family | type | labels | meaning |
|---|---|---|---|
"
    .to_owned();
    for line in text.lines() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let labeled = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (_, labels) = rest.split_once('{')?;
            let suffix = rest.split('{').next()?;
            matches!(suffix, "" | "_total" | "_count" | "_info").then_some(labels)
        });
        let keys: Vec<_> = labeled
            .and_then(|labels| labels.split('}').next())
            .into_iter()
            .flat_map(|labels| labels.split("\","))
            .filter_map(|label| label.split('=').next())
            .map(|key| format!("`{key}`"))
            .collect();
        page.push_str(&format!(
            "| `{name}` | {} | {} | {help} |\n",
            kinds[name],
            keys.join(", ")
        ));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        page,
        "run it with UPDATE=1"
    );
}
