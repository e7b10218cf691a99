//! Looks as lines, for outputs that are no terminal.

use super::super::error::SessionsError;
use super::super::table::{HEAD, amount, now, session, span};
use super::look::{Look, Rows, Totals};
use crate::run::protocol::{GroupView, SortKey, StatsView};
use crate::run::rates::TrafficRate;
use crate::run::view::ListedSession;

/// The head of a list of groups.
const GROUPS_HEAD: &str = "sessions   packets     bytes    age  group";

/// Look as a line of JSON.
#[derive(serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Row<'a> {
    found: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<&'a [ListedSession]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<&'a [GroupView]>,
    stats: &'a StatsView,
}

/// Returns a look as a line of JSON.
///
/// # Errors
/// Returns an error if the look cannot be written as JSON.
pub(super) fn json(look: &Look) -> Result<String, SessionsError> {
    let (sessions, groups) = match &look.rows {
        Rows::Sessions(rows) => (Some(rows.as_slice()), None),
        Rows::Groups(rows) => (None, Some(rows.as_slice())),
    };
    let row = Row {
        found: look.found,
        sessions,
        groups,
        stats: &look.stats,
    };
    serde_json::to_string(&row).map_err(|error| SessionsError::Answer(error.to_string()))
}

/// Returns a look as lines of text.
pub(super) fn text(look: &Look, before: Option<&Look>) -> Vec<String> {
    let stats = &look.stats;
    let totals = before.map(|before| Totals::between(before, look));
    let rate = |of: fn(&Totals) -> f64| {
        let rate = totals.as_ref().map(of);
        rate.map_or_else(|| "-".to_owned(), amount)
    };
    let health = if stats.unhealthy.is_empty() {
        "healthy"
    } else {
        "UNHEALTHY"
    };
    let head = match look.rows {
        Rows::Sessions(_) => HEAD,
        Rows::Groups(_) => GROUPS_HEAD,
    };
    let first = match look.request.sort {
        Some(SortKey::Age) => "that are the oldest".to_owned(),
        sort => format!("with the most {}", sort.unwrap_or(SortKey::Rate).name()),
    };
    let note = look.note.iter().map(|note| format!("; {note}"));
    let mut lines = vec![
        format!(
            "{health}, up for {}: {} of {} sessions, {}/s new, {} packets/s forwarded, {} \
             dropped/s, {} bytes/s",
            span(stats.uptime),
            stats.sessions,
            stats.max_sessions,
            rate(|totals| totals.opened),
            rate(|totals| totals.forwarded),
            rate(|totals| totals.dropped),
            rate(|totals| totals.bytes),
        ),
        format!(
            "the {} of {} {first}{}",
            look.rows.len(),
            look.found,
            note.collect::<String>()
        ),
        format!("{:>8}  {head}", "bytes/s"),
    ];
    let now = now();
    let row = |rate: Option<TrafficRate>, row: String| {
        let rate = rate.map_or_else(|| "-".to_owned(), |rate| amount(rate.bytes));
        format!("{rate:>8}  {row}")
    };
    match &look.rows {
        Rows::Sessions(rows) => {
            lines.extend(rows.iter().map(|view| row(view.rate, session(view, now))));
        }
        Rows::Groups(rows) => {
            lines.extend(rows.iter().map(|view| row(view.rate, group(view, now))));
        }
    }
    lines
}

/// Returns a group in columns.
fn group(view: &GroupView, now: f64) -> String {
    format!(
        "{:>8}  {:>8}  {:>8}  {:>5}  {}",
        view.sessions,
        amount(view.packets as f64),
        amount(view.bytes as f64),
        span(now - view.start),
        view.name
    )
}
