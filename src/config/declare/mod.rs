//! Declarations of configuration keys: all properties of a key in one place.
//!
//! [`config_section!`](crate::config_section) declares a section. Each key has its meaning, type,
//! default with the reason for it, bounds, unit, and a mark if only a restart can change it. The
//! following are derived from the declaration:
//!
//! - the struct and its default ([`Default`])
//! - reading, with all errors at once ([`read`])
//! - the bounds ([`check`])
//! - the values in force with their origins ([`mod@print`])
//! - the values that a reload keeps ([`Table::keep`])
//! - the reference page ([`mod@reference`])
//!
//! ```
//! use portcullis::config::{Config, Document};
//!
//! portcullis::config_section! {
//!     /// `[server]`: where the program answers.
//!     #[derive(Debug, Clone, PartialEq, Eq)]
//!     struct Server = "server" {
//!         /// The port.
//!         port: u16 { default: 80, "HTTP"; bounds: 1..=1023; restart: true; }
//!     }
//! }
//!
//! let mut document = Document::parse("[server]\nport = 8080\n[table]\nshards = 3", "a.toml")?;
//! let server: Server = document.section("server");
//! let errors = document.finish().unwrap_err();
//! assert_eq!(server.port, 8080);
//! assert_eq!(errors.to_string(),
//!     "a.toml:2: server.port: 8080 is out of bounds: 1 to 1023\n\
//!      a.toml:4: table.shards: 3 is out of bounds: a power of two from 1 to 1024");
//! # Ok::<(), portcullis::config::ConfigErrors>(())
//! ```
use std::ops::RangeInclusive;

mod bound;
pub mod check;
mod notation;
pub mod print;
#[cfg(feature = "toml")]
pub mod read;
pub mod reference;
mod scalar;
mod scalars;
mod values;

pub use self::bound::Bound;
pub use self::check::Checker;
pub(super) use self::notation::{duration, quoted};
pub use self::print::Printer;
#[cfg(feature = "toml")]
pub use self::read::{Item, Problems};
pub use self::reference::{KeyReference, SectionReference};
pub use self::scalar::{Scalar, Wrong, choice, choices_text};

/// The declared properties of a key, except for its type and default.
#[derive(Debug, Clone)]
pub struct Key<T: Value> {
    /// The path of the key from the root of the file, for keys that are not in lists or maps.
    pub path: &'static str,
    /// The name of the key in its table.
    pub name: &'static str,
    /// The meaning of the key, line by line.
    pub doc: &'static [&'static str],
    /// The reason for the default, in one clause.
    pub why: &'static str,
    bounds: Option<RangeInclusive<T::Bound>>,
    or_zero: bool,
    limit: &'static str,
    unit: &'static str,
    is_restart: bool,
    is_kept_apart: bool,
    is_required: bool,
    is_never_empty: bool,
    implied: Option<fn() -> T>,
}

