//! One value for each zone number, created in pages as zones occur.

use std::sync::OnceLock;

use crate::flow::Zone;

/// Zone numbers of one page.
const PAGE: usize = 256;

/// A value for each zone number. The first access to one of 256 neighbors allocates their page.
#[derive(Debug)]
pub(crate) struct ByZone<T>(Box<[OnceLock<Box<[T]>>]>);

impl<T: Default> Default for ByZone<T> {
    fn default() -> Self {
        let pages = usize::from(u16::MAX) / PAGE + 1;
        Self((0..pages).map(|_| OnceLock::new()).collect())
    }
}

impl<T: Default> ByZone<T> {
    /// Returns the value of a zone, which always exists.
    pub(crate) fn get(&self, zone: Zone) -> Option<&T> {
        let number = usize::from(zone.0);
        let page = self.0.get(number / PAGE)?;
        page.get_or_init(|| (0..PAGE).map(|_| T::default()).collect())
            .get(number % PAGE)
    }
}
