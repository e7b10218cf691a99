//! Pauses between attempts to connect to the store.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double, with a random part, so that appliances do not connect in step.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// State of a generator of random numbers (xorshift).
    state: u64,
}

impl Backoff {
    /// Returns a backoff with a seed of its own.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            next: FIRST,
            state: seed | 1,
        }
    }

    /// Begins again with the shortest pause.
    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Returns the next pause: between half of the bound and the bound.
    pub(super) fn pause(&mut self) -> Duration {
        let bound = self.next;
        self.next = bound.saturating_mul(2).min(LONGEST);
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let half = bound / 2;
        half + half.mul_f64((self.state >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::new(5);
        let mut bound = FIRST;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(
                (bound / 2..=bound).contains(&pause),
                "{pause:?} of {bound:?}"
            );
            bound = (2 * bound).min(LONGEST);
        }
        assert_eq!(bound, LONGEST);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn two_seeds_pause_differently() {
        assert_ne!(Backoff::new(3).pause(), Backoff::new(1 << 40).pause());
    }
}
