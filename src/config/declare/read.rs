//! Reading of declared tables, with all errors of a file at once.
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::scalar::Wrong;
use super::{Change, Key, Table, Value, Visit};
use crate::config::error::{ConfigErrorCause, MAX_PROBLEMS, UnknownName};
use crate::config::path::push_segment;
use crate::config::replaced::replacement;
use crate::config::text::shown;

/// The largest number of bytes of a path that an error keeps.
const MAX_PATH: usize = 4_096;

/// A value of a file.
#[derive(Debug, Clone, Copy)]
pub struct Item<'i, 'd>(pub(in crate::config) &'i Spanned<DeValue<'d>>);

/// The type of a value of a file.
pub(in crate::config) enum Kind<'i, 'd> {
    Text(&'i str),
    /// A whole number; `None` if it has more than 64 bits.
    Integer(Option<i64>),
    Float,
    Boolean(bool),
    Moment(String),
    List(&'i DeArray<'d>),
    Table(&'i DeTable<'d>),
}

impl<'i, 'd> Item<'i, 'd> {
    pub(in crate::config) fn kind(&self) -> Kind<'i, 'd> {
        match self.0.get_ref() {
            DeValue::String(text) => Kind::Text(text),
            DeValue::Integer(number) => {
                Kind::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(_) => Kind::Float,
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(moment) => Kind::Moment(moment.to_string()),
            DeValue::Array(items) => Kind::List(items),
            DeValue::Table(table) => Kind::Table(table),
        }
    }

    /// Returns the value as messages show it: on one line, and of a long value only the beginning.
    pub(in crate::config) fn source(&self) -> String {
        match self.0.get_ref() {
            DeValue::String(text) => format!("string `{}`", shown(text)),
            DeValue::Integer(number) => shown(&number.to_string()).into_owned(),
            DeValue::Float(number) => shown(number.as_str()).into_owned(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(moment) => moment.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// An error with its place in the text.
#[derive(Debug, Clone)]
pub(in crate::config) struct Problem {
    pub(in crate::config) path: String,
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) cause: ConfigErrorCause,
}

/// Collects the errors of a file.
#[derive(Debug, Default)]
pub struct Problems {
    path: String,
    list: Vec<Problem>,
    /// Whether errors were left out.
    is_cut: bool,
}

impl Problems {
    /// Adds an error about a value.
    pub(in crate::config) fn push(&mut self, item: &Item<'_, '_>, cause: ConfigErrorCause) {
        self.push_at(item.0.span(), cause);
    }

    pub(in crate::config) fn push_at(&mut self, span: Range<usize>, cause: ConfigErrorCause) {
        if self.is_full() {
            self.is_cut = true;
        } else {
            let mut ends = (0..=MAX_PATH.min(self.path.len())).rev();
            let path = ends.find_map(|end| self.path.get(..end));
            let path = path.unwrap_or_default().to_owned();
            self.list.push(Problem { path, span, cause });
        }
    }

    pub(in crate::config) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether further errors are left out.
    pub(in crate::config) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    /// Returns whether errors were left out.
    pub(in crate::config) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(in crate::config) fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Reads the values below a key.
    pub(in crate::config) fn within_key<R>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let above = self.path.len();
        push_segment(&mut self.path, name);
        let result = read(self);
        self.path.truncate(above);
        result
    }

    /// Reads an item of a list.
    pub(in crate::config) fn within_item<R>(
        &mut self,
        place: usize,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let above = self.path.len();
        self.path.push_str(&format!("[{place}]"));
        let result = read(self);
        self.path.truncate(above);
        result
    }

    /// Names the bounds of the current key in its errors: those after the first `before` errors.
    fn name_bounds(&mut self, before: usize, text: &str) {
        for problem in self.list.iter_mut().skip(before) {
            if let ConfigErrorCause::OutOfBounds { bounds, .. } = &mut problem.cause
                && problem.path == self.path
                && !text.is_empty()
            {
                text.clone_into(bounds);
            }
        }
    }
}

/// Returns the cause of an error about a value.
pub(in crate::config) fn cause(
    wrong: Wrong,
    item: &Item<'_, '_>,
    expected: &'static str,
) -> ConfigErrorCause {
    match wrong {
        Wrong::Type => wrong_type(item, expected),
        Wrong::OutOfBounds { value, bounds } => ConfigErrorCause::OutOfBounds { value, bounds },
        Wrong::Choice(known) => {
            let value = match item.kind() {
                Kind::Text(text) => text.to_owned(),
                _ => item.source(),
            };
            ConfigErrorCause::UnknownChoice(UnknownName::new(&value, known.iter().copied()))
        }
        Wrong::Other(reason) => ConfigErrorCause::Syntax(match item.kind() {
            Kind::Text(text) if shown(text) != *text => reason.replace(text, &shown(text)),
            _ => reason,
        }),
    }
}

/// Returns the cause of an error about the type of a value.
pub(in crate::config) fn wrong_type(item: &Item<'_, '_>, expected: &str) -> ConfigErrorCause {
    ConfigErrorCause::WrongType {
        found: item.source(),
        expected: expected.to_owned(),
    }
}

/// Reads a table of declared keys.
pub fn table<T: Table>(item: &Item<'_, '_>, problems: &mut Problems) -> Option<T> {
    let mut value = T::default();
    let before = problems.len();
    update_table(&mut value, item, problems);
    (problems.len() == before).then_some(value)
}

/// Reads an array of tables. A table with errors gets its defaults.
pub(in crate::config) fn tables<T: Value + Default>(
    item: &Item<'_, '_>,
    problems: &mut Problems,
) -> Vec<T> {
    let Kind::List(items) = item.kind() else {
        problems.push(item, wrong_type(item, "a list of tables"));
        return Vec::new();
    };
    let read = |(place, item)| {
        let table = problems.within_item(place, |problems| T::read(&Item(item), problems));
        table.unwrap_or_default()
    };
    items.iter().enumerate().map(read).collect()
}

/// Replaces the values of a table with those of a file.
pub fn update_table<T: Table>(value: &mut T, item: &Item<'_, '_>, problems: &mut Problems) {
    match item.kind() {
        Kind::Table(table) => {
            let entries = Entries {
                table,
                span: item.0.span(),
                others: &[],
            };
            update_keys(value, &entries, problems);
        }
        _ => problems.push(item, wrong_type(item, "a table")),
    }
}

/// The entries of a table in a file.
pub(in crate::config) struct Entries<'a, 'd> {
    pub(in crate::config) table: &'a DeTable<'d>,
    /// The bytes of the table, for errors about missing keys.
    pub(in crate::config) span: Range<usize>,
    /// Keys that are known in addition to the declared ones.
    pub(in crate::config) others: &'a [&'a str],
}

/// Replaces the values of a table with entries of a file.
pub(in crate::config) fn update_keys<T: Table>(
    value: &mut T,
    entries: &Entries<'_, '_>,
    problems: &mut Problems,
) {
    let mut reader = Reader {
        entries,
        found: 0,
        problems,
    };
    value.change(&mut reader);
    if reader.found == entries.table.len() {
        return;
    }
    let mut known = names(value);
    let declared = known.len();
    known.extend(entries.others);
    for (name, _) in entries.table {
        let is_declared = |known: &&str| *known == name.get_ref();
        if !known.iter().take(declared).any(is_declared) {
            unknown_key(name, &known, problems);
        }
    }
}

/// Adds an error about a key that is not one of the known ones.
pub(in crate::config) fn unknown_key(
    name: &Spanned<std::borrow::Cow<'_, str>>,
    known: &[&str],
    problems: &mut Problems,
) {
    if problems.is_full() {
        problems.is_cut = true;
        return;
    }
    problems.within_key(name.get_ref(), |problems| {
        let cause = match replacement(&problems.path) {
            Some(replacement) => ConfigErrorCause::ReplacedKey(replacement),
            None => {
                let unknown = UnknownName::new(name.get_ref(), known.iter().copied());
                ConfigErrorCause::UnknownKey(unknown)
            }
        };
        problems.push_at(name.span(), cause);
    });
}

/// Returns the names of the keys of a table.
pub(in crate::config) fn names<'k, T: Table>(table: &T) -> Vec<&'k str> {
    struct Names(Vec<&'static str>);

    impl Visit for Names {
        fn key<T: Value>(&mut self, key: &Key<T>, _: &T, _: &T) {
            self.0.push(key.name);
        }
    }

    let mut names = Names(Vec::new());
    table.visit(table, &mut names);
    names.0
}

/// Reads the keys of a table.
struct Reader<'a, 'd> {
    entries: &'a Entries<'a, 'd>,
    /// The number of entries that are keys.
    found: usize,
    problems: &'a mut Problems,
}

impl Change for Reader<'_, '_> {
    fn key<T: Value>(&mut self, key: &Key<T>, value: &mut T) {
        let Some(item) = self.entries.table.get(key.name) else {
            if key.is_required {
                self.problems.push_at(
                    self.entries.span.clone(),
                    ConfigErrorCause::MissingKey(key.name),
                );
            }
            return;
        };
        self.found += 1;
        self.problems.within_key(key.name, |problems| {
            let before = problems.len();
            value.update(&Item(item), problems);
            if key.is_never_empty && problems.len() == before && value.is_empty_list() {
                problems.push(&Item(item), ConfigErrorCause::EmptyList);
            }
            if problems.len() > before {
                problems.name_bounds(before, &key.bounds_text());
            }
        });
    }
}