impl<T: Value> Key<T> {
    /// Returns a key without options.
    #[must_use]
    pub const fn new(path: &'static str, name: &'static str, doc: &'static [&'static str]) -> Self {
        Self {
            path,
            name,
            doc,
            why: "",
            bounds: None,
            or_zero: false,
            limit: "",
            unit: "",
            is_restart: false,
            is_kept_apart: false,
            is_required: false,
            is_never_empty: false,
            implied: None,
        }
    }

    /// Sets a name that differs from that of the field.
    #[must_use]
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Sets the reason for the default.
    #[must_use]
    pub fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    /// Sets the bounds of the value, or of the length of a list.
    #[must_use]
    pub fn bounds(mut self, bounds: RangeInclusive<T::Bound>) -> Self {
        self.bounds = Some(bounds);
        self
    }

    /// Allows zero in addition to the bounds.
    #[must_use]
    pub fn or_zero(mut self, or_zero: bool) -> Self {
        self.or_zero = or_zero;
        self
    }

    /// Describes bounds that the section checks itself, or adds to the bounds in the reference
    /// page.
    #[must_use]
    pub fn limit(mut self, limit: &'static str) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the unit.
    #[must_use]
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Marks a key that only a start can change.
    #[must_use]
    pub fn restart(mut self, is_restart: bool) -> Self {
        self.is_restart = is_restart;
        self
    }

    /// Marks a key that only a start can change in the reference page alone: the section itself
    /// keeps and compares the values.
    #[must_use]
    pub fn kept_apart(mut self, is_kept_apart: bool) -> Self {
        self.is_kept_apart = is_kept_apart;
        self
    }

    /// Marks a key that has no default.
    #[must_use]
    pub fn required(mut self, is_required: bool) -> Self {
        self.is_required = is_required;
        self
    }

    /// Marks a list that matches anything if it is missing, and that must not be empty.
    #[must_use]
    pub fn never_empty(mut self, is_never_empty: bool) -> Self {
        self.is_never_empty = is_never_empty;
        self
    }

    /// Sets entries of a table that are in force by default.
    #[must_use]
    pub fn implied(mut self, implied: fn() -> T) -> Self {
        self.implied = Some(implied);
        self
    }

    /// Returns the bounds in words; empty if there are none.
    #[must_use]
    pub fn bounds_text(&self) -> String {
        let Some(bounds) = &self.bounds else {
            return self.limit.to_owned();
        };
        let mut text = bound::range_text(bounds);
        if T::IS_LIST {
            text.push_str(" entries");
        }
        if self.or_zero {
            text = format!("{} or {text}", T::Bound::ZERO);
        }
        if self.limit.is_empty() {
            return text;
        }
        format!("{text}; {}", self.limit)
    }

    /// Returns a description of how a value breaks the bounds, if it does.
    fn broken(&self, value: &T) -> Option<String> {
        let (bounds, measure) = (self.bounds.as_ref()?, value.measure()?);
        let is_zero = self.or_zero && measure.is_zero();
        if is_zero || bounds.contains(&measure) {
            return None;
        }
        let shown = measure.show();
        Some(if T::IS_LIST {
            format!("a list of {shown}")
        } else {
            shown
        })
    }
}

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

/// Receives the keys of a table in order, with the values of two instances.
pub trait Visit {
    /// Receives a key.
    fn key<T: Value>(&mut self, key: &Key<T>, value: &T, other: &T);
}

/// Receives the keys of a table in order, to change their values.
pub trait Change {
    /// Receives a key.
    fn key<T: Value>(&mut self, key: &Key<T>, value: &mut T);
}

/// A table of declared keys: a section, or a table in a list or map.
pub trait Table: Clone + PartialEq + Default {
    /// The name of the section; empty for tables that occur in several places.
    const SECTION: &'static str;
    /// The meaning of the section, line by line.
    const ABOUT: &'static [&'static str];

    /// Calls `visitor` with each key, its value, and its value in `other`.
    fn visit(&self, other: &Self, visitor: &mut impl Visit);

    /// Calls `changer` with each key and its value.
    fn change(&mut self, changer: &mut impl Change);

    /// Replaces the value of each key that only a start can change with that of `running`, and adds
    /// the path of each key whose value differed to `kept`.
    fn keep(&mut self, running: &Self, kept: &mut Vec<&'static str>);
}

/// Keeps the running value of a key that only a start can change.
pub fn keep_key<T: Value>(key: &Key<T>, value: &mut T, running: &T, kept: &mut Vec<&'static str>) {
    if key.is_restart && value != running {
        value.clone_from(running);
        kept.push(key.path);
    }
    value.keep(running, kept);
}

