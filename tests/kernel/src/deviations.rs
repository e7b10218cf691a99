//! Kinds of deviation from Linux, and the list of known ones with their reasons.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The list that belongs to the tool.
const LIST: &str = include_str!("../deviations.toml");

/// Number of stories stored of a kind.
const EXAMPLES: usize = 2;

/// Kind of deviation: the properties that deviations of one entry share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Verdict of Linux: a class, or `state` and the connection's state.
    pub linux: String,
    /// Verdict of the engine: class and direction or drop reason, or `state` and the session's
    /// state.
    pub ours: String,
    /// The session's state before the packet, in the engine; `-` for none.
    pub state: String,
    /// The segment's flags, with `>` or `<` before them for its direction in the session, if it has
    /// a session.
    pub segment: String,
    /// Kinds of earlier segments in the connection; `-` for none of note.
    pub after: String,
    /// Whether segments are forged in the conversation.
    pub attacked: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            linux,
            ours,
            state,
            segment,
            after,
            attacked,
        } = self;
        let honest = if *attacked { "" } else { ", no attacker" };
        write!(
            f,
            "Linux {linux:<24} ours {ours:<36} in {state:<12} segment {segment:<12} after \
             {after}{honest}"
        )
    }
}

/// An entry of the list. `*` matches anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    linux: Vec<String>,
    ours: Vec<String>,
    states: Vec<String>,
    segments: Vec<String>,
    after: Option<Vec<String>>,
    #[serde(default)]
    honest: bool,
    reason: String,
    /// Largest share of all packets.
    max_share: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    deviation: Vec<Known>,
}

/// Number and examples of the deviations of a kind.
#[derive(Debug, Default)]
struct Found {
    count: u64,
    stories: Vec<String>,
}

/// All deviations of a run.
#[derive(Debug, Default)]
pub struct Deviations {
    found: BTreeMap<Kind, Found>,
}

impl Deviations {
    /// Adds a deviation. Its story is only created if it will be stored.
    pub fn add(&mut self, kind: Kind, story: impl FnOnce() -> String) {
        let found = self.found.entry(kind).or_default();
        found.count += 1;
        if found.stories.len() < EXAMPLES {
            found.stories.push(story());
        }
    }

    /// Returns the number of deviations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.found.values().map(|found| found.count).sum()
    }

    /// Prints a line for each entry of the list, and every kind without an entry with its stories;
    /// with `all`, every kind. Returns whether all kinds are listed and no entry covers too many
    /// packets. Entries that cover no packets are only printed, since some are rare.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read.
    pub fn report(&self, packets: u64, all: bool) -> Result<bool> {
        let list: List = toml::from_str(LIST).context("deviations.toml")?;
        let mut counts = vec![0u64; list.deviation.len()];
        let mut unlisted = 0;
        for (kind, found) in &self.found {
            let known = list.deviation.iter().position(|known| known.covers(kind));
            match known.and_then(|at| counts.get_mut(at)) {
                Some(count) => *count += found.count,
                None => unlisted += found.count,
            }
            if known.is_none() || all {
                println!("{:>7}  {kind}", found.count);
                match known.and_then(|at| list.deviation.get(at)) {
                    Some(known) => println!("         listed: {}", known.reason),
                    None => println!("         NOT LISTED"),
                }
                for story in &found.stories {
                    println!("{story}");
                }
            }
        }
        let mut well = unlisted == 0;
        println!("deviations by entry of deviations.toml, and how many it may cover:");
        for (known, count) in list.deviation.iter().zip(counts) {
            let most = known.max_share * packets as f64;
            let note = match count {
                0 => "  not met in this run",
                _ if count as f64 > most => {
                    well = false;
                    "  TOO MANY"
                }
                _ => "",
            };
            println!("{count:>7} of {most:>5.0}  {}{note}", known.headline());
        }
        println!("{unlisted:>7}           in no entry");
        Ok(well)
    }
}

impl Known {
    /// The beginning of the reason.
    fn headline(&self) -> String {
        self.reason.chars().take(96).collect()
    }

    fn covers(&self, kind: &Kind) -> bool {
        let fits = |patterns: &[String], value: &str| {
            patterns.iter().any(|pattern| matches(pattern, value))
        };
        (self.honest || kind.attacked)
            && fits(&self.linux, &kind.linux)
            && fits(&self.ours, &kind.ours)
            && fits(&self.states, &kind.state)
            && fits(&self.segments, &kind.segment)
            && self
                .after
                .as_ref()
                .is_none_or(|after| fits(after, &kind.after))
    }
}

/// Returns whether a value matches a pattern in which `*` matches anything.
fn matches(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((prefix, rest)) => value.strip_prefix(prefix).is_some_and(|value| {
            rest.is_empty()
                || value
                    .char_indices()
                    .any(|(at, _)| value.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_nothing() {
        assert!(matches("*after a bad one", ">A after a bad one"));
        assert!(matches(">R* ack 0*", ">RA ack 0"));
        assert!(!matches(">R* ack 0*", ">RA"));
        assert!(matches("state *", "state CLOSE"));
    }

    #[test]
    fn an_entry_that_is_not_honest_needs_an_attacker() {
        let known = Known {
            linux: vec!["EST*".to_owned()],
            ours: vec!["invalid tcp_ack_of_unseen".to_owned()],
            states: vec!["*".to_owned()],
            segments: vec![">R*".to_owned()],
            after: Some(vec!["*SYN passed*".to_owned()]),
            honest: false,
            reason: String::new(),
            max_share: 0.0,
        };
        let kind = |after: &str, attacked| Kind {
            linux: "EST>".to_owned(),
            ours: "invalid tcp_ack_of_unseen".to_owned(),
            state: "ESTABLISHED".to_owned(),
            segment: ">RA".to_owned(),
            after: after.to_owned(),
            attacked,
        };
        assert!(known.covers(&kind("old ACK, SYN passed", true)));
        assert!(!known.covers(&kind("old ACK, SYN passed", false)));
        assert!(!known.covers(&kind("old ACK", true)));
    }

    #[test]
    fn the_list_can_be_read_and_every_entry_has_a_reason() {
        let list: List = toml::from_str(LIST).unwrap();
        assert!(
            list.deviation
                .iter()
                .all(|known| known.reason.len() > 20 && known.max_share < 0.01)
        );
    }
}
