//! `portcullis sessions`: sends requests to a running appliance over its control socket.

pub(crate) mod client;
mod error;
mod json;
mod table;
mod top;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portcullis::event::Expectation;

use self::client::Client;
pub(crate) use self::error::SessionsError;
use self::top::TopArgs;
use crate::run::filter_args::FilterArgs;
use crate::run::protocol::{FilterSpec, ListingRequest, Reply, Request};
use crate::run::settings::DEFAULT_CONTROL;

/// The arguments of `portcullis sessions`.
#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// The control socket of the appliance
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL, global = true)]
    control: PathBuf,
    /// Print lines of JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most sessions to list: those with the most bytes
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// End sessions; both ends of a TCP session get a RST
    Delete {
        #[command(flatten)]
        filter: FilterArgs,
        /// End every session
        #[arg(long, conflicts_with = "FilterArgs")]
        all: bool,
    },
    /// Show everything about one session: windows, lifetime, rule, parent, tunnel
    Explain {
        /// Number of the session in the list
        id: u64,
    },
    /// List announced sessions that have not come yet
    Expectations {
        /// Import the announced sessions of another appliance instead, from a file that
        /// `expectations --json` has written there
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
    },
    /// List paths of which only one direction passes here, with the likely causes
    Asymmetry {
        /// Clear the report afterwards
        #[arg(long)]
        clear: bool,
    },
    /// Show counters and gauges
    Stats,
    /// List each rule's decisions, the traffic of its sessions, and its last match
    Rules,
    /// Show the busiest sessions, or groups of them, until `q` is pressed; `?` lists the keys
    Top(TopArgs),
    /// List the sessions that a reload of a configuration file would end
    Preview {
        /// The configuration file (TOML)
        file: PathBuf,
    },
    /// Adopt connections in their middle for some seconds, where the policy admits them: a load
    /// balancer hands over live flows
    Adopt {
        /// Duration; 0 ends it
        seconds: u64,
    },
    /// Read the configuration file again
    Reload,
    /// Show the verdict of the health checks
    Health,
    /// Show the store that appliances share: its connections, and what became of records and
    /// questions
    Store,
}

/// Asks, and prints the answer.
///
/// # Errors
/// The appliance cannot be asked, or refuses.
pub(crate) fn run(args: &SessionsArgs) -> Result<(), SessionsError> {
    let mut client = Client::connect(&args.control)?;
    if let Some(Command::Top(top)) = &args.command
        && !args.json
        && top::has_terminal()
    {
        request(args)?;
        return top::show(client, &args.control, top);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = ask(args, &mut client, &mut out);
    match out.flush().map_err(SessionsError::Output).and(done) {
        // The reader has closed the pipe.
        Err(SessionsError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

impl Command {
    const fn name(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "delete",
            Self::Explain { .. } => "explain",
            Self::Expectations { .. } => "expectations",
            Self::Asymmetry { .. } => "asymmetry",
            Self::Stats => "stats",
            Self::Rules => "rules",
            Self::Top(_) => "top",
            Self::Preview { .. } => "preview",
            Self::Adopt { .. } => "adopt",
            Self::Reload => "reload",
            Self::Health => "health",
            Self::Store => "store",
        }
    }
}

fn request(args: &SessionsArgs) -> Result<Request, SessionsError> {
    if let Some(command) = &args.command
        && (args.limit.is_some() || args.filter != FilterArgs::default())
    {
        // A filter of the list must not be taken for a filter of the sessions to end.
        return Err(SessionsError::Misplaced(command.name()));
    }
    Ok(match &args.command {
        None => Request::Sessions(ListingRequest {
            filter: FilterSpec::from(&args.filter),
            limit: args.limit,
            ..ListingRequest::default()
        }),
        Some(Command::Top(top)) => Request::Sessions(top.request()),
        Some(Command::Delete { filter, all }) => Request::Delete {
            filter: FilterSpec::from(filter),
            all: *all,
        },
        Some(Command::Explain { id }) => Request::Explain { id: *id },
        Some(Command::Expectations { import: None }) => Request::Expectations,
        Some(Command::Expectations { import: Some(file) }) => Request::Import {
            expectations: expectations(file)?,
        },
        Some(Command::Asymmetry { clear }) => Request::Asymmetry { clear: *clear },
        Some(Command::Stats) => Request::Stats,
        Some(Command::Rules) => Request::Rules,
        Some(Command::Preview { file }) => {
            let (name, text) = read(file)?;
            Request::Preview { name, text }
        }
        Some(Command::Adopt { seconds }) => Request::Adopt { seconds: *seconds },
        Some(Command::Reload) => Request::Reload,
        Some(Command::Health) => Request::Health,
        Some(Command::Store) => Request::Store,
    })
}

fn read(file: &Path) -> Result<(String, String), SessionsError> {
    let path = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(SessionsError::File { path, source }),
    }
}

/// Returns the announced sessions that another appliance has listed.
fn expectations(file: &Path) -> Result<Vec<Expectation>, SessionsError> {
    let (path, text) = read(file)?;
    let mut found = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(expectation) => found.push(expectation),
            Err(error) => return Err(SessionsError::Answer(format!("{path}: {error}"))),
        }
    }
    Ok(found)
}

pub(crate) fn ask(
    args: &SessionsArgs,
    client: &mut Client,
    out: &mut impl Write,
) -> Result<(), SessionsError> {
    let request = request(args)?;
    if let Some(Command::Top(top)) = &args.command {
        return top::write(client, top, args.json, out);
    }
    let is_list = matches!(request, Request::Sessions(_));
    client.send(&request)?;
    let mut printed = 0;
    loop {
        let reply = client.receive()?;
        if let Reply::Error(error) = reply {
            return Err(SessionsError::Refused(error));
        }
        let is_last = matches!(reply, Reply::Done { .. });
        let line = if args.json {
            json::line(&reply)
                .map_err(|error| SessionsError::Answer(error.to_string()))?
                .unwrap_or_default()
        } else {
            table::line(&reply, printed, is_list)
        };
        if !line.is_empty() {
            writeln!(out, "{line}").map_err(SessionsError::Output)?;
        }
        printed += 1;
        if is_last {
            return Ok(());
        }
    }
}
