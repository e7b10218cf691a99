//! Tries the interleavings of the library's lock-free parts: every one with up to [`PREEMPTIONS`]
//! preemptions of a thread.
//!
//! The parts are the library's own sources. Run it with
//! `cargo run --release --locked --manifest-path tests/loom/Cargo.toml`.

use std::process::ExitCode;
use std::sync::Arc as Counted;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};
use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::thread;

#[allow(dead_code, reason = "the library uses more of it than the models")]
mod around;
#[allow(dead_code, reason = "the library uses more of it than the models")]
#[path = "../../../src/limits/accounts.rs"]
#[rustfmt::skip]
mod accounts;
#[allow(dead_code, reason = "the library uses more of it than the models")]
#[path = "../../../src/limits/standing.rs"]
#[rustfmt::skip]
mod standing;
#[allow(dead_code, reason = "the library uses more of it than the models")]
#[path = "../../../src/limits/tally.rs"]
#[rustfmt::skip]
mod tally;
#[allow(dead_code, reason = "the library uses more of it than the models")]
#[path = "../../../src/engine/rate.rs"]
#[rustfmt::skip]
mod rate;
#[allow(dead_code, reason = "the library uses more of it than the models")]
#[path = "../../../src/limits/share.rs"]
#[rustfmt::skip]
mod share;
#[path = "../../../src/stripe/owners.rs"]
#[rustfmt::skip]
mod owners;

use accounts::{Accounts, Departures};
use around::limits::Limits;
use around::{
    admission, atomic, by_zone, counted, flow, packet, policy, prefix, reserve, session, track,
};
use flow::Zone;
use loom::sync::atomic::{AtomicU64, AtomicUsize};
use owners::Owners;
use rate::Rate;
use session::Micros;
use share::{Drawn, ZoneShares};
use tally::Tally;

const PREEMPTIONS: usize = 3;
/// A model that takes longer fails, because it would omit interleavings.
const MOST: Duration = Duration::from_secs(60);

const BLUE: Zone = Zone(1);
const GREEN: Zone = Zone(2);

/// Runs `first` and `second` concurrently, and waits for both.
fn beside(first: impl FnOnce() + 'static, second: impl FnOnce() + 'static) {
    let other = thread::spawn(second);
    first();
    other.join().unwrap();
}

/// Two concurrent zones get their guarantees, and leave exact sums.
fn shares_are_exact() {
    let shares = Arc::new(ZoneShares::new(4, [BLUE, GREEN]));
    let user = |zone| {
        let shares = Arc::clone(&shares);
        move || {
            assert!(shares.claim(zone), "refused what is guaranteed");
            let more = (0..3).filter(|_| shares.claim(zone)).count();
            assert!(more <= 2, "the other zone's guarantee is taken");
            assert!(shares.used() <= 4);
            for _ in 0..=more {
                shares.release(zone);
            }
        }
    };
    beside(user(BLUE), user(GREEN));
    shares_are_free(&shares, 4);
}

/// A source that draws from the common part beside its zone.
fn shares_of_sources_are_exact() {
    let shares = Arc::new(ZoneShares::new(8, [BLUE, GREEN]));
    let source = |held: u32| {
        let shares = Arc::clone(&shares);
        move || {
            let drawn: Vec<Option<Drawn>> = (held..held + 2)
                .map(|held| shares.claim_for_source(BLUE, 1, held))
                .collect();
            for drawn in drawn.into_iter().flatten() {
                shares.release_drawn(BLUE, 1, drawn);
            }
        }
    };
    beside(source(0), source(1));
    shares_are_free(&shares, 8);
}

/// Zones are added and removed while slots are taken and returned.
fn shares_outlive_a_reload() {
    let shares = Arc::new(ZoneShares::new(4, [BLUE, GREEN]));
    let reloaded = Arc::clone(&shares);
    let used = Arc::clone(&shares);
    beside(
        move || {
            reloaded.set(2, [BLUE]);
            reloaded.set(4, [Zone(0), GREEN]);
        },
        move || {
            let claimed = (0..3).filter(|_| used.claim(BLUE)).count();
            for _ in 0..claimed {
                used.release(BLUE);
            }
        },
    );
    shares.set(4, [BLUE, GREEN]);
    shares_are_free(&shares, 4);
}

/// All slots are free: each zone can take three of four, and no more.
fn shares_are_free(shares: &ZoneShares, max: usize) {
    assert_eq!(shares.used(), 0);
    for zone in [BLUE, GREEN] {
        let claimed = (0..=max).filter(|_| shares.claim(zone)).count();
        assert_eq!(claimed, max - max / 4, "places are lost or made");
        for _ in 0..claimed {
            shares.release(zone);
        }
    }
}

