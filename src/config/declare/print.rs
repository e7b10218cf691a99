//! Values in force, and their origins.
use super::{Key, Table, Value, Visit};
use crate::config::keys::Provenance;
use crate::config::origin::{EffectiveValue, Origin};
use crate::config::path::push_segment;

/// Collects the values of a configuration.
#[derive(Debug)]
pub struct Printer<'a> {
    provenance: &'a Provenance,
    path: String,
    values: Vec<EffectiveValue>,
    only_restart: bool,
}

impl<'a> Printer<'a> {
    pub(in crate::config) fn new(provenance: &'a Provenance) -> Self {
        Self {
            provenance,
            path: String::new(),
            values: Vec::new(),
            only_restart: false,
        }
    }

    /// Returns a printer of the keys that only a start can change.
    pub(in crate::config) fn of_restart_keys(provenance: &'a Provenance) -> Self {
        Self {
            only_restart: true,
            ..Self::new(provenance)
        }
    }

    pub(in crate::config) fn into_values(self) -> Vec<EffectiveValue> {
        self.values
    }

    /// Adds the value of the current key, which has a default.
    pub fn setting(&mut self, value: String, is_default: bool, why: &'static str) {
        let origin = match self.provenance.line(&self.path) {
            Some(line) => Origin::File { line: Some(line) },
            None if is_default => Origin::Default { source: why },
            None => Origin::File { line: None },
        };
        self.push(value, is_default, origin);
    }

    /// Adds the value of the current key, which has no default.
    pub fn entry(&mut self, value: String) {
        let line = self.provenance.line(&self.path);
        self.push(value, false, Origin::File { line });
    }

    pub(in crate::config) fn push(&mut self, value: String, is_default: bool, origin: Origin) {
        self.values.push(EffectiveValue {
            key: self.path.clone(),
            value,
            is_default,
            origin,
        });
    }

    /// Adds the values that `print` adds below a key.
    pub fn within_key(&mut self, name: &str, print: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        push_segment(&mut self.path, name);
        print(self);
        self.path.truncate(above);
    }

    /// Adds the values that `print` adds below a path of keys without quotes.
    pub(in crate::config) fn within_path(&mut self, path: &str, print: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        self.path.push('.');
        self.path.push_str(path);
        print(self);
        self.path.truncate(above);
    }

    /// Adds the values that `print` adds below an item of a list.
    pub fn within_item(&mut self, place: usize, print: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        self.path.push_str(&format!("[{place}]"));
        print(self);
        self.path.truncate(above);
    }
}

impl Visit for Printer<'_> {
    fn key<T: Value>(&mut self, key: &Key<T>, value: &T, other: &T) {
        if self.only_restart && !key.is_restart && !T::IS_TABLE {
            return;
        }
        self.within_key(key.name, |printer| match key.implied {
            Some(implied) => value.print(&implied(), key.why, printer),
            None => value.print(other, key.why, printer),
        });
    }
}

/// Returns the values of a section that does not belong to the engine, with their origins.
pub fn values<T: Table>(section: &str, table: &T, provenance: &Provenance) -> Vec<EffectiveValue> {
    let mut printer = Printer::new(provenance);
    printer.within_key(section, |printer| table.visit(&T::default(), printer));
    printer.into_values()
}

/// Returns an inline table.
pub(in crate::config) fn inline(keys: &[String]) -> String {
    if keys.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", keys.join(", "))
    }
}

/// Returns the keys of a table that differ from their defaults, as an inline table.
pub fn inline_table<T: Table>(table: &T) -> String {
    inline(&written_keys(table))
}

/// Returns the keys of a table that differ from their defaults or have none, in TOML notation.
pub(in crate::config) fn written_keys<T: Table>(table: &T) -> Vec<String> {
    let mut keys = WrittenKeys(Vec::new());
    table.visit(&T::default(), &mut keys);
    keys.0
}

struct WrittenKeys(Vec<String>);

impl Visit for WrittenKeys {
    fn key<T: Value>(&mut self, key: &Key<T>, value: &T, default: &T) {
        if key.is_required || value != default {
            self.0.push(format!("{} = {}", key.name, value.toml()));
        }
    }
}
