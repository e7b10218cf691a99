use std::sync::atomic::{AtomicBool, AtomicUsize};

use proptest::prelude::*;

use super::*;

const GREEN: Zone = Zone(1);
const BLUE: Zone = Zone(2);

fn zones(count: u16) -> impl Iterator<Item = Zone> {
    (0..count).map(Zone)
}

fn fill(shares: &ZoneShares, zone: Zone) -> usize {
    std::iter::repeat_with(|| shares.claim(zone))
        .take_while(|claimed| *claimed)
        .count()
}

/// Checks what holds when nobody changes anything.
fn check_sums(shares: &ZoneShares, zones: &[Zone], common_claims: u32) {
    let of = |count: fn(&ZoneShares, Zone) -> u32| -> u32 {
        zones.iter().map(|zone| count(shares, *zone)).sum()
    };
    let used = of(ZoneShares::used_by) + common_claims;
    assert_eq!(shares.used(), used as usize);
    let unused: u32 = zones
        .iter()
        .map(|zone| {
            shares
                .guarantee(*zone)
                .saturating_sub(shares.used_by(*zone))
        })
        .sum();
    let left = shares.common.load(Ordering::Acquire);
    assert_eq!(
        left,
        shares.max.load(Ordering::Acquire) as i64 - i64::from(used + unused)
    );
}

#[test]
fn one_zone_has_everything() {
    let shares = ZoneShares::new(100, zones(1));
    assert_eq!(fill(&shares, Zone::DEFAULT), 100);
    shares.release(Zone::DEFAULT);
    assert_eq!(
        fill(&shares, GREEN),
        1,
        "a zone without a name may use what is free"
    );
}

#[test]
fn a_zone_keeps_its_guarantee_whatever_another_does() {
    let shares = ZoneShares::new(120, zones(3));
    assert_eq!(shares.guarantee(BLUE), 20);
    assert_eq!(fill(&shares, GREEN), 80);
    assert_eq!(fill(&shares, Zone(9)), 0, "without a guarantee");
    assert_eq!(fill(&shares, BLUE), 20);
    assert_eq!(fill(&shares, Zone::DEFAULT), 20);
    assert_eq!(shares.used(), 120);
    // What comes back above a guarantee is common, and within it is the zone's.
    shares.release(GREEN);
    assert_eq!(fill(&shares, BLUE), 1);
    shares.release(Zone::DEFAULT);
    assert_eq!(fill(&shares, BLUE), 0);
    assert_eq!(fill(&shares, Zone::DEFAULT), 1);
}

#[test]
fn every_zone_has_a_place_while_there_are_as_many_places() {
    for (max, count) in [(5, 5), (9, 5), (10, 5), (3, 5), (0, 2)] {
        let shares = ZoneShares::new(max, zones(count));
        let least = u32::from(max >= u32::from(count));
        assert_eq!(
            shares.guarantee(GREEN),
            least,
            "{max} places, {count} zones"
        );
        fill(&shares, GREEN);
        assert_eq!(
            shares.claim(BLUE),
            least == 1,
            "{max} places, {count} zones"
        );
    }
}

#[test]
fn one_source_leaves_half_of_its_zone_and_half_of_the_rest() {
    let shares = ZoneShares::new(120, zones(3));
    let mut drawn = Vec::new();
    while let Some(each) = shares.claim_for_source(GREEN, 1, drawn.len() as u32) {
        drawn.push(each);
    }
    let (zone, common): (Vec<_>, Vec<_>) = drawn.into_iter().partition(|each| *each == Drawn::Zone);
    assert_eq!((zone.len(), common.len()), (10, 30));
    // Zones that take all of the common part do not touch what the source had to leave.
    fill(&shares, BLUE);
    fill(&shares, Zone::DEFAULT);
    let of_another = (0..).take_while(|held| shares.claim_for_source(GREEN, 1, *held).is_some());
    assert_eq!(of_another.count(), 10);
    check_sums(&shares, &[Zone::DEFAULT, GREEN, BLUE], 30);
    for _ in common {
        shares.release_drawn(GREEN, 1, Drawn::Common);
    }
    check_sums(&shares, &[Zone::DEFAULT, GREEN, BLUE], 0);
}

#[test]
fn many_sources_of_a_zone_leave_something_to_one_more() {
    let shares = ZoneShares::new(1_200, zones(3));
    for source in 0..6 {
        let taken = (0..).take_while(|held| shares.claim_for_source(GREEN, 1, *held).is_some());
        assert!(taken.count() > 0, "source {source}");
    }
    assert!(shares.common.load(Ordering::Acquire) > 0);
}

