//! The result of a check as JSON.

use std::io;

use portcullis::config::{ConfigError, ConfigErrors, EffectiveValue, Origin};
use serde_json::{Value, json};

use super::Report;

/// Returns the result of a check: whether the file is valid, its errors, warnings and values, and
/// the memory that its tables take.
pub(super) fn object(name: &str, report: &Result<Report, ConfigErrors>) -> Value {
    match report {
        Ok(report) => json!({
            "file": name,
            "valid": true,
            "errors": [],
            "warnings": report.warnings,
            "values": report.values.iter().map(value).collect::<Value>(),
            "memory": {
                "total_bytes": report.memory.total(),
                "parts": report.memory.parts().iter().map(|part| json!({
                    "name": part.name,
                    "key": part.key,
                    "bytes": part.bytes,
                    "reserved": part.reserved,
                })).collect::<Value>(),
            },
        }),
        Err(errors) => json!({
            "file": name,
            "valid": false,
            "errors": errors.iter().map(error).collect::<Value>(),
            "may_have_more_errors": errors.may_have_more(),
            "warnings": [],
            "values": [],
        }),
    }
}

/// Returns the result of a check of a file that cannot be read.
pub(super) fn unreadable(name: &str, source: &io::Error) -> Value {
    json!({
        "file": name,
        "valid": false,
        "errors": [{
            "file": name,
            "line": null,
            "column": null,
            "key": "",
            "message": source.to_string(),
        }],
        "may_have_more_errors": false,
        "warnings": [],
        "values": [],
    })
}

fn error(error: &ConfigError) -> Value {
    let location = &error.location;
    json!({
        "file": location.file,
        "line": location.line,
        "column": location.text.as_ref().map(|text| text.column),
        "key": location.key,
        "message": error.message(),
    })
}

/// Returns a value: as TOML, or `null` if the key is not set.
fn value(value: &EffectiveValue) -> Value {
    let origin = match value.origin {
        Origin::Default { source } => json!({ "kind": "default", "reason": source }),
        Origin::Follows { key } => json!({ "kind": "follows", "key": format!("lifetimes.{key}") }),
        Origin::File { line } => json!({ "kind": "file", "line": line }),
    };
    json!({
        "key": value.key,
        "toml": (!value.value.is_empty()).then_some(&value.value),
        "is_default": value.is_default,
        "origin": origin,
    })
}
