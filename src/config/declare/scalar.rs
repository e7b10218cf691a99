//! Single values: strings, numbers, booleans and dates.

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
