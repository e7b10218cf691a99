//! Shares of a budget: one class cannot use it up.

use super::kind::Class;

/// Budget of a period, divided by need: a class may use as much as is left for all others.
///
/// The first class that floods gets half of the budget, the second a quarter, and so on. A class
/// that has used nothing gets its first event unless more than log2(budget) others flood; always,
/// if the shares are [reserving](Self::reserving).
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    budget: u32,
    /// Events of each class outside the budget.
    reserve: u32,
    /// Events of the budget that are used.
    total: u32,
    is_used: bool,
    used: [u32; Class::COUNT],
}

impl Shares {
    /// Returns the shares of a budget of which nothing is used.
    pub(crate) const fn new(budget: u32) -> Self {
        Self {
            budget,
            reserve: 0,
            total: 0,
            is_used: false,
            used: [0; Class::COUNT],
        }
    }

    /// Returns the shares of a budget, of which nothing is used, and of one event more of each
    /// class.
    pub(crate) const fn reserving(budget: u32) -> Self {
        Self {
            reserve: 1,
            ..Self::new(budget)
        }
    }

    /// Returns the budget.
    pub(crate) const fn budget(&self) -> u32 {
        self.budget
    }

    /// Begins a new period.
    pub(crate) fn renew(&mut self) {
        if self.is_used {
            self.is_used = false;
            self.total = 0;
            self.used.fill(0);
        }
    }

    /// Takes a part of a class's share. Returns whether there was one.
    #[inline]
    pub(crate) fn take(&mut self, class: Class) -> bool {
        let left = self.budget.saturating_sub(self.total);
        let Some(used) = self.used.get_mut(class.index()) else {
            return false;
        };
        let is_reserved = *used < self.reserve;
        let is_taken = is_reserved || used.saturating_sub(self.reserve) < left;
        if is_taken {
            *used += 1;
            self.total += u32::from(!is_reserved);
            self.is_used = true;
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use portcullis::DropReason;
    use proptest::prelude::*;

    use super::*;

    fn class(number: usize) -> Class {
        Class::of_reason(DropReason::TRACKING[number])
    }

    #[test]
    fn a_flood_gets_half_and_the_next_one_a_quarter() {
        let mut shares = Shares::new(64);
        let mut got = [0; 3];
        for (number, got) in got.iter_mut().enumerate() {
            *got = (0..1000).filter(|_| shares.take(class(number))).count();
        }
        assert_eq!(got, [32, 16, 8]);
        shares.renew();
        assert_eq!((0..1000).filter(|_| shares.take(class(0))).count(), 32);
    }

    #[test]
    fn a_reserve_leaves_the_first_event_of_each_class_under_any_number_of_floods() {
        let mut shares = Shares::reserving(4);
        for _ in 0..2 {
            let mut got = [0; 20];
            for (number, got) in got.iter_mut().enumerate() {
                *got = (0..1000).filter(|_| shares.take(class(number))).count();
            }
            assert_eq!(got[..4], [3, 2, 2, 1]);
            assert_eq!(got[4..], [1; 16]);
            shares.renew();
        }
        let mut one = Shares::reserving(1);
        assert_eq!((0..9).filter(|_| one.take(class(0))).count(), 2);
    }

    proptest! {
        #[test]
        fn floods_never_use_the_share_of_a_rare_reason(
            budget in 2u32..5000,
            flooding in prop::collection::vec(0usize..40, 1..2000),
            classes in 1usize..8,
        ) {
            let mut shares = Shares::new(budget);
            let classes = classes.min(budget.ilog2() as usize).max(1);
            let mut taken = 0;
            for number in flooding {
                taken += u32::from(shares.take(class(number % classes)));
            }
            prop_assert!(taken <= budget);
            prop_assert!(taken < budget, "something is left for another class");
            prop_assert!(shares.take(class(50)), "a class that has used nothing");
        }
    }
}
