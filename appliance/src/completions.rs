//! `portcullis completions SHELL`: completions of the command line for a shell.

use std::io;

use clap_complete::Shell;

use crate::output;

/// The arguments of `portcullis completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions of a command line.
///
/// # Errors
/// Returns an error if standard output cannot be written.
pub(crate) fn run(args: &CompletionsArgs, mut command: clap::Command) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    output::print(&text)
}
