//! The result of a check as JSON.

use std::io;

use portcullis::MemoryPart;
use portcullis::config::{ConfigError, ConfigErrors, EffectiveValue, Origin};
use serde::Serialize;

use super::Report;

/// Result of a check: whether the file is valid, its errors, warnings and values, and the memory
/// that its tables take.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CheckRow<'r> {
    file: &'r str,
    valid: bool,
    errors: Vec<ErrorRow<'r>>,
    /// Whether an error hides others; of an invalid file.
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_more_errors: Option<bool>,
    warnings: &'r [String],
    values: Vec<ValueRow<'r>>,
    /// Memory of the tables; of a valid file.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryRow>,
    /// Interfaces of AF_XDP that a start would use; absent where packets take the socket path.
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<&'r str>,
}

/// Error of a file.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ErrorRow<'r> {
    file: Option<&'r str>,
    line: Option<usize>,
    column: Option<usize>,
    /// The key; empty if the error is not of a key.
    key: &'r str,
    message: String,
}

/// Value in force.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ValueRow<'r> {
    key: &'r str,
    /// The value as TOML; `null` if the key is not set.
    toml: Option<&'r str>,
    is_default: bool,
    origin: OriginRow,
}

/// Origin of a value.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
enum OriginRow {
    /// The default, and the reason for it.
    Default { reason: &'static str },
    /// Another key, whose value holds for this one.
    Follows { key: String },
    /// A line of the file.
    File { line: Option<usize> },
}

/// Memory of the tables.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct MemoryRow {
    total_bytes: u64,
    parts: Vec<PartRow>,
}

/// Memory of a table.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PartRow {
    name: &'static str,
    /// The key that bounds the table.
    key: &'static str,
    bytes: u64,
    /// Whether the memory is reserved at the start.
    reserved: bool,
}

impl<'r> CheckRow<'r> {
    /// Returns the result of a check.
    pub(super) fn new(name: &'r str, report: &'r Result<Report, ConfigErrors>) -> Self {
        let invalid = Self {
            file: name,
            valid: false,
            errors: Vec::new(),
            may_have_more_errors: None,
            warnings: &[],
            values: Vec::new(),
            memory: None,
            io: None,
        };
        match report {
            Ok(report) => Self {
                valid: true,
                warnings: &report.warnings,
                values: report.values.iter().map(ValueRow::new).collect(),
                memory: Some(MemoryRow {
                    total_bytes: report.memory.total(),
                    parts: report.memory.parts().iter().map(PartRow::new).collect(),
                }),
                io: report.io.as_deref(),
                ..invalid
            },
            Err(errors) => Self {
                errors: errors.iter().map(ErrorRow::new).collect(),
                may_have_more_errors: Some(errors.may_have_more()),
                ..invalid
            },
        }
    }

    /// Returns the result of a check of a file that cannot be read.
    pub(super) fn unreadable(name: &'r str, source: &io::Error) -> Self {
        Self {
            file: name,
            valid: false,
            errors: vec![ErrorRow {
                file: Some(name),
                line: None,
                column: None,
                key: "",
                message: source.to_string(),
            }],
            may_have_more_errors: Some(false),
            warnings: &[],
            values: Vec::new(),
            memory: None,
            io: None,
        }
    }
}

impl<'r> ErrorRow<'r> {
    fn new(error: &'r ConfigError) -> Self {
        let location = &error.location;
        Self {
            file: location.file.as_deref(),
            line: location.line,
            column: location.text.as_ref().map(|text| text.column),
            key: &location.key,
            message: error.message(),
        }
    }
}

impl<'r> ValueRow<'r> {
    fn new(value: &'r EffectiveValue) -> Self {
        Self {
            key: &value.key,
            toml: (!value.value.is_empty()).then_some(&value.value),
            is_default: value.is_default,
            origin: match value.origin {
                Origin::Default { source } => OriginRow::Default { reason: source },
                Origin::Follows { key } => OriginRow::Follows {
                    key: format!("lifetimes.{key}"),
                },
                Origin::File { line } => OriginRow::File { line },
            },
        }
    }
}

impl PartRow {
    const fn new(part: &MemoryPart) -> Self {
        Self {
            name: part.name,
            key: part.key,
            bytes: part.bytes,
            reserved: part.reserved,
        }
    }
}
