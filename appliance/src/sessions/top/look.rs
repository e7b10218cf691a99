//! Answers of the appliance that make a look: sessions or groups, and counters.

use std::time::Instant;

use super::super::client::Client;
use super::super::error::SessionsError;
use crate::run::protocol::{GroupView, ListingRequest, Reply, Request, StatsView};
use crate::run::view::ListedSession;

/// Rows of a look, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rows {
    Sessions(Vec<ListedSession>),
    Groups(Vec<GroupView>),
}

/// State of the appliance at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) request: ListingRequest,
    pub(super) rows: Rows,
    /// Number of the sessions or groups that the filter selects.
    pub(super) found: u64,
    /// Note of the appliance on the rows.
    pub(super) note: Option<String>,
    pub(super) stats: StatsView,
}

impl Rows {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Sessions(rows) => rows.len(),
            Self::Groups(rows) => rows.len(),
        }
    }
}

impl Look {
    /// Asks for the rows and the counters.
    ///
    /// # Errors
    /// Returns an error if the appliance refuses, or no longer answers.
    pub(super) fn ask(client: &mut Client, request: ListingRequest) -> Result<Self, SessionsError> {
        let (mut sessions, mut groups) = (Vec::new(), Vec::new());
        let (mut found, mut note) = (0, None);
        for reply in client.ask(&Request::Sessions(request.clone()))? {
            match reply {
                Reply::Session(view) => sessions.push(*view),
                Reply::Group(view) => groups.push(*view),
                Reply::Done { count, text } => (found, note) = (count, text),
                _ => {}
            }
        }
        let stats = client
            .ask(&Request::Stats)?
            .into_iter()
            .find_map(|reply| match reply {
                Reply::Stats(stats) => Some(*stats),
                _ => None,
            });
        Ok(Self {
            at: Instant::now(),
            rows: match request.group {
                None => Rows::Sessions(sessions),
                Some(_) => Rows::Groups(groups),
            },
            request,
            found,
            note,
            stats: stats.unwrap_or_default(),
        })
    }

    /// Returns whether a row has a rate: a first look has none.
    pub(super) fn has_rates(&self) -> bool {
        match &self.rows {
            Rows::Sessions(rows) => rows.iter().any(|row| row.rate.is_some()),
            Rows::Groups(rows) => rows.iter().any(|row| row.rate.is_some()),
        }
    }
}

/// Rates of the appliance as a whole, per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Totals {
    pub(super) opened: f64,
    pub(super) forwarded: f64,
    pub(super) dropped: f64,
    pub(super) bytes: f64,
}

impl Totals {
    /// Returns the rates between two looks. A counter that has gone back, because the appliance was
    /// started again, counts as 0.
    pub(super) fn between(before: &Look, look: &Look) -> Self {
        let elapsed = look.at.saturating_duration_since(before.at);
        let seconds = elapsed.as_secs_f64().max(0.001);
        let (then, now) = (&before.stats, &look.stats);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Self {
            opened: rate(now.sessions_opened, then.sessions_opened),
            forwarded: rate(total(&now.forwarded), total(&then.forwarded)),
            dropped: rate(total(&now.dropped), total(&then.dropped)),
            bytes: rate(now.forwarded_bytes, then.forwarded_bytes),
        }
    }
}

/// Returns the sum of the counts of a group.
fn total(counts: &[(String, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}
