//! The lock of a shard, which a walk hands over to a packet that waits for it.
//!
//! A walk takes the lock again as soon as it has released it. Another thread, which tests the lock
//! from time to time, then finds it taken again, and is parked. To park and wake a thread takes 25
//! to 50 microseconds on a virtual machine, many times as long as a slice. So threads that test the
//! lock are counted, for a while, before they are parked. A walk gives them time to take the lock.

use std::hint;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Rounds in which a waiting thread is not counted: about a microsecond. A packet holds the lock
/// for a shorter time.
const SHORT: u32 = 5;

/// Rounds after which a waiting thread is parked: about 25 microseconds where a pause of the
/// processor takes 24 ns, as on the machine that it was measured on. That is longer than a slice.
const LONG: u32 = 35;

/// Number of times that [`ShardLock::hand_over`] tests whether the waiting threads have had the
/// lock: a few microseconds. A single thread that needs longer is not running.
const TESTS: u32 = 100;

/// Lock of a shard.
#[derive(Debug)]
pub(super) struct ShardLock<T> {
    content: Mutex<T>,
    /// Number of threads that test the lock. It only decides whether a walk waits for them.
    waiting: AtomicU32,
}

impl<T> ShardLock<T> {
    pub(super) const fn new(content: T) -> Self {
        Self {
            content: Mutex::new(content),
            waiting: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        match self.content.try_lock() {
            Some(held) => held,
            None => self.wait(),
        }
    }

    /// Takes the lock, which another thread holds.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> MutexGuard<'_, T> {
        if let Some(held) = self.spin(0..SHORT) {
            return held;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let held = self.spin(SHORT..LONG);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        held.unwrap_or_else(|| self.content.lock())
    }

    /// Tests the lock once a round, and takes it when it is free. The first rounds are shorter than
    /// the later ones.
    fn spin(&self, mut rounds: Range<u32>) -> Option<MutexGuard<'_, T>> {
        rounds.find_map(|round| {
            for _ in 0..1 << round.min(SHORT) {
                hint::spin_loop();
            }
            // A test slows down the holder less than a failed attempt to take the lock.
            let is_free = !self.content.is_locked();
            is_free.then(|| self.content.try_lock()).flatten()
        })
    }

    /// Releases the lock, and gives the threads that wait for it a few microseconds to take it.
    /// Returns whether none is left; the others may need this processor. `held` is a guard of this
    /// lock.
    pub(super) fn hand_over(&self, held: MutexGuard<'_, T>) -> bool {
        debug_assert!(
            std::ptr::eq(MutexGuard::mutex(&held), &raw const self.content),
            "the guard is of this lock"
        );
        // A parked thread gets the lock at once.
        MutexGuard::unlock_fair(held);
        self.waiting.load(Ordering::Relaxed) == 0 || self.make_way(TESTS)
    }

    /// Waits until no other thread tests the lock. Returns whether that came about within a number
    /// of tests.
    #[cold]
    fn make_way(&self, tests: u32) -> bool {
        (0..tests).any(|_| {
            hint::spin_loop();
            self.waiting.load(Ordering::Relaxed) == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn threads_that_wait_take_turns_with_one_that_hands_over() {
        const TURNS: u64 = 20_000;
        let lock = ShardLock::new(0_u64);
        thread::scope(|scope| {
            for hands_over in [true, true, false, false] {
                let lock = &lock;
                scope.spawn(move || {
                    for _ in 0..TURNS {
                        let mut held = lock.lock();
                        *held += 1;
                        if hands_over {
                            lock.hand_over(held);
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 4 * TURNS);
        assert_eq!(lock.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_gets_the_lock_from_one_that_holds_it_again_and_again() {
        let lock = ShardLock::new(false);
        thread::scope(|scope| {
            scope.spawn(|| *lock.lock() = true);
            loop {
                let held = lock.lock();
                if *held {
                    break;
                }
                lock.hand_over(held);
            }
        });
    }

    #[test]
    fn a_lock_that_stays_taken_is_not_tested_for_ever() {
        let lock = ShardLock::new(());
        let held = lock.lock();
        assert!(lock.spin(0..LONG).is_none());
        drop(held);
        assert!(lock.spin(0..1).is_some());
    }

    #[test]
    fn the_thread_that_hands_over_waits_for_those_that_are_counted() {
        let lock = ShardLock::new(1);
        assert!(lock.hand_over(lock.lock()), "nobody waits");
        lock.waiting.store(1, Ordering::Relaxed);
        assert!(!lock.hand_over(lock.lock()), "nobody comes");
        assert_eq!(*lock.lock(), 1);
        thread::scope(|scope| {
            scope.spawn(|| lock.waiting.store(0, Ordering::Relaxed));
            assert!(lock.make_way(u32::MAX));
        });
    }
}
