//! Values of keys: reading, writing, measuring and describing of each type.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

#[cfg(feature = "toml")]
use super::read::{self, Item, Kind, Problems};
use super::{Checker, KeyReference, Printer, SectionReference, print, reference};

/// A value of a key.
pub trait Value: Clone + PartialEq {
    /// The type of its bounds.
    type Bound: Bound;

    /// Whether the bounds are those of its length.
    const IS_LIST: bool = false;

    /// Whether the type has keys of its own.
    const IS_TABLE: bool = false;

    /// Returns the name of the type in the reference page.
    fn kind() -> String;

    /// Reads the value of a file. On an error, adds it to `problems` and returns `None`.
    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self>;

    /// Returns the value as TOML; empty if there is none.
    fn toml(&self) -> String;

    /// Replaces the value with that of a file, if it can be read.
    #[cfg(feature = "toml")]
    fn update(&mut self, item: &Item<'_, '_>, problems: &mut Problems) {
        if let Some(value) = Self::read(item, problems) {
            *self = value;
        }
    }

    /// Returns the value to compare with the bounds; `None` if there is none.
    fn measure(&self) -> Option<Self::Bound> {
        None
    }

    /// Returns whether this is an empty list.
    fn is_empty_list(&self) -> bool {
        false
    }

    /// Adds the value in force to the printed ones.
    fn print(&self, default: &Self, why: &'static str, printer: &mut Printer<'_>) {
        printer.setting(self.toml(), self == default, why);
    }

    /// Checks the bounds of keys within the value.
    fn check(&self, _: &mut Checker<'_>) {}

    /// Keeps the running values of keys within the value that only a start can change.
    fn keep(&mut self, _: &Self, _: &mut Vec<&'static str>) {}

    /// Adds the key to the reference page.
    fn describe(row: KeyReference, sections: &mut Vec<SectionReference>) {
        reference::push_row(row, sections);
    }
}

/// A type of values that bounds compare.
pub trait Bound: PartialOrd + Clone {
    /// Zero, as messages show it.
    const ZERO: &'static str = "0";

    /// Returns the value as messages show it.
    fn show(&self) -> String;

    /// Returns whether this is zero.
    fn is_zero(&self) -> bool {
        false
    }

    /// Returns whether this is the largest value of the type.
    fn is_largest(&self) -> bool {
        false
    }
}

/// Returns bounds in words.
pub(super) fn range_text<B: Bound>(range: &RangeInclusive<B>) -> String {
    let (low, high) = (range.start(), range.end());
    if high.is_largest() {
        format!("at least {}", low.show())
    } else {
        format!("{} to {}", low.show(), high.show())
    }
}

impl Bound for () {
    fn show(&self) -> String {
        String::new()
    }
}

impl Bound for Duration {
    const ZERO: &'static str = "0s";

    fn show(&self) -> String {
        duration(*self)
    }

    fn is_zero(&self) -> bool {
        self.is_zero()
    }
}

/// A single value that is written as a string, a number, a boolean or a date.
pub trait Scalar: Clone + PartialEq {
    /// The type of its bounds.
    type Bound: Bound;

    /// The description of the type in messages about a value of another type.
    const EXPECTED: &'static str;

    /// Returns the name of the type in the reference page.
    #[must_use]
    fn kind() -> String {
        Self::EXPECTED.to_owned()
    }

    /// Reads a string.
    ///
    /// # Errors
    /// Returns the reason for which the string is not a value of this type.
    fn from_text(_: &str) -> Result<Self, Wrong> {
        Err(Wrong::Type)
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// Returns the reason for which the number is not a value of this type.
    fn from_integer(_: i64) -> Result<Self, Wrong> {
        Err(Wrong::Type)
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// Returns the reason for which the boolean is not a value of this type.
    fn from_boolean(_: bool) -> Result<Self, Wrong> {
        Err(Wrong::Type)
    }

    /// Reads a date or time without quotes.
    ///
    /// # Errors
    /// Returns the reason for which the moment is not a value of this type.
    fn from_moment(_: &str) -> Result<Self, Wrong> {
        Err(Wrong::Type)
    }

    /// Returns the value as TOML.
    fn written(&self) -> String;

    /// Returns the value to compare with the bounds; `None` if there is none.
    fn measured(&self) -> Option<Self::Bound> {
        None
    }
}

/// The reason for which something is not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The type of the value; the message names the expected one.
    Type,
    /// A number that the type cannot hold; the message names the bounds of the key, if it has any.
    OutOfBounds {
        /// The number.
        value: String,
        /// The bounds of the type.
        bounds: String,
    },
    /// A name that is not one of the known ones.
    Choice(&'static [&'static str]),
    /// Another reason, in words.
    Other(String),
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

/// Returns the choice of a name; `choices` and `names` are in the same order.
///
/// # Errors
/// Returns the known names.
pub fn choice<T: Copy>(
    text: &str,
    choices: &[T],
    names: &'static [&'static str],
) -> Result<T, Wrong> {
    let mut named = names.iter().zip(choices);
    let found = named.find(|(name, _)| **name == text);
    found.map_or(Err(Wrong::Choice(names)), |(_, choice)| Ok(*choice))
}

/// Returns the choices of a type for the reference page.
#[must_use]
pub fn choices_text<T: Scalar>() -> String {
    match T::from_text("\0") {
        Err(Wrong::Choice(names)) => {
            let names: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
            names.join(", ")
        }
        _ => T::EXPECTED.to_owned(),
    }
}

/// Implements the key values for enums with a `const fn name`. Each enum has a list of its
/// variants, and one that is missing there does not compile.
#[macro_export]
macro_rules! config_choices {
    ($($name:ident [$($choice:ident),+ $(,)?]),* $(,)?) => {
        $(impl $crate::config::declare::Scalar for $name {
            type Bound = ();

            const EXPECTED: &'static str = "a name in quotes";

            fn kind() -> String {
                $crate::config::declare::choices_text::<Self>()
            }

            fn from_text(text: &str) -> Result<Self, $crate::config::declare::Wrong> {
                const NAMES: &[&str] = &[$($name::$choice.name()),+];
                $crate::config::declare::choice(text, &[$(Self::$choice),+], NAMES)
            }

            fn written(&self) -> String {
                // Complete only if the list of choices is.
                let name = match self {
                    $(Self::$choice => Self::$choice.name(),)+
                };
                format!("\"{name}\"")
            }
        })*
    };
}

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
            .map(|(name, value)| format!("{} = {}", print::segment(name), value.toml()));
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

/// Returns a duration in TOML notation, without quotes: in days and smaller units, so that it is
/// exact.
pub(in crate::config) fn duration(value: Duration) -> String {
    let millis = value.as_millis();
    if Duration::from_millis(millis as u64) != value {
        return humantime::format_duration(value).to_string();
    }
    let parts = [
        (millis / 86_400_000, "d"),
        (millis / 3_600_000 % 24, "h"),
        (millis / 60_000 % 60, "m"),
        (millis / 1_000 % 60, "s"),
        (millis % 1_000, "ms"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// Returns a string in TOML notation.
pub(in crate::config) fn quoted(value: impl fmt::Display) -> String {
    let mut written = String::from("\"");
    for letter in value.to_string().chars() {
        match letter {
            '"' | '\\' => written.extend(['\\', letter]),
            letter if letter.is_control() => {
                written.push_str(&format!("\\u{:04X}", u32::from(letter)))
            }
            letter => written.push(letter),
        }
    }
    written.push('"');
    written
}
