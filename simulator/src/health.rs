//! Health of a target, from the results of its checks.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

/// Settings of the checks. Defaults and ranges are those of AWS if the options state so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthCheck {
    /// Protocol, port and, for HTTP, path and accepted status codes.
    pub(super) probe: Probe,
    /// Time between the starts of two checks of a target.
    pub(super) interval: Duration,
    /// Time after which a check has failed; at most `interval`.
    pub(super) timeout: Duration,
    /// Consecutive successes after which an unhealthy target is healthy.
    pub(super) healthy_threshold: u8,
    /// Consecutive failures after which a target is unhealthy.
    pub(super) unhealthy_threshold: u8,
}

/// Request of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// TCP port of the target.
    pub(super) port: u16,
    /// HTTP request; `None` for a check that only connects.
    pub(super) http: Option<HttpProbe>,
}

/// Request of a check by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpProbe {
    /// Path, which begins with a slash.
    pub(super) path: String,
    /// Status codes of a successful check.
    pub(super) codes: Vec<RangeInclusive<u16>>,
}

impl HttpProbe {
    /// Returns whether a check with this status code is successful.
    pub(super) fn accepts(&self, code: u16) -> bool {
        self.codes.iter().any(|codes| codes.contains(&code))
    }
}

/// Reason for which a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckFailure {
    /// The connection was refused, or no route exists.
    Unreachable,
    /// No answer arrived in time.
    Timeout,
    /// The answer has a status code that is not accepted.
    Code(u16),
    /// The answer is not HTTP.
    Malformed,
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("connection refused or unreachable"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Code(code) => write!(f, "status code {code}"),
            Self::Malformed => f.write_str("malformed answer"),
        }
    }
}

/// Result of a check.
pub(super) type CheckResult = Result<(), CheckFailure>;

/// State of a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum HealthState {
    /// Too few checks have ended.
    Initial,
    /// The target receives new flows.
    Healthy,
    /// The target receives new flows only if no target is healthy.
    Unhealthy,
}

/// Health of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    state: HealthState,
    /// Consecutive results that contradict `state`.
    against: u8,
    /// Checks that succeeded and checks that failed.
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Health {
    /// Returns the health of a target before its first check, or of one that is never checked.
    pub(super) const fn new(checked: bool) -> Self {
        Self {
            state: if checked {
                HealthState::Initial
            } else {
                HealthState::Healthy
            },
            against: 0,
            passed: 0,
            failed: 0,
        }
    }

    /// Returns the state.
    pub(super) const fn state(&self) -> HealthState {
        self.state
    }

    /// Records the result of a check, and returns the new state if it changed.
    ///
    /// A target in [`HealthState::Initial`] is healthy after one success.
    pub(super) fn record(&mut self, passed: bool, check: &HealthCheck) -> Option<HealthState> {
        *if passed {
            &mut self.passed
        } else {
            &mut self.failed
        } += 1;
        let (other, threshold) = match (self.state, passed) {
            (HealthState::Initial, true) => (HealthState::Healthy, 1),
            (HealthState::Unhealthy, true) => (HealthState::Healthy, check.healthy_threshold),
            (HealthState::Initial | HealthState::Healthy, false) => {
                (HealthState::Unhealthy, check.unhealthy_threshold)
            }
            (HealthState::Healthy, true) | (HealthState::Unhealthy, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < threshold {
            return None;
        }
        (self.state, self.against) = (other, 0);
        Some(other)
    }

    /// Starts again, as for a target that is registered again. The counts of checks stay.
    pub(super) fn restart(&mut self, checked: bool) {
        *self = Self {
            passed: self.passed,
            failed: self.failed,
            ..Self::new(checked)
        };
    }
}
