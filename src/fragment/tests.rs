//! The table of datagrams by itself: its bounds, its times, its counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;

use super::*;
use crate::config::FragmentsConfig;
use crate::session::time::Micros;
use crate::verdict::{Class, DropReason, Tracked};

/// A datagram from 10.0.0.1 with the identification `id`.
fn key(id: u32) -> DatagramKey {
    from(1, id)
}

fn from(host: u8, id: u32) -> DatagramKey {
    DatagramKey {
        src: 0xffff_0a00_0000 | u128::from(host),
        dst: 0xffff_c000_0201,
        id,
        zone: 0,
        protocol: 17,
        v6: false,
    }
}

fn in_zone(zone: u16, host: u8, id: u32) -> DatagramKey {
    DatagramKey {
        zone,
        ..from(host, id)
    }
}

fn part(offset: u16, len: u16, more: bool) -> Fragment {
    Fragment {
        id: 0,
        offset,
        more,
        payload_len: len,
        transport_offset: 20,
    }
}

fn datagrams(max: u32, per_source: u32) -> Datagrams {
    let config = FragmentsConfig {
        max_datagrams: max,
        max_per_source: per_source,
        max_held: max,
        max_held_per_source: per_source,
        ..FragmentsConfig::default()
    };
    Datagrams::new(&config, [1, 2, 3, 4]).unwrap()
}

const fn seconds(n: u64) -> Micros {
    Micros(n * 1_000_000)
}

fn admitted() -> Fate {
    Fate::Admitted(Followed {
        tracked: Tracked::class(Class::New),
        flow: None,
        base: None,
    })
}

fn refused() -> Fate {
    Fate::Refused(Tracked::class(Class::Invalid))
}

fn arrival<'a>(key: &'a DatagramKey, fragment: &'a Fragment, now: Micros) -> Arrival<'a> {
    Arrival {
        key,
        fragment,
        prefix: key.src,
        max_end: u16::MAX,
        now,
        can_hold: false,
    }
}

fn join(datagrams: &Datagrams, key: &DatagramKey, fragment: Fragment, now: Micros) -> Joined {
    datagrams.join(&arrival(key, &fragment, now))
}

/// A fragment that may be held.
fn wait(datagrams: &Datagrams, key: &DatagramKey, offset: u16, now: Micros) -> Joined {
    let fragment = part(offset, 8, true);
    datagrams.join(&Arrival {
        can_hold: true,
        ..arrival(key, &fragment, now)
    })
}

fn held(joined: Joined) -> HoldId {
    match joined {
        Joined::Held(id, None) => id,
        other => panic!("{other:?}"),
    }
}

/// Opens a datagram with a first fragment of 8 bytes, and returns what it releases.
fn open(datagrams: &Datagrams, key: &DatagramKey, now: Micros, fate: Fate) -> Option<HoldId> {
    datagrams.open(key).unwrap();
    let released = datagrams.settle(&arrival(key, &part(0, 8, true), now), fate);
    datagrams.check_invariants().unwrap();
    released
}

/// Returns whether a datagram is known: a copy of its first fragment is then a duplicate.
fn is_there(datagrams: &Datagrams, key: &DatagramKey, now: Micros) -> bool {
    matches!(
        join(datagrams, key, part(0, 8, true), now),
        Joined::Drops(DropReason::FragmentDuplicate, _)
    )
}

fn reason(datagrams: &Datagrams, key: &DatagramKey, now: Micros) -> Option<DropReason> {
    match join(datagrams, key, part(8, 8, true), now) {
        Joined::Drops(reason, _) => Some(reason),
        _ => None,
    }
}

#[test]
fn an_expired_datagram_never_counts_against_the_bounds() {
    let datagrams = datagrams(4, 4);
    for id in 0..4 {
        open(&datagrams, &key(id), seconds(0), admitted());
    }
    open(&datagrams, &key(9), seconds(30), admitted());
    let gauges = datagrams.gauges();
    assert_eq!(
        (gauges.datagrams, gauges.given_up),
        (1, 0),
        "the others went"
    );
}

