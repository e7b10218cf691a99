//! The session log, and sessions from one run to the next.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;

use portcullis::{DropReason, SessionFilter};

use super::*;

fn end_all(appliance: &TestAppliance) -> usize {
    let mut sink = EventSink::new(&appliance.shared);
    appliance
        .shared
        .engine
        .end_sessions(&SessionFilter::default(), Instant::now(), &mut sink)
}

#[test]
fn a_line_of_json_says_how_a_session_has_ended() {
    let appliance = TestAppliance::start("log.output = \"DIR/sessions.log\"\nlog.opened = true\n");
    appliance.connection(1, 1_000);
    appliance.query(2, 1);
    assert_eq!(end_all(&appliance), 2);
    let directory = appliance.finish();
    let text = fs::read_to_string(directory.path().join("sessions.log")).unwrap();
    let rows: Vec<BTreeMap<String, serde_json::Value>> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 4);
    let of = |event: &str, proto: &str| {
        rows.iter()
            .find(|row| row["event"] == event && row["proto"] == proto)
            .unwrap_or_else(|| panic!("no {event} {proto}: {text}"))
    };
    assert!(of("opened", "tcp")["end_reason"].is_null());
    let tcp = of("ended", "tcp");
    for (key, wanted) in [
        ("end_reason", "deleted"),
        ("zone", "default"),
        ("rule", "web"),
        ("state", "ESTABLISHED"),
        ("history", "ShA"),
        ("conn_state", "S1"),
        ("src", "10.0.0.1"),
        ("dst", "192.0.2.1"),
    ] {
        assert_eq!(tcp[key], wanted, "{key}");
    }
    assert_eq!((&tcp["sport"], &tcp["dport"]), (&1_000.into(), &80.into()));
    assert_eq!(
        (&tcp["orig_pkts"], &tcp["resp_pkts"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (&tcp["orig_ip_bytes"], &tcp["resp_ip_bytes"]),
        (&80.into(), &40.into())
    );
    for mark in ["adopted", "resumed", "bypassed"] {
        assert_eq!(tcp[mark], false);
    }
    assert!(tcp["parent"].is_null());
    assert!(tcp["start"].as_f64().unwrap() > 1.6e9);
    assert_eq!(of("ended", "udp")["zone"], "blue");
}

#[test]
fn a_line_of_json_says_which_limit_a_source_has_reached() {
    let appliance = TestAppliance::start(
        "log.output = \"DIR/sessions.log\"\n[limits.zones.blue]\nmax_per_source = 2\n",
    );
    let passed = (1..6).filter(|port| appliance.packet(&udp(2, *port, 53), 1).is_forward());
    assert_eq!(passed.count(), 2);
    let directory = appliance.finish();
    let text = fs::read_to_string(directory.path().join("sessions.log")).unwrap();
    let rows: Vec<BTreeMap<String, serde_json::Value>> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &BTreeMap<String, serde_json::Value>| row["event"] == "limit")
        .collect();
    let [row] = rows.as_slice() else {
        panic!("one line for one source: {text}");
    };
    for (key, wanted) in [
        ("limit", "max_per_source"),
        ("scope", "zone"),
        ("zone", "blue"),
        ("src", "10.0.0.2"),
        ("dst", "192.0.2.1"),
    ] {
        assert_eq!(row[key], wanted, "{key}");
    }
    assert_eq!((&row["value"], &row["count"]), (&2.into(), &2.into()));
    assert!(row["start"].as_f64().unwrap() > 1.6e9);
    assert!(row["rule"].is_string());
}

