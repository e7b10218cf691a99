use std::collections::HashMap;

use super::super::control::{Lines, answer};
use super::super::health::{CheckFailure, HealthCheck, HttpProbe, Probe};
use super::super::report::Report;
use super::super::targets::{MAX_TARGETS, TargetError, TargetReport, TargetState};
use super::*;

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const INTERVAL: Duration = Duration::from_secs(10);
const DELAY: Duration = Duration::from_secs(300);

fn check() -> HealthCheck {
    HealthCheck {
        probe: Probe {
            port: 8080,
            http: Some(HttpProbe {
                path: "/".to_owned(),
                codes: vec![200..=399],
            }),
        },
        interval: INTERVAL,
        timeout: Duration::from_secs(5),
        healthy_threshold: 3,
        unhealthy_threshold: 2,
    }
}

/// A balancer with these targets, without results of checks.
fn rig(group: GroupSettings, targets: &[Ipv4Addr]) -> Rig {
    let flows = FlowSettings {
        max_flows: 1000.try_into().unwrap(),
        cookie_per_direction: false,
        tcp_idle: TCP_IDLE,
    };
    let mut rig = Rig::with_group(flows, group);
    for target in targets {
        rig.register(*target).unwrap();
    }
    rig
}

/// Two healthy targets with checks, and this treatment of existing flows.
fn pair(on_unhealthy: Failover, on_deregistration: Failover) -> Rig {
    let mut rig = rig(
        GroupSettings {
            on_unhealthy,
            on_deregistration,
            health: Some(check()),
            ..group()
        },
        &[FIRST, SECOND],
    );
    rig.check(&[FIRST, SECOND]);
    rig
}

impl Rig {
    fn register(&mut self, target: Ipv4Addr) -> Result<(), TargetError> {
        let address = SocketAddrV4::new(target, 6081);
        self.balancer.targets.register(self.now, address)
    }

    fn deregister(&mut self, target: Ipv4Addr) {
        self.balancer.targets.deregister(self.now, target).unwrap();
    }

    /// Performs the checks that are due: those of `healthy` succeed. Returns the checked targets.
    fn check(&mut self, healthy: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let due = self.balancer.targets.due_checks(self.now);
        for check in &due {
            let result = if healthy.contains(&check.address) {
                Ok(())
            } else {
                Err(CheckFailure::Timeout)
            };
            self.balancer.targets.checked(*check, result);
        }
        due.into_iter().map(|check| check.address).collect()
    }

    /// Lets intervals pass; in each, the checks of `healthy` succeed and all others fail.
    fn check_for(&mut self, intervals: u32, healthy: &[Ipv4Addr]) {
        for _ in 0..intervals {
            self.now += INTERVAL;
            self.check(healthy);
        }
    }

    fn report(&mut self, target: Ipv4Addr) -> TargetReport {
        let reports = self.balancer.target_reports(self.now);
        let found = reports
            .into_iter()
            .find(|report| *report.target.ip() == target);
        found.unwrap()
    }

    fn state(&mut self, target: Ipv4Addr) -> TargetState {
        self.report(target).state
    }

    /// Sends a packet of a connection, returns it, and returns its target.
    fn go(&mut self, port: u16, flags: &str) -> Ipv4Addr {
        self.go_by(Side::Client, port, flags)
    }

    fn go_by(&mut self, side: Side, port: u16, flags: &str) -> Ipv4Addr {
        self.pass(side, &segment(side, port, flags))
            .ticket
            .destination
    }

    /// Opens connections from ports until each target has one; returns a port for each.
    fn open_to_each(&mut self, targets: &[Ipv4Addr]) -> Vec<u16> {
        let mut found = HashMap::new();
        for port in 1..200 {
            found.entry(self.go(port, "S")).or_insert(port);
        }
        targets.iter().map(|target| found[target]).collect()
    }
}

/// A segment of the connection from this port of the client.
fn segment(side: Side, port: u16, flags: &str) -> Vec<u8> {
    let mut packet = tcp(side, flags, 1);
    let at = if side == Side::Client { 20 } else { 22 };
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    packet
}