#[test]
fn a_source_at_its_bound_gives_up_its_own_oldest_datagram() {
    let datagrams = datagrams(16, 3);
    open(&datagrams, &from(2, 0), seconds(0), admitted());
    for id in 0..4 {
        open(&datagrams, &from(1, id), seconds(0), admitted());
    }
    assert_eq!(
        reason(&datagrams, &from(1, 0), seconds(0)),
        Some(DropReason::FragmentSourceLimit)
    );
    for other in [from(2, 0), from(1, 1), from(1, 2), from(1, 3)] {
        assert!(is_there(&datagrams, &other, seconds(0)), "{other}");
    }
    // Another zone is another source. A complete datagram frees its slot.
    open(&datagrams, &in_zone(5, 1, 3), seconds(0), admitted());
    let last = join(&datagrams, &from(1, 1), part(8, 3, false), seconds(1));
    assert!(matches!(
        last,
        Joined::Passes(LaterFragment { complete: true, .. })
    ));
    open(&datagrams, &from(1, 4), seconds(1), admitted());
    assert_eq!(datagrams.gauges().given_up, 1);
}

#[test]
fn sources_of_one_prefix_share_its_places() {
    let datagrams = datagrams(16, 3);
    for host in 0..4 {
        let key = from(host, 0);
        datagrams.open(&key).unwrap();
        let first = part(0, 8, true);
        let arrival = Arrival {
            prefix: 0xffff_0a00_0000,
            ..arrival(&key, &first, seconds(0))
        };
        datagrams.settle(&arrival, admitted());
    }
    assert_eq!(
        reason(&datagrams, &from(0, 0), seconds(0)),
        Some(DropReason::FragmentSourceLimit)
    );
    assert_eq!(datagrams.gauges().datagrams, 3);
}

#[test]
fn a_full_table_gives_up_the_oldest_datagram_of_the_source_that_has_most() {
    let datagrams = datagrams(8, 8);
    for (host, id) in [
        (2, 0),
        (1, 0),
        (1, 1),
        (3, 0),
        (1, 2),
        (1, 3),
        (3, 1),
        (4, 0),
    ] {
        open(&datagrams, &from(host, id), seconds(0), admitted());
    }
    open(&datagrams, &from(5, 0), seconds(0), admitted());
    assert_eq!(
        reason(&datagrams, &from(1, 0), seconds(0)),
        Some(DropReason::FragmentTableFull)
    );
    // The source with the most gives up a datagram for itself, and for a new source.
    for _ in 0..100 {
        open(&datagrams, &from(1, 100), seconds(0), admitted());
        let last = join(&datagrams, &from(1, 100), part(8, 3, false), seconds(0));
        assert!(matches!(last, Joined::Passes(_)));
        open(&datagrams, &from(1, 101), seconds(0), admitted());
        let last = join(&datagrams, &from(1, 101), part(8, 3, false), seconds(0));
        assert!(matches!(last, Joined::Passes(_)));
    }
    for (host, id) in [(2, 0), (3, 0), (3, 1), (4, 0), (5, 0)] {
        assert!(
            is_there(&datagrams, &from(host, id), seconds(0)),
            "{host} {id}"
        );
    }
}

#[test]
fn forged_sources_with_one_datagram_each_evict_each_other_first() {
    let datagrams = datagrams(64, 32);
    let flood = |hosts: std::ops::Range<u8>| {
        for host in hosts {
            open(&datagrams, &from(host, 0), seconds(0), admitted());
        }
    };
    let in_flight = || (0..4).all(|id| is_there(&datagrams, &from(1, id), seconds(0)));
    flood(10..74);
    for id in 0..4 {
        open(&datagrams, &from(1, id), seconds(0), admitted());
    }
    flood(100..150);
    assert!(in_flight(), "the oldest made room");
    // A heavy source gives up its own datagram.
    for id in 0..20 {
        open(&datagrams, &from(200, id), seconds(0), admitted());
    }
    assert!(in_flight());
    assert!(!is_there(&datagrams, &from(200, 0), seconds(0)));
}

