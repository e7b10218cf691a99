//! `portcullis check FILE`: is a configuration right, and what is in force with it?

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config_file::{self, ConfigFileError};
use crate::memory;
use crate::run::settings::sources_warning;

/// The arguments of `portcullis check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The configuration file (TOML)
    file: PathBuf,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// The file is wrong or cannot be read.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// The file is right, but does not compile.
    #[error(transparent)]
    Config(#[from] portcullis::ConfigError),
    /// The result could not be printed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Validates a configuration file and prints every value in force with its origin and the memory
/// that the tables take, then the warnings.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn run(args: &CheckArgs) -> Result<(), CheckError> {
    let (config, settings) = config_file::load_all(&args.file)?;
    let compiled = config.compile()?;
    let memory = compiled.memory();
    let mut out = io::stdout().lock();
    for value in config.effective() {
        writeln!(out, "{value}")?;
    }
    for line in settings.lines() {
        writeln!(out, "{line}")?;
    }
    for (name, set) in &config.address_sets {
        if let Some(loaded) = set.loaded() {
            writeln!(out, "# set: {} prefixes in the file of @{name}", loaded.len())?;
        }
    }
    for line in memory::lines(&memory) {
        writeln!(out, "{line}")?;
    }
    if compiled.policy.len() > 1 {
        let rules = compiled.policy.len();
        writeln!(
            out,
            "# rules: {rules}; those that one earlier rule covers are reported, and not those that only \
             several cover together"
        )?;
    }
    out.flush()?;
    for warning in config.warnings() {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    for warning in [sources_warning(&config), memory::warning(&memory)]
        .into_iter()
        .flatten()
    {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    Ok(())
}
