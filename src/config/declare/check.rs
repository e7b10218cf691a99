//! Checks of bounds.
use std::ops::RangeInclusive;

use super::bound::{Bound, range_text};
use super::{Key, Table, Value, Visit};
use crate::config::error::{ConfigError, ConfigErrorCause, MAX_PROBLEMS};
use crate::config::keys::Provenance;
use crate::config::path::push_segment;

/// Collects the keys whose values are out of bounds.
#[derive(Debug)]
pub struct Checker<'a> {
    provenance: &'a Provenance,
    path: String,
    errors: Vec<ConfigError>,
    /// Whether errors were left out.
    is_cut: bool,
}

impl<'a> Checker<'a> {
    pub(in crate::config) fn new(provenance: &'a Provenance) -> Self {
        Self {
            provenance,
            path: String::new(),
            errors: Vec::new(),
            is_cut: false,
        }
    }

    /// Returns whether errors were left out, since there were too many.
    pub(in crate::config) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(in crate::config) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// Checks the keys of a table at a path.
    pub(in crate::config) fn table<T: Table>(&mut self, path: &str, table: &T) {
        path.clone_into(&mut self.path);
        table.visit(table, self);
    }

    pub(super) fn within_key(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        push_segment(&mut self.path, name);
        check(self);
        self.path.truncate(above);
    }

    pub(in crate::config) fn within_path(&mut self, path: &str, check: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        self.path.push('.');
        self.path.push_str(path);
        check(self);
        self.path.truncate(above);
    }

    /// Adds an error if the value of the current key is not within `bounds`.
    pub(in crate::config) fn range<B: Bound>(&mut self, value: B, bounds: RangeInclusive<B>) {
        if !bounds.contains(&value) {
            self.add(value.show(), range_text(&bounds));
        }
    }

    fn add(&mut self, value: String, bounds: String) {
        if self.errors.len() >= MAX_PROBLEMS {
            self.is_cut = true;
            return;
        }
        self.errors.push(ConfigError {
            location: self.provenance.locate(&self.path),
            cause: ConfigErrorCause::OutOfBounds { value, bounds },
        });
    }
}

impl Visit for Checker<'_> {
    fn key<T: Value>(&mut self, key: &Key<T>, value: &T, _: &T) {
        self.within_key(key.name, |checker| {
            if let Some(value) = key.broken(value) {
                checker.add(value, key.bounds_text());
            }
            value.check(checker);
        });
    }
}
