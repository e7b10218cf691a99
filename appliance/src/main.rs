//! `portcullis`: the firewall appliance built on the `portcullis` engine.

mod bench;
mod capture;
mod check;
mod config_file;
mod counts;
mod five_tuple;
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

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A stateful session firewall.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
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
        Command::Run(args) => run::run(&args).map_err(|error| (1, error.to_string())),
        Command::Check(args) => check::run(&args).map_err(|error| (1, error.to_string())),
        Command::Bench(args) => bench::run(&args).map_err(|error| (1, error.to_string())),
        Command::Sessions(args) => sessions::run(&args).map_err(|error| (1, error.to_string())),
        Command::Observe(args) => observe::run(&args).map_err(|error| (1, error.to_string())),
        Command::Simulate(args) => simulate::run(&args).map_err(|error| (1, error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            output::notice(&message);
            ExitCode::from(code)
        }
    }
}