#[test]
fn forged_fragments_leave_what_another_source_holds() {
    let datagrams = datagrams(64, 32);
    let flood = |hosts: std::ops::Range<u8>| {
        for host in hosts {
            let joined = wait(&datagrams, &from(host, 0), 8, seconds(0));
            assert!(matches!(joined, Joined::Held(..)), "{joined:?}");
        }
    };
    flood(10..74);
    for offset in [8, 16, 24, 32] {
        let joined = wait(&datagrams, &from(1, 0), offset, seconds(0));
        assert!(matches!(joined, Joined::Held(..)), "{joined:?}");
    }
    flood(100..150);
    assert!(open(&datagrams, &from(1, 0), seconds(0), admitted()).is_some());
}

#[test]
fn a_zone_within_its_equal_part_never_gives_a_place_to_another() {
    let datagrams = datagrams(16, 16);
    for id in 0..4 {
        open(&datagrams, &in_zone(2, 9, id), seconds(0), admitted());
    }
    for id in 0..1_000u32 {
        let host = (id % 200) as u8;
        open(&datagrams, &in_zone(1, host, id), seconds(0), admitted());
    }
    for id in 0..4 {
        assert!(is_there(&datagrams, &in_zone(2, 9, id), seconds(0)), "{id}");
    }
    // The source takes as many as the other has, and then gives up its own.
    for id in 4..20 {
        open(&datagrams, &in_zone(2, 9, id), seconds(0), admitted());
    }
    let of = |zone, hosts: u8, ids: u32| {
        (0..hosts)
            .flat_map(|host| (0..ids).map(move |id| in_zone(zone, host, id)))
            .filter(|key| is_there(&datagrams, key, seconds(0)))
            .count()
    };
    assert_eq!((of(2, 10, 20), of(1, 200, 1_000)), (8, 8));
}

#[test]
fn refused_datagrams_are_remembered_beside_the_others() {
    let datagrams = datagrams(16, 16);
    for id in 0..16 {
        open(&datagrams, &key(id), seconds(0), admitted());
    }
    for id in 100..200 {
        open(&datagrams, &key(id), seconds(0), refused());
    }
    for id in 0..16 {
        assert!(is_there(&datagrams, &key(id), seconds(0)), "{id}");
    }
    let remembered: Vec<u32> = (100..200)
        .filter(|id| {
            reason(&datagrams, &key(*id), seconds(0)) == Some(DropReason::FragmentOfDropped)
        })
        .collect();
    assert_eq!(
        remembered,
        [196, 197, 198, 199],
        "a quarter as many, the newest"
    );
}

#[test]
fn of_two_copies_of_a_first_fragment_on_two_threads_one_decides() {
    let datagrams = datagrams(4, 4);
    let first = part(0, 8, true);
    datagrams.open(&key(1)).unwrap();
    assert_eq!(datagrams.open(&key(1)), Err(DropReason::FragmentDuplicate));
    assert!(is_there(&datagrams, &key(1), seconds(0)));
    let last = part(8, 8, false);
    assert!(matches!(
        join(&datagrams, &key(1), last, seconds(0)),
        Joined::Unknown
    ));
    // A fragment that can be held waits for the decision.
    let id = held(wait(&datagrams, &key(1), 16, seconds(0)));
    assert_eq!(
        datagrams.settle(&arrival(&key(1), &first, seconds(0)), admitted()),
        Some(id)
    );
    assert!(matches!(
        join(&datagrams, &key(1), part(16, 8, false), seconds(0)),
        Joined::Passes(_)
    ));
    assert!(matches!(
        join(&datagrams, &key(1), part(8, 8, true), seconds(0)),
        Joined::Passes(_)
    ));
    assert_eq!(datagrams.gauges().datagrams, 0);
    datagrams.check_invariants().unwrap();
}

