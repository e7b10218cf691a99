//! Values of keys: single values, lists, values that may be missing, and entries by name.
use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "toml")]
use super::read::{self, Item, Kind, Problems};
use super::scalar::Scalar;
#[cfg(feature = "toml")]
use super::scalar::Wrong;
use super::{Checker, KeyReference, Printer, SectionReference, Value};
use super::{print, reference};
use crate::config::path::key_segment;

impl<T: Scalar> Value for T {
    type Bound = T::Bound;

    fn kind() -> String {
        T::kind()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let result = match item.kind() {
            Kind::Text(text) => T::from_text(text),
            Kind::Integer(Some(number)) => T::from_integer(number),
            Kind::Integer(None) => Err(Wrong::OutOfBounds {
                value: item.source(),
                bounds: "a number of 64 bits".to_owned(),
            }),
            Kind::Boolean(value) => T::from_boolean(value),
            Kind::Moment(text) => T::from_moment(&text),
            Kind::Float | Kind::List(_) | Kind::Table(_) => Err(Wrong::Type),
        };
        match result {
            Ok(value) => Some(value),
            Err(wrong) => {
                problems.push(item, read::cause(wrong, item, T::EXPECTED));
                None
            }
        }
    }

    fn toml(&self) -> String {
        self.written()
    }

    fn measure(&self) -> Option<Self::Bound> {
        self.measured()
    }
}

/// A list. A single value may replace a list of one.
impl<T: Scalar> Value for Vec<T> {
    type Bound = usize;

    const IS_LIST: bool = true;

    fn kind() -> String {
        format!("list of: {}", T::kind())
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let Kind::List(items) = item.kind() else {
            return T::read(item, problems).map(|value| vec![value]);
        };
        let before = problems.len();
        let mut list = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            if let Some(value) =
                problems.within_item(place, |problems| T::read(&Item(item), problems))
            {
                list.push(value);
            }
        }
        (problems.len() == before).then_some(list)
    }

    fn toml(&self) -> String {
        let values: Vec<String> = self.iter().map(T::written).collect();
        format!("[{}]", values.join(", "))
    }

    fn measure(&self) -> Option<usize> {
        Some(self.len())
    }

    fn is_empty_list(&self) -> bool {
        self.is_empty()
    }
}

/// A value that may be missing.
impl<T: Value> Value for Option<T> {
    type Bound = T::Bound;

    const IS_LIST: bool = T::IS_LIST;

    fn kind() -> String {
        T::kind()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        T::read(item, problems).map(Some)
    }

    fn toml(&self) -> String {
        self.as_ref().map_or_else(String::new, T::toml)
    }

    fn measure(&self) -> Option<Self::Bound> {
        self.as_ref().and_then(T::measure)
    }
}

/// Entries by name.
impl<V: Value> Value for BTreeMap<String, V> {
    type Bound = usize;

    const IS_LIST: bool = true;

    fn kind() -> String {
        format!("table; by name: {}", V::kind())
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let Kind::Table(table) = item.kind() else {
            problems.push(item, read::wrong_type(item, "a table"));
            return None;
        };
        let before = problems.len();
        let mut entries = Self::new();
        for (name, item) in table {
            let read = |problems: &mut Problems| V::read(&Item(item), problems);
            if let Some(value) = problems.within_key(name.get_ref(), read) {
                entries.insert(name.get_ref().to_string(), value);
            }
        }
        (problems.len() == before).then_some(entries)
    }

    fn toml(&self) -> String {
        let entries = self
            .iter()
            .map(|(name, value)| format!("{} = {}", key_segment(name), value.toml()));
        print::inline(&entries.collect::<Vec<_>>())
    }

    fn print(&self, default: &Self, why: &'static str, printer: &mut Printer<'_>) {
        let names: BTreeSet<&String> = default.keys().chain(self.keys()).collect();
        for name in names {
            let (own, implied) = (self.get(name), default.get(name));
            printer.within_key(name, |printer| match own.or(implied) {
                Some(value) if implied == Some(value) => printer.setting(value.toml(), true, why),
                Some(value) => printer.entry(value.toml()),
                None => {}
            });
        }
    }

    fn check(&self, checker: &mut Checker<'_>) {
        for (name, value) in self {
            checker.within_key(name, |checker| value.check(checker));
        }
    }

    fn describe(row: KeyReference, sections: &mut Vec<SectionReference>) {
        reference::named::<V>(row, sections);
    }
}