#[test]
fn a_flow_log_has_a_line_for_each_direction_that_has_sent() {
    let appliance = TestAppliance::start(
        "[log]\noutput = \"DIR/flow.log\"\nformat = \"aws_vpc_flow\"\n\
         account_id = \"123456789012\"\n\
         interface_id = \"eni-0a\"\n",
    );
    appliance.connection(1, 1_000);
    appliance.query(2, 0);
    end_all(&appliance);
    let directory = appliance.finish();
    let text = fs::read_to_string(directory.path().join("flow.log")).unwrap();
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert_eq!(
        (head.len(), head[0], head[13]),
        (14, "version", "log-status")
    );
    let lines: Vec<Vec<_>> = lines.map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.len() == 14));
    let found = |wanted: &str| {
        let line = lines.iter().find(|line| line[..10].join(" ") == wanted);
        let line = line.unwrap_or_else(|| panic!("no {wanted}: {text}"));
        assert!(line[10].parse::<u64>().unwrap() <= line[11].parse().unwrap());
        assert_eq!(line[12..], ["ACCEPT", "OK"]);
    };
    found("2 123456789012 eni-0a 10.0.0.1 192.0.2.1 1000 80 6 2 80");
    found("2 123456789012 eni-0a 192.0.2.1 10.0.0.1 80 1000 6 1 40");
    found("2 123456789012 eni-0a 10.0.0.2 192.0.2.1 4000 53 17 1 35");
}

#[test]
fn only_sessions_of_rules_that_say_so_are_logged_if_asked() {
    let appliance = TestAppliance::start("[log]\noutput = \"DIR/log\"\nsessions = \"marked\"\n");
    appliance.connection(1, 1_000);
    appliance.query(2, 0);
    end_all(&appliance);
    let directory = appliance.finish();
    let text = fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("\"rule\":\"web\""));
}

