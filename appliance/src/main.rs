//! `portcullis`: the firewall appliance built on the `portcullis` engine.

mod bench;
mod capture;
mod check;
mod completions;
mod config_file;
mod counts;
mod demo;
mod figures;
mod five_tuple;
mod init;
mod man;
mod memory;
mod observe;
mod output;
mod replay;
mod run;
#[cfg(test)]
mod schema;
mod session_view;
mod sessions;
mod simulate;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

/// A stateful session firewall. `portcullis demo` shows it at work, `init` writes a configuration,
/// and `run` starts it behind a load balancer
#[derive(Debug, Parser)]
#[command(name = "portcullis", version = VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Color the output: always, never, or on a terminal, as the environment asks (`NO_COLOR`)
    #[arg(
        long,
        global = true,
        overrides_with = "color",
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    color: ColorChoice,
}

/// Version, with the commit and its date if the sources were those of a repository.
const VERSION: &str = env!("PORTCULLIS_VERSION");

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the appliance at work on this machine: real traffic, an attack, and what became of both
    Demo(demo::DemoArgs),
    /// Write a commented configuration for a common scenario
    Init(init::InitArgs),
    /// Run the appliance: decide the packets in GENEVE tunnels, and return the allowed ones
    Run(run::RunArgs),
    /// Decide every packet of a capture and show the sessions
    Replay(replay::ReplayArgs),
    /// Validate a configuration file and print the values in force, each with its origin
    Check(check::CheckArgs),
    /// Measure the cost of the engine on this machine
    Bench(bench::BenchArgs),
    /// List and end the sessions of a running appliance, read its counters, and reload it
    Sessions(Box<sessions::SessionsArgs>),
    /// Watch a running appliance: sessions, denials, drops with their reasons, and packets
    Observe(Box<observe::ObserveArgs>),
    /// Act as a Gateway Load Balancer: send packets to an appliance and check every reply
    Simulate(Box<portcullis_simulator::SimulateArgs>),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(man::ManArgs),
}

impl Cli {
    /// Parses the arguments. Help and errors are colored as the arguments ask, valid or not.
    fn parse_all(args: &[OsString]) -> Result<Self, clap::Error> {
        output::set_color(color_of(args));
        let matches = Self::command().try_get_matches_from(args)?;
        let cli = Self::from_arg_matches(&matches)?;
        output::set_color(cli.color);
        Ok(cli)
    }
}

/// Returns the last value of `--color` among arguments that are not parsed yet; `auto` without a
/// valid one. After `--` there are no options.
fn color_of(args: &[OsString]) -> ColorChoice {
    let args = args.iter().map_while(|arg| arg.to_str());
    let args: Vec<_> = args.take_while(|arg| *arg != "--").collect();
    let mut values = args.iter().enumerate().filter_map(|(n, arg)| {
        let next = || args.get(n + 1).copied();
        arg.strip_prefix("--color=")
            .or_else(|| (*arg == "--color").then(next).flatten())
    });
    let choice = |value: &str| ColorChoice::from_str(value, false).ok();
    values.next_back().and_then(choice).unwrap_or_default()
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::parse_all(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors. The status of other errors is 1; 2 means a broken
            // capture.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match cli.command {
        Command::Replay(args) => {
            replay::run(&args).map_err(|error| (error.exit_code(), error.to_string()))
        }
        Command::Demo(args) => {
            demo::run(&args).map_err(|error| (error.exit_code(), error.to_string()))
        }
        Command::Init(args) => init::run(&args).map_err(|error| (1, error.to_string())),
        Command::Run(args) => run::run(&args).map_err(|error| (1, error.to_string())),
        Command::Check(args) => check::run(&args).map_err(|error| (1, error.to_string())),
        Command::Bench(args) => bench::run(&args).map_err(|error| (1, error.to_string())),
        Command::Sessions(args) => sessions::run(&args).map_err(|error| (1, error.to_string())),
        Command::Observe(args) => observe::run(&args).map_err(|error| (1, error.to_string())),
        Command::Simulate(args) => simulate::run(&args).map_err(|error| (1, error.to_string())),
        Command::Completions(args) => {
            completions::run(&args, Cli::command()).map_err(|error| (1, error.to_string()))
        }
        Command::Man(args) => {
            man::run(&args, Cli::command()).map_err(|error| (1, error.to_string()))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            output::notice(&message);
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color(line: &str) -> ColorChoice {
        let args: Vec<_> = line.split(' ').map(OsString::from).collect();
        color_of(&args)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_last_color_counts_wherever_it_is() {
        assert_eq!(
            color("portcullis --color=never check f"),
            ColorChoice::Never
        );
        assert_eq!(
            color("portcullis check f --color always"),
            ColorChoice::Always
        );
        let twice = "portcullis --color never --color=always";
        assert_eq!(color(twice), ColorChoice::Always);
        for line in [
            "portcullis --color never --color=always check f",
            "portcullis --color never check f --color=always",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.color, ColorChoice::Always, "{line}");
        }
        for line in [
            "portcullis check",
            "portcullis --color",
            "p --color=nonsense",
            "portcullis check -- --color=always",
        ] {
            assert_eq!(color(line), ColorChoice::Auto, "{line}");
        }
    }

    #[test]
    fn the_version_begins_with_that_of_the_package() {
        let rest = VERSION.strip_prefix(env!("CARGO_PKG_VERSION"));
        let rest = rest.expect("the package's version");
        assert!(rest.is_empty() || rest.starts_with(" ("), "{VERSION}");
    }
}
