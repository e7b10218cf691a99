//! Shared parts of the integration tests: packets, a reference model, the bodies of the fuzz
//! targets.

// Each test crate uses its part of this.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::cell::RefCell;

use proptest::strategy::Strategy;

pub(crate) mod front;
pub(crate) mod fuzz;
pub(crate) mod model;
pub(crate) mod ops;
pub(crate) mod packets;
pub(crate) mod scene;
pub(crate) mod seal;
pub(crate) mod tunnel;

/// Runs random values that are the same each time, and returns what each run counts.
pub(crate) fn tallies<S: Strategy, T>(values: &S, run: impl Fn(S::Value) -> T) -> Vec<T> {
    let tallies = RefCell::new(Vec::new());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(values, |value| {
            tallies.borrow_mut().push(run(value));
            Ok(())
        })
        .unwrap();
    tallies.into_inner()
}

/// Property tests without a file of regressions: what one finds becomes a test with a name.
pub(crate) fn proptest_config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
