//! Arguments of `portcullis observe`, with filters that `--not` negates.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::run::observe::spec::{ConditionSpec, Field, StreamSpec};
use crate::run::settings::DEFAULT_CONTROL;

/// Bytes of each packet that the appliance keeps.
pub(super) const MAX_SNAP: u64 = 512;
/// Past events that the appliance keeps.
const MAX_LAST: u64 = 4096;

/// The arguments of `portcullis observe`.
#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    /// The control socket of the appliance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub(super) control: PathBuf,
    /// Print an object of JSON a line instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// Print events as they happen; the default without --last
    #[arg(short, long)]
    follow: bool,
    /// Print the newest events of the past that match, at most this number
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=MAX_LAST))]
    last: Option<u64>,
    /// End after this number of events
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Most events in a second [default: 1000; with --explain: 10]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: Option<u32>,
    /// Print how the decision on each packet that matches came about
    #[arg(long, conflicts_with = "last")]
    pub(super) explain: bool,
    /// Write the packets to a capture (.pcapng), each with its verdict as a comment; `-` is
    /// standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    /// Most bytes of each packet in the capture, or in lines of JSON [default with --write: 512]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=MAX_SNAP))]
    snap: Option<u64>,
    #[command(flatten)]
    filter: FilterArgs,
}

impl ObserveArgs {
    /// Returns the stream to ask for.
    pub(super) fn spec(&self) -> StreamSpec {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let snap = self.snap.or(self.write.as_ref().map(|_| MAX_SNAP));
        StreamSpec {
            filter: self.filter.conditions.clone(),
            last: self.last.map(size),
            follow: self.follow || self.last.is_none(),
            rate: self.rate,
            explain: self.explain,
            snap: snap.map(size),
        }
    }
}

/// Option that names a field.
struct FieldOption {
    field: Field,
    name: &'static str,
    short: Option<char>,
    value: &'static str,
    help: &'static str,
}

/// Options of a filter, in the order of the help.
const FIELDS: [FieldOption; 11] = [
    FieldOption {
        field: Field::Address,
        name: "address",
        short: Some('a'),
        value: "PREFIX",
        help: "An address or prefix of either end; may be given again, as may all filters",
    },
    FieldOption {
        field: Field::Src,
        name: "src",
        short: Some('s'),
        value: "PREFIX",
        help: "An address or prefix of the packet's source, or of the session's initiator",
    },
    FieldOption {
        field: Field::Dst,
        name: "dst",
        short: Some('d'),
        value: "PREFIX",
        help: "An address or prefix of the packet's destination, or of the session's responder",
    },
    FieldOption {
        field: Field::Port,
        name: "port",
        short: Some('P'),
        value: "PORTS",
        help: "A port, or a range such as 8000-8999, of either end",
    },
    FieldOption {
        field: Field::Protocol,
        name: "protocol",
        short: Some('p'),
        value: "PROTOCOL",
        help: "An IP protocol, by name or number",
    },
    FieldOption {
        field: Field::Zone,
        name: "zone",
        short: Some('z'),
        value: "ZONE",
        help: "A zone, by name or number",
    },
    FieldOption {
        field: Field::Rule,
        name: "rule",
        short: Some('r'),
        value: "NAME",
        help: "The rule that has decided, or that has admitted the session",
    },
    FieldOption {
        field: Field::Reason,
        name: "reason",
        short: None,
        value: "NAME",
        help: "The name of a reason, such as tcp_no_session",
    },
    FieldOption {
        field: Field::Verdict,
        name: "verdict",
        short: None,
        value: "VERDICT",
        help: "A verdict: drop, reject, refuse, hold or forward",
    },
    FieldOption {
        field: Field::Event,
        name: "event",
        short: Some('e'),
        value: "EVENT",
        help: "A kind of event: opened, ended, denied, audited, dropped, rejected, refused, \
               tolerated, reset, limit, helper, asymmetry, held or forwarded",
    },
    FieldOption {
        field: Field::Session,
        name: "session",
        short: None,
        value: "NUMBER",
        help: "The number of a session, or its uid in the log",
    },
];

const NOT: &str = "not";
const HEADING: &str = "Filters";