#[test]
fn a_check_that_began_before_a_registration_does_not_count_for_it() {
    let mut rig = pair(Failover::NoRebalance, Failover::NoRebalance);
    rig.now += INTERVAL;
    let pending = rig.balancer.targets.due_checks(rig.now);
    rig.deregister(FIRST);
    rig.now += Duration::from_secs(3600);
    rig.register(FIRST).unwrap();
    for check in pending {
        rig.balancer.targets.checked(check, Ok(()));
    }
    assert_eq!(rig.state(FIRST), TargetState::Initial);
    rig.check(&[FIRST]);
    assert_eq!(rig.state(FIRST), TargetState::Healthy);
}

#[test]
fn connections_spread_over_all_targets_and_both_directions_have_one() {
    let third = Ipv4Addr::new(10, 0, 0, 4);
    let mut lb = rig(group(), &[FIRST, SECOND, third]);
    for port in 0..600 {
        let target = lb.go(port, "S");
        assert_eq!(lb.go_by(Side::Server, port, "SA"), target);
        assert_eq!(lb.go(port, "A"), target);
    }
    for target in [FIRST, SECOND, third] {
        let report = lb.report(target);
        let counters = report.counters;
        assert!((130..270).contains(&counters.new_flows), "{report:?}");
        assert_eq!(report.flows, counters.new_flows);
        assert_eq!(
            (counters.sent, counters.returned),
            (3 * report.flows, 3 * report.flows)
        );
        assert_eq!(
            (counters.dropped, counters.wrong, counters.moved_in),
            (0, 0, 0)
        );
    }
}

#[test]
fn a_target_is_unhealthy_after_the_threshold_and_healthy_again_after_the_other() {
    let mut lb = rig(
        GroupSettings {
            health: Some(check()),
            ..group()
        },
        &[FIRST],
    );
    assert_eq!(lb.state(FIRST), TargetState::Initial);
    assert_eq!(lb.check(&[FIRST]), [FIRST]);
    assert_eq!(lb.state(FIRST), TargetState::Healthy);
    assert!(lb.check(&[FIRST]).is_empty(), "not due before the interval");
    lb.check_for(1, &[]);
    lb.check_for(1, &[FIRST]);
    lb.check_for(1, &[]);
    assert_eq!(
        lb.state(FIRST),
        TargetState::Healthy,
        "failures in a row count"
    );
    lb.check_for(1, &[]);
    assert_eq!(lb.state(FIRST), TargetState::Unhealthy);
    lb.check_for(2, &[FIRST]);
    lb.check_for(1, &[]);
    lb.check_for(2, &[FIRST]);
    assert_eq!(
        lb.state(FIRST),
        TargetState::Unhealthy,
        "successes in a row count"
    );
    lb.check_for(1, &[FIRST]);
    assert_eq!(lb.state(FIRST), TargetState::Healthy);
    let report = lb.report(FIRST);
    assert_eq!((report.checks_passed, report.checks_failed), (7, 4));
    let changes = lb.balancer.targets.take_changes();
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "target 10.0.0.2 is initial",
            "target 10.0.0.2 is healthy",
            "target 10.0.0.2 is unhealthy: no answer in time",
            "target 10.0.0.2 is healthy",
        ]
    );
}

#[test]
fn without_rebalancing_the_flows_of_an_unhealthy_target_stay() {
    let mut lb = pair(Failover::NoRebalance, Failover::Rebalance);
    let ports = lb.open_to_each(&[FIRST, SECOND]);
    lb.check_for(2, &[SECOND]);
    assert_eq!(lb.go(ports[0], "A"), FIRST);
    assert_eq!(lb.go(ports[1], "A"), SECOND);
    for port in 1000..1100 {
        assert_eq!(lb.go(port, "S"), SECOND, "a new flow");
    }
    assert_eq!(lb.report(FIRST).counters.moved_out, 0);
    lb.go(ports[0], "RA");
    assert_eq!(lb.go(ports[0], "S"), SECOND, "the same ports after the end");
}

#[test]
fn without_rebalancing_a_flow_leaves_an_unhealthy_target_when_it_timed_out() {
    let mut lb = pair(Failover::NoRebalance, Failover::NoRebalance);
    let ports = lb.open_to_each(&[FIRST]);
    lb.check_for(2, &[SECOND]);
    lb.now += TCP_IDLE - 2 * INTERVAL - Duration::from_secs(1);
    assert_eq!(lb.go(ports[0], "S"), FIRST);
    lb.now += TCP_IDLE;
    assert_eq!(lb.go(ports[0], "S"), SECOND);
}

