//! Slots of zones: guarantees, claims and handover.

use super::super::Bounds;
use super::super::tally::Tally;
use super::*;

const BLUE: Zone = Zone(1);
const GREEN: Zone = Zone(2);

fn accounts(max_sessions: usize) -> Accounts {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    Accounts::new(max_sessions, Prefixes::DEFAULT, hasher).unwrap()
}

fn guarantee(accounts: &Accounts, zones: &[Zone]) {
    accounts.guarantee(zones, &Limits::default());
}

fn claimed(accounts: &Accounts, zone: Zone) -> usize {
    (0..1_000).take_while(|_| accounts.claim(zone)).count()
}

#[test]
fn a_single_zone_has_the_whole_table() {
    let accounts = accounts(100);
    guarantee(&accounts, &[Zone::DEFAULT]);
    assert_eq!(claimed(&accounts, Zone(7)), 100);
    assert_eq!(accounts.free(Zone::DEFAULT), 0);
}

#[test]
fn a_zone_cannot_take_what_others_are_sure_of() {
    let accounts = accounts(100);
    guarantee(&accounts, &[BLUE, GREEN]);
    assert_eq!((accounts.free(GREEN), claimed(&accounts, GREEN)), (75, 75));
    assert_eq!((accounts.free(BLUE), claimed(&accounts, BLUE)), (25, 25));
    assert_eq!(accounts.len(), 100);
    accounts.release(GREEN);
    assert!(
        accounts.claim(BLUE),
        "what is free beyond guarantees is anybody's"
    );
    accounts.release(BLUE);
    assert!(accounts.claim(GREEN));
    for _ in 0..60 {
        accounts.release(GREEN);
    }
    assert_eq!(claimed(&accounts, BLUE), 50, "green keeps 25");
}

#[test]
fn a_zone_gives_back_what_is_above_its_guarantee_and_no_more() {
    let accounts = accounts(8);
    guarantee(&accounts, &[BLUE, GREEN]);
    assert_eq!(claimed(&accounts, GREEN), 6);
    assert_eq!(claimed(&accounts, BLUE), 2);
    for _ in 0..4 {
        assert!(accounts.hand_over(GREEN, BLUE));
    }
    assert!(
        !accounts.hand_over(GREEN, BLUE),
        "green is at its guarantee"
    );
    assert!(accounts.hand_over(GREEN, GREEN));
    assert_eq!(accounts.len(), 8);
    assert_eq!(accounts.committed(), accounts.sum_committed());
}

#[test]
fn new_guarantees_count_what_zones_hold_already() {
    let accounts = accounts(100);
    guarantee(&accounts, &[BLUE]);
    assert_eq!(claimed(&accounts, BLUE), 100);
    guarantee(&accounts, &[BLUE, GREEN]);
    assert!(!accounts.claim(GREEN), "nobody has a place to spare");
    accounts.release(BLUE);
    assert_eq!(accounts.len(), 99);
    guarantee(&accounts, &[]);
    assert!(accounts.claim(GREEN));
    assert_eq!(accounts.committed(), accounts.sum_committed());
}

#[test]
fn a_zone_is_not_sure_of_more_than_its_limit() {
    let accounts = accounts(100);
    let bounds = Bounds {
        max_sessions: Some(5),
        ..Bounds::default()
    };
    let limits = Limits {
        zones: [(GREEN, bounds)].into(),
        ..Limits::default()
    };
    accounts.guarantee(&[BLUE, GREEN], &limits);
    assert_eq!(claimed(&accounts, BLUE), 95, "green could not use more");
    assert_eq!(claimed(&accounts, GREEN), 5);
    accounts.check_invariants(&Tally::default()).unwrap_err();
    for (zone, held) in [(BLUE, 95), (GREEN, 5)] {
        for _ in 0..held {
            accounts.release(zone);
        }
    }
    accounts.check_invariants(&Tally::default()).unwrap();
}

#[test]
fn sessions_that_a_zone_cannot_evict_are_no_room_for_it() {
    let accounts = accounts(100);
    guarantee(&accounts, &[BLUE, GREEN]);
    let evictable = |zone, count| {
        for _ in 0..count {
            assert!(accounts.claim(zone));
            accounts.begins(zone, Standing::default());
        }
    };
    evictable(BLUE, 25);
    assert_eq!(accounts.free(GREEN), 75);
    assert_eq!(accounts.room(GREEN), 75, "blue is sure of its places");
    evictable(BLUE, 10);
    assert_eq!(accounts.free(GREEN), 65);
    assert_eq!(accounts.room(GREEN), 75, "10 of blue may be evicted");
    let assured = Standing {
        assured: true,
        ..Standing::default()
    };
    for _ in 0..20 {
        assert!(accounts.claim(GREEN));
        accounts.begins(GREEN, assured);
    }
    evictable(GREEN, 10);
    assert_eq!((accounts.free(GREEN), accounts.room(GREEN)), (35, 55));
}

#[test]
fn threads_leave_exact_sums_behind() {
    let accounts = accounts(64);
    guarantee(&accounts, &[BLUE, GREEN]);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let accounts = &accounts;
            scope.spawn(move || {
                let zone = if thread % 2 == 0 { BLUE } else { GREEN };
                for round in 0..20_000u32 {
                    let held = (0..round % 40).filter(|_| accounts.claim(zone)).count();
                    for _ in 0..held {
                        accounts.release(zone);
                    }
                }
            });
        }
    });
    assert_eq!(accounts.len(), 0);
    accounts.check_invariants(&Tally::default()).unwrap();
    assert_eq!(claimed(&accounts, BLUE), 48);
}
