//! Single values: strings, numbers, booleans and dates.
use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;

use super::bound::Bound;

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

/// Reads the name of a choice with the type's own implementation of [`Deserialize`].
///
/// # Errors
/// Returns the known names.
pub fn choice<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Wrong> {
    T::deserialize(StrDeserializer::<UnknownName>::new(text))
        .map_err(|UnknownName(known)| Wrong::Choice(known))
}

/// Collects the names of a choice, from the error about an unknown one.
#[derive(Debug)]
struct UnknownName(&'static [&'static str]);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for UnknownName {}

impl serde::de::Error for UnknownName {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
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

/// Implements the key values for enums that implement [`Deserialize`] and have a `name`.
#[macro_export]
macro_rules! config_choices {
    ($($name:ty),* $(,)?) => {
        $(impl $crate::config::declare::Scalar for $name {
            type Bound = ();

            const EXPECTED: &'static str = "a name in quotes";

            fn kind() -> String {
                $crate::config::declare::choices_text::<Self>()
            }

            fn from_text(text: &str) -> Result<Self, $crate::config::declare::Wrong> {
                $crate::config::declare::choice(text)
            }

            fn written(&self) -> String {
                format!("\"{}\"", self.name())
            }
        })*
    };
}
