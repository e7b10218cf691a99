use std::time::Duration;

use super::*;
use crate::packet::PROTOCOL_TCP;

fn parent(n: u16) -> SessionEnds {
    SessionEnds::new(
        Zone(1),
        SocketAddr::from(([10, 0, 0, 1], 40_000 + n)),
        SocketAddr::from(([192, 0, 2, 1], 21)),
    )
}

fn passive(of: u16, port: u16) -> Expectation {
    Expectation {
        parent: parent(of),
        source: parent(of).initiator.ip(),
        source_port: None,
        destination: SocketAddr::new(parent(of).responder.ip(), port),
        protocol: PROTOCOL_TCP,
        direction: Direction::Original,
        lifetime: Duration::from_secs(30),
    }
}

fn call(port: u16) -> Call {
    Call {
        zone: Zone(1),
        protocol: PROTOCOL_TCP,
        source: SocketAddr::from(([10, 0, 0, 1], 50_000)),
        destination: SocketAddr::from(([192, 0, 2, 1], port)),
    }
}

fn table(total: usize, per_parent: usize) -> ExpectationTable {
    ExpectationTable::new(ExpectationLimits { total, per_parent }, [1, 2, 3, 4])
}

fn consistent(table: &ExpectationTable) {
    let by_parent: usize = table.parents.iter().map(|tickets| tickets.len()).sum();
    assert!(table.parents.iter().all(|tickets| !tickets.is_empty()));
    let counts = [table.waiting.len(), by_parent, table.order.lock().len()];
    assert_eq!(counts, [table.len(); 3]);
}

#[test]
fn an_expectation_is_used_once() {
    let (table, now) = (table(8, 4), Instant::now());
    assert!(table.take(&call(5000), now).is_none());
    table.insert(&passive(0, 5000), now).unwrap();
    assert_eq!(table.find(&call(5000), now), Some(passive(0, 5000)));
    assert_eq!(table.take(&call(5000), now), Some(passive(0, 5000)));
    assert_eq!(table.take(&call(5000), now), None);
    assert!(table.is_empty());
    consistent(&table);
}

#[test]
fn everything_but_an_open_source_port_must_fit() {
    let (table, now) = (table(8, 4), Instant::now());
    table.insert(&passive(0, 5000), now).unwrap();
    let wrong = [
        Call {
            zone: Zone(2),
            ..call(5000)
        },
        Call {
            protocol: 17,
            ..call(5000)
        },
        Call {
            source: SocketAddr::from(([10, 0, 0, 2], 50_000)),
            ..call(5000)
        },
        Call {
            destination: SocketAddr::from(([192, 0, 2, 2], 5000)),
            ..call(5000)
        },
        call(5001),
    ];
    for call in wrong {
        assert_eq!(table.take(&call, now), None, "{call:?}");
    }
    let fixed = Expectation {
        source_port: Some(20),
        ..passive(0, 6000)
    };
    table.insert(&fixed, now).unwrap();
    assert_eq!(table.take(&call(6000), now), None);
    assert_eq!(table.len(), 2, "a call that does not fit uses nothing up");
    let from_20 = Call {
        source: SocketAddr::from(([10, 0, 0, 1], 20)),
        ..call(6000)
    };
    assert_eq!(table.take(&from_20, now), Some(fixed));
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let (table, now) = (table(8, 4), Instant::now());
    table.insert(&passive(0, 5000), now).unwrap();
    let mapped = Call {
        destination: "[::ffff:192.0.2.1]:5000".parse().unwrap(),
        ..call(5000)
    };
    assert!(table.take(&mapped, now).is_some());
}

#[test]
fn an_expectation_ends_with_its_lifetime() {
    let (table, now) = (table(8, 4), Instant::now());
    let later = Expectation {
        lifetime: Duration::from_secs(40),
        ..passive(0, 5001)
    };
    table.insert(&later, now).unwrap();
    table.insert(&passive(0, 5000), now).unwrap();
    let end = now + Duration::from_secs(30);
    assert_eq!(table.next_expiry(), Some(end));
    assert!(
        table
            .find(&call(5000), end - Duration::from_millis(1))
            .is_some()
    );
    assert_eq!(table.take(&call(5000), end), None);
    assert_eq!(table.expire(end - Duration::from_millis(1), 9), 0);
    assert_eq!(table.expire(end, 9), 1);
    assert_eq!((table.len(), table.expired()), (1, 1));
    assert_eq!(table.next_expiry(), Some(now + Duration::from_secs(40)));
    consistent(&table);
}

