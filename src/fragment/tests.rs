//! The table of datagrams by itself: its bounds, its times, its counts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::FragmentsConfig;
use crate::session::Micros;
use crate::verdict::{Class, DropReason, Tracked};

/// A datagram from 10.0.0.1, told apart by `id`.
pub(super) fn key(id: u32) -> DatagramKey {
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
        lifetime: Duration::from_secs(30),
    };
    Datagrams::new(&config, [1, 2, 3, 4])
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

/// Opens a datagram with a first fragment of 8 bytes.
fn open(datagrams: &Datagrams, key: &DatagramKey, now: Micros, fate: Fate) -> Result<(), DropReason> {
    let ticket = datagrams.open(key, &part(0, 8, true), u16::MAX, now)?;
    datagrams.settle(key, ticket, fate);
    Ok(())
}

#[test]
fn an_expired_datagram_never_counts_against_the_bounds() {
    let datagrams = datagrams(4, 4);
    for id in 0..4 {
        open(&datagrams, &key(id), seconds(0), admitted()).unwrap();
    }
    let full = open(&datagrams, &key(9), seconds(29), admitted());
    assert_eq!(full, Err(DropReason::FragmentTableFull));
    assert_eq!(open(&datagrams, &key(9), seconds(30), admitted()), Ok(()));
    assert_eq!(datagrams.len(), 1, "the others went to make room");
    datagrams.check_invariants().unwrap();
}

#[test]
fn a_source_has_its_share_and_no_more() {
    let datagrams = datagrams(16, 3);
    for id in 0..3 {
        open(&datagrams, &from(1, id), seconds(0), admitted()).unwrap();
    }
    let fourth = open(&datagrams, &from(1, 3), seconds(0), admitted());
    assert_eq!(fourth, Err(DropReason::FragmentSourceLimit));
    assert_eq!(open(&datagrams, &from(2, 3), seconds(0), admitted()), Ok(()));
    let zone = DatagramKey {
        zone: 5,
        ..from(1, 3)
    };
    assert_eq!(
        open(&datagrams, &zone, seconds(0), admitted()),
        Ok(()),
        "another zone"
    );
    // A datagram that is complete gives its room back.
    let last = datagrams.join(&from(1, 0), &part(8, 3, false), seconds(1));
    assert!(matches!(last, Joined::Passes(Part { complete: true, .. })));
    assert_eq!(open(&datagrams, &from(1, 3), seconds(1), admitted()), Ok(()));
    datagrams.check_invariants().unwrap();
}

#[test]
fn refused_datagrams_take_a_quarter_of_the_room_at_most() {
    let datagrams = datagrams(16, 16);
    for id in 0..100 {
        open(&datagrams, &key(id), seconds(0), refused()).unwrap();
        datagrams.check_invariants().unwrap();
    }
    assert_eq!(datagrams.len(), 4);
    let join = |id| datagrams.join(&key(id), &part(8, 8, true), seconds(0));
    assert!(matches!(
        join(3),
        Joined::Drops(DropReason::FragmentOfDropped, Some(_))
    ));
    assert!(matches!(join(4), Joined::Unknown));
    for id in 200..212 {
        assert_eq!(open(&datagrams, &key(id), seconds(0), admitted()), Ok(()));
    }
}

#[test]
fn of_two_copies_of_a_first_fragment_on_two_threads_one_decides() {
    let datagrams = datagrams(4, 4);
    let first = part(0, 8, true);
    let ticket = datagrams.open(&key(1), &first, u16::MAX, seconds(0)).unwrap();
    let second = datagrams.open(&key(1), &first, u16::MAX, seconds(0));
    assert_eq!(second.err(), Some(DropReason::FragmentDuplicate));
    let join = |fragment| datagrams.join(&key(1), &fragment, seconds(0));
    assert!(matches!(
        join(first),
        Joined::Drops(DropReason::FragmentDuplicate, None)
    ));
    let later = join(part(8, 8, false));
    assert!(
        matches!(later, Joined::Drops(DropReason::FragmentBeforeFirst, None)),
        "nothing is decided yet"
    );
    datagrams.settle(&key(1), ticket, admitted());
    assert!(matches!(join(part(8, 8, false)), Joined::Passes(_)));
    assert_eq!(datagrams.len(), 0);
    datagrams.check_invariants().unwrap();
}

#[test]
fn threads_that_share_the_table_leave_the_counts_right() {
    let datagrams = datagrams(64, 24);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let datagrams = &datagrams;
            scope.spawn(move || {
                for n in 0..20_000u32 {
                    let key = from((n % 3) as u8, n.wrapping_mul(thread + 7) % 40);
                    let now = Micros(u64::from(n) * 10_000);
                    let fragment = part(8 * (n % 4) as u16, 8, n % 4 != 3);
                    match datagrams.join(&key, &fragment, now) {
                        Joined::Unknown | Joined::Expired if fragment.offset == 0 => {
                            if let Ok(ticket) = datagrams.open(&key, &fragment, u16::MAX, now) {
                                let fate = if n % 5 == 0 { refused() } else { admitted() };
                                datagrams.settle(&key, ticket, fate);
                            }
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
    assert_eq!(datagrams.len(), 0);
    datagrams.check_invariants().unwrap();
}

/// What a datagram must have let through: a reference that keeps each byte.
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
        open(&datagrams, &key(1), seconds(0), admitted()).unwrap();
        let mut model = Model::default();
        model.bytes.resize(8, true);
        for (offset, len, more) in parts {
            let fragment = part(offset * 8, len * 8, more);
            let (start, end) = (usize::from(fragment.offset), usize::from(fragment.offset + fragment.payload_len));
            match datagrams.join(&key(1), &fragment, seconds(1)) {
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
                    prop_assert_eq!(datagrams.len(), usize::from(!complete));
                    if complete {
                        break;
                    }
                }
                Joined::Drops(DropReason::FragmentDuplicate, _) => {
                    prop_assert!(model.bytes[start..end].iter().all(|passed| *passed));
                }
                Joined::Drops(DropReason::FragmentOfDropped, _) => prop_assert!(model.broken),
                Joined::Drops(_, _) => model.broken = true,
                Joined::Unknown | Joined::Expired => prop_assert!(false, "it was opened and is not complete"),
            }
            datagrams.check_invariants().unwrap();
        }
    }
}
