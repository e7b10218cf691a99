//! The boundary that no panic crosses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::status::{Outcome, Status};

/// Whether an engine has met a defect. It is shared by everything that was made from the engine.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicBool);

impl Health {
    /// Returns an error after a panic: the panic may have left a change half done.
    pub(crate) fn check(&self) -> Outcome {
        match self.0.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Status::Panic),
        }
    }
}

/// Makes a call that concerns no engine. A panic becomes [`Status::Panic`].
pub(crate) fn guard(call: impl FnOnce() -> Outcome) -> Status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome.into(),
        Err(payload) => {
            // The payload may panic again when it is dropped.
            std::mem::forget(payload);
            Status::Panic
        }
    }
}

/// Makes a call of an engine that is whole. A panic becomes [`Status::Panic`], now and from now on:
/// the call may have left a change half done, so nothing reads it again.
pub(crate) fn guard_engine(health: &Health, call: impl FnOnce() -> Outcome) -> Status {
    if let Err(broken) = health.check() {
        return broken;
    }
    let mut panics = true;
    let status = guard(|| {
        let outcome = call();
        panics = false;
        outcome
    });
    if panics {
        health.0.store(true, Ordering::Relaxed);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status_and_ends_the_engine() {
        let health = Health::default();
        assert_eq!(guard_engine(&health, || Err(Status::Busy)), Status::Busy);
        assert_eq!(guard_engine(&health, || Ok(())), Status::Ok);
        let panics = || panic!("a test panics on purpose");
        assert_eq!(guard_engine(&health, panics), Status::Panic);
        let mut called = false;
        let again = guard_engine(&health, || {
            called = true;
            Ok(())
        });
        assert_eq!((again, called), (Status::Panic, false));
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_does_not_cross() {
        struct Again;
        impl Drop for Again {
            fn drop(&mut self) {
                panic!("a payload panics on purpose");
            }
        }
        let call = || -> Outcome { std::panic::panic_any(Again) };
        assert_eq!(guard(call), Status::Panic);
    }
}
