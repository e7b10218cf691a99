//! Values in force, each with its origin.
use std::fmt;

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The path of the key, such as `lifetimes.tcp.established`; indices in lists count from 0.
    pub key: String,
    /// The value as TOML, such as an inline table for a rule; empty for a key that is not set.
    pub value: String,
    /// Whether the value is the default.
    pub is_default: bool,
    /// The origin of the value.
    pub origin: Origin,
}

impl fmt::Display for EffectiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            return write!(f, "# {} is not set: {}", self.key, self.origin);
        }
        write!(f, "{} = {}  # {}", self.key, self.value, self.origin)
    }
}

/// The origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default {
        /// The reason for the default, in one clause.
        source: &'static str,
    },
    /// The value of another key, which was set.
    Follows {
        /// The other key, below `lifetimes`.
        key: &'static str,
    },
    /// A setting.
    File {
        /// The line, counted from 1; `None` if it was set in code.
        line: Option<usize>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { source } => write!(f, "default: {source}"),
            Self::Follows { key } => write!(f, "as {key}"),
            Self::File { line: Some(line) } => write!(f, "line {line}"),
            Self::File { line: None } => f.write_str("set in code"),
        }
    }
}