#[test]
fn a_zone_that_a_reload_adds_to_a_full_resource_gets_places_as_they_come_back() {
    let shares = ZoneShares::new(120, zones(2));
    assert_eq!(fill(&shares, GREEN), 90);
    assert_eq!(fill(&shares, Zone::DEFAULT), 30);
    shares.set(120, zones(3));
    assert!(!shares.claim(BLUE), "there is none");
    for _ in 0..20 {
        shares.release(GREEN);
    }
    assert_eq!(
        fill(&shares, GREEN),
        0,
        "what comes back is for the guarantee"
    );
    assert_eq!(fill(&shares, BLUE), 20);
    check_sums(&shares, &[Zone::DEFAULT, GREEN, BLUE], 0);
}

#[test]
fn a_smaller_bound_takes_nothing_away_and_lets_nothing_in() {
    let shares = ZoneShares::new(100, zones(1));
    fill(&shares, GREEN);
    shares.set(50, zones(1));
    assert_eq!(shares.used(), 100);
    for _ in 0..50 {
        assert!(!shares.claim(GREEN));
        shares.release(GREEN);
    }
    assert!(!shares.claim(GREEN));
    shares.release(GREEN);
    assert!(shares.claim(GREEN));
}

/// Step of a test with shares.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim(u16, u32),
    ForSource(u16, u32, u32),
    Release(usize),
    Zones(u32, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u16, 1..5_u32).prop_map(|(zone, places)| Step::Claim(zone, places)),
        4 => (0..6_u16, 1..5_u32, 0..20_u32)
            .prop_map(|(zone, n, held)| Step::ForSource(zone, n, held)),
        6 => any::<usize>().prop_map(Step::Release),
        1 => (0..80_u32, 0..6_u16).prop_map(|(max, count)| Step::Zones(max, count)),
    ]
}

proptest! {
    #[test]
    fn sums_are_exact_whatever_is_done(steps in proptest::collection::vec(step(), 1..300)) {
        let all: Vec<_> = zones(6).collect();
        let shares = ZoneShares::new(60, zones(3));
        let mut held: Vec<(Zone, u32, Drawn)> = Vec::new();
        for step in steps {
            match step {
                Step::Claim(zone, places) => {
                    let zone = Zone(zone);
                    let is_guaranteed = shares.used_by(zone) + places <= shares.guarantee(zone);
                    let is_in_debt = shares.common.load(Ordering::Acquire) < 0;
                    let claimed = shares.claim_places(zone, places);
                    prop_assert!(claimed || !is_guaranteed || is_in_debt);
                    if claimed {
                        held.push((zone, places, Drawn::Zone));
                    }
                }
                Step::ForSource(zone, places, of_source) => {
                    if let Some(drawn) = shares.claim_for_source(Zone(zone), places, of_source) {
                        held.push((Zone(zone), places, drawn));
                    }
                }
                Step::Release(place) if !held.is_empty() => {
                    let (zone, places, drawn) = held.swap_remove(place % held.len());
                    shares.release_drawn(zone, places, drawn);
                }
                Step::Release(_) => {}
                Step::Zones(max, count) => shares.set(max, zones(count)),
            }
            let common = held.iter().filter(|(_, _, drawn)| *drawn == Drawn::Common);
            check_sums(&shares, &all, common.map(|(_, places, _)| places).sum());
        }
    }
}

#[test]
fn threads_never_exceed_the_bound_and_never_refuse_a_guarantee() {
    const MAX: usize = 64;
    let shares = ZoneShares::new(MAX as u32, zones(4));
    let (held, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Two zones take all that they can get.
        for zone in [GREEN, BLUE] {
            let (shares, held, done) = (&shares, &held, &done);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for turn in 0_u32.. {
                    let drawn = shares.claim_for_source(zone, 1, turn % 16);
                    if let Some(drawn) = drawn {
                        assert!(held.fetch_add(1, Ordering::SeqCst) < MAX);
                        mine.push(drawn);
                    }
                    if (drawn.is_none() || turn % 3 == 0)
                        && let Some(drawn) = mine.pop()
                    {
                        held.fetch_sub(1, Ordering::SeqCst);
                        shares.release_drawn(zone, 1, drawn);
                    }
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
                for drawn in mine {
                    held.fetch_sub(1, Ordering::SeqCst);
                    shares.release_drawn(zone, 1, drawn);
                }
            });
        }
        // A third stays within its guarantee of 8: nothing of it is ever refused.
        for _ in 0..20_000 {
            let count = (1..=8).filter(|_| shares.claim(Zone(3))).count();
            assert_eq!(count, 8);
            held.fetch_add(count, Ordering::SeqCst);
            held.fetch_sub(count, Ordering::SeqCst);
            for _ in 0..count {
                shares.release(Zone(3));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    check_sums(&shares, &zones(4).collect::<Vec<_>>(), 0);
    assert_eq!(shares.used(), 0);
}