/// Filters in the order of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct FilterArgs {
    conditions: Vec<ConditionSpec>,
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        let not = Arg::new(NOT)
            .long(NOT)
            .action(ArgAction::Append)
            .num_args(0)
            .default_missing_value("true")
            .help_heading(HEADING)
            .help("Negate the filter that follows");
        let mut command = command.arg(not);
        for option in &FIELDS {
            let mut arg = Arg::new(option.name)
                .long(option.name)
                .value_name(option.value)
                .action(ArgAction::Append)
                .help_heading(HEADING)
                .help(option.help);
            if let Some(short) = option.short {
                arg = arg.short(short);
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut filter = Self::default();
        filter.update_from_arg_matches(matches)?;
        Ok(filter)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let mut places: Vec<(usize, Option<(Field, String)>)> = Vec::new();
        let negations = matches.indices_of(NOT).into_iter().flatten();
        places.extend(negations.map(|place| (place, None)));
        for option in &FIELDS {
            let values = matches
                .get_many::<String>(option.name)
                .into_iter()
                .flatten();
            let indices = matches.indices_of(option.name).into_iter().flatten();
            let named = values.map(|value| Some((option.field, value.clone())));
            places.extend(indices.zip(named));
        }
        places.sort_by_key(|(place, _)| *place);
        let mut is_negated = false;
        for (_, filter) in places {
            match filter {
                None if is_negated => return Err(dangling("--not twice in a row")),
                None => is_negated = true,
                Some((field, value)) => self.conditions.push(ConditionSpec {
                    field,
                    value,
                    not: std::mem::take(&mut is_negated),
                }),
            }
        }
        if is_negated {
            return Err(dangling("--not without a filter after it"));
        }
        Ok(())
    }
}

fn dangling(what: &str) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{what}\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ObserveArgs,
    }

    fn spec(line: &str) -> Result<StreamSpec, String> {
        let words = std::iter::once("observe").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(cli.args.spec())
    }

    fn conditions(line: &str) -> Vec<(Field, String, bool)> {
        let spec = spec(line).unwrap();
        let conditions = spec.filter.into_iter();
        conditions
            .map(|each| (each.field, each.value, each.not))
            .collect()
    }

    #[test]
    fn not_negates_the_next_filter_alone() {
        let all = [
            (Field::Address, "10.0.0.1".to_owned(), false),
            (Field::Port, "80".to_owned(), true),
            (Field::Address, "10.0.0.2".to_owned(), true),
            (Field::Zone, "blue".to_owned(), false),
        ];
        for line in [
            "--address 10.0.0.1 --not --port 80 --not --address 10.0.0.2 --zone blue",
            "-a 10.0.0.1 --not -P 80 --not -a 10.0.0.2 -z blue",
            "--address=10.0.0.1 --not --port=80 --json --not --address=10.0.0.2 --zone=blue",
            "-a10.0.0.1 --not -P80 --not --rate 5 -a10.0.0.2 -zblue",
        ] {
            assert_eq!(conditions(line), all, "{line}");
        }
        assert!(conditions("").is_empty());
    }

    #[test]
    fn a_negation_without_a_filter_is_an_error() {
        for line in ["--not", "--port 80 --not", "--not --not --port 80"] {
            let error = spec(line).unwrap_err();
            assert!(error.contains("--not"), "{error}");
        }
    }

    #[test]
    fn a_stream_follows_unless_only_past_events_are_asked_for() {
        let of = |line| {
            let spec = spec(line).unwrap();
            (spec.last, spec.follow, spec.snap)
        };
        assert_eq!(of(""), (None, true, None));
        assert_eq!(of("--last 5"), (Some(5), false, None));
        assert_eq!(of("--last 5 --follow"), (Some(5), true, None));
        assert_eq!(of("--write x.pcapng"), (None, true, Some(512)));
        assert_eq!(of("--write x.pcapng --snap 64"), (None, true, Some(64)));
        for wrong in ["--last 0", "--snap 513", "--rate 0", "--explain --last 3"] {
            assert!(spec(wrong).is_err(), "{wrong}");
        }
    }
}