#[test]
fn with_rebalancing_the_flows_of_an_unhealthy_target_move_and_do_not_return() {
    let mut lb = pair(Failover::Rebalance, Failover::NoRebalance);
    let ports = lb.open_to_each(&[FIRST, SECOND]);
    let before = lb.report(SECOND).flows;
    let cookie = lb
        .pass(Side::Client, &segment(Side::Client, ports[0], "A"))
        .cookie();
    lb.check_for(1, &[SECOND]);
    assert_eq!(lb.go(ports[0], "A"), FIRST, "below the threshold");
    lb.check_for(1, &[SECOND]);
    let moved = lb.pass(Side::Client, &segment(Side::Client, ports[0], "A"));
    assert_eq!((moved.ticket.destination, moved.cookie()), (SECOND, cookie));
    assert_eq!(lb.go_by(Side::Server, ports[0], "A"), SECOND);
    assert_eq!(lb.go(ports[1], "A"), SECOND);
    let (first, second) = (lb.report(FIRST), lb.report(SECOND));
    assert_eq!((first.counters.moved_out, second.counters.moved_in), (1, 1));
    assert_eq!(second.flows, before + 1);
    lb.check_for(3, &[FIRST, SECOND]);
    assert_eq!(lb.state(FIRST), TargetState::Healthy);
    assert_eq!(lb.go(ports[0], "A"), SECOND);
    lb.open_to_each(&[FIRST, SECOND]);
}

#[test]
fn a_recovered_target_gets_new_flows_again() {
    let mut lb = pair(Failover::NoRebalance, Failover::NoRebalance);
    lb.check_for(2, &[SECOND]);
    let to_first = |lb: &mut Rig, ports: std::ops::Range<u16>| {
        ports.filter(|port| lb.go(*port, "S") == FIRST).count()
    };
    assert_eq!(to_first(&mut lb, 0..100), 0);
    lb.check_for(3, &[FIRST, SECOND]);
    assert!((25..75).contains(&to_first(&mut lb, 100..200)));
}

#[test]
fn if_no_target_is_healthy_all_get_new_flows_and_none_moves() {
    let mut lb = pair(Failover::Rebalance, Failover::Rebalance);
    let ports = lb.open_to_each(&[FIRST, SECOND]);
    lb.check_for(2, &[]);
    assert_eq!(lb.state(FIRST), TargetState::Unhealthy);
    assert_eq!(
        (lb.go(ports[0], "A"), lb.go(ports[1], "A")),
        (FIRST, SECOND)
    );
    let mut found = [0; 2];
    for port in 1000..1100 {
        found[usize::from(lb.go(port, "S") == SECOND)] += 1;
    }
    assert!(found[0] > 25 && found[1] > 25, "{found:?}");
}

#[test]
fn a_deregistered_target_drains_and_its_flows_stay_or_move_after_the_delay() {
    for (failover, after) in [
        (Failover::NoRebalance, FIRST),
        (Failover::Rebalance, SECOND),
    ] {
        let mut lb = pair(Failover::NoRebalance, failover);
        let ports = lb.open_to_each(&[FIRST]);
        lb.deregister(FIRST);
        assert_eq!(lb.state(FIRST), TargetState::Draining);
        assert_eq!(lb.go(ports[0], "A"), FIRST);
        assert!((1000..1100).all(|port| lb.go(port, "S") == SECOND));
        lb.now += DELAY - Duration::from_millis(1);
        assert_eq!(
            (lb.go(ports[0], "A"), lb.state(FIRST)),
            (FIRST, TargetState::Draining)
        );
        lb.now += Duration::from_millis(1);
        assert_eq!(
            (lb.go(ports[0], "A"), lb.state(FIRST)),
            (after, TargetState::Unused)
        );
        let checked = lb.check(&[FIRST, SECOND]);
        assert_eq!(checked, [SECOND], "a deregistered target is not checked");
        lb.register(FIRST).unwrap();
        assert_eq!(lb.state(FIRST), TargetState::Initial);
        assert!((2000..2100).all(|port| lb.go(port, "S") == SECOND));
        lb.check(&[FIRST, SECOND]);
        assert!((3000..3100).any(|port| lb.go(port, "S") == FIRST));
    }
}

#[test]
fn a_draining_target_that_is_unhealthy_loses_its_flows_with_rebalancing() {
    let mut lb = pair(Failover::Rebalance, Failover::NoRebalance);
    let ports = lb.open_to_each(&[FIRST]);
    lb.deregister(FIRST);
    lb.check_for(1, &[SECOND]);
    assert_eq!(lb.go(ports[0], "A"), FIRST);
    lb.check_for(1, &[SECOND]);
    assert_eq!(lb.go(ports[0], "A"), SECOND);
}

