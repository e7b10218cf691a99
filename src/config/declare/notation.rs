//! TOML notation of single values.
use std::fmt;
use std::time::Duration;

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
