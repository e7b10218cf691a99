//! State of the store, as `portcullis sessions store` shows it.

#[cfg(test)]
use std::collections::BTreeMap;
use std::time::Instant;

use portcullis::Stats;
use serde::{Deserialize, Serialize};

use super::handle::StoreHandle;
use super::state::{Counted, LinkName, LinkState};
use crate::counts;

/// A connection to the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LinkView {
    /// `writes` or `questions`.
    pub(crate) name: String,
    pub(crate) is_up: bool,
    /// Seconds in this state.
    pub(crate) since: f64,
    /// Reason of the last failure, if the connection is down.
    pub(crate) error: Option<String>,
}

/// State of the store. Things that never occurred are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct StoreView {
    /// Random bytes that name this start of the appliance.
    pub(crate) owner: String,
    pub(crate) connections: Vec<LinkView>,
    /// Refused commands and failed threads of the last seconds.
    pub(crate) troubles: Vec<String>,
    /// Records that wait to be written.
    pub(crate) waiting: u64,
    pub(crate) written_bytes: u64,
    /// Microseconds from the last packet that the store was asked about to the answer.
    pub(crate) answer_us: u64,
    /// Longest time from a packet that the store was asked about to the answer, in microseconds.
    pub(crate) longest_answer_us: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) events: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) questions: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) answers: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) unasked: Vec<(String, u64)>,
    pub(crate) timed_out: u64,
    pub(crate) packets_held: u64,
}

/// Returns names with their counts, without those that never occurred.
fn named<'n>(counts: impl IntoIterator<Item = (&'n str, u64)>) -> Vec<(String, u64)> {
    counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

impl StoreView {
    /// Returns the state of a store and of the engine's questions.
    pub(crate) fn of(store: &StoreHandle, stats: &Stats, now: Instant) -> Self {
        let state = &store.state;
        let questions = &stats.questions;
        let [last, longest] = state
            .answer_times()
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Self {
            owner: store.owner().to_string(),
            connections: LinkName::ALL
                .map(|name| LinkView::of(name, &state.state(name), now))
                .into(),
            troubles: state.troubles.current(now),
            waiting: state.waiting() as u64,
            written_bytes: state.written_bytes(),
            answer_us: last,
            longest_answer_us: longest,
            events: named(Counted::ALL.map(|what| (what.name(), state.counters.of(what)))),
            questions: named(questions.asked.iter().map(|(kind, n)| (kind.name(), *n))),
            answers: named(questions.answered.iter().map(|(kind, n)| (kind.name(), *n))),
            unasked: named(questions.unasked.iter().map(|(kind, n)| (kind.name(), *n))),
            timed_out: questions.timed_out,
            packets_held: questions.packets_held,
        }
    }
}

impl LinkView {
    fn of(name: LinkName, state: &LinkState, now: Instant) -> Self {
        let (since, error) = match state {
            LinkState::Up(since) => (*since, None),
            LinkState::Down(since, error) => (*since, error.as_ref().map(ToString::to_string)),
        };
        Self {
            name: name.name().to_owned(),
            is_up: state.is_up(),
            since: now.saturating_duration_since(since).as_secs_f64(),
            error,
        }
    }
}
