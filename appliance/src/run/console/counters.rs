//! Counters of the console.

use std::sync::atomic::{AtomicU64, Ordering};

/// Outcome of a request to the console, or of a connection that came to no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum Outcome {
    /// A page, a style sheet or a script was sent.
    Answered,
    /// The request has no token. A browser sends its first request without one.
    NoToken,
    /// The token is wrong.
    WrongToken,
    /// The source had too many wrong tokens, and its request was not examined.
    Limited,
    /// The request is neither GET nor HEAD.
    Method,
    /// There is no such page.
    NotFound,
    /// Another page took too long.
    Busy,
    /// A page has failed: a fault of the program.
    Failed,
    /// The handshake of TLS has failed, or the client has no valid certificate.
    Handshake,
}

impl Outcome {
    /// All outcomes, in the order of their counters.
    pub(in crate::run) const ALL: [Self; 9] = [
        Self::Answered,
        Self::NoToken,
        Self::WrongToken,
        Self::Limited,
        Self::Method,
        Self::NotFound,
        Self::Busy,
        Self::Failed,
        Self::Handshake,
    ];

    /// Returns the stable name.
    pub(in crate::run) const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::Limited => "limited",
            Self::Method => "method",
            Self::NotFound => "not_found",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Handshake => "handshake",
        }
    }
}

/// Counters of outcomes.
#[derive(Debug, Default)]
pub(in crate::run) struct ConsoleCounters([AtomicU64; Outcome::ALL.len()]);

impl ConsoleCounters {
    /// Counts an outcome.
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(count) = self.0.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns all outcomes with their counts.
    pub(in crate::run) fn values(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Outcome::ALL.into_iter().zip(counts)
    }
}