#[test]
fn files_are_rotated_behind_whole_lines_and_the_oldest_go() {
    let appliance = TestAppliance::start(
        "[log]\noutput = \"DIR/logs/log\"\nrotate_bytes = 4096\nkeep = 2\nqueue = 100000\n",
    );
    for round in 0..40u16 {
        for host in 0..100 {
            assert!(
                appliance
                    .packet(&udp(host, 10_000 + round, 53), 0)
                    .is_forward()
            );
        }
        end_all(&appliance);
        // Not all in one piece.
        thread::sleep(Duration::from_millis(5));
    }
    let directory = appliance.finish();
    let files: Vec<_> = fs::read_dir(directory.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.len() <= 4_096, "{}", text.len());
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

/// Written and lost lines in the metrics: written, then by cause.
fn counted(appliance: &TestAppliance) -> BTreeMap<String, u64> {
    let metrics = appliance.operations().addresses.metrics.unwrap();
    let page = get(metrics, "/metrics").1;
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("portcullis_log_"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn a_file_that_comes_in_the_way_does_not_end_the_log() {
    let appliance = TestAppliance::start(
        "[log]\noutput = \"DIR/logs/log\"\nrotate_bytes = 4096\nkeep = 1000\nqueue = 100000\n",
    );
    let logs = appliance.directory.path().join("logs");
    // The value is missing at the start.
    fs::write(logs.join("log.1"), "").unwrap();
    for lines in [100, 200] {
        for host in 0..100 {
            appliance.query(host, 0);
        }
        end_all(&appliance);
        wait_for("all lines", || counted(&appliance)["lines_total"] == lines);
    }
    let counts = counted(&appliance);
    assert_eq!(counts["running"], 1);
    assert_eq!(counts["lines_dropped_total{cause=\"write_failed\"}"], 0);
    let in_files: usize = fs::read_dir(&logs)
        .unwrap()
        .map(|entry| {
            fs::read_to_string(entry.unwrap().path())
                .unwrap()
                .lines()
                .count()
        })
        .sum();
    assert_eq!(in_files, 200);
    appliance.finish();
}

#[test]
fn a_line_does_not_wait_for_events_to_cease() {
    let appliance = TestAppliance::start("log.output = \"DIR/log\"\n");
    let file = appliance.directory.path().join("log");
    let begin = Instant::now();
    let mut waited = None;
    while waited.is_none() && begin.elapsed() < Duration::from_secs(5) {
        appliance.query(1, 0);
        end_all(&appliance);
        thread::sleep(Duration::from_millis(40));
        let written = !fs::read_to_string(&file).unwrap().is_empty();
        waited = written.then(|| begin.elapsed());
    }
    let waited = waited.expect("a line is written while others come");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    appliance.finish();
}

#[test]
fn every_flow_log_file_begins_with_the_names_of_its_fields_and_has_them_once() {
    let settings =
        "[log]\noutput = \"DIR/logs/flow\"\nformat = \"aws_vpc_flow\"\nrotate_bytes = 4096\n";
    let mut directory = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let appliance = TestAppliance::start_in(directory, settings);
        for host in 0..50 * run {
            appliance.query(host, 0);
        }
        end_all(&appliance);
        directory = appliance.finish();
    }
    let files: Vec<_> = fs::read_dir(directory.path().join("logs"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(files.len() > 1);
    for text in files {
        assert!(text.starts_with("version account-id "), "{text}");
        assert_eq!(text.matches("version").count(), 1, "{text}");
    }
}

/// An appliance whose log has no reader, so that its queue fills.
fn unread(more: &str) -> (TestAppliance, fs::File) {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let appliance =
        TestAppliance::start_in(directory, &format!("[log]\noutput = \"DIR/pipe\"\n{more}"));
    // More than the capacity of the pipe and the buffer.
    for host in 0..100 {
        for port in 0..40 {
            let _ = appliance.packet(&syn(host, 10_000 + port, 80), 0);
        }
        end_all(&appliance);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(appliance.shared.lost_events().sessions > 0);
    (appliance, unread)
}

#[test]
fn what_the_log_does_not_want_takes_no_place_in_the_queue() {
    for more in [
        "queue = 16\n",
        "queue = 16\nopened = true\nformat = \"aws_vpc_flow\"\n",
        "queue = 16\nsessions = \"marked\"\nopened = true\n",
    ] {
        let (appliance, _unread) = unread(more);
        let lost = appliance.shared.lost_events();
        for port in 0..100 {
            assert!(appliance.packet(&udp(1, 20_000 + port, 53), 0).is_forward());
            assert!(!appliance.packet(&udp(1, 20_000 + port, 99), 0).is_forward());
        }
        assert_eq!(appliance.shared.lost_events(), lost, "{more}");
        if more.contains("marked") {
            end_all(&appliance);
            assert_eq!(appliance.shared.lost_events(), lost, "{more}");
        }
        appliance.finish();
    }
}

const DENYING: &str = "\n[[policy.rule]]\nname = \"no-telnet\"\naction = \"reject\"\n\
                       protocol = \"tcp\"\n\
                       destination_ports = [23]\nlog = true\n";

#[test]
fn a_session_that_the_policy_denies_is_logged_by_its_first_packet() {
    for (setting, wanted) in [
        ("", vec!["no-telnet"]),
        ("denied = \"marked\"\n", vec!["no-telnet"]),
        ("denied = \"none\"\n", vec![]),
        ("denied = \"all\"\n", vec!["no-telnet", "default"]),
    ] {
        let appliance =
            TestAppliance::start(&format!("[log]\noutput = \"DIR/log\"\n{setting}{DENYING}"));
        assert!(!appliance.packet(&syn(1, 1_000, 23), 0).is_forward());
        assert!(!appliance.packet(&udp(2, 4_000, 99), 1).is_forward());
        let [_, _, ack] = handshake(3, 1_000);
        assert!(
            !appliance.packet(&ack, 0).is_forward(),
            "of no session, and not the policy's word"
        );
        let directory = appliance.finish();
        let text = fs::read_to_string(directory.path().join("log")).unwrap();
        let rows: Vec<BTreeMap<String, serde_json::Value>> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let rules: Vec<_> = rows
            .iter()
            .map(|row| row["rule"].as_str().unwrap())
            .collect();
        assert_eq!(rules, wanted, "{setting}");
        let Some(row) = rows.first() else { continue };
        for (key, wanted) in [
            ("event", "denied"),
            ("action", "reject"),
            ("zone", "default"),
            ("proto", "tcp"),
            ("src", "10.0.0.1"),
            ("dst", "192.0.2.1"),
        ] {
            assert_eq!(row[key], wanted, "{key}");
        }
        for (key, wanted) in [
            ("sport", 1_000),
            ("dport", 23),
            ("orig_pkts", 1),
            ("orig_ip_bytes", 40),
        ] {
            assert_eq!(row[key], wanted, "{key}");
        }
        assert!(row["start"].as_f64().unwrap() > 1.6e9);
        if let Some(row) = rows.get(1) {
            assert_eq!(
                (&row["action"], &row["zone"]),
                (&"deny".into(), &"blue".into())
            );
        }
    }
}

#[test]
fn a_flow_log_rejects_what_the_policy_denies() {
    let appliance = TestAppliance::start(
        "[log]\noutput = \"DIR/flow.log\"\nformat = \"aws_vpc_flow\"\ndenied = \"all\"\n\
         account_id = \"1\"\n\
         interface_id = \"eni-0a\"\n",
    );
    assert!(!appliance.packet(&udp(2, 4_000, 99), 1).is_forward());
    let directory = appliance.finish();
    let text = fs::read_to_string(directory.path().join("flow.log")).unwrap();
    let line: Vec<_> = text.lines().nth(1).unwrap().split(' ').collect();
    assert_eq!(
        line[..10].join(" "),
        "2 1 eni-0a 10.0.0.2 192.0.2.1 4000 99 17 1 35"
    );
    assert_eq!(line[10], line[11], "one packet, one moment");
    assert_eq!(line[12..], ["REJECT", "OK"]);
}

#[test]
fn a_flood_of_denied_packets_takes_no_room_from_sessions_that_end() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let appliance = TestAppliance::start_in(
        directory,
        "[log]\noutput = \"DIR/pipe\"\nqueue = 64\ndenied = \"all\"\n",
    );
    wait_for("a queue full of denied sessions", || {
        for port in 0..100 {
            assert!(!appliance.packet(&udp(1, 20_000 + port, 99), 0).is_forward());
        }
        appliance.shared.lost_events().denied > 10_000
    });
    for port in 0..32 {
        assert!(appliance.packet(&udp(1, 10_000 + port, 53), 0).is_forward());
    }
    assert_eq!(end_all(&appliance), 32);
    assert_eq!(appliance.shared.lost_events().sessions, 0);
    let counts = counted(&appliance);
    assert!(counts["lines_dropped_total{cause=\"denied_queue_full\"}"] > 10_000);
    appliance.finish();
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_nothing_else() {
    let appliance = TestAppliance::start("[log]\noutput = \"/dev/full\"\n");
    appliance.query(1, 0);
    end_all(&appliance);
    let metrics = appliance.operations().addresses.metrics.unwrap();
    let lost = "portcullis_log_lines_dropped_total{cause=\"write_failed\"} 1\n";
    wait_for("the count", || get(metrics, "/metrics").1.contains(lost));
    appliance.finish();
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open at both ends, so that opening does not block; nothing is read.
    let _unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let appliance =
        TestAppliance::start_in(directory, "[log]\noutput = \"DIR/pipe\"\nqueue = 16\n");
    let begin = Instant::now();
    for host in 0..100 {
        for port in 0..20 {
            assert!(
                appliance
                    .packet(&udp(host, 10_000 + port, 53), 0)
                    .is_forward()
            );
        }
        end_all(&appliance);
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(appliance.shared.lost_events().sessions > 0);
    let begin = Instant::now();
    appliance.finish();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "the end does not wait for the reader"
    );
}

#[test]
fn sessions_go_on_after_a_restart() {
    let more = "run.sessions_file = \"DIR/sessions\"\n";
    let appliance = TestAppliance::start(more);
    appliance.connection(1, 1_000);
    let directory = appliance.finish();
    let appliance = TestAppliance::start_in(directory, more);
    assert_eq!(appliance.shared.engine.sessions(), 1);
    let [_, _, ack] = handshake(1, 1_000);
    assert!(appliance.packet(&ack, 0).is_forward());
    let directory = appliance.finish();
    fs::write(directory.path().join("sessions"), "nonsense").unwrap();
    let appliance = TestAppliance::start_in(directory, more);
    assert_eq!(
        appliance.shared.engine.sessions(),
        0,
        "refused, and the start goes on"
    );
    appliance.finish();
}

/// Returns the reason for which a new session of a host is dropped.
fn refused(appliance: &TestAppliance, port: u16) -> Option<DropReason> {
    appliance.packet(&syn(9, port, 80), 0).reason()
}

#[test]
fn without_its_receiver_a_log_that_fails_closed_keeps_new_sessions_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let appliance = TestAppliance::start(&format!(
        "[log]\noutput = \"syslog+tcp://{address}\"\nfail_closed = true\nopened = true\n"
    ));
    let gate = appliance.shared.engine.log_gate();
    wait_for("an open gate", || !gate.is_closed());
    appliance.connection(1, 1_000);
    drop(listener.accept().unwrap());
    drop(listener);
    wait_for("a closed gate", || gate.is_closed());
    assert_eq!(refused(&appliance, 2_000), Some(DropReason::LogUnavailable));
    let [_, _, ack] = handshake(1, 1_000);
    assert!(appliance.packet(&ack, 0).is_forward());
    let reason = wait_for_health(&appliance, 503);
    assert!(reason.starts_with("log_unavailable: "), "{reason}");
    for (series, wanted) in [
        ("portcullis_log_closed", 1.0),
        ("portcullis_unhealthy{reason=\"log_unavailable\"}", 1.0),
        (
            "portcullis_dropped_packets_total{reason=\"log_unavailable\"}",
            1.0,
        ),
    ] {
        assert!((appliance.metric(series) - wanted).abs() < 1e-9, "{series}");
    }
    end_all(&appliance);
    let listener = TcpListener::bind(address).unwrap();
    wait_for("an open gate", || !gate.is_closed());
    assert_eq!(refused(&appliance, 2_001), None);
    wait_for_health(&appliance, 200);
    // The line of the session that has ended meanwhile was kept.
    let (mut connection, _) = listener.accept().unwrap();
    drop(appliance.finish());
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    assert!(text.contains("\"event\":\"ended\""), "{text}");
}

#[test]
fn a_queue_that_fills_keeps_new_sessions_out_until_it_has_room_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let appliance = TestAppliance::start_in(
        directory,
        "[log]\noutput = \"DIR/log\"\nfail_closed = true\nopened = true\nqueue = 16\n",
    );
    let gate = appliance.shared.engine.log_gate();
    wait_for("an open gate", || !gate.is_closed());
    // A pipe without a reader holds some lines, and the queue 16 events. The gate also closes for
    // the moments in which the writer is slower than this thread.
    let mut ports = 1..60_000;
    let mut closed = 0;
    while closed < 100 {
        if gate.is_closed() {
            closed += 1;
            std::thread::sleep(Duration::from_millis(10));
        } else {
            closed = 0;
            assert_eq!(refused(&appliance, ports.next().unwrap()), None);
        }
    }
    assert_eq!(
        refused(&appliance, 60_001),
        Some(DropReason::LogUnavailable)
    );
    let reading = std::thread::spawn(move || {
        let mut file = std::fs::File::open(pipe).unwrap();
        std::io::copy(&mut file, &mut std::io::sink()).unwrap()
    });
    wait_for("an open gate", || !gate.is_closed());
    assert_eq!(refused(&appliance, 60_001), None);
    assert_eq!(appliance.shared.lost_events().sessions, 0);
    drop(appliance.finish());
    assert!(reading.join().unwrap() > 0);
}
