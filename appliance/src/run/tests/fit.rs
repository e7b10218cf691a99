//! Reasons that make the appliance unhealthy, and events that do not.

use std::net::Ipv4Addr;

use super::*;
use crate::run::sends::SendPath;
use crate::run::watch::INTERVAL;

/// Waits until the counters have been read twice, and returns the health.
fn later(appliance: &TestAppliance) -> u16 {
    thread::sleep(3 * INTERVAL);
    get(appliance.health(), "/").0
}

#[test]
fn a_table_full_of_sessions_that_the_next_may_evict_is_healthy() {
    let appliance = TestAppliance::start("table.max_sessions = 16\ntable.shards = 1\n");
    appliance.connection(1, 1_000);
    for port in 0..160 {
        assert!(appliance.packet(&syn(2, 2_000 + port, 80), 0).is_forward());
    }
    assert_eq!(appliance.shared.engine.sessions(), 16);
    assert_eq!(later(&appliance), 200);
    let [_, _, ack] = handshake(1, 1_000);
    assert!(
        appliance.packet(&ack, 0).is_forward(),
        "the connection lives"
    );
    appliance.finish();
}

#[test]
fn a_table_full_of_sessions_that_nobody_can_evict_is_unhealthy() {
    let appliance = TestAppliance::start("health.full_table = 50\ntable.max_sessions = 10\n");
    for port in 0..4 {
        appliance.connection(1, 1_000 + port);
    }
    for host in 2..6 {
        appliance.query(host, 0);
    }
    assert_eq!(later(&appliance), 200, "8 sessions, of which 4 are assured");
    appliance.connection(1, 2_000);
    let body = wait_for_health(&appliance, 503);
    assert_eq!(
        body,
        "table_full: 5 assured of 10 sessions are 50 % or more\n"
    );
    appliance.rewrite("health.full_table = 0\ntable.max_sessions = 10\n");
    appliance.operations().appliance().reload().unwrap();
    assert_eq!(get(appliance.health(), "/").0, 200, "0 is never");
    appliance.finish();
}

#[test]
fn new_sessions_that_find_no_room_are_unhealthy_for_some_seconds() {
    let appliance =
        TestAppliance::start("health.full_table = 100\ntable.max_sessions = 8\ntable.shards = 1\n");
    for port in 0..8 {
        appliance.connection(1, 1_000 + port);
    }
    let full = wait_for_health(&appliance, 503);
    assert_eq!(
        full,
        "table_full: 8 assured of 8 sessions are 100 % or more\n"
    );
    for port in 0..10 {
        assert!(!appliance.packet(&syn(2, 2_000 + port, 80), 0).is_forward());
    }
    let mut fin = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64)
        .tcp(1_000, 80, 1_001, 8_192)
        .fin()
        .ack(5_001)
        .write(&mut fin, b"")
        .unwrap();
    assert!(appliance.packet(&fin, 0).is_forward());
    wait_for("the refusals", || {
        let (status, body) = get(appliance.health(), "/");
        status == 503 && body.starts_with("table_full: 10 new sessions refused in 5 s, ")
    });
    wait_for_health(&appliance, 200);
    appliance.finish();
}

/// A worker's sends, as its socket counts them.
fn send(appliance: &TestAppliance, worker: usize, works: bool) {
    let stats = &appliance.shared.workers[worker];
    let path = SendPath {
        source: Ipv4Addr::new(10, 0, 0, 2),
        destination: Ipv4Addr::new(10, 0, 0, 1),
    };
    if works {
        stats.returned.add(1);
        stats.sends.succeeded(path);
    } else {
        stats.send_failed(
            &std::io::Error::from_raw_os_error(nix::libc::ENETUNREACH),
            path,
        );
    }
}

#[test]
fn a_worker_whose_sends_fail_is_unhealthy_until_they_succeed() {
    let appliance = TestAppliance::start("run.workers = 2\n");
    for worker in [0, 1] {
        send(&appliance, worker, true);
    }
    wait_for("503", || {
        send(&appliance, 0, true);
        send(&appliance, 1, false);
        get(appliance.health(), "/").0 == 503
    });
    let (_, body) = get(appliance.health(), "/");
    assert!(
        body.starts_with("send_failing: 1 workers cannot send, ")
            && body.ends_with(" datagrams not sent\n"),
        "{body}"
    );
    assert!(appliance.metric("portcullis_unhealthy{reason=\"send_failing\"}") > 0.5);
    send(&appliance, 1, true);
    wait_for_health(&appliance, 200);
    appliance.finish();
}

#[test]
fn a_worker_that_cannot_receive_is_unhealthy() {
    let appliance = TestAppliance::start("");
    wait_for("503", || {
        // The worker turns several times between two readings, and fails as often.
        appliance.shared.workers[0].receive_failed.add(10);
        get(appliance.health(), "/")
            .1
            .starts_with("receive_failing: 1 workers cannot receive, ")
    });
    wait_for_health(&appliance, 200);
    appliance.finish();
}

#[test]
fn a_worker_that_gets_no_addresses_is_unhealthy_until_it_gets_some() {
    let appliance = TestAppliance::start("");
    let stats = &appliance.shared.workers[0];
    wait_for("503", || {
        stats.received.add(1);
        stats.unaddressed.add(1);
        get(appliance.health(), "/")
            .1
            .starts_with("destination_unknown: 1 workers cannot answer, ")
    });
    assert!(appliance.metric("portcullis_unhealthy{reason=\"destination_unknown\"}") > 0.5);
    stats.received.add(1);
    wait_for_health(&appliance, 200);
    appliance.finish();
}

#[test]
fn the_end_of_the_workers_is_unhealthy_at_once() {
    let appliance = TestAppliance::start("");
    appliance.shared.stop.store(true, Ordering::Relaxed);
    let (status, body) = get(appliance.health(), "/");
    assert_eq!(
        (status, body.as_str()),
        (503, "draining: the appliance is about to end\n")
    );
    appliance.finish();
}

#[test]
fn every_reason_has_a_series_and_its_name_comes_first() {
    let appliance = TestAppliance::start("");
    for reason in crate::run::health::Unhealthy::NAMES {
        let series = format!("portcullis_unhealthy{{reason=\"{reason}\"}}");
        assert!(appliance.metric(&series).abs() < 0.5, "{series}");
    }
    appliance.finish();
}