/// Declares a section of the configuration: the struct, its default, and its keys. Each key has a
/// block of options, which are methods of [`Key`](crate::config::declare::Key).
///
/// See [`config::declare`](crate::config::declare) for an example.
#[macro_export]
macro_rules! config_section {
    (
        $(#[doc = $about:literal])*
        #[derive($($derive:ident),* $(,)?)]
        $vis:vis struct $name:ident = $section:literal {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $ty:ty {
                    default: $default:expr, $why:literal;
                    $($option:ident: $argument:expr;)*
                }
            )*
        }
        $(also {
            $($(#[doc = $also_doc:literal])* $also:ident: $also_ty:ty = $also_default:expr;)*
        })?
    ) => {
        $(#[doc = $about])*
        #[derive($($derive),*)]
        $vis struct $name {
            $($(#[doc = $doc])* $vis $key: $ty,)*
            $($($(#[doc = $also_doc])* $vis $also: $also_ty,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($key: $default,)*
                    $($($also: $also_default,)*)?
                }
            }
        }

        $crate::config_keys! {
            $(#[doc = $about])*
            $name = $section {
                $(
                    $(#[doc = $doc])*
                    $key: $ty { why: $why; $($option: $argument;)* }
                )*
            }
        }
    };
}

/// Declares the keys of an existing struct. See [`config_section!`](crate::config_section).
#[macro_export]
macro_rules! config_keys {
    (
        $(#[doc = $about:literal])*
        $name:ident = $section:literal {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $ty:ty { $($option:ident: $argument:expr;)* }
            )*
        }
    ) => {
        impl $crate::config::declare::Table for $name {
            const SECTION: &'static str = $section;
            const ABOUT: &'static [&'static str] = &[$($about),*];

            fn visit(&self, other: &Self, visitor: &mut impl $crate::config::declare::Visit) {
                $(
                    let key = $crate::config_keys!(@key $section, $key, $ty, [$($doc),*])
                        $(.$option($argument))*;
                    visitor.key(&key, &self.$key, &other.$key);
                )*
            }

            fn change(&mut self, changer: &mut impl $crate::config::declare::Change) {
                $(
                    let key = $crate::config_keys!(@key $section, $key, $ty, [$($doc),*])
                        $(.$option($argument))*;
                    changer.key(&key, &mut self.$key);
                )*
            }

            fn keep(&mut self, running: &Self, kept: &mut Vec<&'static str>) {
                $(
                    let key = $crate::config_keys!(@key $section, $key, $ty, [$($doc),*])
                        $(.$option($argument))*;
                    $crate::config::declare::keep_key(&key, &mut self.$key, &running.$key, kept);
                )*
            }
        }
    };
    (@key $section:literal, $key:ident, $ty:ty, [$($doc:literal),*]) => {
        $crate::config::declare::Key::<$ty>::new(
            concat!($section, ".", stringify!($key)),
            stringify!($key),
            &[$($doc),*],
        )
    };
}

/// Implements [`Value`](crate::config::declare::Value) for a declared table, so that another table
/// can contain it.
#[macro_export]
macro_rules! config_table_values {
    ($($name:ty),* $(,)?) => {
        $(impl $crate::config::declare::Value for $name {
            type Bound = ();

            const IS_TABLE: bool = true;

            fn kind() -> String {
                "table".to_owned()
            }

            $crate::config_table_reading!();

            fn toml(&self) -> String {
                $crate::config::declare::print::inline_table(self)
            }

            fn print(
                &self,
                default: &Self,
                _: &'static str,
                printer: &mut $crate::config::declare::Printer<'_>,
            ) {
                $crate::config::declare::Table::visit(self, default, printer);
            }

            fn check(&self, checker: &mut $crate::config::declare::Checker<'_>) {
                $crate::config::declare::Table::visit(self, self, checker);
            }

            fn keep(&mut self, running: &Self, kept: &mut Vec<&'static str>) {
                $crate::config::declare::Table::keep(self, running, kept);
            }

            fn describe(
                row: $crate::config::declare::KeyReference,
                sections: &mut Vec<$crate::config::declare::SectionReference>,
            ) {
                $crate::config::declare::reference::nested::<Self>(row, "", sections);
            }
        })*
    };
}

/// Reads a declared table, for [`config_table_values!`](crate::config_table_values).
#[cfg(feature = "toml")]
#[doc(hidden)]
#[macro_export]
macro_rules! config_table_reading {
    () => {
        fn read(
            item: &$crate::config::declare::Item<'_, '_>,
            problems: &mut $crate::config::declare::Problems,
        ) -> Option<Self> {
            $crate::config::declare::read::table(item, problems)
        }

        fn update(
            &mut self,
            item: &$crate::config::declare::Item<'_, '_>,
            problems: &mut $crate::config::declare::Problems,
        ) {
            $crate::config::declare::read::update_table(self, item, problems);
        }
    };
}

/// Reads nothing, since no file can be parsed without the feature `toml`.
#[cfg(not(feature = "toml"))]
#[doc(hidden)]
#[macro_export]
macro_rules! config_table_reading {
    () => {};
}
