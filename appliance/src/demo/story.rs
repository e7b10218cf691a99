//! Steps of a demo and their outcome, as text of 80 columns or as JSON.

#[cfg(test)]
use std::collections::BTreeMap;
use std::io::{self, Write as _};

use portcullis::{DropReason, Malformed};
use serde::Serialize;

use super::error::DemoError;
use crate::counts;
use crate::run::protocol::StatsView;

/// Columns of the text.
const COLUMNS: usize = 80;
/// Columns before the text of a step.
const INDENT: usize = 23;

/// A step of the demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Step {
    /// Name of the step.
    pub(crate) name: &'static str,
    /// Whether the result is the expected one.
    pub(crate) ok: bool,
    /// The result in words.
    pub(crate) text: String,
    /// The result in numbers.
    #[serde(serialize_with = "counts::serialize")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) counts: Vec<(String, u64)>,
}

impl Step {
    /// Returns a step with its numbers.
    pub(crate) fn new<const N: usize>(
        name: &'static str,
        ok: bool,
        text: String,
        counts: [Count; N],
    ) -> Self {
        let counts = counts.map(|Count(name, count)| (name.to_owned(), count));
        Self {
            name,
            ok,
            text,
            counts: counts.into(),
        }
    }
}

/// A number of a step with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) &'static str, pub(crate) u64);

/// The whole result.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Ending<'a> {
    /// Whether every step has its expected result.
    ok: bool,
    steps: &'a [Step],
    sessions_opened: u64,
    /// Forwarded packets by class.
    #[serde(serialize_with = "counts::serialize")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    forwarded: Vec<(String, u64)>,
    /// Dropped packets by reason.
    #[serde(serialize_with = "counts::serialize")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    dropped: Vec<(String, u64)>,
    /// Path of the control socket of a kept demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<&'a str>,
    /// URL of the metrics of a kept demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<&'a str>,
    /// URL of the web console of a kept demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<&'a str>,
    /// Token of that console.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// Places at which a running demo can be examined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Path of the control socket.
    pub(crate) control: &'a str,
    /// URL of the metrics.
    pub(crate) metrics: &'a str,
    /// URL of the web console.
    pub(crate) console: &'a str,
    /// Token of the console.
    pub(crate) token: &'a str,
}

/// Writer of the story. With JSON, it writes nothing before the end.
#[derive(Debug)]
pub(crate) struct Story {
    json: bool,
    steps: Vec<Step>,
}

impl Story {
    /// Returns a story without steps.
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            steps: Vec::new(),
        }
    }

    /// Writes lines of text, unless the result is JSON.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub(crate) fn say(&self, text: &str) -> Result<(), DemoError> {
        if self.json {
            return Ok(());
        }
        print(text)
    }

    /// Records a step.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub(crate) fn record(&mut self, step: Step) -> Result<(), DemoError> {
        let mark = if step.ok { "ok" } else { "FAILED" };
        let head = format!("  {mark:<6} {:<13} ", step.name);
        self.say(&format!("{head}{}\n", wrapped(&step.text, INDENT)))?;
        self.steps.push(step);
        Ok(())
    }

    /// Writes the appliance's counters, or the whole result as JSON. A kept demo has places.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub(crate) fn finish(
        &self,
        stats: &StatsView,
        places: Option<Places<'_>>,
    ) -> Result<(), DemoError> {
        if !self.json {
            return print(&counted(stats));
        }
        let ending = self.ending(stats, places);
        let json =
            serde_json::to_string(&ending).map_err(|error| DemoError::Output(error.into()))?;
        print(&format!("{json}\n"))
    }

    fn ending<'a>(&'a self, stats: &StatsView, places: Option<Places<'a>>) -> Ending<'a> {
        Ending {
            ok: self.failed().is_empty(),
            steps: &self.steps,
            sessions_opened: stats.sessions_opened,
            forwarded: stats.forwarded.clone(),
            dropped: stats.dropped.clone(),
            control: places.map(|places| places.control),
            metrics: places.map(|places| places.metrics),
            console: places.map(|places| places.console),
            token: places.map(|places| places.token),
        }
    }

    /// Returns the names of the steps with an unexpected result.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        let failed = self.steps.iter().filter(|step| !step.ok);
        failed.map(|step| step.name).collect()
    }
}

