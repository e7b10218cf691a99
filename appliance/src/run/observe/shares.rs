//! Shares of a budget: one class cannot use it up.

use super::kind::Class;

/// Budget of a period, divided by need: a class may use as much as is left for all others.
///
/// The first class that floods gets half of the budget, the second a quarter, and so on. A class
/// that has used nothing gets its first event unless log2(budget) others flood.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    budget: u32,
    total: u32,
    used: [u32; Class::COUNT],
}

impl Shares {
    /// Returns the shares of a budget of which nothing is used.
    pub(crate) const fn new(budget: u32) -> Self {
        Self {
            budget,
            total: 0,
            used: [0; Class::COUNT],
        }
    }

    /// Returns the budget.
    pub(crate) const fn budget(&self) -> u32 {
        self.budget
    }

    /// Begins a new period.
    pub(crate) fn renew(&mut self) {
        if self.total > 0 {
            self.total = 0;
            self.used.fill(0);
        }
    }

    /// Takes a part of a class's share. Returns whether there was one.
    #[inline]
    pub(crate) fn take(&mut self, class: Class) -> bool {
        let left = self.budget.saturating_sub(self.total);
        match self.used.get_mut(class.index()) {
            Some(used) if *used < left => {
                *used += 1;
                self.total += 1;
                true
            }
            _ => false,
        }
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
