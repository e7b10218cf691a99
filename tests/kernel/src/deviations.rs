//! The kinds of deviation from Linux that were found, and those that are known and explained.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The list that goes with the tool.
const LIST: &str = include_str!("../deviations.toml");

/// Stories kept of a kind.
const EXAMPLES: usize = 2;

/// What two deviations have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What Linux says: a class, or `state` and the connection's state.
    pub linux: String,
    /// What the engine says: class and direction or drop reason, or `state` and the session's state.
    pub ours: String,
    /// The session's state before the packet, in the engine; `-` for none.
    pub state: String,
    /// The segment's flags, with `>` or `<` before them for its direction in the session, where it has one.
    pub segment: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            linux,
            ours,
            state,
            segment,
        } = self;
        write!(
            f,
            "Linux {linux:<24} ours {ours:<36} in {state:<12} segment {segment}"
        )
    }
}

/// A deviation that was looked at. `*` matches anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    linux: Vec<String>,
    ours: Vec<String>,
    states: Vec<String>,
    segments: Vec<String>,
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

/// What was found of a kind.
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
    /// Adds one. Its story is only told if it will be kept.
    pub fn add(&mut self, kind: Kind, story: impl FnOnce() -> String) {
        let found = self.found.entry(kind).or_default();
        found.count += 1;
        if found.stories.len() < EXAMPLES {
            found.stories.push(story());
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.found.values().map(|found| found.count).sum()
    }

    /// Prints every kind, with stories where it is not on the list or too frequent, and says whether all is well.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn report(&self, packets: u64, all_stories: bool) -> Result<bool> {
        let list: List = toml::from_str(LIST).context("deviations.toml")?;
        let mut shares = vec![0u64; list.deviation.len()];
        let mut well = true;
        for (kind, found) in &self.found {
            println!("{:>7}  {kind}", found.count);
            let known = list.deviation.iter().position(|known| known.covers(kind));
            match known.and_then(|at| Some((shares.get_mut(at)?, list.deviation.get(at)?))) {
                Some((share, known)) => {
                    *share += found.count;
                    println!("         listed: {}", known.reason);
                }
                None => {
                    println!("         NOT LISTED");
                    well = false;
                }
            }
            if known.is_none() || all_stories {
                for story in &found.stories {
                    println!("{story}");
                }
            }
        }
        for (known, count) in list.deviation.iter().zip(shares) {
            if count as f64 > known.max_share * packets as f64 {
                println!(
                    "more than {} of the packets: {} ({count})",
                    known.max_share, known.reason
                );
                well = false;
            }
        }
        Ok(well)
    }
}

impl Known {
    fn covers(&self, kind: &Kind) -> bool {
        let fits = |patterns: &[String], value: &str| patterns.iter().any(|pattern| matches(pattern, value));
        fits(&self.linux, &kind.linux)
            && fits(&self.ours, &kind.ours)
            && fits(&self.states, &kind.state)
            && fits(&self.segments, &kind.segment)
    }
}

/// Whether a value fits a pattern in which `*` stands for anything.
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
    fn the_list_can_be_read_and_every_entry_has_a_reason() {
        let list: List = toml::from_str(LIST).unwrap();
        assert!(
            list.deviation
                .iter()
                .all(|known| known.reason.len() > 20 && known.max_share < 0.01)
        );
    }
}