#[test]
fn a_session_without_lifetime_is_refused() {
    let never = Expectation {
        lifetime: Duration::ZERO,
        ..passive(0, 5000)
    };
    let result = table(8, 4).insert(&never, Instant::now());
    assert_eq!(result, Err(ExpectationError::NoLifetime));
}

#[test]
fn both_bounds_hold_and_are_counted() {
    // One source leaves as many slots as it takes: three of six.
    let (table, now) = (table(6, 2), Instant::now());
    for port in [5000, 5001] {
        table.insert(&passive(0, port), now).unwrap();
    }
    assert_eq!(
        table.insert(&passive(0, 5002), now),
        Err(ExpectationError::ParentLimit)
    );
    table
        .insert(&passive(0, 5001), now)
        .expect("it replaces one, and there is room for it");
    table.insert(&passive(1, 5003), now).unwrap();
    assert_eq!(
        table.insert(&passive(2, 5004), now),
        Err(ExpectationError::TableFull)
    );
    assert_eq!(table.refused(), (1, 1));
    consistent(&table);
    let over = now + Duration::from_secs(31);
    table
        .insert(&passive(2, 5004), over)
        .expect("what has expired makes room");
    assert_eq!(table.len(), 1);
    consistent(&table);
}

#[test]
fn expectations_leave_with_their_parent() {
    let (table, now) = (table(8, 4), Instant::now());
    for (of, port) in [(0, 5000), (0, 5001), (1, 5002)] {
        table.insert(&passive(of, port), now).unwrap();
    }
    assert_eq!(table.withdraw(&parent(0)), 2);
    assert_eq!(table.withdraw(&parent(0)), 0);
    assert_eq!(table.len(), 1);
    assert!(!table.withdraw_one(&passive(0, 5000)));
    assert!(table.withdraw_one(&passive(1, 5002)));
    assert!(table.is_empty());
    consistent(&table);
}

#[test]
fn the_newer_of_two_parents_has_the_expectation() {
    let (table, now) = (table(8, 4), Instant::now());
    table.insert(&passive(0, 5000), now).unwrap();
    table.insert(&passive(1, 5000), now).unwrap();
    assert_eq!(table.len(), 1);
    assert!(!table.withdraw_one(&passive(0, 5000)));
    assert_eq!(table.withdraw(&parent(0)), 0);
    assert_eq!(table.take(&call(5000), now), Some(passive(1, 5000)));
    consistent(&table);
}

#[test]
fn another_appliance_takes_over_what_is_left() {
    let (here, there, now) = (table(8, 4), table(8, 4), Instant::now());
    here.insert(&passive(0, 5000), now).unwrap();
    here.insert(&passive(0, 5001), now - Duration::from_secs(31))
        .unwrap();
    let left = here.export(now + Duration::from_secs(10));
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].lifetime, Duration::from_secs(20));
    let then = now + Duration::from_secs(11);
    assert_eq!(there.import(&left, then), 1);
    assert_eq!(there.next_expiry(), Some(now + Duration::from_secs(31)));
    assert!(there.take(&call(5000), then).is_some());
}

#[test]
fn threads_that_race_for_one_expectation_get_it_once() {
    let (table, now) = (table(1000, 1000), Instant::now());
    for round in 0..200_u16 {
        let port = 2000 + round;
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let _ = table.insert(&passive(0, 1999), now);
                        usize::from(table.take(&call(port), now).is_some())
                    })
                })
                .collect();
            table.insert(&passive(0, port), now).unwrap();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        let rest = usize::from(table.take(&call(port), now).is_some());
        assert_eq!(taken + rest, 1);
    }
    table.withdraw(&parent(0));
    assert!(table.is_empty());
    consistent(&table);
}