fn accounts(max: usize) -> Arc<Accounts> {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let accounts = Accounts::new(max, prefix::Prefixes, hasher).unwrap();
    accounts.guarantee(&[BLUE, GREEN], &Limits);
    Arc::new(accounts)
}

fn accounts_are_free(accounts: &Accounts, max: usize) {
    assert_eq!(accounts.len(), 0);
    accounts.check_invariants(&Tally::default()).unwrap();
    accounts.guarantee(&[BLUE, GREEN], &Limits);
    let claimed = (0..=max).filter(|_| accounts.claim(BLUE)).count();
    assert_eq!(claimed, max - max / 4);
}

/// Two concurrent zones get their guarantees, and leave exact sums.
fn accounts_are_exact() {
    let accounts = accounts(4);
    let user = |zone| {
        let accounts = Arc::clone(&accounts);
        move || {
            assert!(accounts.claim(zone), "refused what is guaranteed");
            let more = (0..3).filter(|_| accounts.claim(zone)).count();
            assert!(more <= 2, "the other zone's guarantee is taken");
            assert!(accounts.len() <= 4);
            for _ in 0..=more {
                accounts.release(zone);
            }
        }
    };
    beside(user(BLUE), user(GREEN));
    accounts_are_free(&accounts, 4);
}

/// An eviction hands a slot to another zone while that zone's own sessions begin and end.
fn a_place_that_changes_hands_stays_one() {
    let accounts = accounts(4);
    assert!((0..3).all(|_| accounts.claim(GREEN)));
    let (evicted, own) = (Arc::clone(&accounts), Arc::clone(&accounts));
    beside(
        move || {
            let blue =
                usize::from(evicted.claim(BLUE)) + usize::from(evicted.hand_over(GREEN, BLUE));
            for _ in 0..blue {
                evicted.release(BLUE);
            }
        },
        move || {
            own.release(GREEN);
            if own.claim(GREEN) {
                own.release(GREEN);
            }
        },
    );
    while accounts.zone(GREEN).sessions() > 0 {
        accounts.release(GREEN);
    }
    accounts_are_free(&accounts, 4);
}

/// Two threads compete for the last guaranteed place of a zone in a full table. The loser is not
/// counted meanwhile: a third zone gets what it is guaranteed.
fn a_place_that_is_lost_takes_no_other() {
    let accounts = accounts(6);
    accounts.guarantee(&[Zone(0), BLUE, GREEN], &Limits);
    let green = (0..6).filter(|_| accounts.claim(GREEN)).count();
    assert_eq!(green, 4, "one place of each other zone is guaranteed");
    let (one, two) = (Arc::clone(&accounts), Arc::clone(&accounts));
    let claimed = Counted::new(Count::new(0));
    let counted = Counted::clone(&claimed);
    beside(
        move || {
            counted.fetch_add(usize::from(one.claim(BLUE)), Relaxed);
        },
        move || {
            let blue = two.claim(BLUE);
            assert!(two.claim(Zone(0)), "refused what is guaranteed");
            two.release(Zone(0));
            if blue {
                two.release(BLUE);
            }
        },
    );
    for _ in 0..claimed.load(Relaxed) {
        accounts.release(BLUE);
    }
    for _ in 0..green {
        accounts.release(GREEN);
    }
    accounts_are_free(&accounts, 6);
}

/// New guarantees while sessions begin and end.
fn accounts_outlive_a_reload() {
    let accounts = accounts(4);
    let (reloaded, used) = (Arc::clone(&accounts), Arc::clone(&accounts));
    beside(
        move || {
            reloaded.guarantee(&[], &Limits);
            reloaded.guarantee(&[Zone(0), GREEN], &Limits);
        },
        move || {
            let claimed = (0..3).filter(|_| used.claim(BLUE)).count();
            for _ in 0..claimed {
                used.release(BLUE);
            }
        },
    );
    accounts_are_free(&accounts, 4);
}

/// Taking and giving back leaves the original amount.
fn a_rate_is_exact() {
    const PER_SECOND: u32 = 3;
    let now = Micros(3_600_000_000);
    let rate = Arc::new(Rate::default());
    let taken = Counted::new(Count::new(0));
    let taker = |gives_back: bool| {
        let (rate, taken) = (Arc::clone(&rate), Counted::clone(&taken));
        move || {
            for _ in 0..2 {
                if !rate.take(now, PER_SECOND) {
                    continue;
                }
                if gives_back {
                    rate.put_back(PER_SECOND);
                } else {
                    taken.fetch_add(1, Relaxed);
                }
            }
        }
    };
    beside(taker(true), taker(false));
    let left = (0..10).filter(|_| rate.take(now, PER_SECOND)).count();
    assert_eq!(taken.load(Relaxed) + left, PER_SECOND as usize);
}