#[test]
fn fragments_wait_under_one_name_until_their_first_is_settled() {
    for fate in [admitted(), refused()] {
        let datagrams = datagrams(8, 8);
        let id = held(wait(&datagrams, &key(1), 16, seconds(0)));
        assert_eq!(held(wait(&datagrams, &key(1), 8, seconds(0))), id);
        let other = held(wait(&datagrams, &key(2), 8, seconds(0)));
        assert_ne!(id, other);
        assert!(datagrams.holds(id) && datagrams.holds(other));
        assert_eq!(datagrams.gauges().held, 3);
        assert_eq!(open(&datagrams, &key(1), seconds(0), fate), Some(id));
        assert!(!datagrams.holds(id) && datagrams.holds(other));
        assert_eq!(datagrams.gauges().held, 1);
    }
}

#[test]
fn nobody_waits_longer_than_a_second_and_time_needs_no_packet() {
    let datagrams = datagrams(8, 8);
    let id = held(wait(&datagrams, &key(1), 8, seconds(0)));
    datagrams.expire(Micros(999_999), 8);
    assert!(datagrams.holds(id));
    datagrams.expire(seconds(1), 8);
    assert!(!datagrams.holds(id));
    assert_eq!(datagrams.gauges().held, 0);
    // A fragment after the expiry begins a new hold with another identifier, whether or not the
    // expiry was noticed.
    let id = held(wait(&datagrams, &key(1), 8, seconds(1)));
    assert_ne!(held(wait(&datagrams, &key(1), 16, seconds(2))), id);
    assert_eq!(datagrams.gauges().held, 1);
}

#[test]
fn held_fragments_of_one_source_or_zone_take_no_room_of_others() {
    let datagrams = datagrams(16, 4);
    // A source at its bound gives up its own oldest datagram.
    let other = held(wait(&datagrams, &from(2, 0), 8, seconds(0)));
    let first = held(wait(&datagrams, &from(1, 0), 8, seconds(0)));
    for id in 1..4 {
        held(wait(&datagrams, &from(1, id), 8, seconds(0)));
    }
    let Joined::Held(_, evicted) = wait(&datagrams, &from(1, 4), 8, seconds(0)) else {
        panic!("not held");
    };
    assert_eq!(evicted, Some(first));
    assert!(datagrams.holds(other));
    // A datagram does not evict itself.
    for offset in 1..=3 {
        held(wait(&datagrams, &from(3, 0), 8 * offset, seconds(0)));
    }
    held(wait(&datagrams, &from(3, 0), 32, seconds(0)));
    assert!(matches!(
        wait(&datagrams, &from(3, 0), 40, seconds(0)),
        Joined::Unknown
    ));
    // A flood from many sources in one zone leaves another zone its share.
    let zoned: Vec<_> = (0..4)
        .map(
            |id| match wait(&datagrams, &in_zone(7, 1, id), 8, seconds(0)) {
                Joined::Held(id, _) => id,
                other => panic!("{other:?}"),
            },
        )
        .collect();
    for id in 0..1_000u32 {
        let joined = wait(
            &datagrams,
            &from((id % 250) as u8, 1_000 + id),
            8,
            seconds(0),
        );
        assert!(matches!(joined, Joined::Held(..)));
        datagrams.check_invariants().unwrap();
    }
    assert!(zoned.into_iter().all(|id| datagrams.holds(id)));
    assert_eq!(datagrams.gauges().held, 16);
}

