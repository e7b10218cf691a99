//! Filter of sessions, as options of `portcullis sessions`, and as the filter line of `top` and of
//! the console.

use std::time::Duration;

use clap::{Args, Parser};

use super::protocol::FilterSpec;

/// Filter of sessions: those that match all of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub(crate) struct FilterArgs {
    /// The number of a session; may be given again, as may all that name several things
    #[arg(long, value_name = "NUMBER")]
    id: Vec<u64>,
    /// An address or prefix of either end
    #[arg(short, long, value_name = "PREFIX")]
    address: Vec<String>,
    /// An address or prefix of the initiator
    #[arg(short, long, value_name = "PREFIX")]
    src: Vec<String>,
    /// An address or prefix of the responder
    #[arg(short, long, value_name = "PREFIX")]
    dst: Vec<String>,
    /// A port, or a range such as 8000-8999, of either end
    #[arg(short = 'P', long, value_name = "PORTS")]
    port: Vec<String>,
    /// An IP protocol, by name or number
    #[arg(short, long)]
    protocol: Option<String>,
    /// The name of a state, such as ESTABLISHED
    #[arg(long)]
    state: Option<String>,
    /// A zone, by name or number
    #[arg(short, long)]
    zone: Option<String>,
    /// The name of the rule that has admitted it
    #[arg(short, long)]
    rule: Option<String>,
    /// The least age, such as 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    min_age: Option<Duration>,
    /// The least time since its last packet
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    min_idle: Option<Duration>,
    /// The least number of bytes, both directions together
    #[arg(long, value_name = "BYTES")]
    min_bytes: Option<u64>,
}

impl From<&FilterArgs> for FilterSpec {
    fn from(args: &FilterArgs) -> Self {
        let millis = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        Self {
            id: args.id.clone(),
            address: args.address.clone(),
            src: args.src.clone(),
            dst: args.dst.clone(),
            port: args.port.clone(),
            protocol: args.protocol.clone(),
            state: args.state.clone(),
            zone: args.zone.clone(),
            rule: args.rule.clone(),
            min_age_ms: millis(args.min_age),
            min_idle_ms: millis(args.min_idle),
            min_bytes: args.min_bytes,
        }
    }
}

/// Words of a filter line.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct FilterLine {
    #[command(flatten)]
    filter: FilterArgs,
}

impl FilterArgs {
    /// Returns the words of the filter, as [`FilterArgs::from_line`] reads them.
    pub(crate) fn line(&self) -> String {
        let mut words = Vec::new();
        let mut put = |name: &str, value: &str| {
            let quoted = shlex::try_quote(value).unwrap_or_default();
            words.push(format!("{name} {quoted}"));
        };
        for (name, values) in [
            ("address", &self.address),
            ("src", &self.src),
            ("dst", &self.dst),
            ("port", &self.port),
        ] {
            values.iter().for_each(|value| put(name, value));
        }
        for (name, value) in [
            ("protocol", &self.protocol),
            ("state", &self.state),
            ("zone", &self.zone),
            ("rule", &self.rule),
        ] {
            value.iter().for_each(|value| put(name, value));
        }
        for (name, time) in [("min-age", self.min_age), ("min-idle", self.min_idle)] {
            let time = time.map(|time| humantime::format_duration(time).to_string());
            time.iter().for_each(|time| put(name, time));
        }
        let ids = self.id.iter().map(|id| ("id", *id));
        let bytes = self.min_bytes.map(|bytes| ("min-bytes", bytes));
        ids.chain(bytes)
            .for_each(|(name, number)| put(name, &number.to_string()));
        words.join(" ")
    }

    /// Returns the filter that a line names: names of options with their values, such as
    /// `src 10.0.0.0/8 protocol tcp`. The dashes of a name may be left out, and a value with spaces
    /// is quoted.
    ///
    /// # Errors
    /// Returns a sentence about a name or value that is invalid.
    pub(crate) fn from_line(line: &str) -> Result<Self, String> {
        let split = shlex::split(line).ok_or("a quotation mark is not closed")?;
        let mut words = Vec::new();
        let mut rest = split.into_iter();
        while let Some(name) = rest.next() {
            let dashes = if name.starts_with('-') { "" } else { "--" };
            let mut word = format!("{dashes}{name}");
            // The value of `-rweb` is in the word.
            let is_short = dashes.is_empty() && !name.starts_with("--");
            let is_complete = name.contains('=') || is_short && name.chars().count() > 2;
            // Joined to its name, a value may begin with a dash.
            if !is_complete && let Some(value) = rest.next() {
                word.push('=');
                word.push_str(&value);
            }
            words.push(word);
        }
        let parsed = FilterLine::try_parse_from(words);
        parsed.map(|line| line.filter).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_words_of_the_options() {
        let wanted = FilterArgs {
            src: vec!["10.0.0.0/8".to_owned(), "192.0.2.1".to_owned()],
            protocol: Some("tcp".to_owned()),
            min_age: Some(Duration::from_secs(300)),
            ..FilterArgs::default()
        };
        for line in [
            "src 10.0.0.0/8 src 192.0.2.1 protocol tcp min-age 5m",
            "--src 10.0.0.0/8 -s 192.0.2.1 -p tcp --min-age=5m",
            " src=10.0.0.0/8  src=192.0.2.1 protocol=tcp min-age=5m ",
        ] {
            assert_eq!(FilterArgs::from_line(line).unwrap(), wanted, "{line}");
            assert_eq!(FilterArgs::from_line(&wanted.line()).unwrap(), wanted);
        }
        assert_eq!(FilterArgs::from_line("").unwrap(), FilterArgs::default());
    }

    #[test]
    fn a_value_may_begin_with_a_dash_and_have_any_sign() {
        for name in ["-web", "--zone", "-", "a=b", "=", "it's a rule", ""] {
            let wanted = FilterArgs {
                rule: Some(name.to_owned()),
                ..FilterArgs::default()
            };
            assert_eq!(FilterArgs::from_line(&wanted.line()).unwrap(), wanted);
        }
        let short = FilterArgs::from_line("-r -web").unwrap();
        assert_eq!(short.rule.unwrap(), "-web");
        let joined = FilterArgs::from_line("-rweb zone blue").unwrap();
        assert_eq!(joined.rule.unwrap(), "web");
        assert_eq!(joined.zone.unwrap(), "blue");
    }

    #[test]
    fn a_wrong_line_is_refused_in_a_line() {
        for (line, part) in [
            ("sorce 10.0.0.1", "'--sorce'"),
            ("src", "'--src <PREFIX>'"),
            ("min-age soon", "'soon'"),
            ("port 80 443", "'--443'"),
            ("-", "'-'"),
        ] {
            let error = FilterArgs::from_line(line).unwrap_err();
            assert!(
                error.contains(part) && !error.contains('\n'),
                "{line}: {error}"
            );
        }
    }
}
