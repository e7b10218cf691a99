//! Minimal replacements for the parts of the library that the lock-free modules use.

/// Atomic integers of the model checker in place of the standard library's.
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

pub(crate) mod flow {
    /// A zone. There are few zones, since the atomics of each cost time in every interleaving.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
    pub(crate) struct Zone(pub(crate) u16);

    impl Zone {
        pub(crate) const MAX: Self = Self(2);
    }

    impl core::fmt::Display for Zone {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.fmt(f)
        }
    }

    #[derive(Debug)]
    pub(crate) struct FlowKey(Zone);

    impl FlowKey {
        pub(crate) const fn zone(&self) -> Zone {
            self.0
        }
    }
}

pub(crate) mod packet {
    pub(crate) const PROTOCOL_TCP: u8 = 6;
}

pub(crate) mod policy {
    pub(crate) use id::RuleId;

    pub(crate) mod id {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct RuleId(pub(crate) u16);

        impl RuleId {
            pub(crate) const DEFAULT: Self = Self(0);
        }
    }
}

pub(crate) mod track {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum EvictionClass {
        Embryonic,
        Assured,
    }
}

pub(crate) mod session {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Micros(pub(crate) u64);
}

pub(crate) mod by_zone {
    use super::flow::Zone;

    /// A value for each zone.
    #[derive(Debug)]
    pub(crate) struct ByZone<T>([T; Zone::MAX.0 as usize + 1]);

    impl<T: Default> Default for ByZone<T> {
        fn default() -> Self {
            Self(std::array::from_fn(|_| T::default()))
        }
    }

    impl<T> ByZone<T> {
        pub(crate) fn get(&self, zone: Zone) -> Option<&T> {
            self.0.get(usize::from(zone.0))
        }
    }
}

/// Memory is always available.
pub(crate) mod reserve {
    #[derive(Debug)]
    pub(crate) struct NoMemory;

    pub(crate) enum Purpose {
        CountedPrefixes,
    }

    impl Purpose {
        pub(crate) fn items<T>(
            &self,
            len: usize,
            make: impl FnMut() -> T,
        ) -> Result<Box<[T]>, NoMemory> {
            Ok(std::iter::repeat_with(make).take(len).collect())
        }
    }
}

pub(crate) mod prefix {
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Prefixes;
}

pub(crate) mod limits {
    use super::flow::Zone;

    #[derive(Debug, Default)]
    pub(crate) struct Bounds {
        pub(crate) max_sessions: Option<u32>,
    }

    /// No limits.
    #[derive(Debug)]
    pub(crate) struct Limits;

    impl Limits {
        pub(crate) fn of_zone(&self, _: Zone) -> Bounds {
            Bounds::default()
        }
    }
}

/// Counts by prefix, which are protected by locks and therefore omitted.
pub(crate) mod counted {
    use crate::reserve::NoMemory;
    use crate::standing::Standing;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) struct Key;

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Holding {
        pub(crate) sessions: u32,
        pub(crate) half_open: u32,
        pub(crate) assured: u32,
    }

    impl Holding {
        pub(crate) const fn add(&mut self, _: Standing) {}
    }

    #[derive(Debug)]
    pub(crate) struct CountedTable;

    impl CountedTable {
        pub(crate) fn new(_: usize, _: ahash::RandomState) -> Result<Self, NoMemory> {
            Ok(Self)
        }

        pub(crate) fn for_each(&self, _: impl FnMut(&Key, Holding)) {}

        pub(crate) const fn has_forgotten(&self) -> bool {
            false
        }

        pub(crate) fn holding(&self, _: &Key) -> Holding {
            Holding::default()
        }
    }
}

pub(crate) mod admission {
    use super::counted::Key;
    use super::flow::FlowKey;
    use super::policy::RuleId;
    use crate::accounts::Accounts;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Counts;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Subject<'a> {
        pub(crate) key: &'a FlowKey,
        pub(crate) rule: RuleId,
    }

    impl Subject<'_> {
        pub(crate) fn entries(self, _: &Accounts, _: Counts) -> impl Iterator<Item = Key> {
            std::iter::empty()
        }
    }
}
