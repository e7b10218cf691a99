//! Fallible allocation of tables of a fixed size.
//!
//! Each table names its purpose where it is allocated, so that an error names the part of the
//! memory that the system did not provide.

use std::collections::HashMap;
use std::hash::Hash;

use zerocopy::{FromZeros, KnownLayout};

/// Purpose of memory that an engine reserves when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Sessions,
    TunnelReferences,
    /// Notes about the records of sessions in a store.
    StoredMarks,
    /// Notes about sessions of other zones and about handshakes that were cut.
    Hints,
    Tombstones,
    /// Questions to a store, and flows of which it has nothing.
    Questions,
    Fragments,
    CountedPrefixes,
    KnownSources,
    /// Rates of the engine's own packets, and of reports.
    Rates,
    /// Suspected halves of conversations.
    Suspects,
}

impl Purpose {
    /// Returns the name that reports and errors use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::TunnelReferences => "tunnel references",
            Self::StoredMarks => "stored marks",
            Self::Hints => "hints",
            Self::Tombstones => "tombstones",
            Self::Questions => "questions",
            Self::Fragments => "fragments",
            Self::CountedPrefixes => "counted prefixes",
            Self::KnownSources => "known sources",
            Self::Rates => "rates",
            Self::Suspects => "suspects",
        }
    }

    /// Returns the configuration key that determines the size. The last two purposes have a fixed
    /// size; for them, this is the key that the memory serves.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Sessions | Self::Hints | Self::CountedPrefixes => "table.max_sessions",
            Self::TunnelReferences => "engine.tunnel_references",
            Self::StoredMarks => "continuity.enabled",
            Self::Tombstones => "tombstones.max",
            Self::Questions => "continuity.max_nothing",
            Self::Fragments => "fragments.max_datagrams",
            Self::KnownSources => "syn_challenge.max_sources",
            Self::Rates => "resets.overall",
            Self::Suspects => "asymmetry.max_entries",
        }
    }
}

/// Memory that the system did not provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory {
    pub(crate) purpose: Purpose,
    /// Bytes of the allocation that failed.
    pub(crate) bytes: usize,
}

impl NoMemory {
    fn of<T>(purpose: Purpose, items: usize) -> Self {
        Self {
            purpose,
            bytes: items.saturating_mul(size_of::<T>()),
        }
    }
}

impl Purpose {
    /// Reserves room for `capacity` items. The memory is not touched.
    pub(crate) fn room<T>(self, capacity: usize) -> Result<Vec<T>, NoMemory> {
        let mut items = Vec::new();
        match items.try_reserve_exact(capacity) {
            Ok(()) => Ok(items),
            Err(_) => Err(NoMemory::of::<T>(self, capacity)),
        }
    }

    /// Makes `len` items.
    pub(crate) fn items<T>(
        self,
        len: usize,
        mut make: impl FnMut() -> T,
    ) -> Result<Box<[T]>, NoMemory> {
        self.try_items(len, || Ok(make()))
    }

    /// Creates `len` items that reserve memory of their own.
    pub(crate) fn try_items<T>(
        self,
        len: usize,
        mut make: impl FnMut() -> Result<T, NoMemory>,
    ) -> Result<Box<[T]>, NoMemory> {
        let mut items = self.room(len)?;
        for _ in 0..len {
            items.push(make()?);
        }
        // There is no spare capacity, so this does not allocate.
        Ok(items.into_boxed_slice())
    }

    /// Reserves `len` zeroed items. The system hands out the memory as it is touched.
    pub(crate) fn zeros<T: FromZeros>(self, len: usize) -> Result<Box<[T]>, NoMemory>
    where
        [T]: KnownLayout<PointerMetadata = usize> + FromZeros,
    {
        <[T]>::new_box_zeroed_with_elems(len).map_err(|_| NoMemory::of::<T>(self, len))
    }

    /// Reserves a map with room for `capacity` entries.
    pub(crate) fn map<K: Eq + Hash, V>(
        self,
        capacity: usize,
        hasher: &ahash::RandomState,
    ) -> Result<HashMap<K, V, ahash::RandomState>, NoMemory> {
        let mut map = HashMap::with_hasher(hasher.clone());
        match map.try_reserve(capacity) {
            Ok(()) => Ok(map),
            Err(_) => Err(NoMemory::of::<(K, V)>(self, capacity)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_nobody_has_is_an_error_with_its_purpose() {
        let too_much = usize::MAX / 4;
        let lack = NoMemory {
            purpose: Purpose::Tombstones,
            bytes: usize::MAX,
        };
        assert_eq!(Purpose::Tombstones.room::<u64>(too_much), Err(lack));
        assert_eq!(Purpose::Tombstones.zeros::<u64>(too_much), Err(lack));
        assert_eq!(Purpose::Tombstones.items(too_much, || 0u64), Err(lack));
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let map = Purpose::Fragments.map::<u64, u64>(too_much, &hasher);
        assert_eq!(
            map.map(|_| ()).map_err(|lack| lack.purpose),
            Err(Purpose::Fragments)
        );
    }

    #[test]
    fn what_is_reserved_has_its_size_and_is_zero() {
        assert!(
            Purpose::Sessions
                .room::<u64>(10)
                .is_ok_and(|room| room.capacity() >= 10 && room.is_empty())
        );
        assert!(
            Purpose::Sessions
                .zeros::<u64>(10)
                .is_ok_and(|zeros| *zeros == [0; 10])
        );
        let mut next = 0..;
        let items = Purpose::Sessions.items(3, || next.next());
        assert_eq!(items.as_deref(), Ok(&[Some(0), Some(1), Some(2)][..]));
    }
}
