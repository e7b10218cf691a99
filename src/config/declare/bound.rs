//! Bounds of values.
use std::ops::RangeInclusive;
use std::time::Duration;

use super::notation::duration;

/// A type of values that bounds compare.
pub trait Bound: PartialOrd + Clone {
    /// Zero, as messages show it.
    const ZERO: &'static str = "0";

    /// Returns the value as messages show it.
    fn show(&self) -> String;

    /// Returns whether this is zero.
    fn is_zero(&self) -> bool {
        false
    }

    /// Returns whether this is the largest value of the type.
    fn is_largest(&self) -> bool {
        false
    }
}

/// Returns bounds in words.
pub(super) fn range_text<B: Bound>(range: &RangeInclusive<B>) -> String {
    let (low, high) = (range.start(), range.end());
    if high.is_largest() {
        format!("at least {}", low.show())
    } else {
        format!("{} to {}", low.show(), high.show())
    }
}

impl Bound for () {
    fn show(&self) -> String {
        String::new()
    }
}

impl Bound for Duration {
    const ZERO: &'static str = "0s";

    fn show(&self) -> String {
        duration(*self)
    }

    fn is_zero(&self) -> bool {
        self.is_zero()
    }
}
