//! Places of zones: guarantees, claims and hand-over.

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
    accounts.release(GREEN, Standing::default());
    assert!(
        accounts.claim(BLUE),
        "what is free beyond guarantees is anybody's"
    );
    accounts.release(BLUE, Standing::default());
    assert!(accounts.claim(GREEN));
    for _ in 0..60 {
        accounts.release(GREEN, Standing::default());
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
    accounts.release(BLUE, Standing::default());
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
            accounts.release(zone, Standing::default());
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
                        accounts.release(zone, Standing::default());
                    }
                }
            });
        }
    });
    assert_eq!(accounts.len(), 0);
    accounts.check_invariants(&Tally::default()).unwrap();
    assert_eq!(claimed(&accounts, BLUE), 48);
}

const OPEN: Standing = Standing {
    half_open: true,
    assured: false,
};
const ASSURED: Standing = Standing {
    half_open: false,
    assured: true,
};

fn in_lots(max_sessions: usize) -> Accounts {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    Accounts::with_lot(max_sessions, 8, Prefixes::DEFAULT, hasher).unwrap()
}

#[test]
fn idle_places_are_no_sessions_and_are_found_when_the_table_is_full() {
    let accounts = in_lots(100);
    guarantee(&accounts, &[BLUE]);
    std::thread::scope(|scope| {
        for zone in 1..=5 {
            let accounts = &accounts;
            scope.spawn(move || assert!(accounts.claim(Zone(zone))));
        }
    });
    assert_eq!((accounts.len(), accounts.taken()), (5, 40));
    assert_eq!(accounts.zone(BLUE).sessions(), 1);
    assert_eq!(claimed(&accounts, GREEN), 95);
    assert_eq!((accounts.len(), accounts.taken()), (100, 100));
    assert!(!accounts.claim(BLUE));
}

#[test]
fn idle_places_take_no_guarantee_away() {
    let accounts = in_lots(100);
    guarantee(&accounts, &[BLUE, GREEN]);
    assert_eq!(claimed(&accounts, GREEN), 75);
    for _ in 0..4 {
        accounts.release(GREEN, Standing::default());
    }
    assert_eq!(claimed(&accounts, BLUE), 29, "its 25, and 4 that were idle");
    accounts.check_invariants(&Tally::default()).unwrap_err();
}

#[test]
fn zones_that_share_entries_are_counted_exactly() {
    let accounts = in_lots(10_000);
    let zones = || (0..100).map(Zone);
    for round in 1..=20 {
        for zone in zones() {
            assert!(accounts.claim(zone));
            accounts.begins(zone, OPEN);
            accounts.changes(zone, OPEN, ASSURED);
            assert!(accounts.claim(zone));
            accounts.begins(zone, OPEN);
        }
        for zone in zones() {
            let counts = accounts.zone(zone);
            let own = (counts.sessions(), counts.half_open(), counts.assured());
            assert_eq!(own, (2 * round, round, round), "{zone}");
            assert!(counts.has_half_open(round) && !counts.has_half_open(round + 1));
        }
        assert_eq!(accounts.len(), 200 * round as usize);
        assert_eq!(accounts.assured(), 100 * round as usize);
    }
    for zone in zones() {
        for _ in 0..20 {
            accounts.release(zone, OPEN);
            accounts.release(zone, ASSURED);
        }
    }
    accounts.check_invariants(&Tally::default()).unwrap();
    assert_eq!((accounts.len(), accounts.assured()), (0, 0));
}

#[test]
fn threads_that_take_lots_leave_exact_sums_behind() {
    let accounts = in_lots(64);
    guarantee(&accounts, &[BLUE, GREEN]);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let accounts = &accounts;
            scope.spawn(move || {
                let zone = if thread % 2 == 0 { BLUE } else { GREEN };
                for round in 0..20_000u32 {
                    let held = (0..round % 40).filter(|_| accounts.claim(zone)).count();
                    (0..held).for_each(|_| accounts.begins(zone, OPEN));
                    assert!(accounts.taken() <= 64);
                    (0..held).for_each(|_| accounts.release(zone, OPEN));
                }
            });
        }
    });
    assert_eq!(accounts.len(), 0);
    accounts.check_invariants(&Tally::default()).unwrap();
    assert_eq!(claimed(&accounts, BLUE), 48);
}

#[test]
fn a_rule_has_exactly_its_bound_whatever_is_idle() {
    let accounts = in_lots(10_000);
    let rule = RuleId(3);
    let claimed = |bound| {
        let claims = std::iter::repeat_with(|| accounts.claim_of_rule(rule, bound));
        claims.take(1_000).take_while(Result::is_ok).count()
    };
    assert_eq!(claimed(Some(21)), 21);
    assert_eq!(accounts.claim_of_rule(rule, Some(21)), Err(21));
    for _ in 0..5 {
        accounts.release_of_rule(rule, 1);
    }
    // Another thread finds the idle places of this one.
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(claimed(Some(21)), 5));
    });
    // Without a bound, a lot is taken; then a reload lowers the bound.
    assert_eq!(accounts.claim_of_rule(rule, None), Ok(()));
    assert_eq!(accounts.claim_of_rule(rule, Some(22)), Err(22));
    assert_eq!(accounts.sessions_of_rule(rule), 22);
    for _ in 0..22 {
        accounts.release_of_rule(rule, 1);
    }
    assert_eq!(claimed(Some(7)), 7);
}
