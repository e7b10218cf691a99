//! `portcullis`: the firewall appliance built on the `portcullis` engine.

mod bench;
mod capture;
mod check;
mod config_file;
mod replay;

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
    /// Decide every packet of a capture and show the sessions
    Replay(replay::ReplayArgs),
    /// Validate a configuration file and print the values in force, each with its origin
    Check(check::CheckArgs),
    /// Measure what the engine costs on this machine
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Replay(args) => replay::run(&args).map_err(|error| (error.exit_code(), error.to_string())),
        Command::Check(args) => check::run(&args).map_err(|error| (1, error.to_string())),
        Command::Bench(args) => bench::run(&args).map_err(|error| (1, error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("portcullis: {message}");
            ExitCode::from(code)
        }
    }
}