#[test]
fn without_registered_targets_existing_flows_go_on_and_new_ones_are_not_sent() {
    let mut lb = rig(group(), &[FIRST]);
    assert_eq!(lb.go(1, "S"), FIRST);
    lb.deregister(FIRST);
    assert_eq!(lb.go(1, "A"), FIRST);
    let refused = lb.try_send(0, Side::Client, &segment(Side::Client, 2, "S"));
    assert_eq!(refused.unwrap_err(), Unsent::NoTarget);
    lb.register(FIRST).unwrap();
    assert_eq!(lb.go(2, "S"), FIRST);
}

#[test]
fn stickiness_says_which_flows_share_a_target() {
    let other_protocol = |port: u16| {
        let mut packet = udp(Side::Client, b"question");
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    };
    for (stickiness, tcp_alike, all_alike) in [
        (Stickiness::FiveTuple, false, false),
        (Stickiness::ThreeTuple, true, false),
        (Stickiness::TwoTuple, true, true),
    ] {
        let mut alike = [true; 2];
        // The targets of three-tuples are independent, so several groups of targets are tried.
        for last in 10..30 {
            let targets = [FIRST, Ipv4Addr::new(10, 0, 0, last)];
            let mut lb = rig(
                GroupSettings {
                    stickiness,
                    ..group()
                },
                &targets,
            );
            let target = lb.go(1, "S");
            for port in 2..20 {
                alike[0] &= lb.go(port, "S") == target;
                let datagram = lb.send(Side::Client, &other_protocol(port));
                alike[1] &= datagram.ticket.destination == target;
            }
        }
        assert_eq!(alike, [tcp_alike, all_alike], "{stickiness:?}");
    }
}

#[test]
fn sticky_flows_stay_together_after_their_target_recovers() {
    let mut lb = rig(
        GroupSettings {
            stickiness: Stickiness::ThreeTuple,
            health: Some(check()),
            ..group()
        },
        &[FIRST, SECOND],
    );
    lb.check(&[FIRST, SECOND]);
    let failed = lb.go(1, "S");
    let other = if failed == FIRST { SECOND } else { FIRST };
    lb.check_for(2, &[other]);
    assert_eq!((lb.go(1, "A"), lb.go(2, "S")), (failed, other));
    lb.check_for(3, &[FIRST, SECOND]);
    assert_eq!((lb.go(2, "A"), lb.go(3, "S")), (other, other));
    lb.now += TCP_IDLE;
    assert_eq!(lb.go(4, "S"), failed, "the assignment timed out");
}

#[test]
fn a_reply_from_another_target_is_wrong_and_the_right_one_is_still_accepted() {
    let mut lb = rig(group(), &[FIRST, SECOND]);
    let sent = lb.send(Side::Client, &tcp(Side::Client, "S", 1));
    let mut stray = sent.clone();
    let other = if sent.ticket.destination == FIRST {
        SECOND
    } else {
        FIRST
    };
    stray.ticket.destination = other;
    assert_eq!(lb.reply(&stray), None);
    let made = stray.with_inner(&tcp(Side::Server, "RA", 0));
    assert_eq!(lb.reply(&made), None, "nor may it make packets of the flow");
    assert_eq!((lb.balancer.counters.wrong_target, lb.wrong()), (2, [0; 3]));
    assert_eq!(lb.report(other).counters.wrong, 2);
    assert!(lb.reply(&sent).is_some());
    let observed = lb.balancer.observed(lb.now);
    let report = Report::new(&lb.balancer.counters, observed, TIMEOUT, 0);
    assert_eq!(report.failures(), 2);
    let text = report.to_string();
    assert!(text.contains("2 wrong target: "), "{text}");
    assert!(text.contains("target 10.0.0.3:6081, healthy"), "{text}");
}

#[test]
fn a_flow_that_moved_still_gets_the_replies_of_its_former_target() {
    let mut lb = pair(Failover::Rebalance, Failover::Rebalance);
    let ports = lb.open_to_each(&[FIRST]);
    let late = lb.send(Side::Client, &segment(Side::Client, ports[0], "A"));
    lb.check_for(2, &[SECOND]);
    assert_eq!(lb.go(ports[0], "FA"), SECOND);
    let rst = late.with_inner(&segment(Side::Server, ports[0], "R"));
    assert!(lb.reply(&rst).is_some(), "its packet waits there");
    assert!(lb.reply(&late).is_some());
    assert_eq!(
        lb.reply(&rst),
        None,
        "nothing of the flow is there any more"
    );
    assert_eq!(lb.balancer.counters.wrong_target, 1);
}

