//! Shared parts of the integration tests: packets, a reference model, the bodies of the fuzz
//! targets.

// Each test crate uses only some of these items.

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
pub(crate) mod short_way;
pub(crate) mod site;
pub(crate) mod tunnel;

/// Runs random values that are identical in every execution, and returns the results of all runs.
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

/// Returns the configuration of property tests without a file of regressions: a failure that they
/// find becomes a named test.
pub(crate) fn proptest_config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