fn print(text: &str) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(DemoError::Output)
}

/// Returns the counters in words.
fn counted(stats: &StatsView) -> String {
    let total = |counts: &[(String, u64)]| number(counts.iter().map(|(_, count)| count).sum());
    let mut text = format!(
        "\nCounted: {} sessions, {} packets forwarded, {} packets dropped:\n",
        number(stats.sessions_opened),
        total(&stats.forwarded),
        total(&stats.dropped)
    );
    let mut dropped = stats.dropped.clone();
    dropped.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (name, count) in &dropped {
        let head = format!("{:>9}  {name}", number(*count));
        let words = wrapped(meaning(name), 11);
        text += &format!("{head}\n{:11}{words}\n", "");
    }
    text
}

/// Returns the first sentence about a drop reason.
fn meaning(name: &str) -> &'static str {
    let malformed = Malformed::ALL.iter().copied().map(DropReason::Malformed);
    let mut reasons = DropReason::TRACKING.iter().copied().chain(malformed);
    let reason = reasons.find(|reason| reason.name() == name);
    let words = reason.map_or("", DropReason::describe);
    words.split_inclusive(". ").next().unwrap_or(words).trim()
}

/// Returns a number with separators between its thousands.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a text in lines of at most [`COLUMNS`] columns, of which all but the first are indented.
/// Line breaks of the text stay.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in line.split_whitespace() {
            let columns = current.chars().count() + 1 + word.chars().count();
            if !current.is_empty() && indent + columns > COLUMNS {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        let of = |numbers: [u64; 5]| numbers.map(number);
        assert_eq!(
            of([0, 999, 1000, 123_456, 1_234_567]),
            ["0", "999", "1,000", "123,456", "1,234,567"]
        );
    }

    #[test]
    fn text_fits_the_columns_and_keeps_its_words() {
        let text = "a few words ".repeat(40);
        let lines = wrapped(&text, INDENT);
        assert!(
            lines
                .lines()
                .skip(1)
                .all(|line| line.chars().count() <= COLUMNS)
        );
        assert!(lines.lines().next().unwrap().chars().count() + INDENT <= COLUMNS);
        assert_eq!(
            lines.split_whitespace().collect::<Vec<_>>(),
            text.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(wrapped("one\n  two", 3), "one\n   two");
    }

    #[test]
    fn every_counter_of_drops_has_its_meaning() {
        let stats = StatsView {
            sessions_opened: 1_234,
            forwarded: vec![("new".to_owned(), 2), ("established".to_owned(), 5_000)],
            dropped: vec![
                ("tcp_flags".to_owned(), 25),
                ("policy_deny".to_owned(), 1_022),
            ],
            ..StatsView::default()
        };
        let text = counted(&stats);
        let opened = "\nCounted: 1,234 sessions, 5,002 packets forwarded, 1,047 packets \
                      dropped:\n    1,022  policy_deny\n";
        assert!(text.starts_with(opened), "{text}");
        assert!(
            text.contains("\n       25  tcp_flags\n           The combination "),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
    }

    #[test]
    fn the_schema_is_up_to_date_with_the_object_like_every_page() {
        crate::schema::check::<Ending<'_>>("demo");
    }

    #[test]
    fn the_places_of_a_demo_that_is_not_kept_are_left_out() {
        let story = Story::new(true);
        let object = |places| {
            let ending = story.ending(&StatsView::default(), places);
            serde_json::to_value(&ending).unwrap()
        };
        let places = Places {
            control: "/run/control",
            metrics: "http://127.0.0.1:1/metrics",
            console: "http://127.0.0.1:2/",
            token: "token",
        };
        for name in ["control", "metrics", "console", "token"] {
            assert!(object(Some(places))[name].is_string(), "{name}");
            assert!(object(None).get(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_failed_step_is_named() {
        let mut story = Story::new(true);
        for (name, ok) in [("ping", true), ("FTP", false)] {
            let step = Step::new(name, ok, String::new(), [Count("sent", 1)]);
            story.record(step).unwrap();
        }
        assert_eq!(story.failed(), ["FTP"]);
    }
}