/// Sessions that end together leave the sums that they would leave one by one, while others begin.
fn departures_together_are_exact() {
    let accounts = accounts(4);
    let standing = standing::Standing {
        half_open: true,
        assured: false,
    };
    let rule = policy::RuleId::DEFAULT;
    let begin = move |accounts: &Accounts, zone| {
        let begun = accounts.claim(zone);
        if begun {
            accounts.begins(zone, standing);
            accounts.rule(rule).fetch_add(1, Relaxed);
        }
        begun
    };
    assert!((0..2).all(|_| begin(&accounts, GREEN)));
    let (ends, begins) = (Arc::clone(&accounts), Arc::clone(&accounts));
    beside(
        move || {
            let mut departures = Departures::default();
            for _ in 0..2 {
                departures.add(&ends, GREEN, rule, standing);
            }
            ends.depart(&mut departures);
        },
        move || {
            let begun = (0..2).filter(|_| begin(&begins, BLUE)).count();
            assert!(begun >= 1, "refused what is guaranteed");
            let mut departures = Departures::default();
            for _ in 0..begun {
                departures.add(&begins, BLUE, rule, standing);
            }
            begins.depart(&mut departures);
        },
    );
    accounts_are_free(&accounts, 4);
}

/// Stripes of which one thread owns the first, and others share the second.
struct Striped {
    owners: Owners<1, 1>,
    counters: [AtomicU64; 2],
}

impl Striped {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            owners: Owners {
                taken: AtomicU64::new(0),
                next: AtomicUsize::new(0),
            },
            counters: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    /// Counts twice, as a thread that ends afterwards.
    fn count(&self) {
        let number = self.owners.take();
        for _ in 0..2 {
            Owners::<1, 1>::add(number, &self.counters[number], 1);
        }
        self.owners.give_back(number);
    }

    fn sum(&self) -> u64 {
        self.counters.iter().map(|each| each.load(Relaxed)).sum()
    }
}

/// A stripe passes from a thread that ends to another one, or they count in different ones: no
/// count is lost.
fn a_stripe_changes_hands_with_its_counts() {
    let striped = Striped::new();
    let thread = || {
        let striped = Arc::clone(&striped);
        move || striped.count()
    };
    let third = thread::spawn(thread());
    beside(thread(), thread());
    third.join().unwrap();
    assert_eq!(striped.sum(), 6);
    assert_eq!(striped.owners.take(), 0, "a thread that has ended owns it");
}

/// Two live threads never own one stripe.
fn a_stripe_has_one_owner() {
    let striped = Striped::new();
    let owned = Counted::new(Count::new(0));
    let thread = || {
        let (striped, owned) = (Arc::clone(&striped), Counted::clone(&owned));
        move || {
            if striped.owners.take() == 0 {
                owned.fetch_add(1, Relaxed);
            }
        }
    };
    beside(thread(), thread());
    assert_eq!(owned.load(Relaxed), 1);
}

fn main() -> ExitCode {
    let models: [(&str, fn()); 11] = [
        ("shares are exact", shares_are_exact),
        ("shares of sources are exact", shares_of_sources_are_exact),
        ("shares outlive a reload", shares_outlive_a_reload),
        ("accounts are exact", accounts_are_exact),
        (
            "a place that changes hands stays one",
            a_place_that_changes_hands_stays_one,
        ),
        (
            "a place that is lost takes no other",
            a_place_that_is_lost_takes_no_other,
        ),
        ("accounts outlive a reload", accounts_outlive_a_reload),
        ("a rate is exact", a_rate_is_exact),
        (
            "departures together are exact",
            departures_together_are_exact,
        ),
        (
            "a stripe changes hands with its counts",
            a_stripe_changes_hands_with_its_counts,
        ),
        ("a stripe has one owner", a_stripe_has_one_owner),
    ];
    let mut outcome = ExitCode::SUCCESS;
    for (name, model) in models {
        let mut checker = loom::model::Builder::new();
        checker.preemption_bound = Some(PREEMPTIONS);
        checker.max_duration = Some(MOST);
        let tried = Counted::new(Count::new(0));
        let count = Counted::clone(&tried);
        let start = Instant::now();
        checker.check(move || {
            count.fetch_add(1, Relaxed);
            model();
        });
        let (tried, took) = (tried.load(Relaxed), start.elapsed());
        println!(
            "{name}: {tried} interleavings in {:.1} s",
            took.as_secs_f64()
        );
        if took >= MOST {
            eprintln!("{name}: not all interleavings were tried");
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}