#[test]
fn threads_that_share_the_table_leave_the_counts_right() {
    let datagrams = datagrams(64, 24);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let datagrams = &datagrams;
            scope.spawn(move || {
                for n in 0..20_000u32 {
                    let key = in_zone(
                        (n % 5) as u16,
                        (n % 3) as u8,
                        n.wrapping_mul(thread + 7) % 40,
                    );
                    let now = Micros(u64::from(n) * 10_000);
                    let fragment = part(8 * (n % 4) as u16, 8, n % 4 != 3);
                    let arrival = Arrival {
                        can_hold: n % 7 != 0,
                        ..arrival(&key, &fragment, now)
                    };
                    match datagrams.join(&arrival) {
                        Joined::Unknown | Joined::Expired
                            if fragment.offset == 0 && datagrams.open(&key).is_ok() =>
                        {
                            let fate = if n % 5 == 0 { refused() } else { admitted() };
                            datagrams.settle(&arrival, fate);
                        }
                        _ => {}
                    }
                    if n % 16 == 0 {
                        datagrams.expire(now, 4);
                    }
                }
            });
        }
    });
    datagrams.check_invariants().unwrap();
    datagrams.expire(seconds(10_000), 1_000);
    datagrams.check_invariants().unwrap();
    let gauges = datagrams.gauges();
    assert_eq!((gauges.datagrams, gauges.held), (0, 0));
}

proptest! {
    #[test]
    fn bounds_and_parts_hold_whatever_comes(
        steps in prop::collection::vec((0u16..3, 0u8..6, 0u32..8, 0u16..3, any::<bool>()), 0..300)
    ) {
        let datagrams = datagrams(12, 5);
        for (step, (zone, host, id, offset, good)) in steps.into_iter().enumerate() {
            let key = in_zone(zone, host, id);
            let now = Micros(step as u64 * 50_000);
            if offset > 0 {
                let _ = wait(&datagrams, &key, 8 * offset, now);
            } else if !matches!(join(&datagrams, &key, part(0, 8, true), now), Joined::Drops(..)) {
                open(&datagrams, &key, now, if good { admitted() } else { refused() });
                prop_assert_eq!(is_there(&datagrams, &key, now), good, "a new one always has a \
                    place");
            }
            datagrams.check_invariants().map_err(TestCaseError::fail)?;
            let gauges = datagrams.gauges();
            prop_assert!(gauges.datagrams <= 12 && gauges.held <= 12);
        }
    }
}

/// Reference model that stores each byte of a datagram that must have passed.
#[derive(Default)]
struct Model {
    bytes: Vec<bool>,
    end: Option<usize>,
    broken: bool,
}

proptest! {
    #[test]
    fn no_byte_passes_twice_and_a_datagram_is_forgotten_when_its_last_byte_has_passed(
        parts in prop::collection::vec((1u16..24, 1u16..4, prop::bool::weighted(0.85)), 1..40)
    ) {
        let datagrams = datagrams(4, 4);
        open(&datagrams, &key(1), seconds(0), admitted());
        let mut model = Model::default();
        model.bytes.resize(8, true);
        for (offset, len, more) in parts {
            let fragment = part(offset * 8, len * 8, more);
            let start = usize::from(fragment.offset);
            let end = usize::from(fragment.offset + fragment.payload_len);
            match join(&datagrams, &key(1), fragment, seconds(1)) {
                Joined::Passes(passed) => {
                    prop_assert!(!model.broken);
                    if model.bytes.len() < end {
                        model.bytes.resize(end, false);
                    }
                    prop_assert!(model.bytes[start..end].iter().all(|passed| !passed));
                    model.bytes[start..end].fill(true);
                    if !more {
                        prop_assert_eq!(model.end.replace(end), None);
                    }
                    if let Some(end) = model.end {
                        prop_assert!(model.bytes.len() <= end, "nothing lies behind the end");
                    }
                    let complete = model.end.is_some() && model.bytes.iter().all(|passed| *passed);
                    prop_assert_eq!(passed.complete, complete);
                    prop_assert_eq!(datagrams.gauges().datagrams, usize::from(!complete));
                    if complete {
                        break;
                    }
                }
                Joined::Drops(DropReason::FragmentDuplicate, _) => {
                    prop_assert!(model.bytes[start..end].iter().all(|passed| *passed));
                }
                Joined::Drops(DropReason::FragmentOfDropped, _) => prop_assert!(model.broken),
                Joined::Drops(_, _) => model.broken = true,
                Joined::Unknown | Joined::Expired | Joined::Held(..) => {
                    prop_assert!(false, "it was opened and is not complete")
                }
            }
            datagrams.check_invariants().unwrap();
        }
    }
}
