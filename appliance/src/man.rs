//! `portcullis man`: manual pages of the command line.

use std::path::PathBuf;
use std::{fs, io};

use clap_mangen::Man;

use crate::output;

/// The arguments of `portcullis man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands to a directory, instead of the first one to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the manual page of a command line, or writes a page for each of its commands.
///
/// # Errors
/// Returns an error if a page cannot be written.
pub(crate) fn run(args: &ManArgs, command: clap::Command) -> io::Result<()> {
    if let Some(directory) = &args.out {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
        };
        fs::create_dir_all(directory).map_err(named)?;
        return clap_mangen::generate_to(command, directory).map_err(named);
    }
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    output::print(&text)
}
