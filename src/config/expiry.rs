//! Expiry of a rule: a moment, written as a date or with time and offset.
#[cfg(feature = "toml")]
use std::time::Duration;
use std::time::SystemTime;

#[cfg(feature = "toml")]
use toml::value::{Datetime, Offset};

use super::declare::Scalar;
#[cfg(feature = "toml")]
use super::declare::Wrong;
use super::{Config, PolicyConfig, RuleConfig};

const EXPECTED: &str =
    "a date such as 2027-01-31 (its beginning, in UTC), or a time such as 2027-01-31T18:00:00Z";

/// Returns the moment of a TOML date or time.
#[cfg(feature = "toml")]
fn moment(text: &str) -> Result<SystemTime, String> {
    let wrong = || format!("`{text}` is no moment: write {EXPECTED}");
    let value: Datetime = text.trim().parse().map_err(|_| wrong())?;
    let (date, time) = (value.date.ok_or_else(wrong)?, value.time);
    let shift = match (time, value.offset) {
        (None, None) | (Some(_), Some(Offset::Z)) => 0,
        (Some(_), Some(Offset::Custom { minutes })) => i64::from(minutes),
        _ => return Err(format!("`{text}` has no offset from UTC: write {EXPECTED}")),
    };
    let (hour, minute, second) = time.map_or((0, 0, 0), |time| {
        (time.hour, time.minute, time.second.unwrap_or_default())
    });
    let utc = format!("{date}T{hour:02}:{minute:02}:{second:02}Z");
    let local = humantime::parse_rfc3339(&utc).map_err(|_| wrong())?;
    let distance = Duration::from_secs(shift.unsigned_abs() * 60);
    let shifted = if shift < 0 {
        local.checked_add(distance)
    } else {
        local.checked_sub(distance)
    };
    // Only moments that can be written again are accepted: the years 1970 to 9999 in UTC.
    let can_be_written = |moment: &SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        since.is_ok_and(|since| since.as_secs() < 253_402_300_800)
    };
    shifted.filter(can_be_written).ok_or_else(wrong)
}

/// Returns a moment in TOML notation.
pub(super) fn written(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string()
}

/// A date or time, quoted or unquoted.
impl Scalar for SystemTime {
    type Bound = ();

    const EXPECTED: &'static str = EXPECTED;

    fn kind() -> String {
        "date or time".to_owned()
    }

    #[cfg(feature = "toml")]
    fn from_text(text: &str) -> Result<Self, Wrong> {
        moment(text).map_err(Wrong::Other)
    }

    #[cfg(feature = "toml")]
    fn from_moment(text: &str) -> Result<Self, Wrong> {
        moment(text).map_err(Wrong::Other)
    }

    fn written(&self) -> String {
        written(*self)
    }
}

impl PolicyConfig {
    /// Returns whether a rule has expired as of [`Self::as_of`].
    #[must_use]
    pub fn has_expired(&self, rule: &RuleConfig) -> bool {
        matches!((rule.expires, self.as_of), (Some(expires), Some(now)) if expires <= now)
    }

    /// Returns whether a rule is enabled and has not expired.
    #[must_use]
    pub fn is_in_force(&self, rule: &RuleConfig) -> bool {
        rule.enabled && !self.has_expired(rule)
    }
}

impl Config {
    /// Returns the time at which the next rule expires: the earliest moment after
    /// [`PolicyConfig::as_of`] at which an enabled rule expires. The caller then reloads the same
    /// configuration with that moment, or a later one, in `policy.as_of`. Returns `None` if no rule
    /// expires later.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let policy = &self.policy;
        let rules = policy.rules.iter().filter(|rule| policy.is_in_force(rule));
        rules.filter_map(|rule| rule.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_has_an_offset() {
        for (text, utc) in [
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T18:00:00Z", "2027-01-31T18:00:00Z"),
            ("2027-01-31 18:00:00+02:00", "2027-01-31T16:00:00Z"),
            ("2027-01-31T23:30:00-01:30", "2027-02-01T01:00:00Z"),
        ] {
            assert_eq!(moment(text).map(written).as_deref(), Ok(utc), "{text}");
        }
        for text in [
            "2027-02-30",
            "2027-01-31T18:00:00",
            "18:00:00",
            "tomorrow",
            "",
            "1969-12-31",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