#[test]
fn packets_of_a_failed_target_count_as_its_dropped_ones() {
    let mut lb = pair(Failover::NoRebalance, Failover::NoRebalance);
    let ports = lb.open_to_each(&[FIRST, SECOND]);
    let lost = lb.send(Side::Client, &segment(Side::Client, ports[0], "A"));
    lb.go(ports[1], "A");
    lb.wait(TIMEOUT);
    assert_eq!(lb.report(FIRST).counters.dropped, 1);
    assert_eq!(lb.report(SECOND).counters.dropped, 0);
    assert!(lb.reply(&lost).is_some());
    assert_eq!(lb.report(FIRST).counters.dropped, 0, "it came late");
}

#[test]
fn an_address_is_registered_once_and_the_group_is_bounded() {
    let mut lb = rig(group(), &[FIRST]);
    assert_eq!(lb.register(FIRST), Err(TargetError::Registered(FIRST)));
    let other_port = SocketAddrV4::new(FIRST, 7000);
    let refused = lb.balancer.targets.register(lb.now, other_port);
    assert_eq!(refused, Err(TargetError::OtherPort(FIRST)));
    let unknown = lb.balancer.targets.deregister(lb.now, SECOND);
    assert_eq!(unknown, Err(TargetError::NotRegistered(SECOND)));
    let mut last = Ok(());
    for number in 0..MAX_TARGETS as u8 {
        last = lb.register(Ipv4Addr::new(10, 0, 1, number));
    }
    assert_eq!(last, Err(TargetError::Full));
    lb.deregister(FIRST);
    assert_eq!(lb.register(FIRST), Ok(()), "a known address needs no room");
}

#[test]
fn flows_are_bounded_however_many_targets_there_are() {
    let mut lb = rig(
        GroupSettings {
            stickiness: Stickiness::ThreeTuple,
            ..group()
        },
        &[FIRST, SECOND],
    );
    for port in 0..5000 {
        lb.go(port, "S");
    }
    let flows = lb.report(FIRST).flows + lb.report(SECOND).flows;
    assert_eq!((lb.balancer.flows().0, flows), (1000, 1000));
}

#[test]
fn commands_change_targets_and_are_answered_in_json() {
    let mut lb = rig(group(), &[FIRST]);
    let now = lb.now;
    let mut ask = |line: &str| {
        let answer = answer(&mut lb.balancer, now, line);
        serde_json::to_value(answer).unwrap()
    };
    let registered = ask("register 10.0.0.3");
    assert_eq!(registered["ok"], true);
    assert_eq!(registered["targets"][1]["target"], "10.0.0.3:6081");
    assert_eq!(registered["targets"][1]["state"], "healthy");
    let deregistered = ask("deregister 10.0.0.2");
    assert_eq!(deregistered["ok"], true);
    assert_eq!(deregistered["targets"][0]["state"], "draining");
    assert_eq!(ask("targets")["ok"], true);
    for wrong in [
        "register 10.0.0.1",
        "register 0.0.0.0",
        "register 10.0.0.3",
        "register host",
        "deregister 10.0.0.2",
        "deregister 10.0.0.9",
        "deregister",
        "targets all",
        "stop",
    ] {
        let answer = ask(wrong);
        assert_eq!(answer["ok"], false, "{wrong}");
        assert!(answer["error"].is_string(), "{wrong}");
        assert_eq!(answer["targets"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn lines_of_commands_may_come_in_pieces_and_are_bounded() {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in [
        "tar",
        "gets\nregister 10.0.0.3\r\n\nderegi",
        "ster 10.0.0.3",
        "\n",
    ] {
        lines.push(piece.as_bytes(), |line| found.push(line.to_owned()));
    }
    assert_eq!(
        found,
        ["targets", "register 10.0.0.3", "", "deregister 10.0.0.3"]
    );
    lines.push(&[b'x'; 100_000], |_| unreachable!());
    lines.push(b"\n", |line| found.push(line.to_owned()));
    assert_eq!(found.last().unwrap().len(), 256);
}
